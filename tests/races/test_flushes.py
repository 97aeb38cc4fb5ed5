"""Sessions that race never add up to an illegal move: 8 of them over 200 rows, on every driver and in every mode."""

from __future__ import annotations

import asyncio
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, mapped_column
from sqlalchemy.pool import NullPool

from statekit import ConcurrentTransition, IllegalTransition, counts, guard, operation
from tests.guards.inbox import TABLE, fill, message_class, new_base, stored, unguarded
from tests.races.recorded import Outcome, check, keep_a_record
from tests.support.databases import Databases, run

WORKERS, ROWS = 8, 200
STATES = sorted(filter(None, TABLE.states))
BATCH = {"raise": 2, "skip": 20, "observe": 20}
"""How many rows a flush moves: in "raise", one illegal move refuses all of them."""
MODES = ["raise", "skip", "observe"]


def batches(worker: int, size: int) -> list[list[tuple[int, str]]]:
    """Return which rows a worker moves where, batch by batch: all rows are wanted by all workers."""
    choose = random.Random(worker)
    rows = list(range(1, ROWS + 1))
    choose.shuffle(rows)
    return [[(row, choose.choice(STATES)) for row in rows[i : i + size]] for i in range(0, ROWS, size)]


def work(engine: sa.Engine, message: Any, mode: Any, worker: int, outcome: Outcome) -> Any:
    with operation("Race", on_illegal=mode) as op:
        for batch in batches(worker, BATCH[mode]):
            with Session(engine) as session:
                ids = dict(batch)
                for each in session.scalars(sa.select(message).where(message.id.in_(ids))):
                    each.status = ids[each.id]
                try:
                    session.commit()
                except (IllegalTransition, ConcurrentTransition) as error:
                    session.rollback()
                    outcome.note(error)
    return op


async def work_async(engine: AsyncEngine, message: Any, mode: Any, worker: int, outcome: Outcome) -> Any:
    sessions = async_sessionmaker(engine)
    with operation("Race", on_illegal=mode) as op:
        for batch in batches(worker, BATCH[mode]):
            async with sessions() as session:
                ids = dict(batch)
                for each in await session.scalars(sa.select(message).where(message.id.in_(ids))):
                    each.status = ids[each.id]
                try:
                    await session.commit()
                except (IllegalTransition, ConcurrentTransition) as error:
                    await session.rollback()
                    outcome.note(error)
    return op


@pytest.mark.parametrize("mode", MODES)
def test_threads(engine: sa.Engine, mode: str) -> None:
    message = message_class()
    fill(engine, message, *["READY"] * ROWS)
    keep_a_record(engine)
    outcome = Outcome()
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(work, engine, message, mode, n, outcome) for n in range(WORKERS)]
        operations = [future.result() for future in futures]
    check(engine, message, TABLE, mode, operations, outcome)


@pytest.mark.parametrize("mode", MODES)
def test_tasks(async_engine: AsyncEngine, databases: Databases, mode: str) -> None:
    message = message_class()
    engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
    fill(engine, message, *["READY"] * ROWS)
    keep_a_record(engine)
    outcome = Outcome()

    async def race() -> list[Any]:
        return await asyncio.gather(*(work_async(async_engine, message, mode, n, outcome) for n in range(WORKERS)))

    check(engine, message, TABLE, mode, run(race()), outcome)


