"""Records the operations that a Gluon net executes, hybrid or not, with the block of each.

Every operator of MXNet's imperative interface ends in one function of `mxnet.ndarray.register`,
so that recording there sees blocks, functions, operators such as `+`, and Lambdas alike. Hybrid
blocks run imperatively while they are recorded; the symbol of a SymbolBlock is run node by node.

The tracer of living nets extends `Recorder`. As a script, behind `tape.py`, it needs Python 3.6,
numpy and MXNet 1.5 or newer, and writes all values of a net into a folder.
"""

import ctypes
import functools
import json
import os
import random
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, MutableMapping, Sequence, Tuple
from unittest import mock

try:  # noqa: SIM105  (imports follow)
    import mxnet_compat  # noqa: F401  brings MXNet beside a newer numpy, where it is installed
except ImportError:
    pass

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call, mx_uint, py_str
from mxnet.gluon import Block, HybridBlock, SymbolBlock, rnn
from mxnet.ndarray import NDArray, register
from mxnet.ndarray.ndarray import NDArrayBase

from parity_tests.backends.files.tape import (
    Archive,
    RecordError,
    Tape,
    describe_factory,
    flatten,
    head_gradients,
    main,
    spans,
    write_json,
    written_key,
)

LIBRARY = os.path.dirname(mx.__file__) + os.sep
MODELS = os.path.join(LIBRARY, "gluon", "model_zoo") + os.sep
HAS_NUMPY = hasattr(mx, "np")  # not in MXNet 1.5
# torch has each of these as one function, so they count as one operation
COMPOSITES = (rnn.rnn_layer._RNNLayer, rnn.RNNCell, rnn.LSTMCell, rnn.GRUCell)
# Arguments that say how long, where, of which class or in which shape. MXNet 1.9.1 writes no
# gradient of these, and what lies in the memory that is set aside for one comes back; an embedding
# refuses one, and that of a shape has none itself: what is sent on from there may end the process
UNWRITTEN = {
    **dict.fromkeys(("Embedding", "_contrib_SparseEmbedding", "_npx_embedding"), (0,)),
    **dict.fromkeys(
        ("SequenceMask", "SequenceLast", "SequenceReverse", "_npx_sequence_mask"), (1,)
    ),
    **dict.fromkeys(("_contrib_boolean_mask", "_npi_boolean_mask", "_contrib_index_copy"), (1,)),
    **dict.fromkeys(("broadcast_like", "reshape_like", "slice_like", "Crop"), (1,)),
    **dict.fromkeys(("SoftmaxOutput", "LinearRegressionOutput", "MAERegressionOutput"), (1,)),
    **dict.fromkeys(("LogisticRegressionOutput", "SVMOutput"), (1,)),
    **dict.fromkeys(
        ("CTCLoss", "_contrib_CTCLoss", "_contrib_ctc_loss", "_npx_ctc_loss"), (1, 2, 3)
    ),
}
# What goes to the C interface without an operator: where it is, its name, and what it counts as
UNSEEN: List[Tuple[Any, str, str]] = [
    (NDArray, "reshape", "Reshape"),
    (NDArray, "_slice", "_slice"),
    (NDArray, "_at", "_at"),
    (NDArray, "detach", "detach"),
]
# What goes there in yet another way, and what is called in its place: an index gives no view of
# the memory, and `tensordot` is an operator
INSTEAD: List[Tuple[Any, str, Any]] = []
if hasattr(NDArray, "_basic_indexing_slice_is_contiguous"):
    INSTEAD.append((NDArray, "_basic_indexing_slice_is_contiguous", staticmethod(lambda *_: False)))


def _tensordot(a: NDArray, b: NDArray, axes: Any) -> NDArray:
    """By the operator of MXNet's graphs."""
    if isinstance(axes, int):
        return mx.nd.numpy._internal.tensordot_int_axes(a, b, axes)
    first, second = [(axis,) if isinstance(axis, int) else tuple(axis) for axis in axes]
    return mx.nd.numpy._internal.tensordot(a, b, first, second)


