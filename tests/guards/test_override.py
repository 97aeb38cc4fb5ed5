"""``override()``: what passes inside of the block, what is told of it, and that it holds nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from statekit import (
    CommittedMove,
    IllegalTransition,
    Transition,
    TransitionRefused,
    TransitionTable,
    counts,
    event,
    guard,
    on_commit,
    operation,
    override,
)
from statekit.observe.hook import subscribe
from statekit.observe.move import Move
from statekit.observe.override import current_override
from tests.guards.inbox import TABLE, Status, fill, load, message_class, new_base, stored
from tests.guards.test_statements import Models
from tests.guards.write_paths import PATHS, STATES, Make, Path
from tests.support.databases import Databases, all_async_backends, all_sync_backends, run

REASON = "wrong queue, ticket 4711"
BACK = ("PROMOTED", "READY")
"""An illegal move, of row 2 of ``message``."""


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    message = message_class()
    fill(engine, message, "READY", "PROMOTED", "COMPLETED")
    return message


@pytest.fixture
def async_message(async_engine: AsyncEngine, databases: Databases) -> Any:
    message = message_class()
    fill(databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg"), message, *STATES[:2])
    return message


def back(message: Any) -> Any:
    """Return a statement that makes the illegal move; the same one each time, as caches see it."""
    return sa.update(message).where(message.id == 2).values(status="READY")


def tried(engine: sa.Engine, message: Any) -> str:
    """Try the illegal move in a transaction that is rolled back, and say what became of it."""
    with Session(engine) as session:
        try:
            session.execute(back(message))
        except IllegalTransition:
            return "blocked"
        return "passed"


async def tried_async(engine: AsyncEngine, message: Any) -> str:
    """Try the illegal move as :func:`tried` does, by the flush of an object."""
    async with AsyncSession(engine) as session:
        (await session.get_one(message, 2)).status = "READY"
        try:
            await session.flush()
        except IllegalTransition:
            return "blocked"
        return "passed"


@contextlib.contextmanager
def told() -> Iterator[list[Move]]:
    """Collect the moves that the hook hears of."""
    moves: list[Move] = []
    stop = subscribe(moves.extend)
    try:
        yield moves
    finally:
        stop()


# --- every way to write -----------------------------------------------------------------------------------------------


def each_path(*, inserts: bool, fixture: str) -> Any:
    """Parametrise a test with the write paths of tests/guards/write_paths.py, each on its backends."""
    cases = [
        pytest.param(backend, path, id=f"{backend}-{path.id}")
        for path in PATHS
        if bool(path.inserts) is inserts
        for backend in path.backends(asynchronous=fixture == "async_engine")
    ]
    return pytest.mark.parametrize((fixture, "path"), cases, indirect=[fixture])


def rows_of(path: Path) -> tuple[tuple[str, ...], str]:
    """Return the states that there are before a path writes, and the one that it writes."""
    return ((), "COMPLETED") if path.inserts else (STATES, "SPAM_REVIEW")


class Trial:
    """A write path that is tried three times over, on the same rows: outside, inside and outside of a block."""

    def __init__(self, path: Path, engine: sa.Engine, write: Callable[[Models, Make], None]) -> None:
        self._path = path
        self._engine = engine
        self._write = write
        self._models = Models(path)

    def outside(self) -> None:
        """Assert that what is illegal is not written."""
        with self._new() as make:
            try:
                self._write(self._models, make)
            except IllegalTransition:
                assert self._path.reported
            else:
                assert not self._path.reported
        written = [state for state, subject in self._stored(make) if subject == "written"]
        assert written == ([] if self._path.reported else ["SPAM_REVIEW"] * 3)

    def inside(self) -> None:
        """Assert that everything is written and counted as what it is."""
        with self._new() as make:
            before = counts(make.model.guarded)
            with told() as moves, operation("Repair") as op, override(REASON, actor="ada"):
                self._write(self._models, make)
        states, state = rows_of(self._path)
        assert self._stored(make) == [(state, "written")] * (self._path.inserts or len(states))
        new, legal = {(None, state): self._path.inserts}, {("READY", state): 2}
        moved = Counter((each, state) for each in states if each not in ("READY", state))
        overridden: Any = {} if not self._path.reported else new if self._path.inserts else moved
        assert op.overridden == overridden
        assert op.allowed == (legal if moved and self._path.reported else {})
        assert not op.blocked
        assert not op.observed
        assert counts(make.model.guarded) == before
        assert {(m.reason, m.actor, m.mode) for m in moves if m.kind == "overridden"} == (
            {(REASON, "ada", "override")} if self._path.reported else set()
        )

    @contextlib.contextmanager
    def _new(self) -> Iterator[Make]:
        states, state = rows_of(self._path)
        with self._engine.begin() as connection:
            make = self._models.make(connection, self._path.kinds[0], state, states)
        yield make

    def _stored(self, make: Make) -> list[Any]:
        with self._engine.connect() as connection:
            return self._models.stored(connection, make)


def by_sync(path: Path, engine: sa.Engine) -> Trial:
    def write(models: Models, make: Make) -> None:
        with engine.begin() as connection, Session(connection) as session:
            path.write(models.translated(connection) if path.on == "connection" else session, make.model, make)
            session.flush()

    return Trial(path, engine, write)


def by_async(path: Path, engine: AsyncEngine, sync_engine: sa.Engine) -> Trial:
    async def work(models: Models, make: Make) -> None:
        async with engine.begin() as connection, AsyncSession(connection) as session:
            db: Any = connection if path.on.endswith("connection") else session
            if path.is_async:
                await path.write(db, make.model, make)
            else:
                await db.run_sync(
                    lambda sync: path.write(
                        models.translated(sync) if path.on == "connection" else sync, make.model, make
                    )
                )

    def write(models: Models, make: Make) -> None:
        # The block is the task's, so that a task is begun which takes it over.
        innermost = current_override()
        block = override(innermost.reason, actor=innermost.actor) if innermost else contextlib.nullcontext()

        async def body() -> None:
            async with block:
                await work(models, make)

        run(body())

    return Trial(path, sync_engine, write)


class TestEveryWayToWrite:
    """The same statement outside, inside and outside once more: no cache may keep the fence open, or closed."""

    @each_path(inserts=False, fixture="engine")
    def test_moves_rows(self, engine: sa.Engine, path: Path) -> None:
        trial = by_sync(path, engine)
        trial.outside()
        trial.inside()
        trial.outside()

    @each_path(inserts=True, fixture="engine")
    def test_makes_rows(self, engine: sa.Engine, path: Path) -> None:
        trial = by_sync(path, engine)
        trial.outside()
        trial.inside()
        trial.outside()

    @each_path(inserts=False, fixture="engine")
    def test_moves_rows_where_the_first_time_is_inside(self, engine: sa.Engine, path: Path) -> None:
        trial = by_sync(path, engine)
        trial.inside()
        trial.outside()

    @each_path(inserts=False, fixture="async_engine")
    def test_moves_rows_in_async_code(self, async_engine: AsyncEngine, path: Path, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        trial = by_async(path, async_engine, engine)
        trial.inside()
        trial.outside()

    @each_path(inserts=True, fixture="async_engine")
    def test_makes_rows_in_async_code(self, async_engine: AsyncEngine, path: Path, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        trial = by_async(path, async_engine, engine)
        trial.inside()
        trial.outside()


@all_sync_backends
class TestAStatementThatIsKept:
    def test_with_a_cache_of_the_users_own(self, engine: sa.Engine, message: Any) -> None:
        cache: dict[Any, Any] = {}
        with engine.connect().execution_options(compiled_cache=cache) as connection:
            with override(REASON):
                connection.execute(back(message))
            connection.rollback()
            with pytest.raises(IllegalTransition):
                connection.execute(back(message))
        assert cache


# --- objects ----------------------------------------------------------------------------------------------------------


@all_sync_backends
class TestAFlush:
    def test_lets_a_loaded_object_move(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.get_one(message, 2).status = "READY"
            session.commit()
        assert stored(engine, message) == ["READY", "READY", "COMPLETED"]
        assert op.overridden == {BACK: 1}

    def test_lets_an_expired_object_move(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            one = session.get_one(message, 2)
            session.expire(one)
            one.status = "READY"
            session.commit()
        assert stored(engine, message)[1] == "READY"
        assert op.overridden == {BACK: 1}

    def test_lets_an_object_move_that_was_loaded_before_another_session_moved_it(
        self, engine: sa.Engine, message: Any
    ) -> None:
        """It is counted from where the row is, and not from where the object was."""
        with Session(engine) as session:
            one = session.get_one(message, 1)
            session.commit()
            session.expunge(one)
            one.status = "READY"
            with Session(engine) as other:
                other.get_one(message, 1).status = "SPAM_REVIEW"
                other.commit()
            with operation("Repair") as op, Session(engine) as later, override(REASON):
                later.add(one)
                one.status = "COMPLETED"
                later.commit()
        assert stored(engine, message)[0] == "COMPLETED"
        assert op.overridden == {("SPAM_REVIEW", "COMPLETED"): 1}

    def test_lets_a_new_row_start_anywhere(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.add(message(id=4, status="COMPLETED"))
            session.commit()
        assert stored(engine, message)[3] == "COMPLETED"
        assert op.overridden == {(None, "COMPLETED"): 1}
        assert op.moved == 0

    def test_lets_a_state_pass_that_the_table_does_not_know(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.get_one(message, 2).status = "LOST"
            session.commit()
        assert stored(engine, message)[1] == "LOST"
        assert op.overridden == {("PROMOTED", "LOST"): 1}

    def test_lets_a_row_leave_such_a_state(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "LOST")
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.get_one(message, 1).status = "READY"
            session.commit()
        assert stored(engine, message) == ["READY"]
        assert op.overridden == {("LOST", "READY"): 1}

    def test_lets_an_enum_pass(self, engine: sa.Engine) -> None:
        message = message_class(type_=sa.Enum(Status, native_enum=False), default=Status.READY)
        fill(engine, message)
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.add(message(id=1, status=Status.PROMOTED))
            session.flush()
            session.get_one(message, 1).status = Status.READY
            session.commit()
        assert op.overridden == {(None, "PROMOTED"): 1, BACK: 1}

    def test_calls_a_legal_move_allowed(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            first, second, _ = load(session, message)
            first.status, second.status = "SPAM_REVIEW", "READY"
            session.commit()
        assert op.allowed == {("READY", "SPAM_REVIEW"): 1}
        assert op.overridden == {BACK: 1}

    def test_that_fails_has_overridden_nothing(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            session.get_one(message, 2).status = "READY"
            session.add(message(id=3))
            with pytest.raises(IntegrityError):
                session.flush()
        assert not op.overridden

    def test_follows_steps(self, engine: sa.Engine) -> None:
        """Each step is told as what it is."""
        message = message_class(steps=True)
        fill(engine, message, "PROMOTED")
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            one = session.get_one(message, 1)
            one.status = "READY"
            one.status = "SPAM_REVIEW"
            session.commit()
        assert stored(engine, message) == ["SPAM_REVIEW"]
        assert op.overridden == {BACK: 1}
        assert op.allowed == {("READY", "SPAM_REVIEW"): 1}

    def test_follows_the_steps_of_a_new_object(self, engine: sa.Engine) -> None:
        message = message_class(steps=True, default=None)
        fill(engine, message)
        with operation("Repair") as op, Session(engine) as session, override(REASON):
            one = message(id=1, status="PROMOTED")
            session.add(one)
            one.status = "READY"
            session.commit()
        assert stored(engine, message) == ["READY"]
        assert op.overridden == {(None, "PROMOTED"): 1, BACK: 1}


@all_sync_backends
class TestTwoGuardedColumns:
    @pytest.fixture
    def parcel(self, engine: sa.Engine) -> Any:
        class Parcel(new_base()):  # type: ignore[misc]
            __tablename__ = "parcel"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")
            payment = mapped_column(sa.String(20), default="OPEN")

        guard(Parcel.status, TABLE)
        guard(Parcel.payment, TransitionTable("OPEN → PAID", initial="OPEN"))
        Parcel.metadata.create_all(engine)
        with Session(engine) as session, override("as they are to be"):
            session.add(Parcel(id=1, status="PROMOTED", payment="PAID"))
            session.commit()
        return Parcel

    def test_are_both_overridden_by_a_flush(self, engine: sa.Engine, parcel: Any) -> None:
        with told() as moves, Session(engine) as session, override(REASON):
            one = session.get_one(parcel, 1)
            one.status, one.payment = "READY", "OPEN"
            session.commit()
        assert {(m.attribute, m.source, m.kind) for m in moves} == {
            ("status", "PROMOTED", "overridden"),
            ("payment", "PAID", "overridden"),
        }

    def test_are_both_overridden_by_a_statement(self, engine: sa.Engine, parcel: Any) -> None:
        with operation("Repair") as op, engine.begin() as connection, override(REASON):
            connection.execute(sa.update(parcel.__table__).values(status="READY", payment="OPEN"))
        assert op.overridden == {BACK: 1, ("PAID", "OPEN"): 1}


# --- conditions and events --------------------------------------------------------------------------------------------


@all_sync_backends
class TestConditionsAndEvents:
    @pytest.fixture
    def letter(self, engine: sa.Engine) -> Any:
        class Letter(new_base()):  # type: ignore[misc]
            __tablename__ = "letter"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")
            author = mapped_column(sa.String(20))

            def has_author(self) -> bool:
                return self.author is not None

        promote = Transition("READY", "PROMOTED", event="promote", conditions="has_author")
        guard(Letter.status, TransitionTable(promote, "READY → SPAM_REVIEW", "PROMOTED → COMPLETED", initial="READY"))
        Letter.metadata.create_all(engine)
        with Session(engine) as session, override("as they are to be"):
            session.add_all([Letter(id=1), Letter(id=2, status="SPAM_REVIEW", author="Ada")])
            session.commit()
        return Letter

    def test_a_condition_that_says_no_to_an_assignment_lets_it_pass(self, engine: sa.Engine, letter: Any) -> None:
        with told() as moves, Session(engine) as session, override(REASON):
            session.get_one(letter, 1).status = "PROMOTED"
            session.commit()
        assert [(m.kind, m.condition, m.source, m.target) for m in moves] == [
            ("overridden", "has_author", "READY", "PROMOTED")
        ]
        assert stored(engine, letter)[0] == "PROMOTED"

    def test_a_condition_that_says_no_to_an_event_lets_it_pass(self, engine: sa.Engine, letter: Any) -> None:
        with told() as moves, Session(engine) as session, override(REASON):
            assert session.get_one(letter, 1).promote()
            session.commit()
        assert [(m.kind, m.condition) for m in moves] == [("overridden", "has_author")]
        assert stored(engine, letter)[0] == "PROMOTED"

    def test_an_event_passes_from_a_state_that_it_does_not_lead_out_of(self, engine: sa.Engine, letter: Any) -> None:
        with told() as moves, Session(engine) as session, override(REASON):
            assert session.get_one(letter, 2).promote()
            session.commit()
        assert [(m.kind, m.source, m.target) for m in moves] == [("overridden", "SPAM_REVIEW", "PROMOTED")]
        assert stored(engine, letter)[1] == "PROMOTED"

    @pytest.mark.parametrize("number", [1, 2])
    def test_an_event_whose_flush_comes_after_the_block_is_refused_there(
        self, engine: sa.Engine, letter: Any, number: int
    ) -> None:
        with Session(engine) as session:
            with override(REASON):
                session.get_one(letter, number).promote()
            with pytest.raises((IllegalTransition, TransitionRefused)):
                session.commit()
        assert stored(engine, letter) == ["READY", "SPAM_REVIEW"]

    def test_such_an_event_calls_nothing_of_its_own(self, engine: sa.Engine) -> None:
        called: list[str] = []

        class Letter(new_base()):  # type: ignore[misc]
            __tablename__ = "other_letter"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")

            @event
            def promote(self) -> None:
                called.append("body")

        promote = Transition("READY", "PROMOTED", event="promote", before=lambda letter: called.append("before"))
        guard(Letter.status, TransitionTable(promote, "PROMOTED → COMPLETED", initial="READY"))
        one = Letter(status="COMPLETED")
        with override(REASON):
            assert one.promote()
        assert one.status == "PROMOTED"
        assert not called
        one.status = "READY"
        assert one.promote()
        assert called == ["before", "body"]

    def test_an_event_with_several_targets_is_refused_from_such_a_state(self, engine: sa.Engine) -> None:
        class Letter(new_base()):  # type: ignore[misc]
            __tablename__ = "other_letter"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")

        go_on = [Transition("READY", "PROMOTED", event="go_on"), Transition("PROMOTED", "COMPLETED", event="go_on")]
        guard(Letter.status, TransitionTable(*go_on, "READY → SPAM_REVIEW", initial="READY"))
        with override(REASON), pytest.raises(IllegalTransition, match="The event go_on makes"):
            Letter(status="SPAM_REVIEW").go_on()

    def test_a_condition_that_fails_fails_the_flush(self, engine: sa.Engine) -> None:
        class Letter(new_base()):  # type: ignore[misc]
            __tablename__ = "other_letter"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")

            def cannot_tell(self) -> bool:
                raise LookupError

        promote = Transition("READY", "PROMOTED", conditions="cannot_tell")
        guard(Letter.status, TransitionTable(promote, initial="READY"))
        fill(engine, Letter)
        with Session(engine) as session, override(REASON):
            one = Letter(id=1)
            session.add(one)
            session.flush()
            one.status = "PROMOTED"
            with pytest.raises(LookupError):
                session.flush()


# --- what is told -----------------------------------------------------------------------------------------------------


def repair(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        session.get_one(message, 2).status = "READY"
        session.commit()


@all_sync_backends
class TestWhatIsTold:
    def test_it_is_not_among_the_blocked_ones(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON):
            repair(engine, message)
        assert counts(message.status) == {}

    def test_an_operation_sums_it_up(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, override(REASON):
            repair(engine, message)
        assert str(op) == "Repair: 1 moved, 1 overridden (PROMOTED → READY: 1)"

    def test_the_hook_hears_of_everything(self, engine: sa.Engine, message: Any) -> None:
        with told() as moves, operation("Repair"), override(REASON, actor="ada"):
            repair(engine, message)
        (move,) = moves
        assert (move.kind, move.mode, move.reason, move.actor) == ("overridden", "override", REASON, "ada")
        assert (move.model, move.attribute, move.table, move.identities) == ("Message", "status", "message", ((2,),))
        assert (move.source, move.target, move.new, move.number) == (*BACK, False, 1)
        assert (move.allowed, move.operation) == (("COMPLETED",), "Repair")

    def test_a_statement_of_many_rows_is_one_move(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, *["PROMOTED"] * 50)
        with told() as moves, engine.begin() as connection, override(REASON):
            connection.execute(sa.update(message.__table__).values(status="READY"))
        assert [(m.kind, m.number, m.reason) for m in moves] == [("overridden", 50, REASON)]

    def test_a_legal_move_has_no_reason_and_no_actor(self, engine: sa.Engine, message: Any) -> None:
        with told() as moves, Session(engine) as session, override(REASON, actor="ada"):
            session.get_one(message, 1).status = "PROMOTED"
            session.commit()
        assert [(m.kind, m.reason, m.actor) for m in moves] == [("allowed", None, None)]

    def test_the_log_has_a_line_with_reason_and_actor(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with override(REASON, actor="ada"):
            repair(engine, message)
        (record,) = (each for each in caplog.records if each.name == "statekit")
        assert record.levelno == logging.WARNING
        assert record.getMessage() == (
            "[SELF-HEAL] Overrode invalid transition: PROMOTED → READY on Message(2).status "
            f"(allowed from PROMOTED: COMPLETED; mode: override; reason: {REASON}; actor: ada)"
        )

    def test_the_log_has_the_same_as_data(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with operation("Repair"), override(REASON, actor="ada"):
            repair(engine, message)
        record: Any = next(each for each in caplog.records if getattr(each, "statekit_kind", "") == "overridden")
        shown = {name: value for name, value in vars(record).items() if name.startswith("statekit_")}
        line = repair.__code__.co_firstlineno + 3
        assert shown == {
            "statekit_kind": "overridden",
            "statekit_model": "Message",
            "statekit_attribute": "status",
            "statekit_identity": (2,),
            "statekit_source": "PROMOTED",
            "statekit_target": "READY",
            "statekit_new": False,
            "statekit_allowed": ("COMPLETED",),
            "statekit_condition": None,
            "statekit_mode": "override",
            "statekit_operation": "Repair",
            "statekit_place": f"{__name__}:{line} in repair",
            "statekit_reason": REASON,
            "statekit_actor": "ada",
        }

    def test_the_log_names_no_actor_where_there_is_none(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with override(REASON):
            repair(engine, message)
        assert caplog.records[-1].getMessage().endswith(f"reason: {REASON})")

    def test_a_function_on_commit_is_told(self, engine: sa.Engine, message: Any) -> None:
        heard: list[CommittedMove] = []
        on_commit(message.status, target="READY")(heard.append)
        with override(REASON):
            repair(engine, message)
        assert [(each.kind, each.identity) for each in heard] == [("overridden", (2,))]


# --- the block --------------------------------------------------------------------------------------------------------


@all_sync_backends
class TestTheEndOfABlock:
    def test_is_the_end_of_it(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON):
            assert tried(engine, message) == "passed"
        assert tried(engine, message) == "blocked"
        assert counts(message.status) == {BACK: 1}

    def test_comes_with_an_error_too(self, engine: sa.Engine, message: Any) -> None:
        with pytest.raises(ZeroDivisionError), override(REASON):
            1 / 0
        assert tried(engine, message) == "blocked"

    def test_is_before_the_flush_of_an_object_that_was_changed_in_it(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            with override(REASON):
                session.get_one(message, 2).status = "READY"
            with pytest.raises(IllegalTransition):
                session.commit()
        assert stored(engine, message)[1] == "PROMOTED"

    def test_is_before_the_flush_of_a_new_object_that_was_added_in_it(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            with override(REASON):
                session.add(message(id=4, status="COMPLETED"))
            with pytest.raises(IllegalTransition):
                session.commit()

    def test_is_before_a_commit_that_is_around_it(self, engine: sa.Engine, message: Any) -> None:
        with pytest.raises(IllegalTransition), Session(engine) as session, session.begin(), override(REASON):
            session.get_one(message, 2).status = "READY"

    def test_comes_after_a_commit_that_is_in_it(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON), Session(engine) as session, session.begin():
            session.get_one(message, 2).status = "READY"
        assert stored(engine, message)[1] == "READY"

    def test_leaves_no_trace_on_a_pooled_connection(self, databases: Databases, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED")
        backend = "sqlite" if engine.dialect.name == "sqlite" else engine.driver
        pool_of_one = databases.engine(backend, pool_size=1, max_overflow=0, poolclass=sa.QueuePool)
        with override(REASON), pool_of_one.connect() as connection:
            first = connection.connection.dbapi_connection
            connection.execute(back(message))
        with pool_of_one.connect() as connection:
            assert connection.connection.dbapi_connection is first
            with pytest.raises(IllegalTransition):
                connection.execute(back(message))

    def test_leaves_no_trace_on_a_session_that_was_made_in_it(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON):
            session = sessionmaker(engine)()
            session.get_one(message, 2)
        with session:
            session.get_one(message, 2).status = "READY"
            with pytest.raises(IllegalTransition):
                session.flush()

    def test_is_seen_in_a_transaction_that_goes_on(self, engine: sa.Engine, message: Any) -> None:
        with engine.connect() as connection:
            with override(REASON):
                connection.execute(back(message))
            with pytest.raises(IllegalTransition):
                connection.execute(sa.update(message.__table__).where(message.id == 3).values(status="READY"))

    def test_does_not_change_what_was_chosen_before(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair", on_illegal="skip") as op:
            with override(REASON):
                pass
            repair(engine, message)
        assert op.blocked == {BACK: 1}


class TestNestedBlocks:
    def test_have_the_reason_of_the_innermost(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED", "PROMOTED")
        with told() as moves, override("outer", actor="ada"):
            with override("inner", actor="bob"):
                tried(memory_engine, message)
            tried(memory_engine, message)
        assert [(m.reason, m.actor) for m in moves] == [("inner", "bob"), ("outer", "ada")]

    def test_inherit_the_actor(self) -> None:
        with override("outer", actor="ada"), override("between"), override("inner") as inner:
            assert inner.actor == "ada"

    def test_inherit_no_actor_of_a_block_that_has_ended(self) -> None:
        with override("before", actor="ada"):
            pass
        with override("after") as after:
            assert after.actor is None

    def test_know_the_block_around_them(self) -> None:
        with override("outer") as outer, override("inner") as inner:
            assert inner.outer is outer
        assert outer.outer is None

    def test_know_no_block_around_them_that_has_ended_first(self) -> None:
        outer, inner = override("outer"), override("inner")
        with contextlib.ExitStack() as stack:
            outer.__enter__()
            stack.enter_context(inner)
            outer.__exit__(None, None, None)
            assert inner.outer is None

    def test_leave_the_outer_one_in_force_in_a_copy_of_the_inner_ones_context(self) -> None:
        with override("outer") as outer:
            with override("inner"):
                context = contextvars.copy_context()
            assert context.run(current_override) is outer

    def test_can_be_left_in_another_context_than_they_were_entered_in(self) -> None:
        """As where an async generator is cleaned up."""
        block, context = override(REASON), contextvars.copy_context()
        context.run(block.__enter__)
        another = context.copy()
        another.run(block.__exit__, None, None, None)
        assert another.run(current_override) is None
        assert context.run(current_override) is None

    def test_are_in_force_until_the_outermost_has_ended(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        with override("outer"):
            with pytest.raises(ZeroDivisionError), override("inner"):
                1 / 0
            assert tried(memory_engine, message) == "passed"
        assert tried(memory_engine, message) == "blocked"


class TestMaking:
    def test_one_alone_does_nothing(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        override(REASON)
        assert tried(memory_engine, message) == "blocked"

    @pytest.mark.parametrize("when", ["inside", "after"])
    def test_one_can_be_entered_once(self, when: str) -> None:
        block = override(REASON)
        with block:
            if when == "inside":
                with pytest.raises(RuntimeError, match=r"each block needs an override\(\.\.\.\) of its own"):
                    block.__enter__()
                assert current_override() is block
        with pytest.raises(RuntimeError, match="entered before"):
            block.__enter__()
        assert current_override() is None

    @pytest.mark.parametrize("reason", ["", " \n", None, 4711, b"ticket"])
    def test_one_needs_a_reason(self, reason: Any) -> None:
        with pytest.raises(ValueError, match="a reason is needed, such as 'wrong queue, ticket 4711'; got"):
            override(reason)

    @pytest.mark.parametrize("actor", ["", "  ", 7, b"ada"])
    def test_an_actor_is_a_name(self, actor: Any) -> None:
        with pytest.raises(ValueError, match="actor=.*: allowed is a name, or None"):
            override(REASON, actor=actor)

    def test_an_actor_is_named(self) -> None:
        with pytest.raises(TypeError):
            override(REASON, "ada")  # type: ignore[call-arg]

    def test_it_shows_what_it_is(self) -> None:
        assert repr(override(REASON, actor="ada")) == f"<statekit override '{REASON}' by ada>"

    def test_a_task_that_is_over_is_not_kept_by_its_block(self) -> None:
        async def work() -> Any:
            with override(REASON) as block:
                return block, weakref.ref(asyncio.current_task())

        block, task = asyncio.run(work())
        gc.collect()
        assert block.reason == REASON
        assert task() is None


@all_sync_backends
class TestWithAnOperation:
    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_inside_of_it_the_override_decides(self, engine: sa.Engine, message: Any, mode: Any) -> None:
        with operation("Repair", on_illegal=mode) as op, override(REASON):
            repair(engine, message)
        assert (op.overridden, op.blocked, op.observed) == ({BACK: 1}, {}, {})

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_around_it_the_override_decides_too(self, engine: sa.Engine, message: Any, mode: Any) -> None:
        with override(REASON), operation("Repair", on_illegal=mode) as op:
            repair(engine, message)
        assert (op.overridden, op.blocked, op.observed) == ({BACK: 1}, {}, {})

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_the_override_decides_for_a_statement_as_well(self, engine: sa.Engine, message: Any, mode: Any) -> None:
        with override(REASON), operation("Repair", on_illegal=mode) as op:
            assert tried(engine, message) == "passed"
        assert (op.overridden, op.blocked, op.observed) == ({BACK: 1}, {}, {})

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_what_the_guard_would_do_makes_no_difference(self, engine: sa.Engine, mode: Any) -> None:
        message = message_class(on_illegal=mode)
        fill(engine, message, "READY", "PROMOTED")
        with operation("Repair") as op, override(REASON):
            repair(engine, message)
        assert (op.overridden, op.blocked, op.observed) == ({BACK: 1}, {}, {})


@all_sync_backends
class TestATriggerBeneath:
    """The database has no way past in this version: what it refuses is refused."""

    @pytest.fixture
    def message(self, engine: sa.Engine) -> Any:
        message = message_class(trigger=True)
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2)])
            session.flush()
            session.get_one(message, 2).status = "PROMOTED"
            session.commit()
        return message

    def test_refuses_a_flush(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, override(REASON), pytest.raises(IllegalTransition):
            repair(engine, message)
        assert stored(engine, message) == ["READY", "PROMOTED"]
        assert not op.overridden

    def test_refuses_a_statement(self, engine: sa.Engine, message: Any) -> None:
        with operation("Repair") as op, override(REASON):
            assert tried(engine, message) == "blocked"
        assert not op.overridden

    def test_refuses_a_new_row(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON), Session(engine) as session, pytest.raises(IllegalTransition):
            session.add(message(id=3, status="COMPLETED"))
            session.flush()

    @pytest.mark.parametrize("write", [repair, tried])
    def test_in_skip_leaves_the_row_as_it_is_and_nothing_is_told(self, engine: sa.Engine, write: Any) -> None:
        message = message_class(trigger=True, on_illegal="skip")
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2)])
            session.flush()
            session.get_one(message, 2).status = "PROMOTED"
            session.commit()
        with told() as moves, override(REASON), contextlib.suppress(StaleDataError):
            write(engine, message)
        assert stored(engine, message)[1] == "PROMOTED"
        assert moves == []


# --- where it does not hold -------------------------------------------------------------------------------------------


@all_sync_backends
class TestOtherThreads:
    def test_a_thread_that_is_started_inside(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON), ThreadPoolExecutor(1) as pool:
            assert pool.submit(tried, engine, message).result() == "blocked"
            assert tried(engine, message) == "passed"

    def test_a_thread_that_is_given_the_context(self, engine: sa.Engine, message: Any) -> None:
        with override(REASON), ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            assert pool.submit(context.run, tried, engine, message).result() == "blocked"

    def test_a_thread_that_is_given_the_context_may_have_a_block_of_its_own(
        self, engine: sa.Engine, message: Any
    ) -> None:
        def work() -> tuple[str, str | None]:
            with override("of the thread") as block:
                return tried(engine, message), block.actor

        with override(REASON, actor="ada"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(contextvars.copy_context().run, work).result() == ("passed", None)

    def test_a_thread_by_asyncio(self, engine: sa.Engine, message: Any) -> None:
        async def work() -> str:
            with override(REASON):
                return await asyncio.to_thread(tried, engine, message)

        assert asyncio.run(work()) == "blocked"

    def test_the_same_thread_with_a_copy_of_the_context(self, engine: sa.Engine, message: Any) -> None:
        """It is the same thread, inside of the block; and no longer once that has ended."""
        with override(REASON):
            context = contextvars.copy_context()
            assert context.run(tried, engine, message) == "passed"
        assert context.run(tried, engine, message) == "blocked"

    def test_a_block_that_was_left_open_in_a_copy_of_the_context_is_not_seen_outside(
        self, engine: sa.Engine, message: Any
    ) -> None:
        block = override(REASON)
        context = contextvars.copy_context()
        context.run(block.__enter__)
        assert tried(engine, message) == "blocked"
        block.__exit__(None, None, None)
        assert context.run(tried, engine, message) == "blocked"


def left_open() -> Generator[None]:
    with override("left open"):
        yield


class TestWhatOutlivesItsThread:
    def test_a_later_thread_with_the_same_number_is_another_one(self) -> None:
        """The number of a thread is given to another one once it has ended."""
        kept: dict[str, Any] = {}

        def leave_open() -> None:
            kept["generator"] = left_open()
            next(kept["generator"])
            kept.update(context=contextvars.copy_context(), number=threading.get_ident())

        def look() -> None:
            kept.update(seen=kept["context"].run(current_override), again=threading.get_ident())

        for work in (leave_open, *[look] * 50):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            if kept.get("again") == kept["number"]:
                break
        else:
            pytest.skip("this system gives no later thread the same number")
        assert kept["seen"] is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_process_that_is_forked_inside_of_it(self) -> None:
        script = """
            import os
            from statekit import override
            from statekit.observe.override import current_override

            with override("the parent's"):
                child = os.fork()
                if child == 0:
                    inherited = current_override()
                    with override("the child's"):
                        own = current_override()
                    os._exit(0 if inherited is None and own is not None else 1)
                _, status = os.waitpid(child, 0)
                print(os.waitstatus_to_exitcode(status), current_override().reason)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
        )
        assert done.stdout == "0 the parent's\n", done.stderr


