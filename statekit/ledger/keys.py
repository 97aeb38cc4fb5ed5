"""The primary key of a row as the history has it: a JSON array of texts, made by the database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class row_key(FunctionElement[str]):
    """The text of a primary key, of columns or of values of their types.

    The database makes it, so that a trigger, a guard and a question about it come to the same text, whatever the type.
    """

    name = "statekit_row_key"
    type = sa.Text()
    inherit_cache = True


@compiles(row_key)
def _render(element: row_key, compiler: Any, **kw: Any) -> str:
    parts = [_text(part, compiler, **kw) for part in element.clauses]
    return f"json_array({', '.join(parts)})"


@compiles(row_key, "postgresql")
def _render_for_postgresql(element: row_key, compiler: Any, **kw: Any) -> str:
    parts = [f"pg_catalog.to_jsonb({_in_utc(part, compiler, **kw)}) #>> '{{}}'" for part in element.clauses]
    return f"CAST(pg_catalog.jsonb_build_array({', '.join(parts)}) AS TEXT)"


def _text(part: Any, compiler: Any, **kw: Any) -> str:
    """Return a part as SQLite's text; of bytes, which may be no text, the hexadecimal digits."""
    text: str = compiler.process(part, **kw)
    impl = part.type.dialect_impl(compiler.dialect)
    if _is(impl, sa.LargeBinary):
        return f"hex({text})"
    if _is(impl, sa.Numeric) and isinstance(part, sa.BindParameter):
        text = f"CAST(CAST({text} AS TEXT) AS NUMERIC)"  # as the column stores it: 2.0 as 2
    return f"CAST({text} AS TEXT)"


def _in_utc(part: Any, compiler: Any, **kw: Any) -> str:
    """Return a part as PostgreSQL makes JSON of it; of a time with a zone not in that of the session."""
    text = _typed(part, compiler, **kw)
    impl = part.type.dialect_impl(compiler.dialect)
    return f"pg_catalog.timezone('UTC', {text})" if _is(impl, sa.DateTime) and _undecorated(impl).timezone else text


def _is(impl: Any, type_: Any) -> bool:
    return isinstance(_undecorated(impl), type_)


def _undecorated(impl: Any) -> Any:
    """Return the type that a decorated one stores."""
    return _undecorated(impl.impl_instance) if isinstance(impl, sa.TypeDecorator) else impl


def _typed(part: Any, compiler: Any, **kw: Any) -> str:
    """Return a part with its type, without which PostgreSQL does not know what to make of a parameter."""
    element = sa.cast(part, part.type) if isinstance(part, sa.BindParameter) else part
    text: str = compiler.process(element, **kw)
    return text
