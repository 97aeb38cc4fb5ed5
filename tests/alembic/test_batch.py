"""``op.batch_alter_table()`` makes a table anew and drops the old one: the triggers are there again afterwards."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations

from statekit import IllegalTransition, guard
from statekit.alembic import batch
from statekit.trigger.catalog import blocked, installed
from tests.alembic.messages import CREATE, TABLE, insert, move, names, problems, refuses_move
from tests.alembic.project import Project
from tests.alembic.test_changes import metadata, operations, status
from tests.guards.inbox import TABLE as INBOX
from tests.guards.inbox import executed
from tests.support.databases import execute, on_postgresql, on_sqlite

NOT_NULL = 'batch.alter_column("status", nullable=False)'


def alter(project: Project, *lines: str, options: str = "") -> None:
    """Run a migration with a batch on the table of messages."""
    body = "\n    ".join(lines)
    project.write(f'with op.batch_alter_table("message"{options}) as batch:\n    {body}')
    project.upgrade()


@pytest.fixture
def project(engine: sa.Engine, tmp_path: Path) -> Project:
    """A project with the guarded table of messages, and one message that is READY."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.upgrade()
    insert(engine, "READY")
    return project


def test_the_trigger_holds_after_a_batch(engine: sa.Engine, project: Project) -> None:
    """Where the batch makes the table anew, and where it does not."""
    alter(project, NOT_NULL)
    assert refuses_move(engine, "COMPLETED") == ("READY", "COMPLETED")
    move(engine, "PROMOTED")


@pytest.mark.parametrize("recreate", ["always", "auto", "never"])
def test_every_part_of_the_trigger_is_there_again(engine: sa.Engine, project: Project, recreate: str) -> None:
    """New rows are held as well, and nothing is found missing."""
    alter(project, 'batch.add_column(sa.Column("note", sa.Text))', options=f", recreate={recreate!r}")
    with engine.connect() as connection:
        assert [each.problems for each in installed(connection)] == [()]
    with pytest.raises(IllegalTransition, match="cannot start in PROMOTED"):
        insert(engine, "PROMOTED")


@on_sqlite
def test_a_trigger_that_the_block_drops_stays_dropped(engine: sa.Engine, project: Project) -> None:
    """What is brought back is what was there when the block ended."""
    alter(project, 'op.drop_state_trigger("message", "status")', NOT_NULL)
    assert names(engine) == []


@on_sqlite
def test_a_rule_that_the_block_changes_stays_changed(engine: sa.Engine, project: Project) -> None:
    """Likewise a replaced one."""
    other = (
        CREATE.replace("create_", "replace_")
        .replace('"COMPLETED")]', '"READY")]')
        .replace("version", "old={}, version")
    )
    alter(project, *other.splitlines(), NOT_NULL)
    move(engine, "PROMOTED")
    refuses_move(engine, "COMPLETED")
    move(engine, "READY")


@on_sqlite
def test_a_renamed_column_loses_its_trigger_and_stays_usable(engine: sa.Engine, project: Project) -> None:
    """A trigger on a column that is not there would refuse every write; the next autogenerate makes the right one."""
    alter(project, 'batch.alter_column("status", new_column_name="state")')
    assert names(engine) == []
    move(engine, "COMPLETED", column="state")
    table = sa.Table("message", sa.MetaData(), autoload_with=engine)
    guard(table.c.state, INBOX)
    project.metadata = table.metadata
    project.migrate()
    assert project.differences() == []
    refuses_move(engine, "READY", column="state")


@on_sqlite
def test_a_dropped_column_loses_its_trigger_and_the_table_stays_usable(engine: sa.Engine, project: Project) -> None:
    """Likewise."""
    alter(project, 'batch.drop_column("status")')
    assert names(engine) == []
    execute(engine, "INSERT INTO message (id) VALUES (2)")


