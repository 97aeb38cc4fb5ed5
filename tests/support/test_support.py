"""The fixtures themselves: what a test is given is fresh, works on every driver, and is gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from tests.support.databases import Databases, empty, on_postgresql, on_sqlite, run
from tests.support.postgres import ENVIRONMENT, KEPT, OLDER_ENVIRONMENT, Server, older_programs

metadata = sa.MetaData()
note = sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_fresh_database(engine: sa.Engine, turn: int) -> None:
    """The second turn would fail on the first one's table."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE only_once (id integer)"))


def test_threads_share_the_database(engine: sa.Engine) -> None:
    """Eight threads with connections of their own write to one database, and all rows are there."""
    metadata.create_all(engine)

    def write() -> None:
        for _ in range(5):
            with engine.begin() as connection:
                connection.execute(note.insert().values(text="x"))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(note)) == 40


@pytest.mark.parametrize("turn", [1, 2])
def test_async_engines_have_a_fresh_database(async_engine: AsyncEngine, turn: int) -> None:
    """Each call of run() has a loop of its own, and the engine works in all of them."""

    async def write() -> None:
        async with async_engine.begin() as connection:
            await connection.run_sync(metadata.create_all, checkfirst=False)

    async def read() -> int:
        async with async_sessionmaker(async_engine)() as session:
            await session.execute(note.insert().values(text="x"))
            await session.commit()
            return len((await session.scalars(sa.select(note.c.text))).all())

    run(write())
    assert run(read()) == 1


def test_engines_of_one_family_share_a_database(databases: Databases) -> None:
    """What one driver wrote, the others read."""
    for writer, readers in (
        ("sqlite", ("sqlite", "aiosqlite")),
        ("psycopg", ("psycopg", "psycopg2", "asyncpg", "psycopg_async")),
    ):
        metadata.create_all(databases.engine(writer))
        for reader in readers:
            assert databases.url(reader).database == databases.url(writer).database
        others = [databases.engine(r) for r in readers if r in {"sqlite", "psycopg", "psycopg2"}]
        assert all(sa.inspect(other).has_table("note") for other in others)


def test_memory_is_one_database(memory_engine: sa.Engine) -> None:
    """Two connections at the same time see the same tables."""
    metadata.create_all(memory_engine)
    with memory_engine.connect() as one, memory_engine.connect() as two:
        one.execute(note.insert().values(text="x"))
        one.commit()
        assert two.scalar(sa.select(note.c.text)) == "x"


@given(texts=st.lists(st.text("ab"), max_size=3))
def test_examples_share_a_database_and_empty_it(engine: sa.Engine, texts: list[str]) -> None:
    """An example finds nothing of the one before it."""
    empty(engine)
    metadata.create_all(engine, checkfirst=False)
    with engine.begin() as connection:
        for text in texts:
            connection.execute(note.insert().values(text=text))
        assert connection.scalar(sa.select(sa.func.count()).select_from(note)) == len(texts)


def test_databases_are_dropped(postgres: Server, tmp_path: Path) -> None:
    """A few tests later, also while somebody is still connected."""
    databases = Databases(tmp_path, lambda: postgres)
    engine = databases.engine("psycopg")
    connection = engine.connect()
    name = databases.url("psycopg").database
    assert name in postgres.databases()
    databases.close()
    for _ in range(KEPT + 1):
        postgres.discard_database(postgres.create_database())
    assert name not in postgres.databases()
    connection.invalidate()
    engine.dispose()


def test_the_older_server_is_older(older_engine: sa.Engine) -> None:
    """Its fixtures give databases of a supported version before the newest one."""
    with older_engine.connect() as connection:
        assert (14,) <= (connection.dialect.server_version_info or ()) < (18,)


@on_postgresql
def test_on_postgresql(engine: sa.Engine) -> None:
    """The decorator narrows the fixture."""
    assert engine.dialect.name == "postgresql"


@on_sqlite
def test_on_sqlite(engine: sa.Engine) -> None:
    """The decorator narrows the fixture."""
    assert engine.dialect.name == "sqlite"


_NOT_OURS = pytest.mark.skipif(ENVIRONMENT in os.environ, reason="the server is somebody else's")
_NOT_OLDER_OURS = pytest.mark.skipif(OLDER_ENVIRONMENT in os.environ, reason="the server is somebody else's")
_NO_OLDER = pytest.mark.skipif(not older_programs(), reason="this machine has no older PostgreSQL")


@pytest.mark.parametrize(
    "start", [pytest.param("start", marks=_NOT_OURS), pytest.param("start_older", marks=[_NOT_OLDER_OURS, _NO_OLDER])]
)
def test_the_server_ends_with_the_run_that_is_killed(start: str) -> None:
    """A test run that dies by kill -9 leaves neither a server nor its files."""
    program = f"from tests.support.postgres import Server; print(Server.{start}().url, flush=True); input()"
    victim = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    assert victim.stdout is not None
    folder = Path(str(sa.make_url(victim.stdout.readline().strip()).query["host"]))
    pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert victim.stdin is not None
    victim.stdin.close()
    until = time.monotonic() + 20
    while (folder.parent.exists() or _lives(pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.parent.exists()
    assert not _lives(pid)


_ROOT = Path(__file__).parents[2]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
