"""What stands in a migration that was generated: text that gives back the same trigger, and that people can read."""

from __future__ import annotations

import enum
from typing import Any

from alembic.autogenerate import render_python_code
from alembic.operations import MigrateOperation
from alembic.operations.ops import UpgradeOps
from hypothesis import given
from hypothesis import strategies as st

from statekit.alembic import CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp
from statekit.trigger import StateTrigger

MOVES = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]


class Recorder:
    """Stands for ``op`` in a migration, and keeps the operations instead of executing them."""

    def __init__(self) -> None:
        self.invoked: list[Any] = []

    def invoke(self, operation: Any) -> None:
        self.invoked.append(operation)

    def create_state_trigger(self, *args: Any, **options: Any) -> None:
        CreateStateTriggerOp.create_state_trigger(self, *args, **options)  # type: ignore[arg-type]

    def replace_state_trigger(self, *args: Any, **options: Any) -> None:
        ReplaceStateTriggerOp.replace_state_trigger(self, *args, **options)  # type: ignore[arg-type]

    def drop_state_trigger(self, *args: Any, **options: Any) -> None:
        DropStateTriggerOp.drop_state_trigger(self, *args, **options)  # type: ignore[arg-type]


def rendered(operation: MigrateOperation) -> str:
    """Return an operation as it stands in the body of ``upgrade()``, without Alembic's comments."""
    lines = render_python_code(UpgradeOps([operation])).splitlines()
    return "\n".join(lines[1:-1])


def read_back(operation: MigrateOperation) -> Any:
    """Return the operation that the rendered text says."""
    recorder = Recorder()
    exec("def upgrade():\n" + rendered(operation) + "\nupgrade()", {"op": recorder})
    (found,) = recorder.invoked
    return found


def trigger(**options: Any) -> StateTrigger:
    values: dict[str, Any] = {"transitions": MOVES, "initial": ["READY"]} | options
    return StateTrigger("message", "status", values.pop("transitions"), **values)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
states = st.one_of(st.none(), texts)


@st.composite
def triggers(draw: st.DrawFn) -> StateTrigger:
    known = draw(st.lists(states, min_size=1, max_size=12, unique=True))
    any_state = st.sampled_from(known)
    return StateTrigger(
        "message",
        "status",
        draw(st.lists(st.tuples(any_state, any_state), max_size=20)),
        initial=draw(st.lists(any_state, max_size=4)) or [known[0]],
        schema=draw(st.sampled_from([None, "mail"])),
        on_illegal=draw(st.sampled_from(["raise", "skip", "observe"])),
        inline=draw(st.booleans()),
        states=known,
    )


# --- the same trigger -------------------------------------------------------------------------------------------------


@given(triggers())
def test_what_is_written_gives_back_the_same_trigger(one: StateTrigger) -> None:
    """Whatever is in a state: quotes, line ends, braces, colons, emoji."""
    assert read_back(CreateStateTriggerOp(one)).trigger == one
    assert read_back(DropStateTriggerOp.of(one)).trigger == one


@given(triggers(), triggers())
def test_a_replacement_gives_back_both_rules(one: StateTrigger, other: StateTrigger) -> None:
    """The old rule is written as what is different, and read back as what it was."""
    other = StateTrigger.from_data(other.as_data() | {"schema": one.schema})
    found = read_back(ReplaceStateTriggerOp(one, other))
    assert (found.trigger, found.old) == (one, other)


@given(texts, texts, texts)
def test_names_are_written_as_they_are(table: str, column: str, schema: str) -> None:
    """Reserved words, quotes and line ends in a name are data too."""
    one = StateTrigger(table, column, MOVES, initial=["READY"], schema=schema)
    found = read_back(CreateStateTriggerOp(one)).trigger
    assert (found.table, found.column, found.schema) == (table, column, schema)


class Name(enum.StrEnum):
    MESSAGE = "message"


def test_a_name_that_is_a_member_of_an_enum_is_written_as_text() -> None:
    """The migration needs no import."""
    one = StateTrigger(Name.MESSAGE, "status", MOVES, initial=["READY"], schema=Name.MESSAGE)
    found = read_back(CreateStateTriggerOp(one)).trigger
    assert (found.table, found.schema) == ("message", "message")


def test_a_drop_without_the_rule_is_written_so() -> None:
    """It says what it knows."""
    found = read_back(DropStateTriggerOp("message", "status", schema="mail"))
    assert (found.table, found.column, found.schema, found.trigger) == ("message", "status", "mail", None)


# --- readable ---------------------------------------------------------------------------------------------------------


def test_one_source_is_one_line() -> None:
    """A reviewer sees at a glance where a state may go; what is at its default is left out, the version is not."""
    assert rendered(CreateStateTriggerOp(trigger())) == (
        "    op.create_state_trigger(\n"
        "        'message',\n"
        "        'status',\n"
        "        transitions=[\n"
        "            ('READY', 'SPAM_REVIEW'), ('READY', 'PROMOTED'),\n"
        "            ('PROMOTED', 'COMPLETED'),\n"
        "        ],\n"
        "        initial=['READY'],\n"
        "        version=1,\n"
        "    )"
    )


def test_a_short_one_is_one_line() -> None:
    """Where everything fits, it stands together."""
    short = trigger(transitions=[("A", "B")], initial=["A"], on_illegal="skip")
    assert rendered(CreateStateTriggerOp(short)) == (
        "    op.create_state_trigger('message', 'status', transitions=[('A', 'B')], initial=['A'], on_illegal='skip', "
        "version=1)"
    )


def test_a_replacement_names_only_what_was_different() -> None:
    """The old mode, and not the whole rule again."""
    text = rendered(ReplaceStateTriggerOp(trigger(), trigger(on_illegal="observe")))
    assert "        old={\n            'on_illegal': 'observe',\n        },\n" in text
    assert text.count("transitions") == 1


def test_putting_right_says_why() -> None:
    """The note stands above the operation, as a comment that is no longer than the other lines."""
    text = rendered(ReplaceStateTriggerOp(trigger(), trigger(), "The trigger is disabled. " * 10))
    comments = [line for line in text.splitlines() if line.startswith("    # ")]
    assert (
        "".join(line.removeprefix("    #") for line in comments).split() == ["The", "trigger", "is", "disabled."] * 10
    )
    assert max(map(len, comments)) <= 120
    assert "old={}," in text


def test_a_note_stays_in_its_comment() -> None:
    """A name with a line end does not end the comment."""
    found = read_back(ReplaceStateTriggerOp(trigger(), trigger(), "x\nop.execute('gone')\u2028y"))
    assert found.trigger == trigger()


@given(triggers())
def test_no_line_is_longer_than_needed(one: StateTrigger) -> None:
    """A line is longer than 120 only where a single pair is."""
    for line in rendered(CreateStateTriggerOp(one)).splitlines():
        assert len(line) <= 120 or line.count("), (") == 0
