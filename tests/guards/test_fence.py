"""The fence: an UPDATE that SQLAlchemy compiles moves no row illegally, whatever its shape.

In "raise", a statement that would move a row illegally is not executed at all. So these tests are in "skip": there the
statement is executed, only the fence in it keeps illegal rows as they are, and what was counted before must agree.
"""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import textwrap
import warnings
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session, aliased, mapped_column

from statekit import IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards.inbox import TABLE, fill, message_class, new_base, stored, unguarded

STATES = ("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW")
AFTER_MOVING_ALL_TO_SPAM = ["SPAM_REVIEW", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]
REFUSED = {("PROMOTED", "SPAM_REVIEW"): 1, ("COMPLETED", "SPAM_REVIEW"): 1}
MOVED = {("READY", "SPAM_REVIEW"): 1}

numbers = itertools.count()


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    # A bare table() would be held to the guards of other tests too, if the table was called as it is there.
    message = message_class(name=f"fenced_{next(numbers)}", on_illegal="skip")
    fill(engine, message, *STATES)
    return message


def orm_update(message: Any) -> Any:
    return sa.update(message).values(status="SPAM_REVIEW")


def core_update(message: Any) -> Any:
    return sa.update(message.__table__).values(status="SPAM_REVIEW")


def by_column(message: Any) -> Any:
    return sa.update(message.__table__).values({message.__table__.c.status: "SPAM_REVIEW"})


def ordered(message: Any) -> Any:
    return sa.update(message.__table__).ordered_values(("subject", "x"), ("status", "SPAM_REVIEW"))


def with_a_where(message: Any) -> Any:
    return core_update(message).where(message.__table__.c.id > 0)


def with_a_where_on_the_status(message: Any) -> Any:
    return core_update(message).where(message.__table__.c.status.in_(STATES))


def with_an_or(message: Any) -> Any:
    return core_update(message).where(sa.or_(message.__table__.c.id > 0, message.__table__.c.id < 0))


def a_literal(message: Any) -> Any:
    return sa.update(message.__table__).values(status=sa.literal("SPAM_REVIEW"))


def a_case(message: Any) -> Any:
    return sa.update(message.__table__).values(status=sa.case((message.__table__.c.id > 0, "SPAM_REVIEW"), else_=""))


def a_function(message: Any) -> Any:
    return sa.update(message.__table__).values(status=sa.func.upper("spam_review"))


def a_subquery(message: Any) -> Any:
    table = message.__table__.alias("other")
    return sa.update(message.__table__).values(
        status=sa.select(sa.func.max(table.c.status)).where(table.c.status == "SPAM_REVIEW").scalar_subquery()
    )


def an_alias(message: Any) -> Any:
    return sa.update(message.__table__.alias("m")).values(status="SPAM_REVIEW")


def an_alias_of_the_class(message: Any) -> Any:
    return sa.update(aliased(message)).values(status="SPAM_REVIEW")


def a_bare_table(message: Any) -> Any:
    bare = sa.table(message.__table__.name, sa.column("id"), sa.column("status", sa.String))
    return sa.update(bare).values(status="SPAM_REVIEW")


def a_copy_of_the_table(message: Any) -> Any:
    return sa.update(message.__table__.to_metadata(sa.MetaData())).values(status="SPAM_REVIEW")


def from_another_table(message: Any) -> Any:
    other = message.__table__.alias("other")
    return core_update(message).where(other.c.id == message.__table__.c.id)


def returning(message: Any) -> Any:
    return core_update(message).returning(message.__table__.c.id)


def text_with_an_or(message: Any) -> Any:
    return core_update(message).where(sa.text("id > 0 OR id = 0"))


def text_within_an_or(message: Any) -> Any:
    return core_update(message).where(sa.and_(sa.literal_column("id > 0 OR id = 0"), message.__table__.c.id > 0))


def text_that_ends_in_a_comment(message: Any) -> Any:
    return core_update(message).where(sa.text("id > 0 -- all of them"))


