"""Laws that hold for every table."""

from __future__ import annotations

import copy
import enum
import itertools
import pickle
from collections.abc import Callable
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from statekit.errors import Pair, TableError
from statekit.table import Transition, TransitionTable
from statekit.table.notation import is_plain, write_chain

MEMBERS = [f"M{i}" for i in range(6)]
Member = enum.Enum("Member", {m: m.lower() for m in MEMBERS})  # type: ignore[misc]
StrMember = enum.StrEnum("StrMember", {m: m.lower() for m in MEMBERS})  # type: ignore[misc]
# A value that is the next member's name: the texts are ambiguous, the members are not.
Ring = enum.StrEnum("Ring", {m: MEMBERS[(i + 1) % 6] for i, m in enumerate(MEMBERS)})  # type: ignore[misc]

any_names = st.text(min_size=1, max_size=8).map(str.strip).filter(lambda n: n not in ("", "*"))
tricky_names = (
    st.text("ab -→>|,;*\n\"'\\.=~é", min_size=1, max_size=5).map(str.strip).filter(lambda n: n not in ("", "*"))
)
names = st.one_of(any_names, tricky_names, st.sampled_from("ABCDEF"))
plain_names = names.filter(is_plain)


def pairs_of(states: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Pair]]:
    edges = st.tuples(states, states).filter(lambda pair: pair[0] != pair[1])
    return st.lists(edges, min_size=1, max_size=12, unique=True)


def graphs(states: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Pair]]:
    """Edges over few states, so that they meet."""
    return st.lists(states, min_size=2, max_size=6, unique=True).flatmap(lambda few: pairs_of(st.sampled_from(few)))


@st.composite
def tables(draw: st.DrawFn, initial: bool | None = None) -> TransitionTable:
    """Tables of any kind; with ``initial``, all of them or none of them declare it."""
    pairs = draw(graphs(st.none() | names))
    events = st.sampled_from([None, None, "go", "run"])
    conditions, infos = st.sampled_from([(), (), ("ready",)]), st.sampled_from([None, None, {"x": [1]}])
    chains = [Transition(s, t, draw(events), conditions=draw(conditions), info=draw(infos)) for s, t in pairs]
    used = list(dict.fromkeys(s for pair in pairs for s in pair))
    if initial if initial is not None else draw(st.booleans()):
        # What the first cannot reach must be initial too.
        return TransitionTable(*chains, initial=[used[0], *(s for s in used if not reaches(pairs, used[0], s))])
    return TransitionTable(
        *chains, states=[*draw(st.permutations(used)), *draw(st.sampled_from([[], ["X-1", "X, 2"]]))]
    )


# The same edges often, so that merging has something to decide.
small_tables = st.builds(
    lambda pairs, event: TransitionTable(*(Transition(s, t, event) for s, t in pairs)),
    pairs_of(st.sampled_from("ABCD")),
    st.sampled_from([None, "go", "run"]),
) | st.sampled_from(
    [TransitionTable("A → B"), TransitionTable("B → C"), TransitionTable(Transition("A", "B", "go"))],
)

texts = st.text("A*", max_size=2)
anything = st.recursive(
    st.none() | texts | st.integers() | st.binary(max_size=1),
    lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(texts, x, max_size=2),
)


def distances(pairs: list[Pair], start: str | None) -> dict[str | None, int]:
    """Steps from a state to all that it reaches, by relaxing every edge as often as there are edges."""
    steps: dict[str | None, int] = {start: 0}
    for _ in pairs:
        for source, target in pairs:
            if source in steps:
                steps[target] = min(steps.get(target, len(pairs) + 1), steps[source] + 1)
    return steps


def reaches(pairs: list[Pair], start: str | None, goal: str | None) -> bool:
    return goal in distances(pairs, start)


def outcome(make: Callable[[], TransitionTable]) -> TransitionTable | None:
    try:
        return make()
    except TableError:
        return None


