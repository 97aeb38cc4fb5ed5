"""Every kind of condition: what it finds is what a SELECT finds, also for who goes on with the token alone."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, aliased

from statekit import atransition_all, transition_all
from statekit.bulk import aprepare, prepare
from statekit.bulk.condition import checked, from_text, rendered
from statekit.errors import StatekitError
from tests.bulk.models import BYTES, NOON, TARGET, TEXTS, Colour, fill_mailbox, mailbox, restore, states
from tests.guards.inbox import unguarded
from tests.support.databases import Databases, run

Condition = Callable[[Any, Any], Any]
CONDITIONS: dict[str, Condition] = {}
ON_POSTGRESQL: set[str] = set()
WITHOUT_TEXT: set[str] = set()


def condition(build: Condition) -> Condition:
    CONDITIONS[build.__name__] = build
    return build


def on_postgresql(build: Condition) -> Condition:
    ON_POSTGRESQL.add(build.__name__)
    return build


def without_text(build: Condition) -> Condition:
    WITHOUT_TEXT.add(build.__name__)
    return build


# --- other tables


@condition
def another_table(m: Any, p: Any) -> Any:
    return [m.sender_id == p.id, p.name == "O'Brien"]


@condition
def another_table_with_several_rows_for_each(m: Any, p: Any) -> Any:
    return p.id >= m.sender_id


@condition
def another_table_in_one_of_several(m: Any, p: Any) -> Any:
    return sa.or_(m.number > 1, sa.and_(m.sender_id == p.id, p.name == "100%"))


@condition
def exists(m: Any, p: Any) -> Any:
    return sa.exists().where(p.id == m.sender_id, p.name.like("%a%"))


@condition
def not_exists(m: Any, p: Any) -> Any:
    return ~sa.exists(sa.select(p.id).where(p.id == m.sender_id, p.name == "100%"))


@condition
def in_a_subquery(m: Any, p: Any) -> Any:
    return m.sender_id.in_(sa.select(p.id).where(p.name.in_(["ada", "O'Brien"])))


@condition
def not_in_a_subquery(m: Any, p: Any) -> Any:
    return m.sender_id.not_in(sa.select(p.id).where(p.name == "ada"))


@condition
def scalar_subquery_that_looks_at_the_row(m: Any, p: Any) -> Any:
    return sa.select(p.name).where(p.id == m.sender_id).scalar_subquery() == "100%"


@condition
def scalar_subquery_of_the_same_table(m: Any, p: Any) -> Any:
    other = aliased(m)
    return m.id > sa.select(sa.func.avg(other.id)).where(other.sender_id == m.sender_id).scalar_subquery()


@condition
def alias_of_the_same_table(m: Any, p: Any) -> Any:
    parent = aliased(m)
    return sa.and_(m.parent_id == parent.id, parent.subject == "it's")


@condition
def alias_of_the_core_table(m: Any, p: Any) -> Any:
    parent = m.__table__.alias("parents")
    return sa.and_(m.parent_id == parent.c.id, parent.c.number > 0)


@condition
def has(m: Any, p: Any) -> Any:
    return m.sender.has(p.name == "O'Brien")


@condition
def has_by_name(m: Any, p: Any) -> Any:
    return ~m.sender.has(name="ada")


@condition
def any_(m: Any, p: Any) -> Any:
    return m.answers.any(m.subject.contains("%", autoescape=True))


@condition
def equals_an_object(m: Any, p: Any) -> Any:
    return m.sender == p(id=2)


@condition
def window_in_a_subquery(m: Any, p: Any) -> Any:
    place = sa.func.row_number().over(partition_by=m.sender_id, order_by=m.id.desc()).label("place")
    ranked = sa.select(m.id, place).subquery()
    return m.id.in_(sa.select(ranked.c.id).where(ranked.c.place <= 9))


@condition
def from_a_subquery(m: Any, p: Any) -> Any:
    latest = sa.select(m.sender_id, sa.func.max(m.id).label("id")).group_by(m.sender_id).subquery()
    return m.id == latest.c.id - 3


@condition
def limited_subquery(m: Any, p: Any) -> Any:
    return m.id.in_(sa.select(aliased(m).id).where(m.__table__.c.id == 40).limit(1)) | (m.id < 10)


@condition
@without_text
def common_table_expression(m: Any, p: Any) -> Any:
    people = sa.select(p.id).where(p.name == "ada").cte("people")
    return m.sender_id.in_(sa.select(people.c.id))


# --- the condition itself


@condition
def text_alone(m: Any, p: Any) -> Any:
    return sa.text("message.subject = 'it''s' OR message.subject LIKE '100%'")


@condition
def text_with_colons(m: Any, p: Any) -> Any:
    return sa.text(r"message.subject LIKE 'one\:two%'")


@condition
def text_with_parameters(m: Any, p: Any) -> Any:
    return sa.text("message.subject = :subject AND message.number > :number").bindparams(subject="it's", number=-9)


@condition
def text_with_a_list(m: Any, p: Any) -> Any:
    wanted: Any = sa.bindparam("wanted", ["it's", "100%"], expanding=True)
    return sa.text("message.subject IN :wanted").bindparams(wanted)


@condition
def text_beside_others(m: Any, p: Any) -> Any:
    return [sa.text("message.number = 1 OR message.number = 2"), m.sender_id == 1]


@condition
def a_list(m: Any, p: Any) -> Any:
    return [m.number > 0, m.sender_id == 1]


@condition
def a_tuple(m: Any, p: Any) -> Any:
    return (m.number > 0, sa.or_(m.sender_id == 1, m.sender_id == 2))


@condition
def true(m: Any, p: Any) -> Any:
    return True


@condition
def true_of_sql(m: Any, p: Any) -> Any:
    return sa.true()


@condition
def false(m: Any, p: Any) -> Any:
    return False


@condition
def not_(m: Any, p: Any) -> Any:
    return sa.not_(sa.or_(m.number > 0, m.flag))


@condition
def a_flag(m: Any, p: Any) -> Any:
    return m.flag


@condition
def a_flag_is_not(m: Any, p: Any) -> Any:
    return ~m.flag


@condition
def is_true(m: Any, p: Any) -> Any:
    return m.flag.is_(True)


@condition
def is_null(m: Any, p: Any) -> Any:
    return m.note == None  # noqa: E711


@condition
def is_not_null(m: Any, p: Any) -> Any:
    return m.number.is_not(None)


@condition
def is_distinct_from(m: Any, p: Any) -> Any:
    return m.number.is_distinct_from(1)


@condition
def core_columns(m: Any, p: Any) -> Any:
    return m.__table__.c.number == 1


@condition
def column_without_a_table(m: Any, p: Any) -> Any:
    return sa.column("number") > 0


@condition
def nothing_in_a_list(m: Any, p: Any) -> Any:
    return m.number.in_([])


@condition
def not_in_nothing(m: Any, p: Any) -> Any:
    return m.number.not_in([])


@condition
def many_in_a_list(m: Any, p: Any) -> Any:
    return m.id.in_(list(range(3, 5_000, 3)))


@condition
def tuples(m: Any, p: Any) -> Any:
    return sa.tuple_(m.sender_id, m.number).in_([(1, 1), (2, -1), (3, 0)])


@condition
def case_when(m: Any, p: Any) -> Any:
    return sa.case((m.number > 0, "more"), (m.number < 0, "less"), else_="none") == "less"


@condition
def functions(m: Any, p: Any) -> Any:
    return sa.func.length(sa.func.coalesce(m.note, "no 'note'")) > 5


@condition
def arithmetic(m: Any, p: Any) -> Any:
    return (m.number - -1) * 2 % 3 == 1


@condition
def negative_literal(m: Any, p: Any) -> Any:
    return m.number == -sa.literal(-1)


@condition
def between(m: Any, p: Any) -> Any:
    return m.number.between(-1, 1)


@condition
def concatenation(m: Any, p: Any) -> Any:
    return m.note + ": '" + m.subject == "note: 'it's"


@condition
def cast(m: Any, p: Any) -> Any:
    return sa.cast(m.number, sa.String) == "-1"


# --- values


@condition
def like(m: Any, p: Any) -> Any:
    return m.subject.like("%a%")


@condition
def like_with_an_escape(m: Any, p: Any) -> Any:
    return m.subject.like("100!%", escape="!")


@condition
def starts_with(m: Any, p: Any) -> Any:
    return m.subject.startswith("%s %(", autoescape=True)


@condition
def ilike(m: Any, p: Any) -> Any:
    return m.subject.ilike("PLAI%")


for _text in TEXTS:
    CONDITIONS[f"text {_text!r}"] = lambda m, p, text=_text: m.subject == text  # type: ignore[misc]

for _bytes in BYTES:
    CONDITIONS[f"bytes {_bytes!r}"] = lambda m, p, value=_bytes: m.raw == value  # type: ignore[misc]


@condition
def bytes_in_a_list(m: Any, p: Any) -> Any:
    return m.raw.in_([b"plain", b"\x00\xff\xfe"])


@condition
def all_texts(m: Any, p: Any) -> Any:
    return m.subject.in_(TEXTS[:-1])


@condition
def datetime(m: Any, p: Any) -> Any:
    return m.at > NOON + dt.timedelta(hours=6)


@condition
def datetime_with_microseconds(m: Any, p: Any) -> Any:
    return m.at == NOON + dt.timedelta(hours=3, microseconds=1)


@condition
def datetime_with_a_zone(m: Any, p: Any) -> Any:
    return m.at_zone >= (NOON + dt.timedelta(hours=6)).replace(tzinfo=dt.timezone(dt.timedelta(hours=1)))


@condition
def date(m: Any, p: Any) -> Any:
    return m.day <= NOON.date() + dt.timedelta(days=2)


@condition
def time(m: Any, p: Any) -> Any:
    return m.hour > dt.time(12)


@condition
def interval(m: Any, p: Any) -> Any:
    return m.lapse == dt.timedelta(hours=2, microseconds=1)


@condition
@on_postgresql
def interval_in_arithmetic(m: Any, p: Any) -> Any:
    return m.at - dt.timedelta(hours=6, milliseconds=1) > sa.literal(NOON)


@condition
def now(m: Any, p: Any) -> Any:
    return m.at < sa.func.now()


@condition
def number_with_decimals(m: Any, p: Any) -> Any:
    return m.price.in_([decimal.Decimal("0.125"), decimal.Decimal("-0.2500")])


@condition
def float_(m: Any, p: Any) -> Any:
    return m.ratio == 0.1 + 0.2 - 0.00000000000000004


@condition
def float_tiny(m: Any, p: Any) -> Any:
    return m.ratio > 1e-17


@condition
def float_without_end(m: Any, p: Any) -> Any:
    return m.ratio < float("inf")


@condition
def enum(m: Any, p: Any) -> Any:
    return m.colour == Colour.RED


@condition
def enum_in_a_list(m: Any, p: Any) -> Any:
    return m.colour.in_([Colour.BLUE])


@condition
def uuid_(m: Any, p: Any) -> Any:
    return m.uid.in_([uuid.UUID(int=1), uuid.UUID(int=7)])


@condition
def json_text(m: Any, p: Any) -> Any:
    return m.data["kind"].as_string() == "it's"


@condition
def json_with_percent(m: Any, p: Any) -> Any:
    return m.data["kind"].as_string().in_(["100%", 'say "hi"'])


@condition
def json_number(m: Any, p: Any) -> Any:
    return m.data["deep", "n"].as_integer() == 3


@condition
def json_number_in_a_list(m: Any, p: Any) -> Any:
    return m.data["of", 0].as_integer() == 1


@condition
@on_postgresql
def jsonb_contains(m: Any, p: Any) -> Any:
    return m.data.op("@>")(sa.cast({"deep": {"n": 1}}, postgresql.JSONB()))


@condition
@on_postgresql
def array_contains(m: Any, p: Any) -> Any:
    return m.tags.op("@>")(sa.literal(["it's"], sa.ARRAY(sa.Text)))


@condition
@on_postgresql
def any_of_an_array(m: Any, p: Any) -> Any:
    return m.subject == sa.any_(sa.literal(["it's", "100%", "back\\slash \\' \\n \\x41"], sa.ARRAY(sa.Text)))


@condition
@on_postgresql
def any_of_an_empty_array(m: Any, p: Any) -> Any:
    return m.number != sa.all_(sa.literal([], sa.ARRAY(sa.Integer)))


@condition
@on_postgresql
def regular_expression(m: Any, p: Any) -> Any:
    return m.subject.regexp_match(r"^\d+%$|\\")


# --- the guarded column itself


@condition
def state_that_may_move(m: Any, p: Any) -> Any:
    return m.status == "READY"


@condition
def state_that_must_not(m: Any, p: Any) -> Any:
    return m.status == "COMPLETED"


@condition
def states_that_may_and_must_not(m: Any, p: Any) -> Any:
    return m.status.in_(["READY", "PROMOTED", TARGET])


@condition
def state_is_null(m: Any, p: Any) -> Any:
    return m.status.is_(None)


@condition
def state_that_is_none(m: Any, p: Any) -> Any:
    return m.status == "NO SUCH STATE"


@condition
def state_is_the_target(m: Any, p: Any) -> Any:
    return m.status == TARGET


@condition
def state_is_another(m: Any, p: Any) -> Any:
    return m.status != "PROMOTED"


@condition
def state_of_another_row(m: Any, p: Any) -> Any:
    parent = aliased(m)
    return sa.and_(parent.id == m.parent_id, parent.status.in_(["COMPLETED", "PROMOTED"]))


MAY_HAVE_NO_TEXT = {
    "all_texts",
    "text '%s %(subject)s %%'",
    "text '? ?? $1 {x} __[POSTCOMPILE_subject_1] __[SCHEMA__none]'",
    "any_of_an_empty_array",
    "bytes_in_a_list",
    "float_without_end",
    "interval",
    "is_distinct_from",
    "jsonb_contains",
    "negative_literal",
    "text_with_a_list",
    *(f"bytes {value!r}" for value in BYTES),
}
"""Conditions that SQLAlchemy does not write as SQL on each database: then going on asks for them again."""


# --- what a SELECT finds is what is moved


def found(engine: sa.Engine, message: Any, where: Any) -> tuple[set[int], int]:
    """Return the rows that a plain SELECT finds in a state that may move, and how many in one that must not."""
    parts = where if isinstance(where, list | tuple) else [where]
    with Session(engine) as session, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SELECT statement has a cartesian product")
        rows = {row.id: row.status for row in session.execute(sa.select(message.id, message.status).where(*parts))}
    movable = {key for key, state in rows.items() if state == "READY"}
    return movable, sum(state not in ("READY", TARGET) for state in rows.values())


def moved(before: dict[int, Any], after: dict[int, Any]) -> set[int]:
    assert all(after[key] == TARGET for key in before if before[key] != after[key])
    return {key for key in before if before[key] != after[key]}


class Mailbox:
    """A mailbox in a database, for one condition after the other."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.message, self.person = mailbox()
        fill_mailbox(engine, self.message, self.person)
        self.before = states(engine, self.message)

    def conditions(self, *, with_text: bool = False) -> list[str]:
        without = ON_POSTGRESQL if self.engine.dialect.name != "postgresql" else set()
        without = without | WITHOUT_TEXT if with_text else without
        return [name for name in CONDITIONS if name not in without]

    def where(self, name: str) -> Any:
        return CONDITIONS[name](self.message, self.person)

    def difference(self, name: str, move: Callable[[str], Any]) -> Any:
        """Return what is not as a SELECT with the condition has it after a move, or None; and undo the move."""
        movable, blocked = found(self.engine, self.message, self.where(name))
        try:
            result = move(name)
        except Exception as error:
            return error
        rows = moved(self.before, states(self.engine, self.message))
        restore(self.engine, self.message, rows)
        expected = (len(movable), blocked, len(movable) + blocked, True)
        if rows != movable or (result.done, result.blocked, result.total, result.finished) != expected:
            return rows, movable, blocked, result
        return None

    def differences(self, names: list[str], move: Callable[[str], Any]) -> dict[str, Any]:
        each = {name: self.difference(name, move) for name in names}
        return {name: difference for name, difference in each.items() if difference is not None}


