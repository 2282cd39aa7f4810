"""What the gate asks of torch; its twin is `backends.gluon.gate`. Imports torch alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch._dynamo  # else a first optimizer imports it, in frames that stay with the weights

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET, Arrays, NetRun, Objective
from parity_tests.backends.torch import runs as torch_side
from parity_tests.backends.torch.leaves import leaves
from parity_tests.gate.record.subjects import RATE, RULES, Tensors, fixed_upstream
from parity_tests.numerics.update_rules import Rule
from torch_ref import optim

__all__ = [
    "artefacts", "default_loss", "dressed", "dressed_leaf", "leaves", "loss_run", "objective",
    "release", "rules", "run_leaf", "run_net", "steps", "updates",
]  # fmt: skip

SIDE = "torch"
ARRAY = torch.Tensor
run_leaf = torch_side.run_leaf


def dressed(net: Any, values: Tensors) -> Any:
    """A copy of the net with other values."""
    copied = torch_side.clone(net, "float32")
    for leaf in leaves(copied):
        _fill(leaf, {r: values[leaf.path, r] for r in leaf.tensors if (leaf.path, r) in values})
    return copied


def dressed_leaf(leaf: Leaf, values: Mapping[str, np.ndarray]) -> Leaf:
    """A copy of the leaf with other values, by role."""
    copied = replace(leaf, block=torch_side.clone(leaf.block, "float32"))
    _fill(copied, values)
    return copied


def _fill(leaf: Leaf, values: Mapping[str, np.ndarray]) -> None:
    with torch.no_grad():
        for role, value in values.items():
            getattr(leaf.block, role).copy_(torch.from_numpy(value))


def release(cloned: Any) -> None:
    """Nothing: no module holds another in a circle, so a clone goes with its last name."""


def objective(
    net: Any, loss: Callable[[Any], Any] | None, labels: np.ndarray | None, outputs: Arrays
) -> Objective:
    """A loss of the labels, or fixed gradients of the outputs where there are no labels."""
    if labels is None or loss is None:
        return Objective(upstream=fixed_upstream(outputs))
    return Objective(labels=labels, torch=loss(net))


def default_loss(net: Any) -> Any:
    return lambda y, label: torch.nn.functional.cross_entropy(y, label, reduction="none")


def run_net(
    net: Any, inputs: Arrays, dtype: str, *, train: bool, objective: Objective | None = None
) -> NetRun:
    return torch_side.run_net(net, inputs, dtype, train=train, objective=objective)


def loss_run(objective: Objective, logits: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """The loss of each sample, and its gradient."""
    values = torch.from_numpy(logits.astype(np.float32).astype(dtype)).requires_grad_()
    assert objective.torch is not None  # the caller has labels, and labels come with a loss
    assert objective.labels is not None
    each = objective.torch(values, torch.from_numpy(objective.labels.astype(np.int64)))
    each.sum().backward()
    assert values.grad is not None
    return {"loss": each.detach().numpy(), "loss gradient": values.grad.numpy()}


def steps(
    net: Any, batches: Any, dtype: str, rule: Rule, rate: float, loss: Callable[[Any, Any], Any]
) -> Iterator[tuple[int, str, str, np.ndarray]]:
    """Train a copy as `torch_ref.train` does; (step, path, quantity, value) of every stage.

    Dropout passes its input on.
    """
    copied = torch_side.clone(net, dtype).train()
    watched = leaves(copied)
    for leaf in watched:
        if leaf.kind == "dropout":
            leaf.block.forward = lambda x: x
    trained = [
        (leaf.path, role, getattr(leaf.block, role))
        for leaf in watched
        for role, t in leaf.tensors.items()
        if t.trainable
    ]
    optimizer = _optimizer([p for _, _, p in trained], rule, rate)
    for number, (images, labels) in enumerate(batches, 1):
        for _, _, parameter in trained:
            parameter.grad = None
        logits = copied(torch.from_numpy(images.astype(dtype)))
        each = loss(logits, torch.from_numpy(labels.astype(np.int64)))
        each.sum().backward()
        yield number, NET, "logits", logits.detach().numpy().copy()
        yield number, NET, "loss", each.detach().numpy().copy()
        _step(optimizer, len(labels))
        for path, role, parameter in trained:
            for kind in rule.slots:
                slot = optimizer.state[parameter][kind]
                yield number, path, f"{role} {kind}", slot.detach().numpy().copy()
            yield number, path, role, parameter.detach().numpy().copy()
        for leaf in watched:
            for role, tensor in leaf.tensors.items():
                if tensor.buffer and not tensor.trainable:
                    yield number, leaf.path, role, tensor.read()


def _optimizer(parameters: list[Any], rule: Rule, rate: float) -> torch.optim.Optimizer:
    if rule.name == "adam":
        return optim.Adam(
            parameters, lr=rate, beta1=rule.beta1, beta2=rule.beta2, epsilon=rule.epsilon,
            wd=rule.wd, clip_gradient=rule.clip,
        )  # fmt: skip
    return optim.SGD(
        parameters, lr=rate, momentum=rule.momentum, wd=rule.wd, nesterov=rule.name == "nag",
        clip_gradient=rule.clip,
    )  # fmt: skip


def _step(optimizer: torch.optim.Optimizer, batch: int) -> None:
    for group in optimizer.param_groups:
        group["rescale_grad"] = 1.0 / batch
    optimizer.step()


_OWN = "torch.optim "


def rules() -> list[tuple[str, Rule]]:
    """The update rules of this side: the mirror's, then torch.optim's own of the same numbers."""
    own = [replace(rule, clip=None) for rule in RULES if rule.clip is None]
    return [(rule.label, rule) for rule in RULES] + [(_OWN + rule.label, rule) for rule in own]


def updates(
    label: str, rule: Rule, weight: np.ndarray, gradients: list[np.ndarray], dtype: str
) -> Iterator[tuple[int, str, np.ndarray]]:
    """One parameter through a rule, step by step: (step, quantity, value)."""
    parameter = torch.nn.Parameter(torch.from_numpy(weight.astype(np.float32).astype(dtype)))
    own = label.startswith(_OWN)
    make = _torchs_own if own else _optimizer
    optimizer = make([parameter], rule, RATE[rule.name])
    for number, gradient in enumerate(gradients, 1):
        parameter.grad = torch.from_numpy(gradient.astype(np.float32).astype(dtype))
        if own:
            parameter.grad /= 4
            optimizer.step()
        else:
            _step(optimizer, 4)
        state = optimizer.state[parameter]
        for kind, name in _slot_names(rule, own):
            if state.get(name) is not None:
                yield number, f"weight {kind}", state[name].detach().numpy().copy()
        yield number, "weight", parameter.detach().numpy().copy()


def _slot_names(rule: Rule, own: bool) -> list[tuple[str, str]]:
    theirs = {"mom": "momentum_buffer", "mean": "exp_avg", "var": "exp_avg_sq"}
    return [(kind, theirs[kind] if own else kind) for kind in rule.slots]


def _torchs_own(parameters: list[Any], rule: Rule, rate: float) -> torch.optim.Optimizer:
    if rule.name == "adam":
        return torch.optim.Adam(
            parameters, lr=rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon,
            weight_decay=rule.wd,
        )  # fmt: skip
    return torch.optim.SGD(
        parameters, lr=rate, momentum=rule.momentum, weight_decay=rule.wd,
        nesterov=rule.name == "nag",
    )  # fmt: skip


def artefacts(net: Any, inputs: Arrays) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """What a saved and loaded state and the traced graph compute, and the graph.

    The graph is torch.fx's, by operations and paths.
    """
    copied = torch_side.clone(net, "float32").eval()
    given = [torch.from_numpy(x.astype(np.float32)) for x in inputs]
    buffer = io.BytesIO()
    torch.save(copied.state_dict(), buffer)
    buffer.seek(0)
    loaded = torch_side.clone(net, "float32").eval()
    with torch.no_grad():
        for value in loaded.state_dict().values():
            value.zero_()
        loaded.load_state_dict(torch.load(buffer, weights_only=True))
        graph = _Tracer().trace(copied)
        traced = torch.fx.GraphModule(copied, graph)
        values = {
            "loaded state's output": loaded(*given).numpy(),
            "traced graph's output": traced(*given).numpy(),
        }
    nodes = [
        {"op": n.op, "target": _target(n.target), "inputs": [str(i) for i in n.all_input_nodes]}
        for n in graph.nodes
    ]
    return values, {"graph.json": (json.dumps({"nodes": nodes}, indent=1) + "\n").encode()}


class _Tracer(torch.fx.Tracer):
    """Looks into containers alone: a leaf may decide by its input's shape."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


def _target(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
