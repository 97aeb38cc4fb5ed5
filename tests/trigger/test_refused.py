"""What a trigger refuses arrives as the guard's own error, on every driver, whatever the statement was."""

from __future__ import annotations

import json
import logging
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column

import statekit
from statekit import IllegalTransition, TransitionTable, guard
from statekit.trigger import StateTrigger
from tests.guards.inbox import TABLE, Status, new_base
from tests.support.databases import Databases, execute, on_postgresql, run
from tests.trigger.messages import guarded, inbox, refused, trigger


@pytest.fixture
def model() -> Any:
    """Return a class Message, which create_all() makes the trigger of."""
    return guarded()


def filled(engine: sa.Engine, model: Any) -> str:
    """Make the table with message 7 PROMOTED, and return the text of an UPDATE that is illegal."""
    model.metadata.create_all(engine)
    name = model.__tablename__
    execute(
        engine,
        f"INSERT INTO {name} (id, status) VALUES (7, 'READY')",
        f"UPDATE {name} SET status = 'PROMOTED'",
    )
    return f"UPDATE {name} SET status = 'SPAM_REVIEW' WHERE id = 7"


def check(error: IllegalTransition, engine: sa.Engine | AsyncEngine) -> None:
    """Hold the error to what is promised of it; on SQLite, a trigger cannot say which row it was."""
    assert (error.model, error.attribute) == ("Message", "status")
    assert error.identity == (None if engine.dialect.name == "sqlite" else (7,))
    assert (error.source, error.target, error.allowed) == ("PROMOTED", "SPAM_REVIEW", ("COMPLETED",))
    assert error.pairs == {("PROMOTED", "SPAM_REVIEW"): 1}
    assert not error.new


class TestTextThatIsRefused:
    def test_on_a_connection(self, engine: sa.Engine, model: Any) -> None:
        update = filled(engine, model)
        with engine.connect() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.text(update))
        check(caught.value, engine)

    def test_as_driver_sql(self, engine: sa.Engine, model: Any) -> None:
        check(refused(engine, filled(engine, model)), engine)

    def test_in_a_session(self, engine: sa.Engine, model: Any) -> None:
        update = filled(engine, model)
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            session.execute(sa.text(update))
        check(caught.value, engine)

    def test_with_many_sets_of_parameters(self, engine: sa.Engine, model: Any) -> None:
        filled(engine, model)
        update = sa.text(f"UPDATE {model.__tablename__} SET status = :s WHERE id = :i")
        with engine.connect() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(update, [{"s": "COMPLETED", "i": 99}, {"s": "SPAM_REVIEW", "i": 7}])
        check(caught.value, engine)

    def test_while_a_session_flushes(self, engine: sa.Engine, model: Any) -> None:
        """The flush itself sends a legal row, and a listener's text an illegal one."""
        update = filled(engine, model)
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            sa.event.listen(session, "after_flush", lambda s, context: s.execute(sa.text(update)))
            session.add(model(id=8, status="READY"))
            session.commit()
        check(caught.value, engine)

    def test_on_an_async_connection(self, async_engine: AsyncEngine, databases: Databases, model: Any) -> None:
        update = filled(databases.engine(_sync(async_engine)), model)

        async def attempt() -> None:
            async with async_engine.connect() as connection:
                await connection.execute(sa.text(update))

        with pytest.raises(IllegalTransition) as caught:
            run(attempt())
        check(caught.value, async_engine)

    def test_in_an_async_session(self, async_engine: AsyncEngine, databases: Databases, model: Any) -> None:
        update = filled(databases.engine(_sync(async_engine)), model)

        async def attempt() -> None:
            async with AsyncSession(async_engine) as session:
                await session.execute(sa.text(update))

        with pytest.raises(IllegalTransition) as caught:
            run(attempt())
        check(caught.value, async_engine)


def _sync(engine: AsyncEngine) -> str:
    return "sqlite" if engine.dialect.name == "sqlite" else "psycopg"


