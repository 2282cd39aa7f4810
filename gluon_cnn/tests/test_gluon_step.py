"""`training_step` computes what the loop of MXNet's documentation does."""

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

from gluon_cnn.fast.optimizers import QuickAdam
from gluon_cnn.fast.padding import PaddedConv, pad_channels
from gluon_cnn.fast.step import training_step
from gluon_cnn.models import get_model

LOSS = gluon.loss.SoftmaxCrossEntropyLoss


class Own(gluon.HybridBlock):
    """A forward of its own, a branch, running statistics, random numbers, shapes found late."""

    def __init__(self) -> None:
        super().__init__(prefix="own_")
        with self.name_scope():
            self.first, self.norm = nn.Conv2D(6, 3), nn.BatchNorm()
            self.second, self.last = nn.Conv2D(6, 3, padding=1), nn.Dense(4)
            self.drop = nn.Dropout(0.5)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.relu(self.norm(self.first(x)))
        return self.last(self.drop(F.relu(self.second(x)) + x))


def sequential() -> gluon.HybridBlock:
    """As the documentation writes LeNet: activations inside, shapes found late, a net in a net."""
    net, head = nn.HybridSequential(prefix="seq_"), nn.HybridSequential(prefix="head_")
    net.add(nn.Conv2D(6, 5, activation="relu"), nn.MaxPool2D(2, 2))
    net.add(nn.Conv2D(16, 5, activation="relu"), nn.MaxPool2D(2, 2))
    head.add(nn.Dense(20, activation="relu"), nn.Dense(4))
    net.add(head)
    return net


def prepared(net: gluon.HybridBlock, dtype: str, hybridized: bool) -> gluon.HybridBlock:
    net.cast(dtype)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 28, 28), dtype=dtype))
    rng = np.random.default_rng(3)
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            value = rng.standard_normal(parameter.shape) / 10
            parameter.set_data(mx.nd.array(value, dtype=dtype))
    if hybridized:
        net.hybridize()
    return net


def batches(dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(4)
    return [
        (rng.standard_normal((n, 1, 28, 28)).astype(dtype), rng.integers(0, 4, n))
        for n in (5, 5, 5, 3)  # a short last batch
    ]


def plain(net: gluon.HybridBlock, trainer: gluon.Trainer, loss: gluon.HybridBlock) -> Any:
    def step(x: np.ndarray, y: np.ndarray) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        images, labels = mx.nd.array(x, dtype=x.dtype), mx.nd.array(y, dtype=x.dtype)
        with autograd.record():
            outputs = net(images)
            losses = loss(outputs, labels)
        losses.backward()
        trainer.step(len(x))
        return losses, outputs

    return step


def values(net: gluon.HybridBlock) -> dict[str, np.ndarray]:
    mx.nd.waitall()
    return {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}


def trained(
    make: Any, net: gluon.HybridBlock, dtype: str, optimizer: str, options: dict[str, Any]
) -> list[np.ndarray]:
    """Losses and outputs of each step, then all parameters."""
    mx.random.seed(7)
    trainer = gluon.Trainer(net.collect_params(), optimizer, dict(options))
    step, found = make(net, trainer, LOSS()), []
    for x, y in batches(dtype):
        found += [array.asnumpy() for array in step(x, y)]
    return [*found, *values(net).values()]


def schedule() -> dict[str, Any]:
    return {"lr_scheduler": mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=0.05)}


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("adam", {"learning_rate": 0.01}), ("adam", {"wd": 0.1}), ("sgd", {"momentum": 0.9})],
    ids=str,
)
def test_the_bits_of_an_own_net_are_the_plain_loops(
    optimizer: str, options: dict[str, Any], hybridized: bool
) -> None:
    if "learning_rate" not in options:
        options = {**options, **schedule()}
    nets = [prepared(Own(), "float32", hybridized) for _ in range(2)]
    for net in nets:
        net.second.weight.grad_req = "null"  # frozen
    found = []
    for make, net in zip((plain, training_step), nets, strict=True):
        if "lr_scheduler" in options:  # which counts
            options = {**options, **schedule()}
        found.append(trained(make, net, "float32", optimizer, options))
    for expected, actual in zip(*found, strict=True):
        assert expected.tobytes() == actual.tobytes()
    trained_weight = nets[1].first.weight.data().asnumpy()
    assert (trained_weight != prepared(Own(), "float32", False).first.weight.data().asnumpy()).all()


