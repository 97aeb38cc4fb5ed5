"""``Move.place``: the line of the application that a move came from, and never one of a library."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, Transition, TransitionTable, guard, override
from statekit.observe.hook import subscribe
from statekit.observe.move import Move
from statekit.observe.place import place
from tests.guards.inbox import fill, message_class, new_base
from tests.support.databases import Databases, all_async_backends, all_sync_backends, run

PROMOTE = TransitionTable(Transition("READY", "PROMOTED", event="promote"), "PROMOTED → COMPLETED", initial="READY")


@pytest.fixture
def moves() -> Iterator[list[Move]]:
    """Return the list to which each move is added that the hook hears of."""
    heard: list[Move] = []
    stop = subscribe(heard.extend)
    yield heard
    stop()


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    message = message_class(on_illegal="observe")
    fill(engine, message, "COMPLETED", "COMPLETED")
    return message


def line(function: Callable[..., Any], number: int) -> str:
    """Return how a line of a function is named, counted from its ``def``."""
    return f"{__name__}:{function.__code__.co_firstlineno + number} in {function.__qualname__}"


def flush(session: Session, message: Any) -> None:
    session.get_one(message, 1).status = "READY"
    session.flush()


def commit(session: Session, message: Any) -> None:
    session.get_one(message, 1).status = "READY"
    session.commit()


def query(session: Session, message: Any) -> None:
    session.get_one(message, 1).status = "READY"
    session.scalars(sa.select(message)).all()


def legacy_query(session: Session, message: Any) -> None:
    session.get_one(message, 1).status = "READY"
    session.query(message).count()


def new_row(session: Session, message: Any) -> None:
    session.add(message(id=3, status="COMPLETED"))
    session.flush()


def update(session: Session, message: Any) -> None:
    session.execute(sa.update(message).where(message.id == 1).values(status="READY"))


def bulk_update(session: Session, message: Any) -> None:
    rows = [{"id": number, "status": "READY"} for number in (1, 2)]
    session.execute(sa.update(message), rows)


def bulk_mappings(session: Session, message: Any) -> None:
    rows = [{"id": number, "status": "READY"} for number in (1, 2)]
    session.bulk_update_mappings(message, rows)


def query_update(session: Session, message: Any) -> None:
    session.query(message).update({message.status: "READY"})


def core_update(session: Session, message: Any) -> None:
    connection = session.connection()
    connection.execute(sa.update(message.__table__).values(status="READY"))


def core_insert(session: Session, message: Any) -> None:
    connection = session.connection()
    connection.execute(sa.insert(message.__table__).values(id=3, status="COMPLETED"))


def over_several_lines(session: Session, message: Any) -> None:
    session.execute(
        sa.update(message)
        .where(message.id == 1)
        .values(status="READY")
    )  # fmt: skip


class Job:
    def run(self, session: Session, message: Any) -> None:
        session.get_one(message, 1).status = "READY"
        session.flush()


ALL = [
    (flush, 2), (commit, 2), (query, 2), (legacy_query, 2), (new_row, 2), (update, 1), (bulk_update, 2),
    (bulk_mappings, 2), (query_update, 1), (core_update, 2), (core_insert, 2), (over_several_lines, 1),
]  # fmt: skip


@all_sync_backends
class TestTheLineOf:
    @pytest.mark.parametrize(("write", "number"), ALL, ids=[write.__name__ for write, _ in ALL])
    def test_each_way_to_write(
        self, engine: sa.Engine, message: Any, moves: list[Move], write: Callable[..., None], number: int
    ) -> None:
        with Session(engine) as session:
            write(session, message)
        assert {move.place for move in moves} == {line(write, number)}

    def test_a_method_names_its_class(self, engine: sa.Engine, message: Any, moves: list[Move]) -> None:
        with Session(engine) as session:
            Job().run(session, message)
        assert [move.place for move in moves] == [line(Job.run, 2)]

    def test_a_commit_at_the_end_of_a_block_is_that_of_its_with(
        self, engine: sa.Engine, message: Any, moves: list[Move]
    ) -> None:
        def block() -> None:
            with Session(engine) as session, session.begin():
                session.get_one(message, 1).status = "READY"

        block()
        assert [move.place for move in moves] == [line(block, 1)]

    def test_a_listener_that_writes_is_its_own(self, engine: sa.Engine, message: Any, moves: list[Move]) -> None:
        def listener(mapper: Any, connection: sa.Connection, target: Any) -> None:
            connection.execute(sa.update(message.__table__).where(message.id == 2).values(status="READY"))

        event.listen(message, "before_update", listener)
        with Session(engine) as session:
            session.get_one(message, 1).subject = "changed"
            session.flush()
        assert [move.place for move in moves] == [line(listener, 1)]

    def test_a_thread_is_that_of_its_function(self, engine: sa.Engine, message: Any, moves: list[Move]) -> None:
        def work() -> None:
            with Session(engine) as session:
                flush(session, message)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert [move.place for move in moves] == [line(flush, 2)]

    def test_there_is_none_in_a_thread_that_runs_nothing_of_the_application(
        self, engine: sa.Engine, message: Any, moves: list[Move]
    ) -> None:
        with Session(engine) as session:
            session.get_one(message, 1).status = "READY"
            thread = threading.Thread(target=session.flush)
            thread.start()
            thread.join()
        assert [move.place for move in moves] == [None]


@all_sync_backends
class TestWhichMovesHaveOne:
    def test_a_blocked_one_has(self, engine: sa.Engine, moves: list[Move]) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session, pytest.raises(IllegalTransition):
            flush(session, message)
        assert [(move.kind, move.place) for move in moves] == [("blocked", line(flush, 2))]

    def test_a_skipped_one_has(self, engine: sa.Engine, moves: list[Move]) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "COMPLETED")
        with Session(engine) as session:
            update(session, message)
        assert [(move.kind, move.place) for move in moves] == [("blocked", line(update, 1))]

    def test_an_overridden_one_has(self, engine: sa.Engine, moves: list[Move]) -> None:
        message = message_class()
        fill(engine, message, "COMPLETED")
        with Session(engine) as session, override("wrong queue"):
            flush(session, message)
        assert [(move.kind, move.place) for move in moves] == [("overridden", line(flush, 2))]

    def test_a_legal_one_has_none(self, engine: sa.Engine, moves: list[Move]) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.flush()
        assert [(move.kind, move.place) for move in moves] == [("allowed", None)]


@all_sync_backends
class TestAnEvent:
    @pytest.fixture
    def letter(self, engine: sa.Engine) -> Any:
        class Letter(new_base()):  # type: ignore[misc]
            __tablename__ = "letter"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), default="READY")

        guard(Letter.status, PROMOTE)
        fill(engine, Letter)
        with Session(engine) as session, override("as it is to be"):
            session.add(Letter(id=1, status="COMPLETED"))
            session.commit()
        return Letter

    def test_that_is_refused_is_where_it_is_called(self, engine: sa.Engine, letter: Any, moves: list[Move]) -> None:
        def call(one: Any) -> None:
            one.promote()

        moves.clear()
        with Session(engine) as session, pytest.raises(IllegalTransition):
            call(session.get_one(letter, 1))
        assert [move.place for move in moves] == [line(call, 1)]

    def test_that_is_overridden_is_where_it_is_flushed(self, engine: sa.Engine, letter: Any, moves: list[Move]) -> None:
        def call(session: Session) -> None:
            session.get_one(letter, 1).promote()
            session.flush()

        moves.clear()
        with Session(engine) as session, override("wrong queue"):
            call(session)
        assert [move.place for move in moves] == [line(call, 2)]


async def flush_async(session: AsyncSession, message: Any) -> None:
    (await session.get_one(message, 1)).status = "READY"
    await session.flush()


async def update_async(session: AsyncSession, message: Any) -> None:
    await session.execute(sa.update(message).where(message.id == 1).values(status="READY"))


async def core_async(session: AsyncSession, message: Any) -> None:
    connection = await session.connection()
    await connection.execute(sa.update(message.__table__).values(status="READY"))


async def query_async(session: AsyncSession, message: Any) -> None:
    (await session.get_one(message, 1)).status = "READY"
    await session.scalars(sa.select(message))


async def sync_in_async(session: AsyncSession, message: Any) -> None:
    await session.run_sync(flush, message)


ASYNC = [(flush_async, 2), (update_async, 1), (core_async, 2), (query_async, 2)]


@all_async_backends
class TestAsyncCode:
    """SQLAlchemy does its work in a greenlet there, whose frames do not lead to the caller's."""

    @pytest.fixture
    def message(self, async_engine: AsyncEngine, databases: Databases) -> Any:
        message = message_class(on_illegal="observe")
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        fill(engine, message, "COMPLETED", "COMPLETED")
        return message

    @pytest.mark.parametrize(("write", "number"), ASYNC, ids=[write.__name__ for write, _ in ASYNC])
    def test_each_way_to_write(
        self, async_engine: AsyncEngine, message: Any, moves: list[Move], write: Callable[..., Any], number: int
    ) -> None:
        async def work() -> None:
            async with AsyncSession(async_engine) as session:
                await write(session, message)

        run(work())
        assert {move.place for move in moves} == {line(write, number)}

    def test_a_sync_function_is_named_itself(self, async_engine: AsyncEngine, message: Any, moves: list[Move]) -> None:
        async def work() -> None:
            async with AsyncSession(async_engine) as session:
                await sync_in_async(session, message)

        run(work())
        assert [move.place for move in moves] == [line(flush, 2)]

    def test_each_task_has_its_own(self, async_engine: AsyncEngine, message: Any, moves: list[Move]) -> None:
        async def work(write: Callable[..., Any]) -> None:
            async with AsyncSession(async_engine) as session:
                await write(session, message)

        async def both() -> None:
            await asyncio.gather(work(flush_async), work(update_async))

        run(both())
        assert {move.place for move in moves} == {line(flush_async, 2), line(update_async, 1)}


