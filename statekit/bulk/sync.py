"""Bulk transitions in threads: with an Engine or a sessionmaker."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute, Session, scoped_session, sessionmaker

from statekit.bulk.options import BUDGET, Closing, Options
from statekit.bulk.preparing import in_time, is_preparing, preparing
from statekit.bulk.pressure import PoolState
from statekit.bulk.result import Batch, BulkResult
from statekit.bulk.run import Call, Run, Sleep, Tell, Work
from statekit.bulk.selection import Selection
from statekit.errors import StatekitError
from statekit.observe.modes import OnIllegal
from statekit.observe.place import place

Attribute = QueryableAttribute[Any] | sa.ColumnElement[Any]
Bind = sa.Engine | sessionmaker[Any] | scoped_session[Any]
Where = Any


def transition_all(
    bind_or_sessionmaker: Bind,
    attribute: Attribute,
    target: Any,
    *,
    where: Where = None,
    budget: dt.timedelta | None = BUDGET,
    operation: str | None = None,
    progress: Callable[[BulkResult], Any] | None = None,
    job: str | None = None,
    on_illegal: OnIllegal = "skip",
    deadline: dt.datetime | None = None,
    on_batch: Callable[[Batch], Any] | None = None,
    rate: float | None = None,
    pool_guard: PoolState | None = None,
) -> BulkResult:
    """Move all rows that a condition finds to a state, in batches, as many as fit into a budget of time.

    Each batch is a transaction of its own, with its rows, the job's counters and the place to go on from. Call it again
    with ``job=result.job`` until ``result.finished``: from any process, and from several at once.

    Args:
        bind_or_sessionmaker: an Engine, or a sessionmaker (a scoped_session) where sessions have options of their own;
            PostgreSQL or SQLite.
        attribute: a guarded attribute such as ``Message.status``, or a guarded column.
        target: the state that the rows are to get.
        where: what SELECT's ``where()`` takes, or a list of it; other tables may occur in it. Without it, every row in
            a state from which the table allows the target. With ``job``, it may be left out.
        budget: how long the call takes at most; None for no limit.
        operation: what logs, the ledger and the result call it, such as "Spam capture"; None for the name of the
            :func:`operation` around the call.
        progress: called with a :class:`BulkResult` before the first batch and after each one. If it has a ``close()``,
            as :func:`statekit.bulk.bar` has, that is called at the end.
        job: the token of a job to go on with; None begins a new one.
        on_illegal: what becomes of rows that the condition finds and that must not make the move. "skip": they stay,
            and are counted once. "raise": nothing is moved at all. "observe": they are moved and counted.
        deadline: a moment with its time zone by which the call has returned; it takes the place of ``budget``, and if
            both are given, the nearer one holds.
        on_batch: called with a :class:`Batch` after each batch has committed. What it raises ends the call, and the
            batch stays.
        rate: how many rows a second at most.
        pool_guard: anything with a ``state``: no batch begins while it is not "normal".

    Returns:
        How far the job has come; ``print()`` says it.

    Raises:
        IllegalTransition: in "raise", rows that the condition finds must not make the move. Nothing was moved.
        StatekitError: an argument is not what is described here; the tables of jobs are missing; or to count the rows
            takes longer than the budget.
        DBAPIError: the database refuses a batch for a reason that does not go away. What is done stays done.
    """
    chosen = Options(budget, deadline, operation, job, on_illegal, on_batch, rate, pool_guard, place(), progress)
    run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "transition_all")
    try:
        for result in _driven(run, opened):
            if progress is not None:
                progress(result)
    finally:
        if isinstance(progress, Closing):
            progress.close()
    return run.result


def transition_batches(
    bind_or_sessionmaker: Bind,
    attribute: Attribute,
    target: Any,
    *,
    where: Where = None,
    budget: dt.timedelta | None = BUDGET,
    operation: str | None = None,
    job: str | None = None,
    on_illegal: OnIllegal = "skip",
    deadline: dt.datetime | None = None,
    on_batch: Callable[[Batch], Any] | None = None,
    rate: float | None = None,
    pool_guard: PoolState | None = None,
) -> Generator[BulkResult, None, None]:
    """Do what :func:`transition_all` does, and yield a result before the first batch, after each one, and at the end.

    No transaction is open while the caller has the result, and the caller's time is a part of the budget. Who stops
    asking stops the call; the job can be gone on with.

    Args and errors are those of :func:`transition_all`; errors in the arguments are raised at once.

    Returns:
        A generator of :class:`BulkResult`; the last one is what :func:`transition_all` would have returned.
    """
    chosen = Options(budget, deadline, operation, job, on_illegal, on_batch, rate, pool_guard, place())
    run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "transition_batches")

    def results() -> Generator[BulkResult, None, None]:
        yield from _driven(run, opened)
        yield run.result

    return results()


def prepare(
    bind_or_sessionmaker: Bind,
    attribute: Attribute,
    target: Any,
    *,
    where: Where = None,
    operation: str | None = None,
    on_illegal: OnIllegal = "skip",
) -> BulkResult:
    """Count what is to move and begin a job, without moving anything and without a limit of time.

    Args and errors are those of :func:`transition_all`.

    Returns:
        A result with nothing done: its ``total``, its ``estimate`` where jobs before have shown a rate, and the ``job``
        to go on with.
    """
    chosen = Options(operation=operation, on_illegal=on_illegal, place=place())
    with preparing():
        run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "prepare")
        for _ in _driven(run, opened):
            pass
    return run.result


def _run(
    bind: Any, attribute: Any, target: Any, where: Any, options: Options, call: str
) -> tuple[Run, Callable[[], Session]]:
    opened = _opened(bind, call)
    return Run(Selection(attribute, target, where, call), in_time(options.checked(call))), opened


def _opened(bind: Any, call: str) -> Callable[[], Session]:
    """Return what opens a session for each transaction."""
    if isinstance(bind, sa.Engine):
        return lambda: Session(bind)
    if isinstance(bind, scoped_session):
        return bind.session_factory
    if isinstance(bind, sessionmaker):
        return bind
    hint = "Give an Engine or a sessionmaker."
    if isinstance(bind, Session | sa.Connection):
        hint = "A batch commits by itself, which your transaction is not meant for. " + hint
    elif "Async" in type(bind).__name__ or "async" in type(bind).__name__:
        hint = "In an async application: await atransition_all(…)."
    raise StatekitError(f"{call}({bind!r}, …): {hint}")


def _driven(run: Run, opened: Callable[[], Session]) -> Generator[BulkResult, None, None]:
    steps = run.steps(only_prepare=is_preparing())

    def done(function: Callable[[Session], Any]) -> Any:
        with opened() as session, session.begin():
            return function(session)

    try:
        step = next(steps)
        while True:
            answer = None
            if isinstance(step, Tell):
                yield step.result
            try:
                if isinstance(step, Work):
                    answer = done(step.function)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                elif isinstance(step, Call):
                    step.function(step.batch)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration:
        pass
    finally:
        steps.close()
        if run.can_leave:
            with suppress(sa.exc.SQLAlchemyError):  # else it runs out
                done(run.leave)
