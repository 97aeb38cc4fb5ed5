"""Serve the page on this machine, on SQLite, behind a platform that ends a request after 10 seconds."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import uvicorn
from sqlalchemy.ext.asyncio import create_async_engine

from examples.bulk_button.app import create_app
from examples.bulk_button.inbox import fill
from examples.bulk_button.platform import Platform


def main() -> None:
    """Read the arguments, and serve until Ctrl+C."""
    parser = argparse.ArgumentParser(prog="python -m examples.bulk_button", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="8000 if left out")
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory(prefix="statekit-demo-", ignore_cleanup_errors=True) as folder:
        asyncio.run(serve(Path(folder) / "inbox.sqlite", port))


async def serve(file: Path, port: int) -> None:
    """Make a fresh inbox, and serve it."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    try:
        await fill(engine)
        print(f"1,418 messages are ready: http://127.0.0.1:{port}/", flush=True)
        config = uvicorn.Config(Platform(create_app(engine)), port=port, log_level="warning", lifespan="off")
        await uvicorn.Server(config).serve()
    finally:
        await engine.dispose()


if __name__ == "__main__":
    main()
