"""The state of a new row that is not given: judged where it is known."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, counts, guard, operation
from tests.guards.inbox import TABLE, new_base, stored
from tests.support.databases import Databases, run

DEFAULTS: dict[str, Any] = {
    "scalar": lambda state: {"default": state},
    "callable": lambda state: {"default": lambda: state},
    "callable with context": lambda state: {"default": lambda context: state},
    "sql": lambda state: {"default": sa.func.upper(state.lower())},
    "server": lambda state: {"server_default": state},
}


def message_class(default: dict[str, Any], *, eager_defaults: Any = "auto", **options: Any) -> Any:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        __mapper_args__ = {"eager_defaults": eager_defaults}
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20), **default)

    guard(Message.status, TABLE, **options)
    return Message


@pytest.fixture(params=DEFAULTS)
def default(request: pytest.FixtureRequest) -> Any:
    return DEFAULTS[request.param]


@pytest.mark.parametrize("eager_defaults", ["auto", False])
class TestADefault:
    def test_that_is_an_initial_state_is_written(self, engine: sa.Engine, default: Any, eager_defaults: Any) -> None:
        message = message_class(default("READY"), eager_defaults=eager_defaults)
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2, status=None)])
            session.commit()
        assert stored(engine, message) == ["READY", "READY"]

    def test_that_is_another_state_is_refused(self, engine: sa.Engine, default: Any, eager_defaults: Any) -> None:
        message = message_class(default("COMPLETED"), eager_defaults=eager_defaults)
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([message(id=1), message(id=2)])
            with pytest.raises(IllegalTransition) as caught:
                session.flush()
            session.rollback()
        assert (caught.value.new, caught.value.pairs) == (True, {(None, "COMPLETED"): 2})
        assert counts(message.status) == {(None, "COMPLETED"): 2}
        assert stored(engine, message) == []


class TestNoDefault:
    def test_means_null_and_null_is_no_state_unless_declared(self, engine: sa.Engine) -> None:
        message = message_class({"nullable": True})
        message.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(message(id=1))
            with pytest.raises(IllegalTransition, match="a new row cannot start in NULL; allowed: READY"):
                session.flush()


def test_in_observe_is_counted_once_it_is_written(engine: sa.Engine, default: Any) -> None:
    message = message_class(default("COMPLETED"), on_illegal="observe")
    message.metadata.create_all(engine)
    with Session(engine) as session, operation("Import") as op:
        session.add(message(id=1))
        session.commit()
    assert op.observed == {(None, "COMPLETED"): 1}
    assert stored(engine, message) == ["COMPLETED"]


def test_through_an_async_session(async_engine: AsyncEngine, databases: Databases, default: Any) -> None:
    message = message_class(default("COMPLETED"), eager_defaults=False)
    message.metadata.create_all(databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg"))

    async def add() -> None:
        async with AsyncSession(async_engine) as session:
            session.add(message(id=1))
            await session.flush()

    with pytest.raises(IllegalTransition):
        run(add())


def test_that_is_refused_is_not_blamed_on_a_listener(engine: sa.Engine, default) -> None:
    message = message_class(default("COMPLETED"))
    message.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(message(id=1))
        with pytest.raises(IllegalTransition) as caught:
            session.flush()
    assert "while the flush was under way" not in str(caught.value)
