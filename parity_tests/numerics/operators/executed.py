"""What the table of operators says of an executed operation, and the kinds only functions have."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from parity_tests.numerics.operators.batch_norm import (
    beside_channels,
    instance_norm_scales,
    normalised_rows,
)
from parity_tests.numerics.operators.cases import Change, ScaleCase, Scales
from parity_tests.numerics.operators.formulas import (
    MEASURED,
    elementwise,
    linear,
    matrix_product,
    measured,
    stepwise,
)
from parity_tests.numerics.operators.record import (
    Hyper,
    Operator,
    Rounds,
    Tolerance,
    constant,
    plus_length,
    plus_root,
)
from parity_tests.reporting.verdicts import Side

Attributes = Mapping[str, Any]
Shapes = Mapping[str, Sequence[int]]
_Read = Callable[[Attributes, Shapes], tuple[str, Hyper]]

# Smooth functions that MXNet computes in float32: where one side has some arithmetic beside them,
# nothing in float64 tells what a wide bound hides
STEPPED = frozenset({"elu", "selu", "gelu"})

_UNIT = 2.0**-24  # of float32, in which MXNet's clip computes in either dtype


def _moved(case: ScaleCase) -> Scales:
    """Values that are moved or chosen: exact; what meets in one place is added backward.

    A number of the code that float32 does not hold is rounded once, in the places that it fills.
    """
    sizes = {name: np.zeros_like(value) for name, value in case.run.items()}
    for number in case.hyper.values():
        if isinstance(number, float) and number != np.float32(number):
            sizes["output"][case.y == number] = abs(number)
    if case.upstream is not None:
        back = case.rerun(np.abs, True)
        gradients = [name for name in sizes if name.endswith("gradient")]
        sizes |= {name: np.abs(back[name]) for name in gradients if name in back}
    return Scales(case.kind, sizes)


def _sum(case: ScaleCase) -> Scales:
    """a ± b rounds once, against |a| + |b|; what broadcasts adds its gradients up."""
    size = sum(np.abs(x) for x in case.inputs) + abs(case.hyper.get("scalar", 0.0))
    if len(case.inputs) == 1 and "scalar" not in case.hyper:  # b is a parameter, |b| ≤ |a| + |y|
        a = case.x.reshape(case.y.shape) if case.x.size == case.y.size else np.abs(case.x).max()
        size = 2 * np.abs(a) + np.abs(case.y)
    if case.y.size == size.size:
        size = size.reshape(case.y.shape)
    return Scales(case.kind, {**_moved(case).sizes, "output": size})


def _clip_scale(case: ScaleCase) -> Scales:
    # where the rounded x may lie on the other side of a bound, the gradient may be on or off
    size = np.abs(case.x)
    bounds = (bound for name in ("min", "max") if (bound := case.hyper.get(name)) is not None)
    near = [np.abs(case.x - bound) <= 8 * _UNIT * size for bound in bounds]
    jump = np.where(np.any(near, axis=0), 1 / _UNIT, 1.0) if near else 1.0
    return elementwise(case, np.abs(case.y), case.g * jump)


def _resized(case: ScaleCase) -> Scales:
    """A weight that is 0 may become u·n, so that what lies next to a pixel counts as it does.

    A coordinate s = i·r has two roundings, of r and of the product: 2u·s, where s goes up to the
    longer of both sides. Along each axis that counts as often as neighbours differ, which is by
    twice the larger of them at most.
    """
    scales = linear(case)
    scales.length = 4 * len(case.y.shape[2:]) * max(*case.x.shape[2:], *case.y.shape[2:], 1)
    beside = case.rerun(lambda array: _largest_beside(np.abs(array)), False)
    for name, size in scales.sizes.items():
        values = beside[name] if name.startswith("output") else _largest_beside(size)
        scales.sizes[name] = np.maximum(size, np.abs(values))
    return scales


def _largest_beside(images: np.ndarray) -> np.ndarray:
    """The largest value in the 3×3 pixels, or as many in other dimensions, around each."""
    for axis in range(2, images.ndim):
        around = [(1, 1) if a == axis else (0, 0) for a in range(images.ndim)]
        padded = np.pad(images, around)  # there is nothing below 0
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis)
        images = windows.max(axis=-1)
    return images


def _layer_norm(case: ScaleCase) -> Scales:
    gamma = case.parameter("weight")
    axis = case.hyper.get("axis", -1)
    if axis not in (-1, case.x.ndim - 1) and gamma is not None and gamma.ndim == 1:
        return _over_axis(case, axis)
    length = case.x.shape[-1] if gamma is None else gamma.size
    trailing = gamma is None or case.x.shape[case.x.ndim - gamma.ndim :] == gamma.shape
    scales = normalised_rows(case, case.x.size // length, gamma) if trailing else measured(case)
    scales.length = length
    return scales


def _cumulated(case: ScaleCase) -> Scales:
    scales = linear(case)
    scales.length = case.x.shape[case.hyper["axis"]]
    return scales


def _over_axis(case: ScaleCase, axis: int) -> Scales:
    """The scales of a layer norm over one axis that is not the last: of what has it there."""
    shapes = {case.x.shape, case.y.shape}

    def moved(x: np.ndarray, source: int = axis, to: int = -1) -> np.ndarray:
        return np.moveaxis(x, source, to) if x.shape in shapes else x

    def rerun(
        change: Change, upstream_only: bool, *, inside: bool = False
    ) -> dict[str, np.ndarray]:
        run = case.rerun(change, upstream_only, inside=inside)
        return {name: moved(x) for name, x in run.items()}

    last = replace(
        case,
        hyper={**case.hyper, "axis": -1},
        inputs=tuple(map(moved, case.inputs)),
        run={name: moved(x) for name, x in case.run.items()},
        upstream=None if case.upstream is None else tuple(map(moved, case.upstream)),
        rerun=rerun,
    )
    scales = _layer_norm(last)
    shapes.add(last.x.shape)
    for of in (scales.sizes, scales.drift):
        of.update({name: moved(x, -1, axis) for name, x in of.items() if name in case.run})
    return scales


def written_norm(case: ScaleCase) -> Scales:
    """Measured; a statistic of a norm that torch's side writes out, with the momentum of MXNet's.

    That is rounded: what is kept of the old statistic, and what is taken of the new one.
    """
    scales = measured(case)
    kept = case.hyper["kept"]
    for name in scales.sizes:
        old = case.parameter(name)
        if name.startswith("running_") and old is not None and kept < 1:
            new = (case.run[name] - kept * old) / (1 - kept)
            scales.raise_to(name, np.abs(old) + np.abs(new))
    return scales


def _group_norm(case: ScaleCase) -> Scales:
    return normalised_rows(case, case.x.shape[0] * case.hyper["groups"], beside_channels(case))


def _l2_normalize(case: ScaleCase) -> Scales:
    scales = measured(case)
    scales.length = case.x.shape[case.axis]
    if case.upstream is not None:  # (g − y·Σ g·y)/‖x‖ cancels along x, whatever is sent back
        square = (case.x**2).sum(axis=case.axis, keepdims=True)
        length = np.where(square > 0, np.sqrt(square), np.inf)
        y = np.abs(case.x) / length
        along = y * (case.g * y).sum(axis=case.axis, keepdims=True)
        scales.raise_to("input gradient", (case.g + along) / length)
    return scales


_IN_SINGLE = "MXNet's operator computes in float32 even in a float64 net"
_SINGLE = {("*", "gluon", "float64"): Tolerance(constant(16 * 2.0**29), _IN_SINGLE)}
_COORDINATES = (
    "a source coordinate up to s is off by 2u·s along each of k axes, and moves the weights by as "
    "much: n is 4·k·s"
)
_RESIZE = {
    ("*", "*", "*"): Tolerance(plus_length, _COORDINATES),
    ("*", "gluon", "float64"): Tolerance(
        lambda n: plus_length(n) * 2.0**29, f"{_COORDINATES}; {_IN_SINGLE}"
    ),
}
_MEASURED_SINGLE = {
    **MEASURED,
    ("*", "gluon", "float64"): Tolerance(constant(64 * 2.0**29), _IN_SINGLE),
}
_MAPS = (
    "MXNet adds a map's n values one by one in float32, as its BatchNorm does a channel's: √n "
    "more, and what repeating values leave, which is computed on them and allowed twice"
)
_ONE_BY_ONE = (
    "n values are added one by one: no sum is off by more than n·u of its size (Higham 2002, "
    "section 4.2)"
)
_ADDED = {
    **MEASURED,
    ("*", "gluon", "*"): Tolerance(
        lambda n: 48 + plus_length(n),
        "MXNet adds the n values one by one, or in a few lanes, in the dtype of the input: no sum "
        "is off by more than n·u of its size (Higham 2002, section 4.2), which values that repeat "
        "come near to. 382 was seen for a layer norm of 2,304 values, 2,658 for 10,000",
    ),
}
_INSTANCE_NORM = {
    **MEASURED,
    ("*", "gluon", "float32"): Tolerance(lambda n: 48 + plus_root(n), _MAPS),
    ("*", "gluon", "float64"): Tolerance(
        lambda n: (48 + plus_root(n)) * 2.0**29, f"{_MAPS}; {_IN_SINGLE}"
    ),
}
_SIXTH = "torch's derivative of a hard sigmoid holds 1/6 in float32"
_HARD_SWISH = {
    **MEASURED,
    ("train", "gluon", "float64"): Tolerance(constant(64 * 2.0**29), _SIXTH),
}
_LINE = (
    "MXNet's hard_sigmoid holds 1/6 in float32, off by 2⁻²⁵ of it: x·(x/6 + ½) is off by "
    "2⁻²⁵·x²/6; x²/6 is at most |y| + |x·dy/dx|, which the measured scale is no less than"
)
_HARD_SWISH_BY_LINE = {
    **MEASURED,
    ("inference", "gluon", "float64"): Tolerance(constant(64.0 + 2.0**29), _LINE),
    ("train", "gluon", "float64"): Tolerance(constant(64 * 2.0**29), f"{_LINE}; {_SIXTH}"),
}
_IN_GRADIENTS = {
    **MEASURED,
    ("train", "gluon", "float64"): Tolerance(
        constant(64 * 2.0**29), "a derivative holds a number in float32 even in a float64 net"
    ),
}

_WRITTEN = {
    **MEASURED,
    ("statistics", "gluon", "float64"): Tolerance(
        constant(64.0 + 2.0**28),
        "MXNet rounds the momentum to float32, and a norm that is written out need not: each of "
        "its parts is off by up to 2⁻²⁵ of the old statistic, or of the new one",
    ),
}
_STEPS = (
    "a function and some arithmetic beside it: what either rounds arrives as its derivative says, "
    "and adds up; arithmetic is off by 1 u at most, and the function as its own record says"
)
_IN_STEPS = {
    ("*", "*", "*"): Tolerance(constant(8.0), _STEPS),
    ("*", "gluon", "float64"): Tolerance(constant(8 * 2.0**29), f"{_STEPS}; {_IN_SINGLE}"),
}

_ERF = {
    **MEASURED,
    ("train", "gluon", "float64"): Tolerance(
        constant(64.0 + 2.0**29), "MXNet's derivative of erf holds 2/√π in float32"
    ),
}

OPERATORS = (
    *(Operator(kind=kind, scale=_sum) for kind in ("add", "sub")),
    *(
        Operator(kind=kind, scale=linear, linear=True)
        for kind in ("mul", "div", "mean", "sum")
    ),
    Operator(kind="matmul", scale=matrix_product, linear=True),
    Operator(
        kind="cumsum", scale=_cumulated, linear=True,
        tolerances={("*", "*", "*"): Tolerance(plus_length, _ONE_BY_ONE)},
    ),
    *(
        Operator(kind=kind, scale=_moved, rounds=Rounds.GRADIENTS)
        for kind in (
            "concat", "slice", "pad", "transpose", "expand", "maximum", "minimum", "abs", "take",
            "flip", "gather", "index", "mask", "max", "min", "where", "floor", "ceil", "round",
            "trunc", "sign",
        )
    ),
    Operator(kind="erf", scale=measured, tolerances=_ERF, single_gradients=(Side.GLUON,)),
    Operator(
        kind="hard_swish", scale=measured, tolerances=_HARD_SWISH, single_gradients=(Side.TORCH,)
    ),
    Operator(
        kind="hard_swish_by_line", scale=measured, tolerances=_HARD_SWISH_BY_LINE,
        single_precision=True, single_gradients=(Side.TORCH,),
    ),
    Operator(
        kind="clip", scale=_clip_scale, tolerances=_SINGLE, single_precision=True,
        single=("min", "max", "min_val", "max_val"), torch_names=("clamp", "hardtanh", "Hardtanh"),
    ),
    *(
        Operator(
            kind=kind, scale=scale, tolerances=_ADDED, single=("eps",), torch_names=names
        )
        for kind, scale, names in (
            ("layer_norm", _layer_norm, ("layer_norm", "LayerNorm")),
            ("l2_normalize", _l2_normalize, ("normalize",)),
        )
    ),
    Operator(
        kind="group_norm", scale=_group_norm, tolerances=MEASURED, single=("eps",),
        torch_names=("group_norm", "GroupNorm"),
    ),
    Operator(
        kind="instance_norm", scale=instance_norm_scales, tolerances=_INSTANCE_NORM,
        single_precision=True, single=("eps",), torch_names=("instance_norm", "_InstanceNorm"),
    ),
    Operator(kind="resize", scale=_resized, tolerances=_RESIZE, single_precision=True),
    *(
        Operator(kind=kind, scale=measured, tolerances=MEASURED)
        for kind in (
            "exp", "log", "sin", "cos", "log1p", "expm1", "pow", "rpow", "rdiv", "rsub",
            "mish", "log_sigmoid", "celu", "lstm", "gru", "rnn_tanh", "lstmcell", "grucell",
            "rnncell",
        )
    ),
    *(
        Operator(kind=kind, scale=measured, tolerances=_MEASURED_SINGLE, single_precision=True)
        # of RNN's modes relu alone: tanh, LSTM and GRU are off by 2⁻⁵² there, relu by 2⁻²⁴
        for kind in ("lrn", "rnn_relu", "single")
    ),
    Operator(kind="single_gradients", scale=measured, tolerances=_IN_GRADIENTS),
    Operator(kind="written_norm", scale=written_norm, tolerances=_WRITTEN),
    Operator(kind="steps", scale=stepwise, tolerances=_IN_STEPS, single_precision=True),
)  # fmt: skip


def _conv(attributes: Attributes, shapes: Shapes) -> tuple[str, Hyper]:
    kernel = tuple(shapes["weight"][2:])
    hyper: Hyper = {
        "kernel": kernel,
        "stride": attributes["stride"],
        "pad": attributes["padding"],
        "dilation": attributes["dilation"],
        "groups": attributes["groups"],
    }
    if "output_padding" in attributes:
        hyper["output_pad"] = attributes["output_padding"]
        return f"conv{len(kernel)}d_transpose", hyper
    return f"conv{len(kernel)}d", hyper


def _batch_norm(attributes: Attributes, shapes: Shapes) -> tuple[str, Hyper]:
    return "batchnorm", {
        "eps": attributes["eps"],
        "kept": attributes["kept"],
        "scale": "weight" in shapes,
        "shift": "bias" in shapes,
        "axis": 1,
        "global_stats": attributes.get("global_stats", False),
    }


def _pool(kind: str, attributes: Attributes, shapes: Shapes) -> tuple[str, Hyper]:
    dimensions = len(shapes["input"]) - 2
    if kind.startswith("global_"):
        return f"{kind}{dimensions}d", {}
    if kind.startswith("adaptive_"):
        return f"{kind}{dimensions}d", {"output": tuple(shapes["output"][2:])}
    hyper: Hyper = {
        "kernel": attributes["kernel"],
        "stride": attributes["stride"],
        "pad": attributes["padding"],
        "ceil": attributes["ceil"],
    }
    if kind == "max_pool":
        return f"{kind}{dimensions}d", {**hyper, "dilation": attributes["dilation"]}
    more: Hyper = {"count_include_pad": attributes["include_pad"], "divisor": attributes["divisor"]}
    return f"{kind}{dimensions}d", {**hyper, **more}


def _renamed(kind: str, **names: str) -> _Read:
    """A record's kind, and its hyper-parameters by their names there."""
    return lambda attributes, shapes: (
        kind,
        {ours: attributes[theirs] for ours, theirs in names.items()},
    )


