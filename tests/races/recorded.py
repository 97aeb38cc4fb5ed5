"""What really happened, written down by the database itself: a trigger records each change of a state."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import sqlalchemy as sa

from statekit import IllegalTransition, TransitionTable, counts


def keep_a_record(engine: sa.Engine) -> None:
    """Have the database write down each change of a message's state."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE record (source VARCHAR(20), target VARCHAR(20))")
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(
                "CREATE TRIGGER note AFTER UPDATE ON message WHEN OLD.status IS NOT NEW.status "
                "BEGIN INSERT INTO record VALUES (OLD.status, NEW.status); END"
            )
        else:
            connection.exec_driver_sql(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN INSERT INTO record VALUES (OLD.status, NEW.status); RETURN NULL; END'"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER note AFTER UPDATE ON message FOR EACH ROW "
                "WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note()"
            )


def record(engine: sa.Engine) -> Counter[tuple[str, str]]:
    """Return how often each move was really made."""
    with engine.connect() as connection:
        return Counter((source, target) for source, target in connection.exec_driver_sql("SELECT * FROM record"))


class Outcome:
    """What the workers were told."""

    def __init__(self) -> None:
        self.refused: Counter[Any] = Counter()
        self._lock = threading.Lock()

    def note(self, error: Exception) -> None:
        """Note the rows that an error names."""
        if isinstance(error, IllegalTransition):
            with self._lock:
                self.refused.update(error.pairs)


def check(
    engine: sa.Engine, message: Any, table: TransitionTable, mode: str, operations: list[Any], outcome: Outcome
) -> None:
    """Compare what the operations have counted with what the database has written down."""
    happened = record(engine)
    allowed = sum((op.allowed for op in operations), Counter())
    blocked = sum((op.blocked for op in operations), Counter())
    observed = sum((op.observed for op in operations), Counter())
    illegal = {pair: number for pair, number in happened.items() if pair not in table.pairs}
    assert blocked == counts(message.status)
    if mode == "observe":
        assert illegal == observed
        assert happened == allowed + observed
    else:
        assert illegal == {}
        assert happened == allowed
    if mode == "raise":
        assert blocked == outcome.refused
    with engine.connect() as connection:
        states = connection.scalars(sa.select(message.__table__.c.status))
        assert set(states) <= set(table.states)
    assert sum(happened.values()) > 0
