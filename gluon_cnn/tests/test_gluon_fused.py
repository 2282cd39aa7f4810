"""Fused inference: the net's own answers, and the net left as it was."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

from gluon_cnn.fast.fused import fold_parameters, fused
from gluon_cnn.fast.padding import pad_channels
from gluon_cnn.models import get_model
from gluon_cnn.training.assembly import Objective

U = 2.0**-24
SMALL = (("lenet", 28), ("lenet_sigmoid", 28), ("lenet5", 32), ("cifar_cnn", 32),
         ("mnist_bn_cnn", 28), ("alexnet", 96))  # fmt: skip


def _net(name: str, size: int):
    mx.random.seed(5)
    net = get_model(name, input_size=size)
    net.initialize(mx.init.Xavier(), force_reinit=True)
    return net


def _nodes(block) -> str:
    return block(mx.sym.var("data")).tojson()


@pytest.mark.parametrize(("channels", "kernel", "ic"), [(6, 5, 1), (16, 5, 6), (64, 3, 32)])
def test_a_fused_convolution_is_within_16_units_of_its_sum(channels, kernel, ic) -> None:
    rng = np.random.default_rng(channels)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(channels, kernel, in_channels=ic), nn.Activation("relu"))
    net.initialize(mx.init.Normal(1.0))
    net[0].bias.set_data(mx.nd.array(rng.standard_normal(channels)))
    x = mx.nd.array(rng.standard_normal((3, ic, 14, 14)) * 5)
    run = fused(net, (ic, 14, 14))
    assert "_sg_mkldnn_conv" in _nodes(run)
    w, b = (p.data().astype("float64") for p in (net[0].weight, net[0].bias))
    options = {"kernel": (kernel, kernel), "num_filter": channels}
    exact = mx.nd.Convolution(x.astype("float64"), w, b, **options)
    scale = mx.nd.Convolution(x.astype("float64").abs(), w.abs(), b.abs(), **options)
    error = np.abs(run(x).asnumpy() - np.maximum(exact.asnumpy(), 0))
    assert (error <= 16 * U * scale.asnumpy()).all()
    assert (exact.asnumpy() > 0).any()


@pytest.mark.parametrize(("name", "size"), SMALL)
def test_whole_nets_are_as_near_to_float64_as_they_were(name: str, size: int) -> None:
    net = _net(name, size)
    x = mx.nd.random.normal(shape=(4, *net.input_shape))
    run = fused(net, net.input_shape)
    quick, plain = run(x).asnumpy(), net(x).asnumpy()
    assert np.array_equal(quick[:1], run(x[:1]).asnumpy()) or np.allclose(
        quick[:1], run(x[:1]).asnumpy(), rtol=1e-5, atol=1e-6
    )  # a batch of another size
    net.cast("float64")
    exact = net(x.astype("float64")).asnumpy()
    assert np.abs(quick - exact).max() <= 4 * np.abs(plain - exact).max() + 1e-7
    assert np.abs(exact).max() > 1e-3


def test_the_net_stays_as_it_was_and_can_still_be_trained_and_exported(tmp_path) -> None:
    net = _net("cifar_cnn", 32)
    before = _nodes(net)
    run = fused(net, net.input_shape)
    assert "_sg_mkldnn" in _nodes(run)
    assert _nodes(net) == before
    x, y = mx.nd.random.normal(shape=(2, 3, 32, 32)), mx.nd.zeros((2,))
    run(x).wait_to_read()
    with autograd.record():
        loss = Objective(net)(x, y)[0]
    loss.backward()
    assert all(p.grad().abs().max().asscalar() > 0 for p in net.collect_params().values())
    net.hybridize()
    net(x)
    net.export(str(tmp_path / "net"))
    assert "_sg_mkldnn" not in (tmp_path / "net-symbol.json").read_text()


def test_made_anew_it_sees_weights_set_since() -> None:
    """oneDNN's operators keep weights in their own layout: a run block does not see new ones."""
    net = _net("cifar_cnn", 32)
    x = mx.nd.random.normal(shape=(2, 3, 32, 32))
    old = fused(net, net.input_shape)
    before = old(x).asnumpy()
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 1.5)
    after = fused(net, net.input_shape)(x).asnumpy()
    np.testing.assert_allclose(after, net(x).asnumpy(), rtol=1e-5, atol=1e-5)
    assert np.abs(after - before).max() > 1


def test_several_devices_get_the_net_itself() -> None:
    net = get_model("lenet")
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    assert fused(net, net.input_shape) is net


def test_what_depends_on_parameters_alone_is_computed_once() -> None:
    net = _net("lenet", 28)
    arrays = {name: p.data() for name, p in net.collect_params().items()}
    padded = pad_channels(net, 8, gradients=False)(mx.sym.var("data"))
    folded, values = fold_parameters(padded, arrays)
    assert {n.rpartition("_")[2] for n in values} == {"folded"}
    assert {v.shape for v in values.values()} == {(8, 1, 5, 5), (8,), (16, 8, 5, 5)}
    assert "Pad" not in folded.tojson()
    x = mx.nd.random.normal(shape=(3, 1, 28, 28))
    with_values = {**arrays, **values, "data": x}
    (found,) = folded.eval(**{n: with_values[n] for n in folded.list_inputs()})
    (expected,) = padded.eval(**{n: with_values[n] for n in padded.list_inputs()})
    assert np.array_equal(found.asnumpy(), expected.asnumpy())


def test_operators_that_draw_or_read_images_are_not_computed_once() -> None:
    data, weight = mx.sym.var("data"), mx.sym.var("weight")
    symbol = data * mx.sym.random.normal(shape=(2,)) + mx.sym.broadcast_add(data, weight)
    assert fold_parameters(symbol, {"weight": mx.nd.ones(2)}) == (symbol, {})
    whole, values = fold_parameters(mx.sym.dot(data, weight * 2), {"weight": mx.nd.ones((2, 2))})
    assert set(whole.list_inputs()) == {"data", *values}
    assert [v.asnumpy().tolist() for v in values.values()] == [[[2.0, 2.0], [2.0, 2.0]]]
