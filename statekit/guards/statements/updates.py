"""An UPDATE of a guarded column: asked about, then written, and then looked at once more.

Four ways lead through it. A statement with one set of parameters is asked about with its own WHERE. One with several
sets that find their rows by primary key is judged by one reading of all those rows. Of any other, each set is asked
about: if they match different rows, it is executed at once, else set by set.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import CursorResult
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ColumnClause

from statekit.guards import current
from statekit.guards.fence import Fence, Plan
from statekit.guards.guard import primary_key_of, root_table
from statekit.guards.statements import orm, whole
from statekit.guards.statements.account import Account
from statekit.guards.statements.execution import CompiledUpdate, Execution, is_known
from statekit.guards.statements.one_update import (
    OneUpdate,
    account_of,
    is_late,
    letting,
    met_by,
    warn_of_missing_rows,
)
from statekit.guards.statements.question import question_of


def write(execution: Execution) -> CursorResult[Any]:
    """Execute an UPDATE of a guarded table.

    Raises:
        IllegalTransition: a row that it matches must not make the move, in "raise". Nothing was changed, unless the
            error says that the transaction is to be rolled back.
    """
    compiled = CompiledUpdate(execution)
    plan = compiled.plan
    if plan is None or compiled.writes_within:
        return execution.run(execution.parameters)
    keys = _keys(plan, execution.parameters[0]) if len(execution.parameters) > 1 else None
    if len(execution.parameters) < 2:
        result, account = OneUpdate(execution, compiled, plan, execution.parameters).write()
    elif keys is not None:
        result, account = _ByKey(execution, compiled, plan, keys).write()
    else:
        result, account = _all_apart(execution, compiled, plan) or _set_by_set(execution, compiled, plan)
    account.publish()
    return result


class _ByKey:
    """An UPDATE with several sets of parameters, each of which finds a row by its primary key."""

    def __init__(
        self, execution: Execution, compiled: CompiledUpdate, plan: Plan, keys: list[BindParameter[Any]]
    ) -> None:
        self._execution = execution
        self._compiled = compiled
        self._plan = plan
        self._keys = list(zip(*compiled.each_value(execution.parameters, keys), strict=True))
        self._targets = list(
            zip(
                *(
                    map(setting.guard.states.text, values)
                    for setting, values in zip(
                        plan.settings,
                        compiled.each_value(execution.parameters, [setting.value for setting in plan.settings]),
                        strict=True,
                    )
                ),
                strict=True,
            )
        )

    def write(self) -> tuple[CursorResult[Any], Account]:
        """Judge all rows, and execute the statement if nothing is refused."""
        account = account_of(self._plan, self._execution.connection)
        refused = self._judge(account)
        result, met = _write_at_once(self._execution, self._plan, account, refused)
        if refused and met is not None and self._execution.is_persistence:
            result.rowcount = met + len(refused)
        return result, account

    def _judge(self, account: Account) -> list[tuple[Any, ...]]:
        """Judge one set after the other, as the database will execute them; return the keys of refused rows."""
        rows = [self._read(setting) for setting in self._plan.settings]
        refused = []
        for number, (key, targets) in enumerate(zip(self._keys, self._targets, strict=True)):
            if key not in rows[0]:
                self._judge_alone(account, number)
            elif account.add([(states[key], target) for states, target in zip(rows, targets, strict=True)], 1, key):
                for states, target in zip(rows, targets, strict=True):
                    states[key] = target
            else:
                refused.append(key)
        return refused

    def _judge_alone(self, account: Account, number: int) -> None:
        """Judge a set whose key is no row's, or is one only for the database: 1 and "1", "a" and a padded "a"."""
        one = OneUpdate(self._execution, self._compiled, self._plan, [self._execution.parameters[number]])
        judged = one.judge()
        assert judged is not None
        account.merge(judged)

    def _read(self, setting: Any) -> dict[tuple[Any, ...], str | None]:
        table = self._plan.statement.table
        place = current.ColumnPlace(setting.guard, table, setting.column, primary_key_of(table, setting.guard))
        return current.read(self._execution.connection, place, dict.fromkeys(self._keys), ask=self._execution.ask)


