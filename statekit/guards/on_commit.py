"""``@on_commit``: what follows a move that came to stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute

from statekit.errors import StatekitError, TableError
from statekit.guards import commits
from statekit.guards.attach import guard_on, is_inherited
from statekit.guards.states import ANY
from statekit.observe.move import Move
from statekit.table.callbacks import Callback, accepts, is_async


@dataclass(frozen=True, slots=True)
class CommittedMove:
    """A move whose transaction has committed.

    Attributes:
        model: name of the mapped class as text, or of the table where no class is mapped; where classes inherit the
            column, the name of the one that has it.
        attribute: name of the guarded attribute.
        identity: primary key of the row; None where a statement wrote more rows than are looked at one by one.
        source: the state that was left, as the database stores it; None for NULL.
        target: the state that was entered; None for NULL.
        operation: name of the innermost :func:`statekit.operation` around it, or None.
        kind: "allowed", or "observed" (illegal, let through because the mode is "observe"), or "overridden".
        number: how many rows: 1, unless ``identity`` is not known.
    """

    model: str
    attribute: str
    identity: tuple[Any, ...] | None
    source: str | None
    target: str | None
    operation: str | None
    kind: Literal["allowed", "observed", "overridden"]
    number: int = 1


_F = TypeVar("_F", bound=Callable[[CommittedMove], object])


def on_commit(
    attribute: QueryableAttribute[Any] | sa.ColumnElement[Any], *, source: Any = ANY, target: Any = ANY
) -> Callable[[_F], _F]:
    """Call a function for each row that moved, once the transaction has really committed.

    It is not called for what was rolled back, savepoints included, nor for new rows, nor for what raw SQL moves. A
    session has given its connection back by then and may be used again. What the function raises is logged: the other
    functions are called all the same, and the commit stands.

    Args:
        attribute: a guarded attribute, such as ``Message.status``, or a guarded column of a table.
        source: only for rows that left this state, or one of a tuple of states; left out: any.
        target: only for rows that entered this state, or one of a tuple of states; left out: any.

    Returns:
        A decorator for a function that takes a :class:`CommittedMove`; it gives the function back unchanged.

    Raises:
        TableError: the attribute has no guard, its table has no such state, or what is decorated cannot be called or is
            an ``async def``.

    >>> from sqlalchemy import Integer, String
    >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
    >>> from statekit import Guarded, TransitionTable
    >>> class Base(DeclarativeBase): pass
    >>> class Order(Guarded, Base):
    ...     __tablename__ = "order"
    ...     id = mapped_column(Integer, primary_key=True)
    ...     state = mapped_column(String, default="OPEN")
    ...     __transitions__ = {"state": TransitionTable("OPEN → PAID → SENT", initial="OPEN")}
    >>> @on_commit(Order.state, target="PAID")
    ... def thank(move: CommittedMove) -> None:
    ...     print(f"{move.model} {move.identity} is {move.target}")
    """
    guard = guard_on(attribute)
    if guard is None:
        raise TableError(
            f"on_commit({getattr(attribute, '__name__', attribute)}): that has no guard. Name an attribute that has "
            "one, after it was declared, such as @on_commit(Message.status)."
        )
    where = f"on_commit({guard.model}.{guard.attribute})"
    mapper = getattr(attribute, "parent", None)
    if mapper is not None and is_inherited(mapper, guard.column):
        raise TableError(
            f"on_commit({attribute}): the column belongs to {guard.model}, and the rows of all its classes are told. "
            f"Write on_commit({guard.model}.{guard.attribute}, …), and look at the row if it matters which one it is."
        )
    try:
        sources = guard.states.named(source, f"{where}, source=")
        targets = guard.states.named(target, f"{where}, target=")
    except StatekitError as error:
        raise TableError(str(error)) from None

    def register(function: _F) -> _F:
        if is_async(function):
            raise TableError(
                f"{where}: {Callback(function).name} is an async def, and a commit waits for nothing. Decorate a plain "
                "function; it may begin a task, with asyncio.get_running_loop().create_task(…)."
            )
        if not accepts(function, alone=True):
            raise TableError(
                f"{where}: {_name_of(function)} cannot be called with the move alone. Decorate a function that takes "
                "one CommittedMove."
            )
        commits.register(guard, partial(_calls, function, sources, targets))
        return function

    return register


def _name_of(function: object) -> str:
    return Callback(function).name if callable(function) else repr(function)


def _calls(
    function: Callable[[CommittedMove], object],
    sources: frozenset[str | None] | None,
    targets: frozenset[str | None] | None,
    move: Move,
) -> Iterator[commits.Told]:
    if (sources is not None and move.source not in sources) or (targets is not None and move.target not in targets):
        return
    known = [identity for identity in move.identities if identity is not None]
    for identity in known:
        yield _Call(function, _committed(move, identity, 1))
    if move.number > len(known):
        yield _Call(function, _committed(move, None, move.number - len(known)))


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[CommittedMove], object]
    move: CommittedMove

    def __call__(self) -> object:
        return self.function(self.move)

    def __str__(self) -> str:
        return f"on_commit(): {_name_of(self.function)}({self.move})"


def _committed(move: Move, identity: tuple[Any, ...] | None, number: int) -> CommittedMove:
    kind: Any = move.kind
    return CommittedMove(move.model, move.attribute, identity, move.source, move.target, move.operation, kind, number)
