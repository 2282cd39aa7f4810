"""MXNet's interleaved attention, as GluonNLP's BERT has it, beside three linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.gluon.tracing.replay import refuse_overrun
from parity_tests.reporting.report import Report

RNG = np.random.default_rng(5)
STEPS, BATCH, UNITS, HEADS = 6, 2, 8, 2
X = RNG.standard_normal((BATCH, STEPS, UNITS)).astype(np.float32)
MEMORY = RNG.standard_normal((BATCH, 5, UNITS)).astype(np.float32)
LENGTHS = np.array([6, 4], np.float32)


class Projections(gluon.HybridBlock):
    """Parameters of several projections, put together for each head."""

    def __init__(self, names: str) -> None:
        super().__init__()
        with self.name_scope():
            for name in names:
                for kind, shape in (("weight", (UNITS, UNITS)), ("bias", (UNITS,))):
                    setattr(self, name + kind, self.params.get(name + kind, shape=shape))

    def hybrid_forward(self, F: Any, x: Any, **own: Any) -> Any:
        weights = [F.reshape(w, (HEADS, -1, UNITS)) for name, w in own.items() if "weight" in name]
        biases = [F.reshape(b, (HEADS, -1)) for name, b in own.items() if "bias" in name]
        weight = F.reshape(F.concat(*weights, dim=1), (-1, UNITS))
        bias = F.reshape(F.stack(*biases, axis=1), (-1,))
        count = len(weights) * UNITS
        return F.FullyConnected(x, weight, bias, num_hidden=count, flatten=False)


class SelfAttention(gluon.HybridBlock):
    """(N, L, C), or with lengths (N,), as GluonNLP 0.10 computes it: steps first."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.qkv, self.out = Projections("qkv"), gluon.nn.Dense(UNITS, flatten=False)

    def hybrid_forward(self, F: Any, x: Any, lengths: Any = None) -> Any:
        qkv = self.qkv(F.transpose(x, (1, 0, 2)))
        scores = F.contrib.interleaved_matmul_selfatt_qk(qkv, heads=HEADS)
        if lengths is None:
            weights = F.softmax(scores)
        else:
            each = F.broadcast_add(F.reshape(lengths, (-1, 1)), F.zeros((1, STEPS)))
            each = F.broadcast_axis(F.expand_dims(F.cast(each, "int32"), 1), axis=1, size=HEADS)
            each = F.reshape(each, (-3, 0))
            weights = F.softmax(scores, length=each, use_length=True, axis=-1)
        y = F.contrib.interleaved_matmul_selfatt_valatt(qkv, weights, heads=HEADS)
        return F.transpose(self.out(y), (1, 0, 2))


class CrossAttention(gluon.HybridBlock):
    """Queries of (N, L, C) into a memory (N, M, C)."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.q, self.kv = gluon.nn.Dense(UNITS, flatten=False), Projections("kv")
            self.out = gluon.nn.Dense(UNITS, flatten=False)

    def hybrid_forward(self, F: Any, x: Any, memory: Any) -> Any:
        q = self.q(F.transpose(x, (1, 0, 2)))
        kv = self.kv(F.transpose(memory, (1, 0, 2)))
        scores = F.contrib.interleaved_matmul_encdec_qk(q, kv, heads=HEADS)
        y = F.contrib.interleaved_matmul_encdec_valatt(kv, F.softmax(scores), heads=HEADS)
        return F.transpose(self.out(y), (1, 0, 2))


class Attention(nn.Module):
    """The same in torch, samples first; `fault` is what it does otherwise."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(UNITS, UNITS) for _ in range(4))
        self.fault = fault

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> Any:
        memory = x if other is None or other.dim() == 1 else other
        size = HEADS if self.fault == "heads" else UNITS // HEADS

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(2, (-1, size)).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(memory)), split(self.v(memory))
        scores = q @ k.transpose(-1, -2) / (1 if self.fault == "scale" else (UNITS // HEADS) ** 0.5)
        if other is not None and other.dim() == 1:
            ends = other + 1 if self.fault == "length" else other
            far = torch.arange(STEPS)[None] >= ends[:, None]
            scores = scores.masked_fill(far[:, None, None], -1e9)
        weights = scores.softmax(2 if self.fault == "axis" else -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


def compared(ours: Callable[[], Any], *inputs: np.ndarray, fault: str = "") -> Report:
    net = ours()
    mx.random.seed(0)
    net.initialize(mx.init.Normal(0.5))
    net(*map(mx.nd.array, inputs))
    return check_parity(net, Attention(fault), inputs, transfer=True)


NETS: dict[str, tuple[Callable[[], Any], tuple[np.ndarray, ...]]] = {
    "self": (SelfAttention, (X,)),
    "lengths": (SelfAttention, (X, LENGTHS)),
    "cross": (CrossAttention, (X, MEMORY)),
}


@pytest.mark.parametrize("name", NETS)
def test_interleaved_attention_is_in_parity(name: str) -> None:
    ours, inputs = NETS[name]
    report = compared(ours, *inputs)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("name", "fault"),
    [*((name, fault) for name in NETS for fault in ("scale", "axis")), ("lengths", "length")],
)
def test_a_fault_in_interleaved_attention_is_found(name: str, fault: str) -> None:
    ours, inputs = NETS[name]
    assert not compared(ours, *inputs, fault=fault).ok


def test_other_heads_are_found() -> None:
    assert HEADS != UNITS // HEADS
    assert not compared(SelfAttention, X, fault="heads").ok


@pytest.mark.parametrize("longest", [STEPS, STEPS + 1, 48])
def test_no_softmax_writes_beyond_its_axis(longest: int) -> None:
    """MXNet does not look, and the process ends."""
    scores, lengths = mx.nd.ones((2, 3, STEPS)), mx.nd.array([[1, 2, longest]] * 2, dtype="int32")
    attributes = {"use_length": "True", "axis": "-1"}
    if longest == STEPS:
        refuse_overrun("softmax", [scores, lengths], attributes)
        return
    with pytest.raises(ValueError, match=f"a sequence of {STEPS} steps has the length {longest}"):
        refuse_overrun("softmax", [scores, lengths], attributes)
