"""Real images for trying a net: of the data it was trained on where they are at hand, else digits.

Nothing is downloaded for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_data import DataError, Dataset, load_dataset
from cnn_data.catalog import entry_for
from cnn_data.load import FOLDER, data_folder
from cnn_data.prepared import find_prepared
from cnn_data.readers.imagenette import find_extracted
from cnn_data.readers.images import fit_batch
from cnn_data.readers.originals import find_files
from gluon_cnn.training.saved import SavedRun

DIGITS = "mnist5k"  # embedded, so always at hand


def real_images(saved: SavedRun, count: int) -> tuple[np.ndarray, str]:
    """uint8 (count, H, W, C) in the net's own shape, and the data set that they are from.

    Test images of the run's own data set, evenly spaced; where that is not on this machine, or has
    fewer, test digits of mnist5k, fitted, with another digit in each channel. Raises: DataError.
    """
    channels, height, width = saved.input_shape
    dataset = _own(saved)
    if dataset is not None and dataset.shape == (height, width, channels):
        total = len(dataset.test)
        if total >= count:
            return dataset.test.images(np.arange(count) * total // count), dataset.name
    # One digit in all channels could not tell an input channel from another
    rows = np.arange(count)[:, None] + np.arange(channels)  # (count, C)
    test = load_dataset(DIGITS).test
    digits = test.images(np.arange(rows.max() + 1) % len(test))
    fit = saved.fit if min(height, width) >= digits.shape[1] else "resize"
    fitted = fit_batch(digits, height, fit, DIGITS)[..., 0]
    return np.ascontiguousarray(fitted[rows].transpose(0, 2, 3, 1)), DIGITS


def _own(saved: SavedRun) -> Dataset | None:
    """The data set of a run, if it can be had without a download; None also where it is damaged:
    an export needs images, not these."""
    if saved.dataset is None:
        return None
    size = saved.input_shape[1]
    try:
        if not _at_hand(saved.dataset, saved.data_dir):
            return None
        return load_dataset(saved.dataset, saved.data_dir, image_size=size, fit=saved.fit)
    except DataError:
        return None


def _at_hand(name: str, data_dir: str | None) -> bool:
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER)).expanduser().is_dir()
    entry, folder = entry_for(name), data_folder(data_dir)
    if entry.kind == "embedded":
        return True
    files = find_files(entry, folder) or find_prepared(entry, folder)
    return bool(files or (entry.kind == "imagenette" and find_extracted(entry, folder)))
