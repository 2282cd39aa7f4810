"""What neither an input nor a weight decides: in a buffer or constant, or made by the forward."""

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
from parity_tests.reporting.report import Report

IDS = np.random.default_rng(0).integers(0, 11, (2, 5))
MANY = np.arange(12)[None]
LOWER = np.tril(np.ones((8, 8)))[None]
Forward = Callable[..., Any]


class GluonNet(gluon.HybridBlock):
    """`function(net, F, rows, constant)` of the rows of two embeddings' tables."""

    def __init__(self, function: Forward, constant: np.ndarray | None) -> None:
        super().__init__()
        self.function = function
        with self.name_scope():
            self.w, self.p = gluon.nn.Embedding(11, 5), gluon.nn.Embedding(12, 5)
            if constant is not None:
                made = mx.nd.array(constant, dtype=constant.dtype)
                self.c = self.params.get_constant("c", made)

    def hybrid_forward(self, F: Any, ids: Any, c: Any = None) -> Any:
        return self.function(self, F, ids, c)


def _on(y: Any, function: Callable[[Any], Any]) -> Any:
    return function(y)


class TorchNet(nn.Module):
    """`function(net, ids)` beside a buffer."""

    def __init__(self, function: Forward, buffer: np.ndarray | None) -> None:
        super().__init__()
        self.function = function
        self.w, self.p = nn.Embedding(11, 5), nn.Embedding(12, 5)
        if buffer is not None:
            self.register_buffer("held", torch.from_numpy(buffer.copy()))

    def forward(self, ids: torch.Tensor) -> Any:
        return self.function(self, ids)


def compared(
    ours: Forward,
    theirs: Forward,
    constant: np.ndarray | None = None,
    buffer: np.ndarray | None = None,
    quick: bool = False,
) -> Report:
    mx.random.seed(0)
    net = GluonNet(ours, constant)
    net.initialize(mx.init.Normal(1))
    return check_parity(net, TorchNet(theirs, buffer), IDS, transfer=True, quick=quick)


def first_of_constant(s: Any, F: Any, ids: Any, c: Any) -> Any:
    return F.broadcast_add(s.w(ids), s.p(F.slice_axis(c, axis=1, begin=0, end=5)))


OURS: dict[str, tuple[Forward, np.ndarray | None]] = {
    "arange": (lambda s, F, i, c: F.broadcast_add(s.w(i), s.p(F.arange(5)).expand_dims(0)), None),
    "arange_like": (
        lambda s, F, i, c: F.broadcast_add(s.w(i), s.p(F.contrib.arange_like(i, axis=1))),
        None,
    ),
    "constant": (first_of_constant, MANY.astype(np.float32)),
}
THEIRS: dict[str, tuple[Forward, np.ndarray | None]] = {
    "buffer": (lambda s, i: s.w(i) + s.p(s.held[:, : i.shape[1]]), MANY),
    "expanded": (lambda s, i: s.w(i) + s.p(s.held[:, :5].expand_as(i)), MANY),
    "arange": (lambda s, i: s.w(i) + s.p(torch.arange(5).expand(i.shape)), None),
    "exact": (lambda s, i: s.w(i) + s.p(s.held), MANY[:, :5]),
}


FEW = {("arange", "buffer"), ("arange_like", "expanded"), ("constant", "arange")}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(a, b, marks=() if (a, b) in FEW else pytest.mark.slow)
        for a in OURS
        for b in THEIRS
    ],
)
def test_places_may_be_held_or_made(ours: str, theirs: str) -> None:
    """As `position_ids` of Hugging Face's models beside `arange`."""
    ((our, constant), (their, buffer)) = OURS[ours], THEIRS[theirs]
    report = compared(our, their, constant, buffer, quick=(ours, theirs) in FEW)
    assert report.ok, str(report)


@pytest.mark.parametrize("held", [np.where(MANY == 4, 3, MANY), MANY + 1])
@pytest.mark.parametrize("ours", ["arange", "constant"])
def test_other_places_are_named(ours: str, held: np.ndarray) -> None:
    our, constant = OURS[ours]
    report = compared(our, THEIRS["buffer"][0], constant, np.minimum(held, 11), quick=True)
    assert not report.ok


def test_one_row_again_and_again_is_that_row() -> None:
    """As the types of tokens, of which there is one."""

    def ours(s: Any, F: Any, ids: Any, c: Any) -> Any:
        return s.w(ids) + s.p(F.zeros_like(ids))

    zeros = np.zeros((1, 12), np.int64)
    for theirs in (
        lambda s, i: s.w(i) + s.p(s.held[:, :5].expand(i.shape)),
        lambda s, i: s.w(i) + s.p.weight[0],
    ):
        assert compared(ours, theirs, buffer=zeros, quick=True).ok
    assert not compared(ours, lambda s, i: s.w(i) + s.p.weight[1], quick=True).ok


