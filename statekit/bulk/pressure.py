"""When a bulk transition stands back: while others need the connections more than it does."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy.pool import QueuePool

PAUSE = 0.05
"""How many seconds pass before it looks again."""

TURN = 1.0
"""After how many seconds of work on SQLite others get their turn, who wait for the one lock of the file."""

GIVE_WAY = 0.11
"""For how many seconds: who waits looks every 0.1 seconds at least (sqliteDefaultBusyCallback in SQLite's main.c)."""


class PoolState(Protocol):
    """What is asked of a pool guard.

    Attributes:
        state: "normal", "warning" or "critical"; a bulk transition goes on when it is "normal".
    """

    @property
    def state(self) -> str: ...


def must_wait(pool_guard: PoolState | None, pool: Any) -> bool:
    """Return whether the next batch has to wait.

    Args:
        pool_guard: what the caller has given.
        pool: of the engine: where all its connections are in use, to ask for one might take longer than is left.
    """
    if pool_guard is not None and pool_guard.state != "normal":
        return True
    if not isinstance(pool, QueuePool):
        return False
    return pool._max_overflow >= 0 and pool.checkedout() >= pool.size() + pool._max_overflow
