"""The states that rows are in now: read, and held until the transaction ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.guards.guard import Guard
from statekit.guards.stored import as_stored

OURS = "statekit_" + secrets.token_hex(8)
"""The execution option of statements of our own, which nothing is asked about. Its name is random: one that anybody
could name would be a way past the questions."""

Ask = Callable[[Any, Any], Any]


class Place(Protocol):
    """Where the states of rows stand: a watched attribute, or a column that a statement names."""

    @property
    def guard(self) -> Guard: ...
    @property
    def table(self) -> Any: ...
    @property
    def column(self) -> Any: ...
    @property
    def primary_key(self) -> Sequence[Any]: ...


_CHUNK = 500
"""How many rows are asked for at once where each key is a parameter of its own."""

_ARRAYS = {sa.Integer, sa.BigInteger, sa.SmallInteger, sa.String, sa.Text, sa.Unicode, sa.VARCHAR, sa.Uuid, sa.UUID}
"""Types of which PostgreSQL's drivers take a whole list as one parameter. Not their subclasses: an Enum is a String."""


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """A :class:`Place` that a statement names; of an upsert, the key is the one that conflicts."""

    guard: Guard
    table: Any
    column: Any
    primary_key: list[Any]


def read(
    connection: Connection,
    place: Place,
    keys: Iterable[tuple[Any, ...]],
    *,
    lock: bool = True,
    ask: Ask | None = None,
) -> dict[tuple[Any, ...], str | None]:
    """Return the text of the state that each row is in now, and keep others from changing it before this commits.

    PostgreSQL takes ``FOR NO KEY UPDATE``, in the order of the keys, so that two flushes wait for each other and do
    not deadlock. SQLite has no locks on rows: the write lock of the database, which the flush is about to take
    anyway, is taken first.

    Args:
        connection: of the flush or statement.
        place: where the states stand.
        keys: values of the primary key.
        lock: whether to hold the rows.
        ask: executes a query; as the connection does, if not given.

    Returns:
        A state for each key that has a row.
    """
    ask = ask or asking(connection)
    if lock and connection.dialect.name == "sqlite":
        lock_database(ask, place.table)
    state = place.guard.states.select(place.column).label("statekit_state")
    query = sa.select(*place.primary_key, state).order_by(*place.primary_key)
    if lock and connection.dialect.name != "sqlite":
        query = query.with_for_update(key_share=True)
    found: dict[tuple[Any, ...], str | None] = {}
    for condition, parameters in matching(connection, place.primary_key, list(keys)):
        for *key, value in ask(query.where(condition), parameters):
            found[tuple(key)] = place.guard.states.selected(value)
    return found


def asking(connection: Connection) -> Ask:
    """Return what executes statements of our own on a connection, which nothing is asked about."""
    return lambda query, parameters: connection.execute(query, parameters, execution_options={OURS: True})


def lock_database(ask: Ask, table: Any) -> None:
    """Take SQLite's write lock, by an UPDATE of no row that sets columns to themselves."""
    lock = _locks.get(table)
    if lock is None:
        first = next(iter(table.columns))
        lock = _locks[table] = table.update().values({first: first, **without_onupdate(table)}).where(sa.false())
    ask(lock, {})


_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Made once for each table: SQLAlchemy finds what it has compiled faster for the same object."""


def without_onupdate(table: Any) -> dict[Any, Any]:
    """Return values for an UPDATE that is to change nothing but what it says.

    Set to itself, a column is not given its ``onupdate=`` value.
    """
    return {column: column for column in table.columns if getattr(column, "onupdate", None) is not None}


def counts_rows(connection: Connection, sets: int) -> bool:
    """Return whether the driver says how many rows an UPDATE with this many sets of parameters has met."""
    dialect = connection.dialect
    return dialect.supports_sane_rowcount and (sets == 1 or dialect.supports_sane_multi_rowcount)


def evaluate(connection: Connection, place: Place, key: tuple[Any, ...], expression: Any) -> str | None:
    """Return the text of the state that an SQL expression gives for a row, as an UPDATE of the row would store it."""
    states = place.guard.states
    value = states.select(as_stored(expression, place.column.type, connection.dialect.name))
    matches = [column == part for column, part in zip(place.primary_key, key, strict=True)]
    return states.selected(connection.execute(sa.select(value).select_from(place.table).where(*matches)).scalar())


def matching(
    connection: Connection, columns: Sequence[sa.ColumnClause[Any]], keys: list[tuple[Any, ...]]
) -> Iterable[tuple[sa.ColumnElement[bool], dict[str, Any]]]:
    """Return the conditions that match rows by their key, each with its parameters: one for as many as go at once."""
    first = columns[0]
    if connection.dialect.name == "postgresql" and all(type(column.type) in _ARRAYS for column in columns):
        names = [f"statekit_keys_{number}" for number in range(len(columns))]
        parts = [sa.bindparam(name, type_=sa.ARRAY(each.type)) for name, each in zip(names, columns, strict=True)]
        values = {name: list(part) for name, part in zip(names, zip(*keys, strict=True), strict=True)}
        if len(columns) == 1:
            yield first == sa.any_(parts[0]), values
        else:  # several of them in one SELECT are unfolded side by side
            yield sa.tuple_(*columns).in_(sa.select(*(sa.func.unnest(part) for part in parts))), values
        return
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        if len(columns) == 1:
            ids = sa.bindparam("statekit_keys", expanding=True, type_=first.type)
            yield first.in_(ids), {"statekit_keys": [key[0] for key in chunk]}
        else:
            yield sa.tuple_(*columns).in_(chunk), {}
