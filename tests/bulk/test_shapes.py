"""Every shape of model, key, column, session and engine, moved in bulk."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import (
    Session,
    aliased,
    deferred,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
    synonym,
    with_loader_criteria,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeDecorator

from statekit import (
    IllegalTransition,
    Transition,
    TransitionTable,
    atransition_all,
    counts,
    guard,
    ledger,
    on_commit,
    operation,
    override,
    transition_all,
)
from statekit.bulk import prepare, transition_batches
from statekit.errors import StatekitError
from tests.guards.inbox import TABLE, message_class, new_base, stored, unguarded
from tests.guards.test_models import MODELS, saved
from tests.history.ways import check
from tests.ledger.books import inbox
from tests.support.databases import Databases, all_sync_backends, run

MIXED = ["READY", "PROMOTED"] * 12


def with_jobs(engine: Any) -> None:
    """Make the ledger's tables."""
    ledger.add_to(metadata := sa.MetaData())
    metadata.create_all(engine)


def insert(engine: sa.Engine, table: Any, rows: list[dict[str, Any]]) -> None:
    """Write rows past every guard."""
    with engine.begin() as connection:
        connection.execute(sa.insert(unguarded(table)), rows)


# --- models


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"mapped_to_a_query"}))
def test_every_kind_of_model_is_moved_and_refused(engine: sa.Engine, name: str) -> None:
    kind = MODELS[name]()
    (kind.metadata or kind.class_.metadata).create_all(engine)
    kind.prepare(engine)
    with_jobs(engine)
    with Session(engine, expire_on_commit=False) as session:
        saved(session, kind, 0, 1)
    attribute = getattr(kind.class_, kind.key)

    moved = transition_all(engine, attribute, kind.values[2], budget=dt.timedelta(seconds=5))
    refused = transition_all(engine, attribute, kind.values[3], where=sa.true(), budget=dt.timedelta(seconds=5))

    assert (moved.done, moved.blocked, moved.finished) == (1, 0, True)
    assert (refused.done, refused.blocked, refused.finished) == (0, 1, True)
    with Session(engine) as session:
        assert session.scalars(sa.select(attribute)).all() == [kind.values[2]]
    assert counts(attribute) == {(kind.texts[2], kind.texts[3]): 1}


def test_a_class_that_is_mapped_to_a_query_names_the_column_to_give(memory_engine: sa.Engine) -> None:
    kind = MODELS["mapped_to_a_query"]()
    with pytest.raises(
        StatekitError, match=r"mapped to a query.* Give the column of the table beneath it: message\.c\."
    ):
        transition_all(memory_engine, getattr(kind.class_, kind.key), kind.values[2])


# --- keys


class Colour(enum.Enum):
    RED = 2
    GREEN = 1
    BLUE = 3


class Reversed(TypeDecorator[str]):
    """Stores a text backwards, so that the database's order is another one than Python's."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class Boxed(TypeDecorator[Any]):
    """Gives Python a tuple for a number."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[0]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else (value,)


