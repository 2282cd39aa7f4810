"""The files of an exported net, and what each way of opening them computes.

Each way brings back `Opened`: the net's outputs from the files as they are, the values of single
nodes, and the parameters it holds. In a `stream` every node has its predecessors' values, in
`alone` it has given ones.

Framework specific (mxnet, onnx, openvino, torch): each opens files in its own way.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import torch
from mxnet import gluon
from mxnet.gluon import HybridBlock

from cnn_harness.errors import CommandError
from gluon_cnn.export import write_symbol
from gluon_cnn.exporting.onnx_file import require_onnx, write_onnx
from mxnet_files import load_symbol
from mxnet_files.checking.local import Walker
from mxnet_files.checking.oracle import Oracle, unfused
from mxnet_files.running import in_float64, onnx_session
from parity_tests.backends.gluon import clones as gluon_clones
from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.runs import Arrays
from parity_tests.levels.artefacts.graphs import Entry, Graph, inputs_of, stand_in
from parity_tests.reporting.verdicts import Check

Values = dict[Entry, np.ndarray]


@dataclass
class Workspace:
    """Where the files are, and what they are run on."""

    folder: Path
    inputs: Mapping[str, np.ndarray]  # by the graph's name, float32 or integers
    stand_ins: Values = field(default_factory=dict)  # float32, what nodes run alone read

    @property
    def symbol(self) -> Path:
        return self.folder / "net-symbol.json"

    @property
    def params(self) -> Path:
        return self.folder / "net-0000.params"

    @property
    def onnx(self) -> Path:
        return self.folder / "net.onnx"

    def graph(self) -> Graph:
        """What the symbol file holds now."""
        return Graph(json.loads(self.symbol.read_text(encoding="utf-8")))


@dataclass
class Opened:
    """What one way of opening the files found; an entry it cannot show is not in the values."""

    outputs: list[np.ndarray]
    stream: Values = field(default_factory=dict)
    alone: Values = field(default_factory=dict)
    double: Values = field(default_factory=dict)  # alone, in float64
    parameters: dict[str, np.ndarray] = field(default_factory=dict)


def write_files(net: HybridBlock, inputs: Arrays, folder: Path) -> tuple[Workspace, str]:
    """Export a copy of the net as `gluon_cnn.export` does; and why there is no ONNX file, if so."""
    copied = gluon_clones.clone(net, "float32", gradients=False)
    copied.hybridize()
    arrays = [gluon_clones.ndarray(x, "float32") for x in inputs]
    outputs = gluon_side.flat(copied(*arrays))
    write_symbol(copied, folder / "net")
    names = inputs_of(len(inputs))
    space = Workspace(folder, {n: x.asnumpy() for n, x in zip(names, arrays, strict=True)})
    return space, _write_onnx(space, len(outputs))


def _write_onnx(space: Workspace, outputs: int) -> str:
    if len(space.inputs) > 1 or outputs > 1:
        return "an ONNX file is written for nets with one input and one output"
    try:
        require_onnx()
        symbol, params = mx.sym.load(str(space.symbol)), mx.nd.load(str(space.params))
        (shape,) = (x.shape[1:] for x in space.inputs.values())
        write_onnx(symbol, {key[4:]: array for key, array in params.items()}, shape, space.onnx)
    except CommandError as error:
        return str(error)
    except Exception as error:  # the converter has no translation for an operator, or a bad one
        reason = str(error).strip().splitlines() or ["no reason given"]
        return f"MXNet's ONNX converter: {type(error).__name__}: {reason[-1]}"
    return ""


def mxnet_alone(
    graph: Graph, arrays: Mapping[str, np.ndarray], space: Workspace, dtype: str
) -> Values:
    """Every node of a graph run by MXNet on the given values."""
    cut = graph.cut()
    values = {stand_in(entry): value for entry, value in space.stand_ins.items()}
    known = {node["name"] for node in cut.document["nodes"]}
    for entry in graph.entries:  # a node that the live net does not have
        if stand_in(entry) in known and stand_in(entry) not in values:
            raise ValueError(f"the net has no node {entry[0]}")
    outputs = bound(cut, arrays, {**space.inputs, **values}, dtype)
    return dict(zip(graph.entries, outputs, strict=True))


def bound(
    graph: Graph, arrays: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], dtype: str
) -> list[np.ndarray]:
    """A graph's outputs by MXNet, operator by operator: oneDNN may not fuse."""
    return Oracle(json.dumps(graph.document), arrays, inputs, dtype).forward()


def open_symbol_block(space: Workspace) -> Opened:
    """`SymbolBlock.imports`; its nodes from the same files with every node as an output."""
    x = [gluon_clones.as_is(value) for value in space.inputs.values()]
    net = _imports(space, space.symbol)
    graph = space.graph()
    opened = space.folder / "opened-symbol.json"
    opened.write_text(json.dumps(graph.opened().document), encoding="utf-8")
    stream = gluon_side.flat(_imports(space, opened)(*x))
    return Opened(
        [y.asnumpy() for y in gluon_side.flat(net(*x))],
        dict(zip(graph.entries, (y.asnumpy() for y in stream), strict=True)),
        parameters={name: p.data().asnumpy() for name, p in net.collect_params().items()},
    )


def _imports(space: Workspace, symbol: Path) -> gluon.SymbolBlock:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
        names = list(space.inputs)
        return gluon.SymbolBlock.imports(str(symbol), names, str(space.params), ctx=mx.cpu())


