"""While the ledger cannot be written, the application works on; nothing is lost or written twice."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

from statekit import IllegalTransition, counts, ledger
from statekit.ledger import entries as entries_module
from tests.crash.server import CrashServer
from tests.guards.inbox import message_class, stored, unguarded
from tests.ledger.books import BLOCKED, attached, capture, entries, inbox, moves
from tests.support.databases import Databases, all_async_backends, execute, on_postgresql, on_postgresql_async, run
from tests.support.postgres import Unavailable

MOVE = ("PROMOTED", "SPAM_REVIEW")


def drop(engine: sa.Engine) -> None:
    """Take the ledger's table away."""
    execute(engine, "DROP TABLE statekit_ledger")


def make(engine: sa.Engine) -> None:
    """Make the ledger's table."""
    metadata = sa.MetaData()
    ledger.add_to(metadata)
    metadata.create_all(engine)


def blocked(engine: sa.Engine, message: Any, identity: int = 1) -> None:
    """Have one move blocked in a transaction that ends."""
    with Session(engine) as session:
        capture(session, message, identity)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def said(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    """Return what the log says about the ledger, with a word in it."""
    about = [each for each in caplog.records if getattr(each, "statekit_kind", None) == "ledger"]
    return [each.getMessage() for each in about if word in each.getMessage()]


class TestATableThatIsGone:
    def test_does_not_disturb_the_application(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "READY")
        with attached(engine):
            drop(engine)
            blocked(engine, message)
            with Session(engine) as session:
                session.get(message, 2).status = "PROMOTED"
                session.commit()
            make(engine)
        assert stored(engine, message) == ["PROMOTED", "PROMOTED"]

    def test_lets_moves_wait(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            for _ in range(3):
                blocked(engine, message)
            assert writer.waiting == 3
            make(engine)

    def test_is_said_once_with_what_mends_it(self, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            for _ in range(3):
                blocked(engine, message)
                writer.flush()
            make(engine)
        (line,) = said(caplog, "cannot be written")
        assert "1 moves wait" in line
        assert "statekit.ledger.add_to(metadata) and a migration make it" in line

    def test_leaves_counts_exact(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            blocked(engine, message)
            before = counts(message.status, bind=engine)
            execute(engine, "ALTER TABLE statekit_ledger RENAME COLUMN place TO somewhere")
            blocked(engine, message)
            assert writer.waiting == 1
            assert counts(message.status, bind=engine) == before + Counter({MOVE: 1})
            execute(engine, "ALTER TABLE statekit_ledger RENAME COLUMN somewhere TO place")

    def test_loses_nothing_once_it_is_there_again(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            for _ in range(3):
                blocked(engine, message)
            make(engine)
            assert writer.flush()
            assert writer.waiting == 0
            assert moves(engine) == Counter({MOVE: 3})

    def test_is_found_again_by_the_thread_alone(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            blocked(engine, message)
            make(engine)
            until(lambda: writer.waiting == 0)
            assert moves(engine) == BLOCKED

    def test_is_said_to_be_there_again(self, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            blocked(engine, message)
            make(engine)
            writer.flush()
            writer.flush()
        assert len(said(caplog, "is being written again")) == 1

    def test_is_not_waited_for_by_the_end_of_a_ledger(
        self, engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            drop(engine)
            blocked(engine, message)
            caplog.clear()
        (line,) = said(caplog, "could not be written")
        assert "1 moves" in line
        assert "PROMOTED → SPAM_REVIEW: 1" in line

    def test_that_is_there_again_is_written_by_the_end_of_a_ledger(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            drop(engine)
            blocked(engine, message)
            make(engine)
        assert moves(engine) == BLOCKED

    def test_on_asyncio(self, async_engine: AsyncEngine, databases: Databases) -> None:
        async def work() -> None:
            message = await _inbox(async_engine)
            with attached(async_engine) as writer:
                async with async_engine.begin() as connection:
                    await connection.exec_driver_sql("DROP TABLE statekit_ledger")
                await _capture(async_engine, message)
                assert writer.waiting == 1
                async with async_engine.begin() as connection:
                    await connection.run_sync(make)
                until_then = time.monotonic() + 20
                while writer.waiting and time.monotonic() < until_then:
                    await asyncio.sleep(0.01)
            await async_engine.dispose()

        run(work())
        assert moves(_sync(databases, async_engine)) == BLOCKED


def _sync(databases: Databases, async_engine: AsyncEngine) -> sa.Engine:
    return databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")


async def _inbox(async_engine: AsyncEngine) -> Any:
    message = message_class()
    ledger.add_to(message.metadata)
    async with async_engine.begin() as connection:
        await connection.run_sync(message.metadata.create_all)
        await connection.execute(sa.insert(unguarded(message)), [{"id": 1, "status": "PROMOTED", "subject": ""}])
    return message


async def _capture(async_engine: AsyncEngine, message: Any) -> None:
    async with AsyncSession(async_engine) as session:
        (await session.get(message, 1)).status = "SPAM_REVIEW"
        with pytest.raises(IllegalTransition):
            await session.flush()


class TestAFullDisk:
    def test_lets_moves_wait_until_there_is_room(
        self, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = inbox(sqlite_engine, "PROMOTED")
        limit = ["PRAGMA max_page_count = 1"]  # SQLite takes the size that the file has instead
        sa.event.listen(sqlite_engine, "connect", lambda connection, record: connection.execute(limit[0]))
        sqlite_engine.dispose()
        with attached(sqlite_engine) as writer:
            while not writer.waiting:
                blocked(sqlite_engine, message)
            blocked(sqlite_engine, message)
            assert sum(moves(sqlite_engine).values()) > 0
            assert writer.waiting == 2
            assert "database or disk is full" in said(caplog, "cannot be written")[0]
            written = moves(sqlite_engine)
            limit[0] = "PRAGMA max_page_count = 1000000"
            sqlite_engine.dispose()
            assert writer.flush()
        assert moves(sqlite_engine) == written + Counter({MOVE: 2})


class TestALockedTable:
    @contextmanager
    def locked(self, engine: sa.Engine) -> Iterator[None]:
        other = sa.create_engine(engine.url, poolclass=sa.NullPool)
        with other.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE statekit_ledger IN ACCESS EXCLUSIVE MODE")
            yield

    @on_postgresql
    def test_holds_a_rollback_up_for_two_seconds_at_most(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            with self.locked(engine):
                before = time.monotonic()
                blocked(engine, message)
                assert time.monotonic() - before < 3.5
                assert writer.waiting == 1
            assert writer.flush()
            assert moves(engine) == BLOCKED

    def test_holds_the_next_ones_up_not_at_all(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:
            with self.locked(postgres_engine):
                blocked(postgres_engine, message)
                time.sleep(1.2)  # so that the thread is to try again, and waits for the lock itself
                before = time.monotonic()
                blocked(postgres_engine, message)
                assert time.monotonic() - before < 1
            assert writer.flush()
            assert moves(postgres_engine) == Counter({MOVE: 2})

    def test_holds_several_threads_up_no_longer_than_one(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:
            with self.locked(postgres_engine), ThreadPoolExecutor(6) as pool:
                before = time.monotonic()
                for each in [pool.submit(blocked, postgres_engine, message) for _ in range(6)]:
                    each.result()
                assert time.monotonic() - before < 3.5
            assert writer.flush()
            assert moves(postgres_engine) == Counter({MOVE: 6})


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[CrashServer]:
    """Return a server that a test may stop."""
    pytest.importorskip("psycopg")
    try:
        started = CrashServer()
    except Unavailable as error:
        (pytest.fail if request.config.getoption("--require-backends") else pytest.skip)(str(error))
    with started:
        yield started


class TestAServerThatIsStopped:
    @contextmanager
    def stopped(self, server: CrashServer, how: str) -> Iterator[None]:
        """Stop a server at the start of a block, and have it run after it."""
        getattr(server, how)()
        try:
            yield
        finally:
            server.start()

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_loses_no_move_whose_transaction_it_has_ended(self, server: CrashServer, how: str) -> None:
        engine = sa.create_engine(server.url)
        execute(engine, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            blocked(engine, message)
            session = Session(engine)
            capture(session, message, 1)
            with self.stopped(server, how):
                with pytest.raises(sa.exc.OperationalError):
                    session.rollback()
                assert writer.waiting == 1
                with pytest.raises(sa.exc.OperationalError):
                    blocked(engine, message)
            blocked(engine, message)
            until(lambda: writer.waiting == 0)
            assert moves(engine) == Counter({MOVE: 3})
        engine.dispose()

    def test_on_asyncio(self, server: CrashServer) -> None:
        pytest.importorskip("asyncpg")
        execute(engine := sa.create_engine(server.url), "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        engine.dispose()
        async_engine = create_async_engine(server.url.set(drivername="postgresql+asyncpg"))

        async def work() -> None:
            message = await _inbox(async_engine)
            with attached(async_engine) as writer:
                await _capture(async_engine, message)
                session = AsyncSession(async_engine)
                (await session.get(message, 1)).status = "SPAM_REVIEW"
                with pytest.raises(IllegalTransition):
                    await session.flush()
                with self.stopped(server, "stop"):
                    with suppress(sa.exc.DBAPIError):
                        await session.rollback()
                    assert writer.waiting == 1
                while writer.waiting:
                    await asyncio.sleep(0.01)
                await async_engine.dispose()
                await _capture(async_engine, message)
            await async_engine.dispose()

        run(asyncio.wait_for(work(), 30))
        assert moves(engine) == Counter({MOVE: 3})
        engine.dispose()


def slow_commit(engine: sa.Engine, seconds: float) -> None:
    """Have each COMMIT of an entry take its time, within the database."""
    execute(
        engine,
        f"""CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$""",
        """CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON statekit_ledger DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION dawdle()""",
    )


def cut_commits(engine: sa.Engine) -> Callable[[Any], None]:
    """Return what ends the backend of each COMMIT that dawdles, as often as it is called."""
    statement = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND query = 'COMMIT' AND state = 'active'"""

    def cut(_: Any = None) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            until(lambda: connection.execute(sa.text(statement)).first() is not None)

    return cut


class TestACommitThatIsNotAnswered:
    def test_and_was_not_made_is_made_later(self, postgres_engine: sa.Engine, databases: Databases) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        slow_commit(postgres_engine, 30)
        with attached(postgres_engine) as writer:
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(cut_commits(databases.engine("psycopg")))
                blocked(postgres_engine, message)
                done.result()
            assert writer.waiting == 1
            assert counts(message.status, bind=postgres_engine) == BLOCKED
            execute(postgres_engine, "DROP TRIGGER dawdle ON statekit_ledger")
            assert writer.flush()
            assert moves(postgres_engine) == BLOCKED

    def test_and_was_made_is_not_made_again(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        deaf = [True]
        with attached(postgres_engine) as writer:

            def lose_the_answer(connection: Any) -> None:
                if deaf[0] and "statekit_ledger" in connection.info.pop("last", ""):
                    connection.connection.dbapi_connection.commit()
                    connection.connection.dbapi_connection.close()

            def note(conn: Any, cursor: Any, text: str, *args: Any) -> None:
                conn.info["last"] = text

            own = writer._store._here()  # type: ignore[union-attr]
            sa.event.listen(own, "commit", lose_the_answer)
            sa.event.listen(own, "before_cursor_execute", note)
            blocked(postgres_engine, message)
            assert moves(postgres_engine) == BLOCKED
            assert writer.waiting == 1
            assert counts(message.status, bind=postgres_engine) == BLOCKED
            deaf[0] = False
            blocked(postgres_engine, message)
            assert writer.flush()
            assert writer.waiting == 0
            assert moves(postgres_engine) == Counter({MOVE: 2})


class TestTooMuchToKeep:
    @pytest.fixture(autouse=True)
    def _little_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(entries_module, "BOUND", 3)

    def fail(self, engine: sa.Engine, message: Any, number: int, start: int = 0) -> None:
        """Have moves blocked that are all different, each in a transaction of its own."""
        for target in range(start, start + number):
            with Session(engine) as session:
                session.get(message, 1).status = f"T{target}"
                with pytest.raises(IllegalTransition):
                    session.flush()

    def test_is_kept_without_its_details(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            self.fail(engine, message, 6)
            assert writer.waiting == 6
            make(engine)
            assert writer.flush()
        assert [(detail or {}).get("coarse") for detail in entries(engine, "detail")] == [None] * 3 + [True] * 3
        assert sum(moves(engine).values()) == 6

    def test_is_dropped_and_the_ledger_says_how_many(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            self.fail(engine, message, 10)
            writer.flush()
            assert (writer.waiting, writer.dropped) == (6, 4)
            make(engine)
            assert writer.flush()
            assert (writer.waiting, writer.dropped) == (0, 0)
        assert sum(moves(engine).values()) == 6
        assert moves(engine, "dropped") == Counter({(None, None): 4})

    def test_is_dropped_and_the_log_says_so_once(self, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            drop(engine)
            self.fail(engine, message, 10)
            writer.flush()
            writer.flush()
            assert len(said(caplog, "moves are left out")) == 1
            make(engine)

    def test_in_one_transaction_is_dropped_and_counted_too(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:
            drop(postgres_engine)
            with Session(postgres_engine) as session:
                for target in range(10):
                    savepoint = session.begin_nested()
                    session.get(message, 1).status = f"T{target}"
                    with pytest.raises(IllegalTransition):
                        session.flush()
                    savepoint.rollback()
            assert (writer.waiting, writer.dropped) == (6, 4)
            make(postgres_engine)
            assert writer.flush()
        assert moves(postgres_engine, "dropped") == Counter({(None, None): 4})

    def test_counts_what_it_has_dropped_in_this_process(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            drop(engine)
            self.fail(engine, message, 10)
            assert sum(counts(message.status).values()) == 10
            make(engine)


class TestConnections:
    def test_are_made_as_the_applications_are(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        execute(postgres_engine, "CREATE SCHEMA audit", "ALTER TABLE statekit_ledger SET SCHEMA audit")

        def into_audit(connection: Any, record: Any) -> None:
            connection.execute("SET search_path = public, audit")
            connection.commit()

        sa.event.listen(postgres_engine, "connect", into_audit)
        postgres_engine.dispose()
        with attached(postgres_engine):
            blocked(postgres_engine, message)
            assert moves(postgres_engine) == BLOCKED

    def test_have_the_role_that_a_listener_sets(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        role = f"clerk_{postgres_engine.url.database}"
        execute(
            postgres_engine,
            f"CREATE ROLE {role}",
            f"GRANT SELECT ON message TO {role}",
            f"GRANT SELECT, INSERT ON statekit_ledger TO {role}",
            f"GRANT USAGE ON SEQUENCE statekit_ledger_id_seq TO {role}",
            "ALTER TABLE statekit_ledger ADD who text DEFAULT current_user",
        )

        def as_clerk(connection: Any, record: Any) -> None:
            connection.execute(f"SET ROLE {role}")
            connection.commit()

        small = sa.create_engine(postgres_engine.url)
        sa.event.listen(small, "connect", as_clerk)
        with attached(small):
            blocked(small, message)
        small.dispose()
        with postgres_engine.begin() as connection:
            assert connection.scalars(sa.text("SELECT who FROM statekit_ledger")).all() == [role]
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")

    @pytest.mark.parametrize("options", [{"poolclass": sa.NullPool}, {"pool_size": 1, "max_overflow": 0}])
    @pytest.mark.parametrize("backend", ["sqlite", "psycopg"])
    def test_of_any_pool(self, databases: Databases, backend: str, options: dict[str, Any]) -> None:
        engine = databases.engine(backend, **options)
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            blocked(engine, message)
            assert moves(engine) == BLOCKED

    def test_are_found_after_the_pool_was_replaced(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            blocked(engine, message)
            engine.dispose()
            with Session(engine) as session:
                capture(session, message, 1)
                engine.dispose()
            blocked(engine, message)
            assert moves(engine) == Counter({MOVE: 3})

    @all_async_backends
    def test_of_two_event_loops_one_after_the_other(self, async_engine: AsyncEngine, databases: Databases) -> None:
        pooled = databases.async_engine(
            {"sqlite": "aiosqlite"}.get(async_engine.dialect.name, async_engine.url.drivername.partition("+")[2]),
            poolclass=AsyncAdaptedQueuePool,
        )
        message = run(_inbox(pooled))

        async def work() -> None:
            await pooled.dispose(close=False)  # as SQLAlchemy asks for where an engine comes to another loop
            await _capture(pooled, message)

        with attached(pooled) as writer:
            run(work())
            run(work())
            assert writer.flush()
        assert moves(_sync(databases, pooled)) == Counter({MOVE: 2})


class TestAnInterruptedWrite:
    @on_postgresql_async
    def test_of_a_cancelled_task_is_made_later_once(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("psycopg")

        async def work() -> None:
            message = await _inbox(async_engine)
            slow_commit(engine, 0.3)
            with attached(async_engine) as writer:
                tasks = [asyncio.create_task(_capture(async_engine, message)) for _ in range(4)]
                for number, task in enumerate(tasks):
                    await asyncio.sleep(0.15 * number)
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                blocked_by_now = sum(counts(message.status).values())
                assert blocked_by_now > 0
                end = time.monotonic() + 20
                while writer.waiting and time.monotonic() < end:
                    await asyncio.sleep(0.01)
                assert sum((await asyncio.to_thread(moves, engine)).values()) == blocked_by_now
                await _capture(async_engine, message)
            await async_engine.dispose()

        run(work())

    def test_by_the_keyboard_is_made_later_once(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:

            def interrupt(*_: Any) -> None:
                raise KeyboardInterrupt

            own = writer._store._here()  # type: ignore[union-attr]
            sa.event.listen(own, "after_cursor_execute", interrupt, once=True)
            with pytest.raises(KeyboardInterrupt):
                blocked(postgres_engine, message)
            until(lambda: writer.waiting == 0)
            assert moves(postgres_engine) == BLOCKED

    def test_leaves_the_applications_connection_usable(self, databases: Databases) -> None:
        engine = databases.engine("psycopg", pool_size=1, max_overflow=0, pool_timeout=1)
        message = inbox(engine, "PROMOTED", "READY")
        with attached(engine) as writer:

            def interrupt(*_: Any) -> None:
                raise KeyboardInterrupt

            own = writer._store._here()  # type: ignore[union-attr]
            sa.event.listen(own, "after_cursor_execute", interrupt, once=True)
            with Session(engine) as session:
                capture(session, message, 1)
                with pytest.raises(KeyboardInterrupt):
                    session.rollback()
            with Session(engine) as session:
                session.get(message, 2).status = "PROMOTED"
                session.commit()
        assert stored(engine, message) == ["PROMOTED", "PROMOTED"]


class TestNothingPilesUp:
    def test_on_a_connection_that_lives_long(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        statement = sa.update(message.__table__).values(status="SPAM_REVIEW")

        def refused(connection: Connection) -> None:
            with suppress(IllegalTransition):
                connection.execute(statement)
            connection.rollback()

        with attached(postgres_engine), postgres_engine.connect() as connection:
            for _ in range(20):
                refused(connection)
            gc.collect()
            before = len(weakref.finalize._registry), len(gc.get_objects())  # type: ignore[attr-defined]
            for _ in range(300):
                refused(connection)
            gc.collect()
            finalizers, objects = len(weakref.finalize._registry), len(gc.get_objects())  # type: ignore[attr-defined]
        assert finalizers == before[0]
        assert objects - before[1] < 150

    def test_while_the_ledger_cannot_be_written(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:
            drop(postgres_engine)
            for _ in range(300):
                blocked(postgres_engine, message)
            assert writer.waiting == 300
            assert len(writer._backlog) <= 2  # by minute
            assert writer._later._woken.qsize() <= 2
            make(postgres_engine)


class TestDetaching:
    def test_while_a_transaction_is_open_loses_nothing(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with Session(postgres_engine) as session:
            with attached(postgres_engine):
                capture(session, message, 1)
            session.rollback()
            session.close()
        assert moves(postgres_engine) == BLOCKED

    def test_after_the_pool_was_replaced_ends_it(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            engine.dispose()
            blocked(engine, message)
        blocked(engine, message)
        assert moves(engine) == BLOCKED


def test_threads_that_use_a_file_do_not_hinder_each_other(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, "PROMOTED", "READY")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                blocked(sqlite_engine, message)
        except BaseException as error:
            errors.append(error)

    with attached(sqlite_engine) as writer:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush()
    assert errors == []
    assert moves(sqlite_engine) == Counter({MOVE: 180})


@pytest.fixture(autouse=True)
def _log_of_statekit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "statekit")
