"""Modules that write their own running statistics: the statistics are found, run and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxnet import gluon
from mxnet.gluon import nn as gnn
from torch import nn

from mxnet_files import load_symbol
from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.nets import (
    GluonNet,
    ImperativeNet,
    TorchNet,
    initialised,
    random_image,
)
from torch_ref.models.layers import MXBatchNorm2d


@pytest.fixture
def imported(tmp_path: Path) -> tuple[gluon.SymbolBlock, torch.fx.GraphModule]:
    """A net as MXNet opens its files, and as the importer does."""
    net = gnn.HybridSequential()
    net.add(
        gnn.Conv2D(6, 3, in_channels=4),
        gnn.BatchNorm(in_channels=6, momentum=0.8),
        gnn.Activation("relu"),
        gnn.BatchNorm(in_channels=6),
        gnn.Dense(3),
    )
    x = random_image()
    initialised(net, x).hybridize()
    net(mx.nd.array(x))
    net.export(str(tmp_path / "net"))
    files = str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")
    return gluon.SymbolBlock.imports(files[0], ["data"], files[1]), load_symbol(*files)


def running(report: Report) -> set[tuple[str, str]]:
    return {
        (row.path, row.quantity)
        for row in report.rows
        if row.level == Level.BACKWARD and row.quantity.startswith("running_") and row.compared
    }


def test_an_import_is_in_parity_with_the_symbol(imported: Any) -> None:
    symbol, module = imported
    report = check_parity(symbol, module, random_image())
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}
    assert len(running(report)) == 4


def test_another_momentum_in_the_modules_own_code_is_found(imported: Any) -> None:
    symbol, module = imported
    norm = next(m for m in module.modules() if getattr(m, "momentum", 0) == np.float32(0.8))
    norm.momentum, norm.rest = norm.momentum * (1 + 3e-6), norm.rest * (1 - 3e-6)
    report = check_parity(symbol, module, random_image())
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.quantity) == (Level.BACKWARD, "running_mean")
    assert "batchnorm" in first.path


class OwnNorm(nn.BatchNorm2d):
    """Keeps the biased variance, as MXNet on a CPU does, by assignment to what it reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(var, 0.1)
        return F.batch_norm(x, None, None, self.weight, self.bias, True)


@pytest.mark.parametrize("norm", [OwnNorm, MXBatchNorm2d])
def test_statistics_of_a_users_own_norm_are_compared(norm: type[nn.BatchNorm2d]) -> None:
    x = random_image()
    gluon_net = initialised(
        GluonNet(lambda s, F, x: F.relu(s.n(x)), n=gnn.BatchNorm(in_channels=4)), x
    )
    torch_net = TorchNet(lambda s, x: torch.relu(s.n(x)), n=norm(4))
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert report.ok, str(report)
    assert running(report) == {("n", "running_mean"), ("n", "running_var")}


class GluonOwnNorm(gluon.nn.BatchNorm):
    """Writes torch's unbiased variance, in a block that is not hybrid."""

    part = 0.9  # of the old mean that is kept

    def forward(self, x: Any) -> Any:
        own = (self.gamma.data(), self.beta.data(), self.running_mean, self.running_var)
        gamma, beta, mean, var = own
        if not mx.autograd.is_training():
            return mx.nd.BatchNorm(x, gamma, beta, mean.data(), var.data(), **self._kwargs)
        batch = mx.nd.mean(x, axis=1, exclude=True)
        square = mx.nd.mean((x - batch.reshape((1, -1, 1, 1))) ** 2, axis=1, exclude=True)
        count = x.size // x.shape[1]
        y = mx.nd.BatchNorm(
            x, gamma, beta, mx.nd.zeros_like(batch), mx.nd.ones_like(batch), **self._kwargs
        )
        with mx.autograd.pause():
            mean.set_data(mean.data() * self.part + batch * (1 - self.part))
            var.set_data(var.data() * 0.9 + square * (0.1 * count / (count - 1)))
        return y


@pytest.mark.parametrize("part", [0.9, 0.9 + 1e-8])
def test_a_block_that_is_not_hybrid_may_keep_its_own(monkeypatch: Any, part: float) -> None:
    monkeypatch.setattr(GluonOwnNorm, "part", part)
    x = random_image()
    gluon_net = ImperativeNet(lambda s, x: s.n(x).relu(), n=GluonOwnNorm(in_channels=4))
    torch_net = TorchNet(lambda s, x: torch.relu(s.n(x)), n=nn.BatchNorm2d(4))
    report = check_parity(initialised(gluon_net, x), torch_net, x, transfer=True)
    assert report.ok == (part == 0.9), str(report)
    assert running(report) == {("n", "running_mean"), ("n", "running_var")}


