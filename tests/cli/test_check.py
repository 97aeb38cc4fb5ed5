"""statekit check: what it finds, how it says it, and its exit status."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import sqlalchemy as sa

from tests.cli.conftest import INBOX, Project
from tests.support.databases import ASYNC_BACKENDS, POSTGRESQL_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql

CREATE = "CREATE TABLE message (id integer PRIMARY KEY, status varchar(20))"
OTHER = "import sqlalchemy as sa\nmessage = sa.Table('message', sa.MetaData(), sa.Column('status', sa.String(20)))\n"
WIDER = INBOX.replace("READY → SPAM_REVIEW", "READY → SPAM_REVIEW → READY")


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def install(project: Project, engine: sa.Engine) -> None:
    """Make the triggers as a user does, from what is printed."""
    dialect = engine.dialect.name
    text = project.run("trigger", project.models, "--dialect", dialect).stdout
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.executescript(text) if dialect == "sqlite" else driver.cursor().execute(text)


def answer(project: Project, engine: sa.Engine, exit_code: int) -> dict[str, Any]:
    """Return the JSON that the command prints."""
    result = project.run("check", project.models, "--url", engine.url, "--json")
    assert (result.exit_code, result.stderr) == (exit_code, "")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def lines(project: Project, engine: sa.Engine, exit_code: int) -> list[str]:
    result = project.run("check", project.models, "--url", engine.url)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return result.stdout.splitlines()


def schema_of(engine: sa.Engine) -> str:
    return "main" if engine.dialect.name == "sqlite" else "public"


class TestFindings:
    def test_none(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        (summary,) = lines(inbox, engine, 0)
        assert summary.endswith(": 1 trigger checked, nothing to mend.")

    def test_none_as_json(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        assert answer(inbox, engine, 0) == {
            "database": engine.dialect.name, "checked": 1, "findings": [], "notes": []
        }  # fmt: skip

    def test_a_trigger_is_missing(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        finding, mend, summary = lines(inbox, engine, 1)
        assert finding == "missing: message.status: the database has no trigger for it"
        assert mend == (
            "  mend: autogenerate a migration (Alembic), or run what this prints: "
            f"statekit trigger {inbox.models} --dialect {engine.dialect.name} --table message --column status"
        )
        assert summary.endswith(": 1 trigger checked, 1 finding.")

    def test_as_json_a_finding_has_these_keys(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        (finding,) = answer(inbox, engine, 1)["findings"]
        assert finding.pop("mend").startswith("autogenerate")
        assert finding == {
            "kind": "missing",
            "schema": schema_of(engine),
            "table": "message",
            "column": "status",
            "detail": "the database has no trigger for it",
        }

    def test_the_table_is_missing(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, "CREATE TABLE another (id integer)")
        finding, mend, _ = lines(inbox, engine, 1)
        assert finding.endswith("the database has no trigger for it; there is no such table yet")
        assert mend.startswith("  mend: create the table first")

    def test_a_trigger_is_outdated(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        inbox.write(WIDER)
        assert lines(inbox, engine, 1)[0] == (
            "outdated: message.status: the database does not allow SPAM_REVIEW → READY"
        )

    def test_the_command_that_mends_is_the_one_that_it_names(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        inbox.write(WIDER)
        install(inbox, engine)
        assert answer(inbox, engine, 0)["findings"] == []

    @on_postgresql
    def test_a_trigger_is_disabled(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        execute(engine, "ALTER TABLE message DISABLE TRIGGER ALL")
        assert [line.split(":")[0] for line in lines(inbox, engine, 1)[:-1]] == ["disabled", "disabled", "  mend"]

    @on_postgresql
    def test_a_function_was_edited_by_hand(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        with engine.begin() as connection:
            name = connection.exec_driver_sql("SELECT tgname FROM pg_trigger ORDER BY 1").scalars().first()
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION statekit.{name}_legal(source text, target text) RETURNS bool"
                " LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS 'BEGIN RETURN true; END'"
            )
        assert lines(inbox, engine, 1)[0] == (
            f"edited: message.status: the function statekit.{name}_legal was changed by hand"
        )

    @on_postgresql
    def test_a_partition_was_attached_later(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        execute(
            engine,
            "CREATE TABLE message (id integer, status varchar(20)) PARTITION BY LIST (id)",
            "CREATE TABLE message_1 PARTITION OF message FOR VALUES IN (1)",
        )
        install(project, engine)
        execute(engine, "CREATE TABLE message_2 PARTITION OF message FOR VALUES IN (2)")
        first = lines(project, engine, 1)[0]
        assert first.startswith("incomplete: message.status: the trigger statekit_message_status_")
        assert first.endswith("_new is missing on public.message_2")

    def test_a_trigger_on_a_table_of_the_models_is_undeclared(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        inbox.write(INBOX.replace("__transitions__", "unused") + _ANOTHER_GUARD)
        kinds = {finding["kind"]: finding["column"] for finding in answer(inbox, engine, 1)["findings"]}
        assert kinds == {"undeclared": "status", "missing": "state"}

    def test_with_trigger_false_a_trigger_is_undeclared(self, project: Project, engine: sa.Engine) -> None:
        project.write(OTHER + _GUARD)
        execute(engine, CREATE)
        install(project, engine)
        project.write(OTHER + _GUARD.replace(")\n", ", trigger=False)\n"))
        data = answer(project, engine, 1)
        assert (data["checked"], [each["kind"] for each in data["findings"]]) == (0, ["undeclared"])

    def test_a_trigger_on_another_table_is_a_note_and_no_finding(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        inbox.write(OTHER.replace("'message'", "'mail'") + _GUARD)
        execute(engine, CREATE.replace("message", "mail"))
        install(inbox, engine)
        note, _ = lines(inbox, engine, 0)
        assert note.startswith("note: message.status: the database has a state trigger here")
        data = answer(inbox, engine, 0)
        assert (data["findings"], [(each["kind"], each["table"]) for each in data["notes"]]) == (
            [], [("undeclared", "message")]
        )  # fmt: skip

    def test_an_older_name_of_the_table_is_told_to_be_dropped(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        install(inbox, engine)
        execute(engine, "ALTER TABLE message RENAME TO mail")
        inbox.write(INBOX.replace('"message"', '"mail"'))
        finding, mend, _ = lines(inbox, engine, 1)
        assert finding == "outdated: mail.status: table is 'message' there, declared: 'mail'"
        assert "or drop the triggers statekit_message_status_" in mend

    @on_postgresql
    def test_another_schema_is_named(self, project: Project, engine: sa.Engine) -> None:
        project.write(INBOX.replace('"message"', '"message"\n    __table_args__ = {"schema": "shop"}'))
        execute(engine, "CREATE SCHEMA shop", CREATE.replace("message", "shop.message"))
        finding, mend, _ = lines(project, engine, 1)
        assert finding.startswith("missing: shop.message.status: ")
        assert mend.endswith("--table shop.message --column status")


_GUARD = (
    "from statekit import TransitionTable, guard\n"
    "guard(message.c.status, TransitionTable('READY → SPAM_REVIEW', 'READY → PROMOTED', initial='READY'))\n"
)
_ANOTHER_GUARD = """
class Other(Guarded, Base):
    __tablename__ = "other"
    id = mapped_column(sa.Integer, primary_key=True)
    state = mapped_column(sa.String(20))
    __transitions__ = {"state": TransitionTable("A → B")}
