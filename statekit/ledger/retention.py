"""Retention: old entries go, and their sums stay, so that counts are as exact after it as before."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import sqlalchemy as sa

from statekit.errors import StatekitError
from statekit.ledger import queries

KEPT = dt.timedelta(days=90)
"""How long entries are kept where nobody says otherwise."""

_CHUNK = 5_000


def prune(
    connection: sa.Connection,
    *,
    older_than: dt.timedelta = KEPT,
    schema: str | None = None,
    now: dt.datetime | None = None,
) -> int:
    """Remove entries from the ledger that are older than some time; their sums go into ``statekit_ledger_pruned``.

    It is done in chunks, each in a transaction of its own, so that no lock is held for long. Several at once do no
    harm.

    Args:
        connection: not in a transaction.
        older_than: the age of what is removed; 90 days unless told.
        schema: the schema of the ledger's tables.
        now: the time to reckon from, for tests; with a time zone.

    Returns:
        How many entries were removed.

    Raises:
        StatekitError: the time is negative, or the connection is in a transaction.
    """
    until = _until(connection, "prune", older_than, now)
    ledger, pruned, *_ = queries.tables(schema)
    old = sa.select(ledger.c.id).where(queries.before(until, ledger)).order_by(ledger.c.id).limit(_CHUNK)
    what = [column for column in pruned.c if column.name not in ("id", "until", "number")]
    removal = (
        sa.delete(ledger)
        .where(ledger.c.id.in_(old))
        .returning(*(ledger.c[each.name] for each in what), ledger.c.number)
    )
    removed = 0
    while True:
        with connection.begin():
            rows = connection.execute(removal).all()
            _add(connection, pruned, what, rows, until)
        removed += len(rows)
        if len(rows) < _CHUNK:
            break
    with connection.begin():  # one row for each move, and not one for each chunk
        rows = connection.execute(sa.delete(pruned).returning(*what, pruned.c.number, pruned.c.until)).all()
        latest = max([until, *(queries.in_utc(row.until) for row in rows)])
        _add(connection, pruned, what, [row[:-1] for row in rows], latest)
    return removed


def prune_history(
    connection: sa.Connection,
    *,
    older_than: dt.timedelta,
    schema: str | None = None,
    now: dt.datetime | None = None,
) -> int:
    """Remove rows from the history that are older than some time; the latest one of each row of the application stays.

    So it can still be said when that row has entered its state. It is done in chunks, each in a transaction of its own.
    Nothing keeps sums of what is removed.

    Args:
        connection: not in a transaction.
        older_than: the age of what is removed.
        schema: the schema of the ledger's tables.
        now: the time to reckon from, for tests; with a time zone.

    Returns:
        How many rows were removed.

    Raises:
        StatekitError: the time is negative, or the connection is in a transaction.
    """
    until = _until(connection, "prune_history", older_than, now)
    history = queries.tables(schema).history
    removed, last = 0, 0
    while True:
        with connection.begin():
            old = _superseded(history, until).where(history.c.id > last).order_by(history.c.id).limit(_CHUNK)
            removal = sa.delete(history).where(history.c.id.in_(old)).returning(history.c.id)
            ids = connection.scalars(removal).all()
        removed += len(ids)
        if len(ids) < _CHUNK:
            return removed
        last = max(ids)


def prunable(connection: sa.Connection, until: dt.datetime, schema: str | None = None) -> tuple[int, int]:
    """Return how many entries and moves :func:`prune` would remove that are older than some time.

    Args:
        connection: to the database.
        until: the time, with a time zone.
        schema: the schema of the ledger's tables.
    """
    ledger = queries.tables(schema).ledger
    query = sa.select(sa.func.count(), sa.func.sum(ledger.c.number)).where(queries.before(until, ledger))
    entries, moves = connection.execute(query).one()
    return entries, int(moves or 0)


def prunable_history(connection: sa.Connection, until: dt.datetime, schema: str | None = None) -> int:
    """Return how many rows :func:`prune_history` would remove that are older than some time.

    Args:
        connection: to the database.
        until: the time, with a time zone.
        schema: the schema of the ledger's tables.
    """
    old = _superseded(queries.tables(schema).history, until).subquery()
    return int(connection.scalar(sa.select(sa.func.count()).select_from(old)) or 0)


def _superseded(history: sa.Table, until: dt.datetime) -> sa.Select[Any]:
    return sa.select(history.c.id).where(queries.before(until, history), queries.later(history))


def _until(connection: sa.Connection, name: str, older_than: dt.timedelta, now: dt.datetime | None) -> dt.datetime:
    if not isinstance(connection, sa.Connection):
        raise StatekitError(
            f"{name}({connection!r}): allowed is a Connection, such as of engine.connect(); in an async application, "
            f"await connection.run_sync(ledger.{name})."
        )
    if older_than < dt.timedelta(0):
        raise StatekitError(f"{name}(older_than={older_than}): a negative age would remove what is yet to come.")
    if connection.in_transaction():
        raise StatekitError(
            f"{name}() commits after each chunk, and the connection is in a transaction: end that first."
        )
    return (now or dt.datetime.now(dt.UTC)) - older_than


def _add(connection: sa.Connection, pruned: sa.Table, what: list[Any], rows: Any, until: dt.datetime) -> None:
    sums: Counter[tuple[Any, ...]] = Counter()
    for *key, number in rows:
        sums[tuple(key)] += number
    if sums:
        names = [column.name for column in what]
        values = [
            {**dict(zip(names, key, strict=True)), "number": number, "until": until} for key, number in sums.items()
        ]
        connection.execute(sa.insert(pruned), values)
