"""What a step differentiates: a loss of each framework's own, or fixed gradients of the outputs."""

from __future__ import annotations

import numpy as np

from gluon_cnn_parity import did_you_mean
from parity_tests.backends.base import SIDES, backend, referee
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays, LeafRun, Loss, Objective, is_float, rounded
from parity_tests.numerics.perturb import elementwise_moves, perturbed
from parity_tests.reporting.verdicts import Side

# Gluon's and torch's loss, each a name or a function of (output, labels); one name for both
Losses = str | tuple[str | Loss, str | Loss]

_DRAWS = 4
_NOISE = 2.0**-30  # of the outputs: far above float64's rounding, far below any curvature


def cross_entropy(labels: np.ndarray) -> Objective:
    """Softmax cross-entropy of logits (N, classes), by each framework's own function."""
    return Objective(labels=labels, losses={side: backend(side).cross_entropy() for side in SIDES})


def objective_of(losses: Losses, outputs: Arrays, labels: np.ndarray) -> Objective:
    """The losses of a user's pair, Gluon's and torch's, each a name or a function of its own.

    A function takes (output, labels) of its framework, and gives one value a sample or the mean of
    the batch. Raises ParityError for an unknown name, and for labels that the loss cannot take.
    """
    both = (losses, losses) if isinstance(losses, str) else losses
    if len(both) != 2 or not all(isinstance(loss, str) or callable(loss) for loss in both):
        raise ParityError("loss is a name, or a pair: Gluon's name or function, then torch's")
    known: dict[Side, Loss] = {}
    for side, loss in zip(SIDES, both, strict=True):
        names = backend(side).losses
        if isinstance(loss, str) and loss not in names:
            expected = f"expected {', '.join(names)} or a function{did_you_mean(loss, names)}"
            raise ParityError(f"unknown loss {loss!r}, {expected}")
        known[side] = names[loss] if isinstance(loss, str) else loss
    if not all(isinstance(loss, str) for loss in both):  # whose values may be a sample's or a mean
        known = {side: backend(side).averaged(loss) for side, loss in known.items()}
    classes = "softmax_ce" in both
    check_labels(outputs[0], labels, classes=classes)
    plain = both == ("softmax_ce", "softmax_ce") and outputs[0].ndim == 2
    return Objective(labels=labels, losses=known, measured=not plain)


def check_labels(output: np.ndarray, labels: np.ndarray, *, classes: bool) -> None:
    """Raise ParityError unless there is one label a row, and classes are among the outputs'."""
    shape = (output.shape[0], *output.shape[2:])
    most = output.shape[1] if output.ndim > 1 else 0
    if not classes:
        if labels.shape[:1] != output.shape[:1]:
            raise ParityError(f"labels {labels.shape}, expected ({output.shape[0]}, …)")
        return
    whole = labels.dtype.kind in "iub" or (labels == np.round(labels)).all()
    if labels.shape != shape or not whole or labels.min() < 0 or labels.max() >= most:
        raise ParityError(
            f"labels {labels.shape} {labels.dtype} from {labels.min()} to {labels.max()}, expected "
            f"classes {shape} from 0 to {most - 1}"
        )


def fixed_gradients(outputs: Arrays) -> Objective:
    """Normal gradients for the net's outputs, always the same ones; none for whole numbers."""
    generator = np.random.default_rng(7)
    drawn = [generator.standard_normal(y.shape) * is_float(y) for y in outputs]
    return Objective(upstream=tuple(rounded(gradient, "float64") for gradient in drawn))


def loss_scales(
    objective: Objective, logits: np.ndarray, run: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """s of "loss" and "loss gradient" that an objective's losses gave on these outputs."""
    assert objective.labels is not None  # the caller's objective is a loss
    if objective.measured:
        return _measured_scales(objective, logits, run)
    return _log_sum_exp_scales(logits, objective.labels, run)


def _measured_scales(
    objective: Objective, logits: np.ndarray, run: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Those of any loss: how far noise in the outputs moves it, and its largest value, whose parts
    may have been rounded before they cancelled."""
    values = rounded(logits, "float64")
    generator = np.random.default_rng(11)

    def moved() -> LeafRun:
        noisy = perturbed(values, _NOISE, generator.standard_normal)
        return referee().run_loss(objective, noisy, "float64")

    clean = referee().run_loss(objective, values, "float64")
    moves = elementwise_moves(clean, (moved() for _ in range(_DRAWS)))
    return {
        name: move.max() / _NOISE + np.abs(clean[name]).max() + np.abs(run[name])
        for name, move in moves.items()
    }


def _log_sum_exp_scales(
    logits: np.ndarray, labels: np.ndarray, run: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Those of losses made of logits and log-sum-exps of them.

    The gradient is a difference of a probability and 0 or 1. The probability is the exp of a
    log-softmax, rounded in proportion to the logits it is made of and to its own size, and exp
    makes a relative error of that absolute one.
    """
    values = rounded(logits, "float64")
    chosen = np.take_along_axis(values, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    one_hot = np.zeros_like(values)
    np.put_along_axis(one_hot, labels.astype(np.int64)[:, None], 1.0, axis=1)
    size = 1 + np.ptp(values, axis=1, keepdims=True) + np.abs(values).max(axis=1, keepdims=True)
    return {
        "loss": 1 + np.abs(chosen) + np.abs(values).max(axis=1) + np.abs(run["loss"]),
        "loss gradient": (np.abs(run["loss gradient"]) + one_hot) * size,
    }
