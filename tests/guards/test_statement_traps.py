"""Traps of statements: what once went past the guard, was told wrongly, or was refused though it is legal.

Each test is about one of them. The letters go from A to D; numbers 1 to 4 are there, one in each state.
"""

from __future__ import annotations

import enum
import itertools
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import Session, aliased, mapped_column
from sqlalchemy.types import TypeDecorator

from statekit import IllegalTransition, StatekitError, TransitionTable, counts, guard, operation
from tests.guards.inbox import executed, new_base, unguarded
from tests.guards.write_paths import upsert
from tests.support.databases import Databases

MOVES = TransitionTable("A → B → C → D", initial="A")
STATES = {1: "A", 2: "B", 3: "C", 4: "D"}
ROWS = [
    {"id": 1, "status": "A", "code": "c1", "note": ""},
    {"id": 2, "status": "B", "code": "c2", "note": ""},
    {"id": 3, "status": "C", "code": None, "note": ""},
    {"id": 4, "status": "D", "code": "c4", "note": ""},
]

two_backends = pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
"""For what no driver has a part in."""

numbers = itertools.count()


def letters(
    engine: sa.Engine, *, moves: TransitionTable = MOVES, mode: Any = "raise", type_: Any = None, **options: Any
) -> Any:
    """Return a new class Letter(id, status, code, note), guarded, with its four rows; options are of the column."""

    class Letter(new_base()):  # type: ignore[misc]
        __tablename__ = f"letter_{next(numbers)}"
        id = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
        status = mapped_column(type_ or sa.String(20), **options)
        code = mapped_column(sa.String(10), unique=True)
        note = mapped_column(sa.String(20))

    guard(Letter.status, moves, on_illegal=mode)
    Letter.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(unguarded(Letter)), ROWS)
    return Letter


def feeds(engine: sa.Engine, *rows: tuple[int, str]) -> sa.Table:
    """Return a new unguarded table feed(id, want) with some rows."""
    feed = sa.Table(
        "feed",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("want", sa.String(20)),
    )
    with engine.begin() as connection:
        feed.create(connection)
        for number, want in rows:
            connection.execute(sa.insert(feed).values(id=number, want=want))
    return feed


def plain(engine: sa.Engine, column: sa.Column[Any], *more: Any, moves: TransitionTable = MOVES) -> sa.Table:
    """Return a new table with a primary key and a column that is guarded, and whatever else."""
    table = sa.Table(
        f"plain_{next(numbers)}",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        column,
        *more,
    )
    guard(column, moves)
    table.create(engine)
    return table


def write(engine: sa.Engine, table: sa.Table, *rows: dict[str, Any]) -> None:
    """Write rows past every guard."""
    with engine.begin() as connection:
        connection.execute(sa.insert(unguarded(table)), list(rows))


def stored(engine: sa.Engine, letter: Any) -> dict[int, Any]:
    """Return the states by id, as the database has them."""
    table = letter if isinstance(letter, sa.Table) else letter.__table__
    column = next(each for each in table.columns if "statekit" in each.info)
    with engine.connect() as connection:
        query = sa.select(table.c.id, sa.type_coerce(column, sa.types.NullType())).order_by(table.c.id)
        return {row[0]: row[1] for row in connection.execute(query)}


# --- parameters -------------------------------------------------------------------------------------------------------


@two_backends
class TestParameters:
    @pytest.mark.parametrize("how", ["core", "executemany", "orm", "VALUES"])
    def test_called_as_a_column_take_the_place_of_a_plain_value(self, engine: sa.Engine, how: str) -> None:
        letter = letters(engine)
        first, second = {"id": 20, "status": "B"}, {"id": 21, "status": "A"}
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            match how:
                case "core":
                    session.connection().execute(sa.insert(letter.__table__).values(status="A"), first)
                case "executemany":
                    session.connection().execute(sa.insert(letter.__table__).values(status="A"), [first, second])
                case "orm":
                    session.execute(sa.insert(letter).values(status="A"), [first])
                case "VALUES":
                    rows = [{"id": 20, "status": "A"}, {"id": 21, "status": "A"}]
                    session.connection().execute(sa.insert(letter.__table__).values(rows), {"status_m1": "B"})
        assert caught.value.pairs == {(None, "B"): 1}

    def test_of_several_values_are_looked_at(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        rows = [{"id": number, "status": sa.bindparam("state")} for number in (7, 8)]
        with engine.begin() as connection:
            connection.execute(sa.insert(letter.__table__).values(rows), {"state": "A"})
        assert stored(engine, letter) == {**STATES, 7: "A", 8: "A"}

    @pytest.mark.parametrize("has_where", [False, True])
    def test_of_do_update_are_looked_at(self, engine: sa.Engine, has_where: bool) -> None:
        table = letters(engine).__table__
        statement = upsert(engine, table).values([{"id": 1, "status": "A"}])
        statement = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"status": sa.bindparam("state")},
            where=table.c.id > 0 if has_where else None,
        )
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement, {"state": "B"})
        assert op.allowed == {("A", "B"): 1}


# --- INSERT … SELECT --------------------------------------------------------------------------------------------------


