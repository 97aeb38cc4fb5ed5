"""The story of two incidents, told in the terminal: ``python -m examples.inbox``. Every number in it is counted."""

from __future__ import annotations

import difflib
import inspect

from sqlalchemy import Engine
from sqlalchemy.orm import Session

import statekit
from examples.inbox import model, model_guarded
from examples.inbox.bulk import tell_of_time_out
from examples.inbox.mails import count_states, new_inbox, work_in_spam_review
from examples.inbox.model_guarded import Message
from examples.inbox.raw import SCRIPT, add_trigger, run_as_text, run_script
from examples.inbox.runs import capture_with_statekit, capture_without_statekit, first_error, log_lines
from examples.inbox.screen import Screen
from examples.inbox.states import Status
from statekit.errors import show_pairs


def main() -> None:
    """Tell the story."""
    screen = Screen()
    inboxes = [new_inbox() for _ in range(5)]
    with inboxes[0] as untouched, inboxes[1] as plain, inboxes[2] as guarded, inboxes[3] as strict, inboxes[4] as raw:
        introduce(screen, untouched)
        show_damage(screen, plain)
        show_declaration(screen)
        show_guarded(screen, guarded)
        show_error(screen, strict)
        show_trigger(screen, raw)
        tell_of_time_out(screen)
        compare(screen, untouched, plain, guarded)


def introduce(screen: Screen, inbox: Engine) -> None:
    """Say what there is, and what is wrong with the job."""
    states = count_states(inbox)
    screen.heading(f"An inbox of {sum(states.values()):,} messages")
    screen.say(", ".join(f"{status} {number:,}" for status, number in states.items()))
    screen.say("The job 'Spam capture' moves spam from READY to SPAM_REVIEW. It has a bug:")
    screen.say("it scans PROMOTED messages as well, which are the work of an agent already.")


def show_damage(screen: Screen, inbox: Engine) -> None:
    """Run the job as it always was."""
    screen.heading("1. Without statekit")
    before = count_states(inbox)
    with Session(inbox) as session:
        scanned = capture_without_statekit(session)
    moved = count_states(inbox)[Status.SPAM_REVIEW] - before[Status.SPAM_REVIEW]
    lost = work_in_spam_review(inbox)
    screen.say(f"scanned {scanned:,}, {moved:,} moved, no error")
    screen.say(f"{len(lost):,} of them were agents' finished work. Users find it in the spam queue now:", "red")
    rows = [(row.subject, f"{row.agent}, {row.finished_on}") for row in lost]
    screen.table(["subject", "finished by, on"], rows, numbers_from=2)


def show_declaration(screen: Screen) -> None:
    """Show what the model with a guard has more than the one without."""
    screen.heading("2. What is added to the model")
    lines = difflib.unified_diff(
        inspect.getsource(model).splitlines(), inspect.getsource(model_guarded).splitlines(), n=0, lineterm=""
    )
    added = [line for line in lines if not line.startswith(("---", "+++", "@@")) and line != "+"]
    screen.code("\n".join(added), "diff")
    screen.say("The same table as a diagram, from table.to_mermaid():")
    screen.code(Message.__transitions__["status"].to_mermaid(), "text")


def show_guarded(screen: Screen, inbox: Engine) -> None:
    """Run the same job on a fresh copy of the inbox, with the guard."""
    screen.heading("3. With statekit: the same job on a fresh copy of the inbox")
    screen.code(inspect.getsource(capture_with_statekit), "python")
    with log_lines() as log, Session(inbox) as session:
        run = capture_with_statekit(session)
    blocked = run.operation.blocked
    screen.say(
        f"scanned {run.scanned:,}, {run.operation.moved:,} moved, {sum(blocked.values()):,} blocked "
        f"({show_pairs(blocked)})",
        "green",
    )
    screen.say(f"print(op): {run.operation}")
    screen.say(f"statekit.counts(Message.status): {statekit.counts(Message.status)}")
    screen.say(f"agents' work in the spam queue, asked of the database: {len(work_in_spam_review(inbox)):,}", "green")
    screen.say("In the log:")
    for position, line in enumerate(log):  # in a narrow terminal, those that are like the first are cropped
        screen.say(line, "yellow", crop=0 < position < len(log) - 1)


def show_error(screen: Screen, inbox: Engine) -> None:
    """Run it once more as a developer would, without choosing a mode."""
    screen.heading('4. For a developer: the default, on_illegal="raise"')
    before = count_states(inbox)
    with log_lines():
        error, transitions = first_error(inbox)
    screen.say(f"{type(error).__name__}: {error}", "red")
    written = "nothing" if count_states(inbox) == before else "a part of it"
    screen.say(f"written to the database: {written}")
    may = ", ".join(f"{each.source} → {each.target}" for each in transitions)
    screen.say(f"statekit.available(message), for that one: {may}")


def show_trigger(screen: Screen, inbox: Engine) -> None:
    """Run plain SQL past SQLAlchemy, with the same table as a trigger in the database."""
    screen.heading("5. Past SQLAlchemy: a script in plain SQL, and the same table as a trigger")
    before = count_states(inbox)
    screen.code(SCRIPT, "sql")
    add_trigger(inbox)
    refused = run_script(inbox)
    screen.say(f"sqlite3.{type(refused).__name__}: {refused}", "red")
    with log_lines():
        error = run_as_text(inbox)
    screen.say(f"The same as text() in the application: {type(error).__name__}: {error}", "red")
    written = "nothing" if count_states(inbox) == before else "a part of it"
    screen.say(f"written to the database: {written}", "green")


def compare(screen: Screen, untouched: Engine, plain: Engine, guarded: Engine) -> None:
    """Put the three inboxes side by side."""
    screen.heading("The inbox of 1 and 3, before and after")
    inboxes = (untouched, plain, guarded)
    counted = [count_states(inbox) for inbox in inboxes]
    rows: list[list[object]] = [[status, *(states[status] for states in counted)] for status in Status]
    rows.append(["agents' work in the spam queue", *(len(work_in_spam_review(inbox)) for inbox in inboxes)])
    screen.table(["", "before", "without statekit", "with statekit"], rows, numbers_from=1)


if __name__ == "__main__":
    main()
