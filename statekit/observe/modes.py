"""What an illegal move leads to: the three modes, as one type and one check."""

from __future__ import annotations

from typing import Literal

OnIllegal = Literal["raise", "skip", "observe"]

MODES: tuple[OnIllegal, ...] = ("raise", "skip", "observe")


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
