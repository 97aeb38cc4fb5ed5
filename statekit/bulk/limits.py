"""No statement takes longer than what is left of a budget: the database ends it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from statekit.bulk.records import LEASE

_AGAIN = 0.02


class Settings(NamedTuple):
    """The limits that a connection has without us, which are never lengthened.

    Attributes:
        statement: milliseconds that a statement may take; 0 for no limit.
        lock: milliseconds that it may wait for a lock.
        idle: milliseconds that a transaction may do nothing.
    """

    statement: int = 0
    lock: int = 0
    idle: int = 0

    @staticmethod
    def of(connection: Connection) -> Settings:
        """Return those of a connection."""
        if connection.dialect.name != "postgresql":
            return Settings()
        query = "SELECT name, setting::int FROM pg_catalog.pg_settings WHERE name IN ('{}', '{}', '{}')"
        found: dict[str, int] = dict(connection.exec_driver_sql(query.format(*_NAMES)).all())
        return Settings(*(found.get(name, 0) for name in _NAMES))


_NAMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@contextmanager
def limited(
    session: Session, connection: Connection, seconds: float | None, lock_seconds: float | None, settings: Settings
) -> Iterator[Limits]:
    """Limit the statements of a transaction that has just begun.

    Args:
        session: which will end the transaction.
        connection: in the transaction.
        seconds: how long a statement may take; None for no limit.
        lock_seconds: how long it may wait for a lock; None for as long as it may take.
        settings: the limits that it has already.
    """
    limits = (_OnPostgreSQL if connection.dialect.name == "postgresql" else _OnSQLite)(session, connection, settings)
    limits.begin(seconds, lock_seconds)
    try:
        yield limits
    except BaseException:
        limits.end(failed=True)
        raise
    limits.end(failed=False)


class Limits:
    """The limits on the statements of a transaction.

    Args:
        session: which will end the transaction.
        connection: in the transaction.
        settings: the limits that it has already.
    """

    def __init__(self, session: Session, connection: Connection, settings: Settings) -> None:
        self._session = session
        self._connection = connection
        self._settings = settings

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        """Set them."""
        raise NotImplementedError

    def shorten(self, seconds: float | None) -> None:
        """Give what follows less time, because something has taken some."""

    def end(self, *, failed: bool) -> None:
        """Take them back, where they do not end with the transaction.

        Args:
            failed: whether an error has come, after which the transaction is rolled back.
        """


class _OnPostgreSQL(Limits):
    """``SET LOCAL statement_timeout``: it ends with the transaction.

    Not ``transaction_timeout``, which ends the session. A transaction in which nothing happens as long as a lease lasts
    is ended all the same: its process is stopped or cut off, and others wait for its rows.
    """

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        self._set(seconds, lock_seconds, LEASE.total_seconds())

    def shorten(self, seconds: float | None) -> None:
        self._set(seconds)

    def end(self, *, failed: bool) -> None:
        if not failed and isinstance(self._session.get_bind(), Connection):  # whose transaction goes on
            self._write({name: f"{limit}ms" for name, limit in zip(_NAMES, self._settings, strict=True)})

    def _set(self, *limits: float | None) -> None:
        wanted = {
            name: str(min(_milliseconds(limit), has or sys.maxsize))
            for name, limit, has in zip(_NAMES, limits, self._settings, strict=False)
            if limit is not None
        }
        if wanted:
            self._write(wanted)

    def _write(self, settings: dict[str, str]) -> None:
        self._connection.execute(sa.select(*(sa.func.set_config(*each, True) for each in settings.items())))


class _OnSQLite(Limits):
    """A thread that interrupts the connection, and a shorter time to wait for the file's lock."""

    def begin(self, seconds: float | None, lock_seconds: float | None) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._patience: int | None = None
        if seconds is None:
            return
        self._patience = self._connection.exec_driver_sql("PRAGMA busy_timeout").scalar() or 0
        self._set_patience(min(self._patience, _milliseconds(seconds)))
        driver: Any = self._connection.connection.driver_connection
        driver = getattr(driver, "_conn", driver)  # aiosqlite's own would have to be awaited
        self._thread = threading.Thread(target=self._interrupt, args=(driver, seconds), daemon=True)
        self._thread.start()

    def _interrupt(self, driver: Any, seconds: float) -> None:
        while not self._over.wait(min(seconds, threading.TIMEOUT_MAX)):
            driver.interrupt()
            seconds = _AGAIN  # it may have come between two statements

    def end(self, *, failed: bool) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()  # it must not interrupt who has the connection next
        if self._patience is None:
            return
        if failed:
            self._restore()
        else:  # the commit may have to wait for readers
            event.listen(self._session, "after_commit", self._restore, once=True)
            event.listen(self._session, "after_rollback", self._restore, once=True)

    def _restore(self, *_: Any) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and not self._connection.closed and not self._connection.invalidated:
            self._set_patience(patience)

    def _set_patience(self, milliseconds: int) -> None:
        self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")


def _milliseconds(seconds: float) -> int:
    return min(max(1, int(seconds * 1000)), 2**31 - 1)