def test_a_condition_moves_what_a_select_finds(engine: sa.Engine) -> None:
    box = Mailbox(engine)

    def move(name: str) -> Any:
        return transition_all(
            engine, box.message.status, TARGET, where=box.where(name), budget=dt.timedelta(seconds=30)
        )

    assert box.differences(box.conditions(), move) == {}


def test_the_token_alone_moves_the_same(engine: sa.Engine) -> None:
    box = Mailbox(engine)

    def move(name: str) -> Any:
        job = prepare(engine, box.message.status, TARGET, where=box.where(name)).job
        try:
            return transition_all(engine, box.message.status, TARGET, job=job)
        except StatekitError as error:
            if name not in MAY_HAVE_NO_TEXT or "give it again" not in str(error):
                raise
            return transition_all(engine, box.message.status, TARGET, job=job, where=box.where(name))

    assert box.differences(box.conditions(with_text=True), move) == {}


PAIRS = [("sqlite", "aiosqlite"), ("psycopg", "psycopg2"), ("psycopg", "asyncpg"), ("psycopg", "psycopg_async")]


@pytest.mark.parametrize(("engine", "driver"), PAIRS, indirect=["engine"])
def test_a_condition_has_the_same_shape_for_every_driver(engine: sa.Engine, databases: Databases, driver: str) -> None:
    """So that a job that one has begun is known to the other: each names the types of parameters in its own way."""
    dialect: Any = databases.url(driver).get_dialect()()
    box = Mailbox(engine)

    def shape(name: str, of: Any) -> str:
        condition = checked(box.where(name), box.message.__table__)
        return rendered(condition, box.message.__table__, of).shape

    names = box.conditions()
    assert [shape(name, dialect) for name in names] == [shape(name, engine.dialect) for name in names]


