"""The models that are flushed: the same one bare, with ``version_id_col``, and guarded.

They are declared by a call and not by the import: pytest imports every module to look for doctests, and the tests are
not to find guards that none of them declared.
"""

from __future__ import annotations

import enum
import random
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

ROWS = 2_000
START, GOAL = "READY", "PROMOTED"
BIG_STATES = 100


class Status(enum.StrEnum):
    """The states of the README's example."""

    READY = "READY"
    SPAM_REVIEW = "SPAM_REVIEW"
    PROMOTED = "PROMOTED"
    COMPLETED = "COMPLETED"


def new_base() -> Any:
    """Return a declarative base of its own."""

    class Base(DeclarativeBase):
        pass

    return Base


def message(base: Any, name: str, *mixins: type, status: Any = None, **more: Any) -> Any:
    """Declare a class for a table of its own with an id, a status and a subject.

    Args:
        base: the declarative base.
        name: of the class; in lower case, of the table.
        mixins: further bases of the class, before the declarative one.
        status: the type of that column, if it is not a string.
        more: further attributes of the class.
    """
    attributes = {
        "__tablename__": name.lower(),
        "__module__": __name__,
        "id": mapped_column(sa.Integer, primary_key=True),
        "status": mapped_column(status or sa.String(20), nullable=False),
        "subject": mapped_column(sa.String(100), nullable=False),
    }
    return type(name, (*mixins, base), attributes | more)


def fill(connection: sa.Connection, model: Any, start: Any = START) -> None:
    """Insert the rows that every flush begins with."""
    rows = [{"id": number, "status": start, "subject": "x"} for number in range(1, ROWS + 1)]
    if "version" in model.__table__.c:
        rows = [row | {"version": 1} for row in rows]
    connection.execute(sa.insert(model.__table__), rows)


def edges(states: int) -> list[tuple[str, str]]:
    """Return four moves out of each of many states, so that every state can be reached."""
    names = [f"STATE_{number:04}" for number in range(states)]
    return [(names[at], names[(at + step) % states]) for at in range(states) for step in (1, 7, 13, 29)]


def questions(pairs: list[tuple[Any, Any]], states: list[Any], number: int = 1_000) -> list[tuple[Any, Any]]:
    """Return moves to ask for, every other one of them legal."""
    chance = random.Random(0)
    return [chance.choice(pairs) if at % 2 else (chance.choice(states), chance.choice(states)) for at in range(number)]


class Models:
    """All the classes, on one MetaData, and with them all guards of this process."""

    def __init__(self) -> None:
        from statekit import Guarded, TransitionTable, guard, ledger

        table = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")
        guarded = {"__transitions__": {"status": table}}
        base = new_base()
        self.metadata: sa.MetaData = base.metadata
        self.bare = message(base, "Bare")
        self.twin = message(base, "Twin")
        version = mapped_column(sa.Integer, nullable=False)
        self.versioned = message(
            base,
            "Versioned",
            version=version,
            __mapper_args__={"version_id_col": version},
        )
        self.guarded = message(base, "Guarded_", Guarded, **guarded)
        self.skipping = message(base, "Skipping")
        self.observing = message(base, "Observing")
        guard(self.skipping.status, table, on_illegal="skip")
        guard(self.observing.status, table, on_illegal="observe")

        self.keeping = message(base, "Keeping")
        self.triggered = message(base, "Triggered")
        self.keeping_by_trigger = message(base, "KeepingByTrigger")
        guard(self.keeping.status, table, history=True, trigger=False)
        guard(self.triggered.status, table, trigger=True)
        guard(self.keeping_by_trigger.status, table, history=True, trigger=True)
        ledger.add_to(base.metadata)

        self.enum_bare = message(base, "EnumBare", status=sa.Enum(Status))
        self.enum_guarded = message(base, "EnumGuarded", Guarded, status=sa.Enum(Status), **guarded)

        big = edges(BIG_STATES)
        self.big_start, self.big_goal = big[0]
        self.big_bare = message(base, "BigBare")
        self.big_guarded = message(
            base, "BigGuarded", Guarded, __transitions__={"status": TransitionTable(*big, initial=self.big_start)}
        )
        self.starts: dict[Any, Any] = {
            self.bare: START,
            self.twin: START,
            self.versioned: START,
            self.guarded: START,
            self.skipping: START,
            self.observing: START,
            self.keeping: START,
            self.triggered: START,
            self.keeping_by_trigger: START,
            self.enum_bare: Status.READY,
            self.enum_guarded: Status.READY,
            self.big_bare: self.big_start,
            self.big_guarded: self.big_start,
        }
