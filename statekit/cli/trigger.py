"""``statekit trigger``: print the SQL of the triggers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from statekit.cli.errors import Failure
from statekit.cli.models import Models, models_argument

_HOW = {
    "postgresql": "psql --single-transaction -v ON_ERROR_STOP=1 -f FILE; for busy tables a file for each (--table)",
    "sqlite": "sqlite3 -bail DATABASE < FILE",
}


@click.command()
@models_argument
@click.option(
    "--dialect",
    type=click.Choice(list(_HOW)),
    default="postgresql",
    show_default=True,
    help="The database that the SQL is for.",
)
@click.option(
    "--table",
    "tables",
    metavar="NAME",
    multiple=True,
    help="Only the triggers of this table: its name, or SCHEMA.NAME. May be given several times.",
)
@click.option("--column", metavar="NAME", help="Only the triggers of columns of this name.")
@click.option("--drop", is_flag=True, help="Print what removes the triggers and what they have counted.")
def trigger(models: str, dialect: str, tables: Sequence[str], column: str | None, drop: bool) -> None:
    """Print the SQL that makes the triggers which the guards of MODELS declare.

    MODELS is module:Base, such as app.models:Base: a module that can be imported from the current folder, and in it
    the declarative base, the registry or the MetaData. The module alone will do if it has only one of them.

    The SQL may be run again: it then puts right what was changed by hand, and keeps what was counted. With Alembic
    you do not need this command: "import statekit.alembic" in env.py, and autogenerate writes the migration.

    \b
    statekit trigger app.models:Base > triggers.sql
    psql --single-transaction -v ON_ERROR_STOP=1 -f triggers.sql
    """
    from statekit.declared import declared_on
    from statekit.trigger.spec import StateTrigger

    found = Models(models)
    chosen = [
        StateTrigger.of(each)
        for each in found.chosen(tables, column)
        if (guard := declared_on(each)) is not None and guard.trigger is not False
    ]
    if not chosen:
        raise Failure(f"{models}: what was asked for is declared with trigger=False, so that it has no trigger.")
    click.echo(f"-- {_HOW[dialect]}")
    for each in chosen:
        click.echo(f"\n-- {_on_one_line(f'{each.full_table}.{each.column}')}: {'drop ' if drop else ''}{each.name}")
        for statement in each.drop_sql(dialect) if drop else each.create_sql(dialect):
            click.echo(f"{statement};")


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else ascii(name)
