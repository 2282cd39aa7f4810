"""What nets draw at random in training: drop path and noise in their spellings, and on the host."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon, nd
from torch import nn
from torch.nn import functional as F

from parity_tests import check_parity
from parity_tests.backends.draws import Live
from parity_tests.numerics.draws import Draw
from parity_tests.reporting.report import Report
from parity_tests.tests.pairing.nets import ImperativeNet, TorchNet, initialised, random_image

X = random_image(4, 3, 4, 4)
Forward = Callable[[Any], Any]
LEVELS = ("structure", "forward", "backward")


def compared(ours: Forward, theirs: Forward) -> Report:
    """Nets that do this to a convolution's output in training."""

    def gluon_forward(net: Any, x: Any) -> Any:
        y = net.c(x)
        y = ours(y) if mx.autograd.is_training() else y
        return net.d((x.sum(axis=1, keepdims=True) + y).tanh().mean(axis=(2, 3)))

    def torch_forward(net: Any, x: Any) -> Any:
        y = net.c(x)
        y = theirs(y) if net.training else y
        return net.d((x.sum(1, keepdim=True) + y).tanh().mean((2, 3)))

    layers = {"c": gluon.nn.Conv2D(4, 1, in_channels=3), "d": gluon.nn.Dense(2, in_units=4)}
    net = initialised(ImperativeNet(gluon_forward, **layers), X)
    other = TorchNet(torch_forward, c=nn.Conv2d(3, 4, 1), d=nn.Linear(4, 2))
    return check_parity(net, other, X, levels=LEVELS, transfer=True)


def below(p: float, shape: tuple[int, ...] = (4, 1, 1, 1)) -> Any:
    return nd.random.uniform(0, 1, shape=shape) < p


def shift_in_place(y: torch.Tensor) -> torch.Tensor:
    return y.div(0.8) * (0.8 + torch.rand(4, 1, 1, 1)).floor_()


def timm(y: torch.Tensor, keep: float = 0.8, scale: bool = True) -> torch.Tensor:
    mask = y.new_empty((y.shape[0], 1, 1, 1)).bernoulli_(keep)
    return y * (mask.div_(keep) if scale else mask)


GLUON: dict[str, Forward] = {
    "rows": lambda y: nd.broadcast_mul(y, below(0.8)) / 0.8,
    "rows, axes": lambda y: nd.Dropout(y, p=0.2, axes=(1, 2, 3)),
    "rows, of ones": lambda y: nd.broadcast_mul(y, nd.Dropout(nd.ones((4, 1, 1, 1)), p=0.2)),
    "rows, floor": lambda y: nd.broadcast_mul(
        y / 0.8, nd.floor(0.8 + nd.random.uniform(shape=(4,))).reshape((-1, 1, 1, 1))
    ),
    "rows of 0.7": lambda y: nd.broadcast_mul(y, below(0.7)) / 0.7,
    "rows, no scale": lambda y: nd.broadcast_mul(y, below(0.8)),
    "channels": lambda y: nd.broadcast_mul(y, below(0.8, (1, 4, 1, 1))) / 0.8,
    "maps": lambda y: nd.Dropout(y, p=0.2, axes=(2, 3)),
    "values": lambda y: y * (nd.random.uniform_like(y) < 0.8) / 0.8,
    "noise": lambda y: y + nd.random.normal_like(y) * 0.1,
    "noise, shape": lambda y: y + nd.random.normal(0, 0.1, shape=(4, 4, 4, 4)),
    "noise of 0.2": lambda y: y + nd.random.normal(0, 0.2, shape=(4, 4, 4, 4)),
    "two": lambda y: (y + nd.random.normal_like(y)) * nd.random.normal_like(y),
    "one": lambda y: (lambda noise: (y + noise) * noise)(nd.random.normal_like(y)),
    "nothing": lambda y: y,
}
TORCH: dict[str, Forward] = {
    "rows": timm,
    "rows, floor": shift_in_place,
    "rows, above": lambda y: y / 0.8 * (torch.rand(4, 1, 1, 1) > 0.2),
    "rows, flat": lambda y: y * torch.rand(4).lt(0.8).float().view(-1, 1, 1, 1) / 0.8,
    "rows, of ones": lambda y: y * F.dropout(torch.ones(4, 1, 1, 1), 0.2),
    "rows, of p": lambda y: y * torch.bernoulli(torch.full((4, 1, 1, 1), 0.8)) / 0.8,
    "maps": lambda y: F.dropout2d(y, 0.2),
    "values": lambda y: F.dropout(y, 0.2),
    "noise": lambda y: y + 0.1 * torch.randn_like(y),
    "noise, normal": lambda y: y + torch.normal(0.0, 0.1, y.shape),
    "noise, in place": lambda y: y + torch.empty_like(y).normal_(0, 0.1),
    "two": lambda y: (y + torch.randn_like(y)) * torch.randn_like(y),
    "uniform": lambda y: y + (torch.rand_like(y) - 0.5) * 0.1,
    "nothing": lambda y: y,
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("rows", "rows"),
        ("rows", "rows, above"),
        ("rows, axes", "rows, floor"),
        ("rows, of ones", "rows, flat"),
        ("rows, floor", "rows, of p"),
        ("rows", "rows, of ones"),
        ("maps", "maps"),
        ("values", "values"),
        ("noise", "noise, normal"),
        ("noise, shape", "noise"),
        ("noise, shape", "noise, in place"),
        ("two", "two"),
    ],
)
def test_one_draw_in_two_spellings_is_in_parity(ours: str, theirs: str) -> None:
    report = compared(GLUON[ours], TORCH[theirs])
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        ("rows of 0.7", "rows, above", "Gluon has 0.3, torch has 0.2 (p"),
        ("rows, no scale", "rows", "constant factor"),
        ("channels", "rows", "Gluon has (0, 2, 3), torch has (1, 2, 3) (axes"),
        ("rows, axes", "maps", "Gluon has (1, 2, 3), torch has (2, 3) (axes"),
        ("noise of 0.2", "noise", "Gluon has 0.2, torch has 0.1 (scale"),
        ("noise", "uniform", "random_normal"),
        ("noise", "nothing", "missing noise"),
        ("nothing", "noise", "additional noise"),
        ("nothing", "rows", "additional dropout"),
        ("one", "two", "reads other"),
    ],
)
def test_another_draw_is_named(ours: str, theirs: str, named: str) -> None:
    report = compared(GLUON[ours], TORCH[theirs])
    assert named in str(report.first_divergence), str(report)


