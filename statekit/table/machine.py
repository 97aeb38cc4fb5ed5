"""Tables from pytransitions machines, and machines from tables."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from statekit.errors import StatekitError
from statekit.table.callbacks import Callback, is_unawaited
from statekit.table.callbacks import is_async as is_async_def
from statekit.table.messages import Place, quote, short
from statekit.table.names import State, as_text
from statekit.table.transition import Hook, Transition

if TYPE_CHECKING:
    from transitions import Machine

    from statekit.table.transition_table import TransitionTable


_FROM, _TO = Place("from_machine()"), Place("to_machine()")


class Parts(NamedTuple):
    """What a table is declared with."""

    transitions: list[Transition]
    initial: State | tuple[State, ...]
    states: list[State]


@dataclass(frozen=True, slots=True)
class WithoutObject:
    """A function that is called as pytransitions calls it, with the arguments of the event alone.

    Args:
        function: the function.
    """

    function: Callable[..., Any]

    def __call__(self, obj: object, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def __name__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def __code__(self) -> Any:
        return self.function.__code__  # where a lambda stands

    @property
    def __signature__(self) -> inspect.Signature:
        # So that what needs arguments is known to need them, with the object before them.
        obj = inspect.Parameter("_object_", inspect.Parameter.POSITIONAL_ONLY)
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # a builtin does not tell; pytransitions gives it everything
            rest = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
            signature = inspect.Signature([inspect.Parameter(name, kind) for name, kind in rest])
        return signature.replace(parameters=[obj, *signature.parameters.values()])


class _AsyncWithoutObject(WithoutObject):
    __slots__ = ()

    async def __call__(self, obj: object, /, *args: Any, **kwargs: Any) -> Any:
        return await self.function(*args, **kwargs)


class _Called:
    """What a table has called, as pytransitions calls it: with an EventData."""

    def __init__(self, hook: Hook, is_async: bool) -> None:
        self.hook = hook
        self._is_async = is_async
        self._callback = Callback(hook)
        self.__name__ = self._callback.name  # for the drawings of pytransitions

    def __call__(self, data: Any) -> Any:
        result = self._callback(data.model, data.args, data.kwargs)
        if not self._is_async and is_unawaited(result):
            raise StatekitError(
                f"{self._callback.name} is an async def, which this machine never awaits. Pass to_machine() "
                "machine_class=transitions.extensions.asyncio.AsyncMachine."
            )
        return result


class _Asked(_Called):
    def __call__(self, data: Any) -> Any:
        answer = super().__call__(data)
        # pytransitions compares with True.
        return answer if inspect.isawaitable(answer) else bool(answer)


# --- from a machine ---------------------------------------------------------------------------------------------------


def read(machine: Machine) -> Parts:
    """Read a pytransitions machine.

    Args:
        machine: the machine.

    Returns:
        Its states, transitions and initial state, as a table is declared with them.

    Raises:
        TableError: it is no machine, or has what a table cannot hold; everything that it has of this is named.
    """
    from transitions import Machine as AnyMachine
    from transitions.extensions.nesting import HierarchicalMachine

    if not isinstance(machine, AnyMachine):
        raise _FROM.error(f"{short(machine)} is no pytransitions Machine", "Give an object of transitions.Machine.")
    if isinstance(machine, HierarchicalMachine):
        raise _FROM.error(
            "the machine is a HierarchicalMachine, whose states may be nested or parallel",
            "A column holds one state: build a plain Machine with a state for each combination that a row may be in.",
        )
    reader = _Reader(machine)
    transitions = [each for name in machine.events for each in reader.transitions(name)]
    problems = [*_unknown_hooks(machine), *reader.problems]
    if problems:
        listed = "".join(f"\n- {each}" for each in problems)
        raise _FROM.error("the machine has what a table cannot hold", f"Change these first:{listed}")
    if not transitions:
        raise _FROM.error(
            "the machine has no transitions of its own",
            "pytransitions' automatic ones (to_<state>, from every state to every other) are left out, because they "
            "allow everything: add the transitions that are allowed.",
        )
    return Parts(transitions, *reader.states(transitions))


class _Reader:
    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.problems: list[str] = []
        self._made: dict[tuple[str, str], tuple[str, Any]] = {}

    def states(self, transitions: Iterable[Transition]) -> tuple[State, list[State]]:
        """Return the initial state and all states."""
        states = {name: state.value for name, state in self.machine.states.items()}
        initial = self.machine.initial
        if initial == "initial" and not any(states[initial] in (t.source, t.target) for t in transitions):
            # pytransitions adds it where none is named.
            del states[initial]
        return states.get(initial), list(states.values())

    def transitions(self, event: str) -> Iterator[Transition]:
        """Return what an event may do, and note what a table cannot hold."""
        if self._is_automatic(event):
            return
        edges = [each for edges in self.machine.events[event].transitions.values() for each in edges]
        moves = [each for each in edges if each.dest != each.source]
        for edge in edges:
            if edge.dest is None:
                self._note(event, edge, "is internal", f"Take it out: a table has moves alone, {_METHOD}")
            elif edge.dest == edge.source:
                # A star of pytransitions contains its target. Alone it is something else.
                if not any(_same(edge, move) for move in moves):
                    self._note(event, edge, "stays where it is", f"A row may always do that: take it out, {_METHOD}")
            elif edge.source not in self.machine.states or edge.dest not in self.machine.states:
                self._note(event, edge, "is between states that the machine does not have", "Add them.")
            elif not self._is_the_only_one(event, edge):
                mend = "A move has one event: write a method that calls it, or one condition that says or."
                self._note(event, edge, f"makes the same move as {self._made[edge.source, edge.dest][0]!r}", mend)
            else:
                yield self._transition(event, edge)

    def _is_the_only_one(self, event: str, edge: Any) -> bool:
        """Return whether no other event makes the move of an edge, nor the same one in another way."""
        other, made = self._made.setdefault((edge.source, edge.dest), (event, edge))
        return other == event and _same(made, edge)

    def _is_automatic(self, event: str) -> bool:
        machine = self.machine
        if not machine.auto_transitions:
            return False
        prefix = "to_" if machine.model_attribute == "state" else f"to_{machine.model_attribute}_"
        return event.startswith(prefix) and event.removeprefix(prefix) in machine.states

    def _transition(self, event: str, edge: Any) -> Transition:
        if edge.prepare:
            self._note(event, edge, f"has prepare={edge.prepare}", "Write it into its first condition.")
        unless = [each.func for each in edge.conditions if not each.target]
        if unless:
            self._note(event, edge, f"has unless={unless}", "Write a condition that says the opposite.")
        hooks: dict[str, Hook | None] = {}
        for name in ("before", "after"):
            called = getattr(edge, name)
            if len(called) > 1:
                self._note(event, edge, f"has {name}={called}", "A table calls one: write one that calls them all.")
            hooks[name] = self._hook(event, edge, called[0]) if called else None
        conditions = [self._hook(event, edge, each.func) for each in edge.conditions]
        states = self.machine.states
        source, target = states[edge.source].value, states[edge.dest].value
        return Transition(source, target, event, conditions=conditions, before=hooks["before"], after=hooks["after"])

    def _hook(self, event: str, edge: Any, called: Hook) -> Hook:
        if isinstance(called, _Called):
            return called.hook
        if self.machine.send_event:
            self._note(
                event,
                edge,
                f"calls {short(called)} with an EventData",
                "Take send_event=True out: with a table it is called with the arguments of the event.",
            )
        if isinstance(called, str):
            if "." not in called:
                return called
            try:
                function: Callable[..., Any] = pkgutil.resolve_name(called)
            except (ImportError, AttributeError, ValueError):
                self._note(event, edge, f"calls {called!r}, which cannot be imported", "Give the function.")
                return called
            called = function
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if any(owner is model for model in self.machine.models) and getattr(owner, name, None) == called:
            return str(name)
        return _AsyncWithoutObject(called) if is_async_def(called) else WithoutObject(called)

    def _note(self, event: str, edge: Any, what: str, mend: str) -> None:
        target = "" if edge.dest is None else f" → {quote(edge.dest)}"
        self.problems.append(f"{event!r}, {quote(edge.source)}{target}: {what}. {mend}")


_METHOD = "and write a method of the model for what it calls."


def _same(one: Any, two: Any) -> bool:
    def details(edge: Any) -> Any:
        return edge.dest, edge.before, edge.after, edge.prepare, [(c.func, c.target) for c in edge.conditions]

    return bool(details(one) == details(two))


def _unknown_hooks(machine: Any) -> Iterator[str]:
    of_machine = (
        "before_state_change",
        "after_state_change",
        "prepare_event",
        "finalize_event",
        "on_exception",
        "on_final",
    )
    for name in of_machine:
        if called := getattr(machine, name, None):  # 0.9.0 has no on_final
            yield f"{name}={called} of the machine. Give it to the transitions, as before= or after=."
    if machine.has_queue:
        yield "queued=True. An event of a table is done when it returns: take it out."
    for state in machine.states.values():
        if getattr(state, "timeout", 0):
            yield f"timeout={state.timeout} of {quote(state.name)}. A row may stay for ever: take it out."
        for name in ("on_enter", "on_exit"):
            if called := getattr(state, name):
                ways = "into it, as after=" if name == "on_enter" else "out of it, as before="
                yield f"{name}={called} of {quote(state.name)}. Give it to the transitions {ways}."


# --- to a machine -----------------------------------------------------------------------------------------------------


def build(table: TransitionTable, model: object, machine_class: type[Any] | None, options: dict[str, Any]) -> Machine:
    """Return a pytransitions machine that knows the states and transitions of a table.

    Args:
        table: the table.
        model: the object, or a list of objects, that get its events as methods; None for none.
        machine_class: a class of machines; None for ``transitions.Machine``.
        options: more arguments of the class.

    Raises:
        TableError: the table has a state or a function that such a machine cannot have.
        TypeError: an option contradicts the table.
    """
    from transitions import Machine
    from transitions.extensions.asyncio import AsyncMachine
    from transitions.extensions.nesting import HierarchicalMachine

    class_ = machine_class or Machine
    if not (isinstance(class_, type) and issubclass(class_, Machine)) or issubclass(class_, HierarchicalMachine):
        raise TypeError(
            f"to_machine(): machine_class={short(class_)}; allowed is a subclass of transitions.Machine, and none with "
            "nested states"
        )
    own = {"states", "transitions", "auto_transitions", "send_event"} & options.keys()
    if own:
        raise TypeError(f"to_machine() sets {', '.join(sorted(own))} itself, from the table: leave it out")
    if None in table.states:
        raise _TO.error(
            "NULL is a state of the table, and pytransitions has no such state",
            "Give it a name in a table of its own, and make the machine of that.",
        )
    is_async = issubclass(class_, AsyncMachine)
    if not is_async and (waiting := next(_async_hooks(table), None)) is not None:
        raise _TO.error(
            f"{waiting} is an async def, which {class_.__name__} never awaits",
            "Pass machine_class=transitions.extensions.asyncio.AsyncMachine.",
        )
    # As objects, because pytransitions reads the texts "*" and "=" as something else.
    values = {text: table.enum[text] if table.enum else text for text in table.states if text is not None}
    states: dict[State, Any] = {text: class_.state_cls(value) for text, value in values.items()}
    options.setdefault("initial", states[next(iter(table.initial))] if len(table.initial) == 1 else None)
    machine: Machine = class_(
        model=model,
        states=list(states.values()),
        transitions=[_edge(each, _event(each, table), states, is_async) for each in table.transitions],
        auto_transitions=False,
        send_event=True,
        **options,
    )
    return machine


def _event(transition: Transition, table: TransitionTable) -> str:
    if transition.event is not None:
        return transition.event
    name = f"to_{as_text(transition.target)}"
    if any(each.event == name for each in table.transitions):
        raise _TO.error(
            f"{name!r} is an event, and {_pair(transition)} without an event would get the same name",
            "Give it an event of its own.",
        )
    return name


def _edge(transition: Transition, event: str, states: dict[State, Any], is_async: bool) -> dict[str, Any]:
    return {
        "trigger": event,
        "source": states[transition.source],
        "dest": states[transition.target],
        "conditions": [_Asked(hook, is_async) for hook in transition.conditions],
        "before": [_Called(hook, is_async) for hook in (transition.before,) if hook is not None],
        "after": [_Called(hook, is_async) for hook in (transition.after,) if hook is not None],
    }


def _async_hooks(table: TransitionTable) -> Iterator[str]:
    for each in table.transitions:
        for hook in (*each.conditions, each.before, each.after):
            if callable(hook) and is_async_def(hook):
                yield Callback(hook).name


def _pair(transition: Transition) -> str:
    return f"{quote(as_text(transition.source))} → {quote(as_text(transition.target))}"
