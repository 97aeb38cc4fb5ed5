"""A guard: one column held to one transition table, and where to find it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

import sqlalchemy as sa
from sqlalchemy.sql.selectable import FromClause

from statekit.declared import INFO_KEY, declared_on
from statekit.errors import IllegalTransition, Pair, TableError, TransitionRefused
from statekit.guards.states import ColumnStates
from statekit.observe.modes import Mode, OnIllegal
from statekit.observe.move import Move
from statekit.observe.operation import current_on_illegal, current_operation
from statekit.observe.override import current_override
from statekit.observe.place import place
from statekit.table import TransitionTable
from statekit.table.callbacks import Callback

NOT_KNOWN = object()
"""Stands for a state that is not known in Python."""

_serial = itertools.count()


class Guard:
    """One column held to one transition table; made by :func:`statekit.guard`, never by hand.

    Attributes:
        column: the guarded column.
        table: the transition table, as declared.
        model: name of the class that declared it, or of the table.
        attribute: name of the attribute, or of the column.
        moves: the legal moves, as pairs of the text that the database stores, in declared order.
        legal: the same as a set.
        conditions: the conditions of the moves that have some.
        unconditional: the legal moves without conditions.
        sources: for each target, the sources from which it is legal, in declared order.
        initial: the states in which a new row may start.
        stored_states: the states of the table, in declared order.
        trigger: whether a database trigger belongs to it: True if ``create_all()`` makes it, None if migrations do,
            False if nothing does.
        told: what :func:`statekit.on_commit` has registered; each returns the calls to make for a move.
        history: whether each move of a row is written down.
        override_role: the database's role whose members may override the trigger; None for nobody.
    """

    told: tuple[Callable[[Move], Iterable[Callable[[], object]]], ...] = ()
    history: bool = False
    override_role: str | None = None

    def __init__(
        self,
        column: sa.Column[Any],
        table: TransitionTable,
        *,
        model: str,
        attribute: str,
        on_illegal: OnIllegal,
        steps: bool,
        trigger: bool | None = None,
    ) -> None:
        where = f"{model}.{attribute}"
        self.column = column
        self.table = table
        self.model = model
        self.attribute = attribute
        self.on_illegal = on_illegal
        self.steps = steps
        self.trigger = trigger
        self.subject = (model, attribute, column.table.fullname, next(_serial))
        """What counts are kept by: plain data, so that a count does not keep a class alive."""
        self.states = ColumnStates(column, table, where)
        texts = self.states.texts
        self.moves = tuple((texts[source], texts[target]) for source, target in table.pairs)
        self.legal = frozenset(self.moves)
        self.conditions: dict[Pair, tuple[Callback, ...]] = {
            pair: tuple(map(Callback, transition.conditions))
            for pair, transition in zip(self.moves, table.transitions, strict=True)
            if transition.conditions
        }
        self.unconditional = self.legal - self.conditions.keys()
        self.stored_states = tuple(texts[state] for state in table.states)
        self.sources: dict[str | None, list[str | None]] = {}
        self._targets: dict[str | None, tuple[str | None, ...]] = {}
        for source in table.states:
            self._targets[texts[source]] = tuple(texts[target] for target in table.targets(source))
        for source, target in table.pairs:
            self.sources.setdefault(texts[target], []).append(texts[source])
        self.initial: dict[str | None, None] = {texts[state]: None for state in table.initial}
        if None in self.states.values and column.nullable is False:
            raise TableError(f"{where}: NULL is a state of the table, and the column is NOT NULL. Leave it out.")
        self.default = self._scalar_default(where)
        """The state that a new row gets from the column's plain default; NOT_KNOWN where only the INSERT shows it."""

    def _scalar_default(self, where: str) -> Any:
        default: Any = self.column.default
        if default is not None and default.is_scalar:
            text = self.states.text(default.arg)
            if text not in self.states.values:
                raise TableError(
                    f"{where}: the column's default {default.arg!r} is no state of the table. Its states: "
                    f"{', '.join(map(str, self.states.texts))}."
                )
            return text
        if default is not None or self.column.server_default is not None:
            return NOT_KNOWN
        return None

    def __getstate__(self) -> dict[str, Any]:
        # A MetaData with guarded columns can be pickled; what is called after a commit here is none of its business.
        return {name: value for name, value in vars(self).items() if name != "told"}

    def __repr__(self) -> str:
        return f"<statekit guard {self.model}.{self.attribute}: {self.table!r}>"

    @property
    def mode(self) -> Mode:
        """What an illegal move leads to here and now: an override says, else the innermost operation, else the guard.

        Where the table has a trigger, nothing that it would refuse is let through: the guard can name it better.
        """
        if current_override() is not None:
            return "override"
        chosen = current_on_illegal() or self.on_illegal
        return self.on_illegal if self.trigger and chosen == "observe" else chosen

    def allowed(self, source: str | None, *, new: bool) -> tuple[str | None, ...]:
        """Return the states that a row in ``source`` may move to, or that a new row may start in."""
        return tuple(self.initial) if new else self._targets.get(source, ())

    def move(
        self,
        kind: Any,
        pair: Pair,
        identities: Iterable[tuple[Any, ...] | None],
        *,
        number: int | None = None,
        new: bool = False,
        mode: str,
        model: str | None = None,
        condition: str | None = None,
    ) -> Move:
        """Return what the hook is told about rows that made, or were refused, the same move.

        Args:
            number: how many rows, if not all of their identities are known.
            condition: name of the condition that said no, if one did.
        """
        rows = tuple(identities)
        operation = current_operation()
        override = current_override() if kind == "overridden" else None
        source, target = pair
        return Move(
            kind=kind,
            subject=self.subject,
            model=model or self.model,
            attribute=self.attribute,
            source=source,
            target=target,
            new=new,
            identities=rows,
            number=len(rows) if number is None else number,
            allowed=self.allowed(source, new=new),
            mode=mode,
            operation=operation.name if operation is not None else None,
            condition=condition,
            table=self.column.table.fullname,
            place=None if kind == "allowed" else place(),
            actor=override.actor if override is not None else None,
            reason=override.reason if override is not None else None,
        )