SLICED = np.zeros((1, 12), np.float32)
OF_TYPES: dict[str, Forward] = {
    "zeros_like": lambda s, i: s.w(i) + s.p(torch.zeros_like(i)),
    "zeros": lambda s, i: s.w(i) + s.p(torch.zeros(1, 5, dtype=torch.long)),
    "a row": lambda s, i: s.w(i) + s.p.weight[0],
}


@pytest.mark.parametrize("theirs", OF_TYPES)
def test_places_of_one_row_may_be_cut_from_a_constant(theirs: str) -> None:
    report = compared(first_of_constant, OF_TYPES[theirs], SLICED, quick=True)
    assert report.ok, str(report)


@pytest.mark.parametrize("held", [SLICED + 1, MANY.astype(np.float32)])
def test_a_constant_of_other_places_is_found(held: np.ndarray) -> None:
    assert not compared(first_of_constant, OF_TYPES["zeros_like"], held, quick=True).ok


def test_places_of_one_row_may_have_any_axes() -> None:
    def ours(s: Any, F: Any, ids: Any, c: Any) -> Any:
        return F.broadcast_add(s.w(ids), F.expand_dims(s.p(c), 0))

    def theirs(s: Any, ids: torch.Tensor) -> torch.Tensor:
        return s.w(ids) + s.p(s.held)

    zeros = np.zeros((2, 5), np.int64)
    assert compared(ours, theirs, SLICED[0, :5], zeros, quick=True).ok
    assert not compared(ours, theirs, SLICED[0, :5], zeros + 1, quick=True).ok


def once(s: Any, F: Any, ids: Any, c: Any) -> Any:
    y = s.w(ids)
    return F.tanh(y) * F.sigmoid(y)


def both(s: Any, F: Any, ids: Any, c: Any) -> Any:
    return F.sigmoid(s.w(ids)) * F.tanh(s.w(ids))


def again(second: Callable[[Any, torch.Tensor], torch.Tensor]) -> Forward:
    return lambda s, i: s.w(i).tanh() * second(s, i).sigmoid()


