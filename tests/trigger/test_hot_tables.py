"""A table that many write to, and one transaction that stays open: nobody else waits until a migration has its lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from statekit.errors import IllegalTransition
from statekit.guards import refused
from statekit.trigger import StateTrigger
from statekit.trigger.catalog import installed

refused.install()  # as the first guard of a process does

WRITERS = 4
MOVES = [("READY", "PROMOTED"), ("PROMOTED", "READY")]
PATIENCE = 30.0
"""Seconds after which a test says that it waits for nothing: no busy machine needs as long."""


def trigger(*more: tuple[str, str], inline: bool = False) -> StateTrigger:
    """Return the table's trigger, with more moves."""
    return StateTrigger("message", "status", [*MOVES, *more], initial=["READY"], inline=inline, states=["COMPLETED"])


RULE = trigger()
NEW_RULE = trigger(("PROMOTED", "COMPLETED"))


@pytest.fixture
def engine(postgres_engine: sa.Engine) -> sa.Engine:
    """Return an engine on a table with a message for each writer, and one for the transaction that stays open."""
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE message (id integer PRIMARY KEY, status text NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO message SELECT n, 'READY' FROM generate_series(0, {WRITERS}) n")
    return postgres_engine


class Busy:
    """Writers that update one row after another, each in a transaction of its own, for the length of a block."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.written = [0] * WRITERS
        self._ended = threading.Event()

    def __enter__(self) -> Busy:
        self._pool = ThreadPoolExecutor(WRITERS)
        self._writers = [self._pool.submit(self._write, number) for number in range(WRITERS)]
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        for writer in self._writers:
            writer.result()

    def _write(self, number: int) -> None:
        engine = sa.create_engine(self._engine.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        move = sa.text(
            "UPDATE message SET status = CASE status WHEN 'READY' THEN 'PROMOTED' ELSE 'READY' END WHERE id = :id"
        )
        with engine.connect() as connection:
            while not self._ended.is_set():
                connection.execute(move, {"id": number + 1})
                self.written[number] += 1

    def go_on(self) -> bool:
        """Wait until each writer has written 20 times more, and return whether all of them have."""
        before = list(self.written)
        return wait_until(lambda: all(now >= then + 20 for now, then in zip(self.written, before, strict=True)))


def wait_until(is_so: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Wait until something is so, and return whether it has become so."""
    until = time.monotonic() + patience
    while not (so := is_so()) and time.monotonic() < until:
        time.sleep(0.005)
    return so


@contextmanager
def open_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Have a transaction open that has written to the table."""
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE message SET status = 'PROMOTED' WHERE id = 0")
        yield connection
        connection.commit()


class Migration:
    """A migration that runs in a thread of its own, in one transaction, from its start on."""

    def __init__(self, engine: sa.Engine, statements: tuple[str, ...]) -> None:
        self._engine, self._statements = engine, statements
        self._pool = ThreadPoolExecutor(1)
        self._pid: Future[int] = Future()

    def __enter__(self) -> Migration:
        return self

    def start(self) -> None:
        self._done = self._pool.submit(self._run)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def _run(self) -> None:
        with self._engine.begin() as connection:
            self._pid.set_result(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            for statement in self._statements:
                connection.exec_driver_sql(statement)

    def waits(self) -> bool:
        """Wait until the migration waits for a lock, and return whether it does."""
        query = sa.text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
        pid = self._pid.result(PATIENCE)

        def is_waiting() -> bool:
            with self._engine.connect() as connection:
                return bool(connection.execute(query, {"pid": pid}).scalar_one())

        return wait_until(is_waiting)

    @property
    def is_done(self) -> bool:
        return self._done.done()

    def finish(self) -> None:
        """Wait until the migration is committed."""
        self._done.result(PATIENCE)


def execute(engine: sa.Engine, statements: tuple[str, ...]) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rules(engine: sa.Engine) -> list[StateTrigger]:
    """Return the triggers that the database has, all of them sound."""
    with engine.connect() as connection:
        found = installed(connection)
    assert not [each.problems for each in found if each.problems]
    return [each.trigger for each in found]


# What stands in the database before, what a migration executes, and what then stands there. The last two need a lock:
# one that lets nobody write, and one that lets nobody read either.
LOCKING = {
    "a first installation": ((), RULE.create_sql("postgresql"), [RULE]),
    "a change of the form": (
        RULE.create_sql("postgresql"),
        trigger(inline=True).replace_sql(RULE, "postgresql"),
        [trigger(inline=True)],
    ),
    "a removal": (RULE.create_sql("postgresql"), RULE.drop_sql("postgresql"), []),
}


@pytest.mark.parametrize(("before", "statements", "after"), LOCKING.values(), ids=LOCKING)
class TestWhatNeedsALock:
    """It waits for the open transaction, and lets everybody else go first."""

    def test_the_busy_writers_go_on(
        self, engine: sa.Engine, before: tuple[str, ...], statements: tuple[str, ...], after: list[StateTrigger]
    ) -> None:
        """Whoever waits for a lock holds up all who come later: not for long, and never until the lock is had."""
        execute(engine, before)
        with Busy(engine) as busy, Migration(engine, statements) as migration, open_transaction(engine):
            migration.start()
            assert migration.waits()
            assert busy.go_on()
            assert not migration.is_done  # so that they went on while it was waiting

    def test_it_is_done_when_the_open_transaction_has_ended(
        self, engine: sa.Engine, before: tuple[str, ...], statements: tuple[str, ...], after: list[StateTrigger]
    ) -> None:
        execute(engine, before)
        with Busy(engine), Migration(engine, statements) as migration:
            with open_transaction(engine):
                migration.start()
                migration.waits()
            migration.finish()
        assert rules(engine) == after


class TestARuleThatChanges:
    """It needs no lock that a writer could hold."""

    def test_it_is_done_while_a_transaction_is_open(self, engine: sa.Engine) -> None:
        execute(engine, RULE.create_sql("postgresql"))
        with Busy(engine), Migration(engine, NEW_RULE.replace_sql(RULE, "postgresql")) as new, open_transaction(engine):
            new.start()
            new.finish()
        assert rules(engine) == [NEW_RULE]

    def test_the_open_transaction_is_held_to_the_new_rule(self, engine: sa.Engine) -> None:
        execute(engine, NEW_RULE.create_sql("postgresql"))
        with engine.connect() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'PROMOTED' WHERE id = 0")
            execute(engine, RULE.replace_sql(NEW_RULE, "postgresql"))
            with pytest.raises(IllegalTransition):
                connection.exec_driver_sql("UPDATE message SET status = 'COMPLETED' WHERE id = 0")

    def test_two_that_change_at_once_come_one_after_the_other(self, engine: sa.Engine) -> None:
        """Two that replace the same function at the same moment would fail."""
        execute(engine, RULE.create_sql("postgresql"))
        statements = (*NEW_RULE.replace_sql(RULE, "postgresql"), *RULE.replace_sql(NEW_RULE, "postgresql"))
        with Busy(engine), Migration(engine, statements * 10) as one, Migration(engine, statements * 10) as other:
            one.start()
            other.start()
            one.finish()
            other.finish()
        assert rules(engine) == [RULE]


def test_a_migration_leaves_lock_timeout_as_it_was(engine: sa.Engine) -> None:
    """What else the migration does is not to fail after 100 ms."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SET lock_timeout = '7s'")
        for statement in (*RULE.create_sql("postgresql"), *RULE.drop_sql("postgresql")):
            connection.exec_driver_sql(statement)
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "7s"
