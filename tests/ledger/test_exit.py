"""What waits for the ledger when a process ends, or is forked, is written once."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.ledger.books import BLOCKED, entries, inbox, moves
from tests.support.databases import Databases, execute, on_postgresql

ROOT = Path(__file__).parents[2]
MOVE = ("PROMOTED", "SPAM_REVIEW")


def start(url: sa.URL, what: str) -> subprocess.Popen[str]:
    arguments = [url.render_as_string(hide_password=False), what]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.leaver", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended(process: subprocess.Popen[str], said: str = "") -> str:
    """Let a process end, and return what it has written to its standard error."""
    _, error = process.communicate(said, timeout=60)
    return error


@contextmanager
def reachable(url: sa.URL) -> Iterator[sa.URL]:
    """Have a server that may answer on a socket in a folder only answer to "localhost" too, and return that URL."""
    folder = url.query.get("host")
    if not isinstance(folder, str):
        yield url
        return

    def copy(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    class Between(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as inner, ThreadPoolExecutor(1) as pool:
                inner.connect(f"{folder}/.s.PGSQL.{url.port or 5432}")
                pool.submit(copy, self.request, inner)
                copy(inner, self.request)

    with socketserver.ThreadingTCPServer(("localhost", 0), Between) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield url.difference_update_query(["host"]).set(host="localhost", port=server.server_address[1])
        server.shutdown()


class TestAProcessThatEnds:
    def test_writes_what_waits_for_a_transaction_that_nobody_has_ended(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        assert ended(start(engine.url, "leave_open")).count("\n") == 1, "the blocked move, and nothing else"
        assert moves(engine) == BLOCKED

    def test_writes_it_where_it_is_made_to_exit(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        process = start(engine.url, "end_by_exit")
        ended(process)
        assert process.returncode == 3
        assert moves(engine) == BLOCKED

    def test_writes_it_where_an_error_ends_it(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        process = start(engine.url, "end_by_error")
        assert "which ends the process" in ended(process)
        assert process.returncode == 1
        assert moves(engine) == BLOCKED

    def test_writes_it_where_it_had_an_event_loop(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        inbox(engine, "PROMOTED")
        process = start(async_engine.url, "")
        error = ended(process)
        assert process.returncode == 0, error
        assert moves(engine) == BLOCKED

    @pytest.mark.parametrize("backend", ["psycopg", "asyncpg", "psycopg_async"])
    def test_writes_it_over_a_network_too(self, databases: Databases, backend: str) -> None:
        engine = databases.engine("psycopg")
        inbox(engine, "PROMOTED")
        with reachable(databases.url(backend)) as url:
            process = start(url, "leave_open")
            error = ended(process)
        assert process.returncode == 0, error
        assert moves(engine) == BLOCKED

    def test_writes_what_could_not_be_written_before(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        execute(engine, "ALTER TABLE statekit_ledger RENAME TO elsewhere")
        process = start(engine.url, "end_while_nothing_can_be_written")
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        execute(engine, "ALTER TABLE elsewhere RENAME TO statekit_ledger")
        ended(process, "\n")
        assert moves(engine) == BLOCKED

    def test_says_what_it_could_not_write(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        execute(engine, "DROP TABLE statekit_ledger")
        process = start(engine.url, "end_while_nothing_can_be_written")
        error = ended(process, "\n")
        assert process.returncode == 0
        assert "The process ends, and 1 moves could not be written to the ledger: PROMOTED → SPAM_REVIEW: 1" in error

    def test_waits_for_somebody_who_has_the_ledger_for_a_while(self, engine: sa.Engine) -> None:
        inbox(engine, "PROMOTED")
        execute(engine, "ALTER TABLE statekit_ledger RENAME TO elsewhere")
        process = start(engine.url, "end_while_nothing_can_be_written")
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "waits\n"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO statekit_ledger")
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql("LOCK TABLE statekit_ledger IN ACCESS EXCLUSIVE MODE")
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            process.stdin.write("\n")
            process.stdin.flush()
            threading.Event().wait(1)
            connection.exec_driver_sql("COMMIT")
        ended(process)
        assert moves(engine) == BLOCKED


class TestAFork:
    """The child writes what is its own, and the parent what is its own, once each."""

    def is_written_once_each(self, engine: sa.Engine, what: str, *, is_broken: bool) -> None:
        inbox(engine, "PROMOTED", "PROMOTED")
        if is_broken:
            execute(engine, "ALTER TABLE statekit_ledger RENAME TO elsewhere")
        process = start(engine.url, what)
        if is_broken:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            execute(engine, "ALTER TABLE elsewhere RENAME TO statekit_ledger")
        error = ended(process, "\n")
        numbers = Counter(entries(engine, "process"))
        assert moves(engine) == Counter({MOVE: 2}), error
        assert sorted(numbers.values()) == [1, 1]
        assert numbers[process.pid] == 1

    @on_postgresql
    def test_while_a_transaction_is_open(self, engine: sa.Engine) -> None:
        self.is_written_once_each(engine, "fork_with_open_transaction", is_broken=False)

    def test_while_nothing_can_be_written(self, engine: sa.Engine) -> None:
        self.is_written_once_each(engine, "fork_while_nothing_can_be_written", is_broken=True)

    def test_of_multiprocessing(self, engine: sa.Engine) -> None:
        self.is_written_once_each(engine, "fork_by_multiprocessing", is_broken=True)
