"""What the commands that read the ledger have in common: its options, whether there is one, what triggers count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.errors import Failure

if TYPE_CHECKING:
    import sqlalchemy as sa

schema_option = click.option(
    "--schema", metavar="NAME", help="The schema of the ledger's tables, as given to add_to(); none unless told."
)

table_option = click.option("--table", metavar="NAME", help="Only moves of this table: its name, or SCHEMA.NAME.")

_MEND = (
    "Add it to your models and migrate: statekit.ledger.add_to(Base.metadata). If it is in a schema of its own, name "
    "that: --schema NAME."
)


def no_ledger(where: str, schema: str | None, table: str = "statekit_ledger") -> str:
    """Return what is said where there is no ledger."""
    name = table if schema is None else f"{schema}.{table}"
    return f"{where}: there is no ledger (no table {name}). {_MEND}"


def require(is_there: bool, where: str, schema: str | None, table: str = "statekit_ledger") -> None:
    """Give up where there is no ledger.

    Raises:
        Failure: there is none.
    """
    if not is_there:
        raise Failure(no_ledger(where, schema, table))


def require_table(connection: sa.Connection, table: str, where: str) -> None:
    """Give up where the table that --table names, and of which nothing was found, is in no schema of a database.

    Raises:
        Failure: there is none.
    """
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    schema, _, name = table.rpartition(".")
    if inspector.has_table(name, schema=schema or None):
        return
    if not any(inspector.has_table(table, schema=each) for each in inspector.get_schema_names()):
        raise Failure(f"--table {table}: {where} has no such table, and nothing was counted for one.")


def is_table(name: str | None, wanted: str | None, default_schema: str) -> bool:
    """Return whether a table, as the ledger or a trigger names it, is the one that is asked for; None asks for all."""
    if wanted is None:
        return True
    if name is None:
        return False
    return wanted in (name, name.rpartition(".")[2], f"{default_schema}.{name}")


def names_of(wanted: str, default_schema: str) -> list[str]:
    """Return the names under which the ledger may know a table."""
    schema, _, name = wanted.rpartition(".")
    return (
        [wanted, name] if schema == default_schema else [wanted] if schema else [wanted, f"{default_schema}.{wanted}"]
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """What a trigger's counter says.

    Attributes:
        table: as the ledger names it: without its schema, where that is the default one.
        column: the guarded column.
        kind: "blocked" or "observed".
        source: the state before, None for NULL and for a new row; "*" for what has no counter of its own.
        target: the state after.
        new: whether new rows were counted.
        number: how many.
    """

    table: str
    column: str
    kind: str
    source: str | None
    target: str | None
    new: bool
    number: int


def by_triggers(connection: sa.Connection, default_schema: str) -> list[Counted]:
    """Return what the triggers of a database have counted; they know neither when nor who.

    Raises:
        StatekitError: the role that is connected may not read it.
    """
    from statekit.trigger.catalog import blocked

    if connection.dialect.name != "postgresql":
        return []  # SQLite takes back with the statement whatever a trigger does
    blocked(connection, ())  # which raises where the role may not ask
    name = "statekit.counts_v1()"
    if connection.exec_driver_sql(f"SELECT pg_catalog.to_regprocedure('{name}') IS NULL").scalar():
        return []
    columns = '"schema", "table", "column", kind, source, target, new_row, number, "trigger"'
    found = []
    for row in connection.exec_driver_sql(f"SELECT {columns} FROM {name}"):
        if row.number is None:
            raise _not_readable(name, row.trigger)
        if row.number:
            schema = row.schema or default_schema
            table = row.table if schema == default_schema else f"{schema}.{row.table}"
            found.append(Counted(table, row.column, row.kind, row.source, row.target, bool(row.new_row), row.number))
    return found


def _not_readable(function: str, trigger: Any) -> Failure:
    return Failure(
        f"The owner of {function} may not read the counters of {trigger}, which another role has made. Make that "
        "trigger again, which grants it."
    )
