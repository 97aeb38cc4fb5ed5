"""A ledger whose entries and history a test writes itself, and the commands that read them."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import sqlalchemy as sa

from statekit import ledger
from statekit.cli.database import shown
from statekit.trigger import StateTrigger
from tests.cli.conftest import Project
from tests.support.databases import Databases

NOW = dt.datetime.now(dt.UTC)
PAIR = ("PROMOTED", "SPAM_REVIEW")
MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]


def days_ago(days: float) -> dt.datetime:
    return NOW - dt.timedelta(days=days)


def make(engine: sa.Engine, schema: str | None = None) -> None:
    """Make the ledger's tables."""
    metadata = sa.MetaData()
    ledger.add_to(metadata, schema=schema)
    metadata.create_all(engine)


def enter(
    engine: sa.Engine,
    number: int = 1,
    pair: tuple[str | None, str | None] = PAIR,
    *,
    kind: str = "blocked",
    days: float = 0,
    schema: str | None = None,
    **more: Any,
) -> None:
    """Write an entry."""
    of = {"model": "Message", "attribute": "status", "table_name": "message", "is_new": False}
    values = {"kind": kind, "source": pair[0], "target": pair[1], "number": number, "at": days_ago(days)}
    table = ledger.add_to(sa.MetaData(), schema=schema).ledger
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {**of, **values, "batch": uuid.uuid4().hex, "line": 0, **more})


def write_history(
    engine: sa.Engine,
    *keys: int,
    pair: tuple[str | None, str | None] = ("READY", "PROMOTED"),
    kind: str = "allowed",
    days: float = 0,
    new: bool = False,
    key: str | None = None,
    **more: Any,
) -> None:
    """Write the same move of several rows to the history."""
    blank = " " if engine.dialect.name == "postgresql" else ""
    of = {"table_name": "message", "column_name": "status", "kind": kind, "is_new": new, "at": days_ago(days)}
    of |= {"source": None if new else pair[0], "target": pair[1], **more}
    table = ledger.add_to(sa.MetaData()).history
    texts = [key] if key is not None else [json.dumps([str(k)], separators=(f",{blank}", ":")) for k in keys]
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{**of, "key": text} for text in texts])


def install(engine: sa.Engine, *, creates_table: bool = True, **options: Any) -> None:
    """Make a table of messages, unless there is one, and a trigger on it."""
    statements = StateTrigger("message", "status", MOVES, initial=["READY"], **options).create_sql(engine.dialect)
    with engine.begin() as connection:
        if creates_table:
            connection.exec_driver_sql("CREATE TABLE message (id integer PRIMARY KEY, status varchar(20))")
            connection.exec_driver_sql("INSERT INTO message VALUES (1, 'PROMOTED'), (2, 'READY')")
        for statement in statements:
            connection.exec_driver_sql(statement)


def be_refused(engine: sa.Engine, statement: str = "UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1") -> None:
    """Have the trigger refuse something that no guard has seen."""
    connection: Any = engine.raw_connection()
    try:
        connection.cursor().execute(statement)
    except Exception:
        connection.rollback()
    else:
        raise AssertionError("it was let through")
    finally:
        connection.close()


def answer(project: Project, engine: sa.Engine | sa.URL, exit_code: int, command: str, *options: str) -> dict[str, Any]:
    """Return the JSON that a command prints."""
    url = engine if isinstance(engine, sa.URL) else engine.url
    result = project.run(command, *options, "--url", url, "--json")
    assert result.exit_code == exit_code, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def lines(project: Project, engine: sa.Engine, exit_code: int, command: str, *options: str) -> list[str]:
    """Return the lines that a command prints, without the database's URL."""
    result = project.run(command, *options, "--url", engine.url)
    assert result.exit_code == exit_code, result.output
    return [line.removeprefix(f"{shown(engine.url)}: ") for line in result.stdout.splitlines()]


def sync_engine(databases: Databases, backend: str) -> sa.Engine:
    """Return an engine on the database that another backend is to read."""
    return databases.engine("sqlite" if "sqlite" in backend else "psycopg")
