"""Calls of bulk transitions that are only to make their jobs.

Whoever runs a function of the application again and again needs the job before the first time, so that a second try
goes on with it. Inside of :func:`preparing`, the function's own call makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from statekit.bulk.options import Options

_IS_ON: ContextVar[bool] = ContextVar("statekit_bulk_preparing", default=False)


@contextmanager
def preparing() -> Iterator[None]:
    """Have each bulk transition of this thread or task do what :func:`statekit.bulk.prepare` does, in a block."""
    token = _IS_ON.set(True)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def is_preparing() -> bool:
    """Return whether the call is inside of :func:`preparing`."""
    return _IS_ON.get()


def in_time(options: Options) -> Options:
    """Return what a caller has chosen, without a limit of time where it is only to count."""
    return replace(options, budget=None, deadline=None) if is_preparing() else options
