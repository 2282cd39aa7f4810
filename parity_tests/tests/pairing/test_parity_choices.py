"""What `where` chooses, in all its spellings, and the gradient of `mx.np.where` with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from torch import nn
from torch.nn import functional as F

from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.pairing.nets import GluonNet as BaseGluonNet
from parity_tests.tests.pairing.nets import TorchNet, initialised, random_image

X = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
Forward = Callable[..., Any]


@mx.util.use_np
class GluonNet(gluon.HybridBlock):
    """A layer's output, or a number where that is not above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = gluon.nn.Dense(6, in_units=6)

    def forward(self, x: Any) -> Any:
        y = self.dense(x)
        return mx.np.where(y > 0, y, 0.5)


def compared(theirs: Forward, quick: bool = False) -> Report:
    mx.random.seed(0)
    net = GluonNet()
    net.initialize(mx.init.Xavier())
    other = TorchNet(lambda s, x: theirs(s.d(x)), d=nn.Linear(6, 6))
    return check_parity(net, other, X, transfer=True, quick=quick)


WHERE: dict[str, Forward] = {
    "a number": lambda y: torch.where(y > 0, y, 0.5),
    "an array of no axes": lambda y: torch.where(y > 0, y, torch.tensor(0.5)),
    "swapped": lambda y: torch.where(y <= 0, 0.5, y),
    "filled": lambda y: y.masked_fill(~(y > 0), 0.5),
    "arithmetic": lambda y: y * (y > 0) + (y <= 0) * 0.5,
}


@pytest.mark.parametrize("name", WHERE)
def test_a_choice_of_a_number_is_compared_in_inference(name: str) -> None:
    report = compared(WHERE[name], quick=True)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "theirs",
    [
        lambda y: torch.where(y > 0, y, 0.6),
        lambda y: torch.where(y > 0, 0.5, y),
        lambda y: y.masked_fill(y > 0, 0.5),
    ],
)
def test_another_choice_is_named(theirs: Forward) -> None:
    report = compared(theirs, quick=True)
    assert report.failures[0].level == Level.STRUCTURE, str(report)


def test_the_gradient_that_mxnet_sends_to_the_other_places_is_said_in_one_row() -> None:
    report = compared(WHERE["a number"])
    (row,) = report.failures
    assert (row.level, row.status) == (Level.BACKWARD, Status.NOT_COMPARED)
    assert "the gradient of `np.where` with a number" in row.detail


def pooled(ours: Forward, theirs: Forward, quick: bool = False) -> Report:
    """Two nets that end in what is chosen of a convolution's maps, 8×8, positive somewhere."""
    net = initialised(BaseGluonNet(lambda s, F, x: ours(F, s.c(x)), c=gluon.nn.Conv2D(4, 3)), IMAGE)
    other = TorchNet(lambda s, x: theirs(s.c(x)), c=nn.Conv2d(4, 4, 3))
    return check_parity(net, other, IMAGE, transfer=True, quick=quick)


IMAGE = random_image(2, 4, 10, 10)
LARGEST = {
    "global pool": (
        lambda F, y: F.Pooling(y, global_pool=True, pool_type="max"),
        lambda y: y.amax((2, 3), keepdim=True),
    ),
    "pool": (lambda F, y: F.Pooling(y, (8, 8), pool_type="max"), lambda y: F.max_pool2d(y, 8)),
    "max": (lambda F, y: F.max(y, (2, 3)), lambda y: y.amax((2, 3))),
    "topk": (
        lambda F, y: F.topk(F.reshape(y, (0, 0, -1)), k=2, ret_typ="value"),
        lambda y: y.flatten(2).topk(2).values,
    ),
}


def one(y: Any) -> Any:
    return y


@pytest.mark.parametrize("chosen", LARGEST)
@pytest.mark.parametrize(
    "before",
    [
        (lambda F, y: F.relu(y), one),
        (lambda F, y: y, torch.relu),
        (lambda F, y: F.relu(y), lambda y: F.leaky_relu(y, 0.1)),
        (lambda F, y: F.LeakyReLU(y, act_type="elu"), torch.relu),
        (lambda F, y: F.broadcast_maximum(y, F.zeros((1,))), one),
        (lambda F, y: y, lambda y: y * torch.tensor([0.0] + [1.0] * 7)),
    ],
    ids=["relu", "no relu", "leaky", "elu", "maximum", "mask"],
)
def test_what_only_other_values_show_behind_a_maximum_is_named(
    before: tuple[Forward, Forward], chosen: str
) -> None:
    ours, theirs = LARGEST[chosen]
    report = pooled(
        lambda F, y: ours(F, before[0](F, y)),
        lambda y: theirs(before[1](y)),
        quick=chosen != "max",
    )
    assert report.failures[0].level == Level.STRUCTURE, str(report)


@pytest.mark.parametrize("chosen", LARGEST)
def test_a_choice_before_an_activation_is_that_behind_it(chosen: str) -> None:
    ours, theirs = LARGEST[chosen]
    for other in (
        lambda y: torch.relu(theirs(y)),
        lambda y: theirs(torch.relu(torch.relu(y))),
    ):
        report = pooled(lambda F, y: ours(F, F.relu(y)), other)
        assert report.ok, str(report)


def test_a_maximum_is_looked_for_on_the_way_back_in_the_values_that_it_is_one_of() -> None:
    """Moved by a rounding it would be none of them, and its gradient 0 / 0."""
    report = pooled(
        lambda F, y: F.softmax(F.max(y, (2, 3)) + 1) * 2,
        lambda y: (torch.exp(y.amax((2, 3)) + 1) / torch.exp(y.amax((2, 3)) + 1).sum(1, True)) * 2,
    )
    assert report.ok, str(report)
