"""What pruning leaves: exact sums, and the time up to which entries are gone."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import StatekitError, ledger
from statekit.ledger import queries
from tests.ledger.books import attached, capture, inbox

DAY = dt.timedelta(days=1)


def test_a_second_pruning_does_not_bring_back_what_the_first_has_removed(engine: sa.Engine) -> None:
    message = inbox(engine, "PROMOTED")
    with attached(engine), Session(engine) as session:
        capture(session, message, 1)
    now = dt.datetime.now(dt.UTC) + 60 * DAY
    with engine.connect() as connection:
        assert ledger.prune(connection, older_than=30 * DAY, now=now) == 1
        before = queries.pruned_until(connection)
        connection.rollback()
        assert ledger.prune(connection, older_than=90 * DAY, now=now) == 0
        assert queries.pruned_until(connection) == before
        assert sum(queries.moves(connection, "blocked").values()) == 1


@pytest.mark.parametrize("what", [None, "sqlite://"])
def test_what_is_no_connection_is_refused(what: Any) -> None:
    with pytest.raises(StatekitError, match="allowed is a Connection"):
        ledger.prune(what)


def test_an_engine_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(StatekitError, match="allowed is a Connection"):
        ledger.prune(engine)  # type: ignore[arg-type]
