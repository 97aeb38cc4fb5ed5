"""What an illegal move leads to: the three modes that can be chosen, and the one that ``override()`` makes."""

from __future__ import annotations

from typing import Literal

OnIllegal = Literal["raise", "skip", "observe"]
Mode = Literal["raise", "skip", "observe", "override"]
"""What is done about an illegal move now: what was chosen, unless there is a :func:`statekit.override` around it."""

MODES: tuple[OnIllegal, ...] = ("raise", "skip", "observe")

PASSING: dict[str, Literal["observed", "overridden"]] = {"observe": "observed", "override": "overridden"}
"""The modes in which an illegal move passes, and what it is called then."""


def check_on_illegal(value: object) -> OnIllegal:
    """Return the mode, if it is one.

    Raises:
        ValueError: it is none; the text says which there are.
    """
    if value in MODES:
        return value
    raise ValueError(
        f'on_illegal={value!r} is no mode; allowed: "raise" (refuse the flush or statement), "skip" (leave the row '
        'as it is and go on), "observe" (let it pass and count it).'
    )
