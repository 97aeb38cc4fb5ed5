"""Fixtures of the tests of bulk transitions."""

from __future__ import annotations

import pytest

from statekit.bulk import sizing


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no batch be smaller because the ones before it were slow: this machine may be busy."""
    monkeypatch.setattr(sizing, "LONGEST", 1_000.0)
    monkeypatch.setattr(sizing, "_SHARE", 1_000.0)
