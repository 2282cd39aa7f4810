"""Nets in all the shapes that people write them: each agrees with its twin, and stays as it was."""

from collections.abc import Iterator
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import Block, HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.cases.random_pairs import random_case
from parity_tests.reporting.table import table

GENERATOR = np.random.default_rng(11)
FLAT = GENERATOR.standard_normal((4, 6)).astype(np.float32)
MAPS = GENERATOR.standard_normal((3, 2, 8, 8)).astype(np.float32)
LEVELS = ("structure", "weights", "forward", "backward")
ALL = (*LEVELS, "artefacts")


def sequence(*blocks: Any) -> gluon_nn.HybridSequential:
    net = gluon_nn.HybridSequential()
    net.add(*blocks)
    return net


def agree(
    gluon_net: Any, torch_net: nn.Module, inputs: Any, levels: tuple[str, ...] = ALL
) -> list[str]:
    """Require parity at every level after transfer; what the report notes beside."""
    mx.random.seed(1)
    gluon_net.initialize(mx.init.Normal(0.3))
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    gluon_net(*(mx.nd.array(x, dtype=x.dtype) for x in given))
    report = check_parity(gluon_net, torch_net, inputs, levels=levels, transfer=True)
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}
    return [row.detail for row in report.notes]


class GluonTwoInputs(HybridBlock):
    """Two inputs, two outputs, and one layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = gluon_nn.Dense(4, in_units=6)
        self.b = gluon_nn.Dense(4, in_units=6)

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        return self.a(x) + self.b(y), self.a(y)


class TorchTwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)
        self.b = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x) + self.b(y), self.a(y)


class GluonPlain(Block):
    """A Block that cannot be hybridized."""

    def __init__(self) -> None:
        super().__init__()
        self.a = gluon_nn.Dense(16, in_units=6)
        self.b = gluon_nn.Dense(3, in_units=16)

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x))


class GluonScale(HybridBlock):
    """A leaf of the user's own, with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.params.get("weight", shape=(16,))

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        return F.broadcast_mul(F.square(x), weight)


class TorchScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square() * self.weight


def test_two_inputs_two_outputs_and_a_layer_used_twice() -> None:
    agree(GluonTwoInputs(), TorchTwoInputs(), (FLAT, FLAT[::-1].copy()))


def test_a_layer_used_twice_counts_each_call() -> None:
    class Twice(TorchTwoInputs):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x) + self.b(y), self.a.weight.sum() + y[:, :4] * 0

    gluon_net = GluonTwoInputs()
    gluon_net.initialize()
    report = check_parity(gluon_net, Twice(), (FLAT, FLAT[::-1].copy()), transfer=True)
    assert not report.ok
    assert "linear in a" in " ".join(row.detail for row in report.failures)


def test_one_module_registered_twice() -> None:
    relu = nn.ReLU()
    torch_net = nn.Sequential(nn.Linear(6, 16), relu, nn.Linear(16, 16), relu)
    gluon_net = sequence(
        gluon_nn.Dense(16, in_units=6), gluon_nn.Activation("relu"),
        gluon_nn.Dense(16, in_units=16), gluon_nn.Activation("relu"),
    )  # fmt: skip
    agree(gluon_net, torch_net, FLAT)


def test_a_net_that_is_one_layer() -> None:
    agree(gluon_nn.Dense(5, in_units=6), nn.Linear(6, 5), FLAT)


def test_a_layer_with_its_activation_inside() -> None:
    gluon_net = gluon_nn.Dense(16, in_units=6, activation="relu")
    agree(gluon_net, nn.Sequential(nn.Linear(6, 16), nn.ReLU()), FLAT)


def test_a_block_that_cannot_be_hybridized_has_no_artefacts() -> None:
    torch_net = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3))
    agree(GluonPlain(), torch_net, FLAT, LEVELS)
    gluon_net = GluonPlain()
    gluon_net.initialize()
    report = check_parity(gluon_net, torch_net, FLAT, levels=("artefacts",), transfer=True)
    assert report.ok  # its leaves have graphs
    assert "no HybridBlock" in report.notes[-1].detail


