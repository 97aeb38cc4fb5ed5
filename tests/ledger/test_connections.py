"""The ledger's own connections: how they are made, and when they are closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from statekit import IllegalTransition, ledger
from tests.ledger.books import attached, capture, inbox
from tests.support.databases import Databases


def connections(engine: sa.Engine) -> int:
    """Return how many connections others have to the database."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        return connection.execute(sa.text(others)).scalar_one()


def test_are_in_transactions_whatever_the_applications_are(postgres_engine: sa.Engine) -> None:
    message = inbox(postgres_engine, "PROMOTED")
    engine = sa.create_engine(postgres_engine.url, isolation_level="AUTOCOMMIT")
    with attached(engine) as writer:
        with Session(engine) as session:
            capture(session, message, 1)
        store: Any = writer._store
        with store._here().connect() as connection:
            assert connection.get_isolation_level() == "READ COMMITTED"
    engine.dispose()


def test_are_closed_when_the_engine_is_disposed_of(postgres_engine: sa.Engine) -> None:
    message = inbox(postgres_engine, "PROMOTED")
    engine = sa.create_engine(postgres_engine.url)
    with attached(engine):
        with Session(engine) as session:
            capture(session, message, 1)
        engine.dispose()
        assert connections(postgres_engine) == 0


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg_async"])
def test_do_not_outlive_their_event_loop(postgres_engine: sa.Engine, driver: str) -> None:
    pytest.importorskip("asyncpg")
    message = inbox(postgres_engine, "PROMOTED")
    engine = create_async_engine(postgres_engine.url.set(drivername=driver), poolclass=sa.NullPool)

    async def work() -> None:
        async with AsyncSession(engine) as session:
            (await session.get(message, 1)).status = "SPAM_REVIEW"  # type: ignore[attr-defined]
            with pytest.raises(IllegalTransition):
                await session.flush()

    ledger.attach(engine)
    try:
        for _ in range(5):
            asyncio.run(work())
        assert connections(postgres_engine) == 0
    finally:
        ledger.detach(engine)


def test_of_a_driver_for_asyncio_are_closed_with_the_engine(databases: Databases, postgres_engine: sa.Engine) -> None:
    pytest.importorskip("asyncpg")
    message = inbox(postgres_engine, "PROMOTED")
    engine = create_async_engine(postgres_engine.url.set(drivername="postgresql+asyncpg"))

    async def work() -> None:
        async with AsyncSession(engine) as session:
            (await session.get(message, 1)).status = "SPAM_REVIEW"  # type: ignore[attr-defined]
            with pytest.raises(IllegalTransition):
                await session.flush()
        await engine.dispose()

    with attached(engine):
        asyncio.run(work())
        assert connections(postgres_engine) == 0
