"""What the tests of ``migrations/`` need of pytest."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alembic: on the tests of pytest-alembic, which are called here by hand")
