"""Which databases a trigger can be written for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from statekit.errors import StatekitError

if TYPE_CHECKING:
    from statekit.trigger.spec import StateTrigger


class Writer(Protocol):
    """What a database's module has."""

    def create(self, trigger: StateTrigger) -> tuple[str, ...]: ...
    def replace(self, trigger: StateTrigger, old: StateTrigger) -> tuple[str, ...]: ...
    def drop(self, trigger: StateTrigger) -> tuple[str, ...]: ...


SUPPORTED = ("postgresql", "sqlite")


def is_supported(dialect: Any) -> bool:
    """Return whether triggers can be written for a dialect, or the name of one."""
    return _name(dialect) in SUPPORTED


def writer(dialect: Any) -> Writer:
    """Return the module that writes triggers for a dialect, or for the name of one.

    Raises:
        StatekitError: there is none.
    """
    name = _name(dialect)
    if name == "postgresql":
        from statekit.trigger import postgresql

        return postgresql
    if name == "sqlite":
        from statekit.trigger import sqlite

        return sqlite
    raise StatekitError(f"There are no state triggers for {name!r}; there are for {' and '.join(SUPPORTED)}.")


def _name(dialect: Any) -> Any:
    return getattr(dialect, "name", dialect)