def _as_it_is(kind: str) -> _Read:
    return lambda attributes, shapes: (kind, dict(attributes))


# The record's name and hyper-parameters, from the name and attributes in the common vocabulary
_READ: dict[str, _Read] = {
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _renamed("dense"),
    "batch_norm": _batch_norm,
    "leaky_relu": _renamed("leaky_relu", slope="negative_slope"),
    "elu": _renamed("elu", alpha="alpha"),
    "gelu": _renamed("gelu", approximate="approximate"),
    "silu": lambda attributes, shapes: ("silu", {"beta": 1.0}),
    "softplus": _renamed("softplus", beta="beta"),
    "hard_sigmoid": _renamed("hard_sigmoid", alpha="alpha", beta="beta"),
    "prelu": _renamed("prelu"),
    "embedding": _renamed("embedding"),
    "softmax": _renamed("softmax", axis="axis"),
    "softmin": _renamed("softmin", axis="axis"),
    "log_softmax": _renamed("log_softmax", axis="axis"),
    "dropout": _renamed("dropout", p="p", axes="axes"),
    **{kind: _renamed(kind) for kind in ("relu", "sigmoid", "tanh", "selu", "softsign")},
    **{
        f"{form}{pool}": partial(_pool, f"{form}{pool}")
        for form in ("", "global_", "adaptive_")
        for pool in ("max_pool", "avg_pool")
    },
    **{operator.kind: _as_it_is(operator.kind) for operator in OPERATORS},
    "rnn": lambda attributes, shapes: (str(attributes["mode"]), dict(attributes)),
}


