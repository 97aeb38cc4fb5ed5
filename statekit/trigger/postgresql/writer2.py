"""Fills the templates of version 2 in, which adds the history and the override to version 1. Frozen like that."""

from __future__ import annotations

from collections.abc import Iterable
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
    definition = f"statekit.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
    return legal, initial, refuse, Function(name, definition, block("history", values, 2))


def _privileges(trigger: StateTrigger, values: dict[str, str]) -> tuple[str, ...]:
    return (do("privileges", values, 2),) if trigger.history else ()


def _values(trigger: StateTrigger) -> dict[str, str]:
    values = values_of(trigger)
    column = identifier(trigger.column)
    values |= {
        "has_history": "true" if trigger.history else "false",
        "when_moved": literal(f"OLD.{column} IS DISTINCT FROM NEW.{column}"),
        "history": _table(trigger, "statekit_history"),
        "ledger": _table(trigger, "statekit_ledger"),
        "key": _key(_value_of("NEW", name) for name in trigger.history),
        "key_of_r": _key(f"r.{plain_identifier(name)}" for name in trigger.history),
        "source": _text_of("OLD", trigger.column),
        "target": _text_of("NEW", trigger.column),
        "kind_moved": _kind(trigger, f"_legal({_text_of('OLD', trigger.column)}, {_text_of('NEW', trigger.column)})"),
        "kind_new": _kind(trigger, f"_initial({_text_of('NEW', trigger.column)})"),
        "kind_of_r": _kind(trigger, f"_initial(r.{plain_identifier(trigger.column)}::pg_catalog.text)"),
        "context": ", ".join([*map(_said, ("operation", "actor", "reason", "place")), "session_user"]),
        "override": "",
        "override_new": "",
    }
    if trigger.override_role is not None:
        may = {"may": f"{_IS_OVERRIDDEN} AND {_is_member(trigger.override_role)}"}
        values["override"] = block("override", values | may, 2) + "\n"
        values["override_new"] = block("override_new", values | may, 2) + "\n"
    return values


def _setting(name: str) -> str:
    return f"pg_catalog.current_setting('statekit.{name}', true)"


_IS_OVERRIDDEN = f"COALESCE({_setting('reason')}, '') OPERATOR(pg_catalog.<>) ''"
"""Whether somebody has said why; it counts for the members of the role alone."""


def _is_member(role: str) -> str:
    return block("is_member", {"role": literal(role)}, 2)


def _said(name: str) -> str:
    """Return what a setting says, NULL for nothing. Not NULLIF, which finds its operator by the search path."""
    return f"CASE WHEN {_setting(name)} OPERATOR(pg_catalog.<>) '' THEN {_setting(name)} END"


def _text_of(row: str, column: str) -> str:
    return f"{_value_of(row, column)}::pg_catalog.text"


def _value_of(row: str, column: str) -> str:
    """Return the value of a row's field; PL/pgSQL does not know an escaped name as that of one."""
    name = plain_identifier(column)
    return f"{row}.{name}" if name == identifier(column) else f"(SELECT r.{name} FROM (SELECT {row}.*) AS r)"


def _key(values: Iterable[str]) -> str:
    parts = ", ".join(f"{_in_utc(value)} OPERATOR(pg_catalog.#>>) '{{}}'" for value in values)
    return f"pg_catalog.jsonb_build_array({parts})::pg_catalog.text"


def _in_utc(value: str) -> str:
    """Return a value as JSON; a time with a zone not in that of the session, which is not the same for everybody."""
    is_time = f"pg_catalog.pg_typeof({value}) OPERATOR(pg_catalog.=) 'pg_catalog.timestamptz'::pg_catalog.regtype"
    time = f"pg_catalog.timezone('UTC', {value}::pg_catalog.text::pg_catalog.timestamptz)"
    return f"(CASE WHEN {is_time} THEN pg_catalog.to_jsonb({time}) ELSE pg_catalog.to_jsonb({value}) END)"


def _kind(trigger: StateTrigger, rule: str) -> str:
    """Return what a move was; the rule is asked only where a move may have passed that it does not allow."""
    is_legal = f"statekit.{trigger.name}{rule} IS TRUE"
    is_overridden = _IS_OVERRIDDEN
    if trigger.on_illegal == "observe":
        if trigger.override_role is not None:  # else it would have been refused to whoever may not
            is_overridden = f"{is_overridden} AND {_is_member(trigger.override_role)}"
        return f"CASE WHEN {is_legal} THEN 'allowed' WHEN {is_overridden} THEN 'overridden' ELSE 'observed' END"
    return f"CASE WHEN {is_overridden} AND ({is_legal}) IS NOT TRUE THEN 'overridden' ELSE 'allowed' END"


def _table(trigger: StateTrigger, name: str) -> str:
    schema = trigger.ledger_schema or "public"
    return f"{plain_identifier(schema)}.{identifier(name)}"
