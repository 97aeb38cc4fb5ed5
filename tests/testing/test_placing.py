"""``in_state``: an object in any state, with nothing switched off."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session

from statekit import IllegalTransition, StatekitError, Transition, TransitionTable, counts, guard, operation
from statekit.testing import in_state
from statekit.trigger import StateTrigger
from tests.support.databases import all_async_backends, all_sync_backends, on_sqlite, run

TABLE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


def message_of(base: Any, table: TransitionTable = TABLE, type_: Any = None, **options: Any) -> Any:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status = mapped_column(type_ or sa.String(20), default=options.pop("default", "READY"))
        subject: Mapped[str | None]
        touched: Mapped[int] = mapped_column(default=0, onupdate=1)

    guard(Message.status, table, **options)
    return Message


@pytest.fixture
def message(base: Any) -> Any:
    return message_of(base)


@pytest.fixture
def session(engine: sa.Engine, message: Any) -> Any:
    message.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def stored(session: Session, obj: Any) -> Any:
    mapper = sa.inspect(type(obj))
    key = mapper.local_table.c.status
    return session.connection().execute(sa.select(key.label("x"))).scalars().all()


@all_sync_backends
class TestANewObject:
    @pytest.mark.parametrize("state", ["READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED"])
    def test_gets_into_every_state(self, session: Session, message: Any, state: str) -> None:
        one = in_state(session, message(subject="hello"), state)
        assert (one.status, one.subject, stored(session, one)) == (state, "hello", [state])

    def test_goes_on_from_there_under_the_guard(self, session: Session, message: Any) -> None:
        one = in_state(session, message(), "COMPLETED")
        one.status = "SPAM_REVIEW"
        with pytest.raises(IllegalTransition, match="from COMPLETED to SPAM_REVIEW"):
            session.flush()

    def test_that_was_given_a_state_that_none_starts_in_is_inserted_all_the_same(
        self, session: Session, message: Any
    ) -> None:
        assert in_state(session, message(status="PROMOTED"), "COMPLETED").status == "COMPLETED"


@all_sync_backends
class TestAnObjectWithARow:
    def test_gets_into_a_state_that_no_way_leads_to(self, session: Session, message: Any) -> None:
        one = in_state(session, message(), "COMPLETED")
        assert in_state(session, one, "READY").status == "READY"

    def test_keeps_what_was_changed_on_it(self, session: Session, message: Any) -> None:
        one = in_state(session, message(subject="old"), "READY")
        one.subject = "new"
        in_state(session, one, "PROMOTED")
        assert (one.subject, sa.inspect(one).attrs.subject.history.added) == ("new", ["new"])

    def test_changes_no_other_column(self, session: Session, message: Any) -> None:
        one = in_state(session, message(), "COMPLETED")
        session.refresh(one)
        assert one.touched == 0

    def test_that_is_detached_is_taken_into_the_session(self, session: Session, message: Any) -> None:
        one = in_state(session, message(), "READY")
        session.commit()
        session.expunge(one)
        assert in_state(session, one, "PROMOTED") in session

    def test_may_be_in_a_session_of_a_scope(self, session: Session, message: Any) -> None:
        scoped = scoped_session(lambda: session)  # type: ignore[arg-type]
        one = in_state(scoped, message(), "COMPLETED")
        assert (one in session, one.status) == (True, "COMPLETED")

    def test_in_a_state_that_the_table_does_not_know_is_set_directly(self, session: Session, message: Any) -> None:
        session.execute(sa.text("INSERT INTO message (id, status, touched) VALUES (1, 'LEGACY', 0)"))
        assert in_state(session, session.get_one(message, 1), "COMPLETED").status == "COMPLETED"

    def test_is_found_in_the_database_that_its_class_is_bound_to(self, engine: sa.Engine, message: Any) -> None:
        message.metadata.create_all(engine)
        with Session(binds={message: engine}) as session:
            assert in_state(session, message(), "COMPLETED").status == "COMPLETED"

    def test_may_be_in_a_session_that_knows_engines_by_class_alone(self, engine: sa.Engine, message: Any) -> None:
        message.metadata.create_all(engine)
        with Session(binds={message: engine}) as session:
            assert in_state(session, message(), "COMPLETED").status == "COMPLETED"

    def test_that_is_gone_is_an_error(self, session: Session, message: Any) -> None:
        one = in_state(session, message(), "READY")
        session.execute(sa.text("DELETE FROM message"))
        with pytest.raises(StatekitError, match="has no row"):
            in_state(session, one, "PROMOTED")


@on_sqlite
class TestNothing:
    def test_is_counted_or_logged(self, session: Session, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        with operation("Fixture") as op:
            in_state(session, message(), "COMPLETED")
            in_state(session, session.scalars(sa.select(message)).one(), "READY")
        assert (op.moved, counts(message.status), caplog.records) == (0, {}, [])

    def test_is_asked_or_called(self, engine: sa.Engine, base: Any) -> None:
        called: list[object] = []
        table = TransitionTable(
            Transition("READY", "PROMOTED", "promote", conditions=lambda obj: False, after=called.append)
        )
        message = message_of(base, table)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, message(), "PROMOTED").status == "PROMOTED"
        assert not called


class Status(enum.Enum):
    READY = "r"
    PROMOTED = "p"


@all_sync_backends
class TestEveryKindOfColumn:
    def put(self, engine: sa.Engine, message: Any, state: Any, attribute: Any = None, **values: Any) -> Any:
        message.metadata.create_all(engine)
        with Session(engine) as session:
            one = in_state(session, message(**values), state, attribute)
            session.commit()
            session.refresh(one)
            return one

    @pytest.mark.parametrize("state", [Status.PROMOTED, "PROMOTED", "p"])
    @pytest.mark.parametrize("by_value", [True, False])
    def test_an_enum(self, engine: sa.Engine, base: Any, state: Any, by_value: bool) -> None:
        options: Any = {"values_callable": lambda members: [member.value for member in members]} if by_value else {}
        message = message_of(
            base, TransitionTable((Status.READY, Status.PROMOTED)), sa.Enum(Status, **options), default=Status.READY
        )
        assert self.put(engine, message, state).status is Status.PROMOTED

    def test_an_integer(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, TransitionTable("1 → 2 → 3"), sa.Integer, default=1)
        assert self.put(engine, message, 3).status == 3

    def test_a_decorated_type(self, engine: sa.Engine, base: Any) -> None:
        class Lower(sa.TypeDecorator[str]):
            impl = sa.String(20)
            cache_ok = True

            def process_bind_param(self, value: Any, dialect: Any) -> Any:
                return value and value.lower()

            def process_result_value(self, value: Any, dialect: Any) -> Any:
                return value and value.upper()

        assert self.put(engine, message_of(base, TABLE, Lower()), "COMPLETED").status == "COMPLETED"

    def test_null(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, TransitionTable(("READY", None)))
        assert self.put(engine, message, None).status is None

    def test_names_that_need_quotes_a_schema_and_a_composite_key(self, engine: sa.Engine, base: Any) -> None:
        schema = "Other" if engine.dialect.name == "postgresql" else None

        class Odd(base):
            __tablename__ = "Select"
            __table_args__ = {"schema": schema}
            order: Mapped[int] = mapped_column("Order", primary_key=True)
            part: Mapped[str] = mapped_column("of %s", primary_key=True)
            status: Mapped[str] = mapped_column("From:x")

        guard(Odd.status, TABLE)
        if schema:
            with engine.begin() as connection:
                connection.execute(sa.schema.CreateSchema(schema))
        assert self.put(engine, Odd, "COMPLETED", order=1, part="a").status == "COMPLETED"

    def test_of_a_joined_base(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base)

        class Letter(message):
            __tablename__ = "letter"
            number: Mapped[int] = mapped_column(sa.ForeignKey("message.id"), primary_key=True)
            stamp: Mapped[str]

        assert self.put(engine, Letter, "COMPLETED", stamp="x").status == "COMPLETED"

    def test_one_of_several(self, engine: sa.Engine, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str] = mapped_column(default="READY")
            phase: Mapped[str] = mapped_column(default="A")

        guard(Message.status, TABLE)
        guard(Message.phase, TransitionTable("A → B"))
        with pytest.raises(StatekitError, match="several guarded attributes"):
            self.put(engine, Message, "B")
        one = self.put(engine, Message, "B", Message.phase)
        assert (one.status, one.phase) == ("READY", "B")

    def test_whose_assignments_are_followed_as_steps(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, steps=True)
        message.metadata.create_all(engine)
        with Session(engine) as session:
            one = in_state(session, message(), "PROMOTED")
            one.status = "COMPLETED"
            session.commit()
            assert one.status == "COMPLETED"

    def test_with_a_version(self, engine: sa.Engine, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str] = mapped_column(default="READY")
            version = mapped_column(sa.Integer, nullable=False)
            __mapper_args__ = {"version_id_col": version}

        guard(Message.status, TABLE)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            one = in_state(session, Message(), "PROMOTED")
            one.status = "COMPLETED"
            session.commit()
            assert one.version == 2


@all_sync_backends
class TestUnderATrigger:
    def test_every_step_is_legal(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, trigger=True)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, message(), "COMPLETED").status == "COMPLETED"

    def test_a_start_may_be_null_where_the_column_has_a_default(self, engine: sa.Engine, base: Any) -> None:
        table = TransitionTable({"A": "B", None: "C"}, initial=(None, "A"))
        message = message_of(base, table, default="A", trigger=True)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert [in_state(session, message(), state).status for state in (None, "C", "B")] == [None, "C", "B"]

    def test_a_state_that_no_way_leads_to_is_refused_with_a_note(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, trigger=True)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            one = in_state(session, message(), "COMPLETED")
            with pytest.raises(IllegalTransition) as caught:
                in_state(session, one, "READY")
        assert "no way of the table leads from COMPLETED to READY" in caught.value.__notes__[0]

    def test_that_disagrees_with_the_table_refuses_without_a_note(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base)
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            for statement in StateTrigger("message", "status", [("PROMOTED", "READY")], initial=["READY"]).create_sql(
                connection.dialect
            ):
                connection.exec_driver_sql(
                    statement.replace("%", "%%") if connection.dialect.name != "sqlite" else statement
                )
        with Session(engine) as session:
            with pytest.raises(IllegalTransition) as caught:
                in_state(session, message(), "COMPLETED")
        assert not hasattr(caught.value, "__notes__")

    def test_that_skips_it_is_an_error(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, trigger=True, on_illegal="skip")
        base.metadata.create_all(engine)
        with Session(engine) as session:
            one = in_state(session, message(), "COMPLETED")
            with pytest.raises(StatekitError, match="the row stays in COMPLETED"):
                in_state(session, one, "READY")


@on_sqlite
class TestTheStateItStartsIn:
    TABLE = TransitionTable("A → B", "C → D", initial=("A", "C"))

    @pytest.mark.parametrize("state", ["A", "B", "C", "D"])
    def test_is_one_that_leads_there(self, engine: sa.Engine, base: Any, state: str) -> None:
        message = message_of(base, self.TABLE, default="A", trigger=True)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, message(), state).status == state

    @pytest.mark.parametrize("default", ["A", "C"])
    def test_is_the_usual_one_where_that_leads_there(self, engine: sa.Engine, base: Any, default: str) -> None:
        message = message_of(base, TransitionTable("A → B", "C → B", initial=("A", "C")), default=default)
        base.metadata.create_all(engine)
        inserted: list[str] = []
        sa.event.listen(message, "after_insert", lambda mapper, connection, one: inserted.append(one.status))
        with Session(engine) as session:
            in_state(session, message(), "B")
        assert inserted == [default]

    def test_is_none_that_is_an_expression(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, message(status=sa.func.upper("completed")), "PROMOTED").status == "PROMOTED"

    def test_is_the_usual_one_where_several_lead_there(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base, TransitionTable("C → B", "A → B", initial=("C", "A")), default="A")
        base.metadata.create_all(engine)
        given: list[Any] = []
        sa.event.listen(message, "after_insert", lambda mapper, connection, one: given.append(one.status))
        with Session(engine) as session:
            in_state(session, message(), "B")
        assert given == ["A"]

    def test_takes_the_place_of_an_expression(self, engine: sa.Engine, base: Any) -> None:
        message = message_of(base)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, message(status=sa.literal("COMPLETED")), "PROMOTED").status == "PROMOTED"

    def test_may_come_from_the_server(self, engine: sa.Engine, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str] = mapped_column(server_default="READY")

        guard(Message.status, TABLE)
        base.metadata.create_all(engine)
        with Session(engine) as session:
            assert in_state(session, Message(), "COMPLETED").status == "COMPLETED"


@on_sqlite
class TestBadInput:
    def test_a_state_that_the_table_does_not_have(self, session: Session, message: Any) -> None:
        with pytest.raises(StatekitError, match="'PROMOTE' is no state of the table.*Did you mean 'PROMOTED'"):
            in_state(session, message(), "PROMOTE")
        assert not session.new

    def test_what_is_no_session(self, session: Session, message: Any) -> None:
        for wrong in (AsyncSession(), session.connection()):
            with pytest.raises(StatekitError, match=r"in_state\(\): .*run_sync\(in_state, obj, state\)"):
                in_state(wrong, message(), "READY")  # type: ignore[arg-type]

    def test_an_object_without_a_guard(self, session: Session, base: Any) -> None:
        class Bare(base):
            __tablename__ = "bare"
            id: Mapped[int] = mapped_column(primary_key=True)

        with pytest.raises(StatekitError, match="Bare has no guard"):
            in_state(session, Bare(), "READY")


@all_async_backends
def test_an_async_session_runs_it(async_engine: AsyncEngine, message: Any) -> None:
    async def body() -> None:
        async with async_engine.begin() as connection:
            await connection.run_sync(message.metadata.create_all)
        async with AsyncSession(async_engine) as session:
            one = await session.run_sync(in_state, message(), "PROMOTED")
            assert one.status == "PROMOTED"
            one.status = "READY"
            with pytest.raises(IllegalTransition):
                await session.flush()

    run(body())
