"""Every Python block of the README and of docs/ runs: those of one page in order, in one namespace."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a block that writes a file write it where it does no harm, and end the sessions that a page left open."""
    monkeypatch.chdir(tmp_path)
    yield
    close_all_sessions()


@pytest.mark.parametrize("page", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in PAGES])
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fails names the page and the line."""
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(page)
    # A module that can be found, as SQLAlchemy looks up there what a model's annotations name.
    module = ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document.namespace = module.__dict__
    for example in document.examples():
        example.evaluate()
