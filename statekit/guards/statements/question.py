"""The question that is asked before an UPDATE: how many of the rows that it matches are in which state.

It is one SELECT with the statement's own FROM and WHERE, grouped by state, and it holds the rows until the
transaction ends, so that what was asked is still true when the UPDATE comes. PostgreSQL takes ``FOR NO KEY UPDATE``; on
SQLite the database's write lock, which the UPDATE needs anyway, is taken first.

To hold 200,000 rows costs 19 % of the UPDATE, to count them 2 % (PostgreSQL 18). So rows are held up to :data:`HELD`;
of more, the UPDATE itself shows whether something has changed in between, see :mod:`.one_update`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BindParameter, ColumnClause, TextClause
from sqlalchemy.sql.selectable import SelectBase

from statekit.errors import Pair
from statekit.guards.current import lock_database
from statekit.guards.fence import Fence, Plan, Setting
from statekit.guards.guard import primary_key_of, root_table
from statekit.guards.statements.account import NAMED, Account
from statekit.guards.statements.execution import CompiledUpdate, Execution, is_known
from statekit.guards.stored import as_stored

HELD = 10_000
"""Up to how many rows of one statement are held before it."""

_KEY = "statekit_key_"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows in the same states that get the same states.

    Attributes:
        number: how many rows.
        where: what the database gave for them, by the name of the query's column.
    """

    number: int
    where: dict[str, Any]


