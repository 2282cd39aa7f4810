"""Cuts two aligned graphs at the values they share, into segments that can be run alone.

A value is shared where the alignment pairs the operations that produced it, and both nets really
computed it (MXNet's `Dense` flattens without ever showing the flat array). A segment is what one
side executes from shared values to the next one: mostly one operation; several where one side does
in one what the other does in two, and what only one side has goes into the segment it leads to.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity_tests.numerics.compare import holds_whole_numbers
from parity_tests.numerics.draws import is_draw
from parity_tests.pairing.dataflow import Alignment, Difference, OperationPair
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value
from parity_tests.reporting.verdicts import Side

_SIDES = (Side.GLUON, Side.TORCH)


@dataclass(frozen=True)
class Slot:
    """A shared value that a segment is given: an input of the net, or an output of a segment."""

    segment: int  # −1: the net's own input
    output: int


@dataclass
class Segment:
    """What one side executes of a segment.

    `executed` are indices of executed operations in order; `uses` has, for each slot of the pair,
    the executed values that it stands for with their shapes; `outputs` the executed values that
    come out; `normalised` the operations of the common vocabulary that this is, and `reads` the
    slots whose numbers those read: `zeros_like` takes a value for its shape alone.
    """

    executed: list[int]
    uses: list[list[tuple[Value, tuple[int, ...]]]]
    outputs: list[Value]
    normalised: list[Operation]
    reads: set[Slot]
    parameters: dict[str, str] = field(default_factory=dict)  # the role of each, by its name
    hidden: list[str] = field(default_factory=list)  # read, and of no consequence
    writes: dict[str, Value] = field(default_factory=dict)  # what its own code makes of parameters


@dataclass
class SegmentPair:
    """A segment of both sides: what goes in, the shapes of what comes out, what differs.

    `given` are the shapes in which its operation sees what goes in: a value that is reshaped on its
    way has another one where it is made. Of two sides that compute one function in two ways,
    `record` is the operator that one of them is alone, with its hyper-parameters, and `gluon`
    MXNet's leaf: either side's rounding counts. `masks` are the places of slots that are made of
    inputs of 0 and 1 alone: two ways of masking need not agree in between. `whole` are the places
    of slots in which one side at least has whole numbers, through which no gradient passes.
    """

    path: str
    slots: list[Slot]
    shapes: list[tuple[int, ...]]
    sides: dict[Side, Segment]
    pair: OperationPair | None
    dtypes: dict[Side, set[str]] = field(default_factory=dict)  # of all that a side reads or makes
    given: list[tuple[int, ...]] = field(default_factory=list)
    alone: list[tuple[Side, Operation]] = field(default_factory=list)
    inner: list[OperationPair] = field(default_factory=list)  # on the way to its own pair
    parameter_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # by role
    record: tuple[str, dict[str, object]] | None = None
    gluon: Any = None
    masks: frozenset[int] = frozenset()  # slots that only say what counts
    whole: frozenset[int] = frozenset()
    single: bool = False  # MXNet rounds to float32 what the vocabulary has as exact steps
    lacks_gradient: bool = False  # a framework does not differentiate what one side computes

    @property
    def unlike(self) -> bool:
        """Whether the sides may compute one function in two ways: not one operation of one kind."""
        several = any(len(segment.normalised) > 1 for segment in self.sides.values())
        return several or bool(self.alone) or any(d.what == "kind" for d in self.differences)

    @property
    def differences(self) -> Sequence[Difference]:
        return self.pair.differences if self.pair is not None else ()

    def both_give(self, dtype: str) -> bool:
        """Whether both sides read or compute something in a dtype."""
        return all(dtype in of_side for of_side in self.dtypes.values())

    def as_given(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """What goes in, in the shapes in which the operation sees it; of another count as it is."""
        pairs = zip(arrays, self.given, strict=True)
        return tuple(x.reshape(s) if x.size == math.prod(s) else x for x, s in pairs)

    @property
    def reads_other_inputs(self) -> bool:
        """Whether one side reads an input of the net that the other does not."""
        ours, theirs = (segment.reads for segment in self.sides.values())
        return any(slot.segment < 0 for slot in ours ^ theirs)

    @property
    def trains_otherwise(self) -> bool:
        """Whether a difference shows only at random, in what dropout keeps or what is drawn."""
        operations = [op for _, op in self.alone]
        # what it reads shows in the values, since it passes them on
        own = [d for d in self.differences if not d.what.startswith("reads")]
        if own and self.pair is not None:
            operations += [self.pair.left, self.pair.right]
        inside = any(d.what == "dropout" for d in own)  # between the layers of a recurrent one
        return inside or any(op.kind == "dropout" or is_draw(op.kind) for op in operations)


@dataclass
class Cut:
    """The segments in torch's order, and which shared value each output of the nets is."""

    segments: list[SegmentPair]
    outputs: dict[Side, list[tuple[Slot, tuple[int, ...]]]]


