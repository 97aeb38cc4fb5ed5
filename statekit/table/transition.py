"""One edge of a table."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from statekit.table.messages import Place, quote, short
from statekit.table.names import STAR, State, as_text, literal, plain_str

Hook: TypeAlias = Callable[..., Any] | str
"""A function, or the name of a method of the model."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Transition:
    """One edge of a table, with what belongs to it.

    Args:
        source: the state that is left; ``"*"`` for every other state that is not final.
        target: the state that is entered.
        event: name of the transition; a guarded model gets a method of this name.
        conditions: functions or names of methods that must all say yes; a single one may stand alone.
        before: function or name of a method, called before the move.
        after: function or name of a method, called after it.
        info: anything that you want to keep with the transition.

    Raises:
        TableError: one of these is not usable.

    >>> Transition("READY", "PROMOTED", "promote", conditions="has_author")
    Transition('READY', 'PROMOTED', event='promote', conditions=('has_author',))
    """

    source: State
    target: State
    event: str | None
    # What may be unhashable stays out of the hash; equality looks at everything.
    conditions: tuple[Hook, ...] = field(hash=False)
    before: Hook | None = field(hash=False)
    after: Hook | None = field(hash=False)
    info: Any = field(hash=False)

    def __init__(
        self,
        source: State,
        target: State,
        event: str | None = None,
        *,
        conditions: Hook | Iterable[Hook] = (),
        before: Hook | None = None,
        after: Hook | None = None,
        info: Any = None,
    ) -> None:
        label = f"Transition({short(source)}, {short(target)})"
        is_star = type(source) is str and source == STAR
        values = {
            "source": source if is_star else literal(source, Place(f"{label}, source")),
            "target": literal(target, Place(f"{label}, target")),
            "event": _event(event, Place(f"{label}, event=")),
            "conditions": _conditions(conditions, Place(f"{label}, conditions=")),
            "before": _hook(before, Place(f"{label}, before=")),
            "after": _hook(after, Place(f"{label}, after=")),
            "info": info,
        }
        check_differ(as_text(source), as_text(target), Place(label))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        details = {
            "event": self.event,
            "conditions": self.conditions or None,
            "before": self.before,
            "after": self.after,
            "info": self.info,
        }
        shown = [repr(as_text(self.source)), repr(as_text(self.target))]
        shown += [f"{name}={value!r}" for name, value in details.items() if value is not None]
        return f"Transition({', '.join(shown)})"

    @property
    def is_bare(self) -> bool:
        """Whether it says nothing but from where to where."""
        return not self.conditions and self.event is self.before is self.after is self.info is None


def check_differ(source: str | None, target: str | None, place: Place) -> None:
    """Refuse an edge from a state to itself.

    Raises:
        TableError: source and target are the same.
    """
    if source == target:
        raise place.error(
            f"{quote(source)} leads to itself",
            "Allowed is a move between two states; a row may always stay as it is: "
            "take this transition out, or write another target.",
        )


def _event(event: object, place: Place) -> str | None:
    if event is None:
        return None
    if not isinstance(event, str) or not event.isidentifier() or keyword.iskeyword(event):
        raise place.error(
            f"{short(event)} cannot be the name of a method",
            "Allowed is a Python identifier that is no keyword: write one such as 'promote'.",
        )
    return plain_str(event)


def _conditions(conditions: object, place: Place) -> tuple[Hook, ...]:
    if isinstance(conditions, str) or callable(conditions) or not isinstance(conditions, Iterable):
        conditions = (conditions,)
    found = (_hook(c, place, may_lack=False) for c in conditions)
    return tuple(c for c in found if c is not None)


def _hook(hook: object, place: Place, *, may_lack: bool = True) -> Hook | None:
    if hook is None and may_lack:
        return None
    if callable(hook) or (isinstance(hook, str) and hook.strip()):
        return cast(Hook, hook)
    raise place.error(
        f"{short(hook)} cannot be called",
        "Allowed is a function, or the name of a method of the model as text: write one of these"
        + (", which may call several." if may_lack else "."),
    )