# The classes of arrays, and the method of each that gives its values as one of the other
CLASSES = {NDArray: "as_np_ndarray", mx.np.ndarray: "as_nd_ndarray"} if HAS_NUMPY else {NDArray: ""}
if HAS_NUMPY:
    UNSEEN.append((mx.np.ndarray, "detach", "detach"))
    if hasattr(mx.numpy.multiarray, "_reshape_view"):
        UNSEEN.append((mx.numpy.multiarray, "_reshape_view", "Reshape"))
    if hasattr(mx.nd.numpy._op, "_api_internal"):
        INSTEAD.append((mx.nd.numpy._op._api_internal, "tensordot", _tensordot))


@functools.lru_cache(maxsize=None)
def operator_of(handle: int) -> Tuple[str, Tuple[str, ...], bool]:
    """An operator's name, the names of its array arguments, and whether it gives float32 where it
    is not told a dtype, by its C handle."""
    name, description, key = ctypes.c_char_p(), ctypes.c_char_p(), ctypes.c_char_p()
    count, kind = mx_uint(), ctypes.c_char_p()
    strings = [ctypes.POINTER(ctypes.c_char_p)() for _ in range(3)]
    check_call(
        _LIB.MXSymbolGetAtomicSymbolInfo(
            ctypes.c_void_p(handle),
            ctypes.byref(name),
            ctypes.byref(description),
            ctypes.byref(count),
            *map(ctypes.byref, strings),
            ctypes.byref(key),
            ctypes.byref(kind),
        )
    )
    names, types, _ = strings
    arguments = [(py_str(names[i]), py_str(types[i])) for i in range(count.value)]
    arrays = tuple(n for n, t in arguments if t.startswith(("NDArray", "Symbol")))
    single = any(n == "dtype" and "default='float32'" in t for n, t in arguments)
    return py_str(name.value), arrays, single


@functools.lru_cache(maxsize=None)
def handle_of(operator: str) -> int:
    """The C handle of an operator."""
    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    return int(handle.value or 0)


def new_tape(*more: str) -> Tape:
    """A tape for NDArrays; files in these folders are not the user's either."""
    return Tape(ByIdentity(), describe_array, (LIBRARY, *more), (MODELS,))


def describe_array(array: NDArray) -> Tuple[Tuple[int, ...], str]:
    return tuple(array.shape), np.dtype(array.dtype).name


def paths_of(net: Block) -> Dict[int, str]:
    """The path of every block, by its identity; the first one of a block with several."""
    paths = {id(net): ""}

    def walk(block: Block, path: str) -> None:
        for name, child in block._children.items():
            below = f"{path}.{name}" if path else name
            if paths.setdefault(id(child), below) == below:
                walk(child, below)

    walk(net, "")
    return paths


def named_parameters(net: Block) -> Dict[str, Any]:
    """A net's parameters by their structural names; those that have none by their own."""
    named = dict(net._collect_params_with_prefix())
    listed = {id(parameter) for parameter in named.values()}
    for name, parameter in net.collect_params().items():
        if id(parameter) not in listed:
            named[name] = parameter
    return named


def takes_numpy(net: Block) -> bool:
    """Whether a net is called with arrays of `mx.np`: `npx.set_np()` is on, or `use_np` decorates
    its class."""
    method: Any = type(net).forward
    names = []
    while hasattr(method, "__wrapped__"):
        names.append(method.__code__.co_name)
        method = method.__wrapped__
    return "_with_np_array" in names or bool(HAS_NUMPY and mx.util.is_np_array())


