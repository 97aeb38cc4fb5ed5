"""A bar in the terminal: ``transition_all(…, progress=statekit.bulk.bar())``."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import time
import unicodedata
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from statekit.bulk.result import BulkResult, verb_of

_WIDEST = 30
_NARROWEST = 5
_PAUSE = 0.1
"""How many seconds a drawn bar stays: more often, nobody could read it, and a slow terminal would slow the work."""


class Bar:
    """Draws how far a bulk transition has come; :func:`bar` makes it.

    It is one line, which is drawn again and again. A call cannot tell a bar that it has returned, and need not: the
    line is ended when the bar is closed or goes away. Until then a bar may serve several calls.

    Args:
        file: what it is written to; None for the standard output.
    """

    def __init__(self, file: Any = None) -> None:
        self._file = file
        self._open = False
        self._drawn = ""
        self._drawn_at = 0.0
        self._waiting: BulkResult | None = None
        self._last: tuple[str, str] | None = None
        self._start: BulkResult | None = None
        self._start_at = 0.0
        self._size = _WIDEST

    def __call__(self, result: BulkResult) -> None:
        """Show a result."""
        now = time.monotonic()
        if self._start is None or self._start.job != result.job:
            self.close()
            self._start, self._start_at, self._size = result, now, _WIDEST
        if not self._is_terminal():
            self._print(result)
        elif self._open and now - self._drawn_at < _PAUSE:
            self._waiting = result
        else:
            self._draw(result, now)
        if result.finished or result.cancelled:
            self.close()

    def close(self) -> None:
        """Show the last result, if it is not drawn yet, and end the line."""
        if not self._open:
            return
        if self._waiting is not None:
            self._draw(self._waiting, time.monotonic())
        self._open, self._drawn, self._start = False, "", None
        self._write("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):  # the file may be closed, or the interpreter about to end
            self.close()

    # -- writing

    def _draw(self, result: BulkResult, now: float) -> None:
        self._waiting = None
        said = (result.job, str(result))
        if not self._open and said == self._last:
            return  # the line that ended has said so
        self._last = said
        text = self._text(result, now)
        # Blanks over what was longer before, and no escape codes: every terminal can do that.
        rest = " " * (_width(self._drawn) - _width(text))
        self._write(f"\r{text}{rest}")
        self._open, self._drawn, self._drawn_at = True, text, now

    def _print(self, result: BulkResult) -> None:
        said = (result.job, str(result))
        if said != self._last:
            self._write(f"{result}\n")
        self._last = said

    def _write(self, text: str) -> None:
        file = self._out
        file.write(text)
        file.flush()

    @property
    def _out(self) -> Any:
        return sys.stdout if self._file is None else self._file

    def _is_terminal(self) -> bool:
        is_terminal = getattr(self._out, "isatty", None)
        return bool(is_terminal is not None and is_terminal())

    # -- what is written

    def _text(self, result: BulkResult, now: float) -> str:
        """Return a line that fits: what matters least is left out first, or made shorter."""
        columns = self._columns() - 1  # in the last column, some terminals go to the next line
        said = str(result)
        rest = self._rest(result, now)
        for parts in ((self._name(result), rest), ("", rest), ("", "")):
            room = columns - sum(_width(part) + 2 for part in (*parts, said) if part) - 2
            if room >= _NARROWEST:
                break
        else:
            return _cut(said, columns)
        name, rest = parts
        self._size = size = min(self._size, room)  # it never grows: a bar that breathes cannot be read
        full = int(result.share * size)
        return "  ".join(part for part in (name, f"[{'#' * full}{'-' * (size - full)}]", said, rest) if part)

    def _name(self, result: BulkResult) -> str:
        name = result.operation or verb_of(None)
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        name = (name if name.isprintable() else repr(name)).encode(encoding, "replace").decode(encoding)
        return name if _width(name) <= _WIDEST else _cut(name, _WIDEST - 3) + "..."

    def _rest(self, result: BulkResult, now: float) -> str:
        """Return how long what remains takes: by what this bar has seen, and before that by the estimate."""
        assert self._start is not None
        seen = self._start.remaining - result.remaining
        if not result.remaining:
            return ""
        if seen > 0:
            left = result.remaining * (now - self._start_at) / seen
        elif result.estimate is not None and result.total:
            left = result.estimate.total_seconds() * result.remaining / result.total
        else:
            return ""
        return f"{dt.timedelta(seconds=round(left))} left" if left < 8_640_000 else ""

    def _columns(self) -> int:
        with suppress(AttributeError, OSError, ValueError):
            if columns := os.get_terminal_size(self._out.fileno()).columns:
                return columns
        return shutil.get_terminal_size().columns


def bar(file: Any = None) -> Bar:
    """Return a function for ``progress=`` that draws a bar.

    Args:
        file: what it is written to; None for the standard output. Where that is no terminal, each line of text that
            differs from the one before is printed instead.

    Returns:
        The bar. Where it outlives the call, ``with bar() as progress:`` or ``.close()`` ends its line.
    """
    return Bar(file)


def _width(text: str) -> int:
    """Return how many columns a text takes: two for a letter such as those of Chinese, none for an accent."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _cut(text: str, columns: int) -> str:
    while _width(text) > columns:
        text = text[:-1]
    return text
