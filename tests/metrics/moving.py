"""Moves of every kind, for whatever counts them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import IllegalTransition, TransitionTable, operation, override
from tests.guards.inbox import fill, message_class

WITH_NULL = TransitionTable("READY → PROMOTED", (None, "READY"), initial=["READY", None])
"""A table in which NULL is a state."""

Row = tuple[str, str, str, str, str, str]
"""A kind, and what the five labels say: model, attribute, source, target, and operation ("" for none)."""

EVERY_KIND: dict[Row, int] = {
    ("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", "Spam capture"): 2,
    ("allowed", "Message", "status", "READY", "SPAM_REVIEW", "Spam capture"): 1,
    ("observed", "Message", "status", "PROMOTED", "READY", "Adoption"): 2,
    ("overridden", "Message", "status", "SPAM_REVIEW", "COMPLETED", ""): 1,
    ("blocked", "Message", "status", "(new)", "COMPLETED", ""): 1,
}
"""What :func:`make_every_kind` amounts to."""


def make_every_kind(engine: sa.Engine) -> None:
    message = message_class()
    fill(engine, message, "READY", "PROMOTED", "PROMOTED")
    with operation("Spam capture", on_illegal="skip"):
        move(engine, message, "SPAM_REVIEW")
    with operation("Adoption", on_illegal="observe"):
        move(engine, message, "READY", message.id > 1)
    with override("wrong queue, ticket 4711"):
        move(engine, message, "COMPLETED", message.id == 1)
    with suppress(IllegalTransition):
        add(engine, message, "COMPLETED")


def move(engine: sa.Engine, message: Any, target: str | None, *where: Any) -> None:
    """Move objects in one flush."""
    with Session(engine) as session:
        for each in session.scalars(sa.select(message).where(*where).order_by(message.id)):
            each.status = target
        session.commit()


def add(engine: sa.Engine, message: Any, status: str | None) -> None:
    with Session(engine) as session:
        session.add(message(id=99, status=status))
        session.commit()


def from_null_and_new(engine: sa.Engine) -> None:
    """Have a row in NULL, and a new one, refused on their way to PROMOTED, and one from READY to NULL."""
    message = message_class(table=WITH_NULL, default=None)
    fill(engine, message, None, "READY")  # type: ignore[arg-type]
    with suppress(IllegalTransition):
        move(engine, message, "PROMOTED", message.id == 1)
    with suppress(IllegalTransition):
        add(engine, message, "PROMOTED")
    with suppress(IllegalTransition):
        move(engine, message, None, message.id == 2)
