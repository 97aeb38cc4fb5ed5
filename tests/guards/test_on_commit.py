"""``@on_commit``: called for what came to stay, and for nothing else."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import pickle
import random
import threading
import weakref
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from statekit import CommittedMove, IllegalTransition, TableError, TransitionTable, guard, on_commit, operation
from tests.support.databases import Databases, all_async_backends, all_sync_backends, on_sqlite, run

TABLE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


@pytest.fixture
def message(base: Any) -> Any:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        subject: Mapped[str | None]

    guard(Message.status, TABLE)
    return Message


@pytest.fixture
def told(message: Any) -> list[CommittedMove]:
    """What was called, in order."""
    calls: list[CommittedMove] = []
    on_commit(message.status)(calls.append)
    return calls


@pytest.fixture
def filled(engine: sa.Engine, message: Any) -> sa.Engine:
    """An engine on a database that has five messages in READY."""
    message.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(message.__table__.insert(), [{"id": number} for number in range(1, 6)])
    return engine


def moves(told: list[CommittedMove]) -> list[Any]:
    return [(move.identity and move.identity[0], move.source, move.target) for move in told]


@all_sync_backends
class TestASession:
    def test_tells_after_its_commit_and_not_before(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session, operation("Promote"):
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            assert not told
            session.commit()
        assert told == [
            CommittedMove("Message", "status", (1,), "READY", "PROMOTED", "Promote", "allowed"),
        ]

    def test_tells_nothing_of_a_rollback(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            session.rollback()
            session.get(message, 2).status = "PROMOTED"
            session.commit()
        assert moves(told) == [(2, "READY", "PROMOTED")]

    def test_that_is_closed_without_a_commit_tells_nothing(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        for _ in range(2):
            with Session(filled) as session:
                session.get(message, 1).status = "PROMOTED"
                session.flush()
        with Session(filled) as session:
            session.get(message, 1).subject = "new"
            session.commit()
        assert not told

    def test_tells_each_move_of_a_row_in_order(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            one = session.get(message, 1)
            for status in ("PROMOTED", "COMPLETED"):
                one.status = status
                session.flush()
            session.commit()
        assert moves(told) == [(1, "READY", "PROMOTED"), (1, "PROMOTED", "COMPLETED")]

    def test_tells_nothing_of_a_savepoint_that_was_rolled_back(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            with session.begin_nested():
                session.get(message, 2).status = "PROMOTED"
            inner = session.begin_nested()
            session.get(message, 3).status = "PROMOTED"
            with session.begin_nested():
                session.get(message, 4).status = "PROMOTED"
            inner.rollback()
            session.get(message, 5).status = "PROMOTED"
            session.commit()
        assert [move.identity for move in told] == [(1,), (2,), (5,)]

    def test_tells_nothing_of_a_first_savepoint_that_was_rolled_back(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with Session(filled) as session:
            one = session.get(message, 1)
            nested = session.begin_nested()
            one.status = "PROMOTED"
            session.flush()
            nested.rollback()
            session.commit()
        assert not told

    def test_tells_nothing_of_new_rows_and_of_refused_ones(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with Session(filled) as session, operation("Spam", on_illegal="skip"):
            session.add(message(id=9))
            session.get(message, 1).status = "COMPLETED"
            session.get(message, 2).status = "SPAM_REVIEW"
            session.commit()
        assert moves(told) == [(2, "READY", "SPAM_REVIEW")]

    def test_tells_nothing_of_a_new_row_that_was_observed(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with Session(filled) as session, operation("Import", on_illegal="observe") as op:
            session.add(message(id=9, status="COMPLETED"))
            session.commit()
        assert (op.observed, told) == ({(None, "COMPLETED"): 1}, [])

    def test_that_began_with_a_savepoint_has_given_its_connection_back(
        self, filled: sa.Engine, databases: Databases, message: Any
    ) -> None:
        small = sa.create_engine(filled.url, pool_size=1, max_overflow=0, pool_timeout=1)
        found: list[str] = []

        @on_commit(message.status)
        def look(move: CommittedMove) -> None:
            with Session(small) as other:
                found.append(other.get(message, move.identity).status)

        with Session(small) as session:
            with session.begin_nested():
                session.get(message, 1).status = "PROMOTED"
            session.commit()
        small.dispose()
        assert found == ["PROMOTED"]

    def test_on_a_connection_of_somebody_else_need_not_have_ended(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with filled.connect() as connection, connection.begin() as transaction:
            session = Session(connection)
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            transaction.commit()
            assert moves(told) == [(1, "READY", "PROMOTED")]
            session.close()

    def test_tells_what_was_observed(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session, operation("Old code", on_illegal="observe"):
            session.get(message, 1).status = "COMPLETED"
            session.commit()
        assert [(move.kind, move.target) for move in told] == [("observed", "COMPLETED")]

    def test_on_a_connection_of_somebody_else_tells_when_that_commits(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        for number, mode in ((2, "create_savepoint"), (3, "rollback_only")):
            with filled.connect() as connection:
                outer = connection.begin()
                with Session(connection, join_transaction_mode=mode) as session:
                    session.get(message, number).status = "PROMOTED"
                    session.commit()
                    assert not told
                outer.rollback()
        assert not told
        with filled.connect() as connection:
            outer = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                session.get(message, 1).status = "PROMOTED"
                session.commit()
            assert not told
            outer.commit()
            assert moves(told) == [(1, "READY", "PROMOTED")]

    def test_has_given_its_connection_back_and_can_be_used(
        self, databases: Databases, engine: sa.Engine, filled: sa.Engine, message: Any
    ) -> None:
        found: list[Any] = []
        small = databases.engine(engine.dialect.driver.replace("pysqlite", "sqlite"), pool_size=1, max_overflow=0)
        with Session(small) as session:

            @on_commit(message.status)
            def look(move: CommittedMove) -> None:
                with Session(small) as other:
                    found.append(other.get(message, move.identity).status)
                found.append(session.get(message, move.identity).status)
                session.get(message, move.identity).subject = "told"
                session.commit()

            session.get(message, 1).status = "PROMOTED"
            session.commit()
        with Session(small) as session:
            assert session.get(message, 1).subject == "told"
        assert found == ["PROMOTED", "PROMOTED"]

    def test_whose_commit_fails_tells_nothing(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        def fail(*args: Any) -> None:
            raise RuntimeError("the line is down")

        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            sa.event.listen(filled, "commit", fail)
            with pytest.raises(RuntimeError):
                session.commit()
            sa.event.remove(filled, "commit", fail)
            session.rollback()
            session.get(message, 2).status = "PROMOTED"
            session.commit()
        assert moves(told) == [(2, "READY", "PROMOTED")]


@all_sync_backends
class TestACallback:
    def test_that_fails_hides_neither_the_others_nor_the_commit(
        self, filled: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[Any] = []

        @on_commit(message.status)
        def fail(move: CommittedMove) -> None:
            calls.append(("fail", move.identity))
            raise RuntimeError("no mail today")

        @on_commit(message.status)
        def note(move: CommittedMove) -> None:
            calls.append(("note", move.identity))

        with Session(filled) as session, caplog.at_level(logging.ERROR, "statekit"):
            session.get(message, 1).status = session.get(message, 2).status = "PROMOTED"
            session.commit()
        assert calls == [("fail", (1,)), ("note", (1,)), ("fail", (2,)), ("note", (2,))]
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError, RuntimeError]
        with Session(filled) as session:
            assert session.get(message, 1).status == "PROMOTED"

    def test_that_wants_to_stop_hides_the_others_neither(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        @on_commit(message.status)
        def stop(move: CommittedMove) -> None:
            raise KeyboardInterrupt

        on_commit(message.status)(told.append)
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            with pytest.raises(KeyboardInterrupt):
                session.commit()
        assert len(told) == 2

    def test_that_returns_a_coroutine_is_logged(
        self, filled: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def send(move: CommittedMove) -> None: ...

        on_commit(message.status)(lambda move: send(move))
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            session.commit()
        assert "it has returned a coroutine" in caplog.text

    def test_that_fails_is_logged_with_its_name_and_its_move(
        self, filled: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        @on_commit(message.status)
        def announce(move: CommittedMove) -> None:
            raise ZeroDivisionError

        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            session.commit()
        (record,) = [each for each in caplog.records if each.exc_info]
        assert record.getMessage() == (
            "on_commit(): announce(CommittedMove(model='Message', attribute='status', identity=(1,), source='READY', "
            "target='PROMOTED', operation=None, kind='allowed', number=1)) failed; the move is committed"
        )

    def test_may_be_about_one_source_or_target_or_several(self, filled: sa.Engine, message: Any) -> None:
        calls: list[Any] = []
        on_commit(message.status, target="PROMOTED")(lambda move: calls.append(("to PROMOTED", move.source)))
        on_commit(message.status, source="READY", target=("COMPLETED", "SPAM_REVIEW"))(
            lambda move: calls.append(("from READY", move.target))
        )
        with Session(filled) as session:
            one, two = session.get(message, 1), session.get(message, 2)
            one.status, two.status = "PROMOTED", "SPAM_REVIEW"
            session.flush()
            one.status = "COMPLETED"
            session.commit()
        assert sorted(calls) == [("from READY", "SPAM_REVIEW"), ("to PROMOTED", "READY")]


@all_sync_backends
class TestAStatement:
    def test_tells_each_row_by_its_key(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            session.execute(sa.update(message).where(message.id < 4).values(status="PROMOTED"))
            assert not told
            session.commit()
        assert moves(told) == [(number, "READY", "PROMOTED") for number in (1, 2, 3)]
        assert {move.number for move in told} == {1}

    def test_on_a_plain_connection_tells_after_its_commit(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        table = message.__table__
        with filled.connect() as connection:
            connection.execute(table.update().where(table.c.id == 1).values(status="PROMOTED"))
            connection.rollback()
            connection.execute(table.update().where(table.c.id == 2).values(status="PROMOTED"))
            assert not told
            connection.commit()
            assert moves(told) == [(2, "READY", "PROMOTED")]

    def test_on_a_connection_that_was_rolled_back_is_not_told_by_the_next_commit(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with filled.connect() as connection:
            connection.execute(message.__table__.update().values(status="PROMOTED"))
            connection.rollback()
            connection.execute(message.__table__.update().values(subject="new"))
            connection.commit()
        assert not told

    def test_leaves_out_what_was_skipped(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session, operation("Spam", on_illegal="skip"):
            session.execute(sa.update(message).where(message.id == 1).values(status="PROMOTED"))
            session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            session.commit()
        assert moves(told) == [(1, "READY", "PROMOTED")] + [(n, "READY", "SPAM_REVIEW") for n in (2, 3, 4, 5)]

    def test_that_is_refused_tells_nothing(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            with pytest.raises(IllegalTransition):
                session.execute(sa.update(message).values(status="COMPLETED"))
            session.commit()
        assert not told

    def test_by_primary_key_tells_each(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            session.execute(sa.update(message), [{"id": 1, "status": "PROMOTED"}, {"id": 3, "status": "SPAM_REVIEW"}])
            session.commit()
        assert moves(told) == [(1, "READY", "PROMOTED"), (3, "READY", "SPAM_REVIEW")]

    def test_of_more_rows_than_are_held_tells_their_number(
        self, filled: sa.Engine, message: Any, told: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("question", "one_update"):
            monkeypatch.setattr(f"statekit.guards.statements.{module}.HELD", 2)
        with Session(filled) as session:
            session.execute(sa.update(message).values(status="PROMOTED"))
            session.commit()
        assert sum(move.number for move in told) == 5
        if filled.dialect.name == "postgresql":
            assert [(move.identity, move.number) for move in told] == [(None, 5)]

    def test_in_autocommit_is_told_at_once(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        table = message.__table__
        with filled.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(table.update().where(table.c.id == 2).values(status="PROMOTED"))
            assert moves(told) == [(2, "READY", "PROMOTED")]
            connection.rollback()
        assert len(told) == 1


@all_sync_backends
class TestAutocommit:
    """Every statement is committed at once; a session's are told at its end, when it is not at work."""

    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_a_flush_is_told_at_the_end_of_the_session(
        self, filled: sa.Engine, message: Any, told: list[Any], end: str
    ) -> None:
        session = Session(filled.execution_options(isolation_level="AUTOCOMMIT"))
        session.get(message, 1).status = "PROMOTED"
        session.flush()
        assert not told
        getattr(session, end)()
        session.close()
        assert moves(told) == [(1, "READY", "PROMOTED")]

    def test_a_callback_may_use_the_session(self, filled: sa.Engine, message: Any) -> None:
        session = Session(filled.execution_options(isolation_level="AUTOCOMMIT"))

        @on_commit(message.status)
        def note(move: CommittedMove) -> None:
            session.get(message, move.identity).subject = "told"
            session.flush()

        session.get(message, 1).status = "PROMOTED"
        session.commit()
        session.close()
        with Session(filled) as other:
            assert other.get(message, 1).subject == "told"


