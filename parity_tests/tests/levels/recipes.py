"""Level training, whole recipes: both `train` commands with the same flags, to the last epoch.

First weights must be equal bit by bit, and batches (level data). Metrics must then be as near as
the mirror's are to themselves when everything in it rounds a little worse, measured in several
draws (`training_envelope`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gluon_cnn.train
import gluon_cnn.training.assembly
import torch_ref.train
import torch_ref.training.assembly
from cnn_data import Batches, Dataset
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import Evaluation, run_epochs
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Progress
from cnn_harness.run_description import load_data, read_run
from parity_tests.backends.base import leaves_of, referee
from parity_tests.backends.runs import NET, Objective
from parity_tests.levels.data import data_rows
from parity_tests.levels.training.envelope import noise_of, one_ulp
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, bits_equal, compare
from parity_tests.numerics.operators.table import tolerance
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status
from torch_ref.models import MODELS
from torch_ref.training import loop

METRICS = ("train_loss", "train_acc", "test_loss", "test_acc", "test_top5_acc")
_COMMANDS = {Side.GLUON: gluon_cnn.train, Side.TORCH: torch_ref.train}

_row = partial(Row, level=Level.TRAINING, check=Check.WHOLE_RECIPE)
_judged = partial(Row.judged, level=Level.TRAINING, check=Check.WHOLE_RECIPE, side=Side.GLUON)

Metrics = list[dict[str, Any]]  # rows of metrics.jsonl, one an epoch


def check_recipe(argv: Sequence[str], folder: Path, *, draws: int = 3) -> Report:
    """Run both `train` commands with the same flags (but `--out` and `--ctx`), and compare them.

    The runs go to `folder`, as gluon and torch; the envelope is measured with `draws` more runs of
    the mirror. A command that fails is a row of its own.
    """
    started = time.perf_counter()
    report = Report("recipe " + " ".join(argv), (Level.TRAINING, Level.DATA))
    for side, module in _COMMANDS.items():
        report.coverage.expect("commands", side)
        code, said = _quietly(module, [*argv, "--ctx", "cpu", "--out", str(folder / side)])
        if code:
            detail = f"the command ended with {code}: {said}"
            status = Status.NOT_COMPARED
            report.add([_row(path=NET, quantity="run", status=status, side=side, detail=detail)])
        else:
            report.coverage.done("commands", side)
    if not report.rows:
        runs = {side: read_run(folder / side) for side in _COMMANDS}
        configs = {side: run["config"] for side, run in runs.items()}
        dataset = _dataset(runs[Side.TORCH])
        report.add(first_weight_rows(configs[Side.GLUON], configs[Side.TORCH], dataset))
        report.add(*data_rows(configs[Side.GLUON], configs[Side.TORCH], dataset))
        ours, theirs = (metrics_of(folder / side) for side in _COMMANDS)
        moved = [shaken_run(configs[Side.TORCH], dataset, seed) for seed in range(draws)]
        report.add(metric_rows(ours, theirs, moved, len(dataset.train), len(dataset.test)))
    report.seconds = time.perf_counter() - started
    return report


def _quietly(module: Any, argv: Sequence[str]) -> tuple[int, str]:
    """The command's exit code, and its last line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = module.main(list(argv))
    lines = (out.getvalue() + err.getvalue()).strip().splitlines()
    return code, lines[-1] if lines else ""


def _dataset(run: dict[str, Any]) -> Dataset:
    config: TrainConfig = run["config"]
    model = MODELS[config.model]
    return load_data(config, run["data_dir"], model.input_shape)


