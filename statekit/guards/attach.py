"""Attaching a guard: :class:`Guarded` on a model, :func:`guard` on an attribute or a column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import (
    ColumnProperty,
    CompositeProperty,
    Mapper,
    MapperProperty,
    QueryableAttribute,
    RelationshipProperty,
    SynonymProperty,
)
from sqlalchemy.orm.attributes import InstrumentedAttribute

from statekit.errors import TableError
from statekit.guards import compiled, events, fence, objects, refused
from statekit.guards.flush import judge_late_changes
from statekit.guards.guard import Guard, all_guards, guard_of, register, unregister
from statekit.guards.statements import hook
from statekit.guards.steps import follow
from statekit.observe.modes import OnIllegal, check_on_illegal
from statekit.table import TransitionTable
from statekit.trigger.metadata import create_with
from statekit.trigger.spec import StateTrigger


class Guarded:
    """A mixin: hold the columns that ``__transitions__`` names to their transition tables.

    Put it before the declarative base. It adds nothing to the class but the guards and a method for each event that the
    tables name: no attribute, no column.
    ``__transitions__`` may stand on a mixin or an abstract base as well; each mapped class then has a guard of its own.

    Attributes:
        __transitions__: a :class:`~statekit.TransitionTable` for each attribute name; for more options, call
            :func:`guard` instead.

    >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
    >>> class Base(DeclarativeBase): pass
    >>> class Ticket(Guarded, Base):
    ...     __tablename__ = "ticket"
    ...     id = mapped_column(sa.Integer, primary_key=True)
    ...     state = mapped_column(sa.String, default="OPEN")
    ...     __transitions__ = {"state": TransitionTable("OPEN → CLOSED", initial="OPEN")}
    """

    __transitions__: ClassVar[Mapping[str, TransitionTable]]


def _declare(mapper: Mapper[Any], class_: type) -> None:
    """Attach the guards of a class that was just mapped."""
    declared: Any = getattr(class_, "__transitions__", None)
    if declared is None:
        _check_spelling(class_)
        return
    if not isinstance(declared, Mapping):
        raise TableError(
            f"{class_.__name__}.__transitions__ is {type(declared).__name__}; allowed is a mapping of attribute name "
            'to TransitionTable, such as {"status": TransitionTable("READY → DONE")}.'
        )
    if _is_abstract_concrete_base(mapper):
        return  # each of the concrete classes has a table and a guard of its own
    for key, table in declared.items():
        where = f"{class_.__name__}.__transitions__[{key!r}]"
        column = _column_of(mapper, key, where)
        existing = guard_of(column)
        if existing is not None and is_inherited(mapper, column) and existing.table == table:
            events.install_in_subclass(existing, key, mapper)
            continue  # the subclass shares the column, and with it the guard
        _attach(column, table, mapper, key, where)
    if events.unused(class_):  # until then, guard() may declare what they are events of
        event.listen(mapper, "before_mapper_configured", _check_events)


def _check_events(mapper: Mapper[Any], class_: type) -> None:
    for name in events.unused(class_):
        raise TableError(
            f"{class_.__name__}.{name} is decorated with @statekit.event, and no transition of its tables names "
            f"event={name!r}. Give it to one, or take the decorator off."
        )


def _check_spelling(class_: type) -> None:
    for name in vars(class_):
        if name.startswith("__transition"):
            raise TableError(f"{class_.__name__}.{name}: the name that Guarded looks for is __transitions__.")


# On our own class only: SQLAlchemy passes it on to the classes derived from it, and to nothing else.
event.listen(Guarded, "after_mapper_constructed", _declare, propagate=True)


def guard(
    attribute_or_column: QueryableAttribute[Any] | sa.ColumnElement[Any],
    table: TransitionTable,
    *,
    on_illegal: OnIllegal = "raise",
    steps: bool = False,
    trigger: bool | None = None,
    history: bool = False,
    override_role: str | None = None,
) -> None:
    """Hold a column to a transition table, for a model or a table that is declared elsewhere.

    It works for any mapped class, declarative or imperative, before or after the mappers are configured, and for a
    ``Column`` of a ``Table`` whether or not a class is mapped to it. What was compiled before is compiled anew.

    Args:
        attribute_or_column: such as ``Message.status`` or ``message_table.c.status``.
        table: the states and the moves between them.
        on_illegal: what an illegal move leads to: "raise" refuses the flush or the statement; "skip" drops the row's
            whole UPDATE and goes on (a refused new row raises all the same); "observe" lets it pass and counts it.
            :func:`statekit.operation` may choose otherwise for a block.
        steps: whether several assignments before one flush are followed, each an UPDATE of its own; else only the
            net move is judged.
        trigger: whether the table in the database has a trigger that holds it to the same: True makes it with
            ``metadata.create_all()`` and removes it with ``drop_all()``; None leaves that to migrations
            (``statekit.alembic``); False says that there is none, to those as well.
        history: whether each move that a row makes is written to ``statekit_history``, in the transaction of the move:
            by the trigger where there is one on PostgreSQL, else by the guard. It needs the ledger's tables
            (``statekit.ledger.add_to``).
        override_role: a role of PostgreSQL whose members may override the trigger, too; see :func:`statekit.override`.

    Raises:
        TableError: the table does not fit the column, the attribute is no plain column of a class, or the column
            has a guard already.
    """
    where = f"guard({attribute_or_column})"
    options: dict[str, Any] = {"on_illegal": on_illegal, "steps": steps, "trigger": trigger}
    options |= {"history": history, "override_role": override_role}
    if isinstance(attribute_or_column, sa.Column):
        column = attribute_or_column
        if not isinstance(getattr(column, "table", None), sa.Table):
            raise TableError(f"{where}: the column belongs to no Table yet. Guard it once its Table is made.")
        _attach(column, table, None, column.key, where, **options)
        return
    if not isinstance(attribute_or_column, InstrumentedAttribute) or not isinstance(attribute_or_column.parent, Mapper):
        if isinstance(attribute_or_column, QueryableAttribute):
            raise TableError(
                f"{where}: that is an attribute of an alias, or stands for another one. Guard the attribute of the "
                "class itself that holds the column."
            )
        raise TableError(
            f"guard({attribute_or_column!r}): allowed is an attribute of a mapped class, such as Message.status, or a "
            "Column, such as message_table.c.status."
        )
    mapper = attribute_or_column.parent
    where = f"guard({mapper.class_.__name__}.{attribute_or_column.key})"
    column = _column_of(mapper, attribute_or_column.key, where)
    if is_inherited(mapper, column):
        owner = next(m for m in reversed(list(mapper.iterate_to_root())) if m.columns.contains_column(column))
        raise TableError(
            f"{where}: the column belongs to {owner.class_.__name__}, and a table holds for a whole column. "
            f"Write guard({owner.class_.__name__}.{attribute_or_column.key}, …)."
        )
    key = attribute_or_column.key
    _attach(column, table, mapper, key, where, **options)


def guard_on(attribute_or_column: Any) -> Guard | None:
    """Return the guard of a mapped attribute or of a column, or None."""
    if isinstance(attribute_or_column, QueryableAttribute):
        prop = attribute_or_column.parent.mapper.get_property(attribute_or_column.key)
        columns = prop.columns if isinstance(prop, ColumnProperty) else []
        bases = [base for column in columns for base in column.base_columns]
        return next((found for base in bases if (found := guard_of(base)) is not None), None)
    return guard_of(attribute_or_column)


def _column_of(mapper: Mapper[Any], key: str, where: str) -> sa.Column[Any]:
    """Return the one table column behind an attribute."""
    if not mapper.has_property(key):
        raise TableError(
            f"{where}: {mapper.class_.__name__} has no attribute {key!r}. Its columns: "
            f"{', '.join(_column_names(mapper))}."
        )
    prop = mapper.get_property(key)
    if not isinstance(prop, ColumnProperty):
        raise TableError(
            f"{where}: {key!r} is a {_kind(prop)}; a guard needs an attribute that holds one column. "
            f"Those are: {', '.join(_column_names(mapper))}."
        )
    columns = [column for column in prop.columns if isinstance(column, sa.Column)]
    if len(columns) != 1 or len(prop.columns) != 1:
        raise TableError(
            f"{where}: {key!r} stands for {len(prop.columns)} columns or an SQL expression; a guard needs an attribute "
            "that holds exactly one column of a table."
        )
    if not isinstance(columns[0].table, sa.Table):
        raise TableError(
            f"{where}: {mapper.class_.__name__} is mapped to a query and not to a table. Guard the column of the table "
            "beneath it, such as guard(message_table.c.status, …)."
        )
    return columns[0]


def _is_abstract_concrete_base(mapper: Mapper[Any]) -> bool:
    if isinstance(mapper.local_table, sa.Table):
        return False
    from sqlalchemy.ext.declarative import AbstractConcreteBase

    return issubclass(mapper.class_, AbstractConcreteBase)


def _kind(prop: MapperProperty[Any]) -> str:
    kinds = {RelationshipProperty: "relationship", CompositeProperty: "composite", SynonymProperty: "synonym"}
    return next((name for kind, name in kinds.items() if isinstance(prop, kind)), type(prop).__name__)


def is_inherited(mapper: Mapper[Any], column: sa.Column[Any]) -> bool:
    """Return whether a class has a column from a class above it."""
    return mapper.inherits is not None and mapper.inherits.columns.contains_column(column)


def _column_names(mapper: Mapper[Any]) -> list[str]:
    return sorted(mapper.columns.keys())


def _attach(
    column: sa.Column[Any],
    table: TransitionTable,
    mapper: Mapper[Any] | None,
    key: str,
    where: str,
    *,
    on_illegal: OnIllegal = "raise",
    steps: bool = False,
    trigger: bool | None = None,
    history: bool = False,
    override_role: str | None = None,
) -> None:
    if not isinstance(table, TransitionTable):
        raise TableError(
            f'{where}: {table!r} is no TransitionTable. Write TransitionTable("READY → DONE", initial="READY").'
        )
    try:
        on_illegal = check_on_illegal(on_illegal)
    except ValueError as error:
        raise TableError(f"{where}: {error}") from None
    if not isinstance(steps, bool):
        raise TableError(f"{where}: steps={steps!r}; allowed: True or False.")
    if trigger is not None and not isinstance(trigger, bool):
        raise TableError(f"{where}: trigger={trigger!r}; allowed: True, False, or None (made by migrations).")
    if not isinstance(history, bool):
        raise TableError(f"{where}: history={history!r}; allowed: True or False.")
    if history and not column.table.primary_key:
        raise TableError(f"{where}: history=True is about rows, and the table has no primary key to tell them apart.")
    if override_role is not None and (not isinstance(override_role, str) or not override_role):
        raise TableError(f"{where}: override_role={override_role!r}; allowed: the name of a role, or None.")
    if steps and mapper is None:
        raise TableError(
            f"{where}: steps=True follows what is assigned to an attribute. Guard the attribute of the mapped class, "
            "not its column."
        )
    existing = guard_of(column)
    if existing is not None and existing.column is column:
        raise TableError(
            f"{where}: the column {column.table.fullname}.{column.name} is guarded already, by {existing!r}. A column "
            "has one table; merge two with table | other before they are declared."
        )
    model = mapper.class_.__name__ if mapper is not None else column.table.fullname
    made = Guard(column, table, model=model, attribute=key, on_illegal=on_illegal, steps=steps, trigger=trigger)
    register(made)
    take_methods_away: Callable[[], None] = lambda: None  # noqa: E731
    try:
        take_methods_away = events.install(made, mapper, key, where)
        fence.install()
        objects.install()
        hook.install()
        compiled.catch_up((column.table.schema, column.table.name), {each.column.table.name for each in all_guards()})
        fence.check(made)
        refused.install()
        if trigger:
            StateTrigger.of(column)  # what a database cannot hold is an error now, and not when the table is made
        made.history, made.override_role = history, override_role
        if trigger:
            create_with(column.table, partial(StateTrigger.of, column))
        if steps and mapper is not None:
            follow(mapper, key)
        if column.foreign_keys and mapper is not None:
            judge_late_changes(mapper)
    except BaseException:
        unregister(made)  # nothing is half-applied
        take_methods_away()
        raise
