"""What an illegal move leads to: "raise", "skip", "observe", for a guard and for a block of work."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import Session, deferred, mapped_column, relationship

from statekit import IllegalTransition, counts, guard, operation
from tests.guards.inbox import TABLE, fill, load, message_class, new_base, stored
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
            connection.execute(sa.insert(Message.__table__), [{"id": 1, "status": "PROMOTED", "extra": {}}])
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
        with operation("Migration", on_illegal="observe"), engine.begin() as connection:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert stored(engine, message) == ["SPAM_REVIEW"]

    def test_closes_the_fence_again_at_its_end(self, engine: sa.Engine) -> None:
        message = message_class()
        fill(engine, message, "PROMOTED")
        with operation("Migration", on_illegal="observe"):
            pass
        with engine.begin() as connection:
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
