"""``statekit jobs resume``: go on with a bulk transition by what its row says, and with the guards of the models."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import schema_option
from statekit.cli.database import json_option, read, read_only, said, shown, url_option
from statekit.cli.errors import Failure
from statekit.cli.interrupts import Interrupts
from statekit.cli.models import Models, models_argument
from statekit.cli.text import counted, line_of
from statekit.cli.times import DURATION, show, show_length
from statekit.cli.tokens import find_job, shortened, token_argument
from statekit.errors import StatekitError, show_state

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.bulk import BulkResult

_ONLY_THE_APPLICATION = (
    "Only the application's code can go on with it: transition_all(…, job=…), called as it was begun."
)


@dataclass
class _Going:
    """A call that goes on with a job.

    Attributes:
        url: of the database.
        attribute: what is moved.
        row: of the job.
        options: of ``transition_batches``.
        schema: of the ledger's tables.
        has_ledger: whether there is a ledger that blocked moves are written to.
        show: what is called with each result.
        interrupts: whether somebody wants it to stop.
        last: how far it has come; None before that is known.
    """

    url: sa.URL
    attribute: Any
    row: Any
    options: dict[str, Any]
    schema: str | None
    has_ledger: bool
    show: Callable[[BulkResult], None]
    interrupts: Interrupts = field(default_factory=Interrupts)
    last: BulkResult | None = None

    def work(self) -> None:
        """Go on until the job is finished, the budget is used up, or somebody interrupts."""
        if self.url.get_dialect().is_async:
            asyncio.run(self._work_async())
            return
        import sqlalchemy as sa

        from statekit.bulk import transition_batches

        engine = sa.create_engine(self.url)
        results: Any
        with self._ledger_of(engine):
            try:
                with closing(transition_batches(engine, *self._arguments, **self.options)) as results:
                    for result in results:
                        if self._has_come(result):
                            break
            finally:
                engine.dispose()

    async def _work_async(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        from statekit.bulk import atransition_batches

        engine = create_async_engine(self.url)
        results: Any
        with self._ledger_of(engine):
            try:
                async with aclosing(atransition_batches(engine, *self._arguments, **self.options)) as results:
                    async for result in results:
                        if self._has_come(result):
                            break
            finally:
                await engine.dispose()

    @property
    def _arguments(self) -> tuple[Any, Any]:
        return self.attribute, self.row.target

    @contextmanager
    def _ledger_of(self, engine: Any) -> Iterator[None]:
        from statekit.ledger import attach, detach

        if not self.has_ledger:
            yield
            return
        attach(engine, schema=self.schema)
        try:
            yield
        finally:
            detach(engine)

    def _has_come(self, result: BulkResult) -> bool:
        """Show a result, and return whether to stop at it."""
        self.last = result
        self.show(result)
        return self.interrupts.wanted


@click.command()
@token_argument
@models_argument
@url_option
@click.option(
    "--budget",
    type=DURATION,
    metavar="TIME",
    help="How long to go on at most, such as 30s; without it, until the job is finished.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="How many rows a second at most."
)
@schema_option
@json_option
@click.pass_context
def resume(
    ctx: click.Context,
    token: str,
    models: str,
    url: sa.URL,
    budget: dt.timedelta | None,
    rate: float | None,
    schema: str | None,
    as_json: bool,
) -> None:
    """Go on with a bulk transition until it is finished. It writes: it moves the rows.

    TOKEN is that of the job, or how it begins: 8 characters or more. MODELS is module:Base, such as app.models:Base,
    whose guards judge every move as they do in the application.

    The rows are those that the job was begun for: its condition is printed, as it was stored. Others may work on the
    job meanwhile. Ctrl-C stops after the batch that is at work; what is done stays done.

    Exit status: 0 if the job is finished, 1 if it is not: the budget was used up, rows are locked or kept back, it was
    cancelled or interrupted; 2 if the command could not do its work.
    """
    if budget is not None and not budget:
        raise Failure("--budget 0s: that leaves no time for any row. Give more, or leave it out for no limit.")
    if rate is not None and not math.isfinite(rate):
        raise Failure(f"--rate {rate}: give a number of rows a second, or leave it out for no limit.")
    found = Models(models)
    schema = _schema(found, schema)

    def look(connection: sa.Connection) -> tuple[Any, bool]:
        from statekit.ledger import queries

        with read_only(connection):
            row = find_job(connection, token, schema, shown(url))
            return row, queries.exists(connection, schema)

    row, has_ledger = read(url, look)
    job = f"{shown(url)}: job {shortened(row.id)}"
    if row.finished_at is not None or row.cancelled_at is not None:
        _tell_that_it_is_over(row, job, url, as_json)
        ctx.exit(int(row.finished_at is None))
    attribute = _attribute(found, row, job)
    if row.condition_shape is not None and row.condition is None:
        raise Failure(
            f"{job} was begun with a condition whose values have no form in SQL: where {line_of(row.condition_shape)}. "
            f"{_ONLY_THE_APPLICATION}"
        )
    if not as_json:
        click.echo(_heading(row))

    options = {"job": row.id, "budget": budget, "rate": rate}
    is_wanted = _quiet if as_json else None
    with _shown(is_wanted) as show_result:
        going = _Going(url, attribute, row, options, schema, has_ledger, show_result)
        error = _done(going)
    again = _again(ctx, row, models, schema)
    result = going.last
    if error is not None:
        how_far = "" if result is None else f" {result}. What is done stays done; go on with: {again}"
        raise Failure(f"{job}: {error}{how_far}")
    if as_json and result is not None:
        click.echo(json.dumps(_as_data(result, row, url), ensure_ascii=False, indent=2))
    elif not as_json:
        click.echo(f"{job} {_ending(result, going.interrupts.wanted, budget, again)}")
    ctx.exit(0 if result is not None and result.finished else 1)


# -- what is to be done


def _schema(found: Models, given: str | None) -> str | None:
    """Return the schema of the ledger's tables: that of the models, where they have them."""
    from statekit.ledger.tables import JOB

    schemas = [
        each.schema for each in found.metadata.tables.values() if each.name == JOB and each.info.get("statekit_ledger")
    ]
    if not schemas:
        return given
    if given is not None and given != schemas[0]:
        has = "no schema" if schemas[0] is None else f"the schema {schemas[0]}"
        raise Failure(f"--schema {given}: {found.named} has the ledger's tables in {has}. Leave the option out.")
    return schemas[0]


