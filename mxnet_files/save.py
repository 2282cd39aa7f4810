"""An imported module as a file: a torch.export program, ONNX."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx
from torch.nn import functional

from gluon_cnn_parity.atomic import replacing_file
from mxnet_files.budget import Budget, rehearse
from mxnet_files.errors import SymbolError
from mxnet_files.functions import mx_nn
from mxnet_files.running import onnx_session, refusals, run

TOLERANCE = 1e-4  # of the largest value: of float32 more than most graphs lose
IN_FLOAT64 = 1e-10  # of graphs in float64 alone
HALVES = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # by their unit
ROUNDINGS = 8  # units that two ways of computing a graph in half precision may lie apart
OPSETS = (20, 17, 13)  # torch writes 20 at most; older runtimes and some graphs need less
IR_VERSION = 9  # of the files that torch writes
MOST_CONVERTED = 256 * 2**20  # bytes of a file that is tried in newer opsets
ONNX_RUNTIME = "ONNX Runtime"
# MXNet's operators that torch's exporter cannot write, ONNX Runtime not run in any dtype, or that
# are wrong in ONNX (`arctan2` by a quotient: NaN at the origin)
WITHOUT_ONNX = {
    "CTCLoss", "_contrib_quantized_batch_norm", "_contrib_quantized_conv", "_hypot",
    "_hypot_scalar", "_linalg_gelqf", "_linalg_inverse", "_linalg_potrf", "_linalg_potri",
    "_linalg_slogdet", "_linalg_syevd", "_linalg_trsm", "_npi_arccosh", "_npi_arcsinh",
    "_npi_arctan2", "_npi_arctan2_scalar", "_npi_arctanh", "_npi_bitwise_not", "_npi_bitwise_or",
    "_npi_bitwise_or_scalar", "_npi_bitwise_xor", "_npi_bitwise_xor_scalar", "_npi_cbrt",
    "_npi_cholesky", "_npi_column_stack", "_npi_cosh", "_npi_expm1", "_npi_fix", "_npi_hypot",
    "_npi_lcm", "_npi_lcm_scalar", "_npi_percentile", "_npi_rarctan2_scalar", "_npi_sinh",
    "_npi_solve", "_npi_trunc", "_sg_mkldnn_conv", "_sg_mkldnn_fully_connected", "arccosh",
    "arcsinh", "arctanh", "cbrt", "cosh", "erfinv", "expm1", "fix", "gammaln", "rcbrt", "sinh",
    "trunc",
}  # fmt: skip
NOT_RUN = "nothing: onnxruntime is not installed"  # what an ONNX file was compared with


def save_program(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    path: str | os.PathLike[str],
    budget: Budget | None = None,
) -> str:
    """Write a torch.export program whose batch size is free where the graph allows.

    The file is read back and compared with the module before it takes its place. Returns the
    shape of the first input, such as `batch×3×224×224`. Raises `SymbolError` if the module cannot
    run on such inputs, or passes the budget.
    """
    data, shape = program_bytes(module, inputs, budget)
    write_files({path: data})
    return shape


def write_files(files: Mapping[str | os.PathLike[str], bytes]) -> None:
    """All of the files, or none: each is whole on the disk before the first takes its place."""
    with ExitStack() as parts:
        for path, data in files.items():
            parts.enter_context(replacing_file(path)).write_bytes(data)


def program_bytes(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> tuple[bytes, str]:
    """What `save_program` writes, and the shape it returns."""
    rehearse(module, inputs, budget)
    expected = run(module, inputs)
    buffer = io.BytesIO()
    with refusals("torch.export cannot write this graph"):
        program = export_program(module, inputs, budget)
        torch.export.save(program, buffer)
        buffer.seek(0)
        found = run(torch.export.load(buffer).module(), inputs)
        same(expected, found, "torch.export program", tolerance(module, inputs))
    first = next(node for node in program.graph.nodes if node.name in user_inputs(program))
    sizes = first.meta["val"].shape
    shape = "×".join(str(size) if isinstance(size, int) else "batch" for size in sizes)
    return buffer.getvalue(), shape


def user_inputs(program: Any) -> set[str]:
    """Names of the inputs that are neither parameters nor buffers."""
    return set(program.graph_signature.user_inputs)


def export_program(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> Any:
    """torch.export with the batch axis free, or fixed where the graph fixes it."""
    if not batch_is_free(module, inputs, budget):
        return torch.export.export(module, tuple(inputs))
    # torch.export takes sizes of 1 for fixed ones, so the example has a batch of 2 or more
    free = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    return torch.export.export(module, doubled(inputs), dynamic_shapes=free)


def doubled(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same inputs with twice the batch."""
    return tuple(torch.cat([x, x]) for x in inputs)