_registered: tuple[ref[Guard], ...] = ()
"""Every guard, weakly: it goes away with its column. Replaced and never changed, so that threads may read it."""


_filled_by_relationships = False


def register(guard: Guard) -> None:
    """Make the guard known to everything that looks for one by column or by name."""
    global _registered, _filled_by_relationships
    # A new dictionary: the old one may be shared by several columns.
    guard.column.info = {**guard.column.info, INFO_KEY: guard}
    _registered = (*(known for known in _registered if known() is not None), ref(guard))
    _filled_by_relationships = _filled_by_relationships or bool(guard.column.foreign_keys)


def unregister(guard: Guard) -> None:
    """Take a guard back whose declaration failed."""
    global _registered
    guard.column.info = {key: value for key, value in guard.column.info.items() if key != INFO_KEY}
    _registered = tuple(known for known in _registered if known() not in (None, guard))


def guard_of(column: Any) -> Guard | None:
    """Return the guard of a column, or None.

    ``Column.info`` goes with every copy of a column. A copy in a table of another name (for staging, for a history) is
    not the guarded one.
    """
    guard = declared_on(column)
    return guard if isinstance(guard, Guard) else None


def all_guards() -> list[Guard]:
    """Return every guard that is in force."""
    return [guard for known in _registered if (guard := known()) is not None]


def filled_by_relationships() -> bool:
    """Return whether a guarded column is a foreign key, which a relationship may fill while a flush is under way."""
    return _filled_by_relationships


def guards_of(target: Any) -> list[Guard]:
    """Return the guards of a table, an alias of one, or a bare ``table()`` that names one.

    A column knows its guard itself, and so does its copy in another MetaData. A bare ``sqlalchemy.table()`` has no
    MetaData, and is the guarded table if schema and name are the same. Another ``Table`` of that name is not: a process
    may work with several databases.
    """
    table = root_table(target)
    columns = getattr(table, "columns", ())
    if isinstance(table, sa.Table) or not isinstance(table, sa.TableClause):
        return [guard for column in columns if (guard := guard_of(column)) is not None]
    return [
        guard
        for guard in all_guards()
        if guard.column.table.name == table.name
        and guard.column.table.schema == table.schema
        and guard.column.key in table.columns
    ]


def root_table(target: Any) -> FromClause:
    """Return the table behind an alias (or an annotated copy) of it."""
    while not isinstance(target, sa.Table) and getattr(target, "element", None) is not None:
        target = target.element
    return target  # type: ignore[no-any-return]


def primary_key_of(target: Any, guard: Guard) -> list[Any]:
    """Return the primary key of a table that a statement names; a bare ``table()`` has that of the guarded one.

    Args:
        target: the table, or an alias of it.
        guard: of one of its columns.
    """
    known = list(getattr(target, "primary_key", ()))
    if known or isinstance(root_table(target), sa.Table):
        return known
    keys = [column.key for column in guard.column.table.primary_key]
    return [target.c[key] for key in keys] if all(key in target.c for key in keys) else []


def refusal_of(
    guard: Guard,
    refused: list[tuple[Pair, tuple[Any, ...] | None]],
    *,
    new: bool,
    model: str,
    key_names: tuple[str, ...],
    hint: str = "",
    pairs: Counter[Pair] | None = None,
    condition: str | None = None,
    asked: bool = True,
) -> IllegalTransition | TransitionRefused:
    """Return the error that names refused rows of one guard, in the order given.

    Args:
        refused: the moves of the rows that are named, with their identities.
        pairs: how many rows of each move were refused, if not all of them are named.
        condition: name of the condition that said no; None where the table does.
        asked: whether it was asked.
    """
    (source, target), identity = refused[0]
    about: dict[str, Any] = {
        "model": model,
        "attribute": guard.attribute,
        "identity": identity,
        "source": source,
        "target": target,
        "allowed": guard.allowed(source, new=new),
        "pairs": Counter(pair for pair, _ in refused) if pairs is None else pairs,
        "identities": [row for _, row in refused if row is not None],
        "new": new,
        "hint": hint,
        "key_names": key_names,
    }
    return (
        IllegalTransition(**about)
        if condition is None
        else TransitionRefused(condition=condition, asked=asked, **about)
    )
