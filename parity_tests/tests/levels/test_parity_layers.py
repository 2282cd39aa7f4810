"""Every layer type that the models use, over shapes, strides and pads that hypothesis picks.

Each example is a whole parity run: both dtypes, forward and backward, local and inherited.
"""

from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mxnet.gluon import nn as gluon_nn
from torch import nn

from gluon_cnn.models.lenet5 import ScaledTanh as GluonScaledTanh
from parity_tests import check_parity
from parity_tests.cases.pairs import random_values
from parity_tests.reporting.report import Report
from torch_ref.models.layers import MXBatchNorm2d
from torch_ref.models.lenet5 import ScaledTanh

FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def _run(gluon_leaf: Any, torch_leaf: nn.Module, shape: tuple[int, ...], **more: Any) -> Report:
    """Parity of one layer, its weights drawn and copied from Gluon."""
    net = gluon_nn.HybridSequential()
    net.add(gluon_leaf)
    net.initialize()
    parameters = net._collect_params_with_prefix()
    drawn = {n: p.shape for n, p in parameters.items() if not n.endswith("bitmaps")}
    for path, value in random_values(drawn).items():
        parameters[path].set_data(mx.nd.array(value))
    inputs = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    levels = ["structure", *(["weights"] if parameters else []), "forward", "backward"]
    return check_parity(net, nn.Sequential(torch_leaf), inputs, None, levels, transfer=True, **more)


def _require(report: Report) -> None:
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}
    assert all(report.compared(level) for level in ("structure", "forward", "backward"))


sizes = st.integers(5, 9)
batches = st.integers(1, 3)


@FEW
@given(
    n=batches, group=st.sampled_from([1, 2, 3]), into=st.integers(1, 2), out=st.integers(1, 2),
    height=sizes, width=sizes, kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3), pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2), bias=st.booleans(),
)  # fmt: skip
def test_convolution(
    n: int, group: int, into: int, out: int, height: int, width: int, kernel: tuple[int, int],
    stride: int, pad: tuple[int, int], dilation: int, bias: bool,
) -> None:  # fmt: skip
    for size, k, p in zip((height, width), kernel, pad, strict=True):
        assume(size + 2 * p >= dilation * (k - 1) + 1)
    ours = gluon_nn.Conv2D(
        out * group, kernel, stride, pad, dilation, group, in_channels=into * group, use_bias=bias
    )
    theirs = nn.Conv2d(into * group, out * group, kernel, stride, pad, dilation, group, bias=bias)
    report = _run(ours, theirs, (n, into * group, height, width))
    # A convolution whose only output is one number is constant, and rightly no proof
    assume("constant" not in str(report))
    _require(report)


@FEW
@given(
    n=batches, channels=st.integers(1, 3), height=sizes, width=sizes, kernel=st.integers(2, 4),
    stride=st.integers(1, 3), pad=st.integers(0, 1), kind=st.sampled_from(["max", "in", "out"]),
)  # fmt: skip
def test_pooling(
    n: int, channels: int, height: int, width: int, kernel: int, stride: int, pad: int, kind: str
) -> None:
    if kind == "max":
        ours = gluon_nn.MaxPool2D(kernel, stride, pad)
        theirs: nn.Module = nn.MaxPool2d(kernel, stride, pad)
    else:
        counted = kind == "in"
        ours = gluon_nn.AvgPool2D(kernel, stride, pad, count_include_pad=counted)
        theirs = nn.AvgPool2d(kernel, stride, pad, count_include_pad=counted)
    report = _run(ours, theirs, (n, channels, height, width))
    assume("constant" not in str(report))
    _require(report)


@FEW
@given(n=batches, into=st.integers(1, 40), out=st.integers(2, 20), bias=st.booleans())
def test_dense(n: int, into: int, out: int, bias: bool) -> None:
    ours = gluon_nn.Dense(out, in_units=into, use_bias=bias)
    _require(_run(ours, nn.Linear(into, out, bias=bias), (n, into)))


@FEW
@given(
    n=st.integers(2, 4), channels=st.integers(1, 5), height=sizes, width=sizes,
    eps=st.sampled_from([1e-5, 1e-3]), momentum=st.sampled_from([0.9, 0.75, 0.99]),
)  # fmt: skip
def test_batch_norm(
    n: int, channels: int, height: int, width: int, eps: float, momentum: float
) -> None:
    ours = gluon_nn.BatchNorm(momentum=momentum, epsilon=eps, in_channels=channels)
    theirs = MXBatchNorm2d(channels, eps=eps, momentum=momentum)
    report = _run(ours, theirs, (n, channels, height, width), strict=True)
    _require(report)
    assert not report.notes


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: gluon_nn.Activation("relu"), nn.ReLU),
        (lambda: gluon_nn.Activation("sigmoid"), nn.Sigmoid),
        (lambda: gluon_nn.Activation("tanh"), nn.Tanh),
        (gluon_nn.Flatten, nn.Flatten),
        (lambda: gluon_nn.Dropout(0.5), lambda: nn.Dropout(0.5)),
        (GluonScaledTanh, ScaledTanh),
    ],
    ids=["relu", "sigmoid", "tanh", "flatten", "dropout", "scaled-tanh"],
)
def test_layers_without_parameters(ours: Any, theirs: Any, n: int) -> None:
    _require(_run(ours(), theirs(), (n, 3, 6, 5)))


def test_torchs_own_batch_norm_is_said_to_differ_as_predicted() -> None:
    """Its running variance is n/(n−1) larger: a note for foreign nets, a divergence for ours."""
    ours = gluon_nn.BatchNorm(in_channels=3)
    report = _run(ours, nn.BatchNorm2d(3, momentum=0.1), (2, 3, 6, 5))
    assert report.ok
    assert any("n/(n" in note.diagnosis or "unbiased" in note.diagnosis for note in report.notes)
    strict = _run(
        gluon_nn.BatchNorm(in_channels=3),
        nn.BatchNorm2d(3, momentum=0.1),
        (2, 3, 6, 5),
        strict=True,
    )
    assert not strict.ok


def test_a_wrong_momentum_complement_is_no_note() -> None:
    report = _run(gluon_nn.BatchNorm(in_channels=3), nn.BatchNorm2d(3, momentum=0.9), (2, 3, 6, 5))
    assert not report.ok
    assert report.first_divergence is not None
    assert report.first_divergence.level == "structure"


# doc-4's cross-correlations, worked by hand: a third witness of convolution itself
FIRST = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
KERNEL = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_frameworks_agree_with_the_hand(dtype: str) -> None:
    by_hand = np.array([[[[19, 25], [37, 43]]]], dtype)
    for found in _both(FIRST.astype(dtype), KERNEL.astype(dtype)):
        np.testing.assert_array_equal(found, by_hand)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_channels_are_summed_as_by_hand(dtype: str) -> None:
    x = np.concatenate([FIRST, FIRST + 1], axis=1).astype(dtype)
    kernel = np.concatenate([KERNEL, KERNEL + 1], axis=1).astype(dtype)
    for found in _both(x, kernel):
        assert found[0, 0, 0, 0] == 56
        np.testing.assert_array_equal(found, [[[[56, 72], [104, 120]]]])


def _both(x: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ours = mx.nd.Convolution(
        mx.nd.array(x, dtype=x.dtype), mx.nd.array(kernel, dtype=x.dtype),
        kernel=(2, 2), num_filter=1, no_bias=True,
    )  # fmt: skip
    theirs = nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(kernel))
    return ours.asnumpy(), theirs.numpy()
