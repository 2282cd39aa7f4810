"""The torch net as referee: runs with values changed on their way, and worse rounding on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from parity_tests.backends.runs import Arrays, Edit, NetRun, Noise, Objective
from parity_tests.backends.torch import runs
from parity_tests.backends.torch.clones import share
from parity_tests.backends.torch.leaves import leaves
from parity_tests.backends.tracing import flatten


class _Replaced(torch.autograd.Function):
    """Passes another value on, and the gradient back as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return other.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def _adding(addends: Edit | None) -> runs.ChangeValue | None:
    if addends is None:
        return None

    def add(path: str, call: int, index: int, value: torch.Tensor) -> torch.Tensor:
        addend = addends(path, call, index)
        if addend is None or not value.is_floating_point():
            return value
        return value + torch.from_numpy(addend).to(value.dtype)

    return add


def _replacing(replacements: Edit) -> runs.ChangeValue:
    def put(path: str, call: int, index: int, value: torch.Tensor) -> torch.Tensor:
        other = replacements(path, call, index)
        if other is None or other.shape != tuple(value.shape):
            return value
        replaced = torch.from_numpy(other).to(value.dtype)
        return _Replaced.apply(value, replaced) if value.is_floating_point() else replaced

    return put


def run_clone(
    cloned: torch.nn.Module,
    inputs: Arrays,
    dtype: str,
    *,
    train: bool,
    objective: Objective | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    replacements: Edit | None = None,
    addends: Edit | None = None,
    inputs_too: bool = True,
    sink: runs.Sink | None = None,
) -> NetRun:
    """See `Referee.run_clone`."""
    return runs.run_copy(
        share(cloned),
        inputs,
        dtype,
        train=train,
        objective=objective,
        masks=masks,
        change=_adding(addends) if replacements is None else _replacing(replacements),
        inputs_too=inputs_too,
        sink=sink,
    )


def gradient_noise(
    cloned: torch.nn.Module,
    inputs: Arrays,
    *,
    masks: Mapping[str, np.ndarray],
    addends: Iterable[Edit],
    sink: runs.Sink,
) -> None:
    """See `Referee.gradient_noise`."""
    runs.noise_moves(share(cloned), inputs, "float64", masks=masks, addends=addends, sink=sink)


def _with_first(out: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What a module gives, its first tensor changed, wherever in tuples and dicts it is."""
    first = next(flatten(out, torch.Tensor), None)

    def changed(value: torch.Tensor) -> torch.Tensor:
        return value if value is not first else change(value)

    return tree_map_only(torch.Tensor, changed, out)


def shake(net: torch.nn.Module, noise: Noise, seed: int) -> None:
    """See `Referee.shake`."""
    generator = torch.Generator().manual_seed(seed)

    def disturbed(value: torch.Tensor, relative: float) -> torch.Tensor:
        drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return value + drawn * (relative * value.detach().square().mean().sqrt())

    def before(relative: float) -> Any:
        def hook(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
            if not args or not isinstance(args[0], torch.Tensor) or not args[0].requires_grad:
                return None
            passed = args[0].clone()
            passed.register_hook(lambda gradient: disturbed(gradient, relative))
            return (passed, *args[1:])

        return hook

    def after(relative: float) -> Any:
        def hook(module: torch.nn.Module, _: Any, out: Any) -> Any:
            if not module.training:
                return None
            return _with_first(out, lambda value: disturbed(value, relative))

        return hook

    def at_the_end(_: torch.nn.Module, args: Any, out: Any) -> Any:
        def passed(value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            if value.requires_grad:
                value.register_hook(lambda gradient: disturbed(gradient, noise.logit_gradient))
            return value

        return _with_first(out, passed)

    for leaf in leaves(net):
        if noise.input_gradients.get(leaf.path):
            leaf.block.register_forward_pre_hook(before(noise.input_gradients[leaf.path]))
        if noise.outputs.get(leaf.path):
            leaf.block.register_forward_hook(after(noise.outputs[leaf.path]))
    net.register_forward_hook(at_the_end)
