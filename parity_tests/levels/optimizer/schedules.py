"""Learning rates: `cnn_harness.schedule` beside the schedulers that each framework ships.

They count differently. torch's schedulers and `cnn_harness.schedule` start from 0. A Trainer asks
MXNet's for update 1 first, so that its cosine and linear ones never give the full rate, while its
step scheduler does, and takes its first step after as many updates as the others.

Framework specific (mxnet, torch): each scheduler is its framework's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import torch

from cnn_harness.schedule import learning_rate
from parity_tests.levels.diagnosis.updates import explain_rates
from parity_tests.numerics.compare import compare
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Side

_BASE = 0.1
_FACTOR = 0.1

Scheduled = Callable[..., float]


def schedule_rows(
    schedule: str, steps: int, scheduled: Scheduled = learning_rate
) -> tuple[list[Row], Coverage]:
    """The rates of one schedule, of `cnn_harness.schedule` unless told, beside those of each
    framework.

    In float64, in units of u times the base rate: torch's cosine goes on from the last rate.
    """
    every = max(1, steps // 3)
    options = {"step_every": every, "step_factor": _FACTOR}
    ours = np.array([scheduled(_BASE, schedule, step, steps, **options) for step in range(steps)])
    coverage = Coverage()
    coverage.expect("schedules", schedule)
    coverage.done("schedules", schedule)
    rows = []
    for side, rates in (
        (Side.GLUON, _mxnet(schedule, steps, every)),
        (Side.TORCH, _torch(schedule, steps, every)),
    ):
        verdict = compare(ours, rates, scale=_BASE, content="nonzero")
        at = verdict.position[0] + 1 if verdict.position else 1
        row = Row.judged(
            verdict, level=Level.OPTIMIZER, path=f"schedule {schedule}", check=Check.SCHEDULE,
            quantity=f"step {at} rate", side=side, dtype="float64",
            diagnosis="" if verdict.ok else explain_rates(ours, rates),
        )  # fmt: skip
        rows.append(row)
    return rows, coverage


def _mxnet(schedule: str, steps: int, every: int) -> np.ndarray:
    module = mx.lr_scheduler
    if schedule == "step":
        scheduler = module.FactorScheduler(every, factor=_FACTOR, base_lr=_BASE)
        return np.array([scheduler(update) for update in range(1, steps + 1)])
    if schedule == "constant":
        return np.full(steps, _BASE)
    kind = {"linear": module.PolyScheduler, "cosine": module.CosineScheduler}[schedule]
    more = {"pwr": 1} if schedule == "linear" else {}
    scheduler = kind(steps, base_lr=_BASE, **more)
    return np.array([scheduler(update) for update in range(steps)])


def _torch(schedule: str, steps: int, every: int) -> np.ndarray:
    module = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=_BASE)
    makers: dict[str, Callable[[], Any]] = {
        "constant": lambda: module.LambdaLR(optimizer, lambda _: 1.0),
        "step": lambda: module.StepLR(optimizer, every, _FACTOR),
        "linear": lambda: module.PolynomialLR(optimizer, steps, power=1.0),
        "cosine": lambda: module.CosineAnnealingLR(optimizer, steps),
    }
    scheduler = makers[schedule]()
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return np.array(rates)
