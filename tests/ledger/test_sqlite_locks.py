"""On SQLite, which has one lock for a whole file, the ledger is never the reason why somebody finds it locked."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from statekit import IllegalTransition, counts
from tests.ledger.books import BLOCKED, attached, capture, inbox, moves
from tests.support.databases import Databases, run

MOVE = ("PROMOTED", "SPAM_REVIEW")
THREADS, ROUNDS = 6, 25


@pytest.fixture(params=["delete", "wal"])
def engine(request: pytest.FixtureRequest, databases: Databases) -> sa.Engine:
    """Return an engine whose connections never wait, on a file with either journal, and with real transactions."""
    engine = databases.engine("sqlite", connect_args={"timeout": 0})
    sa.event.listen(engine, "connect", begin_nothing_by_itself)
    sa.event.listen(engine, "begin", begin_deferred)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.connection.execute(f"PRAGMA journal_mode = {request.param}")  # type: ignore[attr-defined]
    return engine


def begin_nothing_by_itself(connection: Any, record: Any) -> None:
    """Leave BEGIN to SQLAlchemy, so that a transaction that only reads is one, and keeps its snapshot."""
    connection.isolation_level = None


def begin_deferred(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN DEFERRED")


def in_threads(*works: Callable[[], None]) -> list[BaseException]:
    """Run functions at once, and return what they have raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_readers_never_find_it_locked(engine: sa.Engine) -> None:
    message = inbox(engine, *["PROMOTED"] * THREADS)

    def work() -> None:
        chance = random.Random(threading.get_ident())
        for _ in range(ROUNDS):
            with Session(engine) as session:
                session.scalars(sa.select(message)).all()
                capture(session, message, chance.randint(1, THREADS))
            with Session(engine) as session:  # which a write that goes on would be in the way of
                session.scalars(sa.select(message)).all()

    with attached(engine) as writer:
        assert in_threads(*[work] * THREADS) == []
        assert writer.flush()
    assert moves(engine) == Counter({MOVE: THREADS * ROUNDS})


def test_listeners_that_read_on_a_new_connection_never_find_it_locked(databases: Databases) -> None:
    engine = databases.engine("sqlite", connect_args={"timeout": 0}, poolclass=sa.NullPool)
    message = inbox(engine, *["PROMOTED"] * THREADS)

    def read(connection: Any, record: Any) -> None:
        connection.execute("SELECT count(*) FROM message").fetchall()

    sa.event.listen(engine, "connect", read)

    def work() -> None:
        for number in range(ROUNDS):
            with Session(engine) as session:
                capture(session, message, 1 + number % THREADS)

    with attached(engine) as writer:
        assert in_threads(*[work] * THREADS) == []
        assert writer.flush()
    assert moves(engine) == Counter({MOVE: THREADS * ROUNDS})


def test_one_writer_among_readers_never_finds_it_locked(engine: sa.Engine) -> None:
    """Writers take turns by a lock of the application's own, so that without a ledger none finds it locked."""
    message = inbox(engine, "PROMOTED", *["READY"] * ROUNDS * THREADS)
    turn = threading.Lock()
    done = threading.Event()

    def write(number: int) -> None:
        for each in range(ROUNDS):
            with turn, Session(engine) as session:
                session.get(message, 2 + number * ROUNDS + each).status = "PROMOTED"
                session.commit()
            with turn, Session(engine) as session:
                capture(session, message, 1)

    def write_all() -> None:
        errors = in_threads(*(lambda number=number: write(number) for number in range(THREADS)))
        done.set()
        assert errors == []

    with attached(engine) as writer:
        assert in_threads(write_all) == []
        assert writer.flush()
    assert moves(engine) == Counter({MOVE: THREADS * ROUNDS})


def test_a_snapshot_that_is_read_can_still_be_written(engine: sa.Engine) -> None:
    """A write of ours after a transaction's first SELECT would make its own write fail, however long it waits."""
    message = inbox(engine, "PROMOTED", "READY")
    with attached(engine) as writer, Session(engine) as long:
        long.scalars(sa.select(message)).all()
        with Session(engine) as session:
            capture(session, message, 1)
        assert not writer.flush()
        long.get(message, 2).status = "PROMOTED"
        long.commit()
        long.close()
        assert moves(engine) == BLOCKED


def test_what_waits_is_counted(engine: sa.Engine) -> None:
    message = inbox(engine, "PROMOTED")
    with attached(engine) as writer, engine.connect() as long:
        with Session(engine) as session:
            capture(session, message, 1)
        assert writer.waiting == 1
        assert counts(message.status, bind=long) == BLOCKED


def test_a_writer_in_another_process_is_not_waited_for_long(engine: sa.Engine) -> None:
    message = inbox(engine, "PROMOTED")
    other = sa.create_engine(engine.url, poolclass=sa.NullPool)
    with attached(engine) as writer:
        with other.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            with engine.connect() as session, suppress(IllegalTransition, sa.exc.OperationalError):
                session.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))
            connection.rollback()
        with Session(engine) as session:
            capture(session, message, 1)
        assert writer.flush()
    assert moves(engine) == BLOCKED


def test_tasks_never_find_it_locked(databases: Databases) -> None:
    """Not with a write-ahead log: SQLite itself finds that locked where several open it, with a ledger or without."""
    plain = databases.engine("sqlite")
    message = inbox(plain, *["PROMOTED"] * THREADS)
    engine = databases.async_engine("aiosqlite", connect_args={"timeout": 0})

    async def work(sessions: async_sessionmaker[AsyncSession], number: int) -> None:
        for _ in range(ROUNDS):
            async with sessions() as session:
                (await session.get(message, number)).status = "SPAM_REVIEW"
                with pytest.raises(IllegalTransition):
                    await session.flush()
            await asyncio.sleep(0)

    async def main() -> None:
        with attached(engine) as writer:
            sessions = async_sessionmaker(engine)
            await asyncio.gather(*(work(sessions, number) for number in range(1, THREADS + 1)))
            assert writer.flush()

    run(main())
    assert moves(plain) == Counter({MOVE: THREADS * ROUNDS})
