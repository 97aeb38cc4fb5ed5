"""Ways around events and conditions that were open once, and surprises that they held."""

from __future__ import annotations

import asyncio
import functools
import operator
import pickle
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_method
from sqlalchemy.orm import Mapped, Session, configure_mappers, mapped_column, validates
from sqlalchemy.orm.attributes import flag_modified

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
from statekit.guards import machine
from statekit.table.callbacks import Callback
from tests.support.databases import all_sync_backends, on_sqlite

PROMOTE = Transition("READY", "PROMOTED", event="promote", conditions="author")
TABLE = TransitionTable(PROMOTE, "PROMOTED → READY", initial="READY")


def a_model(
    base: Any, table: TransitionTable = TABLE, onupdate: Any = None, nullable: bool = False, **options: Any
) -> Any:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY", onupdate=onupdate, nullable=nullable)
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

    def test_that_takes_anything_is_given_everything(self, base: Any) -> None:
        given: list[Any] = []

        def note(*args: Any) -> None:
            given.append(args)

        one = a_model(base, TransitionTable(Transition("READY", "PROMOTED", "promote", after=note)))(status="READY")
        one.promote("Grace")
        assert given == [(one, "Grace")]

    def test_that_is_a_static_method_is_given_the_arguments_alone(self, base: Any) -> None:
        class Message(Guarded, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str]
            __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote", conditions="may"))}

            @staticmethod
            def may(reviewer: str) -> bool:
                return reviewer == "Grace"

        assert Message(status="READY").promote("Grace") is True

    def test_can_be_pickled_and_asked_again(self) -> None:
        callback = Callback("event")
        callback(Transition("A", "B", "go"))
        assert pickle.loads(pickle.dumps(callback))(Transition("A", "B", "go")) == "go"

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

            @statekit.event
            async def complete(self) -> None:
                log.append("awaited")

        class Message(Guarded, Promoted, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str] = mapped_column(default="READY")
            __transitions__ = {
                "status": TransitionTable(
                    Transition("READY", "PROMOTED", "promote"), Transition("PROMOTED", "COMPLETED", "complete")
                )
            }

            @statekit.event
            def promote(self) -> None:
                log.append(super().promote())

            @statekit.event
            async def complete(self) -> None:
                log.append(await super().complete())

        message = Message(status="READY")
        message.promote()
        asyncio.run(message.complete())
        assert log == ["mixin", True, "awaited", True]

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


@on_sqlite
class TestAskingInTheMiddleOfAChange:
    """``can()`` shows a condition the state that is left. A query in it must not flush the object as it is shown."""

    def model(self, base: Any, engine: sa.Engine, ask: Any) -> Any:
        table = TransitionTable(Transition("READY", "PROMOTED", conditions=ask), "READY → SPAM_REVIEW", initial="READY")
        message = a_model(base, table)
        return filled(engine, message) and message

    def test_a_condition_that_queries_leaves_the_change(self, engine: sa.Engine, base: Any) -> None:
        message = self.model(base, engine, lambda one: sa.inspect(one).session.scalar(sa.select(message.id)) == 1)
        with Session(engine) as session:
            one = session.get(message, 1)
            one.status = "SPAM_REVIEW"
            assert can(one, "PROMOTED") is True
            session.commit()
        assert rows(engine) == ["SPAM_REVIEW"]

    def test_a_new_object_is_not_inserted_by_it(self, engine: sa.Engine, base: Any) -> None:
        message = self.model(base, engine, lambda one: sa.inspect(one).session.scalar(sa.select(message.id)) == 1)
        with Session(engine) as session:
            one = message()
            session.add(one)
            available(one)
            assert (one in session.new, "status" in one.__dict__) == (True, False)

    def test_a_condition_that_flushes_is_an_error_and_no_loss(self, engine: sa.Engine, base: Any) -> None:
        message = self.model(base, engine, lambda one: sa.inspect(one).session.flush() is None)
        with Session(engine) as session:
            one = session.get(message, 1)
            one.status = "SPAM_REVIEW"
            with pytest.raises(StatekitError, match="has flushed the session"):
                can(one, "PROMOTED")

    def test_it_is_shown_the_state_that_is_left(self, engine: sa.Engine, base: Any) -> None:
        shown: list[str] = []
        message = self.model(base, engine, lambda one: shown.append(one.status))
        with Session(engine) as session:
            one = session.get(message, 1)
            one.status = "SPAM_REVIEW"
            can(one, "PROMOTED")
        assert (shown, one.status) == (["READY"], "SPAM_REVIEW")


