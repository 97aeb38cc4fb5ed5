"""Statements: on a bare table, where need be with the guard's WHERE written by hand, and on a guarded one."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from tests.benchmarks.backends import Backend, Backends
from tests.benchmarks.measure import Variant, in_turn, note, show, timed
from tests.benchmarks.models import GOAL, START, message, new_base

MANY = 200_000
ILLEGAL = 4
"""One row in so many is not to move."""
SINGLES = 60
"""How many small statements make one measurement; the median of them counts."""
SETS = 100


class BulkModels:
    """Two bare classes and a guarded one, with more rows than the others."""

    def __init__(self, number: int) -> None:
        from statekit import TransitionTable, guard

        base = new_base()
        self.metadata: sa.MetaData = base.metadata
        self.bare, self.twin, self.guarded = (message(base, name) for name in ("BulkBare", "BulkTwin", "BulkGuarded"))
        for model in (self.bare, self.twin, self.guarded):
            sa.Index(f"on_{model.__tablename__}", model.status)  # as a table that is asked for states has
        self.number = number
        table = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED")
        guard(self.guarded.status, table, on_illegal="skip")

    def fill(self, connection: Connection) -> None:
        """Make the tables, and their rows."""
        self.metadata.create_all(connection)
        for model in (self.bare, self.twin, self.guarded):
            table = model.__table__
            rows = [
                {"id": at, "status": "COMPLETED" if at % ILLEGAL == 0 else START, "subject": "x"}
                for at in range(1, self.number + 1)
            ]
            for start in range(0, len(rows), 10_000):
                connection.execute(sa.insert(table), rows[start : start + 10_000])


def bulk(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """An UPDATE of 200,000 rows, of which a quarter must not move."""
    from statekit import operation

    models = BulkModels(MANY)

    def update(backend: Backend, model: Any, around: Callable[[], Any] = nullcontext) -> Variant:
        table = model.__table__
        statement = sa.update(table).where(table.c.subject == "x").values(status=GOAL)
        if model is not models.guarded:
            statement = statement.where(table.c.status.in_([START]))

        def work(session: Session) -> float:
            connection = session.connection()
            written = []

            def execute() -> None:
                with around():
                    written.append(connection.execute(statement).rowcount)

            seconds = timed(execute)
            assert written == [MANY - MANY // ILLEGAL]
            session.rollback()
            return seconds

        return lambda: backend.call(work)

    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(backend)
            continue
        backends.prepare(name, models.fill)
        samples = in_turn(
            {
                "WHERE by hand": update(backend, models.bare),
                "WHERE by hand, a twin": update(backend, models.twin),
                'guarded, "skip"': update(backend, models.guarded),
                'guarded, "skip", in an operation': update(backend, models.guarded, lambda: operation("Bulk")),
            },
            rounds,
            between=backend.sweep,
        )
        show(name, samples, base="WHERE by hand", remarks={'guarded, "skip"': "aim ≤ 1.05×"})


def small(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """Statements of one row and of a hundred; each of them moves legally."""
    from statekit import operation

    models = backends.models
    by_key = "one row by its key"
    kinds: dict[str, tuple[Callable[[Any], Callable[[Connection, int], None]], Callable[[], Any], bool]] = {
        by_key: (_by_key, nullcontext, False),
        "the same, in an operation": (_by_key, lambda: operation("Small"), False),
        "one row by another column": (_by_subject, nullcontext, False),
        f"{SETS} rows by key, executemany": (_many, nullcontext, True),
        "another column of one row": (_other_column, nullcontext, False),
        "INSERT of one row": (_insert, nullcontext, False),
        f"INSERT of {SETS} rows, executemany": (_insert_many, nullcontext, True),
    }
    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(backend)
            continue
        where = name
        for kind, (make, around, is_large) in kinds.items():
            variants = {
                f"{kind}": _repeated(backend, make(models.bare.__table__), nullcontext, is_large),
                "… a twin": _repeated(backend, make(models.twin.__table__), nullcontext, is_large),
                "… guarded": _repeated(backend, make(models.guarded.__table__), around, is_large),
            }
            show(where, in_turn(variants, rounds, between=backend.sweep), base=kind)
            where = ""


def _repeated(
    backend: Backend, execute: Callable[[Connection, int], None], around: Callable[[], Any], is_large: bool
) -> Variant:
    def work(session: Session) -> float:
        connection, taken = session.connection(), []
        for number in range(1, (SINGLES // 10 if is_large else SINGLES) + 1):
            with around():
                taken.append(timed(lambda at=number: execute(connection, at), collect=number == 1))  # type: ignore[misc]
        session.rollback()
        return statistics.median(taken)

    return lambda: backend.call(work)


def _by_key(table: Any) -> Callable[[Connection, int], None]:
    return lambda connection, at: _one(connection.execute(sa.update(table).where(table.c.id == at).values(status=GOAL)))


def _by_subject(table: Any) -> Callable[[Connection, int], None]:
    def execute(connection: Connection, at: int) -> None:
        is_this = sa.and_(table.c.subject == "x", table.c.id.between(at, at))
        _one(connection.execute(sa.update(table).where(is_this).values(status=GOAL)))

    return execute


def _many(table: Any) -> Callable[[Connection, int], None]:
    statement = sa.update(table).where(table.c.id == sa.bindparam("key"))

    def execute(connection: Connection, at: int) -> None:
        keys = range((at - 1) * SETS + 1, at * SETS + 1)
        connection.execute(statement, [{"key": key, "status": GOAL} for key in keys])

    return execute


def _other_column(table: Any) -> Callable[[Connection, int], None]:
    return lambda connection, at: _one(connection.execute(sa.update(table).where(table.c.id == at).values(subject="y")))


def _insert(table: Any) -> Callable[[Connection, int], None]:
    row = {"status": START, "subject": "x"}
    return lambda connection, at: _one(connection.execute(sa.insert(table), {"id": 100_000 + at, **row}))


def _insert_many(table: Any) -> Callable[[Connection, int], None]:
    def execute(connection: Connection, at: int) -> None:
        keys = range(100_000 + at * SETS, 100_000 + (at + 1) * SETS)
        connection.execute(sa.insert(table), [{"id": key, "status": START, "subject": "x"} for key in keys])

    return execute


def _one(result: Any) -> None:
    assert result.rowcount in (1, -1)
