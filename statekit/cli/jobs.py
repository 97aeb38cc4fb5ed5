"""``statekit jobs``: which bulk transitions there are and how far they have come; and how one is stopped."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.books import schema_option
from statekit.cli.database import json_option, read, read_only, shown, url_option, write
from statekit.cli.errors import Commands
from statekit.cli.resume import resume
from statekit.cli.text import counted, line_of, table
from statekit.cli.times import iso, now, show, show_length, utc
from statekit.cli.tokens import find_job, require_jobs, shortened, token_argument
from statekit.errors import show_state

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.bulk import Job

_STATES = ("running", "waiting", "finished", "cancelled")
_NUMBERS = (4, 5, 6, 7)
_EVERY = 2**31 - 1
_LONGEST_ERROR = 80


class _Jobs(Commands):
    """A group that lists the jobs where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Jobs)
def jobs() -> None:
    """List bulk transitions, go on with one, or stop one.

    \b
    What there is:          statekit jobs --url URL
    Go on with one:         statekit jobs resume TOKEN app.models:Base --url URL
    Stop one:               statekit jobs cancel TOKEN --url URL

    Without a command, they are listed: statekit jobs list --help names the options.
    """


@jobs.command("list")
@url_option
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only jobs in this state, or these.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many jobs at most."
)
@schema_option
@json_option
def list_jobs(url: sa.URL, states: Sequence[str], limit: int, schema: str | None, as_json: bool) -> None:
    """List the bulk transitions of a database, the latest first.

    A job is running while somebody works on it, and waiting while nobody does and rows are left: go on with it by
    statekit jobs resume, or in the application with transition_all(…, job=…). The time that is left is what the rest
    takes at the rate of its last batches, for one worker. The command only reads.

    Exit status: 0, or 2 if the command could not do its work.
    """

    def look(connection: sa.Connection) -> list[Job]:
        from statekit.bulk import jobs as every

        with read_only(connection):
            require_jobs(connection, shown(url), schema)
            return every(connection, schema=schema, limit=_EVERY if states else limit + 1)

    chosen = [job for job in read(url, look) if not states or job.state in states]
    listed = chosen[:limit]
    if as_json:
        data = {"database": url.get_backend_name(), "jobs": [_as_data(job) for job in listed]}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    if listed:
        _print(listed)
    if len(chosen) > limit:
        click.echo(f"… and more: --limit {2 * limit}, or --state.")
    in_states: Counter[str] = Counter(job.state for job in listed)
    parts = ", ".join(f"{in_states[state]:,} {state}" for state in _STATES if in_states[state])
    click.echo(f"{shown(url)}: {counted(len(listed), 'job') + f': {parts}' if listed else 'no job'}.")


@jobs.command()
@token_argument
@url_option
@schema_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, token: str, url: sa.URL, schema: str | None, as_json: bool) -> None:
    """Stop a bulk transition, whoever works on it: no batch begins any more. What is done stays done.

    TOKEN is that of the job, or how it begins: 8 characters or more. A job that is cancelled cannot be gone on with.

    Exit status: 0 if the job is cancelled, now or before; 1 if it was finished; 2 if the command could not do its work,
    such as where there is no such job.
    """

    def work(connection: sa.Connection) -> tuple[Any, bool, int]:
        from statekit.bulk import cancel as stop
        from statekit.bulk.records import Records

        with connection.begin():
            row = find_job(connection, token, schema, shown(url))
            is_new = stop(connection, row.id, schema=schema)
            records = Records(schema)
            return records.get(connection, row.id), is_new, records.workers(connection).get(row.id, 0)

    row, is_new, workers = write(url, work)
    outcome = "cancelled" if is_new else "cancelled before" if row.cancelled_at is not None else "finished before"
    if as_json:
        numbers = {"done": row.done, "total": row.total, "blocked": row.blocked, "workers": workers}
        data = {"database": url.get_backend_name(), "job": row.id, "outcome": outcome, **numbers}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{shown(url)}: job {shortened(row.id)} {_outcome(outcome, row, workers)}")
    ctx.exit(int(outcome == "finished before"))


