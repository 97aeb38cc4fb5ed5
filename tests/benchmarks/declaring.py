"""A process that declares classes, bare and guarded, and says how long each took.

``python -m tests.benchmarks.declaring 1000000`` does it in a process that has a million more objects.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from typing import Any

from statekit import Guarded, TransitionTable
from tests.benchmarks.measure import timed
from tests.benchmarks.models import message, new_base

EACH = 20
LATE = 300


def main(more: int) -> None:
    """Declare the classes, and print the seconds as JSON."""
    ballast: list[Any] = [[] for _ in range(more)]
    base = new_base()
    table = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")

    def bare(number: int) -> float:
        return timed(lambda: message(base, f"Bare{number}"), collect=False)

    def guarded(number: int) -> float:
        return timed(
            lambda: message(base, f"Guarded{number}", Guarded, __transitions__={"status": table}), collect=False
        )

    bare(0)  # SQLAlchemy's own first time
    gc.collect()
    objects = len(gc.get_objects())
    plain = [bare(number) for number in range(1, EACH)]
    taken = [guarded(number) for number in range(LATE)]
    answer = {
        "bare": statistics.median(plain),
        "guarded, the first": taken[0],
        f"guarded, the 2nd to {EACH}th": statistics.median(taken[1:EACH]),
        f"guarded, the last of {LATE}": statistics.median(taken[-EACH:]),
    }
    print(json.dumps(answer | {"objects": objects}))
    del ballast


if __name__ == "__main__":
    main(int(sys.argv[1]))
