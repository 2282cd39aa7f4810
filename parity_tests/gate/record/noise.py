"""How far rounding may carry each value, by running the same again with noise in every number.

In float64 the same is run with relative noise in every input and parameter, in pairs of opposite
sign, so that a value near a kink (a ReLU's zero, two nearly equal values in a pooling window) falls
to the other side in one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from parity_tests.gate.record.quantities import pieces
from parity_tests.gate.record.subjects import drawn
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT

__all__ = ["DRAWS", "NOISE", "PAIRS", "Draw", "Moves", "largest", "noisy"]

NOISE = 16.0  # units of float32's roundoff, the bound of a single operation
PAIRS = 2

Draw = tuple[int, int]  # the pair, and the sign of its noise
DRAWS: tuple[Draw, ...] = tuple((pair, sign) for pair in range(PAIRS) for sign in (1, -1))

_UNIT = UNIT["float32"]


def noisy(array: np.ndarray, *seed: object, draw: Draw) -> np.ndarray:
    """Relative normal noise of NOISE units of float32's roundoff; integers stay as they are."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    pair, sign = draw
    noise = np.asarray(drawn("noise", *seed, pair).standard_normal(array.shape))
    noise *= sign * NOISE * _UNIT
    noise += 1.0
    noise *= array
    return noise.astype(array.dtype)


class Moves:
    """The largest move of each value, in absolute numbers."""

    def __init__(self, clean: Mapping[Any, np.ndarray]) -> None:
        self._clean = {k: v.astype(np.float64, copy=False) for k, v in clean.items()}
        self._most = dict.fromkeys(clean, 0.0)

    def widen(self, moved: Iterable[tuple[Any, np.ndarray]]) -> None:
        """Take in one more run of the same, value by value. Raises ValueError if it lacks one."""
        missing = set(self._clean)
        for key, value in moved:
            for a, b in zip(pieces(value), pieces(self._clean[key]), strict=True):
                move = float(np.nanmax(np.abs(a - b), initial=0.0))
                self._most[key] = max(self._most[key], move)
            missing.discard(key)
        if missing:
            raise ValueError(f"a noisy run gave no {min(map(str, missing))}")

    def limit(self, key: Any, size: float | None = None) -> float:
        """ENVELOPE_FACTOR moves, but no less than a bound of 16 u of the size that is rounded.

        The size is the largest value where it is not given.
        """
        if size is None:
            size = largest(self._clean[key])
        return max(ENVELOPE_FACTOR * self._most[key], NOISE * _UNIT * size)


def largest(array: np.ndarray) -> float:
    """The largest finite |value| of an array; 0 where there is none."""
    parts = (np.abs(part[np.isfinite(part)]).max(initial=0.0) for part in pieces(array))
    return float(max(parts, default=0.0))
