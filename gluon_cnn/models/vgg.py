"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2014, table 1 (doc-3).

The paper draws the weights of its shallow net A from N(0, 0.01²) with biases 0 and starts the
deeper ones from it; it adds that Glorot and Bengio's initialiser (Xavier) makes that needless.
The `_bn` nets put a BatchNorm (Ioffe and Szegedy 2015) after each convolution, whose bias stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from gluon_cnn.models.arithmetic import same_padding
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import (
    RELU,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
)

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


def _features(convolutions: tuple[int, ...], batch_norm: bool) -> Iterator[Layer]:
    for channels, count in zip(CHANNELS, convolutions, strict=True):
        for _ in range(count):
            yield Conv(channels, 3, padding=same_padding(3))
            if batch_norm:
                yield BatchNorm()
            yield RELU
        yield MaxPool(2, 2)  # halves the map: 224 to 112, 56, 28, 14, 7


def vgg(
    name: str,
    classes: int = 10,
    in_channels: int = 3,
    input_size: int = 224,
    *,
    dropout: float = 0.5,
) -> ClassicCNN:
    """`vgg11`, `vgg13`, `vgg16`, `vgg19`, and each with `_bn`; the output is logits.

    vgg16 has 134,301,514 parameters on 3×224×224 and ten classes, and works from 32×32 upwards.
    `dropout` is the probability that training drops an input of the last two dense layers.
    """
    depth = name.removesuffix("_bn")
    return ClassicCNN(
        name,
        (in_channels, input_size, input_size),
        classes,
        tuple(_features(TABLE_1[depth], batch_norm=name != depth)),
        (
            Flatten(),  # (N, 25088) from 224×224
            Dense(4096),
            RELU,
            Dropout(dropout),
            Dense(4096),
            RELU,
            Dropout(dropout),
            Dense(classes),
        ),
    )
