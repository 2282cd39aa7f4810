"""Every record of the table, in both frameworks and both dtypes, against its reference value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mxnet.gluon import contrib
from mxnet.gluon import nn as gluon_nn
from torch import nn

from gluon_cnn.models.lenet5 import RBFOutput as GluonRBFOutput
from gluon_cnn.models.lenet5 import ScaledTanh as GluonScaledTanh
from gluon_cnn.models.lenet5 import TableConv2D as GluonTableConv2D
from gluon_cnn.models.lenet5 import TrainableSubsampling as GluonSubsampling
from parity_tests import Report, check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.backends.gluon import clones as gluon_clones
from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import LeafRun
from parity_tests.backends.torch import runs as torch_side
from parity_tests.cases.pairs import random_values
from parity_tests.faults.kinds.pairs import plain_case
from parity_tests.levels.local import mode_of, upstream_for
from parity_tests.levels.structure import structure_rows
from parity_tests.levels.weights import copy_weights, pairing_map
from parity_tests.numerics.compare import Mismatch, compare
from parity_tests.numerics.operators.cases import ScaleCase, Scales
from parity_tests.numerics.operators.record import Operator, Tolerance
from parity_tests.numerics.operators.table import (
    OPERATORS,
    describe,
    operator_of,
    registered,
    tolerance,
)
from parity_tests.numerics.reference import reference_value
from parity_tests.numerics.scales import scales_of
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.verdicts import Level, Side, Status
from torch_ref.models.layers import MXBatchNorm2d
from torch_ref.models.lenet5 import RBFOutput, ScaledTanh, TableConv2D, TrainableSubsampling

# One point of an operator's attribute space: how each framework writes it, None where Gluon has no
# class or MXNet does not compute it on a CPU
Sample = tuple[Callable[[], Any] | None, Callable[[], nn.Module]]


class HardSigmoid(nn.Module):
    """MXNet's hard_sigmoid; torch's own has another slope."""

    def __init__(self, alpha: float = 0.2, beta: float = 0.5) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.alpha * x + self.beta).clamp(0, 1)


def activation(name: str) -> Callable[[], Any]:
    return lambda: gluon_nn.Activation(name)


def function(name: str) -> Callable[[], Any]:
    return lambda: gluon_nn.HybridLambda(name)


def samples_of_convolutions() -> Iterator[tuple[str, list[Sample]]]:
    space: list[dict[str, Any]] = [
        {}, {"stride": 2, "pad": 1}, {"pad": 2, "dilation": 2}, {"groups": 2, "bias": False},
    ]  # fmt: skip
    for d in (1, 2, 3):
        plain: list[Sample] = []
        transposed: list[Sample] = []
        for point in space:
            p = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1, "bias": True} | point
            ours = {
                "strides": p["stride"], "padding": p["pad"], "dilation": p["dilation"],
                "groups": p["groups"], "use_bias": p["bias"], "in_channels": 4,
            }  # fmt: skip
            theirs = {
                "stride": p["stride"], "padding": p["pad"], "dilation": p["dilation"],
                "groups": p["groups"], "bias": p["bias"],
            }  # fmt: skip
            plain.append((
                partial(getattr(gluon_nn, f"Conv{d}D"), 6, 3, **ours),
                partial(getattr(nn, f"Conv{d}d"), 4, 6, 3, **theirs),
            ))  # fmt: skip
            transposed.append((
                None if d == 3 else partial(getattr(gluon_nn, f"Conv{d}DTranspose"), 6, 3, **ours),
                partial(getattr(nn, f"ConvTranspose{d}d"), 4, 6, 3, **theirs),
            ))  # fmt: skip
        yield f"conv{d}d", plain
        yield f"conv{d}d_transpose", transposed


def samples_of_pools() -> Iterator[tuple[str, list[Sample]]]:
    for d in (1, 2, 3):
        for pool in ("Max", "Avg"):
            ours: Any = getattr(gluon_nn, f"{pool}Pool{d}D")
            theirs: Any = getattr(nn, f"{pool}Pool{d}d")
            adaptive: Any = getattr(nn, f"Adaptive{pool}Pool{d}d")
            yield (
                f"{pool.lower()}_pool{d}d",
                [
                    (partial(ours, 2), partial(theirs, 2)),
                    (partial(ours, 3, 2, 1), partial(theirs, 3, 2, 1)),
                ],
            )
            yield (
                f"global_{pool.lower()}_pool{d}d",
                [(getattr(gluon_nn, f"Global{pool}Pool{d}D"), partial(adaptive, 1))],
            )
            yield (
                f"adaptive_{pool.lower()}_pool{d}d",
                [(None, partial(adaptive, 5))],
            )


SAMPLES: dict[str, list[Sample]] = {
    **dict(samples_of_convolutions()),
    **dict(samples_of_pools()),
    "dense": [
        (partial(gluon_nn.Dense, 5, in_units=7), lambda: nn.Linear(7, 5)),
        (partial(gluon_nn.Dense, 5, in_units=300, use_bias=False),
         lambda: nn.Linear(300, 5, bias=False)),
    ],
    "subsampling": [(partial(GluonSubsampling, 3),
                     lambda: TrainableSubsampling(3))],
    "table_conv": [(partial(GluonTableConv2D, 2, ((0,), (0, 1), (1,)), 3),
                    lambda: TableConv2D(2, ((0,), (0, 1), (1,)), 3))],
    "batchnorm": [
        (partial(gluon_nn.BatchNorm, epsilon=1e-3, in_channels=3),
         lambda: MXBatchNorm2d(3, eps=1e-3)),
    ],
    "relu": [(activation("relu"), nn.ReLU), (function("relu"), nn.ReLU)],
    "sigmoid": [(activation("sigmoid"), nn.Sigmoid), (function("sigmoid"), nn.Sigmoid)],
    "hard_sigmoid": [(function("hard_sigmoid"), HardSigmoid)],
    "tanh": [(activation("tanh"), nn.Tanh), (function("tanh"), nn.Tanh)],
    "scaled_tanh": [(GluonScaledTanh, ScaledTanh)],
    "softplus": [(activation("softrelu"), nn.Softplus)],
    "softsign": [(activation("softsign"), nn.Softsign)],
    "leaky_relu": [
        (partial(gluon_nn.LeakyReLU, slope), partial(nn.LeakyReLU, slope)) for slope in (0.01, 0.3)
    ],
    "elu": [(partial(gluon_nn.ELU, alpha), partial(nn.ELU, alpha)) for alpha in (1.0, 0.7)],
    "selu": [(gluon_nn.SELU, nn.SELU)],
    "gelu": [(gluon_nn.GELU, nn.GELU)],
    "silu": [(gluon_nn.Swish, nn.SiLU)],
    "prelu": [(gluon_nn.PReLU, nn.PReLU)],
    "softmax": [(function("softmax"), partial(nn.Softmax, dim=-1))],
    "log_softmax": [(function("log_softmax"), partial(nn.LogSoftmax, dim=-1))],
    "rbf": [(GluonRBFOutput, RBFOutput)],
    "flatten": [(gluon_nn.Flatten, nn.Flatten), (function("flatten"), nn.Flatten)],
    "identity": [(contrib.nn.Identity, nn.Identity), (function("identity"), nn.Identity)],
    "dropout": [(partial(gluon_nn.Dropout, 0.4), partial(nn.Dropout, 0.4)),
                (partial(gluon_nn.Dropout, 0.4, axes=(2, 3)), partial(nn.Dropout2d, 0.4))],
    "embedding": [(partial(gluon_nn.Embedding, 9, 4), partial(nn.Embedding, 9, 4))],
}  # fmt: skip
# MXNet 1.9.1 sends back 0.590 at x = −1, where SELU's derivative is 0.647
WRONG_IN_MXNET = {"selu": "gluon float64 input gradient"}
WITHOUT_REFERENCE = {"table_conv"}  # torch's own float64 value is the referee


def leaves_of_sample(sample: Sample) -> tuple[Leaf | None, Leaf]:
    """Both sides of a sample, with equal random weights."""
    theirs = sample[1]()
    if sample[0] is None:
        return None, leaves_of(theirs)[0]
    ours = sample[0]()
    ours.initialize()
    parameters = {n: p for n, p in ours._collect_params_with_prefix().items() if p._data}
    for name, value in random_values({n: p.shape for n, p in parameters.items()}).items():
        if parameters[name]._differentiable or "running" in name:
            parameters[name].set_data(gluon_clones.ndarray(value, "float32"))
    listed = leaves_of(ours)
    copy_weights(listed, theirs, pairing_map(pair_leaves(listed, leaves_of(theirs))))
    return listed[0], leaves_of(theirs)[0]


def inputs_of(leaf: Leaf) -> np.ndarray:
    generator = np.random.default_rng(7)
    if leaf.kind == "embedding":
        return generator.integers(0, 9, (3, 6)).astype(np.int64)
    if leaf.kind == "table_conv":
        return generator.standard_normal((2, 2, 7, 6)).astype(np.float32)
    shapes = {role: tensor.shape for role, tensor in leaf.tensors.items()}
    shape = operator_of(leaf.family).shape(leaf.hyper, shapes)
    return (2 * generator.standard_normal(shape)).astype(np.float32)


def runs_of(
    ours: Leaf | None, theirs: Leaf, x: np.ndarray, **how: Any
) -> Iterator[tuple[Side, str, LeafRun]]:
    for dtype in ("float64", "float32"):
        if ours is not None:
            yield Side.GLUON, dtype, gluon_side.run_leaf(ours, (x,), dtype, **how)
        yield Side.TORCH, dtype, torch_side.run_leaf(theirs, (x,), dtype, **how)


def check(kind: str, sample: Sample) -> float:
    """Compare everything; gives the worst error of float32 in u·s.

    Gradients are those of training: MXNet keeps nothing for them elsewhere.
    """
    ours, theirs = leaves_of_sample(sample)
    assert theirs.kind == kind
    if ours is not None:
        assert ours.kind == kind
        assert ours.hyper.keys() == theirs.hyper.keys()
        rows, _ = structure_rows(pair_leaves([ours], [theirs]))
        assert not [row for row in rows if row.status == Status.DIVERGED]
    x, worst = inputs_of(theirs), 0.0
    for train in (False, True):
        alone = torch_side.run_leaf(theirs, (x,), "float64", train=train)
        upstream = upstream_for(kind, (alone["output"],)) if train else None
        how: dict[str, Any] = {"train": train, "upstream": upstream}
        referee = torch_side.run_leaf(theirs, (x,), "float64", **how)
        scales = scales_of(theirs, (x,), referee, **how)
        reference = reference_value(theirs, (x,), **how)
        assert (reference is None) == (kind in WITHOUT_REFERENCE)
        expected = referee if reference is None else reference
        for side, dtype, run in runs_of(ours, theirs, x, **how):
            unchanged = {role for role in theirs.tensors if role not in expected}
            assert set(run) - unchanged == set(expected), (side, dtype)
            worst = max(worst, *compared(run, expected, scales, side, dtype, train))
    return worst


def compared(
    run: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], scales: Scales, side: Side,
    dtype: str, train: bool,
) -> Iterator[float]:  # fmt: skip
    for name in expected:
        value = run[name]
        entry = tolerance(scales.family, mode_of(name, train), side, dtype)
        single = operator_of(scales.family).single_precision
        allowance = scales.allowance(name, side, dtype, single=single)
        verdict = compare(
            value, expected[name], scale=scales.sizes[name],
            factor=entry.factor(scales.length), allowance=allowance,
            dtype=dtype, unit=dtype, content="any",
        )  # fmt: skip
        verdict.require(f"{side} {dtype} {name}")
        yield verdict.error or 0.0 if dtype == "float32" else 0.0


def test_every_record_is_tried() -> None:
    classes = {kind for kind, o in OPERATORS.items() if o.gluon or o.torch or o.own}
    assert set(SAMPLES) == classes  # the others are functions, which pairs of nets run


CASES = [
    pytest.param(kind, sample, id=f"{kind}-{n}")
    for kind, samples in SAMPLES.items()
    for n, sample in enumerate(samples)
]


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_both_frameworks_are_near_the_reference_value(kind: str, sample: Sample) -> None:
    if kind in WRONG_IN_MXNET:
        with pytest.raises(Mismatch, match=WRONG_IN_MXNET[kind]):
            check(kind, sample)
    else:
        check(kind, sample)


def scaled(operator: Operator, factor: float) -> Operator:
    def scale(case: ScaleCase) -> Scales:
        right = operator.scale(case)
        sizes = {name: size * factor for name, size in right.sizes.items()}
        drift = {name: size * factor for name, size in right.drift.items()}
        return replace(right, sizes=sizes, drift=drift)

    return replace(operator, scale=scale)


ROUNDED = ("conv2d", "dense", "avg_pool2d", "batchnorm", "sigmoid", "tanh", "softmax", "rbf", "elu")


@pytest.mark.parametrize("kind", ROUNDED)
def test_a_scale_that_is_too_small_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, kind, scaled(OPERATORS[kind], 2.0**-10))
    with pytest.raises(Mismatch):
        check(kind, SAMPLES[kind][0])


@pytest.mark.parametrize("kind", ROUNDED)
def test_no_scale_is_so_large_that_it_hides_anything(kind: str) -> None:
    assert check(kind, SAMPLES[kind][0]) > 0.1


@pytest.mark.parametrize("kind", ["conv2d", "max_pool2d", "relu", "batchnorm", "tanh"])
def test_a_wrong_reference_value_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = OPERATORS[kind].reference
    assert reference is not None
    wrong = replace(OPERATORS[kind], reference=lambda c: reference(c) * 1.001)
    monkeypatch.setitem(OPERATORS, kind, wrong)
    with pytest.raises(Mismatch):
        check(kind, SAMPLES[kind][0])


def test_a_tolerance_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="no reason"):
        Tolerance(lambda length: 16.0, " ")


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="relu is registered twice"):
        registered([OPERATORS["relu"], OPERATORS["tanh"]], [OPERATORS["relu"]])


def test_subclasses_count_as_the_class_they_extend_and_namesakes_do_not() -> None:
    class Padded(nn.Conv2d):
        pass

    class Conv2d(nn.Module):
        pass

    kind, hyper = describe(Padded(1, 1, 3), Side.TORCH) or ("", {})
    assert (kind, hyper["kernel"]) == ("conv2d", (3, 3))
    assert describe(Conv2d(), Side.TORCH) is None


def test_a_function_of_the_users_own_is_opaque() -> None:
    block = gluon_nn.HybridLambda(lambda F, x: F.relu(x))
    assert describe(block, Side.GLUON) == ("custom:HybridLambda", {})
    assert describe(gluon_nn.Lambda("relu"), Side.GLUON) is None


def test_hard_sigmoids_of_one_slope_agree_and_of_another_do_not() -> None:
    def report(theirs: nn.Module) -> Report:
        case = plain_case(
            [gluon_nn.Dense(6, in_units=5), gluon_nn.HybridLambda("hard_sigmoid")],
            [nn.Linear(5, 6), theirs],
            (4, 5),
        )
        return check_parity(case.gluon_net, case.torch_net, case.inputs)

    assert report(HardSigmoid()).ok
    first = report(nn.Hardsigmoid()).first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == (Level.STRUCTURE, "1", "alpha")
    assert "Gluon has 0.2, torch has 0.1666" in first.message