class _Graphs:
    """One side: its executed graph, the normalised one, and which value is which."""

    def __init__(self, executed: OperationGraph, normalised: OperationGraph) -> None:
        self.executed = executed
        self.normalised = normalised
        self.consumers: dict[int, list[Operation]] = {}
        for op in normalised:
            for x in op.inputs:
                if x.value.origin is Origin.OPERATION:
                    self.consumers.setdefault(int(x.value.key), []).append(op)
        # whose results neither an input nor a parameter decides
        self.constant: set[int] = set()
        for op in normalised:
            made = (
                x.value.origin is Origin.CONSTANT or self._is_constant(x.value) for x in op.inputs
            )
            if not op.parameters and all(made):
                self.constant.add(op.index)
        self.roots: dict[Value, Value] = {
            Value(Origin.INPUT, i): Value(Origin.INPUT, i) for i in range(len(executed.inputs))
        }
        self.first: dict[Value, Value] = {root: root for root in self.roots}
        apart: set[Value] = set()  # the same values as one before, and not the same gradients
        outside = self._computed_outside()
        for op in executed:
            behind = op.own_gradient or not apart.isdisjoint(op.reads)
            for position in range(len(op.shapes)):
                value = Value(Origin.OPERATION, op.index, position)
                stands_for = normalised.stands_for.get(value)
                if stands_for is not None:
                    root = self._root(stands_for)
                    if root not in outside and self._ends_function(op, self.first.get(root)):
                        self.first[root] = value
                    if behind and self.first.get(root, value) != value:
                        apart.add(value)
                        continue
                    self.roots[value] = root
                    self.first.setdefault(root, value)

    def _computed_outside(self) -> set[Value]:
        """What the net computes, of all that its functions with gradients of their own do too."""
        if all(op.function < 0 for op in self.executed):
            return set()
        known = {v: self._root(root) for v, root in self.normalised.stands_for.items()}
        return {
            known[value]
            for op in self.executed
            if op.function < 0
            for value in (Value(Origin.OPERATION, op.index, i) for i in range(len(op.shapes)))
            if value in known and known[value] not in {known.get(v, v) for v in op.reads}
        }

    def _ends_function(self, op: Operation, before: Value | None) -> bool:
        """Whether a function with a gradient of its own gives what it computed, cast or not."""
        if not op.own_gradient or before is None or before.origin is not Origin.OPERATION:
            return False
        inner = self.executed.operations[int(before.key)]
        return not inner.own_gradient and 0 <= op.function == inner.function

    def _root(self, value: Value) -> Value:
        """A normalised value without the reshapes on its way: the same numbers in their order."""
        while value.origin is Origin.OPERATION and not value.output:
            op = self.normalised.operations[int(value.key)]
            if op.kind != "reshape" or not op.inputs:
                break
            value = op.inputs[0].value
        return value

    def _is_constant(self, value: Value) -> bool:
        return value.origin is Origin.OPERATION and value.key in self.constant

    def place(self, index: int) -> tuple[str, int]:
        """The module call in which an operation of the common vocabulary ran."""
        op = self.normalised.operations[index]
        return op.path, op.call

    def root_of(self, op: Operation, position: int) -> Value:
        return self._root(Value(Origin.OPERATION, op.index, position))

    def root(self, value: Value) -> Value:
        """The root of an executed value; what the vocabulary knows nothing of gets its own."""
        return self.roots.setdefault(value, Value(Origin.CONSTANT, f"executed {value}"))

    def slot(self, value: Value, known: Mapping[Value, Slot]) -> Slot | None:
        root = self.roots.get(value)
        return None if root is None else known.get(root)

    def shape(self, value: Value) -> tuple[int, ...]:
        if value.origin is Origin.INPUT:
            return self.executed.inputs[int(value.key)]
        return self.executed.operations[int(value.key)].shapes[value.output]


