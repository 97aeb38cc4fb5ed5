"""Statements: every write path × kind of value × mode × backend, as docs/statements.md lists them."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards import write_paths
from tests.guards.inbox import TABLE, Status, executed, fill, message_class, new_base, stored, unguarded
from tests.guards.write_paths import BY_SET, IDS, PATHS, STATES, Make, Model, Path, model_of
from tests.support.databases import Databases, on_postgresql, run

MODES = ("raise", "skip", "observe")
two_backends = pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
"""For what no driver has a part in."""
TENANT = {None: "tenant"}


def cases_of(paths: list[Path], fixture: str) -> Any:
    """Parametrise a test with paths, each on its backends, and with the modes."""
    cases = [
        pytest.param(backend, path, backend, id=f"{backend}-{path.id}")
        for path in paths
        for backend in path.backends(asynchronous=fixture == "async_engine")
    ]

    def decorate(function: Any) -> Any:
        by_case = pytest.mark.parametrize((fixture, "path", "backend"), cases, indirect=[fixture])
        return pytest.mark.parametrize("mode", MODES)(by_case(function))

    return decorate


UPDATES = [path for path in PATHS if not path.inserts]
INSERTS = [path for path in PATHS if path.inserts]


# --- what is expected -------------------------------------------------------------------------------------------------


class Expected:
    """What becomes of rows in the states of STATES that are all to get one state."""

    def __init__(self, path: Path, mode: str, target: str | None) -> None:
        moves = [(source, target) for source in STATES]
        legal = [source == target or (source, target) == ("READY", "SPAM_REVIEW") for source in STATES]
        reported = path.reported
        illegal = Counter(move for move, ok in zip(moves, legal, strict=True) if not ok)
        written = [ok or mode == "observe" for ok in legal]
        self.raises = mode == "raise" and reported and bool(illegal)
        if self.raises:
            written = [False] * len(STATES)
        self.rows = [
            (target, "written") if is_written else (source, "")
            for source, is_written in zip(STATES, written, strict=True)
        ]
        self.number = sum(written)
        self.refused = [number for number, ok in zip(IDS, legal, strict=True) if not ok and mode != "observe"]
        self.identities = tuple((number,) for number in self.refused) if path.names else ()
        self.blocked = illegal if reported and mode != "observe" else Counter()
        self.observed = illegal if reported and mode == "observe" else Counter()
        moved = Counter(m for m, ok in zip(moves, legal, strict=True) if ok and m[0] != m[1])
        self.allowed = moved if reported and not self.raises else Counter()


def target_of(kind: str) -> str | None:
    return None if kind == "NULL" else "SPAM_REVIEW"


class Outcome:
    """What a write has done, as the caller sees it."""

    def __init__(self, model: Model, mode: str) -> None:
        self.error: IllegalTransition | None = None
        self.number: int | None = None
        self._before = counts(model.guarded)
        self._model = model
        self._mode: Any = None if mode == "raise" else mode  # as the guard has it

    @property
    def counted(self) -> Counter[Any]:
        return counts(self._model.guarded) - self._before

    def is_counted(self, path: Path, many: bool) -> bool:
        """Whether the driver has counted the rows; not every one does for an executemany (``many``) or an INSERT."""
        return self.number is not None and self.number >= 0 and (many or not path.many)

    @contextmanager
    def watch(self) -> Iterator[None]:
        with operation("Move all", on_illegal=self._mode) as self.operation:
            try:
                yield
            except IllegalTransition as error:
                self.error = error


class Models:
    """The models of one path, one for most kinds of value and one with a TypeDecorator, and their rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._created: set[int] = set()

    def make(self, connection: sa.Connection, kind: str, state: str, states: tuple[str, ...]) -> Make:
        """Return what makes the value, on a model whose table has rows in the given states."""
        model = model_of(self._path.shape, spoken=kind == "TypeDecorator")
        connection = self.translated(connection)
        if id(model) not in self._created:
            self._created.add(id(model))
            if self._path.tenant:
                connection.execute(sa.schema.CreateSchema("tenant", if_not_exists=True))
            model.table.metadata.create_all(connection, checkfirst=False)
        model.fill(connection, states, state)
        return Make(kind, model, state)

    def stored(self, connection: sa.Connection, make: Make) -> list[Any]:
        return make.model.stored(self.translated(connection))

    def translated(self, connection: sa.Connection) -> sa.Connection:
        if not self._path.tenant:
            return connection
        return connection.execution_options(schema_translate_map=TENANT)


class Cells:
    """Cells of the table that one test fills: all of them are tried, and those that fail are named together."""

    def __init__(self) -> None:
        self._failed: list[tuple[str, Exception]] = []

    @contextmanager
    def cell(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"in: {name}")
            self._failed.append((name, error))

    def done(self) -> None:
        if self._failed:
            names = "; ".join(
                f"{name}: {type(error).__name__} {str(error).strip()[:150]!r}" for name, error in self._failed
            )
            raise ExceptionGroup(names, [error for _, error in self._failed])


def shown(objects: list[Any]) -> list[Any]:
    return [(None if each.status is None else each.status.upper(), each.subject) for each in objects]


def check_update(path: Path, kind: str, mode: str, outcome: Outcome, stored: list[Any], many: bool) -> None:
    expected = Expected(path, mode, target_of(kind))
    assert (outcome.error is not None) == expected.raises
    if outcome.error is not None:
        assert outcome.error.pairs == expected.blocked
        assert outcome.error.identities == expected.identities or path.names is None
        assert not outcome.error.new
    assert stored == expected.rows
    assert outcome.operation.blocked == expected.blocked
    assert outcome.operation.allowed == expected.allowed
    assert outcome.operation.observed == expected.observed
    assert outcome.counted == expected.blocked
    if not expected.raises and outcome.is_counted(path, many):
        assert outcome.number == expected.number


# --- UPDATE -----------------------------------------------------------------------------------------------------------