@on_sqlite
def test_a_batch_that_only_adds_a_column_touches_no_trigger(engine: sa.Engine, project: Project) -> None:
    """Nothing was lost, so nothing is made."""
    with executed(engine) as statements:
        alter(project, 'batch.add_column(sa.Column("note", sa.Text))')
    assert not [statement for statement in statements if re.match("(CREATE|DROP) TRIGGER", statement)]


@on_sqlite
def test_another_table_keeps_its_trigger(engine: sa.Engine, project: Project) -> None:
    """The batch is of one table alone."""
    execute(engine, "CREATE TABLE other (id integer PRIMARY KEY, note text)")
    project.write('with op.batch_alter_table("other") as batch:\n    batch.alter_column("note", nullable=False)')
    project.upgrade()
    assert names(engine) == ["message.status"]


@on_postgresql
def test_a_table_that_postgresql_makes_anew_goes_on_counting(engine: sa.Engine, project: Project) -> None:
    """With recreate="always", PostgreSQL loses the triggers too; its counters stay."""
    refuses_move(engine, "COMPLETED")
    alter(project, NOT_NULL, options=", recreate='always'")
    refuses_move(engine, "COMPLETED")
    with engine.connect() as connection:
        assert blocked(connection) == {("READY", "COMPLETED"): 2}


@on_sqlite
def test_a_batch_that_fails_says_why(engine: sa.Engine, project: Project) -> None:
    """The error is Alembic's own."""
    with pytest.raises(ValueError, match="No such constraint"):
        alter(project, 'batch.drop_constraint("unheard_of", type_="check")')


def test_a_script_with_a_batch_is_written(engine: sa.Engine, project: Project) -> None:
    """``--sql`` cannot look at the database, and does as Alembic does."""
    columns = 'sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))'
    copy = f'copy_from=sa.Table("message", sa.MetaData(), {columns})'
    project.write(f'with op.batch_alter_table("message", {copy}) as batch:\n    {NOT_NULL}')
    assert "message" in project.script("r001:r002")


# --- autogenerate with render_as_batch --------------------------------------------------------------------------------


def test_autogenerate_writes_batches_and_triggers(engine: sa.Engine, tmp_path: Path) -> None:
    """With render_as_batch=True, the trigger stands outside of the batch, and the second autogenerate is empty."""
    project = Project(tmp_path, engine, metadata(status()), render_as_batch=True)
    project.migrate()
    not_null = sa.Column("status", sa.String(20), nullable=False)
    project.metadata = metadata(sa.Column("subject", sa.String(50)), not_null)
    project.migrate()
    assert problems(engine, project.metadata) == []
    assert project.differences() == []


def test_a_type_changes_in_a_batch(engine: sa.Engine, tmp_path: Path) -> None:
    """The trigger is out of the way on every database: a migration that was written on one may run on another."""
    project = Project(tmp_path, engine, metadata(status()), render_as_batch=True)
    project.migrate()
    project.metadata = metadata(status(sa.String(40)))
    order = ["drop_state_trigger", "alter_column", "create_state_trigger"]
    assert operations(project.migrate()) == (order, order)
    assert project.differences() == []
    project.downgrade()
    project.metadata = metadata(status())
    assert project.differences() == []


# --- what this stands on ----------------------------------------------------------------------------------------------


def test_the_method_of_alembic_is_still_the_one_that_is_wrapped() -> None:
    """``Operations.batch_alter_table`` is public, and wrapped once.

    If this fails because Alembic has renamed it, or its first parameters, let statekit/alembic/batch.py wrap what makes
    tables anew now. It reads the triggers after the block and before the flush: there must be a moment in between.
    """
    parameters = list(inspect.signature(Operations.batch_alter_table).parameters)
    assert parameters[:4] == ["self", "table_name", "schema", "recreate"]
    batch.install()
    wrappings = list(unwrapped(Operations.batch_alter_table))
    assert [hasattr(each, "_keeps_state_triggers") for each in wrappings].count(True) == 1


def unwrapped(function: Any) -> Iterator[Any]:
    """Return a function, and those that it wraps."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)
