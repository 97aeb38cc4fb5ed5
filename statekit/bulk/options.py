"""What a caller chooses for a bulk transition, checked before anything is done."""

from __future__ import annotations

import datetime as dt
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from statekit.bulk.pressure import PoolState
from statekit.bulk.result import Batch
from statekit.errors import StatekitError
from statekit.observe.modes import check_on_illegal

BUDGET = dt.timedelta(seconds=8)
"""How long a call takes at most where nobody says otherwise: what fits into the 10 s of many platforms."""


@runtime_checkable
class Closing(Protocol):
    """What shows progress and has something to do at the end, such as to end a line."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller has chosen; see :func:`statekit.transition_all`."""

    budget: dt.timedelta | None = BUDGET
    deadline: dt.datetime | None = None
    operation: str | None = None
    job: str | None = None
    on_illegal: str = "skip"
    on_batch: Callable[[Batch], Any] | None = None
    rate: float | None = None
    pool_guard: PoolState | None = None
    place: str | None = None
    progress: Callable[..., Any] | None = None

    def checked(self, call: str) -> Options:
        """Return it, if it can be done.

        Args:
            call: what messages call the function that was called.

        Raises:
            StatekitError: it cannot.
        """
        if self.budget is not None and (not isinstance(self.budget, dt.timedelta) or self.budget <= dt.timedelta(0)):
            raise StatekitError(
                f"{call}(budget={self.budget!r}): give a time that is longer than none, such as "
                "timedelta(seconds=8), or None for no limit."
            )
        deadline = self.deadline
        if deadline is not None and (not isinstance(deadline, dt.datetime) or deadline.tzinfo is None):
            raise StatekitError(
                f"{call}(deadline={deadline!r}): give a moment with its time zone, such as datetime.now(UTC) + "
                "timedelta(seconds=8)."
            )
        if self.operation is not None and (not isinstance(self.operation, str) or not self.operation.strip()):
            raise StatekitError(f"{call}(operation={self.operation!r}): give a name, such as 'Spam capture', or None.")
        if self.job is not None and (not isinstance(self.job, str) or not self.job):
            raise StatekitError(f"{call}(job={self.job!r}): give result.job of a call before, or None for a new one.")
        for name, text in (("operation", self.operation), ("job", self.job)):
            if text is not None and not text.isprintable():
                raise StatekitError(f"{call}({name}={text!r}): there is a letter in it that cannot be printed.")
        for name, function in (("progress", self.progress), ("on_batch", self.on_batch)):
            if function is not None and (not callable(function) or _is_bar(function)):
                raise StatekitError(f"{call}({name}={function!r}): give a function of it, such as print or bar().")
            if inspect.iscoroutinefunction(function) and not call.startswith("a"):
                raise StatekitError(f"{call}({name}={function!r}): nobody awaits that here; give a plain function.")
        if self.pool_guard is not None and not hasattr(self.pool_guard, "state"):
            raise StatekitError(f"{call}(pool_guard={self.pool_guard!r}): give something that has a state.")
        try:
            check_on_illegal(self.on_illegal)
        except ValueError as error:
            raise StatekitError(f"{call}(): {error}") from None
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise StatekitError(f"{call}(rate={self.rate!r}): give rows a second, more than 0, or None for no limit.")
        return self

    def seconds(self) -> float | None:
        """Return how long the call may take from now on; None for no limit.

        A deadline takes the place of a budget that was not given; of two that were given, the nearer one holds.
        """
        budget = None if self.budget is None else self.budget.total_seconds()
        if self.deadline is None:
            return budget
        left = max(0.0, (self.deadline - dt.datetime.now(dt.UTC)).total_seconds())
        return left if budget is None or self.budget is BUDGET else min(budget, left)


def _is_bar(function: Any) -> bool:
    """Return whether the brackets of bar() were forgotten, which would show nothing."""
    return (getattr(function, "__module__", None), getattr(function, "__name__", None)) == (
        "statekit.bulk.terminal",
        "bar",
    )
