"""The ledger's tables, in the MetaData of the application, so that its own migrations deliver them."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from statekit.errors import TableError

LEDGER = "statekit_ledger"
PRUNED = "statekit_ledger_pruned"
HISTORY = "statekit_history"
JOB = "statekit_job"
WORKER = "statekit_job_worker"

_INFO_KEY = "statekit_ledger"


class Tables(NamedTuple):
    """The tables that :func:`add_to` has added.

    Attributes:
        ledger: an entry a row: what happened, how often, when, and where it came from.
        pruned: the sums of the entries that :func:`statekit.ledger.prune` has removed, so that counts stay exact.
        history: a row for each move that happened to a row of a column with ``guard(..., history=True)``.
        job: a row for each bulk transition: what it moves, how far it has come.
        worker: a row for each call that works on a job now, with the time until which it is taken to be alive.
    """

    ledger: sa.Table
    pruned: sa.Table
    history: sa.Table
    job: sa.Table
    worker: sa.Table


def add_to(metadata: sa.MetaData, *, schema: str | None = None) -> Tables:
    """Add the ledger's tables to a MetaData, such as ``Base.metadata``; Alembic's autogenerate then delivers them.

    Called again, it returns the tables that are there.

    Args:
        metadata: of the application's models.
        schema: the schema of the tables; None for that of the MetaData, which is mostly none.

    Returns:
        The tables.

    Raises:
        TableError: it is no MetaData, or has a table of that name which is another one.

    >>> metadata = sa.MetaData()
    >>> sorted(table.name for table in add_to(metadata))
    ['statekit_history', 'statekit_job', 'statekit_job_worker', 'statekit_ledger', 'statekit_ledger_pruned']
    """
    if not isinstance(metadata, sa.MetaData):
        raise TableError(f"add_to({metadata!r}): allowed is a MetaData, such as Base.metadata.")
    place = schema if schema is not None else metadata.schema
    names = [name if place is None else f"{place}.{name}" for name in (LEDGER, PRUNED, HISTORY, JOB, WORKER)]
    known = [metadata.tables.get(name) for name in names]
    if all(table is not None and table.info.get(_INFO_KEY) for table in known):
        return Tables(*known)  # type: ignore[arg-type]
    for name, table in zip(names, known, strict=True):
        if table is not None:
            raise TableError(
                f"add_to(): the MetaData has a table {name} already, which is not the ledger's. Call add_to() before "
                "the database is reflected, or give the ledger a schema of its own: add_to(metadata, schema=…)."
            )
    return Tables(
        _ledger(metadata, schema),
        _pruned(metadata, schema),
        _history(metadata, schema),
        _job(metadata, schema),
        _worker(metadata, schema),
    )


def history_table(metadata: sa.MetaData, where: str) -> sa.Table:
    """Return the history's table of a MetaData.

    Args:
        metadata: of the guarded table.
        where: what asks, for the error.

    Raises:
        TableError: the MetaData has none.
    """
    found = [table for table in metadata.tables.values() if table.name == HISTORY and table.info.get(_INFO_KEY)]
    if not found:
        raise TableError(
            f"{where}: history=True and override_role= need the ledger's tables. Add them to the MetaData of the "
            "models: statekit.ledger.add_to(Base.metadata)."
        )
    return found[0]


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows by themselves only so
_JSON = sa.JSON(none_as_null=True)  # not JSONB, which Alembic writes into a migration in a way that does not run


def _what() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("attribute", sa.Text),
        sa.Column("table_name", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("is_new", sa.Boolean, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    ]


def _ledger(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    return sa.Table(
        LEDGER,
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *_what(),
        sa.Column("operation", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("identities", _JSON),
        sa.Column("host", sa.Text),
        sa.Column("process", sa.Integer),
        sa.Column("place", sa.Text),
        sa.Column("detail", _JSON),
        # What an attempt wrote whose COMMIT was never answered is told by these from what is still to be written.
        sa.Column("batch", sa.String(32), nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.UniqueConstraint("batch", "line", name="uq_statekit_ledger_batch_line"),
        sa.Index("ix_statekit_ledger_at", "at"),
        sa.Index("ix_statekit_ledger_kind_at", "kind", "at"),
        schema=schema,
        info={_INFO_KEY: True},
        comment="What statekit's guards have blocked, observed and let through on purpose.",
    )


def _pruned(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    return sa.Table(
        PRUNED,
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        *_what(),
        schema=schema,
        info={_INFO_KEY: True},
        comment="The sums of the entries that were removed from statekit_ledger.",
    )


def _history(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    return sa.Table(
        HISTORY,
        metadata,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("column_name", sa.Text, nullable=False),
        # The primary key of the row as a JSON array of texts, written by the database itself; see :mod:`.keys`.
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("is_new", sa.Boolean, nullable=False),
        sa.Column("operation", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("place", sa.Text),
        sa.Column("role", sa.Text),
        # Each move pays for them: the key comes first, because it tells most rows apart, and times only ever grow.
        sa.Index("ix_statekit_history_key", "key", "table_name"),
        sa.Index("ix_statekit_history_at", "at", postgresql_using="brin"),
        schema=schema,
        info={_INFO_KEY: True},
        comment="The moves that rows have made, for statekit's guards with history=True.",
    )


def _job(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    return sa.Table(
        JOB,
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("operation", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("attribute", sa.Text, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("on_illegal", sa.String(20), nullable=False),
        # As SQL with its values, for who goes on without the application's code; NULL where it has no such form.
        sa.Column("condition", sa.Text),
        sa.Column("condition_shape", sa.Text),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("blocked", sa.BigInteger, nullable=False),
        sa.Column("batches", sa.BigInteger, nullable=False),
        sa.Column("retries", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        # Where the next batch starts to look; nothing depends on it but the time that it takes.
        sa.Column("cursor", _JSON),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("rate", sa.Float),
        sa.Index("ix_statekit_job_created_at", "created_at"),
        schema=schema,
        info={_INFO_KEY: True},
        comment="The bulk transitions of statekit, and how far they have come.",
    )


def _worker(metadata: sa.MetaData, schema: str | None) -> sa.Table:
    return sa.Table(
        WORKER,
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("process", sa.Integer),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Index("ix_statekit_job_worker_job", "job"),
        schema=schema,
        info={_INFO_KEY: True},
        comment="Who works on the bulk transitions of statekit now.",
    )
