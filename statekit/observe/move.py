"""A move, as everything is told of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["blocked", "allowed", "observed", "overridden", "trigger"]


@dataclass(frozen=True, slots=True)
class Move:
    """One or more rows that made, or were refused, the same move in the same flush or statement.

    Attributes:
        kind: "blocked" (refused), "allowed" (legal, done), "observed" (illegal, let through because the mode is
            "observe"), "overridden" (illegal, let through on purpose), "trigger" (refused by a trigger, which has
            counted it itself: only a ledger is told, for what else it knows of it).
        subject: what identifies the guard; :func:`statekit.counts` sums by it.
        model: name of the mapped class, or of the table where no class is mapped.
        attribute: name of the guarded attribute, or of the column.
        source: the state that the rows are in; None for NULL and for a new row.
        target: the state they were to get; None for NULL.
        new: whether the rows are new ones, held to the initial states.
        identities: primary keys of the rows, so far as they are known: of a statement's rows, a few.
        number: how many rows.
        allowed: the states that the rows may move to (for new rows: start in).
        mode: what was done about an illegal move: "raise", "skip", "observe" or "override".
        operation: name of the innermost :func:`statekit.operation` around it, or None.
        condition: name of the condition that said no, where the table allows the move; else None.
        table: name of the table, with its schema if it has one.
        place: the line of the application's code that it came from, of moves that are not legal; None if not known.
        actor: who has overridden the guard, or None.
        reason: why the guard was overridden, or None.
        is_recorded: whether a trigger has written the ledger's entry for an overridden move.
    """

    kind: Kind
    subject: Hashable
    model: str
    attribute: str
    source: str | None
    target: str | None
    new: bool
    identities: tuple[tuple[Any, ...] | None, ...]
    number: int
    allowed: tuple[str | None, ...]
    mode: str
    operation: str | None
    condition: str | None = None
    table: str = ""
    place: str | None = None
    actor: str | None = None
    reason: str | None = None
    is_recorded: bool = False
