"""What waits for the end of a connection's outermost transaction, however that ends.

SQLAlchemy's events for a commit and a rollback come before the database has done either, and there is none for a
transaction that ends with its connection. So what is wrapped is the one place that every end leads to: it costs a look
into a dictionary each. It is done by the first ledger, never by an import.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from sqlalchemy.engine import Connection, RootTransaction

_WAITING = "_statekit_waiting_for_end"

_is_installed = False


class Waiting(Protocol):
    """What waits."""

    def ended(self) -> None:
        """Be told that the transaction has ended; must not raise."""

    def abandoned(self) -> None:
        """Be told that the connection is gone and nobody ended its transaction; called by a garbage collection."""


def install() -> None:
    """Wrap the end of transactions, once."""
    global _is_installed
    if _is_installed:
        return
    inner = RootTransaction._deactivate_from_connection

    def deactivate(transaction: RootTransaction) -> None:
        inner(transaction)
        known = transaction.connection.__dict__.pop(_WAITING, None)
        if known is not None:
            waiting, finalizer = known
            finalizer.detach()
            waiting.ended()

    RootTransaction._deactivate_from_connection = deactivate  # type: ignore[method-assign, assignment]
    _is_installed = True


def waiting_on(connection: Connection) -> Waiting | None:
    """Return what waits for the end of the transaction that a connection is in, or None."""
    found: Waiting | None
    found, _ = connection.__dict__.get(_WAITING, (None, None))
    return found


def wait(connection: Connection, waiting: Waiting) -> None:
    """Have something told when the transaction that a connection is in has ended."""
    finalizer = weakref.finalize(connection, waiting.abandoned)
    finalizer.atexit = False
    connection.__dict__[_WAITING] = waiting, finalizer
