"""Readers of executed torch calls that are layers or activations."""

from __future__ import annotations

import math
from typing import Any

from parity_tests.backends.torch.tracing.packed import Packed, is_packed
from parity_tests.backends.torch.tracing.reading import Reader, dim, unknown
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import (
    Arguments,
    Emit,
    axis,
    emit_dropout,
    emit_pool,
    emit_recurrent,
    emit_take,
    per_axis,
    real,
)


def conv(args: Arguments, emit: Emit) -> Operand:
    x, weight = args["input"], args["weight"]
    count = len(weight.shape) - 2
    padding = args.attribute("padding", 0)
    dilation = per_axis(args.attribute("dilation", 1), count)
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = tuple(t // 2 for t in total)
        if any(t % 2 for t in total):  # the odd one goes behind
            widths = ((0, 0), (0, 0), *((0, t % 2) for t in total))
            grown = tuple(s + a + b for s, (a, b) in zip(x.shape, widths, strict=True))
            x = emit("pad", [("input", x)], grown, widths=widths, mode="constant", value=0.0)
    return emit(
        "conv",
        [("input", x), ("weight", weight), ("bias", args.get("bias"))],
        args.shape,
        stride=per_axis(args.attribute("stride", 1), count),
        padding=per_axis(padding, count),
        dilation=dilation,
        groups=int(args.attribute("groups", 1)),
    )


def conv_transpose(args: Arguments, emit: Emit) -> Operand:
    weight = args["weight"]
    count = len(weight.shape) - 2
    return emit(
        "conv_transpose",
        [("input", args["input"]), ("weight", weight), ("bias", args.get("bias"))],
        args.shape,
        stride=per_axis(args.attribute("stride", 1), count),
        padding=per_axis(args.attribute("padding", 0), count),
        output_padding=per_axis(args.attribute("output_padding", 0), count),
        dilation=per_axis(args.attribute("dilation", 1), count),
        groups=int(args.attribute("groups", 1)),
    )


def linear(args: Arguments, emit: Emit) -> Operand:
    roles = ("input", "weight", "bias")
    return emit("linear", [(role, args.get(role)) for role in roles], args.shape)


def batch_norm(args: Arguments, emit: Emit) -> Operand:
    momentum = args.attribute("momentum")
    return emit(
        "batch_norm",
        [
            ("input", args["input"]),
            ("weight", args.get("weight")),
            ("bias", args.get("bias")),
            ("running_mean", args.get("running_mean")),
            ("running_var", args.get("running_var")),
        ],
        args.shape,
        eps=real(args.attribute("eps", 1e-5)),
        kept=None if momentum is None else real(1.0 - float(momentum)),
    )


def norm(kind: str, **more: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        attributes = {name: int(args.attribute(source)) for name, source in more.items()}
        if kind == "layer_norm":
            attributes["axis"] = args["input"].shape.__len__() - len(
                args.attribute("normalized_shape")
            )
        roles = ("input", "weight", "bias")
        return emit(
            kind,
            [(role, args.get(role)) for role in roles],
            args.shape,
            eps=real(args.attribute("eps", 1e-5)),
            **attributes,
        )

    return read


def pool(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        x = args["input"]
        count = len(x.shape) - 2
        kernel = per_axis(args.attribute("kernel_size"), count)
        stride = args.attribute("stride")
        window: dict[str, Any] = {
            "kernel": kernel,
            "stride": per_axis(stride, count) if stride not in (None, (), []) else kernel,
            "padding": per_axis(args.attribute("padding", 0), count),
            "ceil": bool(args.attribute("ceil_mode", False)),
        }
        if kind == "avg_pool":
            window["include_pad"] = bool(args.attribute("count_include_pad", True))
            window["divisor"] = args.attribute("divisor_override")
        else:
            window["dilation"] = per_axis(args.attribute("dilation", 1), count)
        return emit_pool(emit, kind, x, args.shape, **window)

    return read


def adaptive(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        return emit(f"adaptive_{kind}", [("input", args["input"])], args.shape)

    return read


def clip(low: str, high: str, default: tuple[float, float] = (-math.inf, math.inf)) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        ends = [args.attribute(name, end) for name, end in zip((low, high), default, strict=True)]
        values = [real(d if e is None else e) for e, d in zip(ends, default, strict=True)]
        return emit("clip", [("input", args.first)], args.shape, min=values[0], max=values[1])

    return read


def softmax(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        along = axis(dim(args, -1), len(args.shape))
        return emit(kind, [("input", args.first)], args.shape, axis=along)

    return read


def interpolate(args: Arguments, emit: Emit) -> Operand:
    mode = str(args.attribute("mode", "nearest"))
    smooth = mode != "nearest"
    return emit(
        "resize",
        [("input", args["input"])],
        args.shape,
        mode={"linear": "bilinear", "nearest-exact": "nearest_exact"}.get(mode, mode),
        align_corners=bool(args.attribute("align_corners")) if smooth else False,
    )


def dropout(over: int) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        rate = real(args.attribute("p", 0.5))
        if not args.attribute("training", args.attribute("train", True)) or not rate:
            return args.first
        kept = tuple(range(2, len(args.shape))) if over else ()
        return emit_dropout(emit, args.first, rate, kept, args.shape)

    return read


def gelu(args: Arguments, emit: Emit) -> Operand:
    form = str(args.attribute("approximate", "none"))
    return emit("gelu", [("input", args.first)], args.shape, approximate=form)


def prelu(args: Arguments, emit: Emit) -> Operand:
    return emit("prelu", [("input", args["input"]), ("weight", args["weight"])], args.shape)


def lrn(args: Arguments, emit: Emit) -> Operand:
    return emit(
        "lrn",
        [("input", args["input"])],
        args.shape,
        size=int(args.attribute("size")),
        alpha=real(args.attribute("alpha", 1e-4)),
        beta=real(args.attribute("beta", 0.75)),
        k=real(args.attribute("k", 1.0)),
    )


def embedding(args: Arguments, emit: Emit) -> Operand:
    return emit_take(emit, args["weight"], args.index("input"), 0, args.shape)


def normalize(args: Arguments, emit: Emit) -> Operand:
    along = axis(args.attribute("dim", 1), len(args.shape))
    divisor = f"max(‖x‖, {real(args.attribute('eps', 1e-12))})"
    return emit("l2_normalize", [("input", args.first)], args.shape, axis=along, divisor=divisor)


def rnn(mode: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> list[Operand]:
        packed = Packed(args, emit) if is_packed(args, emit) else None
        given = list(args.arrays.items())
        first: list[tuple[str, Operand | None]] = [*given[:1]]
        if packed is not None:
            if packed.inputs is None:
                return unknown(mode, args, emit)
            first = packed.inputs
        # states of zeros are the default, given or not
        others = given[1 if packed is None else packed.count :]
        inputs = [*first, *((role, x) for role, x in others if not emit.is_zero(x))]
        layers = int(args.attribute("num_layers", 1))
        rate = real(args.attribute("dropout", 0.0)) if emit.train and layers > 1 else 0.0
        layout = {"batch_first": bool(args.attribute("batch_first", False))}
        shapes = list(args.operation.shapes)
        x, lengths = first[0][1], None
        if packed is not None:
            layout, lengths = packed.layout, first[1][1]
            assert x is not None
            shapes[: packed.count] = [(*x.shape[:2], args.shape[-1])]
        out, *states = emit_recurrent(
            emit,
            mode,
            inputs,
            shapes,
            mode=str(args.attribute("mode", mode)).lower(),
            layers=layers,
            dropout=rate,
            bidirectional=bool(args.attribute("bidirectional", False)),
            **layout,
        )
        if packed is None or lengths is None:
            return [out, *states]
        return [*packed.packed(out, lengths), *states]

    return read