def metrics_of(folder: Path) -> Metrics:
    """The rows of a run's metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def first_weight_rows(ours: TrainConfig, theirs: TrainConfig, dataset: Dataset) -> list[Row]:
    """Every parameter and buffer of both nets as the commands make them, bit by bit."""
    gluon_net = gluon_cnn.training.assembly.prepare(ours, dataset, "cpu").net
    torch_net = torch_ref.training.assembly.prepare(theirs, dataset, "cpu").net
    return [
        _judged(
            bits_equal(pair.gluon.tensors[role].read(), tensor.read()),
            path=pair.path, quantity=f"first {role}", dtype=tensor.dtype,
        )
        for pair in pair_leaves(leaves_of(gluon_net), leaves_of(torch_net)).pairs
        for role, tensor in pair.torch.tensors.items()
    ]  # fmt: skip


class _Noisy:
    """Training batches with every pixel one ulp away from where it was."""

    def __init__(self, batches: Batches, seed: int) -> None:
        self._batches, self._seed = batches, seed

    def __len__(self) -> int:
        return len(self._batches)

    def global_size(self, batch: int) -> int:
        return self._batches.global_size(batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, (x, y) in enumerate(self._batches.epoch(epoch, start), start):
            yield one_ulp(x, (self._seed, epoch, number)), y


def shaken_run(config: TrainConfig, dataset: Dataset, seed: int) -> Metrics:
    """The mirror's run once more, with one draw of noise wherever it rounds; writes nothing."""
    training = torch_ref.training.assembly.prepare(config, dataset, "cpu")
    x, y = next(iter(training.train.epoch(1)))
    # How much the loss rounds is told by labels as they are, mixed and smoothed or not.
    loss: Any = training.evaluation.loss
    labels = y.argmax(axis=1) if y.ndim == 2 else y
    objective = Objective(labels=labels, losses={Side.TORCH: loss})
    referee().shake(training.net, noise_of(training.net, x, objective), seed)
    noisy: Any = _Noisy(training.train, seed)
    shaken = dataclasses.replace(training, train=noisy)
    monitor, stop = Monitor(), Stop()

    def evaluate() -> Evaluation:
        with shaken.average.in_place() if shaken.average is not None else contextlib.nullcontext():
            return loop.evaluate(shaken.evaluation, shaken.test, shaken.device)

    return run_epochs(
        config,
        training.train,
        Progress(),
        train_epoch=lambda done: loop.train_epoch(shaken, done, monitor, stop),
        evaluate=evaluate,
        save_best=lambda: None,
        save_last=lambda state: None,
        monitor=monitor,
        stop=stop,
    )


def metric_rows(
    ours: Metrics, theirs: Metrics, moved: Sequence[Metrics], train: int, test: int
) -> list[Row]:
    """Gluon's metrics beside torch's, epoch by epoch, and the last accuracies.

    The bound is `ENVELOPE_FACTOR` times the largest move of any draw up to that epoch. An accuracy
    may always be one image off, and a loss by what evaluating it rounds. `train` and `test` are the
    numbers of images.
    """
    if len(ours) != len(theirs):
        detail = f"{len(ours)} epochs beside {len(theirs)}"
        row = _row(path=NET, quantity="epochs", status=Status.DIVERGED, compared=1, detail=detail)
        return [row]
    rounding = UNIT["float32"] * sum(
        tolerance("loss", "train", side, "float32").factor(1) for side in (Side.GLUON, Side.TORCH)
    )
    rows = []
    for name in METRICS:
        largest = 0.0
        for epoch, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            largest = max(largest, *(abs(draw[epoch][name] - b[name]) for draw in moved))
            least = 1.5 / (test if name.startswith("test") else train)  # one image, not two
            if name.endswith("loss"):
                least = rounding * (1 + abs(b[name]))
            verdict = compare(
                np.array([a[name]], dtype=np.float64),
                np.array([b[name]], dtype=np.float64),
                scale=(largest + least / ENVELOPE_FACTOR) / UNIT["float64"],
                factor=ENVELOPE_FACTOR,
                content="any",
            )
            row = _judged(
                dataclasses.replace(verdict, unit="envelopes"),
                path=NET, quantity=f"epoch {epoch + 1} {name}", dtype="float32", mode=Mode.TRAIN,
                distance=abs(a[name] - b[name]),
            )  # fmt: skip
            rows.append(row)
    return rows
