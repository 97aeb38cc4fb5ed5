"""Statements that were compiled before their table was guarded: found, and compiled anew in place.

Every cache of SQLAlchemy (the engine's, ``compiled_cache=``, lambda statements, the mapper's own) holds the
``Compiled`` object itself. So it is enough to renew what is inside of it. Statements compiled while the fence is
installed are noted by table; those from before the first guard are found by one look through the garbage collector's
objects, which does not see what ``gc.freeze()`` has put aside.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy.sql.compiler import SQLCompiler

from statekit.errors import StatekitError

_lock = threading.Lock()
_searched = False
_by_table: WeakKeyDictionary[Any, WeakSet[SQLCompiler]] = WeakKeyDictionary()


def note(compiler: SQLCompiler, table: Any) -> None:
    """Remember that a statement which updates the table was compiled."""
    with _lock:
        known = _by_table.get(table)
        if known is None:
            known = _by_table[table] = WeakSet()
        known.add(compiler)


def catch_up(names: tuple[str | None, str], table_names: Iterable[str]) -> None:
    """Renew what was compiled before a table was guarded.

    Args:
        names: schema and name of the table.
        table_names: names of all guarded tables.

    Raises:
        StatekitError: a statement on a guarded table cannot be compiled anew.
    """
    global _searched
    renew([*([] if _searched else from_before()), *noted(names)], table_names)
    _searched = True  # from here on, everything is noted when it is compiled


def noted(names: tuple[str | None, str]) -> list[SQLCompiler]:
    """Return what was compiled for tables of this (schema, name), whichever Table object stood for it."""
    with _lock:
        return [
            compiler
            for table, compilers in _by_table.items()
            if (getattr(table, "schema", None), getattr(table, "name", None)) == names
            for compiler in compilers
        ]


def from_before() -> list[SQLCompiler]:
    """Return every compiled statement of the process that updates something."""
    return [
        found
        for found in gc.get_objects()
        # type() and not isinstance(), which asks lazy proxies for their __class__ and so wakes them
        if issubclass(type(found), SQLCompiler) and _updates(getattr(found, "string", None))
    ]


def renew(compilers: Iterable[SQLCompiler], table_names: Iterable[str]) -> None:
    """Compile each statement anew and put the result inside of the object that the caches hold.

    Args:
        compilers: what to renew.
        table_names: names of guarded tables; a statement that names none of them may be left as it is.

    Raises:
        StatekitError: a statement on a guarded table cannot be compiled anew.
    """
    table_names = tuple(table_names)
    for compiler in compilers:
        try:
            fresh = type(compiler)(
                compiler.dialect,
                compiler.statement,
                cache_key=compiler.cache_key,
                column_keys=compiler.column_keys,
                for_executemany=compiler.for_executemany,
                linting=compiler.linting,
                schema_translate_map=getattr(compiler, "schema_translate_map", None),
            )
        except Exception as error:
            if not any(name in compiler.string for name in table_names):
                continue  # it has nothing to do with a guard, and was compiled in a way that cannot be repeated
            raise StatekitError(
                "A statement was compiled before its table was guarded, and cannot be compiled anew with the guard. "
                f"Declare the guard before the statement is first executed. The statement: {compiler.string}"
            ) from error
        with _lock:
            for known in _by_table.values():
                if fresh in known:
                    known.add(compiler)
        compiler.__dict__ = fresh.__dict__


def _updates(text: object) -> bool:
    return isinstance(text, str) and "UPDATE " in text and " SET " in text
