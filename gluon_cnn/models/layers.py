"""One frozen record per kind of layer: the words in which the models' spec tables are written.

A record knows its output's shape from its input's, and how to make its Gluon block. Shapes are
those of one sample: (C, H, W), or (features,) after `Flatten`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol

from mxnet.gluon import HybridBlock, nn

from gluon_cnn.models.arithmetic import WindowError, output_size

__all__ = [
    "RELU",
    "SIGMOID",
    "Activation",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "MaxPool",
    "ModelError",
    "Shape",
    "check_whole",
    "input_shapes",
    "least_size",
]

Shape = tuple[int, ...]


class ModelError(ValueError):
    """A net that cannot be built: one line with what arrived, what was expected, what to do."""


class Layer(Protocol):
    """What a spec table is made of."""

    def output(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape; WindowError if the input is too small."""
        ...

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        """The Gluon block for an input of this shape; its parameters' names begin with `prefix`."""
        ...


@dataclass(frozen=True)
class Conv:
    """Convolution `channels`@`kernel`×`kernel` with a bias per output channel."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0

    def output(self, shape: Shape) -> Shape:
        size = (output_size(n, self.kernel, self.padding, self.stride) for n in shape[1:])
        return (self.channels, *size)

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.Conv2D(
            self.channels,
            self.kernel,
            self.stride,
            self.padding,
            in_channels=shape[0],
            prefix=prefix,
        )


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window; no padding, incomplete windows dropped."""

    kernel: int
    stride: int

    def output(self, shape: Shape) -> Shape:
        return (shape[0], *(output_size(n, self.kernel, 0, self.stride) for n in shape[1:]))

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.MaxPool2D(self.kernel, self.stride, prefix=prefix)


@dataclass(frozen=True)
class AvgPool:
    """The mean of each window; no padding, incomplete windows dropped."""

    kernel: int
    stride: int

    def output(self, shape: Shape) -> Shape:
        return (shape[0], *(output_size(n, self.kernel, 0, self.stride) for n in shape[1:]))

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.AvgPool2D(self.kernel, self.stride, prefix=prefix)


class _SameShape:
    """A layer whose output has its input's shape."""

    def output(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class Activation(_SameShape):
    """An elementwise function, by MXNet's name for it."""

    function: str

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.Activation(self.function, prefix=prefix)


RELU = Activation("relu")
SIGMOID = Activation("sigmoid")


@dataclass(frozen=True)
class BatchNorm(_SameShape):
    """Batch normalisation per channel: eps 1e-5, running statistics kept 0.9 a step."""

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.BatchNorm(momentum=0.9, epsilon=1e-5, in_channels=shape[0], prefix=prefix)


@dataclass(frozen=True)
class Dropout(_SameShape):
    """In training, sets each value to 0 with probability `rate` and scales the rest up."""

    rate: float

    def __post_init__(self) -> None:
        if not isinstance(self.rate, Real) or not 0 <= self.rate < 1:
            raise ModelError(f"dropout is {self.rate!r}, expected a probability from 0 up to 1")

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.Dropout(self.rate, prefix=prefix)


@dataclass(frozen=True)
class Flatten:
    """(C, H, W) to (C·H·W,), channel by channel, row by row."""

    def output(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.Flatten(prefix=prefix)


@dataclass(frozen=True)
class Dense:
    """`units` weighted sums of every input, each with a bias; the weight is (out, in)."""

    units: int

    def output(self, shape: Shape) -> Shape:
        return (self.units,)

    def block(self, shape: Shape, prefix: str) -> HybridBlock:
        return nn.Dense(self.units, in_units=shape[0], prefix=prefix)


def check_whole(**numbers: int) -> None:
    """Raise ModelError for a number, named by its keyword, that is not whole and at least 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
            raise ModelError(f"{name} is {number!r}, expected a whole number of at least 1")


def input_shapes(layers: Iterable[Layer], shape: Shape) -> list[Shape]:
    """The shape that reaches each layer, and at the end the shape that leaves the last one.

    Raises WindowError, its `args` the layer's index and the shape that reached it, where a window
    does not fit.
    """
    shapes = [shape]
    for index, layer in enumerate(layers):
        try:
            shapes.append(layer.output(shapes[-1]))
        except WindowError as error:
            raise WindowError(index, shapes[-1]) from error
    return shapes


def least_size(layers: Sequence[Layer], channels: int) -> int:
    """The smallest n for which an n×n input passes through every layer."""
    size = 1
    while True:
        try:
            input_shapes(layers, (channels, size, size))
        except WindowError:
            size += 1
        else:
            return size
