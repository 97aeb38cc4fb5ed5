"""The audited way past the guard: ``with statekit.override("wrong queue, ticket 4711", actor="ada")``."""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

_innermost: ContextVar[Override | None] = ContextVar("statekit_override", default=None)


class Override:
    """A block in which illegal moves are let through; made by :func:`override`.

    Attributes:
        reason (str): as given.
        actor (str | None): as given, else that of the block around this one.
    """

    def __init__(self, reason: str, actor: str | None) -> None:
        self.reason = reason
        self.actor = actor
        self._outer: Override | None = None
        self._token: Token[Override | None] | None = None
        self._runner: tuple[object, ...] = ()
        self._state = "new"

    @property
    def is_in_force(self) -> bool:
        """Whether the block is open, and is this very thread's and task's."""
        return self._state == "open" and self._runner == _runner()

    @property
    def outer(self) -> Override | None:
        """The nearest block around this one that is in force, or None."""
        return _in_force(self._outer)

    def __repr__(self) -> str:
        return f"<statekit override {self.reason!r} by {self.actor}>"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(
                f"override({self.reason!r}) was entered before: each block needs an override(...) of its own."
            )
        self._runner = _runner()
        self._outer = current_override()
        if self.actor is None and self._outer is not None:
            self.actor = self._outer.actor
        self._state = "open"
        self._token = _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "closed"  # from here on it is ignored wherever it was inherited
        self._runner = ()  # a task that is over is not kept
        try:
            if self._token is not None and _innermost.get() is self:  # else a block that is still open would be lost
                _innermost.reset(self._token)
        except ValueError:
            pass  # left in another context than it was entered in: closed is enough

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def override(reason: str, *, actor: str | None = None) -> Override:
    """Let illegal moves through for a block, to repair rows: each is counted, logged and, with a ledger, recorded.

    Use it as ``with`` or ``async with``. What is written inside of the block passes the guard and the fence: illegal
    moves, moves to which a condition says no, and new rows in any state. An object that was changed in the block and
    is flushed after it is judged as ever. The block holds for the thread and the task that entered it and for nobody
    else: neither a thread, a task nor a process that is started inside inherits it. A generator that yields inside of a
    block is not supported, unless a context manager is made of it: the block would hold for whoever runs the generator.
    Where a ledger is attached to the engine, its entry is written in the transaction of the move itself, so that no
    overridden move stays without one; in AUTOCOMMIT there is none, and the write is refused.

    Args:
        reason: why, for whoever reads the ledger later, such as "wrong queue, ticket 4711".
        actor: who does it, such as a user's name; None for the actor of the block around this one, if there is one.

    Returns:
        An :class:`Override`, to be entered once.

    Raises:
        ValueError: the reason is empty or no text, or the actor is empty or no text.
        RuntimeError: when the same object is entered twice.

    >>> with override("wrong queue, ticket 4711", actor="ada") as repair:
    ...     print(repair)
    <statekit override 'wrong queue, ticket 4711' by ada>
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"override(reason): a reason is needed, such as 'wrong queue, ticket 4711'; got {reason!r}")
    if actor is not None and (not isinstance(actor, str) or not actor.strip()):
        raise ValueError(f"override({reason!r}, actor={actor!r}): allowed is a name, or None")
    return Override(reason, actor)


def current_override() -> Override | None:
    """Return the innermost block that is in force here, or None."""
    innermost = _innermost.get()
    return None if innermost is None else _in_force(innermost)


def _in_force(block: Override | None) -> Override | None:
    while block is not None and not block.is_in_force:
        block = block._outer
    return block


class _Here(threading.local):
    """What stands for a thread: unlike its number, it is not given to another thread later."""

    def __init__(self) -> None:
        self.thread = object()


_here = _Here()


def _forget_the_parent() -> None:
    """Let no block that is open in the parent be in force in a process that was forked inside of it."""
    _here.thread = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parent)


def _runner() -> tuple[object, ...]:
    """Return what runs here: the thread, and in an event loop the task, or None in one of the loop's callbacks."""
    try:
        return _here.thread, asyncio.current_task()
    except RuntimeError:
        return (_here.thread,)
