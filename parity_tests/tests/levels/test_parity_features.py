"""Both loops with each feature on, and twins that lack one or have another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gluon_cnn.training.assembly
import torch_ref.training.assembly
import torch_ref.training.average
import torch_ref.training.loop
from cnn_data import Batches
from parity_tests.levels.training import features
from parity_tests.levels.training.features import FEATURES, check_features, feature_rows
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import Divergence
from parity_tests.tests.levels.recipes import check_recipe

SLOW = [name for name, changes in FEATURES.items() if "model" in changes]  # five seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FEATURES]
)
def test_a_feature_does_the_same_in_both(name: str) -> None:
    report = check_features(name)
    assert report.ok, str(report)
    assert report.coverage.percent() == {"features": 100.0}
    errors = [row.error for row in report.rows if row.check == "feature" and row.error is not None]
    assert len(errors) > 20
    assert max(errors) < 1e-11


def _broken(name: str) -> Divergence:
    report = Report("broken", ())
    report.add(feature_rows(name))
    first = report.first_divergence
    assert first is not None
    return first


def _no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_ref.training.loop, "clip_norm", lambda optimizer, limit: None)


def _clipped_one_by_one(patch: pytest.MonkeyPatch) -> None:
    def clip(optimizer: torch.optim.Optimizer, limit: float) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                torch.nn.utils.clip_grad_norm_([parameter], limit)

    patch.setattr(torch_ref.training.loop, "clip_norm", clip)


def _torchs_own_clipping(patch: pytest.MonkeyPatch) -> None:
    def clip(optimizer: torch.optim.Optimizer, limit: float) -> None:
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit)

    patch.setattr(torch_ref.training.loop, "clip_norm", clip)


def _no_smoothing(patch: pytest.MonkeyPatch) -> None:
    plain = torch_ref.training.assembly.loss_for
    patch.setattr(
        torch_ref.training.assembly, "loss_for", lambda net, smoothing=0, soft=False: plain(net)
    )


def _smoothed_over_the_others(patch: pytest.MonkeyPatch) -> None:
    """Inception's first code: the share goes to the wrong classes alone."""
    plain = torch_ref.training.assembly.loss_for
    patch.setattr(
        torch_ref.training.assembly, "loss_for",
        lambda net, smoothing=0, soft=False: plain(net, smoothing * 10 / 9, soft),
    )  # fmt: skip


def _average_without_warming_up(patch: pytest.MonkeyPatch) -> None:
    def update(self: Any, t: int) -> None:
        for name, value in self._state().items():
            self._values[name].lerp_(value, 1 - self._decay)

    patch.setattr(torch_ref.training.average.Average, "update", update)


def _average_that_is_not_used(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_ref.training.average.Average, "in_place", lambda self: nullcontext())


def _other_batches(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    class Faulty(Batches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for x, y in super().epoch(epoch, start):
                yield x, change(y) if y.ndim == 2 else y

    return lambda patch: patch.setattr(torch_ref.training.assembly, "Batches", Faulty)


def _nothing_frozen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_ref.training.assembly, "freeze", lambda net, patterns: None)


def _nothing_loaded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_ref.training.assembly, "set_weights", lambda net, weights, scale: None)


def _loaded_at_the_full_rate(patch: pytest.MonkeyPatch) -> None:
    load = torch_ref.training.assembly.set_weights
    patch.setattr(
        torch_ref.training.assembly, "set_weights", lambda net, weights, scale: load(net, weights)
    )


BROKEN: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = {
    "no clipping": ("clip-grad", _no_clipping, "train_loss, clip-grad"),
    "each clipped by itself": ("clip-grad", _clipped_one_by_one, "train_loss, clip-grad"),
    "1e-6 in the norm": ("clip-grad", _torchs_own_clipping, "weight, clip-grad"),
    "no smoothing": ("label-smoothing", _no_smoothing, "epoch 1 train_loss"),
    "smoothed otherwise": ("label-smoothing", _smoothed_over_the_others, "epoch 1 train_loss"),
    "an average from the start": ("ema", _average_without_warming_up, "test_loss"),
    "an average not used": ("ema", _average_that_is_not_used, "test_loss"),
    "nothing frozen": ("freeze", _nothing_frozen, "train_loss, freeze"),
    "nothing loaded": ("init-from", _nothing_loaded, "epoch 1 train_loss"),
    "the full rate": (
        "init-from, init-lr-scale",
        _loaded_at_the_full_rate,
        "epoch 1 train_loss",
    ),
    "labels not mixed": ("mixup", _other_batches(lambda y: np.round(y)), "train_loss, mixup"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_twin_that_lacks_it_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, break_it, quantity = BROKEN[fault]
    break_it(monkeypatch)
    assert quantity in _broken(name).quantity


@pytest.mark.slow
def test_frozen_statistics_that_move_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ref.training.loop, "train_mode", lambda objective: objective.train())
    assert "freeze of BatchNorm" in _broken("freeze of BatchNorm").quantity


@pytest.mark.slow
def test_parts_of_a_batch_that_are_not_added_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gluon_cnn.training.assembly, "accumulate", lambda net, parts: None)
    assert "grad-accum-steps" in _broken("grad-accum-steps").quantity


def test_a_feature_without_effect_is_no_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.FEATURES, "clip-grad", {"clip_grad": 1e6})
    assert "changes no weight" in _broken("clip-grad").message


@pytest.mark.slow
def test_both_commands_learn_the_same_with_everything_on(tmp_path: Path) -> None:
    argv = ("--model", "lenet", "--epochs", "2", "--batch-size", "200", "--clip-grad", "1",
            "--label-smoothing", "0.1", "--mixup", "0.2", "--ema", "0.95", "--grad-accum-steps",
            "2", "--augment", "random-crop,color-jitter", "--patience", "5")  # fmt: skip
    report = check_recipe(argv, tmp_path, draws=1)
    assert report.ok, str(report)
