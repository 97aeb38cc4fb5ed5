"""Every way to write a guarded column through SQLAlchemy, and every kind of value: what docs/statements.md lists.

A write path is a function here. It writes a value to rows 1 to 6 of a model, and test_statements.py calls each of them
with each kind of value, in each mode and on each backend. ``python -m tests.guards.write_paths`` prints the table of
the documentation, and a test compares the two.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, mapped_column
from sqlalchemy.types import TypeDecorator

from statekit import TransitionTable, guard
from tests.guards.inbox import TABLE, new_base, unguarded
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, is_postgresql

# --- the model --------------------------------------------------------------------------------------------------------

STATES = ("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW", "PROMOTED", "READY")
"""The states of rows 1 to 6 before an UPDATE: all four, two of them twice."""
IDS = tuple(range(1, len(STATES) + 1))
ANOTHER = 99
"""The row of another class in the same table: no statement is about it."""

_serial = itertools.count()


class Spoken(TypeDecorator[str]):
    """Small letters in Python, capitals in the database."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.upper()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()


SPOKEN = TransitionTable("ready → spam_review", "ready → promoted → completed", initial="ready")


@dataclass
class Model:
    """A guarded table, mapped or not, and an unguarded one beside it.

    Attributes:
        entity: the mapped class, None for a table without one.
        table: the table that has the guarded column ``status``.
        other: a table that has a ``word`` for each row of the first.
        guarded: what ``counts()`` takes.
    """

    entity: Any
    table: sa.Table
    other: sa.Table
    guarded: Any

    @functools.cached_property
    def _unguarded(self) -> list[sa.Table]:
        """The tables that hold the rows, as no guard knows them, in the order in which they are filled."""
        inherits = self.entity is not None and self.entity.__mapper__.inherits is not None
        tables = self.entity.__mapper__.tables if inherits else [self.table]
        return [unguarded(table) for table in tables]

    def fill(self, connection: sa.Connection, states: Iterable[str], word: str | None) -> None:
        """Replace all rows, past every guard; ``word`` is what the columns ``wanted`` and ``word`` hold."""
        for table in (self.other, *reversed(self._unguarded)):
            connection.execute(sa.delete(table))
        rows = [row(number, "letter", state, word) for number, state in enumerate(states, 1)]
        if self.entity is not None and self.entity.__mapper__.single:
            rows.append(row(ANOTHER, "item", "PROMOTED", word))
        for table in self._unguarded if rows else ():
            connection.execute(sa.insert(table), _only(rows, table))
        words = [{"message_id": number, "word": word} for number in IDS]
        connection.execute(sa.insert(self.other), words)

    def stored(self, connection: sa.Connection) -> list[tuple[str | None, str]]:
        """Return status and subject of the rows, as the database has them."""
        status = sa.type_coerce(self.table.c.status, sa.String)
        query = sa.select(self.table.c.id, status, self.table.c.subject).order_by(self.table.c.id)
        rows = connection.execute(query).all()
        assert all(each[1:] == ("PROMOTED", "") for each in rows if each.id == ANOTHER)
        return [(each[1], each[2]) for each in rows if each.id != ANOTHER]


def row(number: int, kind: str, status: Any, word: Any, subject: str = "") -> dict[str, Any]:
    """Return a row with all columns."""
    return {
        "id": number,
        "kind": kind,
        "status": status,
        "subject": subject,
        "wanted": word,
        "code": number,
        "slot": number,
    }


def _only(rows: list[dict[str, Any]], table: sa.Table) -> list[dict[str, Any]]:
    names = set(table.c.keys())
    spoken = "status" in names and isinstance(table.c.status.type, Spoken)
    picked = [{name: value for name, value in each.items() if name in names} for each in rows]
    for each in picked:
        if spoken and each["status"] is not None:
            each["status"] = each["status"].lower()
    return picked


def _columns(status: Any, column: Any) -> dict[str, Any]:
    return {
        "status": column(status),
        "subject": column(sa.String(50), default=""),
        "wanted": column(sa.String(50)),
        "code": column(sa.Integer),
        "slot": column(sa.Integer),
    }


def _constraints(name: str) -> tuple[Any, ...]:
    taken = sa.text("slot > 0")
    return (
        sa.UniqueConstraint("code", name=f"{name}_code"),
        sa.Index(f"{name}_slot", "slot", unique=True, sqlite_where=taken, postgresql_where=taken),
    )


