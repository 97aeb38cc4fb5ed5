"""Several workers on one bulk transition, amid others that write to the same rows: none twice, none left out."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import transition_all
from statekit.bulk import jobs, limits, prepare
from tests.ledger.books import entries, inbox
from tests.races.bulk_workers import (
    HELD,
    Process,
    disturb,
    doubled,
    has_stopped,
    held,
    keep_record,
    record,
    work_on,
)
from tests.support.databases import Databases, on_postgresql

WORKERS, ROWS, ROUNDS = 4, 300, 40
BUDGET = dt.timedelta(seconds=30)

each_level = pytest.mark.parametrize(
    ("backend", "level"),
    [
        ("sqlite", "SERIALIZABLE"),
        ("psycopg", "READ COMMITTED"),
        ("psycopg", "REPEATABLE READ"),
        ("psycopg", "SERIALIZABLE"),
    ],
)


def begun(engine: sa.Engine, rows: int = ROWS, **options: Any) -> tuple[Any, str]:
    """Return the class of messages, and the token of a job that is to move them all."""
    message = inbox(engine, *["READY"] * rows, **options)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:  # new messages come after those that were given a number
            connection.exec_driver_sql(f"SELECT setval('message_id_seq', {rows})")
    keep_record(engine)
    return message, prepare(engine, message.status, "SPAM_REVIEW", operation="Spam capture").job


def left(engine: sa.Engine) -> list[int]:
    """Return the messages that might still move."""
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT id FROM message WHERE status = 'READY'")))


def retried(engine: sa.Engine) -> dict[str, int]:
    """Return how often the ledger says that a batch was tried again, by reason."""
    total: dict[str, int] = {}
    for kind, number, detail in entries(engine, "kind", "number", "detail"):
        if kind == "retry":
            total[detail["reason"]] = total.get(detail["reason"], 0) + number
    return total


@each_level
def test_workers_amid_others_double_no_row_and_leave_none_out(databases: Databases, backend: str, level: str) -> None:
    plain = databases.engine(backend, poolclass=sa.NullPool)
    engine = databases.engine(backend, poolclass=sa.NullPool, isolation_level=level)
    message, job = begun(plain)
    with held(databases.engine(backend, poolclass=sa.NullPool)):  # before anybody can move it
        workers = [Process(engine, work_on(message, job)) for _ in range(WORKERS)]
        others = [Process(plain, disturb(message, seed, ROUNDS)) for seed in range(2)]
        for each in others:
            each.wait()
        released_at = time.monotonic()
    told = [each.wait() for each in workers]

    moves = record(plain)
    by_job = [identity for identity, target in moves if target == "SPAM_REVIEW"]
    assert doubled(moves) == []
    (row,) = jobs(plain)
    assert left(plain) == [], row
    assert (row.state, row.done, row.total) == ("finished", len(by_job), ROWS)
    assert all(each.finished_at > released_at for each in told)
    assert all(before >= after for each in told for before, after in pairwise(each.remaining))
    of_callbacks = sorted(identity for each in told for identity in each.moved if identity != HELD)
    assert of_callbacks == sorted(identity for identity in by_job if identity != HELD)
    assert row.retries == sum(retried(plain).values())
    # else the test has shown nothing
    assert len([each for each in told if each.moved]) > 1
    assert {target for _, target in moves} == {"SPAM_REVIEW", "PROMOTED"}
    assert max(by_job) > ROWS


@on_postgresql
def test_a_lock_timeout_is_tried_again_and_the_ledger_says_so(engine: sa.Engine) -> None:
    message, job = begun(engine, 3)
    with held(engine):
        result = transition_all(engine, message.status, "SPAM_REVIEW", job=job, budget=dt.timedelta(seconds=2))
        assert (result.done, result.remaining, result.finished) == (2, 1, False)
        assert retried(engine) == {"lock time-out": result.retries}
        assert result.retries > 0
    assert transition_all(engine, message.status, "SPAM_REVIEW", job=job).finished


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_serialization_failure_is_tried_again_and_the_ledger_says_so(databases: Databases, level: str) -> None:
    engine = databases.engine("psycopg", isolation_level=level)
    message, job = begun(engine, 3)
    has_met = False

    def meet(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        """Write to the job, between the batch's first look at the database and its own write."""
        nonlocal has_met
        if text.startswith("UPDATE message") and not has_met:
            has_met = True
            with databases.engine("psycopg").begin() as other:
                other.execute(sa.text("UPDATE statekit_job SET seen_at = seen_at"))

    sa.event.listen(engine, "before_cursor_execute", meet)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=job)
    assert (result.done, result.finished, result.retries) == (3, True, 1)
    assert retried(engine) == {"serialization failure": 1}


@on_postgresql
def test_a_deadlock_is_tried_again_and_the_ledger_says_so(engine: sa.Engine, databases: Databases) -> None:
    """The other one holds what the batch's write asks for, and waits for a row that the batch holds."""
    message, job = begun(engine, 3)
    other = databases.engine("psycopg").connect()
    other.exec_driver_sql("SET deadlock_timeout = '60s'")  # it is the batch that finds out
    other.exec_driver_sql("SELECT pg_advisory_lock(7)")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM set_config(''deadlock_timeout'', ''20ms'', true); PERFORM pg_advisory_xact_lock(7); "
            "RETURN NEW; END'"
        )
        connection.exec_driver_sql("CREATE TRIGGER ask BEFORE UPDATE OF status ON message EXECUTE FUNCTION ask()")

    def wait_for_row() -> None:
        other.exec_driver_sql("UPDATE message SET subject = 'x' WHERE id = 2")
        other.exec_driver_sql("SELECT pg_advisory_unlock(7)")
        other.rollback()

    thread = threading.Thread(target=wait_for_row)

    def meet(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        if text.startswith("UPDATE message SET status") and not thread.ident:
            thread.start()
            with databases.engine("psycopg").connect() as third:
                while not third.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                    time.sleep(0.005)

    sa.event.listen(engine, "before_cursor_execute", meet)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=job)
    thread.join()
    other.close()
    assert (result.done, result.finished) == (3, True)
    assert retried(engine) == {"deadlock": 1}


@pytest.mark.parametrize("before", ["UPDATE message", "SELECT statekit_job"], ids=["rows held", "job held"])
def test_a_worker_that_hangs_in_a_transaction_keeps_nobody_out_for_ever(
    databases: Databases, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE", dt.timedelta(milliseconds=300))  # it is a minute
    engine = databases.engine("psycopg", poolclass=sa.NullPool)
    message, job = begun(engine, 15)

    def go_on() -> tuple[int, bool]:
        result = transition_all(engine, message.status, "SPAM_REVIEW", job=job, budget=BUDGET)
        return result.done, result.finished

    def hang(engine: sa.Engine) -> tuple[int, bool]:
        has_hung = has_written = False

        def stop(connection: Any, cursor: Any, text: str, *_: Any) -> None:
            nonlocal has_hung, has_written
            if text.startswith(before) and not has_hung and (has_written or before.startswith("UPDATE")):
                has_hung = True
                os.kill(os.getpid(), signal.SIGSTOP)
            has_written = has_written or text.startswith("UPDATE message")

        sa.event.listen(engine, "before_cursor_execute", stop)
        return go_on()

    hanging = Process(engine, hang)
    assert has_stopped(hanging)
    try:
        assert go_on() == (15, True)
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    assert hanging.wait() == (15, True)
    assert sorted(record(engine)) == [(number, "SPAM_REVIEW") for number in range(1, 16)]
