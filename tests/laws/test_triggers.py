"""Guard, fence and trigger give the same verdict on every move of every table, in every way that SQL writes a state."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from statekit import IllegalTransition, TransitionTable, counts, operation
from statekit.trigger.catalog import blocked
from statekit.trigger.spec import StateTrigger
from statekit.trigger.status import findings
from tests.guards.inbox import unguarded
from tests.laws.trigger_ways import (
    KINDS,
    LAYOUTS,
    MODES,
    NO_ROW,
    SQLITE_WAYS,
    Move,
    Outcome,
    World,
    attempts,
    copied,
    counters,
    execute,
    expected,
    fill,
    guarded,
    major_version,
    make,
    parts,
    pools,
    psycopg_of,
    refusal,
    rules,
    sources,
    try_all,
    unknown_state,
    worlds,
)
from tests.support.databases import empty


@pytest.fixture(params=["18", "older"])
def postgresql_engine(request: pytest.FixtureRequest) -> sa.Engine:
    """Return an engine on the newest PostgreSQL and on an older one, in turn."""
    engine: sa.Engine = request.getfixturevalue("postgres_engine" if request.param == "18" else "older_engine")
    return engine


def clear(engine: sa.Engine) -> None:
    """Remove everything of the example before, triggers' functions and counters included."""
    empty(engine)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA IF EXISTS statekit CASCADE")


# --- what guard and fence say -----------------------------------------------------------------------------------------


def bindable(world: World, state: str | None) -> bool:
    """Return whether Python can write a state: an Enum binds no other than its own."""
    return world.kind != "enum" or state in world.table.states or state is None


def check_guard_and_fence(engine: sa.Engine, world: World, message: Any) -> None:
    """Compare a flush, statements and the fence with the rule, on rows of their own, which are there no more then."""
    table: sa.Table = message.__table__
    moves = [move for move in world.moves if all(bindable(world, state) for state in move)]
    starts = [state for state in world.states if bindable(world, state)]
    rows = [{"id": number, "grp": 0, "status": world.value(source)} for number, (source, _) in enumerate(moves)]
    wanted = {number: world.value(move[1]) for number, move in enumerate(moves)}
    refused = Counter(move for move in moves if not world.allows(move))
    unborn = Counter((None, state) for state in starts if not world.allows((None, state), new=True))
    after = [move[1] if world.allows(move) else move[0] for move in moves]

    def flush() -> None:
        with Session(engine) as session:
            for each in session.scalars(sa.select(message)):
                each.status = wanted[each.id]
            session.flush()

    def add() -> None:
        with Session(engine) as session:
            session.add_all(message(id=1000 + n, status=world.value(state)) for n, state in enumerate(starts))
            session.flush()

    update = sa.update(table).where(table.c.id == sa.bindparam("row")).values(status=sa.bindparam("wanted"))
    parameters = [{"row": number, "wanted": state} for number, state in wanted.items()]

    def execute_update() -> None:
        with engine.begin() as connection:
            connection.execute(update, parameters)

    def upsert() -> None:
        dialect: Any = sqlite if engine.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=world.key.split(", "),
            set_={"status": statement.excluded.status},
        )
        with engine.begin() as connection:
            connection.execute(statement, [row | {"status": wanted[row["id"]]} for row in rows])

    with engine.begin() as connection:
        connection.execute(sa.insert(unguarded(message)), rows)
    calls = [(flush, refused), (execute_update, refused), (add, unborn)]
    if world.key and world.layout != "inherited":
        calls.append((upsert, refused))
    for call, pairs in calls:
        with operation("Law", on_illegal="raise"):
            error = refusal(call) if pairs else None
        assert (error.pairs if error else Counter()) == pairs, call.__name__

    with engine.connect() as connection, operation("Law", on_illegal="skip") as op:
        connection.execute(update, parameters)
        found = connection.scalars(sa.select(table.c.status).order_by(table.c.id)).all()
        connection.rollback()
    assert list(found) == [world.value(state) for state in after]
    assert op.blocked == refused
    with engine.begin() as connection:
        connection.execute(sa.delete(unguarded(message)))


# --- the law, on PostgreSQL -------------------------------------------------------------------------------------------


