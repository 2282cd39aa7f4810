"""What one side's net executes: its operations as leaves, and what a snapshot keeps of them.

An operation that is paired with one of a baseline keeps that one's name, so that a function put in
before another renames nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.backends.base import SIDES, Backend
from parity_tests.backends.executed import Layout, Traces
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays, arrays, place_of, reason_of
from parity_tests.levels.view import coincide, kind_of_segment, slot_shapes
from parity_tests.pairing.dataflow import Alignment, OperationPair, align
from parity_tests.pairing.graph import Operand, Operation, OperationGraph, Origin, Parameter, Value
from parity_tests.pairing.segments import Segment, SegmentPair, cut
from parity_tests.reporting.verdicts import Side


@dataclass(frozen=True)
class Step:
    """One operation alone: its name, what it does, in words, what it reads, and who called it.

    `index` is that of its operation in the graph; −1 where the graph knows nothing of it.
    """

    name: str
    index: int
    kind: str
    does: tuple[str, ...]
    reads: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Operations:
    """What a net executes: steps with their names, and the graph by which they are paired."""

    steps: tuple[Step, ...]
    graph: OperationGraph

    def as_dict(self) -> dict[str, Any]:
        graph = self.graph
        return {
            "steps": [list(asdict(step).values()) for step in self.steps],
            "inputs": graph.inputs,
            "outputs": [_plain(value) for value in graph.outputs],
            "operations": [
                [
                    op.kind, _plain_attribute(dict(op.attributes)),
                    [[x.role, _plain(x.value), x.shape] for x in op.inputs],
                    {role: [p.name, p.shape, p.dtype] for role, p in op.parameters.items()},
                    op.shapes, op.dtypes, op.path, op.call,
                ]
                for op in graph
            ],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Operations:
        """Raises TypeError, ValueError or KeyError for what `as_dict` did not make."""
        operations = tuple(_operation(i, *row) for i, row in enumerate(held["operations"]))
        outputs = tuple(_value(value) for value in held["outputs"])
        graph = OperationGraph(operations, _tuples(held["inputs"]), outputs)
        return cls(tuple(Step(*_tuples(step)) for step in held["steps"]), graph)


def _plain(value: Value) -> list[Any]:
    return [value.origin.value, value.key, value.output]


def _value(held: Sequence[Any]) -> Value:
    return Value(Origin(held[0]), held[1], held[2])


def _plain_attribute(value: Any) -> Any:
    """An attribute as JSON holds it; what JSON cannot hold is its text."""
    if isinstance(value, Mapping):
        return {str(k): _plain_attribute(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain_attribute(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _operation(
    index: int, kind: str, attributes: Any, inputs: Any, parameters: Any, shapes: Any, dtypes: Any,
    path: str, call: int,
) -> Operation:  # fmt: skip
    return Operation(
        index,
        kind,
        _tuples(attributes),
        tuple(Operand(role, _value(value), _tuples(shape)) for role, value, shape in inputs),
        {
            role: Parameter(n, _tuples(shape), dtype)
            for role, (n, shape, dtype) in parameters.items()
        },
        _tuples(shapes),
        _tuples(dtypes),
        path,
        call,
        normalised=True,
    )


@dataclass
class ExecutedNet:
    """A net whose leaves are the operations that a net executes, on that net's parameters.

    `modes` are those it can run in: inference and training, or training alone where the two do
    not execute the same.
    """

    net: Any
    operations: Operations
    modes: tuple[bool, ...]


def execute(
    backend: Backend, net: Any, inputs: Arrays, before: Operations | None, root: Path
) -> ExecutedNet:
    """The net as what it executes, named as a baseline named it.

    Raises ParityError where that cannot be run again: where it cannot be traced, or computes
    something else each time.
    """
    try:
        traces = {t: backend.trace(net, inputs, train=t).live() for t in (False, True)}
        if not coincide(net, *traces.values()):
            del traces[False]
        normalised = backend.normalise(traces[True])
        segments, rebuilt = _rebuilt(backend, net, traces, normalised, before)
        steps = tuple(_steps(segments, normalised, traces, root))
        operations = Operations.from_dict(Operations(steps, normalised).as_dict())
        own = [
            backend.run_net(one, inputs, "float64", train=True).outputs for one in (net, rebuilt)
        ]
    except Exception as error:  # a net of a user's may raise anything
        raise ParityError(
            f"what {backend.side.framework} executes cannot be recorded: "
            f"{reason_of(error)}{place_of(error)}"
        ) from error
    if not all(_close(*each) for each in zip(*own, strict=False)):
        raise ParityError(
            f"what {backend.side.framework} executes gives other values when it is run again"
        )
    return ExecutedNet(rebuilt, operations, tuple(traces))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.size != other.size:
        return False
    a, b = one.reshape(-1), other.reshape(-1)
    most = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=1e-5 * most, equal_nan=True))


def _rebuilt(
    backend: Backend, net: Any, traces: Traces, normalised: OperationGraph,
    before: Operations | None,
) -> tuple[list[SegmentPair], Any]:  # fmt: skip
    """The net cut at every operation: it is aligned with itself."""
    names = {p.name: p.name for op in normalised for p in op.parameters.values()}
    alone = Alignment([OperationPair(op, op) for op in normalised], parameters=names)
    executed = traces[True]
    pieces = cut(alone, dict.fromkeys(SIDES, executed), dict.fromkeys(SIDES, normalised))
    _rename(pieces.segments, normalised, before)
    shapes = slot_shapes(pieces.segments, executed)
    side = backend.side
    layouts = []
    for segment in pieces.segments:
        kind, hyper = kind_of_segment(segment, shapes)
        layouts.append(Layout(side, segment, kind, hyper[side]))
    return pieces.segments, backend.rebuild(net, traces, layouts, pieces.outputs[side])


def _rename(
    segments: Sequence[SegmentPair], graph: OperationGraph, before: Operations | None
) -> None:
    """Give the operations that a baseline has the names that it gave them."""
    if before is None:
        return
    named = {step.index: step.name for step in before.steps if step.index >= 0}
    now = Operations.from_dict(Operations((), graph).as_dict()).graph
    partners = {pair.right.index: pair.left.index for pair in align(before.graph, now).pairs}
    taken = set(named.values())
    for segment in segments:
        known = named.get(partners.get(_index(segment), -1))
        if known is not None:
            segment.path = known
        elif segment.path in taken:
            segment.path = _free(segment.path, taken)
        taken.add(segment.path)


def _free(name: str, taken: set[str]) -> str:
    numbers = (f"{name} (new{f' {n}' if n > 1 else ''})" for n in range(1, len(taken) + 2))
    return next(free for free in numbers if free not in taken)


def _index(segment: SegmentPair) -> int:
    return -1 if segment.pair is None else segment.pair.right.index


def _steps(
    segments: Sequence[SegmentPair], graph: OperationGraph, traces: Traces, root: Path
) -> Iterable[Step]:
    executed = traces[True]
    for segment in segments:
        own = segment.sides[Side.TORCH]
        shown = segment.pair.right if segment.pair else executed.operations[own.executed[-1]]
        does = [_words(op) for op in own.normalised] or [shown.kind]
        gradients = (executed.operations[i].own_gradient for i in own.executed)
        does += dict.fromkeys(filter(None, gradients))
        reads = tuple(
            f"input {slot.output + 1}" if slot.segment < 0 else segments[slot.segment].path
            for slot in segment.slots
        )
        does += _constants(own, executed)
        source = _beside(shown.source, root)
        yield Step(segment.path, _index(segment), shown.kind, tuple(does), reads, source)


def _words(op: Operation) -> str:
    """`leaky_relu(slope=0.01)`."""
    numbers = ", ".join(f"{k}={_plain_attribute(v)}" for k, v in sorted(op.attributes.items()))
    return f"{op.kind}({numbers})" if numbers else op.kind


def _constants(own: Segment, executed: OperationGraph) -> Iterable[str]:
    """Numbers that the code made by itself, and no operation: `constant 0.5`."""
    reads = (value for i in own.executed for value in executed.operations[i].reads)
    for key in dict.fromkeys(v.key for v in reads if v.origin is Origin.CONSTANT):
        (held,) = arrays(executed.constants[str(key)])
        yield (
            f"constant {float(held.reshape(-1)[0]):.8g}"
            if held.size == 1
            else f"constant {held.shape}"
        )


_OURS = Path(__file__).parents[2]


def _beside(source: str, root: Path) -> str:
    """`file:line` from a folder on; of a file elsewhere the last two names, on any machine.

    Nothing for an operation that no code of the user's called, but a container's.
    """
    if not source:
        return ""
    file, _, line = source.rpartition(":")
    path = Path(file).resolve()
    if path.is_relative_to(root.resolve()):
        return f"{path.relative_to(root.resolve()).as_posix()}:{line}"
    if path.is_relative_to(_OURS):
        return ""
    return f"{Path(*path.parts[-2:]).as_posix()}:{line}"


@dataclass(frozen=True)
class OperationChange:
    """An operation that is not executed as it was: the step, in words what is other, and how.

    `gone` and `added` operations are in one of the two alone.
    """

    step: Step
    detail: str
    gone: bool = False
    added: bool = False


@dataclass
class OperationChanges:
    """What two snapshots of a side execute otherwise, by name, in the order of execution."""

    changes: dict[str, OperationChange] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    @property
    def alone(self) -> set[str]:
        """The names of operations that one of the two has alone."""
        return {name for name, change in self.changes.items() if change.gone or change.added}

    def source(self, name: str) -> str:
        return self.steps[name].source if name in self.steps else ""


def operation_changes(old: Operations | None, new: Operations | None) -> OperationChanges:
    """What is executed otherwise; nothing where one of the two did not record it."""
    found = OperationChanges()
    if old is None or new is None:
        return found
    before, after = ({step.name: step for step in one.steps} for one in (old, new))
    found.steps = before | after
    passed: set[str] = set()  # of the old ones, in order: what is gone is told where it was
    for name, step in after.items():
        if name in before:
            for gone in _up_to(name, before, passed):
                if gone not in after:
                    found.changes[gone] = OperationChange(
                        before[gone], "is not executed any more", gone=True
                    )
            detail = _detail(before[name], step, before.keys() & after.keys())
            if detail:
                found.changes[name] = OperationChange(step, detail)
        else:
            words = " + ".join(step.does)
            found.changes[name] = OperationChange(step, f"{words} is new here", added=True)
    for gone in before.keys() - after.keys() - passed:
        found.changes[gone] = OperationChange(before[gone], "is not executed any more", gone=True)
    return found


def _up_to(name: str, before: Mapping[str, Step], passed: set[str]) -> list[str]:
    names = list(before)
    reached = [n for n in names[: names.index(name)] if n not in passed]
    passed.update((*reached, name))
    return reached


def _detail(old: Step, new: Step, shared: Set[str]) -> str:
    parts = []
    if old.does != new.does:
        parts.append(f"is {' + '.join(new.does)} now, was {' + '.join(old.does)}")
    both = [r for step in (old, new) for r in step.reads]
    known = all(r in shared or r.startswith("input ") for r in both)  # else that one is told
    if known and sorted(old.reads) != sorted(new.reads):
        parts.append(f"reads {', '.join(new.reads)} now, read {', '.join(old.reads)}")
    return "; ".join(parts)
