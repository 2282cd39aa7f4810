"""Two small CNNs: doc-1's CIFAR-10 classifier and doc-3's batch-norm net for MNIST.

Neither document names an initialiser; both rely on their framework's.
"""

from __future__ import annotations

from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import batch_norm, conv, dense, flatten, max_pool, relu

__all__ = ["cifar_cnn", "mnist_bn_cnn"]

CIFAR_FEATURES = (
    conv(8, 5), relu, max_pool(2, 2),   # (N, 8, 28, 28) from 32×32, (N, 8, 14, 14)
    conv(16, 3), relu, max_pool(2, 2),  # (N, 16, 12, 12), (N, 16, 6, 6)
)  # fmt: skip
CIFAR_CLASSIFIER = (flatten, dense(128), relu)

MNIST_BN_FEATURES = (
    conv(16, 3), batch_norm, relu,                   # (N, 16, 26, 26) from 28×28
    conv(32, 3), batch_norm, relu, max_pool(2, 2),   # (N, 32, 24, 24), (N, 32, 12, 12)
    conv(64, 3), batch_norm, relu,                   # (N, 64, 10, 10)
    conv(128, 3), batch_norm, relu, max_pool(2, 2),  # (N, 128, 8, 8), (N, 128, 4, 4)
)  # fmt: skip
MNIST_BN_CLASSIFIER = (flatten, dense(1024), relu, dense(128))


def cifar_cnn(
    classes: int = 10, in_channels: int = 3, input_size: int = 32, *, logit_relu: bool = False
) -> ClassicCNN:
    """doc-1's classifier: 76,922 parameters on 3×32×32; the output is logits.

    `logit_relu=True` puts the document's ReLU on the logits. It is a fault: a class whose logit
    falls below 0 gets no gradient any more.
    """
    classifier = (*CIFAR_CLASSIFIER, dense(classes), *([relu] if logit_relu else []))
    return ClassicCNN("cifar_cnn", CIFAR_FEATURES, classifier, classes, in_channels, input_size)


def mnist_bn_cnn(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's batch-norm net: 2,328,298 trainable parameters on 1×28×28; the output is logits.

    Each BatchNorm also keeps a running mean and variance per channel, 480 numbers in all.
    """
    classifier = (*MNIST_BN_CLASSIFIER, dense(classes))
    return ClassicCNN(
        "mnist_bn_cnn", MNIST_BN_FEATURES, classifier, classes, in_channels, input_size
    )
