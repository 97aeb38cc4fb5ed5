"""The strategies: what they generate, and that they reach what they should."""

from __future__ import annotations

import enum
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from statekit import TransitionTable
from statekit.testing import moves, tables, walks
from tests.guards.inbox import message_class

TABLE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


class Status(enum.Enum):
    READY = 1
    DONE = 2


@given(tables())
def test_every_state_of_a_table_can_be_reached(table: TransitionTable) -> None:
    (initial,) = table.initial
    assert all(table.path(initial, state) is not None for state in table.states)


@given(tables(min_states=3, max_states=4))
def test_a_table_has_as_many_states_as_asked_for(table: TransitionTable) -> None:
    assert 3 <= len(table.states) <= 4


def test_a_table_may_have_a_cycle_and_a_final_state() -> None:
    found = find(
        tables(),
        lambda table: bool(table.final) and any(pair[::-1] in table.pairs for pair in table.pairs),
        settings=settings(max_examples=1_000, phases=[Phase.generate]),
    )
    assert found.final


@pytest.mark.parametrize(("least", "most"), [(1, 3), (4, 3)])
def test_numbers_out_of_order_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="2 ≤ min_states ≤ max_states"):
        find(tables(min_states=least, max_states=most), lambda table: True)


@given(tables().flatmap(lambda table: st.tuples(st.just(table), walks(table))))
def test_a_walk_begins_where_a_row_begins_and_makes_legal_steps(drawn: tuple[TransitionTable, list[str]]) -> None:
    table, walk = drawn
    assert walk[0] in table.initial
    assert all(table.allows(*step) for step in itertools.pairwise(walk))


def test_a_walk_gets_everywhere() -> None:
    assert find(walks(TABLE), lambda walk: "COMPLETED" in walk) == ["READY", "PROMOTED", "COMPLETED"]


def test_a_walk_is_as_long_as_asked_for_and_no_longer() -> None:
    with pytest.raises(NoSuchExample):
        find(walks(TABLE, max_size=2), lambda walk: len(walk) > 2)


def test_only_an_illegal_walk_goes_where_the_table_does_not() -> None:
    illegal = find(walks(TABLE, legal=False), lambda walk: "COMPLETED" in walk[:2])
    assert illegal == ["READY", "COMPLETED"]


def test_a_walk_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="max_size ≥ 1"):
        find(walks(TABLE, max_size=0), lambda walk: True)


@pytest.mark.parametrize("legal", [True, False])
def test_moves_are_legal_and_illegal_ones(legal: bool) -> None:
    find(moves(TABLE), lambda move: TABLE.allows(*move) is legal)


@given(moves(TABLE))
def test_no_move_stays(move: tuple[str, str]) -> None:
    assert move[0] != move[1]


def test_states_of_an_enum_are_members() -> None:
    table = TransitionTable((Status.READY, Status.DONE))
    assert find(walks(table), lambda walk: len(walk) == 2) == [Status.READY, Status.DONE]
    assert all(isinstance(state, Status) for state in find(moves(table), lambda move: True))


def test_without_hypothesis_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from statekit.testing import EdgeTests, assert_blocked, in_state\n"
        "from statekit.testing import walks"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert "ImportError: statekit.testing's strategies need Hypothesis: install the package hypothesis." in done.stderr


@pytest.mark.parametrize("strategy", [walks, moves])
def test_a_guarded_attribute_stands_for_its_table(strategy: Any) -> None:
    status = message_class().status
    find(strategy(status), lambda drawn: "COMPLETED" in drawn)


@pytest.mark.parametrize("strategy", [walks, moves])
@pytest.mark.parametrize("given_", ["READY → DONE", None])
def test_what_has_no_table_is_refused(strategy: Any, given_: Any) -> None:
    with pytest.raises(TypeError, match="is no TransitionTable, and no guarded attribute"):
        find(strategy(given_), lambda drawn: True)
