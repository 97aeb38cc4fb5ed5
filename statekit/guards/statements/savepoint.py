"""A savepoint around something that may have to be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, NestedTransaction

from statekit.guards.current import Ask, lock_database


@contextmanager
def savepoint(connection: Connection, table: Any, ask: Ask, wanted: bool = True) -> Iterator[NestedTransaction | None]:
    """Open a savepoint, which is released at the end of the block unless it was rolled back there.

    Args:
        connection: which it is opened on.
        table: which is written.
        ask: executes statements of our own.
        wanted: whether to open one at all.

    Returns:
        A context manager for the savepoint; None where none is wanted, or where there is no transaction (AUTOCOMMIT).
    """
    if not wanted or connection._is_autocommit_isolation():
        yield None
        return
    if connection.dialect.name == "sqlite":
        # Its driver begins a transaction with the first write: released before that, a savepoint would commit.
        lock_database(ask, table)
    opened = connection.begin_nested()
    try:
        yield opened
    except BaseException:
        if opened.is_active:
            opened.rollback()
        raise
    if opened.is_active:
        opened.commit()
