"""Fills the templates in. Frozen with them: version 1 writes the same SQL under every later statekit."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from statekit.errors import Pair
from statekit.trigger.quoting import dollar_quoted, filled, identifier, json_literal, literal, plain_identifier

if TYPE_CHECKING:
    from statekit.trigger.spec import StateTrigger

PAIRS = 256
"""With more illegal moves than this, there is one counter for each source, and not one for each move."""


class Function(NamedTuple):
    """A function of a trigger.

    Attributes:
        name: its name, in the schema ``statekit``.
        definition: what stands before its body.
        body: as ``pg_proc.prosrc`` has it.
    """

    name: str
    definition: str
    body: str

    @property
    def sql(self) -> str:
        return f"CREATE OR REPLACE FUNCTION {self.definition} AS {dollar_quoted(self.body)}"


def create(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that make a trigger, or put it right; the one that locks the table comes last."""
    values = values_of(trigger)
    return (
        do("schema", {}),
        do("types", values),
        *(function.sql for function in functions_of(trigger, values)),
        do("counters", values),
        do("triggers", values),
    )


def replace(trigger: StateTrigger, old: StateTrigger) -> tuple[str, ...]:
    """Return the statements that give a trigger another rule: without a lock on the table, if only the rule changes."""
    as_before = (trigger.on_illegal, trigger.inline, trigger.version) == (old.on_illegal, old.inline, old.version)
    if trigger.inline or not as_before:
        return create(trigger)
    # The counters come before the function that uses them, and the rule last: no move is refused and not counted.
    values = values_of(trigger)
    legal, initial, refuse = (function.sql for function in functions_of(trigger, values))
    return (
        do("schema", {}),
        do("present", values),
        do("types", values),
        do("counters", values),
        refuse,
        initial,
        legal,
        do("comment", values),
    )


