"""Executes the operations: on a connection, or into the script that ``--sql`` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic.operations import Operations

from statekit.alembic.ops import CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp
from statekit.errors import StatekitError
from statekit.trigger import dialects


@Operations.implementation_for(CreateStateTriggerOp)
def _create(operations: Operations, operation: CreateStateTriggerOp) -> None:
    execute(operations, operation.trigger.create_sql)


@Operations.implementation_for(ReplaceStateTriggerOp)
def _replace(operations: Operations, operation: ReplaceStateTriggerOp) -> None:
    trigger, old = operation.trigger, operation.old
    if trigger == old:
        execute(operations, trigger.create_sql)
    else:
        execute(operations, lambda dialect: trigger.replace_sql(old, dialect))


@Operations.implementation_for(DropStateTriggerOp)
def _drop(operations: Operations, operation: DropStateTriggerOp) -> None:
    execute(operations, operation.target.drop_sql)


def execute(operations: Operations, sql: Callable[[Any], tuple[str, ...]]) -> None:
    """Execute the statements of a trigger, one after another, or write them out.

    Args:
        operations: Alembic's, of the migration that is running.
        sql: such as the method :meth:`StateTrigger.create_sql` of a trigger.

    Raises:
        StatekitError: there are no state triggers for this database.
    """
    context = operations.get_context()
    if not dialects.is_supported(context.dialect):
        # Not in silence: the migration would say that the table is guarded.
        raise StatekitError(
            f"There are no state triggers for {context.dialect.name!r}; there are for "
            f"{' and '.join(dialects.SUPPORTED)}. Where a migration runs on other databases too, put this operation "
            f"below `if op.get_context().dialect.name in {dialects.SUPPORTED!r}:`."
        )
    for statement in sql(context.dialect):
        if context.as_sql:
            # Not impl.execute(): it would take colons for parameters, and make spaces of the tabs inside of texts.
            context.impl.static_output(statement + context.impl.command_terminator)
        else:
            # Without parameters, no driver looks for any in the text.
            operations.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
