"""Aligns two normalised operation graphs by dataflow: pairs, what differs, parameters mapped."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.pairing.graph import Operand, Operation, OperationGraph, Origin, Parameter, Value
from parity_tests.pairing.matching import GraphSide, Matching
from parity_tests.pairing.vocabulary import COMMUTATIVE, NUMBERS

# Of each side, the executed recurrent layers, by index, to be read as the layers they consist of
Stacks = tuple[Container[int], Container[int]]
NO_STACKS: Stacks = ((), ())


@dataclass(frozen=True)
class Difference:
    """What is not alike in two paired operations: a kind, an attribute, a parameter, an edge."""

    what: str
    left: object
    right: object

    def __str__(self) -> str:
        return f"{self.what}: {self.left} against {self.right}"


@dataclass(frozen=True)
class OperationPair:
    """Two operations in the same place, the operands that correspond, and what differs."""

    left: Operation
    right: Operation
    edges: tuple[tuple[Operand, Operand], ...] = ()
    differences: tuple[Difference, ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        return iter((self.left, self.right))

    @property
    def stacked(self) -> bool:
        """Whether one recurrent layer has in it what the other side has one after the other."""
        return any(d.what in ("layers", "bidirectional") for d in self.differences)


@dataclass(frozen=True)
class Packed:
    """A parameter of one side, the left one's being 0, in the place of several of the other.

    `alone`: all of these are of what reads the same value.
    """

    side: int
    whole: Parameter
    parts: tuple[Parameter, ...]
    alone: bool

    def __str__(self) -> str:
        owner, other = ("Gluon", "torch") if not self.side else ("torch", "Gluon")
        names = ", ".join(part.name for part in self.parts)
        shapes = ", ".join(str(shape) for shape in dict.fromkeys(p.shape for p in self.parts))
        return (
            f"{owner}'s {self.whole.name} {self.whole.shape} has the place of {other}'s {names} of "
            f"{shapes}"
        )


@dataclass
class Alignment:
    """Two aligned graphs.

    `parameters` maps the right net's names to the left net's; `conflicts` are those that would
    need two partners, and `unmapped` those of each side that an executed operation reads and
    that have no partner. Those `guessed` have partners by their shape alone. `packed` has
    those that are several of the other net.
    """

    pairs: list[OperationPair] = field(default_factory=list)
    alone: tuple[list[Operation], list[Operation]] = field(default_factory=lambda: ([], []))
    parameters: dict[str, str] = field(default_factory=dict)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    unmapped: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    guessed: list[str] = field(default_factory=list)
    packed: list[Packed] = field(default_factory=list)
    outputs: list[Difference] = field(default_factory=list)

    @property
    def differing(self) -> list[OperationPair]:
        return [pair for pair in self.pairs if pair.differences]

    def lengths(self, side: int) -> dict[str, list[int]]:
        """How many rows each part has of a side's parameters that are several of the other's."""
        of_side = (one for one in self.packed if one.side == side)
        return {one.whole.name: [part.shape[0] for part in one.parts] for one in of_side}

    def settled(self, parameters: Mapping[str, str]) -> Alignment:
        """The same with partners for some that were guessed."""
        left = [name for name in self.guessed if name not in parameters]
        return replace(self, parameters={**self.parameters, **parameters}, guessed=left)

    @property
    def stacks(self) -> tuple[set[int], set[int]]:
        """Recurrent layers of several, or of two ways, that the other side has otherwise."""
        unlike = [pair for pair in self.pairs if pair.stacked or pair.left.kind != pair.right.kind]
        sides = (
            [*self.alone[0], *(p.left for p in unlike)],
            [*self.alone[1], *(p.right for p in unlike)],
        )
        left, right = (
            {
                i
                for op in of_side
                if op.attributes.get("layers", 1) > 1 or op.attributes.get("bidirectional")
                for i in op.merged
            }
            for of_side in sides
        )
        return left, right

    @property
    def unlike(self) -> int:
        """How many outputs, and operations but for reshapes, are not alike, or are alone."""
        operations = (*self.alone[0], *self.alone[1], *(pair.left for pair in self.differing))
        return len(self.outputs) + sum(op.kind != "reshape" for op in operations)

    @property
    def total(self) -> bool:
        """Whether every parameter that either net computes with has exactly one partner."""
        return not (self.conflicts or any(self.unmapped))

    @property
    def equal(self) -> bool:
        """Whether both graphs are the same function of their inputs and parameters."""
        return self.total and not (any(self.alone) or self.differing or self.outputs)


def align(
    left: OperationGraph,
    right: OperationGraph,
    *,
    values: bool = False,
    pinned: Sequence[tuple[int, int]] = (),
) -> Alignment:
    """Pair the operations of two graphs in the common vocabulary.

    With `values`, both graphs were traced with digests on equal inputs and weights, and these
    decide between operations that are alike. Operations whose indices are `pinned` are paired.
    """
    sides = GraphSide(left), GraphSide(right)
    matching = Matching(*sides, values)
    matching.pin(pinned)
    matching.solve()
    return _compare(*sides, matching)


def _compare(left: GraphSide, right: GraphSide, matching: Matching) -> Alignment:
    result = Alignment()
    translate = _Translation(left, right, matching)
    for op in left.operations:
        if op.index in matching.forth:
            other = right.operations[matching.forth[op.index]]
            result.pairs.append(_compare_pair(op, other, translate))
        else:
            result.alone[0].append(op)
    result.alone[1].extend(op for op in right.operations if op.index not in matching.back)
    _map_parameters(result, left, right)
    ends = left.graph.outputs, right.graph.outputs
    if len(ends[0]) != len(ends[1]):
        result.outputs.append(Difference("outputs", len(ends[0]), len(ends[1])))
    for position, (a, b) in enumerate(zip(*ends, strict=False)):
        if not translate.same(a, b):
            result.outputs.append(Difference(f"output {position}", a, b))
    return result


class _Translation:
    """Whether a value of the left graph is, by the matching, a value of the right one.

    An operation that one side has alone is a difference of its own, and none of its readers: they
    are looked at as if it passed its input on, as a reshape does.
    """

    def __init__(self, left: GraphSide, right: GraphSide, matching: Matching) -> None:
        self._sides = (left, matching.forth), (right, matching.back)
        self._forth = matching.forth

    def same(self, left: Value, right: Value) -> bool:
        (ours, paired), (theirs, other_paired) = self._sides
        values = _through_alone(left, ours, paired), _through_alone(right, theirs, other_paired)
        return any(self._same(a, b) for a in values[0] for b in values[1])

    def describe(self, left: Value, right: Value) -> tuple[str, str]:
        """What two values are."""
        (ours, _), (theirs, _) = self._sides
        return _described(left, ours), _described(right, theirs)

    def _same(self, left: Value, right: Value) -> bool:
        if left.origin is not right.origin or left.output != right.output:
            return False
        if left.origin is Origin.OPERATION:
            return self._forth.get(int(left.key)) == right.key
        if left.origin is Origin.INPUT:
            return left.key == right.key
        told_apart = all(str(value.key).startswith(NUMBERS) for value in (left, right))
        return left.key == right.key or not told_apart


def _described(value: Value, side: GraphSide) -> str:
    if value.origin is Origin.OPERATION:
        return f"the output of {side.operations[int(value.key)]}"
    return f"input {int(value.key) + 1}" if value.origin is Origin.INPUT else str(value.key)


def _through_alone(value: Value, side: GraphSide, paired: Mapping[int, int]) -> list[Value]:
    values, pending = [], [value]
    while pending:
        value = pending.pop()
        if value in values:
            continue
        values.append(value)
        if value.origin is Origin.OPERATION:
            op = side.operations[int(value.key)]
            if op.index not in paired or op.kind == "reshape":
                pending += [x.value for x in op.inputs]
    return values


def _compare_pair(left: Operation, right: Operation, translate: _Translation) -> OperationPair:
    differences = []
    if left.kind != right.kind:
        differences.append(Difference("kind", left.kind, right.kind))
    else:
        for name in sorted({*left.attributes, *right.attributes}):
            a, b = left.attributes.get(name), right.attributes.get(name)
            same = name == "axis" and _place_of_axis(left) == _place_of_axis(right)
            if a != b and not same and OWN not in (a, b):  # what is the net's own, its values tell
                differences.append(Difference(name, a, b))
    for role in sorted({*left.parameters, *right.parameters}):
        one, two = left.parameters.get(role), right.parameters.get(role)
        if one is None or two is None:
            differences.append(Difference(role, one and one.name, two and two.name))
        elif [n for n in one.shape if n != 1] != [n for n in two.shape if n != 1]:
            differences.append(Difference(f"{role}'s shape", one.shape, two.shape))
    # with other inputs another shape is a consequence
    same_inputs = sorted(x.shape for x in left.inputs) == sorted(x.shape for x in right.inputs)
    if left.kind == right.kind and same_inputs and left.shapes[0] != right.shapes[0]:
        differences.append(Difference("output shape", left.shapes[0], right.shapes[0]))
    edges, broken = _compare_edges(left, right, translate)
    return OperationPair(left, right, edges, (*differences, *broken))


def _place_of_axis(op: Operation) -> object:
    """How long an operation's axis is and how much is behind it, however the others are cut."""
    axis = op.attributes.get("axis")
    if not isinstance(axis, int) or not op.inputs:
        return axis
    shape = op.inputs[0].shape
    return shape[axis:][:1], math.prod(shape[axis:][1:])


