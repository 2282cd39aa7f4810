"""One parameter of a net that is several of the other's, along its first axis, as those parts.

Such as `in_proj_weight` beside three `Dense`. The executed graph gets the parts as parameters of
their own, `in_proj_weight[0:8]`, and an operation that joins them where the whole was read. So it
gets the transpose of a matrix that the other net holds the other way, `weight[transposed]`, and of
what lies along two axes, `bias[4x2 transposed]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from parity_tests.pairing.dataflow import Alignment
from parity_tests.pairing.graph import (
    Operand,
    Operation,
    OperationGraph,
    Origin,
    Parameter,
    Replay,
    Value,
)

_TURNED = "[transposed]"
_TURNED_AXES = re.compile(r"(.+)\[(\d+)x(\d+) transposed\]")
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")


def part_of(name: str, wholes: Mapping[str, Any]) -> tuple[str, Callable[[Any], Any]] | None:
    """The parameter that a name is a part of, and what takes it of that; None of a whole one."""
    if name not in wholes and name.endswith(_TURNED):
        return name.removesuffix(_TURNED), lambda array: array.T
    axes = None if name in wholes else _TURNED_AXES.fullmatch(name)
    if axes:
        shape = int(axes[2]), int(axes[3])
        return axes[1], lambda array: array.reshape(shape).T
    found = None if name in wholes else _PART.fullmatch(name)
    return found and (found[1], itemgetter(slice(int(found[2]), int(found[3]))))


def with_parts(
    graph: OperationGraph, lengths: Mapping[str, Sequence[int]], join: tuple[str, Any]
) -> OperationGraph:
    """The executed graph with parts of these lengths in place of parameters, by their names.

    `join` is the framework's kind of what joins arrays along their first axis, and its replay.
    """
    made: dict[str, dict[str, Parameter]] = {}
    for name, of_whole in lengths.items():
        whole, begin = graph.parameters[name], 0
        parts = made.setdefault(name, {})
        for length in of_whole:
            part = f"{name}[{begin}:{begin + length}]"
            parts[f"part.{len(parts)}"] = Parameter(part, (length, *whole.shape[1:]), whole.dtype)
            begin += length
    return _made_of(graph, made, join[0], {"dim": 0}, lambda shape: join[1])


def turned_weights(alignment: Alignment) -> dict[str, tuple[str, tuple[int, int]]]:
    """Matrices of torch's that are Gluon's transposed, by their names: Gluon's, and their shape.

    One side multiplies by a matrix (in, out), where the other has a linear layer of (out, in).
    Either may have more axes, such as (heads, width, out).
    """
    unlike = [pair for pair in alignment.pairs if pair.left.kind != pair.right.kind]
    sides = [
        sorted((*alone, *(pair[i] for pair in map(tuple, unlike))), key=lambda op: op.index)
        for i, alone in enumerate(alignment.alone)
    ]
    found: dict[str, tuple[str, tuple[int, int]]] = {}
    for kinds in (("matmul", "linear"), ("linear", "matmul")):
        ours, theirs = (
            {name: shape for op in ops if op.kind == kind for name, shape in _matrices(op)}
            for ops, kind in zip(sides, kinds, strict=True)
        )
        for name, matrix in theirs.items():
            alike = (n for n, shape in ours.items() if shape == matrix[::-1])
            partner = next(alike, None)
            again = name.endswith(_TURNED) or _TURNED_AXES.fullmatch(name)
            if partner is not None and not again:
                found[name] = partner, matrix
                del ours[partner]
    return found


def _matrices(op: Operation) -> Iterator[tuple[str, tuple[int, int]]]:
    """What is multiplied by, of a product or a linear layer, and its shape as a matrix."""
    held = op.parameters.get("other" if op.kind == "matmul" else "weight")
    if held is None or not op.inputs:
        return
    shape = op.inputs[0].shape[-1], op.shape[-1]
    shape = shape if op.kind == "matmul" else shape[::-1]
    if len(held.shape) > 1 and math.prod(held.shape) == math.prod(shape):
        yield held.name, shape


def turned_axes(
    alignment: Alignment, graphs: Sequence[OperationGraph], named: Container[str] = ()
) -> dict[str, tuple[str, tuple[int, int]]]:
    """Parameters of torch's that lie along the two axes of Gluon's in the other order.

    Such as a bias (1, heads, 1, width) beside that of a layer whose channels are (width, heads).
    Of each Gluon's name, and its own shape before it is transposed. Two of one shape are taken as
    they lie, and so are torch's that are `named`.
    """
    found: dict[str, tuple[str, tuple[int, int]]] = {}
    for pair in alignment.pairs:
        for side, (one, other) in enumerate(((pair.left, pair.right), (pair.right, pair.left))):
            for x in one.inputs if one.kind == other.kind else ():
                turned, partner = _turned_axes(graphs[side], x), other.parameters.get(x.role)
                if turned is None or partner is None:
                    continue
                held, (rows, columns) = turned
                alike = [[n for n in p.shape if n != 1] for p in (held, partner)]
                counts = {math.prod(p.shape) for p in (held, partner)}
                theirs, ours = (held, partner) if side else (partner, held)
                known = theirs.name in named or part_of(theirs.name, {})
                if known or alike[0] == alike[1] or counts != {rows * columns}:
                    continue
                shape = (rows, columns) if side else (columns, rows)
                found.setdefault(theirs.name, (ours.name, shape))
    return found


def _turned_axes(graph: OperationGraph, x: Operand) -> tuple[Parameter, tuple[int, int]] | None:
    """The parameter of which a value is the transpose, and its shape as a matrix."""
    value = x.value
    while value.origin is Origin.OPERATION:
        op = graph.operations[int(value.key)]
        if op.kind == "transpose" and not op.inputs:
            (parameter,) = op.parameters.values()
            order = op.attributes["order"]
            long = [axis for axis, n in zip(order, op.shape, strict=True) if n != 1]
            if len(long) != 2 or long[0] < long[1]:
                return None
            columns, rows = (n for n in op.shape if n != 1)
            return parameter, (rows, columns)
        if op.kind != "reshape" or not op.inputs:
            return None
        value = op.inputs[0].value
    return None


def with_turned(graph: OperationGraph, shapes: Mapping[str, tuple[int, int]]) -> OperationGraph:
    """torch's executed graph with the transposes of these matrices, of these shapes, in their
    place."""
    made = {}
    for name, shape in shapes.items():
        if (whole := graph.parameters.get(name)) is not None:
            turned = f"[{shape[0]}x{shape[1]} transposed]" if whole.shape != shape else _TURNED
            made[name] = {"input": Parameter(f"{name}{turned}", shape[::-1], whole.dtype)}

    def replay(shape: tuple[int, ...]) -> Replay:
        return lambda arrays, dtype: [arrays[0].T.reshape(shape)]

    return _made_of(graph, made, "t", {}, replay)


def _made_of(
    graph: OperationGraph,
    made: Mapping[str, Mapping[str, Parameter]],
    kind: str,
    attributes: Mapping[str, Any],
    replay: Callable[[tuple[int, ...]], Replay],
) -> OperationGraph:
    """The executed graph where an operation makes parameters of others, given by its roles."""
    parameters = dict(graph.parameters)
    joins: list[Operation] = []
    joined: dict[Value, Value] = {}
    for name, parts in made.items():
        whole = parameters.pop(name)
        parameters |= {part.name: part for part in parts.values()}
        read = Value(Origin.PARAMETER, name)
        first = next(op for op in graph if read in op.reads)
        index = len(graph) + len(joins)
        joined[read] = Value(Origin.OPERATION, index)
        joins.append(
            Operation(
                index, kind, attributes, (), parts, (whole.shape,), (whole.dtype,),
                first.path, first.call, first.source, roles=tuple(parts),
                replay=replay(whole.shape),
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
