"""A project with migrations, in a folder of its own: what ``alembic init`` makes, and the commands on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alembic
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

_ENV = """
from alembic import context

import statekit.alembic

given = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=given["engine"].dialect.name, target_metadata=given["metadata"], **given["options"])
    with context.begin_transaction():
        context.run_migrations()
else:
    with given["engine"].connect() as connection:
        context.configure(connection=connection, target_metadata=given["metadata"], **given["options"])
        with context.begin_transaction():
            context.run_migrations()
"""

_REVISION = """
from alembic import op
import sqlalchemy as sa

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
"""


class Project:
    """An Alembic environment on one database.

    Args:
        folder: where its files are written.
        engine: of its database.
        metadata: the ``target_metadata`` of ``env.py``; may be changed later.
        options: of ``context.configure()``.
    """

    def __init__(
        self, folder: Path, engine: sa.Engine, metadata: sa.MetaData | Sequence[sa.MetaData], **options: Any
    ) -> None:
        self.folder = folder / "migrations"
        self.engine = engine
        self.metadata = metadata
        self.options = options
        (self.folder / "versions").mkdir(parents=True)
        (self.folder / "env.py").write_text(_ENV, "utf-8")
        template = Path(alembic.__file__).parent / "templates" / "generic" / "script.py.mako"
        (self.folder / "script.py.mako").write_text(template.read_text("utf-8"), "utf-8")
        self._number = 0

    def autogenerate(self, message: str = "change", **options: Any) -> str:
        """Write a revision from what is different, and return its text without the head of the file."""
        self._number += 1
        options = {"rev_id": f"r{self._number:03}"} | options
        script: Any = command.revision(self._config(), message, autogenerate=True, **options)
        return Path(script.path).read_text("utf-8").partition("def upgrade()")[2]

    def write(self, upgrade: str, downgrade: str = "pass", *, down: Any = "head") -> str:
        """Write a revision by hand, and return its identifier."""
        previous = f"r{self._number:03}" if self._number else None
        self._number += 1
        revision = f"r{self._number:03}"
        text = _REVISION.format(
            revision=revision,
            down=previous if down == "head" else down,
            upgrade=upgrade.strip().replace("\n", "\n    "),
            downgrade=downgrade.strip().replace("\n", "\n    "),
        )
        (self.folder / "versions" / f"{revision}_by_hand.py").write_text(text, "utf-8")
        return revision

    def upgrade(self, revision: str = "head") -> None:
        """Run migrations up to a revision."""
        command.upgrade(self._config(), revision)

    def downgrade(self, revision: str = "-1") -> None:
        """Run migrations down to a revision."""
        command.downgrade(self._config(), revision)

    def script(self, revision: str = "head", *, down: bool = False) -> str:
        """Return the SQL that ``--sql`` writes."""
        config = self._config()
        config.output_buffer = io.StringIO()
        (command.downgrade if down else command.upgrade)(config, revision, sql=True)
        return config.output_buffer.getvalue()

    def differences(self) -> list[Any]:
        """Return how the database differs from what is declared, whatever revision it is at."""
        with self.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            return list(compare_metadata(context, self.metadata))

    def check(self) -> None:
        """Run ``alembic check``."""
        command.check(self._config())

    def migrate(self, message: str = "change", **options: Any) -> str:
        """Autogenerate a revision, run it, and return its text."""
        text = self.autogenerate(message, **options)
        self.upgrade()
        return text

    def _config(self) -> Config:
        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        config.attributes.update(engine=self.engine, metadata=self.metadata, options=self.options)
        return config
