"""Triggers for PostgreSQL, from frozen templates: ``v1.sql`` and ``v2.sql`` hold the SQL, and writers fill it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statekit.trigger.postgresql import writer, writer2
from statekit.trigger.postgresql.writer import Function as Function
from statekit.trigger.postgresql.writer import counters as counters

if TYPE_CHECKING:
    from statekit.trigger.spec import StateTrigger

_WRITERS: dict[int, Any] = {1: writer, 2: writer2}


def create(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that make a trigger, or put it right."""
    made: tuple[str, ...] = _WRITERS[trigger.version].create(trigger)
    return made


def replace(trigger: StateTrigger, old: StateTrigger) -> tuple[str, ...]:
    """Return the statements that give a trigger another rule, or make it one of another version."""
    made: tuple[str, ...] = _WRITERS[max(trigger.version, old.version)].replace(trigger, old)
    return made


def drop(trigger: StateTrigger) -> tuple[str, ...]:
    """Return the statements that remove everything of a trigger."""
    made: tuple[str, ...] = _WRITERS[trigger.version].drop(trigger)
    return made


def functions(trigger: StateTrigger) -> tuple[Function, ...]:
    """Return the functions of a trigger."""
    made: tuple[Function, ...] = _WRITERS[trigger.version].functions(trigger)
    return made
