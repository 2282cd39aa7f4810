"""VGG: stages of 3×3 convolutions, each ended by a pooling that halves the picture.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014,
table 1, with doc-3's classifier. The batch-norm variants normalise after every convolution.
"""

from __future__ import annotations

from torch_ref.models.base import ClassicCNN
from torch_ref.models.layers import Maker, batch_norm, conv, dense, drop, flatten, max_pool, relu

__all__ = ["vgg"]

# Table 1: convolutions in each stage (columns A, B, D, E), and the channels of the stages
CHANNELS = (64, 128, 256, 512, 512)
TABLE_1 = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def _features(convolutions: tuple[int, ...], normalise: bool) -> list[Maker]:
    layers: list[Maker] = []
    for channels, count in zip(CHANNELS, convolutions, strict=True):
        block = [conv(channels, 3, padding=1), *([batch_norm] if normalise else []), relu]
        layers += [*block * count, max_pool(2, 2)]
    return layers


def vgg(
    name: str, classes: int = 10, in_channels: int = 3, input_size: int = 224, *,
    dropout: float = 0.5,
) -> ClassicCNN:  # fmt: skip
    """The VGG called `name`, such as vgg16 or vgg11_bn; `dropout` is the probability to drop.

    vgg16 at 3×224×224 has 134,301,514 parameters at 10 classes.
    """
    features = _features(TABLE_1[name.removesuffix("_bn")], normalise=name.endswith("_bn"))
    hidden = (dense(4096), relu, drop(dropout))
    classifier = (flatten, *hidden, *hidden, dense(classes))
    return ClassicCNN(name, features, classifier, classes, in_channels, input_size)
