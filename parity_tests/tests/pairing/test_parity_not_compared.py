"""What cannot be compared is said with its cause and what to do, and can be allowed."""

from __future__ import annotations

from typing import Any

import pytest
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import Report, check_parity
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.pairing.nets import (
    GluonNet,
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
