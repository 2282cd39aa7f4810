"""From a name, or a path, to a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.catalog import Entry, entry_for
from data.embedded import digits_file, read_digits
from data.errors import DataError
from data.splits import ArraySplit, Dataset, stratified_split

__all__ = ["load_dataset"]


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int | None = None,
    fit: str = "resize",
) -> Dataset:
    """Load a data set by name.

    Raises:
        DataError: an unknown name.
    """
    entry = entry_for(name)
    if entry.kind != "embedded":
        raise DataError(f"{name} needs its original files, which are not read yet; use mnist5k")
    return _embedded(entry)


def _embedded(entry: Entry) -> Dataset:
    images, labels = read_digits(digits_file())
    train, test = stratified_split(labels, held_out=0.2)
    return Dataset(
        entry.name,
        entry.class_names,
        images.shape[1:],
        entry.mean,
        entry.std,
        ArraySplit(np.ascontiguousarray(images[train]), labels[train]),
        ArraySplit(np.ascontiguousarray(images[test]), labels[test]),
    )
