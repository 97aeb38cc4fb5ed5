"""The frozen value that a trigger is made of: plain data, as a migration holds it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from statekit.declared import Declared, declared_on
from statekit.errors import Pair, StatekitError, TableError
from statekit.ledger.tables import history_table
from statekit.observe.modes import OnIllegal, check_on_illegal
from statekit.table import TransitionTable
from statekit.trigger import dialects

if TYPE_CHECKING:
    import sqlalchemy as sa

VERSIONS = (1, 2)
"""The versions of the templates: the second adds ``history`` and ``override_role``."""

PREFIX = "statekit_"
"""How the name of everything that statekit makes in a database begins."""

Transitions = TransitionTable | Iterable[Pair]


@dataclass(frozen=True, eq=False, repr=False)
class StateTrigger:
    """A trigger that holds one column of one table to its transitions, whoever writes: a value, and no connection.

    Two are equal if they hold the same column to the same rule in the same way, in whatever order it is written.

    Args:
        table: name of the table.
        column: name of the column.
        transitions: the legal moves, as (source, target), each the text that the database stores, None for NULL;
            or a TransitionTable.
        initial: the states in which a new row may start; None for every state.
        schema: the table's schema; None for the one that the search path finds.
        on_illegal: what an illegal move leads to: "raise" refuses the statement, "skip" leaves the row as it is,
            "observe" lets it pass; each is counted (on PostgreSQL). A refused new row raises in "skip" too.
        inline: write the moves into the trigger's own WHEN. Faster where one statement updates very many rows and there
            are few moves (about ten); slower for single rows, and a new rule then needs a lock on the table.
        version: of the templates. A migration names the version it was written with, so that its SQL stays the same;
            None for the lowest that can do what is asked for.
        states: states besides those in ``transitions`` and ``initial``: those that have no moves.
        history: the primary key's columns, to have each move of a row written to ``statekit_history``; empty for none.
            On PostgreSQL; on SQLite the guard writes it.
        override_role: the members of this role may override the trigger on PostgreSQL; None for nobody.
        ledger_schema: the schema of ``statekit_history`` and ``statekit_ledger``; None for ``public``.

    Raises:
        TableError: a name or a state cannot stand in a database, a mode or version is not known.

    >>> trigger = StateTrigger("message", "status", [("READY", "DONE")], initial=["READY"])
    >>> trigger.name
    'statekit_message_status_d0d43d01'
    >>> print(trigger.create_sql("sqlite")[0].splitlines()[0])
    DROP TRIGGER IF EXISTS "statekit_message_status_d0d43d01"
    """

    table: str
    column: str
    transitions: tuple[Pair, ...]
    initial: tuple[str | None, ...]
    schema: str | None
    on_illegal: OnIllegal
    inline: bool
    version: int
    states: tuple[str | None, ...]
    history: tuple[str, ...]
    override_role: str | None
    ledger_schema: str | None

    def __init__(
        self,
        table: str,
        column: str,
        transitions: Transitions,
        *,
        initial: Iterable[str | None] | str | None,
        schema: str | None = None,
        on_illegal: OnIllegal = "raise",
        inline: bool = False,
        version: int | None = None,
        states: Iterable[str | None] = (),
        history: Iterable[str] = (),
        override_role: str | None = None,
        ledger_schema: str | None = None,
    ) -> None:
        where = f"StateTrigger({table!r}, {column!r})"
        _check_name(table, "table", where)
        _check_name(column, "column", where)
        if schema is not None:
            _check_name(schema, "schema", where)
        if isinstance(transitions, TransitionTable):
            states = (*transitions.states, *states)
            initial = transitions.initial if initial is None else initial
            transitions = transitions.pairs
        moves = tuple(dict.fromkeys(_move(pair, where) for pair in transitions))
        moves = tuple((source, target) for source, target in moves if source != target)
        if isinstance(initial, str):
            initial = [initial]
        listed = [*(state for pair in moves for state in pair), *(_state(state, where) for state in states)]
        first = listed if initial is None else [_state(state, where) for state in initial]
        known = tuple(dict.fromkeys([*listed, *first]))
        if not known:
            raise TableError(f"{where}: there is neither a transition nor an initial state, so that no row could be.")
        try:
            on_illegal = check_on_illegal(on_illegal)
        except ValueError as error:
            raise TableError(f"{where}: {error}") from None
        if not isinstance(inline, bool):
            raise TableError(f"{where}: inline={inline!r}; allowed: True or False.")
        if isinstance(history, str):
            history = [history]
        key = tuple(history)
        for name in key:
            _check_name(name, "primary key's column", where)
        for what, given in (("override_role", override_role), ("ledger_schema", ledger_schema)):
            if given is not None:
                _check_name(given, what, where)
        needs_2 = bool(key) or override_role is not None
        if version is None:
            version = 2 if needs_2 else 1
        if version == 1 and needs_2:
            raise TableError(f"{where}: history and override_role came with version 2, and this says version=1.")
        if version not in VERSIONS:
            raise TableError(
                f"{where}: version={version!r}; this statekit knows {', '.join(map(str, VERSIONS))}. A migration that "
                "names a later version was written with a later statekit: install that."
            )
        values: dict[str, Any] = {
            "table": table,
            "column": column,
            "transitions": moves,
            "initial": tuple(dict.fromkeys(first)),
            "schema": schema,
            "on_illegal": on_illegal,
            "inline": inline,
            "version": version,
            "states": known,
            "history": key,
            "override_role": override_role,
            "ledger_schema": ledger_schema if needs_2 else None,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, attribute_or_column: Any) -> StateTrigger:
        """Return the trigger for a guarded attribute, such as ``Message.status``, or column.

        Raises:
            StatekitError: the attribute has no guard, or stands for no single column.
        """
        guard, column = _declared(attribute_or_column)
        more: dict[str, Any] = {}
        if guard.history:
            more["history"] = [key.name for key in column.table.primary_key]
        if guard.override_role is not None:
            more["override_role"] = guard.override_role
        if more:
            more["ledger_schema"] = history_table(column.table.metadata, f"StateTrigger.of({guard.column})").schema
        return cls(
            column.table.name,
            column.name,
            guard.moves,
            initial=tuple(guard.initial),
            schema=column.table.schema,
            on_illegal=guard.on_illegal,
            states=guard.stored_states,
            **more,
        )

    @cached_property
    def name(self) -> str:
        """Name of the trigger and of the constraint in its errors: readable, and of this column alone.

        At most 49 characters of ``a-z0-9_``: whatever is derived from it stays below PostgreSQL's 63 bytes. The hash
        of schema, table and column keeps those apart that look alike.
        """
        readable = re.sub(r"[^a-z0-9_]", "_", f"{self.table}_{self.column}".lower())[:31]
        digest = hashlib.sha256(json.dumps([self.schema, self.table, self.column]).encode()).hexdigest()
        return f"{PREFIX}{readable}_{digest[:8]}"

    @property
    def full_table(self) -> str:
        """Name of the table, with the schema if there is one, as messages show it."""
        return self.table if self.schema is None else f"{self.schema}.{self.table}"

    def allowed(self, source: str | None, *, new: bool = False) -> tuple[str | None, ...]:
        """Return the states that a row in ``source`` may move to, or that a new row may start in."""
        return self.initial if new else tuple(to for start, to in self.transitions if start == source)

    def allows(self, source: str | None, target: str | None, *, new: bool = False) -> bool:
        """Return whether a move is legal, as the trigger has it; staying is."""
        return target in self.initial if new else source == target or (source, target) in self._pairs

    @cached_property
    def _pairs(self) -> frozenset[Pair]:
        return frozenset(self.transitions)

    def as_data(self) -> dict[str, Any]:
        """Return the trigger as JSON can hold it; :meth:`from_data` takes it back."""
        data: dict[str, Any] = {
            "table": self.table,
            "column": self.column,
            "transitions": [list(pair) for pair in self.transitions],
            "initial": list(self.initial),
            "schema": self.schema,
            "on_illegal": self.on_illegal,
            "inline": self.inline,
            "version": self.version,
            "states": list(self.states),
        }
        if self.version >= 2:
            data |= {"history": list(self.history)}
            data |= {"override_role": self.override_role, "ledger_schema": self.ledger_schema}
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> StateTrigger:
        """Return the trigger of which this is :meth:`as_data`.

        Raises:
            TableError: it is of a later version.
        """
        values = dict(data)
        moves = [(source, target) for source, target in values.pop("transitions")]
        return cls(values.pop("table"), values.pop("column"), moves, **values)

    def on(self, table: str, schema: str | None) -> StateTrigger:
        """Return the same trigger for a table of another name, or in another schema."""
        return self.from_data(self.as_data() | {"table": table, "schema": schema})

    def with_ledger_in(self, schema: str | None) -> StateTrigger:
        """Return the same trigger with the ledger's tables in another schema."""
        if self.version < 2 or self.ledger_schema == schema:
            return self
        return self.from_data(self.as_data() | {"ledger_schema": schema})

    def among(self, default_schema: str) -> StateTrigger:
        """Return the same trigger where tables without a schema are in this one: the ledger's are there as well."""
        if self.version < 2 or self.ledger_schema is not None or default_schema in ("", "public", "main"):
            return self
        return self.with_ledger_in(default_schema)

    @cached_property
    def hash(self) -> str:
        """What tells two rules apart, in whatever order they were written: 16 hexadecimal digits."""
        data = self.as_data()
        for key in ("transitions", "initial", "states"):
            data[key] = sorted(data[key], key=repr)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, StateTrigger) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        parts = [repr(self.table), repr(self.column), repr(list(self.transitions)), f"initial={list(self.initial)!r}"]
        parts += [f"schema={self.schema!r}"] if self.schema is not None else []
        parts += [f"on_illegal={self.on_illegal!r}"] if self.on_illegal != "raise" else []
        parts += ["inline=True"] if self.inline else []
        parts += [f"states={list(self.other_states)!r}"] if self.other_states else []
        parts += [f"history={list(self.history)!r}"] if self.history else []
        for name in ("override_role", "ledger_schema"):
            parts += [f"{name}={getattr(self, name)!r}"] if getattr(self, name) is not None else []
        return f"StateTrigger({', '.join([*parts, f'version={self.version}'])})"

    @property
    def other_states(self) -> tuple[str | None, ...]:
        """The states that stand neither in ``transitions`` nor in ``initial``."""
        mentioned = {state for pair in self.transitions for state in pair} | set(self.initial)
        return tuple(state for state in self.states if state not in mentioned)

    def create_sql(self, dialect: Any) -> tuple[str, ...]:
        """Return the statements that make the trigger, in order, each to be executed on its own.

        Executed again, they put right whatever was changed by hand, and keep what was counted. Those for PostgreSQL
        hold no percent sign, which its drivers take for a parameter.

        Args:
            dialect: "postgresql" or "sqlite", or a SQLAlchemy dialect of these.

        Raises:
            StatekitError: the database is another one.
        """
        return dialects.writer(dialect).create(self)

    def replace_sql(self, old: StateTrigger, dialect: Any) -> tuple[str, ...]:
        """Return the statements that put this trigger in the place of an older one of the same column.

        On PostgreSQL, a new rule takes no lock on the table. What was counted is kept.

        Raises:
            StatekitError: the database is another one, or ``old`` is of another column.
        """
        if old.name != self.name:
            raise StatekitError(
                f"A trigger replaces one of the same column, and {old.full_table}.{old.column} is not "
                f"{self.full_table}.{self.column}. Drop the old one and create the new one."
            )
        return dialects.writer(dialect).replace(self, old)

    def drop_sql(self, dialect: Any) -> tuple[str, ...]:
        """Return the statements that remove the trigger and what it has counted, whether or not the table is there.

        Raises:
            StatekitError: the database is another one than PostgreSQL or SQLite.
        """
        return dialects.writer(dialect).drop(self)


