"""Runs torch leaves and nets for the suite, on clones: the net it is given is only read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import (
    NET,
    Arrays,
    Call,
    LeafRun,
    Loss,
    NetRun,
    Objective,
    allot,
    named,
    paths_of,
    place,
    rounded,
)
from parity_tests.backends.torch.clones import clone
from parity_tests.backends.torch.executed import ExecutedModule
from parity_tests.backends.torch.leaves import leaves
from parity_tests.reporting.verdicts import Side

__all__ = [
    "ChangeValue",
    "cross_entropy",
    "run_copy",
    "run_leaf",
    "run_loss",
    "run_net",
    "sample_dropout",
]

# Changes a value in a run: (leaf path, index of the call, index of the input or output, value).
ChangeValue = Callable[[str, int, int, torch.Tensor], torch.Tensor]


def run_leaf(
    leaf: Leaf,
    inputs: Arrays,
    dtype: str,
    *,
    train: bool,
    upstream: Arrays | None = None,
    change: Callable[[nn.Module], None] | None = None,
) -> LeafRun:
    """Run one leaf alone on `inputs`, and backwards if `upstream` is given.

    `train` sets the module's mode, except that dropout always passes its input on (`sample_dropout`
    runs it); `change` may edit the clone first. The buffers are those after the run.
    """
    module = clone(leaf.block, dtype)
    module.train(train and leaf.kind != "dropout")
    if leaf.kind == "dropout" and isinstance(module, ExecutedModule):
        vars(module)["forward"] = _dropout(0.0, None)
    if change is not None:
        change(module)
    given = [_tensor(x, dtype) for x in inputs]
    if upstream is None:
        with torch.no_grad():
            return named(_numpy(_flat(module(*given))), buffers=_buffers(leaf, module))
    for x in given:
        x.requires_grad_(x.is_floating_point())
    outputs = _flat(module(*given))
    # A detached output has no gradient at all: the comparison will say so.
    live = [i for i, y in enumerate(outputs) if y.requires_grad]
    if live:
        torch.autograd.backward(
            [outputs[i] for i in live], [_tensor(upstream[i], dtype) for i in live]
        )
    return named(
        _numpy(outputs),
        [_input_gradient(module, i, x) for i, x in enumerate(given)],
        {
            role: parameter.grad.numpy()
            for role, parameter in module.named_parameters(recurse=False)
            if parameter.grad is not None and role in leaf.tensors
        },
        _buffers(leaf, module),
    )


def sample_dropout(leaf: Leaf, x: np.ndarray) -> np.ndarray:
    """What the leaf's dropout makes of x in training, in float32; torch's generator stays put."""
    module = clone(leaf.block, "float32").train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return module(_tensor(x, "float32")).numpy()


def _buffers(leaf: Leaf, module: nn.Module) -> dict[str, np.ndarray]:
    return {
        role: getattr(module, role).detach().numpy().copy()
        for role, tensor in leaf.tensors.items()
        if tensor.buffer
    }


def run_net(
    net: nn.Module,
    inputs: Arrays,
    dtype: str,
    *,
    train: bool = False,
    objective: Objective | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    inputs_too: bool = True,
) -> NetRun:
    """Run a clone of the whole net and bring back every leaf's values, and gradients if asked.

    Dropout passes its input on, or applies `masks[path]` (True where a value is kept). Without
    `inputs_too` the calls have no inputs.
    """
    return run_copy(
        clone(net, dtype),
        inputs,
        dtype,
        train=train,
        objective=objective,
        masks=masks,
        inputs_too=inputs_too,
    )


def run_copy(
    copied: nn.Module,
    inputs: Arrays,
    dtype: str,
    *,
    train: bool,
    objective: Objective | None,
    masks: Mapping[str, np.ndarray] | None,
    change: ChangeValue | None = None,
    change_gradient: ChangeValue | None = None,
    inputs_too: bool = True,
) -> NetRun:
    """`run_net` on a clone that nobody uses after this.

    `change` replaces leaf outputs on their way, `change_gradient` the gradients of leaf inputs and,
    under the path NET, of the net's outputs. Without `inputs_too` the calls have no inputs.
    """
    copied.train(train)
    watched = leaves(copied)
    calls: dict[int, list[_Watched]] = {}
    paths = paths_of(watched)
    for leaf in {id(leaf.block): leaf for leaf in watched}.values():
        made = calls.setdefault(id(leaf.block), [])
        places = paths[id(leaf.block)]
        _watch(leaf, places, made, objective is not None, change, change_gradient, inputs_too)
        if leaf.kind == "dropout":
            leaf.block.forward = _dropout(float(leaf.block.p), (masks or {}).get(leaf.path))
    given = [_tensor(x, dtype) for x in inputs]
    with torch.no_grad() if objective is None else nullcontext():
        outputs = _flat(copied(*given))
        if objective is None:
            return _finish(watched, calls, outputs)
    # a net may return what no gradient reaches, such as its input
    outputs = [y.clone() if y.requires_grad else y.clone().requires_grad_() for y in outputs]
    for i, y in enumerate(outputs):
        y.retain_grad()
        if change_gradient is not None:
            y.register_hook(lambda gradient, i=i: change_gradient(NET, 0, i, gradient))
    loss = _loss(objective, outputs[0])
    if loss is None:
        torch.autograd.backward(outputs, [_tensor(g, dtype) for g in objective.upstream])
    else:
        loss.sum().backward()
    run = _finish(watched, calls, outputs)
    run.loss = None if loss is None else loss.detach().numpy()
    run.output_gradient = None if outputs[0].grad is None else outputs[0].grad.numpy()
    for leaf in watched:
        for role, parameter in leaf.block.named_parameters(recurse=False):
            if parameter.grad is not None and role in leaf.tensors:
                run.gradients[leaf.path, role] = parameter.grad.numpy()
    return run


def _loss(objective: Objective, output: torch.Tensor) -> torch.Tensor | None:
    if objective.labels is None or Side.TORCH not in objective.losses:
        return None
    labels = torch.from_numpy(objective.labels.astype(np.int64))
    return objective.losses[Side.TORCH](output, labels)


def run_loss(objective: Objective, logits: np.ndarray, dtype: str) -> LeafRun:
    """The "loss" (N,) of logits (N, classes), and its "loss gradient", both in `dtype`."""
    values = torch.from_numpy(logits.astype(dtype)).requires_grad_()
    each = _loss(objective, values)
    assert each is not None  # the caller has labels, and labels come with a loss
    each.sum().backward()
    assert values.grad is not None
    return {"loss": each.detach().numpy(), "loss gradient": values.grad.numpy()}


def cross_entropy() -> Loss:
    """Softmax cross-entropy of (logits, classes), one value a sample."""
    return lambda y, label: nn.functional.cross_entropy(y, label, reduction="none")


class _Watched(Call):
    """A call whose gradients are still in torch's hands."""

    passed: tuple[torch.Tensor, ...] = ()
    made: tuple[torch.Tensor, ...] = ()


