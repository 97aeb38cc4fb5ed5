"""``EdgeTests``: run here as users run them, on models that are right, and in a process of their own on wrong ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from statekit import Guarded, Transition, TransitionTable, guard
from statekit.testing import EdgeTests
from statekit.trigger import StateTrigger
from tests.guards.inbox import Status
from tests.support.databases import all_sync_backends

ROOT = Path(__file__).parents[2]


class Base(DeclarativeBase):
    pass


class Letter(Guarded, Base):
    """With everything at once: an Enum, conditions, an event with arguments, a trigger, a composite key."""

    __tablename__ = "edge_letter"
    number: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    status: Mapped[Status] = mapped_column(default=Status.READY)
    author: Mapped[str | None]
    phase: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "letter"}
    __transitions__ = {
        "status": TransitionTable(
            Transition(Status.READY, Status.PROMOTED, "promote", conditions=lambda letter: letter.author is not None),
            Transition(
                Status.PROMOTED, Status.COMPLETED, "complete", conditions=lambda letter, reviewer: reviewer == "Ada"
            ),
            {Status.READY: Status.SPAM_REVIEW},
            initial=Status.READY,
        )
    }


class Express(Letter):
    __tablename__ = "edge_express"
    number: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    __table_args__ = (sa.ForeignKeyConstraint(["number", "part"], ["edge_letter.number", "edge_letter.part"]),)
    __mapper_args__ = {"polymorphic_identity": "express"}


guard(Letter.phase, TransitionTable({None: "A", "A": "B"}, initial=(None, "A")), trigger=True)


class WithALetter(EdgeTests):
    @pytest.fixture
    def session(self, engine: sa.Engine) -> Any:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            yield session

    def prepare(self, obj: Any, source: Any, target: Any) -> None:
        obj.author = "Ada"

    def move(self, obj: Any, source: Any, target: Any) -> None:
        if target is Status.COMPLETED:
            obj.complete("Ada")
        else:
            super().move(obj, source, target)


@all_sync_backends
class TestLetterStatus(WithALetter):
    attribute = Letter.status

    def make(self) -> Letter:
        return Letter(number=1, part="a")


@all_sync_backends
class TestExpressStatus(WithALetter):
    attribute = Express.status

    def make(self) -> Express:
        return Express(number=1, part="a")


@all_sync_backends
class TestLetterPhase(WithALetter):
    attribute = Letter.phase

    def make(self) -> Letter:
        return Letter(number=1, part="a")


def ticket(table: TransitionTable, **options: Any) -> Any:
    class Other(DeclarativeBase):
        pass

    class Ticket(Other):
        __tablename__ = "ticket"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str | None] = mapped_column(default="A")

    guard(Ticket.status, table, **options)
    return Ticket


class WithATicket(EdgeTests):
    @pytest.fixture
    def session(self) -> Any:
        engine = sa.create_engine("sqlite://")
        model: Any = self.attribute.class_
        model.metadata.create_all(engine)
        with Session(engine) as session:
            yield session

    def make(self) -> Any:
        return self.attribute.class_()


ABC = TransitionTable("A → B → C", initial="A")


class TestInSkip(WithATicket):
    attribute = ticket(ABC, on_illegal="skip").status


class TestInObserve(WithATicket):
    attribute = ticket(ABC, on_illegal="observe").status


class TestNullBesideADefault(WithATicket):
    attribute = ticket(TransitionTable({"A": None}, initial="A"), trigger=True).status


class TestNullAsAStartBesideADefault(WithATicket):
    attribute = ticket(TransitionTable({"A": "B", None: "C"}, initial=(None, "A")), trigger=True).status


class TestSteps(WithATicket):
    attribute = ticket(ABC, steps=True).status


# --- what they notice -------------------------------------------------------------------------------------------------

MODEL = """
    import pytest, sqlalchemy as sa
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
    from statekit import Guarded, Transition, TransitionTable
    from statekit.testing import EdgeTests

    class Base(DeclarativeBase): ...

    class Message(Guarded, Base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        {body}
        __transitions__ = {{"status": TransitionTable({table}, initial="READY")}}

    {after}

    class TestStatus(EdgeTests):
        attribute = Message.status

        @pytest.fixture
        def session(self):
            engine = sa.create_engine("sqlite://")
            {create}
            with Session(engine) as session:
                yield session

        def make(self):
            return {made}
"""


def outcome(
    tmp_path: Path,
    *,
    table: str = '"READY → PROMOTED"',
    body: str = "",
    after: str = "",
    create: str = "Base.metadata.create_all(engine)",
    made: str = "Message()",
) -> str:
    module = tmp_path / "test_message.py"
    module.write_text(textwrap.dedent(MODEL).format(table=table, body=body, after=after, create=create, made=made))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider", str(module)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.stdout + done.stderr


def test_ids_are_the_states(tmp_path: Path) -> None:
    text = outcome(tmp_path)
    assert "PASSED test_message.py::TestStatus::test_an_assignment[READY-PROMOTED]" in text
    assert "PASSED test_message.py::TestStatus::test_a_start[PROMOTED]" in text
    assert "6 passed" in text


def test_a_condition_that_says_no_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    text = outcome(tmp_path, table='Transition("READY", "PROMOTED", conditions=lambda message: False)')
    assert "1 failed, 5 passed" in text
    assert "Make the object fit in prepare(), or call the event in move()." in text


def test_a_validator_that_changes_the_state_is_noticed(tmp_path: Path) -> None:
    text = outcome(tmp_path, after='sa.event.listen(Message.status, "set", lambda *a: "READY", retval=True)')
    assert "E   AssertionError: READY → PROMOTED was not written: the row is in READY" in text
    assert "E   AssertionError: a new Message in PROMOTED was inserted; allowed: READY" in text


def test_a_listener_that_drops_a_change_is_noticed(tmp_path: Path) -> None:
    keep = 'lambda one, new, old, initiator: old if old == "PROMOTED" else new'
    text = outcome(tmp_path, after=f'sa.event.listen(Message.status, "set", {keep}, retval=True)')
    assert "E   AssertionError: PROMOTED → READY is illegal, and nothing was raised" in text


@pytest.mark.parametrize(
    ("initial", "found", "times"),
    [
        (["READY", "PROMOTED"], "READY → PROMOTED was refused, and the table allows it", 2),
        (["PROMOTED"], "a new Message in READY was refused", 1),
    ],
)
def test_a_trigger_that_disagrees_is_noticed(tmp_path: Path, initial: list[str], found: str, times: int) -> None:
    create = (
        "Base.metadata.create_all(engine); "
        "from statekit.trigger import StateTrigger; "
        f"t = StateTrigger('message', 'status', [('PROMOTED', 'READY')], initial={initial}); "
        "c = engine.raw_connection(); [c.execute(s) for s in t.create_sql('sqlite')]; c.commit(); c.close()"
    )
    assert outcome(tmp_path, create=create).count(f"E   AssertionError: {found}") == times


def test_a_listener_that_writes_behind_the_guard_is_noticed(tmp_path: Path) -> None:
    write = "lambda m, c, o: c.execute(sa.text('UPDATE message SET status = 1'))"
    text = outcome(tmp_path, after=f"sa.event.listen(Message, 'after_update', {write})")
    assert "E   AssertionError: READY → PROMOTED was not written: the row is in 1" in text


def test_a_statement_that_goes_around_the_guard_is_noticed(tmp_path: Path) -> None:
    write = "lambda s: s.is_update and s.session.connection().execute(sa.text(\"UPDATE message SET status = 'READY'\"))"
    text = outcome(tmp_path, after=f"sa.event.listen(Session, 'do_orm_execute', {write})")
    assert "E   AssertionError: PROMOTED → READY is illegal, and the row is in READY" in text


class Past(Session):
    """Inserts past the guard, in the state B; of UPDATEs it makes what it is given."""

    update = "UPDATE ticket SET status = 'C'"

    def add(self, instance: object, *args: Any) -> None:
        if instance.status == "B":  # type: ignore[attr-defined]
            self.connection().execute(sa.text("INSERT INTO ticket (status) VALUES ('B')"))
        else:
            super().add(instance, *args)

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        if isinstance(statement, sa.Update):
            return self.connection().execute(sa.text(self.update))
        return super().execute(statement, *args, **options)


class TestWhatGoesPastTheGuard:
    def checks(self, mode: Any) -> tuple[Any, Past]:
        checks: Any = type("Checks", (WithATicket,), {"attribute": ticket(ABC, on_illegal=mode).status})()
        engine = sa.create_engine("sqlite://")
        checks.attribute.class_.metadata.create_all(engine)
        return checks, Past(engine)

    @pytest.mark.parametrize(
        ("mode", "said"),
        [("raise", "a new Ticket in B was inserted; allowed: A"), ("observe", "in B was inserted and not observed")],
    )
    def test_by_a_new_row(self, mode: str, said: str) -> None:
        checks, session = self.checks(mode)
        with session, pytest.raises(AssertionError, match=said):
            checks.test_a_start(session, "B")

    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            ("raise", "A → C is illegal, and the row is in C"),
            ("skip", "A → C is illegal, and the row is in C"),
            ("observe", "A → C is illegal, and was not observed"),
        ],
    )
    def test_by_a_statement(self, mode: str, said: str) -> None:
        checks, session = self.checks(mode)
        with session, pytest.raises(AssertionError, match=said):
            checks.test_a_statement(session, ("A", "C"))

    def test_by_a_statement_that_does_nothing(self) -> None:
        checks, session = self.checks("raise")
        session.update = "UPDATE ticket SET status = status"
        with session, pytest.raises(AssertionError, match="A → C is illegal, and nothing was raised"):
            checks.test_a_statement(session, ("A", "C"))


def test_a_legal_start_that_is_refused_is_noticed() -> None:
    checks: Any = type("Checks", (WithATicket,), {"attribute": ticket(ABC).status})()
    engine = sa.create_engine("sqlite://")
    checks.attribute.class_.metadata.create_all(engine)
    with Session(engine) as session:
        for statement in StateTrigger("ticket", "status", [("A", "B")], initial=["B"]).create_sql("sqlite"):
            session.connection().exec_driver_sql(statement)
        with pytest.raises(AssertionError, match="a new Ticket in A was refused"):
            checks.test_a_start(session, "A")


@pytest.mark.parametrize(("made", "shown"), [("None", "None"), ("object()", "<object object at")])
def test_make_that_returns_something_else_is_a_clear_failure(tmp_path: Path, made: str, shown: str) -> None:
    text = outcome(tmp_path, made=made)
    assert text.count(f"E   TypeError: TestStatus.make() has returned {shown}") == 6


class TestADefinition:
    def test_needs_an_attribute(self) -> None:
        with pytest.raises(TypeError, match=r"TestIt\.attribute is None"):

            class TestIt(EdgeTests):
                def make(self) -> Any: ...

    def test_needs_a_guarded_attribute(self) -> None:
        with pytest.raises(TypeError, match="allowed is a guarded attribute"):

            class TestIt(EdgeTests):
                attribute = Letter.author

                def make(self) -> Any: ...

    def test_needs_make(self) -> None:
        with pytest.raises(TypeError, match=r"TestIt lacks make\(\)"):

            class TestIt(EdgeTests):
                attribute = Letter.status


def test_it_loads_neither_pytest_nor_hypothesis() -> None:
    code = (
        "import sys, statekit.testing; statekit.testing.EdgeTests; "
        "assert not {'pytest', 'hypothesis'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
