"""Inherited error: what no single leaf shows, what is only rounding, and what is only a kink."""

from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.backends.runs import Objective
from parity_tests.cases.pairs import project_case
from parity_tests.levels.envelope import forward_envelope
from parity_tests.levels.referee import Subject
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Side

X = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)


class Ours(HybridBlock):
    """Two dense layers, and a ReLU between them that is no leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.first = gluon_nn.Dense(32, in_units=6)
        self.second = gluon_nn.Dense(4, in_units=32)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.second(F.relu(self.first(x)))


class Theirs(nn.Module):
    """Its twin, with a function of one's choice between the layers, and after them."""

    def __init__(self, between: Any = torch.relu, after: Any = lambda y: y) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.second = nn.Linear(32, 4)
        self.between, self.after = between, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.second(self.between(self.first(x))))


def ours() -> Ours:
    net = Ours()
    mx.random.seed(2)
    net.initialize(mx.init.Xavier())
    return net


def first_failure(theirs: nn.Module) -> Row:
    report = check_parity(ours(), theirs, X, transfer=True)
    assert not report.ok
    return report.failures[0]


def test_the_same_functions_between_the_leaves_agree() -> None:
    assert check_parity(ours(), Theirs(), X, transfer=True).ok


@pytest.mark.parametrize(
    ("between", "path"),
    [
        (lambda x: torch.nn.functional.leaky_relu(x, 1e-4), "leaky_relu"),
        (lambda x: torch.relu(x) * (1 + 2.0**-16), "relu"),
        (lambda x: torch.relu(x).half().to(x.dtype), "relu"),
    ],
    ids=["another-function", "a-factor", "a-cast"],
)
def test_a_difference_between_leaves_shows_where_it_happens(between: Any, path: str) -> None:
    row = first_failure(Theirs(between))
    assert (row.level, row.path) == ("structure", path)


def test_a_difference_after_the_last_leaf_shows_at_its_operation() -> None:
    row = first_failure(Theirs(after=lambda y: y - y.mean(dim=1, keepdim=True)))
    assert (row.level, row.path) == ("structure", "sub")


def test_a_gradient_cut_between_leaves_shows_behind_the_cut() -> None:
    row = first_failure(Theirs(lambda x: torch.relu(x).detach()))
    assert (row.level, row.path) == ("backward", "second")


def test_a_value_next_to_a_kink_is_no_divergence() -> None:
    """Units whose input is rounding away from 0 get a gradient on one side and none on the other.

    The second layer's inputs cancel to about u: float32 and float64 disagree about their signs.
    """
    units = 64
    gluon_net = gluon_nn.HybridSequential()
    gluon_net.add(
        gluon_nn.Dense(units, in_units=6, use_bias=False),
        gluon_nn.Activation("tanh"),
        gluon_nn.Dense(units, in_units=units, use_bias=False),
        gluon_nn.Activation("relu"),
        gluon_nn.Dense(4, in_units=units),
    )
    mx.random.seed(5)
    gluon_net.initialize(mx.init.Xavier())
    # every unit of the second layer sees its inputs in pairs that cancel but for the roundings
    first = gluon_net[0].weight.data().asnumpy()
    first[1::2] = -first[0::2]
    gluon_net[0].weight.set_data(mx.nd.array(first))
    second = gluon_net[2].weight.data().asnumpy()
    second[:, 1::2] = second[:, 0::2] * (1 + 3e-8 * np.sign(second[:, 0::2]))
    gluon_net[2].weight.set_data(mx.nd.array(second))
    torch_net = nn.Sequential(
        nn.Linear(6, units, bias=False), nn.Tanh(), nn.Linear(units, units, bias=False), nn.ReLU(),
        nn.Linear(units, 4),
    )  # fmt: skip
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    dead = [row for row in report.failures if "dead" in row.detail or "every one" in row.detail]
    wrong = [row for row in report.failures if row not in dead]
    assert not wrong, wrong[0].message


def _envelope_and_moves(name: str) -> tuple[dict, dict, dict]:
    case = project_case(name)
    pairing = pair_leaves(leaves_of(case.gluon_net), leaves_of(case.torch_net))
    subject = Subject(case.gluon_net, case.torch_net, pairing, (case.inputs,), Objective())
    envelope = forward_envelope(subject, train=False)
    exact = subject.run(Side.TORCH, "float64", train=False).named_outputs()
    distances = {}
    for side in (Side.GLUON, Side.TORCH):
        values = subject.run(side, "float32", train=False).named_outputs()
        distances[side] = {
            key: float(np.abs(value - exact[key]).max()) for key, value in values.items()
        }
    return envelope.moves, distances[Side.GLUON], distances[Side.TORCH]


@pytest.mark.parametrize("name", ["lenet", "vgg11"])
def test_the_envelope_is_wide_enough_and_not_much_wider(name: str) -> None:
    moves, gluon, theirs = _envelope_and_moves(name)
    for key, move in moves.items():
        for distance in (gluon[key], theirs[key]):
            assert distance <= 4 * move
            # a bound a thousand times what rounding does would catch nothing
            assert move == 0 or distance > move / 1000


def test_both_distances_from_the_referee_are_in_the_report() -> None:
    case = project_case("lenet")
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, levels=("forward",))
    rows = [row for row in report.rows if row.check == "inherited" and row.dtype == "float32"]
    assert {row.side for row in rows} == {"gluon", "torch"}
    assert all(row.distance is not None and row.distance < 1e-5 for row in rows)
    assert all(row.unit == "envelopes" for row in rows)
