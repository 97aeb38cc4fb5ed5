"""``statekit history``: what a row has been through, and which rows stay in a state for too long."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import names_of, require, schema_option
from statekit.cli.database import json_option, read, read_only, shown, url_option
from statekit.cli.errors import Failure
from statekit.cli.text import counted, line_of, table
from statekit.cli.times import DURATION, before, iso, now, show, show_length, utc
from statekit.errors import show_state

if TYPE_CHECKING:
    import sqlalchemy as sa

_COLUMNS = ("kind", "operation", "actor", "reason", "place", "role")
_MOST = 200


@click.command()
@click.argument("column", metavar="TABLE.COLUMN")
@click.argument("key", nargs=-1, metavar="[KEY]...")
@url_option
@click.option("--stuck", metavar="STATE", help="Instead of one row's history: the rows that are in this state.")
@click.option("--longer-than", type=DURATION, metavar="TIME", help="With --stuck: for longer than this, such as 3d.")
@schema_option
@json_option
@click.pass_context
def history(
    ctx: click.Context,
    column: str,
    key: Sequence[str],
    url: sa.URL,
    stuck: str | None,
    longer_than: dt.timedelta | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Show the history of one row: when it moved, from where to where, in which operation, by whom and why.

    TABLE.COLUMN is the guarded column, KEY the row's primary key, each part an argument of its own in the order of the
    table. There is a history where the guard has history=True.

    \b
    statekit history message.status 7
    statekit history message.status --stuck PROMOTED --longer-than 3d

    With --stuck, the rows are listed whose latest move in the history led to the state: rows that were deleted since,
    too, and none that were there before the history. NULL stands for NULL as well. The command only reads.

    Exit status: 0 if the row has a history, 1 if it has none; with --stuck, 0 if no row is stuck, 1 if one is; 2 if
    the command could not do its work, such as with a state that the history of the column does not have.
    """
    name, _, attribute = column.rpartition(".")
    if not name or not attribute:
        raise Failure(f"{column!r} names no column. Write TABLE.COLUMN, such as message.status.")
    if (stuck is None) == (not key):
        raise Failure("Name one row by its KEY, or ask for rows by --stuck STATE.")
    if longer_than is not None and stuck is None:
        raise Failure("--longer-than belongs to --stuck STATE.")
    until = before(longer_than or dt.timedelta())

    def look(connection: sa.Connection) -> tuple[list[dict[str, Any]], int, list[str]]:
        import sqlalchemy as sa

        from statekit.ledger import queries
        from statekit.trigger.catalog import default_schema

        with read_only(connection):
            require(queries.has_history(connection, schema), shown(url), schema, "statekit_history")
            written = queries.tables(schema).history
            names = names_of(name, default_schema(connection))
            if stuck is None:
                query = queries.history_of(written, names, attribute, _as_written(key))
            else:
                wanted = [stuck, None] if stuck == "NULL" else [stuck]
                query = queries.stuck(written, names, attribute, wanted, until)
            number = int(connection.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0)
            rows = [dict(row) for row in connection.execute(query if as_json else query.limit(_MOST)).mappings()]
            known = [] if rows else [f"{row[0]}.{row[1]}" for row in connection.execute(_columns(written))]
            if stuck is not None and not rows:
                states = {state for row in connection.execute(_pairs(written, names, attribute)) for state in row}
                _require_state(stuck, states, column, known)
            return rows, number, known

    rows, number, known = read(url, look)
    if as_json:
        data = {
            "database": url.get_backend_name(),
            "table": name,
            "column": attribute,
            **({"key": list(key)} if stuck is None else {"stuck": stuck, "before": iso(until)}),
            "rows": [_as_data(row) for row in rows],
        }
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        if rows:
            _print(rows, with_key=stuck is not None)
        if number > len(rows):
            click.echo(f"… and {number - len(rows):,} more (--json has all).")
        click.echo(f"{shown(url)}: {_summary(column, key, stuck, longer_than, number)}")
    if known and f"{name}.{attribute}" not in known:
        click.echo(f"note: the history has {', '.join(known)}.", err=True)
    elif not rows and not known:
        click.echo("note: the history is empty; guard(..., history=True) has it written.", err=True)
    ctx.exit(int(bool(rows) == (stuck is not None)))


def _as_written(key: Sequence[str]) -> list[str]:
    """Return a primary key as the databases write it: PostgreSQL with a blank behind the comma, SQLite without."""
    return [json.dumps(list(key), ensure_ascii=False, separators=(comma, ":")) for comma in (", ", ",")]


def _columns(written: sa.Table) -> sa.Select[Any]:
    import sqlalchemy as sa

    names = written.c.table_name, written.c.column_name
    return sa.select(*names).group_by(*names).order_by(*names).limit(20)


def _pairs(written: sa.Table, names: Sequence[str], column: str) -> sa.Select[Any]:
    import sqlalchemy as sa

    # That a new row comes from nowhere does not make NULL one of its states.
    source = sa.case((written.c.is_new, written.c.target), else_=written.c.source)
    is_it = written.c.table_name.in_(list(names)), written.c.column_name == column
    return sa.select(source, written.c.target).where(*is_it).distinct()


def _require_state(state: str, states: set[str | None], column: str, known: Sequence[str]) -> None:
    """Give up where no move of a column leads to or from a state: its name is likely misspelt."""
    if not states:
        others = f"it has {', '.join(known)}" if known else "it is empty; guard(..., history=True) has it written"
        raise Failure(line_of(f"The history has no move of {column}: {others}."))
    if state not in states and not (state == "NULL" and None in states):
        named = ", ".join(sorted(map(show_state, states)))
        raise Failure(line_of(f"--stuck {state}: the history of {column} has no such state. It has {named}."))


def _as_data(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": iso(row["at"]),
        "key": json.loads(row["key"]),
        "source": row["source"],
        "target": row["target"],
        "new": row["is_new"],
        **{each: row[each] for each in _COLUMNS},
    }


def _print(rows: Iterable[dict[str, Any]], *, with_key: bool) -> None:
    rows = list(rows)
    shown_columns = [each for each in _COLUMNS if any(row[each] is not None for row in rows)]
    headings = ["when", *(("key", "for") if with_key else ()), "from", "to", *shown_columns]
    cells = []
    for row in rows:
        key = (", ".join(map(str, json.loads(row["key"]))), _age(row["at"])) if with_key else ()
        source = "(new)" if row["is_new"] else show_state(row["source"])
        others = (line_of(row[each]) for each in shown_columns)
        cells.append([show(row["at"]), *map(line_of, key), source, show_state(row["target"]), *others])
    for line in table(headings, cells):
        click.echo(line)


def _age(moment: dt.datetime) -> str:
    age = max(now() - utc(moment), dt.timedelta())
    # As exact as it is of use: days, or the smaller unit of a young one.
    unit = next((unit for unit in (86_400, 3_600, 60) if age.total_seconds() >= unit), 1)
    return show_length(dt.timedelta(seconds=age.total_seconds() // unit * unit))


def _summary(column: str, key: Sequence[str], stuck: str | None, longer_than: dt.timedelta | None, number: int) -> str:
    if stuck is None:
        what = f"{column} of ({', '.join(key)})"
        return line_of(f"{what}: {counted(number, 'move')}." if number else f"{what}: no history.")
    length = f" for longer than {show_length(longer_than)}" if longer_than is not None else ""
    rows = counted(number, "row") if number else "no row"
    return line_of(f"{rows} in {stuck}{length}, by the history of {column}.")
