"""What stands before the application at many platforms: it ends a request that takes too long, with a page in HTML."""

from __future__ import annotations

import asyncio
from typing import Any

PAGE = b"<HTML><HEAD><TITLE>Inactivity Timeout</TITLE></HEAD><BODY>Too much time has passed.</BODY></HTML>"


class Platform:
    """An ASGI application around another one.

    The work of a request that was ended goes on, unseen: as in the incident, where a part of the spam was captured.

    Args:
        app: the application.
        seconds: how long a request may take.
    """

    def __init__(self, app: Any, seconds: float = 10) -> None:
        self._app = app
        self._seconds = seconds
        self._unseen: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_over = False

        async def send_in_time(message: Any) -> None:
            if not is_over:
                await send(message)

        work = asyncio.create_task(self._app(scope, receive, send_in_time))
        done, _ = await asyncio.wait({work}, timeout=self._seconds)
        if done:
            await work
            return
        is_over = True
        self._unseen.add(work)
        work.add_done_callback(self._unseen.discard)
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(PAGE)).encode())]
        await send({"type": "http.response.start", "status": 504, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})

    async def rest(self) -> None:
        """Wait for the work that goes on."""
        await asyncio.gather(*self._unseen, return_exceptions=True)