def set_by_the_column_of_a_twin(message: Any) -> Any:
    twin = sa.Table(message.__table__.name, sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("status", sa.String))
    return sa.update(message.__table__).values({twin.c.status: "SPAM_REVIEW"})


def a_twin_set_by_our_column(message: Any) -> Any:
    twin = sa.table(message.__table__.name, sa.column("status", sa.String))
    return sa.update(twin).values({message.status: "SPAM_REVIEW"})


def literal_parameter_of_another_type(message: Any) -> Any:
    return sa.update(message.__table__).values(status=sa.bindparam("x", "SPAM_REVIEW", type_=sa.Text))


SHAPES = [
    orm_update,
    core_update,
    by_column,
    ordered,
    with_a_where,
    with_a_where_on_the_status,
    with_an_or,
    a_literal,
    a_case,
    a_function,
    a_subquery,
    an_alias,
    an_alias_of_the_class,
    a_bare_table,
    a_copy_of_the_table,
    from_another_table,
    returning,
    literal_parameter_of_another_type,
    text_with_an_or,
    text_within_an_or,
    text_that_ends_in_a_comment,
    set_by_the_column_of_a_twin,
    a_twin_set_by_our_column,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_statement_moves_only_what_may_move(engine: sa.Engine, message: Any, shape: Any) -> None:
    if shape in (an_alias, an_alias_of_the_class) and engine.dialect.name == "sqlite":
        pytest.skip("SQLAlchemy renders no alias in an UPDATE for SQLite")
    with Session(engine) as session, operation("Work") as op:
        result = session.execute(shape(message), execution_options={"synchronize_session": False})
        # The row that has the state already is written as well.
        assert (len(result.all()) if result.returns_rows else result.rowcount) == 2
        session.commit()
    assert stored(engine, message) == AFTER_MOVING_ALL_TO_SPAM
    assert op.blocked == counts(message.status) == REFUSED
    assert op.allowed == MOVED


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_statement_with_a_refused_row_moves_nothing_in_raise(engine: sa.Engine, message: Any, shape: Any) -> None:
    if shape in (an_alias, an_alias_of_the_class) and engine.dialect.name == "sqlite":
        pytest.skip("SQLAlchemy renders no alias in an UPDATE for SQLite")
    with Session(engine) as session, operation("Work", on_illegal="raise") as op:
        with pytest.raises(IllegalTransition) as caught:
            session.execute(shape(message), execution_options={"synchronize_session": False})
        session.commit()
    assert stored(engine, message) == list(STATES)
    assert caught.value.pairs == op.blocked == counts(message.status) == REFUSED
    names_its_key = shape is not a_twin_set_by_our_column
    assert caught.value.identities == (((2,), (3,)) if names_its_key else ())
    assert op.allowed == {}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_statement_with_its_values_written_out_does_too(engine: sa.Engine, message: Any, shape: Any) -> None:
    if shape in (an_alias, an_alias_of_the_class) and engine.dialect.name == "sqlite":
        pytest.skip("SQLAlchemy renders no alias in an UPDATE for SQLite")
    text = str(shape(message).compile(engine, compile_kwargs={"literal_binds": True}))
    with engine.begin() as connection:
        connection.exec_driver_sql(text.replace("%%", "%"))
    assert stored(engine, message) == AFTER_MOVING_ALL_TO_SPAM


class TestParameters:
    def test_of_several_sets_are_judged_one_by_one(self, engine: sa.Engine, message: Any) -> None:
        table = message.__table__
        statement = sa.update(table).where(table.c.id == sa.bindparam("row")).values(status=sa.bindparam("state"))
        moves = [{"row": 1, "state": "PROMOTED"}, {"row": 2, "state": "READY"}, {"row": 3, "state": "COMPLETED"}]
        with engine.begin() as connection:
            assert connection.execute(statement, moves).rowcount == 2
        assert stored(engine, message) == ["PROMOTED", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]
        assert counts(message.status) == {("PROMOTED", "READY"): 1}

    def test_by_primary_key_are_judged_one_by_one(self, engine: sa.Engine, message: Any) -> None:
        """Rows that keep their state count as met."""
        with Session(engine) as session:
            moves = [{"id": 1, "status": "PROMOTED"}, {"id": 2, "status": "PROMOTED"}, {"id": 3, "status": "COMPLETED"}]
            session.execute(sa.update(message), moves)
            session.commit()
        assert stored(engine, message) == ["PROMOTED", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]

    @pytest.mark.parametrize("by", ["execute", "bulk_update_mappings"])
    def test_by_primary_key_of_an_illegal_move_leave_the_row(self, engine: sa.Engine, message: Any, by: str) -> None:
        """SQLAlchemy does not take it for a row that is lost."""
        moves = [{"id": 2, "status": "READY"}, {"id": 1, "status": "PROMOTED"}, {"id": 2, "status": "PROMOTED"}]
        with Session(engine) as session, operation("Work") as op:
            if by == "execute":
                session.execute(sa.update(message), moves)
            else:
                session.bulk_update_mappings(message, moves)
            session.commit()
        assert stored(engine, message) == ["PROMOTED", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]
        assert op.blocked == counts(message.status) == {("PROMOTED", "READY"): 1}
        assert op.allowed == {("READY", "PROMOTED"): 1}

    @pytest.mark.parametrize("by", ["execute", "bulk_update_mappings"])
    def test_by_primary_key_of_an_illegal_move_change_nothing_in_raise(
        self, engine: sa.Engine, message: Any, by: str
    ) -> None:
        moves = [{"id": 1, "status": "PROMOTED"}, {"id": 2, "status": "READY"}, {"id": 3, "status": "READY"}]
        with Session(engine) as session, operation("Work", on_illegal="raise"):
            with pytest.raises(IllegalTransition) as caught:
                if by == "execute":
                    session.execute(sa.update(message), moves)
                else:
                    session.bulk_update_mappings(message, moves)
            if by == "execute":
                session.commit()
            else:  # SQLAlchemy rolls back what it was called in
                session.rollback()
        assert stored(engine, message) == list(STATES)
        assert caught.value.pairs == {("PROMOTED", "READY"): 1, ("COMPLETED", "READY"): 1}
        assert caught.value.identities == ((2,), (3,))

    def test_cannot_open_the_fence(self, engine: sa.Engine, message: Any) -> None:
        """The name of its parameter is random for each process."""
        statement = sa.update(message.__table__).values(status="SPAM_REVIEW")
        names = [name for name in statement.compile(engine).params if name.startswith("statekit_")]
        assert len(names) == 1
        assert len(names[0].removeprefix("statekit_").split("_")[0]) == 8

    def test_of_null_for_a_row_that_has_none_may_change_the_rest_of_it(self, engine: sa.Engine) -> None:
        message = message_class(table=TransitionTable((None, "READY"), "READY → DONE"), default=None)
        fill(engine, message, None)  # type: ignore[arg-type]
        with engine.begin() as connection:
            connection.execute(sa.update(message.__table__).values(status=None, subject="changed"))
            assert connection.scalar(sa.select(message.subject)) == "changed"


class TestOnupdate:
    @pytest.mark.parametrize("value", ["SPAM_REVIEW", sa.func.upper("spam_review")], ids=["a value", "an expression"])
    def test_of_the_guarded_column_is_held_to_the_table(self, engine: sa.Engine, value: Any) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), onupdate=value)
            subject = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal="skip")
        fill(engine, Message, *STATES)
        with engine.begin() as connection:
            assert connection.execute(sa.update(Message.__table__).values(subject="x")).rowcount == 2
        assert stored(engine, Message) == AFTER_MOVING_ALL_TO_SPAM
        assert counts(Message.status) == REFUSED


