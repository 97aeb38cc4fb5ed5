"""Other state machines beside statekit: what the same flush takes, and what each of them lets through.

``python -m tests.benchmarks peers`` shows both, and so does this module by itself. Every peer works in processes of its
own, in which no other one is imported. What passes is tried, and then read from the database.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from tests.benchmarks.elsewhere import ROOT, Worker
from tests.benchmarks.measure import Variant, in_turn, note, show, timed
from tests.benchmarks.models import GOAL, ROWS, START, fill, message, new_base

if TYPE_CHECKING:  # a peer's process needs none of what the databases need
    from tests.benchmarks.backends import Backend, Backends

MODULE = "tests.benchmarks.peers"

SOURCES = {"PROMOTED": "READY", "SPAM_REVIEW": "READY", "COMPLETED": "PROMOTED"}
"""The moves that everybody declares: the state that each state is reached from."""

ILLEGAL = "SPAM_REVIEW"
"""Where nobody may get from GOAL."""

ROUNDS_EACH = 4
"""How many rounds a process measures before a new one takes its place."""

Move = Callable[[Any], object]


# --- how each is used -------------------------------------------------------------------------------------------------


def _nothing(objects: Sequence[Any]) -> None:
    pass


@dataclass(frozen=True)
class Used:
    """A model that is guarded in the way that a peer's documentation describes."""

    model: Any
    moves: Mapping[str, Move]
    """How an object is moved into each state."""

    refusals: tuple[type[Exception], ...] = ()
    """What the peer raises when it refuses a move."""

    attach: Callable[[Sequence[Any]], None] = _nothing
    """Gives loaded objects what they need before they can be moved."""

    detach: Callable[[Sequence[Any]], None] = _nothing
    """Lets go of objects that were attached."""


def _assignments() -> dict[str, Move]:
    def assign(target: str) -> Move:
        return lambda each: setattr(each, "status", target)

    return {target: assign(target) for target in SOURCES}


def with_nothing(base: Any, name: str) -> Used:
    """SQLAlchemy alone."""
    return Used(message(base, name), _assignments())


def with_statekit(base: Any, name: str) -> Used:
    """A guarded class, whose objects are moved by assignment."""
    from statekit import ConcurrentTransition, Guarded, IllegalTransition, TransitionTable

    logging.getLogger("statekit").setLevel(logging.CRITICAL)  # blocked moves are not for the reader of the figures
    table = TransitionTable(*((source, target) for target, source in SOURCES.items()), initial=START)
    model = message(base, name, Guarded, __transitions__={"status": table})
    return Used(model, _assignments(), (IllegalTransition, ConcurrentTransition))


def with_sqlalchemy_fsm(base: Any, name: str) -> Used:
    """An ``FSMField``, and a decorated method for each state."""
    from sqlalchemy_fsm import FSMField, transition
    from sqlalchemy_fsm.exc import FSMException, SetupError

    def declared(target: str) -> Any:
        @transition(source=SOURCES[target], target=target)
        def to_state(self: Any) -> None: ...

        return to_state

    def moved(target: str) -> Move:
        method = attrgetter(f"to_{target}")
        return lambda each: method(each).set()

    methods = {f"to_{target}": declared(target) for target in SOURCES}
    model = message(base, name, status=FSMField, **methods)
    refusals = tuple(kind for kind in FSMException.__subclasses__() if kind is not SetupError)
    return Used(model, {target: moved(target) for target in SOURCES}, refusals)


def with_transitions(base: Any, name: str) -> Used:
    """One machine for all objects: a machine each takes more of everything."""
    from transitions import Machine, MachineError

    machine = Machine(
        model=None,
        states=[START, *SOURCES],
        transitions=[
            {"trigger": f"to_{target}", "source": source, "dest": target} for target, source in SOURCES.items()
        ],
        initial=START,
        auto_transitions=False,  # they would lead from any state to any other
        model_attribute="status",
    )

    def attach(objects: Sequence[Any]) -> None:
        for each in objects:
            machine.add_model(each, initial=each.status)

    def detach(objects: Sequence[Any]) -> None:
        machine.remove_model(list(objects))

    moves = {target: methodcaller(f"to_{target}") for target in SOURCES}
    return Used(message(base, name), moves, (MachineError,), attach, detach)


