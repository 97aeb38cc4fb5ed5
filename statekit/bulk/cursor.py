"""The cursor: the primary key after which the next batch looks, as JSON.

Nothing but speed depends on it: without one, a job looks from the first row on.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from typing import Any

_PLAIN = (bool, int, str)
_TAGGED: dict[type, tuple[str, Callable[[Any], str]]] = {
    uuid.UUID: ("uuid", str),
    decimal.Decimal: ("decimal", str),
    dt.datetime: ("datetime", dt.datetime.isoformat),
    dt.date: ("date", dt.date.isoformat),
    bytes: ("bytes", bytes.hex),
}
_READ: dict[str, Callable[[str], Any]] = {
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "bytes": bytes.fromhex,
}


def to_json(key: tuple[Any, ...] | None) -> list[Any] | None:
    """Return a primary key as JSON can hold it; None where it is of another type than those that are known."""
    if key is None:
        return None
    parts: list[Any] = []
    for part in key:
        if type(part) in _PLAIN:
            parts.append(part)
        elif type(part) in _TAGGED:
            name, write = _TAGGED[type(part)]
            parts.append({name: write(part)})
        else:
            return None
    return parts


def from_json(parts: list[Any] | None) -> tuple[Any, ...] | None:
    """Return the primary key that :func:`to_json` has written."""
    if parts is None:
        return None
    return tuple(
        next(_READ[name](text) for name, text in part.items()) if isinstance(part, dict) else part for part in parts
    )
