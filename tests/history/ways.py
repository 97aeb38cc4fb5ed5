"""Ways to write rows, and the check of what their history says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from statekit import ledger, operation
from tests.guards.inbox import load, message_class

Way = Callable[[sa.Engine, Any], None]


def inbox(engine: sa.Engine, *, trigger: bool = False, **options: Any) -> Any:
    """Return a class Message with a history, and make its tables: the trigger writes it, or the guard."""
    message = message_class(history=True, trigger=True if trigger else None, **options)
    ledger.add_to(message.metadata)
    message.metadata.create_all(engine)
    return message


def rows(engine: sa.Engine, *names: str) -> list[Any]:
    """Return columns of the history, in the order in which it was written; the key as a list."""
    table = ledger.add_to(sa.MetaData()).history
    with engine.connect() as connection:
        found = connection.execute(sa.select(*(table.c[name] for name in names)).order_by(table.c.id)).all()
    read = [tuple(json.loads(v) if n == "key" else v for n, v in zip(names, row, strict=True)) for row in found]
    return [row[0] for row in read] if len(names) == 1 else read


def check(engine: sa.Engine, message: Any) -> int:
    """Check that the history, replayed, gives the rows as they are; return how many moves it has."""
    states: dict[str, Any] = {}
    number = 0
    for (key,), source, target, is_new in rows(engine, "key", "source", "target", "is_new"):
        number += 1
        if is_new:
            assert key not in states, f"row {key} was made twice"
            assert source is None
        else:
            assert key in states, f"row {key} has moved before it was made"
            assert states[key] == source, f"row {key} left {source}, and was in {states[key]}"
            assert source != target, f"row {key} has stayed"
        states[key] = target
    table = message.__table__
    with engine.connect() as connection:
        there = {str(key): state for key, state in connection.execute(sa.select(table.c.id, table.c.status))}
    assert states == there
    return number


def skipping(session_or_connection: Any, statement: Any, parameters: Any = None) -> Any:
    """Execute a statement that leaves illegal rows out."""
    with operation("skip", on_illegal="skip"):
        return session_or_connection.execute(statement, parameters)


def insert_of(engine: sa.Engine, message: Any) -> Any:
    """Return an INSERT that knows ON CONFLICT."""
    kind = postgresql if engine.dialect.name == "postgresql" else sqlite
    return kind.insert(message.__table__)


# --- new rows ---------------------------------------------------------------------------------------------------------


def add(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        session.add_all([message(), message(), message(status="READY")])
        session.commit()


def core_insert_of_one(engine: sa.Engine, message: Any) -> None:
    with engine.begin() as connection:
        result = connection.execute(sa.insert(message.__table__))
        assert result.inserted_primary_key is not None


def core_insert_of_several(engine: sa.Engine, message: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(message.__table__), [{"subject": "a"}, {"subject": "b"}])


def core_insert_with_keys(engine: sa.Engine, message: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(message.__table__), [{"id": 101}, {"id": 102}])


def core_insert_of_several_values(engine: sa.Engine, message: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(message.__table__).values([{"subject": "a"}, {"subject": "b"}]))


def core_insert_returning(engine: sa.Engine, message: Any) -> None:
    table = message.__table__
    with engine.begin() as connection:
        result = connection.execute(sa.insert(table).returning(table.c.subject, table.c.id), [{"subject": "a"}] * 2)
        assert [row.subject for row in result] == ["a", "a"]


def insert_from_select(engine: sa.Engine, message: Any) -> None:
    table = message.__table__
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"id": 1}, {"id": 2}])
        more = sa.select(table.c.id + 10, table.c.status)
        connection.execute(sa.insert(table).from_select(["id", "status"], more))


def orm_bulk_insert(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        session.execute(sa.insert(message), [{"subject": "a"}, {"subject": "b"}])
        session.commit()


def orm_bulk_insert_returning(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session:
        made = session.scalars(sa.insert(message).returning(message), [{"subject": "a"}, {"subject": "b"}]).all()
        assert [each.subject for each in made] == ["a", "b"]
        session.commit()


# --- rows that move ---------------------------------------------------------------------------------------------------


def start(engine: sa.Engine, message: Any, number: int = 4) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(message.__table__), [{"id": each} for each in range(1, number + 1)])


def flush(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with Session(engine) as session:
        for number, each in enumerate(load(session, message)):
            each.status = "PROMOTED" if number % 2 else "SPAM_REVIEW"
        session.commit()
        for each in load(session, message):
            each.subject = "changed"
            if each.status == "PROMOTED":
                each.status = "COMPLETED"
        session.commit()


def flush_of_new_and_old(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with Session(engine) as session:
        session.get(message, 1).status = "PROMOTED"
        session.add(message(id=50))
        session.flush()
        session.add(message(id=51))
        session.rollback()
        session.get(message, 1).status = "SPAM_REVIEW"
        session.add(message(id=52))
        session.commit()


def orm_update(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with Session(engine) as session:
        session.execute(sa.update(message).where(message.id < 3).values(status="PROMOTED"))
        skipping(session, sa.update(message).values(status="SPAM_REVIEW"))
        session.commit()


def core_update_of_one(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with engine.begin() as connection:
        connection.execute(sa.update(message.__table__).where(message.__table__.c.id == 2).values(status="PROMOTED"))


def update_by_key(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with Session(engine) as session:
        session.execute(sa.update(message), [{"id": 1, "status": "PROMOTED"}, {"id": 3, "status": "SPAM_REVIEW"}])
        session.commit()


def executemany(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    table = message.__table__
    with engine.begin() as connection:
        statement = sa.update(table).where(table.c.id == sa.bindparam("row")).values(status=sa.bindparam("state"))
        skipping(connection, statement, [{"row": 1, "state": "PROMOTED"}, {"row": 2, "state": "COMPLETED"}])
        later = sa.update(table).where(table.c.status == sa.bindparam("was")).values(status=sa.bindparam("state"))
        skipping(connection, later, [{"was": "READY", "state": "PROMOTED"}, {"was": "PROMOTED", "state": "COMPLETED"}])


def update_by_expression(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    table = message.__table__
    state = sa.case((table.c.id < 3, "PROMOTED"), else_="SPAM_REVIEW")
    with engine.begin() as connection:
        connection.execute(sa.update(table).values(status=state))


def update_returning(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    table = message.__table__
    with engine.begin() as connection:
        result = connection.execute(sa.update(table).values(status="PROMOTED").returning(table.c.id))
        assert len(result.all()) == 4


# --- upserts ----------------------------------------------------------------------------------------------------------


def upsert(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    insert = insert_of(engine, message)
    insert = insert.on_conflict_do_update(index_elements=["id"], set_={"status": "PROMOTED"})
    with engine.begin() as connection:
        connection.execute(insert, [{"id": 2}, {"id": 60}])
        connection.execute(insert, {"id": 61})
        connection.execute(insert, [{"id": 61}, {"id": 62}])


def upsert_to_proposed(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    with engine.begin() as connection:
        connection.execute(sa.update(message.__table__).values(status="PROMOTED"))
    insert = insert_of(engine, message)
    insert = insert.on_conflict_do_update(index_elements=["id"], set_={"subject": insert.excluded.subject})
    with engine.begin() as connection:
        connection.execute(insert.values([{"id": 1, "subject": "x"}, {"id": 70, "subject": "y"}]))


def upsert_do_nothing(engine: sa.Engine, message: Any) -> None:
    start(engine, message)
    insert = insert_of(engine, message).on_conflict_do_nothing()
    with engine.begin() as connection:
        connection.execute(insert, [{"id": 1}, {"id": 80}, {"id": 80}])


WAYS: Iterable[Way] = [
    add, core_insert_of_one, core_insert_of_several, core_insert_with_keys, core_insert_of_several_values,
    core_insert_returning, insert_from_select, orm_bulk_insert, orm_bulk_insert_returning, flush, flush_of_new_and_old,
    orm_update, core_update_of_one, update_by_key, executemany, update_by_expression, update_returning, upsert,
    upsert_to_proposed, upsert_do_nothing,
]  # fmt: skip
