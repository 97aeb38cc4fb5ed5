"""The demo in examples/inbox: its parts against the database, and the whole as ``make demo`` runs it.

What the demo says is compared with plain SQL here, and not with the demo's own questions.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import statekit

pytest.importorskip("rich")

from examples.inbox import __main__ as demo
from examples.inbox import mails, model, model_guarded, raw
from examples.inbox.capture import SPAM_SENDERS, SPAM_WORDS
from examples.inbox.mails import new_inbox
from examples.inbox.runs import capture_with_statekit, capture_without_statekit, first_error, log_lines
from examples.inbox.screen import Screen

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("PROMOTED", "SPAM_REVIEW")
TERMINAL_SETTINGS = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")

Rows = dict[int, Any]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is printed go to a pipe, whatever the environment of the tests says."""
    for name in TERMINAL_SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def inbox() -> Iterator[sa.Engine]:
    with new_inbox() as engine:
        yield engine


def rows(engine: sa.Engine) -> Rows:
    """Return all messages as the database has them, by id."""
    with engine.connect() as connection:
        return {row.id: row for row in connection.execute(sa.text("SELECT * FROM message ORDER BY id"))}


def spam(engine: sa.Engine, status: str) -> set[int]:
    """Return the ids of the messages in a state that match the spam rule, here written in SQL."""
    hits = [f"lower(subject) LIKE '%{word}%'" for word in SPAM_WORDS]
    hits += [f"sender LIKE '%{sender}'" for sender in SPAM_SENDERS]
    query = f"SELECT id FROM message WHERE status = :status AND ({' OR '.join(hits)})"
    with engine.connect() as connection:
        return set(connection.scalars(sa.text(query), {"status": status}))


def changed(before: Rows, after: Rows) -> dict[int, tuple[str, str]]:
    """Return the moves, by id; fail where anything but the status has changed."""
    assert before.keys() == after.keys()
    moves = {}
    for key, old in before.items():
        old_values, new_values = dict(old._mapping), dict(after[key]._mapping)
        pair = (old_values.pop("status"), new_values.pop("status"))
        assert old_values == new_values
        if pair[0] != pair[1]:
            moves[key] = pair
    return moves


# --- the parts --------------------------------------------------------------------------------------------------------


def test_the_inbox_is_that_of_the_incident(inbox: sa.Engine) -> None:
    """1,418 messages, of which the job scans 1,000: 150 that are spam, and 5 that are work and look like it."""
    states = Counter(row.status for row in rows(inbox).values())
    assert sum(states.values()) == 1_418
    assert states["READY"] + states["PROMOTED"] == 1_000
    assert states["COMPLETED"] > 0
    assert states["SPAM_REVIEW"] > 0
    assert len(spam(inbox, "READY")) == 150
    assert len(spam(inbox, "PROMOTED")) == 5


def test_each_copy_of_the_inbox_is_the_same(inbox: sa.Engine) -> None:
    """So that the runs may be compared."""
    with new_inbox() as other:
        assert rows(inbox) == rows(other)


def test_only_work_has_an_agent(inbox: sa.Engine) -> None:
    """By the agent, the demo knows afterwards which messages had been promoted."""
    for row in rows(inbox).values():
        assert (row.agent is not None) == (row.status in ("PROMOTED", "COMPLETED"))


def test_without_statekit_the_damage_is_done(inbox: sa.Engine) -> None:
    """Five pieces of finished work are in the spam queue, and nothing has said so."""
    before, wanted, lost = rows(inbox), spam(inbox, "READY"), spam(inbox, "PROMOTED")
    with Session(inbox) as session:
        scanned = capture_without_statekit(session)
    assert scanned == sum(row.status in ("READY", "PROMOTED") for row in before.values())
    assert changed(before, rows(inbox)) == {
        **dict.fromkeys(wanted, ("READY", "SPAM_REVIEW")),
        **dict.fromkeys(lost, FORBIDDEN),
    }
    found = mails.work_in_spam_review(inbox)
    assert {message.id for message in found} == lost
    assert all(message.agent and message.finished_on for message in found)


def test_with_statekit_the_work_stays_where_it_is(inbox: sa.Engine) -> None:
    """The same job moves the spam and nothing else; what it says it blocked is what it would have damaged."""
    before, wanted, kept = rows(inbox), spam(inbox, "READY"), spam(inbox, "PROMOTED")
    counted = statekit.counts(model_guarded.Message.status)
    with Session(inbox) as session, log_lines():
        scanned, op = capture_with_statekit(session)
    assert scanned == sum(row.status in ("READY", "PROMOTED") for row in before.values())
    assert changed(before, rows(inbox)) == dict.fromkeys(wanted, ("READY", "SPAM_REVIEW"))
    assert op.moved == len(wanted)
    assert op.allowed == {("READY", "SPAM_REVIEW"): len(wanted)}
    assert op.blocked == {FORBIDDEN: len(kept)}
    assert str(op) == "Spam capture: 150 moved, 5 blocked (PROMOTED → SPAM_REVIEW: 5)"
    assert statekit.counts(model_guarded.Message.status) - counted == {FORBIDDEN: len(kept)}
    assert mails.work_in_spam_review(inbox) == []


