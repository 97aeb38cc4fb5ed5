"""statekit promote: whether a guard in "observe" could be switched to "raise"."""

from __future__ import annotations

import datetime as dt
import uuid
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


def observe_three(engine: sa.Engine) -> None:
    """Make three illegal moves that a trigger in "observe" counts, and no guard sees."""
    for state in ("SPAM_REVIEW", "PROMOTED", "SPAM_REVIEW"):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE message SET status = '{state}' WHERE id = 1")


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
    def test_with_what_only_it_has_observed_nobody_knows(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        observe_three(engine)
        found = column(project, engine, 1)
        assert (found["observed"], found["observed_by_trigger"]) == (1, 3)
        assert lines(project, engine, 1, "promote") == [
            "message.status: not known: no illegal move in 14 days, but its trigger has observed 2 moves that the "
            "ledger does not have",
            "  note: its trigger has observed 3 moves in all, and the ledger has 1 of them: the others were seen by no "
            "guard with a ledger: SQL text, other programs, or before the ledger was attached (a trigger does not know "
            "when)",
        ]

    @on_postgresql
    def test_what_was_overridden_is_explained(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        enter(engine, 2, kind="overridden", days=15)
        observe_three(engine)
        assert column(project, engine, 0)["verdict"] == "ready"

    @on_postgresql
    def test_what_was_overridden_of_another_column_is_not(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        enter(engine, 2, kind="overridden", days=15, **OTHER)
        observe_three(engine)
        assert column(project, engine, 1)["verdict"] == "not known"

    @on_postgresql
    def test_a_role_that_may_not_read_them_is_told_so(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        observe_three(engine)
        role = f"statekit_reader_{uuid.uuid4().hex[:12]}"
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'very-secret'")
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        try:
            result = project.run("promote", "--url", engine.url.set(username=role, password="very-secret"))
        finally:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")
        assert (result.exit_code, "message.status: ready" in result.stdout) == (0, True)
        assert result.stderr == "note: what triggers have observed may not be read by this role, and is left out.\n"

    @on_postgresql
    def test_a_move_in_the_period_says_more(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed")
        observe_three(engine)
        first, note, *_ = lines(project, engine, 1, "promote")
        assert (": not yet: 1 illegal move" in first, note.startswith("  note: its trigger")) == (True, True)

    @on_postgresql
    def test_what_the_ledger_has_as_well_is_not(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, kind="observed", days=15)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert len(lines(project, engine, 0, "promote")) == 1


class TestSinceATime:
    def test_what_was_before_is_mended(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=30)
        enter(engine, kind="observed", days=3)
        assert verdict(project, engine, 0, "--since", "2d")[0] == "ready"
        assert verdict(project, engine, 1, "--since", "4d")[0] == "not yet"

    def test_the_verdict_names_it(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed", days=30)
        moment = days_ago(20).replace(microsecond=0, tzinfo=None)
        why = verdict(project, engine, 0, "--since", moment.isoformat())[1]
        assert why.startswith(f"no illegal move since {moment}Z (known since ")

    def test_it_takes_the_place_of_the_days(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        data = answer(project, engine, 1, "promote", "--since", "2026-01-02T03:04")
        assert (data["days"], data["since"]) == (None, "2026-01-02T03:04:00Z")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--since", "2d", "--days", "14"], "--days and --since exclude each other"),
            (["--since", "2999-01-01"], "--since 2999-01-01 00:00:00Z is yet to come."),
            (["--since", "soon"], "Invalid value for '--since'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, project: Project, sqlite_engine: sa.Engine, options: list[str], said: str
    ) -> None:
        make(sqlite_engine)
        result = project.run("promote", *options, "--url", sqlite_engine.url)
        assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True)


class TestOfATable:
    def test_that_is_nowhere_it_can_say_nothing(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, kind="observed")
        result = project.run("promote", "--table", "massage", "--url", engine.url)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: --table massage: ")
        assert result.stderr.endswith(" has no such table, and nothing was counted for one.\n")

    def test_that_is_there_nothing_was_observed(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine)
        assert "nothing is known" in lines(project, engine, 1, "promote", "--table", "message")[0]

    def test_that_only_the_ledger_knows_is_no_mistake(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 3)
        assert "nothing was ever observed" in lines(project, engine, 1, "promote", "--table", "message")[0]


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