NOON = dt.datetime(2026, 3, 1, 12)
KEYS: dict[str, tuple[tuple[Any, ...], Callable[[int], tuple[Any, ...]]]] = {
    "integer": ((sa.Integer,), lambda n: (n - 12,)),
    "big integer": ((sa.BigInteger,), lambda n: (2**62 + n,)),
    "text": ((sa.String(40),), lambda n: ("aAbBéz%:\\\"'"[n % 11] + str(n),)),
    "fixed length": ((sa.CHAR(12),), lambda n: (f"k{n:03}{'x' * (n % 3)}",)),
    "uuid": ((sa.Uuid,), lambda n: (uuid.UUID(int=(n * 7919) << 64 | n),)),
    "uuid as text": ((sa.Uuid(as_uuid=False),), lambda n: (str(uuid.UUID(int=n * 7919)),)),
    "decimal": ((sa.Numeric(10, 2),), lambda n: (decimal.Decimal(n - 12) / 4,)),
    "float": ((sa.Float,), lambda n: (n / 3,)),
    "datetime": ((sa.DateTime,), lambda n: (NOON + dt.timedelta(microseconds=n * 250_001),)),
    "datetime with a zone": (
        (sa.DateTime(timezone=True),),
        lambda n: ((NOON + dt.timedelta(hours=n)).replace(tzinfo=dt.UTC),),
    ),
    "date": ((sa.Date,), lambda n: (NOON.date() + dt.timedelta(days=n),)),
    "time": ((sa.Time,), lambda n: (dt.time(n % 24, n),)),
    "interval": ((sa.Interval,), lambda n: (dt.timedelta(minutes=n),)),
    "bytes": ((sa.LargeBinary,), lambda n: (bytes([255 - n, n, 0, 39]),)),
    "decorated": ((Reversed,), lambda n: (f"{n:02}{'ab'[n % 2]}",)),
    "decorated, of no JSON type": ((Boxed,), lambda n: ((n,),)),
    "enum and integer": ((sa.Enum(Colour), sa.Integer), lambda n: ([*Colour][n % 3], n)),
    "boolean and integer": ((sa.Boolean, sa.SmallInteger), lambda n: (n % 2 == 0, n // 2)),
    "integer and text": ((sa.Integer, sa.String(20)), lambda n: (n % 3, f"it's {n}%")),
    "uuid and date": ((sa.Uuid, sa.Date), lambda n: (uuid.UUID(int=n % 4), NOON.date() + dt.timedelta(days=n))),
    "text with a collation and integer": (
        (sa.String(20).with_variant(sa.String(20, "C"), "postgresql"), sa.Integer),
        lambda n: ("aBAbÄ"[n % 5], n),
    ),
    "decimal, bytes and datetime": (
        (sa.Numeric(10, 2), sa.LargeBinary, sa.DateTime),
        lambda n: (decimal.Decimal(n % 2) / 2, bytes([n % 3]), NOON + dt.timedelta(days=n)),
    ),
}


def keyed(engine: sa.Engine, name: str, number: int = 24) -> sa.Table:
    """Return a guarded table with a key; every other row may move."""
    types, key = KEYS[name]
    metadata = sa.MetaData()
    columns = [sa.Column(f"k{n}", type_, primary_key=True, autoincrement=False) for n, type_ in enumerate(types)]
    table = sa.Table("keyed", metadata, *columns, sa.Column("n", sa.Integer), sa.Column("status", sa.String(20)))
    ledger.add_to(metadata)
    metadata.create_all(engine)
    rows = [{f"k{place}": part for place, part in enumerate(key(n))} | {"n": n} for n in range(number)]
    insert(engine, table, [row | {"status": MIXED[row["n"]]} for row in rows])
    guard(table.c.status, TABLE)
    return table


@pytest.mark.parametrize("name", KEYS)
def test_rows_with_every_kind_of_key_are_moved_once_by_two_calls(engine: sa.Engine, name: str) -> None:
    table = keyed(engine, name)
    told: list[tuple[Any, ...]] = []

    def note(batch: Any) -> None:
        told.extend(batch.identities)

    results = transition_batches(engine, table.c.status, "SPAM_REVIEW", where=sa.true(), on_batch=note)
    first = [next(results), next(results)][-1]
    results.close()  # type: ignore[attr-defined]
    last = transition_all(engine, table.c.status, "SPAM_REVIEW", job=first.job, on_batch=note)

    assert (first.done, first.finished) == (10, False)
    assert (last.done, last.blocked, last.remaining, last.finished) == (12, 12, 0, True)
    with engine.connect() as connection:
        moved = sa.select(table.c.n, *table.primary_key).where(table.c.status == "SPAM_REVIEW")
        rows = {n: tuple(key) for n, *key in connection.execute(moved)}
    assert sorted(rows) == list(range(0, 24, 2))
    assert sorted(map(repr, told)) == sorted(map(repr, rows.values()))


# --- inheritance, several columns, columns of other kinds


def test_an_attribute_of_a_subclass_moves_rows_of_the_subclass_only(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "plain"}
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20))

    class Special(Message):
        __mapper_args__ = {"polymorphic_identity": "special"}

    guard(Message.status, TABLE)
    Message.metadata.create_all(engine)
    with_jobs(engine)
    kinds = ["plain", "special"] * 3
    insert(engine, Message, [{"id": n, "kind": kind, "status": "READY"} for n, kind in enumerate(kinds, 1)])
    begun = prepare(engine, Special.status, "SPAM_REVIEW", where=Special.id < 5)
    assert begun.total == 2
    assert transition_all(engine, Special.status, "SPAM_REVIEW", job=begun.job).done == 2
    assert stored(engine, Message) == ["READY", "SPAM_REVIEW", "READY", "SPAM_REVIEW", "READY", "READY"]
    assert transition_all(engine, Special.status, "SPAM_REVIEW").done == 1
    assert transition_all(engine, Message.status, "SPAM_REVIEW").done == 3


