"""Worlds for the law of triggers: a table of any shape, and every way in which SQL writes a state past Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.orm import mapped_column

from statekit import IllegalTransition, TransitionTable, guard
from statekit.trigger.spec import StateTrigger
from tests.guards.inbox import new_base
from tests.laws.test_agreement import QUOTES, names

Move = tuple[str | None, str | None]

KINDS = {"text": "text", "varchar": "varchar(20)", "enum": "status_kind", "integer": "integer"}
"""The types of the column, by what they are called here."""


class Layout(NamedTuple):
    """How a table is cut into parts.

    Attributes:
        key: its primary key; none where that would have to include the state.
        by: what it is partitioned by.
        parts: its parts; ``message_1`` holds the rows with ``grp = 1`` where there is one; ``{first}`` is a state.
    """

    key: str
    by: str = ""
    parts: tuple[str, ...] = ()


_OF = "PARTITION OF message"
_LAYOUTS = {
    "plain": Layout("id"),
    "inherited": Layout("id", "", ("message_1 (PRIMARY KEY (id)) INHERITS (message)",)),
    "by list": Layout("id, grp", "LIST (grp)", (f"message_0 {_OF} FOR VALUES IN (0)", f"message_1 {_OF} DEFAULT")),
    "by hash": Layout(
        "id, grp",
        "HASH (grp)",
        tuple(f"message_{'ab'[n]} {_OF} FOR VALUES WITH (MODULUS 2, REMAINDER {n})" for n in (0, 1)),
    ),
    "nested": Layout(
        "id, grp",
        "LIST (grp)",
        (
            f"message_0 {_OF} FOR VALUES IN (0)",
            f"message_1 {_OF} FOR VALUES IN (1) PARTITION BY HASH (id)",
            *(f"message_1{'ab'[n]} {_OF}_1 FOR VALUES WITH (MODULUS 2, REMAINDER {n})" for n in (0, 1)),
        ),
    ),
    "by state": Layout("", "LIST (status)", (f"message_a {_OF} FOR VALUES IN ({{first}})", f"message_b {_OF} DEFAULT")),
    "by hash of state": Layout(
        "",
        "HASH (status)",
        tuple(f"message_{'abc'[n]} {_OF} FOR VALUES WITH (MODULUS 3, REMAINDER {n})" for n in (0, 1, 2)),
    ),
}
LAYOUTS = tuple(_LAYOUTS)
MODES = ("raise", "skip", "observe")

# Texts that SQL, JSON, templates and the trigger's own keys could take for something else.
TRAPS = [
    *QUOTES,
    "-",
    "+",
    "=A",
    "{{name}}",
    "$statekit$",
    "$$",
    "a/*b*/",
    "\\x41",
    "{}",
    '","',
    "null",
    "true",
    "line\nend",
    "tab\tx",
    "a\r\nb",
    "a\u2028b",
    "\u200d",
    "\ufeff",
    "Å",
    "A\u030a",
]


@dataclass(frozen=True)
class World:
    """A table, and the rule for its column ``status``.

    Attributes:
        kind: of the column's type, a key of KINDS.
        layout: of the table, one of LAYOUTS.
        table: the rule.
        states: those of the rule, NULL if the column takes it, and one that is no state of the rule.
        mode: what an illegal move leads to.
        inline: whether the moves stand in the trigger itself.
    """

    kind: str
    layout: str
    table: TransitionTable
    states: tuple[str | None, ...]
    mode: str
    inline: bool

    @property
    def moves(self) -> list[Move]:
        """Every source with every target."""
        return [(source, target) for source in self.states for target in self.states]

    @property
    def key(self) -> str:
        """The columns of the primary key, by which an upsert finds a row; none where the state would be one of them."""
        return _LAYOUTS[self.layout].key

    def allows(self, move: Move, *, new: bool = False) -> bool:
        """Return whether the rule allows a move; staying is allowed. The model that all others are compared with."""
        source, target = move
        return target in self.table.initial if new else source == target or self.table.allows(source, target)

    def counted(self, move: Move, *, new: bool = False) -> Move:
        """Return the pair under which a refused move is counted."""
        source, target = (None, move[1]) if new else move
        known = {*self.table.states, None}
        if (source in known and self._illegal > 256) or (new and target not in known):
            return source, "*"
        return (source, target) if {source, target} <= known else ("*", "*")

    @cached_property
    def _illegal(self) -> int:
        known = {*self.table.states, None}
        moves = sum(not self.allows((source, target)) for source in known for target in known)
        return moves + sum(not self.allows((None, state), new=True) for state in known)

    def trigger(self, message: Any) -> StateTrigger:
        """Return the trigger of a guarded class, inline if this world's is."""
        return StateTrigger.from_data(StateTrigger.of(message.status).as_data() | {"inline": self.inline})

    def value(self, state: str | None) -> Any:
        """Return a state as Python has it in this world's column."""
        return int(state) if self.kind == "integer" and state is not None else state