class TestAnUpdateThatDoesNotSetTheColumn:
    def test_is_compiled_as_ever(self, message: Any) -> None:
        bare = message_class(table=None, name=message.__table__.name)
        texts = [str(sa.update(each.__table__).values(subject="x")) for each in (message, bare)]
        assert texts[0] == texts[1]

    def test_of_another_table_is_compiled_as_ever(self, message: Any) -> None:
        other = sa.Table("other", sa.MetaData(), sa.Column("status", sa.String))
        assert str(sa.update(other).values(status="x")) == "UPDATE other SET status=:status"

    def test_of_a_bare_table_that_does_not_name_it_is_compiled_as_ever(self) -> None:
        message = message_class(name="fenced")
        bare = sa.table(message.__table__.name, sa.column("subject"))
        assert str(sa.update(bare).values(subject="x")) == "UPDATE fenced SET subject=:subject"


class TestATableOfTheSameName:
    @pytest.mark.parametrize("mapped", [True, False])
    def test_in_another_metadata_is_another_table(self, message: Any, mapped: bool) -> None:
        """An application may have two databases with a table of that name."""
        name = message.__table__.name
        table = sa.Table(name, sa.MetaData(), sa.Column("status", sa.String))
        other = message_class(table=None, name=name) if mapped else table
        assert "CASE" not in str(sa.update(other).values(status="x"))

    def test_in_another_schema_is_another_table(self, message: Any) -> None:
        other = sa.table(message.__table__.name, sa.column("status"), schema="archive")
        assert "CASE" not in str(sa.update(other).values(status="x"))


