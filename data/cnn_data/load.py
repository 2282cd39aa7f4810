"""From a name, or a folder, to a data set."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from cnn_data.catalog import Entry, entry_for
from cnn_data.errors import DataError
from cnn_data.folder import content_of, load_folder, read_trees
from cnn_data.prepared import build, find_prepared, read_prepared
from cnn_data.readers.embedded import split_digits
from cnn_data.readers.imagenette import find_archive, find_extracted
from cnn_data.readers.images import check_fit, fit_batch
from cnn_data.readers.originals import find_files, read_files
from cnn_data.splits import ArraySplit, Dataset, Pair, Split, mixed_order

__all__ = ["FOLDER", "absolute_name", "data_folder", "load_dataset"]

FOLDER = "folder:"
LARGEST_ARRAY = 256 * 2**20  # bytes of resized pixels that are made at once and kept


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int | None = None,
    fit: str = "resize",
    skip_damaged: bool = False,
) -> Dataset:
    """Load a data set by name, or a folder of images with `folder:PATH`.

    Looked for in this order, and only what is not found is downloaded: the original files in
    `data_dir` (MNIST's and Fashion-MNIST's four IDX files, CIFAR-10's binary or Python version,
    imagenette extracted), a TFDS-prepared data set in `data_dir`, imagenette's archive there.
    `mnist5k` is embedded and needs none of them.

    Images are uint8 (n, H, W, C), labels int32 (n,).

    Args:
        name: mnist5k, mnist, fashion_mnist, cifar10, imagenette or folder:PATH.
        data_dir: where to look, and where downloads go; `~/tensorflow_datasets` if not given.
        image_size: height and width in pixels; None is the data set's own, which imagenette and
            folders do not have.
        fit: "resize" (bilinear) or "pad" (centred on a background of 0).
        skip_damaged: leave out image files that cannot be read, instead of refusing the folder.

    Returns:
        The two splits, with class names, and mean and standard deviation of each channel.

    Raises:
        DataError: an unknown name, no such folder, files that are damaged or not as expected, no
            network (within 5 seconds).

    Examples:
        >>> digits = load_dataset("mnist5k")
        >>> digits.shape, len(digits.train), len(digits.test), digits.train.labels.dtype
        ((28, 28, 1), 4000, 1000, dtype('int32'))
    """
    try:
        return _load(name, data_dir, image_size, fit, skip_damaged)
    except OSError as error:
        raise DataError(f"{name}: {error.filename or data_dir}: {error.strerror}") from error


def absolute_name(name: str) -> str:
    """A data set's name that means the same from every directory: `folder:` with the whole path.

    Raises:
        DataError: `folder:` without a path.

    >>> absolute_name("mnist5k"), absolute_name("folder:/data/../photos/")
    ('mnist5k', 'folder:/photos')
    """
    if not name.startswith(FOLDER):
        return name
    path = name.removeprefix(FOLDER)
    if not path.strip() or "\0" in path:
        raise DataError(f"{name!r} names no folder; expected folder:PATH")
    return FOLDER + os.path.abspath(os.path.expanduser(path))


def _load(
    name: str, data_dir: str | Path | None, image_size: int | None, fit: str, skip_damaged: bool
) -> Dataset:
    check_fit(image_size, 1, fit)
    if name.startswith(FOLDER):
        path = Path(absolute_name(name).removeprefix(FOLDER))
        if image_size is None:
            raise DataError(f"{name} has no image size of its own; give image_size")
        return load_folder(path, image_size, fit, skip_damaged=skip_damaged)
    entry = entry_for(name)
    if entry.shape is None and image_size is None:
        raise DataError(f"{name} has no image size of its own; give image_size")
    folder = data_folder(data_dir)
    if data_dir is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one that holds {name}")
    if entry.shape is None:
        return _pictures(entry, folder, image_size or 0, fit, skip_damaged)
    return _arrays(entry, folder, image_size or entry.shape[0], fit)


def data_folder(data_dir: str | Path | None) -> Path:
    """`data_dir`, or where tensorflow-datasets keeps what it prepares."""
    return Path("~/tensorflow_datasets" if data_dir is None else data_dir).expanduser()


def _arrays(entry: Entry, folder: Path, size: int, fit: str) -> Dataset:
    files = find_files(entry, folder)
    if files is not None:
        return _from_arrays(entry, read_files(entry, files), size, fit)
    prepared = find_prepared(entry, folder)
    if prepared is None and entry.kind == "embedded":
        return _from_arrays(entry, split_digits(), size, fit)
    channels = entry.shape[2] if entry.shape else 3
    return read_prepared(entry, prepared or build(entry, folder), size, channels, fit)


def _pictures(entry: Entry, folder: Path, size: int, fit: str, skip_damaged: bool) -> Dataset:
    extracted = find_extracted(entry, folder)
    if extracted is None:
        prepared = find_prepared(entry, folder)
        if prepared is None:
            packed = find_archive(entry, folder)
            prepared = build(entry, folder, [packed] if packed else None)
        return read_prepared(entry, prepared, size, 3, fit)
    read = read_trees(
        extracted[0].parent, extracted, size, fit, entry.class_folders, 3, skip_damaged=skip_damaged
    )
    splits = [read.split(tree, mixed_order(len(tree.paths))) for tree in read.trees]
    return Dataset(
        entry.name, entry.class_names, read.shape, entry.mean, entry.std, *splits,
        content=content_of(*read.trees),
        skipped=tuple(str(path) for tree in read.trees for path in tree.skipped),
    )  # fmt: skip


def _from_arrays(entry: Entry, pairs: tuple[Pair, Pair], size: int, fit: str) -> Dataset:
    train, test = (_fitted(images, labels, size, fit, entry.name) for images, labels in pairs)
    shape = (size, size, pairs[0][0].shape[3])
    content = hashlib.sha256()
    for images, labels in pairs:
        content.update(np.ascontiguousarray(images).data)
        content.update(np.ascontiguousarray(labels, "<i4").data)
    return Dataset(
        entry.name, entry.class_names, shape, entry.mean, entry.std, train, test,
        content=content.hexdigest(),
    )  # fmt: skip


def _fitted(images: np.ndarray, labels: np.ndarray, size: int, fit: str, name: str) -> Split:
    n, _, _, channels = images.shape
    if n * size * size * channels < LARGEST_ARRAY:
        return ArraySplit(fit_batch(images, size, fit, name), labels)
    fit_batch(images[:1], size, fit, name)  # what is wrong with one is wrong with all
    return _FittedSplit(images, labels, size, fit, name)


class _FittedSplit(ArraySplit):
    """Images in memory, resized as they are asked for."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, size: int, fit: str, name: str
    ) -> None:
        super().__init__(images, labels)
        self._form = (size, fit, name)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return fit_batch(super().images(indices), *self._form)