SCRIPT = """\
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column
from statekit import TransitionTable, guard
from statekit.observe.hook import subscribe

class Base(DeclarativeBase):
    pass

class Message(Base):
    __tablename__ = "message"
    id = mapped_column(sa.Integer, primary_key=True)
    status = mapped_column(sa.String(20))

guard(Message.status, TransitionTable("READY → PROMOTED", initial="READY"), on_illegal="observe")
subscribe(lambda moves: print(*(move.place for move in moves)))
engine = sa.create_engine("sqlite://")
Base.metadata.create_all(engine)

def work(session):
    session.add(Message(id=1, status="PROMOTED"))
    session.flush()

with Session(engine) as session:
    work(session)
    session.get(Message, 1).status = "READY"
    session.flush()
"""
IN_WORK, AT_THE_END = "21 in work", "26 in <module>"


class TestAScript:
    def python(self, *arguments: str, folder: Path, text: str | None = None) -> list[str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_is_named_by_its_file(self, tmp_path: Path) -> None:
        (tmp_path / "job.py").write_text(SCRIPT, encoding="utf-8")
        assert self.python("job.py", folder=tmp_path) == [f"job.py:{IN_WORK}", f"job.py:{AT_THE_END}"]

    def test_in_a_folder_is_named_by_its_file_alone(self, tmp_path: Path) -> None:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "job.py").write_text(SCRIPT, encoding="utf-8")
        assert self.python("jobs/job.py", folder=tmp_path) == [f"job.py:{IN_WORK}", f"job.py:{AT_THE_END}"]

    def test_that_is_run_as_a_module_is_named_as_where_it_is_imported(self, tmp_path: Path) -> None:
        (tmp_path / "job.py").write_text(SCRIPT, encoding="utf-8")
        assert self.python("-m", "job", folder=tmp_path) == [f"job:{IN_WORK}", f"job:{AT_THE_END}"]

    def test_that_is_imported_is_named_by_its_module(self, tmp_path: Path) -> None:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "job.py").write_text(SCRIPT, encoding="utf-8")
        lines = self.python("-c", "import jobs.job", folder=tmp_path)
        assert lines == [f"jobs.job:{IN_WORK}", f"jobs.job:{AT_THE_END}"]

    @pytest.mark.parametrize("name", ["profile", "queue", "calendar"])
    def test_in_a_package_may_have_the_name_of_a_module_of_pythons_own(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / f"{name}.py").write_text(SCRIPT, encoding="utf-8")
        lines = self.python("-c", f"import app.{name}", folder=tmp_path)
        assert lines == [f"app.{name}:{IN_WORK}", f"app.{name}:{AT_THE_END}"]

    def test_from_standard_input_is_named_so(self, tmp_path: Path) -> None:
        lines = self.python("-", folder=tmp_path, text=SCRIPT)
        assert lines == [f"<stdin>:{IN_WORK}", f"<stdin>:{AT_THE_END}"]


