"""What names a state: text, an Enum member or None, and which of them mean the same."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from enum import Enum
from typing import NamedTuple, TypeAlias

from statekit.table.messages import Place, listing, short, suggestion

State: TypeAlias = str | Enum | None
"""A state as users write it: its text, an Enum member (its text is its name), or None for the SQL NULL."""

STAR = "*"


class Mention(NamedTuple):
    """A state as it was written, and where."""

    state: State
    place: Place


def literal(value: object, place: Place) -> State:
    """Return a state that was written as a value of its own, not inside a text with arrows.

    Args:
        value: what was passed.
        place: where, for the error.

    Returns:
        The same state; text of a subclass of str as a plain str.

    Raises:
        TableError: it is no str, Enum member or None, or its text cannot be the name of a state.
    """
    if value is None:
        return None
    if isinstance(value, Enum):
        if value.name not in type(value).__members__:
            raise place.error(
                f"{short(value)} is a combination without a name of its own", "Give the Flag a name for it."
            )
        _check_text(value.name, place)
        return value
    if isinstance(value, str):
        _check_text(value, place)
        return plain_str(value)
    kind = "an Enum class" if isinstance(value, type) and issubclass(value, Enum) else f"of type {type(value).__name__}"
    raise place.error(
        f"{short(value)} is {kind}, not a state",
        "A state is a str, an Enum member, or None for NULL: write one of these.",
    )


def plain_str(text: str) -> str:
    """Return text of a subclass of str, such as SQLAlchemy's quoted_name, as a str: its repr must evaluate."""
    return str.__str__(text)


def as_text(state: State) -> str | None:
    """Return the text of a state: the name of an Enum member, everything else as it is."""
    return state.name if isinstance(state, Enum) else state


def _check_text(text: str, place: Place) -> None:
    if not text.strip():
        raise place.error(f"{text!r} is an empty name", "A state needs a name that is not blank; for NULL write None.")
    if text != text.strip():
        raise place.error(
            f"{text!r} begins or ends with white space",
            f"Outside of texts with arrows a name is taken literally, without trimming: write {text.strip()!r}.",
        )
    if text == STAR:
        raise place.error(
            "'*' is not the name of a state",
            "'*' stands for every other state that is not final, and is allowed as a source only: name the state.",
        )


def common_enum(mentions: Iterable[Mention]) -> type[Enum] | None:
    """Return the one Enum class that states were written with, None if there was only text.

    Raises:
        TableError: there are two classes.
    """
    first: Mention | None = None
    for mention in mentions:
        if not isinstance(mention.state, Enum):
            continue
        if first is None:
            first = mention
        elif type(mention.state) is not type(first.state):
            raise mention.place.error(
                f"{mention.state} is a member of another Enum than {first.state} ({first.place.describe()})",
                f"A table may use one Enum class: write a member of {type(first.state).__name__}, or text throughout.",
            )
    return None if first is None else type(first.state)  # type: ignore[return-value]


class Names:
    """The ways to write each state, given the Enum class of the table.

    Args:
        enum: the class, or None where states are text only.

    Raises:
        TableError: the members of the class have no hash.
    """

    def __init__(self, enum: type[Enum] | None) -> None:
        self.enum = enum
        self._meanings: dict[State, str] = {}
        self._clashes: set[State] = set()
        if enum is None:
            return
        if getattr(enum, "__hash__", None) is None:
            raise Place(enum.__name__).error(
                "its members have no hash", "States must be hashable: freeze the dataclass that the Enum mixes in."
            )
        members = enum.__members__
        by_name: Iterable[tuple[State, str]] = ((name, member.name) for name, member in members.items())
        by_value = ((m.value, m.name) for m in members.values() if isinstance(m.value, str))
        by_member = ((m, m.name) for m in members.values())
        # One dictionary for all three, because a member of a str Enum equals its value: what can be mixed up
        # there must be known as a clash.
        for spelling, name in itertools.chain(by_name, by_value, by_member):
            if self._meanings.setdefault(spelling, name) != name:
                self._clashes.add(spelling)

    def text(self, mention: Mention) -> str | None:
        """Return the text of a state: a member's name, a text by name first and then by value.

        Raises:
            TableError: the text is ambiguous, or neither a name nor a value of the Enum.
        """
        state = mention.state
        if isinstance(state, Enum) or self.enum is None or state is None:
            return as_text(state)
        enum = self.enum.__name__
        if state in self._clashes:
            named = self.enum.__members__[state].name
            valued = next(m.name for m in self.enum.__members__.values() if m.value == state and m.name != named)
            raise mention.place.error(
                f"{state!r} is the name of {enum}.{named} and the value of {enum}.{valued}",
                f"Write the member itself, in a pair or a mapping: {enum}.{named} or {enum}.{valued}.",
            )
        if state not in self._meanings:
            raise mention.place.error(
                f"{state!r} is no member of {enum}",
                f"Write the name of a member, or its value; {enum} has {listing(dict.fromkeys(self._names()))}."
                + suggestion(state, (s for s in self._meanings if type(s) is str)),
            )
        return self._meanings[state]

    def spellings(self, states: Collection[str | None]) -> dict[State, str | None]:
        """Return every unambiguous way to write one of the states, with the state's text.

        What is ambiguous stays out: X.A of ``class X(StrEnum): A = "B"; B = "A"`` equals the text "B".
        """
        found: dict[State, str | None] = {s: s for s in states if s not in self._clashes}
        for spelling, name in self._meanings.items():
            if name in states and spelling not in self._clashes:
                found[spelling] = name
        return found

    def _names(self) -> Iterable[str]:
        return (m.name for m in self.enum.__members__.values()) if self.enum is not None else ()
