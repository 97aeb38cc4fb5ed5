"""What the tests of examples/bulk_button share: the application on a port, and a page of it in a browser."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
import uvicorn
from sqlalchemy.pool import AsyncAdaptedQueuePool

from examples.bulk_button import inbox
from examples.bulk_button.app import create_app
from examples.bulk_button.platform import Platform
from tests.support.databases import Databases, run

BUDGET = dt.timedelta(seconds=0.5)
SECONDS = 0.002
"""What one message takes: a fifth of what it took in the incident."""


def states(connection: sa.Connection) -> Counter[str]:
    """Return how many messages the database has in each state."""
    counted = connection.execute(sa.text("SELECT status, count(*) FROM message GROUP BY status"))
    return Counter({row[0]: row[1] for row in counted})


@dataclass
class Served:
    """The application on a port of this machine, behind the platform, and what has been asked of it."""

    url: str
    engine: sa.Engine
    seconds: list[float] = field(default_factory=list)
    """What each request of the button has taken, in the order in which they ended."""

    def states(self) -> Counter[str]:
        """Return how many messages the database has in each state."""
        with self.engine.connect() as connection:
            return states(connection)


@contextmanager
def server(databases: Databases) -> Iterator[Callable[..., Served]]:
    """Give what fills an inbox on SQLite and serves it, in a thread that ends with the block."""
    stops: list[Callable[[], None]] = []

    def start(ready: int, *, budget: dt.timedelta | None = BUDGET, timeout: float = 60) -> Served:
        listening = socket.create_server(("127.0.0.1", 0))
        served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}/", databases.engine("sqlite"))
        engine = databases.async_engine("aiosqlite", poolclass=AsyncAdaptedQueuePool)
        platform = Platform(create_app(engine, budget=budget), timeout)

        async def measured(scope: Any, receive: Any, send: Any) -> None:
            begun = time.monotonic()
            await platform(scope, receive, send)
            if scope["path"] == "/capture":
                served.seconds.append(time.monotonic() - begun)

        server = uvicorn.Server(uvicorn.Config(measured, log_level="critical", lifespan="off", ws="none"))

        async def main() -> None:
            await inbox.fill(engine, ready=ready, seconds=SECONDS)
            await server.serve([listening])
            await platform.rest()
            await engine.dispose()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            listening.close()

        thread = threading.Thread(target=run, args=(main(),))
        thread.start()
        stops.append(stop)
        return served

    try:
        yield start
    finally:
        for stop in stops:
            stop()


class Visit:
    """A page that is open, and what its browser has complained of."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.clicks: list[str | None] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)
        self._url = served.url
        self.page.goto(served.url)
        self.button = self.page.get_by_role("button", name="Capture spam")
        self.bar = self.page.get_by_role("progressbar", name="Spam capture")
        self.status = self.page.get_by_role("status")
        self.problem = self.page.get_by_role("alert")

    def _note(self, request: Any) -> None:
        if request.url.endswith("/capture"):
            self.clicks.append(json.loads(request.post_data)["job"])
        if not request.url.startswith((self._url, "data:")):
            self.elsewhere.append(request.url)

    def wait_until_done(self, text: str) -> None:
        """Wait until the page says so."""
        expect(self.status).to_have_text(text)

    def wait_for_rows(self) -> None:
        """Wait until the bar shows the first rows."""
        expect(self.bar).not_to_have_js_property("value", 0)

    def record(self) -> None:
        """Have the page note each value of the bar and each text of the status."""
        self.page.evaluate(
            """() => {
                window.seen = [];
                const bar = document.getElementById("bar"), status = document.getElementById("status");
                const note = () => window.seen.push([bar.value, status.textContent]);
                new MutationObserver(note).observe(status, { childList: true });
            }"""
        )

    def recorded(self) -> tuple[list[float], list[str]]:
        """Return them, without what was the same as before."""
        values, texts = zip(*self.page.evaluate("window.seen"), strict=True)
        return list(dict.fromkeys(values)), list(dict.fromkeys(texts))


def expect(what: Any) -> Any:
    """Return Playwright's assertions, with patience for a busy machine."""
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=60_000)
    return expected(what)
