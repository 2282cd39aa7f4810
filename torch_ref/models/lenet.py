"""The three modern stand-ins for LeNet.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998,
as doc-2 (`lenet`), doc-0 and doc-4 (`lenet_sigmoid`) and doc-3 (`lenet_linear`) rebuild it.
"""

from __future__ import annotations

from torch_ref.models.base import ClassicCNN
from torch_ref.models.layers import avg_pool, conv, dense, flatten, max_pool, relu, sigmoid

__all__ = ["lenet", "lenet_linear", "lenet_sigmoid"]

# doc-2; at 1×28×28: 44,426 parameters
LENET_FEATURES = (
    conv(6, 5), relu, max_pool(2, 2),   # 6×24×24, 6×12×12
    conv(16, 5), relu, max_pool(2, 2),  # 16×8×8, 16×4×4
)  # fmt: skip
LENET_CLASSIFIER = (flatten, dense(120), relu, dense(84), relu)

# doc-0, doc-4; at 1×28×28: 61,706 parameters
SIGMOID_FEATURES = (
    conv(6, 5, padding=2), sigmoid, avg_pool(2, 2),  # 6×28×28, 6×14×14
    conv(16, 5), sigmoid, avg_pool(2, 2),            # 16×10×10, 16×5×5
)  # fmt: skip
SIGMOID_CLASSIFIER = (flatten, dense(120), sigmoid, dense(84), sigmoid)

# doc-3; at 1×28×28: 61,610 parameters
LINEAR_FEATURES = (
    conv(6, 3, padding=1), max_pool(2, 2),  # 6×28×28, 6×14×14
    conv(16, 5), max_pool(2, 2),            # 16×10×10, 16×5×5
)  # fmt: skip
LINEAR_CLASSIFIER = (flatten, dense(120), dense(84))


def lenet(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-2's LeNet: ReLU, max pooling, no activation on the logits."""
    classifier = (*LENET_CLASSIFIER, dense(classes))
    return ClassicCNN("lenet", LENET_FEATURES, classifier, classes, in_channels, input_size)


def lenet_sigmoid(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-0's LeNet: sigmoid, average pooling."""
    classifier = (*SIGMOID_CLASSIFIER, dense(classes))
    return ClassicCNN(
        "lenet_sigmoid", SIGMOID_FEATURES, classifier, classes, in_channels, input_size
    )


def lenet_linear(classes: int = 10, in_channels: int = 1, input_size: int = 28) -> ClassicCNN:
    """doc-3's LeNet: no activations at all, so its only nonlinearity is max pooling."""
    classifier = (*LINEAR_CLASSIFIER, dense(classes))
    return ClassicCNN("lenet_linear", LINEAR_FEATURES, classifier, classes, in_channels, input_size)
