"""The values near the worst one of a comparison: a small window of every side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ROWS, COLUMNS = 3, 5

Grid = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ValueWindow:
    """A window of at most 3 × 5 values; `position` lies in it.

    It lies in the last two axes that are longer than 1, `axes`, and begins at `start` there; in
    the other axes it is at `position`. `names` say whose values `grids` hold: the two that were
    judged against each other come first.
    """

    position: tuple[int, ...]
    axes: tuple[int, ...]
    start: tuple[int, ...]
    names: tuple[str, ...]
    grids: tuple[Grid, ...]

    @property
    def difference(self) -> Grid:
        """The first grid minus the second; NaN where a value is not finite."""
        with np.errstate(invalid="ignore"):
            return _grid(np.array(self.grids[0]) - np.array(self.grids[1]))

    @property
    def center(self) -> tuple[int, int]:
        """Row and column of `position` within a grid."""
        inside = [self.position[axis] - at for axis, at in zip(self.axes, self.start, strict=True)]
        row, column = [0, 0, *inside][-2:]
        return row, column

    @property
    def place(self) -> str:
        """Which part of the array this is: `[3, 2, 0:3, 1:4]`."""
        sizes = (len(self.grids[0]), len(self.grids[0][0]))[-len(self.axes) :]
        parts = [str(i) for i in self.position]
        for axis, at, size in zip(self.axes, self.start, sizes, strict=bool(self.axes)):
            parts[axis] = f"{at}:{at + size}"
        return f"[{', '.join(parts)}]"

    def with_array(self, name: str, array: np.ndarray) -> ValueWindow:
        """With a third array's values; unchanged where that has another shape."""
        third = window_at(self.position, {name: array})
        if third is None or (third.axes, third.start) != (self.axes, self.start):
            return self
        return replace(self, names=(*self.names, name), grids=self.grids + third.grids)

    def as_dict(self) -> dict[str, Any]:
        return {
            "position": list(self.position),
            "axes": list(self.axes),
            "start": list(self.start),
            "values": [
                {"side": name, "values": [list(row) for row in grid]}
                for name, grid in zip(self.names, self.grids, strict=True)
            ],
            "difference": [list(row) for row in self.difference],
        }


def window_at(position: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> ValueWindow | None:
    """The window around `position` of arrays of one shape; None for those that have no shape."""
    (shape, *others) = (array.shape for array in arrays.values())
    if any(other != shape for other in others) or len(position) != len(shape):
        return None
    long = [axis for axis, size in enumerate(shape) if size > 1] or list(range(len(shape)))[-1:]
    axes = tuple(long[-2:])
    parts: list[int | slice] = list(position)
    start: list[int] = []
    for axis, most in zip(reversed(axes), (COLUMNS, ROWS), strict=False):
        at = max(0, min(position[axis] - most // 2, shape[axis] - most))
        parts[axis] = slice(at, at + most)
        start.insert(0, at)
    grids = tuple(_grid(np.atleast_2d(array[tuple(parts)])) for array in arrays.values())
    return ValueWindow(position, axes, tuple(start), tuple(arrays), grids)


def _grid(values: np.ndarray) -> Grid:
    return tuple(tuple(float(value) for value in row) for row in values)
