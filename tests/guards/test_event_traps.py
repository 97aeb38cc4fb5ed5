"""Ways around events and conditions that were open once, and surprises that they held."""

from __future__ import annotations

import asyncio
import functools
import operator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.attributes import flag_modified

import statekit
from statekit import (
    Guarded,
    StatekitError,
    TableError,
    Transition,
    TransitionRefused,
    TransitionTable,
    counts,
    guard,
    operation,
)
from statekit.guards import machine
from tests.support.databases import all_sync_backends, on_sqlite

PROMOTE = Transition("READY", "PROMOTED", event="promote", conditions="author")
TABLE = TransitionTable(PROMOTE, "PROMOTED → READY", initial="READY")


@pytest.fixture
def base() -> Any:
    class Base(DeclarativeBase):
        pass

    yield Base
    Base.registry.dispose()


def a_model(base: Any, table: TransitionTable = TABLE, onupdate: Any = None, **options: Any) -> Any:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY", onupdate=onupdate)
        author: Mapped[str | None]

    guard(Message.status, table, **options)
    return Message


def rows(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT status FROM message ORDER BY id")))


def filled(engine: sa.Engine, message: Any, **values: Any) -> sa.Engine:
    message.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(message.__table__.insert().values(id=1, **values))
    return engine


@all_sync_backends
class TestAStateThatTheFlushItselfSets:
    """By a listener, which comes too late to be judged before the flush, or by the column's own function."""

    def set_by_a_listener(self, engine: sa.Engine, message: Any, value: Any = "PROMOTED", expire: bool = False) -> None:
        with Session(filled(engine, message)) as session:
            one = session.get(message, 1)
            if expire:
                session.expire(one, ["status"])
            one.author = ""

            def promote(mapper: object, connection: object, target: object) -> None:
                one.status = value

            sa.event.listen(message, "before_insert", promote)
            session.add(message(id=2))
            session.commit()

    def test_by_a_listener_is_asked_the_conditions(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base)
        with pytest.raises(TransitionRefused, match="author says no"):
            self.set_by_a_listener(engine, message)
        assert (rows(engine), counts(message.status)) == (["READY"], {("READY", "PROMOTED"): 1})

    def test_by_a_listener_is_asked_where_the_source_is_not_loaded(self, engine: sa.Engine, base: Any) -> None:
        with pytest.raises(TransitionRefused, match="from READY to PROMOTED now"):
            self.set_by_a_listener(engine, a_model(base), expire=True)
        assert rows(engine) == ["READY"]

    def test_by_a_listener_is_asked_where_it_is_an_expression(self, engine: sa.Engine, base: Any) -> None:
        with pytest.raises(TransitionRefused, match="from READY to PROMOTED now"):
            self.set_by_a_listener(engine, a_model(base), sa.func.upper("promoted"))
        assert rows(engine) == ["READY"]

    def test_by_a_listener_is_observed(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base, on_illegal="observe")
        with operation("Insert") as op:
            self.set_by_a_listener(engine, message)
        assert dict(op.observed) == {("READY", "PROMOTED"): 1}

    def test_by_a_listener_is_logged_with_the_condition(
        self, engine: sa.Engine, base: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.set_by_a_listener(engine, a_model(base, on_illegal="observe"))
        assert "(the condition author says no; mode: observe)" in caplog.text

    def test_by_a_function_is_asked_the_conditions(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base, onupdate=lambda: "PROMOTED")
        with Session(filled(engine, message)) as session:
            session.get(message, 1).author = ""
            with pytest.raises(TransitionRefused, match="author says no"):
                session.commit()
        assert rows(engine) == ["READY"]

    def test_by_a_function_is_asked_where_the_source_is_not_loaded(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base, onupdate=lambda: "PROMOTED")
        with Session(filled(engine, message)) as session:
            one = session.get(message, 1)
            session.expire(one, ["status"])
            one.author = ""
            with pytest.raises(TransitionRefused, match="author says no"):
                session.commit()
        assert rows(engine) == ["READY"]

    def test_by_a_function_counts_as_a_move(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base, onupdate=lambda: "PROMOTED")
        with Session(filled(engine, message)) as session, operation("Touch") as op:
            session.get(message, 1).author = "Ada"
            session.commit()
        assert dict(op.allowed) == {("READY", "PROMOTED"): 1}

    def test_that_a_function_leaves_as_it_is_is_no_move(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base, onupdate=lambda: "READY")
        with Session(filled(engine, message)) as session, operation("Touch") as op:
            session.get(message, 1).author = ""
            session.commit()
        assert not op.allowed


@on_sqlite
class TestWhatAnEventWasTold:
    """An event that was asked is not asked again by its flush, and by no later one."""

    def test_is_forgotten_with_the_flush_that_wrote_it(self, engine: sa.Engine, base: Any) -> None:
        message = a_model(base)
        with Session(filled(engine, message, author="Ada"), expire_on_commit=False) as session:
            one = session.get(message, 1)
            one.promote()
            session.commit()
            one.author = None
            session.commit()
            with engine.begin() as connection:
                connection.execute(sa.text("UPDATE message SET status = 'READY'"))
            flag_modified(one, "status")
            with pytest.raises(TransitionRefused):
                session.commit()

    def test_is_kept_over_the_next_event_where_steps_are_followed(self, engine: sa.Engine, base: Any) -> None:
        table = TransitionTable(
            Transition("READY", "PROMOTED", event="promote", conditions=lambda obj, reviewer: reviewer == "Grace"),
            Transition("PROMOTED", "COMPLETED", event="complete"),
        )
        message = a_model(base, table, steps=True)
        with Session(filled(engine, message)) as session:
            one = session.get(message, 1)
            one.promote("Grace")
            one.complete()
            session.commit()
        assert rows(engine) == ["COMPLETED"]


class TestSeveralTransitionsOfOneEvent:
    TABLE = TransitionTable(
        Transition("READY", "PROMOTED", event="review", conditions="author"),
        Transition("READY", "SPAM_REVIEW", event="review"),
    )

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_the_one_that_is_legal_is_taken_in_every_mode(self, base: Any, mode: Any) -> None:
        one = a_model(base, self.TABLE, on_illegal=mode)(status="READY")
        assert (one.review(), one.status) == (True, "SPAM_REVIEW")

    def test_in_observe_the_first_is_let_through_where_none_is(self, base: Any) -> None:
        asked: list[str] = []

        def no(name: str) -> Any:
            return lambda obj: bool(asked.append(name))

        table = TransitionTable(
            Transition("READY", "PROMOTED", event="review", conditions=[no("a"), no("b")]),
            Transition("READY", "SPAM_REVIEW", event="review", conditions=no("c")),
        )
        one = a_model(base, table, on_illegal="observe")(status="READY")
        assert (one.review(), one.status, asked) == (True, "PROMOTED", ["a", "c"])


class TestWhatIsCalled:
    def test_that_does_not_say_what_it_takes_is_given_the_object_alone(self, base: Any) -> None:
        table = TransitionTable(
            Transition("READY", "PROMOTED", event="promote", conditions=operator.attrgetter("author"))
        )
        one = a_model(base, table)(status="READY", author="Ada")
        assert one.promote("Grace") is True

    @pytest.mark.parametrize(("when", "state"), [("before", "READY"), ("after", "PROMOTED")])
    def test_that_returns_a_coroutine_unasked_is_an_error(self, base: Any, when: str, state: str) -> None:
        async def send(obj: object) -> None: ...

        hooks: Any = {when: lambda obj: send(obj)}
        one = a_model(base, TransitionTable(Transition("READY", "PROMOTED", "promote", **hooks)))(status="READY")
        with pytest.raises(StatekitError, match="lambda at .* has returned a coroutine"):
            one.promote()
        assert one.status == state


def test_a_declaration_that_fails_half_way_leaves_no_method(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(obj: object) -> None: ...

    make = machine.make

    def fail_for_async(*args: Any, is_async: bool) -> Any:
        if is_async:
            raise MemoryError
        return make(*args, is_async=is_async)

    monkeypatch.setattr(machine, "make", fail_for_async)

    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str]

    with pytest.raises(MemoryError):
        guard(
            Message.status,
            TransitionTable(Transition("A", "B", "promote"), Transition("B", "C", "complete", after=tell)),
        )
    assert not hasattr(Message, "promote")


class TestSuper:
    """A subclass's own body of an event may call that of its base."""

    @pytest.fixture
    def log(self) -> list[Any]:
        return []

    @pytest.fixture
    def parent(self, base: Any, log: list[Any]) -> Any:
        class Message(Guarded, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str] = mapped_column(default="READY")
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}
            __transitions__ = {
                "status": TransitionTable(
                    Transition("READY", "PROMOTED", "promote", after=lambda obj: log.append(obj.status)),
                    Transition("PROMOTED", "COMPLETED", "complete"),
                )
            }

            @statekit.event
            def promote(self, reviewer: str) -> None:
                log.append(("base", reviewer, self.status))

        return Message

    def child(self, parent: Any, log: list[Any], name: str = "Letter") -> Any:
        def promote(self: Any, reviewer: str) -> None:
            log.append(name)
            super(made, self).promote(reviewer)

        made = type(
            name,
            (parent,),
            {
                "__mapper_args__": {"polymorphic_identity": name},
                "promote": statekit.event(promote),
            },
        )
        return made

    def test_calls_the_body_alone_and_moves_once(self, parent: Any, log: list[Any]) -> None:
        letter = self.child(parent, log)(status="READY")
        assert letter.promote("Ada") is True
        assert log == ["Letter", ("base", "Ada", "READY"), "PROMOTED"]

    def test_goes_over_several_classes(self, parent: Any, log: list[Any]) -> None:
        grandchild = self.child(self.child(parent, log), log, "Express")(status="READY")
        grandchild.promote("Ada")
        assert log == ["Express", "Letter", ("base", "Ada", "READY"), "PROMOTED"]

    def test_of_another_object_moves_that(self, parent: Any, log: list[Any]) -> None:
        other = parent(status="READY")
        made: Any = None

        def promote(self: Any, reviewer: str) -> None:
            other.promote(reviewer)

        made = type(
            "Pair", (parent,), {"__mapper_args__": {"polymorphic_identity": "p"}, "promote": statekit.event(promote)}
        )
        made(status="READY").promote("Ada")
        assert other.status == "PROMOTED"

    def test_in_a_task_that_a_body_began_an_event_is_a_whole_one(self, parent: Any) -> None:
        tasks: list[Any] = []

        async def again(letter: Any) -> None:
            await asyncio.sleep(0)
            letter.status = "READY"
            letter.promote("Ada")

        def promote(self: Any, reviewer: str) -> None:
            if not tasks:
                tasks.append(asyncio.get_running_loop().create_task(again(self)))

        made = type(
            "Letter", (parent,), {"__mapper_args__": {"polymorphic_identity": "l"}, "promote": statekit.event(promote)}
        )

        async def body() -> str:
            letter = made(status="READY")
            letter.promote("Ada")
            await asyncio.gather(*tasks)
            return str(letter.status)

        assert asyncio.run(body()) == "PROMOTED"

    def test_in_a_method_that_is_no_event_calls_a_whole_one(self, parent: Any, log: list[Any]) -> None:
        letter = type(
            "Letter",
            (self.child(parent, log, "Post"),),
            {
                "__mapper_args__": {"polymorphic_identity": "l"},
                "promote": lambda self: super(letter, self).promote("Ada"),
            },
        )
        one = letter(status="READY")
        assert (one.promote(), one.status, log) == (True, "PROMOTED", ["Post", ("base", "Ada", "READY"), "PROMOTED"])

    def test_calls_the_body_of_a_mixin(self, base: Any, log: list[Any]) -> None:
        class Promoted:
            @statekit.event
            def promote(self) -> None:
                log.append("mixin")

        class Message(Guarded, Promoted, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str] = mapped_column(default="READY")
            __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"))}

            @statekit.event
            def promote(self) -> None:
                super().promote()
                log.append("own")

        assert (Message(status="READY").promote(), log) == (True, ["mixin", "own"])

    def test_works_in_async_events_too(self, base: Any, log: list[Any]) -> None:
        class Message(Guarded, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str] = mapped_column(default="READY")
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}
            __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"))}

            @statekit.event
            async def promote(self) -> None:
                log.append("base")

        class Letter(Message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

            @statekit.event
            async def promote(self) -> None:
                log.append("own")
                await super().promote()

        letter = Letter(status="READY")
        assert (asyncio.run(letter.promote()), letter.status, log) == (True, "PROMOTED", ["own", "base"])


class TestTheBodyOfASubclass:
    def model(self, base: Any) -> Any:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str] = mapped_column(default="READY")
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}

        return Message

    TABLE = TransitionTable(Transition("READY", "PROMOTED", "promote"))

    @pytest.mark.parametrize("guarded", ["before", "after"])
    def test_is_called_whether_the_base_is_guarded_before_or_after_it_is_declared(
        self, base: Any, guarded: str
    ) -> None:
        message, log = self.model(base), []
        if guarded == "before":
            guard(message.status, self.TABLE)

        class Letter(message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

            @statekit.event
            def promote(self) -> None:
                log.append("letter")

        if guarded == "after":
            guard(message.status, self.TABLE)
        letter = Letter(status="READY")
        assert (letter.promote(), letter.status, log) == (True, "PROMOTED", ["letter"])

    def test_may_come_from_a_mixin_in_front_of_the_base(self, base: Any) -> None:
        message, log = self.model(base), []
        guard(message.status, self.TABLE)

        class Logged:
            @statekit.event
            def promote(self) -> None:
                log.append("mixin")

        class Letter(Logged, message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

        assert (Letter(status="READY").promote(), log) == (True, ["mixin"])


@pytest.mark.parametrize("name", ["model", "call", "self", "obj", "event_data", "args", "kwargs"])
def test_an_argument_of_an_event_may_have_any_name(base: Any, name: str) -> None:
    told: list[Any] = []
    table = TransitionTable(
        Transition(
            "READY",
            "PROMOTED",
            "promote",
            conditions=lambda _, **named: True,
            after=lambda _, **named: told.append(named),
        )
    )
    one = a_model(base, table)(status="READY")
    assert (one.promote(**{name: 1}), told) == (True, [{name: 1}])


def test_a_decorated_name_in_no_table_is_an_error_every_time(base: Any) -> None:
    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {"status": TransitionTable("READY → PROMOTED")}

        @statekit.event
        def promot(self) -> None: ...

    for _ in range(2):
        with pytest.raises(TableError, match="event='promot'"):
            Message()


def test_a_decorated_async_body_is_an_error_and_not_forgotten(base: Any) -> None:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"))}

        @statekit.event
        @decorate
        async def promote(self) -> None: ...

    one = Message(status="READY")
    with pytest.raises(StatekitError, match="promote has returned a coroutine"):
        one.promote()
    assert one.status == "READY"


@pytest.mark.parametrize("how", ["elsewhere", "condition", "cancelled"])
def test_what_ends_an_async_event_is_no_error_in_the_log_of_pytransitions(
    base: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {
            "status": TransitionTable(
                Transition("READY", "PROMOTED", "promote", conditions=lambda obj: how != "condition")
            )
        }

        @statekit.event
        async def promote(self) -> None:
            raise asyncio.CancelledError

    with pytest.raises((StatekitError, asyncio.CancelledError)):
        asyncio.run(Message(status="PROMOTED" if how == "elsewhere" else "READY").promote())
    assert not [record for record in caplog.records if record.name.startswith("transitions")]