def test_a_job_can_be_gone_on_with_by_another_driver_and_the_same_condition(
    async_engine: AsyncEngine, databases: Databases
) -> None:
    is_sqlite = async_engine.dialect.name == "sqlite"
    engine = databases.engine("sqlite" if is_sqlite else "psycopg2")
    box = Mailbox(engine)
    where = sa.and_(box.message.subject.in_(["a", "b"]), box.message.number > 0)
    job = prepare(engine, box.message.status, TARGET, where=where).job
    assert run(atransition_all(async_engine, box.message.status, TARGET, where=where, job=job)).finished


@pytest.mark.parametrize("name", sorted(WITHOUT_TEXT))
def test_without_a_text_of_it_the_token_alone_is_refused(engine: sa.Engine, name: str) -> None:
    box = Mailbox(engine)
    begun = prepare(engine, box.message.status, TARGET, where=box.where(name))
    with pytest.raises(StatekitError, match="give it again, where="):
        transition_all(engine, box.message.status, TARGET, job=begun.job)
    assert transition_all(engine, box.message.status, TARGET, where=box.where(name), job=begun.job).finished


def test_in_an_event_loop_the_token_alone_moves_the_same(async_engine: AsyncEngine, databases: Databases) -> None:
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    box = Mailbox(engine)

    async def moving(name: str) -> Any:
        job = (await aprepare(async_engine, box.message.status, TARGET, where=box.where(name))).job
        try:
            return await atransition_all(async_engine, box.message.status, TARGET, job=job)
        except StatekitError as error:
            if name not in MAY_HAVE_NO_TEXT or "give it again" not in str(error):
                raise
            return await atransition_all(async_engine, box.message.status, TARGET, job=job, where=box.where(name))

    some = box.conditions(with_text=True)[::8]
    assert box.differences(some, lambda name: run(moving(name))) == {}


