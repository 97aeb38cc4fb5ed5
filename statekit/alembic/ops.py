"""What a migration says about state triggers, as data: to be executed, reversed, compared and written out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alembic.operations import MigrateOperation, Operations

from statekit.errors import Pair, StatekitError, TableError
from statekit.observe.modes import OnIllegal
from statekit.table import TransitionTable
from statekit.trigger import StateTrigger

CHANGEABLE = (
    "transitions", "initial", "on_illegal", "inline", "states", "history", "override_role", "ledger_schema", "version"
)  # fmt: skip
"""What a replaced trigger may have had otherwise."""


@Operations.register_operation("create_state_trigger")
class CreateStateTriggerOp(MigrateOperation):
    """Make a state trigger.

    Attributes:
        trigger: what is made.
    """

    def __init__(self, trigger: StateTrigger) -> None:
        self.trigger = trigger

    @classmethod
    def create_state_trigger(
        cls,
        operations: Operations,
        table: str,
        column: str,
        transitions: Iterable[Pair],
        initial: Iterable[str | None] | str | None,
        *,
        schema: str | None = None,
        on_illegal: OnIllegal = "raise",
        inline: bool = False,
        states: Iterable[str | None] = (),
        history: Iterable[str] = (),
        override_role: str | None = None,
        ledger_schema: str | None = None,
        version: int = 1,
    ) -> None:
        """Make a trigger that holds a column to its transitions, or put right one that was changed by hand.

        Args:
            table: name of the table.
            column: name of the column.
            transitions: the legal moves, as pairs of the text that the database stores, None for NULL.
            initial: the states in which a new row may start; None for every state.
            schema: the table's schema.
            on_illegal: what an illegal move leads to: "raise", "skip" or "observe".
            inline: write the moves into the trigger's own WHEN, see :class:`statekit.trigger.StateTrigger`.
            states: states that have neither a move nor may be a start.
            history: the primary key's columns, to have each move written to ``statekit_history`` (version 2).
            override_role: the role whose members may override the trigger (version 2).
            ledger_schema: the schema of the ledger's tables, where it is not ``public``.
            version: of the templates that the SQL is made of, so that it stays the same under every later statekit.

        Raises:
            TableError: a name, a state, a mode or the version is not allowed.
            StatekitError: there are no state triggers for this database.
        """
        data: dict[str, Any] = {"on_illegal": on_illegal, "inline": inline, "states": states, "version": version}
        data |= {"history": history, "override_role": override_role, "ledger_schema": ledger_schema}
        operations.invoke(cls(_trigger("create_state_trigger", table, column, schema, transitions, initial, data)))

    def reverse(self) -> DropStateTriggerOp:
        """Return the operation that removes the trigger."""
        return DropStateTriggerOp.of(self.trigger)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` shows it."""
        return ("create_state_trigger", *_place(self.trigger), self.trigger)


