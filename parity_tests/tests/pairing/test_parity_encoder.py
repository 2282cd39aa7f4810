"""Layers of a transformer's encoder: torch transposes before its projections, and back."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.pairing.graph import Operand, OperationGraph, Origin, Parameter, Value
from parity_tests.pairing.normalise import Emitter
from parity_tests.pairing.rewrites import ORDERED
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised

RNG = np.random.default_rng(11)
SEQUENCES = RNG.standard_normal((2, 6, 8)).astype(np.float32)
SQUARE = RNG.standard_normal((4, 4, 8)).astype(np.float32)  # as many samples as steps
CUBE = RNG.standard_normal((4, 4, 4)).astype(np.float32)


def attend(F: Any, x: Any, layer: Any, fault: str) -> Any:
    """Attention of two heads, samples first."""

    def split(y: Any) -> Any:
        if fault == "heads of other features":
            y = F.transpose(F.reshape(y, (0, 0, -1, 2)), (0, 3, 1, 2))
        else:
            y = F.transpose(F.reshape(y, (0, 0, 2, -1)), (0, 2, 1, 3))
        return F.reshape(y, (-3, -2))

    q, k, v = (split(layer(name)(x)) for name in "qkv")
    scores = F.batch_dot(q, k, transpose_b=True) * 0.5
    if fault == "scores dropped":
        weights = F.softmax(F.Dropout(scores, p=0.1))
    else:
        weights = F.Dropout(F.softmax(scores), p=0.2 if fault == "another rate" else 0.1)
    if fault == "weights transposed":
        weights = F.transpose(weights, (0, 2, 1))
    heads = F.reshape(F.batch_dot(weights, v), (-4, -1, 2, 0, 0))
    if fault == "heads left in front":
        return layer("o")(F.reshape_like(heads, x))
    return layer("o")(F.reshape(F.transpose(heads, (0, 2, 1, 3)), (0, 0, -3)))


def feed(F: Any, x: Any, layer: Any, fault: str) -> Any:
    y = layer("a")(x)
    if fault == "dropped before":
        inner = F.tanh(F.Dropout(y, p=0.1))
    else:
        inner = F.Dropout(F.tanh(y), p=0.1)
    return F.Dropout(layer("b")(inner), p=0.1)


def encoder(
    count: int, norm_first: bool = False, fault: str = "", x: np.ndarray = SEQUENCES
) -> Any:
    """Layers of an encoder; a fault is in the last of them."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        for i in range(count):

            def layer(name: str, i: int = i) -> Any:
                return getattr(s, f"{name}{i}")

            own = fault if i == count - 1 else ""
            if norm_first:
                x = x + F.Dropout(attend(F, layer("m")(x), layer, own), p=0.1)
                x = x + feed(F, layer("n")(x), layer, own)
            else:
                x = layer("m")(x + F.Dropout(attend(F, x, layer, own), p=0.1))
                x = layer("n")(x + feed(F, x, layer, own))
        return x

    layers: dict[str, Any] = {}
    for i in range(count):
        layers |= {f"{n}{i}": gnn.Dense(8, flatten=False, in_units=8) for n in "qkvo"}
        layers |= {f"{n}{i}": gnn.LayerNorm(in_channels=8) for n in "mn"}
        layers[f"a{i}"] = gnn.Dense(12, flatten=False, in_units=8)
        layers[f"b{i}"] = gnn.Dense(8, flatten=False, in_units=12)
    return initialised(GluonNet(forward, **layers), x)


def encoder_in_torch(count: int, norm_first: bool = False, batch_first: bool = True) -> Any:
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, 0.1, torch.tanh, batch_first=batch_first, norm_first=norm_first
    )
    return nn.TransformerEncoder(layer, count, enable_nested_tensor=False)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_of_an_encoder_are_in_parity(count: int, norm_first: bool) -> None:
    net, theirs = encoder(count, norm_first), encoder_in_torch(count, norm_first)
    report = check_parity(net, theirs, SEQUENCES, transfer=True)
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}


def test_layers_side_by_side_are_in_parity() -> None:
    layers = [
        nn.TransformerEncoderLayer(8, 2, 12, 0.1, torch.tanh, batch_first=True) for _ in range(2)
    ]
    theirs = TorchNet(lambda s, x: s.b(s.a(x)), a=layers[0], b=layers[1])
    report = check_parity(encoder(2), theirs, SEQUENCES, transfer=True)
    assert report.ok, str(report)


