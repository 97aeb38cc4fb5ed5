"""Every kind of model: the same declaration, the same effect."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    column_property,
    declarative_base,
    declared_attr,
    mapped_column,
    registry,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.types import TypeDecorator

from statekit import Guarded, IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards.inbox import TABLE, Status, new_base


@dataclass
class Model:
    """A mapped class, how one is made in a state, and how its state is read and written.

    The states stand for READY, PROMOTED, COMPLETED and SPAM_REVIEW: the values that the attribute takes, and the texts
    that the database stores.
    """

    class_: Any
    make: Callable[[Any], Any]
    key: str = "status"
    values: tuple[Any, ...] = ("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW")
    texts: tuple[str, ...] = ("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW")
    may_start_anywhere: bool = False
    metadata: Any = None
    prepare: Callable[[sa.Engine], None] = lambda engine: None


MODELS: dict[str, Callable[[], Model]] = {}


def model(build: Callable[[], Model]) -> Callable[[], Model]:
    MODELS[build.__name__] = build
    return build


def simple(base: Any, type_: Any = None, table: TransitionTable = TABLE, **options: Any) -> Any:
    class Message(Guarded, base):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": table}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(type_ or sa.String(20), **options)

    return Message


def by_keyword(class_: Any, **more: Any) -> Callable[[Any], Any]:
    return lambda status: class_(status=status, **more)


@model
def declarative() -> Model:
    class_ = simple(new_base())
    return Model(class_, by_keyword(class_))


@model
def declarative_base_of_sqlalchemy_1() -> Model:
    class_ = simple(declarative_base())
    return Model(class_, by_keyword(class_))


@model
def guard_from_outside() -> Model:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    guard(Message.status, TABLE)
    return Model(Message, by_keyword(Message))


@model
def guard_after_the_mappers_are_configured() -> Model:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    sa.orm.configure_mappers()
    guard(Message.status, TABLE)
    return Model(Message, by_keyword(Message))


def imperative(guard_when: str) -> Model:
    mapping = registry()
    table = sa.Table(
        "message", mapping.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))
    )

    class Message:
        def __init__(self, status: str) -> None:
            self.status = status

    if guard_when == "before mapping":
        guard(table.c.status, TABLE)
    mapping.map_imperatively(Message, table)
    if guard_when == "after mapping":
        guard(Message.status, TABLE)  # type: ignore[arg-type]
    if guard_when == "after mapping, by column":
        guard(table.c.status, TABLE)
    return Model(Message, Message, metadata=mapping.metadata)


@model
def imperative_guarded_before_it_is_mapped() -> Model:
    return imperative("before mapping")


@model
def imperative_guarded_by_attribute() -> Model:
    return imperative("after mapping")


@model
def imperative_guarded_by_column() -> Model:
    return imperative("after mapping, by column")


@model
def imperative_with_the_mixin() -> Model:
    mapping = registry()
    table = sa.Table(
        "message", mapping.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))
    )

    class Message(Guarded):
        __transitions__ = {"status": TABLE}

    mapping.map_imperatively(Message, table)

    def make(status: str) -> Any:
        message: Any = Message()
        message.status = status
        return message

    return Model(Message, make, metadata=mapping.metadata)


@model
def dataclass_by_base() -> Model:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Message(Guarded, Base):
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        status: Mapped[str] = mapped_column(sa.String(20))

    return Model(Message, by_keyword(Message))


@model
def dataclass_by_decorator() -> Model:
    mapping = registry()

    @mapping.mapped_as_dataclass
    class Message(Guarded):
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        status: Mapped[str] = mapped_column(sa.String(20))

    return Model(Message, by_keyword(Message), metadata=mapping.metadata)


@model
def mapped_by_decorator() -> Model:
    mapping = registry()

    @mapping.mapped
    class Message(Guarded):
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(sa.String(20))

    return Model(Message, by_keyword(Message), metadata=mapping.metadata)


@model
def sqlmodel() -> Model:
    sqlmodel = pytest.importorskip("sqlmodel")

    class Base(sqlmodel.SQLModel, registry=registry()):  # type: ignore[misc, name-defined, call-arg]
        metadata = sa.MetaData()

    class Message(Guarded, Base, table=True):  # type: ignore[call-arg]
        __transitions__ = {"status": TABLE}
        id: int | None = sqlmodel.Field(default=None, primary_key=True)
        status: str

    return Model(Message, by_keyword(Message))


@model
def automap() -> Model:
    metadata = sa.MetaData()
    sa.Table("message", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20)))
    base = automap_base()
    built = Model(None, lambda status: built.class_(status=status), metadata=metadata)

    def prepare(engine: sa.Engine) -> None:
        base.prepare(autoload_with=engine)
        built.class_ = base.classes.message
        guard(built.class_.status, TABLE)

    built.prepare = prepare
    return built


@model
def reflected_later() -> Model:
    metadata = sa.MetaData()
    sa.Table("message", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20)))

    class Message(Guarded, DeferredReflection, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}

    return Model(Message, by_keyword(Message), metadata=metadata, prepare=lambda engine: Message.prepare(engine))


@model
def declared_on_a_mixin() -> Model:
    class WithStatus(Guarded):
        __transitions__ = {"status": TABLE}

        @declared_attr
        def status(cls) -> Mapped[str]:
            return mapped_column(sa.String(20))

    class Message(WithStatus, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)

    return Model(Message, by_keyword(Message))


@model
def declared_on_an_abstract_base() -> Model:
    class Abstract(Guarded, new_base()):  # type: ignore[misc]
        __abstract__ = True
        __transitions__ = {"status": TABLE}
        status: Mapped[str] = mapped_column(sa.String(20))

    class Message(Abstract):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Other(Abstract):
        __tablename__ = "other"
        id: Mapped[int] = mapped_column(primary_key=True)

    return Model(Other, by_keyword(Other))


@model
def single_table_subclass() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20))

    class Special(Message):
        __mapper_args__ = {"polymorphic_identity": "special"}

    return Model(Special, by_keyword(Special))


def joined() -> tuple[Any, Any]:
    class Item(new_base()):  # type: ignore[misc]
        __tablename__ = "item"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20), default="READY")

    class Message(Guarded, Item):
        __tablename__ = "message"
        __mapper_args__ = {"polymorphic_identity": "message"}
        __transitions__ = {"stage": TABLE}
        item_id = mapped_column(sa.ForeignKey("item.id"), primary_key=True)
        stage = mapped_column(sa.String(20))

    return Item, Message


@model
def joined_subclass_guarded_on_its_parent() -> Model:
    item, message = joined()
    guard(item.status, TABLE)
    return Model(message, lambda status: message(status=status, stage="READY"))


@model
def joined_subclass_with_a_guarded_column_of_its_own() -> Model:
    _, message = joined()
    return Model(message, lambda status: message(stage=status), key="stage")


@model
def concrete_subclass() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    class Archived(Message):
        __tablename__ = "archived"
        __mapper_args__ = {"concrete": True}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    return Model(Archived, by_keyword(Archived))


@model
def column_named_differently() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"state": TABLE}
        id = mapped_column("message id", sa.Integer, primary_key=True)
        state = mapped_column("the status", sa.String(20))

    return Model(Message, lambda status: Message(state=status), key="state")


@model
def composite_key() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        tenant = mapped_column(sa.String(20), primary_key=True)
        number = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    return Model(Message, by_keyword(Message, tenant="a'b", number=7))


@model
def uuid_key() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Uuid, primary_key=True, default=uuid.uuid4)
        status = mapped_column(sa.String(20))

    return Model(Message, by_keyword(Message))


@model
def table_in_a_schema() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __table_args__ = {"schema": "my app"}
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    def prepare(engine: sa.Engine) -> None:
        if engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.execute(sa.schema.CreateSchema("my app"))
            Message.metadata.create_all(engine)
        else:
            pytest.skip("SQLite has no schemas but attached databases")

    return Model(Message, by_keyword(Message), metadata=sa.MetaData(), prepare=prepare)


@model
def versioned() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        version = mapped_column(sa.Integer, nullable=False)
        __mapper_args__ = {"version_id_col": version}

    return Model(Message, by_keyword(Message))


@model
def two_guarded_columns() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE, "delivery": TransitionTable("NEW → SENT", initial="NEW")}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        delivery = mapped_column(sa.String(20), default="NEW")

    return Model(Message, by_keyword(Message))


@model
def with_a_column_property() -> Model:
    class Message(Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        shouted = column_property(sa.func.upper(status))

    return Model(Message, by_keyword(Message))


# --- types


class Plain(enum.Enum):
    READY = "ready"
    PROMOTED = "promoted"
    COMPLETED = "completed"
    SPAM_REVIEW = "spam review"


class Numbered(enum.IntEnum):
    READY = 1
    PROMOTED = 2
    COMPLETED = 3
    SPAM_REVIEW = 4


def members(class_: Any) -> tuple[Any, ...]:
    return class_.READY, class_.PROMOTED, class_.COMPLETED, class_.SPAM_REVIEW


@model
def str_enum() -> Model:
    class_ = simple(new_base(), sa.Enum(Status))
    return Model(class_, by_keyword(class_), values=members(Status))


@model
def enum_stored_as_text() -> Model:
    class_ = simple(new_base(), sa.Enum(Plain, native_enum=False, length=20))
    return Model(class_, by_keyword(class_), values=members(Plain))


@model
def enum_by_values() -> Model:
    class_ = simple(new_base(), sa.Enum(Plain, values_callable=lambda e: [each.value for each in e]))
    values = members(Plain)
    return Model(class_, by_keyword(class_), values=values, texts=tuple(each.value for each in values))


@model
def enum_in_a_table_of_members() -> Model:
    table = TransitionTable(
        (Plain.READY, Plain.SPAM_REVIEW), (Plain.READY, Plain.PROMOTED), ("PROMOTED", Plain.COMPLETED), initial="ready"
    )
    class_ = simple(new_base(), sa.Enum(Plain), table)
    return Model(class_, by_keyword(class_), values=members(Plain))


@model
def enum_of_texts() -> Model:
    class_ = simple(new_base(), sa.Enum("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW", name="plain_texts"))
    return Model(class_, by_keyword(class_))


@model
def str_enum_in_a_text_column() -> Model:
    table = TransitionTable({Status.READY: (Status.SPAM_REVIEW, Status.PROMOTED)}, (Status.PROMOTED, Status.COMPLETED))
    class_ = simple(new_base(), sa.String(20), table)
    return Model(class_, by_keyword(class_), values=members(Status), may_start_anywhere=True)


@model
def integer() -> Model:
    class_ = simple(new_base(), sa.Integer, TransitionTable("1 → 4", "1 → 2 → 3", initial="1"))
    return Model(class_, by_keyword(class_), values=(1, 2, 3, 4), texts=("1", "2", "3", "4"))


@model
def int_enum() -> Model:
    table = TransitionTable((Numbered.READY, Numbered.SPAM_REVIEW), "READY → PROMOTED → COMPLETED", initial="READY")
    class_ = simple(new_base(), sa.SmallInteger, table)
    return Model(class_, by_keyword(class_), values=members(Numbered), texts=("1", "2", "3", "4"))


class Coded(TypeDecorator[Plain]):
    """Stores an Enum as a number of its own."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else [*Plain].index(value) + 10

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else [*Plain][value - 10]


