"""``guard(..., trigger=True)``: the trigger comes and goes with its table, without a migration."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import mapped_column

from statekit import IllegalTransition, TableError, TransitionTable, guard
from statekit.trigger import StateTrigger
from tests.guards.inbox import TABLE, new_base
from tests.support.databases import execute, run
from tests.trigger.messages import guarded, move, refused


def is_held(engine: sa.Engine, table: sa.Table) -> None:
    """Check that a new row is held to the initial states by the database itself."""
    name = engine.dialect.identifier_preparer.format_table(table)
    error = refused(engine, f"INSERT INTO {name} (id, status) VALUES (1, 'COMPLETED')")
    assert (error.new, move(error)) == (True, (None, "COMPLETED"))


def is_open(engine: sa.Engine, table: sa.Table) -> None:
    execute(engine, f"INSERT INTO {table.fullname} (id, status) VALUES (1, 'COMPLETED')")


def traces(engine: sa.Engine) -> int:
    """Return how many things of statekit's a database has, the schema itself and its reader aside."""
    queries = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE name LIKE '%statekit%'",
        "postgresql": "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname ~ 'statekit')"
        " + (SELECT count(*) FROM pg_proc WHERE proname ~ '^statekit_')"
        " + (SELECT count(*) FROM pg_class WHERE relname ~ '^statekit_')",
    }
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(queries[engine.dialect.name])) or 0)


