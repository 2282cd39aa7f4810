"""Records the operations that a Gluon net executes, hybrid or not, with the block of each.

Every operator of MXNet's imperative interface ends in one function of `mxnet.ndarray.register`,
so that recording there sees blocks, functions, operators such as `+`, and Lambdas alike. Hybrid
blocks run imperatively while they are traced; the symbol of a SymbolBlock is run node by node.
"""

from __future__ import annotations

import functools
import json
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, SymbolBlock, rnn
from mxnet.ndarray import NDArray, register
from mxnet.ndarray.ndarray import NDArrayBase

from parity_tests.backends.gluon.tracing.native import handle_of, operator_of
from parity_tests.backends.gluon.tracing.replay import (
    replay_assignment,
    replay_block,
    replay_method,
    replay_operator,
)
from parity_tests.backends.tracing import GraphBuilder, digest, flatten
from parity_tests.pairing.graph import OperationGraph, Replay, Value

__all__ = ["trace_gluon"]

_LIBRARY = os.path.dirname(mx.__file__) + os.sep
_MODELS = os.path.join(_LIBRARY, "gluon", "model_zoo") + os.sep
# torch has each of these as one function, so they count as one operation
_COMPOSITES = (rnn.rnn_layer._RNNLayer, rnn.RNNCell, rnn.LSTMCell, rnn.GRUCell)
# Methods of NDArray that go to the C interface without an operator
_METHODS = {"reshape": "Reshape", "_slice": "_slice", "_at": "_at", "detach": "detach"}


def trace_gluon(
    net: Block, *inputs: NDArray, train: bool = False, values: bool = False
) -> OperationGraph:
    """The operations that `net(*inputs)` executes.

    The net is left as it was: hybridisation, moving averages and Python's and numpy's random
    state are restored. In training MXNet's own random stream moves on, as it has no getter.

    Args:
        net: a block whose parameters are initialised.
        inputs: what the net is called with.
        train: run in training mode instead of inference.
        values: give every operation a digest of its outputs' values.
    """
    builder = GraphBuilder(_ByIdentity(), _describe, (_LIBRARY,), (_MODELS,))
    paths = {id(net): ""}
    _list_paths(net, "", paths)
    named: dict[str, Any] = dict(net._collect_params_with_prefix())
    listed = {id(parameter) for parameter in named.values()}
    for name, parameter in net.collect_params().items():
        if id(parameter) not in listed:
            named[name] = parameter
    if any(parameter._data is None for parameter in named.values()):
        with mx.autograd.pause():
            net(*inputs)  # settles the shapes that wait for an input
    state = random.getstate(), np.random.get_state()
    held = [p for p in named.values() if p._data is not None and p.grad_req == "null"]
    saved = [p.data().copy() for p in held] if train else []
    with ExitStack() as stack:
        stack.enter_context(_imperative(net))
        stack.enter_context(mx.autograd.pause(train_mode=train))
        recorder = _Recorder(builder, paths, values, _dtype_of(named.values(), inputs))
        stack.enter_context(recorder.patched())
        for name, parameter in named.items():
            if parameter._data is not None:
                builder.add_parameter(name, parameter.data(parameter.list_ctx()[0]))
        for array in flatten(inputs, NDArray):
            builder.add_input(array)
        outputs = list(flatten(net(*inputs), NDArray))
        graph = builder.finish(outputs, train)
    for parameter, array in zip(held if train else [], saved, strict=True):
        parameter.data()[:] = array
    random.setstate(state[0])
    np.random.set_state(state[1])
    return graph


def _dtype_of(parameters: Iterable[Any], inputs: Sequence[NDArray]) -> str:
    """What a net computes in: the dtype of its first floating-point parameter, or input."""
    kinds = [np.dtype(x.dtype) for x in (*parameters, *flatten(inputs, NDArray))]
    return next((kind.name for kind in kinds if kind.kind == "f"), "float32")


def _list_paths(block: Block, path: str, paths: dict[int, str]) -> None:
    for name, child in block._children.items():
        below = f"{path}.{name}" if path else name
        if paths.setdefault(id(child), below) == below:
            _list_paths(child, below, paths)


def _describe(array: NDArray) -> tuple[tuple[int, ...], str]:
    return tuple(array.shape), np.dtype(array.dtype).name