def batch_is_free(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> bool:
    """Twice the batch gives the same outputs twice, within the budget; () has no batch.

    Raises `SymbolError` for a graph without inputs, which is no program.
    """
    if not inputs:
        raise SymbolError(
            "the graph takes no input: what it gives are arrays, which load_symbol(…)() returns"
        )
    if any(x.dim() == 0 for x in inputs):
        return False
    try:
        rehearse(module, doubled(inputs), budget)
        pairs = list(zip(run(module, inputs), run(module, doubled(inputs)), strict=True))
        with refusals("batch"):
            twice = [torch.cat([a, a]) for a, _ in pairs]
            same(twice, [b for _, b in pairs], "batch", tolerance(module, inputs))
    except SymbolError:
        return False
    return True


def save_onnx(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    path: str | os.PathLike[str],
    budget: Budget | None = None,
) -> str:
    """Write ONNX, the batch axis free where the graph allows; says what verified it.

    Uses torch's TorchScript-based exporter, which needs `onnx`. Where `onnxruntime` is installed,
    the file is run before it takes its place; its numbers are verified only where `ONNX_RUNTIME`
    is among what it says. The opset is the newest in which ONNX Runtime computes the same; without
    it, the newest of `OPSETS` that torch writes this graph in.
    """
    data, _, verified = onnx_bytes(module, inputs, budget)
    write_files({path: data})
    return verified


def onnx_bytes(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> tuple[bytes, int, str]:
    """What `save_onnx` writes, its opset, and what it says."""
    if lacking := without_onnx(module):
        named = ", ".join(lacking)
        raise SymbolError(f"no ONNX form of {named}: torch's exporter or ONNX Runtime lacks it")
    rehearse(module, inputs, budget)
    free = batch_is_free(module, inputs, budget)
    refused: SymbolError | None = None
    for opset in OPSETS:
        try:
            return onnx_of_opset(module, inputs, opset, free=free)
        except SymbolError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def without_onnx(module: fx.GraphModule) -> list[str]:
    """The operators of `WITHOUT_ONNX` that a graph has, each with the first of its nodes."""
    found: dict[str, str] = {}
    for part in module.modules():  # it, and the bodies of its loops
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            name, where, _ = node.meta.get("mxnet", ("", "", 0))
            if name in WITHOUT_ONNX:
                found.setdefault(name, f"{name} ({where})")
    return list(found.values())


def onnx_of_opset(
    module: fx.GraphModule, inputs: Sequence[Tensor], opset: int, *, free: bool
) -> tuple[bytes, int, str]:
    """ONNX of one opset, the batch axis free or fixed."""
    names = list(module.meta["mxnet_inputs"])[: len(inputs)]
    outputs = [f"output{place}" for place in range(len(run(module, inputs)))]
    axes = {name: {0: "batch"} for name in [*names, *outputs]} if free else None
    buffer: Any = io.BytesIO()
    with (
        warnings.catch_warnings(),
        refusals("torch cannot write this graph as ONNX"),
        patch.object(mx_nn, "sum_pool", _sums_by_convolution),
        patch.object(torch._C, "_jit_onnx_log", _nothing, create=True),  # prints what it refuses
        sorts_by_top_k(),
    ):
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            module,
            tuple(inputs),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
        )
    trial = doubled(inputs) if free else inputs
    given = dict(zip(names, trial, strict=True))
    near = tolerance(module, inputs)
    data = with_inputs(buffer.getvalue(), given, free=free)
    with refusals("the ONNX file that torch writes of this graph is wrong"):
        verified, known = verify_onnx(data, given, run(module, trial), near)
        if (others := in_other_places(module, inputs)) is not None:  # and in another batch
            mixed, expected = others
            verify_onnx(data, dict(zip(names, mixed, strict=True)), expected, near)
    if ONNX_RUNTIME in verified:
        return *in_newest_opset(data, opset, given, known), verified
    return data, opset, verified


def in_other_places(
    module: fx.GraphModule, inputs: Sequence[Tensor]
) -> tuple[list[Tensor], tuple[Tensor, ...]] | None:
    """The same values mixed, and what they give: a trace may hold what it was made with.

    None if they cannot run.
    """
    generator = torch.Generator().manual_seed(0)
    places = [torch.randperm(x.numel(), generator=generator).view(x.shape) for x in inputs]
    mixed = [x.take(place) for x, place in zip(inputs, places, strict=True)]
    try:
        return mixed, run(module, mixed)
    except SymbolError:
        return None


def with_inputs(data: bytes, inputs: Mapping[str, Tensor], *, free: bool) -> bytes:
    """The file with these inputs, some of which torch left out: nothing reads their values."""
    from onnx import helper, load_from_string

    model = load_from_string(data)
    written = {value.name: value for value in model.graph.input}
    if list(written) == list(inputs):
        return data
    del model.graph.input[:]
    for name, x in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(x.numpy().dtype)
        shape = ["batch", *x.shape[1:]] if free else list(x.shape)
        model.graph.input.append(
            written.get(name) or helper.make_tensor_value_info(name, kind, shape)
        )
    whole: bytes = model.SerializeToString()
    return whole


@contextmanager
def sorts_by_top_k() -> Iterator[None]:
    """Let torch's exporter write stable sorts, which it refuses, while this is open.

    ONNX defines of equal elements that TopK takes the one of the lower index first, at both ends.
    """
    from torch.onnx import symbolic_helper  # torch brings it in only for who exports

    @symbolic_helper.parse_args("v", "i", "i", "i")
    def sort(g: Any, x: Any, stable: Any, dim: Any, descending: Any = None) -> Any:
        if descending is None:  # called without `stable`
            dim, descending = stable, dim
        axis = g.op("Constant", value_t=torch.tensor([dim]))
        length = g.op("Gather", g.op("Shape", x), axis)
        return g.op("TopK", x, length, axis_i=dim, largest_i=descending, outputs=2)

    def argsort(g: Any, x: Any, *how: Any) -> Any:
        return sort(g, x, *how)[1]

    written: dict[str, Callable[..., Any]] = {"aten::sort": sort, "aten::argsort": argsort}
    for name, symbolic in written.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, OPSETS[-1])
    try:
        yield
    finally:
        for name in written:
            torch.onnx.unregister_custom_op_symbolic(name, OPSETS[-1])


