"""Listeners to ``before_execute`` may change a statement: what is asked about is what they make of it.

They are called once: the statement is then executed without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection


def are_there(connection: Connection) -> bool:
    """Return whether anybody listens to ``before_execute`` on a connection."""
    return bool((connection._has_events or connection.engine._has_events) and connection.dispatch.before_execute)


def change(connection: Connection, statement: Any, parameters: Any, options: Any) -> tuple[Any, Any]:
    """Call the listeners; return the statement and its sets of parameters as they leave them."""
    merged = statement._execution_options.merge_with(connection._execution_options, options)
    changed, sets, *_ = connection._invoke_before_exec_event(statement, parameters, merged)
    return changed, sets


@contextmanager
def not_again(connection: Connection) -> Iterator[None]:
    """Leave the listeners out of the next statement on a connection."""
    before = connection.__dict__.get("dispatch")

    def put_back() -> None:
        if before is None:
            connection.__dict__.pop("dispatch", None)
        else:
            connection.__dict__["dispatch"] = before

    dispatch: Any = connection.dispatch
    connection.__dict__["dispatch"] = _OnceWithout(dispatch, put_back)
    try:
        yield
    finally:
        put_back()


class _OnceWithout:
    """The listeners of a connection, but for the first time that somebody asks for those to ``before_execute``."""

    def __init__(self, dispatch: Any, put_back: Callable[[], None]) -> None:
        self._dispatch = dispatch
        self._put_back = put_back

    @property
    def before_execute(self) -> tuple[Any, ...]:
        self._put_back()
        return ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatch, name)
