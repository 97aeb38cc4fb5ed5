"""What a database's trigger refuses arrives as the guard's own error, whatever statement it was, text included."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.dml import UpdateBase

from statekit.errors import IllegalTransition, StatekitError
from statekit.guards.guard import Guard, all_guards, guards_of
from statekit.guards.hints import hint_for
from statekit.observe import log
from statekit.observe.hook import publish, tell_keepers
from statekit.trigger.dialects import is_supported
from statekit.trigger.refusal import Refusal, refusal_in, trigger_in_the_way
from statekit.trigger.spec import StateTrigger

_is_installed = False


def install() -> None:
    """Listen to the errors of every engine, once; an error is the only time that anything is called."""
    global _is_installed
    if not _is_installed:
        event.listen(Engine, "handle_error", _translate)
        _is_installed = True


def _translate(context: ExceptionContext) -> StatekitError | None:
    """Return the error to raise instead, or None. It never raises: that would silence the listeners after it."""
    if not is_supported(context.dialect):
        return None
    refusal = refusal_in(context.original_exception)
    if refusal is None:
        return _in_the_way(context.original_exception)
    guard = _guard_behind(refusal, context)
    error = _error(refusal, guard)
    error.counted_in_database = refusal.counted
    if guard is not None:
        move = guard.move(
            "blocked", (refusal.source, refusal.target), [error.identity], new=refusal.new, mode="raise"
        )  # fmt: skip
        on = context.connection if context.connection is not None else context.engine
        if refusal.counted:
            log.write([move])  # counted where it was refused, and nowhere else
            tell_keepers([replace(move, kind="trigger")], on)
        else:
            publish([move], on)
    return error


def _in_the_way(error: BaseException) -> StatekitError | None:
    name = trigger_in_the_way(error)
    if name is None:
        return None
    guard = next((each for each in all_guards() if _name_of(each) == name), None)
    place = '"…", "…"'
    if guard is not None:
        schema = guard.column.table.schema
        place = f'"{guard.column.table.name}", "{guard.column.name}"' + (f', schema="{schema}"' if schema else "")
    return StatekitError(
        f"The state trigger {name} depends on the column, so that PostgreSQL neither drops it nor changes its type. In "
        f"the migration, write op.drop_state_trigger({place}, …) before that, and "
        f"op.create_state_trigger({place}, …) after it if the column stays; autogenerate writes both. "
        "What the trigger has counted goes with it."
    )


def _guard_behind(refusal: Refusal, context: ExceptionContext) -> Guard | None:
    """Return the guard of the column that a trigger holds.

    A statement that SQLAlchemy has compiled names its table. For text, it has to be found by what the trigger says: a
    process may have several models of one table's name, for several databases. Of those the one is taken that has the
    same key and the same rule, else the latest. In another schema than the declared one, the table is a copy, or a
    tenant's.
    """
    statement = getattr(getattr(context.execution_context, "compiled", None), "statement", None)
    of_statement = guards_of(statement.table) if isinstance(statement, UpdateBase) else []
    return _fitting(refusal, of_statement) or _fitting(refusal, all_guards())


def _fitting(refusal: Refusal, guards: list[Guard]) -> Guard | None:
    key = None if refusal.key is None else {name for name, _ in refusal.key}
    fitting = [
        guard
        for guard in reversed(guards)
        if key is None or key == {column.name for column in guard.column.table.primary_key}
    ]
    named = [guard for guard in fitting if _name_of(guard) == refusal.trigger] or [
        guard for guard in fitting if (guard.column.table.name, guard.column.name) == (refusal.table, refusal.column)
    ]
    allowed = set(refusal.allowed)
    like = [guard for guard in named if set(guard.allowed(refusal.source, new=refusal.new)) == allowed]
    return next(iter(like or named), None)


_names: WeakKeyDictionary[Guard, str] = WeakKeyDictionary()


def _name_of(guard: Guard) -> str:
    """Return the name of the trigger that a guard declares; found once, as a refusal asks every guard."""
    if guard not in _names:
        _names[guard] = StateTrigger.of(guard.column).name
    return _names[guard]


def _error(refusal: Refusal, guard: Guard | None) -> IllegalTransition:
    if guard is None:  # the database holds a table that no model of this process is guarded for
        return IllegalTransition(
            model=refusal.table or refusal.trigger,
            attribute=refusal.column or "state",
            identity=None if refusal.key is None else tuple(value for _, value in refusal.key),
            source=refusal.source,
            target=refusal.target,
            allowed=refusal.allowed,
            new=refusal.new,
            key_names=tuple(name for name, _ in refusal.key or ()),
        )
    columns = list(guard.column.table.primary_key)
    pair = (refusal.source, refusal.target)
    identity = None
    if refusal.key is not None:
        key = dict(refusal.key)
        identity = tuple(_value(column, key[column.name]) for column in columns)
    return IllegalTransition(
        model=guard.model,
        attribute=guard.attribute,
        identity=identity,
        source=refusal.source,
        target=refusal.target,
        allowed=refusal.allowed,
        new=refusal.new,
        hint="" if refusal.target == "*" else hint_for(guard, pair, new=refusal.new, by_trigger=True),
        key_names=tuple(column.key for column in columns),
    )


_FROM_JSON: dict[type, Callable[[Any], Any]] = {
    uuid.UUID: uuid.UUID,
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    Decimal: lambda value: Decimal(str(value)),
    bytes: lambda value: bytes.fromhex(value.removeprefix("\\x")),
}


def _value(column: sa.Column[Any], value: Any) -> Any:
    """Return a part of a primary key as the model has it; as the database has sent it where that is not known."""
    try:
        if isinstance(column.type, sa.Enum):
            dialect = DefaultDialect()
            read = column.type.dialect_impl(dialect).result_processor(dialect, None)
            return read(value) if read is not None else value
        python_type = column.type.python_type
        return _FROM_JSON[python_type](value) if python_type in _FROM_JSON else value
    except (ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError):
        return value
