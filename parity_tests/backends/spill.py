"""Arrays that a check needs later, moved to the disk while something large is computed."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref

import numpy as np

_LEAST = 1 << 20  # bytes: smaller arrays stay in memory
_FILE = 1 << 26  # bytes of a file, which holds many arrays
_ALL: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class Spill:
    """Moves large arrays into files without a name; where the disk is full they stay in memory.

    What comes back is an array like any other. Its pages are in memory from when they are read
    until `release`, and a file is gone with the last of its arrays.

    >>> Spill()(np.ones((1024, 1024)))[7, :3]
    array([1., 1., 1.])
    """

    def __init__(self) -> None:
        self._pages: mmap.mmap | None = None
        self._end = 0  # of what is written

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The same values, shape and dtype."""
        if array.nbytes < _LEAST:
            return array
        if self._pages is None or self._end + array.nbytes > len(self._pages):
            try:
                self._pages, self._end = _file(max(_FILE, array.nbytes)), 0
            except OSError:
                return array
            _ALL.add(self._pages)
        moved: np.ndarray = np.ndarray(array.shape, array.dtype, self._pages, self._end)
        moved[...] = array
        self._pages.madvise(mmap.MADV_DONTNEED)
        self._end += -(-array.nbytes // 64) * 64
        return moved


def release() -> None:
    """Take what was read of any files out of this process's memory again; it stays in them."""
    for pages in _ALL:
        pages.madvise(mmap.MADV_DONTNEED)


def _file(size: int) -> mmap.mmap:
    """The pages of a new file. Raises: OSError where there is no room."""
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # else a full disk is SIGBUS on writing
        return mmap.mmap(file.fileno(), size)
