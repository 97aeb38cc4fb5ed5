"""No statement takes longer than what is left of a budget: the database ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.bulk.records import LEASE

_IDLE = f"{round(LEASE.total_seconds())}s"
"""After this time a server ends a transaction in which nothing happens: its process is stopped or cut off."""

_AGAIN = 0.02


@contextmanager
def limited(connection: Connection, seconds: float | None, lock_seconds: float | None) -> Iterator[Limits]:
    """Limit the statements of a transaction that has just begun.

    Args:
        connection: in the transaction.
        seconds: how long a statement may take; None for no limit.
        lock_seconds: how long it may wait for a lock; None for as long as it may take.
    """
    limits = (_OnPostgreSQL if connection.dialect.name == "postgresql" else _OnSQLite)(connection)
    limits.begin(seconds, lock_seconds)
    try:
        yield limits
    finally:
        limits.end()


class Limits:
    """The limits on the statements of a transaction.

    Args:
        connection: in the transaction.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        """Set them."""
        raise NotImplementedError

    def shorten(self, seconds: float | None) -> None:
        """Give what follows less time, because something has taken some."""

    def end(self) -> None:
        """Take them back, where they do not end with the transaction."""


class _OnPostgreSQL(Limits):
    """``SET LOCAL statement_timeout``: it ends with the transaction.

    Not ``transaction_timeout``, which ends the session.
    """

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        self._set(
            statement_timeout="0" if seconds is None else _milliseconds(seconds),
            lock_timeout="0" if lock_seconds is None else _milliseconds(lock_seconds),
            idle_in_transaction_session_timeout=_IDLE,
        )

    def shorten(self, seconds: float | None) -> None:
        if seconds is not None:
            self._set(statement_timeout=_milliseconds(seconds))

    def _set(self, **settings: str) -> None:
        calls = [sa.func.set_config(name, value, True) for name, value in settings.items()]
        self._connection.execute(sa.select(*calls))


class _OnSQLite(Limits):
    """A thread that interrupts the connection, and a shorter time to wait for the file's lock."""

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._patience: int | None = None
        if seconds is None:
            return
        self._patience = self._connection.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0
        self._set_patience(min(self._patience, int(_milliseconds(seconds))))
        driver: Any = self._connection.connection.driver_connection
        driver = getattr(driver, "_conn", driver)  # aiosqlite's own would have to be awaited
        self._thread = threading.Thread(target=self._interrupt, args=(driver, seconds), daemon=True)
        self._thread.start()

    def _interrupt(self, driver: Any, seconds: float) -> None:
        while not self._over.wait(seconds):
            driver.interrupt()
            seconds = _AGAIN  # it may have come between two statements

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()  # it must not interrupt who has the connection next
        if self._patience is not None and not self._connection.closed and not self._connection.invalidated:
            self._set_patience(self._patience)

    def _set_patience(self, milliseconds: int) -> None:
        self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))