def cut(
    alignment: Alignment,
    executed: Mapping[Side, OperationGraph],
    normalised: Mapping[Side, OperationGraph],
    mistaken: Container[int] = (),
    lasting: Container[Value] | None = None,
    anew: Mapping[int, Set[int]] | None = None,
) -> Cut:
    """Cut two aligned graphs. An output that only one of them has is left out.

    `mistaken` are torch's operations, by index, whose partners give other values, and `lasting`
    torch's values that differ from Gluon's until an output does; without it nothing is repeated.
    `anew` are, by torch's operation, those before it that its segment computes once more.
    """
    graphs = {side: _Graphs(executed[side], normalised[side]) for side in _SIDES}
    pairs_cut = [pair for pair in alignment.pairs if pair.right.index not in mistaken]
    shared = list(_shared(pairs_cut, alignment, graphs))
    known: dict[Side, dict[Value, Slot]] = {side: {} for side in _SIDES}
    for side in _SIDES:
        for i in range(len(executed[side].inputs)):
            known[side][Value(Origin.INPUT, i)] = Slot(-1, i)
        for number, (_, values, _) in enumerate(shared):
            for position, value in enumerate(values[side]):
                known[side].setdefault(graphs[side].root(value), Slot(number, position))
    given = {
        pair.right.index: [Slot(number, position) for position in range(len(shapes))]
        for number, (pair, _, shapes) in enumerate(shared)
        if pair is not None
    }
    names = _Names()
    pairs = []
    for number, (pair, values, shapes) in enumerate(shared):
        wanted = (anew or {}).get(pair.right.index, ()) if pair is not None else ()
        both = {slot for i in wanted for slot in given.get(i, ())}
        repeated = _repeated(number, shared, graphs, known, lasting, both)
        own = {
            side: {value: slot for value, slot in slots.items() if slot not in repeated[side]}
            for side, slots in known.items()
        }
        pairs.append(_segment(number, pair, values, shapes, graphs, own, names))
    _give(pairs, executed[Side.TORCH])
    _note_whole(pairs, executed)
    _place_alone(pairs, alignment)
    _place_inner(pairs, alignment)
    _name_parameters(pairs, alignment)
    count = min(len(executed[side].outputs) for side in _SIDES)
    outputs = {}
    for side in _SIDES:
        graph = graphs[side]
        ends = [v for v in executed[side].outputs[:count] if graph.root(v) in known[side]]
        outputs[side] = [(known[side][graph.root(v)], graph.shape(v) or (1,)) for v in ends]
    return Cut(pairs, outputs)


_Shared = tuple["OperationPair | None", dict[Side, list[Value]], list[tuple[int, ...]]]


