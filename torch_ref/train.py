"""The mirror of `gluon_cnn.train`: same flags, batches, first weights, files and metrics."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gluon_cnn_parity import require

if __name__ == "__main__":
    # KeyboardInterrupt inside the imports below may abort the process or become another error
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    require("torch", extras="torch", program="python -m torch_ref.train")

import numpy as np
import torch
from torch import nn

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
from torch_ref.models import MODELS, ModelError
from torch_ref.training import checkpoint, processes
from torch_ref.training.assembly import (
    EVALUATION_BATCH,
    Objective,
    Training,
    build_net,
    make_batches,
    prepare,
    to_device,
)
from torch_ref.training.devices import switches
from torch_ref.training.recipes import DEFAULTS, DOCUMENTS

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
    "to_device",
    "train_epoch",
    "train_step",
]

CHECK_EVERY = 20  # batches between two looks at the loss
CHECK_TOGETHER = 4  # the same where there are several processes, who also ask whether to stop


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy, and the predicted class of every image, int64 (N,)."""

    loss: float
    accuracy: float
    predicted: np.ndarray


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update from `count` images, over all processes; returns the summed loss and hits of this
    one, unread.

    The gradient is that of the sum over images, and the optimizer divides it by their number, as
    Gluon's `Trainer.step(batch)` does.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, hits, _ = objective(x, y)
    total = loss.sum()
    total.backward()
    for group in optimizer.param_groups:
        group["rescale_grad"] = 1.0 / count
    optimizer.step()
    return total.detach(), hits.sum()


def train_epoch(training: Training, done: Partial, monitor: Monitor, stop: Stop) -> Partial:
    """The rest of an epoch, or its updates until a stop is requested; returns what is done then.

    Raises: CommandError where the loss is no number any more, within `CHECK_EVERY` batches.
    """
    config, batches, optimizer = training.config, training.train, training.optimizer
    peers, epoch, draws = training.peers, done.epoch, draws_masks(training.net)
    check_every = CHECK_EVERY if peers.count == 1 else CHECK_TOGETHER
    training.objective.train()
    rates = epoch_rates(config, epoch, len(batches))[done.steps :]
    unread: list[tuple[torch.Tensor, torch.Tensor]] = []
    for rate, (x, y) in zip(rates, batches.epoch(epoch, done.steps), strict=True):
        step = done.steps + len(unread)
        if draws:  # every process drops other values
            torch.manual_seed(step_seed(config.seed + peers.rank * 100_003, epoch, step))
        for group in optimizer.param_groups:
            group["lr"] = rate
        moved = to_device(x.astype(training.dtype, copy=False), y, training.device)
        count = batches.global_size(step)
        unread.append(train_step(training.together, optimizer, *moved, count))
        stopping = stop.requested and peers.count == 1
        if len(unread) == check_every or step + 1 == len(batches) or stopping:
            # Processes stop at the same step, or some would wait for the gradients of the others.
            sums = [float(stop.requested), *(float(part) for parts in unread for part in parts)]
            requested, *sums = peers.total(sums)
            stopping = requested > 0
            for loss, hits in zip(sums[::2], sums[1::2], strict=True):
                done = done.after(1, batches.global_size(done.steps), loss, hits)
            unread.clear()
            require_finite(done.loss_sum, f"by batch {done.steps}", config, epoch)
            monitor.progress(done.images, done.loss_sum / done.images, done.hit_sum / done.images)
        if stopping:
            break
    processes.agree_on_statistics(peers, training.net)
    return done


def draws_masks(net: nn.Module) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded."""
    return any(isinstance(module, nn.Dropout) for module in net.modules())


def evaluate(
    objective: Objective,
    batches: Batches,
    where: torch.device,
    stop: Stop | None = None,
    dtype: str = "float32",
) -> Evaluation:
    """Mean loss, accuracy and predictions over a split, in inference mode.

    Raises: Stopped where a stop is requested meanwhile.
    """
    objective.eval()
    loss_sum, hit_sum, predicted = [], [], []
    with torch.inference_mode():
        for x, y in (stop or Stop()).watch(batches.epoch(0)):
            loss, hits, winners = objective(*to_device(x.astype(dtype, copy=False), y, where))
            loss_sum.append(loss.sum())
            hit_sum.append(hits.sum())
            predicted.append(winners)
    count = sum(len(part) for part in predicted)
    return Evaluation(
        loss=sum(float(part) for part in loss_sum) / count,
        accuracy=sum(float(part) for part in hit_sum) / count,
        predicted=torch.cat(predicted).cpu().numpy(),
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
    checkpoint.load_last(path, state, training.net, training.optimizer)
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

    `start` is what `resume` returned. Leaves `best.safetensors`, `last/`, `previous/` and
    `predictions.png` in the folder. Raises: CommandError where the loss is no number any more, or
    the folder cannot be written; Interrupted where `stop` was requested; DataError.
    """
    net, optimizer = training.net, training.optimizer
    monitor, stop = monitor or Silent(), stop or Stop()

    def train(done: Partial) -> Partial:
        with processes.joined(training.peers):
            return train_epoch(training, done, monitor, stop)

    def test() -> tuple[float, float]:
        result = evaluate(training.objective, training.test, training.device, stop, training.dtype)
        return result.loss, result.accuracy

    def predict(split: ArraySplit) -> np.ndarray:
        batches = Batches(split, len(split), training.test.pixels)
        return evaluate(
            training.objective, batches, training.device, dtype=training.dtype
        ).predicted

    def save_last(progress: Progress) -> None:
        state = state_of(training.config, progress, len(training.train))
        checkpoint.save_last(folder, net, optimizer, state)

    if start is not None:
        processes.share_training(training.peers, net, optimizer)
    rows = run_epochs(
        training.config,
        len(training.dataset.train),
        start or Progress(),
        train_epoch=train,
        evaluate=test,
        save_best=lambda: checkpoint.save_best(folder, net),
        save_last=save_last,
        monitor=monitor,
        stop=stop,
    )
    save_predictions(folder, training.dataset, predict)
    return rows


def follow(training: Training, start: Progress, stop: Stop) -> None:
    """Train as a process that does not lead: no evaluation, no files.

    Raises: CommandError where the loss is no number any more or another process is gone; DataError.
    """
    stop.hold()  # torchrun signals all of them: what the leader does about it decides
    with processes.joined(training.peers):
        if start.rows or start.partial is not None:
            processes.share_training(training.peers, training.net, training.optimizer)
        follow_epochs(
            training.config,
            start,
            len(training.train),
            lambda done: train_epoch(training, done, Silent(), Stop()),
        )


FRAMEWORK = Framework(
    name="torch",
    environment=checkpoint.environment,
    models=MODELS,
    documents=DOCUMENTS,
    defaults=DEFAULTS,
    prepare=prepare,
    resume=resume,
    fit=fit,
    switches=switches,
    join=lambda ctx: processes.join(),
    follow=follow,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(
        lambda: train_command(FRAMEWORK, argv, "python -m torch_ref.train"),
        errors=(DataError, ModelError),
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
