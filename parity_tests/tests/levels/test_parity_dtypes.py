"""Nets of float16 and float64, and floats of another dtype than the net's, inside and given."""

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
from parity_tests.tests.pairing.nets import GluonNet, ImperativeNet, TorchNet

X = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
Forward = Callable[..., Any]


def compared(ours: Forward, theirs: Forward, quick: bool = False) -> Report:
    """`ours(F, y)` and `theirs(y)` of a layer's output."""
    nets = cast_pair("float32", lambda d, F, x: ours(F, d(x)), lambda d, x: theirs(d(x)))
    return check_parity(*nets, X, transfer=True, quick=quick)


def cast_pair(dtype: str, ours: Forward, theirs: Forward) -> tuple[GluonNet, TorchNet]:
    """`ours(d, F, x)` and `theirs(d, x)` with a layer d each, cast as a whole."""
    mx.random.seed(0)
    net = GluonNet(lambda s, F, x: ours(s.d, F, x), d=gluon.nn.Dense(6, in_units=6))
    net.initialize(mx.init.Xavier())
    net.cast(dtype)
    other = TorchNet(lambda s, x: theirs(s.d, x), d=nn.Linear(6, 6))
    return net, other.to(getattr(torch, dtype))


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


# By what both do: the dtype of both nets, Gluon's forward, torch's, and one with a fault
Cast = tuple[str, Forward, Forward, Forward]
CAST: dict[str, Cast] = {
    "both cast their input": (
        "float16",
        lambda d, F, x: F.tanh(d(x.astype("float16"))),
        lambda d, x: d(x.half()).tanh(),
        lambda d, x: d(x.half()).tanh() * 1.001,
    ),
    "torch casts its input": (
        "float64",
        lambda d, F, x: F.tanh(d(x)),
        lambda d, x: d(x.type_as(d.weight)).tanh(),
        lambda d, x: d(x.to(torch.float64)).sigmoid(),
    ),
    "Gluon casts its input": (
        "float64",
        lambda d, F, x: F.tanh(d(F.amp_cast(x, dtype="float64"))),
        lambda d, x: d(x).tanh(),
        lambda d, x: -d(x).tanh(),
    ),
    "a softmax in float32": (
        "float16",
        lambda d, F, x: d(F.cast(F.softmax(F.cast(d(x), "float32")), "float16")),
        lambda d, x: d(d(x).float().softmax(-1).type("torch.HalfTensor")),
        lambda d, x: d(d(x).float().softmax(0).half()),
    ),
    "torch's softmax in float32": (
        "float16",
        lambda d, F, x: d(F.softmax(d(x))),
        lambda d, x: d(d(x).softmax(-1, dtype=torch.float32).to(x.dtype)),
        lambda d, x: d((1.001 * d(x)).softmax(-1, dtype=torch.float32).to(x.dtype)),
    ),
    "an output in float32": (
        "float16",
        lambda d, F, x: F.log_softmax(d(x).astype("float32")),
        lambda d, x: d(x).float().log_softmax(-1),
        lambda d, x: d(x).log_softmax(-1),
    ),
    "an output in float64": (
        "float64",
        lambda d, F, x: F.relu(d(x)),
        lambda d, x: d(x.double()).relu(),
        lambda d, x: d(x.double()).relu().float(),
    ),
    "float16 inside": (
        "float64",
        lambda d, F, x: d(F.cast(F.cast(d(x), "float16"), "float64")),
        lambda d, x: d(d(x).half().double()),
        lambda d, x: d(d(x)),
    ),
    "arrays that the code makes": (
        "float16",
        lambda d, F, x: F.broadcast_mul(d(x), F.arange(6, dtype="float16").expand_dims(0)),
        lambda d, x: d(x) * torch.arange(6, dtype=torch.float16),
        lambda d, x: d(x) * torch.arange(1, 7, dtype=torch.float16),
    ),
}


@pytest.mark.parametrize("name", CAST)
def test_nets_that_are_cast_whole_may_cast_in_their_forward(name: str) -> None:
    dtype, ours, theirs, wrong = CAST[name]
    inputs = X.astype(dtype) if name.startswith("an output") else X
    report = check_parity(*cast_pair(dtype, ours, theirs), inputs, transfer=True)
    assert report.ok, str(report)
    faulty = check_parity(*cast_pair(dtype, ours, wrong), inputs, transfer=True, quick=True)
    assert faulty.first_divergence is not None
    assert "did not run" not in str(faulty.first_divergence)


def test_a_cast_net_and_its_loss_in_float32_train_alike() -> None:
    def report_of(theirs: Forward) -> Report:
        return check_parity(
            *cast_pair("float16", lambda d, F, x: d(x.astype("float16")), theirs),
            X,
            np.arange(3),
            ("backward", "training"),
            transfer=True,
            loss=(
                lambda y, label: -mx.nd.pick(mx.nd.log_softmax(y.astype("float32")), label),
                lambda y, label: nn.functional.cross_entropy(y.float(), label),
            ),
            optimizer="sgd(lr=0.1)",
            steps=2,
        )

    report = report_of(lambda d, x: d(x.half()))
    assert report.ok, str(report)
    assert not report_of(lambda d, x: d(1.001 * x.half())).ok