@two_backends
class TestInsertFromASelect:
    @pytest.mark.parametrize("how", ["*", "literal_column", "columns"])
    def test_whose_columns_are_not_known_is_refused(self, engine: sa.Engine, how: str) -> None:
        letter, feed = letters(engine), feeds(engine, (9, "C"))
        query = {
            "*": sa.select(sa.text("*")).select_from(feed),
            "literal_column": sa.select(sa.literal_column("9, 'C'")),
            "columns": sa.text("select id, want from feed").columns(id=sa.Integer),
        }[how]
        with engine.begin() as connection, pytest.raises(StatekitError, match="cannot be judged"):
            connection.execute(sa.insert(letter.__table__).from_select(["id", "status"], query))
        assert stored(engine, letter) == STATES

    def test_whose_columns_are_not_known_is_written_in_observe(self, engine: sa.Engine) -> None:
        letter, feed = letters(engine, mode="observe"), feeds(engine, (9, "C"))
        query = sa.select(sa.text("*")).select_from(feed)
        with engine.begin() as connection:
            connection.execute(sa.insert(letter.__table__).from_select(["id", "status"], query))
        assert stored(engine, letter) == {**STATES, 9: "C"}

    def test_of_text_is_judged_by_the_column_that_the_text_fills(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        query = sa.select(sa.literal(17), sa.text("'A'"), sa.literal("x"))
        with engine.begin() as connection:
            connection.execute(sa.insert(letter.__table__).from_select(["id", "status", "note"], query))
        assert stored(engine, letter)[17] == "A"

    def test_do_nothing_holds_a_row_that_leaves_a_unique_column_out(self, engine: sa.Engine) -> None:
        """Row 3 has NULL there, which conflicts with nothing."""
        letter, feed = letters(engine), feeds(engine, (9, "C"))
        statement = upsert(engine, letter.__table__).from_select(["id", "status"], sa.select(feed).where(feed.c.id > 0))
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement.on_conflict_do_nothing())
        assert caught.value.pairs == {(None, "C"): 1}

    @pytest.mark.parametrize("clause", ["DO NOTHING", "DO UPDATE"])
    def test_with_a_function_for_the_state_holds_new_rows(self, engine: sa.Engine, clause: str) -> None:
        letter, feed = letters(engine, default=lambda: "B"), feeds(engine, (1, ""), (9, ""))
        statement = upsert(engine, letter.__table__).from_select(["id"], sa.select(feed.c.id).where(feed.c.id > 0))
        if clause == "DO NOTHING":
            statement = statement.on_conflict_do_nothing()
        else:
            statement = statement.on_conflict_do_update(index_elements=["id"], set_={"note": "x"})
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement)
        assert caught.value.pairs == {(None, "B"): 1}
        assert stored(engine, letter) == STATES

    def test_with_a_function_for_the_state_moves_rows_that_are_there(self, engine: sa.Engine) -> None:
        letter, feed = letters(engine, default=lambda: "B"), feeds(engine, (1, ""))
        statement = upsert(engine, letter.__table__).from_select(["id"], sa.select(feed.c.id).where(feed.c.id > 0))
        with engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"status": statement.excluded.status})
            )
        assert stored(engine, letter) == {**STATES, 1: "B"}

    def test_with_a_function_for_the_state_names_the_number_of_all_rows(self, engine: sa.Engine) -> None:
        letter, feed = letters(engine, default=lambda: "B"), feeds(engine, *((n, "") for n in (7, 8, 9)))
        with engine.begin() as connection, operation("Fill", on_illegal="observe") as op:
            connection.execute(sa.insert(letter.__table__).from_select(["id"], sa.select(feed.c.id)))
        assert op.observed == {(None, "B"): 3}


# --- upserts ----------------------------------------------------------------------------------------------------------


class TestConflictTargets:
    @two_backends
    @pytest.mark.parametrize("target", ["code", sa.text("code"), sa.column("code")], ids=["name", "text", "column"])
    def test_in_any_form_find_the_row(self, engine: sa.Engine, target: Any) -> None:
        table = letters(engine).__table__
        for code, state in (("c1", "B"), ("c4", "A")):
            statement = upsert(engine, table).values(id=50, status=state, code=code)
            statement = statement.on_conflict_do_update(index_elements=[target], set_={"status": state})
            with engine.begin() as connection, operation("Move", on_illegal="skip") as op:
                connection.execute(statement)
            seen = (op.allowed, op.blocked)
            assert seen == (({("A", "B"): 1}, {}) if code == "c1" else ({}, {("D", "A"): 1}))

    def test_or_ignore_leaves_rows_alone_that_are_there(self, memory_engine: sa.Engine) -> None:
        letter = letters(memory_engine)
        with memory_engine.begin() as connection:
            connection.execute(sa.insert(letter.__table__).prefix_with("OR IGNORE").values(id=1, status="B"))
        assert stored(memory_engine, letter) == STATES

    @two_backends
    @pytest.mark.parametrize(("code", "state"), [("ABC", "A"), ("ABC", "B"), ("B", "B")])
    def test_that_only_the_database_takes_for_equal_are_found(self, engine: sa.Engine, code: str, state: str) -> None:
        on_sqlite = engine.dialect.name == "sqlite"
        type_: Any = sa.String(6, collation="NOCASE") if on_sqlite else sa.CHAR(6)
        table = plain(engine, sa.Column("status", sa.String(9)), sa.Column("code", type_, unique=True))
        codes = ("abc", "b") if on_sqlite else ("ABC", "B")
        write(engine, table, {"id": 1, "status": "D", "code": codes[0]}, {"id": 2, "status": "A", "code": codes[1]})
        statement = upsert(engine, table).values(id=50, status=state, code=code)
        statement = statement.on_conflict_do_update(index_elements=["code"], set_={"status": statement.excluded.status})
        with engine.begin() as connection, operation("Move", on_illegal="skip") as op:
            connection.execute(statement)
        assert (op.allowed or op.blocked) == ({("A", "B"): 1} if code == "B" else {("D", state): 1})

    @two_backends
    def test_of_do_nothing_leave_out_what_a_partial_index_does_not_cover(self, engine: sa.Engine) -> None:
        where = sa.text("active")
        table = plain(
            engine,
            sa.Column("status", sa.String(9)),
            sa.Column("code", sa.String(9)),
            sa.Column("active", sa.Boolean),
            sa.Index(f"partial_{next(numbers)}", "code", unique=True, sqlite_where=where, postgresql_where=where),
        )
        write(engine, table, {"id": 1, "status": "A", "code": "x", "active": False})
        statement = upsert(engine, table).values(id=50, status="B", code="x", active=True)
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement.on_conflict_do_nothing())
        assert (caught.value.new, caught.value.pairs) == (True, {(None, "B"): 1})

    def test_by_a_constraint_are_looked_up_in_the_schema_that_is_meant(self, postgres_engine: sa.Engine) -> None:
        table = letters(postgres_engine).__table__
        with postgres_engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA tenant")
            connection.exec_driver_sql(
                f"CREATE TABLE tenant.{table.name} (id int PRIMARY KEY, status text, code text, note text,"
                "CONSTRAINT only_here UNIQUE (code))"
            )
            connection.exec_driver_sql(f"INSERT INTO tenant.{table.name} VALUES (1, 'A', 'b')")
        tenant = postgres_engine.execution_options(schema_translate_map={None: "tenant"})
        statement = postgresql.insert(table).values(id=50, status="B", code="b")
        with tenant.begin() as connection, operation("Move") as op:
            connection.execute(statement.on_conflict_do_update(constraint="only_here", set_={"status": "B"}))
        assert op.allowed == {("A", "B"): 1}


