"""Records the operations that a torch net executes, modules and functions alike.

A TorchFunctionMode sees every public call on tensors (`F.relu`, `x + y`, `x.view`) on real
values, whatever Python surrounds it; global module hooks say where it happens. Values that such
calls did not produce come from compiled code: then a second pass also records at the dispatcher.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from parity_tests.backends.draws import Live
from parity_tests.backends.files.tape import Tape
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.torch.tracing.binding import SPELLINGS, bind, call_name
from parity_tests.backends.torch.tracing.draws import drawn, draws_numbers
from parity_tests.backends.torch.tracing.dtypes import TakenFor
from parity_tests.backends.torch.tracing.replay import (
    ReplayCall,
    ReplayFunction,
    ReplayModule,
    ReplayViewWrite,
)
from parity_tests.backends.tracing import (
    BACKENDS,
    HELD,
    digest,
    flatten,
    graph_of,
    pass_on,
    replay_whole,
)
from parity_tests.pairing.graph import OperationGraph, Origin, Replay
from parity_tests.pairing.vocabulary import as_numpy, constant

_LIBRARY = os.path.dirname(torch.__file__) + os.sep
# MXNet has each of these as one operator or one block
_COMPOSITES = (nn.RNNBase, nn.RNNCellBase)
_TO_NUMPY = ("numpy", "array", "tolist")  # `__array__` is called array
_FROM_NUMPY = ("tensor", "as_tensor", "asarray")


def trace_torch(
    net: nn.Module,
    *inputs: Any,
    train: bool = False,
    values: bool = False,
    single: Collection[str] = (),
) -> OperationGraph:
    """The operations that `net(*inputs)` executes.

    The net is left as it was: modes, parameters, buffers and all random states are restored.

    Args:
        net: any module.
        inputs: what the net is called with.
        train: run in training mode instead of inference.
        values: give every operation a digest of its outputs' values.
        single: dtypes of floats that the net's code names, and that are float32 here: those of the
            net of which this one is a copy in float32.
    """
    graph = _trace(net, inputs, train, values, False, single)
    if any(op.opaque for op in graph) or _has_unknown(graph):
        return _trace(net, inputs, train, values, True, single)
    return graph


def _has_unknown(graph: OperationGraph) -> bool:
    read = [x.value for op in graph for x in op.inputs] + list(graph.outputs)
    return any(value.origin is Origin.CONSTANT for value in read)


def _trace(
    net: nn.Module,
    inputs: Sequence[Any],
    train: bool,
    values: bool,
    dispatched: bool,
    single: Collection[str],
) -> OperationGraph:
    tape = Tape(WeakIdKeyDictionary(), _describe, (_LIBRARY, BACKENDS))
    for name, parameter in net.named_parameters(remove_duplicate=False):
        tape.add_parameter(name, parameter)
    for name, buffer in net.named_buffers(remove_duplicate=False):
        tape.add_parameter(name, buffer)
    for tensor in flatten(inputs, torch.Tensor):
        tape.add_input(tensor)
    paths: dict[int, str] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), path)
    live = Live()
    dtype = _dtype_of(net, inputs)
    recorder = _Recorder(tape, values, dtype, live)
    same = {str(dtype).removeprefix("torch."), "float64", *single}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_unchanged(net))
        stack.enter_context(live.of_host())
        net.train(train)
        # where the net's own code switches gradients off is part of what it computes
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_module_paths(tape, recorder, paths))
        stack.enter_context(_custom_functions(tape, same))
        if dispatched:
            stack.enter_context(_DispatchRecorder(recorder))
        stack.enter_context(recorder)
        if single:
            stack.enter_context(TakenFor(single, "float32"))
        result = net(*inputs)
        for name, buffer in net.named_buffers(remove_duplicate=False):
            tape.hold(name, buffer)
    graph = graph_of(tape.graph(list(flatten(result, torch.Tensor)), train), tape.constants)
    held = dict(net.named_parameters(remove_duplicate=False))
    return graph.with_neutral(n for n in graph.parameters if _is_neutral(n, held.get(n)))


def _is_neutral(name: str, parameter: nn.Parameter | None) -> bool:
    """Whether it is a scale of ones or a shift of zeros that nothing trains."""
    neutral = {"weight": 1, "bias": 0}.get(name.rpartition(".")[2])
    if neutral is None or parameter is None or parameter.requires_grad or parameter.is_meta:
        return False
    return bool((parameter == neutral).all())


@contextlib.contextmanager
def _unchanged(net: nn.Module) -> Iterator[None]:
    """Restores modes, tensors and random states on leaving."""
    modes = [(module, module.training, dict(module._buffers)) for module in net.modules()]
    held = [*net.parameters(), *net.buffers()]
    versions = [(t, t._version, t.detach().clone()) for t in held if not t.is_meta]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for tensor, version, value in versions:
                # a batch norm's update in training does not count as a new version
                if tensor._version != version or not torch.equal(tensor, value):
                    tensor.copy_(value)
        for module, mode, buffers in modes:
            module.training = mode
            module._buffers.update(buffers)  # which its own code may have replaced


@contextlib.contextmanager
def _module_paths(tape: Tape, recorder: _Recorder, paths: Mapping[int, str]) -> Iterator[None]:
    def before(module: nn.Module, args: Any) -> None:
        path = paths.get(id(module))
        if path is None:  # made while the net runs, or held in a plain list
            path = f"{tape.path}.{type(module).__name__}".lstrip(".")
        tape.enter(path)
        if isinstance(module, _COMPOSITES):
            recorder.depth += 1

    def after(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(module, _COMPOSITES):
            recorder.depth -= 1
            if not recorder.depth:
                recorder.add_module(module, args, out)
        tape.leave()

    handles = [
        hooks.register_module_forward_pre_hook(before),
        hooks.register_module_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _custom_functions(tape: Tape, same: Container[str]) -> Iterator[None]:
    """What an `autograd.Function` returns is replayed by it, so that its own backward runs.

    `same` are the dtypes of floats that its code names, and that are that of the run.
    """
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        start = len(tape.operations)
        out = original.__func__(cls, *args, **kwargs)
        outputs = list(flatten(out, torch.Tensor))
        if outputs:
            tensors = _tensors(args, kwargs)
            replay = ReplayFunction(cls, args, kwargs, tensors, same)
            replay_whole(tape, start, outputs, tensors, replay)
        return out

    with mock.patch.object(torch.autograd.Function, "apply", classmethod(apply)):
        yield


def _dtype_of(net: nn.Module, inputs: Sequence[Any]) -> torch.dtype:
    """What a net computes in: the dtype of its first floating-point parameter, or input."""
    arrays = [*net.parameters(), *flatten(inputs, torch.Tensor)]
    return next((x.dtype for x in arrays if x.is_floating_point()), torch.float32)


def _describe(tensor: torch.Tensor) -> tuple[tuple[int, ...], str]:
    with torch._C.DisableTorchFunction():
        return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


class _Recorder(TorchFunctionMode):
    def __init__(self, tape: Tape, values: bool, dtype: torch.dtype, live: Live) -> None:
        super().__init__()
        self._live = live
        self._tape = tape
        self._values = values
        self._dtype = dtype
        self.depth = 0  # inside a composite, whose own operations are not recorded
        self.calling = 0  # inside a recorded function

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self, _own_body():
                return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention and _drops(*args, **kwargs):
            with self:
                return _attention(*args, **kwargs)
        operands = [(tensor, self._tape.value(tensor)) for tensor in _tensors(args, kwargs)]
        name = call_name(func)
        if name in _TO_NUMPY and any(map(self._is_computed, operands)):
            self._tape.hand_over()
        gradients = torch.is_grad_enabled() or _in_custom_function()
        self.calling += 1
        JOURNAL.at(name, self._tape.path)
        try:
            result = func(*args, **kwargs)
        finally:
            self.calling -= 1
        if name == "setitem":
            outputs: list[torch.Tensor] = [args[0]]
        else:
            outputs = list(flatten(result, torch.Tensor))
        if not outputs or name in ("grad", "grad_fn", "_base"):
            return result
        if self._tape.left and name in _FROM_NUMPY and not operands:
            return result  # what it holds comes from nowhere, as of `from_numpy`
        same = len(outputs) == 1 and any(outputs[0] is tensor for tensor, _ in operands)
        kept = same and self._unmodified(func, name)
        single = kept and self._to_single(name, (*args, *kwargs.values()))
        if kept and not single:
            return result
        arguments = bind(func, name, args, kwargs)
        self._settle(name, arguments, outputs[0])
        tensors = _bound_tensors(arguments)
        replay = ReplayCall(func, name, args, kwargs, tensors, outputs, self._dtype, gradients)
        stops = name in ("detach", "detach_", "data") or not gradients
        kind = "cast_to_itself" if single else name
        self._add(kind, arguments, outputs, replay, stops=stops)
        return result

    def _settle(self, name: str, arguments: Mapping[str, Any], out: torch.Tensor) -> None:
        """Let what a call drew be what it draws in each trace."""
        if not draws_numbers(name):
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            given = {k: x for k, x in arguments.items() if isinstance(x, torch.Tensor)}
            numbers = {k: constant(as_numpy(x))[1] for k, x in given.items() if x is not out}
            draw = drawn(name, {k: x for k, x in arguments.items() if k not in given}, numbers)
            if draw is not None:
                out.copy_(torch.from_numpy(self._live.values(draw, tuple(out.shape))))

    def _is_computed(self, operand: tuple[torch.Tensor, tuple[str, Any, int]]) -> bool:
        """Whether these are several numbers that the input decides."""
        tensor, (origin, *_) = operand
        return origin in ("operation", "input") and math.prod(self._tape.describe(tensor)[0]) > 1

    def _to_single(self, name: str, arguments: Sequence[Any]) -> bool:
        """Whether a call that changes nothing in a float32 net would round in a float64 one."""
        named = name == "float" or any(x is torch.float32 for x in arguments)
        return named and self._dtype is torch.float32

    @staticmethod
    def _unmodified(func: Any, name: str) -> bool:
        # returned as it came: contiguous, to, requires_grad_
        return name in ("contiguous", "to", "float", "double", "type", "requires_grad", "cpu")

    def _add(
        self,
        name: str,
        arguments: dict[str, Any],
        outputs: list[torch.Tensor],
        replay: Replay | None = None,
        *,
        stops: bool = False,
    ) -> None:
        operands: list[tuple[str, torch.Tensor]] = []
        attributes: dict[str, object] = {}
        for role, value in arguments.items():
            tensors = list(flatten(value, torch.Tensor))
            key = name == "getitem" and role == "arg.1"
            if isinstance(value, torch.Tensor) and not key:
                operands.append((role, value))
            elif tensors:
                operands += [(f"{role}.{i}", tensor) for i, tensor in enumerate(tensors)]
                if key:
                    attributes[role] = _without_tensors(value)
            else:
                attributes[role] = value
        values = self._digest(outputs[0])
        index = self._tape.add(
            name,
            attributes,
            operands,
            outputs,
            digest=values,
            replay=replay,
            stops_gradient=stops,
            infinite=_is_infinite(outputs[0]),
        )
        record = self._tape.operations[index]
        if record["fixed"] and math.prod(record["shapes"][0]) <= HELD:
            with torch._C.DisableTorchFunction():
                record["held"] = outputs[0].detach().cpu().numpy().copy()
        for tensor in outputs:
            self._write_through(tensor, name)

    def _write_through(self, tensor: torch.Tensor, name: str) -> None:
        """What is written into a view is written into the tensor that it views."""
        with torch._C.DisableTorchFunction():
            base = tensor._base
        if base is not None and name.endswith("_"):
            with torch._C.DisableTorchFunction():
                replay = ReplayViewWrite(base, tensor)
            operands = [("input", base), ("value", tensor)]
            self._tape.add("write_view", {}, operands, [base], replay=replay)

    def _digest(self, tensor: torch.Tensor) -> tuple[float, ...]:
        if not self._values:
            return ()
        with torch._C.DisableTorchFunction():
            return digest(tensor.detach().double().cpu().numpy())

    def add_module(self, module: nn.Module, args: Any, out: Any) -> None:
        """Record a composite module as one operation."""
        given = list(flatten(args, torch.Tensor))
        own = dict(module.named_parameters(recurse=False))
        operands = [*((f"input.{i}", t) for i, t in enumerate(given)), *own.items()]
        attributes = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str)) and not key.startswith("_")
        }
        outputs = list(flatten(out, torch.Tensor))
        kind = type(module).__name__
        values = self._digest(outputs[0])
        replay = ReplayModule(module, tuple(own), args, given)
        self._tape.add(kind, attributes, operands, outputs, digest=values, replay=replay)

    def add_dispatched(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Record an operator that compiled code called."""
        outputs = list(flatten(result, torch.Tensor))
        if self.depth or self.calling or not outputs:
            return
        names = [argument.name for argument in func._schema.arguments]
        bound = {SPELLINGS.get(n, n): a for n, a in zip(names, args, strict=False)}
        arguments = {**bound, **kwargs}
        name = func._schema.name.removeprefix("aten::")
        tensors = _bound_tensors(arguments)
        replay: Replay
        if name == "detach":  # autograd's own, and not the net's
            replay = pass_on
        else:
            replay = ReplayCall(func, name, args, kwargs, tensors, outputs, self._dtype, True)
        self._add(name, arguments, outputs, replay)


