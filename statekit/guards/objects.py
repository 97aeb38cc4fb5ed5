"""Ring 1, objects: every flush is looked at before it writes, in one pass over what it is about to write.

The verdict falls in ``before_flush`` and not in ``__set__``, so that loading, refresh, merge and fixtures work as ever,
and not in ``before_update``, which costs 2 % of a large flush even for objects whose state did not change. What a
flush itself changes later (a listener, a relationship that fills a foreign key) is found by :mod:`.flush` at its end.

The listener is on ``sqlalchemy.orm.Session``: the one that is global. A flush without guarded objects costs one
look at the class of each object, and is left alone unless something may still bring one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Session, UOWTransaction
from sqlalchemy.orm.attributes import instance_state, set_attribute

from statekit.errors import StatekitError
from statekit.guards import fence, watch
from statekit.guards.flush import Flush
from statekit.guards.guard import filled_by_relationships


def install() -> None:
    """Listen to flushes, once, and look at every class anew; called for each guard and never by an import."""
    watch.forget()
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)


def _before_flush(session: Session, context: UOWTransaction, instances: Sequence[Any] | None) -> None:
    dirty: Collection[InstanceState[Any]] = session._dirty_states  # type: ignore[assignment]
    new: Collection[InstanceState[Any]] = session._new
    classes = {state.class_ for state in dirty}
    classes.update(state.class_ for state in new)
    by_class = {class_: found for class_ in classes if (found := watch.watches(class_))}
    if not by_class and not _more_may_come(session):
        return
    flush = Flush(session, context)
    if by_class:
        if not fence.is_in_force():
            raise StatekitError(
                "The fence around UPDATE statements is gone: after the guards were declared, somebody called "
                "sqlalchemy.ext.compiler.deregister(Update), or something else replaced the way in which SQLAlchemy "
                "compiles an Update. Take that out, or let it happen before the first guard."
            )
        if instances:
            chosen = {instance_state(obj) for obj in instances}
            dirty, new = [state for state in dirty if state in chosen], [state for state in new if state in chosen]
        if session._deleted:
            dirty = [state for state in dirty if state not in session._deleted]
        changed: dict[watch.Watch, list[InstanceState[Any]]] = {}
        for class_, found in by_class.items():
            states = [state for state in dirty if state.class_ is class_]
            for each in found:
                if each.onupdate is not None:
                    _assign_onupdate(session, each, states)
                key = each.key
                if of_each := [state for state in states if key in state.committed_state]:
                    changed[each] = _without_orphans(each, of_each)
        flush.judge(changed, [state for state in new if state.class_ in by_class])
    flush.take_over()


def _more_may_come(session: Session) -> bool:
    """Return whether guarded objects may join a flush that has none yet.

    Other listeners may change some, and a relationship fills a column of objects that nobody has touched.
    """
    return len(session.dispatch.before_flush) > 1 or filled_by_relationships()


def _assign_onupdate(session: Session, each: watch.Watch, states: list[InstanceState[Any]]) -> None:
    """Give objects that will be updated the state that the column's ``onupdate=`` gives their rows, to judge it."""
    for state in states:
        obj = state.obj()
        if each.key not in state.committed_state and session.is_modified(obj, include_collections=False):
            set_attribute(obj, each.key, each.onupdate)


def _without_orphans(each: watch.Watch, states: list[InstanceState[Any]]) -> list[InstanceState[Any]]:
    """Leave out the objects that the flush deletes because they have lost their parent (cascade "delete-orphan")."""
    if not each.mapper._delete_orphans:
        return states
    return [state for state in states if not each.mapper._is_orphan(state)]
