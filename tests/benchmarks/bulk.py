"""Bulk transitions beside one large UPDATE and the loops that people write: all rows are moved and committed.

``STATEKIT_BENCH_ROWS=1000000`` takes more rows than the 100,000 that a run has else.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import sqlalchemy as sa

from tests.benchmarks.backends import Backend, Backends
from tests.benchmarks.measure import Variant, in_turn, note, show, show_time, timed
from tests.benchmarks.models import START, message, new_base

ROWS = int(os.environ.get("STATEKIT_BENCH_ROWS", "100000"))
GOAL = "SPAM_REVIEW"
BY_HAND = 1_000
"""How many rows a loop moves at once that somebody writes by hand."""
LARGE = 10_000
"""How many rows a batch of transition_all has at most."""
TENTH = 10


class Tables:
    """A bare class and guarded ones, each without an index of the status and, where it matters, with one."""

    def __init__(self) -> None:
        from statekit import TransitionTable, guard, ledger

        base = new_base()
        self.metadata: sa.MetaData = base.metadata
        names = ("Bare", "BareIndexed", "Guarded", "GuardedIndexed", "History", "Triggered", "HistoryByTrigger")
        self.models = {name: message(base, f"Moved{name}") for name in names}
        for name in ("BareIndexed", "GuardedIndexed"):
            sa.Index(f"on_{self[name].__tablename__}", self[name].status)
        moves = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial=START)
        guard(self["Guarded"].status, moves)
        guard(self["GuardedIndexed"].status, moves)
        guard(self["History"].status, moves, history=True, trigger=False)
        guard(self["Triggered"].status, moves, trigger=True)
        guard(self["HistoryByTrigger"].status, moves, history=True, trigger=True)
        ledger.add_to(self.metadata)

    def __getitem__(self, name: str) -> Any:
        return self.models[name]

    def make(self, connection: sa.Connection) -> None:
        """Make the tables; no autovacuum comes between, since :func:`refill` vacuums before each measurement."""
        self.metadata.create_all(connection)
        if connection.dialect.name == "postgresql":
            for model in self.models.values():
                connection.exec_driver_sql(f"ALTER TABLE {model.__tablename__} SET (autovacuum_enabled = false)")

    def refill(self, engine: sa.Engine, model: Any) -> None:
        """Make a table as it is after its rows were loaded, vacuumed and analyzed."""
        name = model.__tablename__
        is_postgresql = engine.dialect.name == "postgresql"
        with engine.begin() as connection:
            for each in (name, "statekit_job", "statekit_history"):
                connection.exec_driver_sql(f"TRUNCATE {each} CASCADE" if is_postgresql else f"DELETE FROM {each}")
            connection.exec_driver_sql(f"INSERT INTO {name} (id, status, subject) {_numbers(is_postgresql)}")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM ANALYZE {name}" if is_postgresql else f"ANALYZE {name}")


def _numbers(is_postgresql: bool) -> str:
    row = f"SELECT n, '{START}', 'a subject of forty characters, or thereabouts'"
    if is_postgresql:
        return f"{row} FROM generate_series(1, {ROWS}) n"
    return f"WITH RECURSIVE s (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS}) {row} FROM s"


# --- the ways to move all rows ----------------------------------------------------------------------------------------

Move = Callable[[sa.Engine, Any], object]
"""Moves all rows of a class, and commits."""


def one_update(engine: sa.Engine, model: Any) -> None:
    """Move them by one UPDATE."""
    table = model.__table__
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.status == START).values(status=GOAL))


def select_then_update(engine: sa.Engine, model: Any) -> None:
    """Ask for a thousand keys, write them, commit, and again until there are none."""
    table = model.__table__
    ids = sa.select(table.c.id).where(table.c.status == START).limit(BY_HAND)
    moved = BY_HAND
    while moved:
        with engine.begin() as connection:
            found = list(connection.scalars(ids))
            moved = len(found)
            if found:
                connection.execute(sa.update(table).where(table.c.id.in_(found)).values(status=GOAL))


def update_of_a_subquery(engine: sa.Engine, model: Any) -> None:
    """Write what a subquery with a LIMIT finds, commit, and again until nothing was written."""
    table = model.__table__
    ids = sa.select(table.c.id).where(table.c.status == START).limit(BY_HAND)
    moved = BY_HAND
    while moved:
        with engine.begin() as connection:
            moved = connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(status=GOAL)).rowcount


def with_a_cursor(engine: sa.Engine, model: Any) -> None:
    """Do what transition_all does, without anything around it: from the last key on, as many rows as it has."""
    table = model.__table__
    last = 0
    while True:
        with engine.begin() as connection:
            query = sa.select(table.c.id).where(table.c.status == START, table.c.id > last).order_by(table.c.id)
            if engine.dialect.name == "postgresql":
                query = query.with_for_update(key_share=True, skip_locked=True)
            found = list(connection.scalars(query.limit(LARGE)))
            if not found:
                return
            last = found[-1]
            if engine.dialect.name == "postgresql":
                these = table.c.id == sa.any_(sa.bindparam("keys", found, type_=sa.ARRAY(table.c.id.type)))
                connection.execute(sa.update(table).where(these).values(status=GOAL))
                continue
            for start in range(0, len(found), 500):
                these = table.c.id.in_(found[start : start + 500])
                connection.execute(sa.update(table).where(these).values(status=GOAL))


def transition_all(engine: sa.Engine, model: Any) -> None:
    """Move them by statekit, without a budget."""
    from statekit import transition_all

    result = transition_all(engine, model.status, GOAL, budget=None)
    assert result.finished
    assert result.done == ROWS


# --- what is shown ----------------------------------------------------------------------------------------------------


def ways(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """All rows moved, in each way, with an index of the status and without one."""
    tables = Tables()
    base = "one UPDATE"
    for name, engine in _engines(backends, tables, names):
        for suffix, called in (("", "no index of the status"), ("Indexed", "an index of the status")):
            bare, guarded = tables["Bare" + suffix], tables["Guarded" + suffix]
            variants = {
                base: _measured(tables, engine, bare, one_update),
                "one UPDATE, a twin": _measured(tables, engine, bare, one_update),
                "transition_all": _measured(tables, engine, guarded, transition_all),
                f"the same by hand, {LARGE:,} a batch": _measured(tables, engine, bare, with_a_cursor),
                f"loop: SELECT LIMIT {BY_HAND:,}, UPDATE": _measured(tables, engine, bare, select_then_update),
                f"loop: UPDATE … IN (… LIMIT {BY_HAND:,})": _measured(tables, engine, bare, update_of_a_subquery),
            }
            samples = in_turn(variants, rounds, warm_up=0)
            note(called)
            show(name, samples, base=base)
            show(name, {each: samples[each] for each in list(samples)[2:]}, base="transition_all")


def kept(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """All rows moved by transition_all, with what a guard can have besides."""
    tables = Tables()
    kinds = {
        "a guard": "Guarded",
        "with a trigger": "Triggered",
        "history by the guard": "History",
        "history by the trigger": "HistoryByTrigger",
    }
    for name, engine in _engines(backends, tables, names):
        variants = {called: _measured(tables, engine, tables[each], transition_all) for called, each in kinds.items()}
        show(name, in_turn(variants, rounds, warm_up=0), base="a guard")


def evenness(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """The last batches beside the first ones, and the memory at the end beside that after a tenth."""
    tables = Tables()
    kinds = ("Guarded", "GuardedIndexed", "Triggered", "History", "HistoryByTrigger")
    for name, engine in _engines(backends, tables, names):
        where = name
        for kind in kinds:
            runs = []
            for _ in range(rounds):
                tables.refill(engine, tables[kind])
                runs.append(_Batches(engine, tables[kind]))
            first, last = (statistics.median(each) for each in zip(*(run.ends() for run in runs), strict=True))
            ratio = statistics.median(b / a for a, b in (run.ends() for run in runs))
            row = f"a row {show_time(first)} → {show_time(last)}"
            grown = statistics.median(run.grown for run in runs) / 2**20
            print(
                f"{where:<14} {_spoken(kind):<34} {row:<26} {ratio:6.3f}×  memory {grown:+.1f} MB  aim ≤ 1.3×, nothing",
                flush=True,
            )
            where = ""


class _Batches:
    """The batches of a call: how large each was, how long it took, and the memory of this process."""

    def __init__(self, engine: sa.Engine, model: Any) -> None:
        from statekit.bulk import transition_batches

        self.sizes: list[int] = []
        self.seconds: list[float] = []
        after_a_tenth = 0
        at, done = perf_counter(), 0
        for result in transition_batches(engine, model.status, GOAL, budget=None):
            now = perf_counter()
            if result.done > done:
                self.sizes.append(result.done - done)
                self.seconds.append(now - at)
                if done < ROWS // TENTH <= result.done:
                    after_a_tenth = _memory()
            done, at = result.done, perf_counter()
        self.grown = _memory() - after_a_tenth
        assert done == ROWS

    def ends(self) -> tuple[float, float]:
        """Return the seconds of a row in the first tenth of the batches that were as large as any, and in the last."""
        largest = max(self.sizes)
        costs = [s / n for n, s in zip(self.sizes, self.seconds, strict=True) if n > largest * 0.9]
        tenth = max(1, len(costs) // TENTH)
        return statistics.median(costs[:tenth]), statistics.median(costs[-tenth:])


def _memory() -> int:
    """Return how many bytes of memory this process has; 0 where nobody says so."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _spoken(kind: str) -> str:
    return {
        "Guarded": "a guard",
        "GuardedIndexed": "a guard, an index of the status",
        "Triggered": "with a trigger",
        "History": "history by the guard",
        "HistoryByTrigger": "history by the trigger",
    }[kind]


def _engines(backends: Backends, tables: Tables, names: tuple[str, ...]) -> Iterable[tuple[str, sa.Engine]]:
    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(backend)
            continue
        backends.prepare(name, tables.make)
        yield name, _sync(backend)


def _sync(backend: Backend) -> sa.Engine:
    assert isinstance(backend.engine, sa.Engine)
    return backend.engine


def _measured(tables: Tables, engine: sa.Engine, model: Any, move: Move) -> Variant:
    def measure() -> float:
        tables.refill(engine, model)
        seconds = timed(lambda: move(engine, model))
        with engine.connect() as connection:
            moved = sa.select(sa.func.count()).where(model.__table__.c.status == GOAL)
            assert connection.scalar(moved) == ROWS
        return seconds

    return measure