def unknown_state(kind: str) -> str:
    """Return what a column can hold, and no rule knows."""
    return "999" if kind == "integer" else "none of them"


@st.composite
def pools(draw: st.DrawFn, kind: str) -> list[str | None]:
    """A few states that a column of this kind can hold; NULL is one of them if the column takes it as a state."""
    any_state = names | st.sampled_from(TRAPS)
    if kind == "integer":
        any_state = st.integers(-(2**31), 2**31 - 1).filter(lambda number: number != 999).map(str)
    with_null = draw(st.booleans())
    states: list[str | None] = draw(st.lists(any_state, min_size=1 if with_null else 2, max_size=4, unique=True))
    return [*states, None] if with_null else states


@st.composite
def rules(draw: st.DrawFn, states: list[str | None]) -> TransitionTable:
    """Any rule over all of these states, with any of them as initial ones."""
    pairs = [(source, target) for source in states for target in states if source != target]
    chains = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=6, unique=True))
    initial: list[str | None] | None = draw(st.none() | st.lists(st.sampled_from(states), min_size=1, unique=True))
    if initial is not None:
        reached = list(initial)
        for source in reached:
            reached += [to for start, to in chains if start == source and to not in reached]
        initial += [state for state in states if state not in reached]  # each state must be reachable
    return TransitionTable(*chains, states=states, initial=initial)


@st.composite
def worlds(draw: st.DrawFn, *, layouts: tuple[str, ...]) -> World:
    """Any world of one of these layouts."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    pool = draw(pools(kind))
    table = draw(rules(pool))
    null = [None] if None not in pool and draw(st.booleans()) else []
    return World(
        kind,
        draw(st.sampled_from(layouts)),
        table,
        (*pool, *null, unknown_state(kind)),
        draw(st.sampled_from(MODES)),
        draw(st.booleans()),
    )


def guarded(world: World) -> Any:
    """Return a new class Message(id, grp, status), guarded with the world's rule."""
    texts = [state for state in world.table.states if state is not None]
    types: dict[str, Any] = {
        "text": sa.Text(),
        "varchar": sa.String(20),
        "enum": sa.Enum(*texts, name="status_kind", create_type=False, length=20),
        "integer": sa.Integer(),
    }

    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
        grp = mapped_column(sa.Integer, default=0)
        status = mapped_column(types[world.kind], nullable=None in world.states)

    guard(Message.status, world.table, on_illegal=world.mode)  # type: ignore[arg-type]
    return Message


def execute(connection: sa.Connection, statements: Iterable[str]) -> None:
    """Execute SQL as a migration does."""
    for statement in statements:
        connection.exec_driver_sql(statement)


def refusal(call: Callable[[], Any]) -> IllegalTransition | None:
    """Return the error with which something is refused, or None."""
    try:
        call()
    except IllegalTransition as error:
        return error
    return None


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def make(connection: sa.Connection, world: World) -> None:
    """Make the table of a world, with the database's own SQL: partitions and children are nothing that a model says."""
    cursor = psycopg_of(connection).cursor()
    literals = [literal(connection, state) for state in world.states if state is not None]
    if world.kind == "enum":
        cursor.execute(f"CREATE TYPE status_kind AS ENUM ({', '.join(literals)})".encode())
    key, by, parts = _LAYOUTS[world.layout]
    columns = f"id integer NOT NULL, grp integer NOT NULL, status {KINDS[world.kind]}"
    columns += "" if None in world.states else " NOT NULL"
    columns += f", PRIMARY KEY ({key})" if key else ""
    cursor.execute(f"CREATE TABLE message ({columns}) {f'PARTITION BY {by}' if by else ''}".encode())
    for part in parts:
        first = f"CAST({literals[0]} AS {KINDS[world.kind]})"
        cursor.execute(f"CREATE TABLE {part.replace('{first}', first)}".encode())


