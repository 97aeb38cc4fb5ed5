"""A project with models of its own for each test, as a user has it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from statekit.cli.main import main

ROOT = Path(__file__).parents[2]

INBOX = """
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column
from statekit import Guarded, TransitionTable

class Base(DeclarativeBase):
    pass

class Message(Guarded, Base):
    __tablename__ = "message"
    id = mapped_column(sa.Integer, primary_key=True)
    status = mapped_column(sa.String(20))
    __transitions__ = {
        "status": TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")
    }
"""

_serial = itertools.count()


class Project:
    """A folder with modules, in which the command line is run.

    Attributes:
        folder: the current folder, as long as the test runs.
        models: name of the module that :meth:`write` has written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = ""

    def write(self, text: str = INBOX, name: str | None = None) -> str:
        """Write a module, and return its name: one that no other test uses, because a process imports it once."""
        self.models = name or f"models_of_test_{next(_serial)}"
        (self.folder / f"{self.models}.py").write_text(text, "utf-8")
        return self.models

    def run(self, *arguments: str | sa.URL, **environment: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(main, [_text(each) for each in arguments], env=environment)

    def process(self, *arguments: str | sa.URL, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "statekit", *map(_text, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )


def _text(argument: str | sa.URL) -> str:
    return argument if isinstance(argument, str) else argument.render_as_string(hide_password=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("STATEKIT_URL", raising=False)
    before = set(sys.modules)
    yield Project(tmp_path)
    for name, module in list(sys.modules.items()):
        if name not in before and str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def inbox(project: Project) -> Project:
    """Return a project with the inbox of the incident."""
    project.write()
    return project
