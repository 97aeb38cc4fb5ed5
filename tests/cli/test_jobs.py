"""statekit jobs: which bulk transitions there are, how one is gone on with, and how one is stopped."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from statekit import ledger, transition_all
from statekit.bulk import BulkResult, prepare, transition_batches
from statekit.bulk.records import Records
from statekit.cli.database import shown
from tests.cli.books import answer, lines, sync_engine
from tests.cli.conftest import INBOX, ROOT, Project
from tests.guards.inbox import fill, message_class, stored, unguarded
from tests.ledger.books import inbox as make_inbox
from tests.ledger.books import moves
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, execute, on_postgresql

MODELS = f"{INBOX}\nfrom statekit import ledger\nledger.add_to(Base.metadata)\n"

OBSERVING = f"""{MODELS.replace("(Guarded, Base)", "(Base)")}
from statekit import guard
guard(Message.status, Message.__transitions__["status"], on_illegal="observe")
"""

FAMILY = f"""{MODELS}
class Plain(Message):
    __mapper_args__ = {{"polymorphic_identity": "plain"}}

class Spam(Message):
    __mapper_args__ = {{"polymorphic_identity": "spam"}}
""".replace(
    '__tablename__ = "message"',
    '__tablename__ = "message"\n    kind = mapped_column(sa.String(10))\n'
    '    __mapper_args__ = {"polymorphic_on": "kind"}',
)

WITHOUT_A_CLASS = """
import sqlalchemy as sa
from statekit import TransitionTable, guard, ledger

