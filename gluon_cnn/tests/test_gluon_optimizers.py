"""QuickAdam is MXNet's Adam, bit for bit."""

import pickle
import time
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from gluon_cnn.fast import adam_blocks, optimizers
from gluon_cnn.fast.optimizers import QuickAdam
from gluon_cnn.models import get_model
from gluon_cnn.runtime import settings as runtime

SHAPES = [(5, 3), (7,), (1,), (8, 6, 3, 3), (20000,)]


def _parameters(dtype: str) -> list[gluon.Parameter]:
    rng = np.random.default_rng(1)
    found = []
    for number, shape in enumerate(SHAPES):
        parameter = gluon.Parameter(f"p{number}", shape=shape, dtype=dtype)
        parameter.initialize()
        parameter.set_data(mx.nd.array(rng.standard_normal(shape), dtype=dtype))
        found.append(parameter)
    return found


def _step(trainer: gluon.Trainer, rng: np.random.Generator, count: int) -> None:
    for parameter in trainer._params:
        scale = 10.0 ** rng.integers(-22, 3, parameter.shape)  # subnormal squares too
        gradient = rng.standard_normal(parameter.shape) * scale
        parameter.grad()[:] = mx.nd.array(gradient, dtype=parameter.dtype)
        parameter.data()._fresh_grad = True
    trainer.step(count)


def _bytes(trainer: gluon.Trainer) -> list[bytes]:
    arrays = [p.data() for p in trainer._params]
    for slots in trainer._updaters[0].states.values():
        arrays += slots
    return [a.asnumpy().tobytes() for a in arrays]


def _trained(rule: mx.optimizer.Optimizer, dtype: str, steps: int = 12) -> list[bytes]:
    trainer = gluon.Trainer(_parameters(dtype), rule, kvstore=None)
    rng = np.random.default_rng(2)
    for step in range(steps):
        trainer.set_learning_rate((0.1 if step % 2 else 3e-5) / (1 + step))
        _step(trainer, rng, 7 if step % 5 else 3)
    return _bytes(trainer)


