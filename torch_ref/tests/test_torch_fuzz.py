"""Hostile parameter and symbol files; see `data.tests.fuzzing`."""

import pytest

from data.tests.fuzzing import fuzz
from torch_ref.tests.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 5_000)
