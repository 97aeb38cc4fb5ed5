"""Log lines: one for each refused row, with its data; a flood of equal ones is cut, and the number left out is said."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import IllegalTransition, operation
from statekit.observe import log
from statekit.observe.hook import publish
from statekit.observe.move import Move
from tests.guards.inbox import fill, load, message_class


@pytest.fixture(autouse=True)
def _from_the_beginning() -> Iterator[None]:
    log._windows.clear()
    yield
    log._windows.clear()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    return clock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "statekit"]


def block(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        for each in load(session, message):
            each.status = "SPAM_REVIEW"
        try:
            session.commit()
        except IllegalTransition:
            session.rollback()


PLACE = block.__code__.co_firstlineno + 5


class TestALine:
    def test_says_what_was_blocked_and_what_is_allowed(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        block(memory_engine, message)
        assert lines(caplog) == [
            "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW on Message(1).status "
            "(allowed from PROMOTED: COMPLETED; mode: raise)"
        ]

    def test_is_a_warning(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        block(memory_engine, message)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]

    def test_carries_its_data(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "PROMOTED")
        with operation("Spam capture"):
            block(memory_engine, message)
        data = {k: v for k, v in vars(caplog.records[0]).items() if k.startswith("statekit_")}
        assert data == {
            "statekit_kind": "blocked",
            "statekit_model": "Message",
            "statekit_attribute": "status",
            "statekit_identity": (1,),
            "statekit_source": "PROMOTED",
            "statekit_target": "SPAM_REVIEW",
            "statekit_new": False,
            "statekit_allowed": ("COMPLETED",),
            "statekit_condition": None,
            "statekit_mode": "skip",
            "statekit_operation": "Spam capture",
            "statekit_place": f"{__name__}:{PLACE} in block",
            "statekit_reason": None,
            "statekit_actor": None,
        }

    def test_names_the_operation(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "PROMOTED")
        with operation("Spam capture"):
            block(memory_engine, message)
        assert lines(caplog)[0].endswith("mode: skip; operation: Spam capture)")

    def test_of_a_new_row_says_where_it_may_start(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = message_class()
        fill(memory_engine, message)
        with Session(memory_engine) as session:
            session.add(message(status="COMPLETED"))
            with pytest.raises(IllegalTransition):
                session.flush()
        assert lines(caplog) == [
            "[SELF-HEAL] Blocked invalid transition: a new row in COMPLETED on Message.status "
            "(new rows may start in: READY; mode: raise)"
        ]

    def test_of_an_observed_move_says_so(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = message_class(on_illegal="observe")
        fill(memory_engine, message, "PROMOTED")
        block(memory_engine, message)
        assert lines(caplog)[0].startswith("[SELF-HEAL] Observed invalid transition: PROMOTED → SPAM_REVIEW")

    def test_cannot_be_forged_by_a_value_with_a_line_break(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "READY")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "X\n[SELF-HEAL] all is well"
            with pytest.raises(IllegalTransition):
                session.flush()
        assert "\n" not in lines(caplog)[0]

    def test_is_not_written_for_a_legal_move(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        message = message_class()
        fill(memory_engine, message, "READY")
        block(memory_engine, message)
        assert lines(caplog) == []


class TestAFlood:
    def test_is_cut_after_some_equal_lines(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * 25)
        block(memory_engine, message)
        assert len(lines(caplog)) == log.LINES

    def test_over_many_flushes_is_cut_as_well(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        for _ in range(25):
            block(memory_engine, message)
        assert len(lines(caplog)) == log.LINES

    def test_lets_other_lines_pass(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * 25, "COMPLETED")
        block(memory_engine, message)
        assert "COMPLETED → SPAM_REVIEW on Message(26)" in caplog.text

    def test_is_told_by_number_with_the_first_line_after_the_window(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        for _ in range(25):
            block(memory_engine, message)
        clock.now += log.WINDOW
        block(memory_engine, message)
        assert lines(caplog)[log.LINES :] == [
            "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW on Message.status: "
            "15 more equal lines were left out",
            lines(caplog)[0],
        ]

    def test_is_told_by_number_at_the_end_of_its_operation(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, *["PROMOTED"] * 25)
        with operation("Spam capture"):
            block(memory_engine, message)
        assert lines(caplog)[-2:] == [
            "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW on Message.status: "
            "15 more equal lines were left out (operation: Spam capture)",
            "[SELF-HEAL] Operation complete: Spam capture: 0 moved, 25 blocked (PROMOTED → SPAM_REVIEW: 25)",
        ]

    def test_carries_the_number_as_data(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * 25)
        block(memory_engine, message)
        log.write_left_out()
        assert [getattr(record, "statekit_left_out", 0) for record in caplog.records][-1] == 15

    def test_of_operations_of_one_name_is_one_flood(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "PROMOTED")
        for _ in range(25):
            with operation("Spam capture"):
                block(memory_engine, message)
        rows = [line for line in lines(caplog) if "on Message(1)" in line]
        left_out = sum(getattr(record, "statekit_left_out", 0) for record in caplog.records)
        assert (len(rows), left_out) == (log.LINES, 15)

    def test_that_is_over_is_forgotten(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED", "COMPLETED")
        block(memory_engine, message)
        clock.now += log.WINDOW
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "READY"
            with pytest.raises(IllegalTransition):
                session.flush()
        assert len(log._windows) == 1

    def test_is_told_once(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * 25)
        block(memory_engine, message)
        log.write_left_out()
        log.write_left_out()
        assert len(lines(caplog)) == log.LINES + 1

    def test_that_is_written_to_the_end_leaves_nothing_to_tell(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * log.LINES)
        block(memory_engine, message)
        log.write_left_out()
        assert len(lines(caplog)) == log.LINES

    def test_outside_of_an_operation_is_not_told_at_its_end(
        self,
        memory_engine: sa.Engine,
        caplog: pytest.LogCaptureFixture,
        clock: Clock,
    ) -> None:
        message = message_class()
        fill(memory_engine, message, *["PROMOTED"] * 25)
        block(memory_engine, message)
        with operation("Work"):
            pass
        assert "left out" not in caplog.text

    def test_is_told_when_the_interpreter_exits(self) -> None:
        script = """
            from statekit.observe.hook import publish
            from statekit.observe.move import Move
            publish([Move(
                kind="blocked", subject=1, model="Message", attribute="status", source="A", target="B", new=False,
                identities=((1,),) * 12, number=12, allowed=(), mode="raise", operation=None,
            )])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert "2 more equal lines were left out" in done.stderr

    def test_of_rows_without_known_keys_has_a_line_for_each(self, caplog: pytest.LogCaptureFixture) -> None:
        publish([Move(
            kind="blocked", subject=1, model="Message", attribute="status", source="A", target="B", new=False,
            identities=(), number=3, allowed=(), mode="raise", operation=None,
        )])  # fmt: skip
        assert len(lines(caplog)) == 3
