"""What the ledger says: reads that everything which reports shares."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from statekit.errors import Pair
from statekit.ledger.tables import Tables, add_to


@cache
def tables(schema: str | None = None) -> Tables:
    """Return the ledger's tables, in a MetaData of their own.

    They are made once: SQLAlchemy compiles a statement anew for each other table, and an engine keeps what it compiled.
    """
    return add_to(sa.MetaData(), schema=schema)


@dataclass(frozen=True, slots=True)
class Sum:
    """Entries, or rows of the history, that are alike, added up.

    Attributes:
        what: what they have in common, by the names that were asked for; None for what is not known of pruned ones.
        number: how many moves.
        first: when the first one happened, in UTC; None for pruned ones.
        last: when the last one happened.
    """

    what: Mapping[str, Any]
    number: int
    first: dt.datetime | None = None
    last: dt.datetime | None = None

    @property
    def is_pruned(self) -> bool:
        """Whether it is a sum that the removal of entries has left."""
        return self.first is None


def exists(connection: sa.Connection, schema: str | None = None) -> bool:
    """Return whether a database has a ledger."""
    return sa.inspect(connection).has_table(tables(schema).ledger.name, schema=schema)


def moves(
    connection: sa.Connection,
    kind: str,
    *,
    table: str | None = None,
    attribute: str | None = None,
    schema: str | None = None,
    without: Iterable[str] = (),
) -> Counter[Pair]:
    """Return how often each move is in the ledger, pruned entries included.

    Args:
        connection: to the database.
        kind: "blocked", "observed", "overridden" or "trigger".
        table: name of the guarded table, with its schema if it has one; None for all.
        attribute: name of the guarded attribute.
        schema: the schema of the ledger's tables.
        without: batches that are left out.
    """
    total: Counter[Pair] = Counter()
    queries = []
    for each in tables(schema)[:2]:
        query = sa.select(each.c.source, each.c.target, sa.func.sum(each.c.number)).where(each.c.kind == kind)
        query = query.group_by(each.c.source, each.c.target)
        if table is not None:
            query = query.where(each.c.table_name == table, each.c.attribute == attribute)
        if "batch" in each.c and (batches := list(without)):
            query = query.where(each.c.batch.not_in(batches))
        queries.append(query)
    # In one statement: what is pruned between two of them would be in both.
    for source, target, number in connection.execute(sa.union_all(*queries)):
        total[source, target] += int(number)
    return total


def sums(
    connection: sa.Connection,
    by: Sequence[str],
    kinds: Collection[str],
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    schema: str | None = None,
) -> list[Sum]:
    """Return the moves in the ledger, added up; pruned entries too, if no time is asked for.

    Args:
        connection: to the database.
        by: what to tell apart: names of the ledger's columns, and "day" (in UTC).
        kinds: of the entries, such as "blocked".
        start: from when on, with a time zone.
        until: before when, with a time zone.
        schema: the schema of the ledger's tables.
    """
    ledger, pruned, *_ = tables(schema)
    day = _day(ledger.c.at, connection.dialect.name)
    at = ledger.c.at
    columns = [(day if name == "day" else ledger.c[name]).label(name) for name in by]
    query = sa.select(*columns, sa.func.sum(ledger.c.number), sa.func.min(at), sa.func.max(at))
    query = query.where(ledger.c.kind.in_(list(kinds)), since(start, ledger), before(until, ledger))
    found = [_sum(by, row) for row in connection.execute(query.group_by(*columns))]
    if start is None and until is None:
        known = [name for name in by if name in pruned.c]
        of_pruned = sa.select(*(pruned.c[name] for name in known), sa.func.sum(pruned.c.number), *[sa.null()] * 2)
        of_pruned = of_pruned.where(pruned.c.kind.in_(list(kinds))).group_by(*(pruned.c[name] for name in known))
        for row in connection.execute(of_pruned):
            if row[len(known)] is not None:
                found.append(Sum({**dict.fromkeys(by), **_sum(known, row).what}, int(row[len(known)])))
    return [each for each in found if each.number]


def examples(
    connection: sa.Connection,
    what: Mapping[str, Any],
    *,
    start: dt.datetime | None = None,
    most: int = 3,
    schema: str | None = None,
) -> list[Any]:
    """Return primary keys of a few rows, the latest first, of entries that have something in common.

    Args:
        connection: to the database.
        what: values by name of the ledger's columns.
        start: from when on, with a time zone.
        most: how many.
        schema: the schema of the ledger's tables.
    """
    ledger = tables(schema).ledger
    query = sa.select(ledger.c.identities).where(since(start, ledger), ledger.c.identities.is_not(None))
    query = query.where(*(_is(ledger.c[name], value) for name, value in what.items()))
    named: list[Any] = []
    for identities in connection.scalars(query.order_by(ledger.c.at.desc(), ledger.c.id.desc()).limit(most)):
        named += [key for key in identities if key not in named]
    return named[:most]


def complete_since(connection: sa.Connection, schema: str | None = None) -> dt.datetime | None:
    """Return the moment from which on every entry is there; None if there are none, so that nobody knows.

    Before the first entry, the ledger may not have been written; what was pruned is gone.
    """
    ledger, pruned, *_ = tables(schema)
    removed = connection.scalar(sa.select(sa.func.max(pruned.c.until)))
    first = connection.scalar(sa.select(sa.func.min(ledger.c.at)))
    moment = removed if removed is not None else first
    return None if moment is None else in_utc(moment)


def pruned_until(connection: sa.Connection, schema: str | None = None) -> dt.datetime | None:
    """Return the moment before which entries were pruned; None if none were."""
    moment = connection.scalar(sa.select(sa.func.max(tables(schema).pruned.c.until)))
    return None if moment is None else in_utc(moment)


def has_history(connection: sa.Connection, schema: str | None = None) -> bool:
    """Return whether a database has the history's table."""
    return sa.inspect(connection).has_table(tables(schema).history.name, schema=schema)


