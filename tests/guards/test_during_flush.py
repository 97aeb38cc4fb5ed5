"""States that are set while a flush is under way: by listeners, by relationships, by ``onupdate=``."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column, relationship, sessionmaker

from statekit import IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards.inbox import TABLE, fill, message_class, new_base, stored, unguarded
from tests.support.databases import Databases, run

MODES = ["raise", "skip", "observe"]


class TestAnotherListenerToBeforeFlush:
    """One on a session or a sessionmaker runs after ours, which is on the class Session."""

    def sessions(self, engine: sa.Engine, change: Any) -> Any:
        sessions = sessionmaker(engine)
        sa.event.listen(sessions, "before_flush", lambda session, context, instances: change(session))
        return sessions

    @pytest.mark.parametrize("mode", MODES)
    def test_that_moves_a_row_is_judged(self, engine: sa.Engine, mode: Any) -> None:
        message = message_class(on_illegal=mode)
        fill(engine, message, "COMPLETED", "READY")

        def change(session: Session) -> None:
            for each in session.scalars(sa.select(message)):
                each.status = "PROMOTED"

        with self.sessions(engine, change)() as session, operation("Work") as op:
            session.get_one(message, 2).subject = "changed"
            if mode == "raise":
                with pytest.raises(IllegalTransition):
                    session.flush()
                session.rollback()
            else:
                session.commit()
        expected = {
            "raise": (["COMPLETED", "READY"], 1, 0, 0),
            "skip": (["COMPLETED", "PROMOTED"], 1, 0, 1),
            "observe": (["PROMOTED", "PROMOTED"], 0, 1, 1),
        }[mode]
        got = stored(engine, message), op.blocked.total(), op.observed.total(), op.allowed.total()
        assert got == expected

    @pytest.mark.parametrize("mode", MODES)
    def test_that_adds_a_row_is_judged(self, engine: sa.Engine, mode: Any) -> None:
        message = message_class(on_illegal=mode)
        fill(engine, message, "READY")
        sessions = self.sessions(engine, lambda session: session.add(message(id=9, status="COMPLETED")))
        with sessions() as session, operation("Work") as op:
            session.get_one(message, 1).subject = "changed"
            if mode == "observe":
                session.commit()
                assert op.observed == {(None, "COMPLETED"): 1}
            else:
                with pytest.raises(IllegalTransition):
                    session.flush()
                assert op.blocked == {(None, "COMPLETED"): 1}

    def test_that_overrules_an_illegal_move_comes_too_late(self, memory_engine: sa.Engine) -> None:
        """Ours runs first: what it sees is what was asked for."""
        message = message_class()
        fill(memory_engine, message, "COMPLETED")

        def change(session: Session) -> None:
            session.get_one(message, 1).status = "COMPLETED"

        with self.sessions(memory_engine, change)() as session:
            session.get_one(message, 1).status = "READY"
            with pytest.raises(IllegalTransition):
                session.flush()

    def test_that_changes_a_legal_move_to_another_is_counted_once(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")

        def change(session: Session) -> None:
            session.get_one(message, 1).status = "PROMOTED"

        with self.sessions(engine, change)() as session, operation("Work") as op:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_that_repeats_a_skipped_move_is_skipped_again(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")

        def change(session: Session) -> None:
            session.get_one(message, 1).status = "SPAM_REVIEW"

        with self.sessions(engine, change)() as session:
            one = session.get_one(message, 1)  # the same object both times
            one.status = "SPAM_REVIEW"
            session.commit()
        assert stored(engine, message) == ["PROMOTED"]

    def test_that_moves_a_row_illegally_in_skip_leaves_nothing_for_other_listeners_to_write(
        self, engine: sa.Engine
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")

        @sa.event.listens_for(message, "before_update")
        def touch(mapper: Any, connection: Any, target: Any) -> None:
            target.subject = "touched"

        def change(session: Session) -> None:
            session.get_one(message, 1).status = "SPAM_REVIEW"

        with self.sessions(engine, change)() as session:
            session.get_one(message, 1).subject = "changed"
            session.commit()
            assert session.get_one(message, 1).subject == ""

    def test_that_adds_a_step_to_those_of_a_new_row_writes_it_too(self, engine: sa.Engine) -> None:
        message = message_class(steps=True)
        fill(engine, message)

        def change(session: Session) -> None:
            for each in session.new:
                each.status = "COMPLETED"

        with self.sessions(engine, change)() as session:
            new = message(id=1, status="READY")
            new.status = "PROMOTED"
            session.add(new)
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]

    def test_that_moves_a_row_in_a_flush_without_guarded_objects_is_judged(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "COMPLETED")

        class Note(new_base()):  # type: ignore[misc]
            __tablename__ = "note"
            id = mapped_column(sa.Integer, primary_key=True)

        Note.metadata.create_all(engine)

        def change(session: Session) -> None:
            session.get_one(message, 1).status = "READY"

        with self.sessions(engine, change)() as session:
            session.add(Note(id=1))
            session.commit()
        assert counts(message.status) == {("COMPLETED", "READY"): 1}


class TestAListenerToBeforeUpdate:
    def message(self, engine: sa.Engine, to: str, *states: str, **options: Any) -> Any:
        message = message_class(**options)
        fill(engine, message, *states)

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = to

        return message

    def test_is_left_out_in_skip_if_it_moves_a_row_illegally(self, engine: sa.Engine) -> None:
        message = self.message(engine, "PROMOTED", "COMPLETED", "READY", on_illegal="skip")
        with Session(engine) as session:
            for number in (1, 2):
                session.get_one(message, number).subject = "changed"
            session.commit()
            assert session.get_one(message, 1).subject == ""
            assert session.get_one(message, 2).subject == "changed"
        assert stored(engine, message) == ["COMPLETED", "PROMOTED"]
        assert counts(message.status) == {("COMPLETED", "PROMOTED"): 1}

    def test_is_left_out_in_skip_of_an_async_session_too(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        message = self.message(engine, "PROMOTED", "COMPLETED", on_illegal="skip")

        async def change() -> tuple[str, str]:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                one = await session.get_one(message, 1)
                one.subject = "changed"
                await session.commit()
                return one.status, one.subject

        assert run(change()) == ("COMPLETED", "")

    def test_is_counted_for_the_move_that_is_written(self, engine: sa.Engine) -> None:
        message = self.message(engine, "PROMOTED", "READY")
        with Session(engine) as session, operation("Work") as op:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_is_judged_by_the_row_if_that_was_not_loaded(self, engine: sa.Engine) -> None:
        message = self.message(engine, "READY", "COMPLETED", on_illegal="observe")
        with Session(engine) as session, operation("Work") as op:
            one = session.get_one(message, 1)
            session.expire(one)
            one.subject = "changed"
            session.commit()
        assert op.observed == {("COMPLETED", "READY"): 1}

    def test_that_writes_the_state_of_the_row_is_no_race(self, engine: sa.Engine) -> None:
        message = self.message(engine, "COMPLETED", "COMPLETED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            session.expire(one)
            one.subject = "changed"
            session.commit()
            assert one.subject == "changed"

    def test_that_executes_a_statement_may_keep_a_state(self, engine: sa.Engine) -> None:
        """Only the flush's own statements are strict about rows that have the state already."""
        message = message_class()
        fill(engine, message, "READY", "READY")

        @sa.event.listens_for(message, "after_update")
        def touch(mapper: Any, connection: sa.Connection, target: Any) -> None:
            table = message.__table__
            connection.execute(table.update().where(table.c.id == 2).values(status="READY", subject="touched"))

        with Session(engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
            assert session.get_one(message, 2).subject == "touched"

    def test_that_comes_after_ours_and_keeps_the_state_is_counted_nowhere(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="observe")
        fill(engine, message, "COMPLETED")
        sa.event.listen(message, "before_update", lambda *args: None)
        with Session(engine) as session, operation("Work") as op:
            one = session.get_one(message, 1)
            one.subject = "first"
            session.commit()

            @sa.event.listens_for(message, "before_update")
            def keep(mapper: Any, connection: Any, target: Any) -> None:
                target.status = target.status

            one.subject = "second"
            session.commit()
        assert op.observed == {}

    def test_that_moves_one_of_two_guarded_columns_leaves_the_count_of_the_other(self, engine: sa.Engine) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            delivery = mapped_column(sa.String(20), default="NEW")

        guard(Message.status, TABLE)
        guard(Message.delivery, TransitionTable("NEW → SENT"))
        Message.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "READY", "delivery": "NEW"}])

        @sa.event.listens_for(Message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "PROMOTED"

        with Session(engine) as session, operation("Work") as op:
            session.get_one(Message, 1).delivery = "SENT"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1, ("NEW", "SENT"): 1}

    @pytest.mark.parametrize("where", ["no criterion", "a criterion named as a flush names its own, and another"])
    def test_that_executes_a_statement_of_any_shape_may_keep_a_state(self, engine: sa.Engine, where: str) -> None:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED")
        table = message.__table__
        statement = table.update().values(status="PROMOTED", subject="touched")
        if where != "no criterion":
            statement = statement.where(table.c.id == sa.bindparam("message_id", 2), table.c.subject == sa.literal(""))

        @sa.event.listens_for(message, "after_update")
        def touch(mapper: Any, connection: sa.Connection, target: Any) -> None:
            connection.execute(statement)

        with Session(engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
            assert session.get_one(message, 2).subject == "touched"


def with_a_table_of_states(mode: Any, **options: Any) -> tuple[Any, Any]:
    """Return classes State and Message, of which the state is a foreign key that a relationship fills."""
    base = new_base()

    class State(base):  # type: ignore[misc, valid-type]
        __tablename__ = "state"
        code = mapped_column(sa.String(20), primary_key=True)

    class Message(base):  # type: ignore[misc, valid-type]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.ForeignKey("state.code"), **options)
        state = relationship(State, overlaps="messages")

    State.messages = relationship(Message, overlaps="state")
    guard(Message.status, TABLE, on_illegal=mode)
    return State, Message


class TestARelationship:
    def prepare(self, engine: sa.Engine, mode: Any, *states: str, **options: Any) -> tuple[Any, Any]:
        state, message = with_a_table_of_states(mode, **options)
        message.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(state.__table__), [{"code": code} for code in TABLE.states])
            rows = [{"id": number, "status": code} for number, code in enumerate(states, 1)]
            if rows:
                connection.execute(sa.insert(unguarded(message)), rows)
        return state, message

    @pytest.mark.parametrize("by", ["the many side", "the one side"])
    @pytest.mark.parametrize("mode", MODES)
    def test_that_fills_the_column_is_judged(self, engine: sa.Engine, mode: Any, by: str) -> None:
        state, message = self.prepare(engine, mode, "COMPLETED", "READY", "COMPLETED")
        with Session(engine) as session, operation("Work") as op:
            promoted = session.get_one(state, "PROMOTED")
            for each in session.scalars(sa.select(message)):
                if by == "the many side":
                    each.state = promoted
                else:
                    promoted.messages.append(each)
            if mode == "raise":
                with pytest.raises(IllegalTransition) as caught:
                    session.flush()
                assert caught.value.pairs == {("COMPLETED", "PROMOTED"): 2}
                session.rollback()
            else:
                session.commit()
        expected = {
            "raise": (["COMPLETED", "READY", "COMPLETED"], 2, 0, 0),
            "skip": (["COMPLETED", "PROMOTED", "COMPLETED"], 2, 0, 1),
            "observe": (["PROMOTED"] * 3, 0, 2, 1),
        }[mode]
        got = stored(engine, message), op.blocked.total(), op.observed.total(), op.allowed.total()
        assert got == expected

    def test_through_an_async_session_is_judged(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        state, message = self.prepare(engine, "raise", "COMPLETED", "COMPLETED")

        async def change() -> None:
            async with AsyncSession(async_engine) as session:
                promoted = await session.get_one(state, "PROMOTED")
                for each in await session.scalars(sa.select(message)):
                    each.state = promoted
                with pytest.raises(IllegalTransition) as caught:
                    await session.flush()
                assert caught.value.pairs == {("COMPLETED", "PROMOTED"): 2}

        run(change())
        assert counts(message.status) == {("COMPLETED", "PROMOTED"): 2}

    @pytest.mark.parametrize("options", [{}, {"default": "READY"}], ids=["no default", "a default"])
    def test_that_starts_a_new_row_is_judged(self, engine: sa.Engine, options: Any) -> None:
        state, message = self.prepare(engine, "raise", **options)
        with Session(engine) as session:
            session.add(message(id=1, state=session.get_one(state, "READY")))
            session.commit()
            session.add(message(id=2, state=session.get_one(state, "COMPLETED")))
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
        assert caught.value.pairs == {(None, "COMPLETED"): 1}

    def test_that_fills_the_column_of_a_subclass_is_judged(self, engine: sa.Engine) -> None:
        base = new_base()

        class State(base):  # type: ignore[misc, valid-type]
            __tablename__ = "state"
            code = mapped_column(sa.String(20), primary_key=True)

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            kind = mapped_column(sa.String(20))
            status = mapped_column(sa.ForeignKey("state.code"))
            state = relationship(State)
            __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "message"}

        class Letter(Message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

        guard(Message.status, TABLE, on_illegal="skip")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(State.__table__), [{"code": code} for code in TABLE.states])
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "kind": "letter", "status": "COMPLETED"}])
        with Session(engine) as session:
            session.get_one(Letter, 1).state = session.get_one(State, "READY")
            session.commit()
        assert stored(engine, Message) == ["COMPLETED"]
        assert counts(Message.status) == {("COMPLETED", "READY"): 1}


