"""Gluon's losses by name, and a user's own as the mean of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import mxnet as mx
from mxnet import gluon
from mxnet.ndarray import NDArray

from parity_tests.backends.runs import Loss


def _softmax_ce(y: NDArray, label: NDArray) -> NDArray:
    return gluon.loss.SoftmaxCrossEntropyLoss(axis=1 if y.ndim > 2 else -1)(y, label)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "softmax_ce": _softmax_ce,
        "l2": gluon.loss.L2Loss(),
        "l1": gluon.loss.L1Loss(),
        "sigmoid_bce": gluon.loss.SigmoidBinaryCrossEntropyLoss(),
    }
)


def averaged(loss: Loss) -> Loss:
    """A loss of (output, labels) as (N,) equal values: the mean of what it gives, in any shape."""

    def each(output: NDArray, labels: NDArray) -> NDArray:
        count = output.shape[0]
        value = loss(output, labels).as_nd_ndarray()
        if value.size > 1 and value.shape[0] != count:
            raise ValueError(f"the loss is {value.shape}, expected ({count},) or a single number")
        return mx.nd.broadcast_to(value.mean().reshape((1,)), (count,))

    return each
