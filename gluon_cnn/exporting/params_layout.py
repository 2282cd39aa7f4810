"""The layout of MXNet's `.params` files, checked before MXNet reads one.

MXNet's reader believes a header: it allocates what a shape says, however short the file is, and
its writer does not notice a full disk. Layout: `src/ndarray/ndarray.cc`, `NDArray::Save`, 1.9.1.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_ITEM_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 12: 2}  # by MXNet's dtype number
_MOST_DIMENSIONS = 32


class LayoutError(ValueError):
    """A file that is no whole, dense `.params` file; one line without its name."""


def read_layout(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each array by name; of the values nothing but their number is read.

    Raises: LayoutError for a file that is damaged, not whole, or holds sparse arrays; OSError.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block, a device may never end
        raise LayoutError("not a regular file")
    with path.open("rb") as file:
        return _Walker(file, path.stat().st_size).walk()


class _Walker:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def walk(self) -> dict[str, tuple[int, ...]]:
        magic, _ = self._numbers("<QQ")
        if magic != _LIST_MAGIC:
            raise LayoutError("not a .params file of MXNet")
        shapes = [self._array() for _ in range(self._count())]
        names = [self._name() for _ in range(self._count())]
        if self._left():
            raise LayoutError(f"{self._left()} bytes after its end")
        if len(names) != len(shapes):
            raise LayoutError(f"{len(shapes)} arrays, {len(names)} names")
        if not names:  # MXNet gives a list for it, and expects a dict of itself
            raise LayoutError("it holds no arrays")
        if any("\0" in name for name in names):  # MXNet takes a name up to there
            raise LayoutError("a name with a zero byte in it")
        if len(set(names)) < len(names):
            raise LayoutError("a name stands there twice")
        return dict(zip(names, shapes, strict=True))

    def _left(self) -> int:
        return self._size - self._file.tell()

    def _count(self) -> int:
        (count,) = self._numbers("<Q")
        if count * 8 > self._left():  # an entry has at least 8 bytes
            raise LayoutError(f"it promises {count} entries and ends before")
        return count

    def _array(self) -> tuple[int, ...]:
        (magic,) = self._numbers("<I")
        if magic in (_V2, _V3):
            (storage,) = self._numbers("<i")
            if storage != 0:
                raise LayoutError("a sparse array, expected dense ones")
        if magic in (_V1, _V2, _V3):
            (dimensions,) = self._numbers("<i")
            item = "q"
        else:
            dimensions, item = magic, "I"  # before 0.12 an array began with its shape
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise LayoutError(f"an array of {dimensions} dimensions")
        shape = self._numbers(f"<{dimensions}{item}")
        if dimensions == 0 or any(side < 1 for side in shape):
            raise LayoutError(f"an array of shape {shape}")
        _, _, dtype = self._numbers("<iii")  # the device's type and number come first
        if dtype not in _ITEM_BYTES:
            raise LayoutError(f"the unknown dtype {dtype}")
        self._skip(math.prod(shape) * _ITEM_BYTES[dtype])
        return shape

    def _name(self) -> str:
        (length,) = self._numbers("<Q")
        self._need(length)
        try:
            return self._file.read(length).decode()
        except UnicodeDecodeError:
            raise LayoutError("a name that is not UTF-8") from None

    def _numbers(self, layout: str) -> tuple[int, ...]:
        self._need(struct.calcsize(layout))
        return struct.unpack(layout, self._file.read(struct.calcsize(layout)))

    def _skip(self, count: int) -> None:
        self._need(count)
        self._file.seek(count, os.SEEK_CUR)

    def _need(self, count: int) -> None:
        if count > self._left():
            raise LayoutError(f"ends {count - self._left()} bytes too early")
