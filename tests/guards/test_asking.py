"""available() and can(): what the next flush would accept, asked without doing anything."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, mapped_column

from statekit import StatekitError, TransitionTable, available, can, guard
from tests.guards.inbox import TABLE, Status, fill, message_class, new_base


class Plain(enum.Enum):
    READY = "ready"
    PROMOTED = "promoted"
    COMPLETED = "completed"
    SPAM_REVIEW = "spam review"


@pytest.fixture
def message(memory_engine: sa.Engine) -> Any:
    message = message_class()
    fill(memory_engine, message, "READY", "PROMOTED", "COMPLETED")
    return message


@pytest.fixture
def session(memory_engine: sa.Engine) -> Any:
    with Session(memory_engine) as session:
        yield session


class TestAvailable:
    @pytest.mark.parametrize(("row", "targets"), [(1, ["SPAM_REVIEW", "PROMOTED"]), (2, ["COMPLETED"]), (3, [])])
    def test_are_the_transitions_out_of_the_state(
        self, session: Session, message: Any, row: int, targets: list[str]
    ) -> None:
        assert [each.target for each in available(session.get_one(message, row))] == targets

    def test_go_by_the_row_and_not_by_what_was_assigned_since(self, session: Session, message: Any) -> None:
        """The net move is what a flush judges."""
        one = session.get_one(message, 1)
        one.status = "PROMOTED"
        assert [each.target for each in available(one)] == ["SPAM_REVIEW", "PROMOTED"]

    def test_load_an_expired_state(self, session: Session, message: Any) -> None:
        one = session.get_one(message, 2)
        session.expire(one)
        assert [each.target for each in available(one)] == ["COMPLETED"]

    def test_of_a_new_object_are_those_out_of_the_state_that_it_will_start_in(self, message: Any) -> None:
        assert [each.target for each in available(message())] == ["SPAM_REVIEW", "PROMOTED"]
        assert [each.target for each in available(message(status="PROMOTED"))] == ["COMPLETED"]

    def test_of_an_object_in_an_unknown_state_are_none(self, message: Any) -> None:
        assert available(message(status="LEGACY")) == ()

    def test_change_nothing(self, session: Session, message: Any) -> None:
        one = session.get_one(message, 1)
        available(one)
        can(one, "PROMOTED")
        assert one not in session.dirty


class TestCan:
    @pytest.mark.parametrize(("target", "expected"), [("PROMOTED", True), ("COMPLETED", False)])
    def test_says_whether_the_move_is_legal(self, session: Session, message: Any, target: str, expected: bool) -> None:
        assert can(session.get_one(message, 1), target) is expected

    def test_knows_the_states_and_what_may_have_been_meant(self, session: Session, message: Any) -> None:
        with pytest.raises(StatekitError, match="'PROMOTE' is no state of the table.*Did you mean 'PROMOTED'"):
            can(session.get_one(message, 1), "PROMOTE")

    def test_takes_the_value_of_a_member_as_a_table_does(self) -> None:
        message = message_class(type_=sa.Enum(Plain), default=None)(status=Plain.READY)
        assert can(message, "promoted")
        assert can(message, "PROMOTED")

    def test_takes_a_member(self, session: Session, message: Any) -> None:
        assert can(session.get_one(message, 1), Status.PROMOTED)

    def test_says_no_to_staying(self, session: Session, message: Any) -> None:
        assert not can(session.get_one(message, 1), "READY")


class TestSeveralGuards:
    @pytest.fixture
    def parcel(self) -> Any:
        class Parcel(new_base()):  # type: ignore[misc]
            __tablename__ = "parcel"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            payment = mapped_column(sa.String(20))

        guard(Parcel.status, TABLE)
        guard(Parcel.payment, TransitionTable("DUE → PAID"))
        return Parcel(status="READY", payment="DUE")

    @pytest.mark.parametrize("by", ["name", "attribute"])
    def test_need_to_be_told_apart(self, parcel: Any, by: str) -> None:
        attribute = "payment" if by == "name" else type(parcel).payment
        assert [each.target for each in available(parcel, attribute)] == ["PAID"]
        assert can(parcel, "PAID", attribute)

    def test_are_listed_if_none_is_named(self, parcel: Any) -> None:
        with pytest.raises(StatekitError, match="Parcel has several guarded attributes.*status, payment"):
            available(parcel)

    def test_are_listed_if_another_is_named(self, parcel: Any) -> None:
        with pytest.raises(StatekitError, match="no guarded attribute called 'state'; it has: status, payment"):
            can(parcel, "PAID", "state")


class TestNoGuard:
    def test_is_said(self) -> None:
        with pytest.raises(StatekitError, match="Message has no guard"):
            available(message_class(table=None)())

    def test_is_said_with_the_reason_if_the_mixin_was_forgotten(self) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            __transitions__ = {"status": TABLE}
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        with pytest.raises(StatekitError, match="does not derive from statekit.Guarded"):
            available(Message())

    def test_is_not_said_of_a_class(self, message: Any) -> None:
        with pytest.raises(StatekitError, match="An object is asked for, and Message is a class"):
            available(message)

    def test_is_said_of_what_is_not_mapped_at_all(self) -> None:
        with pytest.raises(StatekitError, match="int has no guard"):
            available(7)


def test_a_state_assigned_before_it_was_loaded_is_an_error(session: Session, message: Any) -> None:
    one = session.get_one(message, 1)
    session.expire(one)
    one.status = "PROMOTED"
    with pytest.raises(StatekitError, match="flush or refresh the object"):
        available(one)


@pytest.mark.parametrize("ask", [available, lambda obj, attribute: can(obj, "READY", attribute)])
def test_the_attribute_of_another_class_is_not_meant(ask: Any) -> None:
    message, other = message_class(), message_class(name="other")
    with pytest.raises(StatekitError, match="Message has no guarded attribute called 'status'"):
        ask(message(), other.status)
