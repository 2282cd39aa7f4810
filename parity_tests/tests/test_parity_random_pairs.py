"""Random nets of a few operations, each spelt at random on either side: equal, and with one fault.

Every operation has several spellings for each framework, and a torch function that is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised

CHANNELS, SIDE = 4, 6
IMAGES = np.random.default_rng(3).standard_normal((2, CHANNELS, SIDE, SIDE)).astype(np.float32)
LABELS = np.array([1, 3])

Layers = tuple[Callable[[], Any], Callable[[], Any]]


@dataclass(frozen=True)
class Words:
    """One operation on maps of one shape: `ours(F, layer, x)`, `theirs(layer, x)`, and a fault."""

    ours: tuple[Callable[..., Any], ...]
    theirs: tuple[Callable[..., Any], ...]
    fault: Callable[..., Any]
    layers: Layers | None = None


def _by_rows(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.t() + layer.bias


def _gate(F_: Any, x: Any) -> Any:
    return F_.broadcast_mul(x, F_.sigmoid(F_.max(x, axis=1, keepdims=True)))


WORDS = {
    "conv": Words(
        (lambda F_, layer, x: layer(x),),
        (
            lambda layer, x: layer(x),
            lambda layer, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), layer.weight, layer.bias, groups=2),
        ),
        lambda layer, x: F.conv2d(x, layer.weight, None, padding=1, groups=2),
        (
            lambda: gnn.Conv2D(CHANNELS, 3, padding=1, groups=2, in_channels=CHANNELS),
            lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2),
        ),
    ),
    "rows": Words(
        (lambda F_, layer, x: layer(x),),
        (
            lambda layer, x: layer(x),
            _by_rows,
        ),
        lambda layer, x: F.linear(x, -layer.weight, layer.bias),
        (
            lambda: gnn.Dense(SIDE, flatten=False, in_units=SIDE),
            lambda: nn.Linear(SIDE, SIDE),
        ),
    ),
    "norm": Words(
        (lambda F_, layer, x: layer(x),),
        (lambda layer, x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),),
        lambda layer, x: layer(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1) * 1.01,
        (
            lambda: gnn.LayerNorm(axis=1, in_channels=CHANNELS),
            lambda: nn.LayerNorm(CHANNELS),
        ),
    ),
    "number": Words(
        (lambda F_, _, x: x * 0.1, lambda F_, _, x: F_.broadcast_mul(x, F_.ones_like(x) * 0.1)),
        (
            lambda _, x: x * 0.1,
            lambda _, x: x * torch.full_like(x, 0.1),
            lambda _, x: torch.tensor(0.1) * x,
            lambda _, x: x / 10,
        ),
        lambda _, x: x * torch.full_like(x, 0.1001),
    ),
    "gelu": Words(
        (lambda F_, _, x: F_.LeakyReLU(x, act_type="gelu"),),
        (lambda _, x: F.gelu(x),),
        lambda _, x: F.gelu(x, approximate="tanh"),
    ),
    "gate": Words(
        (lambda F_, _, x: _gate(F_, F_.relu(x)),),
        (
            lambda _, x: (y := x.relu()) * y.amax(1, keepdim=True).sigmoid(),
            lambda _, x: (y := F.relu(x)) * torch.sigmoid(y.max(1, keepdim=True).values),
        ),
        lambda _, x: (y := x.relu()) * y.mean(1, keepdim=True).sigmoid(),
    ),
    "turned": Words(
        (
            lambda F_, _, x: F_.transpose(x, axes=(0, 1, 3, 2)),
            lambda F_, _, x: F_.swapaxes(x, 2, 3),
        ),
        (lambda _, x: x.mT, lambda _, x: x.permute(0, 1, 3, 2)),
        lambda _, x: x.flip(2),
    ),
    "shortcut": Words(
        (lambda F_, layer, x: x - layer(x),),
        (lambda layer, x: x - layer(x), lambda layer, x: torch.add(x, layer(x), alpha=-1)),
        lambda layer, x: layer(x) - x,
        (
            lambda: gnn.Conv2D(CHANNELS, 1, in_channels=CHANNELS),
            lambda: nn.Conv2d(CHANNELS, CHANNELS, 1),
        ),
    ),
}


def random_pair(seed: int, fault: bool) -> tuple[GluonNet, TorchNet, str]:
    """Two nets, and the operation that is another one in torch's; empty: none is."""
    generator = np.random.default_rng(seed)
    names = [str(name) for name in generator.choice(list(WORDS), generator.integers(3, 8))]
    wrong = int(generator.integers(len(names))) if fault else -1

    def chosen(spellings: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
        return spellings[generator.integers(len(spellings))]

    ours = [chosen(WORDS[name].ours) for name in names]
    theirs = [chosen(WORDS[name].theirs) for name in names]
    if fault:
        theirs[wrong] = WORDS[names[wrong]].fault
    layers = {f"l{i}": WORDS[name].layers for i, name in enumerate(names)}
    made = {name: both for name, both in layers.items() if both is not None}
    last = CHANNELS * SIDE * SIDE

    def in_gluon(s: Any, F_: Any, x: Any) -> Any:
        for i, step in enumerate(ours):
            x = step(F_, getattr(s, f"l{i}", None), x)
        return s.head(x)

    def in_torch(s: Any, x: torch.Tensor) -> Any:
        for i, step in enumerate(theirs):
            x = step(getattr(s, f"l{i}", None), x)
        return s.head(x.flatten(1))

    gluon_net = GluonNet(
        in_gluon, head=gnn.Dense(5, in_units=last), **{n: both[0]() for n, both in made.items()}
    )
    turned = reversed(made.items()) if generator.integers(2) else made.items()
    torch_net = TorchNet(in_torch, **{n: both[1]() for n, both in turned}, head=nn.Linear(last, 5))
    return gluon_net, torch_net, names[wrong] if fault else ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_random_nets_are_in_parity_whatever_their_words(seed: int) -> None:
    gluon_net, torch_net, _ = random_pair(seed, False)
    levels = ("structure", "weights", "forward", "backward", "training")
    how: dict[str, Any] = {"optimizer": "sgd(lr=0.01)", "transfer": True, "steps": 2}
    report = check_parity(initialised(gluon_net, IMAGES), torch_net, IMAGES, LABELS, levels, **how)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_one_fault_in_a_random_net_is_found(seed: int) -> None:
    gluon_net, torch_net, name = random_pair(seed, True)
    report = check_parity(initialised(gluon_net, IMAGES), torch_net, IMAGES, transfer=True)
    assert not report.ok, name
