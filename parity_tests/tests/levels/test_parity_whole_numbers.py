"""Indices and masks are compared by value, whatever dtype each framework keeps them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import npx
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.pairing.parameters import transfer_parameters
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.pairing.nets import GluonNet, ImperativeNet, TorchNet, initialised

INDEX = [2, 0, 1, 5, 3, 4]
MASK = [1, 0, 1, 1, 0, 1]
LEVELS = ("structure", "weights", "forward")
X = np.random.default_rng(0).standard_normal((2, 4, 5, 5)).astype(np.float32)


class GluonHeld(HybridBlock):
    """A convolution, and its channels in another order or behind a mask."""

    def __init__(self, held: list[int], dtype: str, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        with self.name_scope():
            self.a = gnn.Conv2D(6, 1, in_channels=4)
            shape = (1, 6, 1, 1) if masked else (6,)
            self.held = self.params.get(
                "held", grad_req="null", shape=shape, dtype=dtype, init=mx.init.Zero()
            )
        self.initialize()
        self.held.set_data(mx.nd.array(np.reshape(held, shape), dtype=dtype))

    def hybrid_forward(self, F: Any, x: Any, held: Any) -> Any:
        if self.masked:
            return F.broadcast_mul(self.a(x), F.cast(held, "float32"))
        return F.take(self.a(x), held, axis=1)


class TorchHeld(nn.Module):
    def __init__(self, held: list[int], dtype: torch.dtype, masked: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 6, 1)
        tensor = torch.tensor(held).to(dtype)
        self.register_buffer("held", tensor.reshape(1, 6, 1, 1) if masked else tensor)
        self.masked = masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return y * self.held if self.masked else y.index_select(1, self.held)


DTYPES = [
    ("float32", torch.int64, False),
    ("int32", torch.int64, False),
    ("float32", torch.bool, True),
    ("int32", torch.float32, True),
    ("bool", torch.float32, True),
    ("uint8", torch.int64, True),
]


@pytest.mark.parametrize(("gluon_dtype", "torch_dtype", "masked"), DTYPES)
def test_whole_numbers_of_other_dtypes_are_compared_by_value(
    gluon_dtype: str, torch_dtype: torch.dtype, masked: bool
) -> None:
    held = MASK if masked else INDEX
    gluon = GluonHeld(held, gluon_dtype, masked)
    zeros = TorchHeld([0] * 6, torch_dtype, masked)
    report = check_parity(gluon, zeros, X, transfer=True, levels=LEVELS)
    assert report.ok, report.first_divergence

    theirs = TorchHeld([0] * 6, torch_dtype, masked)
    transfer_parameters(gluon, theirs, [X])
    assert theirs.held.reshape(-1).int().tolist() == held  # type: ignore[operator]
    assert check_parity(gluon, theirs, X, levels=LEVELS).ok

    wrong = list(held)
    wrong[3], wrong[4] = wrong[4], wrong[3]
    other = TorchHeld(wrong, torch_dtype, masked)
    other.a.load_state_dict(theirs.a.state_dict())
    first = check_parity(gluon, other, X, levels=LEVELS).first_divergence
    assert first is not None
    assert first.level == Level.WEIGHTS
    assert ("at (0,3,0,0)" if masked else "at (3)") in first.message
    assert first.diagnosis.startswith("other whole numbers: 2 of 6 differ")


def _chosen(choose: Any) -> tuple[Any, nn.Module]:
    """A net that gives its values and the place of the largest, and one with another choice."""
    gluon = GluonNet(
        lambda s, F, x: (lambda y: (y, F.argmax(y, axis=1)))(s.c(x)),
        c=gnn.Conv2D(4, 1, in_channels=4),
    )
    torch_net = TorchNet(lambda s, x: (lambda y: (y, choose(y)))(s.c(x)), c=nn.Conv2d(4, 4, 1))
    return initialised(gluon, X), torch_net


@pytest.mark.parametrize(
    "choose", [lambda y: y.argmax(1), lambda y: y.argmax(1).float()], ids=["whole", "float"]
)
def test_places_that_a_net_gives_are_compared_by_value(choose: Any) -> None:
    report = check_parity(*_chosen(choose), X, transfer=True)
    assert report.ok, str(report)


def test_another_place_is_found() -> None:
    """Among equal values, so that neither kind nor attributes tell."""
    report = check_parity(*_chosen(lambda y: (y * 1.0001).argmax(1) + 0), X, transfer=True)
    assert report.ok, str(report)
    other = check_parity(*_chosen(lambda y: y.argmax(1).clamp(max=2)), X, transfer=True)
    assert any(row.level == Level.FORWARD for row in other.failures), str(other)


def test_places_alone_send_no_gradient_back() -> None:
    gluon = initialised(GluonNet(lambda s, F, x: F.argmax(x, axis=1)), X)
    report = check_parity(gluon, TorchNet(lambda s, x: x.argmax(1)), X)
    assert report.ok, str(report)
    (note,) = [row for row in report.rows if row.level == Level.BACKWARD]
    assert note.status == Status.NOTE
    assert note.detail.startswith("not compared: nothing to differentiate")


def test_a_fraction_is_no_index() -> None:
    """What a transfer would cut off is found where it was."""
    gluon = GluonHeld(INDEX, "float32", False)
    gluon.held.set_data(gluon.held.data() + mx.nd.array([0, 0, 0.5, 0, 0, 0]))
    report = check_parity(
        gluon, TorchHeld(INDEX, torch.int64, False), X, transfer=True, levels=LEVELS
    )
    first = report.first_divergence
    assert first is not None
    assert first.level == Level.WEIGHTS
    assert "1.5 at (2), expected 1 exactly" in first.message


ROWS = np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)


@pytest.fixture(params=["nd", "np"])
def arrays(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The functions of `mx.nd`, then of `mx.np` with `npx.set_np()` on."""
    if request.param == "nd":
        yield mx.nd
        return
    npx.set_np()
    yield mx.np
    npx.reset_np()


