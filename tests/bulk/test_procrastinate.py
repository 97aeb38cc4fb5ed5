"""Bulk transitions in the background: by real workers of Procrastinate, on PostgreSQL."""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import bulk
from statekit.errors import StatekitError
from tests.guards.inbox import fill, stored, unguarded
from tests.support.databases import execute, run

pytest.importorskip("procrastinate")


from statekit.bulk import BulkResult, transition_all
from statekit.bulk.procrastinate import STALLED, BulkTask
from tests.bulk.background import BUDGET, Application

ROOT = Path(__file__).parents[2]
SPAM = "spam"
PATIENCE = 60.0
"""After how many seconds a test gives up waiting; no pass mark is a time."""


@pytest.fixture
def application(postgres_engine: sa.Engine) -> Iterator[Application]:
    """Return an application with its tables, and Procrastinate's."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    application = Application(url)
    application.make_tables_of_procrastinate()
    yield application
    application.engine.dispose()


def spam(application: Application, number: int) -> None:
    """Make messages of a spammer, and have a database trigger note each time that one is written."""
    fill(application.engine, application.message)
    with application.engine.begin() as connection:
        rows = [{"id": key, "status": "READY", "subject": SPAM} for key in range(1, number + 1)]
        connection.execute(sa.insert(unguarded(application.message)), rows)
    execute(
        application.engine,
        "CREATE TABLE written (id int)",
        "CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO written VALUES (NEW.id); RETURN NULL; END $$",
        "CREATE TRIGGER note_write AFTER UPDATE ON message FOR EACH ROW EXECUTE FUNCTION note_write()",
    )


def refuse_writes(application: Application, times: int | None = None) -> None:
    """Have the database refuse so many writes to message 7; None for all."""
    execute(
        application.engine,
        "CREATE SEQUENCE refusals",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 7 AND "
        f"nextval('refusals') <= {times or 1_000_000} THEN RAISE 'the disk is on fire'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


def written(application: Application) -> Counter[int]:
    """Return how often each row was written."""
    with application.engine.connect() as connection:
        return Counter(connection.scalars(sa.text("SELECT id FROM written")))


def once_each(number: int) -> Counter[int]:
    return Counter(range(1, number + 1))


def job_of(application: Application, token: str) -> bulk.Job:
    [job] = [each for each in bulk.jobs(application.engine) if each.id == token]
    return job


def steps(application: Application) -> Counter[str]:
    """Return how many steps there are in Procrastinate's tables, by status."""
    query = "SELECT status::text FROM procrastinate_jobs WHERE queue_name = 'bulk'"
    with application.engine.connect() as connection:
        return Counter(connection.scalars(sa.text(query)))


def processes_at_work(application: Application) -> int:
    """Return how many processes have a running step."""
    query = "SELECT count(DISTINCT worker_id) FROM procrastinate_jobs WHERE queue_name = 'bulk' AND status = 'doing'"
    with application.engine.connect() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


def defer(application: Application, task: BulkTask, **arguments: Any) -> str:
    with application.app.open():
        return task.defer(**arguments)


