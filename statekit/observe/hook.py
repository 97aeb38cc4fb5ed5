"""The one hook through which everything hears of moves: blocked, allowed, observed, overridden.

The guard reports here and knows nothing of who listens. Counts and operations are served first, and the log after them;
whoever else wants to know (a ledger, metrics) subscribes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from statekit.observe import counts, log
from statekit.observe.move import Move
from statekit.observe.operation import Operation, current_operation

Listener = Callable[[Sequence[Move]], None]
_listeners: list[Listener] = []


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have a function called with the moves of every flush and statement, in the thread and task that made them.

    It is called while the flush is under way: it must be quick, and must not use the session or the connection. What
    it raises is logged and goes no further.

    Args:
        listener: called with a sequence of :class:`Move`.

    Returns:
        A function that ends the subscription; calling it twice does no harm.
    """
    _listeners.append(listener)

    def unsubscribe() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return unsubscribe


def allowed_moves_are_wanted() -> bool:
    """Return whether anybody listens to allowed moves now, so that nothing is spent on collecting them otherwise."""
    return bool(_listeners) or current_operation() is not None


def publish(moves: Sequence[Move]) -> None:
    """Tell everyone about the moves of one flush or statement.

    Args:
        moves: each row stands in exactly one of them.
    """
    if not moves:
        return
    operation: Operation | None = current_operation()
    for move in moves:
        if move.kind == "blocked":
            counts.add(move.subject, (move.source, move.target), move.number)
        if operation is not None:
            operation.add(move.kind, (move.source, move.target), move.number, new=move.new)
    log.write([move for move in moves if move.kind != "allowed"])
    for listener in list(_listeners):
        try:
            listener(moves)
        except Exception:
            logging.getLogger("statekit").exception("A listener to statekit's moves failed: %r", listener)