def _all_apart(execution: Execution, compiled: CompiledUpdate, plan: Plan) -> tuple[CursorResult[Any], Account] | None:
    """Execute an UPDATE for all sets of parameters at once, if each matches other rows; else return None."""
    question = question_of(compiled)
    if any(map(is_late, plan.settings)) or not question.stays_the_same(execution.parameters[0]):
        return None
    account = account_of(plan, execution.connection)
    refused = []
    seen: set[tuple[Any, ...]] = set()
    for parameters in execution.parameters:
        for key, pairs in question.held_rows(execution, compiled.values(parameters)):
            if key in seen:
                return None
            seen.add(key)
            if not account.add(pairs, identity=key):
                refused.append(key)
    result, _ = _write_at_once(execution, plan, account, refused)
    return result, account


def _write_at_once(
    execution: Execution, plan: Plan, account: Account, refused: list[tuple[Any, ...]]
) -> tuple[CursorResult[Any], int | None]:
    """Execute an UPDATE for all sets of parameters, once all are judged.

    Args:
        execution: of the UPDATE.
        plan: what it does.
        account: the verdicts.
        refused: the primary keys of rows that the fence will leave out.

    Returns:
        The result, and how many rows were met, if the driver says so.
    """
    if account.is_refused and not whole.is_collecting():
        account.refuse()
    orm.note(refused, execution.connection)
    with letting(account.leeways()):
        result = execution.run(execution.parameters)
    met = met_by(result, execution.connection, many=True)
    if account.has_history and (met is None or met < account.written):
        _keep_only_arrived(execution, plan, account)
    if met is not None and met < account.written:
        warn_of_missing_rows(plan, account.written - met)
    return result, met


def _keep_only_arrived(execution: Execution, plan: Plan, account: Account) -> None:
    """Look at the rows once more, of which the database has kept some back."""
    table = plan.statement.table
    for setting in plan.settings:
        place = current.ColumnPlace(setting.guard, table, setting.column, primary_key_of(table, setting.guard))
        keys = account.written_keys(setting.guard)
        now = current.read(execution.connection, place, keys, lock=False, ask=execution.ask)
        account.keep_only_arrived(setting.guard, now)


def _set_by_set(execution: Execution, compiled: CompiledUpdate, plan: Plan) -> tuple[CursorResult[Any], Account]:
    """Execute an UPDATE once for each set of parameters: what one set writes may be what the next one finds.

    In "raise", all of it is taken back if one set is refused; the sets after it are executed too, to name all.
    """
    account = account_of(plan, execution.connection)
    result: CursorResult[Any] | None = None
    total = 0
    with execution.savepoint(root_table(plan.statement.table), account.raises) as opened:
        for parameters in execution.parameters:
            result, written = OneUpdate(execution, compiled, plan, [parameters], tolerant=opened is not None).write()
            account.merge(written)
            total += max(result.rowcount, 0)
        if account.is_refused and not whole.is_collecting():
            if opened is not None:
                opened.rollback()
            account.refuse()
    assert result is not None
    result.rowcount = total
    return result, account


def _keys(plan: Plan, parameters: Iterable[str]) -> list[BindParameter[Any]] | None:
    """Return the parameters by which an UPDATE finds its row; None if it does so in another way, or changes a key."""
    primary_key = primary_key_of(plan.statement.table, plan.settings[0].guard)
    changed = {key if isinstance(key, str) else key.key for key in dict(plan.statement._values or {})}
    if (changed | set(parameters)) & {column.key for column in primary_key}:
        return None
    criteria = [c for c in plan.statement._where_criteria if not isinstance(c, Fence)]
    parts = [part for each in criteria for part in getattr(each, "clauses", (each,))]
    found = {}
    for part in parts:
        left, right = getattr(part, "left", None), getattr(part, "right", None)
        if not isinstance(right, BindParameter) or part.operator is not operators.eq:
            return None
        if not isinstance(left, ColumnClause) or not plan.statement.table.c.contains_column(left):
            return None
        found[getattr(left, "key", None)] = right
    if not primary_key or set(found) != {column.key for column in primary_key} or len(parts) != len(primary_key):
        return None
    if not all(is_known(each.value, each.guard) and not is_late(each) for each in plan.settings):
        return None
    return [found[column.key] for column in primary_key]
