"""What a bulk transition says of itself: how far it has come, in numbers, in words and as JSON."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

_PAST = {
    "accept": "Accepted",
    "activate": "Activated",
    "approve": "Approved",
    "archive": "Archived",
    "assign": "Assigned",
    "block": "Blocked",
    "cancel": "Cancelled",
    "capture": "Captured",
    "clean": "Cleaned",
    "close": "Closed",
    "complete": "Completed",
    "confirm": "Confirmed",
    "delete": "Deleted",
    "escalate": "Escalated",
    "expire": "Expired",
    "finish": "Finished",
    "import": "Imported",
    "migrate": "Migrated",
    "move": "Moved",
    "pause": "Paused",
    "process": "Processed",
    "promote": "Promoted",
    "publish": "Published",
    "reject": "Rejected",
    "release": "Released",
    "reopen": "Reopened",
    "repair": "Repaired",
    "reset": "Reset",
    "resolve": "Resolved",
    "restore": "Restored",
    "resume": "Resumed",
    "retry": "Retried",
    "review": "Reviewed",
    "send": "Sent",
    "ship": "Shipped",
    "start": "Started",
    "stop": "Stopped",
    "suspend": "Suspended",
    "update": "Updated",
}


def verb_of(operation: str | None) -> str:
    """Return what was done, from the name of an operation.

    >>> verb_of("Spam capture"), verb_of("archive old messages"), verb_of("nightly job"), verb_of(None)
    ('Captured', 'Archived', 'Moved', 'Moved')
    """
    for word in (operation or "").lower().replace("_", " ").replace("-", " ").split():
        if word in _PAST:
            return _PAST[word]
    return "Moved"


def remaining_of(row: Any) -> int:
    """Return how many rows are still to move, of a row of the table of jobs."""
    return 0 if row.finished_at is not None else max(0, row.total - row.blocked - row.done)


@dataclass(frozen=True, slots=True)
class BulkResult:
    """How far a bulk transition has come; ``str()`` says it as ``Captured 100 / 1,418 (1,318 remaining)``.

    The numbers are those of the job, over all calls and all workers, as its row in the database had them; only
    ``elapsed`` is of this call. ``total`` is fixed at the start, so that ``remaining`` never grows.

    Attributes:
        done: rows that have moved.
        total: rows that were to move when the job began, and those that were refused at once.
        remaining: rows that are still to move: ``total - done - blocked``, never less than 0, and 0 when finished.
        blocked: rows that the condition found, and that must not make the move; each is counted once.
        elapsed: how long this call has taken.
        estimate: how long the whole job takes at the rate that is known; None as long as none is.
        batches: how many batches have committed.
        job: the token to go on with; opaque, up to 32 characters.
        finished: whether nothing was left to move when the database was asked last.
        operation: the name that was given, or None.
        batch: how many rows the last batch had; before the first one, how many it will have.
        retries: how often a batch was tried again after a deadlock, a lock that was not free, or the like.
        cancelled: whether somebody has cancelled the job.
        stalled: whether this call has moved nothing although rows were left and there was time: locked rows, rows that
            the database keeps back, or a row that takes longer than the budget.
    """

    done: int
    total: int
    remaining: int
    blocked: int
    elapsed: dt.timedelta
    estimate: dt.timedelta | None
    batches: int
    job: str
    finished: bool
    operation: str | None = None
    batch: int = 0
    retries: int = 0
    cancelled: bool = False
    stalled: bool = False

    @classmethod
    def of(cls, row: Any, elapsed: dt.timedelta, estimate: dt.timedelta | None) -> BulkResult:
        """Return what the row of a job says.

        Args:
            row: of the table of jobs.
            elapsed: how long the call has taken.
            estimate: how long the whole job takes; None if nothing is known.
        """
        return cls(
            done=row.done,
            total=row.total,
            remaining=remaining_of(row),
            blocked=row.blocked,
            elapsed=elapsed,
            estimate=estimate,
            batches=row.batches,
            job=row.id,
            finished=row.finished_at is not None,
            operation=row.operation,
            retries=row.retries,
            cancelled=row.cancelled_at is not None,
        )

    @property
    def arrived(self) -> int:
        """How many more rows have moved than there were at the start: they came later."""
        return max(0, self.done + self.blocked - self.total)

    @property
    def gone(self) -> int:
        """How many rows were there at the start and not at the end: others have moved or removed them."""
        return max(0, self.total - self.blocked - self.done) if self.finished else 0

    @property
    def share(self) -> float:
        """How much of the job is done, from 0 to 1: what a bar shows."""
        return 1.0 if self.finished or not self.total else 1 - self.remaining / self.total

    def __str__(self) -> str:
        blocked = f", {self.blocked:,} blocked" if self.blocked else ""
        return f"{verb_of(self.operation)} {self.done:,} / {self.total:,} ({self.remaining:,} remaining{blocked})"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, for a web client: times in seconds, and ``text`` for people."""
        return {
            "job": self.job,
            "operation": self.operation,
            "done": self.done,
            "total": self.total,
            "remaining": self.remaining,
            "blocked": self.blocked,
            "arrived": self.arrived,
            "gone": self.gone,
            "share": round(self.share, 4),
            "batches": self.batches,
            "retries": self.retries,
            "elapsed": round(self.elapsed.total_seconds(), 3),
            "estimate": None if self.estimate is None else round(self.estimate.total_seconds(), 3),
            "finished": self.finished,
            "cancelled": self.cancelled,
            "stalled": self.stalled,
            "text": str(self),
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that has committed, as a callback is told of it.

    Attributes:
        identities: the primary keys of the rows that have moved.
        result: how far the job has come with it.
    """

    identities: tuple[tuple[Any, ...], ...]
    result: BulkResult
