"""Scales of batch and instance normalisation, and the error that MXNet's way of adding makes on
given values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity_tests.numerics.operators.cases import ScaleCase, Scales
from parity_tests.numerics.operators.formulas import measured, off_one_by_one

# How much of the running statistics a step keeps where the net's own code keeps them
OWN = "as its own code says"


@dataclass(frozen=True)
class _Norm:
    """One normalisation in float64: x (N, C, …), and per channel (C,) the rest."""

    x: np.ndarray
    gain: np.ndarray  # |γ/σ|
    offset: np.ndarray  # |β|
    mean: np.ndarray
    deviation: np.ndarray
    batch: bool

    @property
    def axes(self) -> tuple[int, ...]:
        return (0, *range(2, self.x.ndim))

    @property
    def count(self) -> int:
        return self.x.size // self.x.shape[1]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(C,) beside (N, C, …)."""
        return values.reshape((1, -1) + (1,) * (self.x.ndim - 2))

    def off(self, values: np.ndarray) -> np.ndarray:
        return off_one_by_one(values, self.axes).reshape(-1)

    def average(self, values: np.ndarray) -> np.ndarray:
        return values.mean(axis=self.axes)


def batch_norm_scales(case: ScaleCase) -> Scales:
    """Of the output γ·(x − μ)/σ + β, its gradients, and the running statistics."""
    norm = _norm(case)
    x, g = norm.x, case.g.reshape(norm.x.shape)
    # A batch's mean is a sum with a scale of its own, however small it comes out.
    centre = norm.average(np.abs(x)) if norm.batch else np.abs(norm.mean)
    size = np.abs(x) + norm.spread(centre)
    normal = size / norm.spread(norm.deviation)
    through = g
    if norm.batch:
        through = _sent_back(g, normal, lambda values: norm.spread(norm.average(values)))
    sizes = {
        "output": (norm.spread(norm.gain) * size + norm.spread(norm.offset)).reshape(case.y.shape),
        "input gradient": norm.spread(norm.gain) * through,
        "weight gradient": (g * normal).sum(axis=norm.axes),
        "bias gradient": g.sum(axis=norm.axes),
    }
    kept, new = _kept(case) if norm.batch else (1.0, 0.0)
    mean, variance = case.parameter("running_mean"), case.parameter("running_var")
    if mean is not None and variance is not None:
        sizes["running_mean"] = kept * np.abs(mean) + new * norm.average(np.abs(x))
        # MXNet stores 1/√(var + eps) and computes the variance back from it
        square = norm.average(x**2) + case.hyper["eps"]
        sizes["running_var"] = kept * np.abs(variance) + new * square
    if not norm.batch:
        return Scales("batchnorm", sizes)
    family = "own_batchnorm" if case.hyper["kept"] == OWN else "batchnorm"
    sent = None if case.upstream is None else case.upstream[0].reshape(x.shape)
    drift = _drift(norm, sent)
    drift["output"] = drift["output"].reshape(case.y.shape)
    for name in ("running_mean", "running_var"):
        drift[name] = new * drift[name]
    return Scales(family, sizes, norm.count, drift)


