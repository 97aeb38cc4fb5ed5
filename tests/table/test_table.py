"""What a table answers."""

from __future__ import annotations

import copy
import enum
import pickle

import pytest

from statekit.errors import TableError
from statekit.table import Transition, TransitionTable


class Status(enum.StrEnum):
    READY = "READY"
    SPAM_REVIEW = "SPAM_REVIEW"
    PROMOTED = "PROMOTED"
    COMPLETED = "COMPLETED"


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = 3
    CRIMSON = "red"  # noqa: PIE796 - an alias of RED


class Crossed(enum.StrEnum):
    A = "B"
    B = "A"
    C = "c"


class Other(enum.Enum):
    READY = 1
    PROMOTED = 2
    LOST = 3


@pytest.fixture
def table() -> TransitionTable:
    return TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


class TestSets:
    def test_states_stand_in_order_of_first_mention(self) -> None:
        assert list(TransitionTable("C | A → B", "B → D").states) == ["C", "A", "B", "D"]

    def test_a_star_does_not_change_the_order(self) -> None:
        assert list(TransitionTable("* → X", "A → B").states) == ["X", "A", "B"]

    def test_states_stand_in_the_order_of_the_closed_list(self) -> None:
        assert list(TransitionTable("A → B", states=["B", "C", "A"]).states) == ["B", "C", "A"]

    def test_states_come_from_an_enum_class(self) -> None:
        assert list(TransitionTable("red → green", states=Color).states) == ["RED", "GREEN", "BLUE"]

    def test_initial_is_what_was_declared(self, table: TransitionTable) -> None:
        assert table.initial == {"READY"}

    def test_initial_keeps_its_order(self) -> None:
        assert list(TransitionTable("A | B → C", initial=("B", "A")).initial) == ["B", "A"]

    def test_initial_is_every_state_when_not_declared(self) -> None:
        assert TransitionTable("A → B").initial == {"A", "B"}

    def test_initial_takes_null_in_a_tuple(self) -> None:
        assert TransitionTable((None, "A"), initial=(None,)).initial == {None}

    def test_initial_takes_a_member(self) -> None:
        assert TransitionTable("red → green", initial=Color.RED).initial == {"RED"}

    def test_initial_takes_an_enum_class(self) -> None:
        assert TransitionTable("RED → GREEN → BLUE", initial=Color).initial == {"RED", "GREEN", "BLUE"}

    def test_initial_takes_a_text_as_one_state(self) -> None:
        assert TransitionTable(("A, B", "C"), initial="A, B").initial == {"A, B"}

    def test_has_initial_when_declared(self, table: TransitionTable) -> None:
        assert table.has_initial

    def test_has_no_initial_when_not_declared(self) -> None:
        assert not TransitionTable("A → B").has_initial

    def test_final_is_what_nothing_leaves(self, table: TransitionTable) -> None:
        assert list(table.final) == ["SPAM_REVIEW", "COMPLETED"]

    def test_pairs_stand_in_declared_order(self, table: TransitionTable) -> None:
        assert list(table.pairs) == [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]

    def test_transitions_are_one_for_each_pair(self, table: TransitionTable) -> None:
        assert table.transitions[2] == Transition("PROMOTED", "COMPLETED")

    def test_transitions_hold_text(self) -> None:
        assert type(TransitionTable((Status.READY, Status.PROMOTED)).transitions[0].source) is str

    def test_enum_is_the_class_that_was_used(self) -> None:
        assert TransitionTable((Color.RED, Color.BLUE)).enum is Color

    def test_enum_is_none_for_text(self, table: TransitionTable) -> None:
        assert table.enum is None

    def test_every_set_refuses_change(self, table: TransitionTable) -> None:
        assert not any(hasattr(s, "add") for s in (table.states, table.initial, table.final, table.pairs))