@Operations.register_operation("replace_state_trigger")
class ReplaceStateTriggerOp(MigrateOperation):
    """Give a state trigger another rule, or put right one that was changed by hand: then both rules are the same.

    Attributes:
        trigger: what it is to be.
        old: what it was.
        note: what a reader of the migration should know, as a comment.
    """

    def __init__(self, trigger: StateTrigger, old: StateTrigger, note: str = "") -> None:
        self.trigger = trigger
        self.old = old
        self.note = note

    @classmethod
    def replace_state_trigger(
        cls,
        operations: Operations,
        table: str,
        column: str,
        transitions: Iterable[Pair],
        initial: Iterable[str | None] | str | None,
        *,
        old: Mapping[str, Any],
        schema: str | None = None,
        on_illegal: OnIllegal = "raise",
        inline: bool = False,
        states: Iterable[str | None] = (),
        history: Iterable[str] = (),
        override_role: str | None = None,
        ledger_schema: str | None = None,
        version: int = 1,
    ) -> None:
        """Give a trigger another rule; what it has counted is kept, and PostgreSQL takes no lock on the table.

        Args:
            table: name of the table.
            column: name of the column.
            transitions: the legal moves, as pairs of the text that the database stores, None for NULL.
            initial: the states in which a new row may start; None for every state.
            old: what is different in the trigger that is there, by the name of the argument: ``transitions``,
                ``initial``, ``on_illegal``, ``inline``, ``states``, ``history``, ``override_role``, ``ledger_schema``
                or ``version``. With ``{}`` nothing is, and the
                trigger is made anew where it is, which puts right what was changed by hand.
            schema: the table's schema.
            on_illegal: what an illegal move leads to: "raise", "skip" or "observe".
            inline: write the moves into the trigger's own WHEN, see :class:`statekit.trigger.StateTrigger`.
            states: states that have neither a move nor may be a start.
            history: the primary key's columns, to have each move written to ``statekit_history`` (version 2).
            override_role: the role whose members may override the trigger (version 2).
            ledger_schema: the schema of the ledger's tables, where it is not ``public``.
            version: of the templates that the SQL is made of, so that it stays the same under every later statekit.

        Raises:
            TableError: a name, a state, a mode or the version is not allowed.
            StatekitError: there are no state triggers for this database.
        """
        name = "replace_state_trigger"
        data: dict[str, Any] = {"on_illegal": on_illegal, "inline": inline, "states": states, "version": version}
        data |= {"history": history, "override_role": override_role, "ledger_schema": ledger_schema}
        trigger = _trigger(name, table, column, schema, transitions, initial, data)
        unknown = list(old.keys() - set(CHANGEABLE)) if isinstance(old, Mapping) else [old]
        if unknown:
            raise TableError(
                f"{name}({table!r}, {column!r}): old= has {', '.join(sorted(map(repr, unknown)))}; allowed is a "
                f"dictionary of what is different in the trigger that is there, with the keys {', '.join(CHANGEABLE)}."
            )
        before = {"transitions": trigger.transitions, "initial": trigger.initial, **data}
        before |= {"states": trigger.other_states, **old}
        was = _trigger(name, table, column, schema, before.pop("transitions"), before.pop("initial"), before)
        operations.invoke(cls(trigger, was))

    def reverse(self) -> ReplaceStateTriggerOp:
        """Return the operation that gives the trigger its old rule; one that was put right stays so."""
        return ReplaceStateTriggerOp(self.old, self.trigger)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` shows it."""
        return ("replace_state_trigger", *_place(self.trigger), self.old, self.trigger)


@Operations.register_operation("drop_state_trigger")
class DropStateTriggerOp(MigrateOperation):
    """Remove a state trigger, and what it has counted.

    Attributes:
        table: name of its table.
        column: name of its column.
        schema: the table's schema.
        trigger: what was there; None if it is not known, and then nothing can make it again.
        version: of the templates, where it is not known.
    """

    def __init__(
        self,
        table: str,
        column: str,
        *,
        schema: str | None = None,
        trigger: StateTrigger | None = None,
        version: int = 1,
    ) -> None:
        self.table = table
        self.column = column
        self.schema = schema
        self.trigger = trigger
        self.version = version

    @classmethod
    def of(cls, trigger: StateTrigger) -> DropStateTriggerOp:
        """Return the operation that removes a trigger whose rule is known."""
        return cls(trigger.table, trigger.column, schema=trigger.schema, trigger=trigger)

    @classmethod
    def drop_state_trigger(
        cls,
        operations: Operations,
        table: str,
        column: str,
        *,
        transitions: Iterable[Pair] | None = None,
        initial: Iterable[str | None] | str | None = None,
        schema: str | None = None,
        on_illegal: OnIllegal = "raise",
        inline: bool = False,
        states: Iterable[str | None] = (),
        history: Iterable[str] = (),
        override_role: str | None = None,
        ledger_schema: str | None = None,
        version: int = 1,
    ) -> None:
        """Remove a trigger and what it has counted; nothing happens where there is none.

        Args:
            table: name of the table, which may be gone already.
            column: name of the column, which may be gone already.
            transitions: the legal moves that it had. For who reads the migration: dropping needs none of what follows.
            initial: the states in which a new row might start.
            schema: the table's schema.
            on_illegal: what an illegal move led to.
            inline: whether the moves stood in the trigger's own WHEN.
            states: states that had neither a move nor could be a start.
            history: the primary key's columns, if it wrote a history.
            override_role: the role whose members might override it.
            ledger_schema: the schema of the ledger's tables.
            version: of the templates that the SQL is made of; 2 removes what a history has needed as well.

        Raises:
            TableError: a name, a state, a mode or the version is not allowed.
            StatekitError: there are no state triggers for this database.
        """
        trigger = None
        if transitions is not None or initial is not None:
            data: dict[str, Any] = {"on_illegal": on_illegal, "inline": inline, "states": states, "version": version}
            data |= {"history": history, "override_role": override_role, "ledger_schema": ledger_schema}
            trigger = _trigger("drop_state_trigger", table, column, schema, transitions or (), initial, data)
        operations.invoke(cls(table, column, schema=schema, trigger=trigger, version=version))

    @property
    def target(self) -> StateTrigger:
        """The trigger to remove: its name is what counts, and needs no rule."""
        if self.trigger is not None:
            return self.trigger
        return StateTrigger(self.table, self.column, (), initial=[None], schema=self.schema, version=self.version)

    def reverse(self) -> CreateStateTriggerOp:
        """Return the operation that makes the trigger again, with its counters at 0.

        Raises:
            StatekitError: it is not known what the trigger was.
        """
        if self.trigger is None:
            raise StatekitError(
                f"drop_state_trigger({self.table!r}, {self.column!r}) cannot be reversed: it does not say what the "
                "trigger was. Give it transitions= and initial=."
            )
        return CreateStateTriggerOp(self.trigger)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` shows it."""
        return ("drop_state_trigger", *_place(self.target), self.trigger)


def _place(trigger: StateTrigger) -> tuple[str | None, str, str]:
    return trigger.schema, trigger.table, trigger.column


def _trigger(
    operation: str, table: str, column: str, schema: str | None, transitions: Any, initial: Any, data: dict[str, Any]
) -> StateTrigger:
    if isinstance(transitions, TransitionTable):
        raise TableError(
            f"{operation}({table!r}, {column!r}): transitions is a TransitionTable, which would change with the model, "
            "and this migration with it. Write the pairs out: transitions=[('READY', 'DONE')]; "
            "repr(StateTrigger.of(...)) shows those of a guarded column."
        )
    if transitions is None or isinstance(transitions, str):
        raise TableError(
            f"{operation}({table!r}, {column!r}): transitions={transitions!r}; allowed is a list of pairs, "
            "such as [('READY', 'DONE')]."
        )
    return StateTrigger(table, column, transitions, initial=initial, schema=schema, **data)
