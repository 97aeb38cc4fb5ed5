"""The token of a job as the command line takes it: whole, or how it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import require
from statekit.cli.errors import Failure

if TYPE_CHECKING:
    import sqlalchemy as sa

_SHORTEST = 8
_SHOWN = 12
"""How much of a token people are shown: two jobs of a database will not begin alike."""

_NAMED = 5

token_argument = click.argument("token", metavar="TOKEN")


def shortened(token: str) -> str:
    """Return how a token begins, as much as tells it apart."""
    return token[:_SHOWN]


def require_jobs(connection: sa.Connection, where: str, schema: str | None) -> None:
    """Give up where there are no tables of jobs.

    Raises:
        Failure: there are none.
    """
    import sqlalchemy as sa

    from statekit.ledger.tables import JOB

    require(sa.inspect(connection).has_table(JOB, schema=schema), where, schema, JOB)


def find_job(connection: sa.Connection, token: str, schema: str | None, where: str) -> Any:
    """Return the row of the one job whose token is this, or begins so.

    Args:
        connection: to the database.
        token: as the user has written it.
        schema: of the ledger's tables.
        where: the database, as messages name it.

    Raises:
        Failure: there are no tables of jobs, there is no such job, there are several, or it is too short to tell.
    """
    import sqlalchemy as sa

    from statekit.bulk.records import Records

    require_jobs(connection, where, schema)
    records = Records(schema)
    wanted = token.strip().lower()
    if (row := records.get(connection, wanted)) is not None:
        return row
    if len(wanted) < _SHORTEST:
        raise Failure(
            f"{token!r} is too short to name a job: give its token, or the first {_SHORTEST} characters of it or more, "
            "as statekit jobs lists them."
        )
    job = records.tables.job
    alike = sa.select(job.c.id).where(job.c.id.startswith(wanted, autoescape=True)).order_by(job.c.id)
    found = list(connection.scalars(alike.limit(_NAMED + 1)))
    if not found:
        raise Failure(f"{where}: there is no job {token!r}. statekit jobs lists those that there are.")
    if len(found) > 1:
        more = ", …" if len(found) > _NAMED else ""
        raise Failure(
            f"{where}: several jobs begin with {token!r}: {', '.join(found[:_NAMED])}{more}. Write more of it."
        )
    return records.get(connection, found[0])
