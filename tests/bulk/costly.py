"""Rows that take time to move: a trigger of the test's own makes the database wait for each."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa

on_both = pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
"""Decorator for a test that takes time, and to which the driver makes no difference."""

on_psycopg = pytest.mark.parametrize("engine", ["psycopg"], indirect=True)
"""The same, where it is about locks."""

unhurried = pytest.mark.usefixtures("unhurried")
"""Mark of a test that counts on batches of 10, 20, 40, … rows, however slow the machine is."""


def make_costly(engine: sa.Engine, seconds: float, *, jump_at: int = 0, factor: float = 1) -> None:
    """Have each move of a row of the table message take some time.

    Args:
        engine: of the database; on SQLite, only its connections know what to do then.
        seconds: how long.
        jump_at: after how many rows it takes ``factor`` times as long; 0 for never.
        factor: see there.
    """
    if engine.dialect.name == "sqlite":
        _make_costly_sqlite(engine, seconds, jump_at, factor)
        return
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE moved_rows")
        connection.exec_driver_sql(
            "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"PERFORM pg_sleep(CASE WHEN {jump_at} > 0 AND nextval('moved_rows') > {jump_at} "
            f"THEN {seconds * factor} ELSE {seconds} END); RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER takes_time BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION take_time()"
        )


def _make_costly_sqlite(engine: sa.Engine, seconds: float, jump_at: int, factor: float) -> None:
    moved = 0

    def take_time() -> int:
        nonlocal moved
        moved += 1
        time.sleep(seconds * factor if 0 < jump_at < moved else seconds)
        return 1

    def know_it(connection: Any, record: Any) -> None:
        connection.create_function("take_time", 0, take_time)

    sa.event.listen(engine, "connect", know_it)
    engine.dispose()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER takes_time BEFORE UPDATE OF status ON message FOR EACH ROW "
            "WHEN OLD.status IS NOT NEW.status BEGIN SELECT take_time(); END"
        )


def make_endless(engine: sa.Engine) -> None:
    """Have each move of a row take longer than anybody waits; the table has some hundred rows."""
    many = "SELECT count(*) FROM message a, message b, message c, message d"
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(f"CREATE TRIGGER endless AFTER UPDATE OF status ON message BEGIN {many}; END")
            return
        connection.exec_driver_sql(
            "CREATE FUNCTION endless() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM ({many}); RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER endless BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION endless()"
        )
