"""What a step differentiates: a loss of each framework's own, or fixed gradients of the outputs."""

from __future__ import annotations

import numpy as np

from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.runs import Arrays, Objective, rounded

__all__ = ["cross_entropy", "fixed_gradients", "loss_scales"]


def cross_entropy(labels: np.ndarray) -> Objective:
    """Softmax cross-entropy of logits (N, classes), by each framework's own function."""
    return Objective(labels=labels, losses={side: backend(side).cross_entropy() for side in SIDES})


def fixed_gradients(outputs: Arrays) -> Objective:
    """Normal gradients for the net's outputs, always the same ones."""
    generator = np.random.default_rng(7)
    return Objective(
        upstream=tuple(rounded(generator.standard_normal(y.shape), "float64") for y in outputs)
    )


def loss_scales(
    logits: np.ndarray, labels: np.ndarray, run: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """s of "loss" and "loss gradient", for losses made of logits and log-sum-exps of them.

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
