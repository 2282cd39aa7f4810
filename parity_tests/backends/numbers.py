"""Arrays that no training changes, read as what the code of the net writes out.

One net multiplies by 0.1, and the other by a buffer of 0.1; one takes rows 0 to L of a buffer of
places, and the other makes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.backends.base import SIDES, Source, is_recorded, source_of
from parity_tests.backends.executed import is_statistic
from parity_tests.backends.files.tape import DRAWN, values_of
from parity_tests.backends.tracing import HELD
from parity_tests.numerics.operators.executed import IN_FLOAT32
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

# In which one net may have a number and the other an array: a larger of x and 0.1 is a clip
_WITH_NUMBERS = ELEMENTWISE | {"clip"}


def beside_numbers(
    alignment: Alignment,
    nets: Mapping[Side, Any],
    executed: Mapping[Side, OperationGraph],
    normalised: Mapping[Side, OperationGraph],
) -> dict[Side, dict[Value, float]]:
    """The numbers in arrays beside which the other net has a number, by the arrays' values.

    Or beside which it has the same in an array that it comes by otherwise: in float64 one is
    computed of the numbers in the net's code, and the other holds what float32 has of the result.
    """
    of = {side: _Numbers(nets[side], executed[side], normalised[side]) for side in SIDES}
    found: dict[Side, dict[Value, float]] = {side: {} for side in SIDES}
    kept: dict[Side, set[Value]] = {side: set() for side in SIDES}  # read beside their like
    for pair in alignment.pairs:
        ends = dict(zip(SIDES, (pair.left, pair.right), strict=True))
        if not {op.kind for op in ends.values()} <= _WITH_NUMBERS:
            continue
        arrays = {side: of[side].filled(op) for side, op in ends.items()}
        if not any(arrays.values()):
            continue
        plain = [op for side, op in ends.items() if not arrays[side]]
        if any(len(op.inputs) + len(op.parameters) != 1 for op in plain):
            continue
        if not plain and _stay(*(list(of_side.values()) for of_side in arrays.values())):
            for side in SIDES:
                kept[side] |= arrays[side].keys()
            continue
        computed = {_computed(op, arrays[side]) for side, op in ends.items()}
        if len(computed) > 1:
            continue
        written = {
            real(n): n for side, op in ends.items() for n in of[side].written(op, arrays[side])
        }
        for side in SIDES:
            found[side] |= {
                value: written.get(h.number, h.number) for value, h in arrays[side].items()
            }
    left = {s: {v: n for v, n in found[s].items() if v not in kept[s]} for s in SIDES}
    return {side: of_side for side, of_side in left.items() if of_side}


def beside_nothing(
    alignment: Alignment,
    nets: Mapping[Side, Any],
    executed: Mapping[Side, OperationGraph],
    normalised: Mapping[Side, OperationGraph],
    kept: Mapping[Side, Container[str]],
) -> dict[Side, dict[Value, float]]:
    """The numbers in arrays that only operations without a partner of their kind read.

    One net subtracts a buffer of 0.45 and divides by one of 0.225, and the other adds −0.45 and
    multiplies by 1 / 0.225: as numbers these are of one kind. `kept` are buffers that are written.
    """
    found: dict[Side, dict[Value, float]] = {}
    paired = [pair for pair in alignment.pairs if pair.left.kind != pair.right.kind]
    lone = {
        side: [*alignment.alone[place], *(list(pair)[place] for pair in paired)]
        for place, side in enumerate(SIDES)
    }
    for side, other in (SIDES, SIDES[::-1]):
        of = _Numbers(nets[side], executed[side], normalised[side])
        code = _in_code((i for op in lone[other] for i in op.merged), executed[other])
        written = {real(m): m for n in code for m in _forms(n)}
        arrays = [
            (value, held.number)
            for op in lone[side]
            if op.kind in _WITH_NUMBERS
            for value, held in of.filled(op).items()
            if _computed(op, of.filled(op)) and str(value.key) not in kept[side]
        ]
        if written and arrays:
            found[side] = {value: written.get(number, number) for value, number in arrays}
    return found


def _computed(op: Operation, arrays: Iterable[Value]) -> bool:
    """Whether an operation reads what is no parameter, beside its arrays of one number."""
    others = sum(value.origin is not Origin.PARAMETER for value in arrays)
    return len(op.inputs) > min(others, 1)


@dataclass(frozen=True)
class _Array:
    """The number that an array is full of, and how the net comes by it."""

    number: float
    like: tuple[Origin, int]


def _stay(ours: Sequence[_Array], theirs: Sequence[_Array]) -> bool:
    """Whether both nets have arrays that are alike, or a buffer that holds another number."""
    both = [*ours, *theirs]
    other = len({held.number for held in both}) > 1
    buffers = any(held.like[0] is Origin.PARAMETER for held in both)
    return (other and buffers) or not set(ours).isdisjoint(theirs)


class _Numbers:
    """The numbers of one net: in its code, and in arrays that no training changes."""

    def __init__(self, net: Any, executed: OperationGraph, normalised: OperationGraph) -> None:
        self._fixed = source_of(net).fixed(net)
        self._executed, self._normalised = executed, normalised
        self._known: dict[Value, _Array | None] = {}
        self._made = {
            Value(Origin.OPERATION, op.index): op for op in normalised if op.kind == "constant"
        }

    def filled(self, op: Operation) -> dict[Value, _Array]:
        """The arrays of one number that an operation reads, by the values that were executed."""
        reads = {v: None for index in op.merged for v in self._executed.operations[index].reads}
        for value in reads:
            if value not in self._known:
                self._known[value] = self._filled(value)
        return {value: known for value in reads if (known := self._known[value]) is not None}

    def _filled(self, value: Value) -> _Array | None:
        key, array, steps = str(value.key), None, 0
        if value.origin is Origin.PARAMETER and key not in self._executed.writes:
            array = self._fixed.get(key)
        elif value.origin is Origin.CONSTANT:
            array = self._executed.constants.get(key)
        elif value.origin is Origin.OPERATION and not value.output:
            stands = self._normalised.stands_for.get(value)
            made = None if stands is None else self._made.get(stands)
            if made is not None:
                return _Array(float(made.attributes["value"]), (value.origin, len(made.merged)))
            array = self._executed.operations[int(value.key)].held
            behind, _ = self._executed.leading_to([value])
            steps = sum(self._executed.operations[i].held is not None for i in behind)
        if array is None or "float" not in str(array.dtype):
            return None
        values = np.asarray(array.asnumpy() if hasattr(array, "asnumpy") else array)
        if not values.size or (values != values.flat[0]).any():
            return None
        return _Array(real(values.flat[0]), (value.origin, steps))

    def written(self, op: Operation, arrays: Iterable[Value]) -> Iterator[float]:
        """The numbers of the net's code behind an operation, which float32 may not hold: 1/255."""
        behind, _ = self._executed.leading_to(v for v in arrays if v.origin is Origin.OPERATION)
        for number in _in_code((*op.merged, *behind), self._executed):
            yield from _forms(number)