def torch_number(y: torch.Tensor) -> torch.Tensor:
    return float(torch.bernoulli(torch.full((1,), 0.8))) / 0.8 * y


HOST: dict[str, tuple[Forward, Forward]] = {
    "a factor": (lambda y: float(np.random.binomial(n=1, p=0.8)) / 0.8 * y, torch_number),
    "a branch": (
        lambda y: y.tanh() if np.random.rand() < 0.7 else y,
        lambda y: y.tanh() if torch.rand(1).item() < 0.7 else y,
    ),
    "of Python": (
        lambda y: y * random.uniform(1, 2),
        lambda y: y * (1 + float(torch.rand(()))),
    ),
    "of MXNet": (
        lambda y: y * float(nd.random.normal(0, 0.5, shape=(1,)).asscalar()),
        lambda y: y * np.random.normal(0, 0.5),
    ),
}


@pytest.mark.parametrize("name", HOST)
def test_what_is_drawn_on_the_host_is_the_same_on_both_sides(name: str) -> None:
    for seed in range(2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        report = compared(*HOST[name])
        assert report.ok, str(report)


@pytest.mark.parametrize(
    "ours",
    [
        lambda y: float(np.random.binomial(n=1, p=0.7)) / 0.7 * y,
        lambda y: float(np.random.binomial(n=1, p=0.8)) * y,
        lambda y: y,
    ],
)
def test_another_factor_of_the_host_is_found(ours: Forward) -> None:
    assert compared(ours, torch_number).first_divergence is not None


def test_generators_of_the_host_go_on_as_if_nothing_had_drawn() -> None:
    random.seed(3)
    np.random.seed(3)
    with Live().of_host():
        assert np.random.binomial(1, 0.8) == 1
        assert np.random.binomial(1, 0.3) == 0
        assert np.random.rand(2).shape == (2,)
        assert random.random() == np.random.rand() < 0.5
        np.random.shuffle([1, 2, 3])
    assert random.random() == random.Random(3).random()
    assert np.random.rand() == np.random.RandomState(3).rand()


def test_partners_draw_the_same_and_others_do_not() -> None:
    draw = Draw("normal", scale=2.0, shift=1.0)
    values = draw.values((64,), (1, 5))
    assert (values == draw.values((64,), (1, 5))).all()
    assert (values != draw.values((64,), (1, 6))).all()
    assert (values == 1 + 2 * Draw("normal").values((64,), (1, 5))).all()
