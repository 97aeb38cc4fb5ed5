"""What a trigger says when it refuses a row, read from the driver's error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from statekit.trigger.spec import PREFIX

CHECK_VIOLATION = "23514"
"""SQLSTATE of the errors of PostgreSQL's triggers."""
FEATURE_NOT_SUPPORTED = "0A000"
DEPENDENT_OBJECTS_STILL_EXIST = "2BP01"

# "trigger statekit_… on table message depends on column "status" [of table …]"; the rest is in the server's language.
_DEPENDENT = re.compile(r"\b(?:zzz_)?(statekit_[a-z0-9_]+_[0-9a-f]{8})(?:_new)?\b")

_IN_SQLITE = re.compile(r"\[(statekit_[a-z0-9_]+) (?=\{)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that a trigger has refused.

    Attributes:
        trigger: name of the trigger, which is :attr:`StateTrigger.name`.
        new: whether the row is a new one.
        source: the state that the row is in; None for NULL and for a new row.
        target: the state it was to get; None for NULL; on SQLite, ``"*"`` for one that is no state of the table.
        key: the row's primary key, as (column, value) with values as JSON has them; None where it is not known.
        allowed: the states that it may move to, or start in.
        counted: whether the database has counted it.
        table: name of the table that the row is in, such as a partition's.
        column: name of the column.
    """

    trigger: str
    new: bool
    source: str | None
    target: str | None
    key: tuple[tuple[str, Any], ...] | None
    allowed: tuple[str | None, ...]
    counted: bool
    table: str | None = None
    column: str | None = None


def refusal_in(error: BaseException) -> Refusal | None:
    """Return what a driver's error says of a refused row, or None if no state trigger has made it.

    Args:
        error: as the driver has raised it (psycopg, psycopg2, sqlite3), or as SQLAlchemy's adaption of the driver has
            (asyncpg, aiosqlite).
    """
    said = _diagnostics(error)
    if said is None:
        return _in_sqlite(str(error)) if type(error).__name__ == "IntegrityError" else None
    if said.sqlstate != CHECK_VIOLATION or not (said.constraint or "").startswith(PREFIX):
        return None
    try:
        about = json.loads(said.detail or "", parse_float=Decimal)
        if about["statekit"] != 1:
            return None
        return Refusal(
            trigger=about["trigger"],
            new=about["new"],
            source=about["source"],
            target=about["target"],
            key=None if about["key"] is None else tuple((name, value) for name, value in about["key"]),
            allowed=tuple(about["allowed"]),
            counted=True,
            table=said.table,
            column=said.column,
        )
    except (ValueError, KeyError, TypeError):
        return None  # a CHECK of the user's own that is called so


def trigger_in_the_way(error: BaseException) -> str | None:
    """Return the state trigger because of which PostgreSQL refuses to drop a column or to change its type, or None.

    Args:
        error: as for :func:`refusal_in`.
    """
    said = _diagnostics(error)
    if said is None or said.sqlstate not in (FEATURE_NOT_SUPPORTED, DEPENDENT_OBJECTS_STILL_EXIST):
        return None
    match = _DEPENDENT.search(said.detail or "")
    return match.group(1) if match else None


class _Diagnostics(NamedTuple):
    sqlstate: str | None
    constraint: str | None
    detail: str | None
    table: str | None
    column: str | None


def _diagnostics(error: BaseException) -> _Diagnostics | None:
    """Return what PostgreSQL says of an error, whichever driver has raised it; None if it is not PostgreSQL's."""
    said: Any = getattr(error, "diag", None)
    if said is not None:
        return _Diagnostics(said.sqlstate, said.constraint_name, said.message_detail, said.table_name, said.column_name)
    said = getattr(error, "driver_exception", None) or error.__cause__ or error
    if hasattr(said, "constraint_name"):
        return _Diagnostics(said.sqlstate, said.constraint_name, said.detail, said.table_name, said.column_name)
    return None


def _in_sqlite(text: str) -> Refusal | None:
    for match in _IN_SQLITE.finditer(text):
        try:
            about = json.loads(text[match.end() :].removesuffix("]"))
            return Refusal(
                trigger=match.group(1),
                new=about["new"],
                source=about["source"],
                target=about["target"],
                key=None,
                allowed=tuple(about["allowed"]),
                counted=False,
            )
        except (ValueError, KeyError, TypeError):
            continue  # a state may look like the beginning of it
    return None
