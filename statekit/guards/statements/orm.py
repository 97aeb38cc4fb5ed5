"""Statements of the ORM: objects in the session are right afterwards, and what is one call is one statement.

SQLAlchemy evaluates an ORM-enabled UPDATE on the objects that it takes for matched, and so gives refused ones the new
state too. While such a statement is executed, the keys of the rows that it leaves out are noted here; afterwards the
objects of those rows are expired (in an AsyncSession: loaded again). The same is done for ``bulk_save_objects()``,
whose other objects are told that their state is written: the next flush would take that for somebody else's move.

A bulk INSERT or UPDATE may come as several statements; see :mod:`.whole`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql.base import CompileState
from sqlalchemy.sql.dml import Update

from statekit.errors import IllegalTransition
from statekit.guards.statements.whole import as_a_whole
from statekit.guards.watch import State, watches

Key = tuple[Any, ...]

_noted: ContextVar[LeftOut | None] = ContextVar("statekit_left_out", default=None)


@dataclass(slots=True)
class LeftOut:
    """The rows that a statement leaves out.

    Attributes:
        keys: their primary keys.
        is_async: whether the driver is, so that nothing can be loaded later by itself.
    """

    keys: set[Key] = field(default_factory=set)
    is_async: bool = False


_PLUGINS: Any = (("orm", "update"), ("orm", "insert"))


def install() -> None:
    """Wrap what executes ORM-enabled statements: no event of SQLAlchemy comes after it has changed the objects."""
    for plugin in _PLUGINS:
        _wrap(CompileState.plugins[plugin])
    _wrap_bulk_save()


def is_wanted() -> bool:
    """Return whether the keys of rows that are left out are wanted."""
    return _noted.get() is not None


def note(keys: Iterable[Key], connection: Connection) -> None:
    """Note the primary keys of rows that a statement leaves out, if that is wanted."""
    noted = _noted.get()
    if noted is not None:
        noted.keys.update(keys)
        noted.is_async = connection.dialect.is_async


@contextmanager
def _noting() -> Iterator[LeftOut]:
    noted = LeftOut()
    before = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(before)


def _wrap(plugin: Any) -> None:
    inner = plugin.orm_execute_statement

    def execute(
        cls: Any,
        session: Session,
        statement: Any,
        params: Any,
        execution_options: Any,
        bind_arguments: Any,
        conn: Connection,
    ) -> Any:
        mapper: Any = getattr(statement._propagate_attrs.get("plugin_subject"), "mapper", None)
        several = _comes_as_several(mapper, statement, params)
        try:
            with _noting() as left_out, as_a_whole(conn, mapper.local_table) if several else nullcontext():
                result = inner(session, statement, params, execution_options, bind_arguments, conn)
        except IllegalTransition:
            if several and isinstance(
                statement, Update
            ):  # SQLAlchemy may have changed objects before it was taken back
                names = [prop.key for prop in mapper._identity_key_props]
                keys = {tuple(each.get(name) for name in names) for each in params}
                _put_right(session, mapper, LeftOut(keys, conn.dialect.is_async))
            raise
        if left_out.keys and mapper is not None:  # SQLAlchemy does not evaluate the UPDATE of a table
            _put_right(session, mapper, left_out)
        return result

    plugin.orm_execute_statement = classmethod(execute)


def _comes_as_several(mapper: Any, statement: Any, params: Any) -> bool:
    """Return whether SQLAlchemy executes more than one statement for some sets of parameters of a guarded class."""
    if mapper is None or not isinstance(params, list) or len(params) < 2 or not watches(mapper.class_):
        return False
    if len(mapper.tables) > 1 or mapper.version_id_col is not None or statement._values:
        return True
    # A new row's None is left to the column's default.
    keys = {frozenset(key for key, value in each.items() if value is not None) for each in params}
    return len(keys) > 1


def _put_right(session: Session, mapper: Mapper[Any], left_out: LeftOut) -> None:
    columns = {prop.key for prop in mapper.column_attrs} - {prop.key for prop in mapper._identity_key_props}
    for state in session.identity_map.all_states():
        obj = state.obj()
        if obj is None or state.key is None or not state.mapper.isa(mapper) or tuple(state.key[1]) not in left_out.keys:
            continue
        unmodified = state.unmodified.intersection(columns)
        shown = [name for name in unmodified if name in state.dict or name in state.expired_attributes]
        if shown:
            _expire(session, state, shown, is_async=left_out.is_async)


def _expire(session: Session, state: State, names: list[str], *, is_async: bool) -> None:
    session.expire(state.obj(), names)
    if is_async:
        session.refresh(state.obj(), names)


def _wrap_bulk_save() -> None:
    inner = Session.bulk_save_objects

    @functools.wraps(inner)
    def bulk_save_objects(session: Session, objects: Iterable[object], *args: Any, **kw: Any) -> None:
        objects = list(objects)
        with _noting() as left_out:
            inner(session, objects, *args, **kw)
        for obj in objects:
            state = instance_state(obj)
            for each in watches(state.class_):
                if state.key is not None and each.key in state.committed_state:
                    is_left_out = each.row_key(state) in left_out.keys
                    _was_saved(state, each.key, left_out=is_left_out, is_async=left_out.is_async)

    Session.bulk_save_objects = bulk_save_objects  # type: ignore[assignment]


def _was_saved(state: State, name: str, *, left_out: bool, is_async: bool) -> None:
    if not left_out:
        state._commit(state.dict, [name])
    elif state.session is not None:  # as a flush leaves it out: all that was changed on it is forgotten
        _expire(state.session, state, [prop.key for prop in state.mapper.column_attrs], is_async=is_async)