class TestCtesThatWrite:
    @pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
    @pytest.mark.parametrize("mode", ["raise", "skip"])
    def test_are_fenced_though_they_arrive_as_a_select(self, engine: sa.Engine, message: Any, mode: Any) -> None:
        """To ask about them would be to write. So nothing is raised, and nothing counted."""
        moved = core_update(message).returning(message.__table__.c.id).cte("moved")
        with engine.begin() as connection, operation("Work", on_illegal=mode) as op:
            ids = connection.execute(sa.select(moved.c.id)).scalars().all()
        assert sorted(ids) == [1, 4]
        assert stored(engine, message) == AFTER_MOVING_ALL_TO_SPAM
        assert op.blocked == op.allowed == counts(message.status) == {}


class TestSchemaTranslation:
    @pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
    def test_keeps_the_fence(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("tenant"))
            tenant = connection.execution_options(schema_translate_map={None: "tenant"})
            message.metadata.create_all(tenant)
            tenant.execute(sa.insert(unguarded(message)), [{"id": i, "status": s} for i, s in enumerate(STATES)])
            assert tenant.execute(core_update(message)).rowcount == 2
            found = tenant.scalars(sa.select(message.status).order_by(message.id)).all()
        assert found == AFTER_MOVING_ALL_TO_SPAM
        assert counts(message.status) == REFUSED


class TestTwoGuardedColumns:
    def test_are_both_held(self, engine: sa.Engine) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            delivery = mapped_column(sa.String(20))

        guard(Message.status, TABLE)
        guard(Message.delivery, TransitionTable("NEW → SENT"))
        Message.metadata.create_all(engine)
        rows = [("READY", "NEW"), ("READY", "SENT"), ("PROMOTED", "NEW"), ("PROMOTED", "SENT")]
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), [{"status": s, "delivery": d} for s, d in rows])
            connection.execute(sa.update(Message).values(status="PROMOTED", delivery="SENT"))
            found = connection.execute(sa.select(Message.status, Message.delivery).order_by(Message.id)).all()
        # A statement may write the state that a row has already.
        assert found == [("PROMOTED", "SENT")] * 4

    def test_refuse_a_row_if_one_of_them_does(self, engine: sa.Engine) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            delivery = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal="skip")
        guard(Message.delivery, TransitionTable("NEW → SENT"), on_illegal="skip")
        Message.metadata.create_all(engine)
        with engine.begin() as connection, operation("Work") as op:
            connection.execute(sa.insert(unguarded(Message)), [{"status": "READY", "delivery": "SENT"}])
            assert connection.execute(sa.update(Message).values(status="PROMOTED", delivery="NEW")).rowcount == 0
            assert connection.execute(sa.select(Message.status, Message.delivery)).all() == [("READY", "SENT")]
        assert op.blocked == counts(Message.delivery) == {("SENT", "NEW"): 1}
        assert op.allowed == counts(Message.status) == {}

    @pytest.mark.parametrize("observed", ["status", "delivery"])
    def test_are_each_held_in_their_own_mode(self, engine: sa.Engine, observed: str) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            delivery = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal="observe" if observed == "status" else "skip")
        guard(Message.delivery, TransitionTable("NEW → SENT"), on_illegal="observe" if observed != "status" else "skip")
        Message.metadata.create_all(engine)
        rows = [
            {"id": 1, "status": "COMPLETED", "delivery": "NEW"},  # illegal for the status only
            {"id": 2, "status": "READY", "delivery": "OLD"},  # illegal for the delivery only
        ]
        with engine.begin() as connection, operation("Work") as op:
            connection.execute(sa.insert(unguarded(Message)), rows)
            assert connection.execute(sa.update(Message).values(status="PROMOTED", delivery="SENT")).rowcount == 1
            moved = connection.scalars(sa.select(Message.id).where(Message.status == "PROMOTED")).all()
        assert moved == ([1] if observed == "status" else [2])
        status, delivery = {("COMPLETED", "PROMOTED"): 1}, {("OLD", "SENT"): 1}
        assert (op.observed, op.blocked) == ((status, delivery) if observed == "status" else (delivery, status))


