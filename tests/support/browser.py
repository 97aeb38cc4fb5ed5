"""A real browser for the tests of pages: Chromium through Playwright, one that the machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import installed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

VARIABLE = "STATEKIT_TEST_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = [
    "--no-sandbox",  # root has none, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NoBrowser(Exception):
    """There is no browser here; the text says what to do about it."""


def chromium(playwrights_own: str) -> str:
    """Return the program: what the variable names, else one of the system, else the one that Playwright has installed.

    Args:
        playwrights_own: where Playwright would have put its own.

    Raises:
        NoBrowser: there is none.
    """
    if named := os.environ.get(VARIABLE):
        if (found := shutil.which(named)) is None:
            raise NoBrowser(f"{VARIABLE}={named}: there is no such program")
        return found
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if Path(playwrights_own).exists():
        return playwrights_own
    raise NoBrowser(
        f"no browser: none of {', '.join(_NAMES)} is on the PATH, and Playwright has none; apt-get install chromium, "
        f"playwright install chromium, or {VARIABLE}=/path/to/it"
    )


def launch(playwright: Playwright) -> Browser:
    """Start the browser.

    Raises:
        NoBrowser: there is none.
    """
    program = chromium(playwright.chromium.executable_path)
    return playwright.chromium.launch(executable_path=program, args=_OPTIONS)


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Return a browser, which ends with the test: as long as it runs, no other event loop can run in this thread."""
    missing = pytest.fail if request.config.getoption("--require-browser") else pytest.skip
    if not installed("playwright"):
        missing("no browser: the package playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        try:
            started = launch(playwright)
        except NoBrowser as error:
            missing(str(error))
            raise
        with started:
            yield started
