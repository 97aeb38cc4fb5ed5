"""Bulk transitions in the background, with Procrastinate: retries, and several workers on several machines.

A Procrastinate job is one step: one call, of at most the budget. It defers the next step, which does what is left. So
a worker that is to stop waits for one budget at most, the other jobs of the queue get their turn, and each step has all
of its attempts.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from statekit.bulk.preparing import preparing
from statekit.bulk.records import new_token
from statekit.bulk.result import BulkResult
from statekit.errors import StatekitError


class ProcrastinateMissing(StatekitError, ImportError):
    """The package procrastinate is not installed."""


try:
    from procrastinate import App, Blueprint, JobContext, RetryStrategy
    from procrastinate.exceptions import AlreadyEnqueued, JobAborted
    from procrastinate.job_context import AbortReason
    from procrastinate.jobs import Job, Status
    from procrastinate.retry import BaseRetryStrategy
    from procrastinate.tasks import Task
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "procrastinate":
        raise
    raise ProcrastinateMissing(
        "statekit.bulk.procrastinate needs the package procrastinate, which is not installed: pip install "
        '"statekit[procrastinate]"'
    ) from error

BUDGET = dt.timedelta(seconds=30)
"""How long a step takes at most where nobody says otherwise."""

STALLED = 5
"""After how many steps in a row in which nobody has moved a row the next one is an error."""

RETRY = RetryStrategy(max_attempts=8, exponential_wait=3)
"""Where nobody says otherwise, a step is tried again eight times, after 3, 9, 27, … seconds: in under three hours."""

_TAKEN = ("workers",)


class BulkTask:
    """A bulk transition that workers of Procrastinate do until it is finished.

    Declare it where the application's tasks are: every worker needs it.

    Args:
        app: the App of Procrastinate, or a Blueprint; its tables are in PostgreSQL.
        function: what makes the call: a function with ``job`` and ``budget`` among its keyword arguments, which it
            hands to :func:`statekit.transition_all`, and which returns the result. Its other arguments are those of
            :meth:`defer`. A coroutine function that awaits :func:`statekit.bulk.atransition_all` works as well.
        name: of the task, by which workers know it; None for the name of the function, with that of its module.
        queue: the queue in which the steps are.
        budget: how long a step takes at most, and so how long a worker that is to stop waits for it.
        retry: what becomes of a step that ends with an error, as Procrastinate's tasks have it: a strategy, how often
            it is tried again, True for ever, or False.

    Raises:
        StatekitError: an argument is not what is described here.

    Attributes:
        task: the task of Procrastinate that does a step.
    """

    def __init__(
        self,
        app: App | Blueprint,
        function: Callable[..., BulkResult] | Callable[..., Awaitable[BulkResult]],
        *,
        name: str | None = None,
        queue: str = "default",
        budget: dt.timedelta = BUDGET,
        retry: bool | int | BaseRetryStrategy = RETRY,
    ) -> None:
        if not isinstance(app, Blueprint):
            raise StatekitError(f"BulkTask({app!r}, …): give the App of Procrastinate, or a Blueprint.")
        self._signature = _checked(function)
        if not isinstance(budget, dt.timedelta) or budget <= dt.timedelta(0):
            raise StatekitError(
                f"BulkTask(budget={budget!r}): give a time that is longer than none, such as timedelta(seconds=30)."
            )
        self._function: Callable[..., Any] = function
        self._name = name or f"{function.__module__}.{function.__qualname__}"
        self._budget = budget
        self._is_async = inspect.iscoroutinefunction(function)
        self.task: Task[Any, Any, Any] = app.task(name=self._name, queue=queue, retry=retry, pass_context=True)(
            self._step
        )

    # -- from the application

    def defer(self, *, workers: int = 1, job: str | None = None, **arguments: Any) -> str:
        """Make the job, and have workers of Procrastinate do it.

        What is to move is counted now; nothing is moved yet.

        Args:
            workers: how many may work on it at the same time.
            job: the token of a job to go on with, with the arguments that it was begun with: one whose steps have
                failed, or one that more workers are to share. None begins a new one.
            arguments: those of the function, as JSON can hold them.

        Returns:
            The token of the job: for ``statekit jobs``, :func:`statekit.bulk.cancel` and :func:`statekit.bulk.jobs`.

        Raises:
            StatekitError: an argument is not what is described here, or the function is a coroutine function.
        """
        self._check(workers, job, arguments)
        if self._is_async:
            raise StatekitError(
                f"{self._name} is a coroutine function, and defer() has no event loop: await defer_async(…)."
            )
        with preparing():  # which looks at a job that is there already
            job = self._token_of(self._function(job=job, budget=self._budget, **arguments))
        first = self._first_steps(job, workers, arguments)
        self.task.configure().job_manager.batch_defer_jobs(jobs=first)
        return job

    async def defer_async(self, *, workers: int = 1, job: str | None = None, **arguments: Any) -> str:
        """Do what :meth:`defer` does, in an event loop; a function that is none of coroutines runs in a thread."""
        self._check(workers, job, arguments)
        with preparing():  # which looks at a job that is there already
            job = self._token_of(await self._call(job, arguments))
        first = self._first_steps(job, workers, arguments)
        await self.task.configure().job_manager.batch_defer_jobs_async(jobs=first)
        return job

    def _check(self, workers: Any, job: Any, arguments: dict[str, Any]) -> None:
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise StatekitError(f"defer(workers={workers!r}): give how many may work on the job, 1 or more.")
        if job is not None and (not isinstance(job, str) or not job):
            raise StatekitError(f"defer(job={job!r}): give the token of a job, or None for a new one.")
        try:
            self._signature.bind(job=job, budget=self._budget, **arguments)
        except TypeError as error:
            raise StatekitError(f"defer(): {error}. {self._name} takes {self._signature}.") from None
        try:
            kept = json.loads(json.dumps(arguments))
        except (TypeError, ValueError) as error:
            raise StatekitError(
                f"defer(): {error}. The arguments wait in the database as JSON: give texts and numbers, such as the "
                "id of a row instead of the row."
            ) from None
        if changed := [name for name, value in arguments.items() if kept[name] != value]:
            raise StatekitError(
                f"defer({changed[0]}={arguments[changed[0]]!r}): the arguments wait in the database as JSON, which "
                f"makes {kept[changed[0]]!r} of it. Give what stays as it is."
            )

    def _token_of(self, result: Any) -> str:
        if not isinstance(result, BulkResult):
            raise StatekitError(f"{self._name} returned {result!r}: have it return what transition_all(…) returns.")
        return result.job

    def _first_steps(self, job: str, workers: int, arguments: dict[str, Any]) -> list[Job]:
        steps = ((new_token()[:8], job, arguments) for _ in range(workers))
        return [
            self._deferrer(chain, 1).make_new_job(job=token, arguments=kept, chain=chain, number=1)
            for chain, token, kept in steps
        ]

    def _deferrer(self, chain: str, number: int, **options: Any) -> Any:
        """Return what defers a step; it waits at most once.

        There is no lock on the chain: whoever is free would find the next step locked, and look again after seconds.
        """
        return self.task.configure(queueing_lock=f"{self.task.name}:{chain}:{number}", **options)

    async def _is_followed(self, chain: str, number: int) -> bool:
        """Return whether later steps of a chain are there: this one was killed after it had deferred the next one."""
        manager = self.task.configure().job_manager
        for status in (Status.TODO, Status.DOING):
            for each in await manager.list_jobs_async(task=self.task.name, status=status.value):
                if each.task_kwargs["chain"] == chain and cast("int", each.task_kwargs["number"]) > number:
                    return True
        return False

    # -- in a worker

    async def _step(
        self,
        context: JobContext,
        *,
        job: str,
        arguments: dict[str, Any],
        chain: str,
        number: int,
        done: int = 0,
        stalled: int = 0,
    ) -> dict[str, Any] | None:
        """Do one step, and defer the next one.

        Args:
            context: what Procrastinate says of this step.
            job: the token.
            arguments: those of the function.
            chain: what the steps of one worker have in common.
            number: of this step in its chain.
            done: how many rows had moved after the step before.
            stalled: how many steps in a row nobody had moved a row.
        """
        result: BulkResult | None = None
        try:
            result = await self._call(job, arguments)
        except asyncio.CancelledError:
            if context.abort_reason() is None:
                raise
            _forget_cancellation()  # nothing of this step is lost, and what comes now is to come to its end
        if result is not None:
            if self._token_of(result) != job:
                raise StatekitError(
                    f"{self._name} has begun the job {result.job!r} instead of going on with {job!r}. Have it hand its "
                    "argument on: transition_all(…, job=job)."
                )
            if result.finished or result.cancelled:
                return result.to_dict()
            stalled = stalled + 1 if result.stalled and result.done == done else 0
            done = result.done
            if stalled >= STALLED:
                raise StatekitError(
                    f"{self._name} has moved nothing in {stalled} steps in a row: {result}. What is left is locked, is "
                    f"kept back by the database, or one row takes longer than the budget of {self._budget}."
                )
        if context.abort_reason() is AbortReason.USER_REQUEST:
            raise JobAborted(f"{self._name} was aborted. To go on: defer(job={job!r}, …).")
        if not await self._is_followed(chain, number):
            following = self._deferrer(chain, number + 1, queue=context.job.queue, priority=context.job.priority)
            with suppress(AlreadyEnqueued):
                await following.defer_async(
                    job=job, arguments=arguments, chain=chain, number=number + 1, done=done, stalled=stalled
                )
        return None if result is None else result.to_dict()

    async def _call(self, job: str | None, arguments: dict[str, Any]) -> Any:
        if self._is_async:
            return await self._function(job=job, budget=self._budget, **arguments)
        thread = asyncio.ensure_future(asyncio.to_thread(self._function, job=job, budget=self._budget, **arguments))
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:  # a thread cannot be interrupted; it ends with the budget
            await asyncio.wait([thread])
            thread.exception()  # the next step meets it again, and says it
            raise


def _forget_cancellation() -> None:
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    task.uncancel()


def _checked(function: Any) -> inspect.Signature:
    """Return the signature of a function that can make the call.

    Raises:
        StatekitError: it cannot.
    """
    example = "def capture_spam(*, job, budget, sender): return transition_all(…, job=job, budget=budget)"
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise StatekitError(f"BulkTask(…, {function!r}): give a function, such as {example}.")
    signature = inspect.signature(function)
    parameters = signature.parameters
    by_name = {
        name
        for name, each in parameters.items()
        if each.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    if missing := [name for name in ("job", "budget") if name not in by_name]:
        raise StatekitError(
            f"BulkTask(…, {function.__qualname__}): the function has no keyword argument {' and no '.join(missing)}, "
            f"with which a step goes on and ends in time. Write it like {example}."
        )
    if taken := [name for name in _TAKEN if name in by_name]:
        raise StatekitError(
            f"BulkTask(…, {function.__qualname__}): {taken[0]} is an argument of defer() itself; call the function's "
            "another name."
        )
    if by_place := [name for name, each in parameters.items() if each.kind is inspect.Parameter.POSITIONAL_ONLY]:
        raise StatekitError(
            f"BulkTask(…, {function.__qualname__}): {by_place[0]} can be given by its place only, and the arguments of "
            "a task have names. Remove the / from the function."
        )
    return signature
