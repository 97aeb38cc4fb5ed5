"""A call returns within its budget, whatever a row costs."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import StatekitError, bulk, transition_all
from statekit.bulk import BulkResult
from tests.bulk.costly import make_costly, make_endless, on_both
from tests.guards.inbox import stored
from tests.ledger.books import inbox
from tests.support.databases import Databases


def seconds(number: float) -> dt.timedelta:
    return dt.timedelta(seconds=number)


class Clock:
    """Measures a call, and meanwhile for how long this machine has kept a thread from going on when it should have.

    That is no fault of the call's: on a busy machine, a thread may be late by tenths of a second.
    """

    def __init__(self) -> None:
        self.late = 0.0
        self._over = threading.Event()

    def timed(self, call: Callable[[], BulkResult]) -> tuple[BulkResult, float]:
        """Return what a call returns, and the seconds that it has taken."""
        watch = threading.Thread(target=self._watch)
        watch.start()
        start = time.monotonic()
        result = call()
        taken = time.monotonic() - start
        self._over.set()
        watch.join()
        return result, taken - self.late

    def _watch(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            time.sleep(0.005)
            self.late = max(self.late, time.monotonic() - start - 0.005)


def timed(call: Callable[[], BulkResult]) -> tuple[BulkResult, float]:
    """Return what a call returns, and the seconds that it has taken, less what the machine has held it up."""
    return Clock().timed(call)


@on_both
def test_what_fits_is_moved_and_the_rest_remains(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 400)
    make_costly(engine, 0.01)
    result, taken = timed(lambda: transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(2)))
    assert taken < 2
    assert 0 < result.done < 400
    assert result.remaining == 400 - result.done
    assert not result.finished
    assert stored(engine, message).count("SPAM_REVIEW") == result.done


@on_both
def test_a_row_that_takes_longer_than_the_budget_is_ended(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 300)
    make_endless(engine)
    result, taken = timed(lambda: transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(2)))
    assert taken < 2
    assert (result.done, result.finished, result.stalled) == (0, False, True)
    assert set(stored(engine, message)) == {"READY"}


@on_both
def test_where_ten_rows_do_not_fit_one_is_moved(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    make_costly(engine, 0.4)
    result = transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(3))
    assert 0 < result.done < 10


@on_both
def test_a_jump_in_the_cost_of_rows_is_no_overrun(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 400)
    make_costly(engine, 0.01, jump_at=60, factor=8)
    result, taken = timed(lambda: transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(2)))
    assert taken < 2
    assert stored(engine, message).count("SPAM_REVIEW") == result.done > 0


def test_twenty_calls_with_random_costs_keep_and_use_their_budget(databases: Databases) -> None:
    """The rows of a call cost 2 to 20 ms, and eight times as much from some row on."""
    budget, rng = 3.0, random.Random(7)
    engine = databases.engine("psycopg", pool_size=20)
    message = inbox(engine, *["READY"] * 20 * 1_600)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE message SET subject = mod(id, 20)"))
        connection.exec_driver_sql(
            "CREATE TABLE cost AS SELECT n, 0.0 AS base, 0 AS jump FROM generate_series(0, 19) n"
        )
        for number in range(20):
            connection.execute(
                sa.text("UPDATE cost SET base = :base, jump = :jump WHERE n = :n"),
                {"base": 10 ** rng.uniform(-2.7, -1.7), "jump": rng.randint(50, 300), "n": number},
            )
            connection.exec_driver_sql(f"CREATE SEQUENCE moved_{number}")
        connection.exec_driver_sql(
            "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c cost; BEGIN "
            "SELECT * INTO c FROM cost WHERE n = OLD.subject::int; "
            "PERFORM pg_sleep(c.base * CASE WHEN nextval('moved_' || c.n) > c.jump THEN 8 ELSE 1 END); "
            "RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER takes_time BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION take_time()"
        )

    def call(number: int) -> tuple[BulkResult, float]:
        where = message.subject == str(number)
        return timed(lambda: transition_all(engine, message.status, "SPAM_REVIEW", where=where, budget=seconds(budget)))

    with ThreadPoolExecutor(7) as threads:
        calls = list(threads.map(call, range(20)))
    assert [taken for _, taken in calls if taken > budget] == []
    unfinished = [taken for result, taken in calls if not result.finished]
    assert sum(unfinished) >= 0.85 * budget * len(unfinished)
    assert sum(result.done for result, _ in calls) == stored(engine, message).count("SPAM_REVIEW")


@on_both
def test_a_deadline_holds_as_well_as_a_length(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 400)
    make_costly(engine, 0.01)
    deadline = dt.datetime.now(dt.UTC) + seconds(1)
    result = transition_all(engine, message.status, "SPAM_REVIEW", deadline=deadline)
    assert dt.datetime.now(dt.UTC) < deadline
    assert 0 < result.done < 400


@pytest.mark.parametrize(("budget", "deadline"), [(1, 60), (60, 1)])
def test_of_a_budget_and_a_deadline_the_nearer_one_holds(sqlite_engine: sa.Engine, budget: int, deadline: int) -> None:
    message = inbox(sqlite_engine, *["READY"] * 1_000)
    make_costly(sqlite_engine, 0.01)
    until = dt.datetime.now(dt.UTC) + seconds(deadline)
    options: dict[str, Any] = {"budget": seconds(budget), "deadline": until}
    result = transition_all(sqlite_engine, message.status, "SPAM_REVIEW", **options)
    assert result.elapsed < seconds(1)
    assert not result.finished


@on_both
def test_without_a_limit_all_is_moved(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    assert transition_all(engine, message.status, "SPAM_REVIEW", budget=None).finished


@on_both
def test_to_count_for_longer_than_the_budget_is_an_error(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 3_000)
    many = " CROSS JOIN ".join(f"message m{number}" for number in range(4))
    where = sa.text(f"(SELECT count(*) FROM {many}) > 0")
    with pytest.raises(StatekitError, match="to count what is to move takes longer than the budget of 0.5 s"):
        transition_all(engine, message.status, "SPAM_REVIEW", where=where, budget=seconds(0.5))
    assert bulk.jobs(engine) == []
    assert set(stored(engine, message)) == {"READY"}


@on_both
def test_the_connection_has_no_limit_afterwards(engine: sa.Engine) -> None:
    """What was set for a batch must not end a statement of whoever has the connection next."""
    message = inbox(engine, *["READY"] * 20)
    query = {"sqlite": "PRAGMA busy_timeout"}.get(
        engine.dialect.name,
        "SELECT current_setting('statement_timeout') || current_setting('lock_timeout') "
        "|| current_setting('idle_in_transaction_session_timeout')",
    )

    def settings() -> Any:
        with engine.connect() as connection:
            return connection.exec_driver_sql(query).scalar()

    before = settings()
    transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(2))
    assert settings() == before


def test_a_pool_without_a_free_connection_does_not_hold_the_call_up(databases: Databases) -> None:
    """The pool would have it wait for 30 seconds."""
    engine = databases.engine("psycopg", pool_size=2, max_overflow=0)
    message = inbox(engine, *["READY"] * 400)
    make_costly(engine, 0.01)
    held: list[sa.Connection] = []

    def take_all(result: BulkResult) -> None:
        while len(held) < 2:
            held.append(engine.connect())

    result, taken = timed(
        lambda: transition_all(engine, message.status, "SPAM_REVIEW", budget=seconds(2), progress=take_all)
    )
    for connection in held:
        connection.close()
    assert taken < 2
    assert not result.finished