@model
def type_decorator() -> Model:
    table = TransitionTable((Plain.READY, Plain.SPAM_REVIEW), "READY → PROMOTED → COMPLETED", initial="READY")
    class_ = simple(new_base(), Coded, table)
    return Model(class_, by_keyword(class_), values=members(Plain), texts=("10", "11", "12", "13"))


class Decimals(TypeDecorator[str]):
    """Stores a word as a number with decimals, of which drivers give other values than they are given."""

    impl = sa.Numeric
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else ["READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW"].index(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else ["READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW"][int(value)]


@model
def type_of_which_drivers_give_other_values() -> Model:
    class_ = simple(new_base(), Decimals)
    return Model(class_, by_keyword(class_), texts=("0.0", "1.0", "2.0", "3.0"))


@model
def mapped_to_a_query() -> Model:
    table = sa.Table(
        "message", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))
    )
    guard(table.c.status, TABLE)
    query = sa.select(table).subquery()

    class Message(new_base()):  # type: ignore[misc]
        __table__ = query

    return Model(Message, by_keyword(Message), metadata=table.metadata)


@model
def states_that_need_quotes() -> Model:
    odd = ("READ'Y", 'PRO"MOTED', "COMP%(x)sLETED %", "__[POSTCOMPILE_\\ 🎉")
    table = TransitionTable((odd[0], odd[3]), (odd[0], odd[1]), (odd[1], odd[2]), initial=odd[0])
    class_ = simple(new_base(), sa.String(40), table)
    return Model(class_, by_keyword(class_), values=odd, texts=odd)


