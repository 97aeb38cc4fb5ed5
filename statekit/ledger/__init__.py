"""The ledger: a table of what happened, over all processes, in the application's own database.

``statekit.ledger.add_to(metadata)`` gives Alembic its tables, ``statekit.ledger.attach(engine)`` has them written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.lazy import loader

if TYPE_CHECKING:
    from statekit.ledger.attaching import attach as attach
    from statekit.ledger.attaching import detach as detach
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

if not TYPE_CHECKING:  # a type checker would take any name for one that this finds
    __getattr__ = loader(
        globals(),
        {
            "KEPT": "statekit.ledger.retention",
            "Tables": "statekit.ledger.tables",
            "Writer": "statekit.ledger.writer",
            "add_to": "statekit.ledger.tables",
            "attach": "statekit.ledger.attaching",
            "detach": "statekit.ledger.attaching",
            "entered_at": "statekit.ledger.history",
            "history_of": "statekit.ledger.history",
            "prune": "statekit.ledger.retention",
            "prune_history": "statekit.ledger.retention",
            "stuck": "statekit.ledger.history",
            "time_in_state": "statekit.ledger.history",
        },
    )


def __dir__() -> list[str]:
    return list(__all__)