def _nothing(*said: Any) -> None:
    """Print nothing."""


def in_newest_opset(
    data: bytes, opset: int, inputs: Mapping[str, Tensor], known: Sequence[Any]
) -> tuple[bytes, int]:
    """The file in the newest opset in which ONNX Runtime computes the known bits, and that opset.

    onnx converts it. What it cannot convert, and ONNX Runtime not run, stays as it is, and so does
    a file that would take long to try.
    """
    from onnx import checker, load_from_string, version_converter

    for newer in range(newest_opset(), opset, -1) if len(data) < MOST_CONVERTED else ():
        try:
            with refusals(f"ONNX opset {newer}"):
                model = version_converter.convert_version(load_from_string(data), newer)
                checker.check_model(model)
                converted = model.SerializeToString()
                del model  # as large as the file
                found = run_onnx(converted, inputs)
        except SymbolError:
            continue
        if [y.tobytes() for y in found] == [y.tobytes() for y in known]:
            return converted, newer
    return data, opset


@cache
def newest_opset() -> int:
    """The newest opset that both onnx and ONNX Runtime know."""
    from onnx import TensorProto, defs, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    for opset in range(defs.onnx_opset_version(), OPSETS[0], -1):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = IR_VERSION
        try:
            with refusals(f"ONNX opset {opset}"):
                run_onnx(model.SerializeToString(), {"x": torch.zeros(1)})
        except SymbolError:
            continue
        return opset
    return OPSETS[0]


