"""What a flush has to look at: for each mapped class, its guarded attributes and how their rows are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import ColumnProperty, InstanceState, Mapper, Session
from sqlalchemy.orm.base import NO_VALUE, manager_of_class
from sqlalchemy.sql.elements import ClauseElement

from statekit.declared import INFO_KEY
from statekit.guards.guard import Guard, guard_of

State = InstanceState[Any]


class Watch:
    """A guarded attribute of a mapped class.

    Attributes:
        key: the attribute's name in the class.
        guard: its guard.
        mapper: the class's mapper.
        model: name of the topmost class that has the column, as reports show it.
        column: the column as this class maps it: the guarded one, or its copy in another MetaData.
        table: the table that the column belongs to.
        primary_key: that table's primary key columns.
        key_names: the names of the class's primary key attributes.
        onupdate: value or SQL expression of the column's own ``onupdate=``, as far as that is no function.
    """

    def __init__(self, mapper: Mapper[Any], key: str, column: sa.Column[Any], guard: Guard) -> None:
        self.mapper = mapper
        self.key = key
        self.column = column
        self.guard = guard
        self.table: sa.Table = column.table
        owners = [each for each in mapper.iterate_to_root() if column.table in each.tables]
        self.model = owners[-1].class_.__name__
        # What a function gives is known only when SQLAlchemy has called it, for the UPDATE itself.
        given: Any = column.onupdate
        self.onupdate = given.arg if given is not None and (given.is_scalar or given.is_clause_element) else None
        self.primary_key = tuple(mapper._pks_by_table[self.table])
        self.key_names = tuple(mapper.get_property_by_column(each).key for each in mapper.primary_key)
        self._row_key_is_identity = self.primary_key == tuple(mapper.primary_key)
        self._row_keys = tuple(mapper.get_property_by_column(each).key for each in self.primary_key)

    def identity(self, state: State) -> tuple[Any, ...] | None:
        """Return the object's primary key as the database has it, or None if it has none yet."""
        if state.key is not None:
            return tuple(state.key[1])
        values = tuple(state.dict.get(name) for name in self.key_names)
        return None if any(value is None for value in values) else values

    def row_key(self, state: State) -> tuple[Any, ...]:
        """Return the values of the primary key of the guarded column's table, in the order of ``primary_key``."""
        if state.key is None:
            return tuple(state.dict[name] for name in self._row_keys)
        if self._row_key_is_identity:
            return tuple(state.key[1])
        known = dict(zip(self.key_names, state.key[1], strict=True))
        return tuple(known[name] if name in known else _committed(state, name) for name in self._row_keys)


def _committed(state: State, name: str) -> Any:
    """Return what the database has for an attribute; it is loaded if it is expired."""
    value = state.committed_state.get(name, NO_VALUE)
    return getattr(state.obj(), name) if value is NO_VALUE else value


def is_sql(value: Any) -> bool:
    """Return whether a value of an attribute is an SQL expression, which only the database can evaluate."""
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def is_known(value: Any) -> bool:
    """Return whether Python knows what an attribute holds: it was loaded, and is no SQL expression."""
    return value is not NO_VALUE and not is_sql(value)


def written_on(session: Session | None, watch: Watch) -> Connection | Engine | None:
    """Return the connection that a session writes a class on, or its engine where the session has none yet.

    None if nobody can tell: the object is in no session, or the session has no engine for it.
    """
    if session is None:
        return None
    try:
        # As a flush asks, for a session that chooses by what is executed.
        bind = session.get_bind(mapper=watch.mapper, clause=sa.update(watch.table))
    except sa.exc.UnboundExecutionError:
        return None
    transaction = session.get_transaction()
    known = transaction._connections.get(bind) if transaction is not None else None
    return bind if known is None else known[0]


_generation = 0


def watches(class_: type) -> tuple[Watch, ...]:
    """Return the guarded attributes of a mapped class; empty for a class that has none."""
    # Kept with the class and not in a dictionary of ours, so that it goes when the class goes.
    info: dict[Any, Any] = manager_of_class(class_).info
    generation, found = info.get(INFO_KEY, (-1, ()))
    if generation != _generation:
        found = tuple(_find(sa.inspect(class_)))
        info[INFO_KEY] = _generation, found
    return found  # type: ignore[no-any-return]


def forget() -> None:
    """Look at every class anew: a guard was added."""
    global _generation
    _generation += 1


def _find(mapper: Mapper[Any]) -> list[Watch]:
    found = []
    for prop in mapper.column_attrs:
        assert isinstance(prop, ColumnProperty)
        # A class may be mapped to a subquery, and is written through the tables beneath it.
        columns = {base for column in prop.columns for base in column.base_columns if isinstance(base, sa.Column)}
        for column in columns:
            guard = guard_of(column)
            if guard is not None and column.table in mapper._pks_by_table:
                found.append(Watch(mapper, prop.key, column, guard))
    return found


def listen_to_assignments(mapper: Mapper[Any], key: str, listener: Callable[[State, Any, Any, Any], object]) -> None:
    """Call a function for whatever is assigned to an attribute, in subclasses too.

    Args:
        mapper: of the class.
        key: the attribute.
        listener: called with the object's state, the value, the one before, and what SQLAlchemy calls the initiator.
    """

    def listen(*args: Any) -> None:
        event.listen(getattr(mapper.class_, key), "set", listener, raw=True, propagate=True)

    if mapper.configured:
        listen()
    else:  # after the validators of the class, which SQLAlchemy attaches then: what they return is what is assigned
        event.listen(mapper, "mapper_configured", listen, once=True)
