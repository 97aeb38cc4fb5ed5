"""The statements of SQLAlchemy's guide to ORM-enabled INSERT, UPDATE and DELETE, on guarded models as on bare ones.

A statement runs on two equal sets of models: one without guards, and one whose tables allow every move. Whatever it
gives, leaves in the database and in the session, warns of or raises must be the same.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import bindparam, case, delete, event, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.result import MappingResult, Result, ScalarResult
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    Session,
    aliased,
    composite,
    load_only,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)

import statekit
from statekit import TransitionTable, guard
from tests.guards.inbox import new_base
from tests.support.databases import run

STATES = ("NEW", "OPEN", "DONE", None)
EVERY_MOVE = TransitionTable(*itertools.permutations(STATES, 2), initial=STATES)
FEW_MOVES = TransitionTable(*itertools.pairwise(("NEW", "OPEN", None, "DONE")), initial="NEW")

# --- the models -------------------------------------------------------------------------------------------------------


@dataclass
class Stamp:
    state: str | None
    clerk: str | None


def state(**options: Any) -> Any:
    return mapped_column(sa.String(20), nullable=True, **options)


def key(*target: Any) -> Any:
    return mapped_column(sa.Integer, *target, primary_key=True)


def word(**options: Any) -> Any:
    return mapped_column(sa.String(60), **options)


def new_world(table: TransitionTable | None) -> Any:
    """Return a new set of models: all states are held to the table, or bare without one."""
    base = new_base()

    class Parcel(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_parcel"
        id = key()
        code = word(unique=True)
        label = word(nullable=True)
        status = state(server_default="NEW")
        notes = relationship("Note", back_populates="parcel", order_by="Note.id")

    class Note(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_note"
        id = key()
        parcel_id = mapped_column(sa.ForeignKey(Parcel.id))
        text = word()
        status = state(default="NEW")
        parcel = relationship(Parcel, back_populates="notes")

    class Reminder(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_reminder"
        id = key()
        text = word()
        status = state(default="NEW", onupdate=func.upper("done"))

    class Letter(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_letter"
        id = key()
        state = mapped_column("status_code", sa.String(20))
        clerk = mapped_column("clerk_name", sa.String(20))
        stamp = composite(Stamp, "state", "clerk")

    class Worker(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_worker"
        id = key()
        name = word()
        kind = word()
        status = mapped_column(sa.Enum("NEW", "OPEN", "DONE", name="guide_status"), nullable=True)
        __mapper_args__ = {"polymorphic_identity": "worker", "polymorphic_on": "kind"}

    class Foreman(Worker):
        __tablename__ = "guide_foreman"
        id = key(sa.ForeignKey(Worker.id))
        crew = word()
        approval = state()
        __mapper_args__ = {"polymorphic_identity": "foreman"}

    class Driver(Worker):
        __tablename__ = "guide_driver"
        id = key(sa.ForeignKey(Worker.id))
        licence = word()
        __mapper_args__ = {"polymorphic_identity": "driver"}

    class Job(base):  # type: ignore[misc, valid-type]
        __tablename__ = "guide_job"
        id = key()
        kind = word()
        title = word()
        status = state()
        __mapper_args__ = {"polymorphic_identity": "job", "polymorphic_on": "kind"}

    class Repair(Job):
        tool = word(nullable=True)
        __mapper_args__ = {"polymorphic_identity": "repair"}

    class Delivery(Job):
        __mapper_args__ = {"polymorphic_identity": "delivery"}

    if table is not None:
        for each in (Parcel, Note, Reminder, Worker, Job):
            guard(each.status, table)
        guard(Letter.state, table)
        guard(Foreman.approval, table)
    models = (Parcel, Note, Reminder, Letter, Worker, Foreman, Driver, Job, Repair, Delivery)
    return SimpleNamespace(metadata=base.metadata, **{each.__name__: each for each in models})


LOADED = ("Parcel", "Note", "Reminder", "Letter", "Foreman", "Driver", "Job")


def fill(connection: sa.Connection, w: Any) -> None:
    """Make the tables anew, and a few rows in each, in every state."""
    if sa.inspect(connection).has_table("guide_parcel"):
        w.metadata.drop_all(connection, checkfirst=False)
    w.metadata.create_all(connection, checkfirst=False)
    states = ["NEW", "OPEN", "DONE", None, "NEW", "OPEN"]
    people = ["foreman", "foreman", "driver", "driver"]
    jobs = ["job", "repair", "repair", "delivery"]
    rows = {
        w.Parcel: [{"code": f"p{n}", "label": f"label {n}", "status": s} for n, s in enumerate(states, 1)],
        w.Note: [{"parcel_id": n % 3 + 1, "text": f"text {n}", "status": s} for n, s in enumerate(states)],
        w.Reminder: [{"text": f"text {n}", "status": s} for n, s in enumerate(states)],
        w.Letter: [{"status_code": s, "clerk_name": f"clerk {n}"} for n, s in enumerate(states)],
        w.Worker: [
            {"name": f"w{n}", "kind": k, "status": s} for n, (k, s) in enumerate(zip(people, STATES, strict=True), 1)
        ],
        w.Foreman: [{"id": 1, "crew": "red", "approval": "NEW"}, {"id": 2, "crew": "blue", "approval": None}],
        w.Driver: [{"id": 3, "licence": "B"}, {"id": 4, "licence": "C"}],
        w.Job: [
            {"kind": k, "title": f"job {n}", "status": s} for n, (k, s) in enumerate(zip(jobs, STATES, strict=True), 1)
        ],
    }
    for model, of_it in rows.items():
        connection.execute(insert(model.__table__), of_it)


# --- what can be observed ---------------------------------------------------------------------------------------------

FACTS = (
    *("rowcount", "returns_rows", "is_insert", "inserted_primary_key", "inserted_primary_key_rows", "lastrowid"),
    *("returned_defaults", "returned_defaults_rows"),
    *("prefetch_cols", "postfetch_cols", "lastrow_has_defaults", "last_inserted_params"),
    *("last_updated_params", "supports_sane_rowcount", "supports_sane_multi_rowcount"),
)
"""Of a result, beside its keys and rows."""


def plain(value: Any) -> Any:
    """Return a value as something that can be compared between two sets of models, and printed."""
    if isinstance(value, Result | ScalarResult | MappingResult):
        return facts(value)
    if isinstance(value, dict):
        # The fence has a parameter of its own, which SQLAlchemy shows among the others.
        return {str(name): plain(each) for name, each in value.items() if not str(name).startswith("statekit_")}
    if isinstance(value, list | tuple | sa.Row):
        return [plain(each) for each in value]
    if isinstance(value, sa.Column):
        return str(value)
    return described(value) if hasattr(value, "_sa_instance_state") else value


def facts(result: Any) -> dict[str, Any]:
    found = {"keys": attempt(lambda: list(result.keys())), "rows": attempt(lambda: list(result.all()))}
    for name in FACTS:
        found[name] = attempt(lambda name=name: read() if callable(read := getattr(result, name)) else read)
    return found


def attempt(read: Callable[[], Any]) -> Any:
    try:
        return plain(read())
    except Exception as error:
        return described_error(error)


def described(obj: Any) -> dict[str, Any]:
    """Return what an object holds without being asked, so that nothing is loaded."""
    known = sa.inspect(obj)
    held = {
        name: [sa.inspect(each).identity for each in value] if isinstance(value, list) else value
        for name, value in known.dict.items()
        if name in known.mapper.attrs and not hasattr(value, "_sa_instance_state")
    }
    statuses = ("transient", "pending", "persistent", "deleted", "detached")
    return {
        "class": type(obj).__name__,
        "identity": known.identity,
        "is": [status for status in statuses if getattr(known, status)],
        "holds": dict(sorted(held.items(), key=str)),
        "expired": sorted(known.expired_attributes),
        "unloaded": sorted(known.unloaded),
        "modified": known.modified,
    }


def described_error(error: BaseException) -> list[str]:
    """Return type and text, without the SQL of the statement."""
    text: Any = error.orig if isinstance(error, sa.exc.DBAPIError) else error.args[0] if error.args else ""
    kinds = [type(each).__name__ for each in (error, getattr(error, "orig", None)) if each is not None]
    return [*kinds, re.sub(r"(?s)0x[0-9a-f]+|\nLINE 1:.*", "…", str(text))]


def contents(session: Session, w: Any) -> dict[str, Any]:
    return {
        table.name: plain(session.connection().execute(select(table).order_by(table.c.id)).all())
        for table in w.metadata.sorted_tables
    }


def differences(guarded: Any, bare: Any, where: str = "") -> list[str]:
    """Return where two observations differ, each with what it is guarded and bare."""
    if isinstance(guarded, dict) and isinstance(bare, dict) and guarded.keys() == bare.keys():
        return [line for key in guarded for line in differences(guarded[key], bare[key], f"{where}/{key}")]
    if isinstance(guarded, list) and isinstance(bare, list) and len(guarded) == len(bare):
        return [
            line
            for n, pair in enumerate(zip(guarded, bare, strict=True))
            for line in differences(*pair, f"{where}/{n}")
        ]
    return [] if guarded == bare else [f"{where}: {guarded!r}, and bare {bare!r}"]


class Observation:
    """What a statement does to a session in which all objects are loaded, and to the database."""

    def __init__(self, w: Any, session: Session) -> None:
        self.w, self.session = w, session
        self.held = [each for name in LOADED for each in session.scalars(select(getattr(w, name)))]
        self.result: Any = None
        self.error: Exception | None = None
        self.warnings: Any = None
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Observation:
        self._caught = warnings.catch_warnings(record=True)
        self.warnings = self._caught.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        self._caught.__exit__(None, None, None)
        self.error = error
        return isinstance(error, Exception)

    def finish(self, session: Session) -> None:
        seen = self.seen
        seen["result"] = plain(self.result)
        seen["error"] = None if self.error is None else described_error(self.error)
        seen["warnings"] = [(each.category.__name__, str(each.message)) for each in self.warnings]
        others = [each for each in session.identity_map.values() if each not in self.held]
        others.sort(key=lambda each: (type(each).__name__, sa.inspect(each).identity))
        seen["objects"] = [described(each) for each in (*self.held, *others)]
        seen["new, dirty, deleted"] = [len(session.new), len(session.dirty), len(session.deleted)]
        if self.error is None:
            with session.no_autoflush:
                seen["rows"] = contents(session, self.w)
        else:
            session.rollback()
        seen["values"] = [
            [
                attempt(lambda each=each, name=attribute.key: getattr(each, name))
                for attribute in sa.inspect(each).mapper.column_attrs
            ]
            for each in (*self.held, *others)
        ]
        session.commit()
        seen["rows in the end"] = contents(session, self.w)


# --- the statements ---------------------------------------------------------------------------------------------------

EVERYWHERE = ("sqlite", "postgresql")


@dataclass
class Statement:
    run: Callable[[Any, Any], Any]
    fails: tuple[str, ...]


STATEMENTS: dict[str, Statement] = {}
ASYNC_STATEMENTS: dict[str, Statement] = {}


def statement(*, fails: tuple[str, ...] = (), to: dict[str, Statement] = STATEMENTS, **choices: Any) -> Any:
    """Register a function as a statement, or as one for each of several choices.

    Args:
        fails: where it is an error, bare as well: the names of dialects or drivers.
        to: where it is registered.
        choices: the values of each further argument.
    """

    def register(function: Any) -> Any:
        for chosen in itertools.product(*choices.values()):
            named = dict(zip(choices, chosen, strict=True))
            to["-".join([function.__name__, *map(str, chosen)])] = Statement(
                lambda w, s, named=named: function(w, s, **named), fails
            )
        return function

    return register


SYNCHRONIZED = ("auto", "evaluate", "fetch", False)


def new_parcels() -> list[dict[str, Any]]:
    return [
        {"code": "a", "label": "first", "status": "OPEN"},
        {"code": "b", "label": "second", "status": "DONE"},
        {"code": "c", "label": "third", "status": "NEW"},
    ]


def parcels_of_different_keys() -> list[dict[str, Any]]:
    return [
        {"code": "a", "label": "first", "status": "OPEN"},
        {"code": "b", "label": "second", "status": "DONE"},
        {"code": "c", "status": "OPEN"},
        {"code": "d"},
        {"code": "e", "label": "fifth", "status": "NEW"},
    ]


def parcels_with_nulls() -> list[dict[str, Any]]:
    return [{"code": "a", "status": "OPEN"}, {"code": "b", "status": None}, {"code": "c", "status": "DONE"}]


def new_foremen() -> list[dict[str, Any]]:
    return [
        {"name": "ann", "status": "OPEN", "crew": "green", "approval": "DONE"},
        {"name": "bob", "status": "DONE", "crew": "white", "approval": "OPEN"},
    ]


# Bulk INSERT


@statement()
def bulk_insert(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), new_parcels())


@statement()
def bulk_insert_of_one(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), {"code": "a", "status": "DONE"})


@statement()
def bulk_insert_of_none(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), [])


@statement()
def bulk_insert_by_attribute_names(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Letter).returning(w.Letter), [{"state": "OPEN", "clerk": "ann"}, {"state": "DONE"}])


@statement()
def bulk_insert_of_composites(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Letter), [{"stamp": Stamp("OPEN", "ann")}, {"stamp": Stamp("DONE", "bob")}])


@statement(strategy=["auto", "orm", "bulk", "raw"])
def bulk_insert_with_a_strategy(w: Any, s: Any, strategy: str) -> Any:
    return s.execute(insert(w.Parcel), new_parcels(), execution_options={"dml_strategy": strategy})


@statement()
def raw_insert_by_column_names(w: Any, s: Any) -> Any:
    rows = [{"status_code": "OPEN", "clerk_name": "ann"}, {"status_code": "DONE", "clerk_name": "bob"}]
    return s.execute(insert(w.Letter), rows, execution_options={"dml_strategy": "raw"})


@statement(fails=EVERYWHERE)
def bulk_insert_without_parameters(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel).values(code="a", status="DONE"), execution_options={"dml_strategy": "bulk"})


@statement(fails=EVERYWHERE)
def bulk_insert_with_an_unknown_strategy(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), new_parcels(), execution_options={"dml_strategy": "other"})


@statement(fails=EVERYWHERE)
def bulk_insert_that_breaks_a_constraint(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), [{"code": "p1", "status": "DONE"}])


@statement()
def bulk_insert_returning_objects(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel), new_parcels())


@statement()
def bulk_insert_returning_columns(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel).returning(w.Parcel.status, w.Parcel.id.label("number")), new_parcels())


@statement()
def bulk_insert_returning_objects_and_columns(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel).returning(w.Parcel, func.lower(w.Parcel.status)), new_parcels())


@statement()
def bulk_insert_returning_in_the_order_of_parameters(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel.id, sort_by_parameter_order=True), new_parcels())


@statement()
def bulk_insert_returning_many_in_the_order_of_parameters(w: Any, s: Any) -> Any:
    rows = [{"code": f"new {n}", "status": STATES[n % 3]} for n in range(1200)]
    return s.execute(insert(w.Parcel).returning(w.Parcel.id, w.Parcel.status, sort_by_parameter_order=True), rows)


@statement()
def bulk_insert_returning_objects_in_part(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel).options(load_only(w.Parcel.status)), new_parcels())


@statement()
def bulk_insert_returning_objects_with_their_relations(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel).options(selectinload(w.Parcel.notes)), new_parcels())


@statement()
def bulk_insert_of_different_keys(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel), parcels_of_different_keys())


@statement()
def bulk_insert_of_different_keys_returning_objects(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel), parcels_of_different_keys())


@statement(render=[False, True])
def bulk_insert_with_nulls_rendered(w: Any, s: Any, render: bool) -> Any:
    return s.scalars(insert(w.Parcel).returning(w.Parcel).execution_options(render_nulls=render), parcels_with_nulls())


@statement()
def bulk_insert_with_python_defaults(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Note).returning(w.Note), [{"text": "x"}, {"text": "y", "status": "DONE"}])


@statement()
def bulk_insert_in_joined_tables(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Foreman), new_foremen())


@statement()
def bulk_insert_in_joined_tables_returning_objects(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Foreman).returning(w.Foreman), new_foremen())


@statement()
def bulk_insert_in_joined_tables_returning_columns(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Foreman).returning(w.Foreman.approval, w.Foreman.status, w.Foreman.id), new_foremen())


@statement()
def bulk_insert_in_one_table_of_several_classes(w: Any, s: Any) -> Any:
    return s.scalars(insert(w.Repair).returning(w.Repair), [{"title": "x", "status": "OPEN", "tool": "saw"}])


@statement(value=["bound", "expression", "null"])
def bulk_insert_with_one_value_for_all_rows(w: Any, s: Any, value: str) -> Any:
    status = {"bound": "DONE", "expression": func.upper("done"), "null": sa.null()}[value]
    rows = [{"code": "a"}, {"code": "b"}, {"code": "c"}]
    return s.scalars(insert(w.Parcel).values(label="x", status=status).returning(w.Parcel), rows)


@statement()
def bulk_insert_with_a_subquery_for_all_rows(w: Any, s: Any) -> Any:
    newest = select(func.max(w.Note.status)).scalar_subquery()
    return s.execute(insert(w.Parcel).values(status=newest), [{"code": "a"}, {"code": "b"}])


# INSERT of values


@statement()
def insert_of_values(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel).values(code="a", status="DONE"))


@statement()
def insert_of_values_by_attributes(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Letter).values({w.Letter.state: "DONE", w.Letter.clerk: "ann"}))


@statement()
def insert_of_defaults(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Note))


@statement()
def insert_of_a_list_of_values(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel).values(new_parcels()))


@statement()
def insert_of_an_expression_in_each_row(w: Any, s: Any) -> Any:
    def status_of(code: str) -> Any:
        return select(w.Parcel.status).where(w.Parcel.code == code).scalar_subquery()

    rows = [{"text": code, "status": status_of(code)} for code in ("p2", "p3", "p4")]
    return s.scalars(insert(w.Note).values(rows).returning(w.Note))


@statement()
def insert_of_a_list_of_values_with_case(w: Any, s: Any) -> Any:
    rows = [{"text": "x", "status": case((sa.literal(n) > 1, "DONE"), else_="OPEN")} for n in (1, 2)]
    return s.execute(insert(w.Note).values(rows).returning(w.Note.status))


@statement()
def insert_of_a_list_of_values_populating_existing_objects(w: Any, s: Any) -> Any:
    made = insert(w.Parcel).values(new_parcels()).returning(w.Parcel)
    return s.scalars(made, execution_options={"populate_existing": True})


@statement()
def insert_from_a_select(w: Any, s: Any) -> Any:
    rows = select(w.Parcel.label, w.Parcel.status).where(w.Parcel.id < 5).order_by(w.Parcel.id)
    return s.scalars(insert(w.Note).from_select(["text", "status"], rows).returning(w.Note))


@statement(fails=("postgresql",))
def insert_of_values_in_a_joined_table_alone(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Foreman).values(id=77, crew="x", approval="DONE"))


@statement()
def insert_into_the_table(w: Any, s: Any) -> Any:
    return s.execute(insert(w.Parcel.__table__).returning(w.Parcel.__table__.c.status), new_parcels())


# The older methods


@statement(defaults=[False, True], render=[False, True])
def bulk_insert_mappings(w: Any, s: Any, defaults: bool, render: bool) -> Any:
    rows = parcels_with_nulls()
    s.bulk_insert_mappings(w.Parcel, rows, return_defaults=defaults, render_nulls=render)
    return rows


@statement()
def bulk_insert_mappings_in_joined_tables(w: Any, s: Any) -> Any:
    return s.bulk_insert_mappings(w.Foreman, new_foremen())


@statement(defaults=[False, True])
def bulk_save_new_objects(w: Any, s: Any, defaults: bool) -> Any:
    made = [w.Parcel(**row) for row in parcels_of_different_keys()]
    s.bulk_save_objects(made, return_defaults=defaults)
    return made


def changed_parcels(w: Any, s: Any) -> Any:
    objects = s.scalars(select(w.Parcel).order_by(w.Parcel.id)).all()
    objects[0].status, objects[1].status, objects[2].label = "DONE", None, "changed"
    return objects


@statement(changed=[False, True])
def bulk_save_changed_objects(w: Any, s: Any, changed: bool) -> Any:
    objects = changed_parcels(w, s)
    for each in objects:
        s.expunge(each)
    s.bulk_save_objects([*objects, w.Note(text="x", status="OPEN")], update_changed_only=changed)
    return objects


@statement()
def bulk_save_changed_objects_that_stay_in_the_session(w: Any, s: Any) -> Any:
    objects = changed_parcels(w, s)
    s.bulk_save_objects(objects)
    return objects


@statement()
def bulk_update_mappings(w: Any, s: Any) -> Any:
    return s.bulk_update_mappings(w.Parcel, [{"id": 1, "status": "DONE"}, {"id": 2, "status": None, "label": "x"}])


@statement()
def bulk_update_mappings_in_joined_tables(w: Any, s: Any) -> Any:
    rows = [{"id": 1, "name": "ann", "status": "DONE", "approval": "OPEN"}, {"id": 2, "approval": "NEW"}]
    return s.bulk_update_mappings(w.Foreman, rows)


@statement(fails=EVERYWHERE)
def bulk_update_mappings_of_a_row_that_is_not_there(w: Any, s: Any) -> Any:
    return s.bulk_update_mappings(w.Parcel, [{"id": 1, "status": "DONE"}, {"id": 99, "status": "DONE"}])


# Upserts


def upsert(s: Any, model: Any) -> Any:
    return {"sqlite": sqlite, "postgresql": postgresql}[s.get_bind().dialect.name].insert(model)


def parcels_of_which_two_are_there() -> list[dict[str, Any]]:
    return [
        {"code": "p1", "label": "again", "status": "DONE"},
        {"code": "a", "label": "first", "status": "OPEN"},
        {"code": "p3", "label": "again", "status": "NEW"},
    ]


SETS: dict[str, Callable[[Any, Any], dict[Any, Any]]] = {
    "excluded": lambda w, new: {"status": new.excluded.status, "label": new.excluded.label},
    "bound": lambda w, new: {"status": "OPEN"},
    "null": lambda w, new: {"status": None},
    "expression": lambda w, new: {"status": func.upper("open")},
    "case": lambda w, new: {"status": case((w.Parcel.status == "NEW", "OPEN"), else_=new.excluded.status)},
    "column": lambda w, new: {w.Parcel.__table__.c.status: w.Parcel.status, "label": new.excluded.status},
    "subquery": lambda w, new: {"status": select(func.max(w.Note.status)).scalar_subquery()},
}


@statement(to_set=SETS)
def upsert_that_updates(w: Any, s: Any, to_set: str) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    return s.execute(new.on_conflict_do_update(index_elements=[w.Parcel.code], set_=SETS[to_set](w, new)))


@statement(populate=[False, True], to_set=["excluded", "case"])
def upsert_returning_objects(w: Any, s: Any, populate: bool, to_set: str) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS[to_set](w, new))
    return s.scalars(new.returning(w.Parcel), execution_options={"populate_existing": populate})


@statement()
def upsert_returning_columns(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS["excluded"](w, new))
    return s.execute(new.returning(w.Parcel.id, w.Parcel.status))


@statement()
def upsert_that_updates_under_a_condition(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_update(
        index_elements=["code"], set_=SETS["excluded"](w, new), where=w.Parcel.status != new.excluded.label
    )
    return s.scalars(new.returning(w.Parcel.code))


@statement()
def upsert_that_updates_where_an_or_holds(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    either = sa.or_(w.Parcel.status == "NEW", new.excluded.status == "NEW")
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS["excluded"](w, new), where=either)
    return s.scalars(new.returning(w.Parcel.code))


@statement()
def upsert_by_primary_key(w: Any, s: Any) -> Any:
    new = upsert(s, w.Letter).values([{"id": 1, "state": "DONE"}, {"id": 99, "state": "OPEN"}])
    new = new.on_conflict_do_update(index_elements=[w.Letter.id], set_={"status_code": new.excluded.status_code})
    return s.scalars(new.returning(w.Letter), execution_options={"populate_existing": True})


@statement(fails=("sqlite",))
def upsert_by_the_name_of_a_constraint(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_update(constraint="guide_parcel_code_key", set_={"status": new.excluded.status})
    return s.execute(new)


@statement()
def upsert_that_leaves_what_is_there(w: Any, s: Any) -> Any:
    return s.execute(upsert(s, w.Parcel).values(parcels_of_which_two_are_there()).on_conflict_do_nothing())


@statement()
def upsert_that_leaves_what_is_there_returning_objects(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_nothing(index_elements=["code"]).returning(w.Parcel)
    return s.scalars(new, execution_options={"populate_existing": True})


@statement()
def upsert_of_a_list_of_parameters(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel)
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS["excluded"](w, new))
    return s.execute(new, parcels_of_which_two_are_there())


@statement()
def upsert_of_a_list_of_parameters_returning_objects(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel)
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS["excluded"](w, new)).returning(w.Parcel)
    return s.scalars(new, parcels_of_which_two_are_there(), execution_options={"populate_existing": True})


@statement()
def upsert_that_leaves_what_is_there_of_a_list_of_parameters(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).on_conflict_do_nothing().returning(w.Parcel.code)
    return s.execute(new, parcels_of_which_two_are_there())


@statement(fails=EVERYWHERE)
def upsert_in_joined_tables(w: Any, s: Any) -> Any:
    return s.execute(upsert(s, w.Foreman).on_conflict_do_nothing(), new_foremen())


@statement(fails=("postgresql",))
def upsert_of_one_row_twice(w: Any, s: Any) -> Any:
    new = upsert(s, w.Parcel).values([{"code": "p1", "status": "OPEN"}, {"code": "p1", "status": "DONE"}])
    return s.execute(new.on_conflict_do_update(index_elements=["code"], set_={"status": new.excluded.status}))


# UPDATE by primary key


def moves_by_key() -> list[dict[str, Any]]:
    return [{"id": 1, "status": "DONE"}, {"id": 3, "status": "OPEN"}, {"id": 4, "status": "NEW"}]


@statement()
def update_by_key(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel), moves_by_key())


@statement()
def update_by_key_that_keeps_states(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel), [{"id": 1, "status": "NEW"}, {"id": 4, "status": None, "label": "x"}])


@statement()
def update_by_key_to_null(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel), [{"id": 1, "status": None}, {"id": 2, "status": None}])


@statement()
def update_by_key_of_different_keys(w: Any, s: Any) -> Any:
    rows = [{"id": 1, "status": "DONE"}, {"id": 2, "label": "x"}, {"id": 3, "status": "OPEN", "label": "y"}, {"id": 5}]
    return s.execute(update(w.Parcel), rows)


@statement()
def update_by_key_by_attribute_names(w: Any, s: Any) -> Any:
    return s.execute(update(w.Letter), [{"id": 1, "state": "DONE"}, {"id": 2, "state": "NEW", "clerk": "ann"}])


@statement(sync=["auto", "evaluate", False, None])
def update_by_key_synchronized(w: Any, s: Any, sync: Any) -> Any:
    return s.execute(update(w.Parcel), moves_by_key(), execution_options={"synchronize_session": sync})


@statement(fails=EVERYWHERE, sync=["fetch", "other"])
def update_by_key_that_cannot_be_synchronized(w: Any, s: Any, sync: Any) -> Any:
    return s.execute(update(w.Parcel), moves_by_key(), execution_options={"synchronize_session": sync})


@statement(strategy=["auto", "bulk", "core_only"])
def update_by_key_with_a_strategy(w: Any, s: Any, strategy: str) -> Any:
    changed = update(w.Parcel) if strategy != "core_only" else update(w.Parcel).where(w.Parcel.id == bindparam("row"))
    rows = moves_by_key() if strategy != "core_only" else [{"row": 1, "status": "DONE"}, {"row": 2, "status": "NEW"}]
    return s.execute(changed, rows, execution_options={"dml_strategy": strategy})


@statement(fails=EVERYWHERE)
def update_by_key_without_the_key(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel), [{"id": 1, "status": "DONE"}, {"status": "OPEN"}])


@statement(fails=EVERYWHERE)
def update_by_key_of_a_row_that_is_not_there(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel), [{"id": 1, "status": "DONE"}, {"id": 99, "status": "DONE"}])


@statement(fails=EVERYWHERE)
def update_by_key_with_a_criterion_that_is_synchronized(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).where(w.Parcel.status == "NEW"), moves_by_key())


@statement()
def update_by_key_with_a_criterion(w: Any, s: Any) -> Any:
    narrowed = update(w.Parcel).where(w.Parcel.status != "NEW")
    return s.execute(narrowed, moves_by_key(), execution_options={"synchronize_session": None})


@statement()
def update_by_key_with_a_value_for_all_rows(w: Any, s: Any) -> Any:
    rows = [{"id": 1, "label": "x"}, {"id": 2, "label": "y"}]
    return s.execute(update(w.Parcel).values(status=func.upper("done")), rows)


@statement(fails=EVERYWHERE)
def update_by_key_returning(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).returning(w.Parcel.status), moves_by_key())


@statement(fails=EVERYWHERE)
def update_by_key_with_ordered_values(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).ordered_values((w.Parcel.status, "DONE")), [{"id": 1, "label": "x"}])


@statement()
def update_by_key_that_writes_an_expression_on_update(w: Any, s: Any) -> Any:
    return s.execute(update(w.Reminder), [{"id": 1, "text": "x"}, {"id": 2, "text": "y", "status": "NEW"}])


@statement()
def update_on_the_connection(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.code == bindparam("known"))
    return s.connection().execute(changed, [{"known": "p1", "status": "DONE"}, {"known": "p4", "status": "NEW"}])


@statement()
def update_by_key_in_joined_tables(w: Any, s: Any) -> Any:
    rows = [
        {"id": 1, "name": "ann", "status": "DONE", "approval": "OPEN"},
        {"id": 2, "name": "bob", "status": None, "approval": "DONE"},
    ]
    return s.execute(update(w.Foreman), rows)


@statement()
def update_by_key_in_one_of_the_joined_tables(w: Any, s: Any) -> Any:
    s.execute(update(w.Foreman), [{"id": 1, "status": "DONE"}])
    return s.execute(update(w.Foreman), [{"id": 2, "approval": "DONE"}])


@statement()
def update_by_key_of_a_class_that_shares_a_table(w: Any, s: Any) -> Any:
    return s.execute(update(w.Repair), [{"id": 2, "status": "DONE"}, {"id": 3, "status": None, "tool": "saw"}])


# UPDATE and DELETE with criteria

VALUES: dict[str, Callable[[Any], Any]] = {
    "bound": lambda w: "DONE",
    "literal": lambda w: sa.literal("DONE"),
    "null": lambda w: None,
    "sql null": lambda w: sa.null(),
    "expression": lambda w: func.upper("done"),
    "concatenation": lambda w: sa.literal("DO", sa.String) + "NE",
    "the column itself": lambda w: w.Parcel.status,
    "coalesce": lambda w: func.coalesce(w.Parcel.status, "OPEN"),
    "case": lambda w: case((w.Parcel.status == "NEW", "OPEN"), (w.Parcel.status == "OPEN", "DONE"), else_=None),
    "case by value": lambda w: case({"NEW": "OPEN", "OPEN": "NEW"}, value=w.Parcel.status, else_=w.Parcel.status),
    "cast": lambda w: sa.cast("DONE", sa.String(20)),
    "literal column": lambda w: sa.literal_column("'DONE'"),
    "text": lambda w: sa.text("'DONE'"),
    "subquery": lambda w: select(func.max(w.Note.status)).scalar_subquery(),
    "correlated subquery": lambda w: (
        select(func.min(w.Note.status)).where(w.Note.parcel_id == w.Parcel.id).scalar_subquery()
    ),
}


@statement(value=VALUES, sync=["evaluate", "fetch"])
def update_to(w: Any, s: Any, value: str, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id.in_([1, 2, 3, 4])).values(status=VALUES[value](w), label="x")
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement()
def update_of_every_row(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).values(status="DONE"))


@statement()
def update_of_no_row(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).where(w.Parcel.id == 99).values(status="DONE").returning(w.Parcel))


@statement(sync=SYNCHRONIZED)
def update_with_its_option_bundled(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.code == "p2").values({w.Parcel.status: "DONE"})
    return s.execute(changed.execution_options(synchronize_session=sync))


@statement(sync=SYNCHRONIZED)
def update_of_expired_objects(w: Any, s: Any, sync: Any) -> Any:
    s.expire_all()
    changed = update(w.Parcel).where(w.Parcel.status == "NEW").values(status="DONE")
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_by_the_old_state(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(sa.or_(w.Parcel.status == "NEW", w.Parcel.status.is_(None))).values(status="OPEN")
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_by_attribute_names(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Letter).where(w.Letter.clerk < "clerk 3").values(state="DONE", clerk=func.lower(w.Letter.state))
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement()
def update_of_a_composite(w: Any, s: Any) -> Any:
    return s.execute(update(w.Letter).where(w.Letter.id < 4).values({w.Letter.stamp: Stamp("DONE", "ann")}))


@statement()
def update_with_parameters(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.code == bindparam("known")).values(status=bindparam("wanted"))
    return s.execute(changed, {"known": "p1", "wanted": "DONE"})


@statement()
def update_with_a_custom_operator_that_python_knows(w: Any, s: Any) -> Any:
    different = w.Parcel.code.op("<>", is_comparison=True, python_impl=operator.ne)
    changed = update(w.Parcel).where(different("p1")).values(status="DONE")
    return s.execute(changed, execution_options={"synchronize_session": "evaluate"})


@statement(fails=EVERYWHERE)
def update_whose_criterion_cannot_be_evaluated(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(func.lower(w.Parcel.code) == "p1").values(status="DONE")
    return s.execute(changed, execution_options={"synchronize_session": "evaluate"})


@statement(fails=EVERYWHERE)
def update_with_an_unknown_option(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).values(status="DONE"), execution_options={"synchronize_session": "other"})


@statement(fails=EVERYWHERE)
def update_of_an_unknown_column(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).values(status="DONE", colour="red"))


@statement(fails=EVERYWHERE)
def update_that_breaks_a_constraint(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).where(w.Parcel.id < 3).values(status="DONE", code="p3"))


@statement(sync=SYNCHRONIZED)
def update_returning_objects(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status="DONE").returning(w.Parcel)
    return s.scalars(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_returning_columns(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status=func.upper("done"))
    changed = changed.returning(w.Parcel.status, w.Parcel.code, func.lower(w.Parcel.status).label("small"))
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_returning_objects_and_columns(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status=None).returning(w.Parcel.code, w.Parcel)
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_populating_existing_objects(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status=func.upper("done")).returning(w.Parcel)
    return s.scalars(changed, execution_options={"synchronize_session": sync, "populate_existing": True})


@statement()
def update_returning_objects_with_their_relations(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 3).values(status="DONE").returning(w.Parcel)
    return s.scalars(changed.options(selectinload(w.Parcel.notes)), execution_options={"populate_existing": True})


@statement(sync=SYNCHRONIZED)
def update_by_a_subquery(w: Any, s: Any, sync: Any) -> Any:
    noted = select(w.Note.parcel_id).where(w.Note.status == "DONE")
    changed = update(w.Parcel).where(w.Parcel.id.in_(noted)).values(status="OPEN")
    return s.execute(changed, execution_options={"synchronize_session": sync} if sync != "evaluate" else {})


@statement(fails=EVERYWHERE)
def update_by_a_subquery_that_cannot_be_evaluated(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id.in_(select(w.Note.parcel_id))).values(status="OPEN")
    return s.execute(changed, execution_options={"synchronize_session": "evaluate"})


@statement()
def update_by_a_relation(w: Any, s: Any) -> Any:
    return s.execute(update(w.Parcel).where(w.Parcel.notes.any(w.Note.status == "DONE")).values(status="OPEN"))


@statement(options=[{"synchronize_session": "fetch"}, {"is_update_from": True}, {"synchronize_session": False}])
def update_from_another_table(w: Any, s: Any, options: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id == w.Note.parcel_id, w.Note.status == "OPEN")
    return s.execute(changed.values(status=w.Note.status), execution_options=options)


@statement()
def update_from_another_table_of_the_same_column_name(w: Any, s: Any) -> Any:
    changed = update(w.Note).where(w.Parcel.id == w.Note.parcel_id, w.Parcel.id.in_([2, 3]))
    return s.execute(changed.values({w.Note.status: w.Parcel.status, w.Note.text: w.Parcel.label}))


@statement()
def update_from_an_alias(w: Any, s: Any) -> Any:
    other = aliased(w.Parcel)
    changed = update(w.Parcel).where(other.id == w.Parcel.id + 1, w.Parcel.id < 5)
    return s.execute(changed.values(status=other.status), execution_options={"synchronize_session": "fetch"})


@statement()
def update_from_a_subquery(w: Any, s: Any) -> Any:
    newest = select(w.Note.parcel_id, func.max(w.Note.status).label("status")).group_by(w.Note.parcel_id).subquery()
    return s.execute(update(w.Parcel).where(w.Parcel.id == newest.c.parcel_id).values(status=newest.c.status))


@statement()
def update_from_a_cte(w: Any, s: Any) -> Any:
    chosen = select(w.Parcel.id).where(w.Parcel.status == "NEW").cte("chosen")
    changed = update(w.Parcel).where(w.Parcel.id.in_(select(chosen.c.id))).values(status="DONE").returning(w.Parcel.id)
    return s.execute(changed)


@statement()
def update_of_an_alias(w: Any, s: Any) -> Any:
    other = aliased(w.Parcel)
    return s.execute(update(other).where(other.status == "NEW").values(status="DONE"))


@statement(sync=SYNCHRONIZED)
def update_with_ordered_values(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 3)
    changed = changed.ordered_values((w.Parcel.label, "x"), (w.Parcel.status, func.upper("done")))
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def update_with_loader_criteria(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Parcel).values(status="DONE").options(with_loader_criteria(w.Parcel, w.Parcel.status != "OPEN"))
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement(autoflush=[False, True], sync=["evaluate", "fetch"])
def update_while_changes_are_pending(w: Any, s: Any, autoflush: bool, sync: str) -> Any:
    s.get_one(w.Parcel, 1).label = "pending"
    s.get_one(w.Parcel, 2).status = "DONE"
    s.add(w.Parcel(code="z", status="OPEN"))
    changed = update(w.Parcel).where(w.Parcel.status == "OPEN").values(status="NEW")
    return s.execute(changed, execution_options={"autoflush": autoflush, "synchronize_session": sync})


@statement(options=[{}, {"synchronize_session": "evaluate"}, {"synchronize_session": False}])
def update_that_writes_an_expression_on_update(w: Any, s: Any, options: Any) -> Any:
    return s.execute(update(w.Reminder).where(w.Reminder.id < 4).values(text="x"), execution_options=options)


@statement(sync=SYNCHRONIZED)
def update_of_a_class_that_shares_a_table(w: Any, s: Any, sync: Any) -> Any:
    return s.execute(update(w.Repair).values(status="NEW"), execution_options={"synchronize_session": sync})


@statement()
def update_of_all_classes_that_share_a_table(w: Any, s: Any) -> Any:
    return s.scalars(update(w.Job).values(status="NEW").returning(w.Job))


@statement(sync=SYNCHRONIZED)
def update_of_the_sub_table(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Foreman).where(w.Foreman.id == 1).values(approval="DONE")
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement()
def update_of_the_sub_table_by_a_subquery(w: Any, s: Any) -> Any:
    named = select(w.Worker.id).where(w.Worker.name == "w1").scalar_subquery()
    return s.execute(update(w.Foreman).where(w.Foreman.id == named).values(approval="DONE"))


@statement()
def update_of_the_sub_table_from_its_base(w: Any, s: Any) -> Any:
    changed = update(w.Foreman).where(w.Foreman.id == w.Worker.id, w.Worker.name == "w2")
    return s.execute(changed.values(approval=sa.cast(w.Worker.status, sa.String)))


@statement(sync=["auto", "fetch", False])
def update_of_the_base_table(w: Any, s: Any, sync: Any) -> Any:
    changed = update(w.Worker).where(w.Worker.name != "w1").values(status="DONE")
    return s.execute(changed, execution_options={"synchronize_session": sync})


@statement()
def update_of_the_base_table_returning_objects(w: Any, s: Any) -> Any:
    return s.scalars(update(w.Worker).where(w.Worker.id < 4).values(status=None).returning(w.Worker))


@statement(fails=EVERYWHERE)
def update_of_an_inherited_column(w: Any, s: Any) -> Any:
    return s.execute(update(w.Foreman).where(w.Foreman.id == 1).values(status="DONE", approval="DONE"))


@statement()
def update_of_the_table(w: Any, s: Any) -> Any:
    table = w.Parcel.__table__
    return s.execute(update(table).where(table.c.id < 5).values(status="DONE").returning(table.c.id, table.c.status))


@statement(sync=SYNCHRONIZED)
def delete_by_a_criterion(w: Any, s: Any, sync: Any) -> Any:
    gone = delete(w.Reminder).where(w.Reminder.status.in_(["NEW", "DONE"]))
    return s.execute(gone, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def delete_of_expired_objects(w: Any, s: Any, sync: Any) -> Any:
    s.expire_all()
    gone = delete(w.Reminder).where(w.Reminder.status == "NEW")
    return s.execute(gone, execution_options={"synchronize_session": sync})


@statement(sync=SYNCHRONIZED)
def delete_returning_objects(w: Any, s: Any, sync: Any) -> Any:
    gone = delete(w.Reminder).where(w.Reminder.status == "NEW").returning(w.Reminder)
    return s.scalars(gone, execution_options={"synchronize_session": sync})


@statement()
def delete_returning_columns(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Reminder).where(w.Reminder.id < 4).returning(w.Reminder.id, w.Reminder.status))


@statement()
def delete_by_a_subquery(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Note).where(w.Note.parcel_id.in_(select(w.Parcel.id).where(w.Parcel.status == "OPEN"))))


@statement(fails=("sqlite",), options=[{}, {"is_delete_using": True}])
def delete_using_another_table(w: Any, s: Any, options: Any) -> Any:
    gone = delete(w.Note).where(w.Note.parcel_id == w.Parcel.id, w.Parcel.status == "OPEN")
    return s.execute(gone, execution_options=options)


@statement()
def delete_of_an_alias(w: Any, s: Any) -> Any:
    other = aliased(w.Note)
    return s.execute(delete(other).where(other.status == "NEW"))


@statement()
def delete_with_loader_criteria(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Note).options(with_loader_criteria(w.Note, w.Note.status != "OPEN")))


@statement(autoflush=[False, True])
def delete_while_changes_are_pending(w: Any, s: Any, autoflush: bool) -> Any:
    s.get_one(w.Note, 1).status = "DONE"
    return s.execute(delete(w.Note).where(w.Note.status == "DONE"), execution_options={"autoflush": autoflush})


@statement()
def delete_of_a_class_that_shares_a_table(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Repair))


@statement()
def delete_in_joined_tables_one_by_one(w: Any, s: Any) -> Any:
    return [s.execute(delete(w.Foreman).where(w.Foreman.id == 1)), s.execute(delete(w.Worker).where(w.Worker.id == 1))]


@statement(fails=("postgresql",))
def delete_of_a_row_that_others_refer_to(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Parcel).where(w.Parcel.id == 1))


@statement(fails=EVERYWHERE)
def delete_with_a_list_of_parameters(w: Any, s: Any) -> Any:
    return s.execute(delete(w.Note), [{"id": 1}, {"id": 2}])


# Query


@statement(sync=SYNCHRONIZED)
def query_update(w: Any, s: Any, sync: Any) -> Any:
    return s.query(w.Parcel).filter(w.Parcel.id < 4).update({"status": "DONE"}, synchronize_session=sync)


@statement(sync=SYNCHRONIZED)
def query_update_to_an_expression(w: Any, s: Any, sync: Any) -> Any:
    chosen = s.query(w.Parcel).filter_by(status="NEW")
    return chosen.update({w.Parcel.status: func.upper("done")}, synchronize_session=sync)


@statement()
def query_update_in_order(w: Any, s: Any) -> Any:
    return s.query(w.Parcel).update(
        [("label", func.lower(w.Parcel.status)), ("status", "DONE")], update_args={"preserve_parameter_order": True}
    )


@statement()
def query_update_of_a_class_that_shares_a_table(w: Any, s: Any) -> Any:
    return s.query(w.Repair).update({"status": None}, "fetch")


@statement(fails=EVERYWHERE)
def query_update_of_a_slice(w: Any, s: Any) -> Any:
    return s.query(w.Parcel).limit(2).update({"status": "DONE"})


@statement(sync=SYNCHRONIZED)
def query_delete(w: Any, s: Any, sync: Any) -> Any:
    return s.query(w.Note).filter(w.Note.status == "NEW").delete(synchronize_session=sync)


# Around all of them


@statement()
def all_kinds_in_another_schema(w: Any, s: Any) -> Any:
    """SQLite has the schema "temp" always."""
    on_postgresql = s.get_bind().dialect.name == "postgresql"
    options = {"schema_translate_map": {None: "tenant" if on_postgresql else "temp"}}
    if on_postgresql:
        s.execute(sa.schema.CreateSchema("tenant"))
    table = w.Parcel.__table__
    s.execute(sa.schema.CreateTable(table), execution_options=options)
    new = upsert(s, w.Parcel).values(code="a", status="NEW")
    new = new.on_conflict_do_update(index_elements=["code"], set_={"status": new.excluded.status})
    found = [
        plain(s.execute(each, *parameters, execution_options=options | {"synchronize_session": False}))
        for each, *parameters in (
            (insert(w.Parcel).returning(w.Parcel.id, w.Parcel.status), new_parcels()),
            (update(w.Parcel).where(w.Parcel.status == "OPEN").values(status="DONE").returning(w.Parcel.code),),
            (update(w.Parcel), [{"id": 2, "status": "NEW"}]),
            (new,),
            (delete(w.Parcel).where(w.Parcel.status == "DONE"),),
            (select(w.Parcel.id, w.Parcel.status).order_by(w.Parcel.id),),
        )
    ]
    s.execute(sa.schema.DropTable(table), execution_options=options)
    if on_postgresql:
        s.execute(sa.schema.DropSchema("tenant"))
    return found


HEARD: dict[str, Callable[[Any, Any], Any]] = {
    "bulk insert": lambda w, s: s.execute(insert(w.Parcel), new_parcels()),
    "insert": lambda w, s: s.execute(insert(w.Parcel).values(code="a", status="DONE").returning(w.Parcel.id)),
    "upsert": lambda w, s: upsert_that_updates(w, s, "excluded"),
    "update by key": lambda w, s: s.execute(update(w.Parcel), moves_by_key()),
    "update": lambda w, s: s.execute(update(w.Parcel).where(w.Parcel.id < 4).values(status="DONE")),
    "delete": lambda w, s: s.execute(delete(w.Note).where(w.Note.id < 4)),
    "query update": lambda w, s: s.query(w.Parcel).update({"status": "DONE"}),
    "query delete": lambda w, s: s.query(w.Note).delete(),
}


@statement(of=HEARD)
def what_listeners_hear(w: Any, s: Any, of: str) -> Any:
    heard: list[Any] = []

    @event.listens_for(s, "do_orm_execute")
    def executing(orm: Any) -> None:
        kinds = (orm.is_select, orm.is_insert, orm.is_update, orm.is_delete, orm.is_executemany, orm.is_orm_statement)
        heard.append([*kinds, plain(orm.parameters), sorted(orm.execution_options), orm.bind_mapper.class_.__name__])

    @event.listens_for(s, "after_bulk_update")
    def updated(context: Any) -> None:
        heard.append(["updated", context.result.rowcount, plain(context.values), context.mapper.class_.__name__])

    @event.listens_for(s, "after_bulk_delete")
    def deleted(context: Any) -> None:
        heard.append(["deleted", context.result.rowcount, context.mapper.class_.__name__])

    return [HEARD[of](w, s), heard]


@statement()
def a_listener_that_narrows_each_update(w: Any, s: Any) -> Any:
    @event.listens_for(s, "do_orm_execute")
    def narrow(orm: Any) -> None:
        if orm.is_update:
            orm.statement = orm.statement.options(with_loader_criteria(w.Parcel, w.Parcel.status != "OPEN"))

    return s.execute(update(w.Parcel).values(status="DONE"))


@statement()
def a_statement_that_is_executed_twice(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.status == bindparam("old")).values(status=bindparam("new"))
    return [plain(s.execute(changed, {"old": old, "new": new})) for old, new in (("NEW", "OPEN"), ("OPEN", "DONE"))]


@statement()
def all_kinds_within_savepoints(w: Any, s: Any) -> Any:
    found = []
    for keep in (True, False):
        with s.begin_nested() as savepoint:
            found.append(plain(s.execute(update(w.Parcel).where(w.Parcel.id < 3).values(status="DONE"))))
            found.append(plain(s.execute(update(w.Note), [{"id": 1, "status": "OPEN" if keep else "DONE"}])))
            found.append(plain(s.execute(insert(w.Parcel), [{"code": f"kept {keep}", "status": "DONE"}])))
            if not keep:
                savepoint.rollback()
    return found


# With an AsyncSession

in_async = {"to": ASYNC_STATEMENTS}


@statement(**in_async)
async def async_bulk_insert(w: Any, s: Any) -> Any:
    return await s.execute(insert(w.Parcel), new_parcels())


@statement(**in_async)
async def async_bulk_insert_returning_objects(w: Any, s: Any) -> Any:
    return await s.scalars(insert(w.Parcel).returning(w.Parcel, sort_by_parameter_order=True), new_parcels())


@statement(**in_async)
async def async_bulk_insert_in_joined_tables(w: Any, s: Any) -> Any:
    return await s.scalars(insert(w.Foreman).returning(w.Foreman), new_foremen())


@statement(**in_async, populate=[False, True])
async def async_upsert_returning_objects(w: Any, s: Any, populate: bool) -> Any:
    new = upsert(s, w.Parcel).values(parcels_of_which_two_are_there())
    new = new.on_conflict_do_update(index_elements=["code"], set_=SETS["excluded"](w, new))
    return await s.scalars(new.returning(w.Parcel), execution_options={"populate_existing": populate})


@statement(**in_async)
async def async_upsert_that_leaves_what_is_there(w: Any, s: Any) -> Any:
    return await s.execute(upsert(s, w.Parcel).values(parcels_of_which_two_are_there()).on_conflict_do_nothing())


@statement(**in_async)
async def async_update_by_key(w: Any, s: Any) -> Any:
    return await s.execute(update(w.Parcel), moves_by_key())


@statement(**in_async, fails=EVERYWHERE)
async def async_update_by_key_without_the_key(w: Any, s: Any) -> Any:
    return await s.execute(update(w.Parcel), [{"status": "DONE"}])


@statement(**in_async)
async def async_update_on_the_connection(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.code == bindparam("known"))
    moves = [{"known": "p1", "status": "DONE"}, {"known": "p4", "status": "NEW"}]
    return await (await s.connection()).execute(changed, moves)


@statement(**in_async, sync=SYNCHRONIZED, value=["bound", "null", "case", "correlated subquery"])
async def async_update_to(w: Any, s: Any, sync: Any, value: str) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status=VALUES[value](w))
    return await s.execute(changed, execution_options={"synchronize_session": sync})


@statement(**in_async)
async def async_update_returning_objects(w: Any, s: Any) -> Any:
    return await s.scalars(update(w.Parcel).where(w.Parcel.id < 5).values(status="DONE").returning(w.Parcel))


@statement(**in_async, fails=("psycopg",))
async def async_update_as_a_stream(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id < 5).values(status="DONE").returning(w.Parcel, w.Parcel.status)
    return await (await s.stream(changed)).all()


@statement(**in_async)
async def async_update_from_another_table(w: Any, s: Any) -> Any:
    changed = update(w.Parcel).where(w.Parcel.id == w.Note.parcel_id, w.Note.status == "OPEN")
    return await s.execute(changed.values(status=w.Note.status), execution_options={"synchronize_session": "fetch"})


@statement(**in_async)
async def async_update_while_changes_are_pending(w: Any, s: Any) -> Any:
    (await s.get_one(w.Parcel, 2)).status = "DONE"
    return await s.execute(update(w.Parcel).where(w.Parcel.status == "DONE").values(status="NEW"))


@statement(**in_async, sync=SYNCHRONIZED)
async def async_delete(w: Any, s: Any, sync: Any) -> Any:
    gone = delete(w.Reminder).where(w.Reminder.status == "NEW")
    return await s.execute(gone, execution_options={"synchronize_session": sync})


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Any:
    return new_world(None)


@pytest.fixture(scope="module")
def guarded() -> Any:
    return new_world(EVERY_MOVE)


def observe(engine: sa.Engine, w: Any, statement: Statement) -> Any:
    with engine.begin() as connection:
        fill(connection, w)
    with Session(engine) as session:
        with Observation(w, session) as observation:
            observation.result = statement.run(w, session)
        observation.finish(session)
    return checked(observation, engine, statement)


async def observe_async(engine: AsyncEngine, w: Any, statement: Statement) -> Any:
    async with engine.begin() as connection:
        await connection.run_sync(fill, w)
    async with AsyncSession(engine) as session:
        with await session.run_sync(lambda sync: Observation(w, sync)) as observation:
            observation.result = await statement.run(w, session)
        await session.run_sync(observation.finish)
    return checked(observation, engine.sync_engine, statement)


def checked(observation: Observation, engine: sa.Engine, statement: Statement) -> Any:
    """Return what was seen, unless the statement is itself not what it is meant to be."""
    is_meant_to_fail = bool({engine.dialect.name, engine.dialect.driver} & {*statement.fails})
    if (observation.error is not None) != is_meant_to_fail:
        raise observation.error or AssertionError("the statement is meant to be an error here")
    return observation.seen


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_does_the_same(engine: sa.Engine, bare: Any, guarded: Any, statement: Statement) -> None:
    found = differences(*(observe(engine, each, statement) for each in (guarded, bare)))
    assert not found


@pytest.mark.parametrize("statement", ASYNC_STATEMENTS.values(), ids=ASYNC_STATEMENTS)
def test_an_async_statement_does_the_same(
    async_engine: AsyncEngine, bare: Any, guarded: Any, statement: Statement
) -> None:
    found = differences(*(run(observe_async(async_engine, each, statement)) for each in (guarded, bare)))
    assert not found


@pytest.mark.parametrize(
    "name",
    [
        "update_to-bound-fetch",
        "update_by_key",
        "update_by_key_in_joined_tables",
        "update_returning_objects-auto",
        "query_update-evaluate",
    ],
)
def test_a_table_that_forbids_moves_would_be_noticed(engine: sa.Engine, bare: Any, name: str) -> None:
    strict = new_world(FEW_MOVES)
    with statekit.operation("fill the tables", on_illegal="observe"), engine.begin() as connection:
        fill(connection, strict)
    with Session(engine) as session:
        with Observation(strict, session) as observation:
            observation.result = STATEMENTS[name].run(strict, session)
        observation.finish(session)
    found = differences(observation.seen, observe(engine, bare, STATEMENTS[name]))
    assert found


def observed_bare(w: Any) -> str:
    """Return what every statement does on models without guards, as text; one of several choices stands for all."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    some = {name.partition("-")[0]: each for name, each in STATEMENTS.items()}
    return json.dumps({name: observe(engine, w, each) for name, each in some.items()}, default=repr, indent=1)


def test_models_without_a_guard_are_as_where_no_guard_is(guarded: Any, bare: Any) -> None:
    """Our hooks are in force for the whole process, so that another one tells what SQLAlchemy does without them."""
    script = "from tests.guards import test_dml_guide as guide; print(guide.observed_bare(guide.new_world(None)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=_ROOT)
    found = differences(json.loads(observed_bare(bare)), json.loads(done.stdout))
    assert not found


_ROOT = Path(__file__).parents[2]
