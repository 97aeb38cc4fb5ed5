"""The blocked moves, summed over whoever counts them: this process, the ledger, and the triggers of a database."""

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
    """Return how often each illegal move was blocked in this process; with ``bind``, in all of them and by triggers.

    A blocked move is one refused row named in one error, or skipped once; a retry is a new attempt. It is counted when
    it happens, and a rollback does not take it back. With ``bind`` it is the sum of the database's ledger, what waits
    to be written to it here, what this process has blocked without a ledger, and what triggers have counted: those
    count in the database only, whoever tried it, so that nothing is counted twice.

    Args:
        attribute: a guarded attribute or column, such as ``Message.status``; None for the sum over all guards, and
            all triggers of the database.
        bind: an engine, connection or session. Without a ledger, what other processes have blocked is not known.
            Triggers count on PostgreSQL; on SQLite they cannot, and this process counts what it was refused. In an
            async application: ``await connection.run_sync(lambda c: counts(a, c))``.

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
    subject = None if guard is None else guard.subject
    return process.total(subject) if bind is None else process.only_here(subject) + _in_database(guard, bind)


def _by_triggers(guard: Any, connection: sa.Connection) -> Counter[Pair]:
    from statekit.trigger.catalog import blocked
    from statekit.trigger.spec import StateTrigger

    if guard is None:
        return blocked(connection)
    table = guard.column.table
    trigger = StateTrigger.of(guard.column).on(table.name, connection.schema_for_object(table))
    return blocked(connection, [trigger])


def _in_ledger(guard: Any, connection: sa.Connection) -> Counter[Pair]:
    from statekit.ledger import queries
    from statekit.ledger.attaching import writer_of

    writer = writer_of(connection)
    schema = None if writer is None else writer.table.schema
    table, attribute = (None, None) if guard is None else (guard.column.table.fullname, guard.attribute)
    there = queries.exists(connection, schema)
    while True:
        number = writer.number_written if writer is not None else 0
        waiting, batches = (Counter[Pair](), []) if writer is None else writer.waiting_blocked(table, attribute)
        if not there:
            return waiting
        found = queries.moves(connection, "blocked", table=table, attribute=attribute, schema=schema, without=batches)
        if writer is None or writer.number_written == number:  # else what has waited may be in both
            return found + waiting


def _in_database(guard: Any, bind: Any) -> Counter[Pair]:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    def asked(connection: sa.Connection) -> Counter[Pair]:
        return _by_triggers(guard, connection) + _in_ledger(guard, connection)

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
