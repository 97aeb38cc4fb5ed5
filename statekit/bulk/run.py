"""What a call does, step by step: with a database, a clock and callbacks that somebody else has.

It is a generator of steps, so that one text serves threads and event loops: who drives it opens the sessions, sleeps
and calls what is to be called, and gives back what came of it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit.bulk import cursor, texts
from statekit.bulk.limits import limited
from statekit.bulk.options import Options
from statekit.bulk.pressure import PAUSE, must_wait
from statekit.bulk.records import HEARTBEAT, Records, new_token, no_table, schema_of
from statekit.bulk.result import Batch, BulkResult
from statekit.bulk.selection import Key, Selection
from statekit.bulk.sizing import LONGEST, Sizing
from statekit.bulk.transient import pause_before, reason_of, was_ended
from statekit.errors import StatekitError
from statekit.guards.guard import refusal_of
from statekit.guards.statements import by_keys
from statekit.observe.hook import publish
from statekit.observe.move import Move
from statekit.observe.operation import Operation, current_operation

_ATTEMPTS = 10
"""How often in a row a batch is tried again without any progress, where the call has all the time."""

_NAMED = 10
_LEAVING = 0.02
_LOCK_WAIT = 1.0


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


class _Block(Operation):
    """The operation around the statements of a batch; the call as a whole says what came of it."""

    def _tell(self, *, failed: bool) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Moved:
    rows: dict[str | None, list[Key]]
    last: Key | None
    met: int
    row: Any


class Run:
    """One call: it creates a job or goes on with one, and moves what fits.

    Args:
        selection: the rows.
        options: what the caller has chosen.

    Attributes:
        lease: what identifies this call among the workers of the job; None while it has none.
    """

    def __init__(self, selection: Selection, options: Options) -> None:
        self._began = time.monotonic()
        self._selection = selection
        self._options = options
        self._name = options.operation or _outer_name() or f"{selection.guard.model} to {selection.target}"
        self._on_illegal: Any = options.on_illegal
        self._budget = options.seconds()
        self._row: Any = None
        self._records: Records | None = None
        self._pool: Any = None
        self._sizing = Sizing(self._budget)
        self._batch_size = 0
        self._heard_at = self._began
        self._retries: Counter[str] = Counter()
        self._has_tried = self._has_moved = False
        self._token = options.job or new_token()
        self._is_first = False
        self._has_warned = False
        self._warning: dict[str, Any] | None = None
        self._is_stalled = False
        self.lease: str | None = None

    # -- what is known

    @property
    def _left(self) -> float | None:
        return None if self._budget is None else self._began + self._budget - time.monotonic()

    def _limit(self, number: int = 1, spent: float = 0) -> float | None:
        """Return how long the next statement may take, in a batch of some rows that has taken some time already."""
        left = self._left
        limit = self._sizing.limit(None if left is None else left + spent, number)
        return None if limit is None else max(limit - spent, 0.001)

    @property
    def result(self) -> BulkResult:
        """How far the job has come."""
        row = self._row
        finished = row.finished_at is not None
        remaining = 0 if finished else max(0, row.total - row.blocked - row.done)
        rate = self._sizing.rate
        estimate = None
        if finished or rate:
            estimate = dt.timedelta(seconds=row.seconds + (remaining / rate if rate else 0))
        return BulkResult(
            done=row.done,
            total=row.total,
            remaining=remaining,
            blocked=row.blocked,
            elapsed=dt.timedelta(seconds=time.monotonic() - self._began),
            estimate=estimate,
            batches=row.batches,
            job=row.id,
            finished=finished,
            operation=row.operation,
            batch=self._batch_size or min(remaining, self._sizing.next(self._left)),
            retries=row.retries + self._retries.total(),
            cancelled=row.cancelled_at is not None,
            stalled=self._is_stalled,
        )

    # -- steps

    def steps(self, *, only_prepare: bool = False) -> Steps:
        """Do it all.

        Args:
            only_prepare: whether to create the job and to move nothing.
        """
        yield from self._begin(only_prepare)
        texts.begun(self._name, self.result, self._selection.target)
        self._warn_if_too_long()
        yield Tell(self.result)
        if only_prepare:
            return
        if self._row.finished_at is None and self._row.cancelled_at is None:
            try:
                yield from self._move_all()
            except Exception as error:
                yield from self._note_failure(error)
                raise
        if self._retries or self._warning is not None or self._is_stalled:
            noted = yield from self._patiently(self._note_what_is_left)
            if noted is not None:
                self._row = noted
                self._retries.clear()
        texts.ended(self._name, self.result)

    def _begin(self, only_prepare: bool) -> Steps:
        attempt = 0
        while True:
            try:
                self._row = yield Work(lambda session: self._open(session, only_prepare))
                return
            except Exception as error:
                reason = reason_of(error)
                attempt += 1
                pause = pause_before(attempt)
                left = self._left
                if reason is None or attempt > _ATTEMPTS or (left is not None and pause > left):
                    raise self._explained(error) from error
                self._retries[reason] += 1
                yield Sleep(pause)

    def _explained(self, error: Exception) -> Exception:
        if was_ended(error):
            return StatekitError(
                f"{self._name}: to count what is to move takes longer than the budget of {self._budget:g} s. Nothing "
                "was moved. Give the condition an index, or count once without a limit: statekit.bulk.prepare(…) makes "
                "the job, and transition_all(…, job=…) goes on with it."
            )
        text = str(getattr(error, "orig", "")).lower()
        if "statekit_job" in text and ("no such table" in text or "does not exist" in text):
            return no_table(self._records.tables.job.schema if self._records else None)
        return error

    def _move_all(self) -> Steps:
        after = cursor.from_json(self._row.cursor)
        waits = False
        kept = moved_in_pass = failed = 0
        while True:
            number = self._sizing.next(self._left)
            if number == 0 or self._row.cancelled_at is not None:
                break
            if must_wait(self._options.pool_guard, self._pool):
                yield from self._sleep(PAUSE)
                continue
            self._batch_size = number = min(number, 10) if waits else number
            self._has_tried = True
            start = time.monotonic()
            try:
                moved = yield Work(lambda session, n=number, a=after, w=waits: self._move(session, n, a, w))  # type: ignore[misc]
            except Exception as error:
                seconds = time.monotonic() - start
                if was_ended(error):
                    self._sizing.was_ended(number, seconds)
                    continue
                reason = reason_of(error)
                failed += 1
                left = self._left
                pause = pause_before(failed)
                if reason is None or (left is None and failed > _ATTEMPTS):
                    if waits and reason is not None:
                        break  # somebody holds the last rows, and does not let them go
                    raise
                self._retries[reason] += 1
                if left is not None and pause > left - self._sizing.margin:
                    if reason == "connection lost":
                        raise
                    break
                texts.tried_again(self.result, reason, pause)
                waits = False
                yield from self._sleep(pause)
                continue
            failed = 0
            self._row = moved.row
            if moved.rows:
                yield from self._report(moved, start, time.monotonic() - start, waits)
                after = moved.last
                moved_in_pass += moved.met
                kept += sum(map(len, moved.rows.values())) - moved.met
                waits = False
                continue
            if self._row.finished_at is not None:
                return
            if after is not None:  # what came behind the cursor, and what was locked
                if kept and not moved_in_pass:
                    break
                after, kept, moved_in_pass = None, 0, 0
            else:
                yield from self._sleep(PAUSE if waits else 0)
                waits = not waits
        self._is_stalled = self._has_tried and not self._has_moved and self._row.cancelled_at is None

    def _report(self, moved: _Moved, start: float, seconds: float, waited: bool) -> Steps:
        number = sum(map(len, moved.rows.values()))
        self._has_moved = self._has_moved or moved.met > 0
        self._retries.clear()  # they came with the batch
        self._warning = None
        if not waited:  # what a lock has taken says nothing about the rows
            self._sizing.took(number, seconds)
        self._batch_size = number
        result = self.result
        texts.completed(result, moved.met)
        self._warn_if_too_long()
        if self._options.on_batch is not None and moved.met:
            identities = tuple(key for keys in moved.rows.values() for key in keys)
            yield Call(self._options.on_batch, Batch(identities, result))
        yield Tell(self.result)
        if self._options.rate is not None:
            yield from self._sleep(start + number / self._options.rate - time.monotonic())

    def _warn_if_too_long(self) -> None:
        """Say once, in the call that has begun the job, that it will not fit."""
        if self._has_warned or not self._is_first or self._budget is None:
            return
        result = self.result
        if result.estimate is None or result.estimate.total_seconds() <= self._budget:
            return
        self._has_warned = True
        texts.would_exceed(self._name, result, self._budget)
        self._warning = {
            "total": result.total,
            "estimate": round(result.estimate.total_seconds(), 3),
            "budget": round(self._budget, 3),
            "batch": result.batch,
            "job": result.job,
        }

    def _sleep(self, seconds: float) -> Steps:
        """Let time pass, but no more than is left, and say now and then that this worker is alive."""
        left = self._left
        until = time.monotonic() + (seconds if left is None else min(seconds, left - self._sizing.margin))
        while (rest := until - time.monotonic()) > 0:
            yield Sleep(min(rest, HEARTBEAT))
            if time.monotonic() - self._heard_at >= HEARTBEAT and not must_wait(None, self._pool):
                self._heard_at = time.monotonic()
                yield from self._patiently(self._renew)

    def _patiently(self, function: Callable[[Session], Any]) -> Generator[Step, Any, Any]:
        """Do what is of no importance to the rows, again if need be; return None where it cannot be done now."""
        for attempt in range(1, _ATTEMPTS):
            try:
                return (yield Work(function))
            except Exception as error:
                if reason_of(error) is None and not was_ended(error):
                    raise
            pause, left = pause_before(attempt), self._left
            if left is not None and pause > left:
                break
            yield Sleep(pause)
        return None

    # -- transactions

    def _open(self, session: Session, only_prepare: bool) -> Any:
        """Create the job, or find it, and take a lease."""
        connection = self._connection(session)
        if connection._is_autocommit_isolation():
            raise StatekitError(
                f"{self._name}: a batch is one transaction, and this engine is in AUTOCOMMIT. Give another one: "
                'engine.execution_options(isolation_level="READ COMMITTED").'
            )
        self._pool = connection.engine.pool
        schema = schema_of(self._selection.table.metadata, connection)
        self._records = records = Records(schema)
        with limited(connection, self._limit(), None):
            row = records.get(connection, self._token)  # the commit of a first attempt may not have been answered
            refused: list[Move] = []
            if row is None and self._options.job is None:
                refused = self._create(session, connection, records)
                row = records.get(connection, self._token)
            self._check(row, connection.dialect)
            self._on_illegal = row.on_illegal
            self._name = row.operation or self._name
            rate = row.rate or records.known_rate(connection, **self._kind(row.operation))
            self._sizing = Sizing(self._budget, rate)
            if self._options.rate is not None:
                self._sizing.largest = max(1, int(self._options.rate * LONGEST))
            if not only_prepare and row.finished_at is None and row.cancelled_at is None:
                self.lease = records.join(connection, self._token)
        with self._block():
            publish(refused, connection)
        self._is_first = row.batches == 0
        return row

    def _kind(self, operation: str | None) -> dict[str, Any]:
        selection = self._selection
        return {
            "table_name": selection.table.fullname,
            "attribute": selection.guard.attribute,
            "target": selection.target,
            "operation": operation,
        }

    def _create(self, session: Session, connection: sa.Connection, records: Records) -> list[Move]:
        """Write the job, and return the moves that are refused at once."""
        selection = self._selection
        with self._block():
            counted = selection.count(session)
            refused = {state: n for state, n in counted.items() if not selection.may_move(state)}
            moves = self._refused(session, connection, refused)
        rendered = selection.rendered(connection.dialect)
        records.create(
            connection,
            self._token,
            **self._kind(self._options.operation),
            model=selection.model,
            on_illegal=self._options.on_illegal,
            condition=None if rendered is None else rendered.sql,
            condition_shape=None if rendered is None else rendered.shape,
            total=counted.total(),
            blocked=sum(refused.values()),
        )
        return moves

    def _refused(self, session: Session, connection: sa.Connection, refused: dict[str | None, int]) -> list[Move]:
        """Return the moves of rows that must not make them.

        Raises:
            IllegalTransition: there are some, in "raise".
        """
        selection = self._selection
        guard = selection.guard
        keys = {state: selection.refused(session, state, _NAMED) for state in refused}
        moves = [
            guard.move("blocked", (state, selection.target), keys[state], number=number, mode=guard.mode)
            for state, number in refused.items()
        ]
        if refused and guard.mode == "raise":
            publish(moves, connection)
            raise refusal_of(
                guard,
                [((state, selection.target), key) for state, of_state in keys.items() for key in of_state],
                new=False,
                model=guard.model,
                key_names=tuple(column.key for column in selection.table.primary_key),
                pairs=Counter({(state, selection.target): number for state, number in refused.items()}),
            )
        return moves

    def _check(self, row: Any, dialect: Any) -> None:
        """Check that the job is the one that is asked for.

        Raises:
            StatekitError: there is none of that token, or it moves something else.
        """
        selection = self._selection
        if row is None:
            raise StatekitError(f"job={self._options.job!r}: there is no such job. Leave it out to begin a new one.")
        asked = (selection.model, selection.guard.attribute, selection.table.fullname, selection.target)
        known = (row.model, row.attribute, row.table_name, row.target)
        if asked != known:
            raise StatekitError(
                f"job={row.id!r} moves {known[0]}.{known[1]} (table {known[2]}) to {known[3]}, and asked for is "
                f"{asked[0]}.{asked[1]} (table {asked[2]}) to {asked[3]}. Go on with the job as it was begun, or begin a new one: job=None."
            )
        rendered = selection.rendered(dialect)
        if rendered is not None and rendered.shape != row.condition_shape:
            raise StatekitError(
                f"job={row.id!r} was begun with another condition: where {row.condition_shape or 'nothing'}, and asked "
                f"for is where {rendered.shape}. Go on with the job as it was begun, or begin a new one: job=None."
            )
        if rendered is None and row.condition_shape is not None:
            selection.go_on_with(row.condition, row.id)

    def _move(self, session: Session, number: int, after: Key | None, waits: bool) -> _Moved:
        """Move one batch; rows, cursor and counters come with the same commit."""
        connection = self._connection(session)
        records = self._records
        assert records is not None
        start = time.monotonic()
        limit = self._limit(number)
        lock_wait = None if not waits else _LOCK_WAIT if limit is None else min(_LOCK_WAIT, limit / 2)
        with limited(connection, limit, lock_wait) as limits, self._block():
            rows, last = self._selection.claim(session, number, after, waits=waits)
            if not rows:
                return self._nothing_found(session, connection, records, after)
            limits.shorten(self._limit(number, time.monotonic() - start))
            met = by_keys.move(connection, self._selection.guard, rows, self._selection.value)
            seconds = time.monotonic() - start
            limits.shorten(self._limit(1))
            self._write_notes(connection, records)
            row = records.add(
                connection,
                self._token,
                done=met,
                seconds=seconds,
                rate=self._sizing.rate or sum(map(len, rows.values())) / max(seconds, 1e-6),
                cursor=cursor.to_json(last),
                retries=self._retries.total(),
            )
            if self.lease is not None and time.monotonic() - self._heard_at >= HEARTBEAT:
                self._heard_at = time.monotonic()
                records.renew(connection, self.lease)
        return _Moved(rows, last, met, row)

    def _nothing_found(
        self, session: Session, connection: sa.Connection, records: Records, after: Key | None
    ) -> _Moved:
        if after is None and not self._selection.is_left(session):
            records.finish(connection, self._token)
        return _Moved({}, None, 0, records.get(connection, self._token))

    def _write_notes(self, connection: sa.Connection, records: Records) -> None:
        """Write to the ledger what has happened since the last batch, with this one."""
        what = self._entry()
        for reason, number in self._retries.items():
            records.note(connection, "retry", number, {"reason": reason, "job": self._row.id}, **what)
        if self._warning is not None:
            records.note(connection, "batched", 1, self._warning, **what)

    def _entry(self) -> dict[str, Any]:
        selection = self._selection
        return {
            "model": selection.guard.model,
            "attribute": selection.guard.attribute,
            "table": selection.table.fullname,
            "target": selection.target,
            "operation": self._name,
            "place": self._options.place,
        }

    def _note_what_is_left(self, session: Session) -> Any:
        assert self._records is not None
        connection = self._connection(session)
        self._write_notes(connection, self._records)
        self._records.came_to_nothing(connection, self._token, self._retries.total(), self._sizing.rate)
        return self._records.get(connection, self._token)

    def _note_failure(self, error: Exception) -> Steps:
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:500]

        def note(session: Session) -> None:
            assert self._records is not None
            connection = self._connection(session)
            self._records.failed(connection, self._token, f"{type(error).__name__}: {text}")

        try:
            yield Work(note)
        except Exception as second:
            error.add_note(f"Nor could the job note it: {second}")

    def _renew(self, session: Session) -> None:
        if self._records is not None and self.lease is not None:
            self._records.renew(self._connection(session), self.lease)

    def leave(self, session: Session) -> None:
        """Give the lease back."""
        if self._records is not None and self.lease is not None:
            self._records.leave(self._connection(session), self.lease)

    @property
    def can_leave(self) -> bool:
        """Whether there is a lease to give back, and a connection and time to do so; else it runs out by itself."""
        left = self._left
        return self.lease is not None and (left is None or left > _LEAVING) and not must_wait(None, self._pool)

    def _connection(self, session: Session) -> sa.Connection:
        mapper = self._selection.mapper
        arguments = {"clause": sa.update(self._selection.table)}
        return session.connection(bind_arguments=arguments if mapper is None else {"mapper": mapper, **arguments})

    def _block(self) -> Operation:
        return _Block(self._name, self._on_illegal)


def _outer_name() -> str | None:
    outer = current_operation()
    return None if outer is None else outer.name