def psycopg_of(connection: sa.Connection) -> psycopg.Connection[Any]:
    """Return the driver's own connection, in the transaction that is under way."""
    return connection.connection.driver_connection  # type: ignore[return-value]


def major_version(connection: sa.Connection) -> int:
    """Return the server's major version."""
    return psycopg_of(connection).info.server_version // 10_000


def literal(connection: sa.Connection, state: str | None) -> str:
    """Return a state as SQL, quoted by the driver and not by us."""
    return "NULL" if state is None else sql.Literal(state).as_string(psycopg_of(connection))


def fill(connection: sa.Connection, world: World, rows: Iterable[tuple[int, int, str | None]]) -> None:
    """Insert rows (id, grp, status) past every trigger."""
    cursor = psycopg_of(connection).cursor()
    cursor.execute("SET LOCAL session_replication_role = replica")
    for grp in (0, 1):
        chosen = [row for row in rows if row[1] == grp]
        into = "message_1" if world.layout == "inherited" and grp == 1 else "message"
        cursor.execute(
            f"INSERT INTO {into} (id, grp, status) SELECT i, %s, CAST(s AS {KINDS[world.kind]}) "
            "FROM unnest(CAST(%s AS integer[]), CAST(%s AS text[])) AS t (i, s)",
            (grp, [row[0] for row in chosen], [row[2] for row in chosen]),
        )
    cursor.execute("SET LOCAL session_replication_role = origin")


class Way(NamedTuple):
    """A statement that writes a state.

    Attributes:
        text: with ``{id}``, ``{grp}``, ``{state}`` (of its type) and ``{leaf}``, the table that the row lies in.
        new: whether it makes a new row.
        replaces: whether it puts a new row in the place of one that is there.
        suits: whether it can be said to a world, by a server of this major version.
    """

    text: str
    new: bool = False
    replaces: bool = False
    suits: Callable[[World, int], bool] = lambda world, version: True


def _keyed(world: World, version: int) -> bool:
    return bool(world.key) and world.layout != "inherited"


def _merges(world: World, version: int) -> bool:
    return version >= 15


def _has_part(world: World, version: int) -> bool:
    return world.layout in ("inherited", "by list", "nested")


def _moves_part(world: World, version: int) -> bool:
    return world.layout in ("by list", "by hash", "nested")


_CONFLICT = "(id, grp, status) VALUES ({id}, {grp}, {state}) ON CONFLICT ({key}) DO"

WAYS = {
    "UPDATE": Way("UPDATE message SET status = {state} WHERE id = {id}"),
    "UPDATE of more columns": Way("UPDATE message SET (grp, status) = (SELECT grp, {state}) WHERE id = {id}"),
    "UPDATE in WITH": Way(
        "WITH written AS (UPDATE message SET status = {state} WHERE id = {id} RETURNING 1) SELECT * FROM written"
    ),
    "UPDATE that changes the partition": Way(
        "UPDATE message SET status = {state}, grp = 1 - grp WHERE id = {id}", suits=_moves_part
    ),
    "UPDATE of a part": Way(
        "UPDATE {leaf} SET status = {state} WHERE id = {id}", suits=lambda world, version: bool(world.key)
    ),
    "upsert": Way(f"INSERT INTO message {_CONFLICT} UPDATE SET status = excluded.status", suits=_keyed),
    "upsert into a part": Way(
        f"INSERT INTO {{leaf}} {_CONFLICT} UPDATE SET status = excluded.status",
        suits=lambda world, version: bool(world.key),
    ),
    "MERGE": Way(
        "MERGE INTO message m USING (SELECT {id} AS id, {state} AS state) n ON m.id = n.id "
        "WHEN MATCHED THEN UPDATE SET status = n.state WHEN NOT MATCHED THEN DO NOTHING",
        suits=_merges,
    ),
    "MERGE that changes the partition": Way(
        "MERGE INTO message m USING (SELECT {id} AS id, {state} AS state) n ON m.id = n.id "
        "WHEN MATCHED THEN UPDATE SET status = n.state, grp = 1 - grp",
        suits=lambda world, version: version >= 15 and _moves_part(world, version),
    ),
    "INSERT": Way("INSERT INTO message (id, grp, status) VALUES ({id}, {grp}, {state})", new=True),
    "INSERT into a part": Way(
        "INSERT INTO message_1 (id, grp, status) VALUES ({id}, 1, {state})", new=True, suits=_has_part
    ),
    "INSERT from SELECT": Way("INSERT INTO message (id, grp, status) SELECT {id}, {grp}, {state}", new=True),
    "new upsert": Way(f"INSERT INTO message {_CONFLICT} UPDATE SET status = excluded.status", new=True, suits=_keyed),
    "new upsert that leaves rows alone": Way(f"INSERT INTO message {_CONFLICT} NOTHING", new=True, suits=_keyed),
    "new MERGE": Way(
        "MERGE INTO message m USING (SELECT {id} AS id, {state} AS state) n ON m.id = n.id "
        "WHEN MATCHED THEN UPDATE SET status = n.state "
        "WHEN NOT MATCHED THEN INSERT (id, grp, status) VALUES (n.id, {grp}, n.state)",
        new=True,
        suits=lambda world, version: version >= 15,
    ),
}


