"""A folder of images: one sub-folder a class, PNG or JPEG by content, of any size."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_data.decoded import Decoded, room_for
from cnn_data.encoded import EncodedSplit, Files
from cnn_data.errors import DataError
from cnn_data.inspection import Finding, ImageFile, inspect_images
from cnn_data.readers.images import check_fit, fits
from cnn_data.splits import SPLIT_SEED, Dataset, Split, mixed_order, stratified_split
from gluon_cnn_parity.cli import not_utf8

_LOG = logging.getLogger(__name__)

HELD_OUT = 0.1  # of each class, where there is no test folder
SAMPLE = 512  # training images that mean and std are measured on
UNEQUAL = 10  # times as many images in a class as in another, from which on it is said

_TEST_NAMES = ("test", "val")  # in this order of preference


@dataclass(frozen=True)
class Tree:
    """What a folder with one sub-folder a class holds; `labels` index `class_names`."""

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    files: tuple[ImageFile, ...]
    rows: np.ndarray  # of the images among all that were read together
    skipped: tuple[Path, ...] = ()  # damaged, and left out

    @property
    def grayscale(self) -> bool:
        """Whether every image is."""
        return all(file.grayscale for file in self.files)


@dataclass(frozen=True)
class Trees:
    """Trees that were read together, and what their images are decoded to."""

    trees: tuple[Tree, ...]
    encoded: Files  # of all trees
    shape: tuple[int, int, int]  # (size, size, channels)
    fit: str
    decoded: Decoded | None

    def split(self, tree: Tree, order: np.ndarray) -> EncodedSplit:
        """The images of a tree in this order."""
        size, _, channels = self.shape
        return EncodedSplit(
            self.encoded, tree.labels[order], size, channels, self.fit, tree.rows[order],
            self.decoded,
        )  # fmt: skip


def load_folder(
    path: Path, image_size: int, fit: str = "resize", *, skip_damaged: bool = False
) -> Dataset:
    """Load a folder of images. They are decoded as they are asked for.

    `path` holds `train` and `test` (or `val`), each with one sub-folder a class, or the class
    folders themselves: then a fixed tenth of each class is held out for testing. The images have
    1 channel if every one of them is grayscale, else 3. Mean and std are measured on a fixed
    sample of the training images. Every file is read first: what is damaged is named in one error,
    or left out by name with `skip_damaged`. What makes a poor data set is said.

    Raises:
        DataError: no such folder, no classes, a class without images, unreadable images.
    """
    if not path.is_dir():
        found = "is a file" if path.exists() else "no such folder"
        raise DataError(f"folder:{path}: {found}; expected a folder with one sub-folder a class")
    train_root, test_root = _roots(path)
    roots = (train_root,) if test_root is None else (train_root, test_root)
    read = read_trees(path, roots, image_size, fit, skip_damaged=skip_damaged)
    tree, *others = read.trees
    if not others:
        train, test = stratified_split(tree.labels, HELD_OUT)
        if not len(test):
            raise DataError(f"{train_root}: one image a class; expected two, to hold one out")
        held = tree
    else:
        (held,) = others
        train, test = mixed_order(len(tree.paths)), mixed_order(len(held.paths))
    train_split = read.split(tree, train)
    mean, std = measure_pixels(train_split)
    for weakness in _weaknesses(tree, others):
        _LOG.warning("warning: %s: %s", path, weakness)
    return Dataset(
        f"folder:{path}",
        tree.class_names,
        read.shape,
        mean,
        std,
        train_split,
        read.split(held, test),
        content=content_of(tree, *others),
        held_out=not others,
        skipped=tuple(str(each) for part in (tree, *others) for each in part.skipped),
    )


def content_of(*trees: Tree) -> str:
    """A sha256 of the images' bytes, in their order, with their classes; not of where they lie."""
    total = hashlib.sha256()
    for tree in trees:
        total.update(b"tree\n")
        for label, file in zip(tree.labels, tree.files, strict=True):
            total.update(f"{file.sha256} {tree.class_names[label]}\n".encode())
    return total.hexdigest()


def _weaknesses(tree: Tree, others: Sequence[Tree]) -> list[str]:
    """What makes training on these images, or believing their test, doubtful."""
    said = []
    names, sums = tree.class_names, [file.sha256 for file in tree.files]
    counts = np.bincount(tree.labels, minlength=len(names))
    most, least = counts.argmax(), counts.argmin()
    if len(names) == 1:
        said.append(f"one class only, {names[0]!r}: whatever a net says is right")
    elif counts[most] >= UNEQUAL * counts[least]:
        said.append(
            f"very unequal classes: {counts[most]} images of {names[most]!r}, "
            f"{counts[least]} of {names[least]!r}"
        )
    if len(set(sums)) == 1 < len(sums):
        said.append(f"all {len(sums)} training images are equal")
    where = dict(zip(sums, tree.paths, strict=True))
    for other in others:
        shared = [
            (where[file.sha256], path)
            for file, path in zip(other.files, other.paths, strict=True)
            if file.sha256 in where
        ]
        if shared:
            said.append(
                f"{len(shared)} test images are training images too, such as {shared[0][1]} "
                f"({shared[0][0].name} in train): the accuracy will look better than it is"
            )
    return said


