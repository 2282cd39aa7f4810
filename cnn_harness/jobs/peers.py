"""The processes that train one net together, as both `train` commands see them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from cnn_data import Dataset
from cnn_harness.errors import CommandError

__all__ = ["ALONE", "Alone", "Peers", "Spreader", "require_same_data", "share_state"]


class Peers(Protocol):
    """This process is number `rank` of `count`; number 0 leads: it evaluates and writes."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def share(self, value: Any) -> Any:
        """The leader's value, which must be JSON, on every process; all must call it together."""

    def total(self, numbers: list[float]) -> list[float]:
        """The sums of every process's numbers, on every process, in float64."""


class Spreader(Peers, Protocol):
    """Peers that also hand arrays around."""

    def spread(self, array: np.ndarray) -> np.ndarray:
        """The leader's array, on every process; all must call it with its shape and dtype."""


class Alone:
    """One process, which is its own leader."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return 1

    def share(self, value: Any) -> Any:
        return value

    def total(self, numbers: list[float]) -> list[float]:
        return numbers


ALONE = Alone()


def share_state(
    peers: Spreader, slots: Mapping[str, np.ndarray], counts: Any
) -> tuple[dict[str, np.ndarray], Any]:
    """The leader's optimizer slots and counts, on every process.

    Only the leader has read the checkpoint: the others may have other slots, or none.
    """
    counts = peers.share(counts)
    shapes = peers.share({name: [str(a.dtype), list(a.shape)] for name, a in slots.items()})
    found = {}
    for name, (dtype, shape) in shapes.items():
        own = slots.get(name)
        fits = own is not None and [str(own.dtype), list(own.shape)] == [dtype, shape]
        found[name] = peers.spread(own if own is not None and fits else np.zeros(shape, dtype))
    return found, counts


def require_same_data(peers: Peers, dataset: Dataset) -> None:
    """Raise CommandError on a process whose data are not the leader's: it would train in silence
    on parts of batches that do not belong together."""
    if peers.count == 1:
        return
    mine = _fingerprint(dataset)
    theirs = peers.share(mine)
    if mine != theirs:
        raise CommandError(
            f"process {peers.rank} has other data than process 0: {mine} beside {theirs}; "
            "give every host the same --data-dir contents"
        )


def _fingerprint(dataset: Dataset) -> list[Any]:
    """Sizes, shape, classes, and checksums of the labels and of some images."""
    train = dataset.train
    some = np.unique(np.linspace(0, len(train) - 1, 16).astype(np.int64))
    return [
        len(train),
        list(dataset.shape),
        zlib.crc32("\n".join(dataset.class_names).encode()),
        zlib.crc32(np.ascontiguousarray(train.labels, dtype=np.int64).tobytes()),
        zlib.crc32(np.ascontiguousarray(train.images(some)).tobytes()),
    ]
