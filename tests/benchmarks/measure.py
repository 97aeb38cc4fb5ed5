"""Measuring in turn, and the lines in which the results are shown."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

Variant = Callable[[], float]
"""Prepares one measurement, makes it, and returns how many seconds it took."""

Samples = Mapping[str, Sequence[float]]
"""The seconds of each variant, one for each round."""

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def timed(work: Callable[[], object], *, collect: bool = True) -> float:
    """Return the seconds that the work takes, without the garbage collector, which strikes whoever's turn it is.

    Args:
        work: what is measured.
        collect: whether the garbage of others is collected first.
    """
    if collect:
        gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        work()
        return perf_counter() - start
    finally:
        gc.enable()


def in_turn(
    variants: Mapping[str, Variant], rounds: int, *, warm_up: int = 1, between: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Measure all variants once a round, so that whatever disturbs the machine for a while disturbs all of them.

    Args:
        variants: what to measure, by name.
        rounds: how many rounds count.
        warm_up: how many rounds before them do not: they fill caches.
        between: is called before each round, for what must not be measured.
    """
    samples: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(-warm_up, rounds):
        if between is not None:
            between()
        # Each round begins with another variant: nobody always comes after the same one, whose traces it would bear.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds = variants[name]()
            if number >= 0:
                samples[name].append(seconds)
    return samples


def ratios(samples: Samples, name: str, base: str) -> list[float]:
    """Return how much longer a variant took than the base in the same round, for each round."""
    return [mine / theirs for mine, theirs in zip(samples[name], samples[base], strict=True)]


def show_time(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> show_time(0.0123), show_time(41e-9)
    ('12.30 ms', '41.0 ns')
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size), _UNITS[-1])
    digits = 1 if unit == "ns" or abs(seconds) / size >= 100 else 2
    return f"{seconds / size:.{digits}f} {unit}"


def title(text: str) -> None:
    """Show what the next lines are about."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def note(text: str) -> None:
    """Show a remark below some lines."""
    print(f"    {text}", flush=True)


def show(where: str, samples: Samples, *, base: str | None = None, remarks: Mapping[str, str] | None = None) -> None:
    """Show a line for each variant: its median and, against the base in the same round, the median ratio and quartiles.

    Args:
        where: the backend, or whatever the variants have in common.
        base: the variant that the others are compared with.
        remarks: what is to stand at the end of a variant's line, such as an aim, from which nothing follows.
    """
    for name, seconds in samples.items():
        line = f"{where:<14} {name:<34} {show_time(statistics.median(seconds)):>11}"
        if base is not None and name != base:
            against = ratios(samples, name, base)
            low, middle, high = statistics.quantiles(against, n=4) if len(against) > 1 else against * 3
            more = statistics.median(m - t for m, t in zip(seconds, samples[base], strict=True))
            sign = "+" if more >= 0 else "−"
            line += f"  {middle:6.3f}×  {f'({low:.3f} to {high:.3f})':<18}{sign + show_time(abs(more)):>11}"
        remark = (remarks or {}).get(name)
        print(f"{line:<95}  {remark}" if remark else line, flush=True)
        where = ""
