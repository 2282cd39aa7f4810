"""The nets of the documents, by name; the mirror of `gluon_cnn.models`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from gluon_cnn_parity import did_you_mean
from torch_ref.models.alexnet import alexnet
from torch_ref.models.base import ClassicCNN, first_layers, leaves
from torch_ref.models.cnn import cifar_cnn, mnist_bn_cnn
from torch_ref.models.layers import ModelError
from torch_ref.models.lenet import lenet, lenet_linear, lenet_sigmoid
from torch_ref.models.lenet5 import lenet5
from torch_ref.models.vgg import vgg

__all__ = [
    "MODELS",
    "ClassicCNN",
    "Entry",
    "ModelError",
    "first_layers",
    "get_model",
    "least_input_size",
    "leaves",
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
    """Build a net by name, with torch's own initial weights.

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
        >>> net = get_model("lenet", classes=5)
        >>> tuple(net(torch.zeros(2, 1, 28, 28)).shape)
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
    with torch.device("meta"):  # shapes alone: VGG16's weights would take half a gigabyte
        return get_model(name).least_input_size


def _entry(name: str) -> Entry:
    if name not in MODELS:
        nearest = did_you_mean(name, MODELS)
        raise ModelError(f"unknown model {name!r}; known: {', '.join(MODELS)}{nearest}")
    return MODELS[name]
