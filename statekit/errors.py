"""Every error that statekit raises; each carries what it says as data, so that no program has to read its text.

This module imports nothing of SQLAlchemy, because :mod:`statekit.table` stands on it. The one error that is also an
error of SQLAlchemy, :class:`~statekit.stale.ConcurrentTransition`, is loaded when it is first asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statekit.stale import ConcurrentTransition as ConcurrentTransition

Pair = tuple[str | None, str | None]
"""A move, as ``(source, target)``: each the text that the database stores, None for NULL, and a source of None for a
new row."""


if not TYPE_CHECKING:  # a type checker would take any name for one that this finds

    def __getattr__(name: str) -> Any:
        if name == "ConcurrentTransition":
            from statekit.stale import ConcurrentTransition

            return ConcurrentTransition
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def show_state(state: str | None) -> str:
    """Return a state as messages show it: its text, NULL for None, and quoted where it would break the line."""
    if state is None:
        return "NULL"
    return state if state.isprintable() else repr(state)


def show_states(states: Iterable[str | None]) -> str:
    """Return states as messages list them.

    >>> show_states(["READY", None])
    'READY, NULL'
    """
    return ", ".join(map(show_state, states))


def show_pairs(pairs: Mapping[Pair, int]) -> str:
    """Return counted moves on one line, the most frequent first.

    >>> show_pairs({("PROMOTED", "SPAM_REVIEW"): 5, (None, "COMPLETED"): 1})
    'PROMOTED → SPAM_REVIEW: 5, NULL → COMPLETED: 1'
    """
    ordered = sorted(pairs.items(), key=lambda item: -item[1])
    return ", ".join(f"{show_state(s)} → {show_state(t)}: {n}" for (s, t), n in ordered)


class StatekitError(Exception):
    """The base of every error that statekit raises."""


class TableError(StatekitError, ValueError):
    """A declaration is wrong: a transition table, or a guard that does not fit its column.

    It is raised where the declaration is made, or when SQLAlchemy configures the mapper, never at a flush.
    """


class _RefusedRows(StatekitError):
    """What the errors for refused rows have in common; see the two below."""

    counted_in_database = False

    def __init__(
        self,
        *,
        model: str,
        attribute: str,
        identity: tuple[Any, ...] | None,
        source: str | None,
        target: str | None,
        allowed: Iterable[str | None],
        pairs: Mapping[Pair, int] | None = None,
        identities: Iterable[tuple[Any, ...]] = (),
        new: bool = False,
        hint: str = "",
        key_names: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.attribute = attribute
        self.identity = identity
        self.source = source
        self.target = target
        self.allowed = tuple(allowed)
        self.pairs: Counter[Pair] = Counter(pairs if pairs is not None else {(source, target): 1})
        self.identities = tuple(identities) or ((identity,) if identity is not None else ())
        self.new = new
        self.hint = hint
        self.key_names = key_names
        self.also: tuple[IllegalTransition | TransitionRefused, ...] = ()
        super().__init__(self._text())

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by calling the class with self.args; ours takes keywords only.
        return _rebuild, (type(self), self.__dict__.copy())

    def _reason(self) -> str:
        raise NotImplementedError

    def _text(self) -> str:
        text = f"{self._row()}.{self.attribute}: {self._reason()}"
        total = sum(self.pairs.values())
        if total > 1:
            text += f" {total:,} rows were refused ({show_pairs(self.pairs)})."
        return f"{text} {self.hint}" if self.hint else text

    def _row(self) -> str:
        if self.identity is None:
            return self.model
        if len(self.key_names) == len(self.identity):
            named = zip(self.key_names, self.identity, strict=True)
            return f"{self.model}({', '.join(f'{name}={value!r}' for name, value in named)})"
        return f"{self.model}({', '.join(map(repr, self.identity))})"


class IllegalTransition(_RefusedRows):
    """A write would make a move that the transition table does not allow.

    ``str()`` says which row, which move, what is allowed, and how many other rows were refused with it.

    Attributes:
        model (str): name of the mapped class, or of the table where no class is mapped to it.
        attribute (str): name of the attribute, or of the column where no class is mapped.
        identity (tuple | None): primary key of the first refused row, as ``inspect(obj).identity``; None where the row
            has none yet.
        source (str | None): the state that the first refused row is in; None for NULL and for a new row.
        target (str | None): the state it was to get; None for NULL.
        allowed (tuple[str | None, ...]): the states that the row may move to (for a new row: start in).
        pairs (Counter[tuple[str | None, str | None]]): number of refused rows for each (source, target), all of the
            flush or statement together.
        identities (tuple[tuple, ...]): primary keys of the refused rows, so far as they are known.
        new (bool): whether the refused rows are new ones, refused by the initial states.
        also (tuple): errors for what was refused in the same flush on other models, on other
            attributes, or as a new row.
        counted_in_database (bool): whether a trigger in the database refused it and counted it there, so that
            statekit has not.
    """

    def _reason(self) -> str:
        allowed = show_states(self.allowed) or "nothing"
        target = show_state(self.target)
        if self.new:
            return f"a new row cannot start in {target}; allowed: {allowed}."
        source = show_state(self.source)
        if self.source == self.target:  # an event was called once more
            return f"is in {source} already; allowed from {source}: {allowed}."
        return f"cannot move from {source} to {target}; allowed from {source}: {allowed}."


class TransitionRefused(_RefusedRows):
    """A condition of a transition said no; the transition table itself allows the move.

    Attributes:
        condition (str): name of the condition that said no for the first refused row.
        asked (bool): whether it was asked; one that needs an event's arguments cannot be, where the state was assigned.
        model, attribute, identity, source, target, allowed, pairs, identities, also: as those of
            :class:`IllegalTransition`; ``new`` is always false.
    """

    def __init__(self, *, condition: str, asked: bool = True, **about: Any) -> None:
        self.condition = condition
        self.asked = asked
        super().__init__(**about)

    def _reason(self) -> str:
        move = f"{show_state(self.source)} to {show_state(self.target)}"
        if not self.asked:
            return f"cannot move from {move} by an assignment: the condition {self.condition} needs arguments."
        return f"cannot move from {move} now: the condition {self.condition} says no."


def _rebuild(cls: type[_RefusedRows], data: dict[str, Any]) -> _RefusedRows:
    error = cls.__new__(cls)
    error.__dict__.update(data)
    Exception.__init__(error, error._text())
    return error