FAULTS = [
    "heads of other features", "heads left in front", "weights transposed", "scores dropped",
    "another rate", "dropped before",
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_layer_of_an_encoder_is_found(fault: str, count: int) -> None:
    net, theirs = encoder(count, fault=fault), encoder_in_torch(count)
    first = check_parity(net, theirs, SEQUENCES, transfer=True).first_divergence
    assert first is not None
    assert first.path.startswith(f"layers.{count - 1}."), str(first)


@pytest.mark.parametrize("count", [1, 2])
def test_attention_across_samples_is_found(count: int) -> None:
    """Where there are as many samples as steps, no shape tells which comes first."""
    net = encoder(count, x=SQUARE)
    assert check_parity(net, encoder_in_torch(count), SQUARE, transfer=True).ok
    theirs = encoder_in_torch(count, batch_first=False)
    assert not check_parity(net, theirs, SQUARE, transfer=True).ok


@pytest.mark.parametrize("fault", ["", "not turned back", "turned behind"])
def test_a_linear_layer_between_transposes(fault: str) -> None:
    """A linear layer over the last axis computes each row alone, in whatever order they come."""

    def ours(s: Any, F: Any, x: Any) -> Any:
        y = F.relu(s.d(x))
        return F.softmax(F.transpose(y, (1, 0, 2)) if fault == "not turned back" else y, axis=1)

    def theirs(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.d(x.transpose(0, 1).reshape(16, 4)).reshape(4, 4, 4)
        y = y.reshape(16, 4).T.reshape(4, 4, 4).permute(2, 1, 0)
        y = y.transpose(1, 2) if fault == "turned behind" else y
        return y.relu().softmax(1)

    layer = gnn.Dense(4, flatten=False, in_units=4)
    net = initialised(GluonNet(ours, d=layer), CUBE)
    report = check_parity(net, TorchNet(theirs, d=nn.Linear(4, 4)), CUBE, transfer=True)
    assert report.ok == (not fault), str(report)


def _lengths(generator: random.Random, size: int) -> tuple[int, ...]:
    """A random shape of so many values."""
    lengths = [1] if generator.random() < 0.2 else []
    while size > 1:
        lengths.append(generator.choice([n for n in range(2, size + 1) if size % n == 0]))
        size //= lengths[-1]
    generator.shuffle(lengths)
    return tuple(lengths)


class _Recorded(Emitter):
    """What each operation reads, parameters in the shapes in which they are read."""

    def __init__(self, graph: OperationGraph) -> None:
        super().__init__(graph, ORDERED)
        self.read_by: dict[Value, list[Operand]] = {}

    def _append(self, kind: str, operands: Sequence[Operand], *more: Any) -> Operand:
        made = super()._append(kind, operands, *more)
        self.read_by[made.value] = list(operands)
        return made


def _computed(graph: _Recorded, operand: Operand, values: Mapping[Value, np.ndarray]) -> np.ndarray:
    y = values.get(operand.value)
    if y is None:
        op = graph.operations[int(operand.value.key)]
        y, *others = (_computed(graph, x, values) for x in graph.read_by[operand.value])
        if op.kind == "transpose":
            y = y.transpose(op.attributes["order"])
        elif op.kind == "add":
            y = y + others[0]
        elif op.kind != "reshape":
            y = np.cumsum(y, -1)
    return y.reshape(operand.shape)


@pytest.mark.parametrize("size", [4, 6, 12, 36, 64])
def test_moved_values_in_one_form_are_where_they_were(size: int) -> None:
    """Random chains of moves, parameters added along some axes, and linear layers (running sums),
    whatever they are cut into."""
    generator = random.Random(size)
    for _ in range(500):
        parameters: dict[str, Parameter] = {}
        graph = _Recorded(OperationGraph((), ((size,),), (), parameters))
        y = np.arange(size)
        operand = Operand("", Value(Origin.INPUT, 0), y.shape)
        values = {operand.value: y}
        for _ in range(generator.randrange(1, 9)):
            kind = generator.choice(["reshape", "transpose", "linear", "add"])
            operands, more = [("input", operand)], {}
            if kind == "reshape":
                y = y.reshape(_lengths(generator, size))
            elif kind == "transpose":
                more["order"] = tuple(generator.sample(range(y.ndim), y.ndim))
                y = y.transpose(more["order"])
            elif kind == "add":
                shape = tuple(n if generator.random() < 0.5 else 1 for n in y.shape)
                name = f"p{len(parameters)}"
                parameters[name] = Parameter(name, shape, "float32")
                own = Operand("", Value(Origin.PARAMETER, name), shape)
                values[own.value] = np.random.default_rng(len(name)).integers(99, size=shape)
                operands.append(("other", own))
                y = y + values[own.value]
            else:
                y = np.cumsum(y, -1)
            operand = graph(kind, operands, y.shape, **more)
        np.testing.assert_array_equal(_computed(graph, operand, values), y)


@pytest.mark.parametrize("quick", [True, False])
def test_weights_that_are_masked_again_may_be_given_out(quick: bool) -> None:
    """As GluonNLP's attention masks before its softmax and behind it."""

    def ours(s: Any, F: Any, x: Any, mask: Any) -> Any:
        scores = F.batch_dot(s.q(x), s.k(x), transpose_b=True)
        weights = F.softmax(F.where(mask, scores, -1e18 * F.ones_like(scores))) * mask
        weights = F.Dropout(weights, p=0.1)
        return F.batch_dot(weights, x), weights

    def theirs(s: Any, x: Any, mask: Any) -> Any:
        scores = (s.q(x) @ s.k(x).transpose(1, 2)).masked_fill(mask == 0, -torch.inf)
        weights = s.d(scores.softmax(-1))
        return weights @ x, weights

    mask = np.tril(np.ones((6, 6), np.float32))[None].repeat(2, 0)
    layers = {name: gnn.Dense(4, flatten=False, in_units=8) for name in "qk"}
    net = initialised(GluonNet(ours, **layers), SEQUENCES, mask)
    own = {name: nn.Linear(8, 4) for name in "qk"}
    other = TorchNet(theirs, d=nn.Dropout(0.1), **own)
    report = check_parity(net, other, (SEQUENCES, mask), transfer=True, quick=quick)
    assert report.ok, str(report)