class TestAGuardThatComesLate:
    """What was compiled before is compiled anew, in every cache that holds it."""

    def late(self, engine: sa.Engine, execute: Any) -> list[str]:
        message = message_class(table=None)
        fill(engine, message, *STATES)
        statement = execute(engine, message, None)
        assert stored(engine, message) == ["SPAM_REVIEW"] * 4
        with engine.begin() as connection:
            connection.execute(sa.delete(message))
            rows = [{"id": number, "status": state} for number, state in enumerate(STATES, 1)]
            connection.execute(sa.insert(message.__table__), rows)
        guard(message.status, TABLE, on_illegal="skip")
        execute(engine, message, statement)
        assert counts(message.status) == REFUSED
        return stored(engine, message)

    def test_holds_in_the_engines_cache(self, engine: sa.Engine) -> None:
        def execute(engine: sa.Engine, message: Any, statement: Any) -> Any:
            statement = core_update(message) if statement is None else statement
            with engine.begin() as connection:
                connection.execute(statement)
            return statement

        assert self.late(engine, execute) == AFTER_MOVING_ALL_TO_SPAM

    def test_holds_in_a_cache_of_the_users_own(self, engine: sa.Engine) -> None:
        cache: dict[Any, Any] = {}

        def execute(engine: sa.Engine, message: Any, statement: Any) -> Any:
            with engine.connect().execution_options(compiled_cache=cache) as connection, connection.begin():
                result = connection.execute(core_update(message))
                assert result.rowcount == (4 if statement is None else 2)
            return 1

        assert self.late(engine, execute) == AFTER_MOVING_ALL_TO_SPAM

    def test_holds_for_lambda_statements(self, engine: sa.Engine) -> None:
        def execute(engine: sa.Engine, message: Any, statement: Any) -> Any:
            table = message.__table__
            with engine.begin() as connection:
                connection.execute(sa.lambda_stmt(lambda: sa.update(table).values(status="SPAM_REVIEW")))
            return 1

        assert self.late(engine, execute) == AFTER_MOVING_ALL_TO_SPAM

    def test_holds_for_flushes(self, engine: sa.Engine) -> None:
        """Past ring 1, which sees these objects as well: through the statement that the mapper keeps."""

        def execute(engine: sa.Engine, message: Any, statement: Any) -> Any:
            with Session(engine) as session:
                session.bulk_update_mappings(message, [{"id": i, "status": "SPAM_REVIEW"} for i in (1, 2, 3, 4)])
                session.commit()
            return 1

        assert self.late(engine, execute) == AFTER_MOVING_ALL_TO_SPAM

    def test_holds_for_what_was_compiled_before_statekit_was_imported(self) -> None:
        """In a process of its own, because the hooks of this one are installed."""
        script = """
            import sqlalchemy as sa
            from sqlalchemy.pool import StaticPool
            engine = sa.create_engine("sqlite://", poolclass=StaticPool)
            table = sa.Table("message", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
                             sa.Column("status", sa.String))
            statement = sa.update(table).values(status="SPAM_REVIEW")
            with engine.begin() as connection:
                table.create(connection)
                connection.execute(statement)
                connection.execute(sa.insert(table), [{"status": "PROMOTED"}])
            import statekit
            moves = statekit.TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED")
            statekit.guard(table.c.status, moves, on_illegal="skip")
            with engine.begin() as connection:
                print(connection.execute(statement).rowcount, connection.scalar(sa.select(table.c.status)))
                print(*statekit.counts(table.c.status).items())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "0 PROMOTED\n(('PROMOTED', 'SPAM_REVIEW'), 1)\n"

    @pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
    def test_keeps_the_schema_that_a_statement_was_translated_to(self, engine: sa.Engine) -> None:
        message = message_class(table=None)
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("tenant"))
            tenant = connection.execution_options(schema_translate_map={None: "tenant"})
            message.metadata.create_all(tenant)
            tenant.execute(sa.insert(message.__table__), [{"id": 1, "status": "READY"}, {"id": 2, "status": "DONE"}])
            tenant.execute(sa.update(message.__table__).values(status="DONE").where(message.__table__.c.id == 2))
            guard(message.status, TABLE, on_illegal="skip")
            tenant.execute(sa.update(message.__table__).values(status="PROMOTED").where(message.__table__.c.id == 2))
            assert counts(message.status) == {("DONE", "PROMOTED"): 1}
            assert tenant.scalars(sa.select(message.status).order_by(message.id)).all() == ["READY", "DONE"]

    def test_a_second_one_holds_for_what_was_compiled_before_statekit_was_imported(self) -> None:
        script = """
            import sqlalchemy as sa
            from sqlalchemy.pool import StaticPool
            engine = sa.create_engine("sqlite://", poolclass=StaticPool)
            table = sa.Table("message", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
                             sa.Column("status", sa.String), sa.Column("delivery", sa.String))
            statement = sa.update(table).values(delivery="NEW")
            with engine.begin() as connection:
                table.create(connection)
                connection.execute(statement)
                connection.execute(sa.insert(table), [{"status": "DONE", "delivery": "SENT"}])
            import statekit
            statekit.guard(table.c.status, statekit.TransitionTable("READY → DONE"))
            statekit.guard(table.c.delivery, statekit.TransitionTable("NEW → SENT"), on_illegal="skip")
            with engine.begin() as connection:
                print(connection.execute(statement).rowcount, connection.scalar(sa.select(table.c.delivery)))
                print(*statekit.counts(table.c.delivery).items())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "0 SENT\n(('SENT', 'NEW'), 1)\n"

    def test_leaves_what_cannot_be_compiled_again_and_is_about_other_tables(self) -> None:
        script = """
            import sqlalchemy as sa
            from sqlalchemy.ext.compiler import compiles
            from sqlalchemy.sql.expression import ColumnElement

            class Once(ColumnElement):
                type = sa.Integer()

            done = []

            @compiles(Once)
            def render(element, compiler, **kw):
                if done:
                    raise RuntimeError("only once")
                done.append(1)
                return "1"

            other = sa.Table("elsewhere", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
            table = sa.Table("message", sa.MetaData(), sa.Column("status", sa.String))
            kept = sa.update(other).values(id=Once()).compile()
            import statekit
            statekit.guard(table.c.status, statekit.TransitionTable("READY → DONE"))
            print("guarded")
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "guarded\n"


class TestOtherHooksOnUpdate:
    SCRIPT = """
        import sqlalchemy as sa
        from sqlalchemy.ext.compiler import compiles, deregister
        from sqlalchemy.sql import Update
        import statekit
        from statekit import TransitionTable

        table = sa.Table("message", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
                         sa.Column("status", sa.String))

        def theirs():
            @compiles(Update)
            def hook(element, compiler, **kw):
                return "/* theirs */ " + compiler.visit_update(element, **kw)

        def ours():
            statekit.guard(table.c.status, TransitionTable("READY → DONE"))

        {order}
        text = str(sa.update(table).values(status="DONE"))
        print("theirs" in text, "CASE" in text)
    """

    @pytest.mark.parametrize("order", ["theirs(); ours()", "ours(); theirs()"])
    def test_work_beside_the_fence_in_either_order(self, order: str) -> None:
        script = textwrap.dedent(self.SCRIPT).replace("{order}", order)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "True True\n"

    def test_that_take_the_fence_away_are_noticed_at_the_next_flush(self) -> None:
        order = """
