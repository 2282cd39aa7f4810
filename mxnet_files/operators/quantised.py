"""The int8 operators that `quantize_model` writes, and the fused ones of `quantize_net`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.functions import mx_fused, mx_int8, mx_nn
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.operators.neural import ACTIVATIONS, check_kernel, convolution, spatial
from mxnet_files.operators.pooling import pooling
from mxnet_files.operators.shape import MOST_OUTPUTS
from mxnet_files.reading.attributes import Attributes, declared
from mxnet_files.registry import (
    OPERATORS,
    Wired,
    Wiring,
    outputs_of,
    register,
    register_call,
    registered,
)

CALIBRATED = "min_calib_range: real? = None, max_calib_range: real? = None"


def target(a: SimpleNamespace) -> torch.dtype:
    """The 8 bits asked for; `auto` takes uint8 where nothing calibrated is below 0."""
    if a.out_type != "auto":
        return torch_dtype(a.out_type)
    known = a.min_calib_range is not None and a.max_calib_range is not None
    return torch.uint8 if known and a.min_calib_range >= 0 else torch.int8


def calibrated(function: Callable[..., Any]) -> Callable[..., Wired]:
    """`quantize` or `requantize`, to the 8 bits asked for."""

    def build(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
        arguments = (target(a), a.min_calib_range, a.max_calib_range)
        return outputs_of(w, w.call(function, *inputs, *arguments, part="all"), 3)

    return build


OUT_TYPE = f"out_type: (auto|int8|uint8) = int8, {CALIBRATED}"
register("_contrib_quantize_v2", calibrated(mx_int8.quantize), "data", OUT_TYPE, 3)
register(
    "_contrib_quantize",
    lambda w, a, *xs: outputs_of(
        w, w.call(mx_int8.quantize_between, *xs, getattr(torch, a.out_type), part="all"), 3
    ),
    "data min_range max_range",
    "out_type: (int8|uint8) = uint8",
    3,
)
register(
    "_contrib_requantize", calibrated(mx_int8.requantize), "data min_range max_range", OUT_TYPE, 3
)
register(
    "_contrib_dequantize",
    lambda w, a, *xs: w.call(mx_int8.dequantize, *xs),
    "data min_range max_range",
    "out_type: (float32) = float32",
)


def wide(w: Wiring, x: fx.Node, part: str) -> fx.Node:
    """Integers in float64, which holds their sums."""
    return w.method("to", x, torch.float64, part=part)


def ranges(a: SimpleNamespace) -> tuple[str, ...]:
    """The inputs of a layer with weights."""
    arrays = ("data", "weight") if a.no_bias else ("data", "weight", "bias")
    return (*arrays, *(f"{end}_{name}" for name in arrays for end in ("min", "max")))


@registered("_contrib_quantized_conv", ranges, OPERATORS["Convolution"].attributes, 3)
def quantized_conv(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    count = 2 if a.no_bias else 3
    (x, weight, *bias), limits = inputs[:count], inputs[count:]
    w.step = "real"
    y = convolution(w, a, wide(w, x, "wide0"), wide(w, weight, "wide1"))
    w.step = ""
    shift = bias[0] if bias else None  # in 8 bits, which oneDNN is given as they are
    w.expect(shift, (a.num_filter,), "bias")
    y = w.call(mx_int8.biased, y, shift, 1, part="sum")
    low, high = outputs_of(w, w.call(mx_int8.product_range, *limits[:4], False, part="range"), 2)
    return w.call(mx_int8.rounded, y, torch.int32), low, high


@registered("_contrib_quantized_fully_connected", ranges, OPERATORS["FullyConnected"].attributes, 3)
def quantized_dense(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    count = 2 if a.no_bias else 3
    (x, weight, *bias), limits = inputs[:count], inputs[count:]
    w.expect(weight, (a.num_hidden, None), "weight")
    flat = w.call(torch.flatten, x, 1, part="flat") if a.flatten else x
    y = w.call(F.linear, wide(w, flat, "wide0"), wide(w, weight, "wide1"), part="product")
    if bias:
        shift = w.call(mx_int8.dense_bias, bias[0], x, *limits, part="shift")
        y = w.call(mx_int8.biased, y, shift, -1, part="sum")
    low, high = outputs_of(w, w.call(mx_int8.dense_range, x, *limits[:4], part="range"), 2)
    return w.call(mx_int8.rounded, y, torch.int32), low, high


@registered(
    "_contrib_quantized_act", "data min_data max_data", f"act_type: ({'|'.join(ACTIVATIONS)})", 3
)
def quantized_act(w: Wiring, a: SimpleNamespace, x: fx.Node, *limits: fx.Node) -> Wired:
    if a.act_type != "relu":
        raise w.refuse(f"act_type={a.act_type}, expected relu")
    return w.call(mx_int8.rectify, x), *limits


@registered(
    "_contrib_quantized_pooling", "data min_data max_data", OPERATORS["Pooling"].attributes, 3
)
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
    "_contrib_quantized_flatten",
    lambda w, a, x, *limits: (w.call(torch.flatten, x, 1), *limits),
    "data min_data max_data",
    outputs=3,
)


@registered(
    "_contrib_quantized_batch_norm",
    "data gamma beta moving_mean moving_var min_data max_data",
    {**OPERATORS["BatchNorm"].attributes, **declared(CALIBRATED)},
    3,
)
def quantized_batch_norm(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    if a.min_calib_range is None or a.max_calib_range is None:
        raise w.refuse("its range is not calibrated, which MXNet refuses too")
    a.have_no_effect("fix_gamma", "use_global_stats", "momentum", "output_mean_var")
    ends = (a.min_calib_range, a.max_calib_range)
    y = w.call(mx_int8.batch_norm, *inputs, a.eps, a.axis, *ends)
    return y, *range_of(w, ends)


@registered(
    "_contrib_quantized_concat",
    lambda a: tuple(f"arg{i}" for i in range(3 * min(a.num_args, MOST_OUTPUTS))),
    "dim: integer = 1, num_args: integer",
    3,
)
def quantized_concat(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    count = len(inputs) // 3
    lows, highs = list(inputs[count::2]), list(inputs[count + 1 :: 2])
    every = w.call(mx_int8.concatenate, list(inputs[:count]), lows, highs, a.dim, part="all")
    return outputs_of(w, every, 3)


register_call(
    "_contrib_quantized_elemwise_add",
    mx_int8.elementwise_add,
    "lhs rhs lhs_min lhs_max rhs_min rhs_max",
    CALIBRATED,
    3,
)


@registered(
    "_contrib_quantized_elemwise_mul",
    "lhs rhs lhs_min lhs_max rhs_min rhs_max",
    f"{CALIBRATED}, enable_float_output: boolean = False",
    lambda a: 1 if a.enable_float_output else 3,
)
def quantized_multiply(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    ends: tuple[float, ...] = ()
    if None not in (a.min_calib_range, a.max_calib_range):
        ends = (a.min_calib_range, a.max_calib_range)
    both = (ends, a.enable_float_output)
    every = w.call(mx_int8.elementwise_multiply, *inputs, *both, part="all")
    return outputs_of(w, every, 1 if a.enable_float_output else 3)


EMBEDDING = OPERATORS["Embedding"]
register(
    "_contrib_quantized_embedding",
    lambda w, a, x, weight, *limits: (EMBEDDING.build(w, a, x, weight), *limits),
    "data weight min_weight max_weight",
    EMBEDDING.attributes,
    3,
)


def part(a: SimpleNamespace, *names: str) -> Any:
    """The attributes of the only joined step of these operators; None without one."""
    found = [step for step in a.inner[0].steps if step.operator.name in names]
    return found[0] if len(found) == 1 else None


AFTER = ("Activation", "LeakyReLU", "clip", "abs", "square", "sqrt", "exp")


def checked(w: Wiring, a: SimpleNamespace, *kinds: str) -> None:
    """Refuse what oneDNN's passes would not have joined: other operators, or one of them twice."""
    names = [step.operator.name for step in a.inner[0].steps]
    if len(set(names)) != len(names) or not {kinds[0]} <= {*names} <= {*kinds}:
        raise w.refuse(f"joins {', '.join(names)}, expected {kinds[0]} and at most one of the rest")