def drop(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statement that removes everything of a trigger."""
    return (do("drop", values_of(trigger)),)


def counters(trigger: StateTrigger) -> dict[str, dict[str, Any]]:
    """Return what each counter of a trigger counts, by the name of its sequence."""
    return _counters(trigger)[1]


def functions(trigger: StateTrigger) -> tuple[Function, ...]:
    """Return the functions of a trigger: the rule for moves, the rule for new rows, and the one that refuses."""
    return functions_of(trigger, values_of(trigger))


def functions_of(trigger: StateTrigger, values: dict[str, str]) -> tuple[Function, Function, Function]:
    """Return the functions of a trigger, filled in with what is given."""
    name = trigger.name
    text = "pg_catalog.text"
    rule = "RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE"
    return (
        Function(
            f"{name}_legal",
            f"statekit.{name}_legal(source {text}, target {text}) {rule}",
            block("legal", {"nulls": _null_moves(trigger), "rule": json_literal(_moves(trigger))}),
        ),
        Function(
            f"{name}_initial",
            f"statekit.{name}_initial(state {text}) {rule}",
            block("initial", {"nulls": _null_start(trigger), "rule": json_literal(_texts(trigger.initial))}),
        ),
        Function(
            name,
            f"statekit.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
            "SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'",
            block("refuse", values),
        ),
    )


def values_of(trigger: StateTrigger) -> dict[str, str]:
    """Return what is filled into the templates for a trigger."""
    name = trigger.name
    parts = [identifier(part) for part in (trigger.schema, trigger.table) if part is not None]
    table = ".".join(parts)
    column = identifier(trigger.column)
    lookup, sequences = _counters(trigger)
    return {
        "name": name,
        "name_literal": literal(name),
        "table_literal": literal(table),
        "column": plain_identifier(trigger.column),
        "column_literal": literal(trigger.column),
        "old_state": state_of("OLD", trigger.column),
        "new_state": state_of("NEW", trigger.column),
        "title": literal(trigger.full_table),
        "attribute": literal(f".{trigger.column}"),
        "mode": literal(trigger.on_illegal),
        "states": json_literal(list(trigger.states)) + "::pg_catalog.jsonb",
        "counters": json_literal(lookup),
        "allowed": json_literal(_allowed(trigger)),
        "about": json_literal({"statekit": trigger.as_data(), "hash": trigger.hash}),
        "when_update": literal(_when_update(trigger, column)),
        "when_insert": literal(f"statekit.{name}_initial(NEW.{column}::pg_catalog.text) IS NOT TRUE"),
        "sequences": json_literal(sequences),
        "has_schema": "false" if trigger.schema is None else "true",
        "lock": str(lock_key(trigger)),
    }


def state_of(row: str, column: str) -> str:
    """Return a row's state as PL/pgSQL reads it; it does not know an escaped name as that of a row's field."""
    name = plain_identifier(column)
    if name == identifier(column):
        return f"{row}.{name}::text"
    return f"(SELECT r.{name}::text FROM (SELECT {row}.*) AS r)"


def _when_update(trigger: StateTrigger, column: str) -> str:
    changed = f"OLD.{column} IS DISTINCT FROM NEW.{column}"
    if not trigger.inline:
        rule = f"statekit.{trigger.name}_legal(OLD.{column}::pg_catalog.text, NEW.{column}::pg_catalog.text)"
        return f"{changed} AND {rule} IS NOT TRUE"
    legal = " OR ".join(
        f"({_is(f'OLD.{column}', [source])} AND {_is(f'NEW.{column}', trigger.allowed(source))})"
        for source in dict.fromkeys(source for source, _ in trigger.transitions)
    )
    # IS NOT TRUE and not NOT: what is not known is not allowed.
    return f"{changed} AND ({legal or 'false'}) IS NOT TRUE"


def _is(value: str, states: Any) -> str:
    texts = _texts(states)
    parts = [f"{value} IN ({', '.join(map(literal, texts))})"] if texts else []
    parts += [f"{value} IS NULL"] if None in states else []
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def _moves(trigger: StateTrigger) -> dict[str, list[str]]:
    moves: dict[str, list[str]] = {}
    for source, target in trigger.transitions:
        if source is not None and target is not None:
            moves.setdefault(source, []).append(target)
    return moves


def _null_moves(trigger: StateTrigger) -> str:
    from_null = [target for source, target in trigger.transitions if source is None]
    to_null = [source for source, target in trigger.transitions if target is None]
    lines = ""
    if from_null:
        lines += _answer("source IS NULL", from_null, "target")
    if to_null:
        lines += _answer("target IS NULL", to_null, "source")
    return lines


def _null_start(trigger: StateTrigger) -> str:
    return "  IF state IS NULL THEN\n    RETURN true;\n  END IF;\n" if None in trigger.initial else ""


def _answer(condition: str, states: list[str | None], parameter: str) -> str:
    rule = f"{json_literal(_texts(states))}::pg_catalog.jsonb OPERATOR(pg_catalog.?) {parameter}"
    return f"  IF {condition} THEN\n    RETURN {rule};\n  END IF;\n"


def _texts(states: Any) -> list[str]:
    return [state for state in states if state is not None]


def _allowed(trigger: StateTrigger) -> dict[str, list[str | None]]:
    allowed = {_key(state): list(trigger.allowed(state)) for state in (*trigger.states, None)}
    return {"+": list(trigger.initial)} | {label: states for label, states in allowed.items() if states}


def _key(state: str | None) -> str:
    """Return a state as the function looks it up: NULL has a key that no text has."""
    return "-" if state is None else f"={state}"


def _counters(trigger: StateTrigger) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return how the function finds the counter of a move, and what each counter counts, by its name.

    ``*`` stands for whatever has no counter of its own: as a target with a known source, where there are too many
    moves; for the target of a new row that is no state of the table; and for both where one of them is none.
    """
    kind = "observed" if trigger.on_illegal == "observe" else "blocked"
    states = tuple(dict.fromkeys([*trigger.states, None]))
    moves: list[tuple[bool, Pair]] = [(False, (source, target)) for source in states for target in states]
    moves += [(True, (None, target)) for target in states]
    illegal = [(new, pair) for new, pair in moves if not trigger.allows(*pair, new=new)]
    grouped = len(illegal) > PAIRS
    if grouped:
        illegal = list(dict.fromkeys((new, (source, "*")) for new, (source, _) in illegal))
    place = {"schema": trigger.schema, "table": trigger.table, "column": trigger.column}
    lookup: dict[str, Any] = {}
    counters: dict[str, dict[str, Any]] = {}
    for new, (source, target) in illegal:
        about = {"trigger": trigger.name, "kind": kind, "new": new, "source": source, "target": target}
        counter = _counter_name([*about.values(), grouped])
        counters[f"{trigger.name}_{counter}"] = about | place
        lookup.setdefault("+" if new else _key(source), {})["*" if grouped else _key(target)] = counter
    for new, source in ((True, None), (False, "*")):
        if new and "*" in lookup.get("+", {}):
            continue
        about = {"trigger": trigger.name, "kind": kind, "new": new, "source": source, "target": "*"}
        counter = _counter_name([*about.values(), "unknown"])
        counters[f"{trigger.name}_{counter}"] = about | place
        (lookup.setdefault("+", {}) if new else lookup)["*"] = counter
    return lookup, counters


def _counter_name(key: list[Any]) -> str:
    """Return what a counter is called after the trigger's name: the same as long as it counts the same."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


def lock_key(trigger: StateTrigger) -> int:
    """Return the advisory lock under which a trigger counts: a number that two of them hardly share."""
    digest = hashlib.sha256(f"statekit {trigger.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@cache
def _blocks(version: int) -> dict[str, str]:
    text = files("statekit.trigger.postgresql").joinpath(f"v{version}.sql").read_text("utf-8")
    _, *parts = text.split("-- block: ")
    return {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}


def block(name: str, values: dict[str, str], version: int = 1) -> str:
    """Return a block of a version's templates, filled in."""
    return filled(_blocks(version)[name], values)


def do(name: str, values: dict[str, str], version: int = 1) -> str:
    """Return the statement that executes a block."""
    return f"DO {dollar_quoted(block(name, values, version))}"