class TestOnupdate:
    def message(self, engine: sa.Engine, onupdate: Any, *states: str, **options: Any) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), onupdate=onupdate)
            subject = mapped_column(sa.String(20))

        guard(Message.status, TABLE, **options)
        fill(engine, Message, *states)
        return Message

    kinds = pytest.mark.parametrize(
        "onupdate", ["PROMOTED", sa.func.upper("promoted"), lambda: "PROMOTED"], ids=["a value", "SQL", "a function"]
    )

    @kinds
    def test_makes_a_legal_move_and_keeps_it(self, engine: sa.Engine, onupdate: Any) -> None:
        message = self.message(engine, onupdate, "READY")
        with Session(engine) as session:
            for subject in ("one", "two"):
                session.get_one(message, 1).subject = subject
                session.commit()
            assert session.get_one(message, 1).subject == "two"
        assert stored(engine, message) == ["PROMOTED"]

    @pytest.mark.parametrize("onupdate", ["PROMOTED", sa.func.upper("promoted")], ids=["a value", "SQL"])
    @pytest.mark.parametrize("mode", MODES)
    def test_is_judged(self, engine: sa.Engine, onupdate: Any, mode: Any) -> None:
        message = self.message(engine, onupdate, "COMPLETED", on_illegal=mode)
        with Session(engine) as session, operation("Work") as op:
            session.get_one(message, 1).subject = "changed"
            if mode == "raise":
                with pytest.raises(IllegalTransition):
                    session.flush()
                session.rollback()
            else:
                session.commit()
        pair = ("COMPLETED", "PROMOTED")
        assert (op.blocked, op.observed) == (({}, {pair: 1}) if mode == "observe" else ({pair: 1}, {}))
        assert stored(engine, message) == ["PROMOTED" if mode == "observe" else "COMPLETED"]

    def test_of_an_unchanged_object_is_not_called_up(self, engine: sa.Engine) -> None:
        message = self.message(engine, "PROMOTED", "COMPLETED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.subject = one.subject
            session.commit()
        assert counts(message.status) == {}


class TestAListenerToBeforeUpdateThatRunsAfterOurs:
    """Ours was attached by an earlier flush: what this one does is seen when the flush has written it."""

    def message(self, engine: sa.Engine, to: str, *states: str, **options: Any) -> Any:
        message = message_class(**options)
        fill(engine, message, *states)
        sa.event.listen(message, "before_update", lambda *args: None)
        with Session(engine) as session:
            session.get_one(message, 1).subject = "first"
            session.commit()

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = to

        return message

    def test_is_counted_if_it_moves_a_row_legally(self, engine: sa.Engine) -> None:
        message = self.message(engine, "PROMOTED", "READY")
        with Session(engine) as session, operation("Work") as op:
            session.get_one(message, 1).subject = "second"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_is_counted_for_the_move_that_is_written(self, engine: sa.Engine) -> None:
        message = self.message(engine, "PROMOTED", "READY")
        with Session(engine) as session, operation("Work") as op:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_is_named_as_what_moved_a_row_illegally(self, engine: sa.Engine) -> None:
        message = self.message(engine, "READY", "COMPLETED")
        with Session(engine) as session:
            session.get_one(message, 1).subject = "second"
            with pytest.raises(IllegalTransition, match="while the flush was under way"):
                session.flush()

    def test_is_refused_in_skip_if_it_moves_a_row_illegally(self, engine: sa.Engine) -> None:
        """It is too late to leave the row out."""
        message = self.message(engine, "READY", "COMPLETED", on_illegal="skip")
        with Session(engine) as session:
            session.get_one(message, 1).subject = "second"
            with pytest.raises(IllegalTransition):
                session.flush()

    def test_is_refused_on_drivers_that_count_no_rows(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        message = self.message(engine, "READY", "COMPLETED", "COMPLETED")

        async def change() -> None:
            async with AsyncSession(async_engine) as session:
                for each in await session.scalars(sa.select(message)):
                    each.subject = "second"
                with pytest.raises(IllegalTransition) as caught:
                    await session.flush()
                assert caught.value.pairs == {("COMPLETED", "READY"): 2}

        run(change())