def read_trees(
    path: Path,
    roots: Sequence[Path],
    size: int,
    fit: str,
    class_names: Sequence[str] | None = None,
    channels: int | None = None,
    *,
    skip_damaged: bool = False,
) -> Trees:
    """Read every image under each of `roots`, which lie in `path`: one sub-folder a class, sorted.

    `class_names`, or those of the first root, are the only class folders allowed; each must be
    there. With `fit` "pad" no image may be wider or higher than `size`. `channels` are 1 where
    every image is grayscale, else 3, unless they are given. Files that are no images are left out
    and reported once; hidden files and folders are ignored.

    Raises:
        DataError: see `load_folder`.
    """
    check_fit(size, channels or 3, fit)
    listed = []
    nested: dict[Path, str] = {}
    for root in roots:
        listed.append(_list_classes(root, class_names, nested))
        class_names = listed[0][0]
    paths = [each for _, classes, _ in listed for files in classes for each in files]
    regular = [each for each in paths if each not in nested]
    decoded = room_for(len(regular), size, 3, fit)
    findings: dict[Path, Finding] = dict(nested)
    findings.update(zip(regular, inspect_images(path, regular, decoded), strict=True))
    damaged = {}
    for each, finding in findings.items():
        if isinstance(finding, ImageFile) and not fits(finding.width, finding.height, size, fit):
            finding = f"{finding.width} x {finding.height}, more than {size} x {size}"
        if isinstance(finding, str):
            damaged[each] = finding
    if damaged and not skip_damaged:
        raise DataError(_report(path, damaged, len(paths)))
    if damaged:
        _LOG.warning("warning: left out, %s", _report(path, damaged, len(paths), remedy=""))
    rows = {each: row for row, each in enumerate(regular)}
    trees = tuple(
        _tree(root, names, classes, others, findings, damaged, rows)
        for root, (names, classes, others) in zip(roots, listed, strict=True)
    )
    if channels is None:
        channels = 1 if all(tree.grayscale for tree in trees) else 3
    if decoded is None:
        decoded = room_for(len(regular), size, channels, fit)
    if decoded is not None:
        whole = [findings[each] for each in regular]
        _recall(decoded, whole, channels)
    return Trees(trees, Files(regular), (size, size, channels), fit, decoded)


def _recall(decoded: Decoded, findings: Sequence[Finding], channels: int) -> None:
    """Take from an earlier run what was not decoded now, or leave all of it to the next."""
    if decoded.pixels.shape[3] > channels:
        decoded.to_gray()
    unused = [not isinstance(finding, ImageFile) for finding in findings]
    decoded.known |= np.array(unused, bool)  # nobody asks for these
    decoded.recall(each.sha256 if isinstance(each, ImageFile) else "" for each in findings)
    decoded.remember()


def _list_classes(
    root: Path, class_names: Sequence[str] | None, nested: dict[Path, str]
) -> tuple[tuple[str, ...], list[list[Path]], list[Path]]:
    """The classes below a folder, what each holds, and the files beside the class folders.

    What is wrong with a folder inside a class goes into `nested`.
    """
    folders, others = _visible(root)
    if not folders:
        raise DataError(f"{root}: no class folders; expected one sub-folder a class")
    names = tuple(folder.name for folder in folders)
    for name in names:
        if why := not_utf8(name):
            raise DataError(f"{root}: the class folder {os.fsencode(name)!r}: {why}")
    if class_names is not None and set(names) != set(class_names):
        extra = sorted(set(names) - set(class_names)) or "none"
        missing = sorted(set(class_names) - set(names)) or "none"
        raise DataError(f"{root}: class folders unlike train's: extra {extra}, missing {missing}")
    names = tuple(class_names) if class_names is not None else names
    classes = []
    for name in names:
        inner, files = _visible(root / name)
        why = f"a folder inside class {name!r}, expected images only"
        nested.update(dict.fromkeys(inner, why))
        classes.append([*files, *inner])
    return names, classes, others


def _tree(
    root: Path,
    names: tuple[str, ...],
    classes: Sequence[Sequence[Path]],
    others: Sequence[Path],
    findings: Mapping[Path, Finding],
    damaged: Mapping[Path, str],
    rows: Mapping[Path, int],
) -> Tree:
    """The images of a folder that are whole, once they have been read."""
    whole: list[tuple[Path, int, ImageFile]] = []
    others = list(others)
    for label, files in enumerate(classes):
        before = len(whole)
        for path in files:
            finding = findings[path]
            if finding is None:
                others.append(path)
            elif isinstance(finding, ImageFile) and path not in damaged:
                whole.append((path, label, finding))
        if len(whole) == before:
            left = ", now that the damaged ones are left out" if damaged else ""
            raise DataError(
                f"{root / names[label]}: no PNG or JPEG image in this class{left}; add one"
            )
    if others:
        _LOG.warning("%s: not PNG or JPEG, left out: %s", root, _listed(others))
    paths, labels, images = zip(*whole, strict=True)
    skipped = tuple(path for files in classes for path in files if path in damaged)
    own = np.array([rows[path] for path in paths])
    return Tree(names, paths, np.array(labels, np.int32), images, own, skipped)


def _report(
    path: Path,
    damaged: Mapping[Path, str],
    total: int,
    remedy: str = "; mend or remove them, or leave them out with --skip-damaged",
) -> str:
    """One line that names every damaged file, and says what is wrong with each."""
    if len(damaged) == 1:
        ((file, reason),) = damaged.items()
        return f"{file}: {reason}{remedy.replace('them', 'it')}"
    named = "; ".join(f"{file.relative_to(path)}: {reason}" for file, reason in damaged.items())
    return f"{path}: {len(damaged)} of {total} files cannot be used: {named}{remedy}"


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