@two_backends
class TestExcluded:
    @pytest.mark.parametrize("part", ["text", "literal_column", "where"])
    def test_may_be_text(self, engine: sa.Engine, part: str) -> None:
        table = letters(engine).__table__
        options: dict[str, Any] = {
            "text": {"set_": {"status": sa.text("excluded.status")}},
            "literal_column": {"set_": {"status": sa.literal_column("excluded.status")}},
            "where": {"set_": {"status": "B"}, "where": sa.text("excluded.id > 0")},
        }[part]
        statement = upsert(engine, table).values(id=1, status="B")
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], **options))
        assert op.allowed == {("A", "B"): 1}

    @pytest.mark.parametrize(
        "default",
        [{"default": "C"}, {"default": sa.literal("C")}, {"server_default": "C"}],
        ids=["scalar", "SQL", "server"],
    )
    def test_has_the_default_of_a_column_that_is_left_out(self, engine: sa.Engine, default: Any) -> None:
        table = letters(engine, **default).__table__
        statement = upsert(engine, table).values(id=2, code="new")
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"status": statement.excluded.status}, where=table.c.id > 0
        )
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        assert op.allowed == {("B", "C"): 1}

    @pytest.mark.parametrize("number", [1, 3])
    def test_has_what_a_function_gives(self, engine: sa.Engine, number: int) -> None:
        letter = letters(engine, mode="skip", default=lambda: "B")
        statement = upsert(engine, letter.__table__).values(id=number)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": statement.excluded.status})
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        assert (op.allowed, op.blocked) == (({("A", "B"): 1}, {}) if number == 1 else ({}, {("C", "B"): 1}))

    def test_calls_the_function_once(self, engine: sa.Engine) -> None:
        called: list[int] = []
        letter = letters(engine, default=lambda: called.append(1) or "B")
        statement = upsert(engine, letter.__table__).values(id=1)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": statement.excluded.status})
        with engine.begin() as connection:
            connection.execute(statement)
        assert called == [1]


@two_backends
class TestASubqueryOfAnUpsert:
    """In an upsert SQLAlchemy correlates nothing."""

    def execute(self, engine: sa.Engine, number: int) -> Any:
        table, feed = letters(engine).__table__, feeds(engine, (1, "B"))
        there = sa.exists().where(feed.c.id == table.c.id, feed.c.want == "B")
        statement = upsert(engine, table).values(id=number, status="C")
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": "C"}, where=there)
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        return op

    def test_that_names_the_table_counts_the_move(self, engine: sa.Engine) -> None:
        assert self.execute(engine, 2).allowed == {("B", "C"): 1}

    def test_that_names_the_table_refuses_the_move(self, engine: sa.Engine) -> None:
        with pytest.raises(IllegalTransition) as caught:
            self.execute(engine, 4)
        assert caught.value.pairs == {("D", "C"): 1}


class TestSeveralRowsOfOneKey:
    """What one of them writes is what the next one finds."""

    def upsert(self, engine: sa.Engine, table: sa.Table) -> Any:
        """Return one that is judged row by row, because it has a WHERE."""
        statement = upsert(engine, table)
        return statement.on_conflict_do_update(
            index_elements=["id"], set_={"status": statement.excluded.status}, where=table.c.id > 0
        )

    @two_backends
    @pytest.mark.parametrize(
        ("number", "states", "allowed"),
        [(1, "BC", {("A", "B"): 1, ("B", "C"): 1}), (7, "AB", {("A", "B"): 1})],
        ids=["two moves", "a new row and its move"],
    )
    def test_in_sets(self, engine: sa.Engine, number: int, states: str, allowed: Any) -> None:
        table = letters(engine).__table__
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(self.upsert(engine, table), [{"id": number, "status": state} for state in states])
        assert op.allowed == allowed

    @pytest.mark.parametrize(
        ("number", "states", "allowed"),
        [(1, "BC", {("A", "B"): 1, ("B", "C"): 1}), (7, "AB", {("A", "B"): 1})],
        ids=["two moves", "a new row and its move"],
    )
    def test_in_values(self, memory_engine: sa.Engine, number: int, states: str, allowed: Any) -> None:
        """PostgreSQL refuses such a statement itself."""
        table = letters(memory_engine).__table__
        rows = [{"id": number, "status": state} for state in states]
        with memory_engine.begin() as connection, operation("Move") as op:
            connection.execute(self.upsert(memory_engine, table).values(rows))
        assert op.allowed == allowed

    def test_of_which_the_where_leaves_the_second_alone(self, memory_engine: sa.Engine) -> None:
        table = letters(memory_engine, mode="observe").__table__
        statement = sqlite.insert(table).values([{"id": 3, "status": "D"}, {"id": 3, "status": "A"}])
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"status": "A"}, where=table.c.status != statement.excluded.status
        )
        with memory_engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        assert op.observed == {("C", "A"): 1}

    def test_have_the_row_count_that_the_driver_gives(self, engine: sa.Engine) -> None:
        table = letters(engine, mode="observe").__table__
        bare = unguarded(table)
        sets = [{"id": 1, "status": "B"}, {"id": 1, "status": "B"}]
        with engine.begin() as connection:
            expected = connection.execute(self.upsert(engine, bare), sets).rowcount
            assert connection.execute(self.upsert(engine, table), sets).rowcount == expected

    def test_of_which_one_is_refused_leave_the_transaction_open(self, sqlite_engine: sa.Engine) -> None:
        letter = letters(sqlite_engine)
        sets = [{"id": 1, "status": "B"}, {"id": 1, "status": "A"}]
        with Session(sqlite_engine) as session:
            with pytest.raises(IllegalTransition):
                session.connection().execute(self.upsert(sqlite_engine, letter.__table__), sets)
            session.execute(sa.update(letter).values(note="x"))
            session.rollback()
            assert set(session.scalars(sa.select(letter.note))) == {""}

    def test_are_taken_back_by_a_rollback(self, sqlite_engine: sa.Engine) -> None:
        letter = letters(sqlite_engine)
        sets = [{"id": 1, "status": "B"}, {"id": 1, "status": "C"}]
        with Session(sqlite_engine) as session:
            session.connection().execute(self.upsert(sqlite_engine, letter.__table__), sets)
            session.rollback()
        assert stored(sqlite_engine, letter) == STATES


