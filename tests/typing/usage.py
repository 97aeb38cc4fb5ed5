"""User code as an editor and mypy see it. Only checked for its types, by `make lint`; it is never run."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import statekit
from statekit import (
    CommittedMove,
    ConcurrentTransition,
    Guarded,
    IllegalTransition,
    Transition,
    TransitionRefused,
    TransitionTable,
    atransition_all,
    available,
    bulk,
    can,
    counts,
    guard,
    ledger,
    on_commit,
    operation,
    override,
    transition_all,
)
from statekit.testing import EdgeTests, assert_blocked, in_state
from statekit.trigger import StateTrigger


class Status(enum.StrEnum):
    READY = "READY"
    PROMOTED = "PROMOTED"


class Base(DeclarativeBase):
    pass


class Message(Guarded, Base):
    __tablename__ = "message"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[Status] = mapped_column(default=Status.READY)

    __transitions__ = {
        "status": TransitionTable(
            Transition(Status.READY, "PROMOTED", event="promote"),
            Transition("PROMOTED", "READY", event="send_back", conditions=[lambda message: message.id > 7]),
            initial=Status.READY,
        )
    }

    @statekit.event
    def promote(self, reviewer: str) -> None:
        """Hand it to the team."""

    @statekit.event
    async def send_back(self, *, seconds: float = 1) -> None: ...


class Ticket(Base):
    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str | None]


plain = Table("plain", MetaData(), Column("id", Integer, primary_key=True), Column("state", String))

guard(Ticket.state, TransitionTable({"OPEN": ["CLOSED", "WAITING"]}, (None, "OPEN")), on_illegal="skip", steps=True)
guard(plain.c.state, TransitionTable("OPEN → CLOSED"), on_illegal="observe")
guard(Ticket.state, TransitionTable("OPEN → CLOSED"), on_illegal="ignore")  # type: ignore[arg-type]
guard(Message.status, TransitionTable("READY → PROMOTED"), trigger=True)
guard(Message.status, TransitionTable("READY → PROMOTED"), trigger="yes")  # type: ignore[arg-type]
guard("ticket.state", TransitionTable("OPEN → CLOSED"))  # type: ignore[arg-type]


def use(session: Session, message: Message) -> None:
    assert_type(message.status, Status)  # the guard changes no type
    with operation("Promotion", on_illegal="skip") as op:
        message.status = Status.PROMOTED
        session.flush()
    assert_type(op.blocked, Counter[tuple[str | None, str | None]])
    assert_type(op.moved, int)
    assert_type(counts(Message.status), Counter[tuple[str | None, str | None]])
    assert_type(available(message), tuple[Transition, ...])
    assert_type(can(message, Status.PROMOTED), bool)
    try:
        session.commit()
    except IllegalTransition as error:
        assert_type(error.source, str | None)
        assert_type(error.allowed, tuple[str | None, ...])
        assert_type(error.pairs, Counter[tuple[str | None, str | None]])
    except ConcurrentTransition as error:
        assert_type(error.target, str | None)


async def use_async(session: Session) -> None:
    async with statekit.operation("Promotion") as op:
        session.flush()
    assert_type(op.name, str)


def use_triggers(engine: Engine) -> None:
    trigger = StateTrigger("message", "status", [("READY", "PROMOTED"), (None, "READY")], initial=["READY"])
    assert_type(trigger.name, str)
    assert_type(trigger.create_sql("postgresql"), tuple[str, ...])
    assert_type(trigger.drop_sql(engine.dialect), tuple[str, ...])
    assert_type(StateTrigger.of(Message.status), StateTrigger)
    StateTrigger("message", "status", [("READY",)], initial=["READY"])  # type: ignore[list-item]
    StateTrigger("message", "status", [], initial=["READY"], on_illegal="ignore")  # type: ignore[arg-type]
    assert_type(counts(Message.status, bind=engine), Counter[tuple[str | None, str | None]])
    counts(Message.status, bind="postgresql://")  # type: ignore[arg-type]


def use_engines(engine: Engine, async_engine: AsyncEngine) -> None:
    statekit.warn_about_text(engine)
    statekit.warn_about_text(async_engine)


async def events(message: Message) -> None:
    assert_type(message.promote("Ada"), bool)
    assert_type(message.promote(reviewer="Ada"), bool)
    message.promote(7)  # type: ignore[arg-type]
    message.promote()  # type: ignore[call-arg]
    assert_type(await message.send_back(seconds=2), bool)
    try:
        message.promote("Ada")
    except TransitionRefused as error:
        assert_type(error.condition, str)
        assert_type(error.source, str | None)


def tests(session: Session) -> None:
    assert_type(in_state(session, Message(), "PROMOTED"), Message)
    with assert_blocked(Message.status, source=Status.READY, times=1) as blocked:
        session.flush()
    assert_type(blocked.pairs, Counter[tuple[str | None, str | None]])


class TestMessageStatus(EdgeTests):
    attribute = Message.status

    def make(self) -> Message:
        return Message()


@statekit.event  # type: ignore[arg-type]
def returns_something(self: Message) -> int:
    return self.id


@on_commit(Message.status, source="READY", target=(Status.PROMOTED,))
def announce(move: CommittedMove) -> None:
    assert_type(move.identity, tuple[Any, ...] | None)
    assert_type(move.operation, str | None)


announce(CommittedMove("Message", "status", (1,), "READY", "PROMOTED", None, "allowed"))
announce("PROMOTED")  # type: ignore[arg-type]


on_commit(plain.c.state)


@on_commit(Message.status)  # type: ignore[type-var]
def takes_two(one: CommittedMove, two: CommittedMove) -> None: ...


def repairs(session: Session, engine: Engine) -> None:
    with override("wrong queue", actor="ada") as block:
        assert_type(block.reason, str)
        session.commit()
    override()  # type: ignore[call-arg]
    override("why", "ada")  # type: ignore[call-arg]
    assert_type(ledger.attach(engine), ledger.Writer)
    assert_type(ledger.add_to(Message.metadata), ledger.Tables)
    query = select(Message).where(ledger.stuck(Message.status, Status.READY, longer_than=timedelta(days=3)))
    assert_type(session.scalars(query).all(), Sequence[Message])
    with engine.connect() as connection:
        assert_type(ledger.prune(connection), int)
    ledger.attach("sqlite://")  # type: ignore[arg-type]


def moves_many(engine: Engine, aengine: AsyncEngine, maker: sessionmaker[Session]) -> None:
    result = transition_all(engine, Message.status, Status.PROMOTED, where=Message.id > 7, operation="Spam capture")
    assert_type(result, bulk.BulkResult)
    assert_type(result.elapsed, timedelta)
    assert_type(result.estimate, timedelta | None)
    assert_type(result.to_dict(), dict[str, Any])
    transition_all(maker, plain.c.state, "SPAM_REVIEW", job=result.job, budget=None, progress=bulk.bar())
    transition_all(engine, Message.status, Status.PROMOTED, on_batch=lambda batch: print(batch.identities))
    for each in bulk.transition_batches(engine, Message.status, Status.PROMOTED, rate=100):
        assert_type(each, bulk.BulkResult)
    assert_type(bulk.jobs(engine), list[bulk.Job])
    assert_type(bulk.cancel(engine, result.job), bool)
    transition_all(aengine, Message.status, Status.PROMOTED)  # type: ignore[arg-type]
    transition_all(engine, Message.status, Status.PROMOTED, on_illegal="ignore")  # type: ignore[arg-type]
    transition_all(engine, Message.status, Status.PROMOTED, budget=8)  # type: ignore[arg-type]


async def moves_many_in_a_loop(aengine: AsyncEngine) -> None:
    async def tell(result: bulk.BulkResult) -> None: ...

    assert_type(await atransition_all(aengine, Message.status, "SPAM_REVIEW", progress=tell), bulk.BulkResult)
    async for each in bulk.atransition_batches(aengine, Message.status, "SPAM_REVIEW"):
        assert_type(each, bulk.BulkResult)
