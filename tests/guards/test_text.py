"""``warn_about_text()``: SQL text that writes to a guarded column passes the guard; whoever asks hears of it."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column, sessionmaker

from statekit import TransitionTable, guard, operation, warn_about_text
from statekit.guards import text as module
from tests.guards.inbox import TABLE, fill, message_class, new_base, stored
from tests.support.databases import on_postgresql, on_sqlite, run

STATES = ("READY", "PROMOTED", "COMPLETED")
UPDATE = "UPDATE texted SET status = 'SPAM_REVIEW' WHERE id = 2"
LINE = (
    "[SELF-HEAL] Unguarded SQL text: UPDATE of texted sets status; the guard on Message.status does not see it. "
    "Write it with sqlalchemy.update(), or let a database trigger hold it too."
)


@pytest.fixture(autouse=True)
def _no_line_was_written_before() -> Iterator[None]:
    module._written.clear()
    yield
    module._written.clear()
    _alive.clear()


_alive: list[Any] = []


def made(**options: Any) -> Any:
    """Return a new class that lives as long as the test, because a guard goes away with its class."""
    _alive.append(message_class(**options))
    return _alive[-1]


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    # Guards of earlier tests may still be there; the table has a name that no bystander module's tests use.
    message = made(name="texted")
    fill(engine, message, *STATES)
    return message


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "statekit"]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the lines say of the texts, such as "UPDATE of texted sets status"."""
    return [line.split(": ", 1)[1].split(";")[0] for line in lines(caplog)]


def execute(engine: sa.Engine, statement: str, parameters: Any = None) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement), parameters)


