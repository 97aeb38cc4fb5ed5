"""What has gone wrong once: sessions that read elsewhere, keys that change, limits that stay."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, aliased, mapped_column, sessionmaker

import statekit
from statekit import StatekitError, bulk, guard, ledger, transition_all
from tests.bulk.costly import make_costly, on_both, on_psycopg
from tests.guards.inbox import TABLE, new_base, stored, unguarded
from tests.ledger.books import attached, inbox
from tests.support.databases import Databases, all_sync_backends

SHORT = dt.timedelta(seconds=2)


def test_a_session_that_reads_elsewhere_reads_where_it_writes(databases: Databases, tmp_path: Any) -> None:
    """The recipe of SQLAlchemy's documentation for a primary and its replicas."""
    primary = databases.engine("sqlite")
    replica = sa.create_engine(f"sqlite:///{tmp_path}/replica.db")
    message = inbox(primary, *["READY"] * 12)
    message.metadata.create_all(replica)
    with replica.begin() as connection:
        rows = [{"id": n, "status": "READY", "subject": "lost"} for n in range(1, 9)]
        connection.execute(sa.insert(unguarded(message)), rows)

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            return primary if isinstance(clause, sa.Update | sa.Delete | sa.Insert) or self._flushing else replica

    result = transition_all(
        sessionmaker(class_=Routing), message.status, "SPAM_REVIEW", where=message.subject == "lost"
    )
    assert (result.done, result.total) == (0, 0)
    assert set(stored(primary, message)) == {"READY"}
    replica.dispose()


def test_a_session_over_several_databases_is_refused(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY")
    choosers: Any = dict.fromkeys(("shard_chooser", "identity_chooser", "execute_chooser"), lambda *_, **__: ["a"])
    maker = sessionmaker(class_=ShardedSession, shards={"a": memory_engine}, **choosers)
    with pytest.raises(StatekitError, match="Give the Engine of a shard"):
        transition_all(maker, message.status, "SPAM_REVIEW")


@on_both
def test_a_condition_that_takes_some_of_the_rows_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    other = aliased(message)
    for some in (sa.select(message.id).limit(5), sa.select(other.id).order_by(other.id).limit(5)):
        with pytest.raises(StatekitError, match="SELECT of message with a LIMIT"):
            transition_all(engine, message.status, "SPAM_REVIEW", where=message.id.in_(some))
    assert set(stored(engine, message)) == {"READY"}


@on_both
def test_a_limit_for_each_row_is_no_such_condition(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    other = aliased(message)
    latest = sa.select(other.id).where(other.id == message.id).limit(1).scalar_subquery()
    assert transition_all(engine, message.status, "SPAM_REVIEW", where=latest == message.id).done == 20


@on_both
def test_a_commit_that_has_to_wait_does_not_outlast_the_budget(engine: sa.Engine) -> None:
    """On SQLite, whoever reads keeps a commit waiting, for 30 seconds with this engine."""
    message = inbox(engine, *["READY"] * 20)
    begun = bulk.prepare(engine, message.status, "SPAM_REVIEW")
    with engine.connect() as reader:
        reader.exec_driver_sql("BEGIN" if engine.dialect.name == "sqlite" else "SELECT 1")
        reader.exec_driver_sql("SELECT * FROM message").all()
        start = time.monotonic()
        result = transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job, budget=SHORT)
        taken = time.monotonic() - start
        reader.rollback()
    assert taken < 10
    assert result.finished is (engine.dialect.name != "sqlite")
    assert transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job).finished


@on_psycopg
def test_rows_that_are_not_met_by_their_own_key_are_no_endless_loop(engine: sa.Engine) -> None:
    """0.1 as REAL is not what Python sends."""

    class Measure(new_base()):  # type: ignore[misc]
        __tablename__ = "measure"
        id = mapped_column(sa.REAL, primary_key=True)
        status = mapped_column(sa.String(20))

    guard(Measure.status, TABLE)
    ledger.add_to(Measure.metadata)
    Measure.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO measure VALUES (0.1, 'READY')")
    result = transition_all(engine, Measure.status, "SPAM_REVIEW", budget=None)
    assert (result.done, result.finished, result.stalled) == (0, False, True)


