"""A process that ends while moves wait for the ledger; started by test_exit.py with what it is to do, and where.

It prints a line when a move waits, and ends when the test says so, or at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from statekit import IllegalTransition, ledger
from tests.guards.inbox import message_class

TABLE = message_class().__table__
opened: list[Any] = []
"""What is never closed."""


def have_blocked(connection: sa.Connection, identity: int = 1) -> None:
    """Have a move blocked in a transaction that stays open."""
    try:
        connection.execute(sa.update(TABLE).where(TABLE.c.id == identity).values(status="SPAM_REVIEW"))
    except IllegalTransition:
        return
    raise AssertionError("it was let through")


def leave_open(engine: sa.Engine, identity: int = 1) -> None:
    """Have a move wait for a transaction that nobody ends."""
    opened.append(engine.connect())
    have_blocked(opened[-1], identity)


async def leave_open_async(engine: AsyncEngine) -> None:
    """Do the same in an event loop that ends."""
    connection: AsyncConnection = await engine.connect()
    opened.append(connection)
    await connection.run_sync(have_blocked)


def end_by_exit(engine: sa.Engine) -> None:
    leave_open(engine)
    sys.exit(3)


def end_by_error(engine: sa.Engine) -> None:
    leave_open(engine)
    raise LookupError("which ends the process")


def end_while_nothing_can_be_written(engine: sa.Engine) -> None:
    """Fail once, and end when the test says so."""
    leave_open(engine)
    opened.pop().close()
    print("waits", flush=True)
    sys.stdin.readline()


def fork_with_open_transaction(engine: sa.Engine) -> None:
    """Fork while a move waits for a transaction, end that in the child too, and have another one blocked there."""
    leave_open(engine)
    if child := os.fork():
        os.waitpid(child, 0)
        return
    opened.pop()._transaction.close()
    have_blocked_elsewhere(engine)


def fork_while_nothing_can_be_written(engine: sa.Engine) -> None:
    """Fork while a move waits that could not be written, and have another one blocked in the child."""
    end_while_nothing_can_be_written(engine)
    if child := os.fork():
        os.waitpid(child, 0)
        return
    have_blocked_elsewhere(engine)


def fork_by_multiprocessing(engine: sa.Engine) -> None:
    """Do the same with what Python has for it, whose processes do not end as others do."""
    end_while_nothing_can_be_written(engine)
    child = multiprocessing.get_context("fork").Process(target=have_blocked_elsewhere, args=(engine,))
    child.start()
    child.join()


def have_blocked_elsewhere(engine: sa.Engine) -> None:
    """Have the move of another row wait, in a fork."""
    engine.dispose(close=False)
    leave_open(engine, 2)


def main(url: sa.URL, what: str) -> None:
    if url.get_dialect().is_async:
        async_engine = create_async_engine(url)
        ledger.attach(async_engine)
        asyncio.run(leave_open_async(async_engine))
        return
    engine = sa.create_engine(url)
    ledger.attach(engine)
    globals()[what](engine)


if __name__ == "__main__":
    main(sa.make_url(sys.argv[1]), sys.argv[2])
