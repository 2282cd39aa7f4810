"""`mx.np`'s functions where torch's namesake differs, in code that TorchScript reads.

`axes` empty means all of them; a reduction of everything has shape ().
"""

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype, mx_math, mx_shape

__all__ = [
    "argmax",
    "argmin",
    "around",
    "atleast",
    "average",
    "concatenate",
    "copysign",
    "deviation",
    "diag",
    "diagflat",
    "diagonal",
    "diagonal_places",
    "diff",
    "differences",
    "dot",
    "infinite",
    "joined",
    "ldexp",
    "make_diagonal",
    "matrix_norm",
    "moveaxis",
    "norm",
    "pad",
    "percentile",
    "polynomial",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "roll",
    "rot90",
    "split",
    "squeeze",
    "tensordot",
    "tensordot_last",
    "trace",
    "tril",
    "variance",
    "where",
    "where_number",
    "where_numbers",
]

# ruff: noqa: RUF005 (TorchScript has no [*a, b])


def _scalar(y: Tensor, axes: list[int], keepdims: bool, dims: int) -> Tensor:
    """() in the place of (1,) where every axis went."""
    gone = len(axes) == 0 or len(axes) == dims
    return y.reshape([]) if gone and not keepdims else y


def reduce_sum(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Sum over `axes`."""
    return _scalar(mx_math.reduce_sum(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_mean(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Mean over `axes`."""
    return _scalar(mx_math.reduce_mean(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_prod(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Product over `axes`."""
    return _scalar(mx_math.reduce_prod(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_max(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Largest over `axes`."""
    return _scalar(mx_math.reduce_max(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_min(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Smallest over `axes`."""
    return _scalar(mx_math.reduce_min(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_all(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """True where no element over `axes` is 0."""
    return reduce_sum((x == 0).to(torch.int64), axes, keepdims) == 0


def reduce_any(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """True where an element over `axes` is not 0."""
    return reduce_sum((x != 0).to(torch.int64), axes, keepdims) != 0


def variance(x: Tensor, axes: list[int], ddof: int, keepdims: bool) -> Tensor:
    """Mean square distance from the mean, over n − ddof."""
    chosen = axes if len(axes) > 0 else list(range(x.dim()))
    return torch.var(x, chosen, correction=ddof, keepdim=keepdims)


def deviation(x: Tensor, axes: list[int], ddof: int, keepdims: bool) -> Tensor:
    """The root of the variance."""
    return torch.sqrt(variance(x, axes, ddof, keepdims))


def argmax(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    """Place of the first largest element, int64."""
    if axis is None:
        place = torch.argmax(x.reshape([-1]))
        return place.reshape([1] * x.dim()) if keepdims else place
    return torch.argmax(x, axis, keepdims)


def argmin(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    """Place of the first smallest element, int64."""
    return argmax(-x if x.is_floating_point() else -1 - x, axis, keepdims)  # no -x of uint8


def squeeze(x: Tensor, axes: list[int]) -> Tensor:
    """Drop axes of size 1, all of them if none is given."""
    return x.squeeze() if len(axes) == 0 else mx_shape.without(x, axes)


def moveaxis(x: Tensor, source: list[int], destination: list[int]) -> Tensor:
    """Axes in other places; ONNX wants none of them counted from the end."""
    count = x.dim()
    return x.movedim([axis % count for axis in source], [axis % count for axis in destination])


def concatenate(inputs: list[Tensor], axis: int | None) -> Tensor:
    """Joined along `axis`, or flattened first."""
    if axis is None:
        return torch.cat([x.reshape([-1]) for x in inputs])
    return torch.cat(inputs, axis)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition is not zero."""
    return torch.where(condition != 0, x, y)


def roll(x: Tensor, shifts: list[int], axes: list[int]) -> Tensor:
    """Elements moved on along `axes`, or in the flattened array without any."""
    if len(axes) == 0:
        return torch.roll(x.reshape([-1]), shifts, [0]).reshape(x.shape)
    return torch.roll(x, shifts, axes)


def tril(x: Tensor, k: int) -> Tensor:
    """Zeros above the k-th diagonal of the last two axes; a vector is every row of a square."""
    if x.dim() == 1:
        x = x.expand([x.size(0), x.size(0)])
    return torch.tril(x, k)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """numpy's dot: a's last axis with b's last but one."""
    if a.dim() == 0 or b.dim() == 0:
        return a * b
    if b.dim() == 1:
        return torch.matmul(a, b)
    inner = b.size(-2)
    right = b.movedim(-2, 0)
    out = a.reshape([-1, inner]) @ right.reshape([inner, -1])
    return out.reshape(list(a.shape[:-1]) + list(right.shape[1:]))


def where_number(condition: Tensor, x: Tensor, value: float, last: bool) -> Tensor:
    """x beside a number of x's dtype, which is the choice for zeros if it comes `last`."""
    chosen = condition != 0
    return torch.where(chosen if last else ~chosen, x, mx_dtype.number(value, x))


def where_numbers(condition: Tensor, x: float, y: float, dtype: torch.dtype) -> Tensor:
    """The number x where the condition is not zero, else y."""
    like = torch.zeros([], dtype=dtype, device=condition.device)
    return torch.where(condition != 0, mx_dtype.number(x, like), mx_dtype.number(y, like))


def joined(arrays: list[Tensor], kind: str) -> Tensor:
    """vstack, hstack, dstack or column_stack."""
    if kind == "vstack":
        return torch.vstack(arrays)
    if kind == "hstack":
        return torch.hstack(arrays)
    if kind == "dstack":
        return torch.cat([torch.atleast_3d(x) for x in arrays], 2)  # ONNX has no dstack
    return torch.column_stack(arrays)


def pad(x: Tensor, widths: list[int], mode: str, value: float) -> Tensor:
    """Elements before and after each axis in turn: `widths` has two numbers an axis."""
    if len(widths) != 2 * x.dim():
        raise ValueError("pad: pad_width needs two numbers for each axis")
    for axis in range(x.dim()):
        before, after, size = widths[2 * axis], widths[2 * axis + 1], x.size(axis)
        if before + after == 0:
            continue
        if mode in ["constant", "maximum", "minimum"]:
            if mode == "constant":
                edge = mx_dtype.number(value, x)
            elif mode == "maximum":
                edge = x.amax(axis, True)
            else:
                edge = x.amin(axis, True)
            parts = [x]
            size_of = list(x.shape)
            if before > 0:  # ONNX expands to no empty arrays
                size_of[axis] = before
                parts.insert(0, edge.expand(size_of))
            if after > 0:
                size_of[axis] = after
                parts.append(edge.expand(size_of))
            x = torch.cat(parts, axis)
            continue
        place = torch.arange(-before, size + after, device=x.device)
        if mode == "edge" or size == 1:
            place = place.clamp(0, size - 1)
        elif mode == "reflect":  # there and back again, the ends once
            place = torch.remainder(place, 2 * size - 2)
            place = torch.minimum(place, 2 * size - 2 - place)
        else:  # symmetric: the ends twice
            place = torch.remainder(place, 2 * size)
            place = torch.minimum(place, 2 * size - 1 - place)
        x = x.index_select(axis, place)
    return x


def around(x: Tensor, decimals: int) -> Tensor:
    """x to that many decimals, halves to even; ten by ten, as MXNet's rounding errors are."""
    for _ in range(abs(decimals)):
        x = x * 10.0 if decimals > 0 else x / 10.0
    x = torch.round(x)
    for _ in range(abs(decimals)):
        x = x / 10.0 if decimals > 0 else x * 10.0
    return x


def norm(x: Tensor, order: float, axes: list[int], keepdims: bool) -> Tensor:
    """Root of the sum of powers over `axes`, all of them without any; order 0 counts.

    Zeros take no part beside a negative order, and are 0 by themselves.
    """
    dims = axes if len(axes) > 0 else list(range(x.dim()))
    if len(dims) == 0:
        return x.abs()
    if order >= 0:
        return torch.linalg.vector_norm(x, order, dims, keepdims)
    some = torch.where(x == 0, torch.full_like(x, float("inf")), x)
    out = torch.linalg.vector_norm(some, order, dims, keepdims)
    empty = torch.amax(x.abs(), dims, keepdims) == 0
    return torch.where(empty, torch.zeros_like(out), out)


def matrix_norm(x: Tensor, kind: str, axes: list[int], keepdims: bool) -> Tensor:
    """Of the matrices in two axes: largest or smallest singular value, or their sum."""
    places = [axis % x.dim() for axis in axes]
    values = torch.linalg.svdvals(x.movedim(places, [x.dim() - 2, x.dim() - 1]))
    if kind == "sum":
        out = values.sum(-1)
    else:
        out = values.amax(-1) if kind == "largest" else values.amin(-1)
    if not keepdims:
        return out
    shape = list(x.shape)
    for axis in axes:
        shape[axis] = 1
    return out.reshape(shape)


def split(x: Tensor, parts: int, starts: list[int], axis: int) -> list[Tensor]:
    """`parts` equal parts along `axis`, or with 0 those that start at `starts`.

    A vector has its first axis in the place of the second.
    """
    if x.dim() == 1 and axis == 1:
        axis = 0
    if parts == 1:  # which ONNX does not split
        return [x]
    if parts > 0:
        return mx_shape.split_even(x, parts, axis)
    return mx_shape.split_at(x, starts, axis, False)


def tensordot(a: Tensor, b: Tensor, left: list[int], right: list[int]) -> Tensor:
    """Sums of products over the axes `left` of a and `right` of b."""
    first, second = [axis % a.dim() for axis in left], [axis % b.dim() for axis in right]
    rest, other = mx_shape.other_axes(a.dim(), first), mx_shape.other_axes(b.dim(), second)
    shape = [a.size(axis) for axis in rest] + [b.size(axis) for axis in other]
    inner = 1
    for axis in first:
        inner = inner * a.size(axis)
    if inner == 0:
        return torch.zeros(shape, dtype=a.dtype, device=a.device)
    rows = a.permute(rest + first).reshape([-1, inner])
    columns = b.permute(second + other).reshape([inner, -1])
    return torch.matmul(rows, columns).reshape(shape)


def tensordot_last(a: Tensor, b: Tensor, count: int) -> Tensor:
    """Sums of products over a's last and b's first axes."""
    left = list(range(a.dim() - count, a.dim()))
    return tensordot(a, b, left, list(range(count)))


def make_diagonal(x: Tensor, offset: int) -> Tensor:
    """Squares of zeros with x (…, n) as a diagonal."""
    place = torch.arange(x.size(-1) + abs(offset), device=x.device)
    index = (place - max(-offset, 0)).clamp(0, x.size(-1) - 1)
    value = x.index_select(-1, index).unsqueeze(-1)
    return torch.where(place - place.unsqueeze(1) == offset, value, torch.zeros_like(value))


def diagflat(x: Tensor, k: int) -> Tensor:
    """x flattened as the k-th diagonal of a square of zeros."""
    x = x.reshape([-1])
    if x.size(0) == 0:
        return torch.zeros([abs(k), abs(k)], dtype=x.dtype, device=x.device)
    return make_diagonal(x, k)


def diag(x: Tensor, k: int) -> Tensor:
    """The k-th diagonal of a matrix, or a square with this one."""
    if x.dim() == 1:
        return diagflat(x, k)
    if x.dim() != 2:
        raise ValueError("diag: expected one axis or two")
    return diagonal(x, k, 0, 1)


def diagonal(x: Tensor, offset: int, first: int, second: int) -> Tensor:
    """A diagonal of the matrices in two axes, as the last axis."""
    flat = x.movedim([first % x.dim(), second % x.dim()], [x.dim() - 2, x.dim() - 1])
    rows, columns = flat.size(-2), flat.size(-1)
    count = max(0, min(rows - max(-offset, 0), columns - max(offset, 0)))
    step = torch.arange(count, device=x.device)
    place = (step + max(-offset, 0)) * columns + step + max(offset, 0)
    return flat.reshape(list(flat.shape[:-2]) + [rows * columns]).index_select(-1, place)


def trace(x: Tensor, offset: int, first: int, second: int) -> Tensor:
    """Sum of a diagonal, in x's dtype."""
    return diagonal(x, offset, first, second).sum(-1).to(x.dtype)


def copysign(x: Tensor, y: Tensor) -> Tensor:
    """x with y's sign, as MXNet takes it: both zeros are positive, and NaN is of neither sign."""
    same = ((x >= 0) & (y >= 0)) | ((x < 0) & (y < 0))
    return torch.where(same, x, -x)


def ldexp(x: Tensor, y: Tensor) -> Tensor:
    """x · 2^y, of any real y; the power of float16 is one of float32."""
    wide = y.to(torch.float32) if y.dtype == torch.float16 else y
    return (x.to(wide.dtype) * torch.pow(torch.full_like(wide, 2.0), wide)).to(x.dtype)


def atleast(arrays: list[Tensor], count: int) -> list[Tensor]:
    """Arrays of at least 1, 2 or 3 axes; a vector is a row."""
    out: list[Tensor] = []
    for x in arrays:
        if count >= 1 and x.dim() == 0:
            x = x.reshape([1])
        if count >= 2 and x.dim() == 1:
            x = x.unsqueeze(0)
        if count >= 3 and x.dim() == 2:
            x = x.unsqueeze(2)
        out.append(x)
    return out


def diff(x: Tensor, times: int, axis: int) -> Tensor:
    """Differences of neighbours along `axis`, `times` over."""
    for _ in range(times):
        count = max(x.size(axis) - 1, 0)
        x = x.narrow(axis, x.size(axis) - count, count) - x.narrow(axis, 0, count)
    return x


def differences(x: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
    """Differences of neighbours in x flattened, between two arrays flattened."""
    parts = [diff(x.reshape([-1]), 1, 0)]
    if before is not None:
        parts = [before.reshape([-1])] + parts
    if after is not None:
        parts = parts + [after.reshape([-1])]
    return torch.cat(parts)


def polynomial(p: Tensor, x: Tensor) -> Tensor:
    """p[0]·xⁿ⁻¹ + … + p[n − 1] for each x."""
    y = torch.zeros_like(x)
    for i in range(p.size(0)):
        y = y * x + p[i]
    return y


def diagonal_places(x: Tensor) -> Tensor:
    """The coordinates of a cube's diagonal: (axes, n)."""
    if x.dim() < 2 or any([size != x.size(0) for size in x.shape]):  # noqa: C419 (TorchScript)
        raise ValueError("diag_indices_from: expected two axes or more, all of one size")
    return torch.arange(x.size(0), device=x.device).expand([x.dim(), x.size(0)])


def percentile(x: Tensor, q: Tensor, axes: list[int], between: str, keepdims: bool) -> Tensor:
    """The q-th percentiles along the axes; the shape of q comes first.

    Where one lies between two elements, float32 says where.
    """
    over = [axis % x.dim() for axis in axes] if len(axes) > 0 else list(range(x.dim()))
    rest = mx_shape.other_axes(x.dim(), over)
    kept = list(x.shape)
    for axis in over:
        kept[axis] = 1
    left = [x.size(axis) for axis in rest]
    y = x if x.dtype == torch.float64 else x.to(torch.float32)
    ordered = y.permute(rest + over).reshape(left + [-1]).sort(-1).values
    place = (q.reshape([-1]) * float(ordered.size(-1) - 1) / 100.0).to(torch.float32)
    low, high = place.floor().to(torch.int64), place.ceil().to(torch.int64)
    part = place - low.to(torch.float32)
    if between == "lower":
        high = low
    if between == "higher":
        low = high
    if between == "nearest":
        low = (place + 0.5).floor().to(torch.int64)
        high = low
    if between != "linear":
        part = torch.full_like(part, 0.5 if between == "midpoint" else 0.0)
    a, b = ordered.index_select(-1, low), ordered.index_select(-1, high)
    found = (a * (1.0 - part).to(y.dtype) + b * part.to(y.dtype)).movedim(-1, 0)
    return found.reshape(list(q.shape) + (kept if keepdims else left))


def rot90(x: Tensor, times: int, first: int, second: int) -> Tensor:
    """x turned from the first axis to the second, by so many right angles."""
    quarter = times % 4
    if quarter == 2:
        return x.flip([first, second])
    if quarter == 1:
        return x.flip([second]).transpose(first, second)
    return x.transpose(first, second).flip([second]) if quarter == 3 else x


def average(x: Tensor, weights: Tensor, axes: list[int]) -> Tensor:
    """Mean over `axes` with weights of x's shape, or one for each place along the one axis."""
    if weights.dim() == 1 and x.dim() > 1 and len(axes) == 1:
        shape = [1] * x.dim()
        shape[axes[0]] = weights.size(0)
        weights = weights.reshape(shape).expand(x.shape)
    return reduce_sum(x * weights, axes, False) / reduce_sum(weights, axes, False)


def infinite(x: Tensor, sign: float) -> Tensor:
    """Where x is infinite and of this sign."""
    return x.to(torch.float64) == sign * float("inf")
