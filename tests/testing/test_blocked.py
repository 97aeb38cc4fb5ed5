"""``assert_blocked``: something inside of the block must be refused, whoever refuses it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column

from statekit import StatekitError, Transition, TransitionTable, guard, operation
from statekit.testing import assert_blocked
from tests.guards.inbox import TABLE, fill, message_class, new_base
from tests.support.databases import all_async_backends, all_sync_backends, on_sqlite, run

EVENTS = TransitionTable(
    Transition("READY", "PROMOTED", "promote", conditions=lambda obj: bool(obj.subject)), initial="READY"
)

MANY = [f"S{number}" for number in range(30)]
"""So many that SQLite's trigger names the source of an illegal move alone."""


def with_phases(base: Any, name: str = "Ticket") -> Any:
    """Return a class with two guarded attributes."""
    columns = {
        "id": mapped_column(sa.Integer, primary_key=True),
        "status": mapped_column(sa.String(20)),
        "phase": mapped_column(sa.String(20)),
    }
    made: Any = type(name, (base,), {"__tablename__": name.lower(), "__module__": __name__, **columns})
    guard(made.status, TransitionTable("OPEN → DONE", initial="OPEN"))
    guard(made.phase, TransitionTable("A → B", initial="A"))
    return made


@all_sync_backends
class TestWhatIsBlocked:
    def test_by_a_flush(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with Session(engine) as session:
            session.get(message, 1).status = "SPAM_REVIEW"
            with assert_blocked(message.status, "PROMOTED", "SPAM_REVIEW", times=1) as blocked:
                session.flush()
        assert (blocked.pairs, type(blocked.error).__name__) == ({("PROMOTED", "SPAM_REVIEW"): 1}, "IllegalTransition")

    def test_by_a_statement(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "PROMOTED", "COMPLETED", "READY")
        with Session(engine) as session, assert_blocked(message.status, target="SPAM_REVIEW", times=3):
            session.execute(sa.update(message).values(status="SPAM_REVIEW"))

    def test_counts_rows(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED", "PROMOTED")
        with Session(engine) as session, assert_blocked(message.status, "PROMOTED", times=2):
            session.execute(sa.update(message).values(status="SPAM_REVIEW"))

    def test_is_heard_until_the_end_of_the_block(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session:
            with assert_blocked(message.status, times=1) as blocked:
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            session.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert blocked.pairs == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_by_the_initial_states(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)
        with Session(engine) as session, assert_blocked(message.status, None, "COMPLETED"):
            session.add(message(status="COMPLETED"))
            session.flush()

    def test_by_skip_which_raises_nothing(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session, assert_blocked(message.status, times=1) as blocked:
            session.get(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert blocked.error is None

    def test_by_a_condition(self, engine: sa.Engine) -> None:
        message = message_class(table=EVENTS)
        fill(engine, message, "READY")
        with Session(engine) as session, assert_blocked(message.status, "READY", "PROMOTED") as blocked:
            session.get(message, 1).promote()
        assert type(blocked.error).__name__ == "TransitionRefused"

    def test_by_a_trigger(self, engine: sa.Engine) -> None:
        message = message_class(trigger=True)
        fill(engine, message, "READY")
        with engine.connect() as connection, assert_blocked(message.status, "READY", "COMPLETED", times=1):
            connection.execute(sa.text("UPDATE message SET status = 'COMPLETED'"))

    def test_by_the_guard_first_and_then_by_the_trigger(self, engine: sa.Engine) -> None:
        message = message_class(trigger=True)
        fill(engine, message, "READY")
        with engine.connect() as connection, assert_blocked(message.status, "READY", "COMPLETED", times=2):
            with operation("Spam", on_illegal="skip"):
                connection.execute(sa.update(message).values(status="COMPLETED"))
            connection.execute(sa.text("UPDATE message SET status = 'COMPLETED'"))

    def test_by_a_trigger_that_is_given_what_is_no_state(self, engine: sa.Engine) -> None:
        message = message_class(trigger=True)
        fill(engine, message, "READY")
        with engine.connect() as connection, assert_blocked(message.status, "READY", "RAEDY", times=1):
            connection.execute(sa.text("UPDATE message SET status = 'RAEDY'"))

    def test_by_the_trigger_of_a_table_with_many_states(self, engine: sa.Engine) -> None:
        message = message_class(table=TransitionTable(" → ".join(MANY)), default="S0", trigger=True)
        fill(engine, message, "S0")
        with engine.connect() as connection, assert_blocked(message.status, "S0", "S7", times=1):
            connection.execute(sa.text("UPDATE message SET status = 'S7'"))

    def test_beside_other_moves_of_the_same_flush(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED")
        with Session(engine) as session:
            one, two = session.get(message, 1), session.get(message, 2)
            one.status, two.status = "COMPLETED", "SPAM_REVIEW"
            with assert_blocked(message.status, "PROMOTED", times=1) as blocked:
                session.flush()
        assert len(blocked.pairs) == 2

    @pytest.mark.parametrize("name", ["Message", "Ticket"])
    def test_of_one_model_in_a_flush_that_is_refused_for_two(self, engine: sa.Engine, name: str) -> None:
        message = message_class()
        ticket = with_phases(message.registry.generate_base(), "Ticket")
        fill(engine, message, "READY")
        attribute = {"Message": message.status, "Ticket": ticket.status}[name]
        with Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            session.add(ticket(id=1, status="DONE", phase="A"))
            with assert_blocked(attribute, times=1) as blocked:
                session.flush()
        assert blocked.error is not None
        assert len(blocked.pairs) == 1

    def test_on_a_column_of_a_table_that_a_class_is_mapped_to(self, engine: sa.Engine) -> None:
        message = message_class(table=None)
        column = message.__table__.c.status
        guard(column, TABLE)
        fill(engine, message, "READY")
        with Session(engine) as session, assert_blocked(column, target="COMPLETED"):
            session.get(message, 1).status = "COMPLETED"
            session.flush()


@on_sqlite
class TestAFailure:
    @pytest.fixture
    def message(self, engine: sa.Engine) -> Any:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED")
        return message

    def fails(self, attribute: Any, act: Any, **wanted: Any) -> str:
        with pytest.raises(AssertionError) as caught, assert_blocked(attribute, **wanted):
            act()
        return str(caught.value)

    def test_says_what_moved_instead(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.get(message, 1).status = "PROMOTED"
            text = self.fails(message.status, session.flush, target="PROMOTED")
        assert text == (
            "Message.status: expected any state → PROMOTED to be blocked. Blocked: nothing; moved: READY → PROMOTED: 1."
        )

    def test_says_what_else_was_blocked(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            text = self.fails(message.status, session.flush, source="PROMOTED")
        assert "expected PROMOTED → any state to be blocked. Blocked: READY → COMPLETED: 1." in text

    def test_of_nothing_at_all_says_where_an_assignment_is_judged(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            one = session.get(message, 1)
            text = self.fails(message.status, lambda: setattr(one, "status", "COMPLETED"))
        assert text.endswith("Nothing was written: an assignment is judged by the flush, which belongs into the block.")

    def test_says_that_a_state_is_none_of_the_table(self, message: Any) -> None:
        text = self.fails(message.status, lambda: None, target="PROMOTE")
        assert "'PROMOTE' is no state of the table. Did you mean 'PROMOTED'?" in text

    def test_of_another_number_says_how_often(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.get(message, 1).status = "COMPLETED"
            text = self.fails(message.status, session.flush, times=2)
        assert "to be blocked 2 times, and 1 were" in text

    def test_of_nothing_where_nothing_is_wanted_is_none(self, message: Any) -> None:
        with assert_blocked(message.status, times=0):
            pass

    def test_keeps_the_error_that_did_not_match(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session, pytest.raises(AssertionError) as caught:
            session.get(message, 1).status = "COMPLETED"
            with assert_blocked(message.status, source="PROMOTED"):
                session.flush()
        assert "cannot move from READY to COMPLETED" in str(caught.value.__cause__)

    def test_of_what_was_only_observed(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session, operation("Old code", on_illegal="observe"):
            session.get(message, 1).status = "COMPLETED"
            text = self.fails(message.status, session.flush)
        assert "Blocked: nothing; moved: READY → COMPLETED: 1." in text

    def test_of_a_legal_move_where_the_trigger_names_the_source_alone(self, engine: sa.Engine) -> None:
        message = message_class(table=TransitionTable(" → ".join(MANY)), default="S0", trigger=True)
        fill(engine, message, "S0")
        with engine.connect() as connection:
            write = sa.text("UPDATE message SET status = 'S7'")
            text = self.fails(message.status, lambda: connection.execute(write), target="S1")
        assert "expected any state → S1 to be blocked" in text

    def test_of_states_that_the_trigger_did_not_refuse(self, engine: sa.Engine) -> None:
        message = message_class(trigger=True)
        fill(engine, message, "READY")
        with engine.connect() as connection:
            write = sa.text("UPDATE message SET status = 'RAEDY'")
            text = self.fails(message.status, lambda: connection.execute(write), source="READY", target="COMPLETED")
        assert "expected READY → COMPLETED to be blocked. Blocked: " in text


@on_sqlite
class TestAnotherError:
    def test_goes_through(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message)
        with pytest.raises(ZeroDivisionError), assert_blocked(message.status):
            _ = 1 / 0

    def test_for_another_model_goes_through(self, engine: sa.Engine) -> None:
        message = message_class()
        ticket = with_phases(new_base())
        fill(engine, message, "READY")
        with Session(engine) as session, pytest.raises(StatekitError, match="from READY to COMPLETED"):
            session.get(message, 1).status = "COMPLETED"
            with assert_blocked(ticket.status):
                session.flush()

    def test_for_another_attribute_goes_through(self, engine: sa.Engine) -> None:
        ticket = with_phases(new_base())
        ticket.metadata.create_all(engine)
        with Session(engine) as session, pytest.raises(StatekitError, match="cannot start in B"):
            session.add(ticket(id=1, status="OPEN", phase="B"))
            with assert_blocked(ticket.status):
                session.flush()

    @pytest.mark.parametrize(("skipped", "times"), [(True, None), (True, 1), (False, 0)])
    def test_for_another_move_goes_through_where_enough_was_blocked(
        self, engine: sa.Engine, skipped: bool, times: int | None
    ) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with Session(engine) as session, pytest.raises(StatekitError, match="from PROMOTED to READY"):
            one = session.get(message, 1)
            with assert_blocked(message.status, target="SPAM_REVIEW", times=times):
                if skipped:
                    one.status = "SPAM_REVIEW"
                    with operation("Spam", on_illegal="skip"):
                        session.flush()
                one.status = "READY"
                session.flush()


@on_sqlite
class TestAnotherAttributeOfTheModel:
    @pytest.fixture
    def ticket(self, engine: sa.Engine) -> Any:
        class Ticket(new_base()):  # type: ignore[misc]
            __tablename__ = "ticket"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            phase = mapped_column(sa.String(20))

        guard(Ticket.status, TransitionTable("OPEN → DONE"))
        guard(Ticket.phase, TransitionTable("A → B"))
        Ticket.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO ticket VALUES (1, 'DONE', 'B')"))
        return Ticket

    def test_is_another_matter(self, engine: sa.Engine, ticket: Any) -> None:
        with Session(engine) as session, pytest.raises(StatekitError, match="from DONE to OPEN"):
            session.get(ticket, 1).status = "OPEN"
            with assert_blocked(ticket.phase):
                session.flush()

    @pytest.mark.parametrize("attribute", ["status", "phase"])
    def test_may_be_refused_in_the_same_flush(self, engine: sa.Engine, ticket: Any, attribute: str) -> None:
        with Session(engine) as session:
            one = session.get(ticket, 1)
            one.status, one.phase = "OPEN", "A"
            with assert_blocked(getattr(ticket, attribute), times=1):
                session.flush()


class TestBadInput:
    def test_an_attribute_without_a_guard(self) -> None:
        with pytest.raises(StatekitError, match="has no guard"):
            assert_blocked(message_class().subject)

    @pytest.mark.parametrize("which", ["source", "target"])
    def test_no_state_at_all(self, which: str) -> None:
        with pytest.raises(StatekitError, match=f"{which}=: no state is named"):
            assert_blocked(message_class().status, **{which: ()})


def test_the_target_may_be_no_state_of_the_table() -> None:
    message = message_class()
    engine = sa.create_engine("sqlite://")
    fill(engine, message, "READY")
    with Session(engine) as session, assert_blocked(message.status, target="RAEDY", times=1):
        session.get(message, 1).status = "RAEDY"
        session.flush()


def test_what_comes_after_the_block_is_not_heard() -> None:
    message = message_class(on_illegal="skip")
    engine = sa.create_engine("sqlite://")
    fill(engine, message, "READY")
    with Session(engine) as session:
        for _ in range(2):
            with assert_blocked(message.status) as blocked:
                session.execute(sa.update(message).values(status="COMPLETED"))
            session.execute(sa.update(message).values(status="COMPLETED"))
    assert blocked.pairs == {("READY", "COMPLETED"): 1}


def test_states_may_be_several() -> None:
    message = message_class(table=EVENTS)
    with assert_blocked(message.status, source=("READY", "PROMOTED"), target=("PROMOTED",)):
        message(status="READY").promote()


@all_async_backends
def test_it_serves_async_code(async_engine: AsyncEngine) -> None:
    message = message_class()

    async def body() -> None:
        async with async_engine.begin() as connection:
            await connection.run_sync(message.metadata.create_all)
        async with AsyncSession(async_engine) as session:
            one = message()
            session.add(one)
            await session.flush()
            one.status = "COMPLETED"
            with assert_blocked(message.status, "READY", "COMPLETED", times=1):
                await session.commit()

    run(body())
