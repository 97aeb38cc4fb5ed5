"""The questions about the history, in the application's own queries."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, mapped_column

from statekit import StatekitError, guard, ledger, operation
from statekit.ledger import entered_at, history_of, stuck, time_in_state
from tests.guards.inbox import TABLE, message_class
from tests.history.ways import inbox, start

DAY = dt.timedelta(days=1)


def age(engine: sa.Engine, row: str, days: float) -> None:
    """Make the history of a row older."""
    table = ledger.add_to(sa.MetaData()).history
    with engine.begin() as connection:
        for number, at, key in connection.execute(sa.select(table.c.id, table.c.at, table.c.key)).all():
            if row in key:
                connection.execute(sa.update(table).where(table.c.id == number).values(at=at - dt.timedelta(days=days)))


@pytest.fixture(params=["guard", "trigger"])
def message(request: pytest.FixtureRequest, engine: sa.Engine) -> Any:
    """Return a class with messages 1 READY and 2 PROMOTED, since 5 days and since now."""
    made = inbox(engine, trigger=request.param == "trigger")
    start(engine, made, 2)
    age(engine, '"1"', 5)
    with operation("Promotion"), Session(engine) as session:
        session.get(made, 2).status = "PROMOTED"
        session.commit()
    return made


def test_the_history_of_a_row(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        rows = session.execute(history_of(message.status, 2)).all()
    assert [(row.source, row.target, row.is_new, row.operation) for row in rows] == [
        (None, "READY", True, None),
        ("READY", "PROMOTED", False, "Promotion"),
    ]


def test_when_a_row_has_entered_its_state(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        found = session.execute(sa.select(message.id, entered_at(message.status)).order_by(message.id)).all()
    now = dt.datetime.now(dt.UTC)
    ages = [now - at.replace(tzinfo=at.tzinfo or dt.UTC) for _, at in found]
    assert 5 * DAY <= ages[0] < 5.1 * DAY
    assert dt.timedelta(0) <= ages[1] < DAY


def test_how_long_a_row_is_in_its_state(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        found = session.execute(sa.select(message.id, time_in_state(message.status)).order_by(message.id))
        seconds = [row[1] for row in found]
    assert 5 * 86400 <= seconds[0] < 5.1 * 86400
    assert 0 <= seconds[1] < 3600


def test_which_rows_are_stuck(engine: sa.Engine, message: Any) -> None:
    def found(state: str, days: int) -> list[int]:
        with Session(engine) as session:
            return list(
                session.scalars(sa.select(message.id).where(stuck(message.status, state, longer_than=days * DAY)))
            )

    assert [found("READY", 3), found("READY", 6), found("PROMOTED", 3)] == [[1], [], []]


def test_of_an_alias(engine: sa.Engine, message: Any) -> None:
    other = aliased(message)
    query = sa.select(message.id, other.id).join(other, other.id <= message.id)
    with Session(engine) as session:
        found = session.execute(query.where(stuck(other.status, "READY", longer_than=3 * DAY)))
        assert sorted(map(tuple, found)) == [(1, 1), (2, 1)]


def test_of_a_column(engine: sa.Engine, message: Any) -> None:
    table = message.__table__
    with engine.connect() as connection:
        query = sa.select(table.c.id).where(stuck(table.c.status, "READY", longer_than=3 * DAY))
        assert connection.scalars(query).all() == [1]


def test_of_rows_without_a_history_nothing_is_known(engine: sa.Engine) -> None:
    message = message_class(history=True)
    ledger.add_to(message.metadata)
    message.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO message (id, status) VALUES (1, 'READY')")
    with Session(engine) as session:
        assert session.scalar(sa.select(entered_at(message.status))) is None
        assert session.scalars(sa.select(message).where(stuck(message.status, "READY", longer_than=DAY))).all() == []


def test_of_a_composite_key_and_of_a_subclass(engine: sa.Engine, base: Any) -> None:
    class Task(base):
        __tablename__ = "task"
        project = mapped_column(sa.String(10), primary_key=True)
        day = mapped_column(sa.Date, primary_key=True)
        kind = mapped_column(sa.String(10))
        state = mapped_column(sa.String(20), default="READY")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "task"}

    class Urgent(Task):
        __mapper_args__ = {"polymorphic_identity": "urgent"}

    guard(Task.state, TABLE, history=True)
    ledger.add_to(base.metadata)
    base.metadata.create_all(engine)
    day = dt.date(2026, 11, 25)
    with Session(engine) as session:
        session.add(Urgent(project="a", day=day))
        session.commit()
        assert [row.target for row in session.execute(history_of(Task.state, ("a", day)))] == ["READY"]
        age(engine, '"a"', 4)
        assert len(session.scalars(sa.select(Urgent).where(stuck(Urgent.state, "READY", longer_than=DAY))).all()) == 1


class TestBadInput:
    def test_without_a_history(self) -> None:
        with pytest.raises(StatekitError, match="has no guard with history=True"):
            entered_at(message_class().status)

    def test_with_another_number_of_parts(self) -> None:
        message = message_class(history=True)
        ledger.add_to(message.metadata)
        with pytest.raises(StatekitError, match="the primary key has 1 columns"):
            history_of(message.status, (1, 2))

    def test_with_a_negative_time(self) -> None:
        message = message_class(history=True)
        ledger.add_to(message.metadata)
        with pytest.raises(StatekitError, match="not negative"):
            stuck(message.status, "READY", longer_than=-DAY)
