"""What a run is made of: the net and its objective, optimizer, batches, device, processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cnn_data import Batches, Dataset, pixels
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.initial import Pretrained, initial_arrays
from cnn_harness.jobs.peers import Peers
from torch_ref.models import ClassicCNN, get_model
from torch_ref.optim import SGD, Adam
from torch_ref.training.average import Average
from torch_ref.training.devices import find_device
from torch_ref.training.losses import loss_for
from torch_ref.training.pretrained import freeze, set_weights
from torch_ref.training.workers import ALONE, Alone
from torch_ref.transfer import to_gluon, to_torch

__all__ = [
    "EVALUATION_BATCH",
    "TOP",
    "Objective",
    "Training",
    "build_net",
    "class_ranks",
    "make_batches",
    "make_optimizer",
    "prepare",
    "set_first_weights",
    "to_device",
]

EVALUATION_BATCH = 256
TOP = 5  # the k of top-k accuracy
FIXED = ("running_mean", "running_var", "bitmaps")  # not drawn: they start as the layer has them


class Objective(nn.Module):
    """Net, loss and hits: (x, y) -> (loss, hits, predicted), each (N,).

    Under `ranks` there is a fourth, whether the right class is among the `TOP` best. Soft labels y
    are (N, classes), the class with the largest share is right.
    """

    def __init__(
        self,
        net: ClassicCNN,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        *,
        ranks: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss_for(net) if loss is None else loss
        self._ranks = ranks

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.net(x)
        winner = torch.argmin if self.net.smallest_wins else torch.argmax
        predicted = winner(outputs.detach(), dim=1)
        label = y.argmax(dim=1) if y.dim() == 2 else y
        results = self.loss(outputs, y), predicted == label, predicted
        if not self._ranks:
            return results
        return (*results, class_ranks(outputs.detach(), label, self.net.smallest_wins) < TOP)


def class_ranks(outputs: torch.Tensor, label: torch.Tensor, smallest_wins: bool) -> torch.Tensor:
    """The place of the right class (N,), from 0; equal outputs stand in the order of classes."""
    order = outputs.argsort(dim=1, descending=not smallest_wins, stable=True)
    return (order == label[:, None]).long().argmax(dim=1)


def set_first_weights(net: ClassicCNN, initialiser: str, seed: int) -> None:
    """Give the trainable parameters the values drawn from the seed, as Gluon's are."""
    # First weights are drawn by Gluon's names, so that both frameworks draw the same. A BatchNorm
    # is known by its statistics, so that all of the state is named before they are left out.
    named = to_gluon({name: value.numpy() for name, value in net.state_dict().items()})
    shapes = {n: a.shape for n, a in named.items() if n.rpartition(".")[2] not in FIXED}
    first = to_torch(initial_arrays(shapes, initialiser, seed))
    net.load_state_dict({n: torch.from_numpy(a) for n, a in first.items()}, strict=False)


def build_net(
    config: TrainConfig,
    dataset: Dataset,
    device: torch.device,
    dtype: str = "float32",
    pretrained: Pretrained | None = None,
) -> ClassicCNN:
    """The configured net for this dataset, its weights drawn from the seed as Gluon's are, and
    taken from `pretrained` where they fit.

    Raises: ModelError where the images are too small for it, or the classes too many; UsageError
    where no pretrained weights fit, or nothing is left to train.
    """
    height, width, channels = dataset.shape
    if height != width:
        raise CommandError(
            f"{dataset.name} has images of {height}×{width}, expected square ones: "
            f"pass --image-size {max(height, width)}"
        )
    net = get_model(config.model, len(dataset.class_names), channels, height)
    set_first_weights(net, config.initialiser, config.seed)
    if pretrained is not None:
        set_weights(net, pretrained, config.init_lr_scale)
    kept = freeze(net, config.freeze)
    if pretrained is not None:
        pretrained.note_frozen(sorted(kept))
    return net.to(device, getattr(torch, dtype))


def make_optimizer(net: ClassicCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer, by MXNet's update rules, over all parameters of the net.

    What was loaded is a group of its own, whose `lr_scale` multiplies the rate.
    """
    by_scale: dict[float, list[nn.Parameter]] = {}
    for parameter in net.parameters():
        by_scale.setdefault(getattr(parameter, "lr_scale", 1.0), []).append(parameter)
    groups = [{"params": params, "lr_scale": scale} for scale, params in by_scale.items()]
    if config.optimizer == "adam":
        return Adam(groups, lr=config.lr, wd=config.wd)
    return SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        wd=config.wd,
        nesterov=config.nesterov,
    )


@dataclass(frozen=True)
class Training:
    """A run that is ready to start: everything that could be refused has been checked."""

    config: TrainConfig
    dataset: Dataset
    device: torch.device
    net: ClassicCNN
    optimizer: torch.optim.Optimizer
    objective: Objective
    evaluation: Objective  # on labels as they are, whatever the objective is trained on
    average: Average | None  # of the weights, where it is evaluated instead of them
    together: nn.Module  # the objective, with gradients summed over all processes
    train: Batches
    test: Batches
    peers: Alone = ALONE
    dtype: str = "float32"


def make_batches(
    config: TrainConfig, dataset: Dataset, peers: Peers = ALONE
) -> tuple[Batches, Batches]:
    """The training batches of a run, of which each process sees its part, and the test batches."""
    prepared = pixels(config.normalise, dataset.mean, dataset.std)
    train = Batches(
        dataset.train,
        config.batch_size,
        prepared,
        augment=config.augment,
        mixup=config.mixup,
        classes=len(dataset.class_names),
        shuffle=True,
        seed=config.seed,
        shard=(peers.rank, peers.count),
    )
    return train, Batches(dataset.test, EVALUATION_BATCH, prepared)


def prepare(
    config: TrainConfig,
    dataset: Dataset,
    ctx: str = "auto",
    peers: Alone = ALONE,
    *,
    dtype: str = "float32",
    pretrained: Pretrained | None = None,
) -> Training:
    """Build net, optimizer and batches; writes nothing.

    Raises: UsageError for a device that is not there, ModelError, DataError, CommandError.
    """
    device = find_device(ctx)
    net = build_net(config, dataset, device, dtype, pretrained)
    objective = Objective(net, loss_for(net, config.label_smoothing, config.mixup > 0))
    evaluation = Objective(net, ranks=True)
    optimizer, together = make_optimizer(net, config), peers.together(objective)
    average = Average(net, config.ema) if config.ema and peers.rank == 0 else None
    train, test = make_batches(config, dataset, peers)
    return Training(
        config, dataset, device, net, optimizer, objective, evaluation, average, together, train,
        test, peers, dtype,
    )  # fmt: skip


def to_device(
    x: np.ndarray, y: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch on its device; labels become int64, shares of classes the dtype of the images."""
    labels = y.astype(np.int64 if y.ndim == 1 else x.dtype, copy=False)
    return torch.from_numpy(x).to(device), torch.from_numpy(labels).to(device)
