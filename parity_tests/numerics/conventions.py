"""Differences between the frameworks that are known, and predicted to the last bit or nearly so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, rounded
from parity_tests.backends.torch.executed import ExecutedModule

__all__ = ["Convention", "unbiased", "variance"]


@dataclass(frozen=True)
class Convention:
    """How to turn torch's value into MXNet's, and what to call the difference."""

    diagnosis: str
    convert: Callable[[np.ndarray], np.ndarray]


def unbiased(leaf: Leaf, inputs: Arrays) -> tuple[float, int] | None:
    """What a step of a torch BatchNorm keeps of its unbiased variance, and the n of its batch."""
    kept, tensor = _kept(leaf, inputs), leaf.tensors.get("running_var")
    if kept is None or tensor is None:
        return None
    part, size = kept
    n = size // tensor.size
    return (float(np.float32(part)), n) if n > 1 else None


def variance(leaf: Leaf, quantity: str, inputs: Arrays, train: bool) -> Convention | None:
    """torch's BatchNorm stores the unbiased running variance, n/(n−1) larger; MXNet the biased.

    Both normalise with the biased one, so only the stored value differs. None where that is not
    the question, or the class has an update of its own.
    """
    found = unbiased(leaf, inputs) if quantity == "running_var" and train else None
    if found is None:
        return None
    kept, n = found
    old = kept * rounded(leaf.tensors[quantity].read(), "float64")
    return Convention(
        f"variance ratio n/(n−1): torch keeps the unbiased one, {n}/{n - 1} times MXNet's",
        lambda new: old + (new - old) * ((n - 1) / n),
    )


def _kept(leaf: Leaf, inputs: Arrays) -> tuple[float, int] | None:
    """The part of the running variance that a step of torch's own BatchNorm keeps, and the size of
    what it normalises, which an executed leaf may make of its inputs."""
    module: Any = leaf.block
    if isinstance(module, ExecutedModule):
        layout = module.program.layout
        if any(segment.writes for segment in layout.pair.sides.values()):
            return None
        norms = [op for op in layout.segment.normalised if op.kind == "batch_norm"]
        if len(norms) != 1:
            return None
        given = zip(inputs, layout.segment.uses, strict=True)
        x, shape = next((x, uses[0][1]) for x, uses in given if uses)
        size = math.prod(norms[0].inputs[0].shape) * x.size // math.prod(shape)  # another batch
        return float(norms[0].attributes["kept"]), size
    plain = type(module).forward is nn.modules.batchnorm._BatchNorm.forward
    updated = plain and leaf.kind == "batchnorm" and not leaf.hyper["global_stats"]
    kept: Any = leaf.hyper["kept"] if updated else None
    return None if kept is None else (kept, inputs[0].size)
