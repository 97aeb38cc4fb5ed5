"""When an entry is written, and what it says."""

from __future__ import annotations

import datetime as dt
import gc
import os
import threading
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from statekit import IllegalTransition, StatekitError, ledger, operation, override
from tests.guards.inbox import message_class, stored, unguarded
from tests.ledger.books import BLOCKED, attached, capture, entries, inbox, moves
from tests.support.databases import run


class TestIsWritten:
    def test_after_a_rollback(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), Session(engine) as session:
            capture(session, message, 1)
            session.rollback()
            session.close()
            assert moves(engine) == BLOCKED

    def test_after_a_commit(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "READY")
        with attached(engine), operation("Spam capture", on_illegal="skip"), Session(engine) as session:
            for each in session.scalars(sa.select(message)):
                each.status = "SPAM_REVIEW"
            session.commit()
            session.close()
            assert moves(engine) == BLOCKED

    def test_after_a_close_without_either(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            with Session(engine) as session:
                capture(session, message, 1)
            assert moves(engine) == BLOCKED

    def test_not_before_the_transaction_has_ended(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer, Session(engine) as session:
            capture(session, message, 1)
            assert writer.waiting == 1
            assert moves(engine) == Counter()

    def test_not_before_the_outermost_of_nested_transactions_has_ended(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), Session(engine) as session:
            session.get(message, 1)
            with pytest.raises(IllegalTransition), session.begin_nested():
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            assert moves(engine) == Counter()
            session.commit()
            session.close()
            assert moves(engine) == BLOCKED

    def test_once_where_a_savepoint_is_rolled_back(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), Session(engine) as session:
            for _ in range(3):
                with pytest.raises(IllegalTransition), session.begin_nested():
                    session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            session.commit()
            session.close()
            assert moves(engine) == Counter({("PROMOTED", "SPAM_REVIEW"): 3})

    def test_of_a_core_statement(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            with engine.connect() as connection:
                with pytest.raises(IllegalTransition):
                    connection.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))
                connection.rollback()
            assert moves(engine) == BLOCKED

    def test_of_a_connection_that_goes_on(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine), postgres_engine.connect() as connection:
            with pytest.raises(IllegalTransition):
                connection.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))
            connection.rollback()
            assert moves(postgres_engine) == BLOCKED

    def test_of_a_session_on_somebodys_transaction_when_that_ends(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine), postgres_engine.connect() as connection:
            transaction = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                capture(session, message, 1)
                session.rollback()
            assert moves(postgres_engine) == Counter()
            transaction.rollback()
            assert moves(postgres_engine) == BLOCKED

    def test_of_two_phases(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine), Session(postgres_engine, twophase=True) as session:
            capture(session, message, 1)
            session.rollback()
            assert moves(postgres_engine) == BLOCKED

    def test_in_autocommit(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                with pytest.raises(IllegalTransition):
                    connection.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))
            assert moves(engine) == BLOCKED

    def test_of_a_new_row_that_was_refused_before_there_was_a_connection(self, engine: sa.Engine) -> None:
        message = inbox(engine)
        with attached(engine), Session(engine) as session:
            session.add(message(status="PROMOTED"))
            with pytest.raises(IllegalTransition):
                session.flush()
            assert moves(engine) == Counter({(None, "PROMOTED"): 1})

    def test_in_memory_too(self, memory_engine: sa.Engine) -> None:
        message = inbox(memory_engine, "PROMOTED")
        with attached(memory_engine), Session(memory_engine) as session:
            capture(session, message, 1)
            session.close()
            assert moves(memory_engine) == BLOCKED

    def test_of_an_engine_with_other_options(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            with Session(engine.execution_options(logging_token="job")) as session:
                capture(session, message, 1)
            assert moves(engine) == BLOCKED

    def test_after_the_connection_was_lost(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine), Session(postgres_engine) as session:
            pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
            capture(session, message, 1)
            with postgres_engine.connect() as other:
                other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            with pytest.raises(sa.exc.OperationalError):
                session.connection().execute(sa.text("SELECT 1"))
            session.rollback()
            assert moves(postgres_engine) == BLOCKED

    def test_of_a_connection_that_nobody_has_closed(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine) as writer:

            def forget_to_close() -> None:
                connection = postgres_engine.connect()
                with pytest.raises(IllegalTransition):
                    connection.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))

            forget_to_close()
            gc.collect()
            assert writer.flush()
            assert moves(postgres_engine) == BLOCKED

    def test_on_asyncio(self, async_engine: AsyncEngine) -> None:
        async def work() -> Any:
            message = message_class()
            ledger.add_to(message.metadata)
            async with async_engine.begin() as connection:
                await connection.run_sync(message.metadata.create_all)
                await connection.execute(
                    sa.insert(unguarded(message)), [{"id": 1, "status": "PROMOTED", "subject": ""}]
                )
            with attached(async_engine) as writer:
                async with AsyncSession(async_engine) as session:
                    (await session.get(message, 1)).status = "SPAM_REVIEW"
                    with pytest.raises(IllegalTransition):
                        await session.commit()
                    assert writer.waiting == 1
                async with async_engine.connect() as connection:
                    table = ledger.add_to(sa.MetaData()).ledger
                    found = (await connection.execute(sa.select(table.c.source, table.c.number, table.c.place))).all()
            await async_engine.dispose()
            return [tuple(row) for row in found]

        ((source, number, place),) = run(work())
        assert (source, number) == ("PROMOTED", 1)
        assert place.startswith(f"{__name__}:")
        assert "work" in place


