"""The one hook through which everything hears of moves: blocked, allowed, observed, overridden.

The guard reports here and knows nothing of who listens. Counts and operations are served first, and the log after them;
whoever else wants to know (metrics) subscribes, and a ledger keeps what is not plainly legal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from statekit.errors import StatekitError
from statekit.observe import counts, log
from statekit.observe.move import Move
from statekit.observe.operation import Operation, current_operation

Listener = Callable[[Sequence[Move]], None]
Keeper = Callable[[Sequence[Move], Any], None]

_listeners: list[Listener] = []
_first_keepers: list[Keeper] = []
_keepers: list[Keeper] = []


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have a function called with the moves of every flush and statement, in the thread and task that made them.

    It is called while the flush is under way: it must be quick, and must not use the session or the connection. What
    it raises is logged and goes no further.

    Args:
        listener: called with a sequence of :class:`Move`.

    Returns:
        A function that ends the subscription; calling it twice does no harm.
    """
    return _added(_listeners, listener)


def keep(keeper: Keeper, *, first: bool = False) -> Callable[[], None]:
    """Have a function called with what is not plainly legal, and where it is written, to keep it there.

    Legal moves are not among them, so that nothing is spent on collecting those.

    Args:
        keeper: called with a sequence of :class:`Move`, and the connection or engine that they belong to, or None where
            that is not known. What it raises is logged.
        first: whether it is called before all others and a StatekitError of its goes on to the caller, because it may
            refuse what they are to be told.

    Returns:
        A function that ends it; calling it twice does no harm.
    """
    return _added(_first_keepers if first else _keepers, keeper)


def _added(listeners: list[Any], listener: Any) -> Callable[[], None]:
    listeners.append(listener)

    def remove() -> None:
        if listener in listeners:
            listeners.remove(listener)

    return remove


def allowed_moves_are_wanted() -> bool:
    """Return whether anybody listens to allowed moves now, so that nothing is spent on collecting them otherwise."""
    return bool(_listeners) or current_operation() is not None


def publish(moves: Sequence[Move], on: Any = None) -> None:
    """Tell everyone about the moves of one flush or statement.

    Args:
        moves: each row stands in exactly one of them.
        on: the connection that they are written on, or were to be; an engine where there is none yet.

    Raises:
        StatekitError: who has to keep a move that was let through on purpose cannot do so.
    """
    if not moves:
        return
    illegal = [move for move in moves if move.kind != "allowed"]
    for keeper in list(_first_keepers) if illegal else ():
        _tell(keeper, illegal, on, may_refuse=True)
    operation: Operation | None = current_operation()
    for move in moves:
        if move.kind == "blocked":
            counts.add(move.subject, (move.source, move.target), move.number)
        if operation is not None:
            operation.add(move.kind, (move.source, move.target), move.number, new=move.new)
    log.write(illegal)
    for keeper in list(_keepers) if illegal else ():
        _tell(keeper, illegal, on)
    for listener in list(_listeners):
        _tell(listener, moves)


def tell_keepers(moves: Sequence[Move], on: Any) -> None:
    """Tell those only who keep moves; see :func:`keep`."""
    for keeper in (*_first_keepers, *_keepers) if moves else ():
        _tell(keeper, moves, on)


def _tell(listener: Callable[..., None], *args: Any, may_refuse: bool = False) -> None:
    try:
        listener(*args)
    except Exception as error:
        if may_refuse and isinstance(error, StatekitError):
            raise
        logging.getLogger("statekit").exception("A listener to statekit's moves failed: %r", listener)