def _declared(attribute_or_column: Any) -> tuple[Declared, sa.Column[Any]]:
    """Return the guard, and the column that was asked for: a copy of the guarded one may be in another schema."""
    columns = [attribute_or_column]
    prop = getattr(attribute_or_column, "property", None)
    if prop is not None:
        columns = [base for column in getattr(prop, "columns", ()) for base in getattr(column, "base_columns", ())]
    for column in columns:
        if (guard := declared_on(column)) is not None:
            return guard, column if hasattr(getattr(column, "table", None), "schema") else guard.column
    raise StatekitError(
        f"{attribute_or_column} has no guard, so that there is no table for a trigger. Declare one with Guarded or "
        "guard(...), or give StateTrigger the transitions."
    )


def _check_name(name: object, what: str, where: str) -> None:
    if not isinstance(name, str) or not name:
        raise TableError(f"{where}: the {what} is {name!r}; allowed is its name.")
    _check_text(name, f"the name of the {what}", where)


def _move(pair: Any, where: str) -> Pair:
    if isinstance(pair, str) or not isinstance(pair, Iterable) or len(both := tuple(pair)) != 2:
        raise TableError(f'{where}: {pair!r} is no move; allowed are pairs such as ("READY", "DONE").')
    return _state(both[0], where), _state(both[1], where)


def _state(state: Any, where: str) -> str | None:
    if state is None:
        return None
    if isinstance(state, int) and not isinstance(state, bool):
        return int.__repr__(state)
    if not isinstance(state, str):
        raise TableError(f"{where}: the state {state!r} is no text; allowed is the text that the database stores.")
    text = str.__str__(state)
    _check_text(text, f"the state {text!r}", where)
    return text


def _check_text(text: str, what: str, where: str) -> None:
    if "\0" in text:
        raise TableError(f"{where}: {what} contains a NUL character, which no database stores as text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TableError(f"{where}: {what} is no valid Unicode text: {text!r}.") from None