def test_code_of_arrays_is_no_symbol_and_casts_too() -> None:
    net = ImperativeNet(lambda s, x: mx.nd.tanh(s.d(x).astype("float32")), d=gluon.nn.Dense(6))
    net.initialize()
    net(mx.nd.array(X))
    net.cast("float16")
    other = TorchNet(lambda s, x: s.d(x).float().tanh(), d=nn.Linear(6, 6)).half()
    assert check_parity(net, other, X, transfer=True).ok


def casting(wide: str, dtype: str, slope: float = 0.5) -> Callable[..., Any]:
    """tanh(0.1 x), computed in a dtype of its own, beside a sigmoid; with a slope of its own."""

    class Casting(mx.autograd.Function):
        def forward(self, x: Any) -> Any:
            x = x.astype(wide)
            self.save_for_backward(x)
            return (x * mx.nd.full((1, 6), 0.1)).tanh().astype(dtype), x.sigmoid().astype(dtype)

        def backward(self, one: Any, other: Any) -> Any:
            (x,) = self.saved_tensors
            one, ones = one.astype(wide), mx.nd.one_hot(mx.nd.arange(6), 6)
            moved = mx.nd.dot(one * slope, ones)
            back = moved + other.astype(wide) * x.sigmoid() * (1 - x.sigmoid())
            return back.astype(dtype)

    return lambda x: Casting()(x)


def theirs_casting(wide: str, dtype: str, slope: float = 0.5, scale: float = 0.1) -> Forward:
    inner, outer = getattr(torch, wide), getattr(torch, dtype)

    class Casting(torch.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            x = x.type(inner)
            return (x * torch.full((6,), scale)).tanh().to(outer), x.sigmoid().to(dtype=outer)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(inputs[0].to(inner))

        @staticmethod
        def vjp(ctx: Any, *gradients: Any) -> Any:
            (x,) = ctx.saved_tensors
            one, other = (g.to(inner) for g in gradients)
            moved = one @ (torch.eye(6) * slope)
            return (moved + other * x.sigmoid() * (1 - x.sigmoid())).to(outer)

    return lambda x: Casting.apply(x)


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float16", "float32"), ("float16", "float64"), ("float64", "float32"), ("float32",) * 2],
)
def test_functions_with_a_gradient_of_their_own_may_cast(dtype: str, wide: str) -> None:
    def report_of(**changed: float) -> Report:
        def ours(s: Any, x: Any) -> Any:
            one, other = casting(wide, dtype)(s.d(x))
            return s.d(one) + mx.nd.sin(other)

        def theirs(s: Any, x: Any) -> Any:
            one, other = theirs_casting(wide, dtype, **changed)(s.d(x))
            return s.d(one) + other.sin()

        net = ImperativeNet(ours, d=gluon.nn.Dense(6, in_units=6))
        net.initialize(mx.init.Xavier())
        net.cast(dtype)
        other = TorchNet(theirs, d=nn.Linear(6, 6)).to(getattr(torch, dtype))
        return check_parity(net, other, X, transfer=True)

    assert report_of().ok, str(report_of())
    sloped, scaled = report_of(slope=0.50001).first_divergence, report_of(scale=0.100001)
    assert sloped is not None
    assert (sloped.level, sloped.path) == ("backward", "tanh")
    assert scaled.first_divergence is not None
    assert scaled.first_divergence.level != "backward"


def test_a_value_that_a_function_gives_cast_has_its_gradient_and_not_that_outside() -> None:
    class Ours(mx.autograd.Function):
        def forward(self, x: Any) -> Any:
            return (x * 2).astype("float32")

        def backward(self, gradient: Any) -> Any:
            return gradient * 3

    class Theirs(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, slope: float) -> Any:
            ctx.slope = slope
            return (x * 2).view_as(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0] * ctx.slope, None

    for first in (True, False):
        for slope in (3.0, 2.0):

            def ours(s: Any, x: Any, first: bool = first) -> Any:
                y = s.d(x)
                outside = [] if first else [y * 2]
                inside = Ours()(y)
                return mx.nd.tanh(*(outside or [y * 2])) + mx.nd.sigmoid(inside)

            def theirs(s: Any, x: Any, slope: float = slope) -> Any:
                y = s.d(x)
                return (y * 2).tanh() + Theirs.apply(y, slope).sigmoid()

            net = ImperativeNet(ours, d=gluon.nn.Dense(6, in_units=6))
            net.initialize(mx.init.Xavier())
            other = TorchNet(theirs, d=nn.Linear(6, 6))
            assert check_parity(net, other, X, transfer=True).ok == (slope == 3.0), (first, slope)
