"""``import statekit`` loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import statekit


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["transitions", "alembic", "sqlalchemy", "psycopg", "rich"])
def test_does_not_load(name: str) -> None:
    assert name not in modules_after("import statekit")


@pytest.mark.parametrize("name", ["greenlet", "sqlalchemy.ext.asyncio"])
def test_neither_the_guard_nor_the_ledger_need_asyncio(name: str) -> None:
    script = "import sqlalchemy as sa; from statekit import guard, ledger; ledger.attach(sa.create_engine('sqlite://'))"
    loaded = modules_after(script)
    assert "statekit.ledger.writer" in loaded
    assert name not in loaded - modules_after("import sqlalchemy.orm, sqlite3")


@pytest.mark.parametrize("name", ["transitions", "alembic", "statekit.ledger.writer", "statekit.metrics"])
def test_the_guard_does_not_load(name: str) -> None:
    assert name not in modules_after(
        "from statekit import Guarded, guard, counts, operation, available, can, warn_about_text"
    )


def test_every_public_name_is_there() -> None:
    assert [name for name in statekit.__all__ if getattr(statekit, name, None) is None] == []


def test_the_public_names_are_sorted() -> None:
    assert statekit.__all__ == sorted(statekit.__all__)


def test_guard_is_the_function_whatever_was_imported_first() -> None:
    script = "import statekit.guards.fence, statekit; print(callable(statekit.guard))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_other_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'gard'"):
        statekit.gard  # type: ignore[attr-defined]
