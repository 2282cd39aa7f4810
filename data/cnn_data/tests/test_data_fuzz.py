"""Hostile data files; see `cnn_data.tests.fuzzing`."""

import pytest

from cnn_data.tests.fuzzing import Target, fuzz, limited_memory, one_line_errors
from cnn_data.tests.targets import TARGETS, check_idx, check_pickle


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


def test_a_header_that_promises_gigabytes_is_refused_before_they_are_asked_for() -> None:
    with limited_memory():
        for count in (b"\xff\xff\xff\xff", b"\x10\0\0\0"):
            check_idx(b"\0\0\x08\x03" + count + b"\0\0\0\x04" * 2)


def test_a_name_with_line_breaks_in_a_pickle_is_shown_in_one_line() -> None:
    check_pickle(b"\x80\x02cos\r\x0bsystem\x1b[31m\nx\n(U\x02lstR.")
    check_pickle(b"\x80\x02cnumpy" + b"\x1c" * 500 + b"\ndtype\nq\x00)R.")
