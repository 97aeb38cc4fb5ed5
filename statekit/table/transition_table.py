"""The transition table: which states there are, and which moves between them are allowed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Self

from statekit.errors import Pair
from statekit.table import diagram, notation
from statekit.table.declaration import Chain, Declaration, Facts, declare
from statekit.table.messages import Place, listing, quote, suggestion
from statekit.table.names import Mention, Names, State, as_text
from statekit.table.transition import Transition

if TYPE_CHECKING:
    from transitions import Machine


class TransitionTable:
    """The states of a column and the moves between them that are allowed; a value that never changes.

    States are text inside; an Enum member stands for its name, None for the SQL NULL. Everything that returns several
    states or pairs returns an ordered set, which equals a plain set of the same.

    Args:
        chains: what is allowed: a text such as ``"A → B | C"``, a pair, a mapping of sources to targets, or a
            :class:`Transition`.
        initial: the states that a new row may start in, one or several; when it is left out, all of them.
        states: the closed list of states, or an Enum class; when it is left out, those that the chains mention.

    Raises:
        TableError: the declaration is wrong; the message says where, and how to mend it.

    >>> table = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")
    >>> table.allows("PROMOTED", "SPAM_REVIEW")
    False
    >>> table
    TransitionTable('READY → SPAM_REVIEW | PROMOTED', 'PROMOTED → COMPLETED', initial='READY')
    """

    __slots__ = ("_allowed", "_enum", "_initial", "_names", "_sources", "_states", "_targets", "_transitions")

    _states: dict[str | None, None]
    _transitions: dict[Pair, Transition]
    _initial: dict[str | None, None] | None
    _enum: type[Enum] | None
    _names: dict[State, str | None]
    _targets: dict[str | None, dict[str | None, None]]
    _sources: dict[str | None, dict[str | None, None]]
    _allowed: dict[State, frozenset[State]]

    def __init__(
        self, *chains: Chain, initial: State | Iterable[State] = None, states: Iterable[State] | None = None
    ) -> None:
        self._fill(declare(chains, initial, states).settle())

    def _fill(self, facts: Facts) -> None:
        targets: dict[str | None, dict[str | None, None]] = {s: {} for s in facts.states}
        sources: dict[str | None, dict[str | None, None]] = {s: {} for s in facts.states}
        for source, target in facts.transitions:
            targets[source][target] = None
            sources[target][source] = None
        names = Names(facts.enum).spellings(facts.states)
        spellings: dict[str | None, list[State]] = {s: [] for s in facts.states}
        for spelling, state in names.items():
            spellings[state].append(spelling)
        moves = {s: frozenset(x for t in targets[s] for x in spellings[t]) for s in facts.states}
        values = {
            "_states": facts.states,
            "_transitions": facts.transitions,
            "_initial": facts.initial,
            "_enum": facts.enum,
            "_names": names,
            "_targets": targets,
            "_sources": sources,
            "_allowed": {spelling: moves[state] for spelling, state in names.items()},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot set {name!r}: a TransitionTable never changes; declare another, or merge with |")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete {name!r}: a TransitionTable never changes")

    @property
    def states(self) -> Set[str | None]:
        """All states, in the order of ``states=``, else of their first mention."""
        return self._states.keys()

    @property
    def initial(self) -> Set[str | None]:
        """The states that a new row may start in; all states when ``initial=`` was left out."""
        return self._states.keys() if self._initial is None else self._initial.keys()

    @property
    def has_initial(self) -> bool:
        """Whether ``initial=`` was given."""
        return self._initial is not None

    @property
    def final(self) -> Set[str | None]:
        """The states that no transition leaves."""
        return {s: None for s, targets in self._targets.items() if not targets}.keys()

    @property
    def pairs(self) -> Set[Pair]:
        """All transitions as ``(source, target)``."""
        return self._transitions.keys()

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """All transitions, one for each pair, with states as text."""
        return tuple(self._transitions.values())

    @property
    def enum(self) -> type[Enum] | None:
        """The Enum class that states were declared with, None if they were text."""
        return self._enum

    def allows(self, source: State, target: State) -> bool:
        """Return whether a row may move from source to target; unknown states and staying are no moves.

        Args:
            source: the state it is in, as text or as a member.
            target: the state it is to get.
        """
        try:
            if target in self._allowed[source]:
                return True
            if target in self._allowed:
                return False
        except KeyError:
            pass
        return self._allows_by_name(source, target)

    def _allows_by_name(self, source: State, target: State) -> bool:
        try:
            return (self._find(source), self._find(target)) in self._transitions
        except KeyError:
            return False

    def transition(self, source: State, target: State) -> Transition:
        """Return the transition from source to target.

        Raises:
            KeyError: there is none.
        """
        try:
            return self._transitions[self._find(source), self._find(target)]
        except KeyError:
            pair = f"{quote(as_text(source))} → {quote(as_text(target))}"
            raise KeyError(f"the table has no transition {pair}") from None

    def targets(self, source: State) -> Set[str | None]:
        """Return the states that a row in source may move to.

        Raises:
            TableError: the table has no such state.
        """
        return self._targets[self._known(source, "targets()")].keys()

    def sources(self, target: State) -> Set[str | None]:
        """Return the states that a row may get into target from.

        Raises:
            TableError: the table has no such state.
        """
        return self._sources[self._known(target, "sources()")].keys()

    def path(self, source: State, target: State) -> tuple[str | None, ...] | None:
        """Return a shortest way from source to target, both ends included.

        Returns:
            The states on the way, one state if both are the same, None if there is no way.

        Raises:
            TableError: the table has no such state.

        >>> TransitionTable("READY → PROMOTED → COMPLETED").path("READY", "COMPLETED")
        ('READY', 'PROMOTED', 'COMPLETED')
        """
        start, goal = self._known(source, "path()"), self._known(target, "path()")
        ways: dict[str | None, tuple[str | None, ...]] = {start: (start,)}
        waiting = deque([start])
        while waiting and goal not in ways:
            here = waiting.popleft()
            for there in self._targets[here]:
                if there not in ways:
                    ways[there] = (*ways[here], there)
                    waiting.append(there)
        return ways.get(goal)

    def to_mermaid(self) -> str:
        """Return the table as a Mermaid ``stateDiagram-v2``.

        >>> print(TransitionTable("READY → DONE", initial="READY").to_mermaid(), end="")
        stateDiagram-v2
            [*] --> READY
            READY --> DONE
            DONE --> [*]
        """
        return diagram.mermaid(self._states, self._initial or (), self.final, self.transitions)

    def to_dot(self) -> str:
        """Return the table as a Graphviz ``digraph``."""
        return diagram.dot(self._states, self._initial or (), self.final, self.transitions)

    @classmethod
    def from_machine(cls, machine: Machine, *, initial: State | Iterable[State] = None) -> Self:
        """Return the table of a pytransitions machine.

        Its triggers become events. Left out are its automatic transitions (``to_<state>``), and what a ``"*"`` of a
        trigger adds from a state to itself. Functions are called as pytransitions calls them, without the object.

        Args:
            machine: the machine; its states are text, or the members of one Enum class.
            initial: the states that a new row may start in; when it is left out, that of the machine.

        Raises:
            TableError: it is no machine, has nested states, or has what a table cannot hold, such as ``on_enter=`` or
                ``unless=``; the message names everything of this, and how to mend it.

        >>> from transitions import Machine
        >>> moves = [["promote", "READY", "PROMOTED"], ["complete", "PROMOTED", "COMPLETED"]]
        >>> TransitionTable.from_machine(Machine(None, ["READY", "PROMOTED", "COMPLETED"], "READY", moves)).pairs
        dict_keys([('READY', 'PROMOTED'), ('PROMOTED', 'COMPLETED')])
        """
        from statekit.table import machine as machines

        parts = machines.read(machine)
        return cls(*parts.transitions, initial=parts.initial if initial is None else initial, states=parts.states)

    def to_machine(
        self, model: object = None, *, machine_class: type[Machine] | None = None, **options: Any
    ) -> Machine:
        """Return a pytransitions machine with the states and transitions of this table.

        A transition without an event gets the trigger ``to_<target>``. Conditions and callbacks are called as a guarded
        model calls them, with the object first. What you add to the machine yourself is given pytransitions'
        ``EventData``.

        Args:
            model: the object, or a list of objects, that get events as methods and the initial state; None for none.
            machine_class: a subclass of ``transitions.Machine``, such as ``GraphMachine``.
            options: more arguments of that class, such as ``initial=`` where the table has several.

        Raises:
            TableError: a state is NULL, an event has the name that another transition would get, or a function is
                async and the class awaits nothing.
            TypeError: an option says what the table says.

        >>> class Message:
        ...     pass
        >>> message = Message()
        >>> machine = TransitionTable(Transition("READY", "DONE", "finish"), initial="READY").to_machine(message)
        >>> message.finish(), message.state
        (True, 'DONE')
        """
        from statekit.table import machine as machines

        return machines.build(self, model, machine_class, options)

    def _find(self, state: State) -> str | None:
        """Return the text of a state however it is written.

        Raises:
            KeyError: the table has no such state.
        """
        if state in self._names:
            return self._names[state]
        # A member of another Enum counts by its name. A text that the Enum makes ambiguous is, in a question, the
        # state of that name: this is what the table itself calls it.
        text = as_text(state)
        if text not in self._states:
            raise KeyError(text)
        return text

    def _known(self, state: State, where: str) -> str | None:
        try:
            return self._find(state)
        except KeyError:
            text = as_text(state)
            raise Place(where).error(
                f"the table has no state {quote(text)}",
                f"Ask for one of {listing(self._states)}.{suggestion(text, self._states)}",
            ) from None

    def __or__(self, other: TransitionTable) -> TransitionTable:
        """Return the table that allows what either allows; initial states are united where they were declared.

        Raises:
            TableError: the two contradict each other, or use two Enum classes.
        """
        if not isinstance(other, TransitionTable):
            return NotImplemented
        merged = Declaration()
        for table, place in ((self, Place("left of |")), (other, Place("right of |"))):
            table._redeclare(merged, place)
        result = object.__new__(type(self))
        result._fill(merged.settle())
        return result

    def _redeclare(self, into: Declaration, place: Place) -> None:
        def mention(state: State) -> Mention:
            text = as_text(state)
            return Mention(self._enum[text] if self._enum is not None and text is not None else text, place)

        into.mentions += map(mention, self._states)
        for transition in self._transitions.values():
            into.add(mention(transition.source), mention(transition.target), transition)
        if self._initial is not None:
            into.initial = [*(into.initial or ()), *map(mention, self._initial)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TransitionTable):
            return NotImplemented
        return (
            self._states.keys() == other._states.keys()
            and self._transitions == other._transitions
            and self.has_initial == other.has_initial
            and self.initial == other.initial
        )

    def __hash__(self) -> int:
        initial = None if self._initial is None else frozenset(self._initial)
        return hash((frozenset(self._states), frozenset(self._transitions), initial))

    def __reduce__(self) -> tuple[Any, ...]:
        initial = None if self._initial is None else tuple(self._initial)
        return _restore, (type(self), tuple(self._states), self.transitions, initial, self._enum)

    def __repr__(self) -> str:
        parts = [text for source, targets in self._targets.items() for text in self._repr_of(source, targets)]
        if self._initial is not None:
            one = next(iter(self._initial)) if len(self._initial) == 1 else None
            parts.append(f"initial={tuple(self._initial) if one is None else one!r}")
        if not all(self._targets[s] or self._sources[s] for s in self._states):
            parts.append(f"states={tuple(self._states)!r}")
        return f"TransitionTable({', '.join(parts)})"

    def _repr_of(self, source: str | None, targets: Mapping[str | None, None]) -> list[str]:
        edges = [self._transitions[source, target] for target in targets]
        bare = [as_text(t.target) for t in edges if t.is_bare]
        parts = [repr(t) for t in edges if not t.is_bare]
        plain = [t for t in bare if t is not None and notation.is_plain(t)]
        if bare and source is not None and notation.is_plain(source) and len(plain) == len(bare):
            return [repr(notation.write_chain(source, plain)), *parts]
        if bare:
            parts.insert(0, repr({source: bare[0] if len(bare) == 1 else tuple(bare)}))
        return parts


def _restore(
    cls: type[TransitionTable],
    states: Iterable[str | None],
    transitions: Iterable[Transition],
    initial: Iterable[str | None] | None,
    enum: type[Enum] | None,
) -> TransitionTable:
    # What was once checked is not checked again.
    pairs = {(as_text(t.source), as_text(t.target)): t for t in transitions}
    table = object.__new__(cls)
    table._fill(Facts(dict.fromkeys(states), pairs, None if initial is None else dict.fromkeys(initial), enum))
    return table
