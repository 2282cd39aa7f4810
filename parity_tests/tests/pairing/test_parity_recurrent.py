"""Recurrent layers whose gates saturate: what they round inside, and faults in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from parity_tests import check_parity
from parity_tests.backends.torch.tracing.recurrent import in_steps
from parity_tests.pairing.parameters import transfer_parameters
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised

LAYERS = {
    "LSTM": (gluon.rnn.LSTM, nn.LSTM, {}),
    "GRU": (gluon.rnn.GRU, nn.GRU, {}),
    "tanh": (gluon.rnn.RNN, nn.RNN, {"activation": "tanh"}),
    "relu": (gluon.rnn.RNN, nn.RNN, {"activation": "relu"}),
}
_TORCH = {"activation": "nonlinearity"}


def drawn(scale: float) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((5, 2, 6)) * scale).astype(np.float32)


def ours(layer: Any, x: np.ndarray) -> Any:
    mx.random.seed(0)
    np.random.seed(0)
    net = GluonNet(lambda s, F, x: s.l(x), l=layer)
    net.initialize(mx.init.Uniform(1.0))
    net(mx.nd.array(x))
    return net


@pytest.mark.parametrize("scale", [10, 100, 1000])
@pytest.mark.parametrize("kind", LAYERS)
def test_saturated_gates_are_in_parity(kind: str, scale: float) -> None:
    """What is 1 − y², z·(h − n) and f·c + i·g cancels, whatever rounds the sums before it."""
    in_gluon, in_torch, options = LAYERS[kind]
    x = drawn(scale)
    net = ours(in_gluon(8, 2, bidirectional=True, input_size=6, **options), x)
    named = {_TORCH[name]: value for name, value in options.items()}
    layer = in_torch(6, 8, 2, bidirectional=True, **named)
    report = check_parity(net, TorchNet(lambda s, x: s.l(x)[0], l=layer), x, transfer=True)
    assert report.ok, str(report)


def by_hand(fault: str) -> TorchNet:
    """An LSTM in the user's own steps."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[1], 8)
        found = []
        for step in x:
            i, f, g, o = (s.i(step) + s.h(h)).chunk(4, -1)
            i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
            c = f * c + i * g.tanh() * (1 + 1e-5 if fault == "gain" else 1)
            c = c.clamp(-1, 1) if fault == "clipped" else c
            h = o * (c if fault == "no tanh" else c.tanh())
            found.append(h)
        return torch.stack(found)

    return TorchNet(forward, i=nn.Linear(6, 32), h=nn.Linear(8, 32))


@pytest.mark.parametrize("fault", ["", "gain", "clipped", "no tanh"])
def test_a_fault_behind_saturated_gates_is_found(fault: str) -> None:
    x = drawn(100)
    net = ours(gluon.rnn.LSTM(8, input_size=6), x)
    report = check_parity(net, by_hand(fault), x, transfer=True)
    assert report.ok == (not fault), str(report)


def test_a_saturated_cell_unrolled_is_in_parity_with_the_layer() -> None:
    x = np.moveaxis(drawn(100), 0, 1).copy()
    net = GluonNet(
        lambda s, F, x: s.l.unroll(5, x, layout="NTC", merge_outputs=True)[0],
        l=gluon.rnn.LSTMCell(8, input_size=6),
    )
    torch_net = TorchNet(lambda s, x: s.l(x)[0], l=nn.LSTM(6, 8, batch_first=True))
    report = check_parity(initialised(net, x), torch_net, x, transfer=True)
    assert report.ok, str(report)


@pytest.mark.parametrize("rate", [0.3, 0.5])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_what_drops_between_the_layers_passes_on_and_its_rate_is_compared(
    kind: str, rate: float
) -> None:
    in_gluon, in_torch, _ = LAYERS[kind]
    x = drawn(1)
    net = ours(in_gluon(8, 2, input_size=6, dropout=0.3), x)
    layer = in_torch(6, 8, 2, dropout=rate)
    report = check_parity(net, TorchNet(lambda s, x: s.l(x)[0], l=layer), x, transfer=True)
    assert report.ok == (rate == 0.3), str(report)
    named = "Gluon has 0.3, torch has 0.5 (dropout)"
    assert report.ok or named in str(report.first_divergence)
    assert layer.dropout == rate