@given(world=worlds(layouts=LAYOUTS))
def test_guard_fence_and_trigger_agree(postgresql_engine: sa.Engine, world: World) -> None:
    """On every move and every new row, by every statement; and what was refused is counted, move by move."""
    engine = postgresql_engine
    clear(engine)
    message = guarded(world)
    trigger = world.trigger(message)
    with engine.begin() as connection:
        make(connection, world)
    check_guard_and_fence(engine, world, message)

    with engine.begin() as connection:
        version = major_version(connection)
        tried = attempts(world, version)
        fill(connection, world, sources(tried))
        execute(connection, trigger.create_sql(engine.dialect))
        outcomes = try_all(connection, world, tried)
        copies = [
            (into, state, copied(connection, world, into, (10_000 + number, 1, state)))
            for number, (into, state) in enumerate(copy_targets(world))
        ]
        found = counters(connection, trigger, "observed" if world.mode == "observe" else "blocked")
        total = blocked(connection, [trigger])
        problems = findings(connection, [trigger])

    for each, outcome in zip(tried, outcomes, strict=True):
        assert outcome == expected(world, trigger.name, each.move, new=each.new), each
    for into, state, outcome in copies:
        assert outcome == expected(world, trigger.name, (None, state), new=True), f"COPY {state!r} INTO {into}"
    illegal = [(each.move, each.new) for each in tried] + [((None, state), True) for _, state, _ in copies]
    refused = Counter(world.counted(move, new=new) for move, new in illegal if not world.allows(move, new=new))
    assert found == refused
    assert total == (Counter() if world.mode == "observe" else refused)
    assert problems == []


def copy_targets(world: World) -> list[tuple[str, str | None]]:
    """Return each table that rows are copied into, with each state."""
    tables = ["message", "message_1"] if world.layout in ("inherited", "by list", "nested") else ["message"]
    return [(table, state) for table in tables for state in world.states]


@given(world=worlds(layouts=LAYOUTS), data=st.data())
def test_one_statement_for_many_rows(postgresql_engine: sa.Engine, world: World, data: st.DataObject) -> None:
    """Each of its rows has the verdict that it would have alone; the first that is refused ends it."""
    engine = postgresql_engine
    clear(engine)
    message = guarded(world)
    trigger = world.trigger(message)
    moves = data.draw(st.lists(st.sampled_from(world.moves), min_size=1, max_size=12))
    starts = data.draw(st.lists(st.sampled_from(world.states), min_size=1, max_size=6))
    type_ = KINDS[world.kind]
    update = (
        f"UPDATE message m SET status = CAST(n.state AS {type_}) "
        "FROM unnest(CAST(%s AS integer[]), CAST(%s AS text[])) AS n (id, state) WHERE m.id = n.id"
    )
    insert = (
        f"INSERT INTO message (id, grp, status) SELECT n.id, n.id %% 2, CAST(n.state AS {type_}) "
        "FROM unnest(CAST(%s AS integer[]), CAST(%s AS text[])) AS n (id, state)"
    )
    with engine.begin() as connection:
        make(connection, world)
        fill(connection, world, [(n, n % 2 if world.layout != "plain" else 0, move[0]) for n, move in enumerate(moves)])
        execute(connection, trigger.create_sql(engine.dialect))

    def write(text: str, rows: list[tuple[int, str | None]]) -> IllegalTransition | None:
        def call() -> None:
            with engine.begin() as connection:
                connection.exec_driver_sql(text, ([row[0] for row in rows], [row[1] for row in rows]))

        return refusal(call)

    def stored() -> list[str | None]:
        with engine.connect() as connection:
            return list(connection.exec_driver_sql("SELECT CAST(status AS text) FROM message ORDER BY id").scalars())

    expected_counts: Counter[Move] = Counter()
    for text, new, tried in (
        (update, False, [(n, move) for n, move in enumerate(moves)]),
        (insert, True, [(1_000 + n, (None, state)) for n, state in enumerate(starts)]),
    ):
        before = stored()
        refused = Counter(move for _, move in tried if not world.allows(move, new=new))
        error = write(text, [(id_, move[1]) for id_, move in tried])
        if refused and (world.mode == "raise" or (world.mode == "skip" and new)):
            assert error is not None
            assert (error.source, error.target) in refused
            assert dict(tried)[error.identity[0]] == (error.source, error.target) if error.identity else not world.key
            assert stored() == before
            expected_counts[world.counted((error.source, error.target), new=new)] += 1
        else:
            assert error is None
            kept = [
                move[0] if world.mode == "skip" and not world.allows(move, new=new) else move[1] for _, move in tried
            ]
            assert stored() == (before + kept if new else kept)
            expected_counts.update(world.counted(move, new=new) for move in refused.elements())
    with engine.connect() as connection:
        assert counters(connection, trigger, "observed" if world.mode == "observe" else "blocked") == expected_counts