@on_both
def test_the_state_may_be_a_part_of_the_key(engine: sa.Engine) -> None:
    class Order(new_base()):  # type: ignore[misc]
        __tablename__ = "orders"
        status = mapped_column(sa.String(20), primary_key=True)
        id = mapped_column(sa.Integer, primary_key=True)

    guard(Order.status, TABLE, history=True)
    ledger.add_to(Order.metadata)
    Order.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": n, "status": "READY"} for n in range(1, 31)]
        connection.execute(sa.insert(unguarded(Order)), rows)
        keeps = {
            "sqlite": "CREATE TRIGGER keeps BEFORE UPDATE ON orders WHEN OLD.id = 7 BEGIN SELECT RAISE(IGNORE); END",
        }.get(
            engine.dialect.name,
            "CREATE RULE keeps AS ON UPDATE TO orders WHERE OLD.id = 7 DO INSTEAD NOTHING",
        )
        connection.exec_driver_sql(keeps)
    told: list[Any] = []
    result = transition_all(engine, Order.status, "SPAM_REVIEW", on_batch=lambda batch: told.extend(batch.identities))
    assert (result.done, result.remaining) == (29, 1)
    assert sorted(told) == [("SPAM_REVIEW", n) for n in range(1, 31) if n != 7]
    with engine.connect() as connection:
        moves = connection.execute(ledger.history_of(Order.status, ("SPAM_REVIEW", 8))).all()
    assert len(moves) == 1


def test_the_operation_around_it_is_the_name_of_the_job(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY")
    with statekit.operation("Spam capture"):
        result = transition_all(memory_engine, message.status, "SPAM_REVIEW")
    assert str(result) == "Captured 1 / 1 (0 remaining)"
    assert bulk.jobs(memory_engine)[0].operation == "Spam capture"


@all_sync_backends
@pytest.mark.parametrize("budget", [dt.timedelta(days=400), dt.timedelta.max])
def test_a_budget_may_be_very_long(engine: sa.Engine, budget: dt.timedelta) -> None:
    message = inbox(engine, "READY")
    assert transition_all(engine, message.status, "SPAM_REVIEW", budget=budget).finished


def test_a_rate_without_end_is_refused(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, "READY")
    with pytest.raises(StatekitError, match="rate=inf"):
        transition_all(memory_engine, message.status, "SPAM_REVIEW", rate=math.inf)


@pytest.fixture
def joined(engine: sa.Engine) -> Iterator[tuple[sa.Connection, Any]]:
    """Return a connection in a transaction that a test will roll back, and a sessionmaker that joins it."""
    with engine.connect() as connection:
        connection.begin()
        yield connection, sessionmaker(connection, join_transaction_mode="create_savepoint")


@on_psycopg
def test_the_limits_do_not_stay_in_the_transaction_of_a_test_suite(
    engine: sa.Engine, joined: tuple[sa.Connection, Any]
) -> None:
    """The recipe of SQLAlchemy's documentation for tests: every session joins one transaction."""
    message = inbox(engine, *["READY"] * 20)
    connection, maker = joined
    assert transition_all(maker, message.status, "SPAM_REVIEW").finished
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    assert [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names] == ["0", "0", "0"]
    connection.rollback()
    assert set(stored(engine, message)) == {"READY"}


@on_both
def test_a_session_need_not_begin_by_itself(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    assert transition_all(sessionmaker(engine, autobegin=False), message.status, "SPAM_REVIEW").finished


def test_a_primary_key_without_a_value_keeps_nobody_from_moving(sqlite_engine: sa.Engine) -> None:
    """SQLite allows NULL in a primary key that is no INTEGER PRIMARY KEY."""

    class Order(new_base()):  # type: ignore[misc]
        __tablename__ = "orders"
        id = mapped_column(sa.Text, primary_key=True)
        status = mapped_column(sa.String(20))

    guard(Order.status, TABLE)
    ledger.add_to(Order.metadata)
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id TEXT PRIMARY KEY, status TEXT)")
        rows = [(None,)] * 15 + [(str(n),) for n in range(20)]
        connection.exec_driver_sql("INSERT INTO orders VALUES (?, 'READY')", rows)
    ledger_tables = Order.metadata
    ledger_tables.create_all(sqlite_engine)
    result = transition_all(sqlite_engine, Order.status, "SPAM_REVIEW")
    assert (result.done, result.remaining, result.finished) == (20, 15, False)


@on_psycopg
def test_a_count_takes_no_longer_than_the_budget_with_all_that_belongs_to_it(engine: sa.Engine) -> None:
    """Each of its statements would have the whole of it otherwise."""
    message = inbox(engine, "READY", "PROMOTED", "COMPLETED")
    where = sa.text("pg_sleep(0.25) IS NOT NULL")
    start = time.monotonic()
    with pytest.raises(StatekitError, match="to count what is to move takes longer"):
        transition_all(engine, message.status, "SPAM_REVIEW", where=where, budget=dt.timedelta(seconds=1.2))
    assert time.monotonic() - start < 2


@on_both
def test_no_thread_is_left(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 20)
    before = threading.active_count()
    transition_all(engine, message.status, "SPAM_REVIEW")
    assert threading.active_count() == before


@on_both
def test_a_table_that_nothing_connects_is_refused(engine: sa.Engine) -> None:
    """It would find each row: the condition that joins was forgotten."""
    message = inbox(engine, *["READY"] * 20)
    other = sa.Table(
        "other", message.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("ok", sa.Boolean)
    )
    other.create(engine)
    for where in (other.c.ok, [other.c.ok, message.id > 3]):
        with pytest.raises(StatekitError, match="nothing in it connects message with other"):
            transition_all(engine, message.status, "SPAM_REVIEW", where=where)
    joined = [other.c.ok, other.c.id == message.id]
    assert transition_all(engine, message.status, "SPAM_REVIEW", where=joined).total == 0


@on_psycopg
def test_a_call_that_is_too_short_for_a_row_says_so_each_time(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 3)
    make_costly(engine, 30)
    job = None
    for _ in range(3):
        result = transition_all(engine, message.status, "SPAM_REVIEW", budget=dt.timedelta(seconds=0.6), job=job)
        job = result.job
        assert (result.stalled, result.done) == (True, 0)


@on_psycopg
def test_where_a_large_batch_takes_too_long_a_single_row_is_tried(engine: sa.Engine) -> None:
    """Rows that were fast in the call before are slow now."""
    message = inbox(engine, *["READY"] * 400)
    job = bulk.prepare(engine, message.status, "SPAM_REVIEW").job
    next(iter(bulk.transition_batches(engine, message.status, "SPAM_REVIEW", job=job)))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE statekit_job SET rate = 100000")
    make_costly(engine, 0.5)
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=job, budget=dt.timedelta(seconds=3))
    assert (result.done > 0, result.stalled) == (True, False)
    assert result.retries > 0