def test_the_log_names_each_blocked_message(inbox: sa.Engine) -> None:
    """One line for each, and one for the operation; nothing is lost and nothing comes from elsewhere."""
    kept = spam(inbox, "PROMOTED")
    with Session(inbox) as session, log_lines() as log:
        _, op = capture_with_statekit(session)
    *blocked, summary = log
    assert {int(re.search(r"Message\((\d+)\)\.status", line)[1]) for line in blocked} == kept  # type: ignore[index]
    assert len(blocked) == len(kept)
    assert all("[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW" in line for line in blocked)
    assert summary == f"[SELF-HEAL] Operation complete: {op}"


def test_a_developer_gets_the_error_and_nothing_is_written(inbox: sa.Engine) -> None:
    """In the default mode the job stops, and its transaction with it."""
    before, kept = rows(inbox), spam(inbox, "PROMOTED")
    with log_lines():
        error, transitions = first_error(inbox)
    assert rows(inbox) == before
    assert {identity for (identity,) in error.identities} == kept
    assert error.pairs == {FORBIDDEN: len(kept)}
    assert [(each.source, each.target) for each in transitions] == [("PROMOTED", "COMPLETED")]


def test_the_trigger_stops_the_script(inbox: sa.Engine) -> None:
    """Without it, the script in plain SQL does its damage; with it, nothing is written and the error says why."""
    before = rows(inbox)
    with new_inbox() as other:
        assert raw.run_script(other) is None
        assert FORBIDDEN in changed(before, rows(other)).values()
    raw.add_trigger(inbox)
    refused = raw.run_script(inbox)
    assert isinstance(refused, sqlite3.IntegrityError)
    assert "message.status: cannot move from PROMOTED to SPAM_REVIEW. Allowed from PROMOTED: COMPLETED." in str(refused)
    assert rows(inbox) == before


def test_the_script_as_text_gets_the_error_of_the_guard(inbox: sa.Engine) -> None:
    """Counted once, as there is nobody else who could: for the latest of the models of this name in the process."""
    raw.add_trigger(inbox)
    counted = statekit.counts()
    with log_lines():
        error = raw.run_as_text(inbox)
    assert error is not None
    assert (error.source, error.target, error.allowed) == (*FORBIDDEN, ("COMPLETED",))
    assert statekit.counts() - counted == {FORBIDDEN: 1}


def test_the_two_models_differ_by_the_declaration_alone() -> None:
    """What the demo shows as added is all that was added, and it is short."""
    without, with_guard = (inspect.getsource(module).splitlines() for module in (model, model_guarded))
    difference = list(difflib.ndiff(without, with_guard))
    assert [line for line in difference if line.startswith("- ")] == ["- class Message(Base):"]
    assert len([line for line in difference if line.startswith("+ ")]) <= 12


# --- the whole --------------------------------------------------------------------------------------------------------


