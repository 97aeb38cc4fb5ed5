"""A move of rows whose states were just read and are held: no question is asked, and the fence holds all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.guards import current
from statekit.guards.guard import Guard
from statekit.guards.statements.account import NAMED, Account
from statekit.guards.statements.one_update import letting, met_by

Key = tuple[Any, ...]


def move(connection: Connection, guard: Guard, rows: Mapping[str | None, Sequence[Key]], target: Any) -> list[Key]:
    """Move rows to a state; what is reported of them is what an UPDATE by anybody else leads to.

    Args:
        connection: in the transaction that has read the rows and holds them.
        guard: of the column.
        rows: the primary keys of the rows, by the state that they are in.
        target: the state, as the column's type binds it.

    Returns:
        The primary keys of those that have moved: fewer than were given where the database has kept some back, such as
        by a trigger.

    Raises:
        IllegalTransition: a row must not make the move, in "raise".
    """
    table: Any = guard.column.table
    key = list(table.primary_key)
    text = guard.states.text(target)
    account, keys = _judged(connection, guard, rows, target)
    if account.is_refused:
        account.refuse()
    update = sa.update(table).values({guard.column: target})
    met: int | None = 0
    for condition, parameters in current.matching(connection, key, keys) if keys else ():
        with letting(account.leeways(strict=True)):  # a row that has the state by now was not held
            result = connection.execute(update.where(condition), parameters, execution_options={current.OURS: True})
        of_chunk = met_by(result, connection)
        met = None if met is None or of_chunk is None else met + of_chunk
    if met is None or met < len(keys):
        place = current.ColumnPlace(guard, table, guard.column, key)
        now = current.read(connection, place, [_moved(each, guard, target) for each in keys], lock=False)
        arrived = {
            source: [each for each in of if now.get(_moved(each, guard, target)) == text] for source, of in rows.items()
        }
        account, keys = _judged(connection, guard, arrived, target)
    account.rename(lambda each: _moved(each, guard, target))
    account.publish()
    return [_moved(each, guard, target) for each in keys]


def _moved(key: Key, guard: Guard, target: Any) -> Key:
    """Return the primary key that a row has after the move: the state may be a part of it."""
    if not guard.column.primary_key:
        return key
    columns = guard.column.table.primary_key
    return tuple(target if column is guard.column else part for column, part in zip(columns, key, strict=True))


def _judged(
    connection: Connection, guard: Guard, rows: Mapping[str | None, Sequence[Key]], target: Any
) -> tuple[Account, list[Key]]:
    """Return the account of rows, and the keys of those that are written.

    Each row is named in it if somebody wants to be told of each, else a few are.
    """
    table = guard.column.table
    key = list(table.primary_key)
    account = Account([guard], tuple(column.key for column in key), connection, table, key)
    keys: list[Key] = []
    text = guard.states.text(target)
    for source, of_source in rows.items():
        named = len(of_source) if account.wants_identities else min(NAMED, len(of_source))
        written = [account.add([(source, text)], 1, each) for each in of_source[:named]]
        if len(of_source) > named:
            account.add([(source, text)], len(of_source) - named)
        keys += of_source if all(written) else ()
    return account, keys
