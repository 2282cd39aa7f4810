"""Memory in pages of 2 MiB, which a processor finds sooner than 512 of 4 KiB each.

A kernel that gives them to those alone who ask (`madvise`, the default of most distributions) gives
none to the libraries of inference engines: AlexNet's weights are 60,000 pages to it, and each image
reads them all. https://docs.kernel.org/admin-guide/mm/transhuge.html
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE = 2**21  # bytes
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/maps")
_MADV_COLLAPSE = 25  # since Linux 6.1; an older kernel refuses it, and the pages stay as they are

_Range = tuple[int, int]  # addresses, the second not in it


@contextmanager
def huge_pages() -> Iterator[None]:
    """Moves what this process allocates inside into pages of 2 MiB at the end, where it is asked.

    It does nothing where the kernel gives such pages by itself, or never, or cannot do this.

    Examples:
        >>> import numpy as np
        >>> with huge_pages():
        ...     weights = np.ones(2**22, np.float32)
    """
    if not _on_request():
        yield
        return
    before = _anonymous()
    yield
    libc = ctypes.CDLL(None)
    for start, end in _beyond(_anonymous(), before):
        for block in _used(libc, -(-start // HUGE) * HUGE, end // HUGE * HUGE):
            # Whatever it answers: where it fails all is right, and as slow as before
            libc.madvise(ctypes.c_void_p(block), ctypes.c_size_t(HUGE), _MADV_COLLAPSE)


def _on_request(enabled: Path = _ENABLED, maps: Path = _MAPS) -> bool:
    """Whether the kernel gives huge pages to who asks alone, and says what this process has."""
    try:
        return "[madvise]" in enabled.read_text() and os.access(maps, os.R_OK)
    except OSError:
        return False


def _anonymous(maps: Path = _MAPS) -> list[_Range]:
    """The memory of no file that this process may write and shares with none, in order."""
    ranges = []
    for line in maps.read_text().splitlines():
        addresses, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights.startswith("rw") and rights.endswith("p") and (not name or name == ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            ranges.append((start, end))
    return ranges


def _used(libc: ctypes.CDLL, start: int, end: int) -> Iterator[int]:
    """The blocks of 2 MiB, by address, half of which or more is in memory.

    The rest of it is filled with zeros: too much for the stack of each thread.
    """
    page = mmap.PAGESIZE
    count = max(0, end - start) // page
    present = (ctypes.c_ubyte * count)()
    if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(count * page), present):
        return
    for block in range(start, end, HUGE):
        first = (block - start) // page
        if 2 * sum(present[first : first + HUGE // page]) >= HUGE // page:
            yield block


def _beyond(ranges: list[_Range], others: list[_Range]) -> Iterator[_Range]:
    """The parts of ranges that lie in none of the others; both are in order."""
    for start, end in ranges:
        for low, high in others:
            if low < end and start < high:
                if start < low:
                    yield start, low
                start = high
        if start < end:
            yield start, end
