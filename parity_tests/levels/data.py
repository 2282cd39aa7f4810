"""Level data: both train commands start from bit-equal weights and see bit-equal batches.

Framework specific (mxnet, torch): batches are read from where each train command puts them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import mxnet as mx
import numpy as np
import torch

import gluon_cnn.training.assembly
import gluon_cnn.training.recipes
import torch_ref.training.assembly
import torch_ref.training.recipes
from cnn_data import Batches, Dataset, load_dataset
from cnn_harness.config import TrainConfig
from gluon_cnn.training.staging import Staging
from parity_tests.levels.diagnosis.data import explain_images, explain_labels
from parity_tests.numerics.compare import bits_equal
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Status

Batch = tuple[np.ndarray, np.ndarray]

EPOCHS = (1, 2)  # the second is shuffled otherwise
FIRST = 3  # batches an epoch, and the short last one


def check_data(model: str, *, seed: int = 0) -> Report:
    """The data level of a model's default recipe, on the embedded digits."""
    started = time.perf_counter()
    config = gluon_cnn.training.recipes.DEFAULTS[model].replace(seed=seed)
    twin = torch_ref.training.recipes.DEFAULTS[model].replace(seed=seed)
    size = config.image_size or 32
    dataset = load_dataset("mnist5k", image_size=size, fit=config.fit)
    report = Report(model, (Level.DATA,))
    report.add(*data_rows(config, twin, dataset))
    report.seconds = time.perf_counter() - started
    return report


def data_rows(
    ours: TrainConfig, theirs: TrainConfig, dataset: Dataset
) -> tuple[list[Row], Coverage]:
    """Compare the recipes field by field, then the batches as arrays on each framework's device.

    The first and the last training batches of two epochs and the test batches are compared, images
    and labels, bit by bit.
    """
    coverage = Coverage()
    rows = list(_recipe_rows(ours, theirs))
    gluon_parts = gluon_cnn.training.assembly.make_batches(ours, dataset)
    torch_parts = torch_ref.training.assembly.make_batches(theirs, dataset)
    for part, gluon_batches, torch_batches in zip(
        ("train", "test"), gluon_parts, torch_parts, strict=True
    ):
        rows.append(_length_row(part, gluon_batches, torch_batches))
        for epoch in EPOCHS if part == "train" else (0,):
            for number in _chosen(len(torch_batches)):
                path = f"{part} epoch {epoch} batch {number + 1}"
                coverage.expect("batches", path)
                pair = (_batch(gluon_batches, epoch, number), _batch(torch_batches, epoch, number))
                if any(batch is None for batch in pair):
                    continue
                coverage.done("batches", path)
                rows += [
                    _explained(row, pair, gluon_batches, epoch, number)
                    for row in _batch_rows(path, *pair)
                ]
    return rows, coverage


def _explained(
    row: Row, pair: tuple[Batch | None, Batch | None], batches: Batches, epoch: int, number: int
) -> Row:
    ours, theirs = pair
    if row.status == Status.OK or ours is None or theirs is None:
        return row
    if row.quantity == "labels":
        return replace(row, diagnosis=explain_labels(ours[1], theirs[1]))
    return replace(row, diagnosis=explain_images(ours[0], theirs[0], batches, epoch, number))


def _recipe_rows(ours: TrainConfig, theirs: TrainConfig) -> Iterator[Row]:
    for name, value in ours.to_dict().items():
        other = getattr(theirs, name)
        difference = "" if value == other else f"{value!r} beside {other!r}"
        yield _row("recipe", name, difference)


def _length_row(part: str, ours: Batches, theirs: Batches) -> Row:
    difference = "" if len(ours) == len(theirs) else f"{len(ours)} beside {len(theirs)}"
    return _row(part, "batches an epoch", difference)


def _row(path: str, quantity: str, difference: str) -> Row:
    return Row(
        level=Level.DATA, path=path, quantity=quantity, check=Check.VALUE, compared=1,
        status=Status.DIVERGED if difference else Status.OK, detail=difference,
    )  # fmt: skip


def _chosen(count: int) -> list[int]:
    return sorted({*range(min(FIRST, count)), count - 1})


def _batch(batches: Batches, epoch: int, number: int) -> Batch | None:
    return next(iter(batches.epoch(epoch, start=number)), None)


def _batch_rows(path: str, ours: Batch | None, theirs: Batch | None) -> Iterator[Row]:
    assert ours is not None
    assert theirs is not None
    staging = Staging([mx.cpu()])
    x, y = (staging(array)[0].asnumpy() for array in ours)
    tensors = torch_ref.training.assembly.to_device(*theirs, torch.device("cpu"))
    verdicts = {
        "images": bits_equal(x, tensors[0].numpy()),
        # shares of classes, under mixup, are floats
        "labels": bits_equal(y if y.ndim == 2 else y.astype(np.int64), tensors[1].numpy()),
    }
    for quantity, verdict in verdicts.items():
        yield Row.judged(verdict, level=Level.DATA, path=path, quantity=quantity, check=Check.VALUE)
