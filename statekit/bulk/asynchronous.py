"""Bulk transitions in event loops: with an AsyncEngine or an async_sessionmaker."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit.bulk.options import BUDGET, Closing, Options
from statekit.bulk.preparing import in_time, is_preparing, preparing
from statekit.bulk.pressure import PoolState
from statekit.bulk.result import Batch, BulkResult
from statekit.bulk.run import Call, Run, Sleep, Tell, Work
from statekit.bulk.selection import Selection
from statekit.errors import StatekitError
from statekit.observe.modes import OnIllegal
from statekit.observe.place import place

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker

    from statekit.bulk.sync import Attribute, Where

    AsyncBind = AsyncEngine | async_sessionmaker[Any] | async_scoped_session[Any]


async def atransition_all(
    bind_or_sessionmaker: AsyncBind,
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
    """Do what :func:`statekit.transition_all` does, in an event loop.

    Arguments, what is returned and errors are the same, but for these. A job that was begun by one of the two can be
    gone on with by the other.

    Args:
        bind_or_sessionmaker: an AsyncEngine, or an async_sessionmaker (an async_scoped_session).
        progress: a function or a coroutine function.
        on_batch: a function or a coroutine function.
    """
    chosen = Options(budget, deadline, operation, job, on_illegal, on_batch, rate, pool_guard, place(), progress)
    run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "atransition_all")
    try:
        async with aclosing(_driven(run, opened)) as results:
            async for result in results:
                if progress is not None:
                    await _answer(progress(result))
    finally:
        if isinstance(progress, Closing):
            progress.close()
    return run.result


def atransition_batches(
    bind_or_sessionmaker: AsyncBind,
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
) -> AsyncGenerator[BulkResult, None]:
    """Do what :func:`statekit.bulk.transition_batches` does, in an event loop: ``async for result in …``.

    Arguments and errors are those of :func:`atransition_all`.
    """
    chosen = Options(budget, deadline, operation, job, on_illegal, on_batch, rate, pool_guard, place())
    run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "atransition_batches")

    async def results() -> AsyncGenerator[BulkResult, None]:
        async with aclosing(_driven(run, opened)) as each:
            async for result in each:
                yield result
        yield run.result

    return results()


async def aprepare(
    bind_or_sessionmaker: AsyncBind,
    attribute: Attribute,
    target: Any,
    *,
    where: Where = None,
    operation: str | None = None,
    on_illegal: OnIllegal = "skip",
) -> BulkResult:
    """Do what :func:`statekit.bulk.prepare` does, in an event loop; arguments and errors are the same."""
    chosen = Options(operation=operation, on_illegal=on_illegal, place=place())
    with preparing():
        run, opened = _run(bind_or_sessionmaker, attribute, target, where, chosen, "aprepare")
        async for _ in _driven(run, opened):
            pass
    return run.result


def _run(
    bind: Any, attribute: Any, target: Any, where: Any, options: Options, call: str
) -> tuple[Run, Callable[[], AsyncSession]]:
    opened = _opened(bind, call)
    return Run(Selection(attribute, target, where, call), in_time(options.checked(call))), opened


def _opened(bind: Any, call: str) -> Callable[[], AsyncSession]:
    """Return what opens a session for each transaction."""
    # Only who has an event loop needs greenlet; `import statekit` and a look at its names do not.
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker

    if isinstance(bind, AsyncEngine):
        return lambda: AsyncSession(bind)
    if isinstance(bind, async_scoped_session):
        return bind.session_factory
    if isinstance(bind, async_sessionmaker):
        return bind
    hint = "Give an AsyncEngine or an async_sessionmaker."
    if isinstance(bind, sa.Engine):
        hint = "Without an event loop: transition_all(…)."
    elif isinstance(bind, AsyncSession) or "Connection" in type(bind).__name__:
        hint = "A batch commits by itself, which your transaction is not meant for. " + hint
    raise StatekitError(f"{call}({bind!r}, …): {hint}")


async def _answer(answered: Any) -> Any:
    return await answered if inspect.isawaitable(answered) else answered


async def _driven(run: Run, opened: Callable[[], AsyncSession]) -> AsyncGenerator[BulkResult, None]:
    steps = run.steps(only_prepare=is_preparing())

    async def done(function: Callable[[Session], Any]) -> Any:
        async with opened() as session, session.begin():
            return await session.run_sync(function)

    try:
        step = next(steps)
        while True:
            answer = None
            if isinstance(step, Tell):
                yield step.result
            try:
                if isinstance(step, Work):
                    answer = await done(step.function)
                elif isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Call):
                    await _answer(step.function(step.batch))
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration:
        pass
    finally:
        steps.close()
        if run.can_leave:
            leaving = asyncio.ensure_future(done(run.leave))
            try:
                await asyncio.shield(leaving)
            except asyncio.CancelledError:
                await asyncio.wait([leaving])  # it has a connection
                raise
            except sa.exc.SQLAlchemyError:
                pass  # the lease runs out
