"""A transition table as a diagram with numbers: legal moves are solid lines, illegal ones dashed.

Mermaid's state diagrams know no dashed line, so that it is a flowchart there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edge:
    """A line of the diagram.

    Attributes:
        source: the state that it leaves; None for NULL.
        target: the state that it leads to.
        new: whether it is one of new rows, which come from the start.
        is_legal: whether the table allows it.
        label: what stands at it; empty for nothing.
    """

    source: str | None
    target: str | None
    new: bool
    is_legal: bool
    label: str


def mermaid(states: Sequence[str | None], final: Collection[str | None], edges: Sequence[Edge]) -> str:
    """Return a Mermaid flowchart; a final state has doubled sides, one that the table does not know a dashed border.

    Args:
        states: those of the table, in order.
        final: those of them that nothing leaves.
        edges: the lines.
    """
    ids = _ids(states, edges)
    lines = ["flowchart LR"]
    if any(edge.new for edge in edges):
        lines.append('    start((" "))')
    for state, id_ in ids.items():
        text = f'"{_mermaid_text("NULL" if state is None else state)}"'
        box = f"[[{text}]]" if state in final else f"[{text}]"
        lines.append(f"    {id_}{box}{'' if state in states else ':::unknown'}")
    for edge in edges:
        arrow = "-->" if edge.is_legal else "-.->"
        label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
        lines.append(f"    {'start' if edge.new else ids[edge.source]} {arrow}{label} {ids[edge.target]}")
    if len(ids) > len(states):
        lines.append("    classDef unknown stroke-dasharray: 4")
    return "\n".join(lines) + "\n"


def dot(states: Sequence[str | None], final: Collection[str | None], edges: Sequence[Edge]) -> str:
    """Return a Graphviz ``digraph``; a final state has a double border, one that the table does not know a dashed one.

    Args:
        states: those of the table, in order.
        final: those of them that nothing leaves.
        edges: the lines.
    """
    ids = _ids(states, edges)
    lines = ["digraph states {", "    rankdir=LR;", "    node [shape=box, style=rounded];"]
    if any(edge.new for edge in edges):
        lines.append('    start [shape=point, label=""];')
    for state, id_ in ids.items():
        details = [f"label={_dot_text('NULL' if state is None else state)}"]
        details += ["peripheries=2"] if state in final else []
        details += [] if state in states else ['style="rounded,dashed"']
        lines.append(f"    {id_} [{', '.join(details)}];")
    for edge in edges:
        details = [f"label={_dot_text(edge.label)}"] if edge.label else []
        details += [] if edge.is_legal else ["style=dashed"]
        rest = f" [{', '.join(details)}]" if details else ""
        lines.append(f"    {'start' if edge.new else ids[edge.source]} -> {ids[edge.target]}{rest};")
    return "\n".join([*lines, "}"]) + "\n"


def _ids(states: Sequence[str | None], edges: Sequence[Edge]) -> dict[str | None, str]:
    ends = [end for edge in edges for end in ((edge.target,) if edge.new else (edge.source, edge.target))]
    return {state: f"s{number}" for number, state in enumerate(dict.fromkeys([*states, *ends]), 1)}


def _mermaid_text(text: str) -> str:
    return "".join(each if each.isalnum() or each in " _-.,:()" else f"#{ord(each)};" for each in text)


def _dot_text(text: str) -> str:
    # In a label Graphviz reads backslashes and entities as well as quotes.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return '"' + "\\n".join(escaped.splitlines()) + '"'
