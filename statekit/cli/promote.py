"""``statekit promote``: could a guard in "observe" be switched to "raise"?"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import by_triggers, is_table, require, require_table, schema_option, table_option
from statekit.cli.database import json_option, read, read_only, shown, url_option
from statekit.cli.errors import Failure
from statekit.cli.models import Models
from statekit.cli.text import counted, line_of, move, place_of, styled, table
from statekit.cli.times import MOMENT, iso, now, show

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.cli.books import Counted
    from statekit.ledger.queries import Sum

_BY = ("table_name", "attribute", "model", "kind", "source", "target", "is_new", "operation", "place")
_KINDS = ("observed", "blocked")
_NAMED = 50
"""For how many lines of a column examples are looked up."""

Place = tuple[str, str]


@dataclass(slots=True)
class _Column:
    """A guarded column.

    Attributes:
        moves: its illegal moves in the period, with examples.
        known_since: when the first move of it was written down, legal ones of the history included.
        observed: how many moves the ledger has that were observed, whenever that was.
        overridden: how many it has that were overridden, which a trigger in "observe" counts as observed.
        observed_by_trigger: how many its trigger has counted; None if it cannot be asked.
    """

    moves: list[tuple[Sum, list[Any]]] = field(default_factory=list)
    known_since: dt.datetime | None = None
    observed: int = 0
    overridden: int = 0
    observed_by_trigger: int | None = 0

    @property
    def unexplained(self) -> int:
        """How many moves its trigger has observed that the ledger does not know of."""
        return max((self.observed_by_trigger or 0) - self.observed - self.overridden, 0)

    def number(self, *kinds: str) -> int:
        return sum(each.number for each, _ in self.moves if each.what["kind"] in kinds)


@dataclass(slots=True)
class _Found:
    """What the ledger says.

    Attributes:
        since: from when on it is complete; None if it is empty.
        columns: what is to be judged, by table and attribute.
        dropped: how many moves it had to leave out in the period.
    """

    since: dt.datetime | None
    columns: dict[Place, _Column]
    dropped: int


@click.command()
@click.argument("models", metavar="[MODELS]", required=False)
@url_option
@click.option(
    "--days", type=click.IntRange(1, 36_500), default=14, show_default=True, help="How long there must be no such move."
)
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help="Instead of --days: since when, such as since the deployment of the mend; 7d, 2026-11-20 or 2026-11-20T09:30, "
    "in UTC.",
)
@table_option
@schema_option
@json_option
@click.pass_context
def promote(
    ctx: click.Context,
    models: str | None,
    url: sa.URL,
    days: int,
    since: dt.datetime | None,
    table: str | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Say whether a guard in "observe" could be switched to "raise", and if not, which job is in the way.

    It is ready if the ledger is older than the period and has no illegal move of the column in it, and if the column's
    trigger, if there is one in "observe", has observed none that the ledger does not have. Else the moves are
    listed by operation and place in the code. Without MODELS, those columns are judged of which the ledger has observed
    moves, whenever that was; with MODELS (module:Base), those whose guards are in "observe".

    The ledger tells of a column only since its guard is deployed with a ledger attached; the command says since when
    there are entries. It only reads.

    Exit status: 0 if everything is ready, 1 if something is not or nobody can know, 2 if the command could not do its
    work.
    """
    end = now()
    if since is None:
        start, period = end - dt.timedelta(days=days), f"in {counted(days, 'day')}"
    elif ctx.get_parameter_source("days") is not click.core.ParameterSource.DEFAULT:
        raise Failure("--days and --since exclude each other: name one of the two.")
    elif since >= end:
        raise Failure(f"--since {show(since)} is yet to come.")
    else:
        start, period = since, f"since {show(since)}"
    declared = None if models is None else _in_observe(models)

    def look(connection: sa.Connection) -> _Found:
        from statekit.ledger import queries
        from statekit.trigger.catalog import default_schema

        with read_only(connection):
            require(queries.exists(connection, schema), shown(url), schema)
            default = default_schema(connection)
            ever = queries.sums(connection, _BY[:4], [*_KINDS, "overridden", "trigger"], schema=schema)
            observed = {_place(each) for each in ever if each.what["kind"] == "observed"}
            known = {_place(each) for each in ever}
            chosen = observed if declared is None else declared
            columns = {place: _Column() for place in sorted(chosen) if is_table(place[0], table, default)}
            history = queries.history_sums(connection, schema) if queries.has_history(connection, schema) else []
            for each in [*ever, *history]:
                column = columns.get(_place(each))
                if column is not None and each.first is not None:
                    column.known_since = min(each.first, column.known_since or each.first)
            for each in ever:
                column = columns.get(_place(each))
                if column is not None and each.what["kind"] == "observed":
                    column.observed += each.number
                elif column is not None and each.what["kind"] == "overridden":
                    column.overridden += each.number
            if table is not None and not any(is_table(place[0], table, default) for place in (*columns, *known)):
                require_table(connection, table, shown(url))
            _ask_triggers(connection, columns, default)
            left: dict[Place, int] = defaultdict(lambda: _NAMED)
            for each in sorted(queries.sums(connection, _BY, _KINDS, start=start, schema=schema), key=_order):
                place = _place(each)
                if place in columns:
                    left[place] -= 1
                    named = (
                        queries.examples(connection, each.what, start=each.first, schema=schema)
                        if left[place] >= 0
                        else []
                    )
                    columns[place].moves.append((each, named))
            dropped = queries.sums(connection, ["kind"], ["dropped"], start=start, schema=schema)
            return _Found(queries.complete_since(connection, schema), columns, sum(each.number for each in dropped))

    found = read(url, look)
    verdicts = {place: _verdict(column, found, start, period) for place, column in found.columns.items()}
    is_ready = all(verdict == "ready" for verdict, _ in verdicts.values())
    nothing = "" if verdicts else _nothing(models, table, found)
    if as_json:
        data = {
            "database": url.get_backend_name(),
            "days": days if since is None else None,
            "since": iso(start),
            "complete_since": iso(found.since),
            "dropped": found.dropped,
            "columns": [_as_data(place, column, *verdicts[place]) for place, column in found.columns.items()],
        }
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        for place, column in found.columns.items():
            _print(place, column, *verdicts[place])
        if nothing:
            click.echo(f"{shown(url)}: {nothing}")
    if any(column.observed_by_trigger is None for column in found.columns.values()):
        click.echo("note: what triggers have observed may not be read by this role, and is left out.", err=True)
    ctx.exit(0 if is_ready and (verdicts or declared == set()) else 1)