# --- UPDATE … FROM ----------------------------------------------------------------------------------------------------


class TestUpdateFrom:
    def test_a_lateral_may_lean_on_another_table(self, postgres_engine: sa.Engine) -> None:
        table, feed = letters(postgres_engine).__table__, feeds(postgres_engine, (1, "B"))
        one = feed.alias("one")
        other = sa.select(feed.c.want.label("want")).where(feed.c.id == one.c.id).lateral("other")
        statement = sa.update(table).where(one.c.id == table.c.id, other.c.want != "Z").values(status=other.c.want)
        with postgres_engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        assert op.allowed == {("A", "B"): 1}

    @two_backends
    @pytest.mark.parametrize("of_class", [False, True])
    def test_the_key_of_an_alias_is_not_the_key_of_the_row(self, engine: sa.Engine, of_class: bool) -> None:
        letter = letters(engine)
        one: Any = aliased(letter) if of_class else letter.__table__.alias("one")
        this, alias = (letter, one) if of_class else (letter.__table__.c, one.c)
        criteria = (alias.id == 1, this.id.in_([1, 4]), alias.id < this.id + 1)
        statement = sa.update(letter if of_class else letter.__table__).where(*criteria).values(status="B")
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            session.execute(statement, execution_options={"synchronize_session": False})
        assert caught.value.pairs == {("D", "B"): 1}

    @two_backends
    def test_a_row_that_is_joined_several_times_is_named_once(self, engine: sa.Engine) -> None:
        table, feed = letters(engine).__table__, feeds(engine, (1, "C"), (2, "C"), (3, "D"))
        statement = sa.update(table).where(table.c.status == feed.c.want).values(status="A")
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement)
        assert caught.value.identities == ((3,), (4,))


# --- executemany ------------------------------------------------------------------------------------------------------


class TestExecutemany:
    def by_note(self, table: sa.Table) -> Any:
        return sa.update(table).where(table.c.code == sa.bindparam("it")).values(status=sa.bindparam("to"))

    @two_backends
    @pytest.mark.filterwarnings("ignore:.*cartesian product")
    @pytest.mark.parametrize("what", ["label", "another table"])
    def test_something_called_like_the_key_is_not_the_key(self, engine: sa.Engine, what: str) -> None:
        """Row 1 may be B and row 2 C, but others are matched as well."""
        table, feed = letters(engine).__table__, feeds(engine, (2, ""))
        like: Any = {"label": (table.c.id % 2).label("id"), "another table": feed.c.id}[what]
        sets = [{"it": 1, "to": "B"}] * 2 if what == "label" else [{"it": 2, "to": "C"}] * 2
        statement = sa.update(table).where(like == sa.bindparam("it")).values(status=sa.bindparam("to"))
        with engine.begin() as connection, pytest.raises(IllegalTransition):
            connection.execute(statement, sets)

    @two_backends
    def test_by_another_column_names_only_what_is_refused_in_order(self, engine: sa.Engine) -> None:
        """The legal sets before and after the refused one are judged as if they were executed."""
        table = letters(engine).__table__
        moves = [("c4", "A"), ("c1", "B"), ("c1", "C"), ("c2", "A")]
        sets = [{"it": code, "to": state} for code, state in moves]
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(self.by_note(table), sets)
        assert caught.value.pairs == {("D", "A"): 1, ("B", "A"): 1}

    def test_that_is_refused_leaves_the_transaction_open(self, sqlite_engine: sa.Engine) -> None:
        """SQLite's driver begins a transaction with the first write; a savepoint before that would commit."""
        letter = letters(sqlite_engine)
        sets = [{"it": "c1", "to": "B"}, {"it": "c1", "to": "A"}]
        with Session(sqlite_engine) as session:
            with pytest.raises(IllegalTransition):
                session.connection().execute(self.by_note(letter.__table__), sets)
            session.execute(sa.update(letter).values(note="x"))
            session.rollback()
            assert set(session.scalars(sa.select(letter.note))) == {""}

    def test_is_taken_back_by_a_rollback(self, sqlite_engine: sa.Engine) -> None:
        letter = letters(sqlite_engine)
        sets = [{"it": "c1", "to": "B"}, {"it": "c1", "to": "C"}]
        with Session(sqlite_engine) as session:
            session.connection().execute(self.by_note(letter.__table__), sets)
            session.rollback()
        assert stored(sqlite_engine, letter) == STATES


# --- listeners --------------------------------------------------------------------------------------------------------