def run_demo(folder: Path, **environment: str) -> str:
    """Run the demo as ``make demo | cat`` does, in a folder of its own, and return what it printed."""
    inherited = {k: v for k, v in os.environ.items() if k not in TERMINAL_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-W", "default::ResourceWarning", "-m", "examples.inbox"],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert list(folder.iterdir()) == []  # nothing is left behind
    return done.stdout


def split(printed: str) -> tuple[str, str]:
    """Return what is the same in each run, and the sections of the time-out, in which times are measured."""
    before, rest = printed.split("6. A button", 1)
    measured, after = rest.split("The inbox of 1 and 3", 1)
    return before + after, measured


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_demo(tmp_path_factory.mktemp("demo"))


def test_piped_it_is_plain_text(printed: str) -> None:
    """No escape codes, nothing to draw lines with, no spaces at the end of a line; and it is short."""
    assert "\x1b" not in printed
    assert not re.search("[\u2500-\u259f]", printed)
    assert not re.search(r"[ \t\r]$", printed, re.M)
    assert len(printed.splitlines()) <= 115


def test_piped_it_tells_the_story(printed: str, inbox: sa.Engine) -> None:
    """Each line that a reader should see is there, with the numbers that the database gives."""
    before = rows(inbox)
    scanned = sum(row.status in ("READY", "PROMOTED") for row in before.values())
    ready, promoted = len(spam(inbox, "READY")), len(spam(inbox, "PROMOTED"))
    summary = f"{ready} moved, {promoted} blocked (PROMOTED → SPAM_REVIEW: {promoted})"
    lines = [line.strip() for line in printed.splitlines()]
    for line in (
        f"== An inbox of {len(before):,} messages",
        f"scanned {scanned:,}, {ready + promoted} moved, no error",
        f"scanned {scanned:,}, {summary}",
        f"print(op): Spam capture: {summary}",
        f"statekit.counts(Message.status): Counter({{{FORBIDDEN}: {promoted}}})",
        "agents' work in the spam queue, asked of the database: 0",
        f"[SELF-HEAL] Operation complete: Spam capture: {summary}",
        "written to the database: nothing",
        "statekit.available(message), for that one: PROMOTED → COMPLETED",
        "The same as text() in the application: IllegalTransition: Message.status: cannot move from PROMOTED to "
        "SPAM_REVIEW; allowed from PROMOTED: COMPLETED.",
        "+class Message(Guarded, Base):",
        "PROMOTED --> COMPLETED",
    ):
        assert line in lines
    first = min(spam(inbox, "PROMOTED"))
    assert (
        f"IllegalTransition: Message(id={first}).status: cannot move from PROMOTED to SPAM_REVIEW; allowed from "
        f"PROMOTED: COMPLETED. {promoted} rows were refused (PROMOTED → SPAM_REVIEW: {promoted})." in lines
    )
    for key in spam(inbox, "PROMOTED"):
        subject = re.escape(before[key].subject)
        assert re.search(rf"^ +{subject}  +{before[key].agent}, {before[key].finished_on}$", printed, re.M)
        assert f"on Message({key}).status (allowed from PROMOTED: COMPLETED; mode: skip; operation: " in printed


def test_piped_it_compares_the_three_inboxes(printed: str) -> None:
    """The last table says what the database says, of the inbox as it was and after each of the two runs."""
    with new_inbox() as untouched, new_inbox() as plain, new_inbox() as guarded:
        with Session(plain) as session:
            capture_without_statekit(session)
        with Session(guarded) as session, log_lines():
            capture_with_statekit(session)
        promoted = {key for key, row in rows(untouched).items() if row.status == "PROMOTED"}
        inboxes = [rows(engine) for engine in (untouched, plain, guarded)]
    expected = {
        status: [sum(row.status == status for row in inbox.values()) for inbox in inboxes]
        for status in ("READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED")
    }
    expected["agents' work in the spam queue"] = [
        sum(inbox[key].status == "SPAM_REVIEW" for key in promoted) for inbox in inboxes
    ]
    table = printed.split("== The inbox of 1 and 3, before and after")[1]
    found = re.findall(r"^ +(\S.*?)  +([\d,]+) +([\d,]+) +([\d,]+)$", table, re.M)
    assert {name: [int(n.replace(",", "")) for n in numbers] for name, *numbers in found} == expected


def test_what_is_shown_as_code_is_code(printed: str) -> None:
    """A reader may copy it."""
    shown = printed.split("== 3.")[1].split("\n", 1)[1].split("\nscanned ")[0]
    assert "op:" in shown
    ast.parse(re.sub("^    ", "", shown, flags=re.M))


def test_in_a_terminal_it_has_colours_and_says_the_same(printed: str, tmp_path: Path) -> None:
    """Colours and rules are all that a terminal has more."""
    coloured = run_demo(tmp_path, FORCE_COLOR="1", TERM="xterm", COLUMNS="200")
    assert "\x1b[" in coloured
    assert "──" in coloured

    def words(text: str) -> list[str]:
        return re.sub(r"[─=]{2,}", " ", text).split()

    def without_measured(text: str) -> list[str]:
        return words(re.sub(r"\d[\d,.]*", "0", re.sub(r"^call .*$", "", text, flags=re.M)))

    same, measured = split(re.sub(r"\x1b\[[\d;]*m", "", coloured))
    same_printed, measured_printed = split(printed)
    assert words(same) == words(same_printed)
    assert without_measured(measured) == without_measured(measured_printed)


def test_an_encoding_without_arrows_does_not_stop_it(tmp_path: Path) -> None:
    """As in a pipe on Windows, or under an old locale."""
    printed = run_demo(tmp_path, PYTHONIOENCODING="ascii")
    assert "Spam capture: 150 moved, 5 blocked (PROMOTED ? SPAM_REVIEW: 5)" in printed


def test_every_number_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With another inbox the same story has other numbers."""
    all_mails = mails._mails()
    ready = [mail for mail in all_mails if mail["status"] == "READY" and "prize" not in mail["subject"]]
    work = [mail for mail in all_mails if "Lottery" in mail["subject"] or "casino night" in mail["subject"]]
    work[0]["subject"] = "[red]A prize[/red]"  # brackets are text as any other
    monkeypatch.setattr(mails, "_mails", lambda: [*ready, *work])
    demo.main()
    printed = capsys.readouterr().out
    assert "An inbox of 822 messages" in printed
    assert "scanned 822, 122 moved, no error" in printed
    assert "2 of them were agents' finished work" in printed
    assert " [red]A prize[/red] " in printed
    assert "scanned 822, 120 moved, 2 blocked (PROMOTED → SPAM_REVIEW: 2)" in printed
    assert "2 rows were refused" in printed
    same, measured = split(printed)
    for stale in ("1,418", "1,000", "155", "150", "358"):
        assert stale not in same
    assert "822 messages in one call" in measured
    assert "Captured 822 / 822 (0 remaining)" in measured
    assert "1,418" not in measured


def test_damage_would_be_told(inbox: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """That no work is in the spam queue is asked of the database, and not taken for granted."""
    with Session(inbox) as session:
        capture_without_statekit(session)
    demo.show_guarded(Screen(), inbox)
    assert "agents' work in the spam queue, asked of the database: 5\n" in capsys.readouterr().out
