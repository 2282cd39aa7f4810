"""The loop over epochs, the same in both frameworks: train, evaluate, keep the best, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from data import ArraySplit, Dataset
from harness.config import TrainConfig
from harness.errors import CommandError
from harness.monitor import Monitor
from harness.plots import save_grid
from harness.runfolder import RunFolder
from harness.schedule import learning_rate

__all__ = ["epoch_rates", "require_finite", "run_epochs", "save_predictions"]


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
            f"{config.lr:g}; last/ keeps the parameters of epoch {epoch - 1}"
        )


def run_epochs(
    config: TrainConfig,
    images: int,
    rows: list[dict[str, Any]],
    *,
    train_epoch: Callable[[int], tuple[float, float]],
    evaluate: Callable[[], tuple[float, float]],
    save_best: Callable[[], None],
    save_last: Callable[[list[dict[str, Any]]], None],
    monitor: Monitor,
) -> list[dict[str, Any]]:
    """Run the epochs after those in `rows`, and return all rows.

    `train_epoch` and `evaluate` return mean loss and accuracy. `save_best` is called where the
    test accuracy is the highest so far, `save_last` before the first epoch and after each.
    Raises: CommandError where more epochs are done than asked for, or the test loss is no number.
    """
    if len(rows) > config.epochs:
        raise CommandError(
            f"the run has {len(rows)} epochs already, more than --epochs {config.epochs}"
        )
    if not rows:
        save_last(rows)  # so that the last good parameters exist from the first update on
    for epoch in range(len(rows) + 1, config.epochs + 1):
        monitor.start_epoch(epoch, images)
        began = time.perf_counter()
        train_loss, train_acc = train_epoch(epoch)
        seconds = time.perf_counter() - began
        test_loss, test_acc = evaluate()
        require_finite(test_loss, "on the test images", config, epoch)
        if all(test_acc > row["test_acc"] for row in rows):
            save_best()
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "test_loss": test_loss,
            "test_acc": test_acc,
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
        }
        rows = [*rows, row]
        save_last(rows)
        monitor.end_epoch(row)
    return rows


def save_predictions(
    folder: RunFolder, dataset: Dataset, predict: Callable[[ArraySplit], np.ndarray]
) -> None:
    """`predictions.png`: the first 20 test images with what the net calls them (doc-2)."""
    test, names = dataset.test, dataset.class_names
    first = np.arange(min(20, len(test)))
    head = ArraySplit(test.images(first), test.labels[first])
    predicted = predict(head)
    save_grid(
        folder.path / "predictions.png",
        head.images(first),
        [names[label] for label in head.labels],
        [names[label] for label in predicted],
    )
