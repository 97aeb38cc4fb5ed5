"""``with assert_blocked(Message.status, source="PROMOTED"):`` something inside must be refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute

from statekit.errors import IllegalTransition, Pair, StatekitError, TransitionRefused, show_pairs, show_states
from statekit.guards.attach import guard_on
from statekit.guards.states import ANY
from statekit.observe.hook import subscribe
from statekit.observe.move import Move
from statekit.table.messages import suggestion
from statekit.table.names import STAR


class assert_blocked:
    """Assert that a move of a guarded attribute is blocked inside of a block.

    It does not matter who refuses it: a flush, a statement, an event, or the database's trigger; nor in which mode. The
    error for it ends the block, as in ``pytest.raises``; any other error goes through. It serves async code as well, as
    a plain ``with``.

    Args:
        attribute: a guarded attribute, such as ``Message.status``, or a guarded column of a table.
        source: the state that is left, or a tuple of states, as the attribute takes it or as text; left out: any. None
            for NULL and for new rows.
        target: the state that was to be entered, or a tuple of states; left out: any. It need not be one of the table.
        times: how many rows; left out: at least one.

    Attributes:
        pairs (Counter): the rows that were blocked, of this attribute, by (source, target) as text.
        error (IllegalTransition | TransitionRefused | None): what ended the block.

    Raises:
        AssertionError: at the end of the block, if it was not blocked, or not as often. It says what was, and what
            moved.
        StatekitError: the attribute has no guard, or a tuple of states is empty.

    >>> from sqlalchemy import String
    >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
    >>> from statekit import Guarded, Transition, TransitionTable
    >>> class Base(DeclarativeBase): pass
    >>> class Order(Guarded, Base):
    ...     __tablename__ = "order"
    ...     id = mapped_column(String, primary_key=True)
    ...     state = mapped_column(String, default="OPEN")
    ...     __transitions__ = {"state": TransitionTable("OPEN → PAID", Transition("PAID", "SENT", event="send"))}
    >>> with assert_blocked(Order.state, target="SENT") as blocked:
    ...     Order(id="a", state="OPEN").send()
    >>> blocked.pairs
    Counter({('OPEN', 'SENT'): 1})
    """

    def __init__(
        self,
        attribute: QueryableAttribute[Any] | sa.ColumnElement[Any],
        source: Any = ANY,
        target: Any = ANY,
        *,
        times: int | None = None,
    ) -> None:
        guard = guard_on(attribute)
        if guard is None:
            raise StatekitError(
                f"assert_blocked({attribute}): that has no guard. Name a guarded attribute, such as Message.status."
            )
        self._guard = guard
        self._name = f"{guard.model}.{guard.attribute}"
        self._sources = guard.states.named(source, f"assert_blocked({self._name}), source=", unknown=True)
        self._targets = guard.states.named(target, f"assert_blocked({self._name}), target=", unknown=True)
        self._times = times
        self._models = {guard.model}
        self._others: Counter[Pair] = Counter()
        self._unsubscribe: Callable[[], None] = lambda: None
        self.pairs: Counter[Pair] = Counter()
        self.error: IllegalTransition | TransitionRefused | None = None

    def __enter__(self) -> Self:
        self._unsubscribe = subscribe(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        self._unsubscribe()
        is_meant = isinstance(error, IllegalTransition | TransitionRefused) and self._read(error)
        if error is not None and self.error is None:
            return False
        matching = sum(number for pair, number in self.pairs.items() if self._is_meant(pair))
        if matching == self._times or (self._times is None and matching):
            return is_meant  # an error for another move is nobody's wish, even if enough was blocked before it
        raise AssertionError(self._failure(matching)) from error

    def _hear(self, moves: Sequence[Move]) -> None:
        for move in moves:
            if move.subject == self._guard.subject:
                self._models.add(move.model)
                into = self.pairs if move.kind == "blocked" else self._others
                into[move.source, move.target] += move.number

    def _read(self, error: IllegalTransition | TransitionRefused) -> bool:
        """Take an error in, and return whether it is one for a move that is to be blocked."""
        is_meant = False
        for each in (error, *error.also):
            if each.attribute != self._guard.attribute or each.model not in self._models:
                continue
            self.error = error
            if each.counted_in_database:  # a trigger's refusal is told by its error alone
                self.pairs.update(each.pairs)
            is_meant = is_meant or any(map(self._is_meant, each.pairs))
        return is_meant

    def _is_meant(self, pair: Pair) -> bool:
        source, target = pair
        sources, targets = self._sources, self._targets
        if target != STAR:
            return (sources is None or source in sources) and (targets is None or target in targets)
        # What SQLite's trigger says where it has no message for the move: one of the ends is no state of the table, or
        # the table is so large that only the source is named.
        legal, known = self._guard.legal, self._guard.states.values
        if source == STAR:
            return sources is None or targets is None or not (sources | targets) <= known.keys()
        return (sources is None or source in sources) and (
            targets is None or any((source, each) not in legal for each in targets)
        )

    def _failure(self, matching: int) -> str:
        ends = [
            "any state" if states is None else show_states(sorted(states, key=str))
            for states in (self._sources, self._targets)
        ]
        wanted = "to be blocked" if self._times is None else f"to be blocked {self._times} times"
        found = f", and {matching} were" if self._times is not None else ""
        blocked = show_pairs(self.pairs) or "nothing"
        moved = f"; moved: {show_pairs(self._others)}" if self._others else ""
        text = f"{self._name}: expected {' → '.join(ends)} {wanted}{found}. Blocked: {blocked}{moved}."
        known = self._guard.states.values
        for state in sorted({*(self._sources or ()), *(self._targets or ())} - known.keys(), key=str):
            if state is not None:
                text += f" {state!r} is no state of the table.{suggestion(state, known)}"
        if not self.pairs and not self._others:
            text += " Nothing was written: an assignment is judged by the flush, which belongs into the block."
        return text