@pytest.mark.parametrize("levels", [("artefacts",), ("forward", "artefacts")])
def test_what_compares_nothing_is_no_pass(levels: tuple[str, ...]) -> None:
    """A net without artefacts, and without leaves that have some."""

    class Double(Block):
        def forward(self, x: Any) -> Any:
            return x * 2

    class TorchDouble(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    report = check_parity(Double(), TorchDouble(), FLAT, levels=levels)
    assert report.ok == (levels != ("artefacts",))
    assert report.ok or "artefacts: not compared: Double is no HybridBlock" in str(report)


def test_leaves_of_the_users_own_are_measured() -> None:
    gluon_net = sequence(gluon_nn.Dense(16, in_units=6), GluonScale())
    assert not agree(gluon_net, nn.Sequential(nn.Linear(6, 16), TorchScale()), FLAT)


def test_a_wrong_leaf_of_the_users_own_is_caught() -> None:
    class Off(TorchScale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1 + 2.0**-15)

    gluon_net = sequence(gluon_nn.Dense(16, in_units=6), GluonScale())
    mx.random.seed(1)
    gluon_net.initialize(mx.init.Normal(0.3))
    torch_net = nn.Sequential(nn.Linear(6, 16), Off())
    first = check_parity(gluon_net, torch_net, FLAT, transfer=True).first_divergence
    assert first is not None
    assert (first.level, first.path) == ("structure", "1.mul")
    assert "constant factor" in first.diagnosis


@pytest.mark.parametrize(
    ("gluon_net", "torch_net", "inputs"),
    [
        (
            sequence(gluon_nn.Embedding(10, 6), gluon_nn.Dense(3, in_units=30)),
            nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(30, 3)),
            GENERATOR.integers(0, 10, (4, 5)).astype(np.int32),
        ),
        (
            sequence(gluon_nn.Conv1D(4, 3, in_channels=2), gluon_nn.MaxPool1D(2)),
            nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2)),
            MAPS[:, :, 0],
        ),
        (
            sequence(gluon_nn.Conv3D(4, 3, in_channels=2), gluon_nn.AvgPool3D(2)),
            nn.Sequential(nn.Conv3d(2, 4, 3), nn.AvgPool3d(2)),
            GENERATOR.standard_normal((2, 2, 6, 6, 6)).astype(np.float32),
        ),
        (
            gluon_nn.Conv2DTranspose(4, 3, 2, 1, 1, in_channels=2),
            nn.ConvTranspose2d(2, 4, 3, 2, 1, 1),
            MAPS,
        ),
        (
            sequence(gluon_nn.Dense(16, in_units=6), gluon_nn.LayerNorm(in_channels=16)),
            nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16)),
            FLAT,
        ),
        (
            sequence(gluon_nn.Dense(16, in_units=6), gluon_nn.Swish(), gluon_nn.ELU(1.0)),
            nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.ELU()),
            FLAT,
        ),
    ],
    ids=["embedding", "1-d", "3-d", "transposed", "layer norm", "activations"],
)
def test_other_layers(gluon_net: Any, torch_net: nn.Module, inputs: np.ndarray) -> None:
    agree(gluon_net, torch_net, inputs)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_nets_of_another_dtype(dtype: str) -> None:
    gluon_net = sequence(gluon_nn.Dense(16, in_units=6), gluon_nn.Dense(3, in_units=16))
    gluon_net.initialize(mx.init.Xavier())
    gluon_net.cast(dtype)
    torch_net = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3)).to(getattr(torch, dtype))
    report = check_parity(gluon_net, torch_net, FLAT.astype(dtype), transfer=True)
    assert report.ok, str(report)
    single = torch_net.to(torch.float32)
    first = check_parity(gluon_net, single, FLAT, transfer=True).first_divergence
    assert first is not None
    assert "dtype" in first.quantity


def test_a_leaf_that_never_runs_is_said_and_not_compared() -> None:
    class Idle(TorchTwoInputs):
        def forward(self, x: torch.Tensor, y: Any = None) -> Any:
            return self.a(x)

    class GluonIdle(GluonTwoInputs):
        def hybrid_forward(self, F: Any, x: Any, y: Any = None) -> Any:
            return self.a(x)

    gluon_net = GluonIdle()
    gluon_net.initialize()
    report = check_parity(gluon_net, Idle(), FLAT, transfer=True)
    assert report.ok, str(report)
    details = [row.detail for row in report.notes]
    assert [row.path for row in report.notes if "never ran" in row.detail] == ["b", "b"], details
    assert "never ran on this input (Idle b)" in table([report], report.levels)


def _fingerprint(gluon_net: Any, torch_net: nn.Module) -> Iterator[Any]:
    for name, parameter in gluon_net._collect_params_with_prefix().items():
        yield name, parameter.data().asnumpy().tobytes(), parameter.grad_req, parameter.dtype
        if parameter.grad_req != "null":
            yield parameter.grad().asnumpy().tobytes()
    for block in _blocks(gluon_net):
        yield getattr(block, "_active", None), len(block._forward_hooks), sorted(vars(block))
        yield len(block._forward_pre_hooks), getattr(block, "_cached_op", None) is None
    for name, tensor in torch_net.state_dict().items():
        yield name, tensor.numpy().tobytes(), tensor.dtype
    for parameter in torch_net.parameters():
        yield parameter.grad is None, parameter.requires_grad
    for module in torch_net.modules():
        yield module.training, len(module._forward_hooks), sorted(vars(module))
        yield getattr(module, "inplace", None), getattr(module, "momentum", None)
    yield torch.initial_seed(), torch.get_rng_state().numpy().tobytes()


def _blocks(block: Any) -> Iterator[Any]:
    yield block
    for child in block._children.values():
        yield from _blocks(child)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.slow if n >= 4 else ()) for n in range(8)]
)
@pytest.mark.parametrize("fails", [False, True])
def test_neither_net_nor_torchs_generator_changes(seed: int, fails: bool) -> None:
    case = random_case(seed)
    if fails:
        case.torch_net.add_module("more", nn.Linear(3, 3))  # its input does not fit
    case.gluon_net.hybridize(static_alloc=True)
    for parameter in case.torch_net.parameters():
        parameter.grad = None
    before = list(_fingerprint(case.gluon_net, case.torch_net))
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, ALL)
    assert report.ok != fails
    assert list(_fingerprint(case.gluon_net, case.torch_net)) == before


def test_a_given_array_is_not_changed_either() -> None:
    case = random_case(2)
    inputs = case.inputs.copy()
    check_parity(case.gluon_net, case.torch_net, inputs, case.labels)
    np.testing.assert_array_equal(inputs, case.inputs)
