"""What MXNet computed for every operator, recorded: it stands in where MXNet is not installed.

The recorded cases are some of those that `test_symbol_differential` draws; `python -m
mxnet_files.tests.record` writes them anew. They say of an operator that it computes here what it
computed in MXNet. That a graph of such operators is MXNet's graph only MXNet itself can say.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mxnet_files.build import Step, every_step, plan
from mxnet_files.checking.local import FLOAT32_INSIDE
from mxnet_files.errors import SymbolError
from mxnet_files.load import import_symbol
from mxnet_files.reading.attributes import IGNORED
from mxnet_files.reading.reader import SymbolGraph, read_graph
from mxnet_files.registry import OPERATORS
from mxnet_files.running import largest

FILE = Path(__file__).with_name("recorded.jsonl.gz")
UNITS = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}


@dataclass(frozen=True)
class RecordedCase:
    """One operator on given arrays: the symbol, its variables by name, and MXNet's outputs."""

    operator: str  # its main name
    document: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    stored: bool  # the arrays are parameters, not inputs
    outputs: Sequence[np.ndarray] = ()

    def step(self) -> Step:
        """The operator's node, read."""
        return plan(read_graph(self.document))[0]

    def difference(self) -> str:
        """How what is computed here differs from MXNet's outputs; empty where it does not."""
        found = computed(self.document, self.arrays, stored=self.stored)
        if isinstance(found, str):
            return found
        if len(found) != len(self.outputs):
            return f"{len(found)} outputs, MXNet has {len(self.outputs)}"
        node = self.step().node
        given = list(self.arrays.values())
        for a, b in zip(found, self.outputs, strict=True):
            if told := difference(a, b, given, node.op, node.attributes):
                return told
        return ""


@dataclass(frozen=True)
class Recorded:
    """What a graph's operators were held against; `missing` are those without recorded values."""

    version: str  # MXNet's
    operators: int
    cases: int
    missing: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """As reports say it."""
        return (
            f"{self.cases} recorded results of MXNet {self.version} for its {self.operators} "
            f"operators (MXNet itself did not run the graph)"
        )

    @property
    def problem(self) -> str:
        """Why the records do not cover the graph; empty where they do."""
        left = ", ".join(self.missing)
        return f"MXNet is not installed, and nothing is recorded of {left}" if left else ""


def replay(graph: SymbolGraph) -> Recorded:
    """Hold every operator of a graph against what MXNet computed for it.

    Each word and truth value among a node's attributes must occur in a recorded case of its
    operator. Raises `SymbolError` where an operator computes something else here, which another
    release of torch may bring about.
    """
    wanted: dict[str, set[tuple[str, Any]]] = {}
    for step in every_step(plan(graph)):
        wanted.setdefault(step.operator.name, set()).update(said(step))
    version, cases = read(wanted)
    seen: list[str] = []  # the operator of each case
    for case in cases:
        seen.append(case.operator)
        wanted[case.operator] -= said(case.step())
        if told := case.difference():
            raise SymbolError(
                f"{case.operator} does not compute here (torch {torch.__version__}) what MXNet "
                f"{version} did: {told}"
            )
    missing = [
        told
        for name, left in wanted.items()
        for told in ([f"{name} with {key}={value}" for key, value in sorted(left)] if name in seen
                     else [name])
    ]  # fmt: skip
    return Recorded(version, len(wanted), len(seen), tuple(missing))


def said(step: Step) -> set[tuple[str, Any]]:
    """The words and truth values of a node, by attribute."""
    values = vars(step.attributes)
    return {
        (name, values[name])
        for name, attribute in step.operator.attributes.items()
        if attribute is not IGNORED and isinstance(values[name], (str, bool))
    }


