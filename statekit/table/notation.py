"""The arrow notation: ``A → B | C → D``, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from statekit.table.messages import Place
from statekit.table.names import STAR, Mention

_ARROW = "→"
_OURS = re.compile("→|->")
# An arrow that is not ours would otherwise become part of a name. All that is a head, and what may be its shaft:
_HEADS = (
    r"<>\u2190-\u21FF\u2794\u2798-\u27AF\u27B1-\u27BE\u27F0-\u27FF\u2900-\u297F\u2B00-\u2B0D\u2B30-\u2B4C\u2B60-\u2B95"
)
_SHAFTS = r"\-=~\u2010-\u2015\u2212"
_HEAD = re.compile(f"[{_HEADS}]")
_RUN = re.compile(f"[{_HEADS}{_SHAFTS}]+")
_PIECE = re.compile(r"[^,;\r\n]+")
_SPECIAL = re.compile(rf"[,;|*\r\n{_HEADS}]")

_ALLOWED = 'A chain is "A → B → C", with → or -> between states and "A → B | C" for several'

Side = list[Mention]


def read_text(text: str, label: str) -> list[list[Side]]:
    """Read a text with one or more chains.

    Args:
        text: the chains, separated by ``,`` ``;`` or newlines.
        label: name of the text in messages.

    Returns:
        The chains; each a list of sides (what stands between the arrows), a side a list of states. A star is a side of
        its own.

    Raises:
        TableError: the text is not in the notation.

    >>> [[[m.state for m in side] for side in chain] for chain in read_text("A → B | C; C -> D", "chain 1")]
    [[['A'], ['B', 'C']], [['C'], ['D']]]
    """
    place = Place(label, text)
    pieces = (m.span() for m in _PIECE.finditer(text))
    return [_chain(text, start, end, place) for start, end in pieces if text[start:end].strip()]


def _chain(text: str, start: int, end: int, place: Place) -> list[Side]:
    arrows = _arrows(text, start, end, place)
    if not arrows:
        piece = text[start:end].strip()
        begin = text.index(piece, start)
        raise place.at(begin, begin + len(piece)).error(
            f"{piece!r} has no arrow", f"{_ALLOWED}: write → or -> between the states."
        )
    chain: list[Side] = []
    begins = [start, *(arrow_end for _, arrow_end in arrows)]
    ends = [*(arrow_start for arrow_start, _ in arrows), end]
    for i, (begin, stop) in enumerate(zip(begins, ends, strict=True)):
        if not text[begin:stop].strip():
            raise _empty_side(i, arrows, place)
        chain.append(_side(text, begin, stop, place, first=i == 0))
    return chain


def _arrows(text: str, start: int, end: int, place: Place) -> list[tuple[int, int]]:
    found = []
    for run in _RUN.finditer(text, start, end):
        written = run.group()
        if not _HEAD.search(written):
            continue  # a hyphen or a dash in a name
        if _OURS.fullmatch(written):
            found.append(run.span())
        elif not _OURS.sub("", written):
            raise _doubled(place.at(*run.span()))
        else:
            raise place.at(*run.span()).error(
                f"{written!r} is not an arrow of this notation",
                f"{_ALLOWED}: write → or ->. A name that contains such a character goes into a pair or a mapping.",
            )
    return found


def _empty_side(index: int, arrows: list[tuple[int, int]], place: Place) -> Exception:
    if index == 0:
        return place.at(*arrows[0]).error(
            "nothing stands before the arrow", f"{_ALLOWED}: write the source, or take the arrow out."
        )
    if index == len(arrows):
        return place.at(*arrows[-1]).error(
            "nothing stands after the arrow", f"{_ALLOWED}: write the target, or take the arrow out."
        )
    return _doubled(place.at(*arrows[index]))


def _doubled(place: Place) -> Exception:
    return place.error("the arrow is doubled", f"{_ALLOWED}: write one arrow, or the state that belongs between them.")


def _side(text: str, start: int, end: int, place: Place, *, first: bool) -> Side:
    parts = text[start:end].split("|")
    side = []
    at = start
    for i, part in enumerate(parts):
        name = part.strip()
        begin = at + len(part) - len(part.lstrip())
        if not name:
            # Point at a bar beside the gap: the one before it, for the first part the one after it.
            bar = at - 1 if i else at + len(part)
            raise place.at(bar, bar + 1).error(
                "a state is missing beside |", f"{_ALLOWED}: write it, or take the | out."
            )
        if STAR in name and not (first and len(parts) == 1 and name == STAR):
            raise place.at(begin, begin + len(name)).error(
                f"{name!r} has a star in the wrong place",
                'A star is allowed alone and first, as in "* → A": write the states instead. '
                "A name that contains a star goes into a pair or a mapping.",
            )
        side.append(Mention(name, place.at(begin, begin + len(name))))
        at += len(part) + 1
    return side


def is_plain(name: str | None) -> bool:
    """Return whether a state can be written in a text with arrows.

    >>> is_plain("in review"), is_plain("a → b"), is_plain(None)
    (True, False, False)
    """
    return name is not None and name == name.strip() != "" and not _SPECIAL.search(name)


def write_chain(source: str, targets: Iterable[str]) -> str:
    """Return one chain as text; all names must be plain.

    >>> write_chain("READY", ["SPAM_REVIEW", "PROMOTED"])
    'READY → SPAM_REVIEW | PROMOTED'
    """
    return f"{source} {_ARROW} {' | '.join(targets)}"
