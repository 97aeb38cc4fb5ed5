"""What must hold for a table as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from statekit.errors import Pair
from statekit.table.messages import Place, listing, quote, suggestion
from statekit.table.transition import Transition


def check_some(transitions: Collection[object]) -> None:
    """Refuse a table without transitions.

    Raises:
        TableError: there is none.
    """
    if not transitions:
        raise Place("TransitionTable()").error(
            "there are no transitions at all",
            'Allowed are texts, pairs, mappings and Transitions: write at least one, such as "A → B".',
        )


def check_listed(state: str | None, states: Collection[str | None], place: Place) -> None:
    """Refuse a state that is not in the closed list ``states=``.

    Raises:
        TableError: it is not.
    """
    if state not in states:
        raise place.error(
            f"{quote(state)} is not in states=",
            f"Given states=, every state must be listed there: add it, or write one of {listing(states)}."
            + suggestion(state, states),
        )


def check_known_initial(state: str | None, states: Collection[str | None], place: Place) -> None:
    """Refuse an initial state that no transition mentions.

    Raises:
        TableError: it is not among the states.
    """
    if state not in states:
        raise place.error(
            f"the table has no state {quote(state)}",
            "initial= takes one state, or a tuple of states, literally; "
            f"write one of {listing(states)}, or add a transition for it.{suggestion(state, states)}",
        )


def check_reachable(states: Mapping[str | None, Place], initial: Collection[str | None], pairs: Iterable[Pair]) -> None:
    """Refuse states that no row could ever get into.

    Args:
        states: the states, with the place where each is mentioned first.
        initial: the declared initial states.
        pairs: all transitions.

    Raises:
        TableError: some state cannot be reached from an initial one.
    """
    targets: dict[str | None, list[str | None]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
    reached = set(initial)
    waiting = list(initial)
    while waiting:
        for target in targets.get(waiting.pop(), ()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    lost = [s for s in states if s not in reached]
    if lost:
        raise states[lost[0]].error(
            f"{listing(lost)} cannot be reached from the initial {listing(initial)}",
            "With initial= every state must be reachable: add a transition that leads there, "
            "or name the state in initial=.",
        )


def combine(old: Transition, new: Transition, old_place: Place, new_place: Place) -> Transition:
    """Return what two declarations of the same edge say together: the one with details wins over the bare one.

    Raises:
        TableError: both have details, and they contradict each other.
    """
    if new.is_bare or old == new:
        return old
    if old.is_bare:
        return new
    names = ("event", "conditions", "before", "after", "info")
    different = [name for name in names if getattr(old, name) != getattr(new, name)]
    one, two = ((", ".join(f"{n}={getattr(t, n)!r}" for n in different)) for t in (old, new))
    raise new_place.error(
        f"{_edge(new)} is declared twice and differently: {one} ({old_place.describe()}), then {two}",
        "Allowed is one declaration with details, repeated bare or identically: take one out, or make them equal.",
    )


def _edge(transition: Transition) -> str:
    return f"{transition.source} → {transition.target}"