@cases_of(UPDATES, "engine")
def test_a_statement_that_moves_rows(engine: sa.Engine, path: Path, backend: str, mode: str) -> None:
    models, cells = Models(path), Cells()
    for kind in path.kinds_on(backend):
        with engine.begin() as connection:
            make = models.make(connection, kind, "SPAM_REVIEW", STATES)
        with cells.cell(kind):
            outcome = Outcome(make.model, mode)
            if path.on == "connection":
                with engine.begin() as connection, outcome.watch():
                    outcome.number = path.write(models.translated(connection), make.model, make)
            else:
                with Session(engine) as session:
                    objects = write_paths.loaded(session, make.model)
                    shown(objects)
                    with outcome.watch():
                        outcome.number = path.write(session, make.model, make)
                    if outcome.error is not None and path.ends:
                        session.rollback()
                    check_objects(path, make, mode, objects, shown(objects))
                    session.commit()
            with engine.connect() as connection:
                stored = models.stored(connection, make)
            check_update(path, kind, mode, outcome, stored, engine.dialect.supports_sane_multi_rowcount)
    cells.done()


def check_objects(path: Path, make: Make, mode: str, objects: list[Any], seen: list[Any]) -> None:
    """The objects that were loaded before show what is stored.

    SQLAlchemy itself tells only some paths' objects of a move, and evaluates a parameter without its value.
    """
    expected = Expected(path, mode, target_of(make.kind))
    told = path.shows == "all" and (make.kind != "by set" or path.kinds == BY_SET)
    for number, is_seen, is_stored in zip(IDS, seen, expected.rows, strict=True):
        if told or number in expected.refused:
            assert is_seen == is_stored, number


@cases_of(UPDATES, "async_engine")
def test_an_async_statement_that_moves_rows(
    async_engine: AsyncEngine, path: Path, backend: str, mode: str, databases: Databases
) -> None:
    models, cells = Models(path), Cells()
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")

    async def on_connection(make: Make, outcome: Outcome) -> None:
        async with async_engine.begin() as connection:
            with outcome.watch():
                if path.is_async:
                    outcome.number = await path.write(connection, make.model, make)
                else:
                    outcome.number = await connection.run_sync(
                        lambda sync: path.write(models.translated(sync), make.model, make)
                    )

    async def in_session(make: Make, outcome: Outcome) -> None:
        async with AsyncSession(async_engine, expire_on_commit=False) as session:
            objects = await session.run_sync(write_paths.loaded, make.model)
            shown(objects)
            with outcome.watch():
                if path.is_async:
                    outcome.number = await path.write(session, make.model, make)
                else:
                    outcome.number = await session.run_sync(path.write, make.model, make)
            if outcome.error is not None and path.ends:
                await session.rollback()
            else:
                # Outside of a greenlet, where an expired attribute is a MissingGreenlet. SQLAlchemy itself expires what
                # it cannot evaluate of the rows that have moved.
                refused = Expected(path, mode, target_of(make.kind)).refused
                shown([each for number, each in zip(IDS, objects, strict=True) if number in refused])
            check_objects(path, make, mode, objects, await session.run_sync(lambda _: shown(objects)))
            await session.commit()

    for kind in path.kinds_on(backend):
        with engine.begin() as connection:
            make = models.make(connection, kind, "SPAM_REVIEW", STATES)
        with cells.cell(kind):
            outcome = Outcome(make.model, mode)
            run(on_connection(make, outcome) if path.on.endswith("connection") else in_session(make, outcome))
            with engine.connect() as connection:
                stored = models.stored(connection, make)
            many = async_engine.dialect.supports_sane_multi_rowcount
            check_update(path, kind, mode, outcome, stored, many)
    cells.done()


# --- INSERT -----------------------------------------------------------------------------------------------------------


def check_insert(path: Path, make: Make, mode: str, outcome: Outcome, stored: list[Any], many: bool) -> None:
    state = None if make.kind == "NULL" else make.state
    illegal = Counter() if state == "READY" else Counter({(None, state): path.inserts})
    raises = bool(illegal) and mode != "observe"
    assert (outcome.error is not None) == raises
    if outcome.error is not None:
        assert outcome.error.new
        assert outcome.error.source is None
        assert outcome.error.pairs == illegal
        assert outcome.error.identities == (tuple((n + 1,) for n in range(path.inserts)) if path.names else ())
    assert stored == ([] if raises else [(state, "written")] * path.inserts)
    assert outcome.operation.blocked == (illegal if raises else Counter())
    assert outcome.operation.observed == (illegal if mode == "observe" else Counter())
    assert not outcome.operation.allowed
    assert outcome.counted == (illegal if raises else Counter())
    if not raises and outcome.is_counted(path, many):
        assert outcome.number == path.inserts


@cases_of(INSERTS, "engine")
def test_a_statement_that_makes_rows(engine: sa.Engine, path: Path, backend: str, mode: str) -> None:
    models, cells = Models(path), Cells()
    for kind in path.kinds_on(backend):
        # What may start is written in every mode; one kind of value shows that in those that are not "raise".
        for state in ("READY", "COMPLETED") if mode == "raise" or kind == path.kinds[0] else ("COMPLETED",):
            with engine.begin() as connection:
                make = models.make(connection, kind, state, ())
            with cells.cell(f"{kind} {state}"):
                outcome = Outcome(make.model, mode)
                with engine.begin() as connection, Session(connection) as session, outcome.watch():
                    db = connection if path.on == "connection" else session
                    outcome.number = path.write(db, make.model, make)
                    session.flush()
                with engine.connect() as connection:
                    stored = models.stored(connection, make)
                check_insert(path, make, mode, outcome, stored, engine.dialect.supports_sane_multi_rowcount)
    cells.done()


@cases_of(INSERTS, "async_engine")
def test_an_async_statement_that_makes_rows(
    async_engine: AsyncEngine, path: Path, backend: str, mode: str, databases: Databases
) -> None:
    models, cells = Models(path), Cells()
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")

    async def write(make: Make, outcome: Outcome) -> None:
        async with async_engine.begin() as connection, AsyncSession(connection) as session:
            with outcome.watch():
                db: Any = connection if path.on.endswith("connection") else session
                if path.is_async:
                    outcome.number = await path.write(db, make.model, make)
                else:
                    outcome.number = await db.run_sync(path.write, make.model, make)

    for kind in path.kinds_on(backend):
        # What may start is written in every mode; one kind of value shows that in those that are not "raise".
        for state in ("READY", "COMPLETED") if mode == "raise" or kind == path.kinds[0] else ("COMPLETED",):
            with engine.begin() as connection:
                make = models.make(connection, kind, state, ())
            with cells.cell(f"{kind} {state}"):
                outcome = Outcome(make.model, mode)
                run(write(make, outcome))
                with engine.connect() as connection:
                    stored = models.stored(connection, make)
                check_insert(path, make, mode, outcome, stored, async_engine.dialect.supports_sane_multi_rowcount)
    cells.done()


