"""Fills the templates of version 2 in, which adds the history and the override to version 1. Frozen like that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.trigger.postgresql import writer
from statekit.trigger.postgresql.writer import Function, block, do, values_of
from statekit.trigger.quoting import identifier, literal, plain_identifier

if TYPE_CHECKING:
    from statekit.trigger.spec import StateTrigger


def create(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that make a trigger, or put it right; the one that locks the table comes last."""
    values = _values(trigger)
    return (
        do("schema", {}),
        do("types", values),
        *(function.sql for function in functions(trigger)),
        *_privileges(trigger, values),
        do("counters", values),
        do("triggers", values, 2),
        *(() if trigger.history else (do("drop_history", values, 2),)),
    )


def replace(trigger: StateTrigger, old: StateTrigger) -> tuple[str, ...]:
    """Return the statements that give a trigger another rule: without a lock on the table, if only the rule changes."""
    if trigger.version == 1:
        return (do("drop_history", _values(old), 2), *writer.create(trigger))
    same = ("on_illegal", "inline", "version", "history", "override_role", "ledger_schema")
    if trigger.inline or any(getattr(trigger, name) != getattr(old, name) for name in same):
        return create(trigger)
    # The counters come before the function that uses them, and the rule last: no move is refused and not counted.
    values = _values(trigger)
    legal, initial, *others = functions(trigger)
    return (
        do("schema", {}),
        do("present", values),
        do("types", values),
        do("counters", values),
        *(function.sql for function in others),
        initial.sql,
        legal.sql,
        do("comment", values),
    )


def drop(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that remove everything of a trigger."""
    return (do("drop_history", _values(trigger), 2), *writer.drop(trigger))


def functions(trigger: StateTrigger) -> tuple[Function, ...]:
    """Return the functions: the two rules, the one that refuses, and the one that writes the history, if any."""
    values = _values(trigger)
    legal, initial, refuse = writer.functions_of(trigger, values)
    refuse = refuse._replace(body=block("refuse", values, 2))
    if not trigger.history:
        return legal, initial, refuse
    name = f"{trigger.name}_history"
    definition = (
        f"statekit.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\nSET search_path = pg_catalog, pg_temp"
    )
    return legal, initial, refuse, Function(name, definition, block("history", values, 2))


def _privileges(trigger: StateTrigger, values: dict[str, str]) -> tuple[str, ...]:
    return (do("privileges", values, 2),) if trigger.history else ()


def _values(trigger: StateTrigger) -> dict[str, str]:
    values = values_of(trigger)
    column = identifier(trigger.column)
    key = ", ".join(f"to_jsonb(r.{plain_identifier(name)}) #>> '{{}}'" for name in trigger.history)
    settings = ("operation", "actor", "reason", "place")
    values |= {
        "has_history": "true" if trigger.history else "false",
        "when_moved": literal(f"OLD.{column} IS DISTINCT FROM NEW.{column}"),
        "history": _table(trigger, "statekit_history"),
        "ledger": _table(trigger, "statekit_ledger"),
        "key_of_r": f"jsonb_build_array({key})::text",
        "context": ", ".join(
            [*(f"nullif(current_setting('statekit.{name}', true), '')" for name in settings), "session_user"]
        ),
        "override": "",
        "override_new": "",
    }
    if trigger.override_role is not None:
        may = {"may": block("may", {"role": literal(trigger.override_role)}, 2)}
        values["override"] = block("override", values | may, 2) + "\n"
        values["override_new"] = block("override_new", values | may, 2) + "\n"
    return values


def _table(trigger: StateTrigger, name: str) -> str:
    schema = trigger.ledger_schema or "public"
    return f"{plain_identifier(schema)}.{identifier(name)}"
