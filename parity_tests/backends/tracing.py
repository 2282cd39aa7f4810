"""What both tracers and recorded nets share: an operation graph, from what was put on a tape."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.files.tape import Tape, flatten
from parity_tests.pairing.graph import (
    Operand,
    Operation,
    OperationGraph,
    Origin,
    Parameter,
    Replay,
    Value,
)

__all__ = [
    "BACKENDS",
    "HELD",
    "WIDE_FLOATS",
    "digest",
    "flatten",
    "graph_of",
    "pass_on",
    "replay_whole",
    "taken_for_single",
    "written_lines",
]

BACKENDS = os.path.dirname(__file__) + os.sep  # whose frames are not the user's code
# What a loss that is computed in float64 may name without being rounded more than the net is
WIDE_FLOATS = frozenset({"float32", "float64"})
# How many values of an output its digest samples
_SAMPLES = 16
# How many numbers that no input decides are kept of an operation: a mask of 1,448 places by as many
HELD = 1 << 21


def graph_of(record: Mapping[str, Any], constants: Mapping[str, Any]) -> OperationGraph:
    """The graph of what `Tape.graph` gives; `constants` are the arrays of its constants."""
    parameters = {
        name: Parameter(name, tuple(shape), dtype)
        for name, (shape, dtype) in record["parameters"].items()
    }
    return OperationGraph(
        tuple(_operation(i, op, parameters) for i, op in enumerate(record["operations"])),
        tuple(tuple(shape) for shape in record["inputs"]),
        tuple(_value(*read) for read in record["outputs"]),
        parameters,
        dict(record["aliases"]),
        bool(record["train"]),
        dict(constants),
        {name: _value(*value) for name, value in record["writes"].items()},
        outside=dict(record.get("outside", {})),
    )


def _operation(index: int, op: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> Operation:
    reads = tuple(_value(*read) for read in op["reads"])
    inputs, own = [], {}
    for role, value, shape in zip(op["roles"], reads, op["operands"], strict=True):
        if value.origin is Origin.PARAMETER:
            own[role] = parameters[str(value.key)]
        else:
            inputs.append(Operand(role, value, tuple(shape)))
    replayed, replay = op.get("replayed", (op["reads"], op.get("replay")))
    return Operation(
        index,
        op["kind"],
        op["attributes"],
        tuple(inputs),
        own,
        tuple(tuple(shape) for shape in op["shapes"]),
        tuple(op["dtypes"]),
        op["path"],
        op["call"],
        op["source"],
        op.get("opaque", False),
        op.get("digest", ()),
        (index,),
        tuple(op["roles"]),
        tuple(_value(*read) for read in replayed),
        replay,
        own_gradient=_own_gradient(op),
        function=op.get("function", -1),
        infinite=op.get("infinite", False),
        held=op.get("held"),
        lacks_gradient=op.get("lacks_gradient", ""),
    )


def _own_gradient(op: Mapping[str, Any]) -> str:
    if op.get("stops_gradient", False):
        return "detach"
    return "own gradient" if "replayed" in op else ""


def _value(origin: str, key: int | str, output: int) -> Value:
    return Value(Origin(origin), key, output)


def pass_on(arrays: Sequence[Any], dtype: str) -> list[Any]:
    """The replay of an operation that gives back its first array."""
    return [arrays[0]]


def replay_whole(
    tape: Tape, start: int, outputs: Sequence[Any], reads: Sequence[Any], replay: Replay
) -> None:
    """Let what a function with a gradient of its own gives be replayed by the function itself.

    Not by what it ran, from operation `start` on: that has another gradient. Of several outputs
    each is replayed by a run of its own, and the others send nothing back.
    """
    for record in tape.operations[start:]:
        record["function"] = start
    for position, array in enumerate(outputs):
        origin, index, _ = tape.producers.get(array, ("", 0, 0))
        if origin == "operation" and len(tape.operations[index]["shapes"]) == 1:
            record = tape.operations[index]
            record["replayed"] = [tape.value(r) for r in reads], partial(_one, replay, position)


def _one(replay: Replay, position: int, arrays: Sequence[Any], dtype: str) -> list[Any]:
    return [replay(arrays, dtype)[position]]


def taken_for_single(dtypes: Container[str]) -> set[str]:
    """The dtypes of floats that a net's code may name, and that are float32 in its copy in float32.

    A net that holds parameters of these dtypes computes in the narrowest of them at best: whatever
    it casts to that or to a wider one is not rounded more than the net is.

    >>> sorted(taken_for_single({"float16", "float32"})), taken_for_single({"float64", "int32"})
    (['float16', 'float64'], {'float64'})
    >>> taken_for_single({"float32"})
    set()
    """
    if "float16" in dtypes:
        return {"float16", "float64"}
    return {"float64"} if "float64" in dtypes else set()


def digest(array: np.ndarray) -> tuple[float, ...]:
    """A few numbers that tell two arrays of values apart: their sums and samples."""
    flat = np.asarray(array, dtype=np.float64).reshape(-1)
    if not flat.size:
        return ()
    step = max(1, flat.size // _SAMPLES)
    return (float(flat.sum()), float(np.abs(flat).sum()), *map(float, flat[::step][:_SAMPLES]))


def written_lines(
    graph: OperationGraph,
    names: Mapping[Value, str],
    call: Callable[[Operation, list[str]], str | None],
) -> list[str]:
    """A graph as Python, one line for each operation.

    `names` are the expressions of inputs and parameters; `call` gives that of an operation from
    those of what it reads, or None where it passes the first of them on.
    """
    known = dict(names)
    written = []
    for operation in graph:
        arrays = [known[value] for value in operation.reads]
        called = call(operation, arrays)
        results = arrays[:1]
        if called is not None:
            results = [f"v{operation.index}_{i}" for i in range(len(operation.shapes))]
            written.append(f"{', '.join(results)} = {called}")
        for position, name in enumerate(results):
            known[Value(Origin.OPERATION, operation.index, position)] = name
    return [*written, f"outputs = [{', '.join(known[value] for value in graph.outputs)}]"]
