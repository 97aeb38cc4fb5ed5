"""How long writers wait while a trigger is made on their table, and one transaction on it stays open for 3 seconds."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.benchmarks.measure import note, show_time
from tests.support.postgres import Server, Unavailable, installed

WRITERS = 4
OPEN = 3.0
"""Seconds for which the one transaction stays open; the migration comes a tenth after its start."""
MOVES = [("READY", "PROMOTED"), ("PROMOTED", "READY")]
UPDATE = "UPDATE message SET status = CASE status WHEN 'READY' THEN 'PROMOTED' ELSE 'READY' END WHERE id = %s"
NAIVE = (
    "CREATE OR REPLACE FUNCTION naive() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE OR REPLACE TRIGGER naive AFTER UPDATE ON message FOR EACH ROW"
    " WHEN (OLD.status <> NEW.status AND NEW.status = 'NEVER') EXECUTE FUNCTION naive()",
)


def migrations() -> dict[str, tuple[Iterable[str], Iterable[str]]]:
    """Return what stands in the database before, and what the migration executes, by the name of the migration."""
    from statekit.trigger import StateTrigger

    rule = StateTrigger("message", "status", MOVES, initial=["READY"])
    wider = StateTrigger("message", "status", [*MOVES, ("PROMOTED", "COMPLETED")], initial=["READY"])
    inline = StateTrigger("message", "status", MOVES, initial=["READY"], inline=True)
    create = rule.create_sql("postgresql")
    return {
        "no migration": ((), ()),
        "CREATE OR REPLACE TRIGGER alone": ((), NAIVE),
        "a first installation": ((), create),
        "a rule that changes": (create, wider.replace_sql(rule, "postgresql")),
        "a form that changes": (create, inline.replace_sql(rule, "postgresql")),
        "a removal": (create, rule.drop_sql("postgresql")),
    }


def run(times: int) -> None:
    """Show for each migration the longest wait of a writer, and how long it took itself."""
    if not installed("psycopg"):
        note("the package psycopg is not installed")
        return
    try:
        server = Server.start()
    except Unavailable as error:
        note(str(error))
        return
    try:
        url = server.create_database().render_as_string(hide_password=False)
        for name, (before, statements) in migrations().items():
            runs = [_once(url, before, statements) for _ in range(times)]
            waits = [wait for wait, _ in runs]
            took = show_time(statistics.median(seconds for _, seconds in runs)) if statements else ""
            longest = f"{show_time(statistics.median(waits))}, the worst {show_time(max(waits))}"
            print(
                f"{name:<34} a writer's longest wait {longest:<32} {took and f'migration {took}'}".rstrip(), flush=True
            )
    finally:
        server.stop()


def _once(url: str, before: Iterable[str], statements: Iterable[str]) -> tuple[float, float]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DROP TABLE IF EXISTS message")
        owner.execute("DROP SCHEMA IF EXISTS statekit CASCADE")
        owner.execute("CREATE TABLE message (id integer PRIMARY KEY, status text NOT NULL)")
        owner.execute(f"INSERT INTO message SELECT n, 'READY' FROM generate_series(0, {WRITERS}) n")
        for statement in before:
            owner.execute(statement)
    ended = threading.Event()
    longest = [0.0] * WRITERS
    took = [0.0]

    def write(number: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.is_set():
                start = time.perf_counter()
                connection.execute(UPDATE, (number + 1,))
                longest[number] = max(longest[number], time.perf_counter() - start)
                time.sleep(0.001)

    def migrate() -> None:
        start = time.perf_counter()
        with psycopg.connect(url) as connection:
            for statement in statements:
                connection.execute(statement)
        took[0] = time.perf_counter() - start

    threads: list[Any] = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    with psycopg.connect(url) as long_open:
        long_open.execute("UPDATE message SET status = 'PROMOTED' WHERE id = 0")
        time.sleep(OPEN / 10)
        migration = threading.Thread(target=migrate)
        migration.start()
        time.sleep(OPEN * 9 / 10)
    migration.join()
    time.sleep(0.2)
    ended.set()
    for thread in threads:
        thread.join()
    return max(longest), took[0]
