"""The blocked moves of this process, by guard and move: exact, because a rollback does not reach them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from statekit.errors import Pair

_lock = threading.Lock()
_by_subject: dict[Hashable, Counter[Pair]] = {}
_in_a_ledger: dict[Hashable, Counter[Pair]] = {}


def add(subject: Hashable, pair: Pair, number: int) -> None:
    """Count blocked moves.

    Args:
        subject: what identifies the guard.
        pair: (source, target) as text.
        number: how many rows.
    """
    with _lock:
        _by_subject.setdefault(subject, Counter())[pair] += number


def hand_over(subject: Hashable, pair: Pair, number: int) -> None:
    """Note that blocked moves, which are counted here, are in a ledger too; the same arguments as :func:`add`."""
    with _lock:
        _in_a_ledger.setdefault(subject, Counter())[pair] += number


def only_here(subject: Hashable | None = None) -> Counter[Pair]:
    """Return the blocked moves of this process that are in no ledger; the same argument as :func:`total`."""
    with _lock:
        return _sum(_by_subject, subject) - _sum(_in_a_ledger, subject)


def total(subject: Hashable | None = None) -> Counter[Pair]:
    """Return the blocked moves of this process as a Counter of its own.

    Args:
        subject: what identifies the guard; None for the sum over all of them.
    """
    with _lock:
        return _sum(_by_subject, subject)


def _sum(counters: dict[Hashable, Counter[Pair]], subject: Hashable | None) -> Counter[Pair]:
    if subject is not None:
        return Counter(counters.get(subject, ()))
    everything: Counter[Pair] = Counter()
    for counter in counters.values():
        everything.update(counter)
    return everything
