"""The same in an event loop, on every async driver."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

import statekit
from statekit import StatekitError, atransition_all, bulk, transition_all
from statekit.bulk import aprepare, atransition_batches
from tests.bulk.costly import unhurried
from tests.guards.inbox import message_class, unguarded
from tests.support.databases import Databases, all_async_backends, run


async def inbox(engine: AsyncEngine, *states: str, **options: Any) -> Any:
    message = message_class(**options)
    statekit.ledger.add_to(message.metadata)
    rows = [{"id": number, "status": state, "subject": ""} for number, state in enumerate(states, 1)]
    async with engine.begin() as connection:
        await connection.run_sync(message.metadata.create_all)
        await connection.execute(sa.insert(unguarded(message)), rows)
    return message


async def stored(engine: AsyncEngine, message: Any) -> Counter[Any]:
    async with engine.connect() as connection:
        return Counter((await connection.scalars(sa.select(message.__table__.c.status))).all())


@all_async_backends
@unhurried
def test_moves_what_may_move_and_counts_the_rest(async_engine: AsyncEngine) -> None:
    async def body() -> None:
        message = await inbox(async_engine, *["READY"] * 50, "PROMOTED", "PROMOTED")
        told: list[int] = []

        async def tell(result: bulk.BulkResult) -> None:
            await asyncio.sleep(0)
            told.append(result.done)

        result = await atransition_all(
            async_engine, message.status, "SPAM_REVIEW", where=message.id > 0, progress=tell, operation="Spam capture"
        )
        assert str(result) == "Captured 50 / 52 (0 remaining, 2 blocked)"
        assert told == [0, 10, 30, 50]
        assert await stored(async_engine, message) == Counter(SPAM_REVIEW=50, PROMOTED=2)
        assert statekit.counts(message.status) == Counter({("PROMOTED", "SPAM_REVIEW"): 2})

    run(body())


@all_async_backends
def test_an_async_sessionmaker_and_a_callback_for_each_batch(async_engine: AsyncEngine) -> None:
    async def body() -> None:
        message = await inbox(async_engine, *["READY"] * 30)
        identities: list[Any] = []

        async def tell(batch: bulk.Batch) -> None:
            identities.extend(batch.identities)

        maker = async_sessionmaker(async_engine)
        result = await atransition_all(maker, message.status, "SPAM_REVIEW", on_batch=tell)
        assert result.finished
        assert sorted(identities) == [(number,) for number in range(1, 31)]

    run(body())


@all_async_backends
def test_an_iterator_that_is_left_can_be_gone_on_with(async_engine: AsyncEngine) -> None:
    async def body() -> None:
        message = await inbox(async_engine, *["READY"] * 60)
        async for result in atransition_batches(async_engine, message.status, "SPAM_REVIEW"):
            if result.done:
                break
        assert result.done == 10
        again = await atransition_all(async_engine, message.status, "SPAM_REVIEW", job=result.job)
        assert (again.done, again.finished) == (60, True)

    run(body())


@all_async_backends
def test_a_cancelled_task_leaves_whole_batches(async_engine: AsyncEngine) -> None:
    async def body() -> None:
        message = await inbox(async_engine, *["READY"] * 60)
        started = asyncio.Event()

        async def wait(batch: bulk.Batch) -> None:
            started.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(atransition_all(async_engine, message.status, "SPAM_REVIEW", on_batch=wait))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with async_engine.connect() as connection:
            (job,) = await connection.run_sync(bulk.jobs)
        assert (job.done, job.state) == (10, "waiting")
        assert (await stored(async_engine, message))["SPAM_REVIEW"] == 10

    run(body())


@all_async_backends
def test_keeps_its_budget(async_engine: AsyncEngine) -> None:
    async def body() -> None:
        message = await inbox(async_engine, *["READY"] * 60)
        result = await atransition_all(
            async_engine, message.status, "SPAM_REVIEW", rate=20, budget=dt.timedelta(seconds=1)
        )
        assert 0 < result.done < 60
        assert result.elapsed < dt.timedelta(seconds=2)

    run(body())


def test_a_job_that_one_has_begun_is_gone_on_with_by_the_other(databases: Databases) -> None:
    async def body() -> tuple[Any, str]:
        engine = databases.async_engine("asyncpg")
        message = await inbox(engine, *["READY"] * 30, "PROMOTED")
        begun = await aprepare(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
        return message, begun.job

    message, job = run(body())
    result = transition_all(databases.engine("psycopg"), message.status, "SPAM_REVIEW", job=job)
    assert (result.done, result.blocked, result.finished) == (30, 1, True)


@all_async_backends
def test_an_async_engine_is_no_bind_of_the_other(async_engine: AsyncEngine) -> None:
    message = message_class()
    with pytest.raises(StatekitError, match="await atransition_all"):
        transition_all(async_engine, message.status, "SPAM_REVIEW")  # type: ignore[arg-type]


def test_an_engine_is_no_bind_of_this_one(memory_engine: sa.Engine) -> None:
    message = message_class()
    with pytest.raises(StatekitError, match="Without an event loop: transition_all"):
        run(atransition_all(memory_engine, message.status, "SPAM_REVIEW"))  # type: ignore[arg-type]
