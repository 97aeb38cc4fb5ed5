"""Putting an object into any state, as a fixture needs it."""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import QueryableAttribute, Session, scoped_session

from statekit.errors import IllegalTransition, StatekitError, show_state
from statekit.guards import current
from statekit.guards.asking import watch_of
from statekit.guards.guard import Guard
from statekit.guards.watch import State, Watch

T = TypeVar("T")


def in_state(
    session: Session | scoped_session[Any], obj: T, state: Any, attribute: QueryableAttribute[Any] | str | None = None
) -> T:
    """Put an object into a state of its table, for a test to begin there.

    A new object is added to the session and flushed, in a state that a new row may start in. From there its row goes
    along the table, by UPDATEs that only set the column, past the guard and not past a trigger in the database: each of
    them is legal. Where no way leads to the state, it is set directly. Conditions are not asked and events are not
    called; nothing is counted or logged, and nothing is switched off for the code under test. With an ``AsyncSession``,
    write ``await session.run_sync(in_state, message, "COMPLETED")``.

    Args:
        session: that is to hold the object; it is flushed if the object is new, and not committed.
        obj: an object of a guarded class, new or with a row.
        state: the state, as the attribute takes it or as text.
        attribute: which guarded attribute, such as ``Message.status``; needed only where there are several.

    Returns:
        The object; its attribute holds the state, as loaded from the row.

    Raises:
        StatekitError: the object's class has no guard, the table has no such state, the row is gone, or the session is
            not a ``Session``.
        IllegalTransition: no way leads to the state, and the database's trigger refuses to set it directly.
    """
    if isinstance(session, scoped_session):
        session = session()
    if not isinstance(session, Session):
        raise StatekitError(
            f"in_state(): got {type(session).__name__}, and a Session is asked for. With an AsyncSession, write: "
            "await session.run_sync(in_state, obj, state)."
        )
    watch, of_object = watch_of(obj, attribute)
    target = watch.guard.states.find(state, f"in_state({watch.model}.{watch.key})")
    with session.no_autoflush:
        session.add(obj)
        if of_object.key is None:
            _start(session, watch, of_object, target)
        _move(session.connection(bind_arguments={"mapper": watch.mapper}), watch, of_object, target)
        session.expire(obj, [watch.key])
        getattr(obj, watch.key)
    return obj


def _start(session: Session, watch: Watch, state: State, target: str | None) -> None:
    """Insert an object in a state from which a way leads to the target, if there is one."""
    guard, value = watch.guard, state.dict.get(watch.key)
    usual = guard.default if value is None else guard.states.text(value)
    starts = sorted(guard.initial, key=lambda text: (_path(watch, text, target) is None, text != usual))
    if starts[0] != usual:
        setattr(state.obj(), watch.key, start_value(guard, starts[0]))
    session.flush()


def start_value(guard: Guard, text: str | None) -> Any:
    """Return what to assign to a new object's attribute so that its row starts in a state.

    Args:
        guard: the attribute's guard.
        text: the state, as the database stores it.
    """
    # For a None that is assigned, SQLAlchemy leaves the column out, and its default would apply.
    return sa.null() if text is None and guard.default is not None else guard.states.values[text]


def _move(connection: Connection, watch: Watch, state: State, target: str | None) -> None:
    key = watch.row_key(state)
    rows = current.read(connection, watch, [key], lock=False)
    if key not in rows:
        raise StatekitError(f"in_state(): {watch.model}{key} has no row.")
    way = _path(watch, rows[key], target)
    try:
        for text in way[1:] if way is not None else [target]:
            _update(connection, watch, key, watch.guard.states.values[text])
    except IllegalTransition as error:
        if way is None:
            error.add_note(
                f"in_state(): no way of the table leads from {show_state(rows[key])} to {show_state(target)}, and the "
                "trigger in the database refuses to set it directly. Insert the object in another initial state, or "
                "take the trigger out of the database of this test."
            )
        raise
    now = current.read(connection, watch, [key], lock=False).get(key)
    if now != target:
        raise StatekitError(
            f"in_state(): the row stays in {show_state(now)}: something in the database, such as a trigger with "
            f'on_illegal="skip", keeps it out of {show_state(target)}.'
        )


def _path(watch: Watch, source: str | None, target: str | None) -> list[str | None] | None:
    """Return the shortest way between two states, as the database stores them; None if there is none."""
    guard = watch.guard
    names = {text: name for name, text in guard.states.texts.items()}
    if source not in names:
        return None
    path = guard.table.path(names[source], names[target])
    return None if path is None else [guard.states.texts[name] for name in path]


def _update(connection: Connection, watch: Watch, key: tuple[Any, ...], value: Any) -> None:
    # A table of the same name in a MetaData of its own, without guard, onupdate= and version, but with the types.
    columns = [sa.Column(column.name, column.type) for column in (*watch.primary_key, watch.column)]
    twin = sa.Table(watch.table.name, sa.MetaData(), *columns, schema=watch.table.schema)
    *of_key, column = columns
    found = sa.and_(*(each == part for each, part in zip(of_key, key, strict=True)))
    connection.execute(twin.update().where(found).values({column: value}))