def _forms(number: float) -> Iterator[float]:
    """A number as what adds, subtracts, multiplies or divides has it, itself last."""
    if number:
        yield from (-1 / number, 1 / number)
    yield from (-number, number)


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
    places = {side: _read_for_places(graph) for side, graph in graphs.items()}
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
                or p.name in places[side]
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


def _read_for_places(graph: OperationGraph) -> set[str]:
    """The parameters that decide what a net looks up, however they are cut and moved."""
    role_of = {"embedding": "input", "take": "index", "gather": "index"}
    readers = [(op, role_of[op.kind]) for op in graph if op.kind in role_of]
    values = [x.value for op, role in readers for x in op.inputs if x.role == role]
    behind, _ = graph.leading_to(values)
    held = [p for op, role in readers if (p := op.parameters.get(role)) is not None]
    held += [p for index in behind for p in graph.operations[index].parameters.values()]
    return {parameter.name for parameter in held}


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


def beside_fixed(
    alignment: Alignment, nets: Mapping[Side, Any], graphs: Mapping[Side, OperationGraph]
) -> dict[Side, dict[Value, np.ndarray]]:
    """What is read of arrays that no input decides, where the other net comes by them otherwise.

    By value, in float64, and the same for both nets: what a record holds, else what one computes of
    the numbers in its code, else what it holds in float32. A table of sines, or `full(0.1)`, whose
    number is that of float32, beside `ones * 0.1`.
    """
    found: dict[Side, dict[Value, np.ndarray]] = {side: {} for side in SIDES}
    for pair in alignment.pairs:
        ours, theirs = (
            list(_fixed(op, graphs[side]))
            for side, op in zip(SIDES, (pair.left, pair.right), strict=True)
        )
        for (a, x), (b, y) in itertools.product(ours, theirs):
            if a.origin is b.origin is Origin.CONSTANT or not _nearly(x, y):
                continue
            both = [(Side.GLUON, a, x), (Side.TORCH, b, y)]
            known = (found[side].get(value) for side, value, _ in both)
            exact = next((array for array in known if array is not None), None)
            if exact is None:
                recorded = [array for side, _, array in both if is_recorded(nets[side])]
                made = [
                    _in_float64(value, graphs[side], source_of(nets[side]))
                    for side, value, _ in ([] if recorded else both)
                ]
                computed = zip(made, (x, y), strict=False)
                near = [m for m, held in computed if m is not None and _nearly(m, held)]
                exact = [*recorded, *near, x][0]
            for side, value, held in both:
                found[side][value] = (
                    exact.reshape(held.shape) if exact.size == held.size
                    else np.full(held.shape, exact.flat[0])
                )  # fmt: skip
    if not any(map(is_recorded, nets.values())):
        _note_written(found, alignment, graphs)
    return {side: arrays for side, arrays in found.items() if arrays}


