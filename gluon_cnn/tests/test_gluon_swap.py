"""What the training graph reorders gives the same bits."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import HybridBlock, nn
from mxnet.gluon.loss import SoftmaxCrossEntropyLoss

from gluon_cnn.fast.padding import _pooled_first, pad_channels
from gluon_cnn.models import get_model
from gluon_cnn.training.losses import CrossEntropy


def _both(layers: list[HybridBlock], x: np.ndarray, dtype: str) -> list[bytes]:
    given = mx.nd.array(x, dtype=dtype)
    given.attach_grad()
    with autograd.record():
        y = given
        for layer in layers:
            y = layer(y)
    weights = mx.nd.array(np.random.default_rng(1).standard_normal(y.shape), dtype=dtype)
    y.backward(weights)
    # + 0 makes −0 what it is equal to
    return [(a.asnumpy() + 0).tobytes() for a in (y, given.grad)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_max_pooling_before_relu_is_max_pooling_after_it(
    size: int, stride: int, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 11, 11)) - 0.8
    x[0] = rng.integers(-2, 3, x[0].shape)  # equal values in a window, zeros too
    x[1, :4] = -np.abs(x[1, :4])  # windows without a positive value
    relu, pool = nn.Activation("relu"), nn.MaxPool2D(size, stride)
    swapped = _pooled_first([relu, pool])
    assert swapped == [pool, relu]
    assert _both([relu, pool], x, dtype) == _both(swapped, x, dtype)


def test_only_relu_and_only_max_pooling_change_places() -> None:
    for layers in (
        [nn.Activation("sigmoid"), nn.MaxPool2D()],
        [nn.Activation("relu"), nn.AvgPool2D()],
        [nn.MaxPool2D(), nn.Activation("relu")],
    ):
        assert _pooled_first(layers) == layers


def test_a_training_graph_of_a_deep_net_has_its_pools_first() -> None:
    net = get_model("vgg11", input_size=32)
    kinds = [type(layer).__name__ for layer in pad_channels(net, 8)]
    assert kinds.count("MaxPool2D") == 5
    assert all(kinds[i + 1] == "Activation" for i, k in enumerate(kinds) if k == "MaxPool2D")
    assert pad_channels(net, 8, gradients=False) is net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_is_gluons_to_the_bit(dtype: str) -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.standard_normal((64, 10)) * 30, rng.integers(0, 10, 64)
    found = []
    for loss in (SoftmaxCrossEntropyLoss(), CrossEntropy()):
        loss.hybridize()
        x = mx.nd.array(logits, dtype=dtype)
        x.attach_grad()
        with autograd.record():
            y = loss(x, mx.nd.array(labels, dtype=dtype))
        y.backward()
        # + 0: the mean of one −0 is 0
        found.append((y.shape, (y.asnumpy() + 0).tobytes(), x.grad.asnumpy().tobytes()))
    assert found[0] == found[1]
