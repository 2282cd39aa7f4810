"""Level optimizer: update rules step by step, slots in common units, weights, learning rates.

Each update of either side is judged on its own, against the rule written out in float64, from that
side's own state before it; and both sides, started equal, must stay equal bit by bit, which is what
`torch_ref.optim` promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_harness.schedule import learning_rate
from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.optimizers import OptimizedParameters, Slots
from parity_tests.levels.optimizer.judged import judged_update
from parity_tests.levels.optimizer.schedules import schedule_rows
from parity_tests.levels.optimizer.tensors import SHAPES, first_weights, gradients
from parity_tests.levels.training.ledger import Ledger
from parity_tests.numerics.compare import compare
from parity_tests.numerics.update_rules import Rule, Update, parsable_rate
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Side

STEPS = 50

# An optimizer over (the framework's parameters, rule)
MakeOptimizer = Callable[..., Any]


@dataclass(frozen=True)
class Course:
    """A rule and the rates it runs at: a schedule of `cnn_harness.schedule` from `rate`."""

    rule: Rule
    schedule: str = "cosine"
    rate: float = 0.1
    warmup: int = 0

    @property
    def label(self) -> str:
        return f"{self.rule.label} {self.schedule}" + (" warmup" if self.warmup else "")

    def rates(self, steps: int) -> list[float]:
        """The rate of each update, by numbers that MXNet reads as they are written."""
        rates = [
            learning_rate(
                self.rate, self.schedule, step, steps,
                warmup_steps=self.warmup, step_every=max(1, steps // 3),
            )
            for step in range(steps)
        ]  # fmt: skip
        return [parsable_rate(rate, self.rule, count) for count, rate in enumerate(rates, 1)]


COURSES = (
    Course(Rule("sgd"), "constant"),
    Course(Rule("sgd", wd=0.013), "step"),
    Course(Rule("sgd", momentum=0.9), "constant"),
    Course(Rule("sgd", momentum=0.9), "cosine", warmup=5),
    Course(Rule("sgd", momentum=0.9, wd=0.013), "linear"),
    Course(Rule("sgd", momentum=0.9, wd=0.013, clip=0.05), "step"),
    Course(Rule("nag", wd=0.013), "linear"),
    Course(Rule("nag", momentum=0.9), "constant"),
    Course(Rule("nag", momentum=0.9), "cosine", warmup=5),
    Course(Rule("nag", momentum=0.3, wd=0.013, clip=0.05), "linear"),
    Course(Rule("adam"), "cosine", rate=0.01),
    Course(Rule("adam", epsilon=1e-3), "constant"),
    Course(Rule("adam", wd=0.013), "step", rate=0.01),
    Course(Rule("adam", beta1=0.3, beta2=0.9, wd=0.013, clip=0.05), "linear", warmup=5),
)


def check_optimizer(
    courses: Sequence[Course] = COURSES,
    *,
    steps: int = STEPS,
    dtypes: Sequence[str] = ("float64", "float32"),
    make: Mapping[Side, MakeOptimizer] | None = None,
    exact: bool = True,
) -> Report:
    """Compare optimizers of both frameworks on the same weights and gradients, step by step.

    `exact` asks for equal bits after every step, as torch_ref.optim promises; without it each
    update is judged alone. `make` has makers of optimizers other than the `train` commands'. The
    report's paths are `RULE SCHEDULE/TENSOR`, and its quantities `step 17 mom`: of each the first
    step that diverged, or else the worst.
    """
    started = time.perf_counter()
    report = Report("optimizers", (Level.OPTIMIZER,))
    for course in courses:
        report.add(*optimizer_rows(course, steps, dtypes, make, exact=exact))
    for schedule in dict.fromkeys(course.schedule for course in courses):
        report.add(*schedule_rows(schedule, steps))
    report.seconds = time.perf_counter() - started
    return report


def optimizer_rows(
    course: Course,
    steps: int = STEPS,
    dtypes: Sequence[str] = ("float64", "float32"),
    make: Mapping[Side, MakeOptimizer] | None = None,
    *,
    exact: bool = True,
) -> tuple[list[Row], Coverage]:
    """The rows of one course: one a check, side, dtype, tensor and slot."""
    coverage = Coverage()
    stages = (*course.rule.slots, "weight")
    for name, shape in SHAPES.items():
        for stage in stages:
            coverage.expect(_group(stage), f"{course.label}/{name} {stage}", int(np.prod(shape)))
    ledger = Ledger()
    for dtype in dtypes:
        sides = [
            backend(side).optimized(first_weights(dtype), course.rule, (make or {}).get(side))
            for side in SIDES
        ]
        last = 0.0
        state = {side.side: side.state() for side in sides}
        for step, rate in enumerate(course.rates(steps), 1):
            update = Update(rate, batch=step % 3 + 3, count=step, last=last)
            last = rate
            drawn = gradients(step, dtype)
            before, state = state, _updated(sides, update, drawn)
            for order, row in _step_rows(course, update, drawn, before, state, exact):
                ledger.add(step, order, row)
    for row in ledger.rows():
        stage = row.quantity.rpartition(" ")[2]
        coverage.done(_group(stage), f"{row.path} {stage}")
    return ledger.rows(), coverage


def _group(stage: str) -> str:
    return "optimizer weights" if stage == "weight" else "optimizer slots"


# A row's place within its step: stage, tensor, check.
_Placed = tuple[tuple[int, int, int], Row]


def _updated(
    sides: Sequence[OptimizedParameters], update: Update, drawn: dict[str, np.ndarray]
) -> dict[Side, Slots]:
    """The state of both sides after one more step."""
    for side in sides:
        side.set_gradients(drawn)
        side.updater.update(update.rate, update.batch)
    return {side.side: side.state() for side in sides}


def _step_rows(
    course: Course,
    update: Update,
    drawn: dict[str, np.ndarray],
    before: dict[Side, Slots],
    after: dict[Side, Slots],
    exact: bool,
) -> Iterator[_Placed]:
    dtype = str(drawn[next(iter(SHAPES))].dtype)
    for tensor, name in enumerate(SHAPES):
        path, equal = f"{course.label}/{name}", exact
        for stage, kind in enumerate((*course.rule.slots, "weight") if exact else ()):
            verdict = compare(after[Side.TORCH][name][kind], after[Side.GLUON][name][kind])
            equal = equal and verdict.ok
            row = Row.judged(
                verdict, level=Level.OPTIMIZER, path=path, quantity=kind, check=Check.EQUAL_BITS,
                side=Side.TORCH, dtype=dtype,
            )  # fmt: skip
            yield (stage, tensor, 2), row
        for place, side in enumerate(after):
            if side == Side.TORCH and equal:
                continue  # what is said of MXNet's values is said of these
            rows = judged_update(
                course.rule, update, before[side][name], drawn[name], after[side][name],
                level=Level.OPTIMIZER, path=path, side=side, check=Check.LOCAL,
            )  # fmt: skip
            for stage, row in enumerate(rows):
                yield (stage, tensor, place), row