class Attempt(NamedTuple):
    """One row that somebody tries to write.

    Attributes:
        way: a key of WAYS.
        id: of the row; a row of its own for each attempt.
        grp: of the row.
        move: its source (None for a new row) and its target.
    """

    way: str
    id: int
    grp: int
    move: Move

    @property
    def new(self) -> bool:
        return WAYS[self.way].new


def attempts(world: World, version: int, first_id: int = 1, ways: Iterable[str] = tuple(WAYS)) -> list[Attempt]:
    """Return every move and every new row, in each of the ways that suits."""
    made: list[Attempt] = []
    for name in ways:
        way = WAYS[name]
        if not way.suits(world, version):
            continue
        moves: list[Move] = [(None, state) for state in world.states] if way.new else world.moves
        for move in moves:
            number = first_id + len(made)
            made.append(Attempt(name, number, number % 2 if world.layout != "plain" else 0, move))
    return made


def sources(tried: Iterable[Attempt]) -> list[tuple[int, int, str | None]]:
    """Return the rows that must be there before."""
    return [(each.id, each.grp, each.move[0]) for each in tried if not each.new]


class Outcome(NamedTuple):
    """What became of an attempt.

    Attributes:
        rows: how many rows the database said it has written; None if it refused the statement.
        constraint: the name that the error had; None if there was no error.
        named: (new, source, target) as the error named them.
        state: the one that the row has then; the text ``"no row"`` if there is no row.
    """

    rows: int | None
    constraint: str | None
    named: tuple[bool, str | None, str | None] | None
    state: str | None


NO_ROW = "no row"

_TRY = """
DO $law$
DECLARE
  each record;
  statement text;
  number integer;
  broken text;
  about text;
BEGIN
  FOR each IN SELECT * FROM pg_temp.attempt ORDER BY id LOOP
    statement := each.statement;
    IF statement LIKE '%{leaf}%' THEN
      statement := replace(statement, '{leaf}', (SELECT tableoid::regclass::text FROM message WHERE id = each.id));
    END IF;
    BEGIN
      EXECUTE statement;
      GET DIAGNOSTICS number = ROW_COUNT;
      UPDATE pg_temp.attempt SET written = number WHERE id = each.id;
    EXCEPTION WHEN check_violation THEN
      GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME, about = PG_EXCEPTION_DETAIL;
      UPDATE pg_temp.attempt SET "constraint" = broken, detail = about WHERE id = each.id;
    END;
  END LOOP;
END
$law$
"""


def try_all(connection: sa.Connection, world: World, tried: list[Attempt]) -> list[Outcome]:
    """Try each, one after another, each in a savepoint of its own, inside of the database: five round trips."""
    states = {state: f"CAST({literal(connection, state)} AS {KINDS[world.kind]})" for state in world.states}
    texts = []
    for each in tried:
        text = (
            WAYS[each.way]
            .text.replace("{key}", world.key)
            .replace("{id}", str(each.id))
            .replace("{grp}", str(each.grp))
        )
        texts.append(text.replace("{state}", states[each.move[1]]))
    cursor = psycopg_of(connection).cursor()
    cursor.execute(
        "CREATE TEMP TABLE IF NOT EXISTS attempt "
        '(id integer PRIMARY KEY, statement text, written integer, "constraint" text, detail text)'
    )
    cursor.execute("TRUNCATE pg_temp.attempt")
    cursor.execute(
        "INSERT INTO pg_temp.attempt (id, statement) SELECT * FROM unnest(CAST(%s AS integer[]), CAST(%s AS text[]))",
        ([each.id for each in tried], texts),
    )
    cursor.execute(_TRY.encode())
    cursor.execute(
        'SELECT a.written, a."constraint", CAST(a.detail AS jsonb), m.id IS NULL, CAST(m.status AS text) '
        "FROM pg_temp.attempt a LEFT JOIN message m ON m.id = a.id ORDER BY a.id"
    )
    return [
        Outcome(
            written,
            constraint,
            None if detail is None else (detail["new"], detail["source"], detail["target"]),
            NO_ROW if gone else state,
        )
        for written, constraint, detail, gone, state in cursor.fetchall()
    ]


