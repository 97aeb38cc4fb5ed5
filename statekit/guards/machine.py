"""The pytransitions machine behind a guard's events; loaded by the first table that has some."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy.orm.attributes import instance_state
from transitions import Event, Machine
from transitions import Transition as PlainTransition
from transitions.extensions.asyncio import AsyncEvent, AsyncMachine, AsyncTransition

from statekit.errors import Pair, StatekitError, show_state
from statekit.guards import conditions
from statekit.guards.conditions import says_yes
from statekit.guards.event_calls import Call, is_left_to_default
from statekit.guards.guard import Guard
from statekit.guards.watch import is_sql
from statekit.table.callbacks import Callback, is_unawaited
from statekit.table.transition import Hook


class Elsewhere(Exception):
    """An event was called on an object in a state that it does not lead out of."""


class StateName:
    """What the machine calls a state; it is equal to no value of an attribute."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __repr__(self) -> str:
        return show_state(self.text)


class _OnlyFromItsSources:
    transitions: dict[Any, Any]

    def _is_valid_source(self, state: Any) -> bool:
        if state.name in self.transitions:
            return True
        raise Elsewhere


class _Event(_OnlyFromItsSources, Event):  # type: ignore[misc]
    pass


class _AsyncEvent(_OnlyFromItsSources, AsyncEvent):  # type: ignore[misc]
    async def _trigger(self, event_data: Any) -> bool:  # type: ignore[override]
        # pytransitions' own writes every exception into its log as an error, also what is an ordinary refusal.
        event_data.state = event_data.machine.get_model_state(event_data.model)
        if self._is_valid_source(event_data.state):
            await self._process(event_data)
        return bool(event_data.result)


class _Transition(PlainTransition):
    def _change_state(self, event_data: Any) -> None:
        # The states of these machines have nothing to call when they are left and entered.
        event_data.machine.move(event_data.model, self.source, self.dest)


class _AsyncTransition(AsyncTransition):
    async def _eval_conditions(self, event_data: Any) -> bool:  # type: ignore[override]
        # pytransitions' own asks them all.
        for condition in self.conditions:
            if not await condition.check(event_data):  # type: ignore[misc]
                return False
        return True

    async def _change_state(self, event_data: Any) -> None:  # type: ignore[override]
        event_data.machine.move(event_data.model, self.source, self.dest)


class _StatesOfRows:
    """How the machine finds and sets the state of an object, which it keeps nothing about."""

    guard: Guard
    states: dict[Any, Any]
    model_attribute: str

    def know(self, guard: Guard, state_class: type) -> None:
        """Take over the states of a guard."""
        self.guard = guard
        self.names = {text: StateName(text) for text in guard.states.values}
        self._values = {name: guard.states.values[text] for text, name in self.names.items()}
        self.add_states([state_class(name) for name in self._values])  # type: ignore[attr-defined]
        # By the names, and by the values of the attribute.
        self._found = self.states | {guard.states.values[text]: self.states[name] for text, name in self.names.items()}
        # Where steps are followed, what was asked is remembered over moves without conditions too.
        remembered = guard.moves if guard.steps and guard.conditions else guard.conditions
        self._remembered = {self.names[target] for _, target in remembered}
        self._moves = {(self.names[s], self.names[t]): frozenset({(s, t)}) for s, t in guard.moves}

    def get_state(self, state: Any) -> Any:
        try:
            return self._found[state]
        except (KeyError, TypeError):  # another spelling of a state, or none
            pass
        name = None if is_sql(state) else self.names.get(self.guard.states.text(state))
        if name is None:
            raise Elsewhere
        return self.states[name]

    def get_model_state(self, model: Any) -> Any:
        value = getattr(model, self.model_attribute)
        if value is None and is_left_to_default(self.guard, self.model_attribute, model):
            raise Elsewhere
        return self.get_state(value)

    def move(self, model: Any, source: StateName, target: StateName) -> None:
        """Set the state of an object that is still where the event found it.

        Raises:
            Elsewhere: something that was called, or another task, has moved it meanwhile.
        """
        key = self.model_attribute
        if self.get_state(getattr(model, key)).name is not source:
            raise Elsewhere
        if target not in self._remembered:
            setattr(model, key, self._values[target])
            return
        row = instance_state(model)
        asked = conditions.asked(row, key) | self._moves[source, target]
        setattr(model, key, self._values[target])
        conditions.remember(row, key, asked)


class GuardMachine(_StatesOfRows, Machine):  # type: ignore[misc]
    """The machine of a guard, for events that wait for nothing."""

    event_cls = _Event
    transition_cls = _Transition


class AsyncGuardMachine(_StatesOfRows, AsyncMachine):  # type: ignore[misc]
    """The machine of a guard, for events that are awaited.

    Two habits of pytransitions are left out: it cancels an event that is under way for the same object when another
    one begins, and returns False where a task is cancelled; and it runs the callbacks of one transition side by side.
    """

    event_cls = _AsyncEvent
    transition_cls = _AsyncTransition

    async def process_context(self, func: Callable[[], Any], model: Any) -> Any:
        return await func()

    @staticmethod
    async def await_all(callables: list[Callable[[], Coroutine[Any, Any, Any]]]) -> list[Any]:
        return [await each() for each in callables]


def make(guard: Guard, key: str, bodies: dict[str, Callback], *, is_async: bool) -> Any:
    """Return a machine that knows all events of a guard.

    Args:
        guard: whose table it is.
        key: the guarded attribute.
        bodies: what the class itself gives an event to do, by the event's name.
        is_async: whether its events are awaited.
    """
    class_: Any = AsyncGuardMachine if is_async else GuardMachine
    machine = class_(
        model=None, states=None, initial=None, auto_transitions=False, queued=False, model_attribute=key, name=key
    )
    machine.know(guard, class_.state_cls)
    for pair, transition in zip(guard.moves, guard.table.transitions, strict=True):
        if transition.event is None:
            continue
        source, target = pair
        machine.add_transition(
            transition.event,
            machine.names[source],
            machine.names[target],
            conditions=[_condition(pair, condition) for condition in guard.conditions.get(pair, ())],
            before=[*_called(transition.before, is_async), *_called(bodies.get(transition.event), is_async)],
            after=_called(transition.after, is_async),
        )
    return machine


def _condition(pair: Pair, condition: Callback) -> Callable[..., bool]:
    def ask(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if call.let_through:  # nobody is asked twice; the transition that comes first is the one that said no
            return True
        if says_yes(condition, call.obj, args, kwargs):
            return True
        call.no = call.no or (pair, condition)
        return False

    return ask


def _called(hook: Hook | Callback | None, is_async: bool) -> list[Callable[..., Any]]:
    if hook is None:
        return []
    callback = hook if isinstance(hook, Callback) else Callback(hook)

    def called(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = callback(call.obj, args, kwargs)
        if result is not None and not is_async and is_unawaited(result):
            raise StatekitError(
                f"{callback.name} has returned a coroutine, which its event does not await. Define it with async def, "
                "so that the event is awaited too, or return nothing."
            )
        return result

    return [called]
