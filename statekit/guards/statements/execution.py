"""One execution of a statement that sets a guarded column: what was compiled, with which values, and how to ask."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Enum, Integer, String
from sqlalchemy.engine import Connection, CursorResult, NestedTransaction
from sqlalchemy.sql.compiler import WARN_LINTING
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.util import LRUCache

from statekit.guards.current import OURS
from statekit.guards.fence import Plan, finds_rows_as_a_flush, plan_of
from statekit.guards.guard import Guard
from statekit.guards.statements.savepoint import savepoint

Parameters = Mapping[str, Any]
Run = Callable[[Any, Sequence[Parameters]], CursorResult[Any]]


class Execution:
    """A statement that is about to be executed.

    Args:
        connection: which it is executed on.
        statement: what is executed: an Update or Insert, or a lambda that stands for one.
        resolved: the Update or Insert itself.
        parameters: the sets of parameters that it was called with.
        options: the execution options that it was called with.
        run: executes a statement in its place, for some sets of parameters.
    """

    def __init__(
        self,
        connection: Connection,
        statement: Any,
        resolved: Any,
        parameters: Sequence[Parameters],
        options: Any,
        run: Run,
    ) -> None:
        self.connection = connection
        self.statement = statement
        self.resolved = resolved
        self.parameters = parameters
        self.options = statement._execution_options.merge_with(connection._execution_options, options)
        self._run = run

    def run(self, parameters: Sequence[Parameters]) -> CursorResult[Any]:
        """Execute the statement for some sets of parameters."""
        return self._run(self.statement, parameters)

    def of(self, statement: Any) -> Execution:
        """Return the same for another statement."""
        other = copy.copy(self)
        other.statement = other.resolved = statement
        return other

    def only(self, parameters: Parameters) -> Execution:
        """Return the same for one of the sets of parameters."""
        return self.with_parameters([parameters])

    def with_parameters(self, parameters: Sequence[Parameters]) -> Execution:
        """Return the same for other sets of parameters."""
        other = copy.copy(self)
        other.parameters = parameters
        return other

    @property
    def is_persistence(self) -> bool:
        """Whether SQLAlchemy's own persistence code executes it, which counts the rows that it meets."""
        # It brings the mapper's cache, which is no plain dictionary, as one of the user's is.
        return isinstance(self.options.get("compiled_cache"), LRUCache) and finds_rows_as_a_flush(self.resolved)

    @property
    def sets(self) -> Sequence[Parameters]:
        """The sets of parameters; an execution without any has one empty set."""
        return self.parameters or ({},)

    def ask(self, query: Any, values: Any = None, **options: Any) -> CursorResult[Any]:
        """Execute a query or lock of our own on the same connection and the same schemas.

        Args:
            query: what to execute.
            values: its parameters.
            options: more execution options.
        """
        options[OURS] = True
        if "schema_translate_map" in self.options:
            options["schema_translate_map"] = self.options["schema_translate_map"]
        return self.connection.execute(query, values or {}, execution_options=options)

    def savepoint(self, table: Any, wanted: bool = True) -> AbstractContextManager[NestedTransaction | None]:
        """Return a context manager for a savepoint around the execution, see :func:`.savepoint.savepoint`."""
        return savepoint(self.connection, table, self.ask, wanted)


class CompiledUpdate:
    """An UPDATE as SQLAlchemy compiled it, mostly from its cache.

    Attributes:
        plan: what it does to guarded columns, None if nothing.
        dialect: the name of the database that it is compiled for.
    """

    def __init__(self, execution: Execution) -> None:
        connection, parameters, options = execution.connection, execution.parameters, execution.options
        self._compiled, self._extracted, *_ = execution.statement._compile_w_cache(
            dialect=connection.dialect,
            compiled_cache=options.get("compiled_cache", connection.engine._compiled_cache),
            column_keys=sorted(parameters[0]) if parameters else [],
            for_executemany=len(parameters) > 1,
            schema_translate_map=options.get("schema_translate_map"),
            linting=connection.dialect.compiler_linting | WARN_LINTING,  # as SQLAlchemy itself: this one is executed
        )
        self.plan: Plan | None = plan_of(self._compiled)
        self.dialect = connection.dialect.name

    @property
    def writes_within(self) -> bool:
        """Whether a CTE in it writes: then no question can be asked, because to ask would be to write."""
        return any(getattr(cte.element, "is_dml", False) for cte in self._compiled.ctes or ())

    def values(self, parameters: Parameters) -> dict[str, Any]:
        """Return the value of each parameter of the statement for one set of parameters, by the parameter's key."""
        named = self._compiled.construct_params(
            dict(parameters), extracted_parameters=self._extracted, escape_names=False, _check=False
        )
        values = {bind.key: named[name] for bind, name in self._compiled.bind_names.items() if name in named}
        for setting in self.plan.settings if self.plan is not None else ():
            if isinstance(setting.value, BindParameter) and setting.value.key not in values:
                # A type with a bind_expression() has put a copy in the place of the parameter.
                values[setting.value.key] = named.get(setting.column.key)
        self._set_scalar_onupdate(values)
        return values

    def each_value(self, parameters: Sequence[Parameters], binds: Sequence[Any]) -> list[list[Any]]:
        """Return the values of some parameters for each set, as fast as it goes.

        Args:
            parameters: the sets.
            binds: the parameters, as SQLAlchemy has compiled them.
        """
        defaults = self.values({})
        return [[each.get(bind.key, defaults.get(bind.key)) for each in parameters] for bind in binds]

    def _set_scalar_onupdate(self, values: dict[str, Any]) -> None:
        for setting in self.plan.settings if self.plan is not None else ():
            if setting.onupdate is not None and setting.onupdate.is_scalar:
                values[setting.value.key] = setting.onupdate.arg


def is_known(value: Any, guard: Guard) -> bool:
    """Return whether Python knows what a value in a statement stores: a parameter of the column's own type."""
    if not isinstance(value, BindParameter):
        return False
    types: list[Any] = [value.type, guard.column.type]
    if types[1]._has_bind_expression:
        return False
    return types[0]._isnull or _store_alike(*types) or all(map(_is_plain, types))


def _store_alike(one: Any, other: Any) -> bool:
    # SQLAlchemy's key of an Enum says nothing of its members.
    members = [getattr(type_, "enums", None) for type_ in (one, other)]
    return bool(one._static_cache_key == other._static_cache_key and members[0] == members[1])


def _is_plain(type_: Any) -> bool:
    """Return whether a type stores what it is given."""
    return (
        type(type_).__module__ == String.__module__
        and isinstance(type_, String | Integer)
        and not isinstance(type_, Enum)
    )
