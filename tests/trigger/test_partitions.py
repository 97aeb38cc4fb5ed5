"""Partitioned tables and tables that inherit: a row that changes its partition, and rows written past the parent."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from statekit.trigger.catalog import installed
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import AS_BEFORE, copy, counts, inbox, move, observed, refused, stored, trigger, version

BY_MONTH = (
    "CREATE TABLE mail (id integer, month integer DEFAULT 1, status text, subject text DEFAULT '',"
    " PRIMARY KEY (id, month)) PARTITION BY LIST (month);"
    "CREATE TABLE january PARTITION OF mail FOR VALUES IN (1);"
    "CREATE TABLE february PARTITION OF mail FOR VALUES IN (2) PARTITION BY LIST (month);"
    "CREATE TABLE february_all PARTITION OF february DEFAULT"
)
BY_STATE = (
    "CREATE TABLE mail (id integer, status text, subject text DEFAULT '') PARTITION BY LIST (status);"
    "CREATE TABLE open PARTITION OF mail FOR VALUES IN ('READY', 'PROMOTED');"
    "CREATE TABLE closed PARTITION OF mail DEFAULT"
)
INHERITED = (
    "CREATE TABLE mail (id integer PRIMARY KEY, status text, subject text DEFAULT '');"
    "CREATE TABLE urgent (PRIMARY KEY (id)) INHERITS (mail);"
    "CREATE TABLE most_urgent (PRIMARY KEY (id)) INHERITS (urgent)"
)


class TestPartitions:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        """Return an engine on a database with messages 1 READY, 2 PROMOTED, 3 COMPLETED, all of them of January."""
        return inbox(each_postgres, ddl=BY_MONTH)

    def test_an_illegal_move_is_refused(self, mail: sa.Engine) -> None:
        error = refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert (move(error), error.identity) == (("COMPLETED", "READY"), (3, 1))

    def test_an_illegal_move_into_another_partition_is_refused(self, mail: sa.Engine) -> None:
        """For PostgreSQL it is a DELETE and an INSERT, so that no AFTER UPDATE trigger sees it."""
        error = refused(mail, "UPDATE mail SET status = 'READY', month = 2 WHERE id = 3")
        assert move(error) == ("COMPLETED", "READY")
        assert stored(mail) == AS_BEFORE

    def test_a_legal_move_into_another_partition_passes(self, mail: sa.Engine) -> None:
        """Though there it arrives as a new row, in a state that is not initial."""
        execute(mail, "UPDATE mail SET status = 'COMPLETED', month = 2 WHERE id = 2")
        assert stored(mail)[1] == "COMPLETED"

    def test_a_row_that_only_changes_its_partition_passes(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET month = 2")
        assert stored(mail) == AS_BEFORE

    def test_an_update_of_a_partition_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE january SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")

    @pytest.mark.parametrize("table", ["mail", "february", "february_all"])
    def test_a_new_row_is_held_to_the_initial_states_wherever_it_is_written(self, mail: sa.Engine, table: str) -> None:
        assert refused(mail, f"INSERT INTO {table} VALUES (4, 2, 'COMPLETED')").new

    def test_a_new_row_in_an_initial_state_passes(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (4, 2, 'READY')", "INSERT INTO february VALUES (5, 2, 'READY')")
        assert stored(mail)[3:] == ["READY", "READY"]

    def test_a_new_row_among_legal_ones_is_found(self, mail: sa.Engine) -> None:
        error = refused(mail, "INSERT INTO mail VALUES (4, 2, 'READY'), (5, 1, 'PROMOTED'), (6, 2, 'READY')")
        assert (move(error), error.identity) == ((None, "PROMOTED"), (5, 1))

    @pytest.mark.parametrize("table", ["mail", "january"])
    def test_copy_is_held_to_the_initial_states(self, mail: sa.Engine, table: str) -> None:
        with pytest.raises(Exception, match="a new row cannot start in COMPLETED"):
            copy(mail, "4\tREADY\n5\tCOMPLETED\n", table)

    def test_a_legal_upsert_passes(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "INSERT INTO mail VALUES (2, 1, 'COMPLETED') ON CONFLICT (id, month) DO UPDATE SET status = 'COMPLETED'",
        )
        assert stored(mail)[1] == "COMPLETED"

    def test_an_illegal_upsert_is_refused(self, mail: sa.Engine) -> None:
        upsert = "INSERT INTO mail VALUES (3, 1, 'READY') ON CONFLICT (id, month) DO UPDATE SET status = 'READY'"
        assert move(refused(mail, upsert)) == ("COMPLETED", "READY")

    def test_merge_into_another_partition_is_refused(self, mail: sa.Engine) -> None:
        if version(mail) < 15:
            pytest.skip("PostgreSQL has MERGE since 15")
        merge = "MERGE INTO mail m USING (VALUES (3)) v(id) ON m.id = v.id WHEN MATCHED THEN UPDATE SET "
        assert move(refused(mail, merge + "month = 2, status = 'READY'")) == ("COMPLETED", "READY")

    def test_a_partition_that_is_made_later_holds_updates(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE TABLE march PARTITION OF mail FOR VALUES IN (3)")
        execute(mail, "INSERT INTO mail VALUES (4, 3, 'READY')")
        assert move(refused(mail, "UPDATE march SET status = 'COMPLETED'")) == ("READY", "COMPLETED")
        assert move(refused(mail, "UPDATE mail SET status = 'COMPLETED', month = 1 WHERE id = 4")) == (
            "READY",
            "COMPLETED",
        )

    def test_a_partition_that_is_made_later_holds_new_rows_of_the_parent(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE TABLE march PARTITION OF mail FOR VALUES IN (3)")
        assert refused(mail, "INSERT INTO mail VALUES (4, 3, 'COMPLETED')").new

    def test_a_table_that_is_attached_later_holds_updates(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "CREATE TABLE march (id integer NOT NULL, month integer NOT NULL, status text, subject text)",
            "INSERT INTO march VALUES (4, 3, 'READY')",
            "ALTER TABLE mail ATTACH PARTITION march FOR VALUES IN (3)",
        )
        assert move(refused(mail, "UPDATE march SET status = 'COMPLETED'")) == ("READY", "COMPLETED")

    def test_a_new_row_written_straight_into_a_later_partition_passes_and_is_reported(self, mail: sa.Engine) -> None:
        """Open: PostgreSQL gives a new partition its parent's row triggers, and none for statements."""
        execute(mail, "CREATE TABLE march PARTITION OF mail FOR VALUES IN (3)")
        execute(mail, "INSERT INTO march VALUES (4, 3, 'COMPLETED')")
        with mail.connect() as connection:
            problems = [problem.kind for each in installed(connection) for problem in each.problems]
        assert problems == ["incomplete"]

    def test_a_later_partition_is_held_completely_once_the_trigger_is_made_again(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE TABLE march PARTITION OF mail FOR VALUES IN (3)")
        install(mail, trigger())
        assert refused(mail, "INSERT INTO march VALUES (4, 3, 'COMPLETED')").new

    def test_what_a_later_before_trigger_writes_into_a_row_that_stays_is_refused(self, mail: sa.Engine) -> None:
        rewriting(mail)
        assert move(refused(mail, "UPDATE mail SET subject = 'x' WHERE id = 3")) == ("COMPLETED", "READY")

    def test_what_a_later_before_trigger_writes_into_a_row_that_moves_passes(self, mail: sa.Engine) -> None:
        """Open: nothing fires after it. Ours is called zzz_statekit_…, so that few names come after it."""
        rewriting(mail)
        execute(mail, "UPDATE mail SET month = 2 WHERE id = 3")
        assert stored(mail)[2] == "READY"

    def test_what_an_earlier_before_trigger_writes_into_a_row_that_moves_is_refused(self, mail: sa.Engine) -> None:
        rewriting(mail, "normalise")
        assert move(refused(mail, "UPDATE mail SET month = 2 WHERE id = 3")) == ("COMPLETED", "READY")

    def test_a_refused_row_is_counted_once(self, mail: sa.Engine) -> None:
        for change in ("status = 'READY'", "status = 'READY', month = 2"):
            refused(mail, f"UPDATE mail SET {change} WHERE id = 3")
        refused(mail, "INSERT INTO february VALUES (4, 2, 'COMPLETED')")
        assert counts(mail) == {("COMPLETED", "READY"): 2, (None, "COMPLETED"): 1}

    def test_drop_leaves_nothing_behind(self, mail: sa.Engine) -> None:
        execute(mail, *trigger().drop_sql("postgresql"))
        execute(mail, "UPDATE mail SET status = 'READY', month = 2", "INSERT INTO january VALUES (9, 1, 'LOST')")
        with mail.connect() as connection:
            left = connection.exec_driver_sql("SELECT count(*) FROM pg_trigger WHERE tgname ~ 'statekit'").scalar_one()
        assert left == 0


def rewriting(engine: sa.Engine, name: str = "zzzzzz") -> None:
    execute(
        engine,
        "CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.status := 'READY'; RETURN NEW; END$$",
        f"CREATE TRIGGER {name} BEFORE UPDATE ON mail FOR EACH ROW EXECUTE FUNCTION rewrite()",
    )


class TestSkippedPartitions:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return inbox(each_postgres, ddl=BY_MONTH, on_illegal="skip")

    def test_an_illegal_row_stays_where_and_as_it_is(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED', month = 2")
        with mail.connect() as connection:
            rows = connection.exec_driver_sql("SELECT id, month, status FROM mail ORDER BY id").all()
        assert [tuple(row) for row in rows] == [(1, 1, "READY"), (2, 2, "COMPLETED"), (3, 2, "COMPLETED")]

    def test_each_is_counted_once(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'READY', month = 2", "UPDATE january SET status = 'READY'")
        assert counts(mail) == {("PROMOTED", "READY"): 2, ("COMPLETED", "READY"): 2}


class TestObservedPartitions:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return inbox(each_postgres, ddl=BY_MONTH, on_illegal="observe")

    def test_a_row_that_stays_is_counted_once(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert stored(mail)[2] == "READY"
        assert observed(mail) == {("COMPLETED", "READY"): 1}

    def test_a_row_that_moves_is_counted_once(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'READY', month = 2 WHERE id = 3")
        assert stored(mail)[2] == "READY"
        assert observed(mail) == {("COMPLETED", "READY"): 1}

    def test_each_new_row_is_counted_once(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (4, 1, 'COMPLETED'), (5, 2, 'COMPLETED'), (6, 2, 'READY')")
        execute(mail, "INSERT INTO february VALUES (7, 2, NULL)")
        assert observed(mail) == {(None, "COMPLETED"): 2, (None, None): 1}


class TestATablePartitionedByItsState:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return inbox(each_postgres, ddl=BY_STATE)

    def test_a_legal_move_between_partitions_passes(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert stored(mail)[1] == "COMPLETED"

    def test_an_illegal_move_between_partitions_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")
        assert stored(mail) == AS_BEFORE

    def test_an_illegal_move_within_a_partition_is_refused(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 2")) == ("PROMOTED", "READY")

    @pytest.mark.parametrize("table", ["mail", "closed"])
    def test_a_new_row_is_held_to_the_initial_states(self, mail: sa.Engine, table: str) -> None:
        assert refused(mail, f"INSERT INTO {table} VALUES (4, 'COMPLETED')").new


class TestAGuardOnOnePartition:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        """Return an engine on a database in which only January has a trigger."""
        engine = inbox(each_postgres, ddl=BY_MONTH)
        execute(engine, *trigger().drop_sql("postgresql"))
        install(engine, trigger(table="january"))
        return engine

    @pytest.mark.parametrize("table", ["mail", "january"])
    def test_holds_its_rows(self, mail: sa.Engine, table: str) -> None:
        statement = f"UPDATE {table} SET status = 'READY' WHERE id = 3"
        assert move(refused(mail, statement)) == ("COMPLETED", "READY")

    def test_holds_rows_that_leave_it(self, mail: sa.Engine) -> None:
        statement = "UPDATE mail SET status = 'READY', month = 2 WHERE id = 3"
        assert move(refused(mail, statement)) == ("COMPLETED", "READY")

    def test_holds_new_rows_that_are_written_into_it(self, mail: sa.Engine) -> None:
        assert refused(mail, "INSERT INTO january VALUES (4, 1, 'COMPLETED')").new

    def test_does_not_hold_new_rows_that_come_through_its_parent(self, mail: sa.Engine) -> None:
        """Open: an INSERT fires the triggers for statements of the table that it names, and of no other."""
        execute(mail, "INSERT INTO mail VALUES (4, 1, 'COMPLETED')")
        assert stored(mail)[3] == "COMPLETED"

    def test_does_not_hold_rows_that_move_into_it(self, mail: sa.Engine) -> None:
        """Open: such a row is judged by the triggers of the partition that it leaves."""
        execute(mail, "INSERT INTO mail VALUES (4, 2, 'READY')")
        execute(mail, "UPDATE mail SET status = 'COMPLETED', month = 1 WHERE id = 4")
        assert stored(mail)[3] == "COMPLETED"

    def test_does_not_hold_those_of_others(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (4, 2, 'COMPLETED')", "UPDATE february SET status = 'READY'")
        assert stored(mail)[3] == "READY"


class TestInheritance:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        """Return an engine on a database with COMPLETED messages 11 and 12 in tables that inherit as well."""
        engine = inbox(each_postgres, ddl=INHERITED)
        execute(engine, *trigger().drop_sql("postgresql"))
        execute(
            engine, "INSERT INTO urgent VALUES (11, 'COMPLETED')", "INSERT INTO most_urgent VALUES (12, 'COMPLETED')"
        )
        install(engine, trigger())
        return engine

    @pytest.mark.parametrize(("table", "id_"), [("urgent", 11), ("most_urgent", 12), ("mail", 11), ("mail", 12)])
    def test_rows_of_children_are_held(self, mail: sa.Engine, table: str, id_: int) -> None:
        error = refused(mail, f"UPDATE {table} SET status = 'READY' WHERE id = {id_}")
        assert (move(error), error.identity) == (("COMPLETED", "READY"), (id_,))

    @pytest.mark.parametrize("table", ["mail", "urgent", "most_urgent"])
    def test_new_rows_of_children_are_held_to_the_initial_states(self, mail: sa.Engine, table: str) -> None:
        assert refused(mail, f"INSERT INTO {table} VALUES (13, 'PROMOTED')").new

    def test_a_refused_row_of_a_child_is_counted_once(self, mail: sa.Engine) -> None:
        refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 12")
        assert counts(mail) == {("COMPLETED", "READY"): 1}

    def test_a_child_that_is_made_later_is_not_held_and_is_reported(self, mail: sa.Engine) -> None:
        """Open: a table that inherits has no trigger of its parent's."""
        execute(mail, "CREATE TABLE later () INHERITS (mail)", "INSERT INTO later VALUES (14, 'COMPLETED')")
        with mail.connect() as connection:
            problems = {problem.kind for each in installed(connection) for problem in each.problems}
        assert problems == {"incomplete"}

    def test_a_child_that_is_made_later_is_held_once_the_trigger_is_made_again(self, mail: sa.Engine) -> None:
        execute(mail, "CREATE TABLE later () INHERITS (mail)")
        install(mail, trigger())
        assert refused(mail, "INSERT INTO later VALUES (14, 'COMPLETED')").new

    def test_drop_leaves_nothing_on_children(self, mail: sa.Engine) -> None:
        execute(mail, *trigger().drop_sql("postgresql"))
        execute(mail, "UPDATE mail SET status = 'READY'")
        assert stored(mail) == ["READY"] * 5