class TestTheError:
    def test_has_the_drivers_error_as_its_cause(self, engine: sa.Engine, model: Any) -> None:
        error = refused(engine, filled(engine, model))
        assert isinstance(error.__cause__, sa.exc.DBAPIError) or type(error.__cause__).__module__.split(".")[0] in {
            "psycopg",
            "psycopg2",
            "sqlite3",
        }

    @on_postgresql
    def test_has_a_cause_that_shows_what_the_database_said(self, engine: sa.Engine, model: Any) -> None:
        cause: Any = refused(engine, filled(engine, model)).__cause__
        diagnostics = getattr(cause, "orig", cause).diag
        assert diagnostics.constraint_name == StateTrigger.of(model.status).name

    def test_says_which_row_and_what_is_allowed(self, engine: sa.Engine, model: Any) -> None:
        error = refused(engine, filled(engine, model))
        row = "Message" if engine.dialect.name == "sqlite" else "Message(id=7)"
        assert str(error).startswith(
            f"{row}.status: cannot move from PROMOTED to SPAM_REVIEW; allowed from PROMOTED: COMPLETED."
        )

    def test_of_a_new_row_says_so(self, engine: sa.Engine, model: Any) -> None:
        filled(engine, model)
        error = refused(engine, f"INSERT INTO {model.__tablename__} (id, status) VALUES (8, 'COMPLETED')")
        assert (error.new, error.source, error.target, error.allowed) == (True, None, "COMPLETED", ("READY",))

    @on_postgresql
    def test_of_a_new_row_names_it(self, engine: sa.Engine, model: Any) -> None:
        filled(engine, model)
        assert refused(engine, f"INSERT INTO {model.__tablename__} VALUES (8, 'COMPLETED')").identity == (8,)

    def test_is_logged_once(self, engine: sa.Engine, model: Any, caplog: pytest.LogCaptureFixture) -> None:
        update = filled(engine, model)
        with caplog.at_level(logging.WARNING, "statekit"):
            refused(engine, update)
        lines = [record.getMessage() for record in caplog.records if record.name == "statekit"]
        assert len(lines) == 1
        assert "Blocked invalid transition: PROMOTED → SPAM_REVIEW" in lines[0]

    @on_postgresql
    def test_is_not_counted_in_the_process(self, engine: sa.Engine, model: Any) -> None:
        refused(engine, filled(engine, model))
        assert statekit.counts(model.status) == {}
        assert statekit.counts(model.status, bind=engine) == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_is_counted_in_the_process_on_sqlite(self, sqlite_engine: sa.Engine, model: Any) -> None:
        """A database that takes back whatever a trigger does can count nothing."""
        refused(sqlite_engine, filled(sqlite_engine, model))
        assert statekit.counts(model.status, bind=sqlite_engine) == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_leaves_a_session_usable_after_rollback(self, engine: sa.Engine, model: Any) -> None:
        update = filled(engine, model)
        with Session(engine) as session:
            with pytest.raises(IllegalTransition):
                session.execute(sa.text(update))
            session.rollback()
            session.get(model, 7).status = "COMPLETED"
            session.commit()
            assert session.get(model, 7).status == "COMPLETED"


class TestTheGuardInFrontOfATrigger:
    """Whatever the guard can judge it judges first, and names it better."""

    def test_refuses_an_object_before_the_trigger_sees_it(self, postgres_engine: sa.Engine, model: Any) -> None:
        filled(postgres_engine, model)
        with Session(postgres_engine) as session, pytest.raises(IllegalTransition):
            session.get(model, 7).status = "SPAM_REVIEW"
            session.flush()
        assert statekit.counts(model.status) == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert statekit.counts(model.status, bind=postgres_engine) == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_makes_legal_moves(self, engine: sa.Engine, model: Any) -> None:
        filled(engine, model)
        with Session(engine) as session:
            session.get(model, 7).status = "COMPLETED"
            session.commit()
            assert session.get(model, 7).status == "COMPLETED"


class TestModels:
    def test_with_two_guarded_columns_name_the_one(self, engine: sa.Engine) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task_with_two"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            review = mapped_column(sa.String(20))

        guard(Task.status, TABLE, trigger=True)
        guard(Task.review, TransitionTable("OPEN → CLOSED", initial="OPEN"), trigger=True)
        Task.metadata.create_all(engine)
        execute(engine, "INSERT INTO task_with_two VALUES (1, 'READY', 'OPEN')")
        execute(engine, "UPDATE task_with_two SET review = 'CLOSED', status = 'PROMOTED'")
        error = refused(engine, "UPDATE task_with_two SET review = 'OPEN', status = 'COMPLETED'")
        assert (error.attribute, error.source, error.target) == ("review", "CLOSED", "OPEN")

    def test_name_the_attribute_and_not_the_column(self, engine: sa.Engine) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task_of_another_name"
            number = mapped_column("Task No", sa.Integer, primary_key=True)
            state = mapped_column("St ate", sa.String(20))

        guard(Task.state, TABLE, trigger=True)
        Task.metadata.create_all(engine)
        execute(engine, "INSERT INTO task_of_another_name VALUES (1, 'READY')")
        error = refused(engine, "UPDATE task_of_another_name SET \"St ate\" = 'COMPLETED'")
        assert (error.model, error.attribute) == ("Task", "state")

    def test_that_are_not_there_are_named_by_the_table(self, each_postgres: sa.Engine) -> None:
        """A table that another program has guarded."""
        error = refused(inbox(each_postgres), "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert (error.model, error.attribute, error.identity) == ("mail", "status", (3,))
        assert (error.source, error.target, error.allowed) == ("COMPLETED", "READY", ())

    def test_of_an_enum_are_told_what_the_database_stores(self, engine: sa.Engine) -> None:
        model = guarded(type_=sa.Enum(Status, name="status"), default=Status.READY)
        check(refused(engine, filled(engine, model)), engine)

    def test_of_a_subclass_are_named_by_the_class_that_declared_it(self, engine: sa.Engine) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task_with_kinds"
            id = mapped_column(sa.Integer, primary_key=True)
            kind = mapped_column(sa.String(20), default="task")
            status = mapped_column(sa.String(20))
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "task"}

        class Chore(Task):
            __mapper_args__ = {"polymorphic_identity": "chore"}

        guard(Task.status, TABLE, trigger=True)
        Task.metadata.create_all(engine)
        execute(engine, "INSERT INTO task_with_kinds VALUES (1, 'chore', 'READY')")
        error = refused(engine, "UPDATE task_with_kinds SET status = 'COMPLETED'")
        assert (error.model, error.attribute) == ("Task", "status")


