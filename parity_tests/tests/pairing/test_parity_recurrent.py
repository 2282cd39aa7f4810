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


def in_two_ways(put_back: bool = True) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        first, last = s.a(x)[0], s.b(x.flip(0))[0]
        return torch.cat([first, last.flip(0) if put_back else last], 2)

    return TorchNet(forward, a=nn.LSTM(6, 4), b=nn.LSTM(6, 4))


# One layer of two, or of two ways, beside one for each
STACKED: dict[str, tuple[dict[str, Any], Callable[[], TorchNet]]] = {
    "layers": (
        {"num_layers": 2},
        lambda: TorchNet(lambda s, x: s.b(s.a(x)[0])[0], a=nn.LSTM(6, 4), b=nn.LSTM(4, 4)),
    ),
    "ways": ({"bidirectional": True}, in_two_ways),
    "ways, not put back": ({"bidirectional": True}, lambda: in_two_ways(False)),
}


@pytest.mark.parametrize(
    "name", [pytest.param("layers", marks=pytest.mark.slow), "ways", "ways, not put back"]
)
def test_a_layer_of_several_is_in_parity_with_several_layers(name: str) -> None:
    options, make = STACKED[name]
    x = drawn(1)
    net = ours(gluon.rnn.LSTM(4, input_size=6, **options), x)
    report = check_parity(net, make(), x, transfer=True, levels=("structure", "forward"))
    assert report.ok == ("not" not in name), str(report)
