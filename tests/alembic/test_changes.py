"""Triggers and changes of their tables in the same migration: what comes before what, up and down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import IllegalTransition, TransitionTable, guard
from tests.alembic.messages import CREATE, TABLE, insert, left_behind, move, names, problems, refuses_move
from tests.alembic.project import Project
from tests.guards.inbox import TABLE as INBOX
from tests.support.databases import execute, on_postgresql


def metadata(*columns: sa.Column[Any], name: str = "message", table: TransitionTable | None = INBOX) -> sa.MetaData:
    """Return the metadata of a table, whose last column is guarded."""
    made = sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *columns)
    if table is not None:
        guard(list(made.columns)[-1], table)
    return made.metadata


def status(type_: Any = None, name: str = "status") -> sa.Column[Any]:
    return sa.Column(name, sa.String(20) if type_ is None else type_)


def operations(text: str) -> tuple[list[str], list[str]]:
    """Return the operations of a migration's upgrade and of its downgrade, in order."""
    up, _, down = text.partition("def downgrade()")
    found = re.compile(r"^ +(?:op|batch_op)\.(\w+)\(", re.MULTILINE)
    return found.findall(up), found.findall(down)


# --- tables and columns -----------------------------------------------------------------------------------------------


def test_a_new_table_comes_before_its_trigger(engine: sa.Engine, tmp_path: Path) -> None:
    """And goes after it."""
    text = Project(tmp_path, engine, metadata(status())).autogenerate()
    assert operations(text) == (["create_table", "create_state_trigger"], ["drop_state_trigger", "drop_table"])


def test_a_dropped_table_takes_its_trigger_along(engine: sa.Engine, tmp_path: Path) -> None:
    """Nothing stays in the database, and the downgrade gives both back."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    project.metadata = sa.MetaData()
    text = project.migrate()
    assert operations(text) == (["drop_state_trigger", "drop_table"], ["create_table", "create_state_trigger"])
    assert left_behind(engine) == []
    project.downgrade()
    assert problems(engine, metadata(status())) == []


def test_a_new_column_comes_before_its_trigger(engine: sa.Engine, tmp_path: Path) -> None:
    """And goes after it."""
    project = Project(tmp_path, engine, metadata(table=None))
    project.migrate()
    project.metadata = metadata(status())
    text = project.migrate()
    assert operations(text) == (["add_column", "create_state_trigger"], ["drop_state_trigger", "drop_column"])
    assert project.differences() == []
    project.downgrade()
    assert left_behind(engine) == []


def test_a_dropped_column_goes_after_its_trigger(engine: sa.Engine, tmp_path: Path) -> None:
    """PostgreSQL refuses to drop a column that a trigger looks at, and SQLite too."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    project.metadata = metadata(table=None)
    text = project.migrate()
    assert operations(text) == (["drop_state_trigger", "drop_column"], ["add_column", "create_state_trigger"])
    assert left_behind(engine) == []
    project.downgrade()
    assert problems(engine, metadata(status())) == []


def test_another_column_of_the_table_may_change(engine: sa.Engine, tmp_path: Path) -> None:
    """The trigger is not part of that migration."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    project.metadata = metadata(sa.Column("subject", sa.String(50)), status())
    assert operations(project.migrate()) == (["add_column"], ["drop_column"])
    assert problems(engine, project.metadata) == []


# --- another type -----------------------------------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("type_", [sa.String(40), sa.Text()])
def test_a_type_is_changed_while_there_is_no_trigger(engine: sa.Engine, tmp_path: Path, type_: Any) -> None:
    """PostgreSQL changes no type of a column that a trigger looks at: not even its length."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    project.metadata = metadata(status(type_))
    text = project.migrate()
    order = ["drop_state_trigger", "alter_column", "create_state_trigger"]
    assert operations(text) == (order, order)
    assert project.differences() == []
    project.downgrade()
    project.metadata = metadata(status())
    assert project.differences() == []


@on_postgresql
def test_type_and_rule_change_at_once(engine: sa.Engine, tmp_path: Path) -> None:
    """The downgrade gives the old type and the old rule back."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    longer = INBOX | TransitionTable("COMPLETED → ARCHIVED")
    project.metadata = metadata(status(sa.Text()), table=longer)
    project.migrate()
    assert project.differences() == []
    project.downgrade()
    project.metadata = metadata(status())
    assert project.differences() == []


@on_postgresql
def test_a_guarded_column_becomes_an_enum(engine: sa.Engine, tmp_path: Path) -> None:
    """A user who adds what PostgreSQL needs for it (the type, USING) finds the trigger out of the way."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    project.metadata = metadata(status(sa.Enum(*map(str, INBOX.states), name="state")))
    project.autogenerate()
    (path,) = (project.folder / "versions").glob("r002*.py")
    text = path.read_text("utf-8")
    text = text.replace("    op.alter_column(", "    state.create(op.get_bind())\n    op.alter_column(", 1)
    text = text.replace("existing_nullable=True)", "existing_nullable=True, postgresql_using='status::state')", 1)
    labels = ", ".join(repr(str(state)) for state in INBOX.states)
    text = text.replace("def upgrade()", f"state = sa.Enum({labels}, name='state')\n\n\ndef upgrade()", 1)
    path.write_text(text, "utf-8")
    project.upgrade()
    assert project.differences() == []
    insert_state = "INSERT INTO message VALUES (1, 'READY')"
    execute(engine, insert_state)
    execute(engine, "UPDATE message SET status = 'PROMOTED'")
    refuses(engine, "UPDATE message SET status = 'READY'")


