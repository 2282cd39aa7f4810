"""MXNet's `linalg` on the last two axes, in code that TorchScript reads."""

import torch
from torch import Tensor

from mxnet_files.functions import mx_numpy

__all__ = [
    "det",
    "eigenvectors",
    "extract_triangle",
    "inverse_of_factored",
    "khatri_rao",
    "lower_factor",
    "make_triangle",
    "slogdet",
    "sum_log_diagonal",
    "triangular_product",
    "triangular_solve",
]

# ruff: noqa: RUF005 (TorchScript has no [*a, b])


def _each(y: Tensor, np_shape: bool) -> Tensor:
    """A number for each matrix: of one matrix () in files of mx.np, and (1,) in others."""
    return y if np_shape or y.dim() > 0 else y.reshape([1])


def det(x: Tensor, np_shape: bool) -> Tensor:
    """Determinants (N) of (N, n, n)."""
    return _each(torch.linalg.det(x), np_shape)


def slogdet(x: Tensor, np_shape: bool) -> tuple[Tensor, Tensor]:
    """Signs, and logarithms of the absolute values, of the determinants."""
    sign, value = torch.linalg.slogdet(x)
    return _each(sign, np_shape), _each(value, np_shape)


def sum_log_diagonal(x: Tensor) -> Tensor:
    """Sum of the logarithms of the diagonal; (1,) of one matrix."""
    total = torch.log(mx_numpy.diagonal(x, 0, -2, -1)).sum(-1)
    return total.reshape([1]) if x.dim() == 2 else total


def _oriented(a: Tensor, transpose: bool) -> Tensor:
    return a.transpose(-2, -1) if transpose else a


def triangular_product(a: Tensor, b: Tensor, transpose: bool, right: bool, lower: bool) -> Tensor:
    """Product of the triangle of a with b, from the left or the `right`."""
    triangle = _oriented(torch.tril(a) if lower else torch.triu(a), transpose)
    return torch.matmul(b, triangle) if right else torch.matmul(triangle, b)


def triangular_solve(a: Tensor, b: Tensor, transpose: bool, right: bool, lower: bool) -> Tensor:
    """What the product of the triangle of a with makes b."""
    upper = lower == transpose
    return torch.linalg.solve_triangular(_oriented(a, transpose), b, upper=upper, left=not right)


def inverse_of_factored(x: Tensor) -> Tensor:
    """Inverse of the product of the lower triangle of x with its transpose."""
    one = torch.eye(x.size(-1), dtype=x.dtype, device=x.device).expand(x.shape)
    inverse = torch.linalg.solve_triangular(x, one, upper=False)
    return torch.matmul(inverse.transpose(-2, -1), inverse)


def _triangle(size: int, offset: int, lower: bool, x: Tensor) -> Tensor:
    """Places of a triangle in a flattened square: a lower one row by row, an upper one by columns.

    `lower` tells the side at the offset 0 only.
    """
    row = torch.arange(size, device=x.device).unsqueeze(1)
    column = torch.arange(size, device=x.device).unsqueeze(0)
    inside = (column - row <= -abs(offset)).reshape([-1])
    turned = offset > 0 or (offset == 0 and not lower)
    place = column * size + row if turned else row * size + column
    return place.reshape([-1])[inside]


def extract_triangle(x: Tensor, offset: int, lower: bool) -> Tensor:
    """A triangle of (…, n, n) in a row: (…, n·(n + 1)/2) for the offset 0."""
    flat = x.reshape(list(x.shape[:-2]) + [x.size(-2) * x.size(-1)])
    return flat.index_select(-1, _triangle(x.size(-1), offset, lower, x))


def make_triangle(x: Tensor, offset: int, lower: bool) -> Tensor:
    """Squares of zeros with x (…, count) in a triangle."""
    side = 0
    while side * (side + 1) < 2 * x.size(-1):
        side += 1
    if side * (side + 1) != 2 * x.size(-1):
        raise ValueError("maketrian: expected as many numbers as a triangle has")
    size = side + abs(offset)
    batch = list(x.shape[:-1])
    empty = torch.zeros(batch + [size * size], dtype=x.dtype, device=x.device)
    filled = empty.index_copy(-1, _triangle(size, offset, lower, x), x)
    return filled.reshape(batch + [size, size])


def khatri_rao(arrays: list[Tensor]) -> Tensor:
    """Kronecker's product of the matrices, column by column."""
    y = arrays[0]
    for x in arrays[1:]:
        y = (y.unsqueeze(1) * x.unsqueeze(0)).reshape([-1, y.size(1)])
    return y


def lower_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, L): x is a lower triangle L times rows Q that are orthonormal."""
    q, r = torch.linalg.qr(x.transpose(-2, -1))
    return q.transpose(-2, -1), r.transpose(-2, -1)


def eigenvectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """(U, L): rows of U are eigenvectors of the symmetric x, the largest element of each positive,
    by their eigenvalues L, which grow. The lower triangle of x is read.
    """
    values, vectors = torch.linalg.eigh(x)
    rows = vectors.transpose(-2, -1)
    largest = rows.abs().argmax(-1, keepdim=True)
    negative = rows.gather(-1, largest) < 0
    return torch.where(negative, -rows, rows), values
