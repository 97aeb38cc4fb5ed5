"""The operations of a migration: what they do to a database, online and as a script."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import AsyncEngine

from statekit import TransitionTable
from statekit.alembic import CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp
from statekit.errors import IllegalTransition, StatekitError, TableError
from statekit.trigger import StateTrigger
from statekit.trigger.catalog import blocked, installed
from tests.alembic.messages import CREATE, TABLE, insert, left_behind, move, names, refuses_move
from tests.alembic.project import Project
from tests.support.databases import all_async_backends, execute, on_postgresql, run

MOVES = [("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]

AWKWARD = [
    "it's",
    'say "so"',
    "100 %",
    "%s %(x)s",
    ":name",
    "a\\b",
    "tab\there",
    "two\nlines",
    "$$ $statekit$",
    "😀 é",
    "--;",
]
"""States with whatever a driver, a shell or a formatter may take for something else."""


def awkward_migration(project: Project) -> None:
    """Write a migration in which each of these states may only become the next one."""
    moves = list(itertools.pairwise(AWKWARD))
    project.write(
        f'op.execute("{TABLE}")\n'
        f'op.create_state_trigger("message", "status", transitions={moves!r}, initial={AWKWARD!r}, version=1)'
    )


def holds_awkward_states(engine: sa.Engine) -> None:
    insert(engine, *AWKWARD)
    for row, (source, target) in enumerate(itertools.pairwise(AWKWARD), 1):
        other = AWKWARD[(row + 2) % len(AWKWARD)]
        assert refuses_move(engine, other, row=row) == (source, other)
        move(engine, target, row=row)


@pytest.fixture
def operations(sqlite_engine: sa.Engine) -> Any:
    """The operations on an open connection to SQLite."""
    with sqlite_engine.connect() as connection:
        yield Operations(MigrationContext.configure(connection))


# --- what they do -----------------------------------------------------------------------------------------------------


def test_create_holds_the_column_to_its_transitions(engine: sa.Engine, tmp_path: Path) -> None:
    """After the migration, whoever writes is refused an illegal move and an illegal start."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.upgrade()
    insert(engine, "READY")
    assert refuses_move(engine, "COMPLETED") == ("READY", "COMPLETED")
    with pytest.raises(IllegalTransition):
        insert(engine, "PROMOTED")


def test_create_says_the_whole_rule(engine: sa.Engine, tmp_path: Path) -> None:
    """Every option arrives in the database."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(
        'op.create_state_trigger("message", "status", transitions=[("A", None)], initial=None, schema=None, '
        'on_illegal="skip", inline=True, states=["B"], version=1)'
    )
    project.upgrade()
    expected = StateTrigger(
        "message", "status", [("A", None)], initial=None, on_illegal="skip", inline=True, states=["B"], version=1
    )
    with engine.connect() as connection:
        (each,) = installed(connection)
    assert (each.trigger, each.problems) == (expected, ())


def test_create_twice_puts_right_and_fails_not(engine: sa.Engine, tmp_path: Path) -> None:
    """A migration may create a trigger that is there already."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.write(CREATE)
    project.upgrade()
    assert names(engine) == ["message.status"]


def test_replace_changes_the_rule_and_takes_it_back(engine: sa.Engine, tmp_path: Path) -> None:
    """The new rule holds after the upgrade, the old one after the downgrade."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.write(
        'op.replace_state_trigger("message", "status", transitions=[("READY", "COMPLETED")], initial=["READY"], '
        'old={"transitions": [("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]}, version=1)',
        'op.replace_state_trigger("message", "status", transitions=[("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")], '
        'initial=["READY"], old={"transitions": [("READY", "COMPLETED")]}, version=1)',
    )
    project.upgrade()
    insert(engine, "READY", "READY")
    refuses_move(engine, "PROMOTED", row=2)
    move(engine, "COMPLETED", row=1)
    project.downgrade()
    assert refuses_move(engine, "COMPLETED", row=2) == ("READY", "COMPLETED")
    move(engine, "PROMOTED", row=2)


@on_postgresql
def test_replace_keeps_what_was_counted(engine: sa.Engine, tmp_path: Path) -> None:
    """A pair that is illegal before and after goes on counting."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.upgrade()
    insert(engine, "READY")
    refuses_move(engine, "COMPLETED")
    project.write(
        'op.replace_state_trigger("message", "status", transitions=[("READY", "PROMOTED")], initial=["READY"], '
        'old={"transitions": [("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")], "states": []}, '
        'states=["COMPLETED"], version=1)'
    )
    project.upgrade()
    refuses_move(engine, "COMPLETED")
    with engine.connect() as connection:
        assert blocked(connection) == {("READY", "COMPLETED"): 2}


