"""A mailbox with a column of every type, and what the tests of bulk transitions have in common."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship

from statekit import guard, ledger
from tests.guards.inbox import TABLE, unguarded

TARGET = "SPAM_REVIEW"

STATES = ("READY", "READY", "PROMOTED", "COMPLETED", TARGET, "NO SUCH STATE", None)
"""The states of a mailbox, in turn: two rows of seven may move to the target, and one is there."""

TEXTS = (
    "plain",
    "it's",
    'say "hi"',
    "100%",
    "%s %(subject)s %%",
    "back\\slash \\' \\n \\x41",
    "one:two ::three :subject",
    "two\nlines\r\n\tand a tab",
    "emoji 🎉 é ß",
    "? ?? $1 {x} __[POSTCOMPILE_subject_1] __[SCHEMA__none]",
    "-- no /* comment */;",
    "",
)

BYTES = (b"plain", b"it's", b"\\x41", b"A", b"back\\slash", b"\x00\xff\xfe", b"", b"100%")


class Colour(enum.Enum):
    RED = "it's red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def mailbox() -> tuple[Any, Any]:
    """Return new classes Message and Person, with a ledger in their MetaData; the status of a message is guarded."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "person"
        id = mapped_column(sa.Integer, primary_key=True)
        name = mapped_column(sa.String(50))

    class Message(Base):
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        sender_id = mapped_column(sa.ForeignKey("person.id"))
        parent_id = mapped_column(sa.ForeignKey("message.id"))
        subject = mapped_column(sa.Text)
        note = mapped_column(sa.String(50))
        number = mapped_column(sa.Integer)
        price = mapped_column(sa.Numeric(12, 4))
        ratio = mapped_column(sa.Float)
        at = mapped_column(sa.DateTime)
        at_zone = mapped_column(sa.DateTime(timezone=True))
        day = mapped_column(sa.Date)
        hour = mapped_column(sa.Time)
        lapse = mapped_column(sa.Interval)
        raw = mapped_column(sa.LargeBinary)
        colour = mapped_column(sa.Enum(Colour))
        uid = mapped_column(sa.Uuid)
        data = mapped_column(sa.JSON().with_variant(postgresql.JSONB(), "postgresql"))
        flag = mapped_column(sa.Boolean)
        tags = mapped_column(sa.JSON().with_variant(postgresql.ARRAY(sa.Text()), "postgresql"))
        sender = relationship(Person, backref="messages")
        parent = relationship("Message", remote_side=id, backref="answers")

    guard(Message.status, TABLE)
    ledger.add_to(Base.metadata)
    return Message, Person


NOON = dt.datetime(2026, 3, 1, 12)


def row_of(number: int) -> dict[str, Any]:
    """Return a message; each seventh has the same state, and the values of each column are in turn, too."""
    zone = dt.timezone(dt.timedelta(hours=number % 3))
    is_null = number % 11 == 0
    return {
        "id": number,
        "status": STATES[number % len(STATES)],
        "sender_id": number % 3 + 1,
        "parent_id": number // 2 or None,
        "subject": TEXTS[number % len(TEXTS)],
        "note": None if is_null else "note",
        "number": None if is_null else number % 5 - 2,
        "price": None if is_null else decimal.Decimal(number % 9) / 8 - decimal.Decimal("0.5"),
        "ratio": None if is_null else number % 7 / 10,
        "at": NOON + dt.timedelta(hours=number % 13, microseconds=number % 2),
        "at_zone": (NOON + dt.timedelta(hours=number % 13)).replace(tzinfo=zone),
        "day": NOON.date() + dt.timedelta(days=number % 6),
        "hour": dt.time(number % 24, 30),
        "lapse": dt.timedelta(hours=number % 4, microseconds=1),
        "raw": BYTES[number % len(BYTES)],
        "colour": None if is_null else [*Colour][number % 2],
        "uid": uuid.UUID(int=number % 10),
        "data": {"kind": TEXTS[number % len(TEXTS)], "of": [number % 3], "deep": {"n": number % 4}},
        "flag": None if is_null else number % 2 == 0,
        "tags": [TEXTS[number % len(TEXTS)], "all"],
    }


def fill_mailbox(engine: sa.Engine, message: Any, person: Any, number: int = 42) -> None:
    """Make the tables and their rows, past every guard."""
    message.metadata.create_all(engine)
    people = [{"id": 1, "name": "ada"}, {"id": 2, "name": "O'Brien"}, {"id": 3, "name": "100%"}]
    with engine.begin() as connection:
        connection.execute(sa.insert(person), people)
        connection.execute(sa.insert(unguarded(message)), [row_of(each) for each in range(1, number + 1)])


def states(engine: sa.Engine, message: Any) -> dict[Any, str | None]:
    """Return the state of each message."""
    table = unguarded(message)
    with engine.connect() as connection:
        return dict(connection.execute(sa.select(table.c.id, table.c.status)).all())


def restore(engine: sa.Engine, message: Any, keys: Iterable[int]) -> None:
    """Give messages the states with which they were made."""
    table = unguarded(message)
    update = sa.update(table).where(table.c.id == sa.bindparam("key"))
    rows = [{"key": key, "status": STATES[key % len(STATES)]} for key in keys]
    if rows:
        with engine.begin() as connection:
            connection.execute(update, rows)
