"""Runs torch leaves and nets for the suite, on clones: the net it is given is only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import (
    NET,
    Arrays,
    Call,
    Edit,
    Key,
    LeafRun,
    Loss,
    NetRun,
    Objective,
    allot,
    input_name,
    named,
    output_name,
    paths_of,
    place,
    rounded,
)
from parity_tests.backends.torch.clones import clone
from parity_tests.backends.torch.executed import ExecutedModule
from parity_tests.backends.torch.leaves import leaves
from parity_tests.backends.torch.losses import label_tensor
from parity_tests.backends.torch.tracing.dtypes import TakenFor
from parity_tests.backends.tracing import WIDE_FLOATS, flatten
from parity_tests.numerics.operators.cases import Change
from parity_tests.reporting.verdicts import Side

# Changes a value in a run: (leaf path, index of the call, index of the input or output, value).
ChangeValue = Callable[[str, int, int, torch.Tensor], torch.Tensor]
# Takes a value of a run at its place
Sink = Callable[[Key, np.ndarray], None]


def run_leaf(
    leaf: Leaf,
    inputs: Arrays,
    dtype: str,
    *,
    train: bool,
    upstream: Arrays | None = None,
    change: Change | None = None,
    inside: bool = False,
) -> LeafRun:
    """Run one leaf alone on `inputs`, and backwards if `upstream` is given.

    `train` sets the module's mode, except that dropout always passes its input on (`sample_dropout`
    runs it); `change` and `inside` are as `Backend.run_leaf` says. The buffers are those after the
    run.
    """
    module = clone(leaf.block, dtype)
    module.train(train and leaf.kind != "dropout")
    if leaf.kind == "dropout" and isinstance(module, ExecutedModule):
        vars(module)["forward"] = _dropout(0.0, None)
    if change is not None:
        for value in module.parameters():
            value.data = torch.from_numpy(np.asarray(change(value.data.numpy())))
        if inside and isinstance(module, ExecutedModule):
            module.between = change
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
        JOURNAL.at(f"{leaf.kind} backward", leaf.path)
        torch.autograd.backward(
            [outputs[i] for i in live], [_tensor(upstream[i], dtype) for i in live]
        )
    return named(
        _numpy(outputs),
        [
            _input_gradient(module, i, None if x.grad is None else x.grad.numpy(), _zeros(x))
            for i, x in enumerate(given)
        ],
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
    inputs_too: bool = True,
    sink: Sink | None = None,
) -> NetRun:
    """`run_net` on a clone that nobody uses after this.

    `change` replaces leaf outputs on their way. Without `inputs_too` the calls have no inputs.
    `sink` takes each output instead of the calls, or, with an objective, leaves all but gradients
    out of them.
    """
    watch = _Watch(objective is not None, change, inputs_too, sink)
    watched, given = watch.prepare(copied, inputs, dtype, train, masks)
    with torch.no_grad() if objective is None else nullcontext():
        outputs = _flat(copied(*given))
        if objective is None:
            return _finish(watched, watch.calls, outputs)
    outputs = [_ending(y) for y in outputs]
    live = [i for i, y in enumerate(outputs) if y.is_floating_point()]
    for i in live:
        outputs[i].retain_grad()
    loss = _loss(objective, outputs[0])
    if loss is None:
        JOURNAL.at("the whole backward pass", "")
        if live:
            heads = [_tensor(objective.upstream[i], dtype) for i in live]
            torch.autograd.backward([outputs[i] for i in live], heads)
    else:
        loss.sum().backward()
    run = _finish(watched, watch.calls, outputs, outputs_too=sink is None)
    run.loss = None if loss is None else loss.detach().numpy()
    run.output_gradient = None if outputs[0].grad is None else outputs[0].grad.numpy()
    for leaf in watched:
        for role, parameter in leaf.block.named_parameters(recurse=False):
            if parameter.grad is not None and role in leaf.tensors:
                run.gradients[leaf.path, role] = parameter.grad.numpy()
    return run


def _ending(y: torch.Tensor) -> torch.Tensor:
    """A net may return what no gradient reaches, such as its input; whole numbers have none."""
    if not y.is_floating_point():
        return y.clone()
    return y.clone() if y.requires_grad else y.clone().requires_grad_()


def noise_moves(
    copied: nn.Module,
    inputs: Arrays,
    dtype: str,
    *,
    masks: Mapping[str, np.ndarray] | None,
    addends: Iterable[Edit],
    sink: Sink,
) -> None:
    """What each draw of noise in the gradients of leaf inputs, and of the net's outputs, makes of
    every gradient of a training step. A step's gradients are linear in what is sent back, so that
    noise alone is sent, through one forward pass."""
    draw: list[Edit] = []

    def add(path: str, call: int, index: int, gradient: torch.Tensor) -> torch.Tensor:
        addend = draw[0](path, call, index)
        moved = gradient if addend is None else gradient + torch.from_numpy(addend)
        sink((path, call, input_name(index)), moved.numpy())
        return moved

    watch = _Watch(True, None, False, lambda key, value: None, add)
    watched, given = watch.prepare(copied, inputs, dtype, True, masks)
    outputs = []
    for i, y in enumerate(map(_ending, _flat(copied(*given)))):
        if y.is_floating_point():
            y.register_hook(lambda gradient, i=i: add(NET, 0, i, gradient))
            outputs.append(y)
    nothing = [torch.zeros_like(y) for y in outputs]
    for edit in addends if outputs else ():
        draw[:] = [edit]
        torch.autograd.backward(outputs, nothing, retain_graph=True)
        for leaf in watched:
            for role, parameter in leaf.block.named_parameters(recurse=False):
                if parameter.grad is not None and role in leaf.tensors:
                    sink((leaf.path, 0, f"{role} gradient"), parameter.grad.numpy())
        copied.zero_grad()


def _loss(objective: Objective, output: torch.Tensor) -> torch.Tensor | None:
    if objective.labels is None or Side.TORCH not in objective.losses:
        return None
    return loss_of(objective.losses[Side.TORCH], output, objective.labels)


def loss_of(loss: Loss, output: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """A user's loss in the dtype of the output, though it may cast to another."""
    dtype = str(output.dtype).removeprefix("torch.")
    with TakenFor(WIDE_FLOATS, dtype):
        return loss(output, label_tensor(labels, dtype))


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
    """A call whose gradients are still to come."""

    passed: tuple[_Awaited, ...] = ()
    made: tuple[_Awaited, ...] = ()


