"""Connections of the ledger's own, and the one short transaction in which a batch is written.

A ledger never takes a connection from the application's pool, which may be empty, and never uses the one that a
transaction has just failed on. It makes its own with what the engine makes its connections with, so that they get the
same options and the same listeners to "connect".
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool
from sqlalchemy.util.concurrency import in_greenlet

from statekit.ledger.entries import Batch

_LIMITS = "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '5s', true)"
_BUSY = 500
"""How many milliseconds a write to SQLite waits for others."""
_RECYCLE = 600


class Unsure(Exception):
    """A COMMIT was not answered, so that the batch may be written, or not."""


class NotNow(Exception):
    """There is no way to write from here; it has to be done later."""


def inserted(table: sa.Table, dialect: str) -> Any:
    """Return the INSERT for the rows of a batch, which leaves out those that are there already."""
    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[dialect]
    return insert(table).on_conflict_do_nothing(index_elements=["batch", "line"])


def _write(connection: Connection, table: sa.Table, batch: Batch) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_LIMITS)
    connection.execute(inserted(table, connection.dialect.name), batch.rows())
    with _unsure():
        connection.commit()


@contextmanager
def _unsure() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Unsure from error


class Server:
    """A database that a process talks to over a network, such as PostgreSQL.

    Args:
        engine: of the application.
        is_down: whether the last attempt has failed. Who has waited for the connection meanwhile need not find out too.
    """

    def __init__(self, engine: Engine, is_down: Callable[[], bool]) -> None:
        self._engine = engine
        self._is_down = is_down
        self.is_async = engine.dialect.is_async
        self._making = threading.Lock()
        self._own: Engine | None = None
        self._by_loop: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()

    def write(self, table: sa.Table, batch: Batch) -> None:
        """Write a batch, in the thread and event loop that calls.

        Raises:
            Unsure: the COMMIT was not answered.
            NotNow: the driver is for asyncio, and this is no place to await anything; or another attempt has failed.
            Exception: whatever the driver says; nothing is written then.
        """
        was_down = self._is_down()
        with self._here().connect() as connection:
            if self._is_down() and not was_down:
                raise NotNow
            _write(connection, table, batch)

    def write_apart(self, table: sa.Table, batch: Batch) -> None:
        """Write a batch in a thread in which no event loop runs, or at the end of the process. It raises the same."""
        if not self.is_async:
            self.write(table, batch)
            return

        from sqlalchemy.ext.asyncio import AsyncEngine

        async def run() -> None:
            engine = AsyncEngine(self._made(NullPool))
            async with engine.connect() as connection:
                await connection.run_sync(_write, table, batch)

        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(run())

    def forget(self) -> None:
        """Let go of the connections without closing them: they belong to the process that this one is a fork of."""
        for engine in (self._own, *self._by_loop.values()):
            if engine is not None:
                engine.dispose(close=False)
        self._own, self._by_loop, self._making = None, WeakKeyDictionary(), threading.Lock()

    def close(self) -> None:
        """Close the connections, as far as that can be done from here."""
        engines = [self._own] if not self.is_async else [self._by_loop.get(_loop())] if in_greenlet() else []
        for engine in engines:
            if engine is not None:
                engine.dispose()

    def _here(self) -> Engine:
        if not self.is_async:
            with self._making:
                if self._own is None:
                    self._own = self._made(QueuePool, pool_size=1, max_overflow=0, timeout=5, recycle=_RECYCLE)
                return self._own
        if not in_greenlet():
            raise NotNow
        loop = _loop()
        for each in [each for each in self._by_loop if each.is_closed()]:  # a driver's connection keeps its loop alive
            del self._by_loop[each]
        if loop not in self._by_loop:
            self._by_loop[loop] = (
                self._made(NullPool)  # as the application: its loops come and go
                if isinstance(self._engine.pool, NullPool)
                else self._made(AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, timeout=5, recycle=_RECYCLE)
            )
        return self._by_loop[loop]

    def _made(self, pool: Any, **options: Any) -> Engine:
        known = self._engine.pool
        if pool is not NullPool:
            options["pre_ping"] = True
        made = pool(known._creator, dialect=self._engine.dialect, _dispatch=known.dispatch, **options)
        engine = Engine(made, self._engine.dialect, self._engine.url)
        # Whatever the application's is: in AUTOCOMMIT, nobody would know what an error has left behind.
        return engine.execution_options(isolation_level="READ COMMITTED")


def _loop() -> Any:
    return asyncio.get_running_loop()


def is_in_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    try:
        _loop()
    except RuntimeError:
        return False
    return True


class _Loop(asyncio.SelectorEventLoop):
    """A loop for one write at the end of the process, when Python starts no thread to look up a host any more."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)


