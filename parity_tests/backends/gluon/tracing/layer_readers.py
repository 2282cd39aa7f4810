"""Readers of executed MXNet operators that are layers or activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parity_tests.backends.gluon.tracing.reading import (
    Reader,
    attribute,
    flag,
    unknown,
    within,
)
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import (
    Arguments,
    Emit,
    axis,
    constant,
    emit_dropout,
    emit_moved,
    emit_pool,
    emit_recurrent,
    emit_take,
    per_axis,
    real,
)

# MXNet's names of an RNN layer's or cell's parameters, by torch's
_RNN_ROLES = {"i2h_weight": "weight_ih", "h2h_weight": "weight_hh",
              "i2h_bias": "bias_ih", "h2h_bias": "bias_hh", "h2r_weight": "weight_hr"}  # fmt: skip


def conv(args: Arguments, emit: Emit) -> Operand:
    x, weight = args["data"], args["weight"]
    count = len(weight.shape) - 2
    last = str(attribute(args, "layout", "NCHW")).endswith("C")
    shape = args.shape
    if last:
        x = emit_moved(emit, x, len(x.shape) - 1, 1)
        weight = emit_moved(emit, weight, len(x.shape) - 1, 1)
        shape = (shape[0], shape[-1], *shape[1:-1])
    out = emit(
        "conv",
        [("input", x), ("weight", weight), ("bias", args.get("bias"))],
        shape,
        stride=per_axis(attribute(args, "stride", ()) or 1, count),
        padding=per_axis(attribute(args, "pad", ()) or 0, count),
        dilation=per_axis(attribute(args, "dilate", ()) or 1, count),
        groups=int(attribute(args, "num_group", 1)),
    )
    return emit_moved(emit, out, 1, len(shape) - 1) if last else out


def normalize_image(args: Arguments, emit: Emit) -> Operand:
    """`transforms.Normalize`: each channel less a mean, by a deviation, both in float32."""
    x = args.first
    for kind, name, default in (("sub", "mean", 0.0), ("div", "std", 1.0)):
        numbers = np.atleast_1d(np.asarray(attribute(args, name, default), np.float32))
        value, _ = constant(numbers)
        other = Operand("other", value, (len(numbers), 1, 1))
        x = emit(kind, [("input", x), ("other", other)], args.shape)
    return x


def image_to_tensor(args: Arguments, emit: Emit) -> Operand:
    """`transforms.ToTensor`: images (…, H, W, C) of 0 to 255 as (…, C, H, W) of 0 to 1."""
    x = emit("cast", [("input", args.first)], args.first.shape, dtype=args.operation.dtypes[0])
    moved = emit_moved(emit, x, len(x.shape) - 1, len(x.shape) - 3)
    return emit("mul", [("input", moved)], args.shape, scalar=1 / 255)


def conv_transpose(args: Arguments, emit: Emit) -> Operand:
    weight = args["weight"]
    count = len(weight.shape) - 2
    return emit(
        "conv_transpose",
        [("input", args["data"]), ("weight", weight), ("bias", args.get("bias"))],
        args.shape,
        stride=per_axis(attribute(args, "stride", ()) or 1, count),
        padding=per_axis(attribute(args, "pad", ()) or 0, count),
        output_padding=per_axis(attribute(args, "adj", ()) or 0, count),
        dilation=per_axis(attribute(args, "dilate", ()) or 1, count),
        groups=int(attribute(args, "num_group", 1)),
    )


def dense(args: Arguments, emit: Emit) -> Operand:
    x = args["data"]
    if flag(args, "flatten", True):
        x = emit("reshape", [("input", x)], (x.shape[0], math.prod(x.shape[1:])))
    inputs = [("input", x), ("weight", args["weight"]), ("bias", args.get("bias"))]
    return emit("linear", inputs, args.shape)


def batch_norm(args: Arguments, emit: Emit) -> Operand:
    x = args["data"]
    rank = len(x.shape)
    along = axis(attribute(args, "axis", 1), rank)
    if along != 1:
        x = emit_moved(emit, x, along, 1)
    gamma = None if flag(args, "fix_gamma", True) else args["gamma"]
    out = emit(
        "batch_norm",
        [
            ("input", x),
            ("weight", gamma),
            ("bias", args["beta"]),
            ("running_mean", args["moving_mean"]),
            ("running_var", args["moving_var"]),
        ],
        x.shape,
        eps=real(attribute(args, "eps", 1e-3)),
        kept=real(attribute(args, "momentum", 0.9)),
    )
    return emit_moved(emit, out, 1, along) if along != 1 else out


def norm(kind: str, default: float) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        x = args["data"]
        attributes: dict[str, object] = {"eps": real(attribute(args, "eps", default))}
        if kind == "layer_norm":
            attributes["axis"] = axis(attribute(args, "axis", -1), len(x.shape))
        if kind == "group_norm":
            attributes["groups"] = int(attribute(args, "num_groups", 1))
        inputs = [("input", x), ("weight", args.get("gamma")), ("bias", args.get("beta"))]
        return emit(kind, inputs, args.shape, **attributes)

    return read


def pool(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    count = len(x.shape) - 2
    kind = f"{attribute(args, 'pool_type', 'max')}_pool"
    if flag(args, "global_pool"):
        return emit(f"global_{kind}", [("input", x)], args.shape)
    window: dict[str, Any] = {
        "kernel": per_axis(attribute(args, "kernel", ()), count),
        "stride": per_axis(attribute(args, "stride", ()) or 1, count),
        "padding": per_axis(attribute(args, "pad", ()) or 0, count),
        "ceil": attribute(args, "pooling_convention", "valid") == "full",
    }
    if kind == "avg_pool":
        window["include_pad"] = flag(args, "count_include_pad", True)
        window["divisor"] = None
    else:
        window["dilation"] = (1,) * count
    return emit_pool(emit, kind, x, args.shape, **window)


def adaptive(args: Arguments, emit: Emit) -> Operand:
    return emit("adaptive_avg_pool", [("input", args.first)], args.shape)


def activation(args: Arguments, emit: Emit) -> Operand:
    name = str(attribute(args, "act_type", "relu"))
    kind = {"softrelu": "softplus"}.get(name, name)
    attributes = {"beta": 1.0} if kind == "softplus" else {}
    return emit(kind, [("input", args.first)], args.shape, **attributes)


def leaky_relu(args: Arguments, emit: Emit) -> Operand:
    form = str(attribute(args, "act_type", "leaky"))
    inputs: list[tuple[str, Operand | None]] = [("input", args["data"])]
    slope = real(attribute(args, "slope", 0.25))
    if form == "prelu":
        return emit("prelu", [*inputs, ("weight", args["gamma"])], args.shape)
    attributes: dict[str, dict[str, object]] = {
        "elu": {"alpha": slope},
        "leaky": {"negative_slope": slope},
        "gelu": {"approximate": "none"},
    }
    kind = {"leaky": "leaky_relu"}.get(form, form)
    return emit(kind, inputs, args.shape, **attributes.get(form, {}))


def clip(args: Arguments, emit: Emit) -> Operand:
    low, high = attribute(args, "a_min", -math.inf), attribute(args, "a_max", math.inf)
    return emit("clip", [("input", args.first)], args.shape, min=real(low), max=real(high))


def hard_sigmoid(args: Arguments, emit: Emit) -> Operand:
    alpha, beta = real(attribute(args, "alpha", 0.2)), real(attribute(args, "beta", 0.5))
    return emit("hard_sigmoid", [("input", args.first)], args.shape, alpha=alpha, beta=beta)


def softmax(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        along = axis(attribute(args, "axis", -1), len(args.shape))
        inputs = [("input", args.first), ("length", args.get("length"))]  # with `use_length`
        return emit(kind, inputs, args.shape, axis=along)

    return read


def bilinear(args: Arguments, emit: Emit) -> Operand:
    aligned = flag(args, "align_corners", True)
    inputs = [("input", args.first)]
    return emit("resize", inputs, args.shape, mode="bilinear", align_corners=aligned)


def upsample(args: Arguments, emit: Emit) -> Operand:
    mode = str(attribute(args, "sample_type", "nearest"))
    inputs = [("input", args.first)]
    return emit("resize", inputs, args.shape, mode=mode, align_corners=False)


def dropout(args: Arguments, emit: Emit) -> Operand:
    rate = real(attribute(args, "p", 0.5))
    always = attribute(args, "mode", "training") == "always"
    if not rate or not (always or emit.train):
        return args.first
    over = tuple(attribute(args, "axes", ()))
    return emit_dropout(emit, args.first, rate, over, args.shape)


def lrn(args: Arguments, emit: Emit) -> Operand:
    return emit(
        "lrn",
        [("input", args.first)],
        args.shape,
        size=int(attribute(args, "nsize", 5)),
        alpha=real(attribute(args, "alpha", 1e-4)),
        beta=real(attribute(args, "beta", 0.75)),
        k=real(attribute(args, "knorm", 2.0)),
    )


def embedding(args: Arguments, emit: Emit) -> Operand:
    weight = args["weight"]
    return emit_take(emit, weight, within(args, "data", weight.shape[0]), 0, args.shape)


def normalize(args: Arguments, emit: Emit) -> Operand:
    # of rows alone an instance is a row
    if attribute(args, "mode", "instance") != "channel" and len(args.shape) != 2:
        return unknown(args, emit)[0]
    divisor = f"√(‖x‖² + {real(attribute(args, 'eps', 1e-10))})"
    return emit("l2_normalize", [("input", args.first)], args.shape, axis=1, divisor=divisor)


def rnn(mode: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> list[Operand]:
        inputs: list[tuple[str, Operand | None]] = []
        for role, x in args.arrays.items():
            if role == args.attribute("lengths"):
                inputs.append(("lengths", x))
                continue
            if role.startswith("input."):
                if role == "input.0" or not emit.is_zero(x):
                    inputs.append((role, x))
                continue
            place, _, rest = role.partition("_") if role[0] in "lr" else ("", "", role)
            suffix = f"_l{place[1:]}" if place else ""
            reverse = "_reverse" if place.startswith("r") else ""
            inputs.append((_RNN_ROLES.get(rest, rest) + suffix + reverse, x))
        layers = int(args.attribute("num_layers", 1))
        rate = real(args.attribute("dropout", 0.0)) if emit.train and layers > 1 else 0.0
        shapes = args.operation.shapes
        # a cell returns its output and its states, of which the first is the output again
        again = int(mode.endswith("cell"))
        made = emit_recurrent(
            emit,
            mode,
            inputs,
            shapes[again:],
            mode=str(args.attribute("mode", mode)),
            layers=layers,
            dropout=rate,
            bidirectional=args.attribute("dir", 1) == 2,
            batch_first=args.attribute("layout", "TNC") == "NTC",
        )
        return [*made[:again], *made]

    return read
