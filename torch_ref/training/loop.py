"""The training loop of the source script (doc-2), in torch, with its numbers read in bulk."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnn_data import Batches
from cnn_harness.epochs import EpochSteps, Evaluation, follow_epochs, run_epochs, save_predictions
from cnn_harness.errors import CommandError
from cnn_harness.jobs.stop import Interrupted, Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial, Progress
from cnn_harness.runfolder import RunFolder
from torch_ref.training import checkpoint
from torch_ref.training.assembly import Objective, Training, to_device
from torch_ref.training.gradients import accumulate, clip_norm
from torch_ref.training.pretrained import train_mode

__all__ = ["evaluate", "fit", "follow", "load", "train_epoch", "train_step"]


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    count: int,
    clip: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update from `count` images, over all processes; returns the summed loss and hits of this
    one, unread.

    `batches` are the parts of a batch that are computed one after the other. The gradient is
    clipped to a norm of `clip`, unless that is 0. It is that of the sum over images, and the
    optimizer divides it by their number, as Gluon's `Trainer.step(batch)` does.
    """
    optimizer.zero_grad(set_to_none=True)
    loss_sums, hit_sums = [], []
    for x, y in accumulate(objective, batches):
        loss, hits, _ = objective(x, y)
        total = loss.sum()
        total.backward()
        loss_sums.append(total.detach())
        hit_sums.append(hits.sum())
    if clip:
        clip_norm(optimizer, clip * count)
    for group in optimizer.param_groups:
        group["rescale_grad"] = 1.0 / count
    optimizer.step()
    return torch.stack(loss_sums), torch.stack(hit_sums)


def train_epoch(training: Training, done: Partial, monitor: Monitor, stop: Stop) -> Partial:
    """The rest of an epoch, or its updates until a stop is requested; returns what is done then.

    Raises: CommandError where the loss is not finite any more.
    """
    config, optimizer, draws = training.config, training.optimizer, _draws_masks(training.net)
    steps = EpochSteps(config, training.train, training.peers, done, monitor, stop, _read_sums)
    train_mode(training.objective)
    for rate, x, y, count in steps:
        if draws:
            torch.manual_seed(steps.seed)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        x = x.astype(training.dtype, copy=False)
        parts = (to_device(*part, training.device) for part in steps.parts(x, y))
        steps.add(train_step(training.together, optimizer, parts, count, config.clip_grad))
        if training.average is not None:
            training.average.update(steps.update)
    training.peers.agree_on_statistics(training.net)
    return steps.done


def evaluate(
    objective: Objective,
    batches: Batches,
    device: torch.device,
    stop: Stop | None = None,
    dtype: str = "float32",
) -> Evaluation:
    """Mean loss, accuracies and predictions over a split, in inference mode.

    `objective` is one that `ranks`. Raises: Stopped where a stop is requested meanwhile.
    """
    objective.eval()
    loss_sums, hit_sums, top_sums, predicted = [], [], [], []
    with torch.inference_mode():
        for x, y in (stop or Stop()).watch(batches.epoch(0)):
            loss, hits, winners, among_top = objective(
                *to_device(x.astype(dtype, copy=False), y, device)
            )
            loss_sums.append(loss.sum())
            hit_sums.append(hits.sum())
            top_sums.append(among_top.sum())
            predicted.append(winners)
    count = sum(map(len, predicted))
    return Evaluation(
        loss=sum(map(float, loss_sums)) / count,
        accuracy=sum(map(float, hit_sums)) / count,
        top5=sum(map(float, top_sums)) / count,
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
    net, optimizer, average = training.net, training.optimizer, training.average
    monitor, stop = monitor or Monitor(), stop or Stop()
    judged = nullcontext if average is None else average.in_place

    def train(done: Partial) -> Partial:
        with training.peers.joined():
            return train_epoch(training, done, monitor, stop)

    def test(batches: Batches, stop: Stop | None = None) -> Evaluation:
        with judged():
            return evaluate(training.evaluation, batches, training.device, stop, training.dtype)

    def save_best() -> None:
        with judged():
            checkpoint.save_best(folder, net)

    if start is not None:
        training.peers.share_training(net, optimizer)
    rows = run_epochs(
        training.config,
        training.train,
        start or Progress(),
        train_epoch=train,
        evaluate=lambda: test(training.test, stop),
        save_best=save_best,
        save_last=lambda state: checkpoint.save_last(folder, net, optimizer, state, average),
        peers=training.peers,
        monitor=monitor,
        stop=stop,
    )
    save_predictions(folder, training.test, training.dataset.class_names, test)
    return rows


def follow(training: Training, start: Progress, stop: Stop) -> None:
    """Train as a process that does not lead: no evaluation, no files.

    Raises: CommandError where the loss is not finite any more or another process is gone;
    Interrupted where the leader left since `stop` was requested; DataError.
    """
    stop.hold()  # torchrun signals all of them: what the leader does about it decides
    try:
        with training.peers.joined():
            if start.rows or start.partial is not None:
                training.peers.share_training(training.net, training.optimizer)
            follow_epochs(
                training.config,
                training.train,
                start,
                lambda done: train_epoch(training, done, Monitor(), Stop()),
                training.peers,
            )
    except CommandError:
        if stop.signal is None:
            raise
        raise Interrupted(stop.signal, ", as process 0 was") from None


def load(training: Training, path: Path, state: dict[str, Any]) -> None:
    """Put net and optimizer where the checkpoint in the folder `path`, with this state, left them.

    Raises: CommandError where its files are those of another net or optimizer.
    """
    checkpoint.load_last(path, state, training.net, training.optimizer, training.average)


def _draws_masks(net: nn.Module) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded."""
    return any(isinstance(module, nn.Dropout) for module in net.modules())


def _read_sums(sums: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    losses, hits = sums
    return float(losses.double().sum()), float(hits.sum())
