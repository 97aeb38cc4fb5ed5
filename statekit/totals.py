"""The blocked moves, summed over whoever counts them: today this process."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from statekit.errors import Pair, StatekitError
from statekit.observe import counts as process

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import QueryableAttribute


def counts(attribute: QueryableAttribute[Any] | sa.ColumnElement[Any] | None = None) -> Counter[Pair]:
    """Return how often each illegal move was blocked in this process.

    A blocked move is one refused row named in one error, or skipped once; a retry is a new attempt. It is counted when
    it happens, and a rollback does not take it back.

    Args:
        attribute: a guarded attribute or column, such as ``Message.status``; None for the sum over all guards.

    Returns:
        Number of rows by (source, target), each the text that the database stores: None for NULL, and a source of None
        for a new row. It is a copy: changing it changes nothing else.

    Raises:
        StatekitError: the attribute has no guard.
    """
    if attribute is None:
        return process.total()
    from statekit.guards.attach import guard_on

    if isinstance(attribute, type):
        raise StatekitError(f"An attribute is asked for, such as {attribute.__name__}.status, and that is a class.")

    guard = guard_on(attribute)
    if guard is None:
        raise StatekitError(f"{attribute} has no guard, so that nothing was counted for it.")
    return process.total(guard.subject)
