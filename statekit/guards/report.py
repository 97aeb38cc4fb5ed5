"""What a flush has to say: moves for the hook, and the errors that name the refused rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from statekit.errors import IllegalTransition, Pair, StatekitError, TransitionRefused
from statekit.guards import commits, history, steps
from statekit.guards.guard import refusal_of
from statekit.guards.hints import hint_for
from statekit.guards.watch import State, Watch
from statekit.observe.hook import allowed_moves_are_wanted, publish
from statekit.observe.modes import Mode
from statekit.observe.move import Kind, Move
from statekit.stale import ConcurrentTransition
from statekit.table.callbacks import Callback

Connections = Callable[[Watch, Sequence[State]], list[tuple[Connection, list[State]]]]
Where = Callable[[Watch, Sequence[State]], list[tuple[Any, list[State]]]]


class Refusal(NamedTuple):
    """A row that must not be written; ``condition`` is what said no, where the table allows the move."""

    pair: Pair
    state: State
    hint: str
    condition: Callback | None


class _Done(NamedTuple):
    kind: Kind
    watch: Watch
    pair: Pair
    new: bool
    step: int
    condition: str | None


class Modes(dict[Watch, Mode]):
    """What an illegal move of each guarded attribute leads to in one flush: asked once, when it is first needed."""

    def __missing__(self, watch: Watch) -> Mode:
        mode = self[watch] = watch.guard.mode
        return mode


class Report:
    """Collects what became of the rows of one flush.

    Args:
        modes: what an illegal move leads to in this flush.
        where: returns what objects are written on, each with its objects: a connection, or an engine where the session
            has no connection yet.
    """

    def __init__(self, modes: Modes, where: Where) -> None:
        self._modes = modes
        self._where = where
        self._done: dict[_Done, list[State]] = {}
        self._refused: dict[tuple[Watch, bool], list[Refusal]] = {}
        self._lost: dict[Watch, list[State]] = {}
        self._counts_allowed = allowed_moves_are_wanted()

    def wants_allowed(self, watch: Watch) -> bool:
        """Return whether anybody wants to know of the legal moves of a guarded attribute."""
        return self._counts_allowed or bool(watch.guard.told) or watch.guard.history

    def done(
        self,
        kind: Kind,
        watch: Watch,
        pair: Pair,
        state: State,
        *,
        new: bool = False,
        step: int = 0,
        condition: Callback | None = None,
    ) -> None:
        """Note a row that is to move, or to be created, and will be reported once the flush has written it.

        Args:
            step: how many moves of the same flush the row has made before.
            condition: what said no to a move that is observed.
        """
        if kind != "allowed" or (watch.guard.history if new else self.wants_allowed(watch)):
            name = condition.name if condition else None
            self._done.setdefault(_Done(kind, watch, pair, new, step, name), []).append(state)

    def refuse(
        self,
        watch: Watch,
        pair: Pair,
        state: State,
        *,
        new: bool = False,
        hint: str = "",
        condition: Callback | None = None,
    ) -> None:
        """Note a row that must not be written."""
        self._refused.setdefault((watch, new), []).append(Refusal(pair, state, hint, condition))

    def refuses(self, state: State) -> bool:
        """Return whether an object is among the refused ones that are not settled yet."""
        return any(state is refusal.state for refusals in self._refused.values() for refusal in refusals)

    def withdraw(self, states: set[State], watch: Watch | None) -> None:
        """Forget what was noted of objects, for one guarded attribute or for all."""
        for key, noted in self._done.items():
            if watch in (None, key.watch):
                noted[:] = [state for state in noted if state not in states]
        for place, refusals in self._refused.items():
            if watch in (None, place[0]):
                refusals[:] = [refusal for refusal in refusals if refusal.state not in states]

    def lose(self, watch: Watch, state: State) -> None:
        """Note a row that another transaction moved to the same state first."""
        self._lost.setdefault(watch, []).append(state)

    def settle(self, *, may_skip: bool) -> list[State]:
        """Count and log the refused rows, and raise if one of them cannot be skipped.

        Args:
            may_skip: whether rows can still be left out: only before the flush writes.

        Returns:
            The objects to skip.

        Raises:
            IllegalTransition: names every refused row of the flush.
            TransitionRefused: conditions alone have refused rows.
            ConcurrentTransition: no row was refused, and one lost a race.
        """
        refused, self._refused = self._refused, {}
        fatal: dict[tuple[Watch, bool], list[Refusal]] = {}
        skipped: dict[tuple[Watch, bool], list[Refusal]] = {}
        for key, refusals in refused.items():
            for refusal in refusals:
                skip = may_skip and self._modes[key[0]] == "skip" and refusal.state.key is not None
                (skipped if skip else fatal).setdefault(key, []).append(refusal)
        for (watch, _), refusals in (fatal or skipped).items():
            for refusal in refusals:
                steps.give_up(refusal.state, watch.key)
        # If the flush is refused, nothing of it is skipped: what would have been comes again with the next attempt.
        for on, moves in self._blocked(fatal or skipped):
            publish(moves, on)
        if fatal:
            raise self._error(fatal)
        if self._lost:
            watch, states = next(iter(self._lost.items()))
            raise self.concurrent(watch, states)
        return [refusal.state for refusals in skipped.values() for refusal in refusals]

    def concurrent(self, watch: Watch, states: list[State], *, certain: bool = True) -> ConcurrentTransition:
        """Return the error for rows that lost a race and are where they were to go.

        Args:
            certain: whether each of them lost it; else it is not known which, and the error names none.
        """
        return ConcurrentTransition(
            model=watch.model,
            attribute=watch.guard.attribute,
            target=watch.guard.states.text(states[0].dict.get(watch.key)),
            identities=[row for state in states if certain and (row := watch.identity(state)) is not None],
        )

    def publish_done(self, connections: Connections) -> None:
        """Write the history, tell the hook what was written, and after the commit those who asked for it.

        Args:
            connections: returns the connections that objects were written on.
        """
        # A row's own steps are told in their order.
        done_in_order = [item for item in sorted(self._done.items(), key=lambda item: item[0].step) if item[1]]
        for done, states in done_in_order:
            if done.watch.guard.history:
                self._write_history(done, states, connections)
        written = [
            (on, self._done_move(done, some, on))
            for done, states in done_in_order
            if done.kind != "allowed" or (self._counts_allowed and not done.new)
            for on, some in self._where(done.watch, states)
        ]
        for on, moves in _by_place(written):
            publish(moves, on)
        for done, states in done_in_order:
            if done.watch.guard.told:
                for connection, some in connections(done.watch, states):
                    commits.note(connection, [self._done_move(done, some)])

    def _write_history(self, done: _Done, states: list[State], connections: Connections) -> None:
        watch = done.watch
        for connection, some in connections(watch, states):
            told = history.told_on(connection, watch.guard)
            if told.is_written_by_trigger(watch.guard):
                continue
            keys = [_written_key(watch, state) for state in some]
            told.write(watch.guard, watch.table, watch.primary_key, done.kind, done.pair, keys, new=done.new)

    def _done_move(self, done: _Done, states: list[State], on: Any = None) -> Move:
        move = self._move(done.kind, done.watch, done.pair, states, new=done.new, condition=done.condition)
        if done.kind == "overridden" and done.condition is None and isinstance(on, Connection):
            number = sum(
                len(each_states)
                for each, each_states in self._done.items()
                if each.kind == "overridden" and each.condition is None and each.watch.guard is done.watch.guard
            )
            if history.told_on(on, done.watch.guard).is_recorded(done.watch.guard, number):
                return replace(move, is_recorded=True)
        return move

    def _move(
        self, kind: Kind, watch: Watch, pair: Pair, states: list[State], *, new: bool, condition: str | None = None
    ) -> Move:
        identities = [watch.identity(state) for state in states]
        return watch.guard.move(
            kind, pair, identities, new=new, mode=self._modes[watch], model=watch.model, condition=condition
        )

    def _blocked(self, refused: dict[tuple[Watch, bool], list[Refusal]]) -> list[tuple[Any, list[Move]]]:
        moves: list[tuple[Any, Move]] = []
        for (watch, new), refusals in refused.items():
            alike: dict[tuple[Pair, str | None], list[State]] = {}
            for pair, state, _, condition in _in_order(watch, refusals):
                alike.setdefault((pair, condition.name if condition else None), []).append(state)
            for (pair, name), states in alike.items():
                for on, some in self._where(watch, states):
                    moves.append((on, self._move("blocked", watch, pair, some, new=new, condition=name)))
        return _by_place(moves)

    def _error(self, refused: dict[tuple[Watch, bool], list[Refusal]]) -> StatekitError:
        errors: list[IllegalTransition | TransitionRefused] = []
        for (watch, new), refusals in refused.items():
            by_condition: dict[str | None, list[Refusal]] = {None: []}
            for each in _in_order(watch, refusals):
                by_condition.setdefault(each.condition.name if each.condition else None, []).append(each)
            errors += [self._error_for(watch, some, new=new) for some in by_condition.values() if some]
        errors[0].also = tuple(errors[1:])
        for other in errors[0].also:
            errors[0].add_note(f"Refused in the same flush: {other}")
        return errors[0]

    def _error_for(self, watch: Watch, refusals: list[Refusal], *, new: bool) -> IllegalTransition | TransitionRefused:
        pair, state, hint, condition = refusals[0]
        asked = condition is None or condition.takes(state.class_) != "required"
        if condition is None:
            hint = hint or hint_for(watch.guard, pair, new=new)
        elif not asked:
            hint = _hint_for_condition(watch, pair)
        return refusal_of(
            watch.guard,
            [(each.pair, watch.identity(each.state)) for each in refusals],
            new=new,
            model=watch.model,
            key_names=watch.key_names,
            hint=hint,
            condition=condition.name if condition else None,
            asked=asked,
        )


def _written_key(watch: Watch, state: State) -> tuple[Any, ...]:
    """Return the primary key of the row that a flush has written: a new one, if the flush has changed it."""
    names = [watch.mapper.get_property_by_column(column).key for column in watch.primary_key]
    if any(name not in state.dict for name in names):
        return watch.row_key(state)
    return tuple(state.dict[name] for name in names)


def _by_place(moves: list[tuple[Any, Move]]) -> list[tuple[Any, list[Move]]]:
    grouped: dict[int, tuple[Any, list[Move]]] = {}
    for on, move in moves:
        grouped.setdefault(id(on), (on, []))[1].append(move)
    return list(grouped.values())


def _hint_for_condition(watch: Watch, pair: Pair) -> str:
    event = watch.guard.table.transitions[watch.guard.moves.index(pair)].event
    return f"Call the event {event}." if event else "Give the transition an event, and call that."


def _in_order(watch: Watch, refusals: list[Refusal]) -> list[Refusal]:
    """Return refused rows by primary key, so that the first one named is the same every time."""
    try:
        return sorted(refusals, key=lambda refusal: watch.identity(refusal.state) or ())
    except TypeError:
        return refusals