def kind_of_executed(kind: str, attributes: Attributes, shapes: Shapes) -> tuple[str, Hyper] | None:
    """The record of an operation of the common vocabulary, and its hyper-parameters there.

    `shapes` are those of its operands by role, and of its "output". None: no record is written.
    """
    read = _READ.get(kind)
    return None if read is None else read(attributes, shapes)


# MXNet's operators that hold their numbers in float32, beside which torch may have them as written
IN_FLOAT32 = frozenset({"_image_normalize"})
# Those of several steps, each known by itself, that compute in float32 alone
_STEPS_IN_FLOAT32 = frozenset(
    f"_contrib_interleaved_matmul_{name}"
    for name in ("selfatt_qk", "selfatt_valatt", "encdec_qk", "encdec_valatt")
)


def is_single(executed: Set[str], *, written: bool) -> bool:
    """Whether MXNet, which executed operators of these names, rounded to float32 in one of them.

    `written`: torch reads a number of its code there.
    """
    return bool(executed & _STEPS_IN_FLOAT32) or (written and bool(executed & IN_FLOAT32))


def kind_beside(kind: str, executed: Container[str]) -> str:
    """The record of an operation of both sides, where MXNet executed operators of these names."""
    by_line = kind == "hard_swish" and "hard_sigmoid" in executed
    return "hard_swish_by_line" if by_line else kind