# --- the law, on SQLite -----------------------------------------------------------------------------------------------


@given(world=worlds(layouts=("plain",)))
def test_guard_fence_and_trigger_agree_on_sqlite(memory_engine: sa.Engine, world: World) -> None:
    """On every move and every new row, by every statement. What arrives as an error is counted by this process."""
    engine = memory_engine
    clear(engine)
    message = guarded(world)
    trigger = world.trigger(message)
    message.metadata.create_all(engine)
    check_guard_and_fence(engine, world, message)
    before = counts(message.status)
    tried = [
        (name, move)
        for name, way in SQLITE_WAYS.items()
        for move in ([(None, state) for state in world.states] if way.new else world.moves)
    ]
    refused: Counter[Any] = Counter()
    with engine.begin() as connection:
        there = [(n, world.value(move[0])) for n, (name, move) in enumerate(tried) if not SQLITE_WAYS[name].new]
        connection.exec_driver_sql("INSERT INTO message (id, grp, status) VALUES (?, 0, ?)", there)
        execute(connection, trigger.create_sql(engine.dialect))
        for number, (name, move) in enumerate(tried):
            outcome = tried_on_sqlite(connection, world, name, number, move)
            assert outcome == expected_on_sqlite(world, name, move), (name, move)
            refused.update([outcome.named[1:]] if outcome.named else [])
        assert findings(connection, [trigger]) == []
        assert blocked(connection, [trigger]) == Counter()
    assert counts(message.status) - before == refused


def tried_on_sqlite(connection: sa.Connection, world: World, name: str, number: int, move: Move) -> Outcome:
    """Try to write a row's state."""
    parameters = {"id": number, "state": world.value(move[1])}
    error = refusal(lambda: connection.exec_driver_sql(SQLITE_WAYS[name].text, parameters))
    found = connection.exec_driver_sql("SELECT CAST(status AS TEXT) FROM message WHERE id = ?", (number,)).all()
    state = found[0][0] if found else NO_ROW
    return Outcome(None, None, None if error is None else (error.new, error.source, error.target), state)


def expected_on_sqlite(world: World, name: str, move: Move) -> Outcome:
    """Return what has to become of a row, by the rule and the mode alone; the error of an unknown state says ``*``."""
    source, target = move
    way = SQLITE_WAYS[name]
    new = way.new or way.replaces
    if world.allows(move, new=new) or world.mode == "observe":
        return Outcome(None, None, None, target)
    if world.mode == "skip" and not new:
        return Outcome(None, None, None, source)
    known = {*world.table.states, None}
    named = (None, target if target in known else "*") if new else move if {*move} <= known else ("*", "*")
    return Outcome(None, None, (new, *named), NO_ROW if way.new else source)


# --- more moves than there are counters -------------------------------------------------------------------------------

MANY = [str(number) for number in range(17)]


def many_moves(mode: str) -> World:
    """Return a world with 17 states in a ring: it has more than 256 illegal moves."""
    rule = TransitionTable(*zip(MANY, [*MANY[1:], MANY[0]], strict=True), initial=MANY[0])
    return World("integer", "plain", rule, (*MANY, None, unknown_state("integer")), mode, inline=False)


@pytest.mark.parametrize("mode", MODES)
def test_with_more_moves_than_counters_each_source_has_one(postgresql_engine: sa.Engine, mode: str) -> None:
    """The verdicts are those of the rule."""
    world = many_moves(mode)
    trigger = rule_of(world)
    with postgresql_engine.begin() as connection:
        make(connection, world)
        tried = attempts(world, major_version(connection), ways=("UPDATE", "INSERT"))
        fill(connection, world, sources(tried))
        execute(connection, trigger.create_sql(connection.dialect))
        for each, outcome in zip(tried, try_all(connection, world, tried), strict=True):
            assert outcome == expected(world, trigger.name, each.move, new=each.new), each
        refused = [each for each in tried if not world.allows(each.move, new=each.new)]
        assert {("1", "*"), (None, "*")} < {world.counted(each.move, new=each.new) for each in refused}
        assert counters(connection, trigger, "observed" if mode == "observe" else "blocked") == Counter(
            world.counted(each.move, new=each.new) for each in refused
        )


