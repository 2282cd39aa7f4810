"""Runs Gluon leaves and nets for the suite, on clones: the net it is given is only read."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import Block
from mxnet.ndarray.ndarray import _new_alloc_handle

from parity_tests.backends.gluon.clones import alone, as_is, clone, ndarray, release, roles
from parity_tests.backends.gluon.executed import ExecutedBlock
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.gluon.numpy_mode import call, like
from parity_tests.backends.gluon.tracing.dtypes import taken_for
from parity_tests.backends.gluon.tracing.replay import refuse_overrun
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import (
    Arrays,
    Call,
    LeafRun,
    Loss,
    NetRun,
    Objective,
    allot,
    named,
)
from parity_tests.backends.spill import Spill
from parity_tests.backends.tracing import WIDE_FLOATS, flatten
from parity_tests.numerics.operators.cases import Change
from parity_tests.reporting.verdicts import Side


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
    """Run one leaf alone on `inputs`, imperatively, and backwards if `upstream` is given.

    `train` sets autograd's mode, except that dropout always passes its input on (`sample_dropout`
    runs it); `change` and `inside` are as `Backend.run_leaf` says. The buffers are those after the
    run, which for MXNet's BatchNorm means after backward.
    """
    block = alone(leaf, dtype, gradients=upstream is not None)
    block.apply(_check_channels)
    if change is not None:
        for _, p in roles(leaf, block):
            p.set_data(mx.nd.array(change(p.data().asnumpy()), dtype=p.dtype))
        if inside and isinstance(block, ExecutedBlock):
            block.__dict__["between"] = change
    try:
        return _run_alone(leaf, block, inputs, dtype, train, upstream)
    finally:
        release(block)


def _run_alone(
    leaf: Leaf, block: Block, inputs: Arrays, dtype: str, train: bool, upstream: Arrays | None
) -> LeafRun:
    if leaf.kind == "dropout":
        block._rate = 0.0
        if isinstance(block, ExecutedBlock):
            block.__dict__["forward"] = _dropout(0.0, None)
    given = [ndarray(x, dtype) for x in inputs]
    places = _looked_up(leaf)
    for place, x in enumerate(given):
        if x.dtype in (np.float32, np.float64) and place not in places:
            x.attach_grad()
    if upstream is None:
        with autograd.pause(train_mode=train):
            outputs = call(block, given)
        return named(_numpy(outputs), buffers=_buffers(leaf, block))
    with autograd.record(train_mode=train):
        outputs = call(block, given)
    _check_gradients(outputs, upstream)
    JOURNAL.at(f"{leaf.kind} backward", leaf.path)
    _send_back(outputs, upstream, train)
    return named(
        _numpy(outputs),
        [None if x.grad is None else x.grad.asnumpy() for x in given],
        {r: _gradient(leaf, r, p) for r, p in roles(leaf, block) if p.grad_req != "null"},
        _buffers(leaf, block),
    )


def _send_back(outputs: Sequence[mx.nd.NDArray], upstream: Arrays, train: bool) -> None:
    """Run backwards from the outputs that a gradient passes from."""
    heads = [
        (y, ndarray(g, np.dtype(y.dtype).name))
        for y, g in zip(outputs, upstream, strict=True)
        if _is_recorded(y)
    ]
    if heads:
        autograd.backward(*map(list, zip(*heads, strict=True)), train_mode=train)


def _is_recorded(output: mx.nd.NDArray) -> bool:
    """Whether a gradient passes from here: MXNet raises where none does, torch gives none.

    From whole numbers none does, though MXNet would send one back through a cast.
    """
    if np.dtype(output.dtype).kind != "f":
        return False
    try:
        autograd.get_symbol(output)
    except mx.MXNetError:
        return False
    return True


def sample_dropout(leaf: Leaf, x: np.ndarray) -> np.ndarray:
    """What the leaf's dropout makes of x in training, in float32; draws from MXNet's generator."""
    block = alone(leaf, "float32")
    with autograd.pause(train_mode=True):
        return call(block, [ndarray(x, "float32")])[0].asnumpy()


def _looked_up(leaf: Leaf) -> Container[int]:
    """The inputs that are indices, for whose gradient MXNet's Embedding raises."""
    if not isinstance(leaf.block, ExecutedBlock):
        return (0,) if leaf.kind == "embedding" else ()
    operations = leaf.block.program.layout.segment.normalised
    looks = leaf.kind == "embedding" or any(op.kind == "embedding" for op in operations)
    places: set[int] = leaf.block.program.places
    return places if looks else ()


