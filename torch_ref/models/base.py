"""What every net is: features, then a classifier, both plain sequences of single operations."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import nn

from torch_ref.models.layers import Maker, Shape, output_shape

__all__ = [
    "ClassicCNN",
    "ModelError",
    "check_probability",
    "first_layers",
    "least_size",
    "leaves",
]

LARGEST_SEARCHED = 4096  # pixels a side; no net of the documents needs more than 227


class ModelError(ValueError):
    """A net that cannot be built as asked; one line."""


class ClassicCNN(nn.Module):
    """A net of the documents: `classifier(features(x))`, (N, C, H, W) -> (N, classes).

    Every operation is a leaf of its own, numbered as in `gluon_cnn`. `input_shape` is (C, H, W).
    `smallest_wins` is True where the smallest output names the class. Raises ModelError where a
    number is not at least 1, or a window does not fit into the input.
    """

    smallest_wins = False

    def __init__(
        self,
        name: str,
        features: Sequence[Maker],
        classifier: Sequence[Maker],
        *,
        classes: int,
        in_channels: int,
        input_size: int,
    ) -> None:
        super().__init__()
        counts = {"classes": classes, "in_channels": in_channels, "input_size": input_size}
        for what, number in counts.items():
            _check_count(name, what, number)
        self.name = self.model_name = name
        self.input_shape = (in_channels, input_size, input_size)
        self.classes = classes
        self.features, shape = _build(name, "features", features, self.input_shape)
        self.classifier, _ = _build(name, "classifier", classifier, shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def leaves(net: ClassicCNN) -> list[tuple[str, nn.Module]]:
    """The net's operations in order, each with its path: `features.0`, …, `classifier.5`."""
    parts = (("features", net.features), ("classifier", net.classifier))
    return [(f"{part}.{n}", leaf) for part, layers in parts for n, leaf in layers.named_children()]


def first_layers(net: ClassicCNN, n: int) -> nn.Sequential:
    """The net cut after its first `n` operations (doc-1), sharing its parameters.

    Args:
        net: the whole net.
        n: how many operations are kept, from the input on.

    Returns:
        A net that takes the same images to what the n-th operation returns.

    Raises:
        ModelError: unless 1 ≤ n ≤ the number of operations.

    Examples:
        >>> from torch_ref.models import get_model
        >>> tuple(first_layers(get_model("lenet"), 3)(torch.zeros(2, 1, 28, 28)).shape)
        (2, 6, 12, 12)
    """
    layers = [leaf for _, leaf in leaves(net)]
    if not 1 <= n <= len(layers):
        raise ModelError(f"{net.name} has {len(layers)} layers: cannot take the first {n}")
    return nn.Sequential(*layers[:n])


def least_size(layers: Sequence[nn.Module], in_channels: int) -> int:
    """The least side of a square input into which every window of `layers` fits, in pixels."""
    for size in range(1, LARGEST_SEARCHED):
        shape: Shape | None = (in_channels, size, size)
        for layer in layers:
            shape = output_shape(layer, shape) if shape else None
        if shape:
            return size
    raise ModelError(f"no input below {LARGEST_SEARCHED} pixels a side fits these layers")


def _build(
    name: str, part: str, makers: Sequence[Maker], shape: Shape
) -> tuple[nn.Sequential, Shape]:
    layers = nn.Sequential()
    start = shape
    for i, make in enumerate(makers):
        layer = make(shape)
        after = output_shape(layer, shape)
        if after is None:
            raise ModelError(
                f"{name}: input {_show(start)} is too small: {part}.{i} ({layer}) gets"
                f" {_show(shape)}; the least input size is {_least_size(makers, start[0])}"
            )
        layers.append(layer)
        shape = after
    return layers, shape


def _least_size(makers: Sequence[Maker], in_channels: int) -> int:
    """As `least_size`, for layers that could not be made for the size that was asked for."""
    with torch.device("meta"):
        layers, _ = _build("", "", makers, (in_channels, LARGEST_SEARCHED, LARGEST_SEARCHED))
    return least_size(list(layers), in_channels)


def _show(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _check_count(name: str, what: str, number: int) -> None:
    try:
        fits = not isinstance(number, bool) and operator.index(number) >= 1
    except TypeError:
        fits = False
    if not fits:
        raise ModelError(f"{name}: {what} is {number!r}, expected a whole number of at least 1")


def check_probability(name: str, probability: float) -> None:
    """Raise ModelError unless `probability` is one that dropout can take, in [0, 1)."""
    number = isinstance(probability, int | float) and math.isfinite(probability)
    if not (number and 0 <= probability < 1):
        raise ModelError(f"{name}: dropout is {probability!r}, expected 0 ≤ dropout < 1")
