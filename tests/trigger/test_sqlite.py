"""The trigger on SQLite, which can name a refused move, and neither the row nor a count."""

from __future__ import annotations

import enum
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import statekit
from statekit import IllegalTransition
from statekit.trigger import StateTrigger
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import AS_BEFORE, MOVES, STATES, fill, guarded, inbox, move, refused, stored, trigger


@pytest.fixture
def mail(sqlite_engine: sa.Engine) -> sa.Engine:
    """Return an engine on a database with messages 1 READY, 2 PROMOTED and 3 COMPLETED, and their trigger."""
    return inbox(sqlite_engine)


class TestRaise:
    def test_a_legal_move_passes(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert stored(mail)[1] == "COMPLETED"

    def test_an_illegal_move_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")

    def test_a_statement_with_an_illegal_row_changes_none(self, mail: sa.Engine) -> None:
        refused(mail, "UPDATE mail SET status = 'PROMOTED'")
        assert stored(mail) == AS_BEFORE

    def test_staying_passes(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = status, subject = 'x'")

    def test_an_unknown_state_is_refused_and_not_named(self, mail: sa.Engine) -> None:
        """An error of SQLite's is a literal."""
        assert move(refused(mail, "UPDATE mail SET status = 'LOST' WHERE id = 1")) == ("*", "*")

    def test_a_new_row_is_held_to_the_initial_states(self, mail: sa.Engine) -> None:
        error = refused(mail, "INSERT INTO mail VALUES (4, 'COMPLETED', '')")
        assert (error.new, error.source, error.target) == (True, None, "COMPLETED")
        execute(mail, "INSERT INTO mail VALUES (4, 'READY', '')")

    def test_an_upsert_is_judged_as_the_move_that_it_makes(self, mail: sa.Engine) -> None:
        upsert = "INSERT INTO mail VALUES ({}, '{}', '') ON CONFLICT (id) DO UPDATE SET status = excluded.status"
        execute(mail, upsert.format(2, "COMPLETED"))
        assert move(refused(mail, upsert.format(3, "READY"))) == ("COMPLETED", "READY")
        assert refused(mail, upsert.format(4, "COMPLETED")).new

    def test_a_view_with_a_trigger_of_the_user_is_held(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "CREATE VIEW mails AS SELECT * FROM mail",
            "CREATE TRIGGER through INSTEAD OF UPDATE ON mails BEGIN"
            " UPDATE mail SET status = NEW.status WHERE id = NEW.id; END",
        )
        assert move(refused(mail, "UPDATE mails SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")

    def test_a_foreign_key_that_cascades_is_held(self, sqlite_engine: sa.Engine) -> None:
        ddl = (
            "CREATE TABLE kind (name text PRIMARY KEY);"
            "INSERT INTO kind VALUES ('READY'), ('PROMOTED'), ('COMPLETED');"
            "CREATE TABLE mail (id integer PRIMARY KEY, subject text DEFAULT '',"
            " status text REFERENCES kind ON UPDATE CASCADE ON DELETE SET NULL)"
        )
        sa.event.listen(sqlite_engine, "connect", lambda c, r: c.execute("PRAGMA foreign_keys = ON").close())
        inbox(sqlite_engine, ddl=ddl)
        assert move(refused(sqlite_engine, "DELETE FROM kind WHERE name = 'COMPLETED'")) == ("COMPLETED", None)
        refused(sqlite_engine, "UPDATE kind SET name = 'DONE' WHERE name = 'COMPLETED'")

    def test_a_trigger_of_the_user_that_writes_the_state_is_held(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "CREATE TRIGGER reopen AFTER UPDATE OF subject ON mail BEGIN"
            " UPDATE mail SET status = 'READY' WHERE id = NEW.id; END",
        )
        assert move(refused(mail, "UPDATE mail SET subject = 'x' WHERE id = 3")) == ("COMPLETED", "READY")

    def test_the_comparison_of_the_column_decides_nothing(self, sqlite_engine: sa.Engine) -> None:
        """A column may take upper and lower case, or spaces at the end, for the same."""
        ddl = "CREATE TABLE mail (id integer PRIMARY KEY, status text COLLATE NOCASE, subject text DEFAULT '')"
        inbox(sqlite_engine, ddl=ddl)
        for state, id_ in (("completed", 2), ("ready", 1)):
            with pytest.raises(IllegalTransition):
                execute(sqlite_engine, f"UPDATE mail SET status = '{state}' WHERE id = {id_}")
        assert refused(sqlite_engine, "INSERT INTO mail VALUES (4, 'ready', '')").new

    def test_insert_or_replace_passes_as_a_new_row(self, mail: sa.Engine) -> None:
        """Open: SQLite deletes the row that is in the way, and tells no trigger; the new one may start in READY."""
        execute(mail, "INSERT OR REPLACE INTO mail VALUES (3, 'READY', '')")
        assert stored(mail)[2] == "READY"

    def test_insert_or_replace_is_held_to_the_initial_states(self, mail: sa.Engine) -> None:
        assert refused(mail, "INSERT OR REPLACE INTO mail VALUES (2, 'SPAM_REVIEW', '')").new

    @pytest.mark.parametrize("way", ["IGNORE", "FAIL", "ROLLBACK", "REPLACE"])
    def test_update_or_something_is_refused_all_the_same(self, mail: sa.Engine, way: str) -> None:
        """The way that the statement names overrides that of constraints; and of RAISE in a trigger, it must not."""
        with pytest.raises(IllegalTransition):
            execute(mail, f"UPDATE OR {way} mail SET status = 'READY' WHERE id = 3")
        assert stored(mail) == AS_BEFORE


class TestNullAndNumbers:
    def test_null_is_a_state_where_it_is_named(self, sqlite_engine: sa.Engine) -> None:
        fill(sqlite_engine, None, "READY", "PROMOTED")
        install(sqlite_engine, trigger(transitions=[(None, "READY"), ("PROMOTED", None)], initial=[None]))
        execute(sqlite_engine, "UPDATE mail SET status = 'READY' WHERE id = 1", "INSERT INTO mail VALUES (4, NULL, '')")
        execute(sqlite_engine, "UPDATE mail SET status = NULL WHERE id = 3")
        assert move(refused(sqlite_engine, "UPDATE mail SET status = NULL WHERE id = 2")) == ("READY", None)
        assert move(refused(sqlite_engine, "INSERT INTO mail VALUES (5, 'READY', '')")) == (None, "READY")

    def test_null_is_refused_where_it_is_none(self, sqlite_engine: sa.Engine) -> None:
        fill(sqlite_engine, None, "READY")
        install(sqlite_engine, trigger())
        assert move(refused(sqlite_engine, "UPDATE mail SET status = 'READY' WHERE id = 1")) == (None, "READY")
        assert move(refused(sqlite_engine, "UPDATE mail SET status = NULL WHERE id = 2")) == ("READY", None)
        assert move(refused(sqlite_engine, "INSERT INTO mail VALUES (3, NULL, '')")) == (None, None)
        execute(sqlite_engine, "UPDATE mail SET status = NULL WHERE id = 1")

    @pytest.mark.parametrize("type_", ["integer", "text", "", "numeric", "blob"])
    def test_numbers_are_held_whatever_the_column_makes_of_them(self, sqlite_engine: sa.Engine, type_: str) -> None:
        execute(sqlite_engine, f"CREATE TABLE mail (id integer PRIMARY KEY, status {type_})")
        execute(sqlite_engine, "INSERT INTO mail VALUES (1, 1), (2, -2)")
        install(sqlite_engine, trigger(transitions=[(1, -2)], initial=[1]))
        assert move(refused(sqlite_engine, "UPDATE mail SET status = 1 WHERE id = 2")) == ("-2", "1")
        execute(sqlite_engine, "UPDATE mail SET status = -2 WHERE id = 1", "INSERT INTO mail VALUES (3, 1)")


class TestSkip:
    @pytest.fixture
    def mail(self, sqlite_engine: sa.Engine) -> sa.Engine:
        return inbox(sqlite_engine, on_illegal="skip")

    def test_leaves_the_row_as_it_is_and_goes_on(self, mail: sa.Engine) -> None:
        with mail.begin() as connection:
            assert connection.exec_driver_sql("UPDATE mail SET status = 'COMPLETED', subject = 'x'").rowcount == 2
        assert stored(mail) == ["READY", "COMPLETED", "COMPLETED"]

    def test_refuses_a_new_row_all_the_same(self, mail: sa.Engine) -> None:
        assert refused(mail, "INSERT INTO mail VALUES (4, 'COMPLETED', '')").new


class TestObserve:
    def test_lets_everything_pass(self, sqlite_engine: sa.Engine) -> None:
        """It counts nothing there: what a trigger could note would be noted by a guard as well."""
        inbox(sqlite_engine, on_illegal="observe")
        execute(sqlite_engine, "UPDATE mail SET status = 'READY'", "INSERT INTO mail VALUES (4, 'LOST', '')")
        assert stored(sqlite_engine) == ["READY", "READY", "READY", "LOST"]


class TestACount:
    def test_is_kept_by_the_process_that_was_refused(
        self, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = guarded()
        model.metadata.create_all(sqlite_engine)
        name = model.__tablename__
        execute(sqlite_engine, f"INSERT INTO {name} VALUES (1, 'READY', '')")
        with caplog.at_level(logging.WARNING, "statekit"):
            for _ in range(2):
                refused(sqlite_engine, f"UPDATE {name} SET status = 'COMPLETED'")
        assert statekit.counts(model.status) == {("READY", "COMPLETED"): 2}
        assert statekit.counts(model.status, bind=sqlite_engine) == {("READY", "COMPLETED"): 2}
        assert len(caplog.records) == 2

    def test_is_collected_by_the_operation(self, sqlite_engine: sa.Engine) -> None:
        model = guarded()
        model.metadata.create_all(sqlite_engine)
        name = model.__tablename__
        execute(sqlite_engine, f"INSERT INTO {name} VALUES (1, 'READY', '')")
        with statekit.operation("Import") as op:
            refused(sqlite_engine, f"UPDATE {name} SET status = 'COMPLETED'")
        assert op.blocked == {("READY", "COMPLETED"): 1}


class TestManyStates:
    def test_are_named_by_their_source(self, sqlite_engine: sa.Engine) -> None:
        """More than 256 illegal moves would make a trigger of as many literals."""
        chain = [(f"S{n}", f"S{n + 1}") for n in range(19)]
        fill(sqlite_engine, "S7")
        install(sqlite_engine, trigger(transitions=chain, initial=["S0"]))
        error = refused(sqlite_engine, "UPDATE mail SET status = 'S3'")
        assert move(error) == ("S7", "*")
        execute(sqlite_engine, "UPDATE mail SET status = 'S8'")

    def test_may_be_400_edges(self, sqlite_engine: sa.Engine) -> None:
        moves = [(f"S{n}", f"S{(n + step) % 100}") for n in range(100) for step in (1, 2, 3, 4)]
        fill(sqlite_engine, "S7")
        install(sqlite_engine, trigger(transitions=moves, initial=["S0"]))
        execute(sqlite_engine, "UPDATE mail SET status = 'S11'")
        refused(sqlite_engine, "UPDATE mail SET status = 'S7'")


class TestStatements:
    def test_replace_gives_another_rule(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[*MOVES, ("COMPLETED", "READY")], on_illegal="skip")
        execute(mail, *new.replace_sql(trigger(), "sqlite"))
        execute(mail, "UPDATE mail SET status = 'READY' WHERE id = 3", "UPDATE mail SET status = 'READY' WHERE id = 2")
        assert stored(mail) == ["READY", "PROMOTED", "READY"]

    def test_create_again_changes_nothing(self, mail: sa.Engine) -> None:
        before = schema(mail)
        install(mail, trigger())
        assert schema(mail) == before

    def test_drop_leaves_nothing(self, sqlite_engine: sa.Engine) -> None:
        fill(sqlite_engine, *STATES)
        before = schema(sqlite_engine)
        install(sqlite_engine, trigger(on_illegal="skip"))
        execute(sqlite_engine, *trigger(on_illegal="skip").drop_sql("sqlite"))
        assert schema(sqlite_engine) == before

    def test_drop_where_there_is_none_does_nothing(self, sqlite_engine: sa.Engine) -> None:
        execute(sqlite_engine, *trigger().drop_sql("sqlite"))

    def test_drop_takes_what_another_mode_has_made(self, sqlite_engine: sa.Engine) -> None:
        inbox(sqlite_engine, on_illegal="skip")
        execute(sqlite_engine, *trigger().drop_sql("sqlite"))
        execute(sqlite_engine, "UPDATE mail SET status = 'READY'")
        assert stored(sqlite_engine) == ["READY"] * 3

    def test_the_trigger_goes_with_its_table(self, mail: sa.Engine) -> None:
        execute(mail, "DROP TABLE mail")
        assert schema(mail) == []

    def test_two_columns_have_a_trigger_each(self, sqlite_engine: sa.Engine) -> None:
        fill(sqlite_engine, *STATES)
        execute(sqlite_engine, "ALTER TABLE mail ADD review text")
        for each in (trigger(), StateTrigger("mail", "review", [(None, "OPEN"), ("OPEN", "CLOSED")], initial=[None])):
            install(sqlite_engine, each)
        assert move(refused(sqlite_engine, "UPDATE mail SET review = 'CLOSED'")) == (None, "CLOSED")
        assert move(refused(sqlite_engine, "UPDATE mail SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")


def schema(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name")]


class TestTheGuardInFront:
    def test_skips_together_with_the_trigger(self, sqlite_engine: sa.Engine) -> None:
        model = guarded(on_illegal="skip")
        model.metadata.create_all(sqlite_engine)
        with Session(sqlite_engine) as session:
            session.add(model(id=1, status="READY"))
            session.commit()
            session.get(model, 1).status = "COMPLETED"
            session.commit()
            assert session.get(model, 1).status == "READY"
        assert statekit.counts(model.status) == {("READY", "COMPLETED"): 1}

    def test_holds_an_enum(self, sqlite_engine: sa.Engine) -> None:
        class Kind(enum.Enum):
            READY = "r"
            SPAM_REVIEW = "s"
            PROMOTED = "p"
            COMPLETED = "c"

        model = guarded(type_=sa.Enum(Kind), default=Kind.READY)
        model.metadata.create_all(sqlite_engine)
        with Session(sqlite_engine) as session:
            session.add(model(id=1))
            session.commit()
            session.get(model, 1).status = Kind.PROMOTED
            session.commit()
        error = refused(sqlite_engine, f"UPDATE {model.__tablename__} SET status = 'READY'")
        assert move(error) == ("PROMOTED", "READY")
