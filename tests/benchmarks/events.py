"""What a named event costs, beside pytransitions' own trigger on a plain object that does the same."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column
from transitions import Machine

from statekit import Guarded, Transition, TransitionTable
from tests.benchmarks.measure import Variant, in_turn, show, timed
from tests.benchmarks.models import new_base

EVENTS = 5_000
"""How many pairs of events a round is."""


class _Methods:
    def willing(self) -> bool:
        return True

    def note(self) -> None:
        pass


class _Plain(_Methods):
    """An object of nobody's, that a machine is attached to."""


def run(rounds: int) -> None:
    """Show an event with nothing to call, and one with a condition and two callbacks."""
    for label, hooks in (("nothing to call", {}), ("a condition, two callbacks", _HOOKS)):
        plain, twin, row = _attached(hooks), _attached(hooks), _mapped(hooks)
        variants = {
            "transitions": _back_and_forth(plain),
            "transitions, a twin": _back_and_forth(twin),
            "statekit": _back_and_forth(row),
        }
        print(label)
        show("", in_turn(variants, rounds), base="transitions", remarks={"statekit": "aim ≤ 1.2×"})


_HOOKS = {"conditions": "willing", "before": "note", "after": "note"}
_EDGES = (("A", "B", "go"), ("B", "A", "back"))


def _attached(hooks: dict[str, str]) -> Any:
    plain = _Plain()
    edges: list[Any] = [{"trigger": name, "source": s, "dest": t, **hooks} for s, t, name in _EDGES]
    Machine(plain, states=["A", "B"], initial="A", auto_transitions=False, transitions=edges)
    return plain


def _mapped(hooks: dict[str, Any]) -> Any:
    edges = [Transition(source, target, name, **hooks) for source, target, name in _EDGES]

    class Row(_Methods, Guarded, new_base()):  # type: ignore[misc]
        __tablename__ = "row"
        id: Mapped[int] = mapped_column(primary_key=True)
        state: Mapped[str] = mapped_column(default="A")
        __transitions__ = {"state": TransitionTable(*edges)}

    return Row(state="A")


def _back_and_forth(obj: Any) -> Variant:
    def work() -> None:
        for _ in range(EVENTS):
            obj.go()
            obj.back()

    return lambda: timed(work)
