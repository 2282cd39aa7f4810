"""Train a classic CNN with Gluon's Trainer/autograd loop (doc-2): `python -m gluon_cnn.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from cnn_data import ArraySplit, Batches, DataError
from cnn_harness.cli import run
from cnn_harness.epochs import (
    epoch_rates,
    follow_epochs,
    require_finite,
    run_epochs,
    save_predictions,
)
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor, Silent
from cnn_harness.progress import Partial, Progress, read_progress, state_of, step_seed
from cnn_harness.runfolder import RunFolder
from cnn_harness.train_command import Framework, train_command
from gluon_cnn.models import MODELS, ModelError
from gluon_cnn.runtime.devices import contexts, switches
from gluon_cnn.training import checkpoint, parallel, workers
from gluon_cnn.training.assembly import (
    EVALUATION_BATCH,
    Objective,
    Training,
    build_net,
    make_batches,
    prepare,
)
from gluon_cnn.training.recipes import DEFAULTS, DOCUMENTS
from gluon_cnn.training.staging import Staging, to_devices

__all__ = [
    "EVALUATION_BATCH",
    "Evaluation",
    "Objective",
    "Training",
    "build_net",
    "draws_masks",
    "evaluate",
    "fit",
    "follow",
    "main",
    "make_batches",
    "prepare",
    "resume",
    "to_devices",
    "train_epoch",
    "train_step",
]

CHECK_EVERY = 20  # batches between two looks at the loss: each look waits for the device
CHECK_TOGETHER = 4  # the same where there are several workers, who also ask whether to stop


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy, and the predicted class of every image, int64 (N,)."""

    loss: float
    accuracy: float
    predicted: np.ndarray


def train_step(
    objective: Objective,
    trainer: gluon.Trainer,
    xs: list[mx.nd.NDArray],
    ys: list[mx.nd.NDArray],
    count: int,
) -> tuple[list[mx.nd.NDArray], list[mx.nd.NDArray]]:
    """One update from `count` images; returns the summed loss and hits of each device, unread."""
    losses, loss_sums, hits = [], [], []
    with autograd.record():
        for x, y in zip(xs, ys, strict=True):
            loss, loss_sum, hit, _ = objective(x, y)
            losses.append(loss)
            loss_sums.append(loss_sum)
            hits.append(hit)
    autograd.backward(losses)
    parallel.idle(trainer, len(xs))
    # The loss is a vector, its gradient the sum over images: step() divides it by their number.
    trainer.step(count)
    return loss_sums, hits


def train_epoch(training: Training, done: Partial, monitor: Monitor, stop: Stop) -> Partial:
    """The rest of an epoch, or its updates until a stop is requested; returns what is done then.

    Sums stay on the devices and are read every `CHECK_EVERY` batches, which is also when a loss
    that is no number is found. Raises: CommandError then.
    """
    config, batches, trainer = training.config, training.train, training.trainer
    peers, epoch, draws = training.peers, done.epoch, draws_masks(training.net)
    check_every = CHECK_EVERY if peers.count == 1 else CHECK_TOGETHER
    rates = epoch_rates(config, epoch, len(batches))[done.steps :]
    unread: list[tuple[list[mx.nd.NDArray], list[mx.nd.NDArray]]] = []
    for rate, (x, y) in zip(rates, batches.epoch(epoch, done.steps), strict=True):
        step = done.steps + len(unread)
        if draws:  # every worker drops other values
            mx.random.seed(step_seed(config.seed + peers.rank * 100_003, epoch, step))
        trainer.set_learning_rate(rate)
        xs, ys = training.staging(x), training.staging(y)
        unread.append(train_step(training.objective, trainer, xs, ys, batches.global_size(step)))
        stopping = stop.requested and peers.count == 1
        if len(unread) == check_every or step + 1 == len(batches) or stopping:
            sums = [float(stop.requested)]
            for losses, hits in unread:
                sums += [sum(float(part.asscalar()) for part in parts) for parts in (losses, hits)]
            # Workers stop at the same step, or some would wait for the gradients of the others.
            requested, *sums = peers.total(sums)
            stopping = requested > 0
            for loss, hit in zip(sums[::2], sums[1::2], strict=True):
                done = done.after(1, batches.global_size(done.steps), loss, hit)
            unread.clear()
            require_finite(done.loss_sum, f"by batch {done.steps}", config, epoch)
            monitor.progress(done.images, done.loss_sum / done.images, done.hit_sum / done.images)
        if stopping:
            break
    # The last backward may still write running statistics, and with `static_alloc` MXNet's engine
    # does not know: whoever reads them, asnumpy() too, gets those of the step before.
    mx.nd.waitall()
    if done.steps == len(batches) or peers.count > 1:
        parallel.agree_on_statistics(training.net)
        workers.agree_on_statistics(peers, training.net)
    return done


