"""Copies of torch leaves and nets, with their own values or with others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from parity_tests.backends.cloning import duplicate
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.torch.executed import ExecutedModule
from parity_tests.backends.torch.leaves import leaves
from parity_tests.numerics.operators.table import as_mxnet_holds, single_attributes


def clone(net: nn.Module, dtype: str | None, *, gradients: bool = True) -> nn.Module:
    """An independent copy on the CPU, floats rounded through float32 to `dtype`, not in place.

    With None they keep their dtype. Constants of a net's code are not rounded on the way, which may
    be known in float64. torch sets no memory aside for gradients, wanted or not.

    Some numbers are rounded as MXNet rounds them, whose operators hold their attributes in float32
    even in a float64 net: the table of operators says which.
    """
    copied = duplicate(net, computed(net))
    if any(value.device.type != "cpu" for value in (*copied.parameters(), *copied.buffers())):
        copied.cpu()
    exact: set[int] = set()
    for module in copied.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False
        if isinstance(module, ExecutedModule):
            module.dtype = dtype or module.dtype
            exact |= {id(constant) for constant in module.constants}
        for name in single_attributes(module):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, as_mxnet_holds(name, getattr(module, name)))
    for value in (*copied.parameters(), *copied.buffers()):
        if value.is_floating_point():
            if dtype is not None:
                rounded = value.data if id(value) in exact else value.data.to(torch.float32)
                value.data = rounded.to(getattr(torch, dtype))
            value.grad = None
    return copied


def share(cloned: nn.Module) -> nn.Module:
    """A copy of a clone that reads the same numbers as its parameters.

    Gradients, buffers and hooks are its own: no run changes parameters.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in cloned.parameters()
    }
    return duplicate(cloned, memo | computed(cloned))


def twin(net: nn.Module) -> nn.Module:
    """An independent copy with the same values, where they lie."""
    return copy.deepcopy(net, computed(net))


def computed(net: nn.Module) -> dict[int, Any]:
    """A memo of copying for what a run left in modules: it has a history, and torch copies none.

    As the weight of `nn.utils.weight_norm`, which each run computes anew.
    """
    return {
        id(value): value.detach().clone()
        for module in net.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def with_values(net: nn.Module, values: Mapping[tuple[str, str], np.ndarray]) -> nn.Module:
    """A copy of the net with other values by (path, role)."""
    copied = clone(net, None)
    for leaf in leaves(copied):
        set_values(
            leaf, {r: values[leaf.path, r] for r in leaf.tensors if (leaf.path, r) in values}
        )
    return copied


def leaf_with_values(leaf: Leaf, values: Mapping[str, np.ndarray]) -> Leaf:
    """A float32 copy of the leaf with other values by role."""
    copied = replace(leaf, block=clone(leaf.block, "float32"))
    set_values(copied, values)
    return copied


def set_values(leaf: Leaf, values: Mapping[str, np.ndarray]) -> None:
    """Put other values, by role, into the leaf itself."""
    with torch.no_grad():
        for role, value in values.items():
            getattr(leaf.block, role).copy_(torch.from_numpy(value))


def release(cloned: nn.Module) -> None:
    """Nothing: no module holds another in a circle, so a clone goes with its last name."""
