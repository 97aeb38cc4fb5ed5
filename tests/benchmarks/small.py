"""The table itself, the import, and what a declaration costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.elsewhere import ROOT
from tests.benchmarks.measure import in_turn, note, show, show_time, timed
from tests.benchmarks.models import Status, edges, questions

ASKED = 100
"""How often the thousand questions are asked for one measurement."""

_IMPORT = """
import sys, time
{before}
start = time.perf_counter()
{measured}
print(time.perf_counter() - start, *(m for m in ("transitions", "alembic", "sqlalchemy.orm") if m in sys.modules))
"""


def allows(rounds: int) -> None:
    """``table.allows(a, b)``, and what it is made of."""
    from statekit import TransitionTable

    four = [("READY", "SPAM_REVIEW"), ("READY", "PROMOTED"), ("PROMOTED", "COMPLETED")]
    members = [(Status[source], Status[target]) for source, target in four]
    for where, pairs in (
        ("4 states", four),
        ("100 states", edges(100)),
        ("1,000 states", edges(1_000)),
        ("4 members", members),
    ):
        _allows(where, TransitionTable(*pairs), pairs, rounds)
    note("4 members: a StrEnum, whose hash is computed in Python")


def _allows(where: str, table: Any, pairs: Sequence[tuple[str, str]], rounds: int) -> None:
    states = list(dict.fromkeys(state for pair in pairs for state in pair))
    moves = {state: frozenset(target for source, target in pairs if source == state) for state in states}
    asked = questions(list(pairs), states)
    ask = table.allows
    assert [ask(a, b) for a, b in asked] == [b in moves[a] for a, b in asked]

    def with_table() -> None:
        for _ in range(ASKED):
            for a, b in asked:
                ask(a, b)

    def with_dict() -> None:
        for _ in range(ASKED):
            for a, b in asked:
                b in moves[a]  # noqa: B015

    def with_nothing() -> None:
        for _ in range(ASKED):
            for _a, _b in asked:
                pass

    works = {"b in dict[a]": with_dict, "table.allows(a, b)": with_table, "loop": with_nothing}
    taken = in_turn({name: lambda work=work: timed(work) for name, work in works.items()}, rounds)  # type: ignore[misc]
    number = ASKED * len(asked)
    loop = statistics.median(taken.pop("loop"))
    samples = {name: [(each - loop) / number for each in seconds] for name, seconds in taken.items()}
    show(where, samples, base="b in dict[a]", remarks={"table.allows(a, b)": "aim ≤ 60 ns"})


def imports(rounds: int) -> None:
    """What an import takes after SQLAlchemy's own, in a process for each."""
    asked = {
        "import sqlalchemy": ("", "import sqlalchemy"),
        "import statekit": ("import sqlalchemy", "import statekit"),
        "import sqlalchemy.orm": ("import sqlalchemy", "import sqlalchemy.orm"),
        "from statekit import Guarded": ("import sqlalchemy.orm", "from statekit import Guarded"),
        "the same and operation, can": ("import sqlalchemy.orm", "from statekit import Guarded, operation, can"),
    }
    loaded: dict[str, str] = {}

    def run(name: str) -> float:
        before, measured = asked[name]
        program = _IMPORT.format(before=before, measured=measured)
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        seconds, *modules = answer.stdout.split()
        loaded[name] = ", ".join(modules) or "none of the three"
        return float(seconds)

    samples = in_turn({name: lambda name=name: run(name) for name in asked}, rounds)  # type: ignore[misc]
    show("", samples, remarks={"import statekit": "aim ≤ 25 ms"})
    note("then in sys.modules, of transitions, alembic and sqlalchemy.orm:")
    for name in asked:
        note(f"  after {name}: {loaded[name]}")


def declarations(rounds: int) -> None:
    """What a declaration of a guarded class takes, in a process for each round, small and large ones in turn."""
    taken: dict[str, dict[str, list[float]]] = {}
    objects: dict[str, int] = {}
    for _ in range(rounds):
        for where, more in (("small process", 0), ("large process", 1_000_000)):
            command = [sys.executable, "-m", "tests.benchmarks.declaring", str(more)]
            answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
            objects[where] = answer.pop("objects")
            for name, seconds in answer.items():
                taken.setdefault(where, {}).setdefault(name, []).append(seconds)
    for where, samples in taken.items():
        show(where, samples)
        first, bare = (statistics.median(samples[name]) for name in ("guarded, the first", "bare"))
        note(f"{objects[where]:,} objects of the garbage collector; the first guard is {show_time(first - bare)} more")
