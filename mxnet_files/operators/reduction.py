"""Sums, extremes and norms over axes, and matrix products."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_linalg, mx_math, mx_numpy
from mxnet_files.operators.indexing import torch_dtype
from mxnet_files.registry import Wired, Wiring, outputs_of, register, register_call, registered

AXES = "axis: axes = (), keepdims: boolean = False, exclude: boolean = False"
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum sum_axis": mx_math.reduce_sum,
    "mean": mx_math.reduce_mean,
    "prod": mx_math.reduce_prod,
    "max max_axis": mx_math.reduce_max,
    "min min_axis": mx_math.reduce_min,
    "nansum": mx_math.reduce_nansum,
    "nanprod": mx_math.reduce_nanprod,
}
for _names, _function in REDUCTIONS.items():
    register_call(_names, _function, "data", AXES, dtypes=Dtypes.SAME)


@registered(
    "norm",
    "data",
    "ord: integer = 2, axis: axes = (), keepdims: boolean = False, out_dtype: dtype? = None",
    dtypes=Dtypes.SAME,
)
def norm(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.ord not in (1, 2):
        raise w.refuse(f"ord={a.ord}, expected 1 or 2")
    y = w.call(mx_math.norm, x, a.ord, a.axis, a.keepdims)
    return y if a.out_dtype is None else w.method("to", y, torch_dtype(a.out_dtype), part="cast")


@registered(
    "cumsum _np_cumsum", "a", "axis: integer? = None, dtype: dtype? = None", dtypes=Dtypes.SAME
)
def cumsum(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    return w.call(mx_math.cumsum, x, a.axis, None if a.dtype is None else torch_dtype(a.dtype))


@registered("moments", "data", "axes: axes = (), keepdims: boolean = False", 2, dtypes=Dtypes.SAME)
def moments(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if not a.axes:
        raise w.refuse("axes is empty, expected the axes of mean and variance")
    return outputs_of(w, w.call(mx_math.moments, x, a.axes, a.keepdims, part="both"), 2)


ARGUMENT = "axis: integer? = None, keepdims: boolean = False"
register_call("argmax", mx_math.argmax, "data", ARGUMENT, dtypes=Dtypes.SAME)
register_call("argmin", mx_math.argmin, "data", ARGUMENT, dtypes=Dtypes.SAME)
register(
    "argmax_channel",
    lambda w, a, x: w.call(mx_math.argmax, x, 1, False),
    "data",
    dtypes=Dtypes.SAME,
)

TRANSPOSES = "transpose_a: boolean = False, transpose_b: boolean = False"
register_call(
    "dot", mx_math.dot, "lhs rhs", f"{TRANSPOSES}, forward_stype: ignored", dtypes=Dtypes.FLOATING
)


def batch_dot(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.transpose_a:
        x = w.call(torch.transpose, x, -2, -1, part="left")
    if a.transpose_b:
        y = w.call(torch.transpose, y, -2, -1, part="right")
    return w.call(torch.matmul, x, y)


register(
    "batch_dot",
    batch_dot,
    "lhs rhs",
    f"{TRANSPOSES}, forward_stype: ignored",
    dtypes=Dtypes.FLOATING,
)


def gemm2(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.axis != -2:
        raise w.refuse(f"axis={a.axis}, expected -2")
    if a.alpha == 1:
        return batch_dot(w, a, x, y)
    product = batch_dot(w, a, x, y)
    if a.alpha == 0:  # BLAS does not multiply then: NaN does not reach the result
        return w.call(torch.zeros_like, product, part="scaled")
    return w.call(operator.mul, product, a.alpha, part="scaled")


GEMM = f"{TRANSPOSES}, alpha: double = 1.0, axis: integer = -2"
register("_linalg_gemm2 linalg_gemm2", gemm2, "A B", GEMM, dtypes=Dtypes.FLOATING)


@registered(
    "_linalg_gemm linalg_gemm", "A B C", f"{GEMM}, beta: double = 1.0", dtypes=Dtypes.FLOATING
)
def gemm(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node, z: fx.Node) -> Wired:
    product = gemm2(w, a, x, y)
    if a.beta == 0:  # nor is C read then
        return product
    if a.beta != 1:
        z = w.call(operator.mul, z, a.beta, part="added")
    return w.call(operator.add, product, z, part="sum")


@registered(
    "_linalg_syrk linalg_syrk",
    "A",
    "transpose: boolean = False, alpha: double = 1.0",
    dtypes=Dtypes.FLOATING,
)
def syrk(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    other = w.call(torch.transpose, x, -2, -1, part="transposed")
    product = w.call(torch.matmul, *((other, x) if a.transpose else (x, other)))
    if a.alpha == 0:
        return w.call(torch.zeros_like, product, part="scaled")
    return product if a.alpha == 1 else w.call(operator.mul, product, a.alpha, part="scaled")


register_call("_linalg_potrf linalg_potrf", torch.linalg.cholesky, "A", dtypes=Dtypes.FLOATING)


def scaled(function: Callable[..., Any]) -> Callable[..., Wired]:
    """The product with a triangle, or what it is the product with, times alpha."""

    def build(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
        out = w.call(function, x, y, a.transpose, a.rightside, a.lower)
        return out if a.alpha == 1 else w.call(operator.mul, out, a.alpha, part="scaled")

    return build


TRIANGULAR = (
    "transpose: boolean = False, rightside: boolean = False, lower: boolean = True, "
    "alpha: double = 1.0"
)
for _name, _function in (
    ("trmm", mx_linalg.triangular_product),
    ("trsm", mx_linalg.triangular_solve),
):
    register(
        f"_linalg_{_name} linalg_{_name}",
        scaled(_function),
        "A B",
        TRIANGULAR,
        dtypes=Dtypes.FLOATING,
    )


MATRIX: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("_linalg_inverse linalg_inverse _npi_inv", torch.linalg.inv),
    ("_linalg_potri linalg_potri", mx_linalg.inverse_of_factored),
    ("_linalg_sumlogdiag linalg_sumlogdiag", mx_linalg.sum_log_diagonal),
    ("_npi_cholesky", torch.linalg.cholesky),
)
for _names, _of in MATRIX:
    register_call(_names, _of, "A", dtypes=Dtypes.FLOATING)
register(
    "_linalg_det linalg_det _npi_det",
    lambda w, a, x: w.call(mx_linalg.det, x, w.np_shape),
    "A",
    dtypes=Dtypes.FLOATING,
)
register(
    "_linalg_slogdet linalg_slogdet _npi_slogdet",
    lambda w, a, x: outputs_of(w, w.call(mx_linalg.slogdet, x, w.np_shape, part="both"), 2),
    "A",
    outputs=2,
    dtypes=Dtypes.FLOATING,
)
for _names, _of in (
    ("_linalg_gelqf linalg_gelqf", mx_linalg.lower_factor),
    ("_linalg_syevd", mx_linalg.eigenvectors),
):
    register_call(_names, _of, "A", outputs=2, dtypes=Dtypes.FLOATING)
register_call("khatri_rao", mx_linalg.khatri_rao, None, "num_args: integer", dtypes=Dtypes.FLOATING)
register_call(
    "_contrib_quadratic",
    mx_math.quadratic,
    "data",
    "a: real = 0.0, b: real = 0.0, c: real = 0.0",
    dtypes=Dtypes.FLOATING,
)
register_call("_npi_solve", torch.linalg.solve, "A B", dtypes=Dtypes.FLOATING)
OFFSET = "offset: integer = 0"
MOST_OFFSET = 4_096


def moderate(w: Wiring, offset: int) -> int:
    """A diagonal, refused so far out that the square would be too large."""
    if abs(offset) > MOST_OFFSET:
        raise w.refuse(f"offset={offset}, expected at most {MOST_OFFSET}")
    return offset


register(
    "_linalg_extractdiag linalg_extractdiag",
    lambda w, a, x: w.call(mx_numpy.diagonal, x, a.offset, -2, -1),
    "A",
    OFFSET,
    dtypes=Dtypes.FLOATING,
)
register(
    "_linalg_makediag linalg_makediag",
    lambda w, a, x: w.call(mx_numpy.make_diagonal, x, moderate(w, a.offset)),
    "A",
    OFFSET,
    dtypes=Dtypes.FLOATING,
)
for _name, _of in (
    ("extracttrian", mx_linalg.extract_triangle),
    ("maketrian", mx_linalg.make_triangle),
):
    register(
        f"_linalg_{_name} linalg_{_name}",
        lambda w, a, x, of=_of: w.call(of, x, moderate(w, a.offset), a.lower),
        "A",
        f"{OFFSET}, lower: boolean = True",
        dtypes=Dtypes.FLOATING,
    )
