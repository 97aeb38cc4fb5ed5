"""The second incident: a job that takes longer than the platform allows, as it was and with ``transition_all``."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

import statekit
from examples.inbox import model
from examples.inbox.mails import count_states
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
    ready = select(model.Message.id).where(model.Message.status == Status.READY)
    with Session(engine) as session:
        while ids := session.scalars(ready.limit(250)).all():
            chunk = update(model.Message).where(model.Message.id.in_(ids))
            session.execute(chunk.values(status=Status.SPAM_REVIEW))
            session.commit()
            moved += len(ids)
    return {"text": f"Captured {moved:,}"}


def capture_what_fits(engine: Engine, job: str | None) -> dict[str, Any]:
    """Move as many as fit into one call: of a new job, or of one that was begun."""
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
        answer = platform.call(lambda: capture_what_fits(engine, job))
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
        at_first = count_states(in_chunks)
        chunks_told = show_chunks(screen, in_chunks)
        told = show_what_fits(screen, in_time)
        inboxes = [count_states(inbox) for inbox in (in_chunks, in_time)]
        twice = [moved_more_than_once(inbox) for inbox in (in_chunks, in_time)]
    rows: list[list[object]] = [
        [status, at_first[status], *(states[status] for states in inboxes)]
        for status in (Status.READY, Status.SPAM_REVIEW)
    ]
    rows.append(["moved more than once", "", *twice])
    rows.append(["what the user was told", "", chunks_told, told])
    screen.table(["", "before", "in one call", "with transition_all"], rows, numbers_from=1)


def show_chunks(screen: Screen, inbox: Engine) -> str:
    """Run the job as people write it, and return what the user was told in the end."""
    total = count_states(inbox)[Status.READY]
    screen.heading(f"6. A button that takes too long: {total:,} messages in one call")
    screen.say(
        f"A message takes {ROW * FASTER * 1_000:g} ms to move, and the platform ends a call after "
        f"{TIME_OUT * FASTER:g} s. So that you need not wait,"
    )
    screen.say(f"time runs {FASTER} times as fast here: {ROW * 1_000:g} ms a message, {TIME_OUT:g} s a call.")
    screen.code(inspect.getsource(capture_in_chunks), "python")
    answer = Platform(inbox, TIME_OUT).call(lambda: capture_in_chunks(inbox))
    screen.say(f"What comes back, after {answer.seconds:.2f} s:")
    screen.code(answer.body, "html")
    try:
        told = str(json.loads(answer.body)["text"])
    except json.JSONDecodeError as error:
        told = "an error"
        screen.say(f"What the user sees: {type(error).__name__}: {error}", "red")
        screen.say(f"or, in a browser: Unexpected token '{answer.body[error.pos]}', … is not valid JSON", "red")
    moved = count_states(inbox)[Status.SPAM_REVIEW]
    screen.say(f"Moved all the same, asked of the database: {moved:,} of {total:,}. Nobody was told.", "red")
    return told


def show_what_fits(screen: Screen, inbox: Engine) -> str:
    """Run it with ``transition_all``, call after call, and return what the user was told in the end."""
    screen.heading("7. The same with transition_all: each call moves what fits, and the next one goes on")
    screen.code(inspect.getsource(capture_what_fits), "python")
    told = "nothing"
    with log_lines(logging.INFO) as log:
        for number, call in enumerate(calls_until_finished(inbox, Platform(inbox, TIME_OUT)), start=1):
            if call.said is None:
                screen.say(f"call {number}, {call.seconds:.2f} s  ended by the platform; what is moved stays", "yellow")
                continue
            told = call.said["text"]
            done = int(call.said["share"] * _BAR)
            bar = f"[{'#' * done}{'-' * (_BAR - done)}]"
            screen.say(f"call {number}, {call.seconds:.2f} s  {bar}  {told}", "green")
    screen.say("In the log, at the begin of the first call and at the end of the last:")
    for line in log:
        if "Operation would exceed the time-out" in line or line is log[-1]:
            screen.say(line, "yellow")
    return told
