"""Recurrent layers over sequences of several lengths: masks and reversals beside packed ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from mxnet.gluon import nn as gnn
from mxnet.gluon import rnn
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from parity_tests import check_parity
from parity_tests.backends.leaves import ParityError
from parity_tests.reporting.verdicts import Status
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised, random_image

STEPS, SEQUENCES, SIZE = 4, 3, 2
X = random_image(SEQUENCES, STEPS, SIZE)
LENGTHS = np.array([2, 4, 3], np.float32)
LEVELS = ("structure", "weights", "forward", "backward", "optimizer", "training")
IN_LENGTHS: dict[str, Any] = {"use_sequence_length": True, "axis": 1}

Forward = Callable[..., Any]


def layer(kind: Any = rnn.LSTM, **options: Any) -> Any:
    return kind(3, layout="NTC", input_size=SIZE, **options)


def ours(forward: Forward, recurrent: Any, width: int = 3) -> Any:
    head = gnn.Dense(2, in_units=width, flatten=False)
    net = GluonNet(lambda s, F, x, n: s.d(forward(s, F, x, n)), r=recurrent, d=head)
    return initialised(net, X, LENGTHS)


def masked(s: Any, F: Any, x: Any, n: Any) -> Any:
    return F.SequenceMask(s.r(x), n, **IN_LENGTHS)


def last_valid(s: Any, F: Any, x: Any, n: Any) -> Any:
    return F.SequenceLast(s.r(x), n, **IN_LENGTHS)


def unrolled(s: Any, F: Any, x: Any, n: Any) -> Any:
    return s.r.unroll(STEPS, x, layout="NTC", merge_outputs=True, valid_length=n)[0]


def with_lengths(s: Any, F: Any, x: Any, n: Any) -> Any:
    states = s.r.begin_state(SEQUENCES, func=F.zeros)
    return s.r(x, states, n)[0]


def masked_behind(s: Any, F: Any, x: Any, n: Any) -> Any:
    return F.sum(F.SequenceMask(with_lengths(s, F, x, n), n, **IN_LENGTHS), axis=1)


def two_ways() -> Any:
    cells = [gluon.rnn.LSTMCell(3, input_size=SIZE) for _ in range(2)]
    return gluon.rnn.BidirectionalCell(*cells)


def theirs(
    take: Forward = lambda s, y, h, n: y, kind: Any = nn.LSTM, *, shorter: int = 0, **options: Any
) -> TorchNet:
    """`take(net, padded, last states, lengths)` of a packed sequence."""

    def forward(s: Any, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        given = (n.long() - shorter).clamp(min=1)
        packed = pack_padded_sequence(x, given, batch_first=True, enforce_sorted=False)
        y, h = s.r(packed)
        y = pad_packed_sequence(y, batch_first=True, total_length=STEPS)[0]
        out: torch.Tensor = s.d(take(s, y, h if isinstance(h, torch.Tensor) else h[0], n))
        return out

    recurrent = kind(SIZE, 3, batch_first=True, **options)
    return TorchNet(forward, r=recurrent, d=nn.Linear(3 * (1 + recurrent.bidirectional), 2))


def last_of_all(s: Any, y: Any, h: Any, n: Any) -> Any:
    return h[-1]


def at_the_end(s: Any, y: Any, h: Any, n: Any) -> Any:
    return y[torch.arange(SEQUENCES), n.long() - 1]


def sorted_by_hand() -> TorchNet:
    def forward(s: Any, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        lengths, order = n.long().sort(descending=True)
        y = s.r(pack_padded_sequence(x[order], lengths, batch_first=True))[0]
        out: torch.Tensor = s.d(pad_packed_sequence(y, batch_first=True)[0][order.argsort()])
        return out

    return TorchNet(forward, r=nn.LSTM(SIZE, 3, batch_first=True), d=nn.Linear(3, 2))


def while_packed() -> TorchNet:
    """A stack of layers that are given what is still packed, and a function of its values."""

    def forward(s: Any, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, n.long(), batch_first=True, enforce_sorted=False)
        y = s.b(s.a(packed)[0])[0]
        out: torch.Tensor = s.d(pad_packed_sequence(y, batch_first=True)[0])
        return out

    layers = nn.LSTM(SIZE, 3, batch_first=True), nn.LSTM(3, 3, batch_first=True)
    return TorchNet(forward, a=layers[0], b=layers[1], d=nn.Linear(3, 2))


EQUAL: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "masked": (lambda: ours(masked, layer()), theirs),
}
EQUAL_TOO: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "the last valid step": (lambda: ours(last_valid, layer()), lambda: theirs(last_of_all)),
    "told its lengths and masked": (
        lambda: ours(masked_behind, layer(use_sequence_length=True)),
        lambda: theirs(lambda s, y, h, n: y.sum(1)),
    ),
    "gathered": (
        lambda: ours(last_valid, layer(rnn.GRU)), lambda: theirs(at_the_end, nn.GRU)
    ),
    "two ways": (lambda: ours(unrolled, two_ways(), 6), lambda: theirs(bidirectional=True)),
    "sorted by hand": (lambda: ours(masked, layer()), sorted_by_hand),
    "two layers, packed between": (lambda: ours(masked, layer(num_layers=2)), while_packed),
}  # fmt: skip


def check(ours: Any, theirs: Any, **more: Any) -> Any:
    return check_parity(ours, theirs, (X, LENGTHS), transfer=True, **more)


@pytest.mark.parametrize("name", EQUAL)
def test_packed_sequences_are_in_parity(name: str) -> None:
    report = check(*(make() for make in EQUAL[name]))
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL_TOO)
def test_more_packed_sequences_are_in_parity(name: str) -> None:
    report = check(*(make() for make in EQUAL_TOO[name]))
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["the last valid step", "told its lengths and masked"])
def test_packed_sequences_are_trained(name: str) -> None:
    report = check(
        *(make() for make in EQUAL_TOO[name]), levels=LEVELS, steps=2, labels=np.array([0, 1, 0]),
        optimizer="sgd(lr=0.1)",
    )  # fmt: skip
    assert report.ok, str(report)


FAULTS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "lengths forgotten": (lambda: ours(lambda s, F, x, n: s.r(x), layer()), theirs),
    "shorter ones": (lambda: ours(masked, layer()), lambda: theirs(shorter=1)),
    "the last step": (
        lambda: ours(last_valid, layer()), lambda: theirs(lambda s, y, h, n: y[:, -1])
    ),
    "told its lengths, and not": (
        lambda: ours(with_lengths, layer(use_sequence_length=True)),
        lambda: TorchNet(
            lambda s, x, n: s.d(s.r(x)[0]), r=nn.LSTM(SIZE, 3, batch_first=True), d=nn.Linear(3, 2)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_other_lengths_are_named(name: str) -> None:
    report = check(*(make() for make in FAULTS[name]), levels=("structure", "forward"))
    failed = [row for row in report.rows if row.status == Status.DIVERGED]
    assert failed, str(report)


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_lengths_that_mxnet_does_not_heed_are_not_compared(quick: bool) -> None:
    """On a CPU every step is computed: the layers are compared as a GPU computes them."""
    net = ours(with_lengths, layer(use_sequence_length=True))
    report = check(net, theirs(), levels=("structure", "forward"), quick=quick)
    assert not report.ok
    failed = [row for row in report.rows if row.status.failed]
    assert {row.status for row in failed} == {Status.NOT_COMPARED}, str(report)
    assert "SequenceMask" in failed[0].detail


class Flat(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.held = self.params.get("held", shape=(4 * 3 * (SIZE + 3 + 2),))

    def hybrid_forward(self, F: Any, x: Any, n: Any, held: Any) -> Any:
        start = [F.zeros((1, SEQUENCES, 3))] * 2
        y = F.RNN(F.swapaxes(x, 0, 1), held, *start, state_size=3, num_layers=1, mode="lstm")
        return F.swapaxes(y, 0, 1)


def test_weights_in_one_flat_array_are_refused() -> None:
    net = Flat()
    net.initialize(mx.init.Normal(0.5))
    torch_net = TorchNet(lambda s, x, n: s.r(x)[0], r=nn.LSTM(SIZE, 3, batch_first=True))
    with pytest.raises(ParityError, match=r"from one array, held, .* use gluon.rnn.LSTM"):
        check(net, torch_net)