OPTIONS: list[dict] = [
    {},
    {"wd": 0.013},
    {"clip_gradient": 0.05, "wd": 0.01},
    {"beta1": 0.3, "beta2": 0.9, "epsilon": 1e-3},
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_are_those_of_mxnets_adam(options: dict, dtype: str) -> None:
    expected = _trained(mx.optimizer.Adam(**options), dtype)
    assert _trained(QuickAdam(**options), dtype) == expected


@pytest.fixture(params=[1, 3])
def blocks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Arrays of 100 values and more as one block, or in blocks of 999 by three threads."""
    monkeypatch.setattr(adam_blocks, "ALONE", 100)
    monkeypatch.setattr(adam_blocks, "SHARED", 100 if request.param > 1 else 1 << 20)
    monkeypatch.setattr(adam_blocks, "BLOCK", 999)
    monkeypatch.setattr(runtime, "threads", lambda: request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_of_large_arrays_are_the_operators(options: dict) -> None:
    rule = QuickAdam(**options)
    assert _trained(rule, "float32") == _trained(mx.optimizer.Adam(**options), "float32")
    kinds = [type(call).__name__ for call in rule._calls.values()]
    assert kinds == ["_Call", "_Call", "_Call", "_Quicker", "_Quicker"]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("slow", [optimizers._Call, adam_blocks.BlockedCall])
def test_large_arrays_are_updated_the_quicker_way(
    slow: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def late(self: Any, numbers: tuple[float, ...], call: Callable = slow.__call__) -> None:
        calls.append(numbers)
        time.sleep(0.02 if self.arrays[0].size > 100 else 0)
        call(self, numbers)

    expected = _trained(mx.optimizer.Adam(), "float32")
    monkeypatch.setattr(slow, "__call__", late)
    rule = QuickAdam()
    assert _trained(rule, "float32") == expected
    large = [call for call in rule._calls.values() if isinstance(call, optimizers._Quicker)]
    assert len(large) == 2
    assert all(len(call._ways) == 1 and type(call._ways[0]) is not slow for call in large)
    assert len(calls) >= optimizers.TURNS * len(large)


@pytest.mark.usefixtures("blocks")
def test_values_that_are_no_numbers_are_the_operators() -> None:
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-45, 3e38, 1e30]
    found = []
    for rule in (mx.optimizer.Adam(clip_gradient=2.0), QuickAdam(clip_gradient=2.0)):
        (parameter,) = [p for p in _parameters("float32") if p.shape == (20000,)]
        trainer = gluon.Trainer([parameter], rule, kvstore=None)
        for step in range(3):
            gradient = np.tile(np.roll(special, step), 2500)
            parameter.grad()[:] = mx.nd.array(gradient, dtype="float32")
            parameter.data()._fresh_grad = True
            trainer.step(1)
        (slots,) = trainer._updaters[0].states.values()
        found.append([a.asnumpy() for a in (parameter.data(), *slots)])
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.usefixtures("blocks")
def test_weights_that_onednn_keeps_in_its_own_order_are_updated_in_place() -> None:
    found = []
    for rule in (mx.optimizer.Adam(), QuickAdam()):
        net = get_model("cifar_cnn")
        mx.random.seed(1)
        net.initialize(mx.init.Xavier())
        net.hybridize()
        trainer = gluon.Trainer(net.collect_params(), rule, kvstore=None)
        x = mx.nd.array(np.random.default_rng(0).standard_normal((4, *net.input_shape)))
        answers = []
        for _ in range(3):
            with mx.autograd.record():
                loss = (net(x) ** 2).sum()
            loss.backward()
            answers.append(net(x).asnumpy())  # in inference convolutions reorder their weights
            trainer.step(4)
        found.append(answers)
    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize("value", [0.01, 1e-8, 3e-5, 7.3e-9, 0.999, 1 / 3, 0.0, -1.0, 2.1724e-05])
def test_numbers_are_what_the_operator_reads(value: float) -> None:
    weight, unit = mx.nd.zeros(1), mx.nd.ones(1)
    slots = mx.nd.zeros(1), mx.nd.zeros(1)
    # mean = (1 − 0) · rescaled gradient
    mx.nd.adam_update(weight, unit, *slots, out=weight, lr=0.0, beta1=0.0, rescale_grad=value)
    assert adam_blocks.parse_as_mxnet_float32(value) == slots[0].asscalar()


def test_a_parameter_that_was_cast_is_updated_where_it_is_now() -> None:
    trainers = []
    for rule in (mx.optimizer.Adam(), QuickAdam()):
        trainer = gluon.Trainer(_parameters("float32"), rule, kvstore=None)
        rng = np.random.default_rng(3)
        _step(trainer, rng, 4)
        for parameter in trainer._params:
            parameter.cast("float64")
        trainer._updaters[0].states.clear()
        _step(trainer, rng, 4)
        trainers.append(_bytes(trainer))
    assert trainers[0] == trainers[1]
    assert len(trainers[0][0]) == 8 * 15


def test_a_multiplier_of_one_parameter_counts() -> None:
    found = []
    for rule in (mx.optimizer.Adam(wd=0.1), QuickAdam(wd=0.1)):
        parameters = _parameters("float32")
        parameters[0].lr_mult, parameters[1].wd_mult = 0.0, 3.0
        trainer = gluon.Trainer(parameters, rule, kvstore=None)
        before = parameters[0].data().asnumpy()
        _step(trainer, np.random.default_rng(4), 4)
        np.testing.assert_array_equal(parameters[0].data().asnumpy(), before)
        found.append(_bytes(trainer))
    assert found[0] == found[1]


def test_it_can_be_pickled_as_mxnet_does_for_its_servers() -> None:
    rule = QuickAdam(wd=0.25)
    trainer = gluon.Trainer(_parameters("float32"), rule, kvstore=None)
    _step(trainer, np.random.default_rng(5), 4)
    again = pickle.loads(pickle.dumps(rule))
    assert type(again) is mx.optimizer.Adam
    assert again.wd == 0.25
    assert set(vars(again)) == set(vars(mx.optimizer.Adam()))
