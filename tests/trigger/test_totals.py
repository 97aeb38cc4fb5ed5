"""``statekit.counts(attribute, bind=…)``: blocked moves of this process, and those that the database has counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import statekit
from statekit import IllegalTransition, StatekitError, TransitionTable
from statekit.observe.counts import only_here
from tests.support.databases import Databases, execute, run
from tests.trigger.messages import TABLE, guarded, refused, trigger


class TestCounts:
    """``statekit.counts(attribute, bind=…)``."""

    @pytest.fixture
    def model(self, postgres_engine: sa.Engine) -> Any:
        """Return a class Message, which the database has blocked one move of."""
        model = guarded()
        model.metadata.create_all(postgres_engine)
        execute(postgres_engine, f"INSERT INTO {model.__tablename__} VALUES (1, 'READY', '')")
        refused(postgres_engine, f"UPDATE {model.__tablename__} SET status = 'COMPLETED'")
        return model

    COUNTED = Counter({("READY", "COMPLETED"): 1})

    def test_of_an_engine(self, postgres_engine: sa.Engine, model: Any) -> None:
        assert statekit.counts(model.status, bind=postgres_engine) == self.COUNTED

    def test_of_a_connection(self, postgres_engine: sa.Engine, model: Any) -> None:
        with postgres_engine.connect() as connection:
            assert statekit.counts(model.status, bind=connection) == self.COUNTED

    def test_of_a_session(self, postgres_engine: sa.Engine, model: Any) -> None:
        with Session(postgres_engine) as session:
            assert statekit.counts(model.status, bind=session) == self.COUNTED

    @pytest.mark.parametrize("backend", ["asyncpg", "psycopg_async"])
    def test_of_an_async_connection(self, databases: Databases, backend: str, model: Any) -> None:
        async def read() -> Counter[Any]:
            async with databases.async_engine(backend).connect() as connection:
                return await connection.run_sync(lambda sync: statekit.counts(model.status, bind=sync))

        assert run(read()) == self.COUNTED

    def test_of_an_async_engine_says_what_to_write(self, databases: Databases, model: Any) -> None:
        engine: AsyncEngine = databases.async_engine("asyncpg")
        with pytest.raises(StatekitError, match="run_sync"):
            statekit.counts(model.status, bind=engine)  # type: ignore[arg-type]

    def test_without_a_bind_are_those_of_this_process(self, postgres_engine: sa.Engine, model: Any) -> None:
        """What the database has blocked is counted there, and not here again."""
        assert statekit.counts(model.status) == {}

    def test_sum_the_process_and_the_database(self, postgres_engine: sa.Engine, model: Any) -> None:
        with Session(postgres_engine) as session, pytest.raises(IllegalTransition):
            session.get(model, 1).status = "COMPLETED"
            session.flush()
        assert statekit.counts(model.status, bind=postgres_engine) == {("READY", "COMPLETED"): 2}

    def test_of_one_attribute_are_not_those_of_another(self, postgres_engine: sa.Engine, model: Any) -> None:
        other = guarded()
        other.metadata.create_all(postgres_engine)
        assert statekit.counts(other.status, bind=postgres_engine) == {}
        assert statekit.counts(model.status, bind=postgres_engine) == self.COUNTED

    def test_without_an_attribute_are_those_of_the_whole_database(self, postgres_engine: sa.Engine, model: Any) -> None:
        execute(postgres_engine, TABLE.replace("mail", "bare"), *trigger(table="bare").create_sql("postgresql"))
        refused(postgres_engine, "INSERT INTO bare VALUES (1, 'PROMOTED')")
        everything = statekit.counts(bind=postgres_engine)
        everything.subtract(only_here())  # by other tests of this process
        assert +everything == {("READY", "COMPLETED"): 1, (None, "PROMOTED"): 1}

    def test_are_none_where_no_trigger_was_ever_made(self, postgres_engine: sa.Engine) -> None:
        model = guarded()
        assert statekit.counts(model.status, bind=postgres_engine) == {}

    def test_are_none_on_sqlite(self, sqlite_engine: sa.Engine) -> None:
        model = guarded()
        assert statekit.counts(model.status, bind=sqlite_engine) == {}

    @pytest.mark.parametrize("bind", ["postgresql:///x", 1])
    def test_of_what_is_no_bind_are_refused(self, bind: Any) -> None:
        model = guarded()
        with pytest.raises(StatekitError, match="allowed is an Engine, a Connection or a Session"):
            statekit.counts(model.status, bind=bind)

    def test_of_what_has_no_guard_are_refused(self, postgres_engine: sa.Engine) -> None:
        model = guarded(table=None)
        with pytest.raises(StatekitError, match="has no guard"):
            statekit.counts(model.status, bind=postgres_engine)

    def test_name_states_as_the_database_stores_them(self, postgres_engine: sa.Engine) -> None:
        model = guarded(table=TransitionTable("1 → 2", initial="1"), type_=sa.Integer, default=1)
        model.metadata.create_all(postgres_engine)
        execute(postgres_engine, f"INSERT INTO {model.__tablename__} VALUES (1, 1, '')")
        execute(postgres_engine, f"UPDATE {model.__tablename__} SET status = 2")
        refused(postgres_engine, f"UPDATE {model.__tablename__} SET status = 1")
        assert statekit.counts(model.status, bind=postgres_engine) == {("2", "1"): 1}
