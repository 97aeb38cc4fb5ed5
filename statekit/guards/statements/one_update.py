"""An UPDATE with one set of parameters: asked about, written, and looked at once more where rows were missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.sql.elements import BindParameter

from statekit.errors import Pair, StatekitError
from statekit.guards.fence import Plan, Setting, statement_leeway
from statekit.guards.guard import Guard, primary_key_of, root_table
from statekit.guards.judging import RACE
from statekit.guards.statements import orm, whole
from statekit.guards.statements.account import Account
from statekit.guards.statements.execution import CompiledUpdate, Execution, Parameters, is_known
from statekit.guards.statements.question import HELD, Group, question_of

_ATTEMPTS = 20
"""How often a statement is written anew because rows have arrived while it was asked about."""

LATE = f"{RACE} Roll this one back."


_Written = tuple[CursorResult[Any], Account, int | None]
"""The result, the account, and how many rows were met, if the driver says so."""


class OneUpdate:
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
        self._rename(account)
        return result, account

    def _rename(self, account: Account) -> None:
        """Have the history name rows by the primary key that the statement gives them, where it is a plain value."""
        given = dict.fromkeys(self._parameters[0] if self._parameters else ())
        given |= {
            key if isinstance(key, str) else key.key: v for key, v in dict(self._plan.statement._values or {}).items()
        }
        new = {}
        for number, column in enumerate(primary_key_of(self._plan.statement.table, self._plan.settings[0].guard)):
            value = given.get(column.key)
            name = column.key if value is None else getattr(value, "key", None)
            if column.key in given and name in self._values and (value is None or isinstance(value, BindParameter)):
                new[number] = self._values[name]
        if account.has_history and new:
            account.rename(lambda key: tuple(new.get(number, part) for number, part in enumerate(key)))

    def judge(self, *, hold: bool = True, limit: bool = False) -> Account | None:
        """Ask, and judge what was found; None if there was more than the limit."""
        groups = self._question.groups(self._execution, self._values, hold=hold, limit=limit)
        if limit and sum(group.number for group in groups) > HELD:
            return None
        account = account_of(self._plan, self._execution.connection)
        pairs = [self._question.pairs(group.where, self._values) for group in groups]
        refused = [group for group, each in zip(groups, pairs, strict=True) if not account.add(each, group.number)]
        if account.wants_identities and hold:
            self._identify(account, [(g, each) for g, each in zip(groups, pairs, strict=True) if g not in refused])
        if refused and not account.is_refused and orm.is_wanted():
            left_out = self._question.rows(self._execution, self._values, refused)
            orm.note([key for key, _ in left_out], self._execution.connection)
        self._question.name_refused(account, self._execution, self._values, refused)
        return account

    def _identify(self, account: Account, written: list[tuple[Group, tuple[Pair, ...]]]) -> None:
        """Name each row that is to be written; the rows are held."""
        for group, pairs in written:
            keys = self._keys_of(group)
            if len(keys) == group.number:  # else others have arrived, and the statement is begun anew
                account.identify(pairs, keys)

    def _write_one_row(self) -> _Written | None:
        """Write a row that is found by its key, without a question: that it was met says that it may move.

        If it was not, nothing was written, and the question is why.

        Returns:
            None if this says too little, or if the row may move by now; then nothing was written.
        """
        account = account_of(self._plan, self._execution.connection)
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
        if account.has_history:
            return None  # which takes the key of each row
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

    def _keys_of(self, group: Group) -> list[Any]:
        return [key for key, _ in self._question.rows(self._execution, self._values, [group])]

    def _late(self) -> list[Setting]:
        """Return the settings whose value a function gives while the statement is executed."""
        return [each for each in self._plan.settings if is_late(each)]

    def _write_late(self) -> tuple[CursorResult[Any], Account]:
        """Write, and judge by what the functions gave; the fence has left refused rows as they are."""
        groups = self._question.groups(self._execution, self._values)
        account = account_of(self._plan, self._execution.connection)
        keys = [self._keys_of(group) if account.has_history else [None] for group in groups]
        with self._execution.savepoint(self._table) as opened:
            result, met = self._run(account)
            for setting in self._late():
                self._values[setting.value.key] = result.context.compiled_parameters[0].get(setting.column.key)
            for group, known in zip(groups, keys, strict=True):
                pairs = self._question.pairs(group.where, self._values)
                if len(known) == group.number:
                    for key in known:
                        account.add(pairs, 1, key)
                else:
                    account.add(pairs, group.number)
            if account.is_refused and not self._tolerant:
                result.close()
                if opened is not None:
                    opened.rollback()
                account.refuse()
        self._let_pass_as_met(result, account, met)
        self._rename(account)
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
        with letting(account.leeways(strict=strict)):
            result = self._execution.run(self._parameters)
        return result, met_by(result, self._execution.connection)

    def _explain(self, account: Account, met: int) -> None:
        """Look again where fewer rows were met than were to be: something changed them in between, or kept them back.

        What the database has kept back, such as by a trigger that skips, did not move: it is not reported as if it did,
        and the objects in the session do not say so.
        """
        again = account_of(self._plan, self._execution.connection)
        groups = self._question.groups(self._execution, self._values, hold=False)
        pairs = [self._question.pairs(group.where, self._values) for group in groups]
        refused, kept = [], []
        for group, each in zip(groups, pairs, strict=True):
            if not again.add(each, group.number):
                refused.append(group)
            elif any(source != target for source, target in each):
                kept.append(group)
        if again.is_refused and not account.is_refused:
            self._question.name_refused(again, self._execution, self._values, refused)
            again.refuse(hint=LATE)
        if kept:
            wanted = account.wants_identities or orm.is_wanted()
            rows = self._question.rows(self._execution, self._values, kept) if wanted else ()
            keys = [key for key, _ in rows]
            account.take_back(again, keys if account.wants_identities else None)
            if orm.is_wanted():
                orm.note(keys, self._execution.connection)
        warn_of_missing_rows(self._plan, account.written - met)


def warn_of_missing_rows(plan: Plan, missing: int) -> None:
    """Log that an UPDATE has met fewer rows than were counted, and no move explains it."""
    logging.getLogger("statekit").warning(
        "[SELF-HEAL] An UPDATE of %s has not met %s rows that were counted right before it: a trigger, a rule, a "
        "policy, or a value that is another each time that it is evaluated, has kept it from them",
        plan.settings[0].guard.column.table.fullname,
        f"{missing:,}",
        extra={"statekit_kind": "missing", "statekit_missing": missing},
    )


def is_late(setting: Setting) -> bool:
    """Return whether a function gives the value while the statement is executed."""
    return setting.onupdate is not None and bool(setting.onupdate.is_callable)


def account_of(plan: Plan, connection: Connection) -> Account:
    """Return an empty account for a compiled UPDATE."""
    table = plan.statement.table
    keys = primary_key_of(table, plan.settings[0].guard)
    guards = [setting.guard for setting in plan.settings]
    return Account(guards, tuple(column.key for column in keys), connection, table, keys)


def met_by(result: CursorResult[Any], connection: Connection, *, many: bool = False) -> int | None:
    """Return how many rows an UPDATE has met, if the driver says so."""
    dialect: Any = connection.dialect
    if result.returns_rows and not dialect.supports_sane_rowcount_returning:
        return None
    if not dialect.supports_sane_rowcount or (many and not dialect.supports_sane_multi_rowcount):
        return None
    return result.rowcount if result.rowcount >= 0 else None


@contextmanager
def letting(leeways: dict[Guard, int]) -> Iterator[None]:
    """Tell the fence how much it lets through, instead of having it ask for each set of parameters."""
    before = statement_leeway.set(leeways)
    try:
        yield
    finally:
        statement_leeway.reset(before)
