"""What both kinds of metrics have in common: which moves they hear of, and what they call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from statekit.errors import StatekitError
from statekit.observe import hook
from statekit.observe.move import Kind, Move

KINDS: dict[Kind, str] = {
    "blocked": "Rows whose illegal move was refused.",
    "allowed": "Rows that made a legal move.",
    "observed": "Rows whose illegal move was let through by the mode observe.",
    "overridden": "Rows whose illegal move was let through on purpose by override().",
}
"""The counters, and what they say that they count."""

NEW = "(new)"
"""The source of a new row."""
NULL = "NULL"
"""The source or target of a row without a state."""


class PackageMissing(StatekitError, ImportError):
    """Metrics were asked for, and the package that they are given to is not installed.

    Attributes:
        name (str): the module that was not found.
        extra (str): the extra of statekit that has it.
    """

    def __init__(self, name: str, extra: str) -> None:
        super().__init__(
            f'statekit.metrics.{extra} needs the module {name}, which is not installed: pip install "statekit[{extra}]"'
        )
        self.name = name
        self.extra = extra


@contextmanager
def needed(package: str, extra: str) -> Iterator[None]:
    """Import a package of an extra inside of this block.

    Args:
        package: the top-level module.
        extra: the extra of statekit that has it.

    Raises:
        PackageMissing: it is not installed. An import that fails inside of it is another matter, and stays as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise PackageMissing(package, extra) from error


@dataclass(frozen=True, eq=False, slots=True)
class Listening:
    """Counters that hear of moves now.

    Attributes:
        to: what they belong to: a registry or a meter provider.
        allowed: whether they count legal moves.
        end: the function that was given to the caller.
    """

    to: Any
    allowed: bool
    end: Callable[[], None]

    def again(self, allowed: bool, call: str) -> Callable[[], None]:
        """Return the function that ends it, for a caller who asks for the same once more.

        Raises:
            StatekitError: something else is asked for; a second set of counters would count every move twice.
        """
        if allowed is self.allowed:
            return self.end
        raise StatekitError(
            f"{call}(…, allowed={allowed}): these counters exist already, with allowed={self.allowed}. Call it once, "
            "or first call the function that it returned, which ends it."
        )


def source_and_target(move: Move) -> tuple[str, str]:
    """Return a move as metrics show it: text in any case, because they know no None."""
    source = NEW if move.new else _text(move.source)
    return source, _text(move.target)


def _text(state: str | None) -> str:
    return NULL if state is None else state


def listen(count: Callable[[Move], None], *, allowed: bool) -> Callable[[], None]:
    """Have a function called with each move.

    Args:
        count: called with it.
        allowed: whether legal moves are wanted; if not, nothing is spent on collecting them.

    Returns:
        A function that ends it; calling it twice does no harm.
    """

    def hear(moves: Sequence[Move], on: Any = None) -> None:
        for move in moves:
            if move.kind in KINDS:  # what a trigger has refused is counted in the database alone
                count(move)

    return hook.subscribe(hear) if allowed else hook.keep(hear)
