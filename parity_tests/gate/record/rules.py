"""Takes every update rule of a side, alone."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from parity_tests.gate.record.noise import DRAWS, Moves, noisy
from parity_tests.gate.record.quantities import Failure, Quantity, Taken
from parity_tests.gate.record.sizes import Found
from parity_tests.gate.record.subjects import drawn
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Check, Level

__all__ = ["take_rules"]


def take_rules(border: ModuleType) -> Taken:
    """Every update rule of a side, alone, on one parameter of 64 values, for four steps."""
    taken = Taken()
    generator = drawn("rules")
    weight = generator.standard_normal(64).astype(np.float32)
    gradients = [generator.standard_normal(64).astype(np.float32) for _ in range(4)]
    for label, rule in border.rules():
        try:
            taken.quantities += [q.kept() for q in _rule(border, label, rule, weight, gradients)]
        except Exception as error:
            where = (Level.OPTIMIZER, Check.LOCAL, label, rule.name, "weight")
            taken.failures.append(Failure.of(error, *where))
    return taken


def _rule(
    border: ModuleType, label: str, rule: Rule, weight: np.ndarray, gradients: list[np.ndarray]
) -> Iterator[Quantity]:
    def run(dtype: str, w: np.ndarray, gs: list[np.ndarray]) -> Found:
        made = border.updates(label, rule, w, gs, dtype)
        return {(label, f"step {n} {name}"): value for n, name, value in made}

    double, single = run("float64", weight, gradients), run("float32", weight, gradients)
    moves = Moves(double)
    for draw in DRAWS:
        gs = [noisy(g, i, draw=draw) for i, g in enumerate(gradients)]
        moves.widen(run("float64", noisy(weight, "w", draw=draw), gs).items())
    for key, value in double.items():
        limit = moves.limit(key)
        yield Quantity(
            Level.OPTIMIZER, Check.LOCAL, label, rule.name, key[1], single[key], value, limit
        )  # fmt: skip
