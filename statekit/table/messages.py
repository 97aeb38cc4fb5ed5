"""How a wrong declaration is reported: where it stands, what is wrong, what is allowed and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from statekit.errors import TableError

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a declaration: in a chain of text with the columns, elsewhere by description.

    Args:
        label: which part of the declaration, such as ``chain 2``.
        text: the whole text of the chain; None for every other form.
        start: offset in the text of what is meant.
        end: offset just after it.
    """

    label: str
    text: str | None = None
    start: int = 0
    end: int = 0

    def at(self, start: int, end: int) -> Place:
        """Return the place of another part of the same text."""
        return replace(self, start=start, end=end)

    def describe(self) -> str:
        """Return the place in words, for the middle of a sentence.

        >>> Place("chain 2", "A → B", 4, 5).describe()
        'chain 2, column 5'
        """
        if self.text is None:
            return self.label
        line = self.text.count("\n", 0, self.start)
        in_line = f", line {line + 1}" if line else ""
        return f"{self.label}{in_line}, column {self.start - self._line_start() + 1}"

    def error(self, problem: str, mend: str) -> TableError:
        """Return the error for this place.

        Args:
            problem: what is wrong, without a full stop.
            mend: what is allowed and how to mend it, in whole sentences.

        >>> print(Place("chain 1", "A => B", 2, 4).error("'=>' is no arrow", "Write → or ->."))
        chain 1, column 3: '=>' is no arrow.
            A => B
              ^^
        Write → or ->.
        """
        if self.text is None:
            return TableError(f"{self.label}: {problem}. {mend}")
        return TableError(f"{self.describe()}: {problem}.\n{self._quote()}\n{mend}")

    def _line_start(self) -> int:
        text = self.text or ""
        return max(text.rfind("\n", 0, self.start), text.rfind("\r", 0, self.start)) + 1

    def _quote(self) -> str:
        begin = self._line_start()
        rest = (self.text or "")[begin:]
        line = rest.replace("\r", "\n").split("\n", 1)[0]
        # A tab or a control character would move the caret away from what it points at.
        shown = "".join(c if c.isprintable() else " " for c in line)
        return f"    {shown.rstrip()}\n    {' ' * (self.start - begin)}{'^' * max(1, self.end - self.start)}"


def quote(state: str | None) -> str:
    """Return a state as messages about declarations show it: quoted, and NULL for None."""
    return "NULL" if state is None else repr(state)


def listing(states: Iterable[str | None]) -> str:
    """Return states for a message, the rest counted where there are many.

    >>> listing(["A", None])
    "'A', NULL"
    """
    shown = [quote(s) for s in states]
    more = f" and {len(shown) - _LISTED:,} more" if len(shown) > _LISTED else ""
    return ", ".join(shown[:_LISTED]) + more


def suggestion(text: str | None, known: Iterable[str | None]) -> str:
    """Return a question that names the known state nearest to a text, with a space before it, or nothing.

    >>> suggestion("raedy", ["READY", "DONE"])
    " Did you mean 'READY'?"
    """
    if text is None:
        return ""
    # People get the case wrong as often as the letters.
    by_lower = {k.lower(): k for k in known if k is not None}
    near = difflib.get_close_matches(text.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def short(value: object) -> str:
    """Return the repr of anything that was passed, cut to a length that fits in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
