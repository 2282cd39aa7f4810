"""Operators that move elements about and compute nothing."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_index, mx_shape
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, outputs_of, register, register_call, registered

MOST_OUTPUTS = 4_096
OPEN = 2**63 - 1  # the open end of a slice, as aten writes it


def _splits_with_unknown(codes: tuple[int, ...]) -> int:
    """How many -1 belong to a -4, whichever end the codes are read from."""
    places = [i for i, code in enumerate(codes) if code == -4]
    near = {i + step for i in places for step in (-2, -1, 1, 2)}
    return sum(codes[i] == -1 for i in near if 0 <= i < len(codes))


@registered(
    "Reshape reshape",
    "data",
    "shape: integers = (), reverse: boolean = False, target_shape: integers = (), "
    "keep_highest: boolean = False",
    dtypes=Dtypes.FIRST,
)
def reshape(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    codes = a.shape
    if not codes and a.target_shape:  # before 0.9: 0 infers, keep_highest keeps the batch axis
        codes = tuple(-1 if size == 0 else size for size in a.target_shape)
        if a.keep_highest:
            codes = (0, *codes[1:])
        if codes.count(-1) > 1:
            raise w.refuse(f"target_shape={a.target_shape}, expected at most one 0")
    if not codes:
        raise w.refuse("shape is empty, expected the new shape")
    if codes.count(-1) - _splits_with_unknown(codes) > 1 or min(codes) < -4:
        raise w.refuse(f"shape={codes}, expected at most one -1 and codes from -4")
    if all(code > 0 or code == -1 for code in codes):
        a.have_no_effect("reverse")
        return w.call(torch.reshape, x, codes)
    return w.call(mx_shape.reshape, x, codes, a.reverse)


@registered(
    "reshape_like",
    "lhs rhs",
    "lhs_begin: integer? = None, lhs_end: integer? = None, "
    "rhs_begin: integer? = None, rhs_end: integer? = None",
    dtypes=Dtypes.FIRST,
)
def reshape_like(w: Wiring, a: SimpleNamespace, x: fx.Node, like: fx.Node) -> Wired:
    lhs, rhs = [
        [0 if begin is None else begin, OPEN if end is None else end]
        for begin, end in ((a.lhs_begin, a.lhs_end), (a.rhs_begin, a.rhs_end))
    ]
    return w.call(mx_shape.reshape_like, x, like, lhs, rhs)


@registered("Flatten flatten", "data", dtypes=Dtypes.FIRST)
def flatten(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    y = w.call(torch.flatten, x, 1)
    w.flat.add(y)
    return y


@registered("transpose", "data", "axes: axes = ()", dtypes=Dtypes.FIRST)
def transpose(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if not a.axes:
        return w.call(mx_shape.reverse_axes, x)
    # positive axes: torch's ONNX exporter writes negative ones as they are
    return w.call(torch.permute, x, tuple(axis % len(a.axes) for axis in a.axes))


register_call(
    "SwapAxis swapaxes",
    torch.transpose,
    "data",
    "dim1: integer = 0, dim2: integer = 0",
    dtypes=Dtypes.FIRST,
)
register_call("expand_dims", torch.unsqueeze, "data", "axis: integer", dtypes=Dtypes.FIRST)
register_call("squeeze", mx_shape.squeeze, "data", "axis: axes = ()", dtypes=Dtypes.FIRST)
register_call(
    "Concat concat _rnn_param_concat",
    torch.cat,
    None,
    "dim: integer = 1, num_args: integer = 0",
    dtypes=Dtypes.SAME,
)
register_call(
    "stack", torch.stack, None, "axis: integer = 0, num_args: integer = 0", dtypes=Dtypes.SAME
)


def split_evenly(w: Wiring, x: fx.Node, count: int, axis: int, squeeze: bool) -> Wired:
    if not 1 <= count <= MOST_OUTPUTS:
        raise w.refuse(f"num_outputs={count}, expected 1 to {MOST_OUTPUTS}")
    parts = w.call(mx_shape.split_even, x, count, axis, part="parts")
    out = outputs_of(w, parts, count)
    if squeeze:
        out = tuple(w.call(torch.squeeze, part, axis, part=f"{i}_flat")
                    for i, part in enumerate(out))  # fmt: skip
    return out


register(
    "SliceChannel split",
    lambda w, a, x: split_evenly(w, x, a.num_outputs, a.axis, a.squeeze_axis),
    "data",
    "num_outputs: integer, axis: integer = 1, squeeze_axis: boolean = False",
    lambda a: a.num_outputs,
    dtypes=Dtypes.FIRST,
)


def increasing(w: Wiring, a: SimpleNamespace) -> tuple[int, ...]:
    """Where the parts begin, refused unless they go on from 0."""
    starts: tuple[int, ...] = a.indices
    if not starts or starts[0] != 0 or list(starts) != sorted(starts):
        raise w.refuse(f"indices={starts}, expected increasing numbers from 0")
    return starts


@registered(
    "_split_v2",
    "data",
    "indices: integers, axis: integer = 1, squeeze_axis: boolean = False, sections: integer = 0",
    lambda a: a.sections if a.sections > 0 else len(a.indices),
    dtypes=Dtypes.FIRST,
)
def split_v2(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    if a.sections > 0:
        a.have_no_effect("indices")
        return split_evenly(w, x, a.sections, a.axis, a.squeeze_axis)
    starts = increasing(w, a)
    parts = w.call(mx_shape.split_at, x, starts, a.axis, a.squeeze_axis, part="parts")
    return outputs_of(w, parts, len(starts))


def slice_axes(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if len(a.begin) != len(a.end) or len(a.step) not in (0, len(a.begin)) or 0 in a.step:
        raise w.refuse(f"begin={a.begin}, end={a.end}, step={a.step} do not fit together")
    steps = [1 if step is None else step for step in a.step or (1,) * len(a.begin)]
    # a negative step reads the flipped axis, where element i is number -i - 1
    flipped = [axis for axis, step in enumerate(steps) if step < 0]
    if flipped:
        x = w.call(torch.flip, x, flipped, part="flipped")

    def ends(values: tuple[int | None, ...], default: int) -> list[int]:
        return [
            default if value is None else ~value if axis in flipped else value
            for axis, value in enumerate(values)
        ]

    begin, end = ends(a.begin, 0), ends(a.end, OPEN)
    return w.call(mx_shape.slice_axes, x, begin, end, [abs(step) for step in steps])


SLICE = "begin: shape, end: shape, step: shape = ()"
register("slice crop", slice_axes, "data", SLICE, dtypes=Dtypes.FIRST)


def slice_assign(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node | None = None) -> Wired:
    w.step = "places"
    where = slice_axes(w, a, w.call(mx_index.places, x, part="all"))
    w.step = ""
    if y is None:
        return w.call(mx_index.assign_number, x, where, a.scalar)
    return w.call(mx_index.assign, x, y, where)


register(
    "_slice_assign _crop_assign _npi_slice_assign",
    slice_assign,
    "lhs rhs",
    SLICE,
    dtypes=Dtypes.FIRST,
)
register(
    "_slice_assign_scalar _crop_assign_scalar _npi_slice_assign_scalar",
    slice_assign,
    "data",
    f"{SLICE}, scalar: double = 0.0",
    dtypes=Dtypes.FIRST,
)
register_call(
    "slice_axis",
    mx_shape.slice_axis,
    "data",
    "axis: integer, begin: integer, end: integer?",
    dtypes=Dtypes.FIRST,
)
register_call(
    "slice_like", mx_shape.slice_like, "data shape_like", "axes: axes = ()", dtypes=Dtypes.FIRST
)
register_call("tile", torch.tile, "data", "reps: integers", dtypes=Dtypes.FIRST)
register_call(
    "repeat",
    mx_shape.repeat,
    "data",
    "repeats: integer, axis: integer? = None",
    dtypes=Dtypes.FIRST,
)
register_call("reverse flip", torch.flip, "data", "axis: axes", dtypes=Dtypes.FIRST)
register_call(
    "broadcast_to", mx_shape.broadcast_to, "data", "shape: integers = ()", dtypes=Dtypes.FIRST
)


@registered(
    "broadcast_axis broadcast_axes",
    "data",
    "axis: axes = (), size: integers = ()",
    dtypes=Dtypes.FIRST,
)
def broadcast_axes(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if len(a.axis) != len(a.size):
        raise w.refuse(f"axis={a.axis}, size={a.size}, expected a size for each axis")
    return w.call(mx_shape.broadcast_axes, x, a.axis, a.size)


register_call(
    "broadcast_like",
    mx_shape.broadcast_like,
    "lhs rhs",
    "lhs_axes: shape = (), rhs_axes: shape = ()",
    dtypes=Dtypes.FIRST,
)
register_call(
    "diag",
    mx_index.diagonal,
    "data",
    "k: integer = 0, axis1: integer = 0, axis2: integer = 1",
    dtypes=Dtypes.FIRST,
)
