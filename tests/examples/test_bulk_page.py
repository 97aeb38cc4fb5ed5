"""The page of examples/bulk_button in a real browser: the button of the incident, on a server behind a time-out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from statekit.bulk import cancel, jobs
from tests.examples.button import Served, Visit, expect, server
from tests.support.databases import Databases

TIMEOUT = 2.5
"""What the platform allows: 1,418 messages take 2.8 s at least."""


@pytest.fixture
def serve(databases: Databases) -> Iterator[Callable[..., Served]]:
    """Return what fills an inbox and serves it."""
    with server(databases) as start:
        yield start


def test_one_click_captures_the_1418_messages_of_the_incident(browser: Any, serve: Callable[..., Served]) -> None:
    """They take longer than the platform allows, and no request does; the bar moves with each one."""
    served = serve(1_418, timeout=TIMEOUT)
    visit = Visit(browser, served)
    visit.record()
    began = time.monotonic()
    visit.button.click()
    visit.wait_until_done("Captured 1,418 / 1,418 (0 remaining). All done.")
    assert time.monotonic() - began > TIMEOUT
    assert max(served.seconds) < TIMEOUT
    assert len(served.seconds) == len(visit.clicks) > 5
    values, texts = visit.recorded()
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(values) > 5
    for text in texts[:-1]:
        done, remaining = re.fullmatch(
            r"Captured ([\d,]+) / 1,418 \(([\d,]+) remaining\)(?:\. All done\.)?", text
        ).groups()  # type: ignore[union-attr]
        assert int(done.replace(",", "")) + int(remaining.replace(",", "")) == 1_418
    assert served.states() == {"SPAM_REVIEW": 1_418, "PROMOTED": 5}
    assert visit.errors == []
    assert visit.elsewhere == []
    assert visit.button.is_enabled()


def test_the_platform_is_that_of_the_incident(browser: Any, serve: Callable[..., Served]) -> None:
    """Without a budget the first request is ended by a page in HTML, of which the user reads no word."""
    served = serve(300, budget=None, timeout=0.3)
    visit = Visit(browser, served)
    visit.button.click()
    expect(visit.problem).not_to_be_empty()
    assert visit.problem.text_content() == (
        "The server has not answered as it should. What is done stays done. Trying again…"
    )


def test_the_button_is_disabled_meanwhile_and_a_double_click_does_no_harm(
    browser: Any, serve: Callable[..., Served]
) -> None:
    """The clicks make one row of requests, one after the other, of one job."""
    served = serve(300)
    visit = Visit(browser, served)
    visit.button.dblclick()
    assert visit.button.is_disabled()
    visit.page.evaluate("document.getElementById('button').dispatchEvent(new MouseEvent('click'))")
    visit.wait_until_done("Captured 300 / 300 (0 remaining). All done.")
    assert visit.clicks.count(None) == 1
    assert len(set(visit.clicks)) == 2
    assert len(jobs(served.engine)) == 1
    assert served.states() == {"SPAM_REVIEW": 300, "PROMOTED": 5}


def test_two_tabs_at_once_capture_each_message_once(browser: Any, serve: Callable[..., Served]) -> None:
    """They show the same job, of which each does a part."""
    served = serve(500)
    one, other = Visit(browser, served), Visit(browser, served)
    one.button.click()
    one.wait_for_rows()
    other.button.click()
    for visit in (one, other):
        visit.wait_until_done("Captured 500 / 500 (0 remaining). All done.")
    assert [job.done for job in jobs(served.engine)] == [500]
    assert served.states() == {"SPAM_REVIEW": 500, "PROMOTED": 5}


def test_after_a_reload_the_page_goes_on_by_itself(browser: Any, serve: Callable[..., Served]) -> None:
    """With the bar where it was, and the job that it had."""
    served = serve(500)
    visit = Visit(browser, served)
    visit.button.click()
    visit.wait_for_rows()
    before = visit.bar.evaluate("bar => bar.value")
    clicks = len(visit.clicks)
    visit.page.reload()
    assert visit.bar.evaluate("bar => bar.value") >= before
    visit.wait_until_done("Captured 500 / 500 (0 remaining). All done.")
    assert None not in visit.clicks[clicks:]
    assert len(jobs(served.engine)) == 1
    visit.page.reload()
    assert visit.button.is_enabled()
    assert visit.status.text_content() == ""


def test_a_reload_before_the_first_answer_goes_on_too(browser: Any, serve: Callable[..., Served]) -> None:
    """The page has no token yet; the server finds the job that was begun."""
    served = serve(300)
    visit = Visit(browser, served)
    visit.button.click(no_wait_after=True)
    while not jobs_of(served.engine):
        time.sleep(0.01)
    visit.page.reload()
    visit.wait_until_done("Captured 300 / 300 (0 remaining). All done.")
    assert len(jobs(served.engine)) == 1


def jobs_of(engine: sa.Engine) -> list[str]:
    """Return the jobs that have moved something."""
    return [job.id for job in jobs(engine) if job.done]


FAILURES: dict[str, Callable[[Any], None]] = {
    "an HTML page": lambda route: route.fulfill(
        status=504, content_type="text/html", body="<HTML><HEAD></HEAD><BODY>Inactivity Timeout</BODY></HTML>"
    ),
    "an HTML page that says it is fine": lambda route: route.fulfill(
        status=200, content_type="text/html", body="<!doctype html><p>Log in to the network of this train.</p>"
    ),
    "JSON of somebody else": lambda route: route.fulfill(status=200, content_type="application/json", body="[]"),
    "503": lambda route: route.fulfill(
        status=503, content_type="application/json", body='{"detail": "The database does not answer."}'
    ),
    "no network": lambda route: route.abort("connectionrefused"),
}
SAID = {"503": "The database does not answer.", "no network": "The server cannot be reached."}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_fails_is_said_plainly_and_tried_again(
    failure: str, browser: Any, serve: Callable[..., Served]
) -> None:
    """In the middle of the job, which then ends as if nothing had happened."""
    served = serve(300)
    visit = Visit(browser, served)
    requests = []

    def second_fails(route: Any) -> None:
        requests.append(route.request.post_data)
        FAILURES[failure](route) if len(requests) == 2 else route.continue_()

    visit.page.route("**/capture", second_fails)
    visit.button.click()
    expect(visit.problem).not_to_be_empty()
    said = SAID.get(failure, "The server has not answered as it should.")
    assert visit.problem.text_content() == f"{said} What is done stays done. Trying again…"
    assert visit.button.is_disabled()
    visit.wait_until_done("Captured 300 / 300 (0 remaining). All done.")
    assert visit.problem.text_content() == ""
    assert requests[1] == requests[2] == requests[-1]
    assert served.states() == {"SPAM_REVIEW": 300, "PROMOTED": 5}
    assert all(error.startswith("Failed to load resource") for error in visit.errors)


def test_when_all_attempts_fail_the_user_can_go_on_later(browser: Any, serve: Callable[..., Served]) -> None:
    """After pauses that grow, with the button, and with the job that was begun."""
    served = serve(300)
    visit = Visit(browser, served)
    visit.button.click()
    visit.wait_for_rows()
    visit.page.clock.install()
    visit.page.route("**/capture", FAILURES["an HTML page"])
    for _ in range(100):
        if visit.button.is_enabled():
            break
        visit.page.clock.run_for(8_000)
    assert visit.problem.text_content() == (
        "The server has not answered as it should. What is done stays done. Press the button to go on."
    )
    visit.page.unroute("**/capture")
    visit.button.click()
    visit.wait_until_done("Captured 300 / 300 (0 remaining). All done.")
    assert visit.problem.text_content() == ""
    assert len(jobs(served.engine)) == 1


def test_a_job_that_is_unknown_is_forgotten(browser: Any, serve: Callable[..., Served]) -> None:
    """As after a restore of the database; the next click begins anew."""
    served = serve(20)
    visit = Visit(browser, served)
    visit.page.evaluate(f"sessionStorage.setItem('spam-capture', JSON.stringify({{job: '{'0' * 32}'}}))")
    visit.page.reload()
    expect(visit.problem).not_to_be_empty()
    assert visit.problem.text_content() == "This capture is not known any more. Press the button to begin anew."
    visit.button.click()
    visit.wait_until_done("Captured 20 / 20 (0 remaining). All done.")


def test_a_job_that_somebody_has_cancelled_stops(browser: Any, serve: Callable[..., Served]) -> None:
    """As ``statekit jobs cancel`` does."""
    served = serve(500)
    visit = Visit(browser, served)
    visit.button.click()
    visit.wait_for_rows()
    (job,) = jobs_of(served.engine)
    assert cancel(served.engine, job)
    expect(visit.status).to_contain_text(". Stopped.")
    assert visit.button.is_enabled()
    assert served.states()["READY"] > 0


def luminance(color: str) -> float:
    """Return the relative luminance of a colour such as "rgb(11, 92, 173)", as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_texts_can_be_read_in_both_schemes(scheme: str, browser: Any, serve: Callable[..., Served]) -> None:
    """A contrast of 4.5 at least (AA), of the button also while it is disabled."""
    visit = Visit(browser, serve(1), color_scheme=scheme)
    colors = "(each) => [getComputedStyle(each).color, getComputedStyle(each).backgroundColor]"
    card = visit.page.locator("main").evaluate(colors)[1]
    pairs = {"button": visit.button.evaluate(colors)}
    visit.button.evaluate("each => { each.disabled = true }")
    pairs["disabled"] = visit.button.evaluate(colors)
    for name in ("h1", "p", "#status", "#problem"):
        pairs[name] = [visit.page.locator(name).first.evaluate(colors)[0], card]
    for name, pair in pairs.items():
        dark, light = sorted(map(luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, pair)
    assert (luminance(card) < 0.5) == (scheme == "dark")


def test_it_fits_a_narrow_screen(browser: Any, serve: Callable[..., Served]) -> None:
    """Nothing has to be moved sideways at 320 pixels, whatever the page says."""
    visit = Visit(browser, serve(50), viewport={"width": 320, "height": 640})
    visit.button.press("Enter")
    visit.wait_until_done("Captured 50 / 50 (0 remaining). All done.")
    expect(visit.bar).to_be_visible()
    visit.page.evaluate("document.getElementById('problem').textContent = 'A long word: ' + 'x'.repeat(100)")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 320
    expect(visit.button).to_be_focused()
