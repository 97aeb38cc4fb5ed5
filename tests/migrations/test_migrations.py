"""The environment in ``migrations/``: up and down, step by step, by Alembic and by the script that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from statekit import IllegalTransition
from statekit.trigger.catalog import blocked, installed
from tests.alembic.messages import left_behind, problems
from tests.migrations.environment import FOLDER, STEPS, Step, config, migrate
from tests.support.databases import execute, on_postgresql

STATES = ("READY", "SPAM_REVIEW", "PROMOTED", "ASSIGNED", "COMPLETED", "ARCHIVED", "UNHEARD_OF")

INSERT = "INSERT INTO message (id, sender, subject, status) VALUES ({number}, 'a', 'b', '{state}')"


def is_as_declared(engine: sa.Engine, step: Step) -> None:
    """Table and trigger are those of the model, as Alembic and as statekit see it."""
    metadata = step.metadata()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert problems(engine, metadata) == []


def legal_moves(engine: sa.Engine, step: Step) -> Iterator[tuple[str, str]]:
    """Yield the moves that the database lets through, among all that can be tried; it stays as it was."""
    for source in STATES:
        for target in STATES:
            with engine.connect() as connection:
                way = (source,) if step.table is None else path(step, source)
                if way is None:
                    continue
                connection.exec_driver_sql(INSERT.format(number=1, state=way[0]))
                for state in way[1:]:
                    connection.exec_driver_sql(f"UPDATE message SET status = '{state}'")
                try:
                    connection.exec_driver_sql(f"UPDATE message SET status = '{target}'")
                except IllegalTransition:
                    continue
                yield source, target


def path(step: Step, state: str) -> tuple[str, ...] | None:
    """Return the states in which a new message comes into a state; None if none does."""
    assert step.table is not None
    if state not in map(str, step.table.states):
        return None
    way = ["READY"]
    while way[-1] != state:
        way.append(next(str(to) for to in step.table.targets(way[-1]) if str(to) == state or leads(step, to, state)))
    return tuple(way)


def leads(step: Step, source: Any, target: str) -> bool:
    assert step.table is not None
    return any(str(to) == target or leads(step, to, target) for to in step.table.targets(source))


def expected_moves(step: Step) -> set[tuple[str, str]]:
    """Return the moves that a revision allows, staying included."""
    if step.table is None:
        return {(source, target) for source in STATES for target in STATES}
    moves = {(str(source), str(target)) for source, target in step.table.pairs}
    return moves | {(str(state), str(state)) for state in step.table.states}


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
def test_each_step_up_and_down_leaves_what_is_declared(engine: sa.Engine, offline: bool) -> None:
    """Through Alembic, and through the script: the same table, the same trigger, and nothing at the end."""
    previous = "base"
    for step in STEPS:
        migrate(engine, previous, step.revision, offline=offline)
        is_as_declared(engine, step)
        previous = step.revision
    for step, before in zip(reversed(STEPS), [*reversed(STEPS[:-1]), None], strict=True):
        migrate(engine, step.revision, before.revision if before else "base", offline=offline, down=True)
        if before is not None:
            is_as_declared(engine, before)
    assert left_behind(engine) == []
    assert set(sa.inspect(engine).get_table_names()) <= {"alembic_version"}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.revision)
def test_moves_are_held_as_the_revision_says(engine: sa.Engine, step: Step) -> None:
    """Every move is tried: legal is what the revision lists, before the guard and after it everything."""
    command.upgrade(config(engine), step.revision)
    assert set(legal_moves(engine, step)) == expected_moves(step)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.revision)
def test_a_migrated_database_equals_a_fresh_one(engine: sa.Engine, step: Step) -> None:
    """create_all() of the model of that revision makes the same tables, columns and triggers."""
    command.upgrade(config(engine), step.revision)
    migrated = snapshot(engine)
    command.downgrade(config(engine), "base")
    step.metadata(trigger=True).create_all(engine)
    assert migrated == snapshot(engine)


def snapshot(engine: sa.Engine) -> Any:
    """Return what a database is made of, Alembic's own table aside."""
    inspector = sa.inspect(engine)
    with engine.connect() as connection:
        triggers = [(each.schema, each.table, each.trigger, each.problems) for each in installed(connection)]
    tables = {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
            inspector.get_pk_constraint(name)["constrained_columns"],
        )
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }
    return tables, triggers


def rows(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT status FROM message ORDER BY id")))


def test_a_renamed_state_is_renamed_in_the_rows(engine: sa.Engine) -> None:
    """Past the trigger, which counts none of it; and back again."""
    command.upgrade(config(engine), "0003")
    execute(engine, *(INSERT.format(number=number, state="READY") for number in (1, 2)))
    execute(engine, "UPDATE message SET status = 'PROMOTED' WHERE id = 2")
    command.upgrade(config(engine), "0004")
    assert rows(engine) == ["READY", "ASSIGNED"]
    with engine.connect() as connection:
        assert blocked(connection) == {}
    command.downgrade(config(engine), "0003")
    assert rows(engine) == ["READY", "PROMOTED"]


def test_an_added_state_is_taken_back_from_the_rows(engine: sa.Engine) -> None:
    """The downgrade leaves no message in a state that the old rule does not know."""
    command.upgrade(config(engine), "0003")
    execute(engine, INSERT.format(number=1, state="READY"))
    for state in ("PROMOTED", "COMPLETED", "ARCHIVED"):
        execute(engine, f"UPDATE message SET status = '{state}'")
    command.downgrade(config(engine), "0002")
    assert rows(engine) == ["COMPLETED"]


@on_postgresql
def test_a_renaming_that_fails_leaves_the_old_rule(engine: sa.Engine) -> None:
    """All of it is one transaction: the rule in between is never there alone."""
    command.upgrade(config(engine), "0003")
    execute(engine, INSERT.format(number=1, state="READY"), "UPDATE message SET status = 'PROMOTED'")
    execute(engine, "ALTER TABLE message ADD CHECK (status <> 'ASSIGNED')")
    with pytest.raises(sa.exc.IntegrityError):
        command.upgrade(config(engine), "0004")
    assert rows(engine) == ["PROMOTED"]
    assert problems(engine, STEPS[2].metadata()) == []


@pytest.mark.parametrize(
    "name",
    ["test_single_head_revision", "test_upgrade", "test_model_definitions_match_ddl", "test_up_down_consistency"],
)
def test_pytest_alembic_passes(engine: sa.Engine, name: str) -> None:
    """What every project may ask of its migrations."""
    pytest_alembic = pytest.importorskip("pytest_alembic")
    from pytest_alembic import tests

    made = pytest_alembic.Config(config_options={"file": str(FOLDER / "alembic.ini")})
    with pytest_alembic.runner(config=made, engine=engine) as runner:
        getattr(tests, name)(runner)