class Question:
    """The SELECT for one compiled UPDATE.

    Args:
        plan: what the UPDATE does to guarded columns.
        dialect: the name of the database.
    """

    def __init__(self, plan: Plan, dialect: str) -> None:
        statement = plan.statement
        self._settings = plan.settings
        self.table = statement.table
        self._key = primary_key_of(self.table, plan.settings[0].guard)
        self._states: list[Any] = []
        for number, setting in enumerate(plan.settings):
            states = setting.guard.states
            self._states.append(states.select(setting.column).label(f"statekit_source_{number}"))
            if not is_known(setting.value, setting.guard):
                # With the type of the column as it is here: a copy in another schema has one of that schema.
                type_ = setting.guard.column.type if setting.column.type._isnull else setting.column.type
                target = states.select(as_stored(setting.value, type_, dialect))
                self._states.append(target.label(f"statekit_target_{number}"))
        keys = [column.label(f"{_KEY}{number}") for number, column in enumerate(self._key)]
        self._rows = sa.select(*self._states, *keys).select_from(self.table, *plan.others)
        # As they stand in the UPDATE, and without what would make the query one of the ORM's, which would add to them.
        self._rows._where_criteria = tuple(c for c in statement._where_criteria if not isinstance(c, Fence))
        self._rows._propagate_attrs = sa.util.immutabledict()
        self._is_joined = bool(plan.others) and bool(self._key)
        self._statement = statement
        self.is_about_one_row = bool(self._key) and {column.key for column in self._key} <= self._pinned()
        """Whether the UPDATE names a whole primary key."""
        self._is_plain = bool(self._key) and not plan.others
        self._queries: dict[tuple[bool, bool], Any] = {}

    def _pinned(self) -> set[str]:
        """Return the columns of the table that the UPDATE compares with a parameter for equality."""
        parts = [part for each in self._rows._where_criteria for part in _conjuncts(each)]
        return {
            part.left.key
            for part in parts
            if getattr(part, "operator", None) is operators.eq
            and isinstance(part.right, BindParameter)
            and isinstance(part.left, ColumnClause)
            and self.table.c.contains_column(part.left)  # and not that of an alias
        }

    def stays_the_same(self, parameters: Iterable[str]) -> bool:
        """Return whether the UPDATE sets nothing that it looks at, and so matches the same rows before and after it.

        Args:
            parameters: names of its parameters; those that are called as columns are set too.
        """
        changed = {setting.column.key for setting in self._settings} | set(parameters)
        changed |= {key if isinstance(key, str) else key.key for key in dict(self._statement._values or {})}
        changed |= {column.key for column in self.table.columns if getattr(column, "onupdate", None) is not None}
        looked_at = [each for criterion in self._rows._where_criteria for each in visitors.iterate(criterion)]
        return self._is_plain and not any(
            isinstance(each, SelectBase | TextClause) or (isinstance(each, ColumnClause) and each.key in changed)
            for each in looked_at
        )

    def groups(
        self, execution: Execution, values: dict[str, Any], *, hold: bool = True, limit: bool = False
    ) -> list[Group]:
        """Ask.

        Args:
            execution: of the UPDATE.
            values: its parameters, by key.
            hold: whether to hold the rows.
            limit: whether to look at one more than :data:`HELD` rows at most.
        """
        on_sqlite = execution.connection.dialect.name == "sqlite"
        if hold and on_sqlite:
            lock_database(execution.ask, root_table(self.table))
        variant = hold and not on_sqlite, limit
        if variant not in self._queries:
            self._queries[variant] = self._grouped(*variant)
        return [
            Group(row["statekit_number"], {state.name: row[state.name] for state in self._states})
            for row in execution.ask(self._queries[variant], values).mappings()
        ]

    def _grouped(self, hold: bool, limit: bool) -> Any:
        rows = self._rows.limit(sa.literal_column(str(HELD + 1))) if limit else self._rows
        if hold:
            rows = rows.with_for_update(key_share=True, of=self.table)
        inner = self._each_row_once(rows)
        states = [inner.c[state.name] for state in self._states]
        return sa.select(*states, sa.func.count().label("statekit_number")).group_by(*states)

    def _each_row_once(self, rows: Any) -> Any:
        """Return the rows as a subquery; where several joined rows stand for one, the database takes any of them."""
        inner = rows.subquery("statekit_rows")
        if not self._is_joined:
            return inner
        keys = [column for column in inner.c if column.name.startswith(_KEY)]
        states = [sa.func.min(inner.c[state.name]).label(state.name) for state in self._states]
        return sa.select(*states, *keys).group_by(*keys).subquery("statekit_each_row")

    def pairs(self, row: Any, values: dict[str, Any]) -> tuple[Pair, ...]:
        """Return the move for each guarded column that the statement sets, of a row or a group of them."""
        return tuple(self._pair(number, setting, row, values) for number, setting in enumerate(self._settings))

    @staticmethod
    def _pair(number: int, setting: Setting, row: Any, values: dict[str, Any]) -> Pair:
        states = setting.guard.states
        source = states.selected(row[f"statekit_source_{number}"])
        target = row.get(f"statekit_target_{number}", values)
        if target is values:
            return source, states.text(values.get(setting.value.key))
        return source, states.selected(target)

    def held_rows(self, execution: Execution, values: dict[str, Any]) -> list[tuple[tuple[Any, ...], tuple[Pair, ...]]]:
        """Return primary key and moves of all rows that the UPDATE matches, and hold them."""
        query = self._rows.order_by(*self._key)
        if execution.connection.dialect.name == "sqlite":
            lock_database(execution.ask, root_table(self.table))
        else:
            query = query.with_for_update(key_share=True, of=self.table)
        width = len(self._key)
        return [
            (tuple(row.values())[-width:], self.pairs(row, values)) for row in execution.ask(query, values).mappings()
        ]

    def rows(
        self, execution: Execution, values: dict[str, Any], groups: Sequence[Group], limit: int | None = None
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Pair, ...]]]:
        """Return primary key and moves of the rows of some groups, in the order of the key."""
        if not groups or not self._key:
            return
        inner = self._each_row_once(self._rows)
        keys = [column for column in inner.c if column.name.startswith(_KEY)]
        is_one = sa.or_(
            *(sa.and_(*(_is(inner.c[name], value) for name, value in group.where.items())) for group in groups)
        )
        query = sa.select(inner).where(is_one).order_by(*keys)
        if limit is not None:
            # With names, a parameter of the user's might be called the same, "param_1".
            query = query.limit(sa.literal_column(str(limit))).offset(sa.literal_column("0"))
        for row in execution.ask(query, values).mappings():
            yield tuple(row[key.name] for key in keys), self.pairs(row, values)

    def name_refused(self, account: Account, execution: Execution, values: dict[str, Any], groups: list[Group]) -> None:
        """Name some of the rows that an account refuses."""
        for key, pairs in self.rows(execution, values, groups, NAMED):
            for setting, pair in zip(self._settings, pairs, strict=True):
                if pair in account.illegal(setting.guard):
                    account.name(setting.guard, pair, key)


def _conjuncts(criterion: Any) -> list[Any]:
    """Return the parts of a criterion that all must hold."""
    if getattr(criterion, "operator", None) is operators.and_:
        return [part for each in criterion.clauses for part in _conjuncts(each)]
    return [criterion]


def _is(column: Any, value: Any) -> Any:
    if value is None:
        return column.is_(None)
    return column == BindParameter("statekit", value, type_=column.type, unique=True)


def question_of(compiled: CompiledUpdate) -> Question:
    """Return the question for a compiled UPDATE that has a plan."""
    plan = compiled.plan
    assert plan is not None
    if plan.question is None:
        plan.question = Question(plan, compiled.dialect)
    question: Question = plan.question
    return question
