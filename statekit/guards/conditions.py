"""Asking the conditions of transitions: in an event, in a flush, and for :func:`statekit.available`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy.orm import Mapper

from statekit.errors import Pair, StatekitError
from statekit.guards.guard import Guard
from statekit.guards.watch import State, listen_to_assignments
from statekit.table.callbacks import Callback, is_unawaited

_INFO_KEY = "statekit asked about "
_ABSENT = object()


def says_yes(condition: Callback, obj: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}) -> bool:
    """Ask one condition.

    Raises:
        StatekitError: it answers with something to be awaited, which a flush cannot do.
    """
    answer = condition(obj, args, kwargs)
    if answer is True or answer is False:
        return answer
    if is_unawaited(answer) or inspect.isawaitable(answer):
        raise StatekitError(
            f"The condition {condition.name} is asynchronous. Conditions are asked in a flush too, which cannot wait: "
            "load what they need before, and let them look at that."
        )
    return bool(answer)


def first_no(guard: Guard, key: str, state: State, pair: Pair) -> Callback | None:
    """Return the first condition of a move that says no to an object whose state was assigned, or None.

    While it is asked, the object shows the state that it is to leave, as in an event. A move that an event made was
    asked there, with the event's arguments.

    Args:
        guard: whose move it is.
        key: the guarded attribute.
        state: the object.
        pair: the move, which the table allows.

    Raises:
        StatekitError: a condition is asynchronous.
    """
    conditions = guard.conditions.get(pair, ())
    if not conditions or pair in asked(state, key):
        return None
    obj = state.obj()
    assert obj is not None
    with _showing(guard, key, state, pair[0]):
        for condition in conditions:
            # An assignment has no arguments to give, so that only the event can be asked.
            if condition.takes(type(obj)) == "required" or not says_yes(condition, obj):
                return condition
    return None


def may_say_yes(guard: Guard, key: str, state: State, pair: Pair) -> bool:
    """Return whether no condition of a move says no; those that need an event's arguments are not asked.

    Args:
        guard: whose move it is.
        key: the guarded attribute.
        state: the object.
        pair: the move, which the table allows.

    Raises:
        StatekitError: a condition is asynchronous, or has flushed the session.
    """
    conditions = guard.conditions.get(pair, ())
    if not conditions:
        return True
    obj = state.obj()
    with _showing(guard, key, state, pair[0]):
        return all(c.takes(type(obj)) == "required" or says_yes(c, obj) for c in conditions)


@contextmanager
def _showing(guard: Guard, key: str, state: State, source: str | None) -> Iterator[None]:
    """Let an object show a state for as long as the block lasts, without it being a change.

    Raises:
        StatekitError: the block has flushed the object, which showed what was not to be written.
    """
    values: dict[str, Any] = state.dict
    shown, was_changed = values.get(key, _ABSENT), key in state.committed_state
    session = state.session
    # A query in the block would flush the object as it is shown, and its own change would be lost.
    with session.no_autoflush if session is not None else nullcontext():
        values[key] = guard.states.values[source]
        try:
            yield
        finally:
            if shown is _ABSENT:
                values.pop(key, None)
            else:
                values[key] = shown
    if was_changed and key not in state.committed_state:
        raise StatekitError(
            f"A condition of {guard.model}.{key} has flushed the session. It is asked in the middle of a change, and "
            "may only look."
        )


def forget_when_assigned(mapper: Mapper[Any], key: str) -> None:
    """Forget what an event was told once something else is assigned to the attribute."""
    listen_to_assignments(mapper, key, lambda state, value, old, initiator: forget(state, key))


def forget(state: State, key: str) -> None:
    """Forget what events were told about an object."""
    if "info" in state.__dict__:
        state.info.pop(_INFO_KEY + key, None)


def remember(state: State, key: str, pairs: frozenset[Pair]) -> None:
    """Remember moves that an event has asked about; called right after the event's own assignment."""
    state.info[_INFO_KEY + key] = pairs


def asked(state: State, key: str) -> frozenset[Pair]:
    """Return the moves that events have asked about since the object was last flushed, loaded or assigned to."""
    if "info" not in state.__dict__ or key not in state.committed_state:
        return frozenset()
    found: frozenset[Pair] = state.info.get(_INFO_KEY + key, frozenset())
    return found
