"""Ring 1, objects: every flush is looked at before it writes, in one pass over what it is about to write.

The verdict falls in ``before_flush`` and not in ``__set__``, so that loading, refresh, merge and fixtures work as ever,
and not in ``before_update``, which costs 2 % of a large flush even for objects whose state did not change. What a
flush itself changes later (a listener, a relationship that fills a foreign key) is found by :mod:`.flush` at its end.

The listener is on ``sqlalchemy.orm.Session``: the one that is global. For a flush without guarded objects it is one
look at the class of each object.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Session, UOWTransaction
from sqlalchemy.orm.attributes import instance_state

from statekit.errors import StatekitError
from statekit.guards import fence, watch
from statekit.guards.flush import Flush


def install() -> None:
    """Listen to flushes, once, and look at every class anew; called for each guard and never by an import."""
    watch.forget()
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)


def _before_flush(session: Session, context: UOWTransaction, instances: Sequence[Any] | None) -> None:
    flush = Flush(session, context)
    dirty: Collection[InstanceState[Any]] = set(session._dirty_states)
    new: Collection[InstanceState[Any]] = session._new
    by_class = {class_: watch.watches(class_) for class_ in {state.class_ for state in (*dirty, *new)}}
    by_class = {class_: watches for class_, watches in by_class.items() if watches}
    if by_class:
        if not fence.is_in_force():
            raise StatekitError(
                "The fence around UPDATE statements is gone: after the guards were declared, somebody called "
                "sqlalchemy.ext.compiler.deregister(Update). Take that call out."
            )
        if instances:
            chosen = {instance_state(obj) for obj in instances}
            dirty, new = [state for state in dirty if state in chosen], [state for state in new if state in chosen]
        if session._deleted:
            dirty = [state for state in dirty if state not in session._deleted]
        changed = {
            each: [
                state
                for state in dirty
                if each.key in state.committed_state and state.class_ is class_ and not _will_be_deleted(state)
            ]
            for class_, watches in by_class.items()
            for each in watches
        }
        flush.judge(
            {each: states for each, states in changed.items() if states},
            [state for state in new if state.class_ in by_class],
        )
    flush.take_over()


def _will_be_deleted(state: InstanceState[Any]) -> bool:
    """Return whether the flush deletes an object because it has lost its parent (cascade "delete-orphan")."""
    mapper = state.mapper
    return bool(mapper._delete_orphans) and bool(mapper._is_orphan(state))
