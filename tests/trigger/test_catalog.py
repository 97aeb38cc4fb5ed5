"""What a database says of its triggers: which there are, and whether they are as they were made."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from statekit.trigger import StateTrigger
from statekit.trigger.catalog import Installed, installed
from tests.support.databases import all_async_backends, execute, on_postgresql, on_sqlite, run
from tests.trigger.by_hand import TABLE, install, trigger

NAME = trigger().name

PARTITIONED = (
    "CREATE TABLE message (id integer, status text, subject text, part integer, PRIMARY KEY (id, part))"
    " PARTITION BY LIST (part);"
    "CREATE TABLE message_1 PARTITION OF message FOR VALUES IN (1);"
    "CREATE TABLE message_2 PARTITION OF message FOR VALUES IN (2) PARTITION BY LIST (part);"
    "CREATE TABLE message_2_2 PARTITION OF message_2 FOR VALUES IN (2)"
)
INHERITED = f"{TABLE};CREATE TABLE old_message () INHERITS (message);CREATE TABLE older () INHERITS (old_message)"


def made(engine: sa.Engine, *changes: str, ddl: str = TABLE, **options: object) -> sa.Engine:
    """Make the table and its trigger, and then change something by hand."""
    execute(engine, *ddl.split(";"))
    install(engine, trigger(**options))
    execute(engine, *changes)
    return engine


def there(engine: sa.Engine) -> list[Installed]:
    with engine.connect() as connection:
        return installed(connection)


def problems(engine: sa.Engine) -> list[tuple[str, str]]:
    (only,) = there(engine)
    return [(problem.kind, problem.detail) for problem in only.problems]


def kinds(engine: sa.Engine) -> set[str]:
    return {kind for kind, _ in problems(engine)}


def test_an_empty_database_has_none(engine: sa.Engine) -> None:
    assert there(engine) == []


@pytest.mark.parametrize("on_illegal", ["raise", "skip", "observe"])
def test_a_trigger_is_found_as_it_was_declared(engine: sa.Engine, on_illegal: str) -> None:
    made(engine, on_illegal=on_illegal)
    (only,) = there(engine)
    assert (only.trigger, only.table, only.problems) == (trigger(on_illegal=on_illegal), "message", ())


def test_they_are_sorted_by_table_and_column(engine: sa.Engine) -> None:
    execute(engine, *(f"CREATE TABLE {name} (id integer PRIMARY KEY, a text, b text)" for name in ("two", "one")))
    for table, column in [("two", "b"), ("one", "b"), ("two", "a"), ("one", "a")]:
        install(engine, trigger(table=table, column=column))
    assert [(each.table, each.trigger.column) for each in there(engine)] == [
        ("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"),
    ]  # fmt: skip


def test_the_schema_is_the_one_that_the_table_is_in(engine: sa.Engine) -> None:
    made(engine)
    assert there(engine)[0].schema == ("main" if engine.dialect.name == "sqlite" else "public")


@on_postgresql
def test_triggers_of_every_schema_are_found(engine: sa.Engine) -> None:
    execute(engine, 'CREATE SCHEMA "The Shop"', 'CREATE TABLE "The Shop".message (id integer PRIMARY KEY, status text)')
    install(engine, trigger(schema="The Shop"))
    assert [(each.schema, each.trigger, each.problems) for each in there(engine)] == [
        ("The Shop", trigger(schema="The Shop"), ())
    ]


@on_sqlite
def test_triggers_of_attached_databases_are_found(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("ATTACH ':memory:' AS \"other % one\"")
        connection.exec_driver_sql('CREATE TABLE "other % one".message (id integer PRIMARY KEY, status text)')
        of_other = trigger(schema="other % one")
        for statement in of_other.create_sql(engine.dialect):
            connection.exec_driver_sql(statement)
        assert installed(connection) == [Installed("other % one", "message", of_other)]


def test_triggers_of_others_are_none_of_ours(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    if engine.dialect.name == "sqlite":
        execute(engine, "CREATE TRIGGER statekit_own AFTER INSERT ON message BEGIN SELECT 1; END")
    else:
        execute(
            engine,
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER statekit_own AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION own()",
            "COMMENT ON TRIGGER statekit_own ON message IS '{}'",
        )
    assert there(engine) == []


@on_sqlite
def test_on_sqlite_a_copy_under_another_name_is_none_of_ours(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    copied = next(text for text in trigger().create_sql("sqlite") if text.startswith("CREATE"))
    execute(engine, copied.replace(NAME, "statekit_copy", 1))
    assert there(engine) == []


@on_postgresql
def test_a_copy_under_another_name_is_none_of_ours(engine: sa.Engine) -> None:
    made(
        engine,
        f"CREATE TRIGGER statekit_copy AFTER UPDATE ON message FOR EACH ROW EXECUTE FUNCTION statekit.{NAME}()",
        "DO $$ BEGIN EXECUTE 'COMMENT ON TRIGGER statekit_copy ON message IS ' || quote_literal(obj_description(oid))"
        f" FROM pg_trigger WHERE tgname = '{NAME}'; END $$",
    )
    assert [each.trigger.name for each in there(engine)] == [NAME]


@on_sqlite
def test_on_sqlite_a_part_that_was_dropped_is_missing(engine: sa.Engine) -> None:
    made(engine, f"DROP TRIGGER {NAME}_new")
    assert problems(engine) == [("incomplete", f"the trigger {NAME}_new is missing")]


@on_sqlite
def test_on_sqlite_a_trigger_with_another_text_was_edited(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    for statement in trigger().create_sql("sqlite"):
        execute(engine, statement.replace("'SPAM_REVIEW'", "'SPAM_REVIEW', 'HAM'"))
    assert kinds(engine) == {"edited"}


@on_postgresql
@pytest.mark.parametrize("what", [NAME, f"{NAME}_new"])
def test_a_disabled_trigger_is_named(engine: sa.Engine, what: str) -> None:
    made(engine, f"ALTER TABLE message DISABLE TRIGGER {what}")
    assert problems(engine) == [("disabled", f"the trigger {what} is disabled on public.message")]


@on_postgresql
def test_a_trigger_for_replication_only_is_disabled(engine: sa.Engine) -> None:
    made(engine, f"ALTER TABLE message ENABLE REPLICA TRIGGER {NAME}")
    assert kinds(engine) == {"disabled"}


@on_postgresql
def test_a_trigger_that_fires_always_is_well(engine: sa.Engine) -> None:
    made(engine, f"ALTER TABLE message ENABLE ALWAYS TRIGGER {NAME}")
    assert problems(engine) == []


@on_postgresql
@pytest.mark.parametrize(
    "change",
    [
        f"CREATE OR REPLACE FUNCTION statekit.{NAME}_legal(source text, target text) RETURNS bool LANGUAGE plpgsql"
        " IMMUTABLE AS 'BEGIN RETURN true; END'",
        f"CREATE OR REPLACE FUNCTION statekit.{NAME}_initial(state text) RETURNS bool LANGUAGE sql IMMUTABLE"
        " AS 'SELECT true'",
        f"ALTER FUNCTION statekit.{NAME}_legal(text, text) STRICT",
        f"ALTER FUNCTION statekit.{NAME}_legal(text, text) VOLATILE",
        f"ALTER FUNCTION statekit.{NAME}_legal(text, text) SET search_path = public",
        f"ALTER FUNCTION statekit.{NAME}_legal(text, text) SET search_path = pg_catalog",
        f"ALTER FUNCTION statekit.{NAME}() SECURITY INVOKER",
        f"ALTER FUNCTION statekit.{NAME}() SET search_path = public",
        f"ALTER FUNCTION statekit.{NAME}() RESET ALL",
    ],
)
def test_a_function_that_was_changed_is_edited(engine: sa.Engine, change: str) -> None:
    made(engine, change)
    assert kinds(engine) == {"edited"}


@on_postgresql
@pytest.mark.parametrize(
    "change",
    [
        f"CREATE OR REPLACE TRIGGER {NAME} AFTER UPDATE ON message FOR EACH ROW WHEN (false) EXECUTE FUNCTION"
        f" statekit.{NAME}()",
        f"CREATE OR REPLACE TRIGGER {NAME} AFTER UPDATE OF subject ON message FOR EACH ROW EXECUTE FUNCTION"
        f" statekit.{NAME}()",
        f"CREATE OR REPLACE TRIGGER {NAME}_new AFTER INSERT ON message FOR EACH ROW WHEN (false) EXECUTE FUNCTION"
        f" statekit.{NAME}()",
        f"CREATE TRIGGER zzz_{NAME} BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION statekit.{NAME}()",
    ],
)
def test_a_trigger_that_was_made_otherwise_is_edited(engine: sa.Engine, change: str) -> None:
    made(engine, change)
    assert problems(engine) == [("edited", "the triggers on public.message were changed by hand")]


@on_postgresql
def test_a_trigger_that_was_dropped_is_named(engine: sa.Engine) -> None:
    made(engine, f"DROP TRIGGER zzz_{NAME} ON message", on_illegal="skip")
    assert problems(engine) == [("incomplete", f"the trigger zzz_{NAME} is missing on public.message")]


@on_postgresql
def test_a_counter_that_was_dropped_is_named(engine: sa.Engine) -> None:
    made(engine)
    with engine.connect() as connection:
        counter = connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relkind = 'S' ORDER BY 1")).first()
    execute(engine, f"DROP SEQUENCE statekit.{counter}")
    assert problems(engine) == [("incomplete", f"counters are missing in the schema statekit: {counter}")]


@pytest.mark.parametrize("ddl", [TABLE, PARTITIONED, INHERITED])
@pytest.mark.parametrize("inline", [False, True])
def test_all_tables_of_a_family_have_it(each_postgres: sa.Engine, ddl: str, inline: bool) -> None:
    made(each_postgres, ddl=ddl, inline=inline)
    assert problems(each_postgres) == []


@on_postgresql
def test_a_partition_that_was_attached_later_lacks_the_trigger_for_new_rows(engine: sa.Engine) -> None:
    made(engine, "CREATE TABLE message_3 PARTITION OF message FOR VALUES IN (3)", ddl=PARTITIONED)
    assert problems(engine) == [("incomplete", f"the trigger {NAME}_new is missing on public.message_3")]


@on_postgresql
def test_a_partition_on_which_a_trigger_is_disabled_is_named(engine: sa.Engine) -> None:
    made(engine, f"ALTER TABLE message_2_2 DISABLE TRIGGER zzz_{NAME}", ddl=PARTITIONED)
    assert problems(engine) == [("disabled", f"the trigger zzz_{NAME} is disabled on public.message_2_2")]


@on_postgresql
def test_a_partition_whose_trigger_was_made_otherwise_is_named(engine: sa.Engine) -> None:
    never = (
        f"CREATE OR REPLACE TRIGGER {NAME}_new AFTER INSERT ON message_1 REFERENCING NEW TABLE AS new_rows"
        f" FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION statekit.{NAME}()"
    )
    made(engine, never, ddl=PARTITIONED)
    assert problems(engine) == [("edited", "the triggers on public.message_1 were changed by hand")]


@on_postgresql
def test_a_child_that_was_made_later_lacks_every_trigger(engine: sa.Engine) -> None:
    made(engine, "CREATE TABLE oldest () INHERITS (older)", ddl=INHERITED)
    assert problems(engine) == [
        ("incomplete", f"the trigger {name} is missing on public.oldest") for name in (NAME, f"{NAME}_new")
    ]


@on_postgresql
def test_a_child_whose_trigger_was_made_otherwise_is_named(engine: sa.Engine) -> None:
    never = (
        f"CREATE OR REPLACE TRIGGER {NAME} AFTER UPDATE ON older FOR EACH ROW WHEN (false)"
        f" EXECUTE FUNCTION statekit.{NAME}()"
    )
    made(engine, never, ddl=INHERITED)
    assert problems(engine) == [("edited", "the triggers on public.older were changed by hand")]


@on_postgresql
def test_a_change_to_the_parent_is_not_laid_to_its_children(engine: sa.Engine) -> None:
    never = (
        f"CREATE OR REPLACE TRIGGER {NAME} AFTER UPDATE ON message FOR EACH ROW WHEN (false)"
        f" EXECUTE FUNCTION statekit.{NAME}()"
    )
    made(engine, never, ddl=INHERITED)
    assert problems(engine) == [("edited", "the triggers on public.message were changed by hand")]


@pytest.mark.parametrize(
    ("change", "ddl"),
    [
        (f"ALTER TABLE message DISABLE TRIGGER {NAME}", TABLE),
        (f"DROP TRIGGER {NAME} ON message", TABLE),
        (f"DROP TRIGGER {NAME}_new ON message", TABLE),
        (f"COMMENT ON TRIGGER {NAME} ON message IS NULL", TABLE),
        (f"ALTER FUNCTION statekit.{NAME}() RESET ALL", TABLE),
        (f"ALTER FUNCTION statekit.{NAME}_legal(text, text) STRICT VOLATILE", TABLE),
        (f"DROP FUNCTION statekit.{NAME}() CASCADE", TABLE),
        (f"ALTER TABLE message DISABLE TRIGGER {NAME}", PARTITIONED),
        (f"ALTER TABLE message_1 DISABLE TRIGGER {NAME}", PARTITIONED),
        ("CREATE TABLE message_3 PARTITION OF message FOR VALUES IN (3)", PARTITIONED),
        ("CREATE TABLE oldest () INHERITS (older)", INHERITED),
        (f"ALTER TABLE older DISABLE TRIGGER {NAME}_new", INHERITED),
    ],
)
def test_making_it_again_puts_everything_right(each_postgres: sa.Engine, change: str, ddl: str) -> None:
    made(each_postgres, change, ddl=ddl)
    install(each_postgres, trigger())
    assert problems(each_postgres) == []


@on_postgresql
def test_the_search_path_is_left_as_it_was(engine: sa.Engine) -> None:
    made(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET search_path = public, pg_temp")
        assert installed(connection)[0].problems == ()
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "public, pg_temp"


@on_postgresql
def test_in_autocommit_the_search_path_is_left_as_it_was(engine: sa.Engine) -> None:
    made(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        before = connection.exec_driver_sql("SHOW search_path").scalar_one()
        assert installed(connection)[0].problems == ()
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == before


@on_postgresql
def test_a_read_only_transaction_of_a_role_without_rights_will_do(engine: sa.Engine) -> None:
    made(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql("SET LOCAL ROLE pg_monitor")
        assert installed(connection)[0].problems == ()


@all_async_backends
def test_async_drivers_see_the_same(async_engine: AsyncEngine) -> None:
    async def work() -> list[Installed]:
        async with async_engine.begin() as connection:
            await connection.exec_driver_sql(TABLE)
            for statement in trigger().create_sql(async_engine.dialect):
                await connection.exec_driver_sql(statement)
            return await connection.run_sync(installed)

    (only,) = run(work())
    assert (only.trigger, only.problems) == (trigger(), ())


def test_a_trigger_that_was_dropped_is_gone(engine: sa.Engine) -> None:
    made(engine)
    execute(engine, *StateTrigger("message", "status", [("A", "B")], initial=None).drop_sql(engine.dialect))
    assert there(engine) == []
