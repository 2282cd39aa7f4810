"""What a run is made of: the net and its objective, optimizer, batches, device, processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cnn_data import Batches, Dataset, pixels
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.initial import initial_arrays
from cnn_harness.jobs.peers import Peers
from torch_ref.models import ClassicCNN, get_model
from torch_ref.optim import SGD, Adam
from torch_ref.training.devices import find_device
from torch_ref.training.losses import loss_for
from torch_ref.training.workers import ALONE, Alone
from torch_ref.transfer import to_gluon, to_torch

__all__ = [
    "EVALUATION_BATCH",
    "Objective",
    "Training",
    "build_net",
    "make_batches",
    "make_optimizer",
    "prepare",
    "set_first_weights",
    "to_device",
]

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


def set_first_weights(net: ClassicCNN, initialiser: str, seed: int) -> None:
    """Give the trainable parameters the values drawn from the seed, as Gluon's are."""
    # First weights are drawn by Gluon's names, so that both frameworks draw the same. A BatchNorm
    # is known by its statistics, so that all of the state is named before they are left out.
    named = to_gluon({name: value.numpy() for name, value in net.state_dict().items()})
    shapes = {n: a.shape for n, a in named.items() if n.rpartition(".")[2] not in FIXED}
    first = to_torch(initial_arrays(shapes, initialiser, seed))
    net.load_state_dict({n: torch.from_numpy(a) for n, a in first.items()}, strict=False)


def build_net(
    config: TrainConfig, dataset: Dataset, device: torch.device, dtype: str = "float32"
) -> ClassicCNN:
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
    set_first_weights(net, config.initialiser, config.seed)
    return net.to(device, getattr(torch, dtype))


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


@dataclass(frozen=True)
class Training:
    """A run that is ready to start: everything that could be refused has been checked."""

    config: TrainConfig
    dataset: Dataset
    device: torch.device
    net: ClassicCNN
    optimizer: torch.optim.Optimizer
    objective: Objective
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
) -> Training:
    """Build net, optimizer and batches; writes nothing.

    Raises: UsageError for a device that is not there, ModelError, DataError, CommandError.
    """
    device = find_device(ctx)
    net = build_net(config, dataset, device, dtype)
    objective = Objective(net)
    optimizer, together = make_optimizer(net, config), peers.together(objective)
    train, test = make_batches(config, dataset, peers)
    return Training(
        config, dataset, device, net, optimizer, objective, together, train, test, peers, dtype
    )


def to_device(
    x: np.ndarray, y: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(x).to(device), torch.from_numpy(y.astype(np.int64)).to(device)