HISTORY_BY = ("table_name", "column_name", "kind", "source", "target", "is_new")
"""What :func:`history_sums` tells apart."""


def history_sums(connection: sa.Connection, schema: str | None = None) -> list[Sum]:
    """Return the moves in the history, added up by :data:`HISTORY_BY`."""
    history = tables(schema).history
    columns = [history.c[name] for name in HISTORY_BY]
    at = history.c.at
    query = sa.select(*columns, sa.func.count(), sa.func.min(at), sa.func.max(at)).group_by(*columns)
    return [_sum(HISTORY_BY, row) for row in connection.execute(query)]


def history_of(history: sa.Table, names: Collection[str], column: str, keys: Collection[str]) -> sa.Select[Any]:
    """Return the query for the history of one row, in its order.

    Args:
        history: the history's table.
        names: under which the row's table may be known there.
        column: the guarded column.
        keys: how its primary key may be written there.
    """
    is_it = history.c.table_name.in_(list(names)), history.c.column_name == column, history.c.key.in_(list(keys))
    return sa.select(history).where(*is_it).order_by(history.c.id)


def stuck(
    history: sa.Table, names: Collection[str], column: str, states: Collection[str | None], until: dt.datetime
) -> sa.Select[Any]:
    """Return the query for the latest moves of those rows that have been in some state for long, the longest first.

    Args:
        history: the history's table.
        names: under which the rows' table may be known there.
        column: the guarded column.
        states: in one of which they are; None for NULL.
        until: before when they have entered it, with a time zone.
    """
    query = sa.select(history).where(
        history.c.table_name.in_(list(names)),
        history.c.column_name == column,
        sa.or_(*(_is(history.c.target, state) for state in states)),
        history.c.at < until.astimezone(dt.UTC),
        ~later(history),
    )
    return query.order_by(history.c.at, history.c.id)


def later(history: sa.Table) -> Any:
    """Return the criterion for rows of the history that are followed by another one of the same row and column."""
    other = history.alias()
    same = (other.c[name] == history.c[name] for name in ("table_name", "column_name", "key"))
    return sa.exists().where(*same, other.c.id > history.c.id)


def since(moment: dt.datetime | None, ledger: sa.Table) -> Any:
    """Return the criterion for entries from some time on, given with a time zone; for all, if there is None."""
    return sa.true() if moment is None else ledger.c.at >= moment.astimezone(dt.UTC)


def before(moment: dt.datetime | None, ledger: sa.Table) -> Any:
    """Return the criterion for entries before some time, given with a time zone; for all, if there is None."""
    return sa.true() if moment is None else ledger.c.at < moment.astimezone(dt.UTC)


def _day(at: Any, dialect: str) -> Any:
    if dialect == "sqlite":
        return sa.func.date(at, type_=sa.Text())
    # Written out: PostgreSQL takes two parameters for two expressions, of which one is not grouped by.
    in_utc = sa.func.timezone(sa.literal_column("'UTC'"), at)
    return sa.func.to_char(in_utc, sa.literal_column("'YYYY-MM-DD'"), type_=sa.Text())


def _sum(by: Sequence[str], row: Any) -> Sum:
    *what, number, first, last = row
    times = [None if moment is None else in_utc(moment) for moment in (first, last)]
    return Sum(dict(zip(by, what, strict=True)), int(number or 0), *times)


def _is(column: sa.ColumnElement[Any], value: Any) -> Any:
    return column.is_(None) if value is None else column == value


def in_utc(moment: dt.datetime) -> dt.datetime:
    """Return a moment that a database has kept: SQLite does so without a time zone."""
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