class TestWhoIsAsked:
    """:func:`place` itself."""

    def asks(self, name: str | None, file: str = "/srv/app/made.py") -> Any:
        """Return what it says in code of a module with this name."""
        namespace: dict[str, Any] = {} if name is None else {"__name__": name}
        exec(compile("def asks(place):\n    return place()\n", file, "exec"), namespace)
        return namespace["asks"](place)

    def test_is_who_calls(self) -> None:
        def asks() -> Any:
            return place()

        assert asks() == line(asks, 1)

    @pytest.mark.parametrize(
        "name",
        ["sqlalchemy.orm.session", "statekit.guards.flush", "transitions.core", "flask_sqlalchemy.session", "sqlmodel",
         "asyncio.runners", "threading", "contextlib"],
    )  # fmt: skip
    def test_is_not_a_library(self, name: str) -> None:
        assert self.asks(name) == line(self.asks.__func__, 4)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["sqlalchemy_app.jobs", "statekit_demo", "transitions_app", "my.sqlalchemy.jobs"])
    def test_is_not_a_library_by_a_name_that_only_begins_alike(self, name: str) -> None:
        assert self.asks(name) == f"{name}:2 in asks"

    def test_is_a_file_where_the_code_belongs_to_no_module(self) -> None:
        assert self.asks(None) == "made.py:2 in asks"

    def test_is_a_file_where_the_code_is_the_main_module(self) -> None:
        assert self.asks("__main__") == "made.py:2 in asks"

    def test_is_a_file_also_where_it_lies_on_windows(self) -> None:
        assert self.asks("__main__", r"C:\app\made.py") == "made.py:2 in asks"

    def test_is_nobody_where_only_libraries_are(self) -> None:
        heard: list[Any] = []

        thread = threading.Thread(target=ModuleCaller(heard))
        thread.start()
        thread.join()
        assert heard == [None]


class ModuleCaller:
    """Calls :func:`place` from code of SQLAlchemy's name, so that nothing of a test's is in between."""

    def __new__(cls, heard: list[Any]) -> Any:
        module = ModuleType("sqlalchemy.made")
        module.__dict__.update(place=place, heard=heard)
        exec("def call():\n    heard.append(place())\n", module.__dict__)
        return module.call
