"""Nets on arrays of `mx.np`: written for `npx.set_np()`, or with such arrays inside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import npx
from mxnet.gluon import nn as gnn
from mxnet.gluon import rnn
from torch import nn

import gluon_cnn  # noqa: F401  (settles MXNet's threads)
from parity_tests import check_parity
from parity_tests.backends.files.recorded import read_recording
from parity_tests.backends.files.script import script_of
from parity_tests.cases.weight_files import load_params
from parity_tests.pairing.parameters import map_parameters
from parity_tests.reporting.verdicts import LEVELS, Level, Side, Status
from parity_tests.tests.pairing.nets import GluonNet, ImperativeNet, TorchNet, random_image

X = random_image(2, 3, 6)


@pytest.fixture
def numpy_arrays() -> Iterator[None]:
    npx.set_np()
    yield
    npx.reset_np()


def dense() -> dict[str, Any]:
    return {"d": gnn.Dense(6, flatten=False, in_units=6), "n": gnn.LayerNorm(in_channels=6)}


def linear() -> dict[str, nn.Module]:
    return {"d": nn.Linear(6, 6), "n": nn.LayerNorm(6)}


def normed(s: Any, x: Any) -> Any:
    y = s.d(x) - s.d(x).mean(axis=-1, keepdims=True)
    return y / mx.np.sqrt((y**2).mean(axis=-1, keepdims=True) + 1e-5)


def attention(s: Any, F: Any, x: Any) -> Any:
    y = s.d(x)
    scores = F.npx.softmax(F.np.matmul(y, F.np.swapaxes(y, 1, 2)) / 8.0, axis=-1)
    return s.n(F.np.concatenate([F.np.matmul(scores, y), x], axis=1) + 1.0)


def torch_attention(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.d(x)
    return s.n(torch.cat([torch.softmax(y @ y.mT / 8.0, -1) @ y, x], 1) + 1.0)


# Made inside the test, where `mx.np` is on
EQUAL: dict[str, Any] = {
    "attention, hybridized": lambda: (
        GluonNet(attention, **dense()), TorchNet(torch_attention, **linear())
    ),
    "a norm step by step": lambda: (
        ImperativeNet(normed, **dense()),
        TorchNet(lambda s, x: nn.functional.layer_norm(s.d(x), (6,)), **linear()),
    ),
    "slices, and a number without axes": lambda: (
        ImperativeNet(lambda s, x: s.d(x)[:, 1:] * mx.np.abs(x).max() + x[:, :2], **dense()),
        TorchNet(lambda s, x: s.d(x)[:, 1:] * x.abs().max() + x[:, :2], **linear()),
    ),
    "axes of size 1": lambda: (
        ImperativeNet(lambda s, x: s.d(x)[:, None] - x[..., None, :], **dense()),
        TorchNet(lambda s, x: s.d(x)[:, None] - x[..., None, :], **linear()),
    ),
    "one row": lambda: (
        ImperativeNet(lambda s, x: s.d(x)[0, 1] * x[1, 2], **dense()),
        TorchNet(lambda s, x: s.d(x)[0, 1] * x[1, 2], **linear()),
    ),
    "sums over axes": lambda: (
        ImperativeNet(lambda s, x: mx.np.tensordot(s.d(x), x, axes=([2], [2])), **dense()),
        TorchNet(lambda s, x: torch.tensordot(s.d(x), x, ([2], [2])), **linear()),
    ),
    "no gradient": lambda: (
        ImperativeNet(lambda s, x: s.d(x) * s.d(x).detach(), **dense()),
        TorchNet(lambda s, x: s.d(x) * s.d(x).detach(), **linear()),
    ),
    "a recurrent layer": lambda: (
        ImperativeNet(lambda s, x: s.l(x), l=rnn.GRU(4, input_size=6, layout="NTC")),
        TorchNet(lambda s, x: s.l(x)[0], l=nn.GRU(6, 4, batch_first=True)),
    ),
    "leaf for leaf": lambda: (
        ImperativeNet(lambda s, x: s.e(s.d(x)), d=dense()["d"], e=gnn.Dense(2, in_units=18)),
        nn.Sequential(nn.Linear(6, 6), nn.Flatten(), nn.Linear(18, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_a_net_of_set_np_is_in_parity(name: str, numpy_arrays: None) -> None:
    gluon_net, torch_net = EQUAL[name]()
    gluon_net.initialize(mx.init.Xavier())
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    assert report.ok, str(report)
    assert mx.util.is_np_array()  # as it was
    assert isinstance(gluon_net(mx.np.array(X)), mx.np.ndarray)


def test_it_trains_and_its_graph_is_compared(numpy_arrays: None) -> None:
    gluon_net = GluonNet(lambda s, F, x: F.npx.relu(s.d(x)), d=gnn.Dense(4, in_units=18))
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(lambda s, x: s.d(x.flatten(1)).relu(), d=nn.Linear(18, 4))
    levels = [level for level in LEVELS if level in (Level.OPTIMIZER, Level.TRAINING)]
    report = check_parity(
        gluon_net, torch_net, X, np.array([1, 3]), [*levels, Level.ARTEFACTS],
        transfer=True, optimizer="sgd(lr=0.1, momentum=0.9)", steps=2,
    )  # fmt: skip
    assert report.ok, str(report)


# What MXNet gives no gradient of: as an operator, or in steps on torch's side
LACKING: dict[str, Any] = {
    "np.var": (
        lambda y: mx.np.var(y, axis=-1),
        lambda y: (y - y.mean(-1, keepdim=True)).square().mean(-1),
    ),
    "np.std": (
        lambda y: y + y.std(axis=-1, keepdims=True),
        lambda y: y + y.std(-1, keepdim=True, unbiased=False),
    ),
    "np.percentile": (lambda y: mx.np.percentile(y, 50, axis=-1), lambda y: y.quantile(0.5, -1)),
}


@pytest.mark.parametrize("factor", [1, 1 + 1e-4])
@pytest.mark.parametrize("name", LACKING)
def test_what_mxnet_does_not_differentiate_is_said_in_one_row(
    name: str, factor: float, numpy_arrays: None
) -> None:
    """Its backward pass through `np.var` alone ends the process."""
    ours, theirs = LACKING[name]
    gluon_net = ImperativeNet(lambda s, x: ours(s.d(x)), d=dense()["d"])
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(lambda s, x: theirs(s.d(x)) * factor, d=linear()["d"])
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    (row,) = (row for row in report.rows if row.level == Level.BACKWARD)
    assert row.status == Status.NOT_COMPARED
    assert f"MXNet cannot differentiate `{name}`" in row.detail
    others = {row.level for row in report.failures} - {Level.BACKWARD}
    assert others == (set() if factor == 1 else {Level.STRUCTURE, Level.FORWARD}), str(report)


def test_what_needs_no_gradient_may_be_what_mxnet_does_not_differentiate(
    numpy_arrays: None,
) -> None:
    def forward(s: Any, x: Any) -> Any:
        y = s.d(x)
        with mx.autograd.pause():
            scale = mx.np.var(y)
        return y * scale

    gluon_net = ImperativeNet(forward, d=dense()["d"])
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(lambda s, x: s.d(x) * s.d(x).detach().var(unbiased=False), d=linear()["d"])
    assert check_parity(gluon_net, torch_net, X, transfer=True).ok


# One side reads its input, where the other holds the numbers of this one
READS: dict[str, Any] = {
    "an input without gradient": (lambda x: x.detach(), lambda x: x.detach()),
    "a new axis and back": (lambda x: x[..., None][..., 0], lambda x: x),
    "one row": (lambda x: x[0, 1].reshape((1, 1, 6)), lambda x: x[0, 1].reshape(1, 1, 6)),
    "a product": (lambda x: mx.np.outer(x[0, :, 0], x[1, 0]), lambda x: x[0, :, :1] * x[1, 0]),
}


@pytest.mark.parametrize(
    ("name", "on"),
    # mx.nd has no outer product
    [(name, on) for name in READS for on in (False, True) if on or name != "a product"],
)
def test_a_constant_is_not_the_input_that_it_equals(name: str, on: bool) -> None:
    ours, theirs = READS[name]
    held = theirs(torch.tensor(X))
    with mx.util.np_shape(on), mx.util.np_array(on):
        gluon_net = ImperativeNet(lambda s, x: s.d(x) * _like(ours(x), x), d=dense()["d"])
        gluon_net.initialize(mx.init.Xavier())
        torch_net = TorchNet(lambda s, x: s.d(x) * held, d=nn.Linear(6, 6))
        assert not check_parity(gluon_net, torch_net, X, transfer=True).ok
        torch_net = TorchNet(lambda s, x: s.d(x) * _like(theirs(x), x), d=nn.Linear(6, 6))
        report = check_parity(gluon_net, torch_net, X, transfer=True)
        assert report.ok, str(report)


def _like(y: Any, x: Any) -> Any:
    if y.shape == x.shape:
        return y
    return y.broadcast_to(x.shape) if isinstance(y, mx.nd.NDArray) else y.expand(x.shape)


@pytest.mark.parametrize(("loss", "equal"), [("own", True), ("gluon", True), ("another", False)])
def test_its_loss_is_of_np_too(loss: str, equal: bool, numpy_arrays: None) -> None:
    gluon_net, torch_net = EQUAL["axes of size 1"]()
    gluon_net.initialize(mx.init.Xavier())
    losses = {
        "own": lambda y, label: ((y - label) ** 2).mean() / 2,
        "another": lambda y, label: mx.np.abs(y - label).mean(),
        "gluon": mx.gluon.loss.L2Loss(),
    }
    labels = random_image(2, 2, 3, 6)[:, :1].repeat(3, axis=1)
    theirs = lambda y, label: ((y - label) ** 2).mean() / 2  # noqa: E731
    report = check_parity(
        gluon_net, torch_net, X, labels, ["backward"], transfer=True, loss=(losses[loss], theirs)
    )
    assert report.ok is equal, str(report)


def test_it_is_compared_in_a_process_of_its_own(numpy_arrays: None) -> None:
    gluon_net, torch_net = EQUAL["sums over axes"]()
    gluon_net.initialize(mx.init.Xavier())
    report = check_parity(gluon_net, torch_net, X, transfer=True, isolate=True)
    assert report.ok, str(report)


def test_its_weights_come_from_a_file(tmp_path: Path, numpy_arrays: None) -> None:
    gluon_net, _ = EQUAL["sums over axes"]()
    gluon_net.initialize(mx.init.Xavier())
    gluon_net.save_parameters(str(tmp_path / "w.params"))
    other, _ = EQUAL["sums over axes"]()
    other.initialize(mx.init.Zero())
    load_params(other, str(tmp_path / "w.params"))
    assert (other.d.weight.data() == gluon_net.d.weight.data()).all()


def test_a_fault_is_found_at_its_operation(numpy_arrays: None) -> None:
    gluon_net, _ = EQUAL["attention, hybridized"]()
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(lambda s, x: torch_attention(s, x) * 1.0, **linear())
    torch_net.n = nn.LayerNorm(6, eps=1e-3)
    first = check_parity(gluon_net, torch_net, X, transfer=True).first_divergence
    assert first is not None
    assert (first.level, first.path) == (Level.STRUCTURE, "n")


def test_its_parameters_are_mapped(numpy_arrays: None) -> None:
    gluon_net, torch_net = EQUAL["attention, hybridized"]()
    gluon_net.initialize(mx.init.Xavier())
    names = map_parameters(gluon_net, torch_net, [X])
    assert names["n.weight"] == "n.gamma"


@mx.util.use_np
class Decorated(GluonNet):
    pass


def test_a_class_decorated_by_use_np_is_in_parity() -> None:
    gluon_net = Decorated(attention, **dense())
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(torch_attention, **linear())
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    assert report.ok, str(report)
    assert not mx.util.is_np_array()
    assert not mx.util.is_np_shape()


def test_arrays_of_np_inside_a_net_of_nd() -> None:
    def inside(s: Any, x: Any) -> Any:
        y = s.d(x).as_np_ndarray()
        return mx.np.maximum(mx.np.einsum("nij,nkj->nik", y, y), 0.1).as_nd_ndarray()

    gluon_net = ImperativeNet(inside, d=dense()["d"])
    gluon_net.initialize(mx.init.Xavier())
    torch_net = TorchNet(
        lambda s, x: torch.einsum("nij,nkj->nik", s.d(x), s.d(x)).clamp(min=0.1), d=nn.Linear(6, 6)
    )
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    assert report.ok, str(report)
    assert {"d", "einsum", "clamp"} <= {row.path for row in report.rows}


NET = """
import mxnet as mx
from mxnet import np, npx
from mxnet.gluon import nn

npx.set_np()


class Net(nn.Block):
    def __init__(self):
        super().__init__()
        self.d = nn.Dense(6, flatten=False, in_units=6)
        self.p = nn.Dropout(0.5)

    def forward(self, x):
        return np.tanh(self.p(self.d(x))) * np.abs(x).max()


def net():
    made = Net()
    made.initialize(mx.init.Xavier())
    return made
"""


def test_it_is_recorded_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NET)
    (tmp_path / "record.py").write_text(script_of(Side.GLUON))
    command = [sys.executable, "record.py", "mine:net", "--input", "2,3,6", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recorded = read_recording(tmp_path / "out", Side.GLUON)
    torch_net = TorchNet(
        lambda s, x: s.p(s.d(x)).tanh() * x.abs().max(), d=nn.Linear(6, 6), p=nn.Dropout()
    )
    report = check_parity(recorded, torch_net, recorded.inputs, transfer=True)
    assert report.ok, str(report)
