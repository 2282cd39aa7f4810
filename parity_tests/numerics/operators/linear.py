"""Linear operators: convolutions, dense layers, and LeNet-5's own sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from parity_tests.numerics.operators.cases import ReferenceCase
from parity_tests.numerics.operators.formulas import linear, with_bias
from parity_tests.numerics.operators.record import Hyper, Operator, Reader, Shapes
from parity_tests.numerics.rounding import mantissa

_ROUNDED = ("TF32 rounding", "float16 rounding")


def number(value: Any, dimensions: int) -> tuple[int, ...]:
    """A window's size written as one number or as a tuple, as a tuple."""
    return (int(value),) * dimensions if isinstance(value, int) else tuple(int(v) for v in value)


def _gluon_conv(b: Any) -> Hyper:
    options = b._kwargs
    dimensions = len(options["kernel"])
    hyper: Hyper = {
        "kernel": number(options["kernel"], dimensions),
        "stride": number(options["stride"], dimensions),
        "pad": number(options["pad"], dimensions),
        "dilation": number(options["dilate"], dimensions),
        "groups": int(options["num_group"]),
    }
    if b._op_name == "Deconvolution":
        hyper["output_pad"] = number(options.get("adj", 0), dimensions)
    if not str(options["layout"]).startswith("NC"):
        hyper["layout"] = options["layout"]
    return hyper


def _torch_conv(m: Any) -> Hyper:
    dimensions = len(m.kernel_size)
    hyper: Hyper = {
        "kernel": number(m.kernel_size, dimensions),
        "stride": number(m.stride, dimensions),
        "pad": _torch_padding(m, dimensions),
        "dilation": number(m.dilation, dimensions),
        "groups": int(m.groups),
    }
    if m.transposed:
        hyper["output_pad"] = number(m.output_padding, dimensions)
    return hyper


def _torch_padding(m: Any, dimensions: int) -> object:
    if m.padding_mode != "zeros":
        return f"{m.padding} filled by {m.padding_mode}"
    if m.padding == "valid":
        return (0,) * dimensions
    if m.padding != "same":
        return number(m.padding, dimensions)
    total = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
    return tuple(t // 2 for t in total) if not any(t % 2 for t in total) else "same, asymmetric"


def _is_gluon_conv(dimensions: int, transposed: bool, b: Any) -> bool:
    rank = len(b._kwargs["kernel"])
    return (rank, b._op_name == "Deconvolution") == (dimensions, transposed)


def _is_torch_conv(dimensions: int, transposed: bool, m: Any) -> bool:
    return (len(m.kernel_size), bool(m.transposed)) == (dimensions, transposed)


def _conv_shape(
    dimensions: int, transposed: bool, hyper: Mapping[str, Any], shapes: Shapes
) -> tuple[int, ...]:
    weight = shapes["weight"]
    channels = weight[0] if transposed else weight[1] * int(hyper["groups"])
    return (2, channels, *(17, 15, 13)[:dimensions])


def _rounded(c: ReferenceCase, value: Any) -> Any:
    single = value.detach().numpy().astype(np.float32)
    tf32 = c.fault == "TF32 rounding"
    short = mantissa(single, 10, away=True) if tf32 else single.astype(np.float16)
    return value + (c.torch.from_numpy(short.astype(np.float64)) - value).detach()


def _operands(c: ReferenceCase) -> tuple[Any, Any, Any]:
    bias = None if c.fault == "bias ignored" else c.tensors.get("bias")
    if c.fault in _ROUNDED:
        return _rounded(c, c.x), _rounded(c, c.tensors["weight"]), bias
    return c.x, c.tensors["weight"], bias


def _conv(dimensions: int, c: ReferenceCase) -> Any:
    x, weight, bias = _operands(c)
    convolve: Callable[..., Any] = getattr(c.functional, f"conv{dimensions}d")
    pad = c.hyper["pad"]
    how = (
        c.hyper["stride"],
        "same" if isinstance(pad, str) else pad,
        c.hyper["dilation"],
        c.hyper["groups"],
    )
    flipped = tuple(range(2, 2 + dimensions))
    if c.fault == "flipped kernel":
        return convolve(x, weight.flip(flipped), bias, *how)
    if c.fault == "flipped kernel backward":
        right = convolve(x.detach(), weight, bias, *how)
        wrong = convolve(x, weight.detach().flip(flipped), None, *how)
        return right + wrong - wrong.detach()
    return convolve(x, weight, bias, *how)


def _conv_transpose(dimensions: int, c: ReferenceCase) -> Any:
    x, weight, bias = _operands(c)
    convolve: Callable[..., Any] = getattr(c.functional, f"conv_transpose{dimensions}d")
    h = c.hyper
    return convolve(
        x, weight, bias, h["stride"], h["pad"], h["output_pad"], h["groups"], h["dilation"]
    )


def _dense(c: ReferenceCase) -> Any:
    x, weight, bias = _operands(c)
    weight = weight.flatten(1)  # of a 1×1 convolution of a 1×1 map
    along_last = x.shape[-1] == weight.shape[1]
    return c.functional.linear(x if along_last else x.flatten(1), weight, bias)


def _subsampling(c: ReferenceCase) -> Any:
    sums = c.functional.avg_pool2d(c.x, 2, 2, divisor_override=1)
    return sums * c.tensors["weight"][:, None, None] + c.tensors["bias"][:, None, None]


_CONV_FAULTS = (
    ("flipped kernel", "flipped kernel"),
    ("bias ignored", "bias ignored"),
    ("flipped kernel backward", "flipped kernel"),
)
_ROUNDING_FAULTS = tuple((name, name) for name in _ROUNDED)


def _convolution(dimensions: int, transposed: bool) -> Operator:
    return Operator(
        kind=f"conv{dimensions}d{'_transpose' if transposed else ''}",
        gluon=(Reader("_Conv", _gluon_conv, partial(_is_gluon_conv, dimensions, transposed)),),
        torch=(Reader("_ConvNd", _torch_conv, partial(_is_torch_conv, dimensions, transposed)),),
        scale=partial(with_bias, 1),
        linear=True,
        shape=partial(_conv_shape, dimensions, transposed),
        reference=partial(_conv_transpose if transposed else _conv, dimensions),
        faults=() if transposed else (*_CONV_FAULTS, *_ROUNDING_FAULTS),
    )


OPERATORS = (
    *(_convolution(d, transposed) for transposed in (False, True) for d in (1, 2, 3)),
    Operator(
        kind="dense",
        gluon=(Reader("Dense"),),
        torch=(Reader("Linear"),),
        scale=partial(with_bias, -1),
        linear=True,
        shape=lambda hyper, shapes: (3, shapes["weight"][1]),
        reference=_dense,
        faults=(("bias ignored", "bias ignored"), *_ROUNDING_FAULTS),
    ),
    Operator(
        kind="subsampling",
        own=Reader("TrainableSubsampling"),
        scale=linear,
        linear=True,
        shape=lambda hyper, shapes: (2, *shapes["weight"], 8, 6),
        reference=_subsampling,
    ),
    Operator(  # its table is in no hyper-parameter, so that it has no reference value
        kind="table_conv", own=Reader("TableConv2D"), scale=linear, linear=True
    ),
)
