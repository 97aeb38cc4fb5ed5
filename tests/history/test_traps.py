"""What was tried against the history: moves that are lost, told twice or wrongly, and statements that break with it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, StatekitError, TransitionTable, guard, ledger, operation, override
from tests.guards.inbox import TABLE, load, new_base
from tests.history.ways import check, inbox, insert_of, rows, start
from tests.ledger.books import attached
from tests.support.databases import Databases, execute
from tests.trigger.test_version_2 import as_role

LOOP = TransitionTable("OPEN → CLOSED → OPEN", initial="OPEN")


@pytest.fixture(params=["guard", "trigger"])
def by_trigger(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "trigger")


@pytest.fixture
def on_postgresql(engine: sa.Engine) -> sa.Engine:
    if engine.dialect.name != "postgresql":
        pytest.skip("about PostgreSQL")
    return engine


def tickets(engine: sa.Engine, by_trigger: bool, *columns: Any, key: Any = None, **options: Any) -> Any:
    """Return a class with a primary key of some kind and states in a circle; its tables are made."""
    base = new_base()
    key = sa.Column("id", sa.Integer, primary_key=True) if key is None else key
    status = sa.Column("status", sa.String(20), default="OPEN")

    class Ticket(base):  # type: ignore[misc, valid-type]
        __table__ = sa.Table("ticket", base.metadata, key, status, sa.Column("subject", sa.String(20)), *columns)

    guard(Ticket.status, LOOP, history=True, trigger=True if by_trigger else None, **options)
    ledger.add_to(base.metadata)
    base.metadata.create_all(engine)
    return Ticket


class TestARowThatMovesSeveralTimesInOneStatement:
    def test_by_its_key_has_each_move(self, engine: sa.Engine, by_trigger: bool) -> None:
        ticket = tickets(engine, by_trigger)
        start(engine, ticket, 2)
        with Session(engine) as session:
            session.execute(sa.update(ticket), [{"id": 1, "status": each} for each in ("CLOSED", "OPEN", "CLOSED")])
            session.commit()
        assert check(engine, ticket) == 5

    def test_by_its_state_has_each_move(self, engine: sa.Engine, by_trigger: bool) -> None:
        ticket = tickets(engine, by_trigger)
        start(engine, ticket, 2)
        table = ticket.__table__
        statement = sa.update(table).where(table.c.status == sa.bindparam("was")).values(status=sa.bindparam("becomes"))
        there, back = {"was": "OPEN", "becomes": "CLOSED"}, {"was": "CLOSED", "becomes": "OPEN"}
        with engine.begin() as connection:
            connection.execute(statement, [there, back, there])
        assert check(engine, ticket) == 8

    def test_has_observed_moves_in_their_place(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger, on_illegal="observe")
        start(engine, message, 2)
        moves = [(1, "PROMOTED"), (2, "COMPLETED"), (2, "READY"), (2, "PROMOTED")]
        with Session(engine) as session:
            session.execute(sa.update(message), [{"id": key, "status": state} for key, state in moves])
            session.commit()
        assert check(engine, message) == 6

    def test_and_is_made_by_the_same_upsert_has_both(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        upsert = insert_of(engine, message).on_conflict_do_update(index_elements=["id"], set_={"status": "PROMOTED"})
        with engine.begin() as connection:
            connection.execute(upsert, [{"id": 1}, {"id": 1}, {"id": 2}])
        assert check(engine, message) == 3

    def test_and_is_made_by_the_same_upsert_with_returning_is_refused(self, engine: sa.Engine) -> None:
        message = inbox(engine)
        upsert = insert_of(engine, message).on_conflict_do_update(index_elements=["id"], set_={"status": "PROMOTED"})
        with engine.begin() as connection, pytest.raises(StatekitError, match="several times"):
            connection.execute(upsert.values([{"id": 1}, {"id": 1}]).returning(message.__table__.c.id))
        assert check(engine, message) == 0


class TestAPrimaryKeyThatChangesWithTheState:
    def test_in_a_statement_is_the_new_one(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 2)
        with engine.begin() as connection:
            connection.execute(sa.update(message.__table__).where(message.id == 1).values(id=11, status="PROMOTED"))
        assert rows(engine, "key", "source", "target")[2:] == [(["11"], "READY", "PROMOTED")]

    def test_in_several_sets_of_parameters_is_the_new_one(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 2)
        table = message.__table__
        statement = sa.update(table).where(table.c.id == sa.bindparam("old")).values(id=sa.bindparam("new"))
        with engine.begin() as connection:
            sets = [{"old": 1, "new": 11}, {"old": 2, "new": 12}]
            connection.execute(statement.values(status="PROMOTED"), sets)
        assert rows(engine, "key", "target")[2:] == [(["11"], "PROMOTED"), (["12"], "PROMOTED")]

    def test_in_a_flush_is_the_new_one(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 2)
        with Session(engine) as session:
            first = session.get(message, 1)
            first.id, first.status = 11, "PROMOTED"
            session.commit()
        assert rows(engine, "key", "source", "target")[2:] == [(["11"], "READY", "PROMOTED")]

    def test_by_an_expression_leaves_no_move_out(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 2)
        table = message.__table__
        with engine.begin() as connection:
            connection.execute(sa.update(table).values(id=table.c.id + 100, status="PROMOTED"))
        assert rows(engine, "source", "target")[2:] == [("READY", "PROMOTED")] * 2

    def test_is_the_state_itself(self, engine: sa.Engine, by_trigger: bool) -> None:
        ticket = tickets(engine, by_trigger, sa.PrimaryKeyConstraint("id", "status"), key=sa.Column("id", sa.Integer))
        with engine.begin() as connection:
            connection.execute(sa.insert(ticket.__table__), [{"id": 1}, {"id": 2}])
            connection.execute(sa.update(ticket.__table__).where(ticket.id == 1).values(status="CLOSED"))
        with Session(engine) as session:
            session.get(ticket, (2, "OPEN")).status = "CLOSED"
            session.commit()
        assert rows(engine, "key", "target")[2:] == [(["1", "CLOSED"], "CLOSED"), (["2", "CLOSED"], "CLOSED")]


class TestAnInsertWorksAsWithoutAHistory:
    def test_with_return_defaults(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        table = message.__table__
        with engine.begin() as connection:
            result = connection.execute(sa.insert(table).return_defaults(), {"subject": "a"})
            assert result.inserted_primary_key == (1,)
            result = connection.execute(sa.insert(table).return_defaults(table.c.status), [{}, {}])
            assert result.inserted_primary_key_rows == [(2,), (3,)]
        assert check(engine, message) == 3

    def test_with_return_defaults_and_supplemental_columns(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        table = message.__table__
        insert = sa.insert(table).return_defaults(supplemental_cols=[table.c.subject])
        with engine.begin() as connection:
            result = connection.execute(insert, [{"subject": "a"}, {"subject": "b"}])
            assert [row.subject for row in result] == ["a", "b"]
        assert check(engine, message) == 2

    def test_of_the_sessions_bulk_methods(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        with Session(engine) as session:
            made = [message(), message(subject="x")]
            session.bulk_save_objects(made, return_defaults=True)
            assert [each.id for each in made] == [1, 2]
            session.bulk_insert_mappings(message, [{"id": 50}, {"id": 51, "subject": None}], render_nulls=True)
            session.commit()
        assert check(engine, message) == 4

    def test_of_a_class_that_inherits_the_column(self, engine: sa.Engine, by_trigger: bool) -> None:
        base = new_base()

        class Parent(base):  # type: ignore[misc, valid-type]
            __tablename__ = "parent"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")

        class Child(Parent):
            __tablename__ = "child"
            id = mapped_column(sa.ForeignKey("parent.id"), primary_key=True)
            size = mapped_column(sa.Integer)

        guard(Parent.status, TABLE, history=True, trigger=True if by_trigger else None)
        ledger.add_to(base.metadata)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            session.execute(sa.insert(Child), [{"size": 1}, {"size": 2}])
            session.scalars(sa.insert(Child).returning(Child), [{"size": 3}, {"size": 4}]).all()
            session.commit()
        assert len(rows(engine, "id")) == 4

    def test_that_is_inline(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        with engine.begin() as connection:
            connection.execute(sa.insert(message.__table__).inline(), {"subject": "a"})
            connection.execute(sa.insert(message.__table__).inline(), [{"subject": "a"}, {"subject": "b"}])
        assert check(engine, message) == 3

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg"])
    def test_where_nothing_is_given_back_of_several(self, databases: Databases, backend: str) -> None:
        engine = databases.engine(backend, use_insertmanyvalues=False)
        message = inbox(engine)
        with engine.begin() as connection:
            assert connection.execute(sa.insert(message.__table__), [{}, {}]).rowcount == 2
        assert check(engine, message) == 2


KEYS = {
    "bytes": (sa.LargeBinary, b"\xff\x00a", b"\xff\x00b"),
    "numbers": (sa.Numeric(10, 2), Decimal("1.50"), Decimal("2")),
    "times": (sa.DateTime, dt.datetime(2026, 1, 1, 2, 3, 4, 5), dt.datetime(2026, 1, 2)),
    "dates": (sa.Date, dt.date(2026, 1, 1), dt.date(2026, 1, 2)),
}


class TestThePrimaryKey:
    @pytest.mark.parametrize("kind", KEYS)
    def test_is_found_again_whatever_its_type(self, engine: sa.Engine, by_trigger: bool, kind: str) -> None:
        type_, one, other = KEYS[kind]
        ticket = tickets(engine, by_trigger, key=sa.Column("id", type_, primary_key=True, autoincrement=False))
        with Session(engine) as session:
            session.execute(sa.insert(ticket.__table__), [{"id": one}, {"id": other}])
            session.get(ticket, other).status = "CLOSED"
            session.commit()
            found = [session.execute(ledger.history_of(ticket.status, key)).all() for key in (one, other)]
        assert [len(each) for each in found] == [1, 2]
        assert len({str(key) for key in rows(engine, "key")}) == 2

    def test_is_the_same_in_each_time_zone(self, on_postgresql: sa.Engine, by_trigger: bool) -> None:
        key = sa.Column("id", sa.DateTime(timezone=True), primary_key=True)
        ticket = tickets(on_postgresql, by_trigger, key=key)
        at = dt.datetime(2026, 1, 1, 2, 3, 4, 5, dt.UTC)
        for number, zone in enumerate(("UTC", "Asia/Tokyo", "America/Lima")):
            with Session(on_postgresql) as session:
                session.execute(sa.text(f"SET LOCAL TIME ZONE '{zone}'"))
                if number:
                    session.execute(sa.update(ticket).values(status=("OPEN", "CLOSED")[number % 2]))
                else:
                    session.execute(sa.insert(ticket).values(id=at))
                assert len(session.execute(ledger.history_of(ticket.status, at)).all()) == number + 1
                assert session.scalars(sa.select(ledger.entered_at(ticket.status))).one() is not None
                session.commit()
        assert rows(on_postgresql, "key") == [["2026-01-01T02:03:04.000005"]] * 3


class TestAWriteWithinAWrite:
    def listening(self, message: Any, target: str) -> None:
        def move_the_third(mapper: Any, connection: Any, each: Any) -> None:
            connection.execute(sa.update(message.__table__).where(message.__table__.c.id == 3).values(status=target))

        sa.event.listen(message, "before_update", move_the_third)

    def test_does_not_take_from_the_outer_one_what_it_was_for(self, engine: sa.Engine, by_trigger: bool) -> None:
        message = inbox(engine, trigger=by_trigger)
        start(engine, message, 3)
        self.listening(message, "SPAM_REVIEW")
        with operation("Promotion"), Session(engine) as session:
            session.get(message, 1).status = "PROMOTED"
            session.commit()
        assert check(engine, message) == 5
        assert rows(engine, "operation")[3:] == ["Promotion"] * 2

    def test_leaves_the_way_past_the_trigger_open_and_each_move_is_recorded_once(
        self, on_postgresql: sa.Engine
    ) -> None:
        role = on_postgresql.url.username
        message = inbox(on_postgresql, trigger=True, override_role=role)
        start(on_postgresql, message, 3)
        self.listening(message, "COMPLETED")
        with attached(on_postgresql), override("wrong queue"), Session(on_postgresql) as session:
            session.get(message, 1).status = "COMPLETED"
            session.commit()
        assert check(on_postgresql, message) == 5
        with on_postgresql.connect() as connection:
            number = "SELECT sum(number) FROM statekit_ledger WHERE kind = 'overridden'"
            assert connection.execute(sa.text(number)).scalar_one() == 2


class TestWhatTheDatabaseKeepsBack:
    def test_is_in_no_history(self, engine: sa.Engine) -> None:
        message = inbox(engine)
        start(engine, message, 3)
        if engine.dialect.name == "sqlite":
            ignore = "BEGIN SELECT RAISE(IGNORE); END"
            execute(engine, f"CREATE TRIGGER keep BEFORE UPDATE ON message WHEN OLD.id = 2 {ignore}")
        else:
            nothing = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            each = "FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION keep()"
            execute(engine, f"CREATE FUNCTION keep() {nothing}", f"CREATE TRIGGER keep BEFORE UPDATE ON message {each}")
        with engine.begin() as connection:
            connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
        assert check(engine, message) == 5


class TestATriggerThatDoesNotFire:
    def test_in_a_replica_leaves_the_history_to_the_guard(self, on_postgresql: sa.Engine) -> None:
        message = inbox(on_postgresql, trigger=True)
        start(on_postgresql, message, 3)
        with on_postgresql.begin() as connection:
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
        assert check(on_postgresql, message) == 6

    def test_any_more_when_an_insert_comes_is_an_error(self, on_postgresql: sa.Engine) -> None:
        message = inbox(on_postgresql, trigger=True)

        def drop(conn: Any, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
            if text.startswith("INSERT"):
                cursor.execute("ALTER TABLE message DISABLE TRIGGER USER")

        sa.event.listen(on_postgresql, "before_cursor_execute", drop)
        with pytest.raises(StatekitError, match="dropped or disabled"), on_postgresql.begin() as connection:
            connection.execute(sa.insert(message.__table__), {"id": 1, "status": "READY"})
        assert check(on_postgresql, message) == 0


class TestNames:
    def test_of_any_kind_have_one_history(self, engine: sa.Engine, by_trigger: bool) -> None:
        base = new_base()

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = 'Od"d ta%ble'
            id = mapped_column('I"d %s', sa.Integer, primary_key=True)
            status = mapped_column('St"atus %', sa.String(20), default="READY")

        guard(Message.status, TABLE, history=True, trigger=True if by_trigger else None)
        ledger.add_to(base.metadata)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Message(id=1), Message(id=2)])
            session.commit()
            for each in load(session, Message):
                each.status = "PROMOTED"
            session.commit()
            assert len(session.execute(ledger.history_of(Message.status, 2)).all()) == 2
        assert len(rows(engine, "id")) == 4


class TestSomebodyWithoutTheRole:
    OPERATORS = [(left, name, right) for left, right in [("text", "text"), ("name", "name"), ("name", "text"),
        ("regtype", "regtype"), ("oid", "oid"), ("jsonb", "text"), ("jsonb", "text[]")]
        for name in ("=", "<>", "#>>", "?", "->", "->>")]  # fmt: skip
    FUNCTIONS = ("current_setting(text, boolean)", "to_jsonb(integer)", "to_jsonb(anyelement)", "clock_timestamp()",
        "jsonb_build_array(text)", "pg_typeof(integer)", "pg_typeof(anyelement)")  # fmt: skip

    def test_cannot_run_anything_as_the_functions_owner_by_the_search_path(self, on_postgresql: sa.Engine) -> None:
        message = inbox(on_postgresql, trigger=True)
        start(on_postgresql, message, 2)
        database = on_postgresql.url.database
        grants = f'GRANT CREATE, TEMP ON DATABASE "{database}" TO {{role}}', "GRANT ALL ON message TO {role}"
        body = "LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.caught VALUES (current_user); RETURN NULL; END'"
        with as_role(on_postgresql, *grants) as other:
            execute(other, "CREATE SCHEMA evil", "CREATE TABLE evil.caught (who pg_catalog.text)")
            execute(other, "GRANT ALL ON SCHEMA evil TO public", "GRANT ALL ON evil.caught TO public")
            for number, (left, name, right) in enumerate(self.OPERATORS):
                execute(
                    other,
                    f"CREATE FUNCTION evil.f{number}({left}, {right}) RETURNS boolean {body}",
                    f"CREATE OPERATOR evil.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.f{number})",
                )
            for function in self.FUNCTIONS:
                execute(other, f"CREATE FUNCTION evil.{function} RETURNS text {body}")
            for type_ in ("text", "name", "regtype", "timestamptz"):
                execute(other, f"CREATE DOMAIN evil.{type_} AS pg_catalog.{type_} CHECK (false)")
            with other.begin() as connection:
                for table in ("statekit_history", "new_rows", "pg_roles"):
                    connection.exec_driver_sql(f"CREATE TEMP TABLE {table} (LIKE public.message)")
                connection.exec_driver_sql("SET LOCAL search_path = evil, pg_temp, pg_catalog, public")
                connection.exec_driver_sql("SELECT pg_catalog.set_config('statekit.reason', 'mine', true)")
                where = "WHERE id OPERATOR(pg_catalog.=)"
                connection.exec_driver_sql(f"UPDATE public.message SET status = 'PROMOTED' {where} 1")
                connection.exec_driver_sql("INSERT INTO public.message (id, status) VALUES (99, 'READY')")
                with pytest.raises(IllegalTransition), connection.begin_nested():
                    connection.exec_driver_sql(f"UPDATE public.message SET status = 'COMPLETED' {where} 2")
                assert connection.exec_driver_sql("SELECT who FROM evil.caught").all() == []
        assert check(on_postgresql, message) == 4
        assert set(rows(on_postgresql, "kind")) == {"allowed"}

    def test_cannot_call_an_observed_move_overridden(self, on_postgresql: sa.Engine) -> None:
        message = inbox(on_postgresql, trigger=True, on_illegal="observe", override_role="nobody's role")
        start(on_postgresql, message, 1)
        with as_role(on_postgresql, "GRANT SELECT, UPDATE ON message TO {role}") as other:
            say = "SELECT set_config('statekit.reason', 'mine', true)"
            execute(other, say, "UPDATE message SET status = 'COMPLETED'")
        assert rows(on_postgresql, "kind") == ["allowed", "observed"]


def test_a_row_that_the_database_keeps_back_in_an_executemany_has_not_moved(engine: sa.Engine) -> None:
    message = inbox(engine)
    start(engine, message, 3)
    if engine.dialect.name == "sqlite":
        trigger = "CREATE TRIGGER k BEFORE UPDATE ON message WHEN OLD.id = 2 BEGIN SELECT RAISE(IGNORE); END"
        execute(engine, trigger)
    else:
        body = "BEGIN IF OLD.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END"
        execute(
            engine,
            f"CREATE FUNCTION k() RETURNS trigger LANGUAGE plpgsql AS '{body}'",
            "CREATE TRIGGER k BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION k()",
        )
    table = message.__table__
    statement = sa.update(table).where(table.c.id == sa.bindparam("row")).values(status="PROMOTED")
    with engine.begin() as connection:
        connection.execute(statement, [{"row": 1}, {"row": 2}, {"row": 3}])
    assert check(engine, message) == 5
