"""Which connections of an engine on SQLite are in use: the ledger is written while there are none.

SQLite has one lock for the whole database. A write of ours would be in the way of a transaction that is open, or that
begins meanwhile, and be the reason why that one fails with "database is locked".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any
from weakref import ref

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
            ("connect", self._connect),
            ("checkout", self._checkout),
            ("checkin", self._checkin),
            ("detach", self._detach),
        ]
        for name, listener in self._listeners:
            # First: others' listeners to "connect" may use the new connection before it is checked out.
            event.listen(engine, name, listener, insert=name == "connect")

    def forget(self) -> None:
        """Begin anew: in a fork, or where what was in use will not come back."""
        self._in_use: dict[tuple[int, int], ref[Any]] = {}
        self._lock: Any = threading.RLock() if self._keeps_others_out else nullcontext()

    @property
    def is_in_use(self) -> bool:
        """Whether any connection is."""
        return bool(self._in_use)

    def close_all(self) -> None:
        """Close the connections that are in use: the process ends, and so do their transactions."""
        for record in tuple(self._in_use.values()):
            with suppress(Exception):
                self._engine.dialect.do_terminate(record().dbapi_connection)  # type: ignore[union-attr]
        self._in_use.clear()

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
            # A copy: a connection may be given back meanwhile, by another thread or by a garbage collection. The record
            # of one that could not be made is never given back, and goes by itself.
            if any(thread == here and record() is not None for (thread, _), record in tuple(self._in_use.items())):
                yield False
                return
            before = _writing.set(self)
            try:
                yield True
            finally:
                _writing.reset(before)

    def _thread(self) -> int:
        return threading.get_ident() if self._by_thread else 0

    def _connect(self, dbapi_connection: Any, record: Any) -> None:
        if _writing.get() is not self:  # else it is the ledger's own
            with self._lock:
                self._in_use[self._thread(), id(record)] = ref(record)

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        self._connect(dbapi_connection, record)

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        self._in_use.pop((self._thread(), id(record)), None)

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        # Also amid a write: a garbage collection may give back then what nobody has closed.
        self._detach(dbapi_connection, record)
        if _writing.get() is not self:
            self._unused(dbapi_connection)
