"""One array of a net in the place of several of the other's: the projections of attention."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from mxnet.gluon import nn as gnn
from safetensors.torch import load_file
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.leaves import ParityError
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised

RNG = np.random.default_rng(7)
SEQUENCES = RNG.standard_normal((2, 6, 8)).astype(np.float32)
MEMORY = RNG.standard_normal((2, 5, 8)).astype(np.float32)
OTHER = RNG.standard_normal((2, 5, 8)).astype(np.float32)
INPUTS = {1: (SEQUENCES,), 2: (SEQUENCES, MEMORY), 3: (SEQUENCES, MEMORY, OTHER)}


def several(count: int = 1, bias: bool = True) -> Any:
    """Attention of two heads, with a layer for each projection: of one, two or three inputs."""

    def forward(s: Any, F: Any, *inputs: Any) -> Any:
        def split(y: Any) -> Any:
            y = F.transpose(F.reshape(y, (0, 0, 2, -1)), (0, 2, 1, 3))
            return F.reshape(y, (-3, -2))

        of_query, of_key, of_value = (*inputs, *inputs[-1:] * 2)[:3]
        q, k, v = s.q(of_query), s.k(of_key), s.v(of_value)
        weights = F.softmax(F.batch_dot(split(q), split(k), transpose_b=True) / 2)
        heads = F.reshape(F.batch_dot(weights, split(v)), (-4, -1, 2, 0, 0))
        return s.o(F.reshape(F.transpose(heads, (0, 2, 1, 3)), (0, 0, -3)))

    def layer() -> gnn.Dense:
        return gnn.Dense(8, flatten=False, in_units=8, use_bias=bias)

    return initialised(GluonNet(forward, **{name: layer() for name in "qkvo"}), *INPUTS[count])


def packed(weights: bool = True, fault: str = "", **options: Any) -> TorchNet:
    def forward(s: Any, *inputs: torch.Tensor) -> Any:
        query, key, value = (*inputs, *inputs[-1:] * 2)[:3]
        key = key * 1.001 if fault == "key" else key
        return s.a(query, key, value, need_weights=weights)[0]

    return TorchNet(forward, a=nn.MultiheadAttention(8, 2, batch_first=True, **options))


@pytest.mark.parametrize("count", INPUTS)
@pytest.mark.parametrize("weights", [True, False])
def test_packed_projections_are_in_parity_with_layers_of_their_own(
    count: int, weights: bool
) -> None:
    """Attention to itself, to one memory, and of three inputs, each packed in another way."""
    report = check_parity(several(count), packed(weights), INPUTS[count], transfer=True)
    assert report.ok, str(report)
    read = {row.quantity for row in report.rows if row.level == "weights"}
    assert {"weight", "bias"} <= read
    assert {"a.linear", "a.linear (2)", "a.linear (3)"} <= {row.path for row in report.rows}


def test_projections_without_biases_are_in_parity() -> None:
    report = check_parity(several(bias=False), packed(bias=False), SEQUENCES, transfer=True)
    assert report.ok, str(report)


def test_weights_move_into_the_packed_array_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    net, theirs, state = several(), packed(), tmp_path / "mapped.pt"
    assert check_parity(net, theirs, SEQUENCES, transfer=True, save_mapped=state).ok
    theirs.load_state_dict(torch.load(state, weights_only=True))
    assert check_parity(net, theirs, SEQUENCES).ok
    weight = theirs.get_parameter("a.in_proj_weight").detach()
    assert np.array_equal(weight[8:16].numpy(), net.k.weight.data().asnumpy())
    weight[9, 3] += 1e-3
    first = check_parity(net, theirs, SEQUENCES).first_divergence
    assert first is not None
    assert first.level == "weights"
    assert "(1,3)" in str(first)


def test_a_fault_beside_packed_projections_is_found() -> None:
    assert not check_parity(several(), packed(fault="key"), SEQUENCES, transfer=True).ok


def joined(layout: str) -> Any:
    """One `Dense` for all three: one after the other, or of each unit's three side by side."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.p(x)
        if layout == "side by side":
            q, k, v = F.split(F.reshape(y, (0, 0, 8, 3)), 3, axis=3, squeeze_axis=True)
        else:
            q, k, v = F.split(y, 3, axis=2)
        return F.batch_dot(F.softmax(F.batch_dot(q, k, transpose_b=True) / math.sqrt(8)), v)

    layer = gnn.Dense(24, flatten=False, in_units=8)
    return initialised(GluonNet(forward, p=layer), SEQUENCES)


def apart(swapped: bool = False) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = s.q(x), s.k(x), s.v(x)
        k, v = (v, k) if swapped else (k, v)
        mixed: torch.Tensor = (q @ k.mT / math.sqrt(8)).softmax(-1) @ v
        return mixed

    return TorchNet(forward, **{name: nn.Linear(8, 8) for name in "qkv"})


@pytest.mark.parametrize("swapped", [False, True])
def test_one_dense_beside_three_linear_layers(swapped: bool) -> None:
    """Which rows are whose is said by what is computed of them, in whatever order."""
    report = check_parity(joined("in turn"), apart(swapped), SEQUENCES, transfer=True)
    assert report.ok, str(report)


