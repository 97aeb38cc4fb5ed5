"""What a call does, step by step: with a database, a clock and callbacks that somebody else has.

It is a generator of steps, so that one text serves threads and event loops: who drives it opens the sessions, sleeps
and calls what is to be called, and gives back what came of it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from statekit.bulk import cursor, texts
from statekit.bulk.options import Options
from statekit.bulk.pressure import GIVE_WAY, PAUSE, TURN, must_wait
from statekit.bulk.records import HEARTBEAT
from statekit.bulk.result import Batch, BulkResult, remaining_of
from statekit.bulk.selection import Selection
from statekit.bulk.sizing import LONGEST, Sizing
from statekit.bulk.transactions import Moved, Transactions
from statekit.bulk.transient import CONNECTION_LOST, is_away, pause_before, reason_of, was_ended
from statekit.errors import StatekitError
from statekit.guards.statements.by_keys import Key

_ATTEMPTS = 10
"""How often in a row a batch is tried again without any progress, where the call has all the time."""

_WAITED_FOR = 10
"""How many rows a batch has at most that waits for locks."""

_LEAVING = 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """Call a function with a session, and commit."""

    function: Callable[[Session], Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let some seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Show a result."""

    result: BulkResult


@dataclass(frozen=True, slots=True)
class Call:
    """Call what the caller has given for each batch."""

    function: Callable[[Batch], Any]
    batch: Batch


Step = Work | Sleep | Tell | Call
Steps = Generator[Step, Any, None]