"""


class TestTheDatabase:
    @pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
    def test_any_driver_will_do(self, inbox: Project, databases: Databases, backend: str) -> None:
        engine = databases.engine("psycopg" if backend not in ("sqlite", "aiosqlite") else "sqlite")
        execute(engine, CREATE)
        install(inbox, engine)
        result = inbox.run("check", inbox.models, "--url", databases.url(backend))
        assert (result.exit_code, result.stderr) == (0, "")

    def test_the_url_may_stand_in_the_environment(self, inbox: Project, sqlite_engine: sa.Engine) -> None:
        execute(sqlite_engine, CREATE)
        result = inbox.run("check", inbox.models, STATEKIT_URL=str(sqlite_engine.url))
        assert (result.exit_code, "missing: " in result.stdout) == (1, True)

    def test_without_a_url_the_command_says_where_it_may_stand(self, inbox: Project) -> None:
        result = inbox.run("check", inbox.models)
        assert (result.exit_code, "Missing option '--url' (env var: 'STATEKIT_URL')" in result.stderr) == (2, True)

    def test_it_only_reads(self, inbox: Project, engine: sa.Engine) -> None:
        execute(engine, CREATE)
        lines(inbox, engine, 1)
        inspector = sa.inspect(engine)
        assert inspector.get_table_names() == ["message"]
        assert "statekit" not in inspector.get_schema_names()

    @on_postgresql
    def test_its_transaction_is_read_only(self, inbox: Project, engine: sa.Engine) -> None:
        seen: list[str] = []

        def note(connection: Any, cursor: Any, text: str, *rest: Any) -> None:
            if "pg_trigger" in text:
                cursor.execute("SHOW transaction_read_only")
                seen.append(cursor.fetchone()[0])

        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            answer(inbox, engine, 1)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
            sa.Engine._has_events = False  # which SQLAlchemy leaves, for every engine of every later test
        assert set(seen) == {"on"}

    def test_a_sqlite_file_that_is_not_there_is_not_made(self, inbox: Project) -> None:
        result = inbox.run("check", inbox.models, "--url", "sqlite:///gone.db")
        assert (result.exit_code, result.stderr) == (
            2, f"Error: There is no file {inbox.folder / 'gone.db'}, which sqlite:///gone.db names.\n"
        )  # fmt: skip
        assert not (inbox.folder / "gone.db").exists()

    def test_a_file_that_is_no_database_is_said(self, inbox: Project) -> None:
        (inbox.folder / "text.db").write_text("this is some text, and no database at all" * 50)
        result = inbox.run("check", inbox.models, "--url", "sqlite:///text.db")
        assert (result.exit_code, result.stderr) == (2, "Error: sqlite:///text.db: file is not a database\n")

    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
    def test_a_server_that_does_not_answer_is_said_without_the_password(self, inbox: Project, driver: str) -> None:
        url = f"postgresql+{driver}://me:s3cr3t%40x@127.0.0.1:1/shop"
        result = inbox.run("check", inbox.models, "--url", url)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Error: Cannot connect to postgresql+{driver}://me:***@127.0.0.1:1/shop: ")
        assert "s3cr3t" not in result.output

    @pytest.mark.parametrize("driver", POSTGRESQL_BACKENDS)
    def test_a_database_that_is_not_there_is_said(self, inbox: Project, databases: Databases, driver: str) -> None:
        url = databases.url(driver).set(database="no_such_database", password="s3cr3t")
        result = inbox.run("check", inbox.models, "--url", url)
        assert (result.exit_code, 'database "no_such_database" does not exist' in result.stderr) == (2, True)
        assert "s3cr3t" not in result.output

    def test_a_password_in_the_query_is_not_shown(self, inbox: Project) -> None:
        url = "postgresql+psycopg://me@127.0.0.1:1/shop?password=s3cr3t&connect_timeout=s3cr3t"
        result = inbox.run("check", inbox.models, "--url", url)
        assert (result.exit_code, "s3cr3t" in result.output) == (2, False)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("s3cr3t", "this is no URL of a database. Write it as SQLAlchemy does, such as postgresql+psycopg://"),
            ("postgresql://me:s3cr3t@host:s3cr3t/shop", "this is no URL of a database."),
            (
                "postgresql://me:s3@cr3t@host/shop",
                "there are several @ in it; write the one in a user name or password",
            ),
            ("postgres://me:s3cr3t@host/shop", "SQLAlchemy's name for PostgreSQL is postgresql://, not postgres://."),
            (
                "mysql://me:s3cr3t@host/shop",
                "there are no state triggers for 'mysql'; there are for postgresql and sqlite",
            ),
            ("postgresql+nodriver://me:s3cr3t@host/shop", "SQLAlchemy knows no driver postgresql+nodriver."),
            ("postgresql+pg8000://me:s3cr3t@host/shop", "The driver of postgresql+pg8000 is not installed"),
        ],
    )
    def test_a_url_that_will_not_do_is_said_without_the_password(self, inbox: Project, url: str, said: str) -> None:
        result = inbox.run("check", inbox.models, "--url", url)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert "cr3t" not in result.stderr


class TestAsAProcess:
    @pytest.mark.parametrize(("is_installed", "status"), [(True, 0), (False, 1)])
    def test_the_exit_status_is_for_ci(
        self, inbox: Project, sqlite_engine: sa.Engine, is_installed: bool, status: int
    ) -> None:
        execute(sqlite_engine, CREATE)
        if is_installed:
            install(inbox, sqlite_engine)
        done = inbox.process("check", f"{inbox.models}:Base", STATEKIT_URL=str(sqlite_engine.url))
        assert (done.returncode, done.stderr) == (status, "")

    def test_json_stands_alone_on_stdout(self, project: Project, sqlite_engine: sa.Engine) -> None:
        project.write("print('loading')\n" + INBOX)
        execute(sqlite_engine, CREATE)
        done = project.process("check", project.models, "--url", sqlite_engine.url, "--json")
        assert (done.returncode, json.loads(done.stdout)["checked"], done.stderr) == (1, 1, "loading\n")

    @pytest.mark.parametrize("arguments", [["nothing_here:Base"], ["--table"], []])
    def test_what_it_cannot_do_is_status_2(self, inbox: Project, arguments: list[str]) -> None:
        done = inbox.process("check", *arguments, "--url", "sqlite://")
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (2, "", False)

    def test_an_async_driver_leaves_nothing_behind(self, inbox: Project, databases: Databases) -> None:
        execute(databases.engine("psycopg"), CREATE)
        done = inbox.process("check", inbox.models, "--url", databases.url("asyncpg"), PYTHONWARNINGS="always")
        kinds = ("ResourceWarning", "RuntimeWarning", "SAWarning")
        assert done.returncode == 1
        assert [line for line in done.stderr.splitlines() if any(kind in line for kind in kinds)] == []

    def test_the_version_is_that_of_the_package(self, project: Project) -> None:
        import statekit

        done = project.process("--version")
        assert done.stdout == f"statekit, version {statekit.__version__}{os.linesep}"
