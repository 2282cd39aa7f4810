"""Tables that are looked up more than once, or beside other values, as in recommenders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.tests.pairing.nets import GluonNet, TorchNet

RNG = np.random.default_rng(0)
USERS, ITEMS = (RNG.integers(0, 9, (4,)).astype(np.float32) for _ in range(2))
HISTORY = RNG.integers(0, 9, (4, 5)).astype(np.float32)
Forward = Callable[..., Any]


def compared(ours: Forward, theirs: Forward, *inputs: np.ndarray, quick: bool) -> Report:
    """Nets of tables `p` and `q` of width 3, `b` of width 1, and a layer `o` of 6 features."""
    tables = {name: gnn.Embedding(9, width) for name, width in (("p", 3), ("q", 3), ("b", 1))}
    net = GluonNet(ours, o=gnn.Dense(2, in_units=6), **tables)
    mx.random.seed(0)
    net.initialize(mx.init.Normal(0.5))
    own = {name: nn.Embedding(9, width) for name, width in (("p", 3), ("q", 3), ("b", 1))}
    other = TorchNet(theirs, o=nn.Linear(6, 2), **own)
    return check_parity(net, other, inputs, transfer=True, quick=quick)


def factors(s: Any, F: Any, users: Any, items: Any) -> Any:
    return F.sum(s.p(users) * s.q(items), axis=1) + F.squeeze(s.b(users), -1) + 3.5


def factors_in_torch(s: Any, users: Any, items: Any) -> Any:
    products = torch.einsum("nd,nd->n", s.p(users.long()), s.q(items.long()))
    return products + s.b(users.long())[:, 0] + 3.5


def attention(s: Any, F: Any, history: Any, items: Any) -> Any:
    """A history, as it is like an item; its rows are looked up twice, and so is the item."""
    query = F.broadcast_like(F.expand_dims(s.p(items), 1), s.p(history))
    scores = F.sum(query * s.p(history), axis=2, keepdims=True)
    scores = F.broadcast_mul(scores, F.expand_dims(history != 0, 2))
    return s.o(F.concat(F.sum(F.broadcast_mul(scores, s.p(history)), axis=1), s.p(items), dim=1))


def attention_in_torch(s: Any, history: Any, items: Any, masked: bool = True) -> Any:
    query = s.p(items.long()).unsqueeze(1).expand(-1, history.shape[1], -1)
    rows = s.p(history.long())
    scores = (query * rows).sum(2, keepdim=True)
    if masked:
        scores = scores * (history != 0).unsqueeze(-1)
    return s.o(torch.cat([(scores * rows).sum(1), s.p(items.long())], 1))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    ("ours", "theirs", "inputs"),
    [
        (factors, factors_in_torch, (USERS, ITEMS)),
        (attention, attention_in_torch, (HISTORY, ITEMS)),
    ],
)
def test_tables_are_looked_up_alike(
    ours: Forward, theirs: Forward, inputs: tuple[np.ndarray, ...], quick: bool
) -> None:
    report = compared(ours, theirs, *inputs, quick=quick)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("ours", "theirs", "inputs"),
    [
        (factors, lambda s, u, i: factors_in_torch(s, u, i) + s.b(i.long())[:, 0], (USERS, ITEMS)),
        (factors, lambda s, u, i: factors_in_torch(s, i, u), (USERS, ITEMS)),
        (attention, lambda s, h, i: attention_in_torch(s, h, i, masked=False), (HISTORY, ITEMS)),
    ],
)
def test_another_look_is_found(
    ours: Forward, theirs: Forward, inputs: tuple[np.ndarray, ...]
) -> None:
    assert not compared(ours, theirs, *inputs, quick=True).ok
