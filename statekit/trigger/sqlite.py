"""Triggers for SQLite. Frozen like those for PostgreSQL: version 1 writes the same SQL under every later statekit.

With a list of columns, unlike PostgreSQL's: no trigger of SQLite's changes the row that is being written, so that a
statement which does not name the column leaves it as it is; and without the list, each of those takes three times as
long.

SQLite takes an error's text as a literal only, so each illegal move has one of its own. What a trigger does is rolled
back with the statement that it refuses: nothing can be counted there.
https://www.sqlite.org/lang_createtrigger.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statekit.trigger.quoting import identifier, json_text, plain_literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from statekit.trigger.spec import StateTrigger

PAIRS = 256
"""With more illegal moves than this, the error names the source, and not the target."""

MARK = "statekit: "
"""What stands before the trigger's data in the comment that SQLite keeps with its text."""


def create(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that make a trigger, or put it right."""
    made = definitions(trigger)
    return (*drop(trigger), *made.values())


def replace(trigger: StateTrigger, old: StateTrigger) -> tuple[str, ...]:
    """Return the statements that give a trigger another rule."""
    return create(trigger)


def drop(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that remove a trigger."""
    names = (trigger.name, f"{trigger.name}_new", f"zzz_{trigger.name}")
    return tuple(f"DROP TRIGGER IF EXISTS {_qualified(trigger, name)}" for name in names)


def definitions(trigger: StateTrigger) -> dict[str, str]:
    """Return the CREATE statement of each trigger by its name, as ``sqlite_master`` keeps it."""
    column = identifier(trigger.column)
    table = identifier(trigger.table)
    changed = f"OLD.{column} COLLATE BINARY IS NOT NEW.{column}"
    illegal = f"{changed} AND ({_legal(trigger, column)}) IS NOT TRUE"
    started = f"({_is(_text(f'NEW.{column}'), f'NEW.{column}', trigger.initial)}) IS NOT TRUE"
    passes = trigger.on_illegal == "observe"
    about = f"/* {MARK}{json_text(trigger.as_data())} */"
    made = {
        trigger.name: (
            f"AFTER UPDATE OF {column} ON {table} FOR EACH ROW\nWHEN {'0' if passes else illegal}\nBEGIN\n  {about}\n"
            f"{_refusals(trigger, column)}END"
        ),
        f"{trigger.name}_new": (
            f"AFTER INSERT ON {table} FOR EACH ROW\nWHEN {'0' if passes else started}\nBEGIN\n"
            f"{_refused_starts(trigger, column)}END"
        ),
    }
    if trigger.on_illegal == "skip":
        made[f"zzz_{trigger.name}"] = (
            f"BEFORE UPDATE OF {column} ON {table} FOR EACH ROW\nWHEN {illegal}\nBEGIN\n  SELECT RAISE(IGNORE);\nEND"
        )
    return {name: f"CREATE TRIGGER {_qualified(trigger, name)} {text}" for name, text in made.items()}


def _qualified(trigger: StateTrigger, name: str) -> str:
    return identifier(name) if trigger.schema is None else f"{identifier(trigger.schema)}.{identifier(name)}"


def _text(value: str) -> str:
    # A cast keeps the column's collation, which may take different texts for the same.
    return f"CAST({value} AS TEXT) COLLATE BINARY"


def _legal(trigger: StateTrigger, column: str) -> str:
    old, new = f"OLD.{column}", f"NEW.{column}"
    return " OR ".join(
        f"({_is(_text(old), old, [source])} AND {_is(_text(new), new, trigger.allowed(source))})"
        for source in dict.fromkeys(source for source, _ in trigger.transitions)
    ) or "0"  # fmt: skip


def _is(text: str, value: str, states: Iterable[str | None]) -> str:
    states = list(states)
    texts = [plain_literal(state) for state in states if state is not None]
    parts = [f"{text} IN ({', '.join(texts)})"] if texts else []
    parts += [f"{value} IS NULL"] if None in states else []
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts) or '0'})"


def _refusals(trigger: StateTrigger, column: str) -> str:
    old, new = f"OLD.{column}", f"NEW.{column}"
    states = tuple(dict.fromkeys([*trigger.states, None]))
    illegal = [(source, target) for source in states for target in states if not trigger.allows(source, target)]
    lines = []
    for source in states:
        targets = [target for start, target in illegal if start == source]
        if not targets:
            continue
        if len(illegal) > PAIRS:
            refused = _raise(trigger, source, "*")
        else:
            cases = [f"WHEN {_is(_text(new), new, [to])} THEN {_raise(trigger, source, to)}" for to in targets]
            refused = f"CASE {' '.join(cases)} END"
        lines.append(f"  SELECT {refused} WHERE {_is(_text(old), old, [source])};\n")
    return "".join(lines) + f"  SELECT {_raise(trigger, '*', '*')};\n"


def _refused_starts(trigger: StateTrigger, column: str) -> str:
    new = f"NEW.{column}"
    illegal = [state for state in dict.fromkeys([*trigger.states, None]) if not trigger.allows(None, state, new=True)]
    lines = [
        f"  SELECT {_raise(trigger, None, state, new=True)} WHERE {_is(_text(new), new, [state])};\n"
        for state in illegal
    ]
    return "".join(lines) + f"  SELECT {_raise(trigger, None, '*', new=True)};\n"


def _raise(trigger: StateTrigger, source: str | None, target: str | None, *, new: bool = False) -> str:
    allowed = ", ".join(map(_shown, trigger.allowed(source, new=new))) or "nothing"
    move = f"a new row cannot start in {_shown(target)}"
    if not new:
        move = f"cannot move from {_shown(source)} to {_shown(target)}"
    data = {"new": new, "source": source, "target": target, "allowed": list(trigger.allowed(source, new=new))}
    about = json_text(data)
    start = "" if new else f" from {_shown(source)}"
    text = f"{trigger.full_table}.{trigger.column}: {move}. Allowed{start}: {allowed}. [{trigger.name} {about}]"
    return f"RAISE(ABORT, {plain_literal(text)})"


def _shown(state: str | None) -> str:
    if state is None:
        return "NULL"
    if state == "*":
        return "another state"
    return state if state.isprintable() else ascii(state)