def _picked(A: Any, y: Any) -> Any:
    return (mx.nd if A is mx.nd else npx).pick(y, A.argmax(y, axis=-1))


def _counted(A: Any, y: Any, number: int = 2) -> Any:
    return (y * 9).astype("int32") + A.array([number] * 6, dtype="int32")


# What a net gives beside the values y; `A` has the functions of MXNet's arrays
WHOLE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[torch.Tensor], Any]]] = {
    "a cast": (lambda A, y: (y * 9).astype("int32"), lambda y: (y * 9).int()),
    "a cast of another width": (lambda A, y: (y * 9).astype("int8"), lambda y: (y * 9).long()),
    "places": (lambda A, y: A.argmax(y, axis=-1), lambda y: y.argmax(-1)),
    "places of 32 bits": (lambda A, y: A.argmax(y, axis=-1), lambda y: y.argmax(-1).int()),
    "places as floats": (
        lambda A, y: A.argmax(y, axis=-1), lambda y: y.argmax(-1).to(torch.float32),
    ),
    "a mask": (lambda A, y: y > 0, lambda y: y > 0),
    "a mask of bytes": (lambda A, y: (y > 0).astype("uint8"), lambda y: y > 0),
    "a count": (lambda A, y: (y > 0).sum(axis=-1), lambda y: (y > 0).sum(-1)),
    "a share": (lambda A, y: (y > 0).mean(axis=-1), lambda y: (y > 0).float().mean(-1)),
    "a sum with numbers held": (_counted, lambda y: (y * 9).int() + torch.tensor([2] * 6).int()),
    "what a place picks": (_picked, lambda y: y.gather(-1, y.argmax(-1)[..., None])[..., 0]),
    "what a mask keeps": (lambda A, y: (y > 0) * y, lambda y: (y > 0) * y),
    "what a mask of floats keeps": (lambda A, y: (y > 0) * y, lambda y: (y > 0).to(y.dtype) * y),
}  # fmt: skip


def _beside(ours: Any, theirs: Any, A: Any) -> tuple[Any, nn.Module]:
    """Two nets that give their values and what these functions make of them."""
    gluon = ImperativeNet(
        lambda s, x: (lambda y: (y, ours(A, y)))(s.d(x)),
        d=gnn.Dense(6, flatten=False, in_units=6),
    )
    gluon.initialize(mx.init.Xavier())
    return gluon, TorchNet(lambda s, x: (lambda y: (y, theirs(y)))(s.d(x)), d=nn.Linear(6, 6))


SLOW = pytest.mark.slow
QUICKEST = ("a cast", "a share", "a sum with numbers held", "what a mask keeps")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICKEST else SLOW) for name in WHOLE]
)
def test_whole_numbers_beside_values_are_in_parity(name: str, arrays: Any) -> None:
    gluon, torch_net = _beside(*WHOLE[name], arrays)
    for quick in (False, True):
        report = check_parity(gluon, torch_net, ROWS, transfer=True, quick=quick)
        assert report.ok, str(report)


@pytest.mark.parametrize("quick", [False, True])
def test_another_whole_number_is_named(quick: bool, arrays: Any) -> None:
    for ours, theirs in (
        (_counted, lambda y: (y * 9).int() + torch.tensor([2, 2, 2, 2, 2, 3]).int()),
        (lambda A, y: y > 0, lambda y: y > 1),
    ):
        report = check_parity(*_beside(ours, theirs, arrays), ROWS, transfer=True, quick=quick)
        messages = [row.message for row in report.failures if row.level == Level.FORWARD]
        assert any("exactly" in message for message in messages), str(report)


@SLOW
@pytest.mark.parametrize("alone", [False, True])
def test_graphs_and_files_of_whole_numbers_are_compared(alone: bool) -> None:
    def cast(s: Any, F: Any, x: Any) -> Any:
        y = s.d(x)
        made = (y * 0.01).astype("int32")  # zeros
        return made if alone else (y, made, y > 0)

    def theirs(s: Any, x: torch.Tensor) -> Any:
        y = s.d(x)
        return (y * 0.01).int() if alone else (y, (y * 0.01).int(), y > 0)

    gluon = initialised(GluonNet(cast, d=gnn.Dense(6, flatten=False, in_units=6)), ROWS)
    torch_net = TorchNet(theirs, d=nn.Linear(6, 6))
    report = check_parity(gluon, torch_net, ROWS, transfer=True, levels=["weights", "artefacts"])
    assert report.ok, str(report)


def test_a_net_that_is_not_hybrid_has_no_files() -> None:
    gluon, torch_net = _beside(*WHOLE["a mask"], mx.nd)
    report = check_parity(gluon, torch_net, ROWS, transfer=True, levels=["weights", "artefacts"])
    assert report.ok, str(report)
    assert "ImperativeNet is no HybridBlock" in " ".join(row.detail for row in report.rows)
    assert any(row.path == "d" and row.compared for row in report.rows)  # its leaf is one
