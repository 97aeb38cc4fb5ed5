"""The messages of the incident, each of which takes as long as it did then."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.bulk_button.model import Base, Message, Status

READY = 1_418
PROMOTED = 5
SECONDS = 0.01
"""What one message takes: 1,418 of them 14 seconds."""

_ON_POSTGRESQL = (
    "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$",
    "CREATE TRIGGER message_takes_time AFTER UPDATE OF status ON message FOR EACH ROW EXECUTE FUNCTION take_time()",
)
_ON_SQLITE = (
    "CREATE TRIGGER message_takes_time AFTER UPDATE OF status ON message BEGIN SELECT take_time({seconds}); END",
)


async def fill(engine: AsyncEngine, *, ready: int = READY, promoted: int = PROMOTED, seconds: float = SECONDS) -> None:
    """Make the tables and the messages.

    Args:
        engine: of an empty database.
        ready: how many messages are ready.
        promoted: how many are the work of an agent.
        seconds: what it takes to move one; 0 for no more than it takes.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    if seconds and is_sqlite:
        event.listen(engine.sync_engine, "connect", _add_function)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if seconds:
            for statement in _ON_SQLITE if is_sqlite else _ON_POSTGRESQL:
                await connection.execute(text(statement.format(seconds=seconds)))
        rows = [{"subject": f"Message {number}", "status": Status.READY} for number in range(ready + promoted)]
        await connection.execute(insert(Message), rows)
        # As a migration would write it: an agent has promoted these before there was a table of transitions.
        last = {"first": ready}
        await connection.execute(text("UPDATE message SET status = 'PROMOTED' WHERE id > :first"), last)


def _add_function(connection: Any, record: Any) -> None:
    connection.create_function("take_time", 1, time.sleep)
