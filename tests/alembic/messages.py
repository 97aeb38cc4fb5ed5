"""What the tests of migrations share: raw SQL on a table ``message``, as another program would write it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition
from statekit.errors import Pair
from statekit.guards import refused as translation
from statekit.trigger.catalog import installed
from statekit.trigger.status import declared_in, findings

# The first guard of a process does it; not every test here has one.
translation.install()

TABLE = "CREATE TABLE message (id integer PRIMARY KEY, status varchar(20))"

CREATE = """op.create_state_trigger(
    "message",
    "status",
    transitions=[("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")],
    initial=["READY"],
    version=1,
)"""
"""What a migration says of the inbox."""


def insert(engine: sa.Engine, *states: Any, table: str = "message", column: str = "status") -> None:
    """Add rows in the given states, in one transaction."""
    with engine.begin() as connection:
        known = connection.execute(sa.text(f"SELECT coalesce(max(id), 0) FROM {table}")).scalar_one()
        for number, state in enumerate(states, known + 1):
            text = sa.text(f"INSERT INTO {table} (id, {column}) VALUES (:id, :state)")
            connection.execute(text, {"id": number, "state": state})


def move(engine: sa.Engine, target: Any, *, row: int = 1, table: str = "message", column: str = "status") -> None:
    """Give a row another state."""
    with engine.begin() as connection:
        text = sa.text(f"UPDATE {table} SET {column} = :state WHERE id = :id")
        connection.execute(text, {"id": row, "state": target})


def refuses_move(engine: sa.Engine, target: Any, **where: Any) -> Pair:
    """Return the move that the database has refused, as its error has it."""
    with pytest.raises(IllegalTransition) as caught:
        move(engine, target, **where)
    return caught.value.source, caught.value.target


def names(engine: sa.Engine) -> list[str]:
    """Return the columns that have a trigger, as "table.column"."""
    with engine.connect() as connection:
        return [f"{each.table}.{each.trigger.column}" for each in installed(connection)]


def problems(engine: sa.Engine, *metadata: sa.MetaData) -> list[str]:
    """Return how the triggers of a database differ from those that are declared."""
    with engine.connect() as connection:
        return [f"{each.kind}: {each.detail}" for each in findings(connection, declared_in(*metadata))]


def left_behind(engine: sa.Engine) -> list[str]:
    """Return what of triggers a database still has: on PostgreSQL, functions and counters too."""
    if engine.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = (
            "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal UNION ALL "
            "SELECT proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('statekit') "
            "AND proname <> 'counts_v1' UNION ALL "
            "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('statekit') AND relkind = 'S'"
        )
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.text(query)))
