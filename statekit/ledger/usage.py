"""Which connections of an engine on SQLite are in use: the ledger is written while there are none.

SQLite has one lock for the whole database. A write of ours would be in the way of a transaction that is open, or that
begins meanwhile, and be the reason why that one fails with "database is locked".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import SingletonThreadPool

_writing: ContextVar[Usage | None] = ContextVar("statekit_ledger_writing", default=None)


class Usage:
    """Listens to the pool of an engine.

    Args:
        engine: on SQLite.
        unused: called when the last connection that was in use is given back, with that connection. It must not raise.
        keeps_others_out: whether others wait while the ledger is written, which must await nothing then.
    """

    def __init__(self, engine: Engine, unused: Callable[[Any], None], *, keeps_others_out: bool) -> None:
        self._engine = engine
        self._unused = unused
        self._keeps_others_out = keeps_others_out
        # There, each thread has a connection, and a database in memory, of its own.
        self._by_thread = isinstance(engine.pool, SingletonThreadPool)
        self.forget()
        self._listeners: list[tuple[str, Callable[..., None]]] = [
            ("checkout", self._checkout),
            ("checkin", self._checkin),
            ("detach", self._detach),
        ]
        for name, listener in self._listeners:
            event.listen(engine, name, listener)

    def forget(self) -> None:
        """Begin anew: in a fork, or where what was in use will not come back."""
        self._in_use: set[tuple[int, int]] = set()
        self._lock: Any = threading.RLock() if self._keeps_others_out else nullcontext()

    def end(self) -> None:
        """Listen no more."""
        for name, listener in self._listeners:
            event.remove(self._engine, name, listener)

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Return whether no connection is in use; the connections of the block itself are not among them."""
        if _writing.get() is self:
            yield False
            return
        with self._lock:
            here = self._thread()
            if any(thread == here for thread, _ in self._in_use):
                yield False
                return
            before = _writing.set(self)
            try:
                yield True
            finally:
                _writing.reset(before)

    def _thread(self) -> int:
        return threading.get_ident() if self._by_thread else 0

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        if _writing.get() is not self:  # else it is the ledger's own
            with self._lock:
                self._in_use.add((self._thread(), id(record)))

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        self._in_use.discard((self._thread(), id(record)))

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        if _writing.get() is not self:
            self._detach(dbapi_connection, record)
            self._unused(dbapi_connection)
