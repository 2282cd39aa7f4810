"""The one place where what torch, numpy or ONNX raise on a graph from a file becomes one line.

A file can ask any of them for anything: an infinite size, a division by zero, an index out of
range. What they raise then depends on their version, and is no bug of ours.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from mxnet_files.errors import SymbolError

LONGEST = 300  # characters of a reason
TO_CAST = "cast what it reads (Cast), or the net before its export (net.cast('float32'))"
# as torch calls a dtype that one of its operators lacks
LACKING = re.compile(r"not implemented for '(\w+)'")
DTYPES = {
    "Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64",
    "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64",
    "Bool": "bool",
}  # fmt: skip


@contextmanager
def refusals(what: str | Callable[[], str], *passing: type[Exception]) -> Iterator[None]:
    """Any exception within the block becomes a `SymbolError` that begins with `what`.

    What is already one, a package that is not installed, and `passing` pass as they are. `what` may
    be a function, for what is known only once it happened.

    >>> with refusals("node 'a'"):
    ...     1 // 0
    Traceback (most recent call last):
    mxnet_files.errors.SymbolError: node 'a': integer division or modulo by zero
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (SymbolError, ModuleNotFoundError, *passing)):
            raise
        said = what if isinstance(what, str) else what()
        raise SymbolError(f"{said}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """The first line that an exception says, or its kind where it says nothing."""
    if kind := lacking(error):
        return f"torch cannot compute it in {kind} here, expected float32: {TO_CAST}"
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return said[0][:LONGEST] if said else type(error).__name__


def lacking(error: Exception) -> str:
    """The dtype that torch lacks an operator in, where that is what it says."""
    found = LACKING.search(str(error))
    return DTYPES.get(found[1], found[1]) if found else ""


def where(node: fx.Node) -> str:
    """`node 'a' (relu)`: what a node of the graph is in the file, or is a step towards."""
    last = node
    while "mxnet" not in last.meta and last.users:
        last = next(iter(last.users))
    operator, name, _ = last.meta.get("mxnet", ("", node.name, 0))
    return f"node {name!r}" + (f" ({operator})" if operator else "")


class Named(fx.Interpreter):
    """Runs a graph node by node, and names the one in whose dtype torch cannot compute."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # it would be added to what an exception says

    def run_node(self, n: fx.Node) -> Any:
        try:
            return super().run_node(n)
        except RuntimeError as error:
            if lacking(error):
                raise SymbolError(f"{where(n)}: {reason(error)}") from None
            raise


def run(module: Any, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """All outputs, without gradients. Raises `SymbolError` where the graph cannot run on them."""
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    with refusals(f"the graph cannot run on inputs of shape {shapes}"), torch.no_grad():
        try:
            found = module.forward(*inputs)  # not __call__, which prints a traceback itself
        except RuntimeError as error:
            if lacking(error) and isinstance(module, fx.GraphModule):
                Named(module).run(*inputs)
            raise
    several = found if isinstance(found, tuple) else (found,)
    return tuple(y.detach() for y in several)  # a parameter may be an output


def onnx_session(model: str | bytes) -> Any:
    """ONNX Runtime on the CPU, which raises what it cannot run, and writes no line of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def in_float64(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in float64, where the graph itself asks for float32 too: as in `Cast` of an image."""
    double = copy.deepcopy(module).double().eval()
    for part in double.modules():  # it, and the bodies of its loops
        if not isinstance(part, fx.GraphModule):
            continue
        wider = [node for node in part.graph.nodes if "mxnet_wider" in node.meta]
        for node in wider:
            node.args = tuple(torch.float64 if arg is torch.float32 else arg for arg in node.args)
        if wider:
            part.recompile()
    return double


def of_precision(arrays: Sequence[np.ndarray], dtype: str) -> list[np.ndarray]:
    """Arrays of floating point in `dtype`; integers and booleans as they are."""
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in arrays]


def distance(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[float]:
    """The largest error of each output as a part of its largest value.

    Infinite for other shapes and one output more or less, and for other dtypes, where not both are
    floating point. Infinity and NaN are near themselves alone.
    """
    if len(found) != len(wanted):
        return [float("inf")] * len(wanted)
    return [_distance(a, b) for a, b in zip(found, wanted, strict=True)]


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    reals = found.dtype.kind == wanted.dtype.kind == "f"
    if found.shape != wanted.shape or (found.dtype != wanted.dtype and not reals):
        return float("inf")
    got, exact = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(exact)
    if not np.array_equal(got[~finite], exact[~finite], equal_nan=True):
        return float("inf")
    size = largest(exact) or 1.0
    error = np.abs(got[finite] - exact[finite]).max(initial=0.0) / size
    return float(error) if np.isfinite(error) else float("inf")


def in_json(error: float) -> float | None:
    """An error for JSON, which has no number for infinity."""
    return error if math.isfinite(error) else None


def largest(array: np.ndarray) -> float:
    """The largest finite size."""
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    return float(finite.max(initial=0.0))