def _compare_edges(
    left: Operation, right: Operation, translate: _Translation
) -> tuple[tuple[tuple[Operand, Operand], ...], list[Difference]]:
    edges: list[tuple[Operand, Operand]] = []
    broken: list[Difference] = []
    theirs = list(right.inputs)
    ours = []
    for x in left.inputs:
        anywhere = left.kind in COMMUTATIVE or left.kind != right.kind
        alike = [
            y for y in theirs if (anywhere or y.role == x.role) and translate.same(x.value, y.value)
        ]
        if alike:
            edges.append((x, alike[0]))
            theirs.remove(alike[0])
        else:
            ours.append(x)
    for x, y in zip(ours, theirs, strict=False):
        sources = translate.describe(x.value, y.value)
        broken.append(Difference(f"reads {x.role}", *sources))
    more = len(theirs) - len(ours)
    if more:
        broken.append(Difference("number of inputs", len(left.inputs), len(right.inputs)))
    return tuple(edges), broken


def _map_by_shape(result: Alignment, back: dict[str, str]) -> None:
    """Map what is left of operations that have no counterpart: by shape, in the order of use.

    Where one side has a layer and the other computes it step by step, no operation says which
    parameter is which; the values will.
    """
    unlike = [pair for pair in result.pairs if pair.left.kind != pair.right.kind or pair.stacked]
    sides = (
        sorted((*result.alone[0], *(p.left for p in unlike)), key=lambda op: op.index),
        sorted((*result.alone[1], *(p.right for p in unlike)), key=lambda op: op.index),
    )
    ours, theirs = (
        {
            p.name: ("complex" in p.dtype, [n for n in p.shape if n != 1])
            for op in ops
            for p in op.parameters.values()
        }
        for ops in sides
    )
    free = {name: shape for name, shape in ours.items() if name not in back}
    for name, shape in theirs.items():
        if name in result.parameters:
            continue
        partner = next((other for other, size in free.items() if size == shape), None)
        if partner is not None:
            result.parameters[name] = partner
            result.guessed.append(name)
            back[partner] = name
            del free[partner]


