"""The original files of MNIST, Fashion-MNIST and CIFAR-10, found in a folder and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnn_data.catalog import CATALOG, Entry
from cnn_data.errors import DataError
from cnn_data.readers.cifar import find_cifar, read_cifar
from cnn_data.readers.embedded import split_digits
from cnn_data.readers.idx import find_idx, read_idx_split
from cnn_data.splits import Pair


def find_files(entry: Entry, folder: Path) -> list[Path] | None:
    """The original files of `entry` in `folder` or the usual places below it, or None.

    Raises:
        DataError: some of the files are there and some are not.
    """
    folders = [*(folder / name for name in entry.folders), folder]
    if entry.kind == "idx":
        return find_idx(folders)
    if entry.kind == "cifar":
        path = find_cifar(folders)
        return [path] if path is not None else None
    return None


def read_files(entry: Entry, files: Sequence[Path]) -> tuple[Pair, Pair]:
    """Read the original files of an embedded, idx or cifar data set, whole: train and test.

    Raises:
        DataError: names the file and says what is wrong with it.
    """
    if entry.kind == "embedded":
        return split_digits()
    train_count, test_count = entry.counts or (None, None)
    if entry.kind == "cifar":
        rows = {} if test_count is None else {"rows": test_count}
        return read_cifar(files[0], **rows)
    side = entry.shape[0] if entry.shape else 28
    classes = len(entry.class_names)
    train = read_idx_split(files[0], files[1], train_count, side, classes)
    test = read_idx_split(files[2], files[3], test_count, side, classes)
    first = tuple(train[1][:10].tolist())
    for other in CATALOG.values():
        if other is not entry and other.first_labels and other.first_labels == first:
            raise DataError(
                f"{files[1]}: these are {other.name}'s labels, not {entry.name}'s; "
                f"load {other.name}, or give the folder of {entry.name}"
            )
    return train, test
