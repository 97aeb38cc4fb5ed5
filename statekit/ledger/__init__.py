"""The ledger: a table of what happened, over all processes, in the application's own database.

``statekit.ledger.add_to(metadata)`` gives Alembic its tables, ``statekit.ledger.attach(engine)`` has them written.
"""

from __future__ import annotations

from statekit.ledger.attach import attach as attach
from statekit.ledger.attach import detach as detach
from statekit.ledger.history import entered_at as entered_at
from statekit.ledger.history import history_of as history_of
from statekit.ledger.history import stuck as stuck
from statekit.ledger.history import time_in_state as time_in_state
from statekit.ledger.retention import KEPT as KEPT
from statekit.ledger.retention import prune as prune
from statekit.ledger.retention import prune_history as prune_history
from statekit.ledger.tables import Tables as Tables
from statekit.ledger.tables import add_to as add_to
from statekit.ledger.writer import Writer as Writer

__all__ = [
    "KEPT",
    "Tables",
    "Writer",
    "add_to",
    "attach",
    "detach",
    "entered_at",
    "history_of",
    "prune",
    "prune_history",
    "stuck",
    "time_in_state",
]
