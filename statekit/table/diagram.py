"""Tables as diagrams: Mermaid and Graphviz."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from statekit.table.names import as_text
from statekit.table.transition import Transition

_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_MERMAID_SPECIAL = re.compile(r"""["#;<>&%`\\{}\[\]*_~|$]""")
# Mermaid reads these at the beginning of a line as commands, in any case.
_RESERVED = re.compile(
    "acctitle|accdescr|as|class|classdef|click|default|direction|end|fork|hide|note|root|scale|state|style|title", re.I
)


def mermaid(
    states: Collection[str | None],
    initial: Iterable[str | None],
    final: Iterable[str | None],
    transitions: Iterable[Transition],
) -> str:
    """Return a Mermaid ``stateDiagram-v2``.

    Args:
        states: all states, in order.
        initial: the states that an arrow from the start leads to.
        final: the states that an arrow to the end leaves.
        transitions: all transitions, states as text.
    """
    ids = _mermaid_ids(states)
    lines = ["stateDiagram-v2"]
    named = [("NULL" if state is None else state, id_) for state, id_ in ids.items() if state != id_]
    lines += [f'    state "{_mermaid_text(name)}" as {id_}' for name, id_ in named]
    lines += [f"    [*] --> {ids[s]}" for s in initial]
    for t in transitions:
        label = f": {t.event}" if t.event else ""
        lines.append(f"    {ids[as_text(t.source)]} --> {ids[as_text(t.target)]}{label}")
    lines += [f"    {ids[s]} --> [*]" for s in final]
    return "\n".join(lines) + "\n"


def dot(
    states: Collection[str | None],
    initial: Iterable[str | None],
    final: Collection[str | None],
    transitions: Iterable[Transition],
) -> str:
    """Return a Graphviz ``digraph``: a dot leads to the initial states, the final ones have a double border.

    Args:
        states: all states, in order.
        initial: the states that an arrow from the start leads to.
        final: the states with a double border.
        transitions: all transitions, states as text.
    """
    start = _dot_quote(_free("start", states))
    ids = {s: _dot_quote(_free("NULL", states) if s is None else s) for s in states}
    lines = ["digraph states {", "    rankdir=LR;", "    node [shape=box, style=rounded];"]
    for state, node in ids.items():
        details = ['label="NULL"'] if state is None else []
        details += ["peripheries=2"] if state in final else []
        lines.append(f"    {node} [{', '.join(details)}];" if details else f"    {node};")
    arrows = [f"    {start} -> {ids[s]};" for s in initial]
    if arrows:
        lines += [f'    {start} [shape=point, label=""];', *arrows]
    for t in transitions:
        label = f" [label={_dot_quote(t.event)}]" if t.event else ""
        lines.append(f"    {ids[as_text(t.source)]} -> {ids[as_text(t.target)]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _mermaid_ids(states: Collection[str | None]) -> dict[str | None, str]:
    ids: dict[str | None, str] = {}
    number = 0
    for state in states:
        if state is not None and _SIMPLE.fullmatch(state) and not _RESERVED.fullmatch(state):
            ids[state] = state
            continue
        number += 1
        while f"s{number}" in states:
            number += 1
        ids[state] = f"s{number}"
    return ids


def _mermaid_text(text: str) -> str:
    escaped = _MERMAID_SPECIAL.sub(lambda found: f"#{ord(found.group())};", text)
    return _NEWLINE.sub("<br/>", escaped)


def _free(name: str, states: Collection[str | None]) -> str:
    """Return a node's name that no state has."""
    while name in states:
        name += "_"
    return name


def _dot_quote(text: str) -> str:
    # In a label Graphviz reads backslashes and entities as well as quotes.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return '"' + _NEWLINE.sub(r"\\n", escaped) + '"'