def computed(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, stored: bool
) -> list[torch.Tensor] | str:
    """What the import gives, or its refusal."""
    given = [] if stored else list(arrays)
    try:
        module = import_symbol(document, arrays if stored else {}, inputs=given)
        with torch.no_grad():
            got = module(*(torch.tensor(arrays[name]) for name in given))
    except Exception as error:  # of torch, on odd input
        return f"{type(error).__name__}: {error}"
    return [y.detach() for y in (got if isinstance(got, tuple) else (got,))]


def difference(
    a: torch.Tensor,
    b: np.ndarray,
    given: Sequence[np.ndarray],
    operator: str,
    attributes: Mapping[str, str],
) -> str:
    """How `a` differs from MXNet's `b`; empty if shape and dtype, what is not finite and whole
    numbers are equal, and reals as near as rounding of the `given` arrays explains.
    """
    if a.dtype == torch.bfloat16:  # numpy has no bfloat16, MXNet gives its bits
        bits = b.view("<u2").reshape(-1).astype(np.uint32) << 16
        a, b = a.float(), bits.view(np.float32).reshape(b.shape)
    got = a.numpy()
    shown = f"got {got.ravel()[:8]}, MXNet {b.ravel()[:8]}"
    if (got.shape, got.dtype) != (b.shape, b.dtype):
        return f"got {got.dtype}{got.shape}, MXNet {b.dtype}{b.shape}"
    if b.dtype == bool:
        return "" if np.array_equal(got, b) else shown
    if b.dtype.kind in "iu":  # float64 inside: exact below 2^46
        error = np.abs(got.astype(np.float64) - b.astype(np.float64))
        near = (error <= 64 * 2.0**-53 * np.abs(b.astype(np.float64))).all()
        return "" if near and np.array_equal(got[error == 0], b[error == 0]) else shown
    unit = max(UNITS.get(array.dtype.name, 0.0) for array in (*given, b))
    if "bfloat16" in attributes.values():
        unit = 2.0**-14  # MXNet cuts the bits off that are too many
    relu = attributes.get("mode") == "rnn_relu"
    if relu or OPERATORS[operator].name in FLOAT32_INSIDE:
        unit = max(unit, UNITS["float32"])
    got, b = got.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(got[~finite], b[~finite], equal_nan=True):
        return shown
    size = max([1.0, *(largest(array) for array in (*given, b) if array.dtype.kind == "f")])
    near = (np.abs(got[finite] - b[finite]) <= 64 * unit * (np.abs(b[finite]) + size)).all()
    return "" if near else shown


def read(names: Collection[str] | None = None) -> tuple[str, Iterator[RecordedCase]]:
    """MXNet's version, and the cases of the operators of these main names, or of all."""
    lines = gzip.decompress(FILE.read_bytes()).decode().splitlines()
    rows = (json.loads(line) for line in lines[1:])
    cases = (
        RecordedCase(
            row["operator"],
            row["document"],
            {name: unpack(array) for name, array in row["arrays"].items()},
            row["stored"],
            [unpack(array) for array in row["outputs"]],
        )
        for row in rows
        if names is None or row["operator"] in names
    )
    return json.loads(lines[0])["mxnet"], cases


def write(version: str, cases: Sequence[RecordedCase]) -> None:
    """Write the file anew; the same cases give the same bytes."""
    lines = [json.dumps({"mxnet": version})]
    lines += [
        json.dumps(
            {
                "operator": case.operator,
                "document": case.document,
                "arrays": {name: pack(array) for name, array in case.arrays.items()},
                "stored": case.stored,
                "outputs": [pack(array) for array in case.outputs],
            }
        )
        for case in cases
    ]
    FILE.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def pack(array: np.ndarray) -> list[Any]:
    """An array as JSON; one of bfloat16 as its bits."""
    array = array.view("<u2") if array.dtype.names else array
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return [array.dtype.str, list(array.shape), data]


def unpack(packed: Sequence[Any]) -> np.ndarray:
    """What `pack` was given."""
    kind, shape, data = packed
    return np.frombuffer(base64.b64decode(data), kind).reshape(shape).copy()
