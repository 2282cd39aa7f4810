"""Choosing elements by index or condition, and arrays made from a shape alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import fx

from torch_ref.symbol import mx_shape
from torch_ref.symbol.attributes import (
    IGNORED,
    Attribute,
    boolean,
    double,
    dtype,
    integer,
    one_of,
    optional,
    real,
    shape,
)
from torch_ref.symbol.operators.shape import integers
from torch_ref.symbol.registry import Wired, Wiring, register

__all__ = ["torch_dtype"]

LARGEST_CONSTANT = 2**24  # elements of an array that the file asks for without storing it


def torch_dtype(name: str) -> torch.dtype:
    """MXNet's name of a dtype -> torch's."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def take(w: Wiring, a: SimpleNamespace, x: fx.Node, indices: fx.Node) -> Wired:
    if a.mode == "raise":
        raise w.refuse("mode=raise, expected clip or wrap")
    return w.call(mx_shape.take, x, indices, a.axis, a.mode == "wrap")


register(
    "take",
    take,
    "a indices",
    {
        "axis": Attribute(integer, 0),
        "mode": Attribute(one_of("clip", "wrap", "raise"), "clip"),
    },
)


def pick(w: Wiring, a: SimpleNamespace, x: fx.Node, index: fx.Node) -> Wired:
    if a.axis is None:
        raise w.refuse("axis=None, expected a number")
    return w.call(mx_shape.pick, x, index, a.axis, a.keepdims, a.mode == "wrap")


register(
    "pick choose_element_0index",
    pick,
    "data index",
    {
        "axis": Attribute(optional(integer), -1),
        "keepdims": Attribute(boolean, False),
        "mode": Attribute(one_of("clip", "wrap"), "clip"),
    },
)
register(
    "one_hot",
    lambda w, a, x: w.call(
        mx_shape.one_hot, x, a.depth, a.on_value, a.off_value, torch_dtype(a.dtype)
    ),
    "indices",
    {
        "depth": Attribute(integer),
        "on_value": Attribute(double, 1.0),
        "off_value": Attribute(double, 0.0),
        "dtype": Attribute(dtype, "float32"),
    },
)
register("where", lambda w, a, *xs: w.call(mx_shape.where, *xs), "condition x y")
register("shape_array", lambda w, a, x: w.call(mx_shape.shape_array, x), "data")
register("size_array", lambda w, a, x: w.call(mx_shape.size_array, x), "data")
register("zeros_like", lambda w, a, x: w.call(torch.zeros_like, x), "data")
register("ones_like", lambda w, a, x: w.call(torch.ones_like, x), "data")


def constant(value: float | None) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace) -> Wired:
        size = integers(w, a, "shape")
        if not size or min(size) < 1 or math.prod(size) > LARGEST_CONSTANT:
            raise w.refuse(f"shape={size}, expected positive sizes and at most 2^24 elements")
        filled = a.value if value is None else value
        kind = torch_dtype(a.dtype or "float32")
        return w.constant(torch.full(size, filled, dtype=kind))

    return build


CONSTANT = {
    "shape": Attribute(shape, ()),
    "dtype": Attribute(optional(dtype), "float32"),
    "ctx": IGNORED,
}
register("_zeros", constant(0.0), "", CONSTANT)
register("_ones", constant(1.0), "", CONSTANT)
register("_full", constant(None), "", {**CONSTANT, "value": Attribute(double)})


def upsampling(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    if a.scale < 1:
        raise w.refuse(f"scale={a.scale}, expected at least 1")
    if a.sample_type == "nearest":
        return w.call(mx_shape.upsample_nearest, list(inputs), a.scale, a.multi_input_mode == "sum")
    # bilinear is a transposed convolution, one filter a channel, with the weights of the file
    x, weight = inputs
    side = 2 * a.scale - a.scale % 2
    w.expect(weight, (a.num_filter, 1, side, side), "weight")
    stride, pad = (a.scale,) * 2, (math.ceil((a.scale - 1) / 2),) * 2
    return w.call(F.conv_transpose2d, x, weight, None, stride, pad, (0, 0), a.num_filter, (1, 1))


register(
    "UpSampling",
    upsampling,
    lambda a: ("data", "weight") if a.sample_type == "bilinear" else None,
    {
        "scale": Attribute(integer),
        "num_filter": Attribute(integer, 0),
        "sample_type": Attribute(one_of("nearest", "bilinear")),
        "multi_input_mode": Attribute(one_of("concat", "sum"), "concat"),
        "num_args": Attribute(integer, 1),
        "workspace": IGNORED,
    },
)


def resize(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.mode != "size":
        raise w.refuse(f"mode={a.mode}, expected size")
    size = (a.height, a.width)
    scales = (a.scale_height, a.scale_width)
    if None in scales and min(size) < 1:
        raise w.refuse(f"height and width are {size}, expected positive numbers")
    if None not in scales:
        return w.call(mx_shape.resize_bilinear, x, (0, 0), scales)
    return w.call(mx_shape.resize_bilinear, x, size, (0.0, 0.0))


register(
    "_contrib_BilinearResize2D",
    resize,
    "data",
    {
        "height": Attribute(integer, 1),
        "width": Attribute(integer, 1),
        "scale_height": Attribute(optional(real), None),
        "scale_width": Attribute(optional(real), None),
        "mode": Attribute(one_of("size", "odd_scale", "like", "to_even_down", "to_even_up",
                                 "to_odd_down", "to_odd_up"), "size"),
        "align_corners": Attribute(boolean, True),
    },
)  # fmt: skip
