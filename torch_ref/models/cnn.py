"""Two small nets of the documents: doc-1's CIFAR-10 classifier and doc-3's batch-norm CNN."""

from __future__ import annotations

from torch_ref.models.base import ClassicCNN
from torch_ref.models.layers import batch_norm, conv, dense, flatten, max_pool, relu

__all__ = ["cifar_cnn", "mnist_bn_cnn"]

# doc-1; at 3×32×32: 76,922 parameters
CIFAR_FEATURES = (
    conv(8, 5), relu, max_pool(2, 2),   # 8×28×28, 8×14×14
    conv(16, 3), relu, max_pool(2, 2),  # 16×12×12, 16×6×6
)  # fmt: skip
CIFAR_CLASSIFIER = (flatten, dense(128), relu)

# doc-3; at 1×28×28: 2,328,298 parameters
MNIST_BN_FEATURES = (
    conv(16, 3), batch_norm, relu,                   # 16×26×26
    conv(32, 3), batch_norm, relu, max_pool(2, 2),   # 32×24×24, 32×12×12
    conv(64, 3), batch_norm, relu,                   # 64×10×10
    conv(128, 3), batch_norm, relu, max_pool(2, 2),  # 128×8×8, 128×4×4
)  # fmt: skip
# doc-3 puts no activation after the 128
MNIST_BN_CLASSIFIER = (flatten, dense(1024), relu, dense(128))


def cifar_cnn(
    classes: int = 10, in_channels: int = 3, input_size: int = 32, *, logit_relu: bool = False
) -> ClassicCNN:
    """doc-1's classifier. `logit_relu=True` adds the document's ReLU on the logits: a fault, since
    a class whose logit is negative gets no gradient and the net stops learning."""
    classifier = (*CIFAR_CLASSIFIER, dense(classes), *([relu] if logit_relu else []))
    return ClassicCNN("cifar_cnn", CIFAR_FEATURES, classifier, classes, in_channels, input_size)


def mnist_bn_cnn(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's CNN with batch normalisation after every convolution."""
    classifier = (*MNIST_BN_CLASSIFIER, dense(classes))
    return ClassicCNN(
        "mnist_bn_cnn", MNIST_BN_FEATURES, classifier, classes, in_channels, input_size
    )
