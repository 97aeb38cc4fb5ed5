"""What a trigger says when it refuses a row, read from the driver's error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from statekit.trigger.spec import PREFIX

CHECK_VIOLATION = "23514"
"""SQLSTATE of the errors of PostgreSQL's triggers."""

_IN_SQLITE = re.compile(r"\[(statekit_[a-z0-9_]+) (\{.*\})\]\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that a trigger has refused.

    Attributes:
        trigger: name of the trigger, which is :attr:`StateTrigger.name`.
        new: whether the row is a new one.
        source: the state that the row is in; None for NULL and for a new row.
        target: the state it was to get; None for NULL; on SQLite, ``"*"`` for one that is no state of the table.
        key: the row's primary key, as (column, value) with values as JSON has them; None where it is not known.
        allowed: the states that it may move to; None where they are not known.
        counted: whether the database has counted it.
        table: name of the table that the row is in, such as a partition's.
        column: name of the column.
    """

    trigger: str
    new: bool
    source: str | None
    target: str | None
    key: tuple[tuple[str, Any], ...] | None
    allowed: tuple[str | None, ...] | None
    counted: bool
    table: str | None = None
    column: str | None = None


def refusal_in(error: BaseException) -> Refusal | None:
    """Return what a driver's error says of a refused row, or None if no state trigger has made it.

    Args:
        error: as the driver has raised it (psycopg, psycopg2, sqlite3), or as SQLAlchemy's adaption of the driver has
            (asyncpg, aiosqlite).
    """
    diagnostics = getattr(error, "diag", None)
    if diagnostics is not None:
        return _in_postgresql(
            getattr(diagnostics, "sqlstate", None),
            diagnostics.constraint_name,
            diagnostics.message_detail,
            diagnostics.table_name,
            diagnostics.column_name,
        )
    original: Any = getattr(error, "driver_exception", None) or error.__cause__ or error
    if hasattr(original, "constraint_name"):
        return _in_postgresql(
            getattr(original, "sqlstate", None),
            original.constraint_name,
            original.detail,
            original.table_name,
            original.column_name,
        )
    return _in_sqlite(str(error)) if type(error).__name__ == "IntegrityError" else None


def _in_postgresql(
    sqlstate: str | None, constraint: str | None, detail: str | None, table: str | None, column: str | None
) -> Refusal | None:
    if sqlstate != CHECK_VIOLATION or not (constraint or "").startswith(PREFIX):
        return None
    try:
        about = json.loads(detail or "", parse_float=Decimal)
        version = about["statekit"]
    except (ValueError, KeyError, TypeError):
        return None  # a CHECK of the user's own that is called so
    if version != 1:
        return None
    return Refusal(
        trigger=about["trigger"],
        new=about["new"],
        source=about["source"],
        target=about["target"],
        key=None if about["key"] is None else tuple((name, value) for name, value in about["key"]),
        allowed=tuple(about["allowed"]),
        counted=True,
        table=table,
        column=column,
    )


def _in_sqlite(text: str) -> Refusal | None:
    if (match := _IN_SQLITE.search(text)) is None:
        return None
    about = json.loads(match.group(2))
    return Refusal(
        trigger=match.group(1),
        new=about["new"],
        source=about["source"],
        target=about["target"],
        key=None,
        allowed=None,
        counted=False,
    )
