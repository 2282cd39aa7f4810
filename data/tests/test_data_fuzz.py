"""Hostile data files; see `data.tests.fuzzing`."""

import pytest

from data.tests.fuzzing import Target, fuzz, one_line_errors
from data.tests.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 5_000)


@pytest.mark.parametrize("fault", ["crash", "memory", "lines"])
def test_a_reader_that_misbehaves_is_seen(fault: str) -> None:
    def check(content: bytes) -> None:
        if content == b"whole":
            return
        with one_line_errors(ValueError):
            if fault == "memory":
                bytearray(4 * 2**30)
            raise {"crash": KeyError, "lines": ValueError}.get(fault, ValueError)("two\nlines")

    with pytest.raises((KeyError, MemoryError, AssertionError)):
        fuzz(Target(check, lambda: [b"whole"]), 5)