class _ByIdentity(MutableMapping[Any, Value]):
    """Values by the array that holds them; NDArray has no weak references, so a new array of a
    dead one's address is forgotten when it is made (see `_Recorder.patched`)."""

    def __init__(self) -> None:
        self._values: dict[int, Value] = {}

    def __getitem__(self, array: Any) -> Value:
        return self._values[id(array)]

    def __setitem__(self, array: Any, value: Value) -> None:
        self._values[id(array)] = value

    def __delitem__(self, array: Any) -> None:
        self._values.pop(id(array), None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@contextmanager
def _imperative(net: Block) -> Iterator[None]:
    """Hybridised blocks run operator by operator in this context; their caches stay."""
    active: list[HybridBlock] = []

    def collect(block: Block) -> None:
        if isinstance(block, HybridBlock) and block._active:
            active.append(block)

    net.apply(collect)
    for block in active:
        block._active = False
    try:
        yield
    finally:
        for block in active:
            block._active = True


class _Recorder:
    def __init__(
        self, builder: GraphBuilder, paths: Mapping[int, str], values: bool, dtype: str
    ) -> None:
        self._builder = builder
        self._dtype = dtype
        self._paused = 0  # inside `autograd.pause()` of the net's own
        self._paths = paths
        self._values = values
        self._thread = threading.get_ident()
        self._depth = 0  # inside a composite, whose own operations are not recorded

    @contextmanager
    def patched(self) -> Iterator[None]:
        initialise = NDArrayBase.__init__

        def forget(array: Any, *args: Any, **kwargs: Any) -> None:
            if threading.get_ident() == self._thread:
                self._builder.producers.pop(array, None)
            initialise(array, *args, **kwargs)

        patches = [
            mock.patch.object(NDArrayBase, "__init__", forget),
            mock.patch.object(register, "_imperative_invoke", self._invoke()),
            mock.patch.object(Block, "__call__", self._call()),
            mock.patch.object(SymbolBlock, "forward", self._symbol()),
            mock.patch.object(NDArray, "__setitem__", self._assign()),
            *self._pauses(),
        ]
        patches += [
            mock.patch.object(NDArray, method, self._method(method, kind))
            for method, kind in _METHODS.items()
        ]
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield

    @property
    def _recording(self) -> bool:
        return not self._depth and threading.get_ident() == self._thread

    def _invoke(self) -> Callable[..., Any]:
        original = register._imperative_invoke

        def invoke(handle: int, arrays: Sequence[NDArray], keys: Any, vals: Any, *rest: Any) -> Any:
            if not self._recording:
                return original(handle, arrays, keys, vals, *rest)
            name, roles = operator_of(handle)
            operands = [(_role(roles, i), array) for i, array in enumerate(arrays)]
            values = [self._builder.value(array) for array in arrays]
            # MXNet 1.9.1 crashes on its way back from a BlockGrad into a convolution
            replay = (
                replay_method(NDArray.detach, (), {})
                if name == "BlockGrad"
                else replay_operator(
                    handle, keys, vals, self._dtype, bool(rest[1]), bool(self._paused)
                )
            )
            out = original(handle, arrays, keys, vals, *rest)
            # `out` may be one of the inputs, which had another value before
            for array, value in zip(arrays, values, strict=True):
                self._builder.producers.setdefault(array, value)
            self._add(name, _attributes(keys, vals), operands, out, replay)
            return out

        return invoke

    def _pauses(self) -> list[Any]:
        """Notes where the net's own code switches recording for gradients off."""
        scope = mx.autograd._RecordingStateScope
        enter, leave = scope.__enter__, scope.__exit__

        def entered(self_: Any) -> Any:
            self._paused += self_._enter_is_record is False
            return enter(self_)

        def left(self_: Any, *args: Any) -> Any:
            self._paused -= self_._enter_is_record is False
            return leave(self_, *args)

        return [
            mock.patch.object(scope, "__enter__", entered),
            mock.patch.object(scope, "__exit__", left),
        ]

    def _add(
        self,
        kind: str,
        attributes: dict[str, object],
        operands: Any,
        out: Any,
        replay: Replay | None,
    ) -> None:
        outputs = list(flatten(out, NDArray))
        values: tuple[float, ...] = ()
        if self._values and outputs:
            values = digest(outputs[0].asnumpy())
        stops = kind in ("BlockGrad", "detach") or bool(self._paused)
        self._builder.add(
            kind, attributes, operands, outputs, values=values, replay=replay, stops_gradient=stops
        )

    def _method(self, method: str, kind: str) -> Callable[..., Any]:
        original = getattr(NDArray, method)

        @functools.wraps(original)
        def call(array: NDArray, *args: Any, **kwargs: Any) -> Any:
            out = original(array, *args, **kwargs)
            if self._recording:
                attributes: dict[str, object] = {"args": args} if kind.startswith("_") else {}
                replay = replay_method(original, args, kwargs)
                self._add(kind, attributes, [("data", array)], out, replay)
            return out

        return call

    def _assign(self) -> Callable[..., Any]:
        original = NDArray.__setitem__

        def assign(array: NDArray, key: Any, value: Any) -> None:
            recording = self._recording
            self._depth += 1
            try:
                original(array, key, value)
            finally:
                self._depth -= 1
            if recording:
                operands = [("data", array)]
                operands += [("value", value)] if isinstance(value, NDArray) else []
                replay = replay_assignment(original, key, value)
                self._add("_setitem", {"key": repr(key)}, operands, array, replay)

        return assign

    def _call(self) -> Callable[..., Any]:
        original = Block.__call__

        def call(block: Block, *args: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(block, *args)
            path = self._paths.get(id(block))
            if path is None:  # made while the net runs, or held in a plain list
                path = f"{self._builder.path}.{type(block).__name__}".lstrip(".")
            with self._builder.inside(path):
                if not isinstance(block, _COMPOSITES) or self._depth:
                    return original(block, *args)
                self._depth += 1
                try:
                    out = original(block, *args)
                finally:
                    self._depth -= 1
                self._composite(block, args, out)
                return out

        return call

    def _composite(self, block: Block, args: Any, out: Any) -> None:
        operands = [(f"input.{i}", x) for i, x in enumerate(flatten(args, NDArray))]
        operands += [(name, p.data()) for name, p in block._reg_params.items()]
        names = ("_mode", "_hidden_size", "_num_layers", "_dir", "_dropout", "_layout")
        attributes = {n.lstrip("_"): getattr(block, n) for n in names if hasattr(block, n)}
        replay = replay_block(block, args, tuple(block._reg_params))
        self._add(type(block).__name__, attributes, operands, out, replay)

    def _symbol(self) -> Callable[..., Any]:
        original = SymbolBlock.forward

        def forward(block: SymbolBlock, x: Any, *args: Any) -> Any:
            if not isinstance(x, NDArray):
                return original(block, x, *args)
            inputs, outputs = block._cached_graph
            graph = json.loads(outputs.tojson())
            if any("subgraphs" in node for node in graph["nodes"]):
                return self._opaque(block, original, x, *args)
            flat = list(flatten((x, *args), NDArray))
            arrays = {symbol.name: array for symbol, array in zip(inputs, flat, strict=False)}
            for name, parameter in block.params.items():
                arrays[name] = parameter.data(x.context)
            out = self._run(graph, arrays)
            return mx.gluon.block._regroup(out, block._out_format)

        return forward

    def _run(self, graph: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> list[NDArray]:
        """A symbol's outputs, its nodes run one by one."""
        results: list[list[NDArray]] = []
        left = [0] * len(graph["nodes"])
        for node in graph["nodes"]:
            for source, *_ in node["inputs"]:
                left[source] += 1
        for source, *_ in graph["heads"]:
            left[source] += 1
        base = self._builder.path
        for node in graph["nodes"]:
            if node["op"] == "null":
                results.append([arrays[node["name"]]])
                continue
            operands = [results[source][output] for source, output, *_ in node["inputs"]]
            attributes = {k: v for k, v in node.get("attrs", {}).items() if k[:2] != "__"}
            path = f"{base}.{node['name']}".lstrip(".")
            with self._builder.inside(path):
                out = register._imperative_invoke(
                    handle_of(node["op"]),
                    operands,
                    list(attributes),
                    list(attributes.values()),
                    None,
                    False,
                    True,
                )
            results.append(out)
            for source, *_ in node["inputs"]:
                left[source] -= 1
                if not left[source]:
                    results[source] = []  # let go of what nothing reads any more
        return [results[source][output] for source, output, *_ in graph["heads"]]

    def _opaque(self, block: SymbolBlock, run: Callable[..., Any], *args: Any) -> Any:
        out = run(block, *args)
        operands = [(f"input.{i}", x) for i, x in enumerate(flatten(args, NDArray))]
        operands += [(name, p.data()) for name, p in block.params.items()]
        self._builder.add(
            type(block).__name__, {}, operands, list(flatten(out, NDArray)), opaque=True
        )
        return out


def _role(names: Sequence[str], position: int) -> str:
    if len(names) > 1 or (names and not position):
        return names[min(position, len(names) - 1)]
    return f"{names[0] if names else 'data'}.{position}"


def _attributes(keys: Sequence[str], values: Sequence[Any]) -> dict[str, object]:
    return {str(key): str(value) for key, value in zip(keys, values, strict=True)}
