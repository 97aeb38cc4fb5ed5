"""An application with bulk transitions in the background, for the tests and for the worker processes that they start.

As a program: ``python -m tests.bulk.background URL [GRACE]`` is a worker, which says "ready" and works until it is told
to stop. Its running steps then have GRACE seconds; without it, as long as they take.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
from collections.abc import Callable
from typing import Any

import procrastinate
import sqlalchemy as sa
from procrastinate import PsycopgConnector, RetryStrategy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from statekit import ledger
from statekit.bulk import BulkResult, atransition_all, transition_all
from statekit.bulk.procrastinate import BulkTask
from tests.guards.inbox import message_class

BUDGET = dt.timedelta(seconds=0.4)
HEARTBEAT = 0.2
AT_ONCE = RetryStrategy(max_attempts=2, wait=0)


class Application:
    """The code that every worker of a test has.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self.message = message_class()
        ledger.add_to(self.message.metadata)
        self.engine = sa.create_engine(url, poolclass=NullPool)
        self.async_engine = create_async_engine(url, poolclass=NullPool)
        conninfo = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.app = procrastinate.App(connector=PsycopgConnector(conninfo=conninfo))
        self.calls: list[dict[str, Any]] = []

        def capture(*, job: str | None, budget: dt.timedelta, subject: str, rate: float | None = None) -> BulkResult:
            return transition_all(
                self.engine,
                self.message.status,
                "SPAM_REVIEW",
                where=self.message.subject == subject,
                operation="Spam capture",
                job=job,
                budget=budget,
                rate=rate,
            )

        async def acapture(
            *, job: str | None, budget: dt.timedelta, subject: str, rate: float | None = None
        ) -> BulkResult:
            return await atransition_all(
                self.async_engine,
                self.message.status,
                "SPAM_REVIEW",
                where=self.message.subject == subject,
                operation="Spam capture",
                job=job,
                budget=budget,
                rate=rate,
            )

        self.capture_function = capture
        self.capture = self.task(capture, "capture")
        self.acapture = self.task(acapture, "acapture")
        self.long = self.task(acapture, "long", budget=dt.timedelta(minutes=10))

        @self.app.periodic(cron="* * * * * *")
        @self.app.task(name="retry_stalled_jobs", queue="recovery", queueing_lock="recovery", pass_context=True)
        async def retry_stalled_jobs(context: procrastinate.JobContext, timestamp: int) -> None:
            manager = context.app.job_manager
            for each in await manager.get_stalled_jobs(seconds_since_heartbeat=10 * HEARTBEAT):
                await manager.retry_job(each)

    def task(self, function: Callable[..., Any], name: str, **options: Any) -> BulkTask:
        """Declare a bulk task of the application; an error is tried again twice, at once."""
        chosen: dict[str, Any] = {"queue": "bulk", "budget": BUDGET, "retry": AT_ONCE} | options
        return BulkTask(self.app, function, name=name, **chosen)

    def make_tables_of_procrastinate(self) -> None:
        """Apply Procrastinate's schema."""
        with self.app.open():
            self.app.schema_manager.apply_schema()

    async def work(self, **options: Any) -> None:
        """Do what waits in the queues, and end when nothing waits."""
        async with self.app.open_async():
            await self.app.run_worker_async(
                queues=["bulk"], wait=False, listen_notify=False, install_signal_handlers=False, **options
            )

    async def work_until(self, condition: Callable[[], bool]) -> None:
        """Work until something is so, and then end the step that is running."""
        async with self.app.open_async():
            worker = asyncio.create_task(
                self.app.run_worker_async(queues=["bulk"], listen_notify=False, install_signal_handlers=False)
            )
            while not condition():
                await asyncio.sleep(0.01)
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    def work_until_told(self, grace: float | None) -> None:
        """Work as a process of its own."""
        print("ready", flush=True)
        self.app.run_worker(
            queues=["bulk", "recovery"],
            concurrency=2,  # the recovery is not to wait for a step
            fetch_job_polling_interval=0.1,
            update_heartbeat_interval=HEARTBEAT,
            stalled_worker_timeout=10 * HEARTBEAT,
            shutdown_graceful_timeout=grace,
        )


if __name__ == "__main__":
    Application(sys.argv[1]).work_until_told(float(sys.argv[2]) if len(sys.argv) > 2 else None)
