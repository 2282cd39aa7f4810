"""Level scale: two devices compute what one does, and every way in which they would not is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mxnet as mx
import pytest

from gluon_cnn.training import parallel
from parity_tests.__main__ import main
from parity_tests.backends.runs import NET
from parity_tests.backends.training import Batch
from parity_tests.levels.multi_device.data_parallel import DEVICES, SplitTrainee, parts_of
from parity_tests.levels.multi_device.level import MULTI_DEVICE_MODELS, check_multi_device
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.trials import plain_trial, project_trial
from parity_tests.reporting.verdicts import Side


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(n, marks=pytest.mark.slow if n == "alexnet" else ())
        for n in MULTI_DEVICE_MODELS
    ],
)
def test_two_devices_compute_what_one_does(model: str) -> None:
    report = check_multi_device(model, steps=3)
    assert report.ok, report.first_divergence
    checks = {(row.check, row.dtype) for row in report.rows if row.status == "ok"}
    assert {("in turn", "float64"), ("in turn", "float32")} <= checks
    normalised = model == "mnist_bn_cnn"
    assert normalised == bool(report.notes)
    assert normalised != (("whole free-running", "float64") in checks)
    assert normalised != (("whole resynchronised", "float32") in checks)


def test_the_caveat_of_batch_norm_is_measured_and_said() -> None:
    notes = check_multi_device("mnist_bn_cnn", steps=1).notes
    loss = next(row for row in notes if (row.path, row.quantity) == (NET, "loss"))
    assert loss.distance is not None
    assert loss.distance > 1e-3  # halves of 8 and 7 images: no rounding error
    assert "by its own statistics" in loss.diagnosis


def test_the_command_checks_the_three_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--level", "scale", "--model", "lenet"]) == 0
    out = capsys.readouterr().out
    assert "lenet  scale  ok" in out
    assert "100 % of scale gradients" in out


def test_parts_are_of_the_size_that_the_command_gives_each_device() -> None:
    assert parts_of(7) == [slice(0, 4), slice(4, 7)]
    assert parts_of(1) == [slice(0, 1)]


class NotSummed(SplitTrainee):
    """Each device updates by its own gradient."""

    def combining(
        self, values: list[mx.gluon.Parameter], name: str, options: Mapping[str, Any]
    ) -> mx.gluon.Trainer:
        return mx.gluon.Trainer(values, name, dict(options), kvstore=None)


class DividedAgain(SplitTrainee):
    """The sum is divided by the number of devices, as if it were a mean of means."""

    def update_together(self, objective: Any, xs: Any, ys: Any, count: int) -> None:
        super().update_together(objective, xs, ys, count * len(DEVICES))


class UnevenWeights(SplitTrainee):
    """Each device averages its own part, and the averages are averaged."""

    def weighted(self, each: mx.nd.NDArray, count: int) -> mx.nd.NDArray:
        return each * (count / len(DEVICES) / len(each))


class Skips(SplitTrainee):
    """The second device takes no part in the third step."""

    def update_together(self, objective: Any, xs: Any, ys: Any, count: int) -> None:
        if self.count == 3:
            objective(xs[1], ys[1])
            xs, ys = xs[:1], ys[:1]
        super().update_together(objective, xs, ys, count)


class Stale(SplitTrainee):
    """A device without images adds its gradient of the step before, and skips the update."""

    def update_together(self, objective: Any, xs: Any, ys: Any, count: int) -> None:
        kept = parallel.idle
        step = self.trainer.step
        self.trainer.step = lambda size: step(size, ignore_stale_grad=True)
        parallel.idle = lambda *_: None
        try:
            super().update_together(objective, xs, ys, count)
        finally:
            parallel.idle = kept
            del self.trainer.step


class LateStart(SplitTrainee):
    """The Trainer copies the first device's statistics to the others after the first backward."""

    def combining(
        self, values: list[mx.gluon.Parameter], name: str, options: Mapping[str, Any]
    ) -> mx.gluon.Trainer:
        return mx.gluon.Trainer(
            values, name, dict(options), kvstore="device", update_on_kvstore=False
        )


class OneCopyOff(SplitTrainee):
    """The second device's copy of one weight drifts by a unit in the last place."""

    def update_together(self, objective: Any, xs: Any, ys: Any, count: int) -> None:
        super().update_together(objective, xs, ys, count)
        if self.count == 2:
            weight = self.parameter(("7", "weight")).data(DEVICES[1])
            weight[0, 0] = float(weight[0, 0].asscalar()) * (1 + 2.0**-22)


@pytest.mark.parametrize(
    ("fault", "path", "quantity"),
    [
        (NotSummed, "7", "step 1 bias gradient"),
        (DividedAgain, "0", "step 1 weight mom"),
        (UnevenWeights, NET, "step 1 logit gradient"),
        (Skips, NET, "step 3 logits"),
        (Stale, "7", "step 5 bias gradient"),
        (LateStart, "1", "step 1 running_mean"),
        (OneCopyOff, "7", "step 2 weight copies"),
    ],
)
def test_a_fault_is_found_at_its_step_and_tensor(
    fault: type[SplitTrainee], path: str, quantity: str
) -> None:
    trial = plain_trial(4)
    trial.batches = [odd(batch) for batch in trial.batches]
    trial.make[Side.GLUON] = fault
    report = check_multi_device(trial)
    assert not report.ok
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("scale", path, quantity)


def odd(batch: Batch) -> Batch:
    return replace(batch, images=batch.images[:11], labels=batch.labels[:11])


@pytest.mark.parametrize("fault", [NotSummed, DividedAgain, UnevenWeights])
def test_the_whole_batch_shows_the_fault_too(fault: type[SplitTrainee]) -> None:
    trial = project_trial("lenet", 2, batch=7)
    trial.make[Side.GLUON] = SplitTrainee
    assert all(row.status == "ok" for row in free_rows(trial, 2))
    trial.make[Side.GLUON] = fault
    assert any(row.status == "diverged" for row in free_rows(trial, 2))
