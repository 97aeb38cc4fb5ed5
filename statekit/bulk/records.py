"""The rows of jobs and of who works on them, in the database."""

from __future__ import annotations

import datetime as dt
import os
import socket
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.errors import StatekitError
from statekit.ledger import queries
from statekit.ledger.attaching import writer_of
from statekit.ledger.entries import now
from statekit.ledger.notes import note
from statekit.ledger.tables import JOB, Tables

LEASE = dt.timedelta(seconds=60)
"""How long a worker is taken to be alive after it was heard of. What it holds is free as soon as its connection is."""

HEARTBEAT = 10.0
"""After how many seconds a worker says again that it is alive."""

_OPTIONS = {"schema_translate_map": None}


class Records:
    """Reads and writes the rows of jobs in one schema; each method is a statement or two in the caller's transaction.

    Args:
        schema: of the ledger's tables.
    """

    def __init__(self, schema: str | None) -> None:
        self.tables: Tables = queries.tables(schema)

    def _execute(self, connection: Connection, statement: Any) -> Any:
        # Where all workers look, whatever schema_translate_map the application's statements have.
        return connection.execute(statement, execution_options=_OPTIONS)

    def create(self, connection: Connection, token: str, **values: Any) -> None:
        """Write a new job."""
        at = now()
        beginning = {"done": 0, "batches": 0, "retries": 0, "failures": 0, "seconds": 0.0}
        self._execute(
            connection,
            sa.insert(self.tables.job).values(id=token, created_at=at, seen_at=at, **beginning, **values),
        )

    def get(self, connection: Connection, token: str) -> Any:
        """Return the row of a job, or None."""
        return self._execute(connection, sa.select(self.tables.job).where(self.tables.job.c.id == token)).first()

    def known_rate(self, connection: Connection, **what: Any) -> float | None:
        """Return how many rows a second the latest job moved that was of the same kind, or None."""
        job = self.tables.job
        query = sa.select(job.c.rate).where(job.c.rate.is_not(None), job.c.batches > 1)
        for name, value in what.items():
            query = query.where(job.c[name].is_not_distinct_from(value))
        rate = self._execute(connection, query.order_by(job.c.seen_at.desc()).limit(1)).scalar()
        return None if rate is None else float(rate)

    def add(
        self,
        connection: Connection,
        token: str,
        *,
        done: int,
        seconds: float,
        rate: float | None,
        cursor: list[Any] | None,
        retries: int,
    ) -> Any:
        """Add a batch to a job, and return the job's row."""
        job = self.tables.job
        values = {
            "done": job.c.done + done,
            "batches": job.c.batches + 1,
            "retries": job.c.retries + retries,
            "failures": 0,
            "error": None,
            "seconds": job.c.seconds + seconds,
            "rate": rate,
            "cursor": cursor,
            "seen_at": now(),
        }
        self._execute(connection, sa.update(job).where(job.c.id == token).values(values))
        row = self.get(connection, token)
        if row is None:
            raise StatekitError(f"The job {token!r} has been removed from {job.fullname}: nothing can count its rows.")
        return row

    def finish(self, connection: Connection, token: str) -> bool:
        """Say that a job is finished, and return whether it was not already."""
        return self._end(connection, token, finished_at=now(), seen_at=now(), failures=0, error=None)

    def failed(self, connection: Connection, token: str, error: str) -> None:
        """Note that a call has ended with an error."""
        job = self.tables.job
        values = {"failures": job.c.failures + 1, "error": error, "seen_at": now()}
        self._execute(connection, sa.update(job).where(job.c.id == token).values(values))

    def came_to_nothing(self, connection: Connection, token: str, retries: int, rate: float | None) -> None:
        """Note what a call has found out that has moved nothing after it: the next one is to begin more carefully."""
        job = self.tables.job
        values = {"retries": job.c.retries + retries, "rate": rate, "seen_at": now()}
        self._execute(connection, sa.update(job).where(job.c.id == token).values(values))

    def cancel(self, connection: Connection, token: str) -> bool:
        """Say that a job is to stop, and return whether it was neither finished nor cancelled."""
        return self._end(connection, token, cancelled_at=now())

    def _end(self, connection: Connection, token: str, **values: Any) -> bool:
        job = self.tables.job
        is_open = sa.and_(job.c.finished_at.is_(None), job.c.cancelled_at.is_(None))
        ended = sa.update(job).where(job.c.id == token, is_open).values(values)
        return bool(self._execute(connection, ended).rowcount == 1)

    # -- who works on it

    def join(self, connection: Connection, token: str) -> str:
        """Take a lease on a job, remove those that have run out, and return what identifies it."""
        worker, at, lease = self.tables.worker, now(), new_token()
        self._execute(connection, sa.delete(worker).where(worker.c.job == token, worker.c.until < at))
        values = {"host": socket.gethostname(), "process": os.getpid(), "started_at": at, "until": at + LEASE}
        self._execute(connection, sa.insert(worker).values(id=lease, job=token, **values))
        return lease

    def renew(self, connection: Connection, lease: str) -> None:
        """Say that a worker is alive."""
        worker = self.tables.worker
        self._execute(connection, sa.update(worker).where(worker.c.id == lease).values(until=now() + LEASE))

    def leave(self, connection: Connection, lease: str) -> None:
        """Give a lease back."""
        worker = self.tables.worker
        self._execute(connection, sa.delete(worker).where(worker.c.id == lease))

    def workers(self, connection: Connection) -> dict[str, int]:
        """Return how many workers are alive, by job."""
        worker = self.tables.worker
        query = sa.select(worker.c.job, sa.func.count()).where(worker.c.until >= now()).group_by(worker.c.job)
        return dict(self._execute(connection, query).all())

    def all(self, connection: Connection, limit: int) -> list[Any]:
        """Return the rows of jobs, the latest first."""
        job = self.tables.job
        query = sa.select(job).order_by(job.c.created_at.desc(), job.c.id).limit(limit)
        return list(self._execute(connection, query))

    def note(self, connection: Connection, kind: str, number: int, detail: dict[str, Any], **what: Any) -> None:
        """Write an entry of the ledger in the caller's transaction."""
        note(connection, self.tables.ledger, kind, number, detail, **what)


def new_token() -> str:
    """Return what identifies a job, or a worker of one."""
    return uuid.uuid4().hex


def schema_of(metadata: sa.MetaData, bind: Any) -> str | None:
    """Return the schema of the ledger's tables: as the models' MetaData has them, else as the bind's ledger is."""
    for table in metadata.tables.values():
        if table.name == JOB and table.info.get("statekit_ledger"):
            return table.schema
    writer = writer_of(bind)
    return writer.table.schema if writer is not None else None


def no_table(schema: str | None) -> StatekitError:
    """Return the error for a database without the tables of jobs."""
    name = JOB if schema is None else f"{schema}.{JOB}"
    return StatekitError(
        f"There is no table {name}, which keeps how far a bulk transition has come. Add the ledger's tables to your "
        "models and migrate: statekit.ledger.add_to(Base.metadata), then alembic revision --autogenerate and alembic "
        "upgrade head. Nothing was moved."
    )