TWICE: dict[str, tuple[Forward, Forward]] = {
    "in Gluon": (both, lambda s, i: (lambda y: y.tanh() * y.sigmoid())(s.w(i))),
    "in torch": (once, again(lambda s, i: s.w(i))),
    "by an index": (once, again(lambda s, i: s.w.weight[i])),
    "of flat places": (
        once, again(lambda s, i: s.w.weight.index_select(0, i.flatten()).view(2, 5, 5)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWICE)
def test_a_table_may_be_read_twice_at_the_same_places(name: str) -> None:
    report = compared(*TWICE[name])
    assert report.ok, str(report)


ONE_ID = int(IDS[0, 0])
NOT_TWICE: dict[str, Forward] = {
    "other places": again(lambda s, i: s.w((i + 1) % 11)),
    "other order": again(lambda s, i: s.w(i.flip(1))),
    "another table": again(lambda s, i: s.p(i)),
    "no gradient": again(lambda s, i: s.w(i).detach()),
    "no gradient of a row": again(
        lambda s, i: nn.functional.embedding(i, s.w.weight, padding_idx=ONE_ID)
    ),
    "gradients by count": again(
        lambda s, i: nn.functional.embedding(i, s.w.weight, scale_grad_by_freq=True)
    ),
}


@pytest.mark.parametrize("name", NOT_TWICE)
def test_a_table_read_otherwise_is_found(name: str) -> None:
    assert not compared(once, NOT_TWICE[name]).ok


def of_mask(mask: Callable[[Any, Any], Any]) -> Forward:
    def theirs(s: Any, ids: torch.Tensor) -> torch.Tensor:
        y = s.w(ids)
        return (y @ y.mT).masked_fill(mask(s, y), -1e9).softmax(-1) @ y

    return theirs


def masked(s: Any, F: Any, ids: Any, c: Any) -> Any:
    y = s.w(ids)
    places = F.arange(5)
    seen = F.broadcast_greater_equal(places.reshape((1, 5, 1)), places.reshape((1, 1, 5)))
    scores = F.batch_dot(y, y, transpose_b=True)
    scores = F.where(F.broadcast_to(seen, (2, 5, 5)), scores, F.ones_like(scores) * -1e9)
    return F.batch_dot(F.softmax(scores), y)


MASKS: dict[str, tuple[Callable[[Any, Any], Any], np.ndarray | None]] = {
    "floats": (lambda s, y: s.held[:, :5, :5] == 0, LOWER),
    "booleans": (lambda s, y: ~s.held[:, :5, :5], LOWER > 0),
    "bytes": (lambda s, y: s.held[:, :5, :5].bool().logical_not(), LOWER.astype(np.uint8)),
    "none": (lambda s, y: torch.ones(5, 5, dtype=torch.bool).triu(1), None),
}


@pytest.mark.parametrize(
    "name", [*list(MASKS)[:2], *(pytest.param(n, marks=pytest.mark.slow) for n in list(MASKS)[2:])]
)
def test_a_mask_may_be_held_or_made(name: str) -> None:
    mask, buffer = MASKS[name]
    report = compared(masked, of_mask(mask), buffer=buffer, quick=name != "booleans")
    assert report.ok, str(report)


@pytest.mark.parametrize("held", [1 - LOWER, 0 * LOWER + 1])
def test_another_mask_is_named(held: np.ndarray) -> None:
    assert not compared(masked, of_mask(MASKS["floats"][0]), buffer=held, quick=True).ok


# A table of sines, as a float32 constant and computed in the forward
STEPS = np.exp(np.arange(5) * -0.7)
SINES = np.sin(np.arange(5)[:, None] * STEPS).astype(np.float32)[None]


def sines_of_gluon(s: Any, F: Any, ids: Any, c: Any) -> Any:
    steps = F.exp(F.arange(0, 5) * -0.7)
    places = F.reshape(F.arange(0, 5), shape=(5, 1))
    return F.broadcast_add(s.w(ids), F.expand_dims(F.sin(F.broadcast_mul(places, steps)), 0))


def sines_of_torch(s: Any, ids: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = s.w(ids)
    places = torch.arange(5, dtype=out.dtype)
    return out + torch.sin(places[:, None] * torch.exp(places * -0.7))


SINE_PAIRS: dict[str, Callable[[float], Report]] = {
    "held by Gluon": lambda factor: compared(
        lambda s, F, ids, c: F.broadcast_add(s.w(ids), c), sines_of_torch,
        (SINES * factor).astype(np.float32),
    ),
    "held by torch, computed of a constant": lambda factor: compared(
        lambda s, F, ids, c: F.broadcast_add(
            s.w(ids),
            F.expand_dims(F.sin(F.broadcast_mul(F.reshape(F.arange(0, 5), shape=(5, 1)), c)), 0),
        ),
        lambda s, ids: s.w(ids) + s.held, STEPS.astype(np.float32),
        (SINES * factor).astype(np.float32),
    ),
    "held by torch": lambda factor: compared(
        sines_of_gluon, lambda s, ids: s.w(ids) + s.held, None,
        (SINES * factor).astype(np.float32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINE_PAIRS)
def test_a_table_may_be_held_in_float32_or_computed(name: str) -> None:
    report = SINE_PAIRS[name](1.0)
    assert report.ok, str(report)
    report = SINE_PAIRS[name](1 + 3e-6)
    assert not report.ok
    assert "add" in str(report.first_divergence)


# Beside values of the net, 0.1 or 0.3 as float32 has it, and as the net's code computes it
BESIDE: dict[str, tuple[Forward, Callable[[float], Forward]]] = {
    "concatenated": (
        lambda s, F, ids, c: F.concat(s.w(ids), F.ones((2, 5, 3)) * 0.1, dim=2),
        lambda factor: lambda s, ids: torch.cat(
            [s.w(ids), torch.full((2, 5, 3), 0.1 * factor)], -1
        ),
    ),
    "stacked": (
        lambda s, F, ids, c: F.stack(s.w(ids), F.full((2, 5, 5), 0.3), axis=1),
        lambda factor: lambda s, ids: torch.stack(
            [s.w(ids), torch.ones(2, 5, 5) * 0.1 + 0.2 * factor], 1
        ),
    ),
    "chosen": (
        lambda s, F, ids, c: F.where(s.w(ids) > 0, s.w(ids), F.full((2, 5, 5), 0.1)),
        lambda factor: lambda s, ids: torch.where(
            s.w(ids) > 0, s.w(ids), torch.ones_like(s.w(ids)) / 10 * factor
        ),
    ),
    "joined of two": (
        lambda s, F, ids, c: F.broadcast_mul(
            s.w(ids), F.concat(F.full((1, 1, 2), 0.1), F.full((1, 1, 3), 0.2), dim=2)
        ),
        lambda factor: lambda s, ids: s.w(ids) * torch.cat(
            [torch.ones(2) * 0.1, torch.ones(3) * 0.2 * factor]
        ),
    ),
    "padded": (
        lambda s, F, ids, c: F.concat(s.w(ids), F.full((2, 5, 3), 0.1), dim=2),
        lambda factor: lambda s, ids: nn.functional.pad(s.w(ids), (0, 3), value=0.1 * factor),
    ),
    "padded twice, on several sides": (
        lambda s, F, ids, c: F.concat(
            F.full((2, 1, 8), 0.1), F.concat(s.w(ids), F.ones((2, 5, 3)) * 0.3, dim=2), dim=1
        ),
        lambda factor: lambda s, ids: nn.functional.pad(
            nn.functional.pad(s.w(ids), (0, 3), value=0.1 + 0.2), (0, 0, 1, 0), value=0.1 * factor
        ),
    ),
    "padded by Gluon": (
        lambda s, F, ids, c: F.reshape(
            F.pad(
                F.reshape(s.w(ids), (1, 2, 5, 5)), mode="constant", constant_value=0.7,
                pad_width=(0, 0, 0, 0, 0, 0, 2, 1),
            ),
            (2, 5, 8),
        ),
        lambda factor: lambda s, ids: torch.cat(
            [torch.full((2, 5, 2), 0.7 * factor), s.w(ids), torch.full((2, 5, 1), 0.7)], 2
        ),
    ),
    "filled where a condition fails": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: F.where(y > 0, y, F.full((2, 5, 5), 0.1))),
        lambda factor: lambda s, ids: _on(
            s.w(ids), lambda y: torch.where(y > 0, y, 0.1 * factor)
        ),
    ),
    "masked": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: F.where(y > 0, y, F.full((2, 5, 5), 0.1))),
        lambda factor: lambda s, ids: _on(
            s.w(ids), lambda y: y.masked_fill(y <= 0, 0.1 * factor)
        ),
    ),
    "chosen by arithmetic": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: (y > 0) * y + (1 - (y > 0)) * 0.1),
        lambda factor: lambda s, ids: _on(
            s.w(ids), lambda y: torch.where(y > 0, y, torch.tensor(0.1 * factor))
        ),
    ),
    "a mean of what is kept": (
        lambda s, F, ids, c: _on(
            s.w(ids),
            lambda y: F.broadcast_div(
                F.sum(y * (y > 0.1), axis=1), F.sum(y > 0.1, axis=1) + 1e-5
            ),
        ),
        lambda factor: lambda s, ids: _on(
            s.w(ids),
            lambda y: (y * (y > 0.1)).sum(1) / ((y > 0.1).sum(1) + 1e-5 * factor),
        ),
    ),
    "signs": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: F.sign(y) * F.sqrt(F.abs(y) + 0.1)),
        lambda factor: lambda s, ids: _on(
            s.w(ids),
            lambda y: torch.where(~(y < 0), 1.0, -1.0) * torch.sqrt(y.abs() + 0.1 * factor),
        ),
    ),
    "a slope that torch's operator has": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: F.where(y > 0, y, 0.07 * y)),
        lambda factor: lambda s, ids: nn.functional.leaky_relu(s.w(ids), 0.07 * factor),
    ),
    "beside what only torch computes": (
        lambda s, F, ids, c: _on(s.w(ids), lambda y: F.sin(y) + 0.1),
        lambda factor: lambda s, ids: torch.nan_to_num(torch.cos(s.w(ids) - np.pi / 2))
        + 0.1 * factor,
    ),
    "of steps": (
        lambda s, F, ids, c: F.broadcast_add(s.w(ids), F.reshape(F.arange(5) * 0.1, (1, 1, 5))),
        lambda factor: lambda s, ids: s.w(ids) + torch.linspace(0, 0.4 * factor, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_numbers_of_float32_are_known_wherever_they_are(name: str) -> None:
    ours, theirs = BESIDE[name]
    report = compared(ours, theirs(1.0))
    assert report.ok, str(report)
    assert not compared(ours, theirs(1 + 3e-6)).ok


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinities_make_no_two_arrays_alike() -> None:
    def ours(s: Any, F: Any, ids: Any, c: Any) -> Any:
        parts = F.full((1, 1, 1), -np.inf), F.full((1, 1, 4), 0.1)
        return F.softmax(F.broadcast_add(s.w(ids), F.concat(*parts, dim=2)))

    def theirs(last: float) -> Forward:
        mask = torch.tensor([-np.inf, 0.1, 0.1, 0.1, last])
        return lambda s, ids: (s.w(ids) + mask).softmax(-1)

    assert compared(ours, theirs(0.1)).ok
    assert not compared(ours, theirs(0.2)).ok
