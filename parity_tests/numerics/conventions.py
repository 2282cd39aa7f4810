"""Differences between the frameworks that are known, and predicted to the last bit or nearly so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, rounded
from parity_tests.backends.torch.executed import ExecutedModule
from parity_tests.reporting.verdicts import Side


@dataclass(frozen=True)
class Convention:
    """How to turn torch's value into MXNet's, and what to call the difference."""

    diagnosis: str
    convert: Callable[[np.ndarray], np.ndarray]


def unbiased(leaf: Leaf, inputs: Arrays) -> dict[str, tuple[float, int]]:
    """What a step of each torch BatchNorm of a leaf keeps of its unbiased variance, and the n of
    its batch, by the variance's name."""
    found = {}
    for name, kept, size in _norms(leaf, inputs):
        n = size // leaf.tensors[name].size if name in leaf.tensors else 0
        if n > 1:
            found[name] = (kept, n)
    return found


def variance(leaf: Leaf, quantity: str, inputs: Arrays, train: bool) -> Convention | None:
    """torch's BatchNorm stores the unbiased running variance, n/(n−1) larger; MXNet the biased.

    Both normalise with the biased one, so only the stored value differs. None where that is not
    the question, or the class has an update of its own.
    """
    found = unbiased(leaf, inputs).get(quantity) if train else None
    if found is None:
        return None
    kept, n = found
    old = kept * rounded(leaf.tensors[quantity].read(), "float64")
    return Convention(
        f"variance ratio n/(n−1): torch keeps the unbiased one, {n}/{n - 1} times MXNet's",
        lambda new: old + (new - old) * ((n - 1) / n),
    )


def _is_biased(leaf: Leaf, inputs: Arrays, name: str, kept: float, size: int) -> bool:
    """Whether Gluon's own code, which may keep either variance, keeps the biased one."""
    ours: Leaf | None = leaf.block.program.layout.pair.gluon
    if ours is None or name not in ours.tensors:
        return False
    new = [
        backend(of.side).run_leaf(of, inputs, "float64", train=True)[name].reshape(-1)
        for of in (ours, leaf)
    ]
    n = size // leaf.tensors[name].size
    old = kept * rounded(leaf.tensors[name].read(), "float64").reshape(-1)
    biased = old + (new[1] - old) * ((n - 1) / n)
    return bool(np.abs(new[0] - biased).max() < np.abs(new[0] - new[1]).max())


def _norms(leaf: Leaf, inputs: Arrays) -> Iterator[tuple[str, float, int]]:
    """torch's own BatchNorms in a leaf: the name of the variance, the part of it that a step keeps,
    and the size of what it normalises, which an executed leaf may make of its inputs."""
    module: Any = leaf.block
    if isinstance(module, ExecutedModule):
        layout = module.program.layout
        norms = [op for op in layout.segment.normalised if op.kind == "batch_norm"]
        norms = [op for op in norms if "running_var" in op.parameters]
        if not norms or layout.segment.writes:
            return
        given = zip(inputs, layout.segment.uses, strict=True)
        x, shape = next((x, uses[0][1]) for x, uses in given if uses)
        for norm in norms:
            name = layout.segment.parameters[norm.parameters["running_var"].name]
            size = math.prod(norm.inputs[0].shape) * x.size // math.prod(shape)  # another batch
            part = float(norm.attributes["kept"])
            part = float(np.float32(part)) if module.program.rounds else part
            own = layout.pair.sides[Side.GLUON].writes
            if not own or _is_biased(leaf, inputs, name, part, size):
                yield name, part, size
        return
    plain = type(module).forward is nn.modules.batchnorm._BatchNorm.forward
    updated = plain and leaf.kind == "batchnorm" and not leaf.hyper["global_stats"]
    kept: Any = leaf.hyper["kept"] if updated else None
    if kept is not None:
        yield "running_var", float(np.float32(kept)), inputs[0].size
