"""NAME.onnx: MXNet's own converter, then what it leaves undone.

The converter (`mx.onnx`) covers opsets 12 and 13, but stamps the newest opset of the installed
onnx on the file, declares every parameter as an input of the graph, leaves the output's shape
unknown, and writes nodes that do nothing. Here the file says 13, asks for the images alone, has a
batch of any size, and computes no more than the net.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

import mxnet_compat
from cnn_harness.errors import CommandError, MissingExtra
from gluon_cnn.exporting.exported import INPUT

OPSET = 13
IR_VERSION = 7  # of onnx 1.8, the first release with opset 13: old runtimes read it
BATCH = "batch"  # the name of the axis that has no size
LARGEST = 2**31 - 2**20  # bytes; protobuf cannot write a message of 2 GiB

INSTALL = "install both with pip install -e '.[cpu,onnx]'"


def require_onnx() -> None:
    """Raise unless onnx, of a release that MXNet knows, and onnxruntime are there.

    Raises: MissingExtra where one of them is missing; CommandError for another release.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"--onnx needs onnx and onnxruntime, and {error.name} cannot be imported: {INSTALL}"
        ) from error
    if not hasattr(onnx, "mapping") and not mxnet_compat.helps():
        raise CommandError(
            f"--onnx needs onnx before 1.18 where mxnet was imported before gluon_cnn; this is "
            f"{onnx.__version__}: import gluon_cnn, or mxnet_compat, first"
        )


def write_onnx(
    symbol: mx.sym.Symbol,
    params: Mapping[str, mx.nd.NDArray],
    input_shape: tuple[int, ...],
    path: Path,
) -> None:
    """Convert a symbol with one input and one output; `input_shape` is its
    shape without the batch.

    `params` go by the symbol's names. Raises: CommandError where an operator has no translation,
    or the file would be too large.
    """
    import onnx

    size = sum(array.size * np.dtype(array.dtype).itemsize for array in params.values())
    if size > LARGEST:
        raise CommandError(
            f"{path.name} would hold {size:,} bytes of parameters, an ONNX file at most "
            f"{LARGEST:,}: export without --onnx"
        )
    shape = (BATCH, *input_shape)
    symbol = _distinct(symbol)
    try:
        with _own_translations():
            mx.onnx.export_model(
                symbol, dict(params), [(1, *input_shape)], np.float32, str(path),
                dynamic=True, dynamic_input_shapes=[shape],
            )  # fmt: skip
    except (AttributeError, NotImplementedError) as error:  # what the converter raises then
        raise CommandError(f"{path.name}: MXNet's ONNX converter: {error}") from error
    model = onnx.load(str(path))
    _, (output_shape,), _ = symbol.infer_shape(**{INPUT: (1, *input_shape)})
    _leave_out(model.graph, _matrices(symbol, input_shape))
    _finish(model, path.stem, (BATCH, *output_shape[1:]))
    onnx.save(model, str(path))