def refuses(engine: sa.Engine, statement: str) -> None:
    with pytest.raises(IllegalTransition):
        execute(engine, statement)


# --- another name -----------------------------------------------------------------------------------------------------


def test_a_column_is_renamed(engine: sa.Engine, tmp_path: Path) -> None:
    """A user makes one rename of the drop and the add: the triggers around it are already in the right order."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    insert(engine, "READY")
    project.metadata = metadata(status(name="state"))
    text = project.autogenerate()
    order = ["drop_state_trigger", "add_column", "drop_column", "create_state_trigger"]
    assert operations(text)[0] == order
    edit(project, "r002", r"op\.add_column\(.*\n    op\.drop_column\(.*", RENAMES)
    project.upgrade()
    assert project.differences() == []
    refuses_move(engine, "COMPLETED", column="state")
    project.downgrade()
    refuses_move(engine, "COMPLETED")


RENAMES = (
    "op.alter_column('message', 'status', new_column_name='state')",
    "op.alter_column('message', 'state', new_column_name='status')",
)


def test_a_table_is_renamed(engine: sa.Engine, tmp_path: Path) -> None:
    """Likewise: one rename instead of the drop and the create."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    insert(engine, "READY")
    project.metadata = metadata(status(), name="mail")
    text = project.autogenerate()
    assert operations(text)[0] == ["drop_state_trigger", "create_table", "drop_table", "create_state_trigger"]
    create_and_drop = r"op\.create_table\((?:.*\n)+?    \)\n    op\.drop_table\(.*"
    edit(project, "r002", create_and_drop, ("op.rename_table('message', 'mail')", "op.rename_table('mail', 'message')"))
    project.upgrade()
    assert names(engine) == ["mail.status"]
    assert project.differences() == []
    refuses_move(engine, "COMPLETED", table="mail")
    project.downgrade()
    refuses_move(engine, "COMPLETED")


def edit(project: Project, revision: str, pattern: str, replacements: tuple[str, str]) -> None:
    """Replace operations by others: first in the upgrade, then in the downgrade."""
    (path,) = (project.folder / "versions").glob(f"{revision}*.py")
    text = path.read_text("utf-8")
    for replacement in replacements:
        text, number = re.subn(pattern, replacement, text, count=1)
        assert number == 1, text
    path.write_text(text, "utf-8")


def test_a_column_that_was_renamed_without_its_trigger_is_mended(engine: sa.Engine, tmp_path: Path) -> None:
    """The next autogenerate removes the trigger of the old name and makes that of the new one."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    execute(engine, "ALTER TABLE message RENAME COLUMN status TO state")
    project.metadata = metadata(status(name="state"))
    project.migrate()
    assert project.differences() == []
    insert(engine, "READY", column="state")
    refuses_move(engine, "COMPLETED", column="state")
    move(engine, "PROMOTED", column="state")


def test_a_table_that_was_renamed_without_its_trigger_is_mended(engine: sa.Engine, tmp_path: Path) -> None:
    """The next autogenerate removes the trigger of the old name and makes that of the new one."""
    project = Project(tmp_path, engine, metadata(status()))
    project.migrate()
    execute(engine, "ALTER TABLE message RENAME TO mail")
    project.metadata = metadata(status(), name="mail", table=TransitionTable("READY → COMPLETED"))
    project.migrate()
    assert project.differences() == []
    insert(engine, "READY", table="mail")
    move(engine, "COMPLETED", table="mail")


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_a_table_that_is_dropped_by_hand_needs_no_other_operation(engine: sa.Engine, tmp_path: Path) -> None:
    """op.drop_table() alone works, and the table may come again."""
    execute(engine, TABLE)
    project = Project(tmp_path, engine, sa.MetaData())
    project.write(CREATE)
    project.write("op.drop_table('message')")
    project.write(f'op.execute("{TABLE}")\n{CREATE}')
    project.upgrade()
    assert names(engine) == ["message.status"]
