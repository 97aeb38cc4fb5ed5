"""StateTrigger: a frozen value that says what a trigger is made of."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import re
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import column_property, mapped_column

from statekit import StatekitError, TransitionTable, guard
from statekit.errors import TableError
from statekit.trigger import StateTrigger
from tests.guards.inbox import TABLE, Status, message_class, new_base
from tests.trigger.messages import MOVES, trigger

STATES = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5))
PAIRS = st.lists(st.tuples(STATES, STATES), max_size=6)
NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=80)


@st.composite
def triggers(draw: st.DrawFn) -> StateTrigger:
    """Draw any trigger."""
    return StateTrigger(
        draw(NAMES),
        draw(NAMES),
        draw(PAIRS),
        initial=draw(st.lists(STATES, min_size=1, max_size=3)),
        schema=draw(st.none() | NAMES),
        on_illegal=draw(st.sampled_from(["raise", "skip", "observe"])),
        inline=draw(st.booleans()),
        states=draw(st.lists(STATES, max_size=3)),
    )


class TestAValue:
    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            trigger().column = "other"  # type: ignore[misc]

    def test_is_equal_in_whatever_order_it_is_written(self) -> None:
        assert trigger(transitions=MOVES, initial=["READY", "PROMOTED"]) == trigger(
            transitions=MOVES[::-1], initial=["PROMOTED", "READY"]
        )

    def test_is_equal_to_one_of_a_table_with_the_same_moves(self) -> None:
        assert trigger(transitions=TABLE, initial=None) == trigger()

    def test_leaves_out_moves_to_the_same_state(self) -> None:
        """Staying is legal anyhow."""
        assert trigger(transitions=[*MOVES, ("READY", "READY")]) == trigger()

    @pytest.mark.parametrize(
        "other",
        [
            {"table": "mails"},
            {"column": "state"},
            {"schema": "public"},
            {"transitions": MOVES[1:]},
            {"transitions": [*MOVES, ("COMPLETED", None)]},
            {"initial": ["READY", "PROMOTED"]},
            {"initial": [None]},
            {"on_illegal": "skip"},
            {"on_illegal": "observe"},
            {"inline": True},
            {"states": ["ARCHIVED"]},
        ],
        ids=str,
    )
    def test_differs_in_each_part(self, other: dict[str, Any]) -> None:
        assert trigger(**other) != trigger()
        assert trigger(**other).hash != trigger().hash

    def test_tells_null_from_the_word(self) -> None:
        assert trigger(initial=[None]) != trigger(initial=["None"])

    def test_is_no_other_thing(self) -> None:
        assert trigger() != trigger().as_data()

    @given(triggers())
    def test_evaluates_back_from_its_repr(self, made: StateTrigger) -> None:
        assert eval(repr(made), {"StateTrigger": StateTrigger}) == made

    @given(triggers())
    def test_comes_back_from_json(self, made: StateTrigger) -> None:
        back = StateTrigger.from_data(json.loads(json.dumps(made.as_data())))
        assert (back, hash(back), back.as_data()) == (made, hash(made), made.as_data())

    def test_comes_back_from_pickle(self) -> None:
        assert pickle.loads(pickle.dumps(trigger())) == trigger()

    def test_has_a_hash_that_later_versions_must_keep(self) -> None:
        """It stands in the databases of users: another one would make every trigger outdated."""
        made = StateTrigger("message", "status", MOVES, initial=["READY"])
        assert (made.name, made.hash) == ("statekit_message_status_d0d43d01", "3897d27da67a991e")

    def test_knows_every_state(self) -> None:
        assert trigger(initial=["READY", "NEW"], states=["ARCHIVED"]).states == (
            "READY",
            "SPAM_REVIEW",
            "PROMOTED",
            "COMPLETED",
            "ARCHIVED",
            "NEW",
        )

    def test_starts_in_any_state_where_no_initial_one_is_named(self) -> None:
        assert trigger(initial=None).initial == ("READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED")

    def test_takes_one_initial_state_as_a_text(self) -> None:
        assert trigger(initial="READY") == trigger(initial=["READY"])

    def test_takes_integers_as_the_text_that_the_database_makes_of_them(self) -> None:
        made = trigger(transitions=[(1, 2), (2, -3)], initial=[1])
        assert made == trigger(transitions=[("1", "2"), ("2", "-3")], initial=["1"])

    def test_takes_text_of_an_enum(self) -> None:
        made = trigger(transitions=[(Status.READY, Status.PROMOTED)], initial=[Status.READY])
        assert made.transitions == (("READY", "PROMOTED"),)
        assert type(made.transitions[0][0]) is str


class TestBadInput:
    @pytest.mark.parametrize("name", ["", 1, b"mail", "ma\0il", "\ud800"])
    @pytest.mark.parametrize("part", ["table", "column", "schema"])
    def test_name_is_refused(self, part: str, name: Any) -> None:
        with pytest.raises(TableError, match=part):
            trigger(**{part: name})

    @pytest.mark.parametrize("state", [1.5, b"READY", object(), True, ["READY"]])
    def test_state_is_refused(self, state: Any) -> None:
        with pytest.raises(TableError, match="is no text"):
            trigger(initial=[state])

    @pytest.mark.parametrize(("state", "said"), [("a\0b", "NUL"), ("\ud800", "no valid Unicode")])
    def test_state_that_no_database_stores_is_refused(self, state: str, said: str) -> None:
        with pytest.raises(TableError, match=said):
            trigger(transitions=[("READY", state)])

    @pytest.mark.parametrize("pair", ["READY", ("READY",), ("A", "B", "C"), 1, None, "AB"])
    def test_move_is_refused(self, pair: Any) -> None:
        with pytest.raises(TableError, match="is no move"):
            trigger(transitions=[pair])

    def test_of_no_state_at_all_is_refused(self) -> None:
        with pytest.raises(TableError, match="neither a transition nor an initial state"):
            trigger(transitions=[], initial=[])

    @pytest.mark.parametrize("mode", ["stop", "", None, "RAISE"])
    def test_mode_is_refused(self, mode: Any) -> None:
        with pytest.raises(TableError, match="on_illegal"):
            trigger(on_illegal=mode)

    @pytest.mark.parametrize("inline", ["yes", 1, None])
    def test_inline_is_refused(self, inline: Any) -> None:
        with pytest.raises(TableError, match="inline"):
            trigger(inline=inline)

    @pytest.mark.parametrize("version", [0, 3, "1"])
    def test_version_is_refused(self, version: Any) -> None:
        with pytest.raises(TableError, match="this statekit knows 1, 2"):
            trigger(version=version)

    def test_data_of_a_later_version_say_to_install_a_later_statekit(self) -> None:
        with pytest.raises(TableError, match="later statekit"):
            StateTrigger.from_data(trigger().as_data() | {"version": 3})

    def test_says_where_it_stands(self) -> None:
        with pytest.raises(TableError, match=re.escape("StateTrigger('mail', 'status'): ")):
            trigger(on_illegal="stop")


class TestTheName:
    @given(NAMES, NAMES, st.none() | NAMES)
    def test_is_a_plain_identifier_below_the_limit(self, table: str, column: str, schema: str | None) -> None:
        """With what is put before and after it, all stays below PostgreSQL's 63 bytes."""
        name = trigger(table=table, column=column, schema=schema).name
        assert re.fullmatch("statekit_[a-z0-9_]{1,40}", name)
        assert len(f"{name}_0123456789ab".encode()) <= 63
        assert len(f"zzz_{name}_initial".encode()) <= 63

    @given(st.lists(st.tuples(st.none() | NAMES, NAMES, NAMES), min_size=2, max_size=2, unique=True))
    def test_is_of_this_column_alone(self, places: list[tuple[str | None, str, str]]) -> None:
        names = {trigger(schema=schema, table=table, column=column).name for schema, table, column in places}
        assert len(names) == 2

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ({"table": "a", "column": "b_c"}, {"table": "a_b", "column": "c"}),
            ({"table": "Mail"}, {"table": "mail"}),
            ({"table": "a.b"}, {"schema": "a", "table": "b"}),
            ({"table": "x" * 60}, {"table": "x" * 61}),
            ({"table": "é"}, {"table": "è"}),
        ],
    )
    def test_tells_apart_what_looks_alike(self, one: dict[str, Any], two: dict[str, Any]) -> None:
        assert trigger(**one).name != trigger(**two).name

    def test_does_not_depend_on_the_rule(self) -> None:
        """So that another rule takes the place of the old one."""
        assert trigger(transitions=[("A", "B")], initial=["A"], on_illegal="skip", inline=True).name == trigger().name

    def test_shows_the_schema_in_messages(self) -> None:
        assert (trigger(schema="app").full_table, trigger().full_table) == ("app.mail", "mail")


