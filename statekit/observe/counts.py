"""The blocked moves of this process, by guard and move: exact, because a rollback does not reach them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from statekit.errors import Pair

_lock = threading.Lock()
_by_subject: dict[Hashable, Counter[Pair]] = {}


def add(subject: Hashable, pair: Pair, number: int) -> None:
    """Count blocked moves.

    Args:
        subject: what identifies the guard.
        pair: (source, target) as text.
        number: how many rows.
    """
    with _lock:
        _by_subject.setdefault(subject, Counter())[pair] += number


def total(subject: Hashable | None = None) -> Counter[Pair]:
    """Return the blocked moves of this process as a Counter of its own.

    Args:
        subject: what identifies the guard; None for the sum over all of them.
    """
    with _lock:
        if subject is not None:
            return Counter(_by_subject.get(subject, ()))
        everything: Counter[Pair] = Counter()
        for counter in _by_subject.values():
            everything.update(counter)
        return everything
