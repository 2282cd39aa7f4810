"""What a net computes of its parameters alone: gates, weights that are normalised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxnet import gluon
from torch import nn

from parity_tests import check_parity
from parity_tests.reporting.report import Report

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
Forward = Callable[..., Any]


class Held(gluon.HybridBlock):
    """`function(F, x, weight)` of one parameter."""

    def __init__(self, function: Forward, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape)

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        return self.function(F, x, weight)


class HeldInTorch(nn.Module):
    """`function(x, weight)` of one parameter."""

    def __init__(self, function: Forward, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self.weight)


def compared(
    ours: Forward,
    theirs: Forward,
    shape: tuple[int, ...],
    torch_shape: tuple[int, ...] | None = None,
    x: np.ndarray = X,
) -> Report:
    mx.random.seed(0)
    net = Held(ours, shape)
    net.initialize(mx.init.Normal(0.5))
    torch_net = HeldInTorch(theirs, shape if torch_shape is None else torch_shape)
    return check_parity(net, torch_net, x, transfer=True)


ROW, MATRIX = (1, 6), (5, 6)


def scaled(gate: Callable[[Any, Any], Any]) -> Forward:
    return lambda F, x, w: F.broadcast_mul(x, gate(F, w))


GATES: dict[str, tuple[Forward, Forward]] = {
    "tanh": (scaled(lambda F, w: F.tanh(w)), lambda x, w: x * w.tanh()),
    "softmax": (scaled(lambda F, w: F.softmax(w)), lambda x, w: x * w.softmax(-1)),
    "gelu": (scaled(lambda F, w: F.LeakyReLU(w, act_type="gelu")), lambda x, w: x * F.gelu(w)),
    "clip": (scaled(lambda F, w: F.clip(w, -0.1, 0.1)), lambda x, w: x * w.clamp(-0.1, 0.1)),
    "prelu": (  # whose slope is computed
        lambda F, x, w: F.broadcast_add(
            x, F.LeakyReLU(w, F.sum(x).reshape((1,)), act_type="prelu")
        ),
        lambda x, w: x + F.prelu(w, x.sum().reshape(1)),
    ),
    "softplus": (
        scaled(lambda F, w: F.Activation(w, act_type="softrelu") + 1e-3),
        lambda x, w: x * (F.softplus(w) + 1e-3),
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_function_of_a_parameter_alone_has_its_own_tolerance(name: str) -> None:
    report = compared(*GATES[name], ROW)
    assert report.ok, str(report)
    local = [
        r
        for r in report.rows
        if r.path == {"clip": "clamp"}.get(name, name) and r.quantity == "output" and r.bound
    ]
    assert local, "its rounding is counted"


@pytest.mark.parametrize(
    "theirs",
    [
        lambda x, w: x * w.sigmoid(),
        lambda x, w: x * F.hardtanh(w),
        lambda x, w: x * (1e-6 + w.tanh()),
    ],
)
def test_another_function_of_a_parameter_alone_is_found(theirs: Forward) -> None:
    assert not compared(GATES["tanh"][0], theirs, ROW).ok


def standardised(F: Any, x: Any, w: Any) -> Any:
    centred = F.broadcast_sub(w, F.mean(w, axis=1, keepdims=True))
    variance = F.mean(F.square(centred), axis=1, keepdims=True)
    weight = F.broadcast_div(centred, F.sqrt(variance + 1e-5))
    return F.FullyConnected(x, weight, no_bias=True, num_hidden=5)


@pytest.mark.parametrize(
    ("unbiased", "eps", "right"), [(False, 1e-5, True), (True, 1e-5, False), (False, 1e-3, False)]
)
def test_a_standardised_weight_is_compared(unbiased: bool, eps: float, right: bool) -> None:
    """Gluon goes on with the centred weight that it has, torch's `var` takes the weight."""

    def theirs(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        variance = w.var(1, keepdim=True, unbiased=unbiased)
        return F.linear(x, (w - w.mean(1, keepdim=True)) / (variance + eps).sqrt())

    assert compared(standardised, theirs, MATRIX).ok == right


def of_unit_length(F: Any, x: Any) -> Any:
    return F.broadcast_div(x, F.sqrt(F.sum(x * x, axis=1, keepdims=True)))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-6])
def test_a_spectral_norm_of_weights_is_compared(factor: float) -> None:
    def ours(F: Any, x: Any, w: Any) -> Any:
        u = of_unit_length(F, F.dot(F.slice_axis(w, axis=1, begin=0, end=1), w, transpose_a=True))
        v = of_unit_length(F, F.dot(u, w, transpose_b=True))
        norm = F.sum(F.dot(v, w) * u)
        weight = F.broadcast_div(w, norm.reshape((1, 1)))
        return F.FullyConnected(x, weight, no_bias=True, num_hidden=5)

    def theirs(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        u = F.normalize(w[:, :1].T @ w, dim=1)
        v = F.normalize(u @ w.T, dim=1)
        return F.linear(x, w / (factor * ((v @ w) * u).sum()))

    report = compared(ours, theirs, MATRIX)
    assert report.ok == (factor == 1.0), str(report)


@pytest.mark.parametrize("factor", [1.0, 1 + 1e-6])
def test_a_parameter_of_no_axes_has_its_partner(factor: float) -> None:
    """As CLIP's logit scale: MXNet has no arrays of no axes."""
    report = compared(
        scaled(lambda F, w: F.exp(w).reshape((1, 1))), lambda x, w: x * (factor * w).exp(), (1,), ()
    )
    assert report.ok == (factor == 1.0), str(report)


class Turned(gluon.HybridBlock):
    """Pairs of features turned by an angle for each row, as rotary positions turn them."""

    def __init__(self, turns: np.ndarray) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = gluon.nn.Dense(6, in_units=6)
            self.cos = self.params.get_constant("cos", turns.real)
            self.sin = self.params.get_constant("sin", turns.imag)

    def hybrid_forward(self, F: Any, x: Any, cos: Any, sin: Any) -> Any:
        pairs = F.reshape(self.dense(x), (0, -1, 2))
        a, b = (F.squeeze(F.slice_axis(pairs, axis=-1, begin=i, end=i + 1), -1) for i in (0, 1))
        return F.flatten(F.stack(a * cos - b * sin, a * sin + b * cos, axis=-1))


class TurnedInTorch(nn.Module):
    """The same as products of complex numbers."""

    def __init__(self, turns: torch.Tensor) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 6)
        self.register_buffer("turns", turns)

    def forward(self, x: torch.Tensor) -> Any:
        pairs = torch.view_as_complex(self.dense(x).unflatten(1, (-1, 2)))
        return torch.view_as_real(pairs * self.get_buffer("turns")).flatten(1)


@pytest.mark.parametrize("fault", ["", "conjugated"])
def test_complex_numbers_are_pairs_of_real_ones(fault: str) -> None:
    angles = torch.outer(torch.arange(4.0), torch.tensor([1.0, 0.3, 0.1]))
    turns = torch.polar(torch.ones_like(angles), angles)
    net = Turned(turns.numpy())
    net.initialize(mx.init.Normal(0.5))
    torch_net = TurnedInTorch(turns.conj() if fault else turns)
    assert check_parity(net, torch_net, X, transfer=True).ok == (not fault)
    torch_net = TurnedInTorch(turns if fault else turns.conj().resolve_conj().conj())
    assert check_parity(net, torch_net, X, transfer=True).ok