def test_fast_rows_are_not_said_to_take_too_long(sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The first ten take as long as their commit."""
    message = inbox(sqlite_engine, *["READY"] * 5_000)
    transition_all(sqlite_engine, message.status, "SPAM_REVIEW", budget=dt.timedelta(seconds=4))
    assert "would exceed" not in caplog.text


async def awaited(result: Any) -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {"progress": True},
        {"progress": bulk.bar},
        {"progress": awaited},
        {"on_batch": awaited},
        {"pool_guard": "normal"},
    ],
)
def test_what_would_do_nothing_is_refused(memory_engine: sa.Engine, options: dict[str, Any]) -> None:
    message = inbox(memory_engine, "READY")
    with pytest.raises(StatekitError, match=next(iter(options))):
        transition_all(memory_engine, message.status, "SPAM_REVIEW", **options)
    assert bulk.jobs(memory_engine) == []


@on_both
def test_an_override_around_a_later_call_does_not_move_what_was_refused(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 5, "PROMOTED")
    begun = bulk.prepare(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
    with attached(engine), statekit.override("wrong queue", actor="ada"):
        result = transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job)
    assert (result.done, result.blocked, result.total) == (5, 1, 6)
    assert stored(engine, message)[-1] == "PROMOTED"


@on_both
def test_what_was_begun_inside_of_an_override_goes_on_inside_of_one(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 5, "PROMOTED")
    with attached(engine):
        with statekit.override("wrong queue", actor="ada"):
            begun = bulk.prepare(engine, message.status, "SPAM_REVIEW", where=message.id > 0)
        with pytest.raises(StatekitError, match="was begun inside of override"):
            transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job)
        with statekit.override("wrong queue, once more", actor="ada"):
            result = transition_all(engine, message.status, "SPAM_REVIEW", job=begun.job)
    assert (result.done, result.blocked) == (6, 0)


@on_both
def test_a_job_that_is_removed_meanwhile_moves_nothing_more(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 50)

    def remove(batch: bulk.Batch) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM statekit_job")

    with pytest.raises(StatekitError, match="has been removed"):
        transition_all(engine, message.status, "SPAM_REVIEW", on_batch=remove)
    assert stored(engine, message).count("SPAM_REVIEW") == 10


def test_a_call_leaves_nothing_more_in_the_engines_cache_than_the_one_before(memory_engine: sa.Engine) -> None:
    """Which has room for 500 statements, most of them the application's."""
    message = inbox(memory_engine, *["READY"] * 5)
    sizes = []
    for _ in range(3):
        transition_all(memory_engine, message.status, "SPAM_REVIEW", where=message.id > 0)
        sizes.append(len(memory_engine._compiled_cache or ()))
    assert sizes[1] == sizes[2]