def with_python_statemachine(base: Any, name: str) -> Used:
    """A machine for each object, with the object as its domain model.

    ``MachineMixin`` makes the same machine in ``__init__()``, which SQLAlchemy does not call for what it loads.
    """
    from statemachine import State, StateMachine
    from statemachine.exceptions import TransitionNotAllowed

    class MessageMachine(StateMachine):  # a StateChart would take no notice of an illegal move, and say nothing
        READY = State(initial=True)
        PROMOTED = State()
        SPAM_REVIEW = State(final=True)
        COMPLETED = State(final=True)

        to_PROMOTED = READY.to(PROMOTED)
        to_SPAM_REVIEW = READY.to(SPAM_REVIEW)
        to_COMPLETED = PROMOTED.to(COMPLETED)

    def attach(objects: Sequence[Any]) -> None:
        for each in objects:
            each.machine = MessageMachine(each, state_field="status")

    def moved(target: str) -> Move:
        move = methodcaller(f"to_{target}")
        return lambda each: move(each.machine)

    moves = {target: moved(target) for target in SOURCES}
    return Used(message(base, name), moves, (TransitionNotAllowed,), attach)


PEERS: dict[str, Callable[[Any, str], Used]] = {
    # what it is called, and where it is not ours also what it is installed as
    "bare": with_nothing,
    "statekit": with_statekit,
    "sqlalchemy-fsm": with_sqlalchemy_fsm,
    "transitions": with_transitions,
    "python-statemachine": with_python_statemachine,
}
OURS = ("bare", "statekit")
ATTACHED = ("transitions", "python-statemachine")
"""Those whose objects are attached to something, which is measured as well."""


