"""What a guarded column holds: its rows by state, as the text that the database stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from statekit.bulk.transient import was_ended
from statekit.cli.database import read_only, said
from statekit.trigger.spec import StateTrigger

if TYPE_CHECKING:
    from collections.abc import Iterable

Outcome = Literal["scanned", "no such table", "no such column", "timed out", "not readable"]

EXAMPLES = 3
"""How many primary keys are named for a state that is none of the table's."""

NAMED = 20
"""For how many such states."""


@dataclass(frozen=True, slots=True)
class Held:
    """A state, and the rows that are in it.

    Attributes:
        state: as the database stores it; None for NULL.
        rows: how many.
        known: whether it is a state of the transition table.
        final: whether the transition table has no way out of it.
        examples: primary keys of some rows, if it is not known: texts by name of the column.
    """

    state: str | None
    rows: int
    known: bool
    final: bool
    examples: tuple[dict[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found in a guarded column.

    Attributes:
        trigger: what the guard declares.
        outcome: "scanned", or why it was not.
        detail: more about that, for people.
        held: the declared states in their order, with or without rows, then the unknown ones, the most frequent first.
    """

    trigger: StateTrigger
    outcome: Outcome
    detail: str = ""
    held: tuple[Held, ...] = field(default=())

    @property
    def rows(self) -> int:
        """The rows of the table."""
        return sum(each.rows for each in self.held)

    @property
    def broken(self) -> int:
        """The rows in states that the transition table does not know."""
        return sum(each.rows for each in self.held if not each.known)


def scanned(connection: sa.Connection, column: sa.Column[Any], timeout: float, url: sa.URL) -> Scanned:
    """Return what a column holds. It only reads, each statement in a transaction of its own.

    Args:
        column: a guarded one.
        timeout: seconds after which a statement is given up.
        url: of the connection, for messages.
    """
    trigger = StateTrigger.of(column)
    try:
        with read_only(connection, timeout):
            inspector = sa.inspect(connection)
            if not inspector.has_table(trigger.table, schema=trigger.schema):
                return Scanned(trigger, "no such table")
            there = inspector.get_columns(trigger.table, schema=trigger.schema)
            if trigger.column not in {each["name"] for each in there}:
                return Scanned(trigger, "no such column")
        stored = _stored(column, connection.dialect.name)
        query = sa.select(stored, sa.func.count()).select_from(column.table).group_by(stored)
        with read_only(connection, timeout):
            numbers: dict[str | None, int] = {row[0]: row[1] for row in connection.execute(query)}
    except sa.exc.DBAPIError as error:
        if was_ended(error):
            return Scanned(trigger, "timed out", f"after {timeout:g} s; give it longer with --timeout")
        return Scanned(trigger, "not readable", said(error, url))
    unknown = sorted(numbers.keys() - set(trigger.states), key=lambda state: (-numbers[state], state or ""))
    find = _finder(connection, column, timeout)
    known = [Held(state, numbers.get(state, 0), True, not trigger.allowed(state)) for state in trigger.states]
    others = [
        Held(state, numbers[state], False, False, find(state) if number < NAMED else ())
        for number, state in enumerate(unknown)
    ]
    return Scanned(trigger, "scanned", held=(*known, *others))


def _stored(column: sa.ColumnElement[Any], dialect: str) -> sa.ColumnElement[Any]:
    """Return what a column stores, as text, told apart by every byte, whatever its type makes of it in Python."""
    text = sa.cast(column, sa.Text)
    return sa.collate(text, "C" if dialect == "postgresql" else "BINARY")


def _finder(
    connection: sa.Connection, column: sa.Column[Any], timeout: float
) -> Callable[[str | None], tuple[dict[str, str | None], ...]]:
    key = list(column.table.primary_key)
    dialect = connection.dialect.name
    stored = _stored(column, dialect)
    has_time = True

    def find(state: str | None) -> tuple[dict[str, str | None], ...]:
        nonlocal has_time
        if not key or not has_time:
            return ()
        query = sa.select(*(_readable(part, dialect) for part in key)).order_by(*key).limit(EXAMPLES)
        query = query.where(column.is_(None) if state is None else stored == state)
        try:
            with read_only(connection, timeout):
                return tuple(_named(key, row) for row in connection.execute(query))
        except sa.exc.DBAPIError:  # the numbers are what counts
            has_time = False
            return ()

    return find


def _readable(part: sa.Column[Any], dialect: str) -> sa.ColumnElement[Any]:
    text = sa.cast(part, sa.Text)
    if dialect != "sqlite":
        return text
    return sa.case((sa.func.typeof(part) == "blob", sa.func.hex(part)), else_=text)


def _named(key: Iterable[sa.Column[Any]], row: Any) -> dict[str, str | None]:
    return {part.name: value for part, value in zip(key, row, strict=True)}
