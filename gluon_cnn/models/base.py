"""What every net is: `features`, then `classifier`, leaf after leaf, all shapes known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, ClassVar

from mxnet.gluon import HybridBlock, nn

from gluon_cnn.models.layers import Maker, ModelError, Shape, check_whole, output_shape

__all__ = ["ClassicCNN", "first_layers", "leaves"]

LARGEST_SEARCHED = 4096  # pixels a side; no net of the documents needs more than 227


class ClassicCNN(HybridBlock):
    """classifier(features(x)) for x of shape (N, C, H, W); the output is (N, classes).

    Every operation is a leaf block of its own, so a leaf's index is its layer's. Parameters are
    named by their place (`lenet_features_0_weight`), never by a counter. Nothing is initialised
    late: every parameter has its shape from the start.

    Raises ModelError for sizes below 1, for an input that a window does not fit in, and for one
    that makes an array longer than MXNet can count.
    """

    smallest_wins = False  # the class with the largest output is the answer
    layer_names: ClassVar[Mapping[str, str]] = MappingProxyType({})  # path -> the paper's name

    def __init__(
        self,
        name: str,
        features: Sequence[Maker],
        classifier: Sequence[Maker],
        classes: int,
        in_channels: int,
        input_size: int,
    ) -> None:
        super().__init__(prefix=f"{name}_")
        check_whole(classes=classes, in_channels=in_channels, input_size=input_size)
        self.model_name = name
        self.input_shape = (in_channels, input_size, input_size)
        self.classes = classes
        with self.name_scope():
            self.features, shape = _build(name, "features", features, self.input_shape)
            self.classifier, _ = _build(name, "classifier", classifier, shape)
        for full_name, parameter in self.collect_params().items():
            _check_length(full_name, parameter.shape)

    @property
    def least_input_size(self) -> int:
        """The least side of a square input into which every window fits, in pixels."""
        return _least_size(list(self.features), self.input_shape[0])

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.classifier(self.features(x))


def leaves(net: ClassicCNN) -> list[tuple[str, HybridBlock]]:
    """Every leaf with its path, in the order of computation: `features.0`, …, `classifier.5`."""
    parts = (("features", net.features), ("classifier", net.classifier))
    return [
        (f"{part}.{index}", leaf) for part, layers in parts for index, leaf in enumerate(layers)
    ]


def first_layers(net: ClassicCNN, n: int) -> nn.HybridSequential:
    """The net cut after its first `n` operations (doc-1), sharing its parameters.

    Args:
        net: the whole net.
        n: how many operations are kept, from the input on.

    Returns:
        A net that takes the same images to what the n-th operation returns.

    Raises:
        ModelError: unless 1 ≤ n ≤ the number of operations.

    Examples:
        >>> import mxnet as mx
        >>> from gluon_cnn.models import get_model
        >>> net = get_model("lenet")
        >>> net.initialize()
        >>> first_layers(net, 3)(mx.nd.zeros((2, 1, 28, 28))).shape
        (2, 6, 12, 12)
    """
    blocks = [leaf for _, leaf in leaves(net)]
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(blocks):
        raise ModelError(
            f"{net.model_name} cannot be cut after {n!r} layers, "
            f"expected a whole number from 1 to {len(blocks)}"
        )
    cut = nn.HybridSequential(prefix=f"{net.name}_first{n}_")
    cut.add(*blocks[:n])
    return cut


def _build(
    name: str, part: str, makers: Sequence[Maker], shape: Shape
) -> tuple[nn.HybridSequential, Shape]:
    # A prefix of its own for every block: without one Gluon counts the blocks it has ever made.
    layers = nn.HybridSequential(prefix=f"{part}_")
    start = shape
    with layers.name_scope():
        for index, make in enumerate(makers):
            _check_length(f"{name}: an array of one sample", shape)
            layer = make(shape, f"{index}_")
            after = output_shape(layer, shape)
            if after is None and start[1] >= LARGEST_SEARCHED:
                raise ModelError(
                    f"{name}: no input of {start[1]} pixels a side fits {part}.{index}"
                )
            if after is None:
                large, _ = _build(name, part, makers, (start[0], *[LARGEST_SEARCHED] * 2))
                raise ModelError(
                    f"{name}: an input of {start[1]}×{start[2]} is too small: {part}.{index} "
                    f"({type(layer).__name__} {_window(layer)}) would get {shape[1]}×{shape[2]}; "
                    f"the least input size is {_least_size(list(large), start[0])}"
                )
            layers.add(layer)
            shape = after
    _check_length(f"{name}: an array of one sample", shape)
    return layers, shape


def _least_size(layers: Sequence[HybridBlock], in_channels: int) -> int:
    def fits(size: int) -> bool:
        shape: Shape | None = (in_channels, size, size)
        for layer in layers:
            shape = output_shape(layer, shape) if shape else None
        return shape is not None

    return next(filter(fits, count(1)))


def _window(layer: HybridBlock) -> str:
    kernel = getattr(layer, "kernel", None) or layer._kwargs["kernel"][0]
    return f"{kernel}×{kernel}"


def _check_length(what: str, shape: Shape) -> None:
    if math.prod(shape) >= 2**31:  # MXNet 1.9.1 counts an array's values in 32 bits
        raise ModelError(
            f"{what} would have {math.prod(shape):,} values, MXNet's arrays hold 2,147,483,647 "
            "at most; give fewer classes, channels or pixels"
        )
