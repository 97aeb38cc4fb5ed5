"""Bulk transitions: which rows move, which do not, and what is said of them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

import statekit
from statekit import IllegalTransition, StatekitError, bulk, ledger, transition_all
from tests.guards.inbox import stored
from tests.ledger.books import attached, inbox, moves
from tests.support.databases import all_sync_backends

# --- which rows -------------------------------------------------------------------------------------------------------


@all_sync_backends
def test_moves_every_row_from_which_the_target_is_allowed(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED", "READY", "COMPLETED", "SPAM_REVIEW")
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    assert stored(engine, message) == ["SPAM_REVIEW", "PROMOTED", "SPAM_REVIEW", "COMPLETED", "SPAM_REVIEW"]
    assert (result.done, result.total, result.remaining, result.blocked) == (2, 2, 0, 0)


@all_sync_backends
def test_moves_the_rows_that_a_condition_finds(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "READY", "READY")
    result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 1)
    assert stored(engine, message) == ["READY", "SPAM_REVIEW", "SPAM_REVIEW"]
    assert (result.done, result.total) == (2, 2)


@all_sync_backends
def test_rows_that_must_not_move_stay_and_are_counted_once(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED", "PROMOTED", "COMPLETED", "SPAM_REVIEW")
    result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    assert stored(engine, message) == ["SPAM_REVIEW", "PROMOTED", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]
    assert (result.done, result.blocked, result.total) == (1, 3, 4)
    assert statekit.counts(message.status) == Counter({("PROMOTED", "SPAM_REVIEW"): 2, ("COMPLETED", "SPAM_REVIEW"): 1})


@all_sync_backends
def test_blocked_rows_are_not_counted_again_when_the_job_goes_on(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED")
    begun = bulk.prepare(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    for _ in range(3):
        result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0, job=begun.job)
    assert result.blocked == 1
    assert statekit.counts(message.status) == Counter({("PROMOTED", "SPAM_REVIEW"): 1})


@all_sync_backends
def test_blocked_rows_are_in_the_ledger(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED", "PROMOTED")
    with attached(engine):
        transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0, operation="Spam capture")
        assert moves(engine) == Counter({("PROMOTED", "SPAM_REVIEW"): 2})


@all_sync_backends
def test_in_raise_nothing_moves_if_a_row_must_not(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED", "PROMOTED")
    with pytest.raises(IllegalTransition) as caught:
        transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0, on_illegal="raise")
    assert stored(engine, message) == ["READY", "PROMOTED", "PROMOTED"]
    assert caught.value.pairs == Counter({("PROMOTED", "SPAM_REVIEW"): 2})
    assert caught.value.identity == (2,)
    assert bulk.jobs(engine) == []


@all_sync_backends
def test_in_observe_illegal_rows_move_and_are_counted(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED")
    with statekit.operation("outer") as operation:
        result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0, on_illegal="observe")
    assert stored(engine, message) == ["SPAM_REVIEW", "SPAM_REVIEW"]
    assert (result.done, result.blocked, result.total) == (2, 0, 2)
    assert operation.observed == Counter({("PROMOTED", "SPAM_REVIEW"): 1})
    assert operation.allowed == Counter({("READY", "SPAM_REVIEW"): 1})


@all_sync_backends
def test_several_sources_lead_to_one_target(engine: sa.Engine) -> None:
    table = statekit.TransitionTable(
        "READY → PROMOTED → DONE", "READY → DROPPED", "PROMOTED → DROPPED", initial="READY"
    )
    message = inbox(engine, "READY", "PROMOTED", "DONE", table=table)
    transition_all(engine, message.status, "DROPPED")
    assert stored(engine, message) == ["DROPPED", "DROPPED", "DONE"]


@all_sync_backends
def test_there_may_be_nothing_to_move(engine: sa.Engine) -> None:
    message = inbox(engine, "PROMOTED")
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    assert result.finished
    assert str(result) == "Moved 0 / 0 (0 remaining)"


@all_sync_backends
def test_many_rows_are_moved_in_batches(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 100)
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    assert result.done == 100
    assert result.batches >= 4  # 10, 20, 40, and the rest


# --- as everywhere ----------------------------------------------------------------------------------------------------


@all_sync_backends
def test_the_history_has_each_row(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 12, history=True)
    transition_all(engine, message.status, "SPAM_REVIEW", operation="Spam capture")
    with engine.connect() as connection:
        rows = [
            connection.execute(ledger.history_of(message.status, identity)).mappings().all()
            for identity in range(1, 13)
        ]
    assert [[(row["source"], row["target"], row["operation"]) for row in of] for of in rows] == [
        [("READY", "SPAM_REVIEW", "Spam capture")]
    ] * 12


@all_sync_backends
def test_an_operation_around_it_counts_what_moves(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 30, "PROMOTED")
    with statekit.operation("Spam capture") as operation:
        result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    assert operation.allowed == Counter({("READY", "SPAM_REVIEW"): 30})
    assert operation.blocked == Counter({("PROMOTED", "SPAM_REVIEW"): 1})
    assert result.done == 30


@all_sync_backends
def test_what_waits_for_a_commit_is_called(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 12)
    told: list[Any] = []
    statekit.on_commit(message.status, target="SPAM_REVIEW")(lambda move: told.append(move.identity))
    transition_all(engine, message.status, "SPAM_REVIEW")
    assert sorted(told) == [(number,) for number in range(1, 13)]


@all_sync_backends
def test_a_trigger_lets_it_pass(engine: sa.Engine) -> None:
    table = statekit.TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED")  # starting anywhere
    message = inbox(engine, *["READY"] * 12, "PROMOTED", table=table, trigger=True)
    result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    assert (result.done, result.blocked) == (12, 1)


@all_sync_backends
def test_override_lets_every_row_move(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "PROMOTED", "COMPLETED")
    with attached(engine), statekit.override("wrong queue", actor="ada"):
        result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
        assert moves(engine, "overridden").total() == 2
    assert stored(engine, message) == ["SPAM_REVIEW"] * 3
    assert (result.done, result.total) == (3, 3)


@all_sync_backends
def test_a_sessionmaker_will_do(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    assert transition_all(sessionmaker(engine), message.status, "SPAM_REVIEW").done == 1


@all_sync_backends
def test_a_guarded_column_will_do(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    assert transition_all(engine, message.__table__.c.status, "SPAM_REVIEW").done == 1


# --- what is said -----------------------------------------------------------------------------------------------------


def test_the_result_names_what_the_operation_does(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, *["READY"] * 1_418)
    first = next(bulk.transition_batches(memory_engine, message.status, "SPAM_REVIEW", operation="Spam capture"))
    assert str(first) == "Captured 0 / 1,418 (1,418 remaining)"


def test_the_result_says_what_was_blocked(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY", "PROMOTED")
    result = transition_all(memory_engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    assert str(result) == "Moved 1 / 2 (0 remaining, 1 blocked)"


def test_the_result_is_json_for_a_web_client(memory_engine: sa.Engine) -> None:
    import json

    message = inbox(memory_engine, "READY", "PROMOTED")
    result = transition_all(memory_engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    data = json.loads(json.dumps(result.to_dict()))
    assert {key: data[key] for key in ("done", "total", "remaining", "blocked", "finished", "share", "text")} == {
        "done": 1,
        "total": 2,
        "remaining": 0,
        "blocked": 1,
        "finished": True,
        "share": 1.0,
        "text": "Moved 1 / 2 (0 remaining, 1 blocked)",
    }


# --- what is refused before anything is done --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": dt.timedelta(0)}, "budget="),
        ({"budget": 8}, "budget=8"),
        ({"deadline": dt.datetime(2026, 1, 1)}, "time zone"),
        ({"operation": " "}, "operation="),
        ({"job": ""}, "job="),
        ({"on_illegal": "ignore"}, "ignore"),
        ({"rate": 0}, "rate=0"),
        ({"where": "status = 'READY'"}, "where="),
        ({"where": []}, "where="),
    ],
)
def test_a_wrong_argument_is_named(memory_engine: sa.Engine, options: dict[str, Any], said: str) -> None:
    message = inbox(memory_engine, "READY")
    with pytest.raises(StatekitError, match=said):
        transition_all(memory_engine, message.status, "SPAM_REVIEW", **options)
    assert stored(memory_engine, message) == ["READY"]


@pytest.mark.parametrize(("target", "said"), [("SPAM", "no state"), ("READY", "no transition of the table leads")])
def test_a_wrong_target_is_named(memory_engine: sa.Engine, target: str, said: str) -> None:
    message = inbox(memory_engine, "READY")
    with pytest.raises(StatekitError, match=said):
        transition_all(memory_engine, message.status, target)


def test_an_attribute_without_a_guard_is_named(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY")
    with pytest.raises(StatekitError, match="no guard"):
        transition_all(memory_engine, message.subject, "SPAM_REVIEW")


def test_a_transaction_of_the_callers_is_not_committed(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY")
    with Session(memory_engine) as session, pytest.raises(StatekitError, match="commits by itself"):
        transition_all(session, message.status, "SPAM_REVIEW")  # type: ignore[arg-type]


@all_sync_backends
def test_an_engine_in_autocommit_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    with pytest.raises(StatekitError, match="AUTOCOMMIT"):
        transition_all(engine.execution_options(isolation_level="AUTOCOMMIT"), message.status, "SPAM_REVIEW")
    assert stored(engine, message) == ["READY"]


@all_sync_backends
def test_without_the_tables_of_jobs_the_mend_is_named(engine: sa.Engine) -> None:
    message = inbox(engine, "READY")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE statekit_job")
    with pytest.raises(StatekitError, match=r"no table statekit_job.*add_to\(Base.metadata\)"):
        transition_all(engine, message.status, "SPAM_REVIEW")
    assert stored(engine, message) == ["READY"]