# --- whatever the values are

LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "subject": st.text(st.sampled_from("'\"\\%:?$@{}[]()_-/*; \nsx1é🎉") | LETTERS, max_size=20),
    "raw": st.binary(max_size=12),
    "number": st.integers(-(2**31), 2**31 - 1),
    "price": st.decimals(-9_999, 9_999, places=4),
    "ratio": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "at": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)),
    "day": st.dates(),
    "colour": st.sampled_from(Colour),
    "uid": st.uuids(),
    "flag": st.booleans(),
}
LITERALS = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
def test_law_a_condition_finds_the_same_as_text(engine: sa.Engine) -> None:
    message, _ = mailbox()
    message.metadata.create_all(engine)
    table = unguarded(message)

    @given(st.lists(LITERALS, min_size=1, max_size=3), st.sampled_from(["=", "in", "between", "not", "or"]))
    def law(literals: list[tuple[str, Any]], kind: str) -> None:
        columns = message.__table__.c
        parts = {
            "=": lambda c, v: c == v,
            "in": lambda c, v: c.in_([v]),
            "between": lambda c, v: c == v if v in (True, False) else c.between(v, v),
            "not": lambda c, v: ~(c != v),
            "or": lambda c, v: sa.or_(c == v, c.is_(None)),
        }
        where = sa.and_(*(parts[kind](columns[name], value) for name, value in literals))
        text = rendered(where, message.__table__, engine.dialect).sql
        if text is None:  # then the token alone is refused
            return
        with engine.connect() as connection:
            rows = [{"id": n, name: value} for n, (name, value) in enumerate(literals, 1)]
            for row in [*rows, {"id": 0} | dict(literals)]:
                connection.execute(sa.insert(table).values(row))
            select = sa.select(columns.id).order_by(columns.id)
            found = connection.scalars(select.where(where)).all()
            assert connection.scalars(select.where(from_text(text))).all() == found
            connection.rollback()

    law()
