"""A database that does not have every character: one entry must not keep the others out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import operation
from tests.ledger.books import attached, capture, entries, inbox


@pytest.fixture
def latin(postgres_engine: sa.Engine) -> Iterator[sa.Engine]:
    """Return an engine on a database in LATIN1."""
    owner = postgres_engine.execution_options(isolation_level="AUTOCOMMIT")
    name = f"{postgres_engine.url.database}_latin"
    with owner.connect() as connection:
        how = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        connection.exec_driver_sql(f"CREATE DATABASE {name} {how}")
    engine = sa.create_engine(postgres_engine.url.set(database=name))
    yield engine
    engine.dispose()
    with owner.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_it_does_not_have_is_written_as_an_escape(latin: sa.Engine) -> None:
    message = inbox(latin, "PROMOTED")
    with attached(latin) as writer:
        with operation("Spam → 迷惑"), Session(latin) as session:
            capture(session, message, 1)
        with operation("caf\xe9"), Session(latin) as session:
            capture(session, message, 1)
        assert writer.flush()
    assert entries(latin, "operation") == ["Spam \\u2192 \\u8ff7\\u60d1", "caf\xe9"]
