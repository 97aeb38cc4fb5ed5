"""How many rows the next batch has: as many as surely fit, by what the batches before it have taken.

Nothing here knows a database or a clock, so that a simulation can drive it.
"""

from __future__ import annotations

import math

FIRST = 10
"""How many rows the first batch has, of which nobody knows what they cost."""

LARGEST = 10_000
"""How many rows a batch has at most: their keys are held in memory."""

LONGEST = 0.5
"""How many seconds a batch is to take at most. Its rows are locked as long."""

_DECAY = 0.75
_SHARE = 0.08
"""Less than an eighth: a batch whose rows cost eight times as much as the last one's still fits what is left."""
_MARGIN = 0.2
_TELLING = 0.1
"""After how many seconds of moving the cost of a row can be told: the first batches take hardly more than a commit."""


def margin(budget: float | None) -> float:
    """Return how many seconds of a budget are left alone, for what is no row: a commit, the way to the caller."""
    return _MARGIN if budget is None else min(_MARGIN, budget / 10)


class Sizing:
    """The number of rows of the next batch, from what was measured.

    The rate is the smaller one of a decaying mean and the last batch's, so that it falls at once and rises slowly. A
    batch is at most twice as large as the last one, and is to take 0.5 s at most, and 0.08 of the time that is left.
    A statement that takes longer than all the time that is left is ended by the database; then the next batch has a
    quarter of the rows.

    To find rows takes time as well, which may have little to do with their number. So it is not in the rate: where it
    takes longer than half a second, a batch may take as long again to move what was found.

    Args:
        budget: the seconds of this call; None for no limit.
        rate: rows a second, as known from batches before this call; None if nothing is known.

    Attributes:
        rate: rows a second, as known now; None if nothing is known.
        largest: how many rows a batch may have.
    """

    def __init__(self, budget: float | None, rate: float | None = None) -> None:
        self.margin = margin(budget)
        self.rate = rate
        self.largest = LARGEST
        self._finding = 0.0
        self._has_moved = False
        self._moving = 0.0 if rate is None else _TELLING
        self._next = FIRST if rate is None else max(FIRST, math.floor(rate * LONGEST / 8))

    def next(self, left: float | None) -> int:
        """Return how many rows the next batch is to have; 0 if none would fit.

        Args:
            left: the seconds until the end of the call; None for no limit.
        """
        usable = math.inf if left is None else left - self.margin
        if usable <= 0:
            return 0
        number = min(self._next, self.largest)
        if self.rate is None:
            return number
        usable -= self._finding
        fits = math.floor(self.rate * min(max(LONGEST, self._finding), _SHARE * usable))
        if fits < 1:  # a single row takes long: it is tried if it fits without the reserve
            return 1 if self.rate * usable >= 1 else 0
        return max(1, min(number, fits))

    def seconds_for(self, number: int) -> float | None:
        """Return how long some rows will take, in batches as large as they become; None if nothing is known."""
        if not number:
            return 0.0
        if self.rate is None or self._moving < _TELLING:
            return None
        batch = max(1.0, min(self.largest, self.rate * max(LONGEST, self._finding)))
        return number / self.rate + math.ceil(number / batch) * self._finding

    def limit(self, left: float | None, number: int) -> float | None:
        """Return after how many seconds the database is to end a batch.

        Args:
            left: the seconds until the end of the call.
            number: how many rows the batch has.
        """
        if left is None:
            return None
        usable = max(left - self.margin / 2, 0.001)
        # Of the first batch of a call too little is known: if it is ended, there is still time for a single row.
        return usable if self._has_moved or number == 1 else usable / 2

    def took(self, number: int, seconds: float, finding: float = 0.0) -> None:
        """Note what a batch has taken.

        Args:
            number: how many rows it had.
            seconds: from its begin to the answer to its commit.
            finding: the part of it that it took to find the rows.
        """
        self._finding = finding
        self._has_moved = True
        self._next = max(1, 2 * number)
        moving = seconds - finding
        last = number / max(moving, 1e-6)
        self._moving += moving
        if self.rate is not None and last < self.rate and moving < _TELLING / 2:
            return  # it was too short to say anything about rows: its commit has taken most of it
        mean = last if self.rate is None else _DECAY * self.rate + (1 - _DECAY) * last
        self.rate = min(mean, last)

    def was_ended(self, number: int, seconds: float) -> None:
        """Note that a batch was ended by the database because it took too long; nothing of it is there."""
        least = number / max(seconds, 1e-6)
        self.rate = least if self.rate is None else min(self.rate, least)
        self._next = max(1, number // 4) if self._has_moved else 1
