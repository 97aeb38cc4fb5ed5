"""Writes the operations into a migration: short, readable, and in need of nothing but ``op``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext

from statekit.alembic.ops import CHANGEABLE, CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp
from statekit.errors import Pair
from statekit.trigger import StateTrigger

WIDTH = 116
"""How long a line may be before it is indented into its function."""

_DEFAULTS: dict[str, Any] = {
    "schema": None,
    "on_illegal": "raise",
    "inline": False,
    "states": [],
    "history": [],
    "override_role": None,
    "ledger_schema": None,
}


class _Moves(list[Pair]):
    """Moves, written with those from one source on a line."""


@renderers.dispatch_for(CreateStateTriggerOp)
def _render_create(context: AutogenContext, operation: CreateStateTriggerOp) -> str:
    return _call(context, "create_state_trigger", _arguments(operation.trigger))


@renderers.dispatch_for(ReplaceStateTriggerOp)
def _render_replace(context: AutogenContext, operation: ReplaceStateTriggerOp) -> list[str]:
    new, old = _values(operation.trigger), _values(operation.old)
    changed = (
        {} if operation.trigger == operation.old else {key: old[key] for key in CHANGEABLE if old[key] != new[key]}
    )
    arguments = _arguments(operation.trigger)
    call = _call(context, "replace_state_trigger", arguments | {"old": changed, "version": arguments.pop("version")})
    return [*_comment(operation.note), call]


@renderers.dispatch_for(DropStateTriggerOp)
def _render_drop(context: AutogenContext, operation: DropStateTriggerOp) -> str:
    if operation.trigger is None:
        place = {"table": operation.table, "column": operation.column}
        schema = {} if operation.schema is None else {"schema": operation.schema}
        return _call(context, "drop_state_trigger", place | schema)
    return _call(context, "drop_state_trigger", _arguments(operation.trigger))


def _values(trigger: StateTrigger) -> dict[str, Any]:
    return {
        "transitions": _Moves(trigger.transitions),
        "initial": list(trigger.initial),
        "schema": trigger.schema,
        "on_illegal": trigger.on_illegal,
        "inline": trigger.inline,
        "states": list(trigger.other_states),
        "history": list(trigger.history),
        "override_role": trigger.override_role,
        "ledger_schema": trigger.ledger_schema,
        "version": trigger.version,
    }


def _arguments(trigger: StateTrigger) -> dict[str, Any]:
    values = {key: value for key, value in _values(trigger).items() if key not in _DEFAULTS or value != _DEFAULTS[key]}
    return {"table": trigger.table, "column": trigger.column, **values}


def _comment(note: str) -> Iterator[str]:
    line = ""
    for word in note.split():  # at line ends as well, which would end the comment
        if line and len(line) + len(word) > WIDTH - 3:
            yield f"# {line}"
            line = ""
        line = f"{line} {word}" if line else word
    if line:
        yield f"# {line}"


def _call(context: AutogenContext, name: str, arguments: dict[str, Any]) -> str:
    start = f"{context.opts.get('alembic_module_prefix') or ''}{name}("
    table, column = map(_text, (arguments.pop("table"), arguments.pop("column")))
    short = ", ".join([table, column, *(f"{key}={_short(value)}" for key, value in arguments.items())])
    if len(f"{start}{short})") <= WIDTH:
        return f"{start}{short})"
    lines = [f"    {table},", f"    {column},"]
    for key, value in arguments.items():
        lines += _long(f"{key}=", value, 4)
    return "\n".join([start, *lines, ")"])


def _text(value: str | None) -> str:
    """Return a text as Python's literal; a member of an Enum that is a text, as a name may be, as that text."""
    return "None" if value is None else str.__repr__(value)


def _short(value: Any) -> str:
    if isinstance(value, _Moves):
        return f"[{', '.join(map(_pair, value))}]"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text(key)}: {_short(each)}' for key, each in value.items())}}}"
    return _text(value) if isinstance(value, str) else repr(value)


def _long(label: str, value: Any, indent: int) -> list[str]:
    """Return the lines of an argument, or of an entry of a dictionary."""
    space = " " * indent
    short = f"{space}{label}{_short(value)},"
    if isinstance(value, Mapping) and value:
        inner = [line for key, each in value.items() for line in _long(f"{_text(key)}: ", each, indent + 4)]
        return [f"{space}{label}{{", *inner, f"{space}}},"]
    if isinstance(value, _Moves) and value:
        rows = [[_pair(pair) for pair in pairs] for _, pairs in groupby(value, key=lambda pair: pair[0])]
        return [f"{space}{label}[", *(line for row in rows for line in _filled(row, indent + 4)), f"{space}],"]
    if isinstance(value, list) and len(short) > WIDTH:
        return [f"{space}{label}[", *_filled(map(_text, value), indent + 4), f"{space}],"]
    return [short]


def _pair(pair: Pair) -> str:
    return f"({_text(pair[0])}, {_text(pair[1])})"


def _filled(items: Iterable[str], indent: int) -> Iterator[str]:
    line = ""
    for item in items:
        if line and indent + len(line) + len(item) + 2 > WIDTH:
            yield " " * indent + line
            line = ""
        line = f"{line} {item}," if line else f"{item},"
    yield " " * indent + line
