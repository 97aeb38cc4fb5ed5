"""``statekit prune``: remove what is old from the ledger, and on demand from the history."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from statekit.cli.books import require, schema_option
from statekit.cli.database import json_option, read, shown, url_option, write
from statekit.cli.text import counted
from statekit.cli.times import DURATION, iso, now, show, show_length

if TYPE_CHECKING:
    import sqlalchemy as sa

_KEPT = "90d"
"""What :data:`statekit.ledger.KEPT` says, which cannot be imported before a command runs."""


@dataclass(frozen=True, slots=True)
class _Removed:
    entries: int
    history: int | None


@click.command()
@url_option
@click.option(
    "--older-than",
    type=DURATION,
    default=_KEPT,
    show_default=True,
    metavar="TIME",
    help="The age of the entries that are removed, such as 30d.",
)
@click.option(
    "--history-older-than",
    type=DURATION,
    metavar="TIME",
    help="The age of the rows of the history that are removed; without it, none are.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@schema_option
@json_option
def prune(
    url: sa.URL,
    older_than: dt.timedelta,
    history_older_than: dt.timedelta | None,
    dry_run: bool,
    schema: str | None,
    as_json: bool,
) -> None:
    """Remove old entries from the ledger; their sums stay, so that counts are as exact as before.

    Of the history, nothing is removed unless you ask for it; then the latest move of each row stays, so that it can
    still be said when a row has entered its state.

    It is done in chunks, each in a short transaction of its own: run it as often as you like, such as daily, while the
    application works. Beside it, only the commands of `statekit jobs` write.

    Exit status: 0 if it is done, 2 if the command could not do its work.
    """
    start = now()

    def look(connection: sa.Connection) -> _Removed:
        from statekit.ledger import prune as remove
        from statekit.ledger import queries
        from statekit.ledger.retention import prunable, prunable_history, prune_history

        with connection.begin():
            require(queries.exists(connection, schema), shown(url), schema)
            if history_older_than is not None:
                require(queries.has_history(connection, schema), shown(url), schema, "statekit_history")
            if dry_run:
                entries, _ = prunable(connection, start - older_than, schema)
                if history_older_than is None:
                    return _Removed(entries, None)
                return _Removed(entries, prunable_history(connection, start - history_older_than, schema))
        entries = remove(connection, older_than=older_than, schema=schema, now=start)
        if history_older_than is None:
            return _Removed(entries, None)
        return _Removed(entries, prune_history(connection, older_than=history_older_than, schema=schema, now=start))

    removed = read(url, look) if dry_run else write(url, look)
    if as_json:
        data = {
            "database": url.get_backend_name(),
            "dry_run": dry_run,
            "before": iso(start - older_than),
            "entries": removed.entries,
            "history_before": None if history_older_than is None else iso(start - history_older_than),
            "history": removed.history,
        }
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    done = "would be removed" if dry_run else "removed"
    entries = counted(removed.entries, "entry", "entries")
    click.echo(f"{shown(url)}: {entries} {_older(start, older_than)} {done}; their sums stay.")
    if removed.history is not None and history_older_than is not None:
        rows = f"{counted(removed.history, 'row')} of the history {_older(start, history_older_than)}"
        click.echo(f"{shown(url)}: {rows} {done}; the latest move of each row stays.")


def _older(start: dt.datetime, length: dt.timedelta) -> str:
    return f"older than {show_length(length)} (before {show(start - length)})"