@two_backends
class TestListeners:
    @pytest.mark.parametrize("kind", ["legal", "refused", "another table", "INSERT", "DELETE"])
    def test_before_execute_is_called_once(self, engine: sa.Engine, kind: str) -> None:
        table, feed = letters(engine).__table__, feeds(engine, (1, "A"))
        statement: Any = {
            "legal": sa.update(table).where(table.c.status == "A").values(status="B"),
            "refused": sa.update(table).values(status="B"),
            "another table": sa.update(feed).values(want="B"),
            "INSERT": sa.insert(table).values(id=7, status=sa.func.upper("a")),
            "DELETE": sa.delete(table),
        }[kind]
        called: list[Any] = []
        sa.event.listen(engine, "before_execute", lambda conn, element, *rest: called.append(element))
        with engine.begin() as connection, operation("Move", on_illegal="skip"):
            connection.execute(statement)
        assert [element for element in called if element is statement] == [statement]

    def test_before_execute_is_called_for_the_next_statement_as_well(self, engine: sa.Engine) -> None:
        """Also after one that was refused."""
        table = letters(engine).__table__
        called: list[Any] = []
        sa.event.listen(engine, "before_execute", lambda conn, element, *rest: called.append(element))
        wrong, right = sa.update(table).values(status="A"), sa.update(table).where(sa.false()).values(status="B")
        with engine.begin() as connection:
            with pytest.raises(IllegalTransition):
                connection.execute(wrong)
            connection.execute(right)
            connection.execute(right)
        assert [element for element in called if element in (wrong, right)] == [wrong, right, right]

    @pytest.mark.parametrize("before", ["DELETE", "INSERT"])
    def test_that_make_another_statement_of_it_are_seen(self, engine: sa.Engine, before: str) -> None:
        """A soft delete makes an UPDATE of a DELETE."""
        table, feed = letters(engine).__table__, feeds(engine)

        @sa.event.listens_for(engine, "before_execute", retval=True)
        def change(conn: Any, element: Any, multiparams: Any, params: Any, options: Any) -> Any:
            if isinstance(element, sa.Delete):
                element = sa.update(table).where(table.c.id == 4).values(status="A")
            elif isinstance(element, sa.Insert) and element.table is feed:
                element = sa.insert(table).values(id=30, status="D")
            return element, multiparams, params

        statement: Any = {"DELETE": sa.delete(table), "INSERT": sa.insert(feed).values(id=7)}[before]
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement)
        assert caught.value.pairs == {({"DELETE": "D", "INSERT": None}[before], {"DELETE": "A"}.get(before, "D")): 1}

    def test_after_execute_is_called(self, engine: sa.Engine) -> None:
        table = letters(engine).__table__
        statement = sa.update(table).where(table.c.status == "A").values(status="B")
        called: list[Any] = []
        sa.event.listen(
            engine, "after_execute", lambda conn, element, *rest: called.append((element, rest[-1].rowcount))
        )
        with engine.begin() as connection:
            connection.execute(statement)
        assert [each for each in called if each[0] is statement] == [(statement, 1)]

    def on_update(self, engine: sa.Engine, state: str) -> Any:
        """Flush an update of row 1, while a mapper event writes a state to row 2, found as a flush finds it."""
        letter = letters(engine)
        table = letter.__table__
        name = f"{table.name}_id"  # as SQLAlchemy calls its own

        def touch(mapper: Any, connection: sa.Connection, obj: Any) -> None:
            statement = sa.update(table).where(table.c.id == sa.bindparam(name)).values(status=state, note="seen")
            connection.execute(statement, {name: 2})

        sa.event.listen(letter, "after_update", touch)
        with Session(engine) as session:
            session.get_one(letter, 1).status = "B"
            session.commit()
            return session.execute(sa.select(table.c.status, table.c.note).where(table.c.id == 2)).one()

    def test_of_a_flush_may_write_a_row_that_keeps_its_state(self, engine: sa.Engine) -> None:
        assert self.on_update(engine, "B") == ("B", "seen")

    def test_of_a_flush_are_held_to_the_table(self, engine: sa.Engine) -> None:
        with pytest.raises(IllegalTransition) as caught:
            self.on_update(engine, "A")
        assert caught.value.pairs == {("B", "A"): 1}


# --- names and copies -------------------------------------------------------------------------------------------------


@two_backends
class TestNamesAndCopies:
    def test_a_copy_of_another_name_is_not_guarded(self, engine: sa.Engine) -> None:
        """Neither the question nor the fence holds a table for staging, or of a history."""
        copy = letters(engine).__table__.to_metadata(sa.MetaData(), name=f"staging_{next(numbers)}")
        copy.create(engine)
        write(engine, copy, *ROWS)
        with engine.begin() as connection:
            assert connection.execute(sa.update(copy).values(status="C")).rowcount == 4

    def test_a_copy_of_another_name_takes_any_new_row(self, engine: sa.Engine) -> None:
        copy = letters(engine).__table__.to_metadata(sa.MetaData(), name=f"staging_{next(numbers)}")
        copy.create(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(copy).values(id=3, status="D"))
            assert connection.scalar(sa.select(copy.c.status)) == "D"

    def test_a_column_may_be_set_by_its_name_where_its_key_is_another(self, engine: sa.Engine) -> None:
        table = plain(engine, sa.Column("st", sa.String(20), key="status"))
        write(engine, table, {"id": 1, "status": "A"})
        statement = upsert(engine, table).values(id=1, status="A")
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"st": "C"})
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement)
        assert caught.value.pairs == {("A", "C"): 1}

    def test_a_bare_table_has_the_server_default_of_the_guarded_one(self, engine: sa.Engine) -> None:
        table = plain(engine, sa.Column("status", sa.String(9), server_default="A"))
        bare = sa.table(table.name, sa.column("id"), sa.column("status"))
        with engine.begin() as connection:
            connection.execute(sa.insert(bare).values(id=5))
        assert stored(engine, table) == {5: "A"}


# --- types ------------------------------------------------------------------------------------------------------------


