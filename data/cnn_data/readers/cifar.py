"""CIFAR-10's original files: the binary and the Python version, packed or not.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Five training batches and a test batch of
10,000 images; an image is 3,072 bytes, its red, green and blue plane in turn, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_data.errors import DataError
from cnn_data.readers.archive import tar_members
from cnn_data.readers.plain_pickle import UnsafePickle, read_plain

ROWS = 10_000  # images a batch
CLASSES = 10

_PIXELS = 3 * 32 * 32
_LARGEST = 64 * 2**20  # bytes; a batch has 31 million

_BINARY = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_PYTHON = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

_ARCHIVES = {"cifar-10-binary.tar.gz": _BINARY, "cifar-10-python.tar.gz": _PYTHON}
_FOLDERS = {"cifar-10-batches-bin": _BINARY, "cifar-10-batches-py": _PYTHON}

Batch = tuple[np.ndarray, np.ndarray]


def find_cifar(folders: Sequence[Path]) -> Path | None:
    """An archive, or a folder with batches, in the first of `folders` that holds one."""
    for folder in folders:
        for archive in _ARCHIVES:
            if (folder / archive).is_file():
                return folder / archive
        for inside in (*(folder / name for name in _FOLDERS), folder):
            if any((inside / name).is_file() for name in (*_BINARY, *_PYTHON)):
                return inside
    return None


def read_cifar(path: Path, rows: int = ROWS) -> tuple[Batch, Batch]:
    """Read an archive, under any name, or a folder of batches of `rows` images each.

    Returns:
        (images, labels) of train and of test: uint8 (N, 32, 32, 3), int32 (N,).

    Raises:
        DataError: a batch is missing, or names the file and says what is wrong with it.
    """
    contents = _from_folder(path) if path.is_dir() else _from_archive(path)
    names = _PYTHON if "test_batch" in contents else _BINARY
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; fetch CIFAR-10 again")
    parse: Callable[[bytes, str, int], Batch] = parse_python if names is _PYTHON else parse_binary
    batches = [parse(contents.pop(name), f"{path}/{name}", rows) for name in names]
    images, labels = zip(*batches, strict=True)
    train = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return train, (images[-1], labels[-1])


def parse_binary(content: bytes, name: str, rows: int = ROWS) -> Batch:
    """One batch of the binary version: rows of a label byte and 3,072 pixel bytes.

    Raises:
        DataError: another length, or a label out of range.
    """
    if len(content) != rows * (1 + _PIXELS):
        raise DataError(
            f"{name}: {len(content)} bytes; expected {rows * (1 + _PIXELS)}, "
            f"{rows} images with their labels"
        )
    table = np.frombuffer(content, np.uint8).reshape(rows, 1 + _PIXELS)
    return _batch(table[:, 1:], table[:, 0], name)


def parse_python(content: bytes, name: str, rows: int = ROWS) -> Batch:
    """One batch of the Python version, without unpickling it (see `cnn_data.readers.plain_pickle`).

    Raises:
        DataError: not such a pickle, other lengths, or a label out of range.
    """
    try:
        batch = read_plain(content)
    except UnsafePickle as error:
        raise DataError(f"{name}: not a plain CIFAR-10 batch: {error}") from error
    pixels, labels = _field(batch, "data"), _field(batch, "labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (rows, _PIXELS):
        raise DataError(
            f"{name}: its data are {getattr(pixels, 'shape', type(pixels).__name__)}; "
            f"expected ({rows}, {_PIXELS}) bytes"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{name}: its labels are no list of integers")
    if len(labels) != rows:
        raise DataError(f"{name}: {len(labels)} labels for {rows} images")
    return _batch(pixels, np.array(labels), name)


def _batch(pixels: np.ndarray, labels: np.ndarray, name: str) -> Batch:
    wrong = (labels < 0) | (labels >= CLASSES)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{name}: label {labels[row]} at position {row}; expected 0 to {CLASSES - 1}"
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 32, 32, 3)
    return np.ascontiguousarray(images), labels.astype(np.int32)


def _field(batch: Any, key: str) -> Any:
    if not isinstance(batch, dict):
        return None
    return batch.get(key, batch.get(key.encode()))


def _from_archive(path: Path) -> dict[str, bytes]:
    wanted = {*_BINARY, *_PYTHON}
    members = tar_members(path, lambda name: name.name in wanted, _LARGEST)
    return {name.name: content for name, content in members}


def _from_folder(path: Path) -> dict[str, bytes]:
    names = _PYTHON if (path / _PYTHON[0]).is_file() else _BINARY
    contents = {}
    for name in names:
        file = path / name
        try:
            if file.is_file() and file.stat().st_size <= _LARGEST:
                contents[name] = file.read_bytes()
            elif file.is_file():
                raise DataError(f"{file}: {file.stat().st_size} bytes; expected 31 million")
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return contents
