"""The training loop of the source script (doc-2), in torch, with its numbers read in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnn_data import Batches
from cnn_harness.epochs import EpochSteps, Evaluation, follow_epochs, run_epochs, save_predictions
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial, Progress
from cnn_harness.runfolder import RunFolder
from torch_ref.training import checkpoint
from torch_ref.training.assembly import Objective, Training, to_device

__all__ = ["evaluate", "fit", "follow", "load", "train_epoch", "train_step"]


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

    Raises: CommandError where the loss is not finite any more.
    """
    optimizer, draws = training.optimizer, _draws_masks(training.net)
    steps = EpochSteps(
        training.config, training.train, training.peers, done, monitor, stop, _read_sums
    )
    training.objective.train()
    for rate, x, y, count in steps:
        if draws:
            torch.manual_seed(steps.seed)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = to_device(x.astype(training.dtype, copy=False), y, training.device)
        steps.add(train_step(training.together, optimizer, *batch, count))
    training.peers.agree_on_statistics(training.net)
    return steps.done


def evaluate(
    objective: Objective,
    batches: Batches,
    device: torch.device,
    stop: Stop | None = None,
    dtype: str = "float32",
) -> Evaluation:
    """Mean loss, accuracy and predictions over a split, in inference mode.

    Raises: Stopped where a stop is requested meanwhile.
    """
    objective.eval()
    loss_sums, hit_sums, predicted = [], [], []
    with torch.inference_mode():
        for x, y in (stop or Stop()).watch(batches.epoch(0)):
            loss, hits, winners = objective(*to_device(x.astype(dtype, copy=False), y, device))
            loss_sums.append(loss.sum())
            hit_sums.append(hits.sum())
            predicted.append(winners)
    count = sum(map(len, predicted))
    return Evaluation(
        loss=sum(map(float, loss_sums)) / count,
        accuracy=sum(map(float, hit_sums)) / count,
        predicted=torch.cat(predicted).cpu().numpy(),
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

    `start` is how far the loaded checkpoint had come. Leaves `best.safetensors`, `last/`,
    `previous/` and `predictions.png` in the folder. Raises: CommandError where the loss is not
    finite any more, or the folder cannot be written; Interrupted where `stop` was requested;
    DataError.
    """
    net, optimizer, objective = training.net, training.optimizer, training.objective
    monitor, stop = monitor or Monitor(), stop or Stop()

    def train(done: Partial) -> Partial:
        with training.peers.joined():
            return train_epoch(training, done, monitor, stop)

    def test(batches: Batches, stop: Stop | None = None) -> Evaluation:
        return evaluate(objective, batches, training.device, stop, training.dtype)

    if start is not None:
        training.peers.share_training(net, optimizer)
    rows = run_epochs(
        training.config,
        training.train,
        start or Progress(),
        train_epoch=train,
        evaluate=lambda: test(training.test, stop),
        save_best=lambda: checkpoint.save_best(folder, net),
        save_last=lambda state: checkpoint.save_last(folder, net, optimizer, state),
        monitor=monitor,
        stop=stop,
    )
    save_predictions(folder, training.test, training.dataset.class_names, test)
    return rows


def follow(training: Training, start: Progress, stop: Stop) -> None:
    """Train as a process that does not lead: no evaluation, no files.

    Raises: CommandError where the loss is not finite any more or another process is gone;
    DataError.
    """
    stop.hold()  # torchrun signals all of them: what the leader does about it decides
    with training.peers.joined():
        if start.rows or start.partial is not None:
            training.peers.share_training(training.net, training.optimizer)
        follow_epochs(
            training.config,
            training.train,
            start,
            lambda done: train_epoch(training, done, Monitor(), Stop()),
        )


def load(training: Training, path: Path, state: dict[str, Any]) -> None:
    """Put net and optimizer where the checkpoint in the folder `path`, with this state, left them.

    Raises: CommandError where its files are those of another net or optimizer.
    """
    checkpoint.load_last(path, state, training.net, training.optimizer)


def _draws_masks(net: nn.Module) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded."""
    return any(isinstance(module, nn.Dropout) for module in net.modules())


def _read_sums(sums: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    loss, hits = sums
    return float(loss), float(hits)
