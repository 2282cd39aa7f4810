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
from gluon_cnn.models.layers import avg_pool, conv, dense, flatten, max_pool, relu, sigmoid

__all__ = ["lenet", "lenet_linear", "lenet_sigmoid"]

LENET_FEATURES = (
    conv(6, 5), relu, max_pool(2, 2),   # (N, 6, 24, 24) from 28×28, (N, 6, 12, 12)
    conv(16, 5), relu, max_pool(2, 2),  # (N, 16, 8, 8), (N, 16, 4, 4)
)  # fmt: skip
LENET_CLASSIFIER = (flatten, dense(120), relu, dense(84), relu)

SIGMOID_FEATURES = (
    conv(6, 5, padding=same_padding(5)), sigmoid, avg_pool(2, 2),  # (N, 6, 28, 28), (N, 6, 14, 14)
    conv(16, 5), sigmoid, avg_pool(2, 2),                          # (N, 16, 10, 10), (N, 16, 5, 5)
)  # fmt: skip
SIGMOID_CLASSIFIER = (flatten, dense(120), sigmoid, dense(84), sigmoid)

LINEAR_FEATURES = (
    conv(6, 3, padding=same_padding(3)), max_pool(2, 2),  # (N, 6, 28, 28), (N, 6, 14, 14)
    conv(16, 5), max_pool(2, 2),                          # (N, 16, 10, 10), (N, 16, 5, 5)
)  # fmt: skip
LINEAR_CLASSIFIER = (flatten, dense(120), dense(84))


def lenet(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-2's LeNet: 44,426 parameters on 1×28×28, 61,706 on 1×32×32; the output is logits."""
    classifier = (*LENET_CLASSIFIER, dense(classes))
    return ClassicCNN("lenet", LENET_FEATURES, classifier, classes, in_channels, input_size)


def lenet_sigmoid(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-0's stand-in for LeNet-5: 61,706 parameters on 1×28×28; the output is logits."""
    classifier = (*SIGMOID_CLASSIFIER, dense(classes))
    return ClassicCNN(
        "lenet_sigmoid", SIGMOID_FEATURES, classifier, classes, in_channels, input_size
    )


def lenet_linear(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's first net: 61,610 parameters on 1×28×28; the output is logits."""
    classifier = (*LINEAR_CLASSIFIER, dense(classes))
    return ClassicCNN("lenet_linear", LINEAR_FEATURES, classifier, classes, in_channels, input_size)
