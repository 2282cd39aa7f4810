"""Level training: loss, logit gradient, gradients, slots, weights and buffers, step after step.

*Resynchronised* (`training_resync`): before every step all sides take Gluon's state, and each stage
has a bound of its own. *Free-running* (`training_free`): nothing is put right, and in float64 the
two runs must stay together; in float32 the loss curves must stay inside an envelope that is
measured (`training_envelope`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from parity_tests.levels.training.rows import RESYNCHRONISED, STEPS, training_rows
from parity_tests.levels.training.trial import Trial
from parity_tests.levels.training.trials import project_trial
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level

__all__ = ["RESYNCHRONISED", "STEPS", "check_training", "training_rows"]


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