class TestAllows:
    def test_what_was_declared(self, table: TransitionTable) -> None:
        assert table.allows("READY", "PROMOTED")

    def test_nothing_else(self, table: TransitionTable) -> None:
        assert not table.allows("PROMOTED", "SPAM_REVIEW")

    def test_no_way_back(self, table: TransitionTable) -> None:
        assert not table.allows("PROMOTED", "READY")

    def test_no_two_steps_at_once(self, table: TransitionTable) -> None:
        assert not table.allows("READY", "COMPLETED")

    def test_staying_is_no_move(self, table: TransitionTable) -> None:
        assert not table.allows("READY", "READY")

    def test_nothing_leaves_a_final_state(self, table: TransitionTable) -> None:
        assert not table.allows("COMPLETED", "READY")

    @pytest.mark.parametrize("pair", [("X", "READY"), ("READY", "X"), ("X", "Y"), (None, "READY"), ("READY", None)])
    def test_unknown_states_are_not_allowed(self, table: TransitionTable, pair: tuple[str, str]) -> None:
        assert not table.allows(*pair)

    def test_null_where_declared(self) -> None:
        assert TransitionTable((None, "A")).allows(None, "A")

    @pytest.mark.parametrize("source", [Color.RED, Color.CRIMSON, "RED", "red", "CRIMSON"])
    @pytest.mark.parametrize("target", [Color.GREEN, "GREEN", "green"])
    def test_every_spelling_of_a_member(self, source: Color | str, target: Color | str) -> None:
        assert TransitionTable((Color.RED, Color.GREEN)).allows(source, target)

    def test_a_member_of_its_own_enum_that_is_no_state(self) -> None:
        assert not TransitionTable((Color.RED, Color.GREEN)).allows(Color.RED, Color.BLUE)

    def test_members_by_name_when_declared_as_text(self, table: TransitionTable) -> None:
        assert table.allows(Other.READY, Other.PROMOTED)

    def test_members_by_name_in_one_place_only(self, table: TransitionTable) -> None:
        assert table.allows("READY", Other.PROMOTED)

    def test_no_unknown_member(self, table: TransitionTable) -> None:
        assert not table.allows(Other.READY, Other.LOST)

    def test_a_str_member_when_declared_as_text(self, table: TransitionTable) -> None:
        assert table.allows(Status.READY, Status.PROMOTED)

    def test_members_whose_values_are_each_others_names(self) -> None:
        crossed = TransitionTable((Crossed.A, Crossed.B))
        assert [crossed.allows(Crossed.A, Crossed.B), crossed.allows(Crossed.B, Crossed.A)] == [True, False]

    def test_the_tables_own_text_where_values_are_names(self) -> None:
        crossed = TransitionTable((Crossed.A, Crossed.B))
        assert [crossed.allows("A", "B"), crossed.allows("B", "A")] == [True, False]

    def test_a_value_that_is_the_name_of_a_member_outside_of_the_table(self) -> None:
        class Half(enum.StrEnum):
            A = "a"
            B = "b"
            C = "B"

        assert not TransitionTable((Half.A, Half.B)).allows(Half.A, Half.C)


class TestQuestions:
    def test_targets(self, table: TransitionTable) -> None:
        assert list(table.targets("READY")) == ["SPAM_REVIEW", "PROMOTED"]

    def test_targets_of_a_member(self, table: TransitionTable) -> None:
        assert table.targets(Other.READY) == {"SPAM_REVIEW", "PROMOTED"}

    def test_targets_of_a_final_state(self, table: TransitionTable) -> None:
        assert table.targets("COMPLETED") == set()

    def test_sources(self) -> None:
        assert list(TransitionTable("B | A → C").sources("C")) == ["B", "A"]

    @pytest.mark.parametrize("ask", ["targets", "sources"])
    def test_of_an_unknown_state_suggest_a_known_one(self, table: TransitionTable, ask: str) -> None:
        with pytest.raises(TableError, match=r"no state 'ready'. Ask for one of 'READY', .* Did you mean 'READY'\?"):
            getattr(table, ask)("ready")

    def test_transition(self) -> None:
        assert TransitionTable(Transition("A", "B", "go")).transition("A", "B").event == "go"

    def test_transition_by_member(self) -> None:
        assert TransitionTable((Color.RED, Color.BLUE)).transition("red", Color.BLUE).target == "BLUE"

    @pytest.mark.parametrize("pair", [("READY", "COMPLETED"), ("READY", "X"), (None, "READY")])
    def test_transition_that_is_not_there(self, table: TransitionTable, pair: tuple[str, str]) -> None:
        with pytest.raises(KeyError):
            table.transition(*pair)

    def test_path(self, table: TransitionTable) -> None:
        assert table.path("READY", "COMPLETED") == ("READY", "PROMOTED", "COMPLETED")

    def test_path_prefers_the_short_way(self) -> None:
        assert TransitionTable("A → B → C → D", "A → X → D").path("A", "D") == ("A", "X", "D")

    def test_path_to_itself(self, table: TransitionTable) -> None:
        assert table.path("READY", "READY") == ("READY",)

    def test_no_path(self, table: TransitionTable) -> None:
        assert table.path("COMPLETED", "READY") is None

    def test_path_to_an_unknown_state(self, table: TransitionTable) -> None:
        with pytest.raises(TableError, match="path"):
            table.path("READY", "X")


