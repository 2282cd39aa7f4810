"""LeNet-5 as its paper has it: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE 86(11), 1998, section II.B (doc-0).

Sparse C3, subsampling with trainable weights, scaled tanh, and ten radial basis functions that
measure how far F6 is from fixed drawings of the digits. The paper draws weights and biases from
U(±2.4 / fan_in) (its appendix A) and trains with its equation 9, `losses.RBFLoss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import mxnet as mx
from mxnet.gluon import HybridBlock

from gluon_cnn.models.arithmetic import output_size
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.digits import BITMAPS
from gluon_cnn.models.layers import Maker, ModelError, Shape, conv, dense, flatten

__all__ = [
    "C3_TABLE",
    "LeNet5",
    "RBFOutput",
    "ScaledTanh",
    "TableConv2D",
    "TrainableSubsampling",
    "lenet5",
]

Tensor = Any  # NDArray when run, Symbol when hybridized; F is the module of the same kind

# Table I: which S2 maps (rows 0 to 5) each C3 map (columns 0 to 15) sees.
TABLE_I = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""


def _read_table(text: str) -> tuple[tuple[int, ...], ...]:
    rows = [line.split() for line in text.split("\n") if line.strip()]
    return tuple(
        tuple(source for source, row in enumerate(rows) if row[column] == "X")
        for column in range(len(rows[0]))
    )


C3_TABLE = _read_table(TABLE_I)  # for each C3 map the S2 maps that it sees, ascending


@mx.init.register
class DigitBitmaps(mx.init.Initializer):
    """Fills the (10, 84) parameter of `RBFOutput` with the drawings, whatever else is asked for."""

    def _init_weight(self, _: str, array: mx.nd.NDArray) -> None:
        array[:] = BITMAPS


class ScaledTanh(HybridBlock):
    """1.7159·tanh(2a/3): takes ±1 to ±1, and bends most there (appendix A)."""

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        # Activation runs in oneDNN's vector code; F.tanh is ten times slower on a CPU.
        return F.Activation(x * (2 / 3), act_type="tanh") * 1.7159


class TrainableSubsampling(HybridBlock):
    """S2 and S4: the sum of each 2×2 window, times its map's weight, plus its map's bias.

    (N, C, H, W) to (N, C, H/2, W/2); `weight` and `bias` are (C,). The squashing that follows in
    the paper is a leaf of its own.
    """

    kernel = 2

    def __init__(self, channels: int, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.channels = channels
        with self.name_scope():
            # At 1/4 it is average pooling. It needs a start of its own: Xavier refuses vectors.
            start = mx.init.Constant(1 / self.kernel**2)
            self.weight = self.params.get("weight", shape=(channels,), init=start)
            self.bias = self.params.get("bias", shape=(channels,), init="zeros")

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *(output_size(n, self.kernel, s=self.kernel) for n in shape[1:]))

    def hybrid_forward(self, F: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # 4·weight·mean for weight·sum: times 4 is exact, and ONNX has no pool that sums. A 1×1
        # convolution with a group for each map is five times faster than broadcasting.
        mean = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
        scale = F.reshape(weight * self.kernel**2, shape=(self.channels, 1, 1, 1))
        return F.Convolution(
            mean, scale, bias, kernel=(1, 1), num_filter=self.channels, num_group=self.channels
        )


class TableConv2D(HybridBlock):
    """C3: a convolution whose output maps each see only the input maps that a table names.

    (N, in_channels, H, W) to (N, len(table), H − 4, W − 4) for 5×5 kernels. `weight` holds only
    the connected planes, (connections, 5, 5): output map by output map, and within one by
    ascending input map. `bias` is (len(table),).
    """

    def __init__(
        self,
        in_channels: int,
        table: tuple[tuple[int, ...], ...],
        kernel: int,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        self.in_channels = in_channels
        self.table = table
        self.kernel = kernel
        planes = sum(len(sources) for sources in table)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(planes, kernel, kernel))
            self.bias = self.params.get("bias", shape=(len(table),), init="zeros")

    def output_shape(self, shape: Shape) -> Shape:
        return (len(self.table), *(output_size(n, self.kernel) for n in shape[1:]))

    def hybrid_forward(self, F: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps, kernel = len(self.table), self.kernel
        planes = F.split(weight, num_outputs=sum(map(len, self.table)), axis=0)
        packed = iter(planes)
        zero = F.zeros_like(planes[0])
        dense = F.concat(
            *(
                next(packed) if source in sources else zero
                for sources in self.table
                for source in range(self.in_channels)
            ),
            dim=0,
        )
        # F.reshape copies: oneDNN refuses the view that dense.reshape would make as a weight.
        dense = F.reshape(dense, shape=(maps, self.in_channels, kernel, kernel))
        return F.Convolution(x, dense, bias, kernel=(kernel, kernel), num_filter=maps)


class RBFOutput(HybridBlock):
    """Squared Euclidean distance of each sample from each digit's drawing: the smallest wins.

    (N, 84) to (N, 10). `bitmaps` is fixed: no gradient, and no initialiser but its own.
    """

    def __init__(self, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.bitmaps = self.params.get(
                "bitmaps", shape=BITMAPS.shape, init=DigitBitmaps(), differentiable=False
            )

    def output_shape(self, shape: Shape) -> Shape:
        return (len(BITMAPS),)

    def hybrid_forward(self, F: Any, x: Tensor, bitmaps: Tensor) -> Tensor:
        offset = F.broadcast_sub(x.expand_dims(1), bitmaps.expand_dims(0))  # (N, 10, 84)
        return F.sum(F.square(offset), axis=2)


def _squash(shape: Shape, prefix: str) -> HybridBlock:
    return ScaledTanh(prefix=prefix)


def _subsample(shape: Shape, prefix: str) -> HybridBlock:
    return TrainableSubsampling(shape[0], prefix=prefix)


def _table_conv(shape: Shape, prefix: str) -> HybridBlock:
    return TableConv2D(shape[0], C3_TABLE, 5, prefix=prefix)


def _rbf(shape: Shape, prefix: str) -> HybridBlock:
    return RBFOutput(prefix=prefix)


FEATURES: tuple[Maker, ...] = (
    conv(6, 5), _squash,    # C1 (N, 6, 28, 28) from 32×32
    _subsample, _squash,    # S2 (N, 6, 14, 14)
    _table_conv, _squash,   # C3 (N, 16, 10, 10)
    _subsample, _squash,    # S4 (N, 16, 5, 5)
    conv(120, 5), _squash,  # C5 (N, 120, 1, 1)
)  # fmt: skip
CLASSIFIER: tuple[Maker, ...] = (flatten, dense(84), _squash, _rbf)  # F6, output


class LeNet5(ClassicCNN):
    """LeNet-5 of 1998. Its ten outputs are distances, not logits."""

    smallest_wins = True
    layer_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "features.0": "C1",
            "features.2": "S2",
            "features.4": "C3",
            "features.6": "S4",
            "features.8": "C5",
            "classifier.1": "F6",
            "classifier.3": "output",
        }
    )


def lenet5(classes: int = 10, in_channels: int = 1, input_size: int = 32) -> LeNet5:
    """doc-0's LeNet-5: 60,000 trainable parameters and 840 fixed ones on 1×32×32.

    Raises ModelError for any number of classes but ten: the outputs' targets are ten drawings.
    """
    if classes != len(BITMAPS):
        raise ModelError(
            f"lenet5 has {len(BITMAPS)} classes, not {classes!r}: its outputs compare with "
            "drawings of the ten digits; lenet_sigmoid is the stand-in for other classes"
        )
    return LeNet5("lenet5", FEATURES, CLASSIFIER, classes, in_channels, input_size)
