"""Run the benchmarks: ``python -m tests.benchmarks [--quick] [--list] [WORD ...]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from tests.benchmarks import bulk, elsewhere, events, flushes, hot_tables, peers, small, statements, triggers
from tests.benchmarks.backends import ALL, Backends
from tests.benchmarks.measure import title

Run = Callable[[Backends, int, tuple[str, ...]], None]

TWO = ("sqlite", "psycopg")
PG = ("psycopg",)
FLUSHES: dict[str, tuple[str, Run, int, tuple[str, ...]]] = {
    # name: (title, what runs it, rounds, backends)
    "status": ("Flush of 2,000 rows whose status changes", flushes.status, 13, ALL),
    "enum": ("The same with a StrEnum", flushes.enum, 11, TWO),
    "untouched": ("Flush of 2,000 rows of which another column changes", flushes.untouched, 9, ALL),
    "modes": ("Guarded flush of 2,000 rows, legal moves, in each mode", flushes.modes, 9, TWO),
    "kept": ("Flush of 2,000 legal moves with a ledger, and with a history", flushes.kept, 15, ALL),
    "single": (f"Flush of one object, median of {flushes.SINGLES}", flushes.single, 15, TWO),
    "insert": ("Flush of 2,000 new objects", flushes.insert, 9, TWO),
    "big": ("100 states and 400 moves: flush of 2,000 rows, and of one", flushes.big, 7, (*TWO, "psycopg2")),
    "bulk": ("update() of 200,000 rows, of which a quarter must not move", statements.bulk, 7, TWO),
    "bulk-ways": (f"{bulk.ROWS:,} rows moved and committed, in each way", bulk.ways, 5, TWO),
    "bulk-kept": (f"transition_all of {bulk.ROWS:,} rows, with what a guard can have besides", bulk.kept, 3, TWO),
    "bulk-even": (f"transition_all of {bulk.ROWS:,} rows: the first batches and the last", bulk.evenness, 3, TWO),
    "small": ("Statements of one row and of a hundred, legal moves", statements.small, 9, TWO),
    "compile": ("Compiling an UPDATE, once a statement", flushes.compilation, 15, TWO),
    "trigger-single": (
        f"Triggers: a prepared UPDATE of one row, median of {triggers.SINGLES}",
        triggers.single,
        25,
        PG,
    ),
    "trigger-durable": ("Triggers: one row, committed to a disk", triggers.durable, 15, PG),
    "trigger-many": ("Triggers: an UPDATE of 200,000 rows that move", triggers.many, 15, PG),
    "trigger-other": ("Triggers: an UPDATE of 200,000 rows whose status stays", triggers.other, 15, PG),
    "trigger-insert": ("Triggers: an INSERT of 10,000 rows", triggers.insert, 25, PG),
    "trigger-blocked": (
        f"Triggers: a move that is not allowed, median of {triggers.SINGLES}",
        triggers.blocked,
        25,
        PG,
    ),
    "trigger-light": ("Triggers of SQLite", triggers.sqlite, 25, ("sqlite",)),
    "peers": ("2,000 rows moved and flushed, statekit beside its peers, a process for each", peers.flushes, 12, TWO),
}
OTHERS: dict[str, tuple[str, Callable[[bool], None]]] = {
    "peers-passes": (
        "What becomes of PROMOTED → SPAM_REVIEW, which is not allowed (SQLite)",
        lambda quick: peers.passes(),
    ),
    "elsewhere": (
        "Not guarded, in a process with statekit's hooks (SQLite in memory)",
        lambda quick: elsewhere.run(3, 1) if quick else elsewhere.run(10, 4),
    ),
    "events": (
        f"{2 * events.EVENTS:,} named events, beside those of a plain object (no database)",
        lambda quick: events.run(3 if quick else 25),
    ),
    "trigger-hot": (
        f"A trigger made while {hot_tables.WRITERS} write to the table, and one transaction is open for 3 s (psycopg)",
        lambda quick: hot_tables.run(1 if quick else 5),
    ),
    "trigger-listener": (
        "Listening to the errors of triggers (SQLite in memory)",
        lambda quick: triggers.listening(3, 1) if quick else triggers.listening(10, 4),
    ),
    "allows": ("Asking a table, without the loop around it", lambda quick: small.allows(3 if quick else 15)),
    "import": ("Imports, a process for each", lambda quick: small.imports(3 if quick else 7)),
    "declare": ("Declaring a class with a guard", lambda quick: small.declarations(1 if quick else 3)),
}


def chosen(name: str, words: list[str]) -> bool:
    """Return whether a name such as "status/psycopg" is asked for: by a part of it, or in full with the slash."""
    return not words or any(word == name if "/" in word else word in name for word in words)


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def load() -> str:
    """Return how busy the machine is: a load of 1 is one core."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg()) if hasattr(os, "getloadavg") else "not known"


def main(arguments: list[str]) -> None:
    """Run what the arguments ask for, and show it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="What statekit costs.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only what has one of these in its name; see --list")
    parser.add_argument("--quick", action="store_true", help="3 rounds: to see that it runs, not to read figures")
    parser.add_argument("--list", action="store_true", help="show the names, and run nothing")
    options = parser.parse_args(arguments)
    flush_names = {name: [f"{name}/{backend}" for backend in group[3]] for name, group in FLUSHES.items()}
    if options.list:
        print(*(each for names in flush_names.values() for each in names), *OTHERS, sep="\n")
        return
    start = time.monotonic()
    print(
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, {processor()}, {os.cpu_count()} cores, {platform.system()}"
    )
    print(f"Python {platform.python_version()}, SQLAlchemy {sa.__version__}; load {load()}")
    print("Columns: median; median ratio to the first line in the same round (quartiles); median difference.")
    print("A twin does the same as the first line: what its ratio is off from 1 is noise.", flush=True)
    with Backends() as backends:
        for name, (called, run, rounds, _) in FLUSHES.items():
            names = tuple(each.partition("/")[2] for each in flush_names[name] if chosen(each, options.words))
            if names:
                title(called)
                run(backends, 3 if options.quick else rounds, names)
        for name, (called, run_other) in OTHERS.items():
            if chosen(name, options.words):
                title(called)
                run_other(options.quick)
        versions = backends.versions()
    print(f"\n{versions or 'no database'}; took {time.monotonic() - start:.0f} s; load {load()}")


if __name__ == "__main__":
    main(sys.argv[1:])