@on_postgresql
def test_replace_of_a_trigger_that_is_not_there_says_so(engine: sa.Engine, tmp_path: Path) -> None:
    """Nothing is replaced in silence by nothing."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(
        'op.replace_state_trigger("message", "status", [("A", "B")], ["A"], old={"initial": ["B"]}, version=1)'
    )
    with pytest.raises(sa.exc.DBAPIError, match=r"has no trigger statekit_message_status"):
        project.upgrade()


def test_replace_by_the_same_puts_right_what_was_changed_by_hand(engine: sa.Engine, tmp_path: Path) -> None:
    """With old={} the trigger is made anew where it is."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.upgrade()
    break_by_hand(engine)
    project.write(CREATE.replace("create_", "replace_").replace("version=1", "old={}, version=1"))
    project.upgrade()
    with engine.connect() as connection:
        assert [each.problems for each in installed(connection)] == [()]


def break_by_hand(engine: sa.Engine) -> None:
    """Disable the trigger on PostgreSQL; remove a part of it on SQLite, which cannot disable any."""
    name = StateTrigger("message", "status", MOVES, initial=["READY"]).name
    disable = f"ALTER TABLE message DISABLE TRIGGER {name}"
    execute(engine, disable if engine.dialect.name == "postgresql" else f"DROP TRIGGER {name}_new")
    with engine.connect() as connection:
        assert [bool(each.problems) for each in installed(connection)] == [True]


def test_drop_leaves_nothing_behind(engine: sa.Engine, tmp_path: Path) -> None:
    """The trigger is gone with its functions and counters, whether or not the migration says what it was."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    for drop in (CREATE.replace("create_", "drop_"), 'op.drop_state_trigger("message", "status")'):
        project.write(CREATE)
        project.upgrade()
        assert left_behind(engine)
        project.write(drop)
        project.upgrade()
        assert left_behind(engine) == []


def test_drop_of_what_is_not_there_does_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    """Neither the trigger nor its table need be there."""
    project = Project(tmp_path, engine, sa.MetaData())
    project.write('op.drop_state_trigger("message", "status")')
    project.upgrade()
    assert left_behind(engine) == []


@on_postgresql
def test_a_failing_migration_leaves_nothing_half_done(engine: sa.Engine, tmp_path: Path) -> None:
    """What was made before the error is taken back with it."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(f'{CREATE}\nop.execute("SELECT 1 / 0")')
    with pytest.raises(sa.exc.DBAPIError, match="division by zero"):
        project.upgrade()
    assert left_behind(engine) == []


@all_async_backends
def test_an_async_env_runs_them(async_engine: AsyncEngine) -> None:
    """As ``alembic init -t async`` has it: the migrations run inside of run_sync()."""

    def migrate(connection: sa.Connection) -> None:
        operations: Any = Operations(MigrationContext.configure(connection))
        operations.execute(TABLE)
        operations.create_state_trigger("message", "status", MOVES, ["READY"], version=1)

    async def body() -> list[StateTrigger]:
        async with async_engine.begin() as connection:
            await connection.run_sync(migrate)
        async with async_engine.connect() as connection:
            return [each.trigger for each in await connection.run_sync(installed)]

    assert run(body()) == [StateTrigger("message", "status", MOVES, initial=["READY"])]


# --- texts that somebody takes for something else ---------------------------------------------------------------------


def test_a_state_is_what_it_is_through_every_driver(engine: sa.Engine, tmp_path: Path) -> None:
    """No driver takes a percent sign, a colon or a quote for its own."""
    project = Project(tmp_path, engine, sa.MetaData())
    awkward_migration(project)
    project.upgrade()
    holds_awkward_states(engine)


def test_the_script_makes_the_same_through_the_driver(engine: sa.Engine, tmp_path: Path) -> None:
    """What ``--sql`` writes gives the same triggers as the migration itself."""
    project = Project(tmp_path, engine, sa.MetaData())
    awkward_migration(project)
    script = project.script()
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        else:
            driver.autocommit = True
            driver.cursor().execute(script)
    holds_awkward_states(engine)


@pytest.mark.skipif(which("psql") is None, reason="psql is not installed")
def test_the_script_runs_in_psql(postgres_engine: sa.Engine, tmp_path: Path) -> None:
    """psql has variables and commands of its own, and takes nothing in the script for one."""
    project = Project(tmp_path, postgres_engine, sa.MetaData())
    awkward_migration(project)
    url = postgres_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = ["psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-v", "name=oops", url]
    subprocess.run(command, input=project.script(), text=True, encoding="utf-8", check=True)
    holds_awkward_states(postgres_engine)


