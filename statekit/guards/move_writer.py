"""The legality of a move as SQL: from what a row holds to what an UPDATE is about to give it.

Two forms say the same. ``CASE :new WHEN 'PROMOTED' THEN status IN ('READY') … END`` is the one for everywhere; where
the new state is known when PostgreSQL plans, it folds to ``status IN ('READY')``, for which an index serves. On
PostgreSQL, ``'{"PROMOTED": ["READY"], …}'::jsonb -> :new ? status`` is the faster one for a row that is found by its
key anyway, and for a table with many states, because its size does not matter much.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from statekit.guards.guard import Guard
from statekit.guards.stored import as_stored, undecorated

MANY_STATES = 30
"""With more states than this, jsonb is better for any statement: with 100 states, an executemany took 3.4 times as long
as without a fence with CASE, and 1.4 times with jsonb (psycopg, PostgreSQL 18)."""


class MoveWriter:
    """Writes the parts of the predicate for one column of an UPDATE that is being compiled.

    Args:
        compiler: of the statement.
        guard: of the column.
        column: the column as the statement names it.
        value: what it is set to.
        kw: what SQLAlchemy hands down while it compiles.
    """

    def __init__(self, compiler: SQLCompiler, guard: Guard, column: Any, value: Any, **kw: Any) -> None:
        self._compiler = compiler
        self._guard = guard
        self._kw = kw
        # A copy of the table in another schema may have a type of that schema; a bare table() has none.
        self._type = guard.column.type if column.type._isnull else column.type
        self._is_postgresql = compiler.dialect.name == "postgresql"
        is_plain = isinstance(undecorated(self._type), sa.String | sa.Integer)
        if self._is_postgresql or (compiler.dialect.name == "sqlite" and is_plain):
            # Else $1 has no type where it stands alone, and '2' is no 2.
            value = as_stored(value, self._type, compiler.dialect.name)
        value = value.self_group()
        self._old, self._new = self.render(column), self.render(value)

    def render(self, element: Any) -> str:
        """Return an element as SQL."""
        return str(self._compiler.process(element, **self._kw))

    def legal(self, *, one_row: bool) -> str:
        """Return the condition that the move is legal; staying is no move.

        Args:
            one_row: whether the statement finds its row by the primary key.
        """
        many = len(self._guard.states.values) > MANY_STATES
        if self._is_postgresql and (one_row or many) and self._compares_as_text():
            return self._by_jsonb()
        return self._by_case()

    def _compares_as_text(self) -> bool:
        """Return whether two states are the same for the database if their texts are: not so with NULL, CITEXT, …"""
        type_: Any = self._guard.column.type
        plain = isinstance(type_, sa.Enum) or type(type_).__module__ == sa.String.__module__
        return (
            plain
            and isinstance(type_, sa.String | sa.Integer)
            and getattr(type_, "collation", None) is None
            and None not in self._guard.states.values
        )

    def stays(self) -> str:
        """Return the condition that the row has the state already."""
        # Written out, because SQLite's compiler loses literal_binds on its own way to render IS NOT DISTINCT FROM.
        same = {"sqlite": "IS", "mysql": "<=>", "mariadb": "<=>"}.get(self._compiler.dialect.name)
        return f"{self._old} {same or 'IS NOT DISTINCT FROM'} {self._new}"

    def _by_case(self) -> str:
        parts = []
        whens = "".join(
            f" WHEN {self._state(target)} THEN {self._is_one_of(sources)}"
            for target, sources in self._guard.sources.items()
            if target is not None
        )
        if whens:
            parts.append(f"CASE {self._new}{whens} END")
        if None in self._guard.sources:
            parts.append(f"{self._new} IS NULL AND ({self._is_one_of(self._guard.sources[None])})")
        return " OR ".join(parts)

    def _by_jsonb(self) -> str:
        sources = self._literal(json.dumps(self._guard.sources, sort_keys=True), sa.Text())
        # Operators by their schema: whoever puts one of their own into the search path would have a way past the fence.
        return (
            f"CAST({sources} AS pg_catalog.jsonb) OPERATOR(pg_catalog.->) CAST({self._new} AS TEXT) "
            f"OPERATOR(pg_catalog.?) CAST({self._old} AS TEXT)"
        )

    def _is_one_of(self, states: Iterable[str | None]) -> str:
        states = list(states)
        named = [self._state(state) for state in states if state is not None]
        parts = [f"{self._old} IN ({', '.join(named)})"] if named else []
        return " OR ".join(parts + [f"{self._old} IS NULL"] * (None in states))

    def _state(self, state: str) -> str:
        return self._literal(self._guard.states.values[state], self._guard.column.type)

    def _literal(self, value: Any, type_: Any) -> str:
        try:
            text = str(self._compiler.process(sa.literal(value, type_), literal_binds=True))
        except Exception:  # the type has no literals
            text = ""
        if not text or "%(" in text or "__[" in text:  # the last two would be taken for parameters at the execution
            type_ = self._type if type_ is self._guard.column.type else type_
            return self.render(sa.bindparam("statekit_state", value, type_=type_, unique=True))
        return text