def _note_written(
    found: Mapping[Side, dict[Value, np.ndarray]],
    alignment: Alignment,
    graphs: Mapping[Side, OperationGraph],
) -> None:
    """Note arrays of one number that the other net has as a number in its code.

    `pad`, `where` and `x * 0.1` have the number as it is written, `full(0.1)` that of float32.
    """
    of = {
        side: [*(list(pair)[place] for pair in alignment.pairs), *alignment.alone[place]]
        for place, side in enumerate(SIDES)
    }
    for side, other in (SIDES, SIDES[::-1]):
        numbers = (n for op in of[other] for n in _in_code(op.merged, graphs[other]))
        written = {n for n in numbers if math.isfinite(n) and n != np.float32(n)}
        for value, held in (x for op in of[side] if written for x in _fixed(op, graphs[side])):
            exact = next((n for n in written if _nearly(held, np.array([n]))), None)
            if exact is not None:
                found[side].setdefault(value, np.full(held.shape, exact))


def _in_code(indices: Iterable[int], graph: OperationGraph) -> Iterator[float]:
    """The numbers that executed operations are given in the code, and hold as they are there."""
    for index in indices:
        if graph.operations[index].kind in IN_FLOAT32:
            continue
        for value in graph.operations[index].attributes.values():
            with suppress(TypeError, ValueError):  # a tuple, or a word
                yield float(value)


def with_exact(
    graph: OperationGraph,
    exact: Mapping[Value, np.ndarray],
    array: Callable[..., Any],
) -> OperationGraph:
    """The executed graph with these values of its constants, and of what it makes of them.

    `array(values, dtype, like)` makes an array of the framework's.
    """
    constants = {
        key: array(exact[value], "float64", x) if (value := Value(Origin.CONSTANT, key)) in exact
        else x
        for key, x in graph.constants.items()
    }  # fmt: skip
    operations = tuple(
        op if op.replay is None or value not in exact
        else replace(op, replay=_Exact(op.replay, exact[value], array))
        for op in graph
        for value in [Value(Origin.OPERATION, op.index)]
    )  # fmt: skip
    return replace(graph, constants=constants, operations=operations)


