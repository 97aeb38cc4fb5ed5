"""The sum over ledger and database counters is the number of blocked moves: over processes, and after kills."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from statekit import counts, ledger
from statekit.trigger import StateTrigger
from tests.guards.inbox import TABLE
from tests.ledger.books import entries, inbox
from tests.ledger.worker import ROWS

PROCESSES = 8
ROOT = Path(__file__).parents[2]


def start(engine: sa.Engine, seed: int, transactions: int) -> subprocess.Popen[str]:
    url = engine.url.render_as_string(hide_password=False)
    arguments = [url, str(seed), str(transactions), "trigger" if engine.dialect.name == "postgresql" else "none"]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.worker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def filled(engine: sa.Engine) -> Any:
    message = inbox(engine, *["PROMOTED"] * ROWS)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            for statement in StateTrigger("message", "status", TABLE, initial=None).create_sql("postgresql"):
                connection.exec_driver_sql(statement)
    return message


def in_ledger_by_process(engine: sa.Engine) -> Counter[int]:
    total: Counter[int] = Counter()
    for kind, process, number in entries(engine, "kind", "process", "number"):
        if kind in ("blocked", "trigger"):  # what the trigger has counted is here too, by process
            total[process] += number
    return total


def test_with_eight_processes_at_once(engine: sa.Engine) -> None:
    message = filled(engine)
    transactions = 10 if engine.dialect.name == "sqlite" else 25
    workers = [start(engine, seed, transactions) for seed in range(PROCESSES)]
    told = 0
    for worker in workers:
        out, err = worker.communicate(timeout=240)
        assert worker.returncode == 0, err
        *_, last, _ = out.splitlines()
        told += int(last)
    assert told >= PROCESSES * transactions
    assert sum(counts(message.status, engine).values()) == told


def test_where_processes_are_killed_in_the_middle(postgres_engine: sa.Engine) -> None:
    message = filled(postgres_engine)
    chance = random.Random(11)
    workers = [start(postgres_engine, seed, 100_000) for seed in range(PROCESSES)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    told: dict[int, int] = {}
    for worker in workers:
        time.sleep(chance.uniform(0.05, 0.4))
        worker.send_signal(signal.SIGKILL)
        out, _ = worker.communicate(timeout=60)
        lines = [line for line in out.splitlines(keepends=True) if line.endswith("\n")]
        told[worker.pid] = int(lines[-1]) if lines else 0
    kept = in_ledger_by_process(postgres_engine)
    assert sum(told.values()) > 2 * PROCESSES
    for pid, number in told.items():
        # One transaction may have ended, or its entry been written, before its line was: five rows at most.
        assert number <= kept[pid] <= number + 5
    by_trigger = sum(n for kind, n in entries(postgres_engine, "kind", "number") if kind == "trigger")
    total = sum(counts(message.status, postgres_engine).values())
    # A trigger counts before the process hears of it.
    assert sum(kept.values()) <= total <= sum(kept.values()) + PROCESSES
    assert by_trigger > 0


def test_a_ledger_that_is_pruned_counts_as_before(engine: sa.Engine) -> None:
    message = filled(engine)
    worker = start(engine, 1, 5)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    before = counts(message.status, engine)
    with engine.connect() as connection:
        assert ledger.prune(connection, older_than=ledger.KEPT * 0) > 0
    assert entries(engine, "id") == []
    assert counts(message.status, engine) == before
