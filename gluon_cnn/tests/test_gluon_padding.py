"""Nets with filled-up channels: the same function of the same parameters."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gluon_cnn.fast.padding import PaddedConv, pad_channels
from gluon_cnn.models import get_model
from gluon_cnn.training.assembly import Objective

NARROW = ("lenet", "lenet_sigmoid", "lenet_linear")


def _net(name: str, dtype: str, **options):
    mx.random.seed(3)
    net = get_model(name, **options)
    net.initialize(mx.init.Xavier(), force_reinit=True)
    for parameter in net.collect_params().values():  # biases too
        if parameter.name.endswith("bias"):
            parameter.set_data(mx.nd.random.normal(shape=parameter.shape))
    net.cast(dtype)
    return net


def _run(block, net, x, hybridize):
    """Output, and the gradient of a fixed weighting of it for every parameter."""
    if hybridize:
        block.hybridize(static_alloc=True, static_shape=True)
    with autograd.record():
        y = block(x)
        total = (y * mx.nd.arange(y.size, dtype=y.dtype).reshape(y.shape)).sum()
    total.backward()
    parameters = net.collect_params().items()
    grads = {name: p.grad().asnumpy() for name, p in parameters if p.grad_req != "null"}
    return y.asnumpy(), grads


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    ("name", "block"), [*((n, b) for n in NARROW for b in (8, 16)), ("mnist_bn_cnn", 8)]
)
def test_it_is_the_same_function_in_float64(name: str, block: int, hybridize: bool) -> None:
    net = _net(name, "float64")
    x = mx.nd.random.normal(shape=(3, 1, 28, 28), dtype="float64")
    fast = pad_channels(net, block)
    wide = [layer for layer in fast if isinstance(layer, PaddedConv)]
    if name != "mnist_bn_cnn":
        assert [layer._options["num_filter"] for layer in wide] == [block, 16]
    expected, grads = _run(net, net, x, hybridize)
    actual, fast_grads = _run(fast, net, x, hybridize)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert set(fast_grads) == set(grads)
    for key, grad in grads.items():
        largest = np.abs(grad).max()
        assert largest > 0
        if name == "mnist_bn_cnn":  # a bias before BatchNorm has no gradient but rounding
            largest = max(np.abs(g).max() for g in grads.values())
        np.testing.assert_allclose(fast_grads[key], grad, rtol=0, atol=1e-12 * largest)


@pytest.mark.parametrize("name", NARROW)
def test_float32_is_as_near_to_float64_as_the_net_is(name: str) -> None:
    net = _net(name, "float32")
    x = mx.nd.random.normal(shape=(8, 1, 28, 28))
    fast, plain = _run(pad_channels(net, 8), net, x, True)[0], _run(net, net, x, True)[0]
    net.cast("float64")
    exact = net(x.astype("float64")).asnumpy()
    assert np.abs(fast - exact).max() <= 4 * np.abs(plain - exact).max() + 1e-7


def test_weights_set_later_are_seen() -> None:
    net = _net("lenet", "float32")
    objective = Objective(net)
    objective.hybridize(static_alloc=True, static_shape=True)
    x, y = mx.nd.ones((2, 1, 28, 28)), mx.nd.zeros((2,))
    before = objective(x, y)[0].asnumpy()
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 2)
    after = objective(x, y)[0].asnumpy()
    assert (before != after).all()


def test_what_is_wide_already_stays_as_it_is() -> None:
    for name, size in (("cifar_cnn", 32), ("lenet5", 32), ("vgg11", 32)):
        net = get_model(name, input_size=size)
        assert pad_channels(net, 8, gradients=False) is net
    mnist = get_model("mnist_bn_cnn")
    assert pad_channels(mnist, 8, gradients=False) is mnist
    alexnet = get_model("alexnet")
    assert pad_channels(alexnet, 16, gradients=False) is alexnet
    lenet5 = get_model("lenet5")
    assert pad_channels(lenet5, 8) is lenet5
    cifar = get_model("cifar_cnn")
    assert pad_channels(cifar, 64, gradients=False) is not cifar


def test_a_batch_norm_between_keeps_a_net_as_it_is() -> None:
    net = get_model("mnist_bn_cnn")
    assert pad_channels(net, 64) is not None
    run = pad_channels(net, 64)
    convs = [layer for layer in run if isinstance(layer, PaddedConv)] if run is not net else []
    assert not convs
