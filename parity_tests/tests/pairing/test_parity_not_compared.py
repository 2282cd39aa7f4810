"""What cannot be compared is said with its cause and what to do, and can be allowed."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import Report, check_parity
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.pairing.nets import (
    GluonNet,
    ImperativeNet,
    TorchNet,
    initialised,
    random_image,
)


def conv(outputs: int = 4, **options: Any) -> gnn.Conv2D:
    return gnn.Conv2D(outputs, 1, in_channels=4, **options)


def causes(report: Report) -> set[str]:
    """Why the report failed, if only by what was not compared."""
    assert {row.status for row in report.failures} == {Status.NOT_COMPARED}, str(report)
    return {row.detail for row in report.failures}


@pytest.mark.parametrize("whole", [True, False], ids=["layer for layer", "with a function"])
def test_a_norm_of_single_values_says_why_it_does_not_train(whole: bool) -> None:
    x = random_image(1, 4, 1, 1)
    gluon_net = GluonNet(
        lambda s, F, x: s.n(s.c(x) if whole else F.tanh(s.c(x))),
        c=conv(), n=gnn.BatchNorm(in_channels=4),
    )  # fmt: skip
    torch_net = TorchNet(
        lambda s, x: s.n(s.c(x) if whole else s.c(x).tanh()),
        c=nn.Conv2d(4, 4, 1), n=nn.BatchNorm2d(4),
    )  # fmt: skip
    initialised(gluon_net, x)
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert causes(report)
    for cause in causes(report):
        assert cause.startswith("torch did not run: a norm is given one value a channel")
        assert "use a larger batch or map" in cause
    allow = {"(net)": "it is used as it is"}
    report = check_parity(gluon_net, torch_net, x, transfer=True, allow=allow)
    assert report.ok, str(report)
    assert {row.level for row in report.allowed} == {Level.FORWARD, Level.BACKWARD}
    larger = random_image(2, 4, 3, 3)
    assert check_parity(gluon_net, torch_net, larger, transfer=True).ok


def in_numpy(function: Any = np.tanh) -> tuple[Any, nn.Module]:
    """A pair whose step between two layers is numpy's."""
    gluon_net = ImperativeNet(
        lambda s, x: s.d(mx.nd.array(function(s.c(x).asnumpy()))), c=conv(), d=conv()
    )
    torch_net = TorchNet(
        lambda s, x: s.d(torch.from_numpy(function(s.c(x).detach().numpy()))),
        c=nn.Conv2d(4, 4, 1), d=nn.Conv2d(4, 4, 1),
    )  # fmt: skip
    return initialised(gluon_net, random_image()), torch_net


def test_a_step_in_numpy_is_said_with_its_line_and_layers_are_compared() -> None:
    gluon_net, torch_net = in_numpy()
    report = check_parity(gluon_net, torch_net, random_image(), transfer=True)
    (cause,) = causes(report)
    assert cause.startswith(f"Gluon hands values to numpy ({__file__}:")
    assert "write that step with Gluon's operators" in cause
    assert {row.path for row in report.rows if row.compared} >= {"c", "d"}
    allow = {"(net)": "tanh in numpy on both sides"}
    report = check_parity(gluon_net, torch_net, random_image(), transfer=True, allow=allow)
    assert report.ok, str(report)
    assert {row.level for row in report.allowed} >= {Level.STRUCTURE, Level.BACKWARD}
    first = check_parity(gluon_net, torch_net, random_image(), allow=allow).first_divergence
    assert first is not None
    assert (first.level, first.path) == ("weights", "c")


@pytest.mark.parametrize(
    "function",
    [
        lambda y: torch.from_numpy(np.tanh(y.detach().numpy())),
        lambda y: torch.tensor(np.tanh(np.asarray(y.detach()))),
        lambda y: torch.tensor(y.detach().tolist()).tanh(),
    ],
    ids=["numpy", "asarray", "tolist"],
)
def test_a_step_in_numpy_of_torch_alone_is_said_too(function: Any) -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: F.tanh(s.c(x)), c=conv()), x)
    torch_net = TorchNet(lambda s, x: function(s.c(x)), c=nn.Conv2d(4, 4, 1))
    (cause,) = causes(check_parity(gluon_net, torch_net, x, transfer=True))
    assert cause.startswith("torch hands values to numpy (")


def test_what_is_only_looked_at_in_numpy_changes_nothing() -> None:
    def looked_at(s: Any, F: Any, x: Any) -> Any:
        y = s.c(x)
        assert np.isfinite(y.asnumpy()).all()
        return F.tanh(y)

    def and_in_torch(s: Any, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = s.c(x)
        assert np.isfinite(y.detach().numpy()).all()
        return y.tanh()

    x = random_image()
    gluon_net = initialised(GluonNet(looked_at, c=conv()), x)
    report = check_parity(gluon_net, TorchNet(and_in_torch, c=nn.Conv2d(4, 4, 1)), x, transfer=True)
    assert report.ok, str(report)


def test_an_array_that_is_made_after_a_look_in_numpy_is_named() -> None:
    def forward(s: Any, x: Any) -> Any:
        y = s.c(x)
        assert np.isfinite(y.asnumpy()).all()
        scale = mx.nd.array(np.arange(4.0).reshape(1, 4, 1, 1))
        return y * scale

    line, x = forward.__code__.co_firstlineno, random_image()
    scale = torch.arange(4.0).reshape(1, 4, 1, 1)
    torch_net = TorchNet(lambda s, x: s.c(x) * scale, c=nn.Conv2d(4, 4, 1))
    gluon_net = initialised(ImperativeNet(forward, c=conv()), x)
    (cause,) = causes(check_parity(gluon_net, torch_net, x, transfer=True))
    assert (
        f"{__file__}:{line + 2}, before an array that no operator made: {__file__}:{line + 3})"
        in cause
    )
    assert "or make the array before where it is made of something else" in cause


class GivesNone(gluon.HybridBlock):
    """A layer of the user's own with a second output that is absent, as attention weights are."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.tanh(x), None


class TorchGivesNone(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x.tanh(), None


@pytest.mark.parametrize("masked", [True, False])
def test_a_layer_may_give_nothing_beside_its_output(masked: bool) -> None:
    x = random_image()
    gluon_net = GluonNet(
        lambda s, F, x: s.d(s.o(s.p(s.c(x))[0])), c=conv(), p=GivesNone(), o=gnn.Dropout(0.5),
        d=conv(),
    )  # fmt: skip
    torch_net = TorchNet(
        lambda s, x: s.d(s.o(s.p(s.c(x))[0])), c=nn.Conv2d(4, 4, 1), p=TorchGivesNone(),
        o=nn.Dropout(0.5), d=nn.Conv2d(4, 4, 1),
    )  # fmt: skip
    masks = {"o": np.random.default_rng(0).random(x.shape) < 0.5} if masked else None
    report = check_parity(initialised(gluon_net, x), torch_net, x, transfer=True, masks=masks)
    assert report.ok, str(report)
