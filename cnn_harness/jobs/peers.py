"""The processes that train one net together; each framework has its own way to join them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_data import Dataset
from cnn_harness.errors import CommandError


class Peers:
    """This process is number `rank` of `count`; number 0 leads: it evaluates and writes.

    Here it is the only one. Every method of several is called by all of them, in the same order.
    """

    @property
    def rank(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return 1

    def spread(self, array: np.ndarray) -> np.ndarray:
        """The leader's array, on every process, each of which has one of its shape and dtype."""
        return array

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of every process's array, on every process, in the array's own dtype."""
        return array

    def share(self, value: Any) -> Any:
        """The leader's value, which must be JSON, on every process.

        It travels as numbers: MXNet's servers hold nothing but floating-point numbers, and torch's
        own way to send objects is a pickle.
        """
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = int(self.spread(np.array([len(text)], np.float64))[0])
        letters = np.zeros(size, np.float32)
        if self.rank == 0:
            letters[:] = np.frombuffer(text, np.uint8)
        return json.loads(self.spread(letters).astype(np.uint8).tobytes())


def share_state(
    peers: Peers, slots: Mapping[str, np.ndarray], counts: Any
) -> tuple[dict[str, np.ndarray], Any]:
    """The leader's optimizer slots and counts, on every process.

    Only the leader has read the checkpoint: the others may have other slots, or none.
    """
    counts = peers.share(counts)
    shapes = peers.share({name: [str(a.dtype), list(a.shape)] for name, a in slots.items()})
    shared = {}
    for name, (dtype, shape) in shapes.items():
        own = slots.get(name)
        fits = own is not None and [str(own.dtype), list(own.shape)] == [dtype, shape]
        shared[name] = peers.spread(own if own is not None and fits else np.zeros(shape, dtype))
    return shared, counts


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
