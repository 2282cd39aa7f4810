"""Level training, what the loops can do: each feature of both `train` commands, in float64.

Both packages train a few batches by their own loops, from equal weights, with one feature on.
In float64 they must stay together as free runs do (`free_running`): weights, running statistics,
the average where weights are averaged, the losses of training, and what evaluating says. A feature
that changes nothing fails: the row would prove nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import gluon_cnn.models
import gluon_cnn.training.assembly
import gluon_cnn.training.loop
import torch_ref.training.assembly
import torch_ref.training.loop
from cnn_data import ArraySplit, Dataset, load_dataset
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import Evaluation
from cnn_harness.initial import Pretrained, initial_arrays
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial
from parity_tests.backends.base import leaves_of
from parity_tests.backends.runs import NET
from parity_tests.levels.data import data_rows
from parity_tests.levels.training.free_running import TOGETHER
from parity_tests.numerics.compare import UNIT, compare
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

FEATURES_MODEL = "lenet"  # in whose report the features stand
IMAGES, EPOCHS = 60, 2

_BASE = TrainConfig(
    model="lenet", epochs=EPOCHS, batch_size=24, optimizer="sgd", lr=0.05, momentum=0.9,
    schedule="linear",
)  # fmt: skip
# What a flag adds to the plain run. Batches in parts are seen by what BatchNorm makes of them.
FEATURES: dict[str, dict[str, Any]] = {
    "clip-grad": {"clip_grad": 0.4},
    "label-smoothing": {"label_smoothing": 0.1},
    "mixup": {"mixup": 0.4},
    "mixup, label-smoothing": {"mixup": 1.0, "label_smoothing": 0.2},
    "ema": {"ema": 0.9},
    "grad-accum-steps": {"model": "mnist_bn_cnn", "grad_accum_steps": 3},
    "ema, grad-accum-steps, clip-grad": {
        "model": "mnist_bn_cnn", "ema": 0.9, "grad_accum_steps": 2, "clip_grad": 0.4,
    },
    "freeze": {"freeze": "features,classifier.*.bias"},
    "freeze of BatchNorm": {"model": "mnist_bn_cnn", "freeze": "features"},
    "init-from": {"init_from": "other weights"},
    "init-from, init-lr-scale": {"init_from": "other weights", "init_lr_scale": 0.1},
    "random-crop": {"augment": "random-crop"},
    "random-horizontal-flip": {"augment": "random-horizontal-flip"},
    "random-resized-crop": {"augment": "random-resized-crop"},
    "color-jitter": {"augment": "color-jitter"},
}  # fmt: skip

_judged = partial(
    Row.judged, level=Level.TRAINING, check=Check.FEATURE, side=Side.GLUON, dtype="float64",
    mode=Mode.TRAIN,
)  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """Where a side has come: values by (torch path, role), and numbers by name."""

    values: Mapping[tuple[str, str], np.ndarray]
    numbers: Mapping[str, float]


def check_features(*names: str) -> Report:
    """The report of the features of these names, of all by default."""
    started = time.perf_counter()
    report = Report(FEATURES_MODEL, (Level.TRAINING, Level.DATA))
    for name in names or FEATURES:
        report.coverage.expect("features", name)
        rows = feature_rows(name)
        report.add(rows)
        if any(row.compared for row in rows):
            report.coverage.done("features", name)
    report.seconds = time.perf_counter() - started
    return report


def feature_rows(name: str) -> list[Row]:
    """One feature: both sides trained with it, beside each other and beside training without."""
    config, dataset = _BASE.replace(**FEATURES[name]), _few_digits()
    plain = _BASE.replace(model=config.model)
    rows = [
        replace(row, quantity=f"{row.quantity}, {name}")
        for row in data_rows(config, config, dataset)[0]
        if row.path != "recipe"
    ]
    ours, theirs = (_run(package, config, dataset) for package in (gluon_cnn, torch_ref))
    rows += _together(name, ours, theirs)
    rows.append(_effect(name, theirs, _run(torch_ref, plain, dataset)))
    return rows


def _few_digits() -> Dataset:
    dataset = load_dataset("mnist5k")

    def some(split: Any) -> ArraySplit:
        first = np.arange(IMAGES)
        return ArraySplit(split.images(first), split.labels[first])

    return replace(dataset, train=some(dataset.train), test=some(dataset.test))


def _pretrained(config: TrainConfig) -> Pretrained | None:
    """Other weights for the features, and a head of three classes, which fits nowhere."""
    if not config.init_from:
        return None
    net = gluon_cnn.models.get_model(config.model)
    named = net._collect_params_with_prefix().items()
    arrays = initial_arrays({n: p.shape for n, p in named if p.grad_req != "null"}, "he", 9)
    fitting = {name: array for name, array in arrays.items() if name.startswith("features.")}
    head = next(name for name in reversed(arrays) if name.endswith(".weight"))
    return Pretrained(config.init_from, "", {**fitting, head: arrays[head][:3]})


def _run(package: Any, config: TrainConfig, dataset: Dataset) -> _Run:
    loop = package.training.loop
    training = package.training.assembly.prepare(
        config, dataset, "cpu", dtype="float64", pretrained=_pretrained(config)
    )
    done = [
        loop.train_epoch(training, Partial(epoch), Monitor(), Stop())
        for epoch in range(1, EPOCHS + 1)
    ]
    values = _values(training.net)
    where = training.devices if package is gluon_cnn else training.device
    with nullcontext() if training.average is None else training.average.in_place():
        tested = loop.evaluate(training.evaluation, training.test, where, dtype="float64")
        values |= _values(training.net, "average ")
    return _Run(values, _numbers(done, tested))


def _values(net: Any, prefix: str = "") -> dict[tuple[str, str], np.ndarray]:
    return {
        (leaf.path, prefix + role): tensor.read()
        for leaf in leaves_of(net)
        for role, tensor in leaf.tensors.items()
    }


def _numbers(done: list[Partial], tested: Evaluation) -> dict[str, float]:
    sums = {f"epoch {part.epoch} train_loss": part.loss_sum / part.images for part in done}
    hits = {f"epoch {part.epoch} train_acc": part.hit_sum / part.images for part in done}
    return {
        **sums, **hits, "test_loss": tested.loss, "test_acc": tested.accuracy,
        "test_top5_acc": tested.top5,
    }  # fmt: skip


def _together(name: str, ours: _Run, theirs: _Run) -> Iterator[Row]:
    for quantity, number in ours.numbers.items():
        a, b = np.array([number]), np.array([theirs.numbers[quantity]])
        yield _compared(NET, f"{quantity}, {name}", a, b, abs(theirs.numbers[quantity]) or 1.0)
    for (path, role), value in ours.values.items():
        expected = theirs.values[path, role]
        # A bias is added to what the weights beside it make, and counts on their scale.
        beside = [
            v for (p, r), v in theirs.values.items() if p == path and r.split()[-1] == "weight"
        ]
        scale = max(float(np.abs(v).max()) for v in (expected, *beside))
        yield _compared(path, f"{role}, {name}", value, expected, scale)


def _compared(
    path: str, quantity: str, value: np.ndarray, expected: np.ndarray, scale: float
) -> Row:
    verdict = compare(
        value, expected, scale=scale / UNIT["float64"], factor=TOGETHER, dtype="float64",
        unit="of the largest value", content="any",
    )  # fmt: skip
    return _judged(verdict, path=path, quantity=quantity)


def _effect(name: str, trained: _Run, plain: _Run) -> Row:
    """Whether the feature did anything: to the weights, or to those that are judged."""
    moved = max(
        float(np.abs(value - plain.values[key]).max()) for key, value in trained.values.items()
    )
    return Row(
        level=Level.TRAINING, path=NET, quantity=f"effect, {name}", check=Check.FEATURE,
        compared=1, status=Status.OK if moved > 1e-6 else Status.DIVERGED,
        detail="" if moved > 1e-6 else f"{name} changes no weight by more than {moved:.1e}",
    )  # fmt: skip
