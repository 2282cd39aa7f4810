"""Operators that change height and width: padding, cropping, enlarging; images as tensors."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_resize, mx_shape
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, register, register_call, registered

MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}


def pad(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    width = a.pad_width
    if len(width) not in (8, 10) or any(width[:4]) or min(width) < 0:
        raise w.refuse(f"pad_width={width}, expected (0, 0, 0, 0, before, after, …), 4 or 5 axes")
    pairs = [width[i : i + 2] for i in range(4, len(width), 2)]
    flat = tuple(size for pair in reversed(pairs) for size in pair)
    if a.mode != "constant":
        a.have_no_effect("constant_value")
    if a.mode == "constant":
        return w.call(F.pad, x, flat, "constant", a.constant_value)
    return w.call(F.pad, x, flat, MODES[a.mode])


register(
    "Pad pad",
    pad,
    "data",
    f"mode: ({'|'.join(MODES)}), pad_width: integers, constant_value: double = 0.0",
    dtypes=Dtypes.FLOATING,
)
BLOCK = "block_size: integer"
register_call("depth_to_space", mx_shape.depth_to_space, "data", BLOCK, dtypes=Dtypes.SAME)
register_call("space_to_depth", mx_shape.space_to_depth, "data", BLOCK, dtypes=Dtypes.SAME)


@registered(
    "Crop",
    lambda a: ("data", "crop_like")[: a.num_args],
    "offset: integers = (0, 0), h_w: integers = (0, 0), center_crop: boolean = False, "
    "num_args: integer = 1",
    dtypes=Dtypes.SAME,
)
def crop(w: Wiring, a: SimpleNamespace, x: fx.Node, like: fx.Node | None = None) -> Wired:
    offset, size = a.offset, a.h_w
    if len(offset) != 2 or len(size) != 2:
        raise w.refuse(f"offset={offset}, h_w={size}, expected two numbers each")
    if like is not None:
        return w.call(mx_shape.crop_like, x, like, offset, a.center_crop)
    return w.call(mx_shape.crop, x, size, offset, a.center_crop)


@registered(
    "UpSampling",
    lambda a: ("data", "weight") if a.sample_type == "bilinear" else None,
    "scale: integer, num_filter: integer = 0, sample_type: (nearest|bilinear), "
    "multi_input_mode: (concat|sum) = concat, num_args: integer = 1, workspace: ignored",
    dtypes=Dtypes.FLOATING,
)
def upsampling(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    if a.scale < 1:
        raise w.refuse(f"scale={a.scale}, expected at least 1")
    if a.sample_type == "nearest":
        return w.call(mx_shape.upsample_nearest, list(inputs), a.scale, a.multi_input_mode == "sum")
    # bilinear is a transposed convolution, one filter a channel, with the weights of the file
    a.have_no_effect("multi_input_mode", "num_args")
    x, weight = inputs
    side = 2 * a.scale - a.scale % 2
    w.expect(weight, (a.num_filter, 1, side, side), "weight")
    stride, pad = (a.scale,) * 2, (math.ceil((a.scale - 1) / 2),) * 2
    return w.call(F.conv_transpose2d, x, weight, None, stride, pad, (0, 0), a.num_filter, (1, 1))


RULES = ("size", "odd_scale", "like", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up")


@registered(
    "_contrib_BilinearResize2D",
    lambda a: ("data", "like") if a.mode == "like" else ("data",),
    "height: integer = 1, width: integer = 1, scale_height: real? = None, "
    f"scale_width: real? = None, mode: ({'|'.join(RULES)}) = size, "
    "align_corners: boolean = True",
    dtypes=Dtypes.FLOATING,
)
def resize(w: Wiring, a: Attributes, x: fx.Node, like: fx.Node | None = None) -> Wired:
    if like is not None:
        a.have_no_effect("height", "width", "scale_height", "scale_width")
        return w.call(mx_resize.resize_bilinear_like, x, like, a.align_corners)
    size, scales = (a.height, a.width), (a.scale_height, a.scale_width)
    if a.mode in ("size", "odd_scale") and (a.mode == "odd_scale" or a.scale_height is not None):
        a.have_no_effect("height", "width")
        if None in scales:
            raise w.refuse(f"scale_height and scale_width are {scales}, expected two numbers")
        return w.call(mx_resize.resize_bilinear_by, x, a.mode, scales, a.align_corners)
    if a.mode != "size":
        a.have_no_effect("height", "width", "scale_height", "scale_width")
        return w.call(mx_resize.resize_bilinear_by, x, a.mode, (1.0, 1.0), a.align_corners)
    if min(size) < 1:
        raise w.refuse(f"height and width are {size}, expected positive numbers")
    return w.call(mx_resize.resize_bilinear, x, size, a.align_corners)


IMAGES = "_image_{0} _npx__image_{0}"
register(
    IMAGES.format("to_tensor"),
    lambda w, a, x: w.call(mx_resize.image_to_tensor, x, torch.float32),
    "data",
    dtypes=Dtypes.MADE,
)
register_call(
    IMAGES.format("normalize"),
    mx_resize.image_normalize,
    "data",
    "mean: reals = (0, 0, 0, 0), std: reals = (1, 1, 1, 1)",
    dtypes=Dtypes.FIRST,
)


@registered(
    IMAGES.format("crop"),
    "data",
    "x: integer, y: integer, width: integer, height: integer",
    dtypes=Dtypes.FIRST,
)
def image_crop(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if min(a.x, a.y) < 0 or min(a.width, a.height) < 1:
        raise w.refuse(f"x={a.x}, y={a.y}, size {a.width}×{a.height}, expected a part of the image")
    return w.call(mx_resize.image_crop, x, a.x, a.y, a.width, a.height)


for _name, _axis in (("flip_top_bottom", 0), ("flip_left_right", 1)):
    register(
        IMAGES.format(_name),
        lambda w, a, x, axis=_axis: w.call(mx_resize.image_flip, x, axis),
        "data",
        dtypes=Dtypes.FIRST,
    )


@registered(
    IMAGES.format("resize"),
    "data",
    "size: integers = (), keep_ratio: boolean = False, interp: integer = 1",
    dtypes=Dtypes.FIRST,
)
def image_resize(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    size = a.size
    if len(size) not in (1, 2) or min(size) < 1:
        raise w.refuse(f"size={size}, expected width and height, or one number")
    if a.interp not in (0, 1):
        raise w.refuse(f"interp={a.interp}, expected 0 (nearest) or 1 (bilinear)")
    if len(size) == 2:
        a.have_no_effect("keep_ratio")
    return w.call(mx_resize.image_resize, x, size, a.keep_ratio, a.interp == 1)
