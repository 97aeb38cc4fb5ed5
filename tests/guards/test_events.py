"""Named transitions: what an event does, what refuses it, and that its conditions hold for assignments too."""

from __future__ import annotations

import asyncio
import enum
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, Session, configure_mappers, mapped_column

import statekit
from statekit import (
    Guarded,
    IllegalTransition,
    StatekitError,
    TableError,
    Transition,
    TransitionRefused,
    TransitionTable,
    available,
    can,
    counts,
    guard,
    operation,
)
from tests.support.databases import all_async_backends, all_sync_backends, run


class Status(enum.Enum):
    READY = "r"
    SPAM_REVIEW = "s"
    PROMOTED = "p"
    COMPLETED = "c"


@pytest.fixture
def message(base: Any) -> Any:
    """A model with events; its calls are written down in ``calls``."""

    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[Status] = mapped_column(default=Status.READY)
        author: Mapped[str | None]
        reviewer: Mapped[str | None]
        calls: list[Any] = []

        def has_author(self) -> bool:
            self.calls.append(("has_author", self.status))
            return self.author is not None

        def notify(self, reviewer: str) -> None:
            self.calls.append(("after", self.status, reviewer))

        __transitions__ = {
            "status": TransitionTable(
                "READY → SPAM_REVIEW",
                Transition(
                    "READY",
                    "PROMOTED",
                    event="promote",
                    conditions="has_author",
                    before=lambda obj, reviewer: obj.calls.append(("before", obj.status, reviewer)),
                    after="notify",
                ),
                Transition("PROMOTED", "COMPLETED", event="complete"),
                initial="READY",
            )
        }

        @statekit.event
        def promote(self, reviewer: str) -> None:
            """Hand it to the team."""
            self.calls.append(("body", self.status, reviewer))
            self.reviewer = reviewer

    return Message


@pytest.fixture
def session(engine: sa.Engine, message: Any) -> Any:
    message.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def stored(session: Session, obj: Any, **values: Any) -> Any:
    session.add(obj)
    session.commit()
    type(obj).calls.clear()
    return obj


def blocked(message: Any) -> dict[Any, int]:
    return dict(counts(message.status))


