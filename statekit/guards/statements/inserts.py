"""An INSERT into a guarded table: its new rows are held to the initial states, its upserts to the moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter, ClauseElement, TextClause
from sqlalchemy.sql.selectable import FromClause

from statekit.errors import StatekitError
from statekit.guards.fence import as_element
from statekit.guards.guard import Guard, guards_of, primary_key_of, root_table
from statekit.guards.statements import new_rows, upserts, whole
from statekit.guards.statements.account import Account
from statekit.guards.statements.conflicts import conflicts_of
from statekit.guards.statements.execution import Execution, Parameters, is_known
from statekit.guards.stored import as_stored
from statekit.observe.modes import PASSING


def write(execution: Execution) -> CursorResult[Any]:
    """Execute an INSERT into a guarded table.

    Raises:
        IllegalTransition: a new row must not start where it does, in "raise" and "skip", or a row that exists must not
            make the move. Nothing was written.
    """
    insert = Inserting(execution)
    if insert.is_plainly_legal():
        result = execution.run(execution.parameters)
        new_rows.write_history(execution, insert.guards, insert.table, insert.primary_key, [])
        return result
    account = insert.new_account()
    schemas = execution.options.get("schema_translate_map")
    conflicts = conflicts_of(execution.resolved, insert.table, execution.connection, schemas)
    if conflicts:
        return upserts.write(insert, account, conflicts)
    late = insert.judge(account)
    if account.is_refused and not whole.is_collecting():
        account.refuse()
    with execution.savepoint(insert.table, bool(late)) as opened:
        result, keys = insert.run()
        if late:
            insert.judge_late(account, result, late)
            if account.is_refused and not whole.is_collecting():
                if opened is not None:
                    opened.rollback()
                account.refuse()
    new_rows.write_history(execution, insert.guards, insert.table, insert.primary_key, keys)
    account.publish()
    return result


class Row:
    """A proposed row: what each column of it gets, as a value, an SQL expression, or nothing.

    Args:
        insert: whose row it is.
        given: the values that the statement names, by the column's key.
        parameters: the set of parameters that it is executed with.
        suffix: what SQLAlchemy adds to the names of plain values, of which parameters of that name take the place.
    """

    def __init__(self, insert: Inserting, given: dict[str, Any], parameters: Parameters, suffix: str = "") -> None:
        self._insert = insert
        self.given = {
            key: parameters[f"{key}{suffix}"] if _is_plain(value) and f"{key}{suffix}" in parameters else value
            for key, value in given.items()
        }
        self.parameters = parameters

    def expression(self, column: Any) -> Any:
        """Return what a column gets as an SQL expression of its type; NULL where nothing is known."""
        column = self._insert.table.c[column.key]  # and not that of "excluded", which knows no default
        value = self.value(column) if self.is_given(column) else _text_of(getattr(column, "server_default", None))
        if column.key in self.given:
            value = self.value(column)
        element = sa.null() if value is None else as_element(value, column.type)
        return self._insert.typed(element, column.type)

    def value(self, column: Any) -> Any:
        """Return what a column gets as a plain value, or as an SQL expression if it is one; None for neither."""
        value = self.given.get(column.key, MISSING)
        if value is MISSING:
            default = getattr(column, "default", None)
            return default.arg if default is not None and (default.is_scalar or default.is_clause_element) else None
        if isinstance(value, BindParameter):
            return self.parameters.get(value.key, value.effective_value)
        return value

    def is_given(self, column: Any) -> bool:
        """Return whether the database will find a value of ours in a column, and not one that it makes itself."""
        if column.key in self.given:
            return self.given[column.key] is not None
        default = getattr(column, "default", None)
        return default is not None and (default.is_scalar or default.is_clause_element)

    def state(self, guard: Guard) -> Any:
        """Return the text of the state that a new row starts in; :data:`LATE` where only the INSERT shows it."""
        value = self.given.get(guard.column.key, MISSING)
        if value is MISSING:
            column = self._insert.table.c[guard.column.key]
            return self._default(guard, column if isinstance(column, sa.Column) else guard.column)
        if isinstance(value, BindParameter):
            if not is_known(value, guard):
                return self._insert.evaluate(guard, value, self.parameters)
            value = self.parameters.get(value.key, value.effective_value)
        if isinstance(value, ClauseElement):
            return self._insert.evaluate(guard, value, self.parameters)
        return guard.states.text(value)

    def call_default(self, key: str) -> Any:
        """Return what the function gives that is a column's default."""
        return self._insert.table.c[key].default.arg(_Context({name: self.value_of(name) for name in self.given}))

    def value_of(self, key: str) -> Any:
        """Return what the statement gives a column, as a plain value if it is one."""
        return self.value(self._insert.table.c[key])

    def _default(self, guard: Guard, column: Any) -> Any:
        default = getattr(column, "default", None)
        if default is not None:
            if default.is_scalar:
                return guard.states.text(default.arg)
            return self._insert.evaluate(guard, default.arg, {}) if default.is_clause_element else LATE
        given = getattr(column, "server_default", None)
        if given is None:
            return None
        text = _text_of(given)
        return UNKNOWN if text is None else self._insert.evaluate(guard, text, {})

    def identity(self) -> tuple[Any, ...] | None:
        """Return the primary key, where the statement gives it as plain values."""
        key = tuple(self.value(column) for column in self._insert.primary_key)
        return None if not key or any(part is None or isinstance(part, ClauseElement) for part in key) else key


