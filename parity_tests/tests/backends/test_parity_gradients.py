"""Gradients that are noted on their way back: of every call, of parts that lead nowhere, whole."""

from __future__ import annotations

import mmap
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends import spill
from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.gluon.tracing.trace import trace_gluon
from parity_tests.backends.runs import Objective
from parity_tests.backends.torch import runs as torch_side
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised, random_image

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4)).astype(np.float32)
UPSTREAM = Objective((RNG.normal(size=(2, 2)).astype(np.float32),))


class Parts(nn.Module):
    """A leaf of two outputs."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.chunk(2, 1)


class FirstPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = Parts()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x)[0] * 3


def test_a_part_that_leads_nowhere_has_no_gradient() -> None:
    run = torch_side.run_net(FirstPart(), (X,), "float64", train=True, objective=UPSTREAM)
    (call,) = run.calls["parts"]
    assert call.upstream[1] is None
    (gradient,) = call.input_gradients
    assert gradient is not None
    np.testing.assert_array_equal(gradient[:, :2], 3 * UPSTREAM.upstream[0].astype(np.float64))
    np.testing.assert_array_equal(gradient[:, 2:], 0)


class _Rude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.mul_(2)


class Rude(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Rude.apply(x)


def test_a_backward_that_changes_its_gradient_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 2), Rude(), nn.Identity())
    with pytest.raises(RuntimeError, match="changes the gradient that it is given in place"):
        torch_side.run_net(net, (X,), "float64", train=True, objective=UPSTREAM)


def chain(dtype: str) -> tuple[Any, Any]:
    """One Dense layer that is called twice, in both frameworks, with the same weights."""
    ours, theirs = gluon_nn.HybridSequential(), nn.Sequential()
    dense, linear = gluon_nn.Dense(4, in_units=4, flatten=False), nn.Linear(4, 4)
    dense.initialize()
    linear.weight.data = torch.from_numpy(dense.weight.data().asnumpy())
    for block in (dense, gluon_nn.Activation("tanh"), dense):
        ours.add(block)
    for module in (linear, nn.Tanh(), linear):
        theirs.append(module)
    last, head = gluon_nn.Dense(2, in_units=4), nn.Linear(4, 2)
    last.initialize()
    head.weight.data = torch.from_numpy(last.weight.data().asnumpy())
    ours.add(last)
    theirs.append(head)
    nn.init.zeros_(linear.bias)
    nn.init.zeros_(head.bias)
    return ours, theirs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_call_has_its_own_gradient(dtype: str) -> None:
    ours, theirs = chain(dtype)
    how: dict[str, Any] = {"train": True, "objective": UPSTREAM}
    a = gluon_side.run_net(ours, (X,), dtype, **how)
    b = torch_side.run_net(theirs, (X,), dtype, **how)
    calls = [call for found in a.calls.values() for call in found]
    others = [call for found in b.calls.values() for call in found]
    assert len(calls) == len(others) == 4
    for one, other in zip(calls, others, strict=True):
        for mine, yours in zip(one.input_gradients, other.input_gradients, strict=True):
            assert mine is not None
            assert yours is not None
            assert mine.dtype == dtype
            np.testing.assert_allclose(mine, yours, rtol=1e-5, atol=1e-7)
        for y, z in zip(one.outputs, other.outputs, strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-7)
    assert a.output_gradient is not None
    assert b.output_gradient is not None
    np.testing.assert_array_equal(a.output_gradient, b.output_gradient)


def test_what_is_noted_stays_when_mxnet_takes_its_memory_back() -> None:
    """MXNet's own memory of gradients, and of outputs once their graph is gone, is used again."""
    ours, _ = chain("float64")
    run = gluon_side.run_net(ours, (X,), "float64", train=True, objective=UPSTREAM)
    noted = [
        array
        for found in run.calls.values()
        for call in found
        for array in (*call.input_gradients, *call.outputs)
        if array is not None
    ]
    before = [np.array(array) for array in noted]
    for _ in range(50):
        mx.nd.random.normal(shape=(2, 4), dtype="float64").asnumpy()
        gluon_side.run_net(ours, (X * 3,), "float64", train=True, objective=UPSTREAM)
    for array, kept in zip(noted, before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_nothing_comes_back_from_what_nobody_reads_and_that_is_zeros() -> None:
    class Aside(gluon_nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.read = gluon_nn.Dense(2, in_units=4)
            self.aside = gluon_nn.Dense(4, in_units=4)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.read(x) + 0 * F.BlockGrad(self.aside(x)).slice_axis(axis=1, begin=0, end=2)

    ours = Aside()
    ours.initialize()
    for _ in range(20):  # in memory that others have written to
        mx.nd.full((2, 4), np.nan, dtype="float64").wait_to_read()
    run = gluon_side.run_net(ours, (X,), "float64", train=True, objective=UPSTREAM)
    (aside,), (read,) = (run.calls[name][0].input_gradients for name in ("aside", "read"))
    assert aside is not None
    assert read is not None
    assert not aside.any()
    assert read.any()


def test_gradients_of_a_whole_step_wait_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_LEAST", 16)
    ours, _ = chain("float64")
    run = gluon_side.run_net(ours, (X,), "float64", train=True, objective=UPSTREAM)
    for call in (call for found in run.calls.values() for call in found):
        for array in (*call.input_gradients, *call.outputs):
            assert array is not None
            assert isinstance(array.base, mmap.mmap)


def test_more_channels_than_a_scale_has_never_reach_mxnet() -> None:
    """MXNet's BatchNorm reads beyond its scale, and in training writes beyond its statistics."""
    image = random_image(2, 4, 3, 3)
    wide = random_image(2, 144, 3, 3)
    norm = initialised(gluon_nn.BatchNorm(in_channels=4), image)
    (leaf,) = leaves(norm)
    assert gluon_side.run_leaf(leaf, (image,), "float32", train=True)["output"].shape == image.shape
    with pytest.raises(ValueError, match="144 channels, not 4"):
        gluon_side.run_leaf(leaf, (wide,), "float32", train=True)
    with pytest.raises(ValueError, match="144 channels, not 4"):
        trace_gluon(norm, mx.nd.array(wide), train=True)
    theirs = nn.Sequential(nn.Conv2d(4, 144, 1), nn.BatchNorm2d(144))
    ours = gluon_nn.HybridSequential()
    ours.add(gluon_nn.Conv2D(4, 1, in_channels=4), gluon_nn.BatchNorm(in_channels=4))
    first = check_parity(initialised(ours, image), theirs, image).first_divergence
    assert first is not None
    assert "torch has (144,)" in str(first)


@pytest.mark.parametrize("name", ["SequenceLast", "SequenceReverse"])
def test_lengths_beyond_the_end_never_reach_mxnet(name: str) -> None:
    net = GluonNet(lambda s, F, x, n: getattr(F, name)(x, n, use_sequence_length=True))
    x = mx.nd.array(random_image(3, 2, 4))
    assert len(trace_gluon(net, x, mx.nd.array([1, 3]))) == 1
    with pytest.raises(ValueError, match="of 3 steps has the length 4"):
        trace_gluon(net, x, mx.nd.array([1, 4]))


def test_a_last_step_without_lengths_is_not_compared_backward() -> None:
    image = random_image(3, 2, 4)
    ours = GluonNet(lambda s, F, x: s.d(F.SequenceLast(x)), d=gluon_nn.Dense(5, in_units=4))
    theirs = TorchNet(lambda s, x: s.d(x[-1]), d=nn.Linear(4, 5))
    report = check_parity(initialised(ours, image), theirs, image, transfer=True)
    assert {row.level for row in report.failures} == {Level.BACKWARD}
    assert "write x[-1]" in str(report.first_divergence)
