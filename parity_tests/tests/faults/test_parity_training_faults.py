"""Faults in training, each found at its step, stage and tensor, on a small pair of plain nets."""

from __future__ import annotations

import pytest
from torch import nn

from parity_tests.backends.runs import NET
from parity_tests.backends.torch.trainee import TorchTrainee
from parity_tests.faults.kinds.training import TRAINEES, GluonDivides, OneWeight
from parity_tests.levels.training.envelope import curve_rows
from parity_tests.levels.training.level import check_training
from parity_tests.levels.training.trials import plain_trial
from parity_tests.reporting.verdicts import Side


def names(value: object) -> str:
    return getattr(value, "__name__", "")


# The catalogue plants all of them, resynchronised; here every seventh, and all with -m slow.
CASES = [
    pytest.param(*fault, marks=() if number % 7 == 0 else pytest.mark.slow)
    for number, fault in enumerate(TRAINEES)
]


@pytest.mark.parametrize(("fault", "path", "quantity"), CASES, ids=names)
def test_a_fault_is_found_where_it_is_resynchronised(
    fault: type[TorchTrainee], path: str, quantity: str
) -> None:
    trial = plain_trial(2)
    trial.make[Side.TORCH] = fault
    report = check_training(trial, steps=0, resynchronised=2)
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("training", path, quantity)
    row = next(row for row in report.rows if row.message == first.message)
    assert (row.side, row.dtype, row.check) == ("torch", "float32", "resynchronised")


# One weight 64 units off is within 1e-9 in float64: that takes a bound in units of rounding.
FREE = [
    pytest.param(*fault, marks=() if number % 3 == 0 else pytest.mark.slow)
    for number, fault in enumerate(TRAINEES)
    if fault[0] is not OneWeight
]


@pytest.mark.parametrize(("fault", "path", "quantity"), FREE, ids=names)
def test_a_fault_is_found_where_it_is_running_free(
    fault: type[TorchTrainee], path: str, quantity: str
) -> None:
    trial = plain_trial(4)
    trial.make[Side.TORCH] = fault
    report = check_training(trial, steps=4, resynchronised=0, dtypes=("float64",))
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("training", path, quantity)


def test_a_fault_of_the_gluon_side_is_named_as_gluons() -> None:
    trial = plain_trial(1)
    trial.make[Side.GLUON] = GluonDivides
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
    trial.make[Side.TORCH] = Fast
    (row,) = curve_rows(trial, 5)
    assert (row.status, row.quantity) == ("diverged", "step 2 loss")