def arrays_of(given: Any) -> list[torch.Tensor]:
    if given is None or isinstance(given, torch.Tensor):
        return [] if given is None else [given]
    return [y for x in given for y in arrays_of(x)]


MODULES: dict[str, Callable[..., nn.Module]] = {
    "LSTM": nn.LSTM,
    "projected": lambda *sizes, **more: nn.LSTM(*sizes, proj_size=3, **more),
    "GRU": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *sizes, **more: nn.RNN(*sizes, nonlinearity="relu", **more),
    "LSTMCell": nn.LSTMCell,
    "GRUCell": nn.GRUCell,
    "RNNCell": nn.RNNCell,
}


def assert_steps(module: nn.Module, given: list[Any]) -> None:
    made = in_steps(module, dict(module.named_parameters()), given, lambda value: value)
    for a, b in zip(arrays_of(made), arrays_of(module(*given)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("lengths", [[6, 4, 1], [2, 6, 4]], ids=["sorted", "in any order"])
@pytest.mark.parametrize("kind", ["LSTM", "projected", "GRU"])
def test_the_steps_of_packed_sequences_are_the_layer(kind: str, lengths: list[int]) -> None:
    module = MODULES[kind](4, 5, num_layers=2, bidirectional=True, batch_first=True).double()
    x = torch.randn((3, 6, 4), dtype=torch.float64)
    ordered = lengths == sorted(lengths, reverse=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)
    assert_steps(module, [packed])
    assert_steps(module, [packed, module(packed)[1]])


@pytest.mark.parametrize("kind", MODULES)
def test_the_steps_are_the_layer(kind: str) -> None:
    cell = kind.endswith("Cell")
    forms: list[dict[str, Any]] = [{}, {"bias": False}]
    if not cell:
        forms += [{"num_layers": 2, "bidirectional": True}, {"batch_first": True}]
    for form in forms:
        module = MODULES[kind](4, 5, **form).double()
        for shape in ((3, 4),) if cell else ((3, 6, 4), (6, 4)):
            x = torch.randn(shape, dtype=torch.float64)
            first = module(x)
            for given in ([x], [x, first if cell else first[1]]):
                assert_steps(module, given)


def turned(layer: Any, x: torch.Tensor, put_back: bool = True) -> torch.Tensor:
    """What a layer gives of the steps from the last to the first."""
    y: torch.Tensor = layer(x.flip(0))[0]
    return y.flip(0) if put_back else y


def in_two_ways(layers: int = 1, swapped: bool = False, put_back: bool = True) -> TorchNet:
    """Layers of one way each, the reversed one first."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        for i in range(layers):
            last = turned(getattr(s, f"b{i}"), x, put_back)
            parts = [getattr(s, f"a{i}")(x)[0], last]
            x = torch.cat(parts[::-1] if swapped else parts, 2)
        return x

    sizes = [6, *(layers - 1) * [8]]
    made = {f"{way}{i}": nn.LSTM(size, 4) for way in "ba" for i, size in enumerate(sizes)}
    return TorchNet(forward, **made)


def by_cells(back: bool = True) -> TorchNet:
    """Both ways in the user's own steps, the reversed one first."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        made = []
        for cell, steps in ((s.b, range(2, -1, -1) if back else range(3)), (s.a, range(3))):
            h = x.new_zeros(x.shape[1], 4)
            found = {}
            for step in steps:
                found[step] = h = cell(x[step], h)
            made.append(torch.stack([found[step] for step in range(3)]))
        return torch.cat(made[::-1], 2)

    return TorchNet(forward, b=nn.RNNCell(6, 4), a=nn.RNNCell(6, 4))


def in_gluon(swapped: bool = False) -> Any:
    def forward(s: Any, F: Any, x: Any) -> Any:
        last = F.SequenceReverse(s.b(F.flip(x, axis=0)))
        return F.concat(*((last, s.a(x)) if swapped else (s.a(x), last)), dim=2)

    return GluonNet(forward, b=gluon.rnn.GRU(4, input_size=6), a=gluon.rnn.GRU(4, input_size=6))


def in_ways(layers: int = 1) -> Any:
    layer = gluon.rnn.LSTM(4, layers, input_size=6, bidirectional=True)
    return GluonNet(lambda s, F, x: s.l(x), l=layer)


def between_others(last_first: bool) -> tuple[Any, TorchNet]:
    """Three parts: the two ways of one layer, and another layer between them."""

    def in_mxnet(s: Any, F: Any, x: Any) -> Any:
        first, last = F.split(s.l(x), 2, axis=2)
        return F.concat(last, s.m(x), first, dim=2)

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [turned(s.b, x), s.c(x)[0], s.a(x)[0]]
        return torch.cat(parts if last_first else [parts[1], parts[0], parts[2]], 2)

    layers = {"l": in_ways().l, "m": gluon.rnn.LSTM(4, input_size=6)}
    return GluonNet(in_mxnet, **layers), TorchNet(forward, **{n: nn.LSTM(6, 4) for n in "bca"})


# One layer of several, or of two ways, beside one for each, and what is named of a fault
STACKED: dict[str, tuple[Callable[[], tuple[Any, TorchNet]], str]] = {
    "layers": (
        lambda: (
            GluonNet(lambda s, F, x: s.l(x), l=gluon.rnn.LSTM(4, 2, input_size=6)),
            TorchNet(lambda s, x: s.b(s.a(x)[0])[0], b=nn.LSTM(4, 4), a=nn.LSTM(6, 4)),
        ),
        "",
    ),
    "ways": (lambda: (in_ways(), in_two_ways()), ""),
    "ways in Gluon": (
        lambda: (
            in_gluon(),
            TorchNet(lambda s, x: s.l(x)[0], l=nn.GRU(6, 4, bidirectional=True)),
        ),
        "",
    ),
    "layers of ways": (lambda: (in_ways(2), in_two_ways(2)), ""),
    "three parts": (lambda: between_others(True), ""),
    "cells": (
        lambda: (
            GluonNet(lambda s, F, x: s.l(x), l=gluon.rnn.RNN(
                4, input_size=6, bidirectional=True, activation="tanh")),
            by_cells(),
        ),
        "",
    ),
    "not put back": (lambda: (in_ways(), in_two_ways(put_back=False)), "flip in l"),
    "swapped": (lambda: (in_ways(), in_two_ways(swapped=True)), "reads input.0"),
    "swapped in Gluon": (
        lambda: (
            in_gluon(swapped=True),
            TorchNet(lambda s, x: s.l(x)[0], l=nn.GRU(6, 4, bidirectional=True)),
        ),
        "reads input.0",
    ),
    "three parts, swapped": (lambda: between_others(False), "reads input.0"),
    "cells, not turned": (
        lambda: (
            GluonNet(lambda s, F, x: s.l(x), l=gluon.rnn.RNN(
                4, input_size=6, bidirectional=True, activation="tanh")),
            by_cells(back=False),
        ),
        "structure",
    ),
}  # fmt: skip
_SLOW = {"layers", "layers of ways", "three parts", "swapped in Gluon", "three parts, swapped"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in STACKED]
)
def test_a_layer_of_several_is_in_parity_with_several_layers(name: str) -> None:
    make, named = STACKED[name]
    x = drawn(1)[:3]
    net, torch_net = make()
    levels = ("structure", "weights", "forward", "backward")
    report = check_parity(initialised(net, x), torch_net, x, transfer=True, levels=levels)
    assert report.ok == (not named), str(report)
    assert report.ok or named in str(report.first_divergence), str(report.first_divergence)


def test_the_weights_of_one_way_in_place_of_the_other_are_named() -> None:
    x = drawn(1)[:3]
    net, torch_net = initialised(in_ways(), x), in_two_ways()
    layers: dict[str, Any] = dict(torch_net.named_children())
    transfer_parameters(net, torch_net, [x])
    assert check_parity(net, torch_net, x, levels=("weights", "forward")).ok
    with torch.no_grad():
        layers["b0"].weight_hh_l0.copy_(layers["a0"].weight_hh_l0)
    found = check_parity(net, torch_net, x, levels=("weights", "forward")).first_divergence
    assert found is not None
    assert found.level == "weights"
    assert "weight_hh_l0" in found.quantity
