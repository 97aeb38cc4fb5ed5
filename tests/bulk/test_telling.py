"""What is said of a bulk transition: to a callback, in the log, in the ledger; and what slows it down on purpose."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import bulk, transition_all
from statekit.bulk import Batch, BulkResult, transition_batches
from tests.bulk.costly import make_costly, on_both, on_psycopg, unhurried
from tests.guards.inbox import stored
from tests.ledger.books import entries, inbox
from tests.support.databases import Databases


def spam(engine: sa.Engine, message: Any, **options: Any) -> BulkResult:
    return transition_all(engine, message.status, "SPAM_REVIEW", operation="Spam capture", **options)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("[SELF-HEAL] ") for record in caplog.records if record.name == "statekit"]


# --- progress ---------------------------------------------------------------------------------------------------------


@on_both
@unhurried
def test_progress_is_told_before_the_first_batch_and_after_each(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    told: list[str] = []
    spam(engine, message, progress=lambda result: told.append(str(result)))
    assert told == [
        "Captured 0 / 100 (100 remaining)",
        "Captured 10 / 100 (90 remaining)",
        "Captured 30 / 100 (70 remaining)",
        "Captured 70 / 100 (30 remaining)",
        "Captured 100 / 100 (0 remaining)",
    ]


@on_both
@unhurried
def test_an_iterator_gives_the_same_and_the_end(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 30)
    results = list(transition_batches(engine, message.status, "SPAM_REVIEW"))
    assert [(result.done, result.finished) for result in results] == [(0, False), (10, False), (30, False), (30, True)]


@on_both
@unhurried
def test_a_callback_has_the_rows_of_a_batch_after_its_commit(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 30)
    told: list[tuple[list[Any], int]] = []

    def tell(batch: Batch) -> None:
        in_database = stored(engine, message).count("SPAM_REVIEW")
        told.append((sorted(identity[0] for identity in batch.identities), in_database))

    spam(engine, message, on_batch=tell)
    assert told == [(list(range(1, 11)), 10), (list(range(11, 31)), 30)]


def test_the_estimate_comes_with_the_first_batch(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 200)
    make_costly(sqlite_engine, 0.02)
    first, second, *_ = transition_batches(sqlite_engine, message.status, "SPAM_REVIEW")
    assert first.estimate is None
    assert second.estimate is not None
    assert second.estimate > dt.timedelta(seconds=200 * 0.02 / 2)


def test_the_estimate_is_there_before_the_first_row_if_there_was_such_a_job(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 100)
    spam(sqlite_engine, message, where=message.id <= 50)
    begun = bulk.prepare(sqlite_engine, message.status, "SPAM_REVIEW", operation="Spam capture")
    assert (begun.done, begun.estimate is not None) == (0, True)


def test_another_operation_says_nothing_about_the_estimate(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 100)
    spam(sqlite_engine, message, where=message.id <= 50)
    begun = bulk.prepare(sqlite_engine, message.status, "SPAM_REVIEW", operation="another one")
    assert begun.estimate is None


# --- the log ----------------------------------------------------------------------------------------------------------


@unhurried
def test_the_log_says_what_is_done(memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    message = inbox(memory_engine, *["READY"] * 30)
    caplog.set_level(logging.INFO, "statekit")
    spam(memory_engine, message)
    assert lines(caplog) == [
        "Spam capture: 30 rows to move to SPAM_REVIEW",
        "Batch 1/3 completed: 10 rows captured",
        "Batch 2/2 completed: 20 rows captured",
        "Operation complete: Spam capture: 30 rows processed",
    ]


@on_both
def test_what_will_not_fit_is_a_warning(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    message = inbox(engine, *["READY"] * 400)
    make_costly(engine, 0.01)
    caplog.set_level(logging.INFO, "statekit")
    result = spam(engine, message, budget=dt.timedelta(seconds=1))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    text = warning.getMessage()
    assert text.startswith(
        "[SELF-HEAL] Operation would exceed the time-out: batching. Spam capture: 400 rows, estimated"
    )
    assert "budget 1 s" in text
    assert (warning.statekit_total, warning.statekit_job) == (400, result.job)  # type: ignore[attr-defined]
    assert lines(caplog)[-1] == f"Prevented time-out by batching: Spam capture: {result}"


def test_what_fits_is_no_warning(memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    message = inbox(memory_engine, *["READY"] * 30)
    spam(memory_engine, message)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- the ledger -------------------------------------------------------------------------------------------------------


@on_both
def test_a_time_out_that_was_prevented_is_in_the_ledger_once(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 300)
    make_costly(engine, 0.01)
    result = spam(engine, message, budget=dt.timedelta(seconds=1))
    spam(engine, message, budget=dt.timedelta(seconds=1), job=result.job)
    found = [row for row in entries(engine, "kind", "operation", "number", "detail") if row[0] != "retry"]
    ((kind, operation, number, detail),) = found
    assert (kind, operation, number) == ("batched", "Spam capture", 1)
    assert (detail["total"], detail["budget"], detail["job"]) == (300, 1.0, result.job)
    assert detail["estimate"] > 1


@on_psycopg
def test_retries_are_in_the_ledger(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1 FROM message WHERE id = 7 FOR UPDATE")
        timer = threading.Timer(4, other.rollback)
        timer.start()
        result = spam(engine, message, budget=dt.timedelta(seconds=10))
        timer.join()
    assert result.finished
    assert result.retries > 0
    of_kind = [row for row in entries(engine, "kind", "number", "detail") if row[0] == "retry"]
    assert sum(row[1] for row in of_kind) == result.retries
    assert {row[2]["reason"] for row in of_kind} == {"lock time-out"}


@on_psycopg
def test_retries_that_came_to_nothing_are_in_the_ledger_too(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1 FROM message FOR UPDATE")
        result = spam(engine, message, budget=dt.timedelta(seconds=1.5))
    assert result.retries > 0
    assert sum(row[1] for row in entries(engine, "kind", "number") if row[0] == "retry") == result.retries
    assert bulk.jobs(engine)[0].retries == result.retries


@on_psycopg
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_serialization_failures_are_tried_again(engine: sa.Engine, level: Any) -> None:
    message = inbox(engine, *["READY"] * 20)
    strict = engine.execution_options(isolation_level=level)
    is_done = threading.Event()

    def interfere(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        """Change a row that the snapshot of the batch has, before the batch holds it."""
        if "SKIP LOCKED" in statement and not is_done.is_set():
            is_done.set()
            with engine.begin() as other:
                other.exec_driver_sql("UPDATE message SET subject = 'new' WHERE id = 5")

    sa.event.listen(engine, "before_cursor_execute", interfere)
    result = spam(strict, message)
    sa.event.remove(engine, "before_cursor_execute", interfere)
    assert (result.done, result.finished) == (20, True)
    assert [row[1]["reason"] for row in entries(engine, "kind", "detail") if row[0] == "retry"] == [
        "serialization failure"
    ]


# --- slower on purpose ------------------------------------------------------------------------------------------------


def test_no_more_rows_a_second_than_asked_for(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 60)
    start = time.monotonic()
    result = spam(sqlite_engine, message, rate=50)
    taken = time.monotonic() - start
    assert result.finished
    assert taken >= 1.0  # 60 rows at 50 a second, less the last batch


class Guard:
    """A pool guard that is at warning for the first few times that it is asked."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked = 0

    @property
    def state(self) -> str:
        self.asked += 1
        return "warning" if self.asked <= self.times else "normal"


