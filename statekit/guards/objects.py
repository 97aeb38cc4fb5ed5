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
from statekit.guards.watch import Watch


def install() -> None:
    """Listen to flushes, once, and look at every class anew; called for each guard and never by an import."""
    watch.forget()
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)


def _before_flush(session: Session, context: UOWTransaction, instances: Sequence[Any] | None) -> None:
    dirty: Collection[InstanceState[Any]] = set(session._dirty_states)
    new: Collection[InstanceState[Any]] = session._new
    by_class = {class_: watch.watches(class_) for class_ in {state.class_ for state in (*dirty, *new)}}
    by_class = {class_: watches for class_, watches in by_class.items() if watches}
    if not by_class:
        return
    if not fence.is_in_force():
        raise StatekitError(
            "The fence around UPDATE statements is gone: somebody called sqlalchemy.ext.compiler.deregister(Update) "
            "after the guards were declared. Take that call out."
        )
    if instances:
        chosen = {instance_state(obj) for obj in instances}
        dirty, new = [state for state in dirty if state in chosen], [state for state in new if state in chosen]
    if session._deleted:
        dirty = [state for state in dirty if state not in session._deleted]
    changed: dict[Watch, list[InstanceState[Any]]] = {}
    for class_, watches in by_class.items():
        for each in watches:
            key = each.key
            changed[each] = [state for state in dirty if key in state.committed_state and state.class_ is class_]
    created = [state for state in new if state.class_ in by_class]
    flush = Flush(session, context)
    flush.judge({each: states for each, states in changed.items() if states}, created)
    flush.take_over()
