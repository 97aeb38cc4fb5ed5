"""statekit counts: the illegal moves of the ledger and of the triggers."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.orm import Session

from statekit import IllegalTransition, ledger, operation
from statekit.cli.main import main
from tests.cli.books import answer, be_refused, enter, install, lines, make, sync_engine
from tests.cli.conftest import Project
from tests.ledger.books import attached, capture, inbox
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql, on_sqlite


def rows(project: Project, engine: sa.Engine, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer(project, engine, 0, "counts", *options)["rows"]
    return found


def numbers(project: Project, engine: sa.Engine, name: str, *options: str) -> dict[str | None, int]:
    return {row[name]: row["ledger"] for row in rows(project, engine, "--by", name, *options)}


def prune(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        ledger.prune(connection, older_than=dt.timedelta(0))


class TestOfTheLedger:
    @on_sqlite
    def test_a_guards_blocked_moves_are_counted_by_model_and_move(self, project: Project, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED", "PROMOTED")
        with attached(engine), Session(engine) as session:
            capture(session, message, 1, 2)
        assert lines(project, engine, 0, "counts") == [
            "model           move                    ledger",
            "Message.status  PROMOTED → SPAM_REVIEW       2",
            "2 blocked moves in the ledger.",
        ]

    def test_who_made_them_is_said_by_operation_and_place(self, project: Project, engine: sa.Engine) -> None:
        message = inbox(engine, "PROMOTED")
        with attached(engine), operation("Spam capture"), Session(engine) as session:
            capture(session, message, 1)
        (row,) = rows(project, engine, "--by", "operation", "--by", "place")
        assert (row["operation"], row["ledger"], row["known"]) == ("Spam capture", 1, True)
        assert row["place"].startswith("tests.ledger.books:")

    def test_the_most_frequent_come_first(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        for number, pair in ((2, ("A", "B")), (7, ("B", "A")), (1, ("A", "B"))):
            enter(engine, number, pair)
        assert [(row["source"], row["ledger"]) for row in rows(project, engine)] == [("B", 7), ("A", 3)]

    def test_days_are_those_of_utc_in_their_order(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        for number, days in ((9, 0), (1, 3), (2, 3)):
            enter(engine, number, days=days)
        found = numbers(project, engine, "day")
        assert list(found.values()) == [3, 9]
        assert list(found) == sorted(str(day) for day in found)

    def test_new_rows_are_told_apart_from_rows_in_null(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 1, (None, "B"), is_new=True)
        enter(engine, 2, (None, "B"))
        found = lines(project, engine, 0, "counts", "--by", "move")
        assert [line.split("  ")[0] for line in found[1:3]] == ["NULL → B", "(new) → B"]

    @pytest.mark.parametrize("kind", ["observed", "overridden", "trigger"])
    def test_another_kind_may_be_asked_for(self, project: Project, engine: sa.Engine, kind: str) -> None:
        make(engine)
        enter(engine, 3, kind=kind)
        enter(engine, 5)
        assert answer(project, engine, 0, "counts", "--kind", kind)["ledger"] == 3

    def test_nothing_is_said_where_there_is_nothing(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        assert lines(project, engine, 0, "counts") == ["nothing was blocked."]

    def test_a_text_that_would_command_a_terminal_is_quoted(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, operation="a\x1b[31m\nb")
        assert r"'a\x1b[31m\nb'" in lines(project, engine, 0, "counts", "--by", "operation")[1]


class TestWhereNothingWasBlocked:
    @pytest.mark.parametrize(("days", "note"), [("4d", "18 observed moves"), ("2d", "1 observed move")])
    def test_what_was_observed_then_is_noted(self, project: Project, engine: sa.Engine, days: str, note: str) -> None:
        make(engine)
        enter(engine, 1, kind="observed")
        enter(engine, 17, kind="observed", days=3)
        enter(engine, 5, days=9)
        result = project.run("counts", "--since", days, "--url", engine.url)
        assert f"note: {note}: --kind observed\n" in result.stderr

    def test_what_was_observed_of_another_table_is_not(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine)
        enter(engine, kind="observed", table_name="invoice")
        assert project.run("counts", "--table", "message", "--url", engine.url).stderr == ""

    def test_of_what_was_blocked_there_is_no_note(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine)
        enter(engine, kind="observed")
        assert project.run("counts", "--url", engine.url).stderr == ""

    @on_postgresql
    def test_what_a_trigger_has_observed_as_well_is_the_same(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        enter(engine, 3, kind="observed")
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert project.run("counts", "--url", engine.url).stderr == "note: 3 observed moves: --kind observed\n"

    @on_postgresql
    def test_what_only_a_trigger_has_observed_is_noted(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        install(engine, on_illegal="observe")
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert project.run("counts", "--url", engine.url).stderr == "note: 1 observed move: --kind observed\n"


class TestOfATime:
    @pytest.mark.parametrize(
        ("options", "number"),
        [
            (("--since", "2d"), 1),
            (("--since", "4d"), 3),
            (("--until", "2d"), 2),
            (("--since", "4d", "--until", "2d"), 2),
        ],
    )
    def test_only_its_entries_are_counted(
        self, project: Project, engine: sa.Engine, options: tuple[str, ...], number: int
    ) -> None:
        make(engine)
        enter(engine, 1)
        enter(engine, 2, days=3)
        assert answer(project, engine, 0, "counts", *options)["ledger"] == number

    @pytest.mark.parametrize(
        ("since", "until"),
        [("2026-11-20", "2026-11-21"), ("2026-11-20T23:00", "2026-11-21 00:00"), ("2026-11-21T00:30+01:00", "1s")],
    )
    def test_without_a_zone_it_is_in_utc(self, project: Project, engine: sa.Engine, since: str, until: str) -> None:
        make(engine)
        enter(engine, at=dt.datetime.fromisoformat("2026-11-20T23:45:00+00:00"))
        assert answer(project, engine, 0, "counts", "--since", since, "--until", until)["ledger"] == 1

    @pytest.mark.parametrize("time", ["soon", "7 fortnights", "2026-13-01", "99999999d", ""])
    def test_what_is_none_is_refused(self, project: Project, sqlite_engine: sa.Engine, time: str) -> None:
        make(sqlite_engine)
        result = project.run("counts", "--url", sqlite_engine.url, "--since", time)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Invalid value for '--since'" in result.stderr

    def test_its_end_must_be_after_its_start(self, project: Project, sqlite_engine: sa.Engine) -> None:
        make(sqlite_engine)
        result = project.run("counts", "--url", sqlite_engine.url, "--since", "1d", "--until", "2d")
        assert (result.exit_code, "is not after" in result.stderr) == (2, True)


class TestOfWhatWasPruned:
    def test_the_sum_stays(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 3, days=1)
        prune(engine)
        enter(engine, 4)
        assert [row["ledger"] for row in rows(project, engine)] == [7]

    def test_its_operation_is_not_known(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 3, days=1, operation="job")
        prune(engine)
        enter(engine, 4)
        found = {row["known"]: row["ledger"] for row in rows(project, engine, "--by", "operation")}
        assert found == {False: 3, True: 4}
        text = lines(project, engine, 0, "counts", "--by", "operation")
        assert [line.split("  ")[0] for line in text[1:-1]] == ["(none)", "(not known)"]

    def test_a_time_that_reaches_into_it_is_noted(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 3, days=1)
        prune(engine)
        result = project.run("counts", "--url", engine.url, "--since", "3d")
        assert "were pruned, and only their sums are left." in result.stderr
        assert result.stdout.endswith(": no entry is left of what was blocked then.\n")


class TestOfTriggers:
    @on_postgresql
    def test_their_counters_stand_beside_the_ledger(self, project: Project, engine: sa.Engine) -> None:
        install(engine)
        make(engine)
        enter(engine, 5)
        be_refused(engine)
        be_refused(engine, "INSERT INTO message VALUES (7, 'COMPLETED')")
        assert lines(project, engine, 0, "counts") == [
            "model           move                    ledger  triggers",
            "Message.status  PROMOTED → SPAM_REVIEW       5         1",
            "Message.status  (new) → COMPLETED            0         1",
            "7 blocked moves: 5 in the ledger, 2 counted by triggers.",
        ]

    @on_postgresql
    def test_they_know_no_operation(self, project: Project, engine: sa.Engine) -> None:
        install(engine)
        make(engine)
        enter(engine, 5, operation="job")
        be_refused(engine)
        found = [
            (row["operation"], row["known"], row["ledger"], row["triggers"])
            for row in rows(project, engine, "--by", "operation")
        ]
        assert found == [("job", True, 5, 0), (None, False, 0, 1)]

    @on_postgresql
    def test_what_statekit_saw_of_a_refusal_is_no_move_of_its_own(self, project: Project, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        install(engine, creates_table=False)
        with attached(engine), operation("Spam capture"), engine.connect() as connection:
            with pytest.raises(IllegalTransition):
                connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW'")
            connection.rollback()
        data = answer(project, engine, 0, "counts")
        assert (data["ledger"], data["triggers"]) == (0, 1)
        data = answer(project, engine, 0, "counts", "--kind", "trigger", "--by", "operation")
        assert (data["rows"][0]["operation"], data["ledger"], data["triggers"]) == ("Spam capture", 1, None)

    @on_postgresql
    def test_they_are_left_out_where_a_time_is_asked_for(self, project: Project, engine: sa.Engine) -> None:
        install(engine)
        make(engine)
        be_refused(engine)
        result = project.run("counts", "--url", engine.url, "--since", "1d")
        assert "their counters know no time" in result.stderr
        assert result.stdout.endswith(": nothing was blocked.\n")

    @on_postgresql
    def test_they_are_counted_without_a_ledger(self, project: Project, engine: sa.Engine) -> None:
        install(engine)
        be_refused(engine)
        result = project.run("counts", "--url", engine.url)
        assert (result.exit_code, "there is no ledger (no table statekit_ledger)" in result.stderr) == (0, True)
        *table, summary = result.stdout.splitlines()
        assert table == [
            "model           move                    triggers",
            "message.status  PROMOTED → SPAM_REVIEW         1",
        ]
        assert summary.endswith(": 1 blocked move counted by triggers.")

    @on_postgresql
    def test_what_they_observed_is_no_other_move(self, project: Project, engine: sa.Engine) -> None:
        install(engine, on_illegal="observe")
        make(engine)
        enter(engine, 1, kind="observed")
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert lines(project, engine, 0, "counts", "--kind", "observed")[-1] == (
            "1 observed move in the ledger, 1 counted by triggers; they may be the same."
        )
        assert lines(project, engine, 0, "counts") == ["nothing was blocked."]

    @on_postgresql
    def test_a_role_that_may_not_read_them_is_told_how(
        self, project: Project, engine: sa.Engine, databases: Databases
    ) -> None:
        install(engine)
        make(engine)
        role = f"statekit_reader_{uuid.uuid4().hex[:12]}"
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'very-secret'")
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        try:
            url = engine.url.set(username=role, password="very-secret")
            result = project.run("counts", "--url", url)
        finally:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Error: The role {role} may not read what triggers have counted.")
        assert "very-secret" not in result.output


class TestOfATable:
    def test_only_its_moves_are_counted(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        enter(engine, 1)
        enter(engine, 2, table_name="shop.invoice")
        for name, number in (("message", 1), ("invoice", 2), ("shop.invoice", 2)):
            assert answer(project, engine, 0, "counts", "--table", name)["ledger"] == number

    @on_postgresql
    def test_the_default_schema_may_be_named(self, project: Project, engine: sa.Engine) -> None:
        install(engine)
        make(engine)
        enter(engine, 1)
        be_refused(engine)
        data = answer(project, engine, 0, "counts", "--table", "public.message")
        assert (data["ledger"], data["triggers"]) == (1, 1)

    def test_one_that_is_not_there_is_refused(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        result = project.run("counts", "--url", engine.url, "--table", "massage")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: --table massage: ")


class TestWithoutALedger:
    @on_sqlite
    def test_nothing_is_known(self, project: Project, engine: sa.Engine) -> None:
        engine.connect().close()
        result = project.run("counts", "--url", engine.url)
        assert (result.exit_code, "there is no ledger" in result.stderr) == (0, True)
        assert result.stdout.endswith(": nothing is known of what was blocked.\n")


class TestOfColours:
    def headings(self, engine: sa.Engine, **options: Any) -> str:
        make(engine)
        enter(engine)
        url = engine.url.render_as_string(hide_password=False)
        return CliRunner().invoke(main, ["counts", "--url", url], **options).stdout.splitlines()[0]

    def test_there_are_none_outside_of_a_terminal(self, sqlite_engine: sa.Engine) -> None:
        assert self.headings(sqlite_engine).isprintable()

    def test_there_are_some_in_a_terminal(self, sqlite_engine: sa.Engine) -> None:
        assert "\x1b[" in self.headings(sqlite_engine, color=True)

    def test_there_are_none_where_they_are_not_wanted(self, sqlite_engine: sa.Engine) -> None:
        assert self.headings(sqlite_engine, color=True, env={"NO_COLOR": "1"}).isprintable()


@on_postgresql
def test_the_ledger_may_be_in_a_schema(project: Project, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA audit")
    make(engine, "audit")
    enter(engine, 4, schema="audit")
    assert answer(project, engine, 0, "counts", "--schema", "audit")["ledger"] == 4


def test_what_was_left_out_of_the_ledger_is_noted(project: Project, engine: sa.Engine) -> None:
    make(engine)
    enter(engine, 9, (None, None), kind="dropped", model=None, attribute=None, table_name=None)
    result = project.run("counts", "--url", engine.url)
    assert "9 moves had to be left out of the ledger" in result.stderr


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_every_driver_will_do(project: Project, databases: Databases, backend: str) -> None:
    engine = sync_engine(databases, backend)
    make(engine)
    enter(engine, 2, operation="job")
    options = ["--by", "day", "--by", "operation", "--since", "1d"]
    assert answer(project, databases.url(backend), 0, "counts", *options)["ledger"] == 2


def test_the_url_may_come_from_the_environment(project: Project, engine: sa.Engine) -> None:
    make(engine)
    url = engine.url.render_as_string(hide_password=False)
    assert project.run("counts", STATEKIT_URL=url).stdout.endswith(": nothing was blocked.\n")


def test_the_json_has_everything(project: Project, engine: sa.Engine) -> None:
    make(engine)
    enter(engine, 2)
    triggers = 0 if engine.dialect.name == "postgresql" else None
    assert answer(project, engine, 0, "counts") == {
        "database": engine.dialect.name,
        "kind": "blocked",
        "by": ["model", "move"],
        "since": None,
        "until": None,
        "ledger": 2,
        "triggers": triggers,
        "rows": [
            {
                "table": "message",
                "model": "Message",
                "attribute": "status",
                "source": "PROMOTED",
                "target": "SPAM_REVIEW",
                "new": False,
                "ledger": 2,
                "triggers": triggers,
            }
        ],
        "notes": [],
    }
