"""Elementwise arithmetic and comparisons."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_dtype, mx_math
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, outputs_of, register, register_call, registered

# One argument, one result. Names are MXNet's.
NATIVE: dict[str, Callable[..., Any]] = {
    "sign": torch.sign,
    "negative": torch.neg,
    "relu": torch.relu,
    "BlockGrad stop_gradient": torch.detach,
}
REAL: dict[str, Callable[..., Any]] = {
    "abs": torch.abs,
    "round": mx_math.round_half_away,
    "rint": mx_math.rint,
    "ceil": torch.ceil,
    "floor": torch.floor,
    "trunc": torch.trunc,
    "fix": torch.trunc,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "rcbrt": mx_math.rcbrt,
    "exp": torch.exp,
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
    "gammaln": torch.lgamma,
    "reciprocal": torch.reciprocal,
    "erf": torch.erf,
    "softsign": torch.nn.functional.softsign,
}


# By itself for floating point, and with a rule of its own for integers.
OWN: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "square": (torch.square, mx_math.square),
    "erfinv": (torch.erfinv, mx_math.erfinv),
    "cbrt": (mx_math.cbrt, mx_math.cbrt),
    "expm1": (torch.expm1, mx_math.expm1),
    "gamma": (mx_math.gamma, mx_math.gamma),
    "degrees": (mx_math.degrees, mx_math.degrees),
    "radians": (mx_math.radians, mx_math.radians),
    "sigmoid": (torch.sigmoid, mx_math.sigmoid),
}


# As they are for floating point.
PLAIN = {**NATIVE, **REAL, **{names: functions[0] for names, functions in OWN.items()}}


def unary(function: Callable[..., Any], general: Callable[..., Any]) -> Callable[..., Wired]:
    """`function` of floating point, `general` of what may be integers."""
    return lambda w, a, x: w.call(function if x in w.floating else general, x)


for _names, _function in NATIVE.items():
    register_call(_names, _function, "data", dtypes=Dtypes.SAME)
for _names, _function in REAL.items():
    register_call(_names, _function, "data", dtypes=Dtypes.REAL)
for _names, _functions in OWN.items():
    register(_names, unary(*_functions), "data", dtypes=Dtypes.SAME)


@registered("_copy identity", "data", dtypes=Dtypes.SAME)
def same(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    """Identity: no node at all."""
    return x


def logical(w: Wiring, found: fx.Node, like: fx.Node) -> fx.Node:
    """MXNet's comparisons give 0 and 1 in the dtype of their input."""
    return w.method("type_as", found, like)


register(
    "logical_not",
    lambda w, a, x: logical(w, w.call(torch.logical_not, x, part="is"), x),
    "data",
    dtypes=Dtypes.SAME,
)


Pair: TypeAlias = "Callable[[Wiring, Any, Any], fx.Node]"


def plain(function: Callable[..., Any]) -> Pair:
    """`function` of two arrays, or of an array and a number."""
    return lambda w, x, y: w.call(function, x, y)


def compare(function: Callable[..., Any]) -> Pair:
    return lambda w, x, y: logical(w, w.call(function, x, y, part="is"), x)


def own(function: Callable[..., Any], general: Callable[..., Any]) -> Pair:
    """`function` of floating point, `general` of what may be integers."""
    return lambda w, x, y: w.call(function if x in w.floating or y in w.floating else general, x, y)


divide = own(operator.truediv, mx_math.divide)
divide_number = own(operator.truediv, mx_math.divide_number)
power = own(torch.pow, mx_math.power)
hypot = own(torch.hypot, mx_math.hypot)


# Two arrays, elementwise and broadcasting alike: by how they are computed.
BINARY: dict[str, Pair] = {
    "elemwise_add _plus _Plus _add _grad_add": plain(operator.add),
    "broadcast_add broadcast_plus": plain(operator.add),
    "elemwise_sub _minus _Minus _sub broadcast_sub broadcast_minus": plain(operator.sub),
    "elemwise_mul _mul _Mul broadcast_mul": plain(operator.mul),
    "elemwise_div _div _Div broadcast_div": divide,
    "_mod _Mod broadcast_mod": plain(mx_math.mod),
    "_power _Power broadcast_power": power,
    "_maximum _Maximum broadcast_maximum": plain(mx_math.maximum),
    "_minimum _Minimum broadcast_minimum": plain(mx_math.minimum),
    "_hypot _Hypot broadcast_hypot": hypot,
    "_equal _Equal broadcast_equal": compare(operator.eq),
    "_not_equal _Not_Equal broadcast_not_equal": compare(operator.ne),
    "_greater _Greater broadcast_greater": compare(operator.gt),
    "_greater_equal _Greater_Equal broadcast_greater_equal": compare(operator.ge),
    "_lesser _Lesser broadcast_lesser": compare(operator.lt),
    "_lesser_equal _Lesser_Equal broadcast_lesser_equal": compare(operator.le),
    "_logical_and _Logical_And broadcast_logical_and": compare(torch.logical_and),
    "_logical_or _Logical_Or broadcast_logical_or": compare(torch.logical_or),
    "_logical_xor _Logical_Xor broadcast_logical_xor": compare(torch.logical_xor),
}


def of_arrays(pair: Pair) -> Callable[..., Wired]:
    return lambda w, a, x, y: pair(w, x, y)


for _names, _pair in BINARY.items():
    register(_names, of_arrays(_pair), "lhs rhs", dtypes=Dtypes.SAME)