def _attribute(found: Models, row: Any, job: str) -> Any:
    """Return what a job moves: the attribute of its class, or the column where that has no class.

    Raises:
        Failure: no guard is there, or not one class of that name has the table.
    """
    import sqlalchemy as sa
    from sqlalchemy.orm.mapper import _all_registries  # there is no other way from a table to its classes

    what = f"{row.table_name}.{row.attribute}"
    known = {f"{column.table.fullname}.{_guard(column).attribute}": column for column in found.guarded}
    column = known.get(what)
    if column is None:
        raise Failure(f"{job} moves {what}, which is guarded nowhere in {found.named}: it has {', '.join(known)}.")
    registries = _all_registries()
    classes = {mapper.class_ for each in registries for mapper in each.mappers if column.table in mapper.tables}
    named = [each for each in classes if each.__name__ == row.model]
    if not named and _guard(column).model == row.model:
        return column
    if len(named) != 1:
        number = "several classes of that name have" if named else "no class of that name has"
        names = ", ".join(sorted(each.__name__ for each in classes)) or "no class"
        raise Failure(
            f"{job} moves the {what} of {row.model}, and {number} that table in {found.named}: it has {names}."
        )
    try:
        sa.orm.configure_mappers()
    except sa.exc.SQLAlchemyError as error:
        raise Failure(f"{found.named}: SQLAlchemy cannot use these models: {error}") from None
    return getattr(named[0], row.attribute)


