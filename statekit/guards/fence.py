"""Ring 2, the fence: every compiled UPDATE of a guarded table carries the legality of its move in its WHERE.

The predicate is added when SQLAlchemy compiles the statement, once; its compiled cache does the rest, and a statement
that updates no guarded table pays nothing. Because the database evaluates it against the row as it then is, two
sessions that race never add up to an illegal move. For a column ``status`` it reads::

    :leeway = 2                                          -- open: the mode is "observe" or "override"
    OR CASE :status WHEN 'PROMOTED' THEN status IN ('READY') WHEN … END
    OR (:leeway = 1 AND status IS NOT DISTINCT FROM :status)   -- a statement may write the state that a row has

It leans on names of SQLAlchemy that are not public: ``ClauseElement._compiler_dispatch``, ``BindParameter._is_crud``,
``Update._values``, ``Update._ordered_values`` and ``_with_binary_element_type``. ``tests/guards/test_private_names.py``
pins each of them, and :func:`check` refuses to go on if a compiled UPDATE does not carry the predicate.
"""

from __future__ import annotations

import copy
import secrets
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Update
from sqlalchemy.sql.elements import BindParameter, ClauseElement, ColumnElement, TextClause

from statekit.errors import StatekitError
from statekit.guards import compiled
from statekit.guards.guard import Guard, guards_of, root_table
from statekit.guards.move_writer import MoveWriter
from statekit.observe.modes import PASSING

STRICT, STAY, OPEN = 0, 1, 2
"""How much the fence lets through: legal moves only; rows that keep their state as well; everything."""

TRIED_DIALECTS = ("sqlite", "postgresql", "default")

flush_leeway: ContextVar[Callable[[Guard], int] | None] = ContextVar("statekit_flush_leeway", default=None)
"""How much the fence lets through for the flush that is under way; None outside of flushes of guarded objects.

A flush writes a state only where that changed, so that a row which already has it was moved by somebody else: there the
fence is strict, and the lost race is seen."""

statement_leeway: ContextVar[Mapping[Guard, int] | None] = ContextVar("statekit_statement_leeway", default=None)
"""How much the fence lets through for the statement that is executed; None where nothing was asked about it."""

_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class Setting:
    """A guarded column that a compiled statement sets.

    Attributes:
        guard: its guard.
        column: the column as the statement names it.
        value: what it is set to.
        onupdate: the column's ``onupdate=`` if that is what sets it, and Python provides the value.
    """

    guard: Guard
    column: Any
    value: Any
    onupdate: Any = None


@dataclass(slots=True)
class Plan:
    """What a compiled UPDATE does to guarded columns; kept with its ``Compiled``, and so in every cache.

    Attributes:
        statement: the Update as SQLAlchemy resolved it.
        others: what else it is from, in the order in which it names them.
        settings: the guarded columns that it sets.
        question: what is asked before it is executed, made when it first is.
    """

    statement: Any
    others: list[Any]
    settings: list[Setting] = field(default_factory=list)
    question: Any = None


_PLAN = "statekit_plan"


def plan_of(compiler: Any) -> Plan | None:
    """Return what a compiled UPDATE does to guarded columns, or None if it does nothing to any."""
    plan: Plan | None = compiler.__dict__.get(_PLAN)
    return plan


def _note(compiler: SQLCompiler, statement: Any, setting: Setting) -> None:
    if len(compiler.stack) == 1:  # else a statement within a statement: nothing can be asked about it
        others: Any = getattr(compiler.dml_compile_state, "_extra_froms", ())
        compiler.__dict__.setdefault(_PLAN, Plan(statement, list(others))).settings.append(setting)


class Fence(ColumnElement[bool]):
    """The predicate for one guarded column of one UPDATE; it renders itself after SET, and so sees what SET made."""

    inherit_cache = False
    type = sa.Boolean()
    _is_implicitly_boolean = True

    def __init__(self, guard: Guard, target: Any, *, in_flush: bool = False, value: Any = None) -> None:
        self.guard = guard
        self.target = target
        self.in_flush = in_flush
        self.value = value

    def self_group(self, against: Any = None) -> Any:
        return self


class _Parenthesised(ColumnElement[bool]):
    """A criterion in parentheses, of which the closing one is not lost in a comment at the end of a text."""

    inherit_cache = False
    type = sa.Boolean()
    _is_implicitly_boolean = True

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def self_group(self, against: Any = None) -> Any:
        return self


