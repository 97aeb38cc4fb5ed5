"""A flush in "raise": legal moves are written, an illegal one refuses the whole flush and says everything about it."""

from __future__ import annotations

import enum
import gc
import pickle
import traceback
import warnings
import weakref
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column, relationship

from statekit import IllegalTransition, counts, guard, operation
from tests.guards.inbox import TABLE, Status, fill, load, message_class, new_base, stored, unguarded
from tests.support.databases import Databases, run


def refused(session: Session) -> IllegalTransition:
    with pytest.raises(IllegalTransition) as caught:
        session.flush()
    return caught.value


class TestALegalMove:
    def test_is_written(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
        assert stored(engine, message) == ["PROMOTED"]

    def test_is_counted_nowhere(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
        assert counts(message.status) == Counter()

    def test_may_follow_another_in_the_same_transaction(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            for status in ("PROMOTED", "COMPLETED"):
                session.get_one(message, 1).status = status
                session.flush()
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]

    def test_of_many_rows_is_one_executemany(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, *["READY"] * 50)
        statements: list[tuple[str, bool]] = []

        @sa.event.listens_for(engine, "before_cursor_execute")
        def note(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
            statements.append((statement, executemany))

        with Session(engine) as session:
            for each in load(session, message):
                each.status = "PROMOTED"
            session.flush()
        updates = [
            many for statement, many in statements if statement.startswith("UPDATE") and "WHERE 0" not in statement
        ]
        assert updates == [True]

    def test_of_an_expired_object_is_judged_by_its_row(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            session.expire(one)
            one.status = "COMPLETED"
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]


class TestAnIllegalMove:
    def test_leaves_the_database_as_it_was(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "READY")
        with Session(engine) as session:
            promoted, ready = load(session, message)
            promoted.status, ready.status = "SPAM_REVIEW", "PROMOTED"
            refused(session)
            session.rollback()
        assert stored(engine, message) == ["PROMOTED", "READY"]

    def test_is_told_with_all_its_data(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            error = refused(session)
        assert vars(error) | {"pairs": dict(error.pairs)} == {
            "model": "Message",
            "attribute": "status",
            "identity": (1,),
            "source": "PROMOTED",
            "target": "SPAM_REVIEW",
            "allowed": ("COMPLETED",),
            "pairs": {("PROMOTED", "SPAM_REVIEW"): 1},
            "identities": ((1,),),
            "new": False,
            "hint": "",
            "key_names": ("id",),
            "also": (),
        }

    def test_is_told_in_words(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            assert str(refused(session)) == (
                "Message(id=1).status: cannot move from PROMOTED to SPAM_REVIEW; allowed from PROMOTED: COMPLETED."
            )

    def test_out_of_a_final_state_allows_nothing(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "COMPLETED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "READY"
            assert str(refused(session)).endswith("allowed from COMPLETED: nothing.")

    def test_to_something_that_is_no_state_is_refused_by_name(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "PROMOTE"
            error = refused(session)
        assert error.target == "PROMOTE"
        assert "'PROMOTE' is no state of the table" in str(error)
        assert "Did you mean 'PROMOTED'?" in str(error)

    def test_from_something_that_is_no_state_is_refused_by_name(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "LEGACY")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "READY"
            error = refused(session)
        assert error.source == "LEGACY"
        assert "The row holds 'LEGACY', which is no state of the table" in str(error)

    def test_names_every_refused_row_of_the_flush(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "READY", "COMPLETED", "PROMOTED")
        with Session(engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            error = refused(session)
        assert error.pairs == {("PROMOTED", "SPAM_REVIEW"): 2, ("COMPLETED", "SPAM_REVIEW"): 1}
        assert error.identities == ((1,), (3,), (4,))
        assert error.identity == (1,)

    def test_is_counted_although_the_transaction_rolls_back(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "PROMOTED")
        with Session(engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            refused(session)
            session.rollback()
        assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 2}

    def test_is_counted_again_when_it_is_tried_again(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            refused(session)
            refused(session)
        assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 2}

    def test_does_not_end_the_transaction(self, engine: sa.Engine) -> None:
        """Nothing was written, so that there is nothing to roll back: whoever catches the error may go on."""
        message = message_class()
        fill(engine, message, "PROMOTED", "READY")
        with Session(engine) as session:
            promoted, ready = load(session, message)
            ready.status = "PROMOTED"
            session.flush()
            promoted.status = "SPAM_REVIEW"
            refused(session)
            session.refresh(promoted)
            session.commit()
        assert stored(engine, message) == ["PROMOTED", "PROMOTED"]

    def test_is_refused_when_a_query_flushes(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            with pytest.raises(IllegalTransition):
                load(session, message)

    def test_keeps_its_data_when_it_is_pickled(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            error = refused(session)
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))

    def test_to_a_state_that_a_longer_way_reaches_says_how_to_go_it(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY")
        with Session(memory_engine) as session:
            one = session.get_one(message, 1)
            one.status = "PROMOTED"
            one.status = "COMPLETED"
            assert str(refused(session)).endswith(
                "If it went there step by step (READY → PROMOTED → COMPLETED): flush between the steps, or declare "
                "guard(..., steps=True)."
            )

    @pytest.mark.parametrize("value", [["PROMOTED"], object()], ids=["unhashable", "no text"])
    def test_to_a_value_that_the_type_cannot_bind_is_refused_by_name(
        self, memory_engine: sa.Engine, value: Any
    ) -> None:
        message = message_class(type_=sa.Enum(Status))
        fill(memory_engine, message, Status.READY)
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = value
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
        assert caught.value.target == repr(value)

    def test_of_two_rows_says_so(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED", "COMPLETED")
        with Session(memory_engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            with pytest.raises(IllegalTransition, match="2 rows were refused"):
                session.flush()

    def test_of_rows_whose_keys_have_no_order_names_all_of_them(self, engine: sa.Engine) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Enum(Colour), primary_key=True)
            status = mapped_column(sa.String(20))

        guard(Message.status, TABLE)
        Message.metadata.create_all(engine)
        with engine.begin() as connection:
            rows = [{"id": colour, "status": "PROMOTED"} for colour in Colour]
            connection.execute(sa.insert(unguarded(Message)), rows)
        with Session(engine) as session:
            for each in session.scalars(sa.select(Message)):
                each.status = "SPAM_REVIEW"
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
        assert set(caught.value.identities) == {(Colour.RED,), (Colour.BLUE,)}


class TestWhatIsNoMove:
    @pytest.mark.parametrize("final", ["PROMOTED"])
    def test_there_and_back_again(self, engine: sa.Engine, final: str) -> None:
        """The net move is judged, and there is none."""
        message = message_class()
        fill(engine, message, final)
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.status, one.subject = "SPAM_REVIEW", "changed"
            one.status = final
            session.commit()
        assert stored(engine, message) == [final]

    def test_writing_the_state_of_an_expired_row(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            session.expire(one)
            one.status, one.subject = "COMPLETED", "changed"
            session.commit()
            assert one.subject == "changed"

    def test_changing_another_column_of_a_row_in_an_unknown_state(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "LEGACY")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.subject = "changed"
            session.commit()
            assert one.subject == "changed"

    def test_marking_the_attribute_as_changed(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            sa.orm.attributes.flag_modified(one, "status")
            session.commit()
        assert counts(message.status) == {}

    def test_deleting(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.status = "READY"
            session.delete(one)
            session.commit()
        assert stored(engine, message) == []

    def test_writing_the_state_of_an_expired_row_beside_a_move_counts_the_move_once(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "COMPLETED")
        with Session(engine) as session, operation("Work") as op:
            one, two = load(session, message)
            session.expire(two)
            one.status, two.status = "PROMOTED", "COMPLETED"
            session.commit()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_replacing_a_deleted_row_without_a_state_keeps_the_state(self, engine: sa.Engine) -> None:
        """SQLAlchemy makes it an UPDATE of what was given."""
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            session.delete(session.get_one(message, 1))
            session.add(message(id=1, subject="new"))
            session.commit()
            assert session.get_one(message, 1).subject == "new"
        assert stored(engine, message) == ["COMPLETED"]

    def test_deleting_an_object_whose_state_was_set_is_counted_nowhere(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine, autoflush=False) as session, operation("Work") as op:
            one = session.get_one(message, 1)
            one.status = "PROMOTED"
            session.delete(one)
            session.commit()
        assert op.allowed == {}


class TestANewRow:
    def test_may_start_in_an_initial_state(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2, status="READY")])
            session.commit()
        assert stored(engine, message) == ["READY", "READY"]

    def test_may_not_start_elsewhere(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2, status="COMPLETED")])
            error = refused(session)
            session.rollback()
        assert stored(engine, message) == []
        assert (error.new, error.source, error.target, error.allowed) == (True, None, "COMPLETED", ("READY",))
        assert str(error) == "Message(id=2).status: a new row cannot start in COMPLETED; allowed: READY."

    def test_is_counted_with_no_source(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message)
        with Session(memory_engine) as session:
            session.add(message(status="COMPLETED"))
            refused(session)
        assert counts(message.status) == {(None, "COMPLETED"): 1}

    def test_may_start_anywhere_where_no_initial_state_is_declared(self, engine: sa.Engine) -> None:
        message = message_class(table=type(TABLE)("READY → PROMOTED → COMPLETED"))
        fill(engine, message)
        with Session(engine) as session:
            session.add(message(id=1, status="COMPLETED"))
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]

    def test_may_not_start_in_what_is_no_state(self, memory_engine: sa.Engine) -> None:
        message = message_class(table=type(TABLE)("READY → PROMOTED → COMPLETED"))
        fill(memory_engine, message)
        with Session(memory_engine) as session:
            session.add(message(status="SPAM"))
            assert refused(session).target == "SPAM"

    def test_that_takes_the_key_of_a_deleted_one_is_a_move(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            session.delete(session.get_one(message, 1))
            session.add(message(id=1, status="READY"))
            error = refused(session)
        assert (error.new, error.source, error.target) == (False, "COMPLETED", "READY")

    def test_that_takes_the_key_and_the_state_of_a_deleted_one_is_no_move(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            session.delete(session.get_one(message, 1))
            session.add(message(id=1, status="COMPLETED", subject="again"))
            session.commit()
            assert session.get_one(message, 1).subject == "again"


class TestSeveralErrorsInOneFlush:
    def test_each_model_and_new_rows_have_an_error_of_their_own(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.add(message(id=2, status="COMPLETED"))
            error = refused(session)
        assert [each.pairs for each in (error, *error.also)] == [
            {("PROMOTED", "SPAM_REVIEW"): 1},
            {(None, "COMPLETED"): 1},
        ]
        assert any("a new row cannot start in COMPLETED" in note for note in error.__notes__)

    def test_all_are_counted(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.add(message(id=2, status="COMPLETED"))
            refused(session)
        assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 1, (None, "COMPLETED"): 1}


class TestAnSqlExpressionAsTheState:
    """What Python cannot judge, the database evaluates before the flush."""

    def test_is_written_if_its_value_is_legal(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.status = sa.case((message.subject == "", "PROMOTED"), else_="COMPLETED")
            session.commit()
            assert one.status == "PROMOTED"

    def test_is_refused_if_its_value_is_not(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            session.get_one(message, 1).status = sa.func.upper("completed")
            error = refused(session)
        assert (error.source, error.target) == ("READY", "COMPLETED")

    def test_may_be_the_column_itself(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            session.get_one(message, 1).status = message.status
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]

    def test_of_a_new_row_is_judged_once_it_is_written(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)
        with Session(engine) as session:
            session.add(message(id=1, status=sa.func.upper("completed")))
            error = refused(session)
            session.rollback()
        assert (error.new, error.target) == (True, "COMPLETED")
        assert stored(engine, message) == []

    def test_is_judged_by_what_it_gives_for_its_own_row(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED")
        with Session(engine) as session:
            two = session.get_one(message, 2)
            two.status = sa.case((message.id == 2, "COMPLETED"), else_="READY")
            session.commit()
        assert stored(engine, message) == ["READY", "COMPLETED"]


class TestWhatTheFlushItselfChanges:
    def test_a_listener_that_moves_a_row_illegally_is_refused(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "PROMOTED")

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "SPAM_REVIEW"

        with Session(engine) as session:
            for each in load(session, message):
                each.subject = "changed"
            error = refused(session)
            session.rollback()
        assert error.pairs == {("PROMOTED", "SPAM_REVIEW"): 2}
        assert "while the flush was under way" in str(error)
        assert stored(engine, message) == ["PROMOTED", "PROMOTED"]

    def test_a_listener_that_moves_a_row_legally_is_not(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "COMPLETED"

        with Session(engine) as session:
            session.get_one(message, 1).subject = "changed"
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]

    def test_a_listener_that_starts_a_new_row_elsewhere_is_refused(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)

        @sa.event.listens_for(message, "before_insert")
        def start(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "COMPLETED"

        with Session(engine) as session:
            session.add(message(id=1, status="READY"))
            assert refused(session).pairs == {(None, "COMPLETED"): 1}
            session.rollback()
        assert stored(engine, message) == []

    def test_async_drivers_that_count_no_rows_see_it_too(self, async_engine: AsyncEngine, databases: Databases) -> None:
        message = message_class()
        backend = "sqlite" if async_engine.dialect.name == "sqlite" else "psycopg"
        sync_engine = databases.engine(backend)
        fill(sync_engine, message, "PROMOTED", "PROMOTED", "READY")

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "SPAM_REVIEW"

        async def change() -> IllegalTransition:
            async with AsyncSession(async_engine) as session:
                for each in await session.scalars(sa.select(message)):
                    each.subject = "changed"
                with pytest.raises(IllegalTransition) as caught:
                    await session.flush()
                return caught.value

        assert run(change()).pairs == {("PROMOTED", "SPAM_REVIEW"): 2}
        assert stored(sync_engine, message) == ["PROMOTED", "PROMOTED", "READY"]


class TestWhatAFlushLeavesBehind:
    @pytest.mark.parametrize("illegal", [False, True])
    def test_no_circle_of_references_that_keeps_the_session(self, memory_engine: sa.Engine, illegal: bool) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "READY")
        gc.collect()
        gc.disable()
        try:
            session = Session(memory_engine)
            for each in load(session, message):
                each.status = "COMPLETED" if illegal else "PROMOTED"
            if illegal:
                try:
                    session.flush()
                except IllegalTransition as error:
                    # The traceback holds the frames, as with any exception.
                    traceback.clear_frames(error.__traceback__)
            else:
                session.commit()
            session.close()
            gone = weakref.ref(session)
            del session, each
            assert gone() is None
        finally:
            gc.enable()


def test_metadata_with_guarded_columns_can_be_pickled() -> None:
    message = message_class(type_=sa.Enum(Status))
    copy = pickle.loads(pickle.dumps(message.metadata))
    statement = sa.update(copy.tables["message"]).values(status="PROMOTED")
    assert "CASE" in str(statement)


def test_a_broken_mapper_elsewhere_is_none_of_our_business(memory_engine: sa.Engine) -> None:
    message, bare = message_class(), message_class(table=None, name="bare")

    class Broken(new_base()):  # type: ignore[misc]
        __tablename__ = "broken"
        id = mapped_column(sa.Integer, primary_key=True)
        nobody = relationship("Nobody")

    fill(memory_engine, message, "READY")
    bare.metadata.create_all(memory_engine)
    try:
        with Session(memory_engine) as session:
            session.add(bare(id=1))
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
    finally:
        Broken.registry.dispose()
    assert stored(memory_engine, message) == ["PROMOTED"]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
def test_a_session_that_binds_each_class_to_an_engine(engine: sa.Engine, mode: Any) -> None:
    message = message_class(on_illegal=mode)
    fill(engine, message, "READY")
    with Session(binds={message: engine}) as session:
        one = session.get_one(message, 1)
        session.expire(one)
        one.status = "PROMOTED"
        session.commit()
    assert stored(engine, message) == ["PROMOTED"]


def test_a_session_is_not_kept_by_its_last_flush(memory_engine: sa.Engine) -> None:
    message = message_class()
    fill(memory_engine, message, "READY")
    session = Session(memory_engine)
    session.get_one(message, 1).status = "PROMOTED"
    session.commit()
    session.close()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


def test_a_guard_that_comes_after_a_flush_of_the_class_judges_the_next(engine: sa.Engine) -> None:
    message = message_class(table=None)
    fill(engine, message, "PROMOTED", "PROMOTED")
    message_class(name="other")  # so that flushes are looked at
    with Session(engine) as session:
        session.get_one(message, 1).status = "SPAM_REVIEW"
        session.commit()
        guard(message.status, TABLE)
        session.get_one(message, 2).status = "SPAM_REVIEW"
        with pytest.raises(IllegalTransition):
            session.flush()
    assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 1}


def test_a_flush_of_chosen_objects_judges_only_those(memory_engine: sa.Engine) -> None:
    message = message_class()
    fill(memory_engine, message, "READY", "PROMOTED")
    with Session(memory_engine) as session:
        one, two = load(session, message)
        one.status, two.status = "PROMOTED", "SPAM_REVIEW"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session.flush([one])
        assert one.status == "PROMOTED"
    assert counts(message.status) == {}
