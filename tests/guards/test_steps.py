"""``guard(..., steps=True)``: the assignments before a flush are followed, and each is an UPDATE of its own."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column, validates

from statekit import ConcurrentTransition, IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards.inbox import TABLE, fill, load, message_class, new_base, stored
from tests.support.databases import Databases, run


def statuses_written(engine: sa.Engine) -> list[str]:
    """Return a list to which each UPDATE of a status adds what it writes."""
    written: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        if statement.startswith("UPDATE message SET status="):
            for each in context.compiled_parameters:
                written.append(each.get("statekit_target", each.get("status")))

    return written


def go(obj: Any, *states: str) -> None:
    for state in states:
        obj.status = state


def test_each_step_is_an_update_of_its_own_in_order(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        go(session.get_one(message, 1), "PROMOTED", "COMPLETED")
        session.commit()
    assert written == ["PROMOTED", "COMPLETED"]
    assert stored(engine, message) == ["COMPLETED"]


def test_a_row_of_which_the_source_is_not_loaded_goes_them_too(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        one = session.get_one(message, 1)
        session.expire(one)
        go(one, "PROMOTED", "COMPLETED")
        session.commit()
    assert stored(engine, message) == ["COMPLETED"]


def test_a_single_step_is_as_without(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        go(session.get_one(message, 1), "PROMOTED")
        session.commit()
    assert written == ["PROMOTED"]


def test_repeating_a_state_is_no_step(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        go(session.get_one(message, 1), "READY", "PROMOTED", "PROMOTED", "COMPLETED")
        session.commit()
    assert written == ["PROMOTED", "COMPLETED"]


def test_a_way_that_ends_where_it_began_is_gone_all_the_same(engine: sa.Engine) -> None:
    message = message_class(table=TransitionTable("READY → CLOSED → READY"), steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        go(session.get_one(message, 1), "CLOSED", "READY")
        session.commit()
    assert written == ["CLOSED", "READY"]


def test_an_illegal_step_refuses_the_flush_though_the_net_move_is_legal(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        go(session.get_one(message, 1), "SPAM_REVIEW", "PROMOTED")
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
        session.rollback()
    assert caught.value.pairs == {("SPAM_REVIEW", "PROMOTED"): 1}
    assert stored(engine, message) == ["READY"]


def test_an_illegal_step_is_skipped_with_the_whole_row(engine: sa.Engine) -> None:
    message = message_class(steps=True, on_illegal="skip")
    fill(engine, message, "READY", "READY")
    with Session(engine) as session:
        one, two = load(session, message)
        go(one, "SPAM_REVIEW", "PROMOTED")
        go(two, "PROMOTED", "COMPLETED")
        session.commit()
    assert stored(engine, message) == ["READY", "COMPLETED"]
    assert counts(message.status) == {("SPAM_REVIEW", "PROMOTED"): 1}


def test_steps_are_counted_one_by_one(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session, operation("All the way", on_illegal="observe") as op:
        go(session.get_one(message, 1), "PROMOTED", "SPAM_REVIEW")
        session.commit()
    assert op.allowed == {("READY", "PROMOTED"): 1}
    assert op.observed == {("PROMOTED", "SPAM_REVIEW"): 1}


def test_a_new_object_is_inserted_in_its_first_state(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message)
    written = statuses_written(engine)
    with Session(engine) as session:
        new = message(id=1, status="READY")
        go(new, "PROMOTED", "COMPLETED")
        session.add(new)
        session.commit()
        assert new.status == "COMPLETED"
    assert written == ["PROMOTED", "COMPLETED"]
    assert stored(engine, message) == ["COMPLETED"]


def test_a_new_object_that_takes_an_illegal_step_is_refused(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message)
    with Session(engine) as session:
        new = message(id=1, status="READY")
        go(new, "COMPLETED")
        session.add(new)
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
        session.rollback()
        assert new.status == "COMPLETED"
    assert caught.value.pairs == {("READY", "COMPLETED"): 1}
    assert stored(engine, message) == []


def test_what_was_assigned_before_a_rollback_is_forgotten(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        one = session.get_one(message, 1)
        go(one, "SPAM_REVIEW")
        session.rollback()
        go(one, "PROMOTED")
        session.commit()
    assert written == ["PROMOTED"]


def test_what_was_flushed_is_forgotten(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    written = statuses_written(engine)
    with Session(engine) as session:
        one = session.get_one(message, 1)
        go(one, "PROMOTED")
        session.flush()
        go(one, "COMPLETED")
        session.commit()
    assert written == ["PROMOTED", "COMPLETED"]


def test_only_the_last_step_changes_version_and_onupdate_columns(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        version = mapped_column(sa.Integer, nullable=False)
        updates = mapped_column(sa.Integer, default=0, onupdate=sa.text("updates + 1"))
        __mapper_args__ = {"version_id_col": version}

    guard(Message.status, TABLE, steps=True)
    Message.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Message(id=1, status="READY"))
        session.commit()
        one = session.get_one(Message, 1)
        go(one, "PROMOTED", "COMPLETED")
        session.commit()
        assert (one.status, one.version, one.updates) == ("COMPLETED", 2, 1)


def test_many_rows_go_in_one_statement_a_step(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, *["READY"] * 20)
    statements: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("UPDATE message SET status="):
            statements.append(statement)

    with Session(engine) as session:
        for each in load(session, message):
            go(each, "PROMOTED", "COMPLETED")
        session.commit()
    assert len(statements) == 2
    assert stored(engine, message) == ["COMPLETED"] * 20


def test_a_step_that_comes_too_late_is_refused(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as first, Session(engine) as second:
        one = first.get_one(message, 1)
        second.get_one(message, 1).status = "SPAM_REVIEW"
        second.commit()
        go(one, "PROMOTED", "COMPLETED")
        with pytest.raises(IllegalTransition) as caught:
            first.flush()
        first.rollback()
    assert caught.value.pairs == {("SPAM_REVIEW", "PROMOTED"): 1}
    assert stored(engine, message) == ["SPAM_REVIEW"]


def test_they_go_through_an_async_session(async_engine: AsyncEngine, databases: Databases) -> None:
    message = message_class(steps=True)
    sync_engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    fill(sync_engine, message, "READY", "READY")

    async def change() -> None:
        async with AsyncSession(async_engine) as session:
            for each in await session.scalars(sa.select(message)):
                go(each, "PROMOTED", "COMPLETED")
            await session.commit()

    run(change())
    assert stored(sync_engine, message) == ["COMPLETED", "COMPLETED"]


def test_a_flush_that_is_refused_for_another_reason_loses_no_step(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message)
    with Session(engine) as session:
        new, wrong = message(id=1, status="READY"), message(id=2, status="COMPLETED")
        go(new, "PROMOTED")
        session.add_all([new, wrong])
        with pytest.raises(IllegalTransition):
            session.flush()
        assert new.status == "PROMOTED"
        session.expunge(wrong)
        session.commit()
    assert stored(engine, message) == ["PROMOTED"]


def test_after_a_refusal_the_next_assignment_begins_anew(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        one = session.get_one(message, 1)
        go(one, "COMPLETED")
        with pytest.raises(IllegalTransition):
            session.flush()
        go(one, "PROMOTED")
        session.commit()
    assert stored(engine, message) == ["PROMOTED"]


def test_after_a_refusal_the_same_flush_is_refused_again(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        go(session.get_one(message, 1), "SPAM_REVIEW", "PROMOTED")
        for _ in range(2):
            with pytest.raises(IllegalTransition):
                session.flush()
    assert counts(message.status) == {("SPAM_REVIEW", "PROMOTED"): 2}


def test_a_validator_changes_what_is_followed(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

        @validates("status")
        def shout(self, key: str, value: str) -> str:
            return value.upper()

    guard(Message.status, TABLE, steps=True)
    fill(engine, Message, "READY")
    with Session(engine) as session:
        go(session.get_one(Message, 1), "promoted", "completed")
        session.commit()
    assert stored(engine, Message) == ["COMPLETED"]


def test_a_new_row_that_is_observed_is_counted_once(engine: sa.Engine) -> None:
    message = message_class(steps=True, on_illegal="observe")
    fill(engine, message)
    with Session(engine) as session, operation("Import") as op:
        new = message(id=1, status="PROMOTED")
        go(new, "COMPLETED")
        session.add(new)
        session.commit()
    assert (op.observed, op.allowed) == ({(None, "PROMOTED"): 1}, {("PROMOTED", "COMPLETED"): 1})


def test_a_first_step_that_another_session_has_made_is_a_concurrent_one(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as first, Session(engine) as second:
        one = first.get_one(message, 1)
        second.get_one(message, 1).status = "PROMOTED"
        second.commit()
        go(one, "PROMOTED", "COMPLETED")
        with pytest.raises(ConcurrentTransition) as caught:
            first.flush()
    assert caught.value.identities == ((1,),)
    assert counts(message.status) == {}


def test_a_new_object_says_its_last_state_once_it_is_flushed(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message)
    with Session(engine) as session:
        new = message(id=1, status="READY")
        go(new, "PROMOTED", "COMPLETED")
        session.add(new)
        session.flush()
        assert new.status == "COMPLETED"


def test_a_new_object_whose_flush_fails_keeps_its_last_state(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        new = message(id=1, status="READY")
        go(new, "PROMOTED")
        session.add(new)
        with pytest.raises(sa.exc.IntegrityError):
            session.flush()
        session.rollback()
        assert new.status == "PROMOTED"


def test_what_was_written_is_forgotten_by_an_object_that_becomes_another_row(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message)
    with Session(engine, expire_on_commit=False) as session:
        new = message(id=1, status="READY")
        go(new, "PROMOTED")
        session.add(new)
        session.commit()
        sa.orm.make_transient(new)
        new.id = 2
        session.add(new)
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
        session.rollback()
    assert caught.value.pairs == {(None, "PROMOTED"): 1}
    assert stored(engine, message) == ["PROMOTED"]


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_a_first_step_of_several_rows_that_another_session_has_made_names_none(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY", "READY")
    with Session(engine) as first, Session(engine) as second:
        mine = load(first, message)
        second.get_one(message, 1).status = "PROMOTED"
        second.commit()
        for each in mine:
            go(each, "PROMOTED", "COMPLETED")
        with pytest.raises(ConcurrentTransition) as caught:
            first.flush()
    assert caught.value.identities == ()


def test_a_refused_step_said_how_to_declare_steps_only_where_they_are_not(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        go(session.get_one(message, 1), "COMPLETED")
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
    assert "steps=True" not in str(caught.value)


def test_after_a_refusal_several_assignments_are_followed_again(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        one = session.get_one(message, 1)
        go(one, "COMPLETED")
        with pytest.raises(IllegalTransition):
            session.flush()
        go(one, "PROMOTED", "COMPLETED")
        session.commit()
    assert stored(engine, message) == ["COMPLETED"]


def test_a_value_that_a_listener_replaces_afterwards_is_not_followed(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    sa.orm.configure_mappers()  # ours listens from then on

    @sa.event.listens_for(message.status, "set", retval=True)
    def shout(target: Any, value: str, old: Any, initiator: Any) -> str:
        return value.upper()

    with Session(engine) as session:
        go(session.get_one(message, 1), "ready", "promoted")
        session.commit()
    assert stored(engine, message) == ["PROMOTED"]


def test_with_an_sql_expression_among_them_the_net_move_is_judged(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        go(session.get_one(message, 1), sa.func.upper("spam_review"), "PROMOTED")
        session.commit()
    assert stored(engine, message) == ["PROMOTED"]


def test_objects_of_a_subclass_go_them_too(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20))
        __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "message"}

    class Letter(Message):
        __mapper_args__ = {"polymorphic_identity": "letter"}

    guard(Message.status, TABLE, steps=True)
    Message.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Letter(id=1, status="READY"))
        session.commit()
        go(session.get_one(Letter, 1), "PROMOTED", "COMPLETED")
        session.commit()
    assert stored(engine, Message) == ["COMPLETED"]


def test_a_step_of_a_row_that_is_gone_is_stale_data(engine: sa.Engine) -> None:
    message = message_class(steps=True)
    fill(engine, message, "READY")
    with Session(engine) as session:
        one = session.get_one(message, 1)
        with engine.begin() as connection:
            connection.execute(sa.delete(message))
        go(one, "PROMOTED", "COMPLETED")
        with pytest.raises(sa.orm.exc.StaleDataError) as caught:
            session.flush()
    assert not isinstance(caught.value, ConcurrentTransition)
