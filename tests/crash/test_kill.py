"""What triggers have counted when PostgreSQL is killed: never less than the errors that arrived."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from statekit.errors import Pair
from statekit.observe.modes import OnIllegal
from statekit.trigger import StateTrigger
from statekit.trigger.catalog import blocked
from tests.crash.server import CrashServer
from tests.support.postgres import Unavailable, older_programs

psycopg = pytest.importorskip("psycopg")

CLIENTS, ATTEMPTS = 4, 500
MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]
ILLEGAL: list[Pair] = [("READY", "COMPLETED"), ("PROMOTED", "SPAM_REVIEW")]
AHEAD = 32
"""How many numbers of a sequence PostgreSQL writes ahead to its log, so that nextval() need not wait each time."""


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[CrashServer]:
    """Return a server that the tests of this module may kill."""
    try:
        started = CrashServer()
    except Unavailable as error:
        (pytest.fail if request.config.getoption("--require-backends") else pytest.skip)(str(error))
    with started:
        yield started


@pytest.fixture(scope="module")
def older_server() -> Iterator[CrashServer]:
    """Return a server of a PostgreSQL before 17, if this machine has one."""
    programs = [each for each in older_programs() if int(each.parent.name) < 17]
    if not programs:
        pytest.skip("this machine has no PostgreSQL before 17")
    with CrashServer(programs[0]) as started:
        yield started


@pytest.fixture
def engine(server: CrashServer) -> Iterator[sa.Engine]:
    """Return an engine on the server, where nothing is left of other tests."""
    yield from _fresh(server)


@pytest.fixture
def older_engine(older_server: CrashServer) -> Iterator[sa.Engine]:
    """Return an engine on the older server, where nothing is left of other tests."""
    yield from _fresh(older_server)


def _fresh(server: CrashServer) -> Iterator[sa.Engine]:
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    execute(
        engine,
        "DROP TABLE IF EXISTS message",
        "DROP SCHEMA IF EXISTS statekit CASCADE",
        "CREATE TABLE message (id integer PRIMARY KEY, status text NOT NULL)",
    )
    yield engine


def execute(engine: sa.Engine, *statements: str) -> None:
    """Execute statements in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def counts(engine: sa.Engine) -> Counter[Pair]:
    """Return what the trigger has counted."""
    with engine.connect() as connection:
        return blocked(connection)


def guarded(engine: sa.Engine, on_illegal: OnIllegal = "raise") -> None:
    """Give each client a message in either source, and the table its trigger."""
    for number, (source, _) in enumerate(ILLEGAL):
        rows = f"SELECT n * {len(ILLEGAL)} + {number}, '{source}' FROM generate_series(0, {CLIENTS - 1}) n"
        execute(engine, f"INSERT INTO message {rows}")
    trigger = StateTrigger("message", "status", MOVES, initial=["READY"], on_illegal=on_illegal)
    execute(engine, *trigger.create_sql("postgresql"))


def try_illegal(engine: sa.Engine, client: int, goes_on: Callable[[int], bool], seen: Counter[Pair]) -> None:
    """Try illegal moves, a transaction each, and note each error that arrives, until the server is gone."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        attempt = 0
        while goes_on(attempt):
            number = (attempt + client) % len(ILLEGAL)
            try:
                connection.execute(
                    "UPDATE message SET status = %s WHERE id = %s",
                    (ILLEGAL[number][1], client * len(ILLEGAL) + number),
                )
            except psycopg.errors.CheckViolation:
                seen[ILLEGAL[number]] += 1
            except psycopg.OperationalError:
                return
            attempt += 1


def start_clients(
    pool: ThreadPoolExecutor, engine: sa.Engine, goes_on: Callable[[int], bool]
) -> tuple[list[Future[None]], list[Counter[Pair]]]:
    """Start the clients, each of which notes what it sees in a Counter of its own."""
    seen = [Counter[Pair]() for _ in range(CLIENTS)]
    return [pool.submit(try_illegal, engine, client, goes_on, seen[client]) for client in range(CLIENTS)], seen


def all_of(seen: list[Counter[Pair]]) -> Counter[Pair]:
    """Return what all clients have seen."""
    return sum(seen, Counter[Pair]())


def make_all(engine: sa.Engine) -> Counter[Pair]:
    """Have the clients try all moves, and return whose errors have arrived."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        done, seen = start_clients(pool, engine, lambda attempt: attempt < ATTEMPTS // CLIENTS)
        for each in done:
            each.result()
    return all_of(seen)


def test_the_server_waits_for_the_disk(engine: sa.Engine) -> None:
    """These tests would say nothing on the server that the others share."""
    with engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("fsync", "synchronous_commit")]
    assert settings == ["on", "on"]


def test_blocked_moves_whose_errors_arrived_are_counted_exactly(server: CrashServer, engine: sa.Engine) -> None:
    """Four clients have got 500 errors, then all processes of the server die at once."""
    guarded(engine)
    seen = make_all(engine)
    server.kill()
    server.start()
    assert seen.total() == ATTEMPTS
    assert counts(engine) == seen


def test_a_crash_amid_blocked_moves_counts_none_too_few_and_at_most_one_more_a_connection(
    server: CrashServer, engine: sa.Engine
) -> None:
    """The error of a move that is counted may be on its way; nobody has seen an error that is not counted."""
    guarded(engine)
    before: Counter[Pair] = Counter()
    for _ in range(3):
        with ThreadPoolExecutor(CLIENTS) as pool:
            done, seen = start_clients(pool, engine, lambda attempt: True)
            while all_of(seen).total() < 100 and not any(each.done() for each in done):
                threading.Event().wait(0.001)
            server.kill()
            for each in done:
                each.result()
        server.start()
        counted = counts(engine)
        new, total = counted - before, all_of(seen)
        assert all(new[pair] >= total[pair] for pair in ILLEGAL), (new, total)
        assert new.total() <= total.total() + CLIENTS
        before = counted


@pytest.mark.parametrize("mode", ["raise", "skip"])
def test_a_clean_restart_changes_no_count(server: CrashServer, engine: sa.Engine, mode: OnIllegal) -> None:
    guarded(engine, mode)
    make_all(engine)
    server.stop()
    server.start()
    assert counts(engine) == dict.fromkeys(ILLEGAL, ATTEMPTS // len(ILLEGAL))


def test_after_a_crash_a_count_of_skipped_moves_is_at_most_32_too_high(server: CrashServer, engine: sa.Engine) -> None:
    """In "skip" nothing waits for the disk: PostgreSQL has written ahead what it may give out."""
    guarded(engine, "skip")
    try_illegal(engine, 0, lambda attempt: attempt < ATTEMPTS, Counter())
    server.kill()
    server.start()
    made = ATTEMPTS // len(ILLEGAL)
    assert all(made <= counts(engine)[pair] <= made + AHEAD for pair in ILLEGAL)


def test_a_crash_of_a_server_before_17_never_counts_too_much(
    older_server: CrashServer, older_engine: sa.Engine
) -> None:
    """It has nothing that makes a refused statement wait for the disk: what was counted last may be lost."""
    guarded(older_engine)
    seen = make_all(older_engine)
    older_server.kill()
    older_server.start()
    assert all(counts(older_engine)[pair] <= seen[pair] for pair in ILLEGAL)
