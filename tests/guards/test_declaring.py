"""A declaration that does not fit is refused where it is made; what it says is enough to mend it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    aliased,
    column_property,
    composite,
    configure_mappers,
    mapped_column,
    relationship,
    synonym,
)
from sqlalchemy.types import TypeDecorator

from statekit import Guarded, TableError, TransitionTable, guard
from tests.guards.inbox import TABLE, Status, message_class, new_base


class Small(enum.Enum):
    READY = "ready"
    DONE = "done"


class Other(enum.Enum):
    READY = "ready"
    DONE = "done"


class Crossed(enum.Enum):
    READY = "DONE"
    DONE = "READY"


def bare(type_: Any = None, **options: Any) -> Any:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(type_ or sa.String(20), **options)
        parent_id = mapped_column(sa.ForeignKey("message.id"))
        parent = relationship("Message", remote_side=[id])
        shouted = column_property(sa.func.upper(status))
        alias_of_status = synonym("status")
        both = composite(lambda a, b: (a, b), "id", "parent_id")

    return Message


def of_a_query() -> Any:
    class OfAQuery(new_base()):  # type: ignore[misc]
        __table__ = sa.select(bare().__table__).subquery()

    return OfAQuery


SMALL = TransitionTable("READY → DONE")

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a relationship": (lambda: guard(bare().parent, TABLE), "'parent' is a relationship.*status"),
    "an SQL expression": (lambda: guard(bare().shouted, TABLE), "an SQL expression"),
    "a composite": (lambda: guard(bare().both, TABLE), "guard"),
    "a synonym": (lambda: guard(bare().alias_of_status, TABLE), "stands for another one"),
    "an attribute of an alias": (lambda: guard(aliased(bare()).status, TABLE), "of an alias"),
    "a text": (lambda: guard("Message.status", TABLE), "an attribute of a mapped class, such as Message.status"),  # type: ignore[arg-type]
    "a class": (lambda: guard(bare(), TABLE), "an attribute of a mapped class"),
    "a column without a table": (lambda: guard(sa.Column("status", sa.String), TABLE), "belongs to no Table"),
    "no table": (lambda: guard(bare().status, "READY → DONE"), "is no TransitionTable"),  # type: ignore[arg-type]
    "an unknown mode": (lambda: guard(bare().status, TABLE, on_illegal="ignore"), '"raise".*"skip".*"observe"'),  # type: ignore[arg-type]
    "steps that are no bool": (lambda: guard(bare().status, TABLE, steps=1), "True or False"),  # type: ignore[arg-type]
    "steps of a mere column": (lambda: guard(bare().__table__.c.status, TABLE, steps=True), "attribute of the mapped"),
    "a second guard": (lambda: guard(message_class().status, TABLE), "is guarded already, by .*Message.status"),
    "a state that the Enum lacks": (
        lambda: guard(bare(sa.Enum(Small)).status, TABLE),
        "no member of Small.*DONE",
    ),
    "a state that the list of texts lacks": (
        lambda: guard(bare(sa.Enum("READY", "DONE", name="e")).status, TABLE),
        "none of the column's Enum. Allowed: READY, DONE",
    ),
    "a member that the table lacks": (
        lambda: guard(bare(sa.Enum(Status)).status, TransitionTable("READY → PROMOTED")),
        "does not know 'SPAM_REVIEW', 'COMPLETED'.*states=",
    ),
    "a text that the table lacks": (
        lambda: guard(bare(sa.Enum("READY", "DONE", "LATE", name="e")).status, SMALL),
        "does not know 'LATE'",
    ),
    "members of another Enum": (
        lambda: guard(bare(sa.Enum(Small)).status, TransitionTable((Other.READY, Other.DONE))),
        "members of Other, and the column's Enum is Small",
    ),
    "an ambiguous text": (
        lambda: guard(bare(sa.Enum(Crossed)).status, SMALL),
        "'READY' is ambiguous.*member itself",
    ),
    "members that a text column cannot store": (
        lambda: guard(bare().status, TransitionTable((Small.READY, Small.DONE))),
        r"cannot store them.*sqlalchemy.Enum\(Small\)",
    ),
    "a state too long for the column": (lambda: guard(bare(sa.String(8)).status, TABLE), "11 characters.*holds 8"),
    "a state that is no number": (lambda: guard(bare(sa.Integer).status, TABLE), "holds integers.*'READY' is none"),
    "NULL in a column that is NOT NULL": (
        lambda: guard(bare(nullable=False).status, TransitionTable((None, "READY"))),
        "NOT NULL",
    ),
    "a column of bytes": (
        lambda: guard(bare(sa.LargeBinary).status, SMALL),
        "cannot hold states.*text, Enum or integer",
    ),
    "a class that is mapped to a query": (lambda: guard(of_a_query().status, SMALL), "mapped to a query.*beneath it"),
    "states that a collation may take for the same": (
        lambda: guard(bare(sa.String(collation="NOCASE")).status, TransitionTable("ready → READY")),
        "differ by upper and lower case alone.*NOCASE",
    ),
    "a trigger that is neither there nor not": (
        lambda: guard(bare().status, TABLE, trigger="yes"),  # type: ignore[arg-type]
        "True, False, or None",
    ),
    "a default that is no state": (lambda: guard(bare(default="NEW").status, TABLE), "default 'NEW' is no state"),
}


@pytest.mark.parametrize("case", WRONG)
def test_is_refused_at_once(case: str) -> None:
    declare, message = WRONG[case]
    with pytest.raises(TableError, match=f"(?s){message}"):
        declare()


def test_what_was_refused_leaves_no_guard_behind() -> None:
    message = bare(sa.Enum(Small))
    with pytest.raises(TableError):
        guard(message.status, TABLE)
    guard(message.status, SMALL)


class TestTheMixin:
    def test_refuses_an_attribute_that_does_not_exist(self) -> None:
        with pytest.raises(TableError, match=r"Message.__transitions__\['stat'\].*has no attribute 'stat'.*id, status"):

            class Message(Guarded, new_base()):  # type: ignore[misc]
                __tablename__ = "message"
                __transitions__ = {"stat": TABLE}
                id = mapped_column(sa.Integer, primary_key=True)
                status = mapped_column(sa.String(20))

    def test_refuses_what_is_no_mapping(self) -> None:
        with pytest.raises(TableError, match="mapping of attribute name"):

            class Message(Guarded, new_base()):  # type: ignore[misc]
                __tablename__ = "message"
                __transitions__ = TABLE
                id = mapped_column(sa.Integer, primary_key=True)

    def test_refuses_another_table_for_an_inherited_column(self) -> None:
        class Message(Guarded, new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            __transitions__ = {"status": TABLE}
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        with pytest.raises(TableError, match="guarded already"):

            class Special(Message):
                __transitions__ = {"status": TransitionTable("READY → COMPLETED")}

    def test_refuses_a_relationship_that_comes_later(self) -> None:
        base = new_base()
        with pytest.raises(TableError, match="'parent' is a relationship"):

            class Message(Guarded, base):  # type: ignore[misc, valid-type]
                __tablename__ = "message"
                __transitions__ = {"parent": TABLE}
                id = mapped_column(sa.Integer, primary_key=True)
                parent_id = mapped_column(sa.ForeignKey("message.id"))
                parent = relationship("Message", remote_side=[id])

    def test_adds_nothing_to_a_class_without_a_table(self) -> None:
        class Message(Guarded, new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)

        configure_mappers()
        assert not Message.__table__.c.id.info


def test_a_subclass_cannot_guard_its_parents_column_by_itself() -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "message"}
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String(20))
        status = mapped_column(sa.String(20))

    class Special(Message):
        __mapper_args__ = {"polymorphic_identity": "special"}

    with pytest.raises(TableError, match=r"belongs to Message.*guard\(Message.status"):
        guard(Special.status, TABLE)


def test_the_abstract_base_of_concrete_classes_leaves_the_guard_to_them() -> None:
    base = new_base()

    class Item(Guarded, AbstractConcreteBase, base):  # type: ignore[misc, valid-type]
        __transitions__ = {"status": TABLE}
        strict_attrs = True

    class Message(Item):
        __tablename__ = "message"
        __mapper_args__ = {"polymorphic_identity": "message", "concrete": True}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    configure_mappers()
    with pytest.raises(TableError, match="guarded already"):
        guard(Message.status, TABLE)


def test_the_mixin_on_the_base_guards_only_what_declares_transitions() -> None:
    class Base(Guarded, DeclarativeBase):
        pass

    class Message(Base):
        __tablename__ = "message"
        __transitions__ = {"status": TABLE}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    class Other(Base):
        __tablename__ = "other"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))

    with pytest.raises(TableError, match="guarded already"):
        guard(Message.status, TABLE)
    guard(Other.status, TABLE)


def test_a_misspelt_name_for_the_transitions_is_noticed() -> None:
    with pytest.raises(TableError, match="Message.__transition__: the name that Guarded looks for is __transitions__"):

        class Message(Guarded, new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            __transition__ = {"status": TABLE}
            id = mapped_column(sa.Integer, primary_key=True)


def test_a_state_may_fill_the_column() -> None:
    message_class(type_=sa.String(len("SPAM_REVIEW")))


def test_two_states_that_are_stored_alike_are_refused() -> None:
    with pytest.raises(TableError, match="are both stored as '1'"):
        message_class(type_=sa.Integer(), table=TransitionTable("1 → 01"), default=None)


def test_a_state_that_the_type_stores_as_null_is_refused() -> None:
    class EmptyIsNull(TypeDecorator[str]):
        impl = sa.String(20)
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            return None if value == "NONE" else value

    with pytest.raises(TableError, match="stores the state 'NONE' as NULL"):
        message_class(type_=EmptyIsNull(), table=TransitionTable("NONE → DONE"), default=None)


def test_members_are_known_although_their_names_are_values_of_others() -> None:
    class Crossed(enum.Enum):
        A = "B"
        B = "A"

    message_class(type_=sa.Enum(Crossed), table=TransitionTable((Crossed.A, Crossed.B)), default=None)


def test_a_copy_of_a_guarded_table_may_have_a_table_of_its_own() -> None:
    message = message_class(default=None)
    copy = message.__table__.to_metadata(sa.MetaData())
    guard(copy.c.status, TransitionTable("NEW → OLD"))
    texts = [str(sa.update(table).values(status="x")) for table in (message.__table__, copy)]
    assert ["'OLD'" in text for text in texts] == [False, True]