class TestAnEntry:
    def test_says_who_what_when_and_where(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "PROMOTED", "READY")
        before = dt.datetime.now(dt.UTC)
        with attached(engine), operation("Spam capture"), Session(engine) as session:
            capture(session, message, 1, 2)
        names = "kind model attribute table_name source target is_new number operation actor reason identities process"
        ((*found, place, at),) = entries(engine, *names.split(), "place", "at")
        assert found == [
            "blocked", "Message", "status", "message", "PROMOTED", "SPAM_REVIEW", False, 2, "Spam capture", None, None,
            [[1], [2]], os.getpid(),
        ]  # fmt: skip
        assert place == f"tests.ledger.books:{capture.__code__.co_firstlineno + 5} in capture"
        assert before <= at.replace(tzinfo=dt.UTC) <= dt.datetime.now(dt.UTC)

    def test_names_ten_rows_at_most(self, engine: sa.Engine) -> None:
        message = inbox(engine, *["PROMOTED"] * 12)
        with attached(engine), Session(engine) as session:
            capture(session, message, *range(1, 13))
        ((number, identities),) = entries(engine, "number", "identities")
        assert number == 12
        assert identities == [[each] for each in range(1, 11)]

    def test_is_one_for_equal_moves_of_one_transaction(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "PROMOTED")
        with attached(engine), Session(engine) as session:
            for number in (1, 2):
                with session.begin_nested():
                    capture(session, message, number)
                    session.expire_all()
        assert sum(entries(engine, "number")) == 2
        assert len(entries(engine, "number")) == 1

    def test_keeps_what_no_database_can_store(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), Session(engine) as session:
            session.get(message, 1).status = "\0 and \ud800"
            with pytest.raises(IllegalTransition):
                session.flush()
        assert entries(engine, "target") == ["\\0 and \\ud800"]


