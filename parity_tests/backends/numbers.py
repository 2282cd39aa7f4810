"""Arrays that no training changes, read as what the code of the net writes out.

One net multiplies by 0.1, and the other by a buffer of 0.1; one takes rows 0 to L of a buffer of
places, and the other makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity_tests.backends.base import source_of
from parity_tests.backends.executed import is_statistic
from parity_tests.backends.files.tape import DRAWN, values_of
from parity_tests.backends.tracing import HELD
from parity_tests.numerics.perturb import holds_integers
from parity_tests.pairing.dataflow import Alignment
from parity_tests.pairing.graph import (
    Operand,
    Operation,
    OperationGraph,
    Origin,
    Replay,
    Value,
)
from parity_tests.pairing.vocabulary import ELEMENTWISE, as_numpy, real
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


def written(graph: OperationGraph) -> set[str]:
    """The parameters into which the net's own code puts other values."""
    same = {Value(Origin.OPERATION, op.index) for op in graph if op.kind == "cast_to_itself"}
    return {name for name, value in graph.writes.items() if value not in same}


def beside_code(
    alignment: Alignment,
    nets: Mapping[Side, Any],
    graphs: Mapping[Side, OperationGraph],
    kept: Mapping[Side, Container[str]],
) -> Iterator[dict[Side, dict[str, Any]]]:
    """Buffers and constants that may be read as code, by name: those that are read otherwise than
    one of the other net is, then all.

    One in whose place the other net has a weight is a weight too, unless it holds places; one
    beside an array of the other net's is compared with that. `kept` are those that are written.
    """
    constants = {
        side: {n: x for n, x in source_of(net).constants(net).items() if n not in kept[side]}
        for side, net in nets.items()
    }
    alike: dict[Side, set[str]] = {side: set() for side in nets}
    compared: dict[Side, set[str]] = {side: set() for side in nets}
    for pair in alignment.pairs:
        ends = {Side.GLUON: pair.left, Side.TORCH: pair.right}
        held = {
            side: {r: p.name for r, p in op.parameters.items() if p.name in constants[side]}
            for side, op in ends.items()
        }
        for side, other in ((Side.GLUON, Side.TORCH), (Side.TORCH, Side.GLUON)):
            arrays = graphs[other].constants
            own = {x.role for x in ends[other].inputs if str(x.value.key) in arrays}
            compared[side] |= {name for role, name in held[side].items() if role in own}
            if not pair.differences:
                alike[side] |= {name for role, name in held[side].items() if role in held[other]}
    back = {ours: theirs for theirs, ours in alignment.parameters.items()}
    partners = {Side.GLUON: back, Side.TORCH: alignment.parameters}
    others = {Side.GLUON: constants[Side.TORCH], Side.TORCH: constants[Side.GLUON]}
    every = {
        side: {
            p.name: constants[side][p.name]
            for op in graph
            for role, p in op.parameters.items()
            if p.name in constants[side]
            and p.name not in compared[side]
            and not is_statistic(role)
            and (
                partners[side].get(p.name) in {None, *others[side]}
                or _is_of_places(constants[side][p.name])
            )
        }
        for side, graph in graphs.items()
    }
    unlike = {
        side: {name: x for name, x in of_side.items() if name not in alike[side]}
        for side, of_side in every.items()
    }
    for found in (unlike, every):
        if any(found.values()):
            yield found


def _is_of_places(array: Any) -> bool:
    """Whether an array holds whole numbers, as no weight does; a new scale is all alike."""
    numbers = as_numpy(array)
    alike = bool((numbers == numbers.reshape(-1)[:1]).all())
    return numbers.dtype.kind in "iub" or (holds_integers(numbers) and not alike)


def with_constants(
    graph: OperationGraph, arrays: Mapping[str, Any], full: Callable[..., Any]
) -> OperationGraph:
    """The executed graph that has these parameters as constants of the net's code.

    `full` is as of `with_numbers`.
    """
    if not arrays:
        return graph
    moved = {Value(Origin.PARAMETER, name): Value(Origin.CONSTANT, name) for name in arrays}
    known = {Value(Origin.CONSTANT, key): x for key, x in {**graph.constants, **arrays}.items()}
    operations = []
    for op in graph:
        reads = tuple(moved.get(value, value) for value in op.reads)
        operands = [
            Operand(role, moved[value], parameter.shape)
            for role, parameter in op.parameters.items()
            if (value := Value(Origin.PARAMETER, parameter.name)) in moved
        ]
        made = _made_again(op, reads, known, full)
        if made is not None:
            known[Value(Origin.OPERATION, op.index)] = made
        roles = {x.role for x in operands}
        op = replace(
            op,
            reads=reads,
            inputs=(*op.inputs, *operands),
            parameters={role: p for role, p in op.parameters.items() if role not in roles},
            held=op.held if made is None or op.held is not None else made,
        )
        operations.append(op)
    return replace(
        graph,
        operations=tuple(operations),
        constants={**graph.constants, **arrays},
        writes={name: value for name, value in graph.writes.items() if name not in arrays},
    )


def _made_again(
    op: Operation, reads: Sequence[Value], known: Mapping[Value, Any], full: Callable[..., Any]
) -> Any:
    """What an operation with one output makes of constants and shapes; None of any other."""
    arrays = [known.get(value) for value in reads]
    values = values_of(op.kind, arrays)
    if op.held is None and (not values or any(x is None for x in values)):
        return None
    single = len(op.shapes) == 1 and not op.opaque and math.prod(op.shape) <= HELD
    if op.replay is None or not single or DRAWN.search(op.kind):
        return None
    shapes = {x.value: x.shape for x in op.inputs}
    like = next((x for x in arrays if x is not None), None)
    for place, value in enumerate(reads):
        if arrays[place] is None and like is not None and value in shapes:
            arrays[place] = full(like, shapes[value], 0)  # it is read for its shape
    if any(x is None for x in arrays):
        return None
    (made,) = op.replay(arrays, "float32")
    return made


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
