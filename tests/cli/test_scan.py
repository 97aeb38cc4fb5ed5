"""statekit scan: the rows of each guarded column by state, and which of them break the rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from statekit.cli.database import read
from statekit.cli.errors import Failure
from tests.cli.conftest import INBOX, Project
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql, on_sqlite

CREATE = "CREATE TABLE message (id integer PRIMARY KEY, status varchar(20))"
STATES = ("READY", "READY", "COMPLETED", "ARCHIVED", None, "ARCHIVED", "ready ", "ARCHIVED", "ARCHIVED")


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def fill(engine: sa.Engine, *states: str | None, create: str = CREATE) -> None:
    """Make the table, with messages 1, 2, 3, … in these states."""
    execute(engine, create)
    with engine.begin() as connection:
        for number, state in enumerate(states, 1):
            connection.execute(sa.text("INSERT INTO message (id, status) VALUES (:n, :s)"), {"n": number, "s": state})


def answer(project: Project, engine: sa.Engine, exit_code: int, *options: str) -> dict[str, Any]:
    """Return the JSON that the command prints."""
    result = project.run("scan", project.models, "--url", engine.url, "--json", *options)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def only(project: Project, engine: sa.Engine, exit_code: int, *options: str) -> dict[str, Any]:
    (column,) = answer(project, engine, exit_code, *options)["columns"]
    found: dict[str, Any] = column
    return found


def numbers(column: dict[str, Any]) -> dict[str | None, int]:
    return {each["state"]: each["rows"] for each in column["states"]}


def unknown(column: dict[str, Any]) -> dict[str | None, list[dict[str, str]]]:
    return {each["state"]: each["examples"] for each in column["states"] if not each["known"]}


def lines(project: Project, engine: sa.Engine, exit_code: int, *options: str) -> list[str]:
    result = project.run("scan", project.models, "--url", engine.url, *options)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return result.stdout.splitlines()


def test_rows_that_fit_are_counted_by_state(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, "READY", "COMPLETED", "READY")
    *report, summary = lines(inbox, engine, 0)
    assert report == [
        "message.status: 3 rows",
        "  READY        2",
        "  SPAM_REVIEW  0",
        "  PROMOTED     0",
        "  COMPLETED    1  no way out",
    ]
    assert summary.endswith(": 1 guarded column, 0 rows that break the rule.")


def test_rows_in_unknown_states_break_the_rule(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, *STATES)
    *report, summary = lines(inbox, engine, 1)
    assert report == [
        "message.status: 9 rows",
        "  READY        2",
        "  SPAM_REVIEW  0",
        "  PROMOTED     0",
        "  COMPLETED    1  no way out",
        "  'ARCHIVED'   4  no state of the table, such as in (id=4), (id=6), (id=8)",
        "  NULL         1  no state of the table, such as in (id=5)",
        "  'ready '     1  no state of the table, such as in (id=7)",
    ]
    assert "1 guarded column, 6 rows that break the rule (move them into a state of the table" in summary


def test_as_json(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, "COMPLETED", "LOST")
    assert answer(inbox, engine, 1) == {
        "database": engine.dialect.name,
        "broken": 1,
        "columns": [
            {
                "schema": None,
                "table": "message",
                "column": "status",
                "outcome": "scanned",
                "detail": "",
                "rows": 2,
                "broken": 1,
                "states": [
                    {"state": "READY", "rows": 0, "known": True, "final": False, "examples": []},
                    {"state": "SPAM_REVIEW", "rows": 0, "known": True, "final": True, "examples": []},
                    {"state": "PROMOTED", "rows": 0, "known": True, "final": False, "examples": []},
                    {"state": "COMPLETED", "rows": 1, "known": True, "final": True, "examples": []},
                    {"state": "LOST", "rows": 1, "known": False, "final": False, "examples": [{"id": "2"}]},
                ],
            }
        ],
    }


def test_null_is_well_where_it_is_a_state(project: Project, engine: sa.Engine) -> None:
    project.write(INBOX.replace('initial="READY"', "(None, 'READY'), initial=[None]"))
    fill(engine, None, "READY")
    assert numbers(only(project, engine, 0))[None] == 1


def test_the_text_null_is_told_apart_from_null(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, "NULL", None)
    assert [line.split()[0] for line in lines(inbox, engine, 1)[-3:-1]] == ["NULL", "'NULL'"]


def test_the_text_null_may_be_a_state(project: Project, engine: sa.Engine) -> None:
    project.write(INBOX.replace("SPAM_REVIEW", "NULL"))
    fill(engine, "NULL")
    assert lines(project, engine, 0)[2] == "  'NULL'     1  no way out"


@on_sqlite
def test_every_byte_tells_states_apart(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, "READY", "ready", create=CREATE.replace("varchar(20)", "varchar(20) COLLATE NOCASE"))
    assert unknown(only(inbox, engine, 1)) == {"ready": [{"id": "2"}]}


def test_on_postgresql_every_byte_tells_states_apart(inbox: Project, older_engine: sa.Engine) -> None:
    """On the machine's own server: the one from the wheel knows no such collations."""
    execute(
        older_engine,
        "CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    )
    fill(older_engine, "READY", "ready", create=CREATE.replace("varchar(20)", "varchar(20) COLLATE insensitive"))
    assert unknown(only(inbox, older_engine, 1)) == {"ready": [{"id": "2"}]}


@on_postgresql
def test_a_padded_column_is_read_without_its_padding(project: Project, engine: sa.Engine) -> None:
    project.write(INBOX.replace("sa.String(20)", "sa.CHAR(20)"))
    fill(engine, "READY", create=CREATE.replace("varchar", "char"))
    assert numbers(only(project, engine, 0))["READY"] == 1


STATUS = """
class Status(enum.Enum):
    READY = "r"
    SPAM_REVIEW = "s"
    PROMOTED = "p"
    COMPLETED = "c"

class Base"""
ENUM = INBOX.replace("\nclass Base", STATUS).replace("sa.String(20)", "sa.Enum(Status, native_enum=False)")


def test_a_label_that_the_enum_of_python_does_not_know_is_read(project: Project, engine: sa.Engine) -> None:
    project.write(f"import enum\n{ENUM}")
    fill(engine, "READY", "LOST")
    assert unknown(only(project, engine, 1)) == {"LOST": [{"id": "2"}]}


@on_postgresql
def test_a_label_of_a_native_enum_that_python_does_not_know_is_read(project: Project, engine: sa.Engine) -> None:
    project.write(f"import enum\n{ENUM.replace('native_enum=False', 'name=chr(115)')}")
    execute(engine, "CREATE TYPE s AS ENUM ('READY', 'SPAM_REVIEW', 'PROMOTED', 'COMPLETED', 'LOST')")
    fill(engine, create="CREATE TABLE message (id integer PRIMARY KEY, status s)")
    execute(engine, "INSERT INTO message VALUES (1, 'READY'), (2, 'LOST')")
    assert unknown(only(project, engine, 1)) == {"LOST": [{"id": "2"}]}


def test_integers_are_states_too(project: Project, engine: sa.Engine) -> None:
    integers = INBOX.replace("sa.String(20)", "sa.Integer")
    project.write(
        integers[: integers.index("    __transitions__")]
        + '    __transitions__ = {"status": TransitionTable("1 → 2")}\n'
    )
    execute(engine, "CREATE TABLE message (id integer PRIMARY KEY, status integer)")
    execute(engine, "INSERT INTO message VALUES (1, 1), (2, 2), (3, 3)")
    assert unknown(only(project, engine, 1)) == {"3": [{"id": "3"}]}


KEYS = """
import sqlalchemy as sa
from statekit import TransitionTable, guard

tables = sa.MetaData()
message = sa.Table("message", tables, COLUMNS, sa.Column("status", sa.Text))
guard(message.c.status, TransitionTable("A → B"))
"""


def test_examples_have_every_part_of_the_key(project: Project, engine: sa.Engine) -> None:
    columns = "sa.Column('shop', sa.Text, primary_key=True), sa.Column('no', sa.Integer, primary_key=True)"
    project.write(KEYS.replace("COLUMNS", columns))
    execute(engine, "CREATE TABLE message (no integer, shop text, status text, PRIMARY KEY (shop, no))")
    execute(engine, "INSERT INTO message VALUES (7, 'x', 'C'), (8, 'a b', 'C')")
    assert unknown(only(project, engine, 1)) == {"C": [{"shop": "a b", "no": "8"}, {"shop": "x", "no": "7"}]}


def test_without_a_key_there_are_no_examples(project: Project, engine: sa.Engine) -> None:
    project.write(KEYS.replace("COLUMNS", "sa.Column('no', sa.Integer)"))
    execute(engine, "CREATE TABLE message (no integer, status text)", "INSERT INTO message VALUES (7, 'C')")
    assert lines(project, engine, 1)[-2] == "  'C'  1  no state of the table"


def test_a_key_of_bytes_is_shown_in_hexadecimal(project: Project, engine: sa.Engine) -> None:
    project.write(KEYS.replace("COLUMNS", "sa.Column('key', sa.LargeBinary, primary_key=True)"))
    with engine.begin() as connection:
        binary = "blob" if engine.dialect.name == "sqlite" else "bytea"
        connection.exec_driver_sql(f"CREATE TABLE message (key {binary} PRIMARY KEY, status text)")
        connection.execute(sa.text("INSERT INTO message VALUES (:key, 'C')"), {"key": b"\xff\x01"})
    ((example,),) = unknown(only(project, engine, 1)).values()
    assert example["key"].lower().removeprefix("\\x") == "ff01"


def test_only_the_first_twenty_unknown_states_have_examples(inbox: Project, sqlite_engine: sa.Engine) -> None:
    fill(sqlite_engine, *(f"STATE {number:02}" for number in range(25)))
    examples = unknown(only(inbox, sqlite_engine, 1))
    assert [len(keys) for keys in examples.values()] == [1] * 20 + [0] * 5


def test_tables_and_columns_that_are_to_come_are_said(project: Project, engine: sa.Engine) -> None:
    project.write(
        INBOX + INBOX[INBOX.index("class Message") :].replace("Message", "Mail").replace('"message"', '"mail"')
    )
    execute(engine, "CREATE TABLE mail (id integer PRIMARY KEY)")
    assert lines(project, engine, 0)[:-1] == ["mail.status: no such column yet", "message.status: no such table yet"]


@on_postgresql
def test_tables_of_other_schemas_are_scanned(project: Project, engine: sa.Engine) -> None:
    project.write(INBOX.replace('"message"', '"message"\n    __table_args__ = {"schema": "The Shop"}'))
    execute(engine, 'CREATE SCHEMA "The Shop"', CREATE.replace("message", '"The Shop".message'))
    execute(engine, """INSERT INTO "The Shop".message VALUES (1, 'LOST')""")
    assert lines(project, engine, 1)[0] == "The Shop.message.status: 1 row"


@on_postgresql
def test_rows_of_children_are_counted(inbox: Project, engine: sa.Engine) -> None:
    execute(engine, CREATE, "CREATE TABLE old () INHERITS (message)", "INSERT INTO old VALUES (1, 'LOST')")
    assert unknown(only(inbox, engine, 1)) == {"LOST": [{"id": "1"}]}


def test_a_guard_without_a_trigger_is_scanned_too(project: Project, engine: sa.Engine) -> None:
    project.write(
        KEYS.replace("COLUMNS", "sa.Column('id', sa.Integer, primary_key=True)").replace('B"))', 'B"), trigger=False)')
    )
    fill(engine, "LOST")
    assert only(project, engine, 1)["broken"] == 1


def test_tables_may_be_chosen(project: Project, engine: sa.Engine) -> None:
    project.write(
        INBOX + INBOX[INBOX.index("class Message") :].replace("Message", "Mail").replace('"message"', '"mail"')
    )
    fill(engine, "LOST")
    assert only(project, engine, 0, "--table", "mail")["outcome"] == "no such table"


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_any_driver_will_do(inbox: Project, databases: Databases, backend: str) -> None:
    fill(databases.engine("sqlite" if backend in ("sqlite", "aiosqlite") else "psycopg"), *STATES)
    result = inbox.run("scan", inbox.models, "--url", databases.url(backend), "--json")
    assert (result.exit_code, json.loads(result.stdout)["broken"]) == (1, 6)


TWO = INBOX + INBOX[INBOX.index("class Message") :].replace("Message", "Mail").replace('"message"', '"mail"')


@pytest.mark.parametrize("backend", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_a_table_that_takes_too_long_is_named_and_the_others_are_scanned(
    project: Project, databases: Databases, backend: str
) -> None:
    project.write(TWO)
    engine = databases.engine("psycopg")
    fill(engine, "READY")
    execute(engine, CREATE.replace("message", "mail"))
    with engine.begin() as other:
        other.exec_driver_sql("LOCK TABLE mail IN ACCESS EXCLUSIVE MODE")
        result = project.run("scan", project.models, "--url", databases.url(backend), "--timeout", "0.5")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[:2] == [
        "mail.status: timed out: after 0.5 s; give it longer with --timeout",
        "message.status: 1 row",
    ]
    assert result.stdout.splitlines()[-1].endswith(": 2 guarded columns, 0 rows that break the rule, 1 not read.")


@pytest.mark.parametrize("backend", ["sqlite", "aiosqlite"])
def test_on_sqlite_a_table_that_takes_too_long_is_named(project: Project, databases: Databases, backend: str) -> None:
    project.write()
    execute(
        databases.engine("sqlite"),
        CREATE,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
        " INSERT INTO message SELECT i, 'STATE ' || i FROM n",
    )
    result = project.run("scan", project.models, "--url", databases.url(backend), "--timeout", "0.01")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        2, "message.status: timed out: after 0.01 s; give it longer with --timeout"
    )  # fmt: skip


def test_rows_that_break_the_rule_are_status_1_although_a_table_was_not_read(
    project: Project, databases: Databases
) -> None:
    project.write(TWO)
    engine = databases.engine("psycopg")
    fill(engine, "LOST")
    execute(engine, CREATE.replace("message", "mail"))
    with engine.begin() as other:
        other.exec_driver_sql("LOCK TABLE mail IN ACCESS EXCLUSIVE MODE")
        assert answer(project, engine, 1, "--timeout", "0.2")["broken"] == 1


@on_postgresql
def test_a_table_that_the_role_may_not_read_is_named(project: Project, engine: sa.Engine) -> None:
    project.write(TWO)
    fill(engine, "READY")
    execute(engine, CREATE.replace("message", "mail"), "GRANT SELECT ON message TO pg_monitor")
    url = engine.url.update_query_dict({"options": "-c role=pg_monitor"})
    result = project.run("scan", project.models, "--url", url)
    assert result.exit_code == 2
    assert result.stdout.splitlines()[:2] == [
        "mail.status: not readable: permission denied for table mail",
        "message.status: 1 row",
    ]


@on_postgresql
def test_the_transactions_can_only_read(project: Project, engine: sa.Engine) -> None:
    project.write()
    execute(
        engine,
        "CREATE TABLE kept (id integer PRIMARY KEY, status varchar(20))",
        "CREATE FUNCTION writing(k kept) RETURNS varchar LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO kept VALUES (2, 'READY'); RETURN k.status; END $$",
        "INSERT INTO kept VALUES (1, 'READY')",
        "CREATE VIEW message AS SELECT id, writing(kept) AS status FROM kept",
    )
    assert lines(project, engine, 2)[0].startswith(
        "message.status: not readable: cannot execute INSERT in a read-only transaction"
    )


@on_sqlite
def test_sqlite_can_only_read(inbox: Project, engine: sa.Engine) -> None:
    fill(engine, "READY")
    with pytest.raises(Failure, match="attempt to write a readonly database"):
        read(engine.url, lambda connection: connection.exec_driver_sql("DELETE FROM message"))


@pytest.mark.parametrize("timeout", ["0", "-1", "soon"])
def test_a_timeout_is_a_time(inbox: Project, timeout: str) -> None:
    result = inbox.run("scan", inbox.models, "--url", "sqlite://", "--timeout", timeout)
    assert (result.exit_code, "Invalid value for '--timeout'" in result.stderr) == (2, True)


@pytest.mark.parametrize(("state", "status"), [("READY", 0), ("LOST", 1)])
def test_the_exit_status_of_a_process(inbox: Project, sqlite_engine: sa.Engine, state: str, status: int) -> None:
    fill(sqlite_engine, state)
    done = inbox.process("scan", f"{inbox.models}:Base", "--url", sqlite_engine.url)
    assert (done.returncode, done.stderr) == (status, "")
