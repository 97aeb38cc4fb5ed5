"""Questions about the history of rows, as SQLAlchemy expressions to be used in the application's own queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.functions import FunctionElement

from statekit.declared import declared_on
from statekit.errors import StatekitError
from statekit.ledger.keys import row_key
from statekit.ledger.tables import history_table

Attribute = QueryableAttribute[Any] | sa.ColumnElement[Any]


def history_of(attribute: Attribute, identity: Any) -> sa.Select[Any]:
    """Return a SELECT of the history of one row, its creation first.

    Args:
        attribute: a guarded attribute such as ``Message.status``, or a guarded column, with ``history=True``.
        identity: the primary key of the row; a tuple if it has several columns.

    Returns:
        A SELECT of the columns ``at``, ``source``, ``target``, ``kind``, ``is_new``, ``operation``, ``actor``,
        ``reason``, ``place`` and ``role`` of ``statekit_history``, oldest first; to be limited and filtered further.

    Raises:
        StatekitError: the attribute has no guard with ``history=True``, or the identity has not as many parts as the
            primary key.
    """
    asked = _Asked(attribute, "history_of")
    parts = identity if isinstance(identity, tuple | list) else (identity,)
    if len(parts) != len(asked.key):
        raise StatekitError(
            f"history_of({attribute}, {identity!r}): the primary key has {len(asked.key)} columns "
            f"({', '.join(column.key for column in asked.table_key)}), and that has {len(parts)}."
        )
    values = [sa.bindparam(None, part, column.type, unique=True) for part, column in zip(parts, asked.key, strict=True)]
    history = asked.history
    names = ("at", "source", "target", "kind", "is_new", "operation", "actor", "reason", "place", "role")
    query = sa.select(*(history.c[name] for name in names))
    return query.where(*asked.criteria(values)).order_by(history.c.id)


def entered_at(attribute: Attribute) -> sa.ScalarSelect[Any]:
    """Return when each row of a query has entered the state that it is in: the time of its latest move.

    Args:
        attribute: a guarded attribute or column with ``history=True``; of an alias too.

    Returns:
        A scalar subquery, NULL for rows that have made no move since the history began.

    Raises:
        StatekitError: the attribute has no guard with ``history=True``.
    """
    asked = _Asked(attribute, "entered_at")
    history = asked.history.alias()
    latest = sa.select(history.c.at).where(*asked.criteria(asked.key, history)).order_by(history.c.id.desc()).limit(1)
    return latest.correlate_except(history).scalar_subquery()


def time_in_state(attribute: Attribute) -> sa.ColumnElement[float]:
    """Return for how long each row of a query has been in the state that it is in, in seconds.

    Args:
        attribute: a guarded attribute or column with ``history=True``; of an alias too.

    Returns:
        An expression, NULL for rows that have made no move since the history began.

    Raises:
        StatekitError: the attribute has no guard with ``history=True``.
    """
    return seconds_since(entered_at(attribute))


def stuck(attribute: Attribute, state: Any, *, longer_than: dt.timedelta) -> sa.ColumnElement[bool]:
    """Return the criterion for rows that have been in a state for longer than some time.

    Rows that have made no move since the history began are not among them: nobody knows.

    Args:
        attribute: a guarded attribute or column with ``history=True``; of an alias too.
        state: as the attribute has it.
        longer_than: the time, counted back from when the query is executed.

    Raises:
        StatekitError: the attribute has no guard with ``history=True``, or the time is negative.

    >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
    >>> from statekit import TransitionTable, guard, ledger
    >>> class Base(DeclarativeBase): pass
    >>> class Task(Base):
    ...     __tablename__ = "task"
    ...     id = mapped_column(sa.Integer, primary_key=True)
    ...     state = mapped_column(sa.String, default="OPEN")
    >>> guard(Task.state, TransitionTable("OPEN → DONE", initial="OPEN"), history=True)
    >>> tables = ledger.add_to(Base.metadata)
    >>> query = sa.select(Task).where(stuck(Task.state, "OPEN", longer_than=dt.timedelta(days=3)))
    """
    if longer_than < dt.timedelta(0):
        raise StatekitError(f"stuck({attribute}, longer_than={longer_than}): a time is asked for that is not negative.")
    since = sa.bindparam(
        None, callable_=lambda: dt.datetime.now(dt.UTC) - longer_than, type_=sa.DateTime(timezone=True), unique=True
    )
    return sa.and_(attribute == state, entered_at(attribute) < since)


class seconds_since(FunctionElement[float]):
    """The seconds that have passed since a time."""

    name = "statekit_seconds_since"
    type = sa.Float()
    inherit_cache = True


@compiles(seconds_since)
def _render(element: seconds_since, compiler: Any, **kw: Any) -> str:
    return f"((julianday('now') - julianday({compiler.process(element.clauses, **kw)})) * 86400.0)"


@compiles(seconds_since, "postgresql")
def _render_for_postgresql(element: seconds_since, compiler: Any, **kw: Any) -> str:
    return (
        "CAST(extract(epoch FROM pg_catalog.clock_timestamp() - "
        f"({compiler.process(element.clauses, **kw)})) AS double precision)"
    )


class _Asked:
    """A guarded attribute or column that a question is about.

    Attributes:
        key: the primary key of its rows, as the query names it.
        table_key: the same, as the table has it.
        history: the history's table.
    """

    def __init__(self, attribute: Any, call: str) -> None:
        column = attribute
        if isinstance(attribute, QueryableAttribute):
            column = next((base for each in attribute.property.columns for base in each.base_columns), None)
        if isinstance(attribute, type):
            raise StatekitError(
                f"{call}({attribute.__name__}): an attribute is asked for, such as {attribute.__name__}.status."
            )
        guard = declared_on(column)
        if guard is None or not guard.history:
            raise StatekitError(
                f"{call}({attribute}): that has no guard with history=True. Declare it: guard({attribute}, …, "
                "history=True)."
            )
        self._column: sa.Column[Any] = guard.column
        self.table_key = list(column.table.primary_key)
        self.key: Sequence[Any] = self.table_key
        if isinstance(attribute, QueryableAttribute):
            mapper, entity = attribute.parent.mapper, attribute.parent.entity
            self.key = [getattr(entity, mapper.get_property_by_column(part).key) for part in self.table_key]
        self.history = history_table(guard.column.table.metadata, f"{call}({attribute})")

    def criteria(self, key: Sequence[Any], history: Any = None) -> list[Any]:
        columns = (self.history if history is None else history).c
        return [
            columns.table_name == self._column.table.fullname,
            columns.column_name == self._column.name,
            columns.key == row_key(*key),
        ]
