"""Triggers: rows written on a table without one, with statekit's, and with others that hold it to the same rule."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from tests.benchmarks.backends import Backend, Backends
from tests.benchmarks.elsewhere import Worker
from tests.benchmarks.measure import Variant, in_turn, note, show, timed
from tests.benchmarks.models import BIG_STATES, GOAL, START, edges

MANY, FEW, NEW, ON_SQLITE = 200_000, 2_000, 10_000, 20_000
SINGLES = 300
"""How many statements of one row make one measurement; the median of them counts."""
MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]
ILLEGAL = "COMPLETED"
NONE, TWIN, OURS, INLINE, BIG = (
    "no trigger",
    "no trigger, a twin",
    "statekit",
    "statekit, inline",
    "statekit, 400 moves",
)
WRITTEN, FSM = "plpgsql, an IF by hand", "django-pgtrigger's FSM shape"

Install = Callable[[str], Iterable[str]]
"""Returns the statements that give a table its trigger."""


def _none(table: str) -> Iterable[str]:
    return ()


def _statekit(table: str, moves: Iterable[tuple[str, str]] = MOVES, **options: Any) -> Iterable[str]:
    from statekit.trigger import StateTrigger

    return StateTrigger(table, "status", moves, initial=[START], **options).create_sql("postgresql")


def _big_moves() -> list[tuple[str, str]]:
    """Return 400 moves among 100 states, of which two are called as in the rows."""
    moves = edges(BIG_STATES)
    names = dict(zip(moves[0], (START, GOAL), strict=True))
    return [(names.get(source, source), names.get(target, target)) for source, target in moves]


def _by_hand(table: str) -> Iterable[str]:
    """Write what somebody writes who has these four states and one afternoon."""
    return (
        f"""CREATE FUNCTION {table}_moves() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.status IS DISTINCT FROM OLD.status AND NOT (
            OLD.status = 'READY' AND NEW.status IN ('SPAM_REVIEW', 'PROMOTED')
            OR OLD.status = 'PROMOTED' AND NEW.status = 'COMPLETED'
          ) THEN
            RAISE EXCEPTION 'cannot move from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
          END IF;
          RETURN NEW;
        END $$""",
        f"""CREATE FUNCTION {table}_starts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.status IS DISTINCT FROM 'READY' THEN
            RAISE EXCEPTION 'cannot start in %', NEW.status USING ERRCODE = 'check_violation';
          END IF;
          RETURN NEW;
        END $$""",
        f"CREATE TRIGGER moves BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_moves()",
        f"CREATE TRIGGER starts BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_starts()",
    )


def _fsm(table: str) -> Iterable[str]:
    """Write a trigger of the shape that django-pgtrigger 4.17 makes of an FSM; it asks for its way out in each row."""
    pairs = ",".join(f"{source}:{target}" for source, target in MOVES)
    return (
        f"""CREATE FUNCTION {table}_ignores(trigger_name name) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
          ignored text[];
        BEGIN
          BEGIN
            SELECT current_setting('benchmark.ignore') INTO ignored;
          EXCEPTION WHEN OTHERS THEN
          END;
          IF ignored IS NOT NULL THEN
            RETURN trigger_name = ANY (ignored);
          END IF;
          RETURN false;
        END $$""",
        f"""CREATE FUNCTION {table}_fsm() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
          is_valid boolean;
        BEGIN
          IF {table}_ignores(TG_NAME) IS TRUE THEN
            RETURN NEW;
          END IF;
          SELECT concat(OLD.status, ':', NEW.status) = ANY ('{{{pairs}}}'::text[]) INTO is_valid;
          IF is_valid IS FALSE AND OLD.status IS DISTINCT FROM NEW.status THEN
            RAISE EXCEPTION 'cannot move from % to % in %', OLD.status, NEW.status, TG_TABLE_NAME;
          END IF;
          RETURN NEW;
        END $$""",
        f"CREATE TRIGGER fsm BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_fsm()",
    )


VARIANTS: dict[str, Install] = {
    NONE: _none,
    TWIN: _none,
    OURS: _statekit,
    INLINE: partial(_statekit, inline=True),
    BIG: lambda table: _statekit(table, _big_moves()),
    WRITTEN: _by_hand,
    FSM: _fsm,
}
BLOCKING: dict[str, Install] = {
    NONE: _none,
    OURS: _statekit,
    'statekit, "skip"': partial(_statekit, on_illegal="skip"),
    'statekit, "observe"': partial(_statekit, on_illegal="observe"),
    BIG: lambda table: _statekit(table, _big_moves()),
    WRITTEN: _by_hand,
    FSM: _fsm,
}


class Tables:
    """A table for each variant, on one connection in autocommit, which all of them share."""

    def __init__(self, engine: sa.Engine, variants: dict[str, Install]) -> None:
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.cursor: Any = cast(Any, self._connection.connection.driver_connection).cursor()
        self.names = {name: f"written_{number}" for number, name in enumerate(variants)}
        for name, table in self.names.items():
            self.cursor.execute(
                f"CREATE TABLE {table} (id integer PRIMARY KEY, status text NOT NULL, subject text NOT NULL)"
                " WITH (autovacuum_enabled = false)"
            )
            for statement in variants[name](table):
                self.cursor.execute(statement)

    def close(self) -> None:
        """Remove the tables, and with them their triggers."""
        for table in self.names.values():
            self.cursor.execute(f"DROP TABLE {table}")
        self.cursor.execute("DROP SCHEMA IF EXISTS statekit CASCADE")
        for table in self.names.values():
            for function in ("moves", "starts", "fsm", "ignores"):
                self.cursor.execute(f"DROP FUNCTION IF EXISTS {table}_{function}")
        self._connection.close()

    def fill(self, table: str, rows: int) -> None:
        """Write a table anew, past all triggers: what was there before leaves no trace in what is measured."""
        self.cursor.execute("SET session_replication_role = replica")
        self.cursor.execute(f"TRUNCATE {table}")
        self.cursor.execute(
            f"INSERT INTO {table} SELECT number, '{START}', 'x' FROM generate_series(1, {rows}) AS number"
        )
        self.cursor.execute("RESET session_replication_role")
        if rows:
            self.cursor.execute(f"VACUUM (FREEZE, ANALYZE) {table}")

    def rest(self) -> None:
        """Let the server write what it has to write before a round, and not within it."""
        self.cursor.execute("CHECKPOINT")


def _compare(
    where: str,
    engine: sa.Engine,
    rounds: int,
    variants: dict[str, Install],
    measure: Callable[[Tables, str], float],
    aims: dict[str, str] | None = None,
) -> None:
    tables = Tables(engine, variants)
    try:
        jobs = {name: partial(measure, tables, table) for name, table in tables.names.items()}
        samples = in_turn(jobs, rounds, between=tables.rest)
    finally:
        tables.close()
    show(where, samples, base=NONE, remarks={name: f"aim ≤ {aim}×" for name, aim in (aims or {}).items()})


def _engines(backends: Backends, names: tuple[str, ...]) -> Iterable[tuple[str, sa.Engine]]:
    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(backend)
        else:
            assert isinstance(backend.engine, sa.Engine)
            yield name, backend.engine


SINGLE_AIMS = {OURS: "1.05", BIG: "1.05"}


def single(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """A prepared UPDATE of one row by its primary key, in an open transaction."""
    for name, engine in _engines(backends, names):
        _compare(name, engine, rounds, VARIANTS, _one_row, SINGLE_AIMS)


def _one_row(tables: Tables, table: str) -> float:
    tables.fill(table, FEW)
    tables.cursor.execute("BEGIN")
    seconds = _each_row(tables, table, GOAL)
    assert tables.cursor.rowcount == 1
    tables.cursor.execute("ROLLBACK")
    return seconds


def _one_row_committed(tables: Tables, table: str) -> float:
    tables.fill(table, FEW)
    return _each_row(tables, table, GOAL)


def _blocked_row(tables: Tables, table: str) -> float:
    tables.fill(table, FEW)
    return _each_row(tables, table, ILLEGAL)


def _each_row(tables: Tables, table: str, target: str) -> float:
    import psycopg

    statement = f"UPDATE {table} SET status = %s WHERE id = %s"

    def execute(at: int) -> None:
        with contextlib.suppress(psycopg.errors.CheckViolation, psycopg.errors.RaiseException):
            tables.cursor.execute(statement, (target, at), prepare=True)

    for at in range(FEW - 10, FEW):  # what a connection does once, such as to plan and to load a function, is not meant
        execute(at)
    return statistics.median(timed(partial(execute, at), collect=at == 1) for at in range(1, SINGLES + 1))


def durable(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """The same, each committed, and a move that is not allowed, on a server that waits for its disk."""
    from tests.crash.server import CrashServer
    from tests.support.postgres import Unavailable

    try:
        server = CrashServer()
    except Unavailable as error:
        note(str(error))
        return
    with server:
        engine = sa.create_engine(server.url)
        _compare("one row", engine, rounds, VARIANTS, _one_row_committed, SINGLE_AIMS)
        _compare("not allowed", engine, rounds, BLOCKING, _blocked_row)
        engine.dispose()


def many(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """An UPDATE of 200,000 rows, each of them moving legally."""
    for name, engine in _engines(backends, names):
        measure = partial(_all_rows, f"status = '{GOAL}'")
        _compare(name, engine, rounds, VARIANTS, measure, {OURS: "1.35", INLINE: "1.12"})


def other(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """An UPDATE of 200,000 rows, whose status stays."""
    for name, engine in _engines(backends, names):
        measure = partial(_all_rows, "subject = 'y'")
        _compare(name, engine, rounds, VARIANTS, measure, {OURS: "1.05", INLINE: "1.05"})


def _all_rows(change: str, tables: Tables, table: str) -> float:
    tables.fill(table, MANY)
    seconds = timed(lambda: tables.cursor.execute(f"UPDATE {table} SET {change}"))
    assert tables.cursor.rowcount == MANY
    tables.cursor.execute(f"TRUNCATE {table}")
    return seconds


def insert(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """10,000 new rows. The FSM shape does not look at them."""

    def measure(tables: Tables, table: str) -> float:
        tables.fill(table, 0)
        rows = f"SELECT number, '{START}', 'x' FROM generate_series(1, {NEW}) AS number"
        seconds = timed(lambda: tables.cursor.execute(f"INSERT INTO {table} {rows}"))
        assert tables.cursor.rowcount == NEW
        return seconds

    for name, engine in _engines(backends, names):
        _compare(name, engine, rounds, {each: VARIANTS[each] for each in VARIANTS if each != FSM}, measure)


def blocked(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """A move that is not allowed, a transaction each. Without a trigger, and in "observe", it is written."""
    for name, engine in _engines(backends, names):
        _compare(name, engine, rounds, BLOCKING, _blocked_row)


def sqlite(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """An UPDATE of 20,000 rows, of the state and of another column, and an INSERT of as many, on SQLite."""
    from statekit.trigger import StateTrigger

    tables = {NONE: "written_0", TWIN: "written_1", OURS: "written_2"}

    def fill(connection: Connection) -> None:
        for table in (*tables.values(), "written_source"):
            connection.exec_driver_sql(
                f"CREATE TABLE {table} (id integer PRIMARY KEY, status text NOT NULL, subject text NOT NULL)"
            )
            rows = [(number, START, "x") for number in range(1, ON_SQLITE + 1)]
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
        for statement in StateTrigger(tables[OURS], "status", MOVES, initial=[START]).create_sql("sqlite"):
            connection.exec_driver_sql(statement)

    statements = {
        f"UPDATE of {ON_SQLITE:,} rows": f"UPDATE %s SET status = '{GOAL}'",
        "… of another column": "UPDATE %s SET subject = 'y'",
        f"INSERT of {ON_SQLITE:,} rows": (
            f"INSERT INTO %s SELECT id + {ON_SQLITE}, '{START}', 'x' FROM written_source"
        ),
    }  # fmt: skip

    def measure(backend: Backend, statement: str) -> Variant:
        def work(session: Session) -> float:
            connection = session.connection()
            seconds = timed(lambda: connection.exec_driver_sql(statement))
            session.rollback()
            return seconds

        return lambda: backend.call(work)

    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(backend)
            continue
        backends.prepare(name, fill)
        for called, statement in statements.items():
            variants = {each: measure(backend, statement % table) for each, table in tables.items()}
            show(called, in_turn(variants, rounds), base=NONE)


# --- what every process pays for the errors that are translated -------------------------------------------------------


def listening(rounds: int, generations: int) -> None:
    """Show a point SELECT in a process that listens to errors, and in one that does not."""
    names = {"without the listener": "plain", "without, a twin": "plain", "handle_error listened to": "listening"}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(generations):
        workers = {name: Worker(which, module="tests.benchmarks.triggers") for name, which in names.items()}
        variants: dict[str, Variant] = {name: partial(each.measure, "select") for name, each in workers.items()}
        for name, seconds in in_turn(variants, rounds).items():
            samples[name] += seconds
        for worker in workers.values():
            worker.close()
    show("SELECT, Core", samples, base="without the listener", remarks={"handle_error listened to": "aim nothing"})


def _work(which: str) -> None:
    from statekit.guards import refused  # in both processes, so that they differ in nothing but the listener
    from tests.benchmarks import worker

    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    select = worker.jobs(engine)["select-core"]
    if which == "listening":
        refused.install()
    for _ in sys.stdin:
        print(select(), flush=True)


if __name__ == "__main__":
    _work(sys.argv[1])
