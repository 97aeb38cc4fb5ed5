"""Workers of one bulk transition, and what disturbs them: processes, and a record that the database keeps by itself."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from statekit import transition_all
from statekit.bulk import Batch, BulkResult
from tests.support.databases import execute

_FORK: Any = multiprocessing.get_context("fork")
HELD = 1
"""The message that is kept from every worker until the test lets it go, so that the job cannot end before."""


class Process:
    """A fork that does some work and returns what came of it.

    Args:
        engine: that the work uses; no connection of it may be open.
        work: what it does; it is given the engine.
    """

    def __init__(self, engine: sa.Engine, work: Callable[[sa.Engine], Any]) -> None:
        self._answers, to = _FORK.Pipe(duplex=False)

        def run() -> None:
            engine.dispose(close=False)
            to.send(work(engine))
            engine.dispose()

        self._process = _FORK.Process(target=run, daemon=True)
        self._process.start()
        to.close()

    @property
    def pid(self) -> int:
        """The number that the system knows it by."""
        number: int = self._process.pid
        return number

    def wait(self, seconds: float = 60) -> Any:
        """Return what came of it.

        Args:
            seconds: how long it may take.
        """
        assert self._answers.poll(seconds), "the process does not come to an end"
        try:
            answer = self._answers.recv()
        except EOFError:
            raise AssertionError("the process has failed; its error is above") from None
        self._process.join(seconds)
        return answer


@dataclass
class Told:
    """What a worker was told.

    Attributes:
        remaining: how many rows were said to remain, result by result.
        finished_at: when it was first said that the job is finished, on the clock that all processes share.
        moved: the rows of which a callback was told.
    """

    remaining: list[int] = field(default_factory=list)
    finished_at: float = 0.0
    moved: list[int] = field(default_factory=list)


def work_on(message: Any, job: str) -> Callable[[sa.Engine], Told]:
    """Return what a worker does: call again and again, with a small budget, until the job is finished."""

    def work(engine: sa.Engine) -> Told:
        told = Told()

        def note(result: BulkResult) -> None:
            told.remaining.append(result.remaining)
            if result.finished and not told.finished_at:
                told.finished_at = time.monotonic()

        def note_batch(batch: Batch) -> None:
            told.moved += [key[0] for key in batch.identities]

        until = time.monotonic() + 50
        while not told.finished_at and time.monotonic() < until:
            result = transition_all(
                engine,
                message.status,
                "SPAM_REVIEW",
                job=job,
                budget=dt.timedelta(seconds=2),
                rate=300,
                on_batch=note_batch,
                progress=note,
            )
            note(result)
        return told

    return work


def disturb(message: Any, seed: int, rounds: int) -> Callable[[sa.Engine], None]:
    """Return what the others do: insert, move elsewhere, delete, and hold rows for a while, all in transactions."""
    table = message.__table__

    def some(connection: sa.Connection, number: int, chance: random.Random) -> list[int]:
        query = sa.select(table.c.id).where(table.c.status == "READY", table.c.id != HELD)
        known = list(connection.scalars(query))
        return sorted(chance.sample(known, min(number, len(known))))

    def once(connection: sa.Connection, what: int, chance: random.Random) -> None:
        is_sqlite = connection.dialect.name == "sqlite"
        if what == 0:
            connection.execute(sa.insert(table), [{"status": "READY", "subject": "new"} for _ in range(4)])
        elif what == 1:
            of = table.c.id.in_(some(connection, 3, chance))
            connection.execute(sa.update(table).where(of, table.c.status == "READY").values(status="PROMOTED"))
        elif what == 2:
            of = table.c.id.in_(some(connection, 1, chance))
            connection.execute(sa.delete(table).where(of, table.c.status == "READY"))
        else:  # what holds rows holds the whole file of SQLite
            of = table.c.id.in_(some(connection, 5, chance))
            connection.execute(sa.update(table).where(of).values(subject="held"))
            time.sleep(0.003 if is_sqlite else 0.03)

    def work(engine: sa.Engine) -> None:
        chance = random.Random(seed)
        for number in range(rounds):
            try:
                with engine.connect() as connection:
                    once(connection, number % 4, chance)
                    (connection.rollback if chance.random() < 0.3 else connection.commit)()
            except sa.exc.OperationalError:  # others may have to be the victim of a deadlock, or wait too long
                pass
            time.sleep(0.01)

    return work


def keep_record(engine: sa.Engine) -> None:
    """Have the database write down each move, and keep one message from moving for as long as a test wants."""
    execute(engine, "CREATE TABLE record (id INTEGER, target TEXT)", "CREATE TABLE hold (id INTEGER)")
    if engine.dialect.name == "sqlite":
        execute(
            engine,
            "CREATE TRIGGER note AFTER UPDATE ON message WHEN OLD.status IS NOT NEW.status "
            "BEGIN INSERT INTO record VALUES (NEW.id, NEW.status); END",
            "CREATE TRIGGER keep_back BEFORE UPDATE ON message WHEN NEW.id IN (SELECT id FROM hold) "
            "BEGIN SELECT RAISE(IGNORE); END",
        )
        return
    execute(
        engine,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO record VALUES (NEW.id, NEW.status); RETURN NULL; END'",
        "CREATE TRIGGER note AFTER UPDATE ON message FOR EACH ROW "
        "WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note()",
    )


def record(engine: sa.Engine) -> list[tuple[int, str]]:
    """Return each move that was really made, as the message and its target."""
    with engine.connect() as connection:
        return [(row.id, row.target) for row in connection.execute(sa.text("SELECT id, target FROM record"))]


def doubled(moves: list[tuple[int, str]]) -> list[int]:
    """Return the messages that have moved more than once."""
    return [identity for identity, number in Counter(identity for identity, _ in moves).items() if number > 1]


@contextmanager
def held(engine: sa.Engine) -> Iterator[None]:
    """Keep a message from moving: by a lock on its row, and on SQLite, where there are none, by a database trigger."""
    if engine.dialect.name == "sqlite":
        execute(engine, f"INSERT INTO hold VALUES ({HELD})")
        yield
        execute(engine, "DELETE FROM hold")
        return
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT id FROM message WHERE id = {HELD} FOR UPDATE")
        yield
        connection.rollback()


def has_stopped(process: Process, seconds: float = 30) -> bool:
    """Return whether a process was stopped by a signal before some time has passed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
        if pid:
            return os.WIFSTOPPED(status)
        time.sleep(0.01)
    return False
