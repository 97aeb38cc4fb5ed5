"""A column's states: between the values that Python holds and the text that the database stores.

Everything that compares, counts or reports works with the text; only this module knows how a type gets there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from statekit.errors import StatekitError, TableError
from statekit.guards.stored import undecorated
from statekit.table import TransitionTable
from statekit.table.messages import listing, suggestion

_plain_dialect = DefaultDialect()


class _Any(enum.Enum):
    ANY = "any"


ANY = _Any.ANY
"""Stands for every state, where states are asked for."""


class ColumnStates:
    """The states of one column, both ways.

    Args:
        column: the guarded column, with its type.
        table: the transition table declared for it.
        where: what messages call the column, such as "Message.status".

    Raises:
        TableError: the table does not fit the column's type.
    """

    def __init__(self, column: sa.Column[Any], table: TransitionTable, where: str) -> None:
        self._where = where
        _check_type(column.type, where)
        self._type = column.type
        # Of other types, what the driver gives may differ from what it is given.
        self._is_plain = isinstance(column.type, sa.String | sa.Integer)
        base: Any = undecorated(column.type)
        # What such a type makes of a stored value may be another one's too: only the stored one tells.
        self._is_decorated = base is not column.type and isinstance(base, sa.String | sa.Integer)
        self._is_padded = isinstance(base, sa.CHAR)
        self._bind = _binder(column.type)
        self.known: dict[Any, str | None] = {None: None}
        """The text of each declared state by its value; faster than :meth:`text`, which knows the others too."""
        self.values: dict[str | None, Any] = {}
        """The value that Python binds for each state, by the text that the database stores."""
        self.texts: dict[str | None, str | None] = {}
        """The text that the database stores for each state, by the name that the transition table has for it."""
        enum_type = _enum_of(column.type)
        if enum_type is not None:
            _check_enum(enum_type, table, where)
        for state in table.states:
            value = self._declared_value(state, column, enum_type, table.enum)
            text = self._declared_text(value)
            if state is not None and text is None:
                raise TableError(f"{where}: the column's type stores the state {state!r} as NULL; write None for NULL.")
            if text in self.values and text is not None:
                other = next(known for known, stored in self.texts.items() if stored == text)
                raise TableError(
                    f"{where}: the states {other!r} and {state!r} are both stored as {text!r}; a state needs a stored "
                    "value of its own."
                )
            self.texts[state] = text
            self.values[text] = value
            self.known[value] = text
        _check_fit(column, self.values, where)
        _check_collation(column.type, self.values, where)

    def text(self, value: Any) -> str | None:
        """Return the text that the database stores for a value of the attribute; None for NULL.

        A value that the column's type cannot bind has no such text; it is shown as Python shows it, which is no state
        of the table, so that the guard refuses it by name.
        """
        try:
            return self.known[value]
        except (KeyError, TypeError):
            pass
        try:
            return stored_text(self._bind(value))
        except Exception:
            return repr(value)

    def find(self, state: Any, where: str) -> str | None:
        """Return the text of a state of the table, however it is written: as the attribute's value, or as text.

        Args:
            state: the state.
            where: what messages call the place where it was written.

        Raises:
            StatekitError: the table has no such state.
        """
        text = self.text(state)
        if text in self.values:
            return text
        name = state.name if isinstance(state, enum.Enum) else state
        if isinstance(name, str) and name in self.texts:
            return self.texts[name]
        member = self.member_by_value(state)
        if member is not None and self.text(member) in self.values:
            return self.text(member)
        raise StatekitError(
            f"{where}: {state!r} is no state of the table, which has {listing(self.values)}."
            f"{suggestion(str(state), self.values)}"
        )

    def named(self, wanted: Any, where: str, *, unknown: bool = False) -> frozenset[str | None] | None:
        """Return the text of one state, or of several, that a user named; None for :data:`ANY`.

        Args:
            wanted: a state, or a tuple of states.
            where: what messages call the place where they were written.
            unknown: whether a state may be none of the table.

        Raises:
            StatekitError: no state is named, or the table has not got it.
        """
        if wanted is ANY:
            return None
        several = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str | enum.Enum) else [wanted]
        if not several:
            raise StatekitError(f"{where}: no state is named. Name one, or leave the argument out for any of them.")
        return frozenset(self._find_or_text(each, where) if unknown else self.find(each, where) for each in several)

    def _find_or_text(self, state: Any, where: str) -> str | None:
        try:
            return self.find(state, where)
        except StatekitError:
            return self.text(state)

    def member_by_value(self, value: object) -> Any:
        """Return the member of the column's Enum that has a value, or None."""
        enum_class = getattr(self._type, "enum_class", None) or ()
        return next((member for member in enum_class if member.value == value), None)

    def __getstate__(self) -> dict[str, Any]:
        # A type's own function cannot be pickled, and a MetaData with guarded columns must be.
        return {name: value for name, value in vars(self).items() if name != "_bind"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind = _binder(self._type)

    def select(self, expression: Any) -> Any:
        """Return the column, or an expression of its type, in the form that :meth:`selected` reads."""
        # NullType: the stored value as the driver gives it, also one that the column's Enum does not know.
        return sa.type_coerce(expression, NullType()) if self._is_plain or self._is_decorated else expression

    def selected(self, value: Any) -> str | None:
        """Return the text of a value that a query for :meth:`select` has given; None for NULL."""
        if self._is_decorated:
            return stored_text(_unpadded(value) if self._is_padded else value)
        return stored_text(self._bind(value)) if self._is_plain and value is not None else self.text(value)

    def _declared_text(self, value: Any) -> str | None:
        if value is None:
            return None
        try:
            bound = self._bind(value)
        except Exception as error:
            raise TableError(
                f"{self._where}: the state {value!r} is no value that the column's type takes "
                f"({type(error).__name__}: {error}). Declare the table with the values that the attribute itself "
                "takes, such as the members of its Enum."
            ) from error
        return stored_text(bound)

    def _declared_value(
        self,
        state: str | None,
        column: sa.Column[Any],
        enum_type: sa.Enum | None,
        declared_enum: type[enum.Enum] | None,
    ) -> Any:
        """Return the Python value for a state of the table."""
        if state is None:
            return None
        if enum_type is not None and enum_type.enum_class is not None:
            return _member(enum_type.enum_class, state, declared_enum, self._where)
        if declared_enum is not None:
            return self._member_value(declared_enum[state], column)
        if isinstance(column.type, sa.Integer):
            try:
                return int(state)
            except ValueError:
                raise TableError(
                    f"{self._where}: the column holds integers, and the state {state!r} is none. Declare the table "
                    "with the numbers as text, such as '1 → 2', or with members of an IntEnum."
                ) from None
        return state

    def _member_value(self, member: enum.Enum, column: sa.Column[Any]) -> Any:
        plain = not isinstance(column.type, TypeDecorator)
        if plain and not isinstance(member, str | int):
            raise TableError(
                f"{self._where}: the table is declared with members of {type(member).__name__}, and the column's type "
                f"{column.type!r} cannot store them. Use sqlalchemy.Enum({type(member).__name__}) for the column, a "
                "StrEnum or IntEnum, or declare the table with the stored texts."
            )
        return member


def _member(enum_class: type[enum.Enum], state: str, declared_enum: type[enum.Enum] | None, where: str) -> enum.Enum:
    if declared_enum is enum_class:
        return enum_class[state]
    by_name = enum_class.__members__.get(state)
    by_value = next((member for member in enum_class if member.value == state), None)
    if by_name is not None and by_value is not None and by_name is not by_value:
        raise TableError(
            f"{where}: {state!r} is ambiguous: it is the name of {by_name!r} and the value of {by_value!r}. Write the "
            "member itself in the table."
        )
    member = by_name if by_name is not None else by_value
    if member is None:
        raise TableError(
            f"{where}: the table's state {state!r} is no member of {enum_class.__name__}, neither a name nor a value. "
            f"Its members: {', '.join(enum_class.__members__)}."
        )
    return member


def _enum_of(type_: TypeEngine[Any]) -> sa.Enum | None:
    return type_ if isinstance(type_, sa.Enum) else None


def _check_enum(enum_type: sa.Enum, table: TransitionTable, where: str) -> None:
    enum_class = enum_type.enum_class
    if enum_class is None:
        known = list(enum_type.enums)
        stored = [
            stored_text(table.enum[state]) if table.enum else state for state in table.states if state is not None
        ]
        unknown = [text for text in stored if text not in known]
        if unknown:
            raise TableError(
                f"{where}: the table's state {unknown[0]!r} is none of the column's Enum. Allowed: {', '.join(known)}."
            )
        missing = [name for name in known if name not in stored]
    else:
        if table.enum is not None and table.enum is not enum_class:
            raise TableError(
                f"{where}: the table is declared with members of {table.enum.__name__}, and the column's Enum is "
                f"{enum_class.__name__}. Use {enum_class.__name__} in the table."
            )
        used = {_member(enum_class, state, table.enum, where) for state in table.states if state is not None}
        missing = [member.name for member in enum_class if member not in used]
    if missing:
        raise TableError(
            f"{where}: the table does not know {', '.join(map(repr, missing))}, which the column's Enum has. Add the "
            "transitions there, or name states that have none with states=..., so that nobody wonders whether they "
            "were forgotten."
        )


def _check_type(type_: TypeEngine[Any], where: str) -> None:
    if isinstance(undecorated(type_), sa.LargeBinary | sa.JSON | sa.ARRAY):
        raise TableError(
            f"{where}: the column's type {type_!r} cannot hold states: they are compared and reported as text. Use a "
            "text, Enum or integer column."
        )


def _check_fit(column: sa.Column[Any], values: dict[str | None, Any], where: str) -> None:
    length = getattr(column.type, "length", None)
    if isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum) and length:
        for text in values:
            if text is not None and len(text) > length:
                raise TableError(
                    f"{where}: the state {text!r} has {len(text)} characters, and the column holds {length}. "
                    "Widen the column, or shorten the state."
                )


