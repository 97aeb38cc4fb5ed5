"""statekit keeps the status columns of SQLAlchemy applications true.

Everything public is a name of this package. What needs SQLAlchemy's ORM is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.errors import IllegalTransition, StatekitError, TableError, TransitionRefused
from statekit.lazy import loader
from statekit.table import Transition, TransitionTable

if TYPE_CHECKING:
    from statekit.bulk.asynchronous import atransition_all as atransition_all
    from statekit.bulk.sync import transition_all as transition_all
    from statekit.guards.asking import available as available
    from statekit.guards.asking import can as can
    from statekit.guards.attach import Guarded as Guarded
    from statekit.guards.attach import guard as guard
    from statekit.guards.events import event as event
    from statekit.guards.on_commit import CommittedMove as CommittedMove
    from statekit.guards.on_commit import on_commit as on_commit
    from statekit.guards.text import warn_about_text as warn_about_text
    from statekit.observe.operation import operation as operation
    from statekit.observe.override import override as override
    from statekit.stale import ConcurrentTransition as ConcurrentTransition
    from statekit.totals import counts as counts

__version__ = "0.1.0"

_LOADED_WHEN_ASKED_FOR = {
    "CommittedMove": "statekit.guards.on_commit",
    "ConcurrentTransition": "statekit.stale",
    "Guarded": "statekit.guards.attach",
    "atransition_all": "statekit.bulk.asynchronous",
    "available": "statekit.guards.asking",
    "can": "statekit.guards.asking",
    "counts": "statekit.totals",
    "event": "statekit.guards.events",
    "guard": "statekit.guards.attach",
    "on_commit": "statekit.guards.on_commit",
    "operation": "statekit.observe.operation",
    "override": "statekit.observe.override",
    "transition_all": "statekit.bulk.sync",
    "warn_about_text": "statekit.guards.text",
}

__all__ = [
    "CommittedMove",
    "ConcurrentTransition",
    "Guarded",
    "IllegalTransition",
    "StatekitError",
    "TableError",
    "Transition",
    "TransitionRefused",
    "TransitionTable",
    "atransition_all",
    "available",
    "can",
    "counts",
    "event",
    "guard",
    "on_commit",
    "operation",
    "override",
    "transition_all",
    "warn_about_text",
]


if not TYPE_CHECKING:  # a type checker would take any name for one that this finds
    __getattr__ = loader(globals(), _LOADED_WHEN_ASKED_FOR)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
