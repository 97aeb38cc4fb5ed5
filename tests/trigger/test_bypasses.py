"""Every known way into a table. Most are closed by the trigger; those that stay open have a test that says so."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition, StatekitError
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import AS_BEFORE, MOVES, copy, counts, inbox, move, refused, role, stored, trigger, version


@pytest.fixture
def mail(each_postgres: sa.Engine) -> sa.Engine:
    """Return an engine on a database with messages 1 READY, 2 PROMOTED and 3 COMPLETED, and their trigger."""
    return inbox(each_postgres)


class TestAnUpdate:
    def test_along_a_transition_passes(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert stored(mail)[1] == "COMPLETED"

    def test_of_text_is_refused(self, mail: sa.Engine) -> None:
        error = refused(mail, "UPDATE mail SET status = 'SPAM_REVIEW' WHERE id = 2")
        assert move(error) == ("PROMOTED", "SPAM_REVIEW")
        assert stored(mail) == AS_BEFORE

    def test_of_many_rows_changes_none_if_one_is_illegal(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'PROMOTED' WHERE id IN (1, 3)")) == (
            "COMPLETED",
            "PROMOTED",
        )
        assert stored(mail) == AS_BEFORE

    def test_to_what_is_no_state_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'LOST' WHERE id = 1")) == ("READY", "LOST")

    def test_to_null_is_refused_where_it_is_no_state(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = NULL WHERE id = 1")) == ("READY", None)

    def test_with_from_is_refused(self, mail: sa.Engine) -> None:
        refused(mail, "UPDATE mail m SET status = o.status FROM mail o WHERE m.id = 3 AND o.id = 1")

    def test_through_a_cursor_is_refused(self, mail: sa.Engine) -> None:
        cursor = "DECLARE c CURSOR FOR SELECT * FROM mail WHERE id = 3 FOR UPDATE"
        refused(mail, cursor, "FETCH c", "UPDATE mail SET status = 'READY' WHERE CURRENT OF c")

    def test_in_a_writing_cte_is_refused(self, mail: sa.Engine) -> None:
        statement = "WITH moved AS (UPDATE mail SET status = 'READY' WHERE id = 3 RETURNING id) SELECT * FROM moved"
        assert move(refused(mail, statement)) == ("COMPLETED", "READY")
        assert stored(mail) == AS_BEFORE

    def test_through_a_view_is_refused(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE VIEW done AS SELECT * FROM mail WHERE status = 'COMPLETED'")
        assert move(refused(mail, "UPDATE done SET status = 'READY'")) == ("COMPLETED", "READY")

    def test_by_a_rule_is_refused(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "CREATE TABLE reopened (id integer)",
            "CREATE RULE reopen AS ON INSERT TO reopened DO ALSO UPDATE mail SET status = 'READY' WHERE id = NEW.id",
        )
        assert move(refused(mail, "INSERT INTO reopened VALUES (3)")) == ("COMPLETED", "READY")

    def test_by_a_function_of_another_role_is_refused(self, mail: sa.Engine) -> None:
        body = "BEGIN UPDATE mail SET status = 'READY' WHERE id = 3; END"
        execute(mail, f"CREATE FUNCTION reopen() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $${body}$$")
        with role(mail) as name:
            error = refused(mail, f"SET LOCAL ROLE {name}", "SELECT reopen()")
        assert move(error) == ("COMPLETED", "READY")

    def test_of_a_row_that_was_made_in_the_same_transaction_is_refused(self, mail: sa.Engine) -> None:
        new = "INSERT INTO mail VALUES (4, 'READY', '')"
        assert move(refused(mail, new, "UPDATE mail SET status = 'COMPLETED' WHERE id = 4")) == (
            "READY",
            "COMPLETED",
        )

    def test_in_two_legal_steps_passes(self, mail: sa.Engine) -> None:
        steps = (f"UPDATE mail SET status = '{state}' WHERE id = 1" for state in ("PROMOTED", "COMPLETED"))
        execute(mail, *steps)
        assert stored(mail)[0] == "COMPLETED"


class TestAForeignKey:
    """The guarded column may be one, and then PostgreSQL itself updates it."""

    TABLE = (
        "CREATE TABLE kind (name text PRIMARY KEY);"
        "INSERT INTO kind VALUES ('READY'), ('SPAM_REVIEW'), ('PROMOTED'), ('COMPLETED');"
        "CREATE TABLE mail (id integer PRIMARY KEY, subject text DEFAULT '',"
        " status text DEFAULT 'READY' REFERENCES kind ON UPDATE CASCADE ON DELETE {action})"
    )

    def test_that_cascades_an_update_is_refused(self, each_postgres: sa.Engine) -> None:
        engine = inbox(each_postgres, ddl=self.TABLE.format(action="NO ACTION"))
        assert move(refused(engine, "UPDATE kind SET name = 'DONE' WHERE name = 'COMPLETED'")) == ("COMPLETED", "DONE")

    def test_that_cascades_along_a_transition_passes(self, each_postgres: sa.Engine) -> None:
        engine = inbox(
            each_postgres, ddl=self.TABLE.format(action="NO ACTION"), transitions=[*MOVES, ("COMPLETED", "DONE")]
        )
        execute(engine, "UPDATE kind SET name = 'DONE' WHERE name = 'COMPLETED'")
        assert stored(engine)[2] == "DONE"

    @pytest.mark.parametrize(("action", "target"), [("SET NULL", None), ("SET DEFAULT", "READY")])
    def test_that_sets_another_state_is_refused(
        self, each_postgres: sa.Engine, action: str, target: str | None
    ) -> None:
        engine = inbox(each_postgres, ddl=self.TABLE.format(action=action))
        assert move(refused(engine, "DELETE FROM kind WHERE name = 'COMPLETED'")) == ("COMPLETED", target)


class TestANewRow:
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO mail VALUES (4, 'COMPLETED', '')",
            "INSERT INTO mail SELECT 4, status, '' FROM mail WHERE id = 3",
            "WITH new AS (INSERT INTO mail VALUES (4, 'COMPLETED', '') RETURNING id) SELECT * FROM new",
        ],
    )
    def test_in_a_state_that_is_not_initial_is_refused(self, mail: sa.Engine, statement: str) -> None:
        error = refused(mail, statement)
        assert (error.new, error.source, error.target) == (True, None, "COMPLETED")

    def test_in_an_initial_state_passes(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (4, 'READY', '')")
        assert stored(mail)[3] == "READY"

    def test_without_a_state_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "INSERT INTO mail (id) VALUES (4)")) == (None, None)

    def test_in_the_place_of_a_deleted_one_is_refused(self, mail: sa.Engine) -> None:
        """DELETE and INSERT make no move: the new row is held to the initial states."""
        new = "INSERT INTO mail VALUES (3, 'SPAM_REVIEW', '')"
        assert refused(mail, "DELETE FROM mail WHERE id = 3", new).new

    def test_after_truncate_is_refused(self, mail: sa.Engine) -> None:
        assert refused(mail, "TRUNCATE mail", "INSERT INTO mail VALUES (3, 'PROMOTED', '')").new

    def test_by_copy_is_refused(self, mail: sa.Engine) -> None:
        with pytest.raises(Exception, match="a new row cannot start in COMPLETED"):
            copy(mail, "4\tREADY\n5\tCOMPLETED\n")
        assert stored(mail) == AS_BEFORE

    def test_by_copy_in_an_initial_state_passes(self, mail: sa.Engine) -> None:
        copy(mail, "4\tREADY\n")
        assert stored(mail) == [*AS_BEFORE, "READY"]


class TestAnUpsert:
    UPSERT = "INSERT INTO mail VALUES ({id}, '{state}', '') ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status"

    def test_along_a_transition_passes(self, mail: sa.Engine) -> None:
        """The row that is proposed is no new one, though its state is not initial."""
        execute(mail, self.UPSERT.format(id=2, state="COMPLETED"))
        assert stored(mail)[1] == "COMPLETED"

    def test_of_an_illegal_move_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, self.UPSERT.format(id=2, state="SPAM_REVIEW"))) == ("PROMOTED", "SPAM_REVIEW")

    def test_to_the_same_state_passes(self, mail: sa.Engine) -> None:
        execute(mail, self.UPSERT.format(id=3, state="COMPLETED"))
        assert stored(mail) == AS_BEFORE

    def test_of_a_row_that_is_new_is_held_to_the_initial_states(self, mail: sa.Engine) -> None:
        assert refused(mail, self.UPSERT.format(id=4, state="COMPLETED")).new

    def test_that_does_nothing_passes(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (3, 'PROMOTED', '') ON CONFLICT DO NOTHING")
        assert stored(mail) == AS_BEFORE


class TestMerge:
    MERGE = (
        "MERGE INTO mail m USING (VALUES ({id}, '{state}')) v(id, state) ON m.id = v.id"
        " WHEN MATCHED THEN UPDATE SET status = v.state"
        " WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.state, '')"
    )

    @pytest.fixture(autouse=True)
    def _there_is_merge(self, each_postgres: sa.Engine) -> None:
        if version(each_postgres) < 15:
            pytest.skip("PostgreSQL has MERGE since 15")

    def test_along_a_transition_passes(self, mail: sa.Engine) -> None:
        execute(mail, self.MERGE.format(id=2, state="COMPLETED"))
        assert stored(mail)[1] == "COMPLETED"

    def test_of_an_illegal_move_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, self.MERGE.format(id=3, state="READY"))) == ("COMPLETED", "READY")

    def test_of_a_new_row_is_held_to_the_initial_states(self, mail: sa.Engine) -> None:
        assert refused(mail, self.MERGE.format(id=4, state="COMPLETED")).new


class TestATriggerOfTheUser:
    """A BEFORE trigger may write another state than the statement has named, or name one where it named none."""

    def rewriting(self, engine: sa.Engine, name: str, state: str = "READY", event: str = "UPDATE") -> None:
        execute(
            engine,
            "CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN NEW.status := '{state}'; RETURN NEW; END$$",
            f"CREATE TRIGGER {name} BEFORE {event} ON mail FOR EACH ROW EXECUTE FUNCTION rewrite()",
        )

    @pytest.mark.parametrize("name", ["aaa", "zzzzzz"])
    def test_that_rewrites_the_state_is_refused(self, mail: sa.Engine, name: str) -> None:
        self.rewriting(mail, name)
        error = refused(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert move(error) == ("PROMOTED", "READY")

    @pytest.mark.parametrize("name", ["aaa", "zzzzzz"])
    def test_that_rewrites_the_state_when_another_column_is_written_is_refused(
        self, mail: sa.Engine, name: str
    ) -> None:
        """A trigger of ours that named its column (UPDATE OF status) would not see it."""
        self.rewriting(mail, name)
        assert move(refused(mail, "UPDATE mail SET subject = 'x' WHERE id = 3")) == ("COMPLETED", "READY")

    @pytest.mark.parametrize("name", ["aaa", "zzzzzz"])
    def test_that_rewrites_a_new_row_is_refused(self, mail: sa.Engine, name: str) -> None:
        self.rewriting(mail, name, "PROMOTED", "INSERT")
        assert move(refused(mail, "INSERT INTO mail VALUES (4, 'READY', '')")) == (None, "PROMOTED")

    def test_that_makes_a_move_legal_passes(self, mail: sa.Engine) -> None:
        self.rewriting(mail, "zzzzzz", "COMPLETED")
        execute(mail, "UPDATE mail SET status = 'SPAM_REVIEW' WHERE id = 2")
        assert stored(mail)[1] == "COMPLETED"

    def test_with_which_the_database_skips_is_refused_if_it_comes_last(self, each_postgres: sa.Engine) -> None:
        """In "skip" a BEFORE trigger of ours judges; what a later one writes, our AFTER trigger refuses."""
        engine = inbox(each_postgres, on_illegal="skip")
        self.rewriting(engine, "zzzzzz")
        assert move(refused(engine, "UPDATE mail SET subject = 'x' WHERE id = 3")) == ("COMPLETED", "READY")
        assert stored(engine) == AS_BEFORE


class TestAnAlteredTable:
    def test_cannot_have_its_states_rewritten_by_a_change_of_type(self, mail: sa.Engine) -> None:
        """ALTER COLUMN TYPE … USING writes every row and fires no trigger; PostgreSQL refuses it if there is one."""
        statement = "ALTER TABLE mail ALTER status TYPE varchar USING 'READY'"
        with pytest.raises(StatekitError, match="depends on the column"):
            execute(mail, statement)
        assert stored(mail) == AS_BEFORE

    def test_cannot_lose_the_column(self, mail: sa.Engine) -> None:
        with pytest.raises(StatekitError, match="depends on the column"):
            execute(mail, "ALTER TABLE mail DROP COLUMN status")

    def test_of_another_name_is_held_as_before(self, mail: sa.Engine) -> None:
        execute(mail, "ALTER TABLE mail RENAME TO post")
        assert move(refused(mail, "UPDATE post SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")

    def test_of_another_schema_is_held_as_before(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE SCHEMA archive", "ALTER TABLE mail SET SCHEMA archive")
        assert move(refused(mail, "UPDATE archive.mail SET status = 'READY' WHERE id = 3")) == (
            "COMPLETED",
            "READY",
        )

    def test_whose_column_has_another_name_is_still_held(self, mail: sa.Engine) -> None:
        """The error is poor then, for the function knows the old name; but no illegal move gets through."""
        execute(mail, "ALTER TABLE mail RENAME status TO state")
        execute(mail, "UPDATE mail SET state = 'COMPLETED' WHERE id = 2")
        with pytest.raises((sa.exc.DBAPIError, IllegalTransition)):
            execute(mail, "UPDATE mail SET state = 'READY' WHERE id = 3")


class TestARolesOwnObjects:
    """Whoever writes may have functions and operators of its own, and a search path in which they come first."""

    SAME = (
        "RETURNS boolean LANGUAGE sql AS $$SELECT $1::text OPERATOR(pg_catalog.=) $2::text"
        " OR $1::text OPERATOR(pg_catalog.=) 'COMPLETED' AND $2::text OPERATOR(pg_catalog.=) 'READY'$$"
    )
    EVIL = (
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.yes(jsonb, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        # Not for every pair: what compares everything as equal would be noticed.
        f"CREATE FUNCTION evil.same(varchar, varchar) {SAME}",
        f"CREATE FUNCTION evil.same(text, text) {SAME}",
        "CREATE FUNCTION evil.get(jsonb, text) RETURNS jsonb LANGUAGE sql AS $$SELECT '[\"READY\"]'::jsonb$$",
        "CREATE OPERATOR evil.? (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.yes)",
        "CREATE OPERATOR evil.-> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.get)",
        "CREATE OPERATOR evil.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.same)",
        "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same)",
        "CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT null::jsonb'",
    )

    @pytest.mark.parametrize("inline", [False, True])
    @pytest.mark.parametrize("path", ["evil, public, pg_catalog", "evil, public"])
    @pytest.mark.parametrize("type_", ["text", "varchar(20)"])
    def test_do_not_make_a_move_legal(self, each_postgres: sa.Engine, type_: str, path: str, inline: bool) -> None:
        ddl = f"CREATE TABLE mail (id integer PRIMARY KEY, status {type_}, subject text DEFAULT '')"
        engine = inbox(each_postgres, ddl=ddl, inline=inline)
        execute(engine, *self.EVIL)
        error = refused(engine, f"SET LOCAL search_path = {path}", "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert (move(error), error.identity) == (("COMPLETED", "READY"), (3,))
        assert counts(engine) == {("COMPLETED", "READY"): 1}

    @pytest.mark.parametrize("inline", [False, True])
    @pytest.mark.parametrize("path", ["evil, public, pg_catalog", "evil, public"])
    @pytest.mark.parametrize("type_", ["text", "varchar(20)"])
    def test_do_not_get_into_a_trigger_that_is_made_with_them_in_the_path(
        self, each_postgres: sa.Engine, type_: str, path: str, inline: bool
    ) -> None:
        """Up to PostgreSQL 14, anybody may make them in the schema public, which is in everybody's search path."""
        ddl = f"CREATE TABLE mail (id integer PRIMARY KEY, status {type_}, subject text DEFAULT '')"
        engine = inbox(each_postgres, ddl=ddl)
        execute(engine, *self.EVIL)
        made = trigger(inline=inline).create_sql("postgresql")
        execute(engine, *trigger().drop_sql("postgresql"), f"SET LOCAL search_path = {path}", *made)
        assert move(refused(engine, "UPDATE mail SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")
        assert refused(engine, "INSERT INTO mail VALUES (4, 'COMPLETED', '')").new

    def test_of_a_temporary_schema_do_not_either(self, mail: sa.Engine) -> None:
        temporary = "CREATE TEMPORARY TABLE pg_class (oid oid, relispartition boolean)"
        error = refused(mail, temporary, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert error.identity == (3,)


class TestOpenByDesign:
    """PostgreSQL gives the owner of a table, and a superuser, these ways past every trigger."""

    def test_a_disabled_trigger_judges_nothing(self, mail: sa.Engine) -> None:
        """Only the owner may do it; ``statekit check`` finds it."""
        execute(mail, "ALTER TABLE mail DISABLE TRIGGER USER")
        execute(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert stored(mail)[2] == "READY"

    def test_a_session_that_replicates_fires_no_trigger(self, mail: sa.Engine) -> None:
        """So that logical replication and ``pg_restore --disable-triggers`` bring rows as they are elsewhere."""
        execute(mail, "SET LOCAL session_replication_role = replica", "UPDATE mail SET status = 'READY'")
        assert stored(mail) == ["READY"] * 3

    def test_a_trigger_that_is_always_enabled_fires_there_too(self, mail: sa.Engine) -> None:
        execute(mail, f"ALTER TABLE mail ENABLE ALWAYS TRIGGER {trigger().name}")
        refused(mail, "SET LOCAL session_replication_role = replica", "UPDATE mail SET status = 'READY'")

    def test_a_trigger_stays_always_enabled_when_it_is_made_again(self, mail: sa.Engine) -> None:
        execute(mail, f"ALTER TABLE mail ENABLE ALWAYS TRIGGER {trigger().name}")
        install(mail, trigger())
        refused(mail, "SET LOCAL session_replication_role = replica", "UPDATE mail SET status = 'READY'")

    def test_rows_that_are_there_already_are_not_judged(self, each_postgres: sa.Engine) -> None:
        """Only what is written is: a row in a state that the table does not know stays until somebody updates it."""
        engine = inbox(each_postgres)
        execute(engine, *trigger().drop_sql("postgresql"), "UPDATE mail SET status = 'LOST' WHERE id = 1")
        install(engine, trigger())
        execute(engine, "UPDATE mail SET subject = 'x'")
        assert move(refused(engine, "UPDATE mail SET status = 'READY' WHERE id = 1")) == ("LOST", "READY")
