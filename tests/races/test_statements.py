"""Statements that race never add up to an illegal move, and each move is counted once: on every driver, in each mode.

The transition table has cycles and the statements look for states, so that rows leave what a statement matches and
arrive in it between the question and the UPDATE.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from statekit import IllegalTransition, TransitionTable, guard, operation
from statekit.guards.statements import question
from tests.guards.inbox import fill, message_class
from tests.races.recorded import Outcome, check, keep_a_record
from tests.support.databases import Databases, run

TABLE = TransitionTable("READY → PROMOTED → COMPLETED", "READY → SPAM_REVIEW → READY", "PROMOTED → READY")
STATES = sorted(filter(None, TABLE.states))
WORKERS, ROWS, STATEMENTS = 8, 60, 40
MODES = ["raise", "skip", "observe"]

Write = Callable[[Session, Any, random.Random], Any]


def some(choose: random.Random) -> list[int]:
    """Return rows in the order of their keys, so that statements wait for each other and do not deadlock."""
    return sorted(choose.sample(range(1, ROWS + 1), 6))


def by_keys(session: Session, message: Any, choose: random.Random) -> Any:
    session.execute(sa.update(message).where(message.id.in_(some(choose))).values(status=choose.choice(STATES)))


def by_state(session: Session, message: Any, choose: random.Random) -> Any:
    source, target = choose.sample(STATES, 2)
    within = message.id.between(low := choose.randrange(ROWS), low + 15)
    session.execute(sa.update(message).where(message.status == source, within).values(status=target))


def by_an_expression(session: Session, message: Any, choose: random.Random) -> Any:
    one, other = choose.sample(STATES, 2)
    value = sa.case((message.status == one, other), else_=choose.choice(STATES))
    session.execute(
        sa.update(message).where(message.id.in_(some(choose))).values(status=value),
        execution_options={"synchronize_session": False},
    )


def by_primary_key(session: Session, message: Any, choose: random.Random) -> Any:
    session.execute(sa.update(message), [{"id": row, "status": choose.choice(STATES)} for row in some(choose)])


def by_another_parameter(session: Session, message: Any, choose: random.Random) -> Any:
    table = message.__table__
    statement = sa.update(table).where(table.c.id == sa.bindparam("row"), table.c.subject == "")
    moves = [{"row": row, "status": choose.choice(STATES)} for row in some(choose)]
    session.connection().execute(statement, moves)


def by_an_upsert(session: Session, message: Any, choose: random.Random) -> Any:
    dialect = session.get_bind().dialect.name
    insert = getattr(sa.dialects, dialect).insert(message.__table__)
    statement = insert.on_conflict_do_update(index_elements=["id"], set_={"status": insert.excluded.status})
    rows = [{"id": row, "status": choose.choice(STATES), "subject": ""} for row in some(choose)]
    session.connection().execute(statement, rows)


def by_a_flush(session: Session, message: Any, choose: random.Random) -> Any:
    for each in session.scalars(sa.select(message).where(message.id.in_(some(choose)))):
        each.status = choose.choice(STATES)
    session.flush()


WRITES: list[Write] = [
    by_keys, by_state, by_an_expression, by_primary_key, by_another_parameter, by_an_upsert, by_a_flush
]  # fmt: skip


def write(session: Session, message: Any, choose: random.Random, outcome: Outcome, writes: list[Write]) -> None:
    try:
        choose.choice(writes)(session, message, choose)
    except (IllegalTransition, sa.orm.exc.StaleDataError) as error:
        outcome.note(error)
        session.rollback()
    except exc.DBAPIError as error:
        if "deadlock" not in str(error):
            raise
        session.rollback()  # nothing was counted, because nothing was done
    else:
        session.commit()


def work(engine: sa.Engine, message: Any, mode: Any, worker: int, outcome: Outcome, writes: list[Write]) -> Any:
    choose = random.Random(worker)
    with operation("Race", on_illegal=mode) as op:
        for _ in range(STATEMENTS):
            with Session(engine) as session:
                write(session, message, choose, outcome, writes)
    return op


def race(engine: sa.Engine, mode: Any, writes: list[Write]) -> None:
    message = message_class(table=None)
    guard(message.status, TABLE)
    fill(engine, message, *["READY"] * ROWS)
    keep_a_record(engine)
    outcome = Outcome()
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(work, engine, message, mode, n, outcome, writes) for n in range(WORKERS)]
        operations = [future.result() for future in futures]
    check(engine, message, TABLE, mode, operations, outcome)


@pytest.mark.parametrize("mode", MODES)
def test_threads(engine: sa.Engine, mode: Any) -> None:
    race(engine, mode, WRITES)


@pytest.mark.parametrize("mode", MODES)
def test_threads_with_more_rows_than_are_held(engine: sa.Engine, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement itself shows whether something has changed, and is then done anew."""
    monkeypatch.setattr("statekit.guards.statements.question.HELD", 2)
    monkeypatch.setattr("statekit.guards.statements.one_update.HELD", 2)
    assert question.HELD == 2
    race(engine, mode, [by_keys, by_state, by_an_expression])


@pytest.mark.parametrize("mode", MODES)
def test_tasks(async_engine: AsyncEngine, databases: Databases, mode: Any) -> None:
    message = message_class(table=None)
    guard(message.status, TABLE)
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    fill(engine, message, *["READY"] * ROWS)
    keep_a_record(engine)
    outcome = Outcome()

    async def work(worker: int) -> Any:
        choose = random.Random(worker)
        with operation("Race", on_illegal=mode) as op:
            for _ in range(STATEMENTS):
                async with sa.ext.asyncio.AsyncSession(async_engine) as session:
                    await session.run_sync(write, message, choose, outcome, WRITES)
        return op

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(work(number) for number in range(WORKERS)))

    check(engine, message, TABLE, mode, run(all_of_them()), outcome)
