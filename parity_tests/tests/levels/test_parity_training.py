"""Level training on real digits, and faults that are found at their step, stage and tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gluon_cnn.training.recipes import DEFAULTS, DOCUMENTS
from parity_tests.backends.base import leaves_of
from parity_tests.backends.runs import NET
from parity_tests.backends.torch.trainee import TorchTrainee
from parity_tests.backends.training import Batch, Stages, State
from parity_tests.levels.training.envelope import noise_of, one_ulp
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.level import check_training
from parity_tests.levels.training.resynchronised import resynchronised_rows
from parity_tests.levels.training.trials import plain_trial, project_trial
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Side, Status

NETS = ("lenet", "mnist_bn_cnn", "cifar_cnn", "alexnet", "vgg11")
OFTEN = ("lenet", "mnist_bn_cnn")


def require(report: Report) -> None:
    assert report.ok, str(report)
    assert report.first_divergence is None
    assert set(report.coverage.percent().values()) == {100.0}


def rows_of(report: Report, check: str, dtype: str) -> list[Row]:
    return [row for row in report.rows if (row.check, row.dtype) == (check, dtype)]


# --- parity, on real digits


@pytest.mark.parametrize(
    "model", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in NETS]
)
def test_a_model_trains_as_its_twin_does(model: str) -> None:
    report = check_training(model, steps=10, resynchronised=2)
    require(report)
    groups = {"training weights", "training gradients", "training slots"}
    groups |= {"training buffers"} & set(report.coverage.expected)
    assert set(report.coverage.percent()) == groups
    assert ("training buffers" in groups) == (model == "mnist_bn_cnn")
    for stage in ("logits", "loss", "logit gradient"):
        assert any(row.quantity.endswith(f" {stage}") and row.path == NET for row in report.rows)


def test_a_hundred_steps_in_float64_stay_together() -> None:
    """The slowest drift of all: 1e-13 where 1e-9 is allowed."""
    rows = free_rows(project_trial("lenet", 100), 100)
    assert {row.status for row in rows} == {"ok"}
    assert max(row.error or 0.0 for row in rows) < 1e-12
    assert any(row.compared == 100 * 32 * 10 for row in rows)  # the logits of every step


def test_a_bias_before_batch_norm_wanders_and_is_noted() -> None:
    """Adam divides its gradient, which is rounding alone, by its own size."""
    trial = project_trial("mnist_bn_cnn", 12)
    rows = free_rows(trial, 12, bound=1e-12)
    noted = [row for row in rows if row.status == Status.NOTE]
    assert {(row.path, row.quantity.split()[-1]) for row in noted} <= {
        (f"features.{n}", "bias") for n in (0, 3, 7, 10)
    }
    assert noted
    assert all("rounding" in row.diagnosis for row in noted)
    assert {row.status for row in rows} == {"ok", "note"}  # the running means lose the biases


@pytest.mark.slow
@pytest.mark.parametrize("model", [*NETS, "vgg16", "vgg11_bn", "lenet5", "lenet_sigmoid"])
def test_a_hundred_steps_of_every_kind(model: str) -> None:
    require(check_training(model, steps=100, resynchronised=5))


@pytest.mark.parametrize(
    "recipe",
    [
        DOCUMENTS["doc-1"].replace(dataset="mnist5k", batch_size=16),
        DEFAULTS["cifar_cnn"].replace(
            optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True, wd=5e-4, schedule="step"
        ),
    ],
    ids=["doc-1", "nag"],
)
def test_other_rules_on_a_real_net(recipe: Any) -> None:
    trial = project_trial("cifar_cnn", 8, batch=8, recipe=recipe)
    assert trial.rule.name == ("nag" if recipe.nesterov else "sgd")
    require(check_training(trial, steps=8, resynchronised=2))


def test_dropout_drops_the_same_values() -> None:
    trial = project_trial("alexnet", 3)
    masks = trial.batches[0].masks
    assert len(masks) == 2
    shares = [mask.mean() for mask in masks.values()]
    assert all(0.4 < share < 0.6 for share in shares)
    other = {path: ~mask for path, mask in masks.items()}

    class Elsewhere(TorchTrainee):
        def step(self, batch: Batch) -> Stages:
            return super().step(replace(batch, masks=other))

    trial.make[Side.TORCH] = Elsewhere
    rows = resynchronised_rows(trial, 1)
    assert (rows[0].path, rows[0].quantity, rows[0].side) == (NET, "step 1 logits", Side.TORCH)


@pytest.mark.parametrize("rule", [None, Rule("adam")], ids=["sgd", "adam"])
def test_the_plain_pair_is_in_parity(rule: Rule | None) -> None:
    require(check_training(plain_trial(6, rule), steps=6, resynchronised=3))


# --- the parts


def test_a_step_from_a_loaded_state_is_the_step_that_was() -> None:
    """Whichever framework the state is of: slots, counts and buffers included."""
    for rule in (Rule("adam", wd=0.01), Rule("nag", momentum=0.5), Rule("sgd")):
        trial = plain_trial(3, rule)
        for side in (Side.GLUON, Side.TORCH):
            first, second = trial.trainee(side, "float32"), trial.trainee(side, "float32")
            for batch in trial.batches[:2]:
                first.step(batch)
            second.load(first.state())
            a, b = (trainee.step(trial.batches[2]) for trainee in (first, second))
            assert _equal(a.after, b.after), (rule.label, side)
            assert a.after.count == 3


def _equal(a: State, b: State) -> bool:
    pairs: list[tuple[Any, Any]] = [(a.weights, b.weights), (a.buffers, b.buffers)]
    pairs += [(a.slots[key], b.slots[key]) for key in a.slots]
    return all(np.array_equal(x[k], y[k]) for x, y in pairs for k in x) and len(a.weights) == 8


def test_the_trial_leaves_the_nets_alone() -> None:
    trial = plain_trial(2)
    before = [t.read() for leaf in leaves_of(trial.torch_net) for t in leaf.tensors.values()]
    before += [t.read() for leaf in leaves_of(trial.gluon_net) for t in leaf.tensors.values()]
    check_training(trial, steps=2, resynchronised=1)
    after = [t.read() for leaf in leaves_of(trial.torch_net) for t in leaf.tensors.values()]
    after += [t.read() for leaf in leaves_of(trial.gluon_net) for t in leaf.tensors.values()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_one_ulp_is_one_ulp() -> None:
    x = np.array([1.0, -2.5, 0.1, 3e-5], np.float32)
    moved = one_ulp(x, (1, 2))
    assert moved.dtype == np.float32
    up, down = (np.nextafter(x, np.float32(end)) for end in (np.inf, -np.inf))
    assert ((moved == up) | (moved == down)).all()
    assert not np.array_equal(one_ulp(x, (1, 3)), moved)


def test_the_noise_is_of_the_size_of_rounding() -> None:
    trial = plain_trial(1)
    batch = trial.batches[0]
    noise = noise_of(trial.torch_net, batch.images, replace(trial.objective, labels=batch.labels))
    sizes = [*noise.outputs.values(), *noise.input_gradients.values(), noise.logit_gradient]
    assert noise.outputs["2"] == noise.outputs["4"] == 0.0  # ReLU and flatten round nothing
    assert all(2.0**-24 < size < 1e-4 for size in sizes if size)
    assert sum(size > 0 for size in sizes) >= 8


def test_the_ledger_keeps_the_first_divergence_and_the_worst_step() -> None:
    ledger = Ledger()

    def add(step: int, error: float, path: str = "a", order: int = 0) -> None:
        status = Status.OK if error <= 1 else Status.DIVERGED
        row = Row(
            level=Level.TRAINING,
            path=path,
            quantity="weight",
            status=status,
            error=error,
            bound=1.0,
            compared=5,
            detail="x",
        )
        ledger.add(step, (order,), row)

    for step, error in enumerate((0.1, 0.7, 0.2), 1):
        add(step, error)
    assert not ledger.failed
    for step, error in enumerate((0.1, 2.0, 0.3, 9.0), 1):
        add(step, error, "b", order=2)
        add(step, error, "c", order=1)
    assert ledger.failed
    first, second, worst = ledger.rows()
    assert (first.path, first.quantity, first.compared) == ("c", "step 2 weight", 20)
    assert second.path == "b"
    assert first.detail == "x, and in 1 later steps"
    assert (worst.quantity, worst.compared, worst.detail) == ("step 2 weight", 15, "x")
