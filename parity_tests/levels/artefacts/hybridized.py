"""Level artefacts: Gluon's imperative net = hybridized = hybridized with static memory = exported.

The files and all ways of opening them are compared in `exported_rows`; this module has the graphs
that live beside the net.

Bit by bit where the graph adds in the same order, as it does for this project's models. A graph may
choose another layout for an operation, and so another order: then its distance from the same steps
in float64 must be that of the imperative net, within the envelope's factor.

One block goes through several steps, as it would in use: inference, training with an update of the
parameters, on other inputs each time, and inference again. A graph that keeps a mode, a buffer or a
parameter from the time when it was traced is right once.

Framework specific (mxnet): hybridizing is Gluon's own, and its modes are autograd's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock

from parity_tests.backends.base import leaves_of
from parity_tests.backends.gluon import clones as gluon_clones
from parity_tests.backends.gluon.numpy_mode import call, is_on
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET, Arrays, input_name, is_float, output_name
from parity_tests.levels.artefacts.files import exported_rows
from parity_tests.levels.diagnosis.graphs import explain_graph
from parity_tests.levels.local import content_of, of_whole_numbers
from parity_tests.levels.referee import DidNotRun, Subject, attempt
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, compare
from parity_tests.reporting.rows import LEFT_OUT, Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

VARIANTS: dict[Check, dict[str, bool]] = {
    Check.HYBRIDIZED: {},
    Check.STATIC: {"static_alloc": True, "static_shape": True},
}
STEPS = (Mode.INFERENCE, Mode.TRAIN, Mode.TRAIN, Mode.INFERENCE)
_RATE = 2.0**-6  # of the update in a training step
_row = partial(Row, level=Level.ARTEFACTS, quantity="output", status=Status.NOT_COMPARED)


def artefacts_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    """The whole net; where it differs every leaf alone too, so that the difference has a path."""
    coverage = Coverage()
    rows: list[Row] = []
    for path in dict.fromkeys(pair.path for pair in subject.pairing.pairs):
        coverage.expect("artefacts", path)
    try:
        rows += _rows(NET, partial(_whole, subject.gluon_net), subject.inputs)
        if not rows or any(row.status != Status.OK for row in rows):
            rows = _leaf_rows(subject) + rows
        why = _without_files(subject.gluon_net)
        if why:
            rows.append(_row(path=NET, quantity="", detail=LEFT_OUT + why, status=Status.NOTE))
        else:
            of_files, coverage_of_files = exported_rows(subject)
            rows += of_files
            coverage.merge(coverage_of_files)
    except DidNotRun as error:
        rows.append(_row(path=NET, detail=str(error)))
        why = ""
    if why or any(row.compared for row in rows):
        for path in coverage.expected["artefacts"]:
            coverage.done("artefacts", path)
    return rows, coverage


def _without_files(net: Block) -> str:
    """Why a net has no files that could be compared; empty where it has."""
    if not isinstance(net, HybridBlock):
        return f"{type(net).__name__} is no HybridBlock: it has no graph, and no files"
    return "the files of a net on mx.np arrays; mxnet-files check compares them" if is_on() else ""


def _leaf_rows(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    run = subject.run(Side.TORCH, "float64", train=False)
    for pair in subject.pairing.pairs:
        calls = run.calls[pair.torch.path]
        if calls and not pair.gluon.composite:
            rows += _rows(pair.path, partial(_alone, pair.gluon), calls[0].inputs)
    return rows


def _alone(leaf: Leaf, dtype: str) -> Block:
    block = gluon_clones.alone(leaf, dtype)
    if leaf.kind == "dropout":
        block._rate = 0.0
    return block


def _whole(net: Block, dtype: str) -> Block:
    copied = gluon_clones.clone(net, dtype)
    for leaf in leaves_of(copied):
        if leaf.kind == "dropout":
            leaf.block._rate = 0.0
    return copied


def _rows(path: str, make: Callable[[str], Block], inputs: Arrays) -> Iterator[Row]:
    if not isinstance(make("float32"), HybridBlock):
        return  # `_without_files` says so of the net, and its leaves are compared
    imperative = attempt("gluon", _steps, make("float32"), inputs, "float32")
    for variant, flags in VARIANTS.items():
        block = make("float32")
        blank = _row(path=path, check=variant, dtype="float32")
        block.hybridize(**flags)
        try:
            graph = attempt("gluon", _steps, block, inputs, "float32")
        except DidNotRun as error:
            yield replace(blank, status=Status.DIVERGED, compared=1, detail=str(error))
            continue
        rows = list(_compared(blank, graph, imperative))
        if any(row.status == Status.DIVERGED for row in rows):
            rows = _in_another_order(rows, blank, graph, imperative, make, inputs)
        yield from (_explained(row, graph, imperative, make, inputs) for row in rows)


def _explained(
    row: Row, graph: Steps, imperative: Steps, make: Callable[[str], Block], inputs: Arrays
) -> Row:
    if row.status != Status.DIVERGED:
        return row
    name, _, step = row.quantity.rpartition(", step ")
    number = int(step) - 1
    if name not in graph[number] or name not in imperative[number]:
        return row
    varied = tuple(_varied(x, number) for x in inputs)

    def exchanged() -> np.ndarray:
        return _infer(make("float32"), varied[::-1], "float32")[name]

    two = len(varied) == 2 and varied[0].shape == varied[1].shape and number == 0
    values = graph[number][name], imperative[number][name]
    diagnosis = explain_graph(name, *values, varied, exchanged if two else None)
    return replace(row, diagnosis=diagnosis)


Steps = list[dict[str, np.ndarray]]


def _compared(blank: Row, graph: Steps, imperative: Steps) -> Iterator[Row]:
    for step, mode in enumerate(STEPS):
        actual, expected = graph[step], imperative[step]
        for name in {**expected, **actual}:
            row = replace(blank, quantity=f"{name}, step {step + 1}", mode=mode)
            if name in actual and name in expected:
                both = actual[name], expected[name]
                verdict = of_whole_numbers(*both) or compare(*both, content=_content(name))
                yield row.with_verdict(verdict)
            else:
                detail = f"only one of imperative and {blank.check} gives it"
                yield replace(row, status=Status.DIVERGED, compared=1, detail=detail)


def _in_another_order(
    rows: list[Row],
    blank: Row,
    graph: Steps,
    imperative: Steps,
    make: Callable[[str], Block],
    inputs: Arrays,
) -> list[Row]:
    """The rows again, judged by the distance from float64; as they are where that does not run."""
    try:
        exact = attempt("gluon", _steps, make("float64"), inputs, "float64")
    except DidNotRun:
        return rows
    judged: list[Row] = []
    for step, mode in enumerate(STEPS):
        for name, actual in graph[step].items():
            expected, single = exact[step].get(name), imperative[step].get(name)
            if expected is None or single is None or expected.shape != actual.shape:
                return rows
            row = replace(blank, quantity=f"{name}, step {step + 1}", mode=mode)
            whole = of_whole_numbers(actual, single)
            if whole is not None:
                judged.append(row.with_verdict(whole))
                continue
            own = float(np.abs(single - expected).max())
            least = 4 * UNIT["float32"] * float(np.abs(expected).max())
            verdict = compare(
                actual,
                expected,
                scale=max(own, least) / UNIT["float32"],
                factor=ENVELOPE_FACTOR,
                dtype="float32",
                unit="float32",
                content=_content(name),
            )
            verdict = replace(verdict, unit="× the imperative net's own error")
            judged.append(replace(row.with_verdict(verdict), unit="own errors"))
    return judged


def _content(name: str) -> str:
    return "any" if name.startswith("parameter") else content_of(name)


def _steps(block: Block, inputs: Arrays, dtype: str) -> Steps:
    """What each step gives: outputs, and in training gradients and all parameters after it."""
    return [
        (_train if mode == Mode.TRAIN else _infer)(
            block, tuple(_varied(x, n) for x in inputs), dtype
        )
        for n, mode in enumerate(STEPS)
    ]


def _infer(block: Block, inputs: Arrays, dtype: str) -> dict[str, np.ndarray]:
    outputs = call(block, [gluon_clones.ndarray(x, dtype) for x in inputs])
    return {output_name(i): y.asnumpy() for i, y in enumerate(outputs)}


def _train(block: Block, inputs: Arrays, dtype: str) -> dict[str, np.ndarray]:
    arrays = [gluon_clones.ndarray(x, dtype) for x in inputs]
    for x in arrays:
        if x.dtype == np.dtype(dtype):
            x.attach_grad()
    with autograd.record():
        outputs = call(block, arrays)
    live = [y for y in outputs if np.dtype(y.dtype).kind == "f"]
    if live:
        autograd.backward(live, [_head(y, dtype) for y in live])
    results = {output_name(i): y.asnumpy() for i, y in enumerate(outputs)}
    reached = [(i, x.grad) for i, x in enumerate(arrays) if live and x.grad is not None]
    results |= {input_name(i): gradient.asnumpy() for i, gradient in reached}
    for i, parameter in enumerate(block.collect_params().values()):
        if live and parameter.grad_req != "null":
            results[f"parameter {i} gradient"] = parameter.grad().asnumpy()
            parameter.set_data(parameter.data() - _RATE * parameter.grad())
        results[f"parameter {i}"] = parameter.data().asnumpy()
    return results


def _varied(x: np.ndarray, step: int) -> np.ndarray:
    """Other inputs at every step, of the same shape and kind."""
    turned = np.roll(x, step, axis=-1)
    return turned * (1 - 0.25 * step) if is_float(x) else turned


def _head(output: mx.nd.NDArray, dtype: str) -> mx.nd.NDArray:
    generator = np.random.default_rng(output.size)
    return gluon_clones.ndarray(generator.standard_normal(output.shape), dtype)
