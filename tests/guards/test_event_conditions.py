"""When a flush asks the conditions of a move: again after whatever may have changed, and about the row as it is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, Session, deferred, mapped_column

import statekit
from statekit import (
    Guarded,
    IllegalTransition,
    Transition,
    TransitionRefused,
    TransitionTable,
    available,
    can,
    counts,
    guard,
    operation,
)
from tests.support.databases import all_async_backends, all_sync_backends, on_sqlite, run

PROMOTE = Transition("READY", "PROMOTED", event="promote", conditions="may_be_promoted")
TABLE = TransitionTable(PROMOTE, "READY → SPAM_REVIEW → PROMOTED → COMPLETED", initial="READY")


def message_of(base: Any, *, table: TransitionTable = TABLE, status: Any = None, **options: Any) -> Any:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        author: Mapped[str | None]
        asked: list[str] = []

        def may_be_promoted(self) -> bool:
            self.asked.append(self.status)
            return self.author is not None

    Message.status = mapped_column(sa.String(20), default="READY") if status is None else status
    guard(Message.status, table, **options)
    return Message


@pytest.fixture
def message(base: Any) -> Any:
    return message_of(base)


@pytest.fixture
def session(engine: sa.Engine, message: Any) -> Any:
    message.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([message(id=1, author="Ada"), message(id=2)])
        session.commit()
        yield session


def refused(session: Session) -> TransitionRefused:
    with pytest.raises(TransitionRefused) as caught:
        session.flush()
    session.rollback()
    return caught.value


def stored(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT status FROM message ORDER BY id")))


@all_sync_backends
class TestWhatAnEventWasTold:
    """It counts for the flush that writes it, and no longer."""

    def promoted(self, session: Session, message: Any) -> Any:
        one = session.get(message, 1)
        one.promote()
        return one

    @pytest.mark.parametrize("forget", ["rollback", "expire", "refresh", "commit"])
    def test_is_forgotten(self, session: Session, message: Any, forget: str) -> None:
        one = self.promoted(session, message)
        if forget in ("expire", "refresh"):
            getattr(session, forget)(one)
        else:
            getattr(session, forget)()
        one.author = None
        if forget == "commit":
            session.execute(sa.text("UPDATE message SET status = 'READY'"))
            session.commit()
        one.status = "PROMOTED"
        assert refused(session).condition == "may_be_promoted"

    def test_is_forgotten_where_the_attribute_alone_is_expired(self, session: Session, message: Any) -> None:
        one = self.promoted(session, message)
        session.expire(one, ["status"])
        one.author = None
        one.status = "PROMOTED"
        assert refused(session).condition == "may_be_promoted"

    def test_goes_with_the_object_out_of_a_session_and_into_another(
        self, session: Session, message: Any, engine: sa.Engine
    ) -> None:
        one = self.promoted(session, message)
        session.expunge(one)
        message.asked.clear()
        with Session(engine) as other:
            other.add(one)
            other.commit()
        assert (stored(engine)[0], message.asked) == ("PROMOTED", [])

    def test_is_not_merged_into_another_object(self, session: Session, message: Any, engine: sa.Engine) -> None:
        one = self.promoted(session, message)
        session.expunge(one)
        one.author = None
        with Session(engine) as other:
            other.merge(one)
            assert refused(other).identity == (1,)


@all_sync_backends
class TestAMerge:
    def test_is_asked(self, session: Session, message: Any) -> None:
        session.merge(message(id=2, status="PROMOTED"))
        assert refused(session).identity == (2,)

    def test_is_asked_with_what_was_merged(self, session: Session, message: Any, engine: sa.Engine) -> None:
        session.merge(message(id=2, status="PROMOTED", author="Bob"))
        session.commit()
        assert stored(engine)[1] == "PROMOTED"


@all_sync_backends
class TestTheSource:
    """Conditions belong to a move; which one it is, the row says."""

    def test_that_is_expired_is_read(self, session: Session, message: Any) -> None:
        one = session.get(message, 2)
        session.expire(one, ["status"])
        one.status = "PROMOTED"
        assert (refused(session).source, message.asked) == ("READY", ["READY"])

    def test_that_is_deferred_is_read(self, engine: sa.Engine, base: Any) -> None:
        column = sa.Column("status", sa.String(20), default="READY")
        message = message_of(base, status=deferred(column))
        base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(message(id=1))
            session.commit()
            session.expunge_all()
            session.get(message, 1).status = "PROMOTED"
            assert refused(session).source == "READY"

    def test_that_was_moved_meanwhile_to_where_no_condition_is_passes(
        self, session: Session, message: Any, engine: sa.Engine
    ) -> None:
        two = session.get(message, 2)
        session.expire(two, ["status"])
        session.commit()
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 2"))
        two.status = "PROMOTED"
        session.commit()
        assert (stored(engine)[1], message.asked) == ("PROMOTED", [])

    def test_of_a_race_is_the_row_and_the_loser_is_refused_by_the_table(
        self, session: Session, message: Any, engine: sa.Engine
    ) -> None:
        one = session.get(message, 1)
        assert one.status == "READY"
        session.commit()
        with Session(engine, expire_on_commit=False) as late, Session(engine) as early:
            mine = late.get(message, 1)
            late.commit()
            theirs = early.get(message, 1)
            theirs.status = "PROMOTED"
            early.flush()
            theirs.status = "COMPLETED"
            early.commit()
            mine.promote()
            with pytest.raises(IllegalTransition, match="from COMPLETED to PROMOTED"):
                late.flush()

    def test_that_the_object_was_given_to_and_fro_is_no_move(self, session: Session, message: Any) -> None:
        two = session.get(message, 2)
        two.status = "PROMOTED"
        two.status = "READY"
        session.commit()
        assert message.asked == []

    def test_of_a_new_row_is_none_so_that_nothing_is_asked(self, session: Session, message: Any) -> None:
        session.add(message(id=3))
        session.commit()
        assert message.asked == []


@all_sync_backends
class TestSteps:
    def test_are_each_asked_in_their_own_state(self, engine: sa.Engine, base: Any) -> None:
        table = TransitionTable(
            PROMOTE, Transition("PROMOTED", "COMPLETED", conditions="may_be_promoted"), initial="READY"
        )
        message = message_of(base, table=table, steps=True)
        base.metadata.create_all(engine)
        with Session(engine) as session, operation("Steps") as op:
            one = message(id=1, author="Ada")
            session.add(one)
            session.flush()
            one.status = "PROMOTED"
            one.status = "COMPLETED"
            session.commit()
        assert message.asked == ["READY", "PROMOTED"]
        assert op.allowed == {("READY", "PROMOTED"): 1, ("PROMOTED", "COMPLETED"): 1}

    def test_are_all_refused_where_one_is(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, steps=True)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            one = message(id=1)
            session.add(one)
            session.commit()
            one.status = "PROMOTED"
            one.status = "COMPLETED"
            error = refused(session)
        assert (error.source, error.target, stored(engine)) == ("READY", "PROMOTED", ["READY"])


@on_sqlite
class TestNumbers:
    def test_a_refused_flush_is_counted_once_for_each_attempt(self, session: Session, message: Any) -> None:
        for _ in range(3):
            session.get(message, 2).status = "PROMOTED"
            refused(session)
        assert counts(message.status) == {("READY", "PROMOTED"): 3}

    def test_skipped_objects_are_loaded_again_and_the_others_written(
        self, session: Session, message: Any, engine: sa.Engine
    ) -> None:
        one, two = session.get(message, 1), session.get(message, 2)
        with operation("Night", on_illegal="skip") as op:
            one.status = two.status = "PROMOTED"
            session.commit()
        assert (stored(engine), two.status) == (["PROMOTED", "READY"], "READY")
        assert (op.moved, op.blocked) == (1, {("READY", "PROMOTED"): 1})

    def test_observed_and_allowed_ones_are_told_apart(self, session: Session, message: Any, engine: sa.Engine) -> None:
        one, two = session.get(message, 1), session.get(message, 2)
        with operation("Night", on_illegal="observe") as op:
            one.status = two.status = "PROMOTED"
            session.commit()
        assert stored(engine) == ["PROMOTED", "PROMOTED"]
        assert (op.allowed, op.observed) == ({("READY", "PROMOTED"): 1}, {("READY", "PROMOTED"): 1})

    def test_one_error_names_all_rows(self, session: Session, message: Any) -> None:
        session.add(message(id=3))
        session.flush()
        for each in session.scalars(sa.select(message).where(message.id > 1)).all():
            each.status = "PROMOTED"
        error = refused(session)
        assert (error.identities, error.pairs) == (((2,), (3,)), {("READY", "PROMOTED"): 2})


@on_sqlite
def test_the_log_names_the_condition_and_the_operation(
    session: Session, message: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "statekit"), operation("Night"):
        session.get(message, 2).status = "PROMOTED"
        refused(session)
    (record,) = [each for each in caplog.records if each.__dict__.get("statekit_kind") == "blocked"]
    assert record.getMessage() == (
        "[SELF-HEAL] Blocked invalid transition: READY → PROMOTED on Message(2).status "
        "(the condition may_be_promoted says no; mode: raise; operation: Night)"
    )
    assert (record.__dict__["statekit_condition"], record.__dict__["statekit_operation"]) == (
        "may_be_promoted",
        "Night",
    )


@on_sqlite
class TestAskingWithoutDoing:
    def test_leaves_a_pending_change_as_it_is(self, session: Session, message: Any) -> None:
        two = session.get(message, 2)
        two.status = "SPAM_REVIEW"
        assert [each.target for each in available(two)] == ["SPAM_REVIEW"]
        assert can(two, "PROMOTED") is False
        assert (two.status, sa.inspect(two).attrs.status.history.added) == ("SPAM_REVIEW", ["SPAM_REVIEW"])


def test_a_condition_that_fails_when_it_is_asked_for_fails_to_the_caller(base: Any) -> None:
    def fail(one: object) -> bool:
        raise ZeroDivisionError

    message = message_of(base, table=TransitionTable(Transition("READY", "PROMOTED", conditions=fail)))
    one = message(status="READY")
    with pytest.raises(ZeroDivisionError):
        can(one, "PROMOTED")
    assert one.status == "READY"


@on_sqlite
def test_a_condition_that_fails_in_a_flush_writes_nothing(engine: sa.Engine, base: Any) -> None:
    def fail(one: object) -> bool:
        raise ZeroDivisionError

    message = message_of(base, table=TransitionTable(Transition("READY", "PROMOTED", conditions=fail)))
    base.metadata.create_all(engine)
    with Session(engine) as session:
        one = message(id=1)
        session.add(one)
        session.commit()
        one.status = "PROMOTED"
        with pytest.raises(ZeroDivisionError):
            session.flush()
        assert one.status == "PROMOTED"
        session.rollback()
    assert (stored(engine), counts(message.status)) == (["READY"], {})


# --- async ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def letter(base: Any) -> Any:
    class Letter(Guarded, base):
        __tablename__ = "letter"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        author: Mapped[str | None]
        log: list[Any] = []

        __transitions__ = {
            "status": TransitionTable(
                Transition("READY", "PROMOTED", "promote", conditions=lambda one: one.author is not None),
                Transition("PROMOTED", "COMPLETED", "complete"),
                initial="READY",
            )
        }

        @statekit.event
        async def promote(self, seconds: float = 0) -> None:
            self.log.append(("begin", self.author))
            await asyncio.sleep(seconds)
            self.log.append(("end", self.author))

    return Letter


@all_async_backends
class TestInAnAsyncSession:
    def open(self, async_engine: AsyncEngine, letter: Any, body: Any) -> None:
        async def whole() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(letter.metadata.create_all)
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                session.add_all([letter(id=1, author="Ada"), letter(id=2)])
                await session.commit()
                await body(session)

        run(whole())

    def test_an_assignment_is_asked(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            two = await session.get(letter, 2)
            two.status = "PROMOTED"
            with pytest.raises(TransitionRefused):
                await session.flush()

        self.open(async_engine, letter, body)

    def test_an_expired_source_is_read(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            two = await session.get(letter, 2)
            session.expire(two, ["status"])
            two.status = "PROMOTED"
            with pytest.raises(TransitionRefused, match="from READY to PROMOTED"):
                await session.flush()

        self.open(async_engine, letter, body)

    def test_a_skipped_object_is_loaded_again(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            two = await session.get(letter, 2)
            async with operation("Night", on_illegal="skip"):
                two.status = "PROMOTED"
                await session.commit()
            assert two.status == "READY"

        self.open(async_engine, letter, body)

    def test_a_timeout_in_an_event_leaves_the_state(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            one = await session.get(letter, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await one.promote(10)
            assert (one.status, list(session.dirty)) == ("READY", [])

        self.open(async_engine, letter, body)

    def test_events_of_two_objects_run_side_by_side(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            one, two = await session.get(letter, 1), await session.get(letter, 2)
            two.author = "Bob"
            assert await asyncio.gather(one.promote(0.02), two.promote(0.01)) == [True, True]
            assert letter.log == [("begin", "Ada"), ("begin", "Bob"), ("end", "Bob"), ("end", "Ada")]
            await session.commit()
            assert (one.status, two.status) == ("PROMOTED", "PROMOTED")

        self.open(async_engine, letter, body)

    def test_events_that_wait_for_nothing_are_plain_methods(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body(session: AsyncSession) -> None:
            one = await session.get(letter, 1)
            await one.promote()
            assert one.complete() is True
            assert one.status == "COMPLETED"

        self.open(async_engine, letter, body)