def _distinct(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The same graph with a name of its own for every node.

    A layer that is called twice has two nodes of one name, and the converter then takes the first
    for the graph's output.
    """
    document = json.loads(symbol.tojson())
    seen: set[str] = set()
    for number, node in enumerate(document["nodes"]):
        if node["name"] in seen:
            node["name"] = f"idx_{number}_{node['name']}"  # as the converter calls it
        seen.add(node["name"])
    return mx.sym.load_json(json.dumps(document))


@contextmanager
def _own_translations() -> Iterator[None]:
    """While open, the converter leaves parameters as they are, under their own names."""
    from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph
    from onnx import helper, numpy_helper

    theirs = MXNetGraph.registry_[12]
    ours = MXNetGraph.registry_.setdefault(OPSET, {})  # looked up before 12

    def variable(node: Mapping[str, Any], **kwargs: Any) -> Any:
        # Theirs goes by Python floats, one for each weight: 5 GB and half a minute for VGG16.
        if kwargs["is_input"]:
            return theirs["null"](node, **kwargs)
        tensor = numpy_helper.from_array(kwargs["weights"][node["name"]], node["name"])
        kwargs["initializer"].append(tensor)
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        return [value], (kwargs["weights"][node["name"]].dtype,)

    def mul_scalar(node: Mapping[str, Any], **kwargs: Any) -> Any:
        # Theirs folds a parameter times a number into a new one, if it sees the parameter.
        new: list[Any] = []
        converted = theirs["_mul_scalar"](node, **{**kwargs, "initializer": new})
        kwargs["initializer"].extend(new)
        return converted

    def batch_norm(node: Mapping[str, Any], **kwargs: Any) -> Any:
        # Theirs reads no fix_gamma, which counts every gamma as 1 whatever is stored.
        converted = theirs["BatchNorm"](node, **kwargs)
        gamma = kwargs["weights"].get(converted[0].input[1])
        fixed = node.get("attrs", {}).get("fix_gamma", "True") in ("True", "true", "1")
        if fixed and gamma is not None and (gamma != 1).any():
            ones = numpy_helper.from_array(np.ones_like(gamma), f"{node['name']}_fixed_gamma")
            kwargs["initializer"].append(ones)
            converted[0].input[1] = ones.name
        return converted

    def lrn(node: Mapping[str, Any], **kwargs: Any) -> Any:
        # Theirs takes 1 for knorm where the symbol leaves it out, and MXNet 2.
        attributes = {"knorm": "2", **node.get("attrs", {})}
        return theirs["LRN"]({**node, "attrs": attributes}, **kwargs)

    own = {"null": variable, "_mul_scalar": mul_scalar, "BatchNorm": batch_norm, "LRN": lrn}
    ours.update(own)
    try:
        yield
    finally:
        for name in own:
            del ours[name]


def _matrices(symbol: mx.sym.Symbol, input_shape: tuple[int, ...]) -> set[str]:
    """The nodes whose output has two axes, by the names that the converter gives their outputs."""
    inside = symbol.get_internals()
    _, shapes, _ = inside.infer_shape(**{INPUT: (1, *input_shape)})
    names = (name.removesuffix("_output") for name in inside.list_outputs())
    return {name for name, shape in zip(names, shapes, strict=True) if len(shape) == 2}


def _leave_out(graph: Any, matrices: set[str]) -> None:
    """Take out nodes that give what they are given: dropout, and before a dense layer the
    converter's own flattening of a matrix, which costs ONNX Runtime 3 % of LeNet on one image."""
    given: dict[str, str] = {}  # by each such node to those that read it
    kept = []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        node.input[:] = [given.get(name, name) for name in node.input]
        output = node.output[0]
        flat = node.op_type == "Flatten" and node.input[0] in matrices and output not in matrices
        if (flat or node.op_type == "Identity") and output not in outputs:
            given[output] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _finish(model: Any, name: str, output_shape: tuple[str | int, ...]) -> None:
    """Set what the converter does not: opset, inputs, the output's shape, names of its origin."""
    from onnx import helper

    graph = model.graph
    del model.opset_import[:]
    model.opset_import.append(helper.make_operatorsetid("", OPSET))
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "mxnet", mx.__version__
    graph.name = name
    _keep(graph.input, {INPUT})
    _keep(graph.initializer, {used for node in graph.node for used in node.input})
    (output,) = graph.output
    output.CopyFrom(
        helper.make_tensor_value_info(
            output.name, output.type.tensor_type.elem_type, list(output_shape)
        )
    )


def _keep(values: Any, names: set[str]) -> None:
    for index in reversed(range(len(values))):
        if values[index].name not in names:
            del values[index]


def check_onnx(path: Path, params: Mapping[str, np.ndarray], input_shape: tuple[int, ...]) -> str:
    """Check a written file by onnx's own checker and by what it promises; the output's name.

    Raises: CommandError saying which promise it breaks.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CommandError(f"{path.name} fails onnx.checker: {error}") from error
    model = onnx.load(str(path))
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    _require(opsets == [("", OPSET)], path, f"has the opsets {opsets}, expected {OPSET} alone")
    inputs = {value.name: _shape(value) for value in model.graph.input}
    wanted = {INPUT: (BATCH, *input_shape)}
    _require(inputs == wanted, path, f"has the inputs {inputs}, expected {wanted}")
    _require(len(model.graph.output) == 1, path, "does not have one output")
    output = model.graph.output[0]
    _require(_shape(output)[:1] == (BATCH,), path, f"has an output of {_shape(output)}")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, array in params.items():
        _require(name in stored, path, f"lacks the parameter {name}")
        same = onnx.numpy_helper.to_array(stored[name])
        _require(
            same.dtype == array.dtype and np.array_equal(same, array),
            path,
            f"holds another {name} than the net",
        )
    return output.name


def _shape(value: Any) -> tuple[str | int, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _require(good: bool, path: Path, fault: str) -> None:
    if not good:
        raise CommandError(f"{path.name} {fault}")
