"""MNIST's own file format, IDX: http://yann.lecun.com/exdb/mnist/ (bottom of the page).

Two zero bytes, a type (8: unsigned byte), the number of dimensions, each size as a big-endian
32-bit integer, then the values. Fashion-MNIST uses the same files.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from cnn_data.errors import DataError

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_GZIP = b"\x1f\x8b"
_DEFLATE = 1032  # times smaller, at best: https://zlib.net/zlib_tech.html
_LARGEST = 2**30  # bytes; MNIST's largest file has 47 million


def read_idx(path: Path, shape: Sequence[int | None]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not: uint8 of its own shape.

    `shape` is what is expected, None where any size is right. The header is compared with it
    before the values are read, so that a false header cannot ask for memory.

    Raises:
        DataError: names the file and says what is wrong with it.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            most = path.stat().st_size * (_DEFLATE if packed else 1)
            return _read(file, path, shape, min(most, _LARGEST))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error


def _read(file: BinaryIO, path: Path, shape: Sequence[int | None], most: int) -> np.ndarray:
    """`most` is the largest number of values that a file of this size can hold."""
    magic, expected_magic = file.read(4), bytes([0, 0, 8, len(shape)])
    if magic != expected_magic:
        raise DataError(
            f"{path}: begins with {magic.hex() or 'nothing'}; expected {expected_magic.hex()}, "
            f"an IDX file of bytes in {len(shape)} dimensions"
        )
    header = file.read(4 * len(shape))
    if len(header) != 4 * len(shape):
        raise DataError(f"{path}: ends inside its header; fetch it again")
    sizes = struct.unpack(f">{len(shape)}I", header)
    if any(want not in (None, size) for want, size in zip(shape, sizes, strict=True)):
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise DataError(
            f"{path}: holds {' x '.join(map(str, sizes))}; expected {wanted}; "
            "for images of your own use folder:PATH"
        )
    count = math.prod(sizes)
    if count > most:
        raise DataError(f"{path}: its header promises {count} values, it cannot hold {most}")
    values = file.read(count + 1)
    if len(values) != count:
        more = "more" if len(values) > count else f"only {len(values)}"
        raise DataError(f"{path}: its header promises {count} values, it holds {more}")
    return np.frombuffer(values, np.uint8).reshape(sizes)


def read_idx_split(
    images: Path, labels: Path, count: int | None, side: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair of files: uint8 (N, side, side, 1), int32 (N,) below `classes`.

    Raises:
        DataError: a file is not as expected, or the two do not fit together.
    """
    values = read_idx(labels, (count,))
    pictures = read_idx(images, (len(values) if count is None else count, side, side))
    if len(values) and values.max() >= classes:
        row = int(np.argmax(values >= classes))
        raise DataError(
            f"{labels}: label {values[row]} at position {row}; expected 0 to {classes - 1}"
        )
    return pictures[..., None], values.astype(np.int32)


def find_idx(folders: Sequence[Path]) -> list[Path] | None:
    """The four files in the first of `folders` that holds any, in the order of IDX_FILES.

    Plain or gzipped, with the dash of the originals or the dot that some copies have before `idx`.

    Raises:
        DataError: some of the four are there, and some are not.
    """
    for folder in folders:
        spellings = {name: _spelling(folder, name) for name in IDX_FILES}
        missing = [name for name, path in spellings.items() if path is None]
        if not missing:
            return [path for path in spellings.values() if path is not None]
        if len(missing) < len(IDX_FILES):
            raise DataError(f"{folder}: lacks {', '.join(missing)} (or .gz) of the four IDX files")
    return None


def _spelling(folder: Path, name: str) -> Path | None:
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None