def _shared(
    operations: Iterable[OperationPair], alignment: Alignment, graphs: Mapping[Side, _Graphs]
) -> Iterable[_Shared]:
    """Paired operations whose results both sides hold: executed values, and torch's shapes."""
    seen: dict[Side, set[Value]] = {side: set() for side in _SIDES}
    lonely = {
        side: {op.index for op in ops} for side, ops in zip(_SIDES, alignment.alone, strict=True)
    }
    for pair in sorted(operations, key=lambda pair: pair.right.index):
        ends = dict(zip(_SIDES, pair, strict=True))
        if "reshape" in (pair.left.kind, pair.right.kind):
            continue
        values: dict[Side, list[Value]] = {side: [] for side in _SIDES}
        shapes = []
        for position in range(min(len(op.shapes) for op in pair)):
            both = {
                side: graphs[side].first.get(
                    graphs[side].root_of(_end(graphs[side], op, lonely[side]), position)
                )
                for side, op in ends.items()
            }
            if None in both.values() or _joins_its_readers(ends, both, graphs):
                continue
            for side, value in both.items():
                values[side].append(value)  # type: ignore[arg-type]
            shapes.append(pair.right.shapes[position] or (1,))  # MXNet has no arrays of no axes
        if shapes:
            for side in _SIDES:
                seen[side] |= {graphs[side].roots[value] for value in values[side]}
            yield pair, values, shapes
    outputs = {side: graphs[side].executed.outputs for side in _SIDES}
    for gluon, torch in zip(*outputs.values(), strict=False):
        ends_of = {Side.GLUON: gluon, Side.TORCH: torch}
        if any(value.origin is not Origin.OPERATION for value in ends_of.values()):
            continue
        known = [graphs[side].root(v) in seen[side] for side, v in ends_of.items()]
        if all(known):
            continue
        for side, value in ends_of.items():
            seen[side].add(graphs[side].root(value))
        yield None, {s: [v] for s, v in ends_of.items()}, [graphs[Side.TORCH].shape(torch) or (1,)]


def _joins_its_readers(
    ends: Mapping[Side, Operation],
    values: Mapping[Side, Value | None],
    graphs: Mapping[Side, _Graphs],
) -> bool:
    """Whether what no input decides is no value to compare by itself.

    It is floats on one side and whole numbers on the other, as `x + torch.arange(6)` makes floats
    of them itself; or the net assigns to it, which MXNet refuses where a gradient is asked for.
    """
    if any(op.index not in graphs[side].constant for side, op in ends.items()):
        return False
    readers = (
        after for side, op in ends.items() for after in graphs[side].consumers.get(op.index, ())
    )
    if any(after.kind == "setitem" for after in readers):
        return True
    dtypes = [
        graphs[side].executed.operations[int(value.key)].dtypes[value.output]
        for side, value in values.items()
        if value is not None
    ]
    return len(set(map(holds_whole_numbers, dtypes))) > 1


def _end(graphs: _Graphs, op: Operation, lonely: set[int]) -> Operation:
    """The last of the operations that its module goes on with, and the other side lacks."""
    place = op.path, op.call
    own = {i for i in lonely if graphs.place(i) == place} | {op.index}
    given = {x.value for x in op.inputs}
    members = {op.index}
    pending = list(graphs.consumers.get(op.index, ()))
    while pending:
        following = pending.pop(0)
        within = all(
            x.value in given or (x.value.origin is Origin.OPERATION and x.value.key in own)
            for x in following.inputs
        )
        if following.index in own and within and following.index not in members:
            members.add(following.index)
            pending += graphs.consumers.get(following.index, ())
    ends = {
        index
        for index in members
        if any(after.index not in members for after in graphs.consumers.get(index, ()))
        or Value(Origin.OPERATION, index) in graphs.normalised.outputs
    }
    last = graphs.normalised.operations[max(ends)] if len(ends) == 1 else op
    return last if last.shapes == op.shapes else op


