"""``guard(..., steps=True)``: the assignments before a flush are followed, and each is an UPDATE of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper

from statekit.guards import current
from statekit.guards.watch import State, Watch, is_sql, listen_to_assignments

_INFO_KEY = "statekit_steps"
_GIVEN_UP = "statekit_steps_given_up"


class StepCameShort(Exception):
    """An UPDATE of one step met fewer rows than it was for.

    Attributes:
        targets: the value that each object's row was to get.
    """

    def __init__(self, watch: Watch, targets: dict[State, Any]) -> None:
        self.watch = watch
        self.targets = targets
        super().__init__(watch, targets)


def follow(mapper: Mapper[Any], key: str) -> None:
    """Record what is assigned to an attribute from now on."""

    def record(state: State, value: Any, old: Any, initiator: Any) -> None:
        trails: dict[str, list[Any]] = state.info.setdefault(_INFO_KEY, {})
        given_up: set[str] = state.info.setdefault(_GIVEN_UP, set())
        if key in state.committed_state and key in trails and key not in given_up:
            trails[key].append(value)
        else:  # the first assignment since the object was loaded, flushed, expired, refused or made
            trails[key] = [value]
            given_up.discard(key)

    listen_to_assignments(mapper, key, record)


def trail(state: State, key: str) -> list[Any]:
    """Return the values that were assigned since the last flush, in order; empty unless there were several."""
    values: list[Any] = state.info.get(_INFO_KEY, {}).get(key, []) if "info" in state.__dict__ else []
    if len(values) < 2 or values[-1] is not state.dict.get(key):
        return []
    if any(is_sql(value) for value in values):
        return []  # what an expression gives is known when it is written, and only the last one is
    return values


def give_up(state: State, key: str) -> None:
    """Begin anew with the next assignment: the steps so far were refused."""
    if "info" in state.__dict__ and key in state.info.get(_INFO_KEY, {}):
        state.info[_GIVEN_UP].add(key)


def forget(state: State, key: str) -> None:
    """Forget what was assigned: it is written."""
    if "info" in state.__dict__:
        state.info.get(_INFO_KEY, {}).pop(key, None)


class Steps:
    """The UPDATEs of one flush that only some steps need: those between the first and the last of each object."""

    def __init__(self) -> None:
        self._before: dict[Watch, dict[State, list[Any]]] = {}
        self._after: dict[Watch, dict[State, list[Any]]] = {}

    def of_persistent(self, watch: Watch, state: State, values: list[Any]) -> None:
        """Plan all steps of a row that exists; the flush's own UPDATE writes the last."""
        self._before.setdefault(watch, {})[state] = values

    def of_new(self, watch: Watch, state: State, values: list[Any]) -> None:
        """Plan all steps of a row to be inserted in the first of the states."""
        self._after.setdefault(watch, {})[state] = values

    def withdraw(self, states: set[State], watch: Watch | None) -> None:
        """Forget the steps of objects, for one guarded attribute or for all."""
        for planned in (self._before, self._after):
            for each, values in planned.items():
                if watch in (None, each):
                    for state in states:
                        values.pop(state, None)

    def begin(self, connections: Callable[[Watch, list[State]], Any]) -> None:
        """Write every step but the last of the rows that exist, and let new ones start in their first state."""
        for watch, planned in self._after.items():
            for state, values in planned.items():
                state.dict[watch.key] = values[0]
        for watch, planned in self._before.items():
            _write(watch, {state: values[:-1] for state, values in planned.items()}, connections)
            for state, values in planned.items():
                state.committed_state[watch.key] = values[-2]

    def end(self, connections: Callable[[Watch, list[State]], Any]) -> None:
        """Write every step but the first of the rows that were inserted."""
        for watch, planned in self._after.items():
            _write(watch, {state: values[1:] for state, values in planned.items()}, connections)

    def put_back(self) -> None:
        """Give new objects the state that they were last assigned."""
        for watch, planned in self._after.items():
            for state, values in planned.items():
                state.dict[watch.key] = values[-1]

    def forget_all(self) -> None:
        """Forget the assignments: they are written."""
        for planned in (self._before, self._after):
            for watch, states in planned.items():
                for state in states:
                    forget(state, watch.key)


def _write(watch: Watch, planned: dict[State, list[Any]], connections: Callable[[Watch, list[State]], Any]) -> None:
    for number in range(max(map(len, planned.values()), default=0)):
        targets = {state: values[number] for state, values in planned.items() if len(values) > number}
        for connection, states in connections(watch, list(targets)):
            _update(connection, watch, {state: targets[state] for state in states})


def _update(connection: Connection, watch: Watch, targets: dict[State, Any]) -> None:
    keys = [str(column._label) for column in watch.primary_key]  # as in the flush's own: the fence knows it by them
    matches = [column == sa.bindparam(key) for column, key in zip(watch.primary_key, keys, strict=True)]
    # Only the last step is the flush's own, and has the columns' onupdate= values.
    values = {**current.without_onupdate(watch.table), watch.column: sa.bindparam("statekit_target")}
    statement = watch.table.update().where(*matches).values(values)
    parameters = [
        {"statekit_target": value, **dict(zip(keys, watch.row_key(state), strict=True))}
        for state, value in targets.items()
    ]
    result = current.asking(connection)(statement, parameters)
    if current.counts_rows(connection, len(parameters)) and result.rowcount != len(parameters):
        raise StepCameShort(watch, targets)
