"""This project's models, and the toy size of each at which it is checked.

A toy has every leaf of its model, with its window, stride and padding, in the same order. The deep
nets get the least input that their windows fit into, and a fraction of the channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Toy:
    """A model at toy size: its input (C, H, W), and what its widths are divided by.

    `resized` models take other inputs by default, 224×224.
    """

    input_shape: tuple[int, int, int]
    divisor: int = 1
    resized: bool = False

    @property
    def input_size(self) -> int | None:
        """What `get_model` is told; None for the model's own."""
        return self.input_shape[1] if self.resized else None


_DIGITS = (1, 28, 28)
_VGG = Toy((3, 32, 32), divisor=16, resized=True)

MODELS: Mapping[str, Toy] = MappingProxyType(
    {
        "lenet": Toy(_DIGITS),
        "lenet_sigmoid": Toy(_DIGITS),
        "lenet_linear": Toy(_DIGITS),
        "lenet5": Toy((1, 32, 32)),
        "cifar_cnn": Toy((3, 32, 32)),
        "mnist_bn_cnn": Toy(_DIGITS, divisor=4),
        "alexnet": Toy((3, 67, 67), divisor=16, resized=True),
        **{f"vgg{depth}{norm}": _VGG for norm in ("", "_bn") for depth in (11, 13, 16, 19)},
    }
)
FULL = ("alexnet", "vgg16")  # those whose full size is checked too, where that is asked for