class Run:
    """One call: it creates a job or goes on with one, and moves what fits.

    Args:
        selection: the rows.
        options: what the caller has chosen.
    """

    def __init__(self, selection: Selection, options: Options) -> None:
        self._began = time.monotonic()
        self._budget = options.seconds()
        self._selection = selection
        self._options = options
        self._job = Transactions(selection, options, self._limit)
        self._sizing = Sizing(self._budget)
        self._batch_size = self._largest = 0
        self._gave_way_at = self._began
        self._is_first = self._has_warned = False
        self._has_tried = self._has_moved = self._is_stalled = False

    # -- what is known

    @property
    def _left(self) -> float | None:
        return None if self._budget is None else self._began + self._budget - time.monotonic()

    def _limit(self, number: int, spent: float) -> float | None:
        """Return how long the next statement may take, in a batch of some rows that has taken some time already."""
        left = self._left
        limit = self._sizing.limit(None if left is None else left + spent, number)
        return None if limit is None else max(limit - spent, 0.001)

    @property
    def result(self) -> BulkResult:
        """How far the job has come."""
        row = self._job.row
        remaining = remaining_of(row)
        rest = self._sizing.seconds_for(remaining)
        elapsed = dt.timedelta(seconds=time.monotonic() - self._began)
        estimate = None if rest is None else dt.timedelta(seconds=row.seconds + rest)
        return replace(
            BulkResult.of(row, elapsed, estimate),
            batch=self._batch_size or min(remaining, self._sizing.next(self._left)),
            retries=row.retries + self._job.retries.total(),
            stalled=self._is_stalled,
        )

    @property
    def _is_over(self) -> bool:
        return self._job.row.finished_at is not None or self._job.row.cancelled_at is not None

    # -- steps

    def steps(self, *, only_prepare: bool = False) -> Steps:
        """Do it all.

        Args:
            only_prepare: whether to create the job and to move nothing.
        """
        yield from self._begin()
        if not only_prepare and not self._is_over:
            yield from self._patiently(self._job.join)
        texts.begun(self._job.name, self.result, self._selection.target)
        self._warn_if_too_long()
        yield Tell(self.result)
        if only_prepare:
            return
        if not self._is_over:
            try:
                yield from self._move_all()
            except Exception as error:
                yield from self._note_failure(error)
                raise
        if self._job.retries or self._job.warning is not None or self._is_stalled:
            yield from self._note_what_is_left()
        texts.ended(self._job.name, self.result)

    def _begin(self) -> Steps:
        yield Work(self._job.find_pool)
        while must_wait(None, self._job.pool):
            left = self._left
            if left is not None and left <= self._sizing.margin:
                raise StatekitError(
                    f"{self._job.name}: no connection of the pool has come free within the budget of {self._budget:g} "
                    "s. Nothing was moved."
                )
            yield Sleep(PAUSE)
        attempt = 0
        while True:
            try:
                rate = yield Work(self._job.open)
                break
            except Exception as error:
                reason, attempt = reason_of(error), attempt + 1
                pause, left = pause_before(attempt), self._left
                if was_ended(error) and self._job.is_counting and self._budget is not None:
                    raise StatekitError(
                        f"{self._job.name}: to count what is to move takes longer than the budget of {self._budget:g} "
                        "s. Nothing was moved. Give the condition an index, or count once without a limit: "
                        "statekit.bulk.prepare(…) makes the job, and transition_all(…, job=…) goes on with it."
                    ) from error
                if reason is None or attempt > _ATTEMPTS or (left is not None and pause > left):
                    raise self._job.explained(error) from error
                self._job.retries[reason] += 1
                yield Sleep(pause)
        self._sizing = Sizing(self._budget, rate)
        self._is_first = self._job.row.batches == 0
        if self._options.rate is not None:
            self._sizing.largest = max(1, int(self._options.rate * LONGEST))

    def _move_all(self) -> Steps:
        """Move batches until nothing is left, or no time.

        The rows after the cursor come first, then all from the first one on, because some came behind the cursor and
        some were locked; what is locked still is waited for.
        """
        after = cursor.from_json(self._job.row.cursor)
        waits = False
        kept = moved_in_pass = failed = 0
        while not self._is_over and (number := self._next()):
            if must_wait(self._options.pool_guard, self._job.pool):
                yield from self._sleep(PAUSE)
                continue
            self._batch_size = number = min(number, _WAITED_FOR) if waits else number
            self._has_tried = True
            start = time.monotonic()
            try:
                moved = yield self._batch(number, after, waits)
            except Exception as error:
                failed += 1
                if not self._may_try_again(error, number, time.monotonic() - start, failed, waits):
                    break
                waits = False
                yield from self._sleep(0 if was_ended(error) else pause_before(failed))
                continue
            self._job.row = moved.row
            if moved.claimed:
                failed = 0
                yield from self._report(moved, start, time.monotonic() - start, waits)
                if moved.last == after and not moved.identities:
                    break  # a key that is not met by itself: the database has a shorter number than Python
                after, waits = moved.last, False
                moved_in_pass += len(moved.identities)
                kept += moved.claimed - len(moved.identities)
            elif after is not None:
                if kept and not moved_in_pass:
                    break  # the database lets none of them move
                after, kept, moved_in_pass = None, 0, 0
            elif waits:  # somebody has let go of them, or may see them and not hold them
                failed, waits = failed + 1, False
                if failed > _ATTEMPTS:
                    break
                yield from self._sleep(PAUSE)
            else:
                waits = True
        self._is_stalled = self._has_tried and not self._has_moved and not self._is_over

    def _next(self) -> int:
        """Return how many rows the next batch is to have; 0 if there is no time for one.

        One row is tried in each call, whatever it took the last time.
        """
        left = self._left
        has_time = left is not None and left > self._sizing.margin
        return self._sizing.next(left) or int(has_time and not self._has_tried)

    def _batch(self, number: int, after: Key | None, waits: bool) -> Work:
        return Work(lambda session: self._job.move(session, number, after, waits=waits, rate=self._sizing.rate))

    def _may_try_again(self, error: Exception, number: int, seconds: float, failed: int, waits: bool) -> bool:
        """Return whether a batch is to be tried again, or else the call has to end.

        Args:
            number: how many rows it was to have.
            seconds: what it has taken.
            failed: how often in a row there was an error.
            waits: whether it has waited for rows that somebody holds.

        Raises:
            Exception: the error, if it does not go away by itself.
        """
        if was_ended(error):
            self._sizing.was_ended(number, seconds)
            self._job.retries["took longer than the time that was left"] += 1
            return failed <= _ATTEMPTS
        reason, left = reason_of(error) or (CONNECTION_LOST if is_away(error) else None), self._left
        if reason is None:
            raise error
        if left is None and failed > _ATTEMPTS:
            if waits:
                return False  # somebody holds the last rows, and does not let them go
            raise error
        self._job.retries[reason] += 1
        pause = pause_before(failed, lambda: 0)
        if left is not None and pause > left - self._sizing.margin:
            if reason == CONNECTION_LOST:
                raise error
            return False
        texts.tried_again(self.result, reason, pause)
        return True

    def _report(self, moved: Moved, start: float, seconds: float, waited: bool) -> Steps:
        """Tell everyone of a batch that has committed."""
        self._has_moved = self._has_moved or bool(moved.identities)
        self._job.retries.clear()  # they came with the batch
        self._job.warning = None
        if not waited:  # what a lock has taken says nothing about the rows
            self._sizing.took(moved.claimed, seconds, moved.finding)
        self._batch_size = moved.claimed
        self._largest = max(self._largest, moved.claimed)
        result = self.result
        texts.completed(result, len(moved.identities), self._largest)
        self._warn_if_too_long()
        if self._options.on_batch is not None and moved.identities:
            yield Call(self._options.on_batch, Batch(moved.identities, result))
        yield Tell(result)
        if self._options.rate is not None:
            yield from self._sleep(start + moved.claimed / self._options.rate - time.monotonic())
        if self._job.holds_all and time.monotonic() - self._gave_way_at >= TURN:
            yield from self._sleep(GIVE_WAY)
            self._gave_way_at = time.monotonic()

    def _warn_if_too_long(self) -> None:
        """Say once, in the call that has begun the job, that it will not fit."""
        if self._has_warned or not self._is_first or self._budget is None:
            return
        result = self.result
        if result.estimate is None or result.estimate.total_seconds() <= self._budget:
            return
        self._has_warned = True
        texts.would_exceed(self._job.name, result, self._budget)
        self._job.warning = {
            "total": result.total,
            "estimate": round(result.estimate.total_seconds(), 3),
            "budget": round(self._budget, 3),
            "batch": result.batch,
            "job": result.job,
        }

    def _note_what_is_left(self) -> Steps:
        noted = yield from self._patiently(lambda session: self._job.note_what_is_left(session, self._sizing.rate))
        if noted is not None:
            self._job.row = noted
            self._job.retries.clear()

    def _note_failure(self, error: Exception) -> Steps:
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:500]
        try:
            yield Work(lambda session: self._job.note_failure(session, f"{type(error).__name__}: {text}"))
        except Exception as second:
            error.add_note(f"Nor could the job note it: {second}")

    def _sleep(self, seconds: float) -> Steps:
        """Let time pass, but no more than is left, and say now and then that this worker is alive."""
        left = self._left
        until = time.monotonic() + (seconds if left is None else min(seconds, left - self._sizing.margin))
        while (rest := until - time.monotonic()) > 0:
            yield Sleep(min(rest, HEARTBEAT))
            if time.monotonic() - self._job.heard_at >= HEARTBEAT and not must_wait(None, self._job.pool):
                self._job.heard_at = time.monotonic()
                yield from self._patiently(self._job.renew)

    def _patiently(self, function: Callable[[Session], Any]) -> Generator[Step, Any, Any]:
        """Do what is of no importance to the rows, again if need be; return None where it cannot be done now."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return (yield Work(function))
            except Exception as error:
                if reason_of(error) is None and not was_ended(error) and not is_away(error):
                    raise
            pause, left = pause_before(attempt), self._left
            if left is not None and pause > left:
                break
            yield Sleep(pause)
        return None

    # -- the end

    @property
    def can_leave(self) -> bool:
        """Whether there is a lease to give back, and a connection and time to do so; else it runs out by itself."""
        left = self._left
        has_time = left is None or left > _LEAVING
        return self._job.lease is not None and has_time and not must_wait(None, self._job.pool)

    def leave(self, session: Session) -> None:
        """Give the lease back."""
        self._job.leave(session)