@pytest.mark.parametrize("mode", MODES)
def test_with_more_moves_than_texts_the_source_is_named_on_sqlite(memory_engine: sa.Engine, mode: str) -> None:
    """The verdicts are those of the rule; an error of SQLite's holds one of 256 texts at most."""
    world = many_moves(mode)
    guarded(world)  # whose error is what SQLite's is turned into
    with memory_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE message (id integer PRIMARY KEY, grp integer, status integer)")
        rows = [(number, source) for number, (source, _) in enumerate(world.moves)]
        connection.exec_driver_sql("INSERT INTO message (id, grp, status) VALUES (?, 0, ?)", rows)
        execute(connection, rule_of(world).create_sql(connection.dialect))
        for number, (source, to) in enumerate(world.moves):
            wanted = expected_on_sqlite(world, "UPDATE", (source, to))
            if wanted.named and source in {*MANY, None}:
                wanted = wanted._replace(named=(False, source, "*"))
            assert tried_on_sqlite(connection, world, "UPDATE", number, (source, to)) == wanted, (source, to)


# --- another rule in the place of one ---------------------------------------------------------------------------------

FEW_WAYS = ("UPDATE", "UPDATE that changes the partition", "UPDATE of a part", "INSERT", "INSERT into a part")


@st.composite
def histories(draw: st.DrawFn, *, layouts: tuple[str, ...]) -> list[World]:
    """Several worlds that differ in what a trigger is made of: rule, mode, inline."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    layout = draw(st.sampled_from(layouts))
    pool = draw(pools(kind))
    states = (*pool, *([] if None in pool else [None]), unknown_state(kind))

    made: list[World] = []
    for _ in range(draw(st.integers(2, 4))):
        known = draw(st.lists(st.sampled_from(pool), min_size=2, unique=True))
        form = draw(st.sampled_from(MODES)), draw(st.booleans())
        only_the_rule = draw(st.booleans())
        if made and only_the_rule:
            form = made[-1].mode, made[-1].inline
        made.append(World(kind, layout, draw(rules(known)), states, *form))
    return made


def rule_of(world: World) -> StateTrigger:
    """Return the trigger of a world, without a guard: as a migration has it, which needs no model."""
    return StateTrigger(
        "message", "status", world.table, initial=None, on_illegal=world.mode, inline=world.inline  # type: ignore[arg-type]
    )  # fmt: skip


@given(history=histories(layouts=LAYOUTS), data=st.data())
def test_a_trigger_that_was_replaced_is_as_if_made_anew(
    postgresql_engine: sa.Engine, history: list[World], data: st.DataObject
) -> None:
    """After any history of rules, modes and forms: its parts, its verdicts; and what was counted is still counted."""
    engine = postgresql_engine
    clear(engine)
    counted: dict[str, Counter[Move]] = {"blocked": Counter(), "observed": Counter()}
    trigger = rule_of(history[0])
    with engine.begin() as connection:
        make(connection, history[0])
        version = major_version(connection)
        first_id = 1
        for number, world in enumerate(history):
            before, trigger = trigger, rule_of(world)
            again = number == 0 or data.draw(st.sampled_from([False, False, True]), label="create_sql")
            sql = trigger.create_sql(engine.dialect) if again else trigger.replace_sql(before, engine.dialect)
            execute(connection, sql)
            assert findings(connection, [trigger]) == []
            tried = attempts(world, version, first_id, FEW_WAYS)
            first_id += len(tried)
            fill(connection, world, sources(tried))
            for each, outcome in zip(tried, try_all(connection, world, tried), strict=True):
                assert outcome == expected(world, trigger.name, each.move, new=each.new), each
            counted["observed" if world.mode == "observe" else "blocked"].update(
                world.counted(each.move, new=each.new) for each in tried if not world.allows(each.move, new=each.new)
            )
            for kind, pairs in counted.items():
                assert counters(connection, trigger, kind) == pairs, kind
            assert blocked(connection, [trigger]) == counted["blocked"]

        replaced = parts(connection)
        execute(connection, trigger.drop_sql(engine.dialect))
        assert not any(parts(connection).values())
        execute(connection, trigger.create_sql(engine.dialect))
        fresh = parts(connection)
    assert replaced["triggers"] == fresh["triggers"]
    assert replaced["functions"] == fresh["functions"]
    assert {*replaced["counters"]} >= {*fresh["counters"]}


@given(history=histories(layouts=("plain",)))
def test_a_trigger_that_was_replaced_is_as_if_made_anew_on_sqlite(
    memory_engine: sa.Engine, history: list[World]
) -> None:
    """After any history of rules and modes: its parts and its verdicts."""
    engine = memory_engine
    clear(engine)
    kept = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    trigger = rule_of(history[0])
    world = history[-1]
    guarded(world)  # whose error is what SQLite's is turned into
    tried = [(name, move) for name in ("UPDATE", "upsert") for move in world.moves]
    tried += [("INSERT", (None, state)) for state in world.states]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE message (id integer PRIMARY KEY, grp integer, status {KINDS[world.kind]})"
            if world.kind != "enum"
            else "CREATE TABLE message (id integer PRIMARY KEY, grp integer, status varchar(20))"
        )
        there = [(n, world.value(move[0])) for n, (name, move) in enumerate(tried) if not SQLITE_WAYS[name].new]
        connection.exec_driver_sql("INSERT INTO message (id, grp, status) VALUES (?, 0, ?)", there)
        execute(connection, trigger.create_sql(engine.dialect))
        for each in history[1:]:
            before, trigger = trigger, rule_of(each)
            execute(connection, trigger.replace_sql(before, engine.dialect))
            assert findings(connection, [trigger]) == []
        for number, (name, move) in enumerate(tried):
            outcome = tried_on_sqlite(connection, world, name, number, move)
            assert outcome == expected_on_sqlite(world, name, move), (name, move)
        replaced = connection.exec_driver_sql(kept).all()
        execute(connection, trigger.drop_sql(engine.dialect))
        assert connection.exec_driver_sql(kept).all() == []
        execute(connection, trigger.create_sql(engine.dialect))
        assert connection.exec_driver_sql(kept).all() == replaced


# --- several sessions at the same time --------------------------------------------------------------------------------

RULES = (TransitionTable("A → B → C → A", "B → D", initial="A"), TransitionTable("A → C → B → A", "C → D", initial="A"))
ROWS = (1, 2, 3)
STATEMENTS = {
    "UPDATE": "UPDATE message SET status = %(state)s WHERE id = %(row)s",
    "UPDATE of several": "UPDATE message SET status = %(state)s WHERE id <= %(row)s",
    "upsert": "INSERT INTO message (id, status) VALUES (%(row)s, %(state)s) "
    "ON CONFLICT (id) DO UPDATE SET status = excluded.status",
    "INSERT": "INSERT INTO message (id, status) VALUES (nextval('other'), %(state)s)",
}


fewer = settings(max_examples=max(5, settings().max_examples // 4))
"""These have sessions that wait for each other; and four inboxes on each server make up for it."""


class Step(NamedTuple):
    """A statement of a session."""

    statement: str
    row: int
    state: str


class Work(NamedTuple):
    """A transaction of a session."""

    steps: list[Step]
    commits: bool
    savepoints: bool


steps = st.builds(Step, st.sampled_from(sorted(STATEMENTS)), st.sampled_from(ROWS), st.sampled_from("ABCDX"))
works = st.builds(Work, st.lists(steps, min_size=1, max_size=3), st.booleans(), st.booleans())
programs = st.lists(works, min_size=2, max_size=6)
"""What a session does; a number stands for a change of the rule to that one."""


class Inbox(NamedTuple):
    """A table with a trigger, and with a trigger of the test's own that writes down each move that is committed."""

    engine: sa.Engine
    layout: str
    triggers: tuple[StateTrigger, ...]