def kind_of_rounding(kind: str, attributes: Attributes) -> str:
    """The record that says how an operation of the common vocabulary rounds."""
    return str(attributes["mode"]) if kind == "rnn" else kind


def is_known(kind: str) -> bool:
    """Whether the table has a record for an operation of the common vocabulary."""
    return kind in _READ


# What MXNet's operators give that compare, in whichever dtype, is true or false
_COMPARISON = re.compile(
    r"(_|_npi_|_contrib_|broadcast_)?(logical_(and|or|xor|not)|is(nan|inf|finite)|(not_)?equal"
    r"|(less|lesser|greater)(_equal)?|bitwise_(and|or|xor|not))(_scalar)?"
)
# The other operators that have no record here, and compute in float64 in a float64 net, with their
# gradients. `mx.np` has some by the same names
_IN_DOUBLE = frozenset(
    {"tan", "arctan", "arcsin", "arccos", "sinh", "cosh", "arcsinh", "arccosh", "arctanh", "log2",
     "log10", "cbrt", "rcbrt", "smooth_l1", "broadcast_hypot", "_hypot_scalar", "mod", "im2col",
     "col2im", "SequenceMask", "SequenceReverse", "diag", "tril", "moments", "nansum",
     "nanprod", "prod", "norm", "sort", "reshape", "scatter_nd", "_linalg_syrk", "_linalg_trmm",
     "_linalg_inverse", "arctan2", "tensordot", "tensordot_int_axes", "nan_to_num"}
)  # fmt: skip


def in_double(kind: str) -> bool:
    """Whether MXNet computes an operation that has no record in float64 in a float64 net.

    >>> in_double("_greater_equal_scalar"), in_double("_npi_tan"), in_double("gamma")
    (True, True, False)
    """
    bare = kind.removeprefix("_npi_").removeprefix("_np_")
    return bare in _IN_DOUBLE or _COMPARISON.fullmatch(kind) is not None
