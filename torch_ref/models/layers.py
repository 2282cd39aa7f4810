"""The layers that the spec tables name, and the arithmetic of their output shapes.

A table's entry is a `Maker`: called with the shape of one input sample, it makes the layer for it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

__all__ = [
    "MXBatchNorm2d",
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
Maker = Callable[[Shape], nn.Module]


class ModelError(ValueError):
    """A net that cannot be built as asked; one line."""


class MXBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` that keeps its running statistics as MXNet 1.9.1 does on a CPU.

    What differs from torch, on purpose:

    * `mx_momentum` m weighs the past, `running = m·running + (1−m)·batch`; torch's momentum, kept
      in `momentum` for those who read it, is 1 − m;
    * the running variance is the biased one, over n; torch keeps n/(n−1) times that;
    * m is rounded to float32 in a net of any dtype, as MXNet's operator attributes are;
    * the batch variance passes through its own inverse root, `1/(1/√(var+eps))² − eps`, since MXNet
      stores that root and computes the variance back from it: a last-bit matter, except where the
      variance is far below eps;
    * one value a channel is allowed, and comes out as `bias`.

    What cannot be kept: MXNet writes its running statistics in backward, so a recorded forward pass
    without backward leaves them alone. torch settles them in forward. They agree after each
    forward and backward.
    """

    mx_momentum: float

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.9) -> None:
        super().__init__(num_features, eps=eps, momentum=1.0 - momentum)
        self.mx_momentum = momentum

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # (N, C, H, W) -> the same
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        with torch.no_grad():
            variance, mean = torch.var_mean(input, dim=(0, 2, 3), unbiased=False)
            inverse = 1 / torch.sqrt(variance + self.eps)
            variance = 1 / (inverse * inverse) - self.eps
            momentum = float(np.float32(self.mx_momentum))
            for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
                assert running is not None
                running.mul_(momentum).add_(batch * (1 - momentum))
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
        # Not F.batch_norm: that refuses one value a channel.
        return torch.batch_norm(
            input, self.weight, self.bias, None, None, True, 0.0, self.eps, False
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, mx_momentum={self.mx_momentum}"


def conv(channels: int, kernel: int, stride: int = 1, padding: int = 0) -> Maker:
    return lambda shape: nn.Conv2d(shape[0], channels, kernel, stride, padding)


def max_pool(kernel: int, stride: int) -> Maker:
    return lambda shape: nn.MaxPool2d(kernel, stride)


def avg_pool(kernel: int, stride: int) -> Maker:
    return lambda shape: nn.AvgPool2d(kernel, stride)


def dense(units: int) -> Maker:
    return lambda shape: nn.Linear(shape[0], units)


def drop(rate: float) -> Maker:
    """Raises: ModelError for a rate that is no probability below 1."""
    if not (isinstance(rate, int | float) and math.isfinite(rate) and 0 <= rate < 1):
        raise ModelError(f"dropout is {rate!r}, expected a probability from 0 up to 1")
    return lambda shape: nn.Dropout(rate)


def batch_norm(shape: Shape) -> nn.Module:
    return MXBatchNorm2d(shape[0])


def flatten(shape: Shape) -> nn.Module:
    return nn.Flatten()


def relu(shape: Shape) -> nn.Module:
    return nn.ReLU()


def sigmoid(shape: Shape) -> nn.Module:
    return nn.Sigmoid()


def output_shape(layer: nn.Module, shape: Shape) -> Shape | None:
    """The shape of one sample after `layer`, or None where its window does not fit (doc-1).

    A window of f pixels with padding p and stride s fits ⌊(n + 2p − f)/s⌋ + 1 times into n pixels.
    """
    if isinstance(layer, nn.Flatten):
        return (math.prod(shape),)
    units = getattr(layer, "out_features", None)
    if units is not None:
        return (units,)
    if getattr(layer, "kernel_size", None) is None:
        return shape
    f, s, p = (_side(value) for value in (layer.kernel_size, layer.stride, layer.padding))
    if any(n + 2 * p < f for n in shape[1:]):
        return None
    channels = getattr(layer, "out_channels", shape[0])
    return (channels, *((n + 2 * p - f) // s + 1 for n in shape[1:]))


def check_whole(**numbers: int) -> None:
    """Raise ModelError for a number, named by its keyword, that is not whole and at least 1."""
    for name, number in numbers.items():
        try:
            fits = not isinstance(number, bool) and operator.index(number) >= 1
        except TypeError:
            fits = False
        if not fits:
            raise ModelError(f"{name} is {number!r}, expected a whole number of at least 1")


def _side(value: object) -> int:
    """The side of a square window, which torch gives as a number or as a pair of equal ones."""
    side = value[0] if isinstance(value, tuple) else value
    assert isinstance(side, int)
    return side
