"""What the doctests of the package need; the tests have a conftest.py of their own."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_garbage_collection_in_a_doctest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep mapped classes of earlier tests from going away while doctest walks through ``linecache``.

    SQLAlchemy 2.1 has entries there for the ``__init__`` of each class, which go with it; ``checkcache()`` then fails.
    """
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