def _watch(
    leaf: Leaf,
    paths: list[str],
    calls: list[_Watched],
    gradients: bool,
    change: ChangeValue | None,
    change_gradient: ChangeValue | None,
    inputs_too: bool,
) -> None:
    """Make a clone's leaf note its calls.

    What enters and leaves is cloned, so that no later in-place operation can reach it, and each
    call has an input gradient of its own where a tensor goes to several leaves. The hooks do not
    hold the module that holds them: a clone goes with its last name, and not with the collector.
    """

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        call = _Watched(_numpy(args) if inputs_too else ())
        calls.append(call)
        if not gradients:
            return args
        where = place(paths, len(calls) - 1)
        passed = tuple(_entering(x, *where, i, change_gradient) for i, x in enumerate(args))
        call.passed = tuple(x for x in passed if isinstance(x, torch.Tensor))
        return passed

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        call = calls[-1]
        made = tuple(_flat(out))
        if change is not None:
            where = place(paths, len(calls) - 1)
            made = tuple(change(*where, i, y) for i, y in enumerate(made))
        call.outputs = _own(made, args, module)
        call.made = made
        for y in made:
            if gradients and y.requires_grad:
                y.retain_grad()
        left = [y.clone() for y in made]
        return left[0] if isinstance(out, torch.Tensor) else type(out)(left)

    leaf.block.register_forward_pre_hook(before)
    leaf.block.register_forward_hook(after)


def _own(made: tuple[Any, ...], args: tuple[Any, ...], module: nn.Module) -> Arrays:
    """A leaf's outputs as arrays of their own. Only clones of them go on, so that they stay as they
    are, unless the leaf gave back what it was given or holds."""
    others = (*args, *module.parameters(), *module.buffers())
    foreign = {x.untyped_storage().data_ptr() for x in others if isinstance(x, torch.Tensor)}
    tensors = [y.detach() for y in made if isinstance(y, torch.Tensor)]
    return tuple(
        y.numpy().copy() if y.untyped_storage().data_ptr() in foreign else y.numpy()
        for y in tensors
    )


def _entering(x: Any, path: str, call: int, index: int, change_gradient: ChangeValue | None) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return x
    passed = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
    passed.retain_grad()
    if change_gradient is not None:
        passed.register_hook(lambda gradient: change_gradient(path, call, index, gradient))
    return passed


def _dropout(rate: float, mask: np.ndarray | None) -> Callable[[torch.Tensor], torch.Tensor]:
    if mask is None:
        return lambda x: x
    return lambda x: x * torch.from_numpy(mask / (1.0 - rate)).to(x.dtype)


def _finish(
    watched: list[Leaf], calls: Mapping[int, list[_Watched]], outputs: list[torch.Tensor]
) -> NetRun:
    blocks = {id(leaf.block): leaf.block for leaf in watched}
    for block, made in calls.items():
        for call in made:
            call.input_gradients = tuple(
                _input_gradient(blocks[block], i, x) for i, x in enumerate(call.passed)
            )
            call.upstream = tuple(_gradient(y) for y in call.made)
            call.passed = call.made = ()
    run = NetRun(allot(watched, calls), _numpy(outputs))
    for leaf in watched:
        for role, values in _buffers(leaf, leaf.block).items():
            run.buffers[leaf.path, role] = values
    return run


def _gradient(value: torch.Tensor) -> np.ndarray | None:
    return value.grad.numpy() if value.requires_grad and value.grad is not None else None


def _input_gradient(module: nn.Module, index: int, x: torch.Tensor) -> np.ndarray | None:
    """An input's gradient: 0 where only the other side of a segment reads it."""
    gradient = x.grad.numpy() if x.requires_grad and x.grad is not None else None
    if gradient is None and isinstance(module, ExecutedModule) and index in module.program.unused:
        return np.zeros(tuple(x.shape), x.detach().numpy().dtype)
    return gradient


def _tensor(value: np.ndarray, dtype: str) -> torch.Tensor:
    kept = rounded(value, dtype)
    return torch.from_numpy(np.ascontiguousarray(kept).copy())


def _flat(out: Any) -> list[torch.Tensor]:
    if isinstance(out, (list, tuple)):
        return [tensor for part in out for tensor in _flat(part)]
    return [out]


def _numpy(values: Any) -> Arrays:
    return tuple(v.detach().numpy().copy() for v in values if isinstance(v, torch.Tensor))
