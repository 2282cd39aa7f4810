"""torch's last state of a recurrent layer beside the last step of Gluon's, where both have all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gnn
from mxnet.gluon import rnn
from torch import nn

from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.tests.pairing.nets import GluonNet, TorchNet

X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
LAYERS = {
    "lstm": (rnn.LSTM, nn.LSTM),
    "gru": (rnn.GRU, nn.GRU),
    "rnn": (lambda *a, **k: rnn.RNN(*a, activation="tanh", **k), nn.RNN),
}
Last = Callable[[Any], Any]


def compared(
    kind: str, layers: int, ways: int, last: Last, swapped: bool = False, quick: bool = True
) -> Report:
    """The mean of all steps beside the ends of both ways; `last` takes these of the states."""
    ours, theirs = LAYERS[kind]

    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.r(x)
        ends = [F.slice(y, (None, -1, None), (None, None, 6)).reshape((0, -1))]
        if ways > 1:
            ends.append(F.slice(y, (None, 0, 6), (None, 1, None)).reshape((0, -1)))
        return s.d(F.concat(F.mean(y, axis=1), *(ends[::-1] if swapped else ends), dim=1))

    def torch_forward(s: Any, x: torch.Tensor) -> Any:
        y, states = s.r(x)
        h = states[0] if isinstance(states, tuple) else states
        return s.d(torch.cat([y.mean(1), last(h)], 1))

    layer = ours(6, layers, layout="NTC", input_size=4, bidirectional=ways > 1)
    net = GluonNet(forward, r=layer, d=gnn.Dense(2, in_units=12 * ways))
    mx.random.seed(0)
    net.initialize(mx.init.Normal(0.5))
    other = TorchNet(
        torch_forward,
        r=theirs(4, 6, layers, batch_first=True, bidirectional=ways > 1),
        d=nn.Linear(12 * ways, 2),
    )
    return check_parity(net, other, X, transfer=True, quick=quick)


def both(h: torch.Tensor) -> torch.Tensor:
    return torch.cat([h[-2], h[-1]], 1)


EQUAL: list[tuple[str, int, int, Last]] = [
    ("gru", 1, 1, lambda h: h[0]),
    ("lstm", 1, 1, lambda h: h[-1]),
    ("rnn", 1, 1, lambda h: h.squeeze(0)),
    ("lstm", 2, 1, lambda h: h[-1]),
    ("gru", 1, 2, both),
    ("lstm", 2, 2, both),
    ("gru", 1, 2, lambda h: h.transpose(0, 1).flatten(1)),
]


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "layers", "ways", "last"), EQUAL)
def test_a_last_state_is_a_last_step(
    kind: str, layers: int, ways: int, last: Last, quick: bool
) -> None:
    report = compared(kind, layers, ways, last, quick=quick)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("kind", "layers", "ways", "last"),
    [
        ("lstm", 2, 1, lambda h: h[0]),
        ("gru", 1, 1, lambda h: h[0] * 0.999),
        ("gru", 2, 2, lambda h: torch.cat([h[0], h[1]], 1)),
        ("lstm", 1, 2, lambda h: torch.cat([h[-1], h[-2]], 1)),
        ("lstm", 1, 2, lambda h: torch.cat([h[-2], h[-2]], 1)),
    ],
)
def test_another_state_is_found(kind: str, layers: int, ways: int, last: Last) -> None:
    assert not compared(kind, layers, ways, last).ok


def test_states_in_the_other_order_are_in_parity_where_both_nets_have_it() -> None:
    report = compared("lstm", 2, 2, lambda h: torch.cat([h[-1], h[-2]], 1), swapped=True)
    assert report.ok, str(report)
