"""Reads a torch net: its leaves, their kinds and hyper-parameters in the suite's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from parity_tests.backends.executed import is_statistic
from parity_tests.backends.leaves import Leaf, Tensor
from parity_tests.backends.torch.executed import ExecutedNet
from parity_tests.numerics.operators import table as operators
from parity_tests.reporting.verdicts import Side

# Counts batches for an average that MXNet does not have; nothing reads it while momentum is set.
_IGNORED = ("num_batches_tracked",)


def leaves(net: nn.Module) -> list[Leaf]:
    """The net's leaves in the order of registration; a module used twice appears twice."""
    if isinstance(net, ExecutedNet):
        return [_executed(module) for module in net.segments]
    return list(_walk(net, ""))


def _executed(module: Any) -> Leaf:
    layout = module.program.layout
    tensors = {}
    for name, role in layout.segment.parameters.items():
        trainable = role in module._parameters and getattr(module, role).requires_grad
        buffer = is_statistic(role)
        tensor = _tensor(module, "", role, trainable, buffer=buffer)
        constant = role in module._buffers and not buffer
        tensors[role] = replace(tensor, name=name, constant=constant)
    return Leaf(Side.TORCH, layout.pair.path, layout.kind, module, layout.hyper, tensors)


def _walk(module: nn.Module, path: str) -> Iterator[Leaf]:
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    own = [p for p in module._parameters.values() if p is not None]
    if not children and isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return
    if not children or own:
        kind, hyper = describe(module)
        yield Leaf(
            Side.TORCH, path, kind, module, hyper, _tensors(module, path), composite=bool(children)
        )
    for name, child in children:
        yield from _walk(child, f"{path}.{name}" if path else name)


def _tensors(module: nn.Module, path: str) -> dict[str, Tensor]:
    # Read from the tensor as it is when asked for, so that a listing stays true after training.
    found = {}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found[name] = _tensor(module, path, name, parameter.requires_grad, buffer=False)
    for name, value in module._buffers.items():
        hidden = name in _IGNORED or name in module._non_persistent_buffers_set
        if value is not None and not hidden:
            found[name] = _tensor(module, path, name, trainable=False, buffer=True)
    return found


def _tensor(module: nn.Module, path: str, name: str, trainable: bool, buffer: bool) -> Tensor:
    value = getattr(module, name)

    def read() -> np.ndarray:
        return getattr(module, name).detach().cpu().numpy().copy()

    dtype = str(value.dtype).removeprefix("torch.")
    full = f"{path}.{name}" if path else name
    return Tensor(full, tuple(value.shape), dtype, trainable, buffer, read)


def describe(module: nn.Module) -> tuple[str, dict[str, object]]:
    """Kind and hyper-parameters of a leaf; subclasses count as the class they extend."""
    hyper: dict[str, object] = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and isinstance(value, (int, float, str))
    }
    return operators.describe(module, Side.TORCH) or (f"custom:{type(module).__name__}", hyper)
