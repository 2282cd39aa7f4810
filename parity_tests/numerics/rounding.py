"""Roundings that numpy has no function for."""

from __future__ import annotations

import numpy as np


def mantissa(array: np.ndarray, bits: int, *, away: bool = False) -> np.ndarray:
    """float32 values rounded to `bits` bits of mantissa, to even or ties away from zero."""
    pattern = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    dropped = np.uint64(23 - bits)
    half = np.full_like(pattern, 2 ** (22 - bits))
    if not away:
        half += ((pattern >> dropped) & np.uint64(1)) - np.uint64(1)
    rounded = ((pattern + half) >> dropped) << dropped
    return rounded.astype(np.uint32).view(np.float32)