class WrittenOut(gluon.Block):
    """A batch norm in steps, which keeps the biased variance, or torch's."""

    def __init__(self, momentum: float = 0.9, unbiased: bool = False) -> None:
        super().__init__()
        self.momentum, self.unbiased = momentum, unbiased
        with self.name_scope():
            self.gamma = self.params.get("gamma", shape=(4,))
            self.beta = self.params.get("beta", shape=(4,))
            self.mean = self.params.get("mean", shape=(4,), grad_req="null", init="zeros")
            self.var = self.params.get("var", shape=(4,), grad_req="null", init="ones")

    def forward(self, x: Any) -> Any:
        mean, var = (p.data() for p in (self.mean, self.var))
        if mx.autograd.is_training():
            mean = x.mean(axis=0)
            var = mx.nd.square(x - mean).mean(axis=0)
            with mx.autograd.pause():
                ratio = len(x) / (len(x) - 1) if self.unbiased else 1
                for kept, new in ((self.mean, mean), (self.var, var * ratio)):
                    kept.set_data(self.momentum * kept.data() + (1 - self.momentum) * new)
        return (x - mean) / mx.nd.sqrt(var + 1e-5) * self.gamma.data() + self.beta.data()


class WrittenOutInTorch(nn.Module):
    """The same with `rsqrt`; its statistics are assigned to the module."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean = x.mean(0)
            var = ((x - mean) ** 2).mean(0)
            with torch.no_grad():
                kept = 1 - self.momentum
                self.running_mean = kept * self.running_mean + self.momentum * mean
                self.running_var = kept * self.running_var + self.momentum * var
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


ROWS = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)


def of_rows(norm: Any) -> Any:
    if isinstance(norm, nn.Module):
        return TorchNet(lambda s, x: s.n(s.d(x)), d=nn.Linear(4, 4), n=norm)
    net = ImperativeNet(lambda s, x: s.n(s.d(x)), d=gnn.Dense(4, in_units=4), n=norm)
    net.initialize(mx.init.Normal(0.5))
    return net


WRITTEN: dict[str, tuple[Any, Any, int]] = {
    "Gluon's": (WrittenOut, lambda: nn.BatchNorm1d(4), 2),
    "Gluon's, with torch's variance": (lambda: WrittenOut(0.9, True), lambda: nn.BatchNorm1d(4), 2),
    "torch's": (lambda: gnn.BatchNorm(in_channels=4), WrittenOutInTorch, 0),
    "both": (WrittenOut, WrittenOutInTorch, 0),
}


@pytest.mark.parametrize(
    "whose",
    [w if w in ("torch's", "both") else pytest.param(w, marks=pytest.mark.slow) for w in WRITTEN],
)
def test_a_norm_that_is_written_out_is_compared_with_its_statistics(whose: str) -> None:
    gluon_norm, torch_norm, named = WRITTEN[whose]
    torch_net = of_rows(torch_norm())
    held = dict(torch_net.named_buffers())
    report = check_parity(of_rows(gluon_norm()), torch_net, ROWS, transfer=True)
    assert report.ok, str(report)
    assert len(running(report)) == 2
    assert len({q for _, q in running(report)} & {"running_mean", "running_var"}) == named
    ratios = [row for row in report.rows if "variance ratio" in row.diagnosis]
    assert bool(ratios) == (whose == "Gluon's"), str(report)
    assert all(buffer is held[name] for name, buffer in torch_net.named_buffers())


@pytest.mark.parametrize(
    ("gluon_norm", "torch_norm"),
    [
        (WrittenOut, lambda: WrittenOutInTorch(0.1 + 1e-8)),
        pytest.param(WrittenOut, lambda: WrittenOutInTorch(eps=1e-4), marks=pytest.mark.slow),
        (lambda: gnn.BatchNorm(in_channels=4), lambda: WrittenOutInTorch(0.1 + 1e-6)),
        (lambda: WrittenOut(0.9 + 1e-8), lambda: nn.BatchNorm1d(4)),
        pytest.param(WrittenOut, lambda: nn.BatchNorm1d(4, eps=1e-4), marks=pytest.mark.slow),
    ],
)
def test_another_norm_than_the_one_written_out_is_found(gluon_norm: Any, torch_norm: Any) -> None:
    report = check_parity(of_rows(gluon_norm()), of_rows(torch_norm()), ROWS, transfer=True)
    assert not report.ok


def test_a_running_variance_below_0_is_compared() -> None:
    """As a file may hold one by rounding; with eps it has a root."""
    net = gluon.nn.BatchNorm(in_channels=4)
    net.initialize()
    net.running_var.set_data(mx.nd.array([1.0, 2.0, -3e-6, 1.0]))
    report = check_parity(net, nn.BatchNorm2d(4), random_image(), transfer=True)
    assert report.ok, str(report)