from sqlalchemy.orm import registry, Session
class Message: pass
registry().map_imperatively(Message, table)
ours()
deregister(Update)
engine = sa.create_engine("sqlite://")
with Session(engine) as session:
    session.add(Message())
    try:
        session.flush()
    except statekit.StatekitError as error:
        print("deregister(Update)" in str(error))
"""
        script = textwrap.dedent(self.SCRIPT).replace("{order}", order)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == "True"

    def test_that_take_the_fence_away_are_noticed_at_the_next_guard(self) -> None:
        order = """
ours()
deregister(Update)
other = sa.Table("other", sa.MetaData(), sa.Column("status", sa.String))
try:
    statekit.guard(other.c.status, TransitionTable("READY → DONE"))
except statekit.StatekitError as error:
    print("deregister(Update)" in str(error), "statekit" in other.c.status.info)
"""
        script = textwrap.dedent(self.SCRIPT).replace("{order}", order)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == "True False"


class TestDialects:
    def test_that_were_tried_are_quiet(self, message: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for dialect in (sqlite.dialect(), postgresql.dialect()):
                core_update(message).compile(dialect=dialect)
            str(core_update(message))

    def test_that_were_not_are_named_once(self, message: Any) -> None:
        from statekit.guards import fence

        fence._warned.discard("mysql")
        with pytest.warns(UserWarning, match="was not tried on 'mysql'"):
            core_update(message).compile(dialect=mysql.dialect())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            core_update(message).compile(dialect=mysql.dialect())


def test_nothing_is_installed_by_an_import() -> None:
    script = """
        import sqlalchemy as sa, statekit
        from sqlalchemy.orm import Session
        from sqlalchemy.sql import Update
        before = Update._compiler_dispatch
        statekit.guard, statekit.Guarded, statekit.counts, statekit.operation, statekit.available
        from statekit.guards.objects import _before_flush
        print(Update._compiler_dispatch is before, sa.event.contains(Session, "before_flush", _before_flush))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_engines_get_no_listener(engine: sa.Engine, message: Any) -> None:
    """One would slow every statement."""
    with Session(engine) as session:
        session.get_one(message, 1).status = "PROMOTED"
        session.commit()
        assert not engine._has_events
        assert not session.connection()._has_events


