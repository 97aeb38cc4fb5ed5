"""The example in examples/bulk_button over HTTP: what its button calls. Its page is in test_bulk_page.py."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

import httpx

from examples.bulk_button import inbox
from examples.bulk_button.app import create_app
from statekit.bulk import jobs
from tests.examples.button import BUDGET, SECONDS, states
from tests.support.databases import all_async_backends, run

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def opened(database: AsyncEngine, *, budget: dt.timedelta = BUDGET, **filled: Any) -> AsyncIterator[Http]:
    """Give a client of the application, in this process and with a pool as an application has it."""
    engine = create_async_engine(database.url)
    try:
        if filled:
            await inbox.fill(engine, **filled)
        transport = httpx.ASGITransport(create_app(engine, budget=budget), raise_app_exceptions=False)
        async with Http(transport=transport, base_url="http://inbox.example") as http:
            yield http
    finally:
        await engine.dispose()


class Http(httpx.AsyncClient):
    """What a test has of the application."""

    async def click(self, job: str | None = None) -> dict[str, Any]:
        """Send one request, and return the answer."""
        response = await self.post("/capture", json={"job": job})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def until_finished(self, job: str | None = None) -> list[dict[str, Any]]:
        """Press the button and go on as the page does, also while the database is busy; return all answers."""
        answers: list[dict[str, Any]] = []
        for _ in range(100):
            response = await self.post("/capture", json={"job": job})
            if response.status_code == 503:
                await asyncio.sleep(0.1)
                continue
            assert response.status_code == 200, response.text
            answers.append(response.json())
            job = answers[-1]["job"]
            if answers[-1]["finished"]:
                return answers
        raise AssertionError(f"not finished: {answers[-1:]}")


@all_async_backends
def test_each_request_moves_what_fits_until_all_are_captured(async_engine: AsyncEngine) -> None:
    """300 messages of 2 ms do not fit 0.5 s; what an agent works on stays where it is."""

    async def body() -> None:
        async with opened(async_engine, ready=300, promoted=3, seconds=SECONDS) as http:
            answers = await http.until_finished()
        assert len(answers) > 1
        assert len({answer["job"] for answer in answers}) == 1
        done = [answer["done"] for answer in answers]
        assert done == sorted(done)
        assert answers[0]["text"] == f"Captured {done[0]} / 300 ({300 - done[0]} remaining)"
        assert answers[-1]["text"] == "Captured 300 / 300 (0 remaining)"
        async with async_engine.connect() as connection:
            assert await connection.run_sync(states) == {"SPAM_REVIEW": 300, "PROMOTED": 3}

    run(body())


@all_async_backends
def test_a_second_tab_goes_on_with_the_job_of_the_first(async_engine: AsyncEngine) -> None:
    """It knows no token; the work is shared, and each message counted once."""

    async def body() -> None:
        async with opened(async_engine, ready=300, seconds=SECONDS) as http:
            first = await http.click()
            assert not first["finished"]
            one, other = await asyncio.gather(http.until_finished(first["job"]), http.until_finished())
        assert {answer["job"] for answer in one + other} == {first["job"]}
        assert one[-1]["done"] == other[-1]["done"] == 300

    run(body())


@all_async_backends
def test_two_first_clicks_at_once_capture_each_message_once(async_engine: AsyncEngine) -> None:
    """Whether they make one job or two: both end, and the counters are the number of rows."""

    async def body() -> None:
        async with opened(async_engine, ready=100, seconds=SECONDS) as http:
            await asyncio.gather(http.until_finished(), http.until_finished())
        async with async_engine.connect() as connection:
            found = await connection.run_sync(jobs)
        assert sum(job.done for job in found) == 100
        assert {job.state for job in found} == {"finished"}

    run(body())


WRONG: dict[str, tuple[int, dict[str, Any]]] = {
    "no JSON": (422, {"content": "{", "headers": JSON}),
    "a number": (422, {"json": {"job": 7}}),
    "too long": (422, {"json": {"job": "a" * 33}}),
    "empty": (422, {"json": {"job": ""}}),
    "a zero byte": (422, {"json": {"job": "a\0"}}),
    "SQL": (422, {"json": {"job": "' OR 1 = 1"}}),
    "more than asked": (422, {"json": {"job": None, "where": "1 = 1"}}),
    "a form": (415, {"data": {"job": ""}}),
    "as text": (415, {"content": '{"job": null}', "headers": {"Content-Type": "text/plain"}}),
    "without a type": (415, {"content": b'{"job": null}'}),
    "of another site": (403, {"json": {"job": None}, "headers": {"Sec-Fetch-Site": "cross-site"}}),
    "unknown": (409, {"json": {"job": "0" * 32}}),
}


@pytest.mark.parametrize("async_engine", ["aiosqlite", "asyncpg"], indirect=True)
def test_what_the_page_does_not_send_is_refused_in_json(async_engine: AsyncEngine) -> None:
    """And moves nothing."""

    async def body() -> None:
        async with opened(async_engine, ready=5, seconds=0) as http:
            for name, (status, sent) in WRONG.items():
                response = await http.post("/capture", **sent)
                assert (name, response.status_code) == (name, status)
                assert response.json()["detail"], name
            assert (await http.get("/nowhere")).json()["detail"]
            assert (await http.get("/capture")).json()["detail"]
        async with async_engine.connect() as connection:
            assert await connection.run_sync(jobs) == []

    run(body())


@pytest.mark.parametrize("async_engine", ["aiosqlite", "asyncpg"], indirect=True)
def test_a_database_that_fails_is_json_without_its_text(async_engine: AsyncEngine) -> None:
    """The user cannot do anything with the SQL, and a stranger should not see it."""

    async def body() -> None:
        async with opened(async_engine) as http:  # no table has been made
            response = await http.post("/capture", json={"job": None})
        assert response.status_code >= 400
        assert set(response.json()) == {"detail"}
        assert not re.search("SELECT|statekit|message", response.text)

    run(body())


# --- the documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "file"), [("python", "app.py"), ("js", "page.js")])
def test_the_documentation_quotes_the_example(language: str, file: str) -> None:
    """Each block is in the file as it is, but for the indentation."""
    page = (ROOT / "docs" / "bulk-web.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.+?)^```", page, re.DOTALL | re.MULTILINE)
    assert blocks

    def lines(text: str) -> str:
        return "\n".join(line.strip() for line in text.strip().splitlines())

    whole = lines((ROOT / "examples" / "bulk_button" / file).read_text("utf-8"))
    for block in blocks:
        assert lines(block) in whole
