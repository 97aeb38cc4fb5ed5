"""Moves that are told once their transaction has really committed, and forgotten if it is rolled back.

SQLAlchemy's own event for a commit comes before the database has committed, and a session's before its connection is
given back. So what is wrapped is the end of a connection's outermost transaction, which every way of committing leads
to: sessions, plain connections, two phases, async. It is done by the first :func:`statekit.on_commit`, never by an
import. From then on each transaction of the process pays for a look into a dictionary, and a session's for two calls.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, RootTransaction, TwoPhaseTransaction
from sqlalchemy.orm import Session, SessionTransaction

from statekit.guards.guard import Guard
from statekit.observe.move import Move
from statekit.table.callbacks import is_unawaited

Told = Callable[[], object]
"""A call that is to be made: a callback with its move."""

_lock = threading.Lock()
_guards: WeakValueDictionary[Hashable, Guard] = WeakValueDictionary()
"""The guards whose moves are told, by what a move says of its guard."""


@dataclass
class _Noted:
    """What was noted in one outermost transaction of a connection.

    Attributes:
        transaction: the transaction.
        calls: in the order of the moves.
        savepoints: how many calls there were when each savepoint was set.
    """

    transaction: Any
    calls: list[Told] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)


# What is known of a connection and of a session's transaction is kept with them, so that it goes when they go.
_NOTED = "_statekit_noted"
_SESSION = "_statekit_session"
_WAITING = "_statekit_waiting"

_PQTRANS_INERROR = 3


def register(guard: Guard, calls_for: Callable[[Move], Iterable[Told]]) -> None:
    """Have the moves of a guard told.

    Args:
        guard: the guard, which keeps what is called: a function may hold its class, which is to go when it goes.
        calls_for: returns the calls to make for a move.
    """
    with _lock:
        _install()
        guard.told = (*guard.told, calls_for)
        _guards[guard.subject] = guard


def note(connection: Connection, moves: Iterable[Move]) -> None:
    """Note moves that were just written on a connection.

    Args:
        moves: of any kinds and guards; what nobody asked for is left out.
    """
    calls = [
        call
        for move in moves
        if move.kind != "blocked" and not move.new
        for calls_for in getattr(_guards.get(move.subject), "told", ())
        for call in calls_for(move)
    ]
    if not calls:
        return
    if connection._is_autocommit_isolation() and not connection.in_nested_transaction():  # it is committed already
        session_transaction = _session_transaction(connection)
        if session_transaction is not None:  # which is flushing, and may hold the only connection of the pool
            _tell_later(session_transaction, calls)
        else:
            _tell(calls)
        return
    transaction = connection.get_transaction()
    noted = _noted_on(connection)
    if noted is None or noted.transaction is not transaction:
        noted = connection.__dict__[_NOTED] = _Noted(transaction)
    noted.calls += calls


def _noted_on(connection: Connection) -> _Noted | None:
    return connection.__dict__.get(_NOTED)


_is_installed = False


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _wrap_commit()
    _wrap_savepoints()
    event.listen(Session, "after_begin", _remember_session)
    event.listen(Session, "after_transaction_end", _tell_at_end)
    _is_installed = True


def _wrap_commit() -> None:
    inner = RootTransaction._do_commit

    def do_commit(transaction: RootTransaction) -> None:
        connection = transaction.connection
        inner(transaction)
        noted: _Noted | None = connection.__dict__.pop(_NOTED, None)
        if noted is not None and noted.transaction is transaction:
            _tell_after_session(connection, noted.calls)

    RootTransaction._do_commit = do_commit  # type: ignore[method-assign, assignment]
    for class_ in (RootTransaction, TwoPhaseTransaction):
        _wrap_what_commits(class_)


def _wrap_what_commits(class_: type[RootTransaction]) -> None:
    inner = class_._connection_commit_impl

    def commit(transaction: RootTransaction) -> None:
        noted = _noted_on(transaction.connection)
        # Here, where SQLAlchemy ends the transaction whatever is raised: this may be cancelled while it asks.
        if noted is not None and noted.calls and _is_aborted(transaction.connection, transaction):
            del transaction.connection.__dict__[_NOTED]
        inner(transaction)

    class_._connection_commit_impl = commit  # type: ignore[method-assign, assignment]


def _is_aborted(connection: Connection, transaction: RootTransaction) -> bool:
    """Return whether a COMMIT will be a ROLLBACK.

    PostgreSQL answers so, without an error, where an earlier statement has failed and the program went on.
    """
    if connection.dialect.name != "postgresql" or getattr(transaction, "_is_prepared", False):
        return False
    driver: Any = connection.connection.driver_connection
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if status is not None:  # psycopg, psycopg2
        return int(status) == _PQTRANS_INERROR
    cursor = connection.connection.cursor()
    try:
        cursor.execute("SELECT 1")
    except connection.dialect.loaded_dbapi.Error:
        return True
    finally:
        cursor.close()
    return False


def _wrap_savepoints() -> None:
    set_savepoint, roll_back = Connection._savepoint_impl, Connection._rollback_to_savepoint_impl

    def savepoint(connection: Connection, name: str | None = None) -> str:
        name = set_savepoint(connection, name)
        noted = _noted_on(connection)
        if noted is not None:
            noted.savepoints[name] = len(noted.calls)
        return name

    def rollback_to_savepoint(connection: Connection, name: str) -> None:
        noted = _noted_on(connection)
        if noted is not None:  # one that is not known was set before the first move
            del noted.calls[noted.savepoints.get(name, 0) :]
        roll_back(connection, name)

    Connection._savepoint_impl = savepoint  # type: ignore[method-assign, assignment]
    Connection._rollback_to_savepoint_impl = rollback_to_savepoint  # type: ignore[method-assign, assignment]


def _remember_session(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    # Weakly, because the transaction holds the connection.
    connection.__dict__[_SESSION] = weakref.ref(_outermost(transaction))


def _outermost(transaction: SessionTransaction) -> SessionTransaction:
    while transaction.parent is not None:
        transaction = transaction.parent
    return transaction


def _session_transaction(connection: Connection) -> SessionTransaction | None:
    """Return the outermost transaction of the session that uses a connection now."""
    known: weakref.ref[SessionTransaction] | None = connection.__dict__.get(_SESSION)
    transaction = known() if known is not None else None
    current = transaction.session._transaction if transaction is not None else None
    return transaction if current is not None and _outermost(current) is transaction else None


def _tell_after_session(connection: Connection, calls: list[Told]) -> None:
    """Make calls now, or once the session that is committing has given its connection back."""
    transaction = _session_transaction(connection)
    if transaction is not None:
        _, _, should_commit, _ = transaction._connections.get(connection, (None, None, False, None))
        if should_commit:
            _tell_later(transaction, calls)
            return
    _tell(calls)


def _tell_later(transaction: SessionTransaction, calls: list[Told]) -> None:
    transaction.__dict__.setdefault(_WAITING, []).extend(calls)


def _tell_at_end(session: Session, transaction: SessionTransaction) -> None:
    _tell(transaction.__dict__.pop(_WAITING, []))


def _tell(calls: list[Told]) -> None:
    for number, call in enumerate(calls, 1):
        try:
            if is_unawaited(call()):
                raise TypeError("it has returned a coroutine, and a commit awaits nothing: let it begin a task")
        except Exception:
            logging.getLogger("statekit").exception("%s failed; the move is committed", call)
        except BaseException:  # to stop is not to forget the others
            _tell(calls[number:])
            raise