class Shouted(TypeDecorator[str]):
    """Capitals in Python, and what it is given in the database."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value.upper()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value.upper()


class Raised(TypeDecorator[str]):
    """Capitals by an SQL function, as SQLAlchemy's documentation writes it."""

    impl = sa.String(20)
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.func.upper(sa.type_coerce(bindvalue, sa.String))


class TestTypes:
    @two_backends
    def test_an_expression_is_judged_by_what_it_stores(self, engine: sa.Engine) -> None:
        """And not by what Python would read from it."""
        table = plain(engine, sa.Column("status", Shouted))
        write(engine, table, {"id": 1, "status": "A"})
        with engine.begin() as connection, operation("Move") as op, pytest.raises(IllegalTransition):
            connection.execute(sa.update(table).values(status=sa.func.lower("B")))
        assert op.allowed == {}

    @two_backends
    def test_an_expression_is_judged_by_what_it_stores_in_an_insert(self, engine: sa.Engine) -> None:
        table = plain(engine, sa.Column("status", Shouted))
        with engine.begin() as connection, pytest.raises(IllegalTransition):
            connection.execute(sa.insert(table).values(id=2, status=sa.func.lower("A")))
        assert stored(engine, table) == {}

    @two_backends
    def test_a_bind_expression_may_coerce_its_parameter(self, engine: sa.Engine) -> None:
        table = plain(engine, sa.Column("status", Raised))
        write(engine, table, {"id": 1, "status": "A"})
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(sa.update(table).values(status="b"))
        assert op.allowed == {("A", "B"): 1}

    @pytest.mark.parametrize("value", ["2", sa.literal_column("'2'"), sa.func.length("ab")], ids=str)
    def test_sqlite_may_convert_what_is_set(self, memory_engine: sa.Engine, value: Any) -> None:
        table = plain(memory_engine, sa.Column("status", sa.Integer), moves=TransitionTable("1 → 2 → 3", initial="1"))
        write(memory_engine, table, {"id": 1, "status": 1})
        with memory_engine.begin() as connection:
            assert connection.execute(sa.update(table).values(status=value)).rowcount == 1
        assert stored(memory_engine, table) == {1: 2}

    def test_sqlite_is_not_to_store_what_is_no_state(self, memory_engine: sa.Engine) -> None:
        table = plain(memory_engine, sa.Column("status", sa.Integer), moves=TransitionTable("1 → 2 → 3", initial="1"))
        with memory_engine.begin() as connection, pytest.raises(IllegalTransition):
            connection.execute(sa.insert(table).values(id=2, status=sa.literal_column("1.5")))

    def test_enums_of_the_same_length_are_not_taken_for_each_other(self, memory_engine: sa.Engine) -> None:
        """SQLAlchemy's cache key of an Enum holds neither its name nor its class."""
        for name in ("One", "Two"):
            states: Any = enum.Enum(name, {"A": "a", "B": "b"})  # type: ignore[misc]
            type_ = sa.Enum(states, name=name.lower(), native_enum=False)
            column = sa.Column("status", type_)
            table = plain(memory_engine, column, moves=TransitionTable((states.A, states.B), initial=states.A))
            value = sa.case((sa.literal(1) == 1, sa.literal(states.A, type_)))
            with memory_engine.begin() as connection:
                connection.execute(sa.insert(table).values(id=1, status=value))
            assert stored(memory_engine, table) == {1: "A"}


# --- sets of different keys in the ORM --------------------------------------------------------------------------------


