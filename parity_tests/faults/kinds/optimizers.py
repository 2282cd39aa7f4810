"""Faults of update rules and schedules, each found at its step, slot and tensor.

Framework specific (mxnet, torch): each fault is an optimizer or a scheduler of one framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mxnet as mx
import torch

from cnn_harness.schedule import learning_rate
from parity_tests.backends.gluon.optimizer import gluon_trainer
from parity_tests.backends.torch.optimizer import torch_optimizer, torchs_own
from parity_tests.faults.base import Detection, Fault, first_detection
from parity_tests.levels.optimizer.schedules import schedule_rows
from parity_tests.levels.optimizer.updates import Course, check_optimizer
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level, Side
from torch_ref import optim

MOMENTUM = Course(Rule("sgd", momentum=0.9, wd=0.013), "step")
ADAM = Course(Rule("adam", wd=0.013, epsilon=1e-3), "constant", rate=0.01)
CLIPPED = Course(Rule("sgd", momentum=0.9, wd=0.5, clip=0.05), "constant")
NESTEROV = Course(Rule("nag", momentum=0.9, wd=0.013), "constant")
PLAIN = Course(Rule("sgd", wd=0.013), "constant")

Group = dict[str, Any]


class EpsilonLate(optim.Adam):
    """torch's place of epsilon: after the bias correction."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        t = self.state[w].get("step", 0) + 1
        late = group["epsilon"] * math.sqrt(1 - group["beta2"] ** t)
        super()._update(w, g, {**group, "epsilon": late})


class NoCorrection(optim.Adam):
    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        t = self.state[w].get("step", 0) + 1
        warm = math.sqrt(1 - group["beta2"] ** t) / (1 - group["beta1"] ** t)
        super()._update(w, g, {**group, "lr": group["lr"] / warm})


class CountsFromZero(optim.Adam):
    """Its second update is corrected as its first."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        t = self.state[w].get("step", 0) + 1
        late = max(1, t - 1)
        warm, wrong = (
            math.sqrt(1 - group["beta2"] ** n) / (1 - group["beta1"] ** n) for n in (t, late)
        )
        super()._update(w, g, {**group, "lr": group["lr"] / warm * wrong})


class Decoupled(optim.Adam):
    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        w.mul_(1 - group["lr"] * group["wd"])
        super()._update(w, g, {**group, "wd": 0.0})


def _with(**numbers: Any) -> type[optim.SGD]:
    """SGD that runs with other numbers than it was given."""

    class Faulty(optim.SGD):
        def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
            super()._update(w, g, {**group, **numbers})

    return Faulty


class Dampened(optim.SGD):
    """torch's `dampening`, which spares the first step."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        first = "mom" not in self.state[w]
        super()._update(
            w, g if first else g * 0.9, {**group, "wd": group["wd"] * (1 if first else 0.9)}
        )


class SlotFromOldWeight(optim.SGD):
    """NAG as it is written in MXNet's documentation: the slot is not computed a second time."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        before, slot = w.clone(), self._slot(w, "mom").clone()
        super()._update(w, g, group)
        lr, mu = group["lr"], group["momentum"]
        slot.mul_(mu).sub_((g * group["rescale_grad"] + before * group["wd"]) * lr)
        self.state[w]["mom"].copy_(slot)


class Stale(optim.SGD):
    """In its 7th step the second parameter's slot is not kept."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        self.count = getattr(self, "count", 0) + 1
        before = self._slot(w, "mom").clone()
        super()._update(w, g, group)
        if self.count == 6 * 5 + 2:
            self.state[w]["mom"].copy_(before)


class Late(optim.SGD):
    """Runs at the rate of the step before."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        rates = self.__dict__.setdefault("rates", {})
        rate, rates[w] = rates.get(w, group["lr"]), group["lr"]
        super()._update(w, g, {**group, "lr": rate})


class DecayClipped(optim.SGD):
    """Clips the gradient after decay was added to it."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        clip = group["clip_gradient"]
        g = (g * group["rescale_grad"] + group["wd"] * w).clamp(-clip, clip)
        plain = {**group, "wd": 0.0, "rescale_grad": 1.0, "clip_gradient": None}
        super()._update(w, g, plain)


