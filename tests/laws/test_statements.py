"""Laws of statements: random programs of writes on several connections against a plain model of what should be.

The model knows nothing of SQLAlchemy and nothing of statekit: rows are dictionaries, a table is a set of pairs, and a
statement is a list of sets, each of which says which rows it matches and what it gives them. After each step the error,
the row count, the counters, the objects in the session and the whole table must be what the model says.
"""

from __future__ import annotations

import enum
import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import event, given, note
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased, mapped_column

from statekit import IllegalTransition, TransitionTable, counts, guard, operation
from tests.guards.inbox import new_base, unguarded
from tests.laws.test_histories import begin_for_real

# --- the tables -------------------------------------------------------------------------------------------------------

Text = str | None
Row = dict[str, Any]
Refusal = tuple[str, bool, tuple[Text, Text]]
"""A guarded column, whether the row is a new one, and the move."""

STRANGE = "ZZZ"
"""A state that no table knows."""

ANY: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Rules:
    """A transition table as plain data."""

    states: tuple[Text, ...]
    pairs: frozenset[tuple[Text, Text]]
    initial: tuple[Text, ...]

    def declared(self) -> TransitionTable:
        initial: Any = {} if self.initial == self.states else {"initial": self.initial}
        return TransitionTable(*sorted(self.pairs, key=str), states=self.states, **initial)


def rules(*pairs: tuple[Text, Text], initial: tuple[Text, ...] = ANY) -> Rules:
    states = tuple(dict.fromkeys(state for pair in pairs for state in pair))
    return Rules(states, frozenset(pairs), initial or states)


RULES = {
    "branch": rules(("A", "B"), ("B", "C"), ("A", "D"), initial=("A",)),
    "cycle": rules(("A", "B"), ("B", "C"), ("C", "A"), initial=("A", "B")),
    "null": rules((None, "A"), ("A", "B"), ("B", None), ("B", "C"), initial=(None, "A")),
    "case": rules(("new", "NEW"), ("NEW", "DONE"), ("DONE", "new")),
    "five": rules(("A", "B"), ("B", "C"), ("C", "D"), ("D", "E"), ("E", "A"), ("B", "D"), initial=("A", "E")),
}
DELIVERY = rules(("X", "Y"), ("Y", "Z"), ("Z", "X"), initial=("X", "Y"))
MODES = ("raise", "skip", "observe")

# rules, mode, type of the column, mode of a second guarded column, default of the state
VARIANTS = [
    ("branch", "raise", "text", None, ("scalar", "A")),
    ("branch", "skip", "enum", "raise", None),
    ("branch", "observe", "enum_text", "skip", ("sql", "A")),
    ("branch", "skip", "text", "skip", ("callable", "B")),
    ("cycle", "raise", "enum_text", "skip", ("callable", "A")),
    ("cycle", "skip", "text", None, ("server", "C")),
    ("cycle", "observe", "enum", None, ("scalar", "C")),
    ("cycle", "raise", "enum", "observe", ("server", "A")),
    ("null", "raise", "text", "raise", None),
    ("null", "skip", "enum_text", None, ("scalar", "B")),
    ("null", "observe", "text", "raise", None),
    ("null", "skip", "enum", "observe", ("sql", "A")),
    ("case", "raise", "text", None, ("callable", "new")),
    ("case", "skip", "text", "observe", ("scalar", "NEW")),
    ("case", "observe", "text", None, ("server", "new")),
    ("five", "raise", "enum", None, ("sql", "E")),
    ("five", "skip", "text", None, ("scalar", "A")),
    ("five", "observe", "text", "skip", ("callable", "B")),
]
MISSING: Any = object()


class Variant:
    """One guarded model, and what the test knows about it."""

    def __init__(self, number: int) -> None:
        name, mode, kind, second, default = VARIANTS[number]
        self.columns = {"status": RULES[name]} | ({"delivery": DELIVERY} if second else {})
        self.modes: dict[str, Any] = {"status": mode} | ({"delivery": second} if second else {})
        self.default = default
        self.kind = kind
        self.enum = None
        type_: Any = sa.String(20)
        if kind != "text":
            names = [state for state in RULES[name].states if state is not None]
            self.enum = enum.Enum(f"State{number}", {state: f"value of {state}" for state in names})  # type: ignore[misc]
            type_ = sa.Enum(self.enum, name=f"law_state_{number}", native_enum=kind == "enum", length=20)
        self.types = {"status": type_, "wanted": type_, "delivery": sa.String(20)}
        self.model, self.hint = self._classes(number, type_)
        self.table = self.model.__table__
        for column, rule in self.columns.items():
            guard(getattr(self.model, column), rule.declared(), on_illegal=self.modes[column])
        bare = unguarded(self.table)
        self.bare = bare
        states = [sa.cast(bare.c[name], sa.String(20)).label(name) for name in ("status", "delivery", "wanted")]
        self.everything = sa.select(bare.c.id, bare.c.code, bare.c.grp, bare.c.note, *states)

    def _classes(self, number: int, type_: Any) -> Any:
        base = new_base()

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = f"law_message_{number}"
            id = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
            code = mapped_column(sa.Integer, unique=True)
            status = mapped_column(type_, nullable=True, **self._default_option(type_))
            delivery = mapped_column(sa.String(20), default="X")
            wanted = mapped_column(type_, nullable=True)
            grp = mapped_column(sa.Integer)
            note = mapped_column(sa.String(20), default="")

        class Hint(base):  # type: ignore[misc, valid-type]
            __tablename__ = f"law_hint_{number}"
            id = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
            grp = mapped_column(sa.Integer)
            seq = mapped_column(sa.Integer)
            target = mapped_column(type_, nullable=True)

        return Message, Hint

    def _default_option(self, type_: Any) -> Any:
        if self.default is None:
            return {}
        kind, text = self.default
        value = self.value("status", text)
        if kind == "scalar":
            return {"default": value}
        if kind == "callable":
            return {"default": lambda: value}
        return {"default": sa.literal(value, type_)} if kind == "sql" else {"server_default": text}

    def value(self, column: str, text: Text) -> Any:
        """Return what Python gives to a column for a state."""
        return self.enum[text] if self.enum is not None and text is not None and column != "delivery" else text

    def literal(self, column: str, text: Text) -> Any:
        return sa.literal(self.value(column, text), self.types[column])

    def pool(self, column: str, *, strange: bool = True) -> list[Text]:
        if column == "delivery":
            return list(DELIVERY.states)
        states = list(self.columns["status"].states)
        states += [None, *states] if None in states else states
        return [*states, STRANGE] if strange and self.enum is None else states

    def pick(self, column: str, number: int) -> Text:
        pool = self.pool(column)
        return pool[number % len(pool)]


@functools.cache
def variant(number: int) -> Variant:
    return Variant(number)


# --- the model of what should be --------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a statement does to its rows."""

    fatal: Counter[Refusal] = field(default_factory=Counter)
    left: Counter[Refusal] = field(default_factory=Counter)
    allowed: Counter[Refusal] = field(default_factory=Counter)
    observed: Counter[Refusal] = field(default_factory=Counter)
    written: list[int] = field(default_factory=list)
    refused: dict[tuple[str, bool], list[tuple[int, tuple[Text, Text]]]] = field(default_factory=dict)
    unclear: bool = False
    """Whether a new row is proposed once more after it was refused."""