def _in_observe(models: str) -> set[Place]:
    from statekit.declared import declared_on

    guards: list[Any] = [declared_on(each) for each in Models(models).guarded]
    return {(each.column.table.fullname, each.attribute) for each in guards if each.on_illegal == "observe"}


def _ask_triggers(connection: sa.Connection, columns: dict[Place, _Column], default_schema: str) -> None:
    from statekit.errors import StatekitError

    counters: list[Counted] | None
    try:
        counters = by_triggers(connection, default_schema)
    except (StatekitError, Failure):  # the role may not read them, and the ledger says enough
        counters = None
    for (name, attribute), column in columns.items():
        column.observed_by_trigger = (
            None
            if counters is None
            else sum(
                each.number
                for each in counters
                if each.kind == "observed" and each.column == attribute and is_table(each.table, name, default_schema)
            )
        )


def _place(each: Sum) -> Place:
    what = each.what
    return what["table_name"], what["column_name" if "column_name" in what else "attribute"]


def _order(each: Sum) -> tuple[int, str]:
    return -each.number, str(each.what)


def _verdict(column: _Column, found: _Found, start: dt.datetime, period: str) -> tuple[str, str]:
    """Return "ready", "not yet" or "not known", and why."""
    if number := column.number(*_KINDS):
        of_kinds = ", ".join(f"{column.number(kind):,} {kind}" for kind in _KINDS if column.number(kind))
        return "not yet", f"{counted(number, 'illegal move')} {period} ({of_kinds})"
    if found.since is None:
        return "not known", "the ledger is empty, so that nobody knows since when it is written"
    if found.since > start:
        return "not known", f"no illegal move, but the ledger is complete only since {show(found.since)}"
    if found.dropped:
        moves = counted(found.dropped, "move")
        return "not known", f"{moves} {period} had to be left out of the ledger, and nobody knows which"
    if column.unexplained:
        moves = counted(column.unexplained, "move")
        return (
            "not known",
            f"no illegal move {period}, but its trigger has observed {moves} that the ledger does not have",
        )
    if column.known_since is not None and column.known_since <= start:
        return "ready", f"no illegal move {period} (known since {show(column.known_since)})"
    return "ready", (
        f"no illegal move {period} (the ledger has entries since {show(found.since)}, none of this column that is "
        "as old: make sure that the guard has been deployed for as long)"
    )


def _nothing(models: str | None, table: str | None, found: _Found) -> str:
    if models is not None:
        return 'no guard is in "observe"' + (f" on {line_of(table)}." if table is not None else ".")
    if found.since is None:
        return "the ledger is empty, so that nothing is known."
    of = "" if table is None else f" on {line_of(table)}"
    return f'nothing was ever observed{of}. With MODELS, the guards in "observe" are judged that have no entry, too.'


def _as_data(place: Place, column: _Column, verdict: str, why: str) -> dict[str, Any]:
    return {
        "table": place[0],
        "attribute": place[1],
        "verdict": verdict,
        "why": why,
        "known_since": iso(column.known_since),
        "observed": column.observed,
        "overridden": column.overridden,
        "observed_by_trigger": column.observed_by_trigger,
        "moves": [
            {
                **{name: each.what[name] for name in ("model", "kind", "source", "target", "operation", "place")},
                "new": bool(each.what["is_new"]),
                "number": each.number,
                "first": iso(each.first),
                "last": iso(each.last),
                "examples": examples,
            }
            for each, examples in column.moves
        ],
    }


def _print(place: Place, column: _Column, verdict: str, why: str) -> None:
    colour = {"ready": "green", "not yet": "red"}.get(verdict, "yellow")
    click.echo(f"{place_of(*place)}: {styled(verdict, fg=colour)}: {why}")
    if column.unexplained:
        overridden = f" ({column.overridden:,} overridden)" if column.overridden else ""
        click.echo(
            f"  note: its trigger has observed {counted(column.observed_by_trigger or 0, 'move')} in all, and the "
            f"ledger has {column.observed + column.overridden:,} of them{overridden}: the others were seen by no guard "
            "with a ledger: SQL text, other programs, or before the ledger was attached (a trigger does not know when)"
        )
    headings = ["move", "kind", "number", "operation", "place", "first", "last", "such as"]
    lines = table(headings, [_cells(each, examples) for each, examples in column.moves], right=(2,))
    for line in lines if column.moves else ():
        click.echo(f"  {line}")


def _cells(each: Sum, examples: Iterable[Sequence[Any]]) -> list[str]:
    what = each.what
    return [
        move(what["source"], what["target"], new=bool(what["is_new"])),
        what["kind"],
        f"{each.number:,}",
        line_of(what["operation"]) or "(none)",
        line_of(what["place"]) or "(none)",
        show(each.first),
        show(each.last),
        ", ".join(_identity(key) for key in examples),
    ]


def _identity(key: Sequence[Any]) -> str:
    parts = [line_of(str(part)) for part in key]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