def with_scalar(
    pair: Pair,
    *,
    swapped: bool = False,
    direct: bool = True,
) -> Callable[..., Wired]:
    """`pair` of an array and a number. `direct`: torch takes a number beside floating point."""

    def build(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
        if x in w.floating:
            a.have_no_effect("is_int")
        narrow = abs(a.scalar) > LARGEST_HALF and math.isfinite(a.scalar)  # torch refuses it
        if x in w.floating and direct and not narrow:
            return pair(w, a.scalar, x) if swapped else pair(w, x, a.scalar)
        if x not in w.floating:
            x = w.call(mx_dtype.promote, x, a.is_int, part="wide")
        scalar = w.call(mx_dtype.number, a.scalar, x, part="scalar")
        return pair(w, scalar, x) if swapped else pair(w, x, scalar)

    return build


LARGEST_HALF = 65504
SCALAR = "scalar: double = 1.0, is_int: boolean = True"
ARRAY_AND_SCALAR: dict[str, Callable[..., Wired]] = {
    "_plus_scalar _PlusScalar _scatter_plus_scalar": with_scalar(plain(operator.add)),
    "_minus_scalar _MinusScalar _scatter_minus_scalar": with_scalar(plain(operator.sub)),
    "_rminus_scalar _RMinusScalar": with_scalar(plain(operator.sub), swapped=True),
    "_mul_scalar _MulScalar": with_scalar(plain(operator.mul)),
    "_div_scalar _DivScalar": with_scalar(divide),
    "_rdiv_scalar _RDivScalar": with_scalar(divide_number, swapped=True),
    "_power_scalar _PowerScalar": with_scalar(power),
    "_rpower_scalar _RPowerScalar": with_scalar(power, swapped=True),
    "_mod_scalar _ModScalar": with_scalar(plain(mx_math.mod), direct=False),
    "_rmod_scalar _RModScalar": with_scalar(plain(mx_math.mod), swapped=True, direct=False),
    "_hypot_scalar _HypotScalar": with_scalar(hypot, direct=False),
    "_maximum_scalar _MaximumScalar": with_scalar(plain(torch.clamp_min)),
    "_minimum_scalar _MinimumScalar": with_scalar(plain(torch.clamp_max)),
    "_equal_scalar _EqualScalar": with_scalar(compare(operator.eq)),
    "_not_equal_scalar _NotEqualScalar": with_scalar(compare(operator.ne)),
    "_greater_scalar _GreaterScalar": with_scalar(compare(operator.gt)),
    "_greater_equal_scalar _GreaterEqualScalar": with_scalar(compare(operator.ge)),
    "_lesser_scalar _LesserScalar": with_scalar(compare(operator.lt)),
    "_lesser_equal_scalar _LesserEqualScalar": with_scalar(compare(operator.le)),
    "_logical_and_scalar _LogicalAndScalar": with_scalar(compare(torch.logical_and), direct=False),
    "_logical_or_scalar _LogicalOrScalar": with_scalar(compare(torch.logical_or), direct=False),
    "_logical_xor_scalar _LogicalXorScalar": with_scalar(compare(torch.logical_xor), direct=False),
}
for _names, _build in ARRAY_AND_SCALAR.items():
    register(_names, _build, "data", SCALAR, dtypes=Dtypes.SAME)
register_call("smooth_l1", mx_math.smooth_l1, "data", "scalar: real = 1.0", dtypes=Dtypes.SAME)


LIMITS = "a_min: real, a_max: real"


@registered("clip", "data", LIMITS, dtypes=Dtypes.SAME)
def clip(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if math.isnan(a.a_min) or math.isnan(a.a_max):
        raise w.refuse(f"a_min={a.a_min}, a_max={a.a_max}, expected numbers")
    known = x in w.floating and a.a_min <= a.a_max
    return w.call(torch.clamp if known else mx_math.clip, x, a.a_min, a.a_max)


CAST = "dtype: dtype"


@registered("Cast cast", "data", CAST, dtypes=Dtypes.MADE)
def cast(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    wanted = torch_dtype(a.dtype)
    if wanted.is_floating_point or wanted is torch.bool:
        return w.method("to", x, wanted)
    return w.call(mx_dtype.cast, x, wanted)


@registered("amp_cast", "data", CAST, dtypes=Dtypes.FIRST)
def amp_cast(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    wanted = torch_dtype(a.dtype)
    if not wanted.is_floating_point:
        raise w.refuse(f"dtype={a.dtype}, expected a floating point dtype")
    return w.method("to", x, wanted) if x in w.floating else w.call(mx_dtype.recast, x, wanted)


@registered(
    "amp_multicast",
    None,
    "num_outputs: integer, cast_narrow: boolean = False",
    lambda a: a.num_outputs,
)
def amp_multicast(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    if a.num_outputs != len(inputs):
        raise w.refuse(f"num_outputs={a.num_outputs} beside {len(inputs)} inputs")
    alike = w.call(mx_math.cast_alike, list(inputs), a.cast_narrow, part="all")
    return outputs_of(w, alike, len(inputs))


COUNT = "num_args: integer = 0"


@registered("add_n ElementWiseSum", None, COUNT, dtypes=Dtypes.SAME)
def add_n(w: Wiring, a: SimpleNamespace, first: fx.Node, *rest: fx.Node) -> Wired:
    total = first
    for place, x in enumerate(rest, 1):
        total = w.call(operator.add, total, x, part="" if place == len(rest) else f"to_{place}")
    return total
