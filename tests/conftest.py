"""Fixtures that every test may use: databases on every driver, and the profiles of Hypothesis. See tests/README.md."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase

from tests.support.browser import browser as browser
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, missing_driver
from tests.support.postgres import Server, Unavailable

# --- Hypothesis -----------------------------------------------------------------------------------------------------

for _profile, _examples in {"quick": 10, "default": 100, "ci": 200, "thorough": 2_000}.items():
    hypothesis.settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,  # a database's first statement takes longer than all later ones
        print_blob=True,
        derandomize=False,  # also where Hypothesis sees that it runs in CI
        # A database is made once a test, for all of its examples; they clear it with `empty`.
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_EXAMPLES = "hypothesis_examples"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and (statistics := getattr(item, "hypothesis_statistics", None)):
        counted = re.findall(r"(\d+) passing, (\d+) failing", statistics)
        report.user_properties.append((_EXAMPLES, sum(int(n) for pair in counted for n in pair)))
    return report


@pytest.fixture(autouse=True)
def _no_line_is_left_out_by_another_test() -> Iterator[None]:
    """Forget what a test has left out of the log: the next one is not to be told, nor whoever ran the tests."""
    yield
    if (log := sys.modules.get("statekit.observe.log")) is not None:
        log._windows.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "user_properties"))
    total = sum(value for report in reports for name, value in report.user_properties if name == _EXAMPLES)
    if total:
        terminalreporter.write_line(f"Hypothesis ran {total:,} examples.")


def pytest_report_header() -> str:
    packages = ("SQLAlchemy", "alembic", "transitions", "psycopg", "psycopg2-binary", "asyncpg", "aiosqlite")
    return "with: " + ", ".join(f"{p} {version(p)}" for p in packages if _is_distribution(p))


def _is_distribution(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


# --- which backends ---------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("statekit")
    group.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        choices=[*SYNC_BACKENDS, *ASYNC_BACKENDS],
        help="run the tests that take an engine on this backend only; may be given several times",
    )
    group.addoption(
        "--require-backends",
        action="store_true",
        help="a driver or server that is missing is a failure, and not a skipped test",
    )
    group.addoption(
        "--require-browser",
        action="store_true",
        help="a browser that is missing is a failure, and not a skipped test",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (chosen := config.getoption("--backend")):
        return
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        backends = {parameters[name] for name in ("engine", "async_engine") if name in parameters}
        (kept if backends <= set(chosen) else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def _skip(config: pytest.Config, reason: str) -> None:
    (pytest.fail if config.getoption("--require-backends") else pytest.skip)(reason)


# --- one PostgreSQL server for the run, and one of an older version if the machine has it -----------------------------

_servers = pytest.StashKey[dict[str, Server]]()
_START: dict[str, Callable[[], Server]] = {"postgres_url": Server.start, "older_postgres_url": Server.start_older}


def _start(config: pytest.Config, which: str) -> Server:
    started = config.stash.setdefault(_servers, {})
    if which not in started:
        told: dict[str, str] = getattr(config, "workerinput", {})
        started[which] = Server(told[which]) if which in told else _START[which]()
    return started[which]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Under pytest-xdist, start the servers before the workers and tell them where they are: one for all of them."""
    for which in _START:
        with contextlib.suppress(Unavailable):
            server = _start(node.config, which)  # type: ignore[attr-defined]
            node.workerinput[which] = server.url.render_as_string(hide_password=False)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in config.stash.get(_servers, {}).values():
        server.stop()
    if _servers in config.stash:
        del config.stash[_servers]


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Server:
    """Return the PostgreSQL server of this run, started when the first test asks for it."""
    try:
        return _start(request.config, "postgres_url")
    except Unavailable as error:
        _skip(request.config, str(error))
        raise


@pytest.fixture(scope="session")
def older_postgres(request: pytest.FixtureRequest) -> Server:
    """Return a server of an older PostgreSQL. A machine need not have one: then the test is skipped in any case."""
    try:
        return _start(request.config, "older_postgres_url")
    except Unavailable as error:
        pytest.skip(str(error))


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """Return the maker of this test's engines, for tests that need several on one database or options of their own."""
    databases = Databases(tmp_path, lambda: request.getfixturevalue("postgres"))
    yield databases
    databases.close()


@pytest.fixture
def older_databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """Return the maker of this test's engines on the older PostgreSQL, for the test to name a driver."""
    server = request.getfixturevalue("older_postgres")
    databases = Databases(tmp_path, lambda: server)
    yield databases
    databases.close()


@pytest.fixture
def older_engine(request: pytest.FixtureRequest, older_databases: Databases) -> sa.Engine:
    """Return an engine on a fresh database of the older PostgreSQL through psycopg."""
    if reason := missing_driver("psycopg"):
        _skip(request.config, reason)
    return older_databases.engine("psycopg")


@pytest.fixture(params=["postgres", "older"])
def each_postgres(request: pytest.FixtureRequest) -> sa.Engine:
    """Return an engine on a fresh database through psycopg, on the run's PostgreSQL and on the older one in turn."""
    name = "postgres_engine" if request.param == "postgres" else "older_engine"
    engine: sa.Engine = request.getfixturevalue(name)
    return engine


@pytest.fixture
def base() -> Iterator[Any]:
    """Return a declarative base of the test's own, which goes with it."""

    class Base(DeclarativeBase):
        pass

    yield Base
    Base.registry.dispose()


@pytest.fixture(params=SYNC_BACKENDS)
def engine(request: pytest.FixtureRequest, databases: Databases) -> sa.Engine:
    """Return an engine on a fresh database, on each of the sync backends in turn."""
    return databases.engine(_usable(request))


@pytest.fixture(params=ASYNC_BACKENDS)
def async_engine(request: pytest.FixtureRequest, databases: Databases) -> AsyncEngine:
    """Return an async engine on a fresh database, on each of the async backends in turn."""
    return databases.async_engine(_usable(request))


@pytest.fixture
def sqlite_engine(databases: Databases) -> sa.Engine:
    """Return an engine on a fresh SQLite file, which threads may share."""
    return databases.engine("sqlite")


@pytest.fixture
def memory_engine(databases: Databases) -> sa.Engine:
    """Return an engine on SQLite in memory, with one connection: the cheapest, for tests of one session."""
    return databases.engine("memory")


@pytest.fixture
def postgres_engine(request: pytest.FixtureRequest, databases: Databases) -> sa.Engine:
    """Return an engine on a fresh PostgreSQL database through psycopg."""
    if reason := missing_driver("psycopg"):
        _skip(request.config, reason)
    return databases.engine("psycopg")


def _usable(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    if reason := missing_driver(backend):
        _skip(request.config, reason)
    return backend