@pytest.fixture(params=["plain, raise", "plain, skip", "by state, raise", "by state, skip"])
def inbox(request: pytest.FixtureRequest, postgresql_engine: sa.Engine) -> Inbox:
    """Return an inbox on an ordinary table and on one partitioned by the state, in two modes, in turn."""
    layout, mode = request.param.split(", ")
    triggers = tuple(StateTrigger("message", "status", rule, initial=None, on_illegal=mode) for rule in RULES)
    made = {
        "plain": ["CREATE TABLE message (id integer PRIMARY KEY, status text)"],
        "by state": [
            "CREATE TABLE message (id integer, status text) PARTITION BY LIST (status)",
            "CREATE TABLE message_a PARTITION OF message FOR VALUES IN ('A')",
            "CREATE TABLE message_b PARTITION OF message FOR VALUES IN ('B', 'C')",
            "CREATE TABLE message_rest PARTITION OF message DEFAULT",
        ],
    }
    # Row triggers after an UPDATE do not see a row that changes its partition; before it, the name decides who is last.
    when = "AFTER INSERT OR UPDATE" if layout == "plain" else "BEFORE UPDATE"
    with postgresql_engine.begin() as connection:
        execute(connection, made[layout])
        execute(connection, triggers[0].create_sql(connection.dialect))
        execute(
            connection,
            [
                "CREATE SEQUENCE other START 1000",
                "CREATE TABLE record (number bigserial PRIMARY KEY, id integer, source text, target text)",
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "INSERT INTO record (id, source, target) "
                "VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status); RETURN NEW; END $$",
                f"CREATE TRIGGER zzzz_note {when} ON message FOR EACH ROW EXECUTE FUNCTION note()",
            ],
        )
    return Inbox(postgresql_engine, layout, triggers)


