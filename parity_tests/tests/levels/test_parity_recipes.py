"""Both train commands to the last epoch, on real digits, and faults that only they could have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_ref.training.assembly
import torch_ref.training.loop
from cnn_data import load_dataset
from parity_tests.backends.runs import NET
from parity_tests.tests.levels.recipes import (
    METRICS,
    check_recipe,
    first_weight_rows,
    metric_rows,
)
from torch_ref.training.assembly import Objective
from torch_ref.training.recipes import DEFAULTS

QUICK = ("--model", "lenet", "--epochs", "1", "--batch-size", "200", "--augment", "none")


def test_both_commands_learn_the_same(tmp_path: Path) -> None:
    argv = ("--model", "lenet", "--epochs", "2", "--batch-size", "100")
    report = check_recipe(argv, tmp_path, draws=2)
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}
    epochs = [row for row in report.rows if row.quantity.startswith("epoch ")]
    assert len(epochs) == 2 * len(METRICS)
    last = next(row for row in epochs if row.quantity == "epoch 2 test_acc")
    assert last.values is not None
    assert min(last.values) > 0.9  # they did learn
    firsts = [row for row in report.rows if row.quantity.startswith("first ")]
    assert len(firsts) == 10
    assert {row.error for row in firsts} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        ("--model", "mnist_bn_cnn", "--epochs", "1"),
        ("--model", "lenet", "--epochs", "3", "--optimizer", "sgd", "--lr", "0.02",
         "--momentum", "0.9", "--nesterov", "--wd", "0.0005"),
        ("--model", "lenet5", "--epochs", "2"),
    ],
    ids=["mnist_bn_cnn", "nag", "lenet5"],
)  # fmt: skip
def test_more_recipes(argv: tuple[str, ...], tmp_path: Path) -> None:
    report = check_recipe(argv, tmp_path)
    assert report.ok, str(report)


def test_a_gradient_divided_twice_is_seen_in_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(
        objective: Objective, optimizer: Any, batches: Any, count: int, clip: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        ((x, y),) = batches
        loss, hits, _ = objective(x, y)
        loss.mean().backward()
        for group in optimizer.param_groups:
            group["rescale_grad"] = 1.0 / count
        optimizer.step()
        return loss.sum().detach(), hits.sum()

    monkeypatch.setattr(torch_ref.training.loop, "train_step", step)
    argv = (*QUICK, "--optimizer", "sgd", "--lr", "0.1")
    first = check_recipe(argv, tmp_path, draws=1).first_divergence
    assert first is not None
    assert (first.level, first.path, first.quantity) == ("training", NET, "epoch 1 train_loss")


def test_other_first_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DEFAULTS["lenet"]
    dataset = load_dataset("mnist5k")
    assert {row.status for row in first_weight_rows(config, config, dataset)} == {"ok"}
    drawn = torch_ref.training.assembly.initial_arrays

    def other(shapes: Any, initialiser: str, seed: int) -> dict[str, np.ndarray]:
        arrays = drawn(shapes, initialiser, seed)
        kernel = arrays["features.3.weight"]
        return {**arrays, "features.3.weight": np.ascontiguousarray(kernel[..., ::-1])}

    monkeypatch.setattr(torch_ref.training.assembly, "initial_arrays", other)
    failed = [r for r in first_weight_rows(config, config, dataset) if r.status != "ok"]
    assert [(row.path, row.quantity) for row in failed] == [("features.3", "first weight")]


def test_a_command_that_fails_is_no_parity(tmp_path: Path) -> None:
    report = check_recipe(("--model", "lenet", "--lr", "0"), tmp_path)
    first = report.first_divergence
    assert first is not None
    assert "ended with 2" in first.message
    assert "got '0', expected a finite number above 0" in first.message
    assert not report.ok


def metrics(**changes: float) -> list[dict[str, Any]]:
    row = dict(zip(METRICS, (0.5, 0.8, 0.4, 0.9, 0.99), strict=True))
    return [row, {**row, **changes}]


@pytest.mark.parametrize(
    ("ours", "drawn", "failed"),
    [
        ({}, {}, []),
        ({"test_acc": 0.901}, {}, []),  # one image of a thousand
        ({"test_acc": 0.902}, {}, ["epoch 2 test_acc"]),
        ({"test_acc": 0.91}, {"test_acc": 0.897}, []),
        ({"test_acc": 0.915}, {"test_acc": 0.897}, ["epoch 2 test_acc"]),
        ({"train_loss": 0.5001}, {}, ["epoch 2 train_loss"]),
        ({"train_loss": 0.5001}, {"train_loss": 0.50003}, []),
        ({"train_acc": 0.8005, "test_loss": 0.41}, {}, ["epoch 2 train_acc", "epoch 2 test_loss"]),
    ],
)
def test_metrics_are_bounded_by_the_largest_move(
    ours: dict[str, float], drawn: dict[str, float], failed: list[str]
) -> None:
    rows = metric_rows(metrics(**ours), metrics(), [metrics(), metrics(**drawn)], 4000, 1000)
    assert [row.quantity for row in rows if row.status != "ok"] == failed
    assert len(rows) == 2 * len(METRICS)


def test_runs_of_different_length_are_not_compared_epoch_by_epoch() -> None:
    (row,) = metric_rows(metrics()[:1], metrics(), [metrics()], 4000, 1000)
    assert row.status == "diverged"
    assert row.detail == "1 epochs beside 2"
