"""An UPDATE of a guarded column: asked about, then written, and then looked at once more.

Four ways lead through it. A statement with one set of parameters is asked about with its own WHERE. One with several
sets that find their rows by primary key is judged by one reading of all those rows. Of any other, each set is asked
about: if they match different rows, it is executed at once, else set by set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ColumnClause

from statekit.errors import StatekitError
from statekit.guards import current
from statekit.guards.fence import Fence, Plan, Setting, statement_leeway
from statekit.guards.guard import Guard, primary_key_of, root_table
from statekit.guards.judging import RACE
from statekit.guards.statements import orm, whole
from statekit.guards.statements.account import Account
from statekit.guards.statements.execution import CompiledUpdate, Execution, Parameters, is_known
from statekit.guards.statements.question import HELD, question_of

_ATTEMPTS = 20
"""How often a statement is written anew because rows have arrived while it was asked about."""

LATE = f"{RACE} Roll this one back."


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
        result, account = _One(execution, compiled, plan, execution.parameters).write()
    elif keys is not None:
        result, account = _ByKey(execution, compiled, plan, keys).write()
    else:
        result, account = _all_apart(execution, compiled, plan) or _set_by_set(execution, compiled, plan)
    account.publish()
    return result


_Written = tuple[CursorResult[Any], Account, int | None]
"""The result, the account, and how many rows were met, if the driver says so."""


class _One:
    """An UPDATE with one set of parameters.

    Args:
        parameters: the set, or nothing for a statement that was called without.
        tolerant: whether to execute it all the same, because the fence leaves out what is refused, and the whole will
            be taken back.
    """

    def __init__(
        self,
        execution: Execution,
        compiled: CompiledUpdate,
        plan: Plan,
        parameters: Sequence[Parameters],
        *,
        tolerant: bool = False,
    ) -> None:
        self._execution = execution
        self._parameters = parameters
        self._tolerant = tolerant or whole.is_collecting()
        self._values = compiled.values(parameters[0] if parameters else {})
        self._plan = plan
        self._table = root_table(plan.statement.table)
        self._question = question_of(compiled)

    def write(self) -> tuple[CursorResult[Any], Account]:
        """Ask, and execute the statement if nothing is refused, or if what is refused is tolerated.

        Returns:
            The result, and the account that is still to be published.

        Raises:
            IllegalTransition: a row is refused, in "raise".
        """
        if self._late():
            return self._write_late()
        written = (
            self._write_one_row()
            or self._write_held(limit=True)
            or self._write_unheld()
            or self._write_held(limit=False)
        )
        assert written is not None
        result, account, met = written
        if met is not None and met < account.written:
            self._explain(account, met)
        self._let_pass_as_met(result, account, met)
        return result, account

    def judge(self, *, hold: bool = True, limit: bool = False) -> Account | None:
        """Ask, and judge what was found; None if there was more than the limit."""
        groups = self._question.groups(self._execution, self._values, hold=hold, limit=limit)
        if limit and sum(group.number for group in groups) > HELD:
            return None
        account = _account(self._plan)
        pairs = [self._question.pairs(group.where, self._values) for group in groups]
        refused = [group for group, each in zip(groups, pairs, strict=True) if not account.add(each, group.number)]
        if refused and not account.is_refused and orm.is_wanted():
            left_out = self._question.rows(self._execution, self._values, refused)
            orm.note([key for key, _ in left_out], self._execution.connection)
        self._question.name_refused(account, self._execution, self._values, refused)
        return account

    def _write_one_row(self) -> _Written | None:
        """Write a row that is found by its key, without a question: that it was met says that it may move.

        If it was not, nothing was written, and the question is why.

        Returns:
            None if this says too little, or if the row may move by now; then nothing was written.
        """
        account = _account(self._plan)
        if account.observes or account.wants_allowed or not self._question.is_about_one_row:
            return None
        if not self._execution.connection.dialect.supports_sane_rowcount:
            return None
        if self._execution.resolved._returning or self._execution.resolved._return_defaults:
            return None  # not every driver counts rows then
        result, met = self._run(account)
        if met == 1:
            account.written = 1
            return result, account, met
        judged = self.judge(hold=False)
        assert judged is not None
        if judged.is_refused and not self._tolerant:
            judged.refuse()
        if judged.written:
            result.close()
            return None
        return result, judged, met

    def _write_held(self, *, limit: bool) -> _Written | None:
        """Hold the rows and write them; None if they are too many for the limit."""
        connection = self._execution.connection
        may_race = connection.dialect.name != "sqlite"  # there the database is held as a whole
        for _ in range(_ATTEMPTS):
            account = self.judge(limit=limit and may_race)
            if account is None:
                return None
            if account.is_refused and not self._tolerant:
                account.refuse()
            must_be_exact = may_race and (account.observes or account.wants_allowed)
            with self._execution.savepoint(self._table, must_be_exact) as opened:
                result, met = self._run(account)
                if opened is None or met is None or met <= account.written:
                    return result, account, met
                result.close()
                opened.rollback()  # rows have arrived since; what was held is held still
        raise StatekitError(
            f"An UPDATE of {self._plan.settings[0].guard.column.table.fullname} was begun {_ATTEMPTS} times, and each "
            "time more rows had arrived since they were counted. Nothing was written; write fewer rows at once."
        )

    def _write_unheld(self) -> _Written | None:
        """Write more rows than are held, if the UPDATE itself shows whether something has changed since the question.

        That is so where no row was to keep its state, because then the fence lets none do so, and a row that somebody
        else moved is missing in the number of those met; where each state is reached from one other, so that this
        number says which move it counts; and where the rows that are refused are the same ones before and after.

        Returns:
            None if it is not so, or if something has changed; then nothing was written.
        """
        account = self.judge(hold=False)
        assert account is not None
        if account.is_refused or account.stays or account.observes or not self._has_one_way(account):
            return None
        with self._execution.savepoint(self._table) as opened:
            result, met = self._run(account, strict=True)
            if opened is None or met is None:
                return result, account, met
            again = self.judge(hold=False)
            assert again is not None
            if met == account.written and again.refuses_as(account):
                return result, account, met
            result.close()
            opened.rollback()
        return None

    def _late(self) -> list[Setting]:
        """Return the settings whose value a function gives while the statement is executed."""
        return [each for each in self._plan.settings if _is_late(each)]

    def _write_late(self) -> tuple[CursorResult[Any], Account]:
        """Write, and judge by what the functions gave; the fence has left refused rows as they are."""
        groups = self._question.groups(self._execution, self._values)
        account = _account(self._plan)
        with self._execution.savepoint(self._table) as opened:
            result, met = self._run(account)
            for setting in self._late():
                self._values[setting.value.key] = result.context.compiled_parameters[0].get(setting.column.key)
            for group in groups:
                account.add(self._question.pairs(group.where, self._values), group.number)
            if account.is_refused and not self._tolerant:
                result.close()
                if opened is not None:
                    opened.rollback()
                account.refuse()
        self._let_pass_as_met(result, account, met)
        return result, account

    def _let_pass_as_met(self, result: CursorResult[Any], account: Account, met: int | None) -> None:
        """Have SQLAlchemy's persistence code not take rows that were left out for lost ones."""
        if account.skipped and met is not None and self._execution.is_persistence:
            result.rowcount = met + account.skipped

    def _has_one_way(self, account: Account) -> bool:
        """Return whether the number of rows that have moved says which moves those were."""
        if not all(is_known(setting.value, setting.guard) for setting in self._plan.settings):
            return False
        if not account.wants_allowed:
            return True
        targets = [
            (setting.guard, setting.guard.states.text(self._values.get(setting.value.key)))
            for setting in self._plan.settings
        ]
        return all(len(guard.sources.get(target, ())) <= 1 for guard, target in targets)

    def _run(self, account: Account, *, strict: bool = False) -> tuple[CursorResult[Any], int | None]:
        with _leeways(account.leeways(strict=strict)):
            result = self._execution.run(self._parameters)
        return result, _met(result, self._execution.connection)

    def _explain(self, account: Account, met: int) -> None:
        """Look again where fewer rows were met than were to be: something changed them in between."""
        again = self.judge(hold=False)
        if again is not None and again.is_refused and not account.is_refused:
            again.refuse(hint=LATE)
        _warn_of_missing_rows(self._plan, account.written - met)


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
        account = _account(self._plan)
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
        one = _One(self._execution, self._compiled, self._plan, [self._execution.parameters[number]])
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
    if any(map(_is_late, plan.settings)) or not question.stays_the_same(execution.parameters[0]):
        return None
    account = _account(plan)
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
    with _leeways(account.leeways()):
        result = execution.run(execution.parameters)
    met = _met(result, execution.connection, many=True)
    if met is not None and met < account.written:
        _warn_of_missing_rows(plan, account.written - met)
    return result, met


