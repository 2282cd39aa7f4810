"""The size s of what an operation rounds, in float64: the unit in which its error is measured."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, is_float, rounded
from parity_tests.backends.torch.runs import run_leaf
from parity_tests.numerics.operators.cases import Change, ScaleCase, Scales
from parity_tests.numerics.operators.table import operator_of

__all__ = ["scales_of"]


def scales_of(
    leaf: Leaf, inputs: Arrays, run: LeafRun, *, train: bool, upstream: Arrays | None = None
) -> Scales:
    """The scales of a torch leaf that gave `run`, in float64, on `inputs` (and `upstream`)."""
    inputs = tuple(rounded(x, "float64") for x in inputs)

    def parameter(role: str) -> np.ndarray | None:
        tensor = leaf.tensors.get(role)
        return None if tensor is None else rounded(tensor.read(), "float64")

    def rerun(change: Change, upstream_only: bool) -> LeafRun:
        def all_parameters(module: nn.Module) -> None:
            for value in module.parameters():
                value.data = torch.from_numpy(change(value.data.numpy()))

        back = None if upstream is None else _changed(upstream, change)
        return run_leaf(
            leaf,
            inputs if upstream_only else _changed(inputs, change),
            "float64",
            train=train,
            upstream=back,
            change=None if upstream_only else all_parameters,
        )

    case = ScaleCase(leaf.family, leaf.hyper, inputs, run, train, upstream, parameter, rerun)
    return operator_of(leaf.family).scale(case)


def _changed(arrays: Arrays, change: Change) -> Arrays:
    return tuple(change(a) if is_float(a) else a for a in arrays)
