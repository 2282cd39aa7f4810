"""The rows of a trial: resynchronised steps, then free-running ones, and what they have reached."""

from __future__ import annotations

from collections.abc import Sequence

from parity_tests.levels.training.envelope import curve_rows
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.resynchronised import resynchronised_rows
from parity_tests.levels.training.trial import Trial
from parity_tests.reporting.rows import Coverage, Row

RESYNCHRONISED = 3  # steps by default: each measures its envelopes afresh
STEPS = 100


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
    """Every tensor that a step of the torch net changes, in every stage; each one's group."""
    groups: dict[str, str] = {}
    for pair in trial.pairing.pairs:
        for role, tensor in pair.torch.tensors.items():
            if not (tensor.trainable or tensor.buffer):
                continue  # no step changes it
            name = f"{pair.torch.path} {role}"
            named = {name: "buffers"} if tensor.buffer else {name: "weights"}
            if tensor.trainable:
                named[f"{name} gradient"] = "gradients"
                named |= {f"{name} {slot}": "slots" for slot in trial.rule.slots}
            for key, stage in named.items():
                groups[key] = f"training {stage}"
                coverage.expect(groups[key], key, tensor.size)
    return groups
