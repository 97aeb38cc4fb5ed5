"""The log lines of bulk transitions."""

from __future__ import annotations

import logging
import math
from typing import Any

from statekit.bulk.result import BulkResult, verb_of

logger = logging.getLogger("statekit")


def begun(name: str, result: BulkResult, target: str | None) -> None:
    """Say what there is to do."""
    blocked = f", {result.blocked:,} blocked" if result.blocked else ""
    _write(logging.INFO, result, "%s: %s rows to move to %s%s", name, f"{result.remaining:,}", target, blocked)


def would_exceed(name: str, result: BulkResult, budget: float) -> None:
    """Say that it will not fit, and what is done about it."""
    assert result.estimate is not None
    _write(
        logging.WARNING,
        result,
        "Operation would exceed the time-out: batching. %s: %s rows, estimated time %.2f s, budget %g s, batch %s rows",
        name,
        f"{result.total - result.blocked:,}",
        result.estimate.total_seconds(),
        round(budget, 3),
        f"{result.batch:,}",
    )


def completed(result: BulkResult, number: int, largest: int) -> None:
    """Say that a batch of some rows has committed, and how many there will be if the others are as large as can be."""
    of = result.batches + math.ceil(result.remaining / largest)
    verb = verb_of(result.operation).lower()
    _write(logging.INFO, result, "Batch %d/%d completed: %s rows %s", result.batches, of, f"{number:,}", verb)


def tried_again(result: BulkResult, reason: str, seconds: float) -> None:
    """Say that a batch is tried again."""
    _write(logging.INFO, result, "Batch %d is tried again in %.2f s: %s", result.batches + 1, seconds, reason)


def ended(name: str, result: BulkResult) -> None:
    """Say how far it has come, at the end of a call."""
    if result.finished:
        blocked = f", {result.blocked:,} blocked" if result.blocked else ""
        _write(logging.INFO, result, "Operation complete: %s: %s rows processed%s", name, f"{result.done:,}", blocked)
    elif result.cancelled:
        _write(logging.WARNING, result, "Operation cancelled: %s: %s", name, result)
    elif result.stalled:
        _write(
            logging.WARNING,
            result,
            "Operation stalled: %s: %s. What is left is locked, is kept back by the database, or takes longer than the "
            "budget",
            name,
            result,
        )
    else:
        _write(logging.INFO, result, "Prevented time-out by batching: %s: %s", name, result)


def _write(level: int, result: BulkResult, text: str, *args: Any) -> None:
    extra = {f"statekit_{key}": value for key, value in result.to_dict().items()} | {"statekit_kind": "bulk"}
    logger.log(level, "[SELF-HEAL] " + text, *args, extra=extra)
