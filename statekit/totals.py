"""The blocked moves, summed over whoever counts them: this process, and the triggers of a database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from statekit.errors import Pair, StatekitError
from statekit.observe import counts as process

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import QueryableAttribute, Session


def counts(
    attribute: QueryableAttribute[Any] | sa.ColumnElement[Any] | None = None,
    bind: sa.Engine | sa.Connection | Session | None = None,
) -> Counter[Pair]:
    """Return how often each illegal move was blocked in this process; with ``bind``, also by the database's triggers.

    A blocked move is one refused row named in one error, or skipped once; a retry is a new attempt. It is counted when
    it happens, and a rollback does not take it back. What a trigger has refused is counted in the database only,
    whoever tried it, so that nothing is counted twice.

    Args:
        attribute: a guarded attribute or column, such as ``Message.status``; None for the sum over all guards, and
            all triggers of the database.
        bind: an engine, connection or session. Triggers count on PostgreSQL; on SQLite they cannot, and this process
            counts what it was refused. In an async application: ``await connection.run_sync(lambda c: counts(a, c))``.

    Returns:
        Number of rows by (source, target), each the text that the database stores: None for NULL, and a source of None
        for a new row. ``("*", "*")`` is the database's counter for moves from or to what is no state of the table, and
        ``(None, "*")`` that for new rows in one. It is a copy: changing it changes nothing else.

    Raises:
        StatekitError: the attribute has no guard; the bind is none; or its role may not read what triggers have counted
            (then nothing is taken for 0).
    """
    if isinstance(attribute, type):
        raise StatekitError(f"An attribute is asked for, such as {attribute.__name__}.status, and that is a class.")
    guard = None
    if attribute is not None:
        from statekit.guards.attach import guard_on

        guard = guard_on(attribute)
        if guard is None:
            raise StatekitError(f"{attribute} has no guard, so that nothing was counted for it.")
    total = process.total(None if guard is None else guard.subject)
    if bind is not None:
        total += _by_triggers(guard, bind)
    return total


def _by_triggers(guard: Any, bind: Any) -> Counter[Pair]:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from statekit.trigger.catalog import blocked
    from statekit.trigger.spec import StateTrigger

    def asked(connection: sa.Connection) -> Counter[Pair]:
        if guard is None:
            return blocked(connection)
        table = guard.column.table
        trigger = StateTrigger.of(guard.column).on(table.name, connection.schema_for_object(table))
        return blocked(connection, [trigger])

    if isinstance(bind, Session):
        bind = bind.connection()
    if isinstance(bind, sa.Connection):
        return asked(bind)
    if isinstance(bind, sa.Engine):
        with bind.connect() as connection:
            return asked(connection)
    raise StatekitError(
        f"bind={bind!r}; allowed is an Engine, a Connection or a Session. Of an async engine, use "
        "await connection.run_sync(lambda c: counts(attribute, c))."
    )
