"""Choosing elements by index or condition, and arrays made from a shape alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_dtype, mx_index, mx_shape
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, register, register_call, registered

LARGEST_CONSTANT = 2**24  # elements of an array that the file asks for without storing it


def torch_dtype(name: str) -> torch.dtype:
    """MXNet's name of a dtype -> torch's."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


@registered(
    "take", "a indices", "axis: integer = 0, mode: (clip|wrap|raise) = clip", dtypes=Dtypes.FIRST
)
def take(w: Wiring, a: SimpleNamespace, x: fx.Node, indices: fx.Node) -> Wired:
    if a.mode == "raise":
        raise w.refuse("mode=raise, expected clip or wrap")
    return w.call(mx_shape.take, x, indices, a.axis, a.mode == "wrap")


@registered(
    "pick choose_element_0index",
    "data index",
    "axis: integer = -1, keepdims: boolean = False, mode: (clip|wrap) = clip",
    dtypes=Dtypes.FIRST,
)
def pick(w: Wiring, a: SimpleNamespace, x: fx.Node, index: fx.Node) -> Wired:
    return w.call(mx_shape.pick, x, index, a.axis, a.keepdims, a.mode == "wrap")


register(
    "one_hot",
    lambda w, a, x: w.call(
        mx_shape.one_hot, x, a.depth, a.on_value, a.off_value, torch_dtype(a.dtype)
    ),
    "indices",
    "depth: integer, on_value: double = 1.0, off_value: double = 0.0, dtype: dtype = float32",
    dtypes=Dtypes.MADE,
)
register_call("where", mx_shape.where, "condition x y", dtypes=Dtypes.LAST)
register_call("gather_nd", mx_index.gather_nd, "data indices", dtypes=Dtypes.FIRST)


@registered("scatter_nd", "data indices", "shape: integers", dtypes=Dtypes.FIRST)
def scatter_nd(w: Wiring, a: SimpleNamespace, x: fx.Node, indices: fx.Node) -> Wired:
    if not a.shape or min(a.shape) < 1 or math.prod(a.shape) > LARGEST_CONSTANT:
        raise w.refuse(f"shape={a.shape}, expected positive sizes and at most 2^24 elements")
    return w.call(mx_index.scatter_nd, x, indices, a.shape)


register_call(
    "_contrib_index_copy",
    mx_index.index_copy,
    "old_tensor index_vector new_tensor",
    dtypes=Dtypes.FIRST,
)


register_call("shape_array", mx_shape.shape_array, "data")
register_call("size_array", mx_shape.size_array, "data")
register_call("zeros_like", torch.zeros_like, "data", dtypes=Dtypes.FIRST)
register_call("ones_like", torch.ones_like, "data", dtypes=Dtypes.FIRST)


def constant(value: float | None) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace) -> Wired:
        size = a.shape
        if not size or min(size) < 0 or math.prod(size) > LARGEST_CONSTANT:
            raise w.refuse(f"shape={size}, expected sizes and at most 2^24 elements")
        filled = a.value if value is None else value
        kind = torch_dtype(a.dtype or "float32")
        # a 0 is a size that MXNet infers from the readers: here one that broadcasts to theirs
        wide = torch.full([max(extent, 1) for extent in size], filled, dtype=torch.float64)
        made = w.constant(mx_dtype.cast(wide, kind))
        if 0 in size:
            w.unsized[made] = size
        return made

    return build


CONSTANT = "shape: integers = (), dtype: dtype? = float32, ctx: ignored"
register("_zeros", constant(0.0), "", CONSTANT, dtypes=Dtypes.MADE)
register("_ones", constant(1.0), "", CONSTANT, dtypes=Dtypes.MADE)
register("_full", constant(None), "", f"{CONSTANT}, value: double", dtypes=Dtypes.MADE)


@registered(
    "cast_storage _sparse_cast_storage",
    "data",
    "stype: (default|csr|row_sparse)",
    dtypes=Dtypes.FIRST,
)
def cast_storage(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    a.have_no_effect("stype")  # how elements are kept is not what they are
    return x


register_call("batch_take", mx_index.batch_take, "a indices", dtypes=Dtypes.FIRST)


def multi_index(function: Callable[..., Tensor]) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
        if not a.shape or min(a.shape[1:], default=1) < 1:  # the first size is not looked at
            raise w.refuse(f"shape={a.shape}, expected positive sizes")
        return w.call(function, x, a.shape)

    return build


SHAPE = "shape: integers = ()"
for _names, _function in (
    ("_unravel_index unravel_index", mx_index.unravel_index),
    ("_ravel_multi_index ravel_multi_index", mx_index.ravel_multi_index),
):
    register(_names, multi_index(_function), "data", SHAPE, dtypes=Dtypes.FIRST)


@registered("_contrib_index_array", "data", "axes: integers? = None")
def index_array(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.axes == ():
        raise w.refuse(f"axes={a.axes}, expected numbers")
    return w.call(mx_index.index_array, x, a.axes)


@registered(
    "_contrib_boolean_mask _npi_boolean_mask",
    "data index",
    "axis: integer = 0",
    dtypes=Dtypes.FIRST,
)
def boolean_mask(w: Wiring, a: SimpleNamespace, x: fx.Node, mask: fx.Node) -> Wired:
    if a.axis != 0:
        raise w.refuse(f"axis={a.axis}, expected 0, as MXNet does")
    return w.call(mx_index.boolean_mask, x, mask)
