"""Where the values of MXNet's sparse arrays belong in the dense array that they stand for.

Each function returns an index for `dense[index] = values`, or None where the parts of the sparse
array contradict each other: the index arrays come from a file and may hold anything.
"""

from __future__ import annotations

import numpy as np

Shape = tuple[int, ...]


def row_sparse_cells(
    shape: Shape, stored: Shape, rows: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """`row_sparse`: `stored` is the shape of the values, `rows` the numbers of the rows, rising."""
    if not shape or rows.ndim != 1 or stored != (len(rows), *shape[1:]):
        return None
    return (rows,) if _within(rows, shape[0] - 1) and (np.diff(rows) > 0).all() else None


def csr_cells(
    shape: Shape, stored: Shape, starts: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """`csr`: row i's values are those from `starts[i]` to `starts[i + 1]`, in `columns`."""
    if len(shape) != 2 or starts.shape != (shape[0] + 1,) or columns.shape != stored:
        return None
    # The range first: np.diff wraps around on values near 2**63.
    if len(stored) != 1 or not _within(starts, stored[0]) or not _within(columns, shape[1] - 1):
        return None
    counts = np.diff(starts)
    if starts[0] != 0 or starts[-1] != stored[0] or (counts < 0).any():
        return None
    rows = np.repeat(np.arange(shape[0]), counts)
    cells = rows * shape[1] + columns
    return (rows, columns) if len(np.unique(cells)) == len(cells) else None


def _within(index: np.ndarray, last: int) -> bool:
    return bool(((index >= 0) & (index <= last)).all())
