"""What a call does in the database: each method is what happens in one transaction, before its commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit.bulk import cursor
from statekit.bulk.limits import Limits, Settings, limited
from statekit.bulk.options import Options
from statekit.bulk.records import HEARTBEAT, Records, new_token, no_table, schema_of
from statekit.bulk.selection import Selection
from statekit.errors import StatekitError
from statekit.guards.guard import refusal_of
from statekit.guards.statements import by_keys
from statekit.guards.statements.by_keys import Key
from statekit.observe.hook import publish
from statekit.observe.modes import PASSING
from statekit.observe.move import Move
from statekit.observe.operation import Operation, current_operation

_NAMED = 10
_LOCK_WAIT = 1.0
_TO_READ = 0.5

Limit = Callable[[int, float], float | None]


class _Block(Operation):
    """The operation around the statements of a batch; the call as a whole says what came of it."""

    def _tell(self, *, failed: bool) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Moved:
    """What a batch has come to.

    Attributes:
        claimed: how many rows it has held.
        identities: the primary keys of those that have moved.
        last: the last one that it has held; None where it has found nothing.
        row: the job's row.
        finding: the seconds that it has taken to find and hold the rows.
    """

    claimed: int
    identities: tuple[Key, ...]
    last: Key | None
    row: Any
    finding: float


class Transactions:
    """A job, as one call sees it.

    Args:
        selection: the rows.
        options: what the caller has chosen.
        limit: returns how many seconds the next statement may take, in a batch of some rows that has taken some seconds
            already; None for no limit.

    Attributes:
        name: of the operation.
        row: the job's row, as it was read last.
        pool: of the engine.
        holds_all: whether nobody else can write while a batch is under way.
        lease: what identifies this call among the workers of the job; None while it has none.
        retries: how often something was tried again and why, as far as the ledger does not have it yet.
        warning: what the ledger is to have of a time-out that was prevented; None if nothing.
        heard_at: when the lease was renewed last.
        is_counting: whether the rows of a new job are being counted.
    """

    def __init__(self, selection: Selection, options: Options, limit: Limit) -> None:
        outer = current_operation()
        self._selection = selection
        self._options = options
        self._limit = limit
        self._on_illegal: Any = options.on_illegal
        self._token = options.job or new_token()
        self._records = Records(None)
        self._settings = Settings()
        self._operation = options.operation or (None if outer is None else outer.name)
        self.name: str = self._operation or f"{selection.model} to {selection.target}"
        self.row: Any = None
        self.pool: Any = None
        self.holds_all = False
        self.lease: str | None = None
        self.retries: Counter[str] = Counter()
        self.warning: dict[str, Any] | None = None
        self.heard_at = time.monotonic()
        self.is_counting = False

    # -- the job

    def find_pool(self, session: Session) -> None:
        """Look which pool the connections will come from, without taking one."""
        bind = self._selection.bind(session)
        self.holds_all = bind.dialect.name == "sqlite"
        if isinstance(bind, sa.Engine):  # else the session has a connection of the caller's, as tests do
            self.pool = bind.pool

    def open(self, session: Session) -> float | None:
        """Create the job, or find it.

        Returns:
            How many rows a second are known to move, of this job or else of one of the same kind; None if it is not.
        """
        connection = self._selection.connection(session)
        if connection._is_autocommit_isolation():
            raise StatekitError(
                f"{self.name}: a batch is one transaction, and this engine is in AUTOCOMMIT. Give another one: "
                'engine.execution_options(isolation_level="READ COMMITTED").'
            )
        self._records = records = Records(schema_of(self._selection.table.metadata, connection))
        self._settings = Settings.of(connection)
        limit = self._limit(1, 0)
        if limit is not None and self._options.job is not None:
            limit = max(limit, _TO_READ)  # whoever comes too late is told how far it is all the same
        with limited(session, connection, limit, None, self._settings) as limits:
            row = records.get(connection, self._token)  # the commit of a first attempt may not have been answered
            refused: list[Move] = []
            if row is None and self._options.job is None:
                refused = self._create(session, connection, limits)
                row = records.get(connection, self._token)
            else:
                self._check(row, connection.dialect)
            self._choose_mode(row)
            rate = row.rate or records.known_rate(connection, **self._kind(row.operation))
        self.name = row.operation or self.name
        self.row = row
        with self._block():
            publish(refused, connection)
        return rate

    def _kind(self, operation: str | None) -> dict[str, Any]:
        selection = self._selection
        return {
            "table_name": selection.table.fullname,
            "attribute": selection.guard.attribute,
            "target": selection.target,
            "operation": operation,
        }

    def _create(self, session: Session, connection: sa.Connection, limits: Limits) -> list[Move]:
        """Write the job, and return the moves that are refused at once."""
        selection = self._selection
        self.is_counting = True
        start = time.monotonic()
        with self._block():
            mode = selection.guard.mode
            selection.passes = mode in PASSING
            counted = selection.count(session)
            seconds = time.monotonic() - start
            refused = {state: n for state, n in counted.items() if not selection.may_move(state)}
            moves = self._refused(session, connection, refused, limits)
        rendered = selection.rendered(connection.dialect)
        sql = None if rendered is None else rendered.sql
        if connection.get_execution_options().get("schema_translate_map"):
            sql = None  # which says of no table in which schema it is meant
        left = self._limit(1, 0)
        limits.shorten(left)
        if left is not None and seconds > left / 4:
            sql = None  # to count once more would not leave much time to move anything
        if sql is not None and not selection.finds_the_same(session, sql, counted):
            sql = None
        self.is_counting = False
        limits.shorten(self._limit(1, 0))
        self._records.create(
            connection,
            self._token,
            **self._kind(self._operation),
            model=selection.model,
            on_illegal="override" if mode == "override" else self._options.on_illegal,
            condition=sql,
            condition_shape=None if rendered is None else rendered.shape,
            total=counted.total(),
            blocked=sum(refused.values()),
        )
        return moves

    def _refused(
        self, session: Session, connection: sa.Connection, refused: dict[str | None, int], limits: Limits
    ) -> list[Move]:
        """Return the moves of rows that must not make them.

        Raises:
            IllegalTransition: there are some, in "raise".
        """
        selection = self._selection
        guard = selection.guard
        keys = {}
        for state in refused:
            limits.shorten(self._limit(1, 0))
            keys[state] = selection.refused(session, state, _NAMED)
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

    def _choose_mode(self, row: Any) -> None:
        """Have the job go on as it was begun.

        Raises:
            StatekitError: it was begun inside of an override, and that is not in force here.
        """
        is_overridden = row.on_illegal == "override"
        self._on_illegal = None if is_overridden else row.on_illegal
        with self._block():
            mode = self._selection.guard.mode
        if is_overridden and mode != "override":
            raise StatekitError(
                f"job={row.id!r} was begun inside of override(…), so that rows move that must not. Go on with it "
                "inside of an override(…) as well."
            )
        self._selection.passes = is_overridden or (row.on_illegal == "observe" and mode in PASSING)

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
                f"{asked[0]}.{asked[1]} (table {asked[2]}) to {asked[3]}. Go on with the job as it was "
                "begun, or begin a new one: job=None."
            )
        rendered = selection.rendered(dialect)
        if rendered is not None and rendered.shape != row.condition_shape:
            raise StatekitError(
                f"job={row.id!r} was begun with another condition: where {row.condition_shape or 'nothing'}, and asked "
                f"for is where {rendered.shape}. Go on with the job as it was begun, or begin a new one: job=None."
            )
        if rendered is None and row.condition_shape is None:
            return
        if rendered is None or (row.condition is not None and rendered.sql != row.condition):
            selection.go_on_with(row.condition, row.id)  # with the values that it was begun with

    def note_failure(self, session: Session, error: str) -> None:
        """Note with the job that a call has ended with an error."""
        with self._limited(session) as connection:
            self._records.failed(connection, self._token, error)

    def note_what_is_left(self, session: Session, rate: float | None) -> Any:
        """Note what no batch has come after, and return the job's row."""
        with self._limited(session) as connection:
            self._write_notes(connection)
            self._records.came_to_nothing(connection, self._token, self.retries.total(), rate)
            return self._records.get(connection, self._token)

    def explained(self, error: Exception) -> Exception:
        """Return what to raise for an error that has kept a job from being made."""
        text = str(getattr(error, "orig", "")).lower()
        if "statekit_job" in text and ("no such table" in text or "does not exist" in text):
            return no_table(self._records.tables.job.schema)
        return error

    # -- the lease

    def join(self, session: Session) -> None:
        """Take a lease."""
        with self._limited(session) as connection:
            self.lease = self._records.join(connection, self._token)

    def renew(self, session: Session) -> None:
        """Say that this call is alive."""
        with self._limited(session) as connection:
            self._renew(connection)

    def _renew(self, connection: sa.Connection) -> None:
        if self.lease is not None:
            self._records.renew(connection, self.lease)

    def leave(self, session: Session) -> None:
        """Give the lease back."""
        if self.lease is not None:
            with self._limited(session) as connection:
                self._records.leave(connection, self.lease)

    @contextmanager
    def _limited(self, session: Session) -> Iterator[sa.Connection]:
        connection = self._selection.connection(session)
        with limited(session, connection, self._limit(1, 0), None, self._settings):
            yield connection

    # -- a batch

    def move(self, session: Session, number: int, after: Key | None, *, waits: bool, rate: float | None) -> Moved:
        """Move one batch; rows, cursor and counters come with the same commit.

        Args:
            number: of rows, at most.
            after: the primary key after which to look; None to look from the first row on. If nothing is found, and
                nothing is left before it or held by somebody, the job is finished.
            waits: whether to wait for rows that somebody holds, instead of leaving them out.
            rate: rows a second, as known before the batch.
        """
        connection = self._selection.connection(session)
        start = time.monotonic()
        limit = self._limit(number, 0)
        lock_wait = None if not waits else _LOCK_WAIT if limit is None else min(_LOCK_WAIT, limit / 2)
        with limited(session, connection, limit, lock_wait, self._settings) as limits, self._block():
            rows, last = self._selection.claim(session, number, after, waits=waits)
            finding = time.monotonic() - start
            if not rows:
                # Before the look from the first row on, which takes longer: it goes through all of the key.
                if not self._selection.is_left(session):
                    self._records.finish(connection, self._token)
                return Moved(0, (), None, self._records.get(connection, self._token), finding)
            limits.shorten(self._limit(number, finding))
            moved = by_keys.move(connection, self._selection.guard, rows, self._selection.value)
            limits.shorten(self._limit(1, 0))
            self._write_notes(connection)
            claimed, seconds = sum(map(len, rows.values())), time.monotonic() - start
            row = self._records.add(
                connection,
                self._token,
                done=len(moved),
                seconds=seconds,
                rate=rate or claimed / max(seconds - finding, 1e-6),
                cursor=cursor.to_json(last),
                retries=self.retries.total(),
            )
            if time.monotonic() - self.heard_at >= HEARTBEAT:
                self.heard_at = time.monotonic()
                self._renew(connection)
        return Moved(claimed, tuple(moved), last, row, finding)

    def _write_notes(self, connection: sa.Connection) -> None:
        """Write to the ledger what has happened since the last batch."""
        selection = self._selection
        what = {
            "model": selection.guard.model,
            "attribute": selection.guard.attribute,
            "table": selection.table.fullname,
            "target": selection.target,
            "operation": self.name,
            "place": self._options.place,
        }
        for reason, number in self.retries.items():
            detail = {"reason": reason, "job": self._token}
            self._records.note(connection, "retry", number, detail, **what)
        if self.warning is not None:
            self._records.note(connection, "batched", 1, self.warning, **what)

    def _block(self) -> Operation:
        return _Block(self.name, self._on_illegal)
