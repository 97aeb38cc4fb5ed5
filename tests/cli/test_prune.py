"""statekit prune: what is old goes, and what it amounts to stays."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
import sqlalchemy as sa

from statekit import StatekitError, ledger
from statekit.ledger import prune as prune_ledger
from statekit.ledger.retention import prune_history
from tests.cli.books import answer, days_ago, enter, lines, make, sync_engine, write_history
from tests.cli.conftest import Project
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases


def number(engine: sa.Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0)


def left(engine: sa.Engine) -> list[tuple[str, str | None]]:
    """Return key and target of what the history still has."""
    table = ledger.add_to(sa.MetaData()).history
    with engine.connect() as connection:
        found = connection.execute(sa.select(table.c.key, table.c.target).order_by(table.c.id)).all()
    return [(row.key, row.target) for row in found]  # with one part, every database writes the key alike


@pytest.fixture
def old(engine: sa.Engine) -> sa.Engine:
    """Return a database with 2 entries of 100 days and one of today, and the history of two rows."""
    make(engine)
    for entries in ({"days": 100, "operation": "a"}, {"days": 100, "operation": "b"}, {}):
        enter(engine, 3, **entries)  # type: ignore[arg-type]
    write_history(engine, 1, 2, pair=("READY", "READY"), new=True, days=100)
    write_history(engine, 1, days=50)
    write_history(engine, 1, pair=("PROMOTED", "COMPLETED"), days=40)
    return engine


def test_entries_of_more_than_90_days_go_unless_told(project: Project, old: sa.Engine) -> None:
    (said,) = lines(project, old, 0, "prune")
    assert said.startswith("2 entries older than 90 days (before ")
    assert said.endswith("Z) removed; their sums stay.")
    assert number(old, "statekit_ledger") == 1


def test_the_counts_are_as_before(project: Project, old: sa.Engine) -> None:
    before = answer(project, old, 0, "counts")
    lines(project, old, 0, "prune")
    assert answer(project, old, 0, "counts") == before
    assert before["ledger"] == 9


def test_the_age_may_be_chosen(project: Project, old: sa.Engine) -> None:
    assert answer(project, old, 0, "prune", "--older-than", "14w 3d")["entries"] == 0
    assert answer(project, old, 0, "prune", "--older-than", "14w 1d")["entries"] == 2


def test_the_history_stays_unless_asked_for(project: Project, old: sa.Engine) -> None:
    assert answer(project, old, 0, "prune")["history"] is None
    assert number(old, "statekit_history") == 4


def test_of_the_history_the_latest_move_of_each_row_stays(project: Project, old: sa.Engine) -> None:
    said = lines(project, old, 0, "prune", "--history-older-than", "30d")
    assert said[1].startswith("2 rows of the history older than 30 days (before ")
    assert said[1].endswith("Z) removed; the latest move of each row stays.")
    assert left(old) == [('["2"]', "READY"), ('["1"]', "COMPLETED")]


def test_of_the_history_only_what_is_old_goes(project: Project, old: sa.Engine) -> None:
    assert answer(project, old, 0, "prune", "--history-older-than", "60d")["history"] == 1
    assert left(old) == [('["2"]', "READY"), ('["1"]', "PROMOTED"), ('["1"]', "COMPLETED")]


def test_another_column_of_the_same_row_is_another_history(project: Project, engine: sa.Engine) -> None:
    make(engine)
    write_history(engine, 1, days=100)
    write_history(engine, 1, days=50, column_name="payment")
    assert answer(project, engine, 0, "prune", "--history-older-than", "1d")["history"] == 0


def test_a_dry_run_says_what_would_go_and_removes_nothing(project: Project, old: sa.Engine) -> None:
    options = ["--dry-run", "--history-older-than", "30d"]
    data = answer(project, old, 0, "prune", *options)
    assert (data["dry_run"], data["entries"], data["history"]) == (True, 2, 2)
    assert "2 entries" in lines(project, old, 0, "prune", *options)[0]
    assert "would be removed" in lines(project, old, 0, "prune", *options)[0]
    assert (number(old, "statekit_ledger"), number(old, "statekit_history")) == (3, 4)


def test_many_rows_of_the_history_go_in_chunks(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # By its module: the package has a function of that name.
    monkeypatch.setattr(sys.modules["statekit.ledger.retention"], "_CHUNK", 2)
    make(engine)
    for days in range(7, 0, -1):
        write_history(engine, 1, 2, days=days)
    with engine.connect() as connection:
        assert prune_history(connection, older_than=dt.timedelta(0)) == 12
    assert len(left(engine)) == 2


def test_a_connection_in_a_transaction_is_refused(engine: sa.Engine) -> None:
    make(engine)
    with engine.begin() as connection, pytest.raises(StatekitError, match=r"prune_history\(\) commits after each"):
        prune_history(connection, older_than=dt.timedelta(0))


def test_a_negative_age_is_refused(engine: sa.Engine) -> None:
    with engine.connect() as connection, pytest.raises(StatekitError, match="a negative age"):
        prune_ledger(connection, older_than=dt.timedelta(-1))


@pytest.mark.parametrize("age", ["-1d", "90", "ten days", "1e3d"])
def test_what_is_no_age_is_refused(project: Project, sqlite_engine: sa.Engine, age: str) -> None:
    make(sqlite_engine)
    result = project.run("prune", "--url", sqlite_engine.url, f"--older-than={age}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{age!r} is no length of time; allowed are weeks, days" in result.stderr


@pytest.mark.parametrize("table", ["statekit_ledger", "statekit_history"])
def test_without_its_table_it_can_do_nothing(project: Project, engine: sa.Engine, table: str) -> None:
    make(engine)
    enter(engine, days=100)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    result = project.run("prune", "--url", engine.url, "--history-older-than", "1d")
    assert (result.exit_code, f"there is no ledger (no table {table})" in result.stderr) == (2, True)
    if table == "statekit_history":
        assert number(engine, "statekit_ledger") == 1


@pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
def test_every_driver_will_do(project: Project, databases: Databases, backend: str) -> None:
    engine = sync_engine(databases, backend)
    make(engine)
    enter(engine, days=100)
    write_history(engine, 1, days=3)
    write_history(engine, 1, days=2)
    data = answer(project, databases.url(backend), 0, "prune", "--history-older-than", "1d")
    assert (data["entries"], data["history"]) == (1, 1)
    assert number(engine, "statekit_ledger") == 0


def test_the_json_says_before_when(project: Project, engine: sa.Engine) -> None:
    make(engine)
    data = answer(project, engine, 0, "prune", "--older-than", "2d")
    moment = dt.datetime.fromisoformat(data["before"])
    assert abs(moment - days_ago(2)) < dt.timedelta(minutes=30)
    assert data["history_before"] is None


def test_the_age_unless_told_is_that_of_python(project: Project, engine: sa.Engine) -> None:
    make(engine)
    moment = dt.datetime.fromisoformat(answer(project, engine, 0, "prune")["before"])
    assert abs(moment - (days_ago(0) - ledger.KEPT)) < dt.timedelta(minutes=30)


def test_an_age_of_thousands_of_years_is_refused(project: Project, sqlite_engine: sa.Engine) -> None:
    make(sqlite_engine)
    result = project.run("prune", "--url", sqlite_engine.url, "--older-than", "99999999d")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'99999999d' is too long; the longest is 365000d." in result.stderr
