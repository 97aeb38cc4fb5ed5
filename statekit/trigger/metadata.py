"""A trigger that comes and goes with its table, in ``create_all()`` and ``drop_all()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from statekit.trigger import dialects
from statekit.trigger.spec import StateTrigger


def create_with(table: sa.Table, trigger: Callable[[], StateTrigger]) -> None:
    """Have a trigger made right after its table, and removed right before it, where a database has triggers of ours.

    Copies of the table (``to_metadata()``) have it as well.

    Args:
        table: the table.
        trigger: returns the trigger, once the table is made: what else it needs may be declared by then.
    """

    def of(target: sa.Table, connection: sa.Connection) -> StateTrigger:
        made = trigger().on(target.name, connection.schema_for_object(target))  # where schema_translate_map has it
        made = made.with_ledger_in(_translated(made.ledger_schema, connection))
        # A mock of a connection, which prints, knows no default schema.
        return made.among(getattr(connection.dialect, "default_schema_name", None) or "")

    def after_create(target: sa.Table, connection: sa.Connection, **_: Any) -> None:
        execute(connection, of(target, connection).create_sql)

    def before_drop(target: sa.Table, connection: sa.Connection, **_: Any) -> None:
        execute(connection, of(target, connection).drop_sql)

    sa.event.listen(table, "after_create", after_create, propagate=True)
    sa.event.listen(table, "before_drop", before_drop, propagate=True)


def _translated(schema: str | None, connection: sa.Connection) -> str | None:
    """Return the schema in which the ledger's tables are, which schema_translate_map may have elsewhere."""
    found: str | None = connection.schema_for_object(sa.Table("statekit_history", sa.MetaData(), schema=schema))
    return found


def execute(connection: sa.Connection, sql: Callable[[Any], tuple[str, ...]]) -> None:
    """Execute the statements of a trigger, one after another; nothing where a database has no triggers of ours.

    Args:
        connection: or a mock of one, which prints.
        sql: such as the method :meth:`StateTrigger.create_sql` of a trigger.
    """
    if dialects.is_supported(connection.dialect):
        for statement in sql(connection.dialect):
            # A percent sign is doubled for DDL(), which formats its text, and again by SQLAlchemy for the driver.
            connection.execute(sa.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]
