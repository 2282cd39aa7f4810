"""Two small CNNs: doc-1's CIFAR-10 classifier and doc-3's batch-norm net for MNIST.

Neither document names an initialiser; both rely on their framework's.
"""

from __future__ import annotations

from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import RELU, BatchNorm, Conv, Dense, Flatten, MaxPool

__all__ = ["cifar_cnn", "mnist_bn_cnn"]

CIFAR_CNN = (
    Conv(8, 5),  # (N, 8, 28, 28) from 32×32
    RELU,
    MaxPool(2, 2),  # (N, 8, 14, 14)
    Conv(16, 3),  # (N, 16, 12, 12)
    RELU,
    MaxPool(2, 2),  # (N, 16, 6, 6)
)

MNIST_BN_CNN = (
    Conv(16, 3),  # (N, 16, 26, 26) from 28×28
    BatchNorm(),
    RELU,
    Conv(32, 3),  # (N, 32, 24, 24)
    BatchNorm(),
    RELU,
    MaxPool(2, 2),  # (N, 32, 12, 12)
    Conv(64, 3),  # (N, 64, 10, 10)
    BatchNorm(),
    RELU,
    Conv(128, 3),  # (N, 128, 8, 8)
    BatchNorm(),
    RELU,
    MaxPool(2, 2),  # (N, 128, 4, 4)
)


def cifar_cnn(
    classes: int = 10, in_channels: int = 3, input_size: int = 32, *, logit_relu: bool = False
) -> ClassicCNN:
    """doc-1's classifier: 76,922 parameters on 3×32×32; the output is logits.

    `logit_relu=True` puts the document's ReLU on the logits. It is a fault: a class whose logit
    falls below 0 gets no gradient any more.
    """
    logits = (Dense(classes), RELU) if logit_relu else (Dense(classes),)
    return ClassicCNN(
        "cifar_cnn",
        (in_channels, input_size, input_size),
        classes,
        CIFAR_CNN,
        (Flatten(), Dense(128), RELU, *logits),
    )


def mnist_bn_cnn(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's batch-norm net: 2,328,298 trainable parameters on 1×28×28; the output is logits.

    Each BatchNorm also keeps a running mean and variance per channel, 480 numbers in all.
    """
    return ClassicCNN(
        "mnist_bn_cnn",
        (in_channels, input_size, input_size),
        classes,
        MNIST_BN_CNN,
        (Flatten(), Dense(1024), RELU, Dense(128), Dense(classes)),
    )