class SQLiteFile:
    """A file of SQLite, which is written while no connection of the engine's is in use; see :mod:`.usage`."""

    def __init__(self, engine: Engine) -> None:
        pool: Any = engine.pool
        if engine.dialect.is_async:  # Python's own driver writes the same file, and needs no event loop
            self._own = sa.create_engine(engine.url.set(drivername="sqlite"), poolclass=NullPool)
        else:
            own = NullPool(pool._creator, dialect=engine.dialect, _dispatch=pool.dispatch)
            self._own = Engine(own, engine.dialect, engine.url)
        self._own = self._own.execution_options(isolation_level="AUTOCOMMIT")

    def write(self, table: sa.Table, batch: Batch) -> None:
        """Write a batch; see :meth:`Server.write`."""
        with self._own.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                connection.execute(inserted(table, "sqlite"), batch.rows())
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # After most errors the transaction is still there; a full disk has ended it, and that is the error.
                with suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                raise

    write_apart = write

    def forget(self) -> None:
        """Let go of what a fork has inherited, which is nothing."""

    close = forget


_returned: ContextVar[Any] = ContextVar("statekit_ledger_returned", default=None)


class SQLiteMemory:
    """A database in memory: only the application's own connection leads there, which is used once it is back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def visit(self) -> None:
        """Take a connection and give it back, when entries are written."""
        if not self._engine.dialect.is_async or in_greenlet():
            self._engine.connect().close()

    @contextmanager
    def through(self, dbapi_connection: Any) -> Iterator[None]:
        """Write through a connection that is just being given back."""
        before = _returned.set(dbapi_connection)
        try:
            yield
        finally:
            _returned.reset(before)

    def write(self, table: sa.Table, batch: Batch) -> None:
        """Write a batch; see :meth:`Server.write`."""
        dbapi_connection = _returned.get()
        if dbapi_connection is None or (self._engine.dialect.is_async and not in_greenlet()):
            raise NotNow
        pool = StaticPool(lambda: dbapi_connection, dialect=self._engine.dialect)
        with Engine(pool, self._engine.dialect, self._engine.url).connect() as connection:
            _write(connection, table, batch)
            if self._engine.dialect.is_async:
                # All tasks share the one connection, and another one may have rolled back between two steps of ours.
                rows = sa.select(sa.func.count()).where(table.c.batch == batch.id)
                if connection.execute(rows).scalar() != len(batch.entries):
                    raise NotNow

    write_apart = write

    def forget(self) -> None:
        """Let go of what a fork has inherited, which is nothing."""

    close = forget


Store = Server | SQLiteFile | SQLiteMemory


def store_for(engine: Engine, is_down: Callable[[], bool]) -> Store:
    """Return how the ledger of an engine is written; the arguments are those of :class:`Server`."""
    if engine.dialect.name != "sqlite":
        return Server(engine, is_down)
    name = engine.url.database
    in_memory = not name or name == ":memory:" or "mode=memory" in str(engine.url)
    return SQLiteMemory(engine) if in_memory or isinstance(engine.pool, StaticPool) else SQLiteFile(engine)
