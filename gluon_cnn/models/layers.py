"""The layers that the spec tables name, and the arithmetic of their output shapes.

A table's entry is a `Maker`: called with the shape of one input sample, it makes the block for it,
whose parameters' names begin with a prefix. Shapes are (C, H, W), or (features,) after `flatten`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

from mxnet.gluon import HybridBlock, nn

from gluon_cnn.models.arithmetic import WindowError, output_size

__all__ = [
    "Maker",
    "ModelError",
    "Shape",
    "avg_pool",
    "batch_norm",
    "check_whole",
    "conv",
    "dense",
    "drop",
    "flatten",
    "max_pool",
    "output_shape",
    "relu",
    "sigmoid",
]

Shape = tuple[int, ...]
Maker = Callable[[Shape, str], HybridBlock]


class ModelError(ValueError):
    """A net that cannot be built: one line with what arrived, what was expected, what to do."""


def conv(channels: int, kernel: int, stride: int = 1, padding: int = 0) -> Maker:
    """Convolution `channels`@`kernel`×`kernel` with a bias per output channel."""
    return lambda shape, prefix: nn.Conv2D(
        channels, kernel, stride, padding, in_channels=shape[0], prefix=prefix
    )


def max_pool(kernel: int, stride: int) -> Maker:
    """The largest value of each window; no padding, incomplete windows dropped."""
    return lambda shape, prefix: nn.MaxPool2D(kernel, stride, prefix=prefix)


def avg_pool(kernel: int, stride: int) -> Maker:
    """The mean of each window; no padding, incomplete windows dropped."""
    return lambda shape, prefix: nn.AvgPool2D(kernel, stride, prefix=prefix)


def dense(units: int) -> Maker:
    """`units` weighted sums of every input, each with a bias; the weight is (out, in)."""
    return lambda shape, prefix: nn.Dense(units, in_units=shape[0], prefix=prefix)


def drop(rate: float) -> Maker:
    """In training, sets each value to 0 with probability `rate` and scales the rest up.

    Raises: ModelError for a rate outside [0, 1).
    """
    if not isinstance(rate, Real) or not 0 <= rate < 1:
        raise ModelError(f"dropout is {rate!r}, expected a probability from 0 up to 1")
    return lambda shape, prefix: nn.Dropout(rate, prefix=prefix)


def batch_norm(shape: Shape, prefix: str) -> HybridBlock:
    """Batch normalisation per channel: eps 1e-5, running statistics kept 0.9 a step."""
    return nn.BatchNorm(momentum=0.9, epsilon=1e-5, in_channels=shape[0], prefix=prefix)


def flatten(shape: Shape, prefix: str) -> HybridBlock:
    """(C, H, W) to (C·H·W,), channel by channel, row by row."""
    return nn.Flatten(prefix=prefix)


def relu(shape: Shape, prefix: str) -> HybridBlock:
    """max(x, 0)."""
    return nn.Activation("relu", prefix=prefix)


def sigmoid(shape: Shape, prefix: str) -> HybridBlock:
    """1 / (1 + exp(−x))."""
    return nn.Activation("sigmoid", prefix=prefix)


def output_shape(layer: HybridBlock, shape: Shape) -> Shape | None:
    """The shape of one sample after `layer`, or None where its window does not fit (doc-1).

    A block that is not Gluon's own may have a method `output_shape`; without one it keeps shapes.
    """
    if isinstance(layer, nn.Flatten):
        return (math.prod(shape),)
    if isinstance(layer, nn.Dense):
        return (layer._units,)
    try:
        if isinstance(layer, nn.Conv2D | nn.MaxPool2D | nn.AvgPool2D):
            window = layer._kwargs
            sides = zip(shape[1:], window["kernel"], window["pad"], window["stride"], strict=True)
            return (window.get("num_filter", shape[0]), *(output_size(*side) for side in sides))
        own: Callable[[Shape], Shape] | None = getattr(layer, "output_shape", None)
        return shape if own is None else own(shape)
    except WindowError:
        return None


def check_whole(**numbers: int) -> None:
    """Raise ModelError for a number, named by its keyword, that is not whole and at least 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
            raise ModelError(f"{name} is {number!r}, expected a whole number of at least 1")
