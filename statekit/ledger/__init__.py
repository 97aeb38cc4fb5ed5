"""The ledger: a table of what happened, over all processes, in the application's own database.

``statekit.ledger.add_to(metadata)`` gives Alembic its tables, ``statekit.ledger.attach(engine)`` has them written.
"""

from __future__ import annotations

from statekit.ledger.attach import attach as attach
from statekit.ledger.attach import detach as detach
from statekit.ledger.prune import KEPT as KEPT
from statekit.ledger.prune import prune as prune
from statekit.ledger.tables import Tables as Tables
from statekit.ledger.tables import add_to as add_to
from statekit.ledger.writer import Writer as Writer

__all__ = ["KEPT", "Tables", "Writer", "add_to", "attach", "detach", "prune"]
