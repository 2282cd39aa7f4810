"""The loop over epochs, the same in both frameworks: train, evaluate, keep the best, checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cnn_data import ArraySplit, Dataset
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.jobs.stop import Interrupted, Stop, Stopped
from cnn_harness.monitor import Monitor
from cnn_harness.plots import save_grid
from cnn_harness.progress import Partial, Progress
from cnn_harness.runfolder import RunFolder
from cnn_harness.schedule import learning_rate

__all__ = [
    "epoch_rates",
    "follow_epochs",
    "require_epochs",
    "require_finite",
    "run_epochs",
    "save_predictions",
]


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
    """Raise CommandError where a loss is no number; the checkpoint before it is whole."""
    if not math.isfinite(loss):
        raise CommandError(
            f"the loss became {loss} in epoch {epoch}, {when}: try an --lr below "
            f"{config.lr:g}; last/ keeps the parameters from before"
        )


def run_epochs(
    config: TrainConfig,
    images: int,
    start: Progress,
    *,
    train_epoch: Callable[[Partial], Partial],
    evaluate: Callable[[], tuple[float, float]],
    save_best: Callable[[], None],
    save_last: Callable[[Progress], None],
    monitor: Monitor,
    stop: Stop,
) -> list[dict[str, Any]]:
    """Run the epochs after those of `start`, and return the rows of all.

    `train_epoch` goes on with a partial epoch until it is done or a stop is requested. `evaluate`
    returns mean loss and accuracy. `save_last` is called before the first epoch, after each, and
    where a stop was requested; `save_best` after it, where the test accuracy is the highest so far.
    Raises: CommandError where more epochs are done than asked for, or the test loss is no number;
    Interrupted where a stop was requested, when all is saved.
    """
    rows = start.rows
    require_epochs(config, start)
    monitor.resume(rows)
    if not rows and start.partial is None:
        save_last(start)  # so that the last good parameters exist from the first update on
    if rows and start.partial is None and _is_best(rows):
        save_best()  # a kill may have come between the checkpoint and this
    for epoch in range(len(rows) + 1, config.epochs + 1):
        begun = (
            start.partial if start.partial is not None and start.partial.epoch == epoch else None
        )
        partial = begun if begun is not None else Partial(epoch)
        monitor.start_epoch(epoch, images)
        began = time.perf_counter()
        partial = train_epoch(partial)
        seconds = partial.seconds + time.perf_counter() - began
        partial = dataclasses.replace(partial, seconds=seconds)
        try:
            if stop.requested:
                raise Stopped
            test_loss, test_acc = evaluate()
        except Stopped:
            done = Progress(rows, partial if partial.steps else None)
            if partial.steps > (begun.steps if begun is not None else 0):
                save_last(done)
            raise Interrupted(_number(stop), f", saved at {done.where()}") from None
        require_finite(test_loss, "on the test images", config, epoch)
        row = {
            "epoch": epoch,
            "train_loss": partial.loss_sum / partial.images,
            "train_acc": partial.hit_sum / partial.images,
            "test_loss": test_loss,
            "test_acc": test_acc,
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
        }
        rows = [*rows, row]
        save_last(Progress(rows))
        if _is_best(rows):
            save_best()
        monitor.end_epoch(row)
        if stop.requested and epoch < config.epochs:
            raise Interrupted(_number(stop), f", saved at {Progress(rows).where()}")
    return rows


def follow_epochs(
    config: TrainConfig,
    start: Progress,
    batches: int,
    train_epoch: Callable[[Partial], Partial],
) -> None:
    """The same epochs in a process that does not lead, until they are done or all are to stop."""
    for epoch in range(len(start.rows) + 1, config.epochs + 1):
        partial = start.partial
        done = train_epoch(partial if partial and partial.epoch == epoch else Partial(epoch))
        if done.steps < batches:
            return


def require_epochs(config: TrainConfig, start: Progress) -> None:
    """Raise CommandError where more epochs are done, or begun, than `config` asks for."""
    begun = len(start.rows) + (start.partial is not None)
    if begun > config.epochs:
        raise CommandError(
            f"the run has {begun} epochs already, more than --epochs {config.epochs}"
        )


def _is_best(rows: list[dict[str, Any]]) -> bool:
    """Whether the last epoch's test accuracy is above all before it."""
    return all(rows[-1]["test_acc"] > row["test_acc"] for row in rows[:-1])


def _number(stop: Stop) -> int:
    assert stop.signal is not None
    return stop.signal


def save_predictions(
    folder: RunFolder, dataset: Dataset, predict: Callable[[ArraySplit], np.ndarray]
) -> None:
    """`predictions.png`: the first 20 test images with what the net calls them (doc-2)."""
    test, names = dataset.test, dataset.class_names
    first = np.arange(min(20, len(test)))
    head = ArraySplit(test.images(first), test.labels[first])
    predicted = predict(head)
    with folder.writing("predictions.png"):
        save_grid(
            folder.path / "predictions.png",
            head.images(first),
            [names[label] for label in head.labels],
            [names[label] for label in predicted],
        )
