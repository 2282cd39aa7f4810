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

from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.pairing.nets import TorchNet

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