def present() -> dict[str, str]:
    """Return the peers that are installed, with what each is called in a table; show which are not."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = peer if peer in OURS else f"{peer} {importlib.metadata.version(peer)}"
        except importlib.metadata.PackageNotFoundError:
            note(f"skipped: {peer} is not installed")
    return found


# --- what the flush takes ---------------------------------------------------------------------------------------------

FLUSH, ATTACH_AND_FLUSH = "flush", "attach-and-flush"


def flushes(backends: Backends, rounds: int, names: tuple[str, ...]) -> None:
    """All rows moved and flushed, by everybody; processes are made anew several times."""
    processes = {"bare": "bare", "bare, a twin": "bare"} | {label: peer for peer, label in present().items()}
    for name in names:
        backend = backends.get(name)
        if isinstance(backend, str):
            note(f"skipped: {backend}")
        else:
            _flushes(backend, rounds, processes)
    note("measured: moving 2,000 loaded objects, each in its own way, and the flush")
    note("attaching: adding an object to a machine, or making one for it, whenever it is loaded")


def _flushes(backend: Backend, rounds: int, processes: Mapping[str, str]) -> None:
    assert isinstance(backend.engine, sa.Engine)
    # In memory nothing is as quick as SQLite, and so nothing would show a cost more plainly.
    url = "sqlite://" if backend.name == "sqlite" else backend.engine.url.render_as_string(hide_password=False)
    samples: defaultdict[str, list[float]] = defaultdict(list)
    generations = max(1, rounds // ROUNDS_EACH)
    for _ in range(generations):
        workers = {
            label: Worker("flush", peer, f"peer_{at}", url, module=MODULE)
            for at, (label, peer) in enumerate(processes.items())
        }
        variants: dict[str, Variant] = {}
        for label, worker in workers.items():
            peer = processes[label]
            try:
                worker.measure(FLUSH)  # whether the peer works here at all
            except (RuntimeError, OSError):
                note(f"skipped: {label} does not work here; what it had to say is above")
                continue
            variants[label] = partial(worker.measure, FLUSH)
            if peer in ATTACHED:
                variants[f"{peer}, and attaching"] = partial(worker.measure, ATTACH_AND_FLUSH)
        processes = {label: peer for label, peer in processes.items() if label in variants}
        for label, seconds in in_turn(variants, rounds // generations, between=backend.sweep).items():
            samples[label] += seconds
        for worker in workers.values():
            worker.close()
    show("in memory" if backend.name == "sqlite" else backend.name, samples, base="bare")


def serve_flushes(peer: str, table: str, url: str) -> None:
    """Measure what is asked for on the standard input, until nobody asks any more."""
    options: dict[str, Any] = {"poolclass": StaticPool} if url == "sqlite://" else {}
    engine = sa.create_engine(url, **options)
    base = new_base()
    used = PEERS[peer](base, table)
    base.metadata.drop_all(engine)  # what the process had before whose place this one takes
    base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection, used.model)
        if engine.dialect.name == "postgresql":  # it is swept between the rounds
            connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    for line in sys.stdin:
        print(_measure(used, engine, attach=line.strip() == ATTACH_AND_FLUSH), flush=True)
    engine.dispose()


def _measure(used: Used, engine: sa.Engine, *, attach: bool) -> float:
    promote = used.moves[GOAL]
    with Session(engine) as session:
        objects = session.scalars(sa.select(used.model)).all()
        if not attach:
            used.attach(objects)

        def work() -> None:
            if attach:
                used.attach(objects)
            for each in objects:
                promote(each)
            session.flush()

        seconds = timed(work)
        used.detach(objects)
        moved = sa.select(sa.func.count()).select_from(used.model).where(used.model.status == GOAL)
        assert session.scalar(moved) == ROWS
        session.rollback()
    return seconds


# --- what passes ------------------------------------------------------------------------------------------------------


class Row:
    """One row that somebody tries to move."""

    def __init__(self, used: Used, engine: sa.Engine, key: int, state: str) -> None:
        self.used = used
        self.engine = engine
        self.key = key
        self.table: sa.Table = used.model.__table__
        with engine.begin() as connection:  # as text, which nobody holds to anything
            insertion = sa.text(f"INSERT INTO {self.table.name} (id, status, subject) VALUES (:key, :state, 'x')")
            connection.execute(insertion, {"key": key, "state": state})

    def state(self) -> str:
        """Return what the database says."""
        with self.engine.connect() as connection:
            query = sa.text(f"SELECT status FROM {self.table.name} WHERE id = :key")
            return str(connection.execute(query, {"key": self.key}).scalar_one())

    def load(self, session: Session) -> Any:
        """Return the object, ready to be moved in the peer's way."""
        found = session.get_one(self.used.model, self.key)
        self.used.attach([found])
        return found


def by_method(row: Row) -> None:
    """Make the move in the peer's own way."""
    with Session(row.engine) as session:
        row.used.moves[ILLEGAL](row.load(session))
        session.commit()


def by_assignment(row: Row) -> None:
    """Assign to the attribute, and flush."""
    with Session(row.engine) as session:
        row.load(session).status = ILLEGAL
        session.commit()


def by_update(row: Row) -> None:
    """Write an ``update()`` of the class."""
    with Session(row.engine) as session:
        session.execute(sa.update(row.used.model).where(row.used.model.id == row.key).values(status=ILLEGAL))
        session.commit()


def by_core_update(row: Row) -> None:
    """Write an ``update()`` of the table."""
    with row.engine.begin() as connection:
        connection.execute(sa.update(row.table).where(row.table.c.id == row.key).values(status=ILLEGAL))


def by_upsert(row: Row) -> None:
    """Insert what is there already; a row that was really new would be in a state in which rows begin."""
    statement = insert(row.table).values(id=row.key, status=START, subject="y")
    with row.engine.begin() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"status": ILLEGAL}))


