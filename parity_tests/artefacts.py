"""Level artefacts: Gluon's imperative net = hybridized = hybridized with static memory, bit by bit.

One block goes through several steps, as it would in use: inference, training with an update of the
parameters, on other inputs each time, and inference again. A graph that keeps a mode, a buffer or a
parameter from the time when it was traced is right once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock

from parity_tests import gluon_side
from parity_tests.compare import compare
from parity_tests.leaves import Leaf, leaves_of
from parity_tests.local import content_of
from parity_tests.referee import DidNotRun, Subject, attempt
from parity_tests.report import Coverage, Row
from parity_tests.runs import NET, Arrays, input_name, is_float, output_name

__all__ = ["STEPS", "VARIANTS", "artefacts_rows"]

VARIANTS: dict[str, dict[str, bool]] = {
    "hybridized": {},
    "static": {"static_alloc": True, "static_shape": True},
}
STEPS = ("inference", "train", "train", "inference")
_RATE = 2.0**-6  # of the update in a training step


def artefacts_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    """The whole net; where it differs every leaf alone too, so that the difference has a path."""
    coverage = Coverage()
    rows: list[Row] = []
    for path in dict.fromkeys(pair.path for pair in subject.pairing.pairs):
        coverage.expect("artefacts", path)
    try:
        rows += _rows(NET, partial(_whole, subject.gluon_net), subject.inputs)
        if any(row.status != "ok" for row in rows):
            rows = _leaf_rows(subject) + rows
    except DidNotRun as error:
        rows.append(Row("artefacts", NET, "output", "not compared", detail=str(error)))
    if any(row.compared for row in rows):
        for path in coverage.expected["artefacts"]:
            coverage.done("artefacts", path)
    return rows, coverage


def _leaf_rows(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    run = subject.run("torch", "float64", train=False)
    for pair in subject.pairing.pairs:
        calls = run.calls[pair.torch.path]
        if calls and not pair.gluon.composite:
            rows += _rows(pair.path, partial(_alone, pair.gluon), calls[0].inputs)
    return rows


def _alone(leaf: Leaf) -> Block:
    block = gluon_side.alone(leaf, "float32")
    if leaf.kind == "dropout":
        block._rate = 0.0
    return block


def _whole(net: Block) -> Block:
    copied = gluon_side.clone(net, "float32")
    for leaf in leaves_of(copied):
        if leaf.kind == "dropout":
            leaf.block._rate = 0.0
    return copied


def _rows(path: str, make: Callable[[], Block], inputs: Arrays) -> Iterator[Row]:
    wanted = attempt("gluon", _steps, make(), inputs)
    for variant, flags in VARIANTS.items():
        block = make()
        blank = Row("artefacts", path, "output", "not compared", variant, dtype="float32")
        if not isinstance(block, HybridBlock):
            yield replace(blank, detail=f"{type(block).__name__} is no HybridBlock")
            continue
        block.hybridize(**flags)
        try:
            made = attempt("gluon", _steps, block, inputs)
        except DidNotRun as error:
            yield replace(blank, status="diverged", compared=1, detail=str(error))
            continue
        for step, mode in enumerate(STEPS):
            actual, expected = made[step], wanted[step]
            for name in {**expected, **actual}:
                row = replace(blank, quantity=f"{name}, step {step + 1}", mode=mode)
                if name not in actual or name not in expected:
                    detail = f"only one of imperative and {variant} gives it"
                    yield replace(row, status="diverged", compared=1, detail=detail)
                    continue
                verdict = compare(actual[name], expected[name], content=_content(name))
                yield row.with_verdict(verdict)


def _content(name: str) -> str:
    return "any" if name.startswith("parameter") else content_of(name)


def _steps(block: Block, inputs: Arrays) -> list[dict[str, np.ndarray]]:
    """What each step gives: outputs, and in training gradients and all parameters after it."""
    return [
        (_train if mode == "train" else _infer)(block, tuple(_varied(x, n) for x in inputs))
        for n, mode in enumerate(STEPS)
    ]


def _infer(block: Block, inputs: Arrays) -> dict[str, np.ndarray]:
    outputs = gluon_side.flat(block(*(gluon_side.ndarray(x, "float32") for x in inputs)))
    return {output_name(i): y.asnumpy() for i, y in enumerate(outputs)}


def _train(block: Block, inputs: Arrays) -> dict[str, np.ndarray]:
    given = [gluon_side.ndarray(x, "float32") for x in inputs]
    for x in given:
        if x.dtype == np.float32:
            x.attach_grad()
    with autograd.record():
        outputs = gluon_side.flat(block(*given))
    autograd.backward(outputs, [_head(y) for y in outputs])
    results = {output_name(i): y.asnumpy() for i, y in enumerate(outputs)}
    results |= {input_name(i): x.grad.asnumpy() for i, x in enumerate(given) if x.grad is not None}
    for i, parameter in enumerate(block.collect_params().values()):
        if parameter.grad_req != "null":
            results[f"parameter {i} gradient"] = parameter.grad().asnumpy()
            parameter.set_data(parameter.data() - _RATE * parameter.grad())
        results[f"parameter {i}"] = parameter.data().asnumpy()
    return results


def _varied(x: np.ndarray, step: int) -> np.ndarray:
    """Other inputs at every step, of the same shape and kind."""
    turned = np.roll(x, step, axis=-1)
    return turned * (1 - 0.25 * step) if is_float(x) else turned


def _head(output: mx.nd.NDArray) -> mx.nd.NDArray:
    generator = np.random.default_rng(output.size)
    return gluon_side.ndarray(generator.standard_normal(output.shape), "float32")
