"""What every net is: features, then a classifier, both plain sequences of single operations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import nn

from torch_ref.models.layers import Maker, ModelError, Shape, check_whole, output_shape

__all__ = ["ClassicCNN", "first_layers", "leaves"]

LARGEST_SEARCHED = 4096  # pixels a side; no net of the documents needs more than 227


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
        classes: int,
        in_channels: int,
        input_size: int,
    ) -> None:
        super().__init__()
        check_whole(classes=classes, in_channels=in_channels, input_size=input_size)
        self.model_name = name
        self.input_shape = (in_channels, input_size, input_size)
        self.classes = classes
        self.features, shape = _build(name, "features", features, self.input_shape)
        self.classifier, _ = _build(name, "classifier", classifier, shape)

    @property
    def least_input_size(self) -> int:
        """The least side of a square input into which every window fits, in pixels."""
        return _least_size(list(self.features), self.input_shape[0])

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
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(layers):
        raise ModelError(
            f"{net.model_name} cannot be cut after {n!r} layers, "
            f"expected a whole number from 1 to {len(layers)}"
        )
    return nn.Sequential(*layers[:n])


def _build(
    name: str, part: str, makers: Sequence[Maker], shape: Shape
) -> tuple[nn.Sequential, Shape]:
    layers = nn.Sequential()
    start = shape
    for index, make in enumerate(makers):
        layer = make(shape)
        after = output_shape(layer, shape)
        if after is None and start[1] >= LARGEST_SEARCHED:
            raise ModelError(f"{name}: no input of {start[1]} pixels a side fits {part}.{index}")
        if after is None:
            with torch.device("meta"):  # layers could not be made for the size asked for
                large, _ = _build(name, part, makers, (start[0], *[LARGEST_SEARCHED] * 2))
            raise ModelError(
                f"{name}: an input of {start[1]}×{start[2]} is too small: {part}.{index} "
                f"({type(layer).__name__} {_window(layer)}) would get {shape[1]}×{shape[2]}; "
                f"the least input size is {_least_size(list(large), start[0])}"
            )
        layers.append(layer)
        shape = after
    return layers, shape


def _least_size(layers: Sequence[nn.Module], in_channels: int) -> int:
    def fits(size: int) -> bool:
        shape: Shape | None = (in_channels, size, size)
        for layer in layers:
            shape = output_shape(layer, shape) if shape else None
        return shape is not None

    return next(filter(fits, count(1)))


def _window(layer: nn.Module) -> str:
    kernel: Any = layer.kernel_size
    side = kernel[0] if isinstance(kernel, tuple) else kernel
    return f"{side}×{side}"