def open_module(space: Workspace) -> Opened:
    """`mx.mod.Module`, which lets oneDNN fuse; its nodes from a graph that has them as outputs."""
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(space.folder / "net"), 0)

    def run(symbol: mx.sym.Symbol) -> list[np.ndarray]:
        shapes = [mx.io.DataDesc(n, x.shape, x.dtype) for n, x in space.inputs.items()]
        names = list(space.inputs)
        module = mx.mod.Module(symbol, data_names=names, label_names=None, context=mx.cpu())
        module.bind(shapes, for_training=False)
        module.set_params(arg_params, aux_params)
        batch = mx.io.DataBatch([gluon_clones.as_is(x) for x in space.inputs.values()])
        module.forward(batch, is_train=False)
        return [y.asnumpy() for y in module.get_outputs()]

    graph = space.graph()
    opened = mx.sym.load_json(json.dumps(graph.opened().document))
    with unfused():
        stream = dict(zip(graph.entries, run(opened), strict=True))
    held = {name: array.asnumpy() for name, array in {**arg_params, **aux_params}.items()}
    return Opened(run(symbol), stream, parameters=held)


# The model, its inputs, and the outputs wanted, by name; None: its own
_Run = Callable[[Any, dict[str, np.ndarray], list[str] | None], list[np.ndarray]]


def _open_onnx(run: _Run, space: Workspace) -> Opened:
    """An engine for ONNX files; its nodes in one run of a model that is cut at every one."""
    import onnx

    model = onnx.load(str(space.onnx))
    feeds = {name: x.astype(np.float32) for name, x in space.inputs.items()}
    outputs = run(model, feeds, None)
    parameters = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    names = _tensors(model, space)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = stand_in(names[name])
    del model.graph.output[:]
    read = {name for node in model.graph.node for name in node.input}
    for name, entry in names.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(space.stand_ins[entry].dtype)
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        if stand_in(entry) in read:
            shape = space.stand_ins[entry].shape  # OpenVINO converts nothing of unknown rank
            value = onnx.helper.make_tensor_value_info(stand_in(entry), kind, shape)
            model.graph.input.append(value)
            feeds[stand_in(entry)] = space.stand_ins[entry]
    read |= set(names)
    feeds = {name: value for name, value in feeds.items() if name in read}
    of_nodes = run(model, feeds, list(names))
    alone = dict(zip(names.values(), of_nodes, strict=True))
    return Opened(outputs, alone=alone, parameters=parameters)


def _onnx_runtime(
    model: Any, feeds: dict[str, np.ndarray], names: list[str] | None
) -> list[np.ndarray]:
    return list(onnx_session(model.SerializeToString()).run(names, feeds))


def _openvino(
    model: Any, feeds: dict[str, np.ndarray], names: list[str] | None
) -> list[np.ndarray]:
    import openvino

    core = openvino.Core()
    read = core.read_model(io.BytesIO(model.SerializeToString()))
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # it may take bfloat16 where there is some
    results = core.compile_model(read, "CPU", options)(feeds)
    return [
        np.array(results[name]) for name in names or [value.name for value in model.graph.output]
    ]


def _tensors(model: Any, space: Workspace) -> dict[str, Entry]:
    """The converter's name for each entry that the ONNX graph computes."""
    computed = {name for node in model.graph.node for name in node.output}
    tensors = {}
    for name, index in space.stand_ins:
        for called in (name, f"{name}{index}"):
            if called in computed and (called != name or index == 0):
                tensors[called] = (name, index)
                break
    return tensors


def open_torch(space: Workspace) -> Opened:
    """`mxnet_files`; every node alone in float32 and in float64."""
    module = load_symbol(space.symbol, space.params)
    names = module.meta["mxnet_inputs"].values()
    x = [torch.from_numpy(space.inputs[name]) for name in names if name in space.inputs]
    state = module.state_dict()
    held = {n: state[path].numpy().copy() for path, n in module.meta["mxnet_names"].items()}
    labels = space.graph().names
    alone = Alone(module, labels, space.stand_ins)
    double = Alone(in_float64(module), labels, space.stand_ins)
    with torch.no_grad():
        outputs = module(*x)
        alone.run(*x)
        double.run(*(value.double() if value.is_floating_point() else value for value in x))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return Opened(
        [y.numpy() for y in outputs], alone=alone.results, double=double.results, parameters=held
    )


class EntryWalker(Walker):
    """Runs an imported graph, and knows the graph's entry of each of its nodes."""

    def __init__(self, module: Any, names: list[str]) -> None:
        super().__init__(module)
        self.names = names

    def entry(self, n: torch.fx.Node) -> Entry:
        return self.names[n.meta["mxnet_number"]], n.meta["mxnet"][2]


class Alone(EntryWalker):
    """Every node on given values, in the dtype of the module."""

    def __init__(self, module: Any, names: list[str], values: Values) -> None:
        super().__init__(module, names)
        self.values = values
        self.results: Values = {}

    def seen(self, n: torch.fx.Node, result: Any) -> Any:
        entry = self.entry(n)
        if entry not in self.values or not isinstance(result, torch.Tensor):
            return None
        self.results[entry] = result.numpy()
        return torch.from_numpy(self.values[entry]).to(result.dtype)


WAYS: dict[Check, Callable[[Workspace], Opened]] = {
    Check.SYMBOL_BLOCK: open_symbol_block,
    Check.MODULE: open_module,
    Check.ONNX_RUNTIME: partial(_open_onnx, _onnx_runtime),
    Check.OPENVINO: partial(_open_onnx, _openvino),
    Check.TORCH_IMPORT: open_torch,
}
OF_ONNX = (Check.ONNX_RUNTIME, Check.OPENVINO)  # the ways that read the ONNX file