def test_a_class_that_goes_away_takes_its_guard_along() -> None:
    from statekit.guards.guard import all_guards

    gc.collect()
    before = len(all_guards())
    message_class()
    gc.collect()
    assert len(all_guards()) <= before


def test_events_that_change_the_statement_stay_in_force(engine: sa.Engine, message: Any) -> None:
    @event.listens_for(engine, "before_execute", retval=True)
    def narrow(conn: Any, element: Any, multiparams: Any, params: Any, options: Any) -> Any:
        if isinstance(element, sa.Update):
            element = element.where(message.__table__.c.id == 2)
        return element, multiparams, params

    with engine.begin() as connection, operation("Work", on_illegal="raise") as op:
        assert connection.execute(sa.update(message.__table__).values(status="COMPLETED")).rowcount == 1
    assert stored(engine, message) == ["READY", "COMPLETED", "COMPLETED", "SPAM_REVIEW"]
    assert op.allowed == {("PROMOTED", "COMPLETED"): 1}


class TestACopyOfTheTableInAnotherSchema:
    @pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
    @pytest.mark.filterwarnings("ignore:.*inherit_schema:sqlalchemy.exc.SADeprecationWarning")
    def test_is_fenced_with_its_own_type(self, engine: sa.Engine) -> None:
        metadata = sa.MetaData(schema="first")
        status = sa.Enum(*STATES, name="status", inherit_schema=True)
        table = sa.Table("message", metadata, sa.Column("id", sa.Integer), sa.Column("status", status))
        guard(table.c.status, TABLE, on_illegal="skip")
        copy = table.to_metadata(sa.MetaData(), schema="second")
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("second"))
            copy.create(connection)
            rows = [{"id": 1, "status": "READY"}, {"id": 2, "status": "PROMOTED"}]
            connection.execute(sa.insert(unguarded(copy)), rows)
            assert connection.execute(sa.update(copy).values(status="SPAM_REVIEW")).rowcount == 1
            found = connection.scalars(sa.select(copy.c.status).order_by(copy.c.id)).all()
        assert found == ["SPAM_REVIEW", "PROMOTED"]
        assert counts(table.c.status) == {("PROMOTED", "SPAM_REVIEW"): 1}


