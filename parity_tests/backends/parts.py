"""One parameter of a net that is several of the other's, along its first axis, as those parts.

Such as `in_proj_weight` beside three `Dense`. The executed graph gets the parts as parameters of
their own, `in_proj_weight[0:8]`, and an operation that joins them where the whole was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from parity_tests.pairing.graph import Operand, Operation, OperationGraph, Origin, Parameter, Value

__all__ = ["left_joined", "part_of", "with_parts"]

_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")


def part_of(name: str, wholes: Mapping[str, Any]) -> tuple[str, slice] | None:
    """The parameter that a name is a part of, and which of its rows; None of a whole one."""
    found = None if name in wholes else _PART.fullmatch(name)
    return found and (found[1], slice(int(found[2]), int(found[3])))


def with_parts(
    graph: OperationGraph, lengths: Mapping[str, Sequence[int]], join: tuple[str, Any]
) -> OperationGraph:
    """The executed graph with parts of these lengths in place of parameters, by their names.

    `join` is the framework's kind of what joins arrays along their first axis, and its replay.
    """
    parameters = dict(graph.parameters)
    joins: list[Operation] = []
    joined: dict[Value, Value] = {}
    kind, replay = join
    for name, of_whole in lengths.items():
        whole, begin = parameters.pop(name), 0
        parts: dict[str, Parameter] = {}
        for length in of_whole:
            part = f"{name}[{begin}:{begin + length}]"
            parts[f"part.{len(parts)}"] = Parameter(part, (length, *whole.shape[1:]), whole.dtype)
            begin += length
        parameters |= {part.name: part for part in parts.values()}
        read = Value(Origin.PARAMETER, name)
        first = next(op for op in graph if read in op.reads)
        index = len(graph) + len(joins)
        joined[read] = Value(Origin.OPERATION, index)
        joins.append(
            Operation(
                index, kind, {"dim": 0}, (), parts, (whole.shape,), (whole.dtype,),
                first.path, first.call, first.source, roles=tuple(parts), replay=replay,
                reads=tuple(Value(Origin.PARAMETER, part.name) for part in parts.values()),
            )
        )  # fmt: skip
    operations = (*joins, *(_on_joined(op, joined) for op in graph))
    return replace(graph, operations=operations, parameters=parameters).renumbered()


def _on_joined(op: Operation, joined: Mapping[Value, Value]) -> Operation:
    values = {role: Value(Origin.PARAMETER, p.name) for role, p in op.parameters.items()}
    moved = {role: joined[value] for role, value in values.items() if value in joined}
    if not moved:
        return op
    operands = (Operand(role, v, op.parameters[role].shape) for role, v in moved.items())
    return replace(
        op,
        inputs=(*op.inputs, *operands),
        parameters={role: p for role, p in op.parameters.items() if role not in moved},
        reads=tuple(joined.get(value, value) for value in op.reads),
    )


def left_joined(executed: OperationGraph, normalised: OperationGraph) -> bool:
    """Whether what is computed of parts is not told apart again."""
    parts = {name for name in executed.parameters if part_of(name, {})}
    readers = {
        op.index for op in normalised if any(p.name in parts for p in op.parameters.values())
    }

    def of_parts(op: Operation) -> int:
        return sum(x.value.origin is Origin.OPERATION and x.value.key in readers for x in op.inputs)

    return any(
        op.kind == "concat" and (op.index in readers or of_parts(op) > 1) for op in normalised
    )
