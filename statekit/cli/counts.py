"""``statekit counts``: which illegal moves were there, how often, since when, and who made them?"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from statekit.cli.books import by_triggers, is_table, no_ledger, require_table, schema_option, table_option
from statekit.cli.database import json_option, read, read_only, shown, url_option
from statekit.cli.errors import Failure
from statekit.cli.text import counted, line_of, move, place_of, table
from statekit.cli.times import MOMENT, iso, show

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.cli.books import Counted
    from statekit.ledger.queries import Sum

_BY = {
    "model": ("table_name", "model", "attribute"),
    "move": ("source", "target", "is_new"),
    "operation": ("operation",),
    "place": ("place",),
    "day": ("day",),
}
_ONLY_IN_ENTRIES = ("operation", "place", "day")
_KINDS = ("blocked", "observed", "overridden", "trigger")


class _Key(NamedTuple):
    """What a line of the report is about.

    Attributes:
        what: what the entries have in common, by the names of the columns.
        is_known: whether operation, place and day are known: neither triggers nor pruned entries know them.
    """

    what: tuple[Any, ...]
    is_known: bool


@dataclass(slots=True)
class _Found:
    """What the database says.

    Attributes:
        has_ledger: whether it has a ledger.
        asked_triggers: whether its triggers were asked, which count on PostgreSQL, and know no time.
        numbers: by line, of the ledger and of the triggers.
        pruned_until: before when entries were pruned.
        is_cut: whether some of them may be of the time that is asked for.
        dropped: how many moves the ledger had to leave out.
        observed: how many were observed, where blocked ones were asked for and there are none.
    """

    has_ledger: bool
    asked_triggers: bool
    numbers: dict[_Key, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    pruned_until: dt.datetime | None = None
    is_cut: bool = False
    dropped: int = 0
    observed: int = 0

    def total(self, which: int) -> int:
        return sum(numbers[which] for numbers in self.numbers.values())


@click.command()
@url_option
@click.option(
    "--by",
    type=click.Choice(list(_BY)),
    multiple=True,
    help="What to tell apart; may be given several times.  [default: model, move]",
)
@click.option("--since", type=MOMENT, metavar="TIME", help="From when on: 7d, 2026-11-20 or 2026-11-20T09:30, in UTC.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Before when, likewise.")
@table_option
@click.option("--kind", type=click.Choice(_KINDS), default="blocked", show_default=True, help="Of which kind of moves.")
@schema_option
@json_option
def counts(
    url: sa.URL,
    by: Sequence[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
    table: str | None,
    kind: str,
    schema: str | None,
    as_json: bool,
) -> None:
    """Count the illegal moves that the ledger has, and those that the triggers of the database have counted.

    \b
    blocked      refused by a guard (ledger) or by a trigger (triggers); the two together are all
    observed     let through, because the guard or the trigger is in "observe"
    overridden   let through by override()
    trigger      refused by a trigger, as far as statekit saw the error: who it was. The triggers' own counters
                 (--kind blocked) have these already, and what other programs tried as well

    A trigger's counters know neither time nor operation nor place: they are left out where a time is asked for. What
    was pruned is counted, unless a time is asked for. Days are those of UTC. The command only reads.

    Exit status: 0 whatever was counted, 2 if the command could not do its work.
    """
    if since is not None and until is not None and since >= until:
        raise Failure(f"--until {show(until)} is not after --since {show(since)}.")
    by = list(dict.fromkeys(by)) or ["model", "move"]
    has_range = since is not None or until is not None

    def look(connection: sa.Connection) -> _Found:
        from statekit.ledger import queries
        from statekit.trigger.catalog import default_schema

        with read_only(connection):
            default = default_schema(connection)
            asks_triggers = connection.dialect.name == "postgresql" and kind in ("blocked", "observed")
            found = _Found(queries.exists(connection, schema), asks_triggers and not has_range)
            sums: list[Sum] = []
            if found.has_ledger:
                columns = list(dict.fromkeys(("table_name", "model", "attribute", *(n for b in by for n in _BY[b]))))
                sums = queries.sums(connection, columns, [kind], start=since, until=until, schema=schema)
                sums = [each for each in sums if is_table(each.what["table_name"], table, default)]
                dropped = queries.sums(connection, ["kind"], ["dropped"], start=since, until=until, schema=schema)
                found.dropped = sum(each.number for each in dropped)
                found.pruned_until = queries.pruned_until(connection, schema)
                if has_range and found.pruned_until is not None:
                    found.is_cut = since is None or since < found.pruned_until
            asked = by_triggers(connection, default) if found.asked_triggers else []
            asked = [each for each in asked if is_table(each.table, table, default)]
            _add_up(found, by, sums, [each for each in asked if each.kind == kind])
            if kind == "blocked" and not found.numbers:
                observed = [0]
                if found.has_ledger:
                    columns = ["table_name"]
                    sums = queries.sums(connection, columns, ["observed"], start=since, until=until, schema=schema)
                    observed.append(sum(s.number for s in sums if is_table(s.what["table_name"], table, default)))
                if found.asked_triggers:
                    observed.append(sum(c.number for c in asked if c.kind == "observed"))
                found.observed = max(observed)  # not the sum: guard and trigger have observed the same moves
            if table is not None and not found.numbers and not found.observed:
                require_table(connection, table, shown(url))
            return found

    found = read(url, look)
    ordered = sorted(found.numbers.items(), key=lambda item: _order(by, *item))
    notes = _notes(found, url, schema, kind, by, has_range)
    if as_json:
        data = {
            "database": url.get_backend_name(),
            "kind": kind,
            "by": by,
            "since": iso(since),
            "until": iso(until),
            "ledger": found.total(0) if found.has_ledger else None,
            "triggers": found.total(1) if found.asked_triggers else None,
            "rows": [_as_data(by, key, numbers, found) for key, numbers in ordered],
            "notes": notes,
        }
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if ordered:
        _print(by, ordered, found)
    click.echo(f"{shown(url)}: {_summary(found, kind)}")


def _add_up(found: _Found, by: Sequence[str], sums: Iterable[Sum], counters: Iterable[Counted]) -> None:
    names = [name for each in by for name in _BY[each]]
    needs_entries = any(each in _ONLY_IN_ENTRIES for each in by)
    models: dict[tuple[Any, Any], set[Any]] = defaultdict(set)
    for each in sums:
        models[each.what["table_name"], each.what["attribute"]].add(each.what["model"])
        key = _Key(tuple(each.what[name] for name in names), not (needs_entries and each.is_pruned))
        found.numbers[key][0] += each.number
    for counter in counters:
        known = models[counter.table, counter.column]
        what = {
            "table_name": counter.table,
            "model": next(iter(known)) if len(known) == 1 else None,
            "attribute": counter.column,
            "source": counter.source,
            "target": counter.target,
            "is_new": counter.new,
        }
        found.numbers[_Key(tuple(what.get(name) for name in names), not needs_entries)][1] += counter.number


def _order(by: Sequence[str], key: _Key, numbers: list[int]) -> tuple[Any, ...]:
    cells = _cells(by, key)
    days = [cell for name, cell in zip(by, cells, strict=True) if name == "day"]
    return *days, -sum(numbers), *cells


def _cells(by: Sequence[str], key: _Key) -> list[str]:
    what = dict(zip((name for each in by for name in _BY[each]), key.what, strict=True))
    cells = []
    for each in by:
        if each == "model":
            is_named = what["model"] is not None
            cells.append(place_of(what["model"] if is_named else what["table_name"], what["attribute"]))
        elif each == "move":
            cells.append(move(what["source"], what["target"], new=bool(what["is_new"])))
        elif not key.is_known:
            cells.append("(not known)")
        else:
            cells.append("(none)" if what[each] is None else line_of(what[each]))
    return cells


def _as_data(by: Sequence[str], key: _Key, numbers: list[int], found: _Found) -> dict[str, Any]:
    names = {"table_name": "table", "is_new": "new"}
    data = dict(zip((names.get(name, name) for each in by for name in _BY[each]), key.what, strict=True))
    if any(each in _ONLY_IN_ENTRIES for each in by):
        data["known"] = key.is_known
    return {
        **data,
        "ledger": numbers[0] if found.has_ledger else None,
        "triggers": numbers[1] if found.asked_triggers else None,
    }


def _print(by: Sequence[str], ordered: Sequence[tuple[_Key, list[int]]], found: _Found) -> None:
    columns = [(0, "ledger")] * found.has_ledger + [(1, "triggers")] * found.asked_triggers
    rows = [[*_cells(by, key), *(f"{numbers[which]:,}" for which, _ in columns)] for key, numbers in ordered]
    right = range(len(by), len(by) + len(columns))
    for line in table([*by, *(name for _, name in columns)], rows, right=right):
        click.echo(line)


def _summary(found: _Found, kind: str) -> str:
    said = "refused by triggers" if kind == "trigger" else kind
    if not found.has_ledger and not found.asked_triggers:
        return "nothing is known of what was " + said + "."
    if not found.numbers:
        if found.is_cut:
            return f"no entry is left of what was {said} then."
        return f"nothing was {said}{'' if found.has_ledger else ' by triggers'}."
    if kind == "trigger":
        moves = counted(found.total(0), "move")
        return f"{moves} in the ledger that a trigger has refused; its own counters have them too (--kind blocked)."
    if not found.asked_triggers:
        return f"{counted(found.total(0), f'{kind} move')} in the ledger."
    if not found.has_ledger:
        return f"{counted(found.total(1), f'{kind} move')} counted by triggers."
    if kind == "observed":
        ledger, triggers = found.total(0), found.total(1)
        return (
            f"{counted(ledger, 'observed move')} in the ledger, {triggers:,} counted by triggers; they may be the same."
        )
    both = counted(found.total(0) + found.total(1), f"{kind} move")
    return f"{both}: {found.total(0):,} in the ledger, {found.total(1):,} counted by triggers."


def _notes(
    found: _Found,
    url: sa.URL,
    schema: str | None,
    kind: str,
    by: Sequence[str],
    has_range: bool,
) -> list[str]:
    notes = []
    if not found.has_ledger:
        notes.append(no_ledger(shown(url), schema))
    if has_range and url.get_backend_name() == "postgresql" and kind in ("blocked", "observed"):
        notes.append("what triggers have counted is left out: their counters know no time.")
    if found.is_cut:
        notes.append(f"entries before {show(found.pruned_until)} were pruned, and only their sums are left.")
    if found.dropped:
        notes.append(f"{counted(found.dropped, 'move')} had to be left out of the ledger, which could not be written.")
    if found.observed:
        notes.append(f"{counted(found.observed, 'observed move')}: --kind observed")
    if kind == "blocked" and found.total(1) and {"operation", "place"} & set(by):
        notes.append("who was refused by triggers, as far as statekit saw it, is said by --kind trigger.")
    return notes
