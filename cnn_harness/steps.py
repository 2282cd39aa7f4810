"""The updates of one epoch: their batches and learning rates, and sums that are read in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from cnn_data import Batches
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import epoch_rates, require_finite
from cnn_harness.jobs.peers import Peers
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial, step_seed

__all__ = ["EpochSteps"]

CHECK_EVERY = 20  # batches between two looks at the loss: each look waits for the device
CHECK_TOGETHER = 4  # the same where there are several processes, who also ask whether to stop

Sums = TypeVar("Sums")  # a framework's summed loss and hits of one update, still on its devices


class EpochSteps(Generic[Sums]):
    """The updates that are left of an epoch, until it is done or a stop is requested.

    Iterating gives (learning rate, images x, labels y, number of images) for each update: x and y
    are this process's part of the batch, the number is that of all processes. What the update
    returned goes to `add`. `read` turns it into two numbers, every `CHECK_EVERY` updates; then a
    non-finite loss is found, and all processes learn whether one of them was asked to stop.
    `done` is what is done, once the iteration has ended.
    """

    def __init__(
        self,
        config: TrainConfig,
        batches: Batches,
        peers: Peers,
        done: Partial,
        monitor: Monitor,
        stop: Stop,
        read: Callable[[Sums], tuple[float, float]],
    ) -> None:
        self.done = done
        self._config, self._batches, self._peers = config, batches, peers
        self._monitor, self._stop, self._read = monitor, stop, read
        self._unread: list[Sums] = []
        self._stopping = False

    @property
    def _step(self) -> int:
        return self.done.steps + len(self._unread)

    @property
    def seed(self) -> int:
        """The seed of what the next update draws: every process drops other values."""
        own = self._config.seed + self._peers.rank * 100_003
        return step_seed(own, self.done.epoch, self._step)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray, np.ndarray, int]]:
        epoch, first = self.done.epoch, self.done.steps
        rates = epoch_rates(self._config, epoch, len(self._batches))[first:]
        for rate, (x, y) in zip(rates, self._batches.epoch(epoch, first), strict=True):
            yield rate, x, y, self._batches.global_size(self._step)
            if self._stopping:
                return

    def add(self, sums: Sums) -> None:
        """Note what an update returned. Raises: CommandError where a loss is not finite."""
        self._unread.append(sums)
        alone = self._peers.count == 1
        check_every = CHECK_EVERY if alone else CHECK_TOGETHER
        last = self._step == len(self._batches)
        if len(self._unread) == check_every or last or (alone and self._stop.requested):
            self._read_all()

    def _read_all(self) -> None:
        numbers = [float(self._stop.requested)]
        for sums in self._unread:
            numbers += self._read(sums)
        # Processes stop at the same step, or some would wait for the gradients of the others.
        requested, *numbers = self._peers.sum(np.array(numbers)).tolist()
        self._stopping = requested > 0
        self._unread.clear()
        done = self.done
        for loss, hits in zip(numbers[::2], numbers[1::2], strict=True):
            done = done.after(1, self._batches.global_size(done.steps), loss, hits)
        require_finite(done.loss_sum, f"by batch {done.steps}", self._config, done.epoch)
        self._monitor.progress(done.images, done.loss_sum / done.images, done.hit_sum / done.images)
        self.done = done
