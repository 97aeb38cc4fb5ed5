"""One flush of guarded objects, from the verdict before it to the account after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper, Session, UOWTransaction
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.elements import ClauseElement

from statekit.guards import current, steps
from statekit.guards.fence import OPEN, STRICT, flush_leeway
from statekit.guards.guard import NOT_KNOWN, Guard
from statekit.guards.report import Report
from statekit.guards.watch import Watch, watches
from statekit.observe.modes import OnIllegal

State = InstanceState[Any]
_UNSEEN = object()
_LATE = "The state was set while the flush was under way, by a listener or by a relationship."
_RACE = "Another transaction moved the row first."


class Flush:
    """What is known of one flush: which changes were judged, and what became of them.

    Args:
        session: whose flush it is.
        context: SQLAlchemy's own object for this flush, whose ``execute()`` writes.
    """

    def __init__(self, session: Session, context: UOWTransaction) -> None:
        self.session = session
        self.context = context
        self._modes: dict[Watch, OnIllegal] = {}
        self._report = Report(self._mode)
        self._steps = steps.Steps()
        self._judged: dict[Watch, dict[State, Any]] = {}
        self._inserts_to_look_at: dict[tuple[Watch, State], None] = {}

    # -- before the flush writes

    def judge(self, changed: dict[Watch, list[State]], created: Iterable[State]) -> None:
        """Judge every change that is known before the flush, and leave out what is to be skipped.

        Args:
            changed: the persistent objects whose guarded attribute was set.
            created: the new objects of guarded classes.

        Raises:
            IllegalTransition: a change is illegal in "raise", or a new row is. Nothing was written.
            ConcurrentTransition: another transaction made the same move first, in "raise".
        """
        to_read: dict[Watch, list[State]] = {}
        for watch, states in changed.items():
            if self._mode(watch) == "raise" and self._a_race_is_noticed(watch, states):
                others = self._judge_loaded(watch, states)
            else:
                others = [state for state in states if not self._is_unchanged(watch, state)]
            if others:
                to_read[watch] = others
        for state in created:
            for watch in watches(state.class_):
                if self._replaces_a_deleted_row(watch, state):
                    if watch.key in state.committed_state:
                        to_read.setdefault(watch, []).append(state)
                else:
                    self._judge_new(watch, state)
        for watch, states in to_read.items():
            self._judge_by_row(watch, states)
        self._leave_out(self._report.settle(may_skip=True))

    def _judge_loaded(self, watch: Watch, states: list[State]) -> list[State]:
        """Judge the objects whose source Python knows, by what they were loaded with; return the others."""
        key, text = watch.key, watch.guard.states.text
        others = []
        for state in self._not_plainly_legal(watch, states, [state.committed_state[key] for state in states]):
            old, new = state.committed_state[key], state.dict.get(key)
            if old is NO_VALUE or _is_sql(new) or _is_sql(old):
                others.append(state)
            else:
                self._judge_path(watch, state, text(old), steps.trail(state, key) or [new])
        return others

    def _judge_by_row(self, watch: Watch, states: list[State]) -> None:
        """Judge objects by what their rows hold now, and hold the rows until the transaction ends."""
        values = watch.guard.states.values
        for connection, some in self._connections(watch, states):
            keys = {state: watch.row_key(state) for state in some}
            rows = current.read(connection, watch, keys.values())
            there = [state for state in some if keys[state] in rows]  # SQLAlchemy says so where a row is gone
            now = [values.get(rows[keys[state]], NO_VALUE) for state in there]
            for state in self._not_plainly_legal(watch, there, now):
                source, new = rows[keys[state]], state.dict.get(watch.key)
                if _is_sql(new):
                    target = current.evaluate(connection, watch, keys[state], new)
                    self._judge_path(watch, state, source, [new], [target])
                else:
                    self._judge_path(watch, state, source, steps.trail(state, watch.key) or [new])

    def _is_unchanged(self, watch: Watch, state: State) -> bool:
        """Return whether an object was given the state that it was loaded with: nothing will be written.

        Its row may hold another one by now, and this is no attempt to change that.
        """
        known = watch.guard.states.known
        old, new = state.committed_state[watch.key], instance_dict(state.obj()).get(watch.key)
        try:
            same = known[old] == known[new]
        except (KeyError, TypeError):
            text = watch.guard.states.text
            same = not (old is NO_VALUE or _is_sql(old) or _is_sql(new)) and text(old) == text(new)
        if not same or steps.trail(state, watch.key):
            return False
        self._keep(watch, state, None)
        return True

    def _not_plainly_legal(self, watch: Watch, states: list[State], sources: list[Any]) -> list[State]:
        """Pass the objects with one legal move, which are nearly all and must be fast; return the others.

        Args:
            sources: the value that each row holds, as far as it is a state of the table.
        """
        guard, key = watch.guard, watch.key
        known, legal = guard.states.known, guard.legal
        note = self._report.done if self._report.counts_allowed else None
        judged = self._judged.setdefault(watch, {})
        others = []
        for state, source in zip(states, sources, strict=True):
            new = instance_dict(state.obj()).get(key)
            try:
                pair = known[source], known[new]
            except (KeyError, TypeError):  # not loaded, an SQL expression, or no state of the table
                others.append(state)
                continue
            if pair in legal and not guard.steps:
                judged[state] = new
                if note is not None:
                    note("allowed", watch, pair, state)
            else:
                others.append(state)
        return others

    def _judge_path(
        self, watch: Watch, state: State, source: str | None, values: list[Any], texts: list[str | None] | None = None
    ) -> None:
        """Judge the move of one row, or its steps.

        Args:
            source: the state that the row is in.
            values: what was assigned, in order; only the last counts unless the guard follows steps.
            texts: the same as text, where Python cannot tell it.
        """
        guard, mode = watch.guard, self._mode(watch)
        if not guard.steps:
            values = values[-1:]
        path, taken = [source], []
        for value, text in zip(values, texts or map(guard.states.text, values), strict=True):
            if text != path[-1]:
                path.append(text)
                taken.append(value)
        loaded = state.committed_state.get(watch.key, NO_VALUE)
        moved = loaded is not NO_VALUE and not _is_sql(loaded) and guard.states.text(loaded) != source
        if not taken:
            if moved and mode == "raise":
                self._report.lose(watch, state)
            self._keep(watch, state, source)
            return
        pairs = list(itertools.pairwise(path))
        illegal = next((pair for pair in pairs if pair not in guard.legal), None)
        if illegal is not None and mode != "observe":
            self._report.refuse(watch, illegal, state, hint=_RACE if moved else "")
            return
        for pair in pairs:
            self._report.done("allowed" if pair in guard.legal else "observed", watch, pair, state)
        self._judged.setdefault(watch, {})[state] = state.dict.get(watch.key)
        if len(taken) > 1:
            self._steps.of_persistent(watch, state, taken)

    def _judge_new(self, watch: Watch, state: State) -> None:
        """Judge a row to be inserted, if its state is known before that."""
        guard = watch.guard
        value = state.dict.get(watch.key)
        values = (steps.trail(state, watch.key) if guard.steps else []) or [value]
        if value is None:  # SQLAlchemy leaves the column out, and its default applies
            first = guard.default
        else:
            first = NOT_KNOWN if _is_sql(value) else guard.states.text(values[0])
        if first is NOT_KNOWN:
            self._inserts_to_look_at[watch, state] = None
            return
        self._judge_start(watch, state, first)
        self._judged.setdefault(watch, {})[state] = value
        if len(values) > 1:
            path = [guard.states.text(each) for each in values]
            kept = [each for i, each in enumerate(values) if i == 0 or path[i] != path[i - 1]]
            path = [each for i, each in enumerate(path) if i == 0 or each != path[i - 1]]
            for pair in itertools.pairwise(path):
                if pair in guard.legal or self._mode(watch) == "observe":
                    self._report.done("allowed" if pair in guard.legal else "observed", watch, pair, state)
                else:
                    self._report.refuse(watch, pair, state)
                    return
            self._steps.of_new(watch, state, kept)

    def _judge_start(self, watch: Watch, state: State, text: str | None, *, hint: str = "") -> None:
        if text not in watch.guard.initial:
            if self._mode(watch) == "observe":
                self._report.done("observed", watch, (None, text), state, new=True)
            else:
                self._report.refuse(watch, (None, text), state, new=True, hint=hint)

    def _leave_out(self, skipped: list[State]) -> None:
        """Take objects out of the flush, whole: what was changed on them is forgotten, and loads again."""
        for state in skipped:
            self.session.expire(state.obj())
        # An expired attribute loads when it is asked for, which an AsyncSession cannot do; so it is loaded now.
        by_class: dict[type, list[State]] = {}
        for state in skipped:
            by_class.setdefault(state.class_, []).append(state)
        for class_, states in by_class.items():
            mapper: Mapper[Any] = sa.inspect(class_)
            if self.session.connection(bind_arguments={"mapper": mapper}).dialect.is_async:
                identities = [state.key[1] for state in states if state.key is not None]
                query: sa.Select[Any] = sa.select(mapper).where(sa.tuple_(*mapper.primary_key).in_(identities))
                self.session.scalars(query.execution_options(populate_existing=True)).all()

    # -- while it writes, and after

    def take_over(self) -> None:
        """Be called in place of the flush's own ``execute()``, which is inside of its transaction.

        No event of SQLAlchemy sees the rows that an UPDATE of the flush did not meet, nor the flush's end if it fails.
        """
        write = self.context.execute
        self.context.execute = lambda: self._write(write)  # type: ignore[method-assign]

    def _write(self, write: Callable[[], None]) -> None:
        token = flush_leeway.set(_Leeways().__getitem__)
        try:
            self._steps.write_before(self._connections)
            write()
            self._look_again()
            self._steps.write_after(self._connections)
        except steps.StepCameShort as short:
            self._explain(short.watch, short.targets)
            name = f"{short.watch.model}.{short.watch.key}"
            raise StaleDataError(f"A step of {name} met fewer rows than it was for.") from None
        except StaleDataError as error:
            self._explain_stale(error)
            raise
        finally:
            flush_leeway.reset(token)
            self._steps.put_back()
        self._steps.forget_all()
        self._report.publish_done()

    def _look_again(self) -> None:
        """Judge what was not known before the flush: defaults, and what the flush itself changed."""
        late: dict[Watch, dict[State, Any]] = {}
        for watch, states in self._written().items():
            key, judged = watch.key, self._judged.get(watch, {})
            unseen = [
                state
                for state in states
                if key in state.committed_state
                and instance_dict(state.obj()).get(key) is not judged.get(state, _UNSEEN)
            ]
            for state in unseen:
                value = state.dict.get(key)
                if _is_sql(judged.get(state)) or (watch, state) in self._inserts_to_look_at:
                    continue
                if state.key is None:
                    self._judge_start(watch, state, watch.guard.states.text(value), hint=_LATE)
                else:
                    self._judge_late(watch, state, value)
                    late.setdefault(watch, {})[state] = value
        for watch, state in self._inserts_to_look_at:
            if watch.key in state.dict:
                text = watch.guard.states.text(state.dict[watch.key])
            else:  # the database made it, and SQLAlchemy did not fetch it
                (connection, _), *_ = self._connections(watch, [state])
                text = next(iter(current.read(connection, watch, [watch.row_key(state)], lock=False).values()), None)
            self._judge_start(watch, state, text)
        self._report.settle(may_skip=False)
        for watch, targets in late.items():
            if not self._a_race_is_noticed(watch, list(targets)):
                self._explain(watch, targets)

    def _judge_late(self, watch: Watch, state: State, value: Any) -> None:
        """Account for a change that the flush itself made and that the fence let through."""
        old = state.committed_state[watch.key]
        if old is NO_VALUE or _is_sql(old) or _is_sql(value):
            return
        pair = watch.guard.states.text(old), watch.guard.states.text(value)
        if pair in watch.guard.legal:
            self._report.done("allowed", watch, pair, state)
        elif pair[0] != pair[1] and self._mode(watch) == "observe":
            self._report.done("observed", watch, pair, state)

    def _explain_stale(self, error: StaleDataError) -> None:
        """Raise the error of ours that explains why an UPDATE of the flush met fewer rows than it was for, if one does.

        The fence turns away a row that another transaction moved first. So does the WHERE of SQLAlchemy where the row
        is gone or its version is another, which is not ours to explain.
        """
        for watch, written in self._written().items():
            if not str(error).startswith(f"UPDATE statement on table '{watch.table.description}'"):
                continue
            states = [state for state in written if state.key is not None]
            targets = {state: state.dict.get(watch.key) for state in states if watch.key in state.committed_state}
            if not targets:
                continue
            arrived = self._explain(watch, targets)
            exist = sum(
                len(current.read(connection, watch, map(watch.row_key, some), lock=False))
                for connection, some in self._connections(watch, states)
            )
            versioned = watch.mapper.version_id_col is not None and len(states) > 1
            if arrived and exist == len(states) and not versioned:
                # Of several rows, those that this flush moved itself look the same as the one that came too late.
                raise self._report.concurrent(watch, arrived, certain=len(targets) == 1) from error

    def _explain(self, watch: Watch, targets: dict[State, Any]) -> list[State]:
        """Raise if rows were not written because their move is illegal from what they hold now.

        Returns:
            The objects whose rows hold the target.
        """
        arrived = []
        for connection, states in self._connections(watch, list(targets)):
            keys = {state: watch.row_key(state) for state in states}
            rows = current.read(connection, watch, keys.values())
            for state in states:
                if keys[state] not in rows:
                    continue
                now, target = rows[keys[state]], targets[state]
                if _is_sql(target):
                    text = current.evaluate(connection, watch, keys[state], target)
                else:
                    text = watch.guard.states.text(target)
                if now == text:
                    arrived.append(state)
                elif (now, text) not in watch.guard.legal and self._mode(watch) != "observe":
                    seen = state in self._judged.get(watch, {})
                    self._report.refuse(watch, (now, text), state, hint=_RACE if seen else _LATE)
        self._report.settle(may_skip=False)
        return arrived

    # -- what the above asks

    def _mode(self, watch: Watch) -> OnIllegal:
        mode = self._modes.get(watch)
        if mode is None:
            mode = self._modes[watch] = watch.guard.mode
        return mode

    def _a_race_is_noticed(self, watch: Watch, states: list[State]) -> bool:
        """Return whether the driver says how many rows the UPDATE of these objects will have met."""
        (connection, _), *_ = self._connections(watch, states[:1])
        dialect = connection.dialect
        return dialect.supports_sane_rowcount and (len(states) == 1 or dialect.supports_sane_multi_rowcount)

    def _connections(self, watch: Watch, states: list[State]) -> list[tuple[Connection, list[State]]]:
        """Return the connections that the objects are written on, each with its objects."""
        choose = self.session.connection_callable
        if choose is None:
            return [(self.session.connection(bind_arguments={"mapper": watch.mapper}), states)]
        by_connection: dict[Connection, list[State]] = {}
        for state in states:
            by_connection.setdefault(choose(watch.mapper, state.obj()), []).append(state)
        return list(by_connection.items())

    def _written(self) -> dict[Watch, list[State]]:
        """Return the objects that the flush inserts or updates, by guarded attribute."""
        known = self.context.states
        return {
            watch: [state for state in states if known[state] == (False, False)]  # neither deleted nor only listed
            for mapper, states in self.context.mappers.items()
            for watch in watches(mapper.class_)
        }

    def _replaces_a_deleted_row(self, watch: Watch, state: State) -> bool:
        """Return whether a new object has the key of a deleted one: SQLAlchemy makes that an UPDATE of the row."""
        if not self.session._deleted:
            return False
        deleted = self.session.identity_map.get(watch.mapper._identity_key_from_state(state))
        return deleted is not None and sa.inspect(deleted) in self.session._deleted

    def _keep(self, watch: Watch, state: State, text: str | None) -> None:
        """Leave the attribute out of the flush: its row holds that state already."""
        if _is_sql(state.dict.get(watch.key)):
            state.dict[watch.key] = watch.guard.states.values.get(text, text)
        if watch.key in state.dict:
            state.committed_state[watch.key] = state.dict[watch.key]
        self._judged.setdefault(watch, {})[state] = state.dict.get(watch.key)


class _Leeways(dict[Guard, int]):
    """How much the fence lets through during one flush: asked once for each guard, and not for each row."""

    def __missing__(self, guard: Guard) -> int:
        leeway = self[guard] = OPEN if guard.mode == "observe" else STRICT
        return leeway


def _is_sql(value: Any) -> bool:
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")