class TestOf:
    """``StateTrigger.of(Message.status)``"""

    def test_a_guarded_attribute(self) -> None:
        model = message_class()
        assert StateTrigger.of(model.status) == StateTrigger("message", "status", MOVES, initial=["READY"])

    def test_a_guarded_column(self) -> None:
        model = message_class()
        assert StateTrigger.of(model.__table__.c.status) == StateTrigger.of(model.status)

    def test_a_column_without_a_mapper(self) -> None:
        table = sa.Table("t", sa.MetaData(schema="app"), sa.Column("s", sa.String))
        guard(table.c.s, TABLE)
        assert StateTrigger.of(table.c.s) == StateTrigger("t", "s", MOVES, initial=["READY"], schema="app")

    def test_an_enum_has_the_text_that_the_database_stores(self) -> None:
        class Number(enum.Enum):
            ONE = "1"
            TWO = "2"

        model = message_class(
            table=TransitionTable((Number.ONE, Number.TWO)), type_=sa.Enum(Number), default=Number.ONE
        )
        assert StateTrigger.of(model.status).transitions == (("ONE", "TWO"),)

    def test_an_enum_with_values_callable_has_its_values(self) -> None:
        class Number(enum.Enum):
            ONE = "1"
            TWO = "2"

        type_ = sa.Enum(Number, values_callable=lambda members: [member.value for member in members])
        model = message_class(table=TransitionTable((Number.ONE, Number.TWO)), type_=type_, default=Number.ONE)
        assert StateTrigger.of(model.status).transitions == (("1", "2"),)

    def test_an_attribute_of_another_name_has_that_of_the_column(self) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task"
            id = mapped_column(sa.Integer, primary_key=True)
            state = mapped_column("St ate", sa.String)

        guard(Task.state, TABLE)
        assert StateTrigger.of(Task.state).column == "St ate"

    def test_a_subclass_is_that_of_the_class_with_the_column(self) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task"
            id = mapped_column(sa.Integer, primary_key=True)
            kind = mapped_column(sa.String)
            status = mapped_column(sa.String)
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "task"}

        class Chore(Task):
            __tablename__ = "chore"
            id = mapped_column(sa.ForeignKey("task.id"), primary_key=True)
            __mapper_args__ = {"polymorphic_identity": "chore"}

        guard(Task.status, TABLE)
        assert StateTrigger.of(Chore.status) == StateTrigger.of(Task.status)
        assert StateTrigger.of(Chore.status).table == "task"

    def test_keeps_the_mode(self) -> None:
        assert StateTrigger.of(message_class(on_illegal="skip").status).on_illegal == "skip"

    def test_keeps_states_without_moves(self) -> None:
        table = TransitionTable("READY → PROMOTED", states=["READY", "PROMOTED", "ARCHIVED"])
        assert StateTrigger.of(message_class(table=table).status).states == ("READY", "PROMOTED", "ARCHIVED")

    def test_what_has_no_guard_is_refused(self) -> None:
        with pytest.raises(StatekitError, match="has no guard"):
            StateTrigger.of(message_class(table=None).status)

    @pytest.mark.parametrize("thing", [None, "Message.status", 1, sa.column("status")])
    def test_what_is_no_attribute_is_refused(self, thing: Any) -> None:
        with pytest.raises(StatekitError, match="has no guard"):
            StateTrigger.of(thing)

    def test_an_expression_is_refused(self) -> None:
        class Task(new_base()):  # type: ignore[misc]
            __tablename__ = "task"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String)
            shout = column_property(sa.func.upper(status))

        guard(Task.status, TABLE)
        with pytest.raises(StatekitError, match="has no guard"):
            StateTrigger.of(Task.shout)

    def test_another_attribute_of_the_class_is_refused(self) -> None:
        model = message_class()
        with pytest.raises(StatekitError, match="has no guard"):
            StateTrigger.of(model.subject)


