"""The condition of a job as SQL text, for a process that goes on with it and has not the application's code."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import sqlalchemy as sa

from statekit.errors import StatekitError


class Rendered(NamedTuple):
    """A condition as text.

    Attributes:
        shape: without its values: the same for every call of the same code.
        sql: with its values; None where one of them cannot be written into SQL.
    """

    shape: str
    sql: str | None


def checked(where: Any) -> sa.ColumnElement[bool]:
    """Return a condition as an expression.

    Args:
        where: what was given: an expression, a text(), or several in a list or tuple, which all must hold.

    Raises:
        StatekitError: it is none.
    """
    parts = list(where) if isinstance(where, list | tuple) else [where]
    try:
        for part in parts:
            sa.select(sa.literal_column("1")).where(part)
    except sa.exc.ArgumentError as error:
        raise StatekitError(
            f"where={where!r}: {error} Give what a SELECT's where() takes, such as Message.sender == 'ada', or a list "
            "of it."
        ) from None
    if not parts:
        raise StatekitError("where=[]: that is no condition. Leave it out to move every row that may move.")
    return sa.and_(*parts)


def rendered(where: sa.ColumnElement[bool], start: Any, dialect: Any) -> Rendered:
    """Return a condition as text.

    Args:
        where: the condition.
        start: the FROM that it stands in.
        dialect: of the database.
    """
    # With %(name)s as placeholders, each % of a text would be doubled; the copy keeps what the server was asked for.
    plain = copy.copy(dialect)
    plain.paramstyle, plain.positional = "named", False
    plain.identifier_preparer = plain.preparer(plain)
    bare: Any = sa.select(sa.literal_column("1")).select_from(start)
    before = f"{bare.compile(dialect=plain)} \nWHERE "
    full = bare.where(where)
    shape = str(full.compile(dialect=plain)).removeprefix(before)
    try:
        text = str(full.compile(dialect=plain, compile_kwargs={"literal_binds": True}))
    except (sa.exc.CompileError, NotImplementedError, TypeError, ValueError):
        return Rendered(shape, None)
    return Rendered(shape, text.removeprefix(before) if text.startswith(before) else None)


def from_text(sql: str) -> sa.ColumnElement[bool]:
    """Return the condition that was kept as text."""
    return sa.literal_column(f"({sql})", sa.Boolean())
