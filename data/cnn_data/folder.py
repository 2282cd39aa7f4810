"""A folder of images: one sub-folder a class, PNG or JPEG by content, of any size."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_data.encoded import EncodedSplit, Files
from cnn_data.errors import DataError
from cnn_data.readers.images import is_grayscale, open_image
from cnn_data.splits import SPLIT_SEED, Dataset, Split, mixed_order, stratified_split

__all__ = ["load_folder", "measure_pixels", "read_tree"]

_LOG = logging.getLogger(__name__)

HELD_OUT = 0.1  # of each class, where there is no test folder
SAMPLE = 512  # training images that mean and std are measured on

_TEST_NAMES = ("test", "val")  # in this order of preference
_FORMATS = ("PNG", "JPEG")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Tree:
    """What a folder with one sub-folder a class holds; `labels` index `class_names`."""

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    grayscale: bool  # every image is


def load_folder(path: Path, image_size: int, fit: str = "resize") -> Dataset:
    """Load a folder of images. They are decoded as they are asked for.

    `path` holds `train` and `test` (or `val`), each with one sub-folder a class, or the class
    folders themselves: then a fixed tenth of each class is held out for testing. The images have
    1 channel if every one of them is grayscale, else 3. Mean and std are measured on a fixed
    sample of the training images.

    Raises:
        DataError: no such folder, no classes, a class without images, an unreadable image.
    """
    if not path.is_dir():
        raise DataError(f"folder:{path}: no such folder; expected one sub-folder a class")
    train_root, test_root = _roots(path)
    most = image_size if fit == "pad" else None
    tree = read_tree(train_root, most=most)
    if test_root is None:
        train, test = stratified_split(tree.labels, HELD_OUT)
        if not len(test):
            raise DataError(f"{train_root}: one image a class; expected two, to hold one out")
        held = tree
    else:
        held = read_tree(test_root, tree.class_names, most=most)
        train, test = mixed_order(len(tree.paths)), mixed_order(len(held.paths))
    channels = 1 if tree.grayscale and held.grayscale else 3
    train_split = _split(tree, train, image_size, channels, fit)
    mean, std = measure_pixels(train_split)
    return Dataset(
        f"folder:{path}",
        tree.class_names,
        (image_size, image_size, channels),
        mean,
        std,
        train_split,
        _split(held, test, image_size, channels, fit),
    )


def read_tree(
    root: Path, class_names: Sequence[str] | None = None, most: int | None = None
) -> Tree:
    """Read the headers of every image under `root`, one sub-folder a class, sorted by name.

    `class_names`, if given, are the only folders allowed; each must be there. No image may be
    wider or higher than `most` pixels. Files that are no images are left out and reported once;
    hidden files and folders are ignored.

    Raises:
        DataError: see `load_folder`.
    """
    folders, others = _visible(root)
    if not folders:
        raise DataError(f"{root}: no class folders; expected one sub-folder a class")
    names = tuple(folder.name for folder in folders)
    if class_names is not None and set(names) != set(class_names):
        extra = sorted(set(names) - set(class_names)) or "none"
        missing = sorted(set(class_names) - set(names)) or "none"
        raise DataError(f"{root}: class folders unlike train's: extra {extra}, missing {missing}")
    names = tuple(class_names) if class_names is not None else names
    paths: list[Path] = []
    labels: list[int] = []
    grayscale = True
    for label, name in enumerate(names):
        before = len(paths)
        nested, files = _visible(root / name)
        if nested:
            raise DataError(f"{nested[0]}: a folder inside class {name!r}; expected images only")
        for path in files:
            gray = _header(path, most)
            if gray is None:
                others.append(path)
                continue
            grayscale = grayscale and gray
            paths.append(path)
            labels.append(label)
        if len(paths) == before:
            raise DataError(f"{root / name}: no PNG or JPEG image in this class; add one")
    if others:
        _LOG.warning("%s: not PNG or JPEG, left out: %s", root, _listed(others))
    return Tree(names, tuple(paths), np.array(labels, np.int32), grayscale)


def measure_pixels(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel, of pixels / 255, over a fixed sample of at most SAMPLE images.

    The std of a channel that never changes is given as 1, so that dividing by it is harmless.
    """
    chosen = np.random.default_rng(SPLIT_SEED).permutation(len(split))[:SAMPLE]
    channels = split.images(chosen[:1]).shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(chosen), 64):
        images = split.images(chosen[start : start + 64])
        for channel in range(channels):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return tuple(map(float, mean)), tuple(float(s) if s > 0 else 1.0 for s in std)


def _roots(path: Path) -> tuple[Path, Path | None]:
    """The folder of training classes, and that of test classes if there is one."""
    train = path / "train"
    folders, files = _visible(path)
    tests = [path / name for name in _TEST_NAMES if path / name in folders]
    if train not in folders or not (tests or _visible(train)[0]):
        return path, None
    unused = [entry for entry in folders + files if entry not in (train, *tests[:1])]
    if unused:
        _LOG.warning("%s: not used, since there is a train folder: %s", path, _listed(unused))
    return train, tests[0] if tests else None


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in `folder`, by name, without the hidden ones."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith((".", "__MACOSX")):
                    (folders if entry.is_dir() else files).append(folder / entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return folders, files


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", …" if len(paths) > 3 else "")


def _split(tree: Tree, order: np.ndarray, image_size: int, channels: int, fit: str) -> EncodedSplit:
    files = Files([tree.paths[index] for index in order])
    return EncodedSplit(files, tree.labels[order], image_size, channels, fit)


def _header(path: Path, most: int | None) -> bool | None:
    """Whether the image at `path` is grayscale; None if it is no PNG or JPEG at all.

    Raises:
        DataError: it calls itself one, by name or by its first bytes, but cannot be read.
    """
    try:
        with open_image(path, str(path), _FORMATS) as image:
            if most is not None and max(image.size) > most:
                raise DataError(
                    f"{path}: {image.width} x {image.height}, more than {most} x {most}"
                )
            return is_grayscale(image)
    except DataError:
        if path.suffix.lower() in _SUFFIXES or _first_bytes(path).startswith(_MAGIC):
            raise
        return None


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
