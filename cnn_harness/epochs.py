"""The loop over epochs and their updates, as both frameworks have it around what they compute."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from cnn_data import ArraySplit, Batches
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.jobs.peers import Peers
from cnn_harness.jobs.stop import Interrupted, Stop, Stopped
from cnn_harness.monitor import Monitor
from cnn_harness.plots import save_grid
from cnn_harness.progress import Partial, Progress, state_of, step_seed
from cnn_harness.runfolder import RunFolder
from cnn_harness.schedule import learning_rate

CHECK_EVERY = 20  # batches between two looks at the loss: each look waits for the device
CHECK_TOGETHER = 4  # the same where there are several processes, who also ask whether to stop

ALONE = Peers()

Sums = TypeVar("Sums")  # a framework's summed loss and hits of one update, still on its devices


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy, and the predicted class of every image, int64 (N,)."""

    loss: float
    accuracy: float
    top5: float  # share of the images whose class is among the five best
    predicted: np.ndarray


def epoch_rates(config: TrainConfig, epoch: int, batches: int) -> list[float]:
    """The learning rate of each of the epoch's updates; epochs count from 1."""
    first = (epoch - 1) * batches
    return [
        learning_rate(
            config.lr,
            config.schedule,
            first + number,
            config.epochs * batches,
            warmup_steps=config.warmup_epochs * batches,
            step_every=config.step_epochs * batches,
            step_factor=config.step_factor,
        )
        for number in range(batches)
    ]


def require_finite(loss: float, when: str, config: TrainConfig, epoch: int) -> None:
    """Raise CommandError where a loss is not finite; the checkpoint before it is whole."""
    if not math.isfinite(loss):
        raise CommandError(
            f"the loss became {loss} in epoch {epoch}, {when}: try an --lr below "
            f"{config.lr:g}; last/ keeps the parameters from before"
        )


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
    def update(self) -> int:
        """The number of the update that was noted last, in the whole run, counted from 1."""
        return (self.done.epoch - 1) * len(self._batches) + self._step

    def parts(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A batch in the parts that are computed one after the other, none of them empty."""
        count = min(self._config.grad_accum_steps, len(x))
        if count <= 1:
            yield x, y
        else:
            yield from zip(np.array_split(x, count), np.array_split(y, count), strict=True)

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


def run_epochs(
    config: TrainConfig,
    batches: Batches,
    start: Progress,
    *,
    train_epoch: Callable[[Partial], Partial],
    evaluate: Callable[[], Evaluation],
    save_best: Callable[[], None],
    save_last: Callable[[dict[str, Any]], None],
    monitor: Monitor,
    stop: Stop,
    peers: Peers = ALONE,
) -> list[dict[str, Any]]:
    """Run the epochs after those of `start`, and return the rows of all.

    `train_epoch` goes on with a partial epoch over `batches` until it is done or a stop is
    requested. `save_last` gets what a checkpoint says of the run, before the first epoch, after
    each, and where a stop was requested; `save_best` is called after it, where the test accuracy is
    the highest so far. `peers` are told where training ends early, for want of a better accuracy.
    Raises: CommandError where more epochs are done than asked for, or the test
    loss is not finite; Interrupted where a stop was requested, when all is saved.
    """
    images, rows = len(batches.split), start.rows

    def save(progress: Progress) -> None:
        save_last(state_of(config, progress, len(batches)))

    require_epochs(config, start)
    monitor.resume(rows)
    if not rows and start.partial is None:
        save(start)  # so that the last good parameters exist from the first update on
    if rows and start.partial is None and _is_best(rows):
        save_best()  # a kill may have come between the checkpoint and this
    for begun in _left(config, start):
        if _ends_early(config, rows, peers):
            monitor.ends_early(config.patience)
            break
        monitor.start_epoch(begun.epoch, config.epochs, images)
        began = time.perf_counter()
        done = train_epoch(begun)
        done = dataclasses.replace(done, seconds=done.seconds + time.perf_counter() - began)
        try:
            if stop.requested:
                raise Stopped
            test = evaluate()
        except Stopped:
            progress = Progress(rows, done if done.steps else None)
            if done.steps > begun.steps:
                save(progress)
            raise _interrupted(stop, progress) from None
        require_finite(test.loss, "on the test images", config, done.epoch)
        row = {
            "epoch": done.epoch,
            "train_loss": done.loss_sum / done.images,
            "train_acc": done.hit_sum / done.images,
            "test_loss": test.loss,
            "test_acc": test.accuracy,
            "test_top5_acc": test.top5,
            "lr": epoch_rates(config, done.epoch, len(batches))[-1],
            "seconds": round(done.seconds, 3),
            "images_per_second": round(images / done.seconds, 1),
        }
        rows = [*rows, row]
        save(Progress(rows))
        if _is_best(rows):
            save_best()
        monitor.end_epoch(row)
        if stop.requested and done.epoch < config.epochs:
            raise _interrupted(stop, Progress(rows))
    return rows


def follow_epochs(
    config: TrainConfig,
    batches: Batches,
    start: Progress,
    train_epoch: Callable[[Partial], Partial],
    peers: Peers,
) -> None:
    """The same epochs in a process that does not lead, until they are done or all are to stop."""
    for begun in _left(config, start):
        if _ends_early(config, [], peers):
            return
        if train_epoch(begun).steps < len(batches):
            return


def _left(config: TrainConfig, start: Progress) -> Iterator[Partial]:
    """The epochs after those of `start`; the first may have been begun."""
    for epoch in range(len(start.rows) + 1, config.epochs + 1):
        begun = start.partial
        yield begun if begun is not None and begun.epoch == epoch else Partial(epoch)


def _interrupted(stop: Stop, progress: Progress) -> Interrupted:
    assert stop.signal is not None
    return Interrupted(stop.signal, f", saved at {progress.where()}")


def require_epochs(config: TrainConfig, start: Progress) -> None:
    """Raise CommandError where more epochs are done, or begun, than `config` asks for."""
    begun = len(start.rows) + (start.partial is not None)
    if begun > config.epochs:
        raise CommandError(
            f"the run has {begun} epochs already, more than --epochs {config.epochs}"
        )


def _ends_early(config: TrainConfig, rows: list[dict[str, Any]], peers: Peers) -> bool:
    """Whether the test accuracy has not risen for `patience` epochs, as the leader knows."""
    if not config.patience:
        return False
    best = max(rows, key=lambda row: row["test_acc"])["epoch"] if rows else 0
    return bool(peers.share(len(rows) - best >= config.patience))


def _is_best(rows: list[dict[str, Any]]) -> bool:
    """Whether the last epoch's test accuracy is above all before it."""
    return all(rows[-1]["test_acc"] > row["test_acc"] for row in rows[:-1])


def save_predictions(
    folder: RunFolder,
    test: Batches,
    names: Sequence[str],
    evaluate: Callable[[Batches], Evaluation],
) -> None:
    """`predictions.png`: the first 20 test images with what the net calls them (doc-2)."""
    first = np.arange(min(20, len(test.split)))
    head = ArraySplit(test.split.images(first), test.split.labels[first])
    predicted = evaluate(Batches(head, len(head), test.pixels)).predicted
    with folder.writing("predictions.png"):
        save_grid(
            folder.path / "predictions.png",
            head.images(first),
            [names[label] for label in head.labels],
            [names[label] for label in predicted],
        )