class TestObserved:
    def test_is_written_as_such(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", on_illegal="observe")
        with attached(engine), Session(engine) as session:
            session.get(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert moves(engine, "observed") == BLOCKED
        assert moves(engine) == Counter()


class TestOverridden:
    def test_is_written_with_reason_and_actor(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), override("wrong queue", actor="ada"), Session(engine) as session:
            session.get(message, 1).status = "READY"
            session.commit()
        assert entries(engine, "kind", "target", "reason", "actor") == [("overridden", "READY", "wrong queue", "ada")]

    def test_is_in_the_ledger_exactly_if_its_move_is_committed(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), override("wrong queue"), Session(engine) as session:
            session.get(message, 1).status = "READY"
            session.flush()
            session.rollback()
        assert moves(engine, "overridden") == Counter()

    def test_of_a_statement(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "COMPLETED")
        with attached(engine), override("again"), engine.begin() as connection:
            connection.execute(sa.update(message.__table__).values(status="READY"))
        assert moves(engine, "overridden") == Counter({("PROMOTED", "READY"): 1, ("COMPLETED", "READY"): 1})

    def test_is_not_made_where_it_cannot_be_recorded(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        table = ledger.add_to(sa.MetaData()).ledger
        table.drop(engine)
        with attached(engine), override("again"), Session(engine) as session:
            session.get(message, 1).status = "READY"
            with pytest.raises(StatekitError, match=r"must have an entry in statekit_ledger.*add_to\(metadata\)"):
                session.commit()
        assert stored(engine, message) == ["PROMOTED"]

    def test_in_autocommit_is_refused_before_it_is_made(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), override("again"), operation("Repair") as op:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                with pytest.raises(StatekitError, match="Override in a transaction"):
                    connection.execute(sa.update(message.__table__).values(status="READY"))
        assert stored(engine, message) == ["PROMOTED"]
        assert not op.overridden

    def test_that_cannot_be_recorded_is_not_counted(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        ledger.add_to(sa.MetaData()).ledger.drop(engine)
        with attached(engine), override("again"), operation("Repair") as op, Session(engine) as session:
            session.get(message, 1).status = "READY"
            with pytest.raises(StatekitError):
                session.commit()
        assert not op.overridden


def test_a_session_that_chooses_its_engine_by_what_it_does_is_known_by_the_one_that_it_writes_to(
    sqlite_engine: sa.Engine, memory_engine: sa.Engine
) -> None:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **options: Any) -> Any:  # type: ignore[override]
            return sqlite_engine if self._flushing or isinstance(clause, sa.Update) else memory_engine

    message = inbox(sqlite_engine, "PROMOTED")
    with attached(sqlite_engine), Routing() as session:
        session.add(message(status="COMPLETED"))
        with pytest.raises(IllegalTransition):
            session.flush()
    assert moves(sqlite_engine) == Counter({(None, "COMPLETED"): 1})


class TestAttaching:
    def test_twice_is_once(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine) as writer:
            assert ledger.attach(engine) is writer
            with Session(engine) as session:
                capture(session, message, 1)
        assert moves(engine) == BLOCKED

    def test_ends(self, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine):
            pass
        with Session(engine) as session:
            capture(session, message, 1)
        assert moves(engine) == Counter()

    def test_is_for_one_engine(self, engine: sa.Engine, memory_engine: sa.Engine) -> None:
        message, other = inbox(engine, "PROMOTED"), inbox(memory_engine, "PROMOTED")
        with attached(engine):
            with Session(engine) as session:
                capture(session, message, 1)
            with Session(memory_engine) as session:
                capture(session, other, 1)
        assert moves(engine) == BLOCKED
        assert moves(memory_engine) == Counter()

    def test_finds_the_schema(self, postgres_engine: sa.Engine) -> None:
        with postgres_engine.begin() as connection:
            connection.execute(sa.text("CREATE SCHEMA audit"))
        metadata = sa.MetaData()
        table = ledger.add_to(metadata, schema="audit").ledger
        metadata.create_all(postgres_engine)
        message = inbox(postgres_engine, "PROMOTED")
        with attached(postgres_engine, schema="audit"), Session(postgres_engine) as session:
            capture(session, message, 1)
        with postgres_engine.connect() as connection:
            assert connection.scalars(sa.select(table.c.number)).all() == [1]

    def test_in_another_schema_than_before_is_refused(self, engine: sa.Engine) -> None:
        with attached(engine), pytest.raises(StatekitError, match=r"it has a ledger already, with schema=None"):
            ledger.attach(engine, schema="audit")

    @pytest.mark.parametrize("what", [None, "sqlite://"])
    def test_to_what_is_no_engine_is_refused(self, what: Any) -> None:
        with pytest.raises(StatekitError, match="allowed is an Engine or an AsyncEngine"):
            ledger.attach(what)

    def test_needs_a_connection_of_its_own_beside_an_exhausted_pool(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, "PROMOTED")
        small = sa.create_engine(postgres_engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
        with attached(small), small.connect() as connection:
            with pytest.raises(IllegalTransition):
                connection.execute(sa.update(message.__table__).values(status="SPAM_REVIEW"))
            connection.rollback()
            assert moves(postgres_engine) == BLOCKED
        small.dispose()


def test_threads_write_their_own(engine: sa.Engine) -> None:
    message = inbox(engine, *["PROMOTED"] * 8)

    def work(number: int) -> None:
        for _ in range(10):
            with Session(engine) as session:
                capture(session, message, number)

    with attached(engine) as writer:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush()
    assert moves(engine) == Counter({("PROMOTED", "SPAM_REVIEW"): 80})
