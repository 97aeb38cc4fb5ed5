"""The job, run without statekit, with it, and as a developer sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.orm import Session

import statekit
from examples.inbox import model
from examples.inbox.capture import capture_spam
from examples.inbox.model_guarded import Message
from statekit.observe.operation import Operation


class GuardedRun(NamedTuple):
    """What a run with statekit gives back."""

    scanned: int
    operation: Operation


def capture_without_statekit(session: Session) -> int:
    """Run the job on the model without a guard, and return how many messages were scanned."""
    return capture_spam(session, model.Message)


def capture_with_statekit(session: Session) -> GuardedRun:
    """Skip and count what the table does not allow; the rest goes on."""
    with statekit.operation("Spam capture", on_illegal="skip") as op:
        scanned = capture_spam(session, Message)
    return GuardedRun(scanned, op)


def first_error(engine: Engine) -> tuple[statekit.IllegalTransition, tuple[statekit.Transition, ...]]:
    """Run the job in the default mode, "raise".

    Returns:
        The error that stops it, and the transitions that the message named in it may make.
    """
    with Session(engine) as session:
        try:
            capture_spam(session, Message)
        except statekit.IllegalTransition as error:
            session.rollback()
            return error, statekit.available(session.get_one(Message, error.identity))
    raise RuntimeError("the guard let the job pass")


@contextmanager
def log_lines(level: int = logging.WARNING) -> Iterator[list[str]]:
    """Collect what statekit writes to the log in the block, from a level on, instead of having it on stderr."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collector()
    logger = logging.getLogger("statekit")
    level_before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.setLevel(level_before)
        logger.removeHandler(handler)