class _Context:
    """What a function that is a default may ask for before the INSERT is executed.

    Args:
        parameters: the values of the row.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.current_parameters = parameters

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        return self.current_parameters


def _is_plain(value: Any) -> bool:
    """Return whether a value is none that was written as an expression or as a parameter with a name of its own."""
    return not isinstance(value, ClauseElement) or (isinstance(value, BindParameter) and value.unique)


MISSING = object()
LATE = object()
"""Stands for the state that a function gives while the INSERT is executed."""
UNKNOWN = object()
"""Stands for the state that the database gives in a way of which SQLAlchemy knows nothing."""


def _text_of(server_default: Any) -> Any:
    """Return a server default as an SQL expression, None where there is none that SQLAlchemy knows."""
    argument = getattr(server_default, "arg", None)
    return sa.bindparam("statekit", argument, unique=True) if isinstance(argument, str) else argument


class Inserting:
    """An INSERT that is about to be executed.

    Attributes:
        table: which it inserts into.
        guards: the guards of the table.
    """

    def __init__(self, execution: Execution) -> None:
        statement = execution.resolved
        self.execution = execution
        self.statement = statement
        # Without what would make a question about it one of the ORM's.
        self.table: Any = root_table(statement._annotations.get("_emit_insert_table", statement.table))._deannotate()
        self.guards: list[Guard] = guards_of(self.table)
        self.primary_key: list[Any] = primary_key_of(self.table, self.guards[0])
        self.key_names = tuple(column.key for column in self.primary_key)
        self._evaluated: dict[Any, str | None] = {}
        self._late_number = 1

    def run(self) -> tuple[CursorResult[Any], list[Any]]:
        """Execute the INSERT; return the keys of the rows that it has written, if somebody wants them."""
        execution = self.execution
        if not new_rows.wants_keys(execution, self.guards):
            return execution.run(execution.parameters), []
        return new_rows.run(execution, self.primary_key)

    def new_account(self) -> Account:
        """Return an empty account for the rows."""
        return Account(self.guards, self.key_names, self.execution.connection, self.table, self.primary_key)

    def is_plainly_legal(self) -> bool:
        """Return whether each set of parameters gives an initial state, as nearly all do: that must be fast."""
        statement = self.statement
        if statement._multi_values or statement.select is not None or statement._post_values_clause is not None:
            return False
        named = {key if isinstance(key, str) else key.key for key in statement._values or ()}
        if new_rows.wants_keys(self.execution, self.guards):
            return False
        for guard in self.guards:
            key, known, initial = guard.column.key, guard.states.known, guard.initial
            if key in named:
                return False
            try:
                if not all(known[parameters[key]] in initial for parameters in self.execution.sets):
                    return False
            except (KeyError, TypeError):  # a default, or no state of the table
                return False
        return True

    def typed(self, expression: Any, type_: Any) -> Any:
        """Return an expression as one of a column's type, where the database wants to know that.

        SQLite does not: to it, every text is a number if CAST says DATETIME.
        """
        make = sa.type_coerce if self.execution.connection.dialect.name == "sqlite" else sa.cast
        return make(expression, type_)

    def rows(self) -> Iterator[Row]:
        """Return the proposed rows of an INSERT with values."""
        names = {column.key for column in self.table.columns}
        values = _by_key(self.statement._values)
        if self.statement._multi_values:
            rows = [row for several in self.statement._multi_values for row in several]
            for number, row in enumerate(rows):
                yield Row(self, self.named(row), self.execution.sets[0], f"_m{number}")
            return
        for parameters in self.execution.sets:
            given = {name: value for name, value in parameters.items() if name in names and name not in values}
            yield Row(self, {**given, **values}, parameters)

    def named(self, row: Any) -> dict[str, Any]:
        """Return a row of several VALUES by the keys of its columns."""
        return _by_key(row) if hasattr(row, "items") else dict(zip(self.table.c.keys(), row, strict=False))

    @property
    def is_from_select(self) -> bool:
        """Whether it inserts what a SELECT gives."""
        return self.statement.select is not None

    def judge(self, account: Account) -> set[int]:
        """Judge what is known of the new rows.

        Returns:
            The numbers of the rows whose state only the INSERT shows.
        """
        if self.is_from_select:
            if writes_within(self.statement.select):
                return set()  # to ask would be to write
            proposed = self.selected()
            return self.judge_select(account, proposed, sa.true()) if proposed else set()
        late = set()
        for number, row in enumerate(self.rows()):
            states = [row.state(guard) for guard in self.guards]
            self.add(account, states, identity=row.identity())
            if LATE in states:
                late.add(number)
        return late

    def add(self, account: Account, states: Sequence[Any], number: int = 1, identity: Any = None) -> bool:
        """Note new rows by the states that they start in; return whether they may be written."""
        pairs = [None if state is LATE or state is UNKNOWN else (None, state) for state in states]
        return account.add(pairs, number, identity, new=True)

    def judge_late(self, account: Account, result: CursorResult[Any], late: set[int]) -> None:
        """Judge the states that functions have given, which SQLAlchemy keeps with the result."""
        rows = [Row(self, {}, {})] if self.is_from_select else list(self.rows())
        for number in late:
            row = rows[number]
            pairs = [
                (None, self.executed(result, number, guard)) if row.state(guard) is LATE else None
                for guard in self.guards
            ]
            account.add(pairs, self._late_number, row.identity(), new=True)

    def executed(self, result: CursorResult[Any], number: int, guard: Guard) -> str | None:
        """Return the text of the state that a function gave to one of the rows."""
        key = guard.column.key
        if self.statement._multi_values:  # all rows are one set of parameters
            parameters = result.context.compiled_parameters[0]
            key = f"{key}_m{number}" if number else key
        else:
            parameters = result.context.compiled_parameters[number]
        return guard.states.text(parameters.get(key))

    def evaluate(self, guard: Guard, expression: Any, parameters: Parameters) -> str | None:
        """Return the text of the state that an SQL expression gives; it is asked for once for equal parameters."""
        own = {key: value for key, value in parameters.items() if key in _parameters_of(expression)}
        cached: Any = id(expression), tuple(sorted(own.items(), key=lambda item: item[0]))
        try:
            hash(cached)
        except TypeError:
            cached = id(expression), repr(own)
        if cached not in self._evaluated:
            stored = as_stored(expression, guard.column.type, self.execution.connection.dialect.name)
            value = guard.states.select(stored)
            # Not from the cache: without a table in it, a query is taken for that of another Enum.
            found = self.execution.ask(sa.select(value), own, compiled_cache=None).scalar()
            self._evaluated[cached] = guard.states.selected(found)
        return self._evaluated[cached]

    def selected(self) -> dict[str, Any]:
        """Return the columns that an INSERT … SELECT fills, by key: columns of a subquery that is the SELECT."""
        names = [name if isinstance(name, str) else name.key for name in self.statement._select_names]
        columns = list(_named_columns(self.statement.select).subquery("statekit_proposed").c)
        if len(names) == len(columns):
            return dict(zip(names, columns, strict=True))
        if all(guard.mode in PASSING for guard in self.guards):
            return {}
        raise StatekitError(
            f"An INSERT … SELECT into {self.table.fullname} fills {len(names)} columns, and of its SELECT SQLAlchemy "
            f"knows {len(columns)}, so that its states cannot be judged. Name the columns of the SELECT one by one; of "
            "text, with text(…).columns(id=Integer, status=String)."
        )

    def with_columns(self, values: dict[str, Any]) -> Any:
        """Return an INSERT … SELECT that fills more columns, each with one value for all rows."""
        statement = self.statement._clone()
        selected = list(self.selected().values())
        more = [as_element(value, self.table.c[key].type) for key, value in values.items()]
        # SQLite takes ON CONFLICT for a join's ON where there is no WHERE.
        statement.select = sa.select(*selected, *more).where(sa.true())
        statement._select_names = [*self.statement._select_names, *values]
        return statement

    def judge_select(self, account: Account, proposed: dict[str, Any], is_new: Any) -> set[int]:
        """Judge the new rows that a SELECT gives, counted by the states that they start in.

        Args:
            account: where they are noted.
            proposed: the columns that it fills.
            is_new: the condition for a row of the SELECT to become a new row.

        Returns:
            The number 0 if a function gives the state of all of them.
        """
        row = Row(self, {}, {})
        known = {guard: row.state(guard) for guard in self.guards if guard.column.key not in proposed}
        asked = [guard for guard in self.guards if guard.column.key in proposed]
        states = [
            guard.states.select(proposed[guard.column.key]).label(f"statekit_target_{number}")
            for number, guard in enumerate(asked)
        ]
        source = next(iter(proposed.values())).table
        query = sa.select(*states, sa.func.count()).select_from(source).where(is_new).group_by(*states)
        found: list[Any]
        total = 0
        for *found, number in self.execution.ask(query, self.execution.sets[0]):
            texts = {guard: guard.states.selected(text) for guard, text in zip(asked, found, strict=True)}
            total += number
            if number:
                self.add(account, [texts[guard] if guard in texts else known[guard] for guard in self.guards], number)
        self._late_number = total
        return {0} if LATE in known.values() and total else set()


def _named_columns(select: Any) -> Any:
    """Return a SELECT whose columns all have names, also those that are text."""
    raw = getattr(select, "_raw_columns", ())
    if not raw or any(isinstance(each, FromClause) for each in raw):
        return select
    elements = [sa.literal_column(each.text) if isinstance(each, TextClause) else each for each in raw]
    named = [each.label(f"statekit_proposed_{number}") for number, each in enumerate(elements)]
    return select.with_only_columns(*named, maintain_column_froms=True)


def writes_within(select: Any) -> bool:
    """Return whether a SELECT holds a CTE that writes."""
    return any(isinstance(each, UpdateBase) for each in sa.sql.visitors.iterate(select))


def _by_key(values: Any) -> dict[str, Any]:
    return {
        key if isinstance(key, str) else key.key: getattr(value, "__clause_element__", lambda value=value: value)()
        for key, value in (values or {}).items()
    }


def _parameters_of(expression: Any) -> set[str]:
    return {each.key for each in sa.sql.visitors.iterate(expression) if isinstance(each, BindParameter)}
