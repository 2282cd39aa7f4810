"""`python -m parity_tests.gate.mxnet2`: what of the nets MXNet 2.0.0b1 runs, leaf by leaf.

MXNet 2 gave up Gluon's name scopes, on which this project's nets are built, and its layers refuse
`mx.nd` arrays. What is left to ask is each operation alone: the layers of the nets, made as the
nets make them, on `mx.nd` arrays and on `mx.np` arrays, forward and backward.

Framework specific (mxnet): it runs another version of MXNet, on which the backend does not work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import nn

from cnn_harness.cli import Parser, as_command
from parity_tests.backends.runs import reason_of
from parity_tests.gate.record.subjects import drawn

# Every operation of the project's nets, with the shape of an input
LEAVES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv2d 5×5": (lambda: nn.Conv2D(6, 5, in_channels=3), (2, 3, 12, 12)),
    "conv2d 11×11/4, pad 2": (lambda: nn.Conv2D(4, 11, 4, 2, in_channels=3), (2, 3, 31, 31)),
    "conv2d 3×3, pad 1": (lambda: nn.Conv2D(16, 3, 1, 1, in_channels=16), (2, 16, 8, 8)),
    "batchnorm": (lambda: nn.BatchNorm(in_channels=3), (4, 3, 6, 6)),
    "relu": (lambda: nn.Activation("relu"), (2, 3, 6, 6)),
    "sigmoid": (lambda: nn.Activation("sigmoid"), (2, 3, 6, 6)),
    "tanh": (lambda: nn.Activation("tanh"), (2, 3, 6, 6)),
    "max_pool2d 2/2": (lambda: nn.MaxPool2D(2, 2), (2, 3, 6, 6)),
    "max_pool2d 3/2": (lambda: nn.MaxPool2D(3, 2), (2, 3, 7, 7)),
    "avg_pool2d 2/2": (lambda: nn.AvgPool2D(2, 2), (2, 3, 6, 6)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 6, 6)),
    "dense": (lambda: nn.Dense(10, in_units=108), (2, 108)),
    "dropout": (lambda: nn.Dropout(0.5), (2, 108)),
    "softmax cross-entropy": (lambda: mx.gluon.loss.SoftmaxCrossEntropyLoss(), (4, 10)),
}


def probe(name: str, arrays: Any) -> str:
    """ "runs, output sum …", or why one operation does not run on arrays of `mx.nd` or `mx.np`."""
    make, shape = LEAVES[name]
    try:
        layer = make()
        layer.initialize()
        x = arrays.array(drawn("mxnet2", name).standard_normal(shape).astype(np.float32))
        x.attach_grad()
        arguments = [x]
        if "cross-entropy" in name:
            arguments.append(arrays.array(np.array([1, 0, 3, 2], np.float32)))
        layer(*arguments)  # MXNet 2 knows a convolution's shape after its first input alone
        for path, parameter in sorted(layer.collect_params().items()):
            if "running" not in path:
                role = path.rpartition("_")[2].rpartition(".")[2]
                value = drawn("mxnet2", name, role).standard_normal(parameter.shape)
                parameter.set_data(arrays.array(value.astype(np.float32)))
        with autograd.record():
            y = layer(*arguments)
        y.backward()
        figures = [float(np.abs(a.asnumpy().astype(np.float64)).sum()) for a in (y, x.grad)]
    except Exception as error:
        return f"does not run: {reason_of(error)}"
    return f"runs, Σ|output| {figures[0]:.6g}, Σ|input gradient| {figures[1]:.6g}"


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="python -m parity_tests.gate.mxnet2",
        description="Say which operations of the nets this MXNet runs, on mx.nd and mx.np arrays.",
    )
    parser.parse_args(argv)
    print(f"MXNet {mx.__version__}")
    try:
        from gluon_cnn.models import get_model

        net = get_model("lenet")
        net.initialize()
        print(f"lenet: {net(mx.nd.zeros((1, *net.input_shape))).shape}")
    except Exception as error:
        print(f"lenet: does not run: {reason_of(error)}")
    for name in LEAVES:
        for kind in ("nd", "np"):
            print(f"{name}, mx.{kind}: {probe(name, getattr(mx, kind))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
