"""Moves that were seen, written as the Python source of a ``TransitionTable`` that allows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from statekit.errors import Pair, TableError
from statekit.table import TransitionTable
from statekit.table.notation import is_plain

State = str | None


@dataclass(frozen=True, slots=True)
class Source:
    """A table as source.

    Attributes:
        text: an expression, with how often each move was seen as comments; None if there is no move to allow.
        remarks: what could not be written, for people.
    """

    text: str | None
    remarks: tuple[str, ...]


def source_of(moves: Mapping[Pair, int], initial: Mapping[State, int]) -> Source:
    """Return the source of the table that allows some moves.

    Args:
        moves: how often each was seen.
        initial: how often a new row was seen in each state.
    """
    remarks = []
    odd = [state for state in dict.fromkeys([*initial, *(end for pair in moves for end in pair)]) if not _can_be(state)]
    if odd:
        remarks.append(f"No name of a state, so that its moves are left out: {', '.join(map(_quoted, odd))}.")
        initial = {state: number for state, number in initial.items() if state not in odd}
        moves = {pair: number for pair, number in moves.items() if not {*pair} & {*odd}}
    if not moves:
        return Source(None, tuple(remarks))
    starts = sorted(initial, key=lambda state: -initial[state])
    states = list(dict.fromkeys([*starts, *(end for pair in moves for end in pair)]))
    lines = [
        (f"{_chain(chain)},", "; ".join(f"{moves[pair]:,}" for pair in pairwise(chain)))
        for chain in _chains(moves, starts)
    ]
    lost = [state for state in states if state not in _reached(moves, starts)]
    seen = ", ".join(f"{_quoted(state)}: {initial[state]:,}" for state in starts)
    if not starts:
        remarks.append("No new row was seen, so that one may start in any state: add initial= if you know better.")
    elif lost:
        remarks.append(
            f"initial= is left out, because from where new rows were seen ({seen}) no move leads to "
            f"{', '.join(map(_quoted, lost))}: rows were there before. Add the move, or initial=."
        )
    else:
        one = len(starts) == 1 and starts[0] is not None
        text = _quoted(starts[0]) if one else _tuple(starts)
        lines.append((f"initial={text},", "new rows: " + "; ".join(f"{initial[state]:,}" for state in starts)))
        mentioned = {end for pair in moves for end in pair}
        if not mentioned.issuperset(starts):
            lines.append((f"states={_tuple(states)},", ""))
    body = "".join(f"    {text}{f'  # {comment}' if comment else ''}\n" for text, comment in lines)
    return Source(f"TransitionTable(\n{body})", tuple(remarks))


def _can_be(state: State) -> bool:
    try:
        TransitionTable(("A" if state == "B" else "B", state))
    except TableError:
        return False
    return True


def _chains(moves: Mapping[Pair, int], starts: Sequence[State]) -> list[list[State]]:
    """Return the moves as chains, each move once: along the most frequent ones first."""
    left: dict[State, list[State]] = {}
    chains: list[list[State]] = []
    alone: list[list[State]] = []
    for source, target in sorted(moves, key=lambda pair: -moves[pair]):
        if is_plain(source) and is_plain(target):
            left.setdefault(source, []).append(target)
        else:
            alone.append([source, target])
    for start in _ordered(moves, starts):
        while left.get(start):
            chain = [start]
            while left.get(chain[-1]):
                target = left[chain[-1]].pop(0)
                is_circle = target in chain
                chain.append(target)
                if is_circle:
                    break
            chains.append(chain)
    return chains + alone


def _ordered(moves: Mapping[Pair, int], starts: Sequence[State]) -> list[State]:
    """Return all states, those where rows begin first, then those that they come to."""
    pairs = sorted(moves, key=lambda pair: -moves[pair])
    targets = {target for _, target in pairs}
    roots = [*starts, *(source for source, _ in pairs if source not in targets), *(source for source, _ in pairs)]
    found: dict[State, None] = {}
    for root in roots:
        waiting = [root]
        while waiting:
            state = waiting.pop(0)
            if state not in found:
                found[state] = None
                waiting += [target for source, target in pairs if source == state]
    return list(found)


def _reached(moves: Iterable[Pair], starts: Sequence[State]) -> set[State]:
    pairs = list(moves)
    reached, waiting = set(starts), list(starts)
    while waiting:
        here = waiting.pop()
        found = {target for source, target in pairs if source == here} - reached
        reached |= found
        waiting += found
    return reached


def _chain(chain: Sequence[State]) -> str:
    if all(map(is_plain, chain)):
        return _quoted(" → ".join(map(str, chain)))
    return _tuple(chain)


def _tuple(states: Sequence[State]) -> str:
    return f"({', '.join(map(_quoted, states))}{',' if len(states) == 1 else ''})"


def _quoted(state: State) -> str:
    """Return a state as a literal of Python, in double quotes where that can be."""
    return json.dumps(state, ensure_ascii=False) if state is not None and state.isprintable() else repr(state)
