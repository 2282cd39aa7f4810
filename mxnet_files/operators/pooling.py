"""Pooling, in MXNet's three conventions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_nn
from mxnet_files.operators.neural import (
    LAYOUT,
    channels_first,
    channels_last,
    check_kernel,
    is_last,
    spatial,
)
from mxnet_files.reading.attributes import Attribute, Attributes, boolean, declared
from mxnet_files.registry import Wired, Wiring, registered

LONG_SUM = 64  # elements
PLAIN_MAX = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
PLAIN_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


WINDOW = "kernel: shape = (), stride: shape = (), pad: shape = (), global_pool: boolean = False"


@registered(
    "Pooling",
    "data",
    {
        **declared(
            f"{WINDOW}, pool_type: (max|avg|sum|lp) = max, pooling_convention: (valid|full|same) = "
            f"valid, p_value: integer? = None, {LAYOUT}, cudnn_off: ignored"
        ),
        "count_include_pad": Attribute(lambda text: text == "None" or boolean(text), True),
    },
    dtypes=Dtypes.FLOATING,
)
def pooling(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    part = "step" if is_last(a) else ""
    x = channels_first(w, a, x)
    if a.pool_type == "lp" and a.p_value not in (1, 2, 3):
        raise w.refuse(f"p_value={a.p_value}, expected 1, 2 or 3 for lp pooling")
    if a.pool_type != "lp":
        a.have_no_effect("p_value")
    if a.pool_type != "avg":
        a.have_no_effect("count_include_pad")
    if a.global_pool:
        a.have_no_effect("kernel", "stride", "pad", "pooling_convention", "count_include_pad")
        if a.pool_type == "avg" and len(a.kernel) == 2:
            y = w.call(F.adaptive_avg_pool2d, x, (1, 1), part=part)
        else:
            y = w.call(mx_nn.global_pool, x, a.pool_type, a.p_value or 2, part=part)
        return channels_last(w, a, y)
    check_kernel(w, a)
    stride, pad = spatial(w, a, "stride", 1), spatial(w, a, "pad", 0)
    if a.pooling_convention == "same":
        raise w.refuse("pooling_convention=same, which MXNet 1.9 cannot run either")
    full = a.pooling_convention == "full"
    # torch pads at most half a kernel; `full` may need windows that torch leaves out
    plain = not full and all(2 * p <= k for p, k in zip(pad, a.kernel, strict=True))
    if plain and a.pool_type == "max":
        y = w.call(PLAIN_MAX[len(a.kernel)], x, a.kernel, stride, pad, part=part)
    elif plain and len(a.kernel) == 2 and a.pool_type == "avg" and math.prod(a.kernel) > LONG_SUM:
        # rows, then columns: rounding errors grow with the length of a sum
        (high, wide), (down, right), (top, left) = a.kernel, stride, pad
        count = a.count_include_pad
        rows = (high, 1), (down, 1), (top, 0), False, count
        columns = (1, wide), (1, right), (0, left), False, count
        y = w.call(F.avg_pool2d, w.call(F.avg_pool2d, x, *rows, part="rows"), *columns, part=part)
    elif plain and a.pool_type == "avg":
        function = PLAIN_AVERAGE[len(a.kernel)]
        y = w.call(function, x, a.kernel, stride, pad, False, a.count_include_pad, part=part)
    else:
        general = mx_nn.pool_1d if len(a.kernel) == 1 else mx_nn.pool
        kept = (stride, pad, full, a.count_include_pad, a.p_value or 2)
        y = w.call(general, x, a.pool_type, a.kernel, *kept, part=part)
    return channels_last(w, a, y)


@registered(
    "Pooling_v1",
    "data",
    f"{WINDOW}, pool_type: (max|avg|sum) = max, pooling_convention: (valid|full) = valid",
    dtypes=Dtypes.FLOATING,
)
def pooling_v1(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    if a.global_pool:
        a.have_no_effect("kernel", "stride", "pad", "pooling_convention")
        return w.call(mx_nn.global_pool, x, a.pool_type)
    if len(a.kernel) not in (2, 3):
        raise w.refuse(f"kernel={a.kernel}, expected two or three positive numbers")
    check_kernel(w, a)
    stride, pad = spatial(w, a, "stride", 1), spatial(w, a, "pad", 0)
    full = a.pooling_convention == "full"
    return w.call(mx_nn.pool_v1, x, a.pool_type, a.kernel, stride, pad, full)


@registered(
    "_contrib_AdaptiveAvgPooling2D", "data", "output_size: shape = ()", dtypes=Dtypes.FLOATING
)
def adaptive_average(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    size = a.output_size or (1,)
    if len(size) > 2:
        raise w.refuse(f"output_size={size}, expected one or two numbers")
    return w.call(F.adaptive_avg_pool2d, x, size * 2 if len(size) == 1 else size)
