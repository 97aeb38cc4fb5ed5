"""The verdicts of one flush: which moves of its objects are legal, by what is known of each.

Most objects were loaded, and are judged by that, if a race will be noticed afterwards. Where the source is not known,
in "skip" and "observe", and where the driver does not say how many rows an executemany has met, the rows are read
first, and held until the transaction ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.base import NO_VALUE

from statekit.errors import Pair
from statekit.guards import conditions, current, steps
from statekit.guards.guard import NOT_KNOWN, Guard
from statekit.guards.report import Connections, Modes, Report, Where
from statekit.guards.watch import State, Watch, is_known, is_sql
from statekit.observe.modes import PASSING, Mode
from statekit.observe.move import Kind

UNSEEN = object()
RACE = "Another transaction moved the row first."
LATE = "The state was set while the flush was under way, by a listener or by a relationship."


class Judging:
    """Judges the objects of one flush and remembers by which value each was judged.

    Args:
        connections: returns the connections that objects are written on.
        where: the same, without making a connection.

    Attributes:
        report: where refused and legal moves are noted.
        steps: the UPDATEs that only steps need.
        inserts_to_look_at: new rows whose state only the INSERT shows.
        stays: guards of which the flush writes a state to a row that has it already; their rows were read.
    """

    def __init__(self, connections: Connections, where: Where) -> None:
        self._connections = connections
        self._judged: dict[Watch, dict[State, Any]] = {}
        self._modes = Modes()
        self.report = Report(self._modes, where)
        self.steps = steps.Steps()
        self.inserts_to_look_at: dict[tuple[Watch, State], None] = {}
        self.stays: set[Guard] = set()

    def mode(self, watch: Watch) -> Mode:
        """Return what an illegal move leads to in this flush."""
        return self._modes[watch]

    def unseen(self, watch: Watch, states: Iterable[State]) -> list[State]:
        """Return the objects whose state was set and not yet judged, or changed since."""
        key, judged = watch.key, self._judged.get(watch, {})
        return [
            state
            for state in states
            if key in state.committed_state and instance_dict(state.obj()).get(key) is not judged.get(state, UNSEEN)
        ]

    def was_seen(self, watch: Watch, state: State) -> bool:
        """Return whether the object was judged."""
        return state in self._judged.get(watch, {})

    def withdraw(self, states: Iterable[State], watch: Watch | None = None) -> None:
        """Forget every verdict on objects: they are left out, or their state was changed again."""
        gone = set(states)
        for each, judged in self._judged.items():
            if watch in (None, each):
                for state in gone:
                    judged.pop(state, None)
        self.report.withdraw(gone, watch)
        self.steps.withdraw(gone, watch)

    # -- rows that exist

    def changed(self, watch: Watch, states: list[State]) -> None:
        """Judge objects with a row, whose state was set."""
        if self.mode(watch) != "raise" or not self.notices_a_race(watch, states):
            self._by_row(watch, self._really_changed(watch, states))
            return
        others = self._by_what_was_loaded(watch, states)
        self._by_row(watch, others)
        if others and watch.guard in self.stays:
            # The fence must let rows keep their state, so that a race is not noticed by it: all of them are read.
            read = set(others)
            loaded = [state for state in self._really_changed(watch, states) if state not in read]
            self.withdraw(loaded, watch)
            self._by_row(watch, loaded)

    def late(self, watch: Watch, state: State) -> None:
        """Judge an object again whose state was set while the flush was under way, before its UPDATE."""
        if self.unseen(watch, [state]) and state.key is not None:
            self.withdraw([state], watch)
            old = state.committed_state[watch.key]
            if is_known(old) and not is_sql(state.dict.get(watch.key)) and self.mode(watch) == "raise":
                self._path(watch, state, watch.guard.states.text(old), [state.dict.get(watch.key)], hint=LATE)
            else:
                self._by_row(watch, [state], hint=LATE)

    def written_late(self, watch: Watch, targets: dict[State, Any]) -> None:
        """Account for changes that the flush itself made and wrote.

        Raises:
            TransitionRefused: a condition says no to one of them.
        """
        for state, new in targets.items():
            old = state.committed_state[watch.key]
            if not is_known(old) or is_sql(new):
                continue
            pair = watch.guard.states.text(old), watch.guard.states.text(new)
            if pair[0] != pair[1] and (pair in watch.guard.legal or self.mode(watch) in PASSING):
                self._conditions_hold(watch, state, [pair])
        self.report.settle(may_skip=False)

    def notices_a_race(self, watch: Watch, states: Sequence[State]) -> bool:
        """Return whether the driver says how many rows the UPDATE of these objects will have met."""
        (connection, _), *_ = self._connections(watch, states[:1])
        return current.counts_rows(connection, len(states))

    def _really_changed(self, watch: Watch, states: list[State]) -> list[State]:
        """Return the objects of which something will be written.

        One that was given the state that it was loaded with is left out. Its row may hold another one by now, and this
        is no attempt to change that.
        """
        key, known = watch.key, watch.guard.states.known
        changed = []
        for state in states:
            old, new = state.committed_state[key], instance_dict(state.obj()).get(key)
            try:
                differ = known[old] != known[new]
            except (KeyError, TypeError):
                differ = False
            if differ or not self._is_unchanged(watch, state, old, new):
                changed.append(state)
        return changed

    def _is_unchanged(self, watch: Watch, state: State, old: Any, new: Any) -> bool:
        if not is_known(old) or is_sql(new):
            return False
        if old is not new and state.manager[watch.key].impl.is_equal(new, old) is not True:
            return False
        if watch.guard.steps and steps.trail(state, watch.key):
            return False
        self._judged.setdefault(watch, {})[state] = new
        return True

    def _by_what_was_loaded(self, watch: Watch, states: list[State]) -> list[State]:
        """Judge the objects whose source Python knows; return the others."""
        key, text = watch.key, watch.guard.states.text
        others = []
        for state in self._not_plainly_legal(watch, states, [state.committed_state[key] for state in states]):
            old, new = state.committed_state[key], state.dict.get(key)
            if self._is_unchanged(watch, state, old, new):
                continue
            if not is_known(old) or is_sql(new) or text(old) == text(new):
                others.append(state)
            else:
                self._path(watch, state, text(old), steps.trail(state, key) or [new])
        return others

    def _by_row(self, watch: Watch, states: list[State], *, hint: str = "") -> None:
        """Judge objects by what their rows hold now, and hold the rows until the transaction ends."""
        if not states:
            return
        values = watch.guard.states.values
        for connection, some in self._connections(watch, states):
            keys = {state: watch.row_key(state) for state in some}
            rows = current.read(connection, watch, keys.values())
            there = [state for state in some if keys[state] in rows]  # SQLAlchemy says so where a row is gone
            now = [values.get(rows[keys[state]], NO_VALUE) for state in there]
            for state in self._not_plainly_legal(watch, there, now):
                source, new = rows[keys[state]], state.dict.get(watch.key)
                if is_sql(new):
                    target = current.evaluate(connection, watch, keys[state], new)
                    self._path(watch, state, source, [new], [target], hint=hint)
                else:
                    self._path(watch, state, source, steps.trail(state, watch.key) or [new], hint=hint)

    def _not_plainly_legal(self, watch: Watch, states: list[State], sources: list[Any]) -> list[State]:
        """Pass the objects with one legal move, which are nearly all and must be fast; return the others.

        Args:
            sources: the value that each row holds, as far as it is a state of the table.
        """
        guard, key = watch.guard, watch.key
        known, legal = guard.states.known, guard.unconditional
        note = self.report.done if self.report.wants_allowed(watch) else None
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

    def _path(
        self,
        watch: Watch,
        state: State,
        source: str | None,
        values: list[Any],
        texts: list[str | None] | None = None,
        *,
        hint: str = "",
    ) -> None:
        """Judge the move of one row, or its steps.

        Args:
            source: the state that the row is in.
            values: what was assigned, in order; only the last counts unless the guard follows steps.
            texts: the same as text, where Python cannot tell it.
        """
        guard, mode = watch.guard, self.mode(watch)
        if not guard.steps:
            values = values[-1:]
        path, taken = _without_stays(source, values, texts or [guard.states.text(value) for value in values])
        loaded = state.committed_state.get(watch.key, NO_VALUE)
        moved = is_known(loaded) and guard.states.text(loaded) != source
        self._judged.setdefault(watch, {})[state] = state.dict.get(watch.key)
        if not taken:
            if moved and mode == "raise":
                self.report.lose(watch, state)
            self.stays.add(guard)
            return
        pairs = list(itertools.pairwise(path))
        illegal = next((pair for pair in pairs if pair not in guard.legal), None)
        if illegal is not None and mode not in PASSING:
            self.report.refuse(watch, illegal, state, hint=RACE if moved else hint)
            return
        if not self._conditions_hold(watch, state, pairs):
            return
        if len(taken) > 1:
            self.steps.of_persistent(watch, state, taken)

    def _conditions_hold(self, watch: Watch, state: State, pairs: list[Pair]) -> bool:
        """Ask the conditions of an object's moves and note what becomes of it; return whether it is written."""
        guard = watch.guard
        for step, pair in enumerate(pairs):
            condition = conditions.first_no(guard, watch.key, state, pair) if guard.conditions else None
            if condition is not None and self.mode(watch) not in PASSING:
                self.report.refuse(watch, pair, state, condition=condition)
                return False
            legal = pair in guard.legal and condition is None
            kind: Kind = "allowed" if legal else PASSING[self.mode(watch)]
            self.report.done(kind, watch, pair, state, step=step, condition=condition)
        return True

    # -- rows that do not exist yet

    def created(self, watch: Watch, state: State) -> None:
        """Judge a row to be inserted, if its state is known before that."""
        guard, key = watch.guard, watch.key
        value = state.dict.get(key)
        values = (steps.trail(state, key) if guard.steps else []) or [value]
        is_null = value is None and key in state.dict and watch.column.type.should_evaluate_none
        first: Any
        if value is None and not is_null:  # SQLAlchemy leaves the column out, and its default applies
            # A relationship fills a foreign key when the flush comes to it.
            first = NOT_KNOWN if watch.column.foreign_keys else guard.default
        else:
            first = NOT_KNOWN if is_sql(value) else guard.states.text(values[0])
        if first is NOT_KNOWN:
            self.inserts_to_look_at[watch, state] = None
            return
        self._judged.setdefault(watch, {})[state] = value
        self.starts(watch, state, first)
        if len(values) > 1:
            self._steps_of_a_new_row(watch, state, values)

    def starts(self, watch: Watch, state: State, text: str | None, *, hint: str = "") -> None:
        """Judge the state that a new row starts in."""
        if text not in watch.guard.initial:
            if (passing := PASSING.get(self.mode(watch))) is not None:
                self.report.done(passing, watch, (None, text), state, new=True)
            else:
                self.report.refuse(watch, (None, text), state, new=True, hint=hint)
        else:
            self.report.done("allowed", watch, (None, text), state, new=True)

    def _steps_of_a_new_row(self, watch: Watch, state: State, values: list[Any]) -> None:
        guard = watch.guard
        first, *texts = map(guard.states.text, values)
        path, taken = _without_stays(first, values[1:], texts)
        pairs = list(itertools.pairwise(path))
        illegal = next((pair for pair in pairs if pair not in guard.legal), None)
        if illegal is not None and self.mode(watch) not in PASSING:
            self.report.refuse(watch, illegal, state)
            return
        if not self._conditions_hold(watch, state, pairs):
            return
        self._judged[watch][state] = values[0]
        self.steps.of_new(watch, state, [values[0], *taken])


def _without_stays(
    source: str | None, values: list[Any], texts: list[str | None]
) -> tuple[list[str | None], list[Any]]:
    """Return the way from a state over others, without the steps that stay, and the values of its steps."""
    path, taken = [source], []
    for value, text in zip(values, texts, strict=True):
        if text != path[-1]:
            path.append(text)
            taken.append(value)
    return path, taken
