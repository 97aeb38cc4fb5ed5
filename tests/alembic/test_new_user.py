"""The story of a new user, in real processes: a project that has a table with rows gets its trigger by two commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.alembic.messages import insert, move, names, refuses_move
from tests.support.databases import Databases

ROOT = Path(__file__).parents[2]

APP = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Message(Base):
    __tablename__ = "message"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="READY")
"""

GUARD = """

from statekit import TransitionTable, guard

guard(Message.status, TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY"))
"""


def run(folder: Path, *arguments: str) -> str:
    """Run ``alembic`` in a project's folder, and return what it has written."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "alembic", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, engine: sa.Engine, databases: Databases) -> Path:
    """A project as it was before statekit: an application, ``alembic init``, one table, two messages."""
    run(tmp_path, "init", "alembic_files")
    url = engine.url.render_as_string(hide_password=False).replace("%", "%%")
    ini = tmp_path / "alembic.ini"
    text = re.sub(r"sqlalchemy\.url = .*", lambda _: f"sqlalchemy.url = {url}", ini.read_text("utf-8"))
    ini.write_text(text, "utf-8")
    env = tmp_path / "alembic_files" / "env.py"
    declared = "import app\ntarget_metadata = app.Base.metadata"
    env.write_text(env.read_text("utf-8").replace("target_metadata = None", declared), "utf-8")
    (tmp_path / "app.py").write_text(APP, "utf-8")
    run(tmp_path, "revision", "--autogenerate", "-m", "create message")
    run(tmp_path, "upgrade", "head")
    insert(engine, "READY", "PROMOTED")
    return tmp_path


def with_statekit(project: Path) -> None:
    """Add the guard, and the one line in env.py."""
    with (project / "app.py").open("a", encoding="utf-8") as file:
        file.write(GUARD)
    env = project / "alembic_files" / "env.py"
    env.write_text(f"import statekit.alembic\n{env.read_text('utf-8')}", "utf-8")


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_two_commands_and_the_trigger_holds(project: Path, engine: sa.Engine) -> None:
    """``alembic revision --autogenerate`` and ``alembic upgrade head``; then there is nothing more to do."""
    with_statekit(project)
    assert "Detected added state trigger on 'message.status'" in run(
        project, "revision", "--autogenerate", "-m", "guard message.status"
    )
    run(project, "upgrade", "head")
    assert refuses_move(engine, "SPAM_REVIEW", row=2) == ("PROMOTED", "SPAM_REVIEW")
    move(engine, "COMPLETED", row=2)
    assert "No new upgrade operations detected" in run(project, "check")


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_the_migration_needs_nothing_of_the_application(project: Path, engine: sa.Engine) -> None:
    """It runs when the guard is long gone: it holds its data itself."""
    with_statekit(project)
    run(project, "revision", "--autogenerate", "-m", "guard message.status")
    (project / "app.py").write_text(APP, "utf-8")
    run(project, "upgrade", "head")
    assert names(engine) == ["message.status"]
    run(project, "downgrade", "-1")
    assert names(engine) == []


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_the_commands_write_a_script(project: Path, engine: sa.Engine) -> None:
    """``alembic upgrade --sql`` writes what an administrator runs."""
    with_statekit(project)
    run(project, "revision", "--autogenerate", "-m", "guard message.status")
    script = run(project, "upgrade", "head", "--sql")
    assert re.search(r'TRIGGER "?statekit_message_status', script)
