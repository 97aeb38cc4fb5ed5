"""Named transitions: an event of a table is a method of the model, which asks, calls back and sets the state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from sqlalchemy import event as event_of_mappers
from sqlalchemy.orm import Mapper, QueryableAttribute

from statekit.errors import StatekitError, TableError
from statekit.guards import conditions
from statekit.guards.event_calls import Call, Refusals
from statekit.guards.guard import Guard
from statekit.guards.watch import watches
from statekit.table import Transition
from statekit.table.callbacks import Callback, static

P = ParamSpec("P")
T = TypeVar("T")

_MARK = "__statekit_event__"
"""On an event's method: the attribute that it is for, and what was decorated, if anything was."""


class Event:
    """What :func:`event` leaves in a class, until a guard puts the event's method in its place."""

    def __init__(self, body: Callable[..., Any]) -> None:
        functools.update_wrapper(self, body)
        self.body = body

    def __get__(self, obj: object, owner: type | None = None) -> Any:
        return self if obj is None else functools.partial(self, obj)

    def __call__(self, obj: object, /, *args: Any, **kwargs: Any) -> Any:
        name = self.body.__name__
        if next(_methods(type(obj), name), self) is not self:  # a mixin's, called by super()
            done = self.body(obj, *args, **kwargs)
            return _true_after(done) if inspect.isawaitable(done) else True
        where = f"{type(obj).__name__}.{name} is an event of no table"
        if hasattr(obj, "__transitions__") and not watches(type(obj)):
            raise StatekitError(f"{where}: the class has __transitions__, but does not derive from statekit.Guarded.")
        raise StatekitError(
            f"{where}: give a transition of a guarded column event={name!r}, or take @statekit.event off the method."
        )


async def _true_after(waiting: Awaitable[object]) -> bool:
    await waiting
    return True


