"""One flush, from the verdict before it writes to the account of what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session, UOWTransaction
from sqlalchemy.orm.exc import StaleDataError

from statekit.guards import conditions, current, history, steps
from statekit.guards.fence import OPEN, STAY, STRICT, flush_leeway
from statekit.guards.guard import Guard, filled_by_relationships
from statekit.guards.judging import LATE, RACE, Judging
from statekit.guards.watch import State, Watch, is_sql, watches, written_on
from statekit.observe.modes import PASSING

_under_way: ContextVar[Flush | None] = ContextVar("statekit_flush", default=None)

_EVENTS_OF_A_FLUSH = [f"{when}_{what}" for when in ("before", "after") for what in ("insert", "update", "delete")]

_CHUNK = 500
"""How many skipped objects are loaded again at once."""


class Flush:
    """A flush that guarded objects may be part of.

    Args:
        session: whose flush it is.
        context: SQLAlchemy's own object for this flush, whose ``execute()`` writes.
    """

    def __init__(self, session: Session, context: UOWTransaction) -> None:
        self.session = session
        self.context = context
        self._made: Judging | None = None

    @property
    def _judging(self) -> Judging:
        """Made when it is first needed: most flushes of an application are about other classes."""
        if self._made is None:
            self._made = Judging(self._connections, self._where)
        return self._made

    # -- before it writes

    def judge(self, changed: dict[Watch, list[State]], created: Sequence[State]) -> None:
        """Judge what is known before the flush, and leave out what is to be skipped.

        Args:
            changed: the objects with a row, whose guarded attribute was set.
            created: the new objects of guarded classes.

        Raises:
            IllegalTransition: a change is illegal in "raise", or a new row is. Nothing was written.
            TransitionRefused: a condition says no to a change, in "raise". Nothing was written.
            ConcurrentTransition: another transaction made the same move first, in "raise".
        """
        try:
            self._judge(changed, created)
        except BaseException:
            self._end()
            raise

    def _judge(self, changed: dict[Watch, list[State]], created: Sequence[State]) -> None:
        judging = self._judging
        new = [(watch, state) for state in created for watch in watches(state.class_)]
        replacing = [(watch, state) for watch, state in new if self._replaces_a_deleted_row(watch, state)]
        for watch, state in replacing:
            new.remove((watch, state))
            if watch.key in state.committed_state:
                changed.setdefault(watch, []).append(state)
        for watch, states in changed.items():
            judging.changed(watch, states)
        for watch, state in new:
            judging.created(watch, state)
        self._leave_out(judging.report.settle(may_skip=True))

    def take_over(self) -> None:
        """Be called in place of the flush's own ``execute()``, which is inside of its transaction.

        No event of SQLAlchemy sees the rows that an UPDATE of the flush did not meet, nor the flush's end if it fails.
        """
        write = self.context.execute
        self.context.execute = lambda: self._write(write)  # type: ignore[method-assign]

    def _end(self) -> None:
        """Let go of everything: a session must not live on in a circle of references that a flush has left."""
        self._made = None

    def _judge_what_came_since(self) -> None:
        """Judge what other listeners to ``before_flush`` have changed after ours."""
        changed: dict[Watch, list[State]] = {}
        created: list[State] = []
        for watch, states in self._written().items():
            rows = [state for state in states if state.key is not None]
            changed[watch] = self._judging.unseen(watch, rows)
            self._judging.withdraw(changed[watch], watch)
            for state in states:
                if state.key is None and state not in created and not self._is_judged(watch, state):
                    self._judging.withdraw([state], watch)
                    created.append(state)
        self.judge(changed, created)

    def _is_judged(self, watch: Watch, state: State) -> bool:
        judging = self._judging
        seen = judging.was_seen(watch, state) or (watch, state) in judging.inserts_to_look_at
        return seen and not judging.unseen(watch, [state])

    def _leave_out(self, skipped: list[State]) -> None:
        """Take objects out of the flush, whole: what was changed on them is forgotten, and loads again."""
        if not skipped:
            return
        self._judging.withdraw(skipped)
        # A session holds its changed objects only; without this, one that nobody else holds would be gone in between.
        objects = [state.obj() for state in skipped]
        is_async = self._is_async(skipped[0])
        for state, obj in zip(skipped, objects, strict=True):
            self.session.expire(obj, self._can_load_again(state) if is_async else None)
            if state in self.context.states:  # the flush has begun: it is listed, but not to be saved
                self.context.states[state] = (False, True)
        self._load_again(skipped)
        del objects

    def _is_async(self, state: State) -> bool:
        (connection, _), *_ = self._connections(watches(state.class_)[0], [state])
        return connection.dialect.is_async

    def _can_load_again(self, state: State) -> list[str]:
        """Return the attributes to expire of an object that is left out of the flush of an AsyncSession.

        Relationships stay loaded unless they were changed, because nothing would load them again.
        """
        columns = [prop.key for prop in state.mapper.column_attrs]
        pending = state.__dict__.get("_pending_mutations", {})
        return columns + [
            prop.key for prop in state.mapper.relationships if prop.key in state.committed_state or prop.key in pending
        ]

    def _load_again(self, states: list[State]) -> None:
        """Load expired objects where they cannot do that themselves when they are next used: in an AsyncSession."""
        if not self._is_async(states[0]):
            return
        by_class: dict[type, list[State]] = {}
        for state in states:
            by_class.setdefault(state.class_, []).append(state)
        for class_, some in by_class.items():
            mapper: Mapper[Any] = sa.inspect(class_)
            identities = [state.key[1] for state in some if state.key is not None]
            for start in range(0, len(identities), _CHUNK):
                keys = sa.tuple_(*mapper.primary_key).in_(identities[start : start + _CHUNK])
                # Without populate_existing: what is expired is loaded, and pending changes elsewhere stay.
                self.session.scalars(sa.select(mapper).where(keys)).unique().all()

    # -- while it writes, and after

    def _write(self, write: Callable[[], None]) -> None:
        del self.context.execute  # its own is seen again
        try:
            told = self._told()
            with history.telling(told) if told else nullcontext():
                self._write_and_account(write)
        finally:
            self._end()

    def _told(self) -> list[history.Told]:
        """Return what is to be told of this flush on each of its connections, which is mostly nothing."""
        wanted: dict[Connection, list[Guard]] = {}
        for watch in self._watches():
            if history.is_wanted(watch.guard):
                for connection, _ in self._connections(watch, list(self.context.mappers.get(watch.mapper, ()))):
                    wanted.setdefault(connection, []).append(watch.guard)
        return [history.Told(connection, guards) for connection, guards in wanted.items()]

    def _write_and_account(self, write: Callable[[], None]) -> None:
        if len(self.session.dispatch.before_flush) > 1:
            self._judge_what_came_since()
        for mapper in list(self.context.mappers):
            of_mapper = watches(mapper.class_)
            asks = any(watch.guard.conditions for watch in of_mapper)
            if of_mapper and (mapper.dispatch.before_update or (asks and self._is_listened_to())):
                judge_late_changes(mapper)
        leeway_before = flush_leeway.set(_Leeways(self).__getitem__)
        under_way_before = _under_way.set(self)
        try:
            if self._made is not None:
                self._made.steps.begin(self._connections)
            shown = self._shown_before_functions()
            write()
            for watch, state, old in shown:
                if state.dict.get(watch.key, old) != old:
                    state.committed_state[watch.key] = old  # what SQLAlchemy notes of an assignment
            self._look_for_kept_rows()
            self._look_again()
            if self._made is not None:
                self._made.steps.end(self._connections)
        except steps.StepCameShort as short:
            arrived = self._explain(short.watch, short.targets)
            if not arrived:  # a row is gone
                name = f"{short.watch.model}.{short.watch.key}"
                raise StaleDataError(f"A step of {name} met fewer rows than it was for.") from None
            raise self._judging.report.concurrent(short.watch, arrived, certain=len(short.targets) == 1) from None
        except StaleDataError as error:
            self._explain_stale(error)
            raise
        finally:
            _under_way.reset(under_way_before)
            flush_leeway.reset(leeway_before)
            if self._made is not None:
                self._made.steps.put_back()
        if self._made is not None:
            self._made.steps.forget_all()
            if any(watch.guard.conditions for watch in self._watches()):
                for watch, states in self._written().items():
                    for state in states:
                        conditions.forget(state, watch.key)
            self._made.report.publish_done(self._connections)

    def judge_late(self, state: State) -> None:
        """Judge an object that is about to be updated, if its state was set since the flush began."""
        for watch in watches(state.class_):
            self._judging.late(watch, state)
            if self._judging.mode(watch) == "skip" and self._judging.report.refuses(state):
                for each in self._judging.report.settle(may_skip=True):
                    self._judging.withdraw([each])
                    # Without its key it could not be told apart at the end of the flush.
                    keys = [prop.key for prop in each.mapper.column_attrs if prop.key not in watch.key_names]
                    self.session.expire(each.obj(), keys)
                    self._load_again([each])

    def _look_for_kept_rows(self) -> None:
        """Say that a trigger in "skip" has kept rows as they were, where the driver does not say so.

        It does that only if its rule is behind the guard's, which leaves out what both refuse.
        """
        may_be_kept = {watch for watch in self._watches() if watch.guard.trigger and watch.guard.on_illegal == "skip"}
        for watch, states in self._written().items() if may_be_kept else ():
            moved = [state for state in states if state.key is not None and watch.key in state.committed_state]
            if watch not in may_be_kept or len(moved) < 2 or self._judging.notices_a_race(watch, moved):
                continue
            text = watch.guard.states.text
            for connection, some in self._connections(watch, moved):
                rows = current.read(connection, watch, map(watch.row_key, some), lock=False)
                values = [(watch.row_key(state), state.dict.get(watch.key)) for state in some]
                if any(not is_sql(value) and key in rows and rows[key] != text(value) for key, value in values):
                    raise StaleDataError(
                        f"UPDATE statement on table '{watch.table.description}' has not met all of its {len(moved)} "
                        "rows: a trigger whose rule is behind the guard's has kept some as they were."
                    )

    def _look_again(self) -> None:
        """Judge what was not known before: defaults, and what the flush itself changed."""
        written = self._written()
        if not written:
            return
        judging = self._judging
        late: dict[Watch, dict[State, Any]] = {}
        for watch, states in written.items():
            if not self._may_have_changed(watch):
                continue
            for state in judging.unseen(watch, states):
                if (watch, state) in judging.inserts_to_look_at:
                    continue
                judging.withdraw([state], watch)
                if state.key is None:
                    self._starts_late(watch, state)
                else:
                    late.setdefault(watch, {})[state] = state.dict.get(watch.key)
        for watch, state in judging.inserts_to_look_at:
            self._starts_late(watch, state, hint="")
        judging.report.settle(may_skip=False)
        for watch, targets in late.items():
            if not judging.notices_a_race(watch, list(targets)):
                self._explain(watch, targets)
            judging.written_late(watch, targets)

    def _shown_before_functions(self) -> list[tuple[Watch, State, Any]]:
        """Return what objects show whose state the function of ``onupdate=`` will give, which sets it unseen."""
        called = {watch for watch in self._watches() if getattr(watch.guard.column.onupdate, "is_callable", False)}
        shown: list[tuple[Watch, State, Any]] = []
        for watch, written in self._written().items() if called else ():
            if watch not in called:
                continue
            states = [each for each in written if each.key is not None and watch.key not in each.committed_state]
            shown += [(watch, each, each.dict[watch.key]) for each in states if watch.key in each.dict]
            unknown = [each for each in states if watch.key not in each.dict]
            for connection, some in self._connections(watch, unknown) if unknown else ():
                rows = current.read(connection, watch, map(watch.row_key, some))
                found = [(each, rows[watch.row_key(each)]) for each in some if watch.row_key(each) in rows]
                shown += [(watch, each, watch.guard.states.values.get(text, text)) for each, text in found]
        return shown

    def _may_have_changed(self, watch: Watch) -> bool:
        """Return whether something may have set states since the flush began to write."""
        return filled_by_relationships() or watch.guard.column.onupdate is not None or self._is_listened_to()

    def _is_listened_to(self) -> bool:
        """Return whether somebody is called while the flush writes."""
        return any(getattr(mapper.dispatch, name) for mapper in self.context.mappers for name in _EVENTS_OF_A_FLUSH)

    def _starts_late(self, watch: Watch, state: State, *, hint: str = LATE) -> None:
        value = state.dict.get(watch.key)
        if watch.key in state.dict and not is_sql(value):
            text = watch.guard.states.text(value)
        else:  # the database made it, and SQLAlchemy did not fetch it
            (connection, _), *_ = self._connections(watch, [state])
            text = next(iter(current.read(connection, watch, [watch.row_key(state)], lock=False).values()), None)
        self._judging.starts(watch, state, text, hint=hint)

    def _explain_stale(self, error: StaleDataError) -> None:
        """Raise the error of ours that explains why an UPDATE of the flush met fewer rows than it was for, if one does.

        The fence turns away a row that another transaction moved first. So does the WHERE of SQLAlchemy where the row
        is gone or its version is another, which is not ours to explain.
        """
        if self._made is not None:
            self._made.report.settle(may_skip=False)
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
                raise self._judging.report.concurrent(watch, arrived, certain=len(targets) == 1) from error

    def _explain(self, watch: Watch, targets: dict[State, Any]) -> list[State]:
        """Raise if rows were not written because their move is illegal from what they hold now.

        The rows are not held: others may hold some of them and wait for this transaction, which is to end anyway.

        Returns:
            The objects whose rows hold the target.
        """
        judging, arrived = self._judging, []
        for connection, states in self._connections(watch, list(targets)):
            keys = {state: watch.row_key(state) for state in states}
            rows = current.read(connection, watch, keys.values(), lock=False)
            for state in states:
                if keys[state] not in rows:
                    continue
                now, target = rows[keys[state]], targets[state]
                if is_sql(target):
                    text = current.evaluate(connection, watch, keys[state], target)
                else:
                    text = watch.guard.states.text(target)
                if now == text:
                    arrived.append(state)
                elif (now, text) not in watch.guard.legal and judging.mode(watch) not in PASSING:
                    judging.report.refuse(
                        watch, (now, text), state, hint=RACE if judging.was_seen(watch, state) else LATE
                    )
        judging.report.settle(may_skip=False)
        return arrived

    # -- what the above asks

    def uses(self, cache: Any) -> bool:
        """Return whether SQLAlchemy's persistence code keeps a cache of compiled statements for this flush."""
        return cache is not None and any(cache is mapper.base_mapper._compiled_cache for mapper in self.context.mappers)

    def _connections(self, watch: Watch, states: Sequence[State]) -> list[tuple[Connection, list[State]]]:
        """Return the connections that the objects are written on, each with its objects."""
        choose = self.session.connection_callable
        if choose is None:
            return [(self.session.connection(bind_arguments={"mapper": watch.mapper}), list(states))]
        by_connection: dict[Connection, list[State]] = {}
        for state in states:
            by_connection.setdefault(choose(watch.mapper, state.obj()), []).append(state)
        return list(by_connection.items())

    def _where(self, watch: Watch, states: Sequence[State]) -> list[tuple[Any, list[State]]]:
        """Return what the objects are written on, for reports: a connection if the session has one, else its engine."""
        if self.session.connection_callable is not None:
            return list(self._connections(watch, states))
        return [(written_on(self.session, watch), list(states))]

    def _watches(self) -> list[Watch]:
        return [watch for mapper in self.context.mappers for watch in watches(mapper.class_)]

    def _written(self) -> dict[Watch, list[State]]:
        """Return the objects that the flush inserts or updates, by guarded attribute."""
        known = self.context.states
        return {
            watch: [state for state in states if known[state] == (False, False)]  # neither deleted nor only listed
            for mapper, states in list(self.context.mappers.items())
            for watch in watches(mapper.class_)
        }

    def _replaces_a_deleted_row(self, watch: Watch, state: State) -> bool:
        """Return whether a new object has the key of a deleted one: SQLAlchemy makes that an UPDATE of the row."""
        if not self.session._deleted:
            return False
        deleted = self.session.identity_map.get(watch.mapper._identity_key_from_state(state))
        return deleted is not None and sa.inspect(deleted) in self.session._deleted