# --- the documentation ------------------------------------------------------------------------------------------------


class TestTheTableOfTheDocumentation:
    PAGE = FilePath(__file__).parents[2] / "docs" / "statements.md"

    def test_lists_what_is_tested(self) -> None:
        lines = self.PAGE.read_text().splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("| write path"))
        shown = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
        assert "\n".join(shown) == write_paths.table(), "python -m tests.guards.write_paths prints the table"

    def test_names_every_kind_of_value(self) -> None:
        text = self.PAGE.read_text()
        missing = [kind for kind in (*write_paths.KINDS, write_paths.EXCLUDED) if f"- `{kind}`:" not in text]
        assert not missing

    def test_every_path_runs_somewhere(self) -> None:
        assert all(path.backends(asynchronous=False) or path.backends(asynchronous=True) for path in PATHS)
        assert len({path.id for path in PATHS}) == len(PATHS)
        assert all(path.kinds for path in PATHS)


# --- models -----------------------------------------------------------------------------------------------------------


ALL_TO_SPAM = {("PROMOTED", "SPAM_REVIEW"): 1, ("COMPLETED", "SPAM_REVIEW"): 1}


class TestTwoGuardedColumns:
    """A row is written only if the moves of all of its columns pass, each in its guard's own mode."""

    ROWS = [("READY", "NEW"), ("READY", "SENT"), ("COMPLETED", "NEW"), ("COMPLETED", "SENT")]

    def message(self, engine: sa.Engine, status: Any, delivery: Any) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            delivery = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal=status)
        guard(Message.delivery, TransitionTable("NEW → LOST", "NEW → SENT", initial="NEW"), on_illegal=delivery)
        Message.metadata.create_all(engine)
        rows = [{"id": n, "status": s, "delivery": d} for n, (s, d) in enumerate(self.ROWS, 1)]
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), rows)
        return Message

    def move(self, engine: sa.Engine, message: Any) -> tuple[Any, Any]:
        """Set PROMOTED and LOST: of both moves, row 1's are legal, row 4's illegal, and one of rows 2 and 3."""
        error = None
        with engine.begin() as connection:
            try:
                connection.execute(sa.update(message).values(status="PROMOTED", delivery="LOST"))
            except IllegalTransition as raised:
                error = raised
        with engine.connect() as connection:
            rows = connection.execute(sa.select(message.status, message.delivery).order_by(message.id)).all()
        return error, [tuple(row) for row in rows]

    def test_in_raise_name_what_each_refuses(self, engine: sa.Engine) -> None:
        message = self.message(engine, "raise", "raise")
        error, rows = self.move(engine, message)
        assert rows == self.ROWS
        by_attribute = {each.attribute: each for each in (error, *error.also)}
        assert by_attribute["status"].pairs == {("COMPLETED", "PROMOTED"): 2}
        assert by_attribute["status"].identities == ((3,), (4,))
        assert by_attribute["delivery"].pairs == {("SENT", "LOST"): 2}
        assert by_attribute["delivery"].identities == ((2,), (4,))

    def test_in_skip_leave_out_what_one_of_them_refuses(self, engine: sa.Engine) -> None:
        message = self.message(engine, "skip", "skip")
        error, rows = self.move(engine, message)
        assert error is None
        assert rows == [("PROMOTED", "LOST"), *self.ROWS[1:]]
        assert counts(message.status) == {("COMPLETED", "PROMOTED"): 2}
        assert counts(message.delivery) == {("SENT", "LOST"): 2}

    def test_in_skip_and_observe_leave_out_what_the_one_in_skip_refuses(self, engine: sa.Engine) -> None:
        message = self.message(engine, "skip", "observe")
        with operation("Move") as op:
            error, rows = self.move(engine, message)
        assert error is None
        assert rows == [("PROMOTED", "LOST"), ("PROMOTED", "LOST"), *self.ROWS[2:]]
        assert op.blocked == {("COMPLETED", "PROMOTED"): 2}
        assert op.observed == {("SENT", "LOST"): 1}
        assert op.allowed == {("READY", "PROMOTED"): 2, ("NEW", "LOST"): 1}

    def test_in_raise_and_skip_raise_for_the_one_in_raise(self, engine: sa.Engine) -> None:
        message = self.message(engine, "raise", "skip")
        error, rows = self.move(engine, message)
        assert rows == self.ROWS
        assert (error.attribute, error.pairs, error.also) == ("status", {("COMPLETED", "PROMOTED"): 2}, ())
        assert counts(message.delivery) == {}


class TestACompositeKey:
    def message(self, engine: sa.Engine, mode: Any) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            box = mapped_column(sa.String(5), primary_key=True)
            number = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal=mode)
        Message.metadata.create_all(engine)
        states = ("READY", "PROMOTED", "COMPLETED")
        rows = [{"box": box, "number": n, "status": state} for box in "ab" for n, state in enumerate(states, 1)]
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), rows)
        return Message

    @pytest.mark.parametrize("by_key", [False, True], ids=["WHERE", "by key"])
    def test_is_named(self, engine: sa.Engine, by_key: bool) -> None:
        message = self.message(engine, "raise")
        sets = [{"box": box, "number": n, "status": "SPAM_REVIEW"} for box in "ab" for n in (1, 2, 3)]
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            if by_key:
                session.execute(sa.update(message), sets)
            else:
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert caught.value.identities == (("a", 2), ("a", 3), ("b", 2), ("b", 3))
        assert caught.value.pairs == {("PROMOTED", "SPAM_REVIEW"): 2, ("COMPLETED", "SPAM_REVIEW"): 2}
        assert str(caught.value).startswith("Message(box='a', number=2).status: cannot move from PROMOTED")

    @pytest.mark.parametrize("by_key", [False, True], ids=["WHERE", "by key"])
    def test_is_left_out(self, engine: sa.Engine, by_key: bool) -> None:
        message = self.message(engine, "skip")
        sets = [{"box": box, "number": n, "status": "SPAM_REVIEW"} for box in "ab" for n in (1, 2, 3)]
        with Session(engine) as session:
            objects = session.scalars(sa.select(message).order_by(message.box, message.number)).all()
            if by_key:
                session.execute(sa.update(message), sets)
            else:
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            assert [each.status for each in objects] == ["SPAM_REVIEW", "PROMOTED", "COMPLETED"] * 2
            session.commit()
            assert [each.status for each in objects] == ["SPAM_REVIEW", "PROMOTED", "COMPLETED"] * 2


