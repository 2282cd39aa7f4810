"""Batches of float32 NCHW, in an order that is a function of the seed and the epoch alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cnn_data.augment import augment_batch, augmentation, mix
from cnn_data.errors import DataError
from cnn_data.pixels import Pixels
from cnn_data.splits import Split

__all__ = ["Batches"]

Batch = tuple[np.ndarray, np.ndarray]

_AHEAD = 2  # batches prepared while the consumer works on one


class Batches:
    """Normalised, optionally augmented and shuffled batches of one split.

    The order of the images is a function of (seed, epoch), augmentation and mixing one of (seed,
    epoch, batch index): neither depends on `start`, on `prefetch` or on the sharding.

    Args:
        split: where the images come from.
        batch_size: images of a whole batch, over all shards; the last one may be smaller.
        pixels: the map from 0..255 to the network's input.
        augment: one of `AUGMENTATIONS`, or several with commas.
        mixup: alpha of `augment.mix`, by which the images of a batch are mixed; 0 does not. Labels
            are then shares of the classes, float32 (n, classes).
        classes: how many there are; for `mixup` alone.
        shuffle: a new order each epoch; else the split's own order.
        seed: of order and augmentation.
        prefetch: prepare the next batches in a thread while the consumer works.
        shard: (rank, count). Shard `rank` gets its slice of every whole batch; all shards take the
            same number of steps. A last batch with fewer images than shards is left out by all.

    Raises:
        DataError: a size, shard or augmentation that makes no sense, or an empty split.

    Examples:
        >>> from cnn_data import load_dataset, pixels
        >>> digits = load_dataset("mnist5k")
        >>> unit = pixels("unit", digits.mean, digits.std)
        >>> batches = Batches(digits.train, 64, unit, shuffle=True)
        >>> x, y = next(batches.epoch(0))
        >>> len(batches), x.shape, x.dtype, y.shape
        (63, (64, 1, 28, 28), dtype('float32'), (64,))
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        pixels: Pixels,
        *,
        augment: str = "none",
        mixup: float = 0.0,
        classes: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        prefetch: bool = True,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        rank, count = shard
        if batch_size < 1:
            raise DataError(f"batch size {batch_size}; expected at least 1")
        if seed < 0:
            raise DataError(f"seed {seed}; expected 0 or more")
        if count < 1 or not 0 <= rank < count:
            raise DataError(f"shard {rank} of {count}; expected a rank from 0 to count - 1")
        if batch_size < count:
            raise DataError(f"batch size {batch_size} for {count} shards; expected one image each")
        if len(split) < count:
            raise DataError(f"a split of {len(split)} images; expected at least {count}")
        if mixup and classes < 1:
            raise DataError(f"mixup of {classes} classes; expected at least 1")
        self.split, self.batch_size, self.pixels = split, batch_size, pixels
        self.augment, self.mixup, self.classes = augmentation(augment), mixup, classes
        self.shuffle, self.seed = shuffle, seed
        self.prefetch, self.shard = prefetch, (rank, count)

    def __len__(self) -> int:
        """Batches an epoch, a short last one included."""
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (rest >= self.shard[1])

    def global_size(self, batch: int) -> int:
        """Images of whole batch `batch`, over all shards: what gradients are divided by."""
        return min(self.batch_size, len(self.split) - batch * self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of an epoch: float32 (n, C, H, W), labels int32 (n,), or
        float32 (n, classes) under `mixup`.

        Stopping early is free: the thread ends when the iterator is closed or forgotten. What goes
        wrong in the thread is raised here.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise DataError(
                f"epoch {epoch} from batch {start}; expected epoch >= 0, batch 0 to {len(self)}"
            )
        return self._iterate(epoch, start)

    def _iterate(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self._order(epoch)
        steps = range(start, len(self))
        if not self.prefetch:
            for step in steps:
                yield self._batch(order, epoch, step)
            return
        worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                waiting.append(worker.submit(self._batch, order, epoch, step))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            worker.shutdown(wait=True, cancel_futures=True)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.split))
        return np.random.default_rng([self.seed, epoch, 0]).permutation(len(self.split))

    def _batch(self, order: np.ndarray, epoch: int, step: int) -> Batch:
        rank, shards = self.shard
        count = self.global_size(step)
        part = slice(rank * count // shards, (rank + 1) * count // shards)
        # An image is mixed with one that may be another shard's: every shard prepares them all.
        mine = slice(0, count) if self.mixup else part
        indices = order[step * self.batch_size :][:count][mine]
        rng = np.random.default_rng([self.seed, epoch, 1, step])
        moved = augment_batch(self.split.images(indices), self.augment, rng, count, mine)
        x, y = self.pixels.apply(moved), self.split.labels[indices]
        if not self.mixup:
            return x, y
        x, y = mix(x, y, self.classes, self.mixup, rng)
        return np.ascontiguousarray(x[part]), np.ascontiguousarray(y[part])
