"""Tables as diagrams."""

from __future__ import annotations

import pytest

from statekit.table import Transition, TransitionTable


@pytest.fixture
def table() -> TransitionTable:
    return TransitionTable("READY → SPAM_REVIEW", Transition("READY", "PROMOTED", "promote"), initial="READY")


class TestMermaid:
    def test_the_whole(self, table: TransitionTable) -> None:
        assert table.to_mermaid().splitlines() == [
            "stateDiagram-v2",
            "    [*] --> READY",
            "    READY --> SPAM_REVIEW",
            "    READY --> PROMOTED: promote",
            "    SPAM_REVIEW --> [*]",
            "    PROMOTED --> [*]",
        ]

    def test_has_no_start_without_initial(self) -> None:
        assert "[*] -->" not in TransitionTable("A → B").to_mermaid()

    def test_gives_an_id_to_other_names(self) -> None:
        assert TransitionTable("in review → DONE").to_mermaid().splitlines()[1:3] == [
            '    state "in review" as s1',
            "    s1 --> DONE",
        ]

    def test_gives_ids_that_no_state_has(self) -> None:
        assert '    state "in review" as s2' in TransitionTable("in review → s1").to_mermaid().splitlines()

    def test_gives_each_name_an_id_of_its_own(self) -> None:
        assert "    s1 --> s2" in TransitionTable("in review → all done").to_mermaid().splitlines()

    @pytest.mark.parametrize("word", ["state", "Note", "end", "ROOT"])
    def test_gives_an_id_to_words_of_mermaid(self, word: str) -> None:
        assert f'state "{word}" as s1' in TransitionTable((word, "DONE")).to_mermaid()

    def test_shows_null(self) -> None:
        assert 'state "NULL" as s1' in TransitionTable((None, "A")).to_mermaid()

    def test_keeps_null_apart_from_a_state_of_that_name(self) -> None:
        assert "    s1 --> NULL" in TransitionTable((None, "NULL")).to_mermaid().splitlines()

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ('say "no"', "say #34;no#34;"),
            ("a\nb", "a<br/>b"),
            ("a\r\nb", "a<br/>b"),
            ("<b>", "#60;b#62;"),
            ("a#b;", "a#35;b#59;"),
            ("%%{x}", "#37;#37;#123;x#125;"),
        ],
    )
    def test_escapes(self, name: str, shown: str) -> None:
        assert f'state "{shown}" as s1\n' in TransitionTable((name, "A")).to_mermaid()


class TestDot:
    def test_the_whole(self, table: TransitionTable) -> None:
        assert table.to_dot().splitlines() == [
            "digraph states {",
            "    rankdir=LR;",
            "    node [shape=box, style=rounded];",
            '    "READY";',
            '    "SPAM_REVIEW" [peripheries=2];',
            '    "PROMOTED" [peripheries=2];',
            '    "start" [shape=point, label=""];',
            '    "start" -> "READY";',
            '    "READY" -> "SPAM_REVIEW";',
            '    "READY" -> "PROMOTED" [label="promote"];',
            "}",
        ]

    def test_has_no_start_without_initial(self) -> None:
        assert "start" not in TransitionTable("A → B").to_dot()

    def test_has_a_start_that_is_no_state(self) -> None:
        assert '    "start_" -> "start";' in TransitionTable("start → B", initial="start").to_dot().splitlines()

    def test_shows_null(self) -> None:
        assert '    "NULL" [label="NULL"];' in TransitionTable((None, "A")).to_dot().splitlines()

    def test_keeps_null_apart_from_a_state_of_that_name(self) -> None:
        assert '    "NULL_" -> "NULL";' in TransitionTable((None, "NULL")).to_dot().splitlines()

    def test_marks_a_final_null(self) -> None:
        assert '    "NULL" [label="NULL", peripheries=2];' in TransitionTable(("A", None)).to_dot().splitlines()

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ('say "no"', r'"say \"no\""'),
            ("a\nb", r'"a\nb"'),
            ("a\\b", r'"a\\b"'),
            ("&lt;", '"&amp;lt;"'),
            ("in review", '"in review"'),
        ],
    )
    def test_quotes(self, name: str, shown: str) -> None:
        assert f'    {shown} -> "A";' in TransitionTable((name, "A")).to_dot().splitlines()
