"""Old migrations give the same SQL for ever."""

from __future__ import annotations

import pytest

from tests.upgrade.frozen import CASES, FOLDER, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.stem)
def test_a_revision_gives_the_sql_that_it_gave_when_it_was_written(case: Case) -> None:
    """If this fails, do not write the file anew: let the change be version 2 of the templates."""
    assert case.sql() == case.path.read_bytes().decode()


def test_every_file_belongs_to_a_revision() -> None:
    """None is kept that nothing is compared with."""
    assert {case.path for case in CASES} == set(FOLDER.glob("*.sql"))
