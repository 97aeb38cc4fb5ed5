"""An ordinary role is counted, and can neither count by itself, nor take a count back, nor read one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import MOVES, TABLE, counts, engine_of, fill, inbox, refused, role, stored, trigger

ILLEGAL = "UPDATE mail SET status = 'READY' WHERE id = 3"
PAIR = ("COMPLETED", "READY")
GRANTS = ("GRANT ALL ON mail TO {role}", "GRANT CREATE ON SCHEMA public TO {role}")
IN_THE_SCHEMA = ("GRANT USAGE ON SCHEMA statekit TO {role}",)
EVERYTHING = (
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {role}",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {role}",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {role}",
)


@dataclass
class Places:
    """A database as its owner and as an ordinary role see it."""

    owner: sa.Engine
    app: sa.Engine
    name: str


@pytest.fixture
def places(each_postgres: sa.Engine) -> Iterator[Places]:
    inbox(each_postgres)
    with role(each_postgres, *GRANTS) as name:
        yield Places(each_postgres, engine_of(each_postgres, name), name)


@pytest.fixture
def generous(each_postgres: sa.Engine) -> Iterator[Places]:
    """The same where whatever is made is everybody's, as some set their databases up."""
    fill(each_postgres, "READY", "PROMOTED", "COMPLETED")
    with role(each_postgres, *GRANTS, *EVERYTHING) as name:
        install(each_postgres, trigger())
        # Else it would be the schema that keeps the role out, and not what is in it.
        execute(each_postgres, f"GRANT USAGE ON SCHEMA statekit TO {name}")
        yield Places(each_postgres, engine_of(each_postgres, name), name)


def counter(engine: sa.Engine) -> str:
    """Return the counter of the move that the tests try."""
    with engine.connect() as connection:
        return str(
            connection.exec_driver_sql(
                "SELECT relname FROM pg_class WHERE relkind = 'S'"
                ' AND obj_description(oid, \'pg_class\')::jsonb @> \'{"source": "COMPLETED", "target": "READY"}\''
            ).scalar_one()
        )


def is_denied(engine: sa.Engine, *statements: str) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        execute(engine, *statements)


class TestAnOrdinaryRole:
    def test_is_refused_an_illegal_move_and_counted(self, places: Places) -> None:
        refused(places.app, ILLEGAL)
        assert counts(places.owner) == {PAIR: 1}

    def test_makes_legal_moves_and_new_rows(self, places: Places) -> None:
        execute(places.app, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "INSERT INTO mail VALUES (4, 'READY')")
        assert stored(places.owner) == ["READY", "COMPLETED", "COMPLETED", "READY"]

    def test_needs_no_right_to_the_schema(self, places: Places) -> None:
        with places.app.connect() as connection:
            assert not connection.exec_driver_sql("SELECT has_schema_privilege('statekit', 'USAGE')").scalar_one()

    def test_is_counted_on_a_partitioned_table(self, each_postgres: sa.Engine) -> None:
        ddl = (
            "CREATE TABLE mail (id integer, status text, subject text DEFAULT '') PARTITION BY LIST (status);"
            "CREATE TABLE everything PARTITION OF mail DEFAULT"
        )
        inbox(each_postgres, ddl=ddl)
        with role(each_postgres, *GRANTS) as name:
            refused(engine_of(each_postgres, name), ILLEGAL)
            refused(engine_of(each_postgres, name), "INSERT INTO mail VALUES (4, 'COMPLETED')")
        assert counts(each_postgres) == {PAIR: 1, (None, "COMPLETED"): 1}

    @pytest.mark.parametrize("mode", ["skip", "observe"])
    def test_passes_in_other_modes(self, each_postgres: sa.Engine, mode: str) -> None:
        inbox(each_postgres, on_illegal=mode)
        with role(each_postgres, *GRANTS) as name:
            execute(engine_of(each_postgres, name), ILLEGAL)
        assert stored(each_postgres)[2] == {"skip": "COMPLETED", "observe": "READY"}[mode]