class TestTwoSessionsThatReadTheSame:
    """Both have loaded READY; the first has committed when the second flushes."""

    def race(
        self, databases: Databases, backend: str, mode: Any, first: str, second: str, *, extra_rows: int = 0
    ) -> Any:
        self.engine = databases.engine(backend, poolclass=NullPool)
        self.message = message_class()
        fill(self.engine, self.message, *["READY"] * (1 + extra_rows))
        with Session(self.engine) as session, Session(self.engine) as other, operation("Race", on_illegal=mode) as op:
            mine = session.scalars(sa.select(self.message).order_by(self.message.id)).all()
            other.get_one(self.message, 1).status = first
            other.commit()
            for each in mine:
                each.status = second
            self.error: Exception | None = None
            try:
                session.commit()
            except (IllegalTransition, ConcurrentTransition) as error:
                self.error = error
            return op

    backends = pytest.mark.parametrize("backend", ["sqlite", "psycopg", "psycopg2"])

    @backends
    @pytest.mark.parametrize("extra_rows", [0, 3], ids=["one row", "several rows"])
    def test_an_illegal_move_is_refused_by_name(self, databases: Databases, backend: str, extra_rows: int) -> None:
        self.race(databases, backend, "raise", "PROMOTED", "SPAM_REVIEW", extra_rows=extra_rows)
        assert isinstance(self.error, IllegalTransition)
        assert self.error.pairs == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert self.error.identities == ((1,),)
        assert "Another transaction moved the row first" in str(self.error)
        assert stored(self.engine, self.message) == ["PROMOTED", *["READY"] * extra_rows]

    @backends
    def test_an_illegal_move_is_counted_once(self, databases: Databases, backend: str) -> None:
        self.race(databases, backend, "raise", "PROMOTED", "SPAM_REVIEW")
        assert counts(self.message.status) == {("PROMOTED", "SPAM_REVIEW"): 1}

    @backends
    def test_a_move_that_is_legal_from_there_too_is_made(self, databases: Databases, backend: str) -> None:
        """As it is for a statement, which never knew what was there."""
        self.engine = databases.engine(backend, poolclass=NullPool)
        self.message = message_class(table=type(TABLE)("READY → PROMOTED → COMPLETED", "READY → COMPLETED"))
        fill(self.engine, self.message, "READY")
        with Session(self.engine) as session, Session(self.engine) as other:
            mine = session.get_one(self.message, 1)
            other.get_one(self.message, 1).status = "PROMOTED"
            other.commit()
            mine.status = "COMPLETED"
            session.commit()
        assert stored(self.engine, self.message) == ["COMPLETED"]

    @backends
    @pytest.mark.parametrize("extra_rows", [0, 3], ids=["one row", "several rows"])
    def test_the_same_move_is_a_concurrent_one(self, databases: Databases, backend: str, extra_rows: int) -> None:
        self.race(databases, backend, "raise", "PROMOTED", "PROMOTED", extra_rows=extra_rows)
        assert isinstance(self.error, ConcurrentTransition)
        assert isinstance(self.error, sa.orm.exc.StaleDataError)
        assert counts(self.message.status) == {}

    @backends
    def test_the_same_move_of_one_row_names_it(self, databases: Databases, backend: str) -> None:
        self.race(databases, backend, "raise", "PROMOTED", "PROMOTED")
        assert isinstance(self.error, ConcurrentTransition)
        assert (self.error.identities, self.error.target) == (((1,),), "PROMOTED")

    @backends
    def test_the_same_move_is_nothing_at_all_in_skip(self, databases: Databases, backend: str) -> None:
        op = self.race(databases, backend, "skip", "PROMOTED", "PROMOTED")
        assert self.error is None
        assert op.blocked == counts(self.message.status) == {}
        assert op.allowed == {("READY", "PROMOTED"): 1}  # that of the other session

    @backends
    def test_an_illegal_move_is_skipped_in_skip(self, databases: Databases, backend: str) -> None:
        op = self.race(databases, backend, "skip", "PROMOTED", "SPAM_REVIEW", extra_rows=2)
        assert self.error is None
        assert op.blocked == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert stored(self.engine, self.message) == ["PROMOTED", "SPAM_REVIEW", "SPAM_REVIEW"]

    @backends
    def test_the_same_move_is_a_concurrent_one_though_another_row_keeps_its_state(
        self, databases: Databases, backend: str
    ) -> None:
        """The fence must let that row be written; the race is noticed all the same."""
        engine = databases.engine(backend, poolclass=NullPool)
        message = message_class()
        fill(engine, message, "READY", "COMPLETED")
        with Session(engine) as session, Session(engine) as other:
            one, two = session.get_one(message, 1), session.get_one(message, 2)
            other.get_one(message, 1).status = "PROMOTED"
            other.commit()
            session.expire(two)
            one.status, two.status = "PROMOTED", "COMPLETED"
            with pytest.raises(ConcurrentTransition) as caught:
                session.flush()
        assert caught.value.identities == ((1,),)

    @backends
    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_a_state_that_was_set_there_and_back_is_no_attempt_to_move(
        self, databases: Databases, backend: str, mode: Any
    ) -> None:
        """Whatever the row holds by now: the flush does not write its state."""
        engine = databases.engine(backend, poolclass=NullPool)
        message = message_class(on_illegal=mode)
        fill(engine, message, "READY")
        with Session(engine) as session, Session(engine) as other, operation("Race") as op:
            one = session.get_one(message, 1)
            other.get_one(message, 1).status = "PROMOTED"
            other.commit()
            one.status, one.subject = "PROMOTED", "changed"
            one.status = "READY"
            session.commit()
            assert one.subject == "changed"
        assert (op.blocked, op.observed) == ({}, {})
        assert stored(engine, message) == ["PROMOTED"]

    @backends
    def test_an_illegal_move_by_a_listener_is_skipped_in_skip(self, databases: Databases, backend: str) -> None:
        engine = databases.engine(backend, poolclass=NullPool)
        message = message_class()
        fill(engine, message, "READY")

        with Session(engine) as session, Session(engine) as other, operation("Race", on_illegal="skip") as op:
            one = session.get_one(message, 1)
            other.get_one(message, 1).status = "PROMOTED"
            other.commit()

            @sa.event.listens_for(message, "before_update")
            def move(mapper: Any, connection: Any, target: Any) -> None:
                target.status = "SPAM_REVIEW"

            one.subject = "changed"
            session.commit()
        assert op.blocked == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert stored(engine, message) == ["PROMOTED"]

    @backends
    def test_the_same_move_of_several_rows_names_none(self, databases: Databases, backend: str) -> None:
        """Those that this flush moved itself look the same as the one that came too late."""
        engine = databases.engine(backend, poolclass=NullPool)
        message = message_class()
        fill(engine, message, "READY", "READY")
        with Session(engine) as session, Session(engine) as other:
            mine = session.scalars(sa.select(message)).all()
            other.get_one(message, 1).status = "PROMOTED"
            other.commit()
            for each in mine:
                each.status = "PROMOTED"
            with pytest.raises(ConcurrentTransition) as caught:
                session.flush()
        assert caught.value.identities == ()