class Number(enum.IntEnum):
    READY = 1
    PROMOTED = 2
    COMPLETED = 3
    SPAM_REVIEW = 4


NUMBERS = TransitionTable((Number.READY, Number.SPAM_REVIEW), "READY → PROMOTED → COMPLETED", initial=Number.READY)
SPOKEN_STATES = ("ready", "promoted", "completed", "spam_review")
COLUMNS = {
    # name: (type, table, values for the four states, texts that are stored)
    "Enum": (sa.Enum(Status, native_enum=False), TABLE, tuple(Status), tuple(Status.__members__)),
    "native Enum": (sa.Enum(Status, name="status"), TABLE, tuple(Status), tuple(Status.__members__)),
    "Enum by value": (
        sa.Enum(Status, name="status", values_callable=lambda members: [each.value for each in members]),
        TABLE,
        tuple(Status),
        tuple(Status),
    ),
    "StrEnum in a string": (sa.String(20), TABLE, tuple(Status), tuple(Status)),
    "IntEnum": (sa.Integer(), NUMBERS, tuple(Number), ("1", "2", "3", "4")),
    "TypeDecorator": (write_paths.Spoken(), write_paths.SPOKEN, SPOKEN_STATES, tuple(map(str.upper, SPOKEN_STATES))),
}


@two_backends
class TestATypeOfColumn:
    @pytest.fixture(params=COLUMNS)
    def column(self, request: pytest.FixtureRequest) -> Any:
        return COLUMNS[request.param]

    def message(self, engine: sa.Engine, column: Any, mode: Any) -> tuple[Any, dict[str, Any], dict[str, str]]:
        type_, table, values, texts = column
        names = [str(getattr(value, "name", value)).upper() for value in values]
        values, texts = dict(zip(names, values, strict=True)), dict(zip(names, map(str, texts), strict=True))
        message = message_class(table=table, type_=type_, default=None, on_illegal=mode)
        fill(engine, message, *(values[name] for name in ("READY", "PROMOTED", "COMPLETED", "SPAM_REVIEW")))
        return message, values, texts

    @pytest.mark.parametrize("path", ["orm", "by key", "cast"])
    @pytest.mark.parametrize("mode", MODES)
    def test_is_judged_by_what_is_stored(self, engine: sa.Engine, column: Any, path: str, mode: str) -> None:
        message, values, texts = self.message(engine, column, mode)
        spam = values["SPAM_REVIEW"]
        illegal = {(texts[source], texts["SPAM_REVIEW"]): 1 for source in ("PROMOTED", "COMPLETED")}
        error = None
        with Session(engine) as session, operation("Move") as op:
            try:
                if path == "orm":
                    session.execute(sa.update(message).values(status=spam))
                elif path == "by key":
                    session.execute(sa.update(message), [{"id": n, "status": spam} for n in (1, 2, 3, 4)])
                else:
                    value = sa.cast(sa.literal(spam, message.__table__.c.status.type), message.__table__.c.status.type)
                    options = {"synchronize_session": "fetch"}
                    session.execute(sa.update(message).values(status=value), execution_options=options)
            except IllegalTransition as raised:
                error = raised
            session.commit()
        assert (error is not None) == (mode == "raise")
        assert error is None or (error.pairs, error.identities) == (illegal, ((2,), (3,)))
        left = ["READY" if mode == "raise" else "SPAM_REVIEW", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]
        after = ["SPAM_REVIEW"] * 4 if mode == "observe" else left
        assert stored(engine, message) == [values[name] for name in after]
        assert op.blocked == ({} if mode == "observe" else illegal)
        assert op.observed == (illegal if mode == "observe" else {})
        assert op.allowed == ({} if mode == "raise" else {(texts["READY"], texts["SPAM_REVIEW"]): 1})

    def test_is_judged_in_an_insert(self, engine: sa.Engine, column: Any) -> None:
        message, values, texts = self.message(engine, column, "raise")
        with engine.connect() as connection:
            connection.execute(sa.insert(message), [{"id": 7, "status": values["READY"]}])
            connection.execute(sa.insert(message).values(id=8, status=values["READY"]))
            with pytest.raises(IllegalTransition) as caught:
                connection.execute(sa.insert(message), [{"id": n, "status": values["COMPLETED"]} for n in (9, 10)])
        assert caught.value.pairs == {(None, texts["COMPLETED"]): 2}
        assert caught.value.identities == ((9,), (10,))


