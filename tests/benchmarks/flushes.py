"""The flush: bare, with ``version_id_col``, and guarded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.benchmarks.backends import Backend, Backends
from tests.benchmarks.measure import Variant, in_turn, note, show, timed
from tests.benchmarks.models import GOAL, ROWS, START, Models, Status

SINGLES = 40
"""How many flushes of one object make one measurement; the median of them counts."""


def flush_rows(
    backend: Backend, model: Any, attribute: str = "status", value: Any = GOAL, around: Callable[[], Any] = nullcontext
) -> Variant:
    """Return the measurement of one flush of many changed objects; loading and changing them is not in it.

    Args:
        backend: where.
        model: the class.
        attribute: what is changed.
        value: what it is set to.
        around: makes a context manager for the flush.
    """

    def work(session: Session) -> float:
        objects = session.scalars(sa.select(model)).all()
        for each in objects:
            setattr(each, attribute, value)

        def flush() -> None:
            with around():
                session.flush()

        seconds = timed(flush)
        # A flush that wrote nothing would be a fast one.
        changed = sa.select(sa.func.count()).select_from(model).where(getattr(model, attribute) == value)
        assert session.scalar(changed) == ROWS
        session.rollback()
        return seconds

    return lambda: backend.call(work)


def flush_one(backend: Backend, model: Any, value: Any = GOAL) -> Variant:
    """Return the measurement of a flush of one object, loaded before."""

    def work(session: Session) -> float:
        taken = []
        for number in range(1, SINGLES + 1):
            session.get_one(model, number).status = value
            # Only the first is preceded by the garbage collector, which takes a hundred times as long as the flush.
            taken.append(timed(session.flush, collect=number == 1))
        session.rollback()
        return statistics.median(taken)

    return lambda: backend.call(work)


def insert_rows(backend: Backend, model: Any) -> Variant:
    """Return the measurement of one flush of many new objects, which get their keys from the database."""

    def work(session: Session) -> float:
        session.add_all(model(id=ROWS + number, status=START, subject="y") for number in range(1, ROWS + 1))
        seconds = timed(session.flush)
        assert session.scalar(sa.select(sa.func.count()).select_from(model)) == 2 * ROWS
        session.rollback()
        return seconds

    return lambda: backend.call(work)


def on_each(backends: Backends, names: tuple[str, ...]) -> Iterator[tuple[Backend, Models]]:
    """Yield the backends of these names, and show which are missing."""
    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(f"skipped: {backend}")
        else:
            yield backend, backends.models


def _race(backend: Backend, variants: dict[str, Variant], rounds: int, base: str, **remarks: str) -> None:
    samples = in_turn(variants, rounds, between=backend.sweep)
    show(backend.name, samples, base=base, remarks=remarks)


def status(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """The flush that the guard is for."""
    for backend, models in on_each(backends, names):
        variants = {
            "bare": flush_rows(backend, models.bare),
            "bare, a twin": flush_rows(backend, models.twin),
            "version_id_col": flush_rows(backend, models.versioned),
            "guarded": flush_rows(backend, models.guarded),
        }
        aim = "aim ≤ 1.4×" if backend.name == "asyncpg" else "aim ≤ 1.15×"
        _race(backend, variants, rounds, "bare", guarded=aim)


def enum(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """A StrEnum, which PostgreSQL stores as a type of its own."""
    for backend, models in on_each(backends, names):
        variants = {
            "bare": flush_rows(backend, models.enum_bare, value=Status.PROMOTED),
            "guarded": flush_rows(backend, models.enum_guarded, value=Status.PROMOTED),
        }
        _race(backend, variants, rounds, "bare", guarded="aim ≤ 1.15×")


def untouched(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """Another column of the guarded model changes."""
    for backend, models in on_each(backends, names):
        variants = {
            "bare": flush_rows(backend, models.bare, "subject"),
            "bare, a twin": flush_rows(backend, models.twin, "subject"),
            "guarded": flush_rows(backend, models.guarded, "subject"),
        }
        _race(backend, variants, rounds, "bare", guarded="aim ≤ 1.02×")


def modes(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """Legal moves in each mode, and in an operation, which counts them."""
    from statekit import operation

    for backend, models in on_each(backends, names):
        variants = {
            "raise": flush_rows(backend, models.guarded),
            "raise, in an operation": flush_rows(backend, models.guarded, around=lambda: operation("bench")),
            "skip": flush_rows(backend, models.skipping),
            "observe": flush_rows(backend, models.observing),
        }
        _race(backend, variants, rounds, "raise")


def kept(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """Legal moves with a ledger on the engine, and with a history of each row, by the guard and by the trigger."""
    from statekit import ledger

    for backend, models in on_each(backends, names):
        with backend.beside() as other:
            ledger.attach(other.engine)
            variants = {
                "guarded": flush_rows(backend, models.guarded),
                "guarded, a twin": flush_rows(backend, models.guarded),
                "with a ledger": flush_rows(other, models.guarded),
                "history by the guard": flush_rows(backend, models.keeping),
                "with a trigger": flush_rows(backend, models.triggered),
                "history by the trigger": flush_rows(backend, models.keeping_by_trigger),
            }
            aims = {"with a ledger": "aim ≤ 1.02×", "history by the guard": "aim ≤ 1.6×"}
            _race(backend, variants, rounds, "guarded", **aims, **{"history by the trigger": "aim ≤ 1.6×"})
            ledger.detach(other.engine)


def single(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """One object."""
    for backend, models in on_each(backends, names):
        variants = {
            "bare": flush_one(backend, models.bare),
            "bare, a twin": flush_one(backend, models.twin),
            "version_id_col": flush_one(backend, models.versioned),
            "guarded": flush_one(backend, models.guarded),
        }
        _race(backend, variants, rounds, "bare")


def insert(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """New objects, which are held to the initial states."""
    for backend, models in on_each(backends, names):
        variants = {
            "bare": insert_rows(backend, models.bare),
            "bare, a twin": insert_rows(backend, models.twin),
            "guarded": insert_rows(backend, models.guarded),
        }
        _race(backend, variants, rounds, "bare")


def big(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """A table with 100 states and 400 moves: many rows, and one."""
    for backend, models in on_each(backends, names):
        goal = models.big_goal
        many = {
            "bare, 2,000 rows": flush_rows(backend, models.big_bare, value=goal),
            "guarded, 2,000 rows": flush_rows(backend, models.big_guarded, value=goal),
        }
        _race(backend, many, rounds, "bare, 2,000 rows")
        one = {
            "bare, one row": flush_one(backend, models.big_bare, goal),
            "guarded, one row": flush_one(backend, models.big_guarded, goal),
        }
        _race(backend, one, rounds, "bare, one row")


def compilation(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """What a statement costs once, before SQLAlchemy's cache has it."""
    for backend, models in on_each(backends, names):
        texts: dict[str, str] = {}

        def compiled(name: str, model: Any, dialect: Any = backend.engine.dialect, texts: Any = texts) -> Variant:
            table = model.__table__

            def compile_() -> None:
                statement = sa.update(table).where(table.c.id == sa.bindparam("key"))
                texts[name] = str(statement.compile(dialect=dialect, column_keys=["status", "key"]))

            return lambda: timed(compile_)

        variants = {
            name: compiled(name, model)
            for name, model in (
                ("bare", models.bare),
                ("guarded, 4 states", models.guarded),
                ("guarded, 100 states", models.big_guarded),
            )
        }
        samples = in_turn(variants, rounds)
        show(backend.name, samples, remarks={name: f"{len(text):,} characters" for name, text in texts.items()})
