"""Level artefacts: Gluon's imperative net = hybridized = hybridized with static memory, bit by bit.

Twice in a row, on other inputs the second time and, in training, after an update of the parameters:
a graph that keeps stale buffers or parameters is right once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

__all__ = ["VARIANTS", "artefacts_rows"]

VARIANTS: dict[str, dict[str, bool]] = {
    "hybridized": {},
    "static": {"static_alloc": True, "static_shape": True},
}
_STEPS = 2
_RATE = 2.0**-6  # of the update between two training steps


def artefacts_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    """The whole net; where it differs every leaf alone too, so that the difference has a path."""
    coverage = Coverage()
    rows: list[Row] = []
    for path in dict.fromkeys(pair.path for pair in subject.pairing.pairs):
        coverage.expect("artefacts", path)
    try:
        for train in (False, True):
            rows += _rows(NET, partial(_whole, subject.gluon_net), subject.inputs, train)
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
    for train in (False, True):
        run = subject.run("torch", "float64", train=train)
        for pair in subject.pairing.pairs:
            calls = run.calls[pair.torch.path]
            if calls and not pair.gluon.composite:
                rows += _rows(pair.path, partial(_alone, pair.gluon), calls[0].inputs, train)
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


def _rows(path: str, make: Callable[[], Block], inputs: Arrays, train: bool) -> Iterator[Row]:
    mode = "train" if train else "inference"
    wanted = attempt("gluon", _steps, make(), inputs, train)
    for variant, flags in VARIANTS.items():
        block = make()
        if not isinstance(block, HybridBlock):
            detail = f"{type(block).__name__} is no HybridBlock"
            yield Row("artefacts", path, "output", "not compared", variant, detail=detail)
            continue
        block.hybridize(**flags)
        try:
            made = attempt("gluon", _steps, block, inputs, train)
        except DidNotRun as error:
            yield Row(
                "artefacts",
                path,
                "output",
                "diverged",
                variant,
                mode=mode,
                compared=1,
                detail=str(error),
            )
            continue
        for step, (actual, expected) in enumerate(zip(made, wanted, strict=True)):
            for name in {**expected, **actual}:
                if name not in actual or name not in expected:
                    yield Row(
                        "artefacts",
                        path,
                        name,
                        "diverged",
                        variant,
                        mode=mode,
                        compared=1,
                        detail=f"only one of imperative and {variant} gives a {name}",
                    )
                    continue
                verdict = compare(actual[name], expected[name], content=_content(name))
                yield Row.judged(
                    "artefacts",
                    path,
                    f"{name}, step {step + 1}",
                    verdict,
                    check=variant,
                    dtype="float32",
                    mode=mode,
                )


def _content(name: str) -> str:
    return "any" if name.startswith("parameter") else content_of(name)


def _steps(block: Block, inputs: Arrays, train: bool) -> list[dict[str, np.ndarray]]:
    """What a few steps in a row give: outputs, and in training gradients and all parameters."""
    found = []
    parameters = block.collect_params()
    for step in range(_STEPS):
        given = [gluon_side.ndarray(_varied(x) if step else x, "float32") for x in inputs]
        if not train:
            outputs = gluon_side.flat(block(*given))
            found.append({output_name(i): y.asnumpy() for i, y in enumerate(outputs)})
            continue
        for x in given:
            x.attach_grad()
        with autograd.record():
            outputs = gluon_side.flat(block(*given))
        autograd.backward(outputs, [_head(y) for y in outputs])
        results = {output_name(i): y.asnumpy() for i, y in enumerate(outputs)}
        results |= {input_name(i): x.grad.asnumpy() for i, x in enumerate(given)}
        for i, parameter in enumerate(parameters.values()):
            if parameter.grad_req != "null":
                results[f"parameter {i} gradient"] = parameter.grad().asnumpy()
                parameter.set_data(parameter.data() - _RATE * parameter.grad())
            results[f"parameter {i}"] = parameter.data().asnumpy()
        found.append(results)
    return found


def _varied(x: np.ndarray) -> np.ndarray:
    return np.flip(x, 0) * 0.5 if is_float(x) else np.flip(x, 0)


def _head(output: mx.nd.NDArray) -> mx.nd.NDArray:
    generator = np.random.default_rng(output.size)
    return gluon_side.ndarray(generator.standard_normal(output.shape), "float32")
