"""Which engines have a ledger, and what a process does about them when it moves, forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection, Engine

from statekit.errors import StatekitError
from statekit.ledger import ends
from statekit.ledger.writer import Writer
from statekit.observe import hook
from statekit.observe.move import Move

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

SUPPORTED = ("postgresql", "sqlite")

_writers: dict[Any, Writer] = {}
"""The writers by dialect: an engine has one of its own, and shares it with what ``execution_options()`` makes of it."""

_stop_keeping: Callable[[], None] | None = None


def attach(engine: Engine | AsyncEngine, *, schema: str | None = None) -> Writer:
    """Have the blocked, observed and overridden moves of an engine written to its ledger.

    A blocked or observed move is written in a short transaction of its own when the transaction around it has ended,
    however it did. What was blocked stays in the ledger although its transaction was rolled back. Called again for the
    same engine, it returns the writer that there is.

    Args:
        engine: of the application; PostgreSQL or SQLite, any driver.
        schema: the schema of the ledger's tables, as given to :func:`statekit.ledger.add_to`; None for none.

    Returns:
        The writer: ``.waiting`` says how many moves are not written yet, ``.flush()`` writes them.

    Raises:
        StatekitError: it is no engine, one of another database, or has a ledger in another schema.
    """
    global _stop_keeping
    engine = getattr(engine, "sync_engine", engine)  # without importing what needs greenlet
    if not isinstance(engine, Engine):
        raise StatekitError(f"attach({engine!r}): allowed is an Engine or an AsyncEngine.")
    if engine.dialect.name not in SUPPORTED:
        raise StatekitError(
            f"attach({engine!r}): there is no ledger for {engine.dialect.name!r}; there is for "
            f"{' and '.join(SUPPORTED)}."
        )
    while hasattr(engine, "_proxied"):  # what execution_options() gives
        engine = engine._proxied
    known = _writers.get(engine.dialect)
    if known is not None:
        if known.table.schema != schema:
            raise StatekitError(
                f"attach({engine!r}, schema={schema!r}): it has a ledger already, with schema={known.table.schema!r}. "
                "Detach that first: statekit.ledger.detach(engine)."
            )
        return known
    ends.install()
    writer = _writers[engine.dialect] = Writer(engine, schema)
    if _stop_keeping is None:
        _stop_keeping = hook.keep(_keep, first=True)
    return writer


def detach(engine: Engine | AsyncEngine) -> None:
    """Write what waits for the ledger of an engine, and note nothing more; nothing happens if it has none.

    Args:
        engine: to which a ledger was attached.
    """
    global _stop_keeping
    writer = writer_of(engine)
    if writer is None:
        return
    del _writers[writer.engine.dialect]
    if not _writers and _stop_keeping is not None:
        _stop_keeping()
        _stop_keeping = None
    writer.close()


def writer_of(bind: Any) -> Writer | None:
    """Return the writer of an engine or a connection, or None."""
    return _writers.get(getattr(bind, "dialect", None))


def _keep(moves: Sequence[Move], on: Any) -> None:
    # An object without a session belongs to no engine; mostly there is one only.
    writer = writer_of(on) if on is not None else next(iter(_writers.values()), None)
    if writer is not None:
        writer.keep(moves, on if isinstance(on, Connection) else None)


@atexit.register
def _finish() -> None:
    for writer in list(_writers.values()):
        writer.finish()


def _forked() -> None:
    for writer in _writers.values():
        writer.forked()
    # A fork of multiprocessing's own ends without atexit, and forgets all but what is registered so.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _writers:
        util.register_after_fork(_finish, lambda finish: util.Finalize(None, finish, exitpriority=-100))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
