"""The writer: what was blocked is written to the ledger once the transaction around it has ended, and never in its way.

A blocked move waits in memory until the outermost transaction of its connection has ended, and is written before the
call that has ended it returns, in a short transaction on a connection of the ledger's own. If that fails, it waits in
memory: a thread tries again after 1 s, then 2 s, up to a minute, and the end of the process does once more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from statekit.errors import Pair, StatekitError, show_pairs
from statekit.ledger import ends
from statekit.ledger.entries import Batch, Buffer, Entry, entry_of
from statekit.ledger.later import Later
from statekit.ledger.messages import hint_for, said
from statekit.ledger.stores import NotNow, Server, SQLiteFile, SQLiteMemory, Unsure, inserted, is_in_loop, store_for
from statekit.ledger.tables import add_to
from statekit.ledger.usage import Usage
from statekit.observe import counts
from statekit.observe.move import Move

logger = logging.getLogger("statekit")

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_PATIENCE = 10.0
"""How many seconds the end of the process waits: for an attempt that is under way, or for a file that is locked."""


class Writer:
    """Writes the ledger of one engine; made by :func:`statekit.ledger.attach`.

    Attributes:
        engine (Engine): whose ledger it is; that behind an AsyncEngine.
        table (Table): the table that it writes, in a MetaData of its own.
        number_written (int): how many batches it has written.
    """

    def __init__(self, engine: Engine, schema: str | None) -> None:
        self.engine = engine
        self.table = add_to(sa.MetaData(), schema=schema).ledger
        self._store = store_for(engine, is_down=lambda: bool(self._pause))
        self._is_closed = False
        self._usage: Usage | None = None
        if not isinstance(self._store, Server):
            in_file = isinstance(self._store, SQLiteFile)
            self._usage = Usage(engine, self._write_unused, keeps_others_out=in_file)
        event.listen(engine, "engine_disposed", self.disposed)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._attempt = threading.RLock()
        self._backlog = Buffer()
        self._unsure: list[Batch] = []
        self._in_flight: list[Batch] = []
        self._open: WeakSet[_Pending] = WeakSet()
        self._abandoned: deque[Buffer] = deque()
        self._later = Later(self._try_again)
        self._pause = 0.0
        self._not_before = 0.0
        self._tells_of_dropped = True
        self._error = ""
        self.number_written = 0

    # -- what is not written yet

    @property
    def waiting(self) -> int:
        """How many moves are not written yet: their transaction is open, or the ledger could not be written."""
        with self._lock:
            return sum(entry.number for entry in self._waiting() if entry.what.kind != "dropped")

    @property
    def dropped(self) -> int:
        """How many moves were left out because too many different ones wait; the ledger will say so."""
        with self._lock:
            in_batches = sum(entry.number for entry in self._waiting() if entry.what.kind == "dropped")
            return in_batches + sum(buffer.dropped for buffer in self._buffers())

    def _buffers(self) -> list[Buffer]:
        return [self._backlog, *(pending.buffer for pending in self._open), *self._abandoned.copy()]

    def _waiting(self) -> list[Entry]:
        waiting = [entry for buffer in self._buffers() for entry in buffer]
        for batch in (*self._unsure, *self._in_flight):
            waiting += batch.entries
        return waiting

    def waiting_blocked(self, table: str | None, attribute: str | None) -> tuple[Counter[Pair], list[str]]:
        """Return blocked moves that may not be written yet.

        Args:
            table: of which table; None for all.
            attribute: of which attribute of it.

        Returns:
            The moves, and the batches of which they are counted here, and so not to be counted in the database.
        """
        with self._lock:
            batches = [batch.id for batch in (*self._unsure, *self._in_flight)]
            waiting = self._waiting()
        total: Counter[Pair] = Counter()
        for entry in waiting:
            what = entry.what
            if what.kind == "blocked" and (table is None or (what.table, what.attribute) == (table, attribute)):
                total[what.source, what.target] += entry.number
        return total, batches

    # -- what happens

    def keep(self, moves: Sequence[Move], connection: Connection | None) -> None:
        """Take moves in that are not plainly legal.

        Args:
            connection: which they were written on, or were to be; None where there was none yet.

        Raises:
            StatekitError: an overridden move cannot be recorded, so that it must not be made.
        """
        overridden = [entry_of(move) for move in moves if move.kind == "overridden" and not move.is_recorded]
        entries = [entry_of(move) for move in moves if move.kind != "overridden"]
        if overridden:
            self._record(overridden, connection)
        if not entries:
            return
        for move in moves:
            if move.kind == "blocked":
                counts.hand_over(move.subject, (move.source, move.target), move.number)
        if not isinstance(self._store, SQLiteMemory):  # to which another thread has no connection
            self._later.start()
        if self._usage is not None:
            self._add_to_backlog(entries)
            self._write_unused()
        elif connection is None or not connection.in_transaction() or connection._is_autocommit_isolation():
            self._write(Buffer(entries))
        else:
            pending = ends.waiting_on(connection)
            if not isinstance(pending, _Pending) or pending.writer is not self:
                pending = _Pending(self)
                ends.wait(connection, pending)
            with self._lock:
                self._open.add(pending)
                for entry in entries:
                    pending.buffer.add(entry)

    def _record(self, entries: list[Entry], connection: Connection | None) -> None:
        """Write entries in the very transaction that they are about."""
        if connection is None:
            raise StatekitError("An overridden move is recorded where it is written, and that is not known here.")
        statement = inserted(self.table, connection.dialect.name)
        try:
            # Where all others are written too, whatever schema_translate_map the application's statements have.
            connection.execute(statement, Batch(entries).rows(), execution_options={"schema_translate_map": None})
        except sa.exc.DBAPIError as error:
            raise StatekitError(
                f"An overridden move must have an entry in {self.table.fullname}, and that cannot be written: "
                f"{said(error)}.{hint_for(error, self.table)} Roll the transaction back."
            ) from error

    def _write(self, buffer: Buffer) -> None:
        """Write entries whose transaction has ended; if that fails, they wait."""
        if self._pause and not self._is_closed:  # the thread alone finds out when it is over
            self._add_to_backlog(buffer.take())
            return
        with self._lock:
            batch = Batch(buffer.take())
            self._in_flight.append(batch)
        if self._try(batch, self._store.write):
            if self._has_backlog():
                self._later.wake()
        elif self._is_closed and not self.flush():
            self._give_up("The ledger is detached")
        if self._is_closed:
            self._store.close()

    # -- later

    def flush(self) -> bool:
        """Write now what waits although its transaction has ended.

        On SQLite nothing is written while a connection of the engine is in use.

        Returns:
            Whether nothing of it is left.
        """
        self._not_before = 0.0
        if isinstance(self._store, Server) and self._store.is_async and is_in_loop():
            with ThreadPoolExecutor(1) as executor:  # which has a loop of its own
                return executor.submit(self.flush).result()
        with suppress(IndexError):  # another thread may do the same
            while True:
                self._add_to_backlog(self._abandoned.popleft().take())
        if self._usage is not None:
            self._write_unused()
        elif self._attempt.acquire(timeout=_PATIENCE):
            try:
                self._write_backlog(self._store.write_apart)
            finally:
                self._attempt.release()
        return not self._has_backlog()

    def finish(self) -> None:
        """Write everything, also what belongs to transactions that nobody has ended: the process ends."""
        with self._lock:
            ended = [entry for pending in self._open for entry in pending.buffer.take()]
        self._add_to_backlog(ended)
        is_written = self.flush()
        until = time.monotonic() + _PATIENCE
        if self._usage is not None and isinstance(self._store, SQLiteFile):
            while not is_written and (self._usage.is_in_use or "locked" in self._error) and time.monotonic() < until:
                self._usage.close_all()  # for a transaction that nobody ends any more may hold the lock
                time.sleep(_FIRST_PAUSE / 20)  # or another process is writing to the file
                is_written = self.flush()
        if not is_written and not isinstance(self._store, SQLiteMemory):
            self._give_up("The process ends")

    def _give_up(self, why: str) -> None:
        """Forget what has ended and cannot be written, and say what that is."""
        with self._lock:
            lost = [entry for batch in self._unsure for entry in batch.entries] + self._backlog.take()
            self._unsure = []
        pairs: Counter[Pair] = Counter()
        for entry in lost:
            entry.is_in_no_ledger()
            pairs[entry.what.source, entry.what.target] += entry.number
        number = pairs.total()
        logger.error(
            "[SELF-HEAL] %s, and %s moves could not be written to the ledger: %s",
            why,
            f"{number:,}",
            show_pairs(pairs),
            extra={"statekit_kind": "ledger", "statekit_waiting": number},
        )

    def disposed(self, engine: Any) -> None:
        """Close the ledger's own connections: the engine's pool was disposed of."""
        self._store.close()

    def close(self) -> None:
        """Write what waits, and let go of everything; what belongs to an open transaction is written at its end."""
        self._is_closed = True
        event.remove(self.engine, "engine_disposed", self.disposed)
        if not self.flush():
            self._give_up("The ledger is detached")
        self._later.stop()
        if self._usage is not None:
            self._usage.end()
        self._store.close()

    def forked(self) -> None:
        """Begin anew in a process that is a fork: what waits is its parent's to write."""
        self._store.forget()
        if self._usage is not None:
            self._usage.forget()
        for pending in self._open:  # the connections that it has inherited may end here as well
            pending.buffer.take()
        self._begin()

    def _try_again(self) -> float | None:
        pause = self._not_before - time.monotonic()
        if pause > 0:
            return pause
        try:
            if self.flush():
                return None
        except Exception:
            logger.exception("The ledger's thread failed")
        return max(self._pause, _FIRST_PAUSE)

    def _write_unused(self, dbapi_connection: Any = None) -> None:
        """Write what waits, on SQLite, if no connection is in use."""
        if not self._has_backlog() or time.monotonic() < self._not_before:
            return
        # A garbage collection gives back what nobody has closed, and may come amid whatever this very thread does.
        if not self._lock.acquire(timeout=0.1):
            self._later.wake()
            return
        self._lock.release()
        assert self._usage is not None
        with self._usage.unused() as unused:
            if not unused:
                return
            if not isinstance(self._store, SQLiteMemory):
                self._write_backlog(self._store.write)
                return
            if dbapi_connection is not None:
                with self._store.through(dbapi_connection):
                    self._write_backlog(self._store.write)
                return
        self._store.visit()

    # -- attempts

    def _add_to_backlog(self, entries: Sequence[Entry]) -> None:
        with self._lock:
            for entry in entries:
                self._backlog.add(entry)

    def _has_backlog(self) -> bool:
        return bool(len(self._backlog) or self._backlog.dropped or self._unsure or self._abandoned)

    def _write_backlog(self, write: Callable[[sa.Table, Batch], None]) -> None:
        with self._lock:
            unsure, self._unsure = self._unsure, []
            self._in_flight += unsure
        left = deque(unsure)
        try:
            while left:
                if not self._try(left.popleft(), write, may_be_written=True):
                    return
        finally:
            for other in left:
                self._put_back(other, True)
        with self._lock:
            batch = Batch(self._backlog.take())
            if not batch.entries:
                return
            self._in_flight.append(batch)
        self._try(batch, write)

    def _try(self, batch: Batch, write: Callable[[sa.Table, Batch], None], *, may_be_written: bool = False) -> bool:
        """Write a batch that is in flight, and return whether that worked; if not, it waits.

        Args:
            may_be_written: whether an attempt before was not answered, so that it must stay what it is.
        """
        try:
            self._write_storable(batch, write)
        except NotNow:
            self._put_back(batch, may_be_written)
            self._later.wake()
            return False
        except Exception as error:
            unsure = isinstance(error, Unsure)
            self._put_back(batch, unsure or may_be_written)
            self._failed(error.__cause__ if unsure and error.__cause__ is not None else error)
            return False
        except BaseException:  # cancelled or interrupted, and nobody knows how far it had come
            self._put_back(batch, True)
            self._later.wake()
            raise
        with self._lock:
            self._in_flight.remove(batch)
            self.number_written += 1
        if self._pause:
            self._pause, self._not_before, self._tells_of_dropped = 0.0, 0.0, True
            logger.warning(
                "[SELF-HEAL] The ledger is being written again",
                extra={"statekit_kind": "ledger", "statekit_waiting": self.waiting},
            )
        return True

    def _write_storable(self, batch: Batch, write: Callable[[sa.Table, Batch], None]) -> None:
        try:
            write(self.table, batch)
        except (sa.exc.DataError, UnicodeError):
            # A text that the database's encoding does not have must not keep all others out for ever.
            batch.is_ascii = True
            write(self.table, batch)

    def _put_back(self, batch: Batch, may_be_written: bool) -> None:
        with self._lock:
            self._in_flight.remove(batch)
            if may_be_written:
                self._unsure.append(batch)
                return
            for entry in batch.entries:
                self._backlog.add(entry)

    def _failed(self, error: BaseException) -> None:
        is_first = not self._pause
        self._error = said(error)
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause
        if is_first:
            logger.error(
                "[SELF-HEAL] The ledger cannot be written: %s. %s moves wait in memory and are tried again.%s",
                self._error,
                f"{self.waiting:,}",
                hint_for(error, self.table),
                extra={"statekit_kind": "ledger", "statekit_waiting": self.waiting},
            )
        if self.dropped and self._tells_of_dropped:
            self._tells_of_dropped = False
            logger.error(
                "[SELF-HEAL] The ledger cannot be written for so long that moves are left out; it will say how many",
                extra={"statekit_kind": "ledger", "statekit_dropped": self.dropped},
            )
        self._later.wake()


class _Pending:
    """The entries of one transaction that is open."""

    def __init__(self, writer: Writer) -> None:
        self.buffer = Buffer()
        self.writer = writer

    def ended(self) -> None:
        self.writer._write(self.buffer)

    def abandoned(self) -> None:  # called by a garbage collection, anywhere: it must lock nothing
        self.writer._abandoned.append(self.buffer)
        self.writer._later.wake()
