"""AlexNet as doc-3 has it: one tower, 64-192-384-256-256 channels, no local response
normalisation, and no padding in the first convolution.

After Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. The
document names no initialiser; Krizhevsky, Sutskever and Hinton 2012 draw weights from N(0, 0.01²).
"""

from __future__ import annotations

from gluon_cnn.models.arithmetic import same_padding
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import conv, dense, drop, flatten, max_pool, relu

__all__ = ["alexnet"]

FEATURES = (
    conv(64, 11, stride=4), relu, max_pool(3, 2),                 # (N, 64, 54, 54) from 224×224, 26
    conv(192, 5, padding=same_padding(5)), relu, max_pool(3, 2),  # (N, 192, 26, 26), 12
    conv(384, 3, padding=same_padding(3)), relu,                  # (N, 384, 12, 12)
    conv(256, 3, padding=same_padding(3)), relu,                  # (N, 256, 12, 12)
    conv(256, 3, padding=same_padding(3)), relu, max_pool(3, 2),  # (N, 256, 12, 12), 5
)  # fmt: skip


def alexnet(
    classes: int = 10, in_channels: int = 3, input_size: int = 224, *, dropout: float = 0.5
) -> ClassicCNN:
    """doc-3's AlexNet: 45,510,474 parameters on 3×224×224; the output is logits.

    `dropout` is the probability that training drops an input of a dense layer.
    """
    hidden = (drop(dropout), dense(4096), relu)
    classifier = (flatten, *hidden, *hidden, dense(classes))  # (N, 6400) to (N, classes)
    return ClassicCNN("alexnet", FEATURES, classifier, classes, in_channels, input_size)
