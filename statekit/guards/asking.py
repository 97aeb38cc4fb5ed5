"""Asking what may happen next, without doing it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstanceState, QueryableAttribute
from sqlalchemy.orm.base import NO_VALUE

from statekit.errors import StatekitError
from statekit.guards.attach import Guarded, guard_on
from statekit.guards.conditions import may_say_yes
from statekit.guards.guard import NOT_KNOWN
from statekit.guards.watch import Watch, watches
from statekit.table import Transition


def available(obj: object, attribute: QueryableAttribute[Any] | str | None = None) -> tuple[Transition, ...]:
    """Return the transitions that an object may make next.

    What counts is the state that its row is in, because that is what the next flush is judged by, whatever was assigned
    since. An object that has no row yet is taken to be in the state that it will be inserted in.

    Conditions are asked, and nothing else is called. One that needs an event's arguments cannot be asked without them,
    and stands in nobody's way here.

    Args:
        obj: an object of a guarded class.
        attribute: which guarded attribute, such as ``Message.status`` or ``"status"``; needed only where there are
            several.

    Returns:
        The transitions out of its state of which no condition says no, in the order of the table.

    Raises:
        StatekitError: the object's class has no guard, or several and ``attribute`` does not say which; its state was
            assigned before it was loaded; a condition is asynchronous.
    """
    watch, state = watch_of(obj, attribute)
    source = _state_of_row(watch, state)
    guard = watch.guard
    return tuple(
        each
        for pair, each in zip(guard.moves, guard.table.transitions, strict=True)
        if pair[0] == source and may_say_yes(guard, watch.key, state, pair)
    )


def can(obj: object, target: Any, attribute: QueryableAttribute[Any] | str | None = None) -> bool:
    """Return whether an object may move to a state next.

    Args:
        obj: an object of a guarded class.
        target: the state, as the attribute takes it or as text.
        attribute: which guarded attribute; needed only where there are several.

    Returns:
        False as well for the state that the object is in: staying there is no transition.

    Raises:
        StatekitError: the table has no such state; the object's class has no guard, or several and ``attribute`` does
            not say which; its state was assigned before it was loaded; a condition is asynchronous.
    """
    watch, state = watch_of(obj, attribute)
    text = watch.guard.states.find(target, f"{watch.model}.{watch.key}")
    pair = _state_of_row(watch, state), text
    return pair in watch.guard.legal and may_say_yes(watch.guard, watch.key, state, pair)


def watch_of(obj: object, attribute: QueryableAttribute[Any] | str | None) -> tuple[Watch, InstanceState[Any]]:
    """Return which guarded attribute of an object is meant, and SQLAlchemy's state of the object.

    Args:
        obj: the object.
        attribute: the attribute or its name; None where there is one.

    Raises:
        StatekitError: the object's class has no guard, or several and ``attribute`` does not say which.
    """
    if isinstance(obj, type):
        raise StatekitError(f"An object is asked for, and {obj.__name__} is a class.")
    state: Any = sa.inspect(obj, raiseerr=False)
    found = watches(type(obj)) if isinstance(state, InstanceState) else ()
    key = attribute if attribute is None or isinstance(attribute, str) else attribute.key
    # The attribute of another class is not meant, though it may be called the same.
    of_guard = None if attribute is None or isinstance(attribute, str) else guard_on(attribute)
    chosen = [watch for watch in found if key in (None, watch.key) and of_guard in (None, watch.guard)]
    if len(chosen) != 1:
        names = ", ".join(watch.key for watch in found)
        such = f"{type(obj).__name__}.{found[0].key}" if found else ""
        several = f"has several guarded attributes ({names}): name one beside the object, such as attribute={such}"
        has = several if found else "has no guard"
        if not found and hasattr(obj, "__transitions__") and not isinstance(obj, Guarded):
            has += ": it has __transitions__, but does not derive from statekit.Guarded"
        asked = f" called {key!r}" if key is not None and found else ""
        has = f"has no guarded attribute{asked}; it has: {names}" if asked else has
        raise StatekitError(f"{type(obj).__name__} {has}.")
    return chosen[0], state


def _state_of_row(watch: Watch, state: InstanceState[Any]) -> Any:
    """Return the text of the state that the object's row is in, or will be inserted in."""
    value = state.committed_state.get(watch.key, NO_VALUE)
    if state.key is None or value is NO_VALUE:
        if state.key is not None and watch.key in state.committed_state:
            raise StatekitError(
                f"{watch.model}.{watch.key} was assigned before its state was loaded: flush or refresh the object."
            )
        value = getattr(state.obj(), watch.key)
        if value is None and state.key is None:
            default = watch.guard.default
            return None if default is NOT_KNOWN else default
    return watch.guard.states.text(value)
