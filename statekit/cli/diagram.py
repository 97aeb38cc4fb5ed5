"""``statekit diagram``: draw what a guard allows, and what was tried beside it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import by_triggers, is_table, no_ledger, schema_option
from statekit.cli.database import json_option, optional_url_option, read, read_only, shown
from statekit.cli.models import Models, models_argument
from statekit.cli.text import line_of

if TYPE_CHECKING:
    import sqlalchemy as sa

_FORMATS = ("mermaid", "dot")
_COMMENT = {"mermaid": "%%", "dot": "//"}

Key = tuple[str | None, str | None, bool]
Numbers = dict[Key, Counter[str]]


@click.command()
@models_argument
@click.option(
    "--table",
    "tables",
    metavar="NAME",
    multiple=True,
    help="Only this table: its name, or SCHEMA.NAME. May be given several times.",
)
@click.option("--column", metavar="NAME", help="Only columns of this name.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="mermaid", show_default=True, help="For what.")
@optional_url_option
@schema_option
@json_option
def diagram(
    models: str,
    tables: Sequence[str],
    column: str | None,
    form: str,
    url: sa.URL | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Print a diagram of each guarded column, for Mermaid or Graphviz.

    MODELS is module:Base, such as app.models:Base: a module that can be imported from the current folder, and in it
    the declarative base, the registry or the MetaData. The module alone will do if it has only one of them.

    With a database, the moves that were blocked or observed are drawn as well, with their numbers: from its ledger
    and from its triggers. Illegal ones are dashed. For Mermaid it is a flowchart then, as its state diagrams have no
    dashed lines.

    \b
    statekit diagram app.models:Base --table message --format dot | dot -Tsvg > message.svg

    Exit status: 0 if it is done, 2 if the command could not do its work.
    """
    from statekit.declared import declared_on

    guards: list[Any] = [declared_on(each) for each in Models(models).chosen(tables, column)]
    numbers = None if url is None else _numbers(url, guards, schema)
    drawn = []
    for number, guard in enumerate(guards):
        found = Counter[str]() if numbers is None else numbers[number].pop(("*", "*", False), Counter[str]())
        text = _plain(guard, form) if numbers is None else _drawn(guard, form, numbers[number])
        remark = f"{_label(found)}: moves from or to what is no state of the table" if found else ""
        drawn.append((guard, text, remark))
    if as_json:
        columns = [
            {"table": guard.column.table.fullname, "column": guard.column.name, "diagram": text, "remark": remark}
            for guard, text, remark in drawn
        ]
        click.echo(json.dumps({"format": form, "columns": columns}, ensure_ascii=False, indent=2))
        return
    for number, (guard, text, remark) in enumerate(drawn):
        lines = [line_of(f"{guard.column.table.fullname}.{guard.column.name}"), *([remark] if remark else [])]
        for line in lines:
            click.echo(f"{_COMMENT[form]} {line}")
        click.echo(text if number + 1 < len(drawn) else text.rstrip("\n"))


def _plain(guard: Any, form: str) -> str:
    text: str = guard.table.to_mermaid() if form == "mermaid" else guard.table.to_dot()
    return text


def _drawn(guard: Any, form: str, numbers: Numbers) -> str:
    from statekit.cli import drawing

    edges = []
    legal: dict[Key, str] = {}
    if guard.table.has_initial:
        legal |= {(None, state, True): "" for state in guard.initial}
    for pair, transition in zip(guard.moves, guard.table.transitions, strict=True):
        legal[(*pair, False)] = transition.event or ""
    for key in dict.fromkeys([*legal, *sorted(numbers, key=lambda key: (-numbers[key].total(), str(key)))]):
        counted = _label(numbers.get(key, Counter()))
        event = legal.get(key, "")
        label = f"{event} ({counted})" if event and counted else event or counted
        edges.append(drawing.Edge(*key, key in legal, label))
    sources = {source for source, _ in guard.moves}
    final = [state for state in guard.stored_states if state not in sources]
    draw = drawing.mermaid if form == "mermaid" else drawing.dot
    return draw(guard.stored_states, final, edges)


def _label(numbers: Counter[str]) -> str:
    return ", ".join(f"{numbers[kind]:,} {kind}" for kind in ("blocked", "observed") if numbers[kind])


def _numbers(url: sa.URL, guards: Sequence[Any], schema: str | None) -> list[Numbers]:
    """Return the blocked and observed moves of each guard."""

    def look(connection: sa.Connection) -> tuple[list[Numbers], bool]:
        from statekit.ledger import queries
        from statekit.trigger.catalog import default_schema

        with read_only(connection):
            default = default_schema(connection)
            has_ledger = queries.exists(connection, schema)
            by = ("table_name", "attribute", "kind", "source", "target", "is_new")
            sums = queries.sums(connection, by, ("blocked", "observed"), schema=schema) if has_ledger else []
            counters = by_triggers(connection, default)
        found: list[Numbers] = []
        for guard in guards:
            table = guard.column.table
            ledger: Numbers = defaultdict(Counter)
            triggers: Numbers = defaultdict(Counter)
            for each in sums:
                what = each.what
                if (what["table_name"], what["attribute"]) == (table.fullname, guard.attribute):
                    ledger[what["source"], what["target"], bool(what["is_new"])][what["kind"]] += each.number
            for counter in counters:
                same = is_table(counter.table, table.fullname, default)
                if same and counter.column == guard.column.name:
                    triggers[counter.source, counter.target, counter.new][counter.kind] += counter.number
            found.append({key: _both(ledger[key], triggers[key]) for key in [*ledger, *triggers]})
        return found, has_ledger

    found, has_ledger = read(url, look)
    if not has_ledger:
        click.echo(f"note: {no_ledger(shown(url), schema)}", err=True)
    return found


def _both(ledger: Counter[str], triggers: Counter[str]) -> Counter[str]:
    # What was observed, guard and trigger have both seen; what was blocked, only one of them.
    return Counter(
        blocked=ledger["blocked"] + triggers["blocked"], observed=max(ledger["observed"], triggers["observed"])
    )
