"""Units of work that have a name: ``with statekit.operation("Spam capture", on_illegal="skip") as op``."""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from statekit.errors import Pair, show_pairs
from statekit.observe import log
from statekit.observe.modes import OnIllegal, check_on_illegal

_innermost: ContextVar[Operation | None] = ContextVar("statekit_operation", default=None)


class Operation:
    """A named unit of work and what was counted in it; made by :func:`operation`.

    A move is counted when it happens, whether or not its transaction commits later. A block inside of another one adds
    to both, and the innermost block that names ``on_illegal`` decides.

    Attributes:
        name (str): as given.
        on_illegal (str | None): "raise", "skip", "observe", or None to leave it to each guard.
        allowed (Counter): rows that moved legally, by (source, target) as text.
        blocked (Counter): rows that were refused; new rows have a source of None.
        observed (Counter): rows whose illegal move was let through by "observe".
        overridden (Counter): rows whose illegal move was let through on purpose.
        moved (int): rows that changed their state, legally or not; new rows are not among them.
    """

    def __init__(self, name: str, on_illegal: OnIllegal | None) -> None:
        self.name = name
        self.on_illegal = on_illegal
        self.allowed: Counter[Pair] = Counter()
        self.blocked: Counter[Pair] = Counter()
        self.observed: Counter[Pair] = Counter()
        self.overridden: Counter[Pair] = Counter()
        self.moved = 0
        self._outer: Operation | None = None
        self._token: Token[Operation | None] | None = None
        self._state = "new"
        self._lock = threading.Lock()

    @property
    def outer(self) -> Operation | None:
        """The nearest block around this one that has not ended, or None."""
        return _still_open(self._outer)

    def add(self, kind: str, pair: Pair, number: int, *, new: bool) -> None:
        """Count moves here and in the blocks around this one; called by the guard."""
        with self._lock:
            counter: Counter[Pair] = getattr(self, kind)
            counter[pair] += number
            if kind != "blocked" and not new:
                self.moved += number
        if (outer := self.outer) is not None:
            outer.add(kind, pair, number, new=new)

    def __str__(self) -> str:
        parts = [f"{self.moved:,} moved"]
        for kind in ("blocked", "observed", "overridden"):
            counter: Counter[Pair] = getattr(self, kind)
            if counter:
                parts.append(f"{sum(counter.values()):,} {kind} ({show_pairs(counter)})")
        return f"{self.name}: {', '.join(parts)}"

    def __repr__(self) -> str:
        return f"<statekit operation {self}>"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(
                f"operation({self.name!r}) was entered before: each block needs an operation(...) of its own."
            )
        self._state = "open"
        self._outer = current_operation()
        self._token = _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A task that was started inside of the block has inherited it, and may outlive it: from here on it is ignored.
        self._state = "closed"
        try:
            if self._token is not None and _innermost.get() is self:  # else a block that is still open would be lost
                _innermost.reset(self._token)
        except ValueError:
            pass  # left in another context than it was entered in (an async generator's clean-up): closed is enough
        self._tell(failed=error is not None)

    def _tell(self, *, failed: bool) -> None:
        irregular = self.blocked or self.observed or self.overridden
        log.write_operation(self.name, str(self), failed=failed, quiet=not irregular)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def operation(name: str, *, on_illegal: OnIllegal | None = None) -> Operation:
    """Name a unit of work, collect what moved and what was refused in it, and choose what an illegal move does.

    Use it as ``with`` or ``async with``. It holds for the current task and thread, and for tasks started inside; a
    thread started inside does not inherit it. A generator that yields inside of a block is not supported: the block
    would hold for whoever runs the generator.

    Args:
        name: what reports and logs call it, such as "Spam capture".
        on_illegal: "raise", "skip" or "observe" for every guard in the block; None leaves it to each guard, or to
            the block around this one.

    Returns:
        An :class:`Operation`; ``print()`` it for a summary.

    Raises:
        ValueError: the name is empty or no text, or ``on_illegal`` is none of the three.
        RuntimeError: when the same object is entered twice.

    >>> with operation("Spam capture", on_illegal="skip") as op:
    ...     pass
    >>> print(op)
    Spam capture: 0 moved
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"operation(name): a name for reports is needed, such as 'Spam capture'; got {name!r}")
    if on_illegal is not None:
        try:
            on_illegal = check_on_illegal(on_illegal)
        except ValueError as error:
            raise ValueError(f"operation({name!r}): {error}") from None
    return Operation(name, on_illegal)


def current_operation() -> Operation | None:
    """Return the innermost block that is open here, or None."""
    innermost = _innermost.get()
    return None if innermost is None else _still_open(innermost)


def current_on_illegal() -> OnIllegal | None:
    """Return what the innermost open block that says it wants done about illegal moves, or None where none says."""
    block = current_operation()
    while block is not None:
        if block.on_illegal is not None:
            return block.on_illegal
        block = block.outer
    return None


def _still_open(block: Operation | None) -> Operation | None:
    while block is not None and block._state != "open":
        block = block._outer
    return block
