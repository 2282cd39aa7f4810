"""Convolution, dense layers, activations, dropout, embedding, attention as MXNet fuses it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_attention, mx_math, mx_nn
from mxnet_files.layers import Dropout
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, register, register_call, registered

SPEED = "workspace: ignored, cudnn_tune: ignored, cudnn_off: ignored"
LAYOUT = "layout: (NCW|NWC|NCHW|NHWC|NCDHW|NDHWC)? = None"


def spatial(w: Wiring, a: SimpleNamespace, key: str, default: int) -> tuple[int, ...]:
    """A spatial attribute, one number for each axis of the kernel."""
    value = getattr(a, key)
    if len(value) == 0:
        return (default,) * len(a.kernel)
    if len(value) != len(a.kernel) or not all(isinstance(size, int) for size in value):
        raise w.refuse(f"{key}={value} beside kernel={a.kernel}, expected a number per axis")
    if min(value) < min(default, 1):
        raise w.refuse(f"{key}={value}, expected numbers of at least {min(default, 1)}")
    return value


def check_kernel(w: Wiring, a: SimpleNamespace) -> None:
    """Refuse kernels other than 1-D, 2-D or 3-D, and those that the layout does not fit."""
    if not 1 <= len(a.kernel) <= 3 or not all(size and size > 0 for size in a.kernel):
        raise w.refuse(f"kernel={a.kernel}, expected one to three positive numbers")
    layout = getattr(a, "layout", None)
    if layout is not None and len(layout) != len(a.kernel) + 2:
        raise w.refuse(f"layout={layout} beside kernel={a.kernel}, expected an axis for each")


def is_last(a: SimpleNamespace) -> bool:
    """True where the layout has channels last."""
    return a.layout is not None and a.layout.endswith("C")


def channels_first(w: Wiring, a: SimpleNamespace, x: fx.Node, part: str = "nchw") -> fx.Node:
    """x with channels at axis 1 (also for weights: (O, ..., I) -> (O, I, ...))."""
    # positive axes: torch's ONNX exporter writes negative ones as they are
    return w.call(torch.movedim, x, len(a.layout) - 1, 1, part=part) if is_last(a) else x


def channels_last(w: Wiring, a: SimpleNamespace, y: fx.Node) -> fx.Node:
    """y back in the node's own layout."""
    return w.call(torch.movedim, y, 1, len(a.layout) - 1) if is_last(a) else y


CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def groups(w: Wiring, a: SimpleNamespace) -> None:
    """Refuse filters that the groups do not divide."""
    if a.num_group < 1 or a.num_filter < 1 or a.num_filter % a.num_group:
        raise w.refuse(f"num_filter={a.num_filter}, num_group={a.num_group} do not divide")


def bias_unless(a: SimpleNamespace) -> tuple[str, ...]:
    return ("data", "weight") if a.no_bias else ("data", "weight", "bias")


@registered(
    "Convolution Convolution_v1",
    bias_unless,
    "kernel: shape, stride: shape = (), dilate: shape = (), pad: shape = (), "
    f"num_filter: integer, num_group: integer = 1, no_bias: boolean = False, {LAYOUT}, {SPEED}",
    dtypes=Dtypes.FLOATING,
)
def convolution(
    w: Wiring, a: SimpleNamespace, x: fx.Node, weight: fx.Node, bias: fx.Node | None = None
) -> Wired:
    check_kernel(w, a)
    groups(w, a)
    last = is_last(a)
    w.expect(weight, (a.num_filter, *a.kernel, None) if last else (a.num_filter, None, *a.kernel),
             "weight")  # fmt: skip
    w.expect(bias, (a.num_filter,), "bias")
    part = "step" if last else ""
    y = w.call(
        CONVOLUTIONS[len(a.kernel)],
        channels_first(w, a, x),
        channels_first(w, a, weight, "weight_nchw"),
        bias,
        spatial(w, a, "stride", 1),
        spatial(w, a, "pad", 0),
        spatial(w, a, "dilate", 1),
        a.num_group,
        part=part,
    )
    return channels_last(w, a, y)