def inherited(*, polymorphic: bool = False) -> tuple[Any, Any]:
    class Item(new_base()):  # type: ignore[misc]
        __tablename__ = "item"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}
        if polymorphic:
            __mapper_args__ |= {"with_polymorphic": "*"}
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20))

    class Message(Item):
        __tablename__ = "message"
        __mapper_args__ = {"polymorphic_identity": "message"}
        id = mapped_column(sa.ForeignKey("item.id"), primary_key=True)
        subject = mapped_column(sa.String(20))

    guard(Item.status, TABLE)
    return Item, Message


def fill_inherited(engine: sa.Engine, item: Any, message: Any) -> None:
    item.metadata.create_all(engine)
    with_jobs(engine)
    kinds = ["item", "message"] * 3
    insert(engine, item, [{"id": n, "kind": kind, "status": "READY"} for n, kind in enumerate(kinds, 1)])
    insert(engine, message.__table__, [{"id": n, "subject": f"s{n}"} for n in (2, 4, 6)])


@pytest.mark.parametrize("token_alone", [False, True], ids=["where", "token alone"])
def test_a_condition_may_name_columns_of_both_tables_of_a_joined_subclass(engine: sa.Engine, token_alone: bool) -> None:
    item, message = inherited()
    fill_inherited(engine, item, message)
    where = sa.and_(message.subject.in_(["s2", "s6"]), message.kind == "message")
    job = prepare(engine, message.status, "SPAM_REVIEW", where=where).job
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=job, where=None if token_alone else where)
    assert (result.done, result.total) == (2, 2)
    assert stored(engine, item) == ["READY", "SPAM_REVIEW", "READY", "READY", "READY", "SPAM_REVIEW"]


def test_without_a_condition_a_joined_subclass_moves_its_own_rows(engine: sa.Engine) -> None:
    item, message = inherited()
    fill_inherited(engine, item, message)
    assert transition_all(engine, message.status, "SPAM_REVIEW").done == 3
    assert stored(engine, item) == ["READY", "SPAM_REVIEW"] * 3


def test_a_column_of_a_subclass_that_is_loaded_with_its_parent_finds_what_a_select_finds(engine: sa.Engine) -> None:
    item, message = inherited(polymorphic=True)
    fill_inherited(engine, item, message)
    with Session(engine) as session:
        found = session.scalars(sa.select(item.id).where(message.subject == "s4")).all()
    assert transition_all(engine, item.status, "SPAM_REVIEW", where=message.subject == "s4").done == len(found) == 1


def test_an_alias_finds_what_a_select_finds(engine: sa.Engine) -> None:
    message = inbox(engine, "READY", "READY", "READY")
    alias = aliased(message)
    try:
        transition_all(engine, alias.status, "SPAM_REVIEW", where=alias.id == 2)
    except StatekitError:
        assert stored(engine, message) == ["READY"] * 3
    else:
        assert stored(engine, message) == ["READY", "SPAM_REVIEW", "READY"]


