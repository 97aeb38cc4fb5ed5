"""Errors that go away by themselves, and when to try again."""

from __future__ import annotations

import random
from collections.abc import Callable

import sqlalchemy as sa

_STATES = {
    "40001": "serialization failure",
    "40P01": "deadlock",
    "55P03": "lock time-out",
    "57P01": "connection ended by the server",
    "57P02": "connection ended by the server",
    "57P03": "server not ready",
    "25P03": "connection ended by the server",
    "53300": "too many connections",
}
_AWAY = (
    "connection refused",
    "connection failed",
    "could not connect",
    "no such file or directory",
    "starting up",
    "shutting down",
    "in recovery",
    "server closed the connection",
)

CONNECTION_LOST = "connection lost"
_ENDED = "57014"
_FIRST, _LONGEST = 0.05, 2.0


def _state(error: sa.exc.DBAPIError) -> str | None:
    of_driver = getattr(error, "driver_exception", None) or error.orig
    for each in (error.orig, of_driver):
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if state:
            return str(state)
    return None


def was_ended(error: BaseException) -> bool:
    """Return whether a statement was ended because it took too long."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    return _state(error) == _ENDED or str(error.orig) == "interrupted"


def reason_of(error: BaseException) -> str | None:
    """Return what is told of an error that goes away by itself, or None if it does not."""
    if isinstance(error, sa.exc.TimeoutError):
        return "no free connection in the pool"
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    state = _state(error)
    if state in _STATES:
        return _STATES[state]
    if error.connection_invalidated:
        return CONNECTION_LOST
    text = str(error.orig).lower()
    if "database is locked" in text or "database table is locked" in text:
        return "database locked"
    if "too many clients" in text or "too many connections" in text:
        return _STATES["53300"]
    return None


def is_away(error: BaseException) -> bool:
    """Return whether a server cannot be reached; while it is being restarted, that goes away by itself.

    Drivers tell no SQLSTATE then, and those for asyncio an error of the operating system.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) or _state(error) is not None:
        return False
    text = str(error.orig).lower()
    return any(each in text for each in _AWAY)


def pause_before(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """Return how many seconds to wait before trying again: 0.05, 0.1, 0.2, … up to 2, less up to a half at random.

    Args:
        attempt: 1 for the first time.
        jitter: a random number from 0 to 1, so that those who have met do not meet again.
    """
    longest: float = min(_LONGEST, _FIRST * 2.0 ** (attempt - 1))
    return longest * (1 - jitter() / 2)
