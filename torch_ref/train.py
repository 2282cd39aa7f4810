"""The mirror of `gluon_cnn.train`: same flags, batches, first weights, files and metrics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    if __name__ == "__main__":
        sys.exit(
            "error: torch is not installed, and the mirror runs on it: pip install -e '.[torch]'"
        )
    raise
from torch import nn

from data import ArraySplit, Batches, DataError, Dataset, pixels
from harness.cli import run
from harness.config import TrainConfig
from harness.epochs import epoch_rates, require_finite, run_epochs, save_predictions
from harness.errors import CommandError
from harness.initial import initial_arrays
from harness.monitor import Monitor, Silent
from harness.progress import Partial, Progress, read_progress, state_of, step_seed
from harness.runfolder import RunFolder
from harness.stop import Stop
from harness.train_command import Framework, train_command
from torch_ref import checkpoint
from torch_ref.devices import device
from torch_ref.losses import loss_for
from torch_ref.models import MODELS, ClassicCNN, ModelError, get_model
from torch_ref.optim import SGD, Adam
from torch_ref.recipes import DEFAULTS, DOCUMENTS
from torch_ref.transfer import to_gluon, to_torch

__all__ = [
    "Evaluation",
    "Objective",
    "Training",
    "build_net",
    "draws_masks",
    "evaluate",
    "fit",
    "main",
    "make_batches",
    "prepare",
    "resume",
    "to_device",
    "train_epoch",
    "train_step",
]

CHECK_EVERY = 20  # batches between two looks at the loss
EVALUATION_BATCH = 256
FIXED = ("running_mean", "running_var", "bitmaps")  # not drawn: they start as the layer has them


class Objective(nn.Module):
    """Net, loss and hits: (x, y) -> (loss, hits, predicted), each (N,)."""

    def __init__(self, net: ClassicCNN) -> None:
        super().__init__()
        self.net = net
        self.loss = loss_for(net)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        outputs = self.net(x)
        winner = torch.argmin if self.net.smallest_wins else torch.argmax
        predicted = winner(outputs.detach(), dim=1)
        return self.loss(outputs, y), predicted == y, predicted


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy, and the predicted class of every image, int64 (N,)."""

    loss: float
    accuracy: float
    predicted: np.ndarray


@dataclass(frozen=True)
class Training:
    """A run that is ready to start: everything that could be refused has been checked."""

    config: TrainConfig
    dataset: Dataset
    device: torch.device
    net: ClassicCNN
    optimizer: torch.optim.Optimizer
    objective: Objective
    train: Batches
    test: Batches


def build_net(config: TrainConfig, dataset: Dataset, where: torch.device) -> ClassicCNN:
    """The configured net for this dataset, its weights drawn from the seed as Gluon's are.

    Raises: ModelError where the images are too small for it, or the classes too many.
    """
    height, width, channels = dataset.shape
    if height != width:
        raise CommandError(
            f"{dataset.name} has images of {height}×{width}, expected square ones: "
            f"pass --image-size {max(height, width)}"
        )
    net = get_model(config.model, len(dataset.class_names), channels, height)
    # First weights are drawn by Gluon's names, so that both frameworks draw the same. A BatchNorm
    # is known by its statistics, so that all of the state is named before they are left out.
    named = to_gluon({name: value.numpy() for name, value in net.state_dict().items()})
    shapes = {n: a.shape for n, a in named.items() if n.rpartition(".")[2] not in FIXED}
    first = to_torch(initial_arrays(shapes, config.initialiser, config.seed))
    net.load_state_dict({n: torch.from_numpy(a) for n, a in first.items()}, strict=False)
    return net.to(where)


