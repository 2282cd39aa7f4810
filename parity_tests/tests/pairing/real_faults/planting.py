"""Changes what one executed operation of a living net does, and leaves its library's code alone.

A place is the n-th call of a function while a module's `forward` (a block's `hybrid_forward`) runs.
The change is given that call, and what it returns takes the result's place; clones of the net and
both tracers see what was done instead as operations of the net.

Framework specific (mxnet, torch): it meddles with forward passes of either framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import mxnet as mx
import numpy as np
import torch
from mxnet.gluon import Block
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from parity_tests.backends.torch.tracing.binding import bind, call_name
from parity_tests.levels.view import View
from parity_tests.pairing.graph import Operation, OperationGraph, Origin
from parity_tests.reporting.verdicts import Side


class NotHere(Exception):
    """A fault that does not fit the place, or changes nothing there."""


@dataclass(frozen=True)
class Call:
    """A call that was about to be made."""

    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    library: Any = functional  # where the function is from; Gluon's `F`

    @property
    def first(self) -> Any:
        """What it works on."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def run(self, **changes: Any) -> Any:
        """The call as it was meant, with other named arguments."""
        return self.function(*self.args, **{**self.kwargs, **changes})

    def again(self, **changes: Any) -> Any:
        """The torch call with other arguments, whether they were given by name or not."""
        named = bind(self.function, self.name, self.args, self.kwargs)
        function = getattr(functional, self.name, None) or getattr(torch, self.name)
        return function(**{**named, **changes})

    def argument(self, name: str) -> Any:
        return bind(self.function, self.name, self.args, self.kwargs).get(name)


Change = Callable[[Call], Any]
_Changes = dict[tuple[str, int], Change]


class _Meddling(TorchFunctionMode):
    def __init__(self, changes: _Changes) -> None:
        super().__init__()
        self._changes = changes
        self._seen: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = call_name(func)
        change = self._changes.get((name, self._seen[name]))
        self._seen[name] += 1
        call = Call(func, name, args, kwargs or {})
        return call.run() if change is None else change(call)


class _Operators:
    """Gluon's `F` of one forward pass, some of whose operators do something else."""

    def __init__(self, own: Any, changes: _Changes) -> None:
        self._own = own
        self._changes = changes
        self._seen: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._own, name)
        change = self._changes.get((name, self._seen[name]))
        self._seen[name] += 1
        if change is None:
            return function
        return lambda *args, **kwargs: change(Call(function, name, args, kwargs, self._own))


@dataclass
class _Forward:
    """A forward pass with changes; a copy of its module is bound to it anew."""

    changes: _Changes = field(default_factory=dict)

    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, nn.Module):
            with _Meddling(self.changes):
                return type(module).forward(module, *args, **kwargs)
        own, *arrays = args
        forward = type(module).hybrid_forward
        return forward(module, _Operators(own, self.changes), *arrays, **kwargs)


def meddle(net: Any, module: str, name: str, ordinal: int, change: Change) -> None:
    """Let a call do something else: this one of that name, in this module's forward pass."""
    part = net.get_submodule(module) if isinstance(net, nn.Module) else block_of(net, module)
    method = "forward" if isinstance(net, nn.Module) else "hybrid_forward"
    known = vars(part).get(method)
    forward = known.__func__ if known is not None else _Forward()
    forward.changes[name, ordinal] = change
    setattr(part, method, MethodType(forward, part))


def block_of(net: Block, path: str) -> Block:
    """The block at a path of children's names."""
    for name in path.split(".") if path else ():
        net = net._children[name]
    return net