@pytest.mark.filterwarnings("error::RuntimeWarning")
class TestAConditionThatIsNotWhatItSeems:
    def promoted(self, base: Any, condition: Any, **methods: Any) -> Any:
        table = TransitionTable(Transition("READY", "PROMOTED", "promote", conditions=condition))
        columns = {"id": mapped_column(sa.Integer, primary_key=True), "status": mapped_column(sa.String)}
        named: Any = type(
            "Letter",
            (Guarded, base),
            {"__tablename__": "letter", **columns, **methods, "__transitions__": {"status": table}},
        )
        return named(status="READY")

    def test_a_hybrid_method_is_called(self, base: Any) -> None:
        with pytest.raises(TransitionRefused):
            self.promoted(base, "may", may=hybrid_method(lambda self: False)).promote()

    def test_a_partial_method_is_called(self, base: Any) -> None:
        letter = self.promoted(
            base, "may", ask=lambda self, yes: yes, may=functools.partialmethod(lambda s, y: y, False)
        )
        with pytest.raises(TransitionRefused):
            letter.promote()

    def test_a_partial_method_needs_what_is_left(self, memory_engine: sa.Engine, base: Any) -> None:
        letter = self.promoted(base, "may", may=functools.partialmethod(lambda self, answer: answer, True))
        base.metadata.create_all(memory_engine)
        with Session(memory_engine) as session:
            session.add(letter)
            session.commit()
            letter.status = "PROMOTED"
            session.commit()
        assert letter

    def test_an_attribute_that_holds_a_function_is_an_error(self, base: Any) -> None:
        class Holder:
            def __get__(self, obj: object, owner: type) -> Any:
                return self if obj is None else lambda: False

        with pytest.raises(StatekitError, match="Letter.may is something to call, and no method"):
            self.promoted(base, "may", may=Holder()).promote()

    def test_a_plain_function_that_returns_a_coroutine_is_an_error(self, base: Any) -> None:
        async def yes(obj: object) -> bool:
            return True

        with pytest.raises(StatekitError, match="is asynchronous"):
            self.promoted(base, lambda obj: yes(obj)).promote()

    def test_a_function_without_a_parameter_is_refused_when_it_is_declared(self, base: Any) -> None:
        def yes() -> bool:
            return True

        with pytest.raises(TableError, match="yes takes no argument, and is given the object"):
            a_model(base, TransitionTable(Transition("READY", "PROMOTED", conditions=yes)))


@on_sqlite
def test_a_condition_that_takes_anything_by_name_needs_nothing(engine: sa.Engine, base: Any) -> None:
    message = a_model(base, TransitionTable(Transition("READY", "PROMOTED", conditions=lambda obj, **named: True)))
    with Session(filled(engine, message)) as session:
        session.get(message, 1).status = "PROMOTED"
        session.commit()
    assert rows(engine) == ["PROMOTED"]


def test_an_event_that_a_condition_refuses_is_logged_with_it(base: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TransitionRefused):
        a_model(base)(status="READY").promote()
    assert "(the condition author says no; mode: raise)" in caplog.text


def test_what_an_async_event_calls_before_it_runs_in_order(base: Any) -> None:
    log: list[str] = []

    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote", before="prepare"))}

        async def prepare(self) -> None:
            await asyncio.sleep(0.01)
            log.append("before")

        @statekit.event
        async def promote(self) -> None:
            log.append("body")

    asyncio.run(Message(status="READY").promote())
    assert log == ["before", "body"]


def test_an_async_event_stops_at_the_first_no(base: Any) -> None:
    asked: list[str] = []

    def no(name: str) -> Any:
        return lambda obj: bool(asked.append(name))

    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {
            "status": TransitionTable(Transition("READY", "PROMOTED", "promote", conditions=[no("a"), no("b")]))
        }

        @statekit.event
        async def promote(self) -> None: ...

    with pytest.raises(TransitionRefused):
        asyncio.run(Message(status="READY").promote())
    assert asked == ["a"]