def test_of_two_guarded_columns_only_the_one_that_is_named_moves(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        delivery = mapped_column("the delivery", sa.String(20))

    guard(Message.status, TABLE)
    guard(Message.delivery, TransitionTable("NEW → SENT"))
    Message.metadata.create_all(engine)
    with_jobs(engine)
    insert(engine, Message, [{"id": n, "status": state, "the delivery": "NEW"} for n, state in enumerate(MIXED)])
    assert transition_all(engine, Message.delivery, "SENT", where=Message.status == "READY").done == 12
    assert stored(engine, Message) == MIXED


def test_updates_set_columns_with_onupdate_and_leave_all_others(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = deferred(mapped_column(sa.String(20)))
        state = synonym("status")
        changed = mapped_column(sa.Integer, default=0, onupdate=1)
        made = mapped_column(sa.String(20), server_default="by the server")

    guard(Message.status, TABLE)
    Message.metadata.create_all(engine)
    with_jobs(engine)
    insert(engine, Message, [{"id": 1, "status": "READY", "changed": 0}, {"id": 2, "status": "PROMOTED", "changed": 0}])
    transition_all(engine, Message.status, "SPAM_REVIEW", where=Message.state.in_(["READY", "PROMOTED"]))
    with engine.connect() as connection:
        rows = connection.execute(sa.select(*Message.__table__.columns).order_by(Message.id)).all()
    assert [tuple(row) for row in rows] == [
        (1, "SPAM_REVIEW", 1, "by the server"),
        (2, "PROMOTED", 0, "by the server"),
    ]


# --- schemas


@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
def test_a_tenant_chosen_by_schema_translate_map_is_moved_alone(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __table_args__ = {"schema": "tenant"}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        parent_id = mapped_column(sa.ForeignKey("tenant.message.id"))
        answers = relationship("Message")

    guard(Message.status, TABLE)
    with engine.begin() as connection:
        for schema in ("one", "two", "books"):
            connection.execute(sa.schema.CreateSchema(schema))
    tenants = {each: engine.execution_options(schema_translate_map={"tenant": each}) for each in ("one", "two")}
    for tenant in tenants.values():
        Message.metadata.create_all(tenant)
        rows = [{"id": n, "status": "READY", "parent_id": 1} for n in range(1, 16)]
        insert(tenant, Message, rows)
    ledger.add_to(Message.metadata, schema="books")
    Message.metadata.create_all(tenants["one"])
    where = sa.and_(Message.answers.any(), Message.id < 9)

    job = prepare(tenants["two"], Message.status, "SPAM_REVIEW", where=where).job
    with pytest.raises(StatekitError, match="give it again, where="):  # a text does not say which tenant's tables
        transition_all(tenants["two"], Message.status, "SPAM_REVIEW", job=job)
    assert transition_all(tenants["two"], Message.status, "SPAM_REVIEW", where=where, job=job).done == 1
    assert stored(tenants["one"], Message) == ["READY"] * 15
    assert stored(tenants["two"], Message) == ["SPAM_REVIEW", *["READY"] * 14]


# --- what belongs to a guard


@all_sync_backends
@pytest.mark.parametrize("trigger", [None, True], ids=["guard", "trigger"])
def test_the_history_has_each_move_once(engine: sa.Engine, trigger: bool | None) -> None:
    message = message_class(history=True, trigger=trigger)
    ledger.add_to(message.metadata)
    message.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([message() for _ in range(25)])
        session.commit()
    result = transition_all(engine, message.status, "PROMOTED", where=message.id < 24, operation="Promotion")
    assert result.done == 23
    assert check(engine, message) == 25 + 23


def test_handlers_are_called_for_each_row_after_its_batch(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    told: list[Any] = []

    @on_commit(message.status, target="SPAM_REVIEW")
    def note(move: Any) -> None:
        told.extend([move.identity] if hasattr(move, "identity") else move.identities)

    transition_all(engine, message.status, "SPAM_REVIEW", where=sa.true())
    assert sorted(told) == [(n,) for n in range(1, 25, 2)]


def test_an_override_moves_all_that_the_condition_finds(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    with override("a test", actor="ada"):
        result = transition_all(engine, message.status, "SPAM_REVIEW", where=message.id < 5)
    assert (result.done, result.blocked, result.finished) == (4, 0, True)
    assert stored(engine, message)[:5] == ["SPAM_REVIEW"] * 4 + ["READY"]


def test_observe_moves_and_counts(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    result = transition_all(engine, message.status, "SPAM_REVIEW", where=sa.true(), on_illegal="observe")
    assert (result.done, result.blocked) == (24, 0)
    assert stored(engine, message) == ["SPAM_REVIEW"] * 24


def test_raise_moves_nothing(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    with pytest.raises(IllegalTransition) as caught:
        transition_all(engine, message.status, "SPAM_REVIEW", where=sa.true(), on_illegal="raise")
    assert caught.value.pairs == {("PROMOTED", "SPAM_REVIEW"): 12}
    assert stored(engine, message) == MIXED


def test_the_operation_around_it_counts_and_gives_its_name(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    with operation("Spam capture") as op:
        transition_all(engine, message.status, "SPAM_REVIEW", where=sa.true())
    assert (op.moved, op.blocked) == (12, {("PROMOTED", "SPAM_REVIEW"): 12})


# --- sessions and engines


class SoftDelete(Session):
    pass


@sa.event.listens_for(SoftDelete, "do_orm_execute")
def _hide_what_is_deleted(state: Any) -> None:
    entity = getattr(state.session, "info", {}).get("entity")
    if state.is_select and entity is not None:
        state.statement = state.statement.options(with_loader_criteria(entity, lambda cls: cls.subject != "deleted"))


def test_a_session_of_ones_own_hides_rows_from_it(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 15)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE message SET subject = 'deleted' WHERE id > 12")
    maker = sessionmaker(engine, class_=SoftDelete, info={"entity": message})
    result = transition_all(maker, message.status, "SPAM_REVIEW")
    assert (result.done, result.total, result.finished) == (12, 12, True)


@pytest.mark.parametrize("kind", ["sessionmaker", "binds", "scoped_session"])
def test_sessionmakers(engine: sa.Engine, kind: str) -> None:
    message = inbox(engine, *MIXED)
    makers: dict[str, Callable[[], Any]] = {
        "sessionmaker": lambda: sessionmaker(engine),
        "binds": lambda: sessionmaker(binds={message: engine}),
        "scoped_session": lambda: scoped_session(sessionmaker(engine)),
    }
    assert transition_all(makers[kind](), message.status, "SPAM_REVIEW").done == 12


def test_async_sessionmakers(async_engine: AsyncEngine, databases: Databases) -> None:
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    message = inbox(engine, *MIXED)
    assert run(atransition_all(async_sessionmaker(async_engine), message.status, "SPAM_REVIEW")).done == 12


@pytest.mark.parametrize(
    "options",
    [{"poolclass": NullPool}, {"pool_size": 1, "max_overflow": 0}, {"isolation_level": "SERIALIZABLE"}],
    ids=["no pool", "a pool of one", "serializable"],
)
@pytest.mark.parametrize("backend", ["sqlite", "psycopg"])
def test_engines(databases: Databases, backend: str, options: dict[str, Any]) -> None:
    engine = databases.engine(backend, **options)
    message = inbox(engine, *MIXED)
    assert transition_all(engine, message.status, "SPAM_REVIEW").finished


def test_a_database_in_memory(memory_engine: sa.Engine) -> None:
    message = inbox(memory_engine, *MIXED)
    assert transition_all(memory_engine, message.status, "SPAM_REVIEW").finished


def test_autocommit_is_refused(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    with pytest.raises(StatekitError, match="AUTOCOMMIT"):
        transition_all(engine.execution_options(isolation_level="AUTOCOMMIT"), message.status, "SPAM_REVIEW")
    assert stored(engine, message) == MIXED


def test_a_pool_without_a_free_connection_does_not_outlast_the_budget(databases: Databases) -> None:
    engine = databases.engine("psycopg", pool_size=1, max_overflow=0, pool_timeout=4)
    message = inbox(engine, *MIXED)
    begun = dt.datetime.now()
    with engine.connect(), pytest.raises((StatekitError, sa.exc.TimeoutError)):
        transition_all(engine, message.status, "SPAM_REVIEW", budget=dt.timedelta(seconds=1))
    assert dt.datetime.now() - begun < dt.timedelta(seconds=3)


# --- what a call is given


class Stop(Exception):
    pass


def test_what_progress_raises_ends_the_call_and_frees_the_job(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    jobs: list[str] = []

    def stop(result: Any) -> None:
        jobs.append(result.job)
        if result.done:
            raise Stop

    with pytest.raises(Stop):
        transition_all(engine, message.status, "SPAM_REVIEW", progress=stop)
    worker = ledger.add_to(sa.MetaData()).worker
    with engine.connect() as connection:
        assert connection.scalars(sa.select(worker.c.id)).all() == []
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=jobs[0])
    assert (result.done, result.finished) == (12, True)


def test_what_on_batch_raises_ends_the_call_and_the_batch_stays(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)

    def stop(batch: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        transition_all(engine, message.status, "SPAM_REVIEW", on_batch=stop)
    assert stored(engine, message).count("SPAM_REVIEW") == 10


def test_coroutine_functions_are_awaited(async_engine: AsyncEngine, databases: Databases) -> None:
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    message = inbox(engine, *MIXED)
    told: list[Any] = []

    async def note(what: Any) -> None:
        told.append(what)

    result = run(atransition_all(async_engine, message.status, "SPAM_REVIEW", progress=note, on_batch=note))
    assert result.finished
    remaining = [each.remaining for each in told if hasattr(each, "remaining")]
    assert remaining == sorted(remaining, reverse=True)
    assert sum(len(each.identities) for each in told if hasattr(each, "identities")) == 12


def test_the_estimate_is_there_before_the_first_row_once_a_job_of_the_kind_has_run(engine: sa.Engine) -> None:
    message = inbox(engine, *["READY"] * 40)
    first = prepare(engine, message.status, "SPAM_REVIEW", where=message.id <= 25, operation="Spam capture")
    assert first.estimate is None
    transition_all(engine, message.status, "SPAM_REVIEW", job=first.job)
    second = prepare(engine, message.status, "SPAM_REVIEW", operation="Spam capture")
    assert second.estimate is not None
    assert second.remaining == 15


@pytest.mark.parametrize("what", ["session", "connection", "async engine"])
def test_what_is_no_engine_is_refused(sqlite_engine: sa.Engine, databases: Databases, what: str) -> None:
    message = inbox(sqlite_engine, *MIXED)
    with Session(sqlite_engine) as session, sqlite_engine.connect() as connection:
        given: dict[str, Any] = {
            "session": session,
            "connection": connection,
            "async engine": databases.async_engine("aiosqlite"),
        }
        hint = "await atransition_all" if what == "async engine" else "Give an Engine or a sessionmaker"
        with pytest.raises(StatekitError, match=hint):
            transition_all(given[what], message.status, "SPAM_REVIEW")


def test_without_the_tables_the_error_names_the_mend(engine: sa.Engine) -> None:
    message = message_class()
    message.metadata.create_all(engine)
    with pytest.raises(StatekitError, match="add_to"):
        transition_all(engine, message.status, "SPAM_REVIEW")


def test_a_job_is_gone_on_with_as_it_was_begun(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    job = prepare(engine, message.status, "SPAM_REVIEW", where=message.id < 9).job
    for target, where, hint in [
        ("SPAM_REVIEW", message.id > 9, "another condition"),
        ("PROMOTED", message.id < 9, "asked for is"),
    ]:
        with pytest.raises(StatekitError, match=hint):
            transition_all(engine, message.status, target, where=where, job=job)
    with pytest.raises(StatekitError, match="no such job"):
        transition_all(engine, message.status, "SPAM_REVIEW", job="unknown")


def test_conditions_of_transitions_are_not_asked_because_they_look_at_objects(engine: sa.Engine) -> None:
    table = TransitionTable(Transition("READY", "SPAM_REVIEW", conditions=[lambda message: False]), "READY → PROMOTED")
    message = inbox(engine, *["READY"] * 15, table=table)
    result = transition_all(engine, message.status, "SPAM_REVIEW")
    assert (result.done, result.blocked, result.finished) == (15, 0, True)


def test_a_deadline_that_has_passed_moves_nothing(engine: sa.Engine) -> None:
    message = inbox(engine, *MIXED)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    job = prepare(engine, message.status, "SPAM_REVIEW").job
    result = transition_all(engine, message.status, "SPAM_REVIEW", job=job, deadline=past)
    assert (result.done, result.finished) == (0, False)
