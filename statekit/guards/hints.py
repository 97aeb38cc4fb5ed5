"""What the errors of the guard add to what they refuse: what may have been meant."""

from __future__ import annotations

from statekit.errors import Pair, show_state
from statekit.guards.guard import Guard
from statekit.table.messages import listing, quote, suggestion


def hint_for(guard: Guard, pair: Pair, *, new: bool, of_statement: bool = False, by_trigger: bool = False) -> str:
    """Return what may have been meant, if that can be told.

    Args:
        guard: whose refusal it is.
        pair: the refused move.
        new: whether the row is a new one.
        of_statement: whether a statement was refused, which makes no steps.
        by_trigger: whether a trigger has refused it, which knows neither steps nor blocks.
    """
    source, target = pair
    states = guard.states.values
    if target not in states:
        member = guard.states.member_by_value(target)
        takes = f" The attribute takes {member}." if member is not None else ""
        meant = suggestion(target, states) if member is None else ""
        return f"{quote(target)} is no state of the table, which has {listing(states)}.{meant}{takes}"
    if not new and source not in states:
        block = 'mend the row in a block with on_illegal="observe"'
        mend = "mend such rows while the trigger is disabled" if by_trigger else block
        return (
            f"The row holds {quote(source)}, which is no state of the table, so that no move from it is allowed: add "
            f"transitions for it, or {mend}."
        )
    if guard.steps or of_statement or by_trigger:
        return ""
    if new:
        leads_there = any(target in guard.allowed(start, new=False) for start in guard.initial)
        return "Flush it before it moves, or declare guard(..., steps=True)." if leads_there else ""
    names = {text: state for state, text in guard.states.texts.items()}
    path = guard.table.path(names[source], names[target])
    if path is None:
        return ""
    way = " → ".join(show_state(guard.states.texts[state]) for state in path)
    return f"If it went there step by step ({way}): flush between the steps, or declare guard(..., steps=True)."