class TestNull:
    TABLE = TransitionTable((None, "READY"), "READY → DONE", ("DONE", None), initial=[None])

    @pytest.fixture
    def message(self, engine: sa.Engine) -> Any:
        message = message_class(table=self.TABLE, default=None, on_illegal="skip")
        fill(engine, message, None, "READY", "DONE")  # type: ignore[arg-type]
        return message

    @pytest.mark.parametrize("null", [None, sa.null(), sa.func.nullif("a", "a")], ids=["None", "null()", "nullif()"])
    def test_as_target(self, engine: sa.Engine, message: Any, null: Any) -> None:
        with engine.begin() as connection, operation("Move") as op:
            assert connection.execute(sa.update(message).values(status=null)).rowcount == 2
        assert stored(engine, message) == [None, "READY", None]
        assert op.blocked == {("READY", None): 1}
        assert op.allowed == {("DONE", None): 1}

    def test_as_source(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(sa.update(message).values(status="READY"))
            connection.execute(sa.update(message).values(status="DONE").where(message.status.is_(None)))
        assert stored(engine, message) == ["READY", "READY", "DONE"]
        assert op.blocked == {("DONE", "READY"): 1}
        assert op.allowed == {(None, "READY"): 1}

    def test_by_key(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session, operation("Move") as op:
            session.execute(sa.update(message), [{"id": n, "status": None} for n in (1, 2, 3)])
            session.commit()
        assert stored(engine, message) == [None, "READY", None]
        assert op.blocked == {("READY", None): 1}

    def test_as_a_start(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection:
            connection.execute(sa.insert(message.__table__), [{"id": 7}, {"id": 8}])
            connection.execute(sa.insert(message.__table__).values(id=9, status=None))
            with pytest.raises(IllegalTransition):
                connection.execute(sa.insert(message.__table__).values(id=10, status="READY"))
        assert stored(engine, message)[3:] == [None] * 3


@two_backends
class TestAColumnThatIsNamedDifferently:
    @pytest.fixture(params=["attribute", "key"])
    def message(self, request: pytest.FixtureRequest, engine: sa.Engine) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column("message_id", sa.Integer, primary_key=True)
            if request.param == "attribute":
                status = mapped_column("state_col", sa.String(20))
            else:
                status = mapped_column("state_col", sa.String(20), key="status_key")

        guard(Message.status, TABLE, on_illegal="skip")
        Message.metadata.create_all(engine)
        copy = unguarded(Message)
        key, status = (column.key for column in copy.columns)
        rows = [{key: n, status: state} for n, state in enumerate(("READY", "PROMOTED", "COMPLETED"), 1)]
        with engine.begin() as connection:
            connection.execute(sa.insert(copy), rows)
        return Message

    @pytest.mark.parametrize("path", ["orm", "core", "by key", "expression", "executemany"])
    def test_is_held(self, engine: sa.Engine, message: Any, path: str) -> None:
        key, column = message.__table__.columns
        with Session(engine) as session, operation("Move") as op:
            objects = session.scalars(sa.select(message).order_by(message.id)).all()
            if path == "orm":
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            elif path == "by key":
                session.execute(sa.update(message), [{"id": n, "status": "SPAM_REVIEW"} for n in (1, 2, 3)])
            elif path == "core":
                session.execute(sa.update(message.__table__).values({column: "SPAM_REVIEW"}))
            elif path == "expression":
                session.execute(sa.update(message).values(status=sa.func.upper("spam_review")))
            else:
                statement = sa.update(message.__table__).where(key == sa.bindparam("row"))
                sets = [{"row": n} for n in (1, 2, 3)]
                session.connection().execute(statement.values({column: "SPAM_REVIEW"}), sets)
            assert [each.status for each in objects[1:]] == ["PROMOTED", "COMPLETED"]
            session.commit()
            assert [each.status for each in objects] == ["SPAM_REVIEW", "PROMOTED", "COMPLETED"]
        assert op.blocked == ALL_TO_SPAM
        assert op.allowed == {("READY", "SPAM_REVIEW"): 1}

    @pytest.mark.parametrize("path", ["orm", "bulk", "core"])
    def test_is_held_in_an_insert(self, engine: sa.Engine, message: Any, path: str) -> None:
        table = message.__table__
        key, column = table.columns
        with Session(engine) as session, pytest.raises(IllegalTransition) as caught:
            if path == "orm":
                session.execute(sa.insert(message).values(id=7, status="COMPLETED"))
            elif path == "bulk":
                session.execute(sa.insert(message), [{"id": 7, "status": "COMPLETED"}])
            else:
                session.execute(sa.insert(table).values({key: 7, column: "COMPLETED"}))
        assert caught.value.pairs == {(None, "COMPLETED"): 1}
        assert caught.value.identities == ((7,),)


class TestASchema:
    @on_postgresql
    @pytest.mark.parametrize("mode", MODES)
    def test_is_named_in_the_question_as_well(self, engine: sa.Engine, mode: Any) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            __table_args__ = {"schema": "mail"}
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            subject = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal=mode)
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("mail"))
        fill(engine, Message, "READY", "PROMOTED", "COMPLETED")
        error = None
        with Session(engine) as session, operation("Move") as op:
            try:
                session.execute(sa.update(Message).values(status=sa.func.upper("spam_review")))
            except IllegalTransition as raised:
                error = raised
            upsert = postgresql.insert(Message).values([{"id": 7, "status": "READY"}])
            session.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"status": "READY"}))
            session.commit()
        assert (error is not None) == (mode == "raise")
        assert (op.observed if mode == "observe" else op.blocked) == ALL_TO_SPAM
        after = {
            "raise": ["READY", "PROMOTED", "COMPLETED"],
            "skip": ["SPAM_REVIEW", "PROMOTED", "COMPLETED"],
            "observe": ["SPAM_REVIEW"] * 3,
        }
        assert stored(engine, Message) == [*after[mode], "READY"]


# --- defaults ---------------------------------------------------------------------------------------------------------


def _given(context: Any) -> str:
    return context.get_current_parameters()["subject"]


DEFAULTS = {
    "a scalar": lambda state: {"default": state},
    "a function": lambda state: {"default": lambda: state},
    "a function of the row": lambda state: {"default": _given},
    "an SQL expression": lambda state: {"default": sa.func.upper(state.lower())},
    "a server default": lambda state: {"server_default": state},
    "an expression of the server": lambda state: {"server_default": sa.text(f"'{state}'")},
}


