"""How many rows a batch has: no budget is overrun, and little of it is lost, whatever a row costs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import pytest

from statekit.bulk.sizing import FIRST, LARGEST, LONGEST, Sizing

BUDGET = 8.0


@dataclass
class Played:
    """What a simulated call has come to, in seconds."""

    elapsed: float
    lost: float
    worked: float


class Rows:
    """Rows whose cost is random, and jumps by a factor of 8 up and down in the middle of the call.

    Each row costs its base, between 2 and 50 ms, times a random factor; a jump comes every 0.5 to 4 seconds.
    """

    def __init__(self, rng: random.Random, factor: float = 8.0) -> None:
        self._rng = rng
        self._factor = factor
        self._base = self._cost = 10 ** rng.uniform(-2.7, -1.3)
        self._jump_at = rng.uniform(0.5, 4)

    def cost(self, now: float) -> float:
        """Return the seconds that the next row takes."""
        if now >= self._jump_at:
            is_jumped = self._cost != self._base
            self._cost = self._base if is_jumped else self._base * self._rng.choice([self._factor, 1 / self._factor])
            self._jump_at = now + self._rng.uniform(0.5, 4)
        return self._cost * self._rng.lognormvariate(0, 0.5)


def play(rng: random.Random, *, budget: float = BUDGET, factor: float = 8.0, ends_statements: bool = True) -> Played:
    """Run a call on a clock of its own: batches, as the sizing wants them, and a database that ends what takes long."""
    rows, sizing = Rows(rng, factor), Sizing(budget)
    now = lost = worked = 0.0
    while (number := sizing.next(budget - now)) > 0:
        limit = sizing.limit(budget - now, number)
        assert limit is not None
        overhead = rng.uniform(0.002, 0.006)  # the other statements of the batch, and its commit
        taken = 0.0
        for _ in range(number):
            taken += rows.cost(now + taken)
            if ends_statements and taken > limit:
                break
        if ends_statements and taken > limit:
            now += limit + overhead
            lost += limit
            sizing.was_ended(number, limit)
        else:
            now += taken + overhead
            worked += taken + overhead
            sizing.took(number, taken + overhead)
    return Played(now, lost, worked)


@cache
def played(number: int, **options: float) -> list[Played]:
    rng = random.Random(1)
    return [play(rng, **options) for _ in range(number)]  # type: ignore[arg-type]


def test_of_a_thousand_calls_none_overruns_its_budget() -> None:
    assert [each.elapsed for each in played(1_000) if each.elapsed > BUDGET] == []


def test_a_thousand_calls_use_nine_tenths_of_their_budget() -> None:
    assert sum(each.elapsed for each in played(1_000)) >= 0.9 * BUDGET * 1_000


def test_a_thousand_calls_lose_no_more_than_a_hundredth_of_their_work() -> None:
    calls = played(1_000)
    assert sum(each.lost for each in calls) <= 0.01 * sum(each.lost + each.worked for each in calls)


def test_jumps_by_a_hundred_are_no_overrun_either() -> None:
    assert [each.elapsed for each in played(100, factor=100.0) if each.elapsed > BUDGET] == []


def test_the_database_that_ends_statements_is_needed_for_that() -> None:
    """Without it, calls overrun: so the tests above can fail."""
    rng = random.Random(1)
    calls = [play(rng, factor=100.0, ends_statements=False) for _ in range(60)]
    assert [each for each in calls if each.elapsed > BUDGET] != []


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0, 30.0])
def test_other_budgets_are_kept_and_used(budget: float) -> None:
    calls = played(200, budget=budget)
    assert max(each.elapsed for each in calls) <= budget
    assert sum(each.elapsed for each in calls) >= 0.85 * budget * 200


def test_the_first_batch_is_small() -> None:
    assert Sizing(BUDGET).next(BUDGET) == FIRST


def test_a_batch_is_at_most_twice_as_large_as_the_last_one() -> None:
    sizing = Sizing(BUDGET)
    sizing.took(10, 1e-5)
    assert sizing.next(BUDGET) == 20


def test_a_batch_takes_no_longer_than_half_a_second() -> None:
    sizing = Sizing(None)
    for _ in range(20):
        sizing.took(sizing.next(None), sizing.next(None) / 1_000)
    assert sizing.next(None) == 1_000 * LONGEST


def test_a_batch_is_never_larger_than_what_memory_is_meant_for() -> None:
    sizing = Sizing(None)
    for _ in range(20):
        sizing.took(sizing.next(None), 1e-6)
    assert sizing.next(None) == LARGEST


def test_the_rate_falls_at_once_and_rises_slowly() -> None:
    sizing = Sizing(BUDGET, rate=100.0)
    sizing.took(100, 10.0)
    assert sizing.rate == 10.0
    sizing.took(100, 1.0)
    assert sizing.rate == 0.75 * 10 + 0.25 * 100


def test_what_was_ended_is_tried_again_with_a_quarter() -> None:
    sizing = Sizing(None, rate=1e6)
    sizing.took(400, 4e-4)
    sizing.was_ended(400, 1.0)
    assert sizing.next(None) == 100


def test_nothing_is_begun_without_time() -> None:
    assert Sizing(BUDGET).next(0.1) == 0
    assert Sizing(BUDGET).next(-1) == 0


def test_a_row_that_takes_long_is_tried_where_it_fits() -> None:
    sizing = Sizing(BUDGET, rate=0.5)
    assert sizing.next(4.0) == 1
    assert sizing.next(1.5) == 0


def test_a_known_rate_makes_the_first_batch_larger() -> None:
    assert Sizing(BUDGET, rate=10_000.0).next(BUDGET) == 625


def test_where_the_first_batch_is_ended_there_is_time_for_a_single_row() -> None:
    sizing = Sizing(BUDGET)
    limit = sizing.limit(BUDGET, FIRST)
    assert limit is not None
    sizing.was_ended(FIRST, limit)
    assert sizing.next(BUDGET - limit) == 1


@pytest.mark.parametrize("finding", [0.3, 0.6, 2.0])
def test_batches_do_not_shrink_because_rows_are_hard_to_find(finding: float) -> None:
    """Each batch takes that long to find its rows, however few they are, and 10 µs to move one."""
    sizing = Sizing(None)
    for _ in range(30):
        number = sizing.next(None)
        sizing.took(number, finding + number * 1e-5, finding)
    assert sizing.next(None) == LARGEST


def test_the_time_to_find_rows_is_kept_free() -> None:
    sizing = Sizing(BUDGET, rate=1_000.0)
    sizing.took(100, 3.1, 3.0)
    assert sizing.next(3.1) == 0
    assert sizing.next(8.0) > 0


def test_the_time_to_find_rows_is_a_part_of_the_estimate() -> None:
    sizing = Sizing(None)
    sizing.took(1_000, 2.0, 1.0)
    assert sizing.seconds_for(10_000) == 10.0 + 10 * 1.0