@pytest.mark.skipif(which("sqlite3") is None, reason="the shell sqlite3 is not installed")
def test_the_script_runs_in_the_shell_of_sqlite(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    """The shell finds the end of each statement."""
    project = Project(tmp_path, sqlite_engine, sa.MetaData())
    awkward_migration(project)
    command = ["sqlite3", "-bail", str(sqlite_engine.url.database)]
    subprocess.run(command, input=project.script(), text=True, encoding="utf-8", check=True)
    holds_awkward_states(sqlite_engine)


def test_the_script_of_a_downgrade_removes_them(engine: sa.Engine, tmp_path: Path) -> None:
    """``alembic downgrade --sql`` works as well."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write("pass")
    project.write(CREATE, 'op.drop_state_trigger("message", "status")')
    project.upgrade()
    script = project.script("r002:r001", down=True)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        else:
            driver.autocommit = True
            driver.cursor().execute(script)
    assert left_behind(engine) == []


# --- what they refuse -------------------------------------------------------------------------------------------------


def test_a_transition_table_is_refused(operations: Any) -> None:
    """A live object would change with the model, and the old migration with it."""
    with pytest.raises(TableError, match=r"create_state_trigger\('message', 'status'\): .*Write the pairs out"):
        operations.create_state_trigger("message", "status", TransitionTable("A → B"), ["A"])


@pytest.mark.parametrize("transitions", [None, "READY → PROMOTED"])
def test_transitions_that_are_no_pairs_are_refused(operations: Any, transitions: Any) -> None:
    """A text of the notation is no plain data either."""
    with pytest.raises(TableError, match=r"allowed is a list of pairs"):
        operations.create_state_trigger("message", "status", transitions, ["READY"])


def test_an_unknown_version_is_refused(operations: Any) -> None:
    """The error says that a later statekit is needed."""
    with pytest.raises(TableError, match="install that"):
        operations.create_state_trigger("message", "status", MOVES, ["READY"], version=99)


@pytest.mark.parametrize("old", [{"table": "other"}, None, [("A", "B")]])
def test_old_that_says_something_else_is_refused(operations: Any, old: Any) -> None:
    """What a replaced trigger may have had otherwise is named."""
    with pytest.raises(TableError, match=r"old= has .*transitions, initial, on_illegal, inline, states, .*version"):
        operations.replace_state_trigger("message", "status", MOVES, ["READY"], old=old)


def test_another_database_is_refused() -> None:
    """Nothing stays unguarded in silence; the error says how a migration leaves the database out."""
    operations: Any = Operations(MigrationContext.configure(dialect_name="mysql", opts={"as_sql": True}))
    with pytest.raises(StatekitError, match=r"no state triggers for 'mysql'.*op.get_context\(\).dialect.name in"):
        operations.create_state_trigger("message", "status", MOVES, ["READY"])


# --- as data ----------------------------------------------------------------------------------------------------------

ONE = StateTrigger("message", "status", MOVES, initial=["READY"], schema="mail")
OTHER = StateTrigger("message", "status", MOVES[:1], initial=["READY"], schema="mail")


def test_create_is_reversed_by_drop_and_drop_by_create() -> None:
    """Both know the rule."""
    reversed_ = CreateStateTriggerOp(ONE).reverse()
    assert (reversed_.table, reversed_.column, reversed_.schema) == ("message", "status", "mail")
    assert reversed_.reverse().trigger == ONE


def test_replace_is_reversed_by_the_old_rule() -> None:
    """New and old change places."""
    reversed_ = ReplaceStateTriggerOp(ONE, OTHER).reverse()
    assert (reversed_.trigger, reversed_.old) == (OTHER, ONE)


def test_drop_without_the_rule_cannot_be_reversed() -> None:
    """The error says what is missing."""
    with pytest.raises(StatekitError, match="Give it transitions= and initial="):
        DropStateTriggerOp("message", "status").reverse()


def test_differences_name_operation_and_place() -> None:
    """``alembic check`` prints these."""
    operations = CreateStateTriggerOp(ONE), ReplaceStateTriggerOp(ONE, OTHER), DropStateTriggerOp.of(ONE)
    assert [operation.to_diff_tuple()[:4] for operation in operations] == [
        ("create_state_trigger", "mail", "message", "status"),
        ("replace_state_trigger", "mail", "message", "status"),
        ("drop_state_trigger", "mail", "message", "status"),
    ]
