"""What jobs there are, and how one is stopped."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit.bulk.records import Records, no_table
from statekit.bulk.result import remaining_of
from statekit.errors import StatekitError
from statekit.ledger.attaching import writer_of
from statekit.ledger.queries import in_utc

State = Literal["running", "waiting", "finished", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A bulk transition, as its row in the database has it.

    Attributes:
        id: the token to go on with.
        state: "running" (somebody works on it), "waiting" (nobody does), "finished" or "cancelled".
        operation: the name that was given, or None.
        model: the class of the attribute, or the table.
        attribute: what is moved.
        table: its table, with its schema if it has one.
        target: the state that the rows get.
        condition: the condition as SQL; None if there is none, or if it has no form in SQL with its values.
        has_condition: whether there is one.
        on_illegal: what becomes of rows that must not make the move.
        total: rows that were to move when it began.
        done: rows that have moved.
        blocked: rows that were refused.
        remaining: rows that are still to move.
        batches: how many have committed.
        retries: how often a batch was tried again.
        failures: how many calls in a row have ended with an error.
        error: the last one, or None.
        workers: how many work on it now.
        seconds: for how long batches have been at work, all in all.
        rate: rows a second, or None.
        created_at: when it began, in UTC.
        seen_at: when something was heard of it last.
        finished_at: when it was finished, or None.
        cancelled_at: when it was cancelled, or None.
    """

    id: str
    state: State
    operation: str | None
    model: str
    attribute: str
    table: str
    target: str | None
    condition: str | None
    has_condition: bool
    on_illegal: str
    total: int
    done: int
    blocked: int
    remaining: int
    batches: int
    retries: int
    failures: int
    error: str | None
    workers: int
    seconds: float
    rate: float | None
    created_at: dt.datetime
    seen_at: dt.datetime
    finished_at: dt.datetime | None
    cancelled_at: dt.datetime | None


def jobs(bind: sa.Engine | sa.Connection | Session, *, schema: str | None = None, limit: int = 100) -> list[Job]:
    """Return the bulk transitions of a database, the latest first.

    Args:
        bind: an engine, connection or session. In an async application: ``await connection.run_sync(jobs)``.
        schema: the schema of the ledger's tables; None for that of the ledger that is attached to the engine, or none.
        limit: how many at most.

    Raises:
        StatekitError: there are no tables of jobs, or the bind is none.
    """

    def read(connection: sa.Connection, records: Records) -> list[Job]:
        workers = records.workers(connection)
        return [_job(row, workers.get(row.id, 0)) for row in records.all(connection, limit)]

    found: list[Job] = _with(bind, schema, read)
    return found


def cancel(bind: sa.Engine | sa.Connection | Session, job: str, *, schema: str | None = None) -> bool:
    """Have a bulk transition stop: no batch begins any more, whoever works on it. What is done stays done.

    Args:
        bind: an engine; a connection or session is not committed.
        job: its token.
        schema: the schema of the ledger's tables.

    Returns:
        Whether it is cancelled by this; False if it was finished or cancelled before.

    Raises:
        StatekitError: there is no such job, or there are no tables of jobs.
    """

    def write(connection: sa.Connection, records: Records) -> bool:
        if records.get(connection, job) is None:
            raise StatekitError(f"There is no job {job!r}.")
        return records.cancel(connection, job)

    return bool(_with(bind, schema, write))


def _with(bind: Any, schema: str | None, work: Any) -> Any:
    if isinstance(bind, Session):
        bind = bind.connection()
    if not isinstance(bind, sa.Engine | sa.Connection):
        raise StatekitError(
            f"{bind!r}: allowed is an Engine, a Connection or a Session. Of an async engine, use "
            "await connection.run_sync(lambda c: jobs(c))."
        )
    writer = writer_of(bind)
    if schema is None and writer is not None:
        schema = writer.table.schema
    records = Records(schema)

    def done(connection: sa.Connection) -> Any:
        if not sa.inspect(connection).has_table(records.tables.job.name, schema=schema):
            raise no_table(schema)
        return work(connection, records)

    if isinstance(bind, sa.Engine):
        with bind.begin() as connection:
            return done(connection)
    return done(bind)


def _job(row: Any, workers: int) -> Job:
    state: State = "running" if workers else "waiting"
    if row.cancelled_at is not None:
        state = "cancelled"
    elif row.finished_at is not None:
        state = "finished"
    return Job(
        id=row.id,
        state=state,
        operation=row.operation,
        model=row.model,
        attribute=row.attribute,
        table=row.table_name,
        target=row.target,
        condition=row.condition,
        has_condition=row.condition_shape is not None,
        on_illegal=row.on_illegal,
        total=row.total,
        done=row.done,
        blocked=row.blocked,
        remaining=remaining_of(row),
        batches=row.batches,
        retries=row.retries,
        failures=row.failures,
        error=row.error,
        workers=workers,
        seconds=row.seconds,
        rate=row.rate,
        created_at=in_utc(row.created_at),
        seen_at=in_utc(row.seen_at),
        finished_at=None if row.finished_at is None else in_utc(row.finished_at),
        cancelled_at=None if row.cancelled_at is None else in_utc(row.cancelled_at),
    )
