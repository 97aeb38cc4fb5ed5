"""statekit promote: whether a guard in "observe" could be switched to "raise"."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import ledger, operation
from tests.cli.books import answer, days_ago, enter, install, lines, make, sync_engine, write_history
from tests.cli.conftest import INBOX, Project
from tests.ledger.books import attached, inbox
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql

OBSERVING = INBOX.replace("class Message(Guarded, Base)", "class Message(Base)").replace(
    "from statekit import", "from statekit import guard,"
)
OBSERVING = (
    OBSERVING.partition("    __transitions__")[0]
    + 'guard(Message.status, TransitionTable("READY → PROMOTED"), on_illegal="observe")\n'
)

OTHER: dict[str, Any] = {"model": "Invoice", "table_name": "invoice"}


def column(project: Project, engine: sa.Engine, exit_code: int, *options: str) -> dict[str, Any]:
    (only,) = answer(project, engine, exit_code, "promote", *options)["columns"]
    found: dict[str, Any] = only
    return found


def verdict(project: Project, engine: sa.Engine, exit_code: int, *options: str) -> tuple[str, str]:
    found = column(project, engine, exit_code, *options)
    return found["verdict"], found["why"]


class TestNotYet:
    def test_with_an_illegal_move_in_the_period(self, project: Project, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", on_illegal="observe")
        with attached(engine), operation("Spam capture"), Session(engine) as session:
            for each in session.scalars(sa.select(message)):
                each.status = "SPAM_REVIEW"
            session.commit()
        enter(engine, kind="observed", days=20)
        first, head, row = lines(project, engine, 1, "promote")
        assert first == "message.status: not yet: 1 illegal move in 14 days (1 observed)"
        assert head.split() == ["move", "kind", "number", "operation", "place", "first", "last", "such", "as"]
        assert row.split()[:7] == ["PROMOTED", "→", "SPAM_REVIEW", "observed", "1", "Spam", "capture"]
        assert row.split()[7].startswith("tests.cli.test_promote:")
        assert row.endswith("Z  1")

    def test_moves_are_told_apart_by_pair_operation_and_place(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 1, kind="observed", operation="a", place="x:1")
        enter(engine, 2, kind="observed", operation="a", place="x:2", days=1)
        enter(engine, 3, kind="observed", operation="b", place="x:2")
        enter(engine, 4, ("A", "B"), kind="observed", operation="b", place="x:2")
        enter(engine, 5, kind="observed", operation="a", place="x:2", days=3)
        moves = column(project, engine, 1)["moves"]
        assert [(each["source"], each["operation"], each["place"], each["number"]) for each in moves] == [
            ("PROMOTED", "a", "x:2", 7),
            ("A", "b", "x:2", 4),
            ("PROMOTED", "b", "x:2", 3),
            ("PROMOTED", "a", "x:1", 1),
        ]
        first, last = (dt.datetime.fromisoformat(moves[0][name]) for name in ("first", "last"))
        assert (first, last) == (days_ago(3), days_ago(1))

    def test_the_latest_rows_are_examples(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        for identities in ([[1], [2]], [[3], [2]], [["a", 4], [3]]):
            enter(engine, kind="observed", identities=identities)
        enter(engine, 9, ("A", "B"), kind="observed", identities=[[7]])
        others, moves = column(project, engine, 1)["moves"]
        assert (moves["examples"], others["examples"]) == ([["a", 4], [3], [2]], [[7]])
        assert lines(project, engine, 1, "promote")[-1].endswith("(a, 4), 3, 2")

    def test_blocked_moves_count_too(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=30)
        enter(engine, 3)
        assert verdict(project, engine, 1) == ("not yet", "3 illegal moves in 14 days (3 blocked)")

    def test_the_period_may_be_chosen(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=3)
        enter(engine, kind="overridden", days=30)
        assert verdict(project, engine, 0, "--days", "2")[0] == "ready"
        assert verdict(project, engine, 1, "--days", "4")[0] == "not yet"

    def test_one_column_that_is_not_ready_is_enough(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=30)
        enter(engine, kind="observed", **OTHER)
        found = answer(project, engine, 1, "promote")["columns"]
        assert [(each["table"], each["verdict"]) for each in found] == [("invoice", "not yet"), ("message", "ready")]
        assert column(project, engine, 0, "--table", "message")["verdict"] == "ready"


class TestReady:
    def test_without_an_illegal_move_in_the_period(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=15)
        (text,) = lines(project, engine, 0, "promote")
        assert text == (
            f"message.status: ready: no illegal move in 14 days (known since {days_ago(15):%Y-%m-%d %H:%M:%S}Z)"
        )

    def test_repairs_are_no_illegal_moves(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=15)
        enter(engine, kind="overridden")
        assert verdict(project, engine, 0)[0] == "ready"

    def test_the_history_shows_since_when_a_column_is_known(self, project: Project, engine: sa.Engine) -> None:
        project.write(OBSERVING)
        make(engine)
        enter(engine, kind="observed", days=40, **OTHER)
        write_history(engine, 1, days=20)
        assert f"(known since {days_ago(20):%Y-%m-%d}" in verdict(project, engine, 0, project.models)[1]

    def test_of_a_column_without_an_old_entry_a_doubt_remains(self, project: Project, engine: sa.Engine) -> None:
        project.write(OBSERVING)
        make(engine)
        enter(engine, kind="observed", days=40, **OTHER)
        write_history(engine, 1, days=5)
        ready, why = verdict(project, engine, 0, project.models)
        assert ready == "ready"
        assert "none of this column that is as old: make sure that the guard has been deployed for as long" in why


class TestOfATrigger:
    @on_postgresql
    def test_what_only_it_has_observed_is_noted(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        for state in ("SPAM_REVIEW", "PROMOTED", "SPAM_REVIEW"):
            with engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE message SET status = '{state}' WHERE id = 1")
        found = column(project, engine, 0)
        assert (found["observed"], found["observed_by_trigger"]) == (1, 3)
        assert lines(project, engine, 0, "promote")[1] == (
            "  note: its trigger has observed 3 moves in all, and the ledger 1: the others came from other programs, "
            "and a trigger does not know when"
        )

    @on_postgresql
    def test_what_the_ledger_has_as_well_is_not(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert len(lines(project, engine, 0, "promote")) == 1


class TestNotKnown:
    def test_where_the_ledger_is_empty(self, project: Project, engine: sa.Engine) -> None:
        project.write(OBSERVING)
        make(engine)
        assert verdict(project, engine, 1, project.models) == (
            "not known",
            "the ledger is empty, so that nobody knows since when it is written",
        )
        assert lines(project, engine, 1, "promote") == ["the ledger is empty, so that nothing is known."]

    def test_where_the_ledger_is_younger_than_the_period(self, project: Project, engine: sa.Engine) -> None:
        project.write(OBSERVING)
        make(engine)
        enter(engine, days=13, **OTHER)
        unknown, why = verdict(project, engine, 1, project.models)
        assert (unknown, "complete only since" in why) == ("not known", True)

    def test_where_entries_of_the_period_were_pruned(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=40)
        enter(engine, kind="observed", days=10)
        with engine.connect() as connection:
            ledger.prune(connection, older_than=dt.timedelta(days=7))
        assert verdict(project, engine, 1)[0] == "not known"
        assert verdict(project, engine, 0, "--days", "6")[0] == "ready"

    def test_where_moves_had_to_be_left_out(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=40)
        enter(engine, 9, kind="dropped", model=None, attribute=None, table_name=None)
        unknown, why = verdict(project, engine, 1)
        assert (unknown, why.startswith("9 moves in 14 days had to be left out")) == ("not known", True)

    def test_where_nothing_was_ever_observed(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 3, days=40)
        (text,) = lines(project, engine, 1, "promote")
        assert text.startswith("nothing was ever observed. With MODELS, the guards")


class TestWithModels:
    def test_only_guards_in_observe_are_judged(self, project: Project, engine: sa.Engine) -> None:
        project.write(INBOX)
        make(engine)
        enter(engine, kind="observed", days=40)
        assert lines(project, engine, 0, "promote", project.models) == ['no guard is in "observe".']

    def test_their_moves_are_found(self, project: Project, engine: sa.Engine) -> None:
        project.write(OBSERVING)
        make(engine)
        enter(engine, 3, kind="observed")
        enter(engine, 5, kind="observed", **OTHER)
        assert verdict(project, engine, 1, project.models) == ("not yet", "3 illegal moves in 14 days (3 observed)")


def test_without_a_ledger_it_can_say_nothing(project: Project, engine: sa.Engine) -> None:
    engine.connect().close()
    result = project.run("promote", "--url", engine.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no ledger (no table statekit_ledger). Add it to your models and migrate" in result.stderr


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_every_driver_will_do(project: Project, databases: Databases, backend: str) -> None:
    engine = sync_engine(databases, backend)
    make(engine)
    enter(engine, 2, kind="observed", identities=[[1]])
    (found,) = answer(project, databases.url(backend), 1, "promote")["columns"]
    assert [(each["number"], each["examples"]) for each in found["moves"]] == [(2, [[1]])]