@two_backends
class TestADefault:
    """The state that a new row gets from the column itself is held to the initial states."""

    def message(self, engine: sa.Engine, default: str, state: str, mode: Any) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), **DEFAULTS[default](state))
            subject = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal=mode)
        Message.metadata.create_all(engine)
        return Message

    def insert(self, engine: sa.Engine, message: Any, path: str, state: str) -> None:
        rows = [{"id": n, "subject": state} for n in (1, 2)]
        table = message.__table__
        with Session(engine) as session:
            match path:
                case "executemany":
                    session.connection().execute(sa.insert(table), rows)
                case "multi-values":
                    session.execute(sa.insert(table).values(rows))
                case "bulk":
                    session.execute(sa.insert(message), rows)
                case "from_select":
                    both = sa.union_all(*(sa.select(sa.literal(n), sa.literal(state)) for n in (1, 2))).subquery()
                    query = sa.select(*both.c)
                    session.execute(sa.insert(table).from_select(["id", "subject"], query))
            session.commit()

    @pytest.mark.parametrize("path", ["executemany", "multi-values", "bulk", "from_select"])
    @pytest.mark.parametrize("default", DEFAULTS)
    def test_is_judged(self, engine: sa.Engine, default: str, path: str) -> None:
        if path == "from_select" and default == "a function of the row":
            pytest.skip("SQLAlchemy calls no function for the rows of a SELECT")
        good = self.message(engine, default, "READY", "raise")
        self.insert(engine, good, path, "READY")
        assert stored(engine, good) == ["READY"] * 2
        good.metadata.drop_all(engine)
        bad = self.message(engine, default, "COMPLETED", "raise")
        with pytest.raises(IllegalTransition) as caught:
            self.insert(engine, bad, path, "COMPLETED")
        assert caught.value.pairs == {(None, "COMPLETED"): 2}
        assert stored(engine, bad) == []
        with operation("Fill", on_illegal="observe") as op:
            self.insert(engine, bad, path, "COMPLETED")
        assert op.observed == {(None, "COMPLETED"): 2}
        assert stored(engine, bad) == ["COMPLETED"] * 2


@two_backends
class TestOnupdate:
    @pytest.mark.parametrize(
        "value",
        ["SPAM_REVIEW", sa.func.upper("spam_review"), lambda: "SPAM_REVIEW"],
        ids=["a value", "an expression", "a function"],
    )
    @pytest.mark.parametrize("mode", MODES)
    def test_of_the_guarded_column_is_judged(self, engine: sa.Engine, value: Any, mode: Any) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20), onupdate=value)
            subject = mapped_column(sa.String(20))

        guard(Message.status, TABLE, on_illegal=mode)
        fill(engine, Message, "READY", "PROMOTED", "COMPLETED")
        is_function = callable(value) and not isinstance(value, sa.ColumnElement)
        error = None
        with engine.begin() as connection, operation("Move") as op:
            try:
                connection.execute(sa.update(Message.__table__).values(subject="x"))
            except IllegalTransition as raised:
                error = raised
        left = ["READY" if mode == "raise" else "SPAM_REVIEW", "PROMOTED", "COMPLETED"]
        if is_function and mode != "observe":
            # What it gives is known only to the UPDATE itself, so that the fence alone may hold it.
            assert stored(engine, Message)[1:] == left[1:]
            return
        assert (error is not None) == (mode == "raise")
        assert stored(engine, Message) == (["SPAM_REVIEW"] * 3 if mode == "observe" else left)
        if not is_function:
            assert (op.observed if mode == "observe" else op.blocked) == ALL_TO_SPAM


# --- upserts ----------------------------------------------------------------------------------------------------------


class TestUpserts:
    @pytest.fixture
    def message(self, engine: sa.Engine) -> Any:
        message = message_class()
        fill(engine, message, *STATES)
        return message

    def upsert(self, engine: sa.Engine, message: Any, rows: list[dict[str, Any]]) -> Any:
        return write_paths.upsert(engine, message.__table__).values(rows)

    @pytest.mark.parametrize("target", [None, ["id"]], ids=["without target", "with target"])
    @pytest.mark.parametrize("mode", MODES)
    def test_do_nothing_leaves_rows_alone_that_are_there(
        self, engine: sa.Engine, message: Any, target: Any, mode: Any
    ) -> None:
        rows = [{"id": n, "status": "COMPLETED"} for n in IDS] + [{"id": 7, "status": "READY"}]
        with engine.begin() as connection, operation("Fill", on_illegal=mode) as op:
            statement = self.upsert(engine, message, rows).on_conflict_do_nothing(index_elements=target)
            connection.execute(statement)
        assert stored(engine, message) == [*STATES, "READY"]
        assert (op.blocked, op.observed, op.allowed) == ({}, {}, {})

    @pytest.mark.parametrize("target", [None, ["id"]], ids=["without target", "with target"])
    def test_do_nothing_holds_new_rows(self, engine: sa.Engine, message: Any, target: Any) -> None:
        rows = [{"id": n, "status": "COMPLETED"} for n in (5, 6, 7)]
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(self.upsert(engine, message, rows).on_conflict_do_nothing(index_elements=target))
        assert (caught.value.new, caught.value.identities) == (True, ((7,),))
        assert stored(engine, message) == list(STATES)

    def test_new_rows_and_rows_that_are_there_are_held_each_in_their_way(self, engine: sa.Engine, message: Any) -> None:
        rows = [{"id": n, "status": "READY"} for n in (1, 2, 7)]
        statement = self.upsert(engine, message, rows)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": "SPAM_REVIEW"})
        with engine.begin() as connection, operation("Move", on_illegal="skip") as op:
            connection.execute(statement)
        assert stored(engine, message) == ["SPAM_REVIEW", *STATES[1:], "READY"]
        assert op.blocked == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert op.allowed == {("READY", "SPAM_REVIEW"): 1}

    @pytest.mark.parametrize("mode", ["raise", "skip"])
    def test_a_new_row_that_must_not_start_so_refuses_the_statement(
        self, engine: sa.Engine, message: Any, mode: Any
    ) -> None:
        rows = [{"id": n, "status": "SPAM_REVIEW"} for n in (1, 7)]
        statement = self.upsert(engine, message, rows)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"status": statement.excluded.status})
        with engine.begin() as connection, operation("Move", on_illegal=mode):
            with pytest.raises(IllegalTransition) as caught:
                connection.execute(statement)
        assert caught.value.pairs == {(None, "SPAM_REVIEW"): 1}
        assert stored(engine, message) == list(STATES)

    def test_what_the_where_spares_gets_no_verdict(self, engine: sa.Engine, message: Any) -> None:
        table = message.__table__
        rows = [{"id": n, "status": "READY"} for n in IDS]
        statement = self.upsert(engine, message, rows)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"status": "SPAM_REVIEW"}, where=table.c.status == "READY"
        )
        with engine.begin() as connection, operation("Move") as op:
            connection.execute(statement)
        assert op.allowed == {("READY", "SPAM_REVIEW"): 2}
        assert stored(engine, message)[1:5] == list(STATES[1:5])

    def test_one_that_sets_another_column_gets_no_verdict(self, engine: sa.Engine, message: Any) -> None:
        rows = [{"id": n, "status": "COMPLETED", "subject": "x"} for n in IDS]
        statement = self.upsert(engine, message, rows)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"subject": statement.excluded.subject})
        with engine.begin() as connection:
            connection.execute(statement)
        assert stored(engine, message) == list(STATES)