class TestOtherErrors:
    def test_of_the_users_own_checks_stay_what_they_are(self, engine: sa.Engine, model: Any) -> None:
        model.__table__.append_constraint(sa.CheckConstraint("subject <> 'bad'", name="statekit_subject"))
        filled(engine, model)
        with pytest.raises(sa.exc.IntegrityError):
            execute(engine, f"UPDATE {model.__tablename__} SET subject = 'bad'")

    def test_of_the_users_own_triggers_stay_what_they_are(self, postgres_engine: sa.Engine, model: Any) -> None:
        """Even one that takes our form, and says something else in the details."""
        filled(postgres_engine, model)
        name = StateTrigger.of(model.status).name
        for detail in ("no JSON", "[]", "{}", '{"statekit": 99}', '{"statekit": 1}', '{"statekit": null}', "1"):
            raising = (
                "DO $$BEGIN RAISE EXCEPTION USING ERRCODE = 'check_violation',"
                f" CONSTRAINT = '{name}', DETAIL = '{detail}'; END$$"
            )
            with pytest.raises(sa.exc.IntegrityError):
                execute(postgres_engine, raising)

    def test_are_still_seen_by_the_listeners_of_others(self, engine: sa.Engine, model: Any) -> None:
        update = filled(engine, model)
        seen: list[Any] = []
        sa.event.listen(engine, "handle_error", lambda context: seen.append(context.original_exception) or None)
        refused(engine, update)
        assert len(seen) == 1
        assert not isinstance(seen[0], IllegalTransition)

    def test_may_be_made_something_else_by_a_listener_of_the_user(self, engine: sa.Engine, model: Any) -> None:
        update = filled(engine, model)

        def translate(context: Any) -> Exception:
            assert isinstance(context.chained_exception, IllegalTransition)
            return RuntimeError("mine")

        sa.event.listen(engine, "handle_error", translate)
        with pytest.raises(RuntimeError, match="mine"):
            execute(engine, update)


class TestWithoutSqlalchemy:
    """Whoever writes by another program sees a check violation that can be read, and told apart by a program."""

    @pytest.fixture
    def error(self, each_postgres: sa.Engine) -> psycopg.errors.CheckViolation:
        url = inbox(each_postgres).url.set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                connection.execute("UPDATE mail SET status = 'PROMOTED' WHERE id = 3")
        return caught.value

    def test_the_message_says_which_row_and_which_move(self, error: psycopg.errors.CheckViolation) -> None:
        assert error.diag.message_primary == "mail(id=3).status: cannot move from COMPLETED to PROMOTED."

    def test_the_hint_says_what_is_allowed(self, error: psycopg.errors.CheckViolation) -> None:
        assert error.diag.message_hint == "Allowed from COMPLETED: nothing."

    def test_the_detail_is_for_programs(self, error: psycopg.errors.CheckViolation) -> None:
        assert json.loads(error.diag.message_detail or "") == {
            "statekit": 1,
            "trigger": trigger().name,
            "new": False,
            "source": "COMPLETED",
            "target": "PROMOTED",
            "key": [["id", 3]],
            "allowed": [],
        }

    def test_the_place_is_named(self, error: psycopg.errors.CheckViolation) -> None:
        diagnostics = error.diag
        assert (diagnostics.schema_name, diagnostics.table_name, diagnostics.column_name) == (
            "public",
            "mail",
            "status",
        )
        assert diagnostics.constraint_name == trigger().name

    def test_what_is_allowed_is_listed_for_a_new_row(self, postgres_engine: sa.Engine) -> None:
        url = inbox(postgres_engine, initial=["READY", "PROMOTED"]).url.set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                connection.execute("INSERT INTO mail VALUES (4, NULL)")
        assert caught.value.diag.message_primary == "mail(id=4).status: a new row cannot start in NULL."
        assert caught.value.diag.message_hint == "Allowed: READY, PROMOTED."


def test_an_enum_type_of_postgresql_reads_like_any_other(postgres_engine: sa.Engine) -> None:
    native = postgresql.ENUM("READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED", name="native_status")
    model = guarded(type_=native)
    check(refused(postgres_engine, filled(postgres_engine, model)), postgres_engine)
