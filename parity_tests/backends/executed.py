"""What nets made of executed segments share: how a segment runs, and in which order they do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity_tests.backends.tracing import pass_on
from parity_tests.numerics.compare import holds_whole_numbers
from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.numerics.operators.table import operator_of, single_arguments
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Replay, Value
from parity_tests.pairing.segments import Segment, SegmentPair, Slot
from parity_tests.reporting.verdicts import Side

# A net's executed graph by mode: in inference, in training
Traces = Mapping[bool, OperationGraph]


# What is read for places alone, by operator and argument; torch takes whole numbers there
_PLACES = {
    "take": "indices", "batch_take": "indices", "gather_nd": "indices", "pick": "index",
    "one_hot": "indices", "Embedding": "data", "_contrib_boolean_mask": "index",
    "SequenceMask": "sequence_length", "SequenceLast": "sequence_length",
    "SequenceReverse": "sequence_length", "_getitem": "key", "scatter_nd": "indices",
    "_npx_one_hot": "data", "_npx_pick": "index",
}  # fmt: skip
_COMPARED = re.compile("(greater|less|lesser|equal)(_|$)")


def _reads_places(op: Operation, role: str) -> bool:
    """Whether an operation looks up what its argument says, compares it, or makes it integers.

    A length says where a sequence ends.
    """
    if _COMPARED.search(op.kind) or all(map(holds_whole_numbers, op.dtypes)):
        return True
    return _PLACES.get(op.kind) == role.partition(".")[0] or op.attributes.get("lengths") == role


def _places(segment: Segment, graph: OperationGraph) -> set[int]:
    """The numbers of a segment's inputs that are read for places alone."""
    numbers = set(segment.outputs)
    for op in (graph.operations[index] for index in reversed(segment.executed)):
        if any(_value(op.index, i) in numbers for i in range(len(op.shapes))):
            roles = op.roles if len(op.roles) == len(op.reads) else [""] * len(op.reads)
            numbers |= {
                v for role, v in zip(roles, op.reads, strict=True) if not _reads_places(op, role)
            }
    read = enumerate(segment.uses)
    return {i for i, uses in read if uses and all(value not in numbers for value, _ in uses)}


def is_statistic(role: str) -> bool:
    """Whether training itself changes a tensor of this role, which no gradient does."""
    return role.startswith("running_")


def taken_as(given: str, own: str, dtype: str) -> str:
    """The dtype in which a segment takes an array of another side: whole numbers as its own has.

    One framework keeps indices or a mask as floats, and its operators want no others.

    >>> taken_as("float32", "int64", "float32"), taken_as("bool", "float32", "float64")
    ('int64', 'float64')
    """
    if given == own or not any(map(holds_whole_numbers, (given, own))):
        return given
    return own if holds_whole_numbers(own) else dtype


@dataclass(frozen=True)
class Layout:
    """One side of a segment: what it runs, and what a listing of leaves says of it."""

    side: Side
    pair: SegmentPair
    kind: str
    hyper: Mapping[str, Any]

    @property
    def segment(self) -> Segment:
        return self.pair.sides[self.side]


