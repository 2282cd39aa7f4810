"""The int8 operators that `quantize_model` writes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.functions import mx_int8, mx_nn
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.operators.neural import ACTIVATIONS, check_kernel, convolution, spatial
from mxnet_files.operators.normalise import outputs_of
from mxnet_files.operators.pooling import pooling
from mxnet_files.operators.shape import MOST_OUTPUTS
from mxnet_files.reading.attributes import Attribute, Attributes, integer, one_of, optional, real
from mxnet_files.registry import OPERATORS, Wired, Wiring, register

__all__: list[str] = []

RANGE = ("min_data", "max_data")
CALIBRATED = {
    "min_calib_range": Attribute(optional(real), None),
    "max_calib_range": Attribute(optional(real), None),
}


def target(a: SimpleNamespace) -> torch.dtype:
    """The 8 bits asked for; `auto` takes uint8 where nothing calibrated is below 0."""
    if a.out_type != "auto":
        return torch_dtype(a.out_type)
    known = a.min_calib_range is not None and a.max_calib_range is not None
    return torch.uint8 if known and a.min_calib_range >= 0 else torch.int8


def quantize(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    arguments = (target(a), a.min_calib_range, a.max_calib_range)
    return outputs_of(w, w.call(mx_int8.quantize, x, *arguments, part="all"), 3)


def requantize(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    arguments = (target(a), a.min_calib_range, a.max_calib_range)
    return outputs_of(w, w.call(mx_int8.requantize, *inputs, *arguments, part="all"), 3)


OUT_TYPE = {"out_type": Attribute(one_of("auto", "int8", "uint8"), "int8"), **CALIBRATED}
register("_contrib_quantize_v2", quantize, "data", OUT_TYPE, 3)
register("_contrib_requantize", requantize, "data min_range max_range", OUT_TYPE, 3)
register(
    "_contrib_dequantize",
    lambda w, a, *xs: w.call(mx_int8.dequantize, *xs),
    "data min_range max_range",
    {"out_type": Attribute(one_of("float32"), "float32")},
)


def wide(w: Wiring, x: fx.Node, part: str) -> fx.Node:
    """Integers in float64, which holds their sums."""
    return w.method("to", x, torch.float64, part=part)


def ranges(a: SimpleNamespace) -> tuple[str, ...]:
    """The inputs of a layer with weights."""
    arrays = ("data", "weight") if a.no_bias else ("data", "weight", "bias")
    return (*arrays, *(f"{end}_{name}" for name in arrays for end in ("min", "max")))


def quantized_conv(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    count = 2 if a.no_bias else 3
    arrays, limits = inputs[:count], inputs[count:]
    named = [wide(w, x, f"wide{place}") for place, x in enumerate(arrays)]
    w.step = "real"
    y = convolution(w, a, *named)  # an int8 bias is added as it is, as oneDNN is given it
    w.step = ""
    low, high = outputs_of(w, w.call(mx_int8.product_range, *limits[:4], False, part="range"), 2)
    return w.call(mx_int8.whole, y, torch.int32), low, high


def quantized_dense(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    count = 2 if a.no_bias else 3
    (x, weight, *bias), limits = inputs[:count], inputs[count:]
    w.expect(weight, (a.num_hidden, None), "weight")
    flat = w.call(torch.flatten, x, 1, part="flat") if a.flatten else x
    y = w.call(F.linear, wide(w, flat, "wide0"), wide(w, weight, "wide1"), part="product")
    if bias:
        shift = w.call(mx_int8.dense_bias, bias[0], x, *limits, part="shift")
        y = w.call(torch.add, y, shift, part="sum")
    low, high = outputs_of(w, w.call(mx_int8.dense_range, x, *limits[:4], part="range"), 2)
    return w.call(mx_int8.whole, y, torch.int32), low, high


register("_contrib_quantized_conv", quantized_conv, ranges, OPERATORS["Convolution"].attributes, 3)
register(
    "_contrib_quantized_fully_connected",
    quantized_dense,
    ranges,
    OPERATORS["FullyConnected"].attributes,
    3,
)


def quantized_act(w: Wiring, a: SimpleNamespace, x: fx.Node, *limits: fx.Node) -> Wired:
    if a.act_type != "relu":
        raise w.refuse(f"act_type={a.act_type}, expected relu")
    return w.call(mx_int8.rectify, x), *limits


def quantized_pooling(w: Wiring, a: Attributes, x: fx.Node, *limits: fx.Node) -> Wired:
    if a.pool_type not in ("max", "avg"):
        raise w.refuse(f"pool_type={a.pool_type}, expected max or avg")
    y: Wired
    given = w.method("to", x, torch.float32, part="wide")
    w.step = "real"
    full = a.pooling_convention == "full" and not a.global_pool
    if a.pool_type == "avg" and full and a.count_include_pad:
        # oneDNN counts what a last window has beyond the array too
        check_kernel(w, a)
        stride, pad = spatial(w, a, "stride", 1), spatial(w, a, "pad", 0)
        total = w.call(mx_nn.pool, given, "sum", a.kernel, stride, pad, True, part="total")
        a.have_no_effect("p_value", "layout")
        y = w.call(torch.div, total, float(math.prod(a.kernel)))
    else:
        y = pooling(w, a, given)
    w.step = ""
    return w.call(mx_int8.whole_like, y, x), *limits


register(
    "_contrib_quantized_act",
    quantized_act,
    "data min_data max_data",
    {"act_type": Attribute(one_of(*ACTIVATIONS))},
    3,
)
register(
    "_contrib_quantized_pooling",
    quantized_pooling,
    "data min_data max_data",
    OPERATORS["Pooling"].attributes,
    3,
)
register(
    "_contrib_quantized_flatten",
    lambda w, a, x, *limits: (w.call(torch.flatten, x, 1), *limits),
    "data min_data max_data",
    outputs=3,
)


def quantized_batch_norm(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    if a.min_calib_range is None or a.max_calib_range is None:
        raise w.refuse("its range is not calibrated, which MXNet refuses too")
    a.have_no_effect("fix_gamma", "use_global_stats", "momentum", "output_mean_var")
    ends = (a.min_calib_range, a.max_calib_range)
    y = w.call(mx_int8.batch_norm, *inputs, a.eps, a.axis, *ends)
    low, high = (w.constant(torch.tensor([end])) for end in ends)
    return y, low, high


register(
    "_contrib_quantized_batch_norm",
    quantized_batch_norm,
    "data gamma beta moving_mean moving_var min_data max_data",
    {**OPERATORS["BatchNorm"].attributes, **CALIBRATED},
    3,
)


def quantized_concat(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    count = len(inputs) // 3
    lows, highs = list(inputs[count::2]), list(inputs[count + 1 :: 2])
    every = w.call(mx_int8.concatenate, list(inputs[:count]), lows, highs, a.dim, part="all")
    return outputs_of(w, every, 3)


register(
    "_contrib_quantized_concat",
    quantized_concat,
    lambda a: tuple(f"arg{i}" for i in range(3 * min(a.num_args, MOST_OUTPUTS))),
    {"dim": Attribute(integer, 1), "num_args": Attribute(integer)},
    3,
)


def quantized_add(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    ends = (a.min_calib_range, a.max_calib_range)
    return outputs_of(w, w.call(mx_int8.elementwise_add, *inputs, *ends, part="all"), 3)


register(
    "_contrib_quantized_elemwise_add",
    quantized_add,
    "lhs rhs lhs_min lhs_max rhs_min rhs_max",
    CALIBRATED,
    3,
)
