"""Level optimizer: fifty equal steps of every rule, and faults found at their step and tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mxnet as mx
import pytest
import torch

from cnn_harness.schedule import SCHEDULES, learning_rate
from parity_tests.backends.gluon.optimizer import gluon_trainer
from parity_tests.backends.torch.optimizer import torchs_own
from parity_tests.faults.kinds import optimizers as faulty
from parity_tests.levels.optimizer.schedules import schedule_rows
from parity_tests.levels.optimizer.updates import COURSES, Course, check_optimizer
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side

# --- parity


def test_every_rule_agrees_for_fifty_steps_bit_by_bit() -> None:
    report = check_optimizer()
    assert report.ok, str(report)
    assert report.coverage.percent() == {
        "optimizer weights": 100.0,
        "optimizer slots": 100.0,
        "schedules": 100.0,
    }
    rules = {(c.rule.name, bool(c.rule.momentum), bool(c.rule.wd), c.rule.clip) for c in COURSES}
    assert len(rules) >= 10
    assert {c.schedule for c in COURSES} == set(SCHEDULES)
    exact = [row for row in report.rows if row.check == "equal bits"]
    assert {row.error for row in exact} == {0.0}
    assert {row.dtype for row in exact} == {"float32", "float64"}
    # what the rule written in float64 allows is hardly used: it describes MXNet's update
    local = [row for row in report.rows if row.check == "local"]
    assert local
    assert all((row.error or 0.0) < 8 for row in local)


def test_one_step() -> None:
    report = check_optimizer(COURSES[-4:], steps=1)
    assert report.ok, str(report)
    assert all(row.quantity.startswith("step 1 ") for row in report.rows)


@pytest.mark.parametrize("name", ["sgd", "nag"])
def test_torchs_own_momentum_is_the_same_rule_at_a_constant_rate(name: str) -> None:
    """Its buffer, times −lr, is MXNet's slot."""
    course = Course(Rule(name, momentum=0.9), "constant")
    report = check_optimizer(
        [course], make={Side.TORCH: torchs_own}, exact=False, dtypes=("float32",)
    )
    assert report.ok, str(report)


# --- schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_is_the_one_that_both_frameworks_ship(schedule: str) -> None:
    rows, coverage = schedule_rows(schedule, 50)
    assert [row.status for row in rows] == ["ok", "ok"]
    assert not coverage.missing()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "step"])
def test_a_schedule_off_by_one_is_seen(schedule: str) -> None:
    def late(base: float, name: str, step: int, total: int, **more: Any) -> float:
        return learning_rate(base, name, max(0, step - 1), total, **more)

    rows, _ = schedule_rows(schedule, 48, late)
    assert [row.status for row in rows] == ["diverged", "diverged"]
    if schedule == "step":
        assert rows[0].quantity == "step 17 rate"


# --- faults: each in torch's optimizer unless it says otherwise, each found where it is


@pytest.mark.parametrize(
    ("course", "kind", "path", "quantity"),
    [
        (faulty.ADAM, faulty.EpsilonLate, "kernel", "step 1 weight"),
        (faulty.ADAM, faulty.NoCorrection, "kernel", "step 1 weight"),
        (faulty.ADAM, faulty.Decoupled, "kernel", "step 1 mean"),
        (faulty.ADAM, faulty.OneWeight, "dense", "step 3 weight"),
        (faulty.MOMENTUM, faulty.Dampened, "kernel", "step 2 mom"),
        (faulty.MOMENTUM, faulty.Stale, "kernel bias", "step 7 mom"),
        (
            faulty.MOMENTUM,
            faulty.Late,
            "kernel",
            "step 5 mom",
        ),  # of 12 steps, the first at another rate
        (replace(faulty.MOMENTUM, schedule="linear"), faulty.Late, "kernel", "step 2 mom"),
        (
            Course(Rule("sgd", momentum=0.9, wd=0.5, clip=0.05), "constant"),
            faulty.DecayClipped,
            "kernel",
            "step 1 mom",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_found_at_its_step_and_tensor(
    course: Course, kind: type[torch.optim.Optimizer], path: str, quantity: str
) -> None:
    report = check_optimizer([course], steps=12, make={Side.TORCH: faulty.making(kind)})
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path) == ("optimizer", f"{course.label}/{path}")
    assert first.quantity == quantity
    row = next(row for row in report.rows if row.message == first.message)
    assert row.side == "torch"
    assert row.check == "local"  # by the rule, and not only because the two differ


def test_the_rate_outside_the_slot_is_found_where_the_rate_changes() -> None:
    course = Course(Rule("sgd", momentum=0.9), "step")
    report = check_optimizer(
        [course], steps=12, make={Side.TORCH: torchs_own}, exact=False, dtypes=("float32",)
    )
    first = report.first_divergence
    assert first is not None
    assert first.quantity == "step 5 mom"


def test_a_fault_of_the_gluon_side_is_named_as_gluons() -> None:
    def no_decay_of_biases(parameters: list[mx.gluon.Parameter], rule: Rule) -> mx.gluon.Trainer:
        parameters[1].wd_mult = 0.0
        return gluon_trainer(parameters, rule)

    report = check_optimizer([faulty.MOMENTUM], steps=3, make={Side.GLUON: no_decay_of_biases})
    first = report.failures[0]
    assert (first.path, first.quantity) == (f"{faulty.MOMENTUM.label}/kernel bias", "step 1 mom")
    assert (first.side, first.check) == ("gluon", "local")


def test_no_courses_are_no_parity() -> None:
    report = check_optimizer([])
    assert not report.ok
    assert report.first_divergence is not None
