"""LeNet-5 as it was in 1998.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998,
section II.B, table I and appendix A; doc-0 tabulates it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_ref.models.base import ClassicCNN
from torch_ref.models.digits import BITMAPS
from torch_ref.models.layers import Maker, ModelError, Shape, conv, dense, flatten

__all__ = [
    "C3_TABLE",
    "LeNet5",
    "RBFOutput",
    "ScaledTanh",
    "TableConv2D",
    "TrainableSubsampling",
    "lenet5",
]

# Table I: which of the 6 maps of S2 each of the 16 maps of C3 sees, in rising order
C3_TABLE: tuple[tuple[int, ...], ...] = (
    *(tuple(sorted((i + k) % 6 for k in range(3))) for i in range(6)),
    *(tuple(sorted((i + k) % 6 for k in range(4))) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class ScaledTanh(nn.Module):
    """The paper's squashing, 1.7159·tanh(2a/3) (appendix A): ±1 maps to ±1."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(a * (2 / 3))


class TrainableSubsampling(nn.Module):
    """Sum over each 2×2 window, times a weight, plus a bias, one of each per map (S2, S4)."""

    kernel_size, stride, padding = 2, 2, 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, C, H, W) -> (N, C, H/2, W/2)
        total = F.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)
        return total * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, kernel_size=2, stride=2"


class TableConv2D(nn.Module):
    """Convolution in which each output map sees only the input maps that a table names (C3).

    `weight` (connections, k, k) holds one plane a connection, output map by output map, each with
    its input maps in the table's order; `bias` is (maps,). With `C3_TABLE`: 60 planes of 5×5.
    """

    stride, padding = 1, 0
    places: torch.Tensor

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...], kernel: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, len(table), kernel
        places = [out * in_channels + i for out, maps in enumerate(table) for i in maps]
        self.weight = nn.Parameter(torch.empty(len(places), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        # a plane's place in the dense kernel, flattened to (out·in, k, k)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        bound = [1 / math.sqrt(len(maps) * kernel**2) for maps in table for _ in maps]
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(torch.tensor(bound)[:, None, None])

    def dense_weight(self) -> torch.Tensor:
        """The kernel with zeros where the table has no connection, (out, in, k, k)."""
        out, inside, k = self.out_channels, self.in_channels, self.kernel_size
        planes = self.weight.new_zeros(out * inside, k, k).index_copy(0, self.places, self.weight)
        return planes.view(out, inside, k, k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, 6, 14, 14) -> (N, 16, 10, 10)
        return F.conv2d(x, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        planes, k = len(self.weight), self.kernel_size
        return f"{self.in_channels}, {self.out_channels}, kernel_size={k}, connections={planes}"


class RBFOutput(nn.Module):
    """Euclidean radial basis functions: the squared distance of (N, 84) to each digit's bitmap.

    The smallest output names the class. `bitmaps` (10, 84) is a buffer: it is never trained.
    """

    bitmaps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out_features = len(BITMAPS)
        # a copy on the default device, which `with torch.device(…)` may have changed
        self.register_buffer("bitmaps", BITMAPS.to(torch.empty(0).device, copy=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, 84) -> (N, 10)
        return (x[:, None, :] - self.bitmaps).square().sum(dim=2)

    def extra_repr(self) -> str:
        return f"{self.bitmaps.shape[1]}, {self.out_features}"


def _squash(shape: Shape) -> nn.Module:
    return ScaledTanh()


def _subsample(shape: Shape) -> nn.Module:
    return TrainableSubsampling(shape[0])


def _table_conv(shape: Shape) -> nn.Module:
    return TableConv2D(shape[0], C3_TABLE, 5)


def _rbf(shape: Shape) -> nn.Module:
    return RBFOutput()


# doc-0, at 1×32×32: 60,000 trained parameters and 840 fixed
FEATURES: tuple[Maker, ...] = (
    conv(6, 5), _squash,    # C1 6×28×28
    _subsample, _squash,    # S2 6×14×14
    _table_conv, _squash,   # C3 16×10×10
    _subsample, _squash,    # S4 16×5×5
    conv(120, 5), _squash,  # C5 120×1×1
)  # fmt: skip
CLASSIFIER: tuple[Maker, ...] = (flatten, dense(84), _squash, _rbf)  # F6, output


class LeNet5(ClassicCNN):
    """The net of 1998, whose outputs are distances: the smallest wins."""

    smallest_wins = True


def lenet5(classes: int = 10, in_channels: int = 1, input_size: int = 32) -> LeNet5:
    """doc-0's LeNet-5. Raises ModelError unless `classes` is 10: its outputs are ten digits."""
    if classes != len(BITMAPS):
        raise ModelError(
            f"lenet5 has {len(BITMAPS)} classes, not {classes!r}: its output units are bitmaps of "
            "the ten digits; take lenet or lenet_sigmoid for other classes"
        )
    return LeNet5("lenet5", FEATURES, CLASSIFIER, classes, in_channels, input_size)
