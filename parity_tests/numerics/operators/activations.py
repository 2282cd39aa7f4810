"""Activations: one number in, one number out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from parity_tests.numerics.operators.cases import ReferenceCase, ScaleCase, Scales
from parity_tests.numerics.operators.formulas import MEASURED, elementwise, exact, measured
from parity_tests.numerics.operators.record import (
    Operator,
    Reader,
    Rounds,
    Tolerance,
    attributes,
    constant,
    gluon_activation,
    gluon_function,
)
from parity_tests.reporting.verdicts import Side

_UNIT = 2.0**-24  # of float32, in which MXNet holds the line of a hard sigmoid in either dtype
_SELU_LAMBDA, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # arXiv 1706.02515, eq. 14
_AMPLITUDE, _SLOPE = 1.7159, 2 / 3  # LeCun 1998, appendix A

_SINGLE = {
    ("*", "gluon", "float64"): Tolerance(
        constant(16 * 2.0**29),
        "MXNet's LeakyReLU operator, which is its PReLU, ELU, SELU and GELU too, computes in "
        "float32 even in a float64 net: 16 units of 2⁻²⁴",
    )
}
_SINGLE_SLOPE = {
    ("*", "gluon", "float64"): Tolerance(
        constant(16.0 + 2.0**29),
        "MXNet multiplies by the slope in float32 even in a float64 net: one rounding of 2⁻²⁴, "
        "which is 2²⁹ units of 2⁻⁵³",
    )
}
_SOFT_RELU = {
    ("*", "gluon", "float32"): Tolerance(
        constant(144.0),
        "oneDNN's soft ReLU is off by up to 2⁻¹⁷, 128 u of 1, however small the result: 7.6e-6 was "
        "seen at −68.2, and −1.9e-6, which no soft ReLU is, at −17.7",
    ),
    ("train", "gluon", "float64"): Tolerance(
        constant(16.0 + math.exp(-20) * 2.0**53),
        "from 20 on torch's derivative is 1, and MXNet's 1 − exp(−y)",
    ),
}
_FAULTS = tuple(
    (name, name) for name in ("missing activation", "straight-through gradient", "stopped gradient")
)


def _sigmoid_scale(case: ScaleCase) -> Scales:
    # y(1 − y) is computed from a rounded y, and 1 − y rounds against 1
    return elementwise(case, case.y, case.g * case.y)


def _tanh_scale(case: ScaleCase) -> Scales:
    return elementwise(case, np.abs(case.y), case.g * (1 + case.y**2))


def _scaled_tanh_scale(case: ScaleCase) -> Scales:
    t = case.y / _AMPLITUDE
    return elementwise(case, np.abs(case.y), case.g * _AMPLITUDE * _SLOPE * (1 + t**2))


def _leaky_relu_scale(case: ScaleCase) -> Scales:
    slope = abs(case.hyper["slope"])
    return elementwise(case, np.abs(case.y), case.g * np.where(case.x > 0, 1.0, slope))


def _hard_sigmoid_scale(case: ScaleCase) -> Scales:
    alpha, beta = case.hyper["alpha"], case.hyper["beta"]
    size = np.abs(alpha * case.x) + abs(beta)
    line = alpha * case.x + beta
    # where the rounded line may lie on the other side of a bound, the gradient may be on or off
    near = np.minimum(np.abs(line), np.abs(line - 1)) <= 8 * _UNIT * size
    return elementwise(case, size, abs(alpha) * case.g * np.where(near, 1 / _UNIT, 1.0))


def _prelu_scale(case: ScaleCase) -> Scales:
    # x or a·x is rounded once; the gradient of a adds up the products of the maps that it is for
    slope, name = case.parameter("weight"), "weight gradient"
    if slope is None:  # computed by the net
        slope, name = case.inputs[1], "input 2 gradient"
    channels = np.abs(slope).reshape(-1, *(1,) * (case.x.ndim - 2))
    scales = elementwise(case, np.abs(case.y), case.g * np.where(case.x > 0, 1.0, channels))
    products = case.g * np.maximum(-case.x, 0)
    maps = tuple(axis for axis in range(case.x.ndim) if axis != 1 or slope.size == 1)
    scales.sizes[name] = products.sum(axis=maps).reshape(slope.shape)
    return scales


def _elu_scale(factor: float, alpha: float, case: ScaleCase) -> Scales:
    # α(exp(x) − 1) below 0 rounds against α, however small it comes out, and so does the slope,
    # which MXNet computes as y + α: src/operator/leaky_relu-inl.h
    below = abs(alpha) * (1 + np.exp(np.minimum(case.x, 0)))
    size = factor * np.where(case.x > 0, np.abs(case.x), below)
    return elementwise(case, size, factor * case.g * np.where(case.x > 0, 1.0, below))


def _gelu_scale(case: ScaleCase) -> Scales:
    # x·½(1 + erf(x/√2)): the sum rounds against 1, however small it comes out
    size = np.abs(case.x)
    density = np.exp(-(case.x**2) / 2) / np.sqrt(2 * np.pi)
    return elementwise(case, size, case.g * (1 + size * density))


def _soft_relu_scale(case: ScaleCase) -> Scales:
    # log(1 + exp(βx))/β: the sum rounds against 1, however small it comes out, and so does the
    # slope, which MXNet computes as 1 − exp(−y): src/operator/mshadow_op.h
    return elementwise(case, np.abs(case.y) + 1 / abs(case.hyper["beta"]), case.g)


def _softsign_scale(case: ScaleCase) -> Scales:
    # MXNet's slope is (1 − |y|)², and 1 − |y| rounds against 1; torch's is the difference of
    # 1/(1 + |x|) and |x|/(1 + |x|)²
    return elementwise(case, np.abs(case.y), 2 * case.g / (1 + np.abs(case.x)))


def _value(function: Callable[[ReferenceCase], Any]) -> Callable[[ReferenceCase], Any]:
    """The function, or one of the faults that any activation may have."""

    def value(c: ReferenceCase) -> Any:
        if c.fault == "missing activation":
            return c.x * 1
        if c.fault == "hard sigmoid":
            return c.functional.hardsigmoid(c.x)
        if c.fault == "hard sigmoid, slope 0.2":
            return (c.x * 0.2 + 0.5).clamp(0, 1)
        y = function(c)
        if c.fault == "straight-through gradient":
            return y.detach() + c.x - c.x.detach()
        if c.fault == "stopped gradient":
            return y.detach() + 0 * c.x
        return y

    return value


def _single(value: Any) -> float:
    """A number as MXNet's operators hold it."""
    return float(np.float32(value))