@compiles(_Parenthesised)
def _render_parenthesised(element: _Parenthesised, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({compiler.process(element.criterion, **kw)}\n)"


def leeway(guard: Guard, *, in_flush: bool) -> BindParameter[int]:
    """Return the parameter that says how much the fence lets through, asked anew for each set of parameters.

    Its name is random: a parameter that anybody could name would be a way past the guard.

    Args:
        guard: whose fence it is.
        in_flush: whether the statement is one that the unit of work makes, and not one that a listener executes
            while a flush is under way.
    """

    def now() -> int:
        of_statement = statement_leeway.get()
        if of_statement is not None and guard in of_statement:
            return of_statement[guard]
        of_flush = flush_leeway.get() if in_flush else None
        if of_flush is not None:
            return of_flush(guard)
        return OPEN if guard.mode in PASSING else STAY

    return sa.bindparam(_LEEWAY, callable_=now, type_=sa.Integer(), unique=True)


_LEEWAY = "statekit_" + secrets.token_hex(4)


@compiles(Fence)
def _render_fence(fence: Fence, compiler: SQLCompiler, **kw: Any) -> str:
    kw.pop("from_linter", None)
    guard = fence.guard
    column = fence.target.c[guard.column.key]
    statement: Any = compiler.stack[-1]["selectable"]
    onupdate = None
    value = fence.value
    if value is None:
        value, onupdate = _new_value(compiler, statement, column)
    if value is None:
        return ""  # this UPDATE does not set the column
    _warn_if_untried(compiler.dialect.name)
    if fence.value is None:
        _note(compiler, statement, Setting(guard, column, value, onupdate))
    move = MoveWriter(compiler, guard, column, value, **kw)
    how_much = move.render(leeway(guard, in_flush=fence.in_flush))
    legal = move.legal(one_row=fence.in_flush)
    return f"({how_much} = {OPEN} OR {legal} OR {how_much} = {STAY} AND {move.stays()})"


def _new_value(compiler: SQLCompiler, statement: Any, column: Any) -> tuple[Any, Any]:
    """Return what the UPDATE that is being compiled sets the column to, or None where it does not set it.

    The second item is the column's ``onupdate=``, if Python provides the value from there when it is executed.

    A plain value is found as the very parameter that the SET clause made, so that each set of parameters is judged by
    its own; what ``onupdate=`` put there is found in the same way. An expression is used as it stands.
    """
    explicit = dict(getattr(statement, "_ordered_values", None) or statement._values or {})  # on 2.0, on 2.1
    other_tables = compiler.stack[-1]["correlate_froms"] - {statement.table}
    for key, value in explicit.items():
        # As SQLAlchemy itself does: by key, unless it is a column of another table in the same UPDATE.
        if (key if isinstance(key, str) else key.key) == column.key and getattr(key, "table", None) not in other_tables:
            if not isinstance(value, BindParameter):
                return value, None
            made = compiler.binds.get(value.key)  # absent where literals are rendered in the statement
            if made is not None:
                return made, None
            return (value._with_binary_element_type(column.type) if value.type._isnull else value), None
    keys, made = compiler.column_keys, compiler.binds.get(column.key)
    on_update = getattr(column, "onupdate", None)
    if made is not None and made._is_crud and (keys is None or column.key in keys or on_update is not None):
        return made, None if keys is None or column.key in keys else on_update
    if on_update is not None and on_update.is_clause_element and (keys is not None or explicit):
        return on_update.arg.self_group(), None
    return None, None


def _warn_if_untried(dialect: str) -> None:
    if dialect not in TRIED_DIALECTS and dialect not in _warned:
        _warned.add(dialect)
        warnings.warn(
            f"statekit: the fence around UPDATE statements was not tried on {dialect!r} (tried: PostgreSQL, SQLite). "
            "Objects are judged there as everywhere.",
            stacklevel=2,
        )


def _fenced(update: Any, compiler: SQLCompiler) -> Any:
    # A bulk UPDATE by primary key of a class with several tables is compiled once for each of them.
    table = update._annotations.get("_emit_update_table", update.table)
    compiled.note(compiler, root_table(table))
    guards = guards_of(table)
    if not guards:
        return update
    in_flush = finds_rows_as_a_flush(update)
    fences = [Fence(guard, table, in_flush=in_flush) for guard in guards]
    if any(_has_text(criterion) for criterion in update._where_criteria):
        # "id = 1 OR id = 2" as text is not put in parentheses by SQLAlchemy, and our AND would bind to its last part.
        update = update._clone()
        update._where_criteria = tuple(map(_Parenthesised, update._where_criteria))
    return update.where(*fences)


def _has_text(criterion: Any) -> bool:
    return any(
        isinstance(each, TextClause) or getattr(each, "is_literal", False) for each in visitors.iterate(criterion)
    )


def finds_rows_as_a_flush(update: Any) -> bool:
    """Return whether the unit of work made the statement: it finds rows by parameters called after key columns.

    So do the statements for steps, which are part of a flush.
    """
    parts = [part for each in update._where_criteria for part in getattr(each, "clauses", (each,))]
    return bool(parts) and all(
        isinstance(getattr(part, "right", None), BindParameter) and part.right.key == getattr(part.left, "_label", None)
        for part in parts
    )


def _fenced_upsert(clause: Any, compiler: SQLCompiler) -> Any:
    """Add the fence to the WHERE of ``ON CONFLICT … DO UPDATE``."""
    statement: Any = compiler.stack[-1]["selectable"]
    table = statement.table
    compiled.note(compiler, root_table(table))
    guards = guards_of(table)
    if not guards:
        return clause
    values = dict(clause.update_values_to_set)  # pairs on 2.0
    fences = []
    for key, value in values.items():
        column = column_set_by(table, key)
        for guard in guards:
            if column is not None and guard.column.key == column.key:
                # The very parameter that SET names, so that the fence judges what is written.
                values[key] = value = as_element(value, guard.column.type)
                fences.append(Fence(guard, table, value=value))
    if not fences:
        return clause
    fenced = copy.copy(clause)
    fenced.update_values_to_set = values if isinstance(clause.update_values_to_set, dict) else list(values.items())
    own = () if clause.update_whereclause is None else (_Parenthesised(clause.update_whereclause),)
    fenced.update_whereclause = sa.and_(*own, *fences)
    return fenced


def column_set_by(table: Any, key: Any) -> Any:
    """Return the column that a key of DO UPDATE's SET stands for, or None; SQLAlchemy takes a column's name as well."""
    name = key if isinstance(key, str) else key.key
    if name in table.c:
        return table.c[name]
    return next((column for column in table.c if column.name == name), None)


def as_element(value: Any, type_: Any) -> Any:
    """Return a value of an INSERT or an upsert as an SQL expression of the column's type."""
    if hasattr(value, "__clause_element__"):
        value = value.__clause_element__()
    if not isinstance(value, ClauseElement):
        # A name of ours: a parameter of the user's may be called "param_1".
        return sa.bindparam("statekit", value, type_=type_, unique=True)
    if isinstance(value, BindParameter) and value.type._isnull:
        return value._with_binary_element_type(type_)
    return value


def _wrap(construct: Any, rewrite: Callable[[Any, SQLCompiler], Any]) -> None:
    """Have ``rewrite`` see each element of a class before it is compiled, outside of every other ``@compiles``."""
    # This makes SQLAlchemy's dispatcher exist with all earlier hooks; later ones only change what is inside of it.
    compiles(construct, "-statekit-")(lambda *args, **kw: None)
    inner = construct._compiler_dispatch

    def dispatch(element: Any, compiler: SQLCompiler, **kw: Any) -> Any:
        return inner(rewrite(element, compiler), compiler, **kw)

    construct._compiler_dispatch = _installed[construct] = dispatch


_installed: dict[Any, Any] = {}


def install() -> None:
    """Install the fence, once; called by the first guard and never by an import."""
    if not _installed:
        _wrap(Update, _fenced)
        for dialect in (sqlite, postgresql):
            _wrap(dialect.dml.OnConflictDoUpdate, _fenced_upsert)


def check(guard: Guard) -> None:
    """Compile one UPDATE and refuse to go on if the fence is not in it.

    Raises:
        StatekitError: this SQLAlchemy compiles an UPDATE in a way that statekit does not know, or somebody called
            ``sqlalchemy.ext.compiler.deregister(Update)``.
    """
    statement = guard.column.table.update().values({guard.column.key: sa.null()})
    if f" = {OPEN}" not in str(statement):
        raise StatekitError(
            f"statekit cannot hold UPDATE statements with SQLAlchemy {sa.__version__}: a compiled UPDATE of "
            f"{guard.column.table.fullname!r} does not carry the guard's predicate. If the process calls "
            "sqlalchemy.ext.compiler.deregister(Update), take that out; otherwise report it, with the version."
        )


def is_in_force() -> bool:
    """Return whether the fence is still the one that compiles UPDATE."""
    return all(construct._compiler_dispatch is dispatch for construct, dispatch in _installed.items())
