"""The ledger's tables in the application's own MetaData."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations

from statekit import TableError, ledger


def test_are_added_to_the_metadata() -> None:
    metadata = sa.MetaData()
    tables = ledger.add_to(metadata)
    assert set(metadata.tables) == {
        "statekit_ledger",
        "statekit_ledger_pruned",
        "statekit_history",
        "statekit_job",
        "statekit_job_worker",
    }
    assert tables.ledger is metadata.tables["statekit_ledger"]


def test_are_added_once() -> None:
    metadata = sa.MetaData()
    assert ledger.add_to(metadata) == ledger.add_to(metadata)


def test_stand_in_a_schema_of_their_own() -> None:
    metadata = sa.MetaData()
    ledger.add_to(metadata, schema="audit")
    assert all(table.schema == "audit" for table in metadata.tables.values())
    assert len(metadata.tables) == 5


def test_stand_in_the_schema_of_the_metadata() -> None:
    metadata = sa.MetaData(schema="app")
    tables = ledger.add_to(metadata)
    assert tables == ledger.add_to(metadata)
    assert tables.ledger.fullname == "app.statekit_ledger"


def test_do_not_take_another_table_for_theirs() -> None:
    metadata = sa.MetaData()
    sa.Table("statekit_ledger", metadata, sa.Column("id", sa.Integer))
    with pytest.raises(TableError, match=r"has a table statekit_ledger already.*schema of its own"):
        ledger.add_to(metadata)


def test_nothing_is_added_where_one_of_them_is_another_table() -> None:
    metadata = sa.MetaData()
    sa.Table("statekit_ledger_pruned", metadata, sa.Column("id", sa.Integer))
    with pytest.raises(TableError):
        ledger.add_to(metadata)
    assert set(metadata.tables) == {"statekit_ledger_pruned"}


def test_what_is_no_metadata_is_refused(base: Any) -> None:
    with pytest.raises(TableError, match=r"allowed is a MetaData, such as Base.metadata"):
        ledger.add_to(base)


@pytest.mark.parametrize(
    "conventions", [None, {"ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s", "pk": "pk_%(table_name)s"}]
)
def test_are_delivered_by_autogenerate_which_then_finds_nothing_more(engine: sa.Engine, conventions: Any) -> None:
    metadata = sa.MetaData(naming_convention=conventions)
    ledger.add_to(metadata)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        operations = Operations(context)
        script = produce_migrations(context, metadata)
        assert script.upgrade_ops is not None
        for each in script.upgrade_ops.ops:
            for operation in getattr(each, "ops", [each]):
                operations.invoke(operation)
        again = produce_migrations(context, metadata)
        assert again.upgrade_ops is not None
        assert again.upgrade_ops.ops == []


def test_entries_are_found_by_time_through_an_index(engine: sa.Engine) -> None:
    metadata = sa.MetaData()
    ledger.add_to(metadata)
    metadata.create_all(engine)
    indexed = {tuple(index["column_names"]) for index in sa.inspect(engine).get_indexes("statekit_ledger")}
    assert {("at",), ("kind", "at")} <= indexed
