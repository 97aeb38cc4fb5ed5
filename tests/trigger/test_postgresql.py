"""The trigger on PostgreSQL: its modes, its statements, and the locks that they take."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import (
    AS_BEFORE,
    MOVES,
    STATES,
    TABLE,
    counts,
    fill,
    inbox,
    move,
    observed,
    refused,
    stored,
    trigger,
)


def test_a_rule_without_moves_lets_nothing_move(each_postgres: sa.Engine) -> None:
    for inline in (False, True):
        fill(each_postgres, "READY")
        install(each_postgres, trigger(transitions=[], initial=["READY"], inline=inline))
        assert move(refused(each_postgres, "UPDATE mail SET status = 'DONE'")) == ("READY", "DONE")
        execute(each_postgres, "DROP TABLE mail")


@pytest.mark.parametrize("inline", [False, True])
class TestSkip:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine, inline: bool) -> sa.Engine:
        return inbox(each_postgres, on_illegal="skip", inline=inline)

    def test_leaves_the_row_as_it_is_and_goes_on(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED', subject = 'x'")
        with mail.connect() as connection:
            rows = connection.exec_driver_sql("SELECT status, subject FROM mail ORDER BY id").all()
        assert [tuple(row) for row in rows] == [("READY", ""), ("COMPLETED", "x"), ("COMPLETED", "x")]

    def test_tells_how_many_rows_were_really_updated(self, mail: sa.Engine) -> None:
        with mail.begin() as connection:
            assert connection.exec_driver_sql("UPDATE mail SET status = 'COMPLETED'").rowcount == 2

    def test_returns_the_rows_that_were_really_updated(self, mail: sa.Engine) -> None:
        with mail.begin() as connection:
            returned = connection.exec_driver_sql("UPDATE mail SET status = 'COMPLETED' RETURNING id").scalars().all()
        assert sorted(returned) == [2, 3]

    def test_refuses_a_new_row_all_the_same(self, mail: sa.Engine) -> None:
        assert refused(mail, "INSERT INTO mail VALUES (4, 'COMPLETED')").new

    def test_skips_in_an_upsert(self, mail: sa.Engine) -> None:
        upsert = "INSERT INTO mail VALUES (3, 'READY') ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status"
        with mail.begin() as connection:
            assert connection.exec_driver_sql(upsert).rowcount == 0
        assert stored(mail) == AS_BEFORE

    def test_lets_other_columns_be_written(self, mail: sa.Engine) -> None:
        with mail.begin() as connection:
            assert connection.exec_driver_sql("UPDATE mail SET subject = 'x'").rowcount == 3

    def test_holds_no_lock_of_its_own_until_the_transaction_ends(self, mail: sa.Engine) -> None:
        """Else those who skip would wait for one another."""
        with mail.connect() as connection:
            connection.exec_driver_sql("UPDATE mail SET status = 'READY'")
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            assert connection.exec_driver_sql(held).scalar_one() == 0


@pytest.mark.parametrize("inline", [False, True])
class TestObserve:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine, inline: bool) -> sa.Engine:
        return inbox(each_postgres, on_illegal="observe", inline=inline)

    def test_lets_a_move_pass_and_counts_it(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'READY'")
        assert stored(mail) == ["READY"] * 3
        assert observed(mail) == {("PROMOTED", "READY"): 1, ("COMPLETED", "READY"): 1}

    def test_lets_a_new_row_pass_and_counts_it(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (4, 'COMPLETED'), (5, 'READY'), (6, NULL), (7, 'LOST')")
        assert observed(mail) == {(None, "COMPLETED"): 1, (None, None): 1, (None, "*"): 1}

    def test_counts_no_legal_move(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "UPDATE mail SET subject = 'x'")
        assert observed(mail) == {}


class TestStatements:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ({}, {"on_illegal": "skip"}),
            ({"on_illegal": "skip"}, {}),
            ({"on_illegal": "observe"}, {}),
            ({}, {"inline": True}),
            ({"inline": True}, {}),
            ({"inline": True}, {"inline": True, "transitions": [*MOVES, ("PROMOTED", "SPAM_REVIEW")]}),
            ({}, {"transitions": [*MOVES, ("PROMOTED", "SPAM_REVIEW")], "initial": ["READY", "COMPLETED"]}),
        ],
        ids=str,
    )
    def test_replace_leaves_what_create_would_have_made(
        self, each_postgres: sa.Engine, old: dict[str, Any], new: dict[str, Any]
    ) -> None:
        """Triggers, their definitions and their comments, and the functions; only the counters of the old one stay."""
        inbox(each_postgres, **old)
        execute(each_postgres, *trigger(**new).replace_sql(trigger(**old), "postgresql"))
        replaced = made(each_postgres)
        execute(each_postgres, *trigger().drop_sql("postgresql"))
        install(each_postgres, trigger(**new))
        assert replaced == made(each_postgres)

    def test_create_again_changes_nothing(self, each_postgres: sa.Engine) -> None:
        before = made(inbox(each_postgres))
        install(each_postgres, trigger())
        assert made(each_postgres) == before

    def test_drop_removes_all_that_was_made_for_the_table(self, each_postgres: sa.Engine) -> None:
        inbox(each_postgres, on_illegal="skip")
        execute(each_postgres, *trigger().drop_sql("postgresql"))
        assert made(each_postgres) == ([], [])
        with each_postgres.connect() as connection:
            left = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('statekit')"
            assert connection.exec_driver_sql(left).scalar_one() == 0

    def test_drop_after_the_table_is_gone_removes_the_rest(self, each_postgres: sa.Engine) -> None:
        inbox(each_postgres)
        execute(each_postgres, "DROP TABLE mail", *trigger().drop_sql("postgresql"))
        assert made(each_postgres) == ([], [])

    def test_drop_where_there_is_none_does_nothing(self, each_postgres: sa.Engine) -> None:
        execute(each_postgres, *trigger().drop_sql("postgresql"))

    def test_drop_leaves_triggers_of_the_user(self, each_postgres: sa.Engine) -> None:
        inbox(each_postgres)
        execute(
            each_postgres,
            "CREATE FUNCTION statekit_mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER statekit_mine BEFORE UPDATE ON mail FOR EACH ROW EXECUTE FUNCTION statekit_mine()",
            *trigger().drop_sql("postgresql"),
        )
        assert [name for name, *_ in made(each_postgres)[0]] == ["statekit_mine"]

    def test_replace_without_an_old_one_says_what_to_do(self, each_postgres: sa.Engine) -> None:
        fill(each_postgres, *STATES)
        with pytest.raises(sa.exc.DBAPIError, match="Create it anew, with create_state_trigger"):
            execute(each_postgres, *trigger().replace_sql(trigger(), "postgresql"))

    def test_leave_the_settings_of_the_session_as_they_were(self, each_postgres: sa.Engine) -> None:
        fill(each_postgres, *STATES)
        settings = "SELECT current_setting('lock_timeout'), current_setting('search_path')"
        with each_postgres.begin() as connection:
            connection.exec_driver_sql("SET lock_timeout = '7s'")
            connection.exec_driver_sql("SET search_path = public, pg_temp")
            new = trigger(initial=["READY", "PROMOTED"])
            statements = [*trigger().create_sql("postgresql"), *new.replace_sql(trigger(), "postgresql")]
            for statement in (*statements, *new.drop_sql("postgresql")):
                connection.exec_driver_sql(statement)
                assert tuple(connection.exec_driver_sql(settings).one()) == ("7s", "public, pg_temp")

    def test_work_one_by_one_without_a_transaction(self, each_postgres: sa.Engine) -> None:
        """As a migration tool in autocommit does it, or whoever pastes them into psql."""
        fill(each_postgres, *STATES)
        new = trigger(initial=["READY", "PROMOTED"])
        with each_postgres.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for statement in (*trigger().create_sql("postgresql"), *new.replace_sql(trigger(), "postgresql")):
                connection.exec_driver_sql(statement)
        assert refused(each_postgres, "INSERT INTO mail VALUES (4, 'COMPLETED')").allowed == ("READY", "PROMOTED")

    def test_find_the_table_by_the_search_path_where_no_schema_is_named(self, each_postgres: sa.Engine) -> None:
        execute(
            each_postgres,
            "CREATE SCHEMA app",
            "SET LOCAL search_path = app",
            TABLE,
            *trigger().create_sql("postgresql"),
        )
        refused(each_postgres, "INSERT INTO app.mail VALUES (1, 'COMPLETED')")

    def test_hold_tables_of_the_same_name_apart_where_schemas_are_named(self, each_postgres: sa.Engine) -> None:
        one, two = trigger(schema="one"), trigger(schema="two", initial=["PROMOTED"])
        for schema, each in (("one", one), ("two", two)):
            execute(each_postgres, f"CREATE SCHEMA {schema}", TABLE.replace("mail", f"{schema}.mail"))
            install(each_postgres, each)
        execute(each_postgres, "INSERT INTO two.mail VALUES (1, 'PROMOTED')")
        refused(each_postgres, "INSERT INTO one.mail VALUES (1, 'PROMOTED')")
        execute(each_postgres, *one.drop_sql("postgresql"))
        assert refused(each_postgres, "INSERT INTO two.mail VALUES (2, 'READY')").new
        assert counts(each_postgres, two) == {(None, "READY"): 1}


def made(engine: sa.Engine) -> tuple[list[Any], list[Any]]:
    """Return the triggers of all tables, and the functions behind them, as the catalog has them."""
    triggers = (
        "SELECT tgname, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger')::jsonb, tgenabled"
        " FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    )
    functions = (
        "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc WHERE pronamespace ="
        " to_regnamespace('statekit') AND proname <> 'counts_v1' ORDER BY 1"
    )
    with engine.connect() as connection:
        rows = [connection.exec_driver_sql(query).all() for query in (triggers, functions)]
    return [tuple(row) for row in rows[0]], [tuple(row) for row in rows[1]]


class TestLocks:
    """A hot table: somebody's transaction that has written to it is open all the time."""

    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return inbox(each_postgres)

    def test_of_a_new_rule_there_is_none_on_the_table(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[*MOVES, ("PROMOTED", "SPAM_REVIEW")])
        with mail.connect() as writer:
            writer.exec_driver_sql("UPDATE mail SET subject = 'x'")
            execute(mail, "SET LOCAL lock_timeout = '50ms'", *new.replace_sql(trigger(), "postgresql"))
            writer.exec_driver_sql("UPDATE mail SET status = 'SPAM_REVIEW' WHERE id = 2")  # seen at once by everyone
            writer.commit()
        assert stored(mail)[1] == "SPAM_REVIEW"

    def test_of_a_new_rule_there_is_none_on_an_open_transaction_of_a_reader(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[*MOVES, ("PROMOTED", "SPAM_REVIEW")])
        held = "SELECT mode FROM pg_locks WHERE relation = 'mail'::regclass AND pid = pg_backend_pid()"
        with mail.begin() as connection:
            for statement in new.replace_sql(trigger(), "postgresql"):
                connection.exec_driver_sql(statement)
            modes = set(connection.exec_driver_sql(held).scalars())
        assert modes <= {"AccessShareLock", "ShareUpdateExclusiveLock"}

    @pytest.mark.parametrize("what", ["create", "drop", "replace"])
    def test_are_waited_for_in_slices_that_hold_up_no_other_writer_for_long(self, mail: sa.Engine, what: str) -> None:
        """Whoever waits for a lock holds up all who come after; so the wait is given up again and again."""
        new = trigger(on_illegal="skip")
        statements = {
            "create": new.create_sql("postgresql"),
            "drop": trigger().drop_sql("postgresql"),
            "replace": new.replace_sql(trigger(), "postgresql"),
        }[what]
        migration = threading.Thread(target=execute, args=(mail, *statements))
        with mail.connect() as writer:
            writer.exec_driver_sql("UPDATE mail SET subject = 'x' WHERE id = 1")
            migration.start()
            waits = []
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                started = time.monotonic()
                execute(mail, "UPDATE mail SET subject = 'y' WHERE id = 2")
                waits.append(time.monotonic() - started)
            assert migration.is_alive()
            writer.commit()
        migration.join(timeout=30)
        assert not migration.is_alive()
        assert max(waits) < 0.6  # 0.1 s, and what a busy machine adds

    def test_several_that_replace_at_once_wait_for_one_another(self, mail: sa.Engine) -> None:
        """PostgreSQL would fail all but one of them with "tuple concurrently updated"."""
        rules = [trigger(initial=[f"S{number}"]).replace_sql(trigger(), "postgresql") for number in range(6)]
        assert at_once(mail, [statements * 3 for statements in rules]) == []

    def test_several_that_are_the_first_at_once_wait_for_one_another(self, each_postgres: sa.Engine) -> None:
        """Each would make the schema that they share."""
        tables = [f"mail_{number}" for number in range(6)]
        execute(each_postgres, *(TABLE.replace("mail", table) for table in tables))
        rules = [trigger(table=table).create_sql("postgresql") for table in tables]
        assert at_once(each_postgres, rules) == []

    def test_a_prepared_statement_sees_a_new_rule(self, mail: sa.Engine) -> None:
        """A plan that a connection has kept calls the function as it is now."""
        new = trigger(transitions=[("READY", "PROMOTED")])
        with mail.connect() as connection:
            connection.exec_driver_sql("PREPARE move AS UPDATE mail SET status = $1 WHERE id = $2")
            for _ in range(7):
                connection.exec_driver_sql("SAVEPOINT s")
                connection.exec_driver_sql("EXECUTE move('COMPLETED', 2)")
                connection.exec_driver_sql("ROLLBACK TO s")
            connection.commit()
            execute(mail, *new.replace_sql(trigger(), "postgresql"))
            with pytest.raises(IllegalTransition):
                connection.exec_driver_sql("EXECUTE move('COMPLETED', 2)")


def at_once(engine: sa.Engine, batches: Sequence[Sequence[str]]) -> list[BaseException]:
    """Execute each batch in a transaction of its own, all at the same time, and return the errors."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(batches))

    def run(statements: Sequence[str]) -> None:
        start.wait()
        try:
            execute(engine, *statements)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(statements,)) for statements in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