def _is_infinite(tensor: torch.Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        if not tensor.is_floating_point():
            return False
        value = tensor.detach()
        return not bool(value.sum().isfinite()) and bool(value.isinf().any())


def _drops(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> bool:
    return dropout_p > 0


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What torch documents attention in one call as: it drops inside, which is seen in steps alone.

    https://docs.pytorch.org/docs/2.13/generated/torch.nn.functional.scaled_dot_product_attention.html
    """
    if enable_gqa:
        count = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(count, -3) for x in (key, value))
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


@contextlib.contextmanager
def _own_body() -> Iterator[None]:
    """Let the next function of `torch.nn.functional` that asks a mode run its own body instead.

    Attention is thirty operations in one function, with weights that the other side has apart. It
    asks once, at its start: what it calls is recorded again.
    https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/functional.py
    """
    asking = "has_torch_function"
    asked = vars(F)[asking]

    def no_mode(tensors: Any) -> bool:
        vars(F)[asking] = asked
        return False

    with mock.patch.dict(vars(F), {asking: no_mode}):
        yield


class _DispatchRecorder(TorchDispatchMode):
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._recorder.add_dispatched(func, args, kwargs or {}, result)
        return result


def _bound_tensors(arguments: Mapping[str, Any]) -> list[torch.Tensor]:
    return [tensor for value in arguments.values() for tensor in flatten(value, torch.Tensor)]


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    return [*flatten(args, torch.Tensor), *flatten(kwargs, torch.Tensor)]


_CUSTOM = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _in_custom_function() -> bool:
    """Whether this runs in the forward of an `autograd.Function`, where gradients are off."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is _CUSTOM:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _without_tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return "mask" if value.dtype is torch.bool else "tensor"
    if isinstance(value, (tuple, list)):
        return tuple(map(_without_tensors, value))
    return value