def _segment(
    number: int,
    pair: OperationPair | None,
    values: Mapping[Side, list[Value]],
    shapes: list[tuple[int, ...]],
    graphs: Mapping[Side, _Graphs],
    known: Mapping[Side, Mapping[Value, Slot]],
    names: _Names,
) -> SegmentPair:
    normalised = {
        side: _normalised(values[side], graphs[side], known[side], number) for side in _SIDES
    }
    writes = {side: _writes(graphs[side].executed, normalised[side]) for side in _SIDES}
    closures = {
        side: _closure(number, [*values[side], *writes[side].values()], graphs[side], known[side])
        for side in _SIDES
    }
    slots = list(dict.fromkeys((*closures[Side.TORCH][1], *closures[Side.GLUON][1])))
    sides = {
        side: Segment(
            executed,
            [used.get(slot, []) for slot in slots],
            list(values[side]),
            normalised[side],
            {
                slot
                for op in normalised[side]
                for x in op.inputs
                if (slot := known[side].get(graphs[side]._root(x.value))) is not None
            },
            writes=writes[side],
        )
        for side, (executed, used) in closures.items()
    }
    for side, segment in sides.items():
        operations = graphs[side].executed.operations
        for index in segment.executed:
            for value in operations[index].reads:
                if value.origin is Origin.PARAMETER and value.key not in segment.hidden:
                    segment.hidden.append(str(value.key))
    graph = graphs[Side.TORCH]
    last = graph.executed.operations[int(values[Side.TORCH][0].key)]
    if pair is not None:
        shown = [pair.right]
        if pair.right.kind == "transpose":  # which only moves what was computed
            shown += [op for op in normalised[Side.TORCH] if op.kind != "transpose"]
        if shown[-1].merged:
            last = graph.executed.operations[shown[-1].merged[-1]]
    path = names.of(graph, sides[Side.TORCH].executed, last)
    lacks = any(
        graphs[side].executed.operations[i].lacks_gradient
        for side, segment in sides.items()
        for i in segment.executed
    )
    dtypes = {
        side: {
            dtype
            for op in map(graphs[side].executed.operations.__getitem__, executed)
            for dtype in (*op.dtypes, *map(graphs[side].executed.dtype_of, op.reads))
        }
        for side, (executed, _) in closures.items()
    }
    return SegmentPair(path, slots, shapes, sides, pair, dtypes, lacks_gradient=lacks)


def _writes(executed: OperationGraph, operations: Sequence[Operation]) -> dict[str, Value]:
    """What the net's own code makes of the running statistics that these operations have."""
    names = (parameter.name for op in operations for parameter in op.parameters.values())
    return {name: executed.writes[name] for name in names if name in executed.writes}


def _repeated(
    number: int,
    shared: Sequence[_Shared],
    graphs: Mapping[Side, _Graphs],
    known: Mapping[Side, Mapping[Value, Slot]],
    lasting: Container[Value] | None,
    anew: Set[Slot] = frozenset(),
) -> dict[Side, set[Slot]]:
    """Shared values that a segment computes anew on one side, which alone would be given them.

    One net concatenates what it has concatenated, the other all that came before: what is given
    to both is what came before, and so are gradients. Layers are not computed twice, whose
    parameters meet what comes in, nor is what drops at random; what parameters alone decide may be.
    `anew` are those that both sides compute.
    """
    repeated: dict[Side, set[Slot]] = {side: set(anew) for side in _SIDES}
    if lasting is None or shared[number][1][Side.TORCH][0] in lasting:
        return repeated
    while True:
        used = {}
        for side in _SIDES:
            own = {v: slot for v, slot in known[side].items() if slot not in repeated[side]}
            used[side] = set(_closure(number, shared[number][1][side], graphs[side], own)[1])
        alone = {slot: side for side in _SIDES for slot in used[side] if slot.segment >= 0}
        for slot in used[Side.GLUON] & used[Side.TORCH]:
            alone.pop(slot, None)
        for slot in sorted(alone, key=lambda slot: slot.segment, reverse=True):
            values, side = shared[slot.segment][1], alone[slot]
            again = values[Side.TORCH][0] not in lasting
            if again and _repeatable(slot.segment, values[side], graphs[side], known[side]):
                repeated[side].add(slot)
                break
        else:
            return repeated


def _repeatable(
    number: int, outputs: Sequence[Value], graphs: _Graphs, known: Mapping[Value, Slot]
) -> bool:
    operations = [
        graphs.executed.operations[i] for i in _closure(number, outputs, graphs, known)[0]
    ]
    reads = {value for op in operations for value in op.reads}
    held = any(value.origin is Origin.PARAMETER for value in reads)
    if held and any(value.origin is Origin.INPUT for value in graphs.executed.leading_to(reads)[1]):
        return False
    return not any(_drops(op, graphs.executed.train) for op in operations)


