"""How far noise carries a result: run the same again with perturbed numbers, take the largest move.

Scales that no formula gives, the envelopes of inherited error and of loss curves, and the limits in
a snapshot are all measured this way. Each has its own noise, whose random draws are part of what it
promises; what they share is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

_CHUNK = 1 << 20  # values at a time: a full-size gradient has a hundred million


def perturbed(array: np.ndarray, size: float, draw: Callable[[tuple[int, ...]], Any]) -> np.ndarray:
    """`array · (1 + size · noise)` in the array's own dtype, the noise being `draw(shape)`."""
    noise = np.asarray(draw(array.shape))
    noise *= size
    noise += 1.0
    noise *= array
    return noise.astype(array.dtype)


def holds_integers(array: np.ndarray) -> bool:
    """Whether all numbers are whole, as of an index, a mask or a count that floats hold: exact.

    >>> holds_integers(np.array([0.0, 3.0])), holds_integers(np.array([0.5, 3.0]))
    (True, False)
    """
    return bool((np.rint(array) == array).all())


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array's values in order, a part at a time, each flat."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def largest(values: np.ndarray) -> float:
    """The largest |value|; 0 for no values, and NaN counts for nothing."""
    return max((float(np.nanmax(np.abs(a), initial=0.0)) for a in pieces(values)), default=0.0)


def largest_move(moved: Any, clean: Any) -> float:
    """The largest |moved − clean|; 0 for no values, and NaN counts for nothing."""
    largest = 0.0
    for a, b in zip(pieces(moved), pieces(clean), strict=True):
        with np.errstate(invalid="ignore"):  # ∞ − ∞, of a mask
            largest = max(largest, float(np.nanmax(np.abs(a - b), initial=0.0)))
    return largest


def elementwise_moves(
    clean: Mapping[str, np.ndarray], runs: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Each value's own largest move over several runs, in the shape of the values."""
    # a change of whole numbers is a difference of floats: booleans have none, unsigned ones wrap
    clean = {n: x.astype(np.result_type(x, np.float32), copy=False) for n, x in clean.items()}
    moves = {name: np.zeros_like(value) for name, value in clean.items()}
    for moved in runs:
        for name, most in moves.items():
            with np.errstate(invalid="ignore"):  # ∞ − ∞, of a mask: no move is known
                np.maximum(most, np.abs(moved[name] - clean[name]), out=most)
    return moves


class LargestMoves:
    """The largest move of each array over several runs, in absolute numbers: `moves`, by key."""

    def __init__(self, clean: Mapping[Any, np.ndarray]) -> None:
        self.clean = {key: v.astype(np.float64, copy=False) for key, v in clean.items()}
        self.moves: dict[Any, float] = dict.fromkeys(clean, 0.0)

    def note(self, key: Any, value: np.ndarray) -> None:
        """Take in one array of a further run."""
        self.moves[key] = max(self.moves[key], largest_move(value, self.clean[key]))

    def widen(self, moved: Iterable[tuple[Any, np.ndarray]]) -> None:
        """Take in one more run of the same, array by array. Raises ValueError if it lacks one."""
        missing = set(self.clean)
        for key, value in moved:
            self.note(key, value)
            missing.discard(key)
        if missing:
            raise ValueError(f"a noisy run gave no {min(map(str, missing))}")
