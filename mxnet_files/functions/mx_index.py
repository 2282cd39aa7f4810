"""MXNet's order of elements, and its choice of elements by index, in code that TorchScript reads.

Where elements tie, the earlier one comes first, as on MXNet's GPU. MXNet's CPU leaves ties among
more than 16 elements to `std::sort`, whose order is that of its pivots.
"""

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype, mx_numpy, mx_shape

__all__ = [
    "arange_like",
    "argsort",
    "assign",
    "assign_number",
    "batch_take",
    "boolean_mask",
    "diagonal",
    "gather_nd",
    "index_array",
    "index_copy",
    "places",
    "ravel_multi_index",
    "scatter_nd",
    "sort",
    "topk",
    "topk_indices",
    "topk_mask",
    "unravel_index",
]


def _ordered(x: Tensor, axis: int | None, descending: bool) -> tuple[Tensor, Tensor, int]:
    """Sorted values, their places, the axis; the flattened array without one."""
    if axis is None:
        values, places = torch.sort(x.reshape([-1]), stable=True, dim=0, descending=descending)
        return values, places, 0
    values, places = torch.sort(x, stable=True, dim=axis, descending=descending)
    return values, places, axis


def sort(x: Tensor, axis: int | None, descending: bool) -> Tensor:
    """x sorted along `axis`."""
    return _ordered(x, axis, descending)[0]


def argsort(x: Tensor, axis: int | None, descending: bool, dtype: torch.dtype) -> Tensor:
    """The places that sort x, as numbers of `dtype`."""
    return _ordered(x, axis, descending)[1].to(dtype)


