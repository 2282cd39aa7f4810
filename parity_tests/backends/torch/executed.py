"""A torch net made of what another one executed: one module for each segment of operations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from parity_tests.backends.executed import Layout, Order, Program, Traces, taken_as
from parity_tests.backends.parts import part_of
from parity_tests.numerics.operators.cases import Change
from parity_tests.numerics.perturb import holds_integers
from parity_tests.pairing.graph import OperationGraph, Origin, Value
from parity_tests.pairing.segments import Slot


class ExecutedModule(nn.Module):
    """One segment: takes the shared values it reads, gives those it makes.

    `between` changes the numbers that pass between the operations inside it, and their gradients.
    `dtype` is what the net computes in, which decides what is made of no array.
    """

    between: Change | None = None
    dtype = "float32"

    def __init__(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.program = program
        self.p = program.layout.hyper.get("p", 0.0)
        for name, role in program.roles.items():
            tensor = tensors[name]
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(role, tensor)
            else:
                self.register_buffer(role, tensor, persistent=not role.startswith("_"))
        self._constants = {key: f"_constant_{i}" for i, key in enumerate(program.constants)}
        for key, role in self._constants.items():
            self.register_buffer(role, tensors[key], persistent=False)

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        held = [*self._parameters.values(), *self._buffers.values()]
        floats = (x for x in (*arrays, *held) if x is not None and x.is_floating_point())
        kind = next((_name(x) for x in floats), self.dtype)
        made: torch.Tensor | tuple[torch.Tensor, ...]
        made = self.program.run(
            arrays,
            self._read,
            self._write,
            partial(_take, kind),
            kind,
            train=self.training,
            between=None if self.between is None else partial(_changed, self.between),
        )
        return made

    @property
    def constants(self) -> list[torch.Tensor]:
        """What the net's code holds as neither parameters nor buffers."""
        return [getattr(self, role) for role in self._constants.values()]

    @property
    def held(self) -> list[np.ndarray]:
        """The constants' values."""
        return [constant.detach().cpu().numpy() for constant in self.constants]

    def _read(self, value: Value) -> torch.Tensor:
        key = str(value.key)
        constant = value.origin is Origin.CONSTANT
        tensor: torch.Tensor = getattr(
            self, self._constants[key] if constant else self.program.roles[key]
        )
        return tensor

    def _write(self, role: str, value: torch.Tensor) -> None:
        if role in self._buffers:
            self._buffers[role] = value.detach()


def _name(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _take(dtype: str, array: torch.Tensor, own: str) -> torch.Tensor:
    wanted: torch.dtype = getattr(torch, taken_as(_name(array), own, dtype))
    return array.to(wanted)


def _changed(change: Change, value: torch.Tensor) -> torch.Tensor:
    """The value with its numbers changed, and its gradient on the way back.

    What is infinite stays so: a mask of −∞ is rounded by nothing, and ∞ − ∞ is no number. So do
    whole numbers, which would be other indices with noise. What an
    operation keeps of its own result for the way back (tanh has 1 − y²) is that number too, unless
    it looks there for what is equal to it.
    """
    if not value.is_floating_point():
        return value
    numbers = value.detach()
    whole = holds_integers(numbers.numpy())
    moved_to = numbers.numpy() if whole else np.asarray(change(numbers.numpy()))
    move = torch.from_numpy(moved_to) - numbers
    move = torch.where(numbers.isfinite(), move, 0.0)
    # given, or a view of what is, or looked for
    if value.is_leaf or value._base is not None or _is_looked_for(value):
        moved = value + move
    else:
        moved = value
        moved.data += move  # autograd is not told
    if moved.requires_grad:
        # None comes to an output of which nothing is read, of an operation that has others
        moved.register_hook(
            lambda g: None if g is None else torch.from_numpy(np.asarray(change(g.numpy())))
        )
    return moved


def _is_looked_for(value: torch.Tensor) -> bool:
    """Whether the gradient of an operation goes to what is equal to its result: that of a maximum.

    https://github.com/pytorch/pytorch/blob/v2.13.0/tools/autograd/derivatives.yaml
    """
    made = value.grad_fn
    if made is None:
        return False
    largest = re.fullmatch(r"(Amax|Amin|Aminmax|Max|Min|Median|Nanmedian)Backward\d", made.name())
    order = getattr(made, "_saved_ord", getattr(made, "_saved_p", None))
    return largest is not None or order in (math.inf, -math.inf)


class ExecutedNet(nn.Module):
    """The whole net: its segments in the order in which it ran them."""

    def __init__(self, modules: Sequence[ExecutedModule], order: Order) -> None:
        super().__init__()
        self.segments = nn.ModuleList(modules)
        self._order = order

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        absent = inputs[0].new_zeros(())
        return self._order.run(lambda n, *given: self.segments[n](*given), inputs, absent)


def _parts(graph: OperationGraph, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is read of a parameter apart: views of its rows, so that what is written reaches it."""
    parts: dict[str, torch.Tensor] = {}
    for name in graph.parameters:
        part = part_of(name, tensors)
        if part is not None:
            whole = tensors[part[0]]
            rows = part[1](whole.detach())
            trained = isinstance(whole, nn.Parameter)
            parts[name] = nn.Parameter(rows, whole.requires_grad) if trained else rows
    return parts


def rebuild(
    net: nn.Module,
    traces: Traces,
    layouts: Sequence[Layout],
    outputs: Sequence[tuple[Slot, tuple[int, ...]]],
) -> ExecutedNet:
    """The net that runs these segments, on the parameters of the net that was traced."""
    tensors: dict[str, torch.Tensor] = {
        **dict(net.named_buffers(remove_duplicate=False)),
        **dict(net.named_parameters(remove_duplicate=False)),
    }
    for graph in traces.values():
        tensors.update({key: value.detach() for key, value in graph.constants.items()})
        tensors.update(_parts(graph, tensors))
    modules = [ExecutedModule(Program(layout, traces), tensors) for layout in layouts]
    floats = (_name(x) for x in net.parameters() if x.is_floating_point())
    kind = next(floats, ExecutedModule.dtype)
    for module in modules:
        module.dtype = kind
    return ExecutedNet(modules, Order(layouts, outputs)).train(net.training)
