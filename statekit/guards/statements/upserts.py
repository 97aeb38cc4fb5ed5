"""An INSERT … ON CONFLICT: which of the proposed rows exist, and what becomes of those.

A proposed row that conflicts with none is a new row, held to the initial states; one that conflicts is left alone by DO
NOTHING, and moved by DO UPDATE. So the rows that exist are read first, and held until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql.elements import ClauseElement

from statekit.errors import Pair, StatekitError
from statekit.guards import current
from statekit.guards.guard import Guard
from statekit.guards.judging import RACE
from statekit.guards.statements import inserts, new_rows
from statekit.guards.statements.account import Account
from statekit.guards.statements.conflicts import Conflict, in_a_question, sets_to_proposed
from statekit.guards.statements.execution import Execution, is_known
from statekit.guards.stored import as_stored


def write(insert: inserts.Inserting, account: Account, conflicts: list[Conflict]) -> CursorResult[Any]:
    """Execute an upsert.

    Raises:
        IllegalTransition: a row that exists must not make the move, or a new one must not start where it does.
    """
    insert = _with_defaults(insert, conflicts)
    execution = insert.execution
    upsert = _Upsert(insert, conflicts)
    if execution.connection.dialect.name == "sqlite":
        current.lock_database(execution.ask, insert.table)
    if upsert.may_repeat_a_key():
        return _set_by_set(execution, insert.table, account, conflicts)
    late = upsert.judge(account)
    if account.is_refused:
        account.refuse()
    with execution.savepoint(insert.table, bool(late)) as opened:
        result, keys = insert.run()
        if late:
            insert.judge_late(account, result, late)
            if account.is_refused:
                if opened is not None:
                    opened.rollback()
                account.refuse()
    if account.raises and 0 <= upsert.met(result, keys) < account.written:
        again = insert.new_account()
        upsert.judge(again)
        if again.is_refused:
            again.refuse(hint=f"{RACE} Roll this one back.")
    upsert.write_history_of_new_rows(keys)
    account.publish()
    return result


def _with_defaults(insert: inserts.Inserting, conflicts: list[Conflict]) -> inserts.Inserting:
    """Call the functions that give the states of new rows, where what becomes of existing ones depends on that.

    SQLAlchemy calls them while it executes the INSERT; what they give here is handed to it.
    """
    mentioned = {key for conflict in conflicts for key in conflict.mentioned()}
    late = [guard.column.key for guard in insert.guards if guard.column.key in mentioned]
    if insert.is_from_select:
        late = [key for key in late if key not in insert.selected()] if late else []
    if not late:
        return insert
    given = []
    for row in [inserts.Row(insert, {}, {})] if insert.is_from_select else insert.rows():
        states = {guard.column.key: row.state(guard) for guard in insert.guards}
        try:
            given.append({key: row.call_default(key) for key in late if states[key] is inserts.LATE})
        except AttributeError:  # the function wants to know more of the execution than there is yet
            return insert
    if not any(given):
        return insert
    execution, statement = insert.execution, insert.statement
    if insert.is_from_select:
        return inserts.Inserting(execution.of(insert.with_columns(given[0])))
    if not statement._multi_values:
        sets = [{**each, **more} for each, more in zip(execution.sets, given, strict=True)]
        return inserts.Inserting(execution.with_parameters(sets))
    rows = [insert.named(row) for several in statement._multi_values for row in several]
    statement = statement._clone()
    columns = insert.table.c
    statement._multi_values = (
        [{columns[key]: value for key, value in (row | more).items()} for row, more in zip(rows, given, strict=True)],
    )
    return inserts.Inserting(execution.of(statement))


def _set_by_set(execution: Execution, table: Any, account: Account, conflicts: list[Conflict]) -> CursorResult[Any]:
    """Execute an upsert once for each set of parameters: what one set writes is what the next one finds.

    If one is refused, all of it is taken back; the sets after it are executed too, to name all.
    """
    total = 0
    with execution.savepoint(table) as opened:
        for one in _parts(execution):
            insert = inserts.Inserting(one)
            upsert = _Upsert(insert, conflicts)
            late = upsert.judge(account)
            if account.is_refused and opened is None:
                break
            if not upsert.refuses_a_new_row:
                result, keys = insert.run()
                upsert.write_history_of_new_rows(keys)
                met = upsert.met(result, keys)
                total = -1 if total < 0 or met < 0 else total + met
                insert.judge_late(account, result, late)
        if account.is_refused:
            if opened is not None:
                opened.rollback()
            account.refuse()
    result.rowcount = total
    account.publish()
    return result


def _parts(execution: Execution) -> Iterator[Execution]:
    """Return an execution for each set of parameters, or for each of several rows in VALUES."""
    if not execution.resolved._multi_values:
        yield from map(execution.only, execution.parameters)
    for rows in execution.resolved._multi_values:
        for row in rows:
            statement = execution.resolved._clone()
            statement._multi_values = ([row],)
            yield execution.of(statement)


class _Upsert:
    """Judges the proposed rows of one upsert.

    Attributes:
        refuses_a_new_row: whether one of the rows cannot be written; the fence does not hold a new one.
    """

    def __init__(self, insert: inserts.Inserting, conflicts: list[Conflict]) -> None:
        self._insert = insert
        self._execution = insert.execution
        self._conflicts = conflicts
        self._table = insert.table
        self._there: set[tuple[Any, ...]] = set()
        self._is_written_down = new_rows.wants_keys(insert.execution, insert.guards)
        self.refuses_a_new_row = False

    def write_history_of_new_rows(self, keys: list[tuple[Any, ...]]) -> None:
        """Write the history of the rows that were written and did not exist before."""
        new = [key for key in keys if key not in self._there]
        insert = self._insert
        new_rows.write_history(self._execution, insert.guards, insert.table, insert.primary_key, new)

    def met(self, result: CursorResult[Any], keys: list[tuple[Any, ...]]) -> int:
        """Return how many rows were written, -1 if nobody says so."""
        if self._is_written_down:
            return len(keys)
        return -1 if result.returns_rows else result.rowcount

    def may_repeat_a_key(self) -> bool:
        """Return whether one of several rows may find what another one has written.

        Where rows come back, they cannot be written one by one.
        """
        if self._insert.statement._returning or self._insert.is_from_select:
            return False
        rows = list(self._insert.rows())
        if self._insert.statement._multi_values and any(self._execution.parameters):
            return False  # their names say which of the rows they are for
        if len(rows) < 2:
            return False
        if (plain := self._plain_keys(rows)) is not None:
            # A row that is made and then moved has a history of both, and PostgreSQL does not do it in one statement.
            return self._is_written_down and len(set(plain)) < len([key for key in plain if None not in key])
        for conflict in self._conflicts:
            for key in conflict.keys:
                if not all(isinstance(column, sa.Column) for column in key.columns):
                    return True
                values = [tuple(row.value(column) for column in key.columns) for row in rows]
                if any(isinstance(part, ClauseElement) for value in values for part in value):
                    return True
                given = [value for value in values if None not in value]
                if len(set(given)) < len(given):
                    return True
        return False

    def judge(self, account: Account) -> set[int]:
        """Judge all rows.

        Returns:
            The numbers of the new rows whose state only the INSERT shows.
        """
        if self._insert.is_from_select:
            if self._is_written_down:
                raise StatekitError(
                    f"{self._table} has a guard with history=True, and which of the rows of an INSERT … SELECT … ON "
                    "CONFLICT are new ones is not known here. Install the guard's trigger on PostgreSQL, which sees "
                    "each row; or read the rows first, and insert them with VALUES."
                )
            proposed = {} if inserts.writes_within(self._insert.statement.select) else self._insert.selected()
            return self._judge_select(account, proposed) if proposed else set()
        rows = list(self._insert.rows())
        keys = self._plain_keys(rows)
        return self._judge_by_key(account, rows, keys) if keys is not None else self._judge_one_by_one(account, rows)

    # -- all rows with one reading

    def _plain_keys(self, rows: list[inserts.Row]) -> list[tuple[Any, ...]] | None:
        """Return the conflicting key of each row, if they can be looked up all at once, and judged in Python."""
        if len(self._conflicts) > 1 or len(self._conflicts[0].keys) != 1 or not rows:
            return None
        (conflict,) = self._conflicts
        (key,) = conflict.keys
        if conflict.where is not None or key.where is not None:
            return None
        if self._is_written_down and list(key.columns) != list(self._insert.primary_key):
            return None  # then what is read does not say which rows exist
        if not all(_is_the_same_for_python(column) for column in key.columns):
            return None
        if not all(self._is_plain(conflict, guard) for guard in self._insert.guards):
            return None
        types = [column.type.python_type for column in key.columns]
        keys = [tuple(row.value(column) for column in key.columns) for row in rows]
        for each in keys:
            if not all(part is None or type(part) is type_ for part, type_ in zip(each, types, strict=True)):
                return None
        return keys

    def _is_plain(self, conflict: Conflict, guard: Guard) -> bool:
        value = conflict.updates.get(guard.column.key)
        return value is None or is_known(value, guard) or sets_to_proposed(value, guard)

    def _judge_by_key(self, account: Account, rows: list[inserts.Row], keys: list[tuple[Any, ...]]) -> set[int]:
        (conflict,) = self._conflicts
        columns = conflict.keys[0].columns
        there: list[dict[Any, Any]] = [
            current.read(
                self._execution.connection,
                current.ColumnPlace(guard, self._table, self._table.c[guard.column.key], columns),
                dict.fromkeys(key for key in keys if None not in key),
                ask=self._execution.ask,
            )
            for guard in self._insert.guards
        ]
        self._there.update(there[0])
        late, made = set(), set()
        for number, (row, key) in enumerate(zip(rows, keys, strict=True)):
            states = [row.state(guard) for guard in self._insert.guards]
            if key not in there[0]:
                self._insert.add(account, states, identity=row.identity())
                if inserts.LATE in states:
                    late.add(number)
                if None not in key:
                    made.add(key)
                    for known, state in zip(there, states, strict=True):
                        known[key] = state
            elif not conflict.does_nothing:
                pairs = [
                    self._pair(conflict, guard, row, known[key], state)
                    for guard, known, state in zip(self._insert.guards, there, states, strict=True)
                ]
                if self._is_written_down and key in made and any(pair and pair[0] != pair[1] for pair in pairs):
                    raise StatekitError(
                        f"This INSERT into {self._table} has the key {key!r} several times, and its guard has "
                        "history=True: what one of the rows writes, the next one moves, and nobody would know from "
                        "where. Name each row once, or leave RETURNING out."
                    )
                if account.add(pairs, identity=key if columns == self._insert.primary_key else None):
                    for known, pair in zip(there, pairs, strict=True):
                        known[key] = known[key] if pair is None else pair[1]
        return late

    @staticmethod
    def _pair(conflict: Conflict, guard: Guard, row: inserts.Row, source: Any, proposed: Any) -> Pair | None:
        if guard.column.key not in conflict.updates:
            return None
        value = conflict.updates[guard.column.key]
        if sets_to_proposed(value, guard):
            return None if proposed is inserts.LATE or proposed is inserts.UNKNOWN else (source, proposed)
        return source, guard.states.text(row.parameters.get(value.key, value.effective_value))

    # -- row by row, with the database's own eyes

    def _judge_one_by_one(self, account: Account, rows: list[inserts.Row]) -> set[int]:
        late = set()
        for number, row in enumerate(rows):
            if self._judge_existing(account, row):
                continue
            states = [row.state(guard) for guard in self._insert.guards]
            self.refuses_a_new_row |= not self._insert.add(account, states, identity=row.identity())
            if inserts.LATE in states:
                late.add(number)
        return late

    def _judge_existing(self, account: Account, row: inserts.Row) -> bool:
        """Judge the row that a proposed one conflicts with; return whether there is one."""
        proposed = [row.expression(column).label(column.name) for column in self._table.columns]
        excluded = sa.select(*proposed).subquery("excluded")
        for conflict in self._conflicts:
            match = conflict.matches(excluded, row.is_given)
            if match is None:
                continue
            columns, guards = self._columns(conflict, excluded)
            key = self._insert.primary_key
            query = self._existing([*columns, *key], excluded, match)
            found = self._execution.ask(query, row.parameters).first()
            if found is None or found[0] is None:
                continue
            self._there.add(tuple(found)[len(found) - len(key) :])
            late = {guard.column.key for guard in self._insert.guards if row.state(guard) is inserts.LATE}
            if late & conflict.mentioned():
                return True  # the fence alone judges the move
            if found[0] and not conflict.does_nothing:
                account.add(self._pairs(guards, found[1:]), identity=tuple(found)[-len(key) :] if key else None)
            return True
        return False

    def _existing(self, columns: list[Any], excluded: Any, match: Any) -> Any:
        """Return a SELECT from the rows that exist, which holds them.

        SQLite's own DO UPDATE takes a name in text that both have for the table's; so does a subquery. The first column
        of its rows is NULL where none exists.
        """
        if self._execution.connection.dialect.name != "sqlite":
            rows = sa.select(*columns).select_from(self._table.join(excluded, match))
            return rows.with_for_update(key_share=True, of=self._table)
        alone = [sa.select(column).select_from(self._table).where(match).correlate(excluded) for column in columns]
        return sa.select(*(each.scalar_subquery() for each in alone)).select_from(excluded)

    def _columns(self, conflict: Conflict, excluded: Any) -> tuple[list[Any], list[Guard]]:
        """Return what tells whether an existing row is updated, and from which states to which."""
        dialect = self._execution.connection.dialect.name
        guards = [guard for guard in self._insert.guards if guard.column.key in conflict.updates]
        where = sa.true() if conflict.where is None else in_a_question(conflict.where, excluded)
        columns = [sa.case((where, sa.literal_column("1")), else_=sa.literal_column("0")).label("statekit_updates")]
        for number, guard in enumerate(guards):
            column = self._table.c[guard.column.key]
            value = in_a_question(conflict.updates[column.key], excluded)
            columns.append(guard.states.select(column).label(f"statekit_source_{number}"))
            columns.append(
                guard.states.select(as_stored(value, column.type, dialect)).label(f"statekit_target_{number}")
            )
        return columns, guards

    def _pairs(self, guards: list[Guard], found: Sequence[Any]) -> list[Pair | None]:
        by_guard = {
            guard: (guard.states.selected(found[2 * number]), guard.states.selected(found[2 * number + 1]))
            for number, guard in enumerate(guards)
        }
        return [by_guard.get(guard) for guard in self._insert.guards]

    # -- what a SELECT gives, all at once

    def _judge_select(self, account: Account, proposed: dict[str, Any]) -> set[int]:
        defaults = inserts.Row(self._insert, {}, {})
        columns = [
            (
                self._insert.typed(proposed[column.key], column.type)
                if column.key in proposed
                else defaults.expression(column)
            ).label(column.name)
            for column in self._table.columns
        ]
        source = next(iter(proposed.values())).table
        excluded = sa.select(*columns).select_from(source).subquery("excluded")
        exists = []
        for conflict in self._conflicts:
            match = conflict.matches(
                excluded, lambda column: column.key in proposed or defaults.is_given(column), several=True
            )
            if match is None:
                continue
            late = {guard.column.key for guard in self._insert.guards if defaults.state(guard) is inserts.LATE}
            late -= proposed.keys()
            exists.append(sa.exists(sa.select(1).select_from(self._table).where(match).correlate(excluded)))
            if not conflict.does_nothing and not late & conflict.mentioned():
                asked, guards = self._columns(conflict, excluded)
                self._count(account, self._existing(asked, excluded, match), guards)
        is_new = sa.and_(sa.true(), *(~each for each in exists))
        given = {column.key: excluded.c[column.name] for column in self._table.columns if column.key in proposed}
        return self._insert.judge_select(account, given, is_new)

    def _count(self, account: Account, query: Any, guards: list[Guard]) -> None:
        inner = query.subquery("statekit_rows")
        counted = sa.select(*inner.c, sa.func.count()).group_by(*inner.c)
        for row in self._execution.ask(counted, self._execution.sets[0]):
            if row[0]:
                account.add(self._pairs(guards, row[1:-1]), row[-1])


def _is_the_same_for_python(column: Any) -> bool:
    """Return whether two values of a key are equal for the database if and only if they are for Python."""
    plain = {sa.Integer, sa.BigInteger, sa.SmallInteger, sa.String, sa.Text, sa.Unicode, sa.VARCHAR, sa.Uuid, sa.UUID}
    is_plain = isinstance(column, sa.Column) and type(column.type) in plain
    return is_plain and getattr(column.type, "collation", None) is None