def _packed(result: Alignment) -> Iterator[Packed]:
    """What one side holds in one array, and the other in one for each of several operations.

    Such as the projections of attention: operations of one kind without partners, one after the
    other.
    """
    unlike = [
        pair
        for pair in result.pairs
        if pair.left.kind != pair.right.kind or any("shape" in d.what for d in pair.differences)
    ]
    ours = [*result.alone[0], *(pair.left for pair in unlike)]
    theirs = [*result.alone[1], *(pair.right for pair in unlike)]
    for side, (wholes, parts) in enumerate(((ours, theirs), (theirs, ours))):
        alike: dict[object, dict[str, tuple[Parameter, object]]] = {}
        beside: dict[object, dict[str, Parameter]] = {}  # of any lengths, of what reads one value
        for op in sorted(parts, key=lambda op: op.index):
            for role, part in op.parameters.items():
                read = tuple(x.value for x in op.inputs)
                alike.setdefault((op.kind, role, part.shape), {})[part.name] = part, read
                if part.shape:
                    key = (op.kind, role, part.shape[1:], read)
                    beside.setdefault(key, {})[part.name] = part
        ordered = sorted(wholes, key=lambda op: op.index)
        held = {p.name: p for op in ordered for p in op.parameters.values() if p.shape}
        taken: set[str] = set()
        for group in alike.values():
            free = list(group.values())
            rows, *rest = free[0][0].shape or (0,)
            for whole in held.values():
                count = whole.shape[0] // rows if rows else 0
                if 1 < count <= len(free) and whole.shape == (count * rows, *rest):
                    first, free = free[:count], free[count:]
                    alone = len({read for _, read in first}) == 1
                    taken |= {whole.name, *(part.name for part, _ in first)}
                    yield Packed(side, whole, tuple(part for part, _ in first), alone)
        for neighbours in beside.values():
            for whole in held.values():
                left = [part for part in neighbours.values() if part.name not in taken]
                if whole.name not in taken and (some := _filling(whole, left)):
                    taken |= {whole.name, *(part.name for part in some)}
                    yield Packed(side, whole, some, alone=False)


def _filling(whole: Parameter, parts: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Neighbours, of lengths that differ, whose rows are as many as those of a whole; or none."""
    for first in range(len(parts)):
        for end in range(first + 2, len(parts) + 1):
            some = tuple(parts[first:end])
            if whole.shape == (sum(part.shape[0] for part in some), *some[0].shape[1:]):
                return some
    return ()


def _map_parameters(result: Alignment, left: GraphSide, right: GraphSide) -> None:
    back: dict[str, str] = {}
    for pair in result.pairs:
        for role, mine in pair.left.parameters.items() if not pair.stacked else ():
            theirs = pair.right.parameters.get(role)
            if theirs is None:
                continue
            known = result.parameters.get(theirs.name, mine.name)
            if known != mine.name or back.get(mine.name, theirs.name) != theirs.name:
                result.conflicts.append((mine.name, theirs.name))
                continue
            result.parameters[theirs.name] = mine.name
            back[mine.name] = theirs.name
    result.packed = list(_packed(result))
    _map_by_shape(result, back)
    for side, names, mapped in (
        (left, result.unmapped[0], back),
        (right, result.unmapped[1], result.parameters),
    ):
        read = {p.name: None for op in side.operations for p in op.parameters.values()}
        names.extend(name for name in read if name not in mapped)
