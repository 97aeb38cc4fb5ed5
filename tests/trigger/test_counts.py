"""What triggers have blocked is counted in the database, exactly, whatever becomes of the transaction."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition, StatekitError
from statekit.errors import Pair
from statekit.trigger import StateTrigger
from statekit.trigger.postgresql.writer import lock_key
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import (
    MOVES,
    STATES,
    TABLE,
    counts,
    engine_of,
    fill,
    inbox,
    observed,
    refused,
    role,
    stored,
    trigger,
)

ILLEGAL = "UPDATE mail SET status = 'READY' WHERE id = 3"
PAIR = ("COMPLETED", "READY")


class TestABlockedMove:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return inbox(each_postgres)

    def test_is_counted_though_its_transaction_rolls_back(self, mail: sa.Engine) -> None:
        for _ in range(3):
            refused(mail, ILLEGAL)
        assert counts(mail) == {PAIR: 3}

    def test_is_counted_by_source_and_target(self, mail: sa.Engine) -> None:
        refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 2")
        refused(mail, "UPDATE mail SET status = NULL WHERE id = 2")
        assert counts(mail) == {("PROMOTED", "READY"): 1, ("PROMOTED", None): 1}

    def test_of_a_new_row_has_no_source(self, mail: sa.Engine) -> None:
        refused(mail, "INSERT INTO mail VALUES (4, 'COMPLETED')")
        assert counts(mail) == {(None, "COMPLETED"): 1}

    def test_of_a_new_row_and_from_null_are_summed(self, mail: sa.Engine) -> None:
        """A count has no room for the difference; the database keeps two."""
        install(mail, trigger(states=[None]))
        execute(mail, "ALTER TABLE mail DISABLE TRIGGER USER", "INSERT INTO mail VALUES (4, NULL)")
        execute(mail, "ALTER TABLE mail ENABLE TRIGGER USER")
        refused(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 4")
        refused(mail, "INSERT INTO mail VALUES (5, 'COMPLETED')")
        assert counts(mail) == {(None, "COMPLETED"): 2}

    @pytest.mark.parametrize(
        ("statement", "pair"),
        [
            ("UPDATE mail SET status = 'LOST' WHERE id = 1", ("*", "*")),
            ("INSERT INTO mail VALUES (4, 'LOST')", (None, "*")),
        ],
    )
    def test_to_what_is_no_state_is_counted_as_such(self, mail: sa.Engine, statement: str, pair: Pair) -> None:
        refused(mail, statement)
        assert counts(mail) == {pair: 1}

    def test_from_what_is_no_state_is_counted_as_such(self, mail: sa.Engine) -> None:
        execute(mail, *trigger().drop_sql("postgresql"), "UPDATE mail SET status = 'LOST' WHERE id = 1")
        install(mail, trigger())
        refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 1")
        assert counts(mail) == {("*", "*"): 1}

    def test_is_counted_though_a_savepoint_takes_it_back(self, mail: sa.Engine) -> None:
        with mail.begin() as connection:
            for _ in range(2):
                with pytest.raises(IllegalTransition), connection.begin_nested():
                    connection.exec_driver_sql(ILLEGAL)
            connection.exec_driver_sql("UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert counts(mail) == {PAIR: 2}
        assert stored(mail)[1] == "COMPLETED"

    def test_is_counted_though_plpgsql_catches_it(self, mail: sa.Engine) -> None:
        body = f"BEGIN FOR i IN 1..5 LOOP BEGIN {ILLEGAL}; EXCEPTION WHEN check_violation THEN END; END LOOP; END"
        execute(mail, f"DO $${body}$$")
        assert counts(mail) == {PAIR: 5}

    def test_is_counted_exactly_with_8_clients(self, mail: sa.Engine) -> None:
        def client() -> None:
            for _ in range(25):
                refused(mail, ILLEGAL)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts(mail) == {PAIR: 200}

    def test_leaves_no_lock_when_its_savepoint_is_rolled_back(self, mail: sa.Engine) -> None:
        """Else whoever goes on after an error would hold up all others until the transaction ends."""
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        with mail.begin() as connection:
            with pytest.raises(IllegalTransition), connection.begin_nested():
                connection.exec_driver_sql(ILLEGAL)
            assert connection.exec_driver_sql(held).scalar_one() == 0

    def test_is_counted_while_somebody_else_holds_the_lock(self, mail: sa.Engine) -> None:
        """Those who count take turns; but anybody may hold an advisory lock, and then it only delays."""
        started = time.monotonic()
        with mail.connect() as other:
            other.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock_key(trigger())})")
            for _ in range(2):
                refused(mail, ILLEGAL)
        assert 2 * 0.9 < time.monotonic() - started < 10
        refused(mail, ILLEGAL)
        assert counts(mail) == {PAIR: 3}

    def test_that_is_legal_is_not_counted(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "INSERT INTO mail VALUES (4, 'READY')")
        assert counts(mail) == {}

    def test_of_a_statement_with_several_illegal_rows_is_one(self, mail: sa.Engine) -> None:
        """The trigger names the first row, and the statement ends there."""
        refused(mail, "UPDATE mail SET status = 'LOST'")
        assert counts(mail).total() == 1


class TestSkippedAndObserved:
    def test_each_skipped_row_is_counted_as_blocked(self, each_postgres: sa.Engine) -> None:
        engine = inbox(each_postgres, on_illegal="skip")
        execute(engine, "UPDATE mail SET status = 'READY'")
        assert counts(engine) == {("PROMOTED", "READY"): 1, ("COMPLETED", "READY"): 1}

    def test_a_skipped_row_stays_counted_though_its_transaction_rolls_back(self, each_postgres: sa.Engine) -> None:
        engine = inbox(each_postgres, on_illegal="skip")
        with engine.connect() as connection:
            connection.exec_driver_sql(ILLEGAL)
            connection.rollback()
        assert counts(engine) == {PAIR: 1}

    def test_an_observed_move_is_not_among_the_blocked(self, each_postgres: sa.Engine) -> None:
        engine = inbox(each_postgres, on_illegal="observe")
        execute(engine, ILLEGAL, "INSERT INTO mail VALUES (4, 'PROMOTED')")
        assert counts(engine) == {}
        assert observed(engine) == {PAIR: 1, (None, "PROMOTED"): 1}

    def test_counts_of_another_mode_stay_apart(self, each_postgres: sa.Engine) -> None:
        engine = inbox(each_postgres, on_illegal="observe")
        execute(engine, ILLEGAL)
        execute(engine, *trigger().replace_sql(trigger(on_illegal="observe"), "postgresql"))
        refused(engine, "UPDATE mail SET status = 'COMPLETED' WHERE id = 3")
        assert counts(engine) == {("READY", "COMPLETED"): 1}
        assert observed(engine) == {PAIR: 1}


class TestManyStates:
    NUMBER = 20
    CHAIN = tuple((f"S{n}", f"S{n + 1}") for n in range(NUMBER - 1))

    @pytest.fixture
    def chain(self, each_postgres: sa.Engine) -> sa.Engine:
        """Return an engine on a database with 20 states, and so more than 256 illegal moves."""
        fill(each_postgres, "S0", "S7")
        install(each_postgres, trigger(transitions=self.CHAIN, initial=["S0"]))
        return each_postgres

    def test_are_counted_by_source(self, chain: sa.Engine) -> None:
        for target in ("S3", "S4"):
            refused(chain, f"UPDATE mail SET status = '{target}' WHERE id = 2")
        refused(chain, "UPDATE mail SET status = 'S5' WHERE id = 1")
        assert counts(chain) == {("S7", "*"): 2, ("S0", "*"): 1}

    def test_are_still_named_by_the_error(self, chain: sa.Engine) -> None:
        error = refused(chain, "UPDATE mail SET status = 'S3' WHERE id = 2")
        assert (error.source, error.target, error.allowed) == ("S7", "S3", ("S8",))

    def test_have_few_counters(self, chain: sa.Engine) -> None:
        with chain.connect() as connection:
            number = connection.exec_driver_sql("SELECT count(*) FROM pg_class WHERE relkind = 'S'").scalar_one()
        assert number <= self.NUMBER + 4


class TestAnotherRule:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        engine = inbox(each_postgres)
        refused(engine, ILLEGAL)
        return engine

    def test_keeps_the_counts(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[*MOVES, ("COMPLETED", "ARCHIVED")])
        execute(mail, *new.replace_sql(trigger(), "postgresql"))
        refused(mail, ILLEGAL)
        assert counts(mail) == {PAIR: 2}

    def test_counts_states_that_are_new(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[*MOVES, ("COMPLETED", "ARCHIVED")])
        execute(mail, *new.replace_sql(trigger(), "postgresql"))
        refused(mail, "UPDATE mail SET status = 'ARCHIVED' WHERE id = 1")
        assert counts(mail) == {PAIR: 1, ("READY", "ARCHIVED"): 1}

    def test_made_as_if_there_were_none_keeps_the_counts(self, mail: sa.Engine) -> None:
        install(mail, trigger())
        assert counts(mail) == {PAIR: 1}

    def test_through_inline_keeps_the_counts(self, mail: sa.Engine) -> None:
        execute(mail, *trigger(inline=True).replace_sql(trigger(), "postgresql"))
        refused(mail, ILLEGAL)
        assert counts(mail) == {PAIR: 2}

    def test_drop_removes_the_counts(self, mail: sa.Engine) -> None:
        execute(mail, *trigger().drop_sql("postgresql"))
        install(mail, trigger())
        assert counts(mail) == {}

    def test_drop_leaves_those_of_other_triggers(self, mail: sa.Engine) -> None:
        other = trigger(table="archive")
        execute(mail, "CREATE TABLE archive AS SELECT * FROM mail", *other.create_sql("postgresql"))
        refused(mail, "UPDATE archive SET status = 'READY' WHERE id = 3")
        execute(mail, *trigger().drop_sql("postgresql"))
        assert counts(mail) == {PAIR: 1}


class TestTheRightToRead:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        engine = inbox(each_postgres)
        refused(engine, ILLEGAL)
        return engine

    def test_is_asked_for_where_it_is_missing(self, mail: sa.Engine) -> None:
        with role(mail) as name:
            with pytest.raises(StatekitError, match="may not read") as caught:
                counts(engine_of(mail, name))
        assert f'GRANT USAGE ON SCHEMA statekit TO "{name}"' in str(caught.value)

    def test_of_the_function_is_asked_for_where_only_that_is_missing(self, mail: sa.Engine) -> None:
        with role(mail, "GRANT USAGE ON SCHEMA statekit TO {role}") as name:
            with pytest.raises(StatekitError, match="may not read") as caught:
                counts(engine_of(mail, name))
        assert f'GRANT EXECUTE ON FUNCTION statekit.counts_v1() TO "{name}"' in str(caught.value)

    def test_is_had_after_what_the_error_says(self, mail: sa.Engine) -> None:
        with role(mail) as name:
            with pytest.raises(StatekitError) as caught:
                counts(engine_of(mail, name))
            grants = str(caught.value).partition("Its owner says: ")[2]
            execute(mail, grants)
            assert counts(engine_of(mail, name)) == {PAIR: 1}


class TestRolesThatMigrate:
    """No superuser: a role that owns the tables makes the triggers, and so the schema statekit."""

    OWNER = ("GRANT CREATE ON SCHEMA public TO {role}", "GRANT CREATE ON DATABASE {database} TO {role}")

    def test_make_triggers_and_read_their_counts(self, each_postgres: sa.Engine) -> None:
        with role(each_postgres, *self.OWNER) as name:
            engine = inbox(engine_of(each_postgres, name))
            refused(engine, ILLEGAL)
            assert counts(engine) == {PAIR: 1}

    def test_replace_and_drop_their_triggers(self, each_postgres: sa.Engine) -> None:
        with role(each_postgres, *self.OWNER) as name:
            engine = inbox(engine_of(each_postgres, name))
            execute(engine, *trigger(transitions=[("COMPLETED", "READY")]).replace_sql(trigger(), "postgresql"))
            execute(engine, ILLEGAL, *trigger().drop_sql("postgresql"))
            assert counts(engine) == {}

    def test_are_told_what_they_lack_where_another_one_owns_the_schema(self, each_postgres: sa.Engine) -> None:
        inbox(each_postgres)
        with role(each_postgres, *self.OWNER) as name, role(each_postgres):
            engine = engine_of(each_postgres, name)
            execute(engine, TABLE.replace("mail", "theirs"))
            grant = f'GRANT USAGE, CREATE ON SCHEMA statekit TO "?{name}"?;'
            with pytest.raises(sa.exc.ProgrammingError, match=grant):
                install(engine, trigger(table="theirs"))

    def test_are_told_what_they_lack_where_they_may_not_make_the_schema(self, each_postgres: sa.Engine) -> None:
        with role(each_postgres, "GRANT CREATE ON SCHEMA public TO {role}") as name:
            engine = engine_of(each_postgres, name)
            execute(engine, TABLE)
            with pytest.raises(sa.exc.ProgrammingError, match=f'CREATE SCHEMA statekit AUTHORIZATION "?{name}"?;'):
                install(engine, trigger())

    def test_read_the_counts_of_one_another(self, each_postgres: sa.Engine) -> None:
        """The function that reads belongs to whoever came first, and may read what others have made."""
        with role(each_postgres, *self.OWNER) as first, role(each_postgres, *self.OWNER) as second:
            engine = self.theirs(each_postgres, first, second)
            assert counts(engine, trigger(table="theirs")) == {(None, "COMPLETED"): 1}
            install(engine, trigger(table="theirs"))
            assert counts(engine, trigger(table="theirs")) == {(None, "COMPLETED"): 1}

    def test_are_told_where_the_reading_function_lacks_a_right(self, each_postgres: sa.Engine) -> None:
        """Nothing that may not be read is taken for 0."""
        with role(each_postgres, *self.OWNER) as first, role(each_postgres, *self.OWNER) as second:
            engine = self.theirs(each_postgres, first, second)
            execute(each_postgres, f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA statekit FROM {first}")
            with pytest.raises(StatekitError, match="another role has made"):
                counts(engine, trigger(table="theirs"))

    def theirs(self, engine: sa.Engine, first: str, second: str) -> sa.Engine:
        """Make a trigger as each of the roles, and have that of the second one count a row."""
        inbox(engine_of(engine, first))
        execute(
            engine,
            f"GRANT CREATE, USAGE ON SCHEMA statekit TO {second}",
            f"GRANT EXECUTE ON FUNCTION statekit.counts_v1() TO {second}",
        )
        other = engine_of(engine, second)
        execute(other, TABLE.replace("mail", "theirs"))
        install(other, trigger(table="theirs"))
        refused(other, "INSERT INTO theirs VALUES (1, 'COMPLETED')")
        return other


def test_states_are_counted_under_their_own_names_where_two_columns_are_held(each_postgres: sa.Engine) -> None:
    """Each column of a table has a trigger and counters of its own."""
    fill(each_postgres, *STATES)
    execute(each_postgres, "ALTER TABLE mail ADD review text")
    status, review = trigger(), StateTrigger("mail", "review", [("OPEN", "CLOSED")], initial=["OPEN", None])
    for each in (status, review):
        install(each_postgres, each)
    refused(each_postgres, ILLEGAL)
    refused(each_postgres, "UPDATE mail SET review = 'CLOSED' WHERE id = 3")
    assert counts(each_postgres, status) == {PAIR: 1}
    assert counts(each_postgres, review) == {(None, "CLOSED"): 1}
