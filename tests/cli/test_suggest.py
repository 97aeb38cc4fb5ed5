"""statekit suggest: the table that the moves of ledger and history amount to."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from statekit import TransitionTable, ledger, override
from statekit.cli.source import source_of
from tests.cli.books import answer, enter, lines, make, sync_engine, write_history
from tests.cli.conftest import Project
from tests.history import ways
from tests.ledger.books import attached
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases


def table(text: str | None) -> TransitionTable:
    assert text is not None
    found = eval(text, {"TransitionTable": TransitionTable})
    assert isinstance(found, TransitionTable)
    return found


def suggested(project: Project, engine: sa.Engine, *options: str) -> TransitionTable:
    return table("\n".join(lines(project, engine, 0, "suggest", *options)))


def column(project: Project, engine: sa.Engine, exit_code: int = 0) -> dict[str, Any]:
    (only,) = answer(project, engine, exit_code, "suggest")["columns"]
    found: dict[str, Any] = only
    return found


class TestOfTheHistory:
    def test_what_rows_did_is_the_table(self, project: Project, engine: sa.Engine) -> None:
        message = ways.inbox(engine, on_illegal="observe")
        with attached(engine), Session(engine) as session:
            session.add_all([message(id=number) for number in range(1, 5)])
            session.commit()
            for state, identities in (("PROMOTED", (1, 2, 3)), ("COMPLETED", (1, 2)), ("SPAM_REVIEW", (3, 4))):
                for each in identities:
                    session.get(message, each).status = state
                session.commit()
            with override("wrong queue"):
                session.get(message, 1).status = "READY"
                session.commit()
        first, *rest = lines(project, engine, 0, "suggest")
        assert first.startswith("# message.status: 7 moves and 4 new rows, 20")
        assert rest == [
            "TransitionTable(",
            '    "READY → PROMOTED → COMPLETED",  # 3; 2',
            '    "READY → SPAM_REVIEW",  # 1',
            '    "PROMOTED → SPAM_REVIEW",  # 1',
            '    initial="READY",  # new rows: 4',
            ")",
            "# overridden, so not suggested: COMPLETED → READY: 1",
        ]
        assert suggested(project, engine) == TransitionTable(
            "READY → PROMOTED → COMPLETED", "READY → SPAM_REVIEW", "PROMOTED → SPAM_REVIEW", initial="READY"
        )

    def test_several_initial_states_are_all_named(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, 2, pair=("", "B"), new=True)
        write_history(engine, 3, pair=("", "A"), new=True)
        write_history(engine, 3, pair=("A", "B"))
        assert suggested(project, engine) == TransitionTable("A → B", initial=("B", "A"))

    def test_an_initial_state_that_nothing_leaves_is_a_state(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=("", "LONE"), new=True)
        write_history(engine, 2, pair=("", "A"), new=True)
        write_history(engine, 2, pair=("A", "B"))
        assert suggested(project, engine) == TransitionTable("A → B", initial=("LONE", "A"), states=("LONE", "A", "B"))

    def test_where_rows_were_there_before_it_the_initial_states_are_left_out(
        self, project: Project, engine: sa.Engine
    ) -> None:
        make(engine)
        write_history(engine, 1, pair=("", "A"), new=True)
        write_history(engine, 1, pair=("A", "B"))
        write_history(engine, 2, pair=("C", "D"))
        found = column(project, engine)
        assert table(found["source"]) == TransitionTable("A → B", "C → D")
        assert 'initial= is left out, because from where new rows were seen ("A": 1)' in found["remarks"][0]
        assert '"C", "D"' in found["remarks"][0]

    def test_where_no_new_row_was_seen_it_says_so(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=("A", "B"))
        assert column(project, engine)["remarks"][0].startswith("No new row was seen, so that one may start in any")

    def test_where_rows_were_only_made_there_is_nothing(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=("", "A"), new=True)
        found = column(project, engine, 1)
        assert (found["source"], found["initial"]) == (None, [{"state": "A", "number": 1}])


class TestOfTheLedger:
    def test_what_was_observed_is_suggested(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 4, kind="observed")
        found = column(project, engine)
        assert table(found["source"]) == TransitionTable("PROMOTED → SPAM_REVIEW")
        assert any("only moves are known that its table does not allow" in remark for remark in found["remarks"])

    def test_and_stays_so_when_it_is_pruned(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 4, kind="observed", days=1)
        with engine.connect() as connection:
            ledger.prune(connection, older_than=dt.timedelta(0))
        assert column(project, engine)["moves"][0]["number"] == 4

    def test_what_is_in_both_is_one(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 4, ("READY", "PROMOTED"), kind="observed")
        write_history(engine, 1, 2, 3, kind="observed")
        write_history(engine, 1, 2)
        assert column(project, engine)["moves"][0]["number"] == 6

    def test_what_was_blocked_is_a_comment(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 4)
        write_history(engine, 1)
        assert lines(project, engine, 0, "suggest")[-1] == ("# blocked, so not suggested: PROMOTED → SPAM_REVIEW: 4")
        assert suggested(project, engine) == TransitionTable("READY → PROMOTED")

    def test_what_was_only_blocked_is_no_table(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 4)
        assert column(project, engine, 1)["source"] is None


class TestOfSeveralColumns:
    def test_each_has_a_table(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1)
        write_history(engine, 1, pair=("OPEN", "PAID"), table_name="shop.invoice", column_name="payment")
        found = answer(project, engine, 0, "suggest")["columns"]
        assert [(each["table"], each["column"]) for each in found] == [
            ("message", "status"),
            ("shop.invoice", "payment"),
        ]

    @pytest.mark.parametrize("options", [("--table", "invoice"), ("--table", "shop.invoice"), ("--column", "payment")])
    def test_one_may_be_chosen(self, project: Project, engine: sa.Engine, options: tuple[str, ...]) -> None:
        make(engine)
        write_history(engine, 1)
        write_history(engine, 1, pair=("OPEN", "PAID"), table_name="shop.invoice", column_name="payment")
        assert suggested(project, engine, *options) == TransitionTable("OPEN → PAID")


STATES = ["A", "B", "C", "in review", "a → b", "x|y", "*", " pad ", "", 'it\'s "it"\\', "line\nbreak", "ünï", None]


NO_NAMES = {"*", " pad ", ""}
"""What may stand in a row, and is nothing that a table can name."""


class TestTheSource:
    def test_leaves_out_what_is_no_name_and_says_so(self) -> None:
        source = source_of({("A", "B"): 3, ("A", " pad "): 2, ("", "A"): 1}, {"A": 1, "": 4})
        assert table(source.text) == TransitionTable("A → B", initial="A")
        assert source.remarks == ('No name of a state, so that its moves are left out: "", " pad ".',)

    def test_of_names_that_are_not_plain_has_pairs(self) -> None:
        source = source_of({("a → b", "C"): 3, (None, "a → b"): 2}, {None: 2})
        assert '("a → b", "C"),  # 3' in str(source.text)
        assert '(None, "a → b"),  # 2' in str(source.text)
        assert table(source.text) == TransitionTable(("a → b", "C"), (None, "a → b"), initial=(None,))

    def test_of_a_circle_goes_round_once(self) -> None:
        assert '"A → B → A",  # 9; 8' in str(source_of({("A", "B"): 9, ("B", "A"): 8}, {"A": 1}).text)

    def test_of_a_circle_ends_where_it_closes(self) -> None:
        text = str(source_of({("A", "B"): 9, ("B", "A"): 8, ("A", "C"): 7}, {"A": 1}).text)
        assert '"A → B → A",  # 9; 8' in text
        assert '"A → C",  # 7' in text

    def test_follows_the_most_frequent_move_first(self) -> None:
        text = str(source_of({("A", "B"): 1, ("A", "C"): 5, ("C", "D"): 1, ("C", "E"): 2}, {"A": 1}).text)
        assert [line.strip().split("  ")[0] for line in text.splitlines()[1:-1]] == [
            '"A → C → E",', '"A → B",', '"C → D",', 'initial="A",'
        ]  # fmt: skip

    @given(
        st.dictionaries(
            st.tuples(st.sampled_from(STATES), st.sampled_from(STATES)).filter(lambda pair: pair[0] != pair[1]),
            st.integers(1, 9),
            min_size=1,
            max_size=12,
        ),
        st.dictionaries(st.sampled_from(STATES), st.integers(1, 9), max_size=3),
    )
    def test_evaluates_to_the_table(self, moves: dict[Any, int], initial: dict[Any, int]) -> None:
        named = {pair for pair in moves if not NO_NAMES & {*pair}}
        source = source_of(moves, initial)
        if not named:
            assert source.text is None
            return
        found = table(source.text)
        assert set(found.pairs) == named
        if found.has_initial:
            assert set(found.initial) == set(initial) - NO_NAMES


def test_where_nothing_has_moved_the_status_is_1(project: Project, engine: sa.Engine) -> None:
    make(engine)
    result = project.run("suggest", "--url", engine.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(": nothing has moved yet, so far as ledger and history know.\n")


def test_without_a_ledger_it_can_say_nothing(project: Project, engine: sa.Engine) -> None:
    engine.connect().close()
    result = project.run("suggest", "--url", engine.url)
    assert (result.exit_code, "there is no ledger" in result.stderr) == (2, True)


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_every_driver_will_do(project: Project, databases: Databases, backend: str) -> None:
    engine = sync_engine(databases, backend)
    make(engine)
    write_history(engine, 1)
    (found,) = answer(project, databases.url(backend), 0, "suggest")["columns"]
    assert table(found["source"]) == TransitionTable("READY → PROMOTED")