def _check_collation(type_: TypeEngine[Any], values: dict[str | None, Any], where: str) -> None:
    """Refuse states that the database may take for the same."""
    collation = getattr(type_, "collation", None)
    if not collation:
        return
    folded: dict[str, str] = {}
    for text in values:
        other = folded.setdefault((text or "").casefold(), text or "")
        if text and other != text:
            raise TableError(
                f"{where}: the states {other!r} and {text!r} differ by upper and lower case alone, and the column has "
                f"a collation ({collation}), which may take them for the same. Rename one."
            )


def _binder(type_: TypeEngine[Any]) -> Callable[[Any], Any]:
    if isinstance(type_, sa.CHAR):
        return _unpadded
    impl: Any = type_.dialect_impl(_plain_dialect)
    processor = impl.bind_processor(_plain_dialect)
    return processor if processor is not None else _as_it_is


def _unpadded(value: Any) -> Any:
    return value.rstrip(" ") if isinstance(value, str) else value


def _as_it_is(value: Any) -> Any:
    return value


def stored_text(bound: Any) -> str | None:
    """Return the text of a value as the driver takes or gives it, None for NULL; of a member that is a string or a
    number, the text of the string or number."""
    if bound is None:
        return None
    if isinstance(bound, str):
        return str.__str__(bound)
    if isinstance(bound, int) and not isinstance(bound, bool):
        return int.__repr__(bound)
    if isinstance(bound, enum.Enum):
        return bound.name
    return str(bound)
