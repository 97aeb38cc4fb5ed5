"""statekit trigger: the SQL that it prints does what it is for, through the databases' own programs too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from statekit.trigger import StateTrigger
from statekit.trigger.catalog import installed
from tests.cli.conftest import INBOX, Project
from tests.support.databases import Databases, on_postgresql

CREATE = "CREATE TABLE message (id integer PRIMARY KEY, status varchar(20))"

TWO = """
import sqlalchemy as sa
from statekit import TransitionTable, guard

tables = sa.MetaData()
for schema, name in [(None, "message"), ("shop", "message"), (None, "invoice")]:
    table = sa.Table(name, tables, sa.Column("status", sa.Text), sa.Column("payment", sa.Text), schema=schema)
    guard(table.c.status, TransitionTable("A → B"))
    guard(table.c.payment, TransitionTable("A → B"), trigger=False if name == "invoice" else None)
"""


def printed(project: Project, *arguments: str) -> str:
    result = project.run("trigger", project.models, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def headings(project: Project, *arguments: str) -> list[str]:
    lines = printed(project, *arguments).splitlines()[1:]
    return [line.removeprefix("-- ").partition(": ")[0] for line in lines if line.startswith("-- ")]


def made(engine: sa.Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        return [(each.trigger.full_table, len(each.problems)) for each in installed(connection)]


def test_sqlite_executes_it(inbox: Project, sqlite_engine: sa.Engine) -> None:
    with sqlite3.connect(sqlite_engine.url.database or "") as connection:
        connection.executescript(f"{CREATE};")
        connection.executescript(printed(inbox, "--dialect", "sqlite"))
        connection.executescript(printed(inbox, "--dialect", "sqlite"))
        with pytest.raises(sqlite3.IntegrityError, match="a new row cannot start in COMPLETED"):
            connection.execute("INSERT INTO message (status) VALUES ('COMPLETED')")
    connection.close()
    assert made(sqlite_engine) == [("message", 0)]


@on_postgresql
def test_postgresql_executes_it(inbox: Project, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE)
        for _ in range(2):
            connection.connection.cursor().execute(printed(inbox))
    assert made(engine) == [("message", 0)]


@on_postgresql
def test_what_it_prints_to_drop_drops(inbox: Project, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE)
        connection.connection.cursor().execute(printed(inbox))
        connection.connection.cursor().execute(printed(inbox, "--drop"))
    assert made(engine) == []


def test_sqlite_drops_it(inbox: Project, sqlite_engine: sa.Engine) -> None:
    with sqlite3.connect(sqlite_engine.url.database or "") as connection:
        connection.executescript(f"{CREATE};")
        connection.executescript(printed(inbox, "--dialect", "sqlite"))
        connection.executescript(printed(inbox, "--dialect", "sqlite", "--drop"))
    connection.close()
    assert made(sqlite_engine) == []


ODD = INBOX.replace('"message"', r'''"it's; a \"100 %\" table\n:name"''').replace(
    "SPAM_REVIEW", r"it's 'SPAM' :x \\ %s"
)
"""A table and a state with what means something to the databases' programs."""


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not on this machine")
@pytest.mark.parametrize("models", [INBOX, ODD])
def test_psql_executes_it(project: Project, databases: Databases, tmp_path: Path, models: str) -> None:
    module = project.write(models)
    engine = databases.engine("psycopg")
    url = databases.url("psycopg").set(drivername="postgresql")
    file = tmp_path / "triggers.sql"
    file.write_text(printed(project), "utf-8")
    __import__(module).Base.metadata.create_all(engine)
    done = subprocess.run(
        [
            "psql",
            "-X",
            "-q",
            "--single-transaction",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            str(file),
            url.render_as_string(False),
        ],
        env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [problems for _, problems in made(engine)] == [0]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not on this machine")
@pytest.mark.parametrize("models", [INBOX, ODD])
def test_the_program_sqlite3_executes_it(project: Project, sqlite_engine: sa.Engine, models: str) -> None:
    module = project.write(models)
    text = printed(project, "--dialect", "sqlite")
    __import__(module).Base.metadata.create_all(sqlite_engine)
    done = subprocess.run(
        ["sqlite3", "-bail", sqlite_engine.url.database or ""], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [problems for _, problems in made(sqlite_engine)] == [0]


def test_a_comment_names_the_column_before_each_trigger(project: Project) -> None:
    project.write(TWO)
    assert headings(project) == [
        "invoice.status", "message.status", "message.payment", "shop.message.status", "shop.message.payment"
    ]  # fmt: skip


def test_no_name_ends_its_comment(project: Project) -> None:
    project.write(INBOX.replace('"message"', r'"message\nDROP TABLE message; --"'))
    assert "\nDROP TABLE message" not in printed(project, "--dialect", "sqlite").partition("\nCREATE")[0]
    assert headings(project)[0].startswith(r"'message\nDROP TABLE message; --.status'")


def test_each_statement_ends_with_a_semicolon(inbox: Project) -> None:
    moves = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]
    statements = StateTrigger("message", "status", moves, initial=["READY"]).create_sql("postgresql")
    text = printed(inbox)
    assert [statement for statement in statements if f"\n{statement};\n" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--table", "invoice"], ["invoice.status"]),
        (["--table", "shop.message"], ["shop.message.status", "shop.message.payment"]),
        (["--table", "message", "--column", "payment"], ["message.payment", "shop.message.payment"]),
        (
            ["--table", "invoice", "--table", "shop.message", "--column", "status"],
            ["invoice.status", "shop.message.status"],
        ),
        (["--column", "payment", "--drop"], ["message.payment", "shop.message.payment"]),
    ],
)
def test_tables_and_columns_may_be_chosen(project: Project, arguments: list[str], chosen: list[str]) -> None:
    project.write(TWO)
    assert headings(project, *arguments) == chosen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--table", "massage"],
            "--table massage: {} has no guarded table of that name; it has invoice, message, shop.message.",
        ),
        (
            ["--table", "invoice", "--column", "id"],
            "--column id: no guarded column of that name; there are invoice.status, invoice.payment.",
        ),
        (
            ["--table", "invoice", "--column", "payment"],
            "{}: what was asked for is declared with trigger=False, so that it has no trigger.",
        ),
    ],
)
def test_what_is_not_there_is_said(project: Project, arguments: list[str], said: str) -> None:
    project.write(TWO)
    result = project.run("trigger", project.models, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {said.format(project.models)}\n"


def test_an_error_of_statekit_is_one_message(project: Project) -> None:
    project.write(INBOX.replace('"message"', r'"mess\0age"'))
    result = project.run("trigger", project.models)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "Error: StateTrigger('mess\\x00age', 'status'): the name of the table contains a NUL"
    )


def test_another_dialect_is_refused(inbox: Project) -> None:
    result = inbox.run("trigger", inbox.models, "--dialect", "mysql")
    assert (result.exit_code, "'mysql' is not one of 'postgresql', 'sqlite'" in result.stderr) == (2, True)


def test_a_process_prints_it_as_utf_8(project: Project) -> None:
    project.write(INBOX.replace("SPAM_REVIEW", "SPAM_😀"))
    done = project.process("trigger", project.models, LC_ALL="C", PYTHONIOENCODING="")
    assert (done.returncode, "SPAM_😀" in done.stdout, done.stderr) == (0, True, "")


def test_an_error_of_a_process_has_no_traceback(inbox: Project) -> None:
    done = inbox.process("trigger", f"{inbox.models}:Bse")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: {inbox.models} has no attribute 'Bse'. Allowed: {inbox.models}:Base.\n"