class TestValue:
    def test_equal_whatever_the_order(self) -> None:
        assert TransitionTable("A → B", "A → C") == TransitionTable("A → C | B")

    def test_equal_means_the_same_hash(self) -> None:
        assert hash(TransitionTable("A → B", "A → C")) == hash(TransitionTable("A → C | B"))

    def test_equal_with_and_without_an_enum(self) -> None:
        assert TransitionTable((Color.RED, Color.BLUE)) == TransitionTable("RED → BLUE")

    @pytest.mark.parametrize(
        "other",
        [
            TransitionTable("A → B → C"),
            TransitionTable("A → B", states=("A", "B", "C")),
            TransitionTable("A → B", initial="A"),
            TransitionTable("A → B", initial=("A", "B")),
            TransitionTable(Transition("A", "B", "go")),
            TransitionTable(Transition("A", "B", info=1)),
            "A → B",
        ],
        ids=["pairs", "states", "initial", "initial declared", "event", "info", "type"],
    )
    def test_differs_by(self, other: object) -> None:
        assert TransitionTable("A → B") != other

    def test_differs_by_which_initial(self) -> None:
        assert TransitionTable("A → B → A", initial="A") != TransitionTable("A → B → A", initial="B")

    def test_has_a_hash_whatever_its_info(self) -> None:
        assert hash(TransitionTable(Transition("A", "B", info=[])))

    @pytest.mark.parametrize("name", ["initial", "_states", "new"])
    def test_cannot_be_changed(self, table: TransitionTable, name: str) -> None:
        with pytest.raises(AttributeError):
            setattr(table, name, None)

    def test_nothing_can_be_deleted(self, table: TransitionTable) -> None:
        with pytest.raises(AttributeError):
            del table._states

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
    def test_copies_are_equal(self, again: object) -> None:
        table = TransitionTable("red → green", Transition("red", "BLUE", "go"), initial=Color.RED)
        assert again(table) == table  # type: ignore[operator]

    def test_a_copy_keeps_the_order(self) -> None:
        table = TransitionTable("A → B | C", states=["C", "B", "A"])
        assert list(copy.copy(table).states) == ["C", "B", "A"]

    def test_a_copy_knows_its_enum(self) -> None:
        assert copy.copy(TransitionTable((Color.RED, Color.GREEN))).allows("red", "green")


class TestMerge:
    def test_allows_what_either_allows(self) -> None:
        assert (TransitionTable("A → B") | TransitionTable("B → C")).pairs == {("A", "B"), ("B", "C")}

    def test_keeps_the_order_of_both(self) -> None:
        assert list((TransitionTable("B → A") | TransitionTable("A → C")).states) == ["B", "A", "C"]

    def test_keeps_states_without_transitions(self) -> None:
        wide = TransitionTable("A → B", states=("A", "B", "C"))
        assert (wide | TransitionTable("A → B")).states == {"A", "B", "C"}

    def test_unites_initial_states(self) -> None:
        assert (TransitionTable("A → B", initial="A") | TransitionTable("C → B", initial="C")).initial == {"A", "C"}

    def test_takes_the_initial_states_of_the_side_that_declares_them(self) -> None:
        assert (TransitionTable("A → B") | TransitionTable("A → C", initial="A")).initial == {"A"}

    def test_declares_no_initial_if_neither_side_does(self) -> None:
        assert not (TransitionTable("A → B") | TransitionTable("B → C")).has_initial

    def test_details_win(self) -> None:
        merged = TransitionTable("A → B") | TransitionTable(Transition("A", "B", "go"))
        assert merged.transition("A", "B").event == "go"

    def test_reads_text_by_the_enum_of_the_other_side(self) -> None:
        assert (TransitionTable("red → BLUE") | TransitionTable((Color.RED, Color.GREEN))).states == {
            "RED",
            "GREEN",
            "BLUE",
        }

    def test_keeps_members_that_as_text_would_be_ambiguous(self) -> None:
        table = TransitionTable((Crossed.A, Crossed.B))
        assert table | table == table

    def test_refuses_anything_else(self, table: TransitionTable) -> None:
        with pytest.raises(TypeError):
            table | "A → B"  # type: ignore[operator]


class TestRepr:
    def test_writes_one_text_for_each_source(self, table: TransitionTable) -> None:
        assert (
            repr(table) == "TransitionTable('READY → SPAM_REVIEW | PROMOTED', 'PROMOTED → COMPLETED', initial='READY')"
        )

    def test_writes_several_initial_states_as_a_tuple(self) -> None:
        assert repr(TransitionTable("A → B", initial=["A", "B"])) == "TransitionTable('A → B', initial=('A', 'B'))"

    def test_writes_an_initial_null_as_a_tuple(self) -> None:
        assert repr(TransitionTable((None, "A"), initial=(None,))) == "TransitionTable({None: 'A'}, initial=(None,))"

    def test_writes_states_that_nothing_mentions(self) -> None:
        assert (
            repr(TransitionTable("A → B", states=["B", "A", "C"])) == "TransitionTable('A → B', states=('B', 'A', 'C'))"
        )

    def test_writes_no_states_otherwise(self) -> None:
        assert repr(TransitionTable("A → B", states=["B", "A"])) == "TransitionTable('A → B')"

    def test_writes_other_names_as_a_mapping(self) -> None:
        assert repr(TransitionTable(("A", "b, c"), ("A", "d"))) == "TransitionTable({'A': ('b, c', 'd')})"

    @pytest.mark.parametrize("character", [*",;|*\n\r→>⇒", "->"])
    def test_writes_as_a_mapping_a_name_with(self, character: str) -> None:
        name = f"a{character}b"
        assert repr(TransitionTable((name, "X"))) == f"TransitionTable({{{name!r}: 'X'}})"

    def test_writes_details_as_a_transition(self) -> None:
        table = TransitionTable(Transition("A", "B", "go"), "A → C")
        assert repr(table) == "TransitionTable('A → C', Transition('A', 'B', event='go'))"

    def test_writes_members_as_text(self) -> None:
        assert repr(TransitionTable((Color.RED, Color.BLUE))) == "TransitionTable('RED → BLUE')"