@dataclass(frozen=True)
class Site:
    """An operation that one side of a clean pair executes, and where the checker shows it.

    `here` are the paths of the segments that it is in, `behind` of those that read what it gives,
    and `known` all paths of the clean pair.
    """

    side: Side
    graph: OperationGraph
    op: Operation
    here: frozenset[str]
    behind: frozenset[str]
    known: frozenset[str]

    def plant(self, net: Any, change: Change, op: Operation | None = None) -> None:
        """Change this operation, or another one of its graph."""
        op = op or self.op
        own = [
            op.path == other.path or other.path.startswith(f"{op.path}.".lstrip("."))
            for other in self.graph
        ]
        # torch's calls are counted in all that runs meanwhile, also in a module that it shares;
        # Gluon's `F` is each block's own
        first = own.index(True) if self.side == Side.TORCH else 0
        earlier = [
            other
            for other in list(self.graph)[first : op.index]
            if other.kind == op.kind and (self.side == Side.TORCH or other.path == op.path)
        ]
        if any(other.call != op.call for other in self.graph if other.path == op.path):
            raise NotHere(f"{op.path} runs more than once")
        name = _CALLED.get(op.kind, op.kind) if self.side == Side.GLUON else op.kind
        meddle(net, op.path, name, len(earlier), change)

    def readers(self, op: Operation | None = None) -> list[Operation]:
        """What reads the operation's output."""
        index = (op or self.op).index
        return [
            other
            for other in self.graph
            if any(v.origin is Origin.OPERATION and v.key == index for v in other.reads)
        ]

    def sources(self, op: Operation | None = None) -> list[Operation]:
        """What the operation reads."""
        return [
            self.graph.operations[int(value.key)]
            for value in (op or self.op).reads
            if value.origin is Origin.OPERATION
        ]


# Operators that the tape has under another name than `F`
_CALLED = {"Concat": "concat", "Flatten": "flatten"}


def sites(view: View, side: Side) -> list[Site]:
    """The operations of one side of a clean pair, in order."""
    graph = view.traced.traces[side][view.traced.modes[0]]
    segments = list(view.segments.values())
    known = frozenset(view.segments)
    found = []
    for op in graph:
        own = [n for n, s in enumerate(segments) if op.index in s.sides[side].executed]
        behind = {s.path for s in segments if any(slot.segment in own for slot in s.slots)}
        here = frozenset(segments[n].path for n in own)
        found.append(Site(side, graph, op, here, frozenset(behind) - here, known))
    return found


def behaviour(net: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All that a net does in inference and in training: outputs, gradients, statistics."""
    return _of_torch(net, inputs) if isinstance(net, nn.Module) else _of_gluon(net, inputs)


def _of_torch(net: nn.Module, inputs: np.ndarray) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    net = net.double()
    for train in (False, True):
        torch.manual_seed(0)
        x = torch.from_numpy(inputs).double().requires_grad_()
        outputs = list(_tensors(net.train(train)(x)))
        made |= {f"output {train} {i}": y.detach().numpy() for i, y in enumerate(outputs)}
    upstream = torch.from_numpy(np.random.default_rng(0).standard_normal(outputs[0].shape))
    outputs[0].backward(upstream)
    learnt = {"x": x, **dict(net.named_parameters())}
    made |= {  # one that is stopped is as good as one of zeros, behind a ReLU that is dead
        f"gradient {name}": np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        for name, p in learnt.items()
    }
    return made | {n: b.numpy() for n, b in net.named_buffers()}


def _tensors(outputs: Any) -> Iterable[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else outputs


def _of_gluon(net: Block, inputs: np.ndarray) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for train in (False, True):
        mx.random.seed(0)
        x = mx.nd.array(inputs)
        x.attach_grad()
        with mx.autograd.record(train_mode=train):
            y = net(x)
        made[f"output {train}"] = y.asnumpy()
    upstream = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(mx.nd.array(upstream))
    made["gradient x"] = x.grad.asnumpy()
    for name, parameter in net.collect_params().items():
        learns = parameter.grad_req != "null"
        made[name] = (parameter.grad() if learns else parameter.data()).asnumpy()
    return made


# Float64 gives a net that is run twice the same within this, of the largest value
_SAME = 1e-11


def differ(clean: Mapping[str, np.ndarray], faulty: Mapping[str, np.ndarray]) -> bool:
    """Whether two nets do something else: values, gradients, statistics, or how many of them."""
    return clean.keys() != faulty.keys() or any(
        value.shape != faulty[name].shape
        or np.abs(value - faulty[name]).max(initial=0) > _SAME * np.abs(value).max(initial=0)
        for name, value in clean.items()
    )
