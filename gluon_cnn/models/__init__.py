"""The Gluon models, and the table of their names.

Models know no data, files or training. Their twins, name for name and leaf for leaf, are in
`torch_ref.models`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gluon_cnn_parity import did_you_mean
from gluon_cnn.models.alexnet import alexnet
from gluon_cnn.models.arithmetic import output_size, same_padding
from gluon_cnn.models.base import ClassicCNN, first_layers, leaves
from gluon_cnn.models.cnn import cifar_cnn, mnist_bn_cnn
from gluon_cnn.models.layers import ModelError
from gluon_cnn.models.lenet import lenet, lenet_linear, lenet_sigmoid
from gluon_cnn.models.lenet5 import lenet5
from gluon_cnn.models.vgg import vgg

__all__ = [
    "MODELS",
    "ClassicCNN",
    "Entry",
    "ModelError",
    "first_layers",
    "get_model",
    "least_input_size",
    "leaves",
    "output_size",
    "same_padding",
]


@dataclass(frozen=True)
class Entry:
    """A model's factory, and the input (C, H, W) of its document."""

    factory: Callable[..., ClassicCNN]
    input_shape: tuple[int, int, int]


MODELS = {
    "lenet": Entry(lenet, (1, 28, 28)),
    "lenet_sigmoid": Entry(lenet_sigmoid, (1, 28, 28)),
    "lenet_linear": Entry(lenet_linear, (1, 28, 28)),
    "lenet5": Entry(lenet5, (1, 32, 32)),
    "cifar_cnn": Entry(cifar_cnn, (3, 32, 32)),
    "mnist_bn_cnn": Entry(mnist_bn_cnn, (1, 28, 28)),
    "alexnet": Entry(alexnet, (3, 224, 224)),
    **{
        name: Entry(partial(vgg, name), (3, 224, 224))
        for name in ("vgg11", "vgg13", "vgg16", "vgg19",
                     "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
    },
}  # fmt: skip


def get_model(
    name: str,
    classes: int = 10,
    in_channels: int | None = None,
    input_size: int | None = None,
    **options: object,
) -> ClassicCNN:
    """Build a net by name, uninitialised.

    Args:
        name: one of `MODELS`.
        classes: numbers that the net returns for an image.
        in_channels: of the images; None is the document's own number.
        input_size: height and width of the images, in pixels; None is the document's own.
        options: the model's own: `logit_relu` (cifar_cnn), `dropout` (alexnet and vgg).

    Returns:
        A net that takes float32 (N, in_channels, input_size, input_size) to (N, classes).

    Raises:
        ModelError: an unknown name or option, a number below 1, or an input too small for the net.

    Examples:
        >>> import mxnet as mx
        >>> net = get_model("lenet", classes=5)
        >>> net.initialize()
        >>> net(mx.nd.zeros((2, 1, 28, 28))).shape
        (2, 5)
    """
    entry = _entry(name)
    parameters = inspect.signature(entry.factory).parameters.values()
    own = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(own)):
        raise ModelError(
            f"{name} has no option {', '.join(unknown)}; it has {', '.join(own) or 'none'}"
        )
    channels, size, _ = entry.input_shape
    return entry.factory(
        classes=classes,
        in_channels=channels if in_channels is None else in_channels,
        input_size=size if input_size is None else input_size,
        **options,
    )


def least_input_size(name: str) -> int:
    """The smallest input_size that `get_model(name)` accepts, in pixels."""
    return get_model(name).least_input_size


def _entry(name: str) -> Entry:
    if name not in MODELS:
        nearest = did_you_mean(name, MODELS)
        raise ModelError(f"unknown model {name!r}; known: {', '.join(MODELS)}{nearest}")
    return MODELS[name]
