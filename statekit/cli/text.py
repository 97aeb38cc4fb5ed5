"""What people read in a terminal: aligned tables, colours, and names that cannot break a line."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import click

from statekit.errors import show_state


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return the lines of an aligned table, the headings first.

    Args:
        headings: of the columns.
        rows: their cells.
        right: which columns are aligned to the right, as numbers are.
    """
    rows = [[*row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [styled(line(headings), bold=True), *map(line, rows)]


def styled(text: str, **style: Any) -> str:
    """Return a text in colours; ``click.echo`` takes them out again where it does not write to a terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what is counted.

    >>> counted(1, "move"), counted(1200, "move"), counted(2, "entry", "entries")
    ('1 move', '1,200 moves', '2 entries')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def line_of(text: str | None) -> str:
    """Return a text from the database as it can be shown: on one line, and without what would command a terminal."""
    return "" if text is None else text if text.isprintable() else repr(text)


def move(source: str | None, target: str | None, *, new: bool) -> str:
    """Return a move as text, such as "PROMOTED → SPAM_REVIEW", or "(new) → PROMOTED" for a new row."""
    return f"{'(new)' if new else show_state(source)} → {show_state(target)}"


def place_of(table_name: str | None, attribute: str | None) -> str:
    """Return what the guard is on, such as "message.status"."""
    return line_of(f"{table_name}.{attribute}") if table_name is not None else "(unknown)"
