"""The operators that nets of `mx.np` and `mx.npx` bring: numpy's names, shapes and dtypes.

A reduction of everything has shape (), a comparison is bool, and floating point is asked for where
numpy would convert integers. What MXNet enters under two names is the same operator here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_dtype, mx_math, mx_numpy, mx_shape
from mxnet_files.operators import (  # noqa: F401 (what has a second name)
    loss,
    neural,
    normalise,
    pooling,
    recurrent,
    reduction,
)
from mxnet_files.operators.arithmetic import PLAIN, same
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.operators.ordering import constant, counted, eye, spaced
from mxnet_files.operators.shape import MOST_OUTPUTS, increasing, transpose
from mxnet_files.reading.attributes import Attribute, Attributes, declared, word
from mxnet_files.registry import (
    OPERATORS,
    Wired,
    Wiring,
    outputs_of,
    register,
    register_call,
    registered,
)

# MXNet's second names; a file holds the first as a rule, MXNet 2 some of the others.
ALIASES = """
Activation:_npx_activation batch_dot:_npx_batch_dot Flatten:_npx_batch_flatten
BatchNorm:_npx_batch_norm Cast:_npx_cast,_npi_cast Convolution:_npx_convolution
Deconvolution:_npx_deconvolution Dropout:_npx_dropout Embedding:_npx_embedding erf:_npx_erf
erfinv:_npx_erfinv FullyConnected:_npx_fully_connected gamma:_npx_gamma gammaln:_npx_gammaln
gather_nd:_npx_gather_nd,_npi_gather_nd LayerNorm:_npx_layer_norm LeakyReLU:_npx_leaky_relu
log_softmax:_npx_log_softmax one_hot:_npx_one_hot pick:_npx_pick Pooling:_npx_pooling
reshape_like:_npx_reshape_like shape_array:_npx_shape_array slice:_npx_slice,_npi_slice
smooth_l1:_npx_smooth_l1 softmax:_npx_softmax argsort:_npi_argsort sort:_npi_sort clip:_npi_clip
expand_dims:_npi_expand_dims SwapAxis:_npi_swapaxes take:_npi_take tile:_npi_tile
_split_v2:_npi_split repeat:_np_repeat _full:_npi_full _maximum:_npi_maximum _minimum:_npi_minimum
_maximum_scalar:_npi_maximum_scalar _minimum_scalar:_npi_minimum_scalar
_hypot_scalar:_npi_hypot_scalar _rnn_param_concat:_npi_rnn_param_concat
"""
for _pair in ALIASES.split():
    _main, _others = _pair.split(":")
    for _other in _others.split(","):
        OPERATORS[_other] = OPERATORS[_main]

SAME_FUNCTION = """
arccos arccosh arcsin arcsinh arctan arctanh cbrt cos cosh degrees exp expm1 log log10 log1p log2
radians reciprocal sin sinh sqrt square tan tanh ceil fix floor negative rint sign trunc
"""


for _name in SAME_FUNCTION.split():
    register_call(f"_npi_{_name}", PLAIN[_name], "x", dtypes=Dtypes.FLOATING)
register_call("_npi_absolute _npi_abs", torch.abs, "x", dtypes=Dtypes.REAL)
register_call("_npi_logical_not", torch.logical_not, "x")
register_call("_npx_relu", torch.relu, "data", dtypes=Dtypes.FLOATING)
register_call("_npx_sigmoid", torch.sigmoid, "data", dtypes=Dtypes.FLOATING)
register("_np_copy", same, "a", dtypes=Dtypes.FIRST)
for _name, _function in (("nan", torch.isnan), ("inf", torch.isinf), ("finite", torch.isfinite)):
    register_call(f"_npi_is{_name}", _function, "x")

BINARY: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "true_divide": operator.truediv,
    "power": torch.pow,
    "mod": mx_math.mod,
    "hypot": torch.hypot,
    "arctan2": torch.atan2,
}
COMPARE: dict[str, Callable[..., Any]] = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "less": operator.lt,
    "less_equal": operator.le,
}
SCALAR = "scalar: double = 1.0, is_int: boolean = True"
names = {"arctan2": "x1 x2", "hypot": "x1 x2"}
for _name, _function in BINARY.items():
    _inputs = names.get(_name, "lhs rhs")
    register_call(f"_npi_{_name}", _function, _inputs, dtypes=Dtypes.FLOATING)


def beside_number(
    function: Callable[..., Any], number: str = "own", swapped: bool = False
) -> Callable[..., Wired]:
    """An array beside a number: `plain`, as an array of x's shape or as one of x's `own` dtype."""

    def build(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
        a.have_no_effect("is_int")  # beside floating point, or a number of x's dtype
        other = a.scalar
        if number == "filled":
            other = w.call(torch.full_like, x, a.scalar, part="scalar")
        elif number == "own":
            other = w.call(mx_dtype.number, a.scalar, x, part="scalar")
        return w.call(function, *((other, x) if swapped else (x, other)))

    return build


for _name, _function in BINARY.items():
    if _name in ("hypot", "arctan2"):
        continue
    # beside the number 0.5 torch takes the square root, which is NaN at -inf
    _kind = "filled" if _name in ("mod", "power") else "plain"
    _build = beside_number(_function, _kind)
    register(f"_npi_{_name}_scalar", _build, "data", SCALAR, dtypes=Dtypes.FLOATING)
    if _name not in ("add", "multiply"):
        _build = beside_number(_function, _kind, swapped=True)
        register(f"_npi_r{_name}_scalar", _build, "data", SCALAR, dtypes=Dtypes.FLOATING)
for _name, _function in COMPARE.items():
    register_call(f"_npi_{_name}", _function, "lhs rhs")
    register(f"_npi_{_name}_scalar", beside_number(_function), "data", SCALAR)

TRUTH = "axis: axes = (), keepdims: boolean = False"
AXES = f"{TRUTH}, initial: double? = None"
KIND = "dtype: dtype? = None"


def reducing(function: Callable[..., Any], *more: str) -> Callable[..., Wired]:
    """Over axes, or all of them to shape (); `more` are attributes that come behind the axes."""

    def build(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
        if getattr(a, "initial", None) is not None:
            raise w.refuse(f"initial={a.initial}, expected None")
        kind = getattr(a, "dtype", None)
        if kind is not None:
            x = w.method("to", x, torch_dtype(kind), part="cast")
        return w.call(function, x, a.axis, *(getattr(a, key) for key in more), a.keepdims)

    return build


REDUCTIONS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("_np_sum", mx_numpy.reduce_sum, f"{AXES}, {KIND}"),
    ("_npi_mean", mx_numpy.reduce_mean, f"{AXES}, {KIND}"),
    ("_np_prod _np_product", mx_numpy.reduce_prod, f"{AXES}, {KIND}"),
    ("_np_max _np_amax", mx_numpy.reduce_max, AXES),
    ("_np_min _np_amin", mx_numpy.reduce_min, AXES),
)
for _names, _reduce, _attributes in REDUCTIONS:
    register(_names, reducing(_reduce), "a", _attributes, dtypes=Dtypes.FLOATING)
register_call("_np_all", mx_numpy.reduce_all, "data", TRUTH)
register_call("_np_any _np_sometrue", mx_numpy.reduce_any, "data", TRUTH)
SPREAD = f"{TRUTH}, {KIND}, ddof: integer = 0"
for _name, _reduce in (("_npi_var", mx_numpy.variance), ("_npi_std", mx_numpy.deviation)):
    register(_name, reducing(_reduce, "ddof"), "a", SPREAD, dtypes=Dtypes.FLOATING)
ARGUMENT = "axis: integer? = None, keepdims: boolean = False"
register_call("_npi_argmax", mx_numpy.argmax, "data", ARGUMENT)
register_call("_npi_argmin", mx_numpy.argmin, "data", ARGUMENT)


RESHAPE = "newshape: integers, order: word = C"


@registered("_np_reshape", "a", RESHAPE, dtypes=Dtypes.FIRST)
def reshape(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    size = a.newshape
    if a.order != "C" or size.count(-1) > 1 or min(size, default=1) < -1:
        raise w.refuse(f"newshape={size}, order={a.order}, expected sizes and at most one -1")
    return w.call(torch.reshape, x, size)


# npx's codes, which slices of mx.np arrays are reshaped by, as mx.nd's; its -3 is none of those
CODES = {-2: 0, -3: -5, -4: -2, -5: -3, -6: -4}


@registered("_npx_reshape", "a", f"{RESHAPE}, reverse: boolean = False", dtypes=Dtypes.FIRST)
def coded_reshape(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    codes = a.newshape
    if a.order != "C" or min(codes, default=1) < -6 or 0 in codes:
        raise w.refuse(f"newshape={codes}, order={a.order}, expected sizes and codes from -6")
    if all(code > 0 or code == -1 for code in codes):
        a.have_no_effect("reverse")
        return w.call(torch.reshape, x, codes)
    return w.call(mx_shape.reshape, x, [CODES.get(code, code) for code in codes], a.reverse)


register("_np_transpose", transpose, "a", "axes: axes = ()", dtypes=Dtypes.FIRST)
register_call("_np_squeeze", mx_numpy.squeeze, "a", "axis: axes = ()", dtypes=Dtypes.FIRST)


@registered("_np_moveaxis", "a", "source: integers, destination: integers", dtypes=Dtypes.FIRST)
def moveaxis(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    axes = a.source, a.destination
    return w.call(torch.movedim if min(*axes[0], *axes[1], 0) == 0 else mx_numpy.moveaxis, x, *axes)


register_call("_npi_flip", torch.flip, "data", "axis: axes", dtypes=Dtypes.FIRST)
register_call(
    "_npi_broadcast_to", torch.broadcast_to, "array", "shape: integers = ()", dtypes=Dtypes.FIRST
)
register_call(
    "_npi_concatenate",
    mx_numpy.concatenate,
    None,
    "num_args: integer = 0, axis: integer? = 0",
    dtypes=Dtypes.SAME,
)
register_call(
    "_npi_stack", torch.stack, None, "axis: integer = 0, num_args: integer = 0", dtypes=Dtypes.SAME
)
register_call("_npi_where", mx_numpy.where, "condition x y", dtypes=Dtypes.LAST)
NUMBER = "scalar: double = 0.0"
for _side, _array in (("l", "x"), ("r", "y")):  # the number is the left or the right choice
    register(
        f"_npi_where_{_side}scalar",
        lambda w, a, c, x, last=_side == "r": w.call(mx_numpy.where_number, c, x, a.scalar, last),
        f"condition {_array}",
        NUMBER,
        dtypes=Dtypes.LAST,
    )
register(
    "_npi_where_scalar2",
    lambda w, a, c: w.call(mx_numpy.where_numbers, c, a.x, a.y, torch.float32),
    "condition",
    "x: double = 0.0, y: double = 0.0",
    dtypes=Dtypes.MADE,
)


def joining(kind: str) -> Callable[..., Wired]:
    return lambda w, a, *inputs: w.call(mx_numpy.joined, list(inputs), kind)


JOINED = "num_args: integer"
for _name in ("vstack", "column_stack"):
    register(f"_npi_{_name}", joining(_name), None, JOINED, dtypes=Dtypes.SAME)
for _name in ("hstack", "dstack"):  # MXNet describes a `dim` of these, and does not heed it
    register(f"_npi_{_name}", joining(_name), None, f"{JOINED}, dim: ignored", dtypes=Dtypes.SAME)


@registered(
    "_npi_pad",
    "data",
    "pad_width: pairs, mode: (constant|edge|maximum|minimum|reflect|symmetric) = constant, "
    "constant_value: double = 0.0, reflect_type: word = even",
    dtypes=Dtypes.FIRST,
)
def pad(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    a.have_no_effect("reflect_type")  # MXNet does not heed it
    return w.call(mx_numpy.pad, x, a.pad_width, a.mode, a.constant_value)


for _name, _moved in (
    ("_npi_tril", mx_numpy.tril),
    ("_np_diag", mx_numpy.diag),
    ("_np_diagflat", mx_numpy.diagflat),
):
    register_call(_name, _moved, "data", "k: integer = 0", dtypes=Dtypes.FIRST)


@registered("_np_roll", "data", "shift: integers? = None, axis: axes? = None", dtypes=Dtypes.FIRST)
def roll(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    shift, axes = a.shift or (), a.axis or ()
    if len(shift) == 1:
        shift = shift * max(1, len(axes))
    if not shift or len(shift) != max(1, len(axes)):
        raise w.refuse(f"shift={a.shift}, axis={a.axis}, expected a number for each axis")
    return w.call(mx_numpy.roll, x, shift, axes)


register(
    "_npi_einsum",
    lambda w, a, *inputs: w.call(torch.einsum, a.subscripts, list(inputs)),
    None,
    {**declared("num_args: integer, optimize: ignored"), "subscripts": Attribute(word, "")},
    dtypes=Dtypes.FLOATING,
)
register_call("_npi_matmul", torch.matmul, "a b", dtypes=Dtypes.FLOATING)
register_call("_np_dot", mx_numpy.dot, "a b", dtypes=Dtypes.FLOATING)

MADE = "dtype: dtype = float32, ctx: ignored"


def made(value: float) -> Callable[..., Wired]:
    """Zeros or ones; in np shapes a 0 is a size."""

    def build(w: Wiring, a: SimpleNamespace) -> Wired:
        counted(w, math.prod(map(float, a.shape)))
        if min(a.shape, default=0) < 0:
            raise w.refuse(f"shape={a.shape}, expected sizes")
        return w.constant(torch.full(a.shape, value, dtype=torch_dtype(a.dtype)))

    return build


SHAPED = f"shape: integers = (), {MADE}"
register("_npi_zeros", made(0.0), "", SHAPED, dtypes=Dtypes.MADE)
register("_npi_ones", made(1.0), "", SHAPED, dtypes=Dtypes.MADE)


@registered("_npi_full_like", "a", "fill_value: double, dtype: dtype? = None, ctx: ignored")
def full_like(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.dtype is None and x in w.floating:
        return w.call(torch.full_like, x, a.fill_value)
    if a.dtype is None:
        number = w.call(mx_dtype.number, a.fill_value, x, part="number")
    else:
        wide = torch.tensor(a.fill_value, dtype=torch.float64)
        number = w.constant(mx_dtype.cast(wide, torch_dtype(a.dtype)))
    return w.method("expand_as", number, x)


WINDOWS = {  # of a cosine
    "hanning": (0.5, 0.5, 0.0),
    "hamming": (0.54, 0.46, 0.0),
    "blackman": (0.42, 0.5, 0.08),
}


def window(level: float, first: float, second: float) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace) -> Wired:
        if a.M is None:
            raise w.refuse("M is missing, expected a length")
        places = np.arange(counted(w, a.M), dtype=np.float32)
        angles = np.float32(2 * np.pi) * places / np.float32(max(a.M - 1, 1))  # as MXNet rounds
        turn = angles.astype(np.float64)
        values = level - first * np.cos(turn) + second * np.cos(2 * turn)
        return constant(w, values if a.M > 1 else np.ones(a.M), a.dtype)

    return build


FLOATS = "dtype: (float16|float32|float64) = float32, ctx: ignored"
for _name, _parts in WINDOWS.items():
    register(
        f"_npi_{_name}", window(*_parts), "", f"M: integer? = None, {FLOATS}", dtypes=Dtypes.MADE
    )


@registered(
    "_npi_logspace",
    "",
    "start: double, stop: double, num: integer, endpoint: boolean = True, "
    f"base: double = 10.0, {FLOATS}",
    dtypes=Dtypes.MADE,
)
def logspace(w: Wiring, a: Attributes) -> Wired:
    with np.errstate(all="ignore"):
        values = np.float64(a.base) ** spaced(w, a)
    return constant(w, values, a.dtype)


RANGE = OPERATORS["_arange"]
register("_npi_arange", RANGE.build, "", RANGE.attributes, dtypes=Dtypes.MADE)


register(
    "_npi_eye",
    eye(lambda a: a.N if a.M is None else a.M),
    "",
    f"N: integer, M: integer? = None, k: integer = 0, {MADE}",
    dtypes=Dtypes.MADE,
)


@registered("_npi_around", "x", "decimals: integer = 0", dtypes=Dtypes.FLOATING)
def around(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if abs(a.decimals) > 64:
        raise w.refuse(f"decimals={a.decimals}, expected -64 to 64")
    return w.call(mx_numpy.around, x, a.decimals)


@registered(
    "_npi_norm",
    "data",
    "ord: double = 2.0, axis: axes = (), keepdims: boolean = False, flag: integer = -1",
    dtypes=Dtypes.FLOATING,
)
def norm(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    """The flags of `np.linalg.norm`: -2 everything, -1 by order, 0 singular values, 1 L2, 2 sum."""
    axes = a.axis
    told = f"flag={a.flag}, ord={a.ord}, axis={a.axis}"
    if len(axes) == (0 if a.flag == -2 else 1) and a.flag in (-2, -1, 1):
        if not math.isfinite(a.ord) or (a.flag != -1 and a.ord != 2):
            raise w.refuse(f"{told}, expected a finite order, and 2 beside this flag")
        return w.call(mx_numpy.norm, x, a.ord, axes, a.keepdims)
    if len(axes) != 2 or a.flag not in (-1, 0, 1, 2) or abs(a.ord) != 2:
        raise w.refuse(f"{told}, expected the norms of np.linalg.norm")
    if a.flag == 1:
        return w.call(mx_numpy.norm, x, 2.0, axes, a.keepdims)
    kind = "sum" if a.flag == 2 else "largest" if a.ord > 0 else "smallest"
    return w.call(mx_numpy.matrix_norm, x, kind, axes, a.keepdims)


def splitting(only: int) -> Callable[..., Wired]:
    """hsplit or dsplit, along their one axis."""

    def build(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
        if a.axis != only or a.squeeze_axis:
            raise w.refuse(f"axis={a.axis}, squeeze_axis={a.squeeze_axis}, expected axis {only}")
        starts = a.indices if a.sections > 0 else increasing(w, a)
        count = a.sections if a.sections > 0 else len(starts)
        if count > MOST_OUTPUTS:
            raise w.refuse(f"{count} parts, expected at most {MOST_OUTPUTS}")
        parts = w.call(mx_numpy.split, x, max(a.sections, 0), starts, only, part="parts")
        return outputs_of(w, parts, count)

    return build


SPLIT = OPERATORS["_split_v2"]
for _name, _axis in (("hsplit", 1), ("dsplit", 2)):
    register(
        f"_npi_{_name}",
        splitting(_axis),
        "data",
        SPLIT.attributes,
        SPLIT.outputs,
        dtypes=Dtypes.FIRST,
    )


@registered(
    "_npi_tensordot",
    "a b",
    "a_axes_summed: integers, b_axes_summed: integers",
    dtypes=Dtypes.FLOATING,
)
def tensordot(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    left, right = a.a_axes_summed, a.b_axes_summed
    if len(left) != len(right):
        raise w.refuse(f"a_axes_summed={left}, b_axes_summed={right}, expected as many")
    return w.call(mx_numpy.tensordot, x, y, left, right)


@registered("_npi_tensordot_int_axes", "a b", "axes: integer", dtypes=Dtypes.FLOATING)
def tensordot_last(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.axes < 0:
        raise w.refuse(f"axes={a.axes}, expected a number of axes")
    return w.call(mx_numpy.tensordot_last, x, y, a.axes)


PLANE = "offset: integer = 0, axis1: integer = 0, axis2: integer = 1"
register_call("_np_diagonal", mx_numpy.diagonal, "data", PLANE, dtypes=Dtypes.FIRST)
register_call("_np_trace", mx_numpy.trace, "data", PLANE, dtypes=Dtypes.FIRST)


for _name in ("and", "or", "xor"):
    _function = getattr(torch, f"bitwise_{_name}")
    register_call(f"_npi_bitwise_{_name}", _function, "lhs rhs", dtypes=Dtypes.SAME)
    register(
        f"_npi_bitwise_{_name}_scalar", beside_number(_function), "data", SCALAR, dtypes=Dtypes.SAME
    )
register_call("_npi_bitwise_not", torch.bitwise_not, "x", dtypes=Dtypes.SAME)
SIGNS: dict[str, Callable[..., Any]] = {
    "copysign": mx_numpy.copysign,
    "ldexp": mx_numpy.ldexp,
    "arctan2": torch.atan2,
}
for _name, _function in SIGNS.items():
    if _name != "arctan2":  # which is above
        register_call(f"_npi_{_name}", _function, "lhs rhs", dtypes=Dtypes.FLOATING)
    for _letter in ("", "r"):
        register(
            f"_npi_{_letter}{_name}_scalar",
            beside_number(_function, "filled", swapped=_letter == "r"),
            "data",
            SCALAR,
            dtypes=Dtypes.FLOATING,
        )
register("_npi_isposinf", lambda w, a, x: w.call(mx_numpy.infinite, x, 1.0), "x")
register("_npi_isneginf", lambda w, a, x: w.call(mx_numpy.infinite, x, -1.0), "x")
register_call(
    "_npi_nan_to_num",
    torch.nan_to_num,
    "data",
    "copy: ignored, nan: double = 0.0, posinf: double? = None, neginf: double? = None",
    dtypes=Dtypes.FIRST,
)


def atleast(count: int) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
        parts = w.call(mx_numpy.atleast, list(inputs), count, part="all")
        return outputs_of(w, parts, len(inputs))

    return build


for _count in (1, 2, 3):
    register(
        f"_np_atleast_{_count}d",
        atleast(_count),
        None,
        JOINED,
        lambda a: a.num_args,
        dtypes=Dtypes.SAME,
    )


@registered("_npi_diff", "a", "n: integer = 1, axis: integer = -1", dtypes=Dtypes.FIRST)
def diff(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if not 0 <= a.n <= MOST_OUTPUTS:
        raise w.refuse(f"n={a.n}, expected 0 to {MOST_OUTPUTS}")
    return w.call(mx_numpy.diff, x, a.n, a.axis)


@registered(
    "_npi_ediff1d",
    lambda a: (
        "input1",
        *(("input2",) if a.to_begin_arr_given else ()),
        *(("input3",) if a.to_end_arr_given else ()),
    ),
    "to_begin_arr_given: boolean = False, to_end_arr_given: boolean = False, "
    "to_begin_scalar: double? = None, to_end_scalar: double? = None",
    dtypes=Dtypes.FIRST,
)
def ediff1d(w: Wiring, a: Attributes, x: fx.Node, *arrays: fx.Node) -> Wired:
    given = list(arrays)
    ends = [
        given.pop(0)
        if named
        else None
        if number is None
        else w.call(mx_dtype.number, number, x, part=f"end{place}")
        for place, (named, number) in enumerate(
            ((a.to_begin_arr_given, a.to_begin_scalar), (a.to_end_arr_given, a.to_end_scalar))
        )
    ]
    return w.call(mx_numpy.differences, x, *ends)


register_call("_npi_polyval", mx_numpy.polynomial, "p x", dtypes=Dtypes.SAME)
register_call("_npi_diag_indices_from", mx_numpy.diagonal_places, "data")


@registered(
    "_npi_percentile",
    lambda a: ("a",) if a.q_scalar is not None else ("a", "q"),
    "axis: axes = (), interpolation: (linear|lower|higher|midpoint|nearest) = linear, "
    "keepdims: boolean = False, q_scalar: double? = None",
)
def percentile(w: Wiring, a: SimpleNamespace, x: fx.Node, q: fx.Node | None = None) -> Wired:
    if q is None:
        q = w.call(torch.full, [], a.q_scalar, part="q")
    return w.call(mx_numpy.percentile, x, q, a.axis, a.interpolation, a.keepdims)


register_call("_npi_lcm", torch.lcm, "lhs rhs", dtypes=Dtypes.SAME)
register("_npi_lcm_scalar", beside_number(torch.lcm), "data", SCALAR, dtypes=Dtypes.SAME)


@registered("_npi_rot90", "data", "k: integer = 1, axes: axes = ()", dtypes=Dtypes.FIRST)
def rot90(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if len(a.axes) != 2:
        raise w.refuse(f"axes={a.axes}, expected two")
    return w.call(mx_numpy.rot90, x, a.k, *a.axes)


@registered(
    "_npi_average",
    lambda a: ("a", "weights") if a.weighted else ("a",),
    "axis: axes = (), returned: boolean = False, weighted: boolean = True",
    dtypes=Dtypes.FLOATING,
)
def average(w: Wiring, a: SimpleNamespace, x: fx.Node, weights: fx.Node | None = None) -> Wired:
    if a.returned:
        raise w.refuse("returned=True, expected the averages alone")
    if weights is None:
        return w.call(mx_numpy.reduce_mean, x, a.axis, False)
    return w.call(mx_numpy.average, x, weights, a.axis)


@registered("_npi_identity", "", SHAPED, dtypes=Dtypes.MADE)
def identity(w: Wiring, a: SimpleNamespace) -> Wired:
    size = a.shape
    if len(size) != 2 or size[0] != size[1] or size[0] < 0:
        raise w.refuse(f"shape={size}, expected a square")  # MXNet's others are none
    counted(w, float(size[0]) * size[0])
    return constant(w, np.eye(size[0]), a.dtype)


@registered("_npi_indices", "", "dimensions: integers, dtype: dtype = int32, ctx: ignored")
def indices(w: Wiring, a: SimpleNamespace) -> Wired:
    size = a.dimensions
    if not 1 <= len(size) <= 32 or min(size) < 1:
        raise w.refuse(f"dimensions={size}, expected sizes")
    counted(w, len(size) * math.prod(map(float, size)))
    return constant(w, np.indices(size), a.dtype)
