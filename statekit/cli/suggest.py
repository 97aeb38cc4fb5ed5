"""``statekit suggest``: the transition table that the moves of the ledger and the history amount to."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import is_table, require, schema_option
from statekit.cli.database import json_option, read, read_only, shown, url_option
from statekit.cli.text import counted, line_of, move
from statekit.cli.times import show

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.ledger.queries import Sum

Key = tuple[str | None, str | None, bool]

_KINDS = ("observed", "overridden", "blocked")


@dataclass(slots=True)
class _Seen:
    """What was seen of one column.

    Attributes:
        history: the moves in the history, by kind.
        ledger: the moves in the ledger, by kind.
        first: when the first of them happened.
        last: when the last one did.
    """

    history: dict[str, Counter[Key]] = field(default_factory=dict)
    ledger: dict[str, Counter[Key]] = field(default_factory=dict)
    first: dt.datetime | None = None
    last: dt.datetime | None = None

    def add(self, to: dict[str, Counter[Key]], each: Sum) -> None:
        what = each.what
        key = what["source"], what["target"], bool(what["is_new"])
        to.setdefault(what["kind"], Counter())[key] += each.number
        self.first = min((t for t in (self.first, each.first) if t is not None), default=None)
        self.last = max((t for t in (self.last, each.last) if t is not None), default=None)

    def of(self, kind: str) -> Counter[Key]:
        """Return the moves of a kind; what is in both is one and the same."""
        return self.history.get(kind, Counter()) | self.ledger.get(kind, Counter())

    @property
    def moves(self) -> Counter[Key]:
        found = self.history.get("allowed", Counter()) + self.of("observed")
        return Counter({key: number for key, number in found.items() if key[2] or key[0] != key[1]})


@click.command()
@url_option
@click.option("--table", metavar="NAME", help="Only this table: its name, or SCHEMA.NAME.")
@click.option("--column", metavar="NAME", help="Only columns of this name.")
@schema_option
@json_option
@click.pass_context
def suggest(
    ctx: click.Context, url: sa.URL, table: str | None, column: str | None, schema: str | None, as_json: bool
) -> None:
    """Print the TransitionTable that allows what rows have done, with how often they did it.

    It is made of the history (of guards with history=True), and of what guards in "observe" have let through. What was
    overridden is a repair, and what was blocked did not happen: both are listed, and not suggested. Read it as a
    question: it allows every mistake that was not blocked.

    \b
    TransitionTable(
        "READY → PROMOTED → COMPLETED",  # 1,206; 1,190
        "READY → SPAM_REVIEW",  # 206
        initial="READY",  # new rows: 1,424
    )

    The command only reads.

    Exit status: 0 if there is a table to suggest, 1 if nothing has moved, 2 if the command could not do its work.
    """

    def look(connection: sa.Connection) -> dict[tuple[str, str], _Seen]:
        from statekit.ledger import queries
        from statekit.trigger.catalog import default_schema

        with read_only(connection):
            default = default_schema(connection)
            has_ledger, has_history = queries.exists(connection, schema), queries.has_history(connection, schema)
            require(has_ledger or has_history, shown(url), schema)
            by = ("table_name", "attribute", "kind", "source", "target", "is_new")
            in_ledger = queries.sums(connection, by, _KINDS, schema=schema) if has_ledger else []
            in_history = queries.history_sums(connection, schema) if has_history else []
        seen: dict[tuple[str, str], _Seen] = {}
        for name, sums in (("column_name", in_history), ("attribute", in_ledger)):
            for each in sums:
                place = each.what["table_name"], each.what[name]
                if None not in place and is_table(place[0], table, default) and column in (None, place[1]):
                    found = seen.setdefault(place, _Seen())
                    found.add(found.history if name == "column_name" else found.ledger, each)
        return dict(sorted(seen.items()))

    seen = read(url, look)
    columns = [_suggested(place, found) for place, found in seen.items()]
    if as_json:
        click.echo(json.dumps({"database": url.get_backend_name(), "columns": columns}, ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(_as_text(each, seen[each["table"], each["column"]]) for each in columns), nl=False)
    if not any(each["source"] for each in columns):
        click.echo(f"{shown(url)}: nothing has moved yet, so far as ledger and history know.", err=True)
        ctx.exit(1)


def _suggested(place: tuple[str, str], found: _Seen) -> dict[str, Any]:
    from statekit.cli.source import source_of

    moves = {(source, target): number for (source, target, new), number in found.moves.items() if not new}
    initial = {target: number for (_, target, new), number in found.moves.items() if new}
    made = source_of(moves, initial)
    return {
        "table": place[0],
        "column": place[1],
        "source": made.text,
        "remarks": [*made.remarks, *_remarks(found)],
        "moves": _listed(key for key in found.moves.items() if not key[0][2]),
        "initial": [{"state": state, "number": number} for state, number in initial.items()],
        "overridden": _listed(found.of("overridden").items()),
        "blocked": _listed(found.of("blocked").items()),
    }


def _remarks(found: _Seen) -> list[str]:
    if found.history or not found.moves:
        return []
    return ["There is no history of it, so that only moves are known that its table does not allow: add these to it."]


def _listed(moves: Iterable[tuple[Key, int]]) -> list[dict[str, Any]]:
    ordered = sorted(moves, key=lambda item: -item[1])
    return [{"source": s, "target": t, "new": new, "number": number} for (s, t, new), number in ordered]


def _as_text(column: dict[str, Any], found: _Seen) -> str:
    new = sum(each["number"] for each in column["initial"])
    moves = sum(each["number"] for each in column["moves"])
    period = "" if found.first is None else f", {show(found.first)} to {show(found.last)}"
    numbers = f"{counted(moves, 'move')} and {counted(new, 'new row')}"
    lines = [f"# {line_of(column['table'])}.{line_of(column['column'])}: {numbers}{period}"]
    if column["source"]:
        lines.append(column["source"])
    lines += [f"# {remark}" for remark in column["remarks"]]
    for kind in ("overridden", "blocked"):
        for each in column[kind]:
            pair = move(each["source"], each["target"], new=each["new"])
            lines.append(f"# {kind}, so not suggested: {pair}: {each['number']:,}")
    return "\n".join(lines) + "\n"
