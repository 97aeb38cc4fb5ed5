"""Bulk transitions whose process is killed: at whatever boundary, each row moves once, and the job has counted it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import transition_all
from statekit.bulk import jobs
from tests.crash.dying import survives
from tests.guards.inbox import unguarded
from tests.ledger.books import inbox
from tests.support.databases import Databases, execute, is_postgresql

STATES = ["READY"] * 8 + ["COMPLETED"] + ["READY"] * 6 + ["PROMOTED"]
TO_MOVE = [number for number, state in enumerate(STATES, 1) if state == "READY"]
BLOCKED = len(STATES) - len(TO_MOVE)


class Inbox:
    """Messages, each of whose moves the database writes down by itself, and the bulk transition of them.

    Args:
        databases: of the test.
        backend: to use.
        options: of the guard.
    """

    def __init__(self, databases: Databases, backend: str, **options: Any) -> None:
        # A fork would take part in the locks of a SQLite file that is open.
        self.engine = databases.engine(backend, **({} if is_postgresql(backend) else {"poolclass": sa.NullPool}))
        self.message = inbox(self.engine, *STATES, **options)
        execute(self.engine, "CREATE TABLE moved (id INTEGER)")
        if is_postgresql(backend):
            execute(
                self.engine,
                "CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN INSERT INTO moved VALUES (NEW.id); RETURN NULL; END'",
                "CREATE TRIGGER note_move AFTER UPDATE ON message FOR EACH ROW EXECUTE FUNCTION note_move()",
            )
        else:
            execute(
                self.engine,
                "CREATE TRIGGER note_move AFTER UPDATE ON message BEGIN INSERT INTO moved VALUES (NEW.id); END",
            )

    def refill(self) -> None:
        """Put everything back to the beginning."""
        names = self.message.metadata.tables
        execute(self.engine, "DELETE FROM message", "DELETE FROM moved", *(f"DELETE FROM {each}" for each in names))
        rows = [{"id": number, "status": state, "subject": ""} for number, state in enumerate(STATES, 1)]
        with self.engine.begin() as connection:
            connection.execute(sa.insert(unguarded(self.message)), rows)

    def capture(self) -> None:
        """Move all messages to review: with the job that is there, or else with a new one."""
        known = jobs(self.engine)
        result = transition_all(
            self.engine,
            self.message.status,
            "SPAM_REVIEW",
            where=self.message.id > 0,
            operation="Spam capture",
            job=known[0].id if known else None,
            budget=dt.timedelta(seconds=60),
        )
        assert result.finished

    def moves(self) -> Counter[int]:
        """Return how often each message has moved, as the database's trigger has seen it."""
        with self.engine.connect() as connection:
            return Counter(connection.scalars(sa.text("SELECT id FROM moved")))

    def check_counters(self) -> None:
        """Check that the job has counted the rows that have moved, and says it is finished only if all have."""
        moves = self.moves()
        found = jobs(self.engine)
        assert [(job.done, job.blocked, job.total) for job in found] == [(moves.total(), BLOCKED, len(STATES))][
            : len(found)
        ]
        assert found or not moves
        if any(job.state == "finished" for job in found):
            assert moves == Counter(TO_MOVE)

    def check_complete(self) -> None:
        """Check that each message has moved exactly once, and that the one job is finished."""
        assert self.moves() == Counter(TO_MOVE)
        (job,) = jobs(self.engine)
        assert (job.state, job.done, job.remaining) == ("finished", len(TO_MOVE), 0)


both = pytest.mark.parametrize("backend", ["sqlite", "psycopg"])


@both
def test_killed_at_any_boundary_every_row_moves_exactly_once(databases: Databases, backend: str) -> None:
    messages = Inbox(databases, backend, history=True)
    kills = 0
    while True:
        messages.refill()
        if survives(messages.engine, messages.capture, kills + 1):
            break
        kills += 1
        messages.check_counters()
        messages.capture()
        messages.check_complete()
    messages.check_complete()
    assert kills > 40, "a job, two batches of rows and the look for what is left have more boundaries"


@both
def test_killed_again_and_again_every_row_moves_exactly_once(databases: Databases, backend: str) -> None:
    """Each process that goes on with the job is killed too, a little later than the one before."""
    messages = Inbox(databases, backend)
    last = 1
    while not survives(messages.engine, messages.capture, last):
        messages.check_counters()
        last += 2
    messages.check_complete()
