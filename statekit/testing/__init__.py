"""For the tests of an application with guarded models: any state in a fixture, what must be blocked, every edge.

Nothing here switches a guard, a fence or a trigger off. pytest and Hypothesis are needed by :class:`EdgeTests` and by
the strategies alone, and loaded by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.lazy import loader

if TYPE_CHECKING:
    from statekit.testing.blocked import assert_blocked as assert_blocked
    from statekit.testing.edges import EdgeTests as EdgeTests
    from statekit.testing.placing import in_state as in_state
    from statekit.testing.strategies import moves as moves
    from statekit.testing.strategies import tables as tables
    from statekit.testing.strategies import walks as walks

_LOADED_WHEN_ASKED_FOR = {
    "EdgeTests": "statekit.testing.edges",
    "assert_blocked": "statekit.testing.blocked",
    "in_state": "statekit.testing.placing",
    "moves": "statekit.testing.strategies",
    "tables": "statekit.testing.strategies",
    "walks": "statekit.testing.strategies",
}

__all__ = ["EdgeTests", "assert_blocked", "in_state", "moves", "tables", "walks"]


if not TYPE_CHECKING:  # a type checker would take any name for one that this finds
    __getattr__ = loader(globals(), _LOADED_WHEN_ASKED_FOR)


def __dir__() -> list[str]:
    return list(__all__)
