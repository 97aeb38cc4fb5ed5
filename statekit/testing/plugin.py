"""The pytest plugin: a fixture that puts objects into any state. It is loaded with pytest, by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def in_state(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``in_state(obj, state)``: :func:`statekit.testing.in_state` in the session of the fixture ``session``.

    Where that is an ``AsyncSession``, the result is awaited.
    """
    from sqlalchemy.orm import Session, scoped_session

    from statekit.testing.placing import in_state as place

    session = request.getfixturevalue("session")

    def put(obj: Any, state: Any, attribute: Any = None) -> Any:
        if isinstance(session, Session | scoped_session):
            return place(session, obj, state, attribute)
        return session.run_sync(place, obj, state, attribute)

    return put
