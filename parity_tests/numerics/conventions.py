"""Differences between the frameworks that are known, and predicted to the last bit or nearly so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, rounded

__all__ = ["Convention", "variance"]


@dataclass(frozen=True)
class Convention:
    """How to turn torch's value into MXNet's, and what to call the difference."""

    diagnosis: str
    convert: Callable[[np.ndarray], np.ndarray]


def variance(leaf: Leaf, quantity: str, inputs: Arrays, train: bool) -> Convention | None:
    """torch's BatchNorm stores the unbiased running variance, n/(n−1) larger; MXNet the biased.

    Both normalise with the biased one, so only the stored value differs. None where that is not
    the question, or the class has an update of its own.
    """
    module: Any = leaf.block
    plain = type(module).forward is nn.modules.batchnorm._BatchNorm.forward
    if quantity != "running_var" or leaf.kind != "batchnorm" or not plain or not train:
        return None
    kept: Any = leaf.hyper["kept"]
    n = inputs[0].size // inputs[0].shape[1]
    if kept is None or n < 2:
        return None
    old = float(np.float32(kept)) * rounded(leaf.tensors[quantity].read(), "float64")
    return Convention(
        f"variance ratio n/(n−1): torch keeps the unbiased one, {n}/{n - 1} times MXNet's",
        lambda new: old + (new - old) * ((n - 1) / n),
    )