def topk(
    x: Tensor, k: int, axis: int | None, ascending: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The k largest (smallest) in order, all of them for k < 1, and their places."""
    values, places, along = _ordered(x, axis, not ascending)
    count = k if k > 0 else values.size(along)
    return values.narrow(along, 0, count), places.narrow(along, 0, count).to(dtype)


def topk_indices(
    x: Tensor, k: int, axis: int | None, ascending: bool, dtype: torch.dtype
) -> Tensor:
    """The places of the k largest (smallest)."""
    return topk(x, k, axis, ascending, dtype)[1]


def topk_mask(x: Tensor, k: int, axis: int | None, ascending: bool) -> Tensor:
    """1 where x is among the k largest (smallest), else 0; x's shape."""
    places = topk(x, k, axis, ascending, torch.int64)[1]
    if axis is None:
        flat = torch.zeros_like(x).reshape([-1])
        return flat.index_fill(0, places, 1.0).reshape(x.shape)
    return torch.zeros_like(x).scatter(axis, places, 1.0)


def _flat_index(indices: Tensor, shape: list[int], wrap: bool) -> Tensor:
    """(M, ...) coordinates -> places in an array whose first M axes are `shape`'s."""
    place = torch.zeros_like(indices[0], dtype=torch.int64)
    for axis in range(indices.size(0)):
        coordinate = indices[axis].to(torch.int64)
        if wrap:
            coordinate = torch.remainder(coordinate, shape[axis])
        place = place * shape[axis] + coordinate
    return place


def gather_nd(x: Tensor, indices: Tensor) -> Tensor:
    """x[indices[0], indices[1], …]; indices (M, …) of any dtype, counted from the end below 0."""
    axes = indices.size(0)
    rest = list(x.shape[axes:])
    place = _flat_index(indices, list(x.shape[:axes]), True)
    rows = x.reshape([-1] + rest).index_select(0, place.reshape([-1]))  # noqa: RUF005
    return rows.reshape(list(indices.shape[1:]) + rest)


def scatter_nd(x: Tensor, indices: Tensor, shape: list[int]) -> Tensor:
    """Zeros of `shape` with x at indices (M, …); of equal indices the last one stays."""
    axes = indices.size(0)
    size = 1
    for extent in shape[:axes]:
        size *= extent
    rest = list(shape[axes:])
    place = _flat_index(indices, list(shape[:axes]), False).reshape([-1])
    out = x.new_zeros([size] + rest)  # noqa: RUF005
    out = out.index_copy(0, place, x.reshape([-1] + rest))  # noqa: RUF005
    return out.reshape(shape)


def diagonal(x: Tensor, k: int, first: int, second: int) -> Tensor:
    """The k-th diagonal of the axes `first` and `second`, last; a vector on the diagonal."""
    if x.dim() == 1:
        return mx_numpy.diagflat(x, k)
    return mx_numpy.diagonal(x, k, first, second)


def arange_like(x: Tensor, start: float, step: float, repeat: int, axis: int | None) -> Tensor:
    """start, start + step, …, each `repeat` times, along x's axis, or in x's shape; x's dtype.

    Start and step lose their fractions in integers, and in floating point of 16 bits too.
    """
    if x.dtype != torch.float32 and x.dtype != torch.float64:
        start, step = float(int(start)), float(int(step))
    count = x.numel() if axis is None else x.size(axis)
    places = torch.arange(count, device=x.device)
    if repeat != 1:
        places = torch.div(places, repeat, rounding_mode="floor")
    first = mx_dtype.number(start, x).reshape([1])
    out = first + places.to(x.dtype) * mx_dtype.number(step, x)
    return out.reshape(x.shape) if axis is None else out


def batch_take(x: Tensor, indices: Tensor) -> Tensor:
    """One element of each row of x (N, K), the nearest for an index outside; indices' shape."""
    if x.dim() != 2:
        raise ValueError("batch_take: expected rows (N, K)")
    return mx_shape.pick(x, indices.reshape([-1]), 1, False, False).reshape(indices.shape)


def unravel_index(x: Tensor, shape: list[int]) -> Tensor:
    """Places (N,) in an array of `shape` -> coordinates (axes, N); fractions go."""
    if x.dim() != 1:
        raise ValueError("unravel_index: expected places (N,)")
    place = mx_dtype.cast(x, torch.int32)
    rows: list[Tensor] = []
    for size in shape[1:][::-1]:
        above = torch.div(place, size, rounding_mode="trunc")
        rows = [place - above * size] + rows  # noqa: RUF005
        place = above
    return torch.stack([place] + rows).to(x.dtype)  # noqa: RUF005


def ravel_multi_index(x: Tensor, shape: list[int]) -> Tensor:
    """Coordinates (axes, N) -> places (N,) in an array of `shape`; fractions go after each axis."""
    if x.dim() != 2 or x.size(0) != len(shape):
        raise ValueError("ravel_multi_index: expected a row of coordinates for each axis")
    wide = x.to(torch.float32) if x.dtype == torch.float16 else x
    place = mx_dtype.cast(wide[0], torch.int32)
    for axis in range(1, len(shape)):
        place = mx_dtype.cast((place * shape[axis]).to(wide.dtype) + wide[axis], torch.int32)
    return place.to(x.dtype)


def index_array(x: Tensor, axes: list[int] | None) -> Tensor:
    """The coordinates of each element of x, those of `axes` or all, along a last axis."""
    rows: list[Tensor] = []
    for axis in list(range(x.dim())) if axes is None else axes:
        size = [1] * x.dim()
        size[axis % x.dim()] = -1
        places = torch.arange(x.size(axis % x.dim()), device=x.device)
        rows.append(places.reshape(size).expand(x.shape))
    return torch.stack(rows, -1)


def boolean_mask(x: Tensor, mask: Tensor) -> Tensor:
    """The rows of x where mask (N,) is not zero."""
    if mask.dim() != 1 or mask.size(0) != x.size(0):
        raise ValueError("boolean_mask: expected a number for each row")
    return x[mask != 0]


def places(x: Tensor) -> Tensor:
    """The place of each element of x in x flattened; x's shape."""
    return torch.arange(x.numel(), device=x.device).reshape(x.shape)


def assign(x: Tensor, y: Tensor, where: Tensor) -> Tensor:
    """x with y's elements at these places of the flattened x."""
    if y.shape != where.shape:
        raise ValueError("slice_assign: the two sides have different shapes")
    flat = x.reshape([-1]).index_copy(0, where.reshape([-1]), y.reshape([-1]))
    return flat.reshape(x.shape)


def assign_number(x: Tensor, where: Tensor, value: float) -> Tensor:
    """x with a number at these places of the flattened x."""
    y = mx_dtype.number(value, x).expand(where.shape)
    return assign(x, y, where)


def index_copy(x: Tensor, index: Tensor, y: Tensor) -> Tensor:
    """x with y's rows in the places of `index`."""
    return x.index_copy(0, index.reshape([-1]).to(torch.int64), y)
