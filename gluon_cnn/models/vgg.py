"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2014, table 1 (doc-3).

The paper draws the weights of its shallow net A from N(0, 0.01²) with biases 0 and starts the
deeper ones from it; it adds that Glorot and Bengio's initialiser (Xavier) makes that needless.
The `_bn` nets put a BatchNorm (Ioffe and Szegedy 2015) after each convolution, whose bias stays.
"""

from __future__ import annotations

from gluon_cnn.models.arithmetic import same_padding
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import Maker, batch_norm, conv, dense, drop, flatten, max_pool, relu

__all__ = ["vgg"]

# Table 1, column by column: how many 3×3 convolutions each stage has. The name counts the layers
# with weights: these and three dense layers. (The paper's net C, with 1×1 kernels, is not here.)
CHANNELS = (64, 128, 256, 512, 512)
TABLE_1 = {
    "vgg11": (1, 1, 2, 2, 2),  # A
    "vgg13": (2, 2, 2, 2, 2),  # B
    "vgg16": (2, 2, 3, 3, 3),  # D
    "vgg19": (2, 2, 4, 4, 4),  # E
}


def _features(convolutions: tuple[int, ...], normalise: bool) -> list[Maker]:
    layers: list[Maker] = []
    for channels, count in zip(CHANNELS, convolutions, strict=True):
        for _ in range(count):
            layers.append(conv(channels, 3, padding=same_padding(3)))
            layers += [batch_norm, relu] if normalise else [relu]
        layers.append(max_pool(2, 2))  # halves the map: 224 to 112, 56, 28, 14, 7
    return layers


def vgg(
    name: str, classes: int = 10, in_channels: int = 3, input_size: int = 224, *,
    dropout: float = 0.5,
) -> ClassicCNN:  # fmt: skip
    """`vgg11`, `vgg13`, `vgg16`, `vgg19`, and each with `_bn`; the output is logits.

    vgg16 has 134,301,514 parameters on 3×224×224 and ten classes, and works from 32×32 upwards.
    `dropout` is the probability that training drops an input of the last two dense layers.
    """
    depth = name.removesuffix("_bn")
    hidden = (dense(4096), relu, drop(dropout))
    classifier = (flatten, *hidden, *hidden, dense(classes))  # (N, 25088) to (N, classes)
    features = _features(TABLE_1[depth], normalise=name != depth)
    return ClassicCNN(name, features, classifier, classes, in_channels, input_size)
