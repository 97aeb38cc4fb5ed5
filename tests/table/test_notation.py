"""The forms that a chain may take."""

from __future__ import annotations

import enum

import pytest

from statekit.errors import TableError
from statekit.table import Transition, TransitionTable


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = 3
    CRIMSON = "red"  # noqa: PIE796 - an alias of RED


class Crossed(enum.StrEnum):
    A = "B"
    B = "A"
    C = "c"


def pairs(*chains: object, **options: object) -> list[tuple[str | None, str | None]]:
    return list(TransitionTable(*chains, **options).pairs)  # type: ignore[arg-type]


class TestText:
    def test_an_arrow_joins_two_states(self) -> None:
        assert pairs("A → B") == [("A", "B")]

    def test_the_ascii_arrow_means_the_same(self) -> None:
        assert pairs("A -> B") == [("A", "B")]

    def test_both_arrows_may_stand_in_one_chain(self) -> None:
        assert pairs("A -> B → C") == [("A", "B"), ("B", "C")]

    def test_a_chain_goes_on(self) -> None:
        assert pairs("A → B → C → A") == [("A", "B"), ("B", "C"), ("C", "A")]

    def test_a_bar_forks_to_several_targets(self) -> None:
        assert pairs("A → B | C") == [("A", "B"), ("A", "C")]

    def test_a_bar_joins_several_sources(self) -> None:
        assert pairs("A | B → C") == [("A", "C"), ("B", "C")]

    def test_a_fork_in_the_middle_goes_in_and_out(self) -> None:
        assert pairs("A → B | C → D") == [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D")]

    @pytest.mark.parametrize("separator", [",", ";", "\n", "\r\n", ",\n", " ; "])
    def test_several_chains_stand_in_one_text(self, separator: str) -> None:
        assert pairs(f"A → B{separator}C → D") == [("A", "B"), ("C", "D")]

    @pytest.mark.parametrize("text", ["A → B,", "\nA → B\n", ";; A → B ; ;", "\n\n  A → B\n  \n"])
    def test_blank_pieces_are_ignored(self, text: str) -> None:
        assert pairs(text) == [("A", "B")]

    def test_spaces_around_arrows_are_not_needed(self) -> None:
        assert pairs("A→B|C->D") == [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D")]

    @pytest.mark.parametrize(
        "name", ["in review", "spam-review", "v1.2", "état", "完了", "🚀", "a — b", "a -- b", "x=1", "-", "a'b\"c"]
    )
    def test_a_name_may_contain(self, name: str) -> None:
        assert pairs(f"{name} → {name}2") == [(name, f"{name}2")]

    def test_a_hyphen_may_touch_the_name_before_an_arrow(self) -> None:
        assert pairs("in-review->done-now") == [("in-review", "done-now")]

    def test_an_edge_may_be_repeated(self) -> None:
        assert pairs("A → B, A → B") == [("A", "B")]

    def test_null_in_a_text_is_an_ordinary_name(self) -> None:
        assert pairs("NULL → A") == [("NULL", "A")]


class TestStar:
    def test_stands_for_the_states_that_are_not_final(self) -> None:
        assert pairs("A → B → C", "* → X") == [("A", "B"), ("B", "C"), ("A", "X"), ("B", "X")]

    def test_leaves_out_its_own_target(self) -> None:
        assert pairs("A → B → A", "* → A") == [("A", "B"), ("B", "A")]

    def test_may_stand_before_the_rest(self) -> None:
        assert set(pairs("* → X", "A → B")) == {("A", "B"), ("A", "X")}

    def test_does_not_count_what_other_stars_leave(self) -> None:
        assert set(pairs("A → B", "* → X", "* → Y")) == {("A", "B"), ("A", "X"), ("A", "Y")}

    def test_may_fork(self) -> None:
        assert set(pairs("A → B", "* → X | Y")) == {("A", "B"), ("A", "X"), ("A", "Y")}

    def test_may_go_on(self) -> None:
        assert set(pairs("A → B", "* → X → Y")) == {("A", "B"), ("X", "Y"), ("A", "X")}

    def test_includes_null(self) -> None:
        assert (None, "X") in pairs((None, "A"), "* → X")

    @pytest.mark.parametrize(
        "star", [("*", "X"), {"*": "X"}, Transition("*", "X")], ids=["pair", "mapping", "Transition"]
    )
    def test_is_a_source_in_every_form(self, star: object) -> None:
        assert set(pairs("A → B", star)) == {("A", "B"), ("A", "X")}

    def test_gives_its_details_to_each_edge(self) -> None:
        table = TransitionTable("A → B → C", Transition("*", "X", "cancel"))
        assert table.transition("B", "X") == Transition("B", "X", "cancel")


class TestPair:
    def test_is_one_edge(self) -> None:
        assert pairs(("A", "B")) == [("A", "B")]

    @pytest.mark.parametrize("name", ["a, b", "a → b", "a | b", "a\nb", "'", "A*", "a => b"])
    def test_takes_names_literally(self, name: str) -> None:
        assert pairs((name, "X")) == [(name, "X")]

    def test_takes_none_as_null(self) -> None:
        assert pairs((None, "A"), ("A", None)) == [(None, "A"), ("A", None)]


class TestMapping:
    def test_takes_a_text_as_one_target(self) -> None:
        assert pairs({"A": "B, C"}) == [("A", "B, C")]

    @pytest.mark.parametrize("targets", [("B", "C"), ["B", "C"], {"B": 1, "C": 2}.keys(), iter(["B", "C"])])
    def test_takes_several_targets(self, targets: object) -> None:
        assert pairs({"A": targets}) == [("A", "B"), ("A", "C")]

    def test_takes_null_as_one_target(self) -> None:
        assert pairs({"A": None}) == [("A", None)]

    def test_a_source_without_targets_is_a_final_state(self) -> None:
        assert TransitionTable({"A": "B", "B": (), "C": []}).final == {"B", "C"}


class TestTransition:
    def test_is_one_edge_with_details(self) -> None:
        assert TransitionTable(Transition("A", "B", "go")).transitions == (Transition("A", "B", "go"),)

    def test_details_win_over_a_bare_edge_before_it(self) -> None:
        assert TransitionTable("A → B", Transition("A", "B", "go")).transition("A", "B").event == "go"

    def test_details_win_over_a_bare_edge_after_it(self) -> None:
        assert TransitionTable(Transition("A", "B", "go"), "A → B").transition("A", "B").event == "go"

    def test_may_be_repeated_identically(self) -> None:
        assert len(TransitionTable(Transition("A", "B", "go"), Transition("A", "B", "go")).transitions) == 1

    @pytest.mark.parametrize("conditions", ["ready", ["ready"], ("ready",)])
    def test_conditions_become_a_tuple(self, conditions: str | list[str]) -> None:
        assert Transition("A", "B", conditions=conditions).conditions == ("ready",)

    def test_a_function_may_be_a_condition(self) -> None:
        assert Transition("A", "B", conditions=callable).conditions == (callable,)

    def test_is_hashable_whatever_its_info(self) -> None:
        assert hash(Transition("A", "B", info=[])) == hash(Transition("A", "B", info=[]))

    def test_differs_by_info(self) -> None:
        assert Transition("A", "B", info=1) != Transition("A", "B", info=2)

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            Transition("A", "B").event = "go"  # type: ignore[misc]

    @pytest.mark.parametrize(
        "transition",
        [Transition("A", None), Transition("A", "B", "go", conditions="c", before="b", after="a", info={"x": [1]})],
    )
    def test_repr_evaluates_back(self, transition: Transition) -> None:
        assert eval(repr(transition)) == transition

    def test_repr_shows_only_what_was_given(self) -> None:
        assert repr(Transition("A", "B", before="b")) == "Transition('A', 'B', before='b')"

    def test_repr_shows_members_as_text(self) -> None:
        assert repr(Transition(Color.RED, Color.BLUE)) == "Transition('RED', 'BLUE')"


class TestEnum:
    def test_a_member_is_its_name(self) -> None:
        assert pairs((Color.RED, Color.BLUE)) == [("RED", "BLUE")]

    def test_an_alias_is_its_member(self) -> None:
        assert pairs((Color.CRIMSON, Color.BLUE)) == [("RED", "BLUE")]

    def test_a_text_is_read_as_a_name(self) -> None:
        assert pairs("RED → GREEN", states=Color) == [("RED", "GREEN")]

    def test_a_text_is_read_as_a_value(self) -> None:
        assert pairs("red → green", states=Color) == [("RED", "GREEN")]

    def test_a_text_is_read_as_an_alias(self) -> None:
        assert pairs("CRIMSON → GREEN", states=Color) == [("RED", "GREEN")]

    @pytest.mark.parametrize("chain", ["red → GREEN", ("red", "green"), {"red": ["green"]}, Transition("red", "green")])
    def test_a_member_anywhere_makes_every_text_mean_a_member(self, chain: object) -> None:
        assert pairs(chain, (Color.GREEN, Color.BLUE))[0] == ("RED", "GREEN")

    def test_a_member_in_initial_counts_too(self) -> None:
        assert pairs("red → green", initial=Color.RED) == [("RED", "GREEN")]

    def test_members_are_unambiguous_where_texts_are_not(self) -> None:
        assert pairs((Crossed.A, Crossed.B)) == [("A", "B")]

    def test_a_text_without_an_enum_stays_as_it_is(self) -> None:
        assert pairs("red → GREEN") == [("red", "GREEN")]

    def test_null_mixes_with_members(self) -> None:
        assert pairs((None, Color.RED)) == [(None, "RED")]

    def test_an_error_is_about_a_text_neither_name_nor_value(self) -> None:
        with pytest.raises(TableError, match="'3' is no member of Color"):
            TransitionTable((Color.RED, "3"))
