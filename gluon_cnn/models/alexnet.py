"""AlexNet as doc-3 has it: one tower, 64-192-384-256-256 channels, no local response
normalisation, and no padding in the first convolution.

After Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. The
document names no initialiser; Krizhevsky, Sutskever and Hinton 2012 draw weights from N(0, 0.01²).
"""

from __future__ import annotations

from gluon_cnn.models.arithmetic import same_padding
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import RELU, Conv, Dense, Dropout, Flatten, MaxPool

__all__ = ["alexnet"]

ALEXNET = (
    Conv(64, 11, stride=4),  # (N, 64, 54, 54) from 224×224
    RELU,
    MaxPool(3, 2),  # (N, 64, 26, 26)
    Conv(192, 5, padding=same_padding(5)),  # (N, 192, 26, 26)
    RELU,
    MaxPool(3, 2),  # (N, 192, 12, 12)
    Conv(384, 3, padding=same_padding(3)),  # (N, 384, 12, 12)
    RELU,
    Conv(256, 3, padding=same_padding(3)),  # (N, 256, 12, 12)
    RELU,
    Conv(256, 3, padding=same_padding(3)),
    RELU,
    MaxPool(3, 2),  # (N, 256, 5, 5)
)


def alexnet(
    classes: int = 10, in_channels: int = 3, input_size: int = 224, *, dropout: float = 0.5
) -> ClassicCNN:
    """doc-3's AlexNet: 45,510,474 parameters on 3×224×224; the output is logits.

    `dropout` is the probability that training drops an input of a dense layer.
    """
    return ClassicCNN(
        "alexnet",
        (in_channels, input_size, input_size),
        classes,
        ALEXNET,
        (
            Flatten(),  # (N, 6400)
            Dropout(dropout),
            Dense(4096),
            RELU,
            Dropout(dropout),
            Dense(4096),
            RELU,
            Dense(classes),
        ),
    )