def _drops(op: Operation, train: bool) -> bool:
    """Whether an executed operation drops at random; in inference few do."""
    always = op.attributes.get("mode") == "always" or op.attributes.get("training") is True
    return op.kind.lower().endswith("dropout") and (train or always)


def _closure(
    number: int, outputs: Sequence[Value], graphs: _Graphs, known: Mapping[Value, Slot]
) -> tuple[list[int], dict[Slot, list[tuple[Value, tuple[int, ...]]]]]:
    """What must run for some executed values, from shared values on."""
    operations = graphs.executed.operations
    needed: set[int] = set()
    used: dict[Slot, list[tuple[Value, tuple[int, ...]]]] = {}
    pending = []
    for value in outputs:
        slot = graphs.slot(value, known)
        if slot is not None and slot.segment != number:  # that of another, given on as it is
            used.setdefault(slot, []).append((value, graphs.shape(value)))
        else:
            pending.append(int(value.key))
    given = list(used)
    while pending:
        index = pending.pop()
        if index in needed:
            continue
        needed.add(index)
        for value in operations[index].reads:
            if value.origin in (Origin.PARAMETER, Origin.CONSTANT):
                continue
            slot = graphs.slot(value, known)
            if slot is not None and slot.segment != number:
                use = (value, graphs.shape(value))
                if use not in used.setdefault(slot, []):
                    used[slot].append(use)
            elif value.origin is Origin.OPERATION:
                pending.append(int(value.key))
    read = [graphs.slot(value, known) for i in sorted(needed) for value in operations[i].reads]
    ordered = {slot: used[slot] for slot in (*given, *read) if slot is not None and slot in used}
    return sorted(needed), ordered


def _normalised(
    outputs: Sequence[Value], graphs: _Graphs, known: Mapping[Value, Slot], number: int
) -> list[Operation]:
    """The operations of the common vocabulary between shared values and these."""
    operations = graphs.normalised.operations
    needed: set[int] = set()
    pending = [
        int(root.key)
        for value in outputs
        for root in [graphs.normalised.stands_for.get(value)]
        if root is not None and root.origin is Origin.OPERATION
        if (slot := graphs.slot(value, known)) is None or slot.segment == number
    ]
    while pending:
        index = pending.pop()
        if index in needed:
            continue
        needed.add(index)
        for x in operations[index].inputs:
            slot = known.get(graphs._root(x.value))
            if x.value.origin is Origin.OPERATION and (slot is None or slot.segment == number):
                pending.append(int(x.value.key))
    return [operations[i] for i in sorted(needed) if operations[i].kind != "reshape"]


class _Names:
    """One path for each segment: the module's, with the operation's name where it has several."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._modules: dict[tuple[str, int], set[int]] = {}
        self._parents: set[str] = set()

    def of(self, graph: _Graphs, executed: Sequence[int], shown: Operation) -> str:
        whole = self._whole(graph, set(executed), shown)
        path = shown.path if whole else f"{shown.path}.{plain(shown.kind)}".lstrip(".")
        self._used[path] += 1
        count = self._used[path]
        return path if count == 1 else f"{path} ({count})"

    def _whole(self, graph: _Graphs, executed: set[int], op: Operation) -> bool:
        """Whether the segment has all that the module ran in this call, and no module in it."""
        if not self._modules:
            computing = {i for op in graph.normalised for i in op.merged}
            for other in graph.executed:
                members = self._modules.setdefault((other.path, other.call), set())
                if other.index in computing:
                    members.add(other.index)
                parts = other.path.split(".")
                self._parents.update(".".join(parts[:n]) for n in range(1, len(parts)))
        if not op.path or op.path in self._parents:
            return False
        return self._modules[op.path, op.call] <= executed


def plain(kind: str) -> str:
    """A function's name without what says that it works in place."""
    return kind.removesuffix("_").removeprefix("_contrib_").lstrip("_") or kind