def test_an_async_event_goes_on_in_observe(base: Any) -> None:
    class Message(Guarded, base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {
            "status": TransitionTable(Transition("READY", "PROMOTED", "promote", conditions=lambda obj: False))
        }

        @statekit.event
        async def promote(self) -> None: ...

    one = Message()
    with operation("Watch", on_illegal="observe"):
        assert asyncio.run(one.promote()) is True
    assert one.status == "PROMOTED"


class TestAnEventThatWasCalledBefore:
    TABLE = TransitionTable(
        Transition("OPEN", "CLOSED", "close"), Transition("DRAFT", "DROPPED", "close"), "OPEN → DRAFT"
    )

    def one(self, base: Any, status: str, **options: Any) -> Any:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str]

        guard(Ticket.status, self.TABLE, **options)
        return Ticket(status=status)

    def test_says_that_the_object_is_there_already(self, base: Any) -> None:
        with pytest.raises(IllegalTransition, match="is in DROPPED already; allowed from DROPPED: nothing"):
            self.one(base, "DROPPED").close()

    def test_in_observe_leaves_it_there(self, base: Any) -> None:
        ticket = self.one(base, "DROPPED", on_illegal="observe")
        assert (ticket.close(), ticket.status) == (True, "DROPPED")

    def test_in_observe_is_refused_where_its_target_cannot_be_told(self, base: Any) -> None:
        ticket = self.one(base, "ELSEWHERE", on_illegal="observe")
        with pytest.raises(IllegalTransition, match="The event close makes OPEN → CLOSED, DRAFT → DROPPED"):
            ticket.close()


class TestNull:
    TABLE = TransitionTable(Transition(None, "A", "wake"), Transition("A", "B", "go"))

    def model(self, base: Any, default: Any) -> Any:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str | None] = mapped_column(default=default)

        guard(Ticket.status, self.TABLE)
        return Ticket

    def test_is_not_the_state_of_a_new_object_with_a_default(self, base: Any) -> None:
        ticket = self.model(base, "A")()
        with pytest.raises(IllegalTransition, match="is in A already"):
            ticket.wake()
        assert (ticket.go(), ticket.status) == (True, "B")

    @pytest.mark.parametrize("assigned", [True, False])
    def test_may_be_meant_where_the_type_says_so(self, base: Any, assigned: bool) -> None:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            status = mapped_column(sa.String(9).evaluates_none(), default="A")

        guard(Ticket.status, self.TABLE)
        ticket = Ticket(status=None) if assigned else Ticket()
        assert can_be_called(ticket.wake) is assigned

    def test_of_a_row_is_no_state_that_is_still_to_come(self, memory_engine: sa.Engine, base: Any) -> None:
        message = a_model(base, nullable=True)
        base.metadata.create_all(memory_engine)
        with memory_engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO message (id, author) VALUES (1, 'Ada')"))
        with Session(memory_engine) as session, pytest.raises(IllegalTransition, match="from NULL to PROMOTED"):
            session.get(message, 1).promote()

    def test_that_a_validator_makes_of_every_state_ends_in_a_refusal(self, base: Any) -> None:
        class Ticket(base):
            __tablename__ = "ticket"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str | None] = mapped_column(default="A")

            @validates("status")
            def nothing(self, key: str, value: object) -> None:
                return None

        guard(Ticket.status, TransitionTable(Transition("A", "B", "go")))
        with pytest.raises(IllegalTransition, match="from NULL to B"):
            Ticket().go()

    def test_is_the_state_of_a_new_object_without_one(self, base: Any) -> None:
        ticket = self.model(base, None)()
        assert (ticket.wake(), ticket.status) == (True, "A")


def can_be_called(event: Any) -> bool:
    try:
        return bool(event())
    except IllegalTransition:
        return False


@all_sync_backends
def test_rows_that_different_conditions_refuse_are_told_apart(engine: sa.Engine, base: Any) -> None:
    table = TransitionTable(Transition("READY", "PROMOTED", conditions=["author", "may_be_promoted"]), initial="READY")

    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        author: Mapped[str | None]
        may_be_promoted = False

    guard(Message.status, table)
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Message(id=1), Message(id=2, author="Ada"), Message(id=3, author="Bob")])
        session.commit()
        for one in session.scalars(sa.select(Message)).all():
            one.status = "PROMOTED"
        with pytest.raises(TransitionRefused) as caught:
            session.flush()
    (other,) = caught.value.also
    assert isinstance(other, TransitionRefused)
    assert (caught.value.condition, caught.value.identities) == ("author", ((1,),))
    assert (other.condition, other.identities) == ("may_be_promoted", ((2,), (3,)))


@on_sqlite
def test_a_condition_that_needs_arguments_names_the_event_to_call(engine: sa.Engine, base: Any) -> None:
    table = TransitionTable(Transition("READY", "PROMOTED", "promote", conditions=lambda obj, reviewer: True))
    message = a_model(base, table)
    with Session(filled(engine, message)) as session:
        session.get(message, 1).status = "PROMOTED"
        with pytest.raises(
            TransitionRefused, match="by an assignment: the condition lambda.* needs arguments. Call the event promote."
        ) as caught:
            session.flush()
    assert caught.value.asked is False