@on_sqlite
def test_a_savepoint_of_sqlite_in_autocommit_that_is_rolled_back_tells_nothing(
    filled: sa.Engine, message: Any, told: list[Any]
) -> None:
    with filled.execution_options(isolation_level="AUTOCOMMIT").begin() as connection:
        nested = connection.begin_nested()
        connection.execute(message.__table__.update().values(status="PROMOTED"))
        nested.rollback()
    assert not told


@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
class TestACommitOfAFailedTransaction:
    """PostgreSQL answers it with a rollback, and no error."""

    def test_of_a_session_tells_nothing(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            with pytest.raises(sa.exc.DBAPIError):
                session.execute(sa.text("SELECT 1 / 0"))
            session.commit()
            assert (session.get(message, 1).status, told) == ("READY", [])

    def test_of_a_connection_tells_nothing(self, filled: sa.Engine, message: Any, told: list[Any]) -> None:
        with filled.connect() as connection:
            connection.execute(message.__table__.update().values(status="PROMOTED"))
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.text("SELECT 1 / 0"))
            connection.commit()
        assert not told

    def test_of_a_connection_that_was_lost_is_sqlalchemys_error(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with filled.connect() as connection:
            connection.execute(message.__table__.update().values(status="PROMOTED"))
            connection.invalidate()
            with pytest.raises(sa.exc.PendingRollbackError):
                connection.commit()
        assert not told

    def test_of_a_connection_in_two_phases_tells_nothing(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with filled.connect() as connection, connection.begin_twophase() as transaction:
            connection.execute(message.__table__.update().values(status="PROMOTED"))
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.text("SELECT 1 / 0"))
            transaction.commit()
        assert not told

    def test_that_went_back_to_a_savepoint_tells_the_rest(
        self, filled: sa.Engine, message: Any, told: list[Any]
    ) -> None:
        with Session(filled) as session:
            session.get(message, 1).status = "PROMOTED"
            with pytest.raises(sa.exc.DBAPIError), session.begin_nested():
                session.get(message, 2).status = "PROMOTED"
                session.flush()
                session.execute(sa.text("SELECT 1 / 0"))
            session.commit()
        assert moves(told) == [(1, "READY", "PROMOTED")]


@pytest.mark.parametrize("async_engine", ["asyncpg", "psycopg_async"], indirect=True)
def test_a_commit_of_a_failed_async_transaction_tells_nothing(async_engine: AsyncEngine, message: Any) -> None:
    told: list[Any] = []
    on_commit(message.status)(told.append)

    async def body() -> None:
        async with async_engine.begin() as connection:
            await connection.run_sync(message.metadata.create_all)
        async with AsyncSession(async_engine) as session:
            session.add_all([message(id=1), message(id=2)])
            await session.commit()
            (await session.get(message, 1)).status = "PROMOTED"
            await session.flush()
            with pytest.raises(sa.exc.DBAPIError):
                await session.execute(sa.text("SELECT 1 / 0"))
            await session.commit()
            (await session.get(message, 2)).status = "PROMOTED"
            await session.commit()

    run(body())
    assert moves(told) == [(2, "READY", "PROMOTED")]


@pytest.mark.parametrize("async_engine", ["asyncpg", "psycopg_async"], indirect=True)
def test_a_commit_whose_task_is_cancelled_is_cancelled(
    async_engine: AsyncEngine, message: Any, told: list[Any]
) -> None:
    async def move() -> None:
        async with AsyncSession(async_engine) as session:
            (await session.get(message, 1)).status = "PROMOTED"
            await session.flush()
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await session.commit()

    async def body() -> None:
        async with async_engine.begin() as connection:
            await connection.run_sync(message.metadata.create_all)
            await connection.execute(message.__table__.insert(), {"id": 1})
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(move())

    run(body())
    assert not told


@on_sqlite
def test_steps_of_a_row_are_told_in_their_order(engine: sa.Engine, base: Any) -> None:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")

    guard(Message.status, TransitionTable("NEW → PROMOTED → COMPLETED", "READY → PROMOTED"), steps=True)
    told: list[CommittedMove] = []
    on_commit(Message.status)(told.append)
    base.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": number, "status": "NEW" if number == 9 else "READY"} for number in range(1, 30)]
        connection.execute(sa.insert(Message.__table__), rows)
    with Session(engine) as session:
        for one in session.scalars(sa.select(Message)):
            one.status = "PROMOTED"
            one.status = "COMPLETED"
        session.commit()
    of_each = {number: [m.target for m in told if m.identity == (number,)] for number in range(1, 30)}
    assert of_each == {number: ["PROMOTED", "COMPLETED"] for number in range(1, 30)}


@all_async_backends
def test_an_async_session_tells_after_its_commit(async_engine: AsyncEngine, message: Any) -> None:
    done: list[Any] = []

    async def send(move: CommittedMove) -> None:
        await asyncio.sleep(0)
        done.append(move.identity)

    async def body() -> None:
        tasks: list[Any] = []

        @on_commit(message.status)
        def begin(move: CommittedMove) -> None:
            tasks.append(asyncio.get_running_loop().create_task(send(move)))

        async with async_engine.begin() as connection:
            await connection.run_sync(message.metadata.create_all)
        async with AsyncSession(async_engine) as session:
            one, two = message(id=1), message(id=2)
            session.add_all([one, two])
            await session.flush()
            one.status = "PROMOTED"
            await session.flush()
            async with session.begin_nested() as nested:
                two.status = "PROMOTED"
                await session.flush()
                await nested.rollback()
            assert not tasks
            await session.commit()
        await asyncio.gather(*tasks)

    run(body())
    assert done == [(1,)]


class TestADeclaration:
    def test_needs_a_guard(self, base: Any) -> None:
        class Plain(base):
            __tablename__ = "plain"
            id: Mapped[int] = mapped_column(primary_key=True)

        with pytest.raises(TableError, match="that has no guard"):
            on_commit(Plain.id)

    def test_needs_states_of_the_table(self, message: Any) -> None:
        with pytest.raises(TableError, match=r"target=: 'PROMOTE' is no state.*PROMOTED"):
            on_commit(message.status, target="PROMOTE")
        with pytest.raises(TableError, match="source=: 7 is no state"):
            on_commit(message.status, source=("READY", 7))

    def test_takes_no_async_function_and_nothing_that_cannot_be_called(self, message: Any) -> None:
        async def later(move: CommittedMove) -> None: ...

        with pytest.raises(TableError, match=r"later is an async def"):
            on_commit(message.status)(later)
        with pytest.raises(TableError, match="cannot be called"):
            on_commit(message.status)("later")  # type: ignore[type-var]

    def test_takes_no_function_that_cannot_take_the_move(self, message: Any) -> None:
        def nothing() -> None: ...

        with pytest.raises(TableError, match="nothing.* cannot be called with the move alone"):
            on_commit(message.status)(nothing)  # type: ignore[arg-type]

    def test_needs_at_least_one_state_where_some_are_named(self, message: Any) -> None:
        with pytest.raises(TableError, match="target=: no state is named"):
            on_commit(message.status, target=())

    def test_names_what_was_wrong(self, message: Any) -> None:
        with pytest.raises(TableError, match=r"on_commit\(told\): that has no guard.*@on_commit\(Message.status\)"):

            @on_commit
            def told(move: CommittedMove) -> None: ...

    @pytest.mark.parametrize("kind", ["an object", "a partial"])
    def test_takes_nothing_else_that_is_async(self, message: Any, kind: str) -> None:
        class Sender:
            async def __call__(self, move: CommittedMove) -> None: ...

        async def send(move: CommittedMove) -> None: ...

        function: Any = Sender() if kind == "an object" else functools.partial(send)
        with pytest.raises(TableError, match="is an async def"):
            on_commit(message.status)(function)

    def test_is_for_a_whole_column_and_not_for_a_subclass(self, base: Any) -> None:
        class Parent(base):
            __tablename__ = "parent"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}

        class Child(Parent):
            __mapper_args__ = {"polymorphic_identity": "child"}

        guard(Parent.status, TABLE)
        with pytest.raises(TableError, match=r"belongs to Parent.*Write on_commit\(Parent.status, …\)"):
            on_commit(Child.status)

    def test_gives_the_function_back(self, message: Any) -> None:
        def note(move: CommittedMove) -> None: ...

        assert on_commit(message.__table__.c.status)(note) is note