@two_backends
class TestOrmBulk:
    """SQLAlchemy executes several statements for one call; in "raise", one refused row takes all of them back."""

    @pytest.mark.parametrize(
        "sets",
        [
            [{"id": 20, "status": "A"}, {"id": 21, "status": "B", "note": "x"}],
            [{"id": 20, "status": "A"}, {"id": 21, "status": None}],
        ],
        ids=["more columns", "None"],
    )
    def test_insert_of_sets_with_different_keys(self, engine: sa.Engine, sets: Any) -> None:
        letter = letters(engine)
        with Session(engine) as session:
            with pytest.raises(IllegalTransition) as caught:
                session.execute(sa.insert(letter), sets)
            session.commit()
        assert caught.value.pairs == {(None, sets[1]["status"]): 1}
        assert stored(engine, letter) == STATES

    def test_update_of_sets_with_different_keys(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        with Session(engine) as session, operation("Move") as op:
            first = session.get_one(letter, 1)
            with pytest.raises(IllegalTransition) as caught:
                session.execute(
                    sa.update(letter),
                    [{"id": 1, "status": "B"}, {"id": 2, "status": "D", "note": "x"}, {"id": 3, "status": "A"}],
                )
            assert first.status == "A"
            session.commit()
        assert caught.value.pairs == {("B", "D"): 1, ("C", "A"): 1}
        assert (op.allowed, op.blocked) == ({}, {("B", "D"): 1, ("C", "A"): 1})
        assert stored(engine, letter) == STATES

    def test_update_of_legal_sets_with_different_keys(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        with Session(engine) as session, operation("Move") as op:
            session.execute(sa.update(letter), [{"id": 1, "status": "B"}, {"id": 2, "status": "C", "note": "x"}])
            session.commit()
        assert op.allowed == {("A", "B"): 1, ("B", "C"): 1}
        assert stored(engine, letter) == {**STATES, 1: "B", 2: "C"}

    def test_insert_into_joined_tables_leaves_no_orphan(self, engine: sa.Engine) -> None:
        letter = letters(engine)

        class Parcel(letter):  # type: ignore[misc, valid-type]
            __tablename__ = f"parcel_{next(numbers)}"
            id = mapped_column(sa.ForeignKey(letter.id), primary_key=True)
            stage = mapped_column(sa.String(20))

        guard(Parcel.stage, MOVES)
        Parcel.metadata.create_all(engine)
        rows = [{"id": 20, "status": "A", "stage": "A"}, {"id": 21, "status": "A", "stage": "D"}]
        with Session(engine) as session:
            with pytest.raises(IllegalTransition):
                session.execute(sa.insert(Parcel), rows)
            session.commit()
        assert stored(engine, letter) == STATES

    def test_update_of_rows_with_a_version(self, engine: sa.Engine) -> None:
        class Versioned(new_base()):  # type: ignore[misc]
            __tablename__ = f"versioned_{next(numbers)}"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            version = mapped_column(sa.Integer)
            __mapper_args__ = {"version_id_col": version}

        guard(Versioned.status, MOVES)
        Versioned.metadata.create_all(engine)
        write(
            engine, Versioned.__table__, {"id": 1, "status": "A", "version": 1}, {"id": 2, "status": "B", "version": 1}
        )
        with Session(engine) as session:
            with pytest.raises(IllegalTransition):
                session.execute(
                    sa.update(Versioned),
                    [{"id": 1, "status": "B", "version": 1}, {"id": 2, "status": "A", "version": 1}],
                )
            session.commit()
        assert stored(engine, Versioned) == {1: "A", 2: "B"}

    def test_an_object_that_bulk_save_leaves_out_forgets_all_that_was_changed(self, engine: sa.Engine) -> None:
        letter = letters(engine, mode="skip")
        with Session(engine) as session:
            third = session.get_one(letter, 3)
            third.status, third.note = "A", "new"
            session.bulk_save_objects([third])
            session.commit()
            assert (third.status, third.note) == ("C", "")


class TestShardedSessions:
    @pytest.mark.parametrize("synchronize", ["auto", "fetch", False])
    def test_leave_rows_out_without_choosing_a_shard(self, databases: Databases, synchronize: Any) -> None:
        """The chooser is only asked with an instance, or with a clause."""
        one, two = databases.engine("memory"), databases.engine("memory")
        letter = letters(one)
        letter.metadata.create_all(two)

        def choose(mapper: Any, instance: Any, clause: Any = None) -> str:
            return "one" if instance.id < 3 else "two"

        with (
            ShardedSession(
                shards={"one": one, "two": two},
                shard_chooser=choose,
                identity_chooser=lambda *args, **kw: ["one", "two"],
                execute_chooser=lambda context: ["one", "two"],
            ) as session,
            operation("Move", on_illegal="skip") as op,
        ):
            objects = session.scalars(sa.select(letter).order_by(letter.id)).all()
            session.execute(
                sa.update(letter).values(status="B"), execution_options={"synchronize_session": synchronize}
            )
            session.commit()
            assert [each.status for each in objects] == ["B", "B", "C", "D"]
        assert op.blocked == {("C", "B"): 1, ("D", "B"): 1}


# --- values of other columns ------------------------------------------------------------------------------------------


@two_backends
class TestLiteralsInAnotherColumn:
    """SQLAlchemy calls them param_1, …, as it does what the question brings along."""

    def test_leave_the_error_its_keys(self, engine: sa.Engine) -> None:
        table = letters(engine).__table__
        note = sa.case((table.c.id > 1, "x"), else_="y")
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.update(table).values(status="B", note=note))
        assert caught.value.identities == ((3,), (4,))

    def test_leave_objects_right(self, engine: sa.Engine) -> None:
        letter = letters(engine, mode="skip")
        note = sa.case((letter.id > 1, "x"), else_="y")
        with Session(engine) as session:
            objects = session.scalars(sa.select(letter).order_by(letter.id)).all()
            session.execute(sa.update(letter).values(status="B", note=note))
            assert [each.status for each in objects] == ["B", "B", "C", "D"]


@two_backends
def test_a_parameter_may_be_called_as_sqlalchemy_calls_its_own(engine: sa.Engine) -> None:
    table = letters(engine).__table__
    statement = sa.update(table).where(table.c.code == sa.bindparam("param_1")).values(status="A")
    with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
        connection.execute(statement, {"param_1": "c2"})
    assert caught.value.identities == ((2,),)


# --- onupdate ---------------------------------------------------------------------------------------------------------


@two_backends
@pytest.mark.parametrize("onupdate", ["C", lambda: "C"], ids=["scalar", "function"])
class TestOnupdate:
    def test_in_raise_refuses_all_illegal_rows(self, engine: sa.Engine, onupdate: Any) -> None:
        letter = letters(engine, onupdate=onupdate)
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.update(letter.__table__).values(note="x"))
        assert caught.value.pairs == {("A", "C"): 1, ("D", "C"): 1}
        assert stored(engine, letter) == STATES

    def test_in_skip_leaves_them_out(self, engine: sa.Engine, onupdate: Any) -> None:
        letter = letters(engine, mode="skip", onupdate=onupdate)
        with engine.begin() as connection, operation("Move") as op:
            assert connection.execute(sa.update(letter.__table__).values(note="x")).rowcount == 2
        assert (op.allowed, op.blocked) == ({("B", "C"): 1}, {("A", "C"): 1, ("D", "C"): 1})

    def test_is_no_move_to_null(self, engine: sa.Engine, onupdate: Any) -> None:
        letter = letters(engine, onupdate=onupdate)
        with engine.begin() as connection:
            connection.execute(sa.update(letter.__table__).where(letter.status == "B").values(note="x"))
        assert stored(engine, letter) == {**STATES, 2: "C"}


# --- question and UPDATE ----------------------------------------------------------------------------------------------