# --- how a statement behaves ------------------------------------------------------------------------------------------


@pytest.fixture
def message(engine: sa.Engine) -> Any:
    message = message_class()
    fill(engine, message, *STATES)
    return message


class TestTheError:
    def test_says_how_many_rows_were_refused(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert str(caught.value) == (
            "Message(id=2).status: cannot move from PROMOTED to SPAM_REVIEW; allowed from PROMOTED: COMPLETED. "
            "3 rows were refused (PROMOTED → SPAM_REVIEW: 2, COMPLETED → SPAM_REVIEW: 1)."
        )
        assert (caught.value.identity, caught.value.source, caught.value.target) == ((2,), "PROMOTED", "SPAM_REVIEW")
        assert caught.value.allowed == ("COMPLETED",)

    def test_of_new_rows_says_so(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.insert(message), [{"id": n, "status": "COMPLETED"} for n in (7, 8)])
        assert str(caught.value) == (
            "Message(id=7).status: a new row cannot start in COMPLETED; allowed: READY. 2 rows were refused "
            "(NULL → COMPLETED: 2)."
        )

    def test_names_ten_rows_and_counts_all(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, *["PROMOTED"] * 1_200)
        with engine.begin() as connection, pytest.raises(IllegalTransition, match="1,200 rows were refused") as caught:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert caught.value.identities == tuple((n,) for n in range(1, 11))
        assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 1_200}


class TestSets:
    def test_are_judged_in_order(self, engine: sa.Engine, message: Any) -> None:
        """What one set writes is what the next one finds."""
        sets = [{"id": 1, "status": state} for state in ("PROMOTED", "COMPLETED", "SPAM_REVIEW")]
        with Session(engine) as session, operation("Move", on_illegal="skip") as op:
            session.execute(sa.update(message), sets)
            session.commit()
        assert stored(engine, message)[0] == "COMPLETED"
        assert op.allowed == {("READY", "PROMOTED"): 1, ("PROMOTED", "COMPLETED"): 1}
        assert op.blocked == {("COMPLETED", "SPAM_REVIEW"): 1}

    @pytest.mark.parametrize("by", ["id", "status"])
    def test_of_which_one_is_refused_change_nothing(self, engine: sa.Engine, message: Any, by: str) -> None:
        table = message.__table__
        statement = sa.update(table).where(table.c[by] == sa.bindparam("it")).values(status=sa.bindparam("to"))
        sets = {
            "id": [{"it": 1, "to": "PROMOTED"}, {"it": 2, "to": "READY"}, {"it": 3, "to": "READY"}],
            "status": [{"it": "READY", "to": "PROMOTED"}, {"it": "COMPLETED", "to": "READY"}],
        }
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement, sets[by])
        assert stored(engine, message) == list(STATES)
        refused = {"id": {("PROMOTED", "READY"): 1, ("COMPLETED", "READY"): 1}, "status": {("COMPLETED", "READY"): 1}}
        assert caught.value.pairs == refused[by]

    def test_of_new_rows_name_those_that_are_refused(self, engine: sa.Engine, message: Any) -> None:
        rows = [{"id": 7, "status": "READY"}, {"id": 8, "status": "COMPLETED"}, {"id": 9, "status": "PROMOTED"}]
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(sa.insert(message), rows)
        assert caught.value.pairs == {(None, "COMPLETED"): 1, (None, "PROMOTED"): 1}
        assert caught.value.identities == ((8,), (9,))
        assert stored(engine, message) == list(STATES)