class Program:
    """The executed operations of one segment, ready to run on arrays of their framework.

    `roles` maps the net's parameters to their roles; one that starts with "_" is read and of no
    consequence. `rounds`: numbers that MXNet's operators hold in float32 are rounded so. Copies of
    a net share their programs: nothing here changes.
    """

    def __init__(self, layout: Layout, traces: Traces) -> None:
        self.layout = layout
        segment = layout.segment
        hidden = {name: f"_hidden_{i}" for i, name in enumerate(segment.hidden)}
        self.roles = {**segment.parameters, **hidden}
        gluon = layout.pair.sides[Side.GLUON].normalised
        self.rounds = any(
            operator_of(op.kind).single or single_arguments(op.kind)
            for op in gluon
            if op.attributes.get("kept") != OWN  # whose momentum decides nothing
        )
        self._halves = layout.pair.both_give("float16")
        self._calls = {
            train: [
                (op.reads, self._replay(op), [_value(op.index, i) for i in range(len(op.shapes))])
                for op in (graph.operations[index] for index in segment.executed)
            ]
            for train, graph in traces.items()
        }
        self.places = set.intersection(*(_places(segment, graph) for graph in traces.values()))
        self._uses = segment.uses
        operations = next(iter(traces.values())).operations
        self._dtypes = {
            value: operations[int(value.key)].dtypes[value.output]
            for uses in segment.uses
            for value, _ in uses
            if value.origin is Origin.OPERATION
        }
        self._writes = [(self.roles[name], value) for name, value in segment.writes.items()]
        self._outputs = list(zip(segment.outputs, layout.pair.shapes, strict=True))
        self._ends = set(segment.outputs)

    def _replay(self, op: Operation) -> Replay | None:
        """Dropout inside a segment passes its input on, as it does as a leaf.

        What both sides give in float16 is compared in the dtype of the run.
        """
        random = op.kind.lower().removesuffix("_").endswith("dropout")
        if random and self.layout.kind != "dropout":
            return pass_on
        replay = op.replay if self.rounds else getattr(op.replay, "unrounded", op.replay)
        return getattr(replay, "widened", replay) if self._halves else replay

    def __deepcopy__(self, memo: object) -> Program:
        return self

    @property
    def unused(self) -> set[int]:
        """The places of the arrays that this side does not read, and the other one does."""
        return {i for i, uses in enumerate(self._uses) if not uses}

    @property
    def composite(self) -> bool:
        """Whether numbers pass between operations inside it."""
        return any(len(calls) > 1 for calls in self._calls.values())

    @property
    def constants(self) -> list[str]:
        """The keys of the constants that it reads."""
        keys = {
            str(value.key): None
            for calls in self._calls.values()
            for reads, _, _ in calls
            for value in reads
            if value.origin is Origin.CONSTANT
        }
        return list(keys)

    def run(
        self,
        arrays: Sequence[Any],
        read: Callable[[Value], Any],
        write: Callable[[str, Any], None],
        take: Callable[[Any, str], Any],
        dtype: str,
        *,
        train: bool,
        between: Callable[[Any], Any] | None = None,
    ) -> Any:
        """The segment's outputs, one or a tuple.

        `read` gives parameters and constants; `write` takes what the net's own code puts into a
        parameter, by its role; `take` gives an array as `taken_as` says, from the dtype that it had
        in the net. `between` changes what passes between the operations inside.
        """
        values: dict[Value, Any] = {}
        for uses, array in zip(self._uses, arrays, strict=True):
            for value, shape in uses:
                own = self._dtypes.get(value)
                values[value] = shaped(array if own is None else take(array, own), shape)
        for reads, replay, outputs in self._calls[train]:
            assert replay is not None  # both tracers record it
            given = [values[v] if v in values else read(v) for v in reads]
            if between is not None and getattr(replay, "in_steps", False):
                results = replay(given, dtype, between)  # type: ignore[call-arg]
            else:
                results = replay(given, dtype)
            if between is not None:
                pairs = zip(outputs, results, strict=False)
                results = [y if value in self._ends else between(y) for value, y in pairs]
            values.update(zip(outputs, results, strict=False))
        for role, value in self._writes:
            write(role, values[value])
        made = [shaped(values[value], shape) for value, shape in self._outputs]
        return made[0] if len(made) == 1 else tuple(made)


def _value(index: int, output: int) -> Value:
    return Value(Origin.OPERATION, index, output)


def shaped(array: Any, shape: Sequence[int]) -> Any:
    """The same numbers in another shape; numbers of another count stay as they are."""
    own = tuple(array.shape)
    if own == tuple(shape) or math.prod(own) != math.prod(shape):
        return array
    return array.reshape(tuple(shape))


class Order:
    """The segments in the order in which one side can run them, and what it may forget when.

    `outputs` are the net's: which shared value each is, and its shape.
    """

    def __init__(
        self, layouts: Sequence[Layout], outputs: Sequence[tuple[Slot, tuple[int, ...]]]
    ) -> None:
        self._slots = [layout.pair.slots for layout in layouts]
        needs = [
            {slot.segment for slot, uses in zip(own, layout.segment.uses, strict=True) if uses}
            for own, layout in zip(self._slots, layouts, strict=True)
        ]
        # what the other side alone reads should be there too: it is run alone on this one's values
        given = [{slot.segment for slot in own} for own in self._slots]
        self._order: list[int] = []
        waiting, done = list(range(len(layouts))), {-1}
        while waiting:
            runnable = [number for number in waiting if needs[number] <= done]
            ready = next((n for n in runnable if given[n] <= done), runnable[0])
            waiting.remove(ready)
            done.add(ready)
            self._order.append(ready)
        self._outputs = list(outputs)
        last = {slot: p for p, n in enumerate(self._order) for slot in self._slots[n]}
        kept = {slot for slot, _ in outputs}
        self._spent: list[list[Slot]] = [[] for _ in self._order]
        for slot, position in last.items():
            if slot not in kept:
                self._spent[position].append(slot)

    def __deepcopy__(self, memo: object) -> Order:
        return self

    def run(self, call: Callable[..., Any], inputs: Sequence[Any], absent: Any) -> tuple[Any, ...]:
        """The net's outputs, `call(n, *arrays)` being segment n."""
        values: dict[Slot, Any] = {Slot(-1, i): x for i, x in enumerate(inputs)}
        for number, spent in zip(self._order, self._spent, strict=True):
            made = call(number, *(values.get(slot, absent) for slot in self._slots[number]))
            for i, y in enumerate(made if isinstance(made, tuple) else (made,)):
                values[Slot(number, i)] = y
            for slot in spent:
                values.pop(slot, None)
        return tuple(shaped(values[slot], shape) for slot, shape in self._outputs)
