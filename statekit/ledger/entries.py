"""Entries before they are written: equal ones are one, and there are never more of them than a bound."""

from __future__ import annotations

import datetime as dt
import os
import socket
import uuid
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from statekit.observe import counts
from statekit.observe.move import Move

IDENTITIES = 10
"""How many rows an entry names by their primary key."""

BOUND = 10_000
"""How many different entries wait at most in a process; of more, only model, move and hour are kept."""


class What(NamedTuple):
    """What tells two entries apart."""

    kind: str
    model: str | None = None
    attribute: str | None = None
    table: str | None = None
    source: str | None = None
    target: str | None = None
    new: bool = False
    subject: Hashable = None
    """The guard by which this process counts."""
    operation: str | None = None
    actor: str | None = None
    reason: str | None = None
    place: str | None = None
    mode: str | None = None
    condition: str | None = None
    time: dt.datetime | None = None
    """The minute in which it happened, so that what waits for long is told apart by that."""


@dataclass(slots=True)
class Entry:
    """One entry: what happened, how often, when first, and to which rows."""

    what: What
    at: dt.datetime
    number: int
    identities: list[Any] = field(default_factory=list)
    is_coarse: bool = False

    def is_in_no_ledger(self) -> None:
        """Have blocked moves counted by this process again, because they will never be in the ledger."""
        if self.what.kind == "blocked":
            counts.hand_over(self.what.subject, (self.what.source, self.what.target), -self.number)

    def row(self) -> dict[str, Any]:
        """Return it as a row of the table."""
        what = self.what
        detail: dict[str, Any] = {"mode": what.mode, "condition": what.condition, "coarse": self.is_coarse}
        return {
            "at": self.at,
            "kind": what.kind,
            "model": what.model,
            "attribute": what.attribute,
            "table_name": what.table,
            "source": what.source,
            "target": what.target,
            "is_new": what.new,
            "number": self.number,
            "operation": what.operation,
            "actor": what.actor,
            "reason": what.reason,
            "identities": self.identities or None,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "place": what.place,
            "detail": {key: value for key, value in detail.items() if value} or None,
        }


def entry_of(move: Move) -> Entry:
    """Return what is to be written of a move."""
    at = now()
    what = What(
        kind=move.kind,
        model=move.model,
        attribute=move.attribute,
        table=move.table,
        source=_storable(move.source),
        target=_storable(move.target),
        new=move.new,
        subject=move.subject,
        operation=_storable(move.operation),
        actor=_storable(move.actor),
        reason=_storable(move.reason),
        place=move.place,
        mode=move.mode,
        condition=move.condition,
        time=at.replace(second=0, microsecond=0),
    )
    known = [identity for identity in move.identities[:IDENTITIES] if identity is not None]
    return Entry(what, at, move.number, [[_plain(part) for part in identity] for identity in known])


def now() -> dt.datetime:
    """Return the time, in UTC."""
    return dt.datetime.now(dt.UTC)


def _storable(text: str | None) -> str | None:
    """Return a text as every database stores it; an illegal target may be anything."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    """Return a part of a primary key as JSON can hold it."""
    return value if value is None or type(value) in (bool, int) else _storable(str(value))


class Buffer:
    """Entries that wait, equal ones added up.

    Attributes:
        dropped: how many moves had to be left out, because even the coarse entries were too many.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[What, Entry] = {}
        self.dropped = 0
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def add(self, entry: Entry) -> None:
        """Add an entry, to an equal one if there is one."""
        if entry.what.kind == "dropped":
            self.dropped += entry.number
            return
        known = self._entries.get(entry.what)
        if known is None and len(self._entries) >= BOUND:
            time = entry.what.time
            what = What(*entry.what[:8], time=None if time is None else time.replace(minute=0))
            entry = replace(entry, what=what, identities=[], is_coarse=True)
            known = self._entries.get(what)
            if known is None and len(self._entries) >= 2 * BOUND:
                self.dropped += entry.number
                return
        if known is None:
            self._entries[entry.what] = replace(entry, identities=list(entry.identities))
            return
        known.number += entry.number
        known.identities += entry.identities[: IDENTITIES - len(known.identities)]

    def take(self) -> list[Entry]:
        """Return all entries, with one for what was dropped, and be empty."""
        entries = list(self._entries.values())
        if self.dropped:
            entries.append(Entry(What("dropped"), now(), self.dropped))
        self._entries, self.dropped = {}, 0
        return entries

    @property
    def number(self) -> int:
        """How many moves wait."""
        return sum(entry.number for entry in self._entries.values())


class Batch:
    """Entries that are written in one transaction: written again, they are the same ones."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self.id = uuid.uuid4().hex
        self.is_ascii = False
        """Whether other characters are written as escapes, for a database that does not have them."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows to insert."""
        rows = [entry.row() for entry in self.entries]
        if self.is_ascii:
            rows = [{name: _ascii(value) for name, value in row.items()} for row in rows]
        return [{**row, "batch": self.id, "line": line} for line, row in enumerate(rows)]


def _ascii(value: Any) -> Any:
    return value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else value