class _Awaited:
    """The gradient of a tensor, once it comes.

    `retain_grad` keeps a copy of each; this is torch's own array, to which nothing is added while
    somebody else holds it.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.zeros = _zeros(x)
        self._noted: torch.Tensor | None = None
        self._version = 0
        if x.requires_grad:
            x.register_hook(self._note)

    def _note(self, gradient: torch.Tensor | None) -> None:
        if gradient is not None:  # some part of what a leaf gives may lead nowhere
            self._noted, self._version = gradient.detach(), gradient._version

    @property
    def gradient(self) -> np.ndarray | None:
        """None where no gradient came."""
        if self._noted is None:
            return None
        if self._noted._version != self._version:
            # https://docs.pytorch.org/docs/stable/notes/extending.html
            raise RuntimeError(
                "a backward of the net changes the gradient that it is given in place, which torch "
                "forbids: let it return another array"
            )
        return self._noted.numpy()


class _Watch:
    """How the leaves of a clone note their calls: `calls`, by the identity of the module.

    What enters and leaves is cloned, so that no later in-place operation can reach it, and each
    call has an input gradient of its own where a tensor goes to several leaves; operations of an
    executed net change nothing in place, so that a view does. The hooks do not hold the module
    that holds them: a clone goes with its last name, and not with the collector.
    """

    def __init__(
        self,
        gradients: bool,
        change: ChangeValue | None,
        inputs_too: bool,
        sink: Sink | None,
        change_gradient: ChangeValue | None = None,
    ) -> None:
        self.calls: dict[int, list[_Watched]] = {}
        self._gradients = gradients
        self._change = change
        self._inputs_too = inputs_too
        self._sink = sink
        self._change_gradient = change_gradient
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # what left leaves, as arrays

    def prepare(
        self,
        copied: nn.Module,
        inputs: Arrays,
        dtype: str,
        train: bool,
        masks: Mapping[str, np.ndarray] | None,
    ) -> tuple[list[Leaf], list[torch.Tensor]]:
        """Watch every leaf of a clone; its leaves, and its inputs as tensors."""
        copied.train(train)
        watched = leaves(copied)
        paths = paths_of(watched)
        for leaf in {id(leaf.block): leaf for leaf in watched}.values():
            self._watch(leaf, paths[id(leaf.block)], self.calls.setdefault(id(leaf.block), []))
            if leaf.kind == "dropout":
                leaf.block.forward = _dropout(float(leaf.block.p), (masks or {}).get(leaf.path))
        return watched, [_tensor(x, dtype) for x in inputs]

    def _watch(self, leaf: Leaf, paths: list[str], calls: list[_Watched]) -> None:
        executed = isinstance(leaf.block, ExecutedModule)
        kind, path = leaf.kind, leaf.path

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            JOURNAL.at(kind, path)
            call = _Watched(self._arrays(args) if self._inputs_too else ())
            calls.append(call)
            if not self._gradients:
                return args
            where = place(paths, len(calls) - 1)
            change = self._change_gradient
            passed = tuple(_entering(x, *where, i, change, executed) for i, x in enumerate(args))
            if change is None:
                call.passed = tuple(_Awaited(x) for x in passed if isinstance(x, torch.Tensor))
            return passed

        def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
            call = calls[-1]
            made = tuple(_flat(out))
            where = place(paths, len(calls) - 1)
            if self._change is not None:
                made = tuple(self._change(*where, i, y) for i, y in enumerate(made))
            outputs = () if self._sink and self._gradients else _own(made, args, module)
            if self._sink is not None:
                for i, array in enumerate(outputs):
                    self._sink((*where, output_name(i)), array)
            else:
                call.outputs = outputs
                call.made = tuple(map(_Awaited, made)) if self._gradients else ()
            left = [y if executed else y.clone() for y in made]
            if self._inputs_too:
                self._known.update(
                    {y: (array, y._version) for y, array in zip(left, outputs, strict=False)}
                )
            others = iter(left)
            return tree_map_only(torch.Tensor, lambda _: next(others), out)

        leaf.block.register_forward_pre_hook(before)
        leaf.block.register_forward_hook(after)

    def _arrays(self, values: Sequence[Any]) -> Arrays:
        """Tensors as arrays; what a leaf gave, and nobody changed, is the array noted there."""
        arrays = []
        for x in values:
            if isinstance(x, torch.Tensor):
                array, version = self._known.get(x, (None, 0))
                same = array is not None and version == x._version
                arrays.append(array if same else x.detach().numpy().copy())
        return tuple(arrays)


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


def _entering(
    x: Any, path: str, call: int, index: int, change_gradient: ChangeValue | None, executed: bool
) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return x
    own = x.view_as(x) if executed else x.clone()
    passed = own if x.requires_grad else own.detach().requires_grad_()
    if change_gradient is not None:
        passed.register_hook(lambda gradient: change_gradient(path, call, index, gradient))
    return passed


def _dropout(rate: float, mask: np.ndarray | None) -> Callable[[torch.Tensor], torch.Tensor]:
    if mask is None:
        return lambda x: x
    return lambda x: x * torch.from_numpy(mask / (1.0 - rate)).to(x.dtype)


def _finish(
    watched: list[Leaf],
    calls: Mapping[int, list[_Watched]],
    outputs: list[torch.Tensor],
    *,
    outputs_too: bool = True,
) -> NetRun:
    blocks = {id(leaf.block): leaf.block for leaf in watched}
    for block, made in calls.items():
        for call in made:
            call.input_gradients = tuple(
                _input_gradient(blocks[block], i, x.gradient, x.zeros)
                for i, x in enumerate(call.passed)
            )
            call.upstream = tuple(y.gradient for y in call.made)
            call.passed = call.made = ()
    run = NetRun(allot(watched, calls), _numpy(outputs) if outputs_too else ())
    for leaf in watched:
        for role, values in _buffers(leaf, leaf.block).items():
            run.buffers[leaf.path, role] = values
    return run


def _input_gradient(
    module: nn.Module, index: int, gradient: np.ndarray | None, zeros: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """An input's gradient: 0 where only the other side of a segment reads it."""
    unused = isinstance(module, ExecutedModule) and index in module.program.unused
    return zeros() if gradient is None and unused else gradient


def _zeros(x: torch.Tensor) -> Callable[[], np.ndarray]:
    """Makes zeros of the shape and dtype of x."""
    return partial(np.zeros, tuple(x.shape), str(x.dtype).removeprefix("torch."))


def _tensor(value: np.ndarray, dtype: str) -> torch.Tensor:
    kept = rounded(value, dtype)
    return torch.from_numpy(np.array(kept, order="C"))  # a copy, of no axes, too


def _flat(out: Any) -> list[torch.Tensor]:
    return list(flatten(out, torch.Tensor))


def _numpy(values: Any) -> Arrays:
    return tuple(v.detach().numpy().copy() for v in values if isinstance(v, torch.Tensor))