def _guard(column: Any) -> Any:
    from statekit.guards.attach import guard_on

    return guard_on(column)


def _done(going: _Going) -> str | None:
    """Do it, and return why it failed, or None."""
    import sqlalchemy as sa

    logger = logging.getLogger("statekit")
    silence = logging.NullHandler()  # else Python prints into the bar what the command says at its end
    logger.addHandler(silence)
    try:
        with going.interrupts:
            going.work()
    except KeyboardInterrupt:
        going.interrupts.wanted = True
    except StatekitError as error:
        return str(error)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        return said(error, going.url) + "."
    finally:
        logger.removeHandler(silence)
    return None


# -- what is said


@contextmanager
def _shown(instead: Callable[[BulkResult], None] | None) -> Iterator[Callable[[BulkResult], None]]:
    from statekit.bulk import bar

    if instead is not None:
        yield instead
        return
    with bar() as shown_bar:
        yield shown_bar


def _quiet(result: BulkResult) -> None:
    pass


def _heading(row: Any) -> str:
    operation = "" if row.operation is None else f"{row.operation}: "
    moves = f"{operation}{row.model}.{row.attribute} → {show_state(row.target)}"
    if row.condition is None:
        where = f"every row in a state from which {show_state(row.target)} is allowed"
    else:
        where = "\n      ".join(line_of(line.rstrip()) for line in row.condition.splitlines())
    return f"{line_of(moves)}\nwhere {where}"


def _ending(result: BulkResult | None, is_interrupted: bool, budget: dt.timedelta | None, again: str) -> str:
    if result is not None and result.finished:
        blocked = f", {result.blocked:,} blocked" if result.blocked else ""
        return f"is finished: {counted(result.done, 'row')} moved{blocked}."
    if result is not None and result.cancelled:
        return f"was cancelled: {counted(result.done, 'row')} moved, and they stay."
    left = "" if result is None else f" with {counted(result.remaining, 'row')} remaining"
    if is_interrupted:
        why = f"is interrupted{left}"
    elif result is not None and result.stalled:
        reason = "what is left is locked, is kept back by the database, or takes longer than the budget"
        why = f"has stalled{left}: {reason}"
    else:
        why = f"is not finished{left}: the budget of {show_length(budget or dt.timedelta())} is used up"
    return f"{why}. Go on with:\n  {again}"


def _again(ctx: click.Context, row: Any, models: str, schema: str | None) -> str:
    command = ["statekit", "jobs", "resume", shortened(row.id), models]
    if (budget := ctx.params["budget"]) is not None:
        command += ["--budget", f"{budget.total_seconds():g}s"]
    if (rate := ctx.params["rate"]) is not None:
        command += ["--rate", f"{rate:g}"]
    if schema is not None and ctx.params["schema"] is not None:
        command += ["--schema", schema]
    url = " --url URL" if ctx.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE else ""
    return shlex.join(command) + url


def _as_data(result: BulkResult, row: Any, url: sa.URL) -> dict[str, Any]:
    return {"database": url.get_backend_name(), **result.to_dict(), "condition": row.condition}


def _tell_that_it_is_over(row: Any, job: str, url: sa.URL, as_json: bool) -> None:
    from statekit.bulk import BulkResult

    finished = row.finished_at is not None
    if as_json:
        estimate = dt.timedelta(seconds=row.seconds) if finished else None
        result = BulkResult.of(row, dt.timedelta(), estimate)
        click.echo(json.dumps(_as_data(result, row, url), ensure_ascii=False, indent=2))
    elif finished:
        click.echo(f"{job} was finished at {show(row.finished_at)}: {counted(row.done, 'row')} moved.")
    else:
        hint = "It cannot be gone on with; begin a new one."
        click.echo(f"{job} was cancelled at {show(row.cancelled_at)}: {counted(row.done, 'row')} moved. {hint}")
