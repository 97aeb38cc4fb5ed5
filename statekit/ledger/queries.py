"""What the ledger says: reads that everything which reports shares."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from statekit.errors import Pair
from statekit.ledger.tables import Tables, add_to


def tables(schema: str | None = None) -> Tables:
    """Return the ledger's tables, in a MetaData of their own."""
    return add_to(sa.MetaData(), schema=schema)


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
    for each in tables(schema)[:2]:
        query = sa.select(each.c.source, each.c.target, sa.func.sum(each.c.number)).where(each.c.kind == kind)
        query = query.group_by(each.c.source, each.c.target)
        if table is not None:
            query = query.where(each.c.table_name == table, each.c.attribute == attribute)
        if "batch" in each.c and (batches := list(without)):
            query = query.where(each.c.batch.not_in(batches))
        for source, target, number in connection.execute(query):
            total[source, target] += int(number)
    return total


def since(moment: dt.datetime | None, ledger: sa.Table) -> Any:
    """Return the criterion for entries from some time on, given with a time zone; for all, if there is None."""
    return sa.true() if moment is None else ledger.c.at >= moment.astimezone(dt.UTC)