@two_backends
class TestOneRowByItsKey:
    """An UPDATE of one row, which is the most frequent one, may be executed in a way of its own."""

    @pytest.mark.parametrize("kind", ["value", "function"])
    @pytest.mark.parametrize("how", ["orm", "fetch", "core", "returning"])
    @pytest.mark.parametrize("mode", MODES)
    def test_is_held(self, engine: sa.Engine, message: Any, how: str, mode: Any, kind: str) -> None:
        table = message.__table__
        value = "SPAM_REVIEW" if kind == "value" else sa.func.upper("spam_review")
        after = []
        refused = []
        with Session(engine) as session, operation("Move", on_illegal=mode) as op:
            objects = session.scalars(sa.select(message).order_by(message.id)).all()
            for number, source in zip(IDS, STATES, strict=True):
                legal = source in ("READY", "SPAM_REVIEW")
                after.append("SPAM_REVIEW" if legal or mode == "observe" else source)
                statement = sa.update(table if how == "core" else message)
                statement = statement.where(table.c.id == number).values(status=value)
                options = {"synchronize_session": how if how == "fetch" else "auto"}
                try:
                    if how == "returning":
                        written = len(session.execute(statement.returning(message.id)).all())
                    else:
                        written = session.execute(statement, execution_options=options).rowcount
                except IllegalTransition as error:
                    refused.append((error.identity, error.pairs))
                else:
                    assert written == (legal or mode == "observe")
            shown = [each.status for each in objects]
            assert how == "core" or shown == after
            session.commit()
        assert stored(engine, message) == after
        in_raise = [((n,), {(STATES[n - 1], "SPAM_REVIEW"): 1}) for n in (2, 3, 5)]
        assert refused == (in_raise if mode == "raise" else [])
        illegal = {("PROMOTED", "SPAM_REVIEW"): 2, ("COMPLETED", "SPAM_REVIEW"): 1}
        assert (op.blocked, op.observed) == (({}, illegal) if mode == "observe" else (illegal, {}))
        assert op.allowed == {("READY", "SPAM_REVIEW"): 2}

    def test_that_is_not_there_is_none(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection, operation("Move") as op:
            statement = sa.update(message).values(status="SPAM_REVIEW").where(message.id == 77)
            assert connection.execute(statement).rowcount == 0
        assert (op.blocked, op.allowed) == ({}, {})


class TestTransactions:
    def test_a_refused_statement_leaves_the_session_usable(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.get_one(message, 1).subject = "before"
            with pytest.raises(IllegalTransition):
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            session.get_one(message, 2).subject = "after"
            session.commit()
            assert session.scalars(sa.select(message.subject).order_by(message.id)).all()[:3] == ["before", "after", ""]

    def test_a_savepoint_around_it_takes_back_what_else_was_in_it(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.execute(sa.update(message).values(status="PROMOTED").where(message.id == 1))
            with pytest.raises(IllegalTransition), session.begin_nested():
                session.execute(sa.update(message).values(status="PROMOTED").where(message.id == 6))
                session.execute(sa.update(message).values(status="SPAM_REVIEW"))
            session.execute(sa.update(message).values(subject="after").where(message.id == 6))
            session.commit()
        assert stored(engine, message) == ["PROMOTED", *STATES[1:]]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("backend", ["sqlite", "psycopg", "psycopg2"])
    def test_autocommit(self, databases: Databases, backend: str, mode: Any) -> None:
        engine = databases.engine(backend, isolation_level="AUTOCOMMIT")
        message = message_class(on_illegal=mode)
        fill(engine, message, *STATES)
        table = message.__table__
        sets = [{"row": n} for n in IDS]
        error = None
        with engine.connect() as connection, operation("Move") as op:
            by_key = sa.update(table).where(table.c.id == sa.bindparam("row")).values(status="COMPLETED")
            for statement, parameters in ((sa.update(table).values(status="SPAM_REVIEW"), None), (by_key, sets)):
                try:
                    connection.execute(statement, parameters)
                except IllegalTransition as raised:
                    error = raised
        after = {
            "raise": list(STATES),
            "skip": ["SPAM_REVIEW", "COMPLETED", "COMPLETED", "SPAM_REVIEW", "COMPLETED", "SPAM_REVIEW"],
            "observe": ["COMPLETED"] * 6,
        }
        assert (error is not None) == (mode == "raise")
        assert stored(engine, message) == after[mode]
        assert (op.observed if mode == "observe" else op.blocked)["PROMOTED", "SPAM_REVIEW"] == 2


@two_backends
class TestWhatIsNotAsked:
    """A statement that moves nothing pays nothing: one SQL statement is executed."""

    @pytest.mark.parametrize("what", ["another column", "another table", "DELETE", "SELECT", "text()"])
    def test_about(self, engine: sa.Engine, message: Any, what: str) -> None:
        other = sa.Table("other", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("status", sa.String(20)))
        other.create(engine)
        table = message.__table__
        statement = {
            "another column": sa.update(message).values(subject="x"),
            "another table": sa.update(other).values(status="SPAM_REVIEW"),
            "DELETE": sa.delete(message).where(table.c.status == "READY"),
            "SELECT": sa.select(table).with_for_update(),
            "text()": sa.text("UPDATE message SET status = 'SPAM_REVIEW'"),
        }[what]
        with Session(engine) as session, executed(engine) as texts:
            session.execute(statement)
        assert len(texts) == 1

    def test_about_an_insert_of_known_states(self, engine: sa.Engine, message: Any) -> None:
        with engine.begin() as connection, executed(engine) as texts:
            connection.execute(sa.insert(message).values(id=7, status="READY"))
            connection.execute(sa.insert(message), [{"id": 8}, {"id": 9}])
        assert len(texts) == 2

    def test_about_what_a_flush_writes(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            with executed(engine) as texts:
                session.flush()
        assert len(texts) == 1

    def test_but_an_update_that_sets_it_is(self, engine: sa.Engine, message: Any) -> None:
        with Session(engine) as session, executed(engine) as texts:
            session.execute(sa.update(message).values(status="SPAM_REVIEW").where(message.status == "READY"))
        assert any(text.lstrip().startswith(("SELECT", "WITH")) for text in texts[:-1])
        assert texts[-1].startswith("UPDATE")


@two_backends
class TestTheCompiledCache:
    @pytest.mark.parametrize("form", ["orm", "core", "expression", "by key", "executemany", "upsert"])
    def test_has_everything_the_second_time(self, engine: sa.Engine, message: Any, form: str) -> None:
        table = message.__table__
        rows = [{"id": n, "status": state, "subject": ""} for n, state in zip(IDS, STATES, strict=True)]
        bare, target = unguarded(message), "SPAM_REVIEW"

        def execute() -> None:
            with engine.begin() as connection:
                connection.execute(sa.delete(table))
                connection.execute(sa.insert(bare), rows)
            with Session(engine) as session, operation("Move", on_illegal="skip"):
                match form:
                    case "orm":
                        session.execute(sa.update(message).values(status=target).where(message.id > 0))
                    case "core":
                        session.execute(sa.update(table).values(status=target).where(table.c.id > 0))
                    case "expression":
                        value = sa.func.upper(target.lower())
                        options = {"synchronize_session": "fetch"}
                        session.execute(sa.update(message).values(status=value), execution_options=options)
                    case "by key":
                        session.execute(sa.update(message), [{"id": n, "status": target} for n in IDS])
                    case "executemany":
                        statement = sa.update(table).where(table.c.subject == sa.bindparam("it"))
                        sets = [{"it": "", "to": target}] * 2
                        session.connection().execute(statement.values(status=sa.bindparam("to")), sets)
                    case "upsert":
                        insert = write_paths.upsert(engine, table).values([{"id": n, "status": target} for n in IDS])
                        excluded = {"status": insert.excluded.status}
                        session.execute(insert.on_conflict_do_update(index_elements=["id"], set_=excluded))
                session.commit()

        execute()
        before = len(engine._compiled_cache)
        assert before > 0
        execute()
        assert len(engine._compiled_cache) == before
