"""Which columns ``--autogenerate`` looks at: a trigger belongs to what its column belongs to."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops


class Filters:
    """Whether a column is compared: the schemas, ``include_name`` and ``include_object`` of ``env.py`` say so.

    Args:
        context: Alembic's.
        upgrade: the operations so far; a table that they create is compared.
        schemas: the schemas that are compared, None for the default one.
        default_schema: name of the default schema.
    """

    def __init__(
        self, context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None], default_schema: str
    ) -> None:
        self._context = context
        self._schemas = schemas
        self._declared = {
            (None if table.schema == default_schema else table.schema, table.name): table
            for table in context.sorted_tables
        }
        self._reflected: dict[tuple[str | None, str], sa.Table | None] = {}
        self._created = {
            (None if each.schema == default_schema else each.schema, each.table_name)
            for each in upgrade.ops
            if isinstance(each, ops.CreateTableOp)
        }

    def __call__(self, schema: str | None, table: str, column: str) -> bool:
        """Return whether the column is compared."""
        if (schema, table) in self._created:
            return True  # the filters were asked when it was decided to create it
        context = self._context
        if schema not in self._schemas or not context.run_name_filters(table, "table", {"schema_name": schema}):
            return False
        parents = {"schema_name": schema, "table_name": table}
        if not context.run_name_filters(column, "column", parents):  # type: ignore[arg-type]
            return False
        found = self.reflected(schema, table)
        known = self._declared.get((schema, table))
        if found is None or not self._includes("table", table, known, found):
            return False
        declared_column, found_column = _column(known, column), _column(found, column)
        if declared_column is None and found_column is None:
            return True  # renamed by hand: nothing to ask about, and the trigger is of no use
        return self._includes("column", column, declared_column, found_column)

    def _includes(self, kind: Literal["table", "column"], name: str, declared: Any, found: Any) -> bool:
        """Ask ``include_object`` as Alembic does: of what is declared, else of what was found."""
        if declared is None:
            return self._context.run_object_filters(found, name, kind, True, None)
        return self._context.run_object_filters(declared, name, kind, False, found)

    def reflected(self, schema: str | None, table: str) -> sa.Table | None:
        """Return a table as the database has it, or None if it has none."""
        if (schema, table) not in self._reflected:
            self._reflected[schema, table] = self._reflect(schema, table)
        return self._reflected[schema, table]

    def _reflect(self, schema: str | None, table: str) -> sa.Table | None:
        connection = self._context.connection
        assert connection is not None
        try:
            return sa.Table(table, sa.MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
        except sa.exc.NoSuchTableError:
            return None


def _column(table: sa.Table | None, name: str) -> sa.Column[object] | None:
    columns = () if table is None else table.columns
    return next((column for column in columns if column.name == name), None)