@on_sqlite
def test_a_new_object_that_an_event_has_moved_is_refused_with_what_to_do(engine: sa.Engine, base: Any) -> None:
    message = a_model(base)
    base.metadata.create_all(engine)
    with Session(engine) as session:
        one = message(author="Ada")
        one.promote()
        session.add(one)
        with pytest.raises(IllegalTransition, match=r"Flush it before it moves, or declare guard\(..., steps=True\)"):
            session.flush()


class TestADeclaration:
    def test_of_an_event_that_would_call_itself_is_refused(self, base: Any) -> None:
        with pytest.raises(TableError, match="would call itself"):
            a_model(base, TransitionTable(Transition("READY", "PROMOTED", "promote", after="promote")))

    def test_may_call_an_event_as_a_method_of_the_metaclass(self, base: Any) -> None:
        one = a_model(base, TransitionTable(Transition("READY", "PROMOTED", "mro")))(status="READY")
        assert one.mro() is True

    def test_of_a_column_of_a_subclass_called_as_an_event_is_refused(self, base: Any) -> None:
        class Message(Guarded, base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str] = mapped_column(default="READY")
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}
            __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"))}

        with pytest.raises(TableError, match="Letter has an attribute 'promote', and inherits an event"):

            class Letter(Message):
                __mapper_args__ = {"polymorphic_identity": "letter"}
                promote: Mapped[str | None] = mapped_column()

    def test_that_forgets_guarded_is_told_so_by_the_event(self, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str]
            __transitions__ = {"status": TransitionTable(Transition("READY", "PROMOTED", "promote"))}

            @statekit.event
            def promote(self) -> None: ...

        with pytest.raises(StatekitError, match="has __transitions__, but does not derive from statekit.Guarded"):
            Message().promote()

    def test_of_conditions_alone_loads_no_pytransitions(self) -> None:
        code = """
import sys
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from statekit import Guarded, Transition, TransitionTable
class Base(DeclarativeBase): pass
class Ticket(Guarded, Base):
    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    __transitions__ = {"state": TransitionTable(Transition("A", "B", conditions="id"))}
assert "transitions" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_that_fails_leaves_nothing_for_the_subclasses_to_come(self, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}

        with pytest.raises(TableError):
            guard(Message.status, TransitionTable(Transition("A", "B", "go"), Transition("B", "C", "kind")))

        class Letter(Message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

            @statekit.event
            def go(self) -> None: ...

        with pytest.raises(StatekitError, match="is an event of no table"):
            Letter().go()

    def test_that_fails_at_its_end_leaves_nothing_for_the_subclasses_to_come(
        self, base: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}

        def fail(made: object) -> None:
            raise MemoryError

        monkeypatch.setattr("statekit.guards.fence.check", fail)
        with pytest.raises(MemoryError):
            guard(Message.status, TransitionTable(Transition("A", "B", "go")))
        monkeypatch.undo()

        class Letter(Message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

            @statekit.event
            def go(self) -> None: ...

        with pytest.raises(StatekitError, match="is an event of no table"):
            Letter().go()

    def test_may_come_after_the_mappers_are_configured(self, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            status: Mapped[str]
            author: Mapped[str | None]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}

        class Letter(Message):
            __mapper_args__ = {"polymorphic_identity": "letter"}

            @statekit.event
            def promote(self) -> None:
                self.author = "body"

        configure_mappers()
        guard(Message.status, TransitionTable(Transition("READY", "PROMOTED", "promote")))
        letter = Letter(status="READY")
        assert (letter.promote(), letter.author) == (True, "body")

    def test_leaves_a_concrete_subclass_to_its_own_column(self, base: Any) -> None:
        class Message(base):
            __tablename__ = "message"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str]

        guard(Message.status, TransitionTable(Transition("READY", "PROMOTED", "promote")))

        class Letter(Message):
            __tablename__ = "letter"
            id: Mapped[int] = mapped_column(primary_key=True)
            status: Mapped[str]
            __mapper_args__ = {"concrete": True}

            @statekit.event
            def promote(self) -> None: ...

        with pytest.raises(StatekitError, match="is an event of no table"):
            Letter(status="READY").promote()


@on_sqlite
def test_an_assignment_in_a_subclass_forgets_what_an_event_was_told(engine: sa.Engine, base: Any) -> None:
    class Message(base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        status: Mapped[str] = mapped_column(default="READY")
        author: Mapped[str | None]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}

    class Letter(Message):
        __mapper_args__ = {"polymorphic_identity": "letter"}

    guard(Message.status, TABLE)
    base.metadata.create_all(engine)
    with Session(engine) as session:
        one = Letter(id=1, author="Ada")
        session.add(one)
        session.commit()
        one.promote()
        one.author = None
        one.status = "PROMOTED"
        with pytest.raises(TransitionRefused):
            session.flush()
