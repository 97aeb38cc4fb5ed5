"""Has ``--autogenerate`` and ``alembic check`` compare the declared triggers with those of the database."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops

from statekit.alembic.filters import Filters
from statekit.alembic.ops import CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp
from statekit.errors import show_states
from statekit.trigger import StateTrigger, dialects
from statekit.trigger.catalog import Installed, default_schema, installed
from statekit.trigger.status import declared_in

try:
    from alembic.util import DispatchPriority

    _LAST: dict[str, Any] = {"priority": DispatchPriority.LAST}  # after the tables
except ImportError:  # before Alembic 1.18, in the order of registration
    _LAST = {}

_log = logging.getLogger("alembic.autogenerate.statekit")
"""Below Alembic's own logger, so that its configuration shows what was detected."""


_DETECTED = {CreateStateTriggerOp: "added", ReplaceStateTriggerOp: "changed", DropStateTriggerOp: "removed"}


class Place(NamedTuple):
    """A column of a database.

    Attributes:
        schema: as Alembic has it: None for the default one.
        table: name of the table.
        column: name of the column.
    """

    schema: str | None
    table: str
    column: str

    def __str__(self) -> str:
        return ".".join(part for part in self if part is not None)


@comparators.dispatch_for("schema", **_LAST)
def compare_state_triggers(context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]) -> None:
    """Add what makes the triggers of the database those that are declared.

    What removes a trigger comes before all other operations, what makes one after them: tables, columns and types are
    changed in between, while no trigger stands in the way. Reversed, this is the right order for the downgrade too.

    Args:
        context: Alembic's.
        upgrade: the operations so far, those for tables and columns among them.
        schemas: the schemas that are compared, None for the default one.
    """
    connection = context.connection
    if connection is None or not dialects.is_supported(connection.dialect):
        return
    default = default_schema(connection)
    metadata = [context.metadata] if isinstance(context.metadata, sa.MetaData) else context.metadata or []

    def place(schema: str | None, table: str, column: str) -> Place:
        return Place(None if schema == default else schema, table, column)

    declared = {
        place(trigger.schema, trigger.table, trigger.column): trigger.among(default)
        for trigger in declared_in(*metadata)
    }
    there: dict[Place, list[Installed]] = {}
    for each in installed(connection):
        there.setdefault(place(each.schema, each.table, each.trigger.column), []).append(each)
    new_types = {place(each.schema, each.table_name, each.column_name) for each in _changed_types(upgrade)}
    includes = Filters(context, upgrade, schemas, default)
    before: list[MigrateOperation] = []
    after: list[MigrateOperation] = []
    for where in [*declared, *(place for place in there if place not in declared)]:
        first, last = _changes(where, declared.get(where), there.get(where, []), where in new_types)
        if (first or last) and includes(*where):
            before += first
            after += last
            for operation in (*first, *last):
                if isinstance(operation, ReplaceStateTriggerOp):
                    _note_labels(operation, includes.reflected(where.schema, where.table))
                _log.info("Detected %s state trigger on '%s'", _DETECTED[type(operation)], where)
    upgrade.ops[:] = [*before, *upgrade.ops, *after]


def _changed_types(upgrade: ops.UpgradeOps) -> Iterable[ops.AlterColumnOp]:
    for container in upgrade.ops:
        if isinstance(container, ops.ModifyTableOps):
            yield from (
                each for each in container.ops if isinstance(each, ops.AlterColumnOp) and each.modify_type is not None
            )


Change = tuple[list[MigrateOperation], list[MigrateOperation]]


def _changes(place: Place, declared: StateTrigger | None, found: list[Installed], has_new_type: bool) -> Change:
    """Return the operations for a column: those before all others, and those after them."""
    there = next((each for each in found if declared is not None and each.trigger.name == declared.name), None)
    # Another name is another trigger: made for another schema, or before the table or the column was renamed.
    first: list[MigrateOperation] = [DropStateTriggerOp.of(each.trigger) for each in found if each is not there]
    if declared is None or there is None:
        return first, [] if declared is None else [CreateStateTriggerOp(declared)]
    if has_new_type:  # PostgreSQL changes no type of a column that a trigger looks at
        return [*first, DropStateTriggerOp.of(there.trigger)], [CreateStateTriggerOp(declared)]
    operations: list[MigrateOperation] = []
    if there.trigger != declared:
        lost = [state for state in there.trigger.states if state not in declared.states]
        note = (
            f"Rows in {show_states(lost)} could not move any more: are there any, or was a state renamed?"
            if lost
            else ""
        )
        operations.append(ReplaceStateTriggerOp(declared, there.trigger, note))
    if there.problems:
        details = "; ".join(problem.detail for problem in there.problems)
        note = f"In the database, {details}. This makes the trigger on {place} anew."
        operations.append(ReplaceStateTriggerOp(declared, declared, note))
    return first, operations


def _note_labels(operation: ReplaceStateTriggerOp, table: sa.Table | None) -> None:
    """Note which labels a native enum lacks for a new rule: Alembic does not compare them."""
    type_ = None if table is None else getattr(table.columns.get(operation.trigger.column), "type", None)
    if not isinstance(type_, sa.Enum) or type_.name is None:
        return
    missing = [state for state in operation.trigger.states if state is not None and state not in type_.enums]
    if missing:
        note = (
            f"The type {type_.name} lacks {show_states(missing)}: ALTER TYPE ... ADD VALUE IF NOT EXISTS before this."
        )
        operation.note = f"{note} {operation.note}".strip()
