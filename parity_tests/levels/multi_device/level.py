"""Level scale: two devices on half batches compute what one computes on whole batches.

*in turn*: two devices beside one that takes the halves one after another and adds their gradients.
The same kernels run on the same values, and two numbers are added in one way only, so every bit
must be equal: loss, gradients, slots, weights, running statistics, and the copies of both devices.

*whole*: two devices beside the torch net on the whole batch, by the bounds of the level training.
A net with BatchNorm has no such equality, in MXNet or anywhere else where devices do not exchange
their statistics: each half is normalised by its own. How far that goes is measured, and noted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from parity_tests.backends.runs import NET
from parity_tests.backends.training import Batch, Key, Stages
from parity_tests.levels.multi_device.data_parallel import DEVICES, InTurn, SplitTrainee
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.resynchronised import resynchronised_rows
from parity_tests.levels.training.trial import Trial
from parity_tests.levels.training.trials import project_trial
from parity_tests.numerics.compare import Verdict, bits_equal, compare
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

MULTI_DEVICE_MODELS = ("lenet", "mnist_bn_cnn", "alexnet")
BATCH_SIZES = {"lenet": 31, "mnist_bn_cnn": 15}  # odd, so that the halves differ; the rest take 7
STEPS = 6


def check_multi_device(trial: Trial | str, *, steps: int = STEPS, seed: int = 0) -> Report:
    """Train a net on two devices and on one, side by side, and compare every stage.

    `trial` is a model's name, for its own recipe on real digits in batches of odd size, or a Trial
    whose `make_gluon` gives a `SplitTrainee`. The last step has a single image, so that one device
    gets none.
    """
    started = time.perf_counter()
    if isinstance(trial, str):
        batch = BATCH_SIZES.get(trial, 7)
        trial = project_trial(trial, steps, batch=batch, seed=seed)
        trial.make[Side.GLUON] = SplitTrainee
    report = Report(trial.name, (Level.MULTI_DEVICE,))
    report.add(*multi_device_rows(trial))
    report.seconds = time.perf_counter() - started
    return report


def multi_device_rows(trial: Trial) -> tuple[list[Row], Coverage]:
    """The rows of `check_multi_device`, and how much of the net they have compared."""
    coverage = Coverage()
    rows: list[Row] = []
    for dtype in ("float64", "float32"):
        rows += _in_turn_rows(trial, dtype, coverage)
    if any(pair.torch.kind == "batchnorm" for pair in trial.pairing.pairs):
        rows += _caveat_rows(trial)
    else:
        whole = [*resynchronised_rows(trial, 1), *free_rows(trial, len(trial.batches))]
        rows += [
            replace(row, level=Level.MULTI_DEVICE, check=Check(f"whole {row.check}"))
            for row in whole
        ]
    return rows, coverage


def _in_turn_rows(trial: Trial, dtype: str, coverage: Coverage) -> list[Row]:
    """Two devices beside one that takes the halves in turn, bit by bit."""
    together = trial.trainee(Side.GLUON, dtype)
    in_turn = trial.trainee(Side.GLUON, dtype, InTurn)
    ledger = Ledger()
    lonely = _head(trial.batches[-1], 1)
    for number, batch in enumerate([*trial.batches, lonely], 1):
        ours, expected = together.step(batch), in_turn.step(batch)
        for order, row in _equal(ours, expected, dtype, coverage):
            ledger.add(number, (order,), row)
        for key in expected.after.weights:
            first, *others = together.copies(key)
            for other in others:
                row = _row(key[0], f"{key[1]} copies", bits_equal(other, first), dtype)
                ledger.add(number, (9,), row)
        if ledger.failed:
            break
    return ledger.rows()


def _equal(
    ours: Stages, expected: Stages, dtype: str, coverage: Coverage
) -> Iterator[tuple[int, Row]]:
    for place, (path, quantity, value, wanted, group) in enumerate(_stages(ours, expected)):
        verdict = bits_equal(value, wanted)
        yield place, _row(path, quantity, verdict, dtype)
        if group:
            coverage.expect(group, f"{path} {quantity} {dtype}", wanted.size)
            coverage.done(group, f"{path} {quantity} {dtype}")


_Compared = tuple[str, str, np.ndarray, np.ndarray, str]


def _stages(ours: Stages, expected: Stages) -> Iterator[_Compared]:
    """Every tensor of a step in the order of computation, with its group of coverage."""
    backward = reversed(expected.gradients.items())  # meets the last leaf first
    for name in ("logits", "loss", "logit_gradient"):
        yield NET, name.replace("_", " "), getattr(ours, name), getattr(expected, name), ""
    for (path, role), wanted in backward:
        yield path, f"{role} gradient", ours.gradients[path, role], wanted, "scale gradients"
    for (path, role), slots in expected.after.slots.items():
        for name, wanted in slots.items():
            value = ours.after.slots[path, role][name]
            yield path, f"{role} {name}", value, wanted, "scale slots"
    for group in ("weights", "buffers"):
        values: dict[Key, np.ndarray] = getattr(expected.after, group)
        for (path, role), wanted in values.items():
            yield path, role, getattr(ours.after, group)[path, role], wanted, f"scale {group}"


def _row(path: str, quantity: str, verdict: Verdict, dtype: str) -> Row:
    return Row.judged(
        verdict, level=Level.MULTI_DEVICE, path=path, quantity=quantity,
        check=Check.IN_TURN, side=Side.GLUON, dtype=dtype, mode=Mode.TRAIN,
    )  # fmt: skip


def _head(batch: Batch, count: int) -> Batch:
    masks = {path: mask[:count] for path, mask in batch.masks.items()}
    return replace(batch, images=batch.images[:count], labels=batch.labels[:count], masks=masks)


def _caveat_rows(trial: Trial) -> list[Row]:
    """How far two devices are from one on the whole batch, where BatchNorm sees halves."""
    batch = trial.batches[0]
    two = trial.trainee(Side.GLUON, "float64").step(batch)
    one = trial.trainee(Side.TORCH, "float64").step(batch)
    pairs: Sequence[tuple[str, str, np.ndarray, np.ndarray]] = [
        (NET, "loss", two.loss, one.loss),
        *(
            (path, f"{role} gradient", two.gradients[path, role], value)
            for (path, role), value in one.gradients.items()
        ),
        *((path, role, two.after.buffers[path, role], v) for (path, role), v in
          one.after.buffers.items()),
    ]  # fmt: skip
    rows = []
    for path, quantity, value, wanted in pairs:
        verdict = compare(value, wanted, scale=1.0, content="any")
        distance = float(np.abs(value - wanted).max() / max(np.abs(wanted).max(), 1e-300))
        row = replace(
            _row(path, quantity, verdict, "float64"), check=Check.WHOLE, status=Status.NOTE,
            error=None, bound=None, distance=distance,
            detail=f"{distance:.2g} of the largest value from one device's",
            diagnosis=f"BatchNorm normalises each of {len(DEVICES)} devices' parts by its own "
            "statistics",
        )  # fmt: skip
        rows.append(row)
    return rows
