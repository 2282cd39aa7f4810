"""Copies share nothing that can change, whatever a module holds."""

import copy
import os
import subprocess
import sys
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.backends.base import leaves_of
from parity_tests.backends.cloning import duplicate
from parity_tests.backends.gluon import clones as gluon_clones
from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.torch import clones as torch_clones
from parity_tests.backends.torch import runs as torch_side
from parity_tests.cases.random_pairs import random_case


class Odd(nn.Module):
    """Holds what modules hold beside parameters: lists, dictionaries, plain tensors, itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.again = self.layer
        self.settings = {"scale": [1.0, 2.0]}
        self.seen: set[str] = set()
        self.same = [self.seen, self.layer]
        self.mask = torch.ones(3)
        self.register_buffer("steps", torch.zeros(1))
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.again(x)) * self.mask * self.settings["scale"][1]


class Own(nn.Linear):
    """A class with a way of its own of being copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Own":
        type(self).copies += 1
        twin = Own(self.in_features, self.out_features)
        twin.load_state_dict(self.state_dict())
        return twin


def test_a_copy_computes_the_same_and_shares_nothing() -> None:
    net: Any = Odd()
    x = torch.randn(2, 3)
    twin = duplicate(net, {})
    assert torch.equal(twin(x), net(x))
    assert twin.again is twin.layer
    assert twin.tied.weight is twin.layer.weight
    assert twin.same[0] is twin.seen is not net.seen
    assert twin.same[1] is twin.layer
    before = net(x)
    twin.settings["scale"][1] = 9.0
    twin.mask.zero_()
    twin.steps.add_(1)
    with torch.no_grad():
        twin.layer.weight.zero_()
    twin.register_forward_hook(lambda *_: None)
    assert torch.equal(net(x), before)
    assert not net.steps.any()
    assert not net._forward_hooks


def test_a_copy_is_as_deepcopy_makes_it() -> None:
    for seed in range(10):
        net = random_case(seed).torch_net
        ours, theirs = duplicate(net, {}), copy.deepcopy(net)
        assert str(ours) == str(theirs)
        names = [sorted(vars(module)) for module in ours.modules()]
        assert names == [sorted(vars(module)) for module in theirs.modules()]
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.requires_grad == other.requires_grad


def test_a_class_that_copies_itself_does() -> None:
    Own.copies = 0
    twin = duplicate(nn.Sequential(Own(2, 2)), {})
    assert Own.copies == 1
    assert isinstance(twin[0], Own)


def test_in_place_layers_are_not_in_place_in_a_clone() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    twin: Any = torch_clones.clone(net, "float64")
    assert not twin[1].inplace
    assert net[1].inplace
    assert twin[0].weight.dtype == torch.float64
    assert net[0].weight.dtype == torch.float32


def test_a_value_is_noted_before_an_in_place_layer_overwrites_it() -> None:
    net = nn.Sequential(nn.Linear(3, 50), nn.ReLU(inplace=True))
    run = torch_side.run_net(net, (np.ones((1, 3), np.float32),), "float32")
    assert (run.calls["0"][0].outputs[0] < 0).any()


@pytest.mark.parametrize("hybridized", [False, True])
def test_a_gluon_clone_is_imperative_and_independent(hybridized: bool) -> None:
    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.Dense(4, in_units=3, activation="relu"), gluon_nn.BatchNorm(in_channels=4))
    net.initialize()
    x = mx.nd.random.normal(shape=(2, 3))
    if hybridized:
        net.hybridize(static_alloc=True)
        net(x)
    twin = gluon_clones.clone(net, "float64")
    assert not twin._active
    assert twin[0].weight is next(iter(twin.collect_params().values()))
    np.testing.assert_allclose(twin(x.astype("float64")).asnumpy(), net(x).asnumpy(), atol=1e-6)
    before = net(x).asnumpy()
    for parameter in twin.collect_params().values():
        parameter.set_data(parameter.data() * 0)
    np.testing.assert_array_equal(net(x).asnumpy(), before)
    assert net._active == hybridized
    # the clone can be hybridized in its turn
    twin.hybridize()
    twin(x.astype("float64"))
    assert not twin(x.astype("float64")).asnumpy().any()


def test_a_leaf_alone_leaves_its_activation_behind() -> None:
    net = gluon_nn.Dense(50, in_units=3, activation="relu")
    net.initialize(mx.init.Normal(1.0))
    dense, relu = leaves_of(net)
    assert (dense.kind, relu.kind) == ("dense", "relu")
    run = gluon_side.run_leaf(dense, (np.ones((1, 3), np.float32),), "float32", train=False)
    assert (run["output"] < 0).any()
    assert (net(mx.nd.ones((1, 3))).asnumpy() >= 0).all()


def test_both_dtypes_start_from_the_same_numbers() -> None:
    net = nn.Linear(4, 4).double()
    nn.init.uniform_(net.weight)  # digits that float32 has not
    double: Any = torch_clones.clone(net, "float64")
    single: Any = torch_clones.clone(net, "float32")
    assert torch.equal(double.weight, single.weight.double())
    assert not torch.equal(double.weight, net.weight)


READ_BESIDE_A_FORWARD = """
import mxnet_compat, mxnet as mx, numpy as np
from mxnet.gluon import nn
from parity_tests.backends.base import leaves_of

weight = np.random.default_rng(0).standard_normal((256, 256, 3, 3)).astype(np.float32)
x = mx.nd.ones((1, 256, 8, 8))
torn = 0
for _ in range(25):
    net = nn.HybridSequential()
    net.add(*[nn.Conv2D(256, 3, padding=1, in_channels=256) for _ in range(6)])
    net.initialize()
    for layer in net:
        layer.weight.set_data(mx.nd.array(weight))
    mx.nd.waitall()
    tensors = [leaf.tensors["weight"] for leaf in leaves_of(net)]
    net(x)  # nobody waits for it
    torn += sum((tensor.read() != weight).any() for tensor in 3 * tensors)
print(torn)
"""


def test_weights_are_read_whole_while_a_forward_runs() -> None:
    """With MXNet's engine as it comes one read in eighty was torn."""
    settled = ("MXNET_", "OMP_", "KMP_", "GOMP_")  # by whoever imported gluon_cnn here
    environment = {k: v for k, v in os.environ.items() if not k.startswith(settled)}
    command = [sys.executable, "-c", READ_BESIDE_A_FORWARD]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["0"]
