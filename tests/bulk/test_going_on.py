"""A job is gone on with by whoever has its token, and is finished when nothing is left, and not before."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import StatekitError, bulk, transition_all
from statekit.bulk import BulkResult, transition_batches
from statekit.bulk.records import Records
from tests.bulk.costly import unhurried
from tests.guards.inbox import stored
from tests.ledger.books import inbox
from tests.support.databases import all_sync_backends, on_postgresql

SHORT = dt.timedelta(seconds=1)


def some(engine: sa.Engine, message: Any, number: int, **options: Any) -> BulkResult:
    """Return the result after so many batches of a call that is then given up."""
    results = transition_batches(engine, message.status, "SPAM_REVIEW", **options)
    try:
        for _ in range(number + 1):
            result = next(results)
    finally:
        results.close()  # type: ignore[attr-defined]
    return result


def execute(engine: sa.Engine, statement: str) -> None:
    """Write past every guard."""
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


@all_sync_backends
@unhurried
def test_goes_on_where_it_stopped(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    first = some(engine, message, 2)
    assert (first.done, first.remaining, first.finished) == (30, 70, False)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert (result.done, result.total, result.remaining, result.finished) == (100, 100, 0, True)


@all_sync_backends
def test_goes_on_with_the_condition_that_it_was_begun_with(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    first = some(engine, message, 1, where=message.id <= 50)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert result.finished
    assert stored(engine, message) == ["SPAM_REVIEW"] * 50 + ["READY"] * 50


@all_sync_backends
def test_the_values_of_the_condition_are_those_of_the_beginning(engine: sa.Engine) -> None:
    """``where=Message.received < now() - a month`` is another one in each call."""
    message = inbox(engine, *["READY"] * 60)
    first = some(engine, message, 1, where=message.id <= 50)
    result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id <= 60, job=first.job)
    assert (result.done, result.total, result.finished) == (50, 50, True)


@all_sync_backends
def test_another_condition_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 60)
    first = some(engine, message, 1, where=message.id <= 50)
    with pytest.raises(StatekitError, match="was begun with another condition"):
        transition_all(engine, message.status, "SPAM_REVIEW", where=message.subject == "", job=first.job)
    assert stored(engine, message).count("SPAM_REVIEW") == 10


@all_sync_backends
def test_a_condition_is_refused_where_there_was_none(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 60)
    first = some(engine, message, 1)
    with pytest.raises(StatekitError, match="another condition: where nothing"):
        transition_all(engine, message.status, "SPAM_REVIEW", where=message.id <= 50, job=first.job)


@all_sync_backends
def test_another_target_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 60)
    first = some(engine, message, 1)
    with pytest.raises(StatekitError, match="to SPAM_REVIEW, and asked for is .* to PROMOTED"):
        transition_all(engine, message.status, "PROMOTED", job=first.job)


@all_sync_backends
def test_a_token_that_is_none_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    with pytest.raises(StatekitError, match="no such job"):
        transition_all(engine, message.status, "SPAM_REVIEW", job="4711")
    assert stored(engine, message) == ["READY"]


@all_sync_backends
def test_what_is_finished_stays_so(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    first = transition_all(engine, message.status, "SPAM_REVIEW")
    execute(engine, "UPDATE message SET status = 'READY'")
    again = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert (again.done, again.finished, again.batches) == (1, True, 1)
    assert stored(engine, message) == ["READY"]


@all_sync_backends
def test_rows_that_arrive_behind_the_cursor_are_moved_and_told_apart(engine: sa.Engine) -> None:
    message = inbox(engine, "PROMOTED", *["READY"] * 40)
    first = some(engine, message, 2)
    execute(engine, "UPDATE message SET status = 'READY' WHERE id = 1")
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert (result.done, result.total, result.arrived, result.finished) == (41, 40, 1, True)
    assert set(stored(engine, message)) == {"SPAM_REVIEW"}


@all_sync_backends
def test_rows_that_others_have_moved_are_told_apart(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    first = some(engine, message, 1)
    execute(engine, "UPDATE message SET status = 'PROMOTED' WHERE id IN (30, 31)")
    execute(engine, "DELETE FROM message WHERE id = 32")
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert (result.done, result.total, result.gone, result.remaining) == (37, 40, 3, 0)
    assert result.finished


@all_sync_backends
def test_the_remaining_number_never_grows(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 200)
    results = []
    for result in transition_batches(engine, message.status, "SPAM_REVIEW"):
        execute(engine, f"INSERT INTO message (id, status, subject) VALUES ({1000 + len(results)}, 'READY', '')")
        results.append(result.remaining)
        if len(results) > 30:
            break
    assert results == sorted(results, reverse=True)


# --- locked rows ------------------------------------------------------------------------------------------------------


@on_postgresql
def test_locked_rows_are_left_out_and_swept_up(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    released = threading.Event()
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1 FROM message WHERE id IN (3, 25) FOR UPDATE")
        order: list[Any] = []

        def release(batch: bulk.Batch) -> None:
            order.extend(identity[0] for identity in batch.identities)
            if len(order) == 38 and not released.is_set():
                other.rollback()
                released.set()

        result = transition_all(engine, message.status, "SPAM_REVIEW", on_batch=release)
    assert result.finished
    assert order[-2:] == [3, 25]


@on_postgresql
def test_what_somebody_holds_is_not_said_to_be_finished(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1 FROM message WHERE id = 3 FOR UPDATE")
        result = transition_all(engine, message.status, "SPAM_REVIEW", budget=SHORT)
        assert (result.done, result.remaining, result.finished) == (19, 1, False)
    assert transition_all(engine, message.status, "SPAM_REVIEW", job=result.job).finished


@on_postgresql
def test_a_call_that_finds_only_held_rows_is_stalled(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    with engine.connect() as other:
        other.exec_driver_sql("SELECT 1 FROM message FOR UPDATE")
        result = transition_all(engine, message.status, "SPAM_REVIEW", budget=SHORT)
    assert (result.stalled, result.finished) == (True, False)


@all_sync_backends
def test_rows_that_the_database_keeps_back_are_no_endless_loop(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 30)
    if engine.dialect.name == "sqlite":
        execute(
            engine,
            "CREATE TRIGGER keeps BEFORE UPDATE ON message WHEN OLD.id % 10 = 0 BEGIN SELECT RAISE(IGNORE); END",
        )
    else:
        with engine.begin() as connection:
            connection.execute(
                sa.text(
                    "CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN IF mod(OLD.id, 10) = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$"
                )
            )
            connection.execute(
                sa.text("CREATE TRIGGER keeps BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION keeps()")
            )
    first = transition_all(engine, message.status, "SPAM_REVIEW")
    assert (first.done, first.remaining, first.finished, first.stalled) == (27, 3, False, False)
    second = transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    assert (second.done, second.remaining, second.finished, second.stalled) == (27, 3, False, True)


# --- jobs -------------------------------------------------------------------------------------------------------------


@all_sync_backends
def test_a_prepared_job_has_moved_nothing(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20, "PROMOTED")
    begun = bulk.prepare(engine, message.status, "SPAM_REVIEW", where=message.id > 0, operation="Spam capture")
    assert (begun.done, begun.total, begun.blocked, begun.remaining) == (0, 21, 1, 20)
    assert stored(engine, message).count("READY") == 20


@all_sync_backends
def test_jobs_are_listed_the_latest_first(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    first = some(engine, message, 1, operation="first", where=message.id > 0)
    second = transition_all(engine, message.status, "SPAM_REVIEW", operation="second")
    assert [(job.id, job.operation, job.state, job.done, job.remaining) for job in bulk.jobs(engine)] == [
        (second.job, "second", "finished", 30, 0),
        (first.job, "first", "waiting", 10, 30),
    ]
    assert bulk.jobs(engine)[1].condition == "message.id > 0"


@all_sync_backends
def test_a_job_runs_while_somebody_works_on_it(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    states = []
    for _ in transition_batches(engine, message.status, "SPAM_REVIEW"):
        states.append((bulk.jobs(engine)[0].state, bulk.jobs(engine)[0].workers))
    assert states[0] == ("running", 1)
    assert states[-1] == ("finished", 0)


@all_sync_backends
def test_the_lease_of_a_dead_worker_runs_out(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    first = some(engine, message, 1)
    worker = Records(None).tables.worker
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        for identity, until in [("dead", now - SHORT), ("alive", now + SHORT * 60)]:
            connection.execute(sa.insert(worker).values(id=identity, job=first.job, started_at=now, until=until))
    assert bulk.jobs(engine)[0].workers == 1
    transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    with engine.connect() as connection:
        assert connection.scalars(sa.select(worker.c.id)).all() == ["alive"]


@all_sync_backends
@unhurried
def test_a_cancelled_job_stops_after_the_batch(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    said: list[bool] = []
    result = transition_all(
        engine,
        message.status,
        "SPAM_REVIEW",
        on_batch=lambda batch: said.append(bulk.cancel(engine, batch.result.job)),
    )
    assert said == [True, False]
    assert (result.done, result.cancelled, result.finished, result.stalled) == (30, True, False, False)


@all_sync_backends
def test_a_cancelled_job_is_not_gone_on_with(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    begun = bulk.prepare(engine, message.status, "SPAM_REVIEW")
    assert bulk.cancel(engine, begun.job)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job)
    assert (result.done, result.cancelled, result.finished) == (0, True, False)
    assert stored(engine, message) == ["READY"]


@all_sync_backends
def test_what_is_finished_cannot_be_cancelled(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    assert not bulk.cancel(engine, result.job)
    assert bulk.jobs(engine)[0].state == "finished"


@all_sync_backends
def test_an_error_is_noted_with_the_job(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)

    def fail(batch: bulk.Batch) -> None:
        raise LookupError("no template")

    with pytest.raises(LookupError):
        transition_all(engine, message.status, "SPAM_REVIEW", on_batch=fail)
    (job,) = bulk.jobs(engine)
    assert (job.done, job.failures, job.error, job.state) == (10, 1, "LookupError: no template", "waiting")
    assert transition_all(engine, message.status, "SPAM_REVIEW", job=job.id).finished
    (job,) = bulk.jobs(engine)
    assert (job.failures, job.error) == (0, None)


@all_sync_backends
def test_counters_and_rows_go_back_together(engine: sa.Engine) -> None:
    """An error between the rows and the commit leaves neither."""
    message = inbox(engine, *["READY"] * 20)

    def fail(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        if statement.startswith("UPDATE statekit_job SET") and "done=" in statement:
            raise LookupError("no more")

    sa.event.listen(engine, "after_cursor_execute", fail)
    with pytest.raises(LookupError):
        transition_all(engine, message.status, "SPAM_REVIEW")
    sa.event.remove(engine, "after_cursor_execute", fail)
    assert stored(engine, message).count("SPAM_REVIEW") == 0
    assert bulk.jobs(engine)[0].done == 0


@all_sync_backends
def test_jobs_may_be_asked_for_in_a_session(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    with Session(engine) as session:
        assert [job.id for job in bulk.jobs(session)] == [result.job]
