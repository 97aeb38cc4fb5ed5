"""The SQL that the revisions of ``migrations/`` give, as it was when they were written.

``python -m tests.upgrade.frozen`` writes the files that are missing, for a new revision. Those that are there stay: a
migration that somebody has run gives the same SQL under every later statekit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import statekit.alembic  # noqa: F401 (the operations)

FOLDER = Path(__file__).parent
ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """One way through one revision on one database."""

    revision: str
    direction: str
    dialect: str

    @property
    def path(self) -> Path:
        """The file that keeps its SQL."""
        return FOLDER / f"{self.revision}_{self.direction}_{self.dialect}.sql"

    def sql(self) -> str:
        """Return the SQL that it gives today, without what Alembic puts around it."""
        buffer = io.StringIO()
        options = {"as_sql": True, "output_buffer": buffer}
        revision = ScriptDirectory.from_config(Config(str(ROOT / "migrations" / "alembic.ini"))).get_revision(
            self.revision
        )
        assert revision is not None
        with Operations.context(MigrationContext.configure(dialect_name=self.dialect, opts=options)):
            getattr(revision.module, self.direction)()
        return buffer.getvalue()


CASES = [
    Case(revision, direction, dialect)
    for revision in ("0002", "0003", "0004", "0005")
    for direction in ("upgrade", "downgrade")
    for dialect in ("postgresql", "sqlite")
]


def write_missing() -> Iterator[Path]:
    """Write the files that are not there yet."""
    for case in CASES:
        if not case.path.exists():
            case.path.write_bytes(case.sql().encode())
            yield case.path


if __name__ == "__main__":
    for path in write_missing():
        print(path)
