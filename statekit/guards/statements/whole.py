"""Several statements that are one for whoever called: in "raise", all of them are taken back if one is refused.

SQLAlchemy executes a bulk INSERT or UPDATE once for each table of a class, and once for each run of sets of parameters
with the same keys. What they report is collected until the last one, and then told as that of one statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from statekit.guards.current import asking
from statekit.guards.statements.savepoint import savepoint

if TYPE_CHECKING:
    from statekit.guards.statements.account import Account

_collected: ContextVar[list[Account] | None] = ContextVar("statekit_collected", default=None)


def is_collecting() -> bool:
    """Return whether what is refused is told at the end of several statements."""
    return _collected.get() is not None


def collect(account: Account) -> None:
    """Keep an account until the last of the statements."""
    collected = _collected.get()
    assert collected is not None
    collected.append(account)


@contextmanager
def as_a_whole(connection: Connection, table: Any) -> Iterator[None]:
    """Take what is executed in the block for one statement.

    Args:
        connection: which it is executed on.
        table: one of the tables that are written.

    Raises:
        IllegalTransition: at the end of the block, for all that was refused in it. Nothing was changed.
    """
    accounts: list[Account] = []
    with savepoint(connection, table, asking(connection)) as opened:
        if opened is None or is_collecting():
            yield
            return
        before = _collected.set(accounts)
        try:
            yield
        finally:
            _collected.reset(before)
        refused = [account for account in accounts if account.is_refused]
        if refused:
            opened.rollback()
            for other in refused[1:]:
                refused[0].merge(other)
            refused[0].refuse()
    for account in accounts:
        account.publish()