async def adefer(application: Application, task: BulkTask, **arguments: Any) -> str:
    async with application.app.open_async():
        return await task.defer_async(**arguments)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def workers(application: Application, number: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start worker processes, and end those that are still there."""
    url = application.engine.url.render_as_string(hide_password=False)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bulk.background", url, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(number)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()


# -- deferring


def test_deferring_makes_the_job_and_moves_nothing(application: Application) -> None:
    spam(application, 5)
    token = defer(application, application.capture, subject=SPAM)
    job = job_of(application, token)
    assert (job.total, job.done, job.state, job.operation) == (5, 0, "waiting", "Spam capture")
    assert stored(application.engine, application.message) == ["READY"] * 5


def test_deferring_defers_one_step_for_each_worker(application: Application) -> None:
    spam(application, 5)
    defer(application, application.capture, subject=SPAM, workers=3)
    assert steps(application) == {"todo": 3}


def test_counting_is_not_limited_by_the_budget(application: Application) -> None:
    spam(application, 5)
    counting = sa.func.pg_sleep(0.3).cast(sa.Text) == ""

    def slow(*, job: str | None, budget: dt.timedelta) -> BulkResult:
        message = application.message
        return transition_all(application.engine, message.status, "SPAM_REVIEW", where=counting, job=job, budget=budget)

    token = defer(application, application.task(slow, "slow", budget=dt.timedelta(seconds=0.2)))
    assert job_of(application, token).total == 5


def test_a_call_outside_of_deferring_moves_rows_again(application: Application) -> None:
    spam(application, 5)
    defer(application, application.capture, subject=SPAM)
    assert application.capture_function(job=None, budget=BUDGET, subject=SPAM).finished


def test_a_sync_function_is_deferred_in_an_event_loop(application: Application) -> None:
    spam(application, 5)
    token = run(adefer(application, application.capture, subject=SPAM))
    assert (job_of(application, token).total, job_of(application, token).done) == (5, 0)


# -- to the end


@pytest.mark.parametrize("name", ["capture", "acapture"])
def test_a_job_runs_to_its_end_in_several_steps(application: Application, name: str) -> None:
    spam(application, 60)
    token = run(adefer(application, getattr(application, name), subject=SPAM, rate=50))
    run(application.work())
    assert written(application) == once_each(60)
    assert job_of(application, token).state == "finished"
    assert steps(application).keys() == {"succeeded"}
    assert steps(application)["succeeded"] > 1


def test_a_job_can_be_gone_on_with(application: Application) -> None:
    spam(application, 60)
    begun = application.capture_function(job=None, budget=BUDGET, subject=SPAM, rate=50)
    token = defer(application, application.capture, job=begun.job, subject=SPAM)
    run(application.work())
    assert token == begun.job
    assert job_of(application, token).state == "finished"
    assert written(application) == once_each(60)


def test_processes_share_a_job_and_move_each_row_once(application: Application) -> None:
    spam(application, 150)
    with workers(application, 2) as processes:
        token = defer(application, application.capture, subject=SPAM, rate=60, workers=2)
        wait_until(lambda: processes_at_work(application) == 2, "both work on it")
        wait_until(lambda: job_of(application, token).state == "finished", "it is finished")
        assert [each.poll() for each in processes] == [None, None]
    assert written(application) == once_each(150)
    assert job_of(application, token).done == 150


# -- errors


def test_an_error_that_goes_away_is_tried_again(application: Application) -> None:
    spam(application, 20)
    refuse_writes(application, times=1)
    token = defer(application, application.capture, subject=SPAM)
    run(application.work())
    assert written(application) == once_each(20)
    assert (job_of(application, token).state, job_of(application, token).failures) == ("finished", 0)


def test_an_error_that_stays_fails_the_step_after_its_attempts(application: Application) -> None:
    spam(application, 20)
    refuse_writes(application)
    token = defer(application, application.capture, subject=SPAM)
    run(application.work())
    job = job_of(application, token)
    assert (steps(application)["failed"], steps(application)["todo"]) == (1, 0)
    assert (job.state, job.failures) == ("waiting", 3)
    assert "the disk is on fire" in (job.error or "")


def test_what_has_failed_can_be_deferred_again(application: Application) -> None:
    spam(application, 20)
    refuse_writes(application)
    token = defer(application, application.capture, subject=SPAM)
    run(application.work())
    execute(application.engine, "DROP TRIGGER refuse ON message")
    defer(application, application.capture, job=token, subject=SPAM)
    run(application.work())
    assert written(application) == once_each(20)
    assert job_of(application, token).state == "finished"


def test_rows_that_stay_locked_end_in_an_error(application: Application) -> None:
    spam(application, 5)
    task = application.task(application.capture_function, "impatient", retry=False)
    token = defer(application, task, subject=SPAM)
    with application.engine.begin() as holder:
        holder.execute(sa.text("SELECT * FROM message WHERE id = 3 FOR UPDATE"))
        run(application.work())
    # One step has moved the others.
    assert steps(application) == {"succeeded": STALLED, "failed": 1}
    assert job_of(application, token).done == 4


def test_a_function_that_begins_a_new_job_each_time_is_an_error(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    spam(application, 5)

    def forgetful(*, job: str | None, budget: dt.timedelta) -> BulkResult:
        return transition_all(application.engine, application.message.status, "SPAM_REVIEW", budget=budget)

    defer(application, application.task(forgetful, "forgetful", retry=False))
    run(application.work())
    assert steps(application) == {"failed": 1}
    assert "Have it hand its argument on: transition_all(…, job=job)" in caplog.text


# -- workers that end


def test_a_worker_that_is_told_to_stop_ends_after_its_step_and_another_goes_on(application: Application) -> None:
    spam(application, 90)
    token = defer(application, application.capture, subject=SPAM, rate=50)
    with workers(application, 1) as [first]:
        wait_until(lambda: job_of(application, token).done > 0, "it has begun")
        first.terminate()
        assert first.wait(PATIENCE) == 0
    assert job_of(application, token).finished_at is None
    assert (steps(application)["todo"], steps(application)["doing"]) == (1, 0)
    run(application.work())
    assert written(application) == once_each(90)
    assert job_of(application, token).state == "finished"


def test_a_step_that_takes_longer_than_the_grace_of_its_worker_is_gone_on_with(application: Application) -> None:
    spam(application, 90)
    token = run(adefer(application, application.long, subject=SPAM, rate=30))
    with workers(application, 1, "0.1") as [first]:
        wait_until(lambda: job_of(application, token).done > 0, "it has begun")
        first.terminate()
        assert first.wait(PATIENCE) == 0
    assert job_of(application, token).finished_at is None
    assert steps(application) == {"succeeded": 1, "todo": 1}
    run(application.work())
    assert written(application) == once_each(90)
    assert job_of(application, token).state == "finished"


def test_a_worker_that_is_killed_loses_nothing(application: Application) -> None:
    spam(application, 90)
    token = run(adefer(application, application.long, subject=SPAM, rate=30))
    with workers(application, 1) as [first]:
        wait_until(lambda: job_of(application, token).done > 0, "it has begun")
        first.kill()
        first.wait()
    assert steps(application) == {"doing": 1}
    assert 0 < job_of(application, token).done < 90
    with workers(application, 1):
        wait_until(lambda: job_of(application, token).state == "finished", "another one has finished it")
    assert written(application) == once_each(90)
    assert job_of(application, token).done == 90


def bring_back_the_first_step(application: Application) -> None:
    """Do as if it had been killed right after it had deferred the next one."""
    spam(application, 120)
    defer(application, application.capture, subject=SPAM, rate=50)
    run(application.work_until(lambda: steps(application)["succeeded"] == 1))
    execute(application.engine, "UPDATE procrastinate_jobs SET status = 'todo' WHERE (args->>'number')::int = 1")


def test_a_step_that_is_done_twice_does_not_defer_the_next_one_that_waits(application: Application) -> None:
    bring_back_the_first_step(application)
    run(application.work())
    with application.engine.connect() as connection:
        numbers = list(connection.scalars(sa.text("SELECT args->>'number' FROM procrastinate_jobs")))
    assert len(numbers) == len(set(numbers)) > 1
    assert written(application) == once_each(120)


def test_a_step_that_is_done_twice_does_not_defer_the_next_one_that_is_running(application: Application) -> None:
    bring_back_the_first_step(application)
    others = "UPDATE procrastinate_jobs SET status = 'doing' WHERE (args->>'number')::int > 1 AND status = 'todo'"
    execute(application.engine, others)
    run(application.work())
    assert steps(application)["todo"] == 0
    assert len(written(application)) < 120


# -- cancelling


def test_a_job_that_is_cancelled_ends_its_steps(application: Application) -> None:
    spam(application, 150)
    token = defer(application, application.capture, subject=SPAM, rate=50)
    with workers(application, 1):
        wait_until(lambda: job_of(application, token).done > 0, "it has begun")
        assert bulk.cancel(application.engine, token)
        wait_until(lambda: steps(application).keys() == {"succeeded"}, "no step is left")
    assert job_of(application, token).state == "cancelled"
    assert 0 < len(written(application)) < 150


@pytest.mark.parametrize("name", ["capture", "acapture"])
def test_a_step_that_is_aborted_in_procrastinate_is_the_last_one(application: Application, name: str) -> None:
    spam(application, 150)
    token = run(adefer(application, getattr(application, name), subject=SPAM, rate=20))
    query = sa.text("SELECT id FROM procrastinate_jobs WHERE status = 'doing' AND queue_name = 'bulk'")

    def abort() -> bool:
        with application.engine.connect() as connection:
            running = list(connection.scalars(query))
        with application.app.open():
            for each in running:
                application.app.job_manager.cancel_job_by_id(each, abort=True)
        return steps(application)["aborted"] > 0

    with workers(application, 1):
        wait_until(lambda: job_of(application, token).done > 0, "it has begun")
        wait_until(abort, "it is aborted")
    assert steps(application).keys() <= {"succeeded", "aborted"}
    assert job_of(application, token).finished_at is None


# -- what is refused


def capture(*, job: str | None, budget: dt.timedelta, subject: str = "") -> BulkResult:
    raise AssertionError("no test calls it")


def without_job(*, budget: dt.timedelta) -> BulkResult:
    raise AssertionError("no test calls it")


def without_budget(*, job: str | None, **more: Any) -> BulkResult:
    raise AssertionError("no test calls it")


def with_workers(*, job: str | None, budget: dt.timedelta, workers: int) -> BulkResult:
    raise AssertionError("no test calls it")


def by_place(subject: str, /, *, job: str | None, budget: dt.timedelta) -> BulkResult:
    raise AssertionError("no test calls it")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_job, "has no keyword argument job, with which"),
        (without_budget, "has no keyword argument budget, with which"),
        (with_workers, "workers is an argument of defer\\(\\) itself"),
        (by_place, "subject can be given by its place only"),
        ("capture", "give a function, such as def capture_spam"),
    ],
)
def test_a_function_that_cannot_make_the_call_is_refused_when_declared(
    application: Application, function: Any, message: str
) -> None:
    with pytest.raises(StatekitError, match=message):
        BulkTask(application.app, function)


@pytest.mark.parametrize("budget", [dt.timedelta(0), dt.timedelta(seconds=-1), 30, None])
def test_a_budget_that_is_no_time_is_refused_when_declared(application: Application, budget: Any) -> None:
    with pytest.raises(StatekitError, match="give a time that is longer than none, such as"):
        BulkTask(application.app, capture, budget=budget)


def test_what_is_no_app_is_refused_when_declared(application: Application) -> None:
    with pytest.raises(StatekitError, match="give the App of Procrastinate, or a Blueprint"):
        BulkTask(application.engine, capture)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(application: Application, number: Any) -> None:
    with pytest.raises(StatekitError, match="give how many may work on the job, 1 or more"):
        application.capture.defer(subject=SPAM, workers=number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "missing a required (keyword-only )?argument: 'subject'. capture takes"),
        ({"subject": SPAM, "sender": 1}, "unexpected keyword argument 'sender'. capture takes"),
        ({"subject": SPAM, "budget": 1}, "budget"),
        ({"subject": object()}, "wait in the database as JSON: give texts and numbers"),
        ({"subject": ("a", "b")}, "which makes \\['a', 'b'\\] of it"),
        ({"subject": SPAM, "job": ""}, "give the token of a job, or None for a new one"),
    ],
)
def test_arguments_that_no_step_could_use_are_refused(
    application: Application, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(StatekitError, match=message):
        application.capture.defer(**arguments)


def test_a_coroutine_function_is_deferred_in_an_event_loop_only(application: Application) -> None:
    with pytest.raises(StatekitError, match="await defer_async"):
        application.acapture.defer(subject=SPAM)


def test_a_function_that_returns_no_result_is_an_error(application: Application) -> None:
    def silent(*, job: str | None, budget: dt.timedelta) -> None:
        pass

    task = application.task(silent, "silent")
    with pytest.raises(StatekitError, match="silent returned None: have it return what transition_all"):
        task.defer()