class TestMoreRowsThanAreHeld:
    @pytest.fixture(autouse=True)
    def _few_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("statekit.guards.statements.question.HELD", 2)
        monkeypatch.setattr("statekit.guards.statements.one_update.HELD", 2)

    def many(self, engine: sa.Engine, states: str, mode: Any = "raise") -> Any:
        letter = letters(engine, mode=mode)
        with engine.begin() as connection:
            connection.execute(sa.delete(letter.__table__))
        write(engine, letter.__table__, *({"id": n, "status": state} for n, state in enumerate(states, 1)))
        return letter

    @pytest.mark.parametrize("has_operation", [False, True])
    def test_are_moved(self, engine: sa.Engine, has_operation: bool) -> None:
        letter = self.many(engine, "AAAA")
        update = sa.update(letter).values(status="B")
        with engine.begin() as connection:
            if has_operation:
                with operation("Move") as op:
                    assert connection.execute(update).rowcount == 4
                assert op.allowed == {("A", "B"): 4}
            else:
                assert connection.execute(update).rowcount == 4
        assert stored(engine, letter) == dict.fromkeys(range(1, 5), "B")

    def test_that_keep_their_state_are_written(self, engine: sa.Engine) -> None:
        letter = self.many(engine, "ABBA")
        with engine.begin() as connection, operation("Move") as op:
            assert connection.execute(sa.update(letter).values(status="B", note="x")).rowcount == 4
            assert set(connection.scalars(sa.select(letter.note))) == {"x"}
        assert op.allowed == {("A", "B"): 2}

    def test_are_refused_in_raise(self, engine: sa.Engine) -> None:
        letter = self.many(engine, "ADDA")
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.update(letter).values(status="B"))
        assert (caught.value.pairs, caught.value.identities) == ({("D", "B"): 2}, ((2,), (3,)))
        assert stored(engine, letter) == {1: "A", 2: "D", 3: "D", 4: "A"}

    @pytest.mark.parametrize("states", ["ADDA", "ADBA"], ids=["none stays", "one stays"])
    def test_are_left_out_in_skip(self, engine: sa.Engine, states: str) -> None:
        letter = self.many(engine, states, mode="skip")
        with engine.begin() as connection, operation("Move") as op:
            assert connection.execute(sa.update(letter).values(status="B")).rowcount == 4 - states.count("D")
        assert (op.allowed, op.blocked) == ({("A", "B"): 2}, {("D", "B"): states.count("D")})

    def test_are_all_written_in_observe(self, engine: sa.Engine) -> None:
        letter = self.many(engine, "ADBA", mode="observe")
        with engine.begin() as connection, operation("Move") as op:
            assert connection.execute(sa.update(letter).values(status="B")).rowcount == 4
        assert (op.allowed, op.observed) == ({("A", "B"): 2}, {("D", "B"): 1})

    def test_leave_the_transaction_open(self, sqlite_engine: sa.Engine) -> None:
        letter = self.many(sqlite_engine, "AAAA")
        with Session(sqlite_engine) as session:
            session.execute(sa.update(letter).values(status="B"))
            session.rollback()
        assert stored(sqlite_engine, letter) == dict.fromkeys(range(1, 5), "A")


class TestOneRowByItsPrimaryKey:
    def update(self, engine: sa.Engine, letter: Any, state: str) -> list[str]:
        with Session(engine) as session, executed(engine) as texts:
            session.execute(sa.update(letter).where(letter.id == 1).values(status=state))
            session.commit()
        return texts

    def test_is_written_without_a_question(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        assert len(self.update(engine, letter, "B")) == 1
        assert stored(engine, letter)[1] == "B"

    def test_is_written_without_a_question_if_it_keeps_its_state(self, engine: sa.Engine) -> None:
        assert len(self.update(engine, letters(engine), "A")) == 1

    def test_is_asked_about_where_moves_are_counted(self, engine: sa.Engine) -> None:
        with operation("Move") as op:
            texts = self.update(engine, letters(engine), "B")
        assert len(texts) > 1
        assert op.allowed == {("A", "B"): 1}

    def test_is_refused_all_the_same(self, engine: sa.Engine) -> None:
        letter = letters(engine)
        with pytest.raises(IllegalTransition) as caught:
            self.update(engine, letter, "D")
        assert caught.value.identities == ((1,),)
        assert counts(letter.status) == {("A", "D"): 1}


class TestAutocommit:
    """There is no transaction: no savepoint, and no row that is held."""

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg", "psycopg2"])
    @pytest.mark.parametrize("kind", ["one row", "all rows", "upsert", "sets"])
    def test_nothing_illegal_is_written(self, databases: Databases, backend: str, kind: str) -> None:
        engine = databases.engine(backend, isolation_level="AUTOCOMMIT")
        table = letters(engine).__table__
        insert = upsert(engine, table)
        sets: Any = None
        match kind:
            case "one row":
                statement: Any = sa.update(table).where(table.c.id == 1).values(status="D")
            case "all rows":
                statement = sa.update(table).values(status="B")
            case "upsert":
                statement = insert.values(id=4, status="A")
                statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": "A"})
            case _:
                statement = sa.update(table).where(table.c.code == sa.bindparam("it")).values(status="A")
                sets = [{"it": "c2"}, {"it": "c4"}]
        with engine.connect() as connection, pytest.raises(IllegalTransition):
            connection.execute(statement, sets)
        assert stored(engine, table) == STATES

    @pytest.mark.parametrize("backend", ["sqlite", "psycopg"])
    def test_what_is_legal_is_there_at_once(self, databases: Databases, backend: str) -> None:
        engine = databases.engine(backend, isolation_level="AUTOCOMMIT")
        table = letters(engine).__table__
        with engine.connect() as connection, operation("Move") as op:
            connection.execute(sa.update(table).where(table.c.status == "A").values(status="B"))
            assert stored(engine, table) == {**STATES, 1: "B"}
        assert op.allowed == {("A", "B"): 1}


def test_rows_that_a_trigger_keeps_from_an_update_are_warned_of(
    postgres_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    table = letters(postgres_engine).__table__
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN IF OLD.id = 1 THEN RETURN NULL; END IF; RETURN NEW; END'"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER swallow BEFORE UPDATE ON {table.name} FOR EACH ROW EXECUTE FUNCTION swallow()"
        )
        with caplog.at_level(logging.WARNING, "statekit"):
            update = sa.update(table).where(table.c.status.in_(["A", "B"])).values(status="B")
            assert connection.execute(update).rowcount == 1
    (record,) = [each for each in caplog.records if "has not met" in each.getMessage()]
    assert record.statekit_missing == 1  # type: ignore[attr-defined]
