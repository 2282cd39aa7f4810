"""Softmax and its relatives, and the output layers that bring their own gradient."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_attention, mx_loss, mx_math
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.reading.attributes import Attribute, Attributes, boolean, declared
from mxnet_files.registry import Wired, Wiring, register, register_call, registered


def softmax(kind: str) -> Callable[..., Wired]:
    """softmax, log_softmax or softmin."""

    def build(w: Wiring, a: SimpleNamespace, x: fx.Node, length: fx.Node | None = None) -> Wired:
        sign = -1.0 if kind == "softmin" else 1.0
        temperature = sign * (1.0 if a.temperature is None else a.temperature)
        if temperature == 0:
            raise w.refuse("temperature=0, expected another number")
        cast = a.dtype is not None
        part = "step" if cast else ""
        if length is not None:
            log = kind == "log_softmax"
            y = w.call(mx_math.softmax_length, x, length, a.axis, temperature, log, part=part)
        else:
            if temperature != 1:
                x = w.call(torch.div, x, temperature, part="scaled")
            function = torch.log_softmax if kind == "log_softmax" else torch.softmax
            y = w.call(function, x, a.axis, part=part)
        return w.method("to", y, torch_dtype(a.dtype)) if cast else y

    return build


SOFTMAX = {
    **declared(
        "axis: integer = -1, temperature: double? = None, dtype: (float16|float32|float64)? = None"
    ),
    "use_length": Attribute(lambda text: text != "None" and boolean(text), False),
}


def data_and_length(a: SimpleNamespace) -> tuple[str, ...]:
    return ("data", "length") if a.use_length else ("data",)


register("softmax", softmax("softmax"), data_and_length, SOFTMAX, dtypes=Dtypes.FLOATING)
register("log_softmax", softmax("log_softmax"), "data", SOFTMAX, dtypes=Dtypes.FLOATING)
register("softmin", softmax("softmin"), "data", SOFTMAX, dtypes=Dtypes.FLOATING)
register(
    "SoftmaxActivation",
    lambda w, a, x: w.call(torch.softmax, x, 1 if a.mode == "channel" else -1),
    "data",
    "mode: (instance|channel) = instance",
    dtypes=Dtypes.FLOATING,
)

NORMALIZATION = "normalization: (null|batch|valid) = null"


@registered(
    "SoftmaxOutput Softmax",
    "data label",
    "grad_scale: real = 1.0, ignore_label: real = -1.0, multi_output: boolean = False, "
    f"use_ignore: boolean = False, preserve_shape: boolean = False, {NORMALIZATION}, "
    "out_grad: boolean = False, smooth_alpha: real = 0.0",
    dtypes=Dtypes.FLOATING,
)
def softmax_output(w: Wiring, a: SimpleNamespace, x: fx.Node, label: fx.Node) -> Wired:
    mode = "channel" if a.multi_output else "last" if a.preserve_shape else "all"
    if not 0 <= a.smooth_alpha <= 1:
        raise w.refuse(f"smooth_alpha={a.smooth_alpha}, expected a fraction")
    ignore = a.ignore_label if a.use_ignore else None
    return w.call(
        mx_loss.softmax_output,
        x,
        label,
        mode,
        a.normalization,
        a.grad_scale,
        ignore,
        a.ignore_label,
        a.smooth_alpha,
        a.out_grad,
    )


def regression(kind: str) -> Callable[..., Wired]:
    """linear, logistic or mae."""
    return lambda w, a, x, label: w.call(mx_loss.regression_output, x, label, kind, a.grad_scale)


for _name, _kind in (("Linear", "linear"), ("Logistic", "logistic"), ("MAE", "mae")):
    register(
        f"{_name}RegressionOutput _sparse_{_name}RegressionOutput",
        regression(_kind),
        "data label",
        "grad_scale: real = 1.0",
        dtypes=Dtypes.FLOATING,
    )
register_call(
    "MakeLoss",
    mx_loss.make_loss,
    "data",
    f"grad_scale: real = 1.0, {NORMALIZATION}, valid_thresh: real = 0.0",
    dtypes=Dtypes.FLOATING,
)
register_call("make_loss", mx_loss.make_loss, "data", dtypes=Dtypes.SAME)
register_call("_contrib_round_ste", mx_loss.round_straight, "data", dtypes=Dtypes.REAL)
register_call("_contrib_sign_ste", mx_loss.sign_straight, "data", dtypes=Dtypes.SAME)


@registered(
    "_contrib_gradientmultiplier",
    "data",
    "scalar: double = 1.0, is_int: boolean = True",
    dtypes=Dtypes.SAME,
)
def multiply_gradient(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    a.have_no_effect("is_int")
    return w.call(mx_loss.multiply_gradient, x, a.scalar)


def ctc_inputs(a: SimpleNamespace) -> tuple[str, ...]:
    lengths = ("data_lengths",) if a.use_data_lengths else ()
    return ("data", "label", *lengths, *(("label_lengths",) if a.use_label_lengths else ()))


@registered(
    "CTCLoss ctc_loss _contrib_CTCLoss _contrib_ctc_loss",
    ctc_inputs,
    "use_data_lengths: boolean = False, use_label_lengths: boolean = False, "
    "blank_label: (first|last) = first",
    dtypes=Dtypes.FIRST,
)
def ctc_loss(w: Wiring, a: Attributes, x: fx.Node, label: fx.Node, *sizes: fx.Node) -> Wired:
    given = list(sizes)
    lengths = given.pop(0) if a.use_data_lengths else None
    of_labels = given.pop(0) if a.use_label_lengths else None
    first = a.blank_label == "first"
    return w.call(mx_attention.ctc_loss, x, label, lengths, of_labels, first)


register_call(
    "SVMOutput",
    mx_loss.svm_output,
    "data label",
    "margin: real = 1.0, regularization_coefficient: real = 1.0, use_linear: boolean = False",
    dtypes=Dtypes.FLOATING,
)
register_call(
    "softmax_cross_entropy", mx_loss.softmax_cross_entropy, "data label", dtypes=Dtypes.FLOATING
)