@model
def null_as_a_state() -> Model:
    table = TransitionTable((None, "SPAM_REVIEW"), (None, "PROMOTED"), ("PROMOTED", "COMPLETED"), initial=(None,))
    class_ = simple(new_base(), sa.String(20), table, nullable=True)
    values = (None, "PROMOTED", "COMPLETED", "SPAM_REVIEW")
    return Model(class_, by_keyword(class_), values=values, texts=values)  # type: ignore[arg-type]


@model
def null_as_a_target() -> Model:
    table = TransitionTable(("READY", "SPAM_REVIEW"), ("READY", None), (None, "COMPLETED"), initial="READY")
    class_ = simple(new_base(), sa.String(20), table, nullable=True)
    values = ("READY", None, "COMPLETED", "SPAM_REVIEW")
    return Model(class_, by_keyword(class_), values=values, texts=values)  # type: ignore[arg-type]


# --- what each of them does


@pytest.fixture(params=MODELS, ids=str)
def kind(request: pytest.FixtureRequest, engine: sa.Engine) -> Model:
    built = MODELS[request.param]()
    (built.metadata or built.class_.metadata).create_all(engine)
    built.prepare(engine)
    return built


def saved(session: Session, kind: Model, *path: int) -> Any:
    """Return an object that went the way of the given states, flush by flush."""
    obj = kind.make(kind.values[path[0]])
    session.add(obj)
    session.flush()
    for state in path[1:]:
        setattr(obj, kind.key, kind.values[state])
        session.flush()
    session.commit()
    return obj


