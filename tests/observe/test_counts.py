"""counts(): the blocked moves of this process, by guard and by move."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from statekit import IllegalTransition, StatekitError, counts
from statekit.observe import counts as process
from tests.guards.inbox import fill, load, message_class


def block(engine: sa.Engine, message: object) -> None:
    with Session(engine) as session:
        for each in load(session, message):
            each.status = "READY"
        with pytest.raises(IllegalTransition):
            session.flush()


def test_are_kept_for_each_guard(memory_engine: sa.Engine) -> None:
    one, two = message_class(), message_class()
    fill(memory_engine, one, "COMPLETED")
    block(memory_engine, one)
    block(memory_engine, one)
    block(memory_engine, two)
    assert (counts(one.status), counts(two.status)) == ({("COMPLETED", "READY"): 2}, {("COMPLETED", "READY"): 1})


def test_without_an_attribute_are_the_sum(memory_engine: sa.Engine) -> None:
    one, two = message_class(), message_class()
    fill(memory_engine, one, "COMPLETED")
    before = counts()[("COMPLETED", "READY")]
    block(memory_engine, one)
    block(memory_engine, two)
    assert counts()[("COMPLETED", "READY")] == before + 2


def test_may_be_asked_by_column_or_by_the_attribute_of_an_alias(memory_engine: sa.Engine) -> None:
    message = message_class()
    fill(memory_engine, message, "COMPLETED")
    block(memory_engine, message)
    assert counts(message.__table__.c.status) == counts(aliased(message).status) == {("COMPLETED", "READY"): 1}


def test_are_a_copy(memory_engine: sa.Engine) -> None:
    message = message_class()
    fill(memory_engine, message, "COMPLETED")
    block(memory_engine, message)
    counts(message.status).clear()
    assert counts(message.status) == {("COMPLETED", "READY"): 1}


def test_of_an_attribute_without_a_guard_are_an_error() -> None:
    with pytest.raises(StatekitError, match=r"Message.status has no guard"):
        counts(message_class(table=None).status)


def test_lose_nothing_when_threads_count_at_once() -> None:
    threads = [
        threading.Thread(target=lambda: [process.add("threads", ("A", "B"), 1) for _ in range(2_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.total("threads") == {("A", "B"): 16_000}
