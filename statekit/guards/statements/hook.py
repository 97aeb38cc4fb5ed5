"""Ring 3, exact reports: an UPDATE or INSERT of a guarded table is asked about before it is executed.

The hook is the method by which SQLAlchemy executes such a statement on a connection. So there is no listener on
engines or connections, and a SELECT pays nothing. What the unit of work writes was judged by ring 1. (A DELETE is
looked at because a listener may make an UPDATE of it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.lambdas import StatementLambdaElement

from statekit.guards import flush, history
from statekit.guards.current import OURS
from statekit.guards.guard import all_guards, guards_of, root_table
from statekit.guards.statements import inserts, listeners, orm, updates
from statekit.guards.statements.execution import Execution, Parameters

_WRAPPED = (Update, Insert, Delete, StatementLambdaElement)

_installed: dict[Any, Any] = {}
_names: frozenset[str] = frozenset()
"""The names of guarded tables: most statements are about others, and are let go by this."""


def install() -> None:
    """Wrap the execution of statements, once, and note the names of guarded tables; called for each guard."""
    global _names
    _names = frozenset(guard.column.table.name for guard in all_guards())
    if not _installed:
        orm.install()
        for construct in _WRAPPED:
            _wrap(construct)


def _wrap(construct: Any) -> None:
    inner = construct._execute_on_connection
    is_plain = construct is not StatementLambdaElement

    def execute(statement: Any, connection: Connection, parameters: Sequence[Parameters], options: Any) -> Any:
        if is_plain and _is_of_another_table(statement, connection):
            return inner(statement, connection, parameters, options)
        if OURS in options or flush.writes(options):
            return inner(statement, connection, parameters, options)
        if not listeners.are_there(connection):
            return _write(_kind(statement), inner, statement, connection, parameters, options)
        changed, parameters = listeners.change(connection, statement, parameters, options)
        inner_of_changed = _installed.get(type(changed), type(changed)._execute_on_connection)

        def without_listeners(*args: Any) -> Any:
            with listeners.not_again(connection):
                return inner_of_changed(*args)

        return _write(_kind(changed), without_listeners, changed, connection, parameters, options)

    construct._execute_on_connection = execute
    _installed[construct] = inner


def _is_of_another_table(statement: Any, connection: Connection) -> bool:
    """Return whether a statement plainly has nothing to do with a guard, as most have: that must be fast."""
    table = statement.table
    return (
        isinstance(table, Table)
        and table.name not in _names
        and not statement._annotations
        and not connection._has_events
        and not connection.engine._has_events
    )


def _write(
    kind: Any, inner: Any, statement: Any, connection: Connection, parameters: Sequence[Parameters], options: Any
) -> Any:
    def run(statement: Any, parameters: Sequence[Parameters]) -> CursorResult[Any]:
        result: CursorResult[Any] = inner(statement, connection, parameters, options)
        return result

    if kind is None:
        return run(statement, parameters)
    execution = Execution(connection, statement, _resolved(statement), parameters, options, run)
    wanted = [guard for each in _tables(execution.resolved) for guard in guards_of(each) if history.is_wanted(guard)]
    if not wanted:
        return kind.write(execution)
    with history.telling([history.Told(connection, wanted, execution.ask)]):
        return kind.write(execution)


def _resolved(statement: Any) -> Any:
    return statement._resolved if isinstance(statement, StatementLambdaElement) else statement


def _kind(statement: Any) -> Any:
    """Return the module that writes a statement, or None if no guard has to do with it."""
    resolved = _resolved(statement)
    if isinstance(resolved, Update):
        kind: Any = updates
    elif isinstance(resolved, Insert):
        kind = inserts
    else:
        return None
    return kind if any(map(_is_guarded, _tables(resolved))) else None


def _tables(statement: Any) -> list[Any]:
    """Return the tables that a statement may be about: one of several, where a class is mapped to several."""
    emitted = [statement._annotations[key] for key in _EMITTED if key in statement._annotations]
    return emitted or [statement.table]


_EMITTED = ("_emit_update_table", "_emit_insert_table")


def _is_guarded(target: Any) -> bool:
    name = getattr(root_table(target), "name", None)
    return (name is None or name in _names) and bool(guards_of(target))