@dataclass(frozen=True)
class _Exact:
    """A replay that gives these values, as an array of what it would give."""

    replay: Replay
    values: np.ndarray
    array: Callable[..., Any]

    @property
    def number(self) -> int:
        """The number of an operation that was recorded."""
        number: int = self.replay.number  # type: ignore[attr-defined]
        return number

    def __call__(self, arrays: Sequence[Any], dtype: str) -> list[Any]:
        (made,) = self.replay(arrays, dtype)
        return [self.array(self.values, dtype, made)]


def _fixed(op: Operation, graph: OperationGraph) -> Iterator[tuple[Value, np.ndarray]]:
    """The arrays of floats that no input decides, of those that an operation reads."""
    for value in {v: None for index in op.merged for v in graph.operations[index].reads}:
        held = None
        if value.origin is Origin.CONSTANT:
            held = graph.constants.get(str(value.key))
        elif value.origin is Origin.OPERATION and not value.output:
            held = graph.operations[int(value.key)].held
        if held is not None and "float" in str(held.dtype) and math.prod(held.shape):
            yield value, as_numpy(held)


def _nearly(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are two roundings of the same to float32, and need not be the same.

    Arrays of one number are alike whatever their shapes.
    """
    x, y = a.reshape(-1), b.reshape(-1)
    if (x == x[0]).all() and (y == y[0]).all():
        x, y = x[:1], y[:1]
    if x.size != y.size or (holds_integers(x) and np.array_equal(x, y)):
        return False
    rounding = 4 * float(np.finfo(np.float32).eps)
    largest = float(np.abs(y[np.isfinite(y)]).max(initial=0))
    return np.allclose(x, y, rtol=rounding, atol=rounding * largest)


def _in_float64(value: Value, graph: OperationGraph, source: Source) -> np.ndarray | None:
    """What operations of constants and shapes give in float64; None where one cannot."""
    if value.origin is Origin.CONSTANT:
        return None
    known = {
        Value(Origin.CONSTANT, key): source.array(as_numpy(x), "float64", x)
        if "float" in str(x.dtype)
        else x
        for key, x in graph.constants.items()
    }
    behind, _ = graph.leading_to([value])
    for number in sorted(behind):
        op = graph.operations[number]
        if op.held is not None:
            made = _made_again(op, op.reads, known, source.full, "float64")
            if made is None:
                return None
            known[Value(Origin.OPERATION, number)] = made
    return as_numpy(known[value])


def _made_again(
    op: Operation,
    reads: Sequence[Value],
    known: Mapping[Value, Any],
    full: Callable[..., Any],
    dtype: str = "float32",
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
    if recorded := getattr(op.replay, "gave", None):  # elsewhere, of the same arrays
        return recorded()
    (made,) = op.replay(arrays, dtype)
    return made


def with_numbers(
    graph: OperationGraph, numbers: Mapping[Value, float], full: Callable[..., Any]
) -> OperationGraph:
    """The executed graph, whose operations on one more array have a number in place of these.

    `full(like, shape, number)` makes an array of the framework's.
    """
    operations = tuple(_with_numbers(op, numbers, full) for op in graph)
    return replace(graph, operations=operations).live()


def _with_numbers(
    op: Operation, numbers: Mapping[Value, float], full: Callable[..., Any]
) -> Operation:
    places = [place for place, value in enumerate(op.reads) if value in numbers]
    if len(op.reads) != 2 or len(places) != 1 or op.opaque:
        return op
    (place,) = places
    value, role = op.reads[place], op.roles[place]
    others = [x.shape for x in op.inputs if x.value != value]
    others += [p.shape for name, p in op.parameters.items() if name != role]
    if others and others[0] != op.shapes[0]:  # it expands the other one
        return op
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