class TestTwoAsyncSessionsThatReadTheSame:
    """asyncpg does not say how many rows an executemany has met: the rows are read and held beforehand."""

    def race(self, async_engine: AsyncEngine, databases: Databases, first: str, second: str, rows: int) -> Any:
        self.engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        self.message = message_class()
        fill(self.engine, self.message, *["READY"] * rows)

        async def go() -> Exception | None:
            async with AsyncSession(async_engine) as session, AsyncSession(async_engine) as other:
                mine = (await session.scalars(sa.select(self.message))).all()
                theirs = await other.get_one(self.message, 1)
                theirs.status = first
                await other.commit()
                for each in mine:
                    each.status = second
                try:
                    await session.commit()
                except (IllegalTransition, ConcurrentTransition) as error:
                    return error
                return None

        return run(go())

    @pytest.mark.parametrize("rows", [1, 4])
    def test_an_illegal_move_is_refused_by_name(
        self, async_engine: AsyncEngine, databases: Databases, rows: int
    ) -> None:
        error = self.race(async_engine, databases, "PROMOTED", "SPAM_REVIEW", rows)
        assert isinstance(error, IllegalTransition)
        assert (error.pairs, error.identities) == ({("PROMOTED", "SPAM_REVIEW"): 1}, ((1,),))
        assert stored(self.engine, self.message) == ["PROMOTED", *["READY"] * (rows - 1)]

    @pytest.mark.parametrize("rows", [1, 4])
    def test_the_same_move_is_a_concurrent_one(
        self, async_engine: AsyncEngine, databases: Databases, rows: int
    ) -> None:
        error = self.race(async_engine, databases, "PROMOTED", "PROMOTED", rows)
        assert isinstance(error, ConcurrentTransition)
        assert stored(self.engine, self.message) == ["PROMOTED", *["READY"] * (rows - 1)]

    def test_states_that_were_set_there_and_back_are_no_attempts_to_move(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        message = message_class()
        fill(engine, message, "READY", "READY")

        async def go() -> None:
            async with AsyncSession(async_engine) as session, AsyncSession(async_engine) as other:
                mine = (await session.scalars(sa.select(message))).all()
                for each in await other.scalars(sa.select(message)):
                    each.status = "PROMOTED"
                await other.commit()
                for each in mine:
                    each.status, each.subject = "PROMOTED", "changed"
                    each.status = "READY"
                await session.commit()

        run(go())
        assert counts(message.status) == {}
        assert stored(engine, message) == ["PROMOTED", "PROMOTED"]

    def test_an_illegal_move_says_that_the_row_was_moved(self, async_engine: AsyncEngine, databases: Databases) -> None:
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        message = message_class()
        fill(engine, message, "READY", "READY")

        async def go() -> str:
            async with AsyncSession(async_engine) as session, AsyncSession(async_engine) as other:
                mine = (await session.scalars(sa.select(message))).all()
                (await other.get_one(message, 1)).status = "PROMOTED"
                await other.commit()
                for each in mine:
                    each.status = "SPAM_REVIEW"
                with pytest.raises(IllegalTransition) as caught:
                    await session.flush()
                return str(caught.value)

        assert "Another transaction moved the row first" in run(go())


class TestWhatIsNoRaceOfStates:
    """SQLAlchemy's own StaleDataError stays what it was."""

    def test_a_row_that_is_gone(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            with engine.begin() as connection:
                connection.execute(sa.delete(message))
            one.status = "PROMOTED"
            with pytest.raises(sa.orm.exc.StaleDataError) as caught:
                session.flush()
        assert not isinstance(caught.value, ConcurrentTransition)

    def test_a_version_that_has_changed(self, engine: sa.Engine) -> None:
        message = message_class()

        class Versioned(message):
            __tablename__ = "versioned"
            id = sa.orm.mapped_column(sa.ForeignKey("message.id"), primary_key=True)
            version = sa.orm.mapped_column(sa.Integer, nullable=False)
            __mapper_args__ = {"version_id_col": version}

        Versioned.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Versioned(id=1))
            session.commit()
            one = session.get_one(Versioned, 1)
            with engine.begin() as connection:
                connection.execute(sa.update(Versioned.__table__).values(version=7))
            one.status = "PROMOTED"
            with pytest.raises(sa.orm.exc.StaleDataError) as caught:
                session.flush()
        assert not isinstance(caught.value, ConcurrentTransition)

    @pytest.mark.parametrize("mode", ["skip", "observe"])
    def test_a_row_that_is_gone_where_rows_are_read_first(self, engine: sa.Engine, mode: Any) -> None:
        message = message_class(on_illegal=mode)
        fill(engine, message, "READY")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            with engine.begin() as connection:
                connection.execute(sa.delete(message))
            one.status = "PROMOTED"
            with pytest.raises(sa.orm.exc.StaleDataError) as caught:
                session.flush()
        assert not isinstance(caught.value, ConcurrentTransition)

    def test_a_row_of_several_that_is_gone(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "READY")
        with Session(engine) as session:
            both = session.scalars(sa.select(message)).all()
            with engine.begin() as connection:
                connection.execute(sa.delete(message).where(message.id == 1))
            for each in both:
                each.status = "PROMOTED"
            with pytest.raises(sa.orm.exc.StaleDataError) as caught:
                session.flush()
        assert not isinstance(caught.value, ConcurrentTransition)

    def versioned(self, engine: sa.Engine, *states: str, **options: Any) -> Any:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            version = mapped_column(sa.Integer, nullable=False)
            __mapper_args__ = {"version_id_col": version}

        guard(Message.status, TABLE, **options)
        Message.metadata.create_all(engine)
        rows = [{"id": number, "status": state, "version": 1} for number, state in enumerate(states, 1)]
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), rows)
        return Message

    def test_a_version_of_several_that_has_changed(self, engine: sa.Engine) -> None:
        message = self.versioned(engine, "READY", "READY")
        with Session(engine) as session:
            both = session.scalars(sa.select(message).order_by(message.id)).all()
            with engine.begin() as connection:
                connection.execute(sa.update(message.__table__).where(message.id == 2).values(version=7))
            for each in both:
                each.status = "PROMOTED"
            with pytest.raises(sa.orm.exc.StaleDataError) as caught:
                session.flush()
        assert not isinstance(caught.value, ConcurrentTransition)

    def test_a_version_that_has_changed_under_an_illegal_move_in_observe(self, engine: sa.Engine) -> None:
        message = self.versioned(engine, "COMPLETED", on_illegal="observe")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            with engine.begin() as connection:
                connection.execute(sa.update(message.__table__).values(version=7))
            one.status = "READY"
            with pytest.raises(sa.orm.exc.StaleDataError):
                session.flush()
        assert counts(message.status) == {}


class TestWhatAConcurrentTransitionSays:
    def test_keeps_its_data_when_it_is_pickled(self) -> None:
        error = ConcurrentTransition(model="Message", attribute="status", target="DONE", identities=[(1,), (2,)])
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))

    def test_names_five_rows_and_counts_the_rest(self) -> None:
        error = ConcurrentTransition(
            model="Message", attribute="status", target="DONE", identities=[(number,) for number in range(1, 8)]
        )
        assert "Message(5) and 2 more: another transaction" in str(error)