metadata = sa.MetaData()
message = sa.Table(
    "message", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20))
)
guard(message.c.status, TransitionTable("READY → SPAM_REVIEW", initial="READY"))
ledger.add_to(metadata)
"""


@pytest.fixture
def app(project: Project) -> Project:
    project.write(MODELS)
    return project


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    """Return the class of a table with 10 messages that are ready and 2 that are promoted."""
    return make_inbox(engine, *["READY"] * 10, *["PROMOTED"] * 2)


def begun(engine: sa.Engine, message: Any, target: str = "SPAM_REVIEW", **options: Any) -> BulkResult:
    return prepare(engine, message.status, target, **options)


def change(engine: sa.Engine, token: str, **values: Any) -> None:
    """Write into the row of a job."""
    job = Records(None).tables.job
    with engine.begin() as connection:
        connection.execute(sa.update(job).where(job.c.id == token).values(values))


def imported(app: Project, text: str) -> Any:
    """Write models, and return their module."""
    sys.path.insert(0, str(app.folder))
    return importlib.import_module(app.write(text))


def count(engine: sa.Engine, message: Any) -> Counter[Any]:
    return Counter(stored(engine, message))


def resumed(app: Project, engine: sa.Engine, exit_code: int, token: str, *options: str) -> list[str]:
    return lines(app, engine, exit_code, "jobs", "resume", token, app.models, *options)


def refused(app: Project, engine: sa.Engine, *arguments: str) -> str:
    """Return what a command says that could not do its work."""
    result = app.run("jobs", *arguments, "--url", engine.url)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


class TestTheList:
    def test_the_latest_job_comes_first(self, app: Project, engine: sa.Engine, message: Any) -> None:
        tokens = [begun(engine, message).job for _ in range(3)]
        for number, token in enumerate(tokens):
            change(engine, token, created_at=dt.datetime(2026, 1, 1 + number, tzinfo=dt.UTC))
        listed = answer(app, engine, 0, "jobs")["jobs"]
        assert [job["job"] for job in listed] == tokens[::-1]

    def test_it_is_a_table(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message, where=message.id > 2, operation="Spam capture", on_illegal="skip").job
        heading, row, end = lines(app, engine, 0, "jobs")
        assert heading.split() == (
            "job operation moves state done remaining blocked retries begun last seen time left".split()
        )
        cells = [cell for cell in row.split("  ") if cell]
        assert [cell.strip() for cell in cells[:8]] == [
            token[:12],
            "Spam capture",
            "Message.status → SPAM_REVIEW",
            "waiting",
            "0 / 10",
            "8",
            "2",
            "0",
        ]
        assert cells[8].strip().endswith("Z")
        assert cells[9].strip().endswith(" ago")
        assert end == "1 job: 1 waiting."

    def test_without_a_command_they_are_listed(self, app: Project, engine: sa.Engine, message: Any) -> None:
        begun(engine, message)
        assert answer(app, engine, 0, "jobs")["jobs"] == answer(app, engine, 0, "jobs", "list")["jobs"]

    def test_who_works_on_one_is_counted(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        with closing(transition_batches(engine, message.status, "SPAM_REVIEW", job=token)) as first:  # type: ignore[type-var]
            next(first)
            with closing(transition_batches(engine, message.status, "SPAM_REVIEW", job=token)) as second:  # type: ignore[type-var]
                next(second)
                assert "running, 2 workers" in lines(app, engine, 0, "jobs")[1]
                (job,) = answer(app, engine, 0, "jobs")["jobs"]
                assert (job["state"], job["workers"]) == ("running", 2)

    def test_what_is_over_says_so(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message, "COMPLETED").job
        app.run("jobs", "cancel", token, "--url", engine.url)
        transition_all(engine, message.status, "COMPLETED")
        _, finished, cancelled, end = lines(app, engine, 0, "jobs")
        assert "  finished   2 / 2  " in finished
        assert "  cancelled  0 / 2  " in cancelled
        assert end == "2 jobs: 1 finished, 1 cancelled."

    def test_the_time_that_is_left_is_that_of_the_rate(self, app: Project, engine: sa.Engine, message: Any) -> None:
        change(engine, begun(engine, message).job, rate=0.1)
        assert lines(app, engine, 0, "jobs")[1].endswith("  1 minute 40 seconds")
        assert answer(app, engine, 0, "jobs")["jobs"][0]["left"] == 100

    def test_the_last_error_is_told(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        change(engine, token, failures=3, error="DBAPIError: the disk\nis full")
        said = lines(app, engine, 0, "jobs")
        assert "  waiting, failed  " in said[1]
        assert said[2] == f"{token[:12]}: the last 3 calls failed: 'DBAPIError: the disk\\nis full'"
        assert answer(app, engine, 0, "jobs")["jobs"][0]["error"] == "DBAPIError: the disk\nis full"

    def test_a_state_may_be_asked_for(self, app: Project, engine: sa.Engine, message: Any) -> None:
        waiting = begun(engine, message).job
        finished = transition_all(engine, message.status, "COMPLETED").job

        def listed(*states: str) -> set[str]:
            options = [option for state in states for option in ("--state", state)]
            return {job["job"] for job in answer(app, engine, 0, "jobs", *options)["jobs"]}

        assert listed("waiting") == {waiting}
        assert listed("waiting", "finished") == {waiting, finished}
        assert listed("cancelled") == set()

    def test_the_limit_is_one_of_those_in_the_state(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = transition_all(engine, message.status, "COMPLETED").job
        for _ in range(3):
            begun(engine, message)
        options = ["--state", "finished", "--limit", "1"]
        assert [job["job"] for job in answer(app, engine, 0, "jobs", *options)["jobs"]] == [token]

    def test_that_there_are_more_is_said(self, app: Project, engine: sa.Engine, message: Any) -> None:
        for _ in range(3):
            begun(engine, message)
        said = lines(app, engine, 0, "jobs", "--limit", "2")
        assert said[3:] == ["… and more: --limit 4, or --state.", "2 jobs: 2 waiting."]
        assert len(lines(app, engine, 0, "jobs", "--limit", "3")) == 5

    def test_there_may_be_none(self, app: Project, engine: sa.Engine, message: Any) -> None:
        assert lines(app, engine, 0, "jobs") == ["no job."]

    @pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
    def test_every_driver_will_do(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        token = begun(engine, make_inbox(engine, "READY")).job
        assert answer(app, databases.url(backend), 0, "jobs")["jobs"][0]["job"] == token

    @on_postgresql
    def test_the_ledger_may_have_a_schema(self, app: Project, engine: sa.Engine) -> None:
        message = _in_schema(engine)
        token = begun(engine, message).job
        assert answer(app, engine, 0, "jobs", "--schema", "audit")["jobs"][0]["job"] == token


@pytest.mark.parametrize("command", [["list"], ["cancel", "a" * 32], ["resume", "a" * 32, "MODELS"]])
def test_without_its_tables_it_can_do_nothing(app: Project, engine: sa.Engine, command: list[str]) -> None:
    execute(engine, "CREATE TABLE other (id integer)")
    said = refused(app, engine, *(app.models if each == "MODELS" else each for each in command))
    assert f"{shown(engine.url)}: there is no ledger (no table statekit_job). Add it to your models" in said


class TestTheToken:
    def test_its_first_8_characters_will_do(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        begun(engine, message)
        assert answer(app, engine, 0, "jobs", "cancel", token[:8].upper())["job"] == token

    def test_fewer_will_not(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        assert f"{token[:7]!r} is too short to name a job" in refused(app, engine, "cancel", token[:7])

    @pytest.mark.parametrize("command", ["cancel", "resume"])
    def test_several_are_named(self, app: Project, engine: sa.Engine, message: Any, command: str) -> None:
        tokens = [f"{'ab' * 6}{number:020}" for number in range(2)]
        for token in tokens:
            change(engine, begun(engine, message).job, id=token)
        models = [app.models] if command == "resume" else []
        said = refused(app, engine, command, "ab" * 6, *models)
        assert f"several jobs begin with 'abababababab': {', '.join(tokens)}. Write more of it." in said

    def test_a_whole_one_is_never_several(self, app: Project, engine: sa.Engine, message: Any) -> None:
        for token in ("ab" * 6, "ab" * 7):
            change(engine, begun(engine, message).job, id=token)
        assert answer(app, engine, 0, "jobs", "cancel", "ab" * 6)["job"] == "ab" * 6

    @pytest.mark.parametrize("token", ["0" * 32, "%%%%%%%%", "________"])
    def test_one_that_is_unknown_is_refused(self, app: Project, engine: sa.Engine, message: Any, token: str) -> None:
        begun(engine, message)
        assert f"there is no job {token!r}" in refused(app, engine, "cancel", token)


class TestCancelling:
    def test_no_batch_begins_any_more(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        assert lines(app, engine, 0, "jobs", "cancel", token) == [f"job {token[:12]} is cancelled: 0 of 10 rows moved."]
        assert transition_all(engine, message.status, "SPAM_REVIEW", job=token).cancelled
        assert count(engine, message)["SPAM_REVIEW"] == 0

    def test_who_works_on_it_is_told(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        with closing(transition_batches(engine, message.status, "SPAM_REVIEW", job=token)) as results:  # type: ignore[type-var]
            next(results)
            (said,) = lines(app, engine, 0, "jobs", "cancel", token)
        assert said.endswith("1 worker may still end the batch at work now.")

    def test_a_second_time_says_when_it_was(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        change(engine, token, cancelled_at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), done=4)
        (said,) = lines(app, engine, 0, "jobs", "cancel", token)
        assert said == (
            f"job {token[:12]} was cancelled before, at 2026-01-02 00:00:00Z: 4 of 10 rows moved, which stays so."
        )

    def test_what_is_finished_cannot_be(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = transition_all(engine, message.status, "SPAM_REVIEW").job
        (said,) = lines(app, engine, 1, "jobs", "cancel", token)
        assert said.endswith("10 of 10 rows moved. There is nothing to cancel.")
        assert answer(app, engine, 0, "jobs")["jobs"][0]["state"] == "finished"

    def test_the_json_says_what_came_of_it(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        assert answer(app, engine, 0, "jobs", "cancel", token) == {
            "database": engine.dialect.name,
            "job": token,
            "outcome": "cancelled",
            "done": 0,
            "total": 10,
            "blocked": 0,
            "workers": 0,
        }
        assert answer(app, engine, 0, "jobs", "cancel", token)["outcome"] == "cancelled before"

    @pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
    def test_every_driver_will_do(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        token = begun(engine, make_inbox(engine, "READY")).job
        assert answer(app, databases.url(backend), 0, "jobs", "cancel", token)["outcome"] == "cancelled"
        assert answer(app, engine, 0, "jobs")["jobs"][0]["state"] == "cancelled"


class TestGoingOn:
    def test_it_is_finished(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message, operation="Spam capture").job
        said = resumed(app, engine, 0, token)
        assert said[:2] == [
            "Spam capture: Message.status → SPAM_REVIEW",
            "where every row in a state from which SPAM_REVIEW is allowed",
        ]
        assert said[2] == "Captured 0 / 10 (10 remaining)"
        assert said[-2:] == ["Captured 10 / 10 (0 remaining)", f"job {token[:12]} is finished: 10 rows moved."]
        assert count(engine, message) == {"SPAM_REVIEW": 10, "PROMOTED": 2}

    def test_the_condition_is_that_of_the_job(self, app: Project, engine: sa.Engine, message: Any) -> None:
        table = unguarded(message)
        with engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id > 6).values(subject="100% free"))
        token = begun(engine, message, where=message.subject.like("100%")).job
        said = resumed(app, engine, 0, token)
        assert said[1] == "where message.subject LIKE '100%'"
        assert said[-1] == f"job {token[:12]} is finished: 4 rows moved, 2 blocked."
        assert stored(engine, message) == ["READY"] * 6 + ["SPAM_REVIEW"] * 4 + ["PROMOTED"] * 2

    def test_a_condition_that_has_no_form_in_sql_is_for_the_application(
        self, app: Project, engine: sa.Engine, message: Any
    ) -> None:
        token = begun(engine, message, where=sa.literal([1], sa.PickleType()).is_not(None)).job
        said = refused(app, engine, "resume", token, app.models)
        assert "was begun with a condition whose values have no form in SQL: where " in said
        assert "Only the application's code can go on with it" in said
        assert count(engine, message)["SPAM_REVIEW"] == 0

    @pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
    def test_every_driver_will_do(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        message = make_inbox(engine, *["READY"] * 30)
        token = begun(engine, message).job
        data = answer(app, databases.url(backend), 0, "jobs", "resume", token, app.models)
        assert (data["done"], data["remaining"], data["finished"]) == (30, 0, True)
        assert count(engine, message) == {"SPAM_REVIEW": 30}
        assert answer(app, engine, 0, "jobs")["jobs"][0]["workers"] == 0

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg", "asyncpg"])
    def test_what_it_observes_is_in_the_ledger(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        message = make_inbox(engine, "READY", "PROMOTED", on_illegal="observe")
        app.write(OBSERVING)
        token = begun(engine, message, where=message.id < 9, on_illegal="observe").job
        assert moves(engine, "observed") == {}
        answer(app, databases.url(backend), 0, "jobs", "resume", token, app.models)
        assert moves(engine, "observed") == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_it_ends_with_its_budget(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        said = resumed(app, engine, 1, token, "--budget", "1s", "--rate", "2")
        left = count(engine, message)["READY"]
        assert 0 < left < 10
        assert said[-2] == (
            f"job {token[:12]} is not finished with {left} row{'s' * (left > 1)} remaining: "
            "the budget of 1 second is used up. Go on with:"
        )
        assert said[-1] == (f"  statekit jobs resume {token[:12]} {app.models} --budget 1s --rate 2 --url URL")

    def test_a_url_of_the_environment_is_not_asked_for(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        url = engine.url.render_as_string(hide_password=False)
        result = app.run("jobs", "resume", token, app.models, "--budget", "1s", "--rate", "1", STATEKIT_URL=url)
        assert result.stdout.endswith("--budget 1s --rate 1\n")

    @on_postgresql
    def test_rows_that_somebody_holds_are_named_as_the_reason(
        self, app: Project, engine: sa.Engine, message: Any
    ) -> None:
        token = begun(engine, message).job
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1 FROM message WHERE id = 1 FOR UPDATE")
            for _ in range(10):  # on a busy machine, one call may not come to the row that is held
                said = resumed(app, engine, 1, token, "--budget", "1s")
                if "stalled" in said[-2]:
                    break
        assert f"job {token[:12]} has stalled with 1 row remaining: what is left is locked" in said[-2]
        assert count(engine, message) == {"READY": 1, "SPAM_REVIEW": 9, "PROMOTED": 2}

    @pytest.mark.parametrize("as_json", [False, True])
    def test_what_is_finished_is_so(self, app: Project, engine: sa.Engine, message: Any, as_json: bool) -> None:
        token = transition_all(engine, message.status, "SPAM_REVIEW").job
        if as_json:
            data = answer(app, engine, 0, "jobs", "resume", token, app.models)
            assert (data["finished"], data["done"], data["remaining"]) == (True, 10, 0)
        else:
            (said,) = resumed(app, engine, 0, token)
            assert said.startswith(f"job {token[:12]} was finished at ")

    @pytest.mark.parametrize("as_json", [False, True])
    def test_what_is_cancelled_stays_so(self, app: Project, engine: sa.Engine, message: Any, as_json: bool) -> None:
        token = begun(engine, message).job
        app.run("jobs", "cancel", token, "--url", engine.url)
        if as_json:
            data = answer(app, engine, 1, "jobs", "resume", token, app.models)
            assert (data["cancelled"], data["finished"], data["remaining"]) == (True, False, 10)
        else:
            (said,) = resumed(app, engine, 1, token)
            assert said.endswith("0 rows moved. It cannot be gone on with; begin a new one.")
        assert count(engine, message)["SPAM_REVIEW"] == 0

    def test_the_json_is_the_result(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message, where=message.id < 3).job
        data = answer(app, engine, 0, "jobs", "resume", token, app.models)
        assert data["job"] == token
        assert data["text"] == "Moved 2 / 2 (0 remaining)"
        assert data["condition"] == "message.id < 3"
        assert data["database"] == engine.dialect.name

    def test_models_without_the_column_are_refused(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        app.write(MODELS.replace('"message"', '"mail"'))
        said = refused(app, engine, "resume", token, app.models)
        assert f"moves message.status, which is guarded nowhere in {app.models}: it has mail.status." in said

    def test_of_a_family_the_rows_of_the_class_move(self, app: Project, engine: sa.Engine) -> None:
        models = imported(app, FAMILY)
        models.Base.metadata.create_all(engine)
        execute(engine, "INSERT INTO message (id, status, kind) VALUES (1, 'READY', 'plain'), (2, 'READY', 'spam')")
        token = prepare(engine, models.Spam.status, "SPAM_REVIEW").job
        assert answer(app, engine, 0, "jobs", "resume", token, app.models)["done"] == 1
        assert stored(engine, models.Message) == ["READY", "SPAM_REVIEW"]

    def test_models_without_the_class_are_refused(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        app.write(MODELS.replace("class Message", "class Mail"))
        said = refused(app, engine, "resume", token, app.models)
        assert "moves the message.status of Message, and no class of that name has that table in" in said
        assert said.endswith(": it has Mail.\n")

    def test_two_classes_of_that_name_are_refused(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        other = 'sa.orm.registry().map_imperatively(other := type("Message", (), {}), Message.__table__)'
        app.write(f"{MODELS}\n{other}\n")
        said = refused(app, engine, "resume", token, f"{app.models}:Base")
        assert "several classes of that name have that table" in said

    def test_a_table_without_a_class_will_do(self, app: Project, engine: sa.Engine) -> None:
        models = imported(app, WITHOUT_A_CLASS)
        models.metadata.create_all(engine)
        execute(engine, "INSERT INTO message VALUES (1, 'READY')")
        token = prepare(engine, models.message.c.status, "SPAM_REVIEW").job
        assert answer(app, engine, 0, "jobs", "resume", token, app.models)["done"] == 1

    def test_an_attribute_may_have_another_name_than_its_column(self, app: Project, engine: sa.Engine) -> None:
        text = MODELS.replace("status = mapped_column(sa", 'state = mapped_column("status", sa')
        models = imported(app, text.replace('"status": T', '"state": T'))
        models.Base.metadata.create_all(engine)
        execute(engine, "INSERT INTO message VALUES (1, 'READY')")
        token = prepare(engine, models.Message.state, "SPAM_REVIEW", where=models.Message.state == "READY").job
        assert answer(app, engine, 0, "jobs", "resume", token, app.models)["done"] == 1

    def test_no_time_at_all_is_refused(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message).job
        assert "--budget 0s" in refused(app, engine, "resume", token, app.models, "--budget", "0s")

    @pytest.mark.parametrize("rate", ["0", "-1", "nan", "fast"])
    def test_what_is_no_rate_is_refused(self, app: Project, engine: sa.Engine, message: Any, rate: str) -> None:
        token = begun(engine, message).job
        assert "--rate" in refused(app, engine, "resume", token, app.models, f"--rate={rate}")

    def test_what_the_database_refuses_is_told_with_how_far_it_came(
        self, app: Project, engine: sa.Engine, message: Any
    ) -> None:
        token = begun(engine, message).job
        _refuse_updates(engine)
        result = app.run("jobs", "resume", token, app.models, "--url", engine.url)
        assert result.exit_code == 2
        assert "no more of this" in result.stderr
        assert (
            f"Moved 0 / 10 (10 remaining). What is done stays done; go on with: statekit jobs resume {token[:12]}"
            in (result.stderr)
        )

    @on_postgresql
    def test_the_schema_of_the_ledger_is_that_of_the_models(self, app: Project, engine: sa.Engine) -> None:
        message = _in_schema(engine)
        token = begun(engine, message).job
        app.write(MODELS.replace("Base.metadata)", 'Base.metadata, schema="audit")'))
        assert "it has" not in refused(app, engine, "resume", token, app.models, "--schema", "other")
        assert answer(app, engine, 0, "jobs", "resume", token, app.models)["done"] == 1


def _take_ctrl_c() -> None:
    """Have a process take Ctrl-C that was started by one in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestInterrupted:
    @contextmanager
    def working(self, app: Project, url: sa.URL, token: str, *options: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "statekit", "jobs", "resume", token, app.models, *options]
        with subprocess.Popen(
            command,
            cwd=app.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "STATEKIT_URL": url.render_as_string(hide_password=False)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=_take_ctrl_c,
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith("Moved") and not line.startswith("Moved 0 "):
                        break
                yield process
            finally:
                process.kill()

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg", "asyncpg"])
    def test_it_stops_after_the_batch(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        message = make_inbox(engine, *["READY"] * 500)
        token = begun(engine, message).job
        with self.working(app, databases.url(backend), token, "--rate", "20") as process:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Stopping after this batch. Ctrl-C once more stops at once." in err
        left = count(engine, message)["READY"]
        assert f"job {token[:12]} is interrupted with {left} rows remaining. Go on with:\n" in out
        assert out.endswith(f"  statekit jobs resume {token[:12]} {app.models} --rate 20\n")
        assert "Traceback" not in err
        (job,) = answer(app, engine, 0, "jobs")["jobs"]
        assert (job["state"], job["remaining"]) == ("waiting", left)

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg", "asyncpg"])
    def test_a_second_time_stops_at_once(self, app: Project, databases: Databases, backend: str) -> None:
        engine = sync_engine(databases, backend)
        message = make_inbox(engine, *["READY"] * 5)
        token = begun(engine, message).job
        with self.working(app, databases.url(backend), token, "--rate", "0.001") as process:
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "Stopping" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)  # to the next batch it would be 1,000 seconds
        assert process.returncode == 1
        assert "is interrupted with 4 rows remaining" in out
        assert "Traceback" not in err
        assert answer(app, engine, 0, "jobs")["jobs"][0]["state"] == "waiting"


class TestInATerminal:
    def test_there_is_a_bar(self, app: Project, engine: sa.Engine, message: Any) -> None:
        token = begun(engine, message, operation="Spam capture").job
        url = engine.url.render_as_string(hide_password=False)
        master, slave = os.openpty()
        process = subprocess.run(
            [sys.executable, "-m", "statekit", "jobs", "resume", token, app.models],
            cwd=app.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "STATEKIT_URL": url},
            stdout=slave,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
        os.close(slave)
        said = os.read(master, 65_536).decode()
        os.close(master)
        assert (process.returncode, process.stderr) == (0, "")
        bars = [line for line in said.splitlines() if "[#" in line]
        assert bars[-1].rstrip().endswith("#]  Captured 10 / 10 (0 remaining)")
        assert said.endswith(f"\r\n{shown(engine.url)}: job {token[:12]} is finished: 10 rows moved.\r\n")


def _in_schema(engine: sa.Engine) -> Any:
    """Return a class whose ledger is in the schema audit, with one message."""
    execute(engine, "CREATE SCHEMA audit")
    message = message_class()
    ledger.add_to(message.metadata, schema="audit")
    fill(engine, message, "READY")
    return message


def _refuse_updates(engine: sa.Engine) -> None:
    """Have the database refuse every update of a message."""
    if engine.dialect.name == "sqlite":
        execute(
            engine,
            "CREATE TRIGGER refuse BEFORE UPDATE ON message BEGIN SELECT RAISE(ABORT, 'no more of this'); END",
        )
        return
    execute(
        engine,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no more of this'; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