def _hard_sigmoid(c: ReferenceCase) -> Any:
    return (c.x * _single(c.hyper["alpha"]) + _single(c.hyper["beta"])).clamp(0, 1)


def _has_line(module: Any) -> bool:
    return hasattr(module, "alpha") and hasattr(module, "beta")


def _gelu(c: ReferenceCase) -> Any:
    return c.functional.gelu(c.x, approximate=c.hyper.get("approximate", "none"))


def _activation(
    kind: str, scale: Callable[[ScaleCase], Scales], value: Callable[[ReferenceCase], Any],
    faults: tuple[tuple[str, str], ...] = (), **record: Any,
) -> Operator:  # fmt: skip
    return Operator(
        kind=kind, scale=scale, activation=True, reference=_value(value),
        faults=(*faults, *_FAULTS), **record,
    )  # fmt: skip


# Of a scale that is measured, and of MXNet's LeakyReLU operator, which computes in float32
_measured = partial(_activation, scale=measured, tolerances=MEASURED)
_single_precision = partial(_activation, tolerances=_SINGLE, single_precision=True)

OPERATORS = (
    _activation(
        "relu", exact, lambda c: c.torch.relu(c.x), rounds=Rounds.NOTHING, common=True,
        gluon=(gluon_activation("relu"), gluon_function("relu")), torch=(Reader("ReLU"),),
    ),
    _activation(
        "sigmoid", _sigmoid_scale, lambda c: c.torch.sigmoid(c.x), common=True,
        gluon=(gluon_activation("sigmoid"), gluon_function("sigmoid")), torch=(Reader("Sigmoid"),),
        # MLAS, logistic.cpp: ½ + x·p(x²)/q(x²) rounds against ½, however small the result. 68 u of
        # |y| was seen, below 1 u of |y| + ½
        symbols=("sigmoid",), onnx_runtime_offset=0.5,
        faults=(("hard sigmoid", "hard sigmoid"), ("hard sigmoid, slope 0.2", "hard sigmoid")),
    ),
    _activation(  # clip(αx + β, 0, 1): α is 1/5 in MXNet and Keras, 1/6 in torch
        "hard_sigmoid", _hard_sigmoid_scale, _hard_sigmoid,
        gluon=(gluon_function("hard_sigmoid", alpha=0.2, beta=0.5),),
        torch=(Reader("Hardsigmoid", lambda m: {"alpha": 1 / 6, "beta": 0.5}),),
        own=Reader("HardSigmoid", attributes(alpha="alpha", beta="beta"), _has_line),
        tolerances=_SINGLE_SLOPE, single_precision=True, single_gradients=(Side.TORCH,),
        single=("alpha", "beta"),
    ),
    _activation(
        "tanh", _tanh_scale, lambda c: c.torch.tanh(c.x), common=True,
        gluon=(gluon_activation("tanh"), gluon_function("tanh")), torch=(Reader("Tanh"),),
    ),
    _activation(
        "scaled_tanh", _scaled_tanh_scale, lambda c: _AMPLITUDE * c.torch.tanh(c.x * _SLOPE),
        own=Reader("ScaledTanh"),
    ),
    _activation(
        "softplus", _soft_relu_scale, lambda c: c.functional.softplus(c.x, c.hyper["beta"]),
        gluon=(gluon_activation("softrelu", beta=1.0),),
        torch=(Reader("Softplus", attributes(beta="beta")),),
        tolerances=_SOFT_RELU,
    ),
    _activation(
        "softsign", _softsign_scale, lambda c: c.functional.softsign(c.x),
        gluon=(gluon_activation("softsign"),), torch=(Reader("Softsign"),),
    ),
    _activation(
        "leaky_relu", _leaky_relu_scale,
        lambda c: c.functional.leaky_relu(c.x, _single(c.hyper["slope"])),
        gluon=(Reader("LeakyReLU", attributes(slope="_alpha")),),
        torch=(Reader("LeakyReLU", attributes(slope="negative_slope")),),
        tolerances=_SINGLE_SLOPE, single_precision=True,
        single=("negative_slope",), torch_names=("leaky_relu", "LeakyReLU"),
    ),
    _single_precision(
        "elu", lambda case: _elu_scale(1.0, case.hyper["alpha"], case),
        lambda c: c.functional.elu(c.x, _single(c.hyper["alpha"])),
        gluon=(Reader("ELU", attributes(alpha="_alpha")),),
        torch=(Reader("ELU", attributes(alpha="alpha")),),
        single=("alpha",), torch_names=("elu", "ELU"),
    ),
    _single_precision(
        "selu", partial(_elu_scale, _SELU_LAMBDA, _SELU_ALPHA), lambda c: c.functional.selu(c.x),
        gluon=(Reader("SELU"),), torch=(Reader("SELU"),),
    ),
    _single_precision(
        "gelu", _gelu_scale, _gelu,
        gluon=(Reader("GELU", lambda b: {"approximate": "none"}),),
        torch=(Reader("GELU", attributes(approximate="approximate")),),
    ),
    _measured(
        "silu", value=lambda c: c.x * c.torch.sigmoid(c.hyper["beta"] * c.x),
        gluon=(Reader("Swish", attributes(beta="_beta")),),
        torch=(Reader("SiLU", lambda m: {"beta": 1.0}),),
    ),
    _single_precision(
        "prelu", _prelu_scale, lambda c: c.functional.prelu(c.x, c.tensors["weight"]),
        gluon=(Reader("PReLU"),), torch=(Reader("PReLU"),), roles={"alpha": "weight"},
    ),
)  # fmt: skip
