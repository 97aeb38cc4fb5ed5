"""The error for a race that was lost without an illegal move. Apart from :mod:`statekit.errors`, because it is an error
of SQLAlchemy's ORM too, and loading that takes longer than everything else that ``import statekit`` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm.exc import StaleDataError

from statekit.errors import StatekitError, show_state


class ConcurrentTransition(StatekitError, StaleDataError):
    """Another transaction moved the row first, and it already is in the state that this one was to give it.

    It is a :exc:`sqlalchemy.orm.exc.StaleDataError` as well, so that code that handles that goes on working. It is not
    an illegal move and is never counted as one.

    Attributes:
        model (str): name of the mapped class.
        attribute (str): name of the attribute.
        target (str | None): the state that the row already is in.
        identities (tuple[tuple, ...]): primary keys of the rows concerned, so far as they are known; a driver that
            reports only a number of rows leaves it empty.
    """

    def __init__(
        self, *, model: str, attribute: str, target: str | None, identities: Iterable[tuple[Any, ...]]
    ) -> None:
        self.model = model
        self.attribute = attribute
        self.target = target
        self.identities = tuple(identities)
        rows = ", ".join(f"{model}({', '.join(map(repr, identity))})" for identity in self.identities[:5])
        if len(self.identities) > 5:
            rows += f" and {len(self.identities) - 5:,} more"
        super().__init__(
            f"{rows or f'Rows of {model}'}: another transaction moved {attribute} to {show_state(target)} first. "
            "The move itself is legal: roll back, load the row again and decide anew."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({k: getattr(self, k) for k in ("model", "attribute", "target", "identities")},)


def _rebuild(data: dict[str, Any]) -> ConcurrentTransition:
    return ConcurrentTransition(**data)
