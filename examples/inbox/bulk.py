"""The second incident: a job that takes longer than the platform allows, as it was and with ``transition_all``."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

import statekit
from examples.inbox.mails import count_states
from examples.inbox.model import Message as Mail
from examples.inbox.model_guarded import Message
from examples.inbox.runs import log_lines
from examples.inbox.screen import Screen
from examples.inbox.slow import Platform, moved_more_than_once, new_slow_inbox
from examples.inbox.states import Status
from statekit.bulk import jobs

FASTER = 10
"""How much faster time runs here than it did in the incident, so that nobody has to wait."""

ROW = 0.01 / FASTER
TIME_OUT = 10 / FASTER
BUDGET = dt.timedelta(seconds=8) / FASTER

_BAR = 20


def capture_in_chunks(engine: Engine) -> dict[str, Any]:
    """Move all of them in one call; each chunk is committed."""
    moved = 0
    ready = select(Mail.id).where(Mail.status == Status.READY)
    with Session(engine) as session:
        while ids := session.scalars(ready.limit(250)).all():
            chunk = update(Mail).where(Mail.id.in_(ids))
            session.execute(chunk.values(status=Status.SPAM_REVIEW))
            session.commit()
            moved += len(ids)
    return {"text": f"Captured {moved:,}"}


def capture_what_fits(engine: Engine, job: str | None) -> dict[str, Any]:
    """Move as many as fit into one call, of a new job or of this one."""
    result = statekit.transition_all(
        engine,
        Message.status,
        Status.SPAM_REVIEW,
        operation="Spam capture",
        budget=BUDGET,
        job=job,
    )
    return result.to_dict()


class Call(NamedTuple):
    """One call, as the client sees it.

    Attributes:
        said: what the application has answered; None where the platform has ended the call.
        seconds: how long it took.
    """

    said: dict[str, Any] | None
    seconds: float


def calls_until_finished(engine: Engine, platform: Platform) -> Iterator[Call]:
    """Click once, and go on with the job until it is finished, also after a call that the platform has ended."""
    job: str | None = None
    while True:
        answer = platform.call(partial(capture_what_fits, engine, job))
        said = None
        with suppress(json.JSONDecodeError):
            said = json.loads(answer.body)
        yield Call(said, answer.seconds)
        if said is not None and said["finished"]:
            return
        job = said["job"] if said is not None else next((each.id for each in jobs(engine)), None)


def tell_of_time_out(screen: Screen) -> None:
    """Tell the story of it, each time with a fresh inbox."""
    with new_slow_inbox(ROW) as in_chunks, new_slow_inbox(ROW) as in_time:
        before = count_states(in_time)
        show_chunks(screen, in_chunks)
        show_what_fits(screen, in_time)
        rows: list[list[object]] = [
            [status, before[status], *(count_states(inbox)[status] for inbox in (in_chunks, in_time))]
            for status in (Status.READY, Status.SPAM_REVIEW)
        ]
        rows.append(["moved more than once", "", *map(moved_more_than_once, (in_chunks, in_time))])
    screen.table(["", "before", "in one call", "with transition_all"], rows, numbers_from=1)


def show_chunks(screen: Screen, inbox: Engine) -> None:
    """Run the job as people write it."""
    total = count_states(inbox)[Status.READY]
    screen.heading(f"6. A button that takes too long: {total:,} messages in one call")
    screen.say(
        f"A message takes {ROW * FASTER * 1_000:g} ms to move, and the platform ends a call after "
        f"{TIME_OUT * FASTER:g} s."
    )
    screen.say(f"Here time runs {FASTER} times as fast: {ROW * 1_000:g} ms a message, and {TIME_OUT:g} s a call.")
    screen.code(inspect.getsource(capture_in_chunks), "python")
    body, seconds = Platform(inbox, TIME_OUT).call(lambda: capture_in_chunks(inbox))
    screen.say(f"What comes back, after {seconds:.2f} s:")
    screen.say(body)
    try:
        screen.say(f"What the user sees: {json.loads(body)['text']}")
    except json.JSONDecodeError as error:
        screen.say(f"What the user sees: {type(error).__name__}: {error}", "red")
        screen.say(f"or, in a browser: Unexpected token '{body[0]}', \"{body[:10]}\"... is not valid JSON", "red")
    moved = count_states(inbox)[Status.SPAM_REVIEW]
    screen.say(f"How many were moved, which only the database knows: {moved:,} of {total:,}", "red")


def show_what_fits(screen: Screen, inbox: Engine) -> None:
    """Run it with ``transition_all``, call after call."""
    screen.heading("7. With transition_all: each call moves what fits, the next one goes on")
    screen.code(inspect.getsource(capture_what_fits), "python")
    with log_lines(logging.INFO) as log:
        for number, call in enumerate(calls_until_finished(inbox, Platform(inbox, TIME_OUT)), start=1):
            took = f"call {number}, {call.seconds:.2f} s"
            if call.said is None:
                screen.say(f"{took}  ended by the platform; what is moved stays, and the job goes on", "yellow")
            else:
                screen.say(f"{took}  {_bar(call.said['share'])}  {call.said['text']}", "green")
    screen.say("In the log, early in the first call and at the end of the last:")
    for position, line in enumerate(log, start=1):
        if "Operation would exceed the time-out" in line or position == len(log):
            screen.say(line, "yellow")


def _bar(share: float) -> str:
    full = int(share * _BAR)
    return f"[{'#' * full}{'-' * (_BAR - full)}]"
