"""Names and states may be any text: what they say never becomes SQL, and comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from statekit import IllegalTransition
from statekit.trigger import StateTrigger
from statekit.trigger.quoting import dollar_quoted, filled, plain_identifier
from tests.support.databases import execute
from tests.trigger.messages import counts, move

NASTY = (
    "it's",
    '"quoted"',
    "a\\b",
    "\\",
    "\\'",
    "ends with \\",
    "line\nend",
    "\r\n",
    "tab\t",
    "$statekit$",
    "$$",
    "$1",
    "100 %",
    "%s",
    "%(x)s",
    "%%",
    ":name",
    "{{name}}",
    "{{rule}}",
    "{0}",
    "*/",
    "/* -- */",
    "-- comment",
    "'; DROP TABLE mail; --",
    "');--",
    "\\u0041",
    "\\n",
    "*",
    "=",
    "-",
    "+",
    "",
    " ",
    " leading",
    "trailing ",
    "NULL",
    "null",
    "true",
    "1",
    "🎉",
    "Ä\u0308",
    "A\u0308",
    "\u200b",
    "\x7f",
    "\x1b[31m",
    "\ufeff",
    "statekit: {",
    "[statekit_mail_status_00000000 {}]",
    "x" * 3_000,
)
PIECES = [
    "'",
    '"',
    "\\",
    "\n",
    "\r",
    "$statekit$",
    "%",
    "{{name}}",
    "*/",
    "--",
    ";",
    "\\u0025",
    "🎉",
    "é",
    "a",
    "B",
    "]",
    "}",
]
TEXTS = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
)


@st.composite
def rules(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    """Draw three different states, and the moves between them; a new row may start in the first."""
    states = draw(st.lists(TEXTS, min_size=3, max_size=3, unique=True))
    pairs = [(one, two) for one in states for two in states if one != two]
    return states, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6))


@pytest.fixture(params=["sqlite", "postgres", "older", "postgres without standard strings"])
def place(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """Return an engine on a database with the table mail; the last one reads a backslash in a literal as an escape."""
    names = {"sqlite": "memory_engine", "older": "older_engine"}
    engine: sa.Engine = request.getfixturevalue(names.get(request.param, "postgres_engine"))
    if "without" in request.param:

        def set_off(connection: Any, record: Any) -> None:
            connection.cursor().execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
            connection.commit()

        sa.event.listen(engine, "connect", set_off)
    execute(engine, "CREATE TABLE mail (id integer PRIMARY KEY, status text)")
    return engine


def attempt(engine: sa.Engine, state: str, id_: int, new: bool = False) -> IllegalTransition | None:
    """Try to move a row, or to make one, and return what it is refused with."""
    statement = "INSERT INTO mail VALUES (:id, :state)" if new else "UPDATE mail SET status = :state WHERE id = :id"
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(statement), {"id": id_, "state": state})
            connection.rollback()
    except IllegalTransition as error:
        return error
    return None


@given(rules(), st.booleans())
@example((["it's", "\\", "{{name}} $statekit$ */ %s"], [("\\", "it's")]), False)
@example((["*", "-", "+"], [("*", "-")]), False)
@example((["it's", '"quoted"', "[statekit_mail_status_00000000 {}]"], []), False)
def test_any_text_is_a_state(place: sa.Engine, rule: tuple[list[str], list[tuple[str, str]]], inline: bool) -> None:
    """Moves are judged right, and both the error and the count carry the states exactly as they are."""
    states, moves = rule
    made = StateTrigger("mail", "status", moves, initial=[states[0]], states=states, inline=inline)
    execute(place, "DELETE FROM mail")
    with place.begin() as connection:
        for number, state in enumerate(states):
            connection.execute(sa.text("INSERT INTO mail VALUES (:n, :s)"), {"n": number, "s": state})
    execute(place, *made.create_sql(place.dialect))
    try:
        illegal = {}
        for number, source in enumerate(states):
            for target in states:
                error = attempt(place, target, number)
                assert (error is None) == (source == target or (source, target) in moves), (source, target)
                if error is not None:
                    illegal[source, target] = 1
                    assert move(error) == (source, target)
        for state in states:
            error = attempt(place, state, 9, new=True)
            assert (error is None) == (state == states[0])
            if error is not None:
                illegal[None, state] = 1
                assert move(error) == (None, state)
        if place.dialect.name == "postgresql":
            assert counts(place, made) == illegal
    finally:
        execute(place, *made.drop_sql(place.dialect))


NAMES = (
    "select",
    "user",
    "Mail",
    "MAIL",
    "two words",
    'quo"te',
    "it's",
    "per%cent",
    "%(x)s",
    "do.t",
    "back\\slash",
    "line\nend",
    "é🎉",
    "{{name}}",
    "$statekit$",
    "new",
    "old",
    "source",
    "target",
    "state",
    "counter",
    "r",
    "new_rows",
    "x" * 63,
    "é" * 31,
    "a\\0041b",
    ":colon",
    "1",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["schema", "table", "column"])
class TestAnyName:
    """Of a schema, a table or a column, as long as PostgreSQL takes it (63 bytes)."""

    @pytest.fixture
    def table(self, part: str, name: str) -> sa.Table:
        names = {"schema": "app", "table": "mail", "column": "status"} | {part: name}
        return sa.Table(
            names["table"],
            sa.MetaData(schema=names["schema"]),
            sa.Column("id", sa.Integer, primary_key=True, key="id"),
            sa.Column(names["column"], sa.Text, key="status"),
        )

    def test_is_held_on_postgresql(self, postgres_engine: sa.Engine, table: sa.Table) -> None:
        made = of(table)
        with postgres_engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(str(table.schema)))
            table.create(connection)
            connection.execute(table.insert(), {"id": 1, "status": "READY"})
        execute(postgres_engine, *made.create_sql("postgresql"))
        execute(postgres_engine, *made.replace_sql(made, "postgresql"))
        update_and_check(postgres_engine, table)
        assert counts(postgres_engine, made) == {("READY", "DONE"): 1}
        execute(postgres_engine, *made.drop_sql("postgresql"))
        with postgres_engine.begin() as connection:
            connection.execute(table.update().values(status="DONE"))

    def test_is_held_on_sqlite(self, memory_engine: sa.Engine, table: sa.Table) -> None:
        attach = f"ATTACH ':memory:' AS {memory_engine.dialect.identifier_preparer.quote(str(table.schema))}"
        made = of(table)
        with memory_engine.connect() as connection:
            connection.execute(sa.text(attach.replace(":", "\\:")))
            connection.commit()
            with connection.begin():
                table.create(connection)
                connection.execute(table.insert(), {"id": 1, "status": "READY"})
            execute(memory_engine, *made.create_sql("sqlite"))
            update_and_check(memory_engine, table)
            execute(memory_engine, *made.drop_sql("sqlite"))
            connection.execute(table.update().values(status="DONE"))


def of(table: sa.Table) -> StateTrigger:
    moves = [("READY", "PROMOTED"), ("PROMOTED", "DONE")]
    return StateTrigger(table.name, table.c.status.name, moves, initial=["READY"], schema=table.schema)


def update_and_check(engine: sa.Engine, table: sa.Table) -> None:
    with engine.connect() as connection:
        with pytest.raises(IllegalTransition) as caught, connection.begin():
            connection.execute(table.update().values(status="DONE"))
        assert move(caught.value) == ("READY", "DONE")
        with connection.begin():
            connection.execute(table.update().values(status="PROMOTED"))
            connection.execute(table.update().values(status="DONE"))
            connection.execute(table.update().values(id=1))
            connection.rollback()


class TestWriting:
    def test_a_template_is_filled_in_one_pass(self) -> None:
        """What is put in is not looked at again."""
        assert filled("{{a}} {{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}}"

    def test_a_body_gets_a_tag_that_it_does_not_contain(self) -> None:
        body = "$statekit$ and what follows"
        tag = dollar_quoted(body).splitlines()[0]
        assert tag not in body
        assert dollar_quoted(body) == f"{tag}\n{body}\n{tag}"

    @given(TEXTS.filter(bool))
    def test_a_name_stands_for_itself(self, postgres_engine: sa.Engine, name: str) -> None:
        name = name.encode()[:63].decode(errors="ignore")
        with postgres_engine.connect() as connection:
            result = connection.exec_driver_sql(f"SELECT 1 AS {plain_identifier(name)}")
            assert list(result.keys()) == [name]