def execute_by_driver(engine: sa.Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


class TestALine:
    def test_is_a_warning_that_says_what_to_do(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_about_text(engine)
        execute(engine, UPDATE)
        assert lines(caplog) == [LINE]
        assert caplog.records[0].levelno == logging.WARNING

    def test_carries_its_data(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        with operation("Spam capture"):
            execute(engine, UPDATE.replace(" WHERE", "\n  WHERE"))
        data = {key: value for key, value in vars(caplog.records[0]).items() if key.startswith("statekit_")}
        assert data == {
            "statekit_kind": "text",
            "statekit_model": "Message",
            "statekit_attribute": "status",
            "statekit_operation": "Spam capture",
            "statekit_statement": UPDATE,
        }

    def test_outside_of_an_operation_names_none(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(memory_engine, made(name="texted"))
        warn_about_text(memory_engine)
        execute(memory_engine, UPDATE)
        assert caplog.records[0].statekit_operation is None  # type: ignore[attr-defined]

    def test_carries_only_the_beginning_of_a_long_text(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(memory_engine, made(name="texted"))
        warn_about_text(memory_engine)
        execute(memory_engine, f"{UPDATE} OR subject = '{'x' * 20_000}'")
        statement = caplog.records[0].statekit_statement  # type: ignore[attr-defined]
        assert statement == f"{UPDATE} OR subject = '".ljust(module.SHOWN - 1, "x") + "…"

    def test_of_two_guarded_columns_each_has_one(
        self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Parcel(new_base()):  # type: ignore[misc]
            __tablename__ = "texted_twice"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            payment = mapped_column("paid", sa.String(20))

        guard(Parcel.status, TransitionTable("READY → SENT"))
        guard(Parcel.payment, TransitionTable("OPEN → PAID"))
        Parcel.metadata.create_all(memory_engine)
        warn_about_text(memory_engine)
        execute(memory_engine, "UPDATE texted_twice SET status = 'SENT', paid = 'PAID'")
        assert [line[32:111] for line in lines(caplog)] == [
            "UPDATE of texted_twice sets status; the guard on Parcel.status does not see it.",
            "UPDATE of texted_twice sets paid; the guard on Parcel.payment does not see it. ",
        ]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE texted SET status = 'READY'", "UPDATE of texted sets status"),
        ("update Texted set Status = 'READY'", "UPDATE of texted sets status"),
        ('UPDATE "texted" SET "status" = \'READY\'', "UPDATE of texted sets status"),
        ("/* of the night job */ UPDATE --\n texted /**/ SET\tstatus='READY'", "UPDATE of texted sets status"),
        ("UPDATE texted AS t SET subject = t.status, status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE texted SET (subject, status) = ('', 'READY')", "UPDATE of texted sets status"),
        ("UPDATE texted SET subject = coalesce(subject, ''), status = 'READY'", "UPDATE of texted sets status"),
        (
            "UPDATE texted SET subject = CASE WHEN id = 1 THEN 'a' ELSE 'b' END, status = 'READY'",
            "UPDATE of texted sets status",
        ),
        (
            "UPDATE texted SET subject = (SELECT max(o.subject) FROM texted o WHERE o.id = 1), status = 'READY'",
            "UPDATE of texted sets status",
        ),
        (
            "UPDATE texted SET id = CASE WHEN subject IS DISTINCT FROM 'it''s' THEN id ELSE 1 END, status = 'READY'",
            "UPDATE of texted sets status",
        ),
        (
            "INSERT INTO texted (id, status) VALUES (1, 'READY') ON CONFLICT (id) DO UPDATE SET status = 'READY'",
            "INSERT … ON CONFLICT DO UPDATE of texted sets status",
        ),
        ("UPDATE texted SET status = 'READY' WHERE status IN ('it''s') RETURNING id", "UPDATE of texted sets status"),
    ],
)
@pytest.mark.parametrize("by", [execute, execute_by_driver])
def test_is_heard(
    engine: sa.Engine,
    message: Any,
    statement: str,
    says: str,
    by: Callable[[sa.Engine, str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_about_text(engine)
    by(engine, statement)
    assert said(caplog) == [says]


@on_postgresql
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE ONLY texted SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE ONLY (texted) SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE texted * SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE public.texted SET status = 'READY'", "UPDATE of texted sets status"),
        ('UPDATE "public"."texted" t SET status = \'READY\'', "UPDATE of texted sets status"),
        (
            "WITH x AS (UPDATE texted SET status = 'READY' RETURNING id) SELECT id FROM x",
            "UPDATE of texted sets status",
        ),
        ("EXPLAIN (ANALYZE) UPDATE texted SET status = 'READY'", "UPDATE of texted sets status"),
        (
            "MERGE INTO texted t USING (SELECT 1 AS id) n ON t.id = n.id WHEN MATCHED THEN UPDATE SET status = 'READY'",
            "MERGE of texted sets status",
        ),
        (
            "WITH x AS (INSERT INTO texted (id, status) VALUES (1, 'READY') ON CONFLICT (id) "
            "DO UPDATE SET status = excluded.status RETURNING id) SELECT id FROM x",
            "INSERT … ON CONFLICT DO UPDATE of texted sets status",
        ),
        ("UPDATE texted SET subject = E'it\\'s', status = $x$it's$x$ WHERE id = 9", "UPDATE of texted sets status"),
        ("UPDATE texted SET subject = id IS DISTINCT FROM 1, status = 'READY'", "UPDATE of texted sets status"),
        ("SELECT $x$ $$ $x$, $$ $x$ $$; UPDATE texted SET status = 'READY'", "UPDATE of texted sets status"),
        ("/* a /* b */ c */ UPDATE texted SET status = 'READY'", "UPDATE of texted sets status"),
    ],
)
def test_is_heard_on_postgresql(
    engine: sa.Engine, message: Any, statement: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_about_text(engine)
    execute_by_driver(engine, statement)
    assert said(caplog) == [says]


@on_sqlite
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE OR IGNORE texted SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE main.texted SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE `texted` SET [status] = 'READY'", "UPDATE of texted sets status"),
        ('UPDATE "TEXTED" SET "Status" = \'READY\'', "UPDATE of texted sets status"),
        ("UPDATE texted NOT INDEXED SET status = 'READY'", "UPDATE of texted sets status"),
        ("UPDATE texted SET 'status' = 'READY'", "UPDATE of texted may set status"),
        ("INSERT OR REPLACE INTO texted (id, subject) VALUES (2, '')", "INSERT OR REPLACE of texted sets status"),
        ("REPLACE INTO texted (id, status) VALUES (2, 'READY')", "REPLACE of texted sets status"),
        ("/* /* */ UPDATE texted SET status = 'READY' /* */", "UPDATE of texted sets status"),
        ("EXPLAIN QUERY PLAN SELECT 1 -- analyze", None),
        ("EXPLAIN UPDATE texted SET status = 'READY'", None),
        (
            "CREATE TRIGGER t AFTER INSERT ON texted BEGIN SELECT 1; UPDATE texted SET status = 'READY'; END",
            None,
        ),
        ("CREATE TRIGGER t AFTER UPDATE ON texted BEGIN DELETE FROM texted; END", None),
    ],
)
def test_is_heard_or_not_on_sqlite(
    engine: sa.Engine, message: Any, statement: str, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_about_text(engine)
    execute_by_driver(engine, statement)
    assert said(caplog) == ([says] if says else [])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT status FROM texted",
        "SELECT replace(status, 'READY', 'UPDATE texted SET status = 1') FROM texted",
        "UPDATE bystander SET status = 'READY'",
        "UPDATE texted_too SET status = 'READY'",
        "UPDATE texted SET subject = 'READY'",
        "UPDATE texted SET subject = status WHERE status = 'READY'",
        "UPDATE texted SET subject = '' WHERE id = 1 RETURNING id, status",
        "UPDATE texted SET subject = '' RETURNING id, status",
        "UPDATE texted SET subject = '' FROM bystander, status WHERE bystander.id = texted.id",
        "UPDATE texted SET subject = 'a, status = b'",
        "UPDATE texted SET subject = coalesce(subject, status)",
        "UPDATE bystander SET status = 'UPDATE texted SET status = 1'",
        "UPDATE bystander SET status = 'it''s UPDATE texted SET status = 1'",
        "SELECT 1 -- UPDATE texted SET status = 'READY'",
        "SELECT 1 /* UPDATE texted SET status = 'READY' */",
        "UPDATE /* texted SET status = 1 */ bystander SET status = 'READY'",
        "UPDATE bystander SET status = 'READY' -- of texted, SET status\n",
        'SELECT 1 AS "UPDATE texted SET status = 2"',
        "INSERT INTO texted (id, status) VALUES (9, 'READY')",
        "INSERT INTO texted (id, status) VALUES (1, 'READY') ON CONFLICT (id) DO NOTHING",
        "INSERT INTO texted (id, status) VALUES (1, 'READY') ON CONFLICT (id) DO UPDATE SET subject = ''",
        "INSERT INTO bystander SELECT id, status FROM texted WHERE true ON CONFLICT (id) DO UPDATE SET status = ''",
        "DELETE FROM texted WHERE status = 'READY'",
    ],
)
def test_is_not_heard(engine: sa.Engine, message: Any, statement: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("bystander", "texted_too", "status"):
        execute(engine, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, status VARCHAR(50))")
    warn_about_text(engine)
    execute_by_driver(engine, statement)
    assert lines(caplog) == []


@on_postgresql
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT $$ UPDATE texted SET status = 1 $$",
        "SELECT $x$ $$ UPDATE texted SET status = 1 $$ $x$",
        "DO $$ BEGIN UPDATE texted SET status = 'READY'; END $$",
        "SELECT E'it\\'s UPDATE texted SET status = 1'",
        "/* a /* b */ UPDATE texted SET status = 'READY' */ SELECT 1",
        "SELECT status FROM texted FOR UPDATE OF texted",
        "WITH x AS (UPDATE texted SET subject = ''), y AS (SELECT id, status FROM texted) SELECT id FROM y",
        "SELECT status FROM texted FOR NO KEY UPDATE",
        "INSERT INTO texted (id, status) SELECT id + 10, status FROM texted FOR NO KEY UPDATE",
        "GRANT UPDATE (status) ON texted TO CURRENT_USER",
        "EXPLAIN UPDATE texted SET status = 'READY'",
        "UPDATE \"Texted\" SET status = 'READY'",
        "UPDATE elsewhere.texted SET status = 'READY'",
        "UPDATE texted SET \"Status\" = 'READY'",
        "CREATE RULE r AS ON UPDATE TO bystander DO ALSO UPDATE texted SET status = 'READY'",
        "MERGE INTO texted t USING (SELECT 8 AS id) n ON t.id = n.id "
        "WHEN NOT MATCHED THEN INSERT (id, status) VALUES (n.id, 'READY')",
        "MERGE INTO texted t USING (SELECT 8 AS id) n ON t.id = n.id WHEN MATCHED AND n.id = 1 THEN UPDATE "
        "SET subject = '' WHEN MATCHED AND t.subject IN ('a', 'b') AND status = 'c' THEN DELETE",
    ],
)
def test_is_not_heard_on_postgresql(
    engine: sa.Engine, message: Any, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute(engine, 'ALTER TABLE texted ADD COLUMN "Status" VARCHAR(20)')
    execute(engine, 'CREATE TABLE "Texted" (id INTEGER, status VARCHAR(20))')
    execute(engine, "CREATE TABLE bystander (id INTEGER, status VARCHAR(20))")
    execute(engine, "CREATE SCHEMA elsewhere")
    execute(engine, "CREATE TABLE elsewhere.texted (id INTEGER, status VARCHAR(20))")
    warn_about_text(engine)
    execute_by_driver(engine, statement)
    assert lines(caplog) == []


@on_postgresql
class TestASchema:
    @pytest.fixture
    def letter(self, engine: sa.Engine) -> Any:
        execute(engine, "CREATE SCHEMA post")
        letter = sa.Table(
            "texted_letter",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("status", sa.String(20)),
            schema="post",
        )
        guard(letter.c.status, TABLE)
        letter.create(engine)
        return letter

    def test_is_named(self, engine: sa.Engine, letter: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        execute(engine, "UPDATE post.texted_letter SET status = 'READY'")
        assert said(caplog) == ["UPDATE of post.texted_letter sets status"]

    def test_is_found_by_the_search_path(
        self, engine: sa.Engine, letter: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_about_text(engine)
        execute_by_driver(engine, "SET LOCAL search_path = post; UPDATE texted_letter SET status = 'READY'")
        assert said(caplog) == ["UPDATE of post.texted_letter sets status"]

    def test_is_another_one(self, engine: sa.Engine, letter: Any, caplog: pytest.LogCaptureFixture) -> None:
        execute(engine, "CREATE TABLE public.texted_letter (id INTEGER, status VARCHAR(20))")
        warn_about_text(engine)
        execute(engine, "UPDATE public.texted_letter SET status = 'READY'")
        assert lines(caplog) == []

    @pytest.mark.parametrize("by", [execute, execute_by_driver])
    def test_is_translated(
        self, engine: sa.Engine, letter: Any, by: Callable[[sa.Engine, str], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        execute(engine, "CREATE SCHEMA tenant")
        letter.create(engine.execution_options(schema_translate_map={"post": "tenant"}))
        warn_about_text(engine)
        by(engine, "UPDATE tenant.texted_letter SET status = 'READY'")
        assert lines(caplog) == []
        by(
            engine.execution_options(schema_translate_map={"post": "tenant"}),
            "UPDATE tenant.texted_letter SET status = 'READY'",
        )
        assert said(caplog) == ["UPDATE of post.texted_letter sets status"]


@pytest.mark.parametrize("name", ["TextedCamel", "texted in words", 'texted "so"', "texted.with.dots", "textéd"])
def test_any_name_is_found_in_quotes(engine: sa.Engine, name: str, caplog: pytest.LogCaptureFixture) -> None:
    fill(engine, made(name=name))
    warn_about_text(engine)
    quoted = name.replace('"', '""')
    execute_by_driver(engine, f"UPDATE \"{quoted}\" SET status = 'READY'")
    assert said(caplog) == [f"UPDATE of {name} sets status"]


def test_a_name_that_is_always_quoted_is_found_on_sqlite(
    memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    fill(memory_engine, made(name=sa.sql.quoted_name("TextedQuoted", quote=True)))  # type: ignore[arg-type]
    warn_about_text(memory_engine)
    execute(memory_engine, "UPDATE \"textedQUOTED\" SET status = 'READY'")
    assert said(caplog) == ["UPDATE of TextedQuoted sets status"]


class TestHowItIsExecuted:
    def test_with_parameters(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        execute(engine, "UPDATE texted SET subject = :subject, status = :status", {"subject": "a", "status": "READY"})
        assert lines(caplog) == [LINE]
        assert stored(engine, message) == ["READY"] * 3

    def test_with_executemany(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        rows = [{"id": id_, "status": "COMPLETED"} for id_ in (1, 2)]
        execute(engine, "UPDATE texted SET status = :status WHERE id = :id", rows)
        assert lines(caplog) == [LINE]
        assert stored(engine, message) == ["COMPLETED"] * 3

    def test_with_executemany_by_the_driver(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_about_text(engine)
        mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE texted SET subject = {mark}, status = 'READY' WHERE id = {mark}", [("a", 2), ("b", 3)]
            )
        assert lines(caplog) == [LINE]
        assert stored(engine, message) == ["READY"] * 3

    def test_by_a_session(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        with Session(engine) as session:
            session.execute(sa.text(UPDATE))
        assert lines(caplog) == [LINE]

    def test_with_columns(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        with engine.begin() as connection:
            text = sa.text(f"{UPDATE} RETURNING id").columns(sa.Column("id", sa.Integer))
            assert connection.execute(text).all() == [(2,)]
        assert lines(caplog) == [LINE]

    @pytest.mark.parametrize("columns", [(), (sa.Column("id", sa.Integer),)])
    def test_as_what_a_select_is_from(
        self, engine: sa.Engine, message: Any, columns: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_about_text(engine)
        with Session(engine) as session:
            text: Any = sa.text(f"{UPDATE} RETURNING id, status, subject")
            if columns:
                text = text.columns(message.id, message.status, message.subject)
            assert [each.id for each in session.scalars(sa.select(message).from_statement(text))] == [2]
        assert lines(caplog) == [LINE]

    def test_on_an_async_engine(self, async_engine: AsyncEngine, caplog: pytest.LogCaptureFixture) -> None:
        message = made(name="texted")
        warn_about_text(async_engine)

        async def body() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(message.metadata.create_all)
                await connection.exec_driver_sql(UPDATE)
            async with AsyncSession(async_engine) as session:
                await session.execute(
                    sa.text("UPDATE texted SET status = :status WHERE subject = :s"), {"s": "", "status": "READY"}
                )
                await session.execute(sa.update(message).values(status="COMPLETED"))

        run(body())
        assert lines(caplog) == [LINE, LINE]

    def test_on_a_connection_that_was_open(
        self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            warn_about_text(engine)
            connection.execute(sa.text(UPDATE))
        assert lines(caplog) == [LINE]

    def test_on_an_engine_with_options(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        execute(engine.execution_options(logging_token="x"), UPDATE)
        assert lines(caplog) == [LINE]

    def test_the_statement_does_what_it_did(self, engine: sa.Engine, message: Any) -> None:
        warn_about_text(engine)
        execute(engine, UPDATE)
        assert stored(engine, message) == ["READY", "SPAM_REVIEW", "COMPLETED"]


class TestNothingIsHeard:
    def test_of_expressions(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        warn_about_text(engine)
        with Session(engine) as session:
            session.get_one(message, 1).status = "PROMOTED"
            session.flush()
            session.execute(sa.update(message).values(status="COMPLETED").where(sa.text("id = 1")))
            table = message.__table__
            session.execute(sa.update(table).values(status=sa.text("'COMPLETED'")).where(table.c.id == 2))
            bare = sa.table("texted", sa.column("id"), sa.column("status"))
            session.execute(sa.update(bare).values(status="COMPLETED").where(bare.c.id == 3))
            session.execute(sa.select(sa.literal_column("'UPDATE texted SET status = 1'")))
            session.commit()
        assert lines(caplog) == []

    def test_of_ddl(self, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        fill(sqlite_engine, made(name="texted"))
        warn_about_text(sqlite_engine)
        with sqlite_engine.begin() as connection:
            connection.execute(
                sa.DDL("CREATE TRIGGER t AFTER INSERT ON texted BEGIN UPDATE texted SET status = 'READY'; END")
            )
        assert lines(caplog) == []

    def test_by_those_who_did_not_ask(self, engine: sa.Engine, message: Any, caplog: pytest.LogCaptureFixture) -> None:
        execute(engine, UPDATE)
        execute_by_driver(engine, UPDATE)
        assert lines(caplog) == []

    def test_on_another_engine(self, databases: Any, caplog: pytest.LogCaptureFixture) -> None:
        asked, bystander = databases.engine("sqlite"), databases.engine("sqlite")
        fill(bystander, made(name="texted"))
        warn_about_text(asked)
        execute(bystander, UPDATE)
        assert lines(caplog) == []
        execute(asked, UPDATE)
        assert lines(caplog) == [LINE]

    def test_of_a_table_whose_guard_is_gone(self, memory_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        bare = made(table=None, name="texted_bare")
        fill(memory_engine, bare)
        warn_about_text(memory_engine)
        execute(memory_engine, "UPDATE texted_bare SET status = 'READY'")
        assert lines(caplog) == []


def test_a_guard_that_is_declared_later_is_known(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    message = made(table=None, name=f"texted_late_{engine.driver}")
    fill(engine, message)
    warn_about_text(engine)
    statement = f"UPDATE {message.__tablename__} SET status = 'READY'"
    execute(engine, statement)
    assert lines(caplog) == []
    guard(message.status, TABLE)
    execute(engine, statement)
    assert said(caplog) == [f"UPDATE of {message.__tablename__} sets status"]


class TestTheSameText:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=1.0)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
        return clock

    @pytest.fixture
    def asked(self, memory_engine: sa.Engine) -> sa.Engine:
        fill(memory_engine, made(name="texted"))
        warn_about_text(memory_engine)
        return memory_engine

    def test_is_named_once_a_minute(
        self, asked: sa.Engine, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        for now, number in ((1.0, 1), (30.0, 1), (60.9, 1), (61.0, 2), (90.0, 2), (121.0, 3)):
            clock.now = now
            execute(asked, UPDATE)
            assert len(lines(caplog)) == number, now

    def test_is_the_same_with_other_values_and_another_layout(
        self, asked: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(20):
            execute(asked, f"UPDATE texted SET status = 'S{number}' WHERE id IN (1{', 2' * number}) -- {number}")
            execute(asked, "update TEXTED set status = :status where id in (1)", {"status": f"S{number}"})
        assert lines(caplog) == [LINE]

    def test_another_one_is_named_too(self, asked: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
        execute(asked, "UPDATE texted SET status = 'READY' WHERE id = 1")
        execute(asked, "UPDATE texted SET status = 'READY' WHERE subject = ''")
        assert lines(caplog) == [LINE, LINE]

    def test_asking_twice_changes_nothing(
        self, asked: sa.Engine, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[str] = []
        monkeypatch.setattr(module, "_look", lambda statement, *_: looks.append(statement))
        warn_about_text(asked)
        warn_about_text(asked)
        execute(asked, UPDATE)
        assert looks == [UPDATE]

    def test_no_more_are_remembered_than_a_thousand(
        self, asked: sa.Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(module, "REMEMBERED", 3)
        texts = [f"UPDATE texted SET status = 'READY', subject = status AS_{n}" for n in range(5)]
        for text in [*texts, *texts]:
            with contextlib.suppress(sa.exc.DBAPIError):
                execute(asked, text)
        assert len(module._written) == 3
        assert len(lines(caplog)) == 10

    def test_what_was_named_last_is_remembered_longest(
        self,
        asked: sa.Engine,
        clock: SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(module, "REMEMBERED", 2)
        first, second, third = (
            f"UPDATE texted SET status = 'READY' WHERE {w}" for w in ("id = 1", "status=''", "true")
        )
        execute(asked, first)
        execute(asked, second)
        clock.now += 60
        execute(asked, first)
        execute(asked, third)  # forgets the second
        execute(asked, first)
        assert len(lines(caplog)) == 4


class TestAFailureInside:
    def test_does_not_stop_the_statement(
        self, engine: sa.Engine, message: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        warn_about_text(engine)

        def fails() -> Any:
            raise RuntimeError("no guards today")

        monkeypatch.setattr(module, "all_guards", fails)
        with caplog.at_level(logging.DEBUG, "statekit"):
            execute(engine, UPDATE)
        assert stored(engine, message) == ["READY", "SPAM_REVIEW", "COMPLETED"]
        assert [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "statekit"] == [
            (logging.DEBUG, "statekit could not look at SQL text")
        ]
        assert "no guards today" in caplog.text

    def test_of_a_log_does_not_either(self, engine: sa.Engine, message: Any) -> None:
        warn_about_text(engine)

        class Broken(logging.Filter):
            def filter(self, record: logging.LogRecord) -> bool:
                raise RuntimeError("no log today")

        broken, logger = Broken(), logging.getLogger("statekit")
        logger.addFilter(broken)
        level = logger.level
        logger.setLevel(logging.DEBUG)
        try:
            execute(engine, UPDATE)
        finally:
            logger.removeFilter(broken)
            logger.setLevel(level)
        assert stored(engine, message) == ["READY", "SPAM_REVIEW", "COMPLETED"]


WORDS = (
    "UPDATE INSERT REPLACE MERGE INTO ONLY OR SET DO THEN KEY DUPLICATE FOR texted status public . , ( ) [ ] ; = * "
    "CASE WHEN END FROM DISTINCT WHERE RETURNING CREATE TRIGGER EXPLAIN ANALYZE ' '' \" $$ $x$ /* */ -- ` E' \\ :a ?1 "
).split()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql", "mssql"])
@given(words=st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=25), glue=st.sampled_from(["", " "]))
def test_any_text_can_be_read(dialect: str, words: list[str], glue: str) -> None:
    module._read.__wrapped__(glue.join(["UPDATE texted ", *words]), dialect)


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE texted SET status = '",
        "UPDATE x SET y = (",
        "UPDATE '",
        "/*" * 3,
        "$x$ UPDATE",
        '"" UPDATE',
        "(",
        ";",
        "E'\\",
        "CASE ,",
    ],
)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_no_text_takes_long(dialect: str, text: str) -> None:
    def seconds(length: int) -> float:
        started = time.process_time()
        module._read.__wrapped__("UPDATE texted SET status = " + text * (length // len(text)), dialect)
        return time.process_time() - started

    def least(length: int) -> float:
        return min(seconds(length) for _ in range(3))

    assert least(160_000) < 24 * max(least(20_000), 0.005)  # 8 times as long, and not 64 times


@pytest.mark.parametrize(
    ("statement", "columns"),
    [
        (
            "UPDATE texted SET subject = \"\\\" UPDATE bystander SET id = 1\", texted.status = 'it\\'s, id = 2'",
            ["subject", "status"],
        ),
        ("# UPDATE bystander SET id = 1\nUPDATE `texted` SET status = 1", ["status"]),
        ("INSERT INTO texted VALUES (1) ON DUPLICATE KEY UPDATE status = 'READY', id = 1", ["status", "id"]),
    ],
)
def test_the_syntax_of_mysql_is_known(statement: str, columns: list[str]) -> None:
    (write,), _ = module._read(statement, "mysql")
    assert write.table[-1].removeprefix('"') == "texted"
    assert list(write.columns or ()) == columns


class TestWhatIsNoEngine:
    def test_a_connection(self, memory_engine: sa.Engine) -> None:
        with memory_engine.connect() as connection:
            with pytest.raises(TypeError) as error:
                warn_about_text(connection)  # type: ignore[arg-type]
        assert str(error.value) == (
            "warn_about_text(Connection): allowed is an Engine or an AsyncEngine, for all of its connections. "
            "Write warn_about_text(connection.engine)."
        )

    @pytest.mark.parametrize("async_engine", ["aiosqlite"], indirect=True)
    def test_an_async_connection(self, async_engine: AsyncEngine) -> None:
        async def body() -> None:
            async with async_engine.connect() as connection:
                with pytest.raises(TypeError, match=r"warn_about_text\(AsyncConnection\): .*connection.engine"):
                    warn_about_text(connection)  # type: ignore[arg-type]
                warn_about_text(connection.engine)

        run(body())

    @pytest.mark.parametrize("given", ["sqlite://", None, Session(), sessionmaker(), sa.Engine])
    def test_anything_else(self, given: Any) -> None:
        with pytest.raises(TypeError, match="allowed is an Engine or an AsyncEngine, as create_engine") as error:
            warn_about_text(given)
        assert str(error.value).startswith(f"warn_about_text({type(given).__name__})")


def test_an_application_without_async_engines_loads_none() -> None:
    script = (
        "import sqlalchemy as sa, statekit, sys; statekit.warn_about_text(sa.create_engine('sqlite://')); "
        "print('sqlalchemy.ext.asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
