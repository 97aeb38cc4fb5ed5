"""Bulk transitions that fit any time-out: in batches, with progress, gone on with by any process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.lazy import loader

if TYPE_CHECKING:
    from statekit.bulk.asynchronous import aprepare as aprepare
    from statekit.bulk.asynchronous import atransition_all as atransition_all
    from statekit.bulk.asynchronous import atransition_batches as atransition_batches
    from statekit.bulk.listing import Job as Job
    from statekit.bulk.listing import cancel as cancel
    from statekit.bulk.listing import jobs as jobs
    from statekit.bulk.pressure import PoolState as PoolState
    from statekit.bulk.result import Batch as Batch
    from statekit.bulk.result import BulkResult as BulkResult
    from statekit.bulk.sync import prepare as prepare
    from statekit.bulk.sync import transition_all as transition_all
    from statekit.bulk.sync import transition_batches as transition_batches
    from statekit.bulk.terminal import bar as bar

_MODULES = {
    "Batch": "statekit.bulk.result",
    "BulkResult": "statekit.bulk.result",
    "Job": "statekit.bulk.listing",
    "PoolState": "statekit.bulk.pressure",
    "aprepare": "statekit.bulk.asynchronous",
    "atransition_all": "statekit.bulk.asynchronous",
    "atransition_batches": "statekit.bulk.asynchronous",
    "bar": "statekit.bulk.terminal",
    "cancel": "statekit.bulk.listing",
    "jobs": "statekit.bulk.listing",
    "prepare": "statekit.bulk.sync",
    "transition_all": "statekit.bulk.sync",
    "transition_batches": "statekit.bulk.sync",
}

__all__ = [
    "Batch",
    "BulkResult",
    "Job",
    "PoolState",
    "aprepare",
    "atransition_all",
    "atransition_batches",
    "bar",
    "cancel",
    "jobs",
    "prepare",
    "transition_all",
    "transition_batches",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that this finds
    __getattr__ = loader(globals(), _MODULES)


def __dir__() -> list[str]:
    return list(__all__)
