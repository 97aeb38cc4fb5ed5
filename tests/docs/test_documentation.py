"""Every Python block of the README and of docs/ runs: those of one page in order, in one namespace."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.orm import close_all_sessions
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
# sqlalchemy-fsm has to be imported before any class is mapped, and changes SQLAlchemy's events for the whole process.
ALONE = {"docs/moving/sqlalchemy-fsm.md": "sqlalchemy_fsm"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a block that writes a file write it where it does no harm, and end the sessions that a page left open."""
    monkeypatch.chdir(tmp_path)
    yield
    close_all_sessions()


@pytest.mark.parametrize("page", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in PAGES])
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fails names the page and the line."""
    first = ALONE.get(page.relative_to(ROOT).as_posix())
    if first is None:
        evaluate(page, monkeypatch)
    else:
        evaluate_alone(page, first)


def evaluate_alone(page: Path, first: str) -> None:
    """Evaluate a page in a process of its own, which imports a module before anything else."""
    code = (
        f"import {first}, pathlib, sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; "
        "from tests.docs.test_documentation import evaluate; "
        f"evaluate(pathlib.Path({str(page)!r}), pytest.MonkeyPatch())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def evaluate(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate the blocks of a page, in this process."""
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(page)
    # A module that can be found, as SQLAlchemy looks up there what a model's annotations name.
    module = ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = module.__dict__
    for example in document.examples():
        example.evaluate()
