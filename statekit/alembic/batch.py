"""Keeps the triggers of a table that ``op.batch_alter_table()`` makes anew.

Such a batch moves the rows into a new table, drops the old one, and its triggers with it: always on SQLite when more
than a column is added, elsewhere with ``recreate="always"``. Alembic has no event for that, so its public method is
wrapped.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from alembic.operations import BatchOperations, Operations

from statekit.alembic.toimpl import execute
from statekit.trigger import StateTrigger, dialects
from statekit.trigger.catalog import default_schema, installed

_MARK = "_keeps_state_triggers"


def install() -> None:
    """Wrap ``Operations.batch_alter_table``, once."""
    original = Operations.batch_alter_table
    if hasattr(original, _MARK):
        return

    @contextmanager
    @functools.wraps(original)
    def batch_alter_table(
        self: Operations,
        table_name: str,
        schema: str | None = None,
        recreate: Literal["auto", "always", "never"] = "auto",
        *args: Any,
        **options: Any,
    ) -> Iterator[BatchOperations]:
        with original(self, table_name, schema, recreate, *args, **options) as batch:
            yield batch
            # Now, and not before: the block may itself have dropped or replaced one.
            before = _triggers(self, table_name, schema) if _may_lose(self, recreate) else []
        for trigger in before:
            if _was_lost(self, trigger, table_name, schema):
                execute(self, trigger.create_sql)

    setattr(batch_alter_table, _MARK, True)
    Operations.batch_alter_table = batch_alter_table  # type: ignore[assignment]


def _may_lose(operations: Operations, recreate: str) -> bool:
    context = operations.get_context()
    if context.as_sql or recreate == "never" or not dialects.is_supported(context.dialect):
        return False
    return recreate == "always" or context.dialect.name == "sqlite"


def _triggers(operations: Operations, table: str, schema: str | None) -> list[StateTrigger]:
    connection = operations.get_bind()
    place = (schema or default_schema(connection), table)
    return [each.trigger for each in installed(connection) if (each.schema, each.table) == place]


def _was_lost(operations: Operations, trigger: StateTrigger, table: str, schema: str | None) -> bool:
    """Return whether a trigger is gone, and its column is not: without that, SQLite would refuse every later write."""
    if trigger in _triggers(operations, table, schema):
        return False
    columns = sa.inspect(operations.get_bind()).get_columns(table, schema=schema)
    return any(column["name"] == trigger.column for column in columns)


install()