def joined(w: Wiring, a: SimpleNamespace, inputs: Sequence[fx.Node]) -> Wired:
    """What the joined operators give, one after the other, as they would stand alone."""
    order = [entry for step in a.inner[0].steps for entry in step.inputs]
    known = {step.number for step in a.inner[0].steps}
    variables = sorted({entry.node for entry in order if entry.node not in known})
    if len(variables) != len(inputs):
        raise w.refuse(f"{len(inputs)} inputs, its subgraph has {len(variables)}")
    values = dict(zip(variables, inputs, strict=True))
    for place, step in enumerate(a.inner[0].steps):
        last = place == len(a.inner[0].steps) - 1
        w.step = "" if last else step.operator.name.lower()
        values[step.number] = step.operator.build(
            w, step.attributes, *(values[entry.node] for entry in step.inputs)
        )
    w.step = ""
    return values[a.inner[0].steps[-1].number]


def leaky_slope(w: Wiring, step: Any) -> float | None:
    """The slope of what comes after a convolution: 0 of ReLU; None without or where 8 bits cut."""
    if step is None:
        return None
    a = step.attributes
    if step.operator.name == "Activation" and a.act_type == "relu":
        return 0.0
    if step.operator.name == "LeakyReLU" and a.act_type == "leaky":
        a.have_no_effect("lower_bound", "upper_bound")
        return float(a.slope)
    if step.operator.name == "clip" and a.a_min == 0:
        a.have_no_effect("a_max")  # the range, which was calibrated behind it, ends there
        return None
    raise w.refuse(f"joins {step.node.where}, which MXNet computes on scaled numbers")