@overload
def event(body: Callable[Concatenate[T, P], None]) -> Callable[Concatenate[T, P], bool]: ...
@overload
def event(
    body: Callable[Concatenate[T, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[T, P], Coroutine[Any, Any, bool]]: ...
def event(body: Callable[..., Any]) -> Callable[..., Any]:
    """Give an event of a transition table a signature, and something to do: decorate the method of its name.

    The method's body is called after the conditions have said yes and before the state is set, so that it sees the
    state that is left. What the body returns is not used.

    Args:
        body: a method whose name is the ``event`` of at least one transition; ``async def`` makes the event one that is
            awaited.

    Returns:
        The event: called as the body is, and True when it was done. It is False only in the mode "skip", where it was
        left out.

    Raises:
        TableError: ``body`` is no function.

    >>> from sqlalchemy import Integer, String
    >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
    >>> from statekit import Guarded, Transition, TransitionTable
    >>> class Base(DeclarativeBase): pass
    >>> class Message(Guarded, Base):
    ...     __tablename__ = "message"
    ...     id = mapped_column(Integer, primary_key=True)
    ...     status = mapped_column(String, default="READY")
    ...     reviewer = mapped_column(String)
    ...     __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"), initial="READY")}
    ...     @event
    ...     def promote(self, reviewer: str) -> None:
    ...         self.reviewer = reviewer
    >>> message = Message(status="READY")
    >>> message.promote(reviewer="Ada")
    True
    >>> message.status, message.reviewer
    ('PROMOTED', 'Ada')
    """
    if not inspect.isfunction(body):
        raise TableError(f"@statekit.event: {body!r} is no function. Decorate a method of the model, defined with def.")
    return cast("Callable[..., Any]", Event(body))


def install(guard: Guard, mapper: Mapper[Any] | None, key: str, where: str) -> Callable[[], None]:
    """Give a class the methods of its table's events.

    Args:
        guard: of the attribute.
        mapper: of the class; None where the column is guarded and no attribute.
        key: the attribute.
        where: what messages call the declaration.

    Returns:
        A function that takes the methods away again.

    Raises:
        TableError: an event or a condition does not fit the class.
    """
    with_hooks = [
        each for each in guard.table.transitions if each.event or each.conditions or each.before or each.after
    ]
    if not with_hooks:
        return lambda: None
    if mapper is None:
        raise TableError(
            f"{where}: events and conditions belong to a class, and that is a column of a table. Guard the attribute "
            "of the mapped class, such as Message.status."
        )
    class_ = mapper.class_
    for transition in with_hooks:
        _check(transition, class_, where)
    if guard.conditions:
        conditions.forget_when_assigned(mapper, key)
    changes: dict[type, dict[str, Any]] = {}
    bodies: dict[str, Callback] = {}
    names = list(dict.fromkeys(each.event for each in with_hooks if each.event))
    for name in names:
        existing = static(class_, name)
        of_key, marked = getattr(existing, _MARK, (key, existing))
        if isinstance(marked, Event):
            bodies[name] = Callback(marked.body)
        if of_key != key:
            raise TableError(
                f"{where}: {name!r} is an event of {class_.__name__}.{of_key} already, and a class has one method of "
                "that name. Give one of the two another name."
            )
        if marked is not None and not isinstance(marked, Event):
            raise TableError(
                f"{where}: {class_.__name__} has an attribute {name!r} already, and the event {name!r} needs a method "
                "of that name. If it is the event's own, decorate it with @statekit.event; else rename one of the two."
            )

    def of_subclass(mapper: Mapper[Any], class_: type) -> None:
        if mapper.inherits is not None:
            install_in_subclass(guard, key, mapper)

    def take_away() -> None:
        if event_of_mappers.contains(class_, "before_mapper_configured", of_subclass):
            event_of_mappers.remove(class_, "before_mapper_configured", of_subclass)
        for changed, before in changes.items():
            for name, value in before.items():
                delattr(changed, name) if value is None else setattr(changed, name, value)

    if not names:
        return take_away
    try:
        _put(class_, guard, key, names, bodies, changes.setdefault(class_, {}))
        for each in mapper.self_and_descendants:
            if each is not mapper:
                install_in_subclass(guard, key, each, changes.setdefault(each.class_, {}))
        event_of_mappers.listen(class_, "before_mapper_configured", of_subclass, propagate=True)
    except BaseException:
        take_away()
        raise
    return take_away


def install_in_subclass(guard: Guard, key: str, mapper: Mapper[Any], before: dict[str, Any] | None = None) -> None:
    """Let a subclass that inherits a guarded attribute do something of its own; ``before`` gets what it had."""
    class_ = mapper.class_
    bodies = {}
    for name in dict.fromkeys(each.event for each in guard.table.transitions if each.event):
        existing = static(class_, name)
        if isinstance(existing, Event):
            bodies[name] = Callback(existing.body)
        if isinstance(existing, QueryableAttribute):
            raise TableError(
                f"{class_.__name__} has an attribute {name!r}, and inherits an event of that name from "
                f"{guard.model}.{key}. Rename one of the two."
            )
    if bodies and mapper.columns.contains_column(guard.column):  # a concrete subclass has a column of its own
        _put(class_, guard, key, list(bodies), bodies, {} if before is None else before)


def unused(class_: type) -> list[str]:
    """Return the decorated methods of a class that are an event of no table."""
    return [name for name, value in vars(class_).items() if isinstance(value, Event)]


def _put(
    class_: type, guard: Guard, key: str, names: list[str], bodies: dict[str, Callback], before: dict[str, Any]
) -> None:
    from statekit.guards import machine  # loads pytransitions, for those who have events

    machines: dict[bool, Any] = {}
    for name in names:
        awaited = _is_async(guard, name, bodies.get(name), class_)
        if awaited not in machines:
            machines[awaited] = machine.make(guard, key, bodies, is_async=awaited)
        existing = static(class_, name)
        _, marked = getattr(existing, _MARK, (key, existing))
        made = _method(class_, machines[awaited], guard, key, name, marked, awaited)
        before[name] = vars(class_).get(name)
        setattr(class_, name, made)


def _is_async(guard: Guard, name: str, body: Callback | None, class_: type) -> bool:
    called = [body] if body is not None else []
    for each in guard.table.transitions:
        if each.event == name:
            called += [Callback(hook) for hook in (each.before, each.after) if hook is not None]
    return any(each.is_async(class_) for each in called)


def _check(transition: Transition, class_: type, where: str) -> None:
    for condition in map(Callback, transition.conditions):
        condition.check(class_, f"{where}, a condition of {transition!r}")
        if condition.is_async(class_):
            raise TableError(
                f"{where}: the condition {condition.name} of {transition!r} is an async def. Conditions are asked in a "
                "flush too, which cannot wait: make it a plain function of what is loaded before."
            )
    for hook in (transition.before, transition.after):
        if hook is not None and transition.event is None:
            raise TableError(
                f"{where}: {transition!r} has something to call, and no event that would call it: what is before and "
                'after belongs to a named transition. Give it event="…".'
            )
        if hook is not None and hook == transition.event:
            raise TableError(
                f"{where}: {transition!r} would call itself, without end. Take it out of before= or after=."
            )
        if hook is not None:
            Callback(hook).check(class_, f"{where}, a callback of {transition!r}")


def _methods(class_: type, name: str) -> Iterator[Any]:
    """Return the methods of an event that a class has and inherits, and what is decorated, its own first."""
    for each in class_.__mro__:
        found = vars(each).get(name)
        if hasattr(found, _MARK) or isinstance(found, Event):
            yield found


def _method(class_: type, machine: Any, guard: Guard, key: str, name: str, marked: Event | None, awaited: bool) -> Any:
    """Return the method for an event of a class."""
    from statekit.guards.machine import Elsewhere

    trigger = machine.events[name].trigger
    refusals = Refusals(guard, key, name)
    overridden: dict[type, bool] = {}

    def is_overridden(of_object: type) -> bool:
        """Return whether a subclass does something of its own, so that ``super()`` has called, for the body alone."""
        known = overridden.get(of_object)
        if known is None:
            known = overridden[of_object] = next(_methods(of_object, name)) is not made
        return known

    def method(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        if type(self) is not class_ and is_overridden(type(self)):
            if marked is not None:
                marked.body(self, *args, **kwargs)
            return True
        call = Call(self)
        while True:
            try:
                done = trigger(self, call, args, kwargs)
                if not done and refusals.let_through(call):
                    done = trigger(self, call, args, kwargs)
                return done if done and not call.let_through else refusals.by_condition(self, call)
            except Elsewhere:
                if call.has_started or not refusals.has_started(self):
                    return refusals.elsewhere(self)
                call.has_started = True

    async def async_method(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        if type(self) is not class_ and is_overridden(type(self)):
            waiting = marked.body(self, *args, **kwargs) if marked is not None else None
            if inspect.isawaitable(waiting):
                await waiting
            return True
        call = Call(self)
        while True:
            try:
                done = await trigger(self, call, args, kwargs)
                if not done and refusals.let_through(call):
                    done = await trigger(self, call, args, kwargs)
                return done if done and not call.let_through else refusals.by_condition(self, call)
            except Elsewhere:
                if call.has_started or not refusals.has_started(self):
                    return refusals.elsewhere(self)
                call.has_started = True

    made: Any = async_method if awaited else method
    if marked is not None:
        functools.update_wrapper(made, marked.body)
    else:
        made.__name__ = name
        made.__doc__ = f"Event of {guard.model}.{key}: {refusals.described()}."
    setattr(made, _MARK, (key, marked))
    return made
