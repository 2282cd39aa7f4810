"""The last state of a recurrent layer as the last step of what the layer gives, which it is.

torch gives both, and Gluon's layers what they give at each step alone, unless they take states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity_tests.pairing.graph import Operand, Operation, OperationGraph, Origin, Replay, Value
from parity_tests.pairing.vocabulary import Arguments, Emit, emit_concat

KIND = "last_steps"
_LAYERS = ("lstm", "gru", "rnn")


def with_last_steps(
    graph: OperationGraph, normalised: OperationGraph, join: Replay
) -> OperationGraph:
    """The executed graph, in which states of the last layer are made of the steps.

    `normalised` is it in the common vocabulary; `join` joins arrays along their first axis. It is
    the same graph where nothing takes these.
    """
    steps: dict[int, Operation] = {}  # in the place of what takes one of several states
    behind: dict[int, Operation] = {}
    moved: dict[Value, Value] = {}
    for op, layer in _layers(graph, normalised):
        state, ways = Value(Origin.OPERATION, op.index, 1), 1 + layer.attributes["bidirectional"]
        readers = [other for other in graph if state in other.reads]
        first = op.shapes[1][0] - ways
        for other in readers if first else ():
            place = _selected(other, layer, normalised)
            if place is not None and place >= first:
                steps[other.index] = _step(other, op, layer, (place - first,), join)
        if not first and (readers or state in graph.outputs):
            moved[state] = Value(Origin.OPERATION, len(graph) + op.index)
            whole = replace(op, index=len(graph) + op.index, shapes=op.shapes[1:2])
            behind[op.index] = _step(whole, op, layer, tuple(range(ways)), join)
    if not steps and not moved:
        return graph
    operations: list[Operation] = []
    for op in graph:
        operations.append(_reading(steps.get(op.index, op), moved))
        operations += [behind[op.index]] if op.index in behind else []
    outputs = tuple(moved.get(value, value) for value in graph.outputs)
    return replace(graph, operations=tuple(operations), outputs=outputs).renumbered()


def _layers(
    graph: OperationGraph, normalised: OperationGraph
) -> Iterator[tuple[Operation, Operation]]:
    """The executed operations that are a recurrent layer, whose samples all have every step."""
    known = normalised.stands_for
    for op in graph:
        steps, state = (known.get(Value(Origin.OPERATION, op.index, i)) for i in (0, 1))
        if steps is None or state is None or steps.origin is not Origin.OPERATION:
            continue
        layer = normalised.operations[int(steps.key)]
        lengths = any(x.role == "lengths" for x in layer.inputs)
        if layer.kind in _LAYERS and state == replace(steps, output=1) and not lengths:
            yield op, layer


def _selected(op: Operation, layer: Operation, normalised: OperationGraph) -> int | None:
    """Which of a layer's states an executed operation takes, and nothing else."""
    value = normalised.stands_for.get(Value(Origin.OPERATION, op.index))
    while value is not None and value.origin is Origin.OPERATION:
        taken = normalised.operations[int(value.key)]
        if taken.kind == "reshape" and taken.inputs:
            value = taken.inputs[0].value
            continue
        state = Value(Origin.OPERATION, layer.index, 1)
        if taken.kind != "slice" or taken.inputs[0].value != state:
            return None
        one = taken.attributes["axis"] == 0 and taken.shape[0] == 1
        return int(taken.attributes["begin"]) if one else None
    return None


def _step(
    reader: Operation, op: Operation, layer: Operation, taken: tuple[int, ...], join: Replay
) -> Operation:
    """What takes the last steps of ways through a sequence, of the reader's shape."""
    ways = 1 + layer.attributes["bidirectional"]
    time = int(layer.attributes["batch_first"] and len(op.shapes[0]) > 2)
    steps = Value(Origin.OPERATION, op.index)
    length = op.shapes[0][time]
    last = _LastSteps(time, taken, ways, length, reader.shapes[0], join)
    told = {"time": time, "taken": taken, "ways": ways, "length": length}
    return replace(
        reader, kind=KIND, attributes=told, inputs=(Operand("input", steps, op.shapes[0]),),
        parameters={}, dtypes=op.dtypes[:1], roles=("input",), reads=(steps,), replay=last,
        held=None,
    )  # fmt: skip


def _reading(op: Operation, moved: Mapping[Value, Value]) -> Operation:
    if op.kind == KIND or moved.keys().isdisjoint(op.reads):
        return op
    return replace(
        op,
        inputs=tuple(replace(x, value=moved.get(x.value, x.value)) for x in op.inputs),
        reads=tuple(moved.get(value, value) for value in op.reads),
    )


@dataclass(frozen=True)
class _LastSteps:
    """Ends of (N, length, ways · width), or with `time` 0 of (length, N, …), in a shape.

    The second way ends where the first begins.
    """

    time: int
    taken: tuple[int, ...]
    ways: int
    length: int
    shape: tuple[int, ...]
    join: Replay

    def __call__(self, arrays: Sequence[Any], dtype: str) -> list[Any]:
        (steps,) = arrays
        steps = steps.swapaxes(0, 1) if self.time else steps
        width, ends = steps.shape[-1] // self.ways, []
        for way in self.taken:
            at = 0 if way else self.length - 1
            ends.append(steps[at : at + 1][..., way * width : (way + 1) * width])
        joined = ends[0] if len(ends) == 1 else self.join(ends, dtype)[0]
        return [joined.reshape(self.shape)]


def emit_last_steps(args: Arguments, emit: Emit) -> Operand:
    """The same as slices."""
    steps = args.first
    time, ways, length = map(args.attribute, ("time", "ways", "length"))
    shape, width = (*steps.shape[:time], 1, *steps.shape[time + 1 :]), steps.shape[-1] // ways
    own = (1, *(n for axis, n in enumerate(shape[:-1]) if axis != time), width)
    ends = []
    for way in args.attribute("taken"):
        at = 0 if way else length - 1
        x = emit("slice", [("input", steps)], shape, axis=time, begin=at, step=1)
        along = {"axis": len(shape) - 1, "begin": way * width, "step": 1}
        x = emit("slice", [("input", x)], (*shape[:-1], width), **along)
        ends.append(emit("reshape", [("input", x)], own))
    joined = emit_concat(emit, ends, 0, (len(ends), *own[1:]))
    return emit("reshape", [("input", joined)], args.shape)
