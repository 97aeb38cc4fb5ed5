"""A process that makes illegal moves and says of each transaction, once it has ended, how many were blocked in it.

Started by test_exact.py with the URL of a database, a seed and a number of transactions; killed or not.
"""

from __future__ import annotations

import random
import sys

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import IllegalTransition, counts, ledger, operation
from tests.guards.inbox import message_class

ROWS = 20
BY_TRIGGER = "UPDATE message SET status = 'READY' WHERE id = 1"


def work(url: str, seed: int, transactions: int, *, has_trigger: bool) -> None:
    """Make transactions of every kind, in random order."""
    chance = random.Random(seed)
    message = message_class()
    engine = sa.create_engine(url)
    ledger.attach(engine)
    say("ready")
    told = 0
    for _ in range(transactions):
        kinds = [flushed, skipped, in_savepoints, by_core] + ([by_trigger] if has_trigger else [])
        told += chance.choice(kinds)(engine, message, chance)
        say(str(told))
    say(f"done {sum(counts(message.status).values())}")


def say(text: str) -> None:
    """Write a line that is there even if the process is killed right after it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def flushed(engine: sa.Engine, message: object, chance: random.Random) -> int:
    """Several rows in one flush, which is rolled back."""
    rows = chance.randint(1, 5)
    with Session(engine) as session:
        for each in session.scalars(sa.select(message).where(message.id <= rows)):  # type: ignore[call-overload, attr-defined]
            each.status = "SPAM_REVIEW"
        return refused(session.commit)


def skipped(engine: sa.Engine, message: object, chance: random.Random) -> int:
    """A statement that leaves its rows out, and commits."""
    rows = chance.randint(1, 5)
    with operation("skip", on_illegal="skip") as op, Session(engine) as session:
        session.execute(sa.update(message).where(message.id <= rows).values(status="READY"))  # type: ignore[arg-type, attr-defined]
        session.commit()
    return sum(op.blocked.values())


def in_savepoints(engine: sa.Engine, message: object, chance: random.Random) -> int:
    """Some savepoints, each of which is rolled back, and a transaction that commits or not."""
    total = 0
    with Session(engine) as session:
        for _ in range(chance.randint(1, 3)):
            statement = sa.update(message).where(message.id == 2).values(status="READY")  # type: ignore[arg-type, attr-defined]
            savepoint = session.begin_nested()
            total += refused(lambda statement=statement: session.execute(statement))
            savepoint.rollback()
        (session.commit if chance.random() < 0.5 else session.rollback)()
    return total


def by_core(engine: sa.Engine, message: object, chance: random.Random) -> int:
    """A Core statement on a connection."""
    with engine.connect() as connection:
        statement = sa.update(message.__table__).where(message.id == 3)  # type: ignore[attr-defined]
        total = refused(lambda: connection.execute(statement.values(status="SPAM_REVIEW")))
        connection.rollback()
    return total


def by_trigger(engine: sa.Engine, message: object, chance: random.Random) -> int:
    """Text, which only the trigger holds."""
    with engine.connect() as connection:
        return refused(lambda: connection.execute(sa.text(BY_TRIGGER)))


def refused(call: object) -> int:
    """Return how many rows the error names."""
    try:
        call()  # type: ignore[operator]
    except IllegalTransition as error:
        return sum(error.pairs.values())
    raise AssertionError("it was let through")


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), has_trigger=sys.argv[4] == "trigger")
