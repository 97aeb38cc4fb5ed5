"""The history: a row for each move that happened, whoever writes it, and never two."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, StatekitError, TableError, TransitionTable, guard, ledger, operation, override
from tests.guards.inbox import TABLE, fill, message_class
from tests.history.ways import WAYS, Way, check, inbox, rows, start

MOVES = {
    "add": 3, "core_insert_of_one": 1, "core_insert_of_several": 2, "core_insert_with_keys": 2,
    "core_insert_of_several_values": 2, "core_insert_returning": 2, "insert_from_select": 4, "orm_bulk_insert": 2,
    "orm_bulk_insert_returning": 2, "flush": 10, "flush_of_new_and_old": 6, "orm_update": 8, "core_update_of_one": 5,
    "update_by_key": 6, "executemany": 12, "update_by_expression": 8, "update_returning": 8, "upsert": 9,
    "upsert_to_proposed": 9, "upsert_do_nothing": 5,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
class TestReplayed:
    def test_written_by_the_guard_it_gives_the_rows(self, engine: sa.Engine, way: Way) -> None:
        message = inbox(engine)
        way(engine, message)
        assert check(engine, message) == MOVES[way.__name__]

    def test_written_by_the_trigger_it_gives_the_rows(self, engine: sa.Engine, way: Way) -> None:
        message = inbox(engine, trigger=True)
        way(engine, message)
        assert check(engine, message) == MOVES[way.__name__]


@pytest.fixture(params=["guard", "trigger"])
def by_trigger(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "trigger")


class TestARow:
    def test_says_who_what_and_from_where(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 1)
        with operation("Promotion"), Session(engine) as session:
            session.get(message, 1).status = "PROMOTED"
            session.commit()
        last = rows(engine, "table_name", "column_name", "key", "kind", "operation", "actor", "place", "role")[-1]
        assert last[:6] == ("message", "status", ["1"], "allowed", "Promotion", None)
        assert last[6].startswith(f"{__name__}:")
        assert last[7] == (engine.url.username if engine.dialect.name == "postgresql" else None)

    def test_of_a_statement_says_the_same(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 1)
        with operation("Promotion"), engine.begin() as connection:
            connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
        operation_name, place = rows(engine, "operation", "place")[-1]
        assert operation_name == "Promotion"
        assert place.startswith(f"{__name__}:")

    def test_goes_with_its_transaction(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        with Session(engine) as session:
            session.add(message())
            session.flush()
            session.rollback()
        assert rows(engine, "id") == []

    def test_goes_with_its_savepoint(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 1)
        with Session(engine) as session:
            savepoint = session.begin_nested()
            session.get(message, 1).status = "PROMOTED"
            session.flush()
            savepoint.rollback()
            session.commit()
        assert check(engine, message) == 1

    def test_is_not_written_of_what_is_refused(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 1)
        with Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            with pytest.raises(IllegalTransition):
                session.commit()
        assert check(engine, message) == 1

    def test_is_not_written_of_what_stays(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 1)
        with engine.begin() as connection:
            connection.execute(sa.update(message.__table__).values(status="READY", subject="other"))
        assert check(engine, message) == 1

    def test_of_an_observed_move_is_of_that_kind(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger, on_illegal="observe")
        start(engine, message, 1)
        with Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            session.add(message(id=2, status="PROMOTED"))
            session.commit()
        assert check(engine, message) == 3
        assert sorted(rows(engine, "kind")) == ["allowed", "observed", "observed"]

    def test_of_an_overridden_move_has_reason_and_actor(self, engine: sa.Engine) -> None:
        message = inbox(engine)
        start(engine, message, 1)
        with override("wrong queue", actor="ada"), Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            session.commit()
        assert rows(engine, "kind", "reason", "actor")[-1] == ("overridden", "wrong queue", "ada")

    def test_of_raw_sql_is_written_by_the_trigger(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, trigger=True)
        with postgres_engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO message (id, status) VALUES (1, 'READY')"))
            connection.execute(sa.text("UPDATE message SET status = 'PROMOTED'"))
        assert check(postgres_engine, message) == 2

    def test_of_raw_sql_does_not_take_over_what_was_said_before(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, trigger=True)
        start(postgres_engine, message, 1)
        with Session(postgres_engine) as session:
            with operation("Promotion"):
                session.get(message, 1).status = "PROMOTED"
                session.flush()
            session.execute(sa.text("UPDATE message SET status = 'COMPLETED'"))
            session.commit()
        assert rows(postgres_engine, "operation")[-2:] == ["Promotion", None]

    def test_of_steps_is_one_for_each(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger, steps=True)
        start(engine, message, 1)
        with Session(engine) as session:
            session.add(new := message(id=2))
            for each in (session.get(message, 1), new):
                each.status = "READY"
                each.status = "PROMOTED"
                each.status = "COMPLETED"
            session.commit()
        assert check(engine, message) == 6


class TestInAutocommit:
    def test_a_move_without_a_trigger_is_refused_before_it_is_made(self, engine: sa.Engine) -> None:
        message = inbox(engine)
        start(engine, message, 1)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            with pytest.raises(StatekitError, match="Write in a transaction"):
                connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
        assert check(engine, message) == 1

    def test_the_trigger_writes_it_with_the_move(self, postgres_engine: sa.Engine) -> None:
        message = inbox(postgres_engine, trigger=True)
        start(postgres_engine, message, 1)
        with postgres_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
        assert check(postgres_engine, message) == 2


class TestKeys:
    def test_of_several_columns_and_types(self, engine: sa.Engine, base: Any, by_trigger: bool) -> None:
        class Line(base):
            __tablename__ = "line"
            order = mapped_column(sa.String(20), primary_key=True)
            number = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
            day = mapped_column(sa.Date, primary_key=True)
            state = mapped_column(sa.String(20), default="READY")

        guard(Line.state, TABLE, history=True, trigger=True if by_trigger else None)
        ledger.add_to(base.metadata)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(line := Line(order='a "b"', number=7, day=dt.date(2026, 11, 25)))
            session.flush()
            line.state = "PROMOTED"
            session.commit()
        assert rows(engine, "key") == [['a "b"', "7", "2026-11-25"]] * 2


class TestDeclaring:
    def test_without_the_ledgers_tables_it_says_how_to_add_them(self, engine: sa.Engine) -> None:
        message = message_class(history=True)
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(message())
            with pytest.raises(TableError, match=r"statekit.ledger.add_to\(Base.metadata\)"):
                session.flush()

    def test_without_a_primary_key_it_is_refused(self) -> None:
        table = sa.Table("log", sa.MetaData(), sa.Column("state", sa.String(20)))
        with pytest.raises(TableError, match="no primary key"):
            guard(table.c.state, TransitionTable("A → B"), history=True)

    @pytest.mark.parametrize("options", [{"history": 1}, {"override_role": ""}, {"override_role": 3}])
    def test_other_values_are_refused(self, options: Any) -> None:
        with pytest.raises(TableError, match="allowed"):
            message_class(**options)


def test_nothing_is_written_without_it(engine: sa.Engine) -> None:
    message = message_class()
    ledger.add_to(message.metadata)
    fill(engine, message, "READY")
    with Session(engine) as session:
        session.get(message, 1).status = "PROMOTED"
        session.commit()
    assert rows(engine, "id") == []