def make_optimizer(net: ClassicCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer, by MXNet's update rules, over all parameters of the net."""
    if config.optimizer == "adam":
        return Adam(net.parameters(), lr=config.lr, wd=config.wd)
    return SGD(
        net.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        wd=config.wd,
        nesterov=config.nesterov,
    )


def make_batches(config: TrainConfig, dataset: Dataset) -> tuple[Batches, Batches]:
    """The training and the test batches of a run, as the framework's loops will see them."""
    prepared = pixels(config.normalise, dataset.mean, dataset.std)
    train = Batches(
        dataset.train,
        config.batch_size,
        prepared,
        augment=config.augment,
        shuffle=True,
        seed=config.seed,
    )
    return train, Batches(dataset.test, EVALUATION_BATCH, prepared)


def prepare(config: TrainConfig, dataset: Dataset, ctx: str = "auto") -> Training:
    """Build net, optimizer and batches; writes nothing.

    Raises: UsageError for a device that is not there, ModelError, DataError, CommandError.
    """
    where = device(ctx)
    net = build_net(config, dataset, where)
    train, test = make_batches(config, dataset)
    return Training(
        config=config,
        dataset=dataset,
        device=where,
        net=net,
        optimizer=make_optimizer(net, config),
        objective=Objective(net),
        train=train,
        test=test,
    )


def train_step(
    objective: Objective, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update; returns the summed loss and hits, unread.

    The gradient is that of the sum over images, and the optimizer divides it by their number, as
    Gluon's `Trainer.step(batch)` does.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, hits, _ = objective(x, y)
    total = loss.sum()
    total.backward()
    for group in optimizer.param_groups:
        group["rescale_grad"] = 1.0 / len(x)
    optimizer.step()
    return total.detach(), hits.sum()


def train_epoch(training: Training, done: Partial, monitor: Monitor, stop: Stop) -> Partial:
    """The rest of an epoch, or its updates until a stop is requested; returns what is done then.

    Raises: CommandError where the loss is no number any more, within `CHECK_EVERY` batches.
    """
    config, batches, optimizer = training.config, training.train, training.optimizer
    epoch, draws = done.epoch, draws_masks(training.net)
    training.objective.train()
    rates = epoch_rates(config, epoch, len(batches))[done.steps :]
    unread: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    for rate, (x, y) in zip(rates, batches.epoch(epoch, done.steps), strict=True):
        if draws:
            torch.manual_seed(step_seed(config.seed, epoch, done.steps + len(unread)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        moved = to_device(x, y, training.device)
        unread.append((len(x), *train_step(training.objective, optimizer, *moved)))
        stopping = stop.requested
        if len(unread) == CHECK_EVERY or done.steps + len(unread) == len(batches) or stopping:
            for count, loss, hits in unread:
                done = done.after(1, count, float(loss), float(hits))
            unread.clear()
            require_finite(done.loss_sum, f"by batch {done.steps}", config, epoch)
            monitor.progress(done.images, done.loss_sum / done.images, done.hit_sum / done.images)
        if stopping:
            break
    return done


def draws_masks(net: nn.Module) -> bool:
    """Whether an update of the net draws random numbers, so that it has to be seeded."""
    return any(isinstance(module, nn.Dropout) for module in net.modules())


def to_device(
    x: np.ndarray, y: np.ndarray, where: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(x).to(where), torch.from_numpy(y.astype(np.int64)).to(where)


def evaluate(
    objective: Objective, batches: Batches, where: torch.device, stop: Stop | None = None
) -> Evaluation:
    """Mean loss, accuracy and predictions over a split, in inference mode.

    Raises: Stopped where a stop is requested meanwhile.
    """
    objective.eval()
    loss_sum, hit_sum, predicted = [], [], []
    with torch.inference_mode():
        for x, y in (stop or Stop()).watch(batches.epoch(0)):
            loss, hits, winners = objective(*to_device(x, y, where))
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

    def test() -> tuple[float, float]:
        result = evaluate(training.objective, training.test, training.device, stop)
        return result.loss, result.accuracy

    def predict(split: ArraySplit) -> np.ndarray:
        batches = Batches(split, len(split), training.test.pixels)
        return evaluate(training.objective, batches, training.device).predicted

    def save_last(progress: Progress) -> None:
        state = state_of(training.config, progress, len(training.train))
        checkpoint.save_last(folder, net, optimizer, state)

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


FRAMEWORK = Framework(
    name="torch",
    environment=checkpoint.environment,
    models=MODELS,
    documents=DOCUMENTS,
    defaults=DEFAULTS,
    prepare=prepare,
    resume=resume,
    fit=fit,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(
        lambda: train_command(FRAMEWORK, argv, "python -m torch_ref.train"),
        errors=(DataError, ModelError),
    )


if __name__ == "__main__":
    sys.exit(main())
