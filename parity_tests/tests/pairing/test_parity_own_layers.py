"""Layers that a user writes of a product and a parameter added to it, beside the layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxnet import gluon
from mxnet.gluon import nn as gnn
from safetensors.torch import load_file
from torch import nn

from parity_tests import check_parity
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised, random_image

ROWS, IMAGE, TOKENS = random_image(3, 5), random_image(3, 2, 5, 5), random_image(2, 3, 5)
LEVELS = ("structure", "weights", "forward", "backward", "optimizer", "training")


class Own(gluon.HybridBlock):
    """`product(F, x, weight)`, and `moved` makes of the bias what is added to it."""

    def __init__(self, product: Any, *shapes: tuple[int, ...], moved: Any = None, **bias: Any):
        super().__init__()
        self._product, self._moved = product, moved or (lambda F, b: b)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shapes[0])
            self.bias = self.params.get("bias", shape=shapes[1], init="zeros", **bias)

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any) -> Any:
        return F.broadcast_add(self._product(F, x, weight), self._moved(F, bias))


class Gemm(Own):
    """The product and the bias in one operator, which is given it in the shape of the product."""

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any) -> Any:
        rows = F.broadcast_to(F.reshape(bias, (1, 4)), (3, 4))
        return F.linalg.gemm(x, weight, rows, transpose_b=True)


def product(F: Any, x: Any, weight: Any) -> Any:
    return F.FullyConnected(x, weight, no_bias=True, num_hidden=4, flatten=False)


def maps(F: Any, x: Any, weight: Any) -> Any:
    return F.Convolution(x, weight, no_bias=True, kernel=(3, 3), num_filter=4)


def in_heads(F: Any, x: Any, weight: Any) -> Any:
    return F.reshape(product(F, x, weight), (0, 2, 2))


def behind_heads(F: Any, x: Any, weight: Any) -> Any:
    return F.transpose(F.reshape(product(F, x, weight), (0, 0, 2, 2)), axes=(0, 2, 1, 3))


def torch_heads(made: torch.Tensor, count: int = 2) -> torch.Tensor:
    return made.view(*made.shape[:2], count, -1).transpose(1, 2)


def own_maps(shape: tuple[int, ...] = (4,)) -> Own:
    return Own(maps, (4, 2, 3, 3), shape, moved=lambda F, b: F.reshape(b, (1, 4, 1, 1)))


def with_head(maps: Any) -> GluonNet:
    return GluonNet(lambda s, F, x: s.d(F.relu(s.c(x))), c=maps, d=gnn.Dense(4, in_units=36))


def torch_maps() -> TorchNet:
    return TorchNet(
        lambda s, x: s.d(s.c(x).relu().flatten(1)), c=nn.Conv2d(2, 4, 3), d=nn.Linear(36, 4)
    )


def held(forward: Callable[..., Any], *shape: int) -> TorchNet:
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 5), shape or (4,))
    weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return TorchNet(forward, weight=nn.Parameter(weight), bias=nn.Parameter(bias))


EQUAL: dict[str, tuple[Callable[[], Any], Callable[[], Any], np.ndarray]] = {
    "own dense": (lambda: Own(product, (4, 5), (4,)), lambda: nn.Linear(5, 4), ROWS),
    "own maps": (lambda: with_head(own_maps()), torch_maps, IMAGE),
    "a bias of four axes": (lambda: with_head(own_maps((1, 4, 1, 1))), torch_maps, IMAGE),
    "cut into heads": (
        lambda: Own(in_heads, (4, 5), (4,), moved=lambda F, b: F.reshape(b, (2, 2))),
        lambda: TorchNet(lambda s, x: s.l(x).view(-1, 2, 2), l=nn.Linear(5, 4)), ROWS,
    ),
    "behind heads": (
        lambda: Own(behind_heads, (4, 5), (1, 2, 1, 2)),
        lambda: TorchNet(lambda s, x: torch_heads(s.l(x)), l=nn.Linear(5, 4)), TOKENS,
    ),
    "behind heads, and before": (
        lambda: Own(behind_heads, (4, 5), (4,), moved=lambda F, b: F.reshape(b, (1, 2, 1, 2))),
        lambda: held(lambda s, x: (F.linear(x, s.weight).view(2, 3, 2, 2) + s.bias).transpose(1, 2),
                     2, 2), TOKENS,
    ),
    "behind heads in torch": (
        lambda: GluonNet(lambda s, F, x: F.transpose(F.reshape(s.d(x), (0, 0, 2, 2)),
                         axes=(0, 2, 3, 1)), d=gnn.Dense(4, in_units=5, flatten=False)),
        lambda: held(lambda s, x: torch_heads(F.linear(x, s.weight)).mT + s.bias, 2, 2, 1), TOKENS,
    ),
    "columns behind heads": (
        lambda: Own(
            lambda F, x, w: F.transpose(F.reshape(F.dot(x, w), (0, 0, 2, 2)), axes=(0, 2, 1, 3)),
            (5, 4), (1, 2, 1, 2)),
        lambda: TorchNet(lambda s, x: torch_heads(s.l(x)), l=nn.Linear(5, 4)), TOKENS,
    ),
    "own linear": (
        lambda: gnn.Dense(4, in_units=5),
        lambda: held(lambda s, x: F.linear(x, s.weight) + s.bias), ROWS,
    ),
    "addmm": (
        lambda: gnn.Dense(4, in_units=5),
        lambda: held(lambda s, x: torch.addmm(s.bias, x, s.weight.t())), ROWS,
    ),
    "baddbmm, and a half": (
        lambda: Own(lambda F, x, w: 0.5 * F.dot(x, w, transpose_b=True), (4, 5), (4,)),
        lambda: held(lambda s, x: torch.baddbmm(
            s.bias[None, None], x, s.weight.t().expand(2, -1, -1), alpha=0.5)), TOKENS,
    ),
    "gemm": (
        lambda: Gemm(product, (4, 5), (4,)), lambda: nn.Linear(5, 4), ROWS,
    ),
    "columns beside rows": (
        lambda: Own(lambda F, x, w: F.dot(x, w), (5, 4), (4,)),
        lambda: held(lambda s, x: torch.matmul(x, s.weight.t()) + s.bias), ROWS,
    ),
    "einsum": (
        lambda: gnn.Dense(4, in_units=5),
        lambda: held(lambda s, x: torch.einsum("ni,oi->no", x, s.weight) + s.bias), ROWS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_an_own_layer_is_in_parity_with_the_layer(name: str) -> None:
    ours, theirs, x = EQUAL[name]
    report = check_parity(initialised(ours(), x), theirs(), x, transfer=True)
    assert report.ok, str(report)


@pytest.mark.slow
def test_a_bias_of_other_axes_is_trained_as_the_layer_s() -> None:
    """Its momentum has its own shape, and is judged in the one that both sides have."""
    ours, theirs, x = EQUAL["a bias of four axes"]
    report = check_parity(
        initialised(ours(), x), theirs(), x, transfer=True, levels=LEVELS, steps=2,
        labels=np.array([0, 1, 2]), optimizer="sgd(lr=0.1, momentum=0.9)",
    )  # fmt: skip
    assert report.ok, str(report)


@pytest.mark.parametrize("factors", [{"beta": 1.00001}, {"alpha": 1.00001}, {"beta": 0}])
def test_an_addmm_with_other_factors_is_found(factors: dict[str, Any]) -> None:
    theirs = held(lambda s, x: torch.addmm(s.bias, x, s.weight.t(), **factors))
    report = check_parity(initialised(gnn.Dense(4, in_units=5), ROWS), theirs, ROWS, transfer=True)
    assert not report.ok


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "twice": (lambda: Own(product, (4, 5), (4,), moved=lambda F, b: 2 * b), "bias"),
    "no gradient": (
        lambda: Own(product, (4, 5), (4,), moved=lambda F, b: F.stop_gradient(b)),
        "stopped gradient: Gluon's are all 0",
    ),
    "no gradient before it": (
        lambda: Own(lambda F, x, w: F.stop_gradient(product(F, x, w)), (4, 5), (4,)),
        "stopped gradient: Gluon's are all 0",
    ),
    "in another place": (
        lambda: Own(lambda F, x, w: product(F, x + 1, w), (4, 5), (4,)),
        "Gluon only",
    ),
    "one for every row": (
        lambda: Own(product, (4, 5), (3,), moved=lambda F, b: F.reshape(b, (3, 1))),
        "bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_an_own_layer_that_adds_otherwise_is_named(name: str) -> None:
    make, words = FAULTS[name]
    report = check_parity(initialised(make(), ROWS), nn.Linear(5, 4), ROWS, transfer=True)
    assert not report.ok
    assert words in str(report.first_divergence), str(report)


OF_HEADS: dict[str, Callable[..., Any]] = {
    "in another order": lambda s, x: torch_heads(F.linear(x, s.weight)) + s.bias.flip(1),
    "cut otherwise": lambda s, x: (
        F.linear(x, s.weight).view(2, 3, 2, 2).permute(0, 3, 1, 2) + s.bias
    ),
    "a little larger": lambda s, x: torch_heads(F.linear(x, s.weight)) + s.bias * 1.00001,
}


@pytest.mark.parametrize("name", OF_HEADS)
def test_another_bias_behind_heads_is_found(name: str) -> None:
    net = initialised(Own(behind_heads, (4, 5), (1, 2, 1, 2)), TOKENS)
    report = check_parity(net, held(OF_HEADS[name], 1, 2, 1, 2), TOKENS, transfer=True)
    assert not report.ok


def test_an_own_bias_that_learns_at_another_rate_is_named() -> None:
    net = initialised(Own(product, (4, 5), (4,), lr_mult=2.0), ROWS)
    report = check_parity(
        net, nn.Linear(5, 4), ROWS, transfer=True, levels=LEVELS, steps=1,
        labels=np.array([0, 1, 2]), optimizer="sgd(lr=0.1)",
    )  # fmt: skip
    assert "bias learning rate" in str(report.first_divergence), str(report)


class OwnScale(gluon.HybridBlock):
    """A norm that has neither scale nor shift, and those of the net behind it."""

    def __init__(self, norm: Any, shape: tuple[int, ...], *, shift: bool = True):
        super().__init__()
        self._shift = shift
        with self.name_scope():
            self.norm = norm(center=False, scale=False)
            self.gain = self.params.get("gain", shape=shape)
            self.beta = self.params.get("beta", shape=shape)

    def hybrid_forward(self, F: Any, x: Any, gain: Any, beta: Any) -> Any:
        y = F.broadcast_mul(self.norm(x), gain)
        return F.broadcast_add(y, beta if self._shift else beta * 0)


NORMS: dict[str, tuple[Callable[..., Any], Callable[[], nn.Module], np.ndarray]] = {
    "layer": (
        lambda **more: OwnScale(partial(gnn.LayerNorm, in_channels=5), (1, 5), **more),
        lambda: nn.LayerNorm(5), ROWS,
    ),
    "group": (
        lambda **more: OwnScale(partial(gnn.GroupNorm, 2), (1, 4, 1, 1), **more),
        lambda: nn.GroupNorm(2, 4), random_image(2, 4, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_an_own_scale_behind_a_norm_is_the_norm_s(name: str, shift: bool) -> None:
    make, norm, x = NORMS[name]
    net = make(shift=shift)
    net.initialize(mx.init.Normal(0.5))
    report = check_parity(net, norm(), x, transfer=True)
    assert report.ok == shift, str(report)
    assert shift or "Gluon only" in str(report.first_divergence), str(report)


@pytest.mark.parametrize("turned", [False, True])
def test_an_own_scale_behind_a_norm_and_heads_is_the_norm_s(turned: bool) -> None:
    def ours(s: Any, F: Any, x: Any) -> Any:
        return F.transpose(F.reshape(s.n(s.d(x)), (0, 0, 2, 2)), axes=(0, 2, 1, 3))

    def theirs(s: Any, x: torch.Tensor) -> torch.Tensor:
        gain = s.weight.flip(0) if turned else s.weight
        return torch_heads(F.layer_norm(s.l(x), (4,))) * gain + s.bias

    dense = gnn.Dense(4, in_units=5, flatten=False)
    net = initialised(GluonNet(ours, d=dense, n=gnn.LayerNorm(in_channels=4)), TOKENS)
    made = {name: nn.Parameter(torch.randn(2, 1, 2)) for name in ("weight", "bias")}
    report = check_parity(net, TorchNet(theirs, l=nn.Linear(5, 4), **made), TOKENS, transfer=True)
    assert report.ok != turned, str(report)


class Scaled(gluon.HybridBlock):
    """`function(F, y, scale)` of what a layer gives."""

    def __init__(self, function: Any, *shape: int):
        super().__init__()
        self._function = function
        with self.name_scope():
            self.dense = gnn.Dense(4, in_units=5)
            self.scale = self.params.get("scale", shape=shape, init=mx.init.Normal(1))

    def hybrid_forward(self, F: Any, x: Any, scale: Any) -> Any:
        return self._function(F, F.tanh(self.dense(x)), scale)


def scaled(function: Callable[..., Any], *shape: int) -> TorchNet:
    scale = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    return TorchNet(lambda s, x: function(s.l(x).tanh(), s.scale), l=nn.Linear(5, 4), scale=scale)


def times(F: Any, y: Any, scale: Any) -> Any:
    return F.relu(F.broadcast_mul(y, scale))


# In both frameworks, and the shape of the scale
EXPANDED: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "expand_as": (times, lambda y, s: (y * s.expand_as(y)).relu(), 4),
    "expand": (times, lambda y, s: (s.expand(3, -1) * y).relu(), 4),
    "repeat": (times, lambda y, s: (y * s.repeat(3, 1)).relu(), 4),
    "tile": (times, lambda y, s: (y * s.tile(3, 1)).relu(), 4),
    "stack": (times, lambda y, s: (y * torch.stack([s] * 3)).relu(), 4),
    "broadcast_tensors": (
        times, lambda y, s: torch.mul(*torch.broadcast_tensors(y, s)).relu(), 4),
    "broadcast_like": (
        lambda F, y, s: F.relu(y * F.broadcast_like(F.expand_dims(s, 0), y)),
        lambda y, s: (y * s).relu(), 4),
    "MXNet's tile": (
        lambda F, y, s: F.relu(F.tile(s, (3, 1)) * y), lambda y, s: (y * s.view(1, 4)).relu(), 4),
    "a function of it": (
        lambda F, y, s: F.broadcast_div(y, F.abs(s) + 1),
        lambda y, s: y / (s.expand_as(y).abs() + 1), 4),
    "where": (
        lambda F, y, s: F.where(y > 0, y, F.broadcast_to(F.reshape(s, (1, 4)), (3, 4))),
        lambda y, s: torch.where(y > 0, y, s), 4),
    "values again": (
        lambda F, y, s: F.broadcast_add(y, F.repeat(s, 2)),
        lambda y, s: y + torch.stack([s, s], 1).flatten(), 2),
    "all of it again": (
        lambda F, y, s: F.broadcast_add(y, F.tile(s, 2)), lambda y, s: y + torch.cat([s, s]), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPANDED)
def test_a_parameter_that_is_expanded_is_in_parity_with_one_that_is_not(name: str) -> None:
    ours, theirs, size = EXPANDED[name]
    net = initialised(Scaled(ours, size), ROWS)
    report = check_parity(net, scaled(theirs, size), ROWS, transfer=True)
    assert report.ok, str(report)


def test_expanded_biases_and_scales_are_the_layer_s() -> None:
    dense = gnn.Dense(4, in_units=5, flatten=False)
    net = GluonNet(lambda s, F, x: s.n(s.d(x)), d=dense, n=gnn.LayerNorm(in_channels=4))

    def theirs(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, s.w) + s.a.repeat(2, 3, 1)
        return F.layer_norm(y, (4,)) * s.b.expand_as(y) + torch.broadcast_to(s.c, y.shape)

    shapes = {"w": (4, 5), "a": (4,), "b": (1, 4), "c": (4,)}
    own = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    report = check_parity(initialised(net, TOKENS), TorchNet(theirs, **own), TOKENS, transfer=True)
    assert report.ok, str(report)


FALSELY_EXPANDED: dict[str, tuple[Callable[..., Any], str]] = {
    "other axis": (lambda y, s: (y * s.view(4, 1).expand_as(y)).relu(), "mul forward"),
    "a little larger": (lambda y, s: (y * (s.expand_as(y) * 1.00001)).relu(), "mul structure"),
    "detached": (lambda y, s: (y * s.expand_as(y).detach()).relu(), "stopped gradient"),
    "in another order": (lambda y, s: (y * s.flip(0).expand_as(y)).relu(), "flip"),
    "values again": (
        lambda y, s: (y * s[:2].repeat_interleave(2)).relu(), "mul structure"),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSELY_EXPANDED)
def test_a_parameter_that_is_expanded_otherwise_is_named(name: str) -> None:
    function, words = FALSELY_EXPANDED[name]
    rows = random_image(4, 5)
    report = check_parity(
        initialised(Scaled(times, 4), rows), scaled(function, 4), rows, transfer=True
    )
    assert words in str(report.first_divergence), str(report)


@pytest.mark.parametrize("once", [False, True])
def test_a_parameter_along_two_axes_is_told_apart(once: bool) -> None:
    """What reads it in two shapes was taken for one operation, and both outputs were the first."""

    def ours(F: Any, y: Any, scale: Any) -> Any:
        columns = F.broadcast_mul(y, F.reshape(scale, (1, 4)))
        return F.broadcast_mul(y, F.reshape(scale, (4, 1))).tanh(), columns.exp()

    def theirs(y: torch.Tensor, scale: torch.Tensor) -> Any:
        rows = y * scale[:, None]
        return rows.tanh(), (rows if once else y * scale).exp()

    x = random_image(4, 5)
    net = initialised(Scaled(ours, 4), x)
    report = check_parity(net, scaled(theirs, 4), x, transfer=True)
    assert report.ok != once, str(report)


def test_a_parameter_of_no_axes_is_trained() -> None:
    report = check_parity(
        initialised(Scaled(times, 1), ROWS), scaled(lambda y, s: (y * s).relu()), ROWS,
        transfer=True, levels=("optimizer", "training"), loss="l2", labels=random_image(3, 4),
        steps=1, optimizer="sgd(lr=0.1)",
    )  # fmt: skip
    assert report.ok, str(report)


def turned_heads(F: Any, x: Any, weight: Any) -> Any:
    """Heads (N, 2, tokens, 3) of channels that are (3, 2)."""
    made = F.FullyConnected(x, weight, no_bias=True, num_hidden=6, flatten=False)
    return F.transpose(F.reshape(made, (0, 0, 3, 2)), axes=(0, 3, 1, 2))


def torch_turned(made: torch.Tensor) -> torch.Tensor:
    return made.view(2, 3, 3, 2).permute(0, 3, 1, 2)


def turned(forward: Callable[..., Any], *shape: int) -> Callable[[], TorchNet]:
    return lambda: TorchNet(
        forward, l=nn.Linear(5, 6, bias=False), b=nn.Parameter(torch.randn(shape))
    )


TURNED: dict[str, Callable[[], TorchNet]] = {
    "the layer's": lambda: TorchNet(lambda s, x: torch_turned(s.l(x)), l=nn.Linear(5, 6)),
    "before": turned(lambda s, x: (s.l(x).view(2, 3, 3, 2) + s.b).permute(0, 3, 1, 2), 3, 2),
    "before, flat": turned(lambda s, x: torch_turned(s.l(x) + s.b), 6),
    "before, transposed": turned(
        lambda s, x: (s.l(x).view(2, 3, 3, 2) + s.b.t()).permute(0, 3, 1, 2), 2, 3
    ),
    "behind": turned(lambda s, x: torch_turned(s.l(x)) + s.b[:, None], 2, 3),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_bias_along_axes_in_another_order_is_transposed(name: str, tmp_path: Path) -> None:
    net = initialised(Own(turned_heads, (6, 5), (1, 2, 1, 3)), TOKENS)
    path = tmp_path / "state.safetensors"
    report = check_parity(net, TURNED[name](), TOKENS, transfer=True, save_mapped=path)
    assert report.ok, str(report)
    (bias,) = (array.numpy() for name, array in load_file(path).items() if name != "l.weight")
    values = net.bias.data().asnumpy().reshape(2, 3)
    assert np.array_equal(bias.ravel(), (values if bias.shape[0] == 2 else values.T).ravel())


def test_scales_along_axes_in_another_order_are_transposed() -> None:
    dense = gnn.Dense(6, in_units=5, flatten=False)

    def ours(s: Any, F: Any, x: Any) -> Any:
        y = F.transpose(F.reshape(s.n(s.d(x)), (0, 0, 3, 2)), axes=(0, 3, 1, 2))
        return F.tanh(y)

    def theirs(s: Any, x: torch.Tensor) -> torch.Tensor:
        return (torch_turned(F.layer_norm(s.l(x), (6,))) * s.w + s.b).tanh()

    net = initialised(GluonNet(ours, d=dense, n=gnn.LayerNorm(in_channels=6)), TOKENS)
    own = {name: nn.Parameter(torch.randn(2, 1, 3)) for name in ("w", "b")}
    report = check_parity(net, TorchNet(theirs, l=nn.Linear(5, 6), **own), TOKENS, transfer=True)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (lambda b: b.T, ""),
        (lambda b: b, "l weights"),
        (lambda b: b.T * np.float32(1.00001), "l weights"),
    ],
)
def test_values_along_axes_in_another_order_are_compared(values: Any, words: str) -> None:
    net = initialised(Own(turned_heads, (6, 5), (1, 2, 1, 3)), TOKENS)
    theirs: Any = TURNED["the layer's"]()
    bias = values(net.bias.data().asnumpy().reshape(2, 3))
    theirs.l.weight.data = torch.from_numpy(net.weight.data().asnumpy())
    theirs.l.bias.data = torch.from_numpy(np.ascontiguousarray(bias).reshape(-1))
    report = check_parity(net, theirs, TOKENS)
    assert report.ok == (not words), str(report)
    assert words in str(report.first_divergence)


def by_einsum(equation: str, *shape: int, heads: int = 0) -> Callable[[], TorchNet]:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(2, (heads, -1)) if heads else x
        made = torch.einsum(equation, x, s.w).flatten(2)
        return made + s.b

    return lambda: TorchNet(
        forward, w=nn.Parameter(torch.randn(shape)), b=nn.Parameter(torch.randn(6))
    )


CUBES: dict[str, tuple[Callable[[], Any], Callable[[], TorchNet]]] = {
    "into heads": (
        lambda: gnn.Dense(6, in_units=8, flatten=False), by_einsum("btc,chd->bthd", 8, 2, 3)
    ),
    "out of heads": (
        lambda: gnn.Dense(6, in_units=8, flatten=False),
        by_einsum("bthd,hdc->btc", 2, 4, 6, heads=2),
    ),
    "rows": (
        lambda: gnn.Dense(6, in_units=8, flatten=False), by_einsum("btc,hdc->bthd", 2, 3, 8)
    ),
    "of Gluon's": (
        lambda: Own(lambda F, x, w: F.dot(x, F.reshape(w, (8, 6))), (8, 2, 3), (6,)),
        lambda: TorchNet(lambda s, x: s.l(x), l=nn.Linear(8, 6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUBES)
def test_a_matrix_of_more_axes_is_a_matrix(name: str, tmp_path: Path) -> None:
    x, path = random_image(2, 3, 8), tmp_path / "state.safetensors"
    ours, theirs = CUBES[name][0](), CUBES[name][1]()
    net = initialised(ours, x)
    report = check_parity(net, theirs, x, transfer=True, save_mapped=path)
    assert report.ok, str(report)
    held = {p.name: p.data().asnumpy() for p in net.collect_params().values()}
    weight = next(array for name, array in held.items() if name.endswith("weight"))
    saved = load_file(path)
    found = saved["l.weight" if "l.weight" in saved else "w"].numpy()
    rows = weight.reshape(8, 6).T if weight.ndim == 3 else weight
    assert np.array_equal(
        found.reshape(rows.shape if name in ("rows", "of Gluon's") else (8, 6)),
        rows if name in ("rows", "of Gluon's") else rows.T,
    )
    theirs.load_state_dict(saved)
    assert check_parity(net, theirs, x).ok
    with torch.no_grad():
        (wrong,) = (p for p in theirs.parameters() if p.ndim > 1)
        wrong.copy_(wrong.flip(0))
    assert "weights" in str(check_parity(net, theirs, x).first_divergence)


FALSELY_TURNED: dict[str, Callable[[], TorchNet]] = {
    "in other heads": lambda: TorchNet(
        lambda s, x: s.l(x).view(2, 3, 2, 3).transpose(1, 2), l=nn.Linear(5, 6)
    ),
    "missing": turned(lambda s, x: torch_turned(s.l(x)) + 0 * s.b[:, None], 2, 3),
    "of one shape": turned(lambda s, x: torch_turned(s.l(x) + s.b.reshape(-1)), 2, 3),
    "in another order": turned(lambda s, x: torch_turned(s.l(x) + s.b.flip(0)), 6),
    "detached": turned(lambda s, x: torch_turned(s.l(x) + s.b.detach()), 6),
}


@pytest.mark.parametrize("name", FALSELY_TURNED)
def test_a_bias_that_is_turned_otherwise_is_found(name: str) -> None:
    net = initialised(Own(turned_heads, (6, 5), (1, 2, 1, 3)), TOKENS)
    assert not check_parity(net, FALSELY_TURNED[name](), TOKENS, transfer=True).ok