def run_onnx(data: bytes, inputs: Mapping[str, Tensor]) -> list[Any]:
    """The arrays that ONNX Runtime gives, on the CPU."""
    found: list[Any] = onnx_session(data).run(None, {name: x.numpy() for name, x in inputs.items()})
    return found


def _sums_by_convolution(
    x: Tensor, kernel: list[int], stride: list[int], pad: list[int], full: bool = False
) -> Tensor:
    """`mx_nn.sum_pool` without torch's `divisor_override`, which its exporter cannot write."""
    sides: list[int] = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        padded = int(size) + 2 * p
        steps = -(-(padded - k) // s) if full else (padded - k) // s
        if steps * s >= int(size) + p:  # torch leaves out a window in the right padding
            steps -= 1
        sides = [p, max(p, p + steps * s + k - padded), *sides]
    each = functional.pad(x, sides).flatten(0, 1).unsqueeze(1)  # every channel alone
    convolution = functional.conv3d if len(kernel) == 3 else functional.conv2d
    y = convolution(each, torch.ones(1, 1, *kernel, dtype=x.dtype), stride=stride)
    return y.reshape(-1, int(x.shape[1]), *map(int, y.shape[2:]))


def verify_onnx(
    data: bytes, inputs: dict[str, Tensor], expected: Sequence[Tensor], near: float = TOLERANCE
) -> tuple[str, list[Any]]:
    """Check a model with whatever is installed; says what that was, and what it computed."""
    done, found = [], []
    try:
        import onnx

        onnx.checker.check_model(onnx.load_from_string(data))
        done.append("onnx.checker")
    except ImportError:
        pass
    try:
        found = run_onnx(data, inputs)
        same(expected, [torch.from_numpy(y) for y in found], "ONNX file", near)
        done.append(ONNX_RUNTIME)
    except ImportError:
        pass
    return " and ".join(done), found


def same(
    expected: Sequence[Tensor], found: Sequence[Tensor], what: str, near: float = TOLERANCE
) -> None:
    """Refuse outputs further apart than `near` of the largest; NaN equals NaN.

    Integers and truth values are equal.
    """
    for a, b in zip(expected, found, strict=True):
        alike = a.shape == b.shape and a.dtype == b.dtype
        if a.is_floating_point():
            alike = alike and torch.allclose(a, b, rtol=near, atol=near * peak(a), equal_nan=True)
        else:
            alike = alike and torch.equal(a, b)
        if not alike:
            raise SymbolError(f"the {what} does not compute what the module computes")


def tolerance(module: fx.GraphModule, inputs: Sequence[Tensor]) -> float:
    """What rounding explains in the coarsest dtype of a graph: of its tensors or its casts."""
    found: set[Any] = {x.dtype for x in (*inputs, *module.state_dict().values())}
    for node in module.graph.nodes:
        fx.node.map_aggregate((node.args, node.kwargs), found.add)
    if torch.float64 in found and found.isdisjoint({torch.float32, *HALVES}):
        return IN_FLOAT64
    return max([TOLERANCE, *(ROUNDINGS * HALVES[kind] for kind in found & HALVES.keys())])


def peak(x: Tensor) -> float:
    """The largest finite absolute value."""
    finite = x[torch.isfinite(x)]
    return float(finite.abs().max()) if finite.numel() else 0.0