def test_nothing_begins_while_the_pool_is_at_warning(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 30)
    guard = Guard(times=1_000)
    result = spam(sqlite_engine, message, pool_guard=guard, budget=dt.timedelta(seconds=0.5))
    assert guard.asked > 1
    assert (result.done, result.finished, result.stalled) == (0, False, False)


def test_it_goes_on_when_the_pool_is_normal_again(sqlite_engine: sa.Engine) -> None:
    message = inbox(sqlite_engine, *["READY"] * 30)
    assert spam(sqlite_engine, message, pool_guard=Guard(times=3)).finished


def test_others_get_their_turn_at_the_one_lock_of_sqlite(databases: Databases) -> None:
    """Without that, one who waits for 2 seconds waits in vain: the lock is taken again as soon as it is free."""
    engine = databases.engine("sqlite")
    message = inbox(engine, *["READY"] * 5_000)
    make_costly(engine, 0.002)
    other = databases.engine("sqlite", connect_args={"timeout": 2})
    done, failed = 0, []
    is_over = threading.Event()

    def write() -> None:
        nonlocal done
        while not is_over.wait(0.01):
            try:
                with other.begin() as connection:
                    connection.exec_driver_sql(
                        "INSERT INTO message (id, status, subject) VALUES (NULL, 'PROMOTED', '')"
                    )
                    done += 1
            except sa.exc.OperationalError as error:
                failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    spam(engine, message, budget=dt.timedelta(seconds=5))
    is_over.set()
    thread.join()
    assert done > 2
    assert failed == []
