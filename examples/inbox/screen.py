"""Printing: with colours in a terminal, as plain lines in a pipe or a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text


class Screen:
    """Where the story goes.

    Attributes:
        plain: whether it is no terminal: no colours then, no lines to draw with, and no line is wrapped.
    """

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # an arrow must not end the demo where the encoding has none
        self._console = Console(markup=False, emoji=False, highlight=False)
        self.plain = not self._console.is_terminal
        self._begun = False
        if self.plain:
            self._console.width = 120  # for tables; a pipe has no width of its own

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        if self._begun:
            self.say("")
        self._begun = True
        if self.plain:
            self.say(f"== {text}")
        else:
            self._console.rule(Text(text, style="bold"), align="left", style="cyan")

    def say(self, text: str, style: str = "", *, crop: bool = False) -> None:
        """Print a sentence or a line; ``crop`` cuts it off at the edge of a terminal."""
        if self.plain:
            self._console.print(text, soft_wrap=True)
        else:
            self._console.print(Text(text, style), no_wrap=crop, overflow="ellipsis" if crop else "fold")

    def code(self, text: str, language: str) -> None:
        """Print source code, indented."""
        if self.plain:
            for line in text.splitlines():
                self.say(f"    {line}".rstrip())
        else:
            coloured = Syntax("", language, theme="ansi_dark", background_color="default").highlight(text)
            coloured.rstrip()
            self._console.print(Padding(coloured, (0, 0, 0, 4)))

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[object]], *, numbers_from: int) -> None:
        """Print a table; the columns from ``numbers_from`` on are set to the right."""
        lines = None if self.plain else box.SIMPLE_HEAD
        table = Table(box=lines, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
        for position, column in enumerate(columns):
            table.add_column(column, justify="right" if position >= numbers_from else "left")
        for row in rows:
            table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
        if not self.plain:
            self._console.print(Padding(table, (0, 0, 0, 4)))
            return
        with self._console.capture() as captured:
            self._console.print(table)
        for line in captured.get().splitlines():
            self.say(f"    {line}".rstrip())
