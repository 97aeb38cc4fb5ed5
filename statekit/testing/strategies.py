"""Hypothesis strategies for tables, for moves, and for walks through a table."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy.orm import QueryableAttribute

from statekit.guards.attach import guard_on
from statekit.table import TransitionTable

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError("statekit.testing's strategies need Hypothesis: install the package hypothesis.") from error


@st.composite
def tables(draw: st.DrawFn, *, min_states: int = 2, max_states: int = 6) -> TransitionTable:
    """Generate tables of text states, whose every state can be reached from the initial one.

    Args:
        min_states: the least number of states, at least 2.
        max_states: the greatest number of states.

    Raises:
        ValueError: the numbers are out of order.
    """
    if not 2 <= min_states <= max_states:
        raise ValueError(f"tables(): allowed is 2 ≤ min_states ≤ max_states; got {min_states} and {max_states}")
    size = draw(st.integers(min_states, max_states))
    states = draw(st.lists(_names, min_size=size, max_size=size, unique=True))
    # First a tree, so that each state is reached, and then any other moves.
    pairs = [(draw(st.sampled_from(states[:i])), states[i]) for i in range(1, size)]
    others = [pair for pair in itertools.permutations(states, 2) if pair not in pairs]
    pairs += draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    return TransitionTable(*pairs, initial=states[0])


_names = st.from_regex(r"[A-Z][A-Z_]{0,7}", fullmatch=True)


@st.composite
def walks(
    draw: st.DrawFn, table: TransitionTable | QueryableAttribute[Any], *, legal: bool = True, max_size: int = 10
) -> list[Any]:
    """Generate walks through a table: states of which the first is one that a new row may start in.

    Args:
        table: the table, or a guarded attribute, such as ``Message.status``.
        legal: whether every step is allowed; else a step leads to any other state, allowed or not.
        max_size: the greatest number of states.

    Returns:
        The states, as members where the table has an Enum, else as text.

    Raises:
        ValueError: ``max_size`` is less than 1.
        TypeError: it is no table, and no attribute that has one.
    """
    if max_size < 1:
        raise ValueError(f"walks(): allowed is max_size ≥ 1; got {max_size}")
    table = _table_of(table)
    walk = [draw(st.sampled_from(list(table.initial)))]
    for _ in range(draw(st.integers(0, max_size - 1))):
        here = walk[-1]
        targets = list(table.targets(here)) if legal else [state for state in table.states if state != here]
        if not targets:
            break
        walk.append(draw(st.sampled_from(targets)))
    return [_as_declared(table, state) for state in walk]


@st.composite
def moves(draw: st.DrawFn, table: TransitionTable | QueryableAttribute[Any]) -> tuple[Any, Any]:
    """Generate moves between two states of a table, allowed or not.

    Args:
        table: the table, or a guarded attribute, such as ``Message.status``.

    Returns:
        Source and target, as members where the table has an Enum, else as text.

    Raises:
        TypeError: it is no table, and no attribute that has one.
    """
    table = _table_of(table)
    source, target = draw(st.sampled_from(list(itertools.permutations(table.states, 2))))
    return _as_declared(table, source), _as_declared(table, target)


def _table_of(given: object) -> TransitionTable:
    if isinstance(given, TransitionTable):
        return given
    guard = guard_on(given)
    if guard is None:
        raise TypeError(f"{given!r} is no TransitionTable, and no guarded attribute such as Message.status")
    return guard.table


def _as_declared(table: TransitionTable, state: str | None) -> Any:
    return table.enum[state] if table.enum is not None and state is not None else state
