"""Floats of another dtype than the net's: casts to float16 and float64, in outputs and inside."""

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
from parity_tests.tests.pairing.nets import GluonNet, TorchNet

X = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
Forward = Callable[..., Any]


def compared(ours: Forward, theirs: Forward, quick: bool = False) -> Report:
    """`ours(F, y)` and `theirs(y)` of a layer's output."""
    mx.random.seed(0)
    net = GluonNet(lambda s, F, x: ours(F, s.d(x)), d=gluon.nn.Dense(6, in_units=6))
    net.initialize(mx.init.Xavier())
    other = TorchNet(lambda s, x: theirs(s.d(x)), d=nn.Linear(6, 6))
    return check_parity(net, other, X, transfer=True, quick=quick)


HALF, DOUBLE, SINGLE = (
    lambda F, y, dtype=dtype: (y, F.cast(F.tanh(y), dtype))
    for dtype in ("float16", "float64", "float32")
)
EQUAL: dict[str, tuple[Forward, Forward]] = {
    "float16": (HALF, lambda y: (y, y.tanh().half())),
    "float64": (DOUBLE, lambda y: (y, y.tanh().to(torch.float64))),
    "a name": (HALF, lambda y: (y, y.tanh().type("torch.HalfTensor"))),
    "members": (
        lambda F, y: (F.cast(y, "float16"), F.cast(F.tanh(y), "float64")),
        lambda y: {"first": y.half(), "others": {"second": y.tanh().double()}},
    ),
    "a mask": (lambda F, y: (y, F.cast(y > 0, "float16")), lambda y: (y, (y > 0).half())),
    "inside": (
        lambda F, y: F.cast(F.sum(F.cast(y, "float16") + F.ones((3, 6), dtype="float16"), 1), "f4"),
        lambda y: (y.half() + torch.ones(3, 6, dtype=torch.float16)).sum(1).float(),
    ),
    "within an operator": (
        lambda F, y: F.softmax(y, dtype="float64"),
        lambda y: y.double().softmax(-1),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_both_nets_cast_is_compared_in_the_dtype_of_the_run(name: str) -> None:
    report = compared(*EQUAL[name], quick=name not in ("members", "inside"))
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        (HALF, lambda y: (y, y.tanh()), "float16 rounding"),
        (SINGLE, lambda y: (y, y.tanh().half()), "float16 rounding"),
        (DOUBLE, lambda y: (y, y.tanh()), "Gluon gives float64, torch float32"),
        (SINGLE, lambda y: (y, y.tanh().double()), "Gluon gives float32, torch float64"),
        (HALF, lambda y: (y, y.tanh().double()), "Gluon gives float16, torch float64"),
        (HALF, lambda y: (y, (1.001 * y.tanh()).half()), "constant factor"),
    ],
)
def test_a_cast_of_one_net_is_named(ours: Forward, theirs: Forward, named: str) -> None:
    report = compared(ours, theirs, quick=True)
    said = [f"{row.detail} {row.diagnosis}" for row in report.failures]
    assert any(named in words for words in said), said


def test_what_one_net_computes_in_float64_in_between_is_the_same() -> None:
    assert compared(
        lambda F, y: F.softmax(y), lambda y: y.double().softmax(-1).float(), quick=True
    ).ok
