"""AlexNet as doc-3 builds it.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
2012, in the one-column form of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014, here without padding on the first convolution.
"""

from __future__ import annotations

from torch_ref.models.base import ClassicCNN
from torch_ref.models.layers import conv, dense, drop, flatten, max_pool, relu

__all__ = ["alexnet"]

# doc-3; at 3×224×224: 45,510,474 parameters
FEATURES = (
    conv(64, 11, stride=4), relu, max_pool(3, 2),    # 64×54×54, 64×26×26
    conv(192, 5, padding=2), relu, max_pool(3, 2),   # 192×26×26, 192×12×12
    conv(384, 3, padding=1), relu,                   # 384×12×12
    conv(256, 3, padding=1), relu,                   # 256×12×12
    conv(256, 3, padding=1), relu, max_pool(3, 2),   # 256×12×12, 256×5×5
)  # fmt: skip


def alexnet(
    classes: int = 10, in_channels: int = 3, input_size: int = 224, *, dropout: float = 0.5
) -> ClassicCNN:
    """doc-3's AlexNet; `dropout` is the probability that a unit is dropped."""
    hidden = (drop(dropout), dense(4096), relu)
    classifier = (flatten, *hidden, *hidden, dense(classes))
    return ClassicCNN("alexnet", FEATURES, classifier, classes, in_channels, input_size)
