"""The second incident in the demo: a button that takes too long, before and after. The whole is in test_inbox.py.

What the demo says is compared with plain SQL here, and not with the demo's own questions.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

pytest.importorskip("rich")

from examples.inbox import bulk
from examples.inbox.bulk import Call, calls_until_finished, capture_in_chunks
from examples.inbox.screen import Screen
from examples.inbox.slow import PAGE, Platform, moved_more_than_once, new_slow_inbox

SECONDS = 0.001
LONG = 60.0


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def inbox() -> Iterator[sa.Engine]:
    with new_slow_inbox(SECONDS) as engine:
        yield engine


def states(engine: sa.Engine) -> Counter[str]:
    """Return how many messages the database has in each state."""
    with engine.connect() as connection:
        return Counter(connection.scalars(sa.text("SELECT status FROM message")))


def ids(engine: sa.Engine, query: str) -> list[int]:
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.text(query)))


def keep(engine: sa.Engine, number: int) -> None:
    """Leave some messages only."""
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM message WHERE id > :number"), {"number": number})


def number(text: str) -> int:
    return int(text.replace(",", ""))


def assert_each_moved_once(engine: sa.Engine) -> None:
    assert states(engine).keys() == {"SPAM_REVIEW"}
    assert ids(engine, "SELECT message FROM moved") == ids(engine, "SELECT id FROM message")


# --- the inbox and the platform ---------------------------------------------------------------------------------------


def test_the_inbox_has_as_many_messages_as_the_incident_and_all_are_ready(inbox: sa.Engine) -> None:
    assert states(inbox) == {"READY": 1_418}


def test_each_message_takes_its_time(inbox: sa.Engine) -> None:
    """A sleep is never shorter than asked for, so this holds on any machine."""
    keep(inbox, 20)
    assert Platform(inbox, LONG).call(lambda: capture_in_chunks(inbox)).seconds >= 20 * SECONDS


def test_what_is_moved_again_is_counted(inbox: sa.Engine) -> None:
    """By the trigger, whoever moves it and from where."""
    keep(inbox, 3)
    with inbox.begin() as connection:
        for status in ("SPAM_REVIEW", "READY"):
            connection.execute(sa.text("UPDATE message SET status = :status WHERE id < 3"), {"status": status})
        connection.execute(sa.text("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 3"))
    assert moved_more_than_once(inbox) == 2


def test_the_platform_hands_on_what_comes_in_time(inbox: sa.Engine) -> None:
    assert json.loads(Platform(inbox, LONG).call(lambda: {"moved": 1}).body) == {"moved": 1}


def test_the_platform_does_not_hide_an_error_that_comes_in_time(inbox: sa.Engine) -> None:
    """The demo must not take a bug for a time-out."""
    with pytest.raises(ZeroDivisionError):
        Platform(inbox, LONG).call(lambda: 1 // 0)


def test_the_platform_interrupts_what_takes_too_long(inbox: sa.Engine) -> None:
    """The statement that is at work is rolled back, and the connection can be used afterwards."""

    def move_all() -> None:
        with inbox.begin() as connection:
            connection.execute(sa.text("UPDATE message SET status = 'SPAM_REVIEW'"))

    answer = Platform(inbox, 0.1).call(move_all)
    assert answer.body == PAGE.decode()
    assert states(inbox) == {"READY": 1_418}
    keep(inbox, 5)
    Platform(inbox, LONG).call(move_all)
    assert states(inbox) == {"SPAM_REVIEW": 5}


# --- before -----------------------------------------------------------------------------------------------------------


def test_in_one_call_the_job_is_cut_off_in_the_middle(inbox: sa.Engine) -> None:
    """The chunks that were committed stay, the one at work is gone, and the answer tells of neither."""
    answer = Platform(inbox, 1_300 * SECONDS).call(lambda: capture_in_chunks(inbox))
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)
    moved = states(inbox)["SPAM_REVIEW"]
    assert 0 < moved < 1_418
    assert moved % 250 == 0
    assert ids(inbox, "SELECT message FROM moved") == ids(inbox, "SELECT id FROM message WHERE status <> 'READY'")


def test_without_a_time_out_the_job_would_have_done_it(inbox: sa.Engine) -> None:
    """So it is the time-out that does the damage, and no bug that was put in."""
    keep(inbox, 300)
    answer = Platform(inbox, LONG).call(lambda: capture_in_chunks(inbox))
    assert json.loads(answer.body) == {"text": "Captured 300"}
    assert_each_moved_once(inbox)


def test_the_screen_says_what_the_user_gets_and_what_the_database_has(
    inbox: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk.show_chunks(Screen(), inbox)
    printed = capsys.readouterr().out
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(PAGE)
    assert f"\n{PAGE.decode()}\n" in printed
    assert f"What the user sees: JSONDecodeError: {caught.value}\n" in printed
    assert "Unexpected token '<', \"<HTML><HEA\"... is not valid JSON\n" in printed
    assert f"only the database knows: {states(inbox)['SPAM_REVIEW']:,} of 1,418\n" in printed


def test_a_job_that_fits_is_not_said_to_be_cut_off(inbox: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    keep(inbox, 20)
    bulk.show_chunks(Screen(), inbox)
    printed = capsys.readouterr().out
    assert "What the user sees: Captured 20\n" in printed
    assert "Unexpected token" not in printed
    assert "20 of 20" in printed


# --- after ------------------------------------------------------------------------------------------------------------


def test_call_after_call_all_messages_move_and_each_one_once(inbox: sa.Engine) -> None:
    """What each answer says is what the database has at that moment."""
    remaining = 1_418
    for call in calls_until_finished(inbox, Platform(inbox, LONG)):
        assert call.said is not None
        assert call.said["total"] == 1_418
        assert call.said["done"] == states(inbox)["SPAM_REVIEW"]
        assert call.said["remaining"] == states(inbox)["READY"] < remaining
        remaining = call.said["remaining"]
    assert call.said is not None
    assert call.said["finished"]
    assert call.said["text"] == "Captured 1,418 / 1,418 (0 remaining)"
    assert_each_moved_once(inbox)


def test_it_takes_several_calls_and_none_of_them_is_cut_off() -> None:
    """What needs longer than the time-out is done within it. If the machine is busy just then, it is done again."""

    def all_calls() -> list[Call]:
        with new_slow_inbox(bulk.ROW) as engine:
            return list(calls_until_finished(engine, Platform(engine, bulk.TIME_OUT)))

    tries = (all_calls() for _ in range(5))
    calls = next(calls for calls in tries if all(call.said is not None for call in calls))
    assert len(calls) > 1
    assert max(call.seconds for call in calls) < bulk.TIME_OUT < sum(call.seconds for call in calls)


def test_a_call_that_is_cut_off_all_the_same_loses_and_doubles_nothing(inbox: sa.Engine) -> None:
    """With a time-out far shorter than the budget, the first answers are lost, and the job is gone on with."""
    keep(inbox, 600)
    calls = list(calls_until_finished(inbox, Platform(inbox, 300 * SECONDS)))
    assert calls[0].said is None
    assert calls[-1].said is not None
    assert calls[-1].said["text"] == "Captured 600 / 600 (0 remaining)"
    assert_each_moved_once(inbox)
    assert len(ids(inbox, "SELECT id FROM statekit_job")) == 1


def test_the_screen_shows_each_call_and_the_lines_of_the_log(
    inbox: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk.show_what_fits(Screen(), inbox)
    printed = capsys.readouterr().out
    found = re.findall(
        r"^call (\d+), (\d\.\d\d) s  \[(#*)(-*)\]  Captured ([\d,]+) / 1,418 \(([\d,]+) remaining\)$", printed, re.M
    )
    for _, _, full, empty, done, remaining in found:
        assert number(done) + number(remaining) == 1_418
        assert len(full) == number(done) * 20 // 1_418
        assert len(full + empty) == 20
    assert found[-1][4:] == ("1,418", "0")
    *_, warning, last = printed.splitlines()
    assert re.fullmatch(
        r"\[SELF-HEAL\] Operation would exceed the time-out: batching\. Spam capture: 1,418 rows, "
        r"estimated time \d+\.\d\d s, budget 0\.8 s, batch \d+ rows",
        warning,
    )
    assert last == "[SELF-HEAL] Operation complete: Spam capture: 1,418 rows processed"


def test_the_screen_says_so_where_a_call_is_cut_off(
    inbox: sa.Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that is very busy: the story stays true."""
    keep(inbox, 600)
    monkeypatch.setattr(bulk, "TIME_OUT", 300 * SECONDS)
    bulk.show_what_fits(Screen(), inbox)
    printed = capsys.readouterr().out
    assert re.search(
        r"^call 1, \d\.\d\d s  ended by the platform; what is moved stays, and the job goes on$", printed, re.M
    )
    assert re.search(r"^call \d+, .*  Captured 600 / 600 \(0 remaining\)$", printed, re.M)
    assert_each_moved_once(inbox)


def test_what_is_shown_as_code_is_code(inbox: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader may copy it, and it fits a narrow terminal."""
    keep(inbox, 1)
    for show in (bulk.show_chunks, bulk.show_what_fits):
        show(Screen(), inbox)
        shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
        assert isinstance(ast.parse("\n".join(line[4:] for line in shown)).body[0], ast.FunctionDef)
        assert max(map(len, shown)) <= 80


def test_the_table_says_what_the_database_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the messages as they were, after the one call, and after the calls that go on."""
    bulk.tell_of_time_out(Screen())
    printed = capsys.readouterr().out
    moved = re.search(r"only the database knows: ([\d,]+) of", printed)
    assert moved is not None
    table = printed.split(" with transition_all\n")[1]
    rows = {
        name: list(map(number, cells.split())) for name, cells in re.findall(r"^ +(\S.*?)  +([\d, ]+)$", table, re.M)
    }
    assert rows == {
        "READY": [1_418, 1_418 - number(moved[1]), 0],
        "SPAM_REVIEW": [0, number(moved[1]), 1_418],
        "moved more than once": [0, 0],
    }