def _give(pairs: Sequence[SegmentPair], graph: OperationGraph) -> None:
    """Note the shapes in which each segment that is one operation of torch's sees its slots."""
    for pair in pairs:
        made = [graph.inputs if s.segment < 0 else pairs[s.segment].shapes for s in pair.slots]
        pair.given = [tuple(of[s.output]) for of, s in zip(made, pair.slots, strict=True)]
        operations = pair.sides[Side.TORCH].normalised
        seen = [tuple(x.shape) for x in operations[0].inputs] if len(operations) == 1 else []
        if [math.prod(shape) for shape in seen] == [math.prod(shape) for shape in pair.given]:
            pair.given = seen


def _note_whole(pairs: Sequence[SegmentPair], executed: Mapping[Side, OperationGraph]) -> None:
    """Note in each segment what one side takes, or is given, as indices, counts or a mask."""
    for pair in pairs:
        whole = set()
        for side, segment in pair.sides.items():
            operations = executed[side].operations
            for place, (slot, uses) in enumerate(zip(pair.slots, segment.uses, strict=True)):
                values = [value for value, _ in uses]
                if slot.segment >= 0:
                    values.append(pairs[slot.segment].sides[side].outputs[slot.output])
                made = (v for v in values if v.origin is Origin.OPERATION)
                dtypes = [operations[int(v.key)].dtypes[v.output] for v in made]
                if any(map(holds_whole_numbers, dtypes)):
                    whole.add(place)
        pair.whole = frozenset(whole)


def _place_alone(pairs: Sequence[SegmentPair], alignment: Alignment) -> None:
    """Note in each segment what only one side has of it."""
    lonely = {
        side: {op.index for op in ops} for side, ops in zip(_SIDES, alignment.alone, strict=True)
    }
    for pair in pairs:
        for side, segment in pair.sides.items():
            pair.alone += [(side, op) for op in segment.normalised if op.index in lonely[side]]


def _place_inner(segments: Sequence[SegmentPair], alignment: Alignment) -> None:
    """Give each segment the other pairs whose operations lie in it on both sides."""
    for segment in segments:
        ours, theirs = (
            {op.index for op in segment.sides[side].normalised} for side in (Side.GLUON, Side.TORCH)
        )
        if len(ours) > 1 and len(theirs) > 1:
            segment.inner = [
                pair
                for pair in alignment.pairs
                if pair.left.index in ours and pair.right.index in theirs
                if segment.pair is None or pair.right.index != segment.pair.right.index
            ]


def _name_parameters(pairs: Sequence[SegmentPair], alignment: Alignment) -> None:
    """Give every parameter a role in its segment, partners the same."""
    partner = {gluon: torch for torch, gluon in alignment.parameters.items()}
    for pair in pairs:
        taken: dict[str, str] = {}  # role -> torch's name
        roles: dict[str, str] = {}  # torch's name -> role
        for side in (Side.TORCH, Side.GLUON):
            segment = pair.sides[side]
            for op in segment.normalised:
                for role, parameter in op.parameters.items():
                    name = parameter.name
                    if name in segment.parameters or name not in segment.hidden:
                        continue
                    shared = name if side == Side.TORCH else partner.get(name, f"{name} (Gluon)")
                    if shared not in roles:
                        roles[shared] = _free_role(role, taken)
                        taken[roles[shared]] = shared
                    segment.parameters[name] = roles[shared]
                    pair.parameter_shapes.setdefault(roles[shared], parameter.shape)
            segment.hidden = [name for name in segment.hidden if name not in segment.parameters]


def _free_role(role: str, taken: Mapping[str, str]) -> str:
    if role in ("input", "other") or "." in role:  # one of several, as `torch.einsum` has them
        role = "parameter"
    if role not in taken:
        return role
    return next(name for n in itertools.count(2) for name in [f"{role}_{n}"] if name not in taken)
