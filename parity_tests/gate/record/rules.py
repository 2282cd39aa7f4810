"""Takes every update rule of a side, alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.base import Backend
from parity_tests.gate.record.noise import DRAWS, NoiseEnvelope, noisy
from parity_tests.gate.record.quantities import Failure, Quantity, SideRecord
from parity_tests.gate.record.sizes import TensorsByKey
from parity_tests.gate.record.subjects import RATE, RULES, drawn
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Check, Level


def record_rules(backend: Backend) -> SideRecord:
    """Every update rule of a side, alone, on one parameter of 64 values, for four steps."""
    record = SideRecord()
    generator = drawn("rules")
    weight = generator.standard_normal(64).astype(np.float32)
    gradients = [generator.standard_normal(64).astype(np.float32) for _ in range(4)]
    for label, rule, make in _rules(backend):
        try:
            run = partial(_updates, backend, label, rule, make)
            record.quantities += [q.record() for q in _rule(run, label, rule, weight, gradients)]
        except Exception as error:
            where = (Level.OPTIMIZER, Check.LOCAL, label, rule.name, "weight")
            record.failures.append(Failure.of(error, *where))
    return record


def _rules(backend: Backend) -> Iterator[tuple[str, Rule, Callable[..., Any]]]:
    """The update rules by what the suite calls them, each with what makes the optimizer.

    The `train` command's first, then the framework's own of the same numbers, which do not clip.
    """
    for prefix, make in backend.optimizers.items():
        for rule in RULES:
            if not prefix or rule.clip is None:
                yield prefix + rule.label, rule, make


def _updates(
    backend: Backend, label: str, rule: Rule, make: Callable[..., Any],
    dtype: str, weight: np.ndarray, gradients: list[np.ndarray],
) -> TensorsByKey:  # fmt: skip
    """One parameter through a rule: slots in the optimizer's own units, and the weight."""
    values: TensorsByKey = {}
    optimized = backend.optimized({"weight": weight.astype(dtype)}, rule, make)
    for step, gradient in enumerate(gradients, 1):
        optimized.set_gradients({"weight": gradient.astype(dtype)})
        optimized.updater.update(RATE[rule.name], 4)
        slots = optimized.updater.slots_of("weight", common_units=False)
        for slot, value in slots.items():
            values[label, f"step {step} weight {slot}"] = value
        values[label, f"step {step} weight"] = optimized.state()["weight"]["weight"]
    return values


def _rule(
    run: Callable[[str, np.ndarray, list[np.ndarray]], TensorsByKey], label: str, rule: Rule,
    weight: np.ndarray, gradients: list[np.ndarray],
) -> Iterator[Quantity]:  # fmt: skip
    double, single = run("float64", weight, gradients), run("float32", weight, gradients)
    envelope = NoiseEnvelope(double)
    for draw in DRAWS:
        gs = [noisy(g, i, draw=draw) for i, g in enumerate(gradients)]
        envelope.widen(run("float64", noisy(weight, "w", draw=draw), gs).items())
    for key, value in double.items():
        limit = envelope.limit(key)
        yield Quantity(
            Level.OPTIMIZER, Check.LOCAL, label, rule.name, key[1], single[key], value, limit
        )  # fmt: skip