Given = dict[str, Callable[[Row], Any]]
Set = tuple[Callable[[Row], bool], Given]


@dataclass
class Block:
    """An open operation."""

    mode: str | None
    allowed: Counter[Any] = field(default_factory=Counter)
    blocked: Counter[Any] = field(default_factory=Counter)
    observed: Counter[Any] = field(default_factory=Counter)


@dataclass
class Reference:
    """The rows and the counters."""

    rules: dict[str, Rules]
    modes: dict[str, str]
    hints: list[Row]
    rows: dict[int, Row]
    committed: dict[int, Row] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    blocked: dict[str, Counter[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit()
        self.blocked = {column: Counter() for column in self.rules}

    def commit(self) -> None:
        self.committed = deepcopy(self.rows)

    def rollback(self) -> None:
        self.rows = deepcopy(self.committed)

    def mode(self, column: str) -> str:
        for block in reversed(self.blocks):
            if block.mode is not None:
                return block.mode
        return self.modes[column]

    def _passes(self, tally: Tally, key: int, moves: dict[str, tuple[Text, Text]], new: bool) -> bool:
        legal = {
            column: pair[1] in self.rules[column].initial if new else pair in self.rules[column].pairs
            for column, pair in moves.items()
            if new or pair[0] != pair[1]
        }
        refused = [column for column, is_legal in legal.items() if not is_legal and self.mode(column) != "observe"]
        for column in refused:
            fatal = new or self.mode(column) == "raise"
            (tally.fatal if fatal else tally.left)[column, new, moves[column]] += 1
            tally.refused.setdefault((column, new), []).append((key, moves[column]))
        if refused:
            return False
        for column, is_legal in legal.items():
            if is_legal and not new:
                tally.allowed[column, new, moves[column]] += 1
            elif not is_legal:
                tally.observed[column, new, moves[column]] += 1
        tally.written.append(key)
        return True

    def lets_pass(self, column: str, source: Text, target: Text) -> bool:
        """Return whether the fence lets a move pass about which nothing was asked."""
        return source == target or self.mode(column) == "observe" or (source, target) in self.rules[column].pairs

    def _update(self, tally: Tally, row: Row, values: dict[str, Any]) -> None:
        moves = {column: (row[column], values[column]) for column in self.rules if column in values}
        if self._passes(tally, row["id"], moves, False):
            row.update(values)

    def _insert(self, tally: Tally, rows: dict[int, Row], new: Row) -> None:
        if self._passes(tally, new["id"], {column: (None, new[column]) for column in self.rules}, True):
            rows[new["id"]] = dict(new)

    def _end(self, tally: Tally, rows: dict[int, Row]) -> Tally:
        if tally.fatal:
            self._count("blocked", tally.fatal)
            return tally
        self.rows = rows
        self._count("blocked", tally.left)
        self._count("allowed", tally.allowed)
        self._count("observed", tally.observed)
        return tally

    def _count(self, kind: str, counted: Counter[Refusal]) -> None:
        for (column, _, pair), number in counted.items():
            if kind == "blocked":
                self.blocked[column][pair] += number
            for block in self.blocks:
                getattr(block, kind)[pair] += number

    def update(self, sets: Iterable[Set]) -> Tally:
        """One UPDATE with one or several sets."""
        tally, rows = Tally(), deepcopy(self.rows)
        for matches, values in sets:
            for row in [row for _, row in sorted(rows.items()) if matches(row)]:
                self._update(tally, row, {column: value(row) for column, value in values.items()})
        return self._end(tally, rows)

    def insert(self, new: Iterable[Row]) -> Tally:
        """One INSERT of rows that are not there."""
        tally, rows = Tally(), deepcopy(self.rows)
        for each in new:
            self._insert(tally, rows, each)
        return self._end(tally, rows)

    def flush(self, changed: dict[int, dict[str, Any]], new: Iterable[Row]) -> Tally:
        tally, rows = Tally(), deepcopy(self.rows)
        for key, values in changed.items():
            self._update(tally, rows[key], values)
        for each in new:
            self._insert(tally, rows, each)
        return self._end(tally, rows)

    def upsert(
        self,
        proposed: Iterable[Row],
        updates: dict[str, Callable[[Row, Row], Any]] | None,
        where: Callable[[Row, Row], bool],
    ) -> Tally:
        """One INSERT … ON CONFLICT."""
        tally, rows = Tally(), deepcopy(self.rows)
        refused = set()
        for each in proposed:
            there = rows.get(each["id"])
            if there is None:
                tally.unclear = tally.unclear or each["id"] in refused
                self._insert(tally, rows, each)
                if each["id"] not in rows:
                    refused.add(each["id"])
            elif updates is not None and where(there, each):
                self._update(tally, there, {column: value(there, each) for column, value in updates.items()})
        return self._end(tally, rows)


def equal(one: Any, other: Any) -> bool:
    """Return whether SQL takes two values for equal."""
    return one is not None and other is not None and bool(one == other)


# --- the program ------------------------------------------------------------------------------------------------------

ROWS = 5
HINTS = [(1, 1, 0), (2, 2, 0), (3, 1, 1), (4, 2, 1)]  # id, grp, seq; nothing hints at the rows of group 3


@dataclass(frozen=True)
class Step:
    path: str
    who: int
    rows: list[int]
    targets: list[int]
    value: str
    where: str
    sync: Any
    block: str
    before: str
    after: str
    nested: str
    extra: int
    load: list[int]
    second: bool


VALUES = ["bound", "bound", "parameter", "literal", "case", "case_state", "upper", "lower", "coalesce"]
VALUES += ["subquery", "correlated", "itself", "other", "null"]
WHERES = ["ids", "ids", "all", "grp", "state", "both", "exists", "in_select", "all", "text", "or", "not_state"]
PATHS: dict[str, Callable[[Machine, Step], Plan]] = {}

numbers = st.integers(0, 11)


def steps() -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        path=st.sampled_from(list(PATHS)),
        who=st.integers(0, 2),
        rows=st.lists(st.integers(1, 8), min_size=1, max_size=5),
        targets=st.lists(numbers, min_size=5, max_size=5),
        value=st.sampled_from(VALUES),
        where=st.sampled_from(WHERES),
        sync=st.sampled_from(["auto", "evaluate", "fetch", False]),
        block=st.sampled_from(["no", "no", "plain", *MODES]),
        before=st.sampled_from(["commit", "rollback"]),
        after=st.sampled_from(["stay", "stay", "commit", "rollback"]),
        nested=st.sampled_from(["no", "no", "no", "release", "rollback"]),
        extra=st.integers(0, 23),
        load=st.lists(st.integers(1, 6), max_size=4, unique=True),
        second=st.booleans(),
    )


@dataclass
class Program:
    variant: int
    start: list[tuple[int, int, int, int]]
    hints: list[int]
    outer: str
    steps: list[Step]


def programs() -> st.SearchStrategy[Program]:
    return st.builds(
        Program,
        variant=st.integers(0, len(VARIANTS) - 1),
        start=st.lists(st.tuples(numbers, st.integers(1, 3), numbers, st.integers(0, 2)), min_size=ROWS, max_size=ROWS),
        hints=st.lists(numbers, min_size=len(HINTS), max_size=len(HINTS)),
        outer=st.sampled_from(["no", "plain", *MODES]),
        steps=st.lists(steps(), min_size=1, max_size=12),
    )


@dataclass
class Seen:
    """What a step gave."""

    rowcount: int | None = None
    returned: list[Any] | None = None


@dataclass
class Plan:
    """A step: what should come of it, and how to do it.

    Attributes:
        tally: what should come of it.
        act: does it.
        returned: what RETURNING should give.
        synced: whether SQLAlchemy keeps the objects in the session up to date.
        is_undone: whether an error undoes the whole transaction, or savepoint, as SQLAlchemy has it.
        is_one: whether it is one UPDATE with one set, of which the error names the rows by key.
    """

    tally: Tally
    act: Callable[[Any], Seen]
    returned: list[Any] | None = None
    synced: bool = False
    is_undone: bool = False
    is_one: bool = False


def path(function: Callable[[Machine, Step], Plan]) -> Callable[[Machine, Step], Plan]:
    PATHS[function.__name__] = function
    return function


CORE = {"core_update", "core_many_by_key", "core_many_by_group", "insert_many", "upsert", "upsert_select"}
CORE |= {
    "lambda_update",
    "update_in_a_cte",
    "as_text",
    "insert_one",
    "insert_values",
    "insert_select",
    "update_from",
    "update_from_many",
}
"""Paths that a plain connection may take, too."""


class Machine:
    """The same program through SQLAlchemy."""

    def __init__(self, engine: sa.Engine, program: Program) -> None:
        self.engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"
        self.v = variant(program.variant)
        hints = [
            {"id": id_, "grp": grp, "seq": seq, "target": self.v.pick("status", number)}
            for (id_, grp, seq), number in zip(HINTS, program.hints, strict=True)
        ]
        rows = {
            number: {
                "id": number,
                "code": number + 100,
                "status": self.v.pick("status", status),
                "delivery": DELIVERY.states[delivery],
                "wanted": self.v.pick("status", wanted),
                "grp": grp,
                "note": "xy"[number % 2],
            }
            for number, (status, grp, wanted, delivery) in enumerate(program.start, 1)
        }
        self.reference = Reference(self.v.columns, self.v.modes, hints, rows)
        self._fill()
        self.before = {column: counts(getattr(self.v.model, column)) for column in self.v.columns}
        self.actors: list[Any] = [Session(engine, autoflush=False), Session(engine, autoflush=False), engine.connect()]
        self.held: list[list[Any]] = [[], [], []]
        self.open: int | None = None
        self.number = 0

    def _fill(self) -> None:
        metadata = self.v.model.metadata
        made = _made.setdefault(self.engine, set())
        if metadata not in made:
            metadata.create_all(self.engine)
            made.add(metadata)
        rows = [self._stored(row) for row in self.reference.rows.values()]
        hints = [row | {"target": self.v.value("status", row["target"])} for row in self.reference.hints]
        with self.engine.begin() as connection:
            connection.execute(sa.delete(self.v.bare))
            connection.execute(sa.delete(self.v.hint.__table__))
            connection.execute(sa.insert(self.v.bare), rows)
            connection.execute(sa.insert(self.v.hint.__table__), hints)

    def _stored(self, row: Row) -> Row:
        return {key: self.v.value(key, each) if key in self.v.types else each for key, each in row.items()}

    # -- conditions and values, in SQL and in Python

    def ids(self, step: Step, *, there: bool = False) -> list[int]:
        """Return ids without duplicates, which may be those of no row."""
        return [each for each in dict.fromkeys(step.rows) if not there or each in self.reference.rows]

    def new_ids(self, step: Step) -> list[int]:
        return [each for each in dict.fromkeys(number + 5 for number in step.rows) if each not in self.reference.rows]

    def where(self, step: Step, m: Any, *, evaluable: bool = False) -> tuple[Any, Callable[[Row], bool]]:
        ids, kind, hint = self.ids(step), step.where, aliased(self.v.hint)
        state, grp = self.v.pick("status", step.targets[4]), step.extra % 3 + 1
        if evaluable and kind in ("exists", "in_select", "text"):
            kind = "ids"
        is_state = m.status.is_(None) if state is None else m.status == self.v.value("status", state)
        hinted = [row["id"] for row in self.reference.hints if row["grp"] == grp]
        hints = {(row["grp"], row["target"]) for row in self.reference.hints if row["target"] is not None}
        choices: dict[str, Any] = {
            "ids": lambda: (m.id.in_(ids), lambda row: row["id"] in ids),
            "grp": lambda: (m.grp == grp, lambda row: row["grp"] == grp),
            "state": lambda: (is_state, lambda row: row["status"] == state),
            "not_state": lambda: (
                m.status.is_not(None) if state is None else m.status != self.v.value("status", state),
                lambda row: row["status"] is not None and row["status"] != state,
            ),
            "both": lambda: (
                sa.and_(m.grp <= grp, m.id >= ids[0]),
                lambda row: row["grp"] <= grp and row["id"] >= ids[0],
            ),
            "exists": lambda: (
                sa.exists().where(hint.grp == m.grp, hint.target == m.status),
                lambda row: (row["grp"], row["status"]) in hints,
            ),
            "in_select": lambda: (
                m.id.in_(sa.select(hint.id).where(hint.grp == grp)),
                lambda row: row["id"] in hinted,
            ),
            "all": lambda: (None, lambda row: True),
            "text": lambda: (
                sa.text(f"id = {ids[0]} OR grp = {grp}"),
                lambda row: row["id"] == ids[0] or row["grp"] == grp,
            ),
            "or": lambda: (
                sa.or_(m.id == ids[0], m.note == "x"),
                lambda row: row["id"] == ids[0] or row["note"] == "x",
            ),
        }
        return choices[kind]()  # type: ignore[no-any-return]

    def value(self, step: Step, m: Any, column: str = "status") -> tuple[Any, Callable[[Row], Text], dict[str, Any]]:
        """Return a value in SQL, what it is for a row, and the parameters that it wants."""
        v, hint, kind = self.v, aliased(self.v.hint), step.value
        one, two, three = (v.pick(column, number) for number in step.targets[:3])
        if kind in ("upper", "lower") and v.enum is not None:
            kind = "coalesce"
        if kind == "null" and None not in self.v.columns["status"].states:
            kind = "bound"

        def hinted(grp: int) -> Text:
            found = [row["target"] for row in self.reference.hints if row["grp"] == grp and row["seq"] == 0]
            return found[0] if found else None

        def changed(row: Row, how: Callable[[str], str]) -> Text:
            return None if row["status"] is None else how(row["status"])

        grp = step.extra % 3 + 1
        is_two = m.status.is_(None) if two is None else m.status == v.value("status", two)
        choices: dict[str, Any] = {
            "bound": lambda: (v.value(column, one), lambda row: one),
            "parameter": lambda: (sa.bindparam("law_state", type_=v.types[column]), lambda row: one),
            "literal": lambda: (v.literal(column, one), lambda row: one),
            "case": lambda: (
                sa.cast(
                    sa.case((m.note == "x", v.literal(column, one)), else_=v.literal(column, two)), v.types[column]
                ),
                lambda row: one if row["note"] == "x" else two,
            ),
            "case_state": lambda: (
                sa.case((is_two, v.literal(column, three)), else_=m.status),
                lambda row: three if row["status"] == two else row["status"],
            ),
            "upper": lambda: (sa.func.upper(m.status), lambda row: changed(row, str.upper)),
            "lower": lambda: (sa.func.lower(m.status), lambda row: changed(row, str.lower)),
            "coalesce": lambda: (
                sa.func.coalesce(m.wanted, v.literal(column, one)),
                lambda row: one if row["wanted"] is None else row["wanted"],
            ),
            "subquery": lambda: (
                sa.select(hint.target).where(hint.grp == grp, hint.seq == 0).scalar_subquery(),
                lambda row: hinted(grp),
            ),
            "correlated": lambda: (
                sa.select(hint.target).where(hint.grp == m.grp, hint.seq == 0).scalar_subquery(),
                lambda row: hinted(row["grp"]),
            ),
            "itself": lambda: (m.status, lambda row: row["status"]),
            "other": lambda: (m.wanted, lambda row: row["wanted"]),
            "null": lambda: (sa.null() if step.extra % 2 else None, lambda row: None),
        }
        sql, python = choices[kind]()
        return sql, python, {"law_state": v.value(column, one)} if kind == "parameter" else {}

    def given(self, step: Step, m: Any, *, parameters: bool = True) -> tuple[dict[str, Any], Given, dict[str, Any]]:
        """Return the values of an UPDATE, in SQL, in Python, and the parameters."""
        if not parameters and step.value == "parameter":
            step = Step(**(vars(step) | {"value": "bound"}))
        sql, python, named = self.value(step, m)
        values: dict[str, Any] = {"status": sql}
        models: Given = {"status": python}
        self._second(step, values, models)
        return values, models, named

    def _second(self, step: Step, values: dict[str, Any], models: Given) -> None:
        text = f"n{self.number}"
        if step.extra % 4:
            values["note"] = text
            models["note"] = lambda row: text
        if step.second and "delivery" in self.v.columns:
            delivery = self.v.pick("delivery", step.targets[3])
            values["delivery"] = delivery
            models["delivery"] = lambda row: delivery
            if step.extra % 7 == 6:
                del values["status"], models["status"]
        elif step.extra == 15:
            del values["status"], models["status"]

    def sets(self, step: Step, keys: Sequence[int], prefix: str = "") -> tuple[list[Row], list[Set]]:
        """Return sets of parameters, one for each key, and what they mean."""
        parameters, meaning = [], []
        for number, key in enumerate(keys):
            state = self.v.pick("status", step.targets[number % 5])
            each: Row = {f"{prefix}status": self.v.value("status", state), f"{prefix}note": f"n{self.number}.{number}"}
            plain: Row = {"status": state, "note": f"n{self.number}.{number}"}
            if step.second and "delivery" in self.v.columns:
                plain["delivery"] = each[f"{prefix}delivery"] = self.v.pick("delivery", step.targets[3 - number % 4])
            parameters.append(each)
            meaning.append((_is_key(key), {column: _always(text) for column, text in plain.items()}))
        return parameters, meaning

    def loaded(self, session: Session, ids: Iterable[int]) -> list[Any]:
        return [session.get_one(self.v.model, number) for number in ids]

    def entity(self, step: Step, *, core: bool = False) -> tuple[Any, Any]:
        """Return the class or the table, and its columns."""
        if core or step.extra % 2 or isinstance(self.actors[step.who], sa.Connection):
            return self.v.table, self.v.table.c
        return self.v.model, self.v.model

    def count(self, result: Any, *, returning: bool = False) -> int | None:
        """Return the row count, if the driver gives one."""
        if (returning and not self.is_postgresql) or getattr(result, "rowcount", -1) < 0:
            return None
        return int(result.rowcount)

    # -- one step

    def take(self, step: Step) -> None:
        self.number += 1
        if step.who == 2 and step.path not in CORE:
            step = Step(**(vars(step) | {"who": self.number % 2}))
        if self.open not in (None, step.who):
            self.end(step.before)
        self.open = step.who
        actor = self.actors[step.who]
        is_session = isinstance(actor, Session)
        if is_session:
            present = [number for number in step.load if number in self.reference.rows]
            self.held[step.who] = self.loaded(actor, present)
        block = Block(None if step.block == "plain" else step.block)
        if step.block != "no":
            self.reference.blocks.append(block)
        before = deepcopy(self.reference.rows)
        plan = PATHS[step.path](self, step)
        undone = plan.tally.fatal and step.nested != "no"
        if undone or step.nested == "rollback":
            self.reference.rows = before
        elif plan.tally.fatal and plan.is_undone:
            self.reference.rollback()
        error = None
        seen = None
        op = None
        with ExitStack() as stack:
            if step.block != "no":
                op = stack.enter_context(operation("Step", on_illegal=block.mode))  # type: ignore[arg-type]
            try:
                if step.nested == "no":
                    seen = plan.act(actor)
                else:
                    with actor.begin_nested() as savepoint:
                        seen = plan.act(actor)
                        if step.nested == "rollback":
                            savepoint.rollback()
            except IllegalTransition as caught:
                error = caught
                if plan.is_undone and step.nested == "no":
                    actor.rollback()
        if step.block != "no":
            self.reference.blocks.pop()
        event(f"{step.path}: {'refused' if error else 'left out' if plan.tally.left else 'written'}")
        self._compare(plan, error, seen)
        if op is not None:
            self._compare_block(op, block)
        self._compare_counts()
        if is_session:
            for new in list(actor.new):
                actor.expunge(new)
            self._compare_objects(step, plan, actor, error is not None)
            actor.expire_all()
        found = self._stored_rows(actor)
        assert found == self.reference.rows, f"rows: {found}, not {self.reference.rows}"
        if step.after != "stay":
            self.end(step.after)

    def end(self, how: str) -> None:
        if self.open is not None:
            getattr(self.actors[self.open], how)()
            getattr(self.reference, how)()
            self.open = None

    def _stored_rows(self, actor: Any) -> dict[int, Row]:
        connection = actor.connection() if isinstance(actor, Session) else actor
        return {row["id"]: dict(row) for row in connection.execute(self.v.everything).mappings()}

    def _compare(self, plan: Plan, error: IllegalTransition | None, seen: Seen | None) -> None:
        tally = plan.tally
        if error is None:
            assert not tally.fatal, f"should have been refused: {tally.fatal}"
            assert seen is not None
            if seen.rowcount is not None:
                assert seen.rowcount == len(tally.written), f"row count: {seen.rowcount}, not {len(tally.written)}"
            if plan.returned is not None:
                assert seen.returned == plan.returned, "RETURNING"
            return
        assert tally.fatal, f"should not have been refused: {error}"
        errors = [error, *error.also]
        found = {(each.attribute, each.new, pair): n for each in errors for pair, n in each.pairs.items()}
        assert found == tally.fatal, f"pairs of the error: {found}, not {tally.fatal}"
        for each in errors:
            rows = tally.refused[each.attribute, each.new]
            assert {identity[0] for identity in each.identities} <= {number for number, _ in rows}
            assert (each.source, each.target) in each.pairs
            if plan.is_one:
                assert list(each.identities) == [(number,) for number, _ in rows][:10], f"{each.identities}: {rows}"
                assert (each.identity, (each.source, each.target)) == ((rows[0][0],), rows[0][1])

    @staticmethod
    def _compare_block(op: Any, block: Block) -> None:
        for kind in ("allowed", "blocked", "observed"):
            found, wanted = getattr(op, kind), getattr(block, kind)
            assert found == wanted, f"{kind}: {found}, not {wanted}"

    def _compare_counts(self) -> None:
        for column, before in self.before.items():
            found = counts(getattr(self.v.model, column)) - before
            assert found == self.reference.blocked[column], f"counts of {column}"

    def _compare_objects(self, step: Step, plan: Plan, session: Session, is_refused: bool) -> None:
        """Compare the objects with the rows, except those that SQLAlchemy itself does not keep up to date."""
        stale = set() if plan.synced or is_refused else set(plan.tally.written)
        for obj in self.held[step.who]:
            state = sa.inspect(obj)
            if not state.persistent or state.identity[0] in stale or state.identity[0] not in self.reference.rows:
                continue  # one of a row that was inserted and loaded in a transaction which is undone is still there
            row = self._stored(self.reference.rows[state.identity[0]])
            shown = {column: getattr(obj, column) for column in ("status", "delivery", "note")}
            assert shown == {column: row[column] for column in shown}, f"object {state.identity}: {shown}, not {row}"

    def finish(self) -> None:
        self.end("commit")
        with self.engine.connect() as connection:
            assert self._stored_rows(connection) == self.reference.committed

    def close(self) -> None:
        for actor in self.actors:
            actor.close()


_made: weakref.WeakKeyDictionary[sa.Engine, set[sa.MetaData]] = weakref.WeakKeyDictionary()


def _always(value: Any) -> Callable[[Row], Any]:
    return lambda row: value


def _is_key(key: int) -> Callable[[Row], bool]:
    return lambda row: row["id"] == key


def _both(one: Callable[[Row], bool], other: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: one(row) and other(row)


def _is_group(grp: int) -> Callable[[Row], bool]:
    return lambda row: row["grp"] == grp


# --- UPDATE -----------------------------------------------------------------------------------------------------------


@path
def orm_update(machine: Machine, step: Step) -> Plan:
    m = machine.v.model
    condition, matches = machine.where(step, m, evaluable=step.sync == "evaluate")
    values, models, named = machine.given(step, m, parameters=step.sync is False)  # else SQLAlchemy shows None
    statement = sa.update(m).values(values)
    if condition is not None:
        statement = statement.where(condition)
    returning = step.extra % 5 == 0
    if returning:
        statement = statement.returning(m.id)
    tally = machine.reference.update([(matches, models)])

    def act(session: Session) -> Seen:
        result: Any = session.execute(statement, named or None, execution_options={"synchronize_session": step.sync})
        fetches = returning or step.sync in ("fetch", "auto")
        return Seen(
            None if fetches and not machine.is_postgresql else machine.count(result),
            sorted(result.scalars()) if returning else None,
        )

    return Plan(tally, act, sorted(tally.written) if returning else None, synced=step.sync is not False, is_one=True)


@path
def query_update(machine: Machine, step: Step) -> Plan:
    m = machine.v.model
    condition, matches = machine.where(step, m, evaluable=step.sync == "evaluate")
    values, models, _ = machine.given(step, m, parameters=False)
    tally = machine.reference.update([(matches, models)])

    def act(session: Session) -> Seen:
        query = session.query(m)
        if condition is not None:
            query = query.filter(condition)
        number = query.update(values, synchronize_session=step.sync)
        return Seen(None if step.sync in ("fetch", "auto") and not machine.is_postgresql else number)

    return Plan(tally, act, synced=step.sync is not False, is_one=True)


@path
def by_primary_key(machine: Machine, step: Step) -> Plan:
    """``session.execute(update(M), [{…}])``, perhaps with duplicates of a key, perhaps with a WHERE of its own."""
    m = machine.v.model
    keys = [each for each in step.rows if each in machine.reference.rows]
    parameters, sets = machine.sets(step, keys)
    statement = sa.update(m)
    if step.extra % 3 == 0:
        grp = step.extra % 4
        statement = statement.where(m.grp <= grp).execution_options(synchronize_session=None)
        sets = [(_both(matches, lambda row: row["grp"] <= grp), given) for matches, given in sets]
    tally = machine.reference.update(sets)

    def act(session: Session) -> Seen:
        if keys:
            session.execute(statement, [{"id": key} | each for key, each in zip(keys, parameters, strict=True)])
        return Seen()

    return Plan(tally, act)


@path
def bulk_update_mappings(machine: Machine, step: Step) -> Plan:
    keys = [each for each in step.rows if each in machine.reference.rows]
    parameters, sets = machine.sets(step, keys)
    tally = machine.reference.update(sets)

    def act(session: Session) -> Seen:
        mappings = [{"id": key} | each for key, each in zip(keys, parameters, strict=True)]
        session.bulk_update_mappings(machine.v.model, mappings)
        return Seen()

    return Plan(tally, act, is_undone=True)


@path
def bulk_save_objects(machine: Machine, step: Step) -> Plan:
    keys = machine.ids(step, there=True)
    parameters, sets = machine.sets(step, keys)
    tally = machine.reference.update(sets)

    def act(session: Session) -> Seen:
        objects = machine.loaded(session, keys)
        for obj, values in zip(objects, parameters, strict=True):
            for column, value in values.items():
                setattr(obj, column, value)
        session.bulk_save_objects(objects)
        return Seen()

    return Plan(tally, act, is_undone=True)


@path
def core_update(machine: Machine, step: Step) -> Plan:
    """An UPDATE of the table, or of an alias of it, perhaps with its values in an order."""
    table: Any = machine.v.table if step.extra % 3 else machine.v.table.alias("law_alias")
    condition, matches = machine.where(step, table.c)
    values, models, named = machine.given(step, table.c)
    statement = sa.update(table)
    statement = statement.ordered_values(*values.items()) if step.extra % 3 == 2 else statement.values(values)
    if condition is not None:
        statement = statement.where(condition)
    returning = step.extra % 5 == 0
    if returning:
        statement = statement.returning(table.c.id)
    tally = machine.reference.update([(matches, models)])

    def act(actor: Any) -> Seen:
        result = actor.execute(statement, named or None)
        return Seen(machine.count(result, returning=returning), sorted(result.scalars()) if returning else None)

    return Plan(tally, act, sorted(tally.written) if returning else None, is_one=True)


@path
def lambda_update(machine: Machine, step: Step) -> Plan:
    table, key = machine.v.table, step.rows[0]
    state = machine.v.pick("status", step.targets[0])
    value = machine.v.value("status", state)
    tally = machine.reference.update([(_is_key(key), {"status": _always(state)})])

    def act(actor: Any) -> Seen:
        statement = sa.lambda_stmt(
            lambda: sa.update(table).where(table.c.id == key).values(status=value), track_on=[table, value is None]
        )
        return Seen(machine.count(actor.execute(statement)))

    return Plan(tally, act, is_one=True)


@path
def update_in_a_cte(machine: Machine, step: Step) -> Plan:
    """A CTE that writes: illegal rows stay as they are, and nothing is counted or raised. SQLite has none: as text."""
    table = machine.v.table
    if not machine.is_postgresql:
        return as_text(machine, step)
    condition, matches = machine.where(step, table.c)
    values, models, _ = machine.given(step, table.c, parameters=False)
    reference = machine.reference
    updated = sa.update(table).values(values)
    if condition is not None:
        updated = updated.where(condition)
    statement = sa.select(updated.returning(table.c.id).cte("law_cte").c.id)
    rows = deepcopy(reference.rows)
    written = []
    for key, row in reference.rows.items():
        if not matches(row):
            continue
        new = {column: value(row) for column, value in models.items()}
        if all(reference.lets_pass(column, row[column], new[column]) for column in reference.rules if column in new):
            rows[key].update(new)
            written.append(key)
    reference.rows = rows
    tally = Tally(written=written)
    return Plan(tally, lambda actor: Seen(returned=sorted(actor.execute(statement).scalars())), sorted(written))


@path
def as_text(machine: Machine, step: Step) -> Plan:
    """A text passes."""
    name, key = machine.v.table.name, step.rows[0]
    state = machine.v.pick("status", step.targets[0])
    statement = sa.text(f"UPDATE {name} SET status = {'NULL' if state is None else repr(state)} WHERE id = {key}")
    if key in machine.reference.rows:
        machine.reference.rows[key]["status"] = state

    def act(actor: Any) -> Seen:
        actor.execute(statement)
        return Seen()

    return Plan(Tally(written=[key]), act)


@path
def core_many_by_key(machine: Machine, step: Step) -> Plan:
    entity, m = machine.entity(step, core=step.extra % 3 == 0)
    parameters, sets = machine.sets(step, step.rows, "b_")
    tally = machine.reference.update(sets)
    statement = sa.update(entity).where(m.id == sa.bindparam("b_key"))
    statement = statement.values({name.removeprefix("b_"): sa.bindparam(name) for name in parameters[0]})

    def act(actor: Any) -> Seen:
        connection = actor.connection() if isinstance(actor, Session) else actor
        named = [{"b_key": key} | each for key, each in zip(step.rows, parameters, strict=True)]
        return Seen(machine.count(connection.execute(statement, named)))

    return Plan(tally, act)


@path
def core_many_by_group(machine: Machine, step: Step) -> Plan:
    """Several sets that find rows by another column; the state is a parameter, or an expression with one in it."""
    table, v = machine.v.table, machine.v
    groups = [number % 3 + 1 for number in step.rows]
    parameters, sets = machine.sets(step, groups, "b_")
    is_expression = step.value != "bound"
    meaning: list[Set] = []
    for number, (_, each) in enumerate(sets):
        if is_expression:
            each = each | {"status": _unless_marked(each["status"], step.extra % 2 == 0)}
        meaning.append((_is_group(groups[number]), each))
    tally = machine.reference.update(meaning)
    values: dict[str, Any] = {name.removeprefix("b_"): sa.bindparam(name) for name in parameters[0]}
    if is_expression:
        mark = table.c.note == "x" if step.extra % 2 == 0 else table.c.status.is_(None)
        values["status"] = sa.case((mark, table.c.status), else_=sa.bindparam("b_status", type_=v.types["status"]))
    statement = sa.update(table).where(table.c.grp == sa.bindparam("b_grp")).values(values)

    def act(actor: Any) -> Seen:
        connection = actor.connection() if isinstance(actor, Session) else actor
        named = [{"b_grp": grp} | each for grp, each in zip(groups, parameters, strict=True)]
        return Seen(machine.count(connection.execute(statement, named)))

    return Plan(tally, act)


def _unless_marked(given: Callable[[Row], Any], by_note: bool) -> Callable[[Row], Any]:
    def value(row: Row) -> Any:
        marked = row["note"] == "x" if by_note else row["status"] is None
        return row["status"] if marked else given(row)

    return value


@path
def update_from(machine: Machine, step: Step) -> Plan:
    """Each row is joined with at most one hint, which says what it becomes."""
    entity, m = machine.entity(step)
    hint = machine.v.hint if entity is machine.v.model else machine.v.hint.__table__.c
    ids = machine.ids(step)
    hints = {row["grp"]: row["target"] for row in machine.reference.hints if row["seq"] == 0}
    values: dict[str, Any] = {"status": hint.target}
    models: Given = {"status": lambda row: hints[row["grp"]]}
    if step.extra % 3 == 0:
        values["status"] = sa.case((hint.target.is_(None), m.wanted), else_=hint.target)
        models["status"] = lambda row: row["wanted"] if hints[row["grp"]] is None else hints[row["grp"]]
    machine._second(Step(**(vars(step) | {"extra": step.extra % 6})), values, models)
    matches: Callable[[Row], bool] = lambda row: row["id"] in ids and row["grp"] in hints  # noqa: E731
    tally = machine.reference.update([(matches, models)])
    statement = sa.update(entity).where(m.grp == hint.grp, hint.seq == 0, m.id.in_(ids)).values(values)
    return _update_from(machine, step, statement, tally, entity)


@path
def update_from_many(machine: Machine, step: Step) -> Plan:
    """Each row may be joined with several hints, and becomes the same by any of them."""
    entity, m = machine.entity(step)
    hint = machine.v.hint if entity is machine.v.model else machine.v.hint.__table__.c
    ids = machine.ids(step)
    groups = {row["grp"] for row in machine.reference.hints}
    values, models, _ = machine.given(step, m, parameters=False)
    matches: Callable[[Row], bool] = lambda row: row["id"] in ids and row["grp"] in groups  # noqa: E731
    tally = machine.reference.update([(matches, models)])
    statement = sa.update(entity).where(m.grp == hint.grp, m.id.in_(ids)).values(values)
    return _update_from(machine, step, statement, tally, entity)


def _update_from(machine: Machine, step: Step, statement: Any, tally: Tally, entity: Any) -> Plan:
    is_class = entity is machine.v.model
    sync = "auto" if step.sync == "evaluate" else step.sync
    options = {"execution_options": {"synchronize_session": sync}} if is_class else {}

    def act(actor: Any) -> Seen:
        result = actor.execute(statement, **options)
        return Seen(machine.count(result, returning=is_class and sync is not False))

    return Plan(tally, act, synced=is_class and sync is not False, is_one=True)


@path
def flush(machine: Machine, step: Step) -> Plan:
    """Loaded objects are changed, and new ones added."""
    v = machine.v
    keys = machine.ids(step, there=True)
    _, sets = machine.sets(step, keys)
    changed = {
        key: {column: value({}) for column, value in given.items()} for key, (_, given) in zip(keys, sets, strict=True)
    }
    is_expression = bool(keys) and step.extra % 2 == 1 and step.value not in ("bound", "parameter", "literal")
    if is_expression:  # of a literal, SQLAlchemy shows the literal itself
        expression, python, _ = machine.value(step, v.model)
        changed[keys[0]]["status"] = python(machine.reference.rows[keys[0]])
    new = []
    if step.extra % 3 == 0:
        new = [proposed(machine, step, number, key) for number, key in enumerate(machine.new_ids(step)[:2])]
    rows = [completed(machine, row, none_is_missing=True) for row in new]
    tally = machine.reference.flush(changed, rows)

    def act(session: Session) -> Seen:
        for key, values in changed.items():
            obj = session.get_one(v.model, key)
            for column, value in values.items():
                setattr(obj, column, v.value(column, value) if column in v.types else value)
        if is_expression:
            session.get_one(v.model, keys[0]).status = expression
        session.add_all([v.model(**machine._stored(row)) for row in new])
        try:
            session.flush()
        except IllegalTransition:
            for obj in list(session.new):
                session.expunge(obj)
            session.expire_all()
            raise
        return Seen()

    return Plan(tally, act, synced=True)


# --- INSERT -----------------------------------------------------------------------------------------------------------


def proposed(machine: Machine, step: Step, number: int, key: int) -> Row:
    """Return what an INSERT says of a new row."""
    row: Row = {"id": key, "code": key + 100, "grp": key % 3 + 1, "note": f"n{machine.number}.{number}"}
    if step.extra % 6 != 5:
        row["status"] = machine.v.pick("status", step.targets[number % 5])
    if step.second and "delivery" in machine.v.columns and ("status" in row or not is_late(machine)):
        # What a function gives is seen when all else was found right: such an INSERT may name one column only.
        row["delivery"] = machine.v.pick("delivery", step.targets[4 - number % 5])
    return row


def is_late(machine: Machine) -> bool:
    """Return whether a function gives the default of the state, which shows when the INSERT is executed."""
    return bool(machine.v.default) and machine.v.default[0] == "callable"


def completed(machine: Machine, row: Row, *, none_is_missing: bool = False) -> Row:
    """Return the whole row that an INSERT makes, with defaults."""
    default = machine.v.default[1] if machine.v.default else None
    full = {"status": default, "delivery": "X", "wanted": None} | row
    if none_is_missing and full["status"] is None:
        full["status"] = default
    return full


def as_given(machine: Machine, rows: Iterable[Row]) -> list[Row]:
    return [machine._stored(row) for row in rows]


@path
def insert_one(machine: Machine, step: Step) -> Plan:
    """One row; its state is a value, an expression, or left to the default."""
    v = machine.v
    entity, _ = machine.entity(step)
    keys = machine.new_ids(step)[:1]
    new = [proposed(machine, step, 0, key) for key in keys]
    rows = [completed(machine, row) for row in new]
    values = as_given(machine, new)
    named: dict[str, Any] = {}
    if new and "status" in new[0]:
        text = new[0]["status"]
        grp = step.extra % 3 + 1
        hints = {row["grp"]: row["target"] for row in machine.reference.hints if row["seq"] == 0}
        if step.value == "literal":
            values[0]["status"] = v.literal("status", text)
        elif step.value == "parameter":
            values[0]["status"] = sa.bindparam("law_state", type_=v.types["status"])
            named = {"law_state": v.value("status", text)}
        elif step.value == "case":
            one_of_one = sa.case((sa.literal(1) == 1, v.literal("status", text)), else_=sa.null())
            values[0]["status"] = sa.cast(one_of_one, v.types["status"])
        elif step.value in ("upper", "lower") and v.enum is None and text is not None:
            values[0]["status"] = getattr(sa.func, step.value)(text)
            rows[0]["status"] = getattr(text, step.value)()
        elif step.value == "subquery":
            hint = v.hint
            values[0]["status"] = sa.select(hint.target).where(hint.grp == grp, hint.seq == 0).scalar_subquery()
            rows[0]["status"] = hints.get(grp)
    tally = machine.reference.insert(rows)

    def act(actor: Any) -> Seen:
        if not values:
            return Seen()
        return Seen(machine.count(actor.execute(sa.insert(entity).values(values[0]), named or None)))

    return Plan(tally, act)


@path
def insert_many(machine: Machine, step: Step) -> Plan:
    """An INSERT with several sets of parameters, one of them perhaps inside of an expression."""
    v = machine.v
    new = [proposed(machine, step, number, key) for number, key in enumerate(machine.new_ids(step))]
    rows = [completed(machine, row) for row in new]
    parameters = as_given(machine, new)
    statement = sa.insert(v.table)
    if step.value in ("upper", "lower") and v.enum is None and new and "status" in new[0]:
        statement = statement.values(status=getattr(sa.func, step.value)(sa.bindparam("b_status", type_=sa.String)))
        for row, each in zip(rows, parameters, strict=True):
            each["b_status"] = each.pop("status")
            row["status"] = row["status"] and getattr(row["status"], step.value)()
    tally = machine.reference.insert(rows)

    def act(actor: Any) -> Seen:
        connection = actor.connection() if isinstance(actor, Session) and step.extra % 2 else actor
        if parameters:
            connection.execute(statement, parameters)
        return Seen()

    return Plan(tally, act)


@path
def insert_values(machine: Machine, step: Step) -> Plan:
    """INSERT … VALUES (…), (…)."""
    entity, _ = machine.entity(step)
    new = [proposed(machine, step, number, key) for number, key in enumerate(machine.new_ids(step))]
    tally = machine.reference.insert([completed(machine, row) for row in new])
    values = as_given(machine, new)
    if step.value in ("literal", "case"):
        for each in values:
            if "status" in each:
                each["status"] = sa.literal(each["status"], machine.v.types["status"])

    def act(actor: Any) -> Seen:
        if values:
            actor.execute(sa.insert(entity).values(values))
        return Seen()

    return Plan(tally, act)


def selected(machine: Machine, step: Step, numbers: Iterable[int]) -> tuple[list[str], Any, list[Row]]:
    """Return a SELECT that gives rows, one for each hint, with these ids."""
    v = machine.v
    hint = v.hint.__table__.c
    by_hint = dict(zip((row["id"] for row in machine.reference.hints), numbers, strict=False))
    key = sa.case(
        (hint.id == 0, sa.literal(0)),
        *((hint.id == each, sa.literal(number)) for each, number in by_hint.items()),
        else_=0,
    )
    names = ["id", "code", "grp", "note"]
    columns: list[Any] = [key, key + 100, hint.grp, sa.literal(f"n{machine.number}")]
    if step.extra % 6 != 5:
        names.append("status")
        columns.append(hint.target)
    rows = []
    for row in machine.reference.hints:
        if row["id"] in by_hint:
            number = by_hint[row["id"]]
            new = {"id": number, "code": number + 100, "grp": row["grp"], "note": f"n{machine.number}"}
            rows.append(completed(machine, new | ({"status": row["target"]} if "status" in names else {})))
    select = sa.select(*(column.label(f"c_{name}") for name, column in zip(names, columns, strict=True)))
    return names, select.where(hint.id.in_(list(by_hint))).order_by(hint.id), rows


@path
def insert_select(machine: Machine, step: Step) -> Plan:
    entity, _ = machine.entity(step)
    names, select, rows = selected(machine, step, machine.new_ids(step))
    tally = machine.reference.insert(rows)

    def act(actor: Any) -> Seen:
        return Seen(machine.count(actor.execute(sa.insert(entity).from_select(names, select))))

    return Plan(tally, act)


def _bulk_rows(machine: Machine, step: Step) -> list[Row]:
    """Return new rows that are inserted by one statement: SQLAlchemy leaves out a None, which makes it two."""
    new = [proposed(machine, step, number, key) for number, key in enumerate(machine.new_ids(step))]
    return [row for row in new if (row.get("status") is None) == (new[0].get("status") is None)]


@path
def orm_insert(machine: Machine, step: Step) -> Plan:
    new = _bulk_rows(machine, step)
    tally = machine.reference.insert([completed(machine, row, none_is_missing=True) for row in new])
    returning = step.extra % 4 == 0
    statement = sa.insert(machine.v.model)

    def act(session: Session) -> Seen:
        if not new:
            return Seen(returned=[])
        if not returning:
            session.execute(statement, as_given(machine, new))
            return Seen()
        found = session.scalars(statement.returning(machine.v.model.id), as_given(machine, new))
        return Seen(returned=sorted(found))

    return Plan(tally, act, sorted(tally.written) if returning else None)


@path
def bulk_insert_mappings(machine: Machine, step: Step) -> Plan:
    new = _bulk_rows(machine, step)
    tally = machine.reference.insert([completed(machine, row, none_is_missing=True) for row in new])

    def act(session: Session) -> Seen:
        if step.extra % 4 == 0:
            session.bulk_save_objects([machine.v.model(**row) for row in as_given(machine, new)])
        else:
            session.bulk_insert_mappings(machine.v.model, as_given(machine, new))
        return Seen()

    return Plan(tally, act, is_undone=True)


# --- upserts ----------------------------------------------------------------------------------------------------------

Merged = Callable[[Row, Row], Any]


def on_conflict(machine: Machine, step: Step, statement: Any, m: Any) -> tuple[Any, dict[str, Merged] | None, Merged]:
    """Return an INSERT with its ON CONFLICT clause, what it gives to rows that are there, and to which."""
    v, ex = machine.v, statement.excluded
    one, two = (v.pick("status", number) for number in step.targets[:2])
    key: list[Any] = [["id"], [m.id], ["code"]][step.extra % 3]
    always: Merged = lambda there, new: True  # noqa: E731
    if step.value in ("null", "other"):
        if step.extra % 4 == 0:
            return statement.on_conflict_do_nothing(), None, always
        return statement.on_conflict_do_nothing(index_elements=key), None, always
    is_one = m.status.is_(None) if one is None else m.status == v.value("status", one)
    state: Any
    model: Merged
    if step.value in ("bound", "parameter", "subquery"):
        state, model = ex.status, lambda there, new: new["status"]
    elif step.value in ("literal", "upper"):
        state, model = v.value("status", two), lambda there, new: two
    elif step.value in ("case", "case_state"):
        state = sa.case((is_one, ex.status), else_=m.status)
        model = lambda there, new: new["status"] if there["status"] == one else there["status"]  # noqa: E731
    elif step.value in ("coalesce", "lower"):
        state = sa.func.coalesce(m.wanted, ex.status)
        model = lambda there, new: new["status"] if there["wanted"] is None else there["wanted"]  # noqa: E731
    else:
        state, model = None, lambda there, new: None  # it is not set at all
    to_set: dict[str, Any] = {"note": ex.note}
    updates: dict[str, Merged] = {"note": lambda there, new: new["note"]}
    if step.value not in ("itself", "correlated"):
        to_set["status"], updates["status"] = state, model
    if step.second and "delivery" in v.columns:
        to_set["delivery"], updates["delivery"] = ex.delivery, lambda there, new: new["delivery"]
    conditions: dict[str, tuple[Any, Merged]] = {
        "grp": (m.grp == ex.grp, lambda there, new: equal(there["grp"], new["grp"])),
        "state": (is_one, lambda there, new: there["status"] == one),
        "not_state": (
            m.status != ex.status,
            lambda there, new: None not in (there["status"], new["status"]) and there["status"] != new["status"],
        ),
        "or": (sa.or_(m.note == "x", ex.grp == 1), lambda there, new: there["note"] == "x" or new["grp"] == 1),
        "both": (m.id > step.rows[0], lambda there, new: there["id"] > step.rows[0]),
    }
    condition, touches = conditions.get(step.where, (None, always))
    clause = {"index_elements": key, "set_": to_set}
    return statement.on_conflict_do_update(**clause, where=condition), updates, touches


@path
def upsert(machine: Machine, step: Step) -> Plan:
    """One row, several in VALUES, or several sets of parameters, of which some are there."""
    entity, m = machine.entity(step)
    shape = ("one", "values", "many")[step.extra // 2 % 3]
    returning = shape == "values" and step.extra % 5 == 0
    # Of one VALUES, PostgreSQL takes each key once only. Where rows come back, they are not written one by one, so that
    # statekit cannot see what the second of a key would find: that is not in this law.
    once = shape == "values" and (machine.is_postgresql or returning)
    keys = list(dict.fromkeys(step.rows)) if once else step.rows
    keys = keys[:1] if shape == "one" else keys
    new = [proposed(machine, step, number, key) for number, key in enumerate(keys)]
    make: Any = postgresql.insert if machine.is_postgresql else sqlite.insert
    statement, updates, touches = on_conflict(machine, step, make(entity), m)
    rows = [completed(machine, row) for row in new]
    if deepcopy(machine.reference).upsert(rows, updates, touches).unclear:  # what it would find is open
        new = list({row["id"]: row for row in reversed(new)}.values())
        rows = [completed(machine, row) for row in new]
    tally = machine.reference.upsert(rows, updates, touches)
    values = as_given(machine, new)
    if shape != "many":
        statement = statement.values(values if shape == "values" else values[0])
    if returning:
        statement = statement.returning(m.id)

    def act(actor: Any) -> Seen:
        if shape == "many":
            connection = actor.connection() if isinstance(actor, Session) else actor
            result = connection.execute(statement, values)
            return Seen(None if machine.is_postgresql else machine.count(result))
        result = actor.execute(statement)
        if returning:
            return Seen(returned=sorted(result.scalars()))
        return Seen(machine.count(result))

    return Plan(tally, act, sorted(tally.written) if returning else None)


@path
def upsert_select(machine: Machine, step: Step) -> Plan:
    entity, m = machine.entity(step)
    make: Any = postgresql.insert if machine.is_postgresql else sqlite.insert
    names, select, rows = selected(machine, step, machine.ids(step))
    statement, updates, touches = on_conflict(machine, step, make(entity).from_select(names, select), m)
    tally = machine.reference.upsert(rows, updates, touches)

    def act(actor: Any) -> Seen:
        return Seen(machine.count(actor.execute(statement)))

    return Plan(tally, act)


# --- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
@given(program=programs())
def test_rows_errors_and_counts_are_what_the_model_says(engine: sa.Engine, program: Program) -> None:
    if engine.dialect.name == "sqlite":
        begin_for_real(engine)
    machine = Machine(engine, program)
    outer = Block(None if program.outer == "plain" else program.outer)
    try:
        with ExitStack() as stack:
            op = None
            if program.outer != "no":
                machine.reference.blocks.append(outer)
                op = stack.enter_context(operation("Program", on_illegal=outer.mode))  # type: ignore[arg-type]
            for step in program.steps:
                note(f"{machine.reference.rows}")
                machine.take(step)
            machine.finish()
        if op is not None:
            machine._compare_block(op, outer)
    finally:
        machine.close()
