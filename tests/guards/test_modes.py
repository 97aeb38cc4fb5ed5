"""What an illegal move leads to: "raise", "skip", "observe", for a guard and for a block of work."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import Session, deferred, mapped_column, relationship, selectinload

from statekit import IllegalTransition, StatekitError, TransitionTable, counts, guard, operation
from tests.guards.inbox import TABLE, Status, fill, load, message_class, new_base, stored, unguarded
from tests.support.databases import Databases, run


class TestSkip:
    def test_moves_what_is_legal_and_leaves_the_rest(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "READY", "PROMOTED", "COMPLETED", "READY")
        with Session(engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            session.commit()
        assert stored(engine, message) == ["SPAM_REVIEW", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]

    def test_counts_each_skipped_row_once(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "READY", "PROMOTED", "PROMOTED")
        with Session(engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            session.flush()
            session.flush()
            session.commit()
        assert counts(message.status) == {("PROMOTED", "SPAM_REVIEW"): 2}

    def test_drops_the_whole_update_of_the_row(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.status, one.subject = "SPAM_REVIEW", "changed"
            session.commit()
            assert one.subject == ""

    def test_leaves_the_object_as_the_database_has_it(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session:
            one = session.get_one(message, 1)
            one.status = "SPAM_REVIEW"
            session.flush()
            assert one.status == "PROMOTED"
            assert one not in session.dirty

    def test_is_right_about_an_expired_object(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED", "READY")
        with Session(engine) as session:
            both = load(session, message)
            session.expire_all()
            for each in both:
                each.status = "SPAM_REVIEW"
            session.commit()
        assert stored(engine, message) == ["PROMOTED", "SPAM_REVIEW"]

    def test_refuses_a_new_row_all_the_same(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message)
        with Session(engine) as session:
            session.add(message(status="COMPLETED"))
            with pytest.raises(IllegalTransition):
                session.flush()
        assert counts(message.status) == {(None, "COMPLETED"): 1}

    def test_counts_no_skipped_row_if_the_flush_is_refused_for_another_reason(self, memory_engine: sa.Engine) -> None:
        """The flush comes again, and the row is skipped then: once."""
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            new = message(status="COMPLETED")
            session.add(new)
            with pytest.raises(IllegalTransition):
                session.flush()
            session.expunge(new)
            session.flush()
        assert counts(message.status) == {(None, "COMPLETED"): 1, ("PROMOTED", "SPAM_REVIEW"): 1}

    def test_loads_the_object_again_at_once_for_an_async_session(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        """There, an expired attribute could not load itself when it is asked for."""
        message = message_class(on_illegal="skip")
        backend = "sqlite" if async_engine.dialect.name == "sqlite" else "psycopg"
        fill(databases.engine(backend), message, "PROMOTED", "READY", "COMPLETED")

        async def change() -> list[str]:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                messages = (await session.scalars(sa.select(message).order_by(message.id))).all()
                for each in messages:
                    each.status, each.subject = "SPAM_REVIEW", "changed"
                await session.commit()
                return [f"{each.status} {each.subject}" for each in messages]

        assert run(change()) == ["PROMOTED ", "SPAM_REVIEW changed", "COMPLETED "]

    @pytest.mark.parametrize("expired", [False, True], ids=["loaded", "expired"])
    def test_leaves_nothing_of_the_row_behind(self, engine: sa.Engine, expired: bool) -> None:
        """Neither a deferred column, nor a mutable value, nor a link to another row, nor a post_update."""
        base = new_base()
        links = sa.Table(
            "link",
            base.metadata,
            sa.Column("message_id", sa.ForeignKey("message.id"), primary_key=True),
            sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
        )

        class Tag(base):  # type: ignore[misc, valid-type]
            __tablename__ = "tag"
            id = mapped_column(sa.Integer, primary_key=True)

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            notes = deferred(mapped_column(sa.String(20)))
            extra = mapped_column(MutableDict.as_mutable(sa.JSON))
            favourite_id = mapped_column(sa.ForeignKey("tag.id"))
            tags = relationship(Tag, secondary=links)
            favourite = relationship(Tag, post_update=True)

        guard(Message.status, TABLE, on_illegal="skip")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(Tag.__table__), [{"id": 1}])
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "PROMOTED", "extra": {}}])
        with Session(engine, autoflush=False) as session:
            message, tag = session.get_one(Message, 1), session.get_one(Tag, 1)
            message.extra["seen"] = True
            if expired:
                session.expire(message)
            message.status, message.notes, message.favourite = "SPAM_REVIEW", "changed", tag
            message.tags.append(tag)
            session.commit()
        with engine.connect() as connection:
            rows = connection.execute(sa.select(Message.__table__)).all()
            assert [tuple(row) for row in rows] == [(1, "PROMOTED", None, {}, None)]
            assert connection.execute(sa.select(links)).all() == []

    def test_loads_more_objects_again_than_one_query_asks_for(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(
            databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg"),
            message,
            *["PROMOTED"] * 1_001,
        )

        async def change() -> set[str]:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                messages = (await session.scalars(sa.select(message))).all()
                for each in messages:
                    each.status = "SPAM_REVIEW"
                await session.commit()
                return {each.status for each in messages}

        assert run(change()) == {"PROMOTED"}


class TestObserve:
    def test_lets_illegal_moves_pass(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="observe")
        fill(engine, message, "READY", "PROMOTED", "COMPLETED")
        with Session(engine) as session:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            session.commit()
        assert stored(engine, message) == ["SPAM_REVIEW"] * 3

    def test_lets_new_rows_start_anywhere(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="observe")
        fill(engine, message)
        with Session(engine) as session, operation("Import") as op:
            session.add(message(status="COMPLETED"))
            session.commit()
        assert stored(engine, message) == ["COMPLETED"]
        assert op.observed == {(None, "COMPLETED"): 1}

    def test_counts_what_passed_as_observed_and_not_as_blocked(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="observe")
        fill(engine, message, "READY", "PROMOTED", "COMPLETED")
        with Session(engine) as session, operation("Capture") as op:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            session.commit()
        assert op.observed == {("PROMOTED", "SPAM_REVIEW"): 1, ("COMPLETED", "SPAM_REVIEW"): 1}
        assert op.allowed == {("READY", "SPAM_REVIEW"): 1}
        assert op.blocked == counts(message.status) == {}

    def test_counts_nothing_if_the_flush_fails(self, memory_engine: sa.Engine) -> None:
        """The rows have not moved."""
        message = message_class(on_illegal="observe")
        fill(memory_engine, message, "PROMOTED")
        with Session(memory_engine) as session, operation("Capture") as op:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.add(message(id=1))
            with pytest.warns(sa.exc.SAWarning, match="conflicts"), pytest.raises(sa.exc.IntegrityError):
                session.flush()
        assert op.observed == {}

    def test_counts_what_a_listener_changes_in_the_flush(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="observe")
        fill(engine, message, "PROMOTED")

        @sa.event.listens_for(message, "before_update")
        def move(mapper: Any, connection: Any, target: Any) -> None:
            target.status = "SPAM_REVIEW"

        with Session(engine) as session, operation("Capture") as op:
            session.get_one(message, 1).subject = "changed"
            session.commit()
        assert op.observed == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert stored(engine, message) == ["SPAM_REVIEW"]


class TestAnOperation:
    def test_says_what_moved_and_what_was_blocked(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "READY", "PROMOTED", "READY")
        with Session(engine) as session, operation("Spam capture", on_illegal="skip") as op:
            for each in load(session, message):
                each.status = "SPAM_REVIEW"
            session.commit()
        assert str(op) == "Spam capture: 2 moved, 1 blocked (PROMOTED → SPAM_REVIEW: 1)"

    def test_overrules_the_guard(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session, operation("Repair", on_illegal="raise"):
            session.get_one(message, 1).status = "SPAM_REVIEW"
            with pytest.raises(IllegalTransition):
                session.flush()

    def test_leaves_it_to_the_guard_if_it_says_nothing(self, engine: sa.Engine) -> None:
        message = message_class(on_illegal="skip")
        fill(engine, message, "PROMOTED")
        with Session(engine) as session, operation("Repair") as op:
            session.get_one(message, 1).status = "SPAM_REVIEW"
            session.commit()
        assert op.blocked == {("PROMOTED", "SPAM_REVIEW"): 1}

    def test_opens_the_fence_for_statements_in_observe(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with operation("Migration", on_illegal="observe") as op, engine.begin() as connection:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert stored(engine, message) == ["SPAM_REVIEW"]
        assert op.observed == {("PROMOTED", "SPAM_REVIEW"): 1}
        assert op.blocked == counts(message.status) == {}

    def test_closes_the_fence_again_at_its_end(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with operation("Migration", on_illegal="observe"):
            pass
        with operation("Work", on_illegal="skip"), engine.begin() as connection:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        with engine.begin() as connection, pytest.raises(IllegalTransition):
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert stored(engine, message) == ["PROMOTED"]

    def test_counts_legal_moves_even_if_the_transaction_rolls_back(self, memory_engine: sa.Engine) -> None:
        """A block is counted when it happened, and so is a move."""
        message = message_class()
        fill(memory_engine, message, "READY")
        with Session(memory_engine) as session, operation("Promotion") as op:
            session.get_one(message, 1).status = "PROMOTED"
            session.flush()
            session.rollback()
        assert op.allowed == {("READY", "PROMOTED"): 1}

    def test_does_not_count_new_rows_as_moves(self, memory_engine: sa.Engine) -> None:
        message = message_class()
        fill(memory_engine, message)
        with Session(memory_engine) as session, operation("Import") as op:
            session.add(message())
            session.commit()
        assert (op.allowed, op.moved) == ({}, 0)


class TestSkipWith:
    """What could be hurt by leaving a row out of a flush."""

    def test_two_guarded_columns_counts_no_move_of_the_other(self, engine: sa.Engine) -> None:
        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            phase = mapped_column(sa.String(20), default="A")

        guard(Message.status, TABLE, on_illegal="skip")
        guard(Message.phase, TransitionTable("A → B → C"), on_illegal="skip", steps=True)
        fill(engine, Message, "COMPLETED", "READY")
        with Session(engine) as session, operation("Work") as op:
            for each in load(session, Message):
                each.phase = "A"
            session.commit()
            for each in load(session, Message):
                each.status, each.phase = "PROMOTED", "B"
                each.phase = "C"
            session.commit()
            assert [(each.status, each.phase) for each in load(session, Message)] == [
                ("COMPLETED", "A"),
                ("PROMOTED", "C"),
            ]
        assert op.blocked == {("COMPLETED", "PROMOTED"): 1}
        assert op.allowed == {("READY", "PROMOTED"): 1, ("A", "B"): 1, ("B", "C"): 1}

    def test_an_onupdate_function_calls_it_for_real_updates_only(self, engine: sa.Engine) -> None:
        calls: list[int] = []

        class Message(new_base()):  # type: ignore[misc]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            touched = mapped_column(sa.Integer, onupdate=lambda context: calls.append(1) or len(calls))

        guard(Message.status, TABLE, on_illegal="skip")
        fill(engine, Message, "READY")
        with Session(engine) as session:
            session.get_one(Message, 1).status = "PROMOTED"
            session.commit()
        assert len(calls) == 1

    def test_pending_changes_of_another_object_keeps_them(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        base = new_base()

        class Owner(base):  # type: ignore[misc, valid-type]
            __tablename__ = "owner"
            id = mapped_column(sa.Integer, primary_key=True)
            name = mapped_column(sa.String(20))

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            owner_id = mapped_column(sa.ForeignKey("owner.id"))
            owner = relationship(Owner, lazy="joined")

        guard(Message.status, TABLE, on_illegal="skip")
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(Owner.__table__), [{"id": 1, "name": "old"}])
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "COMPLETED", "owner_id": 1}])

        async def change() -> str:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                message = await session.get_one(Message, 1)
                message.owner.name, message.status = "new", "READY"
                await session.commit()
                return message.owner.name

        assert run(change()) == "new"
        with engine.connect() as connection:
            assert connection.scalar(sa.select(Owner.name)) == "new"

    def test_relationships_that_are_loaded_keeps_them_for_an_async_session(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        base = new_base()

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        class Line(base):  # type: ignore[misc, valid-type]
            __tablename__ = "line"
            id = mapped_column(sa.Integer, primary_key=True)
            message_id = mapped_column(sa.ForeignKey("message.id"))

        Message.lines = relationship(Line)
        guard(Message.status, TABLE, on_illegal="skip")
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "COMPLETED"}])
            connection.execute(sa.insert(Line.__table__), [{"id": 1, "message_id": 1}])

        async def change() -> int:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                message = (await session.scalars(sa.select(Message).options(selectinload(Message.lines)))).one()
                message.status = "READY"
                await session.commit()
                return len(message.lines)

        assert run(change()) == 1

    def test_a_child_that_has_lost_its_parent_is_a_delete(self, engine: sa.Engine) -> None:
        base = new_base()

        class Thread(base):  # type: ignore[misc, valid-type]
            __tablename__ = "thread"
            id = mapped_column(sa.Integer, primary_key=True)

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            thread_id = mapped_column(sa.ForeignKey("thread.id"))

        Thread.messages = relationship(Message, cascade="all, delete-orphan")
        guard(Message.status, TABLE, on_illegal="skip")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(Thread.__table__), [{"id": 1}])
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "COMPLETED", "thread_id": 1}])
        with Session(engine, autoflush=False) as session:
            message, thread = session.get_one(Message, 1), session.get_one(Thread, 1)
            message.status = "READY"
            thread.messages.remove(message)
            session.commit()
        assert stored(engine, Message) == []
        assert counts(Message.status) == {}

    @pytest.mark.parametrize("async_engine", ["asyncpg"], indirect=True)
    def test_more_rows_than_a_statement_takes_parameters(self, async_engine: AsyncEngine, databases: Databases) -> None:
        message = message_class(on_illegal="skip")
        engine = databases.engine("psycopg")
        fill(engine, message, *["COMPLETED"] * 33_000)

        async def change() -> int:
            async with AsyncSession(async_engine) as session:
                with operation("Work") as op:
                    for each in await session.scalars(sa.select(message)):
                        each.status = "READY"
                    await session.commit()
                return op.blocked.total()

        assert run(change()) == 33_000

    @pytest.mark.parametrize("mode", ["raise", "skip", "observe"])
    def test_sessions_over_several_databases(self, tmp_path: Any, mode: Any) -> None:
        message = message_class(on_illegal=mode)
        engines = {name: sa.create_engine(f"sqlite:///{tmp_path / name}") for name in ("north", "south")}
        for engine in engines.values():
            fill(engine, message, "READY", "PROMOTED")

        def by_token(mapper: Any, instance: Any, clause: Any = None) -> str:
            return str(sa.inspect(instance).identity_token)

        with (
            ShardedSession(
                shards=engines,
                shard_chooser=by_token,
                identity_chooser=lambda *args, **kw: list(engines),
                execute_chooser=lambda context: list(engines),
            ) as session,
            operation("Work") as op,
        ):
            for each in session.scalars(sa.select(message)).all():
                each.status = "PROMOTED" if each.status == "READY" else "SPAM_REVIEW"
            if mode == "raise":
                with pytest.raises(IllegalTransition):
                    session.flush()
                assert op.blocked.total() == 2
            else:
                session.commit()
                assert op.allowed == {("READY", "PROMOTED"): 2}
                assert (op.blocked + op.observed) == {("PROMOTED", "SPAM_REVIEW"): 2}
        for engine in engines.values():
            engine.dispose()

    def test_a_row_in_a_state_that_the_columns_enum_does_not_know_names_it(self, engine: sa.Engine) -> None:
        message = message_class(type_=sa.Enum(Status, native_enum=False), on_illegal="skip")
        fill(engine, message, Status.READY)
        with Session(engine) as session:
            one = session.get_one(message, 1)
            with engine.begin() as connection:
                connection.execute(sa.text("UPDATE message SET status = 'LEGACY'"))
            one.status = Status.PROMOTED
            session.flush()
        assert counts(message.status) == {("LEGACY", "PROMOTED"): 1}

    def test_rows_that_are_held_lets_others_refer_to_them(self, postgres_engine: sa.Engine) -> None:
        base = new_base()

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        class Part(base):  # type: ignore[misc, valid-type]
            __tablename__ = "part"
            id = mapped_column(sa.Integer, primary_key=True)
            message_id = mapped_column(sa.ForeignKey("message.id"))

        guard(Message.status, TABLE, on_illegal="skip")
        base.metadata.create_all(postgres_engine)
        with postgres_engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "READY"}])
        with Session(postgres_engine) as session, postgres_engine.connect() as other:
            session.get_one(Message, 1).status = "PROMOTED"
            session.flush()
            other.execute(sa.text("SET lock_timeout = '500ms'"))
            other.execute(sa.insert(Part.__table__), [{"id": 1, "message_id": 1}])
            other.rollback()

    def test_a_collection_that_is_loaded_with_its_owner_loads_the_object_again(
        self, async_engine: AsyncEngine, databases: Databases
    ) -> None:
        base = new_base()

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))

        class Part(base):  # type: ignore[misc, valid-type]
            __tablename__ = "part"
            id = mapped_column(sa.Integer, primary_key=True)
            message_id = mapped_column(sa.ForeignKey("message.id"))

        Message.parts = relationship(Part, lazy="joined")
        guard(Message.status, TABLE, on_illegal="skip")
        engine = databases.engine("sqlite" if async_engine.dialect.name == "sqlite" else "psycopg")
        base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "PROMOTED"}])
            connection.execute(sa.insert(Part.__table__), [{"id": 1, "message_id": 1}, {"id": 2, "message_id": 1}])

        async def change() -> tuple[str, int]:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                message = await session.get_one(Message, 1)
                message.status = "SPAM_REVIEW"
                await session.commit()
                return message.status, len(message.parts)

        assert run(change()) == ("PROMOTED", 2)


def test_writing_the_state_that_an_expired_row_has_is_an_update_as_without_a_guard(engine: sa.Engine) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20))
        updates = mapped_column(sa.Integer, default=0, onupdate=sa.text("updates + 1"))

    guard(Message.status, TABLE)
    Message.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(unguarded(Message)), [{"id": 1, "status": "COMPLETED"}])
    with Session(engine) as session:
        message = session.get_one(Message, 1)
        session.expire(message)
        message.status = "COMPLETED"
        session.commit()
        assert message.updates == 1


def test_a_dictionary_of_info_that_columns_share_guards_only_one_of_them() -> None:
    shared = {"export": True}

    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20), info=shared)
        subject = mapped_column(sa.String(20), info=shared)

    guard(Message.status, TABLE)
    assert Message.__table__.c.status.info["export"]
    with pytest.raises(StatekitError, match="subject has no guard"):
        counts(Message.subject)
