"""A process that flushes and asks what has nothing to do with a guard, with statekit's hooks in it or without.

``python -m tests.benchmarks.worker hooked|plain`` reads names of jobs from its standard input, and for each writes the
seconds that one execution took, so that two such processes can take turns. statekit's hooks are global to a process.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from tests.benchmarks.measure import timed
from tests.benchmarks.models import GOAL, ROWS, START, fill, message, new_base

TIMES = 500
"""How many executions make one measurement of a single statement."""


def install_hooks(engine: sa.Engine) -> None:
    """Guard a model, and see that the guard holds."""
    from statekit import Guarded, IllegalTransition, TransitionTable

    base = new_base()
    table = TransitionTable("READY → SPAM_REVIEW", "READY → PROMOTED → COMPLETED", initial="READY")
    model = message(base, "Guarded_", Guarded, __transitions__={"status": table})
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(model(id=1, status=START, subject="x"))
        session.flush()
        session.get_one(model, 1).status = GOAL
        session.flush()
        session.get_one(model, 1).status = START
        logging.getLogger("statekit").setLevel(logging.ERROR)  # the blocked move is not for the reader of the figures
        try:
            session.flush()
        except IllegalTransition:
            return
    raise RuntimeError("the guard does not hold")


def do_the_same_without(engine: sa.Engine) -> None:
    """Load and do what the other process does on its way, so that both have memory of much the same layout.

    Without it, a large flush was 3 % slower in the process that had done less.
    """
    importlib.import_module("sqlalchemy.dialects.postgresql")
    importlib.import_module("sqlalchemy.ext.compiler")
    base = new_base()
    model = message(base, "Guarded_")
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(model(id=1, status=START, subject="x"))
        session.flush()
        session.get_one(model, 1).status = GOAL
        session.flush()


def jobs(engine: sa.Engine) -> dict[str, Callable[[], float]]:
    """Return what can be measured: each returns the seconds of one execution."""
    base = new_base()
    bare = message(base, "Bare")
    base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection, bare)
    table = bare.__table__
    select = sa.select(table).where(table.c.id == sa.bindparam("key"))
    update = sa.update(table).where(table.c.id == sa.bindparam("key")).values(subject=sa.bindparam("text"))

    def select_core() -> float:
        with engine.connect() as connection:

            def work() -> None:
                for number in range(1, TIMES + 1):
                    connection.execute(select, {"key": number}).one()

            return timed(work) / TIMES

    def get() -> float:
        with Session(engine) as session:

            def work() -> None:
                for number in range(1, TIMES + 1):
                    session.get_one(bare, number)

            return timed(work) / TIMES

    def update_core() -> float:
        with engine.connect() as connection:

            def work() -> None:
                for number in range(1, TIMES + 1):
                    connection.execute(update, {"key": number, "text": "y"})

            return timed(work) / TIMES

    def flush_one() -> float:
        with Session(engine) as session:
            objects = session.scalars(sa.select(bare).limit(TIMES)).all()

            def work() -> None:
                for each in objects:
                    each.subject = "y"
                    session.flush()

            return timed(work) / TIMES

    def flush_rows() -> float:
        with Session(engine) as session:
            objects = session.scalars(sa.select(bare)).all()
            assert len(objects) == ROWS
            for each in objects:
                each.status = GOAL
            return timed(session.flush)

    return {
        "select-core": select_core,
        "session-get": get,
        "update-core": update_core,
        "flush-one": flush_one,
        "flush-rows": flush_rows,
    }


def main(which: str) -> None:
    """Measure what is asked for, until nobody asks any more."""
    # In memory, nothing is as quick as this, and so nothing would show a cost more plainly.
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    known = jobs(engine)
    if which == "hooked":
        install_hooks(engine)
    else:
        do_the_same_without(engine)
    for line in sys.stdin:
        print(known[line.strip()](), flush=True)
        assert ("statekit" in sys.modules) is (which == "hooked")


if __name__ == "__main__":
    main(sys.argv[1])
