"""The database that a command reads: its URL, a connection on any driver, sync or async, and no way to write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus

import click

from statekit.cli.errors import Failure

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

_FORM = "Write it as SQLAlchemy does, such as postgresql+psycopg://user@host/database or sqlite:///file.db"


def _parsed(ctx: click.Context, param: click.Parameter, value: str) -> sa.URL:
    """Return the URL that a text is: of a database that triggers are written for, and of a file that is there."""
    import sqlalchemy as sa

    from statekit.trigger.dialects import SUPPORTED

    def wrong(text: str) -> click.BadParameter:
        return click.BadParameter(text, ctx, param)

    try:
        url = sa.make_url(value)
    except (sa.exc.ArgumentError, ValueError):
        # Not SQLAlchemy's text, which may hold the URL with its password.
        raise wrong(f"this is no URL of a database. {_FORM}.") from None
    if "@" in (url.host or ""):
        raise wrong("there are several @ in it; write the one in a user name or password as %40.")
    backend = url.get_backend_name()
    if backend == "postgres":
        raise wrong("SQLAlchemy's name for PostgreSQL is postgresql://, not postgres://.")
    if backend not in SUPPORTED:
        raise wrong(f"there are no state triggers for {backend!r}; there are for {' and '.join(SUPPORTED)}.")
    if backend == "sqlite":
        _check_file(url)
        if url.drivername == "sqlite+aiosqlite":  # Python's own driver reads the same file, and can be interrupted
            url = url.set(drivername="sqlite")
    return url


def _parsed_or_none(ctx: click.Context, param: click.Parameter, value: str | None) -> sa.URL | None:
    return None if value is None else _parsed(ctx, param, value)


_URL: dict[str, Any] = {"envvar": "STATEKIT_URL", "show_envvar": True, "metavar": "URL"}

url_option = click.option(
    "--url",
    callback=_parsed,
    required=True,
    help="The database, as SQLAlchemy writes it; drivers for asyncio are fine.",
    **_URL,
)

optional_url_option = click.option(
    "--url",
    callback=_parsed_or_none,
    help="A database, as SQLAlchemy writes it, whose numbers are drawn; without it, none are.",
    **_URL,
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def read(url: sa.URL, work: Callable[[sa.Connection], T]) -> T:
    """Connect, and return what a function makes of the connection, which cannot write on SQLite.

    Raises:
        Failure: there is no connection to be had, or the database refuses what the function asks.
    """
    return _connected(url, work, writes=False)


def write(url: sa.URL, work: Callable[[sa.Connection], T]) -> T:
    """Connect, and return what a function makes of the connection, which may write.

    Raises:
        Failure: there is no connection to be had, or the database refuses what the function asks.
    """
    return _connected(url, work, writes=True)


def _connected(url: sa.URL, work: Callable[[sa.Connection], T], *, writes: bool) -> T:
    import sqlalchemy as sa

    def connected(connection: sa.Connection) -> T:
        try:
            if connection.dialect.name == "sqlite" and not writes:
                connection.exec_driver_sql("PRAGMA query_only = ON")
                connection.rollback()
            return work(connection)
        except sa.exc.DBAPIError as error:
            raise Failure(f"{shown(url)}: {said(error, url)}") from None

    try:
        is_async = url.get_dialect().is_async
    except sa.exc.NoSuchModuleError:
        raise Failure(f"SQLAlchemy knows no driver {url.drivername}. {_FORM}.") from None
    if is_async:
        return asyncio.run(_read_async(url, connected))
    try:
        connection = sa.create_engine(url, poolclass=sa.pool.NullPool).connect()
    except Exception as error:
        raise _no_connection(url, error) from None
    with connection:
        return connected(connection)


async def _read_async(url: sa.URL, work: Callable[[sa.Connection], T]) -> T:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    connection = create_async_engine(url, poolclass=sa.pool.NullPool).connect()
    try:
        await connection.start()
    except Exception as error:  # asyncpg's own come as they are
        raise _no_connection(url, error) from None
    try:
        return await connection.run_sync(work)
    finally:
        await connection.close()


@contextmanager
def read_only(connection: sa.Connection, timeout: float | None = None) -> Iterator[None]:
    """Run a block in a transaction that cannot write, and whose statements are ended after some seconds."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            # One snapshot for all: what is pruned between two statements would be in both sums.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            if timeout is not None:
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(timeout * 1000))}")
            yield
        elif timeout is None:
            yield
        else:
            driver: Any = connection.connection.driver_connection
            timer = threading.Timer(timeout, driver.interrupt)
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()


def shown(url: sa.URL) -> str:
    """Return a URL without what may be secret."""
    return url.set(query={}).render_as_string(hide_password=True)


def said(error: BaseException, url: sa.URL) -> str:
    """Return what a driver says, on one line and without the password."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    visible = {url.username, url.host, url.database, url.get_backend_name()}
    secrets = [url.password, *(each for key, each in url.query.items() if "pass" in key.lower())]
    for secret in secrets:
        if isinstance(secret, str) and secret and secret not in visible:
            for written in (secret, quote(secret, safe=""), quote_plus(secret)):
                text = text.replace(written, "***")
    return text


def _no_connection(url: sa.URL, error: Exception) -> Failure:
    if isinstance(error, ModuleNotFoundError):
        return Failure(
            f"The driver of {url.drivername} is not installed ({error}). Install it, or name the one that you have, "
            "such as postgresql+psycopg, postgresql+psycopg2 or postgresql+asyncpg."
        )
    return Failure(f"Cannot connect to {shown(url)}: {said(error, url) or type(error).__name__}")


def _check_file(url: sa.URL) -> None:
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        return
    if not Path(name).exists():  # SQLite would make an empty one
        raise Failure(f"There is no file {Path(name).resolve()}, which {shown(url)} names.")
