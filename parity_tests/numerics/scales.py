"""The size s of what an operation rounds, in float64: the unit in which its error is measured.

A sum Σ aᵢ that is computed in floating point is off by a few u·Σ|aᵢ|, whatever cancels in it. So
the scale of a linear operation is the operation itself with every number replaced by its absolute
value, and that of its gradients is the gradient of that. Other operations have a formula each, from
how their result depends on their input; an operation that is not known is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, is_float, rounded
from parity_tests.backends.torch.runs import run_leaf
from parity_tests.numerics.batch_norm import batch_norm_scales
from parity_tests.numerics.scale_case import ScaleCase, Scales

__all__ = ["Scales", "scales_of"]


def scales_of(
    leaf: Leaf, inputs: Arrays, run: LeafRun, *, train: bool, upstream: Arrays | None = None
) -> Scales:
    """The scales of a torch leaf that gave `run`, in float64, on `inputs` (and `upstream`)."""
    case = ScaleCase(leaf, tuple(rounded(x, "float64") for x in inputs), run, train, upstream)
    kind = leaf.kind
    if kind in _EXACT:
        return _exact(case)
    if "max_pool" in kind:
        return _max_pool(case)
    if kind in _LINEAR or kind.startswith("conv"):
        return _linear(case)
    if "avg_pool" in kind:
        return _avg_pool(case)
    if kind in _FORMULAS:
        return _FORMULAS[kind](case)
    return _measured(case)


_EXACT = ("relu", "flatten", "identity", "dropout")
_LINEAR = ("dense", "subsampling", "table_conv")


def _exact(case: ScaleCase) -> Scales:
    return Scales(case.leaf.family, {name: np.zeros_like(v) for name, v in case.run.items()})


def _max_pool(case: ScaleCase) -> Scales:
    """Forward it chooses; backward it adds what overlapping windows send to the same place."""
    scales = _exact(case)
    kernel: Any = case.leaf.hyper.get("kernel")
    stride: Any = case.leaf.hyper.get("stride")
    apart = kernel is None or all(k <= s for k, s in zip(kernel, stride, strict=True))
    if case.upstream is not None and not apart:
        run = run_leaf(
            case.leaf, case.inputs, "float64", train=case.train, upstream=_absolute(case.upstream)
        )
        scales.sizes["input gradient"] = run["input gradient"]
    return scales


def _absolute(arrays: Arrays) -> Arrays:
    return tuple(np.abs(a) if is_float(a) else a for a in arrays)


def _linear(case: ScaleCase) -> Scales:
    def absolute(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data.abs_()

    sizes = run_leaf(
        case.leaf,
        _absolute(case.inputs),
        "float64",
        train=case.train,
        upstream=None if case.upstream is None else _absolute(case.upstream),
        change=absolute,
    )
    # A faulty leaf may give a negative size of what it should only add up
    return Scales(case.leaf.family, {name: np.abs(size) for name, size in sizes.items()})


def _avg_pool(case: ScaleCase) -> Scales:
    scales = _linear(case)
    scales.family = "avg_pool"
    if case.leaf.kind.startswith("avg_pool"):
        kernel: Any = case.leaf.hyper["kernel"]
        scales.length = int(np.prod(kernel))
        return scales
    scales.length = max(1, case.x[0, 0].size // case.y[0, 0].size)
    if case.y[0, 0].size == 1:  # a long sum, and often of values that repeat
        flat = case.x.reshape(*case.x.shape[:2], -1)
        added = np.add.accumulate(flat.astype(np.float32), axis=2)[..., -1] / flat.shape[2]
        scales.drift = {"output": np.abs(added - flat.mean(axis=2)).reshape(case.y.shape)}
    return scales


def _elementwise(
    case: ScaleCase, output: np.ndarray, gradient: np.ndarray, length: int = 1
) -> Scales:
    return Scales(case.leaf.family, {"output": output, "input gradient": gradient}, length)


def _sigmoid(case: ScaleCase) -> Scales:
    # y(1 − y) is computed from a rounded y, and 1 − y rounds against 1
    return _elementwise(case, case.y, case.g * case.y)


def _tanh(case: ScaleCase) -> Scales:
    return _elementwise(case, np.abs(case.y), case.g * (1 + case.y**2))


def _scaled_tanh(case: ScaleCase) -> Scales:
    amplitude, slope = 1.7159, 2 / 3  # LeCun 1998, appendix A
    t = case.y / amplitude
    return _elementwise(case, np.abs(case.y), case.g * amplitude * slope * (1 + t**2))


def _leaky_relu(case: ScaleCase) -> Scales:
    slope: Any = case.leaf.hyper["slope"]
    return _elementwise(case, np.abs(case.y), case.g * np.where(case.x > 0, 1.0, abs(slope)))


def _softmax(case: ScaleCase) -> Scales:
    spread, g, y = _spread(case), case.g, case.y
    total = (g * y).sum(axis=case.axis, keepdims=True)
    return _elementwise(case, y * spread, y * (g + total) * spread, case.x.shape[case.axis])


def _log_softmax(case: ScaleCase) -> Scales:
    size = 1 + np.abs(case.y) + np.abs(case.x)  # the sum of exponentials is 1 or more
    total = case.g.sum(axis=case.axis, keepdims=True)
    gradient = case.g + np.exp(case.y) * total * size
    return _elementwise(case, size, gradient, case.x.shape[case.axis])


def _spread(case: ScaleCase) -> np.ndarray:
    # exp turns an absolute error of its argument into a relative one of its result
    largest = case.x.max(axis=case.axis, keepdims=True)
    return 1 + np.abs(case.x - largest)


def _rbf(case: ScaleCase) -> Scales:
    bitmaps = case.parameter("bitmaps")
    assert bitmaps is not None  # the class has no other parameter
    size = np.abs(case.x)[:, None, :] + np.abs(bitmaps)[None]
    return _elementwise(case, (size**2).sum(axis=2), (2 * case.g[:, :, None] * size).sum(axis=1))


_FORMULAS: dict[str, Callable[[ScaleCase], Scales]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "scaled_tanh": _scaled_tanh,
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "rbf": _rbf,
    "batchnorm": batch_norm_scales,
}


_SINGLE_PRECISION = ("prelu", "elu", "selu", "gelu")  # known to the tolerance table
_DRAWS = 8
_STEP = 2.0**-16  # far above float32's roundoff, through which inputs pass


def _measured(case: ScaleCase) -> Scales:
    """How far every result moves, per unit of relative noise in inputs, parameters and upstream.

    Each of several draws perturbs every number by a normal variate times 2⁻¹⁶; s is twice the
    largest move seen, plus the value itself.
    """
    generator = np.random.default_rng(0)

    def noisy(array: np.ndarray) -> np.ndarray:
        if not is_float(array):
            return array
        return array * (1 + _STEP * generator.standard_normal(array.shape))

    def disturb(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data = torch.from_numpy(noisy(parameter.data.numpy()))

    largest = {name: np.zeros_like(value) for name, value in case.run.items()}
    for _ in range(_DRAWS):
        upstream = None if case.upstream is None else tuple(noisy(g) for g in case.upstream)
        moved = run_leaf(
            case.leaf,
            tuple(noisy(x) for x in case.inputs),
            "float64",
            train=case.train,
            upstream=upstream,
            change=disturb,
        )
        for name, most in largest.items():
            np.maximum(most, np.abs(moved[name] - case.run[name]), out=most)
    known = case.leaf.kind in _SINGLE_PRECISION
    return Scales(
        case.leaf.kind if known else "custom",
        {name: np.abs(case.run[name]) + 2 * most / _STEP for name, most in largest.items()},
    )