class TestRepr:
    @given(tables())
    def test_evaluates_back(self, table: TransitionTable) -> None:
        assert eval(repr(table)) == table

    @given(tables())
    def test_stays_the_same_when_it_is_evaluated(self, table: TransitionTable) -> None:
        again = eval(repr(table))
        assert eval(repr(again)) == again

    @given(tables())
    def test_evaluates_to_the_same_initial_states(self, table: TransitionTable) -> None:
        assert list(eval(repr(table)).initial) == list(table.initial) or not table.has_initial


class TestNotation:
    @given(st.dictionaries(plain_names, st.lists(plain_names, min_size=1, max_size=4), min_size=1, max_size=5))
    def test_a_written_chain_reads_as_the_mapping(self, mapping: dict[str, list[str]]) -> None:
        mapping = {s: kept for s, targets in mapping.items() if (kept := [t for t in targets if t != s])}
        assume(mapping)
        assert TransitionTable(*itertools.starmap(write_chain, mapping.items())) == TransitionTable(mapping)

    @given(graphs(plain_names), st.sampled_from([",", ";", "\n", " ;\n"]))
    def test_one_text_reads_as_many(self, pairs: list[Pair], separator: str) -> None:
        assert TransitionTable(separator.join(f"{s} → {t}" for s, t in pairs)) == TransitionTable(*pairs)

    @given(graphs(plain_names))
    def test_both_arrows_read_the_same(self, pairs: list[Pair]) -> None:
        assert TransitionTable(*(f"{s} → {t}" for s, t in pairs)) == TransitionTable(*(f"{s} -> {t}" for s, t in pairs))

    @given(st.lists(st.lists(plain_names, min_size=1, max_size=3), min_size=2, max_size=4))
    def test_a_chain_joins_each_side_with_the_next(self, sides: list[list[str]]) -> None:
        expected = {pair for one, two in itertools.pairwise(sides) for pair in itertools.product(one, two)}
        assume(all(s != t for s, t in expected))
        assert TransitionTable(" → ".join(" | ".join(side) for side in sides)).pairs == expected

    @given(names)
    def test_a_name_that_is_not_plain_does_not_pass_through_a_text(self, name: str) -> None:
        def both() -> TransitionTable:
            return TransitionTable(write_chain(name, ["END"]))

        assert (outcome(both) == TransitionTable((name, "END"))) == is_plain(name)

    @given(st.text("AB →->|*,;\n=", max_size=12))
    def test_any_text_is_a_table_or_a_table_error(self, text: str) -> None:
        outcome(lambda: TransitionTable(text))

    @given(anything)
    def test_anything_is_a_table_or_a_table_error(self, chain: object) -> None:
        outcome(lambda: TransitionTable("A → B", chain))  # type: ignore[arg-type]


class TestStar:
    @given(graphs(st.sampled_from("ABCDEF")), st.lists(st.sampled_from("ABCDXY"), min_size=1, max_size=3), st.randoms())
    def test_is_what_a_plain_reading_says(self, pairs: list[Pair], targets: list[str], random: Random) -> None:
        left = {s for s, _ in pairs}
        expected = set(pairs) | {(s, t) for t in targets for s in left if s != t}
        assume(all(left - {t} for t in targets))
        chains: list[str | Pair] = [*pairs, *(f"* → {t}" for t in targets)]
        random.shuffle(chains)
        assert TransitionTable(*chains).pairs == expected


class TestAllows:
    @given(tables())
    def test_is_membership_of_the_pairs(self, table: TransitionTable) -> None:
        states = [*table.states, "no such state"]
        allowed = {pair for pair in itertools.product(states, repeat=2) if table.allows(*pair)}
        assert allowed == table.pairs

    @given(graphs(st.sampled_from(MEMBERS)), st.sampled_from([Member, StrMember, Ring]))
    def test_is_the_same_for_members(self, pairs: list[Pair], kind: type[enum.Enum]) -> None:
        table = TransitionTable(*((kind[s], kind[t]) for s, t in pairs if s and t))
        allowed = {(s.name, t.name) for s, t in itertools.product(kind, repeat=2) if table.allows(s, t)}
        assert allowed == set(pairs)

    @given(graphs(st.sampled_from(MEMBERS)), st.sampled_from([Member, StrMember]))
    def test_is_the_same_for_values(self, pairs: list[Pair], kind: type[enum.Enum]) -> None:
        table = TransitionTable(*((kind[s], kind[t]) for s, t in pairs if s and t))
        allowed = {(s.name, t.name) for s, t in itertools.product(kind, repeat=2) if table.allows(s.value, t.value)}
        assert allowed == set(pairs)

    @given(tables())
    def test_targets_and_sources_are_the_pairs(self, table: TransitionTable) -> None:
        forth = {(s, t) for s in table.states for t in table.targets(s)}
        back = {(s, t) for t in table.states for s in table.sources(t)}
        assert forth == back == table.pairs

    @given(tables())
    def test_final_states_have_no_targets(self, table: TransitionTable) -> None:
        assert table.final == {s for s in table.states if not table.targets(s)}