class TestCreateAll:
    def test_makes_it(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        model.metadata.create_all(engine)
        is_held(engine, model.__table__)

    @pytest.mark.parametrize("trigger", [None, False])
    def test_makes_none_unless_it_is_asked_to(self, engine: sa.Engine, trigger: bool | None) -> None:
        model = guarded(trigger=trigger)
        model.metadata.create_all(engine)
        is_open(engine, model.__table__)

    def test_makes_it_in_the_mode_of_the_guard(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True, on_illegal="skip")
        model.metadata.create_all(engine)
        name = model.__tablename__
        execute(engine, f"INSERT INTO {name} VALUES (1, 'READY', '')", f"UPDATE {name} SET status = 'COMPLETED'")
        with engine.connect() as connection:
            assert connection.scalar(sa.text(f"SELECT status FROM {name}")) == "READY"

    def test_a_second_time_changes_nothing(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        model.metadata.create_all(engine)
        before = traces(engine)
        model.metadata.create_all(engine)
        assert traces(engine) == before

    def test_on_async_engines(self, async_engine: AsyncEngine) -> None:
        model = guarded(trigger=True)

        async def attempt() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(model.metadata.create_all)
                await connection.execute(sa.text(f"INSERT INTO {model.__tablename__} VALUES (1, 'COMPLETED', '')"))

        with pytest.raises(IllegalTransition):
            run(attempt())

    def test_of_a_table_without_a_mapper(self, engine: sa.Engine) -> None:
        table = sa.Table(
            "bare_status",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("status", sa.String(20)),
        )
        guard(table.c.status, TABLE, trigger=True)
        table.create(engine)
        is_held(engine, table)

    def test_of_a_native_enum(self, postgres_engine: sa.Engine) -> None:
        """The type is made before the table."""
        type_ = sa.Enum("READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED", name="status")
        model = guarded(type_=type_, trigger=True)
        model.metadata.create_all(postgres_engine)
        is_held(postgres_engine, model.__table__)

    def test_in_a_schema(self, postgres_engine: sa.Engine) -> None:
        table = sa.Table(
            "Bare Status",
            sa.MetaData(schema="Some App"),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("status", sa.String(20)),
        )
        guard(table.c.status, TABLE, trigger=True)
        execute(postgres_engine, 'CREATE SCHEMA "Some App"')
        table.metadata.create_all(postgres_engine)
        is_held(postgres_engine, table)

    def test_under_a_schema_translate_map(self, postgres_engine: sa.Engine) -> None:
        """The trigger is made where the table is."""
        model = guarded(trigger=True)
        execute(postgres_engine, "CREATE SCHEMA tenant")
        translated = postgres_engine.execution_options(schema_translate_map={None: "tenant"})
        model.metadata.create_all(translated)
        refused(postgres_engine, f"INSERT INTO tenant.{model.__tablename__} VALUES (1, 'COMPLETED')")

    def test_with_states_that_hold_percent_signs_and_colons(self, engine: sa.Engine) -> None:
        table = TransitionTable(("100 %", ":half %(x)s"), (":half %(x)s", "COMPLETED"), initial="100 %")
        model = guarded(table=table, default="100 %", trigger=True)
        model.metadata.create_all(engine)
        with engine.connect() as connection, pytest.raises(IllegalTransition) as caught:
            insert = f"INSERT INTO {model.__tablename__} (id, status) VALUES (1, :state)"
            connection.execute(sa.text(insert), {"state": ":half %(x)s"})
        assert caught.value.target == ":half %(x)s"


class TestDropAll:
    def test_leaves_nothing(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        model.metadata.create_all(engine)
        assert traces(engine)
        model.metadata.drop_all(engine)
        assert traces(engine) == 0

    def test_and_create_all_again_works(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        for _ in range(2):
            model.metadata.create_all(engine)
            is_held(engine, model.__table__)
            model.metadata.drop_all(engine)

    def test_works_where_a_trigger_was_dropped_by_hand(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        model.metadata.create_all(engine)
        execute(engine, *StateTrigger.of(model.status).drop_sql(engine.dialect))
        model.metadata.drop_all(engine)
        assert traces(engine) == 0


class TestACopyOfATable:
    def test_in_another_metadata_has_it(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        copy = model.__table__.to_metadata(sa.MetaData())
        copy.metadata.create_all(engine)
        is_held(engine, copy)
        copy.metadata.drop_all(engine)
        assert traces(engine) == 0

    def test_in_another_schema_has_one_of_its_own(self, postgres_engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        execute(postgres_engine, "CREATE SCHEMA archive")
        copy = model.__table__.to_metadata(sa.MetaData(), schema="archive")
        model.metadata.create_all(postgres_engine)
        copy.metadata.create_all(postgres_engine)
        copy.metadata.drop_all(postgres_engine)
        is_held(postgres_engine, model.__table__)

    def test_of_another_name_has_one_of_its_own(self, engine: sa.Engine) -> None:
        model = guarded(trigger=True)
        copy = model.__table__.to_metadata(sa.MetaData(), name=f"{model.__tablename__}_copy")
        copy.metadata.create_all(engine)
        error = refused(engine, f"INSERT INTO {copy.name} (id, status) VALUES (1, 'COMPLETED')")
        assert error.model in (copy.name, StateTrigger(copy.name, "status", TABLE, initial=None).name)


class TestWhereNothingIsExecuted:
    @pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
    def test_it_is_printed_as_it_would_be_executed(self, dialect: str) -> None:
        table = TransitionTable(("100 %", "50 %"), initial="100 %")
        model = guarded(table=table, default="100 %", trigger=True)
        printed = mocked(f"{dialect}://", model.metadata.create_all)
        made = StateTrigger.of(model.status).create_sql(dialect)
        assert [statement.strip() for statement in printed[1:]] == list(made)

    def test_it_is_left_out_where_a_database_has_none_of_ours(self) -> None:
        model = guarded(trigger=True)
        assert len(mocked("mysql+pymysql://", model.metadata.create_all)) == 1
        assert len(mocked("mysql+pymysql://", model.metadata.drop_all)) == 1

    def test_its_removal_comes_before_that_of_the_table(self) -> None:
        model = guarded(trigger=True)
        printed = mocked("postgresql://", model.metadata.drop_all)
        assert [statement.strip() for statement in printed[:1]] == list(
            StateTrigger.of(model.status).drop_sql("postgresql")
        )
        assert printed[-1].strip().startswith("DROP TABLE")


def mocked(url: str, action: Any) -> list[str]:
    """Return what an engine that only prints is told to execute, as its driver would get it without parameters."""
    texts: list[str] = []

    def note(ddl: Any, *args: Any, **options: Any) -> None:
        text = str(ddl.compile(dialect=engine.dialect))
        # A driver that takes %s for a parameter reads %% as one sign.
        texts.append(text.replace("%%", "%") if engine.dialect.identifier_preparer._double_percents else text)

    engine = sa.create_mock_engine(url, note)
    action(engine, checkfirst=False)
    return texts


class TestBadInput:
    @pytest.mark.parametrize("trigger", ["yes", 1, "always"])
    def test_is_refused(self, trigger: Any) -> None:
        with pytest.raises(TableError, match="allowed: True, False, or None"):
            guarded(trigger=trigger)

    def test_leaves_no_trigger_behind_when_the_guard_fails(self, engine: sa.Engine) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task_that_failed"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="LOST")

        with pytest.raises(TableError):
            guard(Task.status, TABLE, trigger=True)
        Task.metadata.create_all(engine)
        assert traces(engine) == 0
