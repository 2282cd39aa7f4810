"""Elementwise arithmetic and comparisons."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx

from mxnet_files.functions import mx_math
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.operators.normalise import outputs_of
from mxnet_files.reading.attributes import Attribute, boolean, double, dtype, integer, real
from mxnet_files.registry import Wired, Wiring, register

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


def divide(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    whole = x in w.whole and y in w.whole
    return w.call(mx_math.divide_whole if whole else operator.truediv, x, y)


def maximum_scalar(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    array, scalar = number(w, a, x)
    return w.call(torch.clamp, array, scalar, None)


def minimum_scalar(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    array, scalar = number(w, a, x)
    return w.call(torch.clamp, array, None, scalar)


# Two arrays; elementwise and broadcasting alike.
BINARY: dict[str, Callable[..., Any]] = {
    "elemwise_add _plus _Plus _add _grad_add": operator.add,
    "broadcast_add broadcast_plus": operator.add,
    "elemwise_sub _minus _Minus _sub broadcast_sub broadcast_minus": operator.sub,
    "elemwise_mul _mul _Mul broadcast_mul": operator.mul,
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
register("elemwise_div _div _Div broadcast_div", divide, "lhs rhs")
for _names, _function in COMPARE.items():
    register(_names, compare(_function), "lhs rhs")

SCALAR = {"scalar": Attribute(double, 1.0), "is_int": Attribute(boolean, True)}


def number(w: Wiring, a: SimpleNamespace, x: fx.Node) -> tuple[fx.Node, float]:
    """The array and the scalar as MXNet combines them: integers stay so unless is_int says no."""
    if x not in w.whole or not math.isfinite(a.scalar):
        return x, a.scalar
    if a.is_int:
        return x, int(a.scalar)
    return w.method("to", x, torch.float64, part="real"), a.scalar


def with_scalar(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Wired]:
    def build(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
        array, scalar = number(w, a, x)
        if function is operator.truediv and array in w.whole:
            other = w.call(torch.full_like, array, scalar, part="scalar")
            pair = (other, array) if swapped else (array, other)
            return w.call(mx_math.divide_whole, *pair)
        return w.call(function, *((scalar, array) if swapped else (array, scalar)))

    return build


def compare_scalar(function: Callable[..., Any]) -> Callable[..., Wired]:
    return lambda w, a, x: logical(w, w.call(function, *number(w, a, x), part="is"), x)


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


def amp_multicast(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    if a.num_outputs != len(inputs):
        raise w.refuse(f"num_outputs={a.num_outputs} beside {len(inputs)} inputs")
    alike = w.call(mx_math.cast_alike, list(inputs), a.cast_narrow, part="all")
    return outputs_of(w, alike, len(inputs))


register(
    "amp_multicast",
    amp_multicast,
    None,
    {"num_outputs": Attribute(integer), "cast_narrow": Attribute(boolean, False)},
    lambda a: a.num_outputs,
)


def add_n(w: Wiring, a: SimpleNamespace, first: fx.Node, *rest: fx.Node) -> Wired:
    total = first
    for place, x in enumerate(rest, 1):
        total = w.call(operator.add, total, x, part="" if place == len(rest) else f"to_{place}")
    return total


register("add_n ElementWiseSum", add_n, None, {"num_args": Attribute(integer, 0)})
