"""Log lines about moves: one for each row that was blocked or observed, unless equal ones come in a flood.

The logger is ``statekit``; each record carries its data in ``extra`` under names that start with ``statekit_``.
Lines are equal if kind, model, attribute, move and operation are, and for overridden moves reason and actor: of those,
:data:`LINES` are written in any :data:`WINDOW` seconds. The rest is counted, and the number that was left out is
written with the next line of any kind after the window, at the end of the operation, or when the interpreter exits,
whichever comes first.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from statekit.errors import show_state, show_states
from statekit.observe.move import Move

logger = logging.getLogger("statekit")

LINES = 10
"""How many equal lines are written in a window."""
WINDOW = 60.0
"""How long a window is, in seconds."""

_VERBS = {"blocked": "Blocked", "observed": "Observed", "overridden": "Overrode"}
_Key = tuple[str, str, str, str | None, str | None, bool, str | None, str | None, str | None, str | None]


@dataclass(slots=True)
class _Window:
    started: float
    written: int = 0
    left_out: int = 0


_lock = threading.Lock()
_windows: dict[_Key, _Window] = {}


def write(moves: Sequence[Move]) -> None:
    """Write a line for each row of the moves, as far as the limit on equal lines allows.

    Args:
        moves: blocked, observed or overridden ones.
    """
    for ended, number in _ended_windows():
        _write_left_out(ended, number)
    for move in moves:
        key: _Key = (
            move.kind, move.model, move.attribute, move.source, move.target, move.new, move.condition, move.reason,
            move.actor, move.operation
        )  # fmt: skip
        lines = _take(key, move.number)
        for identity in itertools.islice(itertools.chain(move.identities, itertools.repeat(None)), lines):
            _write_row(move, identity)


def write_operation(name: str, summary: str, *, failed: bool, quiet: bool) -> None:
    """Write the summary line at the end of an operation, after what its limit on equal lines left out.

    Args:
        name: the operation's name.
        summary: its counts, as text.
        failed: whether the block was left by an exception.
        quiet: whether nothing was refused, observed or overridden, so that the line is only information.
    """
    write_left_out(operation=name)
    verb = "Operation failed" if failed else "Operation complete"
    logger.log(
        logging.INFO if quiet else logging.WARNING,
        "[SELF-HEAL] %s: %s",
        verb,
        summary,
        extra={"statekit_kind": "operation", "statekit_operation": name, "statekit_failed": failed},
    )


def write_left_out(operation: str | None = None) -> None:
    """Write how many equal lines were left out so far, and begin anew.

    Args:
        operation: only those of the operation with this name; None for all.
    """
    with _lock:
        left_out = [
            (key, window.left_out)
            for key, window in _windows.items()
            if window.left_out and (operation is None or key[-1] == operation)
        ]
        for key, _ in left_out:
            _windows[key].left_out = 0
    for key, number in left_out:
        _write_left_out(key, number)


def _ended_windows() -> list[tuple[_Key, int]]:
    """Close the windows whose time is over, and return how many lines were left out in them."""
    now = time.monotonic()
    with _lock:
        over = [(key, window.left_out) for key, window in _windows.items() if now - window.started >= WINDOW]
        for key, _ in over:
            del _windows[key]
    return [(key, number) for key, number in over if number]


def _take(key: _Key, wanted: int) -> int:
    """Return how many lines may be written now; the others are left out."""
    with _lock:
        window = _windows.get(key)
        if window is None:
            window = _windows[key] = _Window(time.monotonic())
        lines = min(wanted, LINES - window.written)
        window.written += lines
        window.left_out += wanted - lines
    return lines


def _write_row(move: Move, identity: tuple[Any, ...] | None) -> None:
    allowed = show_states(move.allowed) or "nothing"
    row = move.model if identity is None else f"{move.model}({', '.join(map(repr, identity))})"
    rule = f"{'new rows may start in' if move.new else f'allowed from {show_state(move.source)}'}: {allowed}"
    if move.condition is not None:
        rule = f"the condition {move.condition} says no"
    logger.warning(
        "[SELF-HEAL] %s invalid transition: %s on %s.%s (%s; mode: %s%s%s%s)",
        _VERBS[move.kind],
        _step(move.source, move.target, new=move.new),
        row,
        move.attribute,
        rule,
        move.mode,
        f"; operation: {move.operation}" if move.operation else "",
        f"; reason: {move.reason}" if move.reason else "",
        f"; actor: {move.actor}" if move.actor else "",
        extra={
            "statekit_kind": move.kind,
            "statekit_model": move.model,
            "statekit_attribute": move.attribute,
            "statekit_identity": identity,
            "statekit_source": move.source,
            "statekit_target": move.target,
            "statekit_new": move.new,
            "statekit_allowed": move.allowed,
            "statekit_condition": move.condition,
            "statekit_mode": move.mode,
            "statekit_operation": move.operation,
            "statekit_place": move.place,
            "statekit_reason": move.reason,
            "statekit_actor": move.actor,
        },
    )


def _step(source: str | None, target: str | None, *, new: bool) -> str:
    return f"a new row in {show_state(target)}" if new else f"{show_state(source)} → {show_state(target)}"


def _write_left_out(key: _Key, number: int) -> None:
    kind, model, attribute, source, target, new, condition, reason, actor, operation = key
    logger.warning(
        "[SELF-HEAL] %s invalid transition: %s on %s.%s: %s more equal lines were left out%s",
        _VERBS[kind],
        _step(source, target, new=new),
        model,
        attribute,
        f"{number:,}",
        f" (operation: {operation})" if operation else "",
        extra={
            "statekit_kind": kind,
            "statekit_model": model,
            "statekit_attribute": attribute,
            "statekit_source": source,
            "statekit_target": target,
            "statekit_new": new,
            "statekit_condition": condition,
            "statekit_operation": operation,
            "statekit_reason": reason,
            "statekit_actor": actor,
            "statekit_left_out": number,
        },
    )


atexit.register(write_left_out)
if hasattr(os, "register_at_fork"):  # what the parent has left out is the parent's to tell
    os.register_at_fork(after_in_child=_windows.clear)
