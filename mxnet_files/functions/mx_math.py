"""MXNet's arithmetic where torch's namesake differs, in code that TorchScript reads.

A reduction over every axis has shape (1,), never (). `axes` None or empty means all of them.
"""

import math

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype, mx_shape

__all__ = [
    "argmax",
    "argmin",
    "cast_alike",
    "cbrt",
    "clip",
    "cumsum",
    "degrees",
    "divide",
    "divide_number",
    "dot",
    "erfinv",
    "expm1",
    "gamma",
    "hard_sigmoid",
    "hypot",
    "maximum",
    "minimum",
    "mod",
    "moments",
    "norm",
    "power",
    "quadratic",
    "radians",
    "rcbrt",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_nanprod",
    "reduce_nansum",
    "reduce_prod",
    "reduce_sum",
    "rint",
    "round_half_away",
    "sigmoid",
    "smooth_l1",
    "softmax_length",
    "square",
]


def _axes(x: Tensor, axes: list[int], exclude: bool) -> list[int]:
    count = x.dim()
    if len(axes) == 0:
        return list(range(count))
    named = [axis + count if axis < 0 else axis for axis in axes]
    if not exclude:
        return named
    # none where all are excluded: torch would take that for all of them
    return mx_shape.other_axes(count, named)


def _at_least_1d(x: Tensor) -> Tensor:
    return x.reshape([1]) if x.dim() == 0 else x