@pytest.mark.parametrize("make_net", [lambda: get_model("lenet", 4), sequential])
def test_a_padded_net_computes_the_same_sums_in_another_order(make_net: Any) -> None:
    run = pad_channels(prepared(make_net(), "float64", False), 8)
    assert [b.is_padded for b in run if isinstance(b, PaddedConv)] == [True, True]
    # Momentum, not Adam, which divides a gradient by its own size: noise by noise
    options = {"learning_rate": 0.05, "momentum": 0.9}
    for dtype, unit in (("float64", 2**-53), ("float32", 2**-24)):
        expected, actual = (
            trained(make, prepared(make_net(), dtype, False), dtype, "sgd", options)
            for make in (plain, training_step)
        )
        for a, b in zip(expected, actual, strict=True):
            assert np.abs(a).max() > 0
            # 16 units of a sum's scale, as everywhere, for each of the four steps
            assert np.abs(a - b).max() <= 4 * 16 * unit * np.abs(a).max()


def test_gradients_are_added_and_left_to_the_caller() -> None:
    nets = [prepared(Own(), "float32", False) for _ in range(2)]
    for net in nets:
        net.drop._rate = 0.0
        for parameter in net.collect_params().values():
            if parameter.grad_req == "write":
                parameter.grad_req = "add"
    trainers = [gluon.Trainer(net.collect_params(), "adam") for net in nets]
    step = training_step(nets[1], trainers[1], LOSS())
    for x, y in batches("float32")[:2]:
        with autograd.record():
            losses = LOSS()(nets[0](mx.nd.array(x)), mx.nd.array(y))
        losses.backward()
        before = values(nets[1])
        step.backward(x, mx.nd.array(y))
        for name in ("first.weight", "last.bias"):  # nothing is updated
            np.testing.assert_array_equal(values(nets[1])[name], before[name])
    for net, trainer in zip(nets, trainers, strict=True):
        assert np.abs(net.last.weight.grad().asnumpy()).max() > 0
        trainer.step(10)
    for expected, actual in zip(*(values(net).values() for net in nets), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_what_is_saved_is_mxnets_own_and_goes_on_in_the_same_bits(tmp_path) -> None:
    net = prepared(get_model("lenet", 4), "float32", True)
    trainer = gluon.Trainer(net.collect_params(), "adam")
    step = training_step(net, trainer, LOSS())
    data = batches("float32")
    step(*data[0])
    assert type(trainer._optimizer) is QuickAdam
    net.save_parameters(str(tmp_path / "net"))
    trainer.save_states(str(tmp_path / "trainer"))
    assert b"gluon_cnn" not in (tmp_path / "trainer").read_bytes()
    again = get_model("lenet", 4)
    again.load_parameters(str(tmp_path / "net"))
    other = gluon.Trainer(again.collect_params(), "adam")
    other.load_states(str(tmp_path / "trainer"))
    other_step = training_step(again, other, LOSS())
    for x, y in data[1:]:
        losses, outputs = step(x, y)
        assert losses.asnumpy().tobytes() == other_step(x, y).loss.asnumpy().tobytes()
    for expected, actual in zip(values(net).values(), values(again).values(), strict=True):
        np.testing.assert_array_equal(expected, actual)
    # The net itself answers with the new weights, and other images have not changed what it said
    said = outputs.asnumpy()
    assert (net(mx.nd.array(x)).asnumpy() != said).any()
    step(*data[0])
    np.testing.assert_array_equal(outputs.asnumpy(), said)


def test_a_net_that_is_watched_by_hooks_is_not_rebuilt() -> None:
    net = prepared(sequential(), "float32", False)
    assert pad_channels(net, 8) is not net
    net[0].register_forward_hook(lambda *_: None)
    assert not any(isinstance(b, PaddedConv) and b.is_padded for b in pad_channels(net, 8))
    net.register_forward_hook(lambda *_: None)
    assert pad_channels(net, 8) is net


def test_what_cannot_be_a_graph_is_refused() -> None:
    net = prepared(sequential(), "float32", False)
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    with pytest.raises(TypeError, match="loss is a function, expected a HybridBlock"):
        training_step(net, trainer, lambda outputs, labels: outputs)
    with pytest.raises(TypeError, match="net is a Sequential, expected a HybridBlock"):
        training_step(nn.Sequential(), trainer, LOSS())