class TestTheDialect:
    @pytest.mark.parametrize(("name", "dialect"), [("postgresql", postgresql.dialect()), ("sqlite", sqlite.dialect())])
    @pytest.mark.parametrize("what", ["create_sql", "drop_sql"])
    def test_is_a_name_or_an_object(self, what: str, name: str, dialect: Any) -> None:
        assert getattr(trigger(), what)(name) == getattr(trigger(), what)(dialect)

    @pytest.mark.parametrize("dialect", ["mysql", "oracle", "", None, mysql.dialect()])
    def test_that_has_no_triggers_of_ours_is_refused(self, dialect: Any) -> None:
        for made in (trigger().create_sql, trigger().drop_sql, lambda d: trigger().replace_sql(trigger(), d)):
            with pytest.raises(StatekitError, match="there are for postgresql and sqlite"):
                made(dialect)

    def test_decides_nothing_about_what_may_be_replaced(self) -> None:
        with pytest.raises(StatekitError, match="replaces one of the same column"):
            trigger().replace_sql(trigger(column="state"), "postgresql")

    @given(triggers(), st.sampled_from(["postgresql", "sqlite"]))
    def test_gives_the_same_sql_each_time(self, made: StateTrigger, dialect: str) -> None:
        again = StateTrigger.from_data(made.as_data())
        assert made.create_sql(dialect) == again.create_sql(dialect)

    @given(triggers())
    def test_gives_no_percent_sign_and_no_control_character_for_postgresql(self, made: StateTrigger) -> None:
        """Drivers take a percent sign for a parameter, and editors and git change ends of lines."""
        for statement in (*made.create_sql("postgresql"), *made.drop_sql("postgresql")):
            assert not set(statement) & (set(map(chr, range(32))) - {"\n"} | {"%", "\x7f"})
