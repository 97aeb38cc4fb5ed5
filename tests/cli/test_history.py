"""statekit history: what a row went through, and which rows stay in a state for too long."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import operation, override
from tests.cli.books import answer, lines, make, sync_engine, write_history
from tests.cli.conftest import Project
from tests.history import ways
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql


def stuck(project: Project, engine: sa.Engine, exit_code: int, state: str, *options: str) -> list[Any]:
    data = answer(project, engine, exit_code, "history", "message.status", "--stuck", state, *options)
    return [row["key"] for row in data["rows"]]


class TestOfARow:
    @pytest.mark.parametrize("trigger", [False, True])
    def test_says_when_it_moved_how_and_why(self, project: Project, postgres_engine: sa.Engine, trigger: bool) -> None:
        message = ways.inbox(postgres_engine, trigger=trigger)
        if trigger:
            from statekit.trigger import StateTrigger

            with postgres_engine.begin() as connection:
                for statement in StateTrigger.of(message.__table__.c.status).create_sql(postgres_engine.dialect):
                    connection.exec_driver_sql(statement)
        with Session(postgres_engine) as session:
            session.add(message(id=7))
            session.commit()
            with operation("Promotion"):
                session.get(message, 7).status = "PROMOTED"
                session.commit()
        head, *rows, summary = lines(project, postgres_engine, 0, "history", "message.status", "7")
        assert head.split() == ["when", "from", "to", "kind", "operation", "place", "role"]
        assert [row.split()[2:6] for row in rows] == [
            ["(new)", "READY", "allowed", "tests.cli.test_history:" + rows[0].split("test_history:")[1].split()[0]],
            ["READY", "PROMOTED", "allowed", "Promotion"],
        ]
        assert rows[0][:20].endswith("Z")
        assert summary == "message.status of (7): 2 moves."

    def test_an_override_says_who_and_why(self, project: Project, engine: sa.Engine) -> None:
        message = ways.inbox(engine)
        with Session(engine) as session:
            session.add(message(id=7, status="READY"))
            session.commit()
            with override("ticket 4711", actor="ada"):
                session.get(message, 7).status = "COMPLETED"
                session.commit()
        last = answer(project, engine, 0, "history", "message.status", "7")["rows"][-1]
        assert (last["kind"], last["actor"], last["reason"]) == ("overridden", "ada", "ticket 4711")
        assert (last["source"], last["target"], last["new"]) == ("READY", "COMPLETED", False)

    def test_is_that_of_no_other_row(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 7, 77, 8)
        write_history(engine, 7, column_name="payment")
        write_history(engine, 7, table_name="invoice")
        assert len(answer(project, engine, 0, "history", "message.status", "7")["rows"]) == 1

    @pytest.mark.parametrize("written", ['["7", "a"]', '["7","a"]'])
    def test_of_a_key_of_several_parts_however_it_is_written(
        self, project: Project, engine: sa.Engine, written: str
    ) -> None:
        make(engine)
        write_history(engine, key=written)
        (row,) = answer(project, engine, 0, "history", "message.status", "7", "a")["rows"]
        assert row["key"] == ["7", "a"]

    @pytest.mark.parametrize("part", ['a "quoted" \\ part', "ünïcode → 😀", "tab\tand\nline", "-5", "\x01\x7f"])
    def test_of_a_key_as_the_database_itself_writes_it(self, project: Project, engine: sa.Engine, part: str) -> None:
        make(engine)
        function = "json_array(?, ?)" if engine.dialect.name == "sqlite" else "jsonb_build_array(%s::text, %s::text)"
        with engine.connect() as connection:
            key = str(connection.exec_driver_sql(f"SELECT CAST({function} AS text)", ("7", part)).scalar())
        write_history(engine, key=key)
        result = project.run("history", "--url", engine.url, "--", "message.status", "7", part)
        assert (result.exit_code, "1 move." in result.stdout) == (0, True)

    def test_without_one_the_status_is_1(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 8)
        assert lines(project, engine, 1, "history", "message.status", "7") == ["message.status of (7): no history."]

    def test_of_an_unknown_column_the_known_ones_are_named(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 8)
        result = project.run("history", "massage.status", "8", "--url", engine.url)
        assert (result.exit_code, result.stderr) == (1, "note: the history has message.status.\n")

    def test_where_there_is_none_at_all_it_says_how_to_get_one(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        result = project.run("history", "message.status", "8", "--url", engine.url)
        assert "the history is empty; guard(..., history=True)" in result.stderr

    @on_postgresql
    def test_of_a_table_in_a_schema(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 7, table_name="shop.message")
        write_history(engine, 8)
        assert lines(project, engine, 0, "history", "shop.message.status", "7")[-1].endswith(": 1 move.")
        assert lines(project, engine, 0, "history", "public.message.status", "8")[-1].endswith(": 1 move.")
        assert lines(project, engine, 1, "history", "message.status", "7")[-1].endswith(": no history.")


class TestOfStuckRows:
    def test_names_those_whose_latest_move_was_long_ago(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, 2, 3, days=5)
        write_history(engine, 2, pair=("PROMOTED", "COMPLETED"), days=4)
        write_history(engine, 4, days=1)
        assert stuck(project, engine, 1, "PROMOTED", "--longer-than", "3d") == [["1"], ["3"]]

    def test_the_longest_comes_first(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, days=5)
        write_history(engine, 2, days=8)
        text = lines(project, engine, 1, "history", "message.status", "--stuck", "PROMOTED", "--longer-than", "3d 12h")
        assert [" ".join(line.split()[2:5]) for line in text[1:3]] == ["2 8 days", "1 5 days"]
        assert text[-1] == "2 rows in PROMOTED for longer than 3 days 12 hours, by the history of message.status."

    def test_a_row_that_came_back_is_there_since_then(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, days=5)
        write_history(engine, 1, pair=("PROMOTED", "READY"), days=4)
        write_history(engine, 1, days=1)
        assert stuck(project, engine, 0, "PROMOTED", "--longer-than", "3d") == []

    def test_without_a_length_all_rows_of_the_state_are_named(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, days=0.5)
        assert stuck(project, engine, 1, "PROMOTED") == [["1"]]

    def test_null_is_a_state(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=("READY", None), days=2)
        assert stuck(project, engine, 1, "NULL") == [["1"]]

    def test_none_is_the_status_0(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1)
        text = lines(project, engine, 0, "history", "message.status", "--stuck", "PROMOTED", "--longer-than", "3d")
        assert text == ["no row in PROMOTED for longer than 3 days, by the history of message.status."]

    def test_a_state_that_all_rows_have_left_is_no_mistake(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1)
        assert stuck(project, engine, 0, "READY") == []

    def test_null_that_all_rows_have_left_is_no_mistake(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=(None, "READY"))
        assert stuck(project, engine, 0, "NULL") == []

    def test_a_state_that_the_column_never_had_is_refused(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, 2, new=True, pair=("", "READY"))
        write_history(engine, 1, pair=("READY", None))
        write_history(engine, 1, pair=("READY", "PROMOTTED"), table_name="invoice")
        result = project.run("history", "message.status", "--stuck", "PROMOTTED", "--url", engine.url)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            "Error: --stuck PROMOTTED: the history of message.status has no such state. It has NULL, READY.\n"
        )

    def test_null_before_a_row_was_there_is_no_state(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, new=True)
        result = project.run("history", "message.status", "--stuck", "NULL", "--url", engine.url)
        assert (result.exit_code, "has no such state. It has PROMOTED." in result.stderr) == (2, True)

    def test_of_a_column_without_a_history_is_refused(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        asked = ("history", "massage.status", "--stuck", "PROMOTED", "--url", engine.url)
        empty = project.run(*asked)
        write_history(engine, 1)
        other = project.run(*asked)
        assert (empty.exit_code, other.exit_code) == (2, 2)
        assert "no move of massage.status: it is empty; guard(..., history=True)" in empty.stderr
        assert other.stderr == "Error: The history has no move of massage.status: it has message.status.\n"

    def test_very_many_are_cut_short_for_people(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, *range(203), days=1)
        text = lines(project, engine, 1, "history", "message.status", "--stuck", "PROMOTED")
        assert text[-2:] == [
            "… and 3 more (--json has all).",
            "203 rows in PROMOTED, by the history of message.status.",
        ]
        assert len(stuck(project, engine, 1, "PROMOTED")) == 203

    def test_after_pruning_it_is_still_known(self, project: Project, engine: sa.Engine) -> None:
        make(engine)
        write_history(engine, 1, pair=("READY", "READY"), new=True, days=9)
        write_history(engine, 1, days=5)
        lines(project, engine, 0, "prune", "--history-older-than", "1d")
        assert stuck(project, engine, 1, "PROMOTED", "--longer-than", "3d") == [["1"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "7"], "'status' names no column. Write TABLE.COLUMN"),
        (["message.status"], "Name one row by its KEY, or ask for rows by --stuck STATE."),
        (["message.status", "7", "--stuck", "A"], "Name one row by its KEY, or ask for rows by --stuck STATE."),
        (["message.status", "7", "--longer-than", "3d"], "--longer-than belongs to --stuck STATE."),
    ],
)
def test_what_makes_no_sense_is_refused(
    project: Project, sqlite_engine: sa.Engine, arguments: list[str], said: str
) -> None:
    make(sqlite_engine)
    result = project.run("history", *arguments, "--url", sqlite_engine.url)
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True)


def test_without_its_table_it_can_say_nothing(project: Project, engine: sa.Engine) -> None:
    engine.connect().close()
    result = project.run("history", "message.status", "7", "--url", engine.url)
    assert (result.exit_code, "no table statekit_history" in result.stderr) == (2, True)


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_every_driver_will_do(project: Project, databases: Databases, backend: str) -> None:
    engine = sync_engine(databases, backend)
    make(engine)
    write_history(engine, 7, days=4)
    url = databases.url(backend)
    (row,) = answer(project, url, 0, "history", "message.status", "7")["rows"]
    assert dt.datetime.fromisoformat(row["at"]).tzinfo is not None
    assert len(answer(project, url, 1, "history", "message.status", "--stuck", "PROMOTED")["rows"]) == 1
