"""A guard above a trigger that is stricter than it, as when the application was deployed before its migration."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from statekit import IllegalTransition, counts, operation
from statekit.trigger import StateTrigger
from tests.guards.inbox import fill, load, message_class, stored
from tests.support.databases import all_sync_backends, execute, on_postgresql, run

FORBIDDEN = ("READY", "SPAM_REVIEW")


def put(engine: sa.Engine, mode: Any) -> None:
    """Make a trigger that knows SPAM_REVIEW and no way there."""
    trigger = StateTrigger(
        "message",
        "status",
        [("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")],
        initial=["READY"],
        on_illegal=mode,
        states=["SPAM_REVIEW"],
    )
    execute(engine, *trigger.create_sql(engine.dialect))


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    message = message_class()
    fill(engine, message, "READY", "READY", "PROMOTED")
    return message


@all_sync_backends
class TestInRaise:
    def test_a_flush_gets_the_error_of_the_guard(self, engine: sa.Engine, message: Any) -> None:
        put(engine, "raise")
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            load(session, message)[0].status = "SPAM_REVIEW"
            session.flush()
        assert (caught.value.model, caught.value.attribute) == ("Message", "status")
        assert (caught.value.source, caught.value.target) == FORBIDDEN
        assert caught.value.__cause__ is not None
        assert stored(engine, message) == ["READY", "READY", "PROMOTED"]

    def test_the_move_is_counted_once(self, engine: sa.Engine, message: Any) -> None:
        """By the database where it can, else by the process."""
        put(engine, "raise")
        with Session(engine) as session, pytest.raises(IllegalTransition):
            load(session, message)[0].status = "SPAM_REVIEW"
            session.flush()
        in_process = {FORBIDDEN: 1} if engine.dialect.name == "sqlite" else {}
        assert counts(message.status) == in_process
        assert counts(message.status, bind=engine) == {FORBIDDEN: 1}

    def test_nothing_is_reported_as_moved(self, engine: sa.Engine, message: Any) -> None:
        put(engine, "raise")
        with operation("job") as op, Session(engine) as session, pytest.raises(IllegalTransition):
            session.execute(sa.update(message).values(status="SPAM_REVIEW").where(message.status == "READY"))
        assert op.moved == 0


@all_sync_backends
class TestInSkip:
    def test_a_flush_says_that_rows_are_missing(self, engine: sa.Engine, message: Any) -> None:
        put(engine, "skip")
        with operation("job") as op, Session(engine) as session:
            for each in load(session, message)[:2]:
                each.status = "SPAM_REVIEW"
            with pytest.raises(StaleDataError):
                session.flush()
        assert op.moved == 0

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_a_statement_reports_what_really_moved(self, engine: sa.Engine, message: Any, mode: Any) -> None:
        """Two rows stay, because the trigger keeps them; the third could move."""
        put(engine, "skip")
        target = sa.case((message.id == 3, "COMPLETED"), else_="SPAM_REVIEW")
        with operation("job", on_illegal=mode) as op, Session(engine) as session:
            result: Any = session.execute(sa.update(message).values(status=target))
            session.commit()
        assert result.rowcount == 1
        assert op.allowed == {("PROMOTED", "COMPLETED"): 1}
        assert stored(engine, message) == ["READY", "READY", "COMPLETED"]

    def test_objects_in_the_session_do_not_say_that_they_moved(self, engine: sa.Engine, message: Any) -> None:
        put(engine, "skip")
        with Session(engine) as session:
            loaded = load(session, message)
            session.execute(sa.update(message).values(status="SPAM_REVIEW").where(message.id < 3))
            assert [each.status for each in loaded] == ["READY", "READY", "PROMOTED"]


@on_postgresql
def test_what_a_trigger_skips_is_counted_by_it(engine: sa.Engine, message: Any) -> None:
    put(engine, "skip")
    with Session(engine) as session:
        session.execute(sa.update(message).values(status="SPAM_REVIEW").where(message.id < 3))
        session.rollback()
    assert counts(message.status, bind=engine) == {FORBIDDEN: 2}


@pytest.mark.parametrize("async_engine", ["asyncpg"], indirect=True)
def test_objects_of_an_async_session_do_not_say_that_they_moved(async_engine: AsyncEngine, databases: Any) -> None:
    message = message_class()
    engine = databases.engine("psycopg")
    fill(engine, message, "READY", "READY")
    put(engine, "skip")

    async def body() -> list[str]:
        async with AsyncSession(async_engine) as session:
            loaded = list(await session.scalars(sa.select(message).order_by(message.id)))
            await session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            return [each.status for each in loaded]

    assert run(body()) == ["READY", "READY"]


@pytest.mark.parametrize("async_engine", ["asyncpg", "psycopg_async", "aiosqlite"], indirect=True)
def test_a_flush_of_several_rows_says_so_on_every_driver(async_engine: AsyncEngine, databases: Any) -> None:
    """asyncpg does not tell how many rows such an UPDATE has met."""
    message = message_class(trigger=True, on_illegal="skip")
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    fill(engine, message, "READY", "READY")
    put(engine, "skip")  # in the place of the trigger that create_all() has made

    async def body() -> None:
        async with AsyncSession(async_engine) as session:
            for each in await session.scalars(sa.select(message)):
                each.status = "SPAM_REVIEW"
            with pytest.raises(StaleDataError):
                await session.flush()

    run(body())
    assert stored(engine, message) == ["READY", "READY"]


@pytest.mark.parametrize("async_engine", ["asyncpg"], indirect=True)
def test_a_flush_of_several_rows_goes_through_where_the_trigger_agrees(
    async_engine: AsyncEngine, databases: Any
) -> None:
    message = message_class(trigger=True, on_illegal="skip")
    engine = databases.engine("psycopg")
    fill(engine, message, "READY", "READY")

    async def body() -> None:
        async with AsyncSession(async_engine) as session:
            for each in await session.scalars(sa.select(message)):
                each.status = "SPAM_REVIEW"
            await session.commit()

    run(body())
    assert stored(engine, message) == ["SPAM_REVIEW", "SPAM_REVIEW"]


@pytest.mark.parametrize("mode", ["raise", "skip"])
@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_a_block_that_observes_lets_nothing_through_that_its_trigger_stops(engine: sa.Engine, mode: Any) -> None:
    """The guard names every row, and the database is not asked to refuse the first."""
    message = message_class(trigger=True, on_illegal=mode)
    fill(engine, message, "READY", "READY")
    with operation("repair", on_illegal="observe") as op, Session(engine) as session:
        for each in load(session, message):
            each.status = "COMPLETED"
        if mode == "raise":
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
            assert len(caught.value.identities) == 2
        else:
            session.flush()
    assert op.blocked == {("READY", "COMPLETED"): 2}
    assert op.observed == {}
    assert stored(engine, message) == ["READY", "READY"]


@pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
def test_a_row_in_an_unknown_state_is_not_to_be_mended_in_a_block_that_observes(engine: sa.Engine) -> None:
    """The guard would let it through, and the trigger does not."""
    message = message_class()
    fill(engine, message, "LOST")
    execute(engine, *StateTrigger.of(message.status).create_sql(engine.dialect))
    with operation("repair", on_illegal="observe"), Session(engine) as session:
        load(session, message)[0].status = "READY"
        with pytest.raises(IllegalTransition, match="mend such rows while the trigger is disabled"):
            session.flush()
