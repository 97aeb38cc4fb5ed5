"""statekit.bulk.bar(): what a terminal shows while a bulk transition goes on, and what a file gets instead."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import os
import select
import termios
import tty
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import transition_all
from statekit.bulk import BulkResult, bar, terminal
from tests.ledger.books import inbox

START = BulkResult(
    done=0,
    total=1418,
    remaining=1418,
    blocked=0,
    elapsed=dt.timedelta(),
    estimate=None,
    batches=0,
    job="a" * 32,
    finished=False,
    operation="Spam capture",
)


def after(done: int, start: BulkResult = START, **more: Any) -> BulkResult:
    return dataclasses.replace(start, done=done, remaining=start.total - done, **more)


class Terminal:
    """A terminal of this machine's operating system, and what stands on its screen.

    Attributes:
        file: what is written to it.
        columns: how wide it is.
    """

    def __init__(self, columns: int = 100, encoding: str = "utf-8") -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)  # what is read is what was written
        self.columns = columns
        termios.tcsetwinsize(slave, (24, columns))
        self.file = open(slave, "w", encoding=encoding)  # noqa: SIM115
        self.text = ""

    def close(self) -> None:
        self.file.close()
        os.close(self._master)

    def read(self) -> str:
        while select.select([self._master], [], [], 0.05)[0]:
            self.text += os.read(self._master, 65_536).decode(self.file.encoding)
        return self.text

    def screen(self) -> list[str]:
        """Return the lines on the screen; the last one is that of the cursor."""
        lines, line, column = [], [" "] * self.columns, 0
        for each in self.read():
            assert each in "\r\n" or each.isprintable(), "no codes that some terminals do not know"
            size = 2 if unicodedata.east_asian_width(each) in "WF" else 1
            if each == "\r":
                column = 0
                continue
            if each == "\n" or column + size > self.columns:
                lines.append("".join(line).rstrip())
                line, column = [" "] * self.columns, 0
            if each != "\n":
                line[column : column + size] = [each] + [""] * (size - 1)
                column += size
        return [*lines, "".join(line).rstrip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(terminal, "_PAUSE", 0.0)
    made = Terminal()
    yield made
    made.close()


class TestInATerminal:
    def test_it_is_one_line_that_is_drawn_again(self, screen: Terminal) -> None:
        show = bar(screen.file)
        for done in (0, 100, 709):
            show(after(done))
        (line,) = screen.screen()
        assert line.startswith("Spam capture  [")
        assert "]  Captured 709 / 1,418 (709 remaining)  0:00:00 left" in line

    def test_the_share_is_that_of_the_job(self, screen: Terminal) -> None:
        show = bar(screen.file)
        show(after(0))
        show(after(709))
        line = screen.screen()[-1]
        assert abs(line.count("#") - line.count("-")) <= 1

    @pytest.mark.parametrize("end", [{"finished": True}, {"cancelled": True}])
    def test_the_line_ends_with_the_job(self, screen: Terminal, end: dict[str, bool]) -> None:
        show = bar(screen.file)
        show(after(100))
        show(after(200, **end))
        assert screen.screen()[1:] == [""]

    def test_the_line_ends_when_the_bar_goes_away(self, screen: Terminal) -> None:
        bar(screen.file)(after(100))
        assert screen.screen()[1:] == [""]

    def test_the_line_ends_with_the_block(self, screen: Terminal) -> None:
        with bar(screen.file) as show:
            show(after(100))
            assert len(screen.screen()) == 1
        assert screen.screen()[1:] == [""]

    def test_a_line_that_has_ended_is_not_shown_again(self, screen: Terminal) -> None:
        with bar(screen.file) as show:
            show(after(1418, finished=True))
            show(after(1418, finished=True))
        assert len(screen.screen()) == 2

    def test_several_calls_go_on_with_the_same_line(self, screen: Terminal) -> None:
        show = bar(screen.file)
        for done in (0, 100, 100, 200):
            show(after(done, elapsed=dt.timedelta(seconds=done % 3)))
        (line,) = screen.screen()
        assert "200 / 1,418" in line

    def test_another_job_has_a_line_of_its_own(self, screen: Terminal) -> None:
        show = bar(screen.file)
        show(after(100))
        show(after(7, job="b" * 32))
        first, second = screen.screen()
        assert ("Captured 100 /" in first, "Captured 7 /" in second) == (True, True)

    @pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
    @pytest.mark.parametrize("operation", ["Spam capture", "スパムの捕獲", "x" * 200, None])
    def test_it_fits(self, monkeypatch: pytest.MonkeyPatch, columns: int, operation: str | None) -> None:
        monkeypatch.setattr(terminal, "_PAUSE", 0.0)
        made = Terminal(columns)
        show = bar(made.file)
        for done in (0, 1, 700, 1400):
            show(after(done, operation=operation))
        assert len(made.screen()) == 1
        made.close()

    def test_what_was_longer_leaves_nothing_behind(self, screen: Terminal) -> None:
        show = bar(screen.file)
        show(after(1, estimate=dt.timedelta(days=80)))
        show(after(1418))
        (line,) = screen.screen()
        assert line.endswith("Captured 1,418 / 1,418 (0 remaining)")

    def test_the_bar_never_grows(self, screen: Terminal) -> None:
        show = bar(screen.file)
        sizes = []
        for done in (0, 10, 500, 1418):
            show(after(done))
            line = screen.screen()[-1]
            sizes.append(line.index("]") - line.index("["))
        assert sizes == sorted(sizes, reverse=True)

    def test_before_the_first_batch_the_estimate_is_shown(self, screen: Terminal) -> None:
        show = bar(screen.file)
        show(after(0, estimate=dt.timedelta(seconds=142)))
        assert screen.screen()[-1].endswith("0:02:22 left")

    def test_a_name_cannot_command_the_terminal(self, screen: Terminal) -> None:
        bar(screen.file)(after(100, operation="a\n\x1b[2Jb"))
        assert screen.screen()[0].startswith("'a\\n\\x1b[2Jb'  [")

    def test_a_name_that_the_terminal_cannot_show_is_no_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Terminal(encoding="ascii")
        bar(made.file)(after(100, operation="Prüfung"))
        assert made.screen()[0].startswith("Pr?fung  [")
        made.close()

    def test_fast_batches_are_not_all_drawn_but_the_last_one_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "_PAUSE", 60.0)
        made = Terminal()
        with bar(made.file) as show:
            for done in range(100):
                show(after(done))
        assert made.read().count("\r") == 2
        assert "Captured 99 / 1,418" in made.screen()[0]
        made.close()

    def test_it_serves_transition_all(self, screen: Terminal, engine: sa.Engine) -> None:
        message = inbox(engine, *["READY"] * 25)
        transition_all(engine, message.status, "SPAM_REVIEW", operation="Spam capture", progress=bar(screen.file))
        line, end = screen.screen()
        assert "Captured 25 / 25 (0 remaining)" in line
        assert end == ""


class TestElsewhere:
    def test_each_text_is_a_line(self) -> None:
        file = io.StringIO()
        show = bar(file)
        show(after(0))
        show(after(100))
        show(after(1418, finished=True))
        assert file.getvalue().splitlines() == [
            "Captured 0 / 1,418 (1,418 remaining)",
            "Captured 100 / 1,418 (1,318 remaining)",
            "Captured 1,418 / 1,418 (0 remaining)",
        ]

    def test_what_was_said_is_not_said_again(self) -> None:
        file = io.StringIO()
        with bar(file) as show:
            show(after(100))
            show(after(100, batches=3))
        assert file.getvalue() == "Captured 100 / 1,418 (1,318 remaining)\n"

    def test_another_job_may_say_the_same(self) -> None:
        file = io.StringIO()
        show = bar(file)
        show(after(100))
        show(after(100, job="b" * 32))
        assert len(file.getvalue().splitlines()) == 2

    def test_it_is_the_standard_output_unless_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        bar()(after(100))
        assert capsys.readouterr().out == "Captured 100 / 1,418 (1,318 remaining)\n"

    def test_a_closed_file_is_no_error_when_the_bar_goes_away(
        self, screen: Terminal, capsys: pytest.CaptureFixture[str]
    ) -> None:
        show = bar(screen.file)
        show(after(100))
        screen.file.close()
        del show
        assert capsys.readouterr().err == ""
