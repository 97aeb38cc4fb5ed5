"""What a declaration may not say; every message has the place, what is allowed, and how to mend it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from statekit.errors import StatekitError, TableError
from statekit.table import Transition, TransitionTable


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "GREEN"


class Shape(enum.Enum):
    RED = 1


class Word(enum.StrEnum):
    CHAIN = "A → B"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclass
class Sized:
    size: int


class Animal(Sized, enum.Enum):
    ANT = 1


# Untyped, to pass what the types forbid.
Table: Any = TransitionTable
Edge: Any = Transition


class Bad(NamedTuple):
    declare: Callable[[], object]
    place: str
    """Where, and what is wrong there."""
    allowed: str
    mend: str


CHAIN = '"A → B → C", with → or -> between states and "A → B | C" for several'
FORMS = 'a text such as "A → B", a pair (source, target), a mapping {source: targets}, or a Transition'
NAME = "A state is a str, an Enum member, or None for NULL"
STAR = 'allowed alone and first, as in "* → A"'
REACH = "every state must be reachable"
ONCE = "Allowed is one declaration with details, repeated bare or identically"


def foreign(arrow: str) -> Bad:
    return Bad(
        lambda: Table(f"A {arrow} B"),
        f"chain 1, column 3: '{arrow}' is not an arrow of this notation.\n    A {arrow} B\n      {'^' * len(arrow)}\n",
        CHAIN,
        "write → or ->.",
    )


def no_state(value: object, kind: str) -> Bad:
    place = f"chain 1, target of {('A', value)!r}: {value!r} is {kind}, not a state"
    return Bad(lambda: Table(("A", value)), place, NAME, "write one of these")


def bad_form(value: object) -> Bad:
    place = f"chain 1: {value!r} is of type {type(value).__name__}"
    return Bad(lambda: Table(value), place, FORMS, "write one of these")


def bad_targets(value: object) -> Bad:
    place = f"chain 1, targets of 'A': {value!r} is of type"
    return Bad(lambda: Table({"A": value}), place, "one target, or a tuple of targets", "write one of these")


def bad_event(value: object) -> Bad:
    place = f"Transition('A', 'B'), event=: {value!r} cannot be"
    return Bad(lambda: Edge("A", "B", value), place, "a Python identifier that is no keyword", "write one such as")


def bad_hook(name: str, value: object, shown: object) -> Bad:
    place = f"Transition('A', 'B'), {name}=: {shown!r} cannot be called"
    return Bad(
        lambda: Edge("A", "B", **{name: value}),
        place,
        "a function, or the name of a method",
        "write one of these",
    )


def twice(name: str, one: object, two: object) -> Bad:
    first, second = Edge("A", "B", **{name: one}), Edge("A", "B", **{name: two})
    place = (
        f"chain 2, target of {second!r}: A → B is declared twice and differently: "
        f"{name}={getattr(first, name)!r} (chain 1, target of {first!r}), then {name}={getattr(second, name)!r}"
    )
    return Bad(lambda: Table(first, second), place, ONCE, "take one out, or make them equal")


BAD = {
    # the notation
    "nothing after the arrow": Bad(
        lambda: Table("A → "),
        "chain 1, column 3: nothing stands after the arrow.\n    A →\n      ^\n",
        CHAIN,
        "write the target",
    ),
    "nothing before the arrow": Bad(
        lambda: Table("→ B"),
        "chain 1, column 1: nothing stands before the arrow.\n    → B\n    ^\n",
        CHAIN,
        "write the source",
    ),
    "nothing after the bar": Bad(
        lambda: Table("A | → B"),
        "chain 1, column 3: a state is missing beside |.\n    A | → B\n      ^\n",
        CHAIN,
        "take the | out",
    ),
    "nothing before the bar": Bad(
        lambda: Table("A → | B"), "column 5: a state is missing beside |.\n    A → | B\n        ^\n", CHAIN, "write it"
    ),
    "nothing between bars": Bad(
        lambda: Table("A → B || C"),
        "column 7: a state is missing beside |.\n    A → B || C\n          ^\n",
        CHAIN,
        "write it",
    ),
    "two arrows apart": Bad(
        lambda: Table("A → → B"), "column 5: the arrow is doubled.\n    A → → B\n        ^\n", CHAIN, "write one arrow"
    ),
    "two arrows in one": Bad(
        lambda: Table("A ->-> B"),
        "column 3: the arrow is doubled.\n    A ->-> B\n      ^^^^\n",
        CHAIN,
        "write one arrow",
    ),
    "no arrow": Bad(
        lambda: Table("A → B,  in review "),
        "column 9: 'in review' has no arrow.\n    A → B,  in review\n            ^^^^^^^^^\n",
        CHAIN,
        "write → or ->",
    ),
    "on the second line": Bad(
        lambda: Table("A → B\n\tB => C\nC → D"),
        "chain 1, line 2, column 4: '=>' is not",
        CHAIN,
        "\n     B => C\n       ^^\n",
    ),
    "in the second text": Bad(lambda: Table("A → B", "B →"), "chain 2, column 3: nothing", CHAIN, "write the target"),
    **{
        f"the arrow {a}": foreign(a)
        for a in ["=>", "-->", "⇒", "⟶", "—>", "–>", ">", "→>", "<-", "<->", "←", "➜", ">>", "~>", "-→"]
    },
    # the star
    "a star as a target": Bad(
        lambda: Table("A → *"),
        "column 5: '*' has a star in the wrong place.\n    A → *\n        ^\n",
        STAR,
        "write the states",
    ),
    "a star in the middle": Bad(lambda: Table("A → * → B"), "column 5: '*' has a star", STAR, "write the states"),
    "a star beside a source": Bad(lambda: Table("* | A → B"), "column 1: '*' has a star", STAR, "write the states"),
    "a star in a name": Bad(
        lambda: Table("A* → B"), "column 1: 'A*' has a star", STAR, "goes into a pair or a mapping"
    ),
    "a star as a literal target": Bad(
        lambda: Table(("A", "*")),
        "chain 1, target of ('A', '*'): '*' is not the name",
        "allowed as a source only",
        "name the state",
    ),
    "a star that stands for nothing": Bad(
        lambda: Table("* → B"),
        "column 5: the star stands for no state",
        "every other state that a transition",
        "name the sources",
    ),
    # names
    "an int": no_state(5, "of type int"),
    "bytes": no_state(b"B", "of type bytes"),
    "an Enum class": no_state(Color, "an Enum class"),
    "a tuple of targets in a pair": no_state(("B", "C"), "of type tuple"),
    "an unnamed Flag": Bad(
        lambda: Table(("A", Access.READ | Access.WRITE)),
        "chain 1, target of",
        "a combination without a name",
        "Give the Flag a name",
    ),
    "an Enum without hashes": Bad(
        lambda: Table("ANT → A", states=(Animal.ANT,)),
        "Animal: its members have no hash",
        "must be hashable",
        "freeze the dataclass",
    ),
    "an empty source": Bad(
        lambda: Table(("", "B")), "chain 1, source of ('', 'B'): '' is an empty name", "not blank", "write None"
    ),
    "a blank key": Bad(
        lambda: Table({" ": "B"}), "chain 1, source ' ': ' ' is an empty name", "not blank", "write None"
    ),
    "a padded target": Bad(
        lambda: Table({"A": ["B "]}), "chain 1, targets of 'A': 'B ' begins or ends", "taken literally", "write 'B'"
    ),
    "a padded initial": Bad(
        lambda: Table("A → B", initial=" A"), "initial=: ' A' begins or ends", "taken literally", "write 'A'"
    ),
    "a bad source of a Transition": Bad(
        lambda: Edge("A ", "B"), "Transition('A ', 'B'), source: 'A ' begins", "taken literally", "write 'A'"
    ),
    "a bad target of a Transition": Bad(
        lambda: Edge("A", 1), "Transition('A', 1), target: 1 is", NAME, "write one of these"
    ),
    # forms
    "a list": bad_form(["A", "B"]),
    "a triple": bad_form(("A", "B", "C")),
    "no chain": bad_form(None),
    "a number": bad_form(1),
    "a member": bad_form(Color.RED),
    "a str member, even one that reads as a chain": bad_form(Word.CHAIN),
    "a class": bad_form(Color),
    "a table": bad_form(TransitionTable("A → B")),
    "a number of targets": bad_targets(5),
    "bytes of targets": bad_targets(b"B"),
    "a class of targets": bad_targets(Color),
    "a mapping of targets": bad_targets({"B": "go"}),
    # Enums
    "a text that is no member": Bad(
        lambda: Table("RED → gren", states=Color),
        "column 7: 'gren' is no member of Color",
        "Color has 'RED', 'GREEN', 'BLUE'",
        "mean 'green'?",
    ),
    "an ambiguous text": Bad(
        lambda: Table((Color.RED, "GREEN")),
        "(<Color.RED: 'red'>, 'GREEN'): 'GREEN' is the name of Color.GREEN and the value of Color.BLUE",
        "the member itself",
        "Color.GREEN or Color.BLUE",
    ),
    "two Enums": Bad(
        lambda: Table(("A", Color.RED), ("B", Shape.RED)),
        "('B', <Shape.RED: 1>): Shape.RED is a member of another Enum than Color.RED (chain 1, target of",
        "may use one Enum class",
        "write a member of Color",
    ),
    "two Enums merged": Bad(
        lambda: Table((None, Color.RED)) | Table((None, Shape.RED)),
        "right of |: Shape.RED is a member of another Enum than Color.RED (left of |)",
        "may use one Enum class",
        "write a member of Color",
    ),
    # the whole
    "nothing": Bad(
        lambda: Table(), "TransitionTable(): there are no transitions", "texts, pairs, mappings", "write at least one"
    ),
    "a blank text": Bad(
        lambda: Table(" \n;"), "TransitionTable(): there are no transitions", "texts, pairs", "write at least one"
    ),
    "only final states": Bad(
        lambda: Table({"A": ()}), "TransitionTable(): there are no", "texts, pairs", "write at least one"
    ),
    "to itself": Bad(
        lambda: Table("A → B | A"), "column 9: 'A' leads to itself", "a move between two states", "write another target"
    ),
    "to itself under another name": Bad(
        lambda: Table("RED → red", states=Color),
        "column 7: 'RED' leads to itself",
        "a move between two states",
        "write another target",
    ),
    "a Transition to itself": Bad(
        lambda: Edge(Color.RED, "RED"),
        "Transition(<Color.RED: 'red'>, 'RED'): 'RED' leads",
        "a move between",
        "another target",
    ),
    "NULL to itself": Bad(
        lambda: Table((None, None)), "chain 1, target of (None, None): NULL leads", "a move", "another target"
    ),
    "an unknown initial": Bad(
        lambda: Table("READY → DONE", initial="raedy"),
        "initial=: the table has no state 'raedy'",
        "one of 'READY', 'DONE'",
        "mean 'READY'?",
    ),
    "one unknown of several initials": Bad(
        lambda: Table("A → B", initial=["A", "X"]),
        "initial=, state 2: the table has no state 'X'",
        "one of 'A', 'B'",
        "add a transition",
    ),
    "an empty initial": Bad(
        lambda: Table("A → B", initial=()),
        "initial=: no state is named",
        "one state, or a tuple",
        "leave the argument out",
    ),
    "an empty text as initial": Bad(
        lambda: Table("A → B", initial=""), "initial=: '' is an empty name", "not blank", "write None"
    ),
    "a number as initial": Bad(
        lambda: Table("A → B", initial=5), "initial=: 5 is not a collection", "one state, or a tuple", "write a tuple"
    ),
    "bytes as initial": Bad(
        lambda: Table("A → B", initial=b"A"), "initial=: b'A' is not", "one state, or a tuple", "write a tuple"
    ),
    "a text as states": Bad(
        lambda: Table("A → B", states="AB"),
        "states=: 'AB' is not a collection",
        "several states, or an Enum class",
        "write a tuple",
    ),
    "empty states": Bad(
        lambda: Table("A → B", states=()), "states=: no state is named", "several states", "leave the argument out"
    ),
    "a transition outside of states": Bad(
        lambda: Table("READY → DONE", states=("READY", "done")),
        "column 9: 'DONE' is not in states=",
        "one of 'READY', 'done'",
        "mean 'done'?",
    ),
    "an initial outside of states": Bad(
        lambda: Table("A → B", states="A B".split(), initial="X"),
        "initial=: 'X' is not in states=",
        "one of 'A', 'B'",
        "add it",
    ),
    "unreachable": Bad(
        lambda: Table("A → B", "C → D → B", initial="A"),
        "chain 2, column 1: 'C', 'D' cannot be reached from the initial 'A'.\n    C → D → B\n    ^\n",
        REACH,
        "or name the state in initial=",
    ),
    "unreachable in states": Bad(
        lambda: Table("A → B", states=("A", "B", "C"), initial="A"),
        "states=, state 3: 'C' cannot be reached",
        REACH,
        "add a transition",
    ),
    "many unreachable": Bad(
        lambda: Table("A → B", {"X": [f"x{i}" for i in range(30)]}, initial="A"),
        "'x18' and 11 more cannot be reached",
        REACH,
        "add a transition",
    ),
    "unreachable after a merge": Bad(
        lambda: Table("A → B", initial="A") | Table("C → D"),
        "right of |: 'C', 'D' cannot be reached",
        REACH,
        "add a transition",
    ),
    "another event": twice("event", "go", "run"),
    "other conditions": twice("conditions", "ready", ("ready", "able")),
    "another before": twice("before", "b", "c"),
    "another after": twice("after", "a", "c"),
    "other info": twice("info", {"x": 1}, {"x": 2}),
    "a star with another event": Bad(
        lambda: Table(Edge("A", "B", "go"), Edge("*", "B", "run")), "then event='run'", ONCE, "take one out"
    ),
    "another event after a merge": Bad(
        lambda: Table(Edge("A", "B", "go")) | Table(Edge("A", "B", "run")),
        "right of |: A → B is declared twice and differently: event='go' (left of |), then event='run'",
        ONCE,
        "make them equal",
    ),
    # Transition
    **{f"the event {e!r}": bad_event(e) for e in ["class", "to done", "", "1st", 5, b"go"]},
    "a number as condition": bad_hook("conditions", 1, 1),
    "a number among conditions": bad_hook("conditions", ["ready", 1], 1),
    "None among conditions": bad_hook("conditions", [None], None),
    "an empty condition": bad_hook("conditions", "", ""),
    "a number as before": bad_hook("before", 1, 1),
    "a list as after": bad_hook("after", ["a"], ["a"]),
}


def message(bad: Bad) -> str:
    with pytest.raises(TableError) as caught:
        bad.declare()
    return str(caught.value)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
class TestMessage:
    def test_names_the_place(self, bad: Bad) -> None:
        assert bad.place in message(bad)

    def test_says_what_is_allowed(self, bad: Bad) -> None:
        assert bad.allowed in message(bad)

    def test_says_how_to_mend_it(self, bad: Bad) -> None:
        assert bad.mend in message(bad)


class TestWhatIsAllowed:
    def test_an_isolated_state_without_initial(self) -> None:
        assert "C" in TransitionTable("A → B", states=("A", "B", "C")).states

    def test_reaching_a_state_from_any_initial(self) -> None:
        assert TransitionTable("A → B", "C → D", initial=("A", "C")).has_initial

    def test_reaching_a_state_through_a_star(self) -> None:
        assert TransitionTable("A → B", "* → X", initial="A").has_initial

    def test_going_round(self) -> None:
        assert TransitionTable("A → B → A", initial="A").final == set()

    def test_a_soft_keyword_as_event(self) -> None:
        assert Transition("A", "B", "match").event == "match"


class TestTableError:
    def test_is_a_value_error(self) -> None:
        assert issubclass(TableError, ValueError)

    def test_is_an_error_of_statekit(self) -> None:
        assert issubclass(TableError, StatekitError)

    def test_is_free_of_traces_of_the_search_for_a_state(self) -> None:
        with pytest.raises(TableError) as caught:
            TransitionTable("A → B").targets("X")
        assert caught.value.__suppress_context__

    def test_suggests_nothing_where_nothing_is_near(self) -> None:
        with pytest.raises(TableError, match=r"one of 'A', 'B', or add a transition for it\.$"):
            TransitionTable("A → B", initial="zzz")
