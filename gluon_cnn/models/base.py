"""What every net here is: `features`, then `classifier`, leaf after leaf, all shapes known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from mxnet.gluon import HybridBlock, nn

from gluon_cnn.models.arithmetic import WindowError
from gluon_cnn.models.layers import (
    Layer,
    ModelError,
    Shape,
    check_whole,
    input_shapes,
    least_size,
)

__all__ = ["ClassicCNN", "first_layers", "leaves"]


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
        model_name: str,
        input_shape: tuple[int, int, int],
        classes: int,
        features: Sequence[Layer],
        classifier: Sequence[Layer],
    ) -> None:
        super().__init__(prefix=f"{model_name}_")
        channels, height, width = input_shape
        check_whole(classes=classes, in_channels=channels, input_size=min(height, width))
        self.model_name = model_name
        self.input_shape = input_shape
        self.classes = classes
        self.least_input_size = least_size(features, channels)
        flow = _shapes(model_name, features, input_shape, self.least_input_size)
        after = input_shapes(classifier, flow[-1])
        with self.name_scope():
            self.features = _sequential("features_", features, flow)
            self.classifier = _sequential("classifier_", classifier, after)
        for shape in (*flow, *after):
            _check_length(f"{model_name}: an array of one sample", shape)
        for name, parameter in self.collect_params().items():
            _check_length(name, parameter.shape)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.classifier(self.features(x))


def _shapes(name: str, features: Sequence[Layer], shape: Shape, least: int) -> list[Shape]:
    try:
        return input_shapes(features, shape)
    except WindowError as error:
        index, (_, height, width) = error.args
        layer = features[index]
        kernel = getattr(layer, "kernel", None)
        raise ModelError(
            f"{name}: an input of {shape[1]}×{shape[2]} is too small: features.{index} "
            f"({type(layer).__name__} {kernel}×{kernel}) would get {height}×{width}; "
            f"the least input size is {least}"
        ) from None


def _check_length(what: str, shape: Shape) -> None:
    if math.prod(shape) >= 2**31:  # MXNet 1.9.1 counts an array's values in 32 bits
        raise ModelError(
            f"{what} would have {math.prod(shape):,} values, MXNet's arrays hold 2,147,483,647 "
            "at most; give fewer classes, channels or pixels"
        )


def _sequential(prefix: str, layers: Sequence[Layer], shapes: Sequence[Shape]) -> HybridBlock:
    # A prefix of its own for every block: without one Gluon counts the blocks it has ever made.
    sequential = nn.HybridSequential(prefix=prefix)
    with sequential.name_scope():
        for index, layer in enumerate(layers):
            sequential.add(layer.block(shapes[index], prefix=f"{index}_"))
    return sequential


def leaves(net: ClassicCNN) -> list[tuple[str, HybridBlock]]:
    """Every leaf with its path, in the order of computation: `features.0`, …, `classifier.5`."""
    return [
        (f"{part}.{index}", leaf)
        for part in ("features", "classifier")
        for index, leaf in enumerate(getattr(net, part))
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
