"""Level optimizer: fifty equal steps of every rule, and faults found at their step and tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mxnet as mx
import pytest
import torch

from harness.schedule import SCHEDULES, learning_rate
from parity_tests.optimizer_level import COURSES, Course, check_optimizer
from parity_tests.optimizer_rules import Rule
from parity_tests.schedules import schedule_rows
from parity_tests.updaters import gluon_trainer, torch_optimizer, torchs_own
from torch_ref import optim

MOMENTUM = Course(Rule("sgd", momentum=0.9, wd=0.013), "step")
ADAM = Course(Rule("adam", wd=0.013, epsilon=1e-3), "constant", rate=0.01)


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
    report = check_optimizer([course], make_torch=torchs_own, exact=False, dtypes=("float32",))
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


class _EpsilonLate(optim.Adam):
    """torch's place of epsilon: after the bias correction."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        t = self.state[w].get("step", 0) + 1
        late = group["epsilon"] * math.sqrt(1 - group["beta2"] ** t)
        super()._update(w, g, {**group, "epsilon": late})


class _NoCorrection(optim.Adam):
    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        t = self.state[w].get("step", 0) + 1
        warm = math.sqrt(1 - group["beta2"] ** t) / (1 - group["beta1"] ** t)
        super()._update(w, g, {**group, "lr": group["lr"] / warm})


class _Decoupled(optim.Adam):
    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        w.mul_(1 - group["lr"] * group["wd"])
        super()._update(w, g, {**group, "wd": 0.0})


class _Dampened(optim.SGD):
    """torch's `dampening`, which spares the first step."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        first = "mom" not in self.state[w]
        super()._update(w, g if first else g * 0.9, group)


class _Stale(optim.SGD):
    """In its 7th step the second parameter's slot is not kept."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        self.count = getattr(self, "count", 0) + 1
        before = self._slot(w, "mom").clone()
        super()._update(w, g, group)
        if self.count == 6 * 5 + 2:
            self.state[w]["mom"].copy_(before)


class _Late(optim.SGD):
    """Runs at the rate of the step before."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        rates = self.__dict__.setdefault("rates", {})
        rate, rates[w] = rates.get(w, group["lr"]), group["lr"]
        super()._update(w, g, {**group, "lr": rate})


class _DecayClipped(optim.SGD):
    """Clips the gradient after decay was added to it."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        clip = group["clip_gradient"]
        g = (g * group["rescale_grad"] + group["wd"] * w).clamp(-clip, clip)
        plain = {**group, "wd": 0.0, "rescale_grad": 1.0, "clip_gradient": None}
        super()._update(w, g, plain)


class _OneWeight(optim.Adam):
    """In its third step one weight of the third parameter comes out 64 units off."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        super()._update(w, g, group)
        self.count = getattr(self, "count", 0) + 1
        if self.count == 2 * 5 + 3:
            w.view(-1)[5].mul_(1 + 128 * torch.finfo(w.dtype).eps)


def _making(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    def make(parameters: list[torch.nn.Parameter], rule: Rule) -> torch.optim.Optimizer:
        plain = torch_optimizer(parameters, rule)
        numbers = {k: v for k, v in plain.param_groups[0].items() if k != "params"}
        return kind(parameters, **{k: v for k, v in numbers.items() if k in _TAKEN[kind.__base__]})

    return make


_TAKEN: dict[Any, tuple[str, ...]] = {
    optim.SGD: ("lr", "momentum", "wd", "nesterov", "clip_gradient"),
    optim.Adam: ("lr", "beta1", "beta2", "epsilon", "wd", "clip_gradient"),
}


@pytest.mark.parametrize(
    ("course", "kind", "path", "quantity"),
    [
        (ADAM, _EpsilonLate, "kernel", "step 1 weight"),
        (ADAM, _NoCorrection, "kernel", "step 1 weight"),
        (ADAM, _Decoupled, "kernel", "step 1 mean"),
        (ADAM, _OneWeight, "dense", "step 3 weight"),
        (MOMENTUM, _Dampened, "kernel", "step 2 mom"),
        (MOMENTUM, _Stale, "kernel bias", "step 7 mom"),
        (MOMENTUM, _Late, "kernel", "step 5 mom"),  # of 12 steps, the first at another rate
        (replace(MOMENTUM, schedule="linear"), _Late, "kernel", "step 2 mom"),
        (
            Course(Rule("sgd", momentum=0.9, wd=0.5, clip=0.05), "constant"),
            _DecayClipped,
            "kernel",
            "step 1 mom",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_found_at_its_step_and_tensor(
    course: Course, kind: type[torch.optim.Optimizer], path: str, quantity: str
) -> None:
    report = check_optimizer([course], steps=12, make_torch=_making(kind))
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
        [course], steps=12, make_torch=torchs_own, exact=False, dtypes=("float32",)
    )
    first = report.first_divergence
    assert first is not None
    assert first.quantity == "step 5 mom"


def test_a_fault_of_the_gluon_side_is_named_as_gluons() -> None:
    def no_decay_of_biases(parameters: list[mx.gluon.Parameter], rule: Rule) -> mx.gluon.Trainer:
        parameters[1].wd_mult = 0.0
        return gluon_trainer(parameters, rule)

    report = check_optimizer([MOMENTUM], steps=3, make_gluon=no_decay_of_biases)
    first = report.failures[0]
    assert (first.path, first.quantity) == (f"{MOMENTUM.label}/kernel bias", "step 1 mom")
    assert (first.side, first.check) == ("gluon", "local")


def test_a_gradient_that_is_not_divided_is_seen() -> None:
    class Summed(optim.SGD):
        def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
            super()._update(w, g, {**group, "rescale_grad": 1.0})

    course = Course(Rule("sgd", wd=0.013), "constant")
    report = check_optimizer([course], steps=2, make_torch=_making(Summed))
    first = report.first_divergence
    assert first is not None
    assert first.quantity == "step 1 weight"


def test_no_courses_are_no_parity() -> None:
    report = check_optimizer([])
    assert not report.ok
    assert report.first_divergence is not None