def _sent_back(
    g: np.ndarray, normal: np.ndarray, mean: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What the gradient of a normalisation adds up, however much of it cancels.

    The statistics depend on the input, and send a gradient of their own back.
    """
    return g + mean(g) + normal * mean(g * normal)


def normalised_rows(case: ScaleCase, rows: int, gamma: np.ndarray | None) -> Scales:
    """Measured; the gradients of rows that are normalised at least by their formulas.

    In a row of one spike the gradient there is next to nothing, whatever is sent back: noise in
    what goes in does not show what cancels. Those of weight and shift are sums of one product for
    every place in a map, of which noise sees the square root: torch was 17 u·s off for 65,536.
    `gamma` is given as it stands beside the input.
    """
    scales = measured(case)
    if case.upstream is not None and "input gradient" in scales.sizes:
        x = case.x.reshape(rows, -1)
        g = (case.g.reshape(case.x.shape) * (1 if gamma is None else np.abs(gamma))).reshape(
            x.shape
        )
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + case.hyper["eps"])
        size = np.abs(x) + np.abs(x).mean(axis=1, keepdims=True)
        normal = size / deviation
        through = _sent_back(g, normal, lambda values: values.mean(axis=1, keepdims=True))
        scales.raise_to("input gradient", through / deviation)
        if gamma is not None:
            alike = [n == 1 for n in (1,) * (case.x.ndim - gamma.ndim) + gamma.shape]
            axes = tuple(axis for axis, one in enumerate(alike) if one)
            added = {"weight gradient": case.g.reshape(x.shape) * normal, "bias gradient": case.g}
            for name, values in added.items():
                if name in scales.sizes:  # 64 u of a quarter are 16 of the sum
                    scales.raise_to(name, values.reshape(case.x.shape).sum(axis=axes) / 4)
    return scales


def beside_channels(case: ScaleCase) -> np.ndarray | None:
    """The weights of channels (C,) as they stand beside an input (N, C, …)."""
    gamma = case.parameter("weight")
    return None if gamma is None else gamma.reshape(1, -1, *(1,) * (case.x.ndim - 2))


def instance_norm_scales(case: ScaleCase) -> Scales:
    """Measured, where MXNet adds each map's values up as it does a batch's channel."""
    scales = normalised_rows(case, math.prod(case.x.shape[:2]), beside_channels(case))
    images, channels = case.x.shape[:2]
    x = case.x.reshape(1, images * channels, -1)
    deviation = np.sqrt(x.var(axis=(0, 2)) + case.hyper["eps"])
    gamma = case.parameter("weight")
    gain = 1 / deviation if gamma is None else np.tile(np.abs(gamma), images) / deviation
    norm = _Norm(x, gain, np.zeros_like(gain), x.mean(axis=(0, 2)), deviation, True)
    drift = _drift(norm, None if case.upstream is None else case.upstream[0].reshape(x.shape))
    for name, size in scales.sizes.items():
        if name in drift:
            off = drift[name].reshape(images, channels, -1)
            whole = off.size == size.size
            scales.drift[name] = (off if whole else off.sum(axis=0)).reshape(size.shape)
    scales.length = norm.count
    return scales


def _norm(case: ScaleCase) -> _Norm:
    x = case.x
    axes = (0, *range(2, x.ndim))
    batch = case.train and not case.hyper["global_stats"]
    mean, variance = case.parameter("running_mean"), case.parameter("running_var")
    if batch or mean is None or variance is None:
        batch, mean, variance = True, x.mean(axis=axes), x.var(axis=axes)
    gamma, beta = case.parameter("weight"), case.parameter("bias")
    deviation = np.sqrt(variance + case.hyper["eps"])
    gain = (np.ones_like(deviation) if gamma is None else np.abs(gamma)) / deviation
    offset = np.zeros_like(deviation) if beta is None else np.abs(beta)
    return _Norm(x, gain, offset, mean, deviation, batch)


def _kept(case: ScaleCase) -> tuple[float, float]:
    """How much of the old and of the new statistic a step takes, at the most."""
    kept = case.hyper["kept"]
    if kept == OWN:
        return 1.0, 1.0
    return (1.0, 0.0) if kept is None else (float(kept), 1.0 - float(kept))


def _drift(norm: _Norm, g: np.ndarray | None) -> dict[str, np.ndarray]:
    """How far float32 sums, added one by one as MXNet does, are off on these very values."""
    off_mean = norm.off(norm.x) / norm.count
    centred = norm.x - norm.spread(norm.mean)
    off_variance = norm.off(centred**2) / norm.count
    # σ² off by d moves 1/σ by d/2σ³
    relative = norm.spread(off_variance / (2 * norm.deviation**2))
    gain, normal = norm.spread(norm.gain), centred / norm.spread(norm.deviation)
    moved = gain * (norm.spread(off_mean) + np.abs(centred) * relative)
    drift = {
        "output": moved,
        "running_mean": off_mean,
        "running_var": off_variance,
    }
    if g is not None:
        off_bias, off_weight = norm.off(g), norm.off(g * normal)
        sums = norm.spread(off_bias) + np.abs(normal) * norm.spread(off_weight)
        # normal itself is off by what the output's was, before its gain
        moved = norm.spread(off_mean / norm.deviation) + np.abs(normal) * relative
        size = np.abs(g) + norm.spread(norm.average(np.abs(g)))
        drift |= {
            "bias gradient": off_bias,
            "weight gradient": off_weight + (np.abs(g) * moved).sum(axis=norm.axes),
            "input gradient": gain * (sums / norm.count + size * (moved + relative)),
        }
    return drift