def range_of(w: Wiring, ends: Sequence[float | None], *product: fx.Node | None) -> list[fx.Node]:
    """The calibrated range; without one, that of what `dense_range` takes."""
    if None not in ends:
        return [w.constant(torch.tensor([end])) for end in ends]
    return list(outputs_of(w, w.call(mx_int8.dense_range, *product, part="range"), 2))


def fused_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    """The inputs of a fused convolution."""
    conv = part(a, "Convolution")
    names = ["data", "weight"] if conv is None else list(conv.operator.inputs(conv.attributes))
    if part(a, "BatchNorm") is not None:
        names += ["gamma", "beta", "moving_mean", "moving_var"]
    ends = ["data"]
    if part(a, "elemwise_add") is not None:
        names, ends = [*names, "sum"], ["data", "sum"]
    if a.quantized:
        names += [f"{end}_{name}" for name in ends for end in ("min", "max")]
    return tuple(names)


FUSED = f"quantized: boolean = False, {CALIBRATED}"


@registered(
    "_sg_mkldnn_conv",
    fused_inputs,
    f"{FUSED}, with_bn: boolean = False, with_act: boolean = False, "
    "with_sum: boolean = False, with_postsum_act: boolean = False",
    lambda a: 3 if a.quantized else 1,
    graphs=1,
)
def fused_convolution(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    checked(w, a, "Convolution", "BatchNorm", "elemwise_add", "Activation", "LeakyReLU", "clip")
    conv, norm = part(a, "Convolution").attributes, part(a, "BatchNorm")
    a.have_no_effect("with_bn", "with_sum", "with_act", "with_postsum_act")  # the steps say it
    if not a.quantized:
        a.have_no_effect("min_calib_range", "max_calib_range")
        return joined(w, a, inputs)
    named = dict(zip(fused_inputs(a), inputs, strict=True))
    weight, bias, x = named["weight"], named.get("bias"), named["data"]
    if norm is not None:
        b = norm.attributes
        b.have_no_effect("momentum", "use_global_stats", "output_mean_var")
        if b.axis != 1:
            raise w.refuse(f"BatchNorm has axis={b.axis}, expected 1")
        rest = [named[name] for name in ("gamma", "beta", "moving_mean", "moving_var")]
        both = w.call(
            mx_fused.fold_batch_norm, weight, bias, *rest, b.eps, b.fix_gamma, part="folded"
        )
        weight, bias = outputs_of(w, both, 2, "folded")
    low, high = named["min_data"], named["max_data"]
    ends = (a.min_calib_range, a.max_calib_range)
    arguments = (weight, bias, x, low, high, None not in ends, conv.num_group)
    every = w.call(mx_fused.eight_bits, *arguments, part="eight")
    whole, shift, of_data, scale, least, most = outputs_of(w, every, 6, "eight")
    w.step = "sums"
    y = convolution(w, conv, wide(w, x, "wide"), whole)
    w.step = ""
    conv.have_no_effect("no_bias")
    added, after = named.get("sum"), part(a, "Activation", "LeakyReLU", "clip")
    slope = leaky_slope(w, after)
    if added is not None and after is not None and slope != 0:
        raise w.refuse("adds, and has another activation than relu behind it")
    unsigned = after is not None and not slope
    limits = (added, named.get("min_sum"), named.get("max_sum"))
    late = added is not None and slope == 0
    options = (*ends, unsigned, None if late else slope, *limits, late)
    out = w.call(mx_fused.requantize_convolution, y, shift, of_data, scale, *options)
    return out, *range_of(w, ends, x, low, high, least, most)


def dense_activation(w: Wiring, step: Any) -> tuple[str, float, bool]:
    """What comes after a dense layer, its number, and whether MXNet keeps it in uint8."""
    if step is None:
        return "", 0.0, False
    a, name = step.attributes, step.operator.name
    if name == "Activation" and a.act_type == "relu":
        return "leaky", 0.0, True
    if name == "LeakyReLU" and a.act_type in ("leaky", "elu", "gelu"):
        a.have_no_effect("lower_bound", "upper_bound")
        return str(a.act_type), float(a.slope), a.act_type == "leaky"
    if name == "abs":
        return "abs", 0.0, True
    if name == "clip" and a.a_min == 0:
        return "clip", float(a.a_max), True
    raise w.refuse(f"joins {step.node.where}, which MXNet does not join to integers")


def dense_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    """The inputs of a fused dense layer."""
    dense = part(a, "FullyConnected")
    names = ("data", "weight") if dense is None else dense.operator.inputs(dense.attributes)
    of = (names[:1] if a.channel_wise_quantize else names) if a.quantized else ()
    return (*names, *(f"{end}_{name}" for name in of for end in ("min", "max")))


@registered(
    "_sg_mkldnn_fully_connected",
    dense_inputs,
    f"{FUSED}, with_eltwise: boolean = False, enable_float_output: boolean = False, "
    "channel_wise_quantize: boolean? = None",
    lambda a: 3 if a.quantized and not a.enable_float_output else 1,
    graphs=1,
)
def fused_dense(w: Wiring, a: Attributes, *inputs: fx.Node) -> Wired:
    checked(w, a, "FullyConnected", *AFTER)
    dense = part(a, "FullyConnected").attributes
    a.have_no_effect("with_eltwise")
    if not a.quantized:
        a.have_no_effect("min_calib_range", "max_calib_range", "enable_float_output")
        a.have_no_effect("channel_wise_quantize")
        return joined(w, a, inputs)
    named = dict(zip(dense_inputs(a), inputs, strict=True))
    x, weight, bias = named["data"], named["weight"], named.get("bias")
    w.expect(weight, (dense.num_hidden, None), "weight")
    ends = (a.min_calib_range, a.max_calib_range)
    if None not in ends and a.enable_float_output:
        raise w.refuse("is calibrated and gives floating point, expected one of them")
    low, high = named["min_data"], named["max_data"]
    if a.channel_wise_quantize:
        if None in ends and not a.enable_float_output:
            raise w.refuse("has a scale for each channel and is not calibrated")
        every = w.call(mx_fused.eight_bits, weight, bias, x, low, high, True, 1, part="eight")
    else:
        limits = [named.get(f"{end}_{of}") for of in ("weight", "bias") for end in ("min", "max")]
        every = w.call(mx_fused.dense_weights, weight, bias, x, low, high, *limits, part="eight")
    whole, shift, of_data, scale = outputs_of(w, every, 4, "eight")
    flat = w.call(torch.flatten, x, 1, part="flat") if dense.flatten else x
    y = w.call(F.linear, wide(w, flat, "wide"), whole, part="sums")
    kind, alpha, unsigned = dense_activation(w, part(a, *AFTER))
    out = w.call(
        mx_fused.requantize_dense, y, None if bias is None else shift, of_data, scale, *ends,
        unsigned, a.enable_float_output, kind, alpha,
    )  # fmt: skip
    if a.enable_float_output:
        return out
    return out, *range_of(w, ends, x, low, high, named.get("min_weight"), named.get("max_weight"))
