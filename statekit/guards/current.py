"""The states that rows are in now: read, and held until the transaction ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.guards.watch import Watch

_CHUNK = 500
"""How many rows are asked for at once where each key is a parameter of its own."""

_ARRAYS = {sa.Integer, sa.BigInteger, sa.SmallInteger, sa.String, sa.Text, sa.Unicode, sa.VARCHAR, sa.Uuid, sa.UUID}
"""Types of which PostgreSQL's drivers take a whole list as one parameter. Not their subclasses: an Enum is a String."""


def read(
    connection: Connection, watch: Watch, keys: Iterable[tuple[Any, ...]], *, lock: bool = True
) -> dict[tuple[Any, ...], str | None]:
    """Return the text of the state that each row is in now, and keep others from changing it before this commits.

    PostgreSQL takes ``FOR NO KEY UPDATE``, in the order of the keys, so that two flushes wait for each other and do
    not deadlock. SQLite has no locks on rows: the write lock of the database, which the flush is about to take
    anyway, is taken first.

    Args:
        connection: of the flush.
        watch: the guarded attribute.
        keys: values of ``watch.primary_key``.
        lock: whether to hold the rows.

    Returns:
        A state for each key that has a row.
    """
    if lock and connection.dialect.name == "sqlite":
        first = watch.primary_key[0]
        connection.execute(watch.table.update().values({**watch.without_onupdate, first: first}).where(sa.false()))
    state = watch.guard.states.select(watch.column).label("statekit_state")
    query = sa.select(*watch.primary_key, state).order_by(*watch.primary_key)
    if lock and connection.dialect.name != "sqlite":
        query = query.with_for_update(key_share=True)
    found: dict[tuple[Any, ...], str | None] = {}
    for condition, parameters in _conditions(connection, watch.primary_key, list(keys)):
        for *key, value in connection.execute(query.where(condition), parameters):
            found[tuple(key)] = watch.guard.states.selected(value)
    return found


def counts_rows(connection: Connection, sets: int) -> bool:
    """Return whether the driver says how many rows an UPDATE with this many sets of parameters has met."""
    dialect = connection.dialect
    return dialect.supports_sane_rowcount and (sets == 1 or dialect.supports_sane_multi_rowcount)


def evaluate(connection: Connection, watch: Watch, key: tuple[Any, ...], expression: Any) -> str | None:
    """Return the text of the state that an SQL expression gives for a row, as an UPDATE of the row would store it."""
    states = watch.guard.states
    value = states.select(sa.cast(expression, watch.column.type))
    matches = [column == part for column, part in zip(watch.primary_key, key, strict=True)]
    return states.selected(connection.execute(sa.select(value).select_from(watch.table).where(*matches)).scalar())


def _conditions(
    connection: Connection, columns: Sequence[sa.ColumnClause[Any]], keys: list[tuple[Any, ...]]
) -> Iterable[tuple[sa.ColumnElement[bool], dict[str, Any]]]:
    first = columns[0]
    if len(columns) == 1 and connection.dialect.name == "postgresql" and type(first.type) in _ARRAYS:
        ids = sa.bindparam("statekit_keys", type_=sa.ARRAY(first.type))
        yield first == sa.any_(ids), {"statekit_keys": [key[0] for key in keys]}
        return
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        if len(columns) == 1:
            ids = sa.bindparam("statekit_keys", expanding=True, type_=first.type)
            yield first.in_(ids), {"statekit_keys": [key[0] for key in chunk]}
        else:
            yield sa.tuple_(*columns).in_(chunk), {}
