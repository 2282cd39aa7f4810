"""Level artefacts, the files: SymbolBlock.imports = mx.mod.Module = ONNX Runtime = OpenVINO =
PyTorch import.

The net is exported as `gluon_cnn.export` does it, every file is opened every way that it is meant
for, and each way is held against the live net: its parameters bit by bit, every node of the graph,
and the outputs. `exported_truth` says against what.

- MXNet's own ways run the same operators, so every node must be bit-equal; where a graph adds in
  another order, a node must keep 16·u·s of float64 on the same values.
- ONNX Runtime, OpenVINO and the PyTorch import have kernels of their own: every node is run alone
  on the live net's values, and must keep the bounds of float32; the import also those of float64.
- Outputs of the whole net that are not bit-equal are judged against an envelope: how far noise of
  float32's size in every node carries them.

What cannot be made is said in a note: ONNX where the packages are not installed or MXNet has no
translation, the import where it lacks an operator. What was made and does not open is a divergence.

Framework specific (mxnet): the parameters' file is read by MXNet alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gluon_cnn_parity import is_installed, missing
from mxnet_files.checking.local import FLOAT32_INSIDE
from mxnet_files.checking.oracle import without_subgraph_lines
from parity_tests.backends.runs import NET, output_name
from parity_tests.levels.artefacts.expected import Truth, find_truth
from parity_tests.levels.artefacts.exported import (
    OF_ONNX,
    WAYS,
    Opened,
    Values,
    Workspace,
    mxnet_alone,
    write_files,
)
from parity_tests.levels.artefacts.graphs import Entry
from parity_tests.levels.local import of_whole_numbers
from parity_tests.levels.referee import DidNotRun, Subject, attempt
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, Verdict, bits_equal, compare
from parity_tests.numerics.operators.table import kind_of_symbol, operator_of
from parity_tests.reporting.rows import LEFT_OUT, Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Status

_row = partial(Row, level=Level.ARTEFACTS, path=NET)
_SINGLE: dict[str, Any] = {"dtype": "float32", "mode": Mode.INFERENCE}


def _wrong(way: Check, quantity: str, detail: str, **more: Any) -> Row:
    """What a way of opening the files does not have, or has too much, unless a verdict follows."""
    return _row(
        quantity=quantity, status=Status.DIVERGED, check=way, compared=1, detail=detail, **more
    )


def exported_rows(
    subject: Subject, tamper: Callable[[Path], object] = lambda folder: None
) -> tuple[list[Row], Coverage]:
    """Export, open every way, compare. `tamper` may change the files in between: tests do."""
    coverage = Coverage()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, without_subgraph_lines():
        try:
            space, no_onnx = attempt(
                "gluon", write_files, subject.gluon_net, subject.inputs, Path(name)
            )
            truth = attempt("gluon", find_truth, subject.gluon_net, space)
        except DidNotRun as error:
            row = _row(quantity="files", status=Status.NOT_COMPARED, check=Check.FILES)
            return [replace(row, detail=f"no export: {error}")], coverage
        judge = _Judge(subject, space, truth, coverage)
        no_onnx = no_onnx or (truth.unsupported and f"no bound: {truth.unsupported}")
        reasons = {
            Check.ONNX_RUNTIME: no_onnx,
            Check.OPENVINO: no_onnx or ("" if is_installed("openvino") else missing("openvino")),
            Check.TORCH_IMPORT: truth.unsupported,
        }
        tamper(Path(name))
        rows += judge.parameter_rows(Check.FILES, _stored(space))
        for way, opener in WAYS.items():
            if reason := reasons.get(way, ""):
                detail = LEFT_OUT + reason
                rows.append(_row(quantity="files", status=Status.NOTE, check=way, detail=detail))
                continue
            try:
                rows += judge.way_rows(way, attempt(way, opener, space))
            except DidNotRun as error:
                rows.append(_wrong(way, "files", str(error)))
    return rows, coverage


def _stored(space: Workspace) -> dict[str, np.ndarray]:
    """The parameter file, by name with its prefix; empty where it cannot be read."""
    try:
        return {key: array.asnumpy() for key, array in mx.nd.load(str(space.params)).items()}
    except mx.MXNetError:
        return {}


class _Judge:
    """Makes the rows of one net's files."""

    def __init__(
        self, subject: Subject, space: Workspace, truth: Truth, coverage: Coverage
    ) -> None:
        self.space, self.truth, self.coverage = space, truth, coverage
        self.torch_paths = {pair.gluon.path: pair.torch.path for pair in subject.pairing.pairs}
        labels = truth.graph.paths
        self.leaves = {name: label.partition(" ")[2] for name, label in labels.items()}

    def path(self, leaf: str | None) -> str:
        """A Gluon leaf's path as the report gives it."""
        return NET if leaf is None else self.torch_paths.get(leaf, leaf) or NET

    def parameter_rows(self, way: Check, held: Mapping[str, np.ndarray]) -> Iterator[Row]:
        """Every parameter of the live net, bit by bit, in what a way holds."""
        for name, expected in self.truth.parameters.items():
            called = name
            if way == Check.FILES:
                called = f"{'aux' if name in self.truth.auxiliary else 'arg'}:{name}"
            path = self.path(self.truth.owners.get(name))
            row = _wrong(
                way, f"parameter {name}", f"{called} is missing", path=path, dtype="float32"
            )
            self.coverage.expect("exported parameters", f"{way} {name}")
            if called not in held:
                yield row
                continue
            self.coverage.done("exported parameters", f"{way} {name}")
            yield row.with_verdict(bits_equal(held[called], expected))

    def way_rows(self, way: Check, opened: Opened) -> Iterator[Row]:
        """Parameters, nodes and outputs of one way."""
        held = opened.parameters
        if way in OF_ONNX:  # BatchNorm's gamma where it is fixed is stored as 1
            held = {**_fixed(self.truth), **held}
        yield from self.parameter_rows(way, held)
        if way in (Check.SYMBOL_BLOCK, Check.MODULE):
            yield from self.stream_rows(way, opened)
        else:
            yield from self.alone_rows(way, opened.alone, "float32")
        if opened.double:
            yield from self.alone_rows(way, opened.double, "float64")
        yield from self.output_rows(way, opened.outputs)

    def stream_rows(self, way: Check, opened: Opened) -> Iterator[Row]:
        """Nodes of MXNet's own ways: bit-equal, or right when alone."""
        alone: Values | None = None
        for entry in self.entries(way, opened.stream):
            row = self.row(way, entry)
            if entry not in opened.stream:
                yield replace(row, detail=f"the files have no node {entry[0]}")
                continue
            actual, expected = opened.stream[entry], self.truth.single[entry]
            verdict = bits_equal(actual, expected)
            if not verdict.ok and self.truth.scales:
                if alone is None:
                    alone = self.alone_in_mxnet(opened)
                if entry in alone:
                    verdict = self.alone_verdict(way, alone[entry], entry, "float32")
            yield row.with_verdict(verdict)
        yield from self.strange(way, opened.stream)

    def alone_in_mxnet(self, opened: Opened) -> Values:
        """The files' graph, with the files' parameters, node by node."""
        try:
            return attempt(
                "gluon", mxnet_alone, self.space.graph(), opened.parameters, self.space, "float32"
            )
        except DidNotRun:
            return {}

    def alone_rows(self, way: Check, values: Values, dtype: str) -> Iterator[Row]:
        """Nodes run alone on the live net's values."""
        for entry in self.entries(way, values):
            row = replace(self.row(way, entry), dtype=dtype)
            if entry in values:
                yield row.with_verdict(self.alone_verdict(way, values[entry], entry, dtype))
        if way == Check.TORCH_IMPORT:
            yield from self.strange(way, values)

    def entries(self, way: Check, shown: Iterable[Entry]) -> Iterator[Entry]:
        """The live net's nodes; each is to be compared, but for what a converter folds away."""
        folded = way in (*OF_ONNX, Check.TORCH_IMPORT)
        for entry in self.truth.graph.entries:
            key = f"{way} {entry[0]} {entry[1]}"
            if entry in set(shown):
                self.coverage.expect("graph nodes", key)
                self.coverage.done("graph nodes", key)
            elif not folded or not self.may_fold(entry):
                self.coverage.expect("graph nodes", key)
            yield entry

    def may_fold(self, entry: Entry) -> bool:
        """Whether a node computes nothing: files of another format may do without it."""
        op, _ = self.truth.graph.operators[entry[0]]
        return op in ("identity", "_copy", "BlockGrad", "Dropout")

    def strange(self, way: Check, shown: Iterable[Entry]) -> Iterator[Row]:
        """Nodes that the live net does not have."""
        known = self.truth.graph.entries
        for entry in shown:
            if entry not in known:
                detail = f"the files compute {entry[0]}, the net does not"
                yield _wrong(way, f"output of {entry[0]}", detail)

    def row(self, way: Check, entry: Entry) -> Row:
        name, index = entry
        quantity = f"output {index + 1} of {name}" if index else f"output of {name}"
        return _wrong(way, quantity, "", path=self.path(self.leaves.get(name)), **_SINGLE)

    def alone_verdict(self, way: Check, actual: np.ndarray, entry: Entry, dtype: str) -> Verdict:
        """A node's value beside float64's on the same inputs."""
        expected = self.truth.double[entry]
        scale = self.truth.scales.get(entry, np.zeros(1))  # the import drops identities
        factor = self.truth.factor(entry)
        op, attributes = self.truth.graph.operators[entry[0]]
        if way == Check.ONNX_RUNTIME:
            kind = kind_of_symbol(attributes.get("act_type", op))
            scale = scale + operator_of(kind).onnx_runtime_offset
        if dtype == "float64" and op in FLOAT32_INSIDE:
            factor *= UNIT["float32"] / UNIT["float64"]
        if not np.issubdtype(expected.dtype, np.floating):
            dtype = str(actual.dtype)
        if not scale.any():  # nothing is rounded: the value as float32 has it
            expected = expected.astype(dtype)
        varied = entry in self.truth.imperative and np.ptp(expected) > 0
        return compare(
            actual,
            expected,
            scale=scale,
            factor=factor,
            dtype=dtype,
            unit=dtype if dtype in UNIT else "float32",
            content="varied" if varied else "any",
        )

    def output_rows(self, way: Check, outputs: list[np.ndarray]) -> Iterator[Row]:
        """The whole net's outputs: bit-equal, or within the envelope of float64."""
        if len(outputs) != len(self.truth.outputs):
            detail = f"{len(outputs)} outputs, the net has {len(self.truth.outputs)}"
            yield _wrong(way, "outputs", detail)
            return
        for place, actual in enumerate(outputs):
            row = _wrong(way, output_name(place), "", **_SINGLE)
            expected = self.truth.outputs[place]
            verdict = of_whole_numbers(actual, expected) or compare(actual, expected)
            if verdict.reason != "values" or not self.truth.deviations:
                yield row.with_verdict(verdict)
                continue
            verdict = compare(
                actual,
                self.truth.referee[place],
                scale=self.truth.deviations[place] / UNIT["float32"],
                factor=ENVELOPE_FACTOR,
                dtype="float32",
                unit="float32",
            )
            yield row.with_verdict(replace(verdict, unit="envelopes"))


def _fixes_gamma(node: Mapping[str, Any]) -> bool:
    fixed = node.get("attrs", {}).get("fix_gamma", "True") in ("True", "true", "1")
    return node["op"] == "BatchNorm" and fixed


def _fixed(truth: Truth) -> dict[str, np.ndarray]:
    """Parameters that the graph does not read, or takes for 1: an ONNX file may leave them out."""
    graph: Any = truth.graph.document
    read = {
        edge[0]
        for node in graph["nodes"]
        for position, edge in enumerate(node["inputs"])
        if position != 1 or not _fixes_gamma(node)
    }
    names = [node["name"] for number, node in enumerate(graph["nodes"]) if number in read]
    return {name: v for name, v in truth.parameters.items() if name not in names}
