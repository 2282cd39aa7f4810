"""What explains a stage of a training step that is not the referee's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity_tests.backends.base import referee
from parity_tests.backends.runs import NET, LeafRun, NetRun
from parity_tests.backends.training import Batch, Key, Stages, State
from parity_tests.levels.diagnosis.hypotheses import (
    Explanation,
    close,
    factor_of,
    only_explanation,
    single_value,
)
from parity_tests.levels.referee import Subject
from parity_tests.numerics.reference import common_activations
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Side

SLACK = {"float64": 1e-9, "float32": 2e-5}  # of the largest value: what a whole pass rounds


@dataclass(frozen=True)
class Step:
    """What is known when a step is judged: its referee's run, and the step before."""

    subject: Subject
    run: NetRun
    led: NetRun
    batch: Batch
    before: State
    stages: Stages
    earlier: Batch | None = None  # the batch of the step before
    gradients: dict[Key, np.ndarray] = field(default_factory=dict)  # and its gradients


def explain_stage(row: Row, step: Step) -> str:
    """A name for a row of a resynchronised step that diverged; empty where none fits."""
    if row.path == NET:
        finder = {"logits": _logits, "loss": _loss, "logit gradient": _logit_gradient}
        return only_explanation(finder[row.quantity](row, step)) if row.quantity in finder else ""
    if row.quantity.endswith(" gradient"):
        return only_explanation(_gradient(row, step))
    if (row.path, row.quantity) in step.stages.after.buffers:
        return only_explanation(_buffer(row, step))
    return ""


def _logits(row: Row, step: Step) -> Iterator[Explanation]:
    slack, actual = SLACK[row.dtype], step.stages.logits
    idle = step.subject.run(Side.TORCH, "float64", train=False)
    if close(actual, idle.outputs[0], slack):
        yield Explanation("running statistics in training", "they are those of inference mode")
    if step.earlier is not None and step.earlier.images.shape == step.batch.images.shape:
        subject = replace(step.subject, inputs=step.earlier.inputs, _runs={}, shared={})
        again = subject.run(Side.TORCH, "float64", train=True)
        if close(actual, again.outputs[0], slack):
            yield Explanation("repeated batch", "they are those of the images of the step before")


def _losses(step: Step, logits: np.ndarray, labels: np.ndarray) -> LeafRun:
    objective = replace(step.subject.objective, labels=labels)
    return referee().run_loss(objective, logits, "float64")


def _loss(row: Row, step: Step) -> Iterator[Explanation]:
    """Hypotheses on the loss of the side's own logits."""
    slack, actual, labels = SLACK[row.dtype], step.stages.loss, step.batch.labels
    logits = step.stages.logits.astype(np.float64)
    classes = logits.shape[-1]
    log_softmax = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _losses(step, z, y)["loss"]

    right = losses(logits, labels)
    of_classes = logits.ndim == 2 and labels.shape == right.shape
    for shift in (1, -1) if of_classes else ():
        if close(actual, losses(logits, (labels + shift) % classes), slack):
            yield Explanation("labels off by one", f"it is that of the labels {shift:+d}")
    if close(actual, losses(np.exp(log_softmax), labels), slack):
        yield Explanation("softmax applied twice", "it is that of the softmax of the logits")
    for name, value in common_activations(logits).items():
        if close(actual, losses(value, labels), slack):
            yield Explanation("activation before the loss", f"it is that of the logits' {name}")
    if of_classes:
        spread = -log_softmax.mean(-1) - right
        share = float(((actual - right) * spread).sum() / (spread * spread).sum())
        if 1e-4 < share < 1 and close(actual, right + share * spread, slack):
            detail = f"{share:.3g} of the weight is on all classes alike"
            yield Explanation("label smoothing", detail)
    yield from factor_of(right, actual.astype(np.float64), "", slack, len(labels))


def _logit_gradient(row: Row, step: Step) -> Iterator[Explanation]:
    right = _losses(step, step.stages.logits, step.batch.labels)["loss gradient"]
    actual = step.stages.logit_gradient.astype(np.float64)
    yield from factor_of(right, actual, "", SLACK[row.dtype], len(step.batch.labels))


def _gradient(row: Row, step: Step) -> Iterator[Explanation]:
    role = row.quantity.removesuffix(" gradient")
    key, slack = (row.path, role), SLACK[row.dtype]
    right: Any = step.led.named_gradients().get((row.path, 0, row.quantity))
    actual = step.stages.gradients[key].astype(np.float64)
    if right is None:
        return
    if not actual.any():
        yield Explanation("stopped gradient", "it is all 0")
        return
    earlier = step.gradients.get(key)
    if earlier is not None and close(actual, right + earlier, slack):
        yield Explanation("gradient accumulated", "that of the step before is still in it")
    yield from factor_of(right, actual, "", slack, len(step.batch.labels))


def _buffer(row: Row, step: Step) -> Iterator[Explanation]:
    key, slack = (row.path, row.quantity), SLACK[row.dtype]
    old = step.before.buffers[key].astype(np.float64)
    actual = step.stages.after.buffers[key].astype(np.float64)
    right: Any = step.run.named_buffers()[row.path, 0, row.quantity]
    pair = next(p for p in step.subject.pairing.pairs if p.torch.path == row.path)
    kept: Any = pair.torch.hyper.get("kept")
    if np.array_equal(actual, old):
        yield Explanation("update missed", "it is what it was before the step")
        return
    if pair.torch.kind != "batchnorm" or kept is None:
        return
    share = 1 - float(np.float32(kept))
    new = (right - old * (1 - share)) / share
    x = step.run.calls[row.path][0].inputs[0]
    count = x.size // x.shape[1]
    nearer = float(np.abs(actual - right).max()) / 8
    for name, detail, value in (
        ("variance ratio n/(n−1)", f"the variance is {count}/{count - 1} times the batch's",
         old + share * (new * count / max(1, count - 1) - old)),
        ("momentum complement", f"it keeps {share:.3g} and takes {1 - share:.3g}",
         share * old + (1 - share) * new),
        ("update made twice", "the same batch is taken twice",
         (1 - share) * ((1 - share) * old + share * new) + share * new),
        ("variance ratio n/(n−1)", f"the referee's is {count}/{count - 1} times the batch's",
         old + share * (new * (count - 1) / count - old)),
    ):  # fmt: skip
        if name.startswith("variance") and row.quantity != "running_var":
            continue
        if close(actual, value, slack) and float(np.abs(actual - value).max()) <= nearer:
            yield Explanation(name, detail)
    apart = np.abs(actual - right) > slack * np.abs(right).max()
    yield from single_value(actual, right, apart)
