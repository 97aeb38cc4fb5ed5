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
    parts = [f"CAST({compiler.process(part, **kw)} AS TEXT)" for part in element.clauses]
    return f"json_array({', '.join(parts)})"


@compiles(row_key, "postgresql")
def _render_for_postgresql(element: row_key, compiler: Any, **kw: Any) -> str:
    parts = [f"pg_catalog.to_jsonb({_typed(part, compiler, **kw)}) #>> '{{}}'" for part in element.clauses]
    return f"CAST(pg_catalog.jsonb_build_array({', '.join(parts)}) AS TEXT)"


def _typed(part: Any, compiler: Any, **kw: Any) -> str:
    """Return a part with its type, without which PostgreSQL does not know what to make of a parameter."""
    element = sa.cast(part, part.type) if isinstance(part, sa.BindParameter) else part
    text: str = compiler.process(element, **kw)
    return text