def by_race(row: Row) -> None:
    """Load the row in two sessions, and make two moves, each of them legal as far as its session knows."""
    with Session(row.engine) as first, Session(row.engine) as second:
        mine, other = row.load(first), row.load(second)
        row.used.moves[GOAL](mine)
        first.commit()
        row.used.moves[ILLEGAL](other)
        second.commit()


OWN = "its own method"

WAYS: dict[str, tuple[Callable[[Row], None], str]] = {
    # what it is called: (how it is done, the state that the row is in before it)
    OWN: (by_method, GOAL),
    "assignment": (by_assignment, GOAL),
    "update(Class)": (by_update, GOAL),
    "update(table)": (by_core_update, GOAL),
    "upsert": (by_upsert, GOAL),
    "race": (by_race, START),
}


def outcome(found: str, error: Exception | None, refusals: tuple[type[Exception], ...]) -> str:
    """Return what became of an attempt.

    Args:
        found: the state in which the row was afterwards.
        error: what was raised.
        refusals: what would be a refusal.

    >>> outcome("SPAM_REVIEW", None, ()), outcome("PROMOTED", None, ())
    ('passes', 'left as it is')
    >>> outcome("PROMOTED", ValueError("no"), (ValueError,)), outcome("PROMOTED", ValueError("no"), (TypeError,))
    ('blocked (ValueError)', 'ValueError: no; the row is PROMOTED')
    """
    if error is None and found in (ILLEGAL, GOAL):
        return "passes" if found == ILLEGAL else "left as it is"
    if isinstance(error, refusals) and found == GOAL:
        return f"blocked ({type(error).__name__})"
    said = "no error" if error is None else f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return f"{said}; the row is {found}"


def try_all(peer: str) -> None:
    """Try all the ways, and print as JSON what became of each."""
    with tempfile.TemporaryDirectory(prefix="statekit-bench-") as folder:
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(Path(folder, "peer.sqlite"))))
        base = new_base()
        used = PEERS[peer](base, "Peer")
        base.metadata.create_all(engine)
        # Whoever cannot even make a legal move prevents nothing by refusing the others.
        row = Row(used, engine, 0, START)
        with Session(engine) as session:
            used.moves[GOAL](row.load(session))
            session.commit()
        if row.state() != GOAL:
            raise RuntimeError(f"a legal move has left the row {row.state()}")
        outcomes = {}
        for key, (way, (attempt, state)) in enumerate(WAYS.items(), start=1):
            row = Row(used, engine, key, state)
            raised = None
            try:
                attempt(row)
            except Exception as error:
                raised = error
            outcomes[way] = outcome(row.state(), raised, used.refusals)
        engine.dispose()
    print(json.dumps(outcomes))


def passes() -> None:
    """Show what each peer does about each way from PROMOTED to SPAM_REVIEW."""
    tried: dict[str, dict[str, str]] = {}
    for peer, label in present().items():
        command = [sys.executable, "-m", MODULE, "try", peer]
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if process.returncode == 0:
            tried[label] = json.loads(process.stdout)
        else:
            said = process.stderr.strip().splitlines() or ["it said nothing"]
            note(f"skipped: {label}: {said[-1]}")
    ways = [way for way in WAYS if way != OWN]
    lines = [["", *ways], *([label, *(outcomes[way] for way in ways)] for label, outcomes in tried.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)
    note(f"the same move by {OWN}:")  # to see that each is in force at all
    for label, outcomes in tried.items():
        note(f"  {label}: {outcomes[OWN]}")


def main(arguments: list[str]) -> None:
    """Show both tables; or be one of the processes that they are made by."""
    match arguments:
        case ["flush", peer, table, url]:
            serve_flushes(peer, table, url)
        case ["try", peer]:
            try_all(peer)
        case _:
            from tests.benchmarks.__main__ import main as run

            run([*arguments, "peers"])


if __name__ == "__main__":
    main(sys.argv[1:])
