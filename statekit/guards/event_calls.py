"""One call of an event, and what becomes of it if it is refused."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm.attributes import instance_state

from statekit.errors import Pair, StatekitError, show_state
from statekit.guards import conditions
from statekit.guards.guard import NOT_KNOWN, Guard, refusal_of
from statekit.guards.watch import is_sql, watches, written_on
from statekit.observe.hook import publish
from statekit.observe.modes import PASSING
from statekit.table.callbacks import Callback
from statekit.table.messages import listing


class Call:
    """One call of an event; the machine hands it to everything that it calls, before the event's arguments.

    Attributes:
        obj: the object.
        no: the first condition that said no, with its move.
        has_started: whether the object was first put into the state that its row would get.
        let_through: whether that move is made all the same, because the mode lets it pass and no other may be.
    """

    __slots__ = ("has_started", "let_through", "no", "obj")

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.no: tuple[Pair, Callback] | None = None
        self.has_started = False
        self.let_through = False


def is_left_to_default(guard: Guard, key: str, obj: object) -> bool:
    """Return whether an object has no row and no state yet, so that the column's default, if there is one, gives it."""
    state = instance_state(obj)
    if state.key is not None:
        return False
    # What SQLAlchemy takes for NULL and what for nothing: see Judging.created().
    is_null = key in state.dict and guard.column.type.should_evaluate_none
    return not is_null and (guard.default is not None or None not in guard.states.values)


class Refusals:
    """What becomes of an event that is refused, for one event of a guard."""

    def __init__(self, guard: Guard, key: str, name: str) -> None:
        self._guard = guard
        self._key = key
        self._name = name
        transitions = zip(guard.moves, guard.table.transitions, strict=True)
        self._pairs = [pair for pair, transition in transitions if transition.event == name]

    def described(self) -> str:
        """Return from where to where the event leads."""
        return ", ".join(f"{show_state(source)} → {show_state(target)}" for source, target in self._pairs)

    def elsewhere(self, obj: Any) -> bool:
        """Deal with a call of the event on an object in a state that the event does not lead out of."""
        text, targets = self._guard.states.text(getattr(obj, self._key)), dict.fromkeys(t for _, t in self._pairs)
        pair = text, text if text in targets else self._pairs[0][1]
        if self._guard.mode in PASSING and text in targets:
            return True  # it stays, which is no move
        if self._guard.mode in PASSING and len(targets) == 1:
            setattr(obj, self._key, self._guard.states.values[pair[1]])  # the flush lets it pass, and counts it
            return True
        return self._refuse(obj, pair, f"The event {self._name} makes {self.described()}.")

    def let_through(self, call: Call) -> bool:
        """Return whether the event is to be made once more, past the condition that said no."""
        call.let_through = call.no is not None and self._guard.mode in PASSING
        return call.let_through

    def by_condition(self, obj: Any, call: Call) -> bool:
        """Deal with a call of the event of which a condition said no."""
        if call.let_through:
            conditions.forget(instance_state(obj), self._key)  # the flush asks again, and counts it
            return True
        assert call.no is not None
        pair, condition = call.no
        return self._refuse(obj, pair, "", condition.name)

    def _refuse(self, obj: Any, pair: Pair, hint: str, condition: str | None = None) -> bool:
        guard, mode = self._guard, self._guard.mode
        watch = next(each for each in watches(type(obj)) if each.key == self._key)
        identity = watch.identity(instance_state(obj))
        move = guard.move("blocked", pair, [identity], mode=mode, model=watch.model, condition=condition)
        publish([move], written_on(instance_state(obj).session, watch))
        if mode == "skip":
            return False
        raise refusal_of(
            guard,
            [(pair, identity)],
            new=False,
            model=watch.model,
            key_names=watch.key_names,
            hint=hint,
            condition=condition,
        )

    def has_started(self, obj: Any) -> bool:
        """Put an object that has neither a row nor a state yet into the state that its row would get.

        Returns:
            Whether it was that, so that the event can be called again.

        Raises:
            StatekitError: which state that is cannot be told.
        """
        guard, key = self._guard, self._key
        value = getattr(obj, key)
        where = f"{guard.model}.{key}"
        if is_sql(value):
            raise StatekitError(
                f"{where} holds an SQL expression, of which only the database knows the state: flush first."
            )
        if value is not None or not is_left_to_default(guard, key, obj):
            return False
        text = guard.default
        if text is NOT_KNOWN:
            raise StatekitError(
                f"{where} is not set yet, and which state its default gives is known once the row is inserted: flush "
                "first, or set it."
            )
        if text is None:
            if len(guard.initial) != 1:
                raise StatekitError(
                    f"{where} is not set yet, and a new row may start in {listing(guard.initial)}: set it first."
                )
            text = next(iter(guard.initial))
        setattr(obj, key, guard.states.values[text])
        return True
