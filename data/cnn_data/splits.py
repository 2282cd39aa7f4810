"""What a data set is once loaded: two splits of uint8 NHWC images with int32 labels."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Protocol

import numpy as np

from cnn_data.errors import DataError

__all__ = ["ArraySplit", "Dataset", "Pair", "Split", "mixed_order", "stratified_split"]

Pair = tuple[np.ndarray, np.ndarray]  # images uint8 (N, H, W, C), labels int32 (N,)

SPLIT_SEED = 1998  # of every fixed split; changing it changes every published figure


class Split(Protocol):
    """One part of a data set. `labels` is int32 (N,); images are uint8 (n, H, W, C)."""

    @property
    def labels(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (n,), in that order: uint8 (n, H, W, C)."""
        ...

    def name(self, index: int) -> str:
        """The file of an image, or its number where it came without one."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A loaded data set. `mean` and `std` are per channel, of pixels / 255."""

    name: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # H, W, C, after resizing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    test: Split
    _: KW_ONLY
    content: str | None = None  # a sha256 of the images and labels as they came; None: not known
    skipped: tuple[str, ...] = ()  # damaged files that were left out
    held_out: bool = False  # `test` is a part of the images that `train` has the rest of

    def undivided(self) -> Dataset:
        """This with every image for testing, for a net that was trained on none of them."""
        none = ArraySplit(np.zeros((0, *self.shape), np.uint8), np.zeros(0))
        return replace(self, train=none, test=_Joined(self.train, self.test), held_out=False)


class ArraySplit:
    """A split that is held in memory.

    Args:
        images: uint8 (N, H, W, C).
        labels: integers (N,).

    Raises:
        DataError: the shapes or types are not those.

    Examples:
        >>> split = ArraySplit(np.zeros((3, 28, 28, 1), np.uint8), np.array([7, 2, 1]))
        >>> len(split), split.images(np.array([2, 0])).shape
        (3, (2, 28, 28, 1))
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, C)"
            )
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"{len(images)} images but labels of shape {labels.shape}; expected one label each"
            )
        self._images = images
        self._labels = np.ascontiguousarray(labels, dtype=np.int32)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return self._images[np.asarray(indices, dtype=np.intp)]

    def name(self, index: int) -> str:
        return f"image {index}"


class _Joined:
    """Two splits, one after the other."""

    def __init__(self, first: Split, second: Split) -> None:
        self._first, self._second = first, second
        self.labels = np.concatenate([first.labels, second.labels])

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices, dtype=np.intp)
        early = indices < len(self._first)
        first = self._first.images(indices[early])
        out = np.empty((len(indices), *first.shape[1:]), np.uint8)
        out[early] = first
        out[~early] = self._second.images(indices[~early] - len(self._first))
        return out

    def name(self, index: int) -> str:
        n = len(self._first)
        return self._first.name(index) if index < n else self._second.name(index - n)


def mixed_order(count: int) -> np.ndarray:
    """A fixed permutation of `count` indices, so that the first few hold many classes."""
    return np.random.default_rng([SPLIT_SEED, count]).permutation(count)


def stratified_split(labels: np.ndarray, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a fixed stratified split, (train, test), each in a fixed mixed order.

    Each class gives `held_out` of its members to the test part, rounded, and at least one where
    it has two. The split is a function of `labels` alone.

    Examples:
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> train, test = stratified_split(labels, held_out=0.25)
        >>> len(train), sorted(labels[test].tolist())
        (4, [0, 1])
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = 0 if len(members) < 2 else max(1, round(len(members) * held_out))
        test.append(members[:count])
        train.append(members[count:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))
