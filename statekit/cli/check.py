"""``statekit check``: do the triggers of a database do what the models declare?"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.database import read, read_only, shown, url_option
from statekit.cli.models import Models, models_argument

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.trigger.status import Finding


@click.command()
@models_argument
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def check(ctx: click.Context, models: str, url: sa.URL, as_json: bool) -> None:
    """Compare the triggers of a database with those that MODELS declares.

    MODELS is module:Base, such as app.models:Base: a module that can be imported from the current folder, and in it
    the declarative base, the registry or the MetaData. The module alone will do if it has only one of them.

    \b
    missing      declared, and not in the database
    outdated     made of another declaration
    disabled     switched off (ALTER TABLE … DISABLE TRIGGER)
    edited       a function or trigger was changed by hand
    incomplete   a part is missing, such as that of a partition that was attached later
    undeclared   in the database on a table of MODELS, and no guard declares it

    A trigger on a table that MODELS does not know is noted and is no finding: it may be another application's. The
    command only reads.

    Exit status: 0 if everything is as declared, 1 if there are findings, 2 if the command could not do its work.
    """
    found = Models(models)
    declared = found.triggers()

    def look(connection: sa.Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        from statekit.trigger.catalog import default_schema
        from statekit.trigger.status import findings

        with read_only(connection):
            schema = default_schema(connection)
            ours = {(table.schema or schema, table.name) for table in found.metadata.tables.values()}
            all_of_them = findings(connection, declared)
            listed = [
                _as_data(each, models, connection.dialect.name, each.schema == schema, _has_table(connection, each))
                for each in all_of_them
            ]
            is_ours = [each.kind != "undeclared" or (each.schema, each.table) in ours for each in all_of_them]
        return (
            [each for each, yes in zip(listed, is_ours, strict=True) if yes],
            [each for each, yes in zip(listed, is_ours, strict=True) if not yes],
        )

    problems, notes = read(url, look)
    if as_json:
        text = {"database": url.get_backend_name(), "checked": len(declared), "findings": problems, "notes": notes}
        for each in (*problems, *notes):
            del each["_name"]
        click.echo(json.dumps(text, ensure_ascii=False, indent=2))
    else:
        _print(problems, notes, len(declared), shown(url))
    ctx.exit(1 if problems else 0)


def _has_table(connection: sa.Connection, finding: Finding) -> bool:
    import sqlalchemy as sa

    if finding.kind != "missing" or finding.declared is None:
        return True
    return sa.inspect(connection).has_table(finding.declared.table, schema=finding.declared.schema)


def _as_data(finding: Finding, models: str, dialect: str, is_default: bool, has_table: bool) -> dict[str, Any]:
    table = finding.table if is_default else f"{finding.schema}.{finding.table}"
    return {
        "kind": finding.kind,
        "schema": finding.schema,
        "table": finding.table,
        "column": finding.column,
        "detail": finding.detail if has_table else f"{finding.detail}; there is no such table yet",
        "mend": _mend(finding, models, dialect, has_table),
        "_name": f"{table}.{finding.column}",
    }


def _mend(finding: Finding, models: str, dialect: str, has_table: bool) -> str:
    alembic = "autogenerate a migration (Alembic)"
    if finding.declared is None:
        return f"declare a guard for it; or, to remove it, {alembic} or execute StateTrigger(…).drop_sql({dialect!r})"
    if not has_table:
        return f"create the table first; then {alembic}, or run what statekit trigger prints"
    names = ["--table", finding.declared.full_table, "--column", finding.declared.column]
    command = shlex.join(["statekit", "trigger", models, "--dialect", dialect, *names])
    if finding.installed is not None and finding.installed.name != finding.declared.name:
        # It was made for the table under another name: what statekit trigger prints would stand beside it.
        name = finding.installed.name
        return f"{alembic}, or drop the triggers {name}, {name}_new and zzz_{name}, and run what this prints: {command}"
    return f"{alembic}, or run what this prints: {command}"


def _print(problems: list[dict[str, Any]], notes: list[dict[str, Any]], checked: int, where: str) -> None:
    for number, each in enumerate(problems):
        click.echo(f"{each['kind']}: {each['_name']}: {each['detail']}")
        following = problems[number + 1] if number + 1 < len(problems) else {}
        if following.get("mend") != each["mend"]:
            click.echo(f"  mend: {each['mend']}")
    for each in notes:
        click.echo(
            f"note: {each['_name']}: the database has a state trigger here, on a table that is none of the models'"
        )
    triggers = "1 trigger" if checked == 1 else f"{checked} triggers"
    count = "nothing to mend" if not problems else "1 finding" if len(problems) == 1 else f"{len(problems)} findings"
    click.echo(f"{where}: {triggers} checked, {count}.")
