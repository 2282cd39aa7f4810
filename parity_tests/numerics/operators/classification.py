"""What ends a classifier: softmax, its logarithm, and LeNet-5's radial basis functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity_tests.numerics.operators.cases import ReferenceCase, ScaleCase, Scales
from parity_tests.numerics.operators.formulas import elementwise, off_one_by_one
from parity_tests.numerics.operators.record import (
    Operator,
    Reader,
    Tolerance,
    attributes,
    gluon_function,
    plus_length,
    plus_root,
)

_CLASSES = Tolerance(
    plus_root,
    "the exponentials of the n classes are added one by one: √n·u, as above; 24 was seen for "
    "1,000 classes in float64, where √n = 32",
)
_ONE_BY_ONE = {
    ("*", "*", "*"): _CLASSES,
    ("*", "gluon", "float64"): Tolerance(
        plus_length,
        "in float64, too, MXNet adds one by one, and no sum is off by more than n·u (Higham 2002, "
        "section 4.2): 522 was seen for 2,304 values, most of them alike",
    ),
}
# Of log_softmax, and of a loss, which ends in it
LOG_SOFTMAX = {
    **_ONE_BY_ONE,
    ("*", "gluon", "float32"): Tolerance(
        lambda length: 64.0 + plus_root(length),
        "oneDNN's vectorised log interpolates in a table and is off by up to 2⁻¹⁸, 64 u of 1, "
        "however small the result; 57 was seen for two logits near 1",
    ),
}


def _softmax_scale(case: ScaleCase) -> Scales:
    x = -case.x if case.kind == "softmin" else case.x
    # exp turns an absolute error of its argument into a relative one of its result
    spread = 1 + np.abs(x - x.max(axis=case.axis, keepdims=True))
    g, y = case.g, case.y
    total = (g * y).sum(axis=case.axis, keepdims=True)
    scales = elementwise(case, y * spread, y * (g + total) * spread, case.x.shape[case.axis])
    part = _note_sum(scales, case, np.exp(1 - spread))
    scales.drift = {"output": y * part, "input gradient": 2 * y * (g + total) * part}
    return scales


def _note_sum(scales: Scales, case: ScaleCase, powers: np.ndarray) -> np.ndarray:
    """The part of itself that the sum of these exponentials is off by, and which sides add so."""
    axis = case.axis % powers.ndim
    scales.both = axis < powers.ndim - 1  # along the last one torch adds in lanes
    part: np.ndarray = off_one_by_one(powers, [axis]) / powers.sum(axis=axis, keepdims=True)
    return part


def _log_softmax_scale(case: ScaleCase) -> Scales:
    size = 1 + np.abs(case.y) + np.abs(case.x)  # the sum of exponentials is 1 or more
    total = case.g.sum(axis=case.axis, keepdims=True)
    gradient = case.g + np.exp(case.y) * total * size
    scales = elementwise(case, size, gradient, case.x.shape[case.axis])
    powers = np.exp(case.x - case.x.max(axis=case.axis, keepdims=True))
    part = _note_sum(scales, case, powers)
    scales.drift = {
        "output": np.broadcast_to(part, case.y.shape),
        "input gradient": np.exp(case.y) * total * part,
    }
    return scales


def _rbf_scale(case: ScaleCase) -> Scales:
    bitmaps = case.parameter("bitmaps")
    assert bitmaps is not None  # the class has no other parameter
    size = np.abs(case.x)[:, None, :] + np.abs(bitmaps)[None]
    return elementwise(case, (size**2).sum(axis=2), (2 * case.g[:, :, None] * size).sum(axis=1))


def _along(name: str) -> Callable[[ReferenceCase], Any]:
    def value(c: ReferenceCase) -> Any:
        axis = int(c.hyper["axis"]) % c.x.ndim
        if c.fault == "softmax axis":
            axis = 0 if axis else 1
        return getattr(c.functional, name)(c.x, dim=axis)

    return value


OPERATORS = (
    Operator(
        kind="softmax",
        gluon=(gluon_function("softmax", axis=-1),),
        torch=(Reader("Softmax", attributes(axis="dim")),),
        scale=_softmax_scale,
        tolerances=_ONE_BY_ONE,
        symbols=("softmax", "SoftmaxOutput", "SoftmaxActivation"),
        reference=_along("softmax"),
        faults=(("softmax axis", "softmax axis"),),
    ),
    Operator(kind="softmin", scale=_softmax_scale, tolerances=_ONE_BY_ONE),
    Operator(
        kind="log_softmax",
        gluon=(gluon_function("log_softmax", axis=-1),),
        torch=(Reader("LogSoftmax", attributes(axis="dim")),),
        scale=_log_softmax_scale,
        tolerances=LOG_SOFTMAX,
        symbols=("log_softmax",),
        reference=_along("log_softmax"),
    ),
    Operator(
        kind="rbf",
        own=Reader("RBFOutput"),
        scale=_rbf_scale,
        shape=lambda hyper, shapes: (3, shapes["bitmaps"][1]),
        reference=lambda c: (c.x[:, None, :] - c.tensors["bitmaps"]).square().sum(dim=2),
    ),
)
