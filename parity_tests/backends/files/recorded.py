"""A net that was run elsewhere: its graphs, and every value that it gave there."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cnn_harness.errors import CommandError
from cnn_harness.sealed import MANIFEST, read_sealed
from parity_tests.backends.executed import Layout, Traces, is_statistic, shaped
from parity_tests.backends.leaves import Leaf, ParityError, Tensor
from parity_tests.backends.runs import Arrays, Call, LeafRun, NetRun, is_float, named
from parity_tests.backends.tracing import graph_of
from parity_tests.pairing.graph import OperationGraph, Origin, Value
from parity_tests.pairing.segments import Segment, Slot
from parity_tests.reporting.verdicts import Side

_RECORDER = 1  # the only version of a recorded folder so far
_PASSES = {False: "inference", True: "training"}


@dataclass(frozen=True)
class Recorded:
    """In place of a replay: the operation's number in its file, and its first output there."""

    number: int
    gave: Callable[[], np.ndarray]

    def __call__(self, arrays: Sequence[Any], dtype: str) -> list[Any]:
        raise ParityError("an operation that was recorded elsewhere cannot be run here")


@dataclass(frozen=True)
class RecordedNet:
    """What a folder holds of one side.

    `values` are by mode and name: `3.0` is the first output of operation 3, `3.gradient.1` the
    gradient of its second operand, `gradient.NAME` a parameter's and `after.NAME` a buffer after
    the step; `head.0` is what was sent back into the net's first output.
    """

    side: Side
    folder: Path
    state: Mapping[str, Any]
    inputs: Arrays
    parameters: Mapping[str, np.ndarray]
    graphs: Mapping[bool, OperationGraph]
    values: Mapping[bool, Mapping[str, np.ndarray]]
    replayed: Any = None  # torch's: the same calls, to be made here

    @property
    def heads(self) -> Arrays:
        """The gradients that the training pass sent back into the net's outputs."""
        count = len(self.graphs[True].outputs)
        return tuple(self.values[True][f"head.{i}"].astype(np.float64) for i in range(count))

    @property
    def described(self) -> str:
        """`MXNet 1.5.1 on gpu(0), Python 3.6.15, numpy 1.19.5`."""
        names = {"mxnet": "MXNet", "python": "Python"}
        versions = [f"{names.get(n, n)} {v}" for n, v in self.state["versions"].items()]
        versions[0] += f" on {self.state['device']}"
        return ", ".join(versions)

    def gradient_of(self, graph: OperationGraph, index: int, position: int) -> np.ndarray | None:
        """The gradient of one operand of one operation, None where it has none."""
        gradient = self.values[True].get(f"{_number(graph, index)}.gradient.{position}")
        return None if gradient is None else _single(gradient)

    def value(self, train: bool, value: Value) -> np.ndarray:
        """An input, or an operation's output, in one mode; floats are of float32, as is judged."""
        if value.origin is Origin.INPUT:
            return self.inputs[int(value.key)]
        if value.origin is Origin.PARAMETER:
            return self.parameters[str(value.key)]
        if value.origin is Origin.CONSTANT:
            known = self.values[train].get(f"constant.{value.key}")
            return self.parameters[str(value.key)] if known is None else known
        number = _number(self.graphs[train], int(value.key))
        return _single(self.values[train][f"{number}.{value.output}"])


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if is_float(array) else array


def _number(graph: OperationGraph, index: int) -> int:
    replay: Any = graph.operations[index].replay
    if not hasattr(replay, "number"):
        raise ParityError(f"{graph.operations[index]} has no values of its own in the record")
    return int(replay.number)


def read_recording(folder: str | Path, side: Side) -> RecordedNet:
    """The net that a recording script wrote, every byte checked.

    Raises:
        ParityError: the folder is missing, damaged, no recording, or of the other framework.
    """
    path = Path(folder)
    try:
        if not (path / MANIFEST).is_file():
            what = f"has no {MANIFEST}" if path.is_dir() else "is no folder"
            raise ParityError(f"{path} {what}, expected the folder that a recording script wrote")
        state = read_sealed(path)
        if not isinstance(state, dict) or state.get("recorder") != _RECORDER:
            raise ParityError(f"{path} holds no recording of version {_RECORDER}")
        if state["side"] != side:
            raise ParityError(f"{path} was recorded from {state['side']}, expected {side}")
        return _read(path, side, state)
    except CommandError as error:
        raise ParityError(str(error)) from error
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ParityError):
            raise
        raise ParityError(f"{path} is no recording: {type(error).__name__}: {error}") from error


