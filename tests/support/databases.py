"""Engines on fresh databases, one family of databases a test, on every driver that statekit is tested with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from tests.support.postgres import Server, installed

T = TypeVar("T")

SYNC_BACKENDS = ("sqlite", "psycopg", "psycopg2")
"""Ids of the fixture ``engine``."""

ASYNC_BACKENDS = ("aiosqlite", "asyncpg", "psycopg_async")
"""Ids of the fixture ``async_engine``."""

POSTGRESQL_BACKENDS = ("psycopg", "psycopg2")
POSTGRESQL_ASYNC_BACKENDS = ("asyncpg", "psycopg_async")

_DRIVERS = {
    # backend: (drivername of the URL, module that must be installed)
    "sqlite": ("sqlite+pysqlite", "sqlite3"),
    "memory": ("sqlite+pysqlite", "sqlite3"),
    "aiosqlite": ("sqlite+aiosqlite", "aiosqlite"),
    "psycopg": ("postgresql+psycopg", "psycopg"),
    "psycopg2": ("postgresql+psycopg2", "psycopg2"),
    "asyncpg": ("postgresql+asyncpg", "asyncpg"),
    "psycopg_async": ("postgresql+psycopg_async", "psycopg"),
}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run an async test's body in an event loop of its own, which ends with it."""
    return asyncio.run(coroutine)


def missing_driver(backend: str) -> str | None:
    """Return why a backend cannot be used here, or None where it can."""
    module = _DRIVERS[backend][1]
    return None if installed(module) else f"{backend}: the package {module} is not installed"


def is_postgresql(backend: str) -> bool:
    """Return whether a backend talks to PostgreSQL."""
    return _DRIVERS[backend][0].startswith("postgresql")


class Databases:
    """The databases of one test: at most one SQLite file and one PostgreSQL database, made when first asked for.

    All engines of one family see the same database, so a test can read through one driver what another has written.
    Everything is disposed of and dropped when the test ends.
    """

    def __init__(self, folder: Path, server: Callable[[], Server]) -> None:
        self._folder = folder
        self._server = server
        self._postgres: sa.URL | None = None
        self._engines: list[sa.Engine] = []

    def url(self, backend: str) -> sa.URL:
        """Return the URL of this test's database for a backend, driver included."""
        drivername = _DRIVERS[backend][0]
        if backend == "memory":
            return sa.URL.create(drivername)
        if not is_postgresql(backend):
            return sa.URL.create(drivername, database=str(self._folder / "test.sqlite"))
        if self._postgres is None:
            self._postgres = self._server().create_database()
        return self._postgres.set(drivername=drivername)

    def engine(self, backend: str, **options: Any) -> sa.Engine:
        """Return a new engine for ``"sqlite"`` (a file), ``"memory"`` (SQLite), ``"psycopg"`` or ``"psycopg2"``.

        Options are those of ``create_engine``. The pool is SQLAlchemy's default for the backend.
        """
        if backend == "memory":
            # One connection, so that every session and thread sees the same database.
            options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}} | options
        return self._keep(sa.create_engine(self.url(backend), **_patient(backend, options)))

    def async_engine(self, backend: str, **options: Any) -> AsyncEngine:
        """Return a new engine for ``"aiosqlite"``, ``"asyncpg"`` or ``"psycopg_async"``.

        It keeps no connections (NullPool), because each call of :func:`run` has a loop of its own. A test that passes
        another ``poolclass`` awaits ``engine.dispose()`` itself.
        """
        engine = create_async_engine(self.url(backend), **_patient(backend, {"poolclass": NullPool} | options))
        self._keep(engine.sync_engine, dispose=False)
        return engine

    def close(self) -> None:
        """Close every engine and drop the databases."""
        while self._engines:
            self._engines.pop().dispose()
        if self._postgres is not None:
            self._server().discard_database(self._postgres)
            self._postgres = None
        for path in self._folder.glob("test.sqlite*"):
            path.unlink()

    def _keep(self, engine: sa.Engine, dispose: bool = True) -> sa.Engine:
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _do_not_wait_for_the_disk)
        if dispose:
            self._engines.append(engine)
        return engine


def _patient(backend: str, options: dict[str, Any]) -> dict[str, Any]:
    """Let a writer of a SQLite file wait for another one for 30 seconds, as races on slow machines need."""
    if is_postgresql(backend):
        return options
    return options | {"connect_args": {"timeout": 30} | options.get("connect_args", {})}


def _do_not_wait_for_the_disk(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


def execute(engine: sa.Engine, *statements: str) -> None:
    """Execute statements in one transaction, as text that no part of statekit has seen."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def empty(engine: sa.Engine) -> None:
    """Remove everything from a test's database, so that the examples of one Hypothesis test can share it.

    For a test with an async engine, pass a sync one of the same ``databases``. About 5 ms on PostgreSQL; where the
    tables stay the same from example to example, deleting their rows is faster.
    """
    engine.dispose()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")  # somebody's open transaction is an error
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
            return
        named = "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        for kind, name in connection.exec_driver_sql(named).all():
            connection.exec_driver_sql(f'DROP {kind} "{name}"')


all_sync_backends = pytest.mark.parametrize("engine", SYNC_BACKENDS, indirect=True)
all_async_backends = pytest.mark.parametrize("async_engine", ASYNC_BACKENDS, indirect=True)
on_postgresql = pytest.mark.parametrize("engine", POSTGRESQL_BACKENDS, indirect=True)
"""Decorator for a test whose ``engine`` is PostgreSQL only."""
on_postgresql_async = pytest.mark.parametrize("async_engine", POSTGRESQL_ASYNC_BACKENDS, indirect=True)
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
"""Decorator for a test whose ``engine`` is SQLite only."""