class ByIdentity(MutableMapping):
    """Values by the array that holds them; NDArray has no weak references, so a new array of a
    dead one's address is forgotten when it is made (see `Recorder.patched`)."""

    def __init__(self) -> None:
        self._values: Dict[int, Any] = {}

    def __getitem__(self, array: Any) -> Any:
        return self._values[id(array)]

    def __setitem__(self, array: Any, value: Any) -> None:
        self._values[id(array)] = value

    def __delitem__(self, array: Any) -> None:
        self._values.pop(id(array), None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@contextmanager
def imperative(net: Block) -> Iterator[None]:
    """Hybridised blocks run operator by operator in this context; their caches stay."""
    active: List[HybridBlock] = []

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


class Recorder:
    """Notes on a tape every operation that runs inside `patched`.

    `paths` are those of the blocks by their identity. How an operation runs, and what else is kept
    of it, is for subclasses: `run` and `note`.
    """

    def __init__(self, tape: Tape, paths: Mapping[int, str]) -> None:
        self.tape = tape
        self.paused = 0  # inside `autograd.pause()` of the net's own
        self._paths = paths
        self._thread = threading.get_ident()
        self._depth = 0  # inside a composite, whose own operations are not recorded
        # Of dropout that is switched off, by its block's identity
        self.rates: Dict[int, float] = {}

    def run(self, kind: str, arrays: Sequence[NDArray], call: Callable[..., Any]) -> Any:
        """What `call(arrays)` gives."""
        return call(arrays)

    def heeds_lengths(self, x: NDArray) -> bool:
        """Whether what is noted of a recurrent layer ends where its sequences do.

        MXNet 1.9.1 computes every step on a CPU.
        """
        return x.context.device_type == "gpu"

    def note(
        self,
        kind: str,
        attributes: Dict[str, Any],
        operands: Sequence[Tuple[str, NDArray]],
        out: Any,
        how: Tuple[Any, ...],
    ) -> int:
        """Put an operation that has run on the tape; `how` it ran is told in full."""
        stops = kind in ("BlockGrad", "detach") or bool(self.paused)
        outputs = list(flatten(out, NDArray))
        opaque = how[0] == "opaque"
        index = self.tape.add(
            kind, attributes, operands, outputs, opaque=opaque, stops_gradient=stops
        )
        self.keep(index, outputs)
        return index

    def keep(self, index: int, outputs: List[NDArray]) -> None:
        """What else is kept of an operation that is on the tape."""

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Record what runs in this context, in this thread."""
        initialise = NDArrayBase.__init__

        def forget(array: Any, *args: Any, **kwargs: Any) -> None:
            if threading.get_ident() == self._thread:
                self.tape.producers.pop(array, None)
            initialise(array, *args, **kwargs)

        patches = [
            mock.patch.object(NDArrayBase, "__init__", forget),
            mock.patch.object(register, "_imperative_invoke", self._invoke()),
            mock.patch.object(Block, "__call__", self._call()),
            mock.patch.object(SymbolBlock, "forward", self._symbol()),
            *self._pauses(),
        ]
        for owner, other in CLASSES.items():
            patches.append(mock.patch.object(owner, "__setitem__", self._assign(owner)))
            patches.append(mock.patch.object(owner, "__getitem__", self._index(owner)))
            if other:
                patches.append(mock.patch.object(owner, other, self._same(owner, other)))
        for owner, method, kind in UNSEEN:
            patches.append(mock.patch.object(owner, method, self._method(owner, method, kind)))
        for owner, name, seen in INSTEAD:
            patches.append(mock.patch.object(owner, name, seen))
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What runs in this context is not the net's."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @property
    def _recording(self) -> bool:
        return not self._depth and threading.get_ident() == self._thread

    def _invoke(self) -> Callable[..., Any]:
        original = register._imperative_invoke

        def invoke(handle: int, arrays: Sequence[NDArray], keys: Any, vals: Any, *rest: Any) -> Any:
            if not self._recording:
                return original(handle, arrays, keys, vals, *rest)
            name, roles, _ = operator_of(handle)
            operands = [(_role(roles, i), array) for i, array in enumerate(arrays)]
            values = [self.tape.value(array) for array in arrays]
            out = self.run(name, arrays, lambda xs: original(handle, list(xs), keys, vals, *rest))
            if rest[2:] == (True,) and isinstance(out, NDArray):
                out = [out]  # where another operator ran, whose caller wants a list
            # `out` may be one of the inputs, which had another value before
            for array, value in zip(arrays, values):
                self.tape.producers.setdefault(array, value)
            attributes = {str(key): str(value) for key, value in zip(keys, vals)}
            noted: Dict[str, Any] = dict(attributes)
            if name == "_copyto":  # a copy, or a cast
                noted["source"] = describe_array(arrays[0])[1]
            self.note(name, noted, operands, out, ("operator", handle, attributes, rest))
            return out

        return invoke

    def _pauses(self) -> List[Any]:
        """Notes where the net's own code switches recording for gradients off."""
        scope = mx.autograd._RecordingStateScope
        enter, leave = scope.__enter__, scope.__exit__

        def entered(self_: Any) -> Any:
            self.paused += self_._enter_is_record is False
            return enter(self_)

        def left(self_: Any, *args: Any) -> Any:
            self.paused -= self_._enter_is_record is False
            return leave(self_, *args)

        return [
            mock.patch.object(scope, "__enter__", entered),
            mock.patch.object(scope, "__exit__", left),
        ]

    def _method(self, owner: Any, method: str, kind: str) -> Callable[..., Any]:
        original = getattr(owner, method)

        @functools.wraps(original)
        def call(array: NDArray, *args: Any, **kwargs: Any) -> Any:
            if not self._recording:
                return original(array, *args, **kwargs)
            out = self.run(kind, [array], lambda xs: original(xs[0], *args, **kwargs))
            attributes: Dict[str, Any] = {"args": list(args)} if kind.startswith("_") else {}
            how = ("method", original, args, kwargs)
            self.note(kind, attributes, [("data", array)], out, how)
            return out

        return call

    def _same(self, owner: Any, method: str) -> Callable[..., Any]:
        """The method gives an array's values in another object, which comes from where it does."""
        original = getattr(owner, method)

        def call(array: NDArray) -> NDArray:
            known = self.tape.producers.get(array)
            out = original(array)
            if known is not None and threading.get_ident() == self._thread:
                self.tape.producers[out] = known
            return out

        return call

    def _index(self, owner: Any) -> Callable[..., Any]:
        """`x[key]` with arrays or lists in the key, as torch has it, is one operation."""
        original = owner.__getitem__

        def index(array: NDArray, key: Any) -> Any:
            written = written_key(key, NDArray) if self._recording else None
            if written is None:
                return original(array, key)
            arrays = list(flatten((array, key), NDArray))
            with self.unseen():
                out = self.run(
                    "_getitem", arrays, lambda xs: original(xs[0], substitute(key, iter(xs[1:])))
                )
            operands = [(f"key.{i}" if i >= 0 else "data", x) for i, x in enumerate(arrays, -1)]
            self.note("_getitem", {"key": written}, operands, out, ("index", original, key))
            return out

        return index

    def _assign(self, owner: Any) -> Callable[..., Any]:
        original = owner.__setitem__

        def assign(array: NDArray, key: Any, value: Any) -> None:
            recording = self._recording
            with self.unseen():
                original(array, key, value)
            if recording:
                operands = [("data", array)]
                operands += [("value", value)] if isinstance(value, NDArray) else []
                how = ("assignment", original, key, value)
                number = value if isinstance(value, (int, float)) else None
                attributes = {"key": spans(key, array.shape), "number": number}
                self.note("_setitem", attributes, operands, array, how)

        return assign

    def _call(self) -> Callable[..., Any]:
        original = Block.__call__

        def call(block: Block, *args: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(block, *args)
            path = self._paths.get(id(block))
            if path is None:  # made while the net runs, or held in a plain list
                path = (f"{self.tape.path}.{type(block).__name__}").lstrip(".")
            with self.tape.inside(path):
                if not isinstance(block, COMPOSITES) or self._depth:
                    return original(block, *args)
                arrays = list(flatten(args, NDArray))
                with self.unseen():
                    out = self.run(
                        type(block).__name__,
                        arrays,
                        lambda xs: original(block, *substitute(args, iter(xs))),
                    )
                operands = [(f"input.{i}", x) for i, x in enumerate(arrays)]
                operands += [(name, p.data()) for name, p in block._reg_params.items()]
                names = ("_mode", "_hidden_size", "_num_layers", "_dir", "_dropout", "_layout")
                attributes = {n.lstrip("_"): getattr(block, n) for n in names if hasattr(block, n)}
                if getattr(block, "_use_sequence_length", False):
                    last = len(arrays) - 1
                    if self.heeds_lengths(arrays[0]):
                        attributes["lengths"] = operands[last][0]
                    else:
                        del operands[last]
                if id(block) in self.rates:
                    attributes["dropout"] = self.rates[id(block)]
                self.note(type(block).__name__, attributes, operands, out, ("block", block, args))
                return out

        return call

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
            arrays = {symbol.name: array for symbol, array in zip(inputs, flat)}
            for name, parameter in block.params.items():
                arrays[name] = parameter.data(x.context)
            return _regrouped(iter(self._run_symbol(graph, arrays)), block._out_format)

        return forward

    def _run_symbol(self, graph: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> List[NDArray]:
        """A symbol's outputs, its nodes run one by one."""
        results: List[List[NDArray]] = []
        left = [0] * len(graph["nodes"])
        for node in graph["nodes"]:
            for edge in node["inputs"]:
                left[edge[0]] += 1
        for edge in graph["heads"]:
            left[edge[0]] += 1
        base = self.tape.path
        for node in graph["nodes"]:
            if node["op"] == "null":
                results.append([arrays[node["name"]]])
                continue
            operands = [results[edge[0]][edge[1]] for edge in node["inputs"]]
            attributes = {k: v for k, v in node.get("attrs", {}).items() if k[:2] != "__"}
            with self.tape.inside(f"{base}.{node['name']}".lstrip(".")):
                results.append(invoke(node["op"], operands, attributes))
            for edge in node["inputs"]:
                left[edge[0]] -= 1
                if not left[edge[0]]:
                    results[edge[0]] = []  # let go of what nothing reads any more
        return [results[edge[0]][edge[1]] for edge in graph["heads"]]

    def _opaque(self, block: SymbolBlock, run: Callable[..., Any], *args: Any) -> Any:
        out = run(block, *args)
        operands = [(f"input.{i}", x) for i, x in enumerate(flatten(args, NDArray))]
        operands += [(name, p.data()) for name, p in block.params.items()]
        self.note(type(block).__name__, {}, operands, out, ("opaque",))
        return out


# MXNet 1.5 asks neither whether arrays are of `mx.np` nor whether a list is wanted
NO_FLAGS = register._imperative_invoke.__code__.co_argcount == 5


def invoke(operator: str, arrays: Sequence[NDArray], attributes: Mapping[str, Any]) -> List[Any]:
    """The outputs of an operator of the C interface, as a list."""
    flags = () if NO_FLAGS else (False, True)
    keys, values = list(attributes), list(attributes.values())
    out = register._imperative_invoke(handle_of(operator), arrays, keys, values, None, *flags)
    return list(out) if isinstance(out, (list, tuple)) else [out]


def substitute(value: Any, arrays: Iterator[Any], leaf: Any = NDArray) -> Any:
    """Nested tuples and lists with other arrays in place of those of class `leaf`, in order."""
    if isinstance(value, leaf):
        return next(arrays)
    if isinstance(value, (tuple, list)):
        return type(value)([substitute(part, arrays, leaf) for part in value])
    return value


def _regrouped(arrays: Iterator[NDArray], form: Any) -> Any:
    """Arrays in the nesting that a block notes of its output: 0 is one array, n a list of n."""
    if isinstance(form, (list, tuple)):
        return [_regrouped(arrays, part) for part in form]
    if form < 0:
        return None
    return [next(arrays) for _ in range(form)] if form else next(arrays)


def _role(names: Sequence[str], position: int) -> str:
    if len(names) > 1 or (names and not position):
        return names[min(position, len(names) - 1)]
    return f"{names[0] if names else 'data'}.{position}"


class ValueRecorder(Recorder):
    """Keeps every output, and how each operand's gradient came back.

    MXNet has no gradient of intermediate arrays: a variable of zeros is added to each operand, and
    its gradient is the operand's. Adding 0 changes no value. Dropout passes its input on.
    """

    def __init__(
        self, tape: Tape, paths: Mapping[int, str], archive: Archive, gradients: bool
    ) -> None:
        super().__init__(tape, paths)
        self._archive = archive
        self._gradients = gradients
        self._latest: List[Any] = []
        self.probes: List[Tuple[int, int, NDArray]] = []

    def run(self, kind: str, arrays: Sequence[NDArray], call: Callable[..., Any]) -> Any:
        self._latest = [None] * len(arrays)
        if kind == "Dropout" and mx.autograd.is_training():
            call = self._copied
        if not self._gradients or self.paused:
            return call(arrays)
        passed = []
        with self.unseen():
            for i, x in enumerate(arrays):
                known = self.tape.producers.get(x, ("constant",))
                if i in UNWRITTEN.get(kind, ()):
                    x = x.detach()
                elif known[0] in ("operation", "input") and np.dtype(x.dtype).kind == "f":
                    zeros = mx.nd.zeros(x.shape, ctx=x.context, dtype=x.dtype)
                    zeros.attach_grad()
                    self._latest[i] = zeros
                    x = x + (zeros if type(x) is NDArray else zeros.as_np_ndarray())
                passed.append(x)
        return call(passed)

    def _copied(self, arrays: Sequence[NDArray]) -> Any:
        with self.unseen():
            x = arrays[0]
            if type(x) is NDArray:
                return mx.nd.identity(x)
            return mx.nd.identity(x.as_nd_ndarray()).as_np_ndarray()

    def keep(self, index: int, outputs: List[NDArray]) -> None:
        for i, y in enumerate(outputs):
            self._archive.add(f"{index}.{i}", y.asnumpy())
        for i, zeros in enumerate(self._latest):
            if zeros is not None:
                self.probes.append((index, i, zeros))
        self._latest = []


def record_pass(net: Block, inputs: Sequence[NDArray], folder: str, train: bool) -> None:
    """Write one pass of the net: `inference` or `training`, `.json` and `.npz`."""
    name = "training" if train else "inference"
    tape = new_tape()
    named = named_parameters(net)
    contexts = {p.list_ctx()[0] for p in named.values()} or {inputs[0].context}
    context = next(iter(contexts))
    recurrent: List[Block] = []
    net.apply(lambda block: recurrent.append(block) if hasattr(block, "_dropout") else None)
    with Archive(os.path.join(folder, name + ".npz")) as archive, ExitStack() as stack:
        recorder = ValueRecorder(tape, paths_of(net), archive, train)
        recorder.rates = {id(block): block._dropout for block in recurrent}
        for block in recurrent:
            stack.enter_context(mock.patch.object(block, "_dropout", 0))
        stack.enter_context(imperative(net))
        for key, parameter in named.items():
            tape.add_parameter(key, parameter.data(context))
        for array in inputs:
            tape.add_input(array)
        scope = mx.autograd.record(train_mode=True) if train else mx.autograd.pause()
        with scope, recorder.patched():
            outputs = list(flatten(net(*inputs), NDArray))
            with recorder.unseen():
                ends = [y + 0 for y in outputs] if train else []
        if train:
            heads = head_gradients(outputs)
            # through a cast MXNet would send a gradient back from whole numbers
            sent = [i for i, y in enumerate(ends) if np.dtype(y.dtype).kind == "f"]
            if sent:
                grads = [mx.nd.array(heads[i], ctx=context, dtype=ends[i].dtype) for i in sent]
                mx.autograd.backward([ends[i] for i in sent], grads)
            for i, gradient in enumerate(heads):
                archive.add(f"head.{i}", gradient)
            for index, position, zeros in recorder.probes:
                archive.add(f"{index}.gradient.{position}", zeros.grad.asnumpy())
            for key in tape.parameters:
                if named[key].grad_req != "null":
                    archive.add("gradient." + key, named[key].grad(context).asnumpy())
                else:
                    archive.add("after." + key, named[key].data(context).asnumpy())
        for key, constant in tape.constants.items():
            archive.add("constant." + key, constant.asnumpy())
    write_json(folder, name + ".json", tape.graph(outputs, train))


def load(args: Any, inputs: Sequence[NDArray], context: Any) -> Block:
    """The net that the command names, with its values."""
    if args.symbol:
        if not args.params:
            raise RecordError("--symbol needs --params, the file of its values")
        symbol = mx.sym.load(args.symbol)
        held = {name.split(":", 1)[-1] for name in mx.nd.load(args.params)}
        names = [name for name in symbol.list_inputs() if name not in held][: len(inputs)]
        return SymbolBlock.imports(args.symbol, names, args.params, ctx=context)
    net = describe_factory(args.net or "")
    if not isinstance(net, Block):
        raise RecordError(f"{args.net} gives a {type(net).__name__}, expected a Gluon block")
    if args.params:
        net.load_parameters(args.params, ctx=context)
    named = named_parameters(net)
    if any(p._data is None and not p._deferred_init for p in named.values()):
        sys.stderr.write("the net has no values yet: initialised by Xavier()\n")
        net.initialize(mx.init.Xavier(), ctx=context)
    net.collect_params().reset_ctx(context)
    return net


def record(args: Any, inputs: Sequence[Any], folder: str) -> Dict[str, Any]:
    """Record a net in inference and in training; what a reader has to know of it."""
    context = mx.Context(*_device(args.ctx))
    mx.random.seed(args.seed)
    random.seed(args.seed)
    np.random.seed(args.seed)
    arrays = [mx.nd.array(x, ctx=context, dtype=x.dtype) for x in inputs]
    net = load(args, arrays, context)
    if takes_numpy(net):
        arrays = [x.as_np_ndarray() for x in arrays]
    try:
        with mx.autograd.pause():
            net(*arrays)  # settles the shapes that wait for an input
        mx.nd.waitall()  # oneDNN lays weights out anew in inference, while `asnumpy` reads them
    except Exception as error:  # a user's net may raise anything
        raise RecordError(f"the net does not run on these inputs: {reason_of(error)}") from error
    named = named_parameters(net)
    kinds = {np.dtype(p.dtype).name for p in named.values()} - {"float32", "int32", "int64"}
    if kinds:
        raise RecordError(f"the net computes in {kinds.pop()}; call net.cast('float32')")
    trainable = [key for key, p in named.items() if p.grad_req != "null"]
    with Archive(os.path.join(folder, "parameters.npz")) as archive:
        for key, parameter in named.items():
            archive.add(key, parameter.data(parameter.list_ctx()[0]).asnumpy())
    record_pass(net, arrays, folder, False)
    refused = ""
    try:
        record_pass(net, arrays, folder, True)
    except Exception as error:  # nor must it train
        refused = reason_of(error)
        for ending in (".npz", ".json"):
            path = os.path.join(folder, "training" + ending)
            if os.path.exists(path):
                os.remove(path)
    return {
        "side": "gluon",
        "versions": {"mxnet": mx.__version__},
        "device": str(context),
        "trainable": trainable,
        "untrained": refused,
    }


def reason_of(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = bool(lines) and lines[0].startswith("Traceback")
    told = lines[-1 if last else 0] if lines else "no reason given"
    return f"{type(error).__name__}: {told}"


def _device(text: str) -> Tuple[str, int]:
    name, _, number = text.rstrip(")").partition("(")
    if name not in ("cpu", "gpu") or not (number or "0").isdigit():
        raise RecordError(f"--ctx is {text!r}, expected cpu(0) or gpu(0)")
    return name, int(number or 0)


def extend(parser: Any) -> None:
    parser.add_argument("--params", default="", metavar="FILE", help="values of the net")
    parser.add_argument("--symbol", default="", metavar="FILE", help="an exported net's symbol")
    parser.add_argument("--ctx", default="cpu(0)", metavar="DEVICE", help="cpu(0) or gpu(0)")


if __name__ == "__main__":
    sys.exit(main(record, extend))
