"""An inbox with a ledger, and what the tests of it have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import IllegalTransition, ledger
from statekit.ledger import Writer
from tests.guards.inbox import fill, message_class

BLOCKED = Counter({("PROMOTED", "SPAM_REVIEW"): 1})


@contextmanager
def attached(engine: Any, **options: Any) -> Iterator[Writer]:
    """Attach a ledger for the length of a block."""
    try:
        yield ledger.attach(engine, **options)
    finally:
        ledger.detach(engine)


def inbox(engine: sa.Engine, *states: str, **options: Any) -> Any:
    """Return a class Message with a ledger in its MetaData, and make tables and rows."""
    message = message_class(**options)
    ledger.add_to(message.metadata)
    fill(engine, message, *states)
    return message


def capture(session: Session, message: Any, *identities: int) -> None:
    """Make the illegal move of the incident, and fail."""
    for each in [session.get(message, identity) for identity in identities]:
        each.status = "SPAM_REVIEW"
    try:
        session.flush()
    except IllegalTransition:
        return
    raise AssertionError("it was let through")


def entries(engine: sa.Engine, *names: str) -> list[Any]:
    """Return some columns of all entries, in the order in which they were written."""
    table = ledger.add_to(sa.MetaData()).ledger
    with engine.connect() as connection:
        rows = connection.execute(sa.select(*(table.c[name] for name in names)).order_by(table.c.id)).all()
        return [row[0] if len(names) == 1 else tuple(row) for row in rows]


def moves(engine: sa.Engine, kind: str = "blocked") -> Counter[Any]:
    """Return how often each move is in the ledger."""
    total: Counter[Any] = Counter()
    for of, source, target, number in entries(engine, "kind", "source", "target", "number"):
        if of == kind:
            total[source, target] += number
    return total
