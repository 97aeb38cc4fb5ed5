"""What a process pays for statekit where nothing is guarded: two processes in turn, one that never imported it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.measure import Variant, in_turn, show

ROOT = Path(__file__).parents[2]

JOBS = {
    # job of the worker: what it is called, what the design aims at
    "select-core": ("SELECT, Core", "nothing"),
    "session-get": ("Session.get", "nothing"),
    "update-core": ("UPDATE, Core", "nothing"),
    "flush-one": ("flush of 1", "≤ 4 µs"),
    "flush-rows": ("flush of 2,000", "≤ 1.02×"),
}


class Worker:
    """A process that measures what it is asked for, line by line.

    Args:
        arguments: for it.
        module: which it runs.
    """

    def __init__(self, *arguments: str, module: str = "tests.benchmarks.worker") -> None:
        # With a seed of its own each process would lay out its dictionaries in another way.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )

    def measure(self, job: str) -> float:
        """Return the seconds of one execution of the job."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(job, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with code {self._process.wait()}; what it had to say is above")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def run(rounds: int, generations: int) -> None:
    """Show each job. Processes are made anew several times, since two equal ones differ by a few percent for life."""
    names = {"without statekit": "plain", "without, a twin": "plain", "hooks installed": "hooked"}
    samples: dict[str, dict[str, list[float]]] = {job: {name: [] for name in names} for job in JOBS}
    for _ in range(generations):
        workers = {name: Worker(which) for name, which in names.items()}
        for job, measured in samples.items():
            variants: dict[str, Variant] = {
                name: lambda worker=worker, job=job: worker.measure(job)  # type: ignore[misc]
                for name, worker in workers.items()
            }
            for name, seconds in in_turn(variants, rounds).items():
                measured[name] += seconds
        for worker in workers.values():
            worker.close()
    for job, measured in samples.items():
        called, aim = JOBS[job]
        show(called, measured, base="without statekit", remarks={"hooks installed": f"aim {aim}"})
