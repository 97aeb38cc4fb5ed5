"""The folder ``migrations/``, on a test's database: what each revision declares, and the commands."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from migrations.inbox import Base
from statekit import TransitionTable, guard

FOLDER = Path(__file__).parents[2] / "migrations"


@dataclass(frozen=True)
class Step:
    """A revision, and the table that it leaves behind.

    Attributes:
        revision: its identifier.
        table: the transition table of message.status; None if there is no guard.
    """

    revision: str
    table: TransitionTable | None

    def metadata(self, *, trigger: bool | None = None) -> sa.MetaData:
        """Return the table as a model would declare it at that revision."""
        metadata = sa.MetaData()
        message = Base.metadata.tables["message"].to_metadata(metadata)
        if self.table is not None:
            guard(message.c.status, self.table, trigger=trigger)
        return metadata


STEPS = (
    Step("0001", None),
    Step("0002", TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")),
    Step("0003", TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED → ARCHIVED", initial="READY")),
    Step("0004", TransitionTable("READY → SPAM_REVIEW", "READY → ASSIGNED → COMPLETED → ARCHIVED", initial="READY")),
    Step("0005", None),
)


def config(engine: sa.Engine) -> Config:
    """Return the configuration of ``migrations/``, on a test's database."""
    made = Config(str(FOLDER / "alembic.ini"), stdout=io.StringIO(), output_buffer=io.StringIO())
    made.attributes["connection"] = engine
    return made


def migrate(engine: sa.Engine, start: str, end: str, *, offline: bool, down: bool = False) -> None:
    """Go from one revision to the next, as Alembic does it or by the script that it writes."""
    run = command.downgrade if down else command.upgrade
    made = config(engine)
    if not offline:
        run(made, end)
        return
    run(made, f"{start}:{end}", sql=True)
    script = made.output_buffer.getvalue()
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        else:
            driver.autocommit = True
            driver.cursor().execute(script)