def _read(path: Path, side: Side, state: Mapping[str, Any]) -> RecordedNet:
    inputs = _arrays(path / "inputs.npz")
    values, graphs = {}, {}
    parameters = _arrays(path / "parameters.npz")
    records, constants_of = {}, {}
    for train, name in _PASSES.items():
        if train and state["untrained"]:
            continue
        values[train] = _arrays(path / f"{name}.npz")
        record = json.loads((path / f"{name}.json").read_text(encoding="utf-8"))
        constants = {
            key.removeprefix("constant."): values[train][key]
            for key in values[train]
            if key.startswith("constant.")
        }
        records[train], constants_of[train] = record, constants
    ordered = tuple(inputs[str(i)] for i in range(len(inputs)))
    replayed = None
    if side == Side.TORCH:
        from parity_tests.backends.files.replayed import ReplayedNet, replayed_graph

        replayed = ReplayedNet(records, parameters, state["trainable"], constants_of)
        for train, record in records.items():
            graphs[train] = replayed_graph(replayed, ordered, record).live()
    else:
        for train, record in records.items():
            for number, operation in enumerate(record["operations"]):
                gave = partial(values[train].__getitem__, f"{number}.0")
                operation["replay"] = Recorded(number, gave)
                if operation.get("fixed", False):
                    operation["held"] = values[train][f"{number}.0"]
            graphs[train] = graph_of(record, constants_of[train]).live()
    return RecordedNet(side, path, state, ordered, parameters, graphs, values, replayed)


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file, each read when it is asked for."""
    arrays: Mapping[str, np.ndarray] = np.load(path, allow_pickle=False)
    return arrays


@dataclass(frozen=True)
class RecordedBlock:
    """What stands for a segment's block: the arrays that the net's code held there."""

    held: list[np.ndarray]


@dataclass
class RecordedSegments:
    """A recorded net, cut where it corresponds to the other side: values, and nothing to run."""

    net: RecordedNet
    traces: Traces
    layouts: Sequence[Layout]
    outputs: Sequence[tuple[Slot, tuple[int, ...]]]
    changed: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def side(self) -> Side:
        return self.net.side

    def runnable(self) -> Any:
        """What stands for the net where it is run: torch's calls can be made here."""
        if self.side == Side.GLUON:
            return self
        from parity_tests.backends.torch.executed import rebuild

        return rebuild(self.net.replayed, self.traces, self.layouts, self.outputs)

    def leaves(self) -> list[Leaf]:
        return [self._leaf(layout) for layout in self.layouts]

    def _leaf(self, layout: Layout) -> Leaf:
        tensors = {}
        for name, role in layout.segment.parameters.items():
            held = self.net.parameters[name]
            shape = layout.pair.parameter_shapes[role]
            value = self.changed.get((layout.pair.path, role), shaped(held, shape))
            trained = name in self.net.state["trainable"]
            tensors[role] = Tensor(
                name, value.shape, str(value.dtype), trained, is_statistic(role), value.copy,
                constant=not (trained or is_statistic(role)),
            )  # fmt: skip
        block = RecordedBlock(self._held(layout))
        return Leaf(self.side, layout.pair.path, layout.kind, block, layout.hyper, tensors)

    def _held(self, layout: Layout) -> list[np.ndarray]:
        """The constants that a segment reads."""
        found: dict[str, np.ndarray] = {}
        for train, graph in self.net.graphs.items():
            for value in (v for i in layout.segment.executed for v in graph.operations[i].reads):
                if value.origin is Origin.CONSTANT:
                    found[str(value.key)] = self.net.value(train, value)
        return list(found.values())

    def with_values(self, values: Mapping[tuple[str, str], np.ndarray]) -> RecordedSegments:
        return dataclasses.replace(self, changed={**self.changed, **values})

    @cached_property
    def _uses(self) -> Counter[str]:
        """In how many segments each parameter is read."""
        return Counter(name for layout in self.layouts for name in layout.segment.parameters)

    def run(self, *, train: bool, backward: bool) -> NetRun:
        """What the net gave there, as if it had been run here."""
        graph = self.net.graphs[train]
        run = NetRun({}, ())
        for number, layout in enumerate(self.layouts):
            inputs = tuple(self._value(train, slot) for slot in layout.pair.slots)
            outputs = tuple(
                self._value(train, Slot(number, i)) for i in range(len(layout.segment.outputs))
            )
            call = Call(inputs, outputs)
            if backward:
                call.upstream = self._upstream(graph, number)
                call.input_gradients = tuple(
                    self._input_gradient(graph, number, i, x.shape) for i, x in enumerate(inputs)
                )
            run.calls[layout.pair.path] = [call]
            if backward:
                run.gradients.update(self._parameters(layout, "gradient", statistics=False))
                run.buffers.update(self._parameters(layout, "after", statistics=True))
        run.outputs = tuple(shaped(self._value(train, s), shape) for s, shape in self.outputs)
        if backward:
            run.output_gradient = shaped(self.net.values[True]["head.0"], run.outputs[0].shape)
        return run

    def leaf_run(self, path: str, run: NetRun) -> LeafRun:
        """One segment of a run as a leaf alone.

        A parameter that several segments read has one gradient for all of them, and none here.
        """
        (call,) = run.calls[path]
        layout = next(layout for layout in self.layouts if layout.pair.path == path)
        shared = {role for n, role in layout.segment.parameters.items() if self._uses[n] > 1}
        tensors: list[dict[str, np.ndarray]] = [
            {role: value for (where, role), value in values.items() if where == path}
            for values in (run.gradients, run.buffers)
        ]
        gradients = {role: g for role, g in tensors[0].items() if role not in shared}
        return named(call.outputs, call.input_gradients, gradients, tensors[1])

    def _value(self, train: bool, slot: Slot) -> np.ndarray:
        if slot.segment < 0:
            return self.net.inputs[slot.output]
        layout = self.layouts[slot.segment]
        value = self.net.value(train, layout.segment.outputs[slot.output])
        return shaped(value, self._shape(slot))

    def _shape(self, slot: Slot) -> tuple[int, ...]:
        """The other side's shape: as dropout passes its input on, so it does its shape."""
        if slot.segment < 0:
            return self.net.inputs[slot.output].shape
        layout = self.layouts[slot.segment]
        if layout.kind == "dropout":
            return self._shape(layout.pair.slots[0])
        return tuple(layout.pair.shapes[slot.output])

    def _parameters(
        self, layout: Layout, what: str, *, statistics: bool
    ) -> dict[tuple[str, str], np.ndarray]:
        """Arrays of a segment's parameters, by (path, role)."""
        values = self.net.values[True]
        return {
            (layout.pair.path, role): shaped(
                values[f"{what}.{name}"], layout.pair.parameter_shapes[role]
            )
            for name, role in layout.segment.parameters.items()
            if is_statistic(role) == statistics and f"{what}.{name}" in values
        }

    def _upstream(self, graph: OperationGraph, number: int) -> tuple[np.ndarray, ...]:
        """The gradients of a segment's outputs: the sum of what comes back from their readers."""
        layout = self.layouts[number]
        inside = self._executed(layout.segment)
        sums = []
        for position, value in enumerate(layout.segment.outputs):
            total = np.zeros(self._value(True, Slot(number, position)).shape)
            for index, operand in self._readers.get(self._first.get(value, value), ()):
                if index not in inside:
                    total = _added(total, self.net.gradient_of(graph, index, operand))
            for i, output in enumerate(graph.outputs):
                if self._first.get(output, output) == self._first.get(value, value):
                    total = _added(total, self.net.values[True][f"head.{i}"])
            sums.append(total)
        return tuple(sums)

    @cached_property
    def _first(self) -> dict[Value, Value]:
        """What was computed in training; again from the same values, as what a segment executes."""
        own = {index for layout in self.layouts for index in layout.segment.executed}
        first: dict[Value, Value] = {}
        made: dict[Hashable, Value] = {}
        for op in self.net.graphs[True]:
            reads = tuple(first.get(value, value) for value in op.reads)
            for output in range(len(op.shapes)):
                value = Value(Origin.OPERATION, op.index, output)
                content = op.kind, reads, repr(sorted(op.attributes.items())), output
                before = made.setdefault(content, value)
                first[value] = value if op.index in own else before
        return first

    def _executed(self, segment: Segment) -> list[int]:
        """The operations that compute a segment in training, those that do so again among them."""
        firsts = dict.fromkeys(self._first[Value(Origin.OPERATION, i)] for i in segment.executed)
        return [index for first in firsts for index in self._computed[first]]

    @cached_property
    def _computed(self) -> dict[Value, list[int]]:
        """Which operations compute a value, the first of them and those that do so again."""
        found: dict[Value, list[int]] = {}
        for value, first in self._first.items():
            found.setdefault(first, []).append(int(value.key))
        return found

    @cached_property
    def _readers(self) -> dict[Value, list[tuple[int, int]]]:
        """Which operations read a value in training, and as which of their operands."""
        readers: dict[Value, list[tuple[int, int]]] = {}
        for op in self.net.graphs[True]:
            for position, value in enumerate(op.reads):
                readers.setdefault(self._first.get(value, value), []).append((op.index, position))
        return readers

    def _input_gradient(
        self, graph: OperationGraph, number: int, slot: int, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        segment = self.layouts[number].segment
        used = {self._first.get(value, value) for value, _ in segment.uses[slot]}
        total: np.ndarray | None = None
        for index in self._executed(segment):
            for position, value in enumerate(graph.operations[index].reads):
                reads = self._first.get(value, value) in used
                gradient = self.net.gradient_of(graph, index, position) if reads else None
                if gradient is not None:
                    total = _added(np.zeros(shape) if total is None else total, gradient)
        return None if total is None else total.astype(np.float32)


def _added(total: np.ndarray, more: np.ndarray | None) -> np.ndarray:
    return total if more is None else total + more.reshape(total.shape)
