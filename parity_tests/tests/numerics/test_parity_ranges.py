"""Equal pairs stay in parity over an operator's whole range, and not only where N(0, 1) falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.reporting.verdicts import Status
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised

ROWS, MAPS = (2, 300), (1, 16, 7, 7)


def normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(13).standard_normal(shape)


RANGES: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "normal": normal,
    "wide": lambda shape: 300 * normal(shape),
    "far from 0": lambda shape: 100 + normal(shape),
    "tiny": lambda shape: 1e-4 * normal(shape),
    "sparse": lambda shape: normal(shape) * (np.random.default_rng(5).random(shape) < 0.1),
}

Function = Callable[..., Any]
FUNCTIONS: dict[str, tuple[Function, Function, tuple[int, ...]]] = {
    "erf": (lambda F, x: F.erf(x), torch.erf, ROWS),
    "soft ReLU": (lambda F, x: F.Activation(x, act_type="softrelu"), functional.softplus, ROWS),
    "softsign": (lambda F, x: F.softsign(x), functional.softsign, ROWS),
    "elu": (lambda F, x: F.LeakyReLU(x, act_type="elu", slope=1.0), functional.elu, ROWS),
    "selu": (lambda F, x: F.LeakyReLU(x, act_type="selu"), functional.selu, ROWS),
    "gelu": (lambda F, x: F.LeakyReLU(x, act_type="gelu"), functional.gelu, ROWS),
    "log softmax": (lambda F, x: F.log_softmax(x), lambda x: x.log_softmax(-1), (2, 3000)),
    "softmin": (lambda F, x: F.softmin(x), lambda x: functional.softmin(x, -1), (2, 3000)),
    "product": (lambda F, x: F.prod(x, axis=-1), lambda x: x.prod(-1), (4, 10)),
    "norm": (lambda F, x: F.norm(x, axis=-1), lambda x: x.norm(dim=-1), ROWS),
    "vector norm": (
        lambda F, x: F.norm(x, axis=1, keepdims=True),
        lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
        MAPS,
    ),
    "LRN": (
        lambda F, x: F.LRN(x, nsize=5, alpha=1e-2, beta=0.75, knorm=2.0),
        lambda x: functional.local_response_norm(x, 5, 1e-2, 0.75, 2.0),
        MAPS,
    ),
    "resized": (
        lambda F, x: F.contrib.BilinearResize2D(x, height=3, width=20),
        lambda x: functional.interpolate(x, (3, 20), mode="bilinear", align_corners=True),
        MAPS,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("erf", "normal"), ("erf", "wide"), ("soft ReLU", "normal"), ("soft ReLU", "wide"),
        ("softsign", "wide"), ("softsign", "far from 0"),
        ("log softmax", "sparse"), ("log softmax", "wide"), ("softmin", "sparse"),
        ("product", "tiny"),
        ("norm", "normal"), ("norm", "far from 0"), ("vector norm", "wide"), ("resized", "sparse"),
        ("LRN", "normal"), ("LRN", "wide"),
    ],
)  # fmt: skip
def test_a_function_is_in_parity_over_its_range(name: str, values: str) -> None:
    ours, theirs, shape = FUNCTIONS[name]
    x = RANGES[values](shape).astype(np.float32)
    net = initialised(GluonNet(lambda s, F, x: ours(F, x)), x)
    report = check_parity(net, TorchNet(lambda s, x: theirs(x)), x)
    assert report.ok, str(report)
    assert not any(row.status == Status.NOTE and row.level == "structure" for row in report.rows)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("erf", lambda x: torch.erf(x * (1 + 1e-6))),
        ("soft ReLU", lambda x: functional.softplus(x, beta=1 + 1e-6)),
        ("softsign", lambda x: x / (1 + 1e-6 + x.abs())),
        # α of the whole sum, and not of its mean; torch's default of k
        ("LRN", lambda x: functional.local_response_norm(x, 5, 5e-2, 0.75, 2.0)),
        ("LRN", lambda x: functional.local_response_norm(x, 5, 1e-2, 0.75)),
    ],
)
def test_another_function_is_found_by_its_float64(name: str, theirs: Function) -> None:
    ours, _, shape = FUNCTIONS[name]
    x = RANGES["wide"](shape).astype(np.float32)
    net = initialised(GluonNet(lambda s, F, x: ours(F, x)), x)
    assert not check_parity(net, TorchNet(lambda s, x: theirs(x)), x).ok


# Near 0, in its tails, and where it is nearly a line; the least factor that must be found
TAILS = [
    ("elu", "tiny", 3e-6), ("elu", "wide", 3e-6), ("gelu", "wide", 3e-6),
    ("gelu", "far from 0", 3e-6), ("soft ReLU", "far from 0", 3e-6),
    ("selu", "tiny", 3e-6), ("selu", "wide", 3e-6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "more"), TAILS)
def test_an_activation_is_in_parity_in_its_tails_and_with_a_factor_is_not(
    name: str, values: str, more: float
) -> None:
    ours, theirs, shape = FUNCTIONS[name]
    x = RANGES[values](shape).astype(np.float32)
    net = initialised(GluonNet(lambda s, F, x: ours(F, x)), x)
    report = check_parity(net, TorchNet(lambda s, x: theirs(x)), x)
    failed = {(row.side, row.quantity) for row in report.failures}
    # MXNet's gradient of SELU is another one
    assert failed == ({("gluon", "input gradient")} if name == "selu" else set()), str(report)
    wrong = TorchNet(lambda s, x: theirs(x) * (1 + more))
    assert not check_parity(net, wrong, x, levels=("structure",)).ok


@pytest.mark.parametrize("values", RANGES)
@pytest.mark.parametrize("name", ["elu", "gelu"])
def test_a_function_beside_arithmetic_that_changes_nothing_is_in_parity(
    name: str, values: str
) -> None:
    ours, theirs, shape = FUNCTIONS[name]
    x = RANGES[values](shape).astype(np.float32)
    net = initialised(GluonNet(lambda s, F, x: ours(F, x)), x)
    report = check_parity(net, TorchNet(lambda s, x: (theirs(x) * 0.3 + 2 * x) / 0.3 - x / 0.15), x)
    assert report.ok, str(report)
    bounds = {row.bound for row in report.rows if row.dtype == "float32" and row.check == "local"}
    assert bounds == {8.0}


LAYERS: dict[str, tuple[Callable[[], Any], nn.Module, tuple[int, ...]]] = {
    "layer norm": (lambda: gnn.LayerNorm(in_channels=10), nn.LayerNorm(10), (4, 10)),
    "layer norm of 64": (lambda: gnn.LayerNorm(in_channels=64), nn.LayerNorm(64), (100, 64)),
    "instance norm": (
        lambda: gnn.InstanceNorm(scale=True, in_channels=16),
        nn.InstanceNorm2d(16, affine=True),
        MAPS,
    ),
    "group norm": (
        lambda: gnn.GroupNorm(16), nn.GroupNorm(16, 16), MAPS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("values", ["sparse", "far from 0"])
def test_a_norm_is_in_parity_where_its_gradient_cancels(name: str, values: str) -> None:
    """Of a row with one spike the gradient there is next to nothing, whatever is sent back."""
    build, torch_net, shape = LAYERS[name]
    x = RANGES[values](shape).astype(np.float32)
    net = build()
    net.initialize(mx.init.Normal(0.3))
    net(mx.nd.array(x))
    report = check_parity(net, torch_net, x, transfer=True)
    assert report.ok, str(report)


def test_what_overflows_in_float32_is_not_compared_and_said() -> None:
    x = RANGES["wide"](ROWS).astype(np.float32)
    net = initialised(GluonNet(lambda s, F, x: F.exp(0.1 * x)), x)
    report = check_parity(net, TorchNet(lambda s, x: (0.1 * x).exp()), x)
    assert not report.ok
    assert not [row for row in report.rows if row.status == Status.DIVERGED]
    assert any("float32 overflows" in row.detail for row in report.rows)
