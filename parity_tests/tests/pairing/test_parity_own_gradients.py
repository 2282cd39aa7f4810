"""Gradients that differ from what runs forwards: functions of their own, stops, and zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import autograd, gluon
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.gluon.tracing.replay import passes_no_gradient
from parity_tests.backends.gluon.tracing.trace import trace_gluon
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised, random_image

IMAGE = random_image()  # (2, 4, 8, 8)

Forward = Callable[..., Any]


class _Passed(autograd.Function):
    """The identity, whose gradient is a multiple of what it is."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        return x * 1

    def backward(self, gradient: mx.nd.NDArray) -> mx.nd.NDArray:
        return gradient * self._factor


class _Passes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float, copied: bool = True) -> torch.Tensor:
        ctx.factor = factor
        return x.clone() if copied else x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * ctx.factor, None, None


class _Split(autograd.Function):
    """Twice and three times a value, of which the second sends back a factor of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, x: mx.nd.NDArray) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        return x * 2, x * 3

    def backward(self, one: mx.nd.NDArray, other: mx.nd.NDArray) -> mx.nd.NDArray:
        return one * 2 + other * self._factor


class _Splits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.factor = factor
        return x * 2, x * 3

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * 2 + gradients[1] * ctx.factor, None


class _Imperative(gluon.Block):
    """Two convolutions by the same forward as torch's, which may call functions of its own."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward = forward
        self.a, self.b = (gnn.Conv2D(4, 1, in_channels=4) for _ in range(2))

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        return self._forward(self, x)


def _pair(gluon_forward: Forward, torch_forward: Forward) -> tuple[Any, nn.Module]:
    convs = {name: nn.Conv2d(4, 4, 1) for name in "ab"}
    return _Imperative(gluon_forward), TorchNet(torch_forward, **convs)


def plain(s: Any, x: Any) -> Any:
    return s.b(s.a(x))


def _split(factor: float) -> Forward:
    def forward(s: Any, x: Any) -> Any:
        one, other = _Split(factor)(s.a(x))
        return s.b(mx.nd.tanh(one) + mx.nd.sigmoid(other))

    return forward


def _splits(factor: float) -> Forward:
    def forward(s: Any, x: Any) -> Any:
        one, other = _Splits.apply(s.a(x), factor)
        return s.b(one.tanh() + other.sigmoid())

    return forward


def _paused(s: Any, x: Any) -> Any:
    with autograd.pause():
        y = s.a(x)
    return s.b(y)


def _no_grad(s: Any, x: Any) -> Any:
    with torch.no_grad():
        y = s.a(x)
    return s.b(y)


def _detached(s: Any, x: Any) -> Any:
    return s.b(s.a(x).detach())