class Seen:
    """What the sessions were told, together."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.refused: Counter[Move] = Counter()
        self.skipped = 0
        self.lost = 0
        self.lock = threading.Lock()


def run_session(inbox: Inbox, program: list[Work | int], start: threading.Barrier, seen: Seen) -> None:
    """Run a program in a connection of its own, as soon as all others are ready too."""
    with inbox.engine.connect() as connection:
        driver = psycopg_of(connection)
        start.wait(timeout=60)
        for work in program:
            if isinstance(work, int):
                execute(connection, inbox.triggers[work].replace_sql(inbox.triggers[1 - work], connection.dialect))
                connection.commit()
            elif run_work(driver, work, seen) and work.commits:
                driver.commit()
            else:
                driver.rollback()


def run_work(driver: psycopg.Connection[Any], work: Work, seen: Seen) -> bool:
    """Run the statements of a transaction, by the driver alone; return whether it may be committed."""
    cursor = driver.cursor()
    for step in work.steps:
        if work.savepoints:
            cursor.execute("SAVEPOINT step")
        try:
            cursor.execute(STATEMENTS[step.statement].encode(), {"row": step.row, "state": step.state})
        except psycopg.errors.CheckViolation as error:
            about = json.loads(error.diag.message_detail or "")
            with seen.lock:
                seen.refused[about["source"], about["target"]] += 1
                # The rule has changed between two rows of one statement: how many it had skipped, nobody was told.
                seen.lost += seen.mode == "skip" and step.statement == "UPDATE of several"
            if not work.savepoints:
                return False
            cursor.execute("ROLLBACK TO SAVEPOINT step")
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            with seen.lock:
                seen.lost += 1  # a row has moved to another partition meanwhile; or PostgreSQL has ended a deadlock
            return False
        else:
            with seen.lock:
                seen.skipped += (step.row if step.statement == "UPDATE of several" else 1) - cursor.rowcount
    return True


@fewer
@given(sessions=st.lists(programs, min_size=2, max_size=4))
def test_what_several_sessions_commit_is_legal(inbox: Inbox, sessions: list[list[Work | int]]) -> None:
    """Whatever they do at the same time: no illegal move is committed, and each that was refused is counted once."""
    seen, record, before, after = run_together(inbox, sessions)
    check_record(inbox, record, RULES[:1])
    found = after - before
    if inbox.triggers[0].on_illegal == "raise":
        assert seen.skipped == 0
        assert found == counted(seen)
    elif not seen.lost:
        assert found.total() == seen.skipped + seen.refused.total()


@fewer
@given(sessions=st.lists(st.lists(works | st.sampled_from([0, 1]), min_size=2, max_size=6), min_size=2, max_size=4))
def test_what_several_sessions_commit_while_the_rule_changes(inbox: Inbox, sessions: list[list[Work | int]]) -> None:
    """Each committed move is legal by one of the rules, and each refusal is counted."""
    seen, record, before, after = run_together(inbox, sessions)
    check_record(inbox, record, RULES)
    if not seen.lost:
        assert (after - before).total() == seen.skipped + seen.refused.total()


def counted(seen: Seen) -> Counter[Move]:
    """Return the refusals by the pair under which they are counted."""
    total: Counter[Move] = Counter()
    for pair, number in seen.refused.items():
        if "X" in pair:  # no state: from and to it there is one counter, and one for new rows
            pair = (None, "*") if pair[0] is None else ("*", "*")
        total[pair] += number
    return total


def run_together(
    inbox: Inbox, sessions: list[list[Work | int]]
) -> tuple[Seen, list[tuple[int, str | None, str]], Counter[Move], Counter[Move]]:
    """Run the sessions at the same time; return what they were told, what was committed, and the counts around it."""
    if inbox.layout != "plain":  # an upsert needs a key
        sessions = [
            [w if isinstance(w, int) else w._replace(steps=[_keyless(s) for s in w.steps]) for w in p] for p in sessions
        ]
    trigger = inbox.triggers[0]
    with inbox.engine.begin() as connection:
        execute(
            connection, ["DELETE FROM message", "INSERT INTO message (id, status) VALUES (1, 'A'), (2, 'A'), (3, 'A')"]
        )
        execute(connection, ["DELETE FROM record"])
        before = blocked(connection, [trigger])
    seen = Seen(inbox.triggers[0].on_illegal)
    start = threading.Barrier(len(sessions))
    with ThreadPoolExecutor(len(sessions)) as pool:
        for done in [pool.submit(run_session, inbox, program, start, seen) for program in sessions]:
            done.result(timeout=60)
    with inbox.engine.begin() as connection:
        after = blocked(connection, [trigger])
        rows = connection.exec_driver_sql("SELECT id, source, target FROM record ORDER BY number").all()
        execute(connection, trigger.replace_sql(inbox.triggers[1], connection.dialect))
    return seen, [tuple(row) for row in rows], before, after


def _keyless(step: Step) -> Step:
    return step._replace(statement="UPDATE") if step.statement == "upsert" else step


def check_record(inbox: Inbox, record: list[tuple[int, str | None, str]], rules: tuple[TransitionTable, ...]) -> None:
    """Check that each committed move is legal, that it starts where the one before led, and that none is missing."""
    states: dict[int, str] = dict.fromkeys(ROWS, "A")
    for id_, source, target in record:
        if source is None:
            assert target == "A"
        else:
            assert source == states[id_]
            assert source == target or any(rule.allows(source, target) for rule in rules), (source, target)
        states[id_] = target
    with inbox.engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT id, status FROM message").all()
    assert {id_: state for id_, state in stored if id_ in ROWS} == {id_: states[id_] for id_ in ROWS}
    assert all(state == "A" for id_, state in stored if id_ not in ROWS)


HAMMER = """
DO $hammer$
BEGIN
  FOR number IN 1..800 LOOP
    BEGIN
      UPDATE message SET status = 'D' WHERE id = 1000 + pg_backend_pid();
    EXCEPTION WHEN check_violation THEN
      CONTINUE;
    END;
    RAISE 'an illegal move was made';
  END LOOP;
END
$hammer$
"""


def test_what_is_refused_in_several_sessions_at_the_same_moment_is_counted(postgresql_engine: sa.Engine) -> None:
    """Four sessions are refused the same move of different rows, as fast as the server can: 3,200 times in all."""
    trigger = StateTrigger("message", "status", RULES[0], initial=None)
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE message (id integer PRIMARY KEY, status text)")
        execute(connection, trigger.create_sql(connection.dialect))
    start = threading.Barrier(4)

    def hammer() -> None:
        with postgresql_engine.begin() as connection:
            driver = psycopg_of(connection)
            driver.execute("INSERT INTO message (id, status) VALUES (1000 + pg_backend_pid(), 'A')")
            start.wait(timeout=60)
            driver.execute(HAMMER.encode())

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(hammer) for _ in range(4)]:
            done.result(timeout=60)
    with postgresql_engine.connect() as connection:
        assert blocked(connection, [trigger]) == Counter({("A", "D"): 3_200})