def draws_masks(net: gluon.HybridBlock) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded (1.5 ms)."""
    return isinstance(net, gluon.nn.Dropout) or any(map(draws_masks, net._children.values()))


def evaluate(
    objective: Objective,
    batches: Batches,
    devices: list[mx.Context],
    stop: Stop | None = None,
    dtype: str = "float32",
) -> Evaluation:
    """Mean loss, accuracy and predictions over a split, read from the device once at the end.

    Raises: Stopped where a stop is requested meanwhile.
    """
    loss_sum, hit_sum, predicted = [], [], []
    staging = Staging(devices, dtype)
    for x, y in (stop or Stop()).watch(batches.epoch(0)):
        for x_part, y_part in zip(staging(x), staging(y), strict=True):
            _, loss, hits, winners = objective(x_part, y_part)
            loss_sum.append(loss)
            hit_sum.append(hits)
            predicted.append(winners)
    count = sum(len(part) for part in predicted)
    return Evaluation(
        loss=sum(float(part.asscalar()) for part in loss_sum) / count,
        accuracy=sum(float(part.asscalar()) for part in hit_sum) / count,
        predicted=np.concatenate([part.asnumpy() for part in predicted]).astype(np.int64),
    )


def resume(training: Training, folder: RunFolder, which: str = "last") -> Progress | None:
    """Put the training where the checkpoint `last` or `previous` left it; None if there is none.

    Raises: UsageError where the checkpoint is another configuration's, CommandError where it is
    damaged; the training is then not changed.
    """
    found = folder.saved(which)
    if found is None:
        return None
    path, state = found
    progress = read_progress(state, training.config, len(training.train), path)
    checkpoint.load_last(path, state, training.net, training.trainer, training.devices)
    return progress


def fit(
    training: Training,
    folder: RunFolder,
    *,
    start: Progress | None = None,
    monitor: Monitor | None = None,
    stop: Stop | None = None,
) -> list[dict[str, Any]]:
    """Train as configured and return a row of metrics an epoch, those of a resumed run included.

    `start` is what `resume` returned. Leaves `best.params`, `last/`, `previous/` and
    `predictions.png` in the folder. Raises: CommandError where the loss is no number any more, or
    the folder cannot be written; Interrupted where `stop` was requested; DataError.
    """
    net, trainer, devices = training.net, training.trainer, training.devices
    monitor, stop = monitor or Silent(), stop or Stop()

    def test() -> tuple[float, float]:
        result = evaluate(training.objective, training.test, devices, stop, training.dtype)
        return result.loss, result.accuracy

    def predict(split: ArraySplit) -> np.ndarray:
        batches = Batches(split, len(split), training.test.pixels)
        return evaluate(training.objective, batches, devices, dtype=training.dtype).predicted

    def save_last(progress: Progress) -> None:
        state = state_of(training.config, progress, len(training.train))
        checkpoint.save_last(folder, net, trainer, state)

    if start is not None:
        workers.share_training(training.peers, net, trainer)
    rows = run_epochs(
        training.config,
        len(training.dataset.train),
        start or Progress(),
        train_epoch=lambda done: train_epoch(training, done, monitor, stop),
        evaluate=test,
        save_best=lambda: checkpoint.save_best(folder, net),
        save_last=save_last,
        monitor=monitor,
        stop=stop,
    )
    save_predictions(folder, training.dataset, predict)
    return rows


def follow(training: Training, start: Progress, stop: Stop) -> None:
    """Train as a worker that does not lead: no evaluation, no files.

    Raises: CommandError where the loss is no number any more; DataError.
    """
    if start.rows or start.partial is not None:
        workers.share_training(training.peers, training.net, training.trainer)
    follow_epochs(
        training.config,
        start,
        len(training.train),
        lambda done: train_epoch(training, done, Silent(), Stop()),
    )


FRAMEWORK = Framework(
    name="gluon",
    environment=checkpoint.environment,
    models=MODELS,
    documents=DOCUMENTS,
    defaults=DEFAULTS,
    prepare=prepare,
    resume=resume,
    fit=fit,
    switches=switches,
    join=lambda ctx: workers.join(len(contexts(ctx)) > 1),
    follow=follow,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    code = run(
        lambda: train_command(FRAMEWORK, argv, "python -m gluon_cnn.train"),
        errors=(DataError, ModelError),
    )
    return workers.leave(code)


if __name__ == "__main__":
    sys.exit(main())
