"""A recorded torch net as a module: it makes the recorded calls again, on other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import get_overridable_functions, resolve_name

from parity_tests.backends.files.tape import flatten
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.tracing.trace import trace_torch
from parity_tests.pairing.graph import Operation, OperationGraph


@cache
def _functions() -> Mapping[str, Callable[..., Any]]:
    """What tensors can be given to, by name: nothing else that a file names is ever called."""
    known = get_overridable_functions().values()
    named = ((resolve_name(function), function) for functions in known for function in functions)
    return {name: function for name, function in named if name}


class ReplayedNet(nn.Module):
    """The calls of a record, in inference and in training, on its parameters and buffers."""

    def __init__(
        self,
        records: Mapping[bool, Mapping[str, Any]],
        parameters: Mapping[str, np.ndarray],
        trainable: Iterable[str],
        constants: Mapping[bool, Mapping[str, np.ndarray]],
    ) -> None:
        super().__init__()
        self._records = records
        self._constants_of = constants
        own = set(trainable)
        for name in parameters:
            owner: nn.Module = self
            *folders, last = name.split(".")
            for folder in folders:
                if not hasattr(owner, folder):
                    owner.add_module(folder, nn.Module())
                owner = getattr(owner, folder)
            tensor = torch.from_numpy(parameters[name].copy())
            if name in own:
                owner.register_parameter(last, nn.Parameter(tensor))
            else:
                owner.register_buffer(last, tensor)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        record = self._records[self.training]
        held = {**dict(self.named_buffers()), **dict(self.named_parameters())}
        aliases = record["aliases"]
        constants = self._constants_of[self.training]
        made: dict[tuple[int, int], torch.Tensor] = {}

        def read(origin: str, key: Any, output: int) -> torch.Tensor:
            if origin == "input":
                return inputs[key]
            if origin == "operation":
                return made[key, output]
            if origin == "parameter":
                return held[aliases.get(key, key)]
            return torch.from_numpy(constants[key])

        for index, operation in enumerate(record["operations"]):
            name = operation["function"]
            function = _functions().get(name)
            if function is None:
                raise ParityError(f"the record calls {name!r}, which torch here does not have")
            args = _decoded(operation["args"], read)
            result = function(*args, **_decoded(operation["kwargs"], read))
            outputs = [args[0]] if name.endswith("__setitem__") else flatten(result, torch.Tensor)
            made.update({(index, i): y for i, y in enumerate(outputs)})
        return tuple(read(*value) for value in record["outputs"])


def _decoded(value: Any, read: Callable[..., torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return read(*content)
    if kind == "dict":
        return {key: _decoded(part, read) for key, part in content}
    if kind in ("list", "tuple", "slice"):
        parts = [_decoded(part, read) for part in content]
        return {"list": list, "tuple": tuple}[kind](parts) if kind != "slice" else slice(*parts)
    if kind == "torch":
        found = getattr(torch, content)
        if not isinstance(found, (torch.dtype, torch.memory_format, torch.layout)):
            raise ParityError(f"the record holds torch.{content}, expected a dtype")
        return found
    if kind == "device":
        return torch.device("cpu")
    return float(content) if kind == "float" else Ellipsis


def replayed_graph(
    net: ReplayedNet, inputs: Iterable[np.ndarray], record: Mapping[str, Any]
) -> OperationGraph:
    """What the calls execute here, each with its place there and the number of its values.

    Raises ParityError where one call is another operation here.
    """
    tensors = [torch.from_numpy(x) for x in inputs]
    graph = trace_torch(net, *tensors, train=bool(record["train"]))
    recorded = list(record["operations"])
    calls = [op for op in graph if op.kind != "write_view"]
    if len(calls) != len(recorded):
        raise ParityError(
            f"torch here executes {len(calls)} operations where {len(recorded)} were recorded"
        )
    numbers = {op.index: number for number, op in enumerate(calls)}
    operations = tuple(
        _placed(op, recorded[numbers[op.index]], numbers[op.index]) if op.index in numbers else op
        for op in graph
    )
    return dataclasses.replace(graph, operations=operations)


def _placed(op: Operation, there: Mapping[str, Any], number: int) -> Operation:
    replay: Any = op.replay
    replay.number = number
    return dataclasses.replace(op, path=there["path"], call=there["call"], source=there["source"])
