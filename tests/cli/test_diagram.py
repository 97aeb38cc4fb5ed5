"""statekit diagram: what a guard allows, and what was tried beside it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import TransitionTable
from tests.cli.books import be_refused, enter, install, make, sync_engine
from tests.cli.conftest import INBOX, Project
from tests.ledger.books import attached, capture, inbox
from tests.support.databases import ASYNC_BACKENDS, SYNC_BACKENDS, Databases, on_postgresql

TABLE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")
TWO = INBOX + INBOX.partition("class Message")[2].join(["\nclass Message", ""]).replace("Message", "Invoice").replace(
    '"message"', '"invoice"'
)


def drawn(project: Project, *options: str | sa.URL) -> list[str]:
    result = project.run("diagram", project.models, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


class TestWithoutADatabase:
    def test_it_is_the_tables_own_diagram(self, project: Project) -> None:
        project.write()
        assert drawn(project) == ["%% message.status", *TABLE.to_mermaid().splitlines()]
        assert drawn(project, "--format", "dot") == ["// message.status", *TABLE.to_dot().splitlines()]

    def test_each_column_has_one(self, project: Project) -> None:
        project.write(TWO)
        assert [line for line in drawn(project) if "%%" in line] == ["%% invoice.status", "%% message.status"]

    def test_a_table_may_be_chosen(self, project: Project) -> None:
        project.write(TWO)
        assert [line for line in drawn(project, "--table", "invoice") if "%%" in line] == ["%% invoice.status"]

    def test_as_json(self, project: Project) -> None:
        project.write()
        assert json.loads("\n".join(drawn(project, "--json"))) == {
            "format": "mermaid",
            "columns": [{"table": "message", "column": "status", "diagram": TABLE.to_mermaid(), "remark": ""}],
        }


class TestWithADatabase:
    def test_illegal_moves_are_dashed_and_have_their_numbers(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        message = inbox(engine, "PROMOTED", "PROMOTED")
        with attached(engine), Session(engine) as session:
            capture(session, message, 1, 2)
        enter(engine, 3, kind="observed")
        enter(engine, 4, (None, "COMPLETED"), is_new=True)
        assert drawn(project, "--url", engine.url) == [
            "%% message.status",
            "flowchart LR",
            '    start((" "))',
            '    s1["READY"]',
            '    s2[["SPAM_REVIEW"]]',
            '    s3["PROMOTED"]',
            '    s4[["COMPLETED"]]',
            "    start --> s1",
            "    s1 --> s2",
            "    s1 --> s3",
            "    s3 --> s4",
            '    s3 -.->|"2 blocked, 3 observed"| s2',
            '    start -.->|"4 blocked"| s4',
        ]

    def test_for_graphviz_likewise(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        make(engine)
        enter(engine, 2)
        assert drawn(project, "--url", engine.url, "--format", "dot")[1:] == [
            "digraph states {",
            "    rankdir=LR;",
            "    node [shape=box, style=rounded];",
            '    start [shape=point, label=""];',
            '    s1 [label="READY"];',
            '    s2 [label="SPAM_REVIEW", peripheries=2];',
            '    s3 [label="PROMOTED"];',
            '    s4 [label="COMPLETED", peripheries=2];',
            "    start -> s1;",
            "    s1 -> s2;",
            "    s1 -> s3;",
            "    s3 -> s4;",
            '    s3 -> s2 [label="2 blocked", style=dashed];',
            "}",
        ]

    def test_a_state_that_the_table_does_not_know_has_a_dashed_border(
        self, project: Project, engine: sa.Engine
    ) -> None:
        project.write()
        make(engine)
        enter(engine, 2, ("READY", 'A "B" \\ #1'))
        found = drawn(project, "--url", engine.url)
        assert '    s5["A #34;B#34; #92; #35;1"]:::unknown' in found
        assert found[-2:] == ['    s1 -.->|"2 blocked"| s5', "    classDef unknown stroke-dasharray: 4"]
        found = drawn(project, "--url", engine.url, "--format", "dot")
        assert r'    s5 [label="A \"B\" \\ #1", style="rounded,dashed"];' in found

    def test_an_event_stands_before_the_numbers(self, project: Project, engine: sa.Engine) -> None:
        project.write(
            INBOX.replace('"READY → SPAM_REVIEW"', 'Transition("READY", "SPAM_REVIEW", "capture")').replace(
                "import Guarded,", "import Guarded, Transition,"
            )
        )
        make(engine)
        enter(engine, 2, ("READY", "SPAM_REVIEW"))
        assert '    s1 -->|"capture (2 blocked)"| s2' in drawn(project, "--url", engine.url)

    def test_moves_of_other_columns_are_not_drawn(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        make(engine)
        enter(engine, 2, table_name="invoice")
        enter(engine, 2, attribute="payment")
        assert not any("blocked" in line for line in drawn(project, "--url", engine.url))

    @on_postgresql
    def test_what_triggers_have_counted_is_added(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        install(engine)
        make(engine)
        enter(engine, 2)
        be_refused(engine)
        be_refused(engine, "UPDATE message SET status = 'LOST' WHERE id = 1")
        found = drawn(project, "--url", engine.url)
        assert '    s3 -.->|"3 blocked"| s2' in found
        assert found[1] == "%% 1 blocked: moves from or to what is no state of the table"

    @on_postgresql
    def test_what_the_trigger_of_another_column_counted_is_not(self, project: Project, engine: sa.Engine) -> None:
        project.write(INBOX.replace("status", "state"))
        install(engine)
        make(engine)
        be_refused(engine)
        assert not any("blocked" in line for line in drawn(project, "--url", engine.url))

    @on_postgresql
    def test_what_guard_and_trigger_observed_is_drawn_once(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        install(engine, on_illegal="observe")
        make(engine)
        enter(engine, 1, kind="observed")
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE message SET status = 'SPAM_REVIEW' WHERE id = 1")
        assert '    s3 -.->|"1 observed"| s2' in drawn(project, "--url", engine.url)

    def test_without_a_ledger_it_says_so_and_draws(self, project: Project, engine: sa.Engine) -> None:
        project.write()
        engine.connect().close()
        result = project.run("diagram", project.models, "--url", engine.url)
        assert (result.exit_code, "there is no ledger" in result.stderr) == (0, True)
        assert "flowchart LR" in result.stdout

    @pytest.mark.parametrize("backend", [*SYNC_BACKENDS, *ASYNC_BACKENDS])
    def test_every_driver_will_do(self, project: Project, databases: Databases, backend: str) -> None:
        project.write()
        engine = sync_engine(databases, backend)
        make(engine)
        enter(engine, 2)
        assert '    s3 -.->|"2 blocked"| s2' in drawn(project, "--url", databases.url(backend))


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not on this machine")
def test_graphviz_reads_it(project: Project, sqlite_engine: sa.Engine) -> None:
    project.write()
    make(sqlite_engine)
    enter(sqlite_engine, 2, ("READY", 'A "B" \\ &amp; #1\nx'))
    text = "\n".join(drawn(project, "--url", sqlite_engine.url, "--format", "dot"))
    done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
