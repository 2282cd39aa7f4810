"""How long a step takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["step_times"]

WARM = 2.0  # steps are untimed until this many seconds have gone: graphs, memory, kernels
LEAST = 2  # steps that are timed, however long they take


def step_times(step: Callable[[], Any], seconds: float) -> list[float]:
    """How long each call took, for `seconds` after untimed ones, and twice at least."""
    began = time.perf_counter()
    while True:
        step()
        if time.perf_counter() - began > min(seconds, WARM):
            break
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times