def copied(connection: sa.Connection, world: World, into: str, row: tuple[int, int, str | None]) -> Outcome:
    """Try to COPY a new row into a table."""
    driver = psycopg_of(connection)
    constraint = named = None
    try:
        with driver.transaction(), driver.cursor() as cursor:
            with cursor.copy(f"COPY {into} (id, grp, status) FROM STDIN") as copy:
                copy.write_row(row)
    except psycopg.errors.CheckViolation as error:
        constraint = error.diag.constraint_name
        named = (True, None, row[2])
    found = driver.execute("SELECT CAST(status AS text) FROM message WHERE id = %s", (row[0],)).fetchone()
    return Outcome(None if constraint else 1, constraint, named, NO_ROW if found is None else found[0])


def expected(world: World, name: str, move: Move, *, new: bool) -> Outcome:
    """Return what has to become of an attempt, by the rule and the mode alone."""
    source, target = move
    if world.allows(move, new=new) or world.mode == "observe":
        return Outcome(1, None, None, target)
    if world.mode == "skip" and not new:
        return Outcome(0, None, None, source)
    return Outcome(None, name, (new, source, target), NO_ROW if new else source)


def counters(connection: sa.Connection, trigger: StateTrigger, kind: str) -> Counter[Move]:
    """Return what a trigger has counted as "blocked" or "observed", past our own way of reading it."""
    rows = connection.execute(
        sa.text('SELECT source, target, number FROM statekit.counts_v1() WHERE "trigger" = :name AND kind = :kind'),
        {"name": trigger.name, "kind": kind},
    )
    total: Counter[Move] = Counter()
    for source, target, number in rows:
        if number:
            total[source, target] += number
    return total


_PARTS = {
    "triggers": "SELECT t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text, "
    "obj_description(t.oid, 'pg_trigger') FROM pg_trigger t WHERE t.tgname ~ 'statekit_' ORDER BY 1, 2",
    "functions": "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proacl::text FROM pg_proc p "
    "WHERE p.pronamespace = to_regnamespace('statekit') AND p.proname ~ 'statekit_' ORDER BY 1",
    "counters": "SELECT c.relname, obj_description(c.oid, 'pg_class'), c.relacl::text FROM pg_class c "
    "WHERE c.relnamespace = to_regnamespace('statekit') AND c.relkind = 'S' ORDER BY 1",
}


def parts(connection: sa.Connection) -> dict[str, list[Any]]:
    """Return everything that triggers consist of in a PostgreSQL database, as the catalog has it."""
    return {name: [tuple(row) for row in connection.exec_driver_sql(text)] for name, text in _PARTS.items()}


# --- SQLite -----------------------------------------------------------------------------------------------------------

_ROW = "INTO message (id, grp, status) VALUES (:id, 0, :state)"

SQLITE_WAYS = {
    "UPDATE": Way("UPDATE message SET status = :state WHERE id = :id"),
    "UPDATE OR IGNORE": Way("UPDATE OR IGNORE message SET status = :state WHERE id = :id"),
    "UPDATE OR REPLACE": Way("UPDATE OR REPLACE message SET (grp, status) = (SELECT 1, :state) WHERE id = :id"),
    "upsert": Way(f"INSERT {_ROW} ON CONFLICT (id) DO UPDATE SET status = excluded.status"),
    "REPLACE": Way(f"REPLACE {_ROW}", replaces=True),
    "INSERT": Way(f"INSERT {_ROW}", new=True),
    "INSERT OR IGNORE": Way(f"INSERT OR IGNORE {_ROW}", new=True),
    "INSERT OR REPLACE": Way(f"INSERT OR REPLACE {_ROW}", new=True),
    "new upsert": Way(f"INSERT {_ROW} ON CONFLICT (id) DO UPDATE SET status = excluded.status", new=True),
}
