"""How the triggers that are declared differ from those that a database has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from statekit.declared import declared_on
from statekit.errors import show_state, show_states
from statekit.trigger.catalog import Installed, default_schema, installed
from statekit.trigger.spec import StateTrigger

FindingKind = Literal["missing", "outdated", "disabled", "edited", "incomplete", "undeclared"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between what is declared and what a database has.

    Attributes:
        kind: "missing" (declared, and not in the database), "outdated" (made of another declaration), "disabled",
            "edited" (by hand), "incomplete" (a part is missing, such as that of a partition), "undeclared" (in the
            database, and not declared).
        schema: the schema of the table in the database.
        table: name of the table.
        column: name of the column.
        detail: what exactly, for people.
        declared: the trigger as it should be; None if it is undeclared.
        installed: the trigger as the database has it; None if it is missing.
    """

    kind: FindingKind
    schema: str
    table: str
    column: str
    detail: str
    declared: StateTrigger | None
    installed: StateTrigger | None


def declared_in(*metadata: sa.MetaData) -> list[StateTrigger]:
    """Return the triggers that the guards on the tables of a MetaData declare, in the order of its tables.

    A guard that was declared with ``trigger=False`` has none.
    """
    return [
        StateTrigger.of(column)
        for each in metadata
        for table in each.sorted_tables
        for column in table.columns
        if (guard := declared_on(column)) is not None and guard.trigger is not False
    ]


def findings(connection: sa.Connection, declared: Iterable[StateTrigger]) -> list[Finding]:
    """Return how the triggers of a database differ from those that should be there; nothing if they do not.

    Args:
        connection: to PostgreSQL or SQLite. It only reads.
        declared: such as :func:`declared_in` gives.

    Raises:
        StatekitError: there are no state triggers for this database.
    """
    schema = default_schema(connection)
    by_place: dict[tuple[str, str, str], list[Installed]] = defaultdict(list)
    for each in installed(connection):
        by_place[each.schema, each.table, each.trigger.column].append(each)
    found: list[Finding] = []
    for trigger in (each.among(schema) for each in declared):
        place = (trigger.schema or schema, trigger.table, trigger.column)
        there = by_place[place]
        # Of several on one column, such as under an older name of the table, the others are none that is declared.
        there.sort(key=lambda each: each.trigger.name != trigger.name)
        found += _compared(trigger, there.pop(0) if there else None, place)
    found += [
        Finding("undeclared", *place, f"no guard declares the trigger {each.trigger.name}", None, each.trigger)
        for place, there in by_place.items()
        for each in there
    ]
    return found


def _compared(declared: StateTrigger, there: Installed | None, place: tuple[str, str, str]) -> list[Finding]:
    if there is None:
        return [Finding("missing", *place, "the database has no trigger for it", declared, None)]
    if there.trigger != declared:
        detail = "; ".join(_differences(there.trigger, declared))
        return [Finding("outdated", *place, detail, declared, there.trigger)]
    return [Finding(problem.kind, *place, problem.detail, declared, declared) for problem in there.problems]


def _differences(old: StateTrigger, new: StateTrigger) -> Iterable[str]:
    def moves(trigger: StateTrigger, other: StateTrigger) -> str:
        only = [pair for pair in trigger.transitions if pair not in set(other.transitions)]
        return ", ".join(f"{show_state(source)} → {show_state(target)}" for source, target in only)

    if added := moves(new, old):
        yield f"the database does not allow {added}"
    if removed := moves(old, new):
        yield f"the database still allows {removed}"
    if set(old.initial) != set(new.initial):
        yield f"new rows may start in {show_states(old.initial)} there, declared: {show_states(new.initial)}"
    if set(old.states) != set(new.states):
        yield f"the states there are {show_states(old.states)}, declared: {show_states(new.states)}"
    if old.history != new.history:
        yield "it writes a history" if old.history and not new.history else "it writes no history of these rows"
    for name in ("on_illegal", "inline", "version", "schema", "table", "override_role", "ledger_schema"):
        if getattr(old, name) != getattr(new, name):
            yield f"{name} is {getattr(old, name)!r} there, declared: {getattr(new, name)!r}"
