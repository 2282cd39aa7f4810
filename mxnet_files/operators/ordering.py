"""Sorting, the largest elements, and number ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_index
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, outputs_of, register, registered

LARGEST_RANGE = 2**24  # elements
PLACES = "dtype: (uint8|int32|int64|float16|float32|float64) = float32"
AXIS = "axis: integer? = -1"


@registered(
    "topk _npx_topk",
    "data",
    f"{AXIS}, k: integer = 1, ret_typ: (value|indices|mask|both) = indices, "
    f"is_ascend: boolean = False, {PLACES}",
    lambda a: 2 if a.ret_typ == "both" else 1,
)
def topk(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    if a.ret_typ in ("mask", "value"):
        a.have_no_effect("dtype")
    if a.ret_typ == "mask":
        return w.call(mx_index.topk_mask, x, a.k, a.axis, a.is_ascend)
    arguments = (a.k, a.axis, a.is_ascend, torch_dtype(a.dtype))
    if a.ret_typ == "indices":
        return w.call(mx_index.topk_indices, x, *arguments)
    both = outputs_of(w, w.call(mx_index.topk, x, *arguments, part="both"), 2)
    return both if a.ret_typ == "both" else both[0]


ASCENDING = f"{AXIS}, is_ascend: boolean = True"
register(
    "sort",
    lambda w, a, x: w.call(mx_index.sort, x, a.axis, not a.is_ascend),
    "data",
    ASCENDING,
    dtypes=Dtypes.SAME,
)
register(
    "argsort",
    lambda w, a, x: w.call(mx_index.argsort, x, a.axis, not a.is_ascend, torch_dtype(a.dtype)),
    "data",
    f"{ASCENDING}, {PLACES}",
    dtypes=Dtypes.MADE,
)


def constant(w: Wiring, values: np.ndarray, name: str) -> Wired:
    """An array worked out here, in the dtype called `name`."""
    if name == "bfloat16":
        return w.constant(torch.from_numpy(values).to(torch.bfloat16))
    return w.constant(torch.from_numpy(values.astype(name)))


def counted(w: Wiring, count: float) -> int:
    """A number of elements, refused beyond what a file may ask for."""
    if not 0 <= count <= LARGEST_RANGE:
        raise w.refuse(f"{count:g} elements, expected 0 to 2^24")
    return int(count)


RANGE = (
    "start: double, stop: double? = None, step: double = 1.0, repeat: integer = 1, "
    "dtype: dtype = float32, ctx: ignored"
)


@registered("_arange", "", f"{RANGE}, infer_range: boolean = False", dtypes=Dtypes.MADE)
def arange(w: Wiring, a: SimpleNamespace) -> Wired:
    if a.infer_range and a.stop is None:
        raise w.refuse("infer_range=True leaves the length to its readers, expected a stop")
    start, stop = (0.0, a.start) if a.stop is None else (a.start, a.stop)
    if not a.step or not math.isfinite(stop - start) or a.repeat < 1:
        raise w.refuse(f"start={start}, stop={stop}, step={a.step}, repeat={a.repeat}: no range")
    count = counted(w, math.ceil((stop - start) / a.step) * a.repeat)
    # MXNet rounds start and step to the dtype and reckons in it
    number = np.float32 if a.dtype == "bfloat16" else np.dtype(a.dtype).type
    whole = np.issubdtype(number, np.integer)
    whole |= a.dtype in ("float16", "bfloat16")  # they lose their fractions there too
    # which wraps there: numpy 2 makes no uint8 of -1
    ends = (np.asarray(int(value) if whole else value) for value in (start, a.step))
    first, step = (end.astype(number)[()] for end in ends)
    places = np.arange(count) // a.repeat
    return constant(w, first + places.astype(number) * step, a.dtype)


@registered(
    "_contrib_arange_like _npx_arange_like",
    "data",
    "start: double = 0.0, step: double = 1.0, repeat: integer = 1, axis: integer? = None, "
    "ctx: ignored",
)
def arange_like(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.repeat < 1:
        raise w.refuse(f"repeat={a.repeat}, expected at least 1")
    return w.call(mx_index.arange_like, x, a.start, a.step, a.repeat, a.axis)


def spaced(w: Wiring, a: Attributes) -> np.ndarray:
    """`num` numbers from start to stop, in equal steps."""
    parts = a.num - 1 if a.endpoint else a.num
    a.have_no_effect("stop")  # beside num=1
    step = (a.stop - a.start) / parts if parts > 0 else 0.0
    return np.asarray(a.start + step * np.arange(counted(w, a.num)))


@registered(
    "_linspace _npi_linspace",
    "",
    "start: double, stop: double, num: integer, endpoint: boolean = True, "
    "dtype: dtype = float32, ctx: ignored",
    dtypes=Dtypes.MADE,
)
def linspace(w: Wiring, a: Attributes) -> Wired:
    return constant(w, spaced(w, a), a.dtype)


def eye(otherwise: Callable[[SimpleNamespace], int]) -> Callable[..., Wired]:
    """Ones on the k-th diagonal; `otherwise` gives the columns where M does not."""

    def build(w: Wiring, a: SimpleNamespace) -> Wired:
        columns = otherwise(a)
        counted(w, float(max(a.N, 0)) * max(columns, 0))
        if a.N < 0 or columns < 0:
            raise w.refuse(f"N={a.N}, M={columns}, expected sizes")
        return constant(w, np.eye(a.N, columns, a.k), a.dtype)

    return build


EYE = "N: integer, M: integer = 0, k: integer = 0, dtype: dtype = float32, ctx: ignored"
register("_eye", eye(lambda a: a.M if a.M > 0 else a.N), "", EYE, dtypes=Dtypes.MADE)