EQUAL: dict[str, tuple[Forward, Forward]] = {
    "one function on both sides": (
        lambda s, x: s.b(_Passed(-1.0)(s.a(x))), lambda s, x: s.b(_Passes.apply(s.a(x), -1.0)),
    ),
    "a function with the right gradient": (lambda s, x: s.b(_Passed(1.0)(s.a(x))), plain),
    "one function of two outputs on both sides": (_split(-3.0), _splits(-3.0)),
    "a prefix that is detached": (_detached, _detached),
    "a prefix without recording": (_paused, _no_grad),
    "a prefix that is blocked": (lambda s, x: s.b(mx.nd.BlockGrad(s.a(x))), _detached),
    "an input that is detached, times 1": (
        lambda s, x: s.b(s.a(x)) * (x.detach() * 1.0), lambda s, x: s.b(s.a(x)) * x.detach(),
    ),
    "a gradient that is stopped before and behind the rest": (
        lambda s, x: s.b(x) * (s.a(x).detach() * 2).tanh(),
        lambda s, x: s.b(x) * (s.a(x) * 2).tanh().detach(),
    ),
    "an output whose gradient is": (
        lambda s, x: (s.b(x), s.a(x).detach() * 2), lambda s, x: (s.b(x), (s.a(x) * 2).detach()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_gradients_are_in_parity(name: str) -> None:
    ours, theirs = _pair(*EQUAL[name])
    report = check_parity(initialised(ours, IMAGE), theirs, IMAGE, transfer=True)
    assert report.ok, str(report)


# What differs, at which place, and what it is called
DIFFERENT: dict[str, tuple[Forward, Forward, str, str]] = {
    "Gluon's function halves": (
        lambda s, x: s.b(_Passed(0.5)(s.a(x))), plain, "b", "torch's are 2 times Gluon's",
    ),
    "torch's function gives back its input and reverses": (
        plain, lambda s, x: s.b(_Passes.apply(s.a(x), -1.0, False)), "b", "negated",
    ),
    "torch's function reverses": (
        plain, lambda s, x: s.b(_Passes.apply(s.a(x), -1.0)), "b", "negated",
    ),
    "Gluon's function of two outputs reverses one": (
        _split(-3.0), _splits(3.0), "mul (2)", "negated",
    ),
    "torch's function of two outputs halves one": (
        _split(3.0), _splits(1.5), "mul (2)", "torch's are 0.5 times Gluon's",
    ),
    "torch detaches": (plain, _detached, "b", "stopped gradient"),
    "Gluon detaches": (_detached, plain, "b", "stopped gradient"),
    "torch detaches its output, times 1": (
        plain, lambda s, x: plain(s, x).detach() * 1.0, "mul", "stopped gradient",
    ),
    "Gluon detaches one of two equal values": (
        lambda s, x: s.a(x).relu() + s.b(s.a(x).detach().relu()),
        lambda s, x: s.a(x).relu() + s.b(s.a(x).relu()), "relu", "stopped gradient",
    ),
    "torch does not record": (plain, _no_grad, "a", "stopped gradient"),
    "Gluon does not record": (_paused, plain, "a", "stopped gradient"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_gradient_is_named_where_it_is_made(name: str) -> None:
    *forwards, path, words = DIFFERENT[name]
    ours, theirs = _pair(*forwards)
    report = check_parity(initialised(ours, IMAGE), theirs, IMAGE, transfer=True)
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path) == (Level.BACKWARD, path), str(first)
    assert words in first.diagnosis


# Without a gradient MXNet's own backward pass of these is ended by SIGSEGV
FLAT: dict[str, tuple[Forward, Forward]] = {
    "compared": (lambda F, x: x > 0, lambda x: (x > 0).to(x.dtype)),
    "rounded": (lambda F, x: F.round(x * 3), lambda x: (x * 3).round()),
    "zeros of sums": (
        lambda F, x: F.softmax(F.zeros_like(F.sum(x, axis=3)) + F.sum(F.square(x), axis=3)),
        lambda x: (torch.zeros(2, 4, 8, dtype=x.dtype) + (x * x).sum(3)).softmax(-1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_what_passes_no_gradient_ends_no_process(name: str) -> None:
    gluon_forward, torch_forward = FLAT[name]
    conv = gnn.Conv2D(4, 1, in_channels=4)
    ours = GluonNet(lambda s, F, x: gluon_forward(F, s.c(x)), c=conv)
    theirs = TorchNet(lambda s, x: torch_forward(s.c(x)), c=nn.Conv2d(4, 4, 1))
    ours = initialised(ours, IMAGE)
    report = check_parity(ours, theirs, IMAGE, transfer=True, isolate=True)
    assert report.ok, str(report)


UNARY = ("ceil", "fix", "floor", "rint", "round", "trunc", "zeros_like", "ones_like", "argmax",
         "argmin", "argsort", "logical_not", "BlockGrad")  # fmt: skip
BINARY = ("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal",
          "logical_and", "logical_or", "logical_xor")  # fmt: skip


@pytest.mark.parametrize("name", [*UNARY, *(f"broadcast_{name}" for name in BINARY)])
def test_operators_that_pass_no_gradient_pass_none(name: str) -> None:
    assert passes_no_gradient(name)
    function = getattr(mx.nd, name)
    x = mx.nd.array([[0.5, -1.5], [2.5, 3.0]])
    x.attach_grad()
    with autograd.record():
        y = function(x) if name in UNARY else function(x, x * 2)
        total = y.sum() + (x * 2).sum()
    total.backward()
    np.testing.assert_array_equal(x.grad.asnumpy(), 2)


@pytest.mark.parametrize(
    "name", ["abs", "sign", "broadcast_maximum", "clip", "where", "_mod_scalar", "slice_like"]
)
def test_operators_that_pass_a_gradient_are_not_among_them(name: str) -> None:
    assert not passes_no_gradient(name)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_state_that_nobody_reads_leaves_an_envelope(kind: str) -> None:
    x = np.random.default_rng(1).standard_normal((5, 2, 4)).astype(np.float32)
    states = [np.full((1, 2, 3), 0.5, np.float32)] * (2 if kind == "LSTM" else 1)
    layer = getattr(gluon.rnn, kind)(3, input_size=4)
    ours = GluonNet(lambda s, F, x, *h: s.l(x, list(h))[0], l=layer)

    def forward(s: Any, x: torch.Tensor, *h: torch.Tensor) -> Any:
        return s.l(x, h if kind == "LSTM" else h[0])[0]

    theirs = TorchNet(forward, l=getattr(nn, kind)(4, 3))
    ours.initialize(mx.init.Normal(0.4))
    report = check_parity(ours, theirs, (x, *states), transfer=True)
    assert report.ok, str(report)


def test_a_weight_that_each_run_computes_anew_is_copied() -> None:
    class Normed(gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.v = self.params.get("weight_v", shape=(3, 4))
                self.g = self.params.get("weight_g", shape=(3, 1))
                self.bias = self.params.get("bias", shape=(3,))

        def hybrid_forward(self, F: Any, x: Any, v: Any, g: Any, bias: Any) -> Any:
            weight = F.broadcast_mul(v, F.broadcast_div(g, F.norm(v, axis=1, keepdims=True)))
            return F.FullyConnected(x, weight, bias, num_hidden=3)

    ours = Normed()
    ours.initialize(mx.init.Normal(0.4))
    with pytest.warns(FutureWarning, match="weight_norm"):
        theirs = nn.utils.weight_norm(nn.Linear(4, 3))
    x = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
    theirs(torch.from_numpy(x))
    assert not theirs.weight.is_leaf
    report = check_parity(ours, theirs, x, transfer=True)
    assert report.ok, str(report)


def test_a_trace_leaves_functions_as_they_were() -> None:
    original = autograd.Function.__call__
    net = _Imperative(lambda s, x: s.b(_Passed(2.0)(s.a(x))))
    graph = trace_gluon(initialised(net, IMAGE), mx.nd.array(IMAGE))
    assert [op.own_gradient for op in graph] == ["", "own gradient", ""]
    assert autograd.Function.__call__ is original


def reversed_rows(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    places = torch.arange(len(x))[:, None]
    moved = torch.where(places < lengths, lengths - 1 - places, places)
    return x.gather(0, moved.long()[..., None].expand(x.shape))


# Operators of sequences whose lengths are an input, and what they compute
OF_LENGTHS: dict[str, Any] = {
    "SequenceMask": lambda x, n: x * (torch.arange(len(x))[:, None] < n)[..., None],
    "SequenceLast": lambda x, n: x[n.long() - 1, torch.arange(x.shape[1])],
    "SequenceReverse": reversed_rows,
}


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("name", OF_LENGTHS)
def test_lengths_of_sequences_have_no_gradient(name: str, dtype: str) -> None:
    """MXNet sends back what lies in the memory for that of lengths in floats."""
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    lengths = np.array([2, 5, 3], dtype)
    for more in (0, 1):
        gluon_net = GluonNet(
            lambda s, F, x, n: getattr(F, name)(s.d(x), n, use_sequence_length=True),
            d=gnn.Dense(4, flatten=False, in_units=4),
        )
        gluon_net.initialize()
        torch_net = TorchNet(
            lambda s, x, n, more=more: OF_LENGTHS[name](s.d(x), n - more), d=nn.Linear(4, 4)
        )
        report = check_parity(gluon_net, torch_net, (x, lengths), transfer=True)
        assert report.ok == (not more), str(report)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_an_array_that_gives_a_shape_gets_no_gradient(factor: float) -> None:
    """MXNet 1.9.1 ended by SIGSEGV once more was done with the gradient that it lacks."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        x = F.swapaxes(F.reshape(s.c(x), (0, 0, -1)), 1, 2)
        token = s.token(F.zeros((1, 1)))
        token = F.broadcast_like(token, F.slice_axis(x, axis=1, begin=0, end=1))
        return s.d(F.concat(token, x, dim=1))

    def forward_in_torch(s: Any, x: torch.Tensor) -> Any:
        x = s.c(x).flatten(2).mT
        token = s.token(torch.zeros(1, 1, dtype=torch.long))
        return s.d(torch.cat((factor * token.expand(len(x), -1, -1), x), 1))

    ours = {"c": gnn.Conv2D(4, 4, 4, in_channels=4), "d": gnn.Dense(3, in_units=20)}
    theirs = {"c": nn.Conv2d(4, 4, 4, 4), "d": nn.Sequential(nn.Flatten(), nn.Linear(20, 3))}
    net = initialised(GluonNet(forward, token=gnn.Embedding(1, 4), **ours), IMAGE)
    torch_net = TorchNet(forward_in_torch, token=nn.Embedding(1, 4), **theirs)
    report = check_parity(net, torch_net, IMAGE, transfer=True, isolate=True)
    assert report.ok == (factor == 1.0), str(report)
    assert "crashed" not in str(report)
