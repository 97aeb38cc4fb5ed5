"""What a column's declaration says, for everything that reads it there and needs no mapper: triggers and migrations.

A guard keeps itself in ``Column.info``; nothing here knows how it does its work.
"""

from __future__ import annotations

from typing import Any, Protocol

import sqlalchemy as sa

from statekit.errors import Pair

INFO_KEY = "statekit"
"""The key in ``Column.info`` under which a column keeps its guard; ``Table.to_metadata()`` copies it."""


class Declared(Protocol):
    """What is read of a guard.

    Attributes:
        column: the guarded column.
        moves: the legal moves, as pairs of the text that the database stores, in declared order.
        initial: the states in which a new row may start.
        stored_states: every state of the table, in declared order.
        on_illegal: what an illegal move leads to: "raise", "skip" or "observe".
        trigger: whether a trigger belongs to it: True and None if so, False if not.
        history: whether each move of a row is written down.
        override_role: the database's role whose members may override the trigger; None for nobody.
    """

    @property
    def column(self) -> sa.Column[Any]: ...
    @property
    def moves(self) -> tuple[Pair, ...]: ...
    @property
    def initial(self) -> dict[str | None, None]: ...
    @property
    def stored_states(self) -> tuple[str | None, ...]: ...
    @property
    def on_illegal(self) -> Any: ...
    @property
    def trigger(self) -> bool | None: ...
    @property
    def history(self) -> bool: ...
    @property
    def override_role(self) -> str | None: ...


def declared_on(column: Any) -> Declared | None:
    """Return the guard that a column itself carries, or None.

    A copy of a column in a table of another name (for staging, for a history) is not the guarded one.
    """
    guard: Any = getattr(column, "info", {}).get(INFO_KEY)
    if guard is None or not hasattr(guard, "moves"):
        return None
    name = getattr(getattr(column, "table", None), "name", guard.column.table.name)
    return guard if name == guard.column.table.name else None