class TestGenerators:
    def test_one_that_is_left_open_holds_until_it_is_closed(self, memory_engine: sa.Engine) -> None:
        """Whoever runs it is inside of its block: it is the same thread and the same task."""
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        generator = left_open()
        next(generator)
        assert tried(memory_engine, message) == "passed"
        generator.close()
        assert tried(memory_engine, message) == "blocked"

    def test_one_that_is_closed_inside_of_another_block_does_not_end_that(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        generator = left_open()
        next(generator)
        with override(REASON):
            generator.close()
            assert tried(memory_engine, message) == "passed"
        assert tried(memory_engine, message) == "blocked"

    def test_one_that_outlives_the_block_in_which_it_was_begun_is_not_its_heir(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        with override("outer"):
            generator = left_open()
            next(generator)
        generator.close()
        assert tried(memory_engine, message) == "blocked"

    def test_it_can_be_what_a_context_manager_is_made_of(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message, "READY", "PROMOTED")
        with contextlib.contextmanager(left_open)():
            assert tried(memory_engine, message) == "passed"
        assert tried(memory_engine, message) == "blocked"

    def test_an_async_one_is_not_in_force_in_another_task(self) -> None:
        async def open_one() -> AsyncIterator[None]:
            with override("left open"):
                yield

        async def work() -> Any:
            generator = open_one()
            await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
            seen = current_override()
            await generator.aclose()  # type: ignore[attr-defined]
            return seen, current_override()

        assert asyncio.run(work()) == (None, None)


@all_async_backends
class TestTasks:
    def test_the_task_itself(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> tuple[str, str]:
            async with override(REASON):
                inside = await tried_async(async_engine, async_message)
            return inside, await tried_async(async_engine, async_message)

        assert run(work()) == ("passed", "blocked")

    def test_a_task_that_is_created_inside(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> str:
            with override(REASON):
                return await asyncio.create_task(tried_async(async_engine, async_message))

        assert run(work()) == "blocked"

    def test_tasks_that_are_gathered_inside(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> list[str]:
            with override(REASON):
                return await asyncio.gather(*(tried_async(async_engine, async_message) for _ in range(2)))

        assert run(work()) == ["blocked", "blocked"]

    def test_tasks_of_a_group_inside(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> str:
            with override(REASON):
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(tried_async(async_engine, async_message))
            return task.result()

        assert run(work()) == "blocked"

    def test_a_task_of_a_group_may_have_a_block_of_its_own(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def own() -> str:
            async with override("its own"):
                return await tried_async(async_engine, async_message)

        async def work() -> str:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(own())
            return task.result()

        assert run(work()) == "passed"

    def test_what_is_waited_for(self, async_engine: AsyncEngine, async_message: Any) -> None:
        """Before Python 3.12, ``wait_for`` makes a task of it."""

        async def work() -> str:
            with override(REASON):
                return await asyncio.wait_for(tried_async(async_engine, async_message), 30)

        assert run(work()) == ("blocked" if sys.version_info < (3, 12) else "passed")

    def test_what_has_a_timeout(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> str:
            with override(REASON):
                async with asyncio.timeout(30):
                    return await tried_async(async_engine, async_message)

        assert run(work()) == "passed"

    def test_another_task_while_the_block_waits(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> tuple[str, str]:
            is_open, is_done = asyncio.Event(), asyncio.Event()

            async def other() -> str:
                await is_open.wait()
                seen = await tried_async(async_engine, async_message)
                is_done.set()
                return seen

            task = asyncio.create_task(other())
            with override(REASON):
                is_open.set()
                await is_done.wait()
                own = await tried_async(async_engine, async_message)
            return await task, own

        assert run(work()) == ("blocked", "passed")

    def test_the_task_of_a_loop_that_is_run_inside(self, async_engine: AsyncEngine, async_message: Any) -> None:
        with override(REASON):
            assert run(tried_async(async_engine, async_message)) == "blocked"

    def test_a_block_within_run_sync(self, async_engine: AsyncEngine, async_message: Any) -> None:
        def sync(session: Session) -> None:
            with override(REASON):
                session.get_one(async_message, 2).status = "READY"
                session.flush()

        async def work() -> None:
            async with AsyncSession(async_engine) as session:
                await session.run_sync(sync)

        with operation("Repair") as op:
            run(work())
        assert op.overridden == {BACK: 1}

    def test_a_new_row_may_start_anywhere(self, async_engine: AsyncEngine, async_message: Any) -> None:
        async def work() -> None:
            async with override(REASON), AsyncSession(async_engine) as session:
                session.add(async_message(id=3, status="COMPLETED"))
                await session.commit()

        with operation("Repair") as op:
            run(work())
        assert op.overridden == {(None, "COMPLETED"): 1}


class TestCallbacks:
    def test_a_callback_of_a_loop_is_not_inside(self) -> None:
        """Neither of one that runs in the block, nor of one around which the block is."""

        async def look(in_task: bool) -> list[Any]:
            seen: list[Any] = []
            with override("of the task") if in_task else contextlib.nullcontext():
                asyncio.get_running_loop().call_soon(lambda: seen.append(current_override()))
                await asyncio.sleep(0.01)
            return seen

        assert asyncio.run(look(True)) == [None]
        with override(REASON):
            assert asyncio.run(look(False)) == [None]
