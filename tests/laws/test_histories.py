"""Laws of the guard: random tables and random histories against a plain model of what should be.

The model knows nothing of SQLAlchemy: rows are a dictionary of id to state, a transaction is a copy of it, and a flush
walks over what was assigned. After each history, the database must hold what the model says, and the counts must be
those of the model, move by move.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import event, given, note
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from statekit import IllegalTransition, TransitionTable, counts, operation
from tests.guards.inbox import fill, message_class, stored
from tests.support.databases import empty

NAMES = ["A", "B", "C", "D", "E"]
ROWS = 4


@st.composite
def tables(draw: st.DrawFn) -> TransitionTable:
    """Any table of up to five states, of which some may be unknown to it."""
    pairs = [(source, target) for source in NAMES for target in NAMES if source != target]
    return TransitionTable(*draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=8, unique=True)))


row = st.integers(1, ROWS)
actions = st.one_of(
    st.tuples(st.just("assign"), row, st.sampled_from(NAMES)),
    st.tuples(st.just("assign"), row, st.sampled_from(NAMES)),
    st.tuples(st.just("subject"), row, st.just("")),
    st.tuples(st.sampled_from(["expire", "refresh", "expunge"]), row, st.just("")),
    st.tuples(st.just("add"), st.integers(ROWS + 1, ROWS + 4), st.sampled_from(NAMES)),
    st.tuples(
        st.sampled_from(["flush", "flush", "flush", "commit", "rollback", "savepoint", "release", "undo"]),
        st.just(0),
        st.just(""),
    ),
)


@dataclass
class Model:
    """What should be."""

    table: TransitionTable
    mode: str
    committed: dict[int, str]
    rows: dict[int, str] = field(default_factory=dict)
    savepoints: list[dict[int, str]] = field(default_factory=list)
    assigned: dict[int, str] = field(default_factory=dict)
    added: dict[int, str] = field(default_factory=dict)
    blocked: Counter[Any] = field(default_factory=Counter)
    observed: Counter[Any] = field(default_factory=Counter)
    allowed: Counter[Any] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rows = dict(self.committed)

    def flush(self) -> bool:
        """Judge and write what was assigned; return whether the flush is refused."""
        moves = {n: (self.rows[n], new) for n, new in self.assigned.items() if self.rows[n] != new}
        illegal = {n: pair for n, pair in moves.items() if not self.table.allows(*pair)}
        strange = {n: state for n, state in self.added.items() if state not in self.table.initial}
        if self.mode == "observe":
            self.observed.update(illegal.values())
            self.observed.update((None, state) for state in strange.values())
        elif strange or (illegal and self.mode == "raise"):
            if self.mode == "raise":
                self.blocked.update(illegal.values())
            self.blocked.update((None, state) for state in strange.values())
            return True
        else:
            self.blocked.update(illegal.values())
        for n, pair in moves.items():
            if n not in illegal:
                self.allowed[pair] += 1
            if n not in illegal or self.mode == "observe":
                self.rows[n] = pair[1]
        self.rows.update(self.added)
        self.assigned.clear()
        self.added.clear()
        return False

    def forget_changes(self) -> None:
        self.assigned.clear()
        self.added.clear()


class Machine:
    """The same history through a session."""

    def __init__(self, engine: sa.Engine, message: Any, model: Model) -> None:
        self.session = Session(engine, autoflush=False)
        self.message = message
        self.model = model
        self.savepoints: list[Any] = []

    def flush(self) -> bool:
        refused = self.model.flush()
        try:
            self.session.flush()
        except IllegalTransition:
            assert refused
            # As somebody does who catches the error: the changes are given up, the transaction goes on.
            for new in list(self.session.new):
                self.session.expunge(new)
            self.session.expire_all()
            self.model.forget_changes()
            return False
        assert not refused
        return True

    def take(self, action: str, number: int, state: str) -> None:
        session, model = self.session, self.model
        if action in ("assign", "subject", "expire", "refresh", "expunge"):
            obj = session.get(self.message, number)
            assert obj is not None
            if action == "assign":
                obj.status = state
                model.assigned[number] = state
            elif action == "subject":
                obj.subject = f"changed {len(model.assigned)}"
            elif action == "expunge":
                session.expunge(obj)
                model.assigned.pop(number, None)
            else:
                getattr(session, action)(obj)
                model.assigned.pop(number, None)
        elif action == "add":
            if number not in model.rows and number not in model.added:
                session.add(self.message(id=number, status=state))
                model.added[number] = state
        elif action == "flush":
            self.flush()
        elif action == "commit":
            if self.flush():
                session.commit()
                self.savepoints.clear()
                model.savepoints.clear()
                model.committed = dict(model.rows)
        elif action == "rollback":
            session.rollback()
            self.savepoints.clear()
            model.savepoints.clear()
            model.rows = dict(model.committed)
            model.forget_changes()
        elif action == "savepoint":
            if self.flush():
                self.savepoints.append(session.begin_nested())
                model.savepoints.append(dict(model.rows))
        elif action == "release" and self.savepoints:
            if self.flush():
                self.savepoints.pop().commit()
                model.savepoints.pop()
        elif action == "undo" and self.savepoints:
            self.savepoints.pop().rollback()
            model.rows = model.savepoints.pop()
            model.forget_changes()
            session.expire_all()
            for new in list(session.new):
                session.expunge(new)

    def finish(self) -> None:
        self.session.rollback()
        self.session.close()


histories = given(
    table=tables(),
    mode=st.sampled_from(["raise", "skip", "observe"]),
    start=st.lists(st.sampled_from(NAMES), min_size=ROWS, max_size=ROWS),
    history=st.lists(actions, max_size=25),
)


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
@histories
def test_the_database_holds_what_the_model_says_and_counts_are_exact(
    engine: sa.Engine, table: TransitionTable, mode: Any, start: list[str], history: list[tuple[str, int, str]]
) -> None:
    empty(engine)
    if engine.dialect.name == "sqlite":
        begin_for_real(engine)
    message = message_class(table=table, on_illegal=mode, default=None)
    fill(engine, message, *start)
    model = Model(table, mode, dict(enumerate(start, 1)))
    machine = Machine(engine, message, model)
    with operation("History") as op:
        try:
            for action in history:
                note(f"{action}")
                event(action[0])
                machine.take(*action)
        finally:
            machine.finish()
    assert stored(engine, message) == [state for _, state in sorted(model.committed.items())]
    assert counts(message.status) == op.blocked == model.blocked
    assert op.observed == model.observed
    assert op.allowed == model.allowed


def begin_for_real(engine: sa.Engine) -> None:
    """Make SAVEPOINT work with sqlite3, as SQLAlchemy's documentation of the dialect says."""
    if sa.event.contains(engine, "begin", _begin):
        return
    sa.event.listen(engine, "connect", _leave_transactions_alone)
    sa.event.listen(engine, "begin", _begin)
    engine.dispose()


def _leave_transactions_alone(connection: Any, record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