def test_convolutions_in_one() -> None:
    image = RNG.standard_normal((2, 4, 3, 3)).astype(np.float32)

    def ours(s: Any, F: Any, x: Any) -> Any:
        q, k, v = (F.reshape(layer(x), (0, 0, -1)) for layer in (s.q, s.k, s.v))
        weights = F.softmax(F.batch_dot(q, k, transpose_a=True))
        return F.batch_dot(v, weights, transpose_b=True)

    def theirs(s: Any, x: torch.Tensor) -> Any:
        q, k, v = s.p(x).flatten(2).chunk(3, 1)
        return v @ (q.mT @ k).softmax(-1).mT

    net = GluonNet(ours, **{name: gnn.Conv2D(4, 1, in_channels=4) for name in "qkv"})
    torch_net = TorchNet(theirs, p=nn.Conv2d(4, 12, 1))
    report = check_parity(initialised(net, image), torch_net, image, transfer=True)
    assert report.ok, str(report)


@pytest.mark.parametrize("swapped", [False, True])
def test_projections_of_other_lengths_in_one(swapped: bool, tmp_path: Path) -> None:
    """As where several heads of queries share one of keys and values."""

    def ours(s: Any, F: Any, x: Any) -> Any:
        return F.concat(s.q(x), s.k(x) * F.sigmoid(s.v(x)), dim=2)

    def theirs(s: Any, x: torch.Tensor) -> Any:
        q, k, v = s.p(x).split([8, 4, 4], -1)
        return torch.cat((q, v * k.sigmoid() if swapped else k * v.sigmoid()), -1)

    sizes = {"q": 8, "k": 4, "v": 4}
    layers = {n: gnn.Dense(size, flatten=False, in_units=8) for n, size in sizes.items()}
    net = initialised(GluonNet(ours, **layers), SEQUENCES)
    torch_net = TorchNet(theirs, p=nn.Linear(8, 16))
    state = tmp_path / "mapped.pt"
    report = check_parity(net, torch_net, SEQUENCES, transfer=True, save_mapped=state)
    assert report.ok, str(report)
    torch_net.load_state_dict(torch.load(state, weights_only=True))
    values = torch_net.get_parameter("p.weight").detach().numpy()
    rows = slice(8, 12) if not swapped else slice(12, 16)
    assert np.array_equal(values[rows], net.k.weight.data().asnumpy())
    values[9, 3] += 1e-3
    first = check_parity(net, torch_net, SEQUENCES).first_divergence
    assert first is not None
    assert first.level == "weights"


def test_rows_side_by_side_are_refused_in_words() -> None:
    words = "Gluon's p.weight .24, 8. has the place of torch's q.weight, k.weight, v.weight .*rows"
    with pytest.raises(ParityError, match=words):
        check_parity(joined("side by side"), apart(), SEQUENCES)


def test_what_one_optimizer_updates_as_one_is_said() -> None:
    report = check_parity(
        several(), packed(), SEQUENCES, labels=np.zeros((2, 6, 8), np.float32), transfer=True,
        levels=("optimizer",), optimizer="sgd(lr=0.1)", loss="l2",
    )  # fmt: skip
    assert not report.ok
    assert "in_proj_weight (24, 8) has the place of" in str(report.first_divergence)


class Multiplied(gluon.Block):
    """Two layers that multiply by matrices of (in, out)."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        self.sizes = sizes
        with self.name_scope():
            for i, shape in enumerate(itertools.pairwise(sizes)):
                setattr(self, f"weight{i}", self.params.get(f"weight{i}", shape=shape))
                setattr(self, f"bias{i}", self.params.get(f"bias{i}", shape=shape[1:]))

    def forward(self, x: Any) -> Any:
        x = mx.nd.relu(mx.nd.dot(x, self.weight0.data()) + self.bias0.data().expand_dims(0))
        return mx.nd.dot(x, self.weight1.data()) + self.bias1.data().expand_dims(0)


class MultipliedInTorch(nn.Module):
    """The same."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        shapes = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(torch.zeros(shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(shape[1]) for shape in shapes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x @ self.weights[0] + self.biases[0]).relu()
        return x @ self.weights[1] + self.biases[1]


def dense(sizes: tuple[int, int, int]) -> gnn.Sequential:
    net = gnn.Sequential()
    net.add(gnn.Dense(sizes[1], activation="relu", in_units=sizes[0]))
    net.add(gnn.Dense(sizes[2], in_units=sizes[1]))
    return net


def linear(sizes: tuple[int, int, int], slope: float = 0.0) -> nn.Sequential:
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    return nn.Sequential(layers[0], nn.LeakyReLU(slope), layers[1])


@pytest.mark.parametrize("sizes", [(5, 4, 3), pytest.param((5, 5, 5), marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("ours", "theirs", "right"),
    [
        (Multiplied, linear, True),
        (dense, MultipliedInTorch, True),
        (Multiplied, lambda sizes: linear(sizes, 1e-4), False),
    ],
)
def test_a_matrix_that_the_other_net_holds_transposed_has_its_partner(
    ours: Any, theirs: Any, right: bool, sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    net = ours(sizes)
    net.initialize(mx.init.Normal(0.5))
    path = tmp_path / "state.safetensors"
    report = check_parity(net, theirs(sizes), x, transfer=True, save_mapped=path)
    assert report.ok == right, str(report)
    if right:
        state = load_file(path).values()
        held = [p.data().asnumpy() for p in net.collect_params().values()]
        found = [any(np.array_equal(a.numpy(), b.T) for b in held) for a in state]
        assert all(found), "as torch's layers hold them"
        levels = [Level.OPTIMIZER]
        trained = check_parity(
            net, theirs(sizes), x, np.array([0, 1, 2]), levels, transfer=True,
            optimizer="sgd(lr=0.1)", steps=1,
        )  # fmt: skip
        assert "transposed, of which no optimizer is followed" in str(trained.first_divergence)
