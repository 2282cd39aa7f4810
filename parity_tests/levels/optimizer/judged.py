"""One update of one tensor, judged against the rule that is written out in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity_tests.levels.diagnosis.updates import explain_update
from parity_tests.numerics.compare import compare
from parity_tests.numerics.operators.table import tolerance
from parity_tests.numerics.update_rules import Rule, Update, apply_update
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side


def judged_update(
    rule: Rule,
    update: Update,
    before: dict[str, np.ndarray],
    gradient: np.ndarray,
    after: dict[str, np.ndarray],
    *,
    level: Level,
    path: str,
    side: Side,
    check: Check,
    role: str = "",
    slack: float = 0.0,
) -> Iterator[Row]:
    """One side's update of one tensor against the rule: a row for each slot, then the weight's.

    `before` and `after` hold the slots by name and the "weight". Quantities are `ROLE mom`, …,
    and `ROLE` itself for the weight, or "weight" without a role. `slack` is what a step may be off,
    of its own size, beside what it rounds.
    """
    expected, sizes = apply_update(rule, update, before["weight"], gradient, before)
    dtype = str(before["weight"].dtype)
    for stage in (*rule.slots, "weight"):
        step = sizes[stage] - np.abs(before["weight"]) if stage == "weight" else sizes[stage]
        verdict = compare(
            after[stage], expected[stage], scale=sizes[stage],
            factor=tolerance("update", Mode.TRAIN, side, dtype).factor(1),
            allowance=slack * step, dtype=dtype, unit=dtype, content="nonzero",
        )  # fmt: skip
        diagnosis = ""
        if not verdict.ok:
            diagnosis = explain_update(rule, update, before, gradient, after, stage)
        yield Row.judged(
            verdict, level=level, path=path, side=side, dtype=dtype, mode=Mode.TRAIN, check=check,
            quantity=role or "weight" if stage == "weight" else f"{role} {stage}".strip(),
            diagnosis=diagnosis,
        )  # fmt: skip