class TestATableOfManyStates:
    """On PostgreSQL the fence takes another form then."""

    NAMES = tuple(f"STATE {number}" for number in range(40))
    TABLE = TransitionTable(*itertools.pairwise(NAMES))

    @pytest.mark.parametrize("type_", [sa.String(20), sa.Enum(*NAMES, name="many")], ids=["text", "enum"])
    def test_is_held(self, engine: sa.Engine, type_: Any) -> None:
        message = message_class(table=self.TABLE, type_=type_, default=None, on_illegal="skip")
        fill(engine, message, *self.NAMES[:3])
        with engine.begin() as connection:
            assert connection.execute(sa.update(message.__table__).values(status="STATE 2")).rowcount == 2
        assert stored(engine, message) == ["STATE 0", "STATE 2", "STATE 2"]
        assert counts(message.status) == {("STATE 0", "STATE 2"): 1}

    def test_is_held_in_a_race(self, engine: sa.Engine) -> None:
        message = message_class(table=self.TABLE, default=None)
        fill(engine, message, "STATE 0")
        with Session(engine) as first, Session(engine) as second:
            one = first.get_one(message, 1)
            for state in ("STATE 1", "STATE 2"):
                second.get_one(message, 1).status = state
                second.commit()
            one.status = "STATE 1"
            with pytest.raises(IllegalTransition):
                first.flush()


@pytest.mark.parametrize(
    "criterion",
    [
        lambda table: sa.text("id > 0 OR id = 0"),
        lambda table: sa.and_(table.c.id > 0, sa.literal_column("id > 0 OR id = 0")),
        lambda table: sa.literal_column("id > 0 OR id = 0"),
    ],
    ids=["text", "a literal column within", "a literal column"],
)
def test_text_with_an_or_that_matches_by_its_first_part_moves_only_what_may_move(
    engine: sa.Engine, criterion: Any
) -> None:
    message = message_class(name="fenced", on_illegal="skip")
    fill(engine, message, *STATES)
    table = message.__table__
    with engine.begin() as connection:
        result = connection.execute(sa.update(table).values(status="SPAM_REVIEW").where(criterion(table)))
        assert result.rowcount == 2
    assert stored(engine, message) == AFTER_MOVING_ALL_TO_SPAM
    assert counts(message.status) == REFUSED


def test_a_statement_with_text_is_left_as_it_was(engine: sa.Engine) -> None:
    message = message_class(name="fenced")
    statement = sa.update(message.__table__).values(status="SPAM_REVIEW").where(sa.text("id > 0"))
    before = str(statement.whereclause)
    statement.compile(engine)
    assert str(statement.whereclause) == before


@pytest.mark.parametrize("state", ["100 %(x)s", "__[POSTCOMPILE_x]"])
def test_states_that_look_like_parameters_are_states(engine: sa.Engine, state: str) -> None:
    table = TransitionTable(("READY", state), (state, "DONE"))
    message = message_class(table=table, name="fenced", on_illegal="skip")
    fill(engine, message, "READY", "DONE")
    with engine.begin() as connection:
        assert connection.execute(sa.update(message.__table__).values(status=state)).rowcount == 1
    assert stored(engine, message) == [state, "DONE"]
    assert counts(message.status) == {("DONE", state): 1}
