"""How far rounding may carry each value, by running the same again with noise in every number.

In float64 the same is run with relative noise in every input and parameter, in pairs of opposite
sign, so that a value near a kink (a ReLU's zero, two nearly equal values in a pooling window) falls
to the other side in one of the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.gate.record.subjects import drawn
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT
from parity_tests.numerics.perturb import LargestMoves, perturbed, pieces

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
    return perturbed(array, sign * NOISE * _UNIT, drawn("noise", *seed, pair).standard_normal)


class NoiseEnvelope(LargestMoves):
    """How far each value may be carried, by the largest move of each."""

    def limit(self, key: Any, size: float | None = None) -> float:
        """ENVELOPE_FACTOR moves, but no less than a bound of 16 u of the size that is rounded.

        The size is the largest value where it is not given.
        """
        if size is None:
            size = largest(self.clean[key])
        return max(ENVELOPE_FACTOR * self.moves[key], NOISE * _UNIT * size)


def largest(array: np.ndarray) -> float:
    """The largest finite |value| of an array; 0 where there is none."""
    parts = (np.abs(part[np.isfinite(part)]).max(initial=0.0) for part in pieces(array))
    return float(max(parts, default=0.0))
