"""Arrays on the disk: the same values, out of memory until they are read, and gone with them."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from parity_tests.backends import spill
from parity_tests.backends.spill import Spill

MB = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def files() -> int:
    return sum("(deleted)" in os.readlink(f"/proc/self/fd/{fd}") for fd in _open())


def _open() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool", "float16"])
def test_arrays_come_back_as_they_were(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_LEAST", 100)
    monkeypatch.setattr(spill, "_FILE", 10_000)
    keep, rng = Spill(), np.random.default_rng(0)
    for shape in ((3, 500), (), (0, 5), (2, 7, 50), (99, 500), (101,)):
        array = np.asarray(rng.integers(0, 2 if dtype == "bool" else 100, shape), dtype)
        for given in (array, array.T, array[..., ::-1] if array.ndim else array):
            moved = keep(given)
            assert (moved.shape, moved.dtype) == (given.shape, given.dtype)
            np.testing.assert_array_equal(moved, given)
            assert moved.flags.writeable


def test_what_is_moved_is_in_memory_only_once_it_is_read() -> None:
    keep, before = Spill(), resident()
    moved = [keep(np.full(8 * MB, i, np.uint8)) for i in range(40)]
    assert resident() - before < 100 * MB
    assert [int(array.max()) for array in moved] == list(range(40))
    assert resident() - before > 300 * MB
    spill.release()
    assert resident() - before < 100 * MB
    assert [int(array[-1]) for array in moved] == list(range(40))


def test_a_file_goes_with_the_last_of_its_arrays() -> None:
    gc.collect()
    before = files()
    keep = Spill()
    moved = [keep(np.ones(9 * MB, np.uint8)) for _ in range(20)]
    assert files() > before
    one = moved[3]
    del moved, keep
    assert int(one.sum()) == 9 * MB
    assert files() == before + 1
    del one
    assert files() == before


def test_small_arrays_are_left_alone() -> None:
    array = np.ones(100)
    assert Spill()(array) is array


def test_a_full_disk_leaves_arrays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    keep, array = Spill(), np.ones(2 * MB)
    first = keep(array)
    monkeypatch.setattr(spill.os, "posix_fallocate", full)
    assert keep(np.ones(60 * MB, np.uint8)).base is None
    np.testing.assert_array_equal(first, array)
