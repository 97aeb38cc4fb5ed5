"""An ON CONFLICT clause: which rows it is about, and what it does to them, so that a question can ask that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.selectable import Alias, Select

from statekit.guards.fence import as_element, column_set_by
from statekit.guards.guard import Guard

_DO_UPDATE = (sqlite.dml.OnConflictDoUpdate, postgresql.dml.OnConflictDoUpdate)
_DO_NOTHING = (sqlite.dml.OnConflictDoNothing, postgresql.dml.OnConflictDoNothing)


def conflicts_of(statement: Any, table: Any, connection: Connection, schemas: Any) -> list[Conflict]:
    """Return the ON CONFLICT clauses of an INSERT; ``OR IGNORE`` is DO NOTHING.

    Args:
        statement: the Insert.
        table: which it inserts into.
        connection: which is asked for constraints that have no name in the model.
        schemas: the ``schema_translate_map`` of the execution.
    """
    clause = statement._post_values_clause
    clauses = [] if clause is None else [e for e in visitors.iterate(clause) if isinstance(e, _DO_UPDATE + _DO_NOTHING)]
    if any("OR IGNORE" in str(prefix).upper() for prefix, *_ in statement._prefixes):
        clauses.append(sqlite.dml.OnConflictDoNothing())
    return [Conflict(clause, table, connection, schemas or {}) for clause in clauses]


@dataclass(frozen=True, slots=True)
class Key:
    """A unique key: a constraint's or an index's.

    Attributes:
        name: its name, if it has one.
        columns: columns or expressions of the table.
        where: of which rows it is the key; None for all.
    """

    name: Any
    columns: list[Any]
    where: Any = None


class Conflict:
    """One ON CONFLICT clause.

    Attributes:
        does_nothing: whether it leaves rows that exist alone.
        keys: the unique keys that it is about.
        updates: what it sets, by column key; empty for DO NOTHING.
        where: which rows it updates; None for all.
    """

    def __init__(self, clause: Any, table: Any, connection: Connection, schemas: Any) -> None:
        self._schema = schemas.get(table.schema, table.schema)
        self._clause = clause
        self._table = table
        self._connection = connection
        self.does_nothing = isinstance(clause, _DO_NOTHING)
        pairs = dict(getattr(clause, "update_values_to_set", ()))
        named = ((column_set_by(table, key), value) for key, value in pairs.items())
        self.updates = {column.key: as_element(value, column.type) for column, value in named if column is not None}
        self.where = getattr(clause, "update_whereclause", None)
        self.keys: list[Key] = self._keys()

    def _keys(self) -> list[Key]:
        elements = self._clause.inferred_target_elements
        keys = _unique_keys(self._table, self._connection.dialect.name)
        if elements is not None:
            found = [column for each in elements for column in self._target(each)]
            return [Key(None, found, self._clause.inferred_target_whereclause)]
        named = getattr(self._clause, "constraint_target", None)
        if named is None:
            return keys
        return [key for key in keys if key.name == named] or self._keys_in_the_database(named)

    def _target(self, element: Any) -> list[Any]:
        """Return the columns or the expression that a part of the conflict target stands for."""
        by_name = {column.name: column for column in self._table.columns}
        if isinstance(element, str):
            return [self._table.c[element]] if element in self._table.c else [by_name.get(element, sa.text(element))]
        if isinstance(element, TextClause):
            names = [name.strip().strip('"') for name in element.text.split(",")]
            return [by_name[name] for name in names] if all(name in by_name for name in names) else [element]
        if isinstance(element, ColumnClause) and not isinstance(element, sa.Column):
            return [by_name.get(element.name, element)]
        return [element]

    def _keys_in_the_database(self, name: str) -> list[Key]:
        """Ask the database for a constraint that has no name in the model."""
        table = self._table
        inspector = sa.inspect(self._connection)
        found: list[Any] = [inspector.get_pk_constraint(table.name, self._schema)]
        found += inspector.get_unique_constraints(table.name, self._schema)
        by_name = {column.name: column for column in table.columns}
        for each in found:
            columns = each.get("constrained_columns") or each.get("column_names") or []
            if each["name"] == name:
                return [Key(name, [by_name[column] for column in columns])]
        return []

    def matches(self, excluded: Any, is_given: Callable[[Any], bool], *, several: bool = False) -> Any:
        """Return the condition for a row of the table to be the one that a proposed row conflicts with; None for never.

        Args:
            excluded: the proposed rows, as a subquery.
            is_given: returns whether the statement gives a column a value; what it leaves out conflicts with nothing.
            several: whether there may be several proposed rows: then a key that is text cannot be compared.
        """
        matches = [
            self._match(key, excluded)
            for key in self.keys
            if not (several and any(isinstance(each, TextClause) for each in key.columns))
            and all(is_given(column) for each in key.columns for column in columns_of(each))
        ]
        return sa.or_(*matches) if matches else None

    def _match(self, key: Key, excluded: Any) -> Any:
        match = sa.and_(sa.true(), *(self._equal(each, excluded) for each in key.columns))
        if key.where is None:
            return match
        if not any(isinstance(each, TextClause) for each in visitors.iterate(key.where)):
            return sa.and_(match, key.where, self._proposed(key.where, excluded))
        return sa.and_(match, self._is_where(key.where))

    def _equal(self, element: Any, excluded: Any) -> Any:
        if not isinstance(element, TextClause):
            return element == self._proposed(element, excluded)
        value: Any = sa.literal_column(f"({element.text})")
        proposed = sa.select(value).select_from(excluded).correlate(None).scalar_subquery()
        return self._is_where(value == proposed)

    def _is_where(self, condition: Any) -> Any:
        """Return whether a condition holds for a row of the table; as text it may have names of "excluded" as well."""
        row = list(self._table.primary_key)
        within = sa.select(*row).select_from(self._table).where(condition).correlate(None)
        return (sa.tuple_(*row) if len(row) > 1 else row[0]).in_(within) if row else condition

    def _proposed(self, element: Any, excluded: Any) -> Any:
        names = set(self._table.c.keys())

        def replace(each: Any, **kw: Any) -> Any:
            return excluded.c[each.name] if isinstance(each, sa.Column) and each.key in names else None

        return _replaced(element, replace)

    def mentioned(self) -> set[str]:
        """Return the columns of ``excluded`` that it depends on what becomes of an existing row."""
        expressions = [*self.updates.values(), *([] if self.where is None else [self.where])]
        elements: list[Any] = [each for expression in expressions for each in visitors.iterate(expression)]
        return {each.key for each in elements if _is_of_excluded(each)}


def sets_to_proposed(value: Any, guard: Guard) -> bool:
    """Return whether a value is the proposed state itself: ``excluded.status``."""
    return _is_of_excluded(value) and value.key == guard.column.key


def _is_of_excluded(element: Any) -> bool:
    table = getattr(element, "table", None)
    return isinstance(table, Alias) and table.name == "excluded"


def in_a_question(expression: Any, excluded: Any) -> Any:
    """Return an expression of DO UPDATE as it stands in a SELECT from the table and from what is proposed.

    Args:
        expression: what is set, or the WHERE.
        excluded: the proposed rows, as a subquery.
    """

    def replace(element: Any, **kw: Any) -> Any:
        if _is_of_excluded(element):
            return excluded.c[element.name]
        return _uncorrelated(element) if isinstance(element, Select) else None

    return _replaced(expression, replace)


def _uncorrelated(select: Any) -> Any:
    """Return a SELECT that names all that it is from, as it does in an upsert."""
    alone = select._clone()
    alone._auto_correlate, alone._correlate, alone._correlate_except = False, (), None
    return alone


def columns_of(element: Any) -> list[Any]:
    """Return the columns in an element of a unique key."""
    return [each for each in visitors.iterate(element) if isinstance(each, sa.Column)]


def _replaced(expression: sa.ColumnElement[Any], replace: Any) -> Any:
    options: dict[str, Any] = {}
    return visitors.replacement_traverse(expression, options, replace)


def _unique_keys(table: Any, dialect: str) -> list[Key]:
    keys = [
        Key(constraint.name, list(constraint.columns))
        for constraint in getattr(table, "constraints", ())
        if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint)
    ]
    for index in getattr(table, "indexes", ()):
        if index.unique:
            keys.append(Key(index.name, list(index.expressions), index.dialect_options[dialect].get("where")))
    return [key for key in keys if key.columns]
