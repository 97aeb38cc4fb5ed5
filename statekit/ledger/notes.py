"""Entries about what was done to a bulk transition: written in the transaction that does it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.ledger.entries import Batch, Entry, What, now
from statekit.ledger.stores import inserted


def note(
    connection: Connection,
    ledger: sa.Table,
    kind: str,
    number: int,
    detail: dict[str, Any],
    **what: Any,
) -> None:
    """Write an entry in the transaction of a connection, so that it is there if that commits, and once.

    Args:
        connection: in a transaction.
        ledger: the table of entries.
        kind: what happened, such as "retry".
        number: how often.
        detail: more about it, as JSON can hold it.
        what: model, attribute, table, source, target, operation and place, as far as they are known.
    """
    entry = Entry(What(kind, **what), now(), number)
    rows = [{**row, "detail": {**(row["detail"] or {}), **detail}} for row in Batch([entry]).rows()]
    statement = inserted(ledger, connection.dialect.name)
    connection.execute(statement, rows, execution_options={"schema_translate_map": None})