def _check_gradients(outputs: Sequence[mx.nd.NDArray], upstream: Arrays) -> None:
    """MXNet reads beyond the end of a gradient that is smaller than the output it is for."""
    shapes = [y.shape for y in outputs], [g.shape for g in upstream]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the outputs are {shapes[0]}, their gradients {shapes[1]}")


def _check_channels(block: Block) -> None:
    """Make a batch norm refuse what the other net gives of more channels."""

    def check(norm: Any, args: Sequence[mx.nd.NDArray]) -> None:
        refuse_overrun("BatchNorm", [args[0], norm.gamma.data()], norm._kwargs)

    if isinstance(block, (gluon.nn.BatchNorm, gluon.nn.BatchNormReLU)):
        block.register_forward_pre_hook(check)


def _gradient(leaf: Leaf, role: str, parameter: mx.gluon.Parameter) -> np.ndarray:
    return parameter.grad().asnumpy().reshape(leaf.tensors[role].shape)


def _buffers(leaf: Leaf, block: Block) -> dict[str, np.ndarray]:
    return {
        r: p.data().asnumpy().reshape(leaf.tensors[r].shape)
        for r, p in roles(leaf, block)
        if leaf.tensors[r].buffer
    }


def run_net(
    net: Block,
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
    copied = clone(net, dtype, gradients=objective is not None)
    try:
        return _run_whole(copied, inputs, dtype, train, objective, masks or {}, inputs_too)
    finally:
        release(copied)


def _run_whole(
    copied: Block,
    inputs: Arrays,
    dtype: str,
    train: bool,
    objective: Objective | None,
    masks: Mapping[str, np.ndarray],
    inputs_too: bool,
) -> NetRun:
    watched = leaves(copied)
    zeros, spill = _Zeros(), Spill()
    calls: dict[int, list[_Watched]] = {}
    for leaf in {id(leaf.block): leaf for leaf in watched}.values():
        mask = masks.get(leaf.path)
        noted = calls.setdefault(id(leaf.block), [])
        _watch(leaf, noted, zeros if objective is not None else None, spill, mask, inputs_too)
    given = [ndarray(x, dtype) for x in inputs]
    if objective is None:
        with autograd.pause(train_mode=train):
            outputs = call(copied, given)
        return _finish(watched, calls, outputs, spill)
    with autograd.record(train_mode=train):
        outputs = call(copied, given)
        probes = [zeros.probe(y) for y in outputs]
        outputs = [y if z is None else y + z for y, z in zip(outputs, probes, strict=True)]
        loss = _loss(objective, outputs[0], dtype)
    JOURNAL.at("the whole backward pass", "")
    if loss is None:
        _check_gradients(outputs, objective.upstream)
        _send_back(outputs, objective.upstream, train)
    else:
        loss.backward(train_mode=train)
    run = _finish(watched, calls, outputs, spill)
    run.loss = None if loss is None else loss.asnumpy()
    run.output_gradient = None if probes[0] is None else _came(probes[0])
    for leaf in watched:
        for role, parameter in roles(leaf, leaf.block):
            if parameter.grad_req != "null":
                run.gradients[leaf.path, role] = _gradient(leaf, role, parameter)
    return run


def _loss(objective: Objective, output: mx.nd.NDArray, dtype: str) -> mx.nd.NDArray | None:
    if objective.labels is None or Side.GLUON not in objective.losses:
        return None
    labels = mx.nd.array(objective.labels, dtype=dtype)
    return loss_of(objective.losses[Side.GLUON], output, labels)


def loss_of(loss: Loss, output: mx.nd.NDArray, labels: mx.nd.NDArray) -> mx.nd.NDArray:
    """A user's loss of arrays of `mx.nd`, in their dtype, whatever its code and operators give."""
    with taken_for(WIDE_FLOATS, np.dtype(output.dtype).name):
        return call(loss, (output, labels))[0]


def run_loss(objective: Objective, logits: np.ndarray, dtype: str) -> LeafRun:
    """The "loss" (N,) of logits (N, classes), and its "loss gradient", both in `dtype`."""
    values = as_is(logits.astype(dtype))
    values.attach_grad()
    with autograd.record():
        each = _loss(objective, values, dtype)
    assert each is not None  # the caller has labels, and labels come with a loss
    each.backward()
    return {"loss": each.asnumpy(), "loss gradient": values.grad.asnumpy()}


def cross_entropy() -> Loss:
    """Softmax cross-entropy of (logits, classes), one value a sample."""
    return gluon.loss.SoftmaxCrossEntropyLoss()


class _Watched(Call):
    """A call whose gradients are still in MXNet's hands."""

    probes: tuple[mx.nd.NDArray | None, ...] = ()


def _watch(
    leaf: Leaf,
    calls: list[_Watched],
    zeros: _Zeros | None,
    spill: Spill,
    mask: np.ndarray | None,
    inputs_too: bool,
) -> None:
    """Make a clone's leaf note its calls.

    MXNet 1.9.1 has no gradient of intermediate arrays: a variable of zeros is added to each input,
    and its gradient is the input's. Adding 0 changes no value. Outputs of a training step wait on
    the disk, as MXNet holds what it will differentiate, and so do gradients in float64, which are
    the largest.
    """
    block = leaf.block
    probe, places = _no_probe if zeros is None else zeros.probe, _looked_up(leaf)
    forward: Callable[..., Any] = block.forward
    if leaf.kind == "dropout":
        forward = _dropout(float(block._rate), mask)

    def watched(*args: Any) -> Any:
        probes = tuple(None if i in places else probe(x) for i, x in enumerate(args))
        passed = [x if z is None else x + like(z, x) for x, z in zip(args, probes, strict=True)]
        JOURNAL.at(leaf.kind, leaf.path)
        made = _Watched(_numpy(args) if inputs_too else ())
        made.probes = probes
        calls.append(made)
        out = forward(*passed)
        if not made.outputs:  # else the leaf's own activation child has set them
            outputs = _numpy(flat(out))
            made.outputs = outputs if zeros is None else tuple(map(spill, outputs))
        return out

    block.__dict__["forward"] = watched
    activation = getattr(block, "act", None)
    if block._children and activation is not None and not leaf.composite:
        _end_before(activation, calls)


def _end_before(activation: Block, calls: list[_Watched]) -> None:
    """What `Dense(activation=…)` itself computes is what its activation is given."""

    def note(_: Block, args: tuple[Any, ...]) -> None:
        calls[-1].outputs = _numpy(args)

    activation.register_forward_pre_hook(note)


def _dropout(rate: float, mask: np.ndarray | None) -> Callable[[Any], Any]:
    if mask is None:
        return lambda x: x
    return lambda x: x * like(mx.nd.array(mask / (1.0 - rate), dtype=x.dtype), x)


class _Zeros:
    """Variables of zeros of any shape, which share their memory; a gradient each has of its own.

    It gets its memory once it is computed: what a backward pass computes it of goes by then.
    """

    def __init__(self) -> None:
        self._known: dict[Any, mx.nd.NDArray] = {}  # by dtype: the longest so far, flat

    def probe(self, x: Any) -> mx.nd.NDArray | None:
        """A variable in the shape of x; None where x has no gradient."""
        if not isinstance(x, mx.nd.NDArray) or x.dtype not in (np.float32, np.float64):
            return None
        size = max(1, x.size)
        with autograd.pause():
            known = self._known.get(x.dtype)
            if known is None or known.size < size:
                known = mx.nd.zeros((1 << (size - 1).bit_length(),), dtype=x.dtype)
                self._known[x.dtype] = known
            zeros = known[: x.size].reshape(x.shape)
            gradient = mx.nd.NDArray(_new_alloc_handle(x.shape, x.context, True, x.dtype))
            autograd.mark_variables([zeros], [gradient])
        return zeros


def _no_probe(x: Any) -> None:
    return None


def _came(zeros: mx.nd.NDArray, spill: Spill | None = None) -> np.ndarray:
    """What came back to a variable of zeros; in float64 it is moved to the disk."""
    if not zeros._fresh_grad:  # nothing, and nobody has written there
        return np.zeros(zeros.shape, zeros.dtype)
    gradient: np.ndarray = zeros.grad.asnumpy()
    return gradient if spill is None or gradient.dtype != np.float64 else spill(gradient)


def _finish(
    watched: list[Leaf],
    calls: Mapping[int, list[_Watched]],
    outputs: list[mx.nd.NDArray],
    spill: Spill,
) -> NetRun:
    for made in calls.values():
        for one in made:
            one.input_gradients = tuple(None if z is None else _came(z, spill) for z in one.probes)
            one.probes = ()
    run = NetRun(allot(watched, calls), _numpy(outputs))
    for leaf in watched:
        for role, values in _buffers(leaf, leaf.block).items():
            run.buffers[leaf.path, role] = values
    return run


def flat(out: Any) -> list[mx.nd.NDArray]:
    return list(flatten(out, mx.nd.NDArray))


def _numpy(values: Any) -> Arrays:
    return tuple(v.asnumpy() for v in values if isinstance(v, mx.nd.NDArray))
