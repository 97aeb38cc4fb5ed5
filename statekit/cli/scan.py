"""``statekit scan``: do the rows of a database fit the rule that is to be installed?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.database import read, shown, url_option
from statekit.cli.models import Models, models_argument
from statekit.errors import show_state

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.cli.rows import Held, Scanned


@click.command()
@models_argument
@url_option
@click.option(
    "--table",
    "tables",
    metavar="NAME",
    multiple=True,
    help="Only this table: its name, or SCHEMA.NAME. May be given several times.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long a statement may take; a table that takes longer is named, and the others are scanned.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def scan(ctx: click.Context, models: str, url: sa.URL, tables: Sequence[str], timeout: float, as_json: bool) -> None:
    """Count the rows of each guarded column by state, before a trigger is installed.

    MODELS is module:Base, such as app.models:Base: a module that can be imported from the current folder, and in it
    the declarative base, the registry or the MetaData. The module alone will do if it has only one of them.

    Rows in a state that the transition table does not know, or in NULL where that is no state, break the rule: a
    trigger lets no such row move. Some of their primary keys are named. Rows in a state that nothing leaves are shown,
    and break nothing.

    The command only reads: on PostgreSQL in read-only transactions, on SQLite with query_only.

    Exit status: 0 if no row breaks the rule, 1 if there is one, 2 if a table could not be read in time or at all, or
    the command could not do its work.
    """
    found = Models(models)
    chosen = found.chosen(tables, None)

    def look(connection: sa.Connection) -> list[Scanned]:
        from statekit.cli.rows import scanned

        return [scanned(connection, column, timeout, url) for column in chosen]

    columns = read(url, look)
    broken = sum(each.broken for each in columns)
    unread = sum(each.outcome in ("timed out", "not readable") for each in columns)
    if as_json:
        text = {"database": url.get_backend_name(), "broken": broken, "columns": [_as_data(each) for each in columns]}
        click.echo(json.dumps(text, ensure_ascii=False, indent=2))
    else:
        for each in columns:
            _print(each)
        click.echo(f"{shown(url)}: {_summary(len(columns), broken, unread)}")
    ctx.exit(1 if broken else 2 if unread else 0)


def _as_data(column: Scanned) -> dict[str, Any]:
    return {
        "schema": column.trigger.schema,
        "table": column.trigger.table,
        "column": column.trigger.column,
        "outcome": column.outcome,
        "detail": column.detail,
        "rows": column.rows,
        "broken": column.broken,
        "states": [
            {
                "state": each.state,
                "rows": each.rows,
                "known": each.known,
                "final": each.final,
                "examples": list(each.examples),
            }
            for each in column.held
        ],
    }


def _print(column: Scanned) -> None:
    name = f"{column.trigger.full_table}.{column.trigger.column}"
    if column.outcome != "scanned":
        yet = " yet" if column.outcome.startswith("no such") else ""
        click.echo(f"{name}: {column.outcome}{yet}{f': {column.detail}' if column.detail else ''}")
        return
    click.echo(f"{name}: {_rows(column.rows)}")
    labels = [_label(each) for each in column.held]
    numbers = [f"{each.rows:,}" for each in column.held]
    width, digits = max(map(len, labels)), max(map(len, numbers))
    for each, label, number in zip(column.held, labels, numbers, strict=True):
        click.echo(f"  {label:<{width}}  {number:>{digits}}  {_remark(each)}".rstrip())


def _label(held: Held) -> str:
    # In quotes, so that blanks at its end and other letter cases are seen, and the text NULL is not taken for NULL.
    if held.state is not None and (not held.known or held.state == "NULL"):
        return repr(held.state)
    return show_state(held.state)


def _remark(held: Held) -> str:
    if not held.known:
        keys = ["(" + ", ".join(f"{name}={value}" for name, value in key.items()) + ")" for key in held.examples]
        return "no state of the table" + (f", such as in {', '.join(keys)}" if keys else "")
    return "no way out" if held.final and held.rows else ""


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _summary(columns: int, broken: int, unread: int) -> str:
    scanned = "1 guarded column" if columns == 1 else f"{columns} guarded columns"
    text = f"{scanned}, {_rows(broken)} that {'breaks' if broken == 1 else 'break'} the rule"
    if broken:
        text += (
            " (move them into a state of the table, or allow moves from their states: a trigger lets nobody move them)"
        )
    return f"{text}, {unread} not read." if unread else f"{text}."