class ClippedByNorm(optim.SGD):
    """Scales a gradient whose norm is above the bound, as clip_grad_norm_ does."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        norm = float((g * group["rescale_grad"]).norm())
        scaled = g * min(1.0, group["clip_gradient"] / norm)
        super()._update(w, scaled, {**group, "clip_gradient": None})


class OneWeight(optim.Adam):
    """In its third step one weight of the third parameter comes out 64 units off."""

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        super()._update(w, g, group)
        self.count = getattr(self, "count", 0) + 1
        if self.count == 2 * 5 + 3:
            w.view(-1)[5].mul_(1 + 128 * torch.finfo(w.dtype).eps)


_NUMBERS: dict[Any, tuple[str, ...]] = {
    optim.SGD: ("lr", "momentum", "wd", "nesterov", "clip_gradient"),
    optim.Adam: ("lr", "beta1", "beta2", "epsilon", "wd", "clip_gradient"),
}


def making(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """What makes an optimizer of a faulty class, with the numbers of the right one."""

    def make(parameters: list[torch.nn.Parameter], rule: Rule) -> torch.optim.Optimizer:
        plain = torch_optimizer(parameters, rule)
        numbers = {k: v for k, v in plain.param_groups[0].items() if k != "params"}
        return kind(
            parameters, **{k: v for k, v in numbers.items() if k in _NUMBERS[kind.__base__]}
        )

    return make


def _updated(course: Course, steps: int = 12, **options: Any) -> Callable[[], Detection]:
    return lambda: first_detection(check_optimizer([course], steps=steps, **options))


def _late_schedule() -> Detection:
    def late(base: float, name: str, step: int, total: int, **more: Any) -> float:
        return learning_rate(base, name, max(0, step - 1), total, **more)

    report = Report("schedule", (Level.OPTIMIZER,))
    report.add(*schedule_rows("linear", 48, late))
    return first_detection(report)


def _no_decay_of_biases(parameters: list[Any], rule: Rule) -> mx.gluon.Trainer:
    parameters[1].wd_mult = 0.0
    return gluon_trainer(parameters, rule)


_other = partial(Fault, group="optimizer")


def _fault(
    name: str, course: Course, kind: Any, diagnosis: str, imitates: str, source: str,
    tensor: str = "kernel",
) -> Fault:  # fmt: skip
    where = f"torch optimizer of {course.label}"
    run = _updated(course, make={Side.TORCH: making(kind)})
    path = f"{course.label}/{tensor}"
    return _other(name, where, run, Level.OPTIMIZER, path, diagnosis, imitates, source)


_FOLDED = Course(Rule("sgd", momentum=0.9), "step")

OPTIMIZERS: tuple[Fault, ...] = (
    _fault("epsilon after the correction", ADAM, EpsilonLate, "eps placement",
           "torch's and the paper's first form of Adam",
           "tensorflow/tensorflow issue 9047, pytorch/pytorch issue 41477"),
    _fault("no bias correction", ADAM, NoCorrection, "no bias correction",
           "Adam without its warm-up", "BERT's AdamWeightDecayOptimizer has none"),
    _fault("count from zero", ADAM, CountsFromZero, "step count off by one",
           "a count that is raised after it is used", "resumed runs whose count was not saved"),
    _fault("decoupled weight decay", ADAM, Decoupled, "decoupled weight decay",
           "AdamW for Adam with an L2 term", "Loshchilov and Hutter 2019"),
    _fault("no weight decay", PLAIN, _with(wd=0.0), "no weight decay", "wd lost on the way",
           "torch's weight_decay is 0 by default"),
    _fault("dampened momentum", MOMENTUM, Dampened, "dampening", "torch's dampening, set to 0.1",
           "pytorch/pytorch issue 1099 quotes the rule"),
    _fault("momentum without Nesterov", NESTEROV, _with(nesterov=False),
           "momentum without Nesterov",
           "nesterov=True forgotten", "torch.optim.SGD's default"),
    _fault("slot from the old weight", NESTEROV, SlotFromOldWeight, "NAG slot from the old weight",
           "NAG as it is documented", "MXNet 1.9.1's kernel computes the slot from the weight that "
           "it has overwritten"),
    _fault("slot not kept", MOMENTUM, Stale, "update missed", "a slot that was lost once",
           "states that a checkpoint left out", "kernel bias"),
    _fault("schedule one step late", Course(MOMENTUM.rule, "linear"), Late, "schedule off by one",
           "the scheduler is asked after the update",
           "torch.optim.lr_scheduler's documentation: the order changed in 1.1"),
    _fault("decay clipped with the gradient", CLIPPED, DecayClipped, "decay added before clipping",
           "weight decay added before clipping", "MXNet's Adam does so, its SGD does not"),
    _fault("gradient not clipped", CLIPPED, _with(clip_gradient=None), "no clipping",
           "clip_gradient lost", "torch's optimizers clip nothing"),
    _fault("clipped by norm", CLIPPED, ClippedByNorm, "clipped by norm",
           "clip_grad_norm_ for clip_gradient", "Pascanu et al. 2013 beside MXNet's element-wise "
           "clip_gradient"),
    _fault("one weight off after Adam", ADAM, OneWeight, "single value", "one damaged number",
           "a race in an update in place", "dense"),
    _fault("gradient not divided", PLAIN, _with(rescale_grad=1.0), "factor of B",
           "a summed loss and no rescale_grad", "Trainer.step(batch_size) divides"),
    _other("learning rate outside the slot", "torch optimizer of sgd momentum=0.9 step",
           _updated(_FOLDED, make={Side.TORCH: torchs_own}, exact=False, dtypes=("float32",)),
           Level.OPTIMIZER, f"{_FOLDED.label}/kernel", "learning rate outside the slot",
           "torch.optim.SGD where the rate changes", "apache/mxnet issue 15533"),
    _other("biases not decayed", f"Gluon Trainer of {MOMENTUM.label}",
           _updated(MOMENTUM, steps=3, make={Side.GLUON: _no_decay_of_biases}),
           Level.OPTIMIZER, f"{MOMENTUM.label}/kernel bias", "no weight decay",
           "wd_mult = 0 for biases on one side", "Gluon decays every parameter, biases included"),
    _other("schedule off by one", "cnn_harness.schedule, linear", _late_schedule,
           Level.OPTIMIZER, "schedule linear", "schedule off by one",
           "counting updates from 1 where the other counts from 0",
           "a Trainer asks MXNet's scheduler for update 1 first"),
)  # fmt: skip
