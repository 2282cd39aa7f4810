"""Faults in training, each found at its step, stage and tensor, on a small pair of plain nets."""

from __future__ import annotations

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
import torch
from torch import nn

from parity_tests.runs import NET
from parity_tests.trainees import Batch, GluonTrainee, Stages, TorchTrainee
from parity_tests.training_envelope import curve_rows
from parity_tests.training_level import check_training
from parity_tests.trials import plain_trial


class MeanForSum(TorchTrainee):
    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits, labels) / len(labels)


class LabelsShifted(TorchTrainee):
    """From the second step on."""

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits, (labels + (self.count > 1)) % 10)


class GradientHalved(TorchTrainee):
    """The loss is right, and what flows back from it is not."""

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        each = super().loss(logits, labels)
        return each.detach() / 2 + each / 2


class Accumulated(TorchTrainee):
    """Keeps the gradient of the step before in one tensor."""

    def update(self, rate: float, batch: int) -> None:
        self.kept = self.net[5].weight.grad.clone()
        super().update(rate, batch)

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        if self.count > 1:
            self.net[5].weight.grad = self.kept
        return super().loss(logits, labels)


class StaleSlot(TorchTrainee):
    """In the second step the slot of one tensor is not kept."""

    def update(self, rate: float, batch: int) -> None:
        before = self.updater.slots()
        super().update(rate, batch)
        if self.count == 2:
            after = self.updater.slots()
            self.updater.load({**after, "5/bias": before["5/bias"]}, self.count)


class OneWeight(TorchTrainee):
    """In the second step one weight comes out 64 units off."""

    def update(self, rate: float, batch: int) -> None:
        super().update(rate, batch)
        if self.count == 2:
            weight = self.net[5].weight.data
            weight[3, 7] *= 1 + 128 * torch.finfo(weight.dtype).eps


class Frozen(TorchTrainee):
    """One tensor is not handed to the optimizer."""

    def update(self, rate: float, batch: int) -> None:
        before = self.net[7].bias.detach().clone()
        super().update(rate, batch)
        self.net[7].bias.data.copy_(before)


class RateLate(TorchTrainee):
    """Runs at the rate of the step before."""

    def update(self, rate: float, batch: int) -> None:
        late, self.last = getattr(self, "last", rate), rate
        super().update(late, batch)


class StatisticsMissed(TorchTrainee):
    """In the second step BatchNorm does not keep what it saw."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.net[1].running_mean.clone()
        out = super().forward(x)
        if self.count == 2:
            self.net[1].running_mean.copy_(before)
        return out


class Inference(TorchTrainee):
    """BatchNorm left in inference mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.net.eval()
        return super().forward(x)


class Repeated(TorchTrainee):
    """The second step gets the first one's images again."""

    def step(self, batch: Batch) -> Stages:
        if self.count == 0:
            self.first = batch
        return super().step(replace(batch, images=self.first.images) if self.count == 1 else batch)


class GluonDivides(GluonTrainee):
    """Divides by the batch size twice: once more in the loss."""

    def loss(self, logits: mx.nd.NDArray, labels: np.ndarray) -> mx.nd.NDArray:
        return super().loss(logits, labels) / len(labels)


def names(value: object) -> str:
    return getattr(value, "__name__", "")


FAULTS = [
    (MeanForSum, NET, "step 1 loss"),
    (LabelsShifted, NET, "step 2 loss"),
    (GradientHalved, NET, "step 1 logit gradient"),
    (Accumulated, "5", "step 2 weight gradient"),
    (StaleSlot, "5", "step 2 bias mom"),
    (OneWeight, "5", "step 2 weight"),
    (Frozen, "7", "step 1 bias"),
    (RateLate, "0", "step 2 weight mom"),
    (StatisticsMissed, "1", "step 2 running_mean"),
    (Inference, NET, "step 1 logits"),
    (Repeated, NET, "step 2 logits"),
]


@pytest.mark.parametrize(("fault", "path", "quantity"), FAULTS, ids=names)
def test_a_fault_is_found_where_it_is_resynchronised(
    fault: type[TorchTrainee], path: str, quantity: str
) -> None:
    trial = plain_trial(2)
    trial.make_torch = fault
    report = check_training(trial, steps=0, resynchronised=2)
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("training", path, quantity)
    row = next(row for row in report.rows if row.message == first.message)
    assert (row.side, row.dtype, row.check) == ("torch", "float32", "resynchronised")


# One weight 64 units off is within 1e-9 in float64: that takes a bound in units of rounding.
FREE = [fault for fault in FAULTS if fault[0] is not OneWeight]


@pytest.mark.parametrize(("fault", "path", "quantity"), FREE, ids=names)
def test_a_fault_is_found_where_it_is_running_free(
    fault: type[TorchTrainee], path: str, quantity: str
) -> None:
    trial = plain_trial(4)
    trial.make_torch = fault
    report = check_training(trial, steps=4, resynchronised=0, dtypes=("float64",))
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("training", path, quantity)


def test_a_fault_of_the_gluon_side_is_named_as_gluons() -> None:
    trial = plain_trial(1)
    trial.make_gluon = GluonDivides
    report = check_training(trial, steps=0, resynchronised=1)
    first = report.failures[0]
    assert (first.path, first.quantity, first.side) == (NET, "step 1 loss", "gluon")


def test_the_unbiased_variance_of_torchs_own_batch_norm_is_found() -> None:
    report = check_training(plain_trial(1, norm=nn.BatchNorm2d), steps=0, resynchronised=1)
    first = report.first_divergence
    assert first is not None
    assert (first.path, first.quantity) == ("1", "step 1 running_var")


def test_a_rate_one_percent_off_leaves_the_envelope_of_the_loss() -> None:
    class Fast(TorchTrainee):
        def update(self, rate: float, batch: int) -> None:
            super().update(rate * 1.01, batch)

    trial = plain_trial(5)
    (row,) = curve_rows(trial, 5)
    assert row.status == "ok"
    trial.make_torch = Fast
    (row,) = curve_rows(trial, 5)
    assert (row.status, row.quantity) == ("diverged", "step 2 loss")