@pytest.mark.parametrize("given", [(), IN_THE_SCHEMA], ids=["", "usage-of-the-schema"])
class TestWhatIsDenied:
    """Without any right to the schema, and with that to use it, as whoever may read the counts has it."""

    @pytest.fixture
    def app(self, places: Places, given: tuple[str, ...]) -> sa.Engine:
        execute(places.owner, *(grant.format(role=places.name) for grant in given))
        return places.app

    @pytest.mark.parametrize("call", ["nextval('{}')", "setval('{}', 1)", "setval('{}', 1, false)", "currval('{}')"])
    def test_a_counter_cannot_be_changed(self, places: Places, app: sa.Engine, call: str) -> None:
        refused(app, ILLEGAL)
        name = call.format(f"statekit.{counter(places.owner)}")
        is_denied(app, f"SELECT {name}")
        assert counts(places.owner) == {PAIR: 1}

    def test_a_counter_cannot_be_read(self, places: Places, app: sa.Engine) -> None:
        is_denied(app, f"SELECT last_value FROM statekit.{counter(places.owner)}")

    def test_a_counter_cannot_be_read_by_its_number(self, places: Places, app: sa.Engine) -> None:
        """PostgreSQL answers with NULL or an error, depending on its version; never with the count."""
        refused(app, ILLEGAL)
        number = f"(SELECT oid FROM pg_class WHERE relname = '{counter(places.owner)}')"
        try:
            with app.connect() as connection:
                answer = connection.exec_driver_sql(f"SELECT pg_sequence_last_value({number}::regclass)").scalar_one()
        except sa.exc.ProgrammingError:
            answer = None
        assert answer is None

    @pytest.mark.parametrize("change", ["RESTART", "INCREMENT 2", "OWNED BY NONE"])
    def test_a_counter_cannot_be_altered(self, places: Places, app: sa.Engine, change: str) -> None:
        name = counter(places.owner)
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied|must be owner"):
            execute(app, f"ALTER SEQUENCE statekit.{name} {change}")

    def test_the_trigger_function_cannot_be_called(self, app: sa.Engine) -> None:
        with pytest.raises((sa.exc.ProgrammingError, sa.exc.NotSupportedError)):
            execute(app, f"SELECT statekit.{trigger().name}()")

    def test_the_trigger_function_cannot_be_used_for_a_table_of_its_own(self, app: sa.Engine) -> None:
        """It would count moves that nobody has made."""
        execute(app, TABLE.replace("mail", "mine"))
        is_denied(
            app,
            f"CREATE TRIGGER t BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION statekit.{trigger().name}()",
        )

    def test_the_counts_cannot_be_read(self, app: sa.Engine) -> None:
        is_denied(app, "SELECT * FROM statekit.counts_v1()")

    def test_the_rule_cannot_be_replaced(self, app: sa.Engine) -> None:
        signature = f"statekit.{trigger().name}_legal(source text, target text)"
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied|must be owner"):
            execute(
                app,
                f"CREATE OR REPLACE FUNCTION {signature} RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
            )

    def test_nothing_can_be_put_into_the_schema(self, app: sa.Engine) -> None:
        is_denied(app, "CREATE TABLE statekit.mine (id integer)")

    def test_the_trigger_cannot_be_dropped_or_disabled(self, app: sa.Engine) -> None:
        for statement in (f"DROP TRIGGER {trigger().name} ON mail", "ALTER TABLE mail DISABLE TRIGGER ALL"):
            with pytest.raises(sa.exc.ProgrammingError, match="must be owner|permission denied"):
                execute(app, statement)

    def test_triggers_cannot_be_left_out_by_a_setting(self, app: sa.Engine) -> None:
        is_denied(app, "SET session_replication_role = replica")


class TestDefaultPrivileges:
    """ALTER DEFAULT PRIVILEGES gives what is made from then on to somebody, our functions and counters as well."""

    def test_that_grant_everything_do_not_open_a_counter(self, generous: Places) -> None:
        refused(generous.app, ILLEGAL)
        for call in ("nextval('{}')", "setval('{}', 99)"):
            is_denied(generous.app, f"SELECT {call.format(f'statekit.{counter(generous.owner)}')}")
        is_denied(generous.app, f"SELECT last_value FROM statekit.{counter(generous.owner)}")
        assert counts(generous.owner) == {PAIR: 1}

    def test_that_grant_everything_do_not_open_the_trigger_function(self, generous: Places) -> None:
        execute(generous.app, TABLE.replace("mail", "mine"))
        is_denied(
            generous.app,
            f"CREATE TRIGGER t BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION statekit.{trigger().name}()",
        )

    def test_that_grant_everything_do_not_open_the_counts(self, generous: Places) -> None:
        is_denied(generous.app, "SELECT * FROM statekit.counts_v1()")

    def test_that_grant_everything_do_not_let_others_put_things_into_the_schema(self, generous: Places) -> None:
        is_denied(generous.app, "CREATE FUNCTION statekit.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'")

    def test_that_grant_everything_do_not_open_counters_that_a_new_rule_makes(self, generous: Places) -> None:
        new = trigger(transitions=[*MOVES, ("COMPLETED", "ARCHIVED")])
        execute(generous.owner, *new.replace_sql(trigger(), "postgresql"))
        with generous.owner.connect() as connection:
            names = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relkind = 'S'").scalars().all()
        for name in names:
            is_denied(generous.app, f"SELECT nextval('statekit.{name}')")

    @pytest.mark.parametrize("inline", [False, True])
    def test_that_revoke_functions_from_all_do_not_stop_legal_moves(
        self, each_postgres: sa.Engine, inline: bool
    ) -> None:
        """As security guides have it: without EXECUTE on the rule, every UPDATE would fail."""
        fill(each_postgres, "READY", "PROMOTED", "COMPLETED")
        execute(each_postgres, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        install(each_postgres, trigger(inline=inline))
        with role(each_postgres, *GRANTS) as name:
            app = engine_of(each_postgres, name)
            execute(app, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "INSERT INTO mail VALUES (4, 'READY')")
            refused(app, ILLEGAL)
        assert counts(each_postgres) == {PAIR: 1}