@on_sqlite
def test_nothing_keeps_a_connection_alive(filled: sa.Engine, message: Any, told: list[Any]) -> None:
    with Session(filled) as session:
        session.get(message, 1).status = "PROMOTED"
        session.flush()
        known = weakref.ref(session.connection())
        session.rollback()
    del session
    gc.collect()
    assert known() is None


def test_a_callback_keeps_no_class_alive() -> None:
    class Base(DeclarativeBase):
        pass

    class Message(Base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str]

    guard(Message.status, TABLE)
    on_commit(Message.status)(lambda move, held=Message: print(held))
    known = weakref.ref(Message)
    Base.registry.dispose()
    del Base, Message
    gc.collect()
    assert known() is None


def test_a_metadata_whose_moves_are_told_can_be_pickled(message: Any) -> None:
    on_commit(message.status)(lambda move: None)
    assert "message" in pickle.loads(pickle.dumps(message.metadata)).tables


@on_sqlite
def test_a_session_and_its_connection_need_no_garbage_collection(
    filled: sa.Engine, message: Any, told: list[Any]
) -> None:
    gc.collect()
    gc.disable()
    try:
        session = Session(filled)
        session.get(message, 1).status = "PROMOTED"
        known = weakref.ref(session.connection())
        session.commit()
        session.close()
        del session
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_two_phases_tell_after_the_second(filled: sa.Engine, message: Any, told: list[Any]) -> None:
    with filled.connect() as connection:
        if connection.exec_driver_sql("SHOW max_prepared_transactions").scalar() == "0":
            pytest.skip("the server has max_prepared_transactions = 0")
    with Session(filled, twophase=True) as session:
        session.get(message, 1).status = "PROMOTED"
        session.prepare()
        assert not told
        session.rollback()
        session.get(message, 2).status = "PROMOTED"
        session.prepare()
        assert not told
        session.commit()
    assert moves(told) == [(2, "READY", "PROMOTED")]


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_a_commit_that_the_database_refuses_tells_nothing(filled: sa.Engine, message: Any, told: list[Any]) -> None:
    with filled.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE message ADD CONSTRAINT one_subject UNIQUE (subject) DEFERRABLE INITIALLY DEFERRED"
        )
    with Session(filled) as session:
        one, two = session.get(message, 1), session.get(message, 2)
        one.status, one.subject, two.subject = "PROMOTED", "same", "same"
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        session.get(message, 3).status = "PROMOTED"
        session.commit()
    assert moves(told) == [(3, "READY", "PROMOTED")]


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_threads_are_told_of_what_they_committed(filled: sa.Engine, message: Any, told: list[Any]) -> None:
    with filled.begin() as connection:
        connection.execute(message.__table__.insert(), [{"id": number} for number in range(100, 340)])

    def work(first: int) -> None:
        rng = random.Random(first)
        with Session(filled) as session:
            for number in range(first, first + 30):
                session.get(message, number).status = "PROMOTED"
                if rng.random() < 0.3:
                    session.flush()
                elif rng.random() < 0.5:
                    session.rollback()
                else:
                    session.commit()

    threads = [threading.Thread(target=work, args=(100 + 30 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(filled) as session:
        moved = set(session.scalars(sa.select(message.id).where(message.status == "PROMOTED")))
    assert len(told) == len(moved)
    assert {move.identity[0] for move in told if move.identity} == moved
