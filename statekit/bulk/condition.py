"""The condition of a job as SQL text, for a process that goes on with it and has not the application's code."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import COLLECT_CARTESIAN_PRODUCTS
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.visitors import iterate

from statekit.errors import StatekitError
from statekit.guards.guard import root_table
from statekit.guards.stored import undecorated

_PLACEHOLDER = re.compile(r"%\([^)]*\)s|__\[")
_BYTES = (bytes, bytearray, memoryview)


class Rendered(NamedTuple):
    """A condition as text.

    Attributes:
        shape: without its values: the same for every call of the same code.
        sql: with its values; None where one of them cannot be written into SQL.
    """

    shape: str
    sql: str | None


def checked(where: Any, table: Any) -> sa.ColumnElement[bool]:
    """Return a condition as an expression.

    Args:
        where: what was given: an expression, a text(), or several in a list or tuple, which all must hold.
        table: whose rows it is to find.

    Raises:
        StatekitError: it is none, or asks for some of the rows only, which each batch would do anew.
    """
    parts = list(where) if isinstance(where, list | tuple) else [where]
    try:
        for part in parts:
            if isinstance(part, sa.SelectBase):
                raise StatekitError("where=select(…): give a condition, such as Message.id.in_(select(…)).")
            sa.select(sa.literal_column("1")).where(part)
    except sa.exc.ArgumentError as error:
        raise StatekitError(
            f"where={where!r}: {str(error).rstrip('.')}. Give what a SELECT's where() takes, such as "
            "Message.sender == 'ada', or a list of it."
        ) from None
    if not parts:
        raise StatekitError("where=[]: that is no condition. Leave it out to move every row that may move.")
    condition = sa.and_(*parts)
    for element in iterate(condition):
        if isinstance(element, sa.Select) and _takes_some_of(element, table):
            raise StatekitError(
                f"where=…: in it is a SELECT of {table.name} with a LIMIT. A condition is asked anew in each batch, "
                "and this one would find others each time. Ask for their keys first, and give those: "
                "where=Message.id.in_(keys)."
            )
    return condition


def _takes_some_of(select: Any, table: Any) -> bool:
    """Return whether a SELECT gives a limited number of a table's own rows, and not one for each row outside of it."""
    if not any(
        getattr(select, name, None) is not None for name in ("_limit_clause", "_offset_clause", "_fetch_clause")
    ):
        return False
    froms = select.get_final_froms()
    if table in froms:
        return any(getattr(column, "table", None) == table for column in select.selected_columns)
    return any(root_table(each) == table for each in froms)


def check_joined(where: sa.ColumnElement[bool], start: Any, table: Any) -> None:
    """Check that what a condition says of other tables has to do with the rows that it is to find.

    Args:
        where: the condition.
        start: the FROM that it stands in.
        table: whose rows it is to find.

    Raises:
        StatekitError: nothing connects another table with them, so that it would find all of them or none.
    """
    if any(isinstance(each, sa.TextClause) or getattr(each, "is_literal", False) for each in iterate(where)):
        return  # which may be what connects them
    dialect = DefaultDialect()
    statement: Any = sa.select(sa.literal_column("1")).select_from(start).where(where)
    compiled: Any = dialect.statement_compiler(dialect, statement, linting=COLLECT_CARTESIAN_PRODUCTS)
    apart, from_where = compiled.from_linter.lint()
    if apart:
        names = sorted({getattr(each, "name", str(each)) for each in (*apart, from_where)})
        raise StatekitError(
            f"where=…: nothing in it connects {' with '.join(names)}, so that it says nothing of single rows of "
            f"{table.name}. Say how they belong together, such as Customer.id == Order.customer_id."
        )


class _Brackets(Grouping[Any]):
    """Brackets that stay: as SQLAlchemy's own they would be taken away within and_()."""

    inherit_cache = True
    operator = None


def in_brackets(where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return a condition that can be combined with others: SQLAlchemy does not look into a text for an OR."""
    return _Brackets(where)


def rendered(where: sa.ColumnElement[bool], start: Any, dialect: Any) -> Rendered:
    """Return a condition as text.

    Args:
        where: the condition.
        start: the FROM that it stands in.
        dialect: of the database.
    """
    inner: Any = where.element if isinstance(where, _Brackets) else where
    # With %(name)s as placeholders, each % of a text would be doubled; the copy keeps what the server was asked for.
    plain = copy.copy(dialect)
    plain.paramstyle, plain.positional = "named", False
    plain._bind_typing_render_casts = False  # a driver's own way to name the types of parameters
    plain.identifier_preparer = plain.preparer(plain)
    bare: Any = sa.select(sa.literal_column("1")).select_from(start)
    before = f"{bare.compile(dialect=plain)} \nWHERE "
    full = bare.where(inner)
    shape = str(full.compile(dialect=plain)).removeprefix(before)
    if any(map(_has_no_literal, iterate(inner))):
        return Rendered(shape, None)
    try:
        compiled = full.compile(dialect=plain, compile_kwargs={"literal_binds": True})
    except (sa.exc.CompileError, NotImplementedError, TypeError, ValueError):
        return Rendered(shape, None)
    text = str(compiled)
    sql = text.removeprefix(before)
    # Some of SQLAlchemy's constructs do not write their values; and what looks like a placeholder is taken for one.
    has_values = sql != text and not compiled.binds and not _PLACEHOLDER.search(sql)
    return Rendered(shape, sql if has_values else None)


def _has_no_literal(element: Any) -> bool:
    """Return whether it is a parameter of bytes, which SQLAlchemy would write as a text."""
    if not isinstance(element, sa.BindParameter):
        return False
    values = element.value if isinstance(element.value, list | tuple) else [element.value]
    return isinstance(undecorated(element.type), sa.LargeBinary) or any(isinstance(v, _BYTES) for v in values)


def from_text(sql: str) -> sa.ColumnElement[bool]:
    """Return the condition that was kept as text."""
    return sa.literal_column(f"({sql})", sa.Boolean())
