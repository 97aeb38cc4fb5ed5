"""Several worker processes: a scrape over HTTP shows the exact sum of them, whatever became of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import sqlalchemy as sa

from tests.guards.inbox import fill, message_class
from tests.metrics.moving import Row
from tests.metrics.test_prometheus import samples
from tests.metrics.worker import ROUNDS

ROOT = Path(__file__).parents[2]
WORKERS, ROWS = 4, 20
"""Each worker has as many rows, and every second one is PROMOTED."""

BLOCKED: Row = ("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", "Spam capture")
ALLOWED: Row = ("allowed", "Message", "status", "READY", "SPAM_REVIEW", "Spam capture")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    return folder


@pytest.fixture
def scrape_url(folder: Path) -> Iterator[str]:
    server = start(folder, "serve", stdin=subprocess.PIPE)
    assert server.stdout is not None
    yield f"http://127.0.0.1:{int(server.stdout.readline())}/metrics"
    server.communicate(timeout=30)
    assert server.returncode == 0


def start(folder: Path | None, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | ({} if folder is None else {"PROMETHEUS_MULTIPROC_DIR": str(folder)})
    return subprocess.Popen(
        [sys.executable, "-W", "error::DeprecationWarning:tests", "-m", "tests.metrics.worker", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def lines(process: subprocess.Popen[str]) -> list[Any]:
    """Return what a process has told, once it has ended."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def scraped(url: str) -> dict[Row, float]:
    with urlopen(url, timeout=30) as answer:
        return samples(answer.read().decode())


def url_of(engine: sa.Engine, rows: int) -> str:
    """Return the URL of a database with so many messages, every second one of them PROMOTED."""
    fill(engine, message_class(), *["READY", "PROMOTED"] * (rows // 2))
    return engine.url.render_as_string(hide_password=False)


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_a_scrape_is_the_sum_of_all_workers(engine: sa.Engine, folder: Path, scrape_url: str) -> None:
    url = url_of(engine, WORKERS * ROWS)
    processes = [
        start(folder, "with_prometheus", url, worker * ROWS + 1, (worker + 1) * ROWS) for worker in range(WORKERS)
    ]
    told = [counted for process in processes for counted in lines(process)]
    assert told == [{"blocked": ROUNDS * ROWS // 2, "allowed": ROWS // 2}] * WORKERS
    assert scraped(scrape_url) == {BLOCKED: WORKERS * ROUNDS * ROWS // 2, ALLOWED: WORKERS * ROWS // 2}


def test_a_scrape_sees_workers_that_were_forked_and_killed(
    sqlite_engine: sa.Engine, folder: Path, scrape_url: str
) -> None:
    url = url_of(sqlite_engine, ROWS)
    [told] = lines(start(folder, "forking", url, 1, ROWS))
    assert told == {"blocked": 2 * ROUNDS * ROWS // 2}  # of the first process alone
    assert scraped(scrape_url) == {BLOCKED: 5 * ROUNDS * ROWS // 2, ALLOWED: ROWS // 2}


def test_registering_again_in_a_worker_goes_on_where_it_was(
    sqlite_engine: sa.Engine, folder: Path, scrape_url: str
) -> None:
    url = url_of(sqlite_engine, ROWS)
    lines(start(folder, "ending", url, 1, ROWS))
    assert scraped(scrape_url) == {BLOCKED: 2 * ROUNDS * ROWS // 2, ALLOWED: ROWS // 2}


def test_opentelemetry_counts_in_each_forked_worker_what_that_one_did(sqlite_engine: sa.Engine) -> None:
    url = url_of(sqlite_engine, ROWS)
    told = lines(start(None, "with_opentelemetry", url, 1, ROWS))
    blocked = [*BLOCKED, ROUNDS * ROWS // 2]
    assert [sorted(each) for each in told] == [sorted([blocked, [*ALLOWED, ROWS // 2]]), [blocked], [blocked]]


def test_a_worker_whose_folder_is_missing_says_so_at_once(tmp_path: Path) -> None:
    process = start(tmp_path / "gone", "with_prometheus", "sqlite://", 1, 1)
    _, errors = process.communicate(timeout=60)
    assert "StatekitError: PROMETHEUS_MULTIPROC_DIR=" in errors
    assert "is no folder" in errors


def test_a_registry_that_reads_all_files_shows_each_counter_once(sqlite_engine: sa.Engine, folder: Path) -> None:
    """In multi-process mode no registry holds the counters, so that they may be registered on that one by mistake."""
    script = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "from statekit.metrics.prometheus import register\n"
        "from tests.metrics.worker import work\n"
        "registry = CollectorRegistry()\n"
        "MultiProcessCollector(registry)\n"
        "register(registry)\n"
        f"work({url_of(sqlite_engine, ROWS)!r}, 1, {ROWS})\n"
        "print(generate_latest(registry).decode())"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert samples(done.stdout) == {BLOCKED: ROUNDS * ROWS // 2, ALLOWED: ROWS // 2}
