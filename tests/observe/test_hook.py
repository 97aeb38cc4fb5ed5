"""The one hook: who hears of what, and that a listener who fails disturbs nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, registry

from statekit import IllegalTransition, StatekitError, guard
from statekit.observe.hook import publish, subscribe
from statekit.observe.move import Move
from tests.guards.inbox import TABLE, fill, load, message_class, stored, unguarded
from tests.observe.test_operation import move


@pytest.fixture
def heard() -> Iterator[list[Move]]:
    moves: list[Move] = []
    unsubscribe = subscribe(moves.extend)
    yield moves
    unsubscribe()


def change_all(engine: sa.Engine, message: Any, status: str) -> None:
    with Session(engine) as session:
        for each in load(session, message):
            each.status = status
        session.commit()


def test_hears_of_blocked_moves_by_pair(memory_engine: sa.Engine, heard: list[Move]) -> None:
    message = message_class(on_illegal="skip")
    fill(memory_engine, message, "PROMOTED", "COMPLETED", "PROMOTED")
    change_all(memory_engine, message, "SPAM_REVIEW")
    told = [(m.kind, m.model, m.attribute, m.source, m.target, m.number, m.identities, m.allowed) for m in heard]
    assert sorted(told) == [
        ("blocked", "Message", "status", "COMPLETED", "SPAM_REVIEW", 1, ((2,),), ()),
        ("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", 2, ((1,), (3,)), ("COMPLETED",)),
    ]


def test_hears_of_allowed_and_observed_moves_once_they_are_written(memory_engine: sa.Engine, heard: list[Move]) -> None:
    message = message_class(on_illegal="observe")
    fill(memory_engine, message, "PROMOTED", "READY")
    change_all(memory_engine, message, "SPAM_REVIEW")
    assert sorted((m.kind, m.source, m.number, m.mode) for m in heard) == [
        ("allowed", "READY", 1, "observe"),
        ("observed", "PROMOTED", 1, "observe"),
    ]


def test_hears_nothing_of_a_legal_move_in_a_flush_that_fails(memory_engine: sa.Engine, heard: list[Move]) -> None:
    message = message_class()
    fill(memory_engine, message, "READY", "PROMOTED")
    with pytest.raises(IllegalTransition):
        change_all(memory_engine, message, "SPAM_REVIEW")
    assert [m.kind for m in heard] == ["blocked"]


def test_hears_nothing_after_unsubscribing(memory_engine: sa.Engine) -> None:
    message = message_class(on_illegal="skip")
    fill(memory_engine, message, "PROMOTED")
    moves: list[Move] = []
    unsubscribe = subscribe(moves.extend)
    unsubscribe()
    unsubscribe()
    change_all(memory_engine, message, "SPAM_REVIEW")
    assert moves == []


def test_that_fails_disturbs_neither_the_flush_nor_the_others(
    memory_engine: sa.Engine, heard: list[Move], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(moves: Sequence[Move]) -> None:
        raise ZeroDivisionError

    unsubscribe = subscribe(fail)
    message = message_class()
    fill(memory_engine, message, "READY")
    change_all(memory_engine, message, "PROMOTED")
    unsubscribe()
    assert [m.kind for m in heard] == ["allowed"]
    assert "A listener to statekit's moves failed" in caplog.text


def test_names_the_topmost_class_of_an_inheritance(memory_engine: sa.Engine, heard: list[Move]) -> None:
    message = message_class(on_illegal="skip")

    class Special(message):
        pass

    fill(memory_engine, message, "PROMOTED")
    with Session(memory_engine) as session:
        session.get_one(Special, 1).status = "SPAM_REVIEW"
        session.flush()
    assert [m.model for m in heard] == ["Message"]


def test_names_the_class_of_a_column_that_was_guarded_by_itself(memory_engine: sa.Engine) -> None:
    mapping = registry()
    table = sa.Table(
        "message", mapping.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))
    )

    class Message:
        __table__ = table
        metadata = mapping.metadata

    guard(table.c.status, TABLE, on_illegal="skip")
    mapping.map_imperatively(Message, table)
    mapping.metadata.create_all(memory_engine)
    with memory_engine.begin() as connection:
        connection.execute(sa.insert(unguarded(table)), [{"id": 1, "status": "COMPLETED"}])
    heard: list[Move] = []
    end = subscribe(heard.extend)
    try:
        with Session(memory_engine) as session:
            session.get_one(Message, 1).status = "READY"  # type: ignore[attr-defined]
            session.commit()
    finally:
        end()
    assert [each.model for each in heard] == ["Message"]


def test_that_unsubscribes_itself_keeps_the_next_from_missing_nothing() -> None:
    heard: list[Move] = []

    def once(moves: Sequence[Move]) -> None:
        end_once()

    end_once = subscribe(once)
    end = subscribe(heard.extend)
    try:
        publish([move()])
    finally:
        end()
    assert len(heard) == 1


def test_a_listener_that_fails_with_an_error_of_ours_disturbs_nobody_either(memory_engine: sa.Engine) -> None:
    def fail(moves: Sequence[Move]) -> None:
        raise StatekitError("it may not read the counters")

    message = message_class()
    fill(memory_engine, message, "READY")
    end = subscribe(fail)
    try:
        change_all(memory_engine, message, "PROMOTED")
    finally:
        end()
    assert stored(memory_engine, message) == ["PROMOTED"]