def _drop(y: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return y if keepdims else _at_least_1d(mx_shape.without(y, axes))


def reduce_sum(x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False) -> Tensor:
    """Sum over `axes`, or over all others with `exclude`."""
    chosen = _axes(x, axes, exclude)
    if len(chosen) == 0:
        return x
    return _at_least_1d(torch.sum(x, chosen, keepdims, dtype=x.dtype))


def reduce_mean(
    x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False
) -> Tensor:
    """Mean over `axes`; of integers the sum, which may overflow, divided without a fraction."""
    chosen = _axes(x, axes, exclude)
    if len(chosen) == 0:
        return x
    if x.is_floating_point():
        return _at_least_1d(torch.mean(x, chosen, keepdims))
    total = torch.sum(x, chosen, keepdims, dtype=x.dtype)
    if x.dtype == torch.bool:
        return _at_least_1d(total)  # 1 / 1
    count = x.numel() // max(total.numel(), 1)
    return _at_least_1d(divide(total, mx_dtype.number(float(count), total)))


def reduce_prod(
    x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False
) -> Tensor:
    """Product over `axes`."""
    chosen = _axes(x, axes, exclude)
    for axis in chosen:
        x = torch.prod(x, axis, True, dtype=x.dtype)
    return _drop(x, chosen, keepdims)


def _extreme(x: Tensor, best: Tensor) -> Tensor:
    """`best` with MXNet's gradient: every element that equals it gets the whole of it."""
    if not x.requires_grad:
        return best
    zero = torch.where(torch.isfinite(x), x - x.detach(), torch.zeros_like(x))
    hit = (x == best.detach()).to(x.dtype)
    return best.detach() + reduce_like(zero * hit, best)


def reduce_like(x: Tensor, like: Tensor) -> Tensor:
    """Sum x over the axes that `like` has with size 1."""
    axes: list[int] = []
    for axis in range(x.dim()):
        if like.size(axis) == 1:
            axes.append(axis)
    return torch.sum(x, axes, True)


def reduce_max(x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False) -> Tensor:
    """Largest over `axes`; ties all receive the gradient."""
    chosen = _axes(x, axes, exclude)
    if len(chosen) == 0:
        return x
    return _drop(_extreme(x, torch.amax(x, chosen, True)), chosen, keepdims)


def reduce_min(x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False) -> Tensor:
    """Smallest over `axes`; ties all receive the gradient."""
    chosen = _axes(x, axes, exclude)
    if len(chosen) == 0:
        return x
    return _drop(_extreme(x, torch.amin(x, chosen, True)), chosen, keepdims)


def reduce_nansum(
    x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False
) -> Tensor:
    """Sum that counts NaN as 0."""
    return reduce_sum(torch.where(torch.isnan(x), torch.zeros_like(x), x), axes, keepdims, exclude)


def reduce_nanprod(
    x: Tensor, axes: list[int], keepdims: bool = False, exclude: bool = False
) -> Tensor:
    """Product that counts NaN as 1."""
    return reduce_prod(torch.where(torch.isnan(x), torch.ones_like(x), x), axes, keepdims, exclude)


def norm(x: Tensor, order: int, axes: list[int], keepdims: bool = False) -> Tensor:
    """L1 or L2 norm over `axes`.

    L2 of integers is MXNet's own: it scales by the largest as it goes, and in whole numbers
    nothing but the elements as large as that is left of the sum.
    """
    chosen = _axes(x, axes, False)
    if x.dtype == torch.bool:
        return reduce_sum(x, axes, keepdims)
    if order == 1:
        return _at_least_1d(torch.sum(torch.abs(x), chosen, keepdims, dtype=x.dtype))
    if x.is_floating_point():
        return _at_least_1d(torch.sqrt(torch.sum(x * x, chosen, keepdims)))
    size = torch.abs(x)
    largest = torch.amax(size, chosen, True)
    count = torch.sum(size == largest, chosen, True, dtype=x.dtype).to(torch.float64)
    return _drop(mx_dtype.cut(largest * torch.sqrt(count), x.dtype), chosen, keepdims)


def argmax(x: Tensor, axis: int | None, keepdims: bool = False) -> Tensor:
    """Place of the first largest element, as a float of x's dtype."""
    if axis is None:
        y = torch.argmax(x.reshape([-1]), 0, keepdims)
        return _all_axes(y, x, keepdims)
    return _at_least_1d(torch.argmax(x, axis, keepdims)).to(x.dtype)


def argmin(x: Tensor, axis: int | None, keepdims: bool = False) -> Tensor:
    """Place of the first smallest element, as a float of x's dtype."""
    if axis is None:
        y = torch.argmin(x.reshape([-1]), 0, keepdims)
        return _all_axes(y, x, keepdims)
    return _at_least_1d(torch.argmin(x, axis, keepdims)).to(x.dtype)


def _all_axes(y: Tensor, x: Tensor, keepdims: bool) -> Tensor:
    return y.reshape([1] * x.dim() if keepdims else [1]).to(x.dtype)


def cumsum(x: Tensor, axis: int | None, dtype: torch.dtype | None) -> Tensor:
    """Running sum along `axis`, or over the flattened array, in x's dtype or `dtype`."""
    if axis is None:
        return torch.cumsum(x.reshape([-1]), 0, dtype=x.dtype if dtype is None else dtype)
    return torch.cumsum(x, axis, dtype=x.dtype if dtype is None else dtype)


def moments(x: Tensor, axes: list[int], keepdims: bool) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over `axes`."""
    if not x.is_floating_point():
        centre = reduce_mean(x, axes, True)
        spread = reduce_mean(torch.square(x - centre), axes, keepdims)
        return reduce_mean(x, axes, keepdims), spread
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=keepdims)
    return _at_least_1d(mean), _at_least_1d(var)


def cast_alike(inputs: list[Tensor], narrow: bool) -> list[Tensor]:
    """Floats of 16 and 32 bits as the widest (narrowest) of them; other dtypes stay."""
    half, small = (torch.float16, torch.bfloat16), (torch.float16, torch.bfloat16, torch.float32)
    dtype = torch.float32 if narrow else inputs[0].dtype
    for x in inputs:
        decides = x.dtype in half if narrow else x.dtype == torch.float32
        if decides:
            dtype = x.dtype
    return [x.to(dtype) if x.dtype in small else x for x in inputs]


def dot(a: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Contract a's last axis (first, transposed) with b's first (last, transposed)."""
    left = a.movedim(0, -1) if transpose_a else a
    right = b.movedim(b.dim() - 1, 0) if transpose_b else b
    inner = right.size(0)
    out = left.reshape([-1, inner]) @ right.reshape([inner, -1])
    shape = list(left.shape[:-1]) + list(right.shape[1:])
    return out.reshape(shape if len(shape) > 0 else [1])


def mod(a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the divisor's sign; 0 where the divisor is 0. Of integers in float64."""
    if not a.is_floating_point():
        return mx_dtype.cut(_mod(a.to(torch.float64), b.to(torch.float64)), a.dtype)
    return _mod(a, b)


def _mod(a: Tensor, b: Tensor) -> Tensor:
    safe = torch.where(b == 0, torch.ones_like(b), b)
    return torch.where(b == 0, torch.zeros_like(a), torch.remainder(a, safe))


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of integers without its fraction, an error where the divisor is 0."""
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    if b.dtype == torch.uint8:
        return torch.div(a, b, rounding_mode="trunc")
    negated = b == -1  # the processor traps where the lowest integer is divided by it
    quotient = torch.div(a, torch.where(negated, torch.ones_like(b), b), rounding_mode="trunc")
    return torch.where(negated, -a, quotient)


def divide_number(a: Tensor, b: Tensor) -> Tensor:
    """Quotient of a number by an array; of integers in float32."""
    if b.is_floating_point():
        return a / b
    return mx_dtype.cut(a.to(torch.float32) / b.to(torch.float32), b.dtype)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """x between two numbers, which lose their fractions beside integers; `high` wins over `low`."""
    y = torch.where(x < low, mx_dtype.number(low, x), x)
    return torch.where(x > high, mx_dtype.number(high, x), y)


def rint(x: Tensor) -> Tensor:
    """Nearest integer; n.5 goes down."""
    below, above = torch.floor(x), torch.ceil(x)
    return torch.where(x - below <= above - x, below, above)


def round_half_away(x: Tensor) -> Tensor:
    """Nearest integer; n.5 goes away from zero. By floor: torch writes no ONNX of trunc."""
    size = torch.abs(x)
    whole = torch.floor(size)
    return torch.where(size - whole >= 0.5, whole + 1, whole) * torch.sign(x)


def _cbrt(x: Tensor) -> Tensor:
    return torch.copysign(torch.pow(torch.abs(x), 1.0 / 3.0), x)


def cbrt(x: Tensor) -> Tensor:
    """Cube root, negative numbers included; exact where it is whole, if x is an integer."""
    if x.is_floating_point():
        return _cbrt(x)
    wide = x.to(torch.float64)
    near = torch.round(_cbrt(wide))  # the fraction's sign decides: one step of Newton from there
    step = (near * near * near - wide) / (3.0 * near * near)
    return mx_dtype.cut(torch.where(near == 0, near, near - step), x.dtype)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha·x + beta, between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def rcbrt(x: Tensor) -> Tensor:
    """1 over the cube root."""
    return 1.0 / cbrt(x)


def gamma(x: Tensor) -> Tensor:
    """The gamma function; negative arguments by reflection, NaN at the poles below zero."""
    if not x.is_floating_point():
        return _gamma_of_integers(x)
    high = torch.exp(torch.lgamma(torch.where(x > 0, x, 1.0 - x)))
    y = torch.where(x > 0, high, math.pi / (torch.sin(math.pi * x) * high))
    return torch.where((x < 0) & (x == torch.floor(x)), torch.full_like(x, math.nan), y)


def _gamma_of_integers(x: Tensor) -> Tensor:
    """(x − 1)!, without the rounding of logarithms; the lowest integer where there is none."""
    top = 171  # beyond it float64 overflows
    factors = torch.arange(0, top, dtype=torch.float64, device=x.device).clamp(min=1.0)
    table = torch.cumprod(factors, 0)
    value = table[(x.to(torch.int64) - 1).clamp(0, top - 1)]
    there = (x >= 1) & (x.to(torch.int64) <= top)
    return mx_dtype.cut(torch.where(there, value, torch.full_like(value, math.inf)), x.dtype)


def expm1(x: Tensor) -> Tensor:
    """exp(x) − 1; of integers in float64."""
    if x.is_floating_point():
        return torch.expm1(x)
    wide = x.to(torch.float64)
    return mx_dtype.cut(torch.where(x < 0, torch.exp(wide) - 1.0, torch.expm1(wide)), x.dtype)


def degrees(x: Tensor) -> Tensor:
    """Radians as degrees, by MXNet's float32 constant; of integers in float32."""
    if x.is_floating_point():
        return x * 57.2957763671875
    return mx_dtype.cut(x.to(torch.float32) * 57.2957763671875, x.dtype)


def radians(x: Tensor) -> Tensor:
    """Degrees as radians, by MXNet's float32 constant; of integers in float32."""
    if x.is_floating_point():
        return x * 0.01745329238474369
    return mx_dtype.cut(x.to(torch.float32) * 0.01745329238474369, x.dtype)


def hypot(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a² + b²); of integers in float32."""
    if a.is_floating_point() or b.is_floating_point():
        return torch.hypot(a, b)
    return mx_dtype.cut(torch.hypot(a.to(torch.float32), b.to(torch.float32)), a.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(−x)); of integers in float64, but for the sign, which the lowest keeps."""
    if x.is_floating_point():
        return torch.sigmoid(x)
    wide = x if x.dtype == torch.int64 else x.to(torch.int32)
    return mx_dtype.cut(1.0 / (1.0 + torch.exp((-wide).to(torch.float64))), x.dtype)


def square(x: Tensor) -> Tensor:
    """x²; of integers in float32."""
    if x.is_floating_point():
        return x * x
    return mx_dtype.cut(torch.square(x.to(torch.float32)), x.dtype)


def power(a: Tensor, b: Tensor) -> Tensor:
    """a to the power of b; of integers in float64, rounded to float32."""
    if a.is_floating_point() or b.is_floating_point():
        return torch.pow(a, b)
    wide = torch.pow(a.to(torch.float64), b.to(torch.float64))
    return mx_dtype.cut(wide.to(torch.float32), a.dtype)


def erfinv(x: Tensor) -> Tensor:
    """The inverse error function; of integers 0 where it is not defined."""
    if x.is_floating_point():
        return torch.erfinv(x)
    inside = torch.where((x > 1) | (x < -1), torch.zeros_like(x), x)
    return mx_dtype.cut(torch.erfinv(inside.to(torch.float32)), x.dtype)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger; at a tie the gradient goes to `a`."""
    return torch.where((a >= b) | (a != a), a, b)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller; at a tie the gradient goes to `a`."""
    return torch.where((a <= b) | (a != a), a, b)


def smooth_l1(x: Tensor, sigma: float) -> Tensor:
    """0.5·(σx)² near zero, |x| − 0.5/σ² beyond 1/σ²; σ loses its fraction beside integers."""
    if not x.is_floating_point():
        whole = float(int(sigma))
        if whole == 0.0:
            return torch.zeros_like(x)
        return mx_dtype.cut(_smooth_l1(x.to(torch.float32), whole), x.dtype)
    return _smooth_l1(x, sigma)


def _smooth_l1(x: Tensor, sigma: float) -> Tensor:
    square = sigma * sigma
    size = torch.abs(x)
    return torch.where(size > 1.0 / square, size - 0.5 / square, 0.5 * square * x * x)


def softmax_length(x: Tensor, length: Tensor, axis: int, temperature: float, log: bool) -> Tensor:
    """Softmax over the first `length` places of `axis`; the rest is 0 (for log, -inf)."""
    places = torch.arange(x.size(axis), device=x.device)
    shape = [1] * x.dim()
    shape[axis] = -1
    inside = places.reshape(shape) < length.to(torch.int64).unsqueeze(axis)
    masked = (x / temperature).masked_fill(~inside, -float("inf"))
    return torch.log_softmax(masked, axis) if log else torch.softmax(masked, axis)


def quadratic(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """a·x² + b·x + c."""
    return (a * x + b) * x + c