class TestEveryKindOfModel:
    def test_makes_legal_moves(self, engine: sa.Engine, kind: Model) -> None:
        with Session(engine) as session:
            obj = saved(session, kind, 0, 1, 2)
            assert getattr(obj, kind.key) == kind.values[2]

    @pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
    def test_refuses_an_illegal_move(self, engine: sa.Engine, kind: Model, loaded: bool) -> None:
        with Session(engine) as session:
            obj = saved(session, kind, 0, 1)
            if loaded:
                session.refresh(obj)
            setattr(obj, kind.key, kind.values[3])
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
            session.rollback()
            error = caught.value
            assert (error.source, error.target, error.allowed) == (kind.texts[1], kind.texts[3], (kind.texts[2],))
            assert error.identity == sa.inspect(obj).identity
            assert getattr(obj, kind.key) == kind.values[1]
        assert counts(getattr(kind.class_, kind.key)) == {(kind.texts[1], kind.texts[3]): 1}

    def test_refuses_a_new_row_that_starts_elsewhere(self, engine: sa.Engine, kind: Model) -> None:
        if kind.may_start_anywhere:
            pytest.skip("this one has no initial states")
        with Session(engine) as session:
            session.add(kind.make(kind.values[2]))
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
        assert (caught.value.new, caught.value.target) == (True, kind.texts[2])

    def test_judges_a_statement(self, engine: sa.Engine, kind: Model) -> None:
        with Session(engine) as session:
            obj = saved(session, kind, 0, 1)
            column = next(iter(sa.inspect(kind.class_).get_property(kind.key).columns[0].base_columns))
            with pytest.raises(IllegalTransition) as caught:
                session.execute(sa.update(column.table).values({column: kind.values[3]}))
            assert caught.value.pairs == {(kind.texts[1], kind.texts[3]): 1}
            assert caught.value.identity == sa.inspect(obj).identity
            with operation("Moves", on_illegal="skip") as op:
                met = [
                    session.execute(sa.update(column.table).values({column: kind.values[state]})).rowcount
                    for state in (3, 2)
                ]
            assert met == [0, 1]
            session.commit()
            assert getattr(obj, kind.key) == kind.values[2]
        assert op.blocked == {(kind.texts[1], kind.texts[3]): 1}
        assert op.allowed == {(kind.texts[1], kind.texts[2]): 1}


def test_scoped_sessions_are_held_too(engine: sa.Engine) -> None:
    class_ = declarative().class_
    class_.metadata.create_all(engine)
    session = scoped_session(sessionmaker(engine))
    session.add(class_(status="COMPLETED"))
    with pytest.raises(IllegalTransition):
        session.flush()
    session.remove()


@pytest.mark.parametrize("engine", ["psycopg", "psycopg2"], indirect=True)
def test_blanks_that_postgresql_adds_to_char_are_no_part_of_a_state(engine: sa.Engine) -> None:
    class_ = simple(new_base(), sa.CHAR(20))
    class_.metadata.create_all(engine)
    with Session(engine) as session:
        obj = class_(status="READY")
        session.add(obj)
        session.commit()
        assert obj.status == "READY".ljust(20)
        obj.status = "PROMOTED"
        session.commit()
        session.expire(obj)
        obj.status = "SPAM_REVIEW"
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
    assert (caught.value.source, caught.value.target) == ("PROMOTED", "SPAM_REVIEW")
