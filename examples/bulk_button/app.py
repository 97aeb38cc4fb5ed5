"""The application: the page, and what its button calls.

Whoever may open the page may press the button here. In your application, add what asks who it is to the dependencies.
"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.bulk_button.model import Message, Status
from statekit import StatekitError, atransition_all
from statekit.bulk import jobs

BUDGET = dt.timedelta(seconds=1)
"""How long one request moves messages: far less than the platform allows, so that the bar moves every second."""

OPERATION = "Spam capture"

_log = logging.getLogger(__name__)
FOLDER = Path(__file__).parent
HEADERS = {
    # Only what this server sends: no other script, style, frame or connection.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Click(BaseModel):
    """What the page sends: no job at the first click, and then the token that it was given."""

    model_config = ConfigDict(extra="forbid")

    job: str | None = Field(default=None, max_length=32, pattern="^[!-~]+$")


def create_app(engine: AsyncEngine, *, budget: dt.timedelta | None = BUDGET) -> FastAPI:
    """Return the application.

    Args:
        engine: of a database that has the tables of the model.
        budget: how long one request moves messages at most; None for no limit.
    """
    app = FastAPI(title="Spam capture", openapi_url=None)

    @app.post("/capture", dependencies=[Depends(from_this_page)])
    async def capture(click: Click) -> dict[str, Any]:
        """Move as many messages as fit, and say how far the job has come."""
        job = await job_to_go_on_with(engine, click.job)
        result = await atransition_all(
            engine, Message.status, Status.SPAM_REVIEW, operation=OPERATION, budget=budget, job=job
        )
        return result.to_dict()

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(FOLDER / "page.html", headers=HEADERS)

    @app.get("/page.js", include_in_schema=False)
    async def script() -> FileResponse:
        return FileResponse(FOLDER / "page.js", media_type="text/javascript", headers=HEADERS)

    @app.get("/page.css", include_in_schema=False)
    async def style() -> FileResponse:
        return FileResponse(FOLDER / "page.css", headers=HEADERS)

    # FastAPI answers its own errors in JSON; these do so for all others.
    app.add_exception_handler(StatekitError, _not_now)
    app.add_exception_handler(exc.DBAPIError, _no_database)
    app.add_exception_handler(exc.TimeoutError, _no_database)
    app.add_exception_handler(Exception, _failed)
    return app


async def job_to_go_on_with(engine: AsyncEngine, token: str | None) -> str | None:
    """Return the job of a token; without one, the job that somebody has begun and nobody has finished.

    That is one of a second tab, or of a click whose answer was lost. If two first clicks come at the same moment, there
    are two jobs. They share the messages, and each one ends.

    Raises:
        HTTPException: there is no such job among the latest, or it is none of this button.
    """
    async with engine.connect() as connection:
        ours = [job for job in await connection.run_sync(jobs) if job.operation == OPERATION]
    if token is None:
        return next((job.id for job in ours if job.state in ("running", "waiting")), None)
    if token not in [job.id for job in ours]:
        raise HTTPException(409, "This capture is not known any more. Press the button to begin anew.")
    return token


def from_this_page(
    content_type: Annotated[str, Header()] = "",
    sec_fetch_site: Annotated[str, Header()] = "same-origin",
) -> None:
    """Refuse what another site has sent in the name of the user.

    A form cannot send JSON, and a browser does not let another site's script do so, as nothing here allows it to.
    """
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send JSON, with the header Content-Type: application/json.")
    if sec_fetch_site not in ("same-origin", "none"):
        raise HTTPException(403, "This does not come from the page.")


def _not_now(request: Request, error: Exception) -> JSONResponse:
    """Have the page try again, as when somebody else has locked the database; the text of the error is for the log."""
    _log.warning("%s", error)
    return _detail(503, "The server is busy.")


def _no_database(request: Request, error: Exception) -> JSONResponse:
    return _detail(503, "The database does not answer.")


def _failed(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody has foreseen; the server's log has it with its traceback."""
    return _detail(500, "Something went wrong on the server.")


def _detail(status: int, text: str) -> JSONResponse:
    return JSONResponse({"detail": text}, status)
