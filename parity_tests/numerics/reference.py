"""A third writing of the operators, in float64, right or with one named fault.

Where the two frameworks disagree about a leaf, this says which of them computes it as its listing
says, and which fault, if any, makes what the other one computes.
"""

from __future__ import annotations

import numpy as np
import torch

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, named, rounded
from parity_tests.numerics.operators.cases import ReferenceCase
from parity_tests.numerics.operators.table import OPERATORS, operator_of
from parity_tests.numerics.scales import as_given


def reference_value(
    leaf: Leaf, inputs: Arrays, *, train: bool, upstream: Arrays | None = None, fault: str = ""
) -> LeafRun | None:
    """What the leaf gives in float64, by the names that reports use; None where none is written.

    `fault` is the variant of one of the record's `faults`, empty for the right value.
    """
    reference = operator_of(leaf.family).reference
    if reference is None or len(inputs) != 1:
        return None
    tensors = {
        role: torch.from_numpy(rounded(t.read(), "float64")).requires_grad_(t.trainable)
        for role, t in leaf.tensors.items()
    }
    x = torch.from_numpy(rounded(as_given(leaf, inputs)[0], "float64").copy())
    x.requires_grad_(x.is_floating_point())
    case = ReferenceCase(torch, x, tensors, leaf.hyper, train, fault)
    try:
        y = reference(case)
    except RuntimeError:  # the listing is of another input than this one
        return None
    if fault == "float16 rounding":
        y = y.detach().to(torch.float16).to(torch.float64) + (y - y.detach())
    if upstream is None:
        return named((y.detach().numpy(),), buffers=case.buffers)
    if y.numel() != upstream[0].size:
        return None
    y.backward(torch.from_numpy(rounded(upstream[0], "float64")).reshape(y.shape))
    gradients = {r: t.grad.numpy() for r, t in tensors.items() if t.grad is not None}
    gradient = None if x.grad is None else x.grad.numpy().reshape(inputs[0].shape)
    return named((y.detach().numpy(),), [gradient], gradients, case.buffers)


def common_activations(x: np.ndarray) -> dict[str, np.ndarray]:
    """What each common activation makes of an array, in float64, by its kind."""
    case = ReferenceCase(torch, torch.from_numpy(x.astype(np.float64)), {}, {}, False, "")
    return {
        kind: operator.reference(case).numpy()
        for kind, operator in OPERATORS.items()
        if operator.common and operator.reference is not None
    }
