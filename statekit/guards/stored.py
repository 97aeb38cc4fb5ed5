"""What a column stores of a value that it is given, as SQL: the question and the fence judge that and nothing else."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


def as_stored(value: Any, type_: Any, dialect: str) -> Any:
    """Return an expression for what a column stores of a value.

    Args:
        value: an SQL expression.
        type_: the column's type.
        dialect: the name of the database.
    """
    base = undecorated(type_)
    if dialect != "sqlite" or not isinstance(base, sa.Integer):
        return sa.cast(value, type_)
    # SQLite converts a text that is a number, and keeps any other; CAST would make a number of that as well.
    # https://www.sqlite.org/datatype3.html#type_affinity
    number = sa.cast(value, sa.Integer)
    return sa.case((sa.cast(number, sa.Text) == sa.cast(value, sa.Text), number), else_=value)


def undecorated(type_: Any) -> Any:
    """Return the type beneath every TypeDecorator."""
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    return type_
