"""Sums of values that repeat, which MXNet adds one by one: equal nets agree, faults are caught.

A sum of n equal values is off by up to n/2 u: each addition is rounded the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gnn
from torch import nn
from torch.nn import functional

from parity_tests import check_parity
from parity_tests.numerics.operators.formulas import off_one_by_one
from parity_tests.reporting.report import Report
from parity_tests.tests.pairing.nets import GluonNet, TorchNet

SIZE = 48
MAPS = (2, 4, SIZE, SIZE)
ROWS = (2, 4, SIZE * SIZE)
Function = Callable[..., Any]


def values(shape: tuple[int, ...], other: float) -> np.ndarray:
    """One value in each map or row, and 1 of 100 `other` times as large."""
    generator = np.random.default_rng(5)
    lead = generator.random((*shape[:2], *(1,) * (len(shape) - 2))) + 0.5
    factors = np.where(generator.random(shape) < 0.01, other, 1.0)
    return (lead * factors).astype(np.float32)


def checked(gluon: Any, torch_net: Any, x: np.ndarray) -> Report:
    if any(p._data is None for p in gluon.collect_params().values()):
        gluon.initialize()
    return check_parity(gluon, torch_net, x, transfer=True, levels=("weights", "forward"))


def _pad(net: Any, F: Any, x: Any) -> Any:
    how = {"kernel": (16, 16), "stride": (16, 16), "pad": (8, 8)}
    return F.Pooling(x, pool_type="avg", count_include_pad=False, **how)


def _padded(counted: bool) -> Function:
    return lambda net, x: functional.avg_pool2d(x, 16, 16, 8, count_include_pad=counted)


# Gluon's function, torch's, torch's with a fault, the shape, the factor of the other values
FUNCTIONS: dict[str, tuple[Function, Function, Function, tuple[int, ...], float]] = {
    "global pool, a row left out": (
        lambda n, F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=1),
        lambda n, x: functional.adaptive_avg_pool2d(x, 1),
        lambda n, x: functional.adaptive_avg_pool2d(x[:, :, 1:], 1),
        MAPS, 1.5,
    ),
    "global pool, divisor off by one": (
        lambda n, F, x: F.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1)),
        lambda n, x: functional.adaptive_avg_pool2d(x, 1),
        lambda n, x: functional.avg_pool2d(x, SIZE, divisor_override=SIZE * SIZE - 1),
        MAPS, 1.5,
    ),
    "windows, padding counted": (_pad, _padded(False), _padded(True), MAPS, 1.5),
    "adaptive pool, one column further": (
        lambda n, F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=3),
        lambda n, x: functional.adaptive_avg_pool2d(x, 3),
        lambda n, x: functional.adaptive_avg_pool2d(x.roll(1, 3), 3),
        MAPS, 1.5,
    ),
    "a window over the whole map, divisor off by one": (
        lambda n, F, x: F.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1)),
        lambda n, x: functional.avg_pool2d(x, SIZE),
        lambda n, x: functional.avg_pool2d(x, SIZE, divisor_override=SIZE * SIZE - 1),
        MAPS, 1.5,
    ),
    # where a weight is 0, what lies next to a pixel comes in by the coordinate's rounding
    "bilinear, scaled": (
        lambda n, F, x: F.contrib.BilinearResize2D(x, height=97, width=97),
        lambda n, x: functional.interpolate(x, (97, 97), mode="bilinear", align_corners=True),
        lambda n, x: functional.interpolate(
            x * (1 + 1e-4), (97, 97), mode="bilinear", align_corners=True
        ),
        MAPS, 1000.0,
    ),
    "softmax over maps, another temperature": (
        lambda n, F, x: F.softmax(x, axis=2),
        lambda n, x: torch.softmax(x, 2),
        lambda n, x: torch.softmax(x * (1 + 1e-5), 2),
        (2, 2, SIZE * SIZE, 2), 0.0,
    ),
    "softmax of rows, another temperature": (
        lambda n, F, x: F.softmax(x, axis=-1),
        lambda n, x: torch.softmax(x, -1),
        lambda n, x: torch.softmax(x * (1 + 1e-5), -1),
        ROWS, 1.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sums_of_values_that_repeat_agree_and_faults_are_caught(name: str) -> None:
    gluon, right, wrong, shape, other = FUNCTIONS[name]
    x = values(shape, other)
    report = checked(GluonNet(gluon), TorchNet(right), x)
    assert report.ok, report.first_divergence
    assert not checked(GluonNet(gluon), TorchNet(wrong), x).ok


@pytest.mark.parametrize("other", [1.5, 0.0])
def test_norms_of_values_that_repeat_agree_and_another_eps_is_caught(other: float) -> None:
    for gluon, right, wrong, shape in (
        (
            gnn.InstanceNorm(in_channels=4), nn.InstanceNorm2d(4, affine=True),
            nn.InstanceNorm2d(4, affine=True, eps=1.2e-5), MAPS,
        ),
        (
            gnn.LayerNorm(in_channels=SIZE * SIZE), nn.LayerNorm(SIZE * SIZE),
            nn.LayerNorm(SIZE * SIZE, eps=1.001e-5), ROWS,
        ),
    ):  # fmt: skip
        x = values(shape, other)
        report = checked(gluon, right, x)
        assert report.ok, report.first_divergence
        assert not checked(gluon, wrong, x).ok


def _branches(pool: Function) -> TorchNet:
    both = {name: nn.Conv2d(4, 4, 1) for name in "ab"}
    return TorchNet(lambda n, x: pool(torch.stack([n.a(x), n.b(x)], 1).sum(1)), **both)


def test_a_pool_of_summed_branches_is_judged_as_a_pool() -> None:
    """The sum is made as (N, 1, C, H, W) in one vocabulary, and the pool sees (N, C, H, W)."""
    gluon = GluonNet(
        lambda n, F, x: F.contrib.AdaptiveAvgPooling2D(F.stack(n.a(x), n.b(x), axis=1).sum(axis=1)),
        **{name: gnn.Conv2D(4, 1, in_channels=4) for name in "ab"},
    )
    mx.random.seed(0)
    x = values(MAPS, 1.5)
    report = checked(gluon, _branches(lambda x: functional.adaptive_avg_pool2d(x, 1)), x)
    assert report.ok, report.first_divergence
    bounds = {row.bound for row in report.rows if row.check == "local" and "pool" in row.path}
    assert bounds == {16.0, 16.0 + SIZE, 16.0 + SIZE**2}  # torch's, and Gluon's in both dtypes
    short = checked(gluon, _branches(lambda x: functional.adaptive_avg_pool2d(x[:, :, 1:], 1)), x)
    first = short.first_divergence
    assert first is not None
    assert "pool" in first.path


def test_only_sums_that_are_added_one_by_one_are_off() -> None:
    """What is allowed is what numpy's own float32 makes of these values, in their order."""
    x = values(MAPS, 1.5).astype(np.float64)
    off = off_one_by_one(x, (2, 3))
    assert off.shape == (2, 4, 1, 1)
    total = np.float32(0)
    for value in x[1, 2].reshape(-1).astype(np.float32):
        total = np.float32(total + value)
    assert off[1, 2, 0, 0] == abs(float(total) - x[1, 2].sum())
    assert (off / np.abs(x).sum(axis=(2, 3), keepdims=True)).max() > 50 * 2.0**-24
    assert not off_one_by_one(np.ones(MAPS), (2, 3)).any()
