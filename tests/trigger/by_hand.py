"""What the tests of the catalog and of the findings share: a table, its trigger, and statements to change them with."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from statekit.trigger import StateTrigger
from tests.support.databases import execute

MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]

TABLE = "CREATE TABLE message (id integer PRIMARY KEY, status text, subject text DEFAULT '')"


def trigger(**options: Any) -> StateTrigger:
    """Return the trigger of the inbox, with other options."""
    values: dict[str, Any] = {"table": "message", "column": "status", "transitions": MOVES, "initial": ["READY"]}
    return StateTrigger(**values | options)


def install(engine: sa.Engine, *triggers: StateTrigger) -> None:
    """Make triggers, as a migration would."""
    for each in triggers:
        execute(engine, *each.create_sql(engine.dialect))