class TestPath:
    @given(tables())
    def test_is_legal_from_end_to_end(self, table: TransitionTable) -> None:
        ways = [table.path(s, t) for s, t in itertools.product(table.states, repeat=2)]
        assert all(pair in table.pairs for way in ways if way for pair in itertools.pairwise(way))

    @given(tables())
    def test_has_both_ends(self, table: TransitionTable) -> None:
        ways = {(s, t): table.path(s, t) for s, t in itertools.product(table.states, repeat=2)}
        assert all((way[0], way[-1]) == ends for ends, way in ways.items() if way)

    @given(tables())
    def test_is_the_shortest(self, table: TransitionTable) -> None:
        pairs = list(table.pairs)
        found = {(s, t): len(way) - 1 for s in table.states for t in table.states if (way := table.path(s, t))}
        assert found == {(s, t): steps for s in table.states for t, steps in distances(pairs, s).items()}


class TestMerge:
    @given(tables())
    def test_with_itself_changes_nothing(self, table: TransitionTable) -> None:
        assert table | table == table

    @given(small_tables, small_tables)
    def test_goes_both_ways(self, one: TransitionTable, two: TransitionTable) -> None:
        assert outcome(lambda: one | two) == outcome(lambda: two | one)

    @given(small_tables, small_tables, small_tables)
    def test_groups_either_way(self, one: TransitionTable, two: TransitionTable, three: TransitionTable) -> None:
        assert outcome(lambda: (one | two) | three) == outcome(lambda: one | (two | three))

    @given(tables(initial=True), tables(initial=True), tables(initial=True))
    def test_groups_either_way_with_initial_states(
        self, one: TransitionTable, two: TransitionTable, three: TransitionTable
    ) -> None:
        assert outcome(lambda: (one | two) | three) == outcome(lambda: one | (two | three))

    @given(small_tables, small_tables)
    def test_is_what_one_declaration_of_both_says(self, one: TransitionTable, two: TransitionTable) -> None:
        together = outcome(lambda: TransitionTable(*one.transitions, *two.transitions))
        assert outcome(lambda: one | two) == together

    @given(tables(), tables())
    def test_unites_states(self, one: TransitionTable, two: TransitionTable) -> None:
        merged = outcome(lambda: one | two)
        assume(merged is not None)
        assert getattr(merged, "states", None) == one.states | two.states


class TestValue:
    @given(tables(), st.sampled_from([copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]))
    def test_a_copy_is_equal(self, table: TransitionTable, again: Callable[[TransitionTable], TransitionTable]) -> None:
        assert again(table) == table

    @given(tables())
    def test_a_copy_has_everything_in_the_same_order(self, table: TransitionTable) -> None:
        again = pickle.loads(pickle.dumps(table))
        assert repr(again) == repr(table)

    @given(graphs(names), st.randoms())
    def test_order_does_not_matter(self, pairs: list[Pair], random: Random) -> None:
        shuffled = list(pairs)
        random.shuffle(shuffled)
        assert TransitionTable(*shuffled) == TransitionTable(*pairs)

    @given(graphs(names), st.randoms())
    def test_equal_tables_have_equal_hashes(self, pairs: list[Pair], random: Random) -> None:
        shuffled = list(pairs)
        random.shuffle(shuffled)
        assert hash(TransitionTable(*shuffled)) == hash(TransitionTable(*pairs))
