"""Elementwise arithmetic, comparisons, reductions and matrix products."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx

from torch_ref.symbol import mx_math
from torch_ref.symbol.attributes import (
    IGNORED,
    Attribute,
    boolean,
    double,
    dtype,
    integer,
    optional,
    real,
    shape,
)
from torch_ref.symbol.operators.indexing import torch_dtype
from torch_ref.symbol.operators.shape import axis_list
from torch_ref.symbol.registry import Wired, Wiring, register

__all__: list[str] = []

# One argument, one result. Names are MXNet's.
UNARY: dict[str, Callable[..., Any]] = {
    "abs": torch.abs,
    "sign": torch.sign,
    "round": mx_math.round_half_away,
    "rint": mx_math.rint,
    "ceil": torch.ceil,
    "floor": torch.floor,
    "trunc": torch.trunc,
    "fix": torch.trunc,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "cbrt": mx_math.cbrt,
    "rcbrt": mx_math.rcbrt,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log10": torch.log10,
    "log2": torch.log2,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "arcsin": torch.asin,
    "arccos": torch.acos,
    "arctan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "arcsinh": torch.asinh,
    "arccosh": torch.acosh,
    "arctanh": torch.atanh,
    "degrees": torch.rad2deg,
    "radians": torch.deg2rad,
    "erf": torch.erf,
    "erfinv": torch.erfinv,
    "gamma": mx_math.gamma,
    "gammaln": torch.lgamma,
    "negative": torch.neg,
    "reciprocal": torch.reciprocal,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softsign": torch.nn.functional.softsign,
    "BlockGrad stop_gradient": torch.detach,
}


def unary(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x: w.call(function, x)


for _names, _function in UNARY.items():
    register(_names, unary(_function), "data")


def same(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    """Identity: no node at all."""
    return x


register("_copy identity", same, "data")


def logical(w: Wiring, found: fx.Node, like: fx.Node) -> fx.Node:
    """MXNet's comparisons give 0 and 1 in the dtype of their input."""
    return w.method("type_as", found, like)


register(
    "logical_not",
    lambda w, a, x: logical(w, w.call(torch.logical_not, x, part="is"), x),
    "data",
)


