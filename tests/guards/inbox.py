"""The inbox of the incident as a model of its own for each test: a class that is guarded stays so."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from statekit import TransitionTable, guard

TABLE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


class Status(enum.StrEnum):
    READY = "READY"
    SPAM_REVIEW = "SPAM_REVIEW"
    PROMOTED = "PROMOTED"
    COMPLETED = "COMPLETED"


def new_base() -> Any:
    """Return a declarative base with a MetaData of its own."""

    class Base(DeclarativeBase):
        pass

    return Base


def message_class(
    *,
    table: TransitionTable | None = TABLE,
    type_: Any = None,
    default: Any = "READY",
    name: str = "message",
    **options: Any,
) -> Any:
    """Return a new class Message(id, status, subject), guarded with these options; ``table=None`` leaves it bare."""

    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = name
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(type_ or sa.String(20), default=default)
        subject = mapped_column(sa.String(50), default="")

    if table is not None:
        guard(Message.status, table, **options)
    return Message


def fill(engine: sa.Engine, message: Any, *states: str) -> None:
    """Make the tables, and messages 1, 2, 3, … in the given states, past every guard."""
    message.metadata.create_all(engine)
    rows = [{"id": number, "status": state, "subject": ""} for number, state in enumerate(states, 1)]
    if rows:
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(message)), rows)


def unguarded(message: Any) -> sa.Table:
    """Return a copy of a class's table, or of a table, which no guard knows: to write past every guard."""
    table = message if isinstance(message, sa.Table) else message.__table__
    copy = table.to_metadata(sa.MetaData())
    for column in copy.columns:
        column.info = {}
    return copy


def stored(engine: sa.Engine, message: Any) -> list[Any]:
    """Return the states that the database holds, by id."""
    with engine.connect() as connection:
        table = message.__table__
        return list(connection.scalars(sa.select(table.c.status).order_by(table.c.id)))


def load(session: Session, message: Any) -> list[Any]:
    """Return all messages by id."""
    return list(session.scalars(sa.select(message).order_by(message.id)))


@contextmanager
def executed(engine: sa.Engine) -> Iterator[list[str]]:
    """Collect the SQL that is executed."""
    texts: list[str] = []

    def note(conn: Any, cursor: Any, text: str, *args: Any) -> None:
        texts.append(text)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield texts
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
