"""How the triggers of a database differ from those that are declared."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from statekit import TransitionTable, guard
from statekit.trigger import StateTrigger
from statekit.trigger.status import Finding, declared_in, findings
from tests.support.databases import execute, on_postgresql
from tests.trigger.by_hand import MOVES, TABLE, install, trigger

RULE = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")


def found(engine: sa.Engine, *declared: StateTrigger) -> list[Finding]:
    with engine.connect() as connection:
        return findings(connection, declared)


def shown(engine: sa.Engine, *declared: StateTrigger) -> list[tuple[str, str]]:
    return [(each.kind, each.detail) for each in found(engine, *declared)]


def message_table(metadata: sa.MetaData, name: str = "message", **options: Any) -> sa.Table:
    table = sa.Table(
        name, metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20)), schema=None
    )
    guard(table.c.status, RULE, **options)
    return table


class TestWhatIsDeclared:
    def test_each_guarded_column_has_a_trigger(self) -> None:
        metadata = sa.MetaData()
        table = sa.Table(
            "message", metadata, *(sa.Column(name, sa.String(20)) for name in ("status", "other", "third"))
        )
        guard(table.c.third, RULE)
        guard(table.c.status, RULE, on_illegal="skip")
        assert declared_in(metadata) == [StateTrigger.of(table.c.status), StateTrigger.of(table.c.third)]

    def test_those_of_several_metadata_follow_each_other(self) -> None:
        one, two = sa.MetaData(), sa.MetaData()
        message_table(one, "b")
        message_table(two, "a")
        assert [each.table for each in declared_in(one, two)] == ["b", "a"]

    @pytest.mark.parametrize(("choice", "number"), [(None, 1), (True, 1), (False, 0)])
    def test_a_guard_may_have_none(self, choice: bool | None, number: int) -> None:
        metadata = sa.MetaData()
        message_table(metadata, trigger=choice)
        assert len(declared_in(metadata)) == number

    def test_copies_of_the_tables_declare_the_same(self) -> None:
        metadata, copies = sa.MetaData(), sa.MetaData()
        message_table(metadata).to_metadata(copies)
        assert declared_in(copies) == declared_in(metadata)


def test_nothing_is_found_where_all_is_as_declared(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    assert found(engine, trigger()) == []


def test_the_order_of_moves_and_states_makes_no_difference(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    assert found(engine, trigger(transitions=MOVES[::-1])) == []


def test_create_all_makes_what_is_declared(engine: sa.Engine) -> None:
    metadata = sa.MetaData()
    message_table(metadata, trigger=True)
    metadata.create_all(engine)
    assert found(engine, *declared_in(metadata)) == []


def test_one_that_is_not_there_is_missing(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    schema = "main" if engine.dialect.name == "sqlite" else "public"
    assert found(engine, trigger()) == [
        Finding("missing", schema, "message", "status", "the database has no trigger for it", trigger(), None)
    ]


@pytest.mark.parametrize(
    ("declared", "detail"),
    [
        ({"transitions": [*MOVES, ("PROMOTED", "READY")]}, "the database does not allow PROMOTED → READY"),
        ({"transitions": MOVES[1:], "states": ["SPAM_REVIEW"]}, "the database still allows READY → SPAM_REVIEW"),
        ({"initial": ["READY", "PROMOTED"]}, "new rows may start in READY there, declared: READY, PROMOTED"),
        (
            {"states": ["DELETED"]},
            "the states there are READY, SPAM_REVIEW, PROMOTED, COMPLETED, declared: READY, SPAM_REVIEW, PROMOTED,"
            " COMPLETED, DELETED",
        ),
        ({"on_illegal": "observe"}, "on_illegal is 'raise' there, declared: 'observe'"),
        ({"inline": True}, "inline is False there, declared: True"),
    ],
)
def test_one_that_was_made_of_another_declaration_is_outdated(
    engine: sa.Engine, declared: dict[str, Any], detail: str
) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    assert shown(engine, trigger(**declared)) == [("outdated", detail)]


def test_null_is_shown_as_such(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    ((_, detail),) = shown(engine, trigger(transitions=[*MOVES, (None, "READY")], states=[None]))
    assert detail.startswith("the database does not allow NULL → READY")


def test_what_was_changed_by_hand_is_of_the_declared_column(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    of_new_rows = f"{trigger().name}_new"
    execute(engine, f"DROP TRIGGER {of_new_rows}{'' if engine.dialect.name == 'sqlite' else ' ON message'}")
    (only,) = found(engine, trigger())
    assert (only.kind, only.table, only.column, only.declared) == ("incomplete", "message", "status", trigger())


def test_one_that_nobody_declares_is_undeclared(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    (only,) = found(engine)
    assert (only.kind, only.table, only.declared, only.installed) == ("undeclared", "message", None, trigger())


def test_after_a_table_was_renamed_it_says_of_which_table_the_trigger_was_made(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    execute(engine, "ALTER TABLE message RENAME TO mail")
    assert shown(engine, trigger(table="mail")) == [("outdated", "table is 'message' there, declared: 'mail'")]


def test_a_second_trigger_beside_the_declared_one_is_undeclared(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    execute(engine, "ALTER TABLE message RENAME TO mail")
    install(engine, trigger(table="mail"))
    assert shown(engine, trigger(table="mail")) == [("undeclared", f"no guard declares the trigger {trigger().name}")]


@on_postgresql
@pytest.mark.parametrize("first", [None, "public"])
def test_with_and_without_the_default_schema_are_two_triggers(engine: sa.Engine, first: str | None) -> None:
    execute(engine, TABLE)
    install(engine, trigger())
    install(engine, trigger(schema="public"))
    other = trigger(schema="public" if first is None else None)
    assert shown(engine, trigger(schema=first)) == [("undeclared", f"no guard declares the trigger {other.name}")]


@on_postgresql
def test_tables_of_the_same_name_in_two_schemas_are_two(engine: sa.Engine) -> None:
    execute(engine, TABLE)
    execute(engine, "CREATE SCHEMA shop", "CREATE TABLE shop.message (id integer PRIMARY KEY, status text)")
    install(engine, trigger(schema="shop"))
    assert [(each.kind, each.schema) for each in found(engine, trigger(), trigger(schema="shop"))] == [
        ("missing", "public")
    ]