@all_sync_backends
class TestAnEvent:
    def test_asks_calls_and_sets_the_state_in_this_order(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        assert obj.promote("Grace") is True
        ready, promoted = Status.READY, Status.PROMOTED
        assert obj.calls == [
            ("has_author", ready),
            ("before", ready, "Grace"),
            ("body", ready, "Grace"),
            ("after", promoted, "Grace"),
        ]

    def test_is_written_by_the_next_flush_which_does_not_ask_again(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        obj.promote(reviewer="Grace")
        obj.calls.clear()
        session.commit()
        assert (obj.status, obj.reviewer, obj.calls) == (Status.PROMOTED, "Grace", [])

    def test_is_refused_from_a_state_that_it_does_not_leave(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        with pytest.raises(IllegalTransition, match="The event complete makes PROMOTED → COMPLETED") as caught:
            obj.complete()
        error = caught.value
        assert (error.identity, error.source, error.target) == ((obj.id,), "READY", "COMPLETED")
        assert error.allowed == ("SPAM_REVIEW", "PROMOTED")
        assert obj.status is Status.READY
        assert not session.is_modified(obj)
        assert blocked(message) == {("READY", "COMPLETED"): 1}

    def test_is_refused_by_a_condition_which_is_named(self, session: Session, message: Any) -> None:
        obj = stored(session, message())
        with pytest.raises(TransitionRefused, match="the condition has_author says no") as caught:
            obj.promote("Grace")
        error = caught.value
        assert (error.condition, error.source, error.target) == ("has_author", "READY", "PROMOTED")
        assert obj.calls == [("has_author", Status.READY)]
        assert obj.reviewer is None
        assert blocked(message) == {("READY", "PROMOTED"): 1}

    def test_is_left_out_in_skip(self, session: Session, message: Any) -> None:
        obj = stored(session, message())
        with operation("Promote", on_illegal="skip") as op:
            assert obj.promote("Grace") is False
            assert obj.complete() is False
        session.commit()
        assert (obj.status, obj.reviewer) == (Status.READY, None)
        assert op.blocked == {("READY", "PROMOTED"): 1, ("READY", "COMPLETED"): 1}

    def test_goes_on_in_observe_and_the_flush_counts_it(self, session: Session, message: Any) -> None:
        one, two = stored(session, message()), stored(session, message())
        with operation("Promote", on_illegal="observe") as op:
            assert one.promote("Grace") is True
            assert two.complete() is True
            session.commit()
        assert (one.status, one.reviewer, two.status) == (Status.PROMOTED, "Grace", Status.COMPLETED)
        assert op.observed == {("READY", "PROMOTED"): 1, ("READY", "COMPLETED"): 1}
        assert not op.blocked

    def test_that_failed_before_leaves_the_state(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        with pytest.raises(TypeError):
            obj.promote()
        assert obj.status is Status.READY


@all_sync_backends
class TestAnAssignment:
    def test_is_asked_the_same_conditions_in_the_state_that_it_leaves(self, session: Session, message: Any) -> None:
        obj = stored(session, message())
        obj.status = Status.PROMOTED
        with pytest.raises(TransitionRefused) as caught:
            session.flush()
        assert (caught.value.condition, caught.value.identity) == ("has_author", (1,))
        assert obj.calls == [("has_author", Status.READY)]
        assert blocked(message) == {("READY", "PROMOTED"): 1}

    def test_passes_where_they_say_yes(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        obj.status = Status.PROMOTED
        session.commit()
        assert obj.status is Status.PROMOTED

    def test_is_skipped_and_counted(self, session: Session, message: Any) -> None:
        yes, no = stored(session, message(author="Ada")), stored(session, message())
        with operation("Promote", on_illegal="skip") as op:
            yes.status = no.status = Status.PROMOTED
            session.commit()
        assert (yes.status, no.status) == (Status.PROMOTED, Status.READY)
        assert (op.allowed, op.blocked) == ({("READY", "PROMOTED"): 1}, {("READY", "PROMOTED"): 1})

    def test_is_observed_and_counted(self, session: Session, message: Any) -> None:
        obj = stored(session, message())
        with operation("Promote", on_illegal="observe") as op:
            obj.status = Status.PROMOTED
            session.commit()
        assert obj.status is Status.PROMOTED
        assert op.observed == {("READY", "PROMOTED"): 1}

    def test_after_an_event_that_was_rolled_back_is_asked_again(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        obj.promote("Grace")
        session.rollback()
        obj.author = None
        obj.status = Status.PROMOTED
        with pytest.raises(TransitionRefused):
            session.flush()

    def test_over_an_event_is_asked_again(self, session: Session, message: Any) -> None:
        obj = stored(session, message(author="Ada"))
        obj.promote("Grace")
        obj.author = None
        obj.status = Status.PROMOTED
        with pytest.raises(TransitionRefused):
            session.flush()

    def test_of_several_objects_names_what_the_table_and_what_a_condition_refused(
        self, session: Session, message: Any
    ) -> None:
        one, two = stored(session, message()), stored(session, message())
        one.status, two.status = Status.PROMOTED, Status.COMPLETED
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
        assert caught.value.identity == (2,)
        (other,) = caught.value.also
        assert isinstance(other, TransitionRefused)
        assert other.identity == (1,)

    def test_by_a_statement_cannot_be_asked(self, session: Session, message: Any) -> None:
        stored(session, message())
        session.execute(sa.update(message).values(status=Status.PROMOTED))
        assert session.scalar(sa.select(message.status)) is Status.PROMOTED


@all_sync_backends
class TestAsking:
    def test_asks_conditions_and_changes_nothing(self, session: Session, message: Any) -> None:
        no, yes = stored(session, message()), stored(session, message(author="Ada"))
        assert [each.target for each in available(no)] == ["SPAM_REVIEW"]
        assert [each.target for each in available(yes)] == ["SPAM_REVIEW", "PROMOTED"]
        assert (can(no, "PROMOTED"), can(yes, Status.PROMOTED)) == (False, True)
        assert not session.dirty
        assert not blocked(message)


class TestACondition:
    def test_that_needs_arguments_refuses_an_assignment_and_is_not_asked_by_can(self, base: Any) -> None:
        class Ticket(Guarded, base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            __transitions__ = {
                "state": TransitionTable(Transition("OPEN", "SHUT", "shut", conditions=lambda obj, by: by == "Ada"))
            }

        engine = sa.create_engine("sqlite://")
        base.metadata.create_all(engine)
        with Session(engine) as session:
            ticket = Ticket()
            session.add(ticket)
            session.flush()
            assert can(ticket, "SHUT")
            with pytest.raises(TransitionRefused, match=r"lambda at test_events\.py:\d+"):
                ticket.shut(by="Bob")
            ticket.shut(by="Ada")
            session.commit()
            ticket.state = "OPEN"
            session.rollback()
            other = Ticket()
            session.add(other)
            session.flush()
            other.state = "SHUT"
            with pytest.raises(TransitionRefused, match="needs arguments"):
                session.flush()

    def test_of_several_transitions_of_one_event_chooses(self, base: Any) -> None:
        class Ticket(Guarded, base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            urgent: Mapped[bool] = mapped_column(default=False)
            __transitions__ = {
                "state": TransitionTable(
                    Transition("OPEN", "HOT", "file", conditions="urgent"),
                    Transition("OPEN", "COLD", "file", conditions=lambda obj: obj.urgent is False),
                )
            }

        hot, cold, neither = Ticket(urgent=True), Ticket(urgent=False), Ticket(urgent=None)
        assert (hot.file(), cold.file()) == (True, True)
        assert (hot.state, cold.state) == ("HOT", "COLD")
        with pytest.raises(TransitionRefused) as caught:
            neither.file()
        assert caught.value.condition == "urgent"

    @pytest.mark.parametrize("kind", ["function", "method"])
    def test_that_is_async_is_refused_when_it_is_declared(self, base: Any, kind: str) -> None:
        async def later(self: Any) -> bool:
            return True

        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]

        Ticket.check = later
        condition = later if kind == "function" else "check"
        with pytest.raises(TableError, match="is an async def"):
            guard(Ticket.state, TransitionTable(Transition("A", "B", conditions=condition)))

    def test_that_the_class_does_not_have_is_refused(self, base: Any) -> None:
        with pytest.raises(TableError, match="has no method 'has_autor'"):

            class Ticket(Guarded, base):
                __tablename__ = "ticket"
                id: Mapped[int] = mapped_column(primary_key=True)
                state: Mapped[str]
                __transitions__ = {"state": TransitionTable(Transition("A", "B", conditions="has_autor"))}

    def test_its_error_can_be_pickled(self, message: Any) -> None:
        with pytest.raises(TransitionRefused) as caught:
            message().promote("Grace")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.condition) == (str(caught.value), "has_author")


class TestTheMethod:
    def test_has_the_signature_and_the_docstring_of_what_was_decorated(self, message: Any) -> None:
        assert message.promote.__doc__ == "Hand it to the team."
        assert message.complete.__doc__ == "Event of Message.status: PROMOTED → COMPLETED."

    def test_of_a_subclass_has_its_own_body(self, message: Any) -> None:
        class Letter(message):
            @statekit.event
            def promote(self, reviewer: str) -> None:
                self.reviewer = f"letter for {reviewer}"

        letter, plain = Letter(author="Ada"), message(author="Ada")
        letter.promote("Grace")
        plain.promote("Grace")
        assert (letter.reviewer, plain.reviewer) == ("letter for Grace", "Grace")

    def test_of_a_mixin_serves_each_class(self, base: Any) -> None:
        class Closing:
            closed_by: Mapped[str | None]
            state: Mapped[str] = mapped_column(default="OPEN")
            __transitions__ = {"state": TransitionTable(Transition("OPEN", "SHUT", "shut"), initial="OPEN")}

            @statekit.event
            def shut(self, by: str) -> None:
                self.closed_by = by

        class Door(Guarded, Closing, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)

        class Window(Guarded, Closing, base):
            __tablename__ = "window"
            id: Mapped[int] = mapped_column(primary_key=True)

        door, window = Door(), Window()
        door.shut("Ada")
        window.shut("Bob")
        assert (door.closed_by, door.state, window.closed_by, window.state) == ("Ada", "SHUT", "Bob", "SHUT")

    def test_takes_no_name_that_the_class_has(self, base: Any) -> None:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]

            def close(self) -> str:
                return "mine"

        table = TransitionTable(Transition("OPEN", "SHUT", "open"), Transition("SHUT", "OPEN", "close"))
        with pytest.raises(TableError, match="has an attribute 'close' already"):
            guard(Ticket.state, table)
        assert not hasattr(Ticket, "open")
        assert Ticket().close() == "mine"
        guard(Ticket.state, TransitionTable("OPEN → SHUT"))  # the column was left free

    def test_of_a_decorated_name_in_no_table_is_an_error(self, base: Any) -> None:
        class Ticket(Guarded, base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            __transitions__ = {"state": TransitionTable(Transition("OPEN", "SHUT", "shut"))}

            @statekit.event
            def close(self) -> None: ...

        with pytest.raises(TableError, match=r"Ticket\.close is decorated"):
            configure_mappers()

    def test_needs_a_class(self, base: Any) -> None:
        table = sa.Table(
            "ticket", base.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("s", sa.String)
        )
        with pytest.raises(TableError, match="Guard the attribute"):
            guard(table.c.s, TransitionTable(Transition("A", "B", "go")))

    def test_what_is_called_needs_an_event(self, base: Any) -> None:
        with pytest.raises(TableError, match="no event that would call it"):

            class Ticket(Guarded, base):
                __tablename__ = "ticket"
                id: Mapped[int] = mapped_column(primary_key=True)
                state: Mapped[str]
                __transitions__ = {"state": TransitionTable(Transition("A", "B", after=print))}


class TestTheStateBefore:
    def test_of_an_object_without_one_is_the_default(self, message: Any) -> None:
        with pytest.raises(TransitionRefused) as caught:
            message().promote("Grace")
        assert caught.value.source == "READY"

    def test_that_is_not_known_is_asked_for(self, base: Any) -> None:
        class Ticket(Guarded, base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            other: Mapped[str] = mapped_column(default=lambda: "A")
            __transitions__ = {
                "state": TransitionTable(Transition("A", "B", "go"), Transition("B", "C", "on"), initial=("A", "B")),
                "other": TransitionTable(Transition("A", "B", "turn")),
            }

        with pytest.raises(StatekitError, match="a new row may start in"):
            Ticket().go()
        with pytest.raises(StatekitError, match="known once the row is inserted"):
            Ticket().turn()
        with pytest.raises(StatekitError, match="holds an SQL expression"):
            Ticket(state=sa.literal("A")).go()

    def test_may_be_null_or_called_anything(self, base: Any) -> None:
        class Ticket(Guarded, base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str | None]
            __transitions__ = {
                "state": TransitionTable(
                    Transition(None, "NULL", "a"), Transition("NULL", "=", "b"), Transition("=", "None", "c")
                )
            }

        ticket = Ticket()
        assert [(event(), ticket.state) for event in (ticket.a, ticket.b, ticket.c)] == [
            (True, "NULL"),
            (True, "="),
            (True, "None"),
        ]

    def test_of_a_new_object_with_steps_is_inserted_first(self, base: Any) -> None:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[int] = mapped_column(default=1)

        guard(
            Ticket.state,
            TransitionTable(Transition("1", "2", "go"), Transition("2", "3", "on"), initial="1"),
            steps=True,
        )
        engine = sa.create_engine("sqlite://")
        base.metadata.create_all(engine)
        with Session(engine) as session, operation("Steps") as op:
            ticket = Ticket()
            session.add(ticket)
            ticket.go()
            ticket.on()
            session.commit()
            assert ticket.state == 3
        assert op.allowed == {("1", "2"): 1, ("2", "3"): 1}


class TestAnAsyncEvent:
    @pytest.fixture
    def letter(self, base: Any) -> Any:
        class Letter(Guarded, base):
            __tablename__ = "letter"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            sealed: Mapped[bool] = mapped_column(default=True)
            __transitions__ = {
                "state": TransitionTable(
                    Transition("OPEN", "SENT", "send", conditions="sealed"), Transition("SENT", "OPEN", "back")
                )
            }

            @statekit.event
            async def send(self, seconds: float) -> None:
                await asyncio.sleep(seconds)

        return Letter

    @all_async_backends
    def test_is_awaited_and_flushed(self, async_engine: AsyncEngine, letter: Any) -> None:
        async def body() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(letter.metadata.create_all)
            async with AsyncSession(async_engine) as session:
                yes, no = letter(), letter(sealed=False)
                session.add_all([yes, no])
                await session.flush()
                assert await yes.send(0.001) is True
                with pytest.raises(TransitionRefused):
                    await no.send(0.001)
                await session.commit()
                await session.refresh(yes)
                assert yes.state == "SENT"
                assert yes.back() is True  # what waits for nothing is not awaited
                await session.refresh(no)
                no.state = "SENT"
                with pytest.raises(TransitionRefused):
                    await session.flush()

        run(body())

    def test_lets_a_cancellation_through_and_leaves_the_state(self, letter: Any) -> None:
        async def body() -> None:
            one = letter(state="OPEN", sealed=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await one.send(30)
            assert one.state == "OPEN"

        run(body())

    def test_is_refused_where_another_one_was_faster(self, letter: Any) -> None:
        async def body() -> None:
            one = letter(state="OPEN", sealed=True)
            late, first = await asyncio.gather(one.send(0.05), one.send(0.01), return_exceptions=True)
            assert first is True
            assert isinstance(late, IllegalTransition)
            assert late.source == "SENT"

        run(body())


def test_threads_share_one_machine(message: Any) -> None:
    wrong: list[Any] = []

    def work(name: str) -> None:
        for _ in range(300):
            obj = message(status=Status.READY, author="Ada")
            obj.promote(name)
            obj.complete()
            if (obj.status, obj.reviewer) != (Status.COMPLETED, name):
                wrong.append(obj)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_model_without_events_loads_no_pytransitions() -> None:
    program = """
import sys
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from statekit import Guarded, TransitionTable
class Base(DeclarativeBase): pass
class Ticket(Guarded, Base):
    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    __transitions__ = {"state": TransitionTable("A → B")}
sys.exit("transitions" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
