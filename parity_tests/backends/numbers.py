"""Arrays of one value that no training changes, read as the numbers that they hold.

One net multiplies by 0.1, and the other by a buffer of 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity_tests.backends.base import source_of
from parity_tests.pairing.dataflow import Alignment
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Replay, Value
from parity_tests.pairing.vocabulary import ELEMENTWISE, real
from parity_tests.reporting.verdicts import Side


def beside_numbers(
    alignment: Alignment, nets: Mapping[Side, Any], traces: Mapping[Side, OperationGraph]
) -> dict[Side, dict[Value, float]]:
    """The numbers in arrays that the other net has as numbers, by the arrays' values."""
    found: dict[Side, dict[Value, float]] = {}
    for pair in alignment.differing:
        ends = {Side.GLUON: pair.left, Side.TORCH: pair.right}
        for side, beside in ((Side.GLUON, Side.TORCH), (Side.TORCH, Side.GLUON)):
            op, other = ends[side], ends[beside]
            if not {op.kind, other.kind} <= ELEMENTWISE or "scalar" in op.attributes:
                continue
            if "scalar" not in other.attributes or (other.inputs and not op.inputs):
                continue
            written = {real(n): n for n in _written(other, traces[beside])}
            for value, number in _held(op, nets[side], traces[side]).items():
                found.setdefault(side, {})[value] = written.get(number, number)
    return found


def _written(op: Operation, graph: OperationGraph) -> Iterator[float]:
    """The numbers of the net's code behind an operation, which float32 may not hold: 1/255."""
    for index in op.merged:
        for value in graph.operations[index].attributes.values():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            yield from (-number, number)
            if number:
                yield from (-1 / number, 1 / number)


def _held(op: Operation, net: Any, graph: OperationGraph) -> dict[Value, float]:
    fixed = source_of(net).fixed(net)
    arrays = {
        Value(Origin.PARAMETER, p.name): fixed[p.name]
        for p in op.parameters.values()
        if p.name in fixed
    }
    for x in op.inputs:
        if x.value.origin is Origin.CONSTANT and str(x.value.key) in graph.constants:
            arrays[x.value] = graph.constants[str(x.value.key)]
    return {
        value: real(array.item() if hasattr(array, "item") else array.asscalar())
        for value, array in arrays.items()
        if math.prod(array.shape) == 1 and "float" in str(array.dtype)
    }


def with_numbers(
    graph: OperationGraph, numbers: Mapping[Value, float], full: Callable[..., Any]
) -> OperationGraph:
    """The executed graph, whose operations on one more array have a number in place of these.

    `full(like, shape, number)` makes an array of the framework's.
    """
    operations = tuple(_with_numbers(op, numbers, full) for op in graph)
    return replace(graph, operations=operations)


def _with_numbers(
    op: Operation, numbers: Mapping[Value, float], full: Callable[..., Any]
) -> Operation:
    places = [place for place, value in enumerate(op.reads) if value in numbers]
    if len(op.reads) != 2 or len(places) != 1 or op.opaque:
        return op
    (place,) = places
    value, role = op.reads[place], op.roles[place]
    shapes = [x.shape for x in op.inputs if x.value == value]
    shapes += [op.parameters[role].shape] if role in op.parameters else []
    return replace(
        op,
        attributes={**op.attributes, role: numbers[value]},
        inputs=tuple(x for x in op.inputs if x.value != value),
        parameters={r: p for r, p in op.parameters.items() if r != role},
        roles=tuple(r for r in op.roles if r != role),
        reads=tuple(v for v in op.reads if v != value),
        replay=None if op.replay is None else _Filled(
            op.replay, place, shapes[0], numbers[value], full
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class _Filled:
    """A replay that is given a number where it was given an array."""

    replay: Replay
    place: int
    shape: tuple[int, ...]
    number: float
    full: Callable[..., Any]

    def __call__(self, arrays: Sequence[Any], dtype: str) -> list[Any]:
        given = list(arrays)
        given.insert(self.place, self.full(given[0], self.shape, self.number))
        return self.replay(given, dtype)