@registered(
    "Deconvolution",
    bias_unless,
    "kernel: shape, stride: shape = (), dilate: shape = (), pad: shape = (), "
    "adj: shape = (), target_shape: shape = (), num_filter: integer, num_group: integer = 1, "
    f"no_bias: boolean = True, {LAYOUT}, {SPEED}",
    dtypes=Dtypes.FLOATING,
)
def deconvolution(
    w: Wiring, a: Attributes, x: fx.Node, weight: fx.Node, bias: fx.Node | None = None
) -> Wired:
    check_kernel(w, a)
    groups(w, a)
    if is_last(a):
        raise w.refuse(f"layout={a.layout}, expected channels first")
    w.expect(weight, (None, a.num_filter // a.num_group, *a.kernel), "weight")
    w.expect(bias, (a.num_filter,), "bias")
    stride, dilate = spatial(w, a, "stride", 1), spatial(w, a, "dilate", 1)
    if any(a.target_shape):  # MXNet works out pad and adj from it
        a.have_no_effect("pad", "adj")
        target = spatial(w, a, "target_shape", 0)
        return w.call(mx_nn.deconvolution_to, x, weight, bias, target, stride, dilate, a.num_group)
    pad, adjust = spatial(w, a, "pad", 0), spatial(w, a, "adj", 0)
    function = TRANSPOSED[len(a.kernel)]
    return w.call(function, x, weight, bias, stride, pad, adjust, a.num_group, dilate)


@registered(
    "FullyConnected",
    bias_unless,
    "num_hidden: integer, no_bias: boolean = False, flatten: boolean = True",
    dtypes=Dtypes.FLOATING,
)
def fully_connected(
    w: Wiring, a: SimpleNamespace, x: fx.Node, weight: fx.Node, bias: fx.Node | None = None
) -> Wired:
    w.expect(weight, (a.num_hidden, None), "weight")
    w.expect(bias, (a.num_hidden,), "bias")
    if a.flatten and x not in w.flat:
        x = w.call(torch.flatten, x, 1, part="flat")
    y = w.call(F.linear, x, weight, bias)
    if a.flatten:
        w.flat.add(y)
    return y


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softrelu": F.softplus,
    "softsign": F.softsign,
}
register(
    "Activation",
    lambda w, a, x: w.call(ACTIVATIONS[a.act_type], x),
    "data",
    f"act_type: ({'|'.join(ACTIVATIONS)})",
    dtypes=Dtypes.FLOATING,
)


@registered(
    "LeakyReLU",
    lambda a: ("data", "gamma") if a.act_type == "prelu" else ("data",),
    "act_type: (leaky|prelu|elu|selu|gelu|rrelu) = leaky, slope: real = 0.25, "
    "lower_bound: real = 0.125, upper_bound: real = 0.334",
    dtypes=Dtypes.FLOATING,
)
def leaky_relu(w: Wiring, a: Attributes, x: fx.Node, gamma: fx.Node | None = None) -> Wired:
    if a.act_type not in ("leaky", "elu"):
        a.have_no_effect("slope")
    if a.act_type != "rrelu":
        a.have_no_effect("lower_bound", "upper_bound")
    if a.act_type == "prelu":
        found = w.shape(gamma)
        if found is not None and len(found) != 1:
            gamma = w.method("reshape", gamma, -1, part="slope")
        return w.call(torch.prelu, x, gamma)
    if a.act_type == "rrelu":
        return w.layer(nn.RReLU(a.lower_bound, a.upper_bound), x)
    if a.act_type == "leaky":
        return w.call(F.leaky_relu, x, a.slope)
    if a.act_type == "elu":
        return w.call(F.elu, x, a.slope)
    function: Callable[..., Any] = mx_nn.selu if a.act_type == "selu" else F.gelu
    return w.call(function, x)


register_call(
    "hard_sigmoid",
    mx_math.hard_sigmoid,
    "data",
    "alpha: real = 0.2, beta: real = 0.5",
    dtypes=Dtypes.FLOATING,
)


@registered(
    "Dropout",
    "data",
    "p: real = 0.5, mode: (training|always) = training, axes: shape = (), cudnn_off: ignored",
    dtypes=Dtypes.FLOATING,
)
def dropout(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if not 0 <= a.p < 1:
        raise w.refuse(f"p={a.p}, expected a fraction below 1")
    if a.axes or a.mode == "always":
        return w.layer(Dropout(a.p, a.axes, a.mode == "always"), x)
    return w.layer(nn.Dropout(a.p), x)


def embedding(w: Wiring, a: Attributes, x: fx.Node, weight: fx.Node) -> Wired:
    w.expect(weight, (a.input_dim, a.output_dim), "weight")
    a.have_no_effect("dtype")  # it is that of the weight
    return w.call(mx_nn.embedding, x, weight)


EMBEDDING = "input_dim: integer, output_dim: integer, dtype: dtype = float32, sparse_grad: ignored"
register("Embedding", embedding, "data weight", EMBEDDING, dtypes=Dtypes.LAST)
register(
    "_contrib_SparseEmbedding",
    embedding,
    "data weight",
    f"{EMBEDDING}, deterministic: ignored",
    dtypes=Dtypes.LAST,
)


def interleaved(function: Callable[..., Any]) -> Callable[..., Wired]:
    """A product with an interleaved sequence."""

    def build(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
        if a.heads < 1:
            raise w.refuse(f"heads={a.heads}, expected at least 1")
        return w.call(function, *inputs, a.heads)

    return build


INTERLEAVED: dict[str, tuple[Callable[..., Any], str]] = {
    "selfatt_qk": (mx_attention.scores_self, "queries_keys_values"),
    "selfatt_valatt": (mx_attention.attend_self, "queries_keys_values attention"),
    "encdec_qk": (mx_attention.scores, "queries keys_values"),
    "encdec_valatt": (mx_attention.attend, "keys_values attention"),
}
for _name, (_function, _inputs) in INTERLEAVED.items():
    register(
        f"_contrib_interleaved_matmul_{_name}",
        interleaved(_function),
        _inputs,
        "heads: integer",
        dtypes=Dtypes.FLOATING,
    )
register_call("_contrib_div_sqrt_dim", mx_attention.div_sqrt_dim, "data", dtypes=Dtypes.FLOATING)


def windows(w: Wiring, a: SimpleNamespace) -> tuple[tuple[int, ...], ...]:
    """Kernel, dilation, padding and stride as torch's fold and unfold take them."""
    if len(a.kernel) != 2:
        raise w.refuse(f"kernel={a.kernel}, expected two numbers")
    check_kernel(w, a)
    rest = (("dilate", 1), ("pad", 0), ("stride", 1))
    return (a.kernel, *(spatial(w, a, key, default) for key, default in rest))


WINDOWS = "kernel: shape, stride: shape = (), dilate: shape = (), pad: shape = ()"
register(
    "im2col",
    lambda w, a, x: w.call(F.unfold, x, *windows(w, a)),
    "data",
    WINDOWS,
    dtypes=Dtypes.FLOATING,
)


@registered("col2im", "data", f"output_size: shape, {WINDOWS}", dtypes=Dtypes.FLOATING)
def col2im(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    size = a.output_size
    if len(size) != 2 or not all(side and side > 0 for side in size):
        raise w.refuse(f"output_size={size}, expected two positive numbers")
    return w.call(F.fold, x, size, *windows(w, a))
