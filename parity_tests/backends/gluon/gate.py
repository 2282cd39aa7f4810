"""What the gate asks of MXNet; its twin is `backends.torch.gate`. Imports MXNet alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET, Arrays, NetRun, Objective
from parity_tests.gate.record.subjects import RATE, RULES, Tensors, fixed_upstream
from parity_tests.numerics.update_rules import Rule

__all__ = [
    "artefacts", "default_loss", "dressed", "dressed_leaf", "leaves", "loss_run", "objective",
    "release", "rules", "run_leaf", "run_net", "steps", "updates",
]  # fmt: skip

SIDE = "gluon"
ARRAY = mx.nd.NDArray
release = gluon_side.release
run_leaf = gluon_side.run_leaf


def dressed(net: Any, values: Tensors) -> Any:
    """A copy of the net with other values."""
    copied = gluon_side.clone(net, None, gradients=False)
    for leaf in leaves(copied):
        _fill(leaf, {r: values[leaf.path, r] for r in leaf.tensors if (leaf.path, r) in values})
    return copied


def dressed_leaf(leaf: Leaf, values: Mapping[str, np.ndarray]) -> Leaf:
    """A copy of the leaf with other values, by role."""
    copied = replace(leaf, block=gluon_side.alone(leaf, None, gradients=False))
    _fill(copied, values)
    return copied


def _fill(leaf: Leaf, values: Mapping[str, np.ndarray]) -> None:
    for role, parameter in gluon_side.roles(leaf, leaf.block):
        if role in values:
            parameter.set_data(gluon_side.as_is(values[role]))


def objective(
    net: Any, loss: Callable[[Any], Any] | None, labels: np.ndarray | None, outputs: Arrays
) -> Objective:
    """A loss of the labels, or fixed gradients of the outputs where there are no labels."""
    if labels is None or loss is None:
        return Objective(upstream=fixed_upstream(outputs))
    return Objective(labels=labels, gluon=loss(net))


def default_loss(net: Any) -> Any:
    return gluon.loss.SoftmaxCrossEntropyLoss()


def run_net(
    net: Any, inputs: Arrays, dtype: str, *, train: bool, objective: Objective | None = None
) -> NetRun:
    return gluon_side.run_net(net, inputs, dtype, train=train, objective=objective)


def loss_run(objective: Objective, logits: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """The loss of each sample, and its gradient."""
    values = gluon_side.ndarray(logits, dtype)
    values.attach_grad()
    assert objective.gluon is not None  # the caller has labels, and labels come with a loss
    with autograd.record():
        each = objective.gluon(values, mx.nd.array(objective.labels, dtype=dtype))
    each.backward()
    return {"loss": each.asnumpy(), "loss gradient": values.grad.asnumpy()}


def steps(
    net: Any, batches: Any, dtype: str, rule: Rule, rate: float, loss: Callable[[Any, Any], Any]
) -> Iterator[tuple[int, str, str, np.ndarray]]:
    """Train a copy as `gluon_cnn.train` does; (step, path, quantity, value) of every stage.

    Dropout passes its input on.
    """
    copied = gluon_side.clone(net, dtype)
    trainer = None
    try:
        watched = leaves(copied)
        trained = _trained(copied, watched)
        trainer = _trainer([p for _, _, p in trained], rule, rate)
        for number, (images, labels) in enumerate(batches, 1):
            with autograd.record():
                logits = copied(mx.nd.array(images, dtype=dtype))
                each = loss(logits, mx.nd.array(labels, dtype=dtype))
            each.backward()
            yield number, NET, "logits", logits.asnumpy()
            yield number, NET, "loss", each.asnumpy()
            trainer.step(len(labels))
            for index, (path, role, parameter) in enumerate(trained):
                for kind, slot in _slots(trainer, index, rule):
                    yield number, path, f"{role} {kind}", slot.asnumpy()
                yield number, path, role, parameter.data().asnumpy()
            for leaf in watched:
                for role, tensor in leaf.tensors.items():
                    if tensor.buffer and not tensor.trainable:
                        yield number, leaf.path, role, tensor.read()
    finally:
        release(copied)
        if trainer is not None:
            vars(trainer).clear()  # it and its parameters hold each other


def _trained(net: Any, watched: Sequence[Leaf]) -> list[tuple[str, str, gluon.Parameter]]:
    """What a copy trains, by path and role; its dropouts are made to pass their input on."""
    named = net._collect_params_with_prefix()
    for leaf in watched:
        if leaf.kind == "dropout":
            leaf.block.__dict__["forward"] = lambda x: x
    return [
        (leaf.path, role, named[t.name])
        for leaf in watched
        for role, t in leaf.tensors.items()
        if t.trainable
    ]


def _trainer(parameters: list[gluon.Parameter], rule: Rule, rate: float) -> gluon.Trainer:
    trainer = gluon.Trainer(parameters, rule.name, rule.mxnet_options(), kvstore=None)
    trainer.set_learning_rate(rate)
    return trainer


def _slots(trainer: gluon.Trainer, index: int, rule: Rule) -> Iterator[tuple[str, mx.nd.NDArray]]:
    state = trainer._updaters[0].states.get(index)
    arrays = () if state is None else state if isinstance(state, tuple) else (state,)
    yield from zip(rule.slots, arrays, strict=True)


def rules() -> list[tuple[str, Rule]]:
    """The update rules of this side, by what the suite calls them."""
    return [(rule.label, rule) for rule in RULES]


def updates(
    label: str, rule: Rule, weight: np.ndarray, gradients: list[np.ndarray], dtype: str
) -> Iterator[tuple[int, str, np.ndarray]]:
    """One parameter through a rule, step by step: (step, quantity, value)."""
    parameter = gluon.Parameter("w", shape=weight.shape, dtype=dtype)
    parameter.initialize(ctx=mx.cpu())
    parameter.set_data(gluon_side.ndarray(weight, dtype))
    trainer = _trainer([parameter], rule, RATE[rule.name])
    for number, gradient in enumerate(gradients, 1):
        with autograd.record():
            product = (parameter.data() * gluon_side.ndarray(gradient, dtype)).sum()
        product.backward()
        trainer.step(4)
        for kind, slot in _slots(trainer, 0, rule):
            yield number, f"weight {kind}", slot.asnumpy()
        yield number, "weight", parameter.data().asnumpy()


def artefacts(net: Any, inputs: Arrays) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """What the exported symbol computes when it is loaded again, and its graph.

    The graph is written without the names that a process counts up and without MXNet's version, so
    that equal graphs are equal files.
    """
    copied = gluon_side.clone(net, "float32")
    try:
        given = [gluon_side.ndarray(x, "float32") for x in inputs]
        copied.hybridize()
        live = gluon_side.flat(copied(*given))
        with tempfile.TemporaryDirectory() as folder:
            stem = str(Path(folder) / "net")
            copied.export(stem)
            graph = json.loads(Path(f"{stem}-symbol.json").read_text())
            names = ["data"] if len(inputs) == 1 else [f"data{i}" for i in range(len(inputs))]
            loaded = gluon.SymbolBlock.imports(f"{stem}-symbol.json", names, f"{stem}-0000.params")
            again = gluon_side.flat(loaded(*given))
            release(loaded)
    finally:
        release(copied)
    values = {f"hybridized output {i}": y.asnumpy() for i, y in enumerate(live)}
    values |= {f"exported symbol's output {i}": y.asnumpy() for i, y in enumerate(again)}
    return values, {"symbol.json": _plain(graph)}


def _plain(graph: Mapping[str, Any]) -> bytes:
    nodes = [
        {
            "op": node["op"],
            "name": f"n{i}",
            "attrs": dict(sorted(node.get("attrs", {}).items())),
            "inputs": node["inputs"],
        }
        for i, node in enumerate(graph["nodes"])
    ]
    kept = {"nodes": nodes, "arg_nodes": graph["arg_nodes"], "heads": graph["heads"]}
    for node in nodes:  # what a variable carries is how it is initialised, by names
        node["attrs"] = {k: v for k, v in node["attrs"].items() if not k.startswith("__")}
    return (json.dumps(kept, indent=1) + "\n").encode()
