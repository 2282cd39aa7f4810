"""Level training: loss, logit gradient, gradients, slots, weights and buffers, step after step.

*Resynchronised* (`training_resync`): before every step all sides take Gluon's state, and each stage
has a bound of its own. *Free-running* (`training_free`): nothing is put right, and in float64 the
two runs must stay together; in float32 the loss curves must stay inside an envelope that is
measured (`training_envelope`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from parity_tests.levels.training.envelope import curve_rows
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.resynchronised import resynchronised_rows
from parity_tests.levels.training.trials import Trial, project_trial
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Level

__all__ = ["RESYNCHRONISED", "STEPS", "check_training", "training_rows"]

RESYNCHRONISED = 3  # steps by default: each measures its envelopes afresh
STEPS = 100


def check_training(
    trial: Trial | str,
    *,
    steps: int = STEPS,
    resynchronised: int = RESYNCHRONISED,
    dtypes: Sequence[str] = ("float64", "float32"),
    seed: int = 0,
) -> Report:
    """Train a pair of nets side by side and compare every stage of every step.

    `trial` is a model's name, for its own recipe on real digits, or a Trial. `resynchronised` steps
    are taken from Gluon's state each; then `steps` run freely, in float64 every stage compared, in
    float32 the loss curves. Quantities in the report read `step 17 weight gradient`: of each the
    first step that left its bound, or else the worst.
    """
    started = time.perf_counter()
    if isinstance(trial, str):
        trial = project_trial(trial, max(steps, resynchronised), seed=seed)
    report = Report(trial.name, (Level.TRAINING,))
    report.add(*training_rows(trial, steps, resynchronised, dtypes))
    report.seconds = time.perf_counter() - started
    return report


def training_rows(
    trial: Trial,
    steps: int = STEPS,
    resynchronised: int = RESYNCHRONISED,
    dtypes: Sequence[str] = ("float64", "float32"),
) -> tuple[list[Row], Coverage]:
    """The rows of `check_training`, and what of the net they have compared."""
    rows = resynchronised_rows(trial, resynchronised) if resynchronised else []
    if steps and "float64" in dtypes:
        rows += free_rows(trial, steps)
    if steps and "float32" in dtypes:
        rows += curve_rows(trial, steps)
    coverage = Coverage()
    groups = _expected(trial, coverage)
    for row in rows:
        key = f"{row.path} {row.quantity.split(' ', 2)[-1]}"  # without "step 17"
        if key in groups and row.compared:
            coverage.done(groups[key], key)
    return rows, coverage


def _expected(trial: Trial, coverage: Coverage) -> dict[str, str]:
    """Every tensor of the torch net in every stage that it has; each one's group."""
    groups: dict[str, str] = {}
    for pair in trial.pairing.pairs:
        for role, tensor in pair.torch.tensors.items():
            name = f"{pair.torch.path} {role}"
            named = {name: "buffers"} if tensor.buffer else {name: "weights"}
            if tensor.trainable:
                named[f"{name} gradient"] = "gradients"
                named |= {f"{name} {slot}": "slots" for slot in trial.rule.slots}
            for key, stage in named.items():
                groups[key] = f"training {stage}"
                coverage.expect(groups[key], key, tensor.size)
    return groups
