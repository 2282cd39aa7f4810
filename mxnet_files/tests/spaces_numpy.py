"""The spaces of `mx.np`'s operators: shapes may be (), arrays broadcast, comparisons are bool."""

from __future__ import annotations

import math

import numpy as np

from mxnet_files.tests.spaces import (
    DTYPES,
    FLOATS,
    NUMBERS,
    WHOLE,
    Draw,
    different,
    space,
    well_conditioned,
    with_root,
    without_infinities,
)


@space("""
_npi_arccos _npi_arccosh _npi_arcsin _npi_arcsinh _npi_arctan _npi_arctanh _npi_cbrt _npi_cos
_npi_cosh _npi_degrees _npi_exp _npi_expm1 _npi_log _npi_log10 _npi_log1p _npi_log2 _npi_radians
_npi_reciprocal _npi_sin _npi_sinh _npi_sqrt _npi_square _npi_tan _npi_tanh _npi_ceil _npi_fix
_npi_floor _npi_negative _npi_rint _npi_sign _npi_trunc _npx_relu _npx_sigmoid
""")
def one_real(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, d.dtype)  # of integers numpy makes floating point: refused here
    return [d.array(d.shape(0, 3))]


@space("_npi_absolute _npi_logical_not _np_copy _npi_isnan _npi_isinf _npi_isfinite")
def one_array(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape(0, 3))]