def binary(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x, y: w.call(function, x, y)


def compare(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x, y: logical(w, w.call(function, x, y, part="is"), x)


def maximum_scalar(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    return w.call(torch.clamp, x, a.scalar, None)


def minimum_scalar(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    return w.call(torch.clamp, x, None, a.scalar)


# Two arrays; elementwise and broadcasting alike.
BINARY: dict[str, Callable[..., Any]] = {
    "elemwise_add _plus _Plus _add _grad_add": operator.add,
    "broadcast_add broadcast_plus": operator.add,
    "elemwise_sub _minus _Minus _sub broadcast_sub broadcast_minus": operator.sub,
    "elemwise_mul _mul _Mul broadcast_mul": operator.mul,
    "elemwise_div _div _Div broadcast_div": operator.truediv,
    "_mod _Mod broadcast_mod": mx_math.mod,
    "_power _Power broadcast_power": torch.pow,
    "_maximum _Maximum broadcast_maximum": mx_math.maximum,
    "_minimum _Minimum broadcast_minimum": mx_math.minimum,
    "_hypot _Hypot broadcast_hypot": torch.hypot,
}
COMPARE: dict[str, Callable[..., Any]] = {
    "_equal _Equal broadcast_equal": operator.eq,
    "_not_equal _Not_Equal broadcast_not_equal": operator.ne,
    "_greater _Greater broadcast_greater": operator.gt,
    "_greater_equal _Greater_Equal broadcast_greater_equal": operator.ge,
    "_lesser _Lesser broadcast_lesser": operator.lt,
    "_lesser_equal _Lesser_Equal broadcast_lesser_equal": operator.le,
    "_logical_and _Logical_And broadcast_logical_and": torch.logical_and,
    "_logical_or _Logical_Or broadcast_logical_or": torch.logical_or,
    "_logical_xor _Logical_Xor broadcast_logical_xor": torch.logical_xor,
}
for _names, _function in BINARY.items():
    register(_names, binary(_function), "lhs rhs")
for _names, _function in COMPARE.items():
    register(_names, compare(_function), "lhs rhs")

SCALAR = {"scalar": Attribute(double, 1.0), "is_int": IGNORED}


def with_scalar(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Wired]:
    if swapped:
        return lambda w, a, x: w.call(function, a.scalar, x)
    return lambda w, a, x: w.call(function, x, a.scalar)


def compare_scalar(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x: logical(w, w.call(function, x, a.scalar, part="is"), x)


def logical_scalar(function: Callable[..., Any]) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
        other = w.call(torch.full_like, x, a.scalar, part="scalar")
        return logical(w, w.call(function, x, other, part="is"), x)

    return build


ARRAY_AND_SCALAR: dict[str, Callable[..., Wired]] = {
    "_plus_scalar _PlusScalar _scatter_plus_scalar": with_scalar(operator.add),
    "_minus_scalar _MinusScalar _scatter_minus_scalar": with_scalar(operator.sub),
    "_rminus_scalar _RMinusScalar": with_scalar(operator.sub, swapped=True),
    "_mul_scalar _MulScalar": with_scalar(operator.mul),
    "_div_scalar _DivScalar": with_scalar(operator.truediv),
    "_rdiv_scalar _RDivScalar": with_scalar(operator.truediv, swapped=True),
    "_power_scalar _PowerScalar": with_scalar(torch.pow),
    "_rpower_scalar _RPowerScalar": with_scalar(torch.pow, swapped=True),
    "_mod_scalar _ModScalar": with_scalar(mx_math.mod_scalar),
    "_rmod_scalar _RModScalar": with_scalar(mx_math.rmod_scalar),
    "_hypot_scalar _HypotScalar": with_scalar(mx_math.hypot_scalar),
    "_maximum_scalar _MaximumScalar": maximum_scalar,
    "_minimum_scalar _MinimumScalar": minimum_scalar,
    "_equal_scalar _EqualScalar": compare_scalar(operator.eq),
    "_not_equal_scalar _NotEqualScalar": compare_scalar(operator.ne),
    "_greater_scalar _GreaterScalar": compare_scalar(operator.gt),
    "_greater_equal_scalar _GreaterEqualScalar": compare_scalar(operator.ge),
    "_lesser_scalar _LesserScalar": compare_scalar(operator.lt),
    "_lesser_equal_scalar _LesserEqualScalar": compare_scalar(operator.le),
    "_logical_and_scalar _LogicalAndScalar": logical_scalar(torch.logical_and),
    "_logical_or_scalar _LogicalOrScalar": logical_scalar(torch.logical_or),
    "_logical_xor_scalar _LogicalXorScalar": logical_scalar(torch.logical_xor),
}
for _names, _build in ARRAY_AND_SCALAR.items():
    register(_names, _build, "data", SCALAR)
register(
    "smooth_l1",
    lambda w, a, x: w.call(mx_math.smooth_l1, x, a.scalar),
    "data",
    {"scalar": Attribute(real, 1.0)},
)


def clip(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if math.isnan(a.a_min) or math.isnan(a.a_max):
        raise w.refuse(f"a_min={a.a_min}, a_max={a.a_max}, expected numbers")
    return w.call(torch.clamp, x, a.a_min, a.a_max)


register("clip", clip, "data", {"a_min": Attribute(real), "a_max": Attribute(real)})
register(
    "Cast cast amp_cast",
    lambda w, a, x: w.method("to", x, torch_dtype(a.dtype)),
    "data",
    {"dtype": Attribute(dtype)},
)


def add_n(w: Wiring, a: SimpleNamespace, first: fx.Node, *rest: fx.Node) -> Wired:
    total = first
    for place, x in enumerate(rest, 1):
        total = w.call(operator.add, total, x, part="" if place == len(rest) else f"to_{place}")
    return total


register("add_n ElementWiseSum", add_n, None, {"num_args": Attribute(integer, 0)})

AXES = {
    "axis": Attribute(shape, ()),
    "keepdims": Attribute(boolean, False),
    "exclude": Attribute(boolean, False),
}
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum sum_axis": mx_math.reduce_sum,
    "mean": mx_math.reduce_mean,
    "prod": mx_math.reduce_prod,
    "max max_axis": mx_math.reduce_max,
    "min min_axis": mx_math.reduce_min,
    "nansum": mx_math.reduce_nansum,
    "nanprod": mx_math.reduce_nanprod,
}


def reduction(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x: w.call(function, x, axis_list(w, a.axis, "axis"), a.keepdims, a.exclude)


for _names, _function in REDUCTIONS.items():
    register(_names, reduction(_function), "data", AXES)


def norm(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.ord not in (1, 2):
        raise w.refuse(f"ord={a.ord}, expected 1 or 2")
    y = w.call(mx_math.norm, x, a.ord, axis_list(w, a.axis, "axis"), a.keepdims)
    return y if a.out_dtype is None else w.method("to", y, torch_dtype(a.out_dtype), part="cast")


register(
    "norm",
    norm,
    "data",
    {
        "ord": Attribute(integer, 2),
        "axis": Attribute(shape, ()),
        "keepdims": Attribute(boolean, False),
        "out_dtype": Attribute(optional(dtype), None),
    },
)
ARGUMENT = {"axis": Attribute(optional(integer), None), "keepdims": Attribute(boolean, False)}
register("argmax", lambda w, a, x: w.call(mx_math.argmax, x, a.axis, a.keepdims), "data", ARGUMENT)
register("argmin", lambda w, a, x: w.call(mx_math.argmin, x, a.axis, a.keepdims), "data", ARGUMENT)
register("argmax_channel", lambda w, a, x: w.call(mx_math.argmax, x, 1, False), "data")

TRANSPOSES = {
    "transpose_a": Attribute(boolean, False),
    "transpose_b": Attribute(boolean, False),
}
register(
    "dot",
    lambda w, a, x, y: w.call(mx_math.dot, x, y, a.transpose_a, a.transpose_b),
    "lhs rhs",
    {**TRANSPOSES, "forward_stype": IGNORED},
)


def batch_dot(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.transpose_a:
        x = w.call(torch.transpose, x, -2, -1, part="left")
    if a.transpose_b:
        y = w.call(torch.transpose, y, -2, -1, part="right")
    return w.call(torch.matmul, x, y)


register("batch_dot", batch_dot, "lhs rhs", {**TRANSPOSES, "forward_stype": IGNORED})


def gemm2(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.axis != -2:
        raise w.refuse(f"axis={a.axis}, expected -2")
    if a.alpha == 1:
        return batch_dot(w, a, x, y)
    return w.call(operator.mul, batch_dot(w, a, x, y), a.alpha, part="scaled")


register(
    "_linalg_gemm2 linalg_gemm2",
    gemm2,
    "A B",
    {**TRANSPOSES, "alpha": Attribute(double, 1.0), "axis": Attribute(integer, -2)},
)