def _set_by_set(execution: Execution, compiled: CompiledUpdate, plan: Plan) -> tuple[CursorResult[Any], Account]:
    """Execute an UPDATE once for each set of parameters: what one set writes may be what the next one finds.

    In "raise", all of it is taken back if one set is refused; the sets after it are executed too, to name all.
    """
    account = _account(plan)
    result: CursorResult[Any] | None = None
    total = 0
    with execution.savepoint(root_table(plan.statement.table), account.raises) as opened:
        for parameters in execution.parameters:
            result, written = _One(execution, compiled, plan, [parameters], tolerant=opened is not None).write()
            account.merge(written)
            total += max(result.rowcount, 0)
        if account.is_refused and not whole.is_collecting():
            if opened is not None:
                opened.rollback()
            account.refuse()
    assert result is not None
    result.rowcount = total
    return result, account


def _warn_of_missing_rows(plan: Plan, missing: int) -> None:
    logging.getLogger("statekit").warning(
        "[SELF-HEAL] An UPDATE of %s has not met %s rows that were counted right before it: a trigger, a rule, a "
        "policy, or a value that is another each time that it is evaluated, has kept it from them",
        plan.settings[0].guard.column.table.fullname,
        f"{missing:,}",
        extra={"statekit_kind": "missing", "statekit_missing": missing},
    )


def _is_late(setting: Setting) -> bool:
    return setting.onupdate is not None and bool(setting.onupdate.is_callable)


def _account(plan: Plan) -> Account:
    keys = primary_key_of(plan.statement.table, plan.settings[0].guard)
    return Account([setting.guard for setting in plan.settings], tuple(column.key for column in keys))


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
    if not all(is_known(each.value, each.guard) and not _is_late(each) for each in plan.settings):
        return None
    return [found[column.key] for column in primary_key]


def _met(result: CursorResult[Any], connection: Connection, *, many: bool = False) -> int | None:
    """Return how many rows an UPDATE has met, if the driver says so."""
    dialect: Any = connection.dialect
    if result.returns_rows and not dialect.supports_sane_rowcount_returning:
        return None
    if not dialect.supports_sane_rowcount or (many and not dialect.supports_sane_multi_rowcount):
        return None
    return result.rowcount if result.rowcount >= 0 else None


@contextmanager
def _leeways(leeways: dict[Guard, int]) -> Iterator[None]:
    """Tell the fence how much it lets through, instead of having it ask for each set of parameters."""
    before = statement_leeway.set(leeways)
    try:
        yield
    finally:
        statement_leeway.reset(before)
