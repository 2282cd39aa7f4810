"""LeNet in the three modern forms of the documents.

- `lenet` (doc-2): ReLU and max pooling; its document initialises with Xavier.
- `lenet_sigmoid` (doc-0): sigmoid and average pooling; its document draws the weights
  Xavier-uniform.
- `lenet_linear` (doc-3): no activations, so without its max pools it would be one linear map; its
  document names no initialiser.

The 1998 original is in `lenet5`.
"""

from __future__ import annotations

from gluon_cnn.models.arithmetic import same_padding
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import RELU, SIGMOID, AvgPool, Conv, Dense, Flatten, MaxPool

__all__ = ["lenet", "lenet_linear", "lenet_sigmoid"]

LENET = (
    Conv(6, 5),  # (N, 6, 24, 24) from 28×28
    RELU,
    MaxPool(2, 2),  # (N, 6, 12, 12)
    Conv(16, 5),  # (N, 16, 8, 8)
    RELU,
    MaxPool(2, 2),  # (N, 16, 4, 4)
)

LENET_SIGMOID = (
    Conv(6, 5, padding=same_padding(5)),  # (N, 6, 28, 28) from 28×28
    SIGMOID,
    AvgPool(2, 2),  # (N, 6, 14, 14)
    Conv(16, 5),  # (N, 16, 10, 10)
    SIGMOID,
    AvgPool(2, 2),  # (N, 16, 5, 5)
)

LENET_LINEAR = (
    Conv(6, 3, padding=same_padding(3)),  # (N, 6, 28, 28) from 28×28
    MaxPool(2, 2),  # (N, 6, 14, 14)
    Conv(16, 5),  # (N, 16, 10, 10)
    MaxPool(2, 2),  # (N, 16, 5, 5)
)


def lenet(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-2's LeNet: 44,426 parameters on 1×28×28, 61,706 on 1×32×32; the output is logits."""
    return ClassicCNN(
        "lenet",
        (in_channels, input_size, input_size),
        classes,
        LENET,
        (Flatten(), Dense(120), RELU, Dense(84), RELU, Dense(classes)),
    )


def lenet_sigmoid(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-0's stand-in for LeNet-5: 61,706 parameters on 1×28×28; the output is logits."""
    return ClassicCNN(
        "lenet_sigmoid",
        (in_channels, input_size, input_size),
        classes,
        LENET_SIGMOID,
        (Flatten(), Dense(120), SIGMOID, Dense(84), SIGMOID, Dense(classes)),
    )


def lenet_linear(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's first net: 61,610 parameters on 1×28×28; the output is logits."""
    return ClassicCNN(
        "lenet_linear",
        (in_channels, input_size, input_size),
        classes,
        LENET_LINEAR,
        (Flatten(), Dense(120), Dense(84), Dense(classes)),
    )
