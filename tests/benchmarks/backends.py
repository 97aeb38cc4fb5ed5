"""The databases, filled, on the drivers that the tests have too."""

from __future__ import annotations

import asyncio
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.benchmarks.models import Models, fill
from tests.support.databases import ASYNC_BACKENDS, Databases, is_postgresql, missing_driver
from tests.support.postgres import Server, Unavailable

ALL = ("sqlite", "psycopg", "psycopg2", "asyncpg", "aiosqlite")


class Backend:
    """One driver's engine on filled tables; it keeps one connection, as a busy application's pool does."""

    def __init__(self, name: str, engine: sa.Engine | AsyncEngine, runner: asyncio.Runner, vacuum: Any) -> None:
        self.name = name
        self.engine = engine
        self._runner = runner
        self._vacuum = vacuum

    def call(self, work: Callable[[Session], float]) -> float:
        """Return what the work returns, which is given a session; what it wrote is rolled back."""
        if isinstance(self.engine, sa.Engine):
            with Session(self.engine) as session:
                return work(session)
        return self._runner.run(self._call(self.engine, work))

    @staticmethod
    async def _call(engine: AsyncEngine, work: Callable[[Session], float]) -> float:
        async with AsyncSession(engine) as session:
            return await session.run_sync(work)

    @contextmanager
    def beside(self) -> Iterator[Backend]:
        """Return another engine on the same database."""
        if isinstance(self.engine, sa.Engine):
            engine = sa.create_engine(self.engine.url)
            yield Backend(self.name, engine, self._runner, self._vacuum)
            engine.dispose()
            return
        async_engine = create_async_engine(self.engine.url, poolclass=AsyncAdaptedQueuePool)
        yield Backend(self.name, async_engine, self._runner, self._vacuum)
        self._runner.run(async_engine.dispose())

    def sweep(self) -> None:
        """Remove what rolled back flushes left behind, so that the last round finds what the first one found."""
        if self._vacuum is not None:
            with self._vacuum.connect() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")


class Backends:
    """The backends of a run, each made when it is first asked for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="statekit-bench-")
        self._server: Server | None = None
        self._databases = Databases(Path(self._folder.name), self._start)
        self._runner = asyncio.Runner()
        self._made: dict[str, Backend] = {}
        self._owners: dict[str, sa.Engine] = {}
        self._prepared: list[Any] = []
        self._models: Models | None = None

    @property
    def models(self) -> Models:
        """The classes; the first look at them puts statekit's hooks into this process."""
        if self._models is None:
            self._models = Models()
        return self._models

    def _start(self) -> Server:
        if self._server is None:
            self._server = Server.start()
        return self._server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for backend in self._made.values():
            if isinstance(backend.engine, AsyncEngine):
                self._runner.run(backend.engine.dispose())
        self._runner.close()
        self._databases.close()
        if self._server is not None:
            self._server.stop()
        self._folder.cleanup()

    def get(self, name: str) -> Backend | str:
        """Return a backend, or why there is none here."""
        missing = missing_driver(name)
        if missing is not None:
            return missing
        if name not in self._made:
            try:
                owner = self._owner("psycopg" if is_postgresql(name) else "sqlite")
            except Unavailable as error:
                return f"{name}: {error}"
            engine: sa.Engine | AsyncEngine
            if name in ASYNC_BACKENDS:
                engine = self._databases.async_engine(name, poolclass=AsyncAdaptedQueuePool)
            else:
                engine = self._databases.engine(name)
            self._made[name] = Backend(name, engine, self._runner, owner if is_postgresql(name) else None)
        return self._made[name]

    def _owner(self, name: str) -> sa.Engine:
        """Return the engine that fills and sweeps a family's database, which all its drivers share."""
        if name not in self._owners:
            engine = self._databases.engine(name)
            with engine.begin() as connection:
                self.models.metadata.create_all(connection)
                for model, start in self.models.starts.items():
                    fill(connection, model, start)
                    if is_postgresql(name):  # sweep() does it between the rounds, and nobody within one
                        table = model.__table__.name
                        connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            if is_postgresql(name):
                engine = self._databases.engine(name, isolation_level="AUTOCOMMIT")
            self._owners[name] = engine
        return self._owners[name]

    def prepare(self, name: str, fill: Callable[[sa.Connection], None]) -> None:
        """Have a family's database filled with more, once for all its drivers."""
        owner = self._owner("psycopg" if is_postgresql(name) else "sqlite")
        if (owner, fill) not in self._prepared:
            self._prepared.append((owner, fill))
            with owner.begin() as connection:
                fill(connection)

    def versions(self) -> str:
        """Return the versions of the servers and drivers that were used."""
        found = []
        for family, owner in self._owners.items():
            query = "SHOW server_version" if family == "psycopg" else "SELECT sqlite_version()"
            with owner.connect() as connection:
                product = {"psycopg": "PostgreSQL"}.get(family, "SQLite")
                found.append(f"{product} {connection.exec_driver_sql(query).scalar()}")
        for name in self._made:
            distribution = {"sqlite": None, "psycopg2": "psycopg2-binary"}.get(name, name)
            if distribution is not None:
                try:
                    found.append(f"{name} {importlib.metadata.version(distribution)}")
                except importlib.metadata.PackageNotFoundError:
                    found.append(name)
        return ", ".join(found)
