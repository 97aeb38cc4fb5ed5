"""A named block of work: where it holds, what it collects, how it ends."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from statekit import operation
from statekit.observe.hook import publish
from statekit.observe.move import Kind, Move
from statekit.observe.operation import current_on_illegal, current_operation


def move(kind: Kind = "blocked", number: int = 1, *, source: str | None = "A", new: bool = False) -> Move:
    return Move(
        kind=kind,
        subject="test_operation",
        model="Message",
        attribute="status",
        source=source,
        target="B",
        new=new,
        identities=tuple((n,) for n in range(number)),
        number=number,
        allowed=("C",),
        mode="skip",
        operation=None,
    )


class TestABlock:
    def test_collects_each_kind_of_move(self) -> None:
        with operation("Work") as op:
            publish([move("blocked", 2), move("allowed", 3), move("observed", 4), move("overridden", 5)])
        pair = ("A", "B")
        assert [op.blocked, op.allowed, op.observed, op.overridden] == [{pair: 2}, {pair: 3}, {pair: 4}, {pair: 5}]

    def test_says_what_moved_first_and_then_what_did_not(self) -> None:
        with operation("Work") as op:
            publish([move("blocked", 2000), move("allowed", 3000), move("observed", 4)])
        assert str(op) == "Work: 3,004 moved, 2,000 blocked (A → B: 2000), 4 observed (A → B: 4)"

    def test_does_not_say_that_a_new_row_moved(self) -> None:
        with operation("Work") as op:
            publish([move("observed", 1, source=None, new=True)])
        assert str(op) == "Work: 0 moved, 1 observed (NULL → B: 1)"

    def test_collects_nothing_after_its_end(self) -> None:
        with operation("Work") as op:
            pass
        publish([move()])
        assert op.blocked == Counter()

    def test_adds_to_the_block_around_it_as_well(self) -> None:
        with operation("Outer") as outer, operation("Inner") as inner:
            publish([move()])
        assert inner.blocked == outer.blocked == {("A", "B"): 1}

    def test_may_be_async(self) -> None:
        async def work() -> Any:
            async with operation("Work") as op:
                publish([move()])
            return op

        assert asyncio.run(work()).blocked == {("A", "B"): 1}

    def test_cannot_be_entered_twice(self) -> None:
        op = operation("Work")
        with op:
            pass
        with pytest.raises(RuntimeError, match="operation\\(...\\) of its own"):
            op.__enter__()

    @pytest.mark.parametrize("name", ["", "  ", None, 7])
    def test_needs_a_name(self, name: Any) -> None:
        with pytest.raises(ValueError, match="a name for reports is needed"):
            operation(name)

    def test_knows_three_modes(self) -> None:
        with pytest.raises(ValueError, match='operation\\(\'Work\'\\).*"raise".*"skip".*"observe"'):
            operation("Work", on_illegal="ignore")  # type: ignore[arg-type]


class TestTheMode:
    def test_is_that_of_the_innermost_block_that_names_one(self) -> None:
        with operation("Outer", on_illegal="skip"), operation("Inner"):
            assert current_on_illegal() == "skip"
            with operation("Innermost", on_illegal="observe"):
                assert current_on_illegal() == "observe"

    def test_is_nobodys_outside_of_blocks(self) -> None:
        assert current_on_illegal() is None

    def test_ends_with_its_block_also_when_that_fails(self) -> None:
        with pytest.raises(ZeroDivisionError), operation("Work", on_illegal="skip"):
            1 / 0
        assert current_on_illegal() is None

    def test_of_an_outer_block_that_has_ended_first_holds_no_longer(self) -> None:
        """As in a task that outlives the block around its own."""
        inner = operation("Inner")
        with operation("Outer", on_illegal="skip"):
            task = contextvars.copy_context()
            task.run(inner.__enter__)
        assert task.run(current_on_illegal) is None
        task.run(inner.__exit__, None, None, None)


class TestWhereItHolds:
    def test_in_a_task_started_inside(self) -> None:
        async def work() -> bool:
            with operation("Work") as op:
                return await asyncio.create_task(asks()) is op

        async def asks() -> Any:
            return current_operation()

        assert asyncio.run(work())

    def test_no_longer_in_a_task_that_outlives_it(self) -> None:
        async def work() -> Any:
            with operation("Work", on_illegal="observe"):
                task = asyncio.create_task(later())
                await asyncio.sleep(0)
            return await task

        async def later() -> Any:
            await asyncio.sleep(0.01)
            return current_operation(), current_on_illegal()

        assert asyncio.run(work()) == (None, None)

    def test_a_task_that_outlives_the_inner_block_is_in_the_outer_one(self) -> None:
        async def work() -> bool:
            with operation("Outer") as outer:
                with operation("Inner"):
                    task = asyncio.create_task(later())
                    await asyncio.sleep(0)
                return await task is outer

        async def later() -> Any:
            await asyncio.sleep(0.01)
            return current_operation()

        assert asyncio.run(work())

    def test_not_in_a_thread_started_inside(self) -> None:
        seen: list[Any] = []
        with operation("Work"):
            thread = threading.Thread(target=lambda: seen.append(current_operation()))
            thread.start()
            thread.join()
        assert seen == [None]

    def test_leaving_it_in_another_context_does_not_fail(self) -> None:
        op = operation("Work")
        contextvars.copy_context().run(op.__enter__)
        op.__exit__(None, None, None)
        assert current_operation() is None


class TestTheSummaryLine:
    def test_is_a_warning_if_something_was_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "statekit"), operation("Work"):
            publish([move()])
        line = caplog.records[-1]
        assert (line.levelname, line.getMessage()) == (
            "WARNING",
            "[SELF-HEAL] Operation complete: Work: 0 moved, 1 blocked (A → B: 1)",
        )

    def test_is_information_if_nothing_was(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "statekit"), operation("Work"):
            publish([move("allowed")])
        assert (caplog.records[-1].levelname, caplog.records[-1].getMessage()) == (
            "INFO",
            "[SELF-HEAL] Operation complete: Work: 1 moved",
        )

    def test_says_that_the_block_failed(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "statekit"), pytest.raises(ZeroDivisionError), operation("Work"):
            1 / 0
        assert caplog.records[-1].getMessage() == "[SELF-HEAL] Operation failed: Work: 0 moved"

    def test_is_a_warning_if_something_was_observed(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "statekit"), operation("Work"):
            publish([move("observed")])
        assert caplog.records[-1].levelname == "WARNING"


def test_a_generator_that_ends_inside_of_another_block_does_not_end_that() -> None:
    def left_open() -> Iterator[None]:
        with operation("of the generator"):
            yield

    generator = left_open()
    next(generator)
    with operation("outer") as outer:
        generator.close()  # type: ignore[attr-defined]
        assert current_operation() is outer


def test_an_overridden_move_makes_the_summary_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with operation("Repair"):
        publish([move("overridden")])
    assert [record.levelno for record in caplog.records if "Operation complete" in record.message] == [logging.WARNING]
