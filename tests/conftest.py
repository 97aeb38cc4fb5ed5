"""Fixtures that every test may use: databases on every driver, and the profiles of Hypothesis. See tests/README.md."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

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


# --- one PostgreSQL server for the run --------------------------------------------------------------------------------

_server = pytest.StashKey[Server]()


def _start(config: pytest.Config) -> Server:
    if _server not in config.stash:
        config.stash[_server] = Server.start()
    return config.stash[_server]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Under pytest-xdist, start the server before the workers and tell them where it is: one for all of them."""
    try:
        server = _start(node.config)  # type: ignore[attr-defined]
    except Unavailable:
        return
    node.workerinput["postgres_url"] = server.url.render_as_string(hide_password=False)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _server in config.stash:
        config.stash[_server].stop()
        del config.stash[_server]


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Server:
    """Return the PostgreSQL server of this run, started when the first test asks for it."""
    config = request.config
    if hasattr(config, "workerinput") and "postgres_url" in config.workerinput:
        config.stash[_server] = Server(config.workerinput["postgres_url"])
    try:
        return _start(config)
    except Unavailable as error:
        _skip(config, str(error))
        raise


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """Return the maker of this test's engines, for tests that need several on one database or options of their own."""
    databases = Databases(tmp_path, lambda: request.getfixturevalue("postgres"))
    yield databases
    databases.close()


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
