"""The keys of the rows that an INSERT has made, where the guard writes their history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult

from statekit.errors import StatekitError
from statekit.guards import history
from statekit.guards.guard import Guard
from statekit.guards.history import Key
from statekit.guards.statements.execution import Execution


def wants_keys(execution: Execution, guards: Iterable[Guard]) -> bool:
    """Return whether the guard writes the history of new rows, because no trigger does."""
    return any(history.is_ours(execution.connection, guard) for guard in guards)


def run(execution: Execution, primary_key: Sequence[Any]) -> tuple[CursorResult[Any], list[Key]]:
    """Execute an INSERT and return the keys of the rows that it has written, with its result.

    The database is asked for them where the statement does not, by RETURNING.

    Raises:
        StatekitError: the statement's own RETURNING leaves the primary key out. The rows are written.
    """
    statement = execution.resolved
    if _is_one_row(execution):
        result = execution.run(execution.parameters)
        return result, [tuple(result.inserted_primary_key or ())]
    if statement._return_defaults and not statement._returning:
        result = execution.run(execution.parameters)
        return result, [tuple(key or ()) for key in result.inserted_primary_key_rows]
    asks = not statement._returning
    if asks and len(execution.sets) > 1 and not execution.connection.dialect.insert_executemany_returning:
        return _one_by_one(execution, primary_key)
    result = (execution.of(statement.returning(*primary_key)) if asks else execution).run(execution.parameters)
    rows = result.fetchall()
    try:
        keys = [tuple(row._mapping[column] for column in primary_key) for row in rows]
    except sa.exc.NoSuchColumnError:
        raise StatekitError(
            f"The history of new rows in {primary_key[0].table} needs their keys, and the RETURNING of this INSERT "
            f"leaves them out. Roll back, and let it return {', '.join(column.key for column in primary_key)} too."
        ) from None
    if asks:
        result.rowcount = len(rows)
    else:
        result._rewind(rows)
    return result, keys


def _one_by_one(execution: Execution, primary_key: Sequence[Any]) -> tuple[CursorResult[Any], list[Key]]:
    """Execute an INSERT once for each set of parameters, where the driver gives nothing back of several at once."""
    found: list[Key] = []
    for parameters in execution.parameters:
        result, keys = run(execution.only(parameters), primary_key)
        found += keys
    result.rowcount = len(found)
    return result, found


def _is_one_row(execution: Execution) -> bool:
    statement = execution.resolved
    return (
        len(execution.sets) == 1
        and not statement._multi_values
        and statement.select is None
        and not statement._returning
        and not statement._return_defaults
        and not statement._inline
        and statement._post_values_clause is None
    )


def write_history(
    execution: Execution, guards: Iterable[Guard], table: Any, key: Sequence[Any], rows: list[Key]
) -> None:
    """Write the history of new rows.

    Args:
        execution: of the INSERT.
        guards: of the table.
        table: the table.
        key: its primary key.
        rows: the keys of the rows.
    """
    for guard in guards:
        if guard.history:
            told = history.told_on(execution.connection, guard)
            if guard in told.expects_trigger and not told.is_written_by_trigger(guard):
                raise StatekitError(
                    f"The trigger that writes the history of {guard.model}.{guard.attribute} was dropped or disabled "
                    "while this INSERT was executed. Roll back, and try again."
                )
            told.write_new(guard, table, key, rows)
