"""From what the user wrote to the facts of a table: the forms of chains, the star, the order of things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise, product
from typing import Any, NamedTuple, TypeAlias

from statekit.errors import Pair
from statekit.table import checks, notation
from statekit.table.messages import Place, short
from statekit.table.names import STAR, Mention, Names, State, common_enum, literal
from statekit.table.transition import Transition, check_differ

Chain: TypeAlias = str | tuple[State, State] | Mapping[Any, State | Iterable[State]] | Transition
"""A text in the arrow notation, a pair, a mapping of sources to targets, or a Transition."""

_FORMS = 'A chain is a text such as "A → B", a pair (source, target), a mapping {source: targets}, or a Transition'


class Edge(NamedTuple):
    """An edge as it was written; the source is None for a star, the details None for a bare one."""

    source: Mention | None
    target: Mention
    details: Transition | None = None


class Facts(NamedTuple):
    """All that a table is; the dictionaries keep the order, ``initial`` is None where it was not declared."""

    states: dict[str | None, None]
    transitions: dict[Pair, Transition]
    initial: dict[str | None, None] | None
    enum: type[Enum] | None


@dataclass
class Declaration:
    """What was written so far; ``settle`` makes the facts of it."""

    mentions: list[Mention] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    initial: list[Mention] | None = None
    states: list[Mention] | None = None

    def add(self, source: Mention | None, target: Mention, details: Transition | None = None) -> None:
        """Add an edge, and mention its ends."""
        self.mentions += [target] if source is None else [source, target]
        self.edges.append(Edge(source, target, details))

    def settle(self) -> Facts:
        """Resolve the names, expand the stars and check the whole.

        Raises:
            TableError: the declaration is wrong.
        """
        everything = [*self.mentions, *(self.initial or ()), *(self.states or ())]
        names = Names(common_enum(everything))
        # The first mention gives the order, and the place for messages.
        places: dict[str | None, Place] = {}
        for mention in self.mentions if self.states is None else self.states:
            places.setdefault(names.text(mention), mention.place)
        if self.states is not None:
            for mention in (*self.mentions, *(self.initial or ())):
                checks.check_listed(names.text(mention), places, mention.place)
        transitions = self._transitions(names)
        checks.check_some(transitions)
        initial: dict[str | None, None] | None = None
        if self.initial is not None:
            initial = {}
            for mention in self.initial:
                text = names.text(mention)
                checks.check_known_initial(text, places, mention.place)
                initial[text] = None
            checks.check_reachable(places, initial, transitions)
        return Facts(dict.fromkeys(places), transitions, initial, names.enum)

    def _transitions(self, names: Names) -> dict[Pair, Transition]:
        # A star means the states that are left by an edge without a star, so these come first.
        left = dict.fromkeys(names.text(e.source) for e in self.edges if e.source is not None)
        found: dict[Pair, tuple[Transition, Place]] = {}
        for edge in self.edges:
            target, place = names.text(edge.target), edge.target.place
            sources = [s for s in left if s != target] if edge.source is None else [names.text(edge.source)]
            if not sources:
                raise place.error(
                    "the star stands for no state",
                    "It means every other state that a transition without a star leaves: write such transitions too, "
                    "or name the sources.",
                )
            for source in sources:
                check_differ(source, target, place)
                new = Transition(source, target)
                if edge.details is not None:
                    new = replace(edge.details, source=source, target=target)
                if (source, target) in found:
                    old, old_place = found[source, target]
                    new = checks.combine(old, new, old_place, place)
                found[source, target] = new, place
        return {pair: transition for pair, (transition, _) in found.items()}


def declare(chains: Iterable[object], initial: object, states: object) -> Declaration:
    """Read the arguments of a table.

    Args:
        chains: the chains, in any of their forms.
        initial: a state, or several; None where it was not declared.
        states: several states; None where they were not listed.

    Raises:
        TableError: one of them is not in a form that is allowed.
    """
    declaration = Declaration()
    for number, chain in enumerate(chains, 1):
        _read_chain(chain, f"chain {number}", declaration)
    if initial is not None:
        one = isinstance(initial, str | Enum)
        declaration.initial = _read_states([initial] if one else initial, "initial=", "one state, or a tuple of states")
    if states is not None:
        declaration.states = _read_states(states, "states=", "several states, or an Enum class")
    return declaration


def _read_states(states: object, label: str, allowed: str) -> list[Mention]:
    if isinstance(states, str | bytes | Mapping) or not isinstance(states, Iterable):
        raise Place(label).error(
            f"{short(states)} is not a collection of states", f"Allowed is {allowed}: write a tuple of them."
        )
    listed = list(states)
    if not listed:
        raise Place(label).error("no state is named", f"Allowed is {allowed}: name one, or leave the argument out.")
    places = [Place(f"{label}, state {i}" if len(listed) > 1 else label) for i in range(1, len(listed) + 1)]
    return [Mention(literal(s, p), p) for s, p in zip(listed, places, strict=True)]


def _read_chain(chain: object, label: str, into: Declaration) -> None:
    if isinstance(chain, str) and not isinstance(chain, Enum):
        _read_text(chain, label, into)
    elif isinstance(chain, Transition):
        source = None if chain.source == STAR else Mention(chain.source, Place(f"{label}, source of {short(chain)}"))
        into.add(source, Mention(chain.target, Place(f"{label}, target of {short(chain)}")), chain)
    elif isinstance(chain, tuple) and len(chain) == 2:
        source_place, target_place = (Place(f"{label}, {end} of {short(chain)}") for end in ("source", "target"))
        into.add(_read_source(chain[0], source_place), _mention(chain[1], target_place))
    elif isinstance(chain, Mapping):
        _read_mapping(chain, label, into)
    else:
        raise Place(label).error(
            f"{short(chain)} is of type {type(chain).__name__}",
            f"{_FORMS}: write one of these, put * before a list of them, and merge tables with |.",
        )


def _read_text(text: str, label: str, into: Declaration) -> None:
    for sides in notation.read_text(text, label):
        into.mentions += [m for side in sides for m in side if m.state != STAR]
        for sources, targets in pairwise(sides):
            for source, target in product(sources, targets):
                into.edges.append(Edge(None if source.state == STAR else source, target))


def _read_mapping(mapping: Mapping[Any, Any], label: str, into: Declaration) -> None:
    for key, value in mapping.items():
        source = _read_source(key, Place(f"{label}, source {short(key)}"))
        if source is not None:
            # Also without targets: {"DONE": []} says that DONE is a state, and final.
            into.mentions.append(source)
        place = Place(f"{label}, targets of {short(key)}")
        one = value is None or isinstance(value, str | Enum)
        if not one and (isinstance(value, bytes | Mapping | type) or not isinstance(value, Iterable)):
            raise place.error(
                f"{short(value)} is of type {type(value).__name__}",
                "A mapping gives one target, or a tuple of targets, for each source: write one of these.",
            )
        for target in [value] if one else value:
            into.add(source, _mention(target, place))


def _read_source(value: object, place: Place) -> Mention | None:
    return None if type(value) is str and value == STAR else _mention(value, place)


def _mention(value: object, place: Place) -> Mention:
    return Mention(literal(value, place), place)