def broadcast(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that can meet this one: sizes of 1, fewer axes."""
    return tuple(d.one(size, 1) for size in shape)[d.integer(0, len(shape)) :]


@space("""
_npi_add _npi_subtract _npi_multiply _npi_true_divide _npi_power _npi_mod _npi_hypot _npi_arctan2
""")
def two_reals(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, d.dtype)
    shape = d.shape(0, 3)
    return [d.array(x) for x in d.one((shape, broadcast(d, shape)), (broadcast(d, shape), shape))]


@space("_npi_equal _npi_not_equal _npi_greater _npi_greater_equal _npi_less _npi_less_equal")
def compared(d: Draw) -> list[np.ndarray]:
    shape = d.shape(0, 3)
    return [d.array(shape), d.array(broadcast(d, shape))]


@space("""
_npi_add_scalar _npi_subtract_scalar _npi_rsubtract_scalar _npi_multiply_scalar
_npi_true_divide_scalar _npi_rtrue_divide_scalar _npi_power_scalar _npi_rpower_scalar
_npi_mod_scalar _npi_rmod_scalar _npi_equal_scalar _npi_not_equal_scalar _npi_greater_scalar
_npi_greater_equal_scalar _npi_less_scalar _npi_less_equal_scalar
""")
def with_number(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, d.dtype)
    d.a |= {"scalar": d.one(*NUMBERS, 300.0, -200.7), "is_int": None}
    return [with_root(d, d.array(d.shape(0, 3)))]


@space("_np_sum _npi_mean _np_prod _np_max _np_min _npi_var _npi_std")
def reduced(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    d.a |= {"initial": None} if "initial" in d.a else {}
    if "dtype" in d.a:
        d.a["dtype"] = d.one(None, "float32", "float64")
    shape = d.shape(0, 3)
    d.a["axis"] = d.one(None, d.axes(len(shape), fewest=1) or None)
    if d.a["__name__"] in ("_npi_var", "_npi_std"):
        d.a["ddof"] = d.one(None, 0)
    low = 0.5 if "prod" in d.a["__name__"] else -4
    # what follows an infinite value is NaN in MXNet, by its compensated sum
    return [without_infinities(d.array(shape, low=low, high=2 if low > 0 else 4))]


@space("_np_all _np_any")
def truth(d: Draw) -> list[np.ndarray]:
    shape = d.shape(0, 3)
    d.a["axis"] = d.one(None, d.axes(len(shape), fewest=1) or None)
    return [d.array(shape)]


@space("_npi_argmax _npi_argmin")
def place(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, "int32", "int64", d.dtype)
    shape = d.shape(1, 3)
    d.a["axis"] = d.one(None, "None", d.axis(len(shape)))
    return [different(d, shape)]


@space("_np_reshape")
def reshape(d: Draw) -> list[np.ndarray]:
    shape = d.shape(0, 3)
    size = math.prod(shape)
    d.a |= {
        "newshape": d.one((-1,), (size,), (1, -1), shape, (*shape, 1)),
        "order": d.one("C", None),
    }
    return [d.array(shape)]


@space("_np_transpose")
def transpose(d: Draw) -> list[np.ndarray]:
    shape = d.shape(0, 4)
    d.a["axes"] = d.one(None, d.axes(len(shape), fewest=9) or None)
    return [d.array(shape)]


@space("_np_squeeze")
def squeeze(d: Draw) -> list[np.ndarray]:
    shape = tuple(d.one(1, size) for size in d.shape(0, 3))
    ones = tuple(axis for axis, size in enumerate(shape) if size == 1)
    d.a["axis"] = d.one(None, ones[:1] or None, ones or None)
    return [d.array(shape)]


@space("_np_moveaxis")
def move(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    count = d.integer(1, len(shape))
    d.a |= {key: d.axes(len(shape), fewest=9)[:count] for key in ("source", "destination")}
    return [d.array(shape)]


@space("_npi_flip")
def flip(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    d.a["axis"] = d.axes(len(shape), fewest=1)
    return [d.array(shape)]


@space("_npi_broadcast_to")
def broadcast_to(d: Draw) -> list[np.ndarray]:
    shape = d.shape(1, 3)
    d.a["shape"] = shape
    return [d.array(broadcast(d, shape))]


@space("_npi_concatenate")
def concatenate(d: Draw) -> list[np.ndarray]:
    shape, count = list(d.shape(1, 3)), d.integer(1, 3)
    axis = d.one(None, "None", d.axis(len(shape)))
    d.a |= {"num_args": count, "axis": axis, "dim": None}  # `dim` is described, and not read
    shapes = [list(shape) for _ in range(count)]
    for each in shapes:
        each[0 if axis in (None, "None") else axis] = d.integer(1, 3)
    return [d.array(each) for each in shapes]


@space("_npi_stack")
def stack(d: Draw) -> list[np.ndarray]:
    shape, count = d.shape(0, 3), d.integer(1, 3)
    d.a |= {"num_args": count, "axis": d.one(None, d.axis(len(shape) + 1))}
    return [d.array(shape) for _ in range(count)]


@space("_npi_where")
def where(d: Draw) -> list[np.ndarray]:
    shape = d.shape(0, 3)
    return [
        d.array(broadcast(d, shape), d.one(*DTYPES)), d.array(shape), d.array(broadcast(d, shape))
    ]  # fmt: skip


@space("_npi_matmul")
def matmul(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    rows, inner, columns = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(0, 2)
    left, right = (*batch, rows, inner), (*broadcast(d, batch), inner, columns)
    shapes = d.one((left, right), ((inner,), right), (left, (inner,)), ((inner,), (inner,)))
    return [d.array(shape, edges=False) for shape in shapes]


@space("_np_dot")
def dot(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    inner = d.integer(1, 4)
    left = (*d.shape(0, 2), inner)
    shapes = d.one(
        (left, (inner,)), ((inner,), (inner,)), (left, (inner, d.integer(1, 3))), ((), left)
    )
    return [d.array(shape, edges=False) for shape in shapes]


@space("_npi_zeros _npi_ones")
def made(d: Draw) -> list[np.ndarray]:
    d.a["shape"] = d.shape(0, 3)
    return []


@space("_npi_full_like")
def full_like(d: Draw) -> list[np.ndarray]:
    d.a["fill_value"] = d.one(2.0, -1.0, 0.0, 3.5, 300.0)
    d.a["dtype"] = d.one(None, "float32", "int32", "uint8")
    d.dtype = d.one(*FLOATS, "int32", "int64", d.dtype)
    return [d.array(d.shape(0, 3))]


@space("_npi_arange")
def arange(d: Draw) -> list[np.ndarray]:
    start, step = d.one(0.0, 1.0, -2.0), d.one(1.0, 2.0, 0.5)
    d.a |= {"start": start, "step": step, "stop": start + step * d.integer(1, 5)}
    d.a |= {"repeat": None, "infer_range": None, "dtype": d.one("float32", "int32", "float64")}
    return []


@space("_npi_eye")
def eye(d: Draw) -> list[np.ndarray]:
    d.a |= {"N": d.integer(1, 4), "M": d.one(None, "None", d.integer(1, 4)), "k": d.integer(-3, 3)}
    return []


@space("_npx_reshape")
def coded_reshape(d: Draw) -> list[np.ndarray]:
    shape = tuple(d.one(1, size) for size in d.shape(2, 4))
    last = shape[-1]
    d.a["order"] = d.one("C", None)
    if d.a.get("reverse"):
        coded = [(-4, -5), (-4, 1, last, -6), (-4, -1, -2)]
        d.a["newshape"] = d.one((-1,), (-4,), (-1, -2), *coded, (-4, -1, 1, -6), (-2, -1, -5))
    else:
        coded = [(-5, -4), (-6, 1, shape[0], -4), (-6, shape[0], -1, -4), (-2, -5, -4), (-2, -1)]
        d.a["newshape"] = d.one((-1,), shape, (*shape, 1), (-4,), (-4, -1), (-2, -4, 1), *coded)
    if 1 in shape and d.flag():
        d.a["newshape"] = tuple(-3 if size == 1 else d.one(-2, size) for size in shape)
    return [d.array(shape)]


@space("_npi_where_lscalar _npi_where_rscalar _npi_where_scalar2")
def where_number(d: Draw) -> list[np.ndarray]:
    numbers = (*NUMBERS, 300.0, -200.7, 2.7, "inf", "nan")
    shape = d.shape(0, 3)
    condition = d.array(broadcast(d, shape), d.one(*DTYPES))
    if d.a["__name__"] == "_npi_where_scalar2":
        d.a |= {"x": d.one(*numbers), "y": d.one(None, *numbers)}
        return [condition]
    d.a["scalar"] = d.one(None, *numbers)
    return [condition, d.array(shape)]


@space("_npi_vstack _npi_hstack _npi_dstack _npi_column_stack")
def joined(d: Draw) -> list[np.ndarray]:
    kind = d.a["__name__"].removeprefix("_npi_")
    shape, count = list(d.shape(1, 4)), d.integer(1, 3)
    d.a |= {"num_args": count, "dim": None}
    axis = {"vstack": 0, "dstack": 2}.get(kind, min(1, len(shape) - 1))
    shapes = [list(shape) for _ in range(count)]
    for each in shapes:
        if axis < len(each) and not (len(each) == 1 and kind != "hstack"):
            each[axis] = d.integer(1, 3)
    return [d.array(each) for each in shapes]


@space("_npi_pad")
def pad(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)  # MXNet refuses one axis
    d.a["pad_width"] = tuple((d.integer(0, 3), d.integer(0, 3)) for _ in shape)
    d.a["constant_value"] = d.one(None, *NUMBERS, 300.0, -200.7, "inf")
    d.a["reflect_type"] = d.one(None, "even", "odd")
    extreme = d.a.get("mode") in ("maximum", "minimum")  # of which NaN is one by its place
    return [d.array(shape, edges=not extreme)]


@space("_npi_tril")
def tril(d: Draw) -> list[np.ndarray]:
    d.a["k"] = d.one(None, d.integer(-3, 3))
    return [d.array(d.shape())]


@space("_np_roll")
def roll(d: Draw) -> list[np.ndarray]:
    shape = d.shape()
    axes = d.a["axis"] = d.one(None, "None", d.axes(len(shape), fewest=1))
    count = d.one(1, len(axes)) if isinstance(axes, tuple) else 1
    d.a["shift"] = tuple(d.integer(-5, 5) for _ in range(count))
    return [d.array(shape)]


EINSUMS = """
ij,jk->ik ij,ik->jk ij,kj ij,ij ij->j ij->ji ij->i bij,bjk->bik bhqd,bhkd->bhqk ...j,kj->...k
i,j->ij ii->i ij,jk,kl->il b...,b...->...
"""


@space("_npi_einsum")
def einsum(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    terms = d.a["subscripts"] = d.one(*EINSUMS.split())
    sizes = {letter: d.integer(1, 4) for letter in terms if letter.isalpha()}
    inputs = [
        [size for letter in term for size in ([3, 2] if letter == "." else [sizes[letter]])]
        for term in terms.split("->")[0].replace("...", ".").split(",")
    ]
    d.a |= {"num_args": len(inputs), "optimize": d.one(None, 0, 1)}
    return [d.array(shape, edges=False) for shape in inputs]


@space("_npi_around")
def around(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    d.a["decimals"] = d.one(None, 0, 1, 2, -1, -3)
    return [d.array(d.shape(0, 3), high=d.one(4, 4000))]


@space("_npi_norm")
def norm(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    shape = d.shape(2, 4)
    d.a["keepdims"] = d.one(None, True, False)
    x = d.array(shape, edges=False)
    kind = d.one("all", "order", "matrix", "frobenius", "sum")
    if kind == "all":
        d.a |= {"flag": -2, "ord": d.one(None, 2), "axis": d.one(None, "None")}
    elif kind == "order":
        order = d.one(None, 2, 1, 3, 0.5, 0, -1, -2.5)
        d.a |= {"flag": d.one(None, -1), "ord": order, "axis": (d.axis(len(shape)),)}
    elif kind == "frobenius":
        d.a |= {"flag": 1, "ord": d.one(None, 2), "axis": d.axes(len(shape), 1)[:2]}
    else:
        pair = d.axes(len(shape), 9)[:2]  # MXNet refuses more rows than columns
        d.a |= {"flag": 2 if kind == "sum" else d.one(-1, 0)}
        d.a["axis"] = tuple(sorted(pair, key=lambda axis: shape[axis]))
        d.a["ord"] = d.one(None, 2) if kind == "sum" else d.one(2, -2)
    return [x]


@space("_npi_hsplit _npi_dsplit")
def split(d: Draw) -> list[np.ndarray]:
    deep = d.a["__name__"] == "_npi_dsplit"
    shape = list(d.shape(3 if deep else 1, 4))
    axis = 2 if deep else min(1, len(shape) - 1)
    sections = d.one(None, 0, 1, 2, 3)
    shape[axis] = d.integer(1, 2) * sections if sections else d.integer(3, 5)
    starts = [0, *sorted(d.order(2)[: d.integer(0, 2)])]
    d.a["indices"] = (0,) if sections else tuple(dict.fromkeys(starts))
    d.a |= {"sections": sections, "axis": 2 if deep else d.one(None, 1), "squeeze_axis": None}
    return [d.array(shape)]


@space("_npi_tensordot _npi_tensordot_int_axes")
def tensordot(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    inner, left, right = d.shape(0, 2), d.shape(0, 2), d.shape(0, 2)
    if d.a["__name__"] == "_npi_tensordot_int_axes":
        d.a["axes"] = len(inner)
        return [d.array(shape, edges=False) for shape in ((*left, *inner), (*inner, *right))]
    arrays = []
    for key, rest in (("a_axes_summed", left), ("b_axes_summed", right)):
        order = d.order(len(rest) + len(inner))
        places = order[: len(inner)]
        sizes = dict(zip([*places, *order[len(inner) :]], [*inner, *rest], strict=True))
        d.a[key] = tuple(place - len(order) * d.flag() for place in places)
        arrays.append(d.array([sizes[place] for place in range(len(order))], edges=False))
    return arrays


@space("_np_diag _np_diagflat _np_diagonal _np_trace")
def diagonal(d: Draw) -> list[np.ndarray]:
    name = d.a["__name__"]
    if name in ("_np_diag", "_np_diagflat"):
        shape = d.shape(1, 2) if name == "_np_diag" else d.shape(1, 3, largest=3)
        within = (
            (-3, 3) if len(shape) == 1 or name == "_np_diagflat" else (1 - shape[0], shape[1] - 1)
        )
        d.a["k"] = d.one(None, d.integer(*within))
        return [d.array(shape)]
    shape = d.shape(2, 4)
    first, second, *_ = d.axes(len(shape), fewest=9)
    d.a |= {
        "axis1": first,
        "axis2": second,
        "offset": d.integer(1 - shape[first], shape[second] - 1),
    }
    if len(shape) == 2 and d.flag():
        d.a |= {"axis1": None, "axis2": None, "offset": d.one(None, 0)}
    return [d.array(shape)]


@space("_npi_cholesky")
def cholesky(d: Draw) -> list[np.ndarray]:
    size = d.integer(1, 4)
    x = well_conditioned(d, d.shape(0, 2), size)
    return [x @ np.swapaxes(x, -1, -2)]


@space("_npi_solve")
def solve(d: Draw) -> list[np.ndarray]:
    batch, size = d.shape(0, 2), d.integer(1, 4)
    x = well_conditioned(d, batch, size)
    return [x, d.array((*batch, size, *d.one((), (d.integer(1, 3),))), edges=False)]


@space("_npi_bitwise_and _npi_bitwise_or _npi_bitwise_xor")
def bits(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*WHOLE, "bool")
    shape = d.shape(0, 3)
    return [d.array(x) for x in d.one((shape, broadcast(d, shape)), (broadcast(d, shape), shape))]


@space("_npi_bitwise_not _npi_bitwise_and_scalar _npi_bitwise_or_scalar _npi_bitwise_xor_scalar")
def bits_and_number(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*WHOLE, "bool")
    if "scalar" in d.a["__name__"]:
        d.a |= {"scalar": d.one(None, 0, 1, 2, 5, -3, 300, 2.7), "is_int": None}
    return [d.array(d.shape(0, 3))]


@space("_npi_copysign _npi_ldexp")
def two_floats(d: Draw) -> list[np.ndarray]:
    return two_reals(d)


@space("""
_npi_copysign_scalar _npi_rcopysign_scalar _npi_ldexp_scalar _npi_rldexp_scalar
_npi_arctan2_scalar _npi_rarctan2_scalar
""")
def float_and_number(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS, d.dtype)
    d.a |= {"scalar": d.one(None, *NUMBERS[:8], 7.5), "is_int": None}
    return [d.array(d.shape(0, 3))]


@space("_npi_isposinf _npi_isneginf")
def infinite(d: Draw) -> list[np.ndarray]:
    return [d.array(d.shape(0, 3))]


@space("_npi_nan_to_num")
def finite(d: Draw) -> list[np.ndarray]:
    d.a |= {key: d.one(None, 0.5, -2.0, 30.0) for key in ("nan", "posinf", "neginf")}
    return [d.array(d.shape(0, 3))]


@space("_np_atleast_1d _np_atleast_2d _np_atleast_3d")
def atleast(d: Draw) -> list[np.ndarray]:
    count = d.a["num_args"] = d.integer(1, 3)
    return [d.array(d.shape(0, 4)) for _ in range(count)]


@space("_npi_diff")
def differences(d: Draw) -> list[np.ndarray]:
    shape = list(d.shape(1, 3))
    axis = d.axis(len(shape))
    times = d.a["n"] = d.one(None, 0, 1, 2, 3)
    shape[axis] = (1 if times is None else times) + d.integer(1, 3)
    d.a["axis"] = axis if axis not in (-1, len(shape) - 1) else d.one(axis, None)
    return [d.array(shape)]


@space("_npi_rot90")
def turned(d: Draw) -> list[np.ndarray]:
    shape = d.shape(2, 4)
    d.a |= {"k": d.one(None, *range(-5, 6)), "axes": d.axes(len(shape), fewest=9)[:2]}
    return [d.array(shape)]


@space("_npi_average")
def average(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    d.a["returned"] = d.one(None, False)
    shape = d.shape(1, 3)
    axes = d.axes(len(shape), fewest=1)
    d.a["axis"] = d.one(None, "None", axes, axes[:1])
    x = d.array(shape, edges=False)
    if d.a.get("weighted") is False:
        return [x]
    one = isinstance(d.a["axis"], tuple) and len(d.a["axis"]) == 1 and d.flag()
    size = (shape[axes[0]],) if one else shape
    return [x, d.array(size, low=0.5, high=2, edges=False)]


@space("_npi_identity _npi_indices")
def described(d: Draw) -> list[np.ndarray]:
    if d.a["__name__"] == "_npi_indices":
        d.a["dimensions"] = d.shape(1, 3)
    else:
        d.a["shape"] = d.shape(1, 1, largest=6) * 2
    return []


@space("_npi_hanning _npi_hamming _npi_blackman")
def window(d: Draw) -> list[np.ndarray]:
    d.a |= {"M": d.integer(1, 9), "dtype": d.one(*FLOATS, None)}
    return []


@space("_npi_logspace")
def logspace(d: Draw) -> list[np.ndarray]:
    d.a |= {"start": d.one(0.0, -1.0, 0.5), "stop": d.one(2.0, 1.0, -1.5), "num": d.integer(1, 6)}
    d.a |= {"base": d.one(None, 2.0, 10.0, 0.5), "dtype": d.one(*FLOATS, None)}
    return []


@space("_npi_ediff1d")
def ediff1d(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", "int32", "int64", d.dtype)
    for end in ("to_begin", "to_end"):
        d.a[f"{end}_scalar"] = None if d.a.get(f"{end}_arr_given") else d.one(None, 2.0, -1.0)
    count = sum(d.a.get(f"{end}_arr_given", False) for end in ("to_begin", "to_end"))
    more = [d.array(d.shape(1, 1), edges=False) for _ in range(count)]
    shape = d.one(d.shape(1, 3), (3, 2))
    return [d.array(shape if math.prod(shape) > 1 else (2,), edges=False), *more]


@space("_npi_polyval")
def polyval(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", "int32", "int64", d.dtype)
    return [d.array(d.shape(1, 1), edges=False), d.array(d.shape(1, 3), edges=False)]


@space("_npi_percentile")
def percentile(d: Draw) -> list[np.ndarray]:
    shape = d.shape(1, 3)
    d.dtype = d.one("float32", "float64", "int32", "int64", "uint8", d.dtype)
    d.a["axis"] = d.one(None, d.axes(len(shape), fewest=1))
    x = d.array(shape, edges=False)
    if d.flag():
        d.a["q_scalar"] = d.one(0.0, 50.0, 30.0, 100.0, 12.5)
        return [x]
    d.a["q_scalar"] = None
    return [x, d.array(d.shape(1, 2), d.one("float32", "float64"), 0, 100, edges=False)]


@space("_npi_diag_indices_from")
def diagonal_places(d: Draw) -> list[np.ndarray]:
    return [d.array([d.integer(1, 4)] * d.integer(2, 4))]


@space("_npi_lcm _npi_lcm_scalar")
def lcm(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*WHOLE, d.dtype)
    shape = d.shape(0, 3)
    if "scalar" in d.a["__name__"]:
        d.a |= {"scalar": d.one(None, 1, 6, 4, -3), "is_int": None}
        return [d.array(shape, edges=False)]
    return [d.array(shape, edges=False), d.array(broadcast(d, shape), edges=False)]


@space("khatri_rao")
def khatri_rao(d: Draw) -> list[np.ndarray]:
    d.dtype, columns = d.one("float32", "float64"), d.integer(1, 4)
    count = d.a["num_args"] = d.integer(1, 3)
    return [d.array((d.integer(1, 4), columns)) for _ in range(count)]


@space("_contrib_quadratic")
def quadratic(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64", d.dtype)
    return [d.array(d.shape())]


@space("_linalg_gelqf")
def gelqf(d: Draw) -> list[np.ndarray]:
    d.dtype, rows = d.one("float32", "float64"), d.integer(1, 4)
    x = d.array((*d.shape(0, 1), rows, rows + d.integer(0, 2)), edges=False)
    return [x + (4 * np.eye(rows, x.shape[-1])).astype(x.dtype)]


@space("_linalg_syevd")
def syevd(d: Draw) -> list[np.ndarray]:
    """Eigenvalues that lie apart: where two are equal any basis will do."""
    d.dtype, rows = d.one("float32", "float64"), d.integer(1, 4)
    x = d.array((*d.shape(0, 1), rows, rows), low=-1, high=1, edges=False)
    apart = 20 * np.diag(np.arange(rows)).astype(x.dtype)
    return [x + x.swapaxes(-2, -1) + apart]
