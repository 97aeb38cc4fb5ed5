"""Which row a trigger has refused: its primary key, as the model has it."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from statekit import IllegalTransition, guard
from tests.guards.inbox import TABLE
from tests.support.databases import on_postgresql_async, run
from tests.trigger.messages import inbox, refused


def keyed(*columns: sa.Column[Any]) -> sa.Table:
    """Return a table with this primary key and a guarded status, without a mapper."""
    table = sa.Table("keyed", sa.MetaData(), *columns, sa.Column("status", sa.String(20)))
    guard(table.c.status, TABLE, trigger=True)
    return table


class Colour(enum.Enum):
    RED = "r"


KEY = uuid.UUID("b5f0b5d4-5f0e-4b2b-9d0a-0123456789ab")
KEYS: dict[str, tuple[Callable[[], list[sa.Column[Any]]], tuple[Any, ...]]] = {
    "int": (lambda: [sa.Column("id", sa.Integer, primary_key=True)], (7,)),
    "a large int": (lambda: [sa.Column("id", sa.BigInteger, primary_key=True)], (2**63 - 1,)),
    "text": (lambda: [sa.Column("id", sa.Text, primary_key=True)], ("a 'b' \"c\" \\ \n %s {x} → 🎉",)),
    "UUID": (lambda: [sa.Column("id", sa.Uuid, primary_key=True)], (KEY,)),
    "UUID as text": (lambda: [sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True)], (str(KEY),)),
    "date": (lambda: [sa.Column("id", sa.Date, primary_key=True)], (dt.date(2024, 2, 29),)),
    "timestamp": (
        lambda: [sa.Column("id", sa.DateTime, primary_key=True)],
        (dt.datetime(2024, 2, 29, 12, 30, 1, 250),),
    ),
    "timestamp with time zone": (
        lambda: [sa.Column("id", sa.DateTime(timezone=True), primary_key=True)],
        (dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),),
    ),
    "time": (lambda: [sa.Column("id", sa.Time, primary_key=True)], (dt.time(12, 30),)),
    "numeric": (
        lambda: [sa.Column("id", sa.Numeric(30, 10), primary_key=True, autoincrement=False)],
        (Decimal("12345678901234.5678"),),
    ),
    "boolean": (lambda: [sa.Column("id", sa.Boolean, primary_key=True)], (True,)),
    "bytes": (lambda: [sa.Column("id", sa.LargeBinary, primary_key=True)], (b"\x00\xff",)),
    "enum": (lambda: [sa.Column("id", sa.Enum(Colour, name="colour"), primary_key=True)], (Colour.RED,)),
    "composite": (
        lambda: [sa.Column("tenant", sa.Text, primary_key=True), sa.Column("id", sa.Uuid, primary_key=True)],
        ("eu", KEY),
    ),
    "composite of another name": (
        lambda: [
            sa.Column("Id No", sa.Integer, key="id", primary_key=True),
            sa.Column("day", sa.Date, primary_key=True),
        ],
        (7, dt.date(2024, 1, 1)),
    ),
}


class TestTheIdentity:
    @pytest.mark.parametrize("kind", KEYS)
    def test_is_that_of_the_object(self, postgres_engine: sa.Engine, kind: str) -> None:
        columns, values = KEYS[kind]
        table = keyed(*columns())
        table.metadata.create_all(postgres_engine)
        key = dict(zip(table.primary_key.columns.keys(), values, strict=True))
        with postgres_engine.begin() as connection:
            connection.execute(sa.insert(table).values(key | {"status": "READY"}))
        error = refused(postgres_engine, "UPDATE keyed SET status = 'COMPLETED'")
        assert error.identity == values
        assert [type(part) for part in error.identity or ()] == [type(part) for part in values]

    @on_postgresql_async
    def test_is_that_of_the_object_on_async_drivers(self, async_engine: AsyncEngine) -> None:
        columns, values = KEYS["composite"]
        table = keyed(*columns())

        async def attempt() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(table.metadata.create_all)
                row = {"tenant": values[0], "id": values[1], "status": "READY"}
                await connection.execute(sa.insert(table).values(row))
                await connection.execute(sa.text("UPDATE keyed SET status = 'COMPLETED'"))

        with pytest.raises(IllegalTransition) as caught:
            run(attempt())
        assert caught.value.identity == values

    def test_is_not_known_without_a_primary_key(self, postgres_engine: sa.Engine) -> None:
        inbox(postgres_engine, ddl="CREATE TABLE mail (id integer, status text, subject text DEFAULT '')")
        error = refused(postgres_engine, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert error.identity is None

    def test_is_that_of_the_row_as_it_was(self, postgres_engine: sa.Engine) -> None:
        inbox(postgres_engine)
        assert refused(postgres_engine, "UPDATE mail SET id = 70, status = 'READY' WHERE id = 3").identity == (3,)