jobs.add_command(resume)


def _outcome(outcome: str, row: Any, workers: int) -> str:
    moved = f"{row.done:,} of {counted(row.total, 'row')} moved"
    if outcome == "finished before":
        return f"was finished at {show(row.finished_at)}, {moved}. There is nothing to cancel."
    stays = f"{moved}{', which stays so' if row.done else ''}."
    if outcome == "cancelled before":
        return f"was cancelled before, at {show(row.cancelled_at)}: {stays}"
    stops = f" {counted(workers, 'worker')} may still end the batch at work now." if workers else ""
    return f"is cancelled: {stays}{stops}"


def _as_data(job: Job) -> dict[str, Any]:
    left = _left(job)
    return {
        "job": job.id,
        "state": job.state,
        "operation": job.operation,
        "model": job.model,
        "attribute": job.attribute,
        "table": job.table,
        "target": job.target,
        "condition": job.condition,
        "has_condition": job.has_condition,
        "on_illegal": job.on_illegal,
        "total": job.total,
        "done": job.done,
        "remaining": job.remaining,
        "blocked": job.blocked,
        "batches": job.batches,
        "retries": job.retries,
        "failures": job.failures,
        "error": job.error,
        "workers": job.workers,
        "seconds": round(job.seconds, 3),
        "rate": None if job.rate is None else round(job.rate, 3),
        "left": None if left is None else round(left.total_seconds(), 3),
        "created_at": iso(job.created_at),
        "seen_at": iso(job.seen_at),
        "finished_at": iso(job.finished_at),
        "cancelled_at": iso(job.cancelled_at),
    }


def _left(job: Job) -> dt.timedelta | None:
    """Return how long the rest takes, where there is one and a rate is known."""
    if job.state not in ("running", "waiting") or not job.rate:
        return None
    return dt.timedelta(seconds=min(job.remaining / job.rate, 1e9))


def _print(listed: Sequence[Job]) -> None:
    columns: dict[str, Callable[[Job], str]] = {
        "job": lambda job: shortened(job.id),
        "operation": lambda job: line_of(job.operation),
        "moves": lambda job: line_of(f"{job.model}.{job.attribute} → {show_state(job.target)}"),
        "state": _state,
        "done": lambda job: f"{job.done:,} / {job.total:,}",
        "remaining": lambda job: f"{job.remaining:,}",
        "blocked": lambda job: f"{job.blocked:,}",
        "retries": lambda job: f"{job.retries:,}",
        "begun": lambda job: show(job.created_at),
        "last seen": lambda job: _ago(job.seen_at),
        "time left": lambda job: _about(_left(job)),
    }
    for line in table([*columns], ([cell(job) for cell in columns.values()] for job in listed), right=_NUMBERS):
        click.echo(line)
    for job in listed:
        if job.failures:
            times = "call" if job.failures == 1 else f"{job.failures:,} calls"
            error = line_of(job.error)
            short = error if len(error) <= _LONGEST_ERROR else error[: _LONGEST_ERROR - 1] + "…"
            click.echo(f"{shortened(job.id)}: the last {times} failed: {short}")


def _state(job: Job) -> str:
    if job.state == "running":
        return f"running, {counted(job.workers, 'worker')}"
    return f"{job.state}, failed" if job.failures and job.state == "waiting" else job.state


def _ago(moment: dt.datetime) -> str:
    return f"{_about(max(now() - utc(moment), dt.timedelta()))} ago"


def _about(length: dt.timedelta | None) -> str:
    """Return a length as exact as it is of use: the two largest of its units."""
    if length is None:
        return ""
    seconds = round(length.total_seconds())
    unit = 3_600 if seconds >= 86_400 else 60 if seconds >= 3_600 else 1
    return show_length(dt.timedelta(seconds=seconds // unit * unit))
