"""The training loop of the source script (doc-2): Gluon's Trainer under `autograd.record`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from cnn_data import Batches
from cnn_harness.epochs import EpochSteps, Evaluation, follow_epochs, run_epochs, save_predictions
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial, Progress
from cnn_harness.runfolder import RunFolder
from gluon_cnn.training import checkpoint, parallel
from gluon_cnn.training.assembly import Objective, Training
from gluon_cnn.training.gradients import clear, clip_norm
from gluon_cnn.training.staging import Staging

__all__ = ["evaluate", "fit", "follow", "load", "train_epoch", "train_step"]

Parts = list[mx.nd.NDArray]  # one array a device


def train_step(
    objective: Objective,
    trainer: gluon.Trainer,
    batches: Iterable[tuple[Parts, Parts]],
    count: int,
    clip: float = 0.0,
) -> tuple[Parts, Parts]:
    """One update from `count` images; returns the summed losses and hits, unread.

    `batches` are the parts of a batch that are computed one after the other, each split over the
    devices. The gradient is clipped to a norm of `clip`, unless that is 0.
    """
    loss_sums: Parts = []
    hit_sums: Parts = []
    used = 0
    clear(trainer)
    for xs, ys in batches:
        with autograd.record():
            parts = [objective(x, y) for x, y in zip(xs, ys, strict=True)]
        losses, sums, hits, _ = zip(*parts, strict=True)
        autograd.backward(list(losses))
        loss_sums += sums
        hit_sums += hits
        used = max(used, len(xs))
    parallel.idle(trainer, used)
    # The loss is a vector, its gradient the sum over images: step() divides it by their number.
    if not clip:
        trainer.step(count)
    else:
        trainer.allreduce_grads()
        clip_norm(trainer, clip * count)
        trainer.update(count)
    return loss_sums, hit_sums


def train_epoch(training: Training, done: Partial, monitor: Monitor, stop: Stop) -> Partial:
    """The rest of an epoch, or its updates until a stop is requested; returns what is done then.

    Raises: CommandError where the loss is not finite any more.
    """
    config, draws = training.config, _draws_masks(training.net)
    steps = EpochSteps(config, training.train, training.peers, done, monitor, stop, _read_sums)
    for rate, x, y, count in steps:
        if draws:
            mx.random.seed(steps.seed)
        training.trainer.set_learning_rate(rate)
        parts = ((training.staging(part), training.staging(labels)) for part, labels in
                 steps.parts(x, y))  # fmt: skip
        steps.add(train_step(training.objective, training.trainer, parts, count, config.clip_grad))
        if training.average is not None:
            training.average.update(steps.update)
    # The last backward may still write running statistics, and with `static_alloc` MXNet's engine
    # does not know: whoever reads them, asnumpy() too, gets those of the step before.
    mx.nd.waitall()
    if steps.done.steps == len(training.train) or training.peers.count > 1:
        training.peers.agree_on_statistics(training.net)
    return steps.done


def evaluate(
    objective: Objective,
    batches: Batches,
    devices: list[mx.Context],
    stop: Stop | None = None,
    dtype: str = "float32",
) -> Evaluation:
    """Mean loss, accuracies and predictions over a split, read from the device once at the end.

    `objective` is one that `ranks`. Raises: Stopped where a stop is requested meanwhile.
    """
    staging, parts = Staging(devices, dtype), []
    for x, y in (stop or Stop()).watch(batches.epoch(0)):
        for x_part, y_part in zip(staging(x), staging(y), strict=True):
            parts.append(objective(x_part, y_part))
    _, loss_sums, hits, predicted, among_top = zip(*parts, strict=True)
    count = sum(map(len, predicted))
    return Evaluation(
        loss=_read_sum(loss_sums) / count,
        accuracy=_read_sum(hits) / count,
        top5=_read_sum(among_top) / count,
        predicted=np.concatenate([part.asnumpy() for part in predicted]).astype(np.int64),
    )


def fit(
    training: Training,
    folder: RunFolder,
    *,
    start: Progress | None = None,
    monitor: Monitor | None = None,
    stop: Stop | None = None,
) -> list[dict[str, Any]]:
    """Train as configured and return a row of metrics an epoch, those of a resumed run included.

    `start` is how far the loaded checkpoint had come. Leaves `best.params`, `last/`,
    `previous/` and `predictions.png` in the folder. Raises: CommandError where the loss is not
    finite any more, or the folder cannot be written; Interrupted where `stop` was requested;
    DataError.
    """
    net, trainer, average = training.net, training.trainer, training.average
    monitor, stop = monitor or Monitor(), stop or Stop()
    judged = nullcontext if average is None else average.in_place

    def test(batches: Batches, stop: Stop | None = None) -> Evaluation:
        with judged():
            return evaluate(training.evaluation, batches, training.devices, stop, training.dtype)

    def save_best() -> None:
        with judged():
            checkpoint.save_best(folder, net)

    if start is not None:
        training.peers.share_training(net, trainer)
    rows = run_epochs(
        training.config,
        training.train,
        start or Progress(),
        train_epoch=lambda done: train_epoch(training, done, monitor, stop),
        evaluate=lambda: test(training.test, stop),
        save_best=save_best,
        save_last=lambda state: checkpoint.save_last(folder, net, trainer, state, average),
        peers=training.peers,
        monitor=monitor,
        stop=stop,
    )
    save_predictions(folder, training.test, training.dataset.class_names, test)
    return rows


def follow(training: Training, start: Progress, stop: Stop) -> None:
    """Train as a worker that does not lead: no evaluation, no files.

    Raises: CommandError where the loss is not finite any more; DataError.
    """
    if start.rows or start.partial is not None:
        training.peers.share_training(training.net, training.trainer)
    follow_epochs(
        training.config,
        training.train,
        start,
        lambda done: train_epoch(training, done, Monitor(), Stop()),
        training.peers,
    )


def load(training: Training, path: Path, state: dict[str, Any]) -> None:
    """Put net and optimizer where the checkpoint in the folder `path`, with this state, left them.

    Raises: CommandError where its files are those of another net or optimizer.
    """
    checkpoint.load_last(
        path, state, training.net, training.trainer, training.devices, training.average
    )


def _draws_masks(net: gluon.HybridBlock) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded (1.5 ms)."""
    return isinstance(net, gluon.nn.Dropout) or any(map(_draws_masks, net._children.values()))


def _read_sum(parts: Iterable[mx.nd.NDArray]) -> float:
    return sum(float(part.asscalar()) for part in parts)


def _read_sums(sums: tuple[Parts, Parts]) -> tuple[float, float]:
    losses, hits = sums
    return _read_sum(losses), _read_sum(hits)
