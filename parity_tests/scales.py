"""The size s of what an operation rounds, in float64: the unit in which its error is measured.

A sum Σ aᵢ that is computed in floating point is off by a few u·Σ|aᵢ|, whatever cancels in it. So
the scale of a linear operation is the operation itself with every number replaced by its absolute
value, and that of its gradients is the gradient of that. Other operations have a formula each, from
how their result depends on their input; an operation that is not known is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from parity_tests.leaves import Leaf
from parity_tests.runs import Arrays, LeafRun, is_float, rounded
from parity_tests.torch_side import run_leaf

__all__ = ["Scales", "scales_of"]


@dataclass
class Scales:
    """s for each of a leaf's results, by its name and in its shape.

    `family` is the operation's name in the tolerance table, "custom" where s was measured;
    `length` is the number of terms in its longest sum.
    """

    family: str
    sizes: dict[str, np.ndarray]
    length: int = 1


@dataclass(frozen=True)
class _Case:
    leaf: Leaf
    inputs: Arrays
    run: LeafRun
    train: bool
    upstream: Arrays | None

    @property
    def x(self) -> np.ndarray:
        return self.inputs[0]

    @property
    def y(self) -> np.ndarray:
        return self.run["output"]

    @property
    def axis(self) -> int:
        axis: Any = self.leaf.hyper["axis"]
        return int(axis)

    @property
    def g(self) -> np.ndarray:
        return np.abs(self.upstream[0]) if self.upstream else np.zeros_like(self.y)

    def parameter(self, role: str) -> np.ndarray | None:
        tensor = self.leaf.tensors.get(role)
        return None if tensor is None else rounded(tensor.read(), "float64")


def scales_of(
    leaf: Leaf, inputs: Arrays, run: LeafRun, *, train: bool, upstream: Arrays | None = None
) -> Scales:
    """The scales of a torch leaf that gave `run`, in float64, on `inputs` (and `upstream`)."""
    case = _Case(leaf, tuple(rounded(x, "float64") for x in inputs), run, train, upstream)
    kind = leaf.kind
    if kind in _EXACT:
        return _exact(case)
    if "max_pool" in kind:
        return _max_pool(case)
    if kind in _LINEAR or kind.startswith(("conv", "avg_pool", "global_avg", "adaptive_avg")):
        return _linear(case)
    if kind in _FORMULAS:
        return _FORMULAS[kind](case)
    return _measured(case)


_EXACT = ("relu", "flatten", "identity", "dropout")
_LINEAR = ("dense", "subsampling", "table_conv")


def _exact(case: _Case) -> Scales:
    return Scales(case.leaf.family, {name: np.zeros_like(v) for name, v in case.run.items()})


def _max_pool(case: _Case) -> Scales:
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


def _linear(case: _Case) -> Scales:
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
    return Scales(case.leaf.family, sizes)


def _elementwise(case: _Case, output: np.ndarray, gradient: np.ndarray, length: int = 1) -> Scales:
    return Scales(case.leaf.family, {"output": output, "input gradient": gradient}, length)


def _sigmoid(case: _Case) -> Scales:
    # y(1 − y) is computed from a rounded y, and 1 − y rounds against 1
    return _elementwise(case, case.y, case.g * case.y)


def _tanh(case: _Case) -> Scales:
    return _elementwise(case, np.abs(case.y), case.g * (1 + case.y**2))


def _scaled_tanh(case: _Case) -> Scales:
    amplitude, slope = 1.7159, 2 / 3  # LeCun 1998, appendix A
    t = case.y / amplitude
    return _elementwise(case, np.abs(case.y), case.g * amplitude * slope * (1 + t**2))


def _leaky_relu(case: _Case) -> Scales:
    slope: Any = case.leaf.hyper["slope"]
    return _elementwise(case, np.abs(case.y), case.g * np.where(case.x > 0, 1.0, abs(slope)))


def _softmax(case: _Case) -> Scales:
    spread, g, y = _spread(case), case.g, case.y
    total = (g * y).sum(axis=case.axis, keepdims=True)
    return _elementwise(case, y * spread, y * (g + total) * spread, case.x.shape[case.axis])


def _log_softmax(case: _Case) -> Scales:
    size = 1 + np.abs(case.y) + np.abs(case.x)  # the sum of exponentials is 1 or more
    total = case.g.sum(axis=case.axis, keepdims=True)
    gradient = case.g + np.exp(case.y) * total * size
    return _elementwise(case, size, gradient, case.x.shape[case.axis])


def _spread(case: _Case) -> np.ndarray:
    # exp turns an absolute error of its argument into a relative one of its result
    largest = case.x.max(axis=case.axis, keepdims=True)
    return 1 + np.abs(case.x - largest)


def _rbf(case: _Case) -> Scales:
    bitmaps = case.parameter("bitmaps")
    assert bitmaps is not None  # the class has no other parameter
    size = np.abs(case.x)[:, None, :] + np.abs(bitmaps)[None]
    return _elementwise(case, (size**2).sum(axis=2), (2 * case.g[:, :, None] * size).sum(axis=1))


def _batch_norm(case: _Case) -> Scales:
    x, g = case.x, case.g
    axes = (0, *range(2, x.ndim))

    def spread(values: np.ndarray) -> np.ndarray:
        return values.reshape((1, -1) + (1,) * (x.ndim - 2))

    hyper: dict[str, Any] = dict(case.leaf.hyper)
    gamma, beta = case.parameter("weight"), case.parameter("bias")
    old_mean, old_variance = case.parameter("running_mean"), case.parameter("running_var")
    batch = case.train and not hyper["global_stats"]
    mean, variance = old_mean, old_variance
    if batch or mean is None or variance is None:
        batch, mean, variance = True, x.mean(axis=axes), x.var(axis=axes)
    deviation = np.sqrt(variance + hyper["eps"])
    gain = (1.0 if gamma is None else np.abs(gamma)) / deviation
    # A batch's mean is a sum with a scale of its own, however small it comes out.
    size = np.abs(x) + spread(np.abs(x).mean(axis=axes) if batch else np.abs(mean))
    normal = size / spread(deviation)
    through = g
    if batch:  # the statistics depend on the input, and send a gradient of their own back
        sent = (g * normal).mean(axis=axes, keepdims=True)
        through = g + g.mean(axis=axes, keepdims=True) + normal * sent
    sizes = {
        "output": spread(gain) * size + spread(0 * gain if beta is None else np.abs(beta)),
        "input gradient": spread(gain) * through,
        "weight gradient": (g * normal).sum(axis=axes),
        "bias gradient": g.sum(axis=axes),
    }
    if old_mean is not None and old_variance is not None:
        kept = hyper["kept"] if batch and hyper["kept"] is not None else 1.0
        sizes["running_mean"] = kept * np.abs(old_mean) + (1 - kept) * np.abs(x).mean(axis=axes)
        # MXNet stores 1/√(var + eps) and computes the variance back from it
        square = (x**2).mean(axis=axes) + hyper["eps"]
        sizes["running_var"] = kept * old_variance + (1 - kept) * square
    return Scales("batchnorm", sizes, length=x.size // x.shape[1] if batch else 1)


_FORMULAS: dict[str, Callable[[_Case], Scales]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "scaled_tanh": _scaled_tanh,
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "rbf": _rbf,
    "batchnorm": _batch_norm,
}


_DRAWS = 8
_STEP = 2.0**-16  # far above float32's roundoff, through which inputs pass


def _measured(case: _Case) -> Scales:
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
    return Scales(
        "custom",
        {name: np.abs(case.run[name]) + 2 * most / _STEP for name, most in largest.items()},
    )
