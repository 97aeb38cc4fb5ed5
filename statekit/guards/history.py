"""The history of rows as the guard writes it, and what a write tells the triggers of PostgreSQL.

Where there is a trigger that writes the history, it does; the guard asks after each write, when its own lock keeps
anybody from making or dropping the trigger, so that a move is written once. For the trigger, the transaction is told
what for it writes, by settings that end with it: ``statekit.operation``, ``.place``, and in an override ``.reason`` and
``.actor``, which let the members of the guard's ``override_role`` past.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from statekit.errors import Pair, StatekitError
from statekit.guards import current
from statekit.guards.guard import Guard
from statekit.ledger.entries import now
from statekit.ledger.keys import row_key
from statekit.ledger.tables import history_table
from statekit.observe.modes import PASSING
from statekit.observe.operation import current_operation
from statekit.observe.override import current_override
from statekit.observe.place import place
from statekit.trigger.quoting import identifier
from statekit.trigger.spec import StateTrigger

Key = tuple[Any, ...]

_SETTINGS = ("operation", "place", "reason", "actor")

_told: ContextVar[tuple[Told, ...]] = ContextVar("statekit_told", default=())


def is_wanted(guard: Guard) -> bool:
    """Return whether a write of a guarded column has something to tell, or to write down."""
    return guard.history or current_override() is not None


class Told:
    """One write on one connection.

    Args:
        connection: which it is made on.
        guards: of the columns that it may write.
        ask: executes statements of our own.
    """

    def __init__(self, connection: Connection, guards: Sequence[Guard], ask: current.Ask | None = None) -> None:
        self.connection = connection
        self._guards = guards
        self._ask = ask or current.asking(connection)
        on_postgresql = connection.dialect.name == "postgresql"
        self._triggered = [guard for guard in guards if guard.trigger is not False] if on_postgresql else []
        """The guards that may have a trigger, which is told and asked."""
        self._by_trigger: frozenset[Guard] | None = None
        self._recorded: dict[Guard, int] = {}
        self._is_told = False
        self._values: tuple[str, ...] = ("",) * len(_SETTINGS)
        self._around: Told | None = None
        self._recorded_before: dict[str, int] = {}
        self._place: str | None = None
        self.expects_trigger: frozenset[Guard] = frozenset()
        """The guards whose history a trigger writes, as it was before the write."""

    def begin(self) -> None:
        """Tell the transaction what for it writes."""
        self._place = place()
        if self._triggered:
            around = (each for each in _told.get() if each._is_told and each.connection is self.connection)
            self._around = next(around, None)
            context = self._context()
            self._values = tuple(context[name] or "" for name in _SETTINGS)
            self.expects_trigger = self._tell()
            self._is_told = True
        if self.connection._is_autocommit_isolation():
            self._refuse_what_must_be_atomic()

    def _refuse_what_must_be_atomic(self) -> None:
        from statekit.ledger.attaching import writer_of  # it has threads and sockets, which most never need

        if current_override() is not None and writer_of(self.connection) is not None:
            raise StatekitError(
                "An overridden move and its entry in the ledger are committed together, and this connection is in "
                "AUTOCOMMIT. Override in a transaction."
            )
        for guard in self._guards:
            if guard.history and guard not in self.expects_trigger:
                raise StatekitError(
                    f"{guard.model}.{guard.attribute} has history=True: a move and its history are committed together, "
                    "and this connection is in AUTOCOMMIT. Write in a transaction, or install the guard's trigger on "
                    "PostgreSQL, which writes both at once."
                )

    def _context(self) -> dict[str, str | None]:
        """Return what for the write is, as the history has it."""
        operation, override = current_operation(), current_override()
        return {
            "operation": operation.name if operation is not None else None,
            "actor": override.actor if override is not None else None,
            "reason": override.reason if override is not None else None,
            "place": self._place or place(),
        }

    def hear(self) -> None:
        """Ask which triggers have written the history and how many overridden moves; take back what was told."""
        if self._by_trigger is not None:
            return
        self._by_trigger = frozenset()
        if not self._triggered:
            return
        guards = self._triggered
        counters = self._counters()
        columns = [
            *map(self._has_history_trigger, guards),
            *(sa.func.current_setting(counter, True) for counter in counters),
            *self._take_back(),
        ]
        answers = tuple(self._ask(sa.select(*columns), {}).one())
        self._is_told = False
        self._by_trigger = frozenset(g for g, yes in zip(guards, answers, strict=False) if yes and g.history)
        self._recorded = {
            guard: int(number or 0) - self._recorded_before.get(counter, 0)
            for guard, counter, number in zip(guards, counters, answers[len(guards) :], strict=False)
        }

    def forget(self) -> None:
        """Take back what was told, after an error."""
        if self._is_told:
            self._is_told = False
            with suppress(sa.exc.SQLAlchemyError):  # the transaction is aborted or lost, and takes it back itself
                self._ask(sa.select(*self._take_back()), {})

    def is_recorded(self, guard: Guard, number: int) -> bool:
        """Return whether the trigger has recorded overridden moves that the table does not allow."""
        self.hear()
        return 0 < number <= self._recorded.get(guard, 0)

    def is_written_by_trigger(self, guard: Guard) -> bool:
        """Return whether a trigger has written the history of what was just written."""
        self.hear()
        return guard in (self._by_trigger or ())

    def write(
        self, guard: Guard, table: Any, primary_key: Sequence[Any], kind: str, pair: Pair, keys: list[Key], *, new: bool
    ) -> None:
        """Write the history of rows that have made the same move, unless a trigger has.

        Args:
            guard: whose rows they are.
            table: the rows' table.
            primary_key: its primary key, in the order of the keys.
            kind: "allowed", "observed" or "overridden".
            pair: the move.
            keys: the rows.
            new: whether they are new ones.
        """
        if not keys or self.is_written_by_trigger(guard):
            return
        what: dict[str, Any] = {"kind": kind, "source": pair[0], "target": pair[1], "is_new": new}
        if self._insert(guard, table, primary_key, keys, **what) in (-1, len(keys)):
            return
        there: set[Key] = set()
        for condition, parameters in current.matching(self.connection, primary_key, keys):
            found = self._ask(sa.select(*primary_key).select_from(table).where(condition), parameters)
            there.update(tuple(row) for row in found)
        for key in keys:  # the row is gone by now, or has another key: it has moved all the same
            if key not in there:
                self._insert_one(guard, primary_key, key, **what)

    def write_new(self, guard: Guard, table: Any, primary_key: Sequence[Any], keys: list[Key]) -> None:
        """Write the history of new rows, in the states in which the database has them; see :meth:`write`."""
        if not keys or self.is_written_by_trigger(guard):
            return
        if any(part is None for key in keys for part in key) or not all(keys):
            check_complete(guard, 0, len(keys))
        state = sa.cast(table.c[guard.column.key], sa.Text)
        initial = [text for text in guard.initial if text is not None]
        is_legal: Any = state.in_(initial)
        if None in guard.initial:
            is_legal = sa.or_(is_legal, state.is_(None))
        otherwise = PASSING.get(guard.mode, "observed")
        kind = sa.case((is_legal, sa.literal("allowed")), else_=sa.literal(otherwise))
        self._insert(guard, table, primary_key, keys, kind=kind, source=None, target=state, is_new=True)

    def _insert(self, guard: Guard, table: Any, primary_key: Sequence[Any], keys: list[Key], **what: Any) -> int:
        """Write the history of rows that are there; return how many were found, -1 if the driver does not say so."""
        found = 0
        for condition, parameters in current.matching(self.connection, primary_key, keys):
            written = self._execute(guard, row_key(*primary_key), (table, condition), parameters, **what)
            found = -1 if written < 0 or found < 0 else found + written
        return found

    def _insert_one(self, guard: Guard, primary_key: Sequence[Any], key: Key, **what: Any) -> None:
        values = [sa.literal(part, column.type) for part, column in zip(key, primary_key, strict=True)]
        self._execute(guard, row_key(*values), None, {}, **what)

    def _execute(self, guard: Guard, key: Any, rows: tuple[Any, Any] | None, parameters: Any, **what: Any) -> int:
        history = history_table(guard.column.table.metadata, f"The history of {guard.model}.{guard.attribute}")
        values: dict[str, Any] = {
            "at": now(),
            "table_name": guard.column.table.fullname,
            "column_name": guard.column.name,
            **what,
            **self._context(),
        }
        selected = [
            value if isinstance(value, sa.ColumnElement) else sa.literal(value, history.c[name].type)
            for name, value in values.items()
        ]
        role = sa.literal_column("session_user") if self.connection.dialect.name == "postgresql" else sa.null()
        query = sa.select(*selected, key, role)
        if rows is not None:
            query = query.select_from(rows[0]).where(rows[1])
        # Some drivers forget the number when they close the cursor.
        insert = (
            history.insert()
            .from_select([*values, "key", "role"], query, False)
            .execution_options(preserve_rowcount=True)
        )
        number: int = self._ask(insert, parameters).rowcount
        return number

    def _tell(self) -> frozenset[Guard]:
        """Tell the transaction; return the guards whose history a trigger writes."""
        guards = [guard for guard in self._triggered if guard.history]
        counters = self._counters() if self._around is not None else []
        columns = [
            *map(self._has_history_trigger, guards),
            *(sa.func.current_setting(counter, True) for counter in counters),
            *_settings(self._values),
        ]
        answers = tuple(self._ask(sa.select(*columns), {}).one())
        before = zip(counters, answers[len(guards) :], strict=False)
        self._recorded_before = {counter: int(number or 0) for counter, number in before}
        return frozenset(guard for guard, yes in zip(guards, answers, strict=False) if yes)

    def _take_back(self) -> list[Any]:
        """Return what lets the transaction know again what it was told by the write around this one, if any."""
        before = ((counter, self._recorded_before.get(counter)) for counter in self._counters())
        values = self._around._values if self._around is not None else ("",) * len(_SETTINGS)
        return [*(sa.func.set_config(name, str(n) if n else "", True) for name, n in before), *_settings(values)]

    def _counters(self) -> list[str]:
        return [f"statekit.{self._trigger_name(guard)}" for guard in self._triggered]

    def _has_history_trigger(self, guard: Guard) -> Any:
        table = guard.column.table
        schema = self.connection.schema_for_object(table)
        name = self._trigger_name(guard)
        # Not as the dialect quotes names, which doubles percent signs: this is a value.
        full = ".".join(identifier(part) for part in (schema, table.name) if part is not None)
        triggers = sa.table("pg_trigger", *map(sa.column, ("tgrelid", "tgname", "tgenabled")), schema="pg_catalog")
        return sa.exists().where(
            triggers.c.tgrelid == sa.func.to_regclass(full),
            triggers.c.tgname.in_([f"{name}_history", f"zzz_{name}_history"]),
            sa.cast(triggers.c.tgenabled, sa.Text).in_(["A", _fires]),
        )

    def _trigger_name(self, guard: Guard) -> str:
        table = guard.column.table
        schema = self.connection.schema_for_object(table)
        known = _names.setdefault(guard, {})
        if schema not in known:
            known[schema] = StateTrigger(table.name, guard.column.name, (), initial=[None], schema=schema).name
        return known[schema]


_fires: Any = sa.case(
    (sa.func.current_setting("session_replication_role") == "replica", sa.literal("R")), else_=sa.literal("O")
)


def _settings(values: Sequence[str]) -> list[Any]:
    return [sa.func.set_config(f"statekit.{name}", value, True) for name, value in zip(_SETTINGS, values, strict=True)]


_names: WeakKeyDictionary[Guard, dict[Any, str]] = WeakKeyDictionary()


@contextmanager
def telling(told: Iterable[Told]) -> Iterator[None]:
    """Tell connections what for they are written, for the length of a block."""
    each = tuple(told)
    before = _told.set((*each, *_told.get()))
    try:
        for one in each:
            one.begin()
        yield
        for one in each:
            one.hear()
    except BaseException:
        for one in each:
            one.forget()
        raise
    finally:
        _told.reset(before)


def told_on(connection: Connection, guard: Guard) -> Told:
    """Return what was told on a connection by the write that is under way."""
    for told in _told.get():
        if told.connection is connection and guard in told._guards:
            return told
    return Told(connection, [guard])


def is_ours(connection: Connection, guard: Guard) -> bool:
    """Return whether the guard writes the history itself, because there is no trigger that does."""
    return guard.history and guard not in told_on(connection, guard).expects_trigger


def check_complete(guard: Guard, named: int, number: int) -> None:
    """Raise if not every row that was written is known by its key.

    Raises:
        StatekitError: the history would not be complete.
    """
    if named != number:
        raise StatekitError(
            f"{guard.model}.{guard.attribute} has history=True, and of {number} rows that this statement has written, "
            f"the primary keys of {number - named} are not known, so that their history cannot be written. Roll back. "
            "Give the keys in the statement, or install the guard's trigger on PostgreSQL, which sees each row."
        )