def _other(metadata: sa.MetaData, name: str) -> sa.Table:
    return sa.Table(
        f"{name}_other",
        metadata,
        sa.Column("message_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("word", sa.String(50)),
    )


@functools.cache
def model_of(shape: str, *, spoken: bool = False) -> Model:
    """Return a guarded model, the same one in every test: its guard raises, and operation() names other modes.

    Args:
        shape: "mapped", "table" (without a class), "single" or "joined" (a subclass).
        spoken: whether the column has a TypeDecorator.
    """
    # A bare table() is held to every guard of its name, so that a name is used once.
    name = f"message_{next(_serial)}"
    status, transitions = (Spoken(), SPOKEN) if spoken else (sa.String(20), TABLE)
    base = new_base()
    key = {"id": mapped_column(sa.Integer, primary_key=True, autoincrement=False), "kind": mapped_column(sa.String(10))}
    own = _columns(status, mapped_column)
    if shape == "table":
        columns = [
            sa.Column(key, column.type, default=column.default and column.default.arg)
            for key, column in _columns(status, sa.Column).items()
        ]
        table = sa.Table(
            name,
            base.metadata,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            *columns,
            *_constraints(name),
        )
        guard(table.c.status, transitions)
        return Model(None, table, _other(base.metadata, name), table.c.status)
    item = {"__tablename__": name, **key}
    if shape == "mapped":
        entity = type("Message", (base,), {**item, **own, "__table_args__": _constraints(name)})
    else:
        item["__mapper_args__"] = {"polymorphic_on": "kind", "polymorphic_identity": "item"}
        letter: dict[str, Any] = {"__mapper_args__": {"polymorphic_identity": "letter"}}
        if shape == "single":
            item |= {**own, "__table_args__": _constraints(name)}
        else:
            letter |= own
            letter["__tablename__"] = f"{name}_letter"
            letter["__table_args__"] = _constraints(f"{name}_letter")
            letter["id"] = mapped_column(sa.ForeignKey(f"{name}.id"), primary_key=True)
        entity = type("Letter", (type("Item", (base,), item),), letter)
    guard((entity.__base__ if shape == "single" else entity).status, transitions)
    table = entity.__table__
    return Model(entity, table, _other(base.metadata, name), entity.status)


# --- kinds of value ---------------------------------------------------------------------------------------------------

KINDS = (
    "value",
    "by set",
    "column",
    "case()",
    "function",
    "subquery",
    "NULL",
    "literal()",
    "TypeDecorator",
    "literal_column()",
    "text()",
)
EXCLUDED = "excluded"
BY_SET = ("by set", "NULL", "TypeDecorator")


@dataclass(frozen=True)
class Make:
    """Makes the value that a path writes: one of a kind, which comes to ``state``."""

    kind: str
    model: Model
    state: str

    @property
    def plain(self) -> Any:
        """The value as a set of parameters has it."""
        if self.kind == "NULL":
            return None
        return self.state.lower() if self.kind == "TypeDecorator" else self.state

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statement is executed with."""
        return {"state": self.plain} if self.kind == "by set" else {}

    def __call__(self, columns: Any = None) -> Any:
        """Return the value or expression; ``columns`` are those of the table in the form that the statement has it."""
        columns = self.model.table.c if columns is None else columns
        match self.kind:
            case "value" | "TypeDecorator":
                return self.plain
            case "by set":
                return sa.bindparam("state")
            case "column":
                return columns.wanted
            case "case()":
                return sa.case((columns.id > 0, self.state), else_="READY")
            case _:
                return self.alone()

    def alone(self) -> Any:
        """Return the value or expression without any column: for INSERT."""
        match self.kind:
            case "case()":
                return sa.case((sa.literal(1) == 1, self.state), else_="READY")
            case "function":
                return sa.func.upper(self.state.lower())
            case "subquery":
                return sa.select(sa.func.max(self.model.other.c.word)).scalar_subquery()
            case "NULL":
                return sa.null()
            case "literal()":
                return sa.literal(self.state)
            case "literal_column()":
                return sa.literal_column(f"'{self.state}'")
            case "text()":
                return sa.text(f"'{self.state}'")
            case _:
                return self()

    def set(self, **more: Any) -> dict[str, Any]:
        """Return a set of parameters by the columns' names."""
        return {**more, "status": self.plain, "subject": "written"}


# --- write paths ------------------------------------------------------------------------------------------------------

FULL = ("sqlite", "psycopg", "asyncpg")
"""Backends with every kind of value; the other ones are of the same databases, and have the kinds in FEW."""
FEW = ("value", "by set", "function", EXCLUDED)

BOTH = ("SQLite", "PostgreSQL")
POSTGRESQL = ("PostgreSQL",)


@dataclass(frozen=True)
class Path:
    """A way to write.

    Attributes:
        name: as the documentation calls it.
        write: does it on a session or connection; returns the number of rows that it says it has written, if it does.
        on: "session" or "connection", or "async session" or "async connection", where ``write`` is a coroutine.
        without: kinds of value that it cannot have, with the reason.
        extra: kinds of value that only it can have.
        shape: of the model.
        databases: where it exists.
        drivers: which backends can do it, if not all of those databases.
        shows: which of the objects that were loaded before show what is stored: "all", or "left out" where SQLAlchemy
            does not tell the others.
        ends: whether an error in it ends the session's transaction, or leaves changed objects, as SQLAlchemy has it.
        many: whether it is an executemany, whose row count not every driver has.
        inserts: whether it makes new rows, and how many.
        names: whether the error knows the primary keys; None where it does for some kinds of value only.
        reported: whether it is reported at all.
        tenant: whether it is executed with a schema_translate_map.
    """

    name: str
    write: Callable[[Any, Model, Make], Any]
    on: str = "session"
    without: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    shape: str = "mapped"
    databases: tuple[str, ...] = BOTH
    drivers: tuple[str, ...] | None = None
    shows: str = "all"
    ends: bool = False
    many: bool = False
    inserts: int = 0
    names: bool | None = True
    reported: bool = True
    tenant: bool = False

    @property
    def id(self) -> str:
        """The name in test ids."""
        return self.write.__name__

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of value that it is tested with."""
        return tuple(kind for kind in (*KINDS, *self.extra) if kind not in self.without)

    def kinds_on(self, backend: str) -> tuple[str, ...]:
        """Return the kinds of value that it is tested with on a backend: all on one of each sort, else a few."""
        if self.is_async or backend in FULL:
            return self.kinds
        return tuple(kind for kind in self.kinds if kind in FEW)

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine."""
        return self.on.startswith("async")

    def backends(self, *, asynchronous: bool) -> tuple[str, ...]:
        """Return the backends that it is tested on."""
        if self.is_async and not asynchronous:
            return ()
        found = ASYNC_BACKENDS if asynchronous else SYNC_BACKENDS
        if self.on == "connection":  # under run_sync(), only asyncpg is another driver than the sync ones
            found = tuple(each for each in found if each in SYNC_BACKENDS or each in FULL)
        if self.databases == POSTGRESQL:
            found = tuple(each for each in found if is_postgresql(each))
        return tuple(each for each in found if self.drivers is None or each in self.drivers)


PATHS: list[Path] = []

_ONLY_SETS = "the sets hold plain values"
_STREAMING = ("sqlite", "aiosqlite", "asyncpg")  # psycopg and psycopg2 declare a cursor, which an UPDATE cannot have


def path(name: str, **options: Any) -> Callable[[Any], Any]:
    """Register a function as a write path."""

    def register(write: Any) -> Any:
        PATHS.append(Path(name, write, **options))
        return write

    return register


def but(*kinds: str, why: str) -> dict[str, str]:
    """Return kinds that a path cannot have, with the reason."""
    return dict.fromkeys(kinds, why)


def only(*kinds: str, why: str) -> dict[str, str]:
    """Return all other kinds than these, with the reason that a path cannot have them."""
    return but(*(kind for kind in KINDS if kind not in kinds), why=why)


def orm(model: Model, make: Make) -> Any:
    """Return the ORM's UPDATE of all rows."""
    return sa.update(model.entity).where(model.entity.id > 0).values(status=make(), subject="written")


def core(model: Model, make: Make) -> Any:
    """Return Core's UPDATE of all rows."""
    return sa.update(model.table).where(model.table.c.id > 0).values(status=make(), subject="written")


def _synchronized(how: Any) -> Any:
    def write(session: Session, model: Model, make: Make) -> Any:
        options = {"synchronize_session": how}
        return session.execute(orm(model, make), make.parameters, execution_options=options).rowcount

    write.__name__ = f"orm_update_{str(how).lower()}"
    return write


path('`session.execute(update(M))`, `synchronize_session="auto"`')(_synchronized("auto"))
path('… `synchronize_session="evaluate"`')(_synchronized("evaluate"))
path('… `synchronize_session="fetch"`')(_synchronized("fetch"))
path("… `synchronize_session=False`", shows="left out")(_synchronized(False))


@path("`update(M), [{…}]` by primary key", without=only(*BY_SET, why=_ONLY_SETS))
def orm_update_by_primary_key(session: Session, model: Model, make: Make) -> None:
    session.execute(sa.update(model.entity), [make.set(id=number) for number in IDS])


@path('… `dml_strategy="bulk"`', without=only(*BY_SET, why=_ONLY_SETS))
def orm_update_strategy_bulk(session: Session, model: Model, make: Make) -> None:
    sets = [make.set(id=number) for number in IDS]
    session.execute(sa.update(model.entity), sets, execution_options={"dml_strategy": "bulk"})


@path('`update(M)`, `dml_strategy="orm"`')
def orm_update_strategy_orm(session: Session, model: Model, make: Make) -> Any:
    options = {"dml_strategy": "orm"}
    return session.execute(orm(model, make), make.parameters, execution_options=options).rowcount


@path('`update(M), [{…}]`, `dml_strategy="core_only"`', shows="left out", many=True)
def orm_update_strategy_core_only(session: Session, model: Model, make: Make) -> Any:
    statement = sa.update(model.entity).where(model.entity.id == sa.bindparam("row"))
    sets = [{"row": number, **make.parameters} for number in IDS]
    options = {"dml_strategy": "core_only"}
    return session.execute(statement.values(status=make(), subject="written"), sets, execution_options=options).rowcount


@path("`bulk_update_mappings()`", without=only(*BY_SET, why=_ONLY_SETS), shows="left out", ends=True)
def bulk_update_mappings(session: Session, model: Model, make: Make) -> None:
    session.bulk_update_mappings(model.entity, [make.set(id=number) for number in IDS])


@path("`bulk_save_objects()` of loaded objects", without=only(*BY_SET, why="the objects hold plain values"), ends=True)
def bulk_save_objects(session: Session, model: Model, make: Make) -> None:
    objects = loaded(session, model)
    with session.no_autoflush:
        for each in objects:
            each.status, each.subject = make.plain, "written"
        session.bulk_save_objects(objects)


@path(
    "a flush, for comparison",
    without=but("by set", "literal()", "text()", why="an attribute does not take it"),
    ends=True,
)
def flush(session: Session, model: Model, make: Make) -> None:
    objects = loaded(session, model)
    with session.no_autoflush:
        for each in objects:
            each.status, each.subject = make(), "written"
    session.flush()


def loaded(session: Session, model: Model) -> list[Any]:
    """Return all objects by id."""
    return list(session.scalars(sa.select(model.entity).order_by(model.entity.id)))


@path("`query.update()`")
def query_update(session: Session, model: Model, make: Make) -> Any:
    query = session.query(model.entity).filter(model.entity.id > 0).params(**make.parameters)
    return query.update({model.entity.status: make(), model.entity.subject: "written"})


@path("`update(M).returning(M.id)`")
def orm_update_returning_rows(session: Session, model: Model, make: Make) -> int:
    return len(session.execute(orm(model, make).returning(model.entity.id), make.parameters).all())


@path("`update(M).returning(M)`")
def orm_update_returning_entities(session: Session, model: Model, make: Make) -> int:
    return len(session.scalars(orm(model, make).returning(model.entity), make.parameters).all())


@path("`update(Sub)`, single-table inheritance", shape="single")
def orm_update_single_table_subclass(session: Session, model: Model, make: Make) -> Any:
    return session.execute(orm(model, make), make.parameters).rowcount


@path("`update(Sub), [{…}]`, single-table inheritance", shape="single", without=only(*BY_SET, why=_ONLY_SETS))
def orm_update_single_table_subclass_by_key(session: Session, model: Model, make: Make) -> None:
    session.execute(sa.update(model.entity), [make.set(id=number) for number in IDS])


@path("`update(Sub)`, joined inheritance, a column of its own", shape="joined")
def orm_update_joined_subclass(session: Session, model: Model, make: Make) -> Any:
    statement = sa.update(model.entity).where(model.table.c.id > 0).values(status=make(), subject="written")
    return session.execute(statement, make.parameters, execution_options={"synchronize_session": "fetch"}).rowcount


@path("`update(Sub), [{…}]`, joined inheritance", shape="joined", without=only(*BY_SET, why=_ONLY_SETS))
def orm_update_joined_subclass_by_key(session: Session, model: Model, make: Make) -> None:
    session.execute(sa.update(model.entity), [make.set(id=number) for number in IDS])


@path("`connection.execute(update(table))` of a mapped table", on="connection")
def core_update(connection: sa.Connection, model: Model, make: Make) -> Any:
    return connection.execute(core(model, make), make.parameters).rowcount


@path("… of a table without a class", on="connection", shape="table")
def core_update_without_mapper(connection: sa.Connection, model: Model, make: Make) -> Any:
    return connection.execute(core(model, make), make.parameters).rowcount


@path("… in `session.execute()`", shows="left out")
def core_update_in_session(session: Session, model: Model, make: Make) -> Any:
    return session.execute(core(model, make), make.parameters).rowcount


@path("a bare `sqlalchemy.table()`", on="connection")
def bare_table(connection: sa.Connection, model: Model, make: Make) -> Any:
    columns = [sa.column(each.key, each.type) for each in model.table.columns]
    table = sa.table(model.table.name, *columns)
    statement = sa.update(table).where(table.c.id > 0).values(status=make(table.c), subject="written")
    return connection.execute(statement, make.parameters).rowcount


@path("`executemany` by primary key", on="connection", many=True)
def executemany_by_key(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.update(model.table).where(model.table.c.id == sa.bindparam("row"))
    sets = [{"row": number, **make.parameters} for number in IDS]
    return connection.execute(statement.values(status=make(), subject="written"), sets).rowcount


@path("`executemany` by another column", on="connection", many=True)
def executemany_by_column(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.update(model.table).where(model.table.c.code == sa.bindparam("number"))
    sets = [{"number": number, **make.parameters} for number in IDS]
    return connection.execute(statement.values(status=make(), subject="written"), sets).rowcount


@path("`UPDATE … FROM`", on="connection")
def update_from(connection: sa.Connection, model: Model, make: Make) -> Any:
    other = model.other.alias("o")
    value = other.c.word if make.kind == "column" else make()
    statement = sa.update(model.table).where(model.table.c.id == other.c.message_id)
    return connection.execute(statement.values(status=value, subject="written"), make.parameters).rowcount


@path("ORM `UPDATE … FROM`")
def orm_update_from(session: Session, model: Model, make: Make) -> Any:
    value = model.other.c.word if make.kind == "column" else make()
    statement = sa.update(model.entity).where(model.entity.id == model.other.c.message_id)
    options = {"synchronize_session": "fetch"}
    statement = statement.values(status=value, subject="written")
    return session.execute(statement, make.parameters, execution_options=options).rowcount


@path("a correlated subquery in WHERE", on="connection")
def correlated(connection: sa.Connection, model: Model, make: Make) -> Any:
    there = sa.exists().where(model.other.c.message_id == model.table.c.id)
    statement = sa.update(model.table).where(there).values(status=make(), subject="written")
    return connection.execute(statement, make.parameters).rowcount


@path("`IN` and expanding parameters in WHERE", on="connection")
def expanding(connection: sa.Connection, model: Model, make: Make) -> Any:
    ids = model.table.c.id.in_(sa.bindparam("ids", expanding=True))
    statement = sa.update(model.table).where(ids, model.table.c.code.in_(IDS))
    statement = statement.values(status=make(), subject="written")
    return connection.execute(statement, {"ids": list(IDS), **make.parameters}).rowcount


@path("a CTE that reads, in WHERE", on="connection")
def reading_cte(connection: sa.Connection, model: Model, make: Make) -> Any:
    cte = sa.select(model.other.c.message_id).where(model.other.c.message_id > 0).cte("mine")
    statement = sa.update(model.table).where(model.table.c.id.in_(sa.select(cte.c.message_id)))
    return connection.execute(statement.values(status=make(), subject="written"), make.parameters).rowcount


@path("`ordered_values()`", on="connection")
def ordered_values(connection: sa.Connection, model: Model, make: Make) -> Any:
    columns = model.table.c
    statement = sa.update(model.table).where(columns.id > 0)
    statement = statement.ordered_values((columns.subject, "written"), (columns.status, make()))
    return connection.execute(statement, make.parameters).rowcount


@path("RETURNING", on="connection")
def core_update_returning(connection: sa.Connection, model: Model, make: Make) -> int:
    statement = core(model, make).returning(model.table.c.id, model.table.c.status)
    return len(connection.execute(statement, make.parameters).all())


@path("`lambda_stmt()`", on="connection")
def lambda_statement(connection: sa.Connection, model: Model, make: Make) -> Any:
    table, value, whole = model.table, make(), core(model, make)
    if make.kind == "value":
        statement = sa.lambda_stmt(
            lambda: sa.update(table).where(table.c.id > 0).values(status=value, subject="written")
        )
    else:  # values() in a lambda takes no expression that it closes over
        statement = sa.lambda_stmt(lambda: whole)
    return connection.execute(statement, make.parameters).rowcount


@path("an alias", on="connection", databases=POSTGRESQL)
def alias(connection: sa.Connection, model: Model, make: Make) -> Any:
    other_name = model.table.alias("m")
    statement = sa.update(other_name).where(other_name.c.id > 0)
    return connection.execute(statement.values(status=make(other_name.c), subject="written"), make.parameters).rowcount


@path("`schema_translate_map`", on="connection", databases=POSTGRESQL, tenant=True)
def schema_translate_map(connection: sa.Connection, model: Model, make: Make) -> Any:
    return connection.execute(core(model, make), make.parameters).rowcount


@path("`yield_per` with RETURNING", drivers=_STREAMING)
def yield_per(session: Session, model: Model, make: Make) -> int:
    statement = orm(model, make).returning(model.entity.id)
    return len(session.execute(statement, make.parameters, execution_options={"yield_per": 2}).all())


@path("`await AsyncSession.execute(update(M))`", on="async session")
async def async_session(session: Any, model: Model, make: Make) -> Any:
    return (await session.execute(orm(model, make), make.parameters)).rowcount


@path("`await AsyncConnection.execute()`", on="async connection")
async def async_connection(connection: Any, model: Model, make: Make) -> Any:
    return (await connection.execute(core(model, make), make.parameters)).rowcount


@path("`await AsyncSession.stream()` with RETURNING", on="async session", drivers=_STREAMING)
async def async_session_stream(session: Any, model: Model, make: Make) -> int:
    statement = orm(model, make).returning(model.entity.id)
    result = await session.stream(statement, make.parameters)
    return len([each async for each in result])


@path("`AsyncConnection.stream()` with RETURNING", on="async connection", drivers=_STREAMING)
async def async_connection_stream(connection: Any, model: Model, make: Make) -> int:
    statement = core(model, make).returning(model.table.c.id)
    async with connection.stream(statement, make.parameters) as result:
        return len([each async for each in result])


@path("a CTE that writes", on="connection", databases=POSTGRESQL, reported=False)
def writing_cte(connection: sa.Connection, model: Model, make: Make) -> int:
    cte = core(model, make).returning(model.table.c.id).cte("moved")
    return len(connection.execute(sa.select(cte.c.id), make.parameters).all())


# --- upserts of rows that are there -----------------------------------------------------------------------------------


def upsert(db: Any, target: Any) -> Any:
    """Return the database's own INSERT."""
    name = db.get_bind().dialect.name if isinstance(db, Session) else db.dialect.name
    return (postgresql if name == "postgresql" else sqlite).insert(target)


def proposed(make: Make) -> list[dict[str, Any]]:
    """Return rows 1 to 6, each in the state that it is to get."""
    names = make.model.table.c.keys()
    rows = [row(number, "letter", make.plain, None) for number in IDS]
    return [{name: value for name, value in each.items() if name in names} for each in rows]


def updated(statement: Any, make: Make) -> dict[str, Any]:
    """Return what DO UPDATE sets."""
    return {"status": statement.excluded.status if make.kind == EXCLUDED else make(), "subject": "written"}


@path("`ON CONFLICT DO UPDATE`, several rows", on="connection", extra=(EXCLUDED,))
def upsert_rows(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values(proposed(make))
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=updated(statement, make))
    return connection.execute(statement, make.parameters).rowcount


@path("… `executemany`", on="connection", extra=(EXCLUDED,), many=True)
def upsert_executemany(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=updated(statement, make))
    return connection.execute(statement, [{**each, **make.parameters} for each in proposed(make)]).rowcount


@path("… with a WHERE of its own", on="connection", extra=(EXCLUDED,))
def upsert_where(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values(proposed(make))
    statement = statement.on_conflict_do_update(
        index_elements=[model.table.c.id], set_=updated(statement, make), where=model.table.c.id > 0
    )
    return connection.execute(statement, make.parameters).rowcount


@path("… by the name of a constraint", on="connection", extra=(EXCLUDED,), databases=POSTGRESQL, names=None)
def upsert_constraint(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values(proposed(make))
    statement = statement.on_conflict_do_update(constraint=f"{model.table.name}_code", set_=updated(statement, make))
    return connection.execute(statement, make.parameters).rowcount


@path("… by a partial index, `index_where`", on="connection", extra=(EXCLUDED,))
def upsert_index_where(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values(proposed(make))
    statement = statement.on_conflict_do_update(
        index_elements=["slot"], index_where=sa.text("slot > 0"), set_=updated(statement, make)
    )
    return connection.execute(statement, make.parameters).rowcount


@path("… from a SELECT", on="connection", extra=(EXCLUDED,), names=False)
def upsert_from_select(connection: sa.Connection, model: Model, make: Make) -> Any:
    number = model.other.c.message_id
    query = sa.select(number, sa.literal(make.plain, model.table.c.status.type), number, number).where(number > 0)
    statement = upsert(connection, model.table).from_select(["id", "status", "code", "slot"], query)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=updated(statement, make))
    return connection.execute(statement, make.parameters).rowcount


@path("ORM upsert with RETURNING", extra=(EXCLUDED,), without=but("by set", why="SQLAlchemy 2.0 loses it"))
def orm_upsert_returning(session: Session, model: Model, make: Make) -> int:
    statement = upsert(session, model.entity).values(proposed(make))
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=updated(statement, make))
    options = {"populate_existing": True}
    result = session.scalars(statement.returning(model.entity), make.parameters, execution_options=options)
    return len(result.all())


# --- INSERT -----------------------------------------------------------------------------------------------------------

_NO_COLUMN = but("column", why="an INSERT has no row to take it from")


def _insert_path(name: str, *, rows: int = 1, without: dict[str, str] | None = None, **options: Any) -> Any:
    return path(name, inserts=rows, without={**_NO_COLUMN, **(without or {})}, **{"on": "connection", **options})


def new(number: int, **more: Any) -> dict[str, Any]:
    """Return a new row without its state."""
    return {"id": number, "subject": "written", **more}


@_insert_path("`connection.execute(insert(table).values(…))`")
def core_insert(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.insert(model.table).values(status=make.alone(), **new(1))
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("… of a table without a class", shape="table")
def core_insert_without_mapper(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.insert(model.table).values(status=make.alone(), **new(1))
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("… of a bare `sqlalchemy.table()`")
def bare_table_insert(connection: sa.Connection, model: Model, make: Make) -> Any:
    table = sa.table(model.table.name, *(sa.column(each.key, each.type) for each in model.table.columns))
    return connection.execute(sa.insert(table).values(status=make.alone(), **new(1)), make.parameters).rowcount


@_insert_path("`insert().values([{…}, …])`", rows=3)
def multi_values(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.insert(model.table).values([new(n, status=make.alone()) for n in (1, 2, 3)])
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("`insert(), [{…}, …]`", rows=3, many=True, without=only(*BY_SET, why=_ONLY_SETS))
def insert_executemany(connection: sa.Connection, model: Model, make: Make) -> Any:
    return connection.execute(sa.insert(model.table), [make.set(id=n) for n in (1, 2, 3)]).rowcount


@_insert_path("`insert().values(status=…), [{…}, …]`", rows=3, many=True)
def insert_executemany_with_a_value(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = sa.insert(model.table).values(status=make.alone())
    return connection.execute(statement, [{**new(n), **make.parameters} for n in (1, 2, 3)]).rowcount


@_insert_path("`insert().returning()`")
def insert_returning(connection: sa.Connection, model: Model, make: Make) -> int:
    statement = sa.insert(model.table).values(status=make.alone(), **new(1)).returning(model.table.c.id)
    return len(connection.execute(statement, make.parameters).all())


@_insert_path("`insert().from_select()`", rows=len(IDS), names=False, without={})
def from_select(connection: sa.Connection, model: Model, make: Make) -> Any:
    number = model.other.c.message_id
    value = model.other.c.word if make.kind == "column" else make.alone()
    if make.kind in ("value", "TypeDecorator"):
        value = sa.literal(value, model.table.c.status.type)
    elif make.kind == "NULL":
        value = sa.cast(value, sa.String)
    query = sa.select(number, value, sa.literal("written"))
    statement = sa.insert(model.table).from_select(["id", "status", "subject"], query)
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("`lambda_stmt()` of an INSERT")
def lambda_insert(connection: sa.Connection, model: Model, make: Make) -> Any:
    table, value = model.table, make.alone()
    whole = sa.insert(table).values(status=value, **new(1))
    if make.kind == "value":
        statement = sa.lambda_stmt(lambda: sa.insert(table).values(status=value, id=1, subject="written"))
    else:
        statement = sa.lambda_stmt(lambda: whole)
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("`session.execute(insert(M).values(…))`", on="session")
def orm_insert(session: Session, model: Model, make: Make) -> None:
    statement = sa.insert(model.entity).values(status=make.alone(), **new(1))
    session.execute(statement, make.parameters)


@_insert_path("`session.execute(insert(M), [{…}])`", on="session", rows=3, without=only(*BY_SET, why=_ONLY_SETS))
def orm_bulk_insert(session: Session, model: Model, make: Make) -> None:
    session.execute(sa.insert(model.entity), [make.set(id=n) for n in (1, 2, 3)])


@_insert_path(
    "… `.returning(M, sort_by_parameter_order=True)`",
    on="session",
    rows=3,
    without=only(*BY_SET, why=_ONLY_SETS),
)
def orm_bulk_insert_returning(session: Session, model: Model, make: Make) -> int:
    statement = sa.insert(model.entity).returning(model.entity, sort_by_parameter_order=True)
    objects = session.scalars(statement, [make.set(id=n) for n in (1, 2, 3)]).all()
    assert [each.id for each in objects] == [1, 2, 3]
    return len(objects)


@_insert_path("`bulk_insert_mappings()`", on="session", rows=3, without=only(*BY_SET, why=_ONLY_SETS))
def bulk_insert_mappings(session: Session, model: Model, make: Make) -> None:
    session.bulk_insert_mappings(model.entity, [make.set(id=n) for n in (1, 2, 3)])


@_insert_path(
    "`bulk_save_objects()` of new objects",
    on="session",
    rows=3,
    without=only(*BY_SET, why="the objects hold plain values"),
)
def bulk_save_new_objects(session: Session, model: Model, make: Make) -> None:
    session.bulk_save_objects([model.entity(**make.set(id=n)) for n in (1, 2, 3)])


@_insert_path(
    "a flush of new objects, for comparison",
    on="session",
    rows=3,
    without=but("by set", "text()", why="an attribute does not take it"),
)
def flush_of_new_objects(session: Session, model: Model, make: Make) -> None:
    objects = [model.entity(**new(n, status=make.alone())) for n in (1, 2, 3)]
    session.add_all(objects)
    session.flush()


@_insert_path(
    "`insert(Sub), [{…}]`, joined inheritance",
    on="session",
    rows=3,
    shape="joined",
    without=only(*BY_SET, why=_ONLY_SETS),
)
def orm_bulk_insert_joined(session: Session, model: Model, make: Make) -> None:
    session.execute(sa.insert(model.entity), [make.set(id=n) for n in (1, 2, 3)])


@_insert_path("`ON CONFLICT DO UPDATE`, rows that are new", rows=3)
def upsert_new_rows(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values([new(n, status=make.alone()) for n in (1, 2, 3)])
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": statement.excluded.status})
    return connection.execute(statement, make.parameters).rowcount


@_insert_path("`ON CONFLICT (id) DO NOTHING`, rows that are new", rows=3)
def do_nothing_with_target(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values([new(n, status=make.alone()) for n in (1, 2, 3)])
    return connection.execute(statement.on_conflict_do_nothing(index_elements=["id"]), make.parameters).rowcount


@_insert_path("`ON CONFLICT DO NOTHING`, rows that are new", rows=3)
def do_nothing_without_target(connection: sa.Connection, model: Model, make: Make) -> Any:
    statement = upsert(connection, model.table).values([new(n, status=make.alone()) for n in (1, 2, 3)])
    return connection.execute(statement.on_conflict_do_nothing(), make.parameters).rowcount


@_insert_path("`await AsyncSession.execute(insert(M))`", on="async session")
async def async_session_insert(session: Any, model: Model, make: Make) -> None:
    statement = sa.insert(model.entity).values(status=make.alone(), **new(1))
    await session.execute(statement, make.parameters)


@_insert_path("`await AsyncConnection.execute(insert(table))`", on="async connection")
async def async_connection_insert(connection: Any, model: Model, make: Make) -> Any:
    statement = sa.insert(model.table).values(status=make.alone(), **new(1))
    return (await connection.execute(statement, make.parameters)).rowcount


# --- the table of the documentation -----------------------------------------------------------------------------------


def _in_code(kinds: Iterable[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)


def shown_kinds(path: Path) -> str:
    """Return a cell of the table: which kinds of value a path is tested with, and why not the others."""
    if path.without and len(path.kinds) <= 3:
        return f"{_in_code(path.kinds)}; – {next(why for kind, why in path.without.items() if kind != 'column')}"
    shown = "all" if not path.extra else f"all, {_in_code(path.extra)}"
    reasons: dict[str, list[str]] = {}
    for kind, why in path.without.items():
        reasons.setdefault(why, []).append(kind)
    return "; ".join([shown, *(f"– {_in_code(kinds)}: {why}" for why, kinds in reasons.items())])


def shown_databases(path: Path) -> str:
    """Return a cell of the table: the databases, and the drivers where it is not all of them."""
    if path.drivers is None:
        return ", ".join(path.databases)
    on_postgresql = [each for each in path.drivers if is_postgresql(each)]
    return f"SQLite, PostgreSQL ({', '.join(on_postgresql)})"


def shown_report(path: Path) -> str:
    """Return a cell of the table: what the error, the operation and the counts know."""
    if not path.reported:
        return "nothing; the fence leaves illegal rows as they are"
    return "every row by its move" + {True: "", False: ", no keys", None: ", not always the keys"}[path.names]


def table() -> str:
    """Return the table of docs/statements.md."""
    lines = ["| write path | kinds of value | modes | databases | reported |", "| --- | --- | --- | --- | --- |"]
    for each in PATHS:
        cells = each.name, shown_kinds(each), "all three", shown_databases(each), shown_report(each)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