def writes(options: Any) -> bool:
    """Return whether a statement with these execution options is one that the flush under way makes, and has judged.

    A listener may execute others meanwhile.
    """
    flush = _under_way.get()
    return flush is not None and flush.uses(options.get("compiled_cache"))


class _Leeways(dict[Guard, int]):
    """How much the fence lets through during one flush: asked once for each guard, and not for each row."""

    def __init__(self, flush: Flush) -> None:
        self._flush = flush

    def __missing__(self, guard: Guard) -> int:
        stays = guard in self._flush._judging.stays or guard.column.onupdate is not None
        leeway = self[guard] = OPEN if guard.mode in PASSING else STAY if stays else STRICT
        return leeway


def _before_update(mapper: Mapper[Any], connection: Connection, state: State) -> None:
    flush = _under_way.get()
    if flush is not None:
        flush.judge_late(state)


def judge_late_changes(mapper: Mapper[Any]) -> None:
    """Judge objects once more right before their UPDATE, because something may set their state during a flush.

    This costs 2 % of a large flush, so that it is done only where other listeners to ``before_update`` are, or a
    relationship that fills the guarded column.
    """
    if not event.contains(mapper, "before_update", _before_update):
        event.listen(mapper, "before_update", _before_update, raw=True, propagate=True)
