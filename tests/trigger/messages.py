"""What the tests of triggers share: the inbox as a plain table, with a trigger and without any guard.

It is called ``mail``, as no table of a guard in the tests is: an error would name that guard's model.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition
from statekit.errors import Pair
from statekit.guards import refused as translation
from statekit.trigger import StateTrigger
from statekit.trigger.catalog import blocked
from tests.guards.inbox import message_class
from tests.support.databases import execute
from tests.trigger.by_hand import install

# The first guard of a process does it, and no guard is declared here: what a test sees depends on no other test.
translation.install()

MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]
STATES = ("READY", "PROMOTED", "COMPLETED")
"""The states of the messages 1, 2 and 3."""

AS_BEFORE = list(STATES)
"""What :func:`stored` returns where nothing was changed."""

TABLE = "CREATE TABLE mail (id integer PRIMARY KEY, status text, subject text DEFAULT '')"


def trigger(**options: Any) -> StateTrigger:
    """Return the trigger of the inbox, with other options."""
    values: dict[str, Any] = {"table": "mail", "column": "status", "transitions": MOVES, "initial": ["READY"]}
    values |= options
    return StateTrigger(values.pop("table"), values.pop("column"), values.pop("transitions"), **values)


def guarded(**options: Any) -> Any:
    """Return a new class Message(id, status, subject), guarded with these options, on a table of a name of its own."""
    return message_class(name=f"message_{next(_numbers)}", **{"trigger": True} | options)


_numbers = itertools.count(1)


def fill(engine: sa.Engine, *states: str | None, ddl: str = TABLE) -> None:
    """Make the table, and messages 1, 2, 3, … in these states, before there is a trigger."""
    with engine.begin() as connection:
        for statement in ddl.split(";"):
            connection.exec_driver_sql(statement)
        for number, state in enumerate(states, 1):
            connection.execute(sa.text("INSERT INTO mail (id, status) VALUES (:n, :s)"), {"n": number, "s": state})


def inbox(engine: sa.Engine, *, ddl: str = TABLE, **options: Any) -> sa.Engine:
    """Make the table with its three messages and its trigger, and return the engine."""
    fill(engine, *STATES, ddl=ddl)
    install(engine, trigger(**options))
    return engine


def stored(engine: sa.Engine) -> list[Any]:
    """Return the states that the database holds, by id."""
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT CAST(status AS text) FROM mail ORDER BY id")))


def refused(engine: sa.Engine, *statements: str) -> IllegalTransition:
    """Return the error with which the last of these statements, all in one transaction, is refused."""
    *first, last = statements
    with engine.connect() as connection:
        for statement in first:
            connection.exec_driver_sql(statement)
        with pytest.raises(IllegalTransition) as caught:
            connection.exec_driver_sql(last)
    return caught.value


def move(error: IllegalTransition) -> Pair:
    """Return what the error says was tried."""
    return error.source, error.target


def copy(engine: sa.Engine, rows: str, table: str = "mail") -> None:
    """Write rows (id, tab, status) by COPY."""
    connection = engine.raw_connection()
    try:
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} (id, status) FROM STDIN") as to:
            to.write(rows)
        connection.commit()
    finally:
        connection.close()


def version(engine: sa.Engine) -> int:
    """Return the major version of the server."""
    with engine.connect() as connection:
        return (connection.dialect.server_version_info or (0,))[0]


def counts(engine: sa.Engine, *triggers: StateTrigger) -> Counter[Pair]:
    """Return what the triggers have blocked."""
    with engine.connect() as connection:
        return blocked(connection, triggers or None)


def observed(engine: sa.Engine) -> dict[Pair, int]:
    """Return what triggers have let pass in "observe"."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT source, target, number FROM statekit.counts_v1() WHERE kind = 'observed'"
        )
        return {(source, target): number for source, target, number in rows if number}


@contextmanager
def role(engine: sa.Engine, *grants: str) -> Iterator[str]:
    """Make an ordinary role for the length of a block: roles are the server's, and outlive a database.

    Args:
        grants: what to execute then; ``{role}`` and ``{database}`` stand for their names.
    """
    database = str(engine.url.database)
    name = f"{database}_{next(_numbers)}"
    execute(engine, f"CREATE ROLE {name} LOGIN")
    execute(engine, *(grant.format(role=name, database=database) for grant in grants))
    try:
        yield name
    finally:
        execute(engine, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def engine_of(engine: sa.Engine, name: str) -> sa.Engine:
    """Return an engine on the same database for another role; dispose of it."""
    return sa.create_engine(engine.url.set(username=name), poolclass=sa.NullPool)
